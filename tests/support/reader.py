"""A program that reads a token file all the time, for rigs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from support.process import eventually

_LOOKS_EVERY = 0.005


class Reader:
    """Reads a file in a thread, and records what no reader may see."""

    def __init__(self, file: Path, good: Callable[[str], bool]) -> None:
        self._file = file
        self._good = good
        self._end = threading.Event()
        self.reads = 0
        self.faults: list[str] = []

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Read during the block; fails if there was any fault or no reading."""
        with self.following():
            yield
        assert self.faults == [], f"a reader saw {self.faults[:3]}"

    @contextmanager
    def following(self) -> Iterator[None]:
        """Read during the block, and only record the faults; fails if there was no reading."""
        self._end.clear()
        thread = threading.Thread(target=self._read)
        thread.start()
        try:
            yield
            before = self.reads
            eventually(lambda: self.reads > before + 1)
        finally:
            self._end.set()
            thread.join()

    def _read(self) -> None:
        while not self._end.wait(_LOOKS_EVERY):
            try:
                text = self._file.read_text()
                if not self._good(text):
                    self.faults.append(text)
            except OSError as error:
                self.faults.append(str(error))
            self.reads += 1
