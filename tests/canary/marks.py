"""Secrets of every kind that can be recognized anywhere, and the places in which they were looked for."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from support.canary import Canary, Hit

_HARD: Final = '+ %"\\/&=ü'
"""Characters that are quoted differently in JSON, URLs, Basic, Python and YAML."""
COLUMNS: Final = ("where looked", "bytes or samples scanned", "marks looked for", "hits")


@dataclass(slots=True)
class Row:
    """What was looked at in one place."""

    amount: int = 0
    unit: str = "bytes"
    marks: int = 0
    hits: list[Hit] = field(default_factory=list)


class Marks:
    """Makes secrets, remembers them, and looks for them."""

    def __init__(self) -> None:
        self.canary = Canary()
        self.kinds: dict[str, str] = {}
        self.rows: dict[str, Row] = {}

    def make(self, kind: str, hard: str = _HARD) -> str:
        """A secret of a kind: random, with characters that have to be quoted in its middle."""
        text = f"{secrets.token_urlsafe(15)}{hard}{secrets.token_urlsafe(15)}"
        self.keep(kind, text)
        return text

    def keep(self, kind: str, text: str) -> None:
        """Look for a text from now on. Of a key in PEM, each line counts."""
        lines = [line for line in text.splitlines() if "-----" not in line]
        for line in lines if "-----" in text else [text]:
            self.canary.add(kind, line)
            self.kinds[line] = kind

    def look(
        self, where: str, *contents: bytes | str, but: Iterable[str] = (), samples: int | None = None, unit: str = ""
    ) -> list[Hit]:
        """Search texts for all marks but those of some kinds; the hits are also kept for the table."""
        row, allowed = self.rows.setdefault(where, Row()), set(but)
        hits = []
        for content in contents:
            data = content if isinstance(content, bytes) else content.encode(errors="surrogateescape")
            row.amount += len(data) if samples is None else 0
            hits += [hit for hit in self.canary.search(where, data) if hit.kind not in allowed]
        if samples is not None:
            row.amount, row.unit = row.amount + samples, unit or "samples"
        row.marks = max(row.marks, len(self.canary))
        row.hits += hits
        return hits

    def table(self) -> list[str]:
        """The table of everything that was looked at, in Markdown."""
        lines = [_line(*COLUMNS), _line(*("---" for _ in COLUMNS))]
        for where, row in self.rows.items():
            lines.append(_line(where, f"{row.amount:,} {row.unit}", f"{row.marks:,}", len(row.hits)))
        return lines

    @property
    def hits(self) -> list[Hit]:
        """Everything that was found."""
        return [hit for row in self.rows.values() for hit in row.hits]


def _line(*cells: object) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"
