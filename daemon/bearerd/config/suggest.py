"""Which known word was meant by a mistyped one. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that was probably meant."""
    # "secret" is near client_secret, "listen" is not near clients.
    found = difflib.get_close_matches(word, list(known), n=1, cutoff=0.62)
    return found[0] if found else None


def near(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` if one of the known words is near, else nothing."""
    found = nearest(word, known)
    return f"; did you mean '{found}'?" if found else ""
