"""One server of a fleet: what each target knows of its entries there, and which targets a change concerns."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from math import inf
from typing import Final

from bearerd.log import say
from bearerd.model import Target
from bearerd.redis_address import BadAddressError, parse
from bearerd.share.parts import Link, Listener
from bearerd.share.types import NEVER, Names, ShareView
from bearerd.terms import Redis, WhenUnavailable

Connect = Callable[[Redis, Listener], Link]
Wake = Callable[[str, float | None], None]

# Targets of a client that the end of one attempt wakes, besides its own. It makes room for one more attempt. The first
# success makes room for all: then the end of each attempt wakes others in turn. If each woke all of them, a thousand
# targets would claim a million times.
_WOKEN: Final = 8
# Seconds between two turns of a target because of announcements. A writer to the server can send any number of them.
_BETWEEN_WAKES: Final = 0.1
# Seconds between two log lines about one kind of error, as for lasting failures of a token.
_SAY_AGAIN: Final = 600.0


@dataclass(slots=True, eq=False)
class EntryState:
    """What a target knows of its entry at a server.

    Its own turns change it. The link, and a changed config or key, also change `look`, `unreadable`, `busy_since` and
    `woken`, from other threads.
    """

    target: Target
    names: Names
    client_id: str
    look: bool = True
    """Whether the entry may have changed since the last look."""
    stored_fence: int = NEVER
    """The fence that was stored at the last look."""
    seen: int = NEVER
    """The greatest fence that was stored or given so far."""
    unreadable: int = NEVER
    """The fence of a stored token that cannot be used."""
    last_failure: bytes = b""
    """A digest of the last failure that the target caused or heard of."""
    refused: tuple[str, ...] = ()
    """Fingerprints of credentials of the client that were refused since its last token."""
    waiting: bool = False
    """Whether the end of another attempt concerns it, of this target or of another one of the client."""
    held: bool = False
    """Whether it waits for the server, because `when_unavailable` is `wait`."""
    busy_since: float | None = None
    """Without a valid token: when this daemon found a lock of another one, if others followed it without a break.

    Announcements of ended attempts reset it.
    """
    busy_until: float = 0.0
    """When the last of them ends."""
    woken: float = -inf
    """When the server's announcements gave it a turn last, or will."""


