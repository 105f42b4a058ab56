"""Floods of a running daemon over both listeners: its memory stays, and its probes are answered."""

from __future__ import annotations

import os
import re
import selectors
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from support.api import Site
from support.process import WITHIN, Daemon, eventually, running
from support.server import issues, serving

LISTEN = 'listen: {address: "127.0.0.1:0", page: true}'
GET = "GET {} HTTP/1.1\r\nHost: localhost\r\n\r\n"
# What a probe's own timeout is by default, twice: the machine of a test may be busy.
PROBE_WITHIN = 10.0
# All of it fits into no head: 99 lines of 65 KB are what http.server reads.
HUGE = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n" + (b"A: " + b"x" * 65_000 + b"\r\n") * 98 + b"\r\n"
MORE_THAN_IDLE = 30 * 1024
"""KiB."""

Connect = Callable[[], socket.socket]


@contextmanager
def flooded(path: Path, tokens: int = 1) -> Iterator[tuple[Daemon, dict[str, Connect]]]:
    """A daemon with its tokens, and how to connect to its listeners."""
    listed = ", ".join(f"t{number}: {{scope: s{number}}}" for number in range(tokens))
    with serving(issues()) as server:
        site = Site(path, server.url, f"{{{listed}}}", LISTEN)
        with running("run", "-c", site.config) as daemon:
            port = int(daemon.wait_for("listening on port ").rpartition(" ")[2])
            eventually(lambda: set(site.states().values()) == {"valid"})

            def unix() -> socket.socket:
                line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                line.settimeout(WITHIN)
                line.connect(str(site.socket))
                return line

            yield daemon, {"unix": unix, "tcp": lambda: socket.create_connection(("127.0.0.1", port), WITHIN)}


def probe(connect: Connect, route: str) -> int:
    """The status of a probe; raises TimeoutError where it takes too long.

    If this thread does not run between connecting and sending, a flood may make its connection the oldest one without a
    request, which gives way. Then it is tried once more.
    """
    for last in (False, True):
        with closing(connect()) as line:
            line.settimeout(PROBE_WITHIN)
            try:
                line.sendall(GET.format(route).encode())
                if answer := line.recv(1 << 16):
                    return int(answer.split(b" ", 2)[1])
            except ConnectionError:
                if last:
                    raise
    raise AssertionError


