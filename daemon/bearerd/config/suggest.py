"""Which known name was probably meant by a mistyped one. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that was probably meant."""
    # With this cutoff "secret" suggests client_secret, but "listen" does not suggest clients.
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.62)
    return found[0] if found else None


def near(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` if a known name is similar, else an empty text."""
    found = nearest(name, known)
    return f"; did you mean '{found}'?" if found else ""
