"""A part of a document -> its model, or every error in it at its place. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Generic, TypeVar

from pydantic import BaseModel, ValidationError

from bearerd.config.document import Node
from bearerd.config.messages import kind_of_problem, meant, message_of, misplaced, misplaced_keys, unknown_key
from bearerd.config.places import Place, keys_at, place_of
from bearerd.config.redaction import Path, leads_to_secret
from bearerd.config.source import BROKEN

_Model = TypeVar("_Model", bound=BaseModel)
_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})
# Errors of a mapping as a whole appear only when those of its keys are gone.
_MOST_ROUNDS: Final = 4


@dataclass(frozen=True, slots=True)
class Checked(Generic[_Model]):
    """The model of a part of the config, as far as the part is right."""

    model: _Model | None
    """The whole, or what is left without the faulty keys, for rules about these; None if that is no model."""
    faulty: frozenset[str]
    """The keys with an error in their value, and those that were meant by unknown keys."""
    complete: bool
    """Whether there is no error."""


def check(node: Node, model: type[_Model], required: Mapping[str, Any] = _NOTHING) -> Checked[_Model]:
    """Check a node and report what is wrong with it. `required` are values for required keys with an error."""
    if node.value is BROKEN:
        return Checked(None, frozenset(), complete=False)
    try:
        return Checked(model.model_validate(node.value), frozenset(), complete=True)
    except ValidationError as error:
        details = _details(error)
    satisfied = _report_strangers(node, model, details)
    listed: set[Path] = set()
    for detail in details:
        loc: Path = detail["loc"]
        if detail["type"] == "extra_forbidden" and not leads_to_secret(loc[:-1]):
            continue
        # A key that is there under a mistyped name, or at a wrong place, is not reported as missing too.
        if detail["type"] == "missing" and loc in satisfied:
            continue
        if detail["type"] == "model_type" and loc and isinstance(loc[-1], int):
            # A list of texts in place of mappings is one mistake.
            if loc[:-1] in listed:
                continue
            listed.add(loc[:-1])
        _report(node, model, detail)
    faulty = {str(loc[0]) for loc in (*satisfied, *(detail["loc"] for detail in details)) if loc}
    return Checked(_rest(node.value, model, details, required), frozenset(faulty), complete=False)


def check_strangers(node: Node, loc: Path, keys: Sequence[str], known: Iterable[str]) -> set[str]:
    """Report unknown keys of the mapping at a path below a node. Returns the keys that were meant by them."""
    here, known = place_of((*node.path, *loc)), list(known)
    at_home: dict[tuple[Place, ...], list[str]] = {}
    found: set[str] = set()
    for key in keys:
        if node.document.full:  # only counted: to find what was meant takes 1 ms for each
            node.add((*loc, key), "unknown key", "unknown key", at_key=True)
        elif elsewhere := misplaced(key, known, here):
            at_home.setdefault(tuple(elsewhere), []).append(key)
            # `scope` on a client belongs to a token, so `tokens` is not missing.
            found |= {place[len(here)] for place in elsewhere if place[: len(here)] == here}
        else:
            # `client_secret: {hunter2}` at a wrong place is still a mapping with one key, which is the secret.
            may_name = not leads_to_secret((*node.path, *loc))
            node.add((*loc, key), unknown_key(key, known, here, may_name=may_name), "unknown key", at_key=True)
            found |= {each for each in [meant(key, known, here)] if each}
    for places, names in at_home.items():
        node.add((*loc, names[0]), misplaced_keys(names, places, here), "unknown key", at_key=True)
    return found


def _report_strangers(node: Node, model: type[BaseModel], details: Iterable[Any]) -> set[Path]:
    """Report unknown keys. Returns the paths of the keys that were meant by them."""
    strangers: dict[Path, list[str]] = {}
    for detail in details:
        *above, key = detail["loc"] or [""]
        # `client_secret: {hunter2}` is a mapping with one key, which is the secret.
        if detail["type"] == "extra_forbidden" and not leads_to_secret(above):
            strangers.setdefault(tuple(above), []).append(str(key))
    satisfied: set[Path] = set()
    for loc, keys in strangers.items():
        satisfied |= {(*loc, key) for key in check_strangers(node, loc, keys, keys_at(model, loc))}
    return satisfied


def _report(node: Node, model: type[BaseModel], detail: Any) -> None:
    """Report one of pydantic's errors."""
    if detail["type"] == "fault" and _holds_broken(detail["input"]):
        return  # an item in it was reported already
    loc: Path = detail["loc"]
    at_key = bool(loc) and loc[-1] == "[key]"
    if at_key:
        loc = loc[:-1]
    path = (*node.path, *loc)
    message = message_of(detail, model, loc, place_of(path), at_key=at_key)
    kind = kind_of_problem(detail, at_key=at_key)
    if detail["type"] == "extra_forbidden":
        at_key = True
    elif detail["type"] == "missing":
        path, at_key = path[:-1], bool(path[:-1])
    node.document.add(path, message, kind, at_key=at_key)


def _rest(value: Any, model: type[_Model], details: Iterable[Any], required: Mapping[str, Any]) -> _Model | None:
    """The model of a value without its faulty keys."""
    for _ in range(_MOST_ROUNDS):
        if not isinstance(value, dict):
            return None
        value = _without(value, [detail["loc"] for detail in details])
        try:
            return model.model_validate({**required, **value})
        except ValidationError as error:
            details = _details(error)
    return None


def _without(value: Mapping[str, Any], locs: Iterable[Path]) -> dict[str, Any]:
    """A mapping without the last key on each path, as far as it exists."""
    below: dict[str | int, list[Path]] = {}
    for loc in filter(None, locs):
        below.setdefault(loc[0], []).append(loc[1:])
    kept: dict[str, Any] = {}
    for key, inner in value.items():
        paths = below.get(key)
        if paths is None:
            kept[key] = inner
        elif isinstance(inner, dict) and all(path and path[0] in inner for path in paths):
            kept[key] = _without(inner, paths)
    return kept


def _details(error: ValidationError) -> list[Any]:
    return error.errors(include_url=False, include_context=True)


def _holds_broken(value: Any) -> bool:
    if isinstance(value, dict | list):
        return any(map(_holds_broken, value.values() if isinstance(value, dict) else value))
    return value is BROKEN
