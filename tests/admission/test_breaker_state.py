"""One breaker by itself: its state, its entries in the journal, and what it restores from them."""

from __future__ import annotations

from dataclasses import replace
from math import inf, nan

import pytest

from bearerd.admission.breaker import Breaker, TargetRefusal
from bearerd.admission.ledger import Entry
from bearerd.admission.types import BreakerState
from bearerd.grant.outcome import Refused
from support.admission import OTHER_SECRET, OWN, REFUSED

NOW = 1000.0
FULL = Refused("401 invalid_client", hint="check it", request="f00d")


def fresh() -> Breaker:
    return Breaker()


def worked(name: str = "c/a") -> Breaker:
    breaker = Breaker()
    breaker.got_token(name, NOW, NOW)
    return breaker


def refused(*names: str, outcome: Refused = REFUSED, breaker: Breaker | None = None) -> Breaker:
    """A breaker of which these targets were refused one after the other, in the same moment."""
    breaker = breaker or Breaker()
    for name in names:
        breaker.refused_client(name, outcome, NOW, NOW, governed=True)
    return breaker


def own(name: str = "c/a", outcome: Refused = OWN) -> Breaker:
    """A breaker of which this target is refused on its own."""
    breaker = Breaker()
    breaker.refused_target(name, outcome, NOW)
    return breaker


def told(breaker: Breaker, now: float = NOW) -> dict[str, object]:
    """What the breaker tells the journal: the fields of the client (under "") and of its targets."""
    entries = breaker.take_entries("c", now)
    assert breaker.take_entries("c", now) == []
    return by_name(entries)


def by_name(entries: list[Entry]) -> dict[str, object]:
    assert all(entry[1] == "c" for entry in entries)
    return {"" if entry[0] == "client" else entry[2]: entry[-1] for entry in entries}


# -- state -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("breaker", "ago", "state"),
    [
        (fresh(), 0.0, "half_open"),
        (worked(), 0.0, "closed"),
        (worked(), 60.0, "closed"),
        (worked(), 60.1, "half_open"),
        (refused("c/a"), 0.0, "open"),
        (refused("c/a"), 299.9, "open"),
        (refused("c/a"), 300.0, "half_open"),
    ],
)
def test_a_breaker_is_closed_for_a_minute_and_open_until_its_probe_is_due(
    breaker: Breaker, ago: float, state: BreakerState
) -> None:
    assert breaker.state(NOW + ago) == state
    assert breaker.closed(NOW + ago) == (state == "closed")


def test_a_breaker_is_half_open_while_its_probe_is_in_flight() -> None:
    breaker = refused("c/a")
    breaker.in_flight = 1
    assert breaker.state(NOW) == "half_open"
    assert breaker.earliest(NOW, tried=False) == (inf, "refused")


def test_a_refusal_opens_the_breaker_even_shortly_after_a_token() -> None:
    breaker = refused("c/a", breaker=worked())
    assert not breaker.closed(NOW)
    assert breaker.state(NOW) == "open"


@pytest.mark.parametrize(("ago", "most"), [(1.0, None), (1.1, 4), (60.0, 4), (60.1, 1)])
def test_attempts_in_flight_are_limited_by_the_age_of_the_last_token(ago: float, most: int | None) -> None:
    breaker, now = worked(), NOW + ago
    breaker.in_flight = 1000 if most is None else most - 1
    assert breaker.earliest(now, tried=False) == (now, "half_open")
    if most is not None:
        breaker.in_flight = most
        assert breaker.earliest(now, tried=False) == (inf, "half_open")


def test_another_secret_may_be_tried_by_any_target_after_a_second() -> None:
    breaker = refused("c/a", outcome=OTHER_SECRET)
    for tried in (False, True):
        assert breaker.earliest(NOW, tried=tried) == (NOW + 1.0, "refused")
    assert (breaker.refusals, breaker.tried) == (0, {})


@pytest.mark.parametrize(("before", "early"), [(0, 2.0), (1, 2.0), (2, 1200.0)])
def test_refusals_by_the_fleet_count_as_tried_targets(before: int, early: float) -> None:
    breaker = refused("c/a", outcome=replace(REFUSED, before=before))
    assert breaker.next_for_others() == NOW + early
    assert breaker.refusals == before + 1


# -- a target's own refusal ------------------------------------------------------------------------


def test_a_siblings_token_makes_a_refusal_the_targets_own_at_its_pace() -> None:
    breaker = refused("c/a")
    breaker.got_token("c/b", NOW + 5.0, NOW + 10.0)
    assert breaker.tried == {}
    assert breaker.own == {"c/a": TargetRefusal(REFUSED, 1, NOW, NOW + 30.0)}


def test_a_token_ends_the_refusals_of_its_target() -> None:
    for breaker in (refused("c/a"), own()):
        breaker.got_token("c/a", NOW + 5.0, NOW + 10.0)
        assert (breaker.tried, breaker.own) == ({}, {})


