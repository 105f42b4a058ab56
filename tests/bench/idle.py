"""What waiting costs, on this machine, in one run: `cd tests && python -m bench.idle [SECONDS]`.

Figures, not assertions. How often the threads of an idle daemon wake, with the control socket alone and with `listen`
besides, before anybody asked and after; and how soon it has ended when it is told to.
"""

from __future__ import annotations

import re
import socket
import sys
import tempfile
import threading
import time
from pathlib import Path

from bench.measure import configure, cpu, daemon, provider, wait_for_files

# What the start was about is over by then, and its idle workers have ended.
_SETTLED = 25.0
_CLIENTS = 100


def wake_ups(pid: int) -> tuple[int, int]:
    """How often all threads there are gave up the processor to wait; and how many they are."""
    texts = [(task / "status").read_text() for task in Path(f"/proc/{pid}/task").iterdir()]
    counts = re.findall(r"^voluntary_ctxt_switches:\s+(\d+)", "\n".join(texts), re.MULTILINE)
    return sum(map(int, counts)), len(texts)


def ask(path: Path) -> bytes:
    """One /livez."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
        line.connect(str(path))
        line.sendall(b"GET /livez HTTP/1.0\r\n\r\n")
        return b"".join(iter(lambda: line.recv(1 << 16), b""))


def idle(pid: int, seconds: float, what: str) -> None:
    """Say what so many seconds of nothing cost."""
    before, spent = wake_ups(pid)[0], cpu(pid)
    threading.Event().wait(seconds)
    after, threads = wake_ups(pid)
    print(
        f"{what}: {(after - before) * 60 / seconds:.0f} wake-ups a minute of {threads} threads, "
        f"{(cpu(pid) - spent) * 60_000 / seconds:.0f} ms of CPU",
        flush=True,
    )


def main() -> None:
    """Without `listen`, then with it."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    for listen in ("", '\nlisten: {address: "127.0.0.1:0", page: true}\n'):
        with provider() as port, tempfile.TemporaryDirectory() as name:
            config = configure(Path(name), port, 1)
            config.write_text(config.read_text() + listen)
            with daemon(config) as process:
                wait_for_files(Path(name), 1, 0.01)
                threading.Event().wait(_SETTLED)
                what = "with listen" if listen else "the control socket alone"
                idle(process.pid, seconds, what)
                began = time.monotonic()
                answers = [ask(Path(name) / "tokens/.bearerd/control.sock") for _ in range(_CLIENTS)]
                took = time.monotonic() - began
                assert all(b" 200 " in answer for answer in answers)
                print(f"{_CLIENTS} times /livez, one after the other: {took * 1000 / _CLIENTS:.1f} ms each", flush=True)
                idle(process.pid, seconds, f"{what}, after these")
                began = time.monotonic()
                process.terminate()
                process.wait()
                print(f"ended {(time.monotonic() - began) * 1000:.0f} ms after TERM", flush=True)


if __name__ == "__main__":
    main()
