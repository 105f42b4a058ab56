"""Configs that are wrong in every place at which a secret could be written, and what is said about them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import yaml

from bearerd.config.load import load
from bearerd.errors import ConfigError
from canary.marks import Marks

_EXAMPLE: Final = Path(__file__).parents[2] / "config.example.yaml"
_BRIEF: Final = "errors of a config in the log, the API and the page, with a secret at every key"
_FULL: Final = "errors of a config in `check`, with a secret at every key that takes one"
_SECRET_KEYS: Final = {
    *("client_secret", "password", "private_key", "tls_private_key", "assertion", "subject_token", "headers", "key"),
}


def configs(path: Path, marks: Marks, *, short: bool) -> int:
    """Load wrong configs; returns how many."""
    example = yaml.safe_load(_EXAMPLE.read_text())
    text = _EXAMPLE.read_text()
    count = 0
    for number, (keys, put) in enumerate(_places(example)):
        for shape in _SHAPES[number % len(_SHAPES) :: len(_SHAPES)] if short else _SHAPES:
            secret = marks.make("secret in a config", _HARD[number % len(_HARD)])
            wrong = copy.deepcopy(example)
            put(wrong, shape(secret))
            # A URL may hold a password under any key.
            full = shape is _in_a_url or bool(_SECRET_KEYS.intersection(keys))
            count += _load(path, marks, yaml.safe_dump(wrong, sort_keys=False, allow_unicode=True), full=full)
    for number, line in enumerate(text.splitlines()):
        if short and number % 4:
            continue
        secret = marks.make("secret in a config", "")
        for broken in (f'{line}: "{secret}', f"{line} {secret}: [", f"\t{secret}"):
            lines = text.splitlines()
            lines[number] = broken
            count += _load(path, marks, "\n".join(lines), full=True)
    return count


def _in_a_url(secret: str) -> str:
    return f"https://user:{secret}@example.com/x?password={secret}"


_HARD: Final = ("", "@", ": ", "://user:x@", "=", " #")
_SHAPES: Final[tuple[Callable[[str], Any], ...]] = (
    lambda secret: secret,
    lambda secret: {"file": "/etc/bearerd/x", "text": secret},
    lambda secret: [secret],
    lambda secret: {secret: secret},
    _in_a_url,
)


def _places(value: Any, keys: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Each value of a document: its keys, and a function that replaces it in a copy."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in items:
        here = (*keys, key)

        def put(document: Any, other: Any, here: tuple[str | int, ...] = here) -> None:
            for step in here[:-1]:
                document = document[step]
            document[here[-1]] = other

        yield here, put
        yield from _places(below, here)


def _load(path: Path, marks: Marks, text: str, *, full: bool) -> int:
    """Load a config that is probably wrong, and search its errors; returns 1 if it was wrong."""
    file = path / "config.yaml"
    file.write_text(text)
    try:
        load(str(file), {})
    except ConfigError as error:
        marks.look(_BRIEF, str(error), *(problem.brief for problem in error.problems))
        if full:
            marks.look(_FULL, *(problem.full for problem in error.problems))
        return 1
    return 0
