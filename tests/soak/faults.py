"""Faults at random, from a seed. Two lanes: those of networks and providers, and those of the daemon's own machine.

The promise is that no file holds an expired token as long as a fault is shorter than the lead. So a *heavy* fault waits
until each token has a lifetime that leaves time for two of them, one of each lane, and for the recovery. *Light* faults
need no time, and come with any lifetime.
"""

from __future__ import annotations

import itertools
import random
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bearerd.cli.ask import NoAnswer, ask
from soak.site import CLIENTS, PROVIDERS, VICTIMS, Site, client, document
from support.kept import replace
from support.minted import boot_ms
from support.minting import Weather
from support.process import eventually
from support.rig import say

_TABLE: Final = "soak"
_PAUSE: Final = threading.Event()


@dataclass(frozen=True)
class Strength:
    """How long heavy faults last, and which lifetimes outlive two of them."""

    longest: float
    """Seconds of a fault."""
    recovery: float
    """Seconds until all tokens are well again: retries, their budget, and a machine that has much else to do."""
    calm: float
    """Seconds between two faults of a lane, in which tokens get short lifetimes again."""

    @property
    def lifetime(self) -> float:
        """The least lifetime, half of which two faults and the recovery take."""
        return 2 * (2 * self.longest + self.recovery)


