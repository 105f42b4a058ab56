"""YAML text -> plain values with their positions, and every fault of the text. Pure.

PyYAML's own nodes take fifty times as much memory as the text. So the first pass (`read`) keeps plain values only, and
positions are looked up in a second pass (`walk`), if there is an error to report.

Duplicate keys, aliases, tags and merge keys are errors, and so are values that YAML does not read as they look
(`scalar`). All faults are collected. A faulty value is replaced by BROKEN, so that it is reported once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Protocol

import yaml

from bearerd.config.redaction import Path
from bearerd.config.scalar import Scalar, kind_of, read_plain, visible
from bearerd.errors import Kind

try:
    from yaml import CSafeLoader as _Loader
except ImportError:  # PyYAML was built without libyaml: slower, but the same language
    from yaml import SafeLoader as _Loader  # type: ignore[assignment]


class Broken:
    """The type of BROKEN."""

    def __repr__(self) -> str:
        return "<broken>"


BROKEN: Final = Broken()
"""In place of a value that was reported already."""

# Real configs have six levels. Ten thousand would overflow the C stack of libyaml.
_DEEPEST: Final = 50
# Keys, values and collections of one file. A config of 10,000 clients has 250,000; a million take 5 s and 200 MB.
MOST_NODES: Final = 1_000_000
_NOT_SUPPORTED: Final[Kind] = "not supported in this config"
_TAGS: Final = "tags (!…) are not supported: a text that begins with ! must be in quotes"
_QUESTION_MARK: Final = "'? ' begins a key that is a mapping: remove the question mark"
_NO_KEY: Final = {
    yaml.AliasEvent: "aliases (*name) are not supported: write the key out",
    yaml.MappingStartEvent: "a key must be text, found {…}: is this a template that was not filled in?",
    yaml.SequenceStartEvent: "a key must be text, found a list",
}


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault of a value or a key."""

    path: Path
    kind: Kind
    message: str
    quiet: str = ""
    """The message where the value may not be shown; empty if `message` does not quote it."""
    at_key: bool = False
    mark: tuple[int, int] | None = None
    """Line and column (from 0), if they are known already."""
    first: int | None = None
    """Of a duplicate key: the line (from 0) of the first."""


class Report(Protocol):
    """Takes the faults that `read` finds."""

    def note(self, fault: Fault, *, broken: bool = False) -> None:
        """Note a fault; with `broken`, its path has no value."""
        ...

    def may_name(self, path: Path) -> bool:
        """Whether a message may name the key at this path."""
        ...


def read(text: str, report: Report) -> Any:
    """The value of a YAML text; None if it is empty, BROKEN if nothing can be read. Raises what PyYAML raises."""
    try:
        return _Reader(text, report).value()
    except _TooMuchError:
        return BROKEN


def has_content(text: str) -> bool:
    """Whether a text has any value, and not just comments or `---`. Raises what PyYAML raises."""
    nodes = (event for event in yaml.parse(text, Loader=_Loader) if isinstance(event, yaml.NodeEvent))
    return any(not isinstance(node, yaml.ScalarEvent) or node.value != "" for node in nodes)


def walk(text: str) -> Iterator[tuple[Path, bool, Any]]:
    """Each key and value with its path, whether it is a key, and PyYAML's event, as far as `read` read the text."""
    stack: list[list[Any]] = []  # of each open collection: its path, and its next index or its key (None: due)
    nodes = 0
    try:
        for event in yaml.parse(text, Loader=_Loader):
            if isinstance(event, yaml.CollectionEndEvent):
                stack.pop()
            if not isinstance(event, yaml.NodeEvent):
                continue
            nodes += 1
            if nodes > MOST_NODES or len(stack) > _DEEPEST:
                return
            path, is_key = _next_path(stack, event)
            yield path, is_key, event
            if isinstance(event, yaml.SequenceStartEvent):
                stack.append([path, 0])
            elif isinstance(event, yaml.MappingStartEvent):
                stack.append([path, None])
    except yaml.YAMLError:
        return


def _next_path(stack: list[list[Any]], event: Any) -> tuple[Path, bool]:
    """The path of the node that begins here, and whether it is a key."""
    if not stack:
        return (), False
    frame = stack[-1]
    path, at = frame
    if isinstance(at, int):
        frame[1] = at + 1
        return (*path, at), False
    if at is None:
        # A key that is a list or a mapping is an error; it has no name. One in block style is read without the `?`.
        inside = isinstance(event, yaml.MappingStartEvent) and not event.flow_style
        frame[1] = (event.value,) if isinstance(event, yaml.ScalarEvent) else () if inside else ("",)
        return (*path, *frame[1]), True
    frame[1] = None
    return (*path, *at), False


class _TooMuchError(Exception):
    """The text is too large or too deep to be read on; the fault is noted."""


