"""One target's record and files: their state on disk, failed writes, and hooks that still have to run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Final, Protocol

from bearerd.errors import PublishError
from bearerd.lifecycle import policy
from bearerd.lifecycle.failure_log import STILL_FAILING
from bearerd.log import say
from bearerd.model import Output, Target
from bearerd.plural import counted, together
from bearerd.publish.publisher import Published
from bearerd.publish.record import Record
from bearerd.terms import Token

# Twice may be a user who removed a file and then its directory. A third time is probably a program.
_OFTEN: Final = 3
_CONTENDED: Final = (
    "this token was obtained: another program keeps changing it, perhaps another bearerd with the same path"
)


class Publisher(Protocol):
    """Stores records and files (publish/publisher.py)."""

    def load(self, target: Target) -> Record | None:
        """The record, if there is one."""
        ...

    def save(self, target: Target, record: Record) -> None:
        """Write a record. Raises PublishError."""
        ...

    def recorded(self, target: Target) -> bool:
        """Whether there is a record."""
        ...

    def forget(self, target: Target) -> None:
        """Remove the record."""
        ...

    def ensure(self, target: Target, token: Token, before: Callable[[], None] = ...) -> Published:
        """Make the files hold this token. `before` is called before the first file changes."""
        ...

    def withdraw(self, outputs: Iterable[Output]) -> Published:
        """Remove files."""
        ...


class Hooks(Protocol):
    """Runs the hooks."""

    def announce(self, target: Target) -> None:
        """Note that the target's files are about to change."""
        ...

    def owed(self, target: Target) -> bool:
        """Whether an earlier process changed the files without running the hooks."""
        ...

    def undone(self, name: str) -> bool:
        """Whether hooks of the target are still owed, or were given up."""
        ...

    def changed(self, target: Target, *, first: bool) -> None:
        """Run `on_change`: all files are in place; `first`: this is the first token."""
        ...

    def failed(self, target: Target) -> None:
        """Run `on_failure`."""
        ...

    def forget(self, name: str) -> None:
        """Forget a removed target."""
        ...


