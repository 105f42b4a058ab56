"""Runs one world: its providers, its daemon from process to process, and what happens to them."""

from __future__ import annotations

import shutil
import tempfile
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from math import inf
from random import Random

from bearerd.grant.outcome import KINDS, Performed, Refused
from bearerd.log import LOGGER
from bearerd.model import Client, Config, Output, Provider, RateLimit, Reference, RefreshBefore, Target
from simulation import excuses
from simulation.checks import INSTANT, Checks, Violation, listen
from simulation.daemon import Daemon
from simulation.describe import Account, Event, Fault, Kept, World
from simulation.excuses import LOOK, Excuse
from simulation.kernel import Clock, Kernel
from simulation.server import AuthorizationServer, Known
from simulation.storage import Disk

DIRECTORY = "/run/bearerd"
# Readers of a file, in each of its lifetimes on average.
_READS = 1.0
_SHORTEST_BETWEEN_READS = 5.0
_DEEDS = {"slots": "_change_slots"}


@dataclass
class Result:
    """What came of a world."""

    world: World
    checks: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    token_years: float = 0.0
    violation: Violation | None = None
    trace: tuple[str, ...] = ()


class Run:
    """One world while it lives."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.kernel = Kernel()
        self.clock = Clock(self.kernel)
        self.disk = Disk(delay=world.disk_delay)
        self.dice = Random(world.seed)
        self.checks = Checks(self)
        self.counts: Counter[str] = Counter()
        self.flying: Counter[str] = Counter()
        self.limits = {account.name: account.limit for account in world.accounts}
        self.directory = ""
        self.started_at = self.stepped_at = -inf
        self._kill_in_attempt: Event | None = None
        """A kill that waits for an attempt."""
        self.abandoned: set[str] = set()
        """Files that a process which was killed right after a reload did not come to remove."""
        self._state = 0
        self._secrets: dict[str, int] = dict.fromkeys(self.limits, 0)
        self._environ: dict[str, str] = {}
        self._slots = {server.name: server.slots for server in world.servers}
        self._kept = {kept.full_name: kept for kept in world.targets}
        self._wanted = dict.fromkeys(self._kept, True)
        self._paths = dict.fromkeys(self._kept, 0)
        self._scopes = dict.fromkeys(self._kept, 0)
        self._by_path: dict[str, Target] = {}
        self._otherwise: set[str] = set()
        self._down = False
        self._deaf_until = self._asleep_until = self._up_at = 0.0
        self.servers = {
            server.name: AuthorizationServer(server, self.dice, self.checks.arrived) for server in world.servers
        }
        for server in self.servers.values():
            server.faults = [fault for fault in world.faults if self._names(server.server.name, fault.of)]
        for account in world.accounts:
            self._set_secret(account.name)
            self.servers[account.server].secrets[account.name] = self._environ[account.name]

    def run(self) -> None:
        """From the first start to the end of the world."""
        self.kernel.after = self._after
        for server in self.world.servers:
            for fault in self.servers[server.name].faults:
                before, back = excuses.of_fault(fault.kind, fault.value, self._queue(server.name), server.timeout)
                concerned = self._concerned(fault.of)
                for name in concerned:
                    self._excuse(name, fault.start, fault.end, before, back, fault.kind)
                if fault.kind in excuses.HANGS:
                    self._excuse_neighbours(fault, server.name, concerned)
        for account in self.world.accounts:
            if account.tight:
                self._excuse_tight(account)
        self._start()
        for event in self.world.events:
            self.kernel.at(event.time, partial(self._do, event))
        for kept in self.world.targets:
            self._read_later(kept)
        self.kernel.run(self.world.seconds)

    # -- for the checks --------------------------------------------------------------------------

    def target_of(self, path: str) -> Target | None:
        """Whose file it is, by the present config."""
        return self._by_path.get(path)

    def known(self, text: str) -> Known:
        """A token, as its provider knows it."""
        return next(server.tokens[text] for server in self.servers.values() if text in server.tokens)

    def grace(self, name: str) -> float:
        """Seconds for which a token may stay in its file after its end, by the habit of its provider."""
        return excuses.HABIT.get(self._kept[name].habit, 0.0)

    def names_ends(self, name: str) -> bool:
        """Whether the provider says when its token ends; one that is prolonged by use may outlive what it said."""
        return self._kept[name].habit not in {"sliding", "zero"}

    def asked_otherwise(self, path: str) -> bool:
        """Whether the target of this file asks for something else since its last token."""
        target = self._by_path[path]
        if target.full_name in self._otherwise:
            self._otherwise.discard(target.full_name)
            return True
        return False

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

    # -- the daemon ------------------------------------------------------------------------------

    def _start(self) -> None:
        self._down = False
        self.started_at = self.kernel.now
        self.daemon = Daemon(
            self.kernel,
            self.clock,
            self._config(),
            self._environ,
            self.servers,
            self.disk,
            changed=self.checks.changed,
            failed=lambda name: self.checks.alarm(name, "on_failure"),
            dice=self.dice.random,
            turn_cost=self.world.turn_cost,
        )
        self.daemon.performing = self._performing
        self.daemon.performed = self._performed
        for name, wanted in self._wanted.items():
            if wanted:
                self._new(name)
        self.flying.clear()
        self.abandoned = self.disk.files.keys() - self._by_path.keys()
        self.daemon.begin(f"{self.directory}/{self._state}")
        self.counts["starts"] += 1

    def _performing(self, target: Target) -> None:
        self.checks.granted(target)
        self.flying[target.full_name] += 1
        if self._kill_in_attempt is not None:
            event, self._kill_in_attempt = self._kill_in_attempt, None
            server = self.servers[target.client.provider.name].server
            self.kernel.at(self.kernel.now + server.latency * self.dice.random(), partial(self._do, event))

    def _performed(self, target: Target, performed: Performed | None) -> None:
        self.flying[target.full_name] -= 1
        if performed is None:
            return
        outcome = performed.outcome
        kind = KINDS[type(outcome)]
        self.counts["grants"] += 1
        self.counts[kind] += 1
        whole = isinstance(outcome, Refused) and outcome.whole_client
        self.checks.ended(target, kind, whole_client=whole)

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
                budgets=((account.name, RateLimit(*limit)),) if limit else (),
            )
        targets = []
        for name, kept in self._kept.items():
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
                        on_expiry="remove" if kept.remove else "keep",
                        outputs=(Output(f"{DIRECTORY}/{name}.{self._paths[name]}"),),
                    )
                )
        before, self._by_path = self._by_path, {each.outputs[0].path: each for each in targets}
        for path in self._by_path:
            if path not in before and path not in self.disk.files:
                self.checks.lacking[path] = self.kernel.now
        return Config(DIRECTORY, self.directory, targets=tuple(targets))

    def _apply(self) -> None:
        """The daemon has the config as it is now."""
        self.counts["reloads"] += 1
        self.daemon.apply(self._config())

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
        return excuses.queue(replace(found, slots=self._slots[server]), len(self._kept))

    def _way(self, name: str) -> float:
        """Seconds that a target's attempt takes at most, with the queue."""
        account = next(each for each in self.world.accounts if each.name == self._kept[name].account)
        server = next(each for each in self.world.servers if each.name == account.server)
        limit = self.limits[account.name]
        # Among targets that are refused one by one a client is probed, and they are not told from it until then.
        probes = excuses.PROBE if any(fault.kind == "scope_401" for fault in self.world.faults) else 0.0
        return server.timeout + self._queue(server.name) + (limit[1] if limit else 0.0) + probes

    def _excuse(self, name: str, start: float, end: float, before: float, back: float, what: str) -> None:
        self.checks.excuse(name, Excuse(start, end, before, back, what))
        for at in (end + before, end + back):
            self.kernel.at(at + 2 * INSTANT, partial(self._look, name))

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
        for name in self._concerned(server):
            if name not in hanging and (name.partition("/")[0] in clients or self._slots[server] <= len(hanging)):
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

    # -- what happens ----------------------------------------------------------------------------

    def _after(self) -> None:
        if not self._down:
            self.daemon.plan_look()
            self.checks.settled()

    def _look(self, name: str) -> None:
        if self._wanted[name] and not self._down and not self.deaf():
            self.checks.look(f"{DIRECTORY}/{name}.{self._paths[name]}")

    def _read_later(self, kept: Kept) -> None:
        wait = max(_SHORTEST_BETWEEN_READS, kept.lifetime / _READS * 2 * self.dice.random())
        self.kernel.at(self.kernel.now + wait, partial(self._read, kept))

    def _read(self, kept: Kept) -> None:
        self.counts["reads"] += 1
        self._look(kept.full_name)
        self._read_later(kept)

    def _set_secret(self, account: str, text: str = "") -> None:
        self.checks.credentials_changed(account)
        self._environ[account] = text or f"secret-{account}-{self._secrets[account]}"

    def _do(self, event: Event) -> None:
        """Let an event of the world happen; what needs a running daemon waits for one."""
        ready = self._up_at if self._down else self._asleep_until
        if self.kernel.now < ready:
            self.kernel.at(ready, partial(self._do, event))
            return
        if event.deed == "kill" and event.flag and not sum(self.flying.values()):
            self._kill_in_attempt = event
            return
        self.counts[event.deed] += 1
        for name in self._concerned(event.of):
            self.checks.trace(name, f"event: {event}")
        getattr(self, _DEEDS.get(event.deed, f"_{event.deed}"))(event)

    def _step(self, event: Event) -> None:
        self.clock.step(event.value)
        self.stepped_at = self.kernel.now
        if not self._down:
            deaf = LOOK * self.dice.random()
            self._deaf_until = self.kernel.now + deaf
            self.daemon.turns.deafen(self._deaf_until)
            self.daemon.look_at(self._deaf_until)
        self._pause(list(self._kept), 0.0, "step")

    def _suspend(self, event: Event) -> None:
        deaf = LOOK * self.dice.random()
        self._asleep_until = self.kernel.now + event.value
        self._deaf_until = self._asleep_until + deaf
        self.daemon.suspend(event.value, deaf)
        self._pause(list(self._kept), event.value, "suspend")

    def _kill(self, event: Event) -> None:
        self.daemon.kill()
        if event.text == "bare":
            self._state += 1
            self.disk.memory.clear()
            self.checks.forgotten()
        self.checks.restarted()
        self._down = True
        self._pause(list(self._kept), event.value, event.deed)
        self._up_at = self.kernel.now + event.value
        self.kernel.at(self._up_at, self._start)

    _restart = _kill

    def _reboot(self, event: Event) -> None:
        self._kill(event)
        self.clock.reboot()

    def _remove(self, event: Event) -> None:
        for name in self._concerned(event.of):
            self._wanted[name] = False
        if any(self._wanted.values()):
            self._apply()

    def _put_back(self, event: Event) -> None:
        for name in self._concerned(event.of):
            if not self._wanted[name]:
                self._wanted[name] = True
                self._pause([name], self.world.disk_delay, "put back")
        self._apply()

    def _reschedule(self, event: Event) -> None:
        for name in self._concerned(event.of):
            self._kept[name] = replace(self._kept[name], share=event.value)
            self._pause([name], 0.0, "rescheduled")
        self._apply()

    def _move(self, event: Event) -> None:
        for name in self._concerned(event.of):
            self._paths[name] += 1
            self._pause([name], self.world.disk_delay, "moved")
        self._apply()

    def _rescope(self, event: Event) -> None:
        for name in self._concerned(event.of):
            self._scopes[name] += 1
            self._otherwise.add(name)
            self._pause([name], 0.0, "another scope")
        self._apply()

    def _limit(self, event: Event) -> None:
        self.checks.limit_changed(event.of, event.limit)
        self.limits[event.of] = event.limit
        self._apply()

    def _change_slots(self, event: Event) -> None:
        self._slots[event.of] = max(1, int(event.value))
        self._apply()

    def _rotate(self, event: Event) -> None:
        """The provider takes another secret from now on, and the daemon has it `value` seconds later, or earlier."""
        account = next(each for each in self.world.accounts if each.name == event.of)
        self._secrets[account.name] += 1
        secret = f"secret-{account.name}-{self._secrets[account.name]}"

        def there() -> None:
            self.servers[account.server].secrets[account.name] = secret

        def here() -> None:
            if secret != f"secret-{account.name}-{self._secrets[account.name]}":
                return  # there is a later one
            self._set_secret(account.name, secret)
            if not self._down:
                self.daemon.secrets_changed({account.name})

        self.kernel.at(self.kernel.now + max(0.0, -event.value), there)
        self.kernel.at(self.kernel.now + max(0.0, event.value), here)
        self._pause(self._concerned(account.name), abs(event.value), "rotation", on_top=excuses.LEDGER)

    def _mistype(self, event: Event) -> None:
        def mended() -> None:
            self._set_secret(event.of)
            if not self._down:
                self.daemon.secrets_changed({event.of})

        self._set_secret(event.of, "mistyped")
        self.daemon.secrets_changed({event.of})
        self.kernel.at(self.kernel.now + event.value, mended)
        self._pause(self._concerned(event.of), event.value, "wrong secret", on_top=excuses.LEDGER)

    def _refresh(self, event: Event) -> None:
        digest = "0" * 16 if event.flag else None
        for name in self._concerned(event.of):
            if self._wanted[name]:
                self.daemon.refresh(name, digest)

    def _fail_disk(self, event: Event) -> None:
        self.disk.broken = True

        def works() -> None:
            self.disk.broken = False

        self.kernel.at(self.kernel.now + event.value, works)
        self._pause(list(self._kept), event.value, "disk", on_top=excuses.FILES)

    def _tamper(self, event: Event) -> None:
        for name in self._concerned(event.of):
            path = f"{DIRECTORY}/{name}.{self._paths[name]}"
            if self.disk.files.pop(path, None) is not None:
                self._pause([name], 0.0, "tampered")
                self.checks.lacking[path] = self.kernel.now
        self.daemon.look_at(self.kernel.now + LOOK * self.dice.random())


@contextmanager
def _quiet() -> Iterator[None]:
    """The log goes to the checks alone."""
    before = LOGGER.handlers, LOGGER.level, LOGGER.propagate
    try:
        yield
    finally:
        LOGGER.handlers, LOGGER.level, LOGGER.propagate = before


def run(world: World) -> Result:
    """Run one world to its end, or to the first violation."""
    result = Result(world)
    directory = tempfile.mkdtemp(prefix="simulation-", dir="/dev/shm")
    living = Run(world)
    living.directory = directory
    try:
        with _quiet():
            listen(living.checks)
            living.run()
    except Violation as violation:
        result.violation = violation
    except Exception as error:  # noqa: BLE001 - a bug of the code under test is a violation too
        result.violation = Violation("bug", "".join(traceback.format_exception(error)))
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    result.checks, result.counts = living.checks.made, living.counts
    result.token_years = len(world.targets) * living.kernel.now / (365.25 * 86400)
    if result.violation is not None:
        trace = living.checks.traces[result.violation.target]
        result.trace = tuple(f"{time:14.3f} {text}" for time, text in trace)
    result.counts["events"] = living.kernel.events
    result.counts["waits"] = living.kernel.waits
    return result
