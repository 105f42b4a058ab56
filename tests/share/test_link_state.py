"""What a link makes of each answer of its server, one after the other. The server is one of these tests."""

from __future__ import annotations

import itertools
import queue
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bearerd.clock import SystemClock, dice
from bearerd.share import link as module
from bearerd.share.link import RedisLink, backoff
from bearerd.share.parts import LinkView
from bearerd.share.redis_store import RedisStore, Subscription
from bearerd.share.types import NEVER, Busy, Claim, Names, ShareUnavailable, Store, Stored
from bearerd.terms import REFUSED_LIMIT, Redis, Reference
from support.clock import FakeClock
from support.no_threads import no_threads, threads_never_begin
from support.process import WITHIN, eventually
from support.redis_liar import answering, bulk, usual
from support.share_reports import Reports, linked

NAMES = Names("target", "client", REFUSED_LIMIT)
CLOCK = b"1795909359000000"
NOW = 1795909359.0
PONG, FULL = b"+PONG\r\n", b"-OOM\r\n"
NO_FENCES, NOT_STORED = bulk(CLOCK, b"fences"), bulk(CLOCK, b"done")
FULL_ERROR = "the memory of the server is full (OOM); raise its maxmemory, or remove the data of other programs"


class Server:
    """Answers as a server without tokens, or as a test says."""

    def __init__(self) -> None:
        self.url = ""
        self.ping: Callable[[], bytes] = lambda: PONG
        self.fences: Callable[[], bytes] = lambda: NO_FENCES
        self.tested: Callable[[], bytes] = lambda: bulk(b"pong", b"")
        """The answer to PING over the connection for announcements."""
        self._connection = threading.local()  # each one has a thread
        self.announced: Callable[[], bytes] = lambda: b""
        """What follows the answer to SUBSCRIBE."""
        self.script: Callable[[], bytes] = lambda: NOT_STORED
        self.scripts: list[list[bytes]] = []
        """The commands with scripts, but for those that read fences."""

    def answer(self, command: list[bytes]) -> bytes:
        """The answer to a command."""
        match command[0]:
            case b"PING" if getattr(self._connection, "listens", False):
                return self.tested()
            case b"PING":
                return self.ping()
            case b"SUBSCRIBE":
                self._connection.listens = True
                return usual(command) + self.announced()
            case b"EVALSHA" if command[3] == b"bearerd:alive":
                return self.fences()
            case b"EVALSHA":
                self.scripts.append(command)
                return self.script()
            case _:
                return usual(command)

    def redis(self, timeout: float = WITHIN) -> Redis:
        """How it is reached."""
        return Redis(self.url, timeout=timeout)

    def error(self, text: str) -> str:
        """An error of this server."""
        return f"{self.url.removeprefix('redis://')}: {text}"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(module, "POLL", 600.0)
    monkeypatch.setattr(module, "SHORTEST", 0.01)
    monkeypatch.setattr(module, "LONGEST", 0.02)
    server = Server()
    with answering(server.answer) as server.url:
        yield server


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


class Asking:
    """An operation in another thread."""

    def __init__(self, link: RedisLink) -> None:
        self._ended: queue.SimpleQueue[object] = queue.SimpleQueue()
        self._link = link
        self._thread = threading.Thread(target=self._ask)
        self._thread.start()

    def _ask(self) -> None:
        try:
            self._ended.put(self._link.store.read(NAMES))
        except ShareUnavailable as error:
            self._ended.put(str(error))

    def ended(self) -> object:
        """Its result, or the text of its error."""
        self._thread.join(WITHIN)
        return self._ended.get(timeout=WITHIN)


def stop_for_good(link: RedisLink) -> None:
    """Stop it, and wait until its thread has ended."""
    thread = link._thread
    assert thread is not None
    link.stop()
    eventually(lambda: not thread.alive())


# -- its state --------------------------------------------------------------------------------------


