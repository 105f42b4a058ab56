"""Runs tests against mutants. The tests of a room are imported once; each mutant is a fork of that process.

A mutant of code that runs when its module is imported (constants, defaults, fields) is a fork of a process that has not
imported bearerd yet.
"""

from __future__ import annotations

import _thread
import gc
import json
import os
import signal
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, SimpleNamespace

import pytest
from coverage import Coverage
from hypothesis import Phase, settings

from mutation.code import Finder, Functions
from mutation.mutants import Mutant
from mutation.pool import Pool, Verdict, quiet
from mutation.rooms import TESTS, Room
from support import canary

_ENOUGH = 30.0
"""Seconds of tests for one mutant, besides those of its module. One that only longer tests notice is a survivor."""
_FEW = 60
"""At least so many tests for one mutant, even if they took long because the machine is busy."""
_CPU = 3.0
"""Seconds of CPU time that a test may use, besides ten times what it takes without a mutant. Load does not count."""
_OPTIONS = (
    *("-c", str(TESTS.parent / "pyproject.toml"), "--rootdir", str(TESTS.parent)),  # whatever the working directory
    *("-p", "no:cacheprovider", "-p", "no:terminal", "-p", "no:xdist", "--capture=no"),
    *("-o", "addopts=--import-mode=importlib --strict-markers --strict-config"),
    *("-W", "ignore::pytest.PytestAssertRewriteWarning"),  # hypothesis is imported early, to set its profile
)


@dataclass
class Known:
    """What a run without mutants has shown."""

    seconds: dict[str, float] = field(default_factory=dict)
    """The duration of each test."""
    wall: float = 20.0
    """Seconds that a test may wait, besides ten times its duration."""
    by_line: dict[str, dict[int, list[str]]] = field(default_factory=dict)
    """For each module and line, the tests that run it; "" is the import."""

    def runs_at_import(self, mutant: Mutant) -> bool:
        """Whether the changed statement runs when its module is imported."""
        lines = self.by_line.get(mutant.module, {})
        return not mutant.function or any("" in lines.get(line, []) for line in mutant.lines)

    def tests_of(self, mutant: Mutant) -> list[str]:
        """The tests that run the changed statement: those of its module first, then the quickest, up to `_ENOUGH`."""
        lines = self.by_line.get(mutant.module, {})
        return self.in_order(mutant, {test for line in mutant.lines for test in lines.get(line, []) if test})

    def in_order(self, mutant: Mutant, tests: Iterable[str]) -> list[str]:
        """The order in which tests try to kill a mutant."""
        near = f"/test_{mutant.module.rpartition('/')[2]}"
        chosen = sorted((test for test in tests if near in test), key=lambda test: (self.seconds[test], test))
        seconds = 0.0
        others = sorted((test for test in tests if near not in test), key=lambda test: (self.seconds[test], test))
        for number, test in enumerate(others):
            seconds += self.seconds[test]
            if seconds > _ENOUGH and number >= _FEW:
                break
            chosen.append(test)
        return chosen

    def limit(self, tests: Iterable[str]) -> float:
        """Seconds after which something hangs that no test notices."""
        return self.wall + 20 * sum(self.seconds.get(test, 1.0) for test in tests)


class _Limits:
    """Ends a test that takes too long, and notes the test that fails."""

    def __init__(self, known: Known, note: Path | None = None, tests: Sequence[str] = ()) -> None:
        self.known, self.note, self._tests = known, note, tests

    def pytest_configure(self, config: pytest.Config) -> None:
        """Show plain tracebacks: pytest's own take ten times as long as most tests."""
        config.option.tbstyle = "native"

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Run only the chosen tests, in their order."""
        if self._tests:
            by_name = {item.nodeid: item for item in items}
            items[:] = [by_name[test] for test in self._tests if test in by_name]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note the test that kills the mutant."""
        if report.failed and self.note is not None and not self.note.exists():
            self.note.write_text(json.dumps([report.nodeid, "Failed: Timeout" in str(report.longrepr)]))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """Limit its time."""

        def ended(_number: int, _frame: FrameType | None) -> None:
            pytest.fail("Timeout: CPU time")

        usual = self.known.seconds.get(item.nodeid, self.known.wall)
        item.add_marker(pytest.mark.timeout(self.known.wall + 10 * usual))
        signal.signal(signal.SIGPROF, ended)
        signal.setitimer(signal.ITIMER_PROF, _CPU + 10 * usual)
        try:
            return (yield)
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)


class _Survey(_Limits):
    """The run without mutants: which test runs which line, and how long it takes."""

    def __init__(self, coverage: Coverage) -> None:
        super().__init__(Known())
        self._coverage = coverage
        self.failed: list[str] = []

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Lines count for this test from here."""
        self._coverage.switch_context(nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Sum up setup, call and teardown."""
        self.known.seconds[report.nodeid] = self.known.seconds.get(report.nodeid, 0.0) + report.duration
        if report.failed:
            self.failed.append(f"{report.nodeid}\n{report.longrepr}")


