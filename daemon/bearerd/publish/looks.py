"""How files looked when they were right, so that one lstat each shows whether another program changed them.

With 10,000 tokens this is nearly all that an idle daemon does, so there is one flat loop over the files, and a
directory of records is read only after its names changed.
"""

from __future__ import annotations

import os
from typing import Final

# Differs from every look.
_UNSEEN: Final = -1
_MISSING: Final = 0
# Seconds. The kernel dates changes with a clock that ticks every 1 to 10 ms: a change right after a look could leave
# the time as it was. A time that is this old when it is looked at is the time of no later change.
_COARSE: Final = 1.0


def look(path: str) -> int:
    """A file's inode, size and times in one number: 10,000 tuples would be 2 MB. A new mode changes a time too."""
    try:
        return look_of(os.lstat(path))
    except OSError:
        return _MISSING


def look_of(found: os.stat_result) -> int:
    """The same of a status that is at hand."""
    return hash((found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns))


class Looks:
    """The looks of many files, and of the directories of their records."""

    def __init__(self) -> None:
        self._files: dict[str, int] = {}
        self._hasty: set[str] = set()
        """Files that were different right after they were written."""
        self._directories: dict[str, int] = {}
        """By directory: how it looked when its names were read, if they had not just changed."""

    def right(self, path: str, seen: int) -> None:
        """Note that a file was right when it looked like this."""
        self._files[path] = seen
        self._hasty.discard(path)

    def altered(self, path: str) -> None:
        """Note that another program wrote a file, so that it is written again."""
        self._files[path] = _UNSEEN

    def differed_at_once(self, path: str) -> None:
        """Note that a file does not have the mode or the owner that it was just given.

        The first time, another program may have changed them, so it is written again. The second time, its file system
        has no modes or owners, so it stays.
        """
        # One that is gone is not as it should be on any file system.
        self._files[path] = (look(path) if path in self._hasty else _MISSING) or _UNSEEN
        self._hasty.add(path)

    def forget(self, path: str) -> None:
        """Forget a file."""
        self._files.pop(path, None)
        self._hasty.discard(path)

    def disturbed(self) -> set[str]:
        """The paths of files that may have been altered since they were right."""
        lstat, changed = os.lstat, set()
        for path, seen in list(self._files.items()):
            try:
                found = lstat(path)
                if hash((found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)) != seen:
                    changed.add(path)
            except OSError:
                changed.add(path)
        return changed

    def names(self, directory: str, now: float) -> set[str] | None:
        """The names in a directory; None if they have not changed since they were last returned (Unix time)."""
        try:
            found = os.lstat(directory)
            # A tool that restores or replaces a directory can leave the time of its names as it was.
            seen = look_of(found)
            if self._directories.get(directory) == seen:
                return None
            names = set(os.listdir(directory))
        except OSError:
            return set()
        if found.st_ctime_ns < (now - _COARSE) * 1e9:  # a change of a name also changes this time
            self._directories[directory] = seen
        return names
