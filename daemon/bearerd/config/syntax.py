"""What is wrong with a text that is not YAML, in words for its author, and where. Pure.

PyYAML says what its parser expected, at the place where it gave up. The mistake is often in the line above. Each rule
here recognizes one kind of mistake. No message quotes the text, because any part of it could be a secret.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

from bearerd.config.scalar import INVISIBLE, named_character
from bearerd.errors import Kind
from bearerd.plural import counted

_CLOSES: Final = {"{": "}", "[": "]"}
# Characters that look like those of YAML in many fonts.
_LOOKALIKE: Final = re.compile(rf"[{INVISIBLE}\uff1a]")
_CONFLICT: Final = re.compile(r"(<{7}|>{7})( |$)")


@dataclass(frozen=True, slots=True)
class Mistake:
    """A mistake in the text. Line and column count from 0."""

    line: int
    column: int
    message: str
    kind: Kind = "not YAML"
    alone: bool = True
    """Whether the rest of the text can be checked without the part that has the mistake."""


def explain(text: str, error: Any, last: Any, bracket: Any) -> Mistake:
    """The mistake behind one of PyYAML's errors.

    `last` is the last scalar event before it, and `bracket` the last event of an opening bracket, or None.
    """
    place = _Place(text, error, last, bracket)
    found = next((found for rule in _RULES if (found := rule(place)) is not None), None)
    if found is None:
        message = "this cannot be read as YAML; the mistake may be in the line above"
        found = Mistake(place.line, place.column, message)
    # At its end, a text has one more line for PyYAML than for its author.
    line = min(found.line, len(place.lines) - 1)
    return replace(found, line=line, column=min(found.column, len(place.lines[line])))


class _Place:
    """Where PyYAML gave up, with its reason."""

    def __init__(self, text: str, error: Any, last: Any, bracket: Any) -> None:
        self.lines = text.splitlines() or [""]
        self.problem, self.context = str(error.problem), str(error.context or "")
        mark, began = error.problem_mark or error.context_mark, error.context_mark
        self.line: int = mark.line if mark else 0
        self.column: int = mark.column if mark else 0
        # Where the quote, bracket, list or mapping begins that could not be read.
        self.since = (began.line, began.column) if began else None
        self.last = last
        # Where PyYAML has no value after a bracket, it does not say which one.
        if "node content" in self.problem and bracket is not None:
            self.since = (bracket.start_mark.line, bracket.start_mark.column)

    @property
    def char(self) -> str:
        """The character at which PyYAML gave up; empty at the end of a line."""
        return self.text(self.line)[self.column : self.column + 1]

    def text(self, line: int) -> str:
        return self.lines[line] if 0 <= line < len(self.lines) else ""

    def indent(self, line: int) -> int:
        return len(self.text(line)) - len(self.text(line).lstrip(" "))

    def above(self) -> int | None:
        """The last line before this one that is neither blank nor a comment."""
        lines = range(self.line - 1, -1, -1)
        return next((line for line in lines if re.match(r"\s*[^\s#]", self.text(line))), None)


def _too_deep(place: _Place) -> Mistake | None:
    # Since 0.2.6 libyaml gives up at a thousand levels of flow style, before `source` counts fifty.
    if "increasing flow level" not in place.context:
        return None
    return Mistake(place.line, place.column, "nested too deeply", "nested too deeply", alone=False)


def _conflict(place: _Place) -> Mistake | None:
    for number, line in enumerate(place.lines):
        if _CONFLICT.match(line):
            return Mistake(number, 0, "a conflict marker of a merge: keep one of the two versions", alone=False)
    return None


def _fence(place: _Place) -> Mistake | None:
    if not place.text(place.line).lstrip().startswith("```"):
        return None
    return Mistake(
        place.line, 0, "``` is the mark of a code block on the page that this was copied from: remove the line"
    )


def _tab(place: _Place) -> Mistake | None:
    tab = re.match(r"[ -]*\t", place.text(place.line)) if "flow" not in place.context else None
    if tab is None and place.char != "\t":
        return None
    column = tab.end() - 1 if tab else place.column
    return Mistake(place.line, column, "a tab in the indentation: YAML indents with spaces only")


def _lookalike(place: _Place) -> Mistake | None:
    first = max(0, place.line - 1) if place.since is None else max(place.since[0], place.line - 1)
    for number in range(first, place.line + 1):
        if found := _LOOKALIKE.search(place.text(number)):
            instead = "write a colon and a space" if found[0] == "\uff1a" else "remove it, or use an ordinary space"
            return Mistake(number, found.start(), f"{named_character(found[0])}: {instead}")
    return None


def _open_quote(place: _Place) -> Mistake | None:
    if "quoted scalar" in place.context and place.since and "escape" not in place.problem:
        if "hex" in place.problem:
            return _bad_escape(place)
        return Mistake(*place.since, "the quote that opens here is never closed")
    if "escape" in place.problem:
        return _bad_escape(place)
    last = place.last
    if last is None or last.style not in {"'", '"'}:
        return None
    start, end = last.start_mark, last.end_mark
    if start.line < end.line and place.line - end.line <= 1:
        return Mistake(
            start.line, start.column, f"the quote that opens here ends in line {end.line + 1}: is a quote missing?"
        )
    # In JSON a missing comma is more likely than a missing backslash.
    json = "flow" in place.context and place.char in {"'", '"'}
    if end.line == place.line and not json and not place.text(place.line)[end.column : place.column].strip():
        doubled = "a ' inside '…' is written twice ('')" if last.style == "'" else 'a " inside "…" is written \\"'
        return Mistake(place.line, place.column, f"text after the closing quote: {doubled}")
    return None


def _bad_escape(place: _Place) -> Mistake:
    return Mistake(place.line, place.column, "an unknown escape sequence: write \\\\ for a backslash, or use '…'")


def _bracket(place: _Place) -> Mistake | None:
    if "flow" not in place.context or place.since is None:
        return None
    line, column = place.since
    opened = place.text(line)[column : column + 1]
    if opened not in _CLOSES:
        return None
    ended = place.line > line and place.indent(place.line) <= place.indent(line)
    if place.line >= len(place.lines) or ended or (place.char in _CLOSES.values() and place.char != _CLOSES[opened]):
        return Mistake(line, column, f"the {opened} that opens here is never closed by {_CLOSES[opened]}")
    if "node content" in place.problem:
        return Mistake(place.line, place.column, "expected a value before this")
    where = "" if place.line == line else f" (it opens in line {line + 1})"
    return Mistake(
        place.line, place.column, f"expected a comma before this, or the {_CLOSES[opened]} that closes {opened}{where}"
    )


def _first_character(place: _Place) -> Mistake | None:
    if "cannot start any token" in place.problem:
        return Mistake(place.line, place.column, f"a value that begins with {place.char} must be in quotes")
    kinds = {"alias": "*", "anchor": "&", "tag": "!", "block scalar": "| or >"}
    for context, sign in kinds.items():
        if context in place.context and place.since:
            return Mistake(*place.since, f"a value that begins with {sign} must be in quotes")
    return None


def _no_colon(place: _Place) -> Mistake | None:
    if "could not find expected ':'" not in place.problem or place.since is None:
        return None
    line, column = place.since
    return Mistake(line, column, _why_no_key(place.text(line)[column:]))


def _why_no_key(text: str) -> str:
    """Why a text is no key with a colon."""
    if re.match(r"[\w.-]+:\S", text):
        return "a space is missing after the colon"
    if re.match(r"[\w.-]+\s*=", text):
        return "expected 'key: value', found '='"
    one_word = re.fullmatch(r"[\w.-]+\s*(#.*)?", text) is not None
    return "a colon is missing after this key" if one_word else "a colon is missing: expected 'key: value'"


def _unexpected_colon(place: _Place) -> Mistake | None:
    if "mapping values are not allowed" not in place.problem:
        return None
    text, above = place.text(place.line), place.above()
    colon = re.search(r":(\s|$)", text)
    if colon is not None and colon.start() < place.column:
        return Mistake(place.line, place.column, "a second ': ' in this line: put the value in quotes")
    if above is None:
        return None
    if re.search(r":(\s|$)", place.text(above)):
        message = f"indented further than line {above + 1}, whose key has a value already"
        return Mistake(place.line, place.indent(place.line), message)
    return Mistake(above, place.indent(above), _why_no_key(place.text(above).lstrip(" ")))


def _among_keys(place: _Place) -> Mistake | None:
    if "block mapping" not in place.context or place.since is None:
        return None
    if place.char in {"}", "]"}:
        return Mistake(place.line, place.column, f"there is no open bracket that this {place.char} could close")
    if place.column == place.indent(place.line):
        if place.char == "-":
            message = "a list item ('- ') among keys: remove the dash, or indent the list below its key"
            return Mistake(place.line, place.column, message)
        return _misaligned(place)
    return Mistake(place.line, place.column, "unexpected text after the value: put the whole value in quotes")


def _among_items(place: _Place) -> Mistake | None:
    if "block collection" not in place.context or place.since is None:
        return None
    if place.column != place.since[1]:
        return _misaligned(place)
    message = (
        f"a key among the items of the list that begins in line {place.since[0] + 1}: begin it with '- ' if it is an "
        "item, or indent it differently"
    )
    return Mistake(place.line, place.column, message)


def _misaligned(place: _Place) -> Mistake:
    spaces = counted(place.column, "space")
    return Mistake(place.line, place.column, f"indented by {spaces}, which matches none of the lines above")


def _after_the_end(place: _Place) -> Mistake | None:
    directive = "a line that begins with % is a directive of YAML: remove it"
    if "directive" in place.context:
        return Mistake(place.line, 0, directive)
    if "document start" not in place.problem:
        return None
    above = place.above()
    if above is not None and place.text(above).startswith("%"):
        return Mistake(above, 0, directive)
    if above is not None and place.text(above).startswith("..."):
        return Mistake(above, 0, "'...' ends the config here: remove it")
    if above is not None and re.match(r"\[[^,]*\]\s*$", place.text(above)):
        return Mistake(above, 0, "this looks like INI or TOML; a config is YAML")
    first = next((line for line in range(place.line) if re.match(r"\s*[^\s#]", place.text(line))), place.line)
    if place.indent(first) > place.column:
        message = f"indented, unlike line {place.line + 1}: all keys of the top level begin in the same column"
        return Mistake(first, place.indent(first), message, alone=False)
    return Mistake(place.line, place.column, "more text after the end of the config")


_RULES: Final[tuple[Callable[[_Place], Mistake | None], ...]] = (
    _too_deep,
    _conflict,
    _fence,
    _tab,
    _open_quote,
    _lookalike,
    _bracket,
    _first_character,
    _no_colon,
    _unexpected_colon,
    _after_the_end,
    _among_keys,
    _among_items,
)
