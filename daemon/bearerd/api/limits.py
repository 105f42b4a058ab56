"""How many connections the local API takes at a time."""

from __future__ import annotations

import resource
from dataclasses import dataclass
from typing import Final

# Descriptors that these numbers are made for: the usual soft limit.
_USUAL: Final = 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """How many connections a listener may have; together a quarter of the usual 1024 descriptors."""

    incomplete: int = 96
    """Requests that are being read, at most 8 KiB each. Enough that a flood of connections does not drop a request
    in the milliseconds that it takes to arrive."""
    small: int = 4
    """Threads. They wait for nobody but the daemon."""
    small_waiting: int = 128
    large: int = 8
    """Threads: a scraper or two, a page, a few commands."""
    large_waiting: int = 16

    @classmethod
    def for_descriptors(cls, number: int) -> Limits:
        """Smaller in proportion where a process has fewer descriptors: the rest of the daemon needs some, too."""
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
        """By RLIMIT_NOFILE."""
        return cls.for_descriptors(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
