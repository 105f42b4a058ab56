"""The path to a file as its reader passes it: each directory on it, and the file as bearerd will write it."""

from __future__ import annotations

import errno
import os
import posixpath
import stat
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from bearerd.accounts import group_name, user_name
from bearerd.errors import PublishError
from bearerd.model import Config, Output
from bearerd.publish.access import MOST_LINKS, SETGID, Component, Entry, acl_of, inherited
from bearerd.publish.advice import at
from bearerd.publish.owners import gid_of, uid_of
from bearerd.terms import OWN_DIRECTORY

_ACL: Final = "system.posix_acl_access"
_DEFAULT_ACL: Final = "system.posix_acl_default"


@dataclass(frozen=True, slots=True)
class ReaderPath:
    """The directories from / to a file, and the file as bearerd will write it."""

    directories: tuple[Component, ...]
    file: Component | None = None
    """None if this process is not allowed to look into the last directory."""
    guessed: bool = False
    """Whether the result depends on the daemon's user, who is not known: this process's user was assumed."""
    now: Component | None = None
    """The file as it is until the next token."""


class ReaderPaths:
    """The path to each file of a config: directories as they are, and missing ones as bearerd will make them."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._names: dict[tuple[Callable[[int], str], int], str] = {}
        # The daemon makes the lock, so its owner is the daemon's user.
        try:
            lock = os.lstat(posixpath.join(config.directory, OWN_DIRECTORY, "lock"))
            self.uid, self._gid, self._guessed = lock.st_uid, lock.st_gid, False
        except OSError:
            self.uid, self._gid, self._guessed = os.geteuid(), os.getegid(), True

    @property
    def daemon(self) -> str:
        """The daemon's user, as far as that is known."""
        return self._name(user_name, self.uid)

    def of(self, output: Output) -> ReaderPath:
        """The path to an output; raises PublishError if there is none."""
        directory, name = posixpath.split(output.path)
        components: list[Component] = []
        try:
            missing = self._walk(directory, components)
        except PermissionError:
            return ReaderPath(tuple(components))
        except OSError as error:
            raise PublishError(at(directory, error)) from None
        default = _acl(components[-1].path, _DEFAULT_ACL)
        for step in missing:
            components.append(self._to_be_made(components[-1], step, default))
        uid, gid = uid_of(output.owner), gid_of(output.group)
        guessed = self._guessed and (bool(missing) or -1 in (uid, gid))
        parent = components[-1]
        if uid == -1:
            uid = self.uid
        if gid == -1:
            gid = self._inherited_group(parent)
        path = posixpath.join(parent.path, name)
        file = self._component(path, output.mode, uid, gid, inherited(default, output.mode), made=True)
        return ReaderPath(tuple(components), file, guessed, None if missing else self._now(path))

    def _walk(self, directory: str, components: list[Component]) -> list[str]:
        """Add each directory on the path, following symlinks; returns the names that do not exist."""
        components.append(self._existing("/"))
        here, links = "/", 0
        left = directory.split("/")[::-1]
        while left:
            step = left.pop()
            if step in {"", "."}:
                continue
            if step == "..":
                here = posixpath.dirname(here)
                continue
            there = posixpath.join(here, step)
            try:
                found = os.lstat(there)
            except FileNotFoundError:
                return [step, *left[::-1]]
            if stat.S_ISLNK(found.st_mode):
                links += 1
                if links > MOST_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                target = os.readlink(there)
                here = "/" if target.startswith("/") else here
                left += target.split("/")[::-1]
            elif stat.S_ISDIR(found.st_mode):
                here = there
                components.append(self._existing(here))
            else:
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        return []

    def _existing(self, path: str) -> Component:
        found = os.stat(path)
        return self._component(path, stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid, _acl(path, _ACL))

    def _to_be_made(self, above: Component, step: str, default: tuple[Entry, ...]) -> Component:
        """A directory as publish/walk makes it."""
        mode, gid = self._config.directory_mode | above.mode & SETGID, gid_of(self._config.group)
        if gid == -1:
            gid = self._inherited_group(above)
        return self._component(
            posixpath.join(above.path, step), mode, self.uid, gid, inherited(default, mode), made=True
        )

    def _now(self, path: str) -> Component | None:
        try:
            found = os.lstat(path)
        except OSError:
            return None
        mode = stat.S_IMODE(found.st_mode)
        return self._component(path, mode, found.st_uid, found.st_gid, _acl(path, _ACL))

    def _inherited_group(self, above: Component) -> int:
        return above.gid if above.mode & SETGID else self._gid

    def _component(
        self, path: str, mode: int, uid: int, gid: int, acl: tuple[Entry, ...], *, made: bool = False
    ) -> Component:
        owner, group = self._name(user_name, uid), self._name(group_name, gid)
        return Component(path, mode, uid, gid, owner, group, acl, made)

    def _name(self, look_up: Callable[[int], str], number: int) -> str:
        key = look_up, number
        if key not in self._names:
            self._names[key] = look_up(number)
        return self._names[key]


def _acl(path: str, attribute: str) -> tuple[Entry, ...]:
    try:
        return acl_of(os.getxattr(path, attribute, follow_symlinks=False))
    except OSError:
        return ()
