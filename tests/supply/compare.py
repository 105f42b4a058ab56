"""What is in an artefact, and in which files two artefacts differ."""

from __future__ import annotations

import hashlib
import io
import subprocess
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

_SHOWN = 10  # differing files; all of them would be thousands if a directory's time differs


def digest(artefact: Path) -> str:
    """The SHA-256 of a file."""
    return hashlib.sha256(artefact.read_bytes()).hexdigest()


def contents(artefact: Path) -> dict[str, str]:
    """Each file of a wheel, an sdist or a Debian package, with all that is stored about it."""
    if artefact.suffix == ".whl":
        return dict(_of_zip(artefact))
    if artefact.suffix == ".deb":
        return dict(_of_tar(_tar(artefact, "--fsys-tarfile"))) | {
            f"DEBIAN/{name}": what for name, what in _of_tar(_tar(artefact, "--ctrl-tarfile"))
        }
    return dict(_of_tar(artefact.read_bytes()))


def differences(first: Path, second: Path) -> list[str]:
    """Nothing if they are the same bytes; else the files that differ, and how."""
    if digest(first) == digest(second):
        return []
    ours, theirs = contents(first), contents(second)
    found = [
        f"{name}: {ours.get(name, 'not there')} | {theirs.get(name, 'not there')}"
        for name in sorted({*ours, *theirs})
        if ours.get(name) != theirs.get(name)
    ]
    if not found:
        return ["the same files, in another order or compressed differently"]
    return [*found[:_SHOWN], *([f"… and {len(found) - _SHOWN} more files"] if len(found) > _SHOWN else [])]


def file_of(deb: Path, name: str) -> bytes:
    """One file of a Debian package."""
    with tarfile.open(fileobj=io.BytesIO(_tar(deb, "--fsys-tarfile"))) as tar:
        stream = tar.extractfile(f"./{name}")
        assert stream, name
        return stream.read()


def _tar(deb: Path, part: str) -> bytes:
    return subprocess.run(["dpkg-deb", part, deb], check=True, capture_output=True).stdout


def _of_zip(path: Path) -> Iterator[tuple[str, str]]:
    with zipfile.ZipFile(path) as wheel:
        for one in wheel.infolist():
            yield one.filename, f"{one.external_attr >> 16:o} {one.date_time} {_hash(wheel.read(one))}"


def _of_tar(data: bytes) -> Iterator[tuple[str, str]]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for one in tar:
            stream = tar.extractfile(one) if one.isfile() else None
            what = _hash(stream.read()) if stream else one.linkname
            owner = f"{one.uid}:{one.gid} {one.uname}:{one.gname}"
            yield one.name, f"{one.type.decode()} {one.mode:o} {owner} {one.mtime:.0f} {what}"


def _hash(data: bytes) -> str:
    return f"{len(data)} bytes {hashlib.sha256(data).hexdigest()[:16]}"
