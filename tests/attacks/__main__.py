"""Attacks and accidents, played for real: `cd tests && python -m attacks [ROW…]`, as root.

The rig plays the rows S1 to S12 (security) and R1 to R6 (surroundings) against the installed program and judges by
its behaviour alone. It prints a table: row, ok or BROKEN, the attack, the result. The exit code is 1 if a line is
BROKEN. An attack that cannot run here is SKIPPED, with the reason.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from attacks import config, files, local_api, process, provider
from attacks.common import Attack, Found, other_users_cannot
from support.rig import INSIDE, in_a_namespace_of_mounts, say, why_not

_PROGRAMS: Final = {"ip": "iproute2", "nft": "nftables", "unshare": "util-linux"}
ALONE: Final[Mapping[str, Attack]] = {
    "S2": local_api.s2,
    "S4": process.s4,
    "S6": provider.s6,
    "S11": local_api.s11,
}
"""Attacks that measure time or memory, or need a processor: one after the other."""
BESIDE: Final[Mapping[str, Attack]] = {
    "S7": files.s7,
    "S10": provider.s10,
    "S3": config.s3,
    "R2": files.r2,
    "R3": config.r3,
    "R4": process.r4,
    "R1": process.r1,
    "S1": files.s1,
    "S5": config.s5,
    "S8": files.s8,
    "S9": provider.s9,
    "S12": local_api.s12,
    "R5": config.r5,
    "R6": provider.r6,
}
"""Attacks that mostly wait: several at once, the longest first."""
_AT_ONCE: Final = 4


def main() -> int:
    """Play all rows, or those on the command line; returns the exit code."""
    why = why_not(_PROGRAMS) or other_users_cannot()
    if why:
        say(f"SKIPPED: {why}")
        return 0
    if INSIDE not in sys.argv:
        in_a_namespace_of_mounts("attacks", [INSIDE, *sys.argv[1:]], "--net")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    named = {argument.upper() for argument in sys.argv[1:] if argument != INSIDE} or {*ALONE, *BESIDE}
    if unknown := named - {*ALONE, *BESIDE}:
        say(f"there is no row {', '.join(sorted(unknown))}")
        return 2
    began, plays = time.monotonic(), {}
    with tempfile.TemporaryDirectory(prefix="bearerd-attacks-") as name:
        directory = Path(name)
        directory.chmod(0o755)  # other users go through it
        for rows, at_once in ((ALONE, 1), (BESIDE, _AT_ONCE)):
            with ThreadPoolExecutor(at_once) as pool:
                plays.update({row: pool.submit(_play, rows[row], directory / row) for row in rows if row in named})
    broken = 0
    for row in sorted(plays, key=lambda row: (row[0] == "R", int(row[1:]))):
        for found in plays[row].result():
            broken += 0 if found.ok else 1
            happened = found.happened.replace(name, "")
            say(f"{row:<4}{'ok' if found.ok else 'BROKEN':<7} {found.tried} | {happened}")
    say(f"{broken} BROKEN; all of it in {time.monotonic() - began:.0f} s")
    return 1 if broken else 0


def _play(attack: Attack, path: Path) -> list[Found]:
    """The lines of one row."""
    path.mkdir(mode=0o755)
    lines: list[Found] = []
    try:
        lines.extend(attack(path))
    except Exception as error:  # noqa: BLE001 - one row that fails in an unexpected way must not stop the others
        frames = traceback.extract_tb(error.__traceback__)
        ours = next(frame for frame in reversed(frames) if "/attacks/" in frame.filename)
        said = " ".join(str(error).split())[:300]
        where = f"{Path(ours.filename).name}:{ours.lineno}"
        lines.append(Found((attack.__doc__ or "").strip(), f"{type(error).__name__} at {where}: {said}", ok=False))
    return lines


if __name__ == "__main__":
    raise SystemExit(main())
