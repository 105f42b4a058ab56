"""The rooms wired together: one keeper a target, on one schedule, over one directory."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping

from bearerd.clock import Clock, SystemClock, dice
from bearerd.errors import SecretUnavailable
from bearerd.grant.credentials import read_client_id
from bearerd.grant.perform import Grants
from bearerd.lifecycle.gate import Gate
from bearerd.lifecycle.keeper import Keeper, Standing
from bearerd.lifecycle.schedule import Schedule
from bearerd.log import say
from bearerd.model import Config, Target
from bearerd.publish.publisher import Publisher
from bearerd.publish.state import State

# A turn that ends within this has its token on disk; one that waits for a provider is left behind.
_STOP_WITHIN = 2.0


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
        self._publisher = Publisher(config)
        self._state = State(config.state_directory, self.clock)
        self.schedule = Schedule(self.clock, self._turn)
        self._gate = Gate(self.schedule.wake, self._state)
        self._least = 0.0
        self._resumed: set[str] = set()
        self._client_ids: dict[str, str | None] = {}
        self._reading = {target.client.name: threading.Lock() for target in config.targets}
        self._keepers: dict[str, Keeper] = {}

    def start(self, least: float = 0.0) -> None:
        """Take the directory and every good record, then begin; raises DirectoryUnusable, DirectoryLocked.

        `least` seconds is how long a record's token must still be good, not to be renewed at once.
        """
        self._lock = self._publisher.prepare()
        self._least = least
        self._state.sweep()
        # Under the lock: what fingerprints are made with is made once.
        self._grants = Grants(self.clock, self._environ, self._state)
        self._gate.restore(self._config.targets, self.clock)
        for target in self._config.targets:
            keeper = Keeper(target, self.clock, dice, self._grants, self._publisher, self._gate)
            self._keepers[target.full_name] = keeper
        for name, keeper in self._keepers.items():
            provider = keeper.target.client.provider
            # A first turn in any case: files may have to be put back.
            self.schedule.add(name, provider, provider.max_concurrency, self.clock.now().boot)
        self.schedule.start()

    def stop(self) -> None:
        """End; the files stay."""
        self.schedule.stop(_STOP_WITHIN)
        self._lock.release()

    def alive(self) -> bool:
        """Whether turns are still given."""
        return self.schedule.alive()

    def tick(self) -> None:
        """What the main loop does every few seconds: look at the clocks, close what is not used."""
        self.schedule.guard()
        self._grants.close_idle()

    def standings(self) -> list[Standing]:
        """How every target stands."""
        return [keeper.standing() for keeper in self._keepers.values()]

    def _turn(self, name: str) -> float:
        keeper = self._keepers[name]
        if name not in self._resumed:
            # Here, on a worker: what is read may come from a command that hangs.
            keeper.resume(self._client_id(keeper.target), self._least)
            self._resumed.add(name)
        due = keeper.turn()
        self._observer(keeper.standing())
        return due

    def _client_id(self, target: Target) -> str | None:
        client = target.client
        with self._reading[client.name]:  # once for all its targets
            if client.name not in self._client_ids:
                self._look_at_refusal(target)
                try:
                    self._client_ids[client.name] = read_client_id(client, self._environ)
                except SecretUnavailable:
                    self._client_ids[client.name] = None  # its grants will say so
            return self._client_ids[client.name]

    def _look_at_refusal(self, target: Target) -> None:
        """A client that was refused before this start is heard again at once if its secret is another now."""
        client, refusal = target.client, self._gate.refusal(target)
        if refusal is None:
            return
        if self._grants.untried(client):
            self._gate.renew(client, self.clock.now().boot)
            say(logging.INFO, f"client {client.name} was refused before this start, with another secret: trying again")
        else:
            say(
                logging.WARNING,
                f"client {client.name} was refused before this start, with the same secret ({refusal.message}): "
                "it waits its time; a changed secret is tried at once",
            )
