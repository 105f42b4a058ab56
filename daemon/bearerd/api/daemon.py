"""The interface between the API and the daemon."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from bearerd.api.status import Status
from bearerd.target_status import Hold

Answer = Literal["accepted", "newer", "later", "unknown"]


@dataclass(frozen=True, slots=True)
class Requested:
    """The answer to a refresh request."""

    answer: Answer
    after: float = 0.0
    """For `later`: seconds after which the next request is accepted."""
    grants: int = 0
    """The target's grants so far. The request has succeeded or failed after one more."""
    hold: Hold | None = None
    """What delays the refresh."""
    held_for: float = 0.0
    """Seconds for which it is delayed, as far as that is known; `inf` if an event decides."""


class Daemon(Protocol):
    """The running daemon. Several threads call it at once."""

    def alive(self) -> bool:
        """Whether the schedule runs. Answers at once, even while the rest hangs."""
        ...

    def config_error(self) -> str | None:
        """Why a newer config is not in use. Answers at once."""
        ...

    def status(self) -> Status:
        """The status of every token."""
        ...

    def refresh(self, name: str, instead_of: str | None) -> Requested:
        """Request a new token, unless the current one differs from `instead_of` (the start of its SHA-256)."""
        ...
