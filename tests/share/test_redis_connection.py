"""What one connection to Redis bounds: sending, receiving, and its end."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from bearerd.share.redis_client import RedisClient
from bearerd.share.redis_connection import _Bounded
from bearerd.share.types import ShareUnavailable
from bearerd.terms import Redis
from support.process import WITHIN
from support.redis_liar import answering, usual

TIMEOUT = 2.0
"""Seconds; a loaded machine begins to send within them."""


def test_a_server_that_reads_nothing_ends_a_long_command_at_its_deadline() -> None:
    over = threading.Event()

    def answer(command: list[bytes]) -> bytes:
        if command[0] == b"GET":
            over.wait(WITHIN)
        return usual(command)

    with answering(answer) as url:
        client = RedisClient(Redis(url, timeout=10 * WITHIN), {})
        client.connect()
        connection = client.connection()
        connection.tell("GET", "a")
        try:
            with pytest.raises(ShareUnavailable, match=r"\(while waiting for an answer\)"):
                connection.ask("SET", "a", bytes(64 << 20), ends=time.monotonic() + TIMEOUT)
        finally:
            over.set()
        client.disconnect()


def test_the_last_half_second_counts_too(monkeypatch: pytest.MonkeyPatch) -> None:
    near, far = socket.socketpair()
    with near, far:
        far.sendall(b"+OK")
        monkeypatch.setattr(time, "monotonic", lambda: 100.0)
        bounded = _Bounded(near, WITHIN)
        bounded.begin(100.5)
        assert bounded.recv(3) == b"+OK"
        bounded.begin(100.0)
        with pytest.raises(TimeoutError):
            bounded.recv(3)


def test_a_connection_that_has_ended_can_be_hung_up() -> None:
    with socket.socket() as never_connected:
        _Bounded(never_connected, WITHIN).shutdown(socket.SHUT_RDWR)
