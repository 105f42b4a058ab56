"""Which part of a text that is not YAML to leave out, so that the rest can be checked. Pure."""

from __future__ import annotations

import re
from typing import Final

from bearerd.config.scalar import INVISIBLE

# A line that begins a key. Items of a list may be indented like the key that they belong to.
_KEY: Final = re.compile(r"\s*[^\s#-]")

# A line that begins an entry: a name, and below it or in braces its keys.
_NAME: Final = re.compile(r"[^:]*:\s*(\{.*)?(#.*)?$")
# A section of names. Its entries belong to no other section, even if its own line has the mistake.
_SECTION: Final = re.compile(r"\s*(- +)?(providers|clients):\s*(#.*)?$")
_UNSEEN: Final = re.compile(f"[{INVISIBLE}]")


def without_mistake(text: str, line: int) -> tuple[str, int]:
    """The text with blank lines in place of the part with a mistake, and the last line of that part, from 0.

    The part is an entry such as a client, or else a key of the top level. If it begins with a key that has a value,
    this key is probably one of the entry before it, with too little indentation: that entry is left out too.
    """
    written = text.splitlines()
    lines = [_UNSEEN.sub(" ", each) for each in written]
    top = _start(lines, line, 0)
    # Below a tab, nothing tells how far the entries are indented.
    begins = next((each for each in lines[top + 1 :] if _KEY.match(each)), "")
    entry = 0 if "\t" in begins[: len(begins) - len(begins.lstrip())] else _indent(begins)
    first, last = top, _end(lines, max(line, top), 0)
    if _SECTION.match(lines[line]):
        first, last = line, _end(lines, line, 0)
    elif line > top and entry > 0:
        first = _start(lines, line, entry)
        last = _end(lines, max(line, first), entry)
        if first > top + 1 and not _NAME.match(lines[first]):
            first = max(top + 1, _start(lines, first - 1, entry))
    written[first : last + 1] = [""] * (last + 1 - first)
    return "\n".join(written) + "\n", last


def _start(lines: list[str], line: int, most: int) -> int:
    """The last line up to this one that begins a key with at most this indentation."""
    for number in range(min(line, len(lines) - 1), -1, -1):
        if _KEY.match(lines[number]) and _indent(lines[number]) <= most:
            return number
    return 0


def _end(lines: list[str], line: int, most: int) -> int:
    """The line before the next one that begins a key with at most this indentation."""
    for number in range(line + 1, len(lines)):
        if _KEY.match(lines[number]) and _indent(lines[number]) <= most:
            return number - 1
    return len(lines) - 1


def _indent(line: str) -> int:
    """The columns before the first character; a tab is a step further in, as its author meant it."""
    spaces = line.expandtabs()
    return len(spaces) - len(spaces.lstrip())
