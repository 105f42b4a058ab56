from __future__ import annotations

from dataclasses import replace

import pytest

from bearerd.grant.outcome import Issued, Malformed, Refused, Transient, Unsent
from bearerd.lifecycle.doors import Doors
from bearerd.model import RateLimit
from support.targets import CLIENT, PROVIDER, target, token

A, B, C = target("a"), target("b"), target("c")
ISSUED = Issued(token())
REFUSED = Refused("401")
DOWN = Transient("503")


def proven() -> Doors:
    """The client had a token a second ago."""
    doors = Doors()
    doors.admit(A, 9.0)
    doors.report(A, ISSUED, 9.0)
    return doors


def test_a_client_that_had_a_token_lately_lets_all_go_at_once() -> None:
    doors = proven()
    assert [doors.admit(each, 69.0) for each in (A, B, C)] == [69.0] * 3


def test_a_client_that_had_none_lately_makes_its_first_grant_alone() -> None:
    # Its secret may have been revoked since; eight refusals at once lock an account.
    doors = proven()
    doors.prove(A)
    assert doors.admit(A, 69.1) == 69.1
    assert doors.admit(B, 69.1) > 69.1
    assert doors.report(A, ISSUED, 70.0) == {"dnb/b"}
    assert [doors.admit(each, 71.0) for each in (B, C)] == [71.0] * 2


def test_refusals_of_grants_that_were_under_way_together_are_one_refusal() -> None:
    doors = proven()
    for each in (A, B, C):
        assert doors.admit(each, 10.0) == 10.0
    for moment, each in enumerate((A, B, C)):
        doors.report(each, REFUSED, 11.0 + moment, 30.0)
    assert doors.refusals(A) == 1
    assert doors.admit(A, 20.0) == 41.0  # the first one's wait
    assert doors.admit(B, 41.0) == 41.0
    assert doors.report(B, ISSUED, 42.0) == {"dnb/a", "dnb/c"}  # none of them waits on


def test_a_client_that_never_had_a_token_makes_its_first_grant_alone() -> None:
    doors = Doors()
    assert doors.admit(A, 10.0) == 10.0
    assert doors.admit(B, 10.0) > 10.0
    assert doors.admit(C, 10.0) > 10.0
    assert doors.report(A, ISSUED, 11.0) == {"dnb/b", "dnb/c"}
    assert doors.admit(B, 11.0) == doors.admit(C, 11.0) == 11.0


def test_a_first_grant_that_tells_nothing_of_the_client_hands_on_to_the_next() -> None:
    doors = Doors()
    doors.admit(A, 10.0)
    doors.admit(B, 10.0)
    doors.admit(C, 10.0)
    assert doors.report(A, Malformed("HTML"), 11.0, 60.0) == {"dnb/b"}
    assert doors.admit(B, 11.0) == 11.0
    assert doors.admit(A, 11.0) > 11.0
    assert doors.report(B, None, 12.0) == {"dnb/a"}


def test_a_token_refused_alone_shows_that_the_client_is_not() -> None:
    doors = Doors()
    doors.admit(A, 10.0)
    doors.admit(B, 10.0)
    assert doors.report(A, Refused("scope", whole_client=False), 11.0, 300.0) == {"dnb/b"}
    assert doors.proven(B)


def test_a_refused_client_is_probed_by_one_when_its_wait_is_over() -> None:
    doors = proven()
    doors.admit(A, 10.0)
    doors.report(A, REFUSED, 10.0, 30.0)
    assert doors.admit(B, 11.0) == 40.0
    assert doors.admit(B, 40.0) == 40.0
    assert doors.admit(A, 40.0) > 40.0
    assert doors.admit(C, 41.0) > 41.0
    assert doors.report(B, ISSUED, 42.0) == {"dnb/a", "dnb/c"}
    assert doors.admit(A, 42.0) == 42.0


def test_refusals_are_counted_for_the_client_and_forgotten_when_it_works() -> None:
    doors = proven()
    for count, name in enumerate((A, B, A), start=1):
        now = 1000.0 * count
        assert doors.admit(name, now) == now
        doors.report(name, REFUSED, now, 30.0)
        assert doors.refusals(C) == count
    doors.admit(C, 9000.0)
    doors.report(C, ISSUED, 9000.0)
    assert doors.refusals(A) == 0


def test_another_client_has_another_door() -> None:
    doors = proven()
    other = target("x", replace(CLIENT, name="other"))
    doors.report(A, REFUSED, 10.0, 30.0)
    assert doors.admit(other, 11.0) == 11.0


def test_a_last_chance_goes_before_the_wait_is_over_but_never_a_fifth_time_in_two_minutes() -> None:
    doors = proven()
    doors.admit(A, 100.0)
    doors.report(A, REFUSED, 100.0, 3600.0)
    assert doors.admit(A, 101.0, remaining=15.1) == 3700.0
    for now in (101.0, 102.0, 103.0):
        assert doors.admit(A, now, remaining=15.0) == now
        doors.report(A, REFUSED, now, 3600.0)
    assert doors.admit(A, 104.0, remaining=12.0) == 220.0
    assert doors.admit(A, 220.0, remaining=1.0) == 220.0


def test_a_provider_that_fails_for_several_is_probed_by_one_until_it_answers() -> None:
    doors = proven()
    for each in (A, B, C):
        assert doors.admit(each, 10.0) == 10.0
    for each in (A, B, C):
        doors.report(each, DOWN, 12.0, 5.0)
    assert doors.admit(A, 13.0) == 17.0
    assert doors.admit(A, 17.0) == 17.0
    assert doors.admit(B, 17.0) > 17.0
    assert doors.admit(C, 17.0) > 17.0
    assert doors.report(A, DOWN, 18.0, 60.0) == set()
    assert doors.admit(B, 18.5) == 78.0
    assert doors.admit(B, 78.0) == 78.0  # whoever comes first then
    assert doors.report(B, REFUSED, 79.0, 30.0) == {"dnb/c"}  # any answer is an answer


