"""`bearerd once`: makes every token valid, then ends. For init containers, cron and CI."""

from __future__ import annotations

import logging
import queue
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from math import inf
from typing import Final

from bearerd.errors import DirectoryLocked
from bearerd.grant.outcome import Malformed, Refused, Unsent
from bearerd.lifecycle.schedule import CHECK_CLOCKS_EVERY
from bearerd.log import say
from bearerd.model import Config
from bearerd.secrets import command
from bearerd.service.engine import Engine
from bearerd.service.signals import receive
from bearerd.target_status import HELD, TargetStatus
from bearerd.timeformat import duration

# Seconds between two checks of held targets: their hold may change without a turn of theirs.
_LOOK_AT_HELD: Final = 0.5
# Seconds between two checks for a signal while hooks run.
_LOOK: Final = 0.2
# Reasons to hold a target that may last longer than a run.
_LASTING: Final = frozenset({"refused", "refused_limit", "rate_limit", "share_unavailable"})

Progress = Callable[[int, int], None]
"""Called with the number of targets that are done, and the total."""


@dataclass(frozen=True, slots=True)
class _End:
    """The result for one target."""

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
    """Make every token valid. Returns 0 if all are valid on disk within `timeout` seconds, else 1.

    A token that is due, or valid for less than `min_valid` seconds, is refreshed. If that fails, a token that is still
    valid is a success with a warning. With `hooks`, the hooks run, too, and a hook that is given up is a failure.
    Raises DirectoryUnusable or DirectoryLocked.
    """
    # Nobody would publish a token after this process has ended.
    targets = tuple(replace(target, publish_delay=0.0) for target in config.targets)
    config = replace(config, targets=targets, startup_spread=0.0)
    events: queue.SimpleQueue[TargetStatus | int] = queue.SimpleQueue()
    receive(events.put)
    engine = Engine(config, environ, observer=events.put)
    if not hooks:
        engine.hooks.leave_to_the_daemon()
    began = engine.clock.now().boot
    engine.start(min_valid=min_valid)
    ends: dict[str, _End] = {}
    try:
        interrupted = _wait_for_ends(engine, events, ends, began + timeout, len(config.targets), progress)
    except DirectoryLocked as error:
        say(logging.ERROR, f"{error}; exiting")
        command.stop()
        return 1
    now = engine.clock.now().boot
    for status in engine.statuses():
        if status.name not in ends:
            ends[status.name] = _timed_out(status, now, timeout, interrupted=interrupted)
    if not interrupted:
        interrupted = _wait_for_hooks(engine, events, began + timeout)
    done = engine.hooks.wait(0)
    command.stop()  # first: the turns that wait for one then end
    engine.stop()
    if not done:
        why = (
            "interrupted before all hooks were done"
            if interrupted
            else f"hooks did not finish within {duration(timeout)}"
        )
        say(logging.ERROR, f"{why}; they run at the next start")
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
    events: queue.SimpleQueue[TargetStatus | int],
    ends: dict[str, _End],
    until: float,
    total: int,
    progress: Progress,
) -> bool:
    """Wait until every target has a result, or until this time. Returns whether a signal interrupted the wait."""
    seen: dict[str, TargetStatus] = {}
    ticked = looked = engine.clock.now().boot
    while len(ends) < total and (now := engine.clock.now().boot) < until:
        if now >= ticked + CHECK_CLOCKS_EVERY:
            ticked = now
            engine.tick()
        changed: list[TargetStatus] = []
        if now >= looked + _LOOK_AT_HELD:
            looked = now
            changed = [status for status in engine.statuses() if status.held_by and status.name in seen]
        with suppress(queue.Empty):
            event = events.get(timeout=0 if changed else min(until - now, _LOOK_AT_HELD))
            if isinstance(event, int):
                return True
            changed.append(event)
        now = engine.clock.now().boot  # not earlier than the statuses
        for status in changed:
            seen[status.name] = status
            _settle(status, seen, ends, now, until)
        progress(len(ends), total)
    return False


