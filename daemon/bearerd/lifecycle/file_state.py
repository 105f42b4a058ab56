"""One target's record and files: what is on disk, what failed, and what hooks are still to be told."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Protocol

from bearerd.errors import PublishError
from bearerd.lifecycle import policy
from bearerd.log import say
from bearerd.model import Output, Target, Token
from bearerd.publish.publisher import Published
from bearerd.publish.record import Record


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

    def forget(self, target: Target) -> None:
        """Take the record away."""
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

    def forget(self, name: str) -> None:
        """The target is no more."""
        ...


class FileState:
    """The files of one target. Called by one thread at a time."""

    __slots__ = (
        "_attempts",
        "_first",
        "_hooks",
        "_only_times",
        "_publisher",
        "_rewritten",
        "_unannounced",
        "_unsaved",
        "faults",
        "on_disk",
        "readable_until",
    )  # fmt: skip

    def __init__(self, publisher: Publisher, hooks: Hooks) -> None:
        self._publisher = publisher
        self._hooks = hooks
        self.on_disk = False
        """Whether every file is there with the present token."""
        self.readable_until = 0.0
        """Boot clock: until when what every file holds is good."""
        self.faults: tuple[str, ...] = ()
        """What went wrong at the last look."""
        self._attempts = 0
        """How many looks in a row went wrong."""
        self._unsaved = False
        """Whether the record is still to be written."""
        self._first = True
        """Whether there was no token of this name before."""
        self._only_times = False
        """Whether nothing of the files is to change but times, after a step of the clock."""
        self._rewritten = False
        """Whether a template changed: nobody altered the files, and they are not put back."""
        self._unannounced = False
        """Whether files changed and no hook was told yet."""

    def load(self, target: Target) -> Record | None:
        """The record that an earlier process left, and what it owes to hooks."""
        self._unannounced = self._hooks.owed(target)
        record = self._publisher.load(target)
        self._first = record is None and not self._unannounced
        return record

    def lost_record(self, target: Target) -> bool:
        """Whether somebody removed the record that was written."""
        return self.on_disk and not self._unsaved and not self._publisher.recorded(target)

    def token_changed(self) -> None:
        """There is another token, or it lives for another time."""
        self._unsaved, self.on_disk, self._only_times = True, False, False

    def record_changed(self) -> None:
        """Something of the record alone is different."""
        self._unsaved = True

    def times_changed(self, *, at_start: bool = False) -> None:
        """The clock was set: times are written anew, which is no news unless something else is to change."""
        self._only_times = (at_start or self.on_disk) and not self._rewritten
        self._unsaved, self.on_disk = True, False

    def config_changed(self, old: Target, new: Target) -> None:
        """Other files, or other hooks."""
        if new.on_change != old.on_change and self._hooks.undone(new.full_name):
            self._unannounced = True  # a hook that was mended is what somebody waits for
        self.on_disk, self._only_times, self.readable_until = False, False, 0.0

    def template_changed(self) -> None:
        """What a file is made from is different."""
        self._rewritten, self._only_times = True, False

    def publish(self, target: Target, record: Record, good_until: float) -> None:
        """Bring the record and every file to what they should be; `good_until` (boot clock) is how long they are."""
        faults: tuple[str, ...] = ()
        if self._unsaved or not self._publisher.recorded(target):
            try:
                # The record first: after a crash between the two the files are made from it.
                self._publisher.save(target, record)
                self._unsaved = False
            except PublishError as error:
                faults = (str(error),)
        published = self._publisher.ensure(target, record.token, lambda: self._announce(target))
        was_on_disk, self.on_disk = self.on_disk, not published.faults
        self.readable_until = good_until if self.on_disk else 0.0
        if published.written and was_on_disk and not self._attempts and not self._rewritten:
            say(logging.WARNING, f"put back: {', '.join(published.written)}", name=target.full_name)
        self._rewritten = False
        self._note(target, faults + published.faults)
        times = {output.path for output in target.outputs if output.holds_times} if self._only_times else set()
        self._unannounced = self._unannounced or not times.issuperset(published.written)
        if self.on_disk:
            if self._unannounced:
                self._hooks.changed(target, first=self._first)
            self._unannounced = self._only_times = self._first = False

    def expire(self, target: Target) -> None:
        """There is no good token: its files go where the config says so."""
        self.on_disk, self.readable_until = False, 0.0
        if target.on_expiry == "remove":
            self._note(target, self._publisher.withdraw(target.outputs).faults)

    def withdraw(self, target: Target, outputs: Iterable[Output]) -> None:
        """Take away files that the config no longer names."""
        removed = self._publisher.withdraw(outputs)
        for fault in removed.faults:
            say(logging.ERROR, f"no longer in the config, but not removed: {fault}", name=target.full_name)
        if removed.written:
            paths = ", ".join(removed.written)
            say(logging.INFO, f"no longer in the config, removed: {paths}", name=target.full_name)

    def forget(self, target: Target) -> None:
        """The target is no longer wanted: its record and what is owed to its hooks go."""
        self._publisher.forget(target)
        self._hooks.forget(target.full_name)

    def next_attempt(self, now: float) -> float | None:
        """When files that could not be written are tried again; None where there are none."""
        return now + policy.wait_after_publish_fault(self._attempts) if self._attempts else None

    def _announce(self, target: Target) -> None:
        if not self._only_times:
            self._hooks.announce(target)

    def _note(self, target: Target, faults: tuple[str, ...]) -> None:
        """Count a look at the files that went wrong, and say so once; or that it went well again."""
        self.faults = faults
        if not faults:
            if self._attempts:
                say(logging.INFO, f"files are well again after {self._attempts} attempts", name=target.full_name)
            self._attempts = 0
            return
        self._attempts += 1
        if self._attempts == 1:
            say(
                logging.ERROR,
                f"files: {'; '.join(faults)}; what stood there before still stands; trying again",
                name=target.full_name,
            )
