"""What all controllers share, and what they expect of it."""

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
    """What performs a grant."""

    def perform(self, target: Target) -> Performed:
        """What a grant came to, and the client id it was for."""
        ...


class Admission(Protocol):
    """What decides whether a target may ask (admission/admission.py)."""

    def request(self, ask: Ask, now: float) -> Granted | Held:
        """Whether the target may send one attempt now."""
        ...

    def preview(self, ask: Ask, now: float) -> Held | None:
        """What `request` would answer, changing nothing; None means granted."""
        ...

    def settle(self, ticket: Ticket, outcome: Outcome | None, now: float) -> Settled:
        """What the attempt came to."""
        ...

    def refusal(self, name: str, client: str) -> Refusal | None:
        """How the target is refused at present."""
        ...

    def worked(self, client: str) -> None:
        """The client got a token with its present credentials before."""
        ...

    def forgive(self, client: str, now: float) -> None:
        """What the client was refused for has changed."""
        ...

    def forget(self, name: str, client: str, now: float) -> None:
        """The target waits for nothing."""
        ...


class Clients(Protocol):
    """What is known of clients, once for all of their targets; may wait for a command that reads a secret."""

    def client_id(self, target: Target) -> str | None:
        """The client id; None where it cannot be read now."""
        ...

    def credentials_changed(self, target: Target) -> None:
        """If the client was refused, see whether it has other credentials now."""
        ...


@dataclass(frozen=True, slots=True)
class Parts:
    """What all controllers share."""

    clock: Clock
    dice: Callable[[], float]
    grants: Grants
    publisher: Publisher
    admission: Admission
    hooks: Hooks
    clients: Clients
    counted: Callable[[Target, Performed], None] = lambda _target, _performed: None
    """Told of each grant and what it came to."""
    least: float = 0.0
    """Seconds: a token on record that is good for less is refreshed at once."""
