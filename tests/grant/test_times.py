from __future__ import annotations

import math
from email.utils import formatdate

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bearerd.grant.times import FOLLOWED, clock_skew, followed, limit_reset, retry_after

NOW = 1_800_000_000.0
NAMES = ("date", "age", "retry-after", "x-ratelimit-reset")
FIELDS = st.text(max_size=40) | st.text(alphabet="0123456789 :+-JanFriGMT,", max_size=60)


def date(offset: float) -> str:
    return formatdate(NOW + offset, usegmt=True)


LONG_AFTER = "Fri, 31 Dec 9999 23:59:59 GMT"
LONG_BEFORE = "Mon, 01 Jan 0001 00:00:00 GMT"


@pytest.mark.parametrize(
    ("skew", "part"),
    [(None, 0.0), (0.0, 0.0), (3600.0, 3600.0), (3601.0, 3600.0), (-2.5, -2.5), (-1e12, -3600.0), (1e300, 3600.0)],
)
def test_at_most_an_hour_of_skew_counts(skew: float | None, part: float) -> None:
    assert followed(skew) == part


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        pytest.param({"date": date(3000), "retry-after": date(3120)}, 120.0, id="within-an-hour"),
        pytest.param({"date": date(-3000), "retry-after": date(-2880)}, 120.0, id="within-an-hour-behind"),
        # Beyond an hour a clock is not believed.
        pytest.param({"date": date(7200), "retry-after": date(7320)}, 3720.0, id="beyond"),
        pytest.param({"date": LONG_AFTER, "retry-after": date(7200)}, 3600.0, id="year-9999"),
        pytest.param({"date": LONG_BEFORE, "retry-after": date(60)}, 3660.0, id="year-1"),
        pytest.param({"date": date(600), "x-ratelimit-reset": f"{NOW + 645:.0f}"}, 45.0, id="reset"),
        pytest.param({"date": date(600), "x-ratelimit-reset": f"{NOW + 500:.0f}"}, None, id="reset-past-by-its-clock"),
        pytest.param({"date": LONG_BEFORE, "x-ratelimit-reset": f"{NOW:.0f}"}, 3600.0, id="reset-in-year-1"),
        pytest.param({"date": date(600), "x-ratelimit-reset": "45"}, 45.0, id="reset-in-seconds"),
    ],
)
def test_a_moment_in_retry_after_counts_by_the_providers_clock(headers: dict[str, str], seconds: float | None) -> None:
    assert (limit_reset if "x-ratelimit-reset" in headers else retry_after)(headers, NOW) == seconds


@given(st.dictionaries(st.sampled_from(NAMES), FIELDS))
@example({"date": "Fri, 31 Dec 9999 23:59:59 -2359", "retry-after": "Mon, 01 Jan 0001 00:00:00 +2359"})
@example({"date": f"Fri, 15 Jan {'9' * 60_000} 08:00:00 GMT", "age": "9" * 60_000})
@example({"date": f"Fri, 15 Jan 2027 08:00:00 +{'9' * 4000}", "retry-after": "9" * 60_000})
@example({"x-ratelimit-reset": f"1.{'9' * 60_000}"})
def test_no_header_raises_or_leads_to_infinity(headers: dict[str, str]) -> None:
    skew = clock_skew(headers, NOW)

    assert skew is None or math.isfinite(skew)
    assert abs(followed(skew)) <= FOLLOWED
    for wait in (retry_after(headers, NOW), limit_reset(headers, NOW)):
        assert wait is None or 0 <= wait < 1e13
