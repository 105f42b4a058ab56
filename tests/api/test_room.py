"""How connections make room for others, where it must not depend on the time that passes."""

from __future__ import annotations

import socket
import threading
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pytest

from bearerd.api import connections
from bearerd.api.connections import Connections
from bearerd.api.limits import Limits
from bearerd.api.routes import Access
from support.process import WITHIN, eventually

LIMITS = Limits(incomplete=1, small=1, small_waiting=1, large=1, large_waiting=1)


def test_one_that_leaves_makes_room_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "time", SimpleNamespace(monotonic=lambda: 100.0))  # no time passes
    path = str(tmp_path / "s")
    with (
        socket.socket(socket.AF_UNIX) as listening,
        socket.socket(socket.AF_UNIX) as silent,
        socket.socket(socket.AF_UNIX) as second,
    ):
        listening.bind(path)
        listening.listen()
        daemon = mock.Mock(**{"alive.return_value": True, "config_error.return_value": None})
        served = Connections(listening, daemon, Access(), LIMITS)
        thread = threading.Thread(target=served.run)
        thread.start()
        try:
            silent.connect(path)
            second.connect(path)
            second.settimeout(WITHIN)
            second.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
            eventually(lambda: not served._listens)
            silent.close()
            assert second.recv(100).startswith(b"HTTP/1.1 200 ")
        finally:
            silent.close()
            second.close()
            served.stop()
            thread.join(WITHIN)
    assert not thread.is_alive()
