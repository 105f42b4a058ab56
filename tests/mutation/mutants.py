"""The mutants of a module: those of mutmut's operators, and of three more, less those that cannot matter.

The operators of mutmut change numbers, strings, arguments, operators, assignments and cases, but no condition as a
whole, no call whose result is not used, and no returned value. So three more negate a condition, remove such a call,
and return None.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import libcst as cst
from libcst.metadata import CodePosition, CodeRange, MetadataWrapper, PositionProvider
from mutmut.mutation.mutators import (
    mutation_operators,
    operator_arg_removal,
    operator_assignment,
    operator_string,
)

EXCLUDED = """Not mutated, because no promise depends on it:
- docstrings, annotations, type aliases, decorators, imports, `__slots__`, `__repr__`, type parameters;
- wording: strings with a blank, f-strings, and what stands in calls that raise, format or log a message (but it is
  mutated that the error is raised, and that the line is logged);
- `assert_never` and its case, which mypy proves to be unreachable;
- of the variants of a string only the first one ("XX" around it); of a truth value only its opposite."""

_TYPES = {"Literal", "cast", "TypeVar", "Final", "ClassVar", "NewType"}
_WORDING = {"say", "debug", "info", "warning", "error", "exception", "critical"}


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change of one module. `name` survives changes elsewhere in the module."""

    module: str
    function: str
    """The outermost function or method, with its class; empty for code that runs when the module is imported."""
    change: str
    lines: range
    """The statement that is changed."""
    start: CodePosition
    end: CodePosition
    text: str
    """What replaces this range of the source."""

    @property
    def name(self) -> str:
        """The identity of the mutant."""
        return f"{self.module} {self.function or '<module>'}: {self.change}"

    def source(self, original: str) -> str:
        """The mutated module."""
        return _spliced(original, self.start, self.end, self.text)


def mutants_of(module: str, path: Path) -> list[Mutant]:
    """All mutants of a module, in the order of its text."""
    source = path.read_text()
    wrapper = MetadataWrapper(cst.parse_module(source), unsafe_skip_copy=True)
    visitor = _Visitor(module, source, wrapper.module, wrapper.resolve(PositionProvider))
    wrapper.module.visit(visitor)
    counts: Counter[str] = Counter()
    named = []
    for mutant in visitor.found:
        counts[mutant.name] += 1
        again = counts[mutant.name]
        named.append(mutant if again == 1 else replace(mutant, change=f"{mutant.change} [{again}]"))
    return named


def _spliced(source: str, start: CodePosition, end: CodePosition, text: str) -> str:
    lines = source.splitlines(keepends=True)
    before = [*lines[: start.line - 1], lines[start.line - 1][: start.column]]
    return "".join([*before, text, lines[end.line - 1][end.column :], *lines[end.line :]])


def _condition(node: cst.If) -> Iterable[cst.CSTNode]:
    """Negate a condition; that of a single comparison or `not` is changed by mutmut's operators."""
    if not isinstance(node.test, cst.Comparison | cst.UnaryOperation):
        bracketed = node.test.with_changes(lpar=[cst.LeftParen()], rpar=[cst.RightParen()])
        yield cst.UnaryOperation(cst.Not(), bracketed)


def _call(node: cst.Expr) -> Iterable[cst.CSTNode]:
    """Remove a call whose result is not used."""
    if isinstance(node.value, cst.Call):
        yield cst.Pass()


def _return(node: cst.Return) -> Iterable[cst.CSTNode]:
    """Return nothing."""
    constant = isinstance(node.value, cst.Name) and node.value.value in {"None", "True", "False"}
    if node.value is not None and not constant:
        yield node.with_changes(value=cst.Name("None"))


def _assignment(node: cst.Assign | cst.AnnAssign) -> Iterable[cst.CSTNode]:
    """Assign None, but not for a truth value, of which the opposite is another mutant."""
    if not _is_truth(node.value):
        yield from operator_assignment(node)


def _arguments(node: cst.Call) -> Iterable[cst.CSTNode]:
    """Leave an argument out, or pass None for it, with the same exception."""
    for new in operator_arg_removal(node):
        pairs = zip(node.args, new.args, strict=False)
        if len(new.args) < len(node.args) or not any(_is_truth(old.value) and old is not now for old, now in pairs):
            yield new


def _is_truth(node: cst.CSTNode | None) -> bool:
    return isinstance(node, cst.Name) and node.value in {"True", "False"}


def _first_string(node: cst.BaseString) -> Iterable[cst.CSTNode]:
    yield from list(operator_string(node))[:1]


def _case(_node: cst.MatchCase) -> Iterable[cst.CSTNode]:
    """Remove a case. One that mypy proves to be unreachable is excluded, and stays."""
    yield cst.Pass()


_REPLACED: dict[Any, Any] = {
    operator_string: _first_string,
    operator_assignment: _assignment,
    operator_arg_removal: _arguments,
}
_OPERATORS: list[tuple[type[cst.CSTNode], Any]] = [
    *((kind, _REPLACED.get(operator, operator)) for kind, operator in mutation_operators if kind is not cst.Match),
    (cst.MatchCase, _case),
    (cst.If, _condition),
    (cst.Expr, _call),
    (cst.Return, _return),
]


