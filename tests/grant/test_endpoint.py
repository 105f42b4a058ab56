"""Requests over real sockets to servers that misbehave in every way."""

from __future__ import annotations

import errno
import gc
import gzip
import os
import re
import socket
import ssl
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest
import trustme

from bearerd.grant import deadline
from bearerd.grant import endpoint as module
from bearerd.grant.endpoint import Endpoint, NoReply
from bearerd.grant.reply import Reply
from bearerd.grant.request import Access, Call, Credentials, Request, compose, get
from bearerd.model import Provider, ProxyLogin
from bearerd.terms import Reference
from support.no_threads import no_threads
from support.peer import OK, Peer, answering, peer, refusing, resolve
from support.process import WITHIN, eventually
from support.server import Answer, Seen, issues, serving
from support.targets import CLIENT, target

TIMEOUT: Final = 2.0  # seconds; a loaded machine reaches each phase within them
"""Of a provider that will not answer in time: it is waited for in full."""
LONG: Final = WITHIN
"""Of a provider that will: only a broken build waits for it."""
BEYOND: Final = "not the reply of a token endpoint; check that the URL matches the provider's settings"
"""The hint for a reply that breaks a bound."""


def provider(url: str, **changes: Any) -> Provider:
    return Provider(name="p", token_url=url, **{"timeout": LONG, **changes})


def request(url: str) -> Request:
    return Request(url, {"Accept-Encoding": "identity", "Authorization": "Basic c2VjcmV0"}, b"client_secret=s3cret")


@contextmanager
def posting(url: str, **changes: Any) -> Iterator[Callable[[], Reply | NoReply]]:
    """A function that posts to an endpoint once; its connections are closed with the block."""
    endpoint = Endpoint(provider(url, **changes))
    try:
        yield lambda: endpoint.send(request(url))
    finally:
        endpoint.close()


def post(url: str, **changes: Any) -> Reply | NoReply:
    with posting(url, **changes) as send:
        return send()