class _Forks(_Limits):
    """Forks for each mutant once all tests are collected."""

    def __init__(self, known: Known, pool: Pool, mutants: Sequence[Mutant], room: Room) -> None:
        super().__init__(known)
        self.pool, self._mutants, self._room = pool, mutants, room
        self._killers: dict[str, list[str]] = defaultdict(list)
        self.child = False
        self.left: list[Mutant] = []
        """The mutants that only a new import can show."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool | None:
        """In each child, hand pytest's own loop the tests that may kill its mutant; in the parent, run none."""
        items = {item.nodeid: item for item in session.items}
        functions = Functions(self._room.files())
        gc.collect()
        gc.freeze()
        for mutant in self._mutants:
            tests = self._ordered(mutant)
            replaced = functions.replaced_by(mutant)
            if not tests:
                self.pool.verdicts.append(Verdict(mutant, "survived", "no test runs it"))
            elif replaced is None:
                self.left.append(mutant)
            else:
                place = self.pool.fork(mutant, self.known.limit(tests))
                if place is not None:
                    self.child, self.note = True, place / "note"
                    canary.new_tap()
                    functions.become(replaced)
                    session.items[:] = [items[test] for test in tests]
                    return None
        self.pool.finish()
        session.items.clear()
        return True

    def _ordered(self, mutant: Mutant) -> list[str]:
        """The tests for a mutant. Those that killed another mutant of its function come first."""
        tests = self.known.tests_of(mutant)
        for verdict in self.pool.verdicts[-4:]:
            killers = self._killers[verdict.mutant.function]
            if verdict.test and verdict.test not in killers:
                killers.append(verdict.test)
        first = [test for test in self._killers[mutant.function] if test in tests]
        return [*first, *(test for test in tests if test not in first)]


def prepare() -> None:
    """Make a run repeatable: hypothesis draws the same examples each time, stores none, and does not shrink."""
    settings.register_profile(
        "mutation", derandomize=True, database=None, phases=(Phase.explicit, Phase.generate), deadline=None
    )
    settings.load_profile("mutation")  # tests/conftest.py derives its profile from this one
    os.chdir(TESTS.parent)
    if os.access("/dev/shm", os.W_OK):  # an fsync on a busy disk takes longer than most tests
        os.environ.setdefault("TMPDIR", "/dev/shm")


def _pytest(room: Room, plugin: object, *options: str) -> int:
    paths = [str(TESTS / test) for test in room.tests]
    return int(pytest.main([*_OPTIONS, *options, *paths], plugins=[plugin]))


def _trace_threads() -> None:
    """Let lines count that run in threads of bearerd, which starts them without the module that coverage hooks into."""
    from bearerd import threads  # noqa: PLC0415 - only in a fork that does not have to import bearerd later

    start = _thread.start_new_thread

    def traced(function: Callable[..., object], arguments: tuple[object, ...]) -> int:
        def run(*given: object) -> None:
            sys.settrace(threading.gettrace())
            function(*given)

        return start(run, arguments)

    vars(threads)["_thread"] = SimpleNamespace(start_new_thread=traced)


def survey(room: Room) -> Known:
    """Run the tests of a room without a mutant; an error names each that fails."""
    read, write = os.pipe()
    if not os.fork():
        try:
            os.close(read)
            quiet(0, 1)
            files = room.files()
            coverage = Coverage(data_file=None, config_file=False, include=[str(path) for path in files.values()])
            coverage.start()
            _trace_threads()
            plugin = _Survey(coverage)
            status = _pytest(room, plugin)
            coverage.stop()
            data = coverage.get_data()
            found = {module: data.contexts_by_lineno(str(path)) for module, path in files.items()}
            with os.fdopen(write, "w") as stream:
                json.dump([status, plugin.failed, plugin.known.seconds, found], stream)
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as stream:
        text = stream.read() or '["no result", [], {}, {}]'
    os.wait()
    status, failed, seconds, lines = json.loads(text)
    if status:
        raise RuntimeError(f"the tests fail without a mutant (pytest: {status}): {' '.join(failed)}")
    by_line = {module: {int(line): tests for line, tests in by.items()} for module, by in lines.items()}
    return Known(seconds, room.wall, by_line)


def in_functions(
    mutants: Sequence[Mutant], room: Room, known: Known, jobs: int, work: Path
) -> tuple[list[Verdict], list[Mutant]]:
    """The verdicts on mutants within functions, and the mutants that only a new import can show."""
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        status = 1
        try:
            os.close(read)
            quiet(0, 1)
            forks = _Forks(known, Pool(jobs, work), mutants, room)
            status = _pytest(room, forks, "--maxfail=1")
            if not forks.child:
                found = [(each.mutant.name, each.outcome, each.test) for each in forks.pool.verdicts]
                with os.fdopen(write, "w") as stream:
                    json.dump([found, [mutant.name for mutant in forks.left]], stream)
        finally:
            os._exit(status)
    os.close(write)
    with os.fdopen(read) as stream:
        found, left = json.loads(stream.read())
    os.waitpid(pid, 0)
    by_name = {mutant.name: mutant for mutant in mutants}
    return [Verdict(by_name[name], outcome, test) for name, outcome, test in found], [by_name[name] for name in left]


def at_import(mutants: Sequence[Mutant], room: Room, known: Known, jobs: int, work: Path) -> list[Verdict]:
    """The verdicts on mutants of code that runs when the module is imported."""
    files = room.files()
    pool = Pool(jobs, work)
    for mutant in mutants:
        tests = known.in_order(mutant, known.seconds)
        place = pool.fork(mutant, known.limit(tests))
        if place is not None:
            status = int(pytest.ExitCode.NO_TESTS_COLLECTED)  # if the runner itself fails, no test has killed it
            try:
                sys.meta_path.insert(0, Finder(files[mutant.module], mutant))
                status = _pytest(room, _Limits(known, place / "note", tests), "--maxfail=1")
            finally:
                os._exit(status)
    return pool.finish()
