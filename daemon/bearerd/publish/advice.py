"""What an error of the operating system means for a file or directory that bearerd writes, and what to do."""

from __future__ import annotations

import errno
import os
from typing import Final

from bearerd.accounts import user_name
from bearerd.publish.ownership import OwnershipRefused
from bearerd.reason import reason_of

_ADVICE: Final = {
    errno.ENOSPC: "no space left; free some space, or enlarge the file system",
    errno.EDQUOT: "the quota is used up; free space, or raise the quota",
    errno.EROFS: "the file system is read-only; mount it for writing, or write to another directory",
    errno.EPERM: "not permitted (an immutable file, or one of another user in a sticky directory); see lsattr, ls -l",
    errno.EBUSY: "the file is a mount point; mount its directory instead",
    errno.EXDEV: "the file is on another file system than its directory; mount its directory instead",
    errno.EIO: "input/output error; check the disk",
    errno.EISDIR: "a directory has this name; move it away",
    errno.ELOOP: "there is a symlink in the path, which is not followed; set the real path",
    errno.ENOTDIR: "a part of the path is not a directory; move it away, or use another path",
    errno.EMFILE: "too many files are open; raise LimitNOFILE",
    errno.ENOENT: "the directory does not exist, or no file can be created in it",
}


def advice(error: OSError) -> str:
    """The error in one clause, with what to do if that is known."""
    if isinstance(error, OwnershipRefused):
        return str(error.strerror)
    if error.errno == errno.EACCES:
        # The error is about the directory also if it comes with the path of a file.
        do = "change the owner or mode of the directory, or write to another one"
        return f"{this_user()} is not allowed to write there; {do}"
    return _ADVICE.get(error.errno or 0, reason_of(error))


def at(path: str, error: OSError) -> str:
    """The path, and the error in one clause. If something on the way is not a directory, that is named instead."""
    if error.errno == errno.ENOTDIR and (part := _not_a_directory(path)):
        return f"{part}: not a directory; move it away, or use another path"
    return f"{path}: {advice(error)}"


def _not_a_directory(path: str) -> str | None:
    """The first part of a path that exists and is no directory."""
    parts = path.split("/")
    above = ("/".join(parts[:count]) for count in range(2, len(parts) + 1))
    return next((part for part in above if os.path.exists(part) and not os.path.isdir(part)), None)


def this_user() -> str:
    """The user of this process, as messages name it."""
    return f"user {user_name(os.geteuid())}"


def instead(error: Exception, action: str) -> str:
    """An error with a better action than the one that `advice` gives."""
    return f"{str(error).partition('; ')[0]}; {action}"


OUTPUT_ELSEWHERE: Final = (
    "set output.directory to a directory of this user (its default is $XDG_RUNTIME_DIR/bearerd, if "
    "that belongs to this user), or run bearerd as a service (docs/install.md)"
)
"""What to do if this user is not allowed to write to the output directory."""
STATE_ELSEWHERE: Final = "set state_directory to a directory of this user"
"""The same for the state directory."""
