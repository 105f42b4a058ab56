from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from bearerd.grant.outcome import Issued, Malformed, Outcome, RateLimited, Refused, Transient, Unsent
from bearerd.lifecycle.doors import Admission, Doors, Kind
from bearerd.model import Client, RateLimit
from support.targets import CLIENT, PROVIDER, target, token

A, B, C = target("a"), target("b"), target("c")
ISSUED = Issued(token())
REFUSED = Refused("401")
ANOTHER = Refused("401", another_secret=True)
DOWN = Transient("503")
NO_SECRET = Unsent("file /s: empty", phase="secret")


def limited(count: int, window: float, **changes: Any) -> Client:
    """A client with a limit of its own."""
    return replace(CLIENT, budgets=(("client-dnb", RateLimit(count, window)),), **changes)


def proven() -> Doors:
    """The client had a token a second ago."""
    doors = Doors()
    doors.admit(A, 9.0)
    doors.report(A, ISSUED, 9.0)
    return doors


def test_a_client_that_had_a_token_lately_lets_all_go_at_once() -> None:
    doors = proven()
    assert [doors.admit(each, 69.0) for each in (A, B, C)] == [Admission(69.0)] * 3


def test_a_client_that_had_none_lately_makes_its_first_grant_alone() -> None:
    # Its secret may have been revoked since; eight refusals at once lock an account.
    doors = proven()
    doors.prove(A)
    assert doors.admit(A, 69.1) == Admission(69.1)
    assert doors.admit(B, 69.1).reason == "asking"
    assert doors.report(A, ISSUED, 70.0) == {"dnb/b"}
    assert [doors.admit(each, 71.0) for each in (B, C)] == [Admission(71.0)] * 2


def test_refusals_of_grants_that_were_under_way_together_are_one_refusal() -> None:
    doors = proven()
    for each in (A, B, C):
        assert doors.admit(each, 10.0) == Admission(10.0)
    for moment, each in enumerate((A, B, C)):
        doors.report(each, REFUSED, 11.0 + moment, 30.0)
    assert doors.refusals(A) == 1
    assert doors.admit(A, 20.0) == Admission(41.0, "refused")  # the first one's wait
    assert doors.admit(B, 41.0) == Admission(41.0)
    assert doors.report(B, ISSUED, 42.0) == {"dnb/a", "dnb/c"}  # none of them waits on


def test_a_client_that_never_had_a_token_makes_its_first_grant_alone() -> None:
    doors, others = Doors(), [target(name) for name in "bcdefg"]
    assert doors.admit(A, 10.0) == Admission(10.0)
    assert [doors.admit(each, 10.0).reason for each in others] == ["asking"] * 6
    assert doors.report(A, ISSUED, 11.0) == {each.full_name for each in others}
    assert [doors.admit(each, 11.0) for each in others] == [Admission(11.0)] * 6


def test_a_first_grant_that_tells_nothing_of_the_client_hands_on_to_the_next() -> None:
    doors = Doors()
    doors.admit(A, 10.0)
    doors.admit(B, 10.0)
    doors.admit(C, 10.0)
    assert doors.report(A, Malformed("HTML"), 11.0, 60.0) == {"dnb/b"}
    assert doors.admit(B, 11.0) == Admission(11.0)
    assert doors.admit(A, 11.0).reason == "asking"
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
    assert doors.admit(B, 11.0) == Admission(40.0, "refused")
    assert doors.admit(B, 40.0) == Admission(40.0)
    assert doors.admit(A, 40.0).reason == "asking"
    assert doors.admit(C, 41.0).reason == "asking"
    assert doors.report(B, ISSUED, 42.0) == {"dnb/a", "dnb/c"}
    assert doors.admit(A, 42.0) == Admission(42.0)


def test_refusals_are_counted_for_the_client_and_forgotten_when_it_works() -> None:
    doors = proven()
    for count, name in enumerate((A, B, A), start=1):
        now = 1000.0 * count
        assert doors.admit(name, now) == Admission(now)
        doors.report(name, REFUSED, now, 30.0)
        assert doors.refusals(C) == count
    doors.admit(C, 9000.0)
    doors.report(C, ISSUED, 9000.0)
    assert doors.refusals(A) == 0


