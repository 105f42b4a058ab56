"""When to ask: every decision over time, as functions of what they are handed. Pure; seconds throughout.

A refresh is due its *lead* before expiry. The lead is a share of the lifetime (or exactly some seconds),
long enough for readers that cache, and never over half the lifetime. Jitter only ever makes it earlier.
What follows a failure depends on its kind: what passes by itself is asked again within seconds, what was
refused within minutes, since failures lock accounts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from bearerd.grant.outcome import Failure, Malformed, RateLimited, Refused, Transient
from bearerd.model import Instant, RateLimit, RefreshBefore, Token

LEAST_BETWEEN_TURNS: Final = 1.0
"""Whatever a provider answers, no target asks again sooner: a lifetime of 0 is no loop."""

LONGEST_WAIT: Final = 3600.0
"""No wait is longer: the longest of a refused client, and of a Retry-After that is believed."""

# As a share of the lifetime alone a short-lived token would be asked for in its last seconds.
_LEAST_LEAD_OF_SHARE: Final = 60.0
_JITTER_SHARE: Final = 0.1  # 1000 daemons restarted together: from 1000 requests a second to 10, simulated

_TRANSIENT_CEILING: Final = 60.0  # everyone is back a minute after an outage
_SHARE_OF_REMAINING: Final = 0.25  # at least four attempts, whatever little time is left
_RATE_LIMITED_LEAST: Final = 60.0
_RATE_LIMITED_CEILING: Final = 600.0
_MALFORMED_FIRST: Final = 60.0
_MALFORMED_CEILING: Final = 600.0
_UNSENT_FIRST: Final = 10.0  # costs a look at a file, and nobody else anything
_UNSENT_CEILING: Final = 60.0

# Creditsafe locks an account for 5 minutes at five identical bad requests in 2 minutes.
REFUSALS: Final = RateLimit(count=4, window=120.0)
# Credentials that never worked are wrong until somebody corrects them.
_NEVER_WORKED_FIRST: Final = 300.0
# Credentials that worked: a load balancer's passing 401 is real, a revoked secret too.
_WORKED_BEFORE: Final = (30.0, 60.0, 120.0, 240.0, 300.0)
LAST_CHANCE: Final = 15.0
"""Seconds before expiry at which a refused client is tried once more."""

# A step of the wall clock below this is the clock being kept right; above 30 s one of the two clocks
# has missed something, and nobody can tell which.
STEP: Final = 5.0
CLOCKS_DISAGREE: Final = 30.0

LOST_AFTER: Final = 600.0
"""Seconds without any token after which a provider that does not answer is not about to."""

_PUBLISH_CEILING: Final = 10.0  # design.md: a file is put back within 10 s


# -- the lead ----------------------------------------------------------------------------------------


def lead(lifetime: float, refresh_before: RefreshBefore, max_staleness: float = 0.0) -> float:
    """How long before expiry a refresh is due, without jitter."""
    if refresh_before.seconds is not None:
        wanted = refresh_before.seconds
    else:
        wanted = max((refresh_before.share or 0.0) * lifetime, _LEAST_LEAD_OF_SHARE)
    return max(0.0, min(max(wanted, max_staleness), lifetime / 2))


def due_after_issue(
    token: Token, refresh_before: RefreshBefore, max_staleness: float, last_turn: float, dice: float
) -> float:
    """When (boot clock) the refresh of a token is due; `last_turn` is when it was asked for."""
    ahead = lead(token.lifetime, refresh_before, max_staleness) * (1 + _JITTER_SHARE * dice)
    return max(token.expires.boot - ahead, last_turn + LEAST_BETWEEN_TURNS)


def due_after_same(expires: float, now: float) -> float:
    """When to ask again after the provider gave the same token back: half-way to its expiry."""
    return now + max(LEAST_BETWEEN_TURNS, (expires - now) / 2)


# -- failures ----------------------------------------------------------------------------------------


def wait_after(failure: Failure, count: int, remaining: float, proven: bool, dice: float) -> float:
    """Seconds until the next attempt after the `count`-th (from 1) failure of this kind.

    `remaining` is how long the present token is still good (0 for none), `proven` whether these
    credentials ever got one.
    """
    if isinstance(failure, Transient | RateLimited) and failure.retry_after is not None:
        return min(max(failure.retry_after, LEAST_BETWEEN_TURNS), LONGEST_WAIT)
    match failure:
        case Refused(another_secret=True):
            return LEAST_BETWEEN_TURNS
        case Transient():
            wait = dice * _doubling(1.0, count, _TRANSIENT_CEILING)
            return max(LEAST_BETWEEN_TURNS, min(wait, longest_wait(remaining)))
        case RateLimited():
            # Twice as long each time: the limit may be one of ten in eight hours.
            least = _doubling(_RATE_LIMITED_LEAST, count, _RATE_LIMITED_CEILING)
            return least * (1 + _JITTER_SHARE * dice)
        case Malformed():
            return _doubling(_MALFORMED_FIRST, count, _MALFORMED_CEILING)
        case Refused() if not proven:
            return _doubling(_NEVER_WORKED_FIRST, count, LONGEST_WAIT)
        case Refused() if count <= len(_WORKED_BEFORE):
            return _WORKED_BEFORE[count - 1]
        case Refused():
            return _doubling(_WORKED_BEFORE[-1], count - len(_WORKED_BEFORE) + 1, LONGEST_WAIT)
        case _:
            return _doubling(_UNSENT_FIRST, count, _UNSENT_CEILING)


def longest_wait(remaining: float) -> float:
    """The longest that may be waited for what passes by itself while a token is good for that long."""
    return max(LEAST_BETWEEN_TURNS, remaining * _SHARE_OF_REMAINING) if remaining > 0 else math.inf


def is_last_chance(remaining: float) -> bool:
    """Whether a token that is good for that long is so near its expiry that its one more attempt is due."""
    return 0 < remaining <= LAST_CHANCE


def wait_after_publish_fault(count: int) -> float:
    """Seconds until files that could not be written are tried again."""
    return _doubling(1.0, count, _PUBLISH_CEILING)


def last_chance(now: float, due: float, expires: float) -> float:
    """When a refused target is tried next, if that may not be later than shortly before its expiry."""
    chance = expires - LAST_CHANCE
    return chance if now + LEAST_BETWEEN_TURNS <= chance < due else due


def _doubling(first: float, count: int, ceiling: float) -> float:
    # The exponent is bounded: 2.0 ** 1024 is an error.
    return min(first * 2.0 ** min(max(count - 1, 0), 32), ceiling)


def is_lost(failure: Failure, count: int, remaining: float, lasted: float) -> bool:
    """Whether somebody should be told that a token is not renewed, after `count` such failures in `lasted` seconds.

    What passes by itself is no trouble while a token is good, nor for a while at a start before the network is
    there. A refusal may be a load balancer's that passes: while a token is good it takes two.
    """
    match failure:
        case Refused(another_secret=True):
            return False
        case Transient() | RateLimited():
            return remaining <= 0 and lasted >= LOST_AFTER
        case _:
            return remaining <= 0 or count > 1


# -- budgets -----------------------------------------------------------------------------------------


def reserve(taken: Sequence[float], limit: RateLimit, now: float) -> float:
    """The first moment at which one more grant keeps within the limit.

    `taken` are the moments of earlier grants and of those already promised, in order. A window of the
    limit's length that begins at any of them holds at most `count`.
    """
    if len(taken) < limit.count:
        return now
    return max(now, taken[-limit.count] + limit.window)


def forget(taken: Sequence[float], limit: RateLimit, now: float) -> list[float]:
    """The moments that still matter."""
    return [moment for moment in taken if moment > now - limit.window]


# -- two clocks --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Dated:
    """A token as the clocks have it now: `token` with times that agree, and whether they had not."""

    token: Token
    disagreed: bool
    stepped: bool


def redate(token: Token, now: Instant) -> Dated:
    """A token's times by the clocks as they are now.

    After a step of the wall clock (or a restart of the machine, which starts the boot clock anew) the two
    readings of its expiry differ. Up to 30 s the boot clock is right. Beyond, nobody knows: the earlier
    expiry counts, and the token is to be refreshed.
    """
    by_wall = min(token.expires.wall - now.wall, token.lifetime)
    by_boot = min(token.expires.boot - now.boot, token.lifetime)
    off = abs((token.expires.wall - now.wall) - (token.expires.boot - now.boot))
    if off <= STEP:
        return Dated(token, disagreed=False, stepped=False)
    disagreed = off > CLOCKS_DISAGREE
    remaining = min(by_wall, by_boot) if disagreed else by_boot
    age = token.lifetime - remaining
    obtained = Instant(now.wall - age, now.boot - age)
    moved = Token(
        access_token=token.access_token,
        obtained=obtained,
        lifetime=token.lifetime,
        token_type=token.token_type,
        scope=token.scope,
        extra=token.extra,
    )
    return Dated(moved, disagreed=disagreed, stepped=True)
