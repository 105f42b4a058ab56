"""One kind of input from outside, what has to hold for all of it, and how such input looks."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True)
class Target:
    """A fuzz target. `check` raises for an input with which a property does not hold."""

    name: str
    what: str
    """The input, as the table names it."""
    check: Callable[[bytes], object]
    seeds: tuple[bytes, ...]
    """Inputs to begin with."""
    words: tuple[bytes, ...] = ()
    """Parts of such input that bytes at random would hardly hit."""
    longest: int = 4096
    """Bytes of an input. Short ones run faster, and nearly every fault shows in one."""


@cache
def scratch() -> Path:
    """A directory of this process, in memory if there is one."""
    memory = "/dev/shm"
    holder = tempfile.TemporaryDirectory(
        prefix="bearerd-fuzz-", dir=memory if os.access(memory, os.W_OK | os.X_OK) else None
    )
    _KEPT.append(holder)
    return Path(holder.name)


_KEPT: list[tempfile.TemporaryDirectory[str]] = []


def one_line(text: str) -> None:
    """Messages go to the log, to a terminal and to a page: one line, and nothing that a terminal would obey."""
    assert text.isprintable(), "a message has a line end or a control character"
