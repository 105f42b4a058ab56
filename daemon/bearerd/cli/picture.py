"""Renders `GET /status` as coloured text, for a terminal of some width or for a pipe."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from typing import Any, Final

from rich.cells import cell_len
from rich.text import Text

from bearerd.cli.paper import Paper
from bearerd.timeformat import duration

_STYLES: Final = {
    "starting": "cyan",
    "valid": "green",
    "failing": "yellow",
    "unwritten": "bold red",
    "expired": "bold red",
    "missing": "bold red",
}
_BAD: Final = "bold red"
_GAP: Final = 2
_INDENT: Final = 2
# A shorter bar shows nothing, and a longer one shows nothing more.
_LEAST_BAR: Final = 10
_MOST_BAR: Final = 30
# Characters of a long name that are shown before there is room for a bar.
_LEAST_NAME: Final = 24
# Lines about breakers above the table: with more clients refused, the cause is common to them.
_MOST_BREAKERS: Final = 5


@dataclass(frozen=True, slots=True)
class _Row:
    """The texts for one token."""

    name: str
    state: str
    left: str
    turn: str
    life: tuple[float, float | None] | None
    """The share of its lifetime that is over, and the position of the next refresh."""
    notes: tuple[tuple[str, str], ...]
    """The lines below it, with their styles."""

    @property
    def trouble(self) -> int:
        """A sort key: 0 if something is wrong."""
        return 2 - bool(self.notes) if self.state == "valid" else 0


def picture(document: Mapping[str, Any], paper: Paper, trouble: str | None = None) -> list[Text]:
    """All lines; `trouble`: why the document is not from a daemon."""
    lines = _lines(document, paper, trouble)[: paper.height]
    if paper.width is not None:
        for line in lines:  # for terminals that are too narrow even for three columns
            line.truncate(paper.width, overflow="crop")
    return lines


def _lines(document: Mapping[str, Any], paper: Paper, trouble: str | None) -> list[Text]:
    rows = [_row(token, paper, document.get("now")) for token in document["tokens"]]
    lines = [*(paper.filled(paper.safe(trouble), _BAD) if trouble else ()), *_head(document, rows, paper)]
    if not rows:
        return lines
    columns = _Columns.of(rows, paper)
    lines += [Text(), columns.headings()]
    blocks = [columns.block(row, paper) for row in rows]
    legend = columns.legend(paper)
    if paper.height is None or len(lines) + sum(map(len, blocks)) + len(legend) <= paper.height:
        return [*lines, *chain.from_iterable(blocks), *legend]
    return [*lines, *_most_troubled(rows, blocks, paper, paper.height - len(lines))]


def _most_troubled(rows: list[_Row], blocks: list[list[Text]], paper: Paper, room: int) -> Iterator[Text]:
    """As many tokens as there is room for, those with problems first, and a count of the rest."""
    order = sorted(range(len(rows)), key=lambda index: rows[index].trouble)
    for shown, index in enumerate(order):
        if len(blocks[index]) >= room:  # one line is for the count
            rest = Counter(rows[index].state for index in order[shown:])
            yield _counted(f"and {rest.total()} more:", rest, paper)[0]
            return
        room -= len(blocks[index])
        yield from blocks[index]


# -- above the table ---------------------------------------------------------------------------------


def _head(document: Mapping[str, Any], rows: list[_Row], paper: Paper) -> Iterator[Text]:
    directory = document.get("directory")
    if document.get("pid") is None:
        yield from paper.filled(paper.safe(f"from the records in {directory} at {document.get('now')}"))
    else:
        up = _seconds(document.get("started_at"), document.get("now"))
        yield from paper.filled(
            paper.safe(
                f"bearerd {document.get('version')}, pid {document['pid']}, in {directory}, "
                f"since {document.get('started_at')}" + ("" if up is None else f" ({duration(up)})")
            )
        )
        if not document.get("alive"):
            yield from paper.filled("the scheduler's heartbeat is stale: no token is refreshed", _BAD)
    config = document.get("config") or {}
    if config.get("error"):
        yield from paper.filled(
            paper.safe(f"the new config was refused; the one loaded at {config.get('loaded_at')} stays in use:"), _BAD
        )
        yield from paper.folded(config["error"], "red")
    if rows:
        count = f"{len(rows)} token{'' if len(rows) == 1 else 's'}:"
        yield from _counted(count, Counter(row.state for row in rows), paper)
    yield from _breakers(document, paper)


def _breakers(document: Mapping[str, Any], paper: Paper) -> Iterator[Text]:
    """A line for each client whose breaker is open, or half-open while it holds tokens."""
    clients = document.get("clients") or {}
    lines = [line for name, client in clients.items() if (line := _breaker(client, name, document.get("now")))]
    more = len(lines) - _MOST_BREAKERS
    for line in [*lines[:_MOST_BREAKERS], *([f"and {more} more clients"] if more > 0 else [])]:
        yield from paper.filled(paper.safe(line), "yellow")


def _breaker(client: Mapping[str, Any], name: str, now: Any) -> str | None:
    refusals, held = client.get("refusals") or 0, client.get("held") or 0
    if not client.get("refused") and (client.get("breaker") == "closed" or not held):
        return None
    parts = [f"breaker {str(client.get('breaker')).replace('_', '-')}"]
    if client.get("refused"):
        parts.append("refused" + (f" {refusals} times" if refusals > 1 else ""))
        probe = _seconds(now, client.get("next_probe"))
        parts.append(f"next probe in {duration(probe)}" if probe and probe > 0 else "probe now")
    if held:
        parts.append(f"{held} held")
    return f"client {name}: {', '.join(parts)}"


def _counted(what: str, states: Counter[str], paper: Paper) -> list[Text]:
    """`3 tokens: 2 valid, 1 missing`."""
    lines = [Text(what)]
    for state, count in states.most_common():
        comma = "" if lines[-1].plain == what else ","
        said = Text(f"{count} {state}", _STYLES.get(state, ""))
        lines[-1].append(comma)
        if paper.width is not None and lines[-1].cell_len + 1 + said.cell_len + 1 > paper.width:
            lines.append(Text())
        lines[-1].append(" ").append_text(said)
    return lines


# -- a token -----------------------------------------------------------------------------------------


def _row(token: Mapping[str, Any], paper: Paper, now: Any) -> _Row:
    state = paper.safe(token.get("state"))
    left, turn = token.get("remaining_seconds"), token.get("next_refresh_seconds")
    said = "-" if left is None else duration(left)
    if state == "expired":
        ago = _seconds(token.get("expires_at"), now)
        said = "just now" if not ago else f"{duration(ago)} ago"  # in whole seconds
    return _Row(
        name=paper.safe(token.get("name")),
        state=state,
        left=said,
        turn="-" if turn is None else duration(turn) if turn else "now",
        life=_life(token.get("lifetime_seconds"), left, turn),
        notes=tuple((paper.safe(text), style) for text, style in _notes(token, now)),
    )


def _life(lifetime: float | None, left: float | None, turn: float | None) -> tuple[float, float | None] | None:
    if not lifetime or left is None or lifetime < 0:
        return None
    lived = min(max(1 - left / lifetime, 0.0), 1.0)
    return lived, None if turn is None or turn >= left else lived + turn / lifetime


def _notes(token: Mapping[str, Any], now: Any) -> Iterator[tuple[str, str]]:
    error, held, attempts = token.get("last_error"), token.get("held_by"), token.get("failed_attempts")
    if error:
        lasted = _seconds(token.get("failing_since"), now)
        more = f" ({attempts} attempts in {duration(lasted)})" if lasted and attempts and attempts > 1 else ""
        yield f"{error}{more}", "yellow" if token.get("on_disk") else "red"
    if held:
        left = _seconds(now, token.get("held_until"))
        yield f"held{_for(left)}: {token.get('held_text') or held}", "cyan"
    if token.get("publish_at"):
        yield f"a new token is published{_in(_seconds(now, token['publish_at']))}", "cyan"
    for fault in token.get("file_errors") or ():
        yield f"files: {fault}", "yellow" if token.get("on_disk") else "red"
    hooks = token.get("hooks") or {}
    if hooks.get("last_error"):
        yield str(hooks["last_error"]), "yellow"


def _in(seconds: float | None) -> str:
    return f" in {duration(seconds)}" if seconds and seconds > 0 else " now"


def _for(seconds: float | None) -> str:
    return f" for {duration(seconds)}" if seconds else ""


def _seconds(since: Any, until: Any) -> float | None:
    try:
        return (datetime.fromisoformat(until) - datetime.fromisoformat(since)).total_seconds()
    except (TypeError, ValueError):
        return None


# -- the table ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Columns:
    """The widths of the columns. Name, state and remaining time are always shown."""

    name: int
    state: int
    left: int
    turn: int | None
    bar: int | None

    @classmethod
    def of(cls, rows: list[_Row], paper: Paper) -> _Columns:
        """The columns that fit."""
        name = max(len("TOKEN"), *(cell_len(row.name) for row in rows))
        state = max(len("STATE"), *(cell_len(row.state) for row in rows))
        left = max(len("LEFT"), *(len(row.left) for row in rows))
        turn = max(len("NEXT"), *(len(row.turn) for row in rows))
        lives, turns = any(row.life for row in rows), any(row.turn != "-" for row in rows)
        if paper.width is None:
            return cls(name, state, left, turn if turns else None, _MOST_BAR if lives else None)
        rest = paper.width - state - left - 2 * _GAP
        least = min(name, _LEAST_NAME)
        turns = turns and rest - turn - _GAP >= least
        if turns:
            rest -= turn + _GAP
        lives = lives and rest - _LEAST_BAR - _GAP >= least
        name = max(0, min(name, rest - (_LEAST_BAR + _GAP if lives else 0)))
        bar = min(_MOST_BAR, rest - name - _GAP)
        return cls(name, state, left, turn if turns else None, bar if lives else None)

    def headings(self) -> Text:
        """The heading line."""
        line = self._line(Text("TOKEN"[: self.name]), Text("STATE"), Text("LEFT"), Text("NEXT"), Text("LIFE"))
        line.stylize("bold")
        return line

    def block(self, row: _Row, paper: Paper) -> list[Text]:
        """A token's line, and its notes."""
        style = _STYLES.get(row.state, "")
        line = self._line(
            Text(_without_its_middle(row.name, self.name, paper)),
            Text(row.state, style),
            Text(row.left),
            Text(row.turn),
            self._bar(row, style, paper),
        )
        room = None if paper.width is None else paper.width - _INDENT
        return [line, *(Text(" " * _INDENT).append(paper.cut(text, room), how) for text, how in row.notes)]

    def legend(self, paper: Paper) -> list[Text]:
        """The legend for the bars, if there is room."""
        glyphs = paper.glyphs
        text = f"{glyphs.lived} elapsed  {glyphs.left} left  {glyphs.turn} next refresh"
        if self.bar is None or (paper.width is not None and len(text) > paper.width):
            return []
        return [Text(), Text(text, "dim")]

    def _line(self, name: Text, state: Text, left: Text, turn: Text, bar: Text) -> Text:
        cells = [(name, self.name), (state, self.state), (left, self.left)]
        if self.turn is not None:
            cells.append((turn, self.turn))
        if self.bar is not None:
            cells.append((bar, self.bar))
        line = Text()
        for text, width in cells:
            line.append_text(text).append(" " * (width - text.cell_len + _GAP))
        line.rstrip()
        return line

    def _bar(self, row: _Row, style: str, paper: Paper) -> Text:
        if self.bar is None or row.life is None:
            return Text()
        glyphs, (over, turn) = paper.glyphs, row.life
        lived = round(over * self.bar)
        bar = Text().append(glyphs.lived * lived, "dim").append(glyphs.left * (self.bar - lived), style)
        at = self.bar if turn is None else int(turn * self.bar)
        if lived <= at < self.bar:
            return bar[:at].append(glyphs.turn, "bold").append_text(bar[at + 1 :])
        return bar


def _without_its_middle(name: str, width: int, paper: Paper) -> str:
    """A long name without its middle: the end distinguishes tokens of a client, the beginning names the client."""
    if cell_len(name) <= width:
        return name
    dots = paper.glyphs.dots
    keep = max(0, width - len(dots))
    end = keep * 2 // 3
    return (name[: keep - end] + dots + (name[-end:] if end else ""))[:width]
