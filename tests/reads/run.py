"""One run on one file system."""

from __future__ import annotations

import random
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from reads.site import SHORT, Site, site, start_readers
from reads.storm import storm
from support.counted import Counts
from support.process import eventually
from support.rig import say

_TOKENS: Final = 12
_LOOKS_EVERY: Final = 0.25
_SAYS_EVERY: Final = 60.0
_SHOWN: Final = 20
"""Faults of each run: more of them say nothing new."""


@dataclass(frozen=True)
class Amount:
    """How much is read on each file system."""

    reads: int
    refreshes: int
    """That each reader has to see before and after a storm."""
    kills: int
    """In each storm."""
    within: float
    """Seconds. A bound for a build that hangs."""


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    system: str
    reader: str
    counts: Counts

    def __str__(self) -> str:
        counts = self.counts
        cells = (counts.reads, counts.refreshes, counts.torn, counts.absent, counts.expired)
        return f"| {self.system} | {self.reader} | {' | '.join(f'{cell:,}' for cell in cells)} |"


def run(system: str, directory: Path, amount: Amount, seed: int) -> list[Row]:
    """Read until there are enough reads, with storms in between; returns the rows of the table."""
    dice = random.Random(f"{seed} {system}")
    scratch, output, bound = (directory / name for name in ("scratch", "tokens", "bound"))
    for path in (scratch, output, bound):
        path.mkdir()
    subprocess.run(["mount", "--bind", output, bound], check=True)
    with site(scratch, output, _TOKENS, SHORT, {}) as here:
        start_readers(here, bound)
        end, storms = time.monotonic() + amount.within, 0
        _calm(system, here, amount, end)
        while storms == 0 or here.readers.counts().reads < amount.reads:
            storm(here, amount.kills, dice)
            storms += 1
            # From tokens of 40 s and more, back to those of a few seconds.
            _calm(system, here, amount, end)
        here.readers.end()
        took = here.daemon.stop()
        eventually(lambda: not here.daemon.left_behind())
        left = [str(file) for file in output.rglob(".bearerd-*.tmp")]
        assert left == [], f"{system}: left over: {left}"
        counts, kills = here.readers.counts(), storms * amount.kills
        say(
            f"{system}: {here.provider.totals().grants} refreshes of {_TOKENS} tokens, each in 5 files; {kills} times "
            f"kill -9; slowest start {here.daemon.slowest_start:.1f} s; stopped in {took:.1f} s; the read closest to "
            f"an expiry had {counts.least / 1000:.1f} s left; {counts.older} times an older token"
        )
        for fault in here.readers.faults()[:_SHOWN]:
            say(f"FAULT: {system}: {fault}")
        if counts.bad:
            say(here.daemon.log())
        return [Row(system, reader.label, reader.counts) for reader in here.readers.all] + [Row(system, "all", counts)]


def _calm(system: str, here: Site, amount: Amount, end: float) -> None:
    """Wait until each reader has seen so many refreshes more."""
    pause, said = threading.Event(), time.monotonic()
    wanted = [(reader, reader.counts.refreshes + amount.refreshes) for reader in here.readers.all]
    while waiting := [reader.label for reader, refreshes in wanted if reader.counts.refreshes < refreshes]:
        here.readers.running()
        here.daemon.running()
        assert time.monotonic() < end, f"{system}: too few refreshes seen by {waiting}: {here.readers.counts()}"
        if time.monotonic() > said + _SAYS_EVERY:
            said = time.monotonic()
            say(f"{system}: {here.readers.counts()}")
        pause.wait(_LOOKS_EVERY)
