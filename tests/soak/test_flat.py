from __future__ import annotations

import random

import pytest

from soak.flat import growth
from soak.samples import ALLOWED

PER_SECOND = 60
"""Refreshes of the rig."""


def resident(seed: int, each: float, seconds: int = 1200) -> list[float]:
    """MB of a daemon under faults, sampled each second, that keeps so many bytes more for each refresh."""
    dice = random.Random(seed)
    bursts = [dice.randrange(seconds) for _ in range(max(1, seconds // 40))]
    return [
        50 + dice.gauss(0, 0.3) + PER_SECOND * each / 1e6 * second + 15 * any(0 <= second - at < 4 for at in bursts)
        for second in range(seconds)
    ]


def blocks(seed: int, each: float, seconds: int = 1200) -> list[float]:
    """Live blocks of the daemon: what is under way comes and goes."""
    dice = random.Random(seed)
    return [240_000 + dice.gauss(0, 2000) + PER_SECOND * each * second for second in range(seconds)]


@pytest.mark.parametrize("seed", range(20))
def test_noise_and_bursts_are_flat(seed: int) -> None:
    assert growth("RSS", resident(seed, 0.0), *ALLOWED["RSS, MB"]).flat
    assert growth("live blocks", blocks(seed, 0.0), *ALLOWED["live blocks"]).flat


@pytest.mark.parametrize("seed", range(20))
def test_a_small_object_for_every_third_refresh_is_found_in_20_minutes(seed: int) -> None:
    assert not growth("live blocks", blocks(seed, 1 / 3), *ALLOWED["live blocks"]).flat


@pytest.mark.parametrize("seed", range(20))
def test_a_large_buffer_for_every_other_refresh_is_found_in_20_minutes(seed: int) -> None:
    assert not growth("RSS", resident(seed, 1024 / 2), *ALLOWED["RSS, MB"]).flat


@pytest.mark.parametrize("seed", range(20))
def test_10_kib_or_ten_objects_for_each_refresh_are_found_in_half_a_minute(seed: int) -> None:
    assert not growth("RSS", resident(seed, 10240, 30), *ALLOWED["RSS, MB"]).flat
    assert not growth("live blocks", blocks(seed, 10, 30), *ALLOWED["live blocks"]).flat


def test_a_descriptor_for_each_hundredth_refresh_is_found() -> None:
    samples = [30 + second * 0.6 for second in range(60)]
    assert not growth("descriptors", samples, *ALLOWED["descriptors"]).flat


def test_a_single_step_that_stays_is_growth() -> None:
    assert not growth("threads", [10.0] * 30 + [30.0] * 30, *ALLOWED["threads"]).flat


def test_less_is_flat() -> None:
    assert growth("RSS", [90.0] * 30 + [70.0] * 30, 0.0, 0.0).flat


def test_too_few_samples_are_an_error() -> None:
    with pytest.raises(ValueError, match="too few"):
        growth("RSS", [1.0] * 8, 0.0, 0.0)
