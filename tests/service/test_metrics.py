"""Metrics as a scraper reads them, of statuses made by hand."""

from __future__ import annotations

import re
from dataclasses import replace
from math import inf
from typing import Any, Literal, get_args

import pytest
from prometheus_client.parser import text_string_to_metric_families

from bearerd.admission.types import ProviderView, View
from bearerd.api.counts import BUCKETS, Counters, Counts, Event
from bearerd.api.metrics import expose
from bearerd.api.status import HookStatus, State, Status
from bearerd.grant.outcome import KINDS, Issued, Malformed, Performed, RateLimited, Refused, Transient, Unsent
from bearerd.model import Config, Target
from bearerd.target_status import TargetStatus
from bearerd.terms import Hook, Instant
from support.clock import START
from support.prometheus import eventful, names, needs_promtool, promtool, share, status, target_status
from support.targets import CLIENT, PROVIDER, TARGET, target, token

NOW = START.boot
UNIX = START.wall
DOWN = Transient("down")


def text(of: Status) -> str:
    return b"".join(expose(of)).decode()


def series(of: Status, name: str) -> dict[tuple[str, ...], float]:
    """The values of one name, by the values of its labels in the order of the labels' names."""
    samples = [sample for family in text_string_to_metric_families(text(of)) for sample in family.samples]
    return {
        tuple(value for _, value in sorted(sample.labels.items())): sample.value
        for sample in samples
        if sample.name == name
    }


def value(of: Status, name: str) -> float:
    """Of a name that has one series."""
    (only,) = series(of, name).values()
    return only


# -- the daemon --------------------------------------------------------------------------------------


def test_the_version_is_a_label() -> None:
    assert series(status(), "bearerd_build_info") == {("1.2.3",): 1}


def test_start_and_config_times_are_unix_times_and_not_in_the_future() -> None:
    one = status(started=NOW - 100.25, loaded=NOW - 49.75)
    assert value(one, "bearerd_start_time_seconds") == UNIX - 101
    assert value(one, "bearerd_config_last_reload_success_timestamp_seconds") == UNIX - 50


@pytest.mark.parametrize(("error", "good"), [(None, 1), ("config.yaml:3:5: unknown key", 0)])
def test_the_metric_for_the_newest_config(error: str | None, good: int) -> None:
    assert value(status(config_error=error), "bearerd_config_last_reload_successful") == good


@pytest.mark.parametrize("alive", [True, False])
def test_the_metric_for_the_scheduler(alive: bool) -> None:
    assert value(status(alive=alive), "bearerd_schedule_alive") == alive


@pytest.mark.parametrize(
    ("what", "name", "outcomes"),
    [
        ("files", "bearerd_file_writes_total", ("failure", "success")),
        ("hooks", "bearerd_hook_runs_total", ("failure", "success")),
        ("reloads", "bearerd_config_reloads_total", ("failure", "success")),
    ],
)
def test_event_counters_start_at_zero(what: Event, name: str, outcomes: tuple[str, str]) -> None:
    bad, good = outcomes
    assert series(status(), name) == {(bad,): 0, (good,): 0}
    others: list[Event] = [other for other in get_args(Event) if other != what]
    counts = Counts(events={(what, good): 7, (what, bad): 2} | {(other, "else"): 9 for other in others})
    assert series(status(counts=counts), name) == {(bad,): 2, (good,): 7}


# -- tokens ------------------------------------------------------------------------------------------

AFTER = NOW + 0.001
STATES: list[tuple[State, TargetStatus]] = [
    ("starting", target_status(expires=None, obtained=None, on_disk=False, next_refresh=0.0, due=0.0)),
    ("missing", target_status(expires=None, obtained=None, on_disk=False, failure=DOWN)),
    ("valid", target_status(expires=AFTER)),
    ("failing", target_status(expires=AFTER, failure=DOWN)),
    ("unwritten", target_status(expires=AFTER, on_disk=False)),
    ("unwritten", target_status(expires=AFTER, on_disk=False, failure=DOWN)),
    ("expired", target_status(expires=NOW)),
    ("expired", target_status(expires=NOW - 1, on_disk=False, failure=DOWN)),
]


