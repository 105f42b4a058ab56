"""The same token again, and other habits of providers: what each reply means beside the token that is held."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bearerd.grant.outcome import Issued, Malformed, Named, Transient
from bearerd.lifecycle.token_state import Accepted, TokenState, accept, resumed
from bearerd.model import Instant, Token
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
    """One target's replies, at moments counted from `START`."""

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
        """When it asks again."""
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


def test_a_new_token_is_refreshed_when_its_lead_begins(life: Life) -> None:
    assert life.reply(0, "a", 3600).kind == "new"
    assert (life.again, life.ends, life.lost_at) == (2880, 3600, 3600)
    assert life.reply(2880, "b", 100).kind == "new"
    assert (life.again, life.ends) == (2960, 2980)


def test_a_countdown_to_the_end_is_followed_to_the_end_and_then_each_second(life: Life) -> None:
    # Spring Security OAuth: the same token with whole seconds left, 0 in the last one; then another.
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
    assert at <= 3600.7 + 1  # dead for a second at most
    assert life.reply(at, "b", 3600).kind == "new"
    assert life.again == at + 2880


def test_of_0_for_a_token_whose_lifetime_was_named_no_default_comes(life: Life) -> None:
    life.reply(0, "a", 3600)
    life.zero(3599.5, "a")
    assert (life.ends, life.again) == (3599.5, 3600.5)


def test_a_token_at_its_end_is_asked_for_each_second_and_a_failure_after_ten(life: Life) -> None:
    life.reply(0, "a", 3600)
    outcomes = [(life.zero(3600 + second, "a"), life.again)[0] for second in range(12)]
    assert [accepted.failure is None for accepted in outcomes] == [True] * 10 + [False] * 2
    assert isinstance(outcomes[10].failure, Transient)
    assert life.lost_at == 3610


def test_a_token_first_seen_with_0_is_asked_about_once_more(life: Life) -> None:
    assert life.zero(0, "a").kind == "new"
    assert life.again == 2
    assert life.reply(2, "b", 3600).kind == "new"  # it was in its last second
    assert (life.again, life.state.never_named) == (2882, False)


def test_a_provider_that_names_no_lifetime_is_asked_about_it_once(life: Life) -> None:
    life.zero(0, "a")
    assert life.zero(2, "a").kind == "same"
    assert (life.again, life.ends) == (2880, 3600)
    assert life.zero(3600, "a").kind == "renewed"
    assert (life.again, life.ends) == (3600 + 2880, 7200)
    # Another one, without asking about it again.
    assert life.zero(6480, "b").kind == "new"
    assert life.again == 6480 + 2880


def test_a_provider_that_rotates_tokens_and_names_no_lifetime_is_asked_about_it_once(life: Life) -> None:
    life.zero(0, "a")
    assert life.zero(2, "b").kind == "new"
    assert life.again == 2 + 2880
    life.zero(2882, "c")
    assert life.again == 2882 + 2880


def test_before_the_known_expiry_nothing_prolongs_a_token(life: Life) -> None:
    life.reply(0, "a", 3600)
    for at, lifetime, named in ((2880, 3600, "named"), (3240, DEFAULT, "unnamed"), (3420, 86400, "named")):
        assert life.reply(at, "a", lifetime, named).kind == "same"  # type: ignore[arg-type]  # the table's names
        assert (life.ends, life.again) == (3600, at + (3600 - at) / 2)


def test_before_the_known_expiry_an_earlier_one_is_believed(life: Life) -> None:
    life.reply(0, "a", 3600)
    assert life.reply(2880, "a", 100).kind == "same"
    assert (life.ends, life.again) == (2980, 2930)
    assert life.state.token is not None
    assert life.state.token.lifetime == 100  # and files say so
    life.reply(2930, "a", 48)
    assert (life.ends, life.again) == (2978, 2954)
    assert life.state.token.lifetime == 100  # two seconds are no reason to write them anew


