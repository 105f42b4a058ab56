"""What a scrape costs, on this machine, in one run: `cd tests && python -m bench.scrape [TOKENS]`.

Figures, not assertions: machines are noisy. The daemon is a real one, asked at its control socket; beside it the
same series as the library's own gauges, one object a series, in a process of their own.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from bench.measure import configure, cpu, daemon, provider, status, wait_for_files

_SCRAPES = 3

_NAIVE = """
import re, sys, time
def rss():
    return int(re.search(r"VmRSS:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024
import bearerd.api.metrics
from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
before = rss()
registry = CollectorRegistry()
moments = [Gauge(f"moment_{number}", "help", ["name"], registry=registry) for number in range(4)]
state = Gauge("state", "help", ["name", "provider", "required", "state", "failure"], registry=registry)
grants = Counter("grants", "help", ["name", "outcome"], registry=registry)
for number in range(int(sys.argv[1])):
    name = f"c{number // 100}/t{number % 100}"
    for moment in moments:
        moment.labels(name).set(1.8e9 + number)
    state.labels(name, "p", "true", "valid", "").set(1)
    grants.labels(name, "issued").inc()
for _ in range(int(sys.argv[2])):
    began = time.monotonic()
    text = generate_latest(registry)
    took = time.monotonic() - began
print(took, rss() - before)
"""


def scrape(path: Path) -> tuple[float, bytes]:
    """Ask once; the seconds and the text."""
    began = time.monotonic()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
        line.connect(str(path))
        line.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        parts = list(iter(lambda: line.recv(1 << 20), b""))
    took = time.monotonic() - began
    head, _, body = b"".join(parts).partition(b"\r\n\r\n")
    assert b" 200 " in head.partition(b"\r\n")[0], head
    return took, body


def main() -> None:
    """Many tokens, and a few scrapes."""
    many = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    with provider() as port, tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        directory = Path(name)
        with daemon(configure(directory, port, many)) as process:
            wait_for_files(directory, many, 0.2)
            threading.Event().wait(2)  # what the burst needs is given back
            before, spent = status(process.pid, "VmRSS"), cpu(process.pid)
            print(f"{many} tokens: RSS {before:.1f} MB before the first scrape", flush=True)
            for number in range(_SCRAPES):
                took, text = scrape(directory / "tokens/.bearerd/control.sock")
                series = sum(not line.startswith(b"#") for line in text.splitlines())
                more = status(process.pid, "VmRSS") - before
                print(
                    f"scrape {number + 1}: {took:.2f} s, {series} series, {len(text) / 1e6:.1f} MB; RSS {more:+.1f} MB",
                    flush=True,
                )
            print(f"CPU {(cpu(process.pid) - spent) / _SCRAPES:.2f} s a scrape", flush=True)
    given = [sys.executable, "-c", _NAIVE, str(many), str(_SCRAPES)]
    naive_took, naive_more = map(
        float, subprocess.run(given, check=True, capture_output=True, text=True).stdout.split()
    )
    print(
        f"the same series as gauges of the library: {naive_took:.2f} s, RSS {naive_more:+.1f} MB; "
        f"ratio {took / naive_took:.1f} in time, {more / naive_more:.2f} in memory"
    )


if __name__ == "__main__":
    main()
