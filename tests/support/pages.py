"""The code blocks of the documentation."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple


class Block(NamedTuple):
    """A fenced block of a page, and the heading above it."""

    heading: str
    language: str
    text: str


def blocks(page: Path) -> Iterator[Block]:
    """Every fenced block of a page; fails if one is not closed."""
    heading, language, lines = page.name, None, list[str]()
    for line in page.read_text(encoding="utf-8").splitlines(keepends=True):
        fence = re.fullmatch(r"```(\w*)\n?", line)
        if language is not None and fence:
            yield Block(heading, language, "".join(lines))
            language = None
        elif language is not None:
            lines.append(line)
        elif fence:
            language, lines = fence[1], []
        elif match := re.fullmatch(r"#+ (.+)\n?", line):
            heading = match[1]
    assert language is None, f"{page.name}: a block below '{heading}' is not closed"


def headings(page: Path) -> list[str]:
    """The headings of a page, in order. A comment in a block that looks like a heading counts too."""
    return re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
