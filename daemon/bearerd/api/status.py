"""The status document for `bearerd status`, the page and the metrics.

It never contains a token, a secret or any part of a response body.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import inf
from typing import Any, Final, Literal, get_args

from bearerd import trouble as troubles
from bearerd.admission.types import ClientView, ProviderView, Reason, View
from bearerd.api.counts import Counts
from bearerd.grant.outcome import KINDS, Refused
from bearerd.model import Config, Target
from bearerd.plural import together
from bearerd.share.types import ShareView
from bearerd.target_status import HELD, Hold, TargetStatus
from bearerd.terms import Instant
from bearerd.timeformat import rfc3339
from bearerd.trouble import StateKind, Trouble, trouble_of

State = Literal["starting", "valid", "failing", "unwritten", "expired", "missing"]
"""starting   no attempt has ended yet
valid      in its files and valid
failing    valid, but its refresh fails
unwritten  valid, but not in all of its files
expired    not refreshed in time
missing    no token was obtained yet"""
# Names per state in the one-line summary. `bearerd status` lists them all.
_NAMED: Final = 3


@dataclass(frozen=True, slots=True)
class HookStatus:
    """The state of a target's hooks."""

    owed: int = 0
    """The number of runs that are due or in progress."""
    ended: float | None = None
    """Boot clock: when the last run ended."""
    error: str | None = None
    """The error of a failing hook."""


@dataclass(frozen=True, slots=True)
class Status:
    """A snapshot of the daemon."""

    version: str
    pid: int
    now: Instant
    started: float
    """Boot clock, like all times here."""
    config: Config
    loaded: float
    config_error: str | None
    """Why a newer config is not in use."""
    alive: bool
    """Whether the schedule runs."""
    tokens: tuple[tuple[TargetStatus, HookStatus], ...]
    counts: Counts
    admission: View
    """Breakers, budgets and held targets."""
    host: str = ""
    """The name of this machine."""
    config_do: str = "correct that; bearerd check shows more"
    """What to do about `config_error`."""
    state_faults: tuple[tuple[StateKind, str], ...] = ()
    """Which parts of the state cannot be written, and why."""
    shares: tuple[ShareView, ...] = ()
    """The servers through which clients share their tokens with other daemons."""

    def providers(self) -> dict[str, ProviderView]:
        """Admission's view of each provider, by the provider's name in the config.

        Endpoints at one host have one name, unless the config names them: their views are combined.
        """
        views = self.admission.providers
        uses = (target.client.provider for target in self.config.targets)
        named = dict.fromkeys((provider.name, provider.url) for provider in uses)
        found: dict[str, list[ProviderView]] = {}
        for name, url in named:
            if url in views:
                found.setdefault(name, []).append(views[url])
        # Admission does not know the targets that a share holds.
        held: defaultdict[str, Counter[Reason]] = defaultdict(Counter)
        for target_status, _ in self.tokens if self.shares else ():
            if target_status.held_by:
                held[target_status.target.client.provider.name][target_status.held_by] += 1
        return {name: _combined(each, held[name]) for name, each in found.items()}


def _combined(views: list[ProviderView], known: Counter[Reason]) -> ProviderView:
    if len(views) == 1 and not known:
        return views[0]
    held: Counter[Reason] = Counter()
    for view in views:
        held.update(view.held)
    return ProviderView(
        in_flight=sum(view.in_flight for view in views),
        max_concurrency=sum(view.max_concurrency for view in views),
        retry_budget=min(view.retry_budget for view in views),
        held=held | known,
        longest_wait=max(view.longest_wait for view in views),
    )


def state_of(target_status: TargetStatus, now: float) -> State:
    """The state of a target in one word."""
    if target_status.expires is None:
        return "missing" if target_status.failure is not None else "starting"
    if target_status.expires + target_status.grace <= now:
        return "expired"
    if not target_status.on_disk and target_status.readable_until <= now:
        return "unwritten"
    return "failing" if target_status.failure is not None else "valid"


