"""The connections to a server: what is sent over a new one, which one is used, and when one is closed."""

from __future__ import annotations

import hashlib
import itertools
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from bearerd.share.redis_client import RedisClient
from bearerd.share.redis_connection import _Bounded
from bearerd.share.redis_store import RedisStore, Subscription
from bearerd.share.types import Busy, Claim, Names, ShareUnavailable, Stored
from bearerd.terms import REFUSED_LIMIT, RateLimit, Redis, Reference
from support.process import WITHIN, eventually
from support.redis_liar import answering, bulk, usual
from support.redis_server import NEEDS_REDIS, redis_server

NAMES = Names("target", "client", REFUSED_LIMIT)
CLOCK = b"1795909359000000"
FULL = b"-OOM\r\n"
PASSWORD, URL = Reference("env", "PASSWORD"), Reference("env", "URL")


class Server:
    """Remembers all commands, and answers scripts as a server without tokens, or as a test says."""

    def __init__(self) -> None:
        self.port = 0
        self.commands: list[list[bytes]] = []
        self.answers: dict[bytes, Callable[[], bytes | Iterator[bytes]]] = {
            b"EVALSHA": lambda: bulk(CLOCK, b"done"),
            b"SENTINEL": lambda: bulk(b"127.0.0.1", str(self.port).encode()),
        }

    def answer(self, command: list[bytes]) -> bytes | Iterator[bytes]:
        """The answer to a command."""
        self.commands.append(command)
        answer = self.answers.get(command[0])
        return usual(command) if answer is None else answer()

    @property
    def url(self) -> str:
        """Its URL."""
        return f"redis://127.0.0.1:{self.port}"

    def sent(self, *names: bytes) -> list[list[bytes]]:
        """The commands with these names."""
        return [command for command in self.commands if command[0] in names]


@contextmanager
def running() -> Iterator[Server]:
    server = Server()
    with answering(server.answer) as url:
        server.port = int(url.rpartition(":")[2])
        yield server


@pytest.fixture
def server() -> Iterator[Server]:
    with running() as one:
        yield one


@contextmanager
def connected(redis: Redis, environ: Mapping[str, str] | None = None) -> Iterator[RedisStore]:
    store = RedisStore(replace(redis, timeout=WITHIN), environ or {})
    store.connect()
    try:
        yield store
    finally:
        store.disconnect()


def closed() -> bytes:
    """The server closes the connection."""
    raise OSError


# -- what a new connection sends --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "changes", "sent"),
    [
        ("redis://{}", {}, []),
        ("redis://{}/0", {}, []),
        ("redis://{}/3", {}, [[b"SELECT", b"3"]]),
        ("redis://:of-url@{}", {}, [[b"AUTH", b"of-url"]]),
        ("redis://user:of-url@{}/3", {}, [[b"AUTH", b"user", b"of-url"], [b"SELECT", b"3"]]),
        ("redis://{}", {"password": PASSWORD}, [[b"AUTH", b"secret"]]),
        ("redis://{}", {"username": "me", "password": PASSWORD}, [[b"AUTH", b"me", b"secret"]]),
        ("redis://{}", {"username": "me"}, [[b"AUTH", b"me", b""]]),
        ("redis://user:of-url@{}", {"username": "me"}, [[b"AUTH", b"me", b"of-url"]]),
        ("redis://user:of-url@{}", {"password": PASSWORD}, [[b"AUTH", b"user", b"secret"]]),
    ],
)
def test_a_connection_logs_in_and_selects_its_database(
    server: Server, url: str, changes: dict[str, Any], sent: list[list[bytes]]
) -> None:
    environ = {"URL": url.format(f"127.0.0.1:{server.port}"), "PASSWORD": "secret"}
    with connected(Redis(URL, **changes), environ) as store:
        assert server.commands == [*sent, [b"PING"]]
        server.commands.clear()
        store.subscribe().close()
        assert server.commands == [*sent, [b"PING"], [b"SUBSCRIBE", b"bearerd:changed"]]


def test_the_database_is_that_of_the_server_and_not_of_the_sentinel_which_gets_no_password(server: Server) -> None:
    url = server.url.replace("redis:", "redis+sentinel:") + "/main/2"
    with connected(Redis(url, password=PASSWORD), {"PASSWORD": "secret"}):
        assert server.commands == [
            [b"PING"],
            [b"SENTINEL", b"get-master-addr-by-name", b"main"],
            [b"AUTH", b"secret"],
            [b"SELECT", b"2"],
            [b"PING"],
        ]


