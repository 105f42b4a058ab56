"""How much of a reply is read besides its body, against real sockets."""

from __future__ import annotations

import itertools
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable

import pytest

from bearerd.grant.endpoint import Endpoint
from bearerd.grant.outcome import NoReply
from bearerd.grant.reply import Reply
from bearerd.grant.request import Request
from bearerd.model import Provider
from support.peer import OK, Peer, answering, peer
from support.process import WITHIN

HINT = "not the reply of a token endpoint; check that the URL matches the provider's settings"
BYTES = "the reply has more than 64 KiB of headers"
INTERIM = "the reply has more than 16 interim replies (1xx)"
Behaviour = Callable[[Peer, socket.socket, int], None]


def endpoint(url: str, proxy: str | None = None) -> Endpoint:
    return Endpoint(Provider(name="p", token_url=url, timeout=WITHIN, proxy=proxy))


def post(url: str, proxy: str | None = None) -> Reply | NoReply:
    it = endpoint(url, proxy)
    try:
        return it.send(Request(url, {}, b"client_secret=s3cret"))
    finally:
        it.close()


def floods(*parts: Iterable[bytes]) -> Behaviour:
    """An answer to each request, as long as the other end reads it."""

    def behaviour(it: Peer, connection: socket.socket, _number: int) -> None:
        it.read(connection)
        for part in itertools.chain.from_iterable(parts):
            if it.over.is_set():
                return
            connection.sendall(part)

    return behaviour


def headers(count: int, size: int) -> bytes:
    """Some headers of some bytes each."""
    return b"".join(b"X-%02d: " % number + b"x" * (size - 8) + b"\r\n" for number in range(count))


EARLY = b"HTTP/1.1 103 Early Hints\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
ENDLESS = itertools.repeat
# 64 KiB of them are fewer than the 100 lines that http.client allows.
FIELD = b"X: " + b"x" * 1000 + b"\r\n"


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        pytest.param(floods(ENDLESS(EARLY + headers(99, 65_000) + b"\r\n")), BYTES, id="interim-replies-of-6-MB"),
        pytest.param(floods(ENDLESS(EARLY + headers(10, 1000) + b"\r\n")), BYTES, id="interim-replies-of-10-KB"),
        pytest.param(floods(ENDLESS(EARLY + b"\r\n")), INTERIM, id="interim-replies"),
        pytest.param(floods(ENDLESS(b"HTTP/1.1 100 Continue\r\n\r\n")), INTERIM, id="100s"),
        pytest.param(floods([EARLY, headers(50, 1000), b"\r\n", OK[:17], headers(50, 1000), b"\r\n"]), BYTES, id="sum"),
        pytest.param(floods([OK[:17]], ENDLESS(b"x" * 1000)), BYTES, id="header-line"),
        pytest.param(floods([b"HTTP/1.1 200 "], ENDLESS(b"x" * 1000)), BYTES, id="status-line"),
        pytest.param(floods([OK[:17], headers(99, 1000), b"\r\n"]), BYTES, id="final-head"),
        pytest.param(floods([CHUNKED, b"0\r\n"], ENDLESS(FIELD)), BYTES, id="trailers"),
        pytest.param(floods([CHUNKED], ENDLESS(b"1;x=" + b"x" * 1000 + b"\r\n \r\n")), BYTES, id="chunk-extensions"),
        pytest.param(floods([CHUNKED], ENDLESS(b"1\r\n \r\n")), BYTES, id="chunks-of-a-byte"),
        pytest.param(
            floods([CHUNKED, b"-1\r\n"], ENDLESS(b"x" * 65_536)),
            "the reply has a part without a length",
            id="chunk-of--1",
        ),
    ],
)
def test_a_reply_with_too_many_headers_is_aborted(behaviour: Behaviour, reason: str) -> None:
    with peer(behaviour) as it:
        reply = post(it.url)

        assert reply == NoReply("reply", f"127.0.0.1:{it.port}: {reason}", HINT)
        # It is closed, and nothing is sent again.
        assert len(it.requests) == 1
        it.join()


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        pytest.param(floods([OK[:17]], ENDLESS(FIELD)), BYTES, id="headers"),
        pytest.param(floods([b"HTTP/1.1 200 "], ENDLESS(b"x" * 1000)), BYTES, id="status-line"),
        pytest.param(floods(ENDLESS(EARLY + b"\r\n")), INTERIM, id="interim-replies"),
    ],
)
def test_an_endless_reply_to_connect_is_aborted(behaviour: Behaviour, reason: str) -> None:
    with peer(behaviour) as it:
        reply = post("https://token.invalid/token", proxy=f"http://127.0.0.1:{it.port}")

        assert reply == NoReply("connect", f"the proxy 127.0.0.1:{it.port}: {reason}")
        it.join()


def test_replies_of_real_servers_are_within_the_bounds() -> None:
    big = EARLY + headers(20, 150) + b"\r\n"
    body = b'{"access_token":"' + b"t" * 40_000 + b'"}'
    chunks = b"".join(
        b"%x;ext\r\n%s\r\n" % (len(part), part) for part in (body[at : at + 100] for at in range(0, 40_019, 100))
    )
    answer = big * 16 + CHUNKED[:-2] + headers(90, 80) + b"\r\n" + chunks + b"0\r\nTrailer: x\r\n\r\n"

    def behaviour(it: Peer, connection: socket.socket, _number: int) -> None:
        while it.read(connection):
            connection.sendall(answer)

    with peer(behaviour) as it:
        kept = endpoint(it.url)
        replies = [kept.send(Request(it.url, {}, b"")) for _ in range(2)]
        kept.close()

        for reply in replies:
            assert isinstance(reply, Reply), reply
            assert reply.body == body
        # The bound is each exchange's, and the connection is kept.
        assert it.connections == 1


def test_after_an_aborted_reply_a_new_connection_is_used() -> None:
    def behaviour(it: Peer, connection: socket.socket, number: int) -> None:
        (floods(ENDLESS(EARLY + b"\r\n")) if number == 0 else answering)(it, connection, number)

    with peer(behaviour) as it:
        kept = endpoint(it.url)
        first, second = (kept.send(Request(it.url, {}, b"")) for _ in range(2))
        kept.close()

        assert (type(first), type(second), it.connections) == (NoReply, Reply, 2)


EIGHT_CLIENTS = """
import sys, threading
from bearerd.grant.endpoint import Endpoint
from bearerd.grant.request import Request
from bearerd.model import Provider

def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))

def eight(url):
    def ask(number):
        endpoint = Endpoint(Provider(name=f"p{number}", token_url=url, timeout=5.0))
        replies.append(endpoint.send(Request(url, {}, b"")))
        endpoint.close()
    replies = []
    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    return {type(reply).__name__ for reply in replies}

well, flood = sys.argv[1:]
assert eight(well) == {"Reply"}
idle = peak()
assert eight(flood) == {"NoReply"}
print((peak() - idle) // 1024)
"""


def test_eight_clients_of_a_flooding_provider_take_little_memory() -> None:
    # 537 MB once: each line may have 64 KiB, each head 100 lines, and there was no end to interim replies.
    with peer(answering) as well, peer(floods(ENDLESS(EARLY + headers(99, 65_000) + b"\r\n"))) as flood:
        child = subprocess.run(
            [sys.executable, "-c", EIGHT_CLIENTS, well.url, flood.url], capture_output=True, text=True, check=True
        )

    assert int(child.stdout) <= 30
