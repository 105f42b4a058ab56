"""A text whose lines are indented as they were probably meant, for a config that has errors. Pure.

One line with wrong indentation causes an error for every key that is then missing, unknown or unreadable. Here each
line is placed where the models have its key, as near as possible to where it is. This is a guess: `load` takes it only
if it explains more than the errors of the text as it is written.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from typing import Final

from pydantic import BaseModel

from bearerd.config import models
from bearerd.config.places import by_name, is_part, model_in, takes_mapping
from bearerd.config.redaction import is_plain_key
from bearerd.config.source import Fault

# A key in block style and its value. Other lines move with the key above them.
# Each character has one way to match, so that no line takes long.
_KEY: Final = re.compile(r"""([^\s#:{}\[\],&*!|>%@`"'?-][^:#{}\[\]"']*|"[^"\\]*"[ \t]*|'[^']*'[ \t]*):([ \t]+(.*))?$""")
_FLOW_KEY: Final = re.compile(r"[{,]\s*([A-Za-z_]+)\s*:")
# Levels; `source` reads no more.
_DEEPEST: Final = 50
# Lines below a key that show what it is. Without a bound, a text with a million lines would take hours.
_MOST_LINES_BELOW: Final = 200
# Characters of a mapping in flow style that show what it is. A line may have millions.
_MOST_OF_A_VALUE: Final = 4096
# How well a key fits into a mapping, if at all.
_FITS: Final = 2
_MAY_FIT: Final = 1
# Spaces of a level, if the text has only one.
_USUAL_STEP: Final = 2


@dataclass(frozen=True, slots=True)
class Realigned:
    """A text with other indentation."""

    text: str
    moved: dict[int, int]
    """The columns by which lines were moved to the right. Lines count from 0."""
    faults: tuple[Fault, ...]
    """What was wrong, with marks in this text."""


@dataclass(slots=True)
class _Line:
    number: int
    indent: int
    content: str
    key: str | None = None  # None: not a key in block style
    value: str = ""
    tab: int | None = None

    @property
    def is_item(self) -> bool:
        return re.match(r"-(\s|$)", self.content) is not None


@dataclass(slots=True, eq=False)
class _Frame:
    """A mapping in block style: its column, what it consists of, and its keys so far."""

    indent: int
    model: type[BaseModel] | None  # of the mapping, or of its entries; None: it may have any key
    names: bool = False
    name: str = ""
    above: str = ""  # the key of the group that it is an entry of
    keys: set[str] = field(default_factory=set)

    def below(self, key: str, indent: int) -> _Frame:
        """The mapping that is the value of a key."""
        if self.names:
            return _Frame(indent, self.model, name=key, above=self.name)
        annotation = self.model.model_fields[key].annotation if self.model and key in self.model.model_fields else None
        model = model_in(annotation)
        group = by_name(annotation)
        if group and not is_part(model):
            model = None
        return _Frame(indent, model, names=group and model is not None, name=key)


@dataclass(slots=True)
class _Run:
    """Keys that are at a wrong column for the same reason."""

    line: int
    key: str  # the first of them
    tab: int | None
    frame: _Frame
    by: int
    count: int = 1
    known: bool = True


def realign(text: str) -> Realigned | None:
    """The text as its lines were probably meant; None if they are all at a place where they can be."""
    return _Outline(text).realigned()


class _Outline:
    def __init__(self, text: str) -> None:
        self._written = text.splitlines()
        self._lines = list(_parsed(self._written))
        steps = Counter(b.indent - a.indent for a, b in pairwise(self._lines) if b.indent > a.indent)
        self._step = steps.most_common(1)[0][0] if steps else _USUAL_STEP
        self._stack = [_Frame(0, models.ConfigFile)]
        self._runs: list[_Run] = []
        self._moved: dict[int, int] = {}
        # Blocks that moved with the key above them: its column, and by how much.
        self._carried: list[tuple[int, int]] = []

    def realigned(self) -> Realigned | None:
        last: _Line | None = None
        for index, line in enumerate(self._lines):
            written = line.indent
            while self._carried and (written, line.is_item) <= (self._carried[-1][0], False):
                self._carried.pop()
            line.indent += self._carried[-1][1] if self._carried else 0
            if line.key is not None:
                self._leave(index, line, last)
                if not self._place(index, line, last):
                    return None
                last = line
                self._carry(index, line, written)
            if line.indent != written or line.tab is not None:
                self._moved[line.number] = line.indent
        if not self._runs:
            return None
        lines, moved = list(self._written), {}
        for number, indent in self._moved.items():
            content = lines[number].lstrip(" \t")
            moved[number] = indent - (len(lines[number]) - len(content))
            lines[number] = " " * indent + content
        # A key that moved with its block may have been moved back.
        faults = tuple(_fault(run, moved[run.line]) for run in self._runs if run.line in moved)
        return Realigned("\n".join(lines) + "\n", moved, faults) if faults else None

    def _leave(self, index: int, line: _Line, last: _Line | None) -> None:
        """End the block that moved before a key that fits where it is written, and not where the block would be."""
        if not self._carried or not self._carried[-1][1] or last is None:
            return
        if line.indent > last.indent and not last.value:
            return
        by = self._carried[-1][1]
        here = next((frame for frame in self._stack if frame.indent == line.indent), None)
        there = next((frame for frame in self._stack if frame.indent == line.indent - by), None)
        if there is not None and (here is None or self._score(index, line, here) < _FITS):
            carried, line.indent = self._carried.pop(), line.indent - by
            if self._score(index, line, there) < _FITS:
                self._carried.append(carried)
                line.indent += by

    def _carry(self, index: int, line: _Line, written: int) -> None:
        """Move the lines below a key with it, if they would not be below it otherwise."""
        by = line.indent - written
        below = self._lines[index + 1] if index + 1 < len(self._lines) else None
        if below is not None and not line.value and written < below.indent <= line.indent:
            self._carried.append((written, by))
        elif self._carried:
            self._carried.append((written, self._carried[-1][1] if by == self._carried[-1][1] else 0))

    def _place(self, index: int, line: _Line, last: _Line | None) -> bool:
        """Put a key where it fits; False if it fits nowhere and the text has no such column."""
        inner = None
        if last is not None and last.key is not None and not last.value and len(self._stack) < _DEEPEST:
            inner = self._stack[-1].below(last.key, self._column(index, last.indent))
        candidates = [*([inner] if inner else []), *reversed(self._stack)]
        here = next((frame for frame in candidates if frame.indent == line.indent), None)
        if inner is not None and last is not None and line.indent > last.indent and here is not inner:
            here = None
        best = here
        most = self._score(index, line, here) if here else 0
        if most < _FITS:
            for frame in candidates:
                score = self._score(index, line, frame) if frame.model else int(frame is inner)
                if score > most:
                    best, most = frame, score
        if best is None:
            return False
        if best is inner:
            self._stack.append(best)
        else:
            del self._stack[self._stack.index(best) + 1 :]
        if best.indent != line.indent or line.tab is not None:
            self._report(line, best)
        line.indent = best.indent
        best.keys.add(line.key or "")
        return True

    def _column(self, index: int, above: int) -> int:
        """The column of the keys below a key that ends before this line."""
        by = self._carried[-1][1] if self._carried else 0
        usual, first = above + self._step, None
        for line in self._lines[index : index + _MOST_LINES_BELOW]:
            indent = line.indent if line is self._lines[index] else line.indent + by
            if indent <= above:
                break
            if line.key is None:
                continue
            first = indent if first is None else first
            if first <= usual or indent == usual:
                return min(first, usual)
        return usual if first is None else first

    def _score(self, index: int, line: _Line, frame: _Frame) -> int:
        """How well a key fits into a mapping: _FITS, _MAY_FIT or 0."""
        key = line.key or ""
        if key in frame.keys:
            return 0
        below = self._below(index, line)
        if frame.model is None:
            group = not line.value and any(key in _sections(each.model) for each in self._stack if not each.names)
            return 0 if group else _FITS
        if frame.names:
            return self._score_of_name(index, line, frame.model.model_fields.keys(), below)
        if key not in frame.model.model_fields:
            return 0
        section = _sections(frame.model).get(key)
        if section is None or (not line.value and (section or not below)):
            return _FITS
        fits = not below.isdisjoint(_fields(frame.model, key)) if not line.value else line.value[0] in "{["
        return _FITS if fits else _MAY_FIT

    def _score_of_name(self, index: int, line: _Line, known: AbstractSet[str], below: AbstractSet[str]) -> int:
        """How well a key fits as the name of an entry that may have the known keys."""
        if line.value and line.value[0] != "{":
            return 0
        if below:
            return _FITS if below <= known else _MAY_FIT if 2 * len(below & known) >= len(below) else 0
        after = self._lines[index + 1].key if index + 1 < len(self._lines) and not line.value else None
        if any(line.key in each.model.model_fields for each in self._stack if each.model and not each.names):
            return _MAY_FIT if after in known else 0
        return _FITS if after in known else _MAY_FIT

    def _below(self, index: int, line: _Line) -> set[str]:
        """The keys of the value of a key."""
        if line.value:
            return set(_FLOW_KEY.findall(line.value[:_MOST_OF_A_VALUE])) if line.value[0] == "{" else set()
        # The lines after this one have not been moved yet.
        by = self._carried[-1][1] if self._carried else 0
        found, first = set(), None
        for each in self._lines[index + 1 : index + 1 + _MOST_LINES_BELOW]:
            if each.indent + by <= line.indent:
                break
            if each.key is not None:
                first = each.indent if first is None else first
                if each.indent == first:
                    found.add(each.key)
        return found

    def _report(self, line: _Line, frame: _Frame) -> None:
        by = frame.indent - line.indent
        known = frame.names or (frame.model is not None and line.key in frame.model.model_fields)
        run = self._runs[-1] if self._runs else None
        if run is not None and run.frame is frame and run.by == by and line.tab is None:
            run.count += 1
        else:
            self._runs.append(_Run(line.number, line.key or "", line.tab, frame, by, known=known))


def _width(line: str) -> int:
    return len(line) - len(line.lstrip(" \t"))


def _parsed(lines: list[str]) -> Iterator[_Line]:
    """The lines that are neither blank nor a comment. Lines inside a list or a text of several lines have no key."""
    opaque: int | None = None
    for number, text in enumerate(lines):
        content = text.strip(" \t")
        if not content or content.startswith("#"):
            continue
        leading = text[: _width(text)]
        line = _Line(number, len(leading.expandtabs()), content, tab=leading.find("\t") if "\t" in leading else None)
        if opaque is not None and line.indent > opaque:
            yield line
            continue
        opaque = None
        if line.is_item:
            opaque = line.indent
        elif (found := _KEY.match(content)) is not None:
            line.key = found[1].strip(" \t").strip("'\"")
            value = (found[3] or "").strip(" \t")
            line.value = "" if value.startswith("#") else value
            if line.value[:1] in {"|", ">"}:
                opaque = line.indent
        yield line


def _fault(run: _Run, moved: int) -> Fault:
    if run.tab is not None:
        message = "a tab in the indentation: YAML indents with spaces only"
        return Fault((), "not YAML", message, mark=(run.line, run.tab + moved))
    shown = f"'{run.key}'" if run.known and is_plain_key(run.key) else "this key"
    more = run.count - 1
    shown += f" and the {f'{more} keys' if more > 1 else 'key'} after it" if more else ""
    verb, it = ("are", "them") if more else ("is", "it")
    text = f"{shown} {verb} indented too {'little' if run.by > 0 else 'far'}: begin {it} in column "
    text += f"{run.frame.indent + 1}, {_as(run.frame, several=bool(more))}"
    return Fault((), "unknown key", text, mark=(run.line, run.frame.indent))


def _as(frame: _Frame, *, several: bool) -> str:
    if frame.names:
        return f"{'each ' if several else ''}as a {frame.name.removesuffix('s')}"
    what = frame.name or "the top level"
    if frame.above:
        what = f"{frame.above.removesuffix('s')} '{frame.name}'"
        if not is_plain_key(frame.name):
            what = f"the {frame.above.removesuffix('s')} above"
    elif frame.model is None and not is_plain_key(frame.name):
        what = "the key above"
    return f"as {'keys' if several else 'a key'} of {what}"


@cache
def _sections(model: type[BaseModel] | None) -> dict[str, bool]:
    """The keys of a model whose value is a part of the config, or parts of it by name (true)."""
    fields = model.model_fields if model is not None else {}
    return {
        name: by_name(each.annotation)
        for name, each in fields.items()
        if takes_mapping(each.annotation) and is_part(model_in(each.annotation))
    }


@cache
def _fields(model: type[BaseModel], key: str) -> frozenset[str]:
    return frozenset(model_in(model.model_fields[key].annotation).model_fields)