@dataclass
class Faults:
    """Does the faults of a run, and counts them."""

    here: Site
    strength: Strength
    seed: int
    verbose: bool
    """Print when each fault begins and ends."""
    counts: Counter[str] = field(default_factory=Counter)
    longest: float = 0.0
    """Seconds that a heavy fault really lasted."""
    slowest_restore: float = 0.0
    """Seconds until deleted files were back."""
    revoked: Counter[str] = field(default_factory=Counter)
    """How often the secret of a client was revoked before it was replaced."""
    errors: list[BaseException] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._numbers = itertools.count(2)
        self._kinds: dict[int, str] = {}
        self._next_revoked = itertools.cycle(f"p{p}c{c}" for c in range(CLIENTS) for p in range(PROVIDERS))
        self._next_rotated = itertools.cycle(f"p{p}c{c}" for c in reversed(range(CLIENTS)) for p in range(PROVIDERS))

    # -- the lanes ----------------------------------------------------------------------------

    @contextmanager
    def happening(self) -> Iterator[None]:
        """Let both lanes run during the block; they finish the fault under way."""
        _nft("add", "table", "inet", _TABLE)
        _nft("add", "chain", "inet", _TABLE, "input", "{ type filter hook input priority 0; }")
        end = threading.Event()
        lanes: list[Mapping[str, Callable[[random.Random], None]]] = [
            {
                "connections refused": self._refused,
                "packets dropped": self._dropped,
                "connections reset": self._reset,
                "slow answers": self._slow,
                "5xx": self._errors,
                "429 with Retry-After": self._too_many,
            },
            {
                "SIGSTOP": self._stopped,
                "disk full": self._full,
                "secret revoked, then replaced": self._revoked,
                "secret rotated": self._rotated,
                "SIGHUP": self._hangup,
                "token added and removed": self._added,
                "broken config": self._broken,
                "files deleted": self._deleted,
                "flood of status requests": self._flood,
            },
        ]
        with ThreadPoolExecutor(len(lanes)) as pool:
            running = [pool.submit(self._lane, number, kinds, end) for number, kinds in enumerate(lanes)]
            try:
                yield
            finally:
                end.set()
        self.errors += [error for lane in running if (error := lane.exception()) is not None]

    def _lane(self, number: int, kinds: Mapping[str, Callable[[random.Random], None]], end: threading.Event) -> None:
        dice, bag = random.Random(f"{self.seed} {number}"), list[str]()
        while not end.is_set():
            bag = bag or dice.sample(list(kinds), len(kinds))
            kind = self._kinds[threading.get_ident()] = bag.pop()
            kinds[kind](dice)
            self._say("is over")
            self.counts[kind] += 1
            end.wait(self.strength.calm * dice.uniform(0.5, 1.5))

    def _say(self, what: str) -> None:
        """A line of the log, with the time of the boot clock in milliseconds, as readers and tokens have it."""
        if self.verbose:
            say(f"{boot_ms()} {self._kinds[threading.get_ident()]} {what}")

    @contextmanager
    def _heavy(self, dice: random.Random, providers: Sequence[int], end: Callable[[], object]) -> Iterator[float]:
        """A fault for some seconds, which `end` ends, and the time to recover from it. Yields when it has to end.

        It begins once all tokens of these providers outlive it.
        """
        with ExitStack() as stack:
            for number in providers:
                stack.enter_context(self.here.lifetimes[number].at_least(self.strength.lifetime))
            began = time.monotonic()
            until = began + dice.uniform(self.strength.longest / 3, self.strength.longest)
            self._say(f"begins, for {until - began:.1f} s at {', '.join(f'p{number}' for number in providers)}")
            yield until
            _PAUSE.wait(max(0.0, until - time.monotonic()))
            end()
            self._say("ends")
            self.longest = max(self.longest, time.monotonic() - began)
            _PAUSE.wait(self.strength.recovery)

    # -- networks and providers ---------------------------------------------------------------

    def _refused(self, dice: random.Random) -> None:
        self._filtered(dice, "tcp", "flags", "&", "(syn|ack)", "==", "syn", "reject", "with", "tcp", "reset")

    def _dropped(self, dice: random.Random) -> None:
        self._filtered(dice, "drop")

    def _reset(self, dice: random.Random) -> None:
        self._filtered(dice, "reject", "with", "tcp", "reset")

    def _filtered(self, dice: random.Random, *rule: str) -> None:
        number = dice.randrange(PROVIDERS)
        port = str(self.here.providers[number].port)
        with self._heavy(dice, [number], lambda: _nft("flush", "chain", "inet", _TABLE, "input")):
            _nft("add", "rule", "inet", _TABLE, "input", "tcp", "dport", port, *rule)

    def _slow(self, dice: random.Random) -> None:
        self._weather(dice, Weather(latency=0.5))

    def _errors(self, dice: random.Random) -> None:
        self._weather(dice, Weather(share=0.7, status=dice.choice((500, 502, 503, 504))))

    def _too_many(self, dice: random.Random) -> None:
        self._weather(dice, Weather(share=0.7, status=429, retry_after=2))

    def _weather(self, dice: random.Random, weather: Weather) -> None:
        number = dice.randrange(PROVIDERS)
        provider = self.here.providers[number]
        with self._heavy(dice, [number], lambda: provider.set_weather(Weather())):
            provider.set_weather(weather)

    # -- the daemon and its machine -----------------------------------------------------------

    def _stopped(self, dice: random.Random) -> None:
        with self._heavy(dice, range(PROVIDERS), lambda: self.here.daemon.send(signal.SIGCONT)):
            self.here.daemon.send(signal.SIGSTOP)

    def _full(self, dice: random.Random) -> None:
        filler = self.here.output.parent / "filler"
        with self._heavy(dice, range(PROVIDERS), filler.unlink) as until:
            # Each file that is replaced makes room again.
            while time.monotonic() < until:
                with suppress(OSError), filler.open("ab", buffering=0) as file:
                    while file.write(bytes(4096)):
                        pass
                _PAUSE.wait(0.02)

    def _revoked(self, dice: random.Random) -> None:
        """The provider refuses the secret before the new one is in place."""
        name, secret = next(self._next_revoked), f"secret-{next(self._numbers)}"
        number = int(name[1])
        with self._heavy(dice, [number], lambda: replace(self.here.secret(name), secret)):
            self.revoked[name] += 1
            self.here.providers[number].accept(name, secret)

    def _rotated(self, _: random.Random) -> None:
        """The provider accepts both secrets until no request with the old one can be under way."""
        name = next(self._next_rotated)
        provider, old = self.here.providers[int(name[1])], self.here.secret(name).read_text()
        secret = f"secret-{next(self._numbers)}"
        provider.accept(name, old, secret)
        replace(self.here.secret(name), secret)
        _PAUSE.wait(4.0)  # the timeout of a request is 3 s
        provider.accept(name, secret)

    def _hangup(self, dice: random.Random) -> None:
        for _ in range(dice.randint(1, 5)):
            self.here.daemon.send(signal.SIGHUP)

    def _added(self, dice: random.Random) -> None:
        name, number = f"extra{next(self._numbers)}", dice.randrange(PROVIDERS)
        directory = self.here.output / name
        self.here.daemon.rewrite(document(self.here, {name: client(self.here, name, number, 3)}))
        eventually(lambda: (directory / "t0").exists() and (directory / "t2").exists())
        self.here.daemon.rewrite(self.here.config)
        eventually(lambda: not (directory / "t0").exists())

    def _broken(self, _: random.Random) -> None:
        daemon = self.here.daemon
        daemon.rewrite("clients: {p0c0: {tokens: [")
        eventually(daemon.config_error)
        daemon.rewrite(self.here.config)
        eventually(lambda: daemon.config_error() == "")

    def _deleted(self, _: random.Random) -> None:
        files = [path for path in (self.here.output / VICTIMS).iterdir() if not path.name.startswith(".")]
        began = time.monotonic()
        for path in files:
            path.unlink(missing_ok=True)  # it may be one that is replaced just now
        eventually(lambda: all(path.exists() for path in files))
        self.slowest_restore = max(self.slowest_restore, time.monotonic() - began)

    def _flood(self, _: random.Random) -> None:
        def ask_often(target: str) -> None:
            for _ in range(10):
                with suppress(NoAnswer):  # there may be too many clients
                    ask(self.here.daemon.socket, target)

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(ask_often, ("/status", "/metrics", "/readyz", "/status")))


def kill(here: Site, times: int, dice: random.Random, counts: Counter[str]) -> None:
    """Kill the daemon at random moments, and start it again. Lifetimes must be long."""
    for _ in range(times):
        _PAUSE.wait(dice.uniform(0.0, 1.0))
        here.daemon.kill()
        here.daemon.start()
        counts["SIGKILL"] += 1


def _nft(*arguments: str | Path) -> None:
    subprocess.run(["nft", *arguments], check=True)