def test_a_sentinel_that_wants_a_password_gets_it(server: Server) -> None:
    pings = itertools.count()
    server.answers[b"PING"] = lambda: b"+PONG\r\n" if next(pings) else b"-NOAUTH Authentication required.\r\n"
    url = server.url.replace("redis:", "redis+sentinel:") + "/main"
    with connected(Redis(url, password=PASSWORD), {"PASSWORD": "secret"}):
        assert [command[0] for command in server.commands] == [b"PING", b"AUTH", b"PING", b"SENTINEL", b"AUTH", b"PING"]


@pytest.mark.parametrize("command", [b"PING", b"SENTINEL"])
def test_another_error_of_a_sentinel_is_told(server: Server, command: bytes) -> None:
    server.answers[command] = lambda: FULL
    url = server.url.replace("redis:", "redis+sentinel:") + "/main"
    with pytest.raises(ShareUnavailable) as error, connected(Redis(url)):
        pass
    assert str(error.value).startswith(
        f"no sentinel knows the server: 127.0.0.1:{server.port}: the memory of the server is full (OOM); "
    )


def test_the_sentinel_that_answered_last_is_asked_first(server: Server) -> None:
    with running() as first:
        first.answers[b"SENTINEL"] = lambda: b"*-1\r\n"
        url = f"redis+sentinel://127.0.0.1:{first.port},127.0.0.1:{server.port}/main"
        with connected(Redis(url)) as store:
            assert len(first.sent(b"SENTINEL")) == len(server.sent(b"SENTINEL")) == 1
            store.connect()
            assert (len(first.sent(b"SENTINEL")), len(server.sent(b"SENTINEL"))) == (1, 2)
            server.answers[b"SENTINEL"] = closed
            with pytest.raises(ShareUnavailable, match=f"^no sentinel knows the server: 127.0.0.1:{server.port}: the"):
                store.connect()
            assert len(first.sent(b"SENTINEL")) == 2


def test_if_no_sentinel_answers_the_error_of_the_first_is_told(server: Server) -> None:
    server.answers[b"SENTINEL"] = closed
    with running() as second:
        second.answers[b"SENTINEL"] = lambda: FULL
        url = f"redis+sentinel://127.0.0.1:{server.port},127.0.0.1:{second.port}/main"
        with pytest.raises(ShareUnavailable, match=f"^no sentinel knows the server: 127.0.0.1:{server.port}: the serv"):
            RedisStore(Redis(url, timeout=WITHIN), {}).connect()
        assert len(second.sent(b"SENTINEL")) == 1


# -- which connection is used -----------------------------------------------------------------------


def test_without_a_connection_no_operation_makes_one() -> None:
    store = RedisStore(Redis("redis://127.0.0.1:1"), {})
    for operation in (lambda: store.read(NAMES), store.subscribe):
        with pytest.raises(ShareUnavailable, match=r"^there is no connection; it is tried again$"):
            operation()


def test_a_connection_is_used_again_after_an_error_of_the_server(server: Server) -> None:
    with connected(Redis(server.url)) as store:
        for answer in (FULL, bulk(CLOCK, b"done"), FULL):
            server.answers[b"EVALSHA"] = lambda answer=answer: answer  # type: ignore[misc]  # a default
            if answer == FULL:
                with pytest.raises(ShareUnavailable, match="OOM"):
                    store.read(NAMES)
            else:
                store.read(NAMES)
        assert len(server.sent(b"PING")) == 1


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (closed, "the server closed the connection (while waiting for an answer); check that the server runs, and"),
        (lambda: b"nonsense\r\n", "the answer is not that of a Redis server; check host and port; if it speaks TLS"),
    ],
)
def test_a_connection_that_failed_is_replaced(server: Server, answer: Callable[[], bytes], said: str) -> None:
    with connected(Redis(server.url)) as store:
        usually, server.answers[b"EVALSHA"] = server.answers[b"EVALSHA"], answer
        with pytest.raises(ShareUnavailable) as error:
            store.read(NAMES)
        assert str(error.value).startswith(f"127.0.0.1:{server.port}: {said}")
        server.answers[b"EVALSHA"] = usually
        store.read(NAMES)
        assert len(server.sent(b"PING")) == 2


