"""A snapshot of a target, for status, metrics and logs. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from bearerd.admission.types import Reason
from bearerd.grant.outcome import KINDS, Failure
from bearerd.model import Target

HELD: Final = {
    "refused": "the provider refused it or its client",
    "half_open": "its client sends one attempt at a time",
    "refused_limit": "its client has used up refused_limit, in which requests without a known outcome count as refused",
    "retry_budget": "its provider is failing, and the retry budget is used up",
    "rate_limit": "its rate_limit allows no request yet",
    "concurrency": "its provider has max_concurrency requests in flight",
    "unknown_client": "a new config is being applied",
    "share": "another daemon of the fleet is requesting this token",
    "share_unavailable": "its share is unavailable, and when_unavailable is wait",
    "backoff": "waiting after a failed attempt",
    "retry_after": "its provider asked to wait (Retry-After)",
}
"""The reasons of a hold in words, for the log, the page and the command line."""


@dataclass(frozen=True, slots=True)
class Hold:
    """What delays a requested refresh."""

    reason: Reason | Literal["backoff", "retry_after"]
    """`backoff`: the wait after a failed attempt; `retry_after`: the wait that the provider asked for."""
    until: float
    """Boot clock: the time of the next attempt, as far as it is known; `inf` if an event decides."""
    failure: Failure | None
    """The last failure of the target, or the refusal of its client."""


@dataclass(frozen=True, slots=True)
class TargetStatus:
    """The state of a target after a turn. All times are those of the boot clock."""

    target: Target
    obtained: float | None = None
    """None before the first token."""
    expires: float | None = None
    """In the past if the token could not be refreshed."""
    ended: float | None = None
    """Without a token: when that of an earlier process expired, as its record says."""
    grace: float = 0.0
    """Seconds after `expires` before it counts as expired, while its provider may be about to replace it."""
    on_disk: bool = False
    """Whether every file holds this token."""
    failure: Failure | None = None
    """The last failure of the target, or the refusal of its client while that holds the target."""
    due: float = 0.0
    """When its refresh is due."""
    next_refresh: float = 0.0
    """The time of the next attempt, as far as it is known; 0 if it is not."""
    held_by: Reason | Literal[""] = ""
    held_until: float = 0.0
    """Until when admission holds it, as far as that is known; `inf` if an event decides."""
    limited_until: float = 0.0
    """Until when a rate limit of its fleet holds requested refreshes back; in the past if it does not."""
    failures: tuple[float, ...] = ()
    """The times of at most twenty failed attempts since the last success."""
    attempts: int = 0
    """The number of failed attempts since the last success."""
    failing_since: float | None = None
    faults: tuple[str, ...] = ()
    """The errors of the last write of its files."""
    readable_until: float = 0.0
    """Until when the token in every file is valid: this token, or the previous one while this one is being written."""
    previous_until: float = 0.0
    """Until when the previous token is valid, if it is still in the files because this one could not be written; 0 if
    it is not, or the files are unknown."""
    outcomes: tuple[int, ...] = (0,) * len(KINDS)
    """The number of its grants by kind of outcome, in the order of `KINDS`."""
    fleet_grants: int = 0
    """The number of grants of other daemons whose token or failure it took over."""
    same_token: bool = False
    """Whether the last reply contained the token that was already held."""
    zero: bool = False
    """Whether the last reply had another token with a lifetime of 0, and the next one decides what that means."""
    publish_at: float | None = None
    """When a newer token than this one is published; None if none is waiting."""

    @property
    def grants(self) -> int:
        """The number of grants that ended, its own and those of its fleet that it heard of."""
        return sum(self.outcomes) + self.fleet_grants

    @property
    def name(self) -> str:
        """The target's full name."""
        return self.target.full_name

    @property
    def client(self) -> str:
        """The client's name."""
        return self.target.client.name
