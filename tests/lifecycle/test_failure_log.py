"""Log lines and `on_failure` for failures: outcomes in, lines out."""

from __future__ import annotations

from math import inf

from bearerd.grant.outcome import Malformed, Refused, Transient
from bearerd.lifecycle.failure_log import FailureLog
from bearerd.lifecycle.lines import Line

DOWN = Transient("reset")


def fail(log: FailureLog, now: float, failure: Transient | Malformed | Refused = DOWN, remaining: float = 720) -> Line:
    log.failed(failure, now)
    return log.describe(failure, now, remaining, now + 5)


def test_the_first_failure_is_logged_and_repetitions_only_at_debug() -> None:
    log = FailureLog()
    assert fail(log, 100) == Line("warning", "reset; the current token is good for 12 min; next attempt in 5 s")
    assert fail(log, 105) == Line("debug", "attempt failed: reset")
    assert fail(log, 110, Malformed("HTML")).text.startswith("still failing after 3 attempts in 10 s: HTML; ")


def test_a_failure_without_a_token_is_an_error() -> None:
    line = fail(FailureLog(), 100, remaining=0)
    assert line == Line("error", "reset; there is no valid token; next attempt in 5 s")


def test_a_refusal_after_one_that_announced_another_secret_is_logged() -> None:
    log = FailureLog()
    fail(log, 100, Refused("401", another_secret=True))
    assert fail(log, 101, Refused("401")).level == "warning"
    assert fail(log, 131, Refused("401")).level == "debug"


def test_a_failure_is_logged_again_every_ten_minutes() -> None:
    log = FailureLog()
    assert log.next_line() is None
    fail(log, 100)
    assert log.next_line() == 700
    assert log.still_failing(699, 60, 3600) is None
    line = log.still_failing(700, 0, 3600)
    assert line is not None
    assert line == Line(
        "error", "still failing after 1 attempt in 10 min: reset; there is no valid token; next attempt in 48 min"
    )
    assert log.next_line() == 1300


def test_a_next_attempt_that_depends_on_an_outcome_is_told_as_that() -> None:
    log = FailureLog()
    fail(log, 100)
    line = log.still_failing(700, 0, inf)
    assert line is not None
    assert line.text.endswith("next attempt when a request in flight has ended")


def test_a_recovery_is_logged_with_the_count_of_all_failures() -> None:
    log = FailureLog()
    assert log.succeeded(50) is None
    fail(log, 100)
    fail(log, 200)
    log.forgive()
    assert log.count(DOWN) == 0
    fail(log, 300)
    assert log.succeeded(400) == Line("info", "recovered after 3 failed attempts in 5 min")
    assert (log.failure, log.since, log.moments, log.attempts) == (None, None, (), 0)


def test_the_times_of_the_last_twenty_failures_are_kept() -> None:
    log = FailureLog()
    for moment in range(30):
        fail(log, float(moment))
    assert log.moments == tuple(float(moment) for moment in range(10, 30))
    assert log.attempts == 30


def test_an_expiry_is_logged_once_until_there_is_a_valid_token() -> None:
    log = FailureLog()
    line = log.expired("HTTP 503", 90, removed=False)
    assert line is not None
    assert line.level == "error"
    assert line.text == (
        "the token has expired and could not be refreshed: HTTP 503; its files still contain the expired one; "
        "next attempt in 90 s"
    )
    assert log.expired("HTTP 503", 90, removed=False) is None
    log.renewed()
    line = log.expired("", inf, removed=True)
    assert line is not None
    assert line.text.endswith("refreshed; its files are removed; next attempt when a request in flight has ended")


def test_on_failure_runs_once_per_lasting_failure() -> None:
    log = FailureLog()
    assert not log.is_lost(None, 0, 100, 720, expired=False)
    assert log.is_lost(None, 0, 100, 0, expired=True)
    assert not log.is_lost(None, 0, 101, 0, expired=True)
    log.succeeded(200)
    fail(log, 300, Malformed("HTML"), remaining=0)
    assert log.is_lost(Malformed("HTML"), 1, 300, 0, expired=False)
