from __future__ import annotations

import pytest

from soak.__main__ import most_within


@pytest.mark.parametrize(
    ("times", "most"),
    [
        ([], 0),
        ([5.0], 1),
        ([0.0, 4.0, 8.0, 12.0, 16.0], 3),
        ([0.0, 1.0, 2.0, 3.0, 20.0, 21.0], 4),
        ([0.0, 20.0, 21.0, 22.0, 22.5], 4),
        ([0.0, 10.1, 20.2], 1),
    ],
)
def test_the_provider_counts_requests_in_every_window_of_ten_seconds(times: list[float], most: int) -> None:
    assert most_within(times, 10.0) == most