@pytest.mark.parametrize(("sent", "is_own"), [(NOW - 1.0, True), (NOW, False), (NOW + 1.0, False)])
def test_a_refusal_is_the_targets_own_if_a_sibling_got_a_token_with_a_later_attempt(sent: float, is_own: bool) -> None:
    breaker = worked("c/b")
    breaker.refused_client("c/a", REFUSED, sent, NOW + 5.0, governed=True)
    assert ("c/a" in breaker.own) == is_own
    assert ("c/a" in breaker.tried) == (not is_own)


def test_the_attempt_of_a_sibling_counts_although_the_target_sent_a_later_one() -> None:
    breaker = Breaker()
    breaker.got_token("c/b", NOW, NOW)
    breaker.got_token("c/a", NOW + 10.0, NOW + 10.0)
    breaker.refused_client("c/a", REFUSED, NOW - 1.0, NOW + 20.0, governed=True)
    assert "c/a" in breaker.own


def test_an_older_attempt_of_a_sibling_counts_although_its_token_came_later() -> None:
    breaker = Breaker()
    breaker.got_token("c/a", NOW + 10.0, NOW + 10.0)
    breaker.got_token("c/b", NOW, NOW + 15.0)
    breaker.refused_client("c/a", REFUSED, NOW - 1.0, NOW + 20.0, governed=True)
    assert "c/a" in breaker.own


def test_the_refusals_of_a_target_are_counted_until_a_token_of_its_client() -> None:
    assert refused("c/a", "c/b", "c/a", "c/a").tried == {
        "c/a": TargetRefusal(REFUSED, 3, NOW),
        "c/b": TargetRefusal(REFUSED, 1, NOW),
    }


def test_a_targets_own_later_token_does_not_count() -> None:
    breaker = Breaker()
    breaker.got_token("c/a", NOW, NOW)
    breaker.got_token("c/a", NOW - 20.0, NOW)
    breaker.refused_client("c/a", REFUSED, NOW - 1.0, NOW + 20.0, governed=True)
    assert "c/a" in breaker.tried


def test_of_attempts_in_the_same_moment_each_is_a_sibling_of_the_other() -> None:
    breaker = Breaker()
    breaker.got_token("c/a", NOW, NOW)
    breaker.got_token("c/b", NOW, NOW)
    breaker.refused_client("c/b", REFUSED, NOW - 1.0, NOW + 20.0, governed=True)
    assert "c/b" in breaker.own


def test_a_target_that_is_refused_on_its_own_goes_through_the_pace() -> None:
    breaker = own()
    for refusals, wait in ((1, 30.0), (2, 60.0), (3, 120.0)):
        assert breaker.own["c/a"] == TargetRefusal(OWN, refusals, NOW, NOW + wait)
        breaker.refused_target("c/a", OWN, NOW)
    breaker.refused_client("c/a", FULL, NOW, NOW + 1.0, governed=True)
    assert breaker.own["c/a"] == TargetRefusal(FULL, 5, NOW + 1.0, NOW + 301.0)


def test_another_secret_of_a_target_refused_on_its_own_is_tried_after_a_second() -> None:
    breaker = own()
    breaker.refused_client("c/a", OTHER_SECRET, NOW, NOW + 30.0, governed=True)
    assert breaker.own["c/a"] == TargetRefusal(OTHER_SECRET, 1, NOW + 30.0, NOW + 31.0)


def test_a_code_for_the_target_ends_the_refusal_of_the_client() -> None:
    breaker = refused("c/a")
    told(breaker)
    breaker.refused_target("c/a", OWN, NOW)
    assert breaker.refusal is None
    assert (list(breaker.tried), list(breaker.own)) == ([], ["c/a"])
    assert told(breaker) == {"": [False, 1, 300.0, 2.0, None], "c/a": [True, 1, 0.0, 30.0, [OWN.message, None, ""]]}


def test_an_unclear_outcome_lets_a_target_refused_on_its_own_wait_for_its_pace() -> None:
    for governed in (True, False):
        breaker = own()
        told(breaker)
        assert breaker.unclear("c/a", NOW + 20.0, governed=governed) == governed
        assert breaker.own["c/a"] == TargetRefusal(OWN, 1, NOW, NOW + 50.0)
        assert list(told(breaker)) == ["c/a"]
        breaker.unclear("c/a", NOW - 20.0, governed=governed)
        assert breaker.own["c/a"].next_at == NOW + 50.0


