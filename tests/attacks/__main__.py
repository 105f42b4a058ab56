"""What an attacker or an accident does, really done: `cd tests && python -m attacks [ROW…]`, as root.

Plays the rows S1 to S12 (security) and R1 to R6 (surroundings) against the installed program, and judges by what can
be seen from outside. Prints a table: row, ok or BROKEN, what was tried, what happened; exit 1 where a line is BROKEN.
Where it cannot run it says SKIPPED, and why.
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
from attacks.place import Attack, Found, other_users_cannot
from support.rig import INSIDE, in_a_namespace_of_mounts, say, why_not

_PROGRAMS: Final = {"ip": "iproute2", "nft": "nftables", "unshare": "util-linux"}
ALONE: Final[Mapping[str, Attack]] = {
    "S2": local_api.s2,
    "S4": process.s4,
    "S6": provider.s6,
    "S11": local_api.s11,
}
"""Those that measure, or need a processor."""
BESIDE: Final[Mapping[str, Attack]] = {
    "S1": files.s1,
    "S3": config.s3,
    "S5": config.s5,
    "S7": files.s7,
    "S8": files.s8,
    "S9": provider.s9,
    "S10": provider.s10,
    "S12": local_api.s12,
    "R1": process.r1,
    "R2": files.r2,
    "R3": config.r3,
    "R4": process.r4,
    "R5": config.r5,
    "R6": provider.r6,
}
"""Those that mostly wait."""
_AT_ONCE: Final = 3


def main() -> int:
    """Skip, or play all of it, or the rows that are named."""
    why = why_not(_PROGRAMS) or other_users_cannot()
    if why:
        say(f"SKIPPED: {why}")
        return 0
    if INSIDE not in sys.argv:
        in_a_namespace_of_mounts("attacks", [INSIDE, *sys.argv[1:]], "--net")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    named = {argument.upper() for argument in sys.argv[1:] if argument != INSIDE}
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="bearerd-attacks-") as name:
        directory = Path(name)
        directory.chmod(0o755)  # other users go through it
        broken = sum(_play(row, attack, directory) for row, attack in ALONE.items() if not named or row in named)
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            plays = [
                pool.submit(_play, row, attack, directory)
                for row, attack in BESIDE.items()
                if not named or row in named
            ]
        broken += sum(play.result() for play in plays)
    say(f"{broken} BROKEN; all of it in {time.monotonic() - began:.0f} s")
    return 1 if broken else 0


def _play(row: str, attack: Attack, directory: Path) -> int:
    """One row; how many lines of it are broken."""
    path = directory / row
    path.mkdir(mode=0o755)
    broken = 0
    try:
        for found in attack(path):
            broken += 0 if found.ok else 1
            _show(row, found)
    except Exception as error:  # noqa: BLE001 - whatever a broken program does to an attack, the other rows are played
        broken += 1
        where = traceback.extract_tb(error.__traceback__)
        mine = next(frame for frame in reversed(where) if "attacks" in frame.filename)
        said = " ".join(str(error).split())[:300]
        _show(row, Found(attack.__doc__ or "", f"{type(error).__name__} in line {mine.lineno}: {said}", ok=False))
    return broken


def _show(row: str, found: Found) -> None:
    say(f"{row:<4}{'ok' if found.ok else 'BROKEN':<7} {found.tried} | {found.happened}")


if __name__ == "__main__":
    raise SystemExit(main())
