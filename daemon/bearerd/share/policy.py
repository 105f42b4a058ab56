"""Leases, fences, and what a daemon does without its fleet. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from math import inf
from typing import Final

from bearerd.share.types import GREATEST_FENCE
from bearerd.terms import WhenUnavailable

# Seconds that a lock outlasts its grant: the reply has to be read and stored.
_BESIDE_GRANT: Final = 2.0
# A shorter lease would end before an ordinary reply arrives.
_LEAST_LEASE: Final = 1.0
SHORTLY: Final = 15.0
"""Seconds before its token expires from which a daemon no longer waits: the latest last attempt (lifecycle/policy)."""
# Seconds for which a daemon without a valid token waits for the locks of others, one after another. If the provider
# never answers, each of them reports a failure after its timeout, which ends this count.
_PATIENCE: Final = 60.0
GATHERING: Final = 12.0
"""Seconds after a server is back in which the others connect to it: the longest wait of their links, and a timeout."""
# Seconds by which a lock may outlast the token. A lock is kept for a token that was returned again, and its provider
# may take this long to replace it.
_BESIDE_EXPIRY: Final = 10.0
# Seconds by which the clock of a promoted server may be ahead, and a limit may be longer than that of this machine.
_BESIDE_WAIT: Final = 60.0
# Microseconds: a day, by which the server's clock may have been set back.
_AHEAD: Final = 86400 * 10**6
# Microseconds. Two daemons that obtain a token by themselves at the same moment do not get the same fence. This is less
# than the time between two requests: the second token counts as newer, as the provider may have ended the first.
_AT_ONCE: Final = 1000
# The same for daemons whose clocks are behind. They count from the same number, whenever they obtained their tokens.
_BEHIND: Final = 100_000


def lease(grant: float, remaining: float) -> float:
    """Seconds for which a lock is taken: for one grant, and at most half of what remains of the held token.

    `grant`, here and below: the most seconds that a grant takes.
    """
    most = remaining / 2 if remaining > 0 else inf
    return max(_LEAST_LEASE, min(longest_lease(grant), most))


def longest_lease(grant: float) -> float:
    """The longest lease of a lock."""
    return grant + _BESIDE_GRANT


def own_fence(seen: int, wall: float, dice: float) -> int:
    """The fence of a token that a daemon obtained by itself at this time (wall clock).

    It is greater than each that the daemon has seen, and comparable with those of the server, which are its time.
    """
    by_clock = int(max(0.0, wall) * 1e6) + int(dice * _AT_ONCE)
    return min(max(seen + 1 + int(dice * _BEHIND), by_clock), GREATEST_FENCE)


def plausible(fence: int, seen: int, clock: float) -> bool:
    """Whether a server with this clock may have given this fence. `seen`: the greatest one that the daemon has seen.

    A writer to the server could name the greatest fence. If that were believed, there would be none for the next token.
    """
    return fence <= min(GREATEST_FENCE, max(seen, int(clock * 1e6)) + _AHEAD)


def credible(fence: int, seen: int, clock: float) -> bool:
    """Whether a server with this clock may give this fence to a daemon. `seen`: the greatest one that it has seen."""
    return seen < fence and plausible(fence, seen, clock)


def goes_alone(when_unavailable: WhenUnavailable, remaining: float, *, last: bool) -> bool:
    """Whether a daemon that cannot reach its fleet requests a token by itself.

    One that waits does so shortly before the expiry, also if a last attempt before returned the same token.
    """
    return when_unavailable == "alone" or remaining <= SHORTLY or last


def outlasted(ends: float | None, clock: float, remaining: float, *, last: bool) -> bool:
    """Whether a failure is to be ignored, because the wait that it contains is over.

    `ends` is the end of that wait, and `clock` the present, both by the server's clock. A failure that cannot be read
    is ignored for the last attempt only: otherwise, daemons with different keys would exceed the fleet's limit.
    """
    if ends is None:
        return last
    return (last or remaining <= 0) and clock > ends + _BESIDE_WAIT


def explained(windows: Iterable[float], grant: float, wait: float) -> bool:
    """Whether limits with these windows can make a daemon wait for `wait` seconds."""
    return wait <= max(windows, default=0.0) + longest_lease(grant) + _BESIDE_WAIT


def stuck(grant: float, remaining: float, wait: float, waited: float, *, last: bool) -> bool:
    """Whether a lock is to be ignored: its holder cannot be requesting the token.

    A lock is taken for one grant at most, or kept until the end of a token that was returned again. So one that
    outlasts both is wrong, and so are locks that end in no outcome for a minute while there is no valid token.
    """
    if remaining > 0 and not last:
        return False
    longest = max(longest_lease(grant), remaining + _BESIDE_EXPIRY)
    return wait > longest or (remaining <= 0 and waited >= _PATIENCE)
