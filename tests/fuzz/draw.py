"""Values from the bytes of an input, for inputs that are no text: the same bytes give the same values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

_Value = TypeVar("_Value")


class Draw:
    """Reads an input from its start. After its end, everything is 0 or empty."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        """Whether something is left."""
        return self._at < len(self._data)

    def number(self, most: int) -> int:
        """From 0 to `most`."""
        size = (most.bit_length() + 7) // 8
        return int.from_bytes(self.take(size), "little") % (most + 1)

    def flag(self) -> bool:
        return self.number(1) == 1

    def choice(self, values: Sequence[_Value]) -> _Value:
        return values[self.number(len(values) - 1)]

    def take(self, size: int) -> bytes:
        """At most so many bytes."""
        found = self._data[self._at : self._at + size]
        self._at += size
        return found

    def some(self, most: int = 255) -> bytes:
        """A part with its length before it."""
        return self.take(self.number(most))

    def rest(self) -> bytes:
        return self.take(len(self._data))
