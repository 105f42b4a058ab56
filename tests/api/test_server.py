"""The local API over real sockets in this process: replies, and slow or silent clients."""

from __future__ import annotations

import _thread
import errno
import grp
import http.client
import json
import logging
import os
import resource
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, replace
from http import HTTPStatus
from math import inf
from pathlib import Path
from typing import Any

import pytest

from bearerd.api import connections, metrics, page, replies
from bearerd.api import status as statuses
from bearerd.api.connections import Connections
from bearerd.api.daemon import Answer, Requested
from bearerd.api.limits import Limits
from bearerd.api.server import Listener, Server
from bearerd.api.sockets import TcpEndpoint
from bearerd.api.status import Status
from bearerd.api.workers import Workers
from bearerd.errors import PublishError
from bearerd.grant.outcome import Transient
from bearerd.model import Config, Control, Listen
from bearerd.publish.advice import this_user
from bearerd.target_status import HELD, Hold, TargetStatus
from support.clock import START
from support.no_threads import no_threads
from support.process import WITHIN, eventually
from support.prometheus import status, target_status
from support.readers import open_directory, skip_where_others_cannot_run_python
from support.targets import target

ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: to give a file to another group")
NOBODY = 65534
GONE = target_status(expires=None, obtained=None, on_disk=False, failure=Transient("HTTP 503"))


class FakeDaemon:
    """Answers as a test says."""

    def __init__(self) -> None:
        self.well = True
        self.error: str | None = None
        self.found: Status | Exception = status(target_status(), target_status("risk"))
        self.answer = Requested("accepted", grants=3)
        self.asked: list[tuple[str, str | None]] = []
        self.looks = 0
        self.go_on = threading.Event()
        self.go_on.set()

    def alive(self) -> bool:
        return self.well

    def config_error(self) -> str | None:
        return self.error

    def status(self) -> Status:
        self.looks += 1
        assert self.go_on.wait(2 * WITHIN)
        if isinstance(self.found, Exception):
            raise self.found
        return self.found

    def refresh(self, name: str, instead_of: str | None) -> Requested:
        self.asked.append((name, instead_of))
        return self.answer


@dataclass(frozen=True)
class Reply:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> object:
        return json.loads(self.body)


class Site:
    """A server with both listeners."""

    def __init__(
        self,
        directory: Path,
        *,
        page: bool = False,
        mode: int = 0o660,
        group: str | None = None,
        hosts: tuple[str, ...] = (),
    ) -> None:
        self.path = directory / "control.sock"
        self.daemon = FakeDaemon()
        config = Config(str(directory), str(directory), group=group, control=Control(str(self.path), mode))
        self.config = replace(config, listen=Listen("127.0.0.1", 0, page=page, hosts=hosts))
        self.server = Server(self.daemon, self.config)
        self.server.tick()
        self.unix, self.tcp = self.server._listeners

    def connect(self, via: str = "unix") -> socket.socket:
        """A client that has said nothing yet."""
        line = socket.socket(socket.AF_UNIX if via == "unix" else socket.AF_INET, socket.SOCK_STREAM)
        line.settimeout(WITHIN)
        if via == "unix":
            line.connect(str(self.path))
        else:
            line.connect(listening(self.tcp).getsockname())
        return line

    def raw(self, request: bytes, via: str = "unix") -> bytes:
        """All that comes back."""
        with closing(self.connect(via)) as line:
            line.sendall(request)
            return everything(line)

    def ask(self, target: str, method: str = "GET", via: str = "unix", version: str = "1.1", head: str = "") -> Reply:
        with closing(self.connect(via)) as line:
            line.sendall(f"{method} {target} HTTP/{version}\r\nHost: localhost\r\n{head}\r\n".encode("latin-1"))
            return reply(line, method)


def listening(listener: Listener) -> socket.socket:
    assert listener._connections is not None
    return listener._connections._listening


def everything(line: socket.socket) -> bytes:
    return b"".join(iter(lambda: line.recv(1 << 16), b""))


def dropped(line: socket.socket) -> bool:
    """Whether the other end closes without a reply; with bytes that it has not read, that is a reset."""
    try:
        return everything(line) == b""
    except ConnectionError:
        return True


def reply(line: socket.socket, method: str = "GET") -> Reply:
    """As the library's client understands it."""
    with http.client.HTTPResponse(line, method=method) as response:
        response.begin()
        return Reply(response.status, response.headers, response.read())


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    # Nobody is dropped by a timeout here, unless the test is about that one.
    monkeypatch.setattr(connections, "_REQUEST_WITHIN", 2 * WITHIN)
    for name in ("_REPLY_WITHIN", "_PART_WITHIN", "_SMALL_WITHIN"):
        monkeypatch.setattr(replies, name, 2 * WITHIN)


@pytest.fixture
def build(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Iterator[Callable[..., Site]]:
    caplog.set_level(logging.INFO)
    sites: list[Site] = []

    def make(**given: object) -> Site:
        sites.append(Site(tmp_path, **given))  # type: ignore[arg-type]  # a test's own
        return sites[-1]

    yield make
    for site in sites:
        site.server.stop()
        site.daemon.go_on.set()


@pytest.fixture
def site(build: Callable[..., Site]) -> Site:
    return build()


@contextmanager
def clients(site: Site, count: int, said: bytes = b"", via: str = "unix") -> Iterator[list[socket.socket]]:
    """So many connections, which have said this much."""
    with ExitStack() as stack:
        lines = []
        for _ in range(count):
            lines.append(stack.enter_context(closing(site.connect(via))))
            lines[-1].sendall(said)
        yield lines


def many() -> tuple[TargetStatus, ...]:
    """More than goes into any socket's buffers."""
    return tuple(target_status(f"t{number}") for number in range(3000))


# -- routes --------------------------------------------------------------------------------------------

PROBES = {"/livez": "application/json", "/readyz": "application/json", "/metrics": metrics.CONTENT_TYPE}
ALL = PROBES | {"/status": "application/json", "/": "text/html; charset=utf-8"}


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    ("via", "route", "kind"),
    [*(("unix", *route) for route in ALL.items()), *(("tcp", *route) for route in PROBES.items())],
)
def test_each_route_is_answered(site: Site, via: str, route: str, kind: str, method: str) -> None:
    found = site.ask(route, method, via)
    assert (found.status, found.headers["Content-Type"], found.headers["Connection"]) == (200, kind, "close")
    assert (found.headers["Cache-Control"], found.headers["Server"]) == ("no-store", "bearerd")
    body = site.raw(f"{method} {route} HTTP/1.0\r\n\r\n".encode(), via).partition(b"\r\n\r\n")[2]
    assert bool(body) == (method == "GET")


