"""A fleet of daemons in one process: real controllers, admission and files, a simulated clock, provider and store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import inf
from pathlib import Path
from typing import Any

from bearerd.admission.admission import Admission
from bearerd.admission.types import Limits
from bearerd.clock import Clock
from bearerd.grant.outcome import Issued, Outcome, Performed, Unsent
from bearerd.lifecycle.controller import Controller
from bearerd.lifecycle.parts import Parts
from bearerd.lifecycle.wishes import CredentialsChanged, RefreshRequested, Wish
from bearerd.model import Client, Config, Output, Target
from bearerd.publish.publisher import Publisher
from bearerd.share.fleet import Fleet
from bearerd.share.types import ShareView
from bearerd.target_status import TargetStatus
from bearerd.terms import Instant, Redis, Share
from support.clock import FakeClock
from support.share_link import POLL, ModelLink, Network
from support.targets import CLIENT, token
from support.targets import target as make_target

SECRET = "a-secret-of-the-client-0123456789"
CLIENT_ID = str(CLIENT.client_id)
SHARE = Share(Redis("redis://127.0.0.1:6379/0"))


class Skewed:
    """The clocks of one machine. It booted at a time of its own, and its wall clock may be wrong."""

    def __init__(self, world: FakeClock, booted: float, wrong: float) -> None:
        self._world = world
        self._booted = booted
        self.wrong = wrong

    def now(self) -> Instant:
        """The present time."""
        return Instant(self._world.wall + self.wrong, self._world.boot + self._booted)

    def suspended(self) -> float:
        """Never."""
        return 0.0

    def boot_id(self) -> str:
        """Of the only boot."""
        return f"boot-{self._booted}"


class NoHooks:
    """Hooks that only count."""

    def __init__(self) -> None:
        self.lost = 0

    def announce(self, _target: Target) -> None: ...
    def owed(self, _target: Target) -> bool:
        return False

    def undone(self, _name: str) -> bool:
        return False

    def changed(self, _target: Target, *, first: bool) -> None: ...
    def failed(self, _target: Target) -> None:
        self.lost += 1

    def forget(self, _name: str) -> None: ...


class Clients:
    """A client id that can be read, or not."""

    def __init__(self) -> None:
        self.id: str | None = CLIENT_ID

    def client_id(self, _target: Target) -> str | None:
        return self.id

    def credentials_changed(self, _target: Target) -> None: ...


@dataclass
class Ask:
    """One request to the provider."""

    at: float
    daemon: int
    name: str


@dataclass
class Provider:
    """Issues tokens that are numbered, or answers by script."""

    world: FakeClock
    lifetime: float = 3600.0
    takes: float = 0.1
    asks: list[Ask] = field(default_factory=list)
    script: Callable[[int, Target], Outcome] | None = None
    """Called with the number of the daemon that asks."""
    during: Callable[[int], None] = lambda _: None
    """Called while a request is in flight."""
    count: int = 0

    def answer(self, daemon: int, target: Target, sent: Instant) -> Performed:
        """One request."""
        self.asks.append(Ask(self.world.boot, daemon, target.full_name))
        self.during(daemon)
        self.world.advance(self.takes)
        outcome = self.script(daemon, target) if self.script is not None else self.issue()
        if isinstance(outcome, Issued):
            outcome = replace(outcome, token=replace(outcome.token, obtained=sent))
        client_id = target.client.client_id
        used = client_id if isinstance(client_id, str) else CLIENT_ID
        return Performed(outcome, "" if isinstance(outcome, Unsent) else used)

    def issue(self) -> Issued:
        """A new token."""
        self.count += 1
        return Issued(token(f"token-{self.count}", lifetime=self.lifetime))


class Daemon:
    """One daemon: its directory, its clocks, and one controller for each target."""

    def __init__(self, world: World, number: int, *, wrong: float = 0.0, secret: str = SECRET) -> None:
        self.world = world
        self.number = number
        self.clock: Clock = Skewed(world.clock, 1000.0 * number, wrong)
        self.directory = world.directory / f"daemon-{number}"
        self.directory.mkdir(exist_ok=True)
        self.environ = {"DNB_SECRET": secret, "OTHER": secret}
        self.hooks = NoHooks()
        self.clients = Clients()
        self.dead = False
        self.spread = 0.0
        self.counted: list[Performed] = []
        self.random = number / 64
        self.start()

    def start(self) -> None:
        """Start a process over the same directory."""
        targets = tuple(self.own(target) for target in self.world.targets)
        self.targets = {target.full_name: target for target in targets}
        self.due = dict.fromkeys(self.targets, -inf)
        self.publisher = Publisher(Config(str(self.directory), str(self.directory / ".bearerd"), targets=targets))
        now = self.clock.now().boot
        self.admission = Admission(Limits.of([target.client for target in targets]), self.wake, now=now)
        self.fleet = Fleet(
            self.clock, self.dice, self.environ, self.world.network.connect, self.wake, self.clients.client_id
        )
        self.fleet.apply(targets)
        parts = Parts(
            self.clock,
            self.dice,
            self,
            self.publisher,
            self.admission,
            self.hooks,
            self.clients,
            counted=lambda _, performed: self.counted.append(performed),
            fleet=lambda target: None if target.client.share is None else self.fleet,
            spread=lambda: self.spread,
        )
        self.controllers = {name: Controller(target, parts) for name, target in self.targets.items()}

    def own(self, target: Target) -> Target:
        """The target with its file in the directory of this daemon."""
        return replace(target, outputs=(Output(str(self.directory / target.client.name / target.name)),))

    @property
    def links(self) -> list[ModelLink]:
        """Its links, one for each server."""
        return [server.link for server in self.fleet._servers.values() if isinstance(server.link, ModelLink)]

    @property
    def link(self) -> ModelLink:
        """Its only link."""
        (link,) = self.links
        return link

    def dice(self) -> float:
        """A draw that differs between daemons."""
        self.random = (self.random * 29 + 0.137) % 1.0
        return self.random

    def perform(self, target: Target) -> Performed:
        """A grant."""
        return self.world.provider.answer(self.number, target, self.clock.now())

    def wake(self, name: str, at: float | None) -> None:
        """Give a target a turn."""
        moment = self.world.clock.boot if at is None else at - 1000.0 * self.number
        self.due[name] = min(self.due.get(name, inf), moment)

    def turn(self, name: str = "dnb/bci", *wishes: Wish) -> None:
        """Run a turn of a target."""
        self.due[name] = inf
        paths = {output.path for target in self.targets.values() for output in target.outputs}
        due = self.controllers[name].reconcile(self.targets[name], wishes, lambda: paths)
        self.due[name] = min(self.due[name], due - 1000.0 * self.number)

    def refresh(self, name: str = "dnb/bci", instead_of: str | None = None) -> None:
        """A user requests a new token."""
        self.turn(name, RefreshRequested(instead_of))

    def credentials_changed(self) -> None:
        """A secret of the client changed, as the engine tells the fleet and each target."""
        self.admission.forgive("dnb", self.clock.now().boot)
        self.fleet.credentials_changed("dnb")
        for name in self.targets:
            self.turn(name, CredentialsChanged())

    def change(self, target: Target) -> None:
        """Apply a changed config of a target."""
        self.targets[target.full_name] = self.own(target)
        self.fleet.apply(self.targets.values())
        self.wake(target.full_name, None)

    def statuses(self) -> list[TargetStatus]:
        """The state of each target."""
        return [controller.status() for controller in self.controllers.values()]

    @property
    def view(self) -> ShareView:
        """Its only share."""
        (view,) = self.fleet.views()
        return view

    def file(self, name: str = "dnb/bci") -> str:
        """The content of a target's file; empty without one."""
        path = self.directory / name
        return path.read_text() if path.exists() else ""


