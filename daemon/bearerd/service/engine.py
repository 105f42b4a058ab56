"""Wires all parts together: one controller for each target, one schedule, one directory."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping
from math import inf
from typing import Final

from bearerd import __version__
from bearerd.admission.admission import Admission
from bearerd.admission.journal import Journal
from bearerd.admission.types import Limits
from bearerd.api.counts import Counters
from bearerd.api.daemon import Requested
from bearerd.api.status import HookStatus, Status, held_times, settled
from bearerd.clock import Clock, SystemClock, dice
from bearerd.errors import PublishError
from bearerd.grant.perform import Grants
from bearerd.hooks.hooks import Hooks
from bearerd.lifecycle.controller import Controller
from bearerd.lifecycle.parts import Parts
from bearerd.lifecycle.plan import Plan, plan
from bearerd.lifecycle.reconcile import Reconciler
from bearerd.lifecycle.schedule import CHECK_CLOCKS_EVERY, Schedule
from bearerd.lifecycle.wishes import CredentialsChanged, RefreshRequested, TemplateChanged
from bearerd.model import Config, Target
from bearerd.publish.publisher import Published, Publisher
from bearerd.publish.record import Record
from bearerd.publish.state import State
from bearerd.service.clients import Clients
from bearerd.service.sharing import Sharing
from bearerd.target_status import TargetStatus
from bearerd.terms import Token
from bearerd.trouble import StateKind

# Grants that run at once: more would be a thundering herd, and a thread costs memory.
_MOST_GRANTS: Final = 256
# Threads for turns that only check files while all others wait for the network.
_BESIDE_GRANTS: Final = 2
# Seconds between two accepted refresh requests for one target, so that requests in a loop cost the provider little.
_BETWEEN_REQUESTS: Final = 60.0
# Seconds after which the heartbeat is stale: the main loop ticks every 8 s, and three missed ticks are not chance.
_HEARTBEAT: Final = 30.0
# Seconds. Two ticks are further apart only if this process was stopped (SIGSTOP, a paused VM).
_PAUSED: Final = 2 * CHECK_CLOCKS_EVERY
# Seconds for running turns to write their files at a stop. A turn that waits for a provider is abandoned.
_STOP_WITHIN: Final = 2.0


class _CountedPublisher(Publisher):
    """Counts written and failed files, and failed records."""

    def __init__(self, counters: Counters, config: Config) -> None:
        super().__init__(config)
        self._counters = counters

    def save(self, target: Target, record: Record) -> None:
        try:
            super().save(target, record)
        except PublishError:
            self._counters.event("files", "failure")
            raise

    def ensure(self, target: Target, token: Token, before: Callable[[], None] = lambda: None) -> Published:
        published = super().ensure(target, token, before)
        self._counters.event("files", "success", len(published.written))
        self._counters.event("files", "failure", len(published.faults))
        return published


class Engine:
    """Keeps every target of a config fresh. Worker threads call `observer` with a target's status after each turn."""

    def __init__(
        self,
        config: Config,
        environ: Mapping[str, str],
        observer: Callable[[TargetStatus], None] = lambda _: None,
        clock: Clock | None = None,
    ) -> None:
        self._config = config
        self._environ = environ
        self._observer = observer
        self.clock = clock or SystemClock()
        self.counters = Counters()
        self._publisher = _CountedPublisher(self.counters, config)
        self.hooks = Hooks(environ, self._publisher.notes, self.clock, lambda end: self.counters.event("hooks", end))
        self._state = State(config.state_directory)
        self.schedule = Schedule(self.clock, self._turn, _workers(config))
        self._sharing = Sharing(self.clock, environ, self.schedule.wake)
        self._spread = config.startup_spread
        self._reconciler = Reconciler(self._controller, self.schedule, self._now)
        self._lock = threading.Lock()
        self._requested_at: dict[str, float] = {}
        """By target: the time of the last accepted refresh request."""
        self._unsettled = [target.full_name for target in config.targets if target.required]
        self._started = self._loaded = self._now()
        self._heartbeat = self._looked = self._awake()

    def start(self, min_valid: float = 0.0) -> None:
        """Lock the directory and start. Raises DirectoryUnusable, DirectoryLocked.

        A token on record that is valid for less than `min_valid` seconds is renewed at once.
        """
        self._publisher.prepare()
        self._state.sweep()
        # After the lock is taken, because this may create the key for fingerprints.
        self._grants = Grants(self.clock, self._environ, self._state)
        journal = Journal(self._state.directory, self.clock)
        self._admission = Admission(_limits(self._config), self.schedule.wake, journal, self._now())
        self._clients = Clients(self._environ, self._grants, self._admission, self.clock)
        self._parts = Parts(
            self.clock,
            dice,
            self._grants,
            self._publisher,
            self._admission,
            self.hooks,
            self._clients,
            self.counters.grant,
            min_valid,
            self._sharing.of,
            lambda: self._spread,
        )
        self._sharing.apply(self._config.targets, self._clients)
        self._reconciler.apply(self._config.targets)
        self.schedule.start()

    def apply(self, config: Config) -> Plan:
        """Apply a changed config. Returns the changes; unchanged targets are not affected."""
        changes = plan(self._config, config)
        # A client that is put back may have other credentials than when it was removed.
        added = {target.client.name for target in changes.start}
        added -= {target.client.name for target in self._config.targets}
        self._config = config
        self._loaded = self._now()
        self._spread = 0.0  # it is over: what a changed config needs is not delayed
        self._publisher.adopt(config)
        self.schedule.resize(_workers(config))
        for name in changes.changed_clients | added:
            self._clients.forget(name)
        self._sharing.apply(config.targets, self._clients)
        self._reconciler.apply(config.targets)
        # After `apply`: the targets that these calls wake must use the new config.
        self._admission.revise(_limits(config), self._now())
        for name in changes.changed_clients:
            self._admission.forgive(name, self._now())
        return changes

    def secrets_changed(self, clients: Container[str]) -> None:
        """Let the failing and held targets of these clients retry at once, because credentials or a `ca_file` changed.

        Each target decides in its next turn whether it is failing: its request may be in flight with the old ones.
        """
        for name in dict.fromkeys(target.client.name for target in self._config.targets):
            if name in clients:
                self._clients.reread(name)
                self._sharing.credentials_changed(name)
        for target in self._config.targets:
            if target.client.name in clients:
                self._reconciler.wish(target.full_name, CredentialsChanged())

    def keys_changed(self, clients: Container[str]) -> None:
        """Let these clients read again what their fleets store, because the key that opens it changed."""
        for name in dict.fromkeys(target.client.name for target in self._config.targets):
            if name in clients:
                self._sharing.credentials_changed(name)
        for target in self._config.targets:
            if target.client.name in clients:
                self.schedule.wake(target.full_name, None)

    def rewrite(self, names: Iterable[str]) -> None:
        """Rewrite the files of these targets, because a template changed."""
        for name in names:
            self._reconciler.wish(name, TemplateChanged())

    def stop(self) -> None:
        """Stop. The files stay."""
        end = self._awake() + _STOP_WITHIN
        self.schedule.stop(_STOP_WITHIN)
        self.hooks.stop(max(0.0, end - self._awake()))
        self._sharing.stop()
        self._admission.close()
        self._publisher.release()

    def refresh(self, name: str, instead_of: str | None = None) -> Requested:
        """Request a new token, unless the current one differs from `instead_of` (the start of its SHA-256)."""
        if not self._reconciler.is_wanted(name):
            return Requested("unknown")
        controller = self._reconciler.controller(name)
        if controller is not None and controller.is_newer(instead_of):
            return Requested("newer")
        if controller is not None and controller.replaces(instead_of):
            # It costs the provider nothing, so nothing holds it back.
            self._reconciler.wish(name, RefreshRequested(instead_of))
            return Requested("accepted", grants=controller.status().grants)
        now = self._now()
        with self._lock:
            hold = controller.refresh_hold() if controller is not None else None
            held_for = max(0.0, hold.until - now) if hold is not None else 0.0
            if hold is not None and hold.reason == "rate_limit":
                return Requested("later", after=held_for if held_for < inf else _BETWEEN_REQUESTS, hold=hold)
            after = self._requested_at.get(name, -inf) + _BETWEEN_REQUESTS
            if after > now:
                return Requested("later", after=after - now)
            self._requested_at[name] = now
        grants = 0 if controller is None else controller.status().grants
        self._reconciler.wish(name, RefreshRequested(instead_of))
        return Requested("accepted", grants=grants, hold=hold, held_for=held_for)

    def status(self, config_error: str | None = None, config_do: str = "") -> Status:
        """The status of the daemon and every token."""
        now = self.clock.now()
        view = self._admission.view(now.boot)
        return Status(
            version=__version__,
            pid=os.getpid(),
            host=os.uname().nodename,
            now=now,
            started=self._started,
            config=self._config,
            loaded=self._loaded,
            config_error=config_error,
            config_do=config_do,
            state_faults=self._state_faults(),
            alive=self.alive(),
            tokens=tuple((held_times(each, view, now.boot), self._hooks_of(each.target)) for each in self.statuses()),
            counts=self.counters.counts(),
            admission=view,
            shares=self._sharing.views(),
        )

    def unsettled(self) -> bool:
        """Whether a required token is still being obtained. A token that settled once is not checked again."""
        now = self._now()
        while self._unsettled:
            name = self._unsettled[-1]
            if self._reconciler.is_wanted(name):
                controller = self._reconciler.controller(name)
                if controller is None or not settled(controller.status(), now):
                    return True
            self._unsettled.pop()
        return False

    def alive(self) -> bool:
        """Whether the schedule runs.

        Uses the heartbeat of the main loop. If that is stale, the main loop may hang on a file, which says nothing
        about the schedule, so the schedule is asked as well.
        """
        return self._awake() - self._heartbeat <= _HEARTBEAT or self.schedule.alive()

    def tick(self) -> None:
        """Check the clocks and the directory, and close idle connections. Call it every few seconds.

        Raises DirectoryLocked if another bearerd took the directory. This one then writes nothing more.
        """
        before, self._looked = self._looked, self._awake()
        # After a step, or a pause of the whole process, the schedule needs a moment to run the turns that are due.
        if self.schedule.tick() or self._looked - before > _PAUSED or self.schedule.alive():
            self._heartbeat = self._looked
        self._grants.close_idle()
        self._admission.sweep(self._now())
        self.hooks.tick()
        self._publisher.look()
        self._state.close_directories()
        disturbed, unrecorded = self._publisher.disturbed(), self._publisher.unrecorded(self.clock.now().wall)
        for name in disturbed | unrecorded:
            controller = self._reconciler.controller(name)
            if controller is not None and (name in disturbed or controller.lost_record()):
                self.schedule.wake(name)

    def statuses(self) -> list[TargetStatus]:
        """A snapshot of every target."""
        return list(self._reconciler.statuses())

    def _state_faults(self) -> tuple[tuple[StateKind, str], ...]:
        """Which parts of the state cannot be written, and why."""
        faults: dict[StateKind, str] = {
            "lock": self._publisher.lock_fault,
            "ledger": self._admission.fault(),
            "secrets": self._state.fault,
        }
        return tuple((kind, fault) for kind, fault in faults.items() if fault)

    def _hooks_of(self, target: Target) -> HookStatus:
        return HookStatus(self.hooks.pending(target.full_name), *self.hooks.last(target))

    def _now(self) -> float:
        return self.clock.now().boot

    def _awake(self) -> float:
        """Seconds of the boot clock without suspends, in which no heartbeat is possible."""
        return self._now() - self.clock.suspended()

    def _controller(self, target: Target) -> Controller:
        return Controller(target, self._parts)

    def _turn(self, name: str) -> float:
        due = self._reconciler.turn(name)
        if (controller := self._reconciler.controller(name)) is not None:
            self._observer(controller.status())
        return due


def _limits(config: Config) -> Limits:
    return Limits.of(target.client for target in config.targets)


def _workers(config: Config) -> int:
    """Threads for turns: as many as admission allows grants at once, and a few for turns that only check files."""
    counts = Counter(target.client.provider for target in config.targets)
    grants = sum(min(count, provider.max_concurrency) for provider, count in counts.items())
    return min(grants, _MOST_GRANTS) + _BESIDE_GRANTS
