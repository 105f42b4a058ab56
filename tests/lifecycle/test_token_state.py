"""Replies compared with the held token: the same token again, countdowns, missing lifetimes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bearerd.grant.outcome import Issued, Malformed, Named, Transient
from bearerd.lifecycle.token_state import Accepted, TokenState, accept, resumed
from bearerd.terms import Instant, Token, Unsure
from support.clock import START

DEFAULT = 3600.0


def reply(text: str, lifetime: float, sent: float, named: Named = "named") -> Issued:
    moment = Instant(START.wall + sent, START.boot + sent)
    return Issued(Token(text, moment, lifetime), named=named)


def due(token: Token) -> float:
    """A refresh is due at 80 % of the lifetime."""
    return token.obtained.boot + 0.8 * token.lifetime


@dataclass
class Life:
    """The replies to one target, at times relative to `START`."""

    state: TokenState = field(default_factory=TokenState)
    last: Accepted | None = None

    def reply(
        self, at: float, text: str, lifetime: float = DEFAULT, named: Named = "named", took: float = 0.0
    ) -> Accepted:
        now = Instant(START.wall + at, START.boot + at)
        self.last = accept(self.state, reply(text, lifetime, at - took, named), now, due, skew=7.0)
        self.state = self.last.state
        return self.last

    def zero(self, at: float, text: str) -> Accepted:
        return self.reply(at, text, DEFAULT, "zero")

    @property
    def again(self) -> float:
        """When the next request is due."""
        assert self.last is not None
        return self.last.due - START.boot

    @property
    def ends(self) -> float:
        return self.state.ends - START.boot

    @property
    def lost_at(self) -> float:
        return self.state.lost_at() - START.boot


@pytest.fixture
def life() -> Life:
    return Life()


def test_an_expiry_that_a_clock_brought_forward_is_put_right_by_the_provider(life: Life) -> None:
    life.reply(0, "a", 3600)
    assert life.state.token is not None
    life.state = life.state.dated(replace(life.state.token, lifetime=600.0))  # the clock was set by 50 min
    assert (life.ends, life.lost_at) == (600, 3600)
    life.reply(100, "a", 3700)  # never later than it was named before
    assert (life.ends, life.lost_at) == (3600, 3600)
    assert life.state.token is not None
    assert life.state.token.expires.boot == START.boot + 3600


def test_an_expiry_that_a_clock_brought_forward_removes_no_file_before_the_provider_says_more(life: Life) -> None:
    life.reply(0, "a", 3600, "unnamed")
    assert life.state.token is not None
    life.state = life.state.dated(replace(life.state.token, lifetime=600.0))
    life.reply(100, "a", 3600, "unnamed")
    assert (life.ends, life.lost_at) == (600, 3600)


def test_a_new_token_is_refreshed_at_its_lead(life: Life) -> None:
    assert life.reply(0, "a", 3600).kind == "new"
    assert (life.again, life.ends, life.lost_at) == (2880, 3600, 3600)
    assert life.reply(2880, "b", 100).kind == "new"
    assert (life.again, life.ends) == (2960, 2980)


def test_a_counted_down_token_is_requested_at_its_end_and_then_every_second(life: Life) -> None:
    # Spring Security OAuth: the same token with whole seconds left, 0 in the last one; then a new one.
    life.reply(0, "a", 3600)
    at, kinds = life.again, []
    while at < 3600.7:
        left = int(3600.7 - at)
        accepted = life.reply(at, "a", left) if left else life.zero(at, "a")
        kinds.append(accepted.kind)
        assert accepted.failure is None
        assert life.state.remaining(START.boot + at) <= 3600.7 - at
        at = life.again
    assert set(kinds) == {"same", "at_end"}
    assert at <= 3600.7 + 1  # expired for a second at most
    assert life.reply(at, "b", 3600).kind == "new"
    assert life.again == at + 2880


def test_a_lifetime_of_0_never_becomes_the_default_if_one_was_named_before(life: Life) -> None:
    life.reply(0, "a", 3600)
    life.zero(3599.5, "a")
    assert (life.ends, life.again) == (3599.5, 3600.5)


def test_a_token_at_its_end_is_requested_every_second_and_fails_after_10_s(life: Life) -> None:
    life.reply(0, "a", 3600)
    outcomes = [(life.zero(3600 + second, "a"), life.again)[0] for second in range(12)]
    assert [accepted.failure is None for accepted in outcomes] == [True] * 10 + [False] * 2
    assert isinstance(outcomes[10].failure, Transient)
    assert life.lost_at == 3610


def test_a_new_token_with_a_lifetime_of_0_is_requested_once_more(life: Life) -> None:
    assert life.zero(0, "a").kind == "new"
    assert life.again == 2
    assert life.reply(2, "b", 3600).kind == "new"  # it was in its last second
    assert (life.again, life.state.never_named) == (2882, False)


@pytest.mark.parametrize(
    ("text", "lifetime", "kind", "again"),
    [
        pytest.param("b", 0, "new", 32 + 2880, id="never named"),
        pytest.param("c", 3600, "new", 32 + 2880, id="it ended"),
        pytest.param("a", 28, "same", 46, id="the present one"),
    ],
)
def test_a_valid_token_is_kept_until_a_second_reply_tells_what_a_lifetime_of_0_means(
    life: Life, text: str, lifetime: float, kind: str, again: float
) -> None:
    life.reply(0, "a", 60)
    present = life.state.token
    assert life.zero(30, "b").kind == "kept"
    assert (life.state.token, life.state.unsure, life.ends, life.again) == (present, "", 60, 32)
    assert (life.reply(32, text, lifetime) if lifetime else life.zero(32, text)).kind == kind
    assert life.state.token is not None
    assert (life.state.token.access_token, life.again, life.state.zero) == (text, again, False)


def test_a_token_with_a_lifetime_of_0_replaces_one_that_may_end_before_the_next_reply(life: Life) -> None:
    life.reply(0, "a", 60)
    assert life.zero(58, "b").kind == "new"
    life.reply(100, "c", 60)
    life.reply(160, "c", 60)  # perhaps from a cache
    assert life.zero(161, "d").kind == "new"


def test_a_short_lifetime_after_a_first_0_leaves_a_second_between_two_requests(life: Life) -> None:
    life.zero(0, "a")
    assert life.reply(2, "a", 1).kind == "renewed"
    assert life.again == 3


def test_a_provider_that_never_names_a_lifetime_is_asked_once_more(life: Life) -> None:
    life.zero(0, "a")
    assert life.zero(2, "a").kind == "same"
    assert (life.again, life.ends) == (2880, 3600)
    assert life.zero(3600, "a").kind == "renewed"
    assert (life.again, life.ends) == (3600 + 2880, 7200)
    # A new token is not requested once more.
    assert life.zero(6480, "b").kind == "new"
    assert life.again == 6480 + 2880


def test_a_provider_that_rotates_tokens_without_a_lifetime_is_asked_once_more(life: Life) -> None:
    life.zero(0, "a")
    assert life.zero(2, "b").kind == "new"
    assert life.again == 2 + 2880
    life.zero(2882, "c")
    assert life.again == 2882 + 2880


def test_no_reply_extends_a_token_before_its_known_expiry(life: Life) -> None:
    life.reply(0, "a", 3600)
    for at, lifetime, named in ((2880, 3600, "named"), (3240, DEFAULT, "unnamed"), (3420, 86400, "named")):
        assert life.reply(at, "a", lifetime, named).kind == "same"  # type: ignore[arg-type]  # the table's names
        assert (life.ends, life.again) == (3600, at + (3600 - at) / 2)


def test_an_earlier_expiry_is_accepted_before_the_known_one(life: Life) -> None:
    life.reply(0, "a", 3600)
    assert life.reply(2880, "a", 100).kind == "same"
    assert (life.ends, life.again) == (2980, 2930)
    assert life.state.token is not None
    assert life.state.token.lifetime == 100  # the files show it
    life.reply(2930, "a", 48)
    assert (life.ends, life.again) == (2978, 2954)
    assert life.state.token.lifetime == 100  # the files are not rewritten for two seconds


def test_the_last_request_before_the_known_expiry_is_at_the_expiry(life: Life) -> None:
    life.reply(0, "a", 3600)
    at = life.again
    while at < 3600:
        life.reply(at, "a", 3600)
        assert life.again >= at + 1
        at = life.again
    assert at == 3600


def test_a_new_lifetime_at_the_known_expiry_is_accepted_and_re_checked(life: Life) -> None:
    life.reply(0, "a", 3600)
    life.reply(2880, "a", 3600)
    assert life.reply(3600, "a", 3600).kind == "renewed"
    assert life.ends == 7200
    checks, at = [], life.again
    while at < 3600 + 2880:
        checks.append(at - 3600)
        assert life.reply(at, "a", 3600).kind == "same"
        assert life.ends == 7200
        at = life.again
    assert checks == [2**count - 1 for count in range(1, 12)]
    assert (at, life.state.sliding) == (3600 + 2880, False)
    life.reply(at, "a", 3600)
    assert life.state.sliding
    assert life.again == at + 360


def test_a_re_check_detects_a_cached_token(life: Life) -> None:
    life.reply(0, "a", 3600)
    life.reply(3600, "a", 3600)
    assert life.again == 3601
    assert life.reply(3601, "b", 3600).kind == "new"
    assert (life.again, life.ends, life.state.sliding) == (3601 + 2880, 7201, False)


def test_a_sliding_token_is_re_checked_twice_until_a_new_token_arrives(life: Life) -> None:
    token = reply("a", 3600, 0).token
    life.state = resumed(token, START.boot, named=True, sliding=True)
    life.reply(3600, "a", 3600)
    assert life.again == 3605
    life.reply(3605, "a", 3600)
    assert life.again == 3660
    life.reply(3660, "a", 3600)
    assert (life.again, life.state.sliding) == (3600 + 2880, True)
    life.reply(6480, "b", 3600)
    assert not life.state.sliding


def test_an_expiry_that_moves_by_less_than_5_s_is_a_countdown(life: Life) -> None:
    life.reply(0, "a", 60)
    at, kinds = 60.0, []
    for _ in range(6):
        kinds.append(life.reply(at, "a", 1).kind)
        assert life.again == at + 1
        at = life.again
    assert kinds == ["same"] * 4 + ["renewed", "same"]


@pytest.mark.parametrize("named", ["named", "unnamed"])
@pytest.mark.parametrize("unsure", ["", "zero", "renewed"])
def test_an_expired_record_only_serves_to_recognise_the_same_token(named: Named, unsure: Unsure) -> None:
    token = reply("a", 3600, -9000).token
    life = Life(resumed(token, START.boot, named=not unsure, sliding=False, unsure=unsure))
    assert life.state.current is None
    assert life.state.remaining(START.boot) == 0
    assert life.reply(0, "a", 3600, named).kind == "renewed"
    assert (life.ends, life.again) == (3600, 1)
    assert life.state.current is not None


def test_a_token_that_expired_before_the_start_and_returns_with_0_is_at_its_end() -> None:
    life = Life(resumed(reply("a", 3600, -3599.5).token, START.boot + 1, named=True, sliding=False))
    assert life.zero(1, "a").kind == "at_end"
    assert life.again == 2
    assert life.state.current is None
    assert life.reply(2, "b").kind == "new"


@pytest.mark.parametrize(
    ("lifetime", "took", "why"),
    [
        pytest.param(-1.0, 0.0, "the reply names a lifetime of -1 s", id="past"),
        pytest.param(0.0, 0.0, "the reply names a lifetime of 0 s", id="now"),
        pytest.param(8.0, 9.0, "the reply took longer than its token is valid (8 s)", id="on its way"),
        pytest.param(8.0, 8.0, "the reply took longer than its token is valid (8 s)", id="just"),
    ],
)
def test_new_tokens_that_arrive_expired_are_transient_and_the_third_is_malformed(
    life: Life, lifetime: float, took: float, why: str
) -> None:
    life.reply(0, "a", 3600)
    held = life.state.token
    failures = [life.reply(2880 + count, f"b{count}", lifetime, took=took).failure for count in range(4)]
    assert [type(failure) for failure in failures] == [Transient, Transient, Malformed, Malformed]
    assert str(failures[2]) == (
        "3 new tokens in a row had expired when they arrived: this machine's clock says 2027-01-15T08:48:02Z, "
        f"the provider's 2027-01-15T08:48:09Z; the clocks agree, and {why}: ask the provider"
    )
    assert life.state.token is held
    life.reply(3000, "c", 3600)
    assert isinstance(life.reply(5880, "d", -1).failure, Transient)


@pytest.mark.parametrize("skew", [None, 31.0, -31.0])
def test_clocks_that_differ_or_are_unknown_are_blamed_for_tokens_that_arrive_expired(skew: float | None) -> None:
    why = reply("a", -1, 0).why_expired(skew)
    assert why == "compare this machine's clock with the provider's; if they agree, ask the provider"


def test_the_held_token_arriving_expired_is_not_a_failure(life: Life) -> None:
    life.reply(0, "a", 8)
    accepted = life.reply(7, "a", 1, took=2)
    assert (accepted.kind, accepted.failure) == ("at_end", None)


def test_a_token_that_the_provider_still_returns_is_lost_10_s_after_its_expiry(life: Life) -> None:
    life.reply(0, "a", 3600)
    life.reply(2880, "a", 3600)
    assert life.lost_at == 3600  # the provider last returned it long before its expiry
    life.reply(3591, "a", 3600)
    assert life.lost_at == 3610


def test_a_clock_step_moves_the_expiry_but_not_the_loss(life: Life) -> None:
    life.reply(0, "a", 3600)
    earlier = Token("a", Instant(START.wall, START.boot - 3000), 3600.0)
    life.state = life.state.dated(earlier)
    assert (life.ends, life.lost_at) == (600, 3600)


@given(
    replies=st.lists(
        st.tuples(
            st.floats(0.5, 4000),
            st.sampled_from(["a", "b"]),
            st.floats(-10, 4000),
            st.sampled_from(["named", "zero", "unnamed"]),
            st.floats(0, 12),
        ),
        max_size=40,
    )
)
def test_no_sequence_of_replies_exceeds_a_known_expiry_or_causes_early_requests(
    replies: list[tuple[float, str, float, Named, float]],
) -> None:
    life, at = Life(), 0.0
    for wait, text, lifetime, named, took in replies:
        at += wait
        before = life.state
        stated = lifetime if named == "named" else DEFAULT
        accepted = life.reply(at, text, stated, named, took)
        assert accepted.due >= START.boot + at + 1 - 1e-6 or accepted.kind == "new"
        assert accepted.due < inf
        held = before.current is not None and before.current.access_token == text
        if held and START.boot + at < before.ends and not before.zero:
            assert life.state.ends <= before.ends
        if accepted.kind not in {"expired", "kept"}:
            assert life.state.token is not None
            assert life.state.token.access_token == text