def test_an_unclear_outcome_of_a_probe_counts_and_lets_the_client_wait_again() -> None:
    breaker = refused("c/a")
    told(breaker)
    assert not breaker.unclear("c/b", NOW + 300.0, governed=False)
    assert told(breaker) == {}
    breaker.forget("c/gone")
    assert breaker.unclear("c/b", NOW + 300.0, governed=True)
    assert breaker.probe_at == NOW + 600.0
    assert list(told(breaker)) == ["", "c/gone"]
    assert not worked().unclear("c/a", NOW, governed=True)


# -- refusals by the fleet -------------------------------------------------------------------------


@pytest.mark.parametrize(("known", "reported", "counted"), [(1, 3, 3), (3, 1, 3)])
def test_a_refusal_by_the_fleet_is_the_clients_at_the_pace_of_the_fleet(
    known: int, reported: int, counted: int
) -> None:
    breaker = refused("c/a")
    breaker.refusals = known
    told(breaker)
    breaker.forget("c/gone")
    breaker.fleet_refused("c/b", FULL, reported, 77.0, NOW)
    assert (breaker.refusal, breaker.refusals) == (FULL, counted)
    for tried in (False, True):
        assert breaker.earliest(NOW, tried=tried) == (NOW + 77.0, "refused")
    assert list(told(breaker)) == ["", "c/gone"]
    assert list(breaker.tried) == ["c/a"]


@pytest.mark.parametrize(("known", "reported", "counted"), [(0, 0, 0), (0, 3, 3), (3, 1, 3)])
def test_a_refusal_of_one_target_by_the_fleet_is_its_own(known: int, reported: int, counted: int) -> None:
    breaker = refused("c/a")
    told(breaker)
    if known:
        breaker.own["c/a"] = TargetRefusal(OWN, known, NOW - 1.0)
    breaker.fleet_refused("c/a", OWN, reported, 77.0, NOW)
    breaker.fleet_refused("c/a", OWN, reported, 77.0, NOW)
    assert breaker.tried == {}
    assert breaker.own == {"c/a": TargetRefusal(OWN, counted, NOW, NOW + 77.0)}
    assert list(told(breaker)) == ["c/a"]


# -- changed credentials, removed targets ----------------------------------------------------------


def test_changed_credentials_clear_everything_but_that_they_worked() -> None:
    breaker = refused("c/a", breaker=own("c/own"))
    breaker.got_token("c/b", NOW, NOW)
    refused("c/b", breaker=breaker)
    breaker.in_flight, epoch = 2, breaker.epoch
    told(breaker)
    breaker.forget("c/gone")
    breaker.forgive()
    assert (breaker.refusal, breaker.refusals, breaker.tried, breaker.own) == (None, 0, {}, {})
    assert breaker.worked
    assert breaker.in_flight == 0
    assert breaker.state(NOW) == "half_open"
    assert told(breaker) == {"": None, "c/a": None, "c/b": None, "c/gone": None, "c/own": None}
    second = breaker.epoch
    breaker.forgive()
    assert len({epoch, second, breaker.epoch}) == 3


def test_tokens_from_before_the_credentials_changed_make_no_refusal_a_targets_own() -> None:
    breaker = worked("c/b")
    breaker.got_token("c/a", NOW, NOW)
    breaker.forgive()
    for name in ("c/a", "c/b"):
        breaker.refused_client(name, REFUSED, NOW - 1.0, NOW, governed=True)
    assert breaker.own == {}


def test_a_removed_target_is_forgotten_and_cleared_in_the_journal() -> None:
    for breaker in (refused("c/a"), own()):
        told(breaker)
        breaker.forget("c/a")
        assert (breaker.tried, breaker.own) == ({}, {})
        assert told(breaker) == {"c/a": None}


# -- the journal -----------------------------------------------------------------------------------


def test_refusals_are_told_to_the_journal_with_their_ages_and_waits() -> None:
    breaker = refused("c/a", outcome=FULL)
    told_of_target = [False, 1, 5.0, -NOW - 5.0, ["401 invalid_client", "check it", "f00d"]]
    assert told(breaker, NOW + 5.0) == {
        "": [False, 1, 295.0, -3.0, ["401 invalid_client", "check it", "f00d"]],
        "c/a": told_of_target,
    }


def test_another_secret_tells_of_the_client_and_of_a_target_that_was_cleared_before() -> None:
    breaker = refused("c/a")
    breaker.forget("c/b")
    refused("c/a", outcome=OTHER_SECRET, breaker=breaker)
    assert list(told(breaker)) == ["", "c/a", "c/b"]


def test_a_token_tells_of_cleared_refusals_and_of_those_that_are_targets_own_now() -> None:
    breaker = refused("c/a", "c/b")
    told(breaker)
    breaker.got_token("c/b", NOW, NOW + 10.0)
    message = [REFUSED.message, None, ""]
    assert told(breaker, NOW + 10.0) == {"": None, "c/a": [True, 1, 10.0, 20.0, message], "c/b": None}
    breaker.got_token("c/b", NOW + 20.0, NOW + 20.0)
    assert told(breaker) == {}


