"""Connections to names with several addresses, some of them dead, over real sockets."""

from __future__ import annotations

import _thread
import os
import socket
import time
from collections.abc import Callable, Iterator

import pytest

from bearerd.grant import addresses
from bearerd.grant.endpoint import Endpoint
from bearerd.grant.outcome import NoReply
from bearerd.grant.reply import Reply
from bearerd.grant.request import Request
from bearerd.model import Provider
from support.no_threads import no_threads, threads_never_begin
from support.peer import Peer, answering, blackhole, peer, refusing, resolve
from support.process import WITHIN

FOUR = socket.AF_INET
HEAD_START = 0.25
REFUSED = "no server listens there, or a firewall refuses: check host and port"
names = (f"http://name-{number}.example/token" for number in range(1000))


def closes(it: Peer, connection: socket.socket, _number: int) -> None:
    it.read(connection)


@pytest.fixture
def url() -> str:
    """A name that no other test used: which address answered is remembered per name."""
    return next(names)


def post(url: str, timeout: float = WITHIN) -> Reply | NoReply:
    endpoint = Endpoint(Provider(name="p", token_url=url, timeout=timeout))
    try:
        return endpoint.send(Request(url, {}, b""))
    finally:
        endpoint.close()


@pytest.fixture
def steady_descriptors() -> Iterator[None]:
    """Check that no socket is left open."""
    before = set(os.listdir("/proc/self/fd"))
    yield
    assert set(os.listdir("/proc/self/fd")) <= before


@pytest.mark.usefixtures("steady_descriptors")
def test_a_dead_first_address_costs_a_quarter_of_a_second(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    with peer(answering) as it, blackhole() as dead:
        resolve(monkeypatch, (FOUR, "127.0.0.1", dead), (FOUR, "127.0.0.1", it.port))
        began = time.monotonic()
        reply = post(url)
        took = time.monotonic() - began
        monkeypatch.undo()

    assert isinstance(reply, Reply), reply
    assert HEAD_START <= took < 20 * HEAD_START


@pytest.mark.usefixtures("steady_descriptors")
def test_dead_and_refusing_addresses_are_tried_in_parallel(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    with peer(answering) as it, blackhole() as one, blackhole() as two, refusing() as nobody:
        addresses = [(FOUR, "127.0.0.1", port) for port in (one, two, nobody, it.port)]
        resolve(monkeypatch, *addresses)
        began = time.monotonic()
        reply = post(url)
        took = time.monotonic() - began
        monkeypatch.undo()

    assert isinstance(reply, Reply), reply
    # The one that refuses has no head start to lose.
    assert 2 * HEAD_START <= took < 20 * HEAD_START


def test_the_address_that_connected_is_tried_first_for_ten_minutes(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    with peer(answering) as slow:
        with blackhole() as port:
            resolve(monkeypatch, (FOUR, "127.0.0.1", port), (FOUR, "127.0.0.1", slow.port))
            post(url)
        with peer(answering) as first:
            # The first address is back. For ten minutes nobody notices.
            resolve(monkeypatch, (FOUR, "127.0.0.1", first.port), (FOUR, "127.0.0.1", slow.port))
            post(url)
            assert (first.connections, slow.connections) == (0, 2)

            now = time.monotonic()
            monkeypatch.setattr(time, "monotonic", lambda: now + addresses.REMEMBERED_FOR + 1)
            post(url)
            monkeypatch.undo()
            assert (first.connections, slow.connections) == (1, 2)


def test_an_address_without_replies_is_not_remembered(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    with peer(answering) as well, peer(closes) as broken:
        resolve(monkeypatch, (FOUR, "127.0.0.1", broken.port), (FOUR, "127.0.0.1", well.port))
        assert isinstance(post(url), NoReply)
        resolve(monkeypatch, (FOUR, "127.0.0.1", well.port), (FOUR, "127.0.0.1", broken.port))
        assert isinstance(post(url), Reply)


def unwell(it: Peer, connection: socket.socket, _number: int) -> None:
    while it.read(connection):
        connection.sendall(b"HTTP/1.1 503 Unwell\r\nContent-Length: 0\r\n\r\n")


@pytest.mark.parametrize("behaviour", [closes, unwell])
def test_an_address_that_connects_and_then_fails_is_tried_last(
    monkeypatch: pytest.MonkeyPatch, url: str, behaviour: Callable[[Peer, socket.socket, int], None]
) -> None:
    with peer(answering) as well, peer(behaviour) as broken:
        resolve(monkeypatch, (FOUR, "127.0.0.1", broken.port), (FOUR, "127.0.0.1", well.port))
        replies = [post(url) for _ in range(3)]

        assert [isinstance(reply, Reply) and reply.status == 200 for reply in replies] == [False, True, True]
        assert (broken.connections, well.connections) == (1, 2)


def test_of_addresses_that_all_fail_each_is_tried_in_its_turn(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    with peer(closes) as one, peer(unwell) as two:
        resolve(monkeypatch, (FOUR, "127.0.0.1", one.port), (FOUR, "127.0.0.1", two.port))
        for _ in range(4):
            post(url)

        assert (one.connections, two.connections) == (2, 2)


@pytest.mark.usefixtures("steady_descriptors")
def test_the_deadline_closes_all_connections(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    with blackhole() as one, blackhole() as two:
        resolve(monkeypatch, (FOUR, "127.0.0.1", one), (FOUR, "127.0.0.1", two))
        threads = _thread._count()
        began = time.monotonic()
        reply = post(url, timeout=2.0)
        took = time.monotonic() - began
        monkeypatch.undo()

    host = url.split("/")[2]
    assert reply == NoReply("connect", f"{host}:80: timed out after 2 s (while connecting)")
    assert 2.0 <= took < WITHIN
    # None for an address: the alarm's, at most, is new.
    assert _thread._count() <= threads + 1


def test_without_a_thread_for_the_look_up_the_error_says_so(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setattr("bearerd.grant.endpoint.ALARM.set", lambda _: None)
    no_threads(monkeypatch)
    host = url.split("/")[2]
    said = f"{host}: no thread can be started (during name lookup)"
    assert post(url) == NoReply("name look-up", said)


def test_a_look_up_whose_thread_never_begins_ends_in_time_and_the_next_one_has_another(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setattr("bearerd.grant.endpoint.ALARM.set", lambda _: None)
    with monkeypatch.context() as patch:
        threads_never_begin(patch)
        lost = post(url, timeout=0.1)
    monkeypatch.setattr("bearerd.threads._BEGINS_WITHIN", 0.0)
    with refusing() as port:
        resolve(monkeypatch, (FOUR, "127.0.0.1", port))
        found = post(url)

    assert isinstance(lost, NoReply)
    assert "timed out after 0.1 s (during name lookup)" in lost.reason
    assert isinstance(found, NoReply)
    assert found.phase == "connect"


def test_if_no_address_answers_the_last_failure_is_reported(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    with refusing() as one, refusing() as two:
        resolve(monkeypatch, (FOUR, "127.0.0.1", one), (FOUR, "127.0.0.1", two))
        reply = post(url)

    assert reply == NoReply("connect", f"{url.split('/')[2]}:80: connection refused (while connecting)", REFUSED)
