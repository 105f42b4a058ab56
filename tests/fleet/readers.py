"""Programs that use the token files of all daemons, and what the API answers them."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from fleet.provider import Provider, Verdict
from support.process import WITHIN

_LOOKS_EVERY = 0.05
"""Seconds between two reads of each file: well below the time for which an old token is still accepted."""


@dataclass
class Seen:
    """What a reader saw of one file."""

    identity: tuple[int, int] | None = None
    """Inode and time of change of the file that was read last."""
    text: str = ""
    number: int = 0
    """Of the token that it holds; 0 before the first."""
    taken: dict[int, float] = field(default_factory=dict)
    """By number of token: when (Unix time) the file with it appeared first."""
    back: int = 0
    """How often an older token replaced a newer one."""


class Readers:
    """Reads all files all the time, in one thread, and uses each token at once."""

    def __init__(self, provider: Provider, files: Mapping[str, Path]) -> None:
        self._provider = provider
        self._files = files
        self.seen = {name: Seen() for name in files}
        self.counts: Counter[Verdict | str] = Counter()
        """Reads, by what the API answered, or by what was wrong with the file."""
        self.faults: list[str] = []
        self._excused: set[str] = set()
        self._changed = threading.Condition()
        self._end = threading.Event()

    # -- what scenes wait for -----------------------------------------------------------------

    def excuse(self, *names: str) -> None:
        """Do not count what is in the files of these daemons: they are dead or stopped."""
        with self._changed:
            self._excused.update(names)

    def expect(self, *names: str) -> None:
        """Count what is in the files of these daemons again."""
        with self._changed:
            self._excused.difference_update(names)

    def wait_for(self, condition: Callable[[], bool], what: str, within: float = WITHIN) -> None:
        """Wait until a condition over what was seen is true; it is tried after each look at all files."""
        with self._changed:
            assert self._changed.wait_for(condition, within), f"the readers waited in vain until {what}: {self.held()}"

    def wait_for_number(self, number: int, but: set[str] | None = None, within: float = WITHIN) -> None:
        """Wait until each file has that token, or one with a greater number."""
        names = self.seen.keys() - (but or set())
        self.wait_for(
            lambda: all(self.seen[name].number >= number for name in names), f"all files have t-{number}", within
        )

    def wait_for_one(self, after: int, but: set[str] | None = None, within: float = WITHIN) -> int:
        """Wait until all files have the same token, with a number greater than `after`; returns its number."""
        names = self.seen.keys() - (but or set())

        def one() -> bool:
            numbers = {self.seen[name].number for name in names}
            return len(numbers) == 1 and min(numbers) > after

        self.wait_for(one, f"all files have one token after t-{after}", within)
        return self.seen[min(names)].number

    def held(self) -> dict[str, int]:
        """The number of the token in each file."""
        return {name: seen.number for name, seen in self.seen.items()}

    # -- reading ------------------------------------------------------------------------------

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Read during the block."""
        thread = threading.Thread(target=self._read)
        thread.start()
        try:
            yield
        finally:
            self._end.set()
            thread.join()

    def _read(self) -> None:
        while not self._end.wait(_LOOKS_EVERY):
            with self._changed:
                for name, file in self._files.items():
                    self._look(name, file)
                self._changed.notify_all()

    def _look(self, name: str, file: Path) -> None:
        seen = self.seen[name]
        # The token was in the file at this moment or came later: a pause of this thread after it is no fault.
        now = time.monotonic()
        try:
            status = os.stat(file)
            if seen.identity != (status.st_ino, status.st_ctime_ns):
                seen.text = file.read_text()
                seen.identity = status.st_ino, status.st_ctime_ns
        except FileNotFoundError:
            if seen.number:
                self._count(name, "absent", f"after t-{seen.number}")
            return
        verdict, number = self._provider.verdict(seen.text, now)
        if number and number != seen.number:
            seen.back += number < seen.number
            seen.taken.setdefault(number, status.st_ctime)
            seen.number = number
        self._count(name, verdict if seen.text else "empty", f"t-{number}")

    def _count(self, name: str, verdict: str, what: str) -> None:
        if verdict == "good":
            self.counts[verdict] += 1
        elif name not in self._excused:
            self.counts[verdict] += 1
            if len(self.faults) < 20:
                self.faults.append(f"{time.strftime('%H:%M:%S')} {name}: {verdict} {what}")
