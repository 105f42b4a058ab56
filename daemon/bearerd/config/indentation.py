"""Finds keys that are indented too little, and moves them to where they were meant. Pure.

A key such as `tokens` that is one level too shallow would otherwise cause an error for every key that is then missing
or unknown. Here it is one error, and the rest of the file is checked as if it were right.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from pydantic import BaseModel

from bearerd.config import models
from bearerd.config.document import Document
from bearerd.config.messages import misplaced
from bearerd.config.places import by_name, model_in, named, place_of, takes_mapping
from bearerd.config.redaction import Path, is_plain_key
from bearerd.config.source import BROKEN


def indent(document: Document, model: type[BaseModel]) -> None:
    """Report what is indented too little in a document with this model, and correct its value."""
    if isinstance(document.value, dict):
        document.value = _Indenter(document).mapping((), document.value, model)


class _Indenter:
    def __init__(self, document: Document) -> None:
        self._document = document

    def mapping(self, path: Path, value: dict[str, Any], model: type[BaseModel]) -> dict[str, Any]:
        """A mapping with what belongs into its groups of names: `providers` and `clients`, or `tokens`."""
        for group, entry in _groups(model).items():
            strangers = value.keys() - model.model_fields.keys()
            if strangers:
                value = self._gather(path, value, model, group, strangers)
            entries = value.get(group)
            if not isinstance(entries, dict):
                continue
            if not entry.model_fields.keys().isdisjoint(entries):
                entries = self._settle((*path, group), entries, entry)
            if _groups(entry) and entries is not BROKEN:
                entries = {
                    name: self.mapping((*path, group, name), each, entry) if isinstance(each, dict) else each
                    for name, each in entries.items()
                }
            value = value | {group: entries}
        return value

    def _gather(
        self, path: Path, value: dict[str, Any], model: type[BaseModel], group: str, strangers: set[str]
    ) -> dict[str, Any]:
        """A mapping without the unknown keys that belong into a group, or to its last entry."""
        entry, entries, place = _groups(model)[group], value.get(group), (*path, group)
        order = list(value)
        after = order[order.index(group) + 1 :] if group in value else order
        empty = group in value and entries is None
        names = [key for key in after if key in strangers and _could_be_entry(value[key], entry, group_is_empty=empty)]
        names = [key for key in names if not misplaced(key, model.model_fields, place_of(path))]
        if names and (entries is None or isinstance(entries, dict)):
            what = named(place_of((*place, names[0])))
            if group in value:
                where = f"'{group}'" if entries is None else f"a key of {named(place_of(path))}"
                text = self._said(names, f"indented like {where}", f"as {what}", several=f"each as {what}")
            else:
                looks = "looks" if len(names) == 1 else "look"
                text = f"{_keys(names)} {looks} like {what}: write '{group}:' above, and indent {_it(names)}"
            self._report((*path, names[0]), text)
            for name in names:
                self._document.move((*place, name), (*path, name))
            moved = {key: each for key, each in value.items() if key not in names}
            return moved | {group: {**(entries or {}), **{name: value[name] for name in names}}}
        fields = entry.model_fields.keys() - model.model_fields.keys()
        own = [key for key in after if key in strangers & fields]
        if not own:
            return value
        if isinstance(entries, dict) and entries:
            last = next(reversed(entries))
            inner = entries[last]
            lacks = inner is None or (isinstance(inner, dict) and _required(entry) - inner.keys() & set(own))
            if not lacks or (isinstance(inner, dict) and inner.keys() & set(own)):
                return value
            what = f"indented like a key of {named(place_of(path))}"
            self._report((*path, own[0]), self._said(own, what, *self._of((*place, last))))
            for key in own:
                self._document.move((*place, last, key), (*path, key))
            kept = {key: each for key, each in value.items() if key not in own}
            return kept | {group: {**entries, last: {**(inner or {}), **{key: value[key] for key in own}}}}
        if entries is None and len(own) > 1 and strangers == set(own):
            what = named(place_of((*place, "")))
            text = f"{_keys(own)} are keys of {what}: write '{group}:' and the name of {what} above, and indent them"
            self._report((*path, own[0]), text)
            return {key: each for key, each in value.items() if key not in own and key != group}
        return value

    def _settle(self, path: Path, entries: dict[str, Any], entry: type[BaseModel]) -> Any:
        """The entries of a group without the keys that belong to the entry above them; BROKEN if none is left."""
        settled: dict[str, Any] = {}
        runs: dict[str | None, list[str]] = {}
        above: str | None = None
        for name, value in entries.items():
            target = settled.get(above) if above is not None else None
            if name not in entry.model_fields or _is_entry(value, entry) or _is_name(name, value, entry):
                settled[name], above = value, name
            elif above is None or ((target is None or isinstance(target, dict)) and name not in (target or {})):
                runs.setdefault(above, []).append(name)
                if above is not None:
                    settled[above] = {**(target or {}), name: value}
                    self._document.move((*path, above, name), (*path, name))
            else:
                settled[name], above = value, name
        for above, keys in runs.items():
            what = named(place_of((*path, keys[0])))
            if above is None:
                kind = "is a key" if len(keys) == 1 else "are keys"
                text = f"{_keys(keys)} {kind} of {what}: write the name of {what} above, and indent {_it(keys)}"
            else:
                text = self._said(keys, f"indented like {what}", *self._of((*path, above)))
            self._report((*path, keys[0]), text)
        if not settled:
            self._document.skip(path)
            return BROKEN
        return settled

    def _of(self, path: Path) -> tuple[str, str]:
        kind, name = named(place_of(path)).removeprefix("a "), str(path[-1])
        shown = f"{kind} '{name}'" if is_plain_key(name) else f"the {kind} above"
        return f"as a key of {shown}", f"as keys of {shown}"

    @staticmethod
    def _said(keys: list[str], what: str, one: str, several: str) -> str:
        return f"{_keys(keys)} {_is(keys)} {what}: indent {_it(keys)} further, {one if len(keys) == 1 else several}"

    def _report(self, path: Path, text: str) -> None:
        self._document.add(path, text, "unknown key", at_key=True)


def _keys(keys: list[str]) -> str:
    shown = f"'{keys[0]}'" if is_plain_key(keys[0]) else "this key"
    more = len(keys) - 1
    return shown + (f" and the {f'{more} keys' if more > 1 else 'key'} after it" if more else "")


def _is(keys: list[str]) -> str:
    return "is" if len(keys) == 1 else "are"


def _it(keys: list[str]) -> str:
    return "it" if len(keys) == 1 else "them"


def _is_entry(value: Any, entry: type[BaseModel]) -> bool:
    """Whether a value has keys of an entry with this model."""
    return isinstance(value, dict) and not entry.model_fields.keys().isdisjoint(value)


def _is_name(key: str, value: Any, entry: type[BaseModel]) -> bool:
    """Whether a key of an entry is used as a name, because its value cannot be the key's."""
    return isinstance(value, dict) and (not value or not takes_mapping(entry.model_fields[key].annotation))


def _could_be_entry(value: Any, entry: type[BaseModel], *, group_is_empty: bool) -> bool:
    """Whether a value beside a group of names was probably meant as one of its entries."""
    if group_is_empty:
        return value is None or value == {} or _is_entry(value, entry)
    required = _required(entry)
    return isinstance(value, dict) and bool(required) and required <= value.keys()


def _required(model: type[BaseModel]) -> set[str]:
    return {name for name, field in model.model_fields.items() if field.is_required()}


@cache
def _groups(model: type[BaseModel]) -> dict[str, type[BaseModel]]:
    """The keys of a model whose values are parts of the config by name."""
    found = {name: (model_in(field.annotation), field.annotation) for name, field in model.model_fields.items()}
    return {
        name: part
        for name, (part, annotation) in found.items()
        if part is not None and issubclass(part, models.Part) and by_name(annotation)
    }