def test_a_server_that_hangs_up_at_once_may_be_one_with_tls(server: Server) -> None:
    server.answers[b"PING"] = closed
    with pytest.raises(ShareUnavailable, match=r"\(before its first answer\); check host and port; if it speaks TLS"):
        RedisStore(Redis(server.url, timeout=WITHIN), {}).connect()


def test_a_connection_that_was_idle_for_half_a_minute_is_replaced(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    later, monotonic = 0.0, time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: monotonic() + later)
    with connected(Redis(server.url)) as store:
        ((first, _),) = store._client._idle
        for seconds, connections in ((0.0, 1), (29.0, 1), (30.0, 2), (0.0, 2), (30.0, 3)):
            later += seconds
            store.read(NAMES)
            assert len(server.sent(b"PING")) == connections
            assert (first._bounded.fileno() == -1) == (connections > 1)  # the old one is closed


def test_a_new_connection_takes_the_place_of_all_others(server: Server) -> None:
    asked, answered = threading.Event(), threading.Event()

    def late() -> bytes:
        asked.set()
        answered.wait(WITHIN)
        return bulk(CLOCK, b"busy", b"1000000")

    with connected(Redis(server.url)) as store:
        server.answers[b"EVALSHA"] = late
        ((first, _),) = store._client._idle
        claims: list[object] = []
        claiming = threading.Thread(target=lambda: claims.append(store.claim(NAMES, Claim())))
        claiming.start()
        assert asked.wait(WITHIN)
        store.connect()
        store.connect()
        answered.set()
        claiming.join(WITHIN)
        assert claims == [Busy(1.0)]
        ((last, _),) = store._client._idle
        assert first._bounded.fileno() == -1  # it was closed after its use
        assert last.quiet


@NEEDS_REDIS
def test_no_connection_is_left_open() -> None:
    with redis_server() as server:
        redis = Redis(server.url, timeout=WITHIN)

        def clients() -> int:
            return int(server.ask("INFO", "clients")["connected_clients"]) - 1

        with connected(redis) as store:
            store.connect()
            eventually(lambda: clients() == 1)
            store.read(NAMES)
            assert clients() == 1
            with pytest.raises(ShareUnavailable):
                RedisStore(replace(redis, url=f"{server.url}/99"), {}).connect()
            subscription = store.subscribe()
            assert clients() == 2
            subscription.close()
            eventually(lambda: clients() == 1)
        eventually(lambda: clients() == 0)


def test_eight_operations_are_sent_at_once(server: Server) -> None:
    answered = threading.Event()

    def late() -> bytes:
        answered.wait(WITHIN)
        return b"+OK\r\n"

    server.answers[b"GET"] = late
    client = RedisClient(Redis(server.url, timeout=WITHIN), {})
    client.connect()

    def ask() -> None:
        client.ask("GET", "a", ends=time.monotonic() + WITHIN)

    asking = [threading.Thread(target=ask) for _ in range(8)]
    for each in asking:
        each.start()
    eventually(lambda: len(server.sent(b"GET")) == 8)
    with pytest.raises(ShareUnavailable) as error:
        client.ask("GET", "b", ends=time.monotonic())
    assert str(error.value).startswith(f"127.0.0.1:{server.port}: timed out after 60 s (while waiting for an answer); ")
    answered.set()
    for each in asking:
        each.join(WITHIN)
    client.disconnect()


