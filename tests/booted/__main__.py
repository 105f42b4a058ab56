"""Servers with a real systemd: `cd tests && python -m booted [--only SUITE]`, as root on Debian.

Boots Debian 12, Debian 13 and Ubuntu 24.04 at the same time. On each, an ordinary user installs bearerd by the commands
of docs/first-token.md as they are there. Then root installs it by those of docs/install.md, and does to it what happens
to servers; then the same with the package for this release, which replaces an old one, and on Debian 12 with the RPM.
lintian and rpmlint look through the packages. Prints a table of the packages; exit 1 where one thing is otherwise.
Where it cannot run it prints SKIPPED, and why. Where Ubuntu's archive cannot be reached, it prints that, too, and does
the rest.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from booted import lint
from booted.machine import PROGRAMS, SYSTEMS, System, UnreachableError, machine
from booted.ordinary_user import ordinary_user
from booted.package import Row, package
from booted.rpm import rpm
from booted.scenes import by_hand
from support.rig import INSIDE, in_a_namespace_of_mounts, one_cgroup_tree, say, why_not


def main() -> int:
    """Skip, or do all of it."""
    parser = argparse.ArgumentParser(prog="python -m booted")
    parser.add_argument("--only", action="append", choices=[system.suite for system in SYSTEMS], help="this one alone")
    parser.add_argument(INSIDE, action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if why := why_not({**PROGRAMS, **lint.PROGRAMS}):
        say(f"SKIPPED: {why}")
        return 0
    if not given.inside:
        in_a_namespace_of_mounts("booted", [*sys.argv[1:], INSIDE])
    one_cgroup_tree()
    began = time.monotonic()
    systems = [system for system in SYSTEMS if given.only is None or system.suite in given.only]
    with tempfile.TemporaryDirectory(prefix="bearerd-booted-") as name, ThreadPoolExecutor(len(systems)) as pool:
        done = list(pool.map(lambda system: _proved(system, Path(name)), systems))
    say(f"all of it in {time.monotonic() - began:.0f} s\n")
    say("| package | built | lintian or rpmlint | installed | upgraded from | removed |\n|---|---|---|---|---|---|")
    for rows in done:
        for row in rows or []:
            say(f"| {' | '.join(row)} |")
    return 1 if None in done else 0


def _proved(system: System, directory: Path) -> list[Row] | None:
    """The packages of a system; None after a fault."""
    began, out = time.monotonic(), directory / f"packages-{system.suite}"
    out.mkdir()
    try:
        with machine(system, directory) as here:
            here.say(f"systemd {here.version()}, {here.run('python3', '--version')}")
            try:
                ordinary_user(here)
                by_hand(here)
                rows = [package(here, out)]
                if "rpm" in system.more:
                    rows.append(rpm(here, out))
            except AssertionError:
                here.say(here.sh("journalctl --no-pager --lines=50 --unit='bearerd*' 2>&1 || true"))
                raise
        rows = [row._replace(lint=lint.lint(out / row.package.strip("`"))) for row in rows]
    except UnreachableError:
        say(f"SKIPPED: {system.name}: its archive cannot be reached")
        return [Row(f"for {system.name}", "no: its archive cannot be reached", "", "", "", "")]
    except (AssertionError, OSError, subprocess.SubprocessError):
        say(f"FAILED: {system.name}: {traceback.format_exc()}")
        return None
    say(f"{system.name:13} done after {time.monotonic() - began:.0f} s")
    return rows


if __name__ == "__main__":
    raise SystemExit(main())
