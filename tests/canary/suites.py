"""The tests and the other rigs, with every log line at DEBUG in both formats, and all output searched."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

from canary.marks import Marks, Row
from support.canary import Watch
from support.rig import say

TESTS: Final = Path(__file__).parents[1]
_SUITES: Final = ("grant", "service", "secrets", "share", "hooks", "lifecycle", "cli", "api", "publish")
_RIGS: Final = (("attacks",), ("faults", "--short"), ("fleet", "--short"), ("consumers",))
_WRONG: Final = re.compile(r"^WRONG|^FAILED|\bBROKEN\b")
"""What the rigs call a line about something that is wrong."""
_SAID: Final = re.compile(r"canary: (\d+) bytes with (\d+) lines of the log, (\d+) secrets, (\d+) hits")


def suites(marks: Marks) -> list[str]:
    """Run the tests of these packages; returns what went wrong."""
    faults = []
    for name in _SUITES:
        argv = [sys.executable, "-m", "pytest", "-q", "-n2", str(TESTS / name)]
        done = subprocess.run(argv, cwd=TESTS.parent, capture_output=True, text=True, check=False)
        said = _SAID.search(done.stdout)
        row = marks.rows.setdefault("logs at DEBUG as text and JSON, and all output, of tests", Row())
        if said is None:
            faults.append(f"tests/{name}: no canary:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
            continue
        content, lines, secrets, hits = map(int, said.groups())
        row.amount, row.marks = row.amount + content, row.marks + secrets
        say(f"tests/{name}: {content} bytes, {lines} lines of the log, {secrets} secrets, {hits} hits")
        if done.returncode or hits:
            faults.append(f"tests/{name}: exit {done.returncode}:\n{done.stdout[-6000:]}")
    return faults


def rigs(marks: Marks) -> list[str]:
    """Run the other rigs, whose daemons tell what they handle; returns what went wrong."""
    faults = []
    for name, *options in _RIGS:
        watch = Watch()
        try:
            done = subprocess.run(
                [sys.executable, "-m", name, *options],
                cwd=TESTS,
                env={**os.environ, **watch.tap.environ},
                capture_output=True,
                check=False,
            )
            watch.show(f"the output of {name}", done.stdout + done.stderr)
            hits = watch.hits()
        finally:
            watch.close()
        row = marks.rows.setdefault("logs at DEBUG as text and JSON, and all output, of rigs", Row())
        row.amount, row.marks = row.amount + watch.bytes, row.marks + len(watch.canary)
        row.hits += hits
        told = f"{watch.bytes} bytes, {watch.lines} lines of the log, {len(watch.canary)} secrets, {len(hits)} hits"
        last = done.stdout.decode(errors="replace").strip().rpartition("\n")[2]
        say(f"python -m {name}: {told}; it said: {last[:100]}")
        if done.returncode:
            output = done.stdout.decode(errors="replace")
            wrong = "\n".join(line[:1000] for line in output.splitlines() if _WRONG.search(line))
            faults.append(f"python -m {name}: exit {done.returncode}:\n{wrong[:6000]}\n{output[-1000:]}")
        elif why := not_searched(done.stdout, watch.lines):
            faults.append(f"python -m {name}: nothing was searched: {why}")
    return faults


def not_searched(output: bytes, lines: int) -> str:
    """Why a rig that ended with 0 shows nothing: it was skipped, or no daemon logged a line. Empty if it ran."""
    said = output.decode(errors="replace").splitlines()
    skipped = next((line for line in said if line.startswith("SKIPPED")), "")
    return skipped or ("" if lines else "no daemon told what it logged")
