"""YAML text -> plain values, and every place where something is wrong. Pure.

Reading takes one pass over the parser's events and keeps plain values only: PyYAML's nodes, which know their places,
are fifty times as large as the text. Places are looked up in a second pass, if there is anything to complain about.

Duplicate keys, aliases, tags and merge keys are errors, as are values that YAML reads as something else than they look
(config/scalar.py). All errors are collected. What is wrong is replaced by BROKEN, so that it is reported once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import yaml

from bearerd.config.redaction import (
    HIDDEN,
    Path,
    Piece,
    Shows,
    excerpt,
    excerpt_of_no_yaml,
    is_plain_key,
    is_plain_value,
    takes_secret,
)
from bearerd.config.scalar import Scalar, kind_of, read_plain
from bearerd.errors import Kind, Problem

try:
    from yaml import CSafeLoader as _Loader
except ImportError:  # PyYAML built without libyaml: slower, the same language
    from yaml import SafeLoader as _Loader  # type: ignore[assignment]


class _Broken:
    """Stands for a value that was reported already."""

    def __repr__(self) -> str:
        return "<broken>"


BROKEN: Final = _Broken()

# Real configs have six levels. Ten thousand would overflow the C stack of libyaml.
_DEEPEST: Final = 50
# Keys, values and collections of one file. A config of 10,000 clients has 250,000; a million take 5 s and 200 MB.
MOST_NODES: Final = 1_000_000
# A file with more errors than this is not a config; nobody reads further.
MOST_PROBLEMS: Final = 1000
# Under these a key of the config may hold free text, and secrets by name or by mistake.
_FREE_TEXT: Final = frozenset({"parameters", "headers", "assertion_claims", "vars", "run", "command"})
# What libyaml says of the most common mistakes, in the words of somebody who writes a config.
_SYNTAX_HINTS: Final = (
    ("did not find expected key", "a key is indented differently from the others here, or a bracket or quote is open"),
    ("found character that cannot start any token", "a value that begins with @, ` or % must be in quotes"),
    ("mapping values are not allowed", "a second ': ' in a line: put the value in quotes, or check the indentation"),
)
_NOT_USED: Final[Kind] = "not used in this config's YAML"


@dataclass(frozen=True, slots=True)
class Place:
    """A place in a document, for a message that names two."""

    document: Document
    path: Path

    def __str__(self) -> str:
        line, _ = self.document.mark(self.path, at_key=True)
        return f"{self.document.file}:{line + 1}"


Message = str | tuple[str | Place, ...]


@dataclass(slots=True)
class _Fault:
    """Something that is wrong; its line and column (from 0) where they are known already."""

    path: Path
    kind: Kind
    message: Message
    at_key: bool = False
    mark: tuple[int, int] | None = None
    quiet: str = ""
    """In place of the message where the value may not be shown."""


class _TooMuchError(Exception):
    """Reading stops here; the fault is noted."""


class Document:
    """One YAML file: its `value`, and the `problems` of it.

    `shows` says of a path whether its value may be shown in an error.
    """

    def __init__(
        self,
        text: str,
        file: str,
        *,
        may_be_empty: bool = False,
        shows: Shows = lambda _: True,
        vocabulary: frozenset[str] = frozenset(),
    ) -> None:
        self.file = file
        self.value: Any = BROKEN
        self._text = text
        self._shows = shows
        self._vocabulary = vocabulary
        self._faults: list[_Fault] = []
        self._dropped = 0
        self._broken: set[Path] = set()
        self._failed: list[Problem] = []
        self._marks: dict[tuple[Path, bool], tuple[int, int]] | None = None
        try:
            self.value = _Reader(text, self).value()
        except _TooMuchError:
            pass
        except yaml.MarkedYAMLError as error:
            self._syntax(error)
        except yaml.reader.ReaderError:
            self._character()
        if self.value is None and not _has_content(text):
            self.value = {}
            if not may_be_empty:
                self.fail(1, 1, "the file is empty")

    def fail(self, line: int, column: int, kind: str, message: str = "") -> None:
        """Note what is wrong with the file as a whole, at a line and column counted from 1."""
        self._failed.append(Problem(self.file, line, column, kind, message or kind))

    def add(self, path: Path, message: Message, kind: Kind = "wrong value", *, at_key: bool = False) -> None:
        """Report what stands at the path, or its key, unless a part of the path was reported already."""
        above = path[:-1] if at_key else path
        if not any(above[:length] in self._broken for length in range(len(above) + 1)):
            self.note(_Fault(path, kind, message, at_key=at_key))

    def note(self, fault: _Fault, *, broken: bool = False) -> None:
        """Note a fault; with `broken`, nothing more is reported of its path."""
        if broken:
            self._broken.add(fault.path)
        if len(self._faults) < MOST_PROBLEMS:
            self._faults.append(fault)
        else:
            self._dropped += 1

    @property
    def broken(self) -> bool:
        """Whether anything is wrong so far."""
        return bool(self._faults or self._failed)

    @property
    def full(self) -> bool:
        """Whether so much is wrong that it is pointless to look further."""
        return self._dropped > 0

    @property
    def problems(self) -> list[Problem]:
        """All that is wrong, in the order in which it was found."""
        marks = [fault.mark or self.mark(fault.path, at_key=fault.at_key) for fault in self._faults]
        pieces = self._pieces({line for line, _ in marks})
        lines = self._lines({line for line, _ in marks})
        found = list(self._failed)
        for fault, (line, column) in zip(self._faults, marks, strict=True):
            message = fault.message if isinstance(fault.message, str) else "".join(map(str, fault.message))
            seen = excerpt(lines[line], pieces[line], column) if line in lines and line in pieces else None
            if fault.quiet and not (seen and self._may_show(fault.path)):
                message = fault.quiet
            source, caret = (seen.text, seen.caret) if seen else (None, 0)
            found.append(Problem(self.file, line + 1, column + 1, fault.kind, message, source, caret))
        if self._dropped:
            message = f"and {self._dropped} more errors; is this the right file?"
            found.append(Problem(self.file, max(line for line, _ in marks) + 1, 1, "too many errors", message))
        return found

    def place(self, path: Path) -> Place:
        """`file:line` of a path's key, once it is asked for as text."""
        return Place(self, path)

    # -- the second pass -----------------------------------------------------------------------

    def mark(self, path: Path, *, at_key: bool) -> tuple[int, int]:
        """The line and column (from 0) of the deepest part of the path that exists; others are passed over."""
        if self._marks is None:
            self._marks = {}
            for where, is_key, event in self._walk():
                self._marks.setdefault((where, is_key), (event.start_mark.line, event.start_mark.column))
        exact: Path = ()
        value = self.value
        for part in path:
            known = part in value if isinstance(value, dict) else isinstance(value, list) and part in range(len(value))
            if known:
                exact, value = (*exact, part), value[part]
        found = self._marks.get((exact, at_key)) or self._marks.get((exact, False))
        return found or (0, 0)

    def _walk(self) -> Iterator[tuple[Path, bool, Any]]:
        """Each key and value with its path, as far as the text was read."""
        stack: list[list[Any]] = []  # of each open collection: its path, and its next index or its key (None: due)
        nodes = 0
        try:
            for event in yaml.parse(self._text, Loader=_Loader):
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

    def _pieces(self, lines: set[int]) -> dict[int, list[Piece]]:
        """The keys and values on these lines. Of a line that may hold a secret, or a piece of one, there are none."""
        found: dict[int, list[Piece]] = {}
        secret: set[int] = set()
        # In a file that is not a mapping everything may be anything: a list of passwords, a key.
        if not lines or self._failed or not isinstance(self.value, dict):
            return found
        last = max(lines)
        for path, is_key, event in self._walk():
            start, end = event.start_mark, event.end_mark
            if start.line > last:
                break
            if not isinstance(event, yaml.ScalarEvent) or lines.isdisjoint(range(start.line, end.line + 1)):
                continue
            if any(map(takes_secret, path)):
                secret.update(range(start.line, end.line + 1))
            elif start.line == end.line:
                shown = self.may_name(path) if is_key else self._may_show(path) and is_plain_value(event.value)
                # The piece of a tagged or anchored scalar begins with its tag or anchor.
                shown = shown and event.tag is None and event.anchor is None
                found.setdefault(start.line, []).append(Piece(start.column, end.column, shown))
        return {line: pieces for line, pieces in found.items() if line not in secret}

    def _lines(self, wanted: set[int]) -> dict[int, str]:
        """These lines, unless they look as if they held a secret."""
        # As YAML 1.1 ends them: at CR, NEL and the Unicode separators too.
        lines = enumerate(self._text.splitlines()) if wanted else ()
        return {number: line for number, line in lines if number in wanted and not takes_secret(line)}

    def may_name(self, path: Path) -> bool:
        """Whether a key may be shown: not below an unknown one, nor below one that takes a secret."""
        return (
            is_plain_key(str(path[-1]))
            and not any(map(takes_secret, path[:-1]))
            and (len(path) == 1 or self._shows(path[:-1]))
        )

    def _may_show(self, path: Path) -> bool:
        argument = path[-2:-1] == ("run",) and path[-1] != 0  # of a hook's program: `curl -u user:password`
        free_text = argument or not _FREE_TEXT.isdisjoint(path)
        return bool(path) and not free_text and not any(map(takes_secret, path)) and self._shows(path)

    # -- what is wrong with the text itself ----------------------------------------------------

    def _syntax(self, error: yaml.MarkedYAMLError) -> None:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line, mark.column) if mark is not None else (0, 0)
        text = self._lines({line}).get(line, "")
        problem = (error.problem or "this is not YAML").replace("\n", " ")
        kind: Kind = "not YAML"
        if "\\t" in problem or re.match(r"[\s-]*\t", text[: column + 1]):
            problem = "YAML is indented with spaces, not tabs"
        elif "increasing flow level" in f"{error.context}":
            # libyaml from 0.2.6 on gives up at a thousand levels, before we count fifty.
            problem, kind = "nested too deeply", "nested too deeply"
        for words, meaning in _SYNTAX_HINTS:
            if words in problem:
                problem = meaning
        # What it quotes could be a secret; a single sign is not.
        problem = re.sub(r"'[^'\s]{3,}'|\"[^\"\s]{3,}\"", HIDDEN, problem)
        seen = excerpt_of_no_yaml(text, self._vocabulary, column)
        source, caret = (seen.text, seen.caret) if seen else (None, 0)
        message = problem if kind == "nested too deeply" else f"not YAML: {problem}"
        self._failed.append(Problem(self.file, line + 1, column + 1, kind, message, source, caret))

    def _character(self) -> None:
        # Looked for here: the two parsers of PyYAML count differently, one bytes and one characters.
        found = yaml.reader.Reader.NON_PRINTABLE.search(self._text)
        position = found.start() if found is not None else 0
        line = self._text.count("\n", 0, position) + 1
        column = position - self._text.rfind("\n", 0, position)
        message = f"a character that YAML does not allow (#x{ord(self._text[position]):04x})"
        self.fail(line, column, "not YAML", message)