@pytest.mark.parametrize(("state", "one"), STATES)
def test_only_the_present_state_is_a_series(state: State, one: TargetStatus) -> None:
    failure = "transient" if one.failure else ""
    found = series(status(one), "bearerd_token_state")
    assert found == {(failure, "dnb/bci", "sandbox", "true", state): 1}


def test_the_cases_cover_every_state_and_the_help_names_it() -> None:
    assert {state for state, _ in STATES} == set(get_args(State))
    (line,) = [
        line for line in text(status(target_status())).splitlines() if line.startswith("# HELP bearerd_token_state ")
    ]
    assert all(state in line for state in get_args(State))


@pytest.mark.parametrize("failure", [kind("no") for kind in (Unsent, Transient, RateLimited, Refused, Malformed)])
def test_the_state_metric_has_the_kind_of_the_last_failure(
    failure: Unsent | Transient | RateLimited | Refused | Malformed,
) -> None:
    found = series(status(target_status(failure=failure)), "bearerd_token_state")
    assert found == {(KINDS[type(failure)], "dnb/bci", "sandbox", "true", "failing"): 1}


def test_the_state_metric_has_provider_and_required() -> None:
    other = target("x", client=replace(CLIENT, name="c", provider=replace(PROVIDER, name="sso")), required=False)
    assert list(series(status(target_status(target=other)), "bearerd_token_state")) == [
        ("", "c/x", "sso", "false", "valid")
    ]


def test_times_are_unix_times_by_the_current_clock() -> None:
    one = target_status(obtained=NOW - 1200.5, expires=NOW + 2399.5, due=NOW + 1500, next_refresh=NOW + 1600)
    expected = {
        "bearerd_token_obtained_timestamp_seconds": -1201,
        "bearerd_token_expiration_timestamp_seconds": 2399,
        "bearerd_token_refresh_due_timestamp_seconds": 1500,
        "bearerd_token_next_refresh_timestamp_seconds": 1600,
    }
    for step in (0, 3600):  # a step of the wall clock
        now = Instant(UNIX + step, NOW)
        for name, offset in expected.items():
            assert series(status(one, now=now), name) == {("dnb/bci",): UNIX + step + offset}


def test_a_token_that_was_never_obtained_has_no_times() -> None:
    never = target_status(obtained=None, expires=None, next_refresh=0.0, due=0.0)
    for moment in ("obtained", "expiration", "refresh_due", "next_refresh"):
        assert series(status(never), f"bearerd_token_{moment}_timestamp_seconds") == {}


@pytest.mark.parametrize(
    ("due", "failing_since", "expected"),
    [
        (NOW + 900, None, 900),
        (NOW - 30, None, -30),  # held by admission
        (NOW + 45, NOW - 200, -200),  # an attempt failed: `due` is that of the next
        (NOW - 300, NOW - 200, -300),
    ],
)
def test_the_refresh_stays_due_from_the_first_attempt_that_failed(
    due: float, failing_since: float | None, expected: float
) -> None:
    one = target_status(due=due, failing_since=failing_since, failure=DOWN if failing_since else None)
    assert value(status(one), "bearerd_token_refresh_due_timestamp_seconds") == UNIX + expected


@pytest.mark.parametrize(
    ("changes", "due"),
    [
        pytest.param({}, UNIX + 200, id="requested by another daemon"),
        pytest.param({"failure": DOWN, "failing_since": NOW - 90}, UNIX - 100, id="after a failure"),
        pytest.param({"held_by": "share_unavailable"}, UNIX - 100, id="without the share"),
        pytest.param({"held_until": inf}, UNIX - 100, id="until an event"),
    ],
)
def test_a_refresh_is_not_due_while_another_daemon_of_the_fleet_makes_it(changes: dict[str, Any], due: int) -> None:
    given: dict[str, Any] = {"held_by": "share", "held_until": NOW + 200, "due": NOW - 100, "next_refresh": NOW + 200}
    one = target_status(**(given | changes))
    assert value(status(one), "bearerd_token_refresh_due_timestamp_seconds") == due


