"""`Admission` with its lock, its wakes and its journal, used by threads."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from bearerd.admission.admission import Admission
from bearerd.admission.journal import Journal
from bearerd.admission.types import Granted, Held
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