def _called(node: cst.Call) -> str:
    """The last part of the name of a called function."""
    function = node.func
    if isinstance(function, cst.Attribute):
        return function.attr.value
    return function.value if isinstance(function, cst.Name) else ""


def _is_excluded(node: cst.CSTNode) -> bool:
    """Whether nothing in a node is mutated."""
    match node:
        case cst.Annotation() | cst.Decorator() | cst.Import() | cst.ImportFrom():
            return True
        case (
            cst.FormattedString()
            | cst.ConcatenatedString()
            | cst.SimpleStatementLine(body=[cst.Expr(value=cst.BaseString())])
        ):
            return True  # the last one is a docstring
        case cst.SimpleString():
            return " " in node.value
        case cst.FunctionDef():
            return node.name.value in {"__repr__", "__str__"}
        case cst.MatchCase(
            body=cst.IndentedBlock(body=[cst.SimpleStatementLine(body=[cst.Expr(value=cst.Call() as call)])])
        ):
            return _called(call) == "assert_never"
        case cst.Assign(targets=[cst.AssignTarget(target=cst.Name(value=name))]):
            return name in {"__slots__", "__all__"} or (name[:1].isupper() and not name.isupper())  # a type alias
        case cst.Subscript(value=cst.Name(value=name)):
            return name in _TYPES
        case cst.Call():
            return _called(node) in _TYPES
        case _:
            return False


class _Visitor(cst.CSTVisitor):
    """Collects the mutants, and does not enter what is excluded."""

    def __init__(self, module: str, source: str, tree: cst.Module, positions: Mapping[cst.CSTNode, CodeRange]) -> None:
        super().__init__()
        self.found: list[Mutant] = []
        self._module, self._tree, self._positions = module, tree, positions
        self._lines = source.splitlines()
        self._scope: list[tuple[str, bool]] = []
        self._statements: list[cst.CSTNode] = []
        self._outside = 0
        """How many nodes around are evaluated outside of the function that they belong to, as a default is."""

    def on_visit(self, node: cst.CSTNode) -> bool:
        if _is_excluded(node):
            return False
        if isinstance(node, cst.SimpleStatementLine | cst.BaseCompoundStatement):
            self._statements.append(node)
        self._mutate(node)
        if isinstance(node, cst.Call) and _called(node) in _WORDING:
            return False
        if isinstance(node, cst.Parameters):
            self._outside += 1
        if isinstance(node, cst.FunctionDef | cst.ClassDef):
            self._scope.append((node.name.value, isinstance(node, cst.FunctionDef)))
        return True

    def on_leave(self, original_node: cst.CSTNode) -> None:
        if self._statements and self._statements[-1] is original_node:
            self._statements.pop()
        if isinstance(original_node, cst.Parameters):
            self._outside -= 1
        if isinstance(original_node, cst.FunctionDef | cst.ClassDef) and not _is_excluded(original_node):
            self._scope.pop()

    def _code(self, node: cst.CSTNode) -> str:
        return self._tree.code_for_node(node)

    def _function(self) -> str:
        names = []
        for name, is_function in self._scope:
            names.append(name)
            if is_function:
                return ".".join(names)
        return ""

    def _mutate(self, node: cst.CSTNode) -> None:
        for kind, operator in _OPERATORS:
            if not isinstance(node, kind):
                continue
            for new in operator(node):
                replaced = node.test if isinstance(node, cst.If) and operator is _condition else node
                self._add(replaced, new)

    def _add(self, node: cst.CSTNode, new: cst.CSTNode) -> None:
        place = self._positions[node]
        start, end = place.start, place.end
        text = self._code(_bare(new) if getattr(node, "lpar", None) else new).strip()
        if isinstance(node, cst.ComparisonTarget):  # its range begins with the blank
            text = f" {text}"
        if isinstance(node, cst.MatchCase):
            text = "case _ if False: pass"  # a match needs at least one
        old = "\n".join(self._lines[start.line - 1 : end.line])
        within = _spliced(old, replace(start, line=1), replace(end, line=end.line - start.line + 1), text)
        change = _change(old.splitlines(), within.splitlines())
        if not change:
            return
        statement = self._positions[self._statements[-1]] if self._statements else place
        simple = not self._statements or isinstance(self._statements[-1], cst.SimpleStatementLine)
        last = statement.end.line if simple else place.end.line
        function = "" if self._outside else self._function()
        self.found.append(
            Mutant(self._module, function, change, range(statement.start.line, last + 1), start, end, text)
        )


def _bare(node: cst.CSTNode) -> cst.CSTNode:
    """A node without the brackets around it, which stay in the source."""
    return node.with_changes(lpar=[], rpar=[]) if getattr(node, "lpar", None) else node


def _change(old: list[str], new: list[str]) -> str:
    """The changed lines, as `old => new`."""
    # Within brackets, the replaced text has lost its indentation.
    before, after = [line.strip() for line in old], [line.strip() for line in new]
    shorter = min(len(before), len(after))
    first = next((index for index in range(shorter) if before[index] != after[index]), shorter)
    back = next((index for index in range(shorter - first) if before[-1 - index] != after[-1 - index]), shorter - first)
    removed = " ".join(before[first : len(before) - back])
    added = " ".join(after[first : len(after) - back])
    return f"{removed or 'nothing'} => {added or 'nothing'}" if removed != added else ""
