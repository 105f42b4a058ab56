"""Targets and tokens with only the fields that matter to a test."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from bearerd.model import Client, Provider, Target
from bearerd.terms import Instant, Reference, Token
from support.clock import START

PROVIDER = Provider(name="sandbox", token_url="https://login.example.com/as/token.oauth2")
CLIENT = Client(name="dnb", provider=PROVIDER, client_id="7e0c5a", client_secret=(Reference("env", "DNB_SECRET"),))
TARGET = Target(client=CLIENT, name="bci", scope="bci")


def target(name: str = "bci", client: Client = CLIENT, **changes: Any) -> Target:
    """A target of a client."""
    return replace(TARGET, client=client, name=name, **changes)


def token(text: str = "opaque-1", *, lifetime: float = 3600.0, obtained: Instant = START, **changes: Any) -> Token:
    """A token that was issued at a given time."""
    return Token(access_token=text, lifetime=lifetime, obtained=obtained, **changes)
