"""Users, groups and modes of what bearerd writes: ids of the names in the config."""

from __future__ import annotations

import grp
import os
import pwd
import stat
from dataclasses import dataclass
from typing import Final

from bearerd.errors import PublishError


@dataclass(frozen=True, slots=True)
class Attributes:
    """A file's mode, owner and group; -1 for an owner or group that is not configured."""

    mode: int
    uid: int = -1
    gid: int = -1

    def fits(self, status: os.stat_result) -> bool:
        """Whether a regular file has them."""
        return (
            stat.S_ISREG(status.st_mode)
            and stat.S_IMODE(status.st_mode) == self.mode
            and self.uid in (-1, status.st_uid)
            and self.gid in (-1, status.st_gid)
        )


PRIVATE: Final = Attributes(0o600)
"""For files that only bearerd reads."""
PRIVATE_DIRECTORY: Final = 0o700
"""The mode of directories that only bearerd uses."""


def attributes(mode: int, owner: str | None, group: str | None) -> Attributes:
    """Attributes from names or ids; raises PublishError for an unknown name."""
    return Attributes(mode, uid_of(owner), gid_of(group))


def uid_of(owner: str | None) -> int:
    """A user's id by name or number, -1 for none; raises PublishError for an unknown one."""
    if owner is None:
        return -1
    if owner.isdecimal():
        return int(owner)
    try:
        return pwd.getpwnam(owner).pw_uid
    except KeyError:
        raise PublishError(f"there is no user '{owner}' on this machine; create it, or name another one") from None


def gid_of(group: str | None) -> int:
    """A group's id by name or number, -1 for none; raises PublishError for an unknown one."""
    if group is None:
        return -1
    if group.isdecimal():
        return int(group)
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise PublishError(f"there is no group '{group}' on this machine; create it, or name another one") from None
