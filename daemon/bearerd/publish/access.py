"""Whether a user can read a file, and which directories or permissions prevent it, as the kernel decides. Pure.

The first class that applies decides, even if a later one grants more: the owner, a user in the ACL, the groups,
others (acl(5)). Each directory on the path needs x; r is only for listing it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

Right = Literal["r", "x"]
Class = Literal["owner", "user", "group", "others"]

MOST_LINKS: Final = 40
"""Symlinks on one path. The kernel follows as many (path_resolution(7))."""
STICKY: Final = 0o1000
SETGID: Final = 0o2000
WRITE_BY_OTHERS: Final = 0o002
WRITE_BY_GROUP_OR_OTHERS: Final = 0o022
_GROUP_BITS: Final = 0o070
_BIT: Final = {"r": 4, "x": 1}
_ALL: Final = 7

# acl(5). The format is that of linux/posix_acl_xattr.h: a version, then tag, permissions and id of each entry.
_USER_OBJ, _USER, _GROUP_OBJ, _GROUP, _MASK, _OTHER = 1, 2, 4, 8, 16, 32
_VERSION: Final = struct.Struct("<I")
_ENTRY: Final = struct.Struct("<HHI")


@dataclass(frozen=True, slots=True)
class Reader:
    """A user with all of their groups."""

    name: str
    uid: int
    groups: frozenset[int]


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of an ACL."""

    tag: int
    rights: int
    whose: int


@dataclass(frozen=True, slots=True)
class Component:
    """A directory or file on a path, as it is or as bearerd will make it."""

    path: str
    mode: int
    uid: int
    gid: int
    owner: str
    """Its name, or the number if it has none; likewise for the group."""
    group: str
    acl: tuple[Entry, ...] = ()
    made: bool = False
    """Whether bearerd makes it; otherwise it exists, and stays as it is."""

    def __str__(self) -> str:
        """Owner, group and mode: `root:readers 0750`, with a + for an ACL, as in `ls`."""
        return f"{self.owner}:{self.group} {self.mode:04o}{'+' if self.acl else ''}"


@dataclass(frozen=True, slots=True)
class Stop:
    """A component that denies a reader access, and the class that decided."""

    component: Component
    right: Right
    judged_as: Class


def acl_of(kept: bytes) -> tuple[Entry, ...]:
    """An ACL from an extended attribute."""
    return tuple(Entry(*fields) for fields in _ENTRY.iter_unpack(kept[_VERSION.size :]))


def inherited(default: Iterable[Entry], mode: int) -> tuple[Entry, ...]:
    """The ACL of a new file or directory with a mode, below a directory with this default ACL."""
    entries = tuple(default)
    if not any(entry.tag == _MASK for entry in entries):
        return ()  # without named users and groups the mode alone counts
    rights = {_USER_OBJ: mode >> 6 & _ALL, _MASK: mode >> 3 & _ALL, _OTHER: mode & _ALL}
    return tuple(Entry(entry.tag, rights.get(entry.tag, entry.rights), entry.whose) for entry in entries)


def stops(directories: Sequence[Component], file: Component | None, reader: Reader) -> tuple[Stop, ...]:
    """Every directory on the path, and the file, that denies the reader access; none for root."""
    if reader.uid == 0:
        return ()
    wanted: list[tuple[Component, Right]] = [(directory, "x") for directory in directories]
    if file is not None:
        wanted.append((file, "r"))
    found = ((component, right, *_judged(component, right, reader)) for component, right in wanted)
    return tuple(Stop(component, right, judged_as) for component, right, judged_as, granted in found if not granted)


def _judged(component: Component, right: Right, reader: Reader) -> tuple[Class, bool]:
    """The class that decides for a reader, and whether it grants the permission."""
    # The group bits hold the mask. If they grant nothing, the kernel ignores the ACL.
    entries = component.acl if component.acl and component.mode & _GROUP_BITS else _of_mode(component.mode)
    mask = next((entry.rights for entry in entries if entry.tag == _MASK), _ALL)

    def grants(entry: Entry, most: int) -> bool:
        return bool(entry.rights & most & _BIT[right])

    if reader.uid == component.uid:
        return "owner", any(grants(entry, _ALL) for entry in entries if entry.tag == _USER_OBJ)
    named = [entry for entry in entries if entry.tag == _USER and entry.whose == reader.uid]
    if named:
        return "user", grants(named[0], mask)
    groups = [entry for entry in entries if _group_of(entry, component) in reader.groups]
    if groups:
        return "group", any(grants(entry, mask) for entry in groups)
    return "others", any(grants(entry, _ALL) for entry in entries if entry.tag == _OTHER)


def _group_of(entry: Entry, component: Component) -> int:
    if entry.tag == _GROUP_OBJ:
        return component.gid
    return entry.whose if entry.tag == _GROUP else -1


def _of_mode(mode: int) -> tuple[Entry, ...]:
    return tuple(Entry(tag, mode >> bits & _ALL, -1) for tag, bits in ((_USER_OBJ, 6), (_GROUP_OBJ, 3), (_OTHER, 0)))


# -- messages -----------------------------------------------------------------------------------------


def describe(stop: Stop, reader: Reader) -> str:
    """The reason why a reader has no access, and what to do."""
    component, right = stop.component, stop.right
    lacks = {
        "owner": f"user {reader.name} is its owner, and the owner lacks {right}",
        "user": f"its ACL does not grant {right} to user {reader.name}",
        "group": f"user {reader.name} is in its group, and the group lacks {right}",
        "others": f"user {reader.name} is neither its owner nor in its group, and others lack {right}",
    }[stop.judged_as]
    made = "as bearerd creates it, " if component.made and right == "x" else ""
    return f"{component.path} ({made}{component}): {lacks}; {', or '.join(_cures(stop, reader.name))}"


def _cures(stop: Stop, name: str) -> Iterator[str]:
    component, right = stop.component, stop.right
    granted_to_group = bool(component.mode >> 3 & _BIT[right])
    if component.acl and stop.judged_as != "owner" and (granted_to_group or not component.made):
        # A directory that bearerd makes inherits its ACL.
        whose = f"-d -m u:{name}:rx {_above(component.path)}" if component.made else f"-m u:{name}:x {component.path}"
        yield f"setfacl {whose}"
        return
    # The advice is never to join root's group.
    if stop.judged_as == "others" and granted_to_group and component.gid != 0:
        yield f"add user {name} to the group {component.group}"
    bits = {"owner": "u", "user": "g", "group": "g", "others": "o"}[stop.judged_as]
    if not component.made:
        yield f"chmod {bits}+{right} {component.path} (bearerd does not change existing directories)"
    elif stop.judged_as != "others":
        yield f"set {'mode' if right == 'r' else 'output.directory_mode'} to one with {bits}+{right}"
    elif right == "x":
        mode = "" if granted_to_group else " and output.directory_mode to one with g+x"
        yield f"set output.group to a group of user {name}{mode}"
    elif granted_to_group:
        yield f"set the file's group to a group of user {name}"
    else:
        yield f"set the file's owner to {name}"
        yield f"its group to a group of user {name} and its mode to one with g+r"


def _above(path: str) -> str:
    return path.rpartition("/")[0] or "/"
