"""Finds the control socket and the output directory of a daemon in the text of its config, without a YAML parser.

`status`, `refresh` and `health` must reach a running daemon even while its config is being edited and is broken. A
parser would refuse a broken config, would double the start-up time of a probe, and would take half a second for 10,000
clients. So nothing is checked here. A config that `load` accepts, which has no tags and no aliases, is read as YAML
reads it; of any other text, as much as possible. `re` and `typing` are not imported either, to save a probe time.
"""

from __future__ import annotations

import os

from bearerd.config.defaults import SOCKET_BELOW
from bearerd.config.here import defaults
from bearerd.reason import reason_of
from bearerd.regular import NotRegularError, read_regular

TYPE_CHECKING = False  # as in bearerd.cli
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# A config of 10,000 clients has 2 MB.
_MOST_BYTES = 8 * 1024 * 1024
# Characters of one `output: {…}`: without its closing brace it would extend to the end of the file.
_LONGEST_MAPPING = 16 * 1024
# A config has about ten keys at its top level, so no more mappings than this are searched.
_MOST_MAPPINGS = 32
# White space in YAML. A no-break space is part of a value.
_BLANKS = " \t\r\n"
# Each section has one key with a path, so a path under a mistyped key such as `directry` is taken for it.
_KEYS = {"output": "directory", "control": "socket"}
# The same as in config.source.
_DEEPEST = 50
# After a backslash. Any other character is itself.
_ESCAPES = {
    "0": "\0", "a": "\a", "b": "\b", "t": "\t", "n": "\n", "v": "\v", "f": "\f", "r": "\r", "e": "\x1b",
    "N": "\x85", "_": "\xa0", "L": "\u2028", "P": "\u2029",
}  # fmt: skip
_HEXADECIMAL = {"x": 2, "u": 4, "U": 8}


class Location:
    """Where a daemon with this config is."""

    def __init__(self, socket: str, directory: str, fault: str | None) -> None:
        self.socket = socket
        self.directory = directory
        """The output directory."""
        self.fault = fault
        """Why the config could not be read; None if it could, valid or not."""


def locate(path: str, environ: Mapping[str, str]) -> Location:
    """Read the config without blocking. A key that it does not contain has the same default as in the daemon."""
    text, fault = _read(path)
    found = find(text)
    directory = _normal(found.get("directory") or defaults(environ).directory)
    socket = _normal(found.get("socket", f"{directory}/{SOCKET_BELOW}"))
    return Location(socket, directory, fault)


def find(text: str) -> dict[str, str]:
    """`directory` of `output` and `socket` of `control`, if the text of a config has them.

    A path under a mistyped key counts if there is none under the right key.
    """
    exact: dict[str, str] = {}
    near: dict[str, str] = {}
    for section, key, value in _pairs(text):
        if value[:1] != "/" or "\0" in value:
            continue
        if _KEYS.get(section) == key:
            exact.setdefault(key, value)
        elif section in _KEYS:
            near.setdefault(_KEYS[section], value)
        elif key in _KEYS.values():
            near.setdefault(key, value)
        if len(exact) == len(_KEYS):
            break
    return near | exact


def _read(path: str) -> tuple[str, str | None]:
    try:
        content = read_regular(path, _MOST_BYTES + 1)
    except NotRegularError as error:
        return "", str(error)
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL
        return "", reason_of(error) if isinstance(error, OSError) else "not a path"
    text = content[:_MOST_BYTES].decode("utf-8", "surrogateescape").removeprefix("\ufeff")
    if len(content) > _MOST_BYTES:
        return text, "longer than 8 MiB"
    return text, None if text.strip(_BLANKS) else "empty"


def _normal(path: str) -> str:
    """One spelling for one path, as in config.paths."""
    path = os.path.normpath(path)
    return path[1:] if path.startswith("//") else path


# -- block style ---------------------------------------------------------------------------------------


def _pairs(text: str) -> Iterator[tuple[str, str, str]]:
    """(section, key, value) of the scalars at the top level, where the section is empty, and one level below."""
    outer: int | None = None  # the indentation of the top level
    inner: int | None = None  # the indentation of the level below, in this section
    section = ""
    waits: tuple[int, str, str] | None = None  # (indentation, section, key) whose value is on the next line
    start = mappings = 0
    for line in text.splitlines(keepends=True):
        content = line.strip(_BLANKS)
        # To YAML a tab is no indentation, but its author meant it as such.
        indent = len(line) - len(line.lstrip(_BLANKS))
        at, start = start + indent, start + len(line)
        if not content or content.startswith(("#", "%", "---", "...", "- ")):
            continue
        outer = indent if outer is None else outer
        if waits is not None and indent > waits[0]:
            yield waits[1], waits[2], _scalar(content)
        waits = None
        if content[0] == "{":
            key, value_at = "", 0
        elif indent > outer and section not in _KEYS and indent != (inner := inner or indent):
            continue
        else:
            key, value_at = _key(content)
        if indent <= outer:
            section, inner = "", None
        value = content[value_at:]
        if value[:1] == "{" and not (key and section):
            mappings += 1
            # A config that is one mapping in flow style is searched to its end, but only one such mapping.
            if mappings <= (_MOST_MAPPINGS if section or key else 1):
                yield from _mapping(text, at + value_at, section or key)
        elif key and value and value[0] not in "|>#":
            yield section, key, _scalar(value)
        elif key and section:
            waits = indent, section, key
        if indent <= outer:
            section = key


