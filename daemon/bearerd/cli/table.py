"""The table of `bearerd status`: a line for each token, and below it the line about its trouble."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from rich.cells import cell_len
from rich.text import Text

from bearerd.cli.paper import Paper

STYLES: Final = {
    "expired": "bold red",
    "missing": "bold red",
    "unwritten": "bold red",
    "failing": "yellow",
    "starting": "cyan",
    "valid": "green",
}
"""The colour of each state, the most urgent state first."""
# Columns between two columns of the table, and before the notes below a line.
_GAP: Final = 2
_INDENT: Final = 2
# A shorter bar shows nothing, and a longer one shows nothing more.
_LEAST_BAR: Final = 10
_MOST_BAR: Final = 30
# Characters of a long name that are shown before there is room for a bar.
_LEAST_NAME: Final = 24


@dataclass(frozen=True, slots=True)
class Row:
    """The texts for one token."""

    name: str
    state: str
    left: str
    turn: str
    life: tuple[float, float | None] | None
    """The share of its lifetime that is over, and the position of the next refresh."""
    notes: tuple[tuple[str, str], ...]
    """The lines below it, with their styles."""
    well: bool


@dataclass(frozen=True, slots=True)
class Columns:
    """The widths of the columns. Name, state and remaining time are always shown.

    In a file or a pipe, a token is one line, with its trouble as the last column instead of a bar.
    """

    name: int
    state: int
    left: int
    turn: int | None
    bar: int | None
    noted: bool
    """Whether the last column has the notes."""

    @classmethod
    def of(cls, rows: list[Row], paper: Paper) -> Columns:
        """The columns that fit."""
        name = max(len("TOKEN"), *(cell_len(row.name) for row in rows))
        state = max(len("STATE"), *(cell_len(row.state) for row in rows))
        left = max(len("LEFT"), *(len(row.left) for row in rows))
        turn = max(len("NEXT"), *(len(row.turn) for row in rows))
        lives, turns = any(row.life for row in rows), any(row.turn != "-" for row in rows)
        if paper.width is None:
            return cls(name, state, left, turn if turns else None, None, any(row.notes for row in rows))
        rest = paper.width - state - left - 2 * _GAP
        least = min(name, _LEAST_NAME)
        turns = turns and rest - turn - _GAP >= least
        if turns:
            rest -= turn + _GAP
        lives = lives and rest - _LEAST_BAR - _GAP >= least
        name = max(0, min(name, rest - (_LEAST_BAR + _GAP if lives else 0)))
        bar = min(_MOST_BAR, rest - name - _GAP)
        return cls(name, state, left, turn if turns else None, bar if lives else None, noted=False)

    def headings(self) -> Text:
        """The heading line."""
        last = Text("TROUBLE" if self.noted else "LIFE")
        line = self._line(Text("TOKEN"[: self.name]), Text("STATE"), Text("LEFT"), Text("NEXT"), last)
        line.stylize("bold")
        return line

    def block(self, row: Row, paper: Paper) -> list[Text]:
        """A token's line, and its notes."""
        style = STYLES.get(row.state, "")
        line = self._line(
            Text(_without_its_middle(row.name, self.name, paper)),
            Text(row.state, style),
            Text(row.left),
            Text(row.turn),
            Text(" ".join(text for text, _ in row.notes)) if self.noted else self._bar(row, style, paper),
        )
        if self.noted:
            return [line]
        return [line, *(part for text, how in row.notes for part in paper.filled(text, how, _INDENT))]

    def legend(self, paper: Paper) -> list[Text]:
        """The legend for the bars, if there is room."""
        glyphs = paper.glyphs
        turn = f"  {glyphs.turn} next refresh" if self.turn is not None else ""
        text = f"{glyphs.lived} elapsed  {glyphs.left} left{turn}"
        if self.bar is None or (paper.width is not None and len(text) > paper.width):
            return []
        return [Text(), Text(text, "dim")]

    def _line(self, name: Text, state: Text, left: Text, turn: Text, last: Text) -> Text:
        cells: list[tuple[Text, int]] = [(name, self.name), (state, self.state), (left, self.left)]
        if self.turn is not None:
            cells.append((turn, self.turn))
        if self.noted or self.bar is not None:
            cells.append((last, self.bar or 0))
        return _joined(cells)

    def _bar(self, row: Row, style: str, paper: Paper) -> Text:
        if self.bar is None or row.life is None:
            return Text()
        glyphs, (over, turn) = paper.glyphs, row.life
        lived = round(over * self.bar)
        bar = Text().append(glyphs.lived * lived, "dim").append(glyphs.left * (self.bar - lived), style)
        at = self.bar if turn is None else int(turn * self.bar)
        if lived <= at < self.bar:
            return bar[:at].append(glyphs.turn, "bold").append_text(bar[at + 1 :])
        return bar


def _joined(cells: Iterable[tuple[Text, int]]) -> Text:
    line = Text()
    for text, width in cells:
        line.append_text(text).append(" " * (width - text.cell_len + _GAP))
    line.rstrip()
    return line


def _without_its_middle(name: str, width: int, paper: Paper) -> str:
    """A long name without its middle: the end distinguishes tokens of a client, the beginning names the client."""
    if cell_len(name) <= width:
        return name
    dots = paper.glyphs.dots
    keep = max(0, width - len(dots))
    end = keep * 2 // 3
    return (name[: keep - end] + dots + (name[-end:] if end else ""))[:width]
