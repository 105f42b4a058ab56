"""One daemon a directory: a flock that the kernel lets go of when its holder dies, however it dies."""

from __future__ import annotations

import errno
import fcntl
import os
from contextlib import suppress

from bearerd.errors import DirectoryLocked, DirectoryUnusable
from bearerd.publish.atomic import why


class DirectoryLock:
    """Held from the start to the end of the process; raises DirectoryLocked with the holder's pid."""

    def __init__(self, path: str) -> None:
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            self._descriptor = os.open(path, flags, 0o600)
        except OSError as error:
            raise DirectoryUnusable(f"{path}: {why(error)}") from None
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno != errno.EWOULDBLOCK:
                os.close(self._descriptor)
                raise DirectoryUnusable(f"{path} cannot be locked: {why(error)}") from None
            holder = os.pread(self._descriptor, 32, 0).decode("ascii", "replace").strip()
            os.close(self._descriptor)
            directory = os.path.dirname(os.path.dirname(path))
            raise DirectoryLocked(
                f"{directory} is kept by another bearerd, pid {holder or 'unknown'}: stop it, or give this one "
                "another output.directory"
            ) from None
        with suppress(OSError):  # a full disk: the lock holds without the pid in it
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Let go; the file stays, since removing it would let two hold a lock on two files."""
        os.close(self._descriptor)
