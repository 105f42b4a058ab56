"""What stands between bearerd and a provider, or a Redis server, sends: proxies and sentinels."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

from bearerd.grant import socks, transport
from bearerd.grant.endpoint import Endpoint
from bearerd.grant.outcome import NoReply
from bearerd.grant.reply import Reply
from bearerd.grant.request import Access, Request
from bearerd.model import Provider, ProxyLogin
from bearerd.share import redis_connection  # noqa: F401 - instrumented only if it is imported here: the client does it late
from bearerd.share.redis_client import RedisClient
from bearerd.share.types import ShareUnavailable
from bearerd.terms import Redis, Reference
from fuzz.inputs.replies import CANARY, SECRET, check_outcome
from fuzz.target import Target, one_line
from support.targets import TARGET

_LOGIN = ProxyLogin("bearerd", Reference("env", "PROXY_PASSWORD"))
_PASSWORD = "hunter2-of-the-proxy"
_ACCESS = Access(proxy_password=_PASSWORD)


@contextmanager
def _peer(data: bytes) -> Iterator[list[socket.socket]]:
    """The end of a connection on which a peer has sent these bytes, and closed its side."""
    ours, theirs = socket.socketpair()
    try:
        theirs.sendall(data.replace(b"@canary@", CANARY.encode()).replace(b"@secret@", _PASSWORD.encode()))
        theirs.shutdown(socket.SHUT_WR)
        yield [ours]
    finally:
        ours.close()
        theirs.close()


def _sent(provider: Provider, url: str, module: object, data: bytes) -> Reply | NoReply:
    """What comes of a request whose proxy sends these bytes."""
    endpoint = Endpoint(provider)
    with _peer(data) as connections:

        def connect(*_: object) -> socket.socket:
            if not connections:
                raise ConnectionRefusedError
            return connections.pop()

        try:
            with mock.patch.object(module, "connect", connect):
                return endpoint.send(Request(url, {}, b"client_secret=" + SECRET.encode(), _ACCESS))
        finally:
            endpoint.close()


def _check_no_reply(reply: NoReply) -> None:
    for said in (reply.reason, reply.hint or ""):
        one_line(said)
        assert len(said) <= 400, "a message without a bound"
        for hidden in (CANARY, SECRET, _PASSWORD):
            assert hidden not in said, "a message has what was sent or received"


# -- SOCKS5 (RFC 1928, 1929) -------------------------------------------------------------------------

_PLAIN = "http://provider.example.com/token"


def check_socks(data: bytes) -> None:
    """What a SOCKS5 proxy sends: its part of the handshake, then what it takes for the provider's response."""
    provider = Provider(name="p", token_url=_PLAIN, proxy="socks5h://127.0.0.1:1", proxy_login=_LOGIN, timeout=60.0)
    reply = _sent(provider, _PLAIN, socks, data)
    if isinstance(reply, NoReply):
        _check_no_reply(reply)
        return
    assert data[:1] == b"\x05", "a reply of something that is no SOCKS5 proxy"
    check_outcome(reply, TARGET)


_REPLY = b'HTTP/1.1 200 OK\r\n\r\n{"access_token": "a", "expires_in": 3600}'
_CONNECTED = b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00"
_HANDSHAKES = (
    b"\x05\x00" + _CONNECTED + _REPLY,
    b"\x05\x02\x01\x00" + _CONNECTED + _REPLY,
    b"\x05\x00\x05\x00\x00\x04" + bytes(18) + _REPLY,
    b"\x05\x00\x05\x00\x00\x03\x09localhost\x00\x50" + _REPLY,
    b"\x05\x02\x01\x01",
    b"\x05\xff",
    b"\x05\x00\x05\x05\x00\x01\x00\x00\x00\x00\x00\x00",
    b"\x04\x5a@canary@",
    b"HTTP/1.1 400 @canary@\r\n\r\n",
)
_SOCKS_WORDS = (b"\x05\x00", b"\x05\x02\x01\x00", _CONNECTED, b"\x05\x00\x00\x03\xff", b"\x05\x09\x00", b"@canary@")


# -- CONNECT (RFC 9110 section 9.3.6) ----------------------------------------------------------------

_TLS = "https://provider.example.com/token"


