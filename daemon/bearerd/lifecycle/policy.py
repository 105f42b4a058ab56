"""When to ask: every decision over time, as functions of what they are handed. Pure; seconds throughout.

A refresh is due its *lead* before expiry. The lead is a share of the lifetime (or exactly some seconds),
long enough for readers that cache, and never over half the lifetime. Jitter only ever makes it earlier.
The wait after a failure depends on its kind: a transient failure is retried within seconds, a malformed reply within
minutes. How long a refused client waits is decided by admission, since its targets wait together.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, assert_never

from bearerd.grant.outcome import Failure, Malformed, RateLimited, Refused, Transient, Unsent
from bearerd.model import Instant, RefreshBefore, Token

LEAST_BETWEEN_ATTEMPTS: Final = 1.0
"""Whatever a provider answers, no target asks again sooner: a lifetime of 0 is no loop."""

LONGEST_WAIT: Final = 3600.0
"""No wait is longer: the longest pace of a refused client, and the longest Retry-After that is believed."""

# As a share of the lifetime alone a short-lived token would be asked for in its last seconds.
_LEAST_LEAD_OF_SHARE: Final = 60.0
_JITTER_SHARE: Final = 0.1  # 1000 daemons restarted together: from 1000 requests a second to 10, simulated
# Of 1000 daemons that all read `Retry-After: 30` each comes at a moment of its own.
_LATER_SHARE: Final = 0.2

_TRANSIENT_FIRST: Final = 1.0
_TRANSIENT_CEILING: Final = 60.0  # everyone is back a minute after an outage
_SHARE_OF_REMAINING: Final = 0.25  # at least four attempts, whatever little time is left
_RATE_LIMITED_FIRST: Final = 60.0
_RATE_LIMITED_CEILING: Final = 600.0
_MALFORMED_FIRST: Final = 60.0
_MALFORMED_CEILING: Final = 600.0
_UNSENT_FIRST: Final = 10.0  # costs a look at a file, and nobody else anything
_UNSENT_CEILING: Final = 60.0

# Late enough that a short outage is over, early enough that one request and its timeout fit.
_LAST_ATTEMPT: Final = (15.0, 30.0)

# A step of the wall clock below this is the clock being kept right; above 30 s one of the two clocks
# has missed something, and nobody can tell which.
STEP: Final = 5.0
CLOCKS_DISAGREE: Final = 30.0

LOST_AFTER: Final = 600.0
"""Seconds without any token after which a provider that does not answer is not about to."""

# No moment is worth a turn sooner: whatever is wrong, a target has twenty turns a second at most.
_BETWEEN_TURNS: Final = 0.05

_PUBLISH_CEILING: Final = 10.0  # design.md: a file is put back within 10 s


# -- the lead ----------------------------------------------------------------------------------------


def lead(lifetime: float, refresh_before: RefreshBefore, max_staleness: float = 0.0) -> float:
    """How long before expiry a refresh is due, without jitter."""
    if refresh_before.seconds is not None:
        wanted = refresh_before.seconds
    else:
        wanted = max((refresh_before.share or 0.0) * lifetime, _LEAST_LEAD_OF_SHARE)
    return max(0.0, min(max(wanted, max_staleness), lifetime / 2))


def planned(
    lifetime: float, refresh_before: RefreshBefore, max_staleness: float = 0.0, max_age: float = math.inf
) -> float:
    """How long after it was issued a token's refresh is due, without jitter; `max_age` at the latest."""
    return max(0.0, min(lifetime - lead(lifetime, refresh_before, max_staleness), max_age))


def due_after_issue(
    token: Token,
    refresh_before: RefreshBefore,
    max_staleness: float,
    last_attempt: float,
    dice: float,
    max_age: float = math.inf,
) -> float:
    """When (boot clock) the refresh of a token is due; `last_attempt` is when it was asked for."""
    age = planned(token.lifetime, refresh_before, max_staleness, max_age)
    # The jitter of a token of 60 days may be hours, but a part of what `max_age` leaves of it.
    jitter = _JITTER_SHARE * dice * min(lead(token.lifetime, refresh_before, max_staleness), max_age)
    return max(token.obtained.boot + age - jitter, last_attempt + LEAST_BETWEEN_ATTEMPTS)


