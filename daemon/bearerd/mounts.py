"""The mounts of this process: the only parser of /proc/self/mountinfo (proc_pid_mountinfo(5))."""

from __future__ import annotations

import os
import posixpath
import re
from dataclasses import dataclass
from typing import Final

_MOUNTINFO: Final = "/proc/self/mountinfo"
# Mount id, parent id, device, root, mount point. Optional fields follow, up to a separator.
_LEAST_FIELDS: Final = 5


@dataclass(frozen=True, slots=True)
class Mount:
    """One mount."""

    point: str
    """The mount point, as this process sees it."""
    file_system: str
    """Its type, such as `ext4` or `nfs4`."""


class Mounts:
    """The mounts in a text of mountinfo."""

    def __init__(self, mountinfo: bytes) -> None:
        found: dict[bytes, tuple[bytes, Mount]] = {}
        for line in mountinfo.split(b"\n"):
            before, _, after = line.partition(b" - ")
            fields = before.split(b" ")
            if len(fields) >= _LEAST_FIELDS:
                found[fields[0]] = fields[1], Mount(_text(fields[4]), _text(after.split(b" ")[0]))
        # The parent of the first mount is not listed, or is that mount itself. Of two mounts with the same parent and
        # mount point, the last one is on top.
        self._on: dict[tuple[bytes, str], tuple[bytes, Mount]] = {
            (parent if parent in found and parent != number else b"", mount.point): (number, mount)
            for number, (parent, mount) in found.items()
        }

    @property
    def points(self) -> frozenset[str]:
        """The mount points, including those that another mount hides."""
        return frozenset(point for _, point in self._on)

    def of(self, path: str) -> Mount | None:
        """The mount of a path without symlinks; None if it is not listed, as in some chroots.

        Like the kernel, it goes from mount to mount, so that a mount hidden by a later one does not count.
        """
        number, mount = b"", None
        for prefix in _prefixes(path):
            while (above := self._on.get((number, prefix))) is not None:
                number, mount = above
        return mount


def mounts() -> Mounts:
    """The present mounts; none if /proc is hidden."""
    try:
        with open(_MOUNTINFO, "rb") as file:
            return Mounts(file.read())
    except OSError:
        return Mounts(b"")


def _prefixes(path: str) -> list[str]:
    """`/a/b` -> `/`, `/a`, `/a/b`."""
    found = [path]
    while path != "/":
        path = posixpath.dirname(path)
        found.append(path)
    return found[::-1]


def _text(field: bytes) -> str:
    """Decode a field: the kernel escapes blanks, tabs, newlines and backslashes as three octal digits."""
    return os.fsdecode(re.sub(rb"\\([0-3][0-7]{2})", lambda match: bytes([int(match[1], 8)]), field))
