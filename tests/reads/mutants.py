"""Daemons with a fault, which the readers must find: a rig that finds nothing may be blind."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from reads.site import SHORT, site
from support.process import eventually, patched


class Mutant(NamedTuple):
    """Lines of Python that put a fault into the daemon, and what the readers call it."""

    lines: tuple[str, ...]
    found_as: str


_REPLACES: Final = (
    "import os, time",
    "from bearerd.publish import atomic",
    "right = atomic.Files.replace",
    "def wrong(self, path, content, wanted):",
    "    if '/.bearerd/' in path or not os.path.exists(path):",
    "        return right(self, path, content, wanted)",
)
# The pauses are those of a slow disk.
MUTANTS: Final[Mapping[str, Mutant]] = {
    "writes in place": Mutant(
        (
            *_REPLACES,
            "    with open(path, 'r+b', buffering=0) as file:",
            "        file.truncate()",
            "        for at in range(0, len(content), 512):",
            "            file.write(content[at : at + 512])",
            "            time.sleep(0.001)",
            "        return atomic.Replaced(os.fstat(file.fileno()))",
            "atomic.Files.replace = wrong",
        ),
        "torn",
    ),
    "deletes the old file first": Mutant(
        (
            *_REPLACES,
            "    os.unlink(path)",
            "    time.sleep(0.001)",
            "    return right(self, path, content, wanted)",
            "atomic.Files.replace = wrong",
        ),
        "absent",
    ),
    "refreshes after the expiry": Mutant(
        ("from bearerd.lifecycle import policy", "policy.lead = lambda *_: -0.2"),
        "expired",
    ),
}


def found(name: str, scratch: Path) -> str:
    """Let the readers find the fault of a mutant; fails if they do not."""
    mutant = MUTANTS[name]
    scratch.mkdir()
    environment = patched(scratch, {}, *mutant.lines)
    lifetimes = (2.0, 3.0) if mutant.found_as == "expired" else SHORT
    with site(scratch, scratch / "tokens", 4, lifetimes, environment) as here:
        readers = here.readers
        readers.c("C", "read", here.every)
        readers.python("Python", here.every)
        readers.shell("sh", "dash", "cat", here.files["raw"])
        eventually(lambda: all(reader.counts.reads for reader in readers.all))
        eventually(lambda: getattr(readers.counts(), mutant.found_as) > 0)
        readers.end()
        counts = readers.counts()
        others = counts.bad - getattr(counts, mutant.found_as)
        assert others == 0, f"a daemon that {name} was also found to do something else: {counts}"
        return f"a daemon that {name}: {getattr(counts, mutant.found_as)} of {counts.reads} reads {mutant.found_as}"
