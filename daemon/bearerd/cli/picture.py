"""Renders `GET /status` as coloured text, for a terminal of some width or for a pipe."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from itertools import chain
from typing import Any, Final

from rich.text import Text

from bearerd.cli.paper import Paper
from bearerd.cli.table import STYLES, Columns, Row
from bearerd.plural import counted
from bearerd.timeformat import duration, spoken

_BAD: Final = "bold red"
# The state of a token is the first part of its rank. One that is good but not well comes before those that start.
_RANKS: Final = ("expired", "missing", "unwritten", "failing", "valid, not well", "starting", "valid")
# The parts of a line that differ between tokens with the same trouble.
_OWN_PARTS: Final = re.compile(r", [0-9]+ attempts since [^;]*|; next attempt [^.;]*")
_TO_DO: Final = " To do: "
# Lines about breakers above the table: with more clients refused, the cause is common to them.
_MOST_BREAKERS: Final = 5
# Lines about shares: few fleets need more than one server.
_MOST_SHARES: Final = 3


def picture(document: Mapping[str, Any], paper: Paper, trouble: str | None = None) -> list[Text]:
    """All lines; `trouble`: why the document is not from a daemon."""
    lines = _lines(document, paper, trouble)[: None if paper.scrolls else paper.height]
    if paper.width is not None:
        for line in lines:  # for terminals that are too narrow even for three columns
            line.truncate(paper.width, overflow="crop")
    return lines


def _lines(document: Mapping[str, Any], paper: Paper, trouble: str | None) -> list[Text]:
    tokens = sorted(document["tokens"], key=_rank)
    rows = _rows(tokens, paper, document.get("now"))
    lines = [*(paper.filled(paper.safe(trouble), _BAD) if trouble else ()), *_head(document, rows, paper)]
    if not rows:
        return lines
    columns = Columns.of(rows, paper)
    lines += [Text(), columns.headings()]
    blocks = [columns.block(row, paper) for row in rows]
    legend = columns.legend(paper)
    if paper.height is None or len(lines) + sum(map(len, blocks)) + len(legend) <= paper.height:
        return [*lines, *chain.from_iterable(blocks), *legend]
    return [*lines, *_most_urgent(rows, blocks, paper, paper.height - len(lines))]


def _most_urgent(rows: list[Row], blocks: list[list[Text]], paper: Paper, room: int) -> Iterator[Text]:
    """The tokens for which there is room, and a count of the rest. If the terminal scrolls, all that are not well."""
    room -= 1 + paper.scrolls  # the count, and the hint
    shown = 0
    for row, block in zip(rows, blocks, strict=True):
        if len(block) > room and (row.well or not paper.scrolls):
            if not row.well and room > 0:  # a part of its line is better than nothing
                yield from block[:room]
                shown += 1
            break
        yield from block
        room -= len(block)
        shown += 1
    if rest := Counter(row.state for row in rows[shown:]):
        lines = _by_state(f"and {rest.total()} more:", rest, paper)
        yield from lines if paper.scrolls else lines[:1]
    if paper.scrolls:
        yield from paper.filled("bearerd status | less shows all, the most urgent first", "dim")


# -- above the table ---------------------------------------------------------------------------------


def _head(document: Mapping[str, Any], rows: list[Row], paper: Paper) -> Iterator[Text]:
    directory = document.get("directory")
    if document.get("pid") is None:
        yield from paper.filled(paper.safe(f"from the records in {directory}"))
    else:
        up = _seconds(document.get("started_at"), document.get("now"))
        since = _spoken(f"since {document.get('started_at')}", document.get("now"), paper)
        yield from paper.filled(
            paper.safe(
                f"bearerd {document.get('version')}, pid {document['pid']}, in {directory}, {since}"
                + (f" ({duration(up)})" if up else "")
            )
        )
    for trouble in document.get("troubles") or ():
        yield from paper.filled(paper.safe(_spoken(trouble.get("line"), document.get("now"), paper)), _BAD)
    error = (document.get("config") or {}).get("error")
    if "\n" in str(error or ""):  # its first line is shown above
        yield from paper.folded(error, "red")
    if rows:
        count = f"{counted(len(rows), 'token')}:"
        yield from _by_state(count, Counter(row.state for row in rows), paper)
    yield from _shares(document, paper)
    yield from _breakers(document, paper)


def _shares(document: Mapping[str, Any], paper: Paper) -> Iterator[Text]:
    """A line for each share."""
    shares = document.get("shares") or []
    for share in shares[:_MOST_SHARES]:
        line = _share(share, document.get("now"))
        yield from paper.filled(paper.safe(line), "" if share.get("state") == "up" else "yellow")
    if (more := len(shares) - _MOST_SHARES) > 0:
        yield from paper.filled(f"and {counted(more, 'more share')}")


def _share(share: Mapping[str, Any], now: Any) -> str:
    taken, stored, waiting = (share.get(name) or 0 for name in ("taken", "stored", "waiting"))
    since = _seconds(share.get("since"), now)
    parts = [
        str(share.get("state")) + ("" if since is None else f" for {duration(since)}"),
        counted(len(share.get("clients") or ()), "client"),
        f"{counted(taken, 'token')} taken",
        f"{stored} stored",
        *([f"{waiting} waiting"] if waiting else []),
    ]
    return f"share {share.get('name')}: {', '.join(parts)}"


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


def _by_state(what: str, states: Counter[str], paper: Paper) -> list[Text]:
    """`3 tokens: 2 valid, 1 missing`."""
    lines = [Text(what)]
    for state, count in states.most_common():
        comma = "" if lines[-1].plain == what else ","
        said = Text(f"{count} {state}", STYLES.get(state, ""))
        lines[-1].append(comma)
        if paper.width is not None and lines[-1].cell_len + 1 + said.cell_len + 1 > paper.width:
            lines.append(Text())
        lines[-1].append(" ").append_text(said)
    return lines


# -- a token -----------------------------------------------------------------------------------------


def _rank(token: Mapping[str, Any]) -> tuple[int, float]:
    """A sort key: the most urgent token first."""
    state, left = str(token.get("state")), token.get("remaining_seconds")
    if state == "valid" and token.get("trouble"):
        state = "valid, not well"
    rank = _RANKS.index(state) if state in _RANKS else -1
    return rank, float("inf") if left is None else left


def _rows(tokens: Iterable[Mapping[str, Any]], paper: Paper, now: Any) -> list[Row]:
    rows: list[Row] = []
    told: dict[tuple[Any, ...], str] = {}
    """By trouble, on a terminal: the token above that has it, too."""
    for token in tokens:
        trouble = token.get("trouble") or {}
        line = trouble.get("line")
        if trouble and paper.width is not None:
            parts = (_OWN_PARTS.sub("", str(trouble.get(part))) for part in ("failed", "do"))
            key = (token.get("provider"), *parts)
            first = told.setdefault(key, str(token.get("name")))
            if first != token.get("name"):
                line = f"The same as {first}. {_capital(str(trouble.get('holds')))}."
        rows.append(_row(token, line, paper, now))
    return rows


def _row(token: Mapping[str, Any], line: object, paper: Paper, now: Any) -> Row:
    state = paper.safe(token.get("state"))
    left, turn = token.get("remaining_seconds"), token.get("next_refresh_seconds")
    said = "-" if left is None else duration(_whole(left, token.get("expires_at"), now))
    next_in = None if turn is None else _whole(turn, token.get("next_refresh"), now)
    if state == "expired":
        ago = _seconds(token.get("expires_at"), now)
        said = "just now" if not ago else f"{duration(ago)} ago"  # in whole seconds
    style = "yellow" if state == "valid" else STYLES.get(state, "").removeprefix("bold ")
    notes = []
    if line:
        # The advice starts on a new line, in the plain colour.
        why, to_do, do = str(line).partition(_TO_DO)
        notes = [(why, style), *([(f"{to_do.lstrip()}{do}", "")] if to_do else [])]
    if token.get("publish_at"):
        waits = _seconds(now, token["publish_at"]) or 0.0
        when = f"at {token['publish_at']}" if waits > 0 else "now"
        notes.append((f"A new token is published {when}.", "cyan"))
    return Row(
        name=paper.safe(token.get("name")),
        state=state,
        left=said,
        turn="-" if next_in is None else duration(next_in) if next_in >= 1 else "now",
        life=_life(token.get("lifetime_seconds"), left, turn),
        notes=tuple((paper.safe(_spoken(text, now, paper)), style) for text, style in notes),
        well=not line and state == "valid",
    )


def _life(lifetime: float | None, left: float | None, turn: float | None) -> tuple[float, float | None] | None:
    if not lifetime or left is None or lifetime < 0:
        return None
    lived = min(max(1 - left / lifetime, 0.0), 1.0)
    return lived, None if turn is None or turn >= left else lived + turn / lifetime


def _whole(seconds: float, until: Any, now: Any) -> float:
    """The seconds until a moment, rounded like the whole times in the lines below; exact for the last second."""
    whole = _seconds(now, until)
    return seconds if whole is None or whole < 1 else whole


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _spoken(text: object, now: Any, paper: Paper) -> str:
    """A text with the times in it as durations and local times."""
    try:
        return spoken(str(text), datetime.fromisoformat(now).timestamp(), paper.zone)
    except (TypeError, ValueError, OverflowError, OSError):
        return str(text)


def _seconds(since: Any, until: Any) -> float | None:
    try:
        return (datetime.fromisoformat(until) - datetime.fromisoformat(since)).total_seconds()
    except (TypeError, ValueError):
        return None
