"""Which parts of a config an error may show in the output of `check`. Pure.

An included pattern such as `conf.d/*` can match a password file, an env file or a private key, and a mistyped key can
hold a secret. So no text is shown because it looks harmless. A source line is rebuilt from the parts that are known to
be harmless: keys that look like keys, and the values of known keys that take no secret. Everything else, including
comments, is `…`.

Of a text that is not YAML, only the known keys of the config are shown.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Final

Path = tuple[str | int, ...]
Shows = Callable[[Path], bool]
"""Whether the value at a path may be shown."""

HIDDEN: Final = "…"
# A longer key, or one with other characters, is not a key of the config; it could be a password or a URL.
_PLAIN_KEY: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
# Letters and digits in a row, as in no key but in many secrets (hexadecimal, UUID, base64).
_RANDOM: Final = re.compile(r"(?<![A-Za-z0-9])(?=[A-Za-z]*[0-9])(?=[0-9]*[A-Za-z])[A-Za-z0-9]{12}")
# Keys that take a secret, or look as if they did.
_TAKES_SECRET: Final = re.compile(
    r"secret|pass|pwd?\b|key\b|assertion|credential|(access|subject|actor|refresh)_token|\b(device_)?code\b",
    re.IGNORECASE,
)
# A similar key is probably one of these, mistyped.
_SECRET_KEYS: Final = ("client_secret", "secret", "password", "private_key", "assertion", "subject_token")
# Values with one of these may contain a password or a key, such as `https://user:password@host/?code=…`.
_COULD_HOLD_A_SECRET: Final = re.compile(r"[@?=]")
# Characters. A line in flow style can be megabytes long; this is two lines of a terminal.
_LONGEST_LINE: Final = 160
# Punctuation of YAML, which holds no secret.
_PUNCTUATION: Final = r"\s{}\[\],:?'\"-"


def is_plain_key(key: str) -> bool:
    """Whether a key looks like a key, so that a message may name it."""
    return _PLAIN_KEY.fullmatch(key) is not None and _RANDOM.search(key) is None


def is_plain_value(value: str) -> bool:
    """Whether a value cannot contain a password, under any key."""
    return _COULD_HOLD_A_SECRET.search(value) is None


@lru_cache(maxsize=1024)  # a config repeats the same few keys
def takes_secret(name: object) -> bool:
    """Whether the value of a key of this name may be a secret."""
    if not isinstance(name, str):
        return False
    words = re.findall(r"[a-z_]{5,}", name.lower())
    return _TAKES_SECRET.search(name) is not None or any(
        difflib.get_close_matches(word, _SECRET_KEYS, n=1, cutoff=0.75) for word in words
    )


def leads_to_secret(path: Sequence[object]) -> bool:
    """Whether a value at or below a path may be a secret."""
    # The URL of a server may have a password in it, but not that of a proxy, whose login has keys of its own.
    return any(map(takes_secret, path)) or ("redis", "url") in pairwise(path)


@dataclass(frozen=True, slots=True)
class Piece:
    """A key or value on one line: columns `start` to `end`, and whether it may be shown."""

    start: int
    end: int
    shown: bool


@dataclass(frozen=True, slots=True)
class Excerpt:
    """A source line as it may be shown, and the column (from 0) of the fault in it."""

    text: str
    caret: int


def excerpt(line: str, pieces: Iterable[Piece], column: int) -> Excerpt | None:
    """A line rebuilt from its pieces; None if no piece may be shown."""
    # Of a very long line, only the surroundings of the fault.
    at = max(0, column - _LONGEST_LINE)
    out = HIDDEN if at else ""
    caret: int | None = None
    shown_any = False
    line = line[: column + _LONGEST_LINE]

    def take(text: str, start: int, *, verbatim: bool) -> None:
        nonlocal out, caret
        if caret is None and start <= column < start + len(text):
            caret = len(out) + (column - start if verbatim else 0)
        if verbatim:
            out += text
        elif text and not out.endswith(HIDDEN):
            out += HIDDEN

    def gap(end: int) -> None:
        # Between the pieces are punctuation, and comments, anchors and tags, which are not shown.
        for part in re.finditer(rf"[{_PUNCTUATION}]+|[^{_PUNCTUATION}]+", line[at:end]):
            take(part[0], at + part.start(), verbatim=re.match(rf"[{_PUNCTUATION}]", part[0]) is not None)

    for piece in sorted(pieces, key=lambda piece: piece.start):
        if not at <= piece.start < len(line):
            continue
        gap(piece.start)
        take(line[piece.start : piece.end], piece.start, verbatim=piece.shown)
        shown_any = shown_any or piece.shown
        at = piece.end
    comment = re.compile(r"(^|\s)#").search(line, at)
    gap(comment.start() if comment else len(line))
    shown = out.rstrip()  # also a value of white space alone, such as a no-break space
    return _cut(Excerpt(shown, len(shown) if caret is None else min(caret, len(shown)))) if shown_any else None


def excerpt_of_no_yaml(line: str, vocabulary: Container[str], column: int) -> Excerpt | None:
    """A line of a text that cannot be parsed: known keys and punctuation; None if it has no known key."""
    content = re.split(r"(?:^|\s)#", line, maxsplit=1)[0]
    words = [(part.start(), part.end()) for part in re.finditer(rf"[^{_PUNCTUATION}]+", content)]
    # A key is at the start of the line, or before a colon.
    keys = [
        Piece(start, end, shown=content[start:end] in vocabulary and _is_key(content, start, end))
        for start, end in words
    ]
    return excerpt(content, keys, column)


def _is_key(content: str, start: int, end: int) -> bool:
    return re.fullmatch(r"[\s-]*", content[:start]) is not None or re.match(r"\s*:(\s|$)", content[end:]) is not None


def _cut(found: Excerpt) -> Excerpt:
    if len(found.text) <= _LONGEST_LINE:
        return found
    start = max(0, min(found.caret - _LONGEST_LINE // 2, len(found.text) - _LONGEST_LINE))
    text = found.text[start : start + _LONGEST_LINE]
    before = HIDDEN if start else ""
    after = HIDDEN if start + _LONGEST_LINE < len(found.text) else ""
    return Excerpt(f"{before}{text}{after}", found.caret - start + len(before))
