"""Reads JSON with a bound on its nesting, so that it can be written again anywhere. Pure.

The json module uses a stack frame for each level of nesting. A document that one part of the program can read may raise
RecursionError in another part, whose stack is deeper.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

DEEPEST: Final = 32
"""Levels of nesting. Replies, metadata and claims of real providers have at most four."""

_BRACKETS: Final = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)


class TooDeepError(ValueError):
    """The document is nested too deeply."""


def loads(text: str, deepest: int = DEEPEST, **hooks: Any) -> Any:
    """Like json.loads, which gets the hooks; raises ValueError, of which TooDeepError is one."""
    # Most documents have so few brackets that their nesting does not matter.
    if text.count("[") + text.count("{") > deepest and _depth(text) > deepest:
        raise TooDeepError(f"is nested more than {deepest} levels deep")
    try:
        return json.loads(text, **hooks)
    except RecursionError:
        raise TooDeepError("is nested too deeply") from None


def _depth(text: str) -> int:
    """The depth of nesting. For a text that is not JSON, at least the depth that json would reach."""
    depth = deepest = 0
    for found in _BRACKETS.finditer(text):
        if found[0] in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif found[0] in "]}":
            depth -= 1
    return deepest
