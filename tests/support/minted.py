"""Tokens that prove by themselves that they are whole, and say when they expire.

A token is `NUMBER.EXPIRES.LENGTH.WORD-WORD-WORD…`, cut at LENGTH characters. EXPIRES is in milliseconds of the boot
clock, which all processes of a machine share and nobody can set. WORD is the CRC-32 of the text before it, so every
part of a token says to which one it belongs: a mixture of two tokens, or a part of one, is never whole.
"""

from __future__ import annotations

import re
import time
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

from support.process import eventually

SHORTEST: Final = 48
"""Characters: the head of a token and one word."""
LONGEST: Final = 8192
"""Characters: two pages, so that no write or read of less than the whole file goes unnoticed."""

_HEAD: Final = re.compile(r"(\d{1,9})\.(\d{1,15})\.(\d{1,5})\.")


class Minted(NamedTuple):
    """What a token says about itself."""

    number: int
    expires: int
    """Milliseconds of the boot clock."""
    length: int


def boot_ms() -> int:
    """The boot clock, in milliseconds."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


def mint(token: Minted) -> str:
    """The text of a token."""
    head = f"{token.number}.{token.expires}.{token.length}"
    word = f"{zlib.crc32(head.encode()):08x}-"
    return f"{head}.{word * (token.length // len(word) + 1)}"[: token.length]


def understand(text: str) -> Minted | None:
    """What a whole token says; None for any other text."""
    head = _HEAD.match(text)
    if head is None:
        return None
    token = Minted(int(head[1]), int(head[2]), int(head[3]))
    return token if mint(token) == text else None


def wait_until_good_for(seconds: float, files: Iterable[Path]) -> None:
    """Wait until the token in each of these raw files is good for at least so many seconds more.

    What a provider issued does not count: the daemon may not have it yet.
    """
    waiting = list(files)

    def done() -> bool:
        waiting[:] = [file for file in waiting if _remaining(file) < seconds]
        return not waiting

    eventually(done)


def _remaining(file: Path) -> float:
    token = understand(file.read_text())
    return (token.expires - boot_ms()) / 1000 if token is not None else 0.0