def memory(daemon: Daemon, which: str) -> int:
    """KiB, as /proc has them."""
    found = re.search(rf"^{which}:\s+(\d+) kB$", Path(f"/proc/{daemon.process.pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1])


def in_threads(count: int, work: Callable[[], None]) -> None:
    """Run it in so many threads; an error of one is an error."""
    errors: list[BaseException] = []

    def one() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - it is raised below
            errors.append(error)

    threads = [threading.Thread(target=one) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for error in errors:
        raise error


# -- memory --------------------------------------------------------------------------------------------


def send_huge_heads(connect: Connect) -> None:
    """From sixteen threads, each of which sends as much as it can."""

    def one() -> None:
        for _ in range(8):
            with closing(connect()) as line:
                with suppress(ConnectionError):
                    line.sendall(HUGE)
                with suppress(ConnectionError):
                    line.recv(1 << 16)

    in_threads(16, one)


@pytest.mark.parametrize("via", ["unix", "tcp"])
def test_a_flood_of_huge_heads_takes_no_memory(tmp_path: Path, via: str) -> None:
    with flooded(tmp_path) as (daemon, connects):
        assert probe(connects[via], "/readyz") == 200
        idle = memory(daemon, "VmRSS")
        send_huge_heads(connects[via])
        assert probe(connects[via], "/readyz") == 200
        assert memory(daemon, "VmHWM") - idle < MORE_THAN_IDLE


@contextmanager
def memory_cgroup(limit: int) -> Iterator[Path]:
    """A memory cgroup below this process's own, of either version; skips where there is none."""
    lines = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    first = {controllers: path.lstrip("/") for _, controllers, path in lines}
    group: Path | None = None
    for root, path, file in (
        ("/sys/fs/cgroup/memory", first.get("memory"), "memory.limit_in_bytes"),
        ("/sys/fs/cgroup", first.get(""), "memory.max"),
    ):
        parent = Path(root, path) if path is not None else None
        if parent is None or not (parent / "cgroup.procs").exists():
            continue
        with suppress(OSError):
            group = parent / f"bearerd-test-{os.getpid()}"
            group.mkdir()
            (group / file).write_text(str(limit))
            break
        if group is not None and group.exists():
            group.rmdir()
        group = None
    if group is None:
        pytest.skip("no memory cgroup can be made here")
    try:
        yield group
    finally:
        eventually(lambda: not (group / "cgroup.procs").read_text())
        group.rmdir()


def test_a_flood_of_huge_heads_does_not_exceed_a_small_cgroup(tmp_path: Path) -> None:
    # 0.1.0 needed 650 MB; a daemon of this size has 40.
    with memory_cgroup(128 * 2**20) as group, flooded(tmp_path) as (daemon, connects):
        (group / "cgroup.procs").write_text(str(daemon.process.pid))
        for connect in connects.values():
            send_huge_heads(connect)
            assert probe(connect, "/readyz") == 200
        assert daemon.process.poll() is None


# -- probes --------------------------------------------------------------------------------------------


@contextmanager
def switching_often() -> Iterator[None]:
    """Let threads of this process switch every 0.2 ms.

    After the usual 5 ms, a flood in this process opens a hundred connections between the connect and the send of a
    probe, which is then no longer sent at once.
    """
    usual = sys.getswitchinterval()
    sys.setswitchinterval(0.0002)
    try:
        yield
    finally:
        sys.setswitchinterval(usual)


@contextmanager
def kept_open(connect: Connect, count: int, said: bytes, *, reads: int) -> Iterator[None]:
    """Keep so many connections open that send `said` and read a few bytes at most. Closed ones are replaced."""
    over = threading.Event()
    selector = selectors.DefaultSelector()

    def begin() -> None:
        line = connect()
        line.sendall(said)
        line.setblocking(False)
        selector.register(line, selectors.EVENT_READ, [reads])

    def run() -> None:
        while not over.is_set():
            for key, _ in selector.select(0.1):
                line, left = key.fileobj, key.data
                assert isinstance(line, socket.socket)
                try:
                    closed = not line.recv(1)
                except OSError:
                    closed = True
                left[0] -= 1
                if closed or left[0] <= 0:
                    selector.unregister(line)
                if closed:
                    line.close()
                    with suppress(OSError):
                        begin()

    for _ in range(count):
        begin()
    held = [key.fileobj for key in selector.get_map().values()]
    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        for line in [*held, *(key.fileobj for key in selector.get_map().values())]:
            assert isinstance(line, socket.socket)
            line.close()
        selector.close()


CALLERS = {
    "silent": (b"", 1),
    "half a line": (b"GET /li", 1),
    "half a head": (b"GET /livez HTTP/1.1\r\nHost: localhost\r\n", 1),
    "half a body": (b"POST /livez HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n1", 1),
    "a slow reader of metrics": (GET.format("/metrics").encode(), 10),
    "a slow reader of the page": (GET.format("/").encode(), 10),
    "a slow reader of a probe": (GET.format("/readyz").encode(), 10),
}


@pytest.fixture(scope="module")
def listeners(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Connect]]:
    """The listeners of a daemon whose metrics and page are larger than a socket's buffer."""
    with flooded(tmp_path_factory.mktemp("flooded"), tokens=300) as (_, connects):
        yield connects


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("via", ["unix", "tcp"])
def test_probes_are_answered_beside_two_hundred_slow_callers(
    listeners: dict[str, Connect], via: str, caller: str
) -> None:
    said, reads = CALLERS[caller]
    with switching_often(), kept_open(listeners[via], 200, said, reads=reads):
        for _ in range(10):
            for route in ("/livez", "/readyz"):
                assert probe(listeners[via], route) == 200