def test_the_view_says_since_when_the_link_is_up_or_down_and_why(server: Server, clock: FakeClock) -> None:
    pings: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    server.ping = lambda: pings.get(timeout=WITHIN)
    reports, began, error = Reports(), clock.boot, server.error(FULL_ERROR)
    link = RedisLink(server.redis(), {}, clock, dice, reports)
    assert link.view() == LinkView("starting", began, "", None, 0)
    link.start()
    for seconds in (1.0, 2.0):
        clock.advance(1.0)
        pings.put(FULL)
        assert reports.wait_for("lost") == []
        assert link.view() == LinkView("down", began + 1.0, error, began + seconds, int(seconds))
    clock.advance(1.0)
    for _ in ("commands", "announcements"):
        pings.put(PONG)
    assert reports.wait_for("restored") == []
    assert link.view() == LinkView("up", began + 3.0, error, began + 2.0, 2)
    clock.advance(1.0)
    server.script = lambda: FULL
    with pytest.raises(ShareUnavailable, match="OOM"):
        link.store.read(NAMES)
    assert reports.wait_for("lost") == []
    assert link.view() == LinkView("down", began + 4.0, error, began + 4.0, 3)
    link.stop()
    for _ in ("commands", "announcements"):
        pings.put(PONG)


def test_an_operation_over_an_earlier_connection_that_fails_late_does_not_end_the_present_one(server: Server) -> None:
    asked, late, number = threading.Event(), threading.Event(), itertools.count()

    def script() -> bytes:
        if next(number) == 0:
            asked.set()
            late.wait(WITHIN)
        return FULL

    server.script = script
    with linked(server.redis()) as (link, reports):
        reports.wait_for("restored")
        first = Asking(link)
        assert asked.wait(WITHIN)
        with pytest.raises(ShareUnavailable, match="OOM"):
            link.store.read(NAMES)
        reports.wait_for("lost")
        reports.wait_for("restored")
        late.set()
        assert first.ended() == server.error(FULL_ERROR)
        assert (link.view().state, link.view().errors) == ("up", 1)


def test_a_link_is_fresh_for_one_poll_and_one_timeout(server: Server, clock: FakeClock) -> None:
    reports = Reports()
    link = RedisLink(server.redis(5.0), {}, clock, dice, reports)
    assert not link.fresh()
    link.start()
    reports.wait_for("restored")
    clock.advance(605.0)
    assert link.fresh()
    clock.advance(0.1)
    assert not link.fresh()
    clock.advance(-10.0)
    server.script = lambda: FULL
    server.ping = lambda: FULL
    with pytest.raises(ShareUnavailable):
        link.store.read(NAMES)
    assert not link.fresh()
    link.stop()


# -- the first connection ---------------------------------------------------------------------------


def test_operations_wait_for_the_first_connection_as_long_as_the_timeout(clock: FakeClock) -> None:
    link = RedisLink(Redis("redis://127.0.0.1:1", timeout=5.0), {}, clock, dice, Reports())
    clock.advance(4.5)
    assert link.usable()
    clock.advance(0.5)
    assert not link.usable()
    with pytest.raises(ShareUnavailable, match=r"^no connection after 5 s; it is tried again$"):
        link.store.read(NAMES)


def test_a_far_server_has_the_timeout_for_each_step_of_the_first_connection(server: Server, clock: FakeClock) -> None:
    usable: queue.SimpleQueue[bool] = queue.SimpleQueue()
    link = RedisLink(server.redis(), {}, clock, dice, Reports())

    def step(answer: bytes) -> bytes:
        clock.advance(0.7 * WITHIN)
        usable.put(link.usable())
        return answer

    server.ping = lambda: step(PONG)  # for commands, and for announcements
    server.fences = lambda: step(NO_FENCES)
    link.start()
    assert [usable.get(timeout=WITHIN) for _ in range(3)] == [True] * 3
    link.stop()


def waiting_for(link: RedisLink) -> Asking:
    """An operation that waits for the first connection."""
    asking = Asking(link)
    eventually(lambda: vars(link._changed)["_waiters"])
    return asking


@pytest.mark.parametrize("fails", ["connection", "operation", "nothing"])
def test_operations_that_wait_for_the_first_connection_end_as_it_does(
    server: Server, clock: FakeClock, fails: str
) -> None:
    if fails != "nothing":
        setattr(server, "ping" if fails == "connection" else "script", lambda: FULL)
    reports = Reports()
    link = RedisLink(server.redis(600.0), {}, clock, dice, reports)
    waiting = waiting_for(link)
    link.start()
    if fails == "nothing":
        assert waiting.ended() == Stored(NEVER, NOW, b"")
        assert reports.wait_for("restored") == []
    else:
        assert waiting.ended() == server.error(FULL_ERROR)
        assert reports.wait_for("lost") == ([] if fails == "connection" else ["restored"])
    link.stop()