def test_another_client_has_another_door() -> None:
    doors = proven()
    other = target("x", replace(CLIENT, name="other"))
    doors.report(A, REFUSED, 10.0, 30.0)
    assert doors.admit(other, 11.0) == Admission(11.0)


def test_a_last_chance_goes_before_the_wait_is_over_but_never_a_fifth_time_in_two_minutes() -> None:
    doors = proven()
    doors.admit(A, 100.0)
    doors.report(A, REFUSED, 100.0, 3600.0)
    assert doors.admit(A, 101.0, remaining=15.1) == Admission(3700.0, "refused")
    for now in (101.0, 102.0, 103.0):
        assert doors.admit(A, now, remaining=15.0) == Admission(now)
        doors.report(A, REFUSED, now, 3600.0)
    assert doors.admit(A, 104.0, remaining=12.0) == Admission(220.0, "refused")
    assert doors.admit(A, 220.0, remaining=1.0) == Admission(220.0)


def test_a_provider_that_fails_for_several_is_probed_by_one_until_it_answers() -> None:
    doors = proven()
    for each in (A, B, C):
        assert doors.admit(each, 10.0) == Admission(10.0)
    for each in (A, B, C):
        doors.report(each, DOWN, 12.0, 5.0)
    assert doors.admit(A, 13.0) == Admission(17.0, "provider")
    assert doors.admit(A, 17.0) == Admission(17.0)
    assert doors.admit(B, 17.0).reason == "provider"
    assert doors.admit(C, 17.0).reason == "provider"
    assert doors.report(A, DOWN, 18.0, 60.0) == set()
    assert doors.admit(B, 18.5) == Admission(78.0, "provider")
    assert doors.admit(B, 78.0) == Admission(78.0)  # whoever comes first then
    assert doors.report(B, REFUSED, 79.0, 30.0) == {"dnb/c"}  # any answer is an answer


def test_one_target_that_fails_holds_no_other_up() -> None:
    doors = proven()
    doors.report(A, DOWN, 10.0, 60.0)
    assert doors.admit(B, 11.0) == Admission(11.0)
    assert doors.admit(A, 11.0) == Admission(11.0)


def test_one_that_did_not_fail_yet_may_try_at_a_provider_that_is_down() -> None:
    doors = proven()
    doors.report(A, DOWN, 10.0, 60.0)
    doors.report(B, DOWN, 10.0, 60.0)
    assert doors.admit(C, 11.0) == Admission(11.0)


def test_another_provider_has_another_door() -> None:
    doors = proven()
    elsewhere = replace(CLIENT, name="x", provider=replace(PROVIDER, token_url="https://other.example.com/"))
    doors.report(A, DOWN, 10.0, 60.0)
    doors.report(B, DOWN, 10.0, 60.0)
    doors.report(target("a", elsewhere), DOWN, 10.0, 60.0)
    assert doors.admit(target("a", elsewhere), 11.0) == Admission(11.0)


@pytest.mark.parametrize("outcome", [None, NO_SECRET], ids=["broke off", "no secret"])
def test_a_grant_that_was_never_sent_leaves_no_door_shut(outcome: Unsent | None) -> None:
    doors = Doors()
    doors.admit(A, 10.0)
    doors.report(A, outcome, 10.0)
    assert doors.admit(B, 10.0) == Admission(10.0)


def test_a_grant_that_was_never_sent_does_not_show_that_a_provider_is_well_again() -> None:
    doors = proven()
    doors.report(A, DOWN, 10.0, 60.0)
    doors.report(B, DOWN, 10.0, 60.0)
    doors.report(C, NO_SECRET, 11.0, 10.0)
    assert doors.admit(A, 12.0) == Admission(70.0, "provider")


