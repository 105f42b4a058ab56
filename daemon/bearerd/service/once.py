"""Every token made valid, once: for init containers, cron and CI. The same engine, with an end."""

from __future__ import annotations

import logging
import queue
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from bearerd.grant.outcome import Malformed, Refused, Unsent
from bearerd.lifecycle.keeper import Standing
from bearerd.lifecycle.schedule import GUARD
from bearerd.log import say
from bearerd.model import Config
from bearerd.service.engine import Engine
from bearerd.service.signals import receive
from bearerd.words import duration

Progress = Callable[[int, int], None]
"""Told how many targets are done, and of how many."""


@dataclass(frozen=True, slots=True)
class _End:
    """How a target ended."""

    good: bool
    why: str = ""


def once(
    config: Config,
    environ: Mapping[str, str],
    *,
    timeout: float,
    min_valid: float,
    progress: Progress = lambda _done, _total: None,
) -> int:
    """0 when every token is valid on disk within `timeout` seconds, else 1, with a line for each that is not.

    A token that is due, or good for less than `min_valid` seconds, is renewed; if that fails it does
    while it is good. Raises DirectoryUnusable or DirectoryLocked.
    """
    events: queue.SimpleQueue[Standing | int] = queue.SimpleQueue()
    receive(events.put)
    engine = Engine(config, environ, observer=events.put)
    began = engine.clock.now().boot
    engine.start(least=min_valid)
    ends: dict[str, _End] = {}
    standings = {standing.name: standing for standing in engine.standings()}
    interrupted = False
    while len(ends) < len(standings):
        now = engine.clock.now().boot
        left = began + timeout - now
        if left <= 0:
            break
        try:
            event = events.get(timeout=min(left, GUARD))
        except queue.Empty:
            engine.tick()
            continue
        if isinstance(event, int):
            interrupted = True
            break
        standings[event.name] = event
        _settle(event, standings, ends, engine.clock.now().boot)
        progress(len(ends), len(standings))
    now = engine.clock.now().boot
    for name, standing in standings.items():
        if name not in ends:
            ends[name] = _timed_out(standing, now, timeout, interrupted=interrupted)
    engine.stop()
    failed = {name: end for name, end in ends.items() if not end.good}
    for name, end in ends.items():
        if end.why:
            say(logging.WARNING if end.good else logging.ERROR, end.why, name=name)
    say(
        logging.ERROR if failed else logging.INFO,
        f"{len(ends) - len(failed)} of {len(ends)} tokens are valid in {config.directory}",
    )
    return 1 if failed else 0


def _settle(event: Standing, standings: Mapping[str, Standing], ends: dict[str, _End], now: float) -> None:
    """Whether a target, and with it perhaps its client's others, is at its end."""
    if event.failure is None:
        if _good(event, now) and event.due > now:
            ends[event.name] = _End(good=True)
        return
    if not isinstance(event.failure, Refused | Malformed | Unsent):
        return  # it is tried again
    ends[event.name] = _final(event, now)
    if isinstance(event.failure, Refused) and event.failure.whole_client:
        for name, other in standings.items():
            if other.client == event.client and name not in ends and not (_good(other, now) and other.due > now):
                ends[name] = _final(other, now, because=f"its client was refused ({event.name} asked)")


def _final(standing: Standing, now: float, because: str | None = None) -> _End:
    why = because or str(standing.failure)
    if _good(standing, now):
        return _End(good=True, why=f"not renewed: {why}; {_still(standing, now)}")
    return _End(good=False, why=f"no valid token: {why}")


def _timed_out(standing: Standing, now: float, timeout: float, *, interrupted: bool) -> _End:
    ended = "interrupted" if interrupted else f"not done within {duration(timeout)}"
    why = f"{ended}; last: {standing.failure}" if standing.failure else ended
    if standing.expires is not None and standing.expires > now and not standing.on_disk:
        return _End(good=False, why=f"there is a token, but its files could not be written; {why}")
    if _good(standing, now):
        return _End(good=True, why=f"not renewed: {why}; {_still(standing, now)}")
    return _End(good=False, why=f"no valid token: {why}")


def _good(standing: Standing, now: float) -> bool:
    return standing.expires is not None and standing.expires > now and standing.on_disk


def _still(standing: Standing, now: float) -> str:
    return f"the present token is good for {duration((standing.expires or now) - now)}"
