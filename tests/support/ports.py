"""Ports of loopback for programs that cannot choose one themselves, or keep theirs over a restart."""

from __future__ import annotations

import random
import socket
from contextlib import suppress


def free_port() -> int:
    """A free port outside the range from which connections get theirs, so that it is still free when it is used."""
    # Not the seeded generator: hypothesis gives the same seed to all processes of a test run.
    for port in random.SystemRandom().sample(range(20_000, 32_000), 100):
        with socket.socket() as listener, suppress(OSError):
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")