class Server:
    """The link to a server, and what the targets that share through it know of their entries. Thread-safe."""

    def __init__(self, redis: Redis, connect: Connect, wake: Wake, now: Callable[[], float]) -> None:
        self.name = _name(redis)
        self.link = connect(redis, self)
        self.offset: float | None = None
        """The server's time less the boot clock, at most; None if the server has not told it yet."""
        self.clients: tuple[str, ...] = ()
        """The clients that share through it."""
        self.policies: frozenset[WhenUnavailable] = frozenset()
        """Their policies."""
        self.taken = self.stored = 0
        self._wake = wake
        self._now = now
        self._lock = threading.Lock()
        self._states: dict[str, EntryState] = {}
        self._by_name: dict[str, dict[str, EntryState]] = {}
        """By each name in the store, and by target."""
        self._down = False
        self.back_at = -inf
        """When the link was restored last. Boot clock."""
        self._error, self._error_at, self._errors = "", None, 0  # type: tuple[str, float | None, int]
        self._said: dict[str, float] = {}
        self._said_down: dict[str, float] = {}
        """When each reason why the server is unavailable was logged, since it is."""

    # -- entry states -----------------------------------------------------------------------------

    def state(self, target: Target, client_id: str, names: Callable[[], Names]) -> EntryState:
        """The state of a target's entry. A target whose names changed gets a new one."""
        full_name = target.full_name
        state = self._states.get(full_name)
        if state is not None and state.target is target and state.client_id == client_id:
            return state
        wanted = names()
        with self._lock:
            if state is not None and state.names == wanted:
                state.target = target
                return state
            self._drop(full_name)
            state = self._states[full_name] = EntryState(target, wanted, client_id)
            for name in (wanted.token, wanted.client):
                self._by_name.setdefault(name, {})[full_name] = state
            return state

    def drop(self, full_name: str) -> None:
        """Remove the state of a target, if it has one."""
        with self._lock:
            self._drop(full_name)

    def look_again(self, client: str | None = None) -> None:
        """Let the targets (of this client) read their entries again at their next turns: keys may have changed."""
        with self._lock:
            for state in self._states.values():
                if client in {None, state.target.client.name}:
                    state.look, state.unreadable = True, NEVER

    def _drop(self, full_name: str) -> None:
        state = self._states.pop(full_name, None)
        for name in (state.names.token, state.names.client) if state is not None else ():
            del self._by_name[name][full_name]
            if not self._by_name[name]:
                del self._by_name[name]

    # -- what the link reports -------------------------------------------------------------------

    def known(self) -> Mapping[str, int]:
        """The fences that were stored when each target last looked."""
        found: dict[str, int] = {}
        with self._lock:
            for state in self._states.values():
                found[state.names.token] = min(state.stored_fence, found.get(state.names.token, state.stored_fence))
        return found

    def changed(self, names: Collection[str]) -> None:
        """Wake the targets whose entries changed, and those that wait for the end of an attempt of their client."""
        woken: dict[str, float | None] = {}
        now = self._now()
        with self._lock:
            for name in names:
                states = self._by_name.get(name, {})
                of_client = [each for each, state in states.items() if state.names.token != name and state.waiting]
                for full_name in of_client[:_WOKEN]:
                    states[full_name] = states.pop(full_name)  # the others come first the next time
                    woken[full_name] = _next_wake(states[full_name], now)
                for full_name, state in states.items():
                    state.busy_since = None  # an attempt ended, so the locks are those of daemons that are at work
                    if state.names.token == name:
                        state.look = True
                        woken[full_name] = _next_wake(state, now)
        for full_name, at in woken.items():
            self._wake(full_name, at)

    def restored(self) -> None:
        """Wake all targets: anything may have changed."""
        with self._lock:
            was_down, self._down = self._down, False
            self._said_down.clear()
            self.back_at = self._now() if was_down else self.back_at
            for state in self._states.values():
                state.look = True
            woken = list(self._states)
        if was_down:
            say(logging.INFO, f"share {self.name} is available again")
        for full_name in woken:
            self._wake(full_name, None)

    def lost(self) -> None:
        """Log that the server is unavailable: at once, for each new reason, and every ten minutes."""
        error, now = self.link.view().error, self._now()
        with self._lock:
            was_down, self._down = self._down, True
            if was_down and now < self._said_down.get(error, -inf) + _SAY_AGAIN:
                return
            self._said_down[error] = now
        alone, wait = (
            "each token is refreshed by this daemon alone",
            "each token is kept until shortly before its expiry",
        )
        text = wait if self.policies == {"wait"} else alone if "wait" not in self.policies else (
            "each token is refreshed by this daemon alone, or kept until shortly before its expiry"
        )  # fmt: skip
        still = "still " if was_down else ""
        say(logging.WARNING, f"share {self.name} is {still}unavailable: {error}; {text}")

    # -- errors, and the view --------------------------------------------------------------------

    def note(self, kind: str, text: str) -> None:
        """Note an error of this daemon's part: a key, an entry or a clock. Logged once in ten minutes for each kind."""
        now = self._now()
        with self._lock:
            self._error, self._error_at = text, now
            self._errors += 1
            if (said := self._said.get(kind)) is not None and now < said + _SAY_AGAIN:
                return
            self._said[kind] = now
        say(logging.WARNING, f"share {self.name}: {text}")

    def view(self) -> ShareView:
        """Its state, for status and metrics."""
        link = self.link.view()
        with self._lock:
            error, error_at = link.error, link.error_at
            # While the link is down, its own error says why.
            if self._error_at is not None and link.state != "down" and (error_at is None or self._error_at >= error_at):
                error, error_at = self._error, self._error_at
            return ShareView(
                self.name,
                self.clients,
                link.state,
                link.since,
                error,
                error_at,
                waiting=sum(state.held for state in self._states.values()),
                taken=self.taken,
                stored=self.stored,
                errors=link.errors + self._errors,
            )


def _next_wake(state: EntryState, now: float) -> float | None:
    """When an announcement gives a target a turn; None: at once."""
    if now >= state.woken + _BETWEEN_WAKES:
        state.woken = now
        return None
    if state.woken <= now:
        state.woken += _BETWEEN_WAKES
    return state.woken


def _name(redis: Redis) -> str:
    """The server without user and password, or where its URL is read."""
    if not isinstance(redis.url, str):
        return str(redis.url)
    try:
        return parse(redis.url).name
    except BadAddressError:
        return "redis"
