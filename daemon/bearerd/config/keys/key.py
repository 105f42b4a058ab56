"""What is said about a key of the config. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Key:
    """What a key is for, as editors, docs/config.md and bearerd.yaml(5) show it."""

    text: str
    """What it is for, and when one would set it. Names of keys and values are in backticks."""
    default: Any = None
    """The value that means the same as leaving the key out, as the config would have it."""
    without: str = ""
    """The default in words, if no one value means the same as leaving the key out."""
    examples: tuple[Any, ...] = ()
    """Values as the config would have them."""
