"""The inputs that the fuzzer found: those that reach other code, and those that once failed. Without atheris."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from fuzz import catalog, corpus, run
from fuzz.mutants import MUTANTS
from fuzz.mutate import mutate
from fuzz.target import Target

MOST_CHANGES = 50_000
"""Many times more than it takes. The same ones each time, so that no test depends on luck."""


def inputs(target: Target) -> list[bytes]:
    places = [place / target.name for place in (run.CORPUS, run.FAULTS)]
    files = [path for place in places if place.is_dir() for path in sorted(place.iterdir())]
    return [*target.seeds, *(path.read_bytes() for path in files)]


@pytest.mark.parametrize("name", catalog.MODULES)
def test_every_property_holds_for_the_known_inputs(name: str) -> None:
    target = catalog.load(name)
    for each in inputs(target):
        target.check(each)


@pytest.mark.parametrize("mutant", MUTANTS)
def test_changes_of_the_known_inputs_find_each_mutant(mutant: str) -> None:
    target, random = catalog.load(MUTANTS[mutant].target), Random(17)
    known = inputs(target)
    changed = (mutate(random.choice(known), random, target.words, target.longest) for _ in range(MOST_CHANGES))
    with MUTANTS[mutant].applied():
        assert any(fails(target, each) for each in changed)


def fails(target: Target, data: bytes) -> bool:
    try:
        target.check(data)
    except Exception:  # noqa: BLE001 - a mutant may raise anything
        return True
    return False


@pytest.mark.parametrize("name", catalog.MODULES)
def test_the_corpus_stays_small(name: str) -> None:
    files = list((run.CORPUS / name).glob("*"))
    assert len(files) <= corpus.MOST_FILES
    assert all(path.stat().st_size < corpus.MOST_BYTES for path in files)


def test_each_input_belongs_to_a_target() -> None:
    directories: list[Path] = [path for place in (run.CORPUS, run.FAULTS) for path in place.iterdir()]
    assert {path.name for path in directories} <= catalog.MODULES.keys()
    assert any(directories)
