"""What breaks, really broken: `cd tests && python -m faults`, as root with strace, nftables and libfaketime.

The real commands under a reader: killed at each call that changes a file, each of these calls failing, a full disk,
a network that swallows or resets, a clock that is set, descriptors used up. Prints what it saw; exit 1 where a reader
saw what it must not. Where it cannot run it says SKIPPED, and why. libfaketime is the library from PyPI, named in
$BEARERD_FAKETIME.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

from faults.scenes import clocks, descriptors, disk, failing, killed, network
from support.rig import INSIDE, in_a_namespace_of_mounts, say, why_not

_PROGRAMS = {"strace": "strace", "nft": "nftables", "ip": "iproute2", "unshare": "util-linux"}


def main() -> int:
    """Skip, or do all of it."""
    why = why_not(_PROGRAMS)
    if not why and not os.environ.get("BEARERD_FAKETIME"):
        why = "pip install libfaketime, and name its library in $BEARERD_FAKETIME"
    if why:
        say(f"SKIPPED: {why}")
        return 0
    if INSIDE not in sys.argv:
        in_a_namespace_of_mounts("faults", [INSIDE], "--net")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    began = time.monotonic()
    for scene in (killed, failing, disk, network, descriptors, clocks):
        with tempfile.TemporaryDirectory(prefix="bearerd-faults-") as name:
            try:
                say(f"{scene.__name__:<12} {scene(Path(name))}")
            except (AssertionError, subprocess.SubprocessError):
                say(f"FAILED: {traceback.format_exc()}")
                return 1
    say(f"all of it in {time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
