"""What happens to a world: its processes begin and end, and its events are done."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from hashlib import sha256

from bearerd.grant.outcome import KINDS, Performed, Refused
from bearerd.grant.times import FOLLOWED
from bearerd.model import Target
from simulation import excuses
from simulation.daemon import Daemon
from simulation.describe import Event
from simulation.excuses import LOOK
from simulation.host import DIRECTORY, Host, secret_of
from simulation.kernel import WALL

_DEEDS = {"slots": "_change_slots"}


class Deeds(Host):
    """A world in which things happen."""

    makes: type[Daemon] = Daemon
    """What is started."""

    # -- the daemon ------------------------------------------------------------------------------

    def _start(self) -> None:
        self._down = False
        self.started_at = self.kernel.now
        self._applying = self._changed = False
        self.daemon = self.makes(
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
        self._prepare(self.daemon)
        self.daemon.performing = self._performing
        self.daemon.performed = self._performed
        self.daemon.judged = self._judged
        for name, wanted in self._wanted.items():
            if wanted:
                self._new(name)
        self.flying.clear()
        self.abandoned = self.disk.files.keys() - self._by_path.keys()
        self.daemon.begin(f"{self.directory}/{self._state}")
        self.counts["starts"] += 1

    def _prepare(self, daemon: Daemon) -> None:
        """A process is about to begin."""

    def _performing(self, target: Target) -> None:
        self.checks.granted(target)
        self.flying[target.full_name] += 1
        if self._kill_in_attempt is not None:
            event, self._kill_in_attempt = self._kill_in_attempt, None
            server = self.servers[target.client.provider.name].server
            self.kernel.at(self.kernel.now + server.latency * self.dice.random(), partial(self._do, event))

    def _performed(self, target: Target) -> None:
        self.flying[target.full_name] -= 1

    def _judged(self, target: Target, performed: Performed) -> None:
        outcome = performed.outcome
        kind = KINDS[type(outcome)]
        self.counts["grants"] += 1
        self.counts[kind] += 1
        whole = isinstance(outcome, Refused) and outcome.whole_client
        self.checks.ended(target, kind, whole_client=whole)

    def _apply(self) -> None:
        """The daemon has the config as it is now; one that changes meanwhile it has after that."""
        self._changed = True
        if self._applying:
            return
        daemon, self._applying = self.daemon, True
        while self._changed:
            self._changed = False
            self.counts["reloads"] += 1
            daemon.apply(self._config())
        self._applying = False

    def _do(self, event: Event) -> None:
        """Let an event of the world happen; what needs a running daemon waits for one."""
        ready = self._up_at if self._down else self._asleep_until
        if self.kernel.now < ready:
            self.kernel.at(ready, partial(self._do, event))
            return
        if event.deed in {"kill", "stop"} and event.flag and not sum(self.flying.values()):
            self._kill_in_attempt = event
            return
        self.counts[event.deed] += 1
        for name in self._concerned(event.of):
            self.checks.trace(name, f"event: {event}")
        getattr(self, _DEEDS.get(event.deed, f"_{event.deed}"))(event)

    def _step(self, event: Event) -> None:
        # The provider's clock is followed for an hour: beyond that nobody could say what a JWT's `exp` means here.
        off = self.clock.now().wall - WALL - self.kernel.now
        self.clock.step(event.value if abs(off + event.value) < FOLLOWED else -event.value)
        self.stepped_at = self.kernel.now
        if not self._down:
            deaf = LOOK * self.dice.random()
            self._deaf_until = self.kernel.now + deaf
            self.daemon.turns.deafen(self._deaf_until)
            self.daemon.look_at(self._deaf_until)
        self._pause(list(self.kept), 0.0, "step")

    def _suspend(self, event: Event) -> None:
        deaf = LOOK * self.dice.random()
        self._asleep_until = self.kernel.now + event.value
        self._deaf_until = self._asleep_until + deaf
        self.daemon.suspend(event.value, deaf)
        self._pause(list(self.kept), event.value, "suspend")

    def _kill(self, event: Event) -> None:
        self.daemon.kill()
        if event.text == "bare":
            self._state += 1
            self.disk.memory.clear()
            self.checks.forgotten()
        self.checks.restarted()
        self._down = True
        self._kills = [time for time in self._kills if time > self.kernel.now - excuses.UNSETTLED] + [self.kernel.now]
        crash_loop = excuses.UNSETTLED if len(self._kills) >= excuses.LOOP else 0.0
        self._pause(list(self.kept), event.value, event.deed, on_top=crash_loop)
        self._up_at = self.kernel.now + event.value
        self.kernel.at(self._up_at, self._start)

    _restart = _kill

    def _remove(self, event: Event) -> None:
        for name in self._concerned(event.of):
            self._wanted[name] = False
            self.checks.removed(name)
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
            self.kept[name] = replace(self.kept[name], share=event.value)
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
        self.checks.forgiven(event.of)
        self.limits[event.of] = event.limit
        self._apply()

    def _change_slots(self, event: Event) -> None:
        before, self._slots[event.of] = self._slots[event.of], int(event.value)
        self._slots_before[event.of] = (self.kernel.now + self.world.disk_delay, before)
        for account in self.world.accounts:
            if account.server == event.of and before != self._slots[event.of]:
                self.checks.forgiven(account.name)
        self._apply()

    def _rotate(self, event: Event) -> None:
        """The provider takes another secret from now on, and the daemon has it `value` seconds later, or earlier."""
        account = next(each for each in self.world.accounts if each.name == event.of)
        self._secrets[account.name] += 1
        secret = secret_of(account.name, self._secrets[account.name])

        def there() -> None:
            self.servers[account.server].secrets[account.name] = secret

        def here() -> None:
            if secret != secret_of(account.name, self._secrets[account.name]):
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

        self._set_secret(event.of, "mistyped, and as long as others")
        self.daemon.secrets_changed({event.of})
        self.kernel.at(self.kernel.now + event.value, mended)
        self._pause(self._concerned(event.of), event.value, "wrong secret", on_top=excuses.LEDGER)

    def _refresh(self, event: Event) -> None:
        for name in self._concerned(event.of):
            if self._wanted[name]:
                held = self.disk.files.get(f"{DIRECTORY}/{name}.{self._paths[name]}", b"")
                digest = sha256(held).hexdigest()[:16] if event.flag else None
                if event.flag:
                    self.doubted.add(held.decode())
                self.daemon.refresh(name, digest)

    def _fail_disk(self, event: Event) -> None:
        self.disk.broken = True

        def works() -> None:
            self.disk.broken = False

        self.kernel.at(self.kernel.now + event.value, works)
        self._pause(list(self.kept), event.value, "disk", on_top=excuses.FILES)

    def _tamper(self, event: Event) -> None:
        for name in self._concerned(event.of):
            path = f"{DIRECTORY}/{name}.{self._paths[name]}"
            if self.disk.files.pop(path, None) is not None:
                self._pause([name], 0.0, "tampered")
                self.checks.lacking[path] = self.kernel.now
        self.daemon.look_at(self.kernel.now + LOOK * self.dice.random())
