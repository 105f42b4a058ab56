"""The rooms wired together, in this process, where the wall clock can be set."""

from __future__ import annotations

import json
import queue
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from freezegun import freeze_time

from bearerd.config.load import load
from bearerd.lifecycle.keeper import Standing
from bearerd.lifecycle.schedule import GUARD
from bearerd.service.engine import Engine
from support.server import Server, issues, serving

WITHIN = 20.0


@pytest.fixture
def engine(tmp_path: Path) -> Callable[..., object]:
    """An engine over one token, its turns as they end, and its provider."""

    @contextmanager
    def build() -> Iterator[tuple[Engine, queue.SimpleQueue[Standing], Server]]:
        with serving(issues()) as server:
            (tmp_path / "config.yaml").write_text(
                f"output: {{directory: {tmp_path}/tokens}}\nclients:\n  dnb:\n    token_url: {server.url}\n"
                "    allow_http: true\n    client_id: x\n    client_secret: {env: S}\n"
                "    tokens: {bci: {files: [{format: raw}, {format: json}]}}\n"
            )
            turns: queue.SimpleQueue[Standing] = queue.SimpleQueue()
            config = load(str(tmp_path / "config.yaml"), {})
            built = Engine(config, {"S": "s3cr3t"}, observer=turns.put)
            built.start()
            try:
                yield built, turns, server
            finally:
                built.stop()

    return build


def test_the_clocks_are_looked_at_often_enough_to_notice_a_step_within_10_s() -> None:
    assert GUARD < 10


def test_a_step_of_the_wall_clock_is_noticed_by_the_next_tick(engine: Callable[..., object], tmp_path: Path) -> None:
    with freeze_time(datetime.now(UTC), tick=True) as frozen, engine() as (built, turns, server):  # type: ignore[attr-defined]
        assert turns.get(timeout=WITHIN).on_disk
        frozen.move_to(datetime.now(UTC) + timedelta(hours=2))
        built.tick()
        assert turns.get(timeout=WITHIN).on_disk  # the old token is served meanwhile
        assert turns.get(timeout=WITHIN).on_disk
        assert len(server.seen) == 2
        assert (tmp_path / "tokens/dnb/bci").read_text() == "t-2"
        expires = datetime.fromisoformat(json.loads((tmp_path / "tokens/dnb/bci.json").read_text())["expires_at"])
        assert timedelta(minutes=55) < expires - datetime.now(UTC) <= timedelta(hours=1)


def test_a_tick_with_nothing_new_does_nothing(engine: Callable[..., object]) -> None:
    with engine() as (built, turns, server):  # type: ignore[attr-defined]
        turns.get(timeout=WITHIN)
        built.tick()
        with pytest.raises(queue.Empty):
            turns.get(timeout=0.2)
        assert len(server.seen) == 1
