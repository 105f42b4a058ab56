"""How a target stands, for whoever watches. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bearerd.admission.types import Reason
from bearerd.grant.outcome import KINDS, Failure
from bearerd.model import Target


@dataclass(frozen=True, slots=True)
class Standing:
    """How a target stands after a turn. Moments are those of the boot clock."""

    target: Target
    obtained: float | None = None
    """None before the first token."""
    expires: float | None = None
    """In the past where the token could not be renewed."""
    grace: float = 0.0
    """Seconds after `expires` for which it does not count as expired: its provider may be about to replace it."""
    on_disk: bool = False
    """Whether every file is there with this token."""
    failure: Failure | None = None
    """How its last attempt failed; or how its client was refused, while it waits for that."""
    due: float = 0.0
    """When it is to be refreshed."""
    next_refresh: float = 0.0
    """When it is asked for next, as far as that is known; 0 if it is not."""
    held_by: Reason | Literal[""] = ""
    held_until: float = 0.0
    """When admission lets it go, as far as that is known."""
    failures: tuple[float, ...] = ()
    """When its last attempts failed, since the last success; the last twenty at most."""
    attempts: int = 0
    """How many failed since the last success."""
    failing_since: float | None = None
    faults: tuple[str, ...] = ()
    """What went wrong with its files at the last look."""
    readable_until: float = 0.0
    """Until when what every file holds is good: this token, or while it is written the one before."""
    outcomes: tuple[int, ...] = (0,) * len(KINDS)
    """How many of its grants came to each kind (`KINDS`)."""
    same_token: bool = False
    """Whether the provider answered the last refresh with the token that was held."""

    @property
    def name(self) -> str:
        """The target's full name."""
        return self.target.full_name

    @property
    def client(self) -> str:
        """The client's name."""
        return self.target.client.name
