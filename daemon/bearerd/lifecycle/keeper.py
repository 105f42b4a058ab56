"""One target's life, a turn at a time.

A turn may come at any moment, and more often than needed: it looks at what is, and brings it to what
should be. In this order: times put right after a step of the clock; a grant, if one is due and nothing
forbids it; the files. It ends with the moment at which the next turn is needed.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Protocol

from bearerd.clock import Clock
from bearerd.errors import PublishError
from bearerd.grant.outcome import KINDS, Failure, Issued, Outcome, Performed, Refused, Unsent
from bearerd.lifecycle import policy
from bearerd.lifecycle.doors import Admission, Reason
from bearerd.lifecycle.gate import Gate
from bearerd.log import say
from bearerd.model import Instant, Output, Target, Token
from bearerd.publish.publisher import Published
from bearerd.publish.record import Record
from bearerd.words import duration

STILL_FAILING: Final = 600.0
"""Seconds between lines of the log about one trouble: often enough to be seen, seldom enough to be read."""
# Hex digits of a token's SHA-256: enough to tell it from any other, and nothing to find it by.
_DIGEST: Final = 16
# More would not be told apart in a drawing.
_MOST_FAILURES: Final = 20


class Grants(Protocol):
    """What performs a grant."""

    def perform(self, target: Target) -> Performed:
        """What a grant came to, and the client id it was for."""
        ...


class Publisher(Protocol):
    """What keeps records and files."""

    def load(self, target: Target) -> Record | None:
        """The record, if there is one."""
        ...

    def save(self, target: Target, record: Record) -> None:
        """Keep a record; raises PublishError."""
        ...

    def recorded(self, target: Target) -> bool:
        """Whether there is a record."""
        ...

    def ensure(self, target: Target, token: Token, before: Callable[[], None] = ...) -> Published:
        """Bring the files to what this token makes them; `before` is called before the first one changes."""
        ...

    def withdraw(self, outputs: Iterable[Output]) -> Published:
        """Take files away."""
        ...


class Hooks(Protocol):
    """What tells others."""

    def announce(self, target: Target) -> None:
        """The target's files are about to change."""
        ...

    def owed(self, target: Target) -> bool:
        """Whether an earlier process changed the files and told nobody."""
        ...

    def undone(self, name: str) -> bool:
        """Whether hooks of the target are owed, or failed for good."""
        ...

    def changed(self, target: Target, *, first: bool) -> None:
        """All files are in place; `first`: there was no token before."""
        ...

    def failed(self, target: Target) -> None:
        """The token stopped being renewable."""
        ...


@dataclass(frozen=True, slots=True)
class Standing:
    """How a target stands after a turn, for whoever watches."""

    target: Target
    obtained: float | None
    """Boot clock; None before the first token."""
    expires: float | None
    """Boot clock; in the past where the token could not be renewed."""
    on_disk: bool
    """Whether every file is there with this token."""
    failure: Failure | None
    """What its last attempt failed of; or how its client was refused, where it waits for that."""
    due: float
    """Boot clock: when it is to be renewed."""
    next_turn: float
    """Boot clock: when it is asked for next, as far as that is known."""
    held_by: Reason = ""
    held_until: float = 0.0
    """Boot clock: when a door that held it back opens, as far as that is known."""
    failures: tuple[float, ...] = ()
    """Boot clock: when its last attempts failed, since the last that did not; no more than the last twenty."""
    attempts: int = 0
    """How many failed since the last that did not."""
    failing_since: float | None = None
    """Boot clock."""
    faults: tuple[str, ...] = ()
    """What went wrong with its files at the last look."""
    readable_until: float = 0.0
    """Boot clock: until when what every file holds is good: this token, or while it is written the one before."""
    outcomes: tuple[int, ...] = (0,) * len(KINDS)
    """How many of its grants came to each kind (`KINDS`)."""

    @property
    def name(self) -> str:
        """The target's full name."""
        return self.target.full_name

    @property
    def client(self) -> str:
        """The client's name."""
        return self.target.client.name


