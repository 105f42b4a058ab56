"""Every token made valid, once: for init containers, cron and CI. The same engine, with an end."""

from __future__ import annotations

import logging
import queue
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from math import inf
from typing import Final

from bearerd.errors import DirectoryLocked
from bearerd.grant.outcome import Failure, Malformed, Refused, Unsent
from bearerd.lifecycle.schedule import GUARD
from bearerd.log import say
from bearerd.model import Config
from bearerd.service.engine import Engine
from bearerd.service.signals import receive
from bearerd.standing import Standing
from bearerd.timeformat import duration

# Seconds between two looks at the targets that are held: what holds them changes without a turn of theirs.
_LOOK_AT_HELD: Final = 0.5
# Seconds between two looks for a signal while hooks are waited for.
_LOOK: Final = 0.2

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
    hooks: bool,
    progress: Progress = lambda _done, _total: None,
) -> int:
    """0 when every token is valid on disk within `timeout` seconds, else 1, with a line for each that is not.

    Hooks are run only with `hooks`, and waited for; one that fails for good is a 1 too.
    A token that is due, or good for less than `min_valid` seconds, is renewed; if that fails it does
    while it is good. Raises DirectoryUnusable or DirectoryLocked.
    """
    if not hooks:
        # What an earlier run owes stays noted for the daemon.
        targets = tuple(replace(target, on_change=(), on_failure=()) for target in config.targets)
        config = replace(config, targets=targets)
    events: queue.SimpleQueue[Standing | int] = queue.SimpleQueue()
    receive(events.put)
    engine = Engine(config, environ, observer=events.put)
    began = engine.clock.now().boot
    engine.start(least=min_valid)
    ends: dict[str, _End] = {}
    try:
        interrupted = _wait_for_ends(engine, events, ends, began + timeout, len(config.targets), progress)
    except DirectoryLocked as error:
        say(logging.ERROR, f"{error}; ending")
        return 1
    now = engine.clock.now().boot
    for standing in engine.standings():
        if standing.name not in ends:
            ends[standing.name] = _timed_out(standing, now, timeout, interrupted=interrupted)
    if not interrupted:
        interrupted = _wait_for_hooks(engine, events, began + timeout)
    done = engine.hooks.wait(0)
    engine.stop()
    if not done:
        why = "interrupted before all hooks were done" if interrupted else f"hooks not done within {duration(timeout)}"
        say(logging.ERROR, f"{why}; they are run at the next start")
    failed = {name: end for name, end in ends.items() if not end.good}
    for name, end in ends.items():
        if end.why:
            say(logging.WARNING if end.good else logging.ERROR, end.why, name=name)
    say(
        logging.ERROR if failed else logging.INFO,
        f"{len(ends) - len(failed)} of {len(ends)} tokens are valid in {config.directory}",
    )
    return 1 if failed or not done or engine.hooks.given_up else 0


def _wait_for_ends(
    engine: Engine,
    events: queue.SimpleQueue[Standing | int],
    ends: dict[str, _End],
    until: float,
    total: int,
    progress: Progress,
) -> bool:
    """Until every target is at its end, or that moment; whether a signal ended it before."""
    seen: dict[str, Standing] = {}
    ticked = looked = engine.clock.now().boot
    while len(ends) < total and (now := engine.clock.now().boot) < until:
        if now >= ticked + GUARD:
            ticked = now
            engine.tick()
        changed: list[Standing] = []
        if now >= looked + _LOOK_AT_HELD:
            looked = now
            changed = [standing for standing in engine.standings() if standing.held_by and standing.name in seen]
        with suppress(queue.Empty):
            event = events.get(timeout=0 if changed else min(until - now, _LOOK_AT_HELD))
            if isinstance(event, int):
                return True
            changed.append(event)
        now = engine.clock.now().boot  # not earlier than what is looked at
        for standing in changed:
            seen[standing.name] = standing
            _settle(standing, seen, ends, now, until)
        progress(len(ends), total)
    return False


def _wait_for_hooks(engine: Engine, events: queue.SimpleQueue[Standing | int], until: float) -> bool:
    """Until no hook is owed, or that moment; whether a signal ended it before."""
    while not engine.hooks.wait(min(_LOOK, max(0.0, until - engine.clock.now().boot))):
        while not events.empty():
            if isinstance(events.get(), int):
                return True
        if engine.clock.now().boot >= until:
            break
    return False


def _settle(event: Standing, seen: Mapping[str, Standing], ends: dict[str, _End], now: float, until: float) -> None:
    """Whether targets are at their end now: this one, and with a client that is asked no more its others.

    Of these only such as had a turn: before it nobody knows what is on record for them. `until` is when
    this run gives up.
    """
    shut = {standing.client: standing for standing in seen.values() if _shuts_client(standing, until)}
    for standing in seen.values() if shut.get(event.client) is event else (event,):
        if standing.name in ends:
            continue
        if _is_final(standing.failure):
            ends[standing.name] = _final(standing, now)
        elif standing.failure is None and _good(standing, now) and standing.due > now:
            ends[standing.name] = _End(good=True)
        elif standing.client in shut:
            ends[standing.name] = _final(standing, now, because=_why_shut(shut[standing.client], now))
        elif standing.held_by == "rate_limit" and until <= standing.held_until < inf:
            why = f"its rate_limit allows no grant before {duration(standing.held_until - now)} from now"
            ends[standing.name] = _final(standing, now, because=why)


def _shuts_client(standing: Standing, until: float) -> bool:
    """Whether this run asks the target's client no more."""
    if _is_final(standing.failure):
        return isinstance(standing.failure, Refused) and standing.failure.whole_client
    # Until an unknown moment: another of its tokens is being asked for.
    return standing.held_by in {"refused", "refused_limit"} and until <= standing.held_until < inf


def _why_shut(standing: Standing, now: float) -> str:
    if _is_final(standing.failure):
        return f"its client was refused ({standing.name} asked)"
    left = duration(standing.held_until - now)
    return f"its client was refused so often of late that it is not asked before {left} from now"


def _is_final(failure: Failure | None) -> bool:
    """Whether asking again would be answered in the same way."""
    if isinstance(failure, Refused) and failure.another_secret:
        return False
    return isinstance(failure, Refused | Malformed | Unsent)


def _final(standing: Standing, now: float, because: str | None = None) -> _End:
    why = because or str(standing.failure)
    if because is None and standing.held_by in {"refused", "refused_limit"} and standing.held_until < inf:
        why += (
            f"; it is asked again in {duration(standing.held_until - now)} at the earliest, with another secret at once"
        )
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
