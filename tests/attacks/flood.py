"""Sends heads that never end to a listener, from many threads: `flood.py ADDRESS SECONDS THREADS`.

ADDRESS is a port of loopback or a socket's path. It stops after that long, or where its standard input ends.
"""

from __future__ import annotations

import socket
import sys
import threading
import time
from contextlib import suppress

ADDRESS, SECONDS, THREADS = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
HEAD = b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n" + b"".join(b"X%d: %b\r\n" % (n, b"x" * 65000) for n in range(98))
END = time.monotonic() + SECONDS
SENT = [0] * THREADS


def connect() -> socket.socket:
    """One connection."""
    if ADDRESS.isdecimal():
        return socket.create_connection(("127.0.0.1", int(ADDRESS)), timeout=2.0)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(2.0)
    connection.connect(ADDRESS)
    return connection


def flood(number: int) -> None:
    """A head after another, each kept open at its end until the other end closes."""
    while time.monotonic() < END:
        with suppress(OSError), connect() as connection:
            SENT[number] += 1
            connection.sendall(HEAD)
            connection.recv(1)


# It can be reached at all.
connect().close()
threads = [threading.Thread(target=flood, args=(number,), daemon=True) for number in range(THREADS)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join(max(0.0, END - time.monotonic()) + 2.0)
sys.stdout.write(f"{sum(SENT)}\n")
