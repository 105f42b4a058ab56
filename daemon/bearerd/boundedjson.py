"""Reads JSON whose nesting is bounded, so that it can be handled and written again wherever the stack is. Pure.

json reads and writes with one level of the stack for each level of nesting. A document that was just read at
one place of the program would raise RecursionError at another.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

DEEPEST: Final = 32
"""Levels. Replies, metadata and claims of real providers have four at most."""

_BRACKETS: Final = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)


class TooDeepError(ValueError):
    """The document is nested deeper than is read."""


def loads(text: str, deepest: int = DEEPEST, **hooks: Any) -> Any:
    """As json.loads, which takes the hooks; raises ValueError, and TooDeepError among them."""
    # Most documents have so few brackets that there is no need to look where they are.
    if text.count("[") + text.count("{") > deepest and _depth(text) > deepest:
        raise TooDeepError(f"is nested more than {deepest} levels deep")
    try:
        return json.loads(text, **hooks)
    except RecursionError:
        raise TooDeepError("is nested too deeply") from None


def _depth(text: str) -> int:
    """How deep a document is nested; for text that is no JSON as much or more than json would go."""
    depth = deepest = 0
    for found in _BRACKETS.finditer(text):
        if found[0] in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif found[0] in "]}":
            depth -= 1
    return deepest