def test_at_a_provider_that_is_down_the_token_with_least_time_left_sets_the_pace() -> None:
    doors = proven()
    for each in (A, B, C):
        doors.admit(each, 10.0)
        doors.report(each, DOWN, 12.0, 60.0)
    assert doors.admit(A, 13.0) == Admission(72.0, "provider")
    assert doors.admit(B, 13.0, remaining=40.0) == Admission(23.0, "provider")
    assert doors.admit(A, 23.0) == Admission(23.0)  # whoever comes first
    assert doors.admit(B, 23.0, remaining=30.0) == Admission(30.5, "provider")  # not when the other is believed lost
    doors.report(A, DOWN, 29.0, 60.0)
    assert doors.admit(B, 30.5, remaining=22.5).until == pytest.approx(36.125)
    assert doors.admit(B, 36.125, remaining=16.875) == Admission(36.125)


def test_a_probe_that_is_never_sent_hands_on_to_the_next() -> None:
    doors = proven()
    for each in (A, B):
        doors.admit(each, 10.0)
        doors.report(each, DOWN, 10.0, 1.0)
    assert doors.admit(A, 12.0) == Admission(12.0)
    assert doors.admit(B, 12.0).reason == "provider"
    assert doors.report(A, NO_SECRET, 12.0, 10.0) == {"dnb/b"}


def test_promises_that_were_not_kept_are_no_right_to_go_all_at_once() -> None:
    doors, targets = Doors(), [target(name, limited(1, 60.0)) for name in "abcd"]
    doors.admit(targets[0], 10.0)
    doors.report(targets[0], ISSUED, 10.0)
    assert [doors.admit(each, 11.0).until for each in targets[1:]] == [70.0, 130.0, 190.0]
    went = []
    for each in targets[1:]:  # an hour later
        if doors.admit(each, 3600.0) == Admission(3600.0):
            doors.report(each, ISSUED, 3600.0)
            went.append(each.name)
    assert went == ["b"]
    assert doors.admit(targets[2], 3600.0) == Admission(3660.0, "rate_limit")


def test_a_rate_limit_gives_each_a_moment_of_its_own_and_keeps_it() -> None:
    doors, targets = proven(), [target(name, limited(2, 10.0)) for name in "abcde"]
    assert [doors.admit(each, 60.0).until for each in targets] == [60.0, 60.0, 70.0, 70.0, 80.0]
    assert doors.admit(targets[2], 65.0) == Admission(70.0, "rate_limit")  # asked again too early: the same moment
    assert doors.admit(targets[2], 70.0) == Admission(70.0)


def test_a_clients_own_limit_counts_beside_its_providers() -> None:
    both = replace(CLIENT, budgets=(("provider-p", RateLimit(10, 1.0)), ("client-c", RateLimit(1, 60.0))))
    doors = proven()
    assert doors.admit(target("a", both), 60.0) == Admission(60.0)
    assert doors.admit(target("b", both), 60.0) == Admission(120.0, "rate_limit")


def test_a_providers_limit_is_one_for_all_its_clients() -> None:
    doors, other = Doors(), replace(limited(1, 60.0), name="other")
    assert doors.admit(target("a", limited(1, 60.0)), 10.0) == Admission(10.0)
    assert doors.admit(target("a", other), 10.0) == Admission(70.0, "rate_limit")


@pytest.mark.parametrize(
    ("outcome", "counts"),
    [
        pytest.param(Unsent("no secret", phase="secret"), False, id="no secret"),
        pytest.param(Unsent("no PyJWT", phase="set-up"), False, id="set-up"),
        pytest.param(Transient("404", phase="discovery"), False, id="discovery"),
        pytest.param(Transient("no such name", phase="name look-up"), False, id="name look-up"),
        pytest.param(Transient("refused", phase="connect"), False, id="connect"),
        pytest.param(Transient("no common cipher", phase="TLS"), False, id="TLS"),
        pytest.param(Transient("reset", phase="send"), True, id="send: some of it may be there"),
        pytest.param(Transient("reset", phase="wait"), True, id="wait"),
        pytest.param(Transient("reset", phase="read"), True, id="read"),
        pytest.param(Transient("503"), True, id="an error"),
        pytest.param(RateLimited("429"), True, id="its own limit"),
        pytest.param(Malformed("HTML"), True, id="malformed"),
        pytest.param(Refused("scope", whole_client=False), True, id="refused"),
        pytest.param(ISSUED, True, id="a token"),
        pytest.param(None, True, id="broke off: nobody knows"),
    ],
)
def test_what_the_token_endpoint_never_saw_costs_nothing_of_the_limit(outcome: Outcome | None, counts: bool) -> None:
    doors, a, b = Doors(), target("a", limited(1, 60.0)), target("b", limited(1, 60.0))
    doors.admit(a, 10.0)
    doors.report(a, outcome, 12.0)
    assert doors.admit(b, 12.0) == (Admission(70.0, "rate_limit") if counts else Admission(12.0))


