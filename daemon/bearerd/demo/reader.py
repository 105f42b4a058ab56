"""A program that calls an API: it reads a file, and knows nothing of OAuth.

    python -m bearerd.demo.reader FILE URL

Prints a line `calls refused refreshes faults` after each call, until its standard input ends.
"""

from __future__ import annotations

import http.client
import select
import sys
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

CALLS_EACH: Final = 0.2  # seconds between calls: several a second


@dataclass
class Count:
    """What the reader saw."""

    calls: int = 0
    refused: int = 0
    """Answered 401."""
    refreshes: int = 0
    """How often the file held another token than before."""
    faults: int = 0
    """A file that was missing or empty after the first read, or a call that got no answer."""


def main() -> int:
    """Call until standard input ends."""
    path, url = sys.argv[1:3]
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=10)
    count, last = Count(), ""
    while not _asked_to_stop():
        try:
            with open(path, encoding="ascii") as file:
                token = file.read()
        except FileNotFoundError:
            token = ""
        if not token:
            count.faults += bool(last)  # before the first token there is nothing to read
            continue
        count.refreshes += bool(last) and token != last
        last = token
        try:
            connection.request("GET", parts.path, headers={"Authorization": f"Bearer {token}"})
            response = connection.getresponse()
            response.read()
            count.refused += response.status == 401  # noqa: PLR2004
        except (OSError, http.client.HTTPException):
            count.faults += 1
            connection.close()
        count.calls += 1
        print(count.calls, count.refused, count.refreshes, count.faults, flush=True)
    return 0


def _asked_to_stop() -> bool:
    ready, _, _ = select.select([sys.stdin], [], [], CALLS_EACH)
    return bool(ready) and not sys.stdin.readline()


if __name__ == "__main__":
    raise SystemExit(main())
