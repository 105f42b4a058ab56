"""The dependencies that all controllers share, and their interfaces."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from bearerd.admission.types import Ask, Granted, Held, Refusal, Settled, Ticket
from bearerd.clock import Clock
from bearerd.grant.outcome import Failure, Outcome, Performed, Refused
from bearerd.lifecycle.file_state import Hooks, Publisher
from bearerd.model import Target
from bearerd.publish.record import Record
from bearerd.share.answers import Claimed, Lock, Taken, Wanted


class Grants(Protocol):
    """Performs grants (grant/perform.py)."""

    def perform(self, target: Target) -> Performed:
        """Perform a grant. Returns its outcome and the client id that it used. Raises Stopping if nothing was sent."""
        ...


class Admission(Protocol):
    """Decides whether a target may send an attempt (admission/admission.py)."""

    def request(self, ask: Ask, now: float) -> Granted | Held:
        """Decide whether the target may send one attempt now."""
        ...

    def preview(self, ask: Ask, now: float) -> Held | None:
        """The answer that `request` would give, without changing anything. None means granted."""
        ...

    def settle(self, ticket: Ticket, outcome: Outcome | None, now: float) -> Settled:
        """Report the outcome of an attempt."""
        ...

    def refusal(self, name: str, client: str) -> Refusal | None:
        """The refusal that holds the target; None if it is not refused."""
        ...

    def worked(self, client: str) -> None:
        """Note that the client's credentials worked before."""
        ...

    def forgive(self, client: str, now: float) -> None:
        """Half-open the client's breaker, because its credentials or its config changed."""
        ...

    def fleet_refused(self, name: str, client: str, outcome: Refused, refusals: int, wait: float, now: float) -> None:
        """Note that another daemon of the fleet was refused."""
        ...

    def fleet_issued(self, name: str, client: str, now: float) -> None:
        """Note that another daemon of the fleet has just obtained a token."""
        ...

    def cancel(self, name: str, client: str, now: float) -> None:
        """Remove a target from its queue: it has a token from elsewhere."""
        ...

    def forget(self, name: str, client: str, now: float) -> None:
        """Remove a target that is no longer wanted."""
        ...


class Fleet(Protocol):
    """The daemons that share a client's tokens (share/fleet.py). It never raises because a server is unavailable."""

    def look(self, target: Target, have: int, held: Callable[[], tuple[Record, float] | None]) -> Taken | None:
        """The token of the fleet, if it is newer than the held one with the fence `have`.

        `held` returns the held token and for how long it is valid; None without a valid one.
        """
        ...

    def claim(self, target: Target, wanted: Wanted) -> Claimed:
        """Claim the next grant of the fleet. A `Lock` must end with `store`, `keep`, `fail` or `give_back`."""
        ...

    def own_fence(self, target: Target, have: int, wall: float) -> int:
        """The fence of a token that this daemon obtained by itself at this time (wall clock)."""
        ...

    def store(self, target: Target, record: Record, remaining: float, *, next_due: float = 0.0) -> Taken | None:
        """Store a token. Returns the newer one that the fleet has, if there is one."""
        ...

    def keep(self, target: Target, lock: Lock, wait: float) -> None:
        """The provider returned the token that the fleet has; it is asked again after `wait` seconds."""
        ...

    def fail(
        self, target: Target, lock: Lock, failure: Failure, wait: float, *, whole_client: bool, refused: bool
    ) -> None:
        """Report a failure to the fleet, which then waits. `refused`: whether the provider may count it."""
        ...

    def give_back(self, target: Target, lock: Lock) -> None:
        """Free the lock: nothing was sent."""
        ...

    def pass_over(self, target: Target, fence: int) -> None:
        """Note that a token that was taken cannot be used."""
        ...

    def clocks_differ(self, target: Target, seconds: float) -> None:
        """Note that the clocks of this machine and of the server, or of another daemon, differ."""
        ...

    def forget(self, target: Target) -> None:
        """Remove a target that is no longer wanted, or whose share changed."""
        ...


class Clients(Protocol):
    """The state of clients, shared by their targets. Calls may wait for a command that reads a secret."""

    def client_id(self, target: Target) -> str | None:
        """The client id; None if it cannot be read now."""
        ...

    def credentials_changed(self, target: Target) -> None:
        """Check whether the credentials of a refused client changed."""
        ...


@dataclass(frozen=True, slots=True)
class Parts:
    """The dependencies that all controllers share."""

    clock: Clock
    dice: Callable[[], float]
    grants: Grants
    publisher: Publisher
    admission: Admission
    hooks: Hooks
    clients: Clients
    counted: Callable[[Target, Performed], None] = lambda _target, _performed: None
    """Called with the result of each grant."""
    min_valid: float = 0.0
    """Seconds: a token on record that is valid for less is refreshed at once."""
    fleet: Callable[[Target], Fleet | None] = lambda _target: None
    """The fleet that shares the target's token; None if it is not shared."""
    spread: Callable[[], float] = lambda: 0.0
    """Seconds over which the first attempts after a start are spread."""
