"""Mutation testing: `cd tests && python -m mutation [--short] [--only MODULE] [--survivors] [--jobs N]`.

Each mutant is one small change of the code: `<` becomes `<=`, a number grows by one, a call is left out. A mutant that
no test notices (a survivor) shows a missing test, code that does nothing, or a change that makes no difference. Only
the last kind may stay, with its reason in `survivors/PACKAGE.txt`, one line each:

    MODULE FUNCTION: OLD CODE => NEW CODE -- why no test can or has to notice it

"?" marks a survivor whose reason is not known yet: the full form fails, and the short form takes no sample of it.

    python -m mutation                             every mutant of the modules in rooms.py
    python -m mutation --only lifecycle/policy     the mutants of one module; a package's name means all of its modules
    python -m mutation --only share --survivors    also prints each survivor, in the format of the file above
    python -m mutation --only share --match _open  only mutants whose identity contains this text
    python -m mutation --short                     a sample of those that were killed, another one each day (or --seed)

The mutants are those of mutmut's operators and three more (mutants.py); the runner forks for each one (runner.py). The
tests that run a changed line are run, quickest first, until one fails. Exit 1 if a survivor has no reason, or a listed
one no longer survives or exists. The last output is a table.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from random import Random

from mutation import proof
from mutation.mutants import EXCLUDED, Mutant, mutants_of
from mutation.pool import Verdict
from mutation.rooms import ROOMS, Room
from mutation.runner import at_import, in_functions, prepare, survey
from support.rig import say

_SURVIVORS = Path(__file__).parent / "survivors"
_DEAD = {"killed", "timed out"}
_SHORT = 60.0
"""Seconds after which the short form begins with no other room, so that all of it takes 90 s on two quiet cores."""
_SAMPLE = 60
"""Mutants of a room in the short form: 10 to 20 s."""


def listed(modules: Sequence[str]) -> dict[str, str]:
    """The survivors of these modules that are listed: identity and reason, "?" until there is one."""
    packages = sorted({module.partition("/")[0] for module in modules})
    paths = [path for package in packages if (path := _SURVIVORS / f"{package}.txt").exists()]
    lines = [line for path in paths for line in path.read_text().splitlines() if line and not line.startswith("#")]
    pairs = [line.rpartition(" -- ") for line in lines]
    return {identity: reason for identity, _, reason in pairs if identity.partition(" ")[0] in modules}


def run(room: Room, mutants: Sequence[Mutant], jobs: int) -> list[Verdict]:
    """The verdicts on mutants of a room."""
    began = time.monotonic()
    known = survey(room)
    say(f"{len(known.seconds)} tests pass without a mutant, in {time.monotonic() - began:.0f} s")
    late = [mutant for mutant in mutants if known.runs_at_import(mutant)]
    inner = [mutant for mutant in mutants if not known.runs_at_import(mutant)]
    with tempfile.TemporaryDirectory(prefix="mu-", ignore_cleanup_errors=True) as work:
        verdicts, left = in_functions(inner, room, known, jobs, Path(work))
        return [*verdicts, *at_import([*late, *left], room, known, jobs, Path(work))]


def table(rows: Sequence[tuple[str, Sequence[Verdict], int]]) -> str:
    """The result in Markdown."""
    lines = [
        "| module | mutants | killed | timed out | survived | explained | score |",
        "|---|---|---|---|---|---|---|",
    ]
    for module, verdicts, reasons in rows:
        counts = Counter(verdict.outcome for verdict in verdicts)
        dead = counts["killed"] + counts["timed out"]
        score = f"{100 * dead / len(verdicts):.1f} %" if verdicts else ""
        cells = (module, len(verdicts), counts["killed"], counts["timed out"], counts["survived"], reasons, score)
        lines.append(f"| {' | '.join(str(cell) for cell in cells)} |")
    return "\n".join(lines)


def wrong(verdicts: Sequence[Verdict], reasons: Mapping[str, str], names: Container[str]) -> list[str]:
    """What a run has shown to be wrong: survivors without a reason, and reasons without a survivor."""
    ended = {verdict.mutant.name: verdict.outcome for verdict in verdicts}
    return [
        *(f"survived: {each}" for each in ended if ended[each] == "survived" and reasons.get(each, "?") == "?"),
        *(f"is listed as a survivor, but {ended[each]}: {each}" for each in reasons if ended.get(each, "") in _DEAD),
        *(f"is listed as a survivor, but is no mutant: {each}" for each in reasons if each not in names),
    ]


def main() -> int:
    """Run the mutants of the chosen modules."""
    parser = argparse.ArgumentParser(prog="mutation", description="Mutation testing of the modules in rooms.py.")
    parser.add_argument("--short", action="store_true", help="a sample of the mutants that are not listed as survivors")
    parser.add_argument("--seed", type=int, default=int(time.time() // 86400), help="of the sample; else the day")
    parser.add_argument("--only", action="append", default=[], metavar="MODULE", help="a module or package")
    parser.add_argument("--match", default="", metavar="TEXT", help="only mutants whose identity contains this")
    parser.add_argument("--survivors", action="store_true", help="print each survivor as a line for its file")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="mutants at once")
    arguments = parser.parse_args()
    say(EXCLUDED)
    prepare()
    dice = Random(arguments.seed)
    rooms, ends = list(ROOMS), time.monotonic() + _SHORT
    if arguments.short:
        say(f"a sample with --seed {arguments.seed}")
        rooms = [room for room in rooms if room.examined]
        dice.shuffle(rooms)
    faults = proof.faults()
    rows: list[tuple[str, Sequence[Verdict], int]] = []
    only = set(arguments.only)
    for room in rooms:
        files = room.files()
        chosen = [module for module in files if not only or {module, module.partition("/")[0]} & only]
        if not chosen or (arguments.short and time.monotonic() > ends):
            continue
        reasons = listed(chosen)
        everything = [mutant for module in chosen for mutant in mutants_of(module, files[module])]
        mutants = [mutant for mutant in everything if arguments.match in mutant.name]
        if arguments.short:
            killed = [mutant for mutant in mutants if mutant.name not in reasons]
            mutants = dice.sample(killed, min(len(killed), _SAMPLE))
        say(f"{len(mutants)} mutants of {', '.join(chosen)}")
        verdicts = run(room, mutants, arguments.jobs)
        faults += wrong(verdicts, reasons, {mutant.name for mutant in everything})
        if arguments.survivors:
            survived = sorted(verdict.mutant.name for verdict in verdicts if verdict.outcome == "survived")
            say("\n".join(f"{each} -- {reasons.get(each, '?')}" for each in survived))
        for module in chosen:
            mine = [verdict for verdict in verdicts if verdict.mutant.module == module]
            rows.append((module, mine, sum(reasons.get(each.mutant.name, "?") != "?" for each in mine)))
    for line in faults:
        say(line)
    total = [verdict for _, verdicts, _ in rows for verdict in verdicts]
    say(table([*rows, ("all", total, sum(reasons for _, _, reasons in rows))]))
    return 1 if faults else 0


if __name__ == "__main__":
    raise SystemExit(main())
