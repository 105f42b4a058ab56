"""The rooms wired together: one keeper a target, on one schedule, over one directory."""

from __future__ import annotations

import logging
import os
import threading
from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass
from math import inf
from typing import Final

from bearerd import __version__
from bearerd.api.counts import Tally
from bearerd.api.daemon import Asked
from bearerd.api.status import HookStanding, Status, settled
from bearerd.clock import Clock, SystemClock, dice
from bearerd.errors import PublishError, SecretUnavailable
from bearerd.grant.credentials import read_client_id
from bearerd.grant.outcome import Performed
from bearerd.grant.perform import Grants
from bearerd.lifecycle.gate import Gate
from bearerd.lifecycle.keeper import Keeper, Standing
from bearerd.lifecycle.plan import Plan, plan
from bearerd.lifecycle.schedule import GUARD, Schedule
from bearerd.log import say
from bearerd.model import Config, Output, Target, Token
from bearerd.publish.hooks import Hooks
from bearerd.publish.publisher import Published, Publisher
from bearerd.publish.record import Record
from bearerd.publish.state import State

# Seconds between two grants that are asked for, of one target: whoever asks in a loop costs the provider little.
_ASKED_AGAIN: Final = 60.0
# The main loop looks every 8 s; three looks that were missed are no accident.
_HEARTBEAT: Final = 30.0
# Between two looks so much time passes only where this process itself was stopped (SIGSTOP, a paused VM).
_PAUSED: Final = 2 * GUARD
# A turn that ends within this has its token on disk; one that waits for a provider is left behind.
_STOP_WITHIN: Final = 2.0


class _CountedGrants(Grants):
    """Counts what they come to."""

    def __init__(self, tally: Tally, clock: Clock, environ: Mapping[str, str], memory: State) -> None:
        super().__init__(clock, environ, memory)
        self._tally = tally

    def perform(self, target: Target) -> Performed:
        performed = super().perform(target)
        self._tally.grant(target, performed)
        return performed


class _CountedPublisher(Publisher):
    """Counts the files; of records only those that cannot be kept."""

    def __init__(self, tally: Tally, config: Config) -> None:
        super().__init__(config)
        self._tally = tally

    def save(self, target: Target, record: Record) -> None:
        try:
            super().save(target, record)
        except PublishError:
            self._tally.event("files", "failure")
            raise

    def ensure(self, target: Target, token: Token, before: Callable[[], None] = lambda: None) -> Published:
        published = super().ensure(target, token, before)
        self._tally.event("files", "success", len(published.written))
        self._tally.event("files", "failure", len(published.faults))
        return published


@dataclass(frozen=True, slots=True)
class _Change:
    """What a new config asks of one target: to go on as this one, or (None) to end."""

    target: Target | None
    gone: tuple[Output, ...] = ()
    renew: bool = False

    def after(self, before: _Change) -> _Change:
        """Both in one, where a second config came before the first was followed."""
        paths = {output.path for output in self.target.outputs} if self.target else set()
        kept = tuple(output for output in before.gone if output.path not in paths)
        return _Change(self.target, (*kept, *self.gone), renew=before.renew or self.renew)


