"""Fuzzes everything that comes from outside: `cd tests && python -m fuzz [--short] [--seconds N] [--only NAME]`.

libFuzzer (atheris) mutates inputs and keeps those that reach code that none did before. Each target states what holds
for every input: what is accepted is right, what is refused is refused as documented, and no message has a piece of it.
Afterwards it proves that it finds faults: some are put into the code, and have to be found. --short and these try so
many inputs, the same ones on each machine.

Prints a table. Exit 1 if a property did not hold: the input is written to `fuzz/faults`, whose files the ordinary tests
run again (`fuzz/test_corpus.py`).

    --keep DIR          keep new inputs there, and begin with them the next time
    --merge DIR         renew `fuzz/corpus` from it: few small inputs that reach all that is reached
    --input FILE        run one input, with --only; prints the traceback
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import logging
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from fuzz import catalog, corpus, fallback, mutants, run
from fuzz.run import AT_ONCE, FAULTS, Bound, Result
from support.rig import say

# Seconds of all targets together.
_FULL = 3600.0
# New inputs of each target in the short form. With the mutants it takes 70 s of processor time, on two cores.
_SHORT = 5000
# Seconds until a target's process has imported and instrumented its modules.
_STARTS_IN = 2.5


def main() -> int:
    """Run what the arguments say."""
    parser = argparse.ArgumentParser(prog="python -m fuzz")
    parser.add_argument("--short", action="store_true", help="a minute in all, as .ci/run has it")
    parser.add_argument("--seconds", type=float, help="for all targets together, of two cores; an hour by default")
    parser.add_argument("--only", choices=catalog.MODULES, help="one target")
    parser.add_argument("--keep", type=Path, metavar="DIR")
    parser.add_argument("--merge", type=Path, metavar="DIR")
    parser.add_argument("--input", type=Path, metavar="FILE")
    given = parser.parse_args()
    names = [given.only] if given.only else list(catalog.MODULES)
    if given.input is not None:
        for name in names:
            logging.disable()
            catalog.load(name).check(given.input.read_bytes())
        return 0
    guided = importlib.util.find_spec("atheris") is not None
    if (given.keep or given.merge) and not guided:
        parser.error("--keep and --merge need atheris: pip install '.[fuzz]'")
    if given.merge is not None:
        for name in names:
            say(corpus.renew(name, given.merge))
        return 0
    if not guided:
        say("atheris is not installed (pip install '.[fuzz]'): examples by hypothesis, which does not see coverage")
    if given.short and not given.seconds:
        # What a change breaks fails, and what an hour would find does not.
        bound = Bound(inputs=_SHORT)
    else:
        each = (given.seconds or _FULL) / len(names) * (AT_ONCE if guided and len(names) > 1 else 1)
        bound = Bound(seconds=each - _STARTS_IN if guided else each)
    fuzz = partial(run.fuzz, bound=bound, kept=given.keep) if guided else partial(fallback.fuzz, bound=bound)
    return _fuzz(names, fuzz, guided=guided, with_mutants=not given.only)


def _fuzz(names: list[str], fuzz: Callable[[str], Result], *, guided: bool, with_mutants: bool) -> int:
    began = time.monotonic()
    failed = False
    results: list[Result] = []
    for result in run.several(names, fuzz) if guided else map(fuzz, names):
        results.append(result)
        say(f"{result.name:<12} {result.executions:>9} executions, {result.edges:>5} edges  {result.fault[:200]}")
        if result.fault:
            failed = True
            _report(result)
    if with_mutants and not _finds_mutants(guided=guided):
        failed = True
    say(f"all of it in {time.monotonic() - began:.0f} s\n")
    say(_table(results))
    return 1 if failed else 0


def _finds_mutants(*, guided: bool) -> bool:
    """Whether each fault that is put into the code is found."""
    look: Callable[[str], Result] = run.find_mutant if guided else fallback.find_mutant
    found = True
    results = run.several(mutants.MUTANTS, look) if guided else map(look, mutants.MUTANTS)
    for mutant, result in zip(mutants.MUTANTS, results, strict=True):
        if result.crashed:
            say(f"mutant: {mutant}: found in {result.seconds:.0f} s after {result.executions} executions")
        else:
            found = False
            say(f"FAILED: mutant: {mutant}: not found by {result.executions} executions: {result.fault}")
            say(result.log[-3000:])
    return found


def _report(result: Result) -> None:
    """What failed, and how to see it again."""
    say(f"FAILED: {result.name}: {result.fault}\n{result.log[-3000:]}")
    if result.input is None:
        return
    place = FAULTS / result.name / hashlib.sha256(result.input).hexdigest()[:16]
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(result.input)
    say(f"the input, of {len(result.input)} bytes: {result.input[:2000]!r}")
    say(f"see it again: python -m fuzz --only {result.name} --input {place}")


def _table(results: list[Result]) -> str:
    lines = [
        "| input | executions | seconds | edges covered | corpus files | faults found (and fixed) |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for result in results:
        what = catalog.load(result.name).what
        faults = corpus.count(FAULTS, result.name)
        edges = str(result.edges) if result.edges else "-"
        files = corpus.count(run.CORPUS, result.name)
        lines.append(f"| {what} | {result.executions:,} | {result.seconds:.0f} | {edges} | {files} | {faults} |")
    executions, seconds = sum(each.executions for each in results), sum(each.seconds for each in results)
    files, faults = (sum(corpus.count(place, each.name) for each in results) for place in (run.CORPUS, FAULTS))
    lines.append(f"| all | {executions:,} | {seconds:.0f} | | {files} | {faults} |")
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
