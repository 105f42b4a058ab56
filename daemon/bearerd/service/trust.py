"""Finds config files that their group or all users can write: these users control the daemon.

The owner is not judged: a file that is mounted into a container often belongs to a user of the host.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable

from bearerd.accounts import group_name
from bearerd.publish.access import WRITE_BY_GROUP_OR_OTHERS


def writable_by_others(paths: Iterable[str]) -> dict[str, str]:
    """The files and directories of a config that group or others can write, each with the reason and what to do."""
    found: dict[str, str] = {}
    for path in paths:
        try:
            status = os.stat(path)
        except OSError:
            continue  # reading the config reports it
        mode = stat.S_IMODE(status.st_mode)
        if mode & WRITE_BY_GROUP_OR_OTHERS:
            users = "any user" if mode & stat.S_IWOTH else f"the group {group_name(status.st_gid)}"
            found[path] = (
                f"{users} can write it (mode {mode:04o}), and can so control which commands and files the daemon uses; "
                f"chmod go-w {path}"
            )
    return found
