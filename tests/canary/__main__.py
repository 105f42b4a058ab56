"""Searches everything that bearerd shows for secrets and tokens: `cd tests && python -m canary [--short]`, as root.

Every secret, key, password and token carries a mark. A daemon with every kind of secret runs at DEBUG, as text and as
JSON, against providers, proxies and servers that repeat what they are sent; it crashes in every thread; configs have
secrets in the wrong places. All output, every exec, /proc of every process, every file and everything that another user
can read is searched for the marks, in every encoding. In the end a bearerd that leaks on purpose proves that this finds
leaks. Without --short also the tests and the other rigs run like that. Prints a table; exit 1 if anything was found.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Final

from attacks.common import other_users_cannot
from bearerd.cli.ask import NoAnswer
from canary.breaks import breaks
from canary.configs import configs
from canary.crashes import crashes
from canary.life import life
from canary.marks import Marks
from canary.suites import rigs, suites
from support.redis_server import binaries
from support.rig import INSIDE, in_a_namespace_of_mounts, say, why_not

_PROGRAMS: Final = {
    "ip": "iproute2",
    "microsocks": "microsocks",
    "redis-server": "redis-server",
    "strace": "strace",
    "tinyproxy": "tinyproxy",
    "unshare": "util-linux",
}
_SHORT: Final = "--short"


def main() -> int:
    """Skip, or do all of it; returns the exit code."""
    short = _SHORT in sys.argv
    if unknown := set(sys.argv[1:]) - {_SHORT, INSIDE}:
        say(f"unknown: {', '.join(sorted(unknown))}; usage: python -m canary [--short]")
        return 2
    why = why_not(_PROGRAMS) or other_users_cannot() or ("" if binaries() else "needs redis-server")
    if why:
        say(f"SKIPPED: {why}")
        return 0
    if INSIDE not in sys.argv:
        return _outside(short=short)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    began, marks, faults = time.monotonic(), Marks(), list[str]()
    scenes: dict[str, Callable[[Path], object]] = {
        "a daemon that logs as text": lambda path: life(path, marks, "text", short=short),
        "a daemon that logs as JSON, aborted": lambda path: life(path, marks, "json", short=short),
        "crashes": lambda path: f"{crashes(path, marks, short=short)} functions raised",
        "wrong configs": lambda path: f"{configs(path, marks, short=short)} configs",
        "a daemon that leaks": lambda path: _proof(breaks(path)),
    }
    for name, scene in scenes.items():
        with tempfile.TemporaryDirectory(prefix="bearerd-canary-") as place:
            started = time.monotonic()
            try:
                said = scene(Path(place).resolve()) or "done"
            except (AssertionError, NoAnswer, OSError, subprocess.SubprocessError):
                said = "FAILED"
                faults.append(f"{name}: {traceback.format_exc()}")
            say(f"{name}: {said} ({time.monotonic() - started:.0f} s)")
    for one in faults:
        say(f"FAILED {one}")
    for hit in marks.hits[:100]:
        say(f"FOUND {hit}")
    say(f"{len(marks.hits)} hits; all of it in {time.monotonic() - began:.0f} s\n")
    say("\n".join(marks.table()))
    return 1 if faults or marks.hits else 0


def _proof(missed: list[str]) -> str:
    assert not missed, f"not found: {', '.join(missed)}"
    return "every leak was found"


def _outside(*, short: bool) -> int:
    """The tests and the rigs make namespaces of their own; the rest runs in one, where /proc shows nothing else."""
    arguments = [INSIDE, _SHORT] if short else [INSIDE]
    if short:
        in_a_namespace_of_mounts("canary", arguments, *_NAMESPACES)
    marks = Marks()
    faults = suites(marks) + rigs(marks)
    for one in faults:
        say(f"FAILED {one}")
    for hit in marks.hits[:100]:
        say(f"FOUND {hit}")
    argv = ["unshare", "--mount", "--propagation", "private", *_NAMESPACES, sys.executable, "-m", "canary", *arguments]
    code = subprocess.run(argv, check=False).returncode
    say("\n".join(marks.table()[2:]))
    return 1 if code or faults or marks.hits else 0


_NAMESPACES: Final = ("--net", "--pid", "--fork", "--kill-child", "--mount-proc")


if __name__ == "__main__":
    raise SystemExit(main())
