"""One file of the config: its value, and its faults as problems with their place and source line. Pure.

`source` reads the text, and the rest of the package reports what is wrong with the values. Which parts of a source
line may be shown is decided by `redaction`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

import yaml

from bearerd.config.realign import Realigned
from bearerd.config.recovery import without_mistake
from bearerd.config.redaction import (
    Path,
    Piece,
    Shows,
    excerpt,
    excerpt_of_no_yaml,
    is_plain_key,
    is_plain_value,
    leads_to_secret,
    takes_secret,
)
from bearerd.config.scalar import NO_VALUE
from bearerd.config.source import BROKEN, Fault, has_content, read, walk
from bearerd.config.syntax import explain
from bearerd.errors import Kind, Problem

MOST_PROBLEMS: Final = 1000
"""A file with more errors is not a config, and nobody reads them all."""
# A text with more mistakes is probably in another language.
_MOST_MISTAKES: Final = 10
# Their entries are the parts that are left out.
_ENTRIES: Final = frozenset({"providers", "clients"})
# Keys below which there may be free text, and secrets under any name.
_FREE_TEXT: Final = frozenset({"parameters", "headers", "assertion_claims", "vars", "run", "command"})
# Keys in place of whose mapping somebody may write a URL with a password.
_SERVERS: Final = frozenset({"share", "redis"})


class Document:
    """One YAML file: its `value`, and the `problems` of it.

    `shows` says of a path whether its value may be shown in an error. With `realigned`, that text is read instead, and
    errors are reported at their place in the one that was written.
    """

    def __init__(
        self,
        text: str,
        file: str,
        *,
        may_be_empty: bool = False,
        shows: Shows = lambda _: True,
        vocabulary: frozenset[str] = frozenset(),
        realigned: Realigned | None = None,
    ) -> None:
        self.file = file
        self.value: Any = BROKEN
        self._text = realigned.text if realigned else text
        self._written = text
        self._shift = realigned.moved if realigned else {}  # columns by line
        self._shows = shows
        self._vocabulary = vocabulary
        self._faults: list[Fault] = []
        self._dropped = 0
        self._broken: set[Path] = set()
        self._moved: dict[Path, Path] = {}
        self._left_out: list[int] = []  # the last line of each part
        self._failed: list[Problem] = []
        self._marks: dict[tuple[Path, bool], tuple[int, int]] | None = None
        self.complete = True
        """Whether all of the text was read, if perhaps with faults."""
        try:
            self.value = self._value()
        except yaml.reader.ReaderError:
            self.complete = False
            self._character()
        for fault in realigned.faults if realigned else ():
            self.note(fault)
        self._read = self.value
        if self.value is None and not has_content(self._text):
            self.value, self._marks = {}, {}  # the end of a `---` is no place in it
            # One without even a comment is being written: a shell's `>` empties it first.
            if not may_be_empty or not text.strip():
                do = "remove it, or leave a comment in it" if may_be_empty else "bearerd init writes a first config"
                self.fail(1, 1, "the file is empty", f"the file is empty; {do}")

    def fail(self, line: int, column: int, kind: str, message: str = "") -> None:
        """Note a fault of the file as a whole. Line and column count from 1."""
        self._failed.append(Problem(self.file, line, column, kind, message or kind))

    def add(self, path: Path, message: str, kind: Kind = "wrong value", *, at_key: bool = False) -> None:
        """Report the value, or the key, at a path, unless a part of the path was reported already."""
        path = self._real(path)
        above = path[:-1] if at_key else path
        if not any(above[:length] in self._broken for length in range(len(above) + 1)):
            self.note(Fault(path, kind, message, at_key=at_key))

    def move(self, path: Path, written: Path) -> None:
        """From now on, the value at `path` is the one that is written at another path."""
        self._moved[path] = written

    def _real(self, path: Path) -> Path:
        """Where the text has what is at a path."""
        for length in range(len(path), 0, -1) if self._moved else ():
            if (written := self._moved.get(path[:length])) is not None:
                return self._real((*written, *path[length:]))
        return path

    def note(self, fault: Fault, *, broken: bool = False) -> None:
        """Note a fault; with `broken`, nothing more is reported of its path."""
        if broken:
            self._broken.add(fault.path)
        if self._may_be_left_out(fault):
            return
        if len(self._faults) < MOST_PROBLEMS:
            self._faults.append(fault)
        else:
            self._dropped += 1

    def _may_be_left_out(self, fault: Fault) -> bool:
        """Whether a fault may be due to a part that was left out: the missing key, or the name between two keys."""
        if _ENTRIES.isdisjoint(fault.path[:1]):
            return False
        if fault.kind == "missing key":
            return bool(self._left_out)
        first, mark = fault.first, fault.mark
        return first is not None and mark is not None and any(first <= line < mark[0] for line in self._left_out)

    def skip(self, path: Path) -> None:
        """Report nothing more of a path."""
        self._broken.add(self._real(path))

    def has(self, kind: Kind) -> bool:
        """Whether a fault of this kind was found in it."""
        return any(fault.kind == kind for fault in self._faults)

    @property
    def broken(self) -> bool:
        """Whether anything is wrong so far."""
        return bool(self._faults or self._failed)

    @property
    def failed(self) -> bool:
        """Whether the file as a whole has a fault."""
        return bool(self._failed)

    @property
    def full(self) -> bool:
        """Whether there are too many faults to look for more."""
        return self._dropped > 0

    @property
    def problems(self) -> list[Problem]:
        """Every fault, in the order in which they were found."""
        marks = [fault.mark or self._mark(fault.path, at_key=fault.at_key) for fault in self._faults]
        pieces = self._pieces({line for line, _ in marks})
        lines = self._lines({line for line, _ in marks})
        found = list(self._failed)
        marks = [(line, max(0, column - self._shift.get(line, 0))) for line, column in marks]
        written = self._written.splitlines() if marks else []
        for fault, (line, column) in zip(self._faults, marks, strict=True):
            seen = excerpt(lines[line], pieces[line], column) if line in lines and line in pieces else None
            quiet = fault.quiet and not (seen and self._may_show(fault.path))
            message = fault.quiet if quiet else fault.message
            if message == NO_VALUE and line < len(written) and re.match(r"\s+#", written[line][column:]):
                message = "expected a value, found a comment: a value that begins with # must be in quotes"
            source, caret = (seen.text, seen.caret) if seen else (None, 0)
            found.append(Problem(self.file, line + 1, column + 1, fault.kind, message, source, caret))
        if self._dropped:
            message = f"and {self._dropped} more errors; is this the right file?"
            line, column = max(marks)  # problems are sorted by place, and this one is the last
            found.append(Problem(self.file, line + 1, column + 1, "too many errors", message))
        return found

    def position(self, path: Path) -> str:
        """`file:line` of the key at a path."""
        line, _ = self._mark(self._real(path), at_key=True)
        return f"{self.file}:{line + 1}"

    # -- the second pass -----------------------------------------------------------------------

    def _mark(self, path: Path, *, at_key: bool) -> tuple[int, int]:
        """Line and column (from 0) of a path, without those of its parts that do not exist."""
        if self._marks is None:
            self._marks = {}
            for where, is_key, event in walk(self._text):
                self._marks.setdefault((where, is_key), (event.start_mark.line, event.start_mark.column))
        exact: Path = ()
        value = self._read
        for part in path:
            known = part in value if isinstance(value, dict) else isinstance(value, list) and part in range(len(value))
            if known:
                exact, value = (*exact, part), value[part]
        found = self._marks.get((exact, at_key)) or self._marks.get((exact, False))
        return found or (0, 0)

    def _pieces(self, lines: set[int]) -> dict[int, list[Piece]]:
        """The keys and values on these lines; none of a line that may hold a secret, or a part of one."""
        found: dict[int, list[Piece]] = {}
        secret: set[int] = set()
        # A file that is not a mapping is no config, and could be a list of passwords or a private key.
        if not lines or not isinstance(self.value, dict):
            return found
        last = max(lines)
        for path, is_key, event in walk(self._text):
            start, end = event.start_mark, event.end_mark
            if start.line > last:
                break
            if not isinstance(event, yaml.ScalarEvent) or lines.isdisjoint(range(start.line, end.line + 1)):
                continue
            if leads_to_secret(path):
                secret.update(range(start.line, end.line + 1))
            elif start.line == end.line:
                shown = self.may_name(path) if is_key else self._may_show(path) and is_plain_value(event.value)
                # The piece of a tagged or anchored scalar begins with its tag or anchor.
                shown = shown and event.tag is None and event.anchor is None
                shift = self._shift.get(start.line, 0)
                found.setdefault(start.line, []).append(Piece(start.column - shift, end.column - shift, shown))
        return {line: pieces for line, pieces in found.items() if line not in secret}

    def _lines(self, wanted: set[int]) -> dict[int, str]:
        """These lines, without those that look as if they held a secret."""
        # YAML 1.1 ends lines at CR, NEL and the Unicode separators too, and so does splitlines.
        lines = enumerate(self._written.splitlines()) if wanted else ()
        return {number: line for number, line in lines if number in wanted and not takes_secret(line)}

    def may_name(self, path: Path) -> bool:
        """Whether a key may be shown: not below an unknown one, nor below one that takes a secret."""
        return (
            is_plain_key(str(path[-1]))
            and not leads_to_secret(path[:-1])
            and (len(path) == 1 or self._shows(path[:-1]))
        )

    def _may_show(self, path: Path) -> bool:
        argument = path[-2:-1] == ("run",) and path[-1] != 0  # of a hook, such as `curl -u user:password`
        server = next((part for part in reversed(path) if isinstance(part, str)), None) in _SERVERS
        free_text = argument or server or not _FREE_TEXT.isdisjoint(path)
        return bool(path) and not free_text and not leads_to_secret(path) and self._shows(path)

    # -- faults of the text itself ----------------------------------------------------

    def _value(self) -> Any:
        """The value of the text; of a text that is not YAML, the value of the parts without a mistake."""
        end = -1
        for _ in range(_MOST_MISTAKES):
            try:
                value = read(self._text, self)
            except yaml.MarkedYAMLError as error:
                self.complete = False
                line = self._syntax(error, end)
                self._forget_faults()
                if line is None:
                    break
                self._text, end = without_mistake(self._text, line)
                self._left_out.append(end)
            else:
                # Of a text with mistakes that is no config, such as a list of passwords, nothing is named.
                if self.complete:
                    return value
                if isinstance(value, dict) and value and value.keys() <= self._vocabulary:
                    # A key whose value was left out has none.
                    return {key: each for key, each in value.items() if each is not None}
                break
        # Then only the first mistake counts, and the others are its consequences.
        del self._failed[1:]
        self._forget_faults()
        return BROKEN

    def _forget_faults(self) -> None:
        """Forget the faults of a text that is read once more, or not at all."""
        self._faults.clear()
        self._broken.clear()
        self._dropped = 0

    def _syntax(self, error: yaml.MarkedYAMLError, end: int) -> int | None:
        """Report a mistake in the text after this line.

        Returns the line of the mistake, or None if the rest of the text cannot be checked.
        """
        last = bracket = None
        for _, _, event in walk(self._text):
            if isinstance(event, yaml.ScalarEvent):
                last = event
            elif isinstance(event, yaml.CollectionStartEvent) and event.flow_style:
                bracket = event
        found = explain(self._text, error, last, bracket)
        if found.line <= end:
            return None  # a consequence of the one before
        if any(found.message == problem.message and "line " in found.message for problem in self._failed):
            return found.line  # the same mistake, which is in the line that the message names
        text = self._lines({found.line}).get(found.line, "")
        column = max(0, found.column - self._shift.get(found.line, 0))
        seen = excerpt_of_no_yaml(text, self._vocabulary, column)
        source, caret = (seen.text, seen.caret) if seen else (None, 0)
        place = (self.file, found.line + 1, column + 1)
        self._failed.append(Problem(*place, found.kind, found.message, source, caret))
        return found.line if found.alone else None

    def _character(self) -> None:
        # The position in PyYAML's error is of no use: one of its parsers counts bytes, the other characters.
        found = yaml.reader.Reader.NON_PRINTABLE.search(self._text)
        position = found.start() if found is not None else 0
        # The line ends of YAML 1.1, as in `_lines`.
        above = f"{self._text[:position]}^".splitlines()
        code = ord(self._text[position])
        message = f"a character that YAML does not allow (U+{code:04X})"
        if not code and self._text[:2].count("\0") == 1:
            message = "this looks like UTF-16: save the file as UTF-8"
        line = len(above)
        self.fail(line, max(1, len(above[-1]) - self._shift.get(line - 1, 0)), "not YAML", message)


@dataclass(frozen=True, slots=True)
class Node:
    """A part of a document: its path, and for a provider or a client its value as the file has it."""

    document: Document
    path: Path
    value: Any = None

    def child(self, *path: str | int) -> Node:
        """A part of this part, without its value."""
        return Node(self.document, (*self.path, *path))

    def add(self, below: Path, message: str, kind: Kind = "wrong value", *, at_key: bool = False) -> None:
        """Report what is wrong with the value, or the key, at a path below this part."""
        self.document.add((*self.path, *below), message, kind, at_key=at_key)