def check_connect(data: bytes) -> None:
    """What an HTTP proxy answers to CONNECT. No input is a whole TLS handshake, so nothing may come of it."""
    provider = Provider(name="p", token_url=_TLS, proxy="http://127.0.0.1:1", proxy_login=_LOGIN, timeout=60.0)
    reply = _sent(provider, _TLS, transport, data)
    assert isinstance(reply, NoReply), "a proxy's answer counts as the provider's"
    assert reply.phase not in {"wait", "read", "reply"}, "the secret was sent to a proxy"
    _check_no_reply(reply)


_ANSWERS = (
    b"HTTP/1.1 200 Connection established\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello\x16\x03\x03\x00\x01\x00",
    b"HTTP/1.1 407 @canary@\r\nProxy-Authenticate: Basic realm=@secret@\r\n\r\n",
    b"HTTP/1.1 403 Forbidden\r\nX: @canary@\r\n\r\n<html>",
    b"HTTP/1.1 103 E\r\n\r\nHTTP/1.1 200 OK\r\n\r\n\x15\x03\x03\x00\x02\x02\x28",
    b"HTTP/1.1 502\r\n" + b"X: y\r\n" * 120 + b"\r\n",
    b"\x05\x00",
    b"SSH-2.0-@canary@\r\n",
)
_CONNECT_WORDS = (
    *(b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 407 X\r\n", b"HTTP/1.0 ", b"HTTP/2 ", b"\r\n\r\n", b"\r\n folded"),
    *(b"Proxy-Authenticate: ", b"Transfer-Encoding: chunked\r\n", b"Content-Length: -1\r\n", b"@canary@", b"@secret@"),
    *(b"\x16\x03\x03", b"\x15\x03\x03\x00\x02\x02\x28"),
)


# -- sentinels ---------------------------------------------------------------------------------------

_SHARE = Redis("redis+sentinel://127.0.0.1:26379/service", timeout=60.0)


def check_sentinel(data: bytes) -> None:
    """What a sentinel sends until it closes the connection, and then a server that cannot be reached."""
    client = RedisClient(_SHARE, {})
    asked: list[str] = []
    with _peer(data) as connections:

        def dial(address: object, _ends: float) -> socket.socket:
            asked.append(str(getattr(address, "name", "")))
            if not connections:
                raise ShareUnavailable("the end of this input; look no further")
            return connections.pop()

        with mock.patch.object(client, "_dial", dial):
            try:
                client.connect()
            except ShareUnavailable as error:
                one_line(str(error))
                assert CANARY not in str(error)
                assert len(str(error)) <= 400
            else:
                raise AssertionError("a sentinel counts as the server")
    for name in asked:
        one_line(name)
        assert name.isascii()
        assert len(name) <= 300
    assert len(asked) <= 2


_SENTINELS = (
    b"+PONG\r\n*2\r\n$9\r\n127.0.0.1\r\n$4\r\n6379\r\n",
    b"+PONG\r\n*2\r\n$3\r\n::1\r\n$1\r\n1\r\n",
    b"+PONG\r\n*-1\r\n",
    b"+PONG\r\n-ERR unknown command 'SENTINEL', with args @canary@\r\n",
    b"-NOAUTH Authentication required.\r\n",
    b"+PONG\r\n*2\r\n$8\r\n@canary@\r\n$5\r\n65536\r\n",
    b"+PONG\r\n*2\r\n*1\r\n:1\r\n:6379\r\n",
    b"HTTP/1.1 400 Bad Request\r\n\r\n@canary@",
)
_SENTINEL_WORDS = (
    *(b"+PONG\r\n", b"*2\r\n", b"$9\r\n127.0.0.1\r\n", b"$4\r\n6379\r\n", b"*-1\r\n", b"$-1\r\n", b"_\r\n"),
    *(b"-ERR unknown command ", b"-NOAUTH x\r\n", b"-IDONTKNOW x\r\n", b"%1\r\n", b"@canary@", b"\xff", b":99999\r\n"),
)

TARGETS = (
    Target("socks", "the bytes from a SOCKS5 proxy", check_socks, _HANDSHAKES, _SOCKS_WORDS, longest=1024),
    Target("connect", "the answer of an HTTP proxy to CONNECT", check_connect, _ANSWERS, _CONNECT_WORDS),
    Target("sentinel", "the bytes from a sentinel", check_sentinel, _SENTINELS, _SENTINEL_WORDS, longest=1024),
)
