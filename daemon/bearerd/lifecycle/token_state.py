"""What is known of the token that a target holds, and what a further reply says of it. Pure.

Many providers answer with the token that they issued before: until it expires (Spring Security OAuth, WSO2), for
as long as it is used (ServiceNow), or out of a cache in front of them. So a reply is compared with the token that is
held. Before the known expiry nothing prolongs a token; at the known expiry a provider that still names a lifetime is
believed, and asked again soon; and a token at its end is no failure for as long as the provider may be about to
replace it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import inf
from typing import Final, Literal

from bearerd.grant.outcome import Issued, Malformed, Transient
from bearerd.lifecycle.policy import LEAST_BETWEEN_ATTEMPTS, halfway
from bearerd.model import Instant, Token
from bearerd.words import rfc3339

COUNTDOWN: Final = 5.0
"""Seconds. An expiry that moves by less moved by rounding and by the time that replies take."""
GRACE: Final = 10.0
"""Seconds after the known expiry for which a provider that just confirmed a token may take to replace it."""
# A token that came with a lifetime of 0 is in its last second, or its provider never names one.
_ASK_ABOUT_ZERO: Final = 2.0
# Seconds after a renewal at which a token of a provider that is known to prolong tokens is asked for once more.
_SLIDING_CHECKS: Final = (5.0, 60.0)
# Two may be slow replies or a clock that is being set; a third is a clock that is wrong.
_ARRIVED_EXPIRED: Final = 3

Kind = Literal["new", "same", "renewed", "at_end", "expired"]
"""What a reply was.

