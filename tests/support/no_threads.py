"""A process in which bearerd can start no thread, as under TasksMax or without memory."""

from __future__ import annotations

import _thread
from types import SimpleNamespace
from typing import Any

import pytest


def no_threads(patch: pytest.MonkeyPatch, times: float = float("inf")) -> list[object]:
    """Let bearerd start no thread, or fail so many times. Returns one item for each thread that it tried to start."""
    tried: list[object] = []

    def start(*arguments: Any) -> int:
        tried.append(arguments)
        if len(tried) <= times:
            raise RuntimeError("can't start new thread")
        return _thread.start_new_thread(*arguments)

    patch.setattr("bearerd.threads._thread", SimpleNamespace(start_new_thread=start))
    return tried


def threads_never_begin(patch: pytest.MonkeyPatch) -> None:
    """Let the threads that bearerd starts never begin, as if each had no memory for its first steps."""
    patch.setattr("bearerd.threads._thread", SimpleNamespace(start_new_thread=lambda *_: 0))
