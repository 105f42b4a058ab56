"""A Config as JSON and back. Pure.

The process that reads the config sends its answer in this form: data, never code. Each class of the model has a table,
in which equal objects are one row, so that clients of one provider share it after decoding too. A row is a list of the
values of the fields. An object of the model is written as the number of its row. Decoding checks the model's types.
"""

from __future__ import annotations

import json
import types
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any, Final, Literal, Union, get_args, get_origin, get_type_hints

from bearerd import model

_Row = list[Any]
_Make = Callable[[Any], Any]


def encode(config: model.Config) -> bytes:
    """A config as JSON."""
    tables: dict[str, list[_Row]] = {}
    known: dict[Any, int] = {}

    def plain(value: Any) -> Any:
        if isinstance(value, tuple):
            return [plain(item) for item in value]
        if not is_dataclass(value):
            return value
        number = known.get(value)
        if number is None:
            row = [plain(getattr(value, field.name)) for field in fields(value)]
            table = tables.setdefault(type(value).__name__, [])
            number = known[value] = len(table)
            table.append(row)
        return number

    plain(config)
    return json.dumps(tables).encode()


def decode(content: bytes) -> model.Config:
    """The config of `encode`; raises ValueError for anything else."""
    decoder = _Decoder()
    try:
        return decoder.config(json.loads(content))
    except (KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"not a config: {type(error).__name__}") from None
    finally:
        decoder.clear()


class _Decoder:
    """Makes the objects of the tables, each once."""

    def __init__(self) -> None:
        self._tables: dict[str, list[_Row]] = {}
        self._makers: dict[type, list[_Make]] = {}
        self._made: dict[tuple[type, int], Any] = {}

    def config(self, tables: dict[str, list[_Row]]) -> model.Config:
        """The config in these tables."""
        self._tables = tables
        config: model.Config = self._object(model.Config, 0)
        return config

    def clear(self) -> None:
        """Forget the tables. The makers refer to the decoder, so it would keep them until a garbage collection."""
        self._tables, self._makers, self._made = {}, {}, {}

    def _object(self, kind: type[Any], number: Any) -> Any:
        """The object in a row of a class's table."""
        if type(number) is not int or number < 0:
            raise ValueError("not a config: no such row")
        made = self._made.get((kind, number))
        if made is None:
            row = self._tables[kind.__name__][number]
            makers = self._makers_of(kind)
            if len(row) != len(makers):
                raise ValueError(f"not a config: {len(row)} fields of {kind.__name__}")
            made = self._made[kind, number] = kind(*[make(value) for make, value in zip(makers, row, strict=True)])
        return made

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
        if isinstance(hint, type) and is_dataclass(hint):
            return lambda number: self._object(hint, number)
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
        text = _scalar((str,)) if str in arguments else None
        optional = types.NoneType in arguments
        others = [argument for argument in arguments if argument not in {str, types.NoneType}]
        (other,) = [self._maker(argument) for argument in others] or [_scalar(())]

        def make(value: Any) -> Any:
            if value is None and optional:
                return None
            return text(value) if text and isinstance(value, str) else other(value)

        return make


_SCALARS: Final[dict[Any, tuple[type, ...]]] = {str: (str,), bool: (bool,), int: (int,), float: (float, int)}


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
