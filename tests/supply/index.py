"""The locks against the index: the same hashes, wheels for each platform, and a renewal that finds newer versions."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from packaging.version import Version

from supply.lock import LOCKS, PROCESSORS, PYTHONS, ROOT, Locked, lock, parsed

NAMES = ("runtime", "build", "tools")
_WITHIN = 300.0  # seconds for one answer of uv, which takes a second or two
_LOWERED = "urllib3"
"""The project whose lowest allowed version stands for one with a vulnerability."""


def hashes(tools: Path, work: Path) -> list[str]:
    """The differences to a compilation of the same versions with fresh hashes."""
    copy = _copied(work / "hashes", {name: _without_hashes(name) for name in NAMES})
    _compile(tools, copy)
    faults = []
    for name in NAMES:
        ours = {str(entry.requirement): entry for entry in lock(name)}
        theirs = {str(entry.requirement): entry for entry in parsed((copy / f"requirements/{name}.txt").read_text())}
        faults += [f"{name}.txt: {one} is in one of the two only" for one in sorted({*ours} ^ {*theirs})]
        for one in sorted({*ours} & {*theirs}):
            # The index may have got more files of a version since then, such as wheels for a new Python.
            if unknown := ours[one].hashes - theirs[one].hashes:
                faults.append(f"{name}.txt: {one}: the index has no file with the hash {min(unknown)}")
    return faults


def platforms(tools: Path, work: Path) -> list[str]:
    """The Pythons and processors for which the index lacks a wheel."""
    faults = []
    for python in PYTHONS:
        for processor in PROCESSORS:
            done = _uv(
                tools, "pip", "install", "--dry-run", "--require-hashes", "--only-binary=:all:",
                f"--target={work}/target", f"--python-version={python}",
                f"--python-platform={processor}-manylinux_2_28",
                f"--requirement={LOCKS}/runtime.txt", cwd=work,
            )  # fmt: skip
            if done.returncode != 0:
                faults.append(f"runtime.txt on Python {python}, {processor}: {done.stderr.strip()[-500:]}")
    return faults


def renewal(tools: Path, work: Path) -> tuple[list[str], list[str]]:
    """Faults of a renewal, and the versions that it would change now.

    One version is set back to the lowest that pyproject.toml allows. A renewal that does not raise it would also miss a
    release that mends a vulnerability.
    """
    texts = {name: _without_hashes(name) for name in NAMES}
    [lowest] = re.findall(rf'"{_LOWERED}>=([\d.]+)', (ROOT / "pyproject.toml").read_text())
    texts["runtime"] = re.sub(rf"^{_LOWERED}==[^\s;]+", f"{_LOWERED}=={lowest}", texts["runtime"], flags=re.MULTILINE)
    copy = _copied(work / "renewal", texts)
    kept, raised = _compiled_version(tools, copy), _compiled_version(tools, copy, "--upgrade")
    faults = [] if kept == Version(lowest) else [f"without --upgrade, {_LOWERED} {lowest} became {kept}"]
    faults += [] if raised > Version(lowest) else [f"with --upgrade, {_LOWERED} stays at {lowest}"]
    changes: list[str] = []
    for name in NAMES:
        ours = {entry.name: str(entry.version) for entry in lock(name)}
        changes += [
            f"{name}.txt: {entry.name} {ours.get(entry.name, 'none')} -> {entry.version}"
            for entry in parsed((copy / f"requirements/{name}.txt").read_text())
            if ours.get(entry.name) != str(entry.version)
        ]
    return faults, changes


def _compiled_version(tools: Path, copy: Path, *options: str) -> Version:
    _compile(tools, copy, *options)
    entries: list[Locked] = parsed((copy / "requirements/runtime.txt").read_text())
    [entry] = [entry for entry in entries if entry.name == _LOWERED]
    return entry.version


def _copied(directory: Path, texts: dict[str, str]) -> Path:
    """What requirements/compile reads, with other locks."""
    (directory / "requirements").mkdir(parents=True)
    shutil.copy(ROOT / "pyproject.toml", directory)
    shutil.copy(LOCKS / "compile", directory / "requirements")
    for name, text in texts.items():
        (directory / f"requirements/{name}.txt").write_text(text)
    return directory


def _without_hashes(name: str) -> str:
    return "".join(f"{entry.requirement}\n" for entry in lock(name))


def _compile(tools: Path, copy: Path, *options: str) -> None:
    path = f"{tools}/bin{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [copy / "requirements/compile", *options], env=os.environ | {"PATH": path, "UV_PYTHON": f"{tools}/bin/python"},
        timeout=_WITHIN, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"requirements/compile: {done.stderr[-2000:]}"


def _uv(tools: Path, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"UV_PYTHON": f"{tools}/bin/python"}
    return subprocess.run(
        [f"{tools}/bin/uv", *arguments], cwd=cwd, env=environment, timeout=_WITHIN, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
