"""The pure decisions: which runs are owed, and when. test_hooks.py shows them with real programs."""

from __future__ import annotations

from bearerd.hooks.owed import Batch, Owed
from bearerd.model import Hook
from support.targets import target

COMMAND = Hook(argv=("/bin/true",))
SIGNAL = Hook(signal="HUP", process="nginx")
BCI, RISK = (target(name, on_change=(COMMAND, SIGNAL)) for name in ("bci", "risk"))


def taken(owed: Owed, now: float) -> Batch:
    batch = owed.take(now)
    assert batch is not None
    return batch


def names(batch: Batch) -> list[str]:
    return [run.target.name for run in batch.runs]


def test_a_command_runs_for_one_token_after_the_other_and_a_signal_is_sent_once_for_all() -> None:
    owed = Owed(())
    for one in (BCI, RISK):
        owed.add(one, "change", (COMMAND, SIGNAL), 0.0)
    first, second = taken(owed, 0.0), taken(owed, 0.0)
    assert (first.hook, names(first)) == (COMMAND, ["bci"])
    assert (second.hook, names(second)) == (SIGNAL, ["bci", "risk"])
    assert owed.take(0.0) is None  # the command for the other token waits for the first run
    assert owed.finish(first, None, 1.0) is None
    assert names(taken(owed, 1.0)) == ["risk"]


def test_a_failed_run_waits_for_each_step_of_the_backoff_and_is_then_given_up() -> None:
    owed = Owed((1.0, 4.0))
    owed.add(BCI, "change", (COMMAND,), 0.0)
    now = 0.0
    for wait in (1.0, 4.0):
        assert owed.finish(taken(owed, now), "exit 1", now) == wait
        assert owed.next_due() == now + wait
        now += wait
        assert owed.take(now - 0.1) is None
    assert (owed.given_up, owed.pending("dnb/bci")) == (0, 1)
    assert owed.finish(taken(owed, now), "exit 1", now) is None
    assert (owed.given_up, owed.pending("dnb/bci"), owed.next_due()) == (1, 0, None)
    assert owed.last("dnb/bci") == (now, "hook run /bin/true: exit 1")


def test_a_change_during_a_failing_run_is_the_next_attempt_and_restarts_the_count() -> None:
    owed = Owed((60.0,))
    owed.add(BCI, "change", (COMMAND,), 0.0)
    batch = taken(owed, 0.0)
    owed.add(BCI, "change", (COMMAND,), 1.0)
    assert owed.pending("dnb/bci") == 2
    owed.finish(batch, "exit 1", 2.0)
    assert owed.pending("dnb/bci") == 1
    assert taken(owed, 2.0).attempt == 1


def test_a_removed_token_is_owed_nothing_and_an_abandoned_run_stays_owed() -> None:
    owed = Owed(())
    for one in (BCI, RISK):
        owed.add(one, "change", (COMMAND,), 0.0)
    owed.forget("dnb/risk")
    batch = taken(owed, 0.0)
    owed.abandon(batch)
    assert (owed.pending("dnb/bci"), owed.pending("dnb/risk"), owed.settled()) == (1, 0, False)
