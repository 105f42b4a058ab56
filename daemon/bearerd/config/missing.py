"""Finds keys above which a line is missing: the name of a client, or `clients`. Pure.

Each key below the missing line would otherwise be an error. Here they are one error, and the rest of the file is
checked as if the line were there.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from pydantic import BaseModel

from bearerd.config.document import Document
from bearerd.config.messages import misplaced
from bearerd.config.places import by_name, is_part, model_in, named, place_of, takes_mapping
from bearerd.config.redaction import Path, is_plain_key
from bearerd.config.source import BROKEN


def add_missing_lines(document: Document, model: type[BaseModel]) -> None:
    """Report which lines are missing in a document with this model, and correct its value."""
    if isinstance(document.value, dict):
        document.value = _Finder(document).mapping((), document.value, model)


class _Finder:
    def __init__(self, document: Document) -> None:
        self._document = document

    def mapping(self, path: Path, value: dict[str, Any], model: type[BaseModel]) -> dict[str, Any]:
        """A mapping with what belongs into its groups of names: `providers` and `clients`, or `tokens`."""
        groups = _groups(model)
        # An entry of the group that requires a key is the easiest to tell.
        for group, entry in sorted(groups.items(), key=lambda each: not _required(each[1])):
            if value.get(group) is None:
                value = self._gather(path, value, model, group)
            entries = value.get(group)
            if not isinstance(entries, dict):
                continue
            if not entry.model_fields.keys().isdisjoint(entries):
                entries = self._unnamed((*path, group), entries, entry)
            if _groups(entry) and entries is not BROKEN:
                entries = {
                    name: self.mapping((*path, group, name), each, entry) if isinstance(each, dict) else each
                    for name, each in entries.items()
                }
            value = value | {group: entries}
        return value

    def _gather(self, path: Path, value: dict[str, Any], model: type[BaseModel], group: str) -> dict[str, Any]:
        """A mapping with a group that it lacks: of unknown keys, or of those of the section above the missing line."""
        entry, place = _groups(model)[group], (*path, group)
        strangers = value.keys() - model.model_fields.keys()
        what = named(place_of((*place, "")))
        if group not in value:
            above = ""
            names = [key for key in value if key in strangers and _could_be_entry(value[key], entry)]
            names = [key for key in names if not misplaced(key, model.model_fields, place_of(path))]
            for section, known in () if names else _sections(model).items():
                inside = value.get(section)
                if not names and isinstance(inside, dict):
                    above = section
                    names = [key for key in inside if _could_be_entry(inside[key], entry, not_as=known)]
            if names:
                looks = "looks" if len(names) == 1 else "look"
                todo = f"write '{group}:' above" + (f", and indent {_it(names)}" if not above else "")
                where = (*path, above) if above else path
                self._report((*where, names[0]), f"{_keys(names)} {looks} like {what}: {todo}")
                for name in names:
                    self._document.move((*place, name), (*where, name))
                inside = value[above] if above else value
                kept = {key: each for key, each in inside.items() if key not in names}
                found = {group: {name: inside[name] for name in names}}
                return value | {above: kept} | found if above else kept | found
        fields = entry.model_fields.keys() - model.model_fields.keys()
        own = [key for key in value if key in strangers & fields]
        if len(own) > 1 and strangers == set(own):
            text = f"{_keys(own)} are keys of {what}: write '{group}:' and the name of {what} above, and indent them"
            self._report((*path, own[0]), text)
            return {key: each for key, each in value.items() if key not in own and key != group}
        return value

    def _unnamed(self, path: Path, entries: dict[str, Any], entry: type[BaseModel]) -> Any:
        """The entries of a group without the keys before the first name; BROKEN if none is left."""
        keys: list[str] = []
        for name, value in entries.items():
            if name not in entry.model_fields or _is_entry(value, entry) or _is_name(name, value, entry):
                break
            keys.append(name)
        if keys:
            what = named(place_of((*path, keys[0])))
            kind = "is a key" if len(keys) == 1 else "are keys"
            text = f"{_keys(keys)} {kind} of {what}: write the name of {what} above, and indent {_it(keys)}"
            self._report((*path, keys[0]), text)
        if len(keys) == len(entries):
            self._document.skip(path)
            return BROKEN
        return {name: value for name, value in entries.items() if name not in keys}

    def _report(self, path: Path, text: str) -> None:
        self._document.add(path, text, "unknown key", at_key=True)


def _keys(keys: list[str]) -> str:
    shown = f"'{keys[0]}'" if is_plain_key(keys[0]) else "this key"
    more = len(keys) - 1
    return shown + (f" and the {f'{more} keys' if more > 1 else 'key'} after it" if more else "")


def _it(keys: list[str]) -> str:
    return "it" if len(keys) == 1 else "them"


def _is_entry(value: Any, entry: type[BaseModel]) -> bool:
    """Whether a value has keys of an entry with this model."""
    return isinstance(value, dict) and not entry.model_fields.keys().isdisjoint(value)


def _is_name(key: str, value: Any, entry: type[BaseModel]) -> bool:
    """Whether a key of an entry is used as a name, because its value cannot be the key's."""
    return isinstance(value, dict) and (not value or not takes_mapping(entry.model_fields[key].annotation))


def _could_be_entry(value: Any, entry: type[BaseModel], *, not_as: type[BaseModel] | None = None) -> bool:
    """Whether a value was probably meant as an entry of a group, and not as one with the other model."""
    if not isinstance(value, dict) or not value:
        return False
    if not_as is not None and value.keys() <= not_as.model_fields.keys():
        return False
    required = _required(entry)
    return required <= value.keys() if required else not_as is not None and value.keys() <= entry.model_fields.keys()


def _required(model: type[BaseModel]) -> set[str]:
    return {name for name, field in model.model_fields.items() if field.is_required()}


@cache
def _sections(model: type[BaseModel]) -> dict[str, type[BaseModel]]:
    """The keys of a model whose value is a part of the config, or parts of it by name."""
    found = {name: model_in(field.annotation) for name, field in model.model_fields.items()}
    return {name: part for name, part in found.items() if is_part(part)}


@cache
def _groups(model: type[BaseModel]) -> dict[str, type[BaseModel]]:
    """The keys of a model whose values are parts of the config by name."""
    return {name: part for name, part in _sections(model).items() if by_name(model.model_fields[name].annotation)}
