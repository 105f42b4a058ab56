"""The supply chain: `cd tests && python -m supply [--short]`, as root on Debian.

Builds the wheel, the sdist and the Debian package twice from one commit, in surroundings that differ in directory,
user, umask, locale, time zone, file order and time. They must be the same bytes. What the package contains must be
what requirements/ locks and what its SBOM lists. The index must have the hashes of the locks, and a renewal must take
newer versions. Then it asks for known vulnerabilities.

Without --short it also builds the package on Debian 13, and the image. Prints a table; exit 1 if something is wrong. If
it cannot run here, it prints SKIPPED and the reason.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from supply import audit, builds, index
from supply.builds import QUICK, Built
from supply.elsewhere import image, trixie
from supply.fakes import audits
from supply.lock import LOCKS
from supply.surroundings import pair
from support.rig import INSIDE, in_a_namespace_of_mounts, say, why_not

_PROGRAMS = {"dpkg-deb": "dpkg", "faketime": "faketime", "git": "git", "mount": "mount", "unshare": "util-linux"}
_PYTHON = "/usr/bin/python3"


def main() -> int:
    """Skip, or check all of it."""
    parser = argparse.ArgumentParser(prog="python -m supply")
    parser.add_argument("--short", action="store_true", help="without Debian 13 and the image, in a minute")
    parser.add_argument(INSIDE, action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if why := why_not(_PROGRAMS):
        say(f"SKIPPED: {why}")
        return 0
    if not given.inside:
        in_a_namespace_of_mounts("supply", [*sys.argv[1:], INSIDE])
    began = time.monotonic()
    rows: list[Built] = []
    faults: list[str] = []
    with tempfile.TemporaryDirectory(prefix="bearerd-supply-") as name:
        work = Path(name)
        work.chmod(0o755)  # others than root go through it
        try:
            for what, found in _steps(work, rows, short=given.short):
                say(f"{time.monotonic() - began:4.0f} s  {what}: {'; '.join(found) or 'ok'}")
                faults += found
        except (AssertionError, subprocess.SubprocessError, ValueError) as error:
            faults.append(str(error))
            say(f"FAILED: {error}")
    say("\n| artefact | built | sha256 the same | files | installed from lock |\n|---|---|---|---|---|")
    for row in rows:
        say(f"| {row.artefact} | 2 | {row.sha256[:16] or 'NO'} | {row.files} | {row.installed} |")
    say(f"\n{len(faults)} faults; all of it in {time.monotonic() - began:.0f} s")
    return 1 if faults else 0


def _steps(work: Path, rows: list[Built], *, short: bool) -> Iterator[tuple[str, list[str]]]:
    """Each check, with what it found wrong."""
    with ThreadPoolExecutor(2) as pool:
        tools, checks = pool.map(lambda name: builds.environment(name, work, _PYTHON), ("build", "tools"))
    yield "the locks of the tools are installed", []
    with pair(Path("/"), work / "here") as both:
        found = builds.wheel_and_sdist(both, tools)
        rows += found
        for row in found:
            yield row.artefact, row.faults
        rows.append(builds.deb(both, tools, work, QUICK if short else {}))
        yield rows[-1].artefact, rows[-1].faults
        yield "a time stamp in a wheel is found", builds.noticed(both, tools)
        yield "wrong hashes in build.txt fail the build", builds.refused(both[0], "build")
        if not short:
            yield "wrong hashes in runtime.txt fail the build", builds.refused(both[0], "runtime")
            yield "a time stamp in a package is found", builds.noticed_in_deb(both, QUICK)
    yield "the hashes are those of the index", index.hashes(checks, work)
    yield "the index has wheels for each Python and processor", index.platforms(checks, work)
    wrong, changes = index.renewal(checks, work)
    yield "a renewal takes a newer version", wrong
    say(
        "".join(f"        a renewal now would change {change}\n" for change in changes).rstrip() or "        up to date"
    )
    if not short:
        for elsewhere in (trixie, image):
            row = elsewhere(work, tools)
            rows.append(row)
            yield row.artefact, row.faults
    yield "the audit tells clean, vulnerable and unknown apart", audits(checks / "bin/pip-audit")
    for lock in index.NAMES:
        audited = audit.audit(LOCKS / f"{lock}.txt", checks / "bin/pip-audit")
        wrong = [] if audited.outcome in ("clean", "no data") else [audited.text]
        yield f"known vulnerabilities in {lock}.txt ({audited.outcome}: {audited.text})", wrong


if __name__ == "__main__":
    raise SystemExit(main())
