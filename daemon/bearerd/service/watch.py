"""Reports when watched files may have changed. The one module that uses watchdog.

It watches directories, not files: a rename or a switched symlink puts a new file in place, which a watch on the old
file never sees. It watches every directory that holds a file or a symlink on the way to one (service/links.py).
All files are also polled: inotify cannot watch every directory (no instances are left, or a network file system), and
events can be lost. An event only means "check": the caller finds out what changed, and calls `renew`, because symlinks
may lead elsewhere now.
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
from bearerd.reason import reason_of
from bearerd.service.links import deciding

# inotify does not see writes by another machine, nor by the host of a virtual machine.
_REMOTE: Final = (
    "nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "glusterfs", "lustre", "afs", "ncpfs", "fuse", "virtiofs", "vboxsf",
)  # fmt: skip
# Each one costs a thread, and with some versions of watchdog one of the user's 128 inotify instances.
_MOST_WATCHED: Final = 32
# Symlinks may switch while they are followed. They are followed again this often; later switches are events.
_MOST_WALKS: Final = 5
# Without opens and reads: our own reads would be events, too, and cost 0.6 ms of CPU per token.
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
    """Calls `changed` from a separate thread when a watched file may have changed."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._observer: Any = None
        self._paths: tuple[str, ...] = ()
        self._watched: dict[str, _Watched] = {}
        """By directory."""
        self._polled: dict[str, object] = {}
        """By path: the last result of lstat."""
        self._said: set[str] = set()

    def follow(self, paths: Iterable[str]) -> None:
        """Watch these absolute paths, and no others. A path that ends in `/.` means all files of a directory."""
        self._paths = tuple(paths)
        self.renew()

    def renew(self) -> None:
        """Follow the symlinks again, and watch what they lead to now. Call it after each event, before the check."""
        wanted = _wanted(self._paths)
        for _ in range(_MOST_WALKS):
            self._attend(wanted)
            before, wanted = wanted, _wanted(self._paths)
            if wanted == before:
                return

    def poll(self) -> None:
        """Check all files, whether the watched directories are still in place, and whether watchdog still runs.

        Watched files are checked too: events are lost if the kernel's queue is full or a thread of watchdog dies.
        """
        changed = self._dead() or any(not one.current(directory) for directory, one in self._watched.items())
        for place, before in self._polled.items():
            if (now := _look(place)) != before:
                self._polled[place], changed = now, True
        if changed:
            self.renew()
            self._changed()

    def stop(self) -> None:
        """Stop watching."""
        if self._observer is not None:
            self._observer.stop()

    def _dead(self) -> bool:
        """Whether a thread of watchdog died, of a MemoryError for example. All are replaced at the next `renew`."""
        observer = self._observer
        if observer is None or all(thread.is_alive() for thread in (observer, *observer.emitters)):
            return False
        self._observer = None
        self._watched.clear()
        observer.stop()
        return True

    def _attend(self, wanted: dict[str, set[str]]) -> None:
        """Watch these directories for these names, and no others."""
        for directory, one in list(self._watched.items()):
            if directory not in wanted or not one.current(directory):
                self._unwatch(directory)
        # Read once, and only if it is needed.
        listed = cache(mounts)
        for directory in sorted(wanted):
            self._watch(directory, frozenset(wanted[directory]), listed)
        polled = {posixpath.join(directory, name) for directory, names in wanted.items() for name in names}
        self._polled = {place: self._polled[place] if place in self._polled else _look(place) for place in polled}
        self._said &= wanted.keys()

    def _watch(self, directory: str, names: frozenset[str], listed: Callable[[], Mounts]) -> None:
        if directory in self._watched:
            self._watched[directory].handler.names = names
            return
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
                reason = reason_of(error) if isinstance(error, OSError) else "no thread can be started"
        if reason is not None and directory not in self._said:
            self._said.add(directory)
            say(logging.INFO, f"{directory} cannot be watched ({reason}); it is polled every few seconds")

    def _unwatch(self, directory: str) -> None:
        # Its thread may have ended with the directory.
        self._started().unschedule(self._watched.pop(directory).handle)

    def _started(self) -> Any:
        if self._observer is None:
            observer = Observer()
            observer.daemon = True
            observer.start()
            # Only after `start`: an observer that failed to start accepts watches and reports nothing.
            self._observer = observer
        return self._observer


class _Handler(FileSystemEventHandler):
    """Passes on events for some names in a directory. Other files in /etc or /run may change all the time."""

    def __init__(self, directory: str, names: frozenset[str], changed: Callable[[], None]) -> None:
        self._directory = directory
        self._changed = changed
        self.names = names
        """`.` means every name."""
        self.removed = False
        """Whether the directory was removed. A new one at the same path can have the same inode number."""

    def on_any_event(self, event: FileSystemEvent) -> None:
        paths = {os.fsdecode(path) for path in (event.src_path, event.dest_path) if path}
        own = self._directory in paths
        self.removed |= own and isinstance(event, events.DirDeletedEvent)
        if own or "." in self.names or any(posixpath.basename(path) in self.names for path in paths):
            self._changed()


@dataclass(frozen=True, slots=True)
class _Watched:
    """A watched directory."""

    handle: Any
    """The handle of watchdog."""
    handler: _Handler
    identity: object

    def current(self, directory: str) -> bool:
        """Whether the watched directory still has this name."""
        return not self.handler.removed and _identity(directory) == self.identity


def _wanted(paths: Iterable[str]) -> dict[str, set[str]]:
    """The directories to watch, each with the names to watch in it."""
    wanted: dict[str, set[str]] = {}
    target = cache(_target)
    for path in paths:
        for place in deciding(path, target):
            directory, name = posixpath.split(place)
            wanted.setdefault(directory, set()).add(name)
    return wanted


def _target(place: str) -> str | None:
    """The target of a symlink; None for anything else. Raises OSError."""
    try:
        return os.readlink(place)
    except OSError as error:
        if error.errno == errno.EINVAL:
            return None
        raise


def _identity(directory: str) -> object:
    """The identity of a directory, which differs from that of a successor with the same name; None if it is missing."""
    try:
        status = os.stat(directory)
    except OSError:
        return None
    return (status.st_dev, status.st_ino)


def _look(place: str) -> object:
    """A value that changes whenever the file does; None if it is missing."""
    try:
        status = os.lstat(place)
    except OSError:
        return None
    return (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size)
