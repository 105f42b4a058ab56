"""What breaks, really broken: `cd tests && python -m faults [--short] [--scene NAME]`, as root.

The real commands under readers: killed at each system call, each call failing, disks that are full or gone, networks,
name servers and TLS servers that misbehave, clocks that are set, few threads, little memory, planted files. Prints what
is wrong, and a table; exit 1 if anything is. Where it cannot run it prints SKIPPED and the reason. libfaketime is the
library from PyPI, named in $BEARERD_FAKETIME.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from faults import configs, errors, files, kills, limits, names, networks, tls
from faults.injector import compiled
from faults.judge import HEAD, Row, tried
from faults.place import Rig
from faults.wrong_programs import wrong_programs
from support.rig import INSIDE, in_a_namespace_of_mounts, say, why_not

Scene = Callable[[Rig, Path], list[Row]]
_PROGRAMS: Final = {
    "chattr": "e2fsprogs",
    "gcc": "gcc libc6-dev",
    "ip": "iproute2",
    "mkfs.btrfs": "btrfs-progs",
    "nft": "nftables",
    "unshare": "util-linux",
}
BUSY: Final[Mapping[str, Scene]] = {
    "kill-first": lambda rig, path: [kills.once(rig, path, first=True)],
    "kill-renewal": lambda rig, path: [kills.once(rig, path, first=False)],
    "kill-daemon": lambda rig, path: [kills.daemon(rig, path)],
    "errors": errors.errors,
    "reloads": errors.reloads,
    "planted": files.planted,
    "memory": limits.out_of_memory,
    "wrong-programs": wrong_programs,
}
"""Scenes that need a processor: one after the other, each with two runs at a time."""
WAITING: Final[Mapping[str, Scene]] = {
    "tcp": networks.tcp,
    "tls": tls.tls,
    "dns": names.dns,
    "clocks": limits.clocks,
    "limits": limits.limits,
    "suspend": limits.suspended,
    "file-systems": files.file_systems,
    "mounts": files.mounts,
    "configs": configs.configs,
    "kill-config": lambda rig, path: [kills.config_reader(rig, path)],
}
"""Scenes that mostly wait, longest first."""
_AT_ONCE: Final = 5


def main() -> int:
    """Run the scenes, or those that were named; returns the exit code."""
    scenes = {**BUSY, **WAITING}
    parser = argparse.ArgumentParser(prog="python -m faults")
    parser.add_argument("--short", action="store_true", help="a part of the calls and errors, in three minutes")
    parser.add_argument("--scene", action="append", choices=scenes, help="these alone")
    parser.add_argument(INSIDE, action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if why := _why_not():
        say(f"SKIPPED: {why}")
        return 0
    if not given.inside:
        in_a_namespace_of_mounts("faults", [INSIDE, *sys.argv[1:]], "--net")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="bearerd-faults-", ignore_cleanup_errors=True) as name:
        directory = Path(name)
        directory.chmod(0o755)  # another user runs a daemon there
        programs = directory / "programs"
        programs.mkdir()
        rig = Rig(
            short=given.short,
            injector=compiled(programs, "inject.c"),
            sleeper=compiled(programs, "suspend.c", "-shared", "-fPIC"),
            faketime=os.environ["BEARERD_FAKETIME"],
        )
        with ThreadPoolExecutor(1) as busy, ThreadPoolExecutor(_AT_ONCE) as waiting:
            running = [
                (busy if scene in BUSY else waiting).submit(_rows, rig, directory, scene, scenes[scene])
                for scene in scenes
                if scene in (given.scene or scenes)
            ]
            rows = [row for scene in running for row in scene.result()]
    found = sum(len(row.wrong) for row in rows)
    say(f"{sum(row.runs for row in rows)} runs in {time.monotonic() - began:.0f} s; {found} wrong\n\n{HEAD}")
    for row in rows:
        say(row.line())
    return 1 if found else 0


def _why_not() -> str:
    """Why this cannot run here, or an empty text."""
    why = why_not(_PROGRAMS)
    if not why and platform.machine() != "x86_64":
        why = "inject.c knows only the registers of x86_64"
    if not why and not os.environ.get("BEARERD_FAKETIME"):
        why = "pip install libfaketime, and name its library in $BEARERD_FAKETIME"
    return why


def _rows(rig: Rig, directory: Path, name: str, scene: Scene) -> list[Row]:
    """The rows of a scene; one that fails in an unexpected way must not stop the others."""
    path = directory / name
    path.mkdir()
    began = time.monotonic()
    rows, failed = [], Row(name)
    with tried(failed):
        rows = scene(rig, path)
    rows += [failed] if failed.wrong else []
    for row in rows:
        # A fault that was never hit shows nothing. Where one cannot be made here, the row has a note.
        row.expect(row.runs or row.wrong or row.note, "no run: the fault was never hit")
    faults = sum(len(row.wrong) for row in rows)
    say(f"{name:<14} {sum(row.runs for row in rows):>5} runs {time.monotonic() - began:>5.0f} s  {faults} wrong")
    return rows


if __name__ == "__main__":
    raise SystemExit(main())