def test_a_token_clears_refusals_that_only_lengthen_the_pace() -> None:
    breaker = refused("c/a")
    breaker.refused_target("c/b", OWN, NOW)
    told(breaker)
    breaker.got_token("c/c", NOW, NOW)
    assert told(breaker)[""] is None


def dumped(breaker: Breaker, now: float = NOW) -> dict[str, object]:
    return by_name(list(breaker.entries("c", now)))


def test_a_restart_needs_the_entries_of_what_is_refused() -> None:
    assert dumped(worked()) == {}
    assert dumped(refused("c/a", breaker=own("c/own"))) == told(refused("c/a", breaker=own("c/own")))
    breaker = refused("c/a", outcome=OTHER_SECRET)
    assert list(dumped(breaker)) == [""]
    breaker = refused("c/a")
    breaker.refused_target("c/a", OWN, NOW)
    assert list(dumped(breaker)) == ["", "c/a"]


def restored(breaker: Breaker, age: float, now: float) -> Breaker:
    """A breaker that read the entries of another one."""
    new = Breaker()
    for kind, _, *rest in breaker.entries("c", NOW):
        if kind == "client":
            new.restore(rest[0], age, now)
        else:
            new.restore_target(rest[0], rest[1], age, now)
    return new


@pytest.mark.parametrize("age", [0.0, 20.0])
@pytest.mark.parametrize("had_worked", [False, True])
def test_a_restart_keeps_refusals_as_they_were(age: float, had_worked: bool) -> None:
    old = refused("c/a", outcome=FULL, breaker=own("c/own", replace(OWN, hint="ask", request="1")))
    old.worked = had_worked
    for name in old.own:
        old.own[name] = replace(old.own[name], at=NOW - 2.0)
    new = restored(old, age, NOW + age)
    assert (new.worked, new.refusal, new.refusals) == (had_worked, FULL, 1)
    assert new.refusal is not None
    assert (new.refusal.request, new.tried["c/a"].outcome.request) == ("f00d", "f00d")
    assert (new.probe_at, new.next_for_others()) == (old.probe_at, old.next_for_others())
    own_refusal = old.own["c/own"]
    assert new.own == {"c/own": replace(own_refusal, outcome=replace(own_refusal.outcome, whole_client=True))}
    assert new.tried["c/a"].at == NOW


def test_a_restart_keeps_a_pace_without_a_refusal() -> None:
    old = refused("c/a")
    old.refused_target("c/a", OWN, NOW)
    new = restored(old, 0.0, NOW)
    assert (new.refusal, new.refusals) == (None, 1)


ENTRY = [True, 0, 0.0, 60.0, ["401", None, ""]]


def test_a_refusal_without_a_count_is_restored_without_one() -> None:
    breaker = Breaker()
    breaker.restore([False, 0, 60.0, 60.0, None], 0.0, NOW)
    breaker.restore_target("c/a", ENTRY, 0.0, NOW)
    assert (breaker.refusals, breaker.own["c/a"].refusals) == (0, 0)
    breaker.restore([False, -1, 60.0, 60.0, None], 0.0, NOW)
    breaker.restore_target("c/a", [True, -1, -5.0, 60.0, ["401", None, ""]], 0.0, NOW)
    assert (breaker.refusals, breaker.own["c/a"].refusals, breaker.own["c/a"].at) == (0, 0, NOW)


@pytest.mark.parametrize(("refusals", "longest"), [(1, 3630.0), (5, 3900.0)])
def test_a_targets_refusal_is_forgotten_once_its_pace_is_over_for_an_hour(refusals: int, longest: float) -> None:
    fields = [True, refusals, *ENTRY[2:]]
    breaker = Breaker()
    breaker.restore_target("c/a", fields, longest, NOW)
    assert breaker.own == {}
    breaker.restore_target("c/a", fields, longest - 0.1, NOW)
    assert list(breaker.own) == ["c/a"]


@pytest.mark.parametrize("wait", [nan, "soon", None])
def test_a_malformed_wait_restores_nothing(wait: object) -> None:
    breaker = Breaker()
    with pytest.raises((ValueError, TypeError)):
        breaker.restore([True, 2, wait, 0.0, None], 0.0, NOW)
    with pytest.raises((ValueError, TypeError)):
        breaker.restore_target("c/a", [True, 2, 0.0, wait, ["401", None, ""]], 0.0, NOW)
    assert (breaker.worked, breaker.refusals, breaker.own) == (False, 0, {})


def test_a_damaged_wait_holds_for_an_hour_at_most() -> None:
    breaker = Breaker()
    breaker.restore([True, 2, inf, 1e9, ["401", None, ""]], 10.0, NOW)
    assert (breaker.probe_at, breaker.next_for_others()) == (NOW + 3590.0, NOW + 3590.0)
