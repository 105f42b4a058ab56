"""Attacks by a provider, or by the network on the way to it: S6, S9, S10 and R6."""

from __future__ import annotations

import base64
import itertools
import json
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from attacks.common import MB, Found, Listener, Site, grew, growth, happens, idle, log_of, site_with_provider, started
from support.oidc import pem, private_key
from support.process import WITHIN, eventually
from support.provider import Provider
from support.server import Answer, Seen, request_of, serving

_HEADERS: Final = b"".join(b"X%d: %b\r\n" % (number, b"x" * 65000) for number in range(98))
_CHUNKED: Final = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
_BODY: Final = b'{"access_token":"t","expires_in":3600}'
_Flow = tuple[bytes, bytes]
_FLOODS: Final[Mapping[str, tuple[_Flow, ...]]] = {
    "endless 103 replies, each with 98 headers of 65 KB": (
        (b"", b"HTTP/1.1 103 Early Hints\r\n" + _HEADERS + b"\r\n"),
    ),
    "an endless head": ((b"HTTP/1.1 200 OK\r\n", _HEADERS),),
    "endless trailers": ((_CHUNKED + b"%x\r\n%b\r\n0\r\n" % (len(_BODY), _BODY), _HEADERS),),
    "small 103 replies, a status line, a header, a chunk's size and extension, a trailer and bodies without end": (
        (b"", b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" * 1000),
        (b"HTTP/1.1 200 ", b"x" * MB),
        (b"HTTP/1.1 200 OK\r\nX: ", b"x" * MB),
        (_CHUNKED, b"0" * MB),
        (_CHUNKED + b"1;", b"x" * MB),
        (_CHUNKED + b"%x\r\n%b\r\n0\r\nX: " % (len(_BODY), _BODY), b"x" * MB),
        (b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n", b" " * MB),
        (b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\n\r\n", b" " * MB),
    ),
}
"""Each reply's beginning, and the bytes that follow again and again; the clients take the replies in turn."""
_CLIENTS: Final = 8
_FLOODED: Final = 5.0
"""Seconds. 0.1.0 has 500 MB after two."""
_DEPTHS: Final = (10, 100, 500, *range(880, 1012, 4), 1100, 2000, 5000, 20_000, 100_000)
_DAY: Final = 86400.0


class Flood(Listener):
    """A provider that begins its replies when `opened` is set, and never ends them."""

    def __init__(self, flow: _Flow) -> None:
        self._head, self._again = flow
        self.asked, self.opened, self.closed = (threading.Event() for _ in range(3))
        super().__init__()

    def serve(self, connection: socket.socket) -> None:
        """Answer one request without end."""
        connection.settimeout(10.0)
        request_of(connection)
        self.asked.set()
        self.opened.wait(60.0)
        connection.sendall(self._head)
        while not self.closed.is_set():
            connection.sendall(self._again)

    def stop(self) -> None:
        """End the replies."""
        self.closed.set()
        self.opened.set()
        super().stop()


def s6(path: Path) -> Iterator[Found]:
    """Send endless replies to eight clients; a ninth client has another provider."""
    for number, (what, flows) in enumerate(_FLOODS.items()):
        floods = [Flood(flow) for flow, _ in zip(itertools.cycle(flows), range(_CLIENTS), strict=False)]
        try:
            with site_with_provider(path / str(number), lifetime=8.0) as (site, provider, _):
                evil = {f"evil{n}": site.client("timeout: 60s, ", url=flood.url) for n, flood in enumerate(floods)}
                site.write(clients={"dnb": site.client(), **evil})
                with started("run", "-c", site.config) as daemon:
                    eventually(site.raw.exists)
                    assert all(flood.asked.wait(WITHIN) for flood in floods)
                    yield _flooded(what, floods, site, daemon.process.pid, provider)
        finally:
            for flood in floods:
                flood.stop()


def _flooded(what: str, floods: list[Flood], site: Site, pid: int, provider: Provider) -> Found:
    before, grants = idle(pid), provider.grants
    for flood in floods:
        flood.opened.set()
    end = time.monotonic() + _FLOODED
    found = grew(f"{_CLIENTS} clients are sent {what}", growth(pid, before, lambda: time.monotonic() < end))
    kept = happens(lambda: provider.grants > grants, 4.0) and _keeps(site, provider.takes)
    neighbour = "kept its token" if kept else "lost its token"
    return Found(found.tried, f"{found.happened}; a ninth {neighbour}", ok=found.ok and kept)


def _keeps(site: Site, good: Callable[[str], bool]) -> bool:
    with suppress(OSError):
        return good(site.raw.read_text())
    return False


def s9(path: Path) -> Iterator[Found]:
    """Answer with a clock in the year 9999 or 1970, and look at the assertions that follow."""
    key = private_key("ES256")
    for year in (9999, 1970):
        seen: list[float] = []

        def answer(request: Seen, year: int = year, seen: list[float] = seen) -> Answer:
            form = dict(part.split("=", 1) for part in request.body.decode().split("&"))
            payload = form["client_assertion"].split(".")[1]
            seen.append(json.loads(base64.urlsafe_b64decode(payload + "=="))["exp"] - time.time())
            headers = {"Date": f"Fri, 01 Jan {year} 00:00:00 GMT"}
            if len(seen) % 2:
                return Answer(503, headers=headers)
            return Answer(200, {"access_token": f"t-{len(seen)}", "expires_in": 3}, headers)

        with serving(answer) as server:
            site = Site(path / str(year), server.url)
            signing = site.path / "key"
            signing.write_text(pem(key))
            signing.chmod(0o600)
            client = site.client().replace("client_secret: ", "auth: private_key_jwt, private_key: ")
            site.write(clients={"dnb": client.replace(str(site.secret), str(signing))})
            with started("run", "-c", site.config):
                server.wait_for(5, within=60.0)
        furthest = max(seen, key=abs)
        yield Found(
            f"Date: {year} in each reply, private_key_jwt",
            f"exp of {len(seen)} assertions is at most {furthest / _DAY * 24:.2g} h from now",
            ok=abs(furthest) <= _DAY / 12,
        )


def s10(path: Path) -> Iterator[Found]:
    """Send replies nested 10 to 100,000 deep after a good one, as tokens and as errors; then restart."""
    shapes = ("extra", "error", "bare")
    asked = dict.fromkeys(((shape, depth) for shape in shapes for depth in _DEPTHS), 0)
    lock = threading.Lock()

    def answer(seen: Seen) -> Answer:
        shape, depth = base64.b64decode(seen.headers["authorization"].split()[1]).decode().split(":")[0].split("-")
        with lock:
            asked[shape, int(depth)] += 1
            first = asked[shape, int(depth)] == 1
        if first:
            return Answer(200, {"access_token": "t-good", "expires_in": 10})
        nested = "[" * int(depth) + "]" * int(depth)
        objects = '{"a":' * int(depth) + "1" + "}" * int(depth)
        if shape == "extra":
            return Answer(200, f'{{"access_token":"t-deep","expires_in":3600,"x":{nested}}}'.encode())
        if shape == "error":
            return Answer(400, f'{{"error":{objects},"error_description":{nested}}}'.encode())
        return Answer(200, objects.encode())

    with serving(answer) as server:
        site = Site(path / "p", server.url)
        formats = "{t: {files: [{format: raw}, {format: json}]}}"
        names = [f"{shape}-{depth}" for shape, depth in asked]
        site.write(
            "log: {level: debug}",
            clients={name: site.client(tokens=formats).replace("7e0c5a", name) for name in names},
        )
        logs = []
        with started("run", "-c", site.config) as daemon:
            eventually(lambda: min(asked.values()) >= 2, within=90.0)
            held = {(site.tokens / name / "t").read_text() for name in names}
            answers = len(site.status()["tokens"]) == len(names)
            daemon.stop()
            logs.append(log_of(daemon))
        with started("run", "-c", site.config) as daemon:
            again = happens(lambda: len(site.status()["tokens"]) == len(names), 5.0)
            daemon.stop()
            logs.append(log_of(daemon))
        faults = sum(log.count("Traceback") + log.count("bug in bearerd") for log in logs)
        said = (
            f"{faults} tracebacks or bugs in the log; /status {'answers' if answers and again else 'DOES NOT ANSWER'}"
        )
        right = held <= {"t-good", "t-deep"}
        yield Found(
            f"{len(names)} replies, nested {_DEPTHS[0]} to {_DEPTHS[-1]} deep, and a restart",
            f"{said}; the files hold {'only tokens of this provider' if right else 'SOMETHING ELSE'}",
            ok=not faults and answers and again and right,
        )


@contextmanager
def _first_address_dead(path: Path, port: int) -> Iterator[str]:
    """Give localhost two addresses and drop all packets to the first; yields that address."""
    hosts = path / "hosts"
    hosts.write_text("::1 localhost\n127.0.0.1 localhost\n")
    subprocess.run(["mount", "--bind", hosts, "/etc/hosts"], check=True)
    try:
        first = str(socket.getaddrinfo("localhost", port, type=socket.SOCK_STREAM)[0][4][0])
        family = "ip6" if ":" in first else "ip"
        for line in (
            "add table inet a",
            "add chain inet a c { type filter hook input priority 0; }",
            f"add rule inet a c {family} daddr {first} tcp dport {port} drop",
        ):
            subprocess.run(["nft", line], check=True)
        yield first
        subprocess.run(["nft", "delete table inet a"], check=True)
    finally:
        subprocess.run(["umount", "/etc/hosts"], check=True)


def r6(path: Path) -> Iterator[Found]:
    """Ask a provider with two addresses of which the first drops all packets."""
    reply = Answer(200, {"access_token": "t", "expires_in": 3600}, {"Connection": "close"})
    with serving(lambda _: reply) as server, _first_address_dead(path, server.port) as first:
        site = Site(path / "p", f"http://localhost:{server.port}/token")
        if first == "127.0.0.1":
            yield Found("a dead first address", "SKIPPED: there is no IPv6 here", ok=True)
            return
        site.write(clients={"dnb": site.client("timeout: 20s, ")})
        took = []
        with started("run", "-c", site.config):
            eventually(lambda: site.status()["tokens"], within=60.0)
            for number, grant in enumerate(("first", "second"), start=1):
                began = time.monotonic()
                if grant == "second":
                    assert site.refresh() == 202
                server.wait_for(number, within=60.0)
                took.append(time.monotonic() - began)
                eventually(site.raw.exists)
        for which, seconds in zip(("first", "second"), took, strict=True):
            yield Found(
                f"localhost is {first}, which swallows packets, and 127.0.0.1; timeout 20s: the {which} grant",
                f"asked after {seconds:.1f} s",
                ok=seconds < 10.0,
            )
