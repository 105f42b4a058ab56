"""Takes connections and holds them: `hold.py half|slow PORT SECONDS THREADS`.

half: sends a part of a head, and no more. slow: asks for the metrics, and reads none of them. A
connection that is cut off is opened again at once.
"""

from __future__ import annotations

import socket
import sys
import threading
import time
from contextlib import suppress

KIND, PORT, SECONDS, THREADS = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
SAYS = {
    "half": b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Half",
    "slow": b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
}[KIND]
END = time.monotonic() + SECONDS
HELD = [0] * THREADS


def hold(number: int) -> None:
    """One connection after another."""
    while time.monotonic() < END:
        with suppress(OSError), socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            connection.settimeout(max(0.1, END - time.monotonic()))
            connection.connect(("127.0.0.1", PORT))
            connection.sendall(SAYS)
            HELD[number] += 1
            if KIND == "half":
                connection.recv(1)
            else:
                gone(connection)


def gone(connection: socket.socket) -> None:
    """Until the other end cuts it off, which the next thing that is said to it shows."""
    pause = threading.Event()
    while time.monotonic() < END:
        pause.wait(0.2)
        connection.sendall(b"x")


threads = [threading.Thread(target=hold, args=(number,), daemon=True) for number in range(THREADS)]
for thread in threads:
    thread.start()
sys.stdout.write("begun\n")
sys.stdout.flush()
for thread in threads:
    thread.join(max(0.0, END - time.monotonic()) + 2.0)
sys.stdout.write(f"{sum(HELD)}\n")
