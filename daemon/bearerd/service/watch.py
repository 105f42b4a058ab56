"""Reports when watched files may have changed. The one module that uses watchdog.

Directories are watched, not files: a rename or a switched link puts a new file in place, and a watch on the old file
never sees it. Each directory is watched that holds a link on the way to a file, or the file (service/links.py).
A directory that inotify cannot watch (no instances are left, or it is on a network) is polled.
An event only says "look": the caller finds out what changed, and calls `renew`, as links may lead elsewhere now.
"""

from __future__ import annotations

import errno
import logging
import os
import posixpath
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from watchdog import events
from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer

from bearerd.log import say
from bearerd.mounts import Mounts, mounts
from bearerd.service.links import deciding

# inotify does not see writes by another machine, nor by the host of a virtual machine.
_REMOTE: Final = (
    "nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "glusterfs", "lustre", "afs", "ncpfs", "fuse", "virtiofs", "vboxsf",
)  # fmt: skip
# Each costs a thread, and with some versions of watchdog one of the user's 128 inotify instances.
_MOST_WATCHED: Final = 32
# Links that are switched while they are followed are followed again this often. Every further switch is an event.
_MOST_WALKS: Final = 5
# Not opens and reads: our own reads would be events too, at 0.6 ms of CPU for each token.
_EVENTS: Final[list[type[FileSystemEvent]]] = [
    events.FileCreatedEvent,
    events.FileModifiedEvent,
    events.FileClosedEvent,
    events.FileMovedEvent,
    events.FileDeletedEvent,
    events.DirCreatedEvent,
    events.DirMovedEvent,
    events.DirDeletedEvent,
    # Permissions. Older versions of watchdog report them as FileModifiedEvent.
    *(getattr(events, name) for name in ("FileAttribEvent", "DirAttribEvent") if hasattr(events, name)),
]


class Watch:
    """Calls `changed`, from a thread of its own, when a followed file may have changed."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._observer: Any = None
        self._paths: tuple[str, ...] = ()
        self._watched: dict[str, _Watched] = {}
        """By directory."""
        self._polled: dict[str, object] = {}
        """By path: what lstat said."""
        self._said: set[str] = set()

    def follow(self, paths: Iterable[str]) -> None:
        """From now on watch these absolute paths, and no others. A path that ends in `/.` is all of a directory."""
        self._paths = tuple(paths)
        self.renew()

    def renew(self) -> None:
        """Follow the links again, and watch what they lead to now. Call it after each event, before the look."""
        wanted = _wanted(self._paths)
        for _ in range(_MOST_WALKS):
            self._attend(wanted)
            before, wanted = wanted, _wanted(self._paths)
            if wanted == before:
                return

    def poll(self) -> None:
        """Look at what cannot be watched, and whether the watched directories are still in their places."""
        changed = any(not one.current(directory) for directory, one in self._watched.items())
        for place, before in self._polled.items():
            if (now := _look(place)) != before:
                self._polled[place], changed = now, True
        if changed:
            self.renew()
            self._changed()

    def stop(self) -> None:
        """End."""
        if self._observer is not None:
            self._observer.stop()

    def _attend(self, wanted: dict[str, set[str]]) -> None:
        """Watch these directories, each for the names in it, and no others; poll where that cannot be."""
        for directory, one in list(self._watched.items()):
            if directory not in wanted or not one.current(directory):
                self._unwatch(directory)
        # Read once, and only where it matters.
        listed = cache(mounts)
        polled: set[str] = set()
        for directory in sorted(wanted):
            if not self._watch(directory, frozenset(wanted[directory]), listed):
                polled |= {posixpath.join(directory, name) for name in wanted[directory]}
        self._polled = {place: self._polled[place] if place in self._polled else _look(place) for place in polled}
        self._said &= wanted.keys()

    def _watch(self, directory: str, names: frozenset[str], listed: Callable[[], Mounts]) -> bool:
        if directory in self._watched:
            self._watched[directory].handler.names = names
            return True
        identity = _identity(directory)
        reason = None
        if identity is None:
            reason = "it is not there"
        elif (mount := listed().of(directory)) is not None and mount.file_system.startswith(_REMOTE):
            reason = f"it is on {mount.file_system}"
        elif len(self._watched) >= _MOST_WATCHED:
            reason = f"{_MOST_WATCHED} others are watched"
        else:
            handler = _Handler(directory, names, self._changed)
            try:
                handle = self._started().schedule(handler, directory, event_filter=_EVENTS)
                self._watched[directory] = _Watched(handle, handler, identity)
            except (OSError, RuntimeError) as error:
                reason = getattr(error, "strerror", None) or "no thread can be started"
        if reason is not None and directory not in self._said:
            self._said.add(directory)
            say(logging.INFO, f"{directory} cannot be watched ({reason}): it is looked at every few seconds")
        return reason is None

    def _unwatch(self, directory: str) -> None:
        # Its thread may have ended with the directory.
        self._started().unschedule(self._watched.pop(directory).handle)

    def _started(self) -> Any:
        if self._observer is None:
            observer = Observer()
            observer.daemon = True
            observer.start()
            # Not before: one that could not be started takes watches, and reports nothing.
            self._observer = observer
        return self._observer


class _Handler(FileSystemEventHandler):
    """Passes on the events of some names in a directory. The rest of /etc or /run may change all the time."""

    def __init__(self, directory: str, names: frozenset[str], changed: Callable[[], None]) -> None:
        self._directory = directory
        self._changed = changed
        self.names = names
        """`.` is every name."""
        self.removed = False
        """Whether the directory was. A new one in its place can have the same inode number."""

    def on_any_event(self, event: FileSystemEvent) -> None:
        paths = {os.fsdecode(path) for path in (event.src_path, event.dest_path) if path}
        own = self._directory in paths
        self.removed |= own and isinstance(event, events.DirDeletedEvent)
        if own or "." in self.names or any(posixpath.basename(path) in self.names for path in paths):
            self._changed()


@dataclass(frozen=True, slots=True)
class _Watched:
    """A directory that is watched."""

    handle: Any
    """watchdog's."""
    handler: _Handler
    identity: object

    def current(self, directory: str) -> bool:
        """Whether the directory of this name is still the one that is watched."""
        return not self.handler.removed and _identity(directory) == self.identity


def _wanted(paths: Iterable[str]) -> dict[str, set[str]]:
    """The directories to watch, each with the names that matter in it."""
    wanted: dict[str, set[str]] = {}
    target = cache(_target)
    for path in paths:
        for place in deciding(path, target):
            directory, name = posixpath.split(place)
            wanted.setdefault(directory, set()).add(name)
    return wanted


def _target(place: str) -> str | None:
    """Where a link leads; None for anything else. Raises OSError."""
    try:
        return os.readlink(place)
    except OSError as error:
        if error.errno == errno.EINVAL:
            return None
        raise


def _identity(directory: str) -> object:
    """What tells a directory from another of the same name; None where there is none."""
    try:
        status = os.stat(directory)
    except OSError:
        return None
    return (status.st_dev, status.st_ino)


def _look(place: str) -> object:
    """What changes when a file does; None where there is none."""
    try:
        status = os.lstat(place)
    except OSError:
        return None
    return (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size)