def held_times(target_status: TargetStatus, view: View, now: float) -> TargetStatus:
    """A held target with its times as they are known now, because other targets change them without a turn of this one.

    A refused target whose own time has passed waits for the next probe of its client. A target without a planned
    attempt makes one when its hold ends.
    """
    if not target_status.held_by:  # most are not
        return target_status
    client = view.clients.get(target_status.client)
    refusal = client.refusal if client is not None else None
    until, planned = target_status.held_until, target_status.next_refresh
    if target_status.held_by == "refused" and refusal is not None and until <= now:
        until = refusal.next_probe
    if now < until < inf and not now < planned < inf:
        planned = until
    return replace(target_status, held_until=until, next_refresh=planned)


def settled(target_status: TargetStatus, now: float) -> bool:
    """Whether the start need not wait for this target: it is valid on disk, refused, or not required."""
    if not target_status.target.required or isinstance(target_status.failure, Refused):
        return True
    return state_of(target_status, now) in {"valid", "failing"}


def summary(status: Status) -> str:
    """The status in one line, for the `Status:` of `systemctl status`."""
    now = status.now.boot
    names: dict[State, list[str]] = {}
    for target_status, _ in status.tokens:
        names.setdefault(state_of(target_status, now), []).append(target_status.name)
    good = len(names.pop("valid", ())) + len(names.get("failing", ()))
    parts = [f"{good} of {len(status.tokens)} tokens are valid"]
    parts += [f"{state}: {_some(names[state])}" for state in get_args(State) if state in names]
    lasting = [
        target_status
        for target_status, _ in status.tokens
        if target_status.expires is not None and target_status.expires > now
    ]
    if lasting:
        first = min(lasting, key=lambda target_status: target_status.expires or 0.0)
        parts.append(f"the next to expire is {first.name}, at {_when(first.expires, status.now)}")
    parts += [f"share {share.name} is down" for share in status.shares if share.state == "down"]
    if status.config_error is not None:
        parts.append("the new config was refused: see the log")
    return "; ".join(parts)


def unready(status: Status) -> Iterator[tuple[str, str]]:
    """The required tokens that are not valid on disk, with the reason."""
    now = status.now.boot
    for target_status, _ in status.tokens:
        state = state_of(target_status, now)
        if target_status.target.required and state not in {"valid", "failing"}:
            failure = [str(target_status.failure)] if target_status.failure else []
            why = "; ".join([*([together(target_status.faults)] if target_status.faults else []), *failure])
            if not why and target_status.held_by:
                why = f"held: {HELD[target_status.held_by]}"
            yield target_status.name, f"{state}: {why}" if why else state


def daemon_troubles(status: Status) -> Iterator[Trouble]:
    """What is wrong with the daemon itself, the most urgent first."""
    if not status.alive:
        yield troubles.of_schedule()
    if status.config_error is not None:
        loaded = rfc3339(status.now.wall + (status.loaded - status.now.boot))
        yield troubles.of_config(status.config_error, status.config_do, loaded)
    for kind, fault in status.state_faults:
        yield troubles.of_state(kind, fault)
    clients = {target.client.name: target.client.share for target in status.config.targets} if status.shares else {}
    for view in status.shares:
        policies = {name: share.when_unavailable for name in view.clients if (share := clients.get(name))}
        if (trouble := troubles.of_share(view, policies, status.now)) is not None:
            yield trouble


def text(status: Status, only: str | None = None) -> Iterator[str]:
    """The JSON of `GET /status`, in parts; `only`: just the token of this name."""
    now = status.now
    head = {
        "version": status.version,
        "pid": status.pid,
        "host": status.host,
        "now": rfc3339(now.wall),
        "started_at": _when(status.started, now),
        "directory": status.config.directory,
        "alive": status.alive,
        "config": {"loaded_at": _when(status.loaded, now), "error": status.config_error},
        "troubles": [trouble.document() for trouble in daemon_troubles(status)],
        "clients": {name: _client(view, now) for name, view in status.admission.clients.items()},
        "providers": {name: _provider(view) for name, view in status.providers().items()},
        "shares": [_share(view, now) for view in status.shares],
    }
    yield json.dumps(head)[:-1] + ', "tokens": ['
    separator = "\n"
    for target_status, hooks in status.tokens:
        if only in (None, target_status.name):
            yield separator + json.dumps(_token(target_status, hooks, now))
            separator = ",\n"
    yield "\n]}\n"