@pytest.mark.parametrize("kind", ["url", "password"])
def test_a_secret_from_a_command_is_for_one_connection_at_a_time(server: Server, tmp_path: Path, kind: str) -> None:
    reads = tmp_path / "reads"
    text = server.url if kind == "url" else "secret"
    command = Reference("command", "/bin/sh", ("/bin/sh", "-c", f"echo >> {reads}; echo {text}"))
    redis = Redis(command) if kind == "url" else Redis(server.url, password=command)
    client = RedisClient(replace(redis, timeout=WITHIN), {})
    client.connect()
    asked, answered = threading.Event(), threading.Event()

    def late() -> bytes:
        asked.set()
        answered.wait(WITHIN)
        return b"+OK\r\n"

    server.answers[b"GET"] = late
    asking = threading.Thread(target=lambda: client.ask("GET", "a", ends=time.monotonic() + WITHIN))
    asking.start()
    assert asked.wait(WITHIN)
    with pytest.raises(ShareUnavailable, match=r"timed out after 60 s \(while waiting for an answer\)"):
        client.ask("GET", "b", ends=time.monotonic())
    answered.set()
    asking.join(WITHIN)
    server.answers[b"GET"] = closed
    address = "the server in command /bin/sh" if kind == "url" else f"127.0.0.1:{server.port}"
    unconnected = address if kind == "url" else f"{server.url}/0"

    def error() -> str:
        with pytest.raises(ShareUnavailable) as raised:
            client.ask("GET", "a", ends=time.monotonic() + WITHIN)
        return str(raised.value)

    said = "the server closed the connection (while waiting for an answer); check that the server runs, and"
    assert error().startswith(f"{address}: {said}")
    assert error().startswith(f"{address}: {said}")  # there is no connection now, and only `connect` makes one
    client.disconnect()
    assert error().startswith(f"{unconnected}: {said}")
    assert len(server.sent(b"GET")) == 2
    assert len(reads.read_text()) == (2 if kind == "url" else 1)


def test_the_keys_and_the_channel_are_those_of_every_version(server: Server) -> None:
    names = Names("T", "C", REFUSED_LIMIT, (("L", RateLimit(1, 1.0)),))
    with connected(Redis(server.url, prefix="p")) as store:
        store.read(names)
        (sent,) = server.sent(b"EVALSHA")
        kinds = [
            "token:T",
            "lock:T",
            "last:T",
            "failure:T",
            "failure:C",
            "flights:C",
            "worked:C",
            "refused:C",
            "rate:L",
        ]
        text = store._scripts["read"].text
        assert sent == [
            b"EVALSHA",
            hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest().encode(),
            b"9",
            *(f"p:{kind}".encode() for kind in kinds),
            b"p:changed",
            b"T C",
        ]


@NEEDS_REDIS
def test_a_check_runs_every_script_and_returns_the_time_of_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    run: set[str] = set()
    evaluated = RedisStore._evaluated

    def noted(store: RedisStore, script: str, *arguments: Any) -> Any:
        run.add(script)
        return evaluated(store, script, *arguments)

    monkeypatch.setattr(RedisStore, "_evaluated", noted)
    with redis_server() as server:
        clock = RedisStore(Redis(server.url, timeout=WITHIN), {}).prove()
        assert clock == pytest.approx(time.time(), abs=WITHIN)
    scripts = files("bearerd.share") / "scripts"
    assert run == {script.name.removesuffix(".lua") for script in scripts.iterdir()} - {"common"}


# -- one connection ---------------------------------------------------------------------------------


def listening(server: Server) -> tuple[RedisStore, Subscription]:
    store = RedisStore(Redis(server.url, timeout=WITHIN), {})
    store.connect()
    return store, store.subscribe()


MESSAGE = bulk(b"message", b"bearerd:changed", b"target client")
SUBSCRIBED = usual([b"SUBSCRIBE", b"bearerd:changed"])


def test_a_message_that_arrives_in_two_parts_is_heard_once_it_is_complete(server: Server) -> None:
    heard = threading.Event()

    def parts() -> Iterator[bytes]:
        yield SUBSCRIBED + MESSAGE[:20]
        heard.wait(WITHIN)
        yield MESSAGE[20:]

    server.answers[b"SUBSCRIBE"] = parts
    store, subscription = listening(server)
    assert subscription.hear(time.monotonic() + 0.05) is None
    heard.set()
    assert subscription.hear(time.monotonic() + WITHIN) == ("target", "client")
    subscription.close()
    store.disconnect()


def test_a_connection_for_announcements_may_receive_any_number_of_them(server: Server) -> None:
    long = bulk(b"message", b"bearerd:changed", bytes(2**20))
    server.answers[b"SUBSCRIBE"] = lambda: iter([SUBSCRIBED, long, long, long, MESSAGE])
    store, subscription = listening(server)
    ends = time.monotonic() + WITHIN
    assert [subscription.hear(ends) for _ in range(4)] == [(), (), (), ("target", "client")]
    subscription.close()
    store.disconnect()