def test_only_the_grant_that_was_never_sent_is_given_back() -> None:
    doors, a, b = proven(), target("a", limited(2, 60.0)), target("b", limited(2, 60.0))
    doors.admit(a, 20.0)
    doors.admit(b, 30.0)
    doors.report(b, NO_SECRET, 31.0)
    assert doors.admit(b, 32.0) == Admission(32.0)
    assert doors.admit(target("c", limited(2, 60.0)), 33.0) == Admission(80.0, "rate_limit")


# -- who asks for one besides ------------------------------------------------------------------------

HALVES = pytest.mark.parametrize(("count", "half"), [(1, 0), (2, 1), (3, 1), (4, 2), (10, 5), (11, 5)])


@HALVES
def test_who_asks_has_half_of_a_limit(count: int, half: int) -> None:
    doors, client = Doors(), limited(count, 28_800.0)
    asked = [doors.ask(target(f"t{number}", client), 10.0) for number in range(count)]
    assert asked == [10.0] * half + [28_810.0] * (count - half)


@HALVES
def test_when_all_have_asked_half_of_the_limit_is_left_for_renewals_that_are_due(count: int, half: int) -> None:
    doors, client = proven(), limited(count, 28_800.0)
    asking = [target(f"a{number}", client) for number in range(half)]
    assert [doors.ask(each, 60.0) for each in asking] == [60.0] * half
    due = [target(f"d{number}", client) for number in range(count - half)]
    assert [doors.admit(each, 60.0) for each in due] == [Admission(60.0)] * (count - half)
    # And who asked has the rest.
    assert [doors.admit(each, 60.0) for each in asking] == [Admission(60.0)] * half
    assert doors.admit(target("more", client), 60.0) == Admission(28_860.0, "rate_limit")


def test_who_asks_waits_until_renewals_leave_half_of_the_limit() -> None:
    doors, client = proven(), limited(4, 60.0)
    for now, name in ((10.0, "a"), (20.0, "b"), (30.0, "c")):
        doors.admit(target(name, client), now)
    assert doors.ask(target("x", client), 31.0) == 80.0  # when of the last two one is a minute ago
    assert doors.ask(target("x", client), 79.9) == 80.0
    assert doors.ask(target("x", client), 80.0) == 80.0


def test_what_was_promised_to_who_asked_is_used_up_by_the_grant() -> None:
    doors, client = proven(), limited(4, 60.0)
    a, b, c = (target(name, client) for name in "abc")
    for each in (a, b):
        assert doors.ask(each, 10.0) == 10.0
        assert doors.admit(each, 11.0) == Admission(11.0)
        doors.report(each, ISSUED, 12.0)
    assert doors.ask(c, 13.0) == 71.0
    assert doors.ask(c, 71.0) == 71.0


def test_what_was_never_sent_counts_for_nobody() -> None:
    doors, client = proven(), limited(2, 60.0)
    a, b = target("a", client), target("b", client)
    assert doors.ask(a, 10.0) == 10.0
    doors.admit(a, 10.0)
    assert doors.ask(b, 11.0) == 70.0
    doors.report(a, NO_SECRET, 12.0)
    assert doors.ask(b, 12.0) == 12.0


