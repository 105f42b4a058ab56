"""Changes inputs as their format suggests. The other half of the mutations are those of libFuzzer, on plain bytes."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from random import Random

# A value in JSON, YAML or a header: what stands between punctuation.
_VALUE = re.compile(rb'"(?:[^"\\\n]|\\.)*"|[^\s,:\[\]{}"]+')
# Values at the limits of types, and of the kinds that a program did not expect.
_VALUES = (
    b"null", b"true", b"false", b"0", b"-1", b"1e308", b"-1e308", b"1e999", b"NaN", b"Infinity", b'""', b"[]", b"{}",
    b"9" * 19, b"9" * 400, b"-" + b"9" * 400, b"0.1", b"1e-300", b"253402300800", b"4503599627370497",
    b"9223372036854775808",
    b'"\\ud800"', b'"\\u0000"', b'"\\u2028"', b'"a b"', b'"\xc3\xa9"', b'"\xf0\x9f\x94\x91"', b'"1"', b'"-1"', b"'",
    b'{"a": 1}', b"[1]", b'"x\\ny"', b'"' + b"x" * 300 + b'"', b"1800000000", b"1800003600000",
)  # fmt: skip


def mutate(data: bytes, random: Random, words: Sequence[bytes], longest: int) -> bytes:
    """An input that differs in one to three places."""
    for _ in range(random.choice((1, 1, 2, 3))):
        data = random.choice(_CHANGES)(data, random, words)
    return data[:longest]


def _value(data: bytes, random: Random, words: Sequence[bytes]) -> bytes:
    """Replace a value."""
    found = list(_VALUE.finditer(data))
    if not found:
        return data + random.choice(_VALUES)
    place = random.choice(found)
    other = random.choice(
        (random.choice(_VALUES), random.choice(_VALUES), random.choice(words or _VALUES), random.choice(found)[0])
    )
    if random.random() < 0.2 and place[0][:1] == b'"':
        other = b'"' + other.strip(b'"') + b'"'
    return data[: place.start()] + other + data[place.end() :]


def _number(data: bytes, random: Random, _: Sequence[bytes]) -> bytes:
    """Change a number a little, or by much."""
    found = list(re.finditer(rb"[0-9]{1,18}", data))
    if not found:
        return data
    place = random.choice(found)
    number = int(place[0])
    changed = random.choice((number + 1, max(0, number - 1), number * 10, number * 1000, number // 10, 0))
    return data[: place.start()] + str(changed).encode() + data[place.end() :]


def _insert(data: bytes, random: Random, words: Sequence[bytes]) -> bytes:
    """Insert a word between two others."""
    places = [0, len(data), *(match.start() for match in re.finditer(rb"\W", data))]
    at = random.choice(places)
    return data[:at] + random.choice(words or _VALUES) + data[at:]


def _lines(data: bytes, random: Random, _: Sequence[bytes]) -> bytes:
    """Repeat, remove, move or indent a line."""
    lines = data.split(b"\n")
    at, to = random.randrange(len(lines)), random.randrange(len(lines))
    match random.randrange(5):
        case 0:
            lines.insert(to, lines[at])
        case 1:
            del lines[at]
        case 2:
            lines[at], lines[to] = lines[to], lines[at]
        case 3:
            lines[at] = random.choice((b" ", b"  ", b"    ", b"\t", b"- ", b"# ", b"? ")) + lines[at]
        case _:
            lines[at] = lines[at].lstrip()
    return b"\n".join(lines)


def _remove(data: bytes, random: Random, _: Sequence[bytes]) -> bytes:
    if not data:
        return data
    at = random.randrange(len(data))
    return data[:at] + data[at + random.choice((1, 1, 2, 8, 64)) :]


def _repeat(data: bytes, random: Random, _: Sequence[bytes]) -> bytes:
    """Repeat a part many times: nesting, long values, many fields."""
    if not data:
        return data
    at = random.randrange(len(data))
    part = data[at : at + random.choice((1, 1, 2, 8, 32))]
    return data[:at] + part * random.choice((2, 3, 40, 500)) + data[at:]


def _byte(data: bytes, random: Random, _: Sequence[bytes]) -> bytes:
    at = random.randrange(len(data) + 1)
    return (
        data[:at] + bytes([random.choice((random.randrange(256), *b"\0\n\r\t \"'\\:#{}[],-&*!|>%@`"))]) + data[at + 1 :]
    )


_CHANGES: tuple[Callable[[bytes, Random, Sequence[bytes]], bytes], ...] = (
    _value, _value, _value, _value, _value, _number, _insert, _insert, _lines, _lines, _remove, _repeat, _byte,
)  # fmt: skip
