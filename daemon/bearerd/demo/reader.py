"""A program that calls an API with a token from a file, without any OAuth code.

    python -m bearerd.demo.reader FILE URL

It prints a line `calls refused refreshes faults` after each call, until its standard input ends.
"""

from __future__ import annotations

import http.client
import select
import sys
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

CALLS_EACH: Final = 0.2  # seconds between calls


@dataclass
class Count:
    """The reader's counters."""

    calls: int = 0
    refused: int = 0
    """Calls with a 401 reply."""
    refreshes: int = 0
    """How often the file contained a new token."""
    faults: int = 0
    """Reads of a missing or empty file after the first token, and calls without a reply."""


def main() -> int:
    """Call the API until standard input ends."""
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
            count.faults += bool(last)  # before the first token there is no file
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