def test_who_asks_again_before_the_grant_counts_once() -> None:
    doors, client = proven(), limited(6, 60.0)
    assert [doors.ask(target("a", client), now) for now in (10.0, 20.0, 30.0)] == [10.0, 20.0, 30.0]
    assert [doors.ask(target(name, client), 30.0) for name in "bcd"] == [30.0, 30.0, 70.0]


def test_of_several_limits_each_has_its_half() -> None:
    doors = Doors()
    client = replace(CLIENT, budgets=(("provider-p", RateLimit(4, 10.0)), ("client-c", RateLimit(2, 60.0))))
    other = replace(
        client, name="other", budgets=(("provider-p", RateLimit(4, 10.0)), ("client-o", RateLimit(2, 60.0)))
    )
    third = replace(client, name="third", budgets=(("provider-p", RateLimit(4, 10.0)),))
    assert doors.ask(target("a", client), 10.0) == 10.0
    assert doors.ask(target("b", client), 10.0) == 70.0  # its client's, and nothing is promised at its provider
    assert doors.ask(target("a", other), 10.0) == 10.0
    assert doors.ask(target("a", third), 10.0) == 20.0  # its provider's
    assert doors.ask(target("b", other), 10.0) == 70.0  # the later of both


def test_without_a_limit_who_asks_may_always_go() -> None:
    doors = Doors()
    assert [doors.ask(A, 10.0) for _ in range(100)] == [10.0] * 100


def test_what_earlier_runs_sent_counts_for_who_asks() -> None:
    doors = Doors()
    doors.restore("budgets", "client-dnb", {"sent": [50.0]}, 0.0, 1000.0)
    assert doors.ask(target("a", limited(2, 60.0)), 1000.0) == 1010.0


def test_who_asks_while_waiting_for_a_promised_moment_keeps_it() -> None:
    doors, client = proven(), limited(4, 60.0)
    for name in "abcd":
        doors.admit(target(name, client), 60.0)
    waiting = target("e", client)
    assert doors.admit(waiting, 60.0) == Admission(120.0, "rate_limit")
    assert doors.ask(waiting, 61.0) == 120.0
    assert doors.admit(waiting, 61.0) == Admission(120.0, "rate_limit")
    assert doors.admit(waiting, 120.0) == Admission(120.0)


# -- several secrets, and no more than four refusals in two minutes --------------------------------


def test_after_a_refusal_another_secret_is_tried_at_once_and_only_the_last_counts() -> None:
    doors = proven()
    doors.admit(A, 70.0)
    assert doors.report(A, ANOTHER, 70.0, 1.0) == set()
    assert (doors.refusals(A), doors.refusal("dnb")) == (0, ANOTHER)
    assert doors.admit(B, 70.5) == Admission(71.0, "refused")
    assert doors.admit(B, 71.0) == Admission(71.0)
    doors.report(B, REFUSED, 71.0, 30.0)
    assert (doors.refusals(A), doors.refusal("dnb")) == (1, REFUSED)
    assert doors.admit(A, 71.5) == Admission(101.0, "refused")


def test_of_a_list_of_five_secrets_the_fifth_waits_two_minutes() -> None:
    doors = proven()
    for now in (100.0, 101.0, 102.0, 103.0):
        assert doors.admit(A, now) == Admission(now)
        doors.report(A, ANOTHER, now, 1.0)
    assert doors.admit(A, 104.0) == Admission(220.0, "refused")
    assert doors.admit(A, 220.0) == Admission(220.0)


def test_a_client_that_works_in_between_is_not_refused_a_fifth_time_in_two_minutes_either() -> None:
    doors = proven()
    for now in (100.0, 105.0, 110.0, 115.0):
        assert doors.admit(A, now) == Admission(now)
        doors.report(A, REFUSED, now, 1.0)
        doors.admit(A, now + 2)
        doors.report(A, ISSUED, now + 2)
    assert doors.refusal("dnb") is None
    assert doors.admit(A, 118.0) == Admission(220.0, "refused")
    assert doors.admit(A, 220.0) == Admission(220.0)