def test_the_answers_are_what_they_should_be(site: Site) -> None:
    daemon = site.daemon
    assert site.ask("/livez").json == {"ok": True, "reasons": [], "config_error": None}
    assert site.ask("/readyz").json == {"ok": True, "reasons": [], "config_error": None}
    assert isinstance(daemon.found, Status)
    assert site.ask("/metrics").body == b"".join(metrics.expose(daemon.found))
    assert site.ask("/status").body.decode() == "".join(statuses.text(daemon.found))
    found = site.ask("/")
    assert found.body == b"".join(page.render(daemon.found))
    assert dict(page.HEADERS).items() <= dict(found.headers).items()


def test_status_can_be_of_one_token(site: Site) -> None:
    def names(query: str) -> list[str]:
        return [token["name"] for token in json.loads(site.ask(f"/status{query}").body)["tokens"]]

    assert names("") == ["dnb/bci", "dnb/risk"]
    assert names("?name=dnb/risk") == names("?name=dnb%2Frisk") == ["dnb/risk"]
    assert names("?name=dnb/other") == []


@pytest.mark.parametrize("wanted", [False, True])
def test_over_tcp_there_are_only_probes_and_metrics_and_the_page_where_it_is_wanted(
    build: Callable[..., Site], wanted: bool
) -> None:
    site = build(page=wanted)
    assert site.ask("/", via="tcp").status == (200 if wanted else 404)
    assert site.ask("/status", via="tcp").status == 404
    assert site.ask("/refresh/dnb/bci", "POST", via="tcp").status == 404
    assert site.daemon.asked == []
    routes = "/, /livez, /metrics, /readyz" if wanted else "/livez, /metrics, /readyz"
    assert site.ask("/x", via="tcp").json == {"error": f"not found; the paths are {routes}"}


def test_who_asks_for_what_is_not_there_is_told_what_is(site: Site) -> None:
    said = "not found; the paths are /, /livez, /metrics, /readyz, /status, POST /refresh/<client>/<token>"
    assert (site.ask("/x").status, site.ask("/x").json) == (404, {"error": said})


@pytest.mark.parametrize(
    ("method", "route", "allowed"),
    [
        ("POST", "/livez", "GET, HEAD"),
        ("DELETE", "/status", "GET, HEAD"),
        ("OPTIONS", "/", "GET, HEAD"),
        ("get", "/livez", "GET, HEAD"),
        ("GET", "/refresh/dnb/bci", "POST"),
        ("HEAD", "/refresh/dnb/bci", "POST"),
        ("PUT", "/refresh/dnb/bci", "POST"),
    ],
)
def test_another_method_is_told_which_there_are(site: Site, method: str, route: str, allowed: str) -> None:
    found = site.ask(route, method)
    assert (found.status, found.headers["Allow"]) == (405, allowed)
    assert site.daemon.asked == []


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("//livez", 200),
        ("http://localhost/livez", 200),
        ("/livez?x=1&x", 200),
        ("/livez/", 404),
        ("/LIVEZ", 404),
        ("/%6civez", 404),
        ("/livez%00", 404),
        ("/./livez", 404),
        ("/../livez", 404),
        ("/\xff\xfe", 404),
        ("*", 404),
        ("http://localhost", 404),
        ("http://[/livez", 400),
        ("http:///livez", 400),
        ("http://a@localhost/livez", 400),
        ("localhost:443", 400),
        ("livez", 400),
        ("//[/livez", 404),
        ("/refresh/dnb", 404),
        ("/refresh/dnb/", 404),
        ("/refresh//bci", 404),
        ("/refresh/dnb/bci/", 404),
        ("/refresh/dnb/../bci", 404),
    ],
)
@pytest.mark.parametrize("via", ["unix", "tcp"])
def test_each_path_has_one_spelling(site: Site, via: str, target: str, expected: int) -> None:
    assert site.ask(target, via=via).status == expected


@pytest.mark.parametrize("route", ["/", "/livez", "/readyz", "/metrics", "/nothing"])
def test_another_host_gets_an_error_over_tcp_and_nothing_else(build: Callable[..., Site], route: str) -> None:
    site = build(page=True, hosts=("Web1.example.com",))
    for host, expected in (("evil.example", 421), ("web1.example.com:9810", 404 if route == "/nothing" else 200)):
        request = f"GET {route} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
        with closing(site.connect("tcp")) as line:
            line.sendall(request)
            found = reply(line)
        assert found.status == expected
        if expected == 421:
            assert isinstance(found.json, dict)
            assert set(found.json) == {"error"}
            assert "listen: {hosts: [NAME]}" in found.json["error"]
        assert site.raw(request).startswith(b"HTTP/1.1 404" if route == "/nothing" else b"HTTP/1.1 200")


# -- probes --------------------------------------------------------------------------------------------


def test_not_alive_is_said_and_asks_nothing_that_could_hang(site: Site) -> None:
    site.daemon.well = False
    found = site.ask("/livez", via="tcp")
    assert found.status == 503
    reasons = ["the scheduler's heartbeat is stale: no token is refreshed"]
    assert found.json == {"ok": False, "reasons": reasons, "config_error": None}
    assert site.daemon.looks == 0


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
def test_probes_name_the_first_error_of_a_config_that_is_not_followed_and_are_well_all_the_same(
    site: Site, path: str
) -> None:
    site.daemon.error = "/etc/c.yaml:3:1: unknown key\n  a line of the config\n/etc/c.yaml:4:1: another"
    found = site.ask(path)
    assert found.json == {"ok": True, "reasons": [], "config_error": "/etc/c.yaml:3:1: unknown key"}
    site.daemon.error = "x" * 10_000
    assert site.ask(path).json == {"ok": True, "reasons": [], "config_error": "x" * 400}


