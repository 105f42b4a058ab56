"""Servers with a real systemd: `cd tests && python -m booted`, as root on Debian with mmdebstrap and systemd-container.

Boots a Debian 12 and a Debian 13. An ordinary user installs bearerd by the commands of docs/first-token.md as they are
there. Then root installs it by those of docs/install.md, and does to it what happens to servers; then the same with the
Debian package. Prints what it saw; exit 1 where one thing is otherwise. Where it cannot run it says SKIPPED, and why.
`python -m booted bookworm` is that one alone.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

from booted.machine import PROGRAMS, machine
from booted.ordinary_user import ordinary_user
from booted.package import package
from booted.scenes import by_hand
from support.rig import INSIDE, in_a_namespace_of_mounts, one_cgroup_tree, say, why_not

_RELEASES = ["bookworm", "trixie"]


def main() -> int:
    """Skip, or do all of it."""
    if why := why_not(PROGRAMS):
        say(f"SKIPPED: {why}")
        return 0
    if INSIDE not in sys.argv:
        in_a_namespace_of_mounts("booted", [*sys.argv[1:], INSIDE])
    one_cgroup_tree()
    with tempfile.TemporaryDirectory(prefix="bearerd-booted-") as name:
        for release in [word for word in sys.argv[1:] if word != INSIDE] or _RELEASES:
            began = time.monotonic()
            try:
                with machine(release, Path(name)) as here:
                    say(f"-- {release}: systemd {here.version()}, {here.run('python3', '--version')}")
                    try:
                        ordinary_user(here)
                        by_hand(here)
                        package(here)
                    except AssertionError:
                        say(here.run("journalctl", "--no-pager", "--lines=50", "--unit=bearerd*"))
                        raise
            except (AssertionError, subprocess.SubprocessError):
                say(f"FAILED: {traceback.format_exc()}")
                return 1
            say(f"all of it in {time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
