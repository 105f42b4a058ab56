"""Builds each artefact in both surroundings, compares the bytes, and looks at what is in it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from supply.compare import contents, differences, digest
from supply.lock import LOCKS, Locked, lock
from supply.sbom import checked
from supply.surroundings import EPOCH, Surroundings

# xz at its default level takes three times as long, and is as deterministic.
QUICK = {"DPKG_DEB_COMPRESSOR_LEVEL": "1"}
Pair = tuple[Surroundings, Surroundings]


@dataclass(frozen=True)
class Built:
    """One row of the table."""

    artefact: str
    sha256: str
    """Empty if the two are not the same bytes."""
    files: int
    installed: str
    faults: list[str]


def in_both(both: Pair, build: Callable[[Surroundings], None]) -> None:
    """Build in both at the same time."""
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(build, both))


def wheel_and_sdist(both: Pair, tools: Path) -> list[Built]:
    """By the locked hatchling; `tools` is its environment."""

    def build(where: Surroundings) -> None:
        where.must(tools / "bin/hatchling", "build", "-t", "sdist", "-t", "wheel",
                   "--directory", f"{where.directory}/out", more={"SOURCE_DATE_EPOCH": EPOCH})  # fmt: skip

    in_both(both, build)
    return [_compared(both, pattern, f"{len(lock('build'))} build tools") for pattern in ("*.whl", "*.tar.gz")]


def deb(both: Pair, tools: Path, work: Path, more: Mapping[str, str]) -> Built:
    """By systemd/deb/build, with the time of the commit; `more` is added to its environment."""
    in_both(both, lambda where: where.must("bash", "systemd/deb/build", f"{where.directory}/out", more=more))
    row = _compared(both, "*.deb", "")
    count, faults = _unpacked(both[0], work / "unpacked", tools)
    return Built(row.artefact, row.sha256, row.files, f"{count} of {count} projects", row.faults + faults)


def _unpacked(where: Surroundings, directory: Path, tools: Path) -> tuple[int, list[str]]:
    [package] = where.out.glob("*.deb")
    subprocess.run(["dpkg-deb", "--extract", package, directory], check=True)
    found = checked(directory, lock("runtime"), tools / "bin/python")
    shutil.rmtree(directory)
    return found


def _compared(both: Pair, pattern: str, installed: str) -> Built:
    [first], [second] = (list(where.out.glob(pattern)) for where in both)
    faults = differences(first, second)
    if first.name != second.name:
        faults.append(f"their names are {first.name} and {second.name}")
    return Built(first.name, "" if faults else digest(first), len(contents(first)), installed, faults)


def exported(tar: Path, directory: Path) -> Path:
    """The parts of an image's file system that come from the Containerfile."""
    directory.mkdir()
    subprocess.run(["tar", "-C", directory, "-xf", tar, "opt/bearerd", "usr/share/bearerd"], check=True)
    return directory


# -- what has to fail --------------------------------------------------------------------------------


def refused(where: Surroundings, name: str) -> list[str]:
    """Nothing if a build fails because a lock has other hashes than the index; the lock is put right again."""
    path = where.checkout / f"requirements/{name}.txt"
    right = path.read_text()
    entry: Locked = max(lock(name), key=lambda one: one.name)
    wrong = right
    for one in entry.hashes:
        wrong = wrong.replace(one, one[::-1])
    path.write_text(wrong)
    done = where.run("/usr/bin/python3", "-B", "requirements/install.py", f"{where.directory}/out/refused")
    path.write_text(right)
    shutil.rmtree(where.out / "refused", ignore_errors=True)
    if done.returncode == 0 or "DO NOT MATCH THE HASHES" not in done.stdout:
        return [f"{name}.txt with wrong hashes for {entry.name}: exit {done.returncode}, {done.stdout[-500:]}"]
    return []


def noticed(both: Pair, tools: Path) -> list[str]:
    """Nothing if the comparison finds a time stamp in a wheel; the trees are put right again."""
    name = "daemon/bearerd/stamp.txt"
    for where in both:
        where.must(
            "sh", "-c", 'date +%s.%N > "$1"', "sh", f"{where.checkout}/{name}"[len(str(where.root).rstrip("/")) :]
        )
    [row, _] = wheel_and_sdist(both, tools)
    for where in both:
        (where.checkout / name).unlink()
    found = any(fault.startswith("bearerd/stamp.txt: ") for fault in row.faults)
    return [] if found else ["two wheels with different time stamps are the same to the comparison"]


def noticed_in_deb(both: Pair, more: Mapping[str, str]) -> list[str]:
    """Nothing if the comparison finds a time stamp in a Debian package; the trees are put right again."""
    line = 'date +%s.%N > "$root/usr/share/bearerd/stamp"\n'
    for where in both:
        script = where.checkout / "systemd/deb/build"
        script.write_text(script.read_text().replace("architecture=$(", f"{line}architecture=$("))
    in_both(both, lambda where: where.must("bash", "systemd/deb/build", f"{where.directory}/out", "2", more=more))
    row = _compared(both, "*-2+*.deb", "")
    for where in both:
        script = where.checkout / "systemd/deb/build"
        script.write_text(script.read_text().replace(line, ""))
    found = [fault.partition(": ")[0] for fault in row.faults]
    # The list of checksums differs with it.
    return [] if "./usr/share/bearerd/stamp" in found else [f"a time stamp in a package was found as {found}"]


def environment(name: str, work: Path, python: str) -> Path:
    """An environment with all that a lock names."""
    directory = work / name
    subprocess.run([python, "-m", "venv", directory], check=True)
    subprocess.run(
        [directory / "bin/pip", "install", "--quiet", "--require-hashes", "--only-binary=:all:", "--requirement",
         LOCKS / f"{name}.txt"],
        check=True, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    return directory