def server_context(ca: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("127.0.0.1").configure_cert(context)
    return context


def reset(connection: socket.socket) -> None:
    """Close with RST in place of FIN."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    connection.close()


# -- one deadline --------------------------------------------------------------------------------------


def drips(start: bytes, drop: bytes) -> Callable[[Peer, socket.socket, int], None]:
    def behaviour(it: Peer, connection: socket.socket, _number: int) -> None:
        it.read(connection)
        connection.sendall(start)
        # Each drop comes well within the timeout of a single read.
        while not it.over.wait(TIMEOUT / 10):
            connection.sendall(drop)

    return behaviour


DURING = {
    "wait": "while waiting for the reply",
    "read": "while reading the reply",
    "TLS": "during the TLS handshake",
    "connect": "while connecting",
}


def silent(it: Peer, _connection: socket.socket, _number: int) -> None:
    it.over.wait()


@pytest.mark.parametrize(
    ("behaviour", "scheme", "phase"),
    [
        pytest.param(drips(b"HTTP/1.1 200 OK", b"!"), "http", "wait", id="drip-in-status-line"),
        pytest.param(drips(b"HTTP/1.1 200 OK\r\nX: ", b"x"), "http", "wait", id="drip-in-headers"),
        pytest.param(drips(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), "http", "wait", id="drip-of-100s"),
        pytest.param(drips(b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n", b" "), "http", "read", id="drip-in-body"),
        pytest.param(drips(b"HTTP/1.1 200 OK\r\n\r\n", b" "), "http", "read", id="drip-without-length"),
        pytest.param(
            drips(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"), "http", "read", id="chunks"
        ),
        pytest.param(silent, "http", "wait", id="accept-and-silence"),
        pytest.param(silent, "https", "TLS", id="no-handshake"),
    ],
)
def test_a_request_ends_at_its_deadline_in_every_phase(
    behaviour: Callable[[Peer, socket.socket, int], None], scheme: str, phase: str
) -> None:
    with peer(behaviour) as it:
        began = time.monotonic()
        reply = post(f"{scheme}://127.0.0.1:{it.port}/token", timeout=TIMEOUT)
        took = time.monotonic() - began

    assert reply == NoReply(phase, f"127.0.0.1:{it.port}: timed out after {TIMEOUT:g} s ({DURING[phase]})")  # type: ignore[arg-type]
    assert TIMEOUT <= took < WITHIN  # what drips would go on for ever


def test_a_dripping_reply_on_a_kept_connection_ends_at_the_deadline() -> None:
    def behaviour(it: Peer, connection: socket.socket, _number: int) -> None:
        it.read(connection)
        connection.sendall(OK)
        drips(b"HTTP/1.1 200 OK\r\nX: ", b"x")(it, connection, 0)

    with peer(behaviour) as it, posting(it.url, timeout=5.0) as send:
        assert isinstance(send(), Reply)
        assert send() == NoReply("wait", f"127.0.0.1:{it.port}: timed out after 5 s (while waiting for the reply)")
        assert it.connections == 1


@pytest.mark.parametrize(
    ("scheme", "start", "drop", "phase"),
    [
        pytest.param("http", b"HTTP/1.1 200 OK\r\nX: ", b"x", "wait", id="plain"),
        pytest.param("https", b"HTTP/1.1 200 OK\r\nX: ", b"x", "connect", id="CONNECT"),
        pytest.param("https", b"HTTP/1.1 200 OK\r\n\r\n", b"", "TLS", id="handshake"),
    ],
)
def test_a_request_through_a_proxy_ends_at_the_deadline(scheme: str, start: bytes, drop: bytes, phase: str) -> None:
    with peer(drips(start, drop)) as proxy:
        began = time.monotonic()
        reply = post(f"{scheme}://token.invalid/token", timeout=TIMEOUT, proxy=f"http://127.0.0.1:{proxy.port}")
        took = time.monotonic() - began

    assert reply == NoReply(phase, f"the proxy 127.0.0.1:{proxy.port}: timed out after {TIMEOUT:g} s ({DURING[phase]})")  # type: ignore[arg-type]
    assert TIMEOUT <= took < WITHIN  # what drips would go on for ever


def test_an_endless_body_is_read_up_to_one_byte_beyond_the_limit() -> None:
    def behaviour(it: Peer, connection: socket.socket, _number: int) -> None:
        it.read(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while not it.over.is_set():
            connection.sendall(b"x" * 4096)

    with peer(behaviour) as it:
        reply = post(it.url)

    assert isinstance(reply, Reply)
    assert len(reply.body) == 65536 + 1


def test_a_hanging_name_lookup_is_left_behind_and_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    release, calls, real = threading.Event(), [], socket.getaddrinfo

    def hangs(*arguments: Any, **_: Any) -> Any:
        calls.append(arguments)
        release.wait()
        return real("127.0.0.1", it.port, type=socket.SOCK_STREAM)

    with peer(answering) as it:
        monkeypatch.setattr(socket, "getaddrinfo", hangs)
        url = f"http://hangs.example:{it.port}/token"
        began = time.monotonic()
        try:
            replies = [post(url, timeout=TIMEOUT), post(url, timeout=TIMEOUT)]
            took = time.monotonic() - began
            lookups = list(calls)
            with posting(url) as send:
                # A later request gets the answer once it has come.
                waiting = threading.Thread(target=lambda: replies.append(send()))
                waiting.start()
                release.set()
                waiting.join(WITHIN)
        finally:
            release.set()

    assert (
        replies[:2]
        == [NoReply("name look-up", f"hangs.example: timed out after {TIMEOUT:g} s (during name lookup)")] * 2
    )
    assert took < WITHIN
    assert isinstance(replies[2], Reply)
    assert lookups == [(b"hangs.example", it.port)]


def test_a_lookup_whose_thread_cannot_start_fails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    with peer(answering) as it:
        assert isinstance(post(it.url), Reply)  # the alarm has its thread
        no_threads(monkeypatch, times=1)
        first, second = post(it.url), post(it.url)

    assert isinstance(first, NoReply)
    assert "no thread can be started (during name lookup)" in str(first)
    assert isinstance(second, Reply)


def test_an_alarm_whose_thread_cannot_start_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with peer(drips(b"HTTP/1.1 200 OK\r\nX: ", b"x")) as it:
        monkeypatch.setattr(module, "ALARM", deadline.Alarm())
        no_threads(monkeypatch, times=1)
        first, second = post(it.url, timeout=TIMEOUT), post(it.url, timeout=TIMEOUT)

    assert first == NoReply("set-up", "no thread can be started; raise TasksMax")
    assert second == NoReply(
        "wait", f"127.0.0.1:{it.port}: timed out after {TIMEOUT:g} s (while waiting for the reply)"
    )


def test_an_alarm_whose_thread_ended_has_another_for_the_next_request(monkeypatch: pytest.MonkeyPatch) -> None:
    alarm, expire, failures = deadline.Alarm(), deadline.Attempt.expire, [MemoryError()]
    monkeypatch.setattr(threading, "excepthook", lambda _: None)

    def fails_once(attempt: deadline.Attempt) -> None:
        if failures:
            raise failures.pop()
        expire(attempt)

    with peer(drips(b"HTTP/1.1 200 OK\r\nX: ", b"x")) as it:
        monkeypatch.setattr(module, "ALARM", alarm)
        monkeypatch.setattr(deadline.Attempt, "expire", fails_once)
        alarm.set(deadline.Attempt(0.0))
        eventually(lambda: alarm._thread is not None and not alarm._thread.alive())
        reply = post(it.url, timeout=TIMEOUT)

    assert reply == NoReply("wait", f"127.0.0.1:{it.port}: timed out after {TIMEOUT:g} s (while waiting for the reply)")


def test_a_slow_provider_delays_no_other() -> None:
    with peer(silent) as stuck, peer(answering) as well:
        waiting = threading.Thread(target=post, args=(stuck.url,))
        waiting.start()
        stuck.wait_for(1)

        reply = post(well.url)
        still_waiting = waiting.is_alive()
        stuck.over.set()
        waiting.join(WITHIN)

    assert isinstance(reply, Reply)
    assert still_waiting
    assert not waiting.is_alive()


# -- where it goes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_a_reply_and_is_not_followed(status: int) -> None:
    with serving(issues()) as other:
        with serving(lambda _: Answer(status, b"", {"Location": other.url})) as it:
            reply = post(it.url)

        assert isinstance(reply, Reply)
        assert (reply.status, reply.headers["location"]) == (status, other.url)
        assert other.seen == []


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_proxy_variables_are_ignored(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, scheme: str) -> None:
    ca = trustme.CA()
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = server_context(ca) if scheme == "https" else None
    with serving(issues()) as proxy, serving(issues(), context) as it:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)

        reply = post(it.url, ca_file=str(tmp_path / "ca.pem"))

        assert isinstance(reply, Reply), reply
        assert len(it.seen) == 1
        assert proxy.seen == []


def test_netrc_does_not_replace_the_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    netrc = tmp_path / ".netrc"
    netrc.write_text("machine 127.0.0.1 login mallory password wrong\ndefault login mallory password wrong\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(netrc))
    with serving(issues()) as it:
        post(it.url)

    assert it.seen[0].headers["authorization"] == "Basic c2VjcmV0"


def test_a_configured_proxy_forwards_requests_to_a_plain_http_provider() -> None:
    with serving(issues()) as proxy:
        reply = post("http://token.invalid/token", proxy=f"http://127.0.0.1:{proxy.port}")

    assert isinstance(reply, Reply)
    assert [(seen.path, seen.body) for seen in proxy.seen] == [("http://token.invalid/token", b"client_secret=s3cret")]


@pytest.mark.parametrize("status", [200, 201, 299])
def test_a_configured_proxy_tunnels_to_a_tls_provider(tmp_path: Path, status: int) -> None:
    def tunnel(it: Peer, connection: socket.socket, _number: int) -> None:
        it.read(connection)
        with socket.create_connection(("127.0.0.1", provider_server.port)) as onward:
            connection.sendall(b"HTTP/1.1 %d Connection established\r\n\r\n" % status)
            back = threading.Thread(target=pump, args=(onward, connection), daemon=True)
            back.start()
            pump(connection, onward)
            back.join(WITHIN)

    def pump(source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while part := source.recv(65536):
                sink.sendall(part)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    ca = trustme.CA()
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    with serving(issues(), server_context(ca)) as provider_server, peer(tunnel) as proxy:
        reply = post(provider_server.url, proxy=f"http://127.0.0.1:{proxy.port}", ca_file=str(tmp_path / "ca.pem"))

        assert isinstance(reply, Reply), reply
        # The proxy gets the destination, and nothing of the request.
        assert proxy.requests[0].startswith(f"CONNECT 127.0.0.1:{provider_server.port} HTTP/1.".encode())
        assert b"Authorization" not in proxy.requests[0]
        assert [seen.body for seen in provider_server.seen] == [b"client_secret=s3cret"]


@pytest.mark.parametrize(("scheme", "method"), [("http", "POST"), ("https", "CONNECT")])
def test_an_https_proxy_is_verified_with_ca_file(tmp_path: Path, scheme: str, method: str) -> None:
    ca, other = trustme.CA(), trustme.CA()
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    url, ca_file = f"{scheme}://token.invalid/token", str(tmp_path / "ca.pem")

    def script(_: Seen) -> Answer:
        return Answer(403)

    with serving(script, server_context(ca)) as good, serving(script, server_context(other)) as bad:
        post(url, proxy=f"https://127.0.0.1:{good.port}", ca_file=ca_file)
        refused = post(url, proxy=f"https://127.0.0.1:{bad.port}", ca_file=ca_file)

    assert [seen.method for seen in good.seen] == [method]
    assert bad.seen == []
    assert isinstance(refused, NoReply)
    assert (refused.phase, refused.hint) == ("TLS", f"no authority in ca_file {ca_file} issued it")


REFUSES = "refuses to connect to the provider"
UNREACHED = ("could not reach the provider", "check the URL's host and port; if they are right, ask its operator")


@pytest.mark.parametrize(
    ("status", "said", "hint"),
    [
        (403, REFUSES, "ask its operator to allow it"),
        (500, REFUSES, "ask its operator to allow it"),
        (502, *UNREACHED),
        (503, *UNREACHED),
        (504, *UNREACHED),
        (429, "received too many requests", "if it recurs, ask its operator what it allows"),
        (401, REFUSES, "the proxy requires a login: set proxy: {url: …, username: …, password: {file: …}}"),
        (407, REFUSES, "the proxy requires a login: set proxy: {url: …, username: …, password: {file: …}}"),
    ],
)
def test_a_refusal_of_the_proxy_is_reported_as_such(status: int, said: str, hint: str) -> None:
    with serving(lambda _: Answer(status, b"no")) as proxy:
        reply = post("https://token.invalid/token", proxy=f"http://127.0.0.1:{proxy.port}")

    assert reply == NoReply("connect", f"the proxy 127.0.0.1:{proxy.port} {said}: HTTP {status}", hint)
    assert [seen.method for seen in proxy.seen] == ["CONNECT"]


LOGIN = ProxyLogin("bearerd", Reference("env", "PROXY_PASSWORD"))
OF_LOGIN = "Basic YmVhcmVyZDpww6Rzc3c6cmQ="


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("tls", [False, True], ids=["http-proxy", "https-proxy"])
def test_a_login_goes_to_the_proxy_and_not_to_the_provider(tmp_path: Path, scheme: str, *, tls: bool) -> None:
    ca = trustme.CA()
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    with serving(lambda _: Answer(407, b"no"), server_context(ca) if tls else None) as proxy:
        url, there = f"{scheme}://token.invalid/token", proxy.url.removesuffix("/token")
        endpoint = Endpoint(provider(url, proxy=there, proxy_login=LOGIN, ca_file=str(tmp_path / "ca.pem")))
        with_login = Request(url, {"X": "y"}, b"client_secret=s3cret", Access(proxy_password="pässw:rd"))
        replies = [endpoint.send(with_login) for _ in range(2)]
        endpoint.close()

    method = "CONNECT" if scheme == "https" else "POST"
    assert [(seen.method, seen.headers["proxy-authorization"]) for seen in proxy.seen] == [(method, OF_LOGIN)] * 2
    # Of a tunnel the proxy sees nothing else.
    assert ("x" in proxy.seen[0].headers) == (scheme == "http")
    if scheme == "https":
        said = f"the proxy 127.0.0.1:{proxy.port} refuses to connect to the provider: HTTP 407"
        hint = "the proxy refused the login: check username and password (env PROXY_PASSWORD)"
        assert replies == [NoReply("proxy login", said, hint)] * 2


def test_the_next_address_is_used_when_the_first_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    with peer(answering) as it, refusing() as port:
        resolve(monkeypatch, (socket.AF_INET, "127.0.0.1", port), (socket.AF_INET, "127.0.0.1", it.port))

        assert isinstance(post("http://two.example/token"), Reply)


def test_the_next_address_is_used_if_this_machine_lacks_the_address_family(monkeypatch: pytest.MonkeyPatch) -> None:
    # As on a machine with ipv6.disable=1.
    real = socket.socket

    def without_ipv6(family: int = -1, *arguments: Any, **more: Any) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))
        return real(family, *arguments, **more)

    with peer(answering) as it:
        resolve(monkeypatch, (socket.AF_INET6, "::1", it.port), (socket.AF_INET, "127.0.0.1", it.port))
        monkeypatch.setattr(socket, "socket", without_ipv6)
        with posting("http://two.example/token") as send:
            reply = send()
        monkeypatch.undo()

    assert isinstance(reply, Reply), reply


# -- requests and replies -----------------------------------------------------------------------------


def test_a_compressed_body_that_nobody_asked_for_is_decoded_up_to_the_limit() -> None:
    bomb = gzip.compress(b" " * 10_000_000)
    with serving(lambda _: Answer(200, bomb, {"Content-Encoding": "gzip"})) as it:
        reply = post(it.url)

    assert isinstance(reply, Reply)
    assert reply.body == b" " * (65536 + 1)
    assert it.seen[0].headers["accept-encoding"] == "identity"


@pytest.mark.parametrize("auth", ["client_secret_basic", "client_secret_post"])
def test_the_request_arrives_byte_for_byte(auth: Any) -> None:
    # Not Latin-1: requests' own Basic raises UnicodeEncodeError for it.
    credentials = Credentials("id", "pässwörd€")
    with serving(issues()) as it:
        client = CLIENT.__class__(
            name="dnb", provider=provider(it.url), client_id="id", client_secret=CLIENT.client_secret, auth=auth
        )
        composed = compose(target(client=client), credentials, (), Call(it.url, it.url, 0.0, "nonce"))
        endpoint = Endpoint(client.provider)
        endpoint.send(composed)
        endpoint.close()

    seen = it.seen[0]
    assert composed.body is not None
    assert (seen.method, seen.path, seen.body) == ("POST", "/token", composed.body)
    expected = {name.lower(): value for name, value in composed.headers.items()}
    assert seen.headers == expected | {"host": f"127.0.0.1:{it.port}", "content-length": str(len(composed.body))}


def test_metadata_is_requested_without_a_body() -> None:
    with serving(lambda _: Answer(200, {"issuer": "x"})) as it:
        endpoint = Endpoint(provider(it.url))
        asked = get(it.url.replace("/token", "/.well-known/openid-configuration"))
        reply = endpoint.send(asked)
        endpoint.close()

    assert isinstance(reply, Reply)
    assert reply.body == b'{"issuer": "x"}'
    seen = it.seen[0]
    assert (seen.method, seen.path, seen.body) == ("GET", "/.well-known/openid-configuration", b"")
    # Among them neither a form's type nor, without any login, an Authorization.
    expected = {"accept", "accept-encoding", "user-agent", "host"}
    assert seen.headers.keys() == expected
    assert seen.headers["accept-encoding"] == "identity"


def test_a_reply_has_its_header_names_in_lower_case() -> None:
    with serving(lambda _: Answer(503, b"busy", {"Retry-After": "7"})) as it:
        reply = post(it.url)

    assert isinstance(reply, Reply)
    assert (reply.status, reply.headers["retry-after"], reply.body) == (503, "7", b"busy")


@pytest.mark.parametrize("length", ["20, 20", "20,20 , 20"])
def test_a_length_that_is_repeated_is_that_length(length: str) -> None:
    def behaviour(it: Peer, connection: socket.socket, _number: int) -> None:
        it.read(connection)
        connection.sendall(OK.replace(b"20\r\n", length.encode() + b"\r\n"))
        it.over.wait()  # the connection stays open

    with peer(behaviour) as it:
        reply = post(it.url)

    assert isinstance(reply, Reply), reply
    assert reply.body == b'{"access_token":"t"}'


# -- broken connections --------------------------------------------------------------------------------


def closes(_peer: Peer, connection: socket.socket, _number: int) -> None:
    _peer.read(connection)


def resets(_peer: Peer, connection: socket.socket, _number: int) -> None:
    _peer.read(connection)
    reset(connection)


TLS = "if this port speaks TLS, write https://"
"""The hint for a reply to plain http that is not HTTP."""


def says(text: bytes) -> Callable[[Peer, socket.socket, int], None]:
    def behaviour(it: Peer, connection: socket.socket, _number: int) -> None:
        it.read(connection)
        connection.sendall(text)

    return behaviour


@pytest.mark.parametrize(
    ("behaviour", "expected"),
    [
        pytest.param(
            closes,
            NoReply("wait", "127.0.0.1:PORT: the connection was closed (while waiting for the reply)", TLS),
            id="close",
        ),
        pytest.param(
            resets,
            NoReply("wait", "127.0.0.1:PORT: connection reset by peer (while waiting for the reply)", TLS),
            id="reset",
        ),
        pytest.param(
            says(b"SSH-2.0-OpenSSH_9.2\r\n"),
            NoReply("wait", "127.0.0.1:PORT: the reply is not HTTP (while waiting for the reply)", TLS),
            id="not-http",
        ),
        pytest.param(
            says(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200),
            NoReply("reply", "127.0.0.1:PORT: the reply has more than 100 headers", BEYOND),
            id="too-many-headers",
        ),
        pytest.param(
            says(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"),
            NoReply("read", "127.0.0.1:PORT: the connection was closed (while reading the reply)"),
            id="short-body",
        ),
        pytest.param(
            says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n{"),
            NoReply("read", "127.0.0.1:PORT: the connection was closed (while reading the reply)"),
            id="short-chunk",
        ),
    ],
)
def test_a_broken_connection_is_no_reply_and_a_first_request_is_not_repeated(
    behaviour: Callable[[Peer, socket.socket, int], None], expected: NoReply
) -> None:
    with peer(behaviour) as it:
        assert post(it.url) == replace(expected, reason=expected.reason.replace("PORT", str(it.port)))
        assert (it.connections, len(it.requests)) == (1, 1)


def test_a_reply_over_tls_that_is_not_http_has_no_hint_about_tls(tmp_path: Path) -> None:
    ca = trustme.CA()
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = server_context(ca)

    def behaviour(it: Peer, connection: socket.socket, _number: int) -> None:
        with context.wrap_socket(connection, server_side=True) as secured:
            it.read(secured)
            secured.sendall(b"220 mail.example.com ESMTP\r\n")

    with peer(behaviour) as it:
        reply = post(it.url.replace("http:", "https:"), ca_file=str(tmp_path / "ca.pem"))

    assert reply == NoReply("wait", f"127.0.0.1:{it.port}: the reply is not HTTP (while waiting for the reply)")


def test_a_closed_port_is_a_failure_to_connect() -> None:
    with refusing() as port:
        reply = post(f"http://127.0.0.1:{port}/token")

    said = f"127.0.0.1:{port}: connection refused (while connecting)"
    assert reply == NoReply("connect", said, "no server listens there, or a firewall refuses: check host and port")


def test_an_unknown_host_name_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def not_found(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", not_found)

    assert post("http://token.invalid/token") == NoReply(
        "name look-up", "token.invalid: the name was not found: Name or service not known"
    )


@pytest.mark.parametrize(
    ("error", "said", "hint"),
    [
        pytest.param(MemoryError(), "out of memory", "raise the memory limit of bearerd, or of the machine", id="lack"),
        pytest.param(
            AttributeError("s3cret"),
            f"AttributeError at {__file__}:[0-9]+",
            "this is a bug in bearerd, please report it",
            id="bug",
        ),
    ],
)
def test_a_fault_of_bearerd_itself_is_not_reported_as_the_providers(
    monkeypatch: pytest.MonkeyPatch, error: Exception, said: str, hint: str
) -> None:
    def fails(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr("bearerd.grant.transport._Response._read_status", fails)
    with serving(issues()) as server:
        reply = post(server.url)

    assert isinstance(reply, NoReply)
    assert (reply.phase, reply.hint) == ("wait", hint)
    assert re.fullmatch(rf"{said} \(while waiting for the reply\)", reply.reason)


def test_a_name_without_addresses_is_a_failure_to_connect(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve(monkeypatch)

    assert post("http://token.invalid/token") == NoReply(
        "connect", "token.invalid:80: the name has no address (while connecting)"
    )


# -- connections that are kept -------------------------------------------------------------------------


def test_a_burst_shares_a_connection() -> None:
    with peer(answering) as it, posting(it.url) as send:
        assert all(isinstance(send(), Reply) for _ in range(5))
        assert (it.connections, len(it.requests)) == (1, 5)


def test_each_host_keeps_a_connection() -> None:
    with peer(answering) as metadata, peer(answering) as tokens:
        endpoint = Endpoint(provider(tokens.url))
        for url in (metadata.url, tokens.url) * 3:
            assert isinstance(endpoint.send(request(url)), Reply)
        endpoint.close()

    assert [(it.connections, len(it.requests)) for it in (metadata, tokens)] == [(1, 3), (1, 3)]


def test_a_kept_connection_that_was_closed_is_not_used() -> None:
    closed = threading.Event()

    def once(it: Peer, connection: socket.socket, _number: int) -> None:
        it.read(connection)
        connection.sendall(OK)
        connection.close()
        closed.set()

    with peer(once) as it, posting(it.url) as send:
        assert isinstance(send(), Reply)
        assert closed.wait(WITHIN)

        assert isinstance(send(), Reply)
        assert (it.connections, len(it.requests)) == (2, 2)


@pytest.mark.parametrize(
    ("take", "arrived"),
    [
        # Closing with unread bytes sends an RST; a request that was cut off does not count here.
        pytest.param(lambda _, connection: connection.recv(1), 2, id="RST"),
        pytest.param(Peer.read, 3, id="FIN"),
    ],
)
def test_a_kept_connection_that_closes_during_the_request_is_replaced_once(
    take: Callable[[Peer, socket.socket], bytes], arrived: int
) -> None:
    # The close crosses the second request: it was still open when that was sent.
    def behaviour(it: Peer, connection: socket.socket, number: int) -> None:
        it.read(connection)
        connection.sendall(OK)
        if number == 0:
            take(it, connection)

    with peer(behaviour) as it, posting(it.url) as send:
        assert isinstance(send(), Reply)
        assert isinstance(send(), Reply)
        assert (it.connections, len(it.requests)) == (2, arrived)


def test_the_replacement_of_a_kept_connection_is_not_replaced_again() -> None:
    def behaviour(it: Peer, connection: socket.socket, number: int) -> None:
        if number == 0:
            it.read(connection)
            connection.sendall(OK)
        it.read(connection)

    with peer(behaviour) as it, posting(it.url) as send:
        assert isinstance(send(), Reply)
        said = f"127.0.0.1:{it.port}: the connection was closed (while waiting for the reply)"
        assert send() == NoReply("wait", said, TLS)
        # The first, the one on the connection that had gone stale, the one on a new connection.
        assert (it.connections, len(it.requests)) == (2, 3)


@pytest.mark.parametrize(
    ("answer", "end"),
    [
        pytest.param(b"HTTP/1.1", socket.socket.close, id="half-a-status-line"),
        pytest.param(b"HTTP/1.1", reset, id="half-a-status-line-RST"),
        pytest.param(b"garbage\r\n", socket.socket.close, id="no-status-line"),
        pytest.param(b"HTTP/1.1 102 Processing\r\n\r\n", socket.socket.close, id="interim-reply"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Ty", reset, id="half-a-head-RST"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{", socket.socket.close, id="half-a-body"),
    ],
)
def test_a_request_with_a_partial_reply_is_not_repeated(answer: bytes, end: Callable[[socket.socket], None]) -> None:
    def behaviour(it: Peer, connection: socket.socket, number: int) -> None:
        if number == 0:
            it.read(connection)
            connection.sendall(OK)
        it.read(connection)
        connection.sendall(answer)
        end(connection)

    with peer(behaviour) as it, posting(it.url) as send:
        assert isinstance(send(), Reply)
        broken = send()
        assert isinstance(broken, NoReply)
        assert broken.hint is None  # the port speaks HTTP
        assert (it.connections, len(it.requests)) == (1, 2)


@pytest.mark.parametrize(("status", "connections"), [(101, 2), (499, 1), (500, 2), (503, 2)])
def test_some_replies_are_the_last_on_their_connection(status: int, connections: int) -> None:
    def behaviour(it: Peer, connection: socket.socket, _number: int) -> None:
        while it.read(connection):
            first = len(it.requests) == 1
            connection.sendall(b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % status if first else OK)

    with peer(behaviour) as it, posting(it.url) as send:
        replies = [send() for _ in range(3)]

        assert [reply.status for reply in replies if isinstance(reply, Reply)] == [status, 200, 200]
        assert it.connections == connections


def test_a_reopened_connection_counts_as_new(tmp_path: Path) -> None:
    # urllib3 opens the same object again: over TLS it is open by the time the request goes out, as a kept one is.
    ca = trustme.CA()
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    context, closed = server_context(ca), threading.Event()

    def behaviour(it: Peer, connection: socket.socket, number: int) -> None:
        with context.wrap_socket(connection, server_side=True) as secured:
            it.read(secured)
            if number == 0:
                secured.sendall(OK)
        closed.set()

    with peer(behaviour) as it:
        url = it.url.replace("http:", "https:")
        with posting(url, ca_file=str(tmp_path / "ca.pem")) as send:
            assert isinstance(send(), Reply)
            assert closed.wait(WITHIN)

            assert isinstance(send(), NoReply)
            assert (it.connections, len(it.requests)) == (2, 2)


def test_only_idle_connections_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()

    def behaviour(it: Peer, connection: socket.socket, number: int) -> None:
        answering(it, connection, number)
        ended.set()

    with peer(behaviour) as it:
        endpoint = Endpoint(provider(it.url))
        endpoint.close_idle()  # nothing was opened yet
        endpoint.send(request(it.url))

        endpoint.close_idle()
        assert isinstance(endpoint.send(request(it.url)), Reply)
        assert it.connections == 1

        monkeypatch.setattr(module, "IDLE_CLOSE", 0.0)
        endpoint.close_idle()
        assert ended.wait(WITHIN)

        assert isinstance(endpoint.send(request(it.url)), Reply)
        assert it.connections == 2
        endpoint.close()


def test_concurrent_requests_have_separate_connections() -> None:
    together = threading.Barrier(4, timeout=WITHIN)

    def script(_: Seen) -> Answer:
        together.wait()
        return Answer(200, {"access_token": "t"})

    with serving(script) as it, posting(it.url) as send:
        replies: list[Reply | NoReply] = []
        threads = [threading.Thread(target=lambda: replies.append(send())) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WITHIN)

    assert [type(reply) for reply in replies] == [Reply] * 4


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_two_hundred_requests_leave_no_descriptor_open() -> None:
    def changing(it: Peer, connection: socket.socket, number: int) -> None:
        behaviours = (answering, closes, resets, says(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 70_000), silent)
        behaviours[number % len(behaviours)](it, connection, number)

    with peer(changing) as it, refusing() as port:
        urls = (it.url, it.url.replace("http:", "https:"), f"http://127.0.0.1:{port}/token")
        post(urls[0])
        before = open_files()
        for number in range(200):
            reply = post(urls[number % len(urls)], timeout=0.02)
            assert isinstance(reply, Reply | NoReply)
        it.over.set()
        # The server's ends close in threads of their own.
        eventually(lambda: open_files() <= before)


class Headers(dict[str, str]):
    """Headers that can be watched to go away; a plain dict cannot."""


@pytest.mark.parametrize("way", ["refused", "not-found", "broken-off", "no-tls"])
def test_nothing_refers_to_a_failed_request(monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    # An exception whose traceback leads back to it would keep the secret until the collector comes by,
    # and the pool with its open connections: an idle process does not collect.
    def not_found(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    with peer(lambda _it, connection, _number: connection.sendall(b"?" * 1000)) as it, refusing() as port:
        url = {
            "refused": f"http://127.0.0.1:{port}/token",
            "not-found": "http://token.invalid/token",
            "broken-off": it.url,
            "no-tls": it.url.replace("http:", "https:"),
        }[way]
        if way == "not-found":
            monkeypatch.setattr(socket, "getaddrinfo", not_found)
        headers = Headers(Authorization="Basic c2VjcmV0")
        watched = weakref.ref(headers)
        endpoint = Endpoint(provider(url))
        gc.disable()
        try:
            assert isinstance(endpoint.send(Request(url, headers, b"")), NoReply)
            del headers
            assert watched() is None
        finally:
            gc.enable()
            endpoint.close()
