"""Millions of reads under refresh: `cd tests && python -m reads [--short] [--reads N] [--seed N]`, as root.

A real daemon keeps tokens of a few seconds in files of all formats, on a tmpfs and on an ext4 file system. Readers in
C, Python and shell read these files all the time, in the ways that programs do. The daemon is killed in the middle of
refreshes and started again, gets signals, and gets good and broken configs. Each token proves by itself that it is
whole, and says when it expires (`support/minted.py`).

A read is *torn* if the file is empty, a part, or a mixture; *absent* if the file cannot be opened; *expired* if the
token's expiry had passed before the file was opened. The promise about expiry is that of the daemon's lead: it holds
as long as the daemon runs, its provider answers, and both get the CPU within half a lifetime. So the lifetimes leave
2 s at least, 40 s while the daemon is killed, and both processes go before all others.

At the end, three daemons with a fault must be found. The exit code is 1 if a read was bad, or a fault was not found.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final, TypeVar

from reads.mutants import MUTANTS, found
from reads.run import Amount, run
from support.counted import prioritise
from support.minting import PRIORITY
from support.rig import INSIDE, in_a_namespace_of_mounts, in_memory, say, why_not

_PROGRAMS: Final = {
    "bash": "bash",
    "dash": "dash",
    "gcc": "gcc",
    "losetup": "mount",
    "mkfs.ext4": "e2fsprogs",
    "unshare": "util-linux",
}
_IMAGE_BYTES: Final = 128 << 20
_SHORT: Final = Amount(reads=20_000, refreshes=1, kills=2, within=300)
_FULL: Final = Amount(reads=10_000_000, refreshes=10, kills=5, within=4 * 3600)

_Result = TypeVar("_Result")


def main() -> int:
    """Read on both file systems at once, then find the mutants; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m reads")
    parser.add_argument("--short", action="store_true", help="the form for CI, in half a minute")
    parser.add_argument("--reads", type=int, help="on each file system; the default is 10 million")
    parser.add_argument("--seed", type=int, default=1, help="of the moments at which the daemon is killed")
    parser.add_argument(INSIDE, action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if why := why_not(_PROGRAMS):
        say(f"SKIPPED: {why}")
        return 0
    if not options.inside:
        in_a_namespace_of_mounts("reads", [INSIDE, *sys.argv[1:]])
    prioritise(os.getpid(), PRIORITY)
    amount = _SHORT if options.short else _FULL
    amount = replace(amount, reads=options.reads or amount.reads)
    began = time.monotonic()
    with (
        in_memory("reads") as scratch,
        _file_systems(scratch) as systems,
        ThreadPoolExecutor(2 + len(MUTANTS)) as pool,
    ):
        runs = [pool.submit(run, system, path, amount, options.seed) for system, path in systems.items()]
        hunts = [pool.submit(found, mutant, scratch / f"mutant-{n}") for n, mutant in enumerate(MUTANTS)]
        results = [_result(one.result, f"seed {options.seed}") for one in runs]
        finds = [_result(hunt.result, "a fault that was put in was not found") for hunt in hunts]
    for find in filter(None, finds):
        say(find)
    say(f"all of it in {time.monotonic() - began:.0f} s\n")
    say("| file system | reader | reads | refreshes seen | torn | absent | expired |")
    say("|---|---|---:|---:|---:|---:|---:|")
    rows = [row for result in results for row in result or []]
    for row in rows:
        say(str(row))
    return 0 if all(results) and all(finds) and not any(row.counts.bad for row in rows) else 1


def _result(result: Callable[[], _Result], what: str) -> _Result | None:
    """A result, or None after its error was printed."""
    try:
        return result()
    except (AssertionError, OSError, subprocess.SubprocessError):
        say(f"FAILED: {what}: {traceback.format_exc()}")
        return None


@contextmanager
def _file_systems(scratch: Path) -> Iterator[dict[str, Path]]:
    """A tmpfs, and an ext4 file system in an image."""
    systems = {name: scratch / name for name in ("tmpfs", "ext4")}
    for path in systems.values():
        path.mkdir()
    image = scratch / "image"
    with image.open("wb") as file:
        file.truncate(_IMAGE_BYTES)
    subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=0755", "tmpfs", systems["tmpfs"]], check=True)
    subprocess.run(["mount", "-o", "loop", image, systems["ext4"]], check=True)
    try:
        yield systems
    finally:
        for path in systems.values():
            subprocess.run(["umount", "--recursive", path], check=True)


if __name__ == "__main__":
    raise SystemExit(main())
