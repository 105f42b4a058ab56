"""All of a target's files and its record."""

from __future__ import annotations

import logging
import os
import posixpath
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from bearerd.errors import DirectoryUnusable, PublishError
from bearerd.log import say
from bearerd.model import OWN_DIRECTORY, Config, Output, Target, Token
from bearerd.publish import record as records
from bearerd.publish.atomic import Attributes, Files, attributes, gid_of
from bearerd.publish.lock import DirectoryLock
from bearerd.publish.record import Record
from bearerd.publish.render import render

_PRIVATE: Final = Attributes(0o600)
_PRIVATE_DIRECTORY: Final = 0o700
# The longest reply's token and extra fields, escaped as JSON may need it, and the rest.
_MOST_RECORD_BYTES: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Published:
    """What a look at a target's files came to: which were written, and what went wrong."""

    written: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()


def _look(path: str) -> int:
    """A file's place, size, times, owner and mode, in one number: 10,000 tuples would be 2 MB."""
    try:
        found = os.lstat(path)
    except OSError:
        return 0
    return hash((found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns))


class Publisher:
    """Keeps the files of every target as they should be."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._files = Files(config.directory, config.directory_mode, config.group)
        self._seen: dict[str, int] = {}
        """How each file looked when it was as it should be: what has changed since is looked at more closely."""

    def adopt(self, config: Config) -> None:
        """Go on as this config has it; its directory is the same."""
        self._config = config
        self._files.adopt(config.directory_mode, config.group)

    def prepare(self) -> DirectoryLock:
        """Make and prove the directory, lock it, sweep it; raises DirectoryUnusable or DirectoryLocked."""
        own = posixpath.join(self._config.directory, OWN_DIRECTORY)
        try:
            self._files.prove_writable(own, make=True)
            records_directory = posixpath.join(own, "records")
            self._files.prove_writable(records_directory, make=True, mode=_PRIVATE_DIRECTORY)
        except PublishError as error:
            raise DirectoryUnusable(str(error)) from None
        lock = DirectoryLock(posixpath.join(own, "lock"))
        directories = {self._config.directory, own}
        for target in self._config.targets:
            directories.add(posixpath.dirname(self._record_path(target)))
            directories.add(posixpath.dirname(self._note_path(target)))
            directories |= {posixpath.dirname(output.path) for output in target.outputs}
        swept = self._files.sweep(directories)
        if swept:
            say(logging.INFO, f"swept {swept} temporary files that a killed bearerd left behind")
        return lock

    def load(self, target: Target) -> Record | None:
        """The target's record, if there is one."""
        content = self._files.read(self._record_path(target), _MOST_RECORD_BYTES)
        return None if content is None else records.load(content)

    def save(self, target: Target, record: Record) -> None:
        """Keep a target's record; raises PublishError."""
        path = self._record_path(target)
        self._files.replace(path, records.dump(record), _PRIVATE, directory_mode=_PRIVATE_DIRECTORY)

    def ensure(self, target: Target, token: Token, before: Callable[[], None] = lambda: None) -> Published:
        """Every file of the target as this token has it: bytes, mode and owner. What is so already is left.

        `before` is called before the first of them changes, if any does.
        """
        written: list[str] = []
        faults: list[str] = []
        begun = False
        for output in target.outputs:
            content = render(target, token, output)
            try:
                wanted = attributes(output.mode, output.owner, output.group)
                if self._files.matches(output.path, content, wanted):
                    self._seen[output.path] = _look(output.path)
                    continue
                if not begun:
                    begun = True
                    before()
                warning = self._files.replace(output.path, content, wanted)
                self._seen[output.path] = _look(output.path)
            except PublishError as error:
                faults.append(str(error))
                continue
            written.append(output.path)
            if warning is not None:
                say(logging.WARNING, warning, name=target.full_name)
        return Published(tuple(written), tuple(faults))

    def disturbed(self, target: Target) -> bool:
        """Whether a file looks otherwise than when it was last as it should be. Cheap: one lstat a file."""
        return any(
            output.path in self._seen and self._seen[output.path] != _look(output.path) for output in target.outputs
        )

    def forget(self, target: Target) -> None:
        """Take away the target's record, and its note; its files are for `withdraw`."""
        try:
            self._files.remove(self._record_path(target))
            self._files.remove(self._note_path(target))
        except PublishError as error:
            say(logging.WARNING, f"record: {error}", name=target.full_name)

    def note(self, target: Target) -> None:
        """Note that hooks are owed for a target; raises PublishError."""
        # What stands in it nobody reads.
        self._files.replace(self._note_path(target), b"hooks\n", _PRIVATE, directory_mode=_PRIVATE_DIRECTORY)

    def noted(self, target: Target) -> bool:
        """Whether hooks are owed for a target."""
        return self._files.read(self._note_path(target), 1) is not None

    def unnote(self, target: Target) -> None:
        """Take the note away."""
        try:
            self._files.remove(self._note_path(target))
        except PublishError as error:
            say(logging.WARNING, f"hooks: {error}; they are run once more at the next start", name=target.full_name)

    def withdraw(self, outputs: Iterable[Output]) -> Published:
        """Take files away."""
        removed: list[str] = []
        faults: list[str] = []
        for output in outputs:
            self._seen.pop(output.path, None)
            try:
                if self._files.remove(output.path):
                    removed.append(output.path)
            except PublishError as error:
                faults.append(str(error))
        return Published(tuple(removed), tuple(faults))

    def examine(self, target: Target) -> list[str]:
        """What would keep the target's files from being written, as far as can be told without writing them."""
        faults: list[str] = []
        for output in target.outputs:
            try:
                attributes(output.mode, output.owner, output.group)
                self._files.prove_usable(posixpath.dirname(output.path))
            except PublishError as error:
                faults.append(str(error))
        return faults

    def examine_directory(self) -> list[str]:
        """What would keep the output directory from being used."""
        try:
            gid_of(self._config.group)
            self._files.prove_usable(self._config.directory)
        except PublishError as error:
            return [str(error)]
        return []

    def _record_path(self, target: Target) -> str:
        return posixpath.join(
            self._config.directory, OWN_DIRECTORY, "records", target.client.name, f"{target.name}.json"
        )

    def _note_path(self, target: Target) -> str:
        return posixpath.join(self._config.directory, OWN_DIRECTORY, "owed", target.client.name, target.name)
