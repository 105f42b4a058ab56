"""What is mounted where, as /proc/self/mountinfo lists it (proc_pid_mountinfo(5)). The one parser of that file."""

from __future__ import annotations

import os
import posixpath
import re
from dataclasses import dataclass
from typing import Final

_MOUNTINFO: Final = "/proc/self/mountinfo"
# Mount id, parent id, device, root, mount point; the rest is optional up to the separator.
_LEAST_WORDS: Final = 5


@dataclass(frozen=True, slots=True)
class Mount:
    """One mount."""

    point: str
    """The mount point, as this process sees it."""
    file_system: str
    """Its type, such as `ext4` or `nfs4`."""


class Mounts:
    """The mounts of this process, by the text of mountinfo. Pure."""

    def __init__(self, mountinfo: bytes) -> None:
        found: dict[bytes, tuple[bytes, Mount]] = {}
        for line in mountinfo.split(b"\n"):
            before, _, after = line.partition(b" - ")
            words = before.split(b" ")
            if len(words) >= _LEAST_WORDS:
                found[words[0]] = words[1], Mount(_text(words[4]), _text(after.split(b" ")[0]))
        # The parent of the first mount is not listed, or is that mount itself. Of two mounts on one point of one
        # parent the last is on top.
        self._on: dict[tuple[bytes, str], tuple[bytes, Mount]] = {
            (parent if parent in found and parent != number else b"", mount.point): (number, mount)
            for number, (parent, mount) in found.items()
        }

    @property
    def points(self) -> frozenset[str]:
        """The mount points, those that another mount hides included."""
        return frozenset(point for _, point in self._on)

    def of(self, path: str) -> Mount | None:
        """The mount that a path without symlinks is on; None where that is not listed, as in some chroots.

        It goes from mount to mount as the kernel does: a mount that a later one covers does not count.
        """
        number, mount = b"", None
        for place in _prefixes(path):
            while (above := self._on.get((number, place))) is not None:
                number, mount = above
        return mount


def mounts() -> Mounts:
    """What is mounted now; nothing where /proc is hidden."""
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


def _text(word: bytes) -> str:
    """The kernel writes blanks, tabs, newlines and backslashes as three octal digits."""
    return os.fsdecode(re.sub(rb"\\([0-3][0-7]{2})", lambda match: bytes([int(match[1], 8)]), word))