def test_an_operation_waits_until_the_end_of_the_timeout_and_not_longer(server: Server, clock: FakeClock) -> None:
    link = RedisLink(server.redis(5.0), {}, clock, dice, Reports())
    clock.advance(4.9)
    asking = waiting_for(link)
    link.start()
    assert asking.ended() == Stored(NEVER, NOW, b"")
    link.stop()
    silent = RedisLink(server.redis(5.0), {}, clock, dice, Reports())
    clock.advance(4.9)
    asking = waiting_for(silent)
    clock.advance(0.1)
    assert asking.ended() == "no connection after 5 s; it is tried again"


def test_a_password_comes_from_the_environment_of_the_daemon(server: Server) -> None:
    logins: list[list[bytes]] = []
    usual_answer = server.answer

    def answer(command: list[bytes]) -> bytes:
        if command[0] == b"AUTH":
            logins.append(command[1:])
        return usual_answer(command)

    with answering(answer) as url:
        redis = Redis(url, password=Reference("env", "PASSWORD"), timeout=WITHIN)
        with linked(redis, {"PASSWORD": "long-and-random"}) as (_, reports):
            reports.wait_for("restored")
    assert logins[0] == [b"long-and-random"]


def test_a_thread_that_cannot_be_started_is_started_ten_seconds_later(
    server: Server, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LONGEST", 10.0)
    reports = Reports()
    link = RedisLink(server.redis(), {}, clock, dice, reports)
    with monkeypatch.context() as patched:
        tried = no_threads(patched)
        link.start()
        assert not link.usable()
        assert len(tried) == 1
    assert reports.wait_for("lost") == []
    down = LinkView("down", clock.boot, "no thread can be started; raise TasksMax", clock.boot, 1)
    assert not link.usable()
    assert link.view() == down
    assert reports.heard.empty()
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + 10.0))
    link.usable()
    assert reports.wait_for("restored") == []
    assert link.usable()
    link.stop()