def test_grants_of_a_token_are_counted_by_outcome() -> None:
    outcomes = tuple({"issued": 24, "refused": 1}.get(kind, 0) for kind in KINDS.values())
    found = series(status(target_status(outcomes=outcomes)), "bearerd_token_grants_total")
    assert found == {("dnb/bci", "issued"): 24, ("dnb/bci", "refused"): 1}


HOOKS = (Hook(argv=("true",)),)


@pytest.mark.parametrize("some", [target("risk", on_change=HOOKS), target("risk", on_failure=HOOKS)])
def test_only_tokens_with_hooks_have_hook_metrics(some: Target) -> None:
    failed = status(target_status(), (target_status(target=some), HookStatus(ended=NOW, error="exit 1")))
    assert series(failed, "bearerd_token_hooks_owed") == {("dnb/risk",): 0}
    assert series(failed, "bearerd_token_hook_failing") == {("dnb/risk",): 1}
    waiting = status((target_status(target=some), HookStatus(owed=2, ended=NOW)))
    assert series(waiting, "bearerd_token_hooks_owed") == {("dnb/risk",): 2}
    assert series(waiting, "bearerd_token_hook_failing") == {("dnb/risk",): 0}


def test_a_label_can_contain_any_text() -> None:
    odd = 'a"b\\c\nd{e="f"} é'
    one = target_status(target=target(odd, client=replace(CLIENT, provider=replace(PROVIDER, name=odd))))
    assert list(series(status(one), "bearerd_token_state")) == [("", f"dnb/{odd}", odd, "true", "valid")]


# -- providers ---------------------------------------------------------------------------------------


def test_counters_of_a_provider_start_at_zero() -> None:
    found = series(status(target_status(), target_status("risk")), "bearerd_provider_grants_total")
    assert found == {(kind, "sandbox"): 0 for kind in KINDS.values()}


def test_counts_remain_after_a_token_or_provider_is_removed() -> None:
    counters = Counters()
    for one in (TARGET, target("risk")):
        counters.grant(one, Performed(Issued(token()), took=0.2))
    both, neither = (
        status(target_status(), target_status("risk")),
        status(config=Config("/run/bearerd", "/var/lib/bearerd")),
    )
    for of in (both, status(target_status()), neither):
        now = replace(of, counts=counters.counts())
        assert series(now, "bearerd_provider_grants_total")["issued", "sandbox"] == 2
        assert series(now, "bearerd_provider_grant_duration_seconds_count") == {("sandbox",): 2}


def test_durations_are_a_cumulative_histogram_whose_bounds_belong_to_it() -> None:
    counters = Counters()
    for seconds in (0.001, BUCKETS[0], BUCKETS[0] + 0.001, 1.0, BUCKETS[-1], BUCKETS[-1] + 0.001):
        counters.grant(TARGET, Performed(DOWN, took=seconds))
    one = status(target_status(), counts=counters.counts())
    found = series(one, "bearerd_provider_grant_duration_seconds_bucket")
    assert [float(bound) for bound, _ in found] == [*BUCKETS, float("inf")]
    assert list(found.values()) == [2, 3, 3, 3, 3, 4, 4, 4, 5, 6]
    assert value(one, "bearerd_provider_grant_duration_seconds_count") == 6
    assert value(one, "bearerd_provider_grant_duration_seconds_sum") == pytest.approx(21.053)


def test_a_provider_without_requests_has_an_empty_histogram() -> None:
    assert set(series(status(target_status()), "bearerd_provider_grant_duration_seconds_bucket").values()) == {0}


# -- per share ---------------------------------------------------------------------------------------

SHARES = [name for name in names() if name.startswith("bearerd_share_")]


