"""The local API over real sockets, in this process: what is answered, and who is cut off when."""

from __future__ import annotations

import grp
import http.client
import json
import logging
import os
import resource
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, replace
from http import HTTPStatus
from pathlib import Path

import pytest

from bearerd.grant.outcome import Transient
from bearerd.lifecycle.standing import Standing
from bearerd.model import Config, Listen
from bearerd.model import Control as ControlConfig
from bearerd.service import control, metrics, page
from bearerd.service import status as statuses
from bearerd.service.control import Control
from bearerd.service.engine import Answer, Asked
from bearerd.service.status import Status
from support.clock import START
from support.process import WITHIN, eventually
from support.prometheus import standing, status
from support.targets import target

ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: to give a file to another group")
NOBODY = 65534
GONE = standing(expires=None, obtained=None, on_disk=False, failure=Transient("HTTP 503"))


class House:
    """Answers as a test says."""

    def __init__(self) -> None:
        self.well = True
        self.found: Status | Exception = status(standing(), standing("risk"))
        self.answer = Asked("asked", grants=3)
        self.asked: list[tuple[str, str | None]] = []
        self.looks = 0
        self.go_on = threading.Event()
        self.go_on.set()

    def alive(self) -> bool:
        return self.well

    def status(self) -> Status:
        self.looks += 1
        assert self.go_on.wait(2 * WITHIN)
        if isinstance(self.found, Exception):
            raise self.found
        return self.found

    def refresh(self, name: str, instead_of: str | None) -> Asked:
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
    """Both doors, on a clock that stands still."""

    def __init__(self, directory: Path, *, page: bool = False, mode: int = 0o660, group: str | None = None) -> None:
        self.path = directory / "control.sock"
        self.house = House()
        self.time = 1000.0
        config = Config(str(directory), str(directory), group=group, control=ControlConfig(str(self.path), mode))
        self.control = Control(self.house, replace(config, listen=Listen("127.0.0.1", 0, page=page)), self.now)
        self.control.tick()
        self.unix, self.tcp = self.control._doors

    def now(self) -> float:
        return self.time

    def connect(self, door: str = "unix") -> socket.socket:
        """A client that has said nothing yet."""
        line = socket.socket(socket.AF_UNIX if door == "unix" else socket.AF_INET, socket.SOCK_STREAM)
        line.settimeout(WITHIN)
        if door == "unix":
            line.connect(str(self.path))
        else:
            assert self.tcp._listener is not None
            line.connect(self.tcp._listener.getsockname())
        return line

    def raw(self, request: bytes, door: str = "unix") -> bytes:
        """All that comes back."""
        with closing(self.connect(door)) as line:
            line.sendall(request)
            return everything(line)

    def ask(self, target: str, method: str = "GET", door: str = "unix", version: str = "1.1", head: str = "") -> Reply:
        with closing(self.connect(door)) as line:
            line.sendall(f"{method} {target} HTTP/{version}\r\nHost: x\r\n{head}\r\n".encode("latin-1"))
            return reply(line, method)


def everything(line: socket.socket) -> bytes:
    return b"".join(iter(lambda: line.recv(1 << 16), b""))


def reply(line: socket.socket, method: str = "GET") -> Reply:
    """As the library's client understands it."""
    with http.client.HTTPResponse(line, method=method) as response:
        response.begin()
        return Reply(response.status, response.headers, response.read())


SILENT = control._Handler.timeout


