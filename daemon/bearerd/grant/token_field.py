"""Where the token is in a reply: the config's `token_field`, a dotted path. Pure.

Lifetime, type, scope and other fields are read from the object that holds the token. A field at another level may
describe something else, such as a session.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from bearerd.plural import counted

# Only texts that look like names are shown: a reply can have any text as a name. The longest one in use has
# 26 characters, and tokens are longer than 31.
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,30}")
# Names in a message. Token replies have about six fields.
_MOST_NAMES: Final = 8
# Names that a token has at some provider, the most telling first.
_TOKENS: Final = ("access_token", "accessToken", "token", "id_token")
# Objects within objects in which a token is looked for. No known reply has it deeper.
_DEEPEST: Final = 2


class NoTokenError(Exception):
    """The reply has no token there. The text says what the reply has; it is safe to show."""

    hint: str | None = None
    """The setting for a token that is elsewhere in the reply."""


def find(fields: Mapping[str, Any], path: str, is_secret: Callable[[str], bool]) -> tuple[Mapping[str, Any], str]:
    """The object that holds the token, and the token; raises NoTokenError.

    A name for which `is_secret` is true is not shown.
    """
    try:
        return _at(fields, path, is_secret)
    except NoTokenError as error:
        objects = list(_objects(fields, "", is_secret))
        there = (f"{at}{name}" for name in _TOKENS for at, inner in objects if _is_token(inner.get(name)))
        found = next(there, None)
        error.hint = f"set token_field: {found}" if found else None
        raise


def _at(fields: Mapping[str, Any], path: str, is_secret: Callable[[str], bool]) -> tuple[Mapping[str, Any], str]:
    *outer, last = path.split(".")
    holder, passed = fields, ""
    for name in outer:
        inner = holder.get(name)
        passed = f"{passed}.{name}" if passed else name
        if name not in holder:
            raise NoTokenError(f"the reply has no {passed}; {_names(holder, passed.rpartition('.')[0], is_secret)}")
        if not isinstance(inner, dict):
            raise NoTokenError(f"{passed} in the reply is {'null' if inner is None else 'not an object'}")
        holder = inner
    token = holder.get(last)
    if last not in holder:
        raise NoTokenError(f"the reply has no {path}; {_names(holder, passed, is_secret)}")
    if not isinstance(token, str):
        raise NoTokenError(f"{path} in the reply is {'null' if token is None else 'not text'}")
    if not token:
        raise NoTokenError(f"{path} in the reply is empty")
    return holder, token


def _is_token(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _objects(
    holder: Mapping[str, Any], at: str, is_secret: Callable[[str], bool]
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """An object and those within it, each with its path and a dot; those with unusual names are left out."""
    yield at, holder
    for name, inner in holder.items():
        if isinstance(inner, dict) and at.count(".") < _DEEPEST and _NAME.fullmatch(name) and not is_secret(name):
            yield from _objects(inner, f"{at}{name}.", is_secret)


def _names(holder: Mapping[str, Any], path: str, is_secret: Callable[[str], bool]) -> str:
    """`it has: data, status`, or `data has: token`: the names of an object's fields."""
    names = sorted(name for name in holder if _NAME.fullmatch(name) and not is_secret(name))[:_MOST_NAMES]
    others = len(holder) - len(names)
    more = [counted(others, "other")] if others else []
    return f"{path or 'it'} has: {', '.join([*names, *more]) or 'no fields'}"
