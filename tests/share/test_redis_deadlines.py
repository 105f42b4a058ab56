"""One deadline for all steps of a connection to Redis, and what is said of each step that it ends."""

from __future__ import annotations

import os
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme

from bearerd.redis_address import Address
from bearerd.share.redis_client import RedisClient
from bearerd.share.redis_connection import RedisConnection
from bearerd.share.types import ShareUnavailable
from bearerd.terms import Redis, Reference
from support.peer import blackhole, resolve
from support.process import WITHIN
from support.redis_liar import answering, usual
from support.redis_server import NEEDS_REDIS, redis_server

TIMEOUT = 2.0
"""Seconds; a loaded machine reaches each step within them."""
REACH = "check that the server runs, and that no firewall is in between"


def refusal(client: RedisClient) -> str:
    with pytest.raises(ShareUnavailable) as error:
        client.connect()
    return str(error.value)


@pytest.mark.parametrize("late", ["", "dial", "AUTH", "SELECT"])
def test_the_steps_of_a_connection_share_one_deadline(late: str, monkeypatch: pytest.MonkeyPatch) -> None:
    passed, monotonic, seen = 0.0, time.monotonic, list[str]()
    monkeypatch.setattr(time, "monotonic", lambda: monotonic() + passed)

    def done(what: str) -> None:
        nonlocal passed
        seen.append(what)
        passed += WITHIN if what == late else 0.0

    ask = RedisConnection.ask

    def asked(connection: RedisConnection, *command: str | int, ends: float | None = None) -> Any:
        reply = ask(connection, *command, ends=ends)
        done(str(command[0]))
        return reply

    monkeypatch.setattr(RedisConnection, "ask", asked)
    with answering(usual) as url:
        client = RedisClient(Redis(f"{url.replace('//', '//:password@')}/3", timeout=WITHIN), {})
        dial = client._dial

        def dialled(address: Address, ends: float) -> socket.socket:
            connected = dial(address, ends)
            done("dial")
            return connected

        monkeypatch.setattr(client, "_dial", dialled)
        if not late:
            client.connect()
            assert seen == ["dial", "AUTH", "SELECT", "PING"]
            client.disconnect()
        else:
            assert "timed out after 60 s (" in refusal(client)
            assert seen[-1] == late  # the step after it is not begun


def test_a_command_ends_at_its_deadline_however_long_it_waited_for_a_connection() -> None:
    with answering(usual) as url:
        client = RedisClient(Redis(url, timeout=WITHIN), {})
        client.connect()
        with pytest.raises(ShareUnavailable, match=r"timed out after 60 s \(while waiting for an answer\)"):
            client.ask("GET", "a", ends=time.monotonic() - 1.0)
        client.disconnect()


def test_no_command_waits_for_a_connection_beyond_its_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(usual) as url:
        client = RedisClient(Redis(url, timeout=WITHIN), {})
        client.connect()
        waited: list[float] = []
        monkeypatch.setattr(client._free, "acquire", lambda *, timeout: waited.append(timeout))
        with pytest.raises(ShareUnavailable):
            client.ask("GET", "a", ends=time.monotonic() - 1.0)
        assert waited == [0.0]
        client.disconnect()


# -- what is said ------------------------------------------------------------------------------------


def test_a_server_that_does_not_finish_the_handshake() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        place = f"127.0.0.1:{silent.getsockname()[1]}"
        began = time.monotonic()
        said = refusal(RedisClient(Redis(f"rediss://{place}", timeout=TIMEOUT), {}))
        assert time.monotonic() - began >= TIMEOUT
    assert said.startswith(f"{place}: timed out after 2 s (during the TLS handshake); check that this port speaks TLS")


def test_a_port_that_answers_nothing() -> None:
    with blackhole() as port:
        said = refusal(RedisClient(Redis(f"redis://127.0.0.1:{port}", timeout=TIMEOUT), {}))
    assert said == f"127.0.0.1:{port}: timed out after 2 s (while connecting); {REACH}"