def test_after_a_refusal_those_under_way_count_as_what_they_may_come_to() -> None:
    doors, others = proven(), [target(name) for name in "bcdefghi"]
    doors.admit(A, 70.0)
    doors.report(A, REFUSED, 70.0, 30.0)
    doors.admit(A, 100.0)
    doors.report(A, ISSUED, 100.0)
    assert [doors.admit(each, 101.0).reason for each in others] == ["", "", "", *["asking"] * 5]
    # No more than may go then are woken: thousands may wait.
    assert doors.report(others[0], ISSUED, 102.0) == {"dnb/e", "dnb/f", "dnb/g", "dnb/h"}
    assert [doors.admit(each, 102.0).reason for each in others[3:7]] == ["", "asking", "asking", "asking"]
    assert doors.report(others[1], DOWN, 103.0, 1.0) == {"dnb/f"}
    doors.report(others[2], ISSUED, 189.0)
    assert [doors.admit(each, 189.9).reason for each in others[4:7]] == ["", "", "asking"]
    # Two minutes after the refusal all may go.
    assert [doors.admit(each, 190.0).reason for each in others[6:]] == ["", ""]


def test_a_client_with_another_secret_now_goes_at_once_but_not_a_fifth_time_in_two_minutes() -> None:
    doors = Doors()
    for now in (100.0, 101.0, 102.0, 103.0):
        assert doors.admit(A, now) == Admission(now)
        doors.report(A, REFUSED, now, 300.0)
        assert doors.admit(B, now).reason == "refused"
        assert doors.renew("dnb") == {"dnb/a", "dnb/b"}
        assert (doors.refusals(A), doors.refusal("dnb")) == (0, None)
    assert doors.admit(A, 104.0) == Admission(220.0, "refused")


# -- what outlives a restart -------------------------------------------------------------------------


def after_restart(doors: Doors, now: float, elapsed: float, then: float) -> Doors:
    """New doors that know what was kept, through JSON as it is."""
    restarted = Doors()
    for kind, name, fields in doors.changes(now):
        if fields:
            restarted.restore(kind, name, json.loads(json.dumps(fields)), elapsed, then)
    return restarted


def test_of_clients_that_are_well_and_without_limits_nothing_is_kept() -> None:
    doors = proven()
    doors.admit(A, 100.0)
    doors.report(A, DOWN, 100.0, 10.0)
    assert doors.changes(100.0) == []


def test_of_a_refused_client_is_kept_what_keeps_it_from_being_asked_and_once() -> None:
    doors = proven()
    doors.admit(A, 100.0)
    doors.report(A, Refused("HTTP 401", hint="try this"), 102.0, 300.0)
    fields = {"proven": True, "refusals": 1, "opens_in": 290.0, "attempts": [12.0], "message": "HTTP 401"}
    assert doors.changes(112.0) == [("clients", "dnb", fields | {"hint": "try this"})]
    assert doors.changes(112.0) == []


def test_the_attempts_of_a_client_are_kept_after_it_works_while_they_count_and_then_forgotten() -> None:
    doors = Doors()
    doors.admit(A, 100.0)
    doors.report(A, REFUSED, 100.0, 1.0)
    doors.changes(100.0)
    doors.admit(A, 101.0)
    doors.changes(101.0)
    doors.report(A, ISSUED, 101.0)
    ((_, _, fields),) = doors.changes(101.0)
    assert (fields["message"], fields["attempts"]) == (None, [1.0])
    doors.admit(A, 219.0)
    ((_, _, fields),) = doors.changes(219.0)
    assert (fields["message"], fields["attempts"]) == (None, [119.0, 0.0])  # and this may be refused
    doors.report(A, ISSUED, 220.0)
    assert doors.changes(220.0) == [("clients", "dnb", {})]
    doors.admit(A, 230.0)
    doors.report(A, ISSUED, 230.0)
    assert doors.changes(230.0) == []


def test_attempts_that_count_no_more_are_not_kept() -> None:
    doors = Doors()
    doors.admit(A, 100.0)
    doors.report(A, REFUSED, 100.0, 300.0)
    ((_, _, fields),) = doors.changes(220.0)
    assert (fields["attempts"], fields["opens_in"]) == ([], 180.0)


