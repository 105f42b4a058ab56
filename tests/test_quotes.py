"""The messages that docs/troubleshooting.md quotes are in the code.

A quote is the first cell of a table below a heading `Message`; `…` in it is any text. A message is put together from
several texts, so a quote may be split at punctuation, and each part is searched for.
"""

from __future__ import annotations

import ast
import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "troubleshooting.md"
# Texts of the operating system and of OpenSSL that messages contain.
TEXTS = (*(os.strerror(number).lower() for number in errno.errorcode), "certificate has expired")


def literals(path: Path) -> Iterator[str]:
    """The texts in a module. The fields of f-strings are `…`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        elif isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)


def quotes() -> list[str]:
    """Each quoted message of the page."""
    found: list[str] = []
    messages = False
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if not line.startswith("|"):
            messages = False
        elif line.startswith("| Message |"):
            messages = True
        elif messages and (cell := re.match(r"\| (`.+?`) \| ", line)):
            found.append(cell[1].strip("`"))
    return found


@pytest.fixture(scope="module")
def code() -> str:
    import bearerd  # noqa: PLC0415 - the installed one, which may be elsewhere

    # The table of test_messages.py says word for word what bearerd says.
    modules = [*Path(bearerd.__file__).parent.rglob("*.py"), Path(__file__).parent / "test_messages.py"]
    return "\n".join([*TEXTS, *(text for module in modules for text in literals(module))])


def missing(quote: str, code: str) -> list[str]:
    """The parts of a quote that are not in the code."""
    parts = [part.strip(" ;:,().") for part in quote.split("…")]
    return [part for part in parts if not known(part, code)]


def known(part: str, code: str) -> bool:
    """Whether the code has a text with this part, or texts with both sides of some punctuation in it."""
    if part in code:
        return True
    cuts = [match.span() for match in re.finditer(r"[;:,] | \(|\) ?", part)]
    return any(known(part[:start], code) and known(part[end:], code) for start, end in cuts if start > 0)


@pytest.mark.parametrize("quote", quotes())
def test_a_message_that_the_page_quotes_is_one_of_bearerd(quote: str, code: str) -> None:
    assert not missing(quote, code)


def test_the_page_quotes_messages_and_another_text_would_be_noticed(code: str) -> None:
    assert len(quotes()) > 50
    assert missing("no daemon answers at …: it went for a walk", code)
