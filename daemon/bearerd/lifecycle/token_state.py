"""The token that a target holds, and its changes with each reply. Pure.

Many providers return a token that they issued before: until it expires (Spring Security OAuth, WSO2), as long as it is
in use (ServiceNow), or from a cache in front of them. So each reply is compared with the held token. Before the known
expiry, no reply extends a token. At the known expiry, a new lifetime for the same token is accepted and checked again
soon. A token at its end is not a failure as long as the provider may be about to replace it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import inf
from typing import Final, Literal

from bearerd.grant.outcome import ARRIVED_EXPIRED, Issued, Malformed, Transient
from bearerd.lifecycle.policy import LEAST_BETWEEN_ATTEMPTS, halfway
from bearerd.terms import Instant, Token, Unsure
from bearerd.timeformat import rfc3339

COUNTDOWN: Final = 5.0
"""Seconds. Rounding and latency move a counted-down expiry by less than this."""
GRACE: Final = 10.0
"""Seconds after the known expiry that a provider may take to replace a token that it just returned again."""
# A lifetime of 0 means that the token is in its last second, or that the provider never names a lifetime.
_ASK_ABOUT_ZERO: Final = 2.0
# Seconds after a renewal at which a sliding token is checked: soon, because of caches, and again later.
_SLIDING_CHECKS: Final = (5.0, 60.0)
# Slow replies or a clock that is being set may cause two in a row. A third one means that a clock is wrong.
_ARRIVED_EXPIRED: Final = 3

Kind = Literal["new", "same", "renewed", "at_end", "kept", "expired"]
"""The kind of a reply.