@pytest.fixture(autouse=True)
def _as_in_the_daemon(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    # But that nobody who is silent ends by himself here, where it is to be shown who else ends him.
    monkeypatch.setattr(control._Handler, "timeout", 2 * WITHIN)
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.fixture
def build(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Iterator[Callable[..., Site]]:
    caplog.set_level(logging.INFO)
    sites: list[Site] = []

    def make(**given: object) -> Site:
        sites.append(Site(tmp_path, **given))  # type: ignore[arg-type]  # a test's own
        return sites[-1]

    yield make
    for site in sites:
        site.control.stop()
        site.house.go_on.set()


@pytest.fixture
def site(build: Callable[..., Site]) -> Site:
    return build()


def waits(site: Site) -> None:
    """Until somebody waits for room."""
    eventually(lambda: site.unix._room._waiters)  # type: ignore[attr-defined]  # no public way to see it


@contextmanager
def clients(site: Site, count: int, said: bytes = b"") -> Iterator[list[socket.socket]]:
    """So many that have a place each, and have said this much."""
    with ExitStack() as stack:
        lines = [stack.enter_context(closing(site.connect())) for _ in range(count)]
        eventually(lambda: len(site.unix._open) == count)
        for line in lines:
            line.sendall(said)
        yield lines


def many() -> tuple[Standing, ...]:
    """More than goes into any socket's buffers."""
    return tuple(standing(f"t{number}") for number in range(3000))


# -- routes --------------------------------------------------------------------------------------------

PROBES = {"/livez": "application/json", "/readyz": "application/json", "/metrics": metrics.CONTENT_TYPE}
ALL = PROBES | {"/status": "application/json", "/": "text/html; charset=utf-8"}


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    ("door", "route", "kind"),
    [*(("unix", *route) for route in ALL.items()), *(("tcp", *route) for route in PROBES.items())],
)
def test_each_route_is_answered(site: Site, door: str, route: str, kind: str, method: str) -> None:
    found = site.ask(route, method, door)
    assert (found.status, found.headers["Content-Type"], found.headers["Connection"]) == (200, kind, "close")
    assert (found.headers["Cache-Control"], found.headers["Server"]) == ("no-store", "bearerd")
    body = site.raw(f"{method} {route} HTTP/1.1\r\n\r\n".encode(), door).partition(b"\r\n\r\n")[2]
    assert bool(body) == (method == "GET")


def test_the_answers_are_what_they_should_be(site: Site) -> None:
    house = site.house
    assert site.ask("/livez").json == {"ok": True, "reasons": []}
    assert site.ask("/readyz").json == {"ok": True, "reasons": []}
    assert isinstance(house.found, Status)
    assert site.ask("/metrics").body == b"".join(metrics.expose(house.found))
    assert site.ask("/status").body.decode() == "".join(statuses.text(house.found))
    found = site.ask("/")
    assert found.body == b"".join(page.render(house.found))
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
    assert site.ask("/", door="tcp").status == (200 if wanted else 404)
    assert site.ask("/status", door="tcp").status == 404
    assert site.ask("/refresh/dnb/bci", "POST", door="tcp").status == 404
    assert site.house.asked == []
    routes = "/, /livez, /metrics, /readyz" if wanted else "/livez, /metrics, /readyz"
    assert site.ask("/x", door="tcp").json == {"error": f"there is only {routes} here"}


def test_who_asks_for_what_is_not_there_is_told_what_is(site: Site) -> None:
    said = "there is only /, /livez, /metrics, /readyz, /status, POST /refresh/<client>/<token> here"
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
    assert site.house.asked == []


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("//livez", 200),
        ("http://anything.example.com/livez", 200),
        ("/livez?x=1&x", 200),
        ("/livez/", 404),
        ("/LIVEZ", 404),
        ("/%6civez", 404),
        ("/livez%00", 404),
        ("/./livez", 404),
        ("/../livez", 404),
        ("/\xff\xfe", 404),
        ("*", 404),
        ("http://anything.example.com", 404),
        ("http://[/livez", 400),
        ("//[/livez", 404),
        ("/refresh/dnb", 404),
        ("/refresh/dnb/", 404),
        ("/refresh//bci", 404),
        ("/refresh/dnb/bci/", 404),
        ("/refresh/dnb/../bci", 404),
    ],
)
@pytest.mark.parametrize("door", ["unix", "tcp"])
def test_odd_paths_are_no_others(site: Site, door: str, target: str, expected: int) -> None:
    assert site.ask(target, door=door).status == expected


