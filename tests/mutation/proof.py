"""Shows that the runner tells killed mutants from survivors, in a function and at an import, before it is believed."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from mutation.mutants import mutants_of
from mutation.pool import Verdict
from mutation.rooms import TESTS, Room
from mutation.runner import at_import, in_functions, survey

_MODULE = "lifecycle/policy"
_WEAK = """
from bearerd.lifecycle.policy import halfway

def test_halfway():
    assert halfway(10.0, 20.0) == 15.0
    assert halfway(10.0, 10.5) == 11.0
"""
# The boundary, two seconds before the expiry, is not tested. The mutant with this text must survive, all others
# must be killed.
_SURVIVOR = "=> return now + (half if half > LEAST_BETWEEN_ATTEMPTS"


def faults() -> list[str]:
    """What the runner gets wrong about the mutants of one function and of one constant under a weak test."""
    with tempfile.TemporaryDirectory(prefix="mu-") as name:
        test = Path(name, "test_weak.py")
        test.write_text(_WEAK)
        shutil.copy(TESTS / "conftest.py", name)  # the same conditions as for all tests
        room = Room((_MODULE,), (str(test),))
        everything = mutants_of(_MODULE, room.files()[_MODULE])
        inner = [mutant for mutant in everything if mutant.function == "halfway"]
        outer = [mutant for mutant in everything if mutant.change.startswith("LEAST_BETWEEN_ATTEMPTS: Final = ")]
        known = survey(room)
        verdicts, left = in_functions(inner, room, known, 2, Path(name))
        verdicts += at_import([*left, *outer], room, known, 2, Path(name))
    found = [f"the runner says {each.outcome}: {each.mutant.name}" for each in verdicts if _is_wrong(each)]
    missing = len(inner) + len(outer) - len(verdicts)
    return [*found, *([f"the runner says nothing about {missing} mutants"] if missing else [])]


def _is_wrong(verdict: Verdict) -> bool:
    return (verdict.outcome == "survived") != (_SURVIVOR in verdict.mutant.change)
