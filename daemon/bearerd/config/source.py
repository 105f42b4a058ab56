"""YAML text -> plain values that know their places. Pure.

PyYAML speaks YAML 1.1, where `no` is false, `0640` is 416, `12:30:45` is 45045 and `2026-11-23` a date.
None of these is what whoever wrote it meant, so each is an error here, as are duplicate keys and aliases.
All errors are collected; what is wrong is replaced by BROKEN, so that it is complained of once.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any, Final

import yaml

from bearerd.errors import Problem

try:
    from yaml import CSafeLoader as _Loader
except ImportError:  # PyYAML built without libyaml: slower, the same language
    from yaml import SafeLoader as _Loader  # type: ignore[assignment]

Path = tuple[str | int, ...]


class _Broken:
    """Stands for a value that was complained of already."""

    def __repr__(self) -> str:
        return "<broken>"


BROKEN: Final = _Broken()

# Keys under which somebody could have written a secret, rightly or not: their lines are not shown.
_TAKES_SECRET = re.compile(
    r"secret|pass|pwd?\b|key\b|assertion|credential|(access|subject|actor|refresh)_token|\b(device_)?code\b",
    re.IGNORECASE,
)
# What is near one of these is one of them, mistyped.
_SECRET_WORDS = ("client_secret", "secret", "password", "private_key", "assertion", "subject_token")
# Real ones have six levels; ten thousand would overflow the C stack of libyaml's composer.
_DEEPEST = 50

# 18 digits are a number to everybody; Python itself reads no more than 4300.
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]{0,17})")
_FLOAT = re.compile(r"[-+]?(0|[1-9][0-9]*)\.[0-9]+([eE][-+]?[0-9]+)?")
_TAG = "tag:yaml.org,2002:"
_ALIAS = "aliases (*name) are not used here: write it out, or put it where it is inherited from"


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that was probably meant."""
    # "secret" is near client_secret, "listen" is not near clients.
    found = difflib.get_close_matches(word, list(known), n=1, cutoff=0.62)
    return found[0] if found else None


