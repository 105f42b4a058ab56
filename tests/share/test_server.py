"""One server: what each target knows of its entries, which targets a change wakes, and what is said of errors."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any

import pytest

from bearerd.model import Target
from bearerd.share.parts import LinkState, LinkView
from bearerd.share.server import EntryState, Server
from bearerd.share.types import NEVER, Names, ShareView
from bearerd.terms import REFUSED_LIMIT, Redis, Reference
from support.targets import CLIENT, TARGET, target

NAMES = Names("token-1", "client-1", REFUSED_LIMIT)
SECOND = replace(target("two", scope="two"), client=CLIENT)
OTHER = replace(target("three"), client=replace(CLIENT, name="other"))


@dataclass
class Link:
    """A link that does nothing."""

    state: LinkState = "up"
    error: str = ""
    error_at: float | None = None
    errors: int = 0

    def view(self) -> LinkView:
        return LinkView(self.state, 3.0, self.error, self.error_at, self.errors)


@dataclass
class One:
    """A server, its link, its clock, and the turns that it gave."""

    url: Any = "redis://user:secret@redis.internal:6380/2"
    now: float = 1000.0
    link: Link = field(default_factory=Link)
    connected: list[Redis] = field(default_factory=list)
    woken: list[tuple[str, float | None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.server = Server(Redis(self.url), self.connect, self.wake, lambda: self.now)  # type: ignore[arg-type]  # not a whole link

    def connect(self, redis: Redis, _listener: object) -> Link:
        self.connected.append(redis)
        return self.link

    def wake(self, name: str, at: float | None) -> None:
        self.woken.append((name, at))

    def state(self, each: Target = TARGET, names: Names = NAMES, client_id: str = "7e0c5a") -> EntryState:
        return self.server.state(each, client_id, lambda: names)

    def woken_by(self, *names: str) -> list[str]:
        self.woken.clear()
        self.server.changed(names)
        return [name for name, _ in self.woken]


@pytest.fixture
def one() -> One:
    return One()


# -- states ----------------------------------------------------------------------------------------


def test_a_target_keeps_its_state_while_its_names_stay(one: One) -> None:
    state = one.state()
    assert (state.target, state.names, state.client_id, state.look) == (TARGET, NAMES, "7e0c5a", True)
    assert one.state(names=replace(NAMES, token="unused")) is state  # nothing changed, so names are not computed again
    changed = replace(TARGET, publish_delay=5.0)
    assert one.state(changed) is state
    assert state.target is changed


@pytest.mark.parametrize("client_id", ["7e0c5a", "another"])
def test_a_target_with_other_names_starts_again(one: One, client_id: str) -> None:
    former = one.state()
    names = Names("token-2", "client-2", REFUSED_LIMIT)
    state = one.state(replace(TARGET, scope="other"), names, client_id)
    assert state is not former
    assert (state.names, state.client_id) == (names, client_id)
    assert one.woken_by("token-1", "client-1") == []
    assert one.woken_by("token-2") == ["dnb/bci"]
    assert list(one.server.known()) == ["token-2"]


def test_a_removed_target_is_woken_by_nothing(one: One) -> None:
    one.state()
    second = one.state(SECOND, replace(NAMES, token="token-2"))
    second.waiting = True
    one.server.drop("dnb/bci")
    one.server.drop("dnb/unknown")
    assert one.woken_by("token-1") == []
    assert one.woken_by("client-1") == ["dnb/two"]
    one.server.drop("dnb/two")
    assert one.woken_by("client-1", "token-2") == []
    assert one.server.known() == {}


def test_targets_look_again_when_keys_may_have_changed(one: One) -> None:
    states = [one.state(), one.state(OTHER, replace(NAMES, token="token-3"))]
    for client, looks in (("other", [False, True]), ("unknown", [False, False]), (None, [True, True])):
        for state in states:
            state.look, state.unreadable = False, 7
        one.server.look_again(client)
        assert [state.look for state in states] == looks
        assert [state.unreadable for state in states] == [NEVER if look else 7 for look in looks]


def test_the_oldest_fence_of_targets_with_one_token_is_compared(one: One) -> None:
    one.state().stored_fence = 7
    one.state(SECOND).stored_fence = 5
    one.state(OTHER, replace(NAMES, token="token-3")).stored_fence = 9
    assert one.server.known() == {"token-1": 5, "token-3": 9}
    one.state(SECOND).stored_fence = 8
    assert one.server.known() == {"token-1": 7, "token-3": 9}


# -- changes ---------------------------------------------------------------------------------------


def test_a_changed_token_wakes_its_targets_at_once(one: One) -> None:
    state = one.state()
    state.look, state.busy_since = False, 5.0
    assert one.woken_by("token-1", "unknown") == ["dnb/bci"]
    assert one.woken == [("dnb/bci", None)]
    changed: tuple[bool, float | None] = (state.look, state.busy_since)
    assert changed == (True, None)


def test_the_end_of_an_attempt_wakes_those_of_its_client_that_wait_for_it(one: One) -> None:
    second, third = (one.state(replace(SECOND, name=name), replace(NAMES, token=name)) for name in ("two", "three"))
    second.waiting = True
    for state in (second, third):
        state.look, state.busy_since = False, 5.0
    assert one.woken_by("client-1") == ["dnb/two"]
    assert [state.look for state in (second, third)] == [False, False]
    assert [state.busy_since for state in (second, third)] == [None, None]


def test_eight_that_wait_for_their_client_are_woken_and_the_others_next(one: One) -> None:
    names = [f"t{number:02}" for number in range(20)]
    for name in names:
        one.state(replace(SECOND, name=name), replace(NAMES, token=name)).waiting = True
    woken = [one.woken_by("client-1") for _ in range(3)]
    full = [f"dnb/{name}" for name in names]
    assert woken == [full[:8], full[8:16], full[16:] + full[:4]]


def test_a_target_is_woken_ten_times_a_second_at_most(one: One) -> None:
    one.state()
    for now, at in ((1000.0, None), (1000.05, 1000.1), (1000.06, 1000.1), (1000.1, 1000.2), (1000.31, None)):
        one.now = now
        one.woken_by("token-1")
        assert one.woken == [("dnb/bci", at if at is None else pytest.approx(at))]


def test_the_ends_of_attempts_wake_a_target_ten_times_a_second_at_most(one: One) -> None:
    one.state().waiting = True
    for now, at in ((1000.0, None), (1000.05, 1000.1), (1000.06, 1000.1)):
        one.now = now
        one.woken_by("client-1")
        assert one.woken == [("dnb/bci", at if at is None else pytest.approx(at))]


def test_all_are_woken_when_the_server_is_back(one: One, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    for state in (one.state(), one.state(OTHER, replace(NAMES, token="token-3"))):
        state.look = False
    one.server.restored()  # the first connection
    assert (one.server.back_at, caplog.messages) == (-inf, [])
    assert one.woken == [("dnb/bci", None), ("other/three", None)]
    assert all(state.look for state in one.server._states.values())
    one.server.lost()
    one.now += 5.0
    one.server.restored()
    assert one.server.back_at == 1005.0
    assert caplog.messages[-1] == "share redis://redis.internal:6380/2 is available again"
    one.now += 5.0
    one.server.restored()
    assert one.server.back_at == 1005.0
    assert len(caplog.messages) == 2


# -- what is said of errors ------------------------------------------------------------------------

ALONE = "each token is refreshed by this daemon alone"
WAIT = "each token is kept until shortly before its expiry"


@pytest.mark.parametrize(
    ("policies", "text"),
    [
        ((), ALONE),
        (("alone",), ALONE),
        (("wait",), WAIT),
        (("alone", "wait"), f"{ALONE}, or kept until shortly before its expiry"),
    ],
)
def test_a_server_that_is_lost_is_logged_with_what_happens_now(
    one: One, caplog: pytest.LogCaptureFixture, policies: Any, text: str
) -> None:
    one.server.policies = frozenset(policies)
    one.link.error = "timed out; check it"
    one.server.lost()
    assert caplog.messages == [f"share redis://redis.internal:6380/2 is unavailable: timed out; check it; {text}"]


def test_a_lost_server_is_logged_for_each_reason_and_every_ten_minutes(
    one: One, caplog: pytest.LogCaptureFixture
) -> None:
    said = []
    for now, error in ((0.0, "a"), (1.0, "a"), (1.0, "b"), (599.9, "a"), (600.0, "a"), (600.0, "b"), (601.0, "b")):
        one.now, one.link.error = now, error
        caplog.clear()
        one.server.lost()
        said.append([" still " in message for message in caplog.messages])
    assert said == [[False], [], [True], [], [True], [], [True]]
    one.server.restored()
    for error, still in (("b", False), ("a", True)):  # each reason is new again
        one.link.error = error
        caplog.clear()
        one.server.lost()
        assert [" still " in message for message in caplog.messages] == [still]


def test_an_error_of_this_daemon_is_logged_once_in_ten_minutes_for_each_kind(
    one: One, caplog: pytest.LogCaptureFixture
) -> None:
    for now, kind in ((0.0, "key"), (1.0, "key"), (1.0, "clock"), (599.9, "key"), (600.0, "key"), (600.9, "clock")):
        one.now = now
        one.server.note(kind, f"{kind} at {now}")
    assert [message.rpartition(": ")[2] for message in caplog.messages] == [
        "key at 0.0",
        "clock at 1.0",
        "key at 600.0",
    ]
    assert one.server.view().errors == 6
    assert (one.server.view().error, one.server.view().error_at) == ("clock at 600.9", 600.9)


@pytest.mark.parametrize(
    ("state", "link_error_at", "shown"),
    [
        ("up", None, "own"),
        ("up", 999.0, "own"),
        ("up", 1000.0, "own"),
        ("up", 1001.0, "link"),
        ("starting", None, "own"),
        ("down", 999.0, "link"),
    ],
)
def test_the_view_shows_the_last_error_and_while_the_link_is_down_its_own(
    one: One, state: LinkState, link_error_at: float | None, shown: str
) -> None:
    one.link.state, one.link.error_at, one.link.errors = state, link_error_at, 2
    one.link.error = "link" if link_error_at is not None else ""
    before = one.server.view()
    assert (before.error, before.error_at, before.errors) == (one.link.error, link_error_at, 2)
    one.server.note("key", "own")
    view = one.server.view()
    assert (view.error, view.errors) == (shown, 3)
    assert view.error_at == (1000.0 if shown == "own" else link_error_at)


def test_the_view_counts_tokens_and_those_that_wait(one: One) -> None:
    one.server.clients = ("dnb", "other")
    one.server.taken, one.server.stored = 4, 5
    one.state().held = True
    one.state(SECOND, replace(NAMES, token="token-2"))
    assert one.server.view() == ShareView(
        "redis://redis.internal:6380/2", ("dnb", "other"), "up", 3.0, "", None, waiting=1, taken=4, stored=5, errors=0
    )


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("redis://user:secret@redis.internal:6380/2", "redis://redis.internal:6380/2"),
        (Reference("file", "/run/url"), str(Reference("file", "/run/url"))),
        ("nonsense://secret", "redis"),
    ],
)
def test_the_name_of_a_server_shows_no_password(url: Any, name: str) -> None:
    one = One(url)
    assert one.server.name == name
    assert one.connected == [Redis(url)]
