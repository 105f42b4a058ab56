"""The store of a fleet in simulated time: the model with the faults of a server, and a past to fall back on."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from math import inf
from random import Random
from typing import Any, Literal, Protocol, TypeVar

from bearerd.share.types import Answer, Claim, Names
from simulation.describe import Store
from simulation.kernel import WALL, Kernel
from support.share_model import ModelStore

T = TypeVar("T")


class Connection(Protocol):
    """A daemon's connection to it (fleet_link.py)."""

    number: int
    """Of its host."""

    def announced(self, names: Names) -> None:
        """These names are announced."""
        ...

    def disconnected(self) -> None:
        """The server closed the connection."""
        ...

    def poll_at(self, moment: float) -> None:
        """Something changed unannounced: let the first poll after that moment happen."""
        ...


class StoreServer:
    """One server with its faults, and what it has kept to fall back on."""

    def __init__(self, store: Store, kernel: Kernel, dice: Random) -> None:
        self.store = store
        self.kernel = kernel
        self.dice = dice
        self.model = ModelStore(self.clock, self._announce)
        self.links: list[Connection] = []
        self.answered: Callable[[Connection, Names, Answer, Claim], None] = lambda *_: None
        """FleetFailure of each answer to a claim."""
        self.stored: Callable[[Names, int], None] = lambda *_: None
        """FleetFailure of each new token."""
        self.kept: Callable[[Names, float], None] = lambda *_: None
        """FleetFailure of each that was returned again, and for how long it is kept."""
        self.refused: Callable[[Names], None] = lambda _: None
        """FleetFailure of each refusal of a client."""
        self._offset = 0.0
        self._refuses_until = self._silent_until = self._slow_until = self._mute_until = -inf
        self._keeps = 0.0
        self._past: deque[tuple[float, dict[str, Any]]] = deque()
        """What it held before each change of late."""
        self._snapshots: dict[float, dict[str, Any]] = {}

    def clock(self) -> float:
        """Its Unix time."""
        return WALL + self.kernel.now + self._offset

    # -- faults ----------------------------------------------------------------------------------

    def outage(self, seconds: float, *, silent: bool) -> None:
        """No command is answered for a while; connections are refused, or nothing comes back at all."""
        until = self.kernel.now + seconds
        if silent:
            self._silent_until = max(self._silent_until, until)
        else:
            self._refuses_until = max(self._refuses_until, until)
        self._disturb(drop=not silent)

    def slow(self, seconds: float) -> None:
        """Replies come after the timeout for a while."""
        self._slow_until = max(self._slow_until, self.kernel.now + seconds)
        self._disturb(drop=False)

    def mute(self, seconds: float) -> None:
        """Announcements are lost for a while."""
        self._mute_until = max(self._mute_until, self.kernel.now + seconds)

    def step(self, seconds: float) -> None:
        """Somebody sets its clock."""
        self._offset += seconds

    def flush(self) -> None:
        """FLUSHALL."""
        self.model.flush()
        self._disturb(drop=False)

    def remember(self, longest: float) -> None:
        """Keep the past of so many seconds, to fail over to."""
        self._keeps = longest

    def snapshot(self, until: float) -> None:
        """Save everything, for somebody who puts it back at that moment."""
        self._snapshots[until] = self._copy()

    def restore(self, moment: float) -> None:
        """Somebody puts the snapshot for this moment back."""
        self._load(self._snapshots.pop(moment))
        self._disturb(drop=True)

    def fail_over(self, seconds: float) -> None:
        """The server is gone. A replica without the latest writes takes over after so many seconds."""
        since = self.kernel.now - self.store.lag
        lost = next((past for time, past in self._past if time >= since), None)
        if lost is not None:
            self._load(lost)
        self._past.clear()
        self.outage(seconds, silent=False)

    def _copy(self) -> dict[str, Any]:
        return {
            name: {key: dict(value) if isinstance(value, dict) else value for key, value in kept.items()}
            for name, kept in vars(self.model).items()
            if isinstance(kept, dict)
        }

    def _load(self, content: dict[str, Any]) -> None:
        self.model.flush()
        for name, kept in content.items():
            getattr(self.model, name).update(kept)

    def _disturb(self, *, drop: bool) -> None:
        """Let the links notice: at once if their connections ended, else by their polls."""
        for link in self.links:
            if drop:
                link.disconnected()
            else:
                link.poll_at(self.kernel.now)

    # -- commands --------------------------------------------------------------------------------

    def state(self) -> Literal["well", "refuses", "silent", "slow"]:
        """How it answers now."""
        now = self.kernel.now
        if now < self._refuses_until:
            return "refuses"
        if now < self._silent_until:
            return "silent"
        return "slow" if now < self._slow_until else "well"

    def latency(self) -> float:
        """Seconds for one way."""
        return self.store.latency * (0.5 + self.dice.random())

    def apply(self, command: Callable[[ModelStore], T]) -> T:
        """Carry out one command."""
        if self._keeps:
            now = self.kernel.now
            while self._past and self._past[0][0] < now - self._keeps:
                self._past.popleft()
            self._past.append((now, self._copy()))
        return command(self.model)

    def _announce(self, names: Names) -> None:
        if self.kernel.now < self._mute_until:
            for link in self.links:
                link.poll_at(self.kernel.now)
            return
        for link in self.links:
            link.announced(names)