# -- probes --------------------------------------------------------------------------------------------


def test_not_alive_is_said_and_asks_nothing_that_could_hang(site: Site) -> None:
    site.house.well = False
    found = site.ask("/livez", door="tcp")
    assert found.status == 503
    assert found.json == {"ok": False, "reasons": ["the schedule's heartbeat is stale: no turns are given"]}
    assert site.house.looks == 0


@pytest.mark.parametrize(
    ("one", "reason"),
    [
        (standing(), None),
        (standing(failure=Transient("HTTP 503")), None),
        (standing(expires=None, obtained=None, on_disk=False), "starting"),
        (GONE, "missing: HTTP 503"),
        (standing(on_disk=False), "unwritten"),
        (standing(on_disk=False, readable_until=START.boot + 0.1), None),  # being written, over one that is good
        (standing(on_disk=False, readable_until=START.boot), "unwritten"),
        (standing(on_disk=False, faults=("f: no space", "g: no space")), "unwritten: f: no space; g: no space"),
        (standing(expires=1.0), "expired"),
        (standing(expires=1.0, failure=Transient("HTTP 503")), "expired: HTTP 503"),
    ],
)
@pytest.mark.parametrize("required", [True, False])
def test_ready_is_when_every_required_token_is_valid_on_disk(
    site: Site, one: Standing, reason: str | None, required: bool
) -> None:
    site.house.found = status(standing("ok"), replace(one, target=target("t", required=required)))
    found = site.ask("/readyz")
    reasons = [f"dnb/t: {reason}"] if reason and required else []
    assert (found.status, found.json) == (503 if reasons else 200, {"ok": not reasons, "reasons": reasons})


def test_of_many_reasons_the_first_are_named(site: Site) -> None:
    gone = [replace(GONE, target=target(f"t{number}")) for number in range(23)]
    site.house.found = status(*gone[:20])
    assert [*json.loads(site.ask("/readyz").body)["reasons"]] == [f"dnb/t{n}: missing: HTTP 503" for n in range(20)]
    site.house.found = status(*gone)
    reasons = json.loads(site.ask("/readyz").body)["reasons"]
    assert (len(reasons), reasons[20]) == (21, "and 3 more")


# -- refresh -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "expected", "body", "again"),
    [
        (Asked("asked", grants=7), 202, {"name": "dnb/bci", "answer": "asked for", "grants": 7}, None),
        (Asked("newer"), 200, {"name": "dnb/bci", "answer": "there is a newer token in its files already"}, None),
        (Asked("unknown"), 404, {"error": "there is no token 'dnb/bci'"}, None),
        (
            Asked("later", after=12.1),
            429,
            {"name": "dnb/bci", "error": "asked for too often: again in 13 s", "retry_after": 13},
            "13",
        ),
        (
            Asked("later", after=0.001),
            429,
            {"name": "dnb/bci", "error": "asked for too often: again in 1 s", "retry_after": 1},
            "1",
        ),
    ],
)
def test_a_wish_is_answered(site: Site, asked: Asked, expected: int, body: object, again: str | None) -> None:
    site.house.answer = asked
    found = site.ask("/refresh/dnb/bci", "POST")
    assert (found.status, found.json, found.headers["Retry-After"]) == (expected, body, again)
    assert site.house.asked == [("dnb/bci", None)]


def test_every_kind_of_answer_is_among_these() -> None:
    assert set(Answer.__args__) == {"asked", "newer", "later", "unknown"}  # type: ignore[attr-defined]


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
    assert site.house.asked == [("dnb/bci", instead_of)]


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
    assert (found.status, site.house.asked) == (400, [])
    assert "first 16 hex digits" in found.body.decode()


def test_names_are_taken_as_they_are_and_come_back_as_text(site: Site) -> None:
    site.house.answer = Asked("unknown")
    for name in ("dnb/b%63i", "dnb/<script>", "dnb/\xff", 'dnb/"'):
        found = site.ask(f"/refresh/{name}", "POST")
        assert (found.status, found.json) == (404, {"error": f"there is no token '{name}'"})
        assert found.headers["Content-Type"] == "application/json"


