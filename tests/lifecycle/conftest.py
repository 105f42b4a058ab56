"""What all tests of this folder have in common."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Years of simulated time write thousands of files. `publish/test_atomic.py` shows what is flushed, and when."""
    monkeypatch.setattr(os, "fsync", lambda _: None)
