"""One daemon for each directory: a flock, which the kernel releases at the end of its holder."""

from __future__ import annotations

import errno
import fcntl
import os
import posixpath
from contextlib import suppress
from typing import Final

from bearerd.descriptors import release
from bearerd.errors import DirectoryLocked, DirectoryUnusable
from bearerd.publish.advice import advice, at

# O_NONBLOCK: opening a FIFO of this name must not block.
_FLAGS: Final = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def holder(path: str) -> int | None:
    """The pid of the process that holds the lock file at `path`; None if none does, or it cannot be seen.

    It takes no lock, which could keep a daemon from starting. A process in another container cannot be seen.
    """
    try:
        wanted = os.lstat(path).st_ino
        with open("/proc/locks", encoding="ascii", errors="replace") as locks:
            for line in locks:  # `1: FLOCK  ADVISORY  WRITE 4897 00:1a:12345 0 EOF`
                fields = line.split()
                # Not the device: that of an overlay differs from the one that stat returns.
                if fields[1:2] == ["FLOCK"] and fields[5].rpartition(":")[2] == str(wanted):
                    return int(fields[4])
    except (OSError, LookupError, ValueError):
        pass
    return None


class DirectoryLock:
    """The lock of a directory, held from `take` to `release` or to the end of the process.

    The file stays after `release`: if it were removed, two daemons could lock two files.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._descriptor = -1

    def take(self, directory: int) -> None:
        """Lock the file in this directory (a descriptor), and release the one that was locked before.

        Raises DirectoryLocked with the holder's pid, or DirectoryUnusable.
        """
        try:
            flags = os.O_RDWR | os.O_CREAT | _FLAGS
            descriptor = os.open(posixpath.basename(self._path), flags, 0o600, dir_fd=directory)
        except OSError as error:
            raise DirectoryUnusable(at(self._path, error)) from None
        try:
            self._lock(descriptor)
        except BaseException:
            release(descriptor)
            raise
        self.release()
        self._descriptor = descriptor
        with suppress(OSError):  # on a full disk the lock works without the pid in it
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)

    def probe(self, directory: int) -> None:
        """Raise DirectoryLocked if another user's bearerd may hold the lock in this directory (a descriptor)."""
        try:
            descriptor = os.open(posixpath.basename(self._path), os.O_RDWR | _FLAGS, dir_fd=directory)
        except PermissionError:
            raise DirectoryLocked(
                f"{self._path} belongs to another user, whose bearerd may be running: run this one as that user, or "
                "set another output.directory"
            ) from None
        except OSError:
            return
        try:
            self._lock(descriptor)
        finally:
            release(descriptor)

    def is_held(self, directory: int) -> bool:
        """Whether the file in this directory (a descriptor) is the one that is locked."""
        try:
            found = os.stat(posixpath.basename(self._path), dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            return False
        held = os.fstat(self._descriptor)
        return (found.st_dev, found.st_ino) == (held.st_dev, held.st_ino)

    def release(self) -> None:
        """Release the lock if it is held."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor != -1:
            with suppress(OSError):  # a quota, or a network file system; it is closed in any case
                os.close(descriptor)

    def _lock(self, descriptor: int) -> None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno != errno.EWOULDBLOCK:
                raise DirectoryUnusable(f"{self._path} cannot be locked: {advice(error)}") from None
            holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
            if not holder.isdecimal():  # another user may have written it, and it may go to a terminal
                holder = "unknown"
            kept = posixpath.dirname(posixpath.dirname(self._path))
            raise DirectoryLocked(
                f"{kept} is in use by another bearerd, pid {holder}; stop it, or set another output.directory"
            ) from None