def _some(names: list[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def hold(held: Hold, seconds: float) -> dict[str, Any]:
    """A hold of a refresh request; `seconds` until its end, `inf` if unknown."""
    return {
        "by": held.reason,
        "text": HELD[held.reason],
        "seconds": None if seconds == inf else round(seconds, 3),
        "error": None if held.failure is None else str(held.failure),
    }


def _token(target_status: TargetStatus, hooks: HookStatus, now: Instant) -> dict[str, Any]:
    target, expires, obtained = target_status.target, target_status.expires, target_status.obtained
    known = 0 < target_status.next_refresh < inf
    limited = target_status.limited_until - now.boot
    trouble = trouble_of(target_status, hooks.error, now)
    return {
        **_named(target),
        "state": state_of(target_status, now.boot),
        "trouble": None if trouble is None else trouble.document(),
        "obtained_at": _when(obtained, now),
        "expires_at": _when(expires, now),
        "remaining_seconds": None if expires is None else round(max(0.0, expires - now.boot), 3),
        "lifetime_seconds": None if expires is None or obtained is None else round(expires - obtained, 3),
        "next_refresh": _when(target_status.next_refresh, now) if known else None,
        "next_refresh_seconds": round(max(0.0, target_status.next_refresh - now.boot), 3) if known else None,
        "held_by": target_status.held_by or None,
        "held_text": HELD[target_status.held_by] if target_status.held_by else None,
        "held_until": _when(target_status.held_until, now) if now.boot < target_status.held_until < inf else None,
        "refresh_limited_seconds": round(limited, 3) if limited > 0 else None,
        "last_error": None if target_status.failure is None else str(target_status.failure),
        "failing_since": _when(target_status.failing_since, now),
        "failed_attempts": target_status.attempts,
        "failures": [_when(moment, now) for moment in target_status.failures],
        "grants": {kind: count for kind, count in zip(KINDS.values(), target_status.outcomes, strict=True) if count},
        "fleet_grants": target_status.fleet_grants,
        "on_disk": target_status.on_disk,
        "same_token": target_status.same_token,
        "publish_at": _when(target_status.publish_at, now),
        "file_errors": list(target_status.faults),
        "hooks": {"owed": hooks.owed, "last_run_at": _when(hooks.ended, now), "last_error": hooks.error},
    }


def _client(view: ClientView, now: Instant) -> dict[str, Any]:
    refusal = view.refusal
    return {
        "breaker": view.state,
        "refused": None if refusal is None else str(refusal.outcome),
        "refusals": 0 if refusal is None else refusal.attempts,
        "next_probe": None if refusal is None else _when(refusal.next_probe, now),
        "in_flight": view.in_flight,
        "held": view.held,
    }


def _provider(view: ProviderView) -> dict[str, Any]:
    return {
        "in_flight": view.in_flight,
        "max_concurrency": view.max_concurrency,
        "retry_budget": round(view.retry_budget, 3),
        "held": dict(view.held),
        "longest_wait_seconds": round(view.longest_wait, 3),
    }


def _share(view: ShareView, now: Instant) -> dict[str, Any]:
    return {
        "name": view.name,
        "clients": list(view.clients),
        "state": view.state,
        "since": _when(view.since, now),
        "error": view.error or None,
        "error_at": _when(view.error_at, now),
        "errors": view.errors,
        "waiting": view.waiting,
        "taken": view.taken,
        "stored": view.stored,
    }


def _named(target: Target) -> dict[str, Any]:
    return {
        "name": target.full_name,
        "client": target.client.name,
        "token": target.name,
        "provider": target.client.provider.name,
        "scope": target.scope,
        "required": target.required,
        "files": [output.path for output in target.outputs],
    }


def _when(moment: float | None, now: Instant) -> str | None:
    """A time of the boot clock in RFC 3339."""
    return None if moment is None else rfc3339(now.wall + (moment - now.boot))
