"""The Debian package on Debian 13, and the image: built twice, as here."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from pathlib import Path

from image.podman import PROGRAMS as FOR_IMAGES
from image.podman import ROOT, Podman, pip_settings, stand_in
from supply import builds
from supply.builds import QUICK, Built
from supply.compare import contents
from supply.lock import lock
from supply.sbom import SBOM, checked
from supply.surroundings import EPOCH, pair
from support.pip import settings
from support.rig import one_cgroup_tree, why_not

_INCLUDED = "python3,python3-venv,ca-certificates,faketime,git"


def trixie(work: Path, tools: Path) -> Built:
    """The package, built in a Debian 13 without a systemd."""
    if why := why_not({"mmdebstrap": "mmdebstrap"}):
        return Built("bearerd on Debian 13", "", 0, "", [f"SKIPPED: {why}"])
    root = work / "trixie"
    subprocess.run(["mmdebstrap", "--quiet", "--mode=root", "--variant=minbase", f"--include={_INCLUDED}", "trixie",
                    root], check=True)  # fmt: skip
    text, paths = settings()
    (root / "etc/pip.conf").write_text(text)
    for path in map(Path, paths):
        inside = root / str(path)[1:]
        if path.is_dir():
            inside.mkdir(parents=True, exist_ok=True)
        else:
            inside.parent.mkdir(parents=True, exist_ok=True)
            inside.touch()
        subprocess.run(["mount", "--bind", path, inside], check=True)
    subprocess.run(["mount", "--rbind", "/dev", root / "dev"], check=True)
    try:
        with pair(root, root / "srv") as both:
            return builds.deb(both, tools, work, QUICK)
    finally:
        for place in (root / "dev", *(root / str(path)[1:] for path in paths)):
            subprocess.run(["umount", "--lazy", place], check=True)


def image(work: Path, tools: Path) -> Built:
    """Built twice without a cache, on one base and with one time; layers and config must be the same.

    Docker's format, which a HEALTHCHECK needs, also keeps the random name of the build's container. So the ids differ.
    """
    if why := why_not(FOR_IMAGES):
        return Built("the image", "", 0, "", [f"SKIPPED: {why}"])
    one_cgroup_tree()
    directory = work / "image"
    directory.mkdir()
    podman = Podman(directory)
    try:
        stand_in(podman)
        for name in ("first", "second"):
            podman(
                "build", "--isolation=chroot", "--pull=never", "--no-cache", "--format=docker",
                f"--timestamp={EPOCH}", f"--build-arg=SOURCE_DATE_EPOCH={EPOCH}", *pip_settings(directory),
                "-f", "Containerfile", "-t", name, ".",
                within=900, cwd=ROOT,
            )  # fmt: skip
            podman("create", f"--name=of-{name}", name)
            podman("export", f"--output={directory}/{name}.tar", f"of-{name}")
        first, second = (podman.inspect("image", name) for name in ("first", "second"))
        label = first["Config"]["Labels"]["bearerd.sbom"]
        ours, theirs = (contents(directory / f"{name}.tar") for name in ("first", "second"))
        faults = [f"{name}: {ours.get(name)} | {theirs.get(name)}" for name in {*ours, *theirs}
                  if ours.get(name) != theirs.get(name)]  # fmt: skip
        faults += [f"the two images differ in {part}" for part in ("RootFS", "Config") if first[part] != second[part]]
        faults += [] if label == f"/{SBOM}" else [f"the label names {label}"]
        root = builds.exported(directory / "first.tar", directory / "unpacked")
        count, more = checked(root, lock("runtime"), tools / "bin/python")
        made = json.loads((root / SBOM).read_text())["metadata"]["timestamp"]
        faults += [] if made.startswith("2026-09-21") else [f"the SBOM is of {made}"]
        files = sum(name.startswith(("opt/bearerd", "usr/share/bearerd")) for name in ours)
        sha256 = hashlib.sha256("".join(first["RootFS"]["Layers"]).encode()).hexdigest() if not faults else ""
        return Built("the image", sha256, files, f"{count} of {count} projects", faults + more)
    finally:
        podman.clear()
        shutil.rmtree(directory / "unpacked", ignore_errors=True)
