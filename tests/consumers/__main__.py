"""Real consumers, with what docs/consumers.md tells each: `cd tests && python -m consumers [--all] [NAME…]`.

Runs those that are installed, and prints a table. Exit 1 if one of them was refused or saw fewer than three
refreshes; with --all also if one is not installed.
"""

from __future__ import annotations

import argparse
import sys
import time

from consumers.programs import CONSUMERS
from consumers.rig import LIFETIME, Row, run

_LEAST = 3


def main() -> int:
    """Run them and print the table."""
    parser = argparse.ArgumentParser(prog="python -m consumers")
    parser.add_argument("--all", action="store_true", help="that one is not installed is a failure")
    parser.add_argument("names", nargs="*", metavar="NAME", help="these alone, by the table's first column")
    given = parser.parse_args()
    if unknown := set(given.names) - {one.name for one in CONSUMERS}:
        parser.error(f"no consumer is called {', '.join(sorted(unknown))}")
    began = time.monotonic()
    rows, said = run([one for one in CONSUMERS if not given.names or one.name in given.names])
    sys.stdout.write(table(rows))
    bad = [row.name for row in rows if (given.all if row.missing else not row.good(_LEAST))]
    took = time.monotonic() - began
    sys.stdout.write(f"tokens of {LIFETIME:.0f} s, {took:.0f} s in all; ")
    sys.stdout.write(f"failed: {', '.join(bad)}\n{said}\n" if bad else "no 401\n")
    return 1 if bad else 0


def table(rows: list[Row]) -> str:
    """One line each."""
    width = max(len(row.name) for row in rows)
    lines = [f"{'consumer':{width}}  requests  refreshes  401s"]
    for row in rows:
        if row.missing:
            lines.append(f"{row.name:{width}}  not installed: {row.missing}")
        else:
            figures = f"{row.requests:8}  {row.refreshes:9}  {row.refused:4}"
            lines.append("  ".join([f"{row.name:{width}}", figures, "; ".join(row.faults)]).rstrip())
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    raise SystemExit(main())
