"""Reads token files as Python programs do, and counts what no reader may see: `reader.py PAUSE FORMAT:PATH...`.

PAUSE is in seconds, after each read. The lines that it prints are those of reader.c. Unlike that, it parses JSON and
shell syntax with real parsers, and compares all fields of a JSON document with each other.
"""

from __future__ import annotations

import json
import shlex
import signal
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from support.minted import Minted, boot_ms, understand

_SAYS_EVERY: Final = 0.1
_SHOWN: Final = 3
"""Faults of each file: more of them say nothing new."""


@dataclass
class Counts:
    """What is printed, in this order."""

    reads: int = 0
    refreshes: int = 0
    torn: int = 0
    absent: int = 0
    expired: int = 0
    older: int = 0
    least: int = 1 << 40

    def line(self) -> str:
        """All of them."""
        values = (self.reads, self.refreshes, self.torn, self.absent, self.expired, self.older, self.least)
        return " ".join(map(str, values))


@dataclass
class Reader:
    """Counts, and the number of the token seen last in each file."""

    counts: Counts = field(default_factory=Counts)
    seen: dict[str, int] = field(default_factory=dict)
    shown: Counter[str] = field(default_factory=Counter)

    def read(self, kind: str, path: str) -> None:
        """Read a file once."""
        counts = self.counts
        # A moment before the file is opened, so that a pause of this process blames no file.
        before = boot_ms()
        counts.reads += 1
        try:
            content = Path(path).read_bytes()
        except OSError as error:
            counts.absent += 1
            self._fault(path, f"{error.strerror}")
            return
        token = understood(kind, content)
        if token is None:
            counts.torn += 1
            self._fault(path, f"torn, {len(content)} bytes")
            return
        last = self.seen.get(path, 0)
        counts.least = min(counts.least, token.expires - before)
        if token.expires <= before:
            counts.expired += 1
            self._fault(path, f"token {token.number} expired at {token.expires}, and it is {before}")
        if token.number < last:
            counts.older += 1
            self._fault(path, f"older token {token.number} after {last}")
        counts.refreshes += 0 < last < token.number
        self.seen[path] = token.number

    def _fault(self, path: str, text: str) -> None:
        self.shown[path] += 1
        if self.shown[path] <= _SHOWN:
            sys.stdout.write(f"fault {path}: {text}\n")


def understood(kind: str, content: bytes) -> Minted | None:
    """The token of a whole file of this format; None if it is not one."""
    text = content.decode("ascii", "replace")
    try:
        match kind:
            case "raw":
                return understand(text)
            case "header":
                token = text.removeprefix("Authorization: Bearer ").removesuffix("\n")
                return understand(token) if text == f"Authorization: Bearer {token}\n" else None
            case "env":
                [word] = shlex.split(text)
                name, _, token = word.partition("=")
                return understand(token) if name == "TOKEN" and text.endswith("\n") else None
            case "template":
                first, second = text.split("\n")[:2]
                token = first.removeprefix("first=")
                return (
                    understand(token) if text == f"first={token}\nsecond={token}\n" == f"{first}\n{second}\n" else None
                )
            case _:
                return of_json(text)
    except ValueError:
        return None


def of_json(text: str) -> Minted | None:
    """The token of a JSON document whose fields all belong to it."""
    document = json.loads(text)
    token = understand(document["access_token"])
    if token is None or not document["scope"].endswith(f" n{token.number}") or not text.endswith("}\n"):
        return None
    ends, begins = (datetime.fromisoformat(document[key]).timestamp() for key in ("expires_at", "obtained_at"))
    # Each of the three is rounded to a second.
    return token if abs(ends - begins - document["expires_in"]) <= 2 else None


def main() -> None:
    """Read until SIGTERM."""
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    pause = float(sys.argv[1])
    files = [(kind, path) for kind, _, path in (argument.partition(":") for argument in sys.argv[2:])]
    reader, say_at = Reader(), 0.0
    while not ended.is_set():
        for kind, path in files:
            reader.read(kind, path)
            if time.monotonic() >= say_at or ended.is_set():
                sys.stdout.write(f"{reader.counts.line()}\n")
                sys.stdout.flush()
                say_at = time.monotonic() + _SAYS_EVERY
            if ended.is_set():
                break
            if pause:
                time.sleep(pause)
    sys.stdout.write(f"{reader.counts.line()}\n")


if __name__ == "__main__":
    main()