def near(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` where one of the known words is near, else nothing."""
    found = nearest(word, known)
    return f"; did you mean '{found}'?" if found else ""


def takes_secret(name: object) -> bool:
    """Whether something under this key (or in this line) may be, or was meant to be, a secret."""
    if not isinstance(name, str):
        return False
    words = re.findall(r"[a-z_]{5,}", name.lower())
    return _TAKES_SECRET.search(name) is not None or any(
        difflib.get_close_matches(word, _SECRET_WORDS, n=1, cutoff=0.75) for word in words
    )


class Document:
    """One YAML file: its `value`, its `problems`, and the place of every path in it."""

    def __init__(self, text: str, file: str, *, may_be_empty: bool = False) -> None:
        self.file = file
        self.problems: list[Problem] = []
        self._broken: list[Path] = []
        self._lines = text.splitlines()
        self._root: yaml.Node | None = None
        self._composed: set[int] = set()
        self.value: Any = BROKEN
        try:
            aliases = self._scan(text)
            if aliases is None:
                return
            self._root = yaml.compose(text, Loader=_Loader)
        except yaml.MarkedYAMLError as error:
            self._syntax(error)
            return
        except yaml.reader.ReaderError:
            self._character(text)
            return
        if self._root is None:
            self.value = {}
            if not may_be_empty:
                self.problems.append(Problem(file, 1, 1, "the file is empty"))
            return
        for mark in aliases:
            self.problems.append(Problem(file, mark.line + 1, mark.column + 1, _ALIAS, self._shown(mark.line)))
        self.value = self._plain(self._root, ())

    def add(self, path: Path, message: str, *, at_key: bool = False) -> None:
        """Complain of what stands at the path, or of its key, unless it was complained of already.

        Of a line with a key that is wrong only the key is shown: its value could be anything.
        """
        above = path[:-1] if at_key else path
        if any(above[: len(broken)] == broken for broken in self._broken):
            return
        mark = self._find(path, at_key=at_key)
        line, column = (mark.line, mark.column) if mark is not None else (0, 0)
        source = None if any(map(takes_secret, path)) else self._shown(line)
        if source is not None and at_key:
            # In JSON's form no space stands after the colon.
            source = source[:column] + re.sub(r"(?<=[\"']):\S.*|:\s+[^\s#].*", ": …", source[column:])
        self.problems.append(Problem(self.file, line + 1, column + 1, message, source))

    def where(self, path: Path) -> str:
        """`file:line` of a path's key, for messages that name two places."""
        mark = self._find(path, at_key=True)
        return f"{self.file}:{mark.line + 1}" if mark is not None else self.file

    # -- from nodes to values ------------------------------------------------------------------

    def _plain(self, node: yaml.Node, path: Path) -> Any:
        if id(node) in self._composed:
            # An alias is the node that its anchor is at.
            self._broken.append(path)
            return BROKEN
        self._composed.add(id(node))
        if not self._known_tag(node):
            return self._break(path, "tags are not used here", node)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self._plain(item, (*path, index)) for index, item in enumerate(node.value)]
        return self._scalar(node, path)

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        result: dict[str, Any] = {}
        first: dict[str, yaml.Node] = {}
        for key_node, value_node in node.value:
            key = self._key(key_node, path)
            if key is None:
                continue
            if key in first:
                shown = "a key" if any(map(takes_secret, path)) else f"key '{key}'"
                line = first[key].start_mark.line + 1
                self._complain((*path, key), f"{shown} stands twice; first in line {line}", key_node, quotes=False)
                continue
            first[key] = key_node
            result[key] = self._plain(value_node, (*path, key))
        return result

    def _key(self, node: yaml.Node, path: Path) -> str | None:
        if not isinstance(node, yaml.ScalarNode):
            self._complain(path, "a key must be a word", node)
            return None
        if node.tag == _TAG + "merge":
            self._complain(path, "merge keys (<<) are not used here: write the keys out", node)
            return None
        value, fault = _read_scalar(node)
        if not self._known_tag(node):
            self._complain(path, "tags are not used here", node)
        elif fault is not None or not isinstance(value, str):
            self._complain(path, fault or f"a name that is read as {_kind(value)}: put it in quotes", node)
        # Known by its text all the same, so that nothing else is said to be missing for it.
        return str(node.value)

    def _scalar(self, node: yaml.Node, path: Path) -> Any:
        value, fault = _read_scalar(node)
        return value if fault is None else self._break(path, fault, node)

    def _known_tag(self, node: yaml.Node) -> bool:
        return node.tag.startswith(_TAG) and node.tag.removeprefix(_TAG) in {
            "str", "null", "bool", "int", "float", "timestamp", "merge", "value", "map", "seq",
        }  # fmt: skip

    def _break(self, path: Path, message: str, node: yaml.Node) -> _Broken:
        self._complain(path, message, node)
        self._broken.append(path)
        return BROKEN

    def _complain(self, path: Path, message: str, node: yaml.Node, *, quotes: bool = True) -> None:
        mark = node.start_mark
        source = None if any(map(takes_secret, path)) else self._shown(mark.line)
        if source is None and quotes and isinstance(node, yaml.ScalarNode) and node.value:
            # The message must not quote what the line would not show.
            message = message.replace(f"'{node.value}'", "this")
            message = re.sub(r"the octal number [0-9]+", "a number", message)
        self.problems.append(Problem(self.file, mark.line + 1, mark.column + 1, message, source))

    # -- what is wrong with the text itself ----------------------------------------------------

    def _scan(self, text: str) -> list[Any] | None:
        """The marks of all aliases; None when the nesting is too deep to be composed."""
        aliases: list[Any] = []
        depth = 0
        for event in yaml.parse(text, Loader=_Loader):
            mark = event.start_mark
            if isinstance(event, yaml.AliasEvent) and mark is not None:
                aliases.append(mark)
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
            elif isinstance(event, yaml.CollectionStartEvent):
                depth += 1
                if depth > _DEEPEST and mark is not None:
                    self.problems.append(Problem(self.file, mark.line + 1, mark.column + 1, "nested too deeply"))
                    return None
        return aliases

    def _syntax(self, error: yaml.MarkedYAMLError) -> None:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line, mark.column) if mark is not None else (0, 0)
        # A broken quote swallows lines: the secret may stand anywhere from where it began.
        began = error.context_mark.line if error.context_mark is not None else line
        source = self._shown(line, min(began, line))
        problem = (error.problem or "this is no YAML").replace("\n", " ")
        if "\\t" in problem or (source is not None and "\t" in source[: column + 1]):
            problem = "YAML is indented with spaces, not tabs"
        elif "increasing flow level" in f"{error.context}":
            # libyaml from 0.2.6 on gives up at a thousand, which it meets before we see any of them.
            problem = "nested too deeply"
        elif "expected a single document" in f"{error.context} {problem}":
            problem = "a second document (---): one file is one document"
        elif source is None:
            # Punctuation may be quoted; a word could be the secret.
            problem = re.sub(r"'[^'\s]{3,}'|\"[^\"\s]{3,}\"", "…", problem)
        self.problems.append(Problem(self.file, line + 1, column + 1, f"not YAML: {problem}", source))

    def _character(self, text: str) -> None:
        # Looked for here: the two parsers of PyYAML count differently, one bytes and one characters.
        found = yaml.reader.Reader.NON_PRINTABLE.search(text)
        position = found.start() if found is not None else 0
        line = text.count("\n", 0, position) + 1
        column = position - text.rfind("\n", 0, position)
        message = f"a character that YAML does not allow (#x{ord(text[position]):04x})"
        self.problems.append(Problem(self.file, line, column, message))

    # -- places --------------------------------------------------------------------------------

    def _shown(self, line: int, began: int | None = None) -> str | None:
        """A source line; None where it, or one that it is indented under, looks as if it held a secret.

        Of a text that is no YAML any line from just before `began` may.
        """
        if line >= len(self._lines):
            return None
        suspects = [line] if began is None else [*range(max(0, began - 1), line + 1)]
        above = self._above[line if began is None else began]
        while above is not None:
            suspects.append(above)
            above = self._above[above]
        hushed = line in self._hushed or any(takes_secret(self._lines[suspect]) for suspect in suspects)
        return None if hushed else self._lines[line]

    @cached_property
    def _hushed(self) -> set[int]:
        """The lines of what stands under a key that takes a secret: in flow form it need not be indented."""
        lines: set[int] = set()
        todo: list[tuple[yaml.Node, bool]] = [(self._root, False)] if self._root is not None else []
        seen: set[int] = set()
        while todo:
            node, secret = todo.pop()
            if id(node) in seen:
                continue  # an alias, perhaps of what it stands in
            seen.add(id(node))
            if isinstance(node, yaml.MappingNode):
                todo += [(value, secret or takes_secret(key.value)) for key, value in node.value]
            elif isinstance(node, yaml.SequenceNode):
                todo += [(item, secret) for item in node.value]
            elif secret:
                lines.update(range(node.start_mark.line, node.end_mark.line + 1))
        return lines

    @cached_property
    def _above(self) -> list[int | None]:
        """For each line, the one that it is indented under."""
        result: list[int | None] = []
        outer: list[tuple[int, int]] = []
        for number, text in enumerate(self._lines):
            # An item's dash counts as indentation, as it does for YAML.
            indent = len(text) - len(text.lstrip(" -"))
            while text.strip() and outer and outer[-1][0] >= indent:
                outer.pop()
            result.append(outer[-1][1] if outer else None)
            if text.strip():
                outer.append((indent, number))
        return result

    def _find(self, path: Sequence[str | int], *, at_key: bool) -> Any:
        """The mark of the deepest part of the path that exists; parts that do not resolve are passed over."""
        node = self._root
        if node is None:
            return None
        mark = node.start_mark
        for part in path:
            if isinstance(node, yaml.MappingNode):
                for key_node, value_node in node.value:
                    if key_node.value == part:
                        node, mark = value_node, (key_node if at_key else value_node).start_mark
                        break
            elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
                node = node.value[part]
                mark = node.start_mark
        return mark


def _read_scalar(node: yaml.Node) -> tuple[Any, str | None]:
    """A scalar's value, or what is wrong with it."""
    text, kind = str(node.value), node.tag.removeprefix(_TAG)
    fault: str | None = None
    value: Any = None
    if kind == "str":
        value = text
    elif kind == "bool":
        value = text == "true"
        if text not in {"true", "false"}:
            fault = f"'{text}' is read as a truth value: write true or false, or put it in quotes"
    elif kind == "int" and _INTEGER.fullmatch(text):
        value = int(text)
    elif kind == "float" and _FLOAT.fullmatch(text) and math.isfinite(float(text)):
        value = float(text)
    elif kind in {"int", "float"}:
        read_as = "a number"
        if ":" in text:
            read_as = "a base-60 number"
        elif re.fullmatch(r"0[0-7]{1,18}", text):
            read_as = f"the octal number {int(text, 8)}"
        fault = f"'{text}' is read as {read_as}: put it in quotes"
    elif kind == "timestamp":
        fault = f"'{text}' is read as a date: put it in quotes"
    elif kind != "null":
        fault = "this is not used here"
    return value, fault


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "a truth value"
    if value is None:
        return "nothing"
    return "a number"
