"""What one connection to Redis bounds: sending, receiving, and its end."""

from __future__ import annotations

import socket
import time

import pytest

from bearerd.share.redis_connection import _Bounded
from support.process import WITHIN


def test_the_last_half_second_counts_too(monkeypatch: pytest.MonkeyPatch) -> None:
    near, far = socket.socketpair()
    with near, far:
        far.sendall(b"+OK")
        monkeypatch.setattr(time, "monotonic", lambda: 100.0)
        bounded = _Bounded(near, WITHIN)
        bounded.begin(100.5)
        assert bounded.recv(3) == b"+OK"
        bounded.sendall(b"GET")
        assert far.recv(3) == b"GET"
        bounded.begin(100.0)
        with pytest.raises(TimeoutError):
            bounded.recv(3)
        with pytest.raises(TimeoutError):
            bounded.sendall(b"GET")


def test_a_connection_that_has_ended_can_be_hung_up() -> None:
    with socket.socket() as never_connected:
        _Bounded(never_connected, WITHIN).shutdown(socket.SHUT_RDWR)
