"""Which keys the config has at which places, derived from the models. Pure.

A place is a path in which a name is `*` and the index of a list `[]`, such as `clients.*.tokens.*`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any, Final, get_args, get_origin

from pydantic import BaseModel

from bearerd.config import models
from bearerd.config.redaction import Path

Place = tuple[str, ...]

_NAME: Final = "*"
_ITEM: Final = "[]"


def keys_at(model: type[BaseModel], loc: Path) -> list[str]:
    """The keys that a model has at a path below it."""
    found = model_at(model, loc)
    return list(found.model_fields) if found is not None else []


def model_at(model: type[BaseModel], loc: Path) -> Any:
    """The model that a value at a path consists of, perhaps as a list or by name; None if there is none."""
    return _resolved(model, loc)[0]


def place_of(path: Path) -> Place:
    """The place of a path in the config, as far as the config has it."""
    return _resolved(models.ConfigFile, path)[1]


def may_show(path: Path) -> bool:
    """Whether the config has a key at this path. Only then may its value be shown, if `redaction` allows it."""
    return _resolved(models.ConfigFile, path)[2]


@cache
def vocabulary() -> frozenset[str]:
    """Every key of the config."""
    return frozenset(key for _, model in _walk(models.ConfigFile, ()) for key in model.model_fields)


def homes(key: str, here: Place) -> list[Place]:
    """The places that have a key, if `here` has not: the nearest above it, else those below it, else all of them."""
    found = [(place, model) for place, model in _parts() if key in model.model_fields]
    above = [(place, model) for place, model in found if place == here[: len(place)]]
    below = [(place, model) for place, model in found if here == place[: len(here)]]
    # The files of a token are those of a client: the shortest place is enough.
    shortest: dict[type[BaseModel], Place] = {}
    for place, model in above[-1:] or below or found:
        shortest.setdefault(model, place)
    return list(shortest.values())


def named(place: Place) -> str:
    """A place in words: `the top level`, `output`, `a client`, `an entry of files`."""
    if not place:
        return "the top level"
    if place[-1] == _NAME:
        return f"a {place[-2].removesuffix('s')}"  # of `clients`
    return f"an entry of {place[-2]}" if place[-1] == _ITEM else place[-1]


def is_entry(place: Place) -> bool:
    """Whether this is the place of entries with a name."""
    return place[-1:] == (_NAME,)


def written(place: Place, key: str, here: Place) -> str | None:
    """How a key is written at a place below `here`, such as `tokens: {NAME: {scope: …}}`; None if that is long."""
    if place[: len(here)] != here:
        return None
    required = [name for name, field in dict(_parts())[place].model_fields.items() if field.is_required()]
    steps = place[len(here) :]
    if steps.count(_NAME) > (0 if required else 1):
        return None
    text = "{" + ", ".join(f"{name}: …" for name in dict.fromkeys([*required, key])) + "}"
    for step in reversed(steps):
        text = f"[{text}]" if step == _ITEM else f"{{{'NAME' if step == _NAME else step}: {text}}}"
    return text[1:-1]


@cache
def _parts() -> list[tuple[Place, type[BaseModel]]]:
    """Each part of the config with its place, those with short ones first."""
    found = [(place, model) for place, model in _walk(models.ConfigFile, ()) if issubclass(model, models.Part)]
    return sorted(found, key=lambda part: len(part[0]))


def _walk(model: type[BaseModel], place: Place) -> Iterator[tuple[Place, type[BaseModel]]]:
    """A model and all models below it, with their places."""
    yield place, model
    for name, field in model.model_fields.items():
        if (below := model_in(field.annotation)) is not None:
            yield from _walk(below, (*place, name, *_steps(field.annotation)))


def _resolved(model: Any, path: Path) -> tuple[Any, Place, bool]:
    """The model at a path, its place, and whether each part of the path exists."""
    place: Place = ()
    exists = True
    parts = iter(path)
    for part in parts:
        if isinstance(part, int):  # the index in a list
            continue
        if model is None or part not in model.model_fields:
            exists = False  # also pydantic's names of the members of a union, which are in no path of the config
            continue
        annotation = model.model_fields[part].annotation
        model = model_in(annotation)
        steps = _steps(annotation)
        place = (*place, part, *steps)
        if _NAME in steps:
            next(parts, None)  # skip the name, which may be equal to a key
    return model, place, exists


def _steps(annotation: Any) -> Place:
    """The steps from a key to the model in its value."""
    return (_NAME,) if _holds(annotation, dict, not_in=list) else (_ITEM,) if _holds(annotation, list) else ()


def by_name(annotation: Any) -> bool:
    """Whether the value of a key with this type is a mapping of names."""
    return _steps(annotation) == (_NAME,)


def is_part(model: Any) -> bool:
    """Whether this is the model of a part of the config."""
    return isinstance(model, type) and issubclass(model, models.Part)


def takes_mapping(annotation: Any) -> bool:
    """Whether a value of this type may be a mapping."""
    return _holds(annotation, dict) or model_in(annotation) is not None


def _holds(annotation: Any, kind: type, *, not_in: type | None = None) -> bool:
    """Whether a type is of this kind, perhaps inside Optional or Annotated."""
    return get_origin(annotation) is kind or any(
        _holds(argument, kind, not_in=not_in) for argument in get_args(annotation) if get_origin(annotation) != not_in
    )


def model_in(annotation: Any) -> Any:
    """The one model inside Optional, Annotated, list and dict."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in get_args(annotation):
        if (found := model_in(argument)) is not None:
            return found
    return None


def listed_places(places: Iterable[Place]) -> str:
    """`a provider, a client or an entry of files`."""
    *others, last = dict.fromkeys(map(named, places))
    return f"{', '.join(others)} or {last}" if others else last
