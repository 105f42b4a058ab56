"""What each key of the config is for: the one source of its descriptions, defaults and examples. Pure.

A key means the same in every mapping, unless it has an entry with the mapping's name in front.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from bearerd.config.keys.clients import CLIENTS
from bearerd.config.keys.daemon import DAEMON
from bearerd.config.keys.key import Key
from bearerd.config.keys.providers import PROVIDERS
from bearerd.config.keys.shares import SHARES
from bearerd.config.keys.tokens import TOKENS

KEYS: Final[Mapping[str, Key]] = {**DAEMON, **TOKENS, **PROVIDERS, **CLIENTS, **SHARES}


def key_of(model: str, name: str) -> Key:
    """The entry of a key in the mapping of a model."""
    return KEYS.get(f"{model}.{name}") or KEYS[name]