def test_a_share_has_metrics() -> None:
    of = status(target_status(), shares=(share(waiting=2, taken=12, stored=4, errors=3),))
    assert {name: series(of, name) for name in SHARES} == {
        "bearerd_share_up": {(share().name,): 1},
        "bearerd_share_waiting_tokens": {(share().name,): 2},
        "bearerd_share_tokens_taken_total": {(share().name,): 12},
        "bearerd_share_tokens_stored_total": {(share().name,): 4},
        "bearerd_share_errors_total": {(share().name,): 3},
    }


@pytest.mark.parametrize("state", ["starting", "down"])
def test_a_share_is_up_only_once_it_is_connected(state: Literal["starting", "down"]) -> None:
    assert value(status(shares=(share(state),)), "bearerd_share_up") == 0


def test_shares_with_one_name_are_one_series() -> None:
    of = status(shares=(share(taken=2), share("down", taken=3)))
    assert value(of, "bearerd_share_up") == 0
    assert value(of, "bearerd_share_tokens_taken_total") == 5


def test_targets_that_a_share_holds_are_counted() -> None:
    providers = {PROVIDER.url: ProviderView(0, 8, 10.0, {"refused": 1}, 5.0)}
    # The fleet's rate limit holds two of them, and admission another one.
    reasons = "share", "share_unavailable", "rate_limit", "rate_limit", "refused", ""
    tokens = (target_status(f"t{number}", held_by=reason) for number, reason in enumerate(reasons))
    of = status(*tokens, admission=View({}, providers), shares=(share(),))
    held = series(of, "bearerd_provider_held_tokens")
    assert {reason: count for (_, reason), count in held.items() if count} == {
        "refused": 1,
        "share": 1,
        "share_unavailable": 1,
        "rate_limit": 2,
    }


def test_without_a_share_there_is_no_series_about_one() -> None:
    of = status(target_status(), admission=View({}, {PROVIDER.url: ProviderView(0, 8, 10.0, {}, 0.0)}))
    assert "share" not in re.sub("^#.*$", "", text(of), flags=re.MULTILINE)


# -- the text ----------------------------------------------------------------------------------------


def test_a_daemon_without_tokens_has_metrics_too() -> None:
    assert value(status(), "bearerd_schedule_alive") == 1
    assert "bearerd_token_" not in text(status())


def test_many_tokens_are_rendered_in_small_parts() -> None:
    many = status(*(target_status(f"t{number}") for number in range(1_201)))
    pieces = list(expose(many))
    assert max(map(len, pieces)) < 100_000
    assert all(piece.endswith(b"\n") for piece in pieces)
    for name in ("bearerd_token_state", "bearerd_token_expiration_timestamp_seconds"):
        assert b"".join(pieces).count(b"# HELP %b " % name.encode()) == 1
        assert b"".join(pieces).count(b"# TYPE %b " % name.encode()) == 1
        assert len(series(many, name)) == 1_201


def test_a_removed_token_is_missing_from_the_next_scrape() -> None:
    assert "dnb/risk" in text(status(target_status(), target_status("risk")))
    assert "dnb/risk" not in text(status(target_status()))


def test_names_and_types_follow_prometheus() -> None:
    for family in text_string_to_metric_families(text(eventful())):
        assert family.name.startswith("bearerd_")
        assert family.documentation.endswith(".")
        for sample in family.samples:
            assert sample.name.endswith("_total") == (family.type == "counter")


@needs_promtool
def test_promtool_finds_nothing_wrong() -> None:
    for of in (eventful(), status(*(target_status(f"t{number}") for number in range(1_201)))):
        assert promtool("check", "metrics", given=text(of).encode()) == ""


def test_held_targets_are_counted_by_reason() -> None:
    of = eventful()
    assert series(of, "bearerd_client_breaker_state") == {("dnb", "open"): 1}
    held = series(of, "bearerd_provider_held_tokens")
    assert held["sandbox", "refused"] == 3
    assert sum(held.values()) == 3
    assert value(of, "bearerd_provider_longest_wait_seconds") == 12.0
    assert value(of, "bearerd_provider_retry_budget") == 9.5
