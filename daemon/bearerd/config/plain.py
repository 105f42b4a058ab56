"""A Config as JSON and back. Pure.

The process that reads the config sends its answer in this form: data, never code. The first line has the config without
its targets, and each other line one target. A row is a list of the values of the fields. Equal objects that several
targets share, such as clients, are one row of a table, written as its number; the first line that needs a row has it.
Decoding checks the model's types. Line by line, and with the objects of the present config where they are equal, it
needs little memory beyond the result: temporary memory for 10,000 targets would stay in the daemon's heap.
"""

from __future__ import annotations

import json
import re
import sys
import types
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from typing import Any, Final, Literal, Union, get_args, get_origin, get_type_hints

from bearerd import model

_Row = list[Any]
_Make = Callable[[Any], Any]
# Only one target or config has each of these: written in place, and not kept for the next line.
_IN_PLACE: Final = (model.Config, model.Target, model.Output)


def encode(config: model.Config) -> bytes:
    """A config as lines of JSON."""
    tables: dict[str, list[_Row]] = {}
    known: dict[Any, int] = {}
    rows: dict[str, int] = {}

    def plain(value: Any) -> Any:
        if isinstance(value, tuple):
            return [plain(item) for item in value]
        if not is_dataclass(value):
            return value
        if not isinstance(value, _IN_PLACE) and value in known:
            return known[value]
        row = [plain(getattr(value, field.name)) for field in fields(value)]
        if isinstance(value, _IN_PLACE):
            return row
        name = type(value).__name__
        tables.setdefault(name, []).append(row)
        known[value] = rows[name] = rows.get(name, -1) + 1
        return known[value]

    lines: list[str] = []
    for value in (replace(config, targets=()), *config.targets):
        row = plain(value)
        lines.append(json.dumps([tables, row]))
        tables = {}
    return "\n".join(lines).encode()


def decode(content: bytes, present: model.Config | None = None) -> model.Config:
    """The config of `encode`, with the objects of the present config where they are equal.

    Raises ValueError for anything else.
    """
    decoder = _Decoder(present)
    try:
        lines = (line[0] for line in re.finditer(rb"[^\n]+", content))
        config: model.Config = decoder.value(model.Config, json.loads(next(lines)))
        return replace(config, targets=tuple([decoder.value(model.Target, json.loads(line)) for line in lines]))
    except (KeyError, IndexError, TypeError, AttributeError, RecursionError, StopIteration) as error:
        raise ValueError(f"not a config: {type(error).__name__}") from None
    finally:
        decoder.clear()


class _Decoder:
    """Makes the objects of the tables, each once."""

    def __init__(self, present: model.Config | None) -> None:
        targets = present.targets if present else ()
        self._present: dict[Any, Any] = {target.full_name: target for target in targets}
        self._present |= {target.client.name: target.client for target in targets}  # targets have a slash
        self._makers: dict[type, list[_Make]] = {}
        self._made: dict[str, list[Any]] = {}
        self._rows: dict[str, list[_Row]] = {}

    def value(self, kind: type[Any], line: Any) -> Any:
        """The value of a line."""
        if len(_list(line)) != 2:  # noqa: PLR2004 - the new rows of the tables, and the value's own
            raise ValueError("not a config: a line without its two parts")
        self._rows, row = line
        return self._make(kind, row)

    def clear(self) -> None:
        """Forget everything. The makers refer to the decoder, so it would stay until a garbage collection."""
        self._present, self._makers, self._made, self._rows = {}, {}, {}, {}

    def _object(self, kind: type[Any], number: Any) -> Any:
        """The object in a row of a class's table."""
        if type(number) is not int or number < 0:
            raise ValueError("not a config: no such row")
        made = self._made.setdefault(kind.__name__, [])
        while number >= len(made):
            made.append(self._make(kind, self._rows[kind.__name__].pop(0)))
        return made[number]

    def _make(self, kind: type[Any], row: Any) -> Any:
        makers = self._makers_of(kind)
        if len(_list(row)) != len(makers):
            raise ValueError(f"not a config: {len(row)} fields of {kind.__name__}")
        made = kind(*[make(value) for make, value in zip(makers, row, strict=True)])
        if kind is model.Target:
            return self._or_present(made.full_name, made)
        return self._or_present(made.name, made) if kind is model.Client else made

    def _or_present(self, name: str, made: Any) -> Any:
        present = self._present.get(name)
        return present if present == made else made

    def _makers_of(self, kind: type[Any]) -> list[_Make]:
        if kind not in self._makers:
            hints = get_type_hints(kind)
            self._makers[kind] = [self._maker(hints[field.name]) for field in fields(kind)]
        return self._makers[kind]

    def _maker(self, hint: Any) -> _Make:
        """The function that decodes values of a type; raises TypeError for a type that no config has."""
        origin, arguments = get_origin(hint), get_args(hint)
        if origin is tuple:
            return self._tuple(arguments)
        if origin is Literal:
            return _one_of(arguments)
        if origin in {Union, types.UnionType}:
            return self._union(arguments)
        if hint in _IN_PLACE:
            return lambda row: self._make(hint, row)
        if isinstance(hint, type) and is_dataclass(hint):
            return lambda number: self._object(hint, number)
        if hint is str:
            return _text
        if hint in _SCALARS:
            return _scalar(_SCALARS[hint])
        raise TypeError(f"a config has no {hint}")

    def _tuple(self, arguments: tuple[Any, ...]) -> _Make:
        if arguments[1:] == (...,):
            make = self._maker(arguments[0])
            return lambda values: tuple([make(value) for value in _list(values)])
        makers = [self._maker(argument) for argument in arguments]
        return lambda values: tuple([make(value) for make, value in zip(makers, _list(values), strict=True)])

    def _union(self, arguments: tuple[Any, ...]) -> _Make:
        """None, a text and the number of a row differ in their JSON type."""
        text = _text if str in arguments else None
        optional = types.NoneType in arguments
        others = [argument for argument in arguments if argument not in {str, types.NoneType}]
        (other,) = [self._maker(argument) for argument in others] or [_scalar(())]

        def make(value: Any) -> Any:
            if value is None and optional:
                return None
            return text(value) if text and isinstance(value, str) else other(value)

        return make


_SCALARS: Final[dict[Any, tuple[type, ...]]] = {bool: (bool,), int: (int,), float: (float, int)}


def _text(value: Any) -> str:
    """Interned: many tokens have the same name or scope."""
    if type(value) is not str:
        raise TypeError
    return sys.intern(value)


def _scalar(kinds: tuple[type, ...]) -> _Make:
    def make(value: Any) -> Any:
        if type(value) not in kinds:
            raise TypeError
        return value

    return make


def _one_of(values: tuple[Any, ...]) -> _Make:
    def make(value: Any) -> Any:
        if value not in values:
            raise TypeError
        return value

    return make


def _list(values: Any) -> list[Any]:
    if not isinstance(values, list):
        raise TypeError
    return values