@pytest.mark.parametrize(
    ("one", "reason"),
    [
        (target_status(), None),
        (target_status(failure=Transient("HTTP 503")), None),
        (target_status(expires=None, obtained=None, on_disk=False), "starting"),
        (GONE, "missing: HTTP 503"),
        (target_status(on_disk=False), "unwritten"),
        (target_status(on_disk=False, readable_until=START.boot + 0.1), None),  # being written, over one that is good
        (target_status(on_disk=False, readable_until=START.boot), "unwritten"),
        (target_status(on_disk=False, faults=("f: no space", "g: no space")), "unwritten: f, g: no space"),
        (target_status(expires=1.0), "expired"),
        (target_status(expires=1.0, failure=Transient("HTTP 503")), "expired: HTTP 503"),
    ],
)
@pytest.mark.parametrize("required", [True, False])
def test_ready_is_when_every_required_token_is_valid_on_disk(
    site: Site, one: TargetStatus, reason: str | None, required: bool
) -> None:
    site.daemon.found = status(target_status("ok"), replace(one, target=target("t", required=required)))
    found = site.ask("/readyz")
    reasons = [f"dnb/t: {reason}"] if reason and required else []
    document = {"ok": not reasons, "reasons": reasons, "config_error": None}
    assert (found.status, found.json) == (503 if reasons else 200, document)


def test_of_many_reasons_the_first_are_named(site: Site) -> None:
    gone = [replace(GONE, target=target(f"t{number}")) for number in range(23)]
    site.daemon.found = status(*gone[:20])
    assert [*json.loads(site.ask("/readyz").body)["reasons"]] == [f"dnb/t{n}: missing: HTTP 503" for n in range(20)]
    site.daemon.found = status(*gone)
    reasons = json.loads(site.ask("/readyz").body)["reasons"]
    assert (len(reasons), reasons[20]) == (21, "and 3 more")


# -- refresh -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "expected", "body", "again"),
    [
        (
            Requested("accepted", grants=7),
            202,
            {"name": "dnb/bci", "answer": "accepted", "grants": 7, "held": None},
            None,
        ),
        (
            Requested("accepted", grants=7, hold=Hold("refused", 0.0, Transient("HTTP 401")), held_for=12.5),
            202,
            {"name": "dnb/bci", "answer": "accepted", "grants": 7}
            | {"held": {"by": "refused", "text": HELD["refused"], "seconds": 12.5, "error": "HTTP 401"}},
            None,
        ),
        (
            Requested("accepted", grants=7, hold=Hold("concurrency", inf, None), held_for=inf),
            202,
            {"name": "dnb/bci", "answer": "accepted", "grants": 7}
            | {"held": {"by": "concurrency", "text": HELD["concurrency"], "seconds": None, "error": None}},
            None,
        ),
        (
            Requested("later", after=70.0, hold=Hold("rate_limit", 0.0, None)),
            429,
            {"name": "dnb/bci", "retry_after": 70}
            | {"error": "requested refreshes have used up their half of its rate_limit; try again in 70 s"},
            "70",
        ),
        (Requested("newer"), 200, {"name": "dnb/bci", "answer": "there is a newer token in its files already"}, None),
        (Requested("unknown"), 404, {"error": "there is no token 'dnb/bci'"}, None),
        (
            Requested("later", after=12.1),
            429,
            {"name": "dnb/bci", "error": "requested less than a minute ago; try again in 13 s", "retry_after": 13},
            "13",
        ),
        (
            Requested("later", after=0.001),
            429,
            {"name": "dnb/bci", "error": "requested less than a minute ago; try again in 1 s", "retry_after": 1},
            "1",
        ),
    ],
)
def test_a_wish_is_answered(site: Site, asked: Requested, expected: int, body: object, again: str | None) -> None:
    site.daemon.answer = asked
    found = site.ask("/refresh/dnb/bci", "POST")
    assert (found.status, found.json, found.headers["Retry-After"]) == (expected, body, again)
    assert site.daemon.asked == [("dnb/bci", None)]


def test_every_kind_of_answer_is_among_these() -> None:
    assert set(Answer.__args__) == {"accepted", "newer", "later", "unknown"}  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("query", "instead_of"),
    [
        ("not=0123456789abcdef", "0123456789abcdef"),
        ("not=0123456789ABCDEF", "0123456789ABCDEF"),
        ("not=%30123456789abcdef", "0123456789abcdef"),
        ("not=0123456789abcdef&not=x", "0123456789abcdef"),
        ("other=1", None),
        ("", None),
    ],
)
def test_it_may_say_which_token_failed(site: Site, query: str, instead_of: str | None) -> None:
    assert site.ask(f"/refresh/dnb/bci?{query}", "POST").status == 202
    assert site.daemon.asked == [("dnb/bci", instead_of)]


@pytest.mark.parametrize(
    "query",
    [
        "not=",
        "not",
        "not=0123456789abcde",
        "not=0123456789abcdef0",
        "not=0123456789abcdeg",
        "not=0123456789abcdef%0a",
        "not=%EF%BC%90123456789abcdef",
        "not=x&not=0123456789abcdef",
    ],
)
def test_what_is_no_digest_costs_nothing(site: Site, query: str) -> None:
    found = site.ask(f"/refresh/dnb/bci?{query}", "POST")
    assert (found.status, site.daemon.asked) == (400, [])
    assert "first 16 hex digits" in found.body.decode()


def test_names_are_taken_as_they_are_and_come_back_as_text(site: Site) -> None:
    site.daemon.answer = Requested("unknown")
    for name in ("dnb/b%63i", "dnb/<script>", "dnb/\xff", 'dnb/"'):
        found = site.ask(f"/refresh/{name}", "POST")
        assert (found.status, found.json) == (404, {"error": f"there is no token '{name}'"})
        assert found.headers["Content-Type"] == "application/json"


