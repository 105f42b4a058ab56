"""Who else can write the config: whoever can, controls what the daemon does with its rights."""

from __future__ import annotations

import grp
import os
import stat
from collections.abc import Iterable

from bearerd.publish.access import WRITE_BY_GROUP_OR_OTHERS


def writable_by_others(paths: Iterable[str]) -> dict[str, str]:
    """The files and directories of a config that others can write, each with who can and what to do."""
    found: dict[str, str] = {}
    for path in paths:
        try:
            status = os.stat(path)
        except OSError:
            continue  # whoever reads it says so
        mode = stat.S_IMODE(status.st_mode)
        if mode & WRITE_BY_GROUP_OR_OTHERS:
            who = "every user" if mode & stat.S_IWOTH else f"the group {_group(status.st_gid)}"
            found[path] = (
                f"{who} can write it (mode {mode:04o}), and so decide which commands and files the daemon uses; "
                f"chmod go-w {path}"
            )
    return found


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