new      a token that was not held before
same     the token that is held: nothing changed, or its expiry is earlier than was known
renewed  the token that is held, at its expiry, with a new lifetime
at_end   the token that is held, which is at its end
expired  another token, which had expired when it arrived: a failure
"""


@dataclass(frozen=True, slots=True)
class TokenState:
    """The token that a target holds; moments are those of the boot clock."""

    token: Token | None = None
    ends: float = -inf
    """The known expiry: the earliest that was named, at most `COUNTDOWN` from the one that files show."""
    gone: float = -inf
    """The same, but never moved by a clock that was set: a wrong clock removes no file."""
    stale: bool = False
    """Whether it is from a record that had expired: good for nothing but to be known again."""
    named: bool = True
    """Whether a reply named a lifetime for it."""
    sliding: bool = False
    """Whether the provider prolonged it for a whole round: kept in its record."""
    zero: bool = False
    """Whether it came with a lifetime of 0: the next reply tells what that means."""
    never_named: bool = False
    """Whether this provider names no lifetimes."""
    round_ends: float | None = None
    """After a renewal: when the refresh is due with which its round of re-checks is complete."""
    renewed: float = 0.0
    """When it was renewed."""
    checks: int = 0
    """How many re-checks of this round were made."""
    confirmed: float = -inf
    """When the provider last answered with this same token."""
    ended: float = inf
    """Since when the provider answers with a token that is at its end."""
    arrived_expired: int = 0
    """How many tokens in a row had expired when they arrived."""

    @property
    def current(self) -> Token | None:
        """The token that files are made from."""
        return None if self.stale else self.token

    def remaining(self, now: float) -> float:
        """For how many seconds it is still good."""
        return max(0.0, self.ends - now) if self.current is not None else 0.0

    @property
    def grace(self) -> float:
        """Seconds after the expiry in which the provider, which just confirmed the token, may replace it."""
        return GRACE if self.confirmed >= self.gone - GRACE else 0.0

    def lost_at(self) -> float:
        """From when on the token counts as lost."""
        return self.gone + self.grace

    def dated(self, token: Token) -> TokenState:
        """The same token with its times by clocks that were set."""
        return replace(self, token=token, ends=min(self.ends, token.expires.boot))


def resumed(token: Token, now: float, *, named: bool, sliding: bool) -> TokenState:
    """The state of a token from its record, also of one that has expired."""
    ends = token.expires.boot
    return TokenState(token, ends, gone=ends, stale=ends <= now, named=named, sliding=sliding)


@dataclass(frozen=True, slots=True)
class Accepted:
    """What a reply was, the state after it, and when to ask again."""

    state: TokenState
    kind: Kind
    due: float
    """Boot clock; meaningless after a failure."""
    failure: Transient | Malformed | None = None
    """In place of a success."""


def accept(
    state: TokenState, issued: Issued, now: Instant, refresh_due: Callable[[Token], float], skew: float | None = None
) -> Accepted:
    """What a reply says, compared with the token that is held.

    `refresh_due` says when (boot clock) the refresh of a token is due. `skew` is by how many seconds the
    provider's clock is ahead of ours, if that is known.
    """
    accepted = _accept(state, issued, now, refresh_due, skew)
    if accepted.kind == "expired":
        return accepted
    after = accepted.state
    gone = max(after.ends, after.gone) if accepted.kind == "same" else after.ends
    return replace(accepted, state=replace(after, gone=gone))


def _accept(
    state: TokenState, issued: Issued, now: Instant, refresh_due: Callable[[Token], float], skew: float | None
) -> Accepted:
    token, boot = issued.token, now.boot
    held = state.token is not None and state.token.access_token == token.access_token
    if issued.named == "named" and token.expires.boot <= boot:
        return _at_end(state, boot) if held else _arrived_expired(state, token, now, skew)
    if not held:
        return _new(state, issued, boot, refresh_due)
    if state.zero:
        return _after_zero(state, issued, boot, refresh_due)
    if issued.named == "zero" and state.named:
        return _at_end(state, boot)
    if boot < state.ends:
        return _same(state, issued, boot)
    if issued.named == "named" and state.token is not None and _is_countdown(token, state.token):
        counted = replace(state, ends=token.expires.boot, confirmed=boot, ended=inf, arrived_expired=0)
        return Accepted(counted, "same", halfway(boot, counted.ends))
    return _renewed(state, issued, boot, refresh_due)


def _new(state: TokenState, issued: Issued, now: float, refresh_due: Callable[[Token], float]) -> Accepted:
    token = issued.token
    # Two in a row that came with 0 are of a provider that names no lifetimes, whether it rotates tokens or not.
    never_named = issued.named == "zero" and (state.zero or state.never_named)
    after = TokenState(token, token.expires.boot, named=issued.named == "named", never_named=never_named)
    if issued.named == "zero" and not never_named:
        return Accepted(replace(after, zero=True), "new", now + _ASK_ABOUT_ZERO)
    return Accepted(after, "new", refresh_due(token))


def _after_zero(state: TokenState, issued: Issued, now: float, refresh_due: Callable[[Token], float]) -> Accepted:
    """The second reply with a token that first came with 0."""
    if issued.named == "named":
        after = TokenState(issued.token, issued.token.expires.boot, confirmed=now)
        return Accepted(after, "renewed", max(refresh_due(issued.token), now + LEAST_BETWEEN_ATTEMPTS))
    after = replace(state, zero=False, never_named=True, confirmed=now)
    return Accepted(after, "same", max(_due(after.token, refresh_due), now + LEAST_BETWEEN_ATTEMPTS))


def _same(state: TokenState, issued: Issued, now: float) -> Accepted:
    """The token that is held, before its known expiry."""
    token, after = issued.token, replace(state, confirmed=now, ended=inf, arrived_expired=0)
    if issued.named == "named":
        # Where a clock that was set brought the expiry forward, the provider knows better, up to what it named before.
        ends = min(token.expires.boot, max(state.ends, state.gone))
        if ends != state.ends:
            after = replace(after, ends=ends, gone=ends, named=True)
        if abs(ends - state.ends) > COUNTDOWN:
            after = replace(after, token=replace(token, lifetime=ends - token.obtained.boot))
    if after.round_ends is None:
        return Accepted(after, "same", halfway(now, after.ends))
    if now >= after.round_ends:
        after = replace(after, sliding=True, round_ends=None)
        return Accepted(after, "same", halfway(now, after.ends))
    after = replace(after, checks=after.checks + 1)
    return Accepted(after, "same", _next_check(after, now))


def _renewed(state: TokenState, issued: Issued, now: float, refresh_due: Callable[[Token], float]) -> Accepted:
    """The token that is held, at its known expiry, with a new lifetime: believed, and asked about again soon."""
    token = issued.token
    after = TokenState(
        token,
        token.expires.boot,
        named=issued.named == "named",
        sliding=state.sliding,
        never_named=state.never_named,
        round_ends=refresh_due(token),
        renewed=now,
        confirmed=now,
    )
    if not after.named and after.never_named:  # its bytes say nothing of its end: there is nothing to re-check
        after = replace(after, round_ends=None)
        return Accepted(after, "renewed", refresh_due(token))
    return Accepted(after, "renewed", _next_check(after, now))


def _next_check(state: TokenState, now: float) -> float:
    """When the next re-check of a round is due: after 1, 2, 4 … s, of a sliding token after 5 and 60 s."""
    end = state.round_ends if state.round_ends is not None else state.ends
    if not state.sliding:
        wait = LEAST_BETWEEN_ATTEMPTS * 2.0 ** min(state.checks, 32)
        return max(min(now + wait, end), now + LEAST_BETWEEN_ATTEMPTS)
    at = state.renewed + _SLIDING_CHECKS[state.checks] if state.checks < len(_SLIDING_CHECKS) else end
    return max(min(at, end), now + LEAST_BETWEEN_ATTEMPTS)


def _at_end(state: TokenState, now: float) -> Accepted:
    """The token that is held, which is at its end: asked for each second, until that took too long."""
    after = replace(
        state, ends=min(state.ends, now), confirmed=now, ended=min(state.ended, now), round_ends=None, zero=False
    )
    failure = None
    if now - after.ended >= GRACE:
        failure = Transient("the provider still answers with the token that has expired")
    return Accepted(after, "at_end", now + LEAST_BETWEEN_ATTEMPTS, failure)


def _arrived_expired(state: TokenState, token: Token, now: Instant, skew: float | None) -> Accepted:
    count = state.arrived_expired + 1
    failure: Transient | Malformed = Transient("the new token had expired when it arrived")
    if count >= _ARRIVED_EXPIRED:
        ours = rfc3339(now.wall)
        theirs = "the reply names none" if skew is None else f"the provider's {rfc3339(now.wall + skew)}"
        failure = Malformed(
            f"{count} new tokens in a row had expired when they arrived: this machine's clock says {ours}, {theirs}",
            hint="compare this machine's clock with the provider's",
        )
    after = replace(state, arrived_expired=count)
    return Accepted(after, "expired", max(now.boot, token.obtained.boot) + LEAST_BETWEEN_ATTEMPTS, failure)


def _is_countdown(token: Token, held: Token) -> bool:
    return token.expires.boot < held.expires.boot + COUNTDOWN


def _due(token: Token | None, refresh_due: Callable[[Token], float]) -> float:
    return refresh_due(token) if token is not None else -inf