def test_one_target_that_fails_holds_no_other_up() -> None:
    doors = proven()
    doors.report(A, DOWN, 10.0, 60.0)
    assert doors.admit(B, 11.0) == 11.0
    assert doors.admit(A, 11.0) == 11.0


def test_one_that_did_not_fail_yet_may_try_at_a_provider_that_is_down() -> None:
    doors = proven()
    doors.report(A, DOWN, 10.0, 60.0)
    doors.report(B, DOWN, 10.0, 60.0)
    assert doors.admit(C, 11.0) == 11.0


def test_another_provider_has_another_door() -> None:
    doors = proven()
    elsewhere = replace(CLIENT, name="x", provider=replace(PROVIDER, token_url="https://other.example.com/"))
    doors.report(A, DOWN, 10.0, 60.0)
    doors.report(B, DOWN, 10.0, 60.0)
    doors.report(target("a", elsewhere), DOWN, 10.0, 60.0)
    assert doors.admit(target("a", elsewhere), 11.0) == 11.0


@pytest.mark.parametrize("outcome", [None, Unsent("no secret")], ids=["broke off", "no secret"])
def test_a_grant_that_was_never_sent_leaves_no_door_shut(outcome: Unsent | None) -> None:
    doors = Doors()
    doors.admit(A, 10.0)
    doors.report(A, outcome, 10.0)
    assert doors.admit(B, 10.0) == 10.0


def test_a_grant_that_was_never_sent_does_not_show_that_a_provider_is_well_again() -> None:
    doors = proven()
    doors.report(A, DOWN, 10.0, 60.0)
    doors.report(B, DOWN, 10.0, 60.0)
    doors.report(C, Unsent("no secret"), 11.0, 10.0)
    assert doors.admit(A, 12.0) == 70.0


def test_at_a_provider_that_is_down_the_token_with_least_time_left_sets_the_pace() -> None:
    doors = proven()
    for each in (A, B, C):
        doors.admit(each, 10.0)
        doors.report(each, DOWN, 12.0, 60.0)
    assert doors.admit(A, 13.0) == 72.0
    assert doors.admit(B, 13.0, remaining=40.0) == 23.0
    assert doors.admit(A, 23.0) == 23.0  # whoever comes first
    assert doors.admit(B, 23.0, remaining=30.0) == 30.5  # and not when the other is believed lost
    doors.report(A, DOWN, 29.0, 60.0)
    assert doors.admit(B, 30.5, remaining=22.5) == pytest.approx(36.125)
    assert doors.admit(B, 36.125, remaining=16.875) == 36.125


def test_a_probe_that_is_never_sent_hands_on_to_the_next() -> None:
    doors = proven()
    for each in (A, B):
        doors.admit(each, 10.0)
        doors.report(each, DOWN, 10.0, 1.0)
    assert doors.admit(A, 12.0) == 12.0
    assert doors.admit(B, 12.0) > 12.0
    assert doors.report(A, Unsent("no secret"), 12.0, 10.0) == {"dnb/b"}


def test_a_grant_that_was_never_sent_costs_nothing_of_the_limit() -> None:
    limited = replace(CLIENT, budgets=(("client dnb", RateLimit(1, 60.0)),))
    doors, a, b = Doors(), target("a", limited), target("b", limited)
    for now in (10.0, 20.0, 30.0):
        assert doors.admit(a, now) == now
        doors.report(a, Unsent("no secret"), now)
    assert doors.admit(b, 31.0) == 31.0
    doors.report(b, ISSUED, 31.0)
    assert doors.admit(a, 40.0) == 91.0


def test_promises_that_were_not_kept_are_no_right_to_go_all_at_once() -> None:
    limited = replace(CLIENT, budgets=(("client dnb", RateLimit(1, 60.0)),))
    doors, targets = Doors(), [target(name, limited) for name in "abcd"]
    doors.admit(targets[0], 10.0)
    doors.report(targets[0], ISSUED, 10.0)
    assert [doors.admit(each, 11.0) for each in targets[1:]] == [70.0, 130.0, 190.0]
    went = []
    for each in targets[1:]:  # an hour later
        if doors.admit(each, 3600.0) == 3600.0:
            doors.report(each, ISSUED, 3600.0)
            went.append(each.name)
    assert went == ["b"]
    assert doors.admit(targets[2], 3600.0) == 3660.0


def test_a_rate_limit_gives_each_a_moment_of_its_own_and_keeps_it() -> None:
    limited = replace(CLIENT, budgets=(("provider sandbox", RateLimit(2, 10.0)),))
    doors, targets = proven(), [target(name, limited) for name in "abcde"]
    assert [doors.admit(each, 60.0) for each in targets] == [60.0, 60.0, 70.0, 70.0, 80.0]
    assert doors.admit(targets[2], 65.0) == 70.0  # asked again too early: the same moment
    assert doors.admit(targets[2], 70.0) == 70.0


def test_a_clients_own_limit_counts_beside_its_providers() -> None:
    limited = replace(CLIENT, budgets=(("provider p", RateLimit(10, 1.0)), ("client c", RateLimit(1, 60.0))))
    doors = proven()
    assert doors.admit(target("a", limited), 60.0) == 60.0
    assert doors.admit(target("b", limited), 60.0) == 120.0
