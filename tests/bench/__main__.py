"""What bearerd costs beside a Go program that does the same: `cd tests && python -m bench [--short] [NAME…]`.

Needs Debian's golang-go and golang-golang-x-oauth2-dev. Each measure runs beside its anchor, several times; the
table has the medians, the goals, and the least and the most seen. `--short` runs fewer tokens once, and exits 1 where
a figure is far above its goal: what a machine does besides falls on both sides of a ratio.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from bench import measures
from bench.measures import Figures
from bench.rig import Programs, why_not


@dataclass(frozen=True)
class Measure:
    """How a measure is run in full and in short, and what its figures are to be at most."""

    full: Callable[[Programs], Figures]
    short: Callable[[Programs], Figures] | None
    goals: dict[str, float]
    bounds: dict[str, float] = field(default_factory=dict)
    """The figures that the short form judges, and from where on they fail."""


MEASURES = {
    "burst": Measure(
        lambda programs: measures.burst(programs, 10_000),
        lambda programs: measures.burst(programs, 3_000),
        {"CPU per grant, ratio to Go": 10, "RSS, MB": 55},
        # It was 9 on one machine, and 15 to 20 on one whose processor runs Go twice as fast, but Python no faster.
        {"CPU per grant, ratio to Go": 30},
    ),
    "latency": Measure(
        lambda programs: measures.latency(programs, 10_000),
        lambda programs: measures.latency(programs, 2_000),
        {"wall, ratio to the floor": 1.4},
    ),
    "tls": Measure(lambda programs: measures.tls(programs, 5_000), None, {}),
    "steady": Measure(
        lambda programs: measures.steady(programs, 60),
        None,
        {"lateness p99, ms": 100, "grants, ratio to the least": 1.2},
    ),
    "one": Measure(
        measures.one,
        measures.one,
        {"to the first file beyond python, ms": 250, "RSS, MB": 32, "anonymous, MB": 20},
        {"RSS, MB": 48, "anonymous, MB": 30},
    ),
    "start of 100 clients": Measure(
        lambda programs: measures.start(programs, 100, 100), None, {"until the first request, s": 1.0}
    ),
    "start of 10,000 clients": Measure(
        lambda programs: measures.start(programs, 10_000, 1), None, {"until the first request, s": 2.5}
    ),
    "reload": Measure(
        lambda programs: measures.reload(programs, 10_000),
        lambda programs: measures.reload(programs, 2_000),
        {"until the new file, s": 1.5, "requests": 1, "more RSS, MB": 2},
        {"requests": 1},
    ),
    "idle": Measure(
        lambda programs: measures.idle(programs, 10_000, 60),
        None,
        {"context switches a second": 1, "CPU, %": 0.3},
    ),
    "health": Measure(
        lambda programs: measures.health(programs, 40),
        lambda programs: measures.health(programs, 20),
        {"ratio to python": 2.5},
        {"ratio to python": 3.75},
    ),
    "growth": Measure(lambda programs: measures.growth(programs, (1_000, 10_000, 50_000)), None, {}),
}


def main() -> int:
    """Print the table, or write it as JSON besides."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(MEASURES))
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    if why := why_not():
        print(f"SKIPPED: {why}")
        return 0
    failed = False
    results: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory(prefix="bearerd-bench-") as name:
        programs = Programs(Path(name))
        for what, measure in MEASURES.items():
            run = measure.short if given.short else measure.full
            if run is None or (given.names and what not in given.names):
                continue
            rounds = [run(programs) for _ in range(1 if given.short else given.rounds)]
            results[what] = {figure: [one[figure] for one in rounds] for figure in rounds[0]}
            for figure, values in results[what].items():
                goal = measure.goals.get(figure)
                _print_row(what, figure, values, goal)
                bound = measure.bounds.get(figure)
                if given.short and bound is not None and median(values) > bound:
                    print(f"FAILED: {what}: {figure} is above {bound:g}")
                    failed = True
    if given.json:
        given.json.write_text(json.dumps(results, indent=1))
    return int(failed)


def _print_row(what: str, figure: str, values: Sequence[float], goal: float | None) -> None:
    span = f"{min(values):.2f} to {max(values):.2f}" if len(values) > 1 else ""
    wanted = "" if goal is None else f"goal {goal:g}"
    print(f"{what:24} {figure:40} {median(values):9.2f}  {span:20} {wanted}", flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