class World:
    """Daemons, their provider and their store. Only `live` and the provider let time pass."""

    def __init__(
        self, directory: Path, *, share: Share | None = SHARE, client: Client = CLIENT, **changes: Any
    ) -> None:
        self.directory = directory
        self.clock = FakeClock()
        self.server_wrong = 0.0
        """Seconds by which the clock of the store is ahead."""
        self.network = Network(lambda: self.clock.wall + self.server_wrong, lambda: self.clock.boot)
        self.provider = Provider(self.clock)
        self.targets = [make_target(client=replace(client, share=share), **changes)]
        self.daemons: list[Daemon] = []
        self._polled = self.clock.boot

    def add(self, count: int = 1, *, wrong: float = 0.0, secret: str = SECRET) -> list[Daemon]:
        """Start more daemons."""
        new = [Daemon(self, len(self.daemons) + index, wrong=wrong, secret=secret) for index in range(count)]
        self.daemons += new
        return new

    @property
    def asks(self) -> int:
        """The number of requests to the provider."""
        return len(self.provider.asks)

    def settle(self) -> None:
        """Run all turns that are due now."""
        for _ in range(200):
            ready = [(daemon, name) for daemon in self.daemons if not daemon.dead for name, at in daemon.due.items()
                     if at <= self.clock.boot]  # fmt: skip
            if not ready:
                return
            for daemon, name in ready:
                daemon.turn(name)
        raise AssertionError("the turns do not end")

    def live(self, seconds: float) -> None:
        """Let time pass, and run each turn and each poll when it is due."""
        end = self.clock.boot + seconds
        while True:
            self.settle()
            moments = [at for daemon in self.daemons if not daemon.dead for at in daemon.due.values()]
            at = min([*moments, self._polled + POLL])
            if at > end:
                self.clock.advance(max(0.0, end - self.clock.boot))
                return
            self.clock.advance(max(0.0, at - self.clock.boot))
            if self.clock.boot >= self._polled + POLL:
                self._polled = self.clock.boot
                for daemon in self.daemons:
                    for link in daemon.links if not daemon.dead else ():
                        link.poll()
