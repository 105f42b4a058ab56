"""What one target makes of each answer of its server, and what it sends: over a store that answers as it is told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import nan
from typing import Any

import pytest

from bearerd.grant.outcome import Refused, Transient
from bearerd.publish.record import Record
from bearerd.share import policy
from bearerd.share.answers import Alone, Delayed, FleetFailure, Lock, Taken, Wanted
from bearerd.share.entries import Entries, Unusable
from bearerd.share.entry import TokenEntry
from bearerd.share.names import names_of
from bearerd.share.parts import LinkView
from bearerd.share.sealer import Sealer
from bearerd.share.server import EntryState, Server
from bearerd.share.types import (
    GREATEST_FENCE,
    NEVER,
    Busy,
    Failing,
    Granted,
    Limited,
    ShareUnavailable,
    Stored,
)
from bearerd.terms import Instant, RateLimit, Redis, Reference
from support.clock import FakeClock
from support.fleet import CLIENT_ID, SECRET, SHARE
from support.targets import CLIENT, TARGET, token

TIMEOUT = 7.0
PROVIDER = replace(CLIENT.provider, timeout=TIMEOUT, refused_limit=RateLimit(4, 3600.0))
SHARED = replace(
    TARGET,
    client=replace(CLIENT, share=SHARE, provider=PROVIDER, rate_limits=(("client-dnb", RateLimit(3, 10.0)),)),
)
NAMES = names_of(SHARED, CLIENT_ID)
SERVER_TIME = 1_800_000_100.0
FENCE = int(SERVER_TIME * 1e6)
WITHOUT = Wanted(have=0, remaining=0.0, last=False, changed=None, requested=False)
LASTING = replace(WITHOUT, remaining=600.0)


@dataclass
class Link:
    """A link and its store in one. It answers as it is told, and keeps what it was sent."""

    answers: list[Any] = field(default_factory=list)
    sent: list[tuple[Any, ...]] = field(default_factory=list)

    @property
    def store(self) -> _Commands:
        """Its commands."""
        return _Commands(self)

    def view(self) -> LinkView:
        """It is up, and without errors."""
        return LinkView("up", 0.0, "", None, 0)


class _Commands:
    def __init__(self, link: Link) -> None:
        self._link = link

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def command(names: object, *arguments: Any, **keywords: Any) -> Any:
            assert names == NAMES
            self._link.sent.append((name, *arguments, *keywords.items()))
            answer = self._link.answers.pop(0) if self._link.answers else None
            if isinstance(answer, Exception):
                raise answer
            return answer() if callable(answer) else answer

        return command


@dataclass
class Turn:
    """One target, and everything that it asks and is told."""

    clock: FakeClock = field(default_factory=FakeClock)
    link: Link = field(default_factory=Link)

    def __post_init__(self) -> None:
        link: Any = self.link
        self.server = Server(
            Redis("redis://127.0.0.1"), lambda *_: link, lambda *_: None, lambda: self.clock.now().boot
        )  # fmt: skip
        self.state = EntryState(SHARED, NAMES, CLIENT_ID)
        self.sealer = Sealer({"DNB_SECRET": SECRET}, lambda: self.clock.now().boot)
        self.entries = Entries(self.server, self.state, SHARED, self.sealer, self.clock)

    @property
    def error(self) -> str:
        return self.server.view().error

    def claim(self, wanted: Wanted, *answers: Any) -> Any:
        """What it makes of these answers to a claim."""
        self.link.answers[:] = answers
        return self.entries.claim(wanted)

    def sealed(self, fence: int, *, age: float = 0.0, next_due: float = 0.0) -> Stored:
        """A token that a daemon of this fleet stored."""
        entry = TokenEntry(self.record(fence), SERVER_TIME - age, next_due)
        return Stored(fence, SERVER_TIME, self.sealer.seal_token(SHARED, NAMES, entry))

    def record(self, fence: int, *, obtained: Instant | None = None) -> Record:
        return Record(
            token(f"token-{fence}", obtained=obtained or self.clock.now()), SHARED.identity(), CLIENT_ID, fence=fence
        )

    def failure(self, message: str, ends: float = SERVER_TIME + 30.0) -> bytes:
        return self.sealer.seal_failure(SHARED, NAMES, CLIENT_ID, Transient(message), ends, whole_client=False)


@pytest.fixture
def turn() -> Turn:
    turn = Turn()
    turn.server.offset = SERVER_TIME - turn.clock.boot
    return turn


def granted(fence: int, clock: float = SERVER_TIME) -> Granted:
    return Granted(fence, clock, failures=0, refusals=0, governed=False)


# -- looks ---------------------------------------------------------------------------------------


def test_a_look_takes_a_newer_token_with_its_times_and_counts_it(turn: Turn) -> None:
    for fence in (5, 6):
        turn.link.answers[:] = [turn.sealed(fence, age=40.0, next_due=300.0)]
        taken = turn.entries.look(4, lambda: None)
        assert taken is not None
        assert taken.record.token.obtained.boot == turn.clock.boot - 40.0
        assert taken.next_due == turn.clock.boot + 260.0
        assert (taken.record.fence, turn.state.stored_fence, turn.state.seen) == (fence, fence, fence)
    assert turn.server.taken == 2


@pytest.mark.parametrize(("stored", "sends"), [(4, True), (5, False), (NEVER, True)])
def test_a_look_gives_the_held_token_to_a_server_that_has_an_older_one(turn: Turn, stored: int, sends: bool) -> None:
    turn.link.answers[:] = [Stored(stored, SERVER_TIME, b""), None]
    held = turn.record(FENCE)  # obtained when nothing could be stored, so its own fence is not the one that counts
    assert turn.entries.look(5, lambda: (held, 600.0)) is None
    assert [(name, *rest[:1]) for name, *rest in turn.link.sent[1:]] == ([("store", 5)] if sends else [])


def test_a_look_forgets_a_token_that_it_could_not_use_once_another_is_stored(turn: Turn) -> None:
    unreadable = Stored(5, SERVER_TIME, b"nonsense")
    for stored, remembered in ((unreadable, 5), (unreadable, 5), (Stored(NEVER, SERVER_TIME, b""), NEVER)):
        turn.link.answers[:] = [stored]
        assert turn.entries.look(0, lambda: None) is None
        assert turn.state.unreadable == remembered
    assert turn.server.view().errors == 1  # the second look did not try it again


@pytest.mark.parametrize("fence", [-1, GREATEST_FENCE + 1])
def test_a_fence_beyond_the_range_is_refused(turn: Turn, fence: int) -> None:
    turn.link.answers[:] = [Stored(fence, SERVER_TIME, b"")]
    with pytest.raises(Unusable):
        turn.entries.look(0, lambda: None)
    assert turn.error == "the server returned a fencing number out of range; check that it is the fleet's own"
    assert turn.state.stored_fence == NEVER


def test_the_greatest_fence_is_one(turn: Turn) -> None:
    turn.link.answers[:] = [turn.sealed(GREATEST_FENCE)]
    assert turn.entries.look(0, lambda: None) is not None


def test_a_fence_of_the_far_future_is_believed_only_with_a_token_of_the_fleet(turn: Turn) -> None:
    ahead = FENCE + 2 * 86400 * 10**6
    turn.link.answers[:] = [Stored(ahead, SERVER_TIME, b"nonsense")]
    with pytest.raises(Unusable):
        turn.entries.look(0, lambda: None)
    assert turn.error == "the server returned a fencing number out of range; check that it is the fleet's own"
    assert turn.state.seen == NEVER


# -- claims --------------------------------------------------------------------------------------


def test_a_claim_asks_for_a_lock_that_outlasts_one_request(turn: Turn) -> None:
    turn.claim(LASTING, granted(FENCE))
    ((_, claim),) = turn.link.sent
    assert claim.lease == policy.longest_lease(TIMEOUT)


COMMAND = Reference("command", "/bin/print")


@pytest.mark.parametrize(
    ("client", "parameters", "lease"),
    [
        pytest.param({"provider": replace(PROVIDER, token_url=None, issuer="https://sso.test")}, (), 23.0, id="issuer"),
        pytest.param({"private_key": COMMAND}, (), 19.0, id="key"),
        pytest.param(
            {}, (("resource", COMMAND), ("audience", "a"), ("user", Reference("env", "U"))), 19.0, id="parameter"
        ),
    ],
)
def test_a_lock_outlasts_the_metadata_and_the_commands_of_a_grant(
    turn: Turn, client: dict[str, Any], parameters: tuple[tuple[str, str | Reference], ...], lease: float
) -> None:
    changed = replace(SHARED, client=replace(SHARED.client, **client), parameters=parameters)
    turn.entries = replace(turn.entries, target=changed)
    turn.claim(LASTING, granted(FENCE))
    ((_, claim),) = turn.link.sent
    assert claim.lease == lease


@pytest.mark.parametrize(("late", "commands"), [(0.0, ["claim", "give_back", "claim"]), (-0.001, ["claim"])])
def test_a_lock_that_ended_before_it_was_received_is_given_back(turn: Turn, late: float, commands: list[str]) -> None:
    def paused() -> Granted:
        turn.clock.advance(policy.longest_lease(TIMEOUT) + late)
        return granted(FENCE)

    lock = turn.claim(LASTING, paused, *([None, granted(FENCE + 7)] if not late else []))
    assert isinstance(lock, Lock)
    assert [name for name, *_ in turn.link.sent] == commands
    assert turn.link.sent[1:2] == [("give_back", FENCE)][: len(commands) - 1]


@pytest.mark.parametrize("answer", [None, ShareUnavailable("closed; look at it")], ids=["up", "down"])
@pytest.mark.parametrize(("grant", "error"), [
    (granted(FENCE, nan), "the server returned no time"),
    (granted(4), "the server returned a fencing number out of order"),
], ids=["time", "fence"])  # fmt: skip
def test_a_lock_that_is_not_believed_is_given_back(turn: Turn, grant: Granted, error: str, answer: Any) -> None:
    with pytest.raises(Unusable):
        turn.claim(replace(LASTING, have=4), grant, answer)
    assert turn.link.sent[1:] == [("give_back", grant.fence)]
    assert turn.error == f"{error}; check that it is the fleet's own"


def test_a_claim_that_is_answered_with_a_token_takes_it(turn: Turn) -> None:
    taken = turn.claim(LASTING, turn.sealed(5))
    assert isinstance(taken, Taken)
    assert (taken.record.token.access_token, turn.state.stored_fence) == ("token-5", 5)


@pytest.mark.parametrize("remaining", [0.5, 600.0])
def test_locks_of_others_are_not_counted_while_the_token_is_valid(turn: Turn, remaining: float) -> None:
    wanted = replace(WITHOUT, remaining=remaining)
    for _ in range(2):
        assert turn.claim(wanted, Busy(3.0)) == Delayed("share", 3.0)
        assert turn.state.busy_since == turn.clock.boot
        turn.clock.advance(4.0)


def test_locks_of_others_are_counted_without_a_token_until_anything_else_is_answered(turn: Turn) -> None:
    first = turn.clock.boot
    for _ in range(2):
        turn.claim(WITHOUT, Busy(3.0))
        assert turn.state.busy_since == first
        turn.clock.advance(4.0)
    turn.claim(WITHOUT, Limited("rate_limit", 1.0))
    assert turn.state.busy_since is None


def test_the_last_attempt_ignores_a_lock_that_is_too_long(turn: Turn) -> None:
    wanted = replace(WITHOUT, remaining=20.0)
    assert turn.claim(wanted, Busy(31.0)) == Delayed("share", 31.0)
    assert turn.claim(replace(wanted, last=True), Busy(30.0)) == Delayed("share", 30.0)
    assert turn.claim(replace(wanted, last=True), Busy(31.0)) == Alone()
    assert "another daemon has held the lock for too long" in turn.error


@pytest.mark.parametrize(("reason", "wait", "wanted", "believed"), [
    ("refused_limit", 1000.0, WITHOUT, True),
    ("refused_limit", 86400.0, WITHOUT, False),
    ("rate_limit", 70.0, WITHOUT, True),
    ("rate_limit", 1000.0, WITHOUT, False),
    ("rate_limit", 1000.0, replace(WITHOUT, remaining=0.5), True),
    ("rate_limit", 1000.0, replace(WITHOUT, remaining=0.5, last=True), False),
])  # fmt: skip
def test_a_wait_is_believed_if_the_limit_of_its_reason_explains_it(
    turn: Turn, reason: Any, wait: float, wanted: Wanted, believed: bool
) -> None:
    assert turn.claim(wanted, Limited(reason, wait)) == (Delayed(reason, wait) if believed else Alone())
    assert ("no limit explains the wait" in turn.error) == (not believed)


# -- failures ------------------------------------------------------------------------------------


def test_each_failure_of_the_fleet_is_new_once(turn: Turn) -> None:
    news = []
    first = turn.failure("first")
    for sealed in (first, first, turn.failure("second"), turn.failure("third")):
        told = turn.claim(LASTING, Failing(sealed, 30.0, 1, whole_client=False))
        assert isinstance(told, FleetFailure)
        news.append(told.new)
    assert news == [True, False, True, True]


@pytest.mark.parametrize(("wait", "count", "told"), [
    (0.5, 2, (0.5, 2)), (-3.0, 0, (0.0, 1)), (1e9, 1, (4320.0, 1)),
])  # fmt: skip
def test_a_failure_of_the_fleet_has_a_wait_and_a_count_within_bounds(
    turn: Turn, wait: float, count: int, told: tuple[float, int]
) -> None:
    answer = turn.claim(LASTING, Failing(turn.failure("503"), wait, count, whole_client=False))
    assert isinstance(answer, FleetFailure)
    assert (answer.wait, answer.count) == told


def test_a_failure_that_lasts_too_long_is_ignored_without_a_token(turn: Turn) -> None:
    failing = Failing(turn.failure("503", ends=SERVER_TIME - 61.0), 30.0, 1, whole_client=False)
    assert isinstance(turn.claim(LASTING, failing), FleetFailure)
    assert turn.claim(WITHOUT, failing) == Alone()


@pytest.mark.parametrize("refused", [True, False])
@pytest.mark.parametrize(("wait", "sent"), [(0.3, 0.3), (-2.0, 0.0)])
def test_a_failure_is_reported_with_its_wait(turn: Turn, wait: float, sent: float, refused: bool) -> None:
    turn.server.offset = None  # it was not told yet
    lock = Lock(NAMES, CLIENT_ID, FENCE, 0, 0, governed=False)
    turn.entries.fail(lock, Transient("503"), wait, whole_client=False, refused=refused)
    ((name, fence, sealed, waits, *rest),) = turn.link.sent
    assert (name, fence, waits, dict(rest)) == ("fail", FENCE, sent, {"whole_client": False, "refused": refused})
    failing = Failing(sealed, wait, 1, whole_client=False)
    _, ends = turn.sealer.open_failure(SHARED, NAMES, CLIENT_ID, failing)
    assert ends == turn.clock.boot + wait


@pytest.mark.parametrize(("failure", "whole_client", "noted"), [
    (Refused("401"), True, 1), (Refused("400"), False, 0), (Transient("503"), True, 0),
], ids=["client", "target", "transient"])  # fmt: skip
def test_only_a_refused_client_has_refused_credentials(
    turn: Turn, failure: Any, whole_client: bool, noted: int
) -> None:
    lock = Lock(NAMES, CLIENT_ID, FENCE, 0, 0, governed=False)
    turn.entries.fail(lock, failure, 30.0, whole_client=whole_client, refused=True)
    assert len(turn.state.refused) == noted


# -- stores --------------------------------------------------------------------------------------


def test_a_token_is_stored_with_its_times_and_counts(turn: Turn) -> None:
    turn.state.refused = tuple("a")
    obtained = Instant(turn.clock.wall - 3.0, turn.clock.boot - 3.0)
    for fence, remaining, ttl, next_due in ((5, 600.0, 600.0, 300.0), (6, 0.2, 1.0, -9.0)):
        record = turn.record(fence, obtained=obtained)
        assert turn.entries.store(record, remaining, max(0.0, turn.clock.boot + next_due)) is None
        name, sent_fence, sealed, sent_ttl = turn.link.sent[-1]
        assert (name, sent_fence, sent_ttl) == ("store", fence, ttl)
        entry = turn.sealer.open_token(SHARED, NAMES, CLIENT_ID, Stored(fence, SERVER_TIME, sealed))
        assert entry is not None
        assert (entry.clock, entry.next_due) == (SERVER_TIME - 3.0, max(0.0, next_due + 3.0))
        assert (turn.state.stored_fence, turn.state.seen) == (fence, fence)
    assert (turn.server.stored, turn.state.refused) == (2, ())


def test_a_store_that_is_answered_with_a_newer_token_takes_it(turn: Turn) -> None:
    newer = turn.sealed(6, age=40.0)

    def paused() -> Stored:
        turn.clock.advance(9.0)
        return newer

    asked = turn.clock.boot
    turn.link.answers[:] = [paused]
    taken = turn.entries.store(turn.record(5), 600.0, 0.0)
    assert taken is not None
    assert (taken.record.fence, taken.record.token.obtained.boot) == (6, asked - 40.0)
    assert (turn.state.stored_fence, turn.server.stored, turn.server.taken) == (6, 0, 1)


def test_a_newer_token_with_a_fence_beyond_the_range_is_refused(turn: Turn) -> None:
    turn.link.answers[:] = [replace(turn.sealed(6), fence=-1)]
    with pytest.raises(Unusable):
        turn.entries.store(turn.record(5), 600.0, 0.0)
    assert turn.error == "the server returned a fencing number out of range; check that it is the fleet's own"
