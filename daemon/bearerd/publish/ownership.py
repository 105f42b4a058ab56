"""Whether this process can set an owner or group, and if it cannot, why and what to do."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from bearerd.accounts import group_name, user_name
from bearerd.descriptors import release
from bearerd.publish.owners import PRIVATE, Attributes


class OwnershipRefused(OSError):  # noqa: N818 - as the other errors of publish (errors.py)
    """An owner or group cannot be set; its text says why, and what to do."""


@contextmanager
def setting(uid: int, gid: int) -> Iterator[None]:
    """Raise OwnershipRefused if the kernel does not let the block set this owner and group (-1 for none)."""
    try:
        yield
    except OSError as error:
        # EINVAL: the user namespace has no such user or group.
        if error.errno not in {errno.EPERM, errno.EINVAL}:
            raise
        raise OwnershipRefused(error.errno, _refusal(uid, gid)) from None


def prove_made(above: os.stat_result, mode: int, group: int, file: Attributes = PRIVATE) -> None:
    """Check that a directory can be made with this mode and group, and a file in it; raises OwnershipRefused.

    `above` is the directory in which it is made.
    """
    own = os.getegid()
    inherited = above.st_gid if above.st_mode & stat.S_ISGID else own
    if group not in {-1, inherited}:  # otherwise publish/walk does not set it
        _prove(-1, group)
    below = (inherited if group == -1 else group) if (above.st_mode | mode) & stat.S_ISGID else own
    # A user may set a group that is set already, also without being its member.
    _prove(file.uid, own if file.gid == below else file.gid)


def _prove(uid: int, gid: int) -> None:
    with setting(uid, gid):
        if (uid, gid) != (-1, -1) and (error := _refused(uid, gid)):
            raise error


def _refused(uid: int, gid: int) -> OSError | None:
    """The kernel's answer, which depends on users, groups, capabilities, namespaces and filters of system calls."""
    try:
        descriptor = os.memfd_create("owner", os.MFD_CLOEXEC)
    except OSError:
        return None
    try:
        os.fchown(descriptor, uid, gid)
    except OSError as error:
        return error
    finally:
        release(descriptor)
    return None


def _refusal(uid: int, gid: int) -> str:
    foreign: dict[str, str] = {}
    if uid not in {-1, os.geteuid()}:
        foreign["owner"] = user_name(uid)
    if gid not in {-1, os.getegid(), *os.getgroups()}:
        foreign["group"] = group_name(gid)
    what = " and ".join(f"the {key} {name}" for key, name in foreign.items()) or "owner and group"
    cannot = f"user {user_name(os.geteuid())} cannot set {what}"
    change = f"or change {' and '.join(foreign)}"
    if _refused(os.geteuid(), os.getegid()):
        return (
            f"{cannot}, because no owner or group may be set, as with SystemCallFilter= in bearerd's unit; leave out "
            "owner and group, and set Group= in the unit, or create a setgid directory of that group (tmpfiles.d)"
        )
    refused = _refused(uid, gid)
    if refused is None:
        return f"{cannot} on this file system; use another one, or leave out owner and group"
    if refused.errno == errno.EINVAL:
        return f"{cannot} in this user namespace; leave out PrivateUsers= in the unit, {change}"
    if "owner" in foreign:
        return f"{cannot}; run the daemon as that user or with CAP_CHOWN (in a unit AmbientCapabilities=), {change}"
    return f"{cannot}; run the daemon as a member of that group (in a unit SupplementaryGroups=), {change}"