class FileState:
    """The files of one target. One thread at a time may call methods."""

    __slots__ = (
        "_attempts",
        "_expiry_said",
        "_first",
        "_hooks",
        "_only_times",
        "_ours",
        "_publisher",
        "_restored",
        "_rewritten",
        "_said_at",
        "_unannounced",
        "_unsaved",
        "faults",
        "on_disk",
        "previous_until",
        "readable_until",
    )  # fmt: skip

    def __init__(self, publisher: Publisher, hooks: Hooks) -> None:
        self._publisher = publisher
        self._hooks = hooks
        self.on_disk = False
        """Whether every file holds the current token."""
        self.readable_until = 0.0
        """Boot clock: until when the token in every file is valid."""
        self.previous_until = 0.0
        """Boot clock: until when the previous token is valid, which failed writes left in the files."""
        self.faults: tuple[str, ...] = ()
        """The errors of the last write."""
        self._attempts = 0
        """The number of failed writes in a row."""
        self._said_at: float | None = None
        """Boot clock: when a line was logged about the writes that fail."""
        self._expiry_said = 0.0
        """`previous_until` of the token whose expiry in the files was logged."""
        self._unsaved = False
        """Whether the record still has to be written."""
        self._first = True
        """Whether there was no token before."""
        self._ours: tuple[Output, ...] = ()
        """The files in which bearerd wrote a token. Another program wrote what is at other paths."""
        self._only_times = False
        """Whether only times in the files have to change, after a step of the clock."""
        self._restored = 0
        """How often files of this token were restored."""
        self._rewritten = False
        """Whether a template changed. The files then differ although no other process altered them."""
        self._unannounced = False
        """Whether files changed and hooks still have to run."""

    def load(self, target: Target) -> Record | None:
        """Load the record of an earlier process, and whether its hooks are still owed."""
        self._unannounced = self._hooks.owed(target)
        record = self._publisher.load(target)
        self._first = record is None and not self._unannounced
        if not self._first:
            self._ours = target.outputs
        return record

    def lost_record(self, target: Target) -> bool:
        """Whether the record was removed after it was written."""
        return self.on_disk and not self._unsaved and not self._publisher.recorded(target)

    def token_changed(self) -> None:
        """Note that the token or its lifetime changed."""
        self._unsaved, self.on_disk, self._only_times = True, False, False
        self._restored = 0

    def record_changed(self) -> None:
        """Note that only the record changed."""
        self._unsaved = True

    def times_changed(self, *, at_start: bool = False) -> None:
        """Note that the clock was set: times are rewritten, and hooks run only if something else changes, too."""
        self._only_times = (at_start or self.on_disk) and not self._rewritten
        self._unsaved, self.on_disk = True, False

    def config_changed(self, old: Target, new: Target) -> None:
        """Note that the config changed: other files or other hooks."""
        if new.on_change != old.on_change and self._hooks.undone(new.full_name):
            self._unannounced = True  # a corrected hook runs for the change that the old one missed
        self.on_disk, self._only_times, self.readable_until, self.previous_until = False, False, 0.0, 0.0

    def template_changed(self) -> None:
        """Note that a template changed."""
        self._rewritten, self._only_times = True, False

    def publish(self, target: Target, record: Record, good_until: float) -> None:
        """Make the record and every file hold this token, which is valid until `good_until` (boot clock)."""
        # The record comes first: after a crash between the two, the files are made from it.
        faults = self._save(target, record)
        published = self._publisher.ensure(target, record.published, lambda: self._announce(target))
        was_on_disk, self.on_disk = self.on_disk, not published.faults
        if self.on_disk:
            self._ours = target.outputs
        elif published.written:
            written = (output for output in target.outputs if output.path in published.written)
            self._ours += tuple(output for output in written if output not in self._ours)
        if self.on_disk or was_on_disk:  # otherwise another process altered the files, and nothing is known
            self.previous_until = 0.0
        elif self.readable_until:
            self.previous_until = self.readable_until
        self.readable_until = good_until if self.on_disk else 0.0
        if published.written and was_on_disk and not self._attempts and not self._rewritten:
            self._restored += 1
            why = f"; {self._restored} times since {_CONTENDED}" if self._restored >= _OFTEN else ""
            say(logging.WARNING, f"restored: {', '.join(published.written)}{why}", name=target.full_name)
        self._rewritten = False
        self._note(target, faults + published.faults)
        times = {output.path for output in target.outputs if output.holds_times} if self._only_times else set()
        self._unannounced = self._unannounced or not times.issuperset(published.written)
        if self.on_disk:
            if self._unannounced:
                self._hooks.changed(target, first=self._first)
            self._unannounced = self._only_times = self._first = False

    def keep(self, target: Target, record: Record) -> None:
        """Write the record of a token that waits, while there is no valid token for the files."""
        self._note(target, self._save(target, record))

    def _save(self, target: Target, record: Record) -> tuple[str, ...]:
        """Write the record if it changed or is missing. Returns what is wrong."""
        if self._unsaved or not self._publisher.recorded(target):
            try:
                self._publisher.save(target, record)
            except PublishError as error:
                return (str(error),)
            self._unsaved = False
        return ()

    def expire(self, target: Target) -> None:
        """Handle an expired token: remove its files if the config says so."""
        self.on_disk, self.readable_until, self.previous_until = False, 0.0, 0.0
        if target.on_expiry == "remove":
            removed = self._publisher.withdraw(self._written_by_us(target.outputs))
            if removed.written:
                say(logging.INFO, f"no valid token, removed: {', '.join(removed.written)}", name=target.full_name)
            self._note(target, removed.faults)

    def withdraw(self, target: Target, outputs: Iterable[Output]) -> None:
        """Remove files that are no longer in the config."""
        removed = self._publisher.withdraw(self._written_by_us(outputs))
        for fault in removed.faults:
            say(logging.ERROR, f"no longer in the config, but not removed: {fault}", name=target.full_name)
        if removed.written:
            paths = ", ".join(removed.written)
            say(logging.INFO, f"no longer in the config, removed: {paths}", name=target.full_name)

    def forget(self, target: Target) -> None:
        """Remove the record and owed hooks of a target that is no longer wanted."""
        # No turn loaded it, but an earlier process may have had a token.
        if self._publisher.recorded(target):
            self._ours += target.outputs
        self._publisher.forget(target)
        self._hooks.forget(target.full_name)

    def next_attempt(self, now: float) -> float | None:
        """When failed writes are retried, or the token that they left in the files expires; None without any."""
        if not self._attempts:
            return None
        retry = now + policy.wait_after_publish_fault(self._attempts)
        return min(retry, self.previous_until) if self.previous_until > now else retry

    def still_failing(self, target: Target, now: float) -> None:
        """Log every ten minutes that writes fail, and once that the token in the files has expired meanwhile."""
        if self._attempts and self._expiry_said < self.previous_until <= now:
            self._expiry_said = self._said_at = self.previous_until
            text = f"files: the token in them has expired, and the new one cannot be written: {together(self.faults)}"
            say(logging.ERROR, f"{text}; retrying", name=target.full_name)
        if not self._attempts or self._said_at is None:
            self._said_at = now if self._attempts else None
        elif now >= self._said_at + STILL_FAILING:
            self._said_at = now
            text = f"files: still failing after {self._attempts} attempts: {together(self.faults)}; retrying"
            say(logging.ERROR, text, name=target.full_name)

    def _written_by_us(self, outputs: Iterable[Output]) -> list[Output]:
        ours = {output.path for output in self._ours}
        return [output for output in outputs if output.path in ours]

    def _announce(self, target: Target) -> None:
        if not self._only_times:
            self._unannounced = True  # also if an exception hides which files were written
            self._hooks.announce(target)

    def _note(self, target: Target, faults: tuple[str, ...]) -> None:
        """Count failed writes. Logs the first failure and the recovery."""
        self.faults = faults
        if not faults:
            if self._attempts:
                attempts = counted(self._attempts, "failed attempt")
                say(logging.INFO, f"files are written again after {attempts}", name=target.full_name)
            self._attempts = 0
            return
        self._attempts += 1
        if self._attempts == 1:
            say(
                logging.ERROR,
                f"files: {together(faults)}; any previous content is unchanged; retrying",
                name=target.full_name,
            )