def test_what_was_kept_of_a_client_that_is_well_is_forgotten_at_its_next_grant() -> None:
    doors = Doors()
    doors.restore("clients", "dnb", KEPT | {"message": None, "attempts": [119.0]}, 1.0, 10.0)
    assert doors.refusal("dnb") is None
    doors.admit(A, 10.0)
    doors.report(A, ISSUED, 11.0)
    assert doors.changes(11.0) == [("clients", "dnb", {})]


def test_a_probe_is_known_before_its_answer() -> None:
    doors = Doors()
    doors.admit(A, 100.0)
    doors.report(A, REFUSED, 100.0, 30.0)
    doors.changes(100.0)
    doors.admit(A, 130.0)
    ((_, _, fields),) = doors.changes(130.0)
    assert fields["attempts"] == [30.0, 0.0]


def test_a_refused_client_waits_on_after_a_restart_and_is_known_as_it_was() -> None:
    doors = proven()
    for now in (100.0, 200.0):
        doors.admit(A, now)
        doors.report(A, Refused("HTTP 401", hint="try this"), now, 90.0)
    restarted = after_restart(doors, 210.0, elapsed=50.0, then=5.0)
    assert restarted.refusal("dnb") == Refused("HTTP 401", hint="try this")
    assert (restarted.proven(B), restarted.refusals(B)) == (True, 2)
    assert restarted.admit(B, 5.0) == Admission(35.0, "refused")
    assert restarted.admit(B, 35.0) == Admission(35.0)
    assert restarted.admit(A, 35.0).reason == "asking"
    assert restarted.report(B, ISSUED, 36.0) == {"dnb/a"}


@pytest.mark.parametrize(
    ("elapsed", "until"),
    [
        pytest.param(0.0, Admission(121.0, "refused"), id="at once"),
        pytest.param(115.9, Admission(5.1, "refused"), id="just under two minutes after the first"),
        pytest.param(116.0, Admission(5.0), id="two minutes after the first"),
    ],
)
def test_a_restart_does_not_make_five_refusals_in_two_minutes(elapsed: float, until: Admission) -> None:
    doors = Doors()
    for now in (100.0, 101.0, 102.0, 103.0):
        doors.admit(A, now)
        doors.report(A, ANOTHER, now, 1.0)
    restarted = after_restart(doors, 104.0, elapsed, then=5.0)
    restarted.renew("dnb")
    admission = restarted.admit(A, 5.0)
    assert replace(admission, until=round(admission.until, 6)) == until


def test_a_refused_client_that_had_not_had_its_chance_has_it_after_a_restart() -> None:
    doors = proven()
    doors.admit(A, 100.0)
    doors.report(A, REFUSED, 100.0, 3600.0)
    restarted = after_restart(doors, 100.0, elapsed=1.0, then=5.0)
    assert restarted.admit(A, 5.0, remaining=15.0) == Admission(5.0)


def test_what_a_limit_allowed_is_known_after_a_restart_also_of_a_grant_without_an_answer() -> None:
    doors, subject = Doors(), target("a", limited(3, 28_800.0))
    doors.admit(subject, 100.0)
    doors.report(subject, ISSUED, 101.0)
    doors.admit(subject, 200.0)
    restarted = after_restart(doors, 200.0, elapsed=600.0, then=5.0)
    assert restarted.admit(subject, 5.0) == Admission(5.0)
    again = after_restart(restarted, 5.0, elapsed=0.0, then=5.0)
    held = Admission(5.0 + 28_800.0 - 700.0, "rate_limit")
    assert restarted.report(subject, ISSUED, 5.0) == set()
    assert restarted.admit(subject, 5.0) == again.admit(subject, 5.0) == held


def test_what_was_given_back_is_kept_so() -> None:
    doors, subject = Doors(), target("a", limited(1, 60.0))
    doors.admit(subject, 100.0)
    assert doors.changes(100.0) == [("budgets", "client-dnb", {"sent": [0.0]})]
    doors.report(subject, NO_SECRET, 100.0)
    assert doors.changes(100.0) == [("budgets", "client-dnb", {"sent": []})]