class _Reader:
    """One pass over the events of a text."""

    def __init__(self, text: str, report: Report) -> None:
        self._loader: Any = _Loader(text)  # PyYAML's types say that marks may be missing; of a text they never are
        self._report = report
        self._nodes = 0
        self._question_marks = 0  # of the keys that are open

    def value(self) -> Any:
        """The document's value; raises _TooMuchError, or what PyYAML raises."""
        loader = self._loader
        try:
            loader.get_event()  # the start of the stream
            if not isinstance(loader.get_event(), yaml.DocumentStartEvent):
                return None
            value = self._node(loader.get_event(), ())
            loader.get_event()  # the end of the document
            second = loader.get_event()
            if isinstance(second, yaml.DocumentStartEvent):
                message = "a second document begins here (---): a config file is one document"
                self._note(second, (), "not YAML", message, broken=True)
                return BROKEN
            return value
        finally:
            loader.dispose()

    def _node(self, event: Any, path: Path) -> Any:
        self._nodes += 1
        if self._nodes > MOST_NODES:
            self._stop(event, path, "the file is too large", f"more than {MOST_NODES:,} keys and values")
        if type(event) is yaml.ScalarEvent:
            return self._scalar(event, path)
        if type(event) is yaml.AliasEvent:
            message = (
                "aliases (*name) are not supported: write the value out, or set it at a level that the others inherit "
                "from (text that begins with * must be in quotes)"
            )
            return self._break(event, path, message)
        if len(path) >= _DEEPEST:
            self._stop(event, path, "nested too deeply", "nested too deeply")
        value = self._mapping(path) if type(event) is yaml.MappingStartEvent else self._sequence(path)
        return self._break(event, path, _TAGS) if event.tag is not None else value

    def _scalar(self, event: Any, path: Path) -> Any:
        if event.tag is not None:
            return self._break(event, path, _TAGS)
        if event.anchor is not None and not event.value:
            return self._break(
                event, path, "no value after an anchor (&name): a text that begins with & must be in quotes"
            )
        if not event.implicit[0]:  # quoted, or a block
            return event.value
        scalar = read_plain(event.value)
        if scalar.fault:
            self._note(event, path, "ambiguous value", scalar.fault, quiet=scalar.quiet_fault, broken=True)
            return BROKEN
        return scalar.value

    def _sequence(self, path: Path) -> list[Any]:
        get, found = self._loader.get_event, list[Any]()
        while type(event := get()) is not yaml.SequenceEndEvent:
            found.append(self._node(event, (*path, len(found))))
        return found

    def _mapping(self, path: Path) -> dict[str, Any]:
        get, found, first = self._loader.get_event, dict[str, Any](), dict[str, int]()
        while type(event := get()) is not yaml.MappingEndEvent:
            if type(event) is yaml.MappingStartEvent and not event.flow_style:
                # `? key: value` is a mapping with one key, which is a key itself. What was meant is `key: value`.
                found = self._without_question_mark(event, path) | found
                continue
            key = self._key(event, path)
            below = (*path, key) if key is not None else path
            if key is None:
                self._skip(get())
            elif key in first:
                shown = f"duplicate key '{key}'" if self._report.may_name(below) else "duplicate key"
                message = f"{shown}; first set on line {first[key] + 1}"
                mark = (event.start_mark.line, event.start_mark.column)
                self._report.note(
                    Fault(below, "duplicate key", message, at_key=True, mark=mark, first=first[key]), broken=False
                )
                self._node(get(), below)
            else:
                first[key] = event.start_mark.line
                found[key] = self._node(get(), below)
        return found

    def _without_question_mark(self, event: Any, path: Path) -> dict[str, Any]:
        """The mapping in a key, as a part of the one that has the key."""
        self._note(event, path, _NOT_SUPPORTED, _QUESTION_MARK)
        self._question_marks += 1
        if self._question_marks > _DEEPEST:
            self._stop(event, path, "nested too deeply", "nested too deeply")
        found = self._mapping(path)
        self._question_marks -= 1
        self._skip(self._loader.get_event())
        return found

    def _key(self, event: Any, path: Path) -> str | None:
        """A key, even if it is reported; None if it has no name."""
        self._nodes += 1
        if type(event) is not yaml.ScalarEvent:
            self._note(event, path, _NOT_SUPPORTED, _NO_KEY[type(event)], broken=True)
            self._skip(event)
            return None
        key = str(event.value)
        if event.tag is not None:
            self._note(event, (*path, key), _NOT_SUPPORTED, _TAGS, at_key=True)
        elif event.implicit[0]:
            if key == "<<":
                self._note(event, path, _NOT_SUPPORTED, "merge keys (<<) are not supported: write the keys out")
                return None
            scalar = read_plain(key)
            if scalar.fault or not isinstance(scalar.value, str):
                self._note(event, (*path, key), "ambiguous value", *_of_key(scalar), at_key=True)
                key = visible(key)
        # A reported key counts by its text, so that it is not reported as missing too.
        return key

    def _skip(self, event: Any) -> None:
        """Skip a node that cannot be part of the value."""
        depth = 0
        while True:
            self._nodes += 1
            if self._nodes > MOST_NODES:
                self._stop(event, (), "the file is too large", f"more than {MOST_NODES:,} keys and values")
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
                if depth > _DEEPEST:
                    self._stop(event, (), "nested too deeply", "nested too deeply")
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
            if not depth:
                return
            event = self._loader.get_event()

    def _break(self, event: Any, path: Path, message: str) -> Broken:
        self._note(event, path, _NOT_SUPPORTED, message, broken=True)
        return BROKEN

    def _stop(self, event: Any, path: Path, kind: Kind, message: str) -> None:
        self._note(event, path, kind, message, broken=True)
        raise _TooMuchError

    def _note(
        self, event: Any, path: Path, kind: Kind, message: str, quiet: str = "", *, at_key: bool = False,
        broken: bool = False,
    ) -> None:  # fmt: skip
        mark = event.start_mark
        fault = Fault(path, kind, message, quiet, at_key=at_key, mark=(mark.line, mark.column))
        self._report.note(fault, broken=broken)


def _of_key(scalar: Scalar) -> tuple[str, str]:
    """The fault of a key that is not text, with and without the key."""
    if scalar.fault:
        return scalar.fault, scalar.quiet_fault
    message = f"YAML reads this key as {kind_of(scalar.value)}: put it in quotes"
    return message, message