def test_a_name_look_up_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()

    def hangs(*_: object, **__: object) -> list[object]:
        over.wait(WITHIN)
        raise socket.gaierror(socket.EAI_NONAME, "over")

    monkeypatch.setattr(socket, "getaddrinfo", hangs)
    try:
        said = refusal(RedisClient(Redis("redis://hangs.example", timeout=TIMEOUT), {}))
    finally:
        over.set()
    assert said == f"hangs.example:6379: timed out after 2 s (during name lookup); {REACH}"


def test_a_socket_whose_backlog_is_full(tmp_path: Path) -> None:
    path = tmp_path / "redis.sock"
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as filling:
        listener.bind(str(path))
        listener.listen(0)
        filling.connect(str(path))
        said = refusal(RedisClient(Redis(f"unix://{path}", timeout=TIMEOUT), {}))
    assert said.startswith(f"{path}: ")


def test_a_url_that_cannot_be_read_is_named_by_its_key() -> None:
    said = refusal(RedisClient(Redis(Reference("env", "URL")), {}))
    assert said.startswith("share.redis.url: ")
    said = refusal(RedisClient(Redis("redis://127.0.0.1", password=Reference("env", "PASSWORD")), {}))
    assert said.startswith("share.redis.password: ")


@contextmanager
def sentinel_and_server(place: bytes) -> Iterator[tuple[RedisClient, str]]:
    """A client with the URL of sentinels; both are one server, which it knows by its address."""
    address = ""

    def answer(command: list[bytes]) -> bytes:
        host, _, port = address.encode().partition(b":")
        named = b"*2\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n" % (len(host), host, len(place or port), place or port)
        return named if command[0] == b"SENTINEL" else usual(command)

    with answering(answer) as url:
        address = url.partition("://")[2]
        yield RedisClient(Redis(f"redis+sentinel://{address}/main", timeout=WITHIN), {}), address


def test_a_lie_of_a_sentinel_or_a_server_is_that_of_its_address() -> None:
    with sentinel_and_server(b"port") as (client, address):
        assert refusal(client).startswith(f"no sentinel knows the server: {address}: the answer is not that of a Redis")
    with sentinel_and_server(b"") as (client, address):
        client.connect()
        assert str(client.garbage()).startswith(f"{address}: the answer is not that of a Redis server; ")
        client.disconnect()


@pytest.mark.parametrize("scheme", ["redis", "rediss"])
def test_the_words_for_a_server_know_whether_it_has_tls(scheme: str) -> None:
    client = RedisClient(Redis(f"{scheme}://127.0.0.1"), {})
    address = Address(scheme, hosts=(("127.0.0.1", 6379),))
    assert client._where(address).tls is (scheme == "rediss")


# -- TLS ---------------------------------------------------------------------------------------------


@NEEDS_REDIS
def test_a_ca_file_that_was_replaced_counts_at_the_next_connection(tmp_path: Path) -> None:
    authority = trustme.CA()
    with redis_server(authority=authority, names=["127.0.0.1", "localhost"]) as server:
        path = tmp_path / "ca.pem"
        trustme.CA().cert_pem.write_to_path(str(path))
        client = RedisClient(Redis(server.url, ca_file=str(path), timeout=WITHIN), {})
        assert "certificate refused" in refusal(client)
        assert server.ca_file is not None
        shutil.copy(server.ca_file, path.with_suffix(".new"))
        os.replace(path.with_suffix(".new"), path)
        client.connect()
        client.disconnect()


@NEEDS_REDIS
def test_a_host_with_a_dot_at_its_end_has_the_certificate_of_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    with redis_server(authority=trustme.CA(), names=["localhost"]) as server:
        resolve(monkeypatch, (socket.AF_INET, "127.0.0.1", server.port))
        client = RedisClient(Redis(f"rediss://localhost.:{server.port}", ca_file=server.ca_file, timeout=WITHIN), {})
        client.connect()
        client.disconnect()
