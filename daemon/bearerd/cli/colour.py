"""Whether output is coloured, and its colours. Every colour repeats what a word says."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from typing import TextIO

Colour = Literal["red", "yellow", "green", "bold"]
# ECMA-48 section 8.3.117.
_CODES = {"red": "1;31", "yellow": "33", "green": "32", "bold": "1"}


def coloured(stream: TextIO) -> bool:
    """Whether to colour what is written to a stream: to a terminal that can, unless the user refuses (no-color.org)."""
    refused = os.environ.get("NO_COLOR") or os.environ.get("TERM", "dumb") == "dumb"
    return not refused and stream.isatty()


def paint(text: str, colour: Colour, stream: TextIO) -> str:
    """A text in a colour, if the stream is coloured."""
    return f"\x1b[{_CODES[colour]}m{text}\x1b[0m" if text and coloured(stream) else text