# -- HTTP ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        pytest.param(b"GET /livez\r\n\r\n", 400, id="HTTP/0.9"),
        pytest.param(b"GET /livez HTTP/2.0\r\n\r\n", 505, id="HTTP/2"),
        pytest.param(b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n", 414, id="a long line"),
        pytest.param(b"GET /livez HTTP/1.1\r\nA: " + b"x" * 70_000 + b"\r\n\r\n", 431, id="a long header"),
        pytest.param(b"GET /livez HTTP/1.1\r\n" + b"A: x\r\n" * 2000 + b"\r\n", 431, id="many headers"),
        pytest.param(b"GET /livez HTTP/1.0\r\nA: " + b"x" * 8100 + b"\r\n\r\n", 200, id="just short enough"),
    ],
)
@pytest.mark.parametrize("via", ["unix", "tcp"])
def test_a_request_that_cannot_be_read_gets_a_reply_that_repeats_nothing(
    site: Site, caplog: pytest.LogCaptureFixture, via: str, request_: bytes, expected: int
) -> None:
    with closing(site.connect(via)) as line:
        line.sendall(request_)
        found = reply(line)
        assert everything(line) == b""  # the end, and no reset
    assert found.status == expected
    if expected != 200:
        assert found.json == {"error": HTTPStatus(expected).phrase}
    assert site.daemon.asked == []
    assert "bug" not in caplog.text


def test_what_follows_a_refused_head_is_discarded_up_to_a_bound(site: Site) -> None:
    with closing(site.connect()) as line:
        with pytest.raises(OSError, match=r"pipe|reset"):
            line.sendall(b"x" * 10_000_000)
        assert line.recv(13) == b"HTTP/1.1 414 "


@pytest.mark.parametrize("request_", [b"", b"\r\n", b"\r\n\r\n", b"GET /livez HTTP/1.1", b"\x16\x03\x01\x02\n"])
def test_invalid_bytes_do_no_harm(site: Site, caplog: pytest.LogCaptureFixture, request_: bytes) -> None:
    with closing(site.connect()) as line:
        line.sendall(request_)
        line.shutdown(socket.SHUT_WR)
        found = everything(line)
    assert found == b"" or found.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 200 "))
    assert site.ask("/livez").status == 200
    assert "bug" not in caplog.text


@pytest.mark.parametrize(
    ("head", "body", "expected"),
    [
        ("Content-Length: 0", b"", 202),
        ("Content-Length: 5", b"hello", 202),
        ("Content-Length: 9999", b"x" * 9999, 202),
        ("Content-Length: 10000", b"x" * 10_000, 413),
        ("Transfer-Encoding: chunked", b"5\r\nhello\r\n0\r\n\r\n", 413),
    ],
)
def test_a_short_body_is_ignored_and_a_long_one_refused(
    site: Site, caplog: pytest.LogCaptureFixture, head: str, body: bytes, expected: int
) -> None:
    with closing(site.connect()) as line:
        line.sendall(f"POST /refresh/dnb/bci HTTP/1.1\r\n{head}\r\n\r\n".encode("latin-1") + body)
        assert reply(line).status == expected
    assert len(site.daemon.asked) == (expected == 202)
    assert "bug" not in caplog.text


