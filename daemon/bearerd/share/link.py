"""Keeps the connection to the server of a share: one thread that listens, polls and connects again.

Announcements tell within milliseconds that a token changed. Every `POLL` seconds the thread also compares the fences of
all tokens, because a message may get lost, and a connection may be dead without an error.

The first operation that fails, in any thread, takes the link down. From then on operations fail at once, so that a
thousand due targets do not wait for the timeout one after the other.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from math import inf
from typing import Any, Final, TypeVar

from bearerd.clock import Clock
from bearerd.errors import unexpected
from bearerd.handoff import waiting
from bearerd.share.parts import LinkView, Listener
from bearerd.share.redis_store import RedisStore, Subscription
from bearerd.share.types import Answer, Claim, Names, ShareUnavailable, Store, Stored
from bearerd.terms import Redis
from bearerd.threads import Started, begin

POLL: Final = 5.0
"""Seconds. The longest time for which a lost announcement goes unnoticed, at a cost of one small command."""
SHORTEST: Final = 0.5
"""Seconds before the first new connection: a server restarts in about that time."""
LONGEST: Final = 10.0
"""Seconds. A server that is back is used soon, and a thousand daemons cost it a hundred connections per second."""
_GLANCE: Final = 0.02
"""Seconds. Enough to read what has arrived."""
_T = TypeVar("_T")


def backoff(failures: int, draw: float) -> float:
    """Seconds until the next connection, after this many failures in a row; `draw` is random in [0, 1)."""
    return min(LONGEST, SHORTEST * 2.0 ** min(failures - 1, 10)) * (0.5 + draw / 2)


class RedisLink:
    """A `Link` to Redis or Valkey."""

    def __init__(
        self,
        redis: Redis,
        environ: Mapping[str, str],
        clock: Clock,
        dice: Callable[[], float],
        listener: Listener,
    ) -> None:
        """`environ`: the daemon's environment, for secrets in variables. `dice`: random numbers for jitter."""
        self._redis = RedisStore(redis, environ)
        self._listener = listener
        self._clock = clock
        self._dice = dice
        self._changed = threading.Condition()
        self._view = LinkView("starting", clock.now().boot, "", None, 0)
        self._progressed = self._view.since
        """When the first connection made its last step, by the boot clock."""
        self._session = 0
        """Grows with each connection, so that a late failure of an earlier one does not end it."""
        self._compared = 0.0
        """When all fences were compared, by the boot clock."""
        self._subscription: Subscription | None = None
        self._stopping = threading.Event()
        self._start_again = inf
        """When to start the thread again, by the monotonic clock."""
        self._thread: Started | None = None
        self.store: Store = _Operations(self._do)

    def start(self) -> None:
        """Connect, and listen from now on. If no thread can be started, the link is down, and tries that again."""
        if not self._started():
            self._listener.lost()

    def stop(self) -> None:
        """End it for good. Its thread ends at once, or when its connection has failed."""
        with self._changed:
            self._stopping.set()
            if self._subscription is not None:
                self._subscription.hang_up()

    def usable(self) -> bool:
        """Whether an operation may succeed."""
        with self._changed:
            # Its thread may have ended for lack of memory, or never have begun.
            if self._start_again <= time.monotonic() or (self._thread is not None and not self._thread.alive()):
                self._started()
            return self._view.state == "up" or (self._view.state == "starting" and self._until_settled() > 0)

    def _started(self) -> bool:
        """Start the thread. Returns whether that was possible."""
        with self._changed:
            self._start_again = inf
            if self._stopping.is_set() or (self._thread is not None and self._thread.alive()):
                return True
            try:
                self._thread = begin("share", self._run)
            except RuntimeError as error:
                self._start_again = time.monotonic() + LONGEST
                self._failed(self._session, str(error))
                return False
            return True

    def fresh(self) -> bool:
        """Whether all fences were compared lately."""
        with self._changed:
            ago = self._clock.now().boot - self._compared
            return self._view.state == "up" and ago <= POLL + self._redis.timeout

    def view(self) -> LinkView:
        """Its state."""
        with self._changed:
            return self._view

    # -- operations, in any thread -------------------------------------------------------------

    def _do(self, operation: Callable[[Store], _T]) -> _T:
        """The result of an operation; raises ShareUnavailable, and the link is down then."""
        session = self._opened()
        try:
            return operation(self._redis)
        except ShareUnavailable as error:
            self._failed(session, str(error))
            raise

    def _opened(self) -> int:
        """The present session. While the first connection is made, this waits for it."""
        with self._changed:
            if self._view.state != "starting":
                return self._current()
        with waiting(), self._changed:
            while (left := self._until_settled()) > 0:
                if self._changed.wait_for(lambda: self._view.state != "starting", left):
                    break
            return self._current()

    def _current(self) -> int:
        if self._view.state == "up":
            return self._session
        raise ShareUnavailable(self._view.error or f"no connection after {self._redis.timeout:g} s; it is tried again")

    def _until_settled(self) -> float:
        """Seconds for which an operation may still wait for the next step of the first connection."""
        return self._progressed + self._redis.timeout - self._clock.now().boot

    def _failed(self, session: int, error: str) -> None:
        """An operation or a connection failed: the link is down, unless it was reopened meanwhile."""
        with self._changed:
            if session != self._session or self._stopping.is_set():
                return
            if self._view.state == "up":
                self._session += 1
            now = self._clock.now().boot
            since = self._view.since if self._view.state == "down" else now
            self._view = LinkView("down", since, error, now, self._view.errors + 1)
            if self._subscription is not None:
                self._subscription.hang_up()
            self._changed.notify_all()

    # -- the thread ----------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._keep_open()
        finally:
            self._redis.disconnect()

    def _keep_open(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            opened = None
            try:
                subscription, session = self._open()
                opened = time.monotonic()
                try:
                    if not self._stopping.is_set():
                        self._listener.restored()
                    self._listen(subscription, session)
                finally:
                    self._close(subscription)
            except Exception as error:  # noqa: BLE001 - without this thread, the link would never be up again
                with self._changed:
                    session = self._session if opened is None else session
                self._failed(session, _text_of(error))
            if self._stopping.is_set():
                break
            self._listener.lost()
            # A server that accepts connections but fails operations is not up for long.
            lasted = opened is not None and time.monotonic() - opened >= LONGEST
            failures = 1 if lasted else failures + 1
            self._stopping.wait(backoff(failures, self._dice()))

    def _open(self) -> tuple[Subscription, int]:
        """Connect, and prove that the server can be read, written and listened to."""
        self._redis.connect()
        self._step()
        subscription = self._redis.subscribe()
        self._step()
        try:
            self._redis.fences(())
        except ShareUnavailable:
            subscription.close()
            raise
        with self._changed:
            self._session += 1
            self._subscription = subscription
            now = self._compared = self._clock.now().boot
            self._view = replace(self._view, state="up", since=now)
            self._changed.notify_all()
            return subscription, self._session

    def _step(self) -> None:
        """Note that the server answered. Each step has the whole timeout: together they take several round trips."""
        with self._changed:
            self._progressed = self._clock.now().boot

    def _close(self, subscription: Subscription) -> None:
        with self._changed:
            self._subscription = None
        subscription.close()

    def _listen(self, subscription: Subscription, session: int) -> None:
        """Report changes until the link goes down or is stopped."""
        poll_at, answer_by = time.monotonic() + POLL, inf
        while not self._stopping.is_set() and session == self._session:
            # What was received while this process was paused is read before anything is late.
            heard = subscription.hear(max(min(poll_at, answer_by), time.monotonic() + _GLANCE))
            if heard:
                self._listener.changed(heard)
            now = time.monotonic()
            if subscription.answered == subscription.asked:
                answer_by = inf
            elif heard is None and now >= answer_by:
                raise ShareUnavailable("the connection for announcements is dead; it is opened again")
            if now >= poll_at:
                if answer_by == inf:
                    subscription.test()
                    answer_by = now + self._redis.timeout
                self._compare()
                poll_at = now + POLL

    def _compare(self) -> None:
        known = self._listener.known()
        began = self._clock.now().boot
        found = self._redis.fences(tuple(known))
        with self._changed:
            self._compared = began
        if changed := [token for token, fence in zip(known, found, strict=True) if known[token] != fence]:
            self._listener.changed(changed)


def _text_of(error: Exception) -> str:
    if isinstance(error, ShareUnavailable):
        return str(error)
    return f"the connection failed: {unexpected(error)}"


class _Operations:
    """A `Store` whose operations go through a link."""

    def __init__(self, do: Callable[[Callable[[Store], Any]], Any]) -> None:
        self._do = do

    def claim(self, names: Names, claim: Claim) -> Answer:
        answer: Answer = self._do(lambda store: store.claim(names, claim))
        return answer

    def store(self, names: Names, fence: int, sealed: bytes, ttl: float) -> Stored | None:
        newer: Stored | None = self._do(lambda store: store.store(names, fence, sealed, ttl))
        return newer

    def keep(self, names: Names, fence: int, wait: float) -> None:
        self._do(lambda store: store.keep(names, fence, wait))

    def fail(self, names: Names, fence: int, sealed: bytes, wait: float, *, whole_client: bool, refused: bool) -> None:
        self._do(lambda store: store.fail(names, fence, sealed, wait, whole_client=whole_client, refused=refused))

    def give_back(self, names: Names, fence: int) -> None:
        self._do(lambda store: store.give_back(names, fence))

    def read(self, names: Names) -> Stored:
        stored: Stored = self._do(lambda store: store.read(names))
        return stored
