"""What the daemon uses, sampled from /proc: memory, threads and descriptors of each of its processes."""

from __future__ import annotations

import os
import re
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from soak.flat import LEAST_SAMPLES, Growth, growth
from support.kept import session_of

COUNTING: Final = (
    "import os, sys, threading, time",
    "from bearerd.service import engine",
    "start = engine.Engine.start",
    "def count():",
    "    while True:",
    "        with open(os.environ['BEARERD_BLOCKS'] + '.new', 'w') as file:",
    "            file.write(str(sys.getallocatedblocks()))",
    "        os.rename(file.name, os.environ['BEARERD_BLOCKS'])",
    "        time.sleep(1)",
    "def started(self):",
    "    start(self)",
    "    threading.Thread(target=count, daemon=True).start()",
    "engine.Engine.start = started",
)
"""Lines of Python with which a daemon writes to $BEARERD_BLOCKS how many blocks of memory its objects take.

It writes once a second: this is the interval of a measurement, and no test waits for it.
"""

ALLOWED: Final = {
    # What a leak of objects adds to. 3 % is what is under way at one moment and not at another.
    "live blocks": (0.03, 2000.0),
    # Tokens of random lengths fragment the heap: in a daemon whose live blocks stayed the same, the C library held 10 %
    # more after 20 minutes. Buffers of over 512 bytes are not among the blocks, so a leak of these has to show here.
    "RSS, MB": (0.15, 1.0),
    "PSS, MB": (0.18, 1.0),
    # Threads and connections depend on how many requests are under way.
    "threads": (0.1, 8),
    "descriptors": (0.1, 8),
}
"""How much each may grow: a share, and a number."""
MEASURED: Final = frozenset(f"{name} of the daemon" for name in ALLOWED)
"""The figures that each run has to have. One with too few samples is left out, and would seem flat."""


@dataclass
class Samples:
    """Figures of one daemon, by process and name."""

    pid: int
    blocks: Path | None = None
    """Where the daemon writes the number of its blocks, if it does (`COUNTING`)."""
    figures: dict[int, dict[str, list[float]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))

    def take(self) -> None:
        """Take one sample."""
        for pid in session_of(self.pid):
            try:
                figures = _figures(pid)
            except OSError:  # it ended meanwhile
                continue
            if pid == self.pid and self.blocks is not None and self.blocks.exists():
                figures["live blocks"] = float(self.blocks.read_text())
            for name, figure in figures.items():
                self.figures[pid][name].append(figure)

    def growths(self) -> list[Growth]:
        """How each figure grew, of the processes that ran all the time."""
        most = len(self.figures[self.pid]["threads"])
        lasting = [pid for pid, figures in self.figures.items() if len(figures["threads"]) > most * 0.9]
        return [
            growth(f"{name} of the {'daemon' if pid == self.pid else 'parent of config readers'}", values, *allowed)
            for pid in sorted(lasting, key=lambda pid: pid != self.pid)
            for name, allowed in ALLOWED.items()
            if len(values := self.figures[pid][name]) >= LEAST_SAMPLES
        ]

    def range(self, name: str) -> str:
        """The least and the most of the daemon's own process."""
        values = self.figures[self.pid][name]
        return f"{min(values):.0f} to {max(values):.0f}"


@contextmanager
def sampled(pid: int, every: float, blocks: Path | None = None) -> Iterator[Samples]:
    """Take samples during the block, each so many seconds."""
    samples, end = Samples(pid, blocks), threading.Event()

    def sample() -> None:
        while not end.wait(every):
            samples.take()

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield samples
    finally:
        end.set()
        thread.join()


def _figures(pid: int) -> dict[str, float]:
    process = Path(f"/proc/{pid}")
    status = (process / "status").read_text()
    rollup = (process / "smaps_rollup").read_text()
    return {
        "RSS, MB": _number(r"^VmRSS:\s+(\d+) kB", status) / 1024,
        "PSS, MB": _number(r"^Pss:\s+(\d+) kB", rollup) / 1024,
        "threads": _number(r"^Threads:\s+(\d+)", status),
        "descriptors": float(len(os.listdir(process / "fd"))),
    }


def _number(pattern: str, text: str) -> float:
    found = re.search(pattern, text, re.MULTILINE)
    return float(found[1]) if found else 0.0
