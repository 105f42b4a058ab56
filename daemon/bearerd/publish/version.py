"""The format version that records and state carry, so that an older bearerd knows what a newer one wrote. Pure."""

from __future__ import annotations

import json
from typing import Any

# A version of more digits is no version, and its digits would make a long file name.
_HIGHEST = 999_999


def unknown_version(content: bytes, known: int) -> str:
    """How a document of another format version is called; empty for the known one, and for what is no document."""
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