def _wait_for_hooks(engine: Engine, events: queue.SimpleQueue[TargetStatus | int], until: float) -> bool:
    """Wait until no hook is owed, or until this time. Returns whether a signal interrupted the wait."""
    while not engine.hooks.wait(min(_LOOK, max(0.0, until - engine.clock.now().boot))):
        while not events.empty():
            if isinstance(events.get(), int):
                return True
        if engine.clock.now().boot >= until:
            break
    return False


def _settle(
    event: TargetStatus, seen: Mapping[str, TargetStatus], ends: dict[str, _End], now: float, until: float
) -> None:
    """Note the results that this status decides: its target's, and those of all targets of a client that was refused.

    Targets without a turn are left out, because their records were not read yet. `until` is when this run ends.
    """
    refused = {status.client: status for status in seen.values() if _ends_its_client(status, until)}
    for status in seen.values() if refused.get(event.client) is event else (event,):
        if status.name in ends:
            continue
        if _is_final(status, until):
            ends[status.name] = _final(status, now)
        elif status.failure is None and _good(status, now) and _is_settled(status, now):
            ends[status.name] = _End(good=True)
        elif status.client in refused:
            why = f"its client was refused (for {refused[status.client].name})"
            ends[status.name] = _final(status, now, because=why)
        elif status.held_by in _LASTING and _is_held(status, until):
            ends[status.name] = _final(status, now, because=_why_held(status, now))


def _ends_its_client(status: TargetStatus, until: float) -> bool:
    """Whether this run sends no more requests for the target's client, because it was refused in this run."""
    return (
        status.attempts > 0
        and _is_final(status, until)
        and isinstance(status.failure, Refused)
        and status.failure.whole_client
    )


def _is_settled(status: TargetStatus, now: float) -> bool:
    """Whether the target needs no request and no publication soon."""
    return status.due > now and not status.zero and status.publish_at is None


def _is_held(status: TargetStatus, until: float) -> bool:
    """Whether the target is held until this run ends.

    If the end of the hold is unknown, a request of another target is in flight.
    """
    return until <= status.held_until < inf


def _why_held(status: TargetStatus, now: float) -> str:
    wait = duration(status.held_until - now)
    match status.held_by:
        case "rate_limit":
            return f"its rate_limit allows the next request in {wait}"
        case "share_unavailable":
            return HELD["share_unavailable"]
        case reason:
            return f"{HELD[reason]}; the next request is allowed in {wait}"


def _is_final(status: TargetStatus, until: float) -> bool:
    """Whether another request would have the same result, or none is possible in this run."""
    failure = status.failure
    if not isinstance(failure, Refused | Malformed | Unsent):
        return False
    if isinstance(failure, Refused) and failure.another_secret:
        return False
    # Without an attempt, the refusal is from an earlier run or of another target: it only holds this one for a while.
    return status.attempts > 0 or _is_held(status, until)


def _final(status: TargetStatus, now: float, because: str | None = None) -> _End:
    why = because or str(status.failure)
    if because is None and status.held_by in {"refused", "refused_limit"} and status.held_until < inf:
        why += f"; next request in {duration(status.held_until - now)}, or at once with changed credentials"
    if _good(status, now):
        return _End(good=True, why=f"not refreshed: {why}; {_still(status, now)}")
    return _End(good=False, why=f"no valid token: {why}")


def _timed_out(status: TargetStatus, now: float, timeout: float, *, interrupted: bool) -> _End:
    ended = "interrupted" if interrupted else f"timed out after {duration(timeout)}"
    why = f"{ended}; last: {status.failure}" if status.failure else ended
    if status.publish_at is not None:
        why = f"{ended}: the new token is valid only in {duration(max(0.0, status.publish_at - now))} (its nbf)"
    if status.expires is not None and status.expires > now and not status.on_disk:
        return _End(good=False, why=f"there is a token, but its files could not be written; {why}")
    if _good(status, now):
        return _End(good=True, why=f"not refreshed: {why}; {_still(status, now)}")
    return _End(good=False, why=f"no valid token: {why}")


def _good(status: TargetStatus, now: float) -> bool:
    return status.expires is not None and status.expires > now and status.on_disk


def _still(status: TargetStatus, now: float) -> str:
    return f"the current token is good for {duration((status.expires or now) - now)}"
