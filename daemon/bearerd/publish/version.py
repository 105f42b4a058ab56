"""The format version that records and state carry, so that an older bearerd knows what a newer one wrote. Pure."""

from __future__ import annotations

import json
from typing import Any

# A larger number is no version, and would make a long file name.
_HIGHEST = 999_999


def unknown_version(content: bytes, known: int) -> str:
    """The name of a document's format version; empty if it is the known one, or if this is no document."""
    try:
        document: Any = json.loads(content)
    except (ValueError, RecursionError):
        return ""
    if not isinstance(document, dict) or "schema" not in document:
        return ""
    version = document["schema"]
    if isinstance(version, bool) or not isinstance(version, int) or not 0 <= version <= _HIGHEST:
        return "unknown-version"
    return "" if version == known else f"version-{version}"
