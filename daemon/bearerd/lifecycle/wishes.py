"""Wishes: the requests to a target between two turns. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from bearerd.model import Target


@dataclass(frozen=True, slots=True)
class CredentialsChanged:
    """The client's credentials changed: a failing target retries at once."""


@dataclass(frozen=True, slots=True)
class TemplateChanged:
    """A template of one of its files changed."""


@dataclass(frozen=True, slots=True)
class RefreshRequested:
    """A user or consumer requested a new token."""

    instead_of: str | None = None
    """The first 16 hex digits of the SHA-256 of the failed token; None to get a new token in any case."""


@dataclass(frozen=True, slots=True)
class Leftover:
    """The target of an earlier config that no turn applied. Its files have to be removed."""

    target: Target


Wish = CredentialsChanged | TemplateChanged | RefreshRequested | Leftover