def halfway(now: float, expires: float) -> float:
    """When to ask again after the provider confirmed the same token: half-way to its expiry, at last at the expiry."""
    remaining = expires - now
    half = remaining / 2
    return now + (half if half >= LEAST_BETWEEN_ATTEMPTS else max(LEAST_BETWEEN_ATTEMPTS, remaining))


# -- failures ----------------------------------------------------------------------------------------


def wait_after(failure: Failure, count: int, remaining: float, dice: float) -> float:
    """Seconds until the next attempt after the `count`-th (from 1) failure of this kind that was no refusal.

    `remaining` is how long the present token is still good, 0 for none.
    """
    later = 1 + _LATER_SHARE * dice
    match failure:
        case Transient():
            wait = dice * _doubling(_TRANSIENT_FIRST, count, _TRANSIENT_CEILING)
            wait = min(wait, _longest_wait(remaining))
            if failure.retry_after is not None:
                wait = max(wait, min(failure.retry_after, LONGEST_WAIT) * later)
        case RateLimited(retry_after=None):
            # Twice as long each time: the limit may be one of ten in eight hours.
            wait = _doubling(_RATE_LIMITED_FIRST, count, _RATE_LIMITED_CEILING) * later
        case RateLimited():
            backoff = _doubling(_TRANSIENT_FIRST, count, _TRANSIENT_CEILING)
            wait = max(min(failure.retry_after or 0.0, LONGEST_WAIT), backoff) * later
        case Malformed():
            wait = _doubling(_MALFORMED_FIRST, count, _MALFORMED_CEILING)
        case Unsent() | Refused():  # how long a refused client waits is decided by admission
            wait = _doubling(_UNSENT_FIRST, count, _UNSENT_CEILING)
        case _:
            assert_never(failure)
    return max(LEAST_BETWEEN_ATTEMPTS, wait)


def last_attempt(now: float, expires: float, dice: float) -> float | None:
    """When a token that is not renewed is asked for one more time before it expires; None where it is too late."""
    least, most = _LAST_ATTEMPT
    at = expires - (least + (most - least) * dice)
    if at < now + LEAST_BETWEEN_ATTEMPTS:
        at = now + (expires - now) / 2
    return at if at >= now + LEAST_BETWEEN_ATTEMPTS else None


def wait_after_publish_fault(count: int) -> float:
    """Seconds until files that could not be written are tried again."""
    return _doubling(1.0, count, _PUBLISH_CEILING)


def _longest_wait(remaining: float) -> float:
    """The longest wait after a transient failure while a token is good for that long."""
    return max(LEAST_BETWEEN_ATTEMPTS, remaining * _SHARE_OF_REMAINING) if remaining > 0 else math.inf


def _doubling(first: float, count: int, ceiling: float) -> float:
    # The exponent is bounded: 2.0 ** 1024 is an error.
    return min(first * 2.0 ** min(max(count - 1, 0), 32), ceiling)


def is_lost(failure: Failure, count: int, remaining: float, lasted: float) -> bool:
    """Whether somebody should be told that a token is not renewed, after `count` such failures in `lasted` seconds.

    A transient failure is no trouble while a token is good, nor for a while at a start before the network is
    there. A single refusal may be a load balancer's: while a token is good it takes two.
    """
    match failure:
        case Refused(another_secret=True):
            return False
        case Transient() | RateLimited():
            return remaining <= 0 and lasted >= LOST_AFTER
        case Refused() | Malformed() | Unsent():
            return remaining <= 0 or count > 1
        case _:
            assert_never(failure)


def next_moment(now: float, *moments: float | None) -> float:
    """The earliest of the moments at which there is something to do, and always a later one than `now`."""
    return max(min((moment for moment in moments if moment is not None), default=math.inf), now + _BETWEEN_TURNS)


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
