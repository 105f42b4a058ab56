"""The machine of one world: its providers, the present config, and what its targets may be excused for."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import partial
from math import inf
from random import Random

from bearerd.model import Client, Config, Output, Provider, RefreshBefore, Target
from bearerd.terms import RateLimit, Reference, Share
from simulation import excuses
from simulation.checks import INSTANT, Checks
from simulation.daemon import Daemon
from simulation.describe import Account, Event, Fault, World
from simulation.excuses import LOOK, Excuse
from simulation.kernel import Clock, Kernel
from simulation.server import AuthorizationServer, Known
from simulation.storage import Disk

DIRECTORY = "/run/bearerd"


def secret_of(account: str, number: int) -> str:
    """A secret of a client, long enough to seal tokens with."""
    return f"secret-of-client-{account}-{number}"


class Host:
    """What there is of one world, besides what happens to it."""

    daemon: Daemon
    """The present process, or the last one."""
    share: Share | None = None
    """How its clients share their tokens with a fleet."""

    def __init__(
        self, world: World, kernel: Kernel | None = None, servers: dict[str, AuthorizationServer] | None = None
    ) -> None:
        """`kernel` and `servers` are those of a fleet."""
        self.world = world
        self.kernel = kernel or Kernel()
        self.clock = Clock(self.kernel)
        self.disk = Disk(delay=world.disk_delay)
        self.dice = Random(world.seed)
        self.checks = Checks(self)
        self.counts: Counter[str] = Counter()
        self.flying: Counter[str] = Counter()
        self.limits = {account.name: account.limit for account in world.accounts}
        self.doubted: set[str] = set()
        """Tokens that a consumer named as ones that fail."""
        self.directory = ""
        self.started_at = self.stepped_at = -inf
        self._kills: list[float] = []
        """When processes were killed of late."""
        self._kill_in_attempt: Event | None = None
        """A kill that waits for an attempt."""
        self.abandoned: set[str] = set()
        """Files that a process which was killed right after a reload did not come to remove."""
        self._state = 0
        self._secrets: dict[str, int] = dict.fromkeys(self.limits, 0)
        self._environ: dict[str, str] = {}
        self._slots = {server.name: server.slots for server in world.servers}
        self._slots_before: dict[str, tuple[float, int]] = {}
        self.kept = {kept.full_name: kept for kept in world.targets}
        self._wanted = dict.fromkeys(self.kept, True)
        self._paths = dict.fromkeys(self.kept, 0)
        self._scopes = dict.fromkeys(self.kept, 0)
        self._by_path: dict[str, Target] = {}
        self._otherwise: set[str] = set()
        self._down = self._applying = self._changed = False
        self._deaf_until = self._asleep_until = self._up_at = 0.0
        self.servers = servers or {
            server.name: AuthorizationServer(server, self.dice, self.checks.arrived) for server in world.servers
        }
        for server in self.servers.values():
            server.faults = [fault for fault in world.faults if self._names(server.server.name, fault.of)]
        for account in world.accounts:
            self._set_secret(account.name)
            self.servers[account.server].secrets[account.name] = self._environ[account.name]

    # -- for the checks --------------------------------------------------------------------------

    def target_of(self, path: str) -> Target | None:
        """Whose file it is, by the present config."""
        return self._by_path.get(path)

    def known(self, text: str) -> Known:
        """A token, as its provider knows it."""
        return next(server.tokens[text] for server in self.servers.values() if text in server.tokens)

    def grace(self, name: str) -> float:
        """Seconds for which a token may stay in its file after its end, by the habit of its provider."""
        return excuses.HABIT.get(self.kept[name].habit, 0.0)

    def slots_of_late(self, server: str) -> int:
        """How many slots a provider has, or had until a reload that may not be through yet."""
        until, before = self._slots_before.get(server, (-inf, 0))
        return before if self.kernel.now <= until else self._slots[server]

    def names_ends(self, name: str) -> bool:
        """Whether the provider says when its token ends; one that is prolonged by use may outlive what it said."""
        return self.kept[name].habit not in {"sliding", "zero"}

    def waits_for_another(self, name: str) -> bool:
        """Whether the target asks for something else than its file holds."""
        return name in self._otherwise

    def asked_otherwise(self, path: str) -> bool:
        """Whether the target of this file asks for something else since its last token."""
        target = self._by_path[path]
        if target.full_name in self._otherwise:
            self._otherwise.discard(target.full_name)
            return True
        return False

    def skew(self) -> float:
        """Seconds by which clocks of its fleet differ."""
        return 0.0

    def deaf(self) -> bool:
        """Whether the daemon sleeps, or did not look at the clocks yet."""
        return self.kernel.now <= self._deaf_until

    def urgency(self, name: str) -> tuple[int, float, float]:
        """The order of design.md, out of how a target stands."""
        now = self.clock.now().boot
        standing = next(each for each in self.daemon.statuses() if each.name == name)
        if standing.expires is None or standing.expires <= now:
            return 1, standing.attempts, -inf if standing.expires is None else standing.expires
        return (0 if standing.expires - now <= 5.0 else 2), standing.expires, 0.0

    # -- the config ------------------------------------------------------------------------------

    def _config(self) -> Config:
        providers = {
            server.name: Provider(
                server.name,
                f"https://{server.name}.example/token",
                timeout=server.timeout,
                max_concurrency=self._slots[server.name],
            )
            for server in self.world.servers
        }
        clients = {}
        for account in self.world.accounts:
            limit = self.limits[account.name]
            clients[account.name] = Client(
                account.name,
                providers[account.server],
                account.name,
                (Reference("env", account.name),),
                rate_limits=((f"client-{account.name}", RateLimit(*limit)),) if limit else (),
                share=self.share,
            )
        targets = []
        for name, kept in self.kept.items():
            if self._wanted[name]:
                account = next(each for each in self.world.accounts if each.name == kept.account)
                scope = f"{kept.account}.{kept.name}.{self._scopes[name]}"
                self.servers[account.server].scopes[scope] = kept
                targets.append(
                    Target(
                        clients[kept.account],
                        kept.name,
                        scope,
                        refresh_before=RefreshBefore(share=kept.share),
                        default_lifetime=kept.lifetime,
                        publish_delay=kept.delay,
                        on_expiry="remove" if kept.remove else "keep",
                        outputs=(Output(f"{DIRECTORY}/{name}.{self._paths[name]}"),),
                    )
                )
        before, self._by_path = self._by_path, {each.outputs[0].path: each for each in targets}
        for path in self._by_path:
            if path not in before and path not in self.disk.files:
                self.checks.lacking[path] = self.kernel.now
        return Config(DIRECTORY, self.directory, targets=tuple(targets))

    def _set_secret(self, account: str, text: str = "") -> None:
        self.checks.forgiven(account)
        self._environ[account] = text or secret_of(account, self._secrets[account])

    # -- excuses ---------------------------------------------------------------------------------

    def _names(self, server: str, what: str) -> bool:
        accounts = {account.name for account in self.world.accounts if account.server == server}
        return what == server or what in accounts or what.split("/", maxsplit=1)[0] in accounts

    def _concerned(self, what: str) -> list[str]:
        servers = {account.name: account.server for account in self.world.accounts}
        return [
            kept.full_name
            for kept in self.world.targets
            if what in {"", kept.full_name, kept.account, servers[kept.account]}
        ]

    def _queue(self, server: str) -> float:
        found = next(each for each in self.world.servers if each.name == server)
        return excuses.queue(replace(found, slots=self._slots[server]), len(self.kept))

    def _way(self, name: str) -> float:
        """Seconds that a target's attempt takes at most, with the queue."""
        account = next(each for each in self.world.accounts if each.name == self.kept[name].account)
        server = next(each for each in self.world.servers if each.name == account.server)
        limit = self.limits[account.name]
        if account.tight and limit == account.limit:
            limit = None  # which is an excuse of its own
        # Among targets that are refused one by one a client is probed, and they are not told from it until then.
        probes = excuses.PROBE if any(fault.kind == "scope_401" for fault in self.world.faults) else 0.0
        return server.timeout + self._queue(server.name) + (limit[1] if limit else 0.0) + probes

    def _excuse(self, name: str, start: float, end: float, before: float, back: float, what: str) -> None:
        nbf = self.kept[name].nbf  # a token that is not valid yet is published when it is
        before, back = before + nbf, back + nbf
        self.checks.excuse(name, Excuse(start, end, before, back, what))
        for at in (end + before, end + back):
            self.kernel.at(at + 2 * INSTANT, partial(self._look, name))

    def _excuse_faults(self) -> None:
        """What providers do while they are not well, and limits that do not suffice."""
        for server in self.world.servers:
            wait, faults = self._queue(server.name), self.servers[server.name].faults
            for fault in faults:
                before, back = excuses.of_fault(fault.kind, fault.value, wait, server.timeout)
                concerned = self._concerned(fault.of)
                for name in concerned:
                    self._excuse(name, fault.start, fault.end, before, back, fault.kind)
                if fault.kind in excuses.HANGS:
                    self._excuse_neighbours(fault, server.name, concerned)
                if fault.kind in excuses.REFUSES:
                    # What else goes wrong before the next probe changes neither the pace nor its reason.
                    others = [each for each in faults if fault.start < each.end and each.start < fault.end + back]
                    end = max(each.end for each in others)
                    for name in concerned:
                        self._excuse(name, fault.start, end, before, back, f"{fault.kind}, and others")
        for account in self.world.accounts:
            if account.tight:
                self._excuse_tight(account)

    def _excuse_tight(self, account: Account) -> None:
        """As long as a client's limit does not cover what is needed its targets have to wait."""
        changes = (event.time for event in self.world.events if event.deed == "limit" and event.of == account.name)
        until = next(changes, self.world.seconds)
        server = next(each for each in self.world.servers if each.name == account.server)
        way = server.timeout + self._queue(account.server)
        for name in self._concerned(account.name):
            self._excuse(name, 0.0, until, way, way, "a tight limit")

    def _excuse_neighbours(self, fault: Fault, server: str, hanging: list[str]) -> None:
        """Those that wait behind requests that hang: for a slot, or for the probe of their client."""
        clients = {name.partition("/")[0] for name in hanging}
        fewest = min(
            [self._slots[server], *(e.value for e in self.world.events if (e.deed, e.of) == ("slots", server))]
        )
        for name in self._concerned(server):
            if name not in hanging and (name.partition("/")[0] in clients or fewest <= len(hanging)):
                way = self._way(name)
                self._excuse(name, fault.start, fault.end, way, way, f"behind {fault.kind}")

    def _pause(self, names: list[str], seconds: float, what: str, *, on_top: float = 0.0) -> None:
        """A span in which the daemon could do nothing."""
        now = self.kernel.now
        for name in names:
            way = LOOK + self._way(name) + on_top
            self._excuse(name, now, now + seconds, way, excuses.TRANSIENT + way, what)

    def _new(self, name: str) -> None:
        """A target begins, in a process that knows nothing of it."""
        way = self._way(name)
        self._excuse(name, self.kernel.now, self.kernel.now, way, way, "start")

    def _look(self, name: str) -> None:
        if self._wanted[name] and not self._down and not self.deaf():
            self.checks.look(f"{DIRECTORY}/{name}.{self._paths[name]}")
