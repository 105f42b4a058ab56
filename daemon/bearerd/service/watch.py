"""Tells when watched files may have changed: the one module that uses watchdog.

Directories are watched, not files: whoever replaces a file by a rename, or a whole mount by its `..data`
link, makes a new file that nobody watches. A directory that inotify cannot watch (no instances are left, or
it is on a network) is looked at every few seconds in its place; so is one that was itself replaced.
What changed is for the caller to find out: an event says no more than "look".
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from typing import Any, Final

from watchdog import events
from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer

from bearerd.log import say

# inotify sees nothing that another machine writes there.
_REMOTE: Final = ("nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "glusterfs", "lustre", "afs", "ncpfs", "fuse")
# Each costs a thread, and one of the user's inotify instances, of which there are 128.
_MOST_WATCHED: Final = 32
# Not that something was opened or read: we do that ourselves, 0.6 ms of CPU for each token.
_EVENTS: Final[list[type[FileSystemEvent]]] = [
    events.FileCreatedEvent,
    events.FileModifiedEvent,
    events.FileClosedEvent,
    events.FileMovedEvent,
    events.FileDeletedEvent,
    events.DirCreatedEvent,
    events.DirMovedEvent,
    events.DirDeletedEvent,
]


class Watch:
    """Calls `changed`, from a thread of its own, when something happened where a file is that is followed."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._observer: Any = None
        self._watched: dict[str, tuple[Any, object]] = {}
        """By directory: watchdog's handle, and which directory that was."""
        self._polled: dict[str, object] = {}
        """By path: how it looked."""
        self._said: set[str] = set()

    def follow(self, paths: Iterable[str]) -> None:
        """Watch over these files, or directories, and no others from now on."""
        wanted: dict[str, set[str]] = {}
        for path in paths:
            # Where a link leads is watched too: what it points to may be written in place.
            for place in {path, os.path.realpath(path)}:
                wanted.setdefault(os.path.dirname(place), set()).add(place)
        for directory in self._watched.keys() - wanted.keys():
            self._unwatch(directory)
        polled: set[str] = set()
        for directory in sorted(wanted):
            if not self._watch(directory):
                polled |= wanted[directory]
        self._polled = {path: self._polled.get(path, _look(path)) for path in polled}

    def poll(self) -> None:
        """Look at what cannot be watched, and whether the watched directories are still the same ones."""
        changed = False
        for directory, (_, known) in list(self._watched.items()):
            if _which(directory) != known:
                self._unwatch(directory)
                self._watch(directory)
                changed = True
        for path, before in self._polled.items():
            now = _look(path)
            if now != before:
                self._polled[path], changed = now, True
        if changed:
            self._changed()

    def stop(self) -> None:
        """End."""
        if self._observer is not None:
            self._observer.stop()

    def _watch(self, directory: str) -> bool:
        if directory in self._watched:
            return True
        known = _which(directory)
        reason = None
        if known is None:
            reason = "it is not there"
        elif (kind := _file_system(directory)).startswith(_REMOTE):
            reason = f"it is on {kind}"
        elif len(self._watched) >= _MOST_WATCHED:
            reason = f"{_MOST_WATCHED} others are watched"
        else:
            try:
                handle = self._started().schedule(_Handler(self._changed), directory, event_filter=_EVENTS)
                self._watched[directory] = (handle, known)
            except (OSError, RuntimeError) as error:
                reason = getattr(error, "strerror", None) or "no thread can be started"
        if reason is not None and directory not in self._said:
            self._said.add(directory)
            say(logging.INFO, f"{directory} cannot be watched ({reason}): it is looked at every few seconds")
        return reason is None

    def _unwatch(self, directory: str) -> None:
        handle, _ = self._watched.pop(directory)
        # Its thread may have ended with the directory.
        self._started().unschedule(handle)

    def _started(self) -> Any:
        if self._observer is None:
            self._observer = Observer()
            self._observer.daemon = True
            self._observer.start()
        return self._observer


class _Handler(FileSystemEventHandler):
    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed

    def on_any_event(self, event: FileSystemEvent) -> None:  # noqa: ARG002 - watchdog's signature
        self._changed()


def _which(directory: str) -> object:
    """Which directory has this name now; None where there is none."""
    try:
        status = os.stat(directory)
    except OSError:
        return None
    return (status.st_dev, status.st_ino)


def _look(path: str) -> object:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size)


def _file_system(directory: str) -> str:
    """The kind of file system that a directory is on, as /proc/self/mountinfo has it (proc(5)); "" where unknown."""
    found, longest = "", -1
    real = os.path.realpath(directory)
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            for line in file:
                before, _, after = line.partition(" - ")
                mount = before.split(" ")[4].replace("\\040", " ")
                if (real == mount or real.startswith(mount.rstrip("/") + "/")) and len(mount) >= longest:
                    found, longest = after.split(" ")[0], len(mount)
    except OSError:
        return ""
    return found
