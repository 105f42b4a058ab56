"""What the daemon costs, on this machine, in one run: `python tests/bench/measure.py [TOKENS]`.

Figures, not assertions: machines are noisy. The last line but one compares the CPU of a cold start with
that of the same requests by a bare http.client in the same run.
"""

from __future__ import annotations

import http.client
import os
import re
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PROVIDER = """
import socket, threading
body = b'{"access_token":"%s","token_type":"Bearer","expires_in":3600}' % (b"x" * 40)
reply = b"HTTP/1.1 200 OK\\r\\nContent-Type: application/json\\r\\nContent-Length: %d\\r\\n\\r\\n" % len(body) + body
def serve(connection):
    rest = b""
    with connection:
        while True:
            head, end, rest = rest.partition(b"\\r\\n\\r\\n")
            if not end:
                more = connection.recv(65536)
                if not more:
                    return
                rest = head + more
                continue
            length = int(head.lower().split(b"content-length:")[1].split(b"\\r\\n")[0])
            while len(rest) < length:
                rest += connection.recv(65536)
            rest = rest[length:]
            connection.sendall(reply)
listener = socket.create_server(("127.0.0.1", 0), backlog=512)
print(listener.getsockname()[1], flush=True)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"""


@contextmanager
def provider() -> Iterator[int]:
    """A token server that costs next to nothing; its port."""
    process = subprocess.Popen([sys.executable, "-c", _PROVIDER], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield int(process.stdout.readline())
    finally:
        process.kill()
        process.wait()


def configure(directory: Path, port: int, tokens: int) -> Path:
    """A hundred tokens a client."""
    (directory / "secret").write_text("s")
    (directory / "secret").chmod(0o600)
    lines = [f"output: {{directory: {directory}/tokens}}", "log: {level: warning}", "providers:"]
    lines += [f"  p: {{token_url: 'http://127.0.0.1:{port}/', allow_http: true, max_concurrency: 4}}", "clients:"]
    for client in range((tokens + 99) // 100):
        names = ", ".join(f"t{number}: {{}}" for number in range(min(100, tokens - client * 100)))
        lines.append(
            f"  c{client}: {{provider: p, client_id: x, client_secret: {{file: {directory}/secret}}, "
            f"tokens: {{{names}}}}}"
        )
    (directory / "config.yaml").write_text("\n".join(lines))
    return directory / "config.yaml"


@contextmanager
def daemon(config: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`bearerd run`."""
    process = subprocess.Popen([sys.executable, "-m", "bearerd", "run", "-c", config])
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def files(directory: Path) -> int:
    """How many tokens are there."""
    return sum(len(names) for root, _, names in os.walk(directory / "tokens") if ".bearerd" not in root)


def wait_for_files(directory: Path, count: int, each: float) -> None:
    """Until that many are there."""
    pause = threading.Event()
    while files(directory) < count:
        pause.wait(each)


def status(pid: int, key: str) -> float:
    """A figure of /proc/PID/status, in MB."""
    found = re.search(rf"^{key}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return int(found[1]) / 1024 if found else 0.0


def cpu(pid: int) -> float:
    """CPU seconds of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def bare(port: int, count: int) -> float:
    """CPU seconds for as many requests by http.client on one connection."""
    before = resource.getrusage(resource.RUSAGE_SELF)
    connection = http.client.HTTPConnection("127.0.0.1", port)
    for _ in range(count):
        connection.request("POST", "/", b"grant_type=client_credentials", {"Authorization": "Basic eDpz"})
        connection.getresponse().read()
    connection.close()
    after = resource.getrusage(resource.RUSAGE_SELF)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Measure one token, then many."""
    many = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", "pass"], check=True)
    python = time.monotonic() - began
    with provider() as port, tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        began = time.monotonic()
        with daemon(configure(directory, port, 1)) as process:
            wait_for_files(directory, 1, 0.002)
            started = time.monotonic() - began - python
            threading.Event().wait(1)
            print(f"one token: on disk {started * 1000:.0f} ms beyond python's own {python * 1000:.0f} ms", end="")
            print(f" ({started / python:.0f} times it); RSS {status(process.pid, 'VmRSS'):.1f} MB", flush=True)
    with provider() as port, tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        directory = Path(name)
        began = time.monotonic()
        with daemon(configure(directory, port, many)) as process:
            wait_for_files(directory, many, 0.2)
            took, spent = time.monotonic() - began, cpu(process.pid)
            rss = status(process.pid, "VmRSS")
            print(f"{many} tokens: all on tmpfs after {took:.1f} s, {spent:.1f} s of CPU, RSS {rss:.1f} MB", flush=True)
        plain = bare(port, many)
        print(f"the same requests by http.client: {plain:.1f} s of CPU; ratio {spent / plain:.1f}", flush=True)
        began = time.monotonic()
        with daemon(directory / "config.yaml") as process:
            wait_for_files(directory, many, 0.2)
            threading.Event().wait(8)
            print(f"taken up again from records: {cpu(process.pid):.1f} s of CPU, no request", flush=True)


if __name__ == "__main__":
    main()
