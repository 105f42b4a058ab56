"""What may be asked of a target between two turns. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from bearerd.model import Target


@dataclass(frozen=True, slots=True)
class CredentialsChanged:
    """What the client authenticates with is different now: a target that fails asks again at once."""


@dataclass(frozen=True, slots=True)
class TemplateChanged:
    """What a file is made from is different now."""


@dataclass(frozen=True, slots=True)
class RefreshRequested:
    """Somebody wants a new token."""

    instead_of: str | None = None
    """The first 16 hex digits of the SHA-256 of the token that failed; None for a new one in any case."""


@dataclass(frozen=True, slots=True)
class Leftover:
    """A config that no turn has followed yet is gone: its files are not wanted any more."""

    target: Target


Wish = CredentialsChanged | TemplateChanged | RefreshRequested | Leftover
