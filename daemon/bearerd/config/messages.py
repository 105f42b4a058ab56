"""The texts of errors about keys, names and types. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, Final, Literal, get_args, get_origin

from pydantic import BaseModel

from bearerd.config import models, types
from bearerd.config.keys import key_of
from bearerd.config.places import (
    Place,
    homes,
    is_entry,
    keys_at,
    listed_places,
    model_at,
    named,
    vocabulary,
    written,
)
from bearerd.config.redaction import Path, is_plain_key
from bearerd.config.scalar import kind_of
from bearerd.config.schema import flow
from bearerd.config.suggest import near, near_value, nearest
from bearerd.errors import Kind

# A name with one of these could be a URL with a password in it, or a line of an env file.
_COULD_HOLD_A_SECRET: Final = re.compile(r"[:=@]")
# A config may have thousands of providers, and a thousand errors that would list them.
_MOST_LISTED: Final = 50
# Keys. A client has 45, and a reader looks for one.
_MOST_KEYS: Final = 10
_FORMS: Final = {
    types.VARIABLE: "letters, digits and '_', not beginning with a digit",
    types.PREFIX: "1 to 64 letters, digits, '.', '_', ':' and '-', beginning with a letter or digit",
    types.CREDENTIAL: "letters, digits, '.', '_', '@' and '-'",
}
_WANTED: Final = {
    "string_type": "text in quotes",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
}


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


def misplaced(key: str, known: Iterable[str], here: Place) -> list[Place]:
    """The places that a key belongs to, if it is a key elsewhere; none if a key of this place was meant."""
    known = set(known)
    if not is_plain_key(key) or known & {f"{key}s", key.removesuffix("s")}:
        return []
    return homes(_of_config(key), here)


def _of_config(key: str) -> str:
    """A key of the config in place of its plural: `scope` for `scopes`."""
    singular = key.removesuffix("s")
    return singular if singular in vocabulary() and key not in vocabulary() else key


def misplaced_keys(keys: Sequence[str], places: Sequence[Place], here: Place) -> str:
    """The error for keys that belong to these places."""
    keys = [_of_config(key) for key in keys]
    names = listed(keys[:-1]) + f" and '{keys[-1]}'" if len(keys) > 1 else f"'{keys[0]}'"
    verb = "are keys" if len(keys) > 1 else "is a key"
    text = f"{names} {verb} of {listed_places(places)}, not of {named(here)}"
    example = written(places[0], keys[0], here) if len(keys) == len(places) == 1 else None
    return f"{text}: write {example}" if example else text


def meant(key: str, known: Iterable[str], here: Place) -> str | None:
    """The key of this place that was probably meant by an unknown one."""
    known = list(known)
    if misplaced(key, known, here):
        return None
    name = key.partition(":")[0].lstrip("-")
    return name if name in known else nearest(name, known)


def unknown_key(key: str, known: Iterable[str], here: Place | None = None, *, may_name: bool = True) -> str:
    """The error for an unknown key."""
    known = list(known)
    shown = f"unknown key {key!r}" if may_name and is_plain_key(key) else "unknown key"
    name, colon, rest = key.partition(":")
    if colon and name in known:
        return f"{shown}: " + ("a space is missing after the colon" if rest else "it has two colons")
    if key.startswith("-"):
        return f"{shown}: a space is missing after the dash"
    if hint := near(key, known):
        return shown + hint
    if here is not None and len(known) > _MOST_KEYS:
        return f"{shown}: {named(here)} has no such key; config.example.yaml shows every key"
    return f"{shown}; expected one of {listed(known)}"


def message_of(detail: Any, model: type[BaseModel], loc: Path, here: Place, *, at_key: bool) -> str:
    """The text of one of pydantic's errors at a path below a model, and at this place."""
    kind, context = detail["type"], detail.get("ctx", {})
    key = str(loc[-1]) if loc else ""
    given = detail.get("input")
    if kind == "extra_forbidden":
        # Only below a key that takes a secret: `{hunter2}` is a mapping with one key, which is the secret.
        return f"unknown key; expected one of {listed(keys_at(model, loc[:-1]))}"
    if kind == "missing":
        return f"key '{key}' is missing"
    if kind == "literal_error":
        hint = near_value(given, re.findall(r"'([^']*)'", context["expected"])) if isinstance(given, str) else ""
        return f"unknown value{hint}" if hint else f"expected {context['expected']}"
    if kind == "string_pattern_mismatch":
        if at_key and context["pattern"] == f"^{types.NAME}$":
            return bad_name(key)
        return f"expected {'a name' if at_key else 'text'} of {_FORMS[context['pattern']]}"
    if kind in {"greater_than_equal", "less_than_equal"}:
        bound = context.get("ge", context.get("le"))
        return f"expected a whole number, {'at least' if 'ge' in context else 'at most'} {bound}"
    if kind in {"too_short", "too_long"}:
        most = context.get("max_length")
        return "expected at least one entry" if kind == "too_short" else f"expected at most {most} entries"
    wanted = _WANTED.get(kind)
    if wanted is None:
        return str(detail["msg"])  # written by us
    part = model_at(model, loc)
    quotes = isinstance(given, str) and kind in {"int_type", "bool_type"}
    text = f"expected {wanted}{' without quotes' if quotes else ''}, found {kind_of(given)}"
    is_part = isinstance(part, type) and issubclass(part, models.Part)
    example = _example(kind, given, part, here) if is_part else _example_of_key(kind, model_at(model, loc[:-1]), key)
    return f"{text}; {example}" if example else text


def _example(kind: str, given: Any, part: type[models.Part], here: Place) -> str | None:
    """How a part of the config, a list of parts or parts by name are written."""
    if kind == "list_type":
        return f"for example [{part.example}]"
    if kind == "dict_type":
        return f"for example {{NAME: {part.example}}}"
    if kind not in {"model_type", "model_attributes_type"}:
        return None
    if key := _key_with(part, given):
        return f"write {{{key}: {given}}}"
    if not part.example:
        return f"write the keys of {named(here)} below it"
    return f"for example {part.example}" + (", or {} if it needs no keys" if is_entry(here) else "")


def _example_of_key(kind: str, mapping: Any, key: str) -> str | None:
    """How a list or a mapping that is the value of a key is written."""
    kinds: dict[str, type] = {"list_type": list, "dict_type": dict}
    wanted = kinds.get(kind)
    if wanted is None or mapping is None or key not in mapping.model_fields:
        return None
    return next(
        (f"for example {flow(each)}" for each in key_of(mapping.__name__, key).examples if isinstance(each, wanted)),
        None,
    )


def _key_with(part: type[BaseModel], given: Any) -> str | None:
    """The key of a part whose fixed set of values has this one: `format` for `raw`."""
    for name, field in part.model_fields.items() if isinstance(given, str) else ():
        for each in (field.annotation, *get_args(field.annotation)):
            if get_origin(each) is Literal and given in get_args(each):
                return name
    return None


def kind_of_problem(detail: Any, *, at_key: bool) -> Kind:
    """The kind of one of pydantic's errors."""
    if detail["type"] == "extra_forbidden":
        return "unknown key"
    if detail["type"] == "missing":
        return "missing key"
    if detail["type"] == "exposed":
        return "secret in the config"
    return "malformed name" if at_key else "wrong value"
