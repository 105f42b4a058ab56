"""The record and the files of every target, and the directory that holds them."""

from __future__ import annotations

import logging
import os
import posixpath
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from bearerd.descriptors import release
from bearerd.errors import BearerdError, DirectoryLocked, DirectoryUnusable, NotPermitted, PublishError
from bearerd.log import say
from bearerd.model import Config, Output, Target
from bearerd.plural import counted
from bearerd.publish import record as records
from bearerd.publish.advice import OUTPUT_ELSEWHERE, at, instead
from bearerd.publish.atomic import Files
from bearerd.publish.claims import Claims
from bearerd.publish.content import content_of
from bearerd.publish.directories import exposed, mounted
from bearerd.publish.lock import DirectoryLock
from bearerd.publish.looks import Looks, look, look_of
from bearerd.publish.notes import Notes
from bearerd.publish.owners import PRIVATE, PRIVATE_DIRECTORY, Attributes, attributes, uid_of
from bearerd.publish.record import Record
from bearerd.publish.template import Templates
from bearerd.publish.version import unknown_version
from bearerd.terms import OWN_DIRECTORY, Token

# Bytes. The longest reply (64 KiB), escaped as JSON, takes less than half of it.
_MOST_RECORD_BYTES: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Published:
    """The result of `ensure` or `withdraw`: the paths that were changed, and the faults."""

    written: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()


def _record_path(directory: str, client: str, token: str) -> str:
    return posixpath.join(directory, OWN_DIRECTORY, "records", client, f"{token}.json")


def peek(directory: str, client: str, token: str) -> Record | None:
    """A record below an output directory, which may belong to another user's daemon."""
    files = Files(directory, PRIVATE_DIRECTORY)
    try:
        content = files.read(_record_path(directory, client, token), _MOST_RECORD_BYTES)
    except PublishError:
        return None
    finally:
        files.close_directories()
    return None if content is None else records.load(content)


