"""Programs that are wrong on purpose, each in one way: the rig has to report each in the right column."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from faults import kills
from faults.judge import Row, token_in
from faults.kills import Kill
from faults.place import Rig, kept, place
from support.process import eventually, patched

_BEFORE: Final = (
    "import os, sys",
    "from bearerd.publish import atomic",
    "right = atomic.Files.replace",
    "def replace(self, path, content, wanted):",
)
_AFTER: Final = ("atomic.Files.replace = replace",)
_KILLED: Final[Mapping[str, tuple[tuple[str, str], tuple[str, ...]]]] = {
    "torn": (
        ("write", "after"),
        (
            "    right(self, path, b'', wanted)",
            "    file = os.open(path, os.O_WRONLY | os.O_TRUNC)",
            "    os.write(file, content[:9])",
            "    os.write(file, content[9:])",
            "    os.close(file)",
            "    return atomic.Replaced(os.stat(path))",
        ),
    ),
    "absent": (
        ("unlinkat", "after"),
        ("    self.remove(path)", "    return right(self, path, content, wanted)"),
    ),
    "left": (
        ("fsync", "before"),
        (
            "    self.sweep = lambda directories: 0",
            "    return right(self, path, content, wanted)",
            "atomic.Files.sweep = lambda self, directories: 0",
        ),
    ),
    "leaked": (
        ("fsync", "before"),
        ("    sys.stderr.write(content.decode())", "    return right(self, path, content, wanted)"),
    ),
}
"""By column: the calls at which the program is killed, and how it replaces files."""
_NEVER_RENEWS: Final = (
    "    if os.path.exists(path) and '.bearerd' not in path:",
    "        return atomic.Replaced(os.stat(path))",
    "    return right(self, path, content, wanted)",
)


def wrong_programs(rig: Rig, path: Path) -> list[Row]:
    """One row, in which a program that was not caught is wrong."""
    found = Row(f"{len(_KILLED) + 1} programs that are wrong on purpose: each is reported")

    def caught(column: str) -> None:
        (call, action), lines = _KILLED[column]
        only = [Kill(("-c", call, "-p", "/tokens/dnb/"), number, action) for number in (1, 2, 3)]
        where = path / column
        where.mkdir()
        row = kills.once(rig, where, first=False, env=patched(where, {}, *_BEFORE, *lines, *_AFTER), only=only)
        found.runs += row.runs
        found.expect(getattr(row, column), f"{column} is not reported: {row}")

    with ThreadPoolExecutor(kills.AT_ONCE) as pool:
        list(pool.map(caught, _KILLED))
    row = Row("never renews", silent=True)
    with place(path / "expired", lifetime=20.0) as here:
        here.provider.spare = 0.0
        env = patched(path, {}, *_BEFORE, *_NEVER_RENEWS, *_AFTER)
        with kept(here, row, env=env):
            eventually(lambda: not here.provider.takes(token_in("bci", here.raw.read_text())))
    found.runs += 1
    found.expect(row.expired, f"expired is not reported: {row}")
    return [found]
