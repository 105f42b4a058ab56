"""A daemon that leaks, which the samples must show."""

from __future__ import annotations

import resource
import threading
from pathlib import Path
from typing import Final

from reads.site import site
from soak.flat import LEAST_SAMPLES, Growth
from soak.samples import COUNTING, sampled
from support.process import WITHIN, eventually, patched

_LINES: Final = (
    "import os",
    "from bearerd.publish import atomic",
    "right, kept = atomic.Files.replace, []",
    "def wrong(self, *arguments):",
    "    kept.append([bytearray(b'x' * 10240), *(str(number) for number in range(1000, 1010))])",
    "    os.dup(0)",
    "    return right(self, *arguments)",
    "atomic.Files.replace = wrong",
)
"""10 KiB, ten small objects and a descriptor for each file that is replaced."""
_TOKENS: Final = 12
_REFRESHES: Final = 300
"""While samples are taken. Each replaces six files: 18 MB, 18,000 objects and 1,800 descriptors are lost, two thirds of
them from the first third to the last: twice what RSS may grow."""
_DESCRIPTORS: Final = 8192
"""The limit: several times what it loses. Debian's default is 1024."""
LEAKING: Final = frozenset(f"{name} of the daemon" for name in ("live blocks", "RSS, MB", "descriptors"))
"""The figures that must not be flat."""


def leaks(scratch: Path) -> list[Growth]:
    """How its blocks, its memory and its descriptors grew."""
    scratch.mkdir()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, _DESCRIPTORS), hard))
    blocks = scratch / "blocks"
    environment = patched(scratch, {}, *_LINES, *COUNTING) | {"BEARERD_BLOCKS": str(blocks)}
    with site(scratch, scratch / "tokens", _TOKENS, (2.0, 3.0), environment) as here:
        before = here.provider.totals().grants
        with sampled(here.daemon.pid, every=0.5, blocks=blocks) as samples:
            eventually(lambda: here.provider.totals().grants >= before + _REFRESHES, 5 * WITHIN)
            # A machine that is busy refreshes faster than it takes samples.
            eventually(lambda: len(samples.figures[here.daemon.pid]["live blocks"]) >= LEAST_SAMPLES)
            threading.Event().wait(1)
    return [one for one in samples.growths() if one.name in LEAKING]
