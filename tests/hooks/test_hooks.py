"""Which hooks run when: real programs that the test lets end, real notes, and a clock that the test moves."""

from __future__ import annotations

import logging
import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from subprocess import Popen
from typing import Any

import pytest

from bearerd import child
from bearerd.handoff import RunQueue, waiting
from bearerd.hooks import owed
from bearerd.hooks.hooks import BACKOFF, Hooks
from bearerd.hooks.run import run
from bearerd.model import Config, Target
from bearerd.publish.publisher import Publisher
from bearerd.terms import Hook
from support.clock import FakeClock
from support.no_threads import no_threads
from support.process import WITHIN, eventually
from support.targets import target

AT_ONCE = (0.0, 0.0, 0.0)
MINUTES = (60.0, 120.0, 240.0)
DROPPED = "; its output is not kept: run it by hand as the daemon's user to see why"


class Program:
    """A program that logs for which tokens it runs, and ends with the code that the test writes."""

    def __init__(self, directory: Path, name: str) -> None:
        self.path, self._log, self._fifo = directory / name, directory / f"{name}.log", directory / f"{name}.fifo"
        self._lock = directory / f"{name}.lock"
        self._ended = 0
        self._log.touch()
        os.mkfifo(self._fifo)
        self.path.write_text(
            f"#!/bin/sh\nmkdir {self._lock} || echo overlap >> {self._log}\n"
            f'echo "$BEARERD_TOKEN_NAMES" | sed s:dnb/:: | paste -sd + >> {self._log}\n'
            # Opened for reading and writing, so that the end of an earlier writer is no end of file.
            f"read code <> {self._fifo}\nrmdir {self._lock}\nexit $code\n"
        )
        self.path.chmod(0o755)

    def hook(self, **more: Any) -> Hook:
        return Hook(argv=(str(self.path),), **more)

    @property
    def runs(self) -> list[str]:
        """The tokens of each run, with + between them."""
        return self._log.read_text().split()

    def begun(self, *names: str) -> None:
        """Wait until it has run for these, in this order."""
        eventually(lambda: len(self.runs) >= len(names))
        assert self.runs == list(names)

    def end(self, code: int = 0) -> None:
        """Let the present run, or the next one, end."""
        self._ended += 1
        eventually(lambda: len(self.runs) >= self._ended)
        with self._fifo.open("w") as fifo:
            fifo.write(f"{code}\n")

    def killed(self) -> None:
        """Clean up after a run that was killed."""
        shutil.rmtree(self._lock)
        self._ended += 1


class Rig:
    """Hooks over a real directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.clock = FakeClock()
        self.counted: list[str] = []
        self.config = Config(str(directory / "tokens"), str(directory / "state"))
        self._all: list[Hooks] = []
        self._programs = 0
        self.hooks = self.process()

    def process(self, *backoff: float) -> Hooks:
        """The hooks of a new process over the same directory."""
        notes = Publisher(self.config).notes
        self.hooks = Hooks({"PATH": "/usr/bin:/bin"}, notes, self.clock, self.counted.append, backoff or AT_ONCE)
        self._all.append(self.hooks)
        return self.hooks

    def program(self) -> Program:
        self._programs += 1
        return Program(self.directory, f"program-{self._programs}")

    def does(self, script: str) -> Hook:
        """A hook that runs a shell script."""
        return Hook(argv=("/bin/sh", "-c", script))

    def change(self, one: Target, *, first: bool = False) -> None:
        """Change the files of a token."""
        self.hooks.announce(one)
        self.hooks.changed(one, first=first)

    def noted(self, name: str = "bci") -> bool:
        """Whether there is a note on disk."""
        return self.note(name).exists()

    def note(self, name: str = "bci") -> Path:
        return self.directory / "tokens/.bearerd/owed/dnb" / name

    def close(self) -> None:
        for hooks in self._all:
            hooks.stop(0)
        self.idle()

    def idle(self) -> None:
        """Wait until no worker has anything to do."""
        eventually(lambda: not any(hooks._workers for hooks in self._all))


def alive(pid: int) -> bool:
    """Whether a process has not ended."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in {"Z", "X"}
    return False


