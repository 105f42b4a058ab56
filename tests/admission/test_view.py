"""What status and metrics show of admission."""

from __future__ import annotations

from bearerd.admission.types import ClientView, Limits, ProviderView, Refusal, View
from bearerd.admission.view import view
from bearerd.terms import RateLimit
from support.admission import ISSUED, OWN, PROVIDER, REFUSED, World, limits

ELSEWHERE = "https://other.example.com/token"


def seen(w: World) -> View:
    return view(w.core, w.now)


def test_nothing_is_shown_before_the_first_request() -> None:
    w = World(limits("c", max_concurrency=3))
    assert seen(w) == View({"c": ClientView("half_open", None, 0, 0)}, {PROVIDER: ProviderView(0, 3, 10.0, {}, 0.0)})


def test_targets_that_a_breaker_holds_are_those_of_their_client() -> None:
    w = World(limits("cd"))
    w.turn("c/a")
    w.settle("c/a", REFUSED)
    w.turn("c/a")
    w.now += 1.0
    w.turn("c/b")
    for name in ("d/a", "d/b", "d/x", "d/y"):
        w.turn(name)
    w.turn("d/retry", retry=True, failures=1)  # in another queue of its client
    w.now += 2.0
    assert seen(w) == View(
        {
            "c": ClientView("open", Refusal(REFUSED, 1, 1300.0, own=False, request=""), 0, 2),
            "d": ClientView("half_open", None, 1, 4),
        },
        {PROVIDER: ProviderView(1, 8, 10.0, {"refused": 2, "half_open": 4}, 3.0)},
    )


def test_a_target_that_is_refused_on_its_own_is_not_held_by_its_clients_breaker() -> None:
    w = World(limits("cd"))
    for client in "cd":
        w.turn(f"{client}/a")
        w.settle(f"{client}/a", OWN)
        w.turn(f"{client}/a")
        w.now += 1.0
    assert seen(w) == View(
        dict.fromkeys("cd", ClientView("half_open", None, 0, 0)),
        {PROVIDER: ProviderView(0, 8, 10.0, {"refused": 2}, 2.0)},
    )
    w.turn("c/own")
    w.settle("c/own", OWN)
    w.turn("c/own")
    w.turn("c/b")
    w.settle("c/b", REFUSED)
    shown = seen(w)
    assert [shown.clients[name].held for name in "cd"] == [2, 0]  # now both wait for their client too


def test_the_refused_limit_holds_a_client_only_if_it_is_refused() -> None:
    w = World(limits("c", refused_limit=RateLimit(2, 3600.0)))
    w.turn("c/a")
    w.settle("c/a", OWN)
    w.now += 30.0
    w.turn("c/a")
    assert seen(w).providers[PROVIDER].held == {"refused_limit": 1}
    assert seen(w).clients["c"].held == 0
    w.core.fleet_refused("c/b", "c", REFUSED, 1, 0.0, w.now)
    assert seen(w).providers[PROVIDER].held == {"refused_limit": 1}
    assert seen(w).clients["c"].held == 1


def test_each_provider_has_its_own_targets_and_its_longest_wait() -> None:
    w = World(limits("c", max_concurrency=1))
    others = limits("de", max_concurrency=1, provider=ELSEWHERE).clients
    w.limits = Limits({**w.limits.clients, **others}, {})
    w.core.revise(w.limits, w.now)
    for name in ("c/a", "c/b", "d/a"):
        w.turn(name)
    w.now += 5.0
    for name in ("d/b", "e/a", "e/b"):
        w.turn(name)
    w.now += 1.0
    shown = seen(w)
    assert shown.providers[PROVIDER] == ProviderView(1, 1, 10.0, {"concurrency": 1}, 6.0)
    assert shown.providers[ELSEWHERE] == ProviderView(1, 1, 10.0, {"concurrency": 3}, 1.0)
    assert [shown.clients[name].held for name in "cde"] == [0, 0, 0]


def test_a_retry_that_was_sent_is_missing_in_the_budget() -> None:
    w = World(limits("c"))
    w.turn("c/a", retry=True)
    assert seen(w).providers[PROVIDER].retry_budget == 9.0


def test_targets_of_a_removed_client_are_not_shown() -> None:
    w = World(limits("cd"))
    w.turn("d/own")
    w.settle("d/own", OWN)
    w.turn("d/own")
    w.turn("d/a")
    w.turn("d/b")
    w.now += 1.0
    w.core.revise(limits("c"), w.now)
    assert seen(w) == View({"c": ClientView("half_open", None, 0, 0)}, {PROVIDER: ProviderView(1, 8, 10.0, {}, 0.0)})


def test_a_target_that_got_its_token_waits_no_longer() -> None:
    w = World(limits("c"))
    w.turn("c/a")
    w.turn("c/b")
    w.now += 1.0
    w.settle("c/a", ISSUED)
    w.run()
    assert list(w.tickets) == ["c/b"]
    assert seen(w) == View({"c": ClientView("closed", None, 1, 0)}, {PROVIDER: ProviderView(1, 8, 10.0, {}, 0.0)})