class Engine:
    """Keeps every target of a config. `observer` is told, from worker threads, how a target stands after each turn."""

    def __init__(
        self,
        config: Config,
        environ: Mapping[str, str],
        observer: Callable[[Standing], None] = lambda _: None,
        clock: Clock | None = None,
    ) -> None:
        self._config = config
        self._environ = environ
        self._observer = observer
        self.clock = clock or SystemClock()
        self.tally = Tally()
        self._publisher = _CountedPublisher(self.tally, config)
        self.hooks = Hooks(environ, self._publisher, self.clock, lambda outcome: self.tally.event("hooks", outcome))
        self._state = State(config.state_directory, self.clock)
        self.schedule = Schedule(self.clock, self._turn)
        self._gate = Gate(self.schedule.wake, self._state)
        self._least = 0.0
        self._lock = threading.Lock()
        self._resumed: set[str] = set()
        self._pending: dict[str, _Change] = {}
        self._hurried: set[str] = set()
        self._remade: set[str] = set()
        self._client_ids: dict[str, str | None] = {}
        self._reading: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._keepers: dict[str, Keeper] = {}
        self._asked: dict[str, str | None] = {}
        """Who is to have a new token, and instead of which."""
        self._asked_at: dict[str, float] = {}
        self._on_their_way = [target.full_name for target in config.targets if target.required]
        self._started = self._loaded = self.clock.now().boot
        self._heartbeat = self._looked = self._awake()

    def start(self, least: float = 0.0) -> None:
        """Take the directory and every good record, then begin; raises DirectoryUnusable, DirectoryLocked.

        `least` seconds is how long a record's token must still be good, not to be renewed at once.
        """
        self._publisher.prepare()
        self._least = least
        self._state.sweep()
        # Under the lock: what fingerprints are made with is made once.
        self._grants = _CountedGrants(self.tally, self.clock, self._environ, self._state)
        self._gate.restore(self._config.targets, self.clock)
        for target in self._config.targets:
            self._add(target)
        self.schedule.start()

    def apply(self, config: Config) -> Plan:
        """Go on as another config has it; what it does not change goes on as it was."""
        changes = plan(self._config, config)
        self._config = config
        self._loaded = self.clock.now().boot
        self._publisher.adopt(config)
        for target in changes.start:
            self._change(target.full_name, _Change(target))
        for target in (*changes.change, *changes.renew):
            gone = changes.gone.get(target.full_name, ())
            self._change(target.full_name, _Change(target, gone, renew=target in changes.renew))
        for target in changes.stop:
            self._change(target.full_name, _Change(None, changes.gone.get(target.full_name, ())))
        # After these: who is held and woken here must not ask as the old config has it.
        for name in changes.judged_anew:
            self._client_ids.pop(name, None)
            self._gate.renew(name, self.clock.now().boot)
        return changes

    def secrets_changed(self, clients: Container[str]) -> None:
        """What these clients authenticate with is another: who failed of the old one asks at once."""
        for name, keeper in list(self._keepers.items()):
            if keeper.target.client.name in clients and keeper.standing().failure is not None:
                with self._lock:
                    self._hurried.add(name)
                self.schedule.wake(name)

    def rewrite(self, names: Iterable[str]) -> None:
        """What the files of these tokens are made from is another."""
        for name in names:
            with self._lock:
                self._remade.add(name)
            self.schedule.wake(name)

    def stop(self) -> None:
        """End; the files stay."""
        end = self._awake() + _STOP_WITHIN
        self.schedule.stop(_STOP_WITHIN)
        self.hooks.stop(max(0.0, end - self._awake()))
        self._publisher.release()

    def refresh(self, name: str, instead_of: str | None = None) -> Asked:
        """Somebody wants a new token; `instead_of` the one whose SHA-256 begins with these 16 hex digits."""
        keeper = self._keepers.get(name)
        if keeper is None:
            return Asked("unknown")
        if _is_newer(keeper, instead_of):
            return Asked("newer")
        now = self.clock.now().boot
        with self._lock:
            after = self._asked_at.get(name, -inf) + _ASKED_AGAIN
            if after <= now:
                after = self._gate.ask(keeper.target, now)
            if after > now:
                return Asked("later", after=after - now)
            self._asked_at[name] = now
            self._asked[name] = instead_of
        grants = sum(keeper.standing().outcomes)
        self.schedule.wake(name)
        return Asked("asked", grants=grants)

    def status(self, config_error: str | None = None) -> Status:
        """How everything stands."""
        return Status(
            version=__version__,
            pid=os.getpid(),
            now=self.clock.now(),
            started=self._started,
            config=self._config,
            loaded=self._loaded,
            config_error=config_error,
            alive=self.alive(),
            tokens=tuple((standing, self._hooks_of(standing.name)) for standing in self.standings()),
            counts=self.tally.counts(),
        )

    def unsettled(self) -> bool:
        """Whether a required token is still on its way; those that once arrived are not looked at again."""
        now = self.clock.now().boot
        while self._on_their_way:
            keeper = self._keepers.get(self._on_their_way[-1])
            if keeper is not None and not settled(keeper.standing(), now):
                return True
            self._on_their_way.pop()
        return False

    def alive(self) -> bool:
        """Whether turns are still given.

        As far as the main loop has seen of late; it may hang in a look at a file, which is no fault of the schedule.
        """
        return self._awake() - self._heartbeat <= _HEARTBEAT or self.schedule.alive()

    def tick(self) -> None:
        """What the main loop does every few seconds: look at the clocks and the directory, close what is not used.

        Raises DirectoryLocked where another bearerd took the directory; this one writes nothing more then.
        """
        before, self._looked = self._looked, self._awake()
        # After a step all are set anew, which the schedule's own thread is still busy with. And after a pause of the
        # whole process it may not have come to what was due meanwhile.
        if self.schedule.guard() or self._looked - before > _PAUSED or self.schedule.alive():
            self._heartbeat = self._looked
        self._grants.close_idle()
        self.hooks.tick()
        self._publisher.look()
        for name, keeper in list(self._keepers.items()):
            if self._publisher.disturbed(keeper.target) or keeper.lost_record():
                self.schedule.wake(name)

    def standings(self) -> list[Standing]:
        """How every target stands."""
        return [keeper.standing() for keeper in list(self._keepers.values())]

    def _hooks_of(self, name: str) -> HookStanding:
        return HookStanding(self.hooks.pending(name), *self.hooks.last(name))

    def _awake(self) -> float:
        """Seconds, without those in which the machine slept: nobody can beat then."""
        return self.clock.now().boot - self.clock.suspended()

    def _add(self, target: Target) -> None:
        name, provider = target.full_name, target.client.provider
        self._keepers[name] = Keeper(target, self.clock, dice, self._grants, self._publisher, self._gate, self.hooks)
        # A first turn in any case: files may have to be put back.
        self.schedule.add(name, provider, provider.max_concurrency, self.clock.now().boot)

    def _change(self, name: str, change: _Change) -> None:
        """Have a target's own worker do it: nobody else touches its files, and no lock is held meanwhile."""
        keeper = self._keepers.get(name)
        if keeper is None and change.target is not None:
            self._add(change.target)
            return
        with self._lock:
            before = self._pending.get(name)
            self._pending[name] = change if before is None else change.after(before)
        provider = change.target.client.provider if change.target else None
        if provider is not None and keeper is not None and provider != keeper.target.client.provider:
            self.schedule.add(name, provider, provider.max_concurrency, self.clock.now().boot)
        self.schedule.wake(name)

    def _turn(self, name: str) -> float:
        keeper = self._keepers.get(name)
        if keeper is None:  # removed meanwhile
            return inf
        with self._lock:
            change, hurried, asked = self._pending.pop(name, None), name in self._hurried, name in self._asked
            remade = name in self._remade
            self._hurried.discard(name)
            self._remade.discard(name)
            instead_of = self._asked.pop(name, None)
        if change is not None and not self._adopt(keeper, change):
            return inf
        if hurried:
            self._look_at_refusal(keeper.target)
            keeper.hurry()
        if remade:
            keeper.remake()
        if name not in self._resumed:
            # Here, on a worker: what is read may come from a command that hangs.
            keeper.resume(self._client_id(keeper.target), self._least)
            self._resumed.add(name)
        if asked and not _is_newer(keeper, instead_of):  # the turn that was under way may have brought it
            keeper.refresh()
        due = keeper.turn()
        self._observer(keeper.standing())
        return due

    def _adopt(self, keeper: Keeper, change: _Change) -> bool:
        """Do to a target what a new config asks; whether it goes on."""
        name = keeper.target.full_name
        if change.target is not None:
            keeper.adopt(change.target, renew=change.renew)
        else:
            self._publisher.forget(keeper.target)
        removed = self._publisher.withdraw(change.gone)
        for fault in removed.faults:
            say(logging.ERROR, f"no longer in the config, but not removed: {fault}", name=name)
        if removed.written:
            say(logging.INFO, f"no longer in the config, removed: {', '.join(removed.written)}", name=name)
        if change.target is not None:
            return True
        self.schedule.remove(name)
        del self._keepers[name]
        self._resumed.discard(name)
        self.hooks.forget(name)
        return False

    def _client_id(self, target: Target) -> str | None:
        client = target.client
        with self._lock:
            reading = self._reading[client.name]
        with reading:  # once for all its targets
            if client.name not in self._client_ids:
                self._look_at_refusal(target)
                try:
                    self._client_ids[client.name] = read_client_id(client, self._environ)
                except SecretUnavailable:
                    self._client_ids[client.name] = None  # its grants will say so
            return self._client_ids[client.name]

    def _look_at_refusal(self, target: Target) -> None:
        """A client that was refused is heard again at once if its secret is another now."""
        client, refusal = target.client, self._gate.refusal(target)
        if refusal is None:
            return
        if self._grants.untried(client):
            self._gate.renew(client.name, self.clock.now().boot)
            say(logging.INFO, f"client {client.name} was refused with another secret: trying again")
        else:
            say(
                logging.WARNING,
                f"client {client.name} was refused with this same secret ({refusal.message}): "
                "it waits its time; another secret is tried at once",
            )


def _is_newer(keeper: Keeper, instead_of: str | None) -> bool:
    """Whether there is a good token that is another than this one."""
    return instead_of is not None and keeper.valid() and not keeper.holds(instead_of)