@pytest.fixture
def rig(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Iterator[Rig]:
    caplog.set_level(logging.DEBUG, "bearerd")
    rig = Rig(tmp_path)
    yield rig
    rig.close()


def said(log: pytest.LogCaptureFixture, level: int) -> list[str]:
    """The log lines of a level."""
    return [record.getMessage() for record in log.records if record.levelno == level]


# -- when hooks run ------------------------------------------------------------------------------------


def test_a_hook_runs_once_at_a_time_and_changes_meanwhile_cause_one_more_run_for_all(rig: Rig) -> None:
    program = rig.program()
    one, other = (target(name, on_change=(program.hook(),)) for name in ("bci", "risk"))
    rig.change(one)
    program.begun("bci")
    for again in (one, other, one, other, one):
        rig.change(again)
    assert rig.hooks._workers == 1
    assert [rig.hooks.pending(name) for name in ("dnb/bci", "dnb/risk", "dnb/none")] == [2, 1, 0]
    program.end()
    program.begun("bci", "bci+risk")
    program.end()
    assert rig.hooks.wait(WITHIN)
    rig.idle()
    assert program.runs == ["bci", "bci+risk"]
    assert rig.counted == ["success"] * 2
    assert not any(map(rig.noted, ("bci", "risk")))


def test_up_to_eight_different_hooks_run_at_once(rig: Rig) -> None:
    programs = [rig.program() for _ in range(10)]
    one = target(on_change=tuple(program.hook() for program in programs))
    rig.change(one)

    def begun() -> list[Program]:
        return [program for program in programs if program.runs]

    eventually(lambda: len(begun()) == 8)
    assert rig.hooks.pending("dnb/bci") == 10
    assert rig.hooks._workers == 8
    first = begun()[0]
    first.end()
    eventually(lambda: len(begun()) == 9)
    for program in programs:
        if program is not first:
            program.end()
    assert rig.hooks.wait(WITHIN)
    assert [program.runs for program in programs] == [["bci"]] * 10


def test_a_signal_is_sent_once_for_all_tokens_that_owe_it(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.process(*MINUTES)
    pid_file = rig.directory / "pid"
    hook = Hook(signal="WINCH", pid_file=str(pid_file))
    a, b, c = (target(name, on_change=(hook,)) for name in "abc")
    for count, one in enumerate((a, b), start=1):
        rig.change(one)
        eventually(lambda count=count: rig.counted == ["failure"] * count)
    with Popen(["/bin/sleep", "60"]) as process:
        try:
            pid_file.write_text(str(process.pid))
            rig.change(replace(c, on_failure=(hook,)))
            assert rig.hooks.wait(WITHIN)
        finally:
            process.kill()
    assert rig.counted == ["failure", "failure", "success"]
    # A later token has the full number of attempts.
    assert [line.rpartition("; ")[2] for line in said(caplog, logging.WARNING)] == [
        "trying again in 60 s",
        "trying again in 60 s for 2 tokens",
    ]
    named = [vars(record)["target"] for record in caplog.records if record.levelno == logging.WARNING]
    assert named == ["dnb/a", None]
    assert [rig.hooks.last(one) for one in (a, b, c)] == [(rig.clock.boot, None)] * 3
    eventually(lambda: not any(map(rig.noted, "abc")))


def test_a_run_that_fails_for_several_tokens_is_tried_again_and_given_up_for_all(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    program = rig.program()
    names = ("bci", "risk", "more")
    other = target("other", on_change=(program.hook(),))
    several = [target(name, on_change=(program.hook(skip_first=True),)) for name in names]
    rig.change(other)
    program.begun("other")
    for one in several:
        rig.change(one)
    program.end()
    for _ in range(4):
        program.end(1)
    assert rig.hooks.wait(WITHIN)
    rig.idle()
    assert program.runs == ["other", *["bci+risk+more"] * 4]
    fault = f"hook run {program.path}: exit 1" + DROPPED
    assert said(caplog, logging.ERROR) == [
        f"{fault}; given up after 4 attempts for 3 tokens; the programs that it notifies may still use the old token"
    ]
    assert [rig.hooks.last(one)[1] for one in (other, *several)] == [None, *[fault] * 3]
    assert rig.hooks.given_up == 3
    assert not any(map(rig.noted, names))


def test_skip_first_skips_the_hook_for_the_first_token(rig: Rig) -> None:
    always, later = rig.program(), rig.program()
    one = target(on_change=(always.hook(), later.hook(skip_first=True)))
    rig.change(one, first=True)
    always.begun("bci")
    assert rig.hooks.pending("dnb/bci") == 1
    always.end()
    rig.change(one)
    later.begun("bci")
    later.end()
    always.end()
    assert rig.hooks.wait(WITHIN)
    assert later.runs == ["bci"]


def test_workers_end_when_nothing_is_owed(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.change(target(on_change=tuple(rig.does(f"true {number}") for number in range(5))))
    assert rig.hooks.wait(WITHIN)
    rig.idle()
    rig.change(target(on_change=(rig.does("true"),)))
    assert rig.hooks.wait(WITHIN)
    assert rig.counted == ["success"] * 6
    rig.idle()
    assert rig.hooks._owed._owed == {}
    assert said(caplog, logging.INFO) == []


# -- failures ------------------------------------------------------------------------------------------


def test_a_run_that_fails_is_tried_three_more_times_and_then_given_up(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    hook = rig.does(f"echo >> {rig.directory}/runs; exit 3")
    one = target(on_change=(hook,))
    rig.change(one)
    assert rig.hooks.wait(WITHIN)
    assert (rig.directory / "runs").read_text() == "\n" * 4
    assert rig.counted == ["failure"] * 4
    assert rig.hooks.given_up == 1
    fault = "hook run /bin/sh: exit 3" + DROPPED
    assert rig.hooks.last(one) == (rig.clock.boot, fault)
    eventually(lambda: not rig.noted())
    rig.idle()
    assert said(caplog, logging.WARNING) == [f"{fault}; trying again now"] * 3
    assert said(caplog, logging.ERROR) == [
        f"{fault}; given up after 4 attempts; the programs that it notifies may still use the old token"
    ]
    assert {record.target for record in caplog.records} == {"dnb/bci"}  # type: ignore[attr-defined]  # by `extra`


def test_the_waits_between_attempts() -> None:
    assert BACKOFF == (1.0, 4.0, 16.0)


def test_a_run_that_succeeds_in_the_end_has_not_failed(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    runs = rig.directory / "runs"
    one = target(on_change=(rig.does(f"echo >> {runs}; test $(wc -l < {runs}) = 3"),))
    rig.change(one)
    assert rig.hooks.wait(WITHIN)
    rig.idle()
    assert rig.counted == ["failure", "failure", "success"]
    assert rig.hooks.given_up == 0
    assert rig.hooks.last(one) == (rig.clock.boot, None)
    assert said(caplog, logging.INFO) == ["hook run /bin/sh: done at attempt 3"]
    assert said(caplog, logging.ERROR) == []
    assert not rig.noted()


def test_the_next_attempt_is_made_when_it_is_due_and_not_before(rig: Rig) -> None:
    rig.process(*MINUTES)
    failing, other = rig.program(), rig.program()
    rig.change(target("bci", on_change=(failing.hook(),)))

    def passed(seconds: float) -> None:
        """Advance the clock, and wait until another hook has run."""
        rig.clock.advance(seconds)
        rig.change(target("risk", on_change=(other.hook(),)))
        other.end()
        eventually(lambda: not rig.hooks.pending("dnb/risk"))

    for count, wait in enumerate(MINUTES, start=1):
        failing.begun(*["bci"] * count)
        failing.end(1)
        eventually(lambda count=count: rig.counted.count("failure") == count)
        passed(wait - 0.5)
        assert len(failing.runs) == count
        rig.clock.advance(0.5)
        rig.change(target("risk", on_change=(other.hook(),)))  # wakes the worker, which sleeps by the real clock
        other.end()
    failing.begun(*["bci"] * 4)
    failing.end(1)
    assert rig.hooks.wait(WITHIN)
    assert rig.hooks.given_up == 1


def test_a_change_during_a_backoff_runs_at_once_and_restarts_the_attempts(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    rig.process(*MINUTES)
    program = rig.program()
    one = target(on_change=(program.hook(),))
    for number in (1, 2):
        rig.change(one)
        program.begun(*["bci"] * number)
        program.end(1)
        eventually(lambda number=number: rig.counted == ["failure"] * number)
        assert rig.hooks.pending("dnb/bci") == 1
    rig.change(one)
    program.end()
    assert rig.hooks.wait(WITHIN)
    rig.idle()
    assert program.runs == ["bci"] * 3
    assert [line.rpartition("; ")[2] for line in said(caplog, logging.WARNING)] == ["trying again in 60 s"] * 2


def test_a_token_that_joined_a_failing_run_is_tried_again_at_its_own_time(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    rig.process(*MINUTES)
    program = rig.program()
    one, other = (target(name, on_change=(program.hook(),)) for name in ("bci", "risk"))
    rig.change(one)
    program.end(1)
    eventually(lambda: rig.counted == ["failure"])
    rig.change(other)
    program.begun("bci", "risk+bci")
    rig.clock.advance(90.0)  # the run takes longer than the wait of the first token
    program.end(1)
    program.begun("bci", "risk+bci", "bci+risk")
    program.end()
    assert rig.hooks.wait(WITHIN)
    assert [line.rpartition("; ")[2] for line in said(caplog, logging.WARNING)] == [
        "trying again in 60 s",
        "trying again now for 2 tokens",
    ]


def test_a_failed_run_is_not_owed_twice_after_a_change(rig: Rig) -> None:
    rig.process(*MINUTES)
    program = rig.program()
    one = target(on_change=(program.hook(),))
    rig.change(one)
    program.begun("bci")
    rig.change(one)
    program.end(1)
    program.begun("bci", "bci")
    assert rig.hooks.pending("dnb/bci") == 1
    program.end()
    assert rig.hooks.wait(WITHIN)
    rig.idle()
    assert rig.counted == ["failure", "success"]


def test_each_hook_of_a_token_is_tried_independently(rig: Rig) -> None:
    rig.process(*MINUTES)
    bad, good = rig.program(), rig.program()
    one = target(on_change=(bad.hook(), good.hook()))
    rig.change(one)
    bad.end(1)
    good.end()
    eventually(lambda: sorted(rig.counted) == ["failure", "success"])
    assert rig.hooks.pending("dnb/bci") == 1
    assert rig.hooks.undone("dnb/bci")
    assert rig.noted()
    assert rig.hooks.last(one) == (rig.clock.boot, None)  # it may still succeed


def test_a_hook_that_was_removed_from_the_config_no_longer_counts_as_failing(rig: Rig) -> None:
    bad, other = rig.does("exit 1"), rig.does("exit 2")
    one = target(on_change=(bad, other))
    rig.change(one)
    assert rig.hooks.wait(WITHIN)
    error = rig.hooks.last(one)[1] or ""
    assert sorted(error.replace(DROPPED, "").split("; ")) == ["hook run /bin/sh: exit 1", "hook run /bin/sh: exit 2"]
    one = target(on_change=(rig.does("true"),), on_failure=(other,))
    rig.change(one)
    assert rig.hooks.wait(WITHIN)
    assert rig.hooks.last(one)[1] is None


def test_a_hook_that_succeeds_again_no_longer_counts_as_failing(rig: Rig) -> None:
    one = target(on_change=(rig.does(f"test -e {rig.directory}/mended"),))
    rig.change(one)
    assert rig.hooks.wait(WITHIN)
    assert rig.hooks.last(one)[1] == "hook run /bin/sh: exit 1" + DROPPED
    assert rig.hooks.undone("dnb/bci")
    assert not rig.hooks.undone("dnb/risk")
    (rig.directory / "mended").touch()
    rig.change(one)
    assert rig.hooks.wait(WITHIN)
    assert rig.hooks.last(one)[1] is None
    assert not rig.hooks.undone("dnb/bci")


def test_eight_hooks_in_backoff_do_not_delay_a_ninth(rig: Rig) -> None:
    rig.process(*MINUTES)
    programs = [rig.program() for _ in range(8)]
    rig.change(target("bad", on_change=tuple(program.hook() for program in programs)))
    for program in programs:
        program.begun("bad")
    for program in programs:
        program.end(1)
    eventually(lambda: rig.counted == ["failure"] * 8)
    assert rig.hooks._workers == 8
    rig.change(target("good", on_change=(rig.does("true"),)))
    eventually(lambda: rig.counted[8:] == ["success"])


def test_an_unexpected_exception_costs_an_attempt_and_no_worker(
    rig: Rig, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults = [MemoryError("s3cr3t"), RuntimeError("s3cr3t")]

    def breaks(*arguments: Any) -> None:
        if faults:
            raise faults.pop(0)
        run(*arguments)

    monkeypatch.setattr("bearerd.hooks.hooks.run", breaks)
    rig.change(target(on_change=(rig.does("true"),)))
    assert rig.hooks.wait(WITHIN)
    assert rig.counted == ["failure", "failure", "success"]
    first, second = said(caplog, logging.WARNING)
    assert first.startswith("hook run /bin/sh: out of memory; ")
    assert second.startswith("hook run /bin/sh: RuntimeError at ")
    assert "s3cr3t" not in caplog.text


def test_an_exception_in_the_counter_costs_no_worker(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    def breaks(_: str) -> None:
        raise ValueError("s3cr3t")

    hooks = rig.hooks = Hooks({}, Publisher(rig.config).notes, rig.clock, breaks)
    rig._all.append(hooks)
    rig.change(target(on_change=(rig.does("true"),)))
    rig.idle()
    hooks.stop(WITHIN)
    assert not rig.noted()  # it succeeded
    [line] = said(caplog, logging.ERROR)
    assert line.startswith("hook run /bin/sh: its end was not recorded: ValueError at ")
    assert "s3cr3t" not in caplog.text


def test_a_run_whose_end_could_not_be_recorded_is_made_again(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    works = owed.Ended

    def breaks(*_: object) -> None:
        monkeypatch.setattr(owed, "Ended", works)
        raise MemoryError

    monkeypatch.setattr(owed, "Ended", breaks)
    rig.change(target(on_change=(rig.does("true"),)))
    assert rig.hooks.wait(WITHIN)
    rig.hooks.stop(WITHIN)
    assert rig.counted == ["success"]
    assert not rig.noted()


def test_other_turns_go_on_while_one_waits_to_write_a_note(rig: Rig) -> None:
    writing, written, computing = threading.Event(), threading.Event(), threading.Event()

    class SlowDisk:
        def note(self, _: Target) -> None:
            with waiting():
                writing.set()
                assert written.wait(WITHIN)

        def noted(self, _: Target) -> bool:
            return False

        def unnote(self, _: Target) -> None:
            pass

    hooks = Hooks({}, SlowDisk(), rig.clock)
    queue = RunQueue(lambda _: True, lambda _: None)

    def turn(name: str) -> None:
        assert queue.enter(name)
        if name == "risk":
            computing.set()
        hooks.announce(target(name, on_change=(rig.does("true"),)))

    turns = [threading.Thread(target=turn, args=(name,), daemon=True) for name in ("bci", "risk")]
    turns[0].start()
    assert writing.wait(WITHIN)
    turns[1].start()
    assert computing.wait(WITHIN)
    eventually(lambda: not queue.offer("a third one"))  # the second waits for the first, and computes no more
    written.set()
    for thread in turns:
        thread.join(WITHIN)
        assert not thread.is_alive()


def test_if_no_thread_can_be_started_the_next_change_runs_both(
    rig: Rig, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        no_threads(patch)
        for _ in range(3):
            rig.change(target("bci", on_change=(rig.does("true"),)))
        rig.hooks.tick()
    assert said(caplog, logging.ERROR) == ["no thread can be started for a hook; raise TasksMax"]
    assert rig.hooks.pending("dnb/bci") == 1
    rig.change(target("risk", on_change=(rig.does("true more"),)))
    assert rig.hooks.wait(WITHIN)
    assert rig.counted == ["success"] * 2


def test_if_no_thread_could_be_started_a_tick_runs_the_hook(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        no_threads(patch)
        rig.change(target(on_change=(rig.does("true"),)))
        rig.hooks.tick()
    assert rig.hooks.pending("dnb/bci") == 1
    rig.hooks.tick()
    assert rig.hooks.wait(WITHIN)
    rig.idle()
    rig.hooks.tick()
    assert not rig.hooks._workers


# -- on_failure ----------------------------------------------------------------------------------------


def test_on_failure_runs_its_own_hooks_and_writes_no_note(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    alarm, reload = rig.program(), rig.program()
    one = target(on_change=(reload.hook(),), on_failure=(alarm.hook(),))
    rig.hooks.failed(one)
    alarm.begun("bci")
    assert rig.hooks.pending("dnb/bci") == 1
    assert not rig.noted()  # the next process decides by itself
    for _ in range(4):
        alarm.end(1)
    assert rig.hooks.wait(WITHIN)
    fault = f"hook run {alarm.path}: exit 1" + DROPPED
    assert said(caplog, logging.ERROR) == [f"{fault}; given up after 4 attempts"]
    assert rig.hooks.last(one)[1] == fault
    assert reload.runs == []


def test_the_same_hook_can_be_used_for_change_and_failure(rig: Rig) -> None:
    program = rig.program()
    one = target(on_change=(program.hook(),), on_failure=(program.hook(),))
    rig.change(one)
    program.begun("bci")
    rig.hooks.failed(one)
    assert rig.hooks.pending("dnb/bci") == 2
    program.end()
    program.begun("bci", "bci")
    program.end()
    assert rig.hooks.wait(WITHIN)


# -- notes ---------------------------------------------------------------------------------------------


def test_the_note_stays_from_before_the_files_change_until_the_last_hook_has_ended(rig: Rig) -> None:
    program, other = rig.program(), rig.program()
    one = target(on_change=(program.hook(), other.hook()))
    rig.hooks.announce(one)
    assert rig.noted()
    written = rig.note().stat().st_ino
    rig.hooks.announce(one)
    assert rig.note().stat().st_ino == written  # written once: it costs two fsyncs
    rig.hooks.changed(one, first=False)
    program.end()
    eventually(lambda: rig.hooks.pending("dnb/bci") == 1)
    eventually(lambda: rig.hooks._workers == 1)
    assert rig.noted()
    other.end()
    assert rig.hooks.wait(WITHIN)
    eventually(lambda: not rig.noted())
    rig.idle()
    rig.hooks.announce(one)
    assert rig.noted()


def test_if_all_hooks_skip_the_first_token_nothing_is_owed(rig: Rig) -> None:
    rig.change(target(on_change=(rig.program().hook(skip_first=True),)), first=True)
    assert not rig.noted()
    assert rig.hooks.wait(0)


def test_without_on_change_there_is_no_note(rig: Rig) -> None:
    one = target(on_failure=(rig.does("true"),))
    rig.hooks.announce(one)
    assert not rig.noted()
    rig.hooks.changed(one, first=False)
    rig.hooks.announce(target(on_change=(rig.does("true"),)))
    assert rig.noted()
    assert not rig.process().owed(one)  # the hook was removed from the config
    assert rig.noted()


def test_the_end_of_a_run_keeps_the_note_while_files_change_again(rig: Rig) -> None:
    program = rig.program()
    one = target(on_change=(program.hook(),))
    rig.change(one)
    program.begun("bci")
    rig.hooks.announce(one)
    program.end()
    assert rig.hooks.wait(WITHIN)
    rig.idle()
    assert rig.noted()
    rig.hooks.changed(one, first=False)
    program.end()
    assert rig.hooks.wait(WITHIN)
    eventually(lambda: not rig.noted())


@pytest.mark.parametrize("running", [False, True])
def test_the_next_process_finds_what_a_killed_one_owed(rig: Rig, *, running: bool) -> None:
    # It was killed between the note and the rename, or between the rename and the end of the hook.
    program = rig.program()
    one, other = (target(name, on_change=(program.hook(),)) for name in ("bci", "risk"))
    rig.hooks.announce(one)
    if running:
        rig.hooks.changed(one, first=False)
        program.begun("bci")
        rig.hooks.stop(0)
        rig.idle()
        program.killed()
    rig.process()
    assert rig.hooks.owed(one)
    assert not rig.hooks.owed(other)
    rig.hooks.changed(one, first=False)
    program.end()
    assert rig.hooks.wait(WITHIN)
    eventually(lambda: not rig.noted())
    assert not rig.process().owed(one)


def test_the_note_of_an_earlier_process_stays_until_its_hooks_are_done(rig: Rig) -> None:
    one = target(on_change=(rig.does("true"),), on_failure=(rig.does("true failed"),))
    rig.hooks.announce(one)
    rig.process()
    assert rig.hooks.owed(one)
    rig.hooks.failed(one)  # before the files are in place
    assert rig.hooks.wait(WITHIN)
    rig.idle()
    assert rig.noted()


def test_hooks_that_are_left_to_the_daemon_do_not_run_and_their_note_stays(rig: Rig) -> None:
    program, alarm = rig.program(), rig.program()
    one = target(on_change=(program.hook(skip_first=True),), on_failure=(alarm.hook(),))
    rig.hooks.leave_to_the_daemon()
    rig.hooks.failed(one)
    rig.change(one, first=True)
    assert not rig.noted()  # nothing is owed
    rig.change(one)
    assert rig.hooks.wait(0)
    rig.hooks.stop(0)
    assert rig.noted()
    assert rig.process().owed(one)
    rig.hooks.changed(one, first=False)
    program.end()
    assert rig.hooks.wait(WITHIN)
    assert (program.runs, alarm.runs) == (["bci"], [])
    eventually(lambda: not rig.noted())


def test_a_note_that_cannot_be_written_is_logged_once_and_the_hook_runs(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    in_the_way = rig.directory / "tokens/.bearerd/owed/dnb/bci"
    in_the_way.mkdir(parents=True)
    one = target(on_change=(rig.does("true"),))
    for _ in range(3):  # the files cannot be written either, and are tried again and again
        rig.hooks.announce(one)
    (line,) = said(caplog, logging.WARNING)
    assert line.startswith(f"hooks: {in_the_way}: a directory has this name")
    assert line.endswith("; if bearerd crashes now, the hooks of this token will not run")
    rig.hooks.forget("dnb/bci")  # removed and added again
    rig.hooks.announce(one)
    assert said(caplog, logging.WARNING) == [line] * 2
    in_the_way.rmdir()
    rig.hooks.announce(one)
    assert rig.noted()
    rig.hooks.changed(one, first=False)
    assert rig.hooks.wait(WITHIN)
    eventually(lambda: not rig.noted())
    assert len(said(caplog, logging.WARNING)) == 2


def test_a_removed_token_is_owed_nothing_and_gets_a_new_note_when_it_comes_back(rig: Rig) -> None:
    rig.process(*MINUTES)
    program = rig.program()
    one, other = (target(name, on_change=(program.hook(),)) for name in ("bci", "risk"))
    rig.change(one)
    program.end(1)
    eventually(lambda: rig.counted == ["failure"])
    rig.change(other)
    program.begun("bci", "risk+bci")
    Publisher(rig.config).forget(one)
    rig.hooks.forget("dnb/bci")
    assert rig.hooks.pending("dnb/bci") == 0
    assert rig.hooks.last(one) == (None, None)
    rig.hooks.announce(one)
    assert rig.noted()
    program.end()
    assert rig.hooks.wait(WITHIN)
    assert program.runs == ["bci", "risk+bci"]
    assert rig.noted("bci")
    eventually(lambda: not rig.noted("risk"))


def test_nothing_of_a_removed_token_is_remembered(rig: Rig) -> None:
    one = target(on_change=(rig.does("exit 1"),))
    rig.change(one)
    assert rig.hooks.wait(WITHIN)
    assert None not in rig.hooks.last(one)
    rig.hooks.forget("dnb/bci")
    assert rig.hooks.last(one) == (None, None)


def test_a_token_can_be_removed_while_its_hook_runs(rig: Rig) -> None:
    program = rig.program()
    one = target(on_change=(program.hook(),))
    rig.change(one)
    program.begun("bci")
    Publisher(rig.config).forget(one)
    rig.hooks.forget("dnb/bci")
    program.end()
    assert rig.hooks.wait(WITHIN)
    rig.change(one)
    assert rig.noted()
    program.end()
    assert rig.hooks.wait(WITHIN)
    eventually(lambda: not rig.noted())


# -- stop ----------------------------------------------------------------------------------------------


def test_stop_waits_for_a_run_that_ends_in_time_and_removes_its_note(rig: Rig) -> None:
    program = rig.program()
    rig.change(target(on_change=(program.hook(),)))
    program.begun("bci")
    stopping = threading.Thread(target=rig.hooks.stop, args=(WITHIN,))
    stopping.start()
    program.end()
    stopping.join()
    assert not rig.noted()
    assert rig.counted == ["success"]


def test_stop_kills_a_hook_that_hangs_with_its_children_and_keeps_the_note(rig: Rig) -> None:
    script = f"trap '' TERM; sleep 600 & echo $! > {rig.directory}/pid; wait; wait"
    rig.change(target(on_change=(rig.does(script),)))
    pid = rig.directory / "pid"
    eventually(lambda: pid.exists() and pid.read_text().endswith("\n"))
    began = time.monotonic()
    rig.hooks.stop(0.1)
    assert time.monotonic() - began < WITHIN
    eventually(lambda: not alive(int(pid.read_text())))
    rig.idle()
    assert rig.noted()
    assert rig.counted == []  # it was cut short, and has not failed
    assert rig.process().owed(target(on_change=(rig.does(script),)))


def test_stop_kills_nothing_that_a_successful_run_left_running(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    pid, recording = rig.directory / "pid", threading.Event()
    reached = threading.Event()
    finish = Hooks._finish

    def slowly(*arguments: Any) -> None:
        reached.set()
        recording.wait(WITHIN)
        finish(*arguments)

    monkeypatch.setattr(Hooks, "_finish", slowly)
    rig.change(target(on_change=(rig.does(f"sleep 60 & echo $! > {pid}"),)))
    assert reached.wait(WITHIN)
    rig.hooks.stop(0)
    recording.set()
    rig.idle()
    left = int(pid.read_text())
    assert alive(left)
    os.kill(left, 9)


def test_stop_does_not_wait_for_a_backoff(rig: Rig) -> None:
    rig.process(*MINUTES)
    rig.change(target(on_change=(rig.does("exit 1"),)))
    eventually(lambda: rig.counted == ["failure"])
    began = time.monotonic()
    rig.hooks.stop(WITHIN)
    assert time.monotonic() - began < WITHIN / 2
    assert not rig.hooks._workers
    assert rig.noted()


def test_after_stop_no_run_starts(rig: Rig) -> None:
    program, other = rig.program(), rig.program()
    rig.change(target("t0", on_change=(program.hook(),)))
    program.begun("t0")
    for number in (1, 2):
        rig.change(target(f"t{number}", on_change=(program.hook(),)))
    rig.hooks.stop(0)
    rig.change(target("later", on_change=(other.hook(),)))
    rig.idle()
    assert program.runs == ["t0"]
    assert other.runs == []
    assert all(map(rig.noted, ("t0", "t1", "t2", "later")))


def test_a_hook_that_starts_after_stop_returned_is_killed(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    starting, may = threading.Event(), threading.Event()
    real = child.start
    started: list[Popen[bytes]] = []

    def slowly(*arguments: Any, **more: Any) -> Popen[bytes]:
        starting.set()
        may.wait(WITHIN)
        started.append(real(*arguments, **more))
        return started[0]

    monkeypatch.setattr(child, "start", slowly)
    rig.change(target(on_change=(Hook(argv=("/bin/sleep", "60")),)))
    assert starting.wait(WITHIN)
    rig.hooks.stop(0)
    may.set()
    rig.idle()
    assert started[0].returncode == -9


def test_a_stop_waits_for_a_hook_that_is_being_started(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    starting, may = threading.Event(), threading.Event()
    real = child.start
    started: list[Popen[bytes]] = []
    at_the_end: list[int] = []

    def slowly(*arguments: Any, **more: Any) -> Popen[bytes]:
        starting.set()
        may.wait(WITHIN)
        started.append(real(*arguments, **more))
        return started[0]

    def stop() -> None:
        rig.hooks.stop(0)
        at_the_end.append(len(started))

    monkeypatch.setattr(child, "start", slowly)
    monkeypatch.setattr("bearerd.hooks.hooks.STARTS_WITHIN", WITHIN)
    rig.change(target(on_change=(Hook(argv=("/bin/sleep", "60")),)))
    assert starting.wait(WITHIN)
    stopping = threading.Thread(target=stop)
    stopping.start()
    eventually(lambda: rig.hooks._over)
    may.set()
    stopping.join(WITHIN)
    rig.idle()
    assert (at_the_end, started[0].returncode) == ([1], -9)