class Keeper:
    """Keeps one target's token fresh and in its files. `turn` is called by one thread at a time."""

    # With so many attributes a dict of its own for each would be 2 KB: 20 MB of ten thousand.
    __slots__ = (
        "_client_id", "_clock", "_counts", "_dice", "_due", "_failed_at", "_failing_since", "_failure", "_faults",
        "_first", "_gate", "_gone", "_grants", "_held", "_hooks", "_identity", "_name", "_next", "_not_before",
        "_on_disk", "_only_times", "_outcomes", "_publish_faults", "_publisher", "_readable_until", "_remade",
        "_said_at", "_said_expired", "_token", "_told_lost", "_unsaved", "_untold", "target",
    )  # fmt: skip

    def __init__(
        self,
        target: Target,
        clock: Clock,
        dice: Callable[[], float],
        grants: Grants,
        publisher: Publisher,
        gate: Gate,
        hooks: Hooks,
    ) -> None:
        self.target = target
        self._clock = clock
        self._dice = dice
        self._grants = grants
        self._publisher = publisher
        self._gate = gate
        self._hooks = hooks
        self._name = target.full_name
        self._token: Token | None = None
        self._client_id = ""
        self._identity = ""
        """What the token was asked for; another than the target's from a changed config until the next grant."""
        self._due = 0.0
        # What the last failure asked for; no step of the clock brings the next attempt before it.
        self._not_before = 0.0
        # When (boot clock) the token is no good by any reading: a clock that was set wrong removes no file.
        self._gone = 0.0
        self._counts: Counter[type[Failure]] = Counter()
        self._failure: Failure | None = None
        self._failing_since = 0.0
        self._failed_at: tuple[float, ...] = ()
        self._outcomes = [0] * len(KINDS)
        self._said_at = 0.0
        self._said_expired = False
        self._unsaved = False
        self._publish_faults = 0
        self._faults: tuple[str, ...] = ()
        self._on_disk = False
        self._readable_until = 0.0
        self._first = True
        """Whether there was no token of this name before."""
        self._only_times = False
        """Whether nothing of the files is to change but times, after a step of the clock."""
        self._remade = False
        """Whether what the files are made from changed: nobody altered them, and they are not put back."""
        self._untold = False
        """Whether files changed, and nobody was told yet."""
        self._told_lost = False
        self._held = Admission(0.0)
        self._next = 0.0

    # -- the start -----------------------------------------------------------------------------

    def resume(self, client_id: str | None, least: float = 0.0) -> None:
        """Take up the record, if it is this target's and still good.

        `client_id` is None where it cannot be read now. A token that is good for less than `least`
        seconds is renewed at once.
        """
        now = self._clock.now()
        self._due = now.boot
        self._untold = self._hooks.owed(self.target)
        record = self._publisher.load(self.target)
        self._first = record is None and not self._untold
        if record is None or record.identity != self.target.identity() or client_id not in (None, record.client_id):
            return
        self._gate.prove(self.target)
        dated = policy.redate(record.token, now)
        remaining = dated.token.expires.boot - now.boot
        if remaining <= 0:
            return
        self._token, self._client_id, self._unsaved = dated.token, record.client_id, dated.stepped
        self._identity = record.identity
        self._only_times = dated.stepped
        self._gone = dated.token.expires.boot
        if not dated.disagreed and remaining >= least:
            self._due = max(now.boot, self._due_of(dated.token, now.boot - policy.LEAST_BETWEEN_TURNS))
        say(
            logging.INFO,
            f"the token on record is good for {duration(remaining)}",
            name=self._name,
        )

    def adopt(self, target: Target, *, renew: bool) -> None:
        """Go on as a changed config has it: a new grant now, or only other files and another schedule."""
        if target.on_change != self.target.on_change and self._hooks.undone(self._name):
            self._untold = True  # a hook that was mended is what somebody waits for
        self.target, self._on_disk, self._only_times = target, False, False
        self._readable_until = 0.0
        now = self._clock.now().boot
        if renew or (self._token is not None and self._identity != target.identity()):
            self._due = self._not_before = now
        elif self._token is not None and self._failure is None:
            self._due = max(now, self._due_of(self._token, now - policy.LEAST_BETWEEN_TURNS))
        else:
            self.hurry()

    def hurry(self) -> None:
        """What its last attempt failed of may be mended: ask now, if it failed of what is ours or of a refusal."""
        if isinstance(self._failure, Unsent | Refused):
            self._due = self._not_before = self._clock.now().boot

    def remake(self) -> None:
        """What its files are made from is another."""
        self._remade, self._only_times = True, False

    def refresh(self) -> None:
        """Somebody asks for a new token: now, or when the last failure lets it."""
        self._due = min(self._due, max(self._clock.now().boot, self._not_before))

    def valid(self) -> bool:
        """Whether there is a token that is still good."""
        return self.remaining(self._clock.now().boot) > 0

    def lost_record(self) -> bool:
        """Whether somebody took the record of a good token away."""
        return self.valid() and not self._unsaved and not self._publisher.recorded(self.target)

    def holds(self, digest: str) -> bool:
        """Whether its token's SHA-256 begins with these 16 hex digits."""
        token = self._token
        if token is None:
            return False
        known = hashlib.sha256(token.access_token.encode()).hexdigest()[:_DIGEST]
        return hmac.compare_digest(known, digest.lower())

    # -- a turn --------------------------------------------------------------------------------

    def turn(self) -> float:
        """Do what is due; returns when (boot clock) the next turn is needed."""
        now = self._clock.now()
        self._put_times_right(now)
        until = self._due
        self._held = Admission(until)
        if now.boot >= self._due:
            self._held = self._gate.admit(self.target, now.boot, self.remaining(now.boot))
            until = self._held.until
            if not self._held.reason:
                until = self._ask()
                now = self._clock.now()
        self._next = until
        self._tend_files(now)
        self._tell_if_lost(now.boot)
        if self._failure is not None and now.boot - self._said_at >= STILL_FAILING:
            # Also between attempts: those of a refused client are up to an hour apart.
            self._say_trouble(self._failure, now, until)
        return self._next_turn(now.boot, until)

    def standing(self) -> Standing:
        """How it stands."""
        token, held, failure = self._token, self._held, self._failure
        if held.reason == "refused":
            failure = failure or self._gate.refusal(self.target)
        return Standing(
            target=self.target,
            obtained=token.obtained.boot if token else None,
            expires=token.expires.boot if token else None,
            on_disk=self._on_disk,
            failure=failure,
            due=self._due,
            next_turn=self._next,
            held_by=held.reason,
            held_until=held.until,
            failures=self._failed_at,
            attempts=sum(self._counts.values()),
            failing_since=self._failing_since if self._failure is not None else None,
            faults=self._faults,
            readable_until=self._readable_until,
            outcomes=tuple(self._outcomes),
        )

    def remaining(self, now: float) -> float:
        """How many seconds the present token is still good; 0 without one."""
        token = self._token  # others ask too, while a turn puts another there
        return max(0.0, token.expires.boot - now) if token else 0.0

    # -- a grant -------------------------------------------------------------------------------

    def _ask(self) -> float:
        """Perform a grant; returns when the next one is due."""
        outcome: Outcome | None = None
        wait = 0.0
        self._next = self._clock.now().boot
        try:
            performed = self._grants.perform(self.target)
            outcome = performed.outcome
            now = self._clock.now()
            if isinstance(outcome, Issued):
                if self._identity != self.target.identity():
                    self._token = None  # of another config: it says nothing of this one
                self._client_id, self._identity = performed.client_id, self.target.identity()
                self._take(outcome, now)
                return self._due
            wait = self._fail(outcome, now)
            return now.boot + wait
        finally:
            if outcome is not None:
                # After all else is noted: who waits for one more grant sees what came of it.
                self._outcomes[list(KINDS).index(type(outcome))] += 1
            # Whatever happens, a door may not wait for ever for one who does not come back.
            self._gate.report(self.target, outcome, self._clock.now().boot, wait)

    def _take(self, issued: Issued, now: Instant) -> None:
        new, old = issued.token, self._token
        self._told_lost = False
        self._not_before = now.boot + policy.LEAST_BETWEEN_TURNS
        if old is not None and old.access_token == new.access_token and old.expires.boot > now.boot:
            # A reply from a cache repeats its expires_in: the earlier expiry is the true one.
            if new.expires.boot < old.expires.boot - policy.LEAST_BETWEEN_TURNS:
                self._token, self._unsaved, self._on_disk, self._gone = new, True, False, new.expires.boot
            self._due = policy.due_after_same(min(new.expires.boot, old.expires.boot), now.boot)
            self._recovered(now.boot)
            say(
                logging.DEBUG,
                f"the same token again; asking again {self._in(self._due, now)}",
                name=self._name,
            )
            return
        self._token, self._unsaved, self._on_disk, self._said_expired = new, True, False, False
        self._only_times = False
        self._gone = new.expires.boot
        self._due = self._due_of(new, now.boot)
        for note in issued.notes:
            say(logging.WARNING if old is None else logging.DEBUG, note, name=self._name)
        self._recovered(now.boot)
        say(
            logging.INFO,
            f"token obtained, good for {duration(self.remaining(now.boot))}; next refresh {self._in(self._due, now)}",
            name=self._name,
        )

    def _fail(self, failure: Failure, now: Instant) -> float:
        """Take note of a failure; returns for how many seconds is waited."""
        self._counts[type(failure)] += 1
        self._failed_at = (*self._failed_at, now.boot)[-_MOST_FAILURES:]
        count = self._counts[type(failure)]
        proven, refusals = self._gate.history(self.target)
        of_client = isinstance(failure, Refused) and failure.whole_client
        if of_client:
            count = refusals + 1
        elif isinstance(failure, Refused):
            proven = self._token is not None
        wait = policy.wait_after(failure, count, self.remaining(now.boot), proven, self._dice())
        # A refused client is waited for at its door: whoever finds that it works again lets all go.
        self._not_before = now.boot + (policy.LEAST_BETWEEN_TURNS if of_client else wait)
        self._due = self._not_before
        until = now.boot + wait
        if isinstance(failure, Refused) and self._token is not None:
            until = policy.last_chance(now.boot, until, self._token.expires.boot)
            self._due = min(self._due, until)
        self._say_failure(failure, now, until)
        return wait if of_client else until - now.boot

    def _due_of(self, token: Token, last_turn: float) -> float:
        target = self.target
        return policy.due_after_issue(token, target.refresh_before, target.max_staleness, last_turn, self._dice())

    # -- the clocks ----------------------------------------------------------------------------

    def _put_times_right(self, now: Instant) -> None:
        if self._token is None:
            return
        dated = policy.redate(self._token, now)
        if not dated.stepped:
            return
        self._only_times = self._on_disk and not self._remade
        self._token, self._unsaved, self._on_disk = dated.token, True, False
        if dated.disagreed:
            self._due = max(now.boot, self._not_before)
        say(
            logging.WARNING,
            f"the clock was set: by the earlier reading the token is good for {duration(self.remaining(now.boot))}"
            + ("; refreshing it" if dated.disagreed else ""),
            name=self._name,
        )

    # -- the files -----------------------------------------------------------------------------

    def _tend_files(self, now: Instant) -> None:
        if self._token is None:
            if self.target.on_expiry == "remove":
                self._note_faults(self._publisher.withdraw(self.target.outputs).faults)
            return
        if now.boot >= self._gone:
            self._expire()
            return
        if self._identity != self.target.identity():
            return  # the files stay as they are until there is what they are for now
        faults: tuple[str, ...] = ()
        if self._unsaved or not self._publisher.recorded(self.target):
            try:
                # The record first: after a crash between the two the files are made from it.
                self._publisher.save(self.target, Record(self._token, self._identity, self._client_id))
                self._unsaved = False
            except PublishError as error:
                faults = (str(error),)
        published = self._publisher.ensure(self.target, self._token, self._announce)
        was_on_disk, self._on_disk = self._on_disk, not published.faults
        self._readable_until = self._gone if self._on_disk else 0.0
        if published.written and was_on_disk and not self._publish_faults and not self._remade:
            say(logging.WARNING, f"put back: {', '.join(published.written)}", name=self._name)
        self._remade = False
        self._note_faults(faults + published.faults)
        old_news = {output.path for output in self.target.outputs if output.holds_times} if self._only_times else set()
        self._untold = self._untold or not old_news.issuperset(published.written)
        if self._on_disk:
            if self._untold:
                self._hooks.changed(self.target, first=self._first)
            self._untold = self._only_times = self._first = False

    def _announce(self) -> None:
        if not self._only_times:
            self._hooks.announce(self.target)

    def _tell_if_lost(self, now: float) -> None:
        """Once a trouble: that the token is not renewed, and that is more than passing."""
        if self._told_lost:
            return
        failure, remaining = self._failure, self.remaining(now)
        count = self._counts[type(failure)] if failure is not None else 0
        if self._held.reason == "refused" or (isinstance(failure, Refused) and failure.whole_client):
            failure, count = self._gate.refusal(self.target) or failure, self._gate.history(self.target)[1]
        lasted = now - self._failing_since
        lost = failure is not None and policy.is_lost(failure, count, remaining, lasted)
        if lost or (self._token is not None and now >= self._gone):
            self._told_lost = True
            self._hooks.failed(self.target)

    def _expire(self) -> None:
        self._on_disk = False
        removed = self.target.on_expiry == "remove"
        if removed:
            self._note_faults(self._publisher.withdraw(self.target.outputs).faults)
        if not self._said_expired:
            self._said_expired = True
            say(
                logging.ERROR,
                "the token has expired and could not be renewed; its files "
                + ("are removed" if removed else "hold the expired one"),
                name=self._name,
            )

    def _note_faults(self, faults: tuple[str, ...]) -> None:
        """Count a look at the files that went wrong, and say so once; or that it went well again."""
        self._faults = faults
        if not faults:
            if self._publish_faults:
                say(logging.INFO, f"files are well again after {self._publish_faults} attempts", name=self._name)
            self._publish_faults = 0
            return
        self._publish_faults += 1
        if self._publish_faults == 1:
            say(
                logging.ERROR,
                f"files: {'; '.join(faults)}; what stood there before still stands; trying again",
                name=self._name,
            )

    # -- when next -----------------------------------------------------------------------------

    def _next_turn(self, now: float, until: float) -> float:
        """The earliest of: the grant, the expiry, another try at files, the next line about a failure."""
        moments = [until]
        if self._token is not None and not self._said_expired:
            moments.append(self._gone)
        if self._publish_faults:
            moments.append(now + policy.wait_after_publish_fault(self._publish_faults))
        if self._failure is not None:
            moments.append(self._said_at + STILL_FAILING)
        if until > self._due and self._token is not None:  # held at a door
            moments.append(policy.last_chance(now, until, self._token.expires.boot))
        return max(min(moments), now + 0.001)

    # -- the log -------------------------------------------------------------------------------

    def _say_failure(self, failure: Failure, now: Instant, until: float) -> None:
        """A trouble that is new, or of another kind, is said; a further attempt only to who debugs."""
        known, self._failure = self._failure, failure
        if known is None:
            self._failing_since = now.boot
        another = isinstance(known, Refused) and known.another_secret
        if type(failure) is type(known) and not another:  # a refusal that promised another secret is not the last word
            say(logging.DEBUG, f"attempt failed: {failure}", name=self._name)
        else:
            self._say_trouble(failure, now, until)

    def _say_trouble(self, failure: Failure, now: Instant, until: float) -> None:
        """What fails and why, what still holds, and when it is tried again."""
        self._said_at = now.boot
        remaining, attempts = self.remaining(now.boot), sum(self._counts.values())
        holds = f"the present token is good for {duration(remaining)}" if remaining else "there is no valid token"
        lasted = now.boot - self._failing_since
        still = f"still failing after {attempts} attempts in {duration(lasted)}: " if lasted > 0 else ""
        say(
            logging.WARNING if remaining else logging.ERROR,
            f"{still}{failure}; {holds}; next attempt {self._in(until, now)}",
            name=self._name,
        )

    def _recovered(self, now: float) -> None:
        if self._failure is not None:
            attempts = sum(self._counts.values())
            say(
                logging.INFO,
                f"recovered after {attempts} failed attempt{'' if attempts == 1 else 's'} "
                f"in {duration(now - self._failing_since)}",
                name=self._name,
            )
        self._failure = None
        self._failed_at = ()
        self._counts.clear()

    def _in(self, moment: float, now: Instant) -> str:
        wait = moment - now.boot
        return "now" if wait <= 0 else f"in {duration(wait)}"
