"""Providers behind a SOCKS5 proxy (RFC 1928, 1929): one that is scripted, and a real one."""

from __future__ import annotations

import shutil
import socket
import ssl
import struct
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest
import trustme

from bearerd.grant import socks as module
from bearerd.grant.endpoint import Endpoint
from bearerd.grant.outcome import Issued, Malformed, NoReply, Performed, Transient, Unsent
from bearerd.grant.perform import Grants
from bearerd.grant.reply import Reply
from bearerd.grant.request import Access, Request
from bearerd.model import Provider, ProxyLogin, Target
from bearerd.terms import Reference
from support.clock import FakeClock
from support.fronts import microsocks
from support.peer import Peer, peer
from support.process import WITHIN
from support.server import issues, serving
from support.targets import CLIENT, target

LOGIN: Final = ProxyLogin("bearerd", Reference("env", "PROXY_PASSWORD"))
PASSWORD: Final = "hunter2-of-the-proxy"
NO_LOGIN: Final = b"\x05\x00"
WANTS_LOGIN: Final = b"\x05\x02"
CONNECTED: Final = b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00"


def exactly(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = connection.recv(count - len(data))
        if not part:
            raise ConnectionError
        data += part
    return data


def pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while part := source.recv(65536):
            sink.sendall(part)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


class Proxy:
    """A SOCKS5 server: the logins and destinations that it got, and its answers."""

    def __init__(self, greeting: bytes = NO_LOGIN, verdict: bytes = b"\x01\x00", answer: bytes = CONNECTED) -> None:
        self.greeting, self.verdict, self.answer = greeting, verdict, answer
        self.port = 0
        self.logins: list[bytes] = []
        self.destinations: list[tuple[int, bytes, int]] = []
        self.onward: int | None = None

    def __call__(self, _peer: Peer, connection: socket.socket, _number: int) -> None:
        _, count = exactly(connection, 2)
        exactly(connection, count)
        connection.sendall(self.greeting)
        if self.greeting == WANTS_LOGIN:
            user = exactly(connection, exactly(connection, 2)[1])
            self.logins.append(user + b":" + exactly(connection, exactly(connection, 1)[0]))
            connection.sendall(self.verdict)
            if self.verdict[1:] != b"\x00":
                return
        kind = exactly(connection, 4)[3]
        length = {1: 4, 4: 16}.get(kind) or exactly(connection, 1)[0]
        name, (port,) = exactly(connection, length), struct.unpack(">H", exactly(connection, 2))
        self.destinations.append((kind, name, port))
        if self.answer != CONNECTED:
            connection.sendall(self.answer)
            return
        with socket.create_connection(("127.0.0.1", self.onward or port)) as onward:
            connection.sendall(self.answer)
            back = threading.Thread(target=pump, args=(onward, connection), daemon=True)
            back.start()
            pump(connection, onward)
            back.join(WITHIN)


@contextmanager
def proxying(**script: Any) -> Iterator[Proxy]:
    proxy = Proxy(**script)
    with peer(proxy) as it:
        proxy.port = it.port
        yield proxy


def behind(proxy: Proxy, url: str, *, scheme: str = "socks5h", login: ProxyLogin | None = None, **more: Any) -> Target:
    there: dict[str, Any] = {"timeout": WITHIN, "proxy": f"{scheme}://127.0.0.1:{proxy.port}", "proxy_login": login}
    return target(client=replace(CLIENT, provider=Provider("p", token_url=url, **there | more)))


def perform(wanted: Target, **environ: str) -> Performed:
    values = {"DNB_SECRET": "s3cret", "PROXY_PASSWORD": PASSWORD} | environ
    return Grants(FakeClock(), values).perform(wanted)


# -- through it ----------------------------------------------------------------------------------------


def test_a_proxy_that_resolves_names_gets_the_name() -> None:
    with serving(issues()) as server, proxying() as proxy:
        outcome = perform(behind(proxy, f"http://token.invalid:{server.port}/token")).outcome

    assert isinstance(outcome, Issued), outcome
    assert proxy.destinations == [(3, b"token.invalid", server.port)]
    assert [seen.path for seen in server.seen] == ["/token"]
    assert "proxy-authorization" not in server.seen[0].headers


@pytest.mark.parametrize("host", ["a" * 64 + ".example.com", "token..example.com"])
def test_a_name_that_cannot_be_given_to_the_proxy_is_no_fault_of_the_proxy(host: str) -> None:
    with proxying() as proxy:
        outcome = perform(behind(proxy, f"https://{host}/token")).outcome

    said = f"the proxy 127.0.0.1:{proxy.port}: the provider's host is no name that can be looked up"
    assert outcome == Transient(said, phase="connect", hint="check the URL")
    assert proxy.destinations == []


def test_for_other_proxies_names_are_looked_up_here_and_ipv4_is_preferred(monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.getaddrinfo

    def both(name: bytes, port: int, *rest: Any, **more: Any) -> Any:
        if name != b"two.example":
            return real(name, port, *rest, **more)
        return [
            (socket.AF_INET6, socket.SOCK_STREAM, 0, "", ("::1", port, 0, 0)),
            (socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", port)),
        ]

    with serving(issues()) as server, proxying() as proxy:
        monkeypatch.setattr(socket, "getaddrinfo", both)
        outcome = perform(behind(proxy, f"http://two.example:{server.port}/token", scheme="socks5")).outcome

    assert isinstance(outcome, Issued), outcome
    assert proxy.destinations == [(1, b"\x7f\x00\x00\x01", server.port)]


def test_tls_ends_at_the_provider_and_the_connection_is_kept(tmp_path: Path) -> None:
    ca = trustme.CA()
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("login.example.com").configure_cert(context)
    with serving(issues(), context) as server, proxying() as proxy:
        url = f"https://login.example.com:{server.port}/token"
        endpoint = Endpoint(behind(proxy, url, ca_file=str(tmp_path / "ca.pem")).client.provider)
        replies = [endpoint.send(Request(url, {}, b"x=y")) for _ in range(2)]
        endpoint.close()

    assert [type(reply) for reply in replies] == [Reply, Reply], replies
    assert proxy.destinations == [(3, b"login.example.com", server.port)]
    assert len({seen.port for seen in server.seen}) == 1


def test_the_login_is_read_again_for_each_connection_and_shown_nowhere() -> None:
    environ = {"DNB_SECRET": "s3cret", "PROXY_PASSWORD": "first-password"}
    grants = Grants(FakeClock(), environ)
    with serving(issues()) as server, proxying(greeting=WANTS_LOGIN) as proxy:
        wanted = behind(proxy, f"http://token.invalid:{server.port}/token", login=LOGIN)
        first = grants.perform(wanted)
        for endpoint in grants._endpoints.values():
            endpoint.close()
        environ["PROXY_PASSWORD"] = "second-password"
        proxy.verdict = b"\x01\x01"
        second = grants.perform(wanted)

    assert isinstance(first.outcome, Issued), first
    assert proxy.logins == [b"bearerd:first-password", b"bearerd:second-password"]
    assert second.outcome == Malformed(
        f"the proxy 127.0.0.1:{proxy.port} refused the connection",
        phase="proxy login",
        hint="the proxy refused the login: check username and password (env PROXY_PASSWORD)",
    )
    assert "second-password" not in repr(second) + str(second.outcome)


# -- it does not connect -------------------------------------------------------------------------------

WANTED: Final = "the proxy requires a login: set proxy: {url: …, username: …, password: {file: …}}"


@pytest.mark.parametrize(
    ("script", "said", "hint"),
    [
        pytest.param({"greeting": b"\x05\xff"}, "refused the connection", WANTED, id="no-login-accepted"),
        pytest.param({"greeting": b"\x04\x00"}, "did not answer as a SOCKS5 proxy", None, id="socks4"),
        pytest.param({"greeting": b"HTTP/1.1 400"}, "did not answer as a SOCKS5 proxy", None, id="http"),
        *(
            pytest.param(
                {"answer": bytes([5, code]) + CONNECTED[2:]}, f"cannot connect to the provider: {text}", None, id=text
            )
            for code, text in (
                (1, "general socks server failure"),
                (2, "connection not allowed by ruleset"),
                (3, "network unreachable"),
                (4, "host unreachable"),
                (5, "connection refused"),
                (99, "unknown error"),
            )
        ),
    ],
)
def test_the_answer_of_the_proxy_is_reported(script: dict[str, bytes], said: str, hint: str | None) -> None:
    with proxying(**script) as proxy:
        outcome = perform(behind(proxy, "https://token.invalid/token")).outcome

    assert outcome == Transient(f"the proxy 127.0.0.1:{proxy.port} {said}", phase="connect", hint=hint)


@pytest.mark.parametrize(
    "start", [b"", b"\x05", NO_LOGIN, NO_LOGIN + CONNECTED[:4], NO_LOGIN + CONNECTED], ids=["0", "1", "2", "6", "TLS"]
)
def test_a_proxy_that_falls_silent_ends_at_the_deadline(start: bytes) -> None:
    def silent(it: Peer, connection: socket.socket, _number: int) -> None:
        connection.sendall(start)
        it.over.wait()

    with peer(silent) as it:
        provider = Provider(
            "p", token_url="https://token.invalid/", timeout=2.0, proxy=f"socks5h://127.0.0.1:{it.port}"
        )
        endpoint = Endpoint(provider)
        reply = endpoint.send(Request("https://token.invalid/", {}, b""))
        endpoint.close()

    during = "during the TLS handshake" if start.endswith(CONNECTED) else "while connecting"
    phase: Any = "TLS" if start.endswith(CONNECTED) else "connect"
    assert reply == NoReply(phase, f"the proxy 127.0.0.1:{it.port}: timed out after 2 s ({during})")


def test_an_address_that_comes_byte_by_byte_ends_at_the_deadline() -> None:
    def drips(it: Peer, connection: socket.socket, _number: int) -> None:
        # A bound address of 255 bytes: each of them comes well within the timeout of a single read.
        connection.sendall(NO_LOGIN + b"\x05\x00\x00\x03\xff")
        while not it.over.wait(0.05):
            connection.sendall(b"x")

    with peer(drips) as it:
        provider = Provider(
            "p", token_url="https://token.invalid/", timeout=2.0, proxy=f"socks5h://127.0.0.1:{it.port}"
        )
        endpoint = Endpoint(provider)
        reply = endpoint.send(Request("https://token.invalid/", {}, b""))
        endpoint.close()

    assert reply == NoReply("connect", f"the proxy 127.0.0.1:{it.port}: timed out after 2 s (while connecting)")


def test_without_the_extra_nothing_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    module._connected_type.cache_clear()
    monkeypatch.setitem(sys.modules, "socks", None)
    with proxying() as proxy:
        outcome = perform(behind(proxy, "https://token.invalid/token")).outcome

    assert outcome == Unsent(
        "a SOCKS proxy needs a part that is not installed: "
        f"run {sys.prefix}/bin/pip install '.[socks]' in the checkout",
        phase="set-up",
    )


def test_a_password_that_socks_cannot_carry_is_a_local_fault() -> None:
    with proxying() as proxy:
        outcome = perform(behind(proxy, "https://token.invalid/", login=LOGIN), PROXY_PASSWORD="x" * 128).outcome

    assert outcome == Unsent(
        "the username or password for the proxy is longer than 127 bytes, which SOCKS5 cannot carry", phase="set-up"
    )


# -- a real one ----------------------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("microsocks") is None, reason="microsocks is not here: apt-get install microsocks")
def test_a_real_proxy_with_a_login(tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("wrong\n")
    password.chmod(0o600)
    reference = Reference("file", str(password))
    with serving(issues()) as server, microsocks("bearerd", PASSWORD) as port:
        proxy = Proxy()
        proxy.port = port
        wanted = behind(proxy, server.url, login=ProxyLogin("bearerd", reference))
        grants = Grants(FakeClock(), {"DNB_SECRET": "s3cret"})
        refused = grants.perform(wanted).outcome
        password.write_text(f"{PASSWORD}\n")
        issued = grants.perform(wanted).outcome
        without = perform(behind(proxy, server.url)).outcome

    assert isinstance(issued, Issued), issued
    assert isinstance(refused, Malformed)
    assert refused.message == f"the proxy 127.0.0.1:{port} refused the connection"
    assert refused.hint == (f"the proxy refused the login: check username and password (file {password})")
    assert isinstance(without, Transient)
    assert without.hint == WANTED
    assert len(server.seen) == 1


def test_no_repr_shows_the_password() -> None:
    access = Access(proxy_password=PASSWORD)
    assert PASSWORD not in repr(access) + repr(Request("https://x", {}, b"", access))
