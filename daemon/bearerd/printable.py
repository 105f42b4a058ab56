"""Text from elsewhere on one line, without control characters of a terminal. Pure."""

from __future__ import annotations


def printable(text: object) -> str:
    """The text with `?` in place of each unprintable character."""
    return "".join(char if char.isprintable() else "?" for char in str(text))
