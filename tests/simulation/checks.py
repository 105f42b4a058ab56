"""The invariants, (a) to (g), as `docs/architecture.md` lists them."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict, deque
from math import inf
from typing import TYPE_CHECKING, Final

from bearerd.lifecycle.policy import LEAST_BETWEEN_ATTEMPTS
from bearerd.log import LOGGER
from bearerd.model import Target
from simulation.excuses import LOOK, Excuse
from simulation.server import Arrival, Known

if TYPE_CHECKING:
    from simulation.host import Host

INVARIANTS: Final = {
    "a": "no file holds a dead token, or none, without an excuse",
    "b": "one grant a target; slots, rate limits and the ledger are kept",
    "c": "no good token is removed, or replaced by one that ends earlier",
    "d": "every target has a next turn; recovery within its time; urgent ones first",
    "e": "wanted targets, and only they, have a controller, files and a row",
    "f": "a healthy provider causes no ERROR and no on_failure",
    "g": "no new token replaces a good one before it is accepted",
}
KNOWN_EARLIER: Final = 7.0
"""Seconds by which a daemon may believe in an earlier end: it counts from before the request, providers name whole
seconds, and an expiry that moves by less than 5 s is one that is counted down."""
REFUSED: Final = 4
REFUSED_WITHIN: Final = 120.0
CLOSED: Final = 60.0
"""Seconds after a token for which its client is closed: then its targets' first attempts are not governed."""
DATE_ROUNDED: Final = 1.0
"""Seconds by which the provider's clock may be misread: `Date` has whole seconds."""
INSTANT: Final = 0.01
"""Seconds: two moments that are nearer are one, as far as floats and the order of events tell."""
TRACED: Final = 50
_EACH_EVENT: Final = 50
"""So many targets are looked at after each event; of more, some after every second one, and so on."""


class Violation(BaseException):
    """An invariant is broken. Not an Exception: no handler of the code under test may catch it."""

    def __init__(self, invariant: str, text: str, target: str = "") -> None:
        super().__init__(invariant, text, target)
        self.invariant = invariant
        self.text = text
        self.target = target

    def __str__(self) -> str:
        return f"({self.invariant}) {self.text}"