def test_a_link_whose_thread_never_begins_has_another(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    reports = Reports()
    link = RedisLink(server.redis(), {}, SystemClock(), dice, reports)
    with monkeypatch.context() as patched:
        threads_never_begin(patched)
        link.start()
    with monkeypatch.context() as patched:
        patched.setattr("bearerd.threads._BEGINS_WITHIN", 0.0)
        link.usable()
    assert reports.wait_for("restored") == []
    assert link.usable()
    link.stop()


# -- while it is down -------------------------------------------------------------------------------


def test_while_it_is_down_operations_fail_without_asking_the_server(server: Server) -> None:
    server.fences = lambda: FULL
    with linked(server.redis()) as (link, reports):
        reports.wait_for("lost")
        with pytest.raises(ShareUnavailable, match="the memory of the server is full"):
            link.store.read(NAMES)
        reports.wait_for("lost")
    assert server.scripts == []


def test_an_unexpected_error_costs_one_connection(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL", 0.01)
    with linked(server.redis()) as (link, reports):
        reports.wait_for("restored")
        with monkeypatch.context() as patched:
            patched.setattr(reports, "known", lambda: 1 / 0)
            reports.wait_for("lost")
            assert "ZeroDivisionError at " in link.view().error
        reports.wait_for("restored")


def test_each_connection_for_announcements_is_closed(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Subscription] = []
    subscribe = RedisStore.subscribe

    def noted(store: RedisStore) -> Subscription:
        opened.append(subscribe(store))
        return opened[-1]

    monkeypatch.setattr(RedisStore, "subscribe", noted)
    monkeypatch.setattr(module, "POLL", 0.01)
    answers = iter([FULL])
    server.fences = lambda: next(answers, NO_FENCES)
    with linked(server.redis()) as (link, reports):
        assert reports.wait_for("restored") == ["lost"]  # the first one was of no use
        with monkeypatch.context() as patched:
            patched.setattr(reports, "known", lambda: 1 / 0)
            reports.wait_for("lost")
        reports.wait_for("restored")
        stop_for_good(link)
    assert {each._connection._bounded.fileno() for each in opened} == {-1}


# -- its end ----------------------------------------------------------------------------------------


def test_the_thread_of_a_link_that_is_stopped_ends_at_once(server: Server) -> None:
    with linked(server.redis()) as (link, reports):
        reports.wait_for("restored")
        stop_for_good(link)


def test_a_link_that_is_stopped_while_it_connects_reports_nothing(server: Server) -> None:
    connecting, go = threading.Event(), threading.Event()

    def fences() -> bytes:
        connecting.set()
        go.wait(WITHIN)
        return NO_FENCES

    server.fences = fences
    with linked(server.redis()) as (link, reports):
        assert connecting.wait(WITHIN)
        thread = link._thread
        assert thread is not None
        link.stop()
        go.set()
        eventually(lambda: not thread.alive())
    assert reports.heard.empty()


def test_a_link_that_waits_for_its_next_connection_stops_at_once(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SHORTEST", 600.0)
    monkeypatch.setattr(module, "LONGEST", 600.0)
    server.ping = lambda: FULL
    with linked(server.redis()) as (link, reports):
        reports.wait_for("lost")
        stop_for_good(link)
    assert reports.heard.empty()


def test_a_stopped_link_does_not_start(server: Server) -> None:
    reports = Reports()
    link = RedisLink(server.redis(), {}, FakeClock(), dice, reports)
    link.stop()
    link.start()
    assert link._thread is None
    assert reports.heard.empty()


# -- operations -------------------------------------------------------------------------------------

OPERATIONS: list[tuple[Callable[[Store], object], bytes, object]] = [
    (lambda store: store.claim(NAMES, Claim(5, 7)), bulk(CLOCK, b"busy", b"2000000"), Busy(2.0)),
    (
        lambda store: store.store(NAMES, 5, b"sealed", 60.0),
        bulk(CLOCK, b"stored", b"9", b"newer"),
        Stored(9, NOW, b"newer"),
    ),
    (lambda store: store.keep(NAMES, 5, 1.0), NOT_STORED, None),
    (lambda store: store.fail(NAMES, 5, b"sealed", 2.0, whole_client=True, refused=False), NOT_STORED, None),
    (lambda store: store.fail(NAMES, 5, b"sealed", 2.0, whole_client=False, refused=True), NOT_STORED, None),
    (lambda store: store.give_back(NAMES, 5), NOT_STORED, None),
    (lambda store: store.read(NAMES), bulk(CLOCK, b"stored", b"9", b"sealed"), Stored(9, NOW, b"sealed")),
]


def test_the_operations_of_a_link_are_those_of_its_store(server: Server) -> None:
    answers = itertools.cycle([answer for _, answer, _ in OPERATIONS])
    server.script = lambda: next(answers)
    store = RedisStore(server.redis(), {})
    store.connect()
    for operation, _, result in OPERATIONS:
        assert operation(store) == result
    store.disconnect()
    sent = server.scripts.copy()
    server.scripts.clear()
    with linked(server.redis()) as (link, _):
        for operation, _, result in OPERATIONS:
            assert operation(link.store) == result
    assert server.scripts == sent


# -- polls and tests of the connection for announcements --------------------------------------------


def test_an_idle_link_sleeps_for_the_five_seconds_until_its_poll(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    ends: queue.SimpleQueue[float] = queue.SimpleQueue()
    hear = Subscription.hear

    def noted(subscription: Subscription, until: float) -> tuple[str, ...] | None:
        ends.put(until)
        return hear(subscription, until)

    monkeypatch.setattr(Subscription, "hear", noted)
    began = time.monotonic()
    with linked(server.redis()):
        assert began + 5.0 <= ends.get(timeout=WITHIN) <= time.monotonic() + 5.0


def test_a_test_that_is_answered_late_but_in_time_ends_nothing(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL", 0.01)
    polls, number, again = threading.Semaphore(0), itertools.count(), threading.Event()

    def tested() -> bytes:
        if next(number):
            again.set()
        else:
            for _ in range(3):
                polls.acquire(timeout=WITHIN)
        return bulk(b"pong", b"")

    def fences() -> bytes:
        polls.release()
        return NO_FENCES

    server.tested, server.fences = tested, fences
    with linked(server.redis()) as (link, _):
        assert again.wait(WITHIN)
        assert link.view().errors == 0


def test_a_connection_for_announcements_that_died_without_an_error_is_opened_again(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "POLL", 0.01)
    server.tested = lambda: b""  # as with a firewall that forgot the connection
    with linked(server.redis(0.5)) as (link, reports):
        reports.wait_for("restored")
        eventually(lambda: "the connection for announcements is dead; it is opened again" in link.view().error)
        reports.wait_for("lost")
        reports.wait_for("restored")


def test_a_change_is_reported_when_it_is_announced(server: Server) -> None:
    texts = (b"nonsense", b"target client", b"one two")
    server.announced = lambda: b"".join(bulk(b"message", b"bearerd:changed", text) for text in texts)
    with linked(server.redis()) as (link, reports):
        assert reports.wait_for({"target", "client"}) == ["restored"]
        assert reports.wait_for({"one", "two"}) == []
        assert link.view().errors == 0


def test_a_poll_reports_the_tokens_whose_fences_differ(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL", 0.01)
    polled = [NO_FENCES, bulk(CLOCK, b"fences", b"5", b"7", b"0"), bulk(CLOCK, b"fences", b"5", b"9", b"0")]
    server.fences = lambda: polled.pop(0) if len(polled) > 1 else polled[0]
    reports = Reports()
    reports.fences = {"one": 5, "two": 7, "none": 0}
    clock = FakeClock()
    link = RedisLink(server.redis(), {}, clock, dice, reports)
    link.start()
    assert reports.wait_for({"two"}) == ["restored"]
    assert reports.wait_for({"two"}) == []
    clock.advance(3600.0)
    eventually(link.fresh)  # since the next poll
    link.stop()


def test_a_link_listens_until_its_next_poll_and_reads_what_came_while_it_was_paused(
    clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now))
    until: list[float] = []
    reports = Reports()
    link = RedisLink(Redis("redis://127.0.0.1:1", timeout=5.0), {}, clock, dice, reports)
    monkeypatch.setattr(link._redis, "fences", lambda _: ())

    class Announcements:
        asked = answered = 0

        def test(self) -> None:
            self.asked += 1

        def hear(self, ends: float) -> tuple[str, ...] | None:
            nonlocal now
            until.append(ends)
            match len(until):
                case 1:  # nothing came until the poll
                    now = ends
                    return None
                case 2:  # something came, and then the process was paused
                    now = 130.0
                    return ("target", "client")
                case _:  # the answer to the test of the connection, which is not late
                    self.answered = self.asked
                    link.stop()
                    return ()

    link._listen(Announcements(), 0)  # type: ignore[arg-type]  # as far as it is used
    assert until[:2] == [105.0, 110.0]
    assert until[2] > 130.0


# -- pace -------------------------------------------------------------------------------------------


def test_connections_come_later_and_later_until_one_lasts(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    paces: queue.SimpleQueue[tuple[int, float]] = queue.SimpleQueue()
    go: queue.SimpleQueue[float] = queue.SimpleQueue()

    def noted(failures: int, draw: float) -> float:
        paces.put((failures, draw))
        return go.get(timeout=WITHIN)

    monkeypatch.setattr(module, "backoff", noted)
    monkeypatch.setattr(module, "LONGEST", 600.0)
    server.fences = server.script = lambda: FULL
    with linked(server.redis(), draw=lambda: 0.25) as (link, reports):
        assert paces.get(timeout=WITHIN) == (1, 0.25)
        go.put(0.0)
        assert paces.get(timeout=WITHIN) == (2, 0.25)
        server.fences = lambda: NO_FENCES
        for longest, failures in ((600.0, 3), (600.0, 4), (0.0, 1), (600.0, 2)):
            monkeypatch.setattr(module, "LONGEST", longest)
            go.put(0.0)
            reports.wait_for("restored")
            with pytest.raises(ShareUnavailable):
                link.store.read(NAMES)
            assert paces.get(timeout=WITHIN) == (failures, 0.25)
        link.stop()
        go.put(0.0)


@pytest.mark.parametrize(
    ("failures", "seconds"), [(1, 0.5), (2, 1.0), (3, 2.0), (5, 8.0), (6, 10.0), (100, 10.0), (10_000, 10.0)]
)
def test_the_first_new_connection_comes_after_half_a_second_and_later_ones_every_ten(
    failures: int, seconds: float
) -> None:
    assert backoff(failures, 0.0) == seconds / 2
    assert backoff(failures, 0.5) == seconds * 0.75


@given(st.integers(1, 10_000), st.floats(0, 1, exclude_max=True))
def test_new_connections_come_later_and_later_and_never_at_once(failures: int, draw: float) -> None:
    assert 0.25 <= backoff(failures, draw) <= backoff(failures + 1, draw) <= 10.0
