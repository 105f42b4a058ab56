"""Tells whether a file or directory changed, without keeping its content."""

from __future__ import annotations

import errno
import os
from hashlib import blake2b
from typing import Final

from bearerd.regular import NotRegularError, read_regular

# The largest config that is read (config/reader); secrets and templates are far smaller. Changes beyond are not seen.
_MOST_BYTES: Final = 16 * 2**20
# No descriptors, no memory, or a disk that fails at the moment: the file may be as it was.
_UNKNOWN: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO, errno.EINTR})


def fingerprint_of(path: str, before: bytes = b"") -> bytes:
    """A digest of a file's content, owner and mode, or of a directory's names; empty if it cannot be read.

    The mode counts because a secret that was refused as too readable can be used after a chmod. Returns `before` if
    nothing is known at the moment, for example because no file descriptors are left.
    """
    try:
        if os.path.isdir(path):
            return digest("\0".join(sorted(os.listdir(path))).encode(errors="surrogateescape"))
        status = os.stat(path)
        attributes = f"{status.st_uid}:{status.st_gid}:{status.st_mode:o}:".encode()
        return digest(attributes + read_regular(path, _MOST_BYTES))
    except NotRegularError:
        return b""
    except OSError as error:
        return before if error.errno in _UNKNOWN else b""


def digest(content: bytes) -> bytes:
    """A digest of some bytes."""
    return blake2b(content).digest()
