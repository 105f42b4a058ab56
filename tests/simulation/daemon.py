"""One process: the real engine, admission, lifecycle and grant code over simulated turns, storage and network."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from math import ceil, inf
from typing import Any, Final

from bearerd.admission.admission import Admission
from bearerd.admission.journal import Journal
from bearerd.admission.types import Limits
from bearerd.api.counts import Counters
from bearerd.grant.endpoint import Endpoint
from bearerd.grant.outcome import NoReply, Performed
from bearerd.grant.perform import Grants
from bearerd.grant.reply import Reply
from bearerd.grant.request import Request
from bearerd.lifecycle.parts import Parts
from bearerd.lifecycle.reconcile import Reconciler
from bearerd.lifecycle.schedule import CHECK_CLOCKS_EVERY
from bearerd.model import Client, Config, Target
from bearerd.service import engine
from bearerd.service.clients import Clients
from bearerd.service.engine import Engine
from bearerd.service.sharing import Sharing
from bearerd.share.server import Connect
from simulation.checks import INSTANT
from simulation.kernel import Clock, Kernel
from simulation.schedule import Schedule
from simulation.server import AuthorizationServer
from simulation.storage import Disk, Hooks, Memory, Publisher

# A refused connection, and a name that is not found, take next to no time.
AT_ONCE: Final = 0.002


class Network(Endpoint):
    """Sends to a simulated provider in place of a socket."""

    def __init__(self, daemon: Daemon, server: AuthorizationServer) -> None:
        self._daemon = daemon
        self._server = server

    def send(self, request: Request) -> Reply | NoReply:
        """One request; takes its time."""
        daemon, server, kernel = self._daemon, self._server, self._daemon.kernel
        sent = kernel.now
        if server.refuses_connection(request, sent):
            kernel.sleep(AT_ONCE, daemon)
            return NoReply("connect", "connection refused")
        daemon.in_flight[server.server.name] = daemon.in_flight.get(server.server.name, 0) + 1
        try:
            kernel.sleep(min(server.latency(), server.server.timeout), daemon)
            wait, reply = server.answer(request, sent, kernel.now)
            kernel.sleep(max(0.0, wait), daemon)
        finally:
            daemon.in_flight[server.server.name] -= 1
        if daemon.slept_since(sent):
            return NoReply("read", "the connection was reset")
        return reply

    def close_idle(self) -> None:
        """Nothing is kept."""

    def close(self) -> None:
        """Nothing is kept."""


class SimulatedGrants(Grants):
    """Real grants over the simulated network."""

    def __init__(self, daemon: Daemon, environ: Mapping[str, str], memory: Memory) -> None:
        super().__init__(daemon.clock, environ, memory)
        self._daemon = daemon
        self._networks = {name: daemon.network(server) for name, server in daemon.servers.items()}

    def _endpoint(self, client: Client) -> Endpoint:
        return self._networks[client.provider.name]

    def perform(self, target: Target) -> Performed:
        """One grant, with the world told of its start and end."""
        self._daemon.performing(target)
        try:
            return super().perform(target)
        finally:
            if self._daemon.alive_:
                self._daemon.performed(target)


class SimulatedAdmission(Admission):
    """Real admission. Turns go on while the main thread is on its way through a reload: so it takes its time here."""

    def __init__(self, daemon: Daemon, limits: Limits, journal: Journal, pause: float) -> None:
        super().__init__(limits, daemon.turns.wake, journal, daemon.clock.now().boot)
        self._daemon = daemon
        self._pause = pause

    def revise(self, limits: Limits, now: float) -> None:
        """A changed config."""
        if self._pause:
            self._daemon.kernel.sleep(self._pause, self._daemon)
            now = self._daemon.clock.now().boot
        super().revise(limits, now)


class Daemon(Engine):
    """The engine from its start to its end; `kernel` gives it time."""

    def __init__(
        self,
        kernel: Kernel,
        clock: Clock,
        config: Config,
        environ: dict[str, str],
        servers: dict[str, AuthorizationServer],
        disk: Disk,
        *,
        changed: Callable[[str, bytes | None], None],
        failed: Callable[[str], None],
        dice: Callable[[], float],
        turn_cost: float,
    ) -> None:
        # Not Engine's own, which makes the real schedule, publisher, hooks and state.
        self.kernel = kernel
        self.servers = servers
        self.in_flight: dict[str, int] = {}
        self.alive_ = True
        self.performing: Callable[[Target], None] = lambda _: None
        self.performed: Callable[[Target], None] = lambda _: None
        self.judged: Callable[[Target, Performed], None] = lambda _, __: None
        self._slept_at = -inf
        self._dice = dice
        self._tick_at = inf
        self._config = config
        self._environ = environ
        self._observer = lambda _: None
        self.clock: Clock = clock
        self.counters = Counters()
        self._disk = disk
        publisher: Any = Publisher(disk, changed, lambda seconds: kernel.sleep(seconds, self), config.targets)
        hooks: Any = Hooks(disk, failed)
        schedule: Any = Schedule(
            kernel, clock, self._turn, engine._workers(config), turn_cost
        )  # as the engine sizes it
        self._publisher, self.hooks, self.schedule = publisher, hooks, schedule
        self.turns: Schedule = schedule
        self._reconciler = Reconciler(self._controller, self.turns, self._now)
        self._lock = threading.Lock()
        self._requested_at = {}
        self._unsettled = []
        self._started = self._loaded = self._now()
        self._heartbeat = self._looked = self._awake()

    def begin(self, directory: str) -> None:
        """Start over what an earlier process left; the ledger is in `directory`."""
        memory = Memory(self._disk)
        self._state = memory  # type: ignore[assignment]  # what the engine calls of it
        self._grants = SimulatedGrants(self, self._environ, memory)
        self._journal = Journal(directory, self.clock)
        self._admission = SimulatedAdmission(self, engine._limits(self._config), self._journal, self._disk.delay / 4)
        self._clients = Clients(self._environ, self._grants, self._admission, self.clock)
        self._sharing = Sharing(self.clock, self._environ, self.turns.wake, self._connector(), self._dice)
        self._parts = Parts(
            self.clock,
            self._dice,
            self._grants,
            self._publisher,
            self._admission,
            self.hooks,
            self._clients,
            self._counted,
            fleet=self._sharing.of,
        )
        self._sharing.apply(self._config.targets, self._clients)
        self._reconciler.apply(self._config.targets)

    def _connector(self) -> Connect | None:
        """What connects it to the store of its fleet; None if it has none."""
        return None

    def network(self, server: AuthorizationServer) -> Network:
        """The way to a provider."""
        return Network(self, server)

    def _counted(self, target: Target, performed: Performed) -> None:
        """A grant with its outcome, as the target judged it."""
        self.counters.grant(target, performed)
        if self.alive_:
            self.judged(target, performed)

    def kill(self) -> None:
        """SIGKILL: nothing is written any more, and whatever waits ends."""
        self.alive_ = False
        self._journal.close()
        self.turns.stop(0.0)
        self.kernel.kill(self)

    def end(self) -> None:
        """SIGTERM; requests in flight are left behind, as after two seconds in the real one."""
        self.kill()

    def suspend(self, seconds: float, deaf: float) -> None:
        """The machine slept until now plus `seconds`, and the main loop looks `deaf` seconds later."""
        now = self.kernel.now
        self._slept_at = now
        self.clock.slept += seconds
        self.kernel.postpone(self, now + seconds)
        self.turns.deafen(now + seconds + deaf)
        self.look_at(now + seconds + deaf)

    def slept_since(self, moment: float) -> bool:
        """Whether the machine was suspended since."""
        return self._slept_at >= moment

    def look_at(self, moment: float) -> None:
        """Let the main loop look at that moment."""
        self.kernel.at(moment, self._look)

    def plan_look(self) -> None:
        """The main loop looks every 8 s. Only those looks are made at which there may be something to see."""
        core, now = self._admission._core, self._now()
        waiting, wanted = core.waiting, inf
        if waiting.offers:
            wanted = min(flight.granted for flight in waiting.offers.values()) + 5.0
        if waiting._timers:
            wanted = min(wanted, waiting._timers[0][0] + 1.0)
        if core._attempts:
            ends = (flight.granted + flight.client.limits.deadline for flight in core._attempts.values())
            wanted = min(wanted, *ends)
        if core.registry._stale:
            wanted = now
        at = ceil(max(wanted, now + 0.001) / CHECK_CLOCKS_EVERY) * CHECK_CLOCKS_EVERY if wanted < inf else inf
        if at < self._tick_at:
            self._tick_at = at
            self.kernel.at(self.clock.moment(at), self._planned_look)

    def _planned_look(self) -> None:
        if self._now() >= self._tick_at - 0.001:
            self._tick_at = inf
            self._look()

    def _look(self) -> None:
        if self.alive_:
            self.tick()

    def passed_over(self, target: Target) -> list[str]:
        """The targets that this one, whose request is about to be sent, was preferred to."""
        core = self._admission._core
        mine = [flight for flight in core._attempts.values() if flight.ask.name == target.full_name]
        if not core.waiting.queued or not mine:
            return []
        flight, now = mine[-1], self.kernel.now
        return [
            name
            for name, group in core.waiting.queued.items()
            if group.provider_queue.retry == flight.terms.retry
            and group.client.provider is flight.provider
            # Of its own client they face the same constraints; of another one, those that its client lets go.
            and (group.terms == flight.terms if group.client is flight.client else group in group.provider_queue.ready)
            and self.turns.began[name] < now - INSTANT  # else it came in this very moment
        ]

    @property
    def config(self) -> Config:
        """What is wanted."""
        return self._config

    @property
    def reconciler(self) -> Reconciler[Any]:
        """Its controllers and inboxes."""
        return self._reconciler

    @property
    def admission(self) -> Admission:
        """What decides which target may ask."""
        return self._admission
