"""What a reader may not see, counted: the rows of the table."""

from __future__ import annotations

import base64
import json
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from support.provider import Provider
from support.reader import Reader
from support.rig import say

SECRET: Final = "canary-secret-4b1d"
"""The client's secret. Neither it nor a token may be in any output."""
TOKENS: Final = "canary-token-"
"""What every token begins with."""
_CANARIES: Final = (SECRET, TOKENS, base64.b64encode(f"7e0c5a:{SECRET}".encode()).decode())
_BUGS: Final = ("Traceback", "bug in bearerd")
_MOST_SHOWN: Final = 12
"""Faults of a row that are printed, each when it is found. More of them have the same cause."""


@dataclass
class Row:
    """A line of the table, and everything in it that is wrong, with what is needed to reproduce it."""

    fault: str
    runs: int = 0
    torn: int = 0
    absent: int = 0
    expired: int = 0
    left: int = 0
    leaked: int = 0
    back: list[float] = field(default_factory=list)
    """Seconds from the end of a fault until the file has a new token."""
    wrong: list[str] = field(default_factory=list)
    note: str = ""
    silent: bool = False
    """Print nothing: its program is wrong on purpose."""
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def bad(self, column: str, where: str) -> None:
        """Count a fault in a column; `where` says how to reproduce it."""
        with self.lock:
            setattr(self, column, getattr(self, column) + 1)
        self.expect(False, f"{column}: {where}")

    def expect(self, condition: object, where: str) -> None:
        """Note something that is wrong, and has no column."""
        if condition:
            return
        with self.lock:
            self.wrong.append(where)
            if not self.silent and len(self.wrong) <= _MOST_SHOWN:
                say(f"WRONG: {self.fault}: {where}")

    def ran(self, back: float | None = None) -> None:
        """Count a run, and how long it took until a new token was there."""
        with self.lock:
            self.runs += 1
            if back is not None:
                self.back.append(back)

    def output(self, text: str, where: str) -> None:
        """Search everything that bearerd wrote for tokens, secrets and tracebacks."""
        if any(canary in text for canary in _CANARIES):
            self.bad("leaked", where)
        for bug in _BUGS:
            if bug in text:
                self.expect(False, f"{where}: {bug} in: {text[text.index(bug) :][:600]}")

    def line(self) -> str:
        """The row in Markdown."""
        back = "" if not self.back else f"{max(self.back):.1f} s"
        cells = (self.fault, self.runs, self.torn, self.absent, self.expired, self.left, self.leaked, back or self.note)
        return f"| {' | '.join(map(str, cells))} |"


@contextmanager
def tried(row: Row) -> Iterator[None]:
    """Note an exception of the block in the row, so that it does not end the other faults of its scene."""
    try:
        yield
    except Exception:  # noqa: BLE001 - whatever it is, it is reported
        row.expect(False, traceback.format_exc())


HEAD: Final = (
    "| fault | runs | torn | absent | expired | left over | leaked | back after |\n|---|--:|--:|--:|--:|--:|--:|--:|"
)


def token_in(file: str, text: str) -> str:
    """The token in the text of a file; empty where there is none."""
    if not file.endswith(".json"):
        return text
    try:
        return str(json.loads(text)["access_token"])
    except (ValueError, KeyError, TypeError):
        return ""


def judge(row: Row, provider: Provider, file: str, text: str, where: str) -> None:
    """Judge the content of a token file."""
    token = token_in(file, text)
    if not provider.issued(token):
        row.bad("torn", f"{where}: {file} has {text[:80]!r}")
    elif not provider.takes(token):
        row.bad("expired", f"{where}: {file} has a token that is no longer accepted")


@contextmanager
def followed(row: Row, provider: Provider, files: Iterable[Path], where: str) -> Iterator[None]:
    """Read these files all the time during the block, and count what a reader may not see."""
    readers = [(file.name, Reader(file, _good(provider, file.name))) for file in files]
    with ExitStack() as stack:
        for _, reader in readers:
            stack.enter_context(reader.following())
        yield
    for name, reader in readers:
        for fault in reader.faults:
            if fault.startswith("[Errno"):
                row.bad("absent", f"{where}: {name}: {fault}")
            else:
                judge(row, provider, name, fault, where)


def _good(provider: Provider, file: str) -> Callable[[str], bool]:
    return lambda text: provider.takes(token_in(file, text))