class Checks:
    """What has been seen of one run, and what must hold."""

    def __init__(self, run: Host) -> None:
        self._run = run
        self.made: Counter[str] = Counter()
        self.excuses: defaultdict[str, list[Excuse]] = defaultdict(list)
        """By target."""
        self.traces: defaultdict[str, deque[tuple[float, str]]] = defaultdict(lambda: deque(maxlen=TRACED))
        self.lacking: dict[str, float] = {}
        """By target: since when its file is missing."""
        self._arrivals: defaultdict[str, deque[float]] = defaultdict(deque)
        """By client: what its rate limit counts."""
        self._lenient: dict[str, float] = {}
        """By client: from when on every request was sent under its present rate limit."""
        self._refused: defaultdict[str, deque[float]] = defaultdict(deque)
        """By client: when refused attempts of the ledger arrived."""
        self._refusing: dict[str, float] = {}
        """By client: since when it, as a whole, has been known to be refused."""
        self._token: dict[str, float] = {}
        """By client: when it got its last token."""
        self._ended: dict[str, float] = {}
        """By client: when an attempt of it ended last."""
        self._own: set[str] = set()
        """Targets whose last answer was a refusal."""
        self._asked: dict[str, float] = {}
        """When the last attempt of each target was sent by the daemon that runs now."""
        self._events = 0
        self._rows_of: object = None
        """The config whose rows of status were looked at."""
        self._holding: dict[str, Known] = {}
        """By path: the token in it."""

    def trace(self, target: str, text: str) -> None:
        """Something happened that concerns a target."""
        self.traces[target].append((self._run.kernel.now, text))

    def excuse(self, target: str, excuse: Excuse) -> None:
        """A target has an excuse."""
        self.excuses[target].append(excuse)

    # -- (a), (c): files -------------------------------------------------------------------------

    def changed(self, path: str, content: bytes | None) -> None:
        """A file was replaced or removed."""
        run, now = self._run, self._run.kernel.now
        target = run.target_of(path)
        before = self._holding.pop(path, None)
        after = None if content is None else run.known(content.decode())
        if after is not None:
            self._holding[path] = after
            self._look_at_start(path, before, after)
            self._look_at_end(path, after)
        name = before.target if before else target.full_name if target else ""
        self.trace(name, f"{path}: {'removed' if after is None else f'{after.text[-12:]} until {after.ends:.1f}'}")
        if target is None or before is None or before.ends <= now or before.target != target.full_name:
            return
        self.made["c"] += 1
        if after is None and not self._may_remove(before):
            raise Violation("c", f"{path}: a token that is good until {before.ends:.1f} was removed", name)
        if (
            after is not None
            and after.ends < before.ends - KNOWN_EARLIER - run.skew()
            and not run.asked_otherwise(path)
        ):
            text = f"{path}: a token that is good until {before.ends:.1f} was replaced by one until {after.ends:.1f}"
            raise Violation("c", text, name)

    def _look_at_start(self, path: str, before: Known | None, after: Known) -> None:
        """A token in a file is accepted, unless there was no other one to wait with."""
        run, now = self._run, self._run.kernel.now
        in_request = run.stepped_at >= after.issued - DATE_ROUNDED  # a clock set just then gives a wrong skew
        if after.valid > now + DATE_ROUNDED and not in_request:
            raise Violation("g", f"{path}: a token that is valid from {after.valid:.1f} on", after.target)
        kept = run.kept[after.target]
        self.made["g"] += bool(kept.delay or kept.nbf)
        if after.replicated <= now + INSTANT:
            return
        alone = before is None or before.ends <= now + KNOWN_EARLIER or before.target != after.target
        # A record has the earlier expiry of a clock that was set.
        doubted = before is not None and (before.text in run.doubted or before.issued <= run.stepped_at)
        if not alone and not doubted and not run.asked_otherwise(path):
            text = f"{path}: a token that is accepted from {after.replicated:.1f} on replaced a good one"
            raise Violation("g", text, after.target)

    def _may_remove(self, token: Known) -> bool:
        """Whether a file may go though its token is good."""
        run, now = self._run, self._run.kernel.now
        put_back = any(
            each.what == "put back" and each.start <= now <= each.end + INSTANT for each in self.excuses[token.target]
        )
        # A record has the earlier expiry of a clock that was set; a process that begins knows no other.
        doubted = token.issued <= run.stepped_at <= run.started_at
        # Nor does it know a record of what was asked for before a reload.
        unknown = run.waits_for_another(token.target) and token.issued <= run.started_at
        return put_back or doubted or unknown or token.ends <= now + KNOWN_EARLIER or not run.names_ends(token.target)

    def _look_at_end(self, path: str, token: Known) -> None:
        """Look at a file when its token is dead; one that was prolonged by then is looked at again."""

        def look() -> None:
            if self._holding.get(path) is token:
                self.look(path)
                if token.ends > self._run.kernel.now:
                    self._look_at_end(path, token)

        self._run.kernel.at(token.ends + self._run.grace(token.target) + INSTANT, look)

    def look(self, path: str) -> None:
        """What a reader finds in a file."""
        run, now = self._run, self._run.kernel.now
        target = run.target_of(path)
        if target is None:
            return
        name = target.full_name
        self.made["a"] += 1
        held = self._holding.get(path)
        if held is not None and held.ends + run.grace(name) > now:
            return
        since = held.ends if held is not None else self.lacking.get(path, -inf)
        if not run.names_ends(name):
            since = -inf  # by what the provider said its token had ended before
        if not any(excuse.covers(now, since) for excuse in self.excuses[name]):
            what = f"its token is dead since {since:.1f}" if held is not None else f"missing since {since:.1f}"
            raise Violation("a" if since > now - 60.0 else "d", f"{path}: {what}", name)

    # -- (b): requests ---------------------------------------------------------------------------

    def arrived(self, arrival: Arrival) -> None:
        """A provider saw a request."""
        run, now, client = self._run, arrival.time, arrival.client
        answer = "refused" if arrival.refused else "no fault of the client"
        self.trace(arrival.target, f"request arrives, sent {arrival.sent:.2f}: {answer}")
        self.made["b"] += 1
        flying = run.flying[arrival.target]
        if flying > 1:
            raise Violation("b", f"{arrival.target}: {flying} grants at a time", arrival.target)
        self._check_rate(arrival)
        closed = self._token.get(client, -inf) > now - CLOSED and client not in self._refusing
        known = self._refusing.get(client)
        if not arrival.refused:
            return
        first = closed and arrival.target not in self._own
        if not first and known is not None and arrival.sent > known:
            refused = self._refused[client]
            while refused and refused[0] <= now - REFUSED_WITHIN:
                refused.popleft()
            refused.append(now)
            if len(refused) > REFUSED:
                raise Violation("b", f"{client}: {len(refused)} refused in 2 min", arrival.target)

    def ended(self, target: Target, kind: str, *, whole_client: bool) -> None:
        """The daemon knows what a request came to."""
        client, name, now = target.client.name, target.full_name, self._run.kernel.now
        self.trace(name, f"attempt ends: {kind}")
        self._ended[client] = now
        if kind == "issued":
            self._token[client] = now
            self._refusing.pop(client, None)
            self._own.discard(name)
        elif kind == "refused" and whole_client:
            if client not in self._refusing and name not in self._own:
                # The first of its kind: it counts, and those in flight with it do not.
                self._refused[client].append(now)
                self._refusing[client] = now
            self._own.add(name)

    def forgotten(self) -> None:
        """A process began without what an earlier one knew."""
        self._refused.clear()
        self._refusing.clear()
        self._token.clear()
        self._own.clear()
        self._arrivals.clear()

    def restarted(self) -> None:
        """Another process begins: its clients are half-open."""
        self._token.clear()
        self._asked.clear()

    def removed(self, name: str) -> None:
        """The target leaves the config: if it comes back, it is a new one."""
        self._asked.pop(name, None)

    def forgiven(self, client: str) -> None:
        """The daemon has another secret, or config, of the client: whether that is refused is not known."""
        self._refusing.pop(client, None)
        self._own = {name for name in self._own if name.partition("/")[0] != client}

    def limit_changed(self, client: str, limit: tuple[int, float] | None) -> None:
        """A client has another rate limit: what was sent before counted under the old one."""
        self._lenient[client] = self._run.kernel.now + (limit[1] if limit else 0.0)

    def _check_rate(self, arrival: Arrival) -> None:
        limit = self._run.limits.get(arrival.client)
        arrivals = self._arrivals[arrival.client]
        if limit is None:
            arrivals.clear()
            return
        count, window = limit
        arrivals.append(arrival.time)
        while arrivals[0] <= arrival.time - window:
            arrivals.popleft()
        if len(arrivals) > count and arrival.time >= self._lenient.get(arrival.client, -inf):
            raise Violation("b", f"{arrival.client}: {len(arrivals)} requests in {window:.0f} s", arrival.target)

    def granted(self, target: Target) -> None:
        """A request is about to be sent: slots, and the order of those that wait for one."""
        run, daemon = self._run, self._run.daemon
        provider = target.client.provider
        in_flight = daemon.in_flight.get(provider.name, 0)
        if in_flight >= max(provider.max_concurrency, run.slots_of_late(provider.name)):
            raise Violation("b", f"{provider.name}: {in_flight + 1} requests at a time", target.full_name)
        self.made["b"] += 1
        name, now = target.full_name, run.kernel.now
        if now - self._asked.get(name, -inf) < LEAST_BETWEEN_ATTEMPTS - INSTANT:
            raise Violation("b", f"{name}: two attempts within {now - self._asked[name]:.2f} s", name)
        self._asked[name] = now
        waiting = daemon.passed_over(target)
        if not waiting or run.world.turn_cost or target.client.name in self._refusing:
            return
        self.made["d"] += 1
        mine = run.urgency(target.full_name)
        for name in waiting:
            theirs = run.urgency(name)
            client = name.partition("/")[0]
            if client in self._refusing or self._ended.get(client, -inf) > run.kernel.now - INSTANT:
                continue  # refused, or let go only in this very moment
            if theirs[:2] < mine[:2] or (theirs[:2] == mine[:2] and theirs[2] < mine[2] - INSTANT):
                raise Violation("d", f"{target.full_name} {mine} goes before {name} {theirs}", name)

    # -- (d), (e): turns -------------------------------------------------------------------------

    def settled(self) -> None:
        """Once no turn is due: everybody wanted is there, and has a turn to come."""
        daemon = self._run.daemon
        turns, now = daemon.turns, daemon.clock.now().boot
        self._events += 1
        if self._events % (1 + len(self._run.kept) // _EACH_EVENT):
            return
        if not daemon.alive_ or turns.busy or turns.next_due() <= now + INSTANT or self._run.deaf():
            return
        self.made["e"] += 1
        for problem in daemon.reconciler.problems():
            raise Violation("e", problem, problem.partition(":")[0])
        wanted = {target.full_name: target for target in daemon.config.targets}
        for name in self._run.disk.records.keys() - wanted.keys():
            raise Violation("e", f"{name}: not wanted, with a record", name)
        paths = {output.path for target in wanted.values() for output in target.outputs}
        for path in self._run.disk.files.keys() - paths - self._run.abandoned:
            raise Violation("e", f"{path}: not wanted, and still there")
        if self._rows_of is not daemon.config:
            self._rows_of = daemon.config
            if [each.name for each in daemon.statuses()] != list(wanted):
                raise Violation("e", "the rows of status are not the wanted targets")
        self.made["d"] += 1
        for name in wanted:
            due = turns.due_of(name)
            if due is None or due == inf:
                raise Violation("d", f"{name}: no turn is to come", name)

    # -- (f): alarms -----------------------------------------------------------------------------

    def alarm(self, name: str, text: str) -> None:
        """The daemon says ERROR, or runs on_failure."""
        self.trace(name, f"alarm: {text}")
        now = self._run.kernel.now
        self.made["f"] += 1
        if not any(excuse.start <= now <= excuse.end + excuse.back + LOOK for excuse in self.excuses[name]):
            raise Violation("f", f"{name}: {text}", name)


class Alarms(logging.Handler):
    """Hears what the daemon says."""

    def __init__(self, checks: Checks) -> None:
        super().__init__(logging.ERROR)
        self._checks = checks

    def emit(self, record: logging.LogRecord) -> None:
        """One line."""
        name = getattr(record, "target", None) or ""
        self._checks.alarm(name, record.getMessage())


def listen(checks: Checks) -> None:
    """Hear errors from now on."""
    LOGGER.handlers = [Alarms(checks)]
    LOGGER.setLevel(logging.ERROR)
    LOGGER.propagate = False