# -- HTTP ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        pytest.param(b"GET\r\n\r\n", 400, id="one word"),
        pytest.param(b"GET /livez x HTTP/1.1\r\n\r\n", 400, id="four words"),
        pytest.param(b"GET /livez FTP/1.1\r\n\r\n", 400, id="another protocol"),
        pytest.param(b"GET /livez HTTP/1\r\n\r\n", 400, id="half a version"),
        pytest.param(b"GET /livez HTTP/2.0\r\n\r\n", 505, id="HTTP/2"),
        pytest.param(b"POST /refresh/dnb/bci\r\n\r\n", 400, id="POST in HTTP/0.9"),
        pytest.param(b"GET /livez\r\n\r\n", 200, id="HTTP/0.9"),
        pytest.param(b"GET /livez HTTP/1.0\n\n", 200, id="only line feeds"),
        pytest.param(b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n", 414, id="a long line"),
        pytest.param(b"GET /livez HTTP/1.1\r\nA: " + b"x" * 70_000 + b"\r\n\r\n", 431, id="a long header"),
        pytest.param(b"GET /livez HTTP/1.1\r\n" + b"A: x\r\n" * 101 + b"\r\n", 431, id="many headers"),
        pytest.param(b"GET /livez HTTP/1.1\r\n: x\r\n\xff\r\n\r\n", 200, id="headers that are none"),
    ],
)
@pytest.mark.parametrize("door", ["unix", "tcp"])
def test_what_is_no_good_request_has_an_answer_with_a_head(
    site: Site, caplog: pytest.LogCaptureFixture, door: str, request_: bytes, expected: int
) -> None:
    with closing(site.connect(door)) as line:
        line.sendall(request_)
        found = reply(line)
    assert found.status == expected
    if expected != 200:
        assert found.json == {"error": HTTPStatus(expected).phrase}  # and nothing of what was sent
    assert site.house.asked == []
    assert "bug" not in caplog.text


@pytest.mark.parametrize("request_", [b"", b"\r\n", b"\r\n\r\n", b"GET /livez HTTP/1.1", b"\x16\x03\x01\x02\n"])
def test_what_is_not_even_that_is_hung_up_on(site: Site, caplog: pytest.LogCaptureFixture, request_: bytes) -> None:
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
        ("Content-Length: " + "9" * 5000, b"", 413),
        ("Content-Length: -1", b"", 413),
        ("Content-Length: 0x5", b"hello", 413),
        ("Content-Length: \xb2", b"hello", 413),
        ("Content-Length:", b"", 413),
        ("Transfer-Encoding: chunked", b"5\r\nhello\r\n0\r\n\r\n", 413),
    ],
)
def test_a_short_body_is_passed_over_and_a_long_one_refused(
    site: Site, caplog: pytest.LogCaptureFixture, head: str, body: bytes, expected: int
) -> None:
    with closing(site.connect()) as line:
        line.sendall(f"POST /refresh/dnb/bci HTTP/1.1\r\n{head}\r\n\r\n".encode("latin-1") + body)
        assert reply(line).status == expected
    assert len(site.house.asked) == (expected == 202)
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
    assert len(site.house.asked) == 1


@pytest.mark.parametrize(("version", "encoding"), [("1.1", "chunked"), ("1.0", None)])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_large_answer_comes_in_pieces_as_the_other_end_understands_them(
    site: Site, version: str, encoding: str | None, method: str
) -> None:
    site.house.found = status(*many())
    found = site.ask("/status", method, version=version)
    assert (found.headers["Transfer-Encoding"], found.headers["Content-Length"]) == (encoding, None)
    if method == "GET":
        assert len(json.loads(found.body)["tokens"]) == 3000
    else:
        assert found.body == b""


