"""Installs bearerd below a directory, from the locks next to this file: `python3 requirements/install.py ROOT`.

ROOT/opt/bearerd becomes a virtual environment for the Python that runs this, with bearerd and all extras, and without
pip. ROOT/usr/share/bearerd/sbom.cdx.json is its SBOM (CycloneDX 1.6). The Debian package and the image contain both.
The same checkout, the same Python and the same SOURCE_DATE_EPOCH give the same bytes.

pip installs only wheels whose hashes are in the locks, so no code of a dependency runs during the installation. The
tools that build bearerd's wheel and write the SBOM are installed from `build.txt`, in a directory that is deleted at
the end. Needs Python's modules venv and ensurepip.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parent
PLACE = "opt/bearerd"
"""Where the environment is in the end, without the leading slash."""
SBOM = "usr/share/bearerd/sbom.cdx.json"
_KEPT = re.compile(r"bearerd|python[0-9.]*")  # of bin/: the others are programs of dependencies
_LOCKED = ["--quiet", "--require-hashes", "--only-binary=:all:", "--no-compile"]


def main() -> int:
    """Install; exit status 1 if a step fails."""
    if len(sys.argv) != 2:  # noqa: PLR2004 - the program and ROOT
        sys.stderr.write("usage: requirements/install.py ROOT\n")
        return 2
    root = Path(sys.argv[1]).resolve()
    os.umask(0o022)
    with tempfile.TemporaryDirectory(prefix="bearerd-install-") as name:
        try:
            install(root, Path(name))
        except subprocess.CalledProcessError as error:
            sys.stderr.write(f"{root} is incomplete: {error}\n")
            return 1
    return 0


def install(root: Path, work: Path) -> None:
    """Install below `root`; `work` is an empty directory for tools and intermediate files."""
    tools, venv, report = work / "tools", root / PLACE, work / "report.json"
    _run(sys.executable, "-m", "venv", tools)
    _run(tools / "bin/pip", "install", *_LOCKED, "--requirement", HERE / "build.txt")
    _run(tools / "bin/hatchling", "build", "--target", "wheel", "--directory", work / "dist", cwd=CHECKOUT)
    [wheel] = (work / "dist").glob("*.whl")

    _run(sys.executable, "-m", "venv", "--without-pip", venv)
    pip: list[str | Path] = [tools / "bin/pip", f"--python={venv}/bin/python", "install"]
    _run(*pip, *_LOCKED, "--report", report, "--requirement", HERE / "runtime.txt")
    _run(*pip, "--quiet", "--no-compile", "--no-index", "--no-deps", wheel)
    _forget_the_place(root, work)

    sbom = root / SBOM
    sbom.parent.mkdir(parents=True, exist_ok=True)
    _run(tools / "bin/cyclonedx-py", "environment", "--spec-version=1.6", "--output-reproducible", "--no-validate",
         f"--pyproject={CHECKOUT}/pyproject.toml", f"--output-file={sbom}", venv / "bin/python")  # fmt: skip
    listed = with_hashes(json.loads(sbom.read_text()), json.loads(report.read_text()), wheel)
    sbom.write_text(json.dumps(listed, indent=2, sort_keys=True) + "\n")


def with_hashes(sbom: dict[str, Any], report: Mapping[str, Any], wheel: Path) -> dict[str, Any]:
    """Add to each component the name and the SHA-256 of the wheel that it was installed from.

    `report` is pip's report of the installation, and `wheel` is that of bearerd itself.
    """
    wheels = {
        _normalized(item["metadata"]["name"]): (
            item["download_info"]["url"].rpartition("/")[2],
            item["download_info"]["archive_info"]["hashes"]["sha256"],
        )
        for item in report["install"]
    }
    wheels["bearerd"] = wheel.name, hashlib.sha256(wheel.read_bytes()).hexdigest()
    for component in [sbom["metadata"]["component"], *sbom["components"]]:
        name, digest = wheels[_normalized(component["name"])]
        component["hashes"] = [{"alg": "SHA-256", "content": digest}]
        component.setdefault("properties", []).append({"name": "bearerd:wheel", "value": name})
    return sbom


def _forget_the_place(root: Path, work: Path) -> None:
    """Make the environment independent of `root` and `work`, and complete without programs of dependencies."""
    venv = root / PLACE
    for path in (venv / "bin").iterdir():
        if not _KEPT.fullmatch(path.name):
            path.unlink()
    # For headers of C, of which there are none, and what venv adds since Python 3.13.
    shutil.rmtree(venv / "include", ignore_errors=True)
    (venv / ".gitignore").unlink(missing_ok=True)
    command = venv / "bin/bearerd"
    command.write_text(re.sub(r"\A.*", f"#!/{PLACE}/bin/python3", command.read_text(), count=1))
    config = venv / "pyvenv.cfg"
    config.write_text(re.sub(r"^command = .*\n", "", config.read_text(), flags=re.MULTILINE))
    for path in venv.glob("lib/*/site-packages/bearerd-*.dist-info/direct_url.json"):
        path.unlink()  # it names the wheel in `work`
    for record in venv.glob("lib/*/site-packages/*.dist-info/RECORD"):
        record.write_text(_corrected(record))
    names = [str(place) for place in (root, work) if place != Path("/")]
    for path in sorted(venv.rglob("*")):
        if path.is_file() and not path.is_symlink() and any(name.encode() in path.read_bytes() for name in names):
            raise SystemExit(f"{path} names a directory of the build")


def _corrected(record: Path) -> str:
    """The list of files of an installed wheel, after some were changed or deleted; in the order of their names."""
    site = record.parents[1]
    lines = []
    with record.open(newline="") as file:
        for name, digest, size in sorted(csv.reader(file)):
            path = site / name
            if digest and path.exists():
                data = path.read_bytes()
                encoded = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
                lines.append((name, f"sha256={encoded}", str(len(data))))
            elif path.exists():
                lines.append((name, digest, size))
    written = io.StringIO()
    csv.writer(written, lineterminator="\n").writerows(lines)
    return written.getvalue()


def _normalized(name: str) -> str:
    """A project's name in the form in which names are compared (PyPA, "Names and normalization")."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _run(*argv: str | Path, cwd: Path | None = None) -> None:
    """Run a program that must succeed, so that its result does not depend on the caller's locale or time zone.

    pip may import what it installed. The bytecode of that would name the directory of the build.
    """
    environment = os.environ | {"LC_ALL": "C.UTF-8", "TZ": "UTC", "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run([*map(str, argv)], cwd=cwd, env=environment, check=True)


if __name__ == "__main__":
    raise SystemExit(main())
