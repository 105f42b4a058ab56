"""All decisions about time, as functions of their arguments. Pure; all values in seconds.

A refresh is due its *lead* before expiry. The lead is a share of the lifetime or a fixed number of seconds, long
enough for readers that cache the file, and at most half the lifetime. Jitter only makes a refresh earlier. The wait
after a failure depends on its kind: a transient failure is retried within seconds, a malformed reply within minutes.
Admission decides how long a refused client waits, because its targets wait together.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final, assert_never

from bearerd.grant.outcome import Failure, Malformed, RateLimited, Refused, Transient, Unsent
from bearerd.model import RefreshBefore
from bearerd.terms import Instant, Token

LEAST_BETWEEN_ATTEMPTS: Final = 1.0
"""The shortest time between two attempts of a target, so that a lifetime of 0 does not cause a loop."""

LONGEST_WAIT: Final = 3600.0
"""The longest wait of all: the longest pace of a refused client, and the longest Retry-After that is honoured."""

# A share of the lifetime alone would refresh a short-lived token in its last seconds.
_LEAST_LEAD_OF_SHARE: Final = 60.0
_JITTER_SHARE: Final = 0.1  # simulated: 1000 daemons restarted together send 10 requests a second instead of 1000
# Spreads 1000 daemons that all got `Retry-After: 30`.
_LATER_SHARE: Final = 0.2

_TRANSIENT_FIRST: Final = 1.0
_TRANSIENT_CEILING: Final = 60.0  # every target recovers within a minute of an outage
_SHARE_OF_REMAINING: Final = 0.25  # at least four attempts fit into the time that is left
_RATE_LIMITED_FIRST: Final = 60.0  # most limits are per minute
_RATE_LIMITED_CEILING: Final = 600.0  # a limit may be per hour or per day, and this makes six attempts an hour
# A person has to correct the provider or the config. Every target recovers within ten minutes of that.
_MALFORMED_FIRST: Final = 60.0
_MALFORMED_CEILING: Final = 600.0
_UNSENT_FIRST: Final = 10.0  # a retry only reads a file, and sends nothing
_UNSENT_CEILING: Final = 60.0  # most sources are watched, and a change is tried at once; a command is not

# Late enough for a short outage to be over, early enough for one request with its timeout.
LATEST_LAST_ATTEMPT: Final = 15.0
"""Seconds before expiry."""
EARLIEST_LAST_ATTEMPT: Final = 30.0
"""Seconds before expiry."""

# A smaller difference is NTP at work. Above 30 s one of the two clocks is wrong, and it is unknown which.
STEP: Final = 5.0
CLOCKS_DISAGREE: Final = 30.0

LOST_AFTER: Final = 600.0
"""Seconds without any token after which a transient failure counts as lasting. A network may be late after a boot."""

# Limits a target to twenty turns a second, whatever is wrong.
_BETWEEN_TURNS: Final = 0.05

_PUBLISH_CEILING: Final = 10.0  # a deleted or altered file is restored within 10 s


# -- the lead ----------------------------------------------------------------------------------------


def lead(lifetime: float, refresh_before: RefreshBefore, least: float) -> float:
    """Seconds before expiry at which a refresh is due, without jitter; at least `least`, up to half the lifetime."""
    if refresh_before.seconds is not None:
        wanted = refresh_before.seconds
    else:
        wanted = max(refresh_before.share * lifetime, _LEAST_LEAD_OF_SHARE)
    return max(0.0, min(max(wanted, least), lifetime / 2))


def planned(lifetime: float, refresh_before: RefreshBefore, least: float, max_age: float) -> float:
    """Seconds after issue at which a refresh is due, without jitter; at most `max_age`."""
    return max(0.0, min(lifetime - lead(lifetime, refresh_before, least), max_age))


def due_after_issue(
    token: Token,
    refresh_before: RefreshBefore,
    least: float,
    last_attempt: float,
    dice: float,
    max_age: float,
) -> float:
    """When (boot clock) the refresh of a token is due; `last_attempt` is when the token was requested."""
    age = planned(token.lifetime, refresh_before, least, max_age)
    # The jitter of a 60-day token may be hours, but at most a tenth of `max_age`.
    jitter = _JITTER_SHARE * dice * min(lead(token.lifetime, refresh_before, least), max_age)
    return max(token.obtained.boot + age - jitter, last_attempt + LEAST_BETWEEN_ATTEMPTS)


def halfway(now: float, expires: float) -> float:
    """When to ask again for a token that the provider returned again: half-way to its expiry, finally at its expiry."""
    remaining = expires - now
    half = remaining / 2
    return now + (half if half >= LEAST_BETWEEN_ATTEMPTS else max(LEAST_BETWEEN_ATTEMPTS, remaining))


def first_attempt(remaining: float, spread: float, dice: float) -> float:
    """Seconds after a start at which a target whose refresh is due makes its first attempt.

    Without a valid token it waits for a random part of `spread`; with one, at most for half of what remains of it.
    """
    return dice * (min(spread, remaining / 2) if remaining > 0 else spread)


# -- failures ----------------------------------------------------------------------------------------


def wait_after(failure: Failure, count: int, remaining: float, dice: float) -> float:
    """Seconds until the next attempt after the `count`-th (from 1) failure of this kind, except refusals.

    `remaining`: seconds until the current token expires, 0 without a token.
    """
    later = 1 + _LATER_SHARE * dice
    match failure:
        case Transient():
            wait = dice * _doubling(_TRANSIENT_FIRST, count, _TRANSIENT_CEILING)
            wait = min(wait, _longest_wait(remaining))
            if failure.retry_after is not None:
                wait = max(wait, min(failure.retry_after, LONGEST_WAIT) * later)
        case RateLimited():
            if failure.retry_after is None:
                # The wait doubles, because the limit may be as low as ten in eight hours.
                wait = _doubling(_RATE_LIMITED_FIRST, count, _RATE_LIMITED_CEILING) * later
            else:
                backoff = _doubling(_TRANSIENT_FIRST, count, _TRANSIENT_CEILING)
                wait = max(min(failure.retry_after, LONGEST_WAIT), backoff) * later
        case Malformed():
            wait = _doubling(_MALFORMED_FIRST, count, _MALFORMED_CEILING)
        case Unsent() | Refused():  # how long a refused client waits is decided by admission
            wait = _doubling(_UNSENT_FIRST, count, _UNSENT_CEILING)
        case _:
            assert_never(failure)
    return max(LEAST_BETWEEN_ATTEMPTS, wait)


def last_attempt(now: float, expires: float, dice: float) -> float | None:
    """When to make the last attempt before expiry; None if it is too late for one."""
    at = expires - (LATEST_LAST_ATTEMPT + (EARLIEST_LAST_ATTEMPT - LATEST_LAST_ATTEMPT) * dice)
    if at < now + LEAST_BETWEEN_ATTEMPTS:
        at = now + (expires - now) / 2
    return at if at >= now + LEAST_BETWEEN_ATTEMPTS else None


def wait_after_publish_fault(count: int) -> float:
    """Seconds until a failed write is retried."""
    return _doubling(1.0, count, _PUBLISH_CEILING)


def _longest_wait(remaining: float) -> float:
    """The longest wait after a transient failure, given the remaining seconds of the current token."""
    return max(LEAST_BETWEEN_ATTEMPTS, remaining * _SHARE_OF_REMAINING) if remaining > 0 else math.inf


def _doubling(first: float, count: int, ceiling: float) -> float:
    # The exponent is bounded: 2.0 ** 1024 is an error.
    return min(first * 2.0 ** min(max(count - 1, 0), 32), ceiling)


def is_lost(failure: Failure, count: int, remaining: float, lasted: float) -> bool:
    """Whether `on_failure` has to run after `count` such failures in `lasted` seconds.

    A transient failure does not matter while a token is valid, nor for a while after a boot without network. A load
    balancer may refuse once in passing, so a refusal counts from the second one while a token is valid.
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
    """The earliest of these times, but always later than `now`."""
    return max(min((moment for moment in moments if moment is not None), default=math.inf), now + _BETWEEN_TURNS)


# -- two clocks --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Dated:
    """A token with corrected times, and how far the two clocks were apart: over `STEP`, over `CLOCKS_DISAGREE`."""

    token: Token
    disagreed: bool
    stepped: bool


def redate(token: Token, now: Instant) -> Dated:
    """Correct a token's times by the current clocks.

    After a step of the wall clock, or a reboot, which resets the boot clock, the two readings of its expiry differ. Up
    to 30 s the boot clock counts. Beyond that it is unknown which clock is wrong: the earlier expiry counts, and the
    token is refreshed.
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
    return Dated(replace(token, obtained=obtained), disagreed=disagreed, stepped=True)
