"""When a new token is published, and which token is in the files until then."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bearerd.grant.outcome import Issued
from bearerd.lifecycle.held_token import LONGEST_NBF, HeldToken, Waiting, wait
from bearerd.lifecycle.token_state import GRACE, TokenState, accept
from bearerd.model import Target
from bearerd.publish import record as records
from bearerd.publish.record import Record
from bearerd.terms import Instant, Token
from support.clock import START, FakeClock
from support.targets import TARGET, token

NOW = START.boot
DELAYED = replace(TARGET, publish_delay=30.0)


def digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:16]


def present(ends_in: float = 600.0, text: str = "old") -> TokenState:
    """A token that expires in so many seconds."""
    held = token(text, lifetime=ends_in)
    return TokenState(held, held.expires.boot, gone=held.expires.boot)


@pytest.mark.parametrize(
    ("delay", "nbf", "ends_in", "lifetime", "published_in"),
    [
        pytest.param(0.0, 0.0, 600.0, 3600.0, 0.0, id="no-delay"),
        pytest.param(30.0, 0.0, 600.0, 3600.0, 30.0, id="delay"),
        pytest.param(30.0, 0.0, 10.0, 3600.0, 10.0, id="the-present-one-expires-before"),
        pytest.param(30.0, 0.0, None, 3600.0, 0.0, id="no-present-one"),
        pytest.param(30.0, 0.0, -5.0, 3600.0, 0.0, id="an-expired-one"),
        pytest.param(30.0, 0.0, 600.0, 40.0, 20.0, id="half-its-lifetime"),
        pytest.param(0.0, 5.0, 600.0, 3600.0, 5.0, id="nbf"),
        pytest.param(0.0, 5.0, None, 3600.0, 5.0, id="nbf-without-a-present-one"),
        pytest.param(0.0, 20.0, 10.0, 3600.0, 20.0, id="nbf-after-the-present-one-expires"),
        pytest.param(0.0, 300.0, 600.0, 3600.0, LONGEST_NBF, id="nbf-too-far-ahead"),
        pytest.param(0.0, 300.0, 600.0, 40.0, 20.0, id="nbf-beyond-half-its-lifetime"),
        pytest.param(30.0, 5.0, 600.0, 3600.0, 30.0, id="the-later-of-both"),
        pytest.param(30.0, 50.0, 600.0, 3600.0, 50.0, id="the-later-of-both-nbf"),
    ],
)
def test_a_new_token_is_published_after_its_delay_and_its_nbf(
    delay: float, nbf: float, ends_in: float | None, lifetime: float, published_in: float
) -> None:
    old = TokenState() if ends_in is None else present(ends_in)
    waiting = wait(token("new", lifetime=lifetime), old, delay, NOW + nbf, NOW)
    assert (waiting.at - NOW if waiting else 0.0) == published_in


def test_the_delay_counts_from_the_request_and_not_from_the_reply() -> None:
    slow = token("new", obtained=Instant(START.wall - 8.0, NOW - 8.0))
    waiting = wait(slow, present(), 30.0, -inf, NOW)
    assert waiting is not None
    assert waiting.at == NOW + 22.0


def test_a_token_that_is_in_the_files_already_does_not_wait() -> None:
    assert wait(token("old"), present(text="old"), 30.0, -inf, NOW) is None


@given(
    delay=st.floats(0, 3600),
    nbf=st.floats(0, 1e6),
    ends_in=st.none() | st.floats(-100, 1e6),
    lifetime=st.floats(1, 1e6),
    took=st.floats(0, 60),
)
def test_no_wait_outlasts_the_present_token_or_half_of_the_new_one(
    delay: float, nbf: float, ends_in: float | None, lifetime: float, took: float
) -> None:
    old = TokenState() if ends_in is None else present(ends_in)
    new = token("new", lifetime=lifetime, obtained=Instant(START.wall - took, NOW - took))
    waiting = wait(new, old, delay, NOW + nbf, NOW)
    if waiting is None:
        return
    assert NOW < waiting.at <= max(new.obtained.boot + delay, NOW + min(nbf, LONGEST_NBF))
    assert waiting.at <= new.obtained.boot + lifetime / 2
    assert waiting.at <= max(old.ends, waiting.not_before)


class Holder:
    """A held token and its clock."""

    def __init__(self, target: Target = DELAYED) -> None:
        self.target, self.clock, self.held = target, FakeClock(), HeldToken()

    def take(self, text: str, *, lifetime: float = 3600.0, nbf: float = 0.0) -> None:
        now = self.clock.now()
        issued = Issued(token(text, lifetime=lifetime, obtained=now))
        accepted = accept(self.held.state, issued, now, lambda got: got.expires.boot - 60.0)
        self.held.take(accepted, self.target, "7e0c5a", nbf, now.boot)

    @property
    def waiting(self) -> Waiting:
        assert self.held.waiting is not None
        return self.held.waiting

    def files(self) -> str | None:
        self.held.publish_if_due(self.clock.boot)
        shown: Token | None = self.held.in_files.current
        return None if shown is None else shown.access_token


@pytest.fixture
def holder() -> Holder:
    made = Holder()
    made.take("t-1")
    made.clock.advance(600.0)
    return made


def test_the_first_token_is_published_at_once(holder: Holder) -> None:
    assert holder.held.waiting is None
    assert holder.files() == "t-1"


def test_the_present_token_stays_until_the_delay_is_over(holder: Holder) -> None:
    holder.take("t-2")
    assert holder.files() == "t-1"
    holder.clock.advance(29.9)
    assert holder.files() == "t-1"
    holder.clock.advance(0.1)
    assert holder.files() == "t-2"


def test_a_third_token_replaces_the_one_that_waits(holder: Holder) -> None:
    holder.take("t-2")
    holder.clock.advance(20.0)
    holder.take("t-3")
    assert holder.files() == "t-1"
    holder.clock.advance(30.0)
    assert holder.files() == "t-3"


def test_the_waiting_token_again_does_not_prolong_the_wait(holder: Holder) -> None:
    holder.take("t-2")
    until = holder.waiting.at
    holder.clock.advance(10.0)
    holder.take("t-2", lifetime=3590.0)
    assert holder.waiting.at == until


def test_a_consumer_for_which_the_present_token_fails_gets_the_waiting_one(holder: Holder) -> None:
    holder.take("t-2", nbf=10.0)
    assert holder.held.replaces(digest("t-1"))
    assert not holder.held.is_newer(digest("t-1"), holder.clock.boot)
    holder.held.doubt(digest("t-1"))
    assert holder.files() == "t-1"  # the other one is not valid yet
    holder.clock.advance(10.0)
    assert holder.files() == "t-2"
    assert holder.held.is_newer(digest("t-1"), holder.clock.boot)


def test_a_consumer_that_names_the_present_token_again_changes_nothing(holder: Holder) -> None:
    holder.take("t-2", nbf=10.0)
    holder.held.doubt(digest("t-1"))
    waiting = holder.waiting
    holder.held.doubt(digest("t-1"))
    assert holder.waiting is waiting


def test_a_consumer_with_an_older_token_than_the_present_one_changes_nothing(holder: Holder) -> None:
    holder.take("t-2")
    holder.held.doubt(digest("t-0"))
    assert holder.held.is_newer(digest("t-0"), holder.clock.boot)
    assert holder.files() == "t-1"


def test_what_replaces_a_token_that_fails_does_not_wait(holder: Holder) -> None:
    holder.held.doubt(digest("t-1"))
    holder.take("t-2")
    assert holder.files() == "t-2"
    holder.take("t-3")  # only the one after it waits again
    assert holder.files() == "t-2"


def test_while_a_token_fails_nothing_that_replaces_it_waits(holder: Holder) -> None:
    holder.held.doubt(digest("t-1"))
    holder.take("t-2", nbf=20.0)
    assert holder.files() == "t-1"
    holder.take("t-3")
    assert holder.files() == "t-3"


def test_an_expired_token_is_not_newer_than_another(holder: Holder) -> None:
    assert holder.held.is_newer(digest("t-0"), holder.clock.boot)
    holder.clock.advance(3000.0)
    assert not holder.held.is_newer(digest("t-0"), holder.clock.boot)


def test_a_token_of_another_request_is_published_at_once(holder: Holder) -> None:
    holder.target = replace(DELAYED, scope="other")
    holder.take("t-2")
    assert holder.files() == "t-2"


def test_the_token_of_another_request_stays_in_the_files_until_the_new_one_is_valid_but_not_in_the_record(
    holder: Holder,
) -> None:
    holder.target = replace(DELAYED, scope="other")
    holder.take("t-2", nbf=20.0)
    record = holder.held.record(holder.target)
    assert record is not None
    assert (record.token.access_token, record.present, record.waits) == ("t-2", None, True)
    holder.clock.advance(10.0)
    holder.take("t-3", nbf=20.0)
    assert holder.files() == "t-1"
    holder.clock.advance(20.0)
    assert holder.files() == "t-3"


@pytest.mark.parametrize(("delay", "left"), [(10.0, 5.0), (0.0, 0.0), (300.0, 25.0)])
def test_a_shorter_delay_applies_at_once_and_a_longer_one_to_the_next_token(
    holder: Holder, delay: float, left: float
) -> None:
    holder.take("t-2")
    holder.clock.advance(5.0)
    holder.held.shorten(delay)
    assert max(0.0, holder.waiting.at - holder.clock.boot) == left


@pytest.mark.parametrize("step", [-7200.0, -20.0, 20.0, 7200.0])
def test_a_step_of_the_wall_clock_moves_no_publication(holder: Holder, step: float) -> None:
    holder.take("t-2")
    holder.clock.step(step)
    assert holder.held.redate(holder.clock.now()) is not None
    # Of a clock that is off by hours, the earlier expiry counts, and so the present token may have expired.
    left = max(0.0, holder.waiting.at - holder.clock.boot)
    assert left == (30.0 if step != 7200.0 else 0.0)


# -- the record ----------------------------------------------------------------------------------------


def again(holder: Holder, target: Target = DELAYED) -> Holder:
    """Another process with the record of this one."""
    record = holder.held.record(holder.target)
    assert record is not None
    read = records.load(records.dump(record))
    assert read == record
    other = Holder(target)
    other.clock = holder.clock
    other.held.resume(read, target, holder.clock.now())
    return other


@pytest.mark.parametrize("reboot", [False, True])
def test_a_restart_continues_the_wait(holder: Holder, reboot: bool) -> None:
    holder.take("t-2", nbf=5.0)
    holder.clock.advance(10.0)
    if reboot:
        holder.clock.reboot()
    other = again(holder)
    assert other.files() == "t-1"
    other.clock.advance(19.9)
    assert other.files() == "t-1"
    other.clock.advance(0.2)
    assert other.files() == "t-2"
    assert again(other).held.waiting is None


def test_a_restart_continues_the_wait_without_a_present_token() -> None:
    holder = Holder()
    holder.take("t-1", nbf=20.0)
    assert holder.files() is None
    holder.clock.advance(5.0)
    other = again(holder)
    assert other.files() is None
    other.clock.advance(15.0)
    assert other.files() == "t-1"


@pytest.mark.parametrize("seconds", [25.0, 595.0, 3000.0])
def test_a_wait_that_is_over_at_the_restart_is_over(holder: Holder, seconds: float) -> None:
    holder.take("t-2")
    holder.clock.advance(seconds + 5.0)
    assert again(holder).files() == "t-2"


def test_a_restart_without_the_delay_publishes_at_once(holder: Holder) -> None:
    holder.take("t-2")
    assert again(holder, replace(DELAYED, publish_delay=0.0)).files() == "t-2"


def test_a_hurried_token_is_not_delayed_by_a_restart(holder: Holder) -> None:
    holder.take("t-2", nbf=10.0)
    holder.held.doubt(digest("t-1"))
    other = again(holder)
    assert other.files() == "t-1"
    other.clock.advance(10.0)
    assert other.files() == "t-2"


def test_a_present_token_that_a_wrong_clock_calls_expired_stays_until_the_new_one_is_valid(holder: Holder) -> None:
    holder.clock.step(7200.0)
    assert holder.held.redate(holder.clock.now()) is not None
    assert not holder.held.state.remaining(holder.clock.boot)
    holder.take("t-2", nbf=20.0)
    assert holder.files() == "t-1"
    assert holder.held.in_files.lost_at() > holder.clock.boot + 20.0
    holder.clock.advance(20.0)
    assert holder.files() == "t-2"


def test_the_nbf_counts_from_the_reply() -> None:
    holder = Holder()
    now = holder.clock.now()
    slow = Instant(now.wall - 8.0, now.boot - 8.0)
    issued = Issued(token("t-1", obtained=slow))
    holder.held.take(accept(TokenState(), issued, now, lambda got: got.expires.boot), DELAYED, "7e0c5a", 5.0, now.boot)
    assert holder.waiting.at == now.boot + 5.0


@pytest.mark.parametrize(("text", "grace"), [("t-1", GRACE), ("t-2", 0.0)])
def test_the_same_token_from_the_fleet_keeps_the_grace_that_its_provider_gave_it(text: str, grace: float) -> None:
    holder = Holder()
    holder.take("t-1", lifetime=5.0)
    holder.take("t-1", lifetime=5.0)  # its provider is about to replace it
    taken = Record(token(text, lifetime=4.0, obtained=holder.clock.now()), DELAYED.identity(), "7e0c5a", fence=7)
    assert holder.held.adopt(taken, DELAYED, holder.clock.now()) is not None
    assert holder.held.state.grace == grace