def test_who_expects_to_be_told_to_go_on_is(site: Site) -> None:
    with closing(site.connect()) as line:
        line.sendall(b"POST /refresh/dnb/bci HTTP/1.1\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        assert line.recv(100).startswith(b"HTTP/1.1 100 ")
        line.sendall(b"ok")
        assert reply(line).status == 202


def test_of_several_requests_in_one_go_the_first_is_answered(site: Site) -> None:
    one = b"POST /refresh/dnb/bci HTTP/1.1\r\nConnection: keep-alive\r\n\r\n"
    found = site.raw(one * 3)
    assert found.count(b"HTTP/1.1 ") == found.count(b"Connection: close") == 1
    assert len(site.daemon.asked) == 1


@pytest.mark.parametrize(("version", "encoding"), [("1.1", "chunked"), ("1.0", None)])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_large_answer_comes_in_pieces_as_the_other_end_understands_them(
    site: Site, version: str, encoding: str | None, method: str
) -> None:
    site.daemon.found = status(*many())
    found = site.ask("/status", method, version=version)
    assert (found.headers["Transfer-Encoding"], found.headers["Content-Length"]) == (encoding, None)
    if method == "GET":
        assert len(json.loads(found.body)["tokens"]) == 3000
    else:
        assert found.body == b""


def test_a_small_answer_has_a_length(site: Site) -> None:
    for method in ("GET", "HEAD"):
        found = site.ask("/livez", method)
        assert found.headers["Content-Length"] == str(len(b'{"ok": true, "reasons": [], "config_error": null}\n'))


@pytest.mark.parametrize("error", [RuntimeError("a secret may stand here"), ValueError("and here")])
def test_a_fault_of_ours_costs_one_answer_and_is_said_without_its_text(
    site: Site, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    good, site.daemon.found = site.daemon.found, error
    assert site.raw(b"GET /status HTTP/1.1\r\n\r\n") == b""
    site.daemon.found = good
    assert site.ask("/status").status == 200
    assert f"a request was not answered: {type(error).__name__} at " in caplog.text
    assert str(error) not in caplog.text


@pytest.mark.parametrize("place", ["answer", "next"])
def test_without_memory_a_worker_is_not_lost(
    build: Callable[..., Site], monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    failed = threading.Event()

    def fails(_: object) -> Any:
        failed.set()
        raise MemoryError

    limit(monkeypatch, small=1)
    site = build()
    site.daemon.go_on.clear()
    request = b"GET /readyz HTTP/1.1\r\n\r\n"
    with clients(site, 1, request) as first, ExitStack() as stack:
        eventually(lambda: site.daemon.looks == 1)
        waiting = stack.enter_context(clients(site, 1, request))
        assert site.ask("/livez").status == 200  # by then it has been read
        with monkeypatch.context() as patch:
            if place == "answer":
                patch.setattr(site.daemon, "found", MemoryError())
                patch.setattr(replies, "unexpected", fails)
            else:
                patch.setattr(Workers, "_next", fails)
            site.daemon.go_on.set()
            assert failed.wait(WITHIN)
            assert (everything(first[0]) == b"") is (place == "answer")
        assert site.ask("/readyz").status == 200
        if place == "next":
            assert reply(waiting[0]).status == 200


def test_who_is_left_in_the_middle_can_tell(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def text(*_: object) -> Iterator[str]:
        yield from ["x" * 70_000] * 3
        raise RuntimeError

    monkeypatch.setattr(statuses, "text", text)
    with pytest.raises(http.client.IncompleteRead):
        site.ask("/status")
    eventually(lambda: "a request was not answered: RuntimeError" in caplog.text)


# -- slow, silent and many callers ---------------------------------------------------------------------

HALVES = [
    b"",
    b"GET /livez HT",
    b"GET /livez HTTP/1.1\r\nA: b\r\n",
    b"POST /livez HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n12345",
]


def limit(monkeypatch: pytest.MonkeyPatch, **limits: int) -> None:
    """For the listeners that are opened from here on."""
    monkeypatch.setattr(Limits, "of_this_process", lambda: Limits(**limits))


@pytest.mark.parametrize("via", ["unix", "tcp"])
@pytest.mark.parametrize("half", HALVES)
def test_a_request_that_is_not_complete_in_time_is_dropped(
    site: Site, monkeypatch: pytest.MonkeyPatch, half: bytes, via: str
) -> None:
    monkeypatch.setattr(connections, "_REQUEST_WITHIN", 0.02)
    with closing(site.connect(via)) as line:
        with suppress(ConnectionError):  # the time may be over before anything was sent
            line.sendall(half)
        assert dropped(line)


@pytest.mark.parametrize("via", ["unix", "tcp"])
def test_a_byte_now_and_then_buys_no_time(site: Site, monkeypatch: pytest.MonkeyPatch, via: str) -> None:
    monkeypatch.setattr(connections, "_REQUEST_WITHIN", 0.2)
    pause = threading.Event()

    def drip(line: socket.socket) -> None:
        for _ in range(round(WITHIN / 0.01)):
            line.sendall(b"G")
            pause.wait(0.01)

    with closing(site.connect(via)) as line, pytest.raises(OSError, match=r"pipe|reset"):
        drip(line)


@pytest.mark.parametrize("via", ["unix", "tcp"])
def test_a_request_may_come_byte_by_byte(site: Site, via: str) -> None:
    with closing(site.connect(via)) as line:
        for byte in b"POST /livez HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\nok":
            line.sendall(bytes([byte]))
        assert reply(line).status == 405


@pytest.mark.parametrize("half", HALVES)
def test_the_oldest_incomplete_request_makes_room(
    build: Callable[..., Site], monkeypatch: pytest.MonkeyPatch, half: bytes
) -> None:
    limit(monkeypatch, incomplete=3)
    site = build()
    with clients(site, 3, half) as lines, closing(site.connect()) as fourth:
        assert dropped(lines[0])
        fourth.sendall(b"GET /livez HTTP/1.1\r\n\r\n")
        assert reply(fourth).status == 200
        # The others still have their time.
        for line in lines[1:]:
            line.sendall(b"1234" if b"POST" in half else b"\r\n\r\n")
            assert everything(line).startswith(b"HTTP/1.1 ")


def test_a_connection_has_its_time_to_send_before_it_makes_room(
    build: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "_TO_SEND", 2.0)
    limit(monkeypatch, incomplete=2)
    site = build()
    with clients(site, 2, b"GET /livez HTTP/1.1\r\n") as lines, closing(site.connect()) as third:
        third.sendall(b"GET /readyz HTTP/1.1\r\n\r\n")
        assert reply(third).status == 200  # it waited in the backlog
        assert dropped(lines[0])
        assert site.ask("/livez").status == 200


@pytest.mark.parametrize("count", [2, 20])
def test_nobody_who_sends_in_time_is_dropped_for_new_ones(
    build: Callable[..., Site], monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.setattr(connections, "_TO_SEND", 2.0)
    limit(monkeypatch, incomplete=2)
    site = build()
    with clients(site, 1, b"") as (first,), clients(site, count, b"GET /livez HTTP/1.1\r\n"):
        first.sendall(b"GET /livez HTTP/1.1\r\n\r\n")
        assert reply(first).status == 200


def test_an_answered_error_makes_room_like_an_incomplete_request(
    build: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    limit(monkeypatch, incomplete=2)
    site = build()
    with clients(site, 2, b"nonsense\r\n\r\n") as lines:
        assert [reply(line).status for line in lines] == [400, 400]
        assert site.ask("/livez").status == 200


@pytest.mark.parametrize("via", ["unix", "tcp"])
@pytest.mark.parametrize("half", HALVES)
def test_two_hundred_half_sent_requests_keep_nobody_out(site: Site, via: str, half: bytes) -> None:
    with clients(site, 200, half, via):
        for route in ("/livez", "/readyz", "/metrics"):
            assert site.ask(route, via=via).status == 200


@pytest.mark.parametrize("via", ["unix", "tcp"])
def test_slow_readers_of_large_replies_keep_no_probe_out(site: Site, via: str) -> None:
    site.daemon.found = status(*many())
    with clients(site, 100, b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n", via) as lines:
        assert all(line.recv(1) == b"H" for line in lines[:8])
        for _ in range(20):
            assert site.ask("/livez", via=via).status == 200
            assert site.ask("/readyz", via=via).status == 200


@pytest.mark.parametrize("via", ["unix", "tcp"])
@pytest.mark.parametrize("route", ["/livez", "/readyz", "/nothing"])
def test_small_replies_wait_for_no_reader(site: Site, via: str, route: str) -> None:
    with clients(site, 100, f"GET {route} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode(), via) as lines:
        for route_ in ("/livez", "/readyz"):
            assert site.ask(route_, via=via).status == 200
        assert {reply(line).status for line in lines} == {404 if route == "/nothing" else 200}


def test_a_reader_that_takes_nothing_gives_its_place_up(
    build: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    limit(monkeypatch, large=1)
    monkeypatch.setattr(replies, "_PART_WITHIN", 0.05)
    site = build()
    site.daemon.found = status(*many())
    with clients(site, 1, b"GET /status HTTP/1.0\r\n\r\n") as (line,):
        line.recv(1)
        site.daemon.found = status(target_status())
        assert site.ask("/status").status == 200


def test_a_reader_that_takes_a_little_gives_its_place_up_in_the_end(
    build: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    limit(monkeypatch, large=1)
    monkeypatch.setattr(replies, "_REPLY_WITHIN", 0.5)
    site = build()
    site.daemon.found = status(*many())
    over, pause = threading.Event(), threading.Event()

    def drip(line: socket.socket) -> None:
        with suppress(OSError):
            while not over.is_set() and line.recv(100):
                pause.wait(0.001)

    with clients(site, 1, b"GET /status HTTP/1.0\r\n\r\n") as (line,):
        line.recv(1)
        thread = threading.Thread(target=drip, args=(line,))
        thread.start()
        try:
            site.daemon.found = status(target_status())
            assert site.ask("/status").status == 200
        finally:
            over.set()
            thread.join()


def test_a_steady_reader_gets_a_large_reply_whole(site: Site) -> None:
    site.daemon.found = status(*many())
    with closing(site.connect()) as line:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        line.sendall(b"GET /status HTTP/1.1\r\n\r\n")
        assert everything(line).endswith(b"0\r\n\r\n")


def test_of_too_many_large_replies_the_one_that_waited_longest_is_refused(
    build: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    limit(monkeypatch, large=1, large_waiting=1)
    site = build()
    site.daemon.go_on.clear()
    with clients(site, 3) as lines:
        for line in lines:
            line.sendall(b"GET /status HTTP/1.1\r\n\r\n")
            assert site.ask("/livez").status == 200  # by then the request before it was read
        refused = reply(lines[1])
        assert (refused.status, refused.headers["Retry-After"]) == (503, "1")
        assert refused.json == {"error": "too many requests at once"}
        site.daemon.go_on.set()
        assert [reply(lines[0]).status, reply(lines[2]).status] == [200, 200]


def test_probes_that_wait_share_one_reply_which_is_made_after_they_came(site: Site) -> None:
    site.daemon.go_on.clear()
    request = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with clients(site, Limits().small, request) as first, ExitStack() as stack:
        eventually(lambda: site.daemon.looks == len(first))
        later = stack.enter_context(clients(site, 50, request))
        wish = stack.enter_context(clients(site, 2, b"POST /refresh/dnb/bci HTTP/1.1\r\n\r\n"))
        assert site.ask("/livez").status == 200  # by then these have been read
        site.daemon.found = status(GONE)
        site.daemon.go_on.set()
        assert {reply(line).status for line in later} == {503}
        assert [reply(line).status for line in wish] == [202, 202]
    assert site.daemon.looks - len(first) <= 2  # on a busy machine the last of them come after the first look
    assert len(site.daemon.asked) == 2


def test_livez_is_answered_even_when_the_rest_hangs(site: Site) -> None:
    site.daemon.go_on.clear()
    with (
        clients(site, 40, b"GET /status HTTP/1.1\r\n\r\n"),
        clients(site, 40, b"GET /readyz HTTP/1.1\r\n\r\n") as probes,
    ):
        eventually(lambda: site.daemon.looks == 1 + Limits().small)  # one large reply is made at a time
        assert site.ask("/livez").status == 200
        site.daemon.go_on.set()
        assert {reply(line).status for line in probes} == {200}


@pytest.mark.parametrize("route", ["/livez", "/readyz"])
@pytest.mark.parametrize("via", ["unix", "tcp"])
def test_a_hundred_probes_at_once_are_all_answered(site: Site, route: str, via: str) -> None:
    answered = []
    everybody = threading.Barrier(100)

    def one() -> None:
        everybody.wait(WITHIN)
        answered.append(site.ask(route, via=via).status)

    asking = [threading.Thread(target=one) for _ in range(100)]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join()
    assert answered == [200] * 100


def begun(site: Site) -> None:
    """Wait until the threads of the endpoints have begun."""
    for via in ("unix", "tcp"):
        assert site.ask("/livez", via=via).status == 200


def test_callers_that_go_away_leave_no_line_in_the_log(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    site.daemon.found = status(*many())
    caplog.clear()
    begun(site)
    before = _thread._count()
    for said in (b"", b"GET", b"nonsense\r\n\r\n", b"GET /status HTTP/1.1\r\n\r\n"):
        with closing(site.connect()) as line:
            line.sendall(said)
    assert site.ask("/livez").status == 200  # by then these have been read
    eventually(lambda: _thread._count() <= before)
    assert caplog.messages == []


def test_no_descriptor_and_no_thread_is_left_behind(site: Site) -> None:
    begun(site)
    descriptors, threads = len(os.listdir("/proc/self/fd")), _thread._count()
    with clients(site, 200, b"GET /livez"), clients(site, 20, b"x" * 9000), clients(site, 100, HALVES[3], "tcp"):
        for _ in range(30):
            assert site.ask("/readyz").status == 200
    # Not more: those of the test before may have ended meanwhile.
    eventually(lambda: len(os.listdir("/proc/self/fd")) <= descriptors and _thread._count() <= threads)


@pytest.mark.parametrize("number", [32, 64, 1024, 4096, -1])
def test_connections_leave_descriptors_to_the_rest_of_the_daemon(number: int) -> None:
    limits = Limits.for_descriptors(number)
    most = limits.incomplete + limits.small + limits.small_waiting + limits.large + limits.large_waiting
    assert most <= (number if 0 < number < 1024 else 1024) / 2
    assert min(limits.incomplete, limits.small_waiting, limits.large, limits.large_waiting) >= 2


# -- stop ----------------------------------------------------------------------------------------------


def test_a_stop_waits_for_nobody_and_takes_the_socket_away(site: Site) -> None:
    begun(site)
    before = _thread._count()
    with clients(site, 15), closing(site.connect("tcp")), closing(site.connect()) as line:
        site.daemon.go_on.clear()
        line.sendall(b"GET /status HTTP/1.1\r\n\r\n")
        eventually(lambda: site.daemon.looks)
        address = listening(site.tcp).getsockname()
        began = time.monotonic()
        site.server.stop()
        assert time.monotonic() - began < WITHIN
        assert not site.path.exists()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address)
        # Who was being answered has the answer.
        site.daemon.go_on.set()
        assert reply(line).status == 200
    eventually(lambda: _thread._count() <= before - 2)


def test_a_stop_leaves_what_somebody_else_put_there(site: Site) -> None:
    site.path.unlink()
    site.path.write_text("mine")
    site.server.stop()
    assert site.path.read_text() == "mine"


# -- the control socket's file -------------------------------------------------------------------------


@pytest.fixture(params=[0, 0o022, 0o077, 0o777], ids=oct)
def _umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


@pytest.mark.usefixtures("_umask")
@pytest.mark.parametrize("mode", [0o660, 0o600, 0o666, 0o200])
def test_the_socket_has_exactly_its_mode_and_never_a_wider_one(
    build: Callable[..., Site], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mode: int
) -> None:
    seen = []

    def look(real: Callable[..., None]) -> Callable[..., None]:
        def call(*given: object, **more: object) -> None:
            seen.append(stat.S_IMODE((tmp_path / "control.sock").stat().st_mode))
            real(*given, **more)

        return call

    for name in ("chown", "chmod"):
        monkeypatch.setattr(os, name, look(getattr(os, name)))
    site = build(mode=mode, group=str(os.getegid()))
    assert seen == [0, 0]
    assert stat.S_IMODE(site.path.stat().st_mode) == mode


def test_no_symlink_is_followed_that_takes_the_sockets_place(
    build: Callable[..., Site], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    victim, real = tmp_path / "victim", os.open
    victim.write_text("")
    victim.chmod(0o600)

    def swapped(path: str, *given: int, **more: int) -> int:
        if path.startswith("/") and Path(path).is_socket():
            Path(path).unlink()
            Path(path).symlink_to(victim)
        return real(path, *given, **more)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", swapped)
        build()
    assert "another process replaced the socket just now" in caplog.text
    assert stat.S_IMODE(victim.stat().st_mode) == 0o600


@ROOT
def test_the_socket_has_its_group_by_name_or_number(build: Callable[..., Site]) -> None:
    for group in (grp.getgrgid(NOBODY).gr_name, str(NOBODY)):
        site = build(group=group)
        assert (site.path.stat().st_gid, site.path.stat().st_uid) == (NOBODY, os.geteuid())
        site.server.stop()


@ROOT
def test_a_changed_group_applies_to_the_socket_and_no_longer_to_the_old_one(build: Callable[..., Site]) -> None:
    site = build(group=str(NOBODY))
    for group, gid, reopened in ((None, os.getegid(), True), (None, os.getegid(), False), (str(NOBODY), NOBODY, True)):
        before = listening(site.unix), listening(site.tcp)
        site.server.adopt(replace(site.config, group=group))
        assert site.path.stat().st_gid == gid
        assert ((listening(site.unix) is not before[0]), listening(site.tcp)) == (reopened, before[1])
        assert site.ask("/livez").status == 200
    site.server.stop()
    assert not site.path.exists()


def test_a_group_that_nobody_knows_is_said_and_there_is_no_socket(
    build: Callable[..., Site], caplog: pytest.LogCaptureFixture
) -> None:
    site = build(group="no-such-group")
    assert f"cannot listen at {site.path}: there is no group 'no-such-group' on this machine" in caplog.text
    assert not site.path.exists()
    assert site.ask("/livez", via="tcp").status == 200


@pytest.mark.parametrize("number", [errno.EPERM, errno.EINVAL])
def test_a_group_that_may_not_be_set_is_said_and_leaves_no_socket_for_others(
    build: Callable[..., Site], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, "chown", refuse)
        site = build(group="4242")
    assert f"cannot listen at {site.path}: {this_user()} cannot set the group 4242" in caplog.text
    assert not site.path.exists()
    site.server.adopt(replace(site.config, group=None))
    assert site.ask("/livez").status == 200


def test_what_keeps_it_shut_is_said_once_and_when_it_opens(
    tmp_path: Path, build: Callable[..., Site], caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "control.sock").mkdir()
    site = build()
    site.server.tick()
    assert caplog.text.count("the path exists and is not a socket") == 1
    assert "retrying; tokens are still refreshed" in caplog.text
    site.path.rmdir()
    site.server.tick()
    assert site.ask("/livez").status == 200
    assert f"listening at {site.path}" in caplog.text
    caplog.clear()
    site.path.unlink()
    site.server.tick()
    assert site.ask("/livez").status == 200
    assert caplog.messages == []
    site.path.unlink()
    site.path.mkdir()
    site.server.tick()
    assert caplog.text.count("the path exists and is not a socket") == 1


def test_the_socket_of_a_daemon_that_was_killed_is_replaced(tmp_path: Path, build: Callable[..., Site]) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
        dead.bind(str(tmp_path / "control.sock"))
        dead.listen()
    assert build().ask("/livez").status == 200


OPENS = """
import os, sys
from bearerd.api import sockets
for name in sys.argv[2:]:
    exec(name)
made = sockets.UnixEndpoint(sys.argv[1], 0o660, None)
made.open()
print(oct(os.lstat(sys.argv[1]).st_mode))
"""


def opens(directory: Path, *first: str) -> str:
    """The result of opening a control socket as a user other than root."""
    user = NOBODY if os.geteuid() == 0 else None
    if user is not None:
        os.chown(directory, user, -1)
    argv = [sys.executable, "-c", OPENS, str(directory / "control.sock"), *first]
    done = subprocess.run(argv, user=user, capture_output=True, text=True, check=False)
    return done.stdout.strip() or done.stderr.splitlines()[-1]


def test_the_socket_of_one_that_was_killed_before_it_gave_access_is_replaced() -> None:
    skip_where_others_cannot_run_python()
    with open_directory() as path:
        left = "import socket; dead = socket.socket(socket.AF_UNIX); dead.bind(sys.argv[1]); os.chmod(sys.argv[1], 0)"
        assert opens(path, left) == "0o140660"


def test_without_proc_access_is_given_by_name_where_nobody_else_can_write() -> None:
    skip_where_others_cannot_run_python()
    hidden = "exists = os.path.exists; os.path.exists = lambda path: not path.startswith('/proc/') and exists(path)"
    with open_directory() as path:
        assert opens(path, hidden) == "0o140660"
        (path / "control.sock").unlink()
        path.chmod(0o777)
        assert "/proc is not mounted" in opens(path, hidden)
        assert not (path / "control.sock").exists()


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_the_socket_of_one_that_lives_is_left_alone(
    tmp_path: Path, build: Callable[..., Site], caplog: pytest.LogCaptureFixture, kind: socket.SocketKind
) -> None:
    with socket.socket(socket.AF_UNIX, kind) as other:
        other.bind(str(tmp_path / "control.sock"))
        if kind == socket.SOCK_STREAM:
            other.listen(0)
        inode = (tmp_path / "control.sock").stat().st_ino
        site = build()
        for _ in range(3):
            site.server.tick()
        assert site.path.stat().st_ino == inode
        assert caplog.text.count("another process listens there; give one of them another control.socket") == 1
        site.server.stop()
        assert site.path.exists()
    assert build().ask("/livez").status == 200


def deleted(path: Path) -> None:
    path.unlink()


def opened(path: Path) -> None:
    path.chmod(0o666)


def shut(path: Path) -> None:
    path.chmod(0)


def replaced(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
        dead.bind(f"{path}.new")
    Path(f"{path}.new").chmod(0o660)
    Path(f"{path}.new").rename(path)


@ROOT
@pytest.mark.parametrize("disturb", [deleted, opened, shut, replaced], ids=lambda disturb: disturb.__name__)
def test_a_socket_that_was_disturbed_is_made_again(site: Site, disturb: Callable[[Path], None]) -> None:
    with clients(site, 1, b"GET /livez HTTP/1.1\r\n") as (line,):
        assert site.ask("/livez").status == 200  # by then that one was accepted
        site.server.tick()
        made = site.path.stat()
        disturb(site.path)
        site.server.tick()
        found = site.path.stat()
        assert (found.st_mode, found.st_uid, found.st_gid) == (made.st_mode, made.st_uid, made.st_gid)
        assert site.ask("/readyz").status == 200
        # Who was there already stays.
        line.sendall(b"\r\n")
        assert reply(line).status == 200


def test_one_that_is_as_it_was_is_left(site: Site) -> None:
    inode, listeners = site.path.stat().st_ino, [*map(listening, site.server._listeners)]
    for _ in range(3):
        site.server.tick()
    assert (site.path.stat().st_ino, [*map(listening, site.server._listeners)]) == (inode, listeners)


# -- listen --------------------------------------------------------------------------------------------


def serving(port: int, daemon: FakeDaemon, host: str = "127.0.0.1") -> Server:
    made = Server(daemon, Config("/x", "/x", listen=Listen(host, port)))
    made.tick()
    return made


def test_a_port_that_is_taken_is_said_once_and_had_when_it_is_free(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        made = serving(port, FakeDaemon())
        made.tick()
    said = f"cannot listen at 127.0.0.1:{port}: address already in use; retrying; tokens are still refreshed"
    assert caplog.messages == [said]
    made.tick()
    assert caplog.messages[1:] == [f"listening at 127.0.0.1:{port}"]
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("GET", "/livez")
    assert connection.getresponse().status == 200
    connection.close()
    made.stop()


def test_a_zone_that_is_no_network_interface_is_named() -> None:
    with pytest.raises(PublishError, match="its zone is not a network interface of this machine"):
        TcpEndpoint(Listen("fe80::1%no-such-if", 0)).open()


def test_the_port_that_was_found_is_said(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    made = serving(0, FakeDaemon(), "::1" if socket.has_ipv6 and Path("/proc/net/if_inet6").exists() else "127.0.0.1")
    address = listening(made._listeners[0]).getsockname()
    assert caplog.messages == [f"listening on port {address[1]}"]
    with socket.create_connection(address[:2]) as line:
        line.sendall(b"GET /livez HTTP/1.0\r\n\r\n")
        assert reply(line).status == 200
    made.stop()


# -- where nothing is left -----------------------------------------------------------------------------


def test_without_a_thread_it_is_shut_until_there_is_one(
    build: Callable[..., Site], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as patch:
        no_threads(patch)
        site = build()
    assert caplog.text.count("no thread can be started; raise TasksMax") == 2
    site.server.tick()
    assert site.ask("/livez").status == site.ask("/livez", via="tcp").status == 200


@pytest.mark.parametrize("via", ["unix", "tcp"])
def test_without_a_thread_probes_are_answered_and_large_replies_refused(
    site: Site, monkeypatch: pytest.MonkeyPatch, via: str
) -> None:
    with monkeypatch.context() as patch:
        no_threads(patch)
        for _ in range(20):  # more than there are workers
            assert site.ask("/livez", via=via).status == site.ask("/readyz", via=via).status == 200
            refused = site.ask("/metrics", via=via)
            assert (refused.status, refused.json) == (503, {"error": "no thread can be started; raise TasksMax"})
    assert site.ask("/metrics", via=via).status == 200


def test_a_listener_that_died_is_opened_again(
    build: Callable[..., Site], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def die(_: Connections) -> None:
        raise RuntimeError("a secret may stand here")

    with monkeypatch.context() as patch:
        patch.setattr(Connections, "_timeout", die)
        site = build()
        eventually(lambda: caplog.text.count("this is a bug in bearerd, please report it") >= 2)
    assert f"no longer listening at {site.path}: RuntimeError at " in caplog.text
    assert "secret" not in caplog.text
    site.server.tick()
    assert site.ask("/livez").status == site.ask("/livez", via="tcp").status == 200


@contextmanager
def no_descriptor() -> Iterator[None]:
    """Every number below the limit is taken."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with ExitStack() as limited:
        limited.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 1, hard))
        with suppress(OSError):
            while True:
                limited.enter_context(open(os.devnull, "rb"))
        yield


@pytest.mark.parametrize("silent", [0, 1])
def test_without_a_descriptor_the_oldest_makes_room_and_callers_are_answered_later(
    site: Site, monkeypatch: pytest.MonkeyPatch, silent: int
) -> None:
    monkeypatch.setattr(connections, "_PAUSE", 0.01)
    with clients(site, silent) as silents, ExitStack() as stack:
        assert site.ask("/livez").status == 200  # the silent one was accepted before
        lines = [stack.enter_context(closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))) for _ in range(2)]
        with no_descriptor():
            for line in lines:
                line.settimeout(WITHIN)
                line.connect(str(site.path))
            assert all(map(dropped, silents))
        for line in lines:
            with suppress(OSError):  # this one, too, may have made room
                line.sendall(b"GET /livez HTTP/1.1\r\n\r\n")
                assert reply(line).status == 200
        assert site.ask("/livez").status == 200
