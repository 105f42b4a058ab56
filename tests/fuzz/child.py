"""One target in a process of its own, which libFuzzer ends: `python -m fuzz.child NAME MUTANT ARGUMENT…`.

The arguments are those of libFuzzer. MUTANT is empty, or the name of a fault to put into the code first.
"""

from __future__ import annotations

import logging
import random
import sys
from contextlib import nullcontext

import atheris

from fuzz import mutants
from fuzz.mutate import mutate


def main() -> None:
    """Run libFuzzer. Does not return."""
    name, mutant, *arguments = sys.argv[1:]
    logging.disable()
    with atheris.instrument_imports(include=["bearerd"]):
        from fuzz import catalog  # noqa: PLC0415 - what is imported here is instrumented

        target = catalog.load(name)

    def changed(data: bytes, most: int, seed: int) -> bytes:
        numbers = random.Random(seed)
        if (draw := numbers.random()) < 0.4:
            return bytes(atheris.Mutate(data, most))
        # Most inputs that reach other code are broken in one place already, and get no further.
        return mutate(data if draw < 0.7 else numbers.choice(target.seeds), numbers, target.words, most)

    atheris.Setup([sys.argv[0], *arguments], target.check, custom_mutator=changed)
    with mutants.MUTANTS[mutant].applied() if mutant else nullcontext():
        atheris.Fuzz()


if __name__ == "__main__":
    main()