def test_a_small_answer_has_a_length(site: Site) -> None:
    for method in ("GET", "HEAD"):
        found = site.ask("/livez", method)
        assert found.headers["Content-Length"] == str(len(b'{"ok": true, "reasons": []}\n'))


@pytest.mark.parametrize("error", [RuntimeError("a secret may stand here"), ValueError("and here")])
def test_a_fault_of_ours_costs_one_answer_and_is_said_without_its_text(
    site: Site, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    good, site.house.found = site.house.found, error
    assert site.raw(b"GET /status HTTP/1.1\r\n\r\n") == b""
    site.house.found = good
    assert site.ask("/status").status == 200
    assert f"a request was not answered: {type(error).__name__} at " in caplog.text
    assert str(error) not in caplog.text


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


# -- who is slow, or silent, or many ------------------------------------------------------------------


def test_who_says_nothing_is_hung_up_on(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    assert SILENT == 5.0
    monkeypatch.setattr(control._Handler, "timeout", 0.02)
    for said in (
        b"",
        b"GET /livez HT",
        b"GET /livez HTTP/1.1\r\nA: b\r\n",
        b"POST /livez HTTP/1.1\r\nContent-Length: 9",
    ):
        for door in ("unix", "tcp"):
            assert site.raw(said, door) == b""


def test_who_reads_nothing_is_hung_up_on(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control._Handler, "timeout", 0.02)
    site.house.found = status(*many())
    for door in ("unix", "tcp"):
        with closing(site.connect(door)) as line:
            line.sendall(b"GET /status HTTP/1.0\r\n\r\n" if door == "unix" else b"GET /metrics HTTP/1.0\r\n\r\n")
            line.recv(1)
            eventually(lambda: not site.unix._open and not site.tcp._open)


@pytest.mark.parametrize("door", ["unix", "tcp"])
def test_who_takes_longer_than_ten_seconds_is_cut_off_at_the_next_look(site: Site, door: str) -> None:
    for late in (False, True):
        with closing(site.connect(door)) as line:
            line.sendall(b"GET /livez HTTP/1.1\r\n")
            eventually(lambda: site.unix._open or site.tcp._open)
            site.time += 10.1 if late else 10.0
            site.control.tick()
            if late:
                assert everything(line) == b""
            else:
                line.sendall(b"\r\n")
                assert reply(line).status == 200
        eventually(lambda: not site.unix._open and not site.tcp._open)


def test_sixteen_who_are_silent_keep_nobody_out_for_longer_than_a_moment(site: Site) -> None:
    with clients(site, 16, b"GET /livez") as lines:
        site.time += 0.25
        assert site.ask("/livez").status == 200
        # The first made room, the others have their time.
        assert everything(lines[0]) == b""
        lines[1].sendall(b" HTTP/1.1\r\n\r\n")
        assert reply(lines[1]).status == 200


def test_a_hundred_who_are_silent_are_never_more_than_sixteen(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site.unix, "_now", time.monotonic)
    monkeypatch.setattr(control, "_SAYS", 0.02)
    with ExitStack() as stack:
        lines = [stack.enter_context(closing(site.connect())) for _ in range(100)]
        assert site.ask("/livez").status == 200
        assert len(site.unix._open) <= 16
        assert {everything(line) for line in lines[:84]} == {b""}


def test_who_only_just_came_is_let_speak_first(site: Site) -> None:
    with clients(site, 16) as lines, closing(site.connect()) as seventeenth:
        seventeenth.sendall(b"GET /livez HTTP/1.1\r\n\r\n")
        for line in lines:
            line.sendall(b"GET /readyz HTTP/1.1\r\n\r\n")
        assert [reply(line).status for line in [*lines, seventeenth]] == [200] * 17


def test_whose_answer_is_being_made_is_not_cut_off_for_who_comes(site: Site) -> None:
    site.house.go_on.clear()
    with clients(site, 16, b"GET /status HTTP/1.1\r\n\r\n") as lines:
        eventually(lambda: site.house.looks == 16)
        site.time += 1.9
        with closing(site.connect()) as seventeenth:
            seventeenth.sendall(b"GET /livez HTTP/1.1\r\n\r\n")
            waits(site)
            site.house.go_on.set()
            assert [reply(line).status for line in [*lines, seventeenth]] == [200] * 17


def test_who_waits_for_room_has_it_as_soon_as_there_is_some(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "_SAYS", 1000.0)
    with clients(site, 16) as lines, closing(site.connect()) as seventeenth:
        seventeenth.sendall(b"GET /livez HTTP/1.1\r\n\r\n")
        waits(site)
        lines[7].sendall(b"GET /readyz HTTP/1.1\r\n\r\n")
        assert [reply(line).status for line in (lines[7], seventeenth)] == [200, 200]


def test_who_is_silent_makes_room_before_whom_we_owe_an_answer(site: Site) -> None:
    site.house.go_on.clear()
    with clients(site, 16) as lines:
        lines[0].sendall(b"GET /status HTTP/1.1\r\n\r\n")
        eventually(lambda: site.house.looks)
        site.time += 0.25
        assert site.ask("/livez").status == 200
        assert everything(lines[1]) == b""
        site.house.go_on.set()
        assert reply(lines[0]).status == 200


def test_whatever_hangs_the_seventeenth_is_answered(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    site.house.go_on.clear()
    with clients(site, 16, b"GET /status HTTP/1.1\r\n\r\n") as lines:
        eventually(lambda: site.house.looks == 16)
        site.time += 2.0
        assert site.ask("/livez").status == 200
        assert everything(lines[0]) == b""
    # Who was cut off while his answer was being made is forgotten when it is there.
    site.house.go_on.set()
    eventually(lambda: sum(thread.name == "control" for thread in threading.enumerate()) == 2)
    assert "bug" not in caplog.text


def test_who_was_cut_off_just_when_the_request_was_there_does_not_count_again(site: Site) -> None:
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as gone:
        site.unix.goes_on(gone)
        assert gone not in site.unix._open


def test_sixteen_who_do_not_read_on_keep_nobody_out(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site.unix, "_now", time.monotonic)
    monkeypatch.setattr(control, "_TAKES", 0.05)
    site.house.found = status(*many())
    with clients(site, 16, b"GET /status HTTP/1.0\r\n\r\n") as lines:
        for line in lines:
            assert line.recv(1) == b"H"
        assert site.ask("/livez").status == 200


def test_a_hundred_at_once_are_all_answered(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site.unix, "_now", time.monotonic)
    pause, answered = threading.Event(), []
    # An answer that takes a moment: else they come one after the other.
    monkeypatch.setattr(site.house, "alive", lambda: not pause.wait(0.01))
    everybody = threading.Barrier(100)

    def one() -> None:
        everybody.wait(WITHIN)
        answered.append(site.ask("/livez").status)

    asking = [threading.Thread(target=one) for _ in range(100)]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join()
    assert answered == [200] * 100


def test_who_is_in_no_hurry_but_goes_on_reading_gets_it_all(site: Site) -> None:
    site.house.found = status(*many())
    with closing(site.connect()) as line:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        line.sendall(b"GET /status HTTP/1.1\r\n\r\n")
        line.recv(10)
        # Others come, and he has taken parts meanwhile.
        with clients_beside(site, 15):
            first = site.unix._open[next(iter(site.unix._open))]
            site.time += 1.9
            got = b"".join(line.recv(1 << 16) for _ in range(20))
            eventually(lambda: site.unix._open[next(iter(site.unix._open))].until > first.until)
            assert site.ask("/livez").status == 200
            got += everything(line)
    assert got.endswith(b"0\r\n\r\n")


@contextmanager
def clients_beside(site: Site, count: int) -> Iterator[None]:
    """So many more who are silent."""
    with ExitStack() as stack:
        before = len(site.unix._open)
        for _ in range(count):
            stack.enter_context(closing(site.connect()))
        eventually(lambda: len(site.unix._open) == before + count)
        yield


def test_who_goes_away_early_is_nobodys_fault(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    site.house.found = status(*many())
    caplog.clear()
    for said in (b"", b"GET", b"GET /status HTTP/1.1\r\n\r\n"):
        with closing(site.connect()) as line:
            line.sendall(said)
    assert site.ask("/livez").status == 200  # by then these have been taken in
    eventually(lambda: not site.unix._open)
    assert caplog.messages == []


def test_nothing_is_left_of_those_who_were_there(site: Site) -> None:
    def held() -> tuple[int, int]:
        return len(os.listdir("/proc/self/fd")), threading.active_count()

    before = held()
    with clients(site, 16):
        site.time += 1
        for _ in range(30):
            assert site.ask("/livez").status == 200
    eventually(lambda: held() == before)


# -- stop ----------------------------------------------------------------------------------------------


def test_a_stop_waits_for_nobody_and_takes_the_socket_away(site: Site) -> None:
    before = threading.active_count()
    with clients(site, 15), closing(site.connect("tcp")), closing(site.connect()) as line:
        site.house.go_on.clear()
        line.sendall(b"GET /status HTTP/1.1\r\n\r\n")
        eventually(lambda: site.house.looks)
        listener = site.tcp._listener
        assert listener is not None
        address = listener.getsockname()
        began = time.monotonic()
        site.control.stop()
        assert time.monotonic() - began < 1
        assert not site.path.exists()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address)
        # Who was being answered has the answer.
        site.house.go_on.set()
        assert reply(line).status == 200
    eventually(lambda: threading.active_count() <= before - 2)


def test_a_stop_leaves_what_somebody_else_put_there(site: Site) -> None:
    site.path.unlink()
    site.path.write_text("mine")
    site.control.stop()
    assert site.path.read_text() == "mine"


# -- the control socket's file -------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o660, 0o600, 0o666])
def test_the_socket_has_its_mode(build: Callable[..., Site], mode: int) -> None:
    assert stat.S_IMODE(build(mode=mode).path.stat().st_mode) == mode


@ROOT
def test_the_socket_has_its_group_by_name_or_number(build: Callable[..., Site]) -> None:
    for group in (grp.getgrgid(NOBODY).gr_name, str(NOBODY)):
        site = build(group=group)
        assert (site.path.stat().st_gid, site.path.stat().st_uid) == (NOBODY, os.geteuid())
        site.control.stop()


def test_a_group_that_nobody_knows_is_said_and_there_is_no_socket(
    build: Callable[..., Site], caplog: pytest.LogCaptureFixture
) -> None:
    site = build(group="no-such-group")
    assert f"{site.path} cannot be listened at: there is no group 'no-such-group' on this machine" in caplog.text
    assert not site.path.exists()
    assert site.ask("/livez", door="tcp").status == 200


def test_a_group_that_may_not_be_set_leaves_no_socket_for_others(
    build: Callable[..., Site], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    with monkeypatch.context() as patch:
        patch.setattr(os, "chown", refuse)
        site = build(group=str(os.getegid()))
    assert "cannot be listened at: the daemon's user may not do that" in caplog.text
    assert not site.path.exists()
    site.control.tick()
    assert site.ask("/livez").status == 200


def test_what_keeps_it_shut_is_said_once_and_when_it_opens(
    tmp_path: Path, build: Callable[..., Site], caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "control.sock").mkdir()
    site = build()
    site.control.tick()
    assert caplog.text.count("cannot be listened at: something else than a socket stands there") == 1
    assert "trying again, tokens are kept meanwhile" in caplog.text
    site.path.rmdir()
    site.control.tick()
    assert site.ask("/livez").status == 200
    assert f"listening at {site.path}" in caplog.text
    caplog.clear()
    site.path.unlink()
    site.control.tick()
    assert site.ask("/livez").status == 200
    assert caplog.messages == []
    site.path.unlink()
    site.path.mkdir()
    site.control.tick()
    assert caplog.text.count("cannot be listened at: something else than a socket stands there") == 1


def test_the_socket_of_a_daemon_that_was_killed_is_replaced(tmp_path: Path, build: Callable[..., Site]) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
        dead.bind(str(tmp_path / "control.sock"))
        dead.listen()
    assert build().ask("/livez").status == 200


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
            site.control.tick()
        assert site.path.stat().st_ino == inode
        assert caplog.text.count("another process listens there; give one of them another control.socket") == 1
        site.control.stop()
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
        site.control.tick()
        made = site.path.stat()
        disturb(site.path)
        site.control.tick()
        found = site.path.stat()
        assert (found.st_mode, found.st_uid, found.st_gid) == (made.st_mode, made.st_uid, made.st_gid)
        assert site.ask("/readyz").status == 200
        # Who was there already stays.
        line.sendall(b"\r\n")
        assert reply(line).status == 200


def test_one_that_is_as_it_was_is_left(site: Site) -> None:
    inode, listeners = site.path.stat().st_ino, [door._listener for door in site.control._doors]
    for _ in range(3):
        site.control.tick()
    assert (site.path.stat().st_ino, [door._listener for door in site.control._doors]) == (inode, listeners)


# -- listen --------------------------------------------------------------------------------------------


def listening(port: int, house: House, host: str = "127.0.0.1") -> Control:
    made = Control(house, Config("/x", "/x", listen=Listen(host, port)), lambda: 0.0)
    made.tick()
    return made


def test_a_port_that_is_taken_is_said_once_and_had_when_it_is_free(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        made = listening(port, House())
        made.tick()
    said = f"127.0.0.1:{port} cannot be listened at: address already in use; trying again, tokens are kept meanwhile"
    assert caplog.messages == [said]
    made.tick()
    assert caplog.messages[1:] == [f"listening at 127.0.0.1:{port}"]
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("GET", "/livez")
    assert connection.getresponse().status == 200
    connection.close()
    made.stop()


def test_the_port_that_was_found_is_said(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    made = listening(0, House(), "::1" if socket.has_ipv6 and Path("/proc/net/if_inet6").exists() else "127.0.0.1")
    listener = made._doors[0]._listener
    assert listener is not None
    assert caplog.messages == [f"listening at port {listener.getsockname()[1]}"]
    with socket.create_connection(listener.getsockname()[:2]) as line:
        line.sendall(b"GET /livez HTTP/1.1\r\n\r\n")
        assert reply(line).status == 200
    made.stop()


# -- where nothing is left -----------------------------------------------------------------------------


def no_more(_: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_without_a_thread_it_is_shut_until_there_is_one(
    build: Callable[..., Site], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_more)
        site = build()
    assert caplog.text.count("cannot be listened at: no thread can be started; raise TasksMax") == 2
    site.control.tick()
    assert site.ask("/livez").status == site.ask("/livez", door="tcp").status == 200


def test_who_comes_when_no_thread_is_left_is_answered_all_the_same(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading.Thread, "start", no_more)
    assert [site.ask("/livez").status for _ in range(3)] == [200] * 3


def test_without_a_descriptor_who_is_silent_makes_room_and_who_came_is_answered_later(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "_ACCEPT_AGAIN", 0.01)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with clients(site, 1) as (silent,), ExitStack() as stack:
        site.time += 1
        # The kernel takes the next one's descriptor before it comes: that one has it, and keeps it for now.
        lines = [stack.enter_context(closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))) for _ in range(2)]
        with ExitStack() as limited:
            limited.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 1, hard))
            with suppress(OSError):
                while True:  # every number below the limit is taken
                    limited.enter_context(open(os.devnull, "rb"))
            for line in lines:
                line.settimeout(WITHIN)
                line.connect(str(site.path))
            assert everything(silent) == b""
        for line in lines:
            line.sendall(b"GET /livez HTTP/1.1\r\n\r\n")
            assert reply(line).status == 200