def _mapping(text: str, at: int, section: str) -> Iterator[tuple[str, str, str]]:
    """The same for a `{…}`. Without a section it is the whole config, as in JSON."""
    text = text[at : at + _LONGEST_MAPPING] if section else text[at:]
    for (*above, name), scalar in _scalars(text):
        place = [section, *above] if section else above
        if len(place) <= 1:
            yield "".join(place), name, scalar


def _key(content: str) -> tuple[str, int]:
    """The key at the start of a line, and the index of its value; an empty key if there is none."""
    if content[0] in "'\"":
        key, end = _quoted(content, 0)
        colon = end + len(content[end:]) - len(content[end:].lstrip(_BLANKS))
        if content[colon : colon + 1] != ":":
            return "", 0
    else:
        colon = next(
            (at for at, char in enumerate(content) if char == ":" and not content[at + 1 : at + 2].strip(_BLANKS)), 0
        )
        key = content[:colon].rstrip(_BLANKS)
    rest = content[colon + 1 :]
    return key, colon + 1 + len(rest) - len(rest.lstrip(_BLANKS))


def _scalar(value: str) -> str:
    """The text of a value on one line."""
    while value[:1] in {"&", "!"}:  # an anchor, a tag
        value = value.partition(" ")[2].lstrip(_BLANKS)
    if not value:
        return ""
    if value[0] in "'\"":
        return _quoted(value, 0)[0]
    for at, char in enumerate(value):
        if char == "#" and value[at - 1] in " \t":
            return value[:at].rstrip(_BLANKS)
    return value


# -- flow style ----------------------------------------------------------------------------------------


def _scalars(text: str) -> Iterator[tuple[list[str], str]]:
    """Each scalar in the mapping at the start of the text, with the keys above it."""
    keys: list[str] = []
    key = scalar = ""
    at = 0
    while at < len(text):
        char = text[at]
        if char in "{[":
            keys.append(key)
            if len(keys) > _DEEPEST:
                return
            key = scalar = ""
        elif char in "}]":
            keys.pop()
            key = scalar = ""
            if not keys:
                return
        elif char == ",":
            key = scalar = ""
        elif char == ":":
            key, scalar = scalar, ""
        elif char == "#":
            at = text.find("\n", at)
            if at < 0:
                return
        elif char not in _BLANKS:
            scalar, at = _quoted(text, at) if char in "'\"" else _plain(text, at)
            if key:
                yield [*keys[1:], key], scalar
                key = ""
            continue
        at += 1


def _plain(text: str, at: int) -> tuple[str, int]:
    """An unquoted scalar in flow style, on one line, and the index of its end."""
    end = at + 1
    while end < len(text) and text[end] not in ",[]{}\n":
        follows = text[end + 1 : end + 2]
        if text[end] == ":" and (not follows.strip(_BLANKS) or follows in ",[]{}"):
            break
        if text[end] == "#" and text[end - 1] in " \t":
            break
        end += 1
    return _scalar(text[at:end].rstrip(_BLANKS)), end


# -- both styles --------------------------------------------------------------------------------------------


def _quoted(text: str, at: int) -> tuple[str, int]:
    """A quoted scalar and the index of its end. Without a closing quote it ends with its line."""
    quote, parts = text[at], ""
    at = start = at + 1
    while at < len(text) and text[at] != "\n":
        char = text[at]
        if char == quote == "'" == text[at + 1 : at + 2]:
            parts += text[start : at + 1]
            at = start = at + 2
        elif char == quote:
            return parts + text[start:at], at + 1
        elif char == "\\" and quote == '"':
            escaped, length = _escaped(text[at + 1 : at + 10])
            parts += text[start:at] + escaped
            at = start = at + 1 + length
        else:
            at += 1
    return (parts + text[start:at]).rstrip(_BLANKS), at


def _escaped(text: str) -> tuple[str, int]:
    """The character that follows a backslash, and the length of its escape sequence."""
    length = _HEXADECIMAL.get(text[:1], 0)
    try:
        return chr(int(text[1 : 1 + length], 16)), 1 + length
    except (ValueError, OverflowError):
        return _ESCAPES.get(text[:1], text[:1]), 1