@pytest.mark.parametrize(
    ("window", "kept"), [(59.9, []), (60.0, [("budgets", "client-dnb", {"sent": [5.0]})])], ids=["59.9 s", "60 s"]
)
def test_a_limit_whose_window_is_over_when_a_restart_is_needs_no_keeping(window: float, kept: object) -> None:
    doors = Doors()
    doors.admit(target("a", limited(1, window)), 100.0)
    assert doors.changes(105.0) == kept


def test_grants_older_than_the_window_are_not_kept() -> None:
    doors, subject = Doors(), target("a", limited(2, 60.0))
    for now in (100.0, 159.0):
        doors.admit(subject, now)
        doors.report(subject, ISSUED, now)
    assert doors.changes(160.0) == [("budgets", "client-dnb", {"sent": [1.0]})]


KEPT = {"proven": False, "refusals": 1, "opens_in": 300.0, "attempts": [], "message": "HTTP 401", "hint": None}


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        *(pytest.param("clients", {k: v for k, v in KEPT.items() if k != key}, id=f"no {key}") for key in KEPT),
        pytest.param("clients", KEPT | {"refusals": float("inf")}, id="endless refusals"),
        pytest.param("clients", KEPT | {"refusals": "many"}, id="refusals in words"),
        pytest.param("clients", KEPT | {"opens_in": None}, id="opens at no time"),
        pytest.param("clients", KEPT | {"opens_in": 10**400}, id="a number that is no float"),
        pytest.param("clients", KEPT | {"attempts": ["now"]}, id="attempts in words"),
        pytest.param("clients", KEPT | {"attempts": 4}, id="attempts as a number"),
        pytest.param("budgets", {}, id="no sent"),
        pytest.param("budgets", {"sent": [1.0, [2.0]]}, id="sent in lists"),
        pytest.param("budgets", {"sent": [10**400]}, id="an age that is no float"),
    ],
)
def test_what_makes_no_sense_is_an_error_and_changes_nothing(kind: Kind, fields: dict[str, Any]) -> None:
    doors, subject = Doors(), target("a", limited(1, 60.0))
    with pytest.raises((ValueError, TypeError, KeyError, OverflowError)):
        doors.restore(kind, "dnb" if kind == "clients" else "client-dnb", fields, 0.0, 10.0)
    assert doors.admit(subject, 10.0) == Admission(10.0)


@pytest.mark.parametrize("elapsed", [0.0, 1e9, float("inf")], ids=["at once", "years", "for ever"])
@pytest.mark.parametrize(
    "number", [-1e300, float("-inf"), float("inf"), float("nan"), 1e300], ids=["-1e300", "-inf", "inf", "nan", "1e300"]
)
def test_whatever_numbers_were_kept_nobody_waits_longer_than_anybody_ever_does(number: float, elapsed: float) -> None:
    doors, subject = Doors(), target("a", limited(1, 60.0))
    fields = KEPT | {"opens_in": number, "attempts": [number] * 9}
    doors.restore("clients", "dnb", fields, elapsed, 10.0)
    assert doors.admit(A, 10.0).until <= 10.0 + 3600.0
    assert doors.admit(A, 3610.0) == Admission(3610.0)
    doors.report(A, ISSUED, 3611.0)
    doors.restore("budgets", "client-dnb", {"sent": [number] * 9}, elapsed, 10_000.0)
    assert doors.admit(subject, 10_000.0).until <= 10_060.0
    assert doors.admit(subject, 10_060.0) == Admission(10_060.0)


def test_the_longest_wait_counts_from_when_it_was_kept() -> None:
    doors = Doors()
    doors.restore("clients", "dnb", KEPT | {"opens_in": 1e300}, 1800.0, 10.0)
    assert doors.admit(A, 10.0) == Admission(1810.0, "refused")


def test_a_number_of_refusals_below_none_is_none() -> None:
    doors = Doors()
    doors.restore("clients", "dnb", KEPT | {"refusals": -5}, 0.0, 10.0)
    assert doors.refusals(A) == 0
