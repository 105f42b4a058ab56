"""Daemons that share a client's tokens: who asks the provider, and which token each one has in its files."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.fleet import World


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_one_daemon_makes_the_grant_and_the_others_take_its_token(world: World) -> None:
    daemons = world.add(5)
    world.live(10.0)
    assert world.asks == 1
    assert [daemon.file() for daemon in daemons] == ["token-1"] * 5


def test_a_fleet_makes_one_grant_for_each_lifetime(world: World) -> None:
    daemons = world.add(10)
    world.live(10 * 3600.0)
    assert 10 <= world.asks <= 14  # a refresh is due when 80 % of a lifetime have passed
    assert len({daemon.file() for daemon in daemons}) == 1
