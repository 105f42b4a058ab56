"""Metrics for Prometheus, made from the status at each scrape.

Nothing is kept between scrapes, so a removed token disappears with the next one. Counts are kept per provider as well
as per token, because a removed token takes its own counts with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate, chain, islice
from math import floor, inf
from typing import Final, get_args

from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from bearerd.admission.types import ProviderView, Reason
from bearerd.api.counts import BUCKETS, Event, Histogram
from bearerd.api.families import Family, Point, Points
from bearerd.api.share_metrics import SHARE_FAMILIES
from bearerd.api.status import HookStatus, Status, state_of
from bearerd.grant.outcome import KINDS
from bearerd.target_status import TargetStatus

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
"""Not version 1.0.0 as in newer libraries: the text is the same, and some collectors refuse unknown versions."""

# Samples per piece of text: a whole family of 10,000 tokens at once took 2.5 MB more.
_AT_ONCE: Final = 500


class _Piece(Collector):
    """Some samples of a family, in the form that the library needs."""

    def __init__(self, family: Family, points: Points) -> None:
        self._family = family
        self._points = points

    def collect(self) -> Iterator[Metric]:
        """One metric."""
        name = self._family.name
        metric = Metric(name.removesuffix("_total"), self._family.help, self._family.kind)
        metric.samples = [Sample(name + point.suffix, point.labels, point.value) for point in self._points]
        yield metric


def expose(status: Status) -> Iterator[bytes]:
    """The text of `GET /metrics`, in parts."""
    for family in _FAMILIES:
        points = iter(family.points(status))
        head_lines = 0
        while some := list(islice(points, _AT_ONCE)):
            text = generate_latest(_Piece(family, some))
            yield text.split(b"\n", head_lines)[-1]
            head_lines = 2  # HELP and TYPE may appear only once


# -- the daemon --------------------------------------------------------------------------------------


def _build(status: Status) -> Points:
    yield Point({"version": status.version}, 1)


def _one(value_of: Callable[[Status], float]) -> Callable[[Status], Points]:
    """A value of the daemon."""
    return lambda status: [Point({}, value_of(status))]


def _events(what: Event, *known: str) -> Callable[[Status], Points]:
    """Counts of events. Known outcomes start at 0, because Prometheus misses the first increase of a new series."""

    def points(status: Status) -> Points:
        counts = dict.fromkeys(known, 0) | {
            end: count for (kind, end), count in status.counts.events.items() if kind == what
        }
        return (Point({"outcome": outcome}, count) for outcome, count in counts.items())

    return points


# -- per token ---------------------------------------------------------------------------------------


def _states(status: Status) -> Points:
    for target_status, _ in status.tokens:
        target, failure = target_status.target, target_status.failure
        labels = {
            "name": target_status.name,
            "provider": target.client.provider.name,
            "required": "true" if target.required else "false",
            "state": state_of(target_status, status.now.boot),
            "failure": "" if failure is None else KINDS[type(failure)],
        }
        yield Point(labels, 1)


def _moments(moment_of: Callable[[TargetStatus], float | None]) -> Callable[[Status], Points]:
    """A time of each token that has one."""

    def points(status: Status) -> Points:
        for target_status, _ in status.tokens:
            if (moment := moment_of(target_status)) is not None:
                yield Point({"name": target_status.name}, _unix(status, moment))

    return points


def _refresh_due(target_status: TargetStatus) -> float | None:
    """When the refresh was or is due. After failed attempts, `due` is the time of the next attempt.

    While another daemon of the fleet requests the token, it is not due here. That daemon may have received the same
    token again, and wait until its provider issues a new one.
    """
    if not target_status.next_refresh:  # no turn yet
        return None
    if target_status.held_by == "share" and target_status.held_until < inf and target_status.failing_since is None:
        return max(target_status.due, target_status.held_until)
    return (
        target_status.due
        if target_status.failing_since is None
        else min(target_status.due, target_status.failing_since)
    )


def _token_grants(status: Status) -> Points:
    for target_status, _ in status.tokens:
        for outcome, count in zip(KINDS.values(), target_status.outcomes, strict=True):
            if count:  # most tokens have only one kind
                yield Point({"name": target_status.name, "outcome": outcome}, count)


def _hooks(value_of: Callable[[HookStatus], float]) -> Callable[[Status], Points]:
    """A value of each token that has hooks."""

    def points(status: Status) -> Points:
        for target_status, hooks in status.tokens:
            if target_status.target.on_change or target_status.target.on_failure:
                yield Point({"name": target_status.name}, value_of(hooks))

    return points


# -- per provider ------------------------------------------------------------------------------------


def _providers(status: Status, counted: Iterable[str]) -> Iterable[str]:
    """The providers of the config, and removed ones that have counts."""
    return dict.fromkeys(chain((target.client.provider.name for target in status.config.targets), counted))


def _provider_grants(status: Status) -> Points:
    grants = status.counts.grants
    for provider in _providers(status, (name for name, _ in grants)):
        for outcome in KINDS.values():
            yield Point({"provider": provider, "outcome": outcome}, grants.get((provider, outcome), 0))


def _provider_durations(status: Status) -> Points:
    durations = status.counts.durations
    bounds = [*(str(bound) for bound in BUCKETS), "+Inf"]
    for provider in _providers(status, durations):
        histogram = durations.get(provider, Histogram())
        labels = {"provider": provider}
        upto = zip(bounds, accumulate(histogram.counts), strict=True)
        yield from (Point(labels | {"le": bound}, count, "_bucket") for bound, count in upto)
        yield Point(labels, sum(histogram.counts), "_count")
        yield Point(labels, histogram.total, "_sum")


def _admitted(value_of: Callable[[ProviderView], float]) -> Callable[[Status], Points]:
    """A value of admission for each provider."""
    return lambda status: (Point({"provider": name}, value_of(view)) for name, view in status.providers().items())


def _held_targets(status: Status) -> Points:
    reasons = [reason for reason in get_args(Reason) if status.shares or not reason.startswith("share")]
    for name, view in status.providers().items():
        for reason in reasons:
            yield Point({"provider": name, "reason": reason}, view.held.get(reason, 0))


# -- per client --------------------------------------------------------------------------------------


def _breakers(status: Status) -> Points:
    for name, view in status.admission.clients.items():
        yield Point({"client": name, "state": view.state}, 1)


def _unix(status: Status, moment: float) -> int:
    """A time of the boot clock as Unix time, rounded down to whole seconds.

    Both clocks are read at each scrape, so finer values would differ, and be stored, every time.
    """
    return floor(status.now.wall + (moment - status.now.boot))


# All names have our prefix. A node_exporter that reads this text from a file would complain about a second
# process_start_time_seconds.
_FAMILIES: Final = (
    Family("bearerd_build_info", "gauge", "Always 1; the label is the version of bearerd.", _build),
    Family(
        "bearerd_start_time_seconds",
        "gauge",
        "Start time of the daemon, as Unix time.",
        _one(lambda status: _unix(status, status.started)),
    ),
    Family(
        "bearerd_schedule_alive",
        "gauge",
        "1 if the scheduler works; 0 if its heartbeat is older than 30 seconds.",
        _one(lambda status: status.alive),
    ),
    Family(
        "bearerd_config_last_reload_successful",
        "gauge",
        "1 if the newest config is in use; 0 if it was refused and the previous one is still in use.",
        _one(lambda status: status.config_error is None),
    ),
    Family(
        "bearerd_config_last_reload_success_timestamp_seconds",
        "gauge",
        "Load time of the config in use, as Unix time.",
        _one(lambda status: _unix(status, status.loaded)),
    ),
    Family(
        "bearerd_config_reloads_total",
        "counter",
        "Config reloads since the start, by outcome.",
        _events("reloads", "success", "failure"),
    ),
    Family(
        "bearerd_file_writes_total",
        "counter",
        "Writes of token files since the start, by outcome.",
        _events("files", "success", "failure"),
    ),
    Family(
        "bearerd_hook_runs_total",
        "counter",
        "Runs of hooks (commands and signals after a change) since the start, by outcome; each attempt counts.",
        _events("hooks", "success", "failure"),
    ),
    Family(
        "bearerd_provider_grants_total",
        "counter",
        "Token requests since the start, by provider and outcome.",
        _provider_grants,
    ),
    Family(
        "bearerd_provider_grant_duration_seconds",
        "histogram",
        "Duration of token requests, successful or not.",
        _provider_durations,
    ),
    Family(
        "bearerd_client_breaker_state",
        "gauge",
        "Always 1; the label is the state of the client's circuit breaker: closed, half_open (one attempt at a time), "
        "or open (refused).",
        _breakers,
    ),
    Family(
        "bearerd_provider_held_tokens",
        "gauge",
        "Tokens that are due and held, by provider and reason.",
        _held_targets,
    ),
    Family(
        "bearerd_provider_longest_wait_seconds",
        "gauge",
        "Time since the token that waits longest was first held.",
        _admitted(lambda view: view.longest_wait),
    ),
    Family(
        "bearerd_provider_retry_budget",
        "gauge",
        "Retries that may be sent to the provider now; near 0 while the provider fails.",
        _admitted(lambda view: view.retry_budget),
    ),
    *SHARE_FAMILIES,
    Family(
        "bearerd_token_state",
        "gauge",
        "Always 1; labels are the token's state and the kind of its last failure. States: starting (no attempt has "
        "ended yet), valid, failing (valid, but its refresh fails), unwritten (valid, but not in all of its files), "
        "expired, missing (no token was obtained yet).",
        _states,
    ),
    Family(
        "bearerd_token_expiration_timestamp_seconds",
        "gauge",
        "Expiry of the current token, as Unix time; absent before the first token.",
        _moments(lambda target_status: target_status.expires),
    ),
    Family(
        "bearerd_token_obtained_timestamp_seconds",
        "gauge",
        "Time at which the current token was requested, as Unix time; absent before the first token.",
        _moments(lambda target_status: target_status.obtained),
    ),
    Family(
        "bearerd_token_refresh_due_timestamp_seconds",
        "gauge",
        "Time at which the refresh is due, as Unix time; in the past while the refresh fails or is held.",
        _moments(_refresh_due),
    ),
    Family(
        "bearerd_token_next_refresh_timestamp_seconds",
        "gauge",
        "Time of the next attempt to get a new token, as Unix time.",
        _moments(lambda target_status: target_status.next_refresh if 0 < target_status.next_refresh < inf else None),
    ),
    Family(
        "bearerd_token_grants_total",
        "counter",
        "Requests for this token since the start, by outcome; outcomes that never occurred are absent.",
        _token_grants,
    ),
    Family(
        "bearerd_token_hooks_owed",
        "gauge",
        "Runs of this token's hooks that are due or in progress; only for tokens that have hooks.",
        _hooks(lambda hooks: hooks.owed),
    ),
    Family(
        "bearerd_token_hook_failing",
        "gauge",
        "1 if this token's last hook run failed at every attempt; only for tokens that have hooks.",
        _hooks(lambda hooks: hooks.error is not None),
    ),
)