def _has_content(text: str) -> bool:
    return any(isinstance(event, yaml.NodeEvent) for event in yaml.parse(text, Loader=_Loader))


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
        # A key that is a list or a mapping is an error; it has no name.
        frame[1] = (event.value,) if isinstance(event, yaml.ScalarEvent) else ("",)
        return (*path, *frame[1]), True
    frame[1] = None
    return (*path, *at), False


class _Reader:
    """One pass over the events of a document."""

    def __init__(self, text: str, document: Document) -> None:
        self._loader: Any = _Loader(text)  # events without marks are possible for its types, not for a text
        self._document = document
        self._nodes = 0

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
                mark: Any = second.start_mark
                message = "a second document (---): one file is one document"
                self._document.fail(mark.line + 1, mark.column + 1, "not YAML", f"not YAML: {message}")
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
            message = "aliases (*name) are not used here: write it out, or put it where it is inherited from"
            return self._break(event, path, message)
        if len(path) >= _DEEPEST:
            self._stop(event, path, "nested too deeply", "nested too deeply")
        value = self._mapping(path) if type(event) is yaml.MappingStartEvent else self._sequence(path)
        return self._break(event, path, "tags are not used here") if event.tag is not None else value

    def _scalar(self, event: Any, path: Path) -> Any:
        if event.tag is not None:
            return self._break(event, path, "tags are not used here")
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
            key = self._key(event, path)
            below = (*path, key) if key is not None else path
            if key is None:
                self._skip(get())
            elif key in first:
                shown = f"key '{key}'" if self._document.may_name(below) else "a key"
                message = f"{shown} is there twice; first in line {first[key] + 1}"
                self._note(event, below, "duplicate key", message, at_key=True)
                self._node(get(), below)
            else:
                first[key] = event.start_mark.line
                found[key] = self._node(get(), below)
        return found

    def _key(self, event: Any, path: Path) -> str | None:
        """A key, also one that is reported; None for what has no name."""
        self._nodes += 1
        if type(event) is not yaml.ScalarEvent:
            alias = type(event) is yaml.AliasEvent
            message = "aliases (*name) are not used here: write it out" if alias else "a key must be a word"
            self._note(event, path, _NOT_USED, message)
            self._skip(event)
            return None
        key = str(event.value)
        if event.tag is not None:
            self._note(event, (*path, key), _NOT_USED, "tags are not used here", at_key=True)
        elif event.implicit[0]:
            if key == "<<":
                self._note(event, path, _NOT_USED, "merge keys (<<) are not used here: write the keys out")
                return None
            scalar = read_plain(key)
            if scalar.fault or not isinstance(scalar.value, str):
                self._note(event, (*path, key), "ambiguous value", *_of_key(scalar), at_key=True)
        # Known by its text all the same, so that nothing else is said to be missing for it.
        return key

    def _skip(self, event: Any) -> None:
        """Pass over a node that has no place in the value."""
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

    def _break(self, event: Any, path: Path, message: str) -> _Broken:
        self._note(event, path, _NOT_USED, message, broken=True)
        return BROKEN

    def _stop(self, event: Any, path: Path, kind: Kind, message: str) -> None:
        self._note(event, path, kind, message, broken=True)
        raise _TooMuchError

    def _note(
        self, event: Any, path: Path, kind: Kind, message: str, quiet: str = "", *, at_key: bool = False,
        broken: bool = False,
    ) -> None:  # fmt: skip
        mark = event.start_mark
        fault = _Fault(path, kind, message, at_key=at_key, mark=(mark.line, mark.column), quiet=quiet)
        self._document.note(fault, broken=broken)


def _of_key(scalar: Scalar) -> tuple[str, str]:
    """What is wrong with a key that is not text, in full and without the key."""
    if scalar.fault:
        return scalar.fault, scalar.quiet_fault
    message = f"a name that is read as {kind_of(scalar.value)}: put it in quotes"
    return message, message