@pytest.mark.parametrize(
    "message",
    [
        bulk(b"message", b"other", b"target client"),
        bulk(b"pmessage", b"bearerd:changed", b"target client"),
        b"+OK\r\n",
        bulk(b"message", b"bearerd:changed"),
    ],
)
def test_another_message_ends_the_connection_for_announcements(server: Server, message: bytes) -> None:
    server.answers[b"SUBSCRIBE"] = lambda: SUBSCRIBED + message
    store, subscription = listening(server)
    with pytest.raises(ShareUnavailable, match="the answer is not that of a Redis server"):
        subscription.hear(time.monotonic() + WITHIN)
    subscription.close()
    store.disconnect()


@pytest.mark.parametrize(
    "answer",
    [
        usual([b"SUBSCRIBE", b"bearerd:other"]),
        bulk(b"subscribe", b"bearerd:changed", b"1"),
        b"*3\r\n$9\r\nsubscribe\r\n$15\r\nbearerd:changed\r\n:2\r\n",
    ],
)
def test_a_server_has_to_confirm_the_channel(server: Server, answer: bytes) -> None:
    server.answers[b"SUBSCRIBE"] = lambda: answer
    with connected(Redis(server.url)) as store:
        connection = store._client.connection()
        with pytest.raises(ShareUnavailable, match="the answer is not that of a Redis server"):
            Subscription(connection, "bearerd:changed")
        assert connection._bounded.fileno() == -1  # it is closed


def test_a_test_of_the_connection_for_announcements_is_answered(server: Server) -> None:
    store, subscription = listening(server)
    server.answers[b"PING"] = lambda: bulk(b"pong", b"")
    pings = len(server.sent(b"PING"))
    for number in (1, 2, 3):
        assert subscription.hear(time.monotonic()) is None
        subscription.test()
        assert (subscription.asked, subscription.answered) == (number, number - 1)
        assert subscription.hear(time.monotonic() + WITHIN) == ()
        assert (subscription.asked, subscription.answered) == (number, number)
    assert len(server.sent(b"PING")) == pings + 3
    subscription.close()
    store.disconnect()


def test_a_connection_for_announcements_that_is_hung_up_wakes_the_thread_that_waits(server: Server) -> None:
    store, subscription = listening(server)
    threading.Timer(0.01, subscription.hang_up).start()
    with pytest.raises(ShareUnavailable, match="the server closed the connection"):
        subscription.hear(time.monotonic() + WITHIN)
    subscription.close()
    store.disconnect()


def test_hiredis_reads_within_the_same_bounds() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"abc")
        buffer = bytearray(b"-" * 5)
        assert _Bounded(ours, WITHIN).recv_into(memoryview(buffer)) == 3
        assert buffer == b"abc--"


# -- check ------------------------------------------------------------------------------------------


@NEEDS_REDIS
@pytest.mark.parametrize(
    ("operation", "result"),
    [
        ("store", Stored(9, 1.8e9, b"-")),
        ("read", Stored(9, 1.8e9, b"-")),
        ("fences", (9,)),
        ("claim", Busy(1.0)),
    ],
)
def test_a_check_does_not_believe_a_server_that_forgets(
    operation: str, result: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    with redis_server() as server:
        store = RedisStore(Redis(server.url, timeout=WITHIN), {})
        monkeypatch.setattr(store, operation, lambda *_: result)
        with pytest.raises(ShareUnavailable, match="the answer is not that of a Redis server"):
            store.prove()
        assert server.ask("KEYS", "*") in ([], ["bearerd:alive"])


@NEEDS_REDIS
@pytest.mark.parametrize("passed_on", [True, False])
def test_a_check_waits_for_its_own_announcement(passed_on: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    hear, until = Subscription.hear, list[float]()

    def heard(subscription: Subscription, ends: float) -> tuple[str, ...] | None:
        until.append(ends)
        if len(until) < 3:
            return ("of another", "daemon")
        return hear(subscription, ends) if passed_on else None

    with redis_server() as server:
        store = RedisStore(Redis(server.url, timeout=WITHIN), {})
        monkeypatch.setattr(Subscription, "hear", heard)
        if passed_on:
            store.prove()
        else:
            with pytest.raises(ShareUnavailable, match="not pass on announcements; check that bearerd:changed is not"):
                store.prove()
    assert len(until) >= 3
    assert len(set(until)) == 1  # one deadline for all
    assert until[0] <= time.monotonic() + WITHIN
