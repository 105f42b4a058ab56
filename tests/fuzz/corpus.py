"""The committed inputs: few, small, and together they reach all code that is reached."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from pathlib import Path

from fuzz import catalog, run

MOST_FILES = 40
"""For each target: all of them together take seconds in the ordinary tests."""
MOST_BYTES = 1024
"""Of one file. Larger inputs are the same with more of it."""


def count(place: Path, name: str) -> int:
    """The files of a target."""
    return sum(1 for _ in (place / name).iterdir()) if (place / name).is_dir() else 0


def renew(name: str, kept: Path) -> str:
    """Choose from the present files, the seeds and the kept inputs. Returns what was done."""
    seeds = set(catalog.load(name).seeds)
    with tempfile.TemporaryDirectory(prefix="bearerd-corpus-") as directory:
        inputs: list[Path] = []
        # The seeds are always run. libFuzzer notes for each input what none before it reached.
        others = {*_contents(run.CORPUS / name), *_contents(kept / name)} - seeds
        for content in (*sorted(seeds), *sorted(others, key=lambda each: (len(each), each))):
            if content in seeds or len(content) < MOST_BYTES:
                inputs.append(Path(directory, hashlib.sha256(content).hexdigest()[:16]))
                inputs[-1].write_bytes(content)
        reached = run.features(name, inputs)
        most = sorted(inputs[len(seeds) :], key=lambda path: -len(reached.get(path, ())))
        chosen = [path for path in most if reached.get(path)][:MOST_FILES]
        place = run.CORPUS / name
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        for path in chosen:
            shutil.copyfile(path, place / path.name)
    size = sum(path.stat().st_size for path in place.iterdir())
    return f"{name:<12} {len(chosen)} of {len(inputs)} inputs, {size} bytes"


def _contents(place: Path) -> set[bytes]:
    return {path.read_bytes() for path in place.iterdir()} if place.is_dir() else set()
