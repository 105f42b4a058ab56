"""What an error of the operating system means for a file or directory that bearerd writes, and what to do."""

from __future__ import annotations

import errno
from typing import Final

from bearerd.reason import reason_of

_ADVICE: Final = {
    errno.ENOSPC: "no space is left; free some, or enlarge the file system",
    errno.EDQUOT: "the quota is used up",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "the daemon's user may not write there",
    errno.EPERM: "the daemon's user may not do that (an owner or group it cannot set, or an immutable file)",
    errno.EBUSY: "the file is a mount point; mount its directory instead",
    errno.EISDIR: "a directory has this name",
    errno.ELOOP: "there is a symlink in the path, which is not followed",
    errno.ENOTDIR: "a part of the path is not a directory",
    errno.EMFILE: "too many files are open; raise LimitNOFILE",
    errno.ENOENT: "the directory does not exist",
}


def advice(error: OSError) -> str:
    """The error in one clause, with what to do if that is known."""
    return _ADVICE.get(error.errno or 0, reason_of(error))
