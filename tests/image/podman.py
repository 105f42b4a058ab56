"""Podman in a corner of its own: its images, its containers and its settings are this run's."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from support.pip import settings

ROOT = Path(__file__).parents[2]
PROGRAMS = {"podman": "podman", "crun": "crun", "mmdebstrap": "mmdebstrap", "unshare": "util-linux"}
_STAND_IN = "python3,python3-venv,ca-certificates"


class Podman:
    """Runs podman; everything that it keeps is below a directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        # An overlay cannot be on another, as a container's own file system is.
        stat = subprocess.run(["stat", "-f", "-c", "%T", directory], capture_output=True, text=True, check=True)
        driver = "vfs" if stat.stdout.strip() == "overlayfs" else "overlay"
        storage = f'[storage]\ndriver = "{driver}"\ngraphroot = "{directory}/graph"\nrunroot = "{directory}/run"\n'
        (directory / "storage.conf").write_text(storage)
        # No limits that this machine may not grant, and the network of the machine: the token server is on loopback.
        (directory / "containers.conf").write_text(
            '[containers]\ncgroups = "disabled"\nnetns = "host"\nlog_driver = "k8s-file"\n'
            'default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]\n'
            '[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "none"\nruntime = "crun"\n'
        )
        self._environ = os.environ | {
            "CONTAINERS_STORAGE_CONF": f"{directory}/storage.conf",
            "CONTAINERS_CONF": f"{directory}/containers.conf",
        }

    def __call__(self, *arguments: str | Path, code: int = 0, within: float = 300.0, cwd: Path | None = None) -> str:
        """Run a command of podman's, which must end with this code; what it printed."""
        ended, printed, complained = self._run(arguments, within, cwd)
        assert ended == code, f"podman {' '.join(map(str, arguments))}: exit {ended}\n{printed}{complained}"
        return printed.strip()

    def code(self, *arguments: str | Path) -> int:
        """How a command of podman's ends."""
        return self._run(arguments)[0]

    def logs(self, name: str) -> str:
        """All that a container said."""
        return "".join(self._run(["logs", name])[1:])

    def clear(self) -> None:
        """End and unmount all that is there."""
        self.code("rm", "--all", "--force", "--time=0")
        self.code("volume", "rm", "--all", "--force")

    def _run(
        self, arguments: Sequence[str | Path], within: float = 300.0, cwd: Path | None = None
    ) -> tuple[int, str, str]:
        # Into files: what it leaves running would keep a pipe open. On stderr it says, without systemd, that it has
        # no timers for health checks.
        with (self.directory / "out").open("w+") as out, (self.directory / "err").open("w+") as err:
            done = subprocess.run(
                ["podman", *map(str, arguments)], env=self._environ, cwd=cwd, timeout=within, check=False,
                stdin=subprocess.DEVNULL, stdout=out, stderr=err,
            )  # fmt: skip
            out.seek(0)
            err.seek(0)
            return done.returncode, out.read(), err.read()

    def inspect(self, kind: str, name: str) -> Any:
        """What podman knows of an image or a container."""
        return json.loads(self(kind, "inspect", name))[0]


def stand_in(podman: Podman) -> str:
    """An image under the name that the Containerfile begins with, made from Debian; returns that name.

    As in the official one Python's library is there as source alone. It also has what `pip_settings` mounts, but empty:
    else a build would leave these files in the image.
    """
    found = re.search(r"^ARG BASE=(\S+)$", (ROOT / "Containerfile").read_text(), re.MULTILINE)
    assert found, "the Containerfile names no base"
    tar = podman.directory / "base.tar"
    uncompiled = 'find "$1/usr/lib/python3" "$1"/usr/lib/python3.* -name "*.pyc" -delete'
    options = ["--quiet", "--variant=minbase", f"--include={_STAND_IN}", f"--customize-hook={uncompiled}"]
    for path in ("/etc/pip.conf", *settings()[1]):
        command = "install -d" if os.path.isdir(path) else "install -D /dev/null"
        options.append(f'--customize-hook={command} "$1"{shlex.quote(path)}')
    subprocess.run(["mmdebstrap", *options, "bookworm", tar], check=True)
    podman("import", tar, found[1])
    tar.unlink()
    return found[1]


def pip_settings(directory: Path) -> list[str]:
    """The options that let pip in a build do as pip does here.

    They are mounts: a build argument would have to stand in the Containerfile, and would be kept in the image.
    """
    text, paths = settings()
    file = directory / "pip.conf"
    file.write_text(text)
    return [f"--volume={file}:/etc/pip.conf:ro", *(f"--volume={path}:{path}:ro" for path in paths)]
