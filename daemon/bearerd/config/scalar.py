"""How YAML reads an unquoted scalar, and whether that is what its author meant. Pure.

PyYAML speaks YAML 1.1, where `no` is false, `0640` is 416, `12:30:45` is 45045 and `2026-11-23` is a date. None of
these is what its author meant, so each is an error. So are typographic quotes around a value, and characters that
cannot be seen: editors and web pages insert them, and no provider accepts an id that contains one.
"""

from __future__ import annotations

import math
import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import yaml

# Up to 18 digits fit 64-bit integers. Python itself reads no more than 4300.
_INTEGER: Final = re.compile(r"[-+]?(0|[1-9][0-9]{0,17})")
_FLOAT: Final = re.compile(r"[-+]?(0|[1-9][0-9]*)\.[0-9]+([eE][-+]?[0-9]+)?")
_RESOLVERS: Final = yaml.SafeLoader.yaml_implicit_resolvers
_TAG: Final = "tag:yaml.org,2002:"
# Spaces other than the ordinary one, and characters without width, as part of a character class.
INVISIBLE: Final = r"\u00a0\u00ad\u1680\u2000-\u200f\u202a-\u202f\u205f-\u2064\u3000\ufeff"
_INVISIBLE: Final = re.compile(f"[{INVISIBLE}]")
_TYPOGRAPHIC_QUOTES: Final = re.compile(r"[\u2018-\u201f\u00ab\u00bb\u2039\u203a]")


@dataclass(frozen=True, slots=True)
class Scalar:
    """A scalar's value, or its fault: with the scalar's text, and without it."""

    value: Any
    fault: str = ""
    quiet_fault: str = ""


NO_VALUE: Final = "expected a value, found nothing"
"""The message about a key without a value."""


@lru_cache(maxsize=4096)  # a large config repeats the same few keys and values
def read_plain(text: str) -> Scalar:
    """The value of an unquoted scalar."""
    kind = _kind(text)
    if found := _INVISIBLE.search(text):
        message = f"{named_character(found[0])} is part of this text: remove it, or put the text in quotes"
        return Scalar(None, message, message)
    if _TYPOGRAPHIC_QUOTES.match(text):
        message = "typographic quotes are part of the value: use ' or \""
        return Scalar(None, message, message)
    if kind == "str":
        return Scalar(text)
    if kind == "null":
        return Scalar(None)
    if kind == "bool" and text in {"true", "false"}:
        return Scalar(text == "true")
    if kind == "int" and _INTEGER.fullmatch(text):
        return Scalar(int(text))
    if kind == "float" and _FLOAT.fullmatch(text) and math.isfinite(float(text)):
        return Scalar(float(text))
    read_as, quiet, remedy = _misread(kind, text)
    return Scalar(None, f"YAML reads '{text}' as {read_as}: {remedy}", f"YAML reads this as {quiet}: {remedy}")


def _kind(text: str) -> str:
    for tag, pattern in [*_RESOLVERS.get(text[:1], ()), *_RESOLVERS.get(None, ())]:
        if pattern.match(text):
            return str(tag).removeprefix(_TAG)
    return "str"


def _misread(kind: str, text: str) -> tuple[str, str, str]:
    """How YAML reads it, the same without its digits, and what to write instead."""
    quotes = "put it in quotes"
    if kind == "bool":
        return "a boolean", "a boolean", f"write true or false, or {quotes}"
    if kind == "timestamp":
        return "a date", "a date", quotes
    if kind in {"int", "float"}:
        if ":" in text:
            return "a base-60 number", "a base-60 number", quotes
        if re.fullmatch(r"0[0-7]{1,18}", text):
            return f"the number {int(text, 8)} (octal)", "a number", quotes
        return "a number", "a number", quotes
    return "special syntax", "special syntax", quotes  # = and <<


def named_character(char: str) -> str:
    """A character that cannot be seen, by name: `a no-break space (U+00A0)`."""
    name = {"\ufeff": "byte order mark"}.get(char) or unicodedata.name(char, "control character").lower()
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name} (U+{ord(char):04X})"


def visible(text: str) -> str:
    """A text without the characters that cannot be seen."""
    return _INVISIBLE.sub("", text)


def kind_of(value: Any) -> str:
    """The kind of a value, as errors name it."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "text"
    return "a list" if isinstance(value, list | tuple) else "a mapping"
