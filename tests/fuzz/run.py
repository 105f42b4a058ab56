"""Runs targets under libFuzzer, each in a process of its own, two at a time."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from fuzz import catalog, mutants

HERE = Path(__file__).parent
CORPUS = HERE / "corpus"
"""Inputs that reach different code, a directory for each target."""
FAULTS = HERE / "faults"
"""Inputs that once failed."""
AT_ONCE = 2
# Seconds for one input. Each takes milliseconds, and a busy machine may pause for a minute.
_HANGS = 120
# Seconds from which libFuzzer writes down a slow input: never, because on a busy machine any input may be one.
_SLOW = 2 * _HANGS
# MiB. A target takes about 70, and no input should take memory that does not depend on its length.
_MEMORY = 512
# Inputs until a mutant has to be found, with seeds and without the corpus. The slowest takes a tenth of that.
MUTANT_WITHIN = 50_000
# Seconds beyond its time in which a process ends. One that counts inputs takes seconds, and minutes on a busy machine.
_GRACE = 1800
# What libFuzzer writes for an input: a property failed, it took too long, or too much memory.
_ARTIFACTS = ("crash", "timeout", "oom")
_PATHS = os.pathsep.join([str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])])


@dataclass(frozen=True)
class Result:
    """What one process did."""

    name: str
    executions: int
    seconds: float
    edges: int
    fault: str = ""
    """The last line of the error; empty if no property failed."""
    input: bytes | None = None
    """With which it failed."""
    crashed: bool = False
    """Whether a property failed. Otherwise the input took too much time or memory, or the process ended."""
    log: str = ""


@dataclass(frozen=True)
class Bound:
    """When a target has tried enough."""

    seconds: float = 0.0
    """With inputs that differ from run to run."""
    inputs: int = 0
    """Beyond the known ones: the same inputs on each machine, until the code or what it reaches changes."""


def several(names: Iterable[str], work: Callable[[str], Result]) -> Iterator[Result]:
    """Run each, two at a time. Yields the results in the order of the names."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield from pool.map(work, names)


def fuzz(name: str, bound: Bound, kept: Path | None = None) -> Result:
    """Run one target. New inputs that reach other code go to `kept`."""
    with tempfile.TemporaryDirectory(prefix="bearerd-fuzz-") as directory:
        found = kept / name if kept is not None else Path(directory, "found")
        found.mkdir(parents=True, exist_ok=True)
        known = [path for path in (CORPUS / name, FAULTS / name) if path.is_dir()]
        return _run(Path(directory), name, "", [found, *known], bound)


def find_mutant(mutant: str) -> Result:
    """Look for a fault that is put into the code, without the corpus."""
    with tempfile.TemporaryDirectory(prefix="bearerd-fuzz-") as directory:
        found = Path(directory, "found")
        found.mkdir()
        name = mutants.MUTANTS[mutant].target
        return _run(Path(directory), name, mutant, [found], Bound(inputs=MUTANT_WITHIN))


def features(name: str, inputs: Sequence[Path]) -> dict[Path, frozenset[int]]:
    """What each input reaches that none before it does: edges, with how often they are taken in powers of two."""
    with tempfile.TemporaryDirectory(prefix="bearerd-fuzz-") as directory:
        control = Path(directory, "control")
        control.write_text("\n".join([str(len(inputs)), "0", *map(str, inputs), ""]))
        _run(Path(directory), name, "", [], Bound(), "-merge_inner=1", f"-merge_control_file={control}")
        reached: dict[Path, frozenset[int]] = {}
        for line in control.read_text().splitlines()[len(inputs) + 2 :]:
            kind, number, *rest = line.split()
            if kind == "FT":
                reached[inputs[int(number)]] = frozenset(map(int, rest))
        return reached


def _run(directory: Path, name: str, mutant: str, corpus: list[Path], bound: Bound, *arguments: str) -> Result:
    """Run a target with the files of these directories and its seeds; new inputs go to the first directory."""
    target = catalog.load(name)
    seeds, faults, words = directory / "seeds", directory / "faults", directory / "words"
    seeds.mkdir()
    faults.mkdir()
    for number, seed in enumerate(target.seeds):
        (seeds / str(number)).write_bytes(seed)
    words.write_text("".join(f'"{_escaped(word)}"\n' for word in target.words if word))
    places, env = [*corpus, seeds] if corpus else [], os.environ | {"PYTHONPATH": _PATHS}
    options = [
        f"-timeout={_HANGS}", f"-report_slow_units={_SLOW}", f"-rss_limit_mb={_MEMORY}", f"-max_len={target.longest}",
        "-print_final_stats=1", f"-artifact_prefix={faults}/", *([f"-dict={words}"] if target.words else []),
        *arguments,
    ]  # fmt: skip
    if bound.inputs:
        # What else could differ: the order of files in a directory, of texts in a set, and inputs of other processes.
        known = [str(path) for place in places for path in sorted(place.iterdir())]
        (directory / "known").write_text(",".join(known))
        options += [f"-seed_inputs=@{directory}/known", f"-runs={len(known) + bound.inputs}", "-seed=1", "-reload=0"]
        places, env["PYTHONHASHSEED"] = places[:1], "0"
    elif bound.seconds:
        options.append(f"-max_total_time={max(1, round(bound.seconds))}")
    began = time.monotonic()
    try:
        done = subprocess.run(
            [sys.executable, "-m", "fuzz.child", name, mutant, *options, *map(str, places)],
            cwd=HERE.parent,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=bound.seconds + _GRACE,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        why = f"the process did not end within {error.timeout:.0f} s: it hangs, or the machine is much too busy"
        return Result(name, 0, time.monotonic() - began, 0, why)
    log = done.stdout.decode(errors="replace")
    failed = next(iter(sorted(path for path in faults.iterdir() if path.name.startswith(_ARTIFACTS))), None)
    fault = ""
    if failed is not None or done.returncode:
        lines = [
            line for line in log.splitlines() if re.match(r"[\w.]+(Error|Exception|Exit|Interrupt)\b|==[0-9]+==", line)
        ]
        fault = lines[0] if lines else f"exit {done.returncode}: {log[-500:]}"
    covered = re.findall(r"\bcov: ([0-9]+)", log)
    runs = re.findall(r"number_of_executed_units: ([0-9]+)", log) or re.findall(r"^#([0-9]+)\s", log, re.MULTILINE)
    return Result(
        name,
        int(runs[-1]) if runs else 0,
        time.monotonic() - began,
        int(covered[-1]) if covered else 0,
        fault,
        failed.read_bytes() if failed is not None else None,
        failed is not None and failed.name.startswith("crash"),
        log,
    )


def _escaped(word: bytes) -> str:
    """As libFuzzer's dictionaries have it."""
    return "".join(chr(byte) if 0x20 <= byte < 0x7F and byte not in b'"\\' else f"\\x{byte:02x}" for byte in word)
