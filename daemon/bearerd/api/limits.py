"""Limits on the connections of the local API."""

from __future__ import annotations

import resource
from dataclasses import dataclass
from typing import Final

# The usual soft limit of descriptors, for which these numbers are chosen.
_USUAL: Final = 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """The connections of one listener: together a quarter of the usual 1024 descriptors."""

    incomplete: int = 96
    """Requests that are being read, at most 8 KiB each: enough that a flood does not displace a request in the
    milliseconds that it takes to arrive."""
    small: int = 4
    """Threads, which wait only for the daemon."""
    small_waiting: int = 128
    large: int = 8
    """Threads: for a scraper or two, a page and a few commands."""
    large_waiting: int = 16

    @classmethod
    def for_descriptors(cls, number: int) -> Limits:
        """Smaller limits for a process with fewer descriptors, in proportion."""
        usual, number = cls(), _USUAL if number < 0 else min(number, _USUAL)

        def share(limit: int) -> int:
            return max(2, limit * number // _USUAL)

        return cls(
            incomplete=share(usual.incomplete),
            small=usual.small,
            small_waiting=share(usual.small_waiting),
            large=share(usual.large),
            large_waiting=share(usual.large_waiting),
        )

    @classmethod
    def of_this_process(cls) -> Limits:
        """The limits for RLIMIT_NOFILE of this process."""
        return cls.for_descriptors(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
