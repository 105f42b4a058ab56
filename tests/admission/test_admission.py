"""`Admission` with its lock, its wakes and its journal, used by threads."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bearerd.admission.admission import Admission
from bearerd.admission.journal import Journal
from bearerd.admission.types import Granted, Held, Limits, Refusal, Settled
from bearerd.terms import RateLimit
from support.admission import ISSUED, REFUSED, SILENCE, ask, limits
from support.clock import FakeClock


def granted(answer: Granted | Held) -> Granted:
    assert isinstance(answer, Granted), answer
    return answer


def make(tmp_path: Path, clock: FakeClock, wakes: list[tuple[str, float]] | None = None, **changes: Any) -> Admission:
    woken = wakes if wakes is not None else []
    journal = Journal(str(tmp_path), clock)
    return Admission(limits("cd", **changes), lambda name, at: woken.append((name, at)), journal, clock.boot)


def test_an_outcome_wakes_the_next_target_but_not_the_requesting_one(tmp_path: Path) -> None:
    clock, wakes = FakeClock(), list[tuple[str, float]]()
    admission = make(tmp_path, clock, wakes)
    ticket = granted(admission.request(ask("c/a"), clock.boot)).ticket
    assert isinstance(admission.request(ask("c/b"), clock.boot), Held)
    assert isinstance(admission.request(ask("c/c", failures=1), clock.boot), Held)
    assert wakes == []
    admission.settle(ticket, ISSUED, clock.boot)
    assert wakes == [("c/b", clock.boot), ("c/c", clock.boot)]
    admission.close()


def test_a_request_wakes_a_more_urgent_target_that_may_go_now(tmp_path: Path) -> None:
    clock, wakes = FakeClock(), list[tuple[str, float]]()
    admission = make(tmp_path, clock, wakes, rates={"p": RateLimit(1, 60.0)})
    admission.settle(granted(admission.request(ask("c/a"), clock.boot)).ticket, ISSUED, clock.boot)
    assert isinstance(admission.request(ask("c/first"), clock.boot), Held)
    clock.advance(60.0)
    assert isinstance(admission.request(ask("c/later", failures=1), clock.boot), Held)
    assert wakes == [("c/first", clock.boot)]
    admission.close()


def test_an_attempt_is_in_the_ledger_before_it_is_sent_unless_the_breaker_is_closed(tmp_path: Path) -> None:
    clock = FakeClock()
    admission = make(tmp_path, clock)
    ledger = tmp_path / "ledger"
    ticket = granted(admission.request(ask("c/a"), clock.boot)).ticket
    assert '"sent",1,"c",true' in ledger.read_text()
    admission.settle(ticket, ISSUED, clock.boot)
    size = ledger.stat().st_size
    for _ in range(100):
        admission.settle(granted(admission.request(ask("c/a"), clock.boot)).ticket, ISSUED, clock.boot)
    assert ledger.stat().st_size == size
    admission.close()


def test_attempts_of_a_killed_process_that_count_as_refused_are_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    line = (
        "client c: 2 requests of a killed process have no known outcome and count as refused; "
        "requests wait while refused_limit is used up"
    )
    clock = FakeClock()
    for after, said in ((0.0, [line]), (200.0, [])):  # longer than the window of refused_limit
        killed = make(tmp_path, clock)
        killed.settle(granted(killed.request(ask("d/a"), clock.boot)).ticket, REFUSED, clock.boot)
        for name in ("c/a", "c/b"):
            granted(killed.request(ask(name, last_attempt=True), clock.boot))
        killed.close()
        clock.advance(after)
        for _ in range(2):
            make(tmp_path, clock).close()
        assert caplog.messages == said
        caplog.clear()
        clock.advance(500)


def test_one_request_of_a_killed_process_is_logged_if_its_client_is_still_in_the_config(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = FakeClock()
    killed = make(tmp_path, clock)
    for name in ("c/a", "d/a"):
        granted(killed.request(ask(name), clock.boot))
    killed.close()
    journal = Journal(str(tmp_path), clock)
    only_c = Limits({"c": limits().clients["c"]}, {})
    Admission(only_c, lambda _name, _at: None, journal, clock.boot).close()
    said = "client c: 1 request of a killed process has no known outcome and counts as refused; "
    assert caplog.messages == [f"{said}requests wait while refused_limit is used up"]


def test_a_new_process_restores_the_state_of_the_last_one(tmp_path: Path) -> None:
    clock = FakeClock()
    first = make(tmp_path, clock, rates={"p": RateLimit(2, 3600.0)})
    first.settle(granted(first.request(ask("c/a"), clock.boot)).ticket, REFUSED, clock.boot)
    granted(first.request(ask("d/a"), clock.boot))
    first.close()  # a killed process releases its lock, too
    clock.advance(10.0)
    clock.reboot()
    second = make(tmp_path, clock, rates={"p": RateLimit(2, 3600.0)})
    refusal = second.refusal("c/a", "c")
    assert refusal is not None
    assert round(refusal.next_probe - clock.boot) == 290
    answer = second.request(ask("d/a"), clock.boot)
    assert isinstance(answer, Held)
    assert answer.reason == "rate_limit"
    assert 3589.0 < answer.until - clock.boot <= 3600.0
    second.close()


def test_a_sweep_rewrites_a_ledger_that_has_grown_or_was_removed(tmp_path: Path) -> None:
    clock = FakeClock()
    admission = make(tmp_path, clock, rates={"p": RateLimit(10_000, 60.0)})
    ledger = tmp_path / "ledger"
    for _ in range(4000):
        admission.settle(granted(admission.request(ask("c/a"), clock.boot)).ticket, ISSUED, clock.boot)
        clock.advance(0.1)
    grown = ledger.stat().st_size
    kept = granted(admission.request(ask("d/a"), clock.boot)).ticket
    admission.sweep(clock.boot)
    assert ledger.stat().st_size < grown / 5
    assert '"sent"' in ledger.read_text(), "what is in flight is kept"
    ledger.unlink()
    admission.sweep(clock.boot)
    assert '"sent"' in ledger.read_text()
    admission.settle(kept, SILENCE, clock.boot)
    admission.close()


def test_changed_configs_and_credentials_and_removed_targets_wake_waiting_targets(tmp_path: Path) -> None:
    clock, wakes = FakeClock(), list[tuple[str, float]]()
    admission = make(tmp_path, clock, wakes, max_concurrency=1)
    admission.worked("c")
    ticket = granted(admission.request(ask("c/a"), clock.boot)).ticket
    for name in ("d/a", "d/b", "d/c"):
        admission.request(ask(name), clock.boot)
    admission.revise(limits("cd", max_concurrency=2), clock.boot)
    assert wakes == [("d/a", clock.boot)]
    admission.forget("d/a", "d", clock.boot)
    assert wakes[1:] == [("d/b", clock.boot)]
    admission.settle(ticket, REFUSED, clock.boot)
    assert isinstance(admission.request(ask("c/a"), clock.boot), Held)
    wakes.clear()
    admission.forgive("c", clock.boot)
    assert wakes == [("c/a", clock.boot)]
    assert admission.preview(ask("c/a"), clock.boot) is None
    admission.close()


def test_the_view_counts_each_refusal_of_a_client(tmp_path: Path) -> None:
    clock = FakeClock()
    admission = make(tmp_path, clock)
    for count, name in enumerate(("c/a", "c/b", "c/c", "c/a"), start=1):
        admission.settle(granted(admission.request(ask(name), clock.boot)).ticket, REFUSED, clock.boot)
        refusal = admission.view(clock.boot).clients["c"].refusal
        assert refusal is not None
        assert refusal.attempts == count
        clock.advance(3600.0 if count >= 3 else 2.0)
    admission.close()


def test_the_view_for_status_and_metrics(tmp_path: Path) -> None:
    clock = FakeClock()
    admission = make(tmp_path, clock, max_concurrency=2)
    admission.settle(granted(admission.request(ask("c/a"), clock.boot)).ticket, REFUSED, clock.boot)
    admission.request(ask("c/a"), clock.boot)
    clock.advance(1.0)
    granted(admission.request(ask("d/a"), clock.boot))
    admission.request(ask("d/b"), clock.boot)
    clock.advance(2.0)
    view = admission.view(clock.boot)
    assert [(name, each.state, each.in_flight, each.held) for name, each in view.clients.items()] == [
        ("c", "open", 0, 1),
        ("d", "half_open", 1, 1),
    ]
    refusal = view.clients["c"].refusal
    assert refusal is not None
    assert refusal.outcome == REFUSED
    (provider,) = view.providers.values()
    assert (provider.in_flight, provider.max_concurrency, provider.retry_budget) == (1, 2, 10.0)
    assert dict(provider.held) == {"refused": 1, "half_open": 1}
    assert provider.longest_wait == 3.0
    admission.close()


def test_targets_that_were_refused_on_their_own_are_also_held_by_the_breaker_of_their_client(tmp_path: Path) -> None:
    clock = FakeClock()
    admission = make(tmp_path, clock)
    own = replace(REFUSED, whole_client=False)
    for name in ("c/a", "c/b"):
        admission.settle(granted(admission.request(ask(name), clock.boot)).ticket, own, clock.boot)
    for name in ("c/a", "c/b"):
        assert isinstance(admission.request(ask(name), clock.boot), Held)
    assert admission.view(clock.boot).clients["c"].held == 0
    admission.settle(granted(admission.request(ask("c/d"), clock.boot)).ticket, REFUSED, clock.boot)
    view = admission.view(clock.boot)
    assert view.clients["c"].held == 2
    (provider,) = view.providers.values()
    assert dict(provider.held) == {"refused": 2}
    admission.close()


def test_the_breaker_of_a_client_holds_no_target_that_is_held_for_another_reason(tmp_path: Path) -> None:
    clock = FakeClock()
    admission = make(tmp_path, clock, rates={"p": RateLimit(2, 3600.0)})
    for name in ("c/a", "d/a"):
        admission.settle(granted(admission.request(ask(name), clock.boot)).ticket, ISSUED, clock.boot)
    assert isinstance(admission.request(ask("c/b"), clock.boot), Held)
    view = admission.view(clock.boot)
    (provider,) = view.providers.values()
    assert dict(provider.held) == {"rate_limit": 1}
    assert view.clients["c"].held == 0
    admission.close()


def ledger(tmp_path: Path) -> str:
    return (tmp_path / "ledger").read_text()


def test_what_the_fleet_tells_holds_and_wakes_targets_and_is_in_the_ledger(tmp_path: Path) -> None:
    clock, wakes = FakeClock(), list[tuple[str, float]]()
    admission = make(tmp_path, clock, wakes)
    now = clock.boot
    admission.fleet_refused("c/a", "c", REFUSED, 3, 77.0, now)
    assert admission.refusal("c/b", "c") == Refusal(REFUSED, 3, now + 77.0, own=False)
    assert '"client","c",[' in ledger(tmp_path)
    held = admission.request(ask("c/b"), now)
    assert held == admission.preview(ask("c/b"), now) == Held(now + 77.0, "refused", now + 77.0)
    admission.fleet_issued("c/a", "c", now)
    assert admission.refusal("c/a", "c") is admission.refusal("c/b", "c") is None
    assert '"client","c",null' in ledger(tmp_path)
    assert wakes == [("c/b", now)]
    own = replace(REFUSED, whole_client=False)
    admission.fleet_refused("c/x", "c", own, 1, 50.0, now)
    assert admission.refusal("c/x", "c") == Refusal(own, 1, now + 50.0, own=True)
    admission.forget("c/x", "c", now)
    assert admission.refusal("c/x", "c") is None
    admission.fleet_refused("c/y", "c", own, 1, 50.0, now)
    admission.fleet_issued("c/y", "c", now)
    assert admission.refusal("c/y", "c") is None
    admission.close()


def test_a_cancelled_target_leaves_its_place_to_the_next(tmp_path: Path) -> None:
    clock, wakes = FakeClock(), list[tuple[str, float]]()
    admission = make(tmp_path, clock, wakes)
    ticket = granted(admission.request(ask("c/a"), clock.boot)).ticket
    for number, name in enumerate(("c/b", "c/d")):
        admission.request(ask(name, failures=number), clock.boot)
    assert isinstance(admission.settle(ticket, SILENCE, clock.boot), Settled)
    admission.cancel("c/b", "c", clock.boot)
    assert wakes == [("c/b", clock.boot), ("c/d", clock.boot)]
    admission.close()


def test_credentials_that_worked_before_are_refused_at_their_pace_and_tickets_end_at_their_deadline() -> None:
    admission = Admission(limits(), lambda _name, _at: None)
    admission.worked("c")
    admission.request(ask("c/a"), 0.0)
    admission.sweep(40.0)
    assert admission.view(40.0).clients["c"].in_flight == 0
    settled = admission.settle(granted(admission.request(ask("c/a"), 40.0)).ticket, REFUSED, 40.0)
    assert settled == Settled(70.0, 70.0)


def test_after_a_crash_an_attempt_counts_until_the_deadline_of_its_client(tmp_path: Path) -> None:
    clock, limit = FakeClock(), RateLimit(1, 100.0)
    given = limits(rates={"p": limit})
    slow = Limits({"c": replace(given.clients["c"], deadline=330.0)}, given.rates)
    first = Admission(slow, lambda _name, _at: None, Journal(str(tmp_path), clock), clock.boot)
    granted(first.request(ask("c/a"), clock.boot))
    first.close()
    clock.advance(200.0)
    second = Admission(slow, lambda _name, _at: None, Journal(str(tmp_path), clock), clock.boot)
    answer = second.request(ask("c/b"), clock.boot)
    assert isinstance(answer, Held)
    assert answer == Held(clock.boot + 100.0, "rate_limit", clock.boot + 100.0)
    second.close()


def test_the_fault_of_the_journal_is_told(tmp_path: Path) -> None:
    clock = FakeClock()
    first, second = make(tmp_path, clock), make(tmp_path, clock)
    assert first.fault() == Admission(limits(), lambda _name, _at: None).fault() == ""
    assert "another bearerd uses it" in second.fault()
    first.close()
    second.close()


def test_a_sweep_that_rewrites_the_ledger_writes_each_entry_once(tmp_path: Path) -> None:
    clock = FakeClock()
    admission = make(tmp_path, clock)
    admission.settle(granted(admission.request(ask("c/a"), clock.boot)).ticket, ISSUED, clock.boot)
    ticket = granted(admission.request(ask("c/a"), clock.boot)).ticket
    (tmp_path / "ledger").unlink()
    admission._core.settle(ticket, REFUSED, clock.boot)  # its entries are about to be written by another thread
    admission.sweep(clock.boot)
    admission._write()
    assert ledger(tmp_path).count('"refused"') == 1
    admission.close()


def test_admission_works_without_a_journal() -> None:
    admission = Admission(limits(), lambda _name, _at: None)
    admission.settle(granted(admission.request(ask("c/a"), 0.0)).ticket, REFUSED, 0.0)
    assert isinstance(admission.request(ask("c/a"), 1.0), Held)
    admission.sweep(1.0)
    admission.close()


def test_many_threads_respect_max_concurrency_and_all_get_through(tmp_path: Path) -> None:
    clock = FakeClock()
    names = [f"{'cd'[number % 2]}/{number}" for number in range(60)]
    turns = {name: threading.Event() for name in names}
    admission = Admission(
        limits("cd", max_concurrency=3),
        lambda name, _at: turns[name].set(),
        Journal(str(tmp_path), clock),
        clock.boot,
    )
    busy, most, counting = 0, 0, threading.Lock()

    def target(name: str) -> None:
        nonlocal busy, most
        for _ in range(5):
            while isinstance(answer := admission.request(ask(name), clock.boot), Held):
                assert turns[name].wait(60.0), f"{name} was not woken"
                turns[name].clear()
            with counting:
                busy += 1
                most = max(most, busy)
            with counting:
                busy -= 1
            admission.settle(answer.ticket, ISSUED, clock.boot)

    threads = [threading.Thread(target=target, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(90.0)
    assert not any(thread.is_alive() for thread in threads)
    assert most <= 3
    view = admission.view(clock.boot)
    assert [provider.in_flight for provider in view.providers.values()] == [0]
    admission.close()
