"""The output medium of `bearerd status`: width, height, encoding, and the characters for bars."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import tzinfo
from textwrap import wrap
from typing import Final, NamedTuple

from rich.cells import chop_cells
from rich.text import Text

from bearerd.printable import printable


class Glyphs(NamedTuple):
    """The characters for bars, and for cut text."""

    lived: str
    left: str
    turn: str
    dots: str


_DRAWN: Final = Glyphs("░", "█", "│", "…")
_TYPED: Final = Glyphs(".", "#", "|", "...")


@dataclass(frozen=True, slots=True)
class Paper:
    """The size and encoding of the output."""

    width: int | None = None
    """None: unlimited, for a file or a pipe."""
    height: int | None = None
    """None: unlimited."""
    encoding: str = "utf-8"
    scrolls: bool = False
    """Whether what is beyond the height can be read by scrolling."""
    zone: tzinfo | None = None
    """The time zone; None for this machine's."""

    @property
    def glyphs(self) -> Glyphs:
        """The characters for bars."""
        try:
            "".join(_DRAWN).encode(self.encoding)
        except UnicodeEncodeError:
            return _TYPED
        return _DRAWN

    def safe(self, text: object) -> str:
        """Text that can be encoded, without terminal control characters."""
        return printable(text).encode(self.encoding, "replace").decode(self.encoding)

    def filled(self, text: str, style: str = "", indent: int = 0) -> Iterator[Text]:
        """Text wrapped at words, each line indented by `indent` columns."""
        if self.width is None:
            yield Text(" " * indent).append(text, style)
            return
        room = max(1, self.width - indent)
        for line in wrap(text, room, break_on_hyphens=False):
            for part in chop_cells(line, room):
                yield Text(" " * indent).append(part, style)

    def folded(self, text: object, style: str = "") -> Iterator[Text]:
        """Text whose columns matter, wrapped at the width."""
        for line in str(text).expandtabs().splitlines():
            yield from self._chopped(self.safe(line), style)

    def _chopped(self, line: str, style: str) -> Iterator[Text]:
        parts = [line] if self.width is None else chop_cells(line, self.width) or [""]
        return (Text(part, style) for part in parts)
