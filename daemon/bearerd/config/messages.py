"""The texts of errors about keys, names and types; and which keys there are. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from typing import Any, Final, get_args, get_origin

from pydantic import BaseModel

from bearerd.config import models, types
from bearerd.config.redaction import Path, is_plain_key, takes_secret
from bearerd.config.scalar import kind_of
from bearerd.config.suggest import near
from bearerd.errors import Kind

# A name with one of these could be a URL with a password in it, or a line of an env file.
_COULD_HOLD_A_SECRET: Final = re.compile(r"[:=@]")

# A client has about 40 keys. But a config may have thousands of providers, and a thousand errors that would list them.
_MOST_LISTED: Final = 50


def bad_name(name: str) -> str:
    """The error for a malformed name of a provider, client or token."""
    if len(name) >= 100:  # noqa: PLR2004 - a name of that length would fill a line of the terminal
        return "invalid name: longer than 64 characters"
    shown = "" if _COULD_HOLD_A_SECRET.search(name) else f" {name!r}"
    return f"invalid name{shown}: expected a letter or digit, then up to 63 letters, digits, '.', '_' or '-'"


def listed(names: Iterable[str]) -> str:
    """`'a', 'b', 'c'`; of very many names the first ones."""
    names = list(names)
    more = [f"and {len(names) - _MOST_LISTED} more"] if len(names) > _MOST_LISTED else []
    return ", ".join([*(f"'{name}'" for name in names[:_MOST_LISTED]), *more])


def unknown_key(key: str, known: Iterable[str], hint: str = "") -> str:
    """The error for an unknown key; `hint` replaces the suggestion."""
    known = list(known)
    shown = f"unknown key {key!r}" if is_plain_key(key) else "unknown key"
    return shown + (hint or near(key, known) or f"; expected one of {listed(known)}")


def message_of(detail: Any, model: type[BaseModel], loc: Path, *, at_key: bool) -> str:
    """The text of one of pydantic's errors."""
    kind, context = detail["type"], detail.get("ctx", {})
    key = str(loc[-1]) if loc else ""
    if kind == "fault":
        return str(detail["msg"])
    if kind == "extra_forbidden":
        if any(map(takes_secret, loc[:-1])):
            # `client_secret: {hunter2}` is a mapping with one key, which is the secret.
            return f"unknown key; expected one of {listed(keys_at(model, loc[:-1]))}"
        keys = keys_at(model, loc[:-1])
        return unknown_key(key, keys)
    if kind == "missing":
        return f"key '{key}' is missing"
    if kind == "literal_error":
        given = detail.get("input")
        hint = near(given, re.findall(r"'([^']*)'", context["expected"])) if isinstance(given, str) else ""
        return f"expected {context['expected']}{hint}"
    if kind == "string_pattern_mismatch":
        named = at_key and context["pattern"] == f"^{types.NAME}$"
        form = f"expected {'a name' if at_key else 'text'} of the form {context['pattern']}"
        return bad_name(key) if named else form
    if kind in {"greater_than_equal", "less_than_equal"}:
        bound = context.get("ge", context.get("le"))
        return f"expected a whole number, {'at least' if 'ge' in context else 'at most'} {bound}"
    if kind in {"too_short", "too_long"}:
        most = context.get("max_length")
        return "expected at least one entry" if kind == "too_short" else f"expected at most {most} entries"
    wanted = {
        "string_type": "text (in quotes)",
        "int_type": "a whole number",
        "int_from_float": "a whole number",
        "bool_type": "true or false",
        "list_type": "a list",
        "dict_type": "a mapping",
        "model_type": "a mapping",
        "model_attributes_type": "a mapping",
    }.get(kind)
    return f"expected {wanted}, found {kind_of(detail.get('input'))}" if wanted else str(detail["msg"])


def keys_at(model: type[BaseModel], loc: Path) -> list[str]:
    """The keys that a model has at a path below it."""
    current: Any = model
    parts = iter(loc)
    for part in parts:
        if current is not None and part in current.model_fields:
            annotation = current.model_fields[str(part)].annotation
            current = _models_in(annotation)
            if _is_mapping(annotation):
                next(parts, None)  # skip the name, which may be equal to a key
    return list(current.model_fields) if current is not None else []


def kind_of_problem(detail: Any, *, at_key: bool) -> Kind:
    """The kind of one of pydantic's errors."""
    if detail["type"] == "extra_forbidden":
        return "unknown key"
    if detail["type"] == "missing":
        return "missing key"
    return "malformed name" if at_key else "wrong value"


def may_show(path: Path) -> bool:
    """Whether the config has a key at this path. Only then may its value be shown, if `redaction` allows it."""
    current: Any = models.ConfigFile
    parts = iter(path)
    for part in parts:
        if isinstance(part, int):  # the index in a list
            continue
        if current is None or part not in current.model_fields:
            return False
        annotation = current.model_fields[part].annotation
        current = _models_in(annotation)
        if _is_mapping(annotation):
            next(parts, None)  # skip the name
    return True


@cache
def vocabulary() -> frozenset[str]:
    """Every key of the config."""
    found: set[str] = set()
    todo: list[Any] = [models.ConfigFile]
    while todo:
        model = todo.pop()
        for name, field in model.model_fields.items():
            found.add(name)
            if (below := _models_in(field.annotation)) is not None:
                todo.append(below)
    return frozenset(found)


def _is_mapping(annotation: Any) -> bool:
    """Whether a type is a dict with free keys, perhaps inside Optional or Annotated."""
    return get_origin(annotation) is dict or any(
        _is_mapping(argument) for argument in get_args(annotation) if get_origin(annotation) is not list
    )


def _models_in(annotation: Any) -> Any:
    """The one model inside Optional, Annotated, list and dict."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in get_args(annotation):
        if (found := _models_in(argument)) is not None:
            return found
    return None