new      a token that was not held before
same     the held token, with the same or an earlier expiry
renewed  the held token at its expiry, with a new lifetime
at_end   the held token, which is at its end
kept     another token with a lifetime of 0, which is not taken, because the held one is valid until the next reply
expired  another token that had expired when it arrived: a failure
"""


@dataclass(frozen=True, slots=True)
class TokenState:
    """The token that a target holds. All times are those of the boot clock."""

    token: Token | None = None
    ends: float = -inf
    """The known expiry: the earliest one named so far, at most `COUNTDOWN` from the one in the files."""
    gone: float = -inf
    """The same, but not corrected by clock steps, so that a wrong clock never removes a file."""
    stale: bool = False
    """Whether it is from an expired record. It serves only to recognise the same token in a reply."""
    named: bool = True
    """Whether a reply named a lifetime for it."""
    sliding: bool = False
    """Whether the provider extended it for a whole round of re-checks. Kept in the record."""
    zero: bool = False
    """Whether the last reply had a lifetime of 0 for this token, which was new, or for one that was not taken. The next
    reply decides what that means."""
    never_named: bool = False
    """Whether this provider never names lifetimes."""
    round_ends: float | None = None
    """After a renewal: when its round of re-checks ends, which is when the refresh is due; `inf` after a restart, until
    the next reply."""
    confirmed: float = -inf
    """When the provider last returned this same token."""
    ended: float = inf
    """When the provider first returned the token at its end."""
    arrived_expired: int = 0
    """The number of tokens in a row that had expired when they arrived."""

    @property
    def current(self) -> Token | None:
        """The token for the files; None if there is none or it is stale."""
        return None if self.stale else self.token

    @property
    def unsure(self) -> Unsure:
        """Why its lifetime still has to be confirmed. Kept in the record."""
        if self.zero and not self.named:
            return "zero"
        return "" if self.round_ends is None else "renewed"

    def remaining(self, now: float) -> float:
        """Seconds until it expires."""
        return max(0.0, self.ends - now) if self.current is not None else 0.0

    @property
    def grace(self) -> float:
        """Seconds after the expiry in which the provider may replace a token that it just returned again."""
        return GRACE if self.confirmed >= self.gone - GRACE else 0.0

    def lost_at(self) -> float:
        """When the token counts as lost."""
        return self.gone + self.grace

    def dated(self, token: Token) -> TokenState:
        """The same token with corrected times."""
        return replace(self, token=token, ends=min(self.ends, token.expires.boot))


def resumed(token: Token, now: float, *, named: bool, sliding: bool, unsure: Unsure = "") -> TokenState:
    """The state of a token from its record, which may have expired."""
    ends = token.expires.boot
    state = TokenState(token, ends, gone=ends, stale=ends <= now, named=named, sliding=sliding)
    if state.stale:
        return state
    return replace(state, zero=unsure == "zero", round_ends=inf if unsure == "renewed" else None)


def next_check(state: TokenState, now: float) -> float:
    """When the next request has to confirm the lifetime; `inf` if none has to.

    After a renewal that is 1, 3, 7, 15 … s later, for a sliding token 5 and 60 s later, and finally at the end of the
    round. These moments follow from the token alone, so a restart changes none of them.
    """
    if state.token is None or not state.unsure:
        return inf
    obtained = state.token.obtained.boot
    if state.zero:
        return obtained + _ASK_ABOUT_ZERO
    end = min(state.round_ends if state.round_ends is not None else inf, state.ends)
    age = LEAST_BETWEEN_ATTEMPTS
    if state.sliding:
        age = next((check for check in _SLIDING_CHECKS if obtained + check > now), inf)
    while obtained + age <= now:
        age += age + LEAST_BETWEEN_ATTEMPTS
    return min(obtained + age, end)


@dataclass(frozen=True, slots=True)
class Accepted:
    """The kind of a reply, the state after it, and the time of the next request."""

    state: TokenState
    kind: Kind
    due: float
    """Boot clock. Without meaning after a failure."""
    failure: Transient | Malformed | None = None
    """The failure that replaces a success."""


def accept(
    state: TokenState, issued: Issued, now: Instant, refresh_due: Callable[[Token], float], skew: float | None = None
) -> Accepted:
    """Compare a reply with the held token.

    `refresh_due` returns when (boot clock) the refresh of a token is due. `skew`: seconds by which the provider's clock
    is ahead of ours, if known.
    """
    accepted = _accept(state, issued, now, refresh_due, skew)
    if accepted.kind == "expired":
        return accepted
    due, after = max(accepted.due, now.boot + LEAST_BETWEEN_ATTEMPTS), accepted.state
    gone = max(after.ends, after.gone) if accepted.kind == "same" else after.ends
    return replace(accepted, due=due, state=replace(after, gone=gone))


def _accept(
    state: TokenState, issued: Issued, now: Instant, refresh_due: Callable[[Token], float], skew: float | None
) -> Accepted:
    token, boot = issued.token, now.boot
    held = state.token is not None and state.token.access_token == token.access_token
    if issued.expired(boot):
        return _at_end(state, boot) if held else _arrived_expired(state, issued, now, skew)
    if not held:
        again = boot + _ASK_ABOUT_ZERO
        if issued.named == "zero" and state.named and not state.zero and not state.unsure and again < state.ends:
            return Accepted(replace(state, zero=True), "kept", again)
        return _new(state, issued, boot, refresh_due)
    if state.zero and not state.named:
        return _after_zero(state, issued, boot, refresh_due)
    state = replace(state, zero=False)
    if issued.named == "zero" and state.named:
        return _at_end(state, boot)
    if boot < state.ends:
        return _same(state, issued, boot, refresh_due)
    if issued.named == "named" and state.token is not None and _is_countdown(token, state.token):
        counted = replace(state, ends=token.expires.boot, confirmed=boot, ended=inf, arrived_expired=0)
        return Accepted(counted, "same", halfway(boot, counted.ends))
    return _renewed(state, issued, boot, refresh_due)


def _new(state: TokenState, issued: Issued, now: float, refresh_due: Callable[[Token], float]) -> Accepted:
    token = issued.token
    # A provider that sends 0 twice in a row never names lifetimes, whether it rotates tokens or not.
    never_named = issued.named == "zero" and (state.zero or state.never_named)
    after = TokenState(token, token.expires.boot, named=issued.named == "named", never_named=never_named)
    if issued.named == "zero" and not never_named:
        return Accepted(replace(after, zero=True), "new", now + _ASK_ABOUT_ZERO)
    return Accepted(after, "new", refresh_due(token))


def _after_zero(state: TokenState, issued: Issued, now: float, refresh_due: Callable[[Token], float]) -> Accepted:
    """The second reply with a token that first arrived with 0."""
    if issued.named == "named":
        after = TokenState(issued.token, issued.token.expires.boot, confirmed=now)
        return Accepted(after, "renewed", refresh_due(issued.token))
    after = replace(state, zero=False, never_named=True, confirmed=now)
    return Accepted(after, "same", _due(after.token, refresh_due))


def _same(state: TokenState, issued: Issued, now: float, refresh_due: Callable[[Token], float]) -> Accepted:
    """The held token, before its known expiry."""
    token, after = issued.token, replace(state, confirmed=now, ended=inf, arrived_expired=0)
    if issued.named == "named":
        # If a clock that was set moved the expiry forward, the provider's word counts, up to the end it named before.
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
    if after.round_ends == inf:
        after = replace(after, round_ends=_due(after.token, refresh_due))
    return Accepted(after, "same", next_check(after, now))


def _renewed(state: TokenState, issued: Issued, now: float, refresh_due: Callable[[Token], float]) -> Accepted:
    """The held token at its known expiry, with a new lifetime: accepted, and checked again soon."""
    token = issued.token
    after = TokenState(
        token,
        token.expires.boot,
        named=issued.named == "named",
        sliding=state.sliding,
        never_named=state.never_named,
        round_ends=refresh_due(token),
        confirmed=now,
    )
    if not after.named and after.never_named:  # without a lifetime, a re-check learns nothing
        after = replace(after, round_ends=None)
        return Accepted(after, "renewed", refresh_due(token))
    return Accepted(after, "renewed", next_check(after, now))


def _at_end(state: TokenState, now: float) -> Accepted:
    """The held token at its end: requested every second, and a failure if that takes too long."""
    after = replace(
        state, ends=min(state.ends, now), confirmed=now, ended=min(state.ended, now), round_ends=None, zero=False
    )
    failure = None
    if now - after.ended >= GRACE:
        failure = Transient("the provider still returns the expired token")
    return Accepted(after, "at_end", now + LEAST_BETWEEN_ATTEMPTS, failure)


def _arrived_expired(state: TokenState, issued: Issued, now: Instant, skew: float | None) -> Accepted:
    count = state.arrived_expired + 1
    failure: Transient | Malformed = Transient(ARRIVED_EXPIRED)
    if count >= _ARRIVED_EXPIRED:
        ours = rfc3339(now.wall)
        theirs = "the reply has no Date" if skew is None else f"the provider's {rfc3339(now.wall + skew)}"
        failure = Malformed(
            f"{count} new tokens in a row had expired when they arrived: this machine's clock says {ours}, {theirs}",
            hint=issued.why_expired(skew),
        )
    after = replace(state, arrived_expired=count)
    return Accepted(after, "expired", max(now.boot, issued.token.obtained.boot) + LEAST_BETWEEN_ATTEMPTS, failure)


def _is_countdown(token: Token, held: Token) -> bool:
    return token.expires.boot < held.expires.boot + COUNTDOWN


def _due(token: Token | None, refresh_due: Callable[[Token], float]) -> float:
    return refresh_due(token) if token is not None else -inf
