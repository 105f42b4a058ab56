"""The dependencies that all controllers share, and their interfaces."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from bearerd.admission.types import Ask, Granted, Held, Refusal, Settled, Ticket
from bearerd.clock import Clock
from bearerd.grant.outcome import Outcome, Performed
from bearerd.lifecycle.file_state import Hooks, Publisher
from bearerd.model import Target


class Grants(Protocol):
    """Performs grants (grant/perform.py)."""

    def perform(self, target: Target) -> Performed:
        """Perform a grant. Returns its outcome and the client id that it used."""
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

    def forget(self, name: str, client: str, now: float) -> None:
        """Remove a target that is no longer wanted."""
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
