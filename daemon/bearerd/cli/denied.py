"""Explains to a user without access to a path which users have it."""

from __future__ import annotations

import os
import stat

from bearerd.accounts import group_name, user_name


def denied(path: str, right: int) -> str:
    """The part of the path that denies access, who has access to it, and what this user can do.

    `right` is the permission that a group needs for the path itself, such as `stat.S_IRGRP`. Raises OSError if the path
    changes meanwhile.
    """
    path = os.path.abspath(path)
    above = [path[:index] or "/" for index, char in enumerate(path) if char == "/"]
    culprit = next((part for part in above if not os.access(part, os.X_OK, effective_ids=True)), path)
    found = os.stat(culprit)
    owner, group = user_name(found.st_uid), group_name(found.st_gid)
    who = ["root"] if found.st_uid == 0 else [f"the user {owner}", "root"]
    if found.st_mode & (right if culprit == path else stat.S_IXGRP):
        who.append(f"the group {group}")
        # Members of the group root can read much more than this.
        if found.st_gid != 0:
            add = f"as root, run usermod --append --groups {group} {user_name(os.geteuid())}, then log in again"
            return f"{culprit} is for {' and '.join(who)} only; {add}"
    return f"{culprit} is for {' and '.join(who)} only; run the command as {owner}"
