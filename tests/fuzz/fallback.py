"""Without atheris: examples by hypothesis, which knows nothing of coverage."""

from __future__ import annotations

import logging
import time
from random import Random

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from fuzz import catalog, mutants
from fuzz.mutate import mutate
from fuzz.run import CORPUS, FAULTS, MUTANT_WITHIN, Bound, Result
from fuzz.target import Target

# Changes of one input for each example: hypothesis takes longer for an example than most targets for an input.
_EACH = 50


def known_inputs(target: Target) -> list[bytes]:
    """The seeds, and the files of the target."""
    places = [path for path in (CORPUS / target.name, FAULTS / target.name) if path.is_dir()]
    return [*target.seeds, *(path.read_bytes() for place in places for path in sorted(place.iterdir()))]


def fuzz(name: str, bound: Bound) -> Result:
    """Run a target in this process until the bound, or until a property fails."""
    logging.disable()
    target = catalog.load(name)
    return _examples(target, known_inputs(target), bound)


def _examples(target: Target, known: list[bytes], bound: Bound) -> Result:
    began, count = time.monotonic(), 0
    failing: list[bytes] = []
    # As many as there are to be, the same ones each time; or some at random, again and again.
    examples = -(-bound.inputs // _EACH) or 100

    @settings(
        max_examples=examples,
        derandomize=bound.inputs > 0,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    @given(st.integers(0, 2**32), st.sampled_from(known))
    def one(seed: int, start: bytes) -> None:
        nonlocal count
        random = Random(seed)
        for _ in range(_EACH):
            data = mutate(start, random, target.words, target.longest)
            count += 1
            try:
                target.check(data)
            except Exception:
                failing.append(data)
                raise

    fault, over = "", False
    while not fault and not over:
        try:
            one()
        except Exception as error:  # noqa: BLE001 - any failure is a finding
            fault = f"{type(error).__name__}: {error}"
        over = time.monotonic() - began >= bound.seconds
    return Result(
        target.name,
        count,
        time.monotonic() - began,
        0,
        fault,
        failing[-1] if failing else None,
        bool(failing),
    )


def find_mutant(mutant: str) -> Result:
    """Look for a fault that is put into the code of this process."""
    logging.disable()
    it = mutants.MUTANTS[mutant]
    target = catalog.load(it.target)
    with it.applied():
        return _examples(target, known_inputs(target), Bound(inputs=MUTANT_WITHIN))
