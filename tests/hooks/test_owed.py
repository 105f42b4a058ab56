"""The pure decisions: which runs are owed, and when. test_hooks.py shows them with real programs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bearerd.hooks.owed import LARGEST, Batch, Ended, Event, Owed
from bearerd.model import Output
from bearerd.terms import Hook
from support.targets import target

COMMAND = Hook(argv=("/bin/true",))
LATER = replace(COMMAND, skip_first=True)
SIGNAL = Hook(signal="HUP", process="nginx")
BCI, RISK = (target(name, on_change=(COMMAND, SIGNAL)) for name in ("bci", "risk"))


def taken(owed: Owed, now: float) -> Batch:
    batch = owed.take(now)
    assert batch is not None
    return batch


def names(batch: Batch) -> list[str]:
    return [one.name for one in batch.targets]


def retries(ended: Ended) -> list[tuple[str, float, int]]:
    """For which tokens it is tried again, when, and which attempt that is."""
    assert not ended.given_up
    return [(run.target.name, run.due, run.attempt) for run in ended.again]


def test_one_run_is_for_all_tokens_that_owe_the_hook_in_the_order_of_their_changes() -> None:
    owed = Owed(())
    for one in (RISK, BCI, RISK):
        owed.add(one, "change", (COMMAND, SIGNAL), 0.0)
    first, second = taken(owed, 0.0), taken(owed, 0.0)
    assert (first.hook, names(first)) == (COMMAND, ["risk", "bci"])
    assert (second.hook, names(second)) == (SIGNAL, ["risk", "bci"])
    assert owed.take(0.0) is None
    for batch in (first, second):
        assert owed.finish(batch, None, 1.0) == Ended()
    assert owed.settled()
    assert owed.last(BCI) == owed.last(RISK) == (1.0, None)


@pytest.mark.parametrize("name", ["_first", "Batch"])
def test_a_run_that_could_not_be_taken_for_lack_of_memory_stays_owed(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    owed = Owed(())
    owed.add(BCI, "change", (COMMAND,), 0.0)
    with monkeypatch.context() as lack:
        lack.setattr(f"bearerd.hooks.owed.{name}", no_memory)
        with pytest.raises(MemoryError):
            owed.take(0.0)
    assert owed.next_due() == 0.0
    assert names(taken(owed, 0.0)) == ["bci"]


def no_memory(*_: object) -> None:
    raise MemoryError


@pytest.mark.parametrize("fault", [None, "exit 1"])
def test_a_run_whose_end_could_not_be_recorded_for_lack_of_memory_is_made_again(
    monkeypatch: pytest.MonkeyPatch, fault: str | None
) -> None:
    owed = Owed(())
    owed.add(BCI, "change", (COMMAND,), 0.0)
    batch = taken(owed, 0.0)
    with monkeypatch.context() as lack:
        lack.setattr("bearerd.hooks.owed.Ended", no_memory)
        with pytest.raises(MemoryError):
            owed.finish(batch, fault, 1.0)
    owed.run_again(batch)
    assert (owed.next_due(), owed.pending("dnb/bci")) == (0.0, 1)
    assert owed.finish(taken(owed, 1.0), None, 2.0) == Ended()
    assert owed.settled()


def test_tokens_that_change_during_a_run_share_the_next_one() -> None:
    owed = Owed(())
    owed.add(BCI, "change", (COMMAND,), 0.0)
    first = taken(owed, 0.0)
    for number in range(60):
        owed.add(target(f"t{number}"), "change", (COMMAND,), 0.1)
    owed.add(BCI, "change", (COMMAND,), 0.2)
    assert (owed.take(0.3), owed.next_due(), owed.pending("dnb/bci")) == (None, None, 2)
    owed.finish(first, None, 1.0)
    assert names(taken(owed, 1.0)) == [*(f"t{number}" for number in range(60)), "bci"]


def test_hooks_are_the_same_if_they_run_the_same_command_with_the_same_timeout() -> None:
    owed = Owed(())
    owed.add(BCI, "change", (COMMAND,), 0.0)
    owed.add(RISK, "change", (LATER,), 0.0)
    for other in (replace(COMMAND, timeout=60.0), Hook(argv=("/bin/true", "more"))):
        owed.add(target("other"), "change", (other,), 0.0)
    assert [names(taken(owed, 0.0)) for _ in range(3)] == [["bci", "risk"], ["other"], ["other"]]


def test_a_command_of_on_change_and_on_failure_runs_once_for_both() -> None:
    owed = Owed(())
    one = target("bci", on_change=(COMMAND,), on_failure=(COMMAND,))
    owed.add(one, "change", one.on_change, 0.0)
    owed.add(one, "failure", one.on_failure, 0.0)
    batch = taken(owed, 0.0)
    assert (batch.targets, owed.pending("dnb/bci"), owed.take(0.0)) == ((one,), 2, None)
    assert [run.event for run in owed.finish(batch, "exit 1", 1.0).given_up] == ["change", "failure"]
    assert owed.settled()


def test_the_hook_that_has_waited_longest_runs_first() -> None:
    # Otherwise eight that are always owed would keep all workers from a ninth.
    owed = Owed(())
    others = [Hook(argv=("/bin/true", str(number))) for number in range(2)]
    owed.add(BCI, "change", others, 0.0)
    first = taken(owed, 0.0)
    owed.add(BCI, "change", (first.hook,), 1.0)
    owed.finish(first, None, 2.0)
    assert [taken(owed, 2.0).hook for _ in range(2)] == [others[1], others[0]]


def test_a_command_is_told_of_as_many_tokens_as_its_environment_can_hold() -> None:
    path = Output(path="/run/bearerd/" + "é" * 500)
    several = [target(f"t{number}", outputs=(path,) * 20) for number in range(8)]
    endless = target("endless", outputs=(path,) * 200)
    assert 3 * 20 * len(path.path.encode()) < LARGEST < 4 * 20 * len(path.path.encode())
    owed = Owed(())
    for one in (*several, endless):
        owed.add(one, "change", (COMMAND,), 0.0)
    told = []
    while (batch := owed.take(0.0)) is not None:
        told.append(names(batch))
        owed.finish(batch, None, 0.0)
    assert told == [["t0", "t1", "t2"], ["t3", "t4", "t5"], ["t6", "t7"], ["endless"]]
    for one in (*several, endless):
        owed.add(one, "change", (SIGNAL,), 0.0)
    assert len(names(taken(owed, 0.0))) == 9  # it is told nothing


def test_a_failed_run_stays_owed_for_all_waits_for_each_step_of_the_backoff_and_is_then_given_up() -> None:
    owed = Owed((1.0, 4.0))
    for one in (BCI, RISK):
        owed.add(one, "change", (COMMAND,), 0.0)
    now = 0.0
    for attempt, wait in ((2, 1.0), (3, 4.0)):
        ended = owed.finish(taken(owed, now), "exit 1", now)
        assert retries(ended) == [(name, now + wait, attempt) for name in ("bci", "risk")]
        assert owed.next_due() == now + wait
        now += wait
        assert owed.take(now - 0.1) is None
    assert (owed.given_up, owed.pending("dnb/bci")) == (0, 1)
    ended = owed.finish(taken(owed, now), "exit 1", now)
    assert ([run.target.name for run in ended.given_up], ended.again) == (["bci", "risk"], ())
    assert (owed.given_up, owed.settled(), owed.next_due()) == (2, True, None)
    assert owed.last(BCI) == owed.last(RISK) == (now, "hook run /bin/true: exit 1")


@pytest.mark.parametrize("event", ["change", "failure"])
def test_a_hook_that_was_given_up_and_is_no_longer_configured_has_no_fault(event: Event) -> None:
    owed = Owed(())
    hooks: dict[str, Any] = {"on_change": (LATER, SIGNAL), "on_failure": (COMMAND, SIGNAL)}
    both = target("bci", **hooks)
    for hook in (COMMAND, SIGNAL):
        owed.add(both, event, (hook,), 0.0)
        owed.finish(taken(owed, 0.0), "exit 1", 1.0)
    faults = [f"hook {hook}: exit 1" for hook in (COMMAND, SIGNAL)]
    assert owed.last(both) == (1.0, "; ".join(faults))
    assert owed.last(target("bci", **hooks | {f"on_{event}": (SIGNAL,)})) == (1.0, faults[1])
    assert owed.last(target("bci", **hooks | {f"on_{event}": ()})) == (1.0, None)


def test_a_token_that_waits_for_another_attempt_joins_a_run_and_loses_no_attempt_by_it() -> None:
    # Otherwise a hook that fails would never be given up while tokens change, or would be given up within a moment.
    owed = Owed((10.0, 10.0))
    owed.add(BCI, "change", (COMMAND,), 0.0)
    assert retries(owed.finish(taken(owed, 0.0), "exit 1", 0.0)) == [("bci", 10.0, 2)]
    owed.add(RISK, "change", (COMMAND,), 1.0)
    batch = taken(owed, 1.0)
    assert names(batch) == ["risk", "bci"]
    assert retries(owed.finish(batch, "exit 1", 1.0)) == [("risk", 11.0, 2), ("bci", 10.0, 2)]
    batch = taken(owed, 10.0)
    assert names(batch) == ["bci", "risk"]
    assert owed.finish(batch, None, 10.0) == Ended()
    assert owed.settled()


def test_a_change_during_a_failing_run_is_the_next_attempt_and_restarts_the_count() -> None:
    owed = Owed((60.0,))
    owed.add(BCI, "change", (COMMAND,), 0.0)
    batch = taken(owed, 0.0)
    owed.add(BCI, "change", (COMMAND,), 1.0)
    assert owed.pending("dnb/bci") == 2
    owed.finish(batch, "exit 1", 2.0)
    assert owed.pending("dnb/bci") == 1
    assert taken(owed, 2.0).runs[0].attempt == 1


def test_a_removed_token_is_owed_nothing_and_an_abandoned_run_stays_owed() -> None:
    owed = Owed(())
    for one in (BCI, RISK):
        owed.add(one, "change", (COMMAND,), 0.0)
    owed.forget("dnb/risk")
    batch = taken(owed, 0.0)
    assert names(batch) == ["bci"]
    owed.abandon(batch)
    assert (owed.pending("dnb/bci"), owed.pending("dnb/risk"), owed.settled()) == (1, 0, False)


def test_a_token_that_was_removed_during_a_run_is_not_tried_again() -> None:
    owed = Owed((1.0,))
    for one in (BCI, RISK):
        owed.add(one, "change", (COMMAND,), 0.0)
    batch = taken(owed, 0.0)
    owed.forget("dnb/risk")
    assert owed.pending("dnb/risk") == 0
    assert retries(owed.finish(batch, "exit 1", 1.0)) == [("bci", 2.0, 2)]
    batch = taken(owed, 2.0)
    owed.forget("dnb/bci")
    owed.add(BCI, "change", (COMMAND,), 2.5)  # the token was added again
    assert owed.finish(batch, "exit 1", 3.0) == Ended()
    assert owed.last(RISK) == owed.last(BCI) == (None, None)
    assert (owed.given_up, owed.pending("dnb/bci"), names(taken(owed, 3.0))) == (0, 1, ["bci"])


def test_a_change_looks_at_few_hooks_however_many_are_owed(monkeypatch: pytest.MonkeyPatch) -> None:
    # A thousand tokens, each with a command of its own, took 12 ms per change and worker.
    owed = Owed((60.0,))
    for number in range(1000):
        owed.add(target(f"t{number}"), "change", (Hook(argv=("/bin/false", str(number))),), 0.0)
    hashed: list[Hook] = []
    by_fields = Hook.__hash__

    def counted(hook: Hook) -> int:
        hashed.append(hook)
        return by_fields(hook)

    monkeypatch.setattr(Hook, "__hash__", counted)
    owed.finish(taken(owed, 0.0), "exit 1", 0.0)
    owed.add(BCI, "change", (COMMAND,), 0.0)
    assert owed.next_due() == 0.0
    assert len(hashed) < 100


STEPS = st.lists(
    st.tuples(st.sampled_from(["add", "take", "finish", "fail", "forget"]), st.integers(0, 3), st.integers(0, 3))
)


@given(STEPS)
def test_the_next_run_is_that_of_the_hook_that_has_waited_longest_whatever_happened(
    steps: list[tuple[str, int, int]],
) -> None:
    owed, running, now = Owed((2.0, 5.0)), dict[Hook, Batch](), 0.0
    waiting: dict[Hook, dict[str, float]] = {}
    hooks = [Hook(argv=("/bin/true", str(number))) for number in range(4)]
    for step, token, number in steps:
        hook, one, now = hooks[number], target(f"t{token}"), now + 1.0
        if step == "add":
            owed.add(one, "change", (hook,), now)
            waiting.setdefault(hook, {}).setdefault(one.full_name, now)
            waiting[hook][one.full_name] = min(now, waiting[hook][one.full_name])
        elif step == "take":
            batch = owed.take(now)
            free = {each: min(runs.values()) for each, runs in waiting.items() if runs and each not in running}
            assert (batch is not None) == any(due <= now for due in free.values())
            if batch is not None:
                assert free[batch.hook] == min(free.values())
                running[batch.hook] = batch
                waiting[batch.hook] = {}
        elif step in {"finish", "fail"} and hook in running:
            for run in owed.finish(running.pop(hook), "exit 1" if step == "fail" else None, now).again:
                waiting[hook].setdefault(run.target.full_name, run.due)
        elif step == "forget":
            owed.forget(one.full_name)
            for runs in waiting.values():
                runs.pop(one.full_name, None)
        free = {each: min(runs.values()) for each, runs in waiting.items() if runs and each not in running}
        assert owed.next_due() == min(free.values(), default=None)
