"""Times in sentences."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from bearerd.timeformat import after, spoken

NOW = datetime(2026, 11, 28, 14, 21, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("good until 2026-11-28T14:32:00Z", "good for 11 min (until 14:32)"),
        ("good until 2026-11-28T14:21:40Z", "good for 40 s (until 14:21:40)"),
        ("good until 2026-11-28T14:20:00Z", "good until 14:20:00"),
        ("good until 2026-11-29T16:32:00Z", "good for 1 d 2 h (until 29 Nov 16:32)"),
        ("next attempt at 2026-11-28T14:51:00Z", "next attempt in 30 min (at 14:51)"),
        ("next attempt at 2026-11-28T14:20:59Z", "next attempt now"),
        ("expired at 2026-11-28T14:01:00Z, and", "expired 20 min ago (at 14:01), and"),
        ("published at 2026-11-28T14:22:00Z", "published in 60 s (at 14:22:00)"),
        ("2 attempts since 2026-11-28T13:30:00Z", "2 attempts since 13:30"),
        ("the config of 2026-11-28T13:30:00Z", "the config of 13:30"),
        ("the clock says 2026-11-28T13:30:00Z", "the clock says 2026-11-28T13:30:00Z"),
        ("until 2026-99-28T14:32:00Z", "until 2026-99-28T14:32:00Z"),
    ],
)
def test_a_time_in_a_sentence_becomes_a_duration_and_a_local_time(text: str, said: str) -> None:
    assert spoken(text, NOW, UTC) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(-3.0, "now"), (0.0, "now"), (0.4, "now"), (0.999, "in 1 s"), (29.99, "in 30 s"), (119.9, "in 2 min")],
)
def test_a_wait_is_in_whole_seconds(seconds: float, said: str) -> None:
    assert after(seconds) == said


def test_times_are_in_the_given_zone() -> None:
    india = timezone(timedelta(hours=5, minutes=30))
    assert spoken("until 2026-11-28T14:32:00Z", NOW, india) == "for 11 min (until 20:02)"


@pytest.mark.parametrize(("text", "hours"), [("until 9999-12-31T23:59:59Z", 14), ("at 0001-01-01T00:00:00Z", -12)])
def test_a_time_that_a_zone_cannot_express_stays_as_it_is(text: str, hours: int) -> None:
    assert spoken(text, NOW, timezone(timedelta(hours=hours))) == text