class Publisher:
    """Keeps the files of every target as they should be."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._own = posixpath.join(config.directory, OWN_DIRECTORY)
        self._files = Files(config.directory, config.directory_mode, config.group, own=self._own)
        self.notes = Notes(self._files, posixpath.join(self._own, "owed"))
        self._lock = DirectoryLock(posixpath.join(self._own, "lock"))
        self.lock_fault = ""
        self._templates = Templates()
        self._looks = Looks()
        self._claims = Claims(config, self._files)
        self._said: set[str] = set()
        """Paths about which something was logged."""

    def adopt(self, config: Config) -> None:
        """Replace the config; its output directory is the same."""
        self._config = config
        self._files.adopt(config.directory_mode, config.group)
        self._claims = Claims(config, self._files, self._claims)
        self._look_around()

    def prepare(self) -> None:
        """Make, check, lock and sweep the directory; raises DirectoryUnusable or DirectoryLocked."""
        self._refuse_if_in_use()
        self._take_lock()
        directories = {self._config.directory, self._own, posixpath.join(self._own, "records")}
        for target in self._config.targets:
            directories.add(posixpath.dirname(self._record_path(target)))
            directories |= {posixpath.dirname(output.path) for output in target.outputs}
        swept = self._files.sweep(directories | self.notes.directories(self._config.targets))
        if swept:
            say(logging.INFO, f"removed {counted(swept, 'temporary file')} of a bearerd that was killed")
        self._look_around()

    def look(self) -> None:
        """Restore the directory and its lock if they were removed or replaced since the last look.

        Raises DirectoryLocked if another bearerd took the lock meanwhile; this one writes nothing more then.
        """
        self._files.close_directories()
        try:
            with self._files.directory(self._own) as opened:
                if self._lock.is_held(opened.descriptor):
                    self.lock_fault = ""
                    return
        except (FileNotFoundError, NotADirectoryError, PublishError):
            pass  # `_take_lock` says what is wrong
        except OSError:
            return  # unknown at the moment, for example because no file descriptors are left
        try:
            self._take_lock()
        except DirectoryLocked as error:
            self._files.give_up()
            raise DirectoryLocked(f"another bearerd took the lock while this one ran: {error}") from None
        except BearerdError as error:
            if str(error) != self.lock_fault:
                self.lock_fault = str(error)
                say(
                    logging.ERROR,
                    f"the lock file was removed or replaced and cannot be restored: {error}; "
                    "trying again; tokens are refreshed as before",
                )
        else:
            self.lock_fault = ""
            say(logging.WARNING, f"{self._config.directory}: the lock file was removed or replaced; it is locked again")

    def release(self) -> None:
        """Release the lock; the files stay."""
        self._files.close_directories()
        self._lock.release()

    def load(self, target: Target) -> Record | None:
        """The target's record, if there is one. One of another format version is renamed and kept for a rollback."""
        path = self._record_path(target)
        # One look first: where nothing is, opening would walk to it for nothing, for each token of a first start.
        try:
            content = self._files.read(path, _MOST_RECORD_BYTES) if os.path.lexists(path) else None
        except PublishError as error:
            say(logging.WARNING, f"record: {error}; a new token is requested", name=target.full_name)
            return None
        if content is None:
            return None
        if version := unknown_version(content, records.SCHEMA):
            try:
                kept = self._files.keep_aside(path, version)
            except PublishError as error:
                say(logging.WARNING, f"record: {error}", name=target.full_name)
            else:
                text = f"the record is from another version of bearerd; it was kept as {kept}"
                say(logging.WARNING, text, name=target.full_name)
            return None
        if (record := records.load(content)) is None:
            say(logging.WARNING, f"record: {path} is damaged; a new token is requested", name=target.full_name)
        return record

    def recorded(self, target: Target) -> bool:
        """Whether the target's record exists. Cheap: one lstat."""
        return os.path.lexists(self._record_path(target))

    def save(self, target: Target, record: Record) -> None:
        """Write a target's record; raises PublishError."""
        self._files.replace(self._record_path(target), records.dump(record), PRIVATE)

    def ensure(self, target: Target, token: Token, before: Callable[[], None] = lambda: None) -> Published:
        """Make content, mode and owner of each file what they should be with this token.

        Files that are right already are not touched. `before` is called before the first one changes.
        """
        written: list[str] = []
        faults: list[str] = []
        begun = False
        for output in target.outputs:
            if fault := self._claims.refused.get(output.path):
                self._looks.forget(output.path)
                faults.append(fault)
                continue
            try:
                content = content_of(target, token, output, self._templates)
                wanted = attributes(output.mode, output.owner, output.group)
                if self._is_so(output.path, content, wanted):
                    continue
                if not begun:
                    begun = True
                    before()
                replaced = self._files.replace(output.path, content, wanted)
            except PublishError as error:
                faults.append(str(error))
                continue
            with suppress(PublishError):
                if not self._is_as_written(output.path, replaced.status, wanted) and not self._is_so(
                    output.path, content, wanted
                ):
                    if self._is_altered(output.path, content):
                        self._looks.altered(output.path)
                    else:
                        self._looks.differed_at_once(output.path)
            written.append(output.path)
            if replaced.warning is not None:
                say(logging.WARNING, replaced.warning, name=target.full_name)
        return Published(tuple(written), tuple(faults))

    def disturbed(self) -> set[str]:
        """The full names of targets with a file that may have been altered since it was right."""
        paths = self._looks.disturbed()
        if not paths:
            return set()
        targets = self._config.targets
        return {target.full_name for target in targets if any(output.path in paths for output in target.outputs)}

    def unrecorded(self, now: float) -> set[str]:
        """The full names of targets without a record, where records came or went since the last call (Unix time)."""
        by_client: dict[str, list[Target]] = {}
        for target in self._config.targets:
            by_client.setdefault(target.client.name, []).append(target)
        missing: set[str] = set()
        for client, targets in by_client.items():
            names = self._looks.names(posixpath.join(self._own, "records", client), now)
            if names is not None:
                missing |= {target.full_name for target in targets if f"{target.name}.json" not in names}
        return missing

    def forget(self, target: Target) -> None:
        """Remove the target's record and note; `withdraw` removes its files."""
        try:
            self._files.remove(self._record_path(target))
            self.notes.remove(target)
        except PublishError as error:
            say(logging.WARNING, f"record: {error}", name=target.full_name)

    def withdraw(self, outputs: Iterable[Output]) -> Published:
        """Remove files; what is a file of another output by this path, or one that bearerd reads, stays."""
        removed: list[str] = []
        faults: list[str] = []
        for output in outputs:
            self._looks.forget(output.path)
            if not self._claims.may_remove(output.path):
                continue
            try:
                if self._files.remove(output.path, uid_of(output.owner)):
                    removed.append(output.path)
            except PublishError as error:
                faults.append(str(error))
        return Published(tuple(removed), tuple(faults))

    def _refuse_if_in_use(self) -> None:
        """Raise DirectoryLocked if the directory belongs to another user whose bearerd runs in it.

        Root could move everything aside, and would take the directory from a running daemon. Only a lock of the
        directory's owner counts: a third user could plant one.
        """
        with suppress(OSError, PublishError), self._files.look(self._config.directory) as opened:
            owner = opened.status.st_uid
            if opened.missing or owner == os.geteuid():
                return
            own = os.open(
                OWN_DIRECTORY, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=opened.descriptor
            )
            try:
                if os.fstat(own).st_uid == owner:
                    self._lock.probe(own)
            finally:
                release(own)

    def _take_lock(self) -> None:
        """Make, check and lock bearerd's own directories; raises DirectoryUnusable or DirectoryLocked."""
        try:
            self._files.prove_writable(self._own)
            self._files.prove_writable(posixpath.join(self._own, "records"))
            self._files.judge(posixpath.join(self._own, "lock"))
            with self._files.directory(self._own) as opened:
                self._lock.take(opened.descriptor)
        except NotPermitted as error:
            raise DirectoryUnusable(instead(error, OUTPUT_ELSEWHERE)) from None
        except PublishError as error:
            raise DirectoryUnusable(str(error)) from None
        except OSError as error:
            raise DirectoryUnusable(at(self._own, error)) from None

    def _look_around(self) -> None:
        """Log once what is wrong with each directory and file, before the first request."""
        for path, meaning in exposed(self._config).items():
            if path not in self._said:
                self._said.add(path)
                say(logging.WARNING, f"directory {path}: {meaning}")
        whose = {output.path: target.full_name for target in self._config.targets for output in target.outputs}
        for path, fault in (mounted(whose) | self._claims.refused).items():
            if path not in self._said:
                self._said.add(path)
                say(logging.ERROR, f"this file cannot be written, all others can: {fault}", name=whose[path])

    def _is_so(self, path: str, content: bytes, wanted: Attributes) -> bool:
        """Whether a file is right, and if so record how it looks; raises PublishError."""
        # Look first: a change during the comparison is then seen at the next look.
        seen = look(path)
        if seen and self._files.matches(path, content, wanted):
            self._looks.right(path, seen)
            return True
        return False

    def _is_as_written(self, path: str, written: os.stat_result, wanted: Attributes) -> bool:
        """Whether a file is still the one that was just written, and if so record how it looks."""
        try:
            found = os.lstat(path)
        except OSError:
            return False
        same = os.path.samestat(found, written) and found.st_size == written.st_size
        if same and found.st_mtime_ns == written.st_mtime_ns and wanted.fits(found):
            self._looks.right(path, look_of(found))
            return True
        return False

    def _is_altered(self, path: str, content: bytes) -> bool:
        """Whether another program wrote or replaced a file: no file system changes content."""
        try:
            return self._files.read(path, len(content) + 1) != content
        except PublishError:
            return False

    def _record_path(self, target: Target) -> str:
        return _record_path(self._config.directory, target.client.name, target.name)
