"""What one connection to Redis bounds: sending, receiving, and its end."""

from __future__ import annotations

import socket
import time

import pytest

from bearerd.share.redis_connection import RedisConnection, _Bounded
from bearerd.share.redis_errors import Where
from bearerd.share.types import ShareUnavailable
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


def test_a_lack_of_memory_is_not_the_fault_of_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> bytes:
        raise MemoryError

    near, far = socket.socketpair()
    with near, far:
        connection = RedisConnection(near, Where("redis.example:6379", tls=False, ca_file=None, timeout=WITHIN))
        far.sendall(b"+PONG\r\n")
        monkeypatch.setattr(_Bounded, "recv", fails)
        with pytest.raises(ShareUnavailable) as raised:
            connection.ask("PING")
        what = "out of memory; raise the memory limit of bearerd, or of the machine"
        assert str(raised.value) == f"redis.example:6379: {what}"
        monkeypatch.undo()
        assert far.recv(100).startswith(b"*1")
        with pytest.raises(ConnectionResetError):  # what is left of the answer is not that of the next command
            far.recv(100)
