"""Creates files that do not exist yet: all or none of them, each complete. It overwrites no file."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final

from bearerd.descriptors import release

_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class NewFile:
    """A file to create."""

    name: str
    content: bytes
    mode: int
    uid: int = -1
    """-1: the user of this process."""


class _Written:
    """Complete files under temporary names."""

    def __init__(self, directory: int, files: Sequence[NewFile]) -> None:
        self._directory = directory
        self._files = files
        self.temporary = [f".{file.name}.{secrets.token_hex(8)}" for file in files]

    def write(self) -> None:
        for file, name in zip(self._files, self.temporary, strict=True):
            descriptor = os.open(name, _CREATE, 0o600, dir_fd=self._directory)
            try:
                if file.uid != -1:
                    os.fchown(descriptor, file.uid, -1)
                os.fchmod(descriptor, file.mode)
                content = memoryview(file.content)
                while content:
                    content = content[os.write(descriptor, content) :]
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def publish(self) -> None:
        """Give all of them their names; raises FileExistsError if one is taken, and then none has its name."""
        done: list[str] = []
        try:
            for file, name in zip(self._files, self.temporary, strict=True):
                # Unlike a rename, a link never replaces a file.
                os.link(name, file.name, src_dir_fd=self._directory, dst_dir_fd=self._directory, follow_symlinks=False)
                done.append(file.name)
            os.fsync(self._directory)
        except BaseException:
            for name in done:
                os.unlink(name, dir_fd=self._directory)
            raise

    def remove(self) -> None:
        for name in self.temporary:
            with suppress(OSError):
                os.unlink(name, dir_fd=self._directory)


@contextmanager
def new_files(directory: str, mode: int, files: Sequence[NewFile]) -> Iterator[list[str]]:
    """Write files under temporary names, whose paths are the value; after the block they get their own names.

    The directory is created if it does not exist. If the block raises, or a name is taken (FileExistsError), everything
    is removed again. Raises OSError.
    """
    made = _make(directory, mode)
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        written = _Written(descriptor, files)
        try:
            written.write()
            yield [os.path.join(directory, name) for name in written.temporary]
            written.publish()
        finally:
            written.remove()
            release(descriptor)
    except BaseException:
        for path in reversed(made):
            with suppress(OSError):  # something else is in it now
                os.rmdir(path)
        raise


def _make(directory: str, mode: int) -> list[str]:
    """Make a directory and those above it; returns those that did not exist."""
    missing: list[str] = []
    path = directory
    while path and not os.path.lexists(path):
        missing.append(path)
        path = os.path.dirname(path)
    made: list[str] = []
    umask = os.umask(0o022)  # with root's 077, the service could not enter its own /etc/bearerd
    try:
        for path in reversed(missing):
            os.mkdir(path, mode)
            made.append(path)
    except BaseException:
        for path in reversed(made):
            os.rmdir(path)
        raise
    finally:
        os.umask(umask)
    return made