def test_the_last_request_before_the_known_expiry_is_at_the_expiry(life: Life) -> None:
    life.reply(0, "a", 3600)
    at = life.again
    while at < 3600:
        life.reply(at, "a", 3600)
        assert life.again >= at + 1
        at = life.again
    assert at == 3600


def test_at_the_known_expiry_a_token_with_a_new_lifetime_is_accepted_and_re_checked(life: Life) -> None:
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


def test_a_cache_that_answered_with_a_dead_token_is_found_out_at_the_next_re_check(life: Life) -> None:
    life.reply(0, "a", 3600)
    life.reply(3600, "a", 3600)
    assert life.again == 3601
    assert life.reply(3601, "b", 3600).kind == "new"
    assert (life.again, life.ends, life.state.sliding) == (3601 + 2880, 7201, False)


def test_a_sliding_token_is_re_checked_twice_and_one_that_is_new_forgets_it(life: Life) -> None:
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


def test_an_expiry_that_moves_by_less_than_5_s_is_a_countdown_and_not_for_ever(life: Life) -> None:
    life.reply(0, "a", 60)
    at, kinds = 60.0, []
    for _ in range(6):
        kinds.append(life.reply(at, "a", 1).kind)
        assert life.again == at + 1
        at = life.again
    assert kinds == ["same"] * 4 + ["renewed", "same"]


@pytest.mark.parametrize("named", ["named", "unnamed"])
def test_an_expired_record_only_tells_the_same_token_from_a_new_one(named: Named) -> None:
    life = Life(resumed(reply("a", 3600, -9000).token, START.boot, named=True, sliding=False))
    assert life.state.current is None
    assert life.state.remaining(START.boot) == 0
    assert life.reply(0, "a", 3600, named).kind == "renewed"
    assert (life.ends, life.again) == (3600, 1)
    assert life.state.current is not None


def test_a_token_that_was_dead_before_the_start_and_comes_with_0_is_at_its_end() -> None:
    life = Life(resumed(reply("a", 3600, -3599.5).token, START.boot + 1, named=True, sliding=False))
    assert life.zero(1, "a").kind == "at_end"
    assert life.again == 2
    assert life.state.current is None
    assert life.reply(2, "b").kind == "new"


@pytest.mark.parametrize(
    ("lifetime", "took"), [(-1.0, 0.0), (0.0, 0.0), (8.0, 9.0), (8.0, 8.0)], ids=["past", "now", "on its way", "just"]
)
def test_a_new_token_that_arrived_expired_is_transient_and_the_third_malformed(
    life: Life, lifetime: float, took: float
) -> None:
    life.reply(0, "a", 3600)
    held = life.state.token
    failures = [life.reply(2880 + count, f"b{count}", lifetime, took=took).failure for count in range(4)]
    assert [type(failure) for failure in failures] == [Transient, Transient, Malformed, Malformed]
    assert "clock says 2027-01-15T08:48:02Z, the provider's 2027-01-15T08:48:09Z" in str(failures[2])
    assert life.state.token is held
    life.reply(3000, "c", 3600)
    assert isinstance(life.reply(5880, "d", -1).failure, Transient)


def test_the_held_token_that_arrives_expired_is_at_its_end_and_no_failure(life: Life) -> None:
    life.reply(0, "a", 8)
    accepted = life.reply(7, "a", 1, took=2)
    assert (accepted.kind, accepted.failure) == ("at_end", None)


def test_while_its_provider_confirms_it_a_token_is_lost_ten_seconds_after_its_expiry(life: Life) -> None:
    life.reply(0, "a", 3600)
    life.reply(2880, "a", 3600)
    assert life.lost_at == 3600  # that was long before its end
    life.reply(3591, "a", 3600)
    assert life.lost_at == 3610


def test_a_clock_that_was_set_moves_the_expiry_but_not_the_loss(life: Life) -> None:
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
def test_whatever_comes_no_known_expiry_is_exceeded_and_no_request_comes_too_soon(
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
        if accepted.kind != "expired":
            assert life.state.token is not None
            assert life.state.token.access_token == text
