"""What the API asks of the daemon."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from bearerd.api.status import Status

Answer = Literal["asked", "newer", "later", "unknown"]


@dataclass(frozen=True, slots=True)
class Asked:
    """What came of a refresh request."""

    answer: Answer
    after: float = 0.0
    """Seconds after which the next request is accepted, for `later`."""
    grants: int = 0
    """The target's grants so far: the request is done, or has failed, after one more."""


class Daemon(Protocol):
    """The running daemon; called from several threads at once."""

    def alive(self) -> bool:
        """Whether the schedule runs; answers at once, even when the rest hangs."""
        ...

    def config_error(self) -> str | None:
        """Why a newer config is not in use; answers at once."""
        ...

    def status(self) -> Status:
        """The status of every token."""
        ...

    def refresh(self, name: str, instead_of: str | None) -> Asked:
        """Request a new token, unless the present one differs from `instead_of` (the start of its SHA-256)."""
        ...
