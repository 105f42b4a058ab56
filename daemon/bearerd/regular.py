"""Opens and reads regular files only. A FIFO or device that another user put there is refused, and never blocks."""

from __future__ import annotations

import os
import stat

from bearerd.descriptors import release

# Bytes of one read. Secrets and most configs are smaller. Not `Final`, since importing typing costs a probe 3 ms.
_PART = 64 * 1024


class NotRegularError(OSError):
    """The path names a directory, FIFO, socket or device."""

    def __init__(self, mode: int) -> None:
        kinds = {stat.S_IFDIR: "a directory", stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket"}
        super().__init__(f"it is {kinds.get(stat.S_IFMT(mode), 'a device')}, not a regular file")

    def __str__(self) -> str:
        return str(self.args[0])


def open_regular(path: str, *, dir_fd: int | None = None, follow: bool = True) -> int:
    """A descriptor of a regular file, for reading; raises NotRegularError for anything else, and OSError."""
    # O_NONBLOCK: opening a FIFO would wait for a writer. O_NOCTTY: a terminal would become our controlling terminal.
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY | (0 if follow else os.O_NOFOLLOW)
    descriptor = os.open(path, flags, dir_fd=dir_fd)
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise NotRegularError(mode)
    except OSError:
        release(descriptor)
        raise
    return descriptor


def read_regular(path: str, most: int) -> bytes:
    """The first `most` bytes of a regular file; raises NotRegularError for anything else, and OSError.

    Some files in /proc are regular and would still block; reading one raises BlockingIOError.
    """
    descriptor = open_regular(path)
    try:
        return read_up_to(descriptor, most)
    finally:
        release(descriptor)


def read_up_to(descriptor: int, most: int) -> bytes:
    """The next `most` bytes of an open file, or all up to its end.

    It reads in parts: a single read would allocate `most` bytes, and may return less than there is (network file
    systems, FUSE).
    """
    parts = bytearray()
    while len(parts) < most and (part := os.read(descriptor, min(_PART, most - len(parts)))):
        parts += part
    return bytes(parts)
