"""The state of a target after a turn, as status and metrics show it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bearerd.admission.types import Reason
from bearerd.grant.outcome import KINDS, Failure
from bearerd.model import Target


@dataclass(frozen=True, slots=True)
class Standing:
    """The state of a target after a turn. Times are those of the boot clock."""

    target: Target
    obtained: float | None = None
    """None before the first token."""
    expires: float | None = None
    """In the past if the token could not be renewed."""
    grace: float = 0.0
    """Seconds after `expires` until it counts as expired: its provider may be about to replace it."""
    on_disk: bool = False
    """Whether every file has this token."""
    failure: Failure | None = None
    """The failure of its last attempt, or the refusal of its client while it is held for that."""
    due: float = 0.0
    """When its refresh is due."""
    next_refresh: float = 0.0
    """When the next attempt is; 0 if that is not known."""
    held_by: Reason | Literal[""] = ""
    held_until: float = 0.0
    """When admission will grant an attempt, if that is known."""
    failures: tuple[float, ...] = ()
    """The times of the attempts that failed since the last success; the last twenty at most."""
    attempts: int = 0
    """How many attempts failed since the last success."""
    failing_since: float | None = None
    faults: tuple[str, ...] = ()
    """The errors of its files at the last check."""
    readable_until: float = 0.0
    """The earliest expiry of the tokens in its files: of this one, or of the one before while files are written."""
    outcomes: tuple[int, ...] = (0,) * len(KINDS)
    """How many of its grants had each outcome (`KINDS`)."""
    same_token: bool = False
    """Whether the last refresh returned the token that was held already."""

    @property
    def name(self) -> str:
        """The target's full name."""
        return self.target.full_name

    @property
    def client(self) -> str:
        """The client's name."""
        return self.target.client.name
