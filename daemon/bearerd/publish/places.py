"""What is where the files go: who else can write there, what is mounted there, and the way of one who reads."""

from __future__ import annotations

import errno
import os
import posixpath
import stat
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Final

from bearerd.errors import PublishError
from bearerd.model import OWN_DIRECTORY, Config, Output
from bearerd.mounts import Mounts, mounts
from bearerd.publish.access import SETGID, STICKY, WRITE_BY_OTHERS, Entry, Place, acl_of, inherited
from bearerd.publish.owners import gid_of, group_name, uid_of, user_name
from bearerd.publish.why import why

# As many as the kernel follows: path_resolution(7).
_MOST_LINKS: Final = 40
_ACL: Final = "system.posix_acl_access"
_DEFAULT_ACL: Final = "system.posix_acl_default"


# -- what is mounted there -------------------------------------------------------------------------


def mounted(paths: Collection[str]) -> dict[str, str]:
    """Which of these files are mount points, each with what to do: no rename replaces one.

    Where /proc is hidden it is not known.
    """
    current = mounts()
    # Most have a name that no mount point has, and need no look.
    names = {posixpath.basename(point) for point in current.points}
    return {
        path: f"{path} is a mount point, which cannot be replaced: mount the directory in its place (in Docker "
        "-v DIRECTORY:DIRECTORY, in Kubernetes a volume without subPath)"
        for path in paths
        if posixpath.basename(path) in names and _is_mount_point(path, current) and not os.path.isdir(path)
    }


def _is_mount_point(path: str, current: Mounts) -> bool:
    directory, name = posixpath.split(path)
    resolved = posixpath.join(os.path.realpath(directory), name)
    mount = current.of(resolved)
    return mount is not None and mount.point == resolved


# -- who else can write there ----------------------------------------------------------------------


def exposed(config: Config) -> dict[str, str]:
    """The directories on the way to the files in which others can write, each with what that means."""
    found: dict[str, str] = {}
    own = _own_directories(config)
    for path in sorted(own):
        mode = _mode(path)
        there = mode is not None
        mode = config.directory_mode if mode is None else mode
        if mode & WRITE_BY_OTHERS:
            found[path] = _sticky(mode) if mode & STICKY else _open(path, mode, there=there)
    # Below the output directory no link is followed.
    tops = {path for path in own if not path.startswith(f"{config.directory}/")}
    above = {parent for path in tops for parent in _parents(os.path.realpath(path))} - own
    for path in sorted(above):
        mode = _mode(path) or 0
        # In a sticky one, such as /tmp, nobody can move what is another's.
        if mode & WRITE_BY_OTHERS and not mode & STICKY:
            found[path] = _open(path, mode, there=True)
    return found


def _open(path: str, mode: int, *, there: bool) -> str:
    what = f"others can write there (mode {mode:04o}): any user can take the token files away, or put others there"
    if not there:
        return f"as bearerd makes it {what}; take that right from output.directory_mode"
    return (
        f"{what}; chmod o-w {path}. An emptyDir is 0777 by nature, which is fine where only this pod's containers "
        "reach it"
    )


def _sticky(mode: int) -> str:
    return (
        f"others can write there (mode {mode:04o}): what is bearerd's they cannot touch, but where nothing is yet any "
        "user can put a file that readers take for a token, and that only root can replace; use a directory for "
        "bearerd alone"
    )


def _own_directories(config: Config) -> set[str]:
    """The output directory, all those below it on the way to a file, and where files go elsewhere."""
    root = config.directory
    found = {root}
    for target in config.targets:
        for output in target.outputs:
            directory = posixpath.dirname(output.path)
            found.add(directory)
            if directory.startswith(f"{root}/"):
                found |= {parent for parent in _parents(directory) if len(parent) > len(root)}
    return found


def _parents(path: str) -> Iterator[str]:
    while path != "/":
        path = posixpath.dirname(path)
        yield path


def _mode(path: str) -> int | None:
    try:
        return stat.S_IMODE(os.stat(path).st_mode)
    except OSError:
        return None


# -- the way of one who reads ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Way:
    """What somebody goes through who reads a file, from / on, and the file as bearerd will write it."""

    directories: tuple[Place, ...]
    file: Place | None = None
    """None where the way cannot be seen to its end."""
    guessed: bool = False
    """Nothing shows as whom the daemon runs, and that matters: it is taken to be who asks."""
    now: Place | None = None
    """The file that is there, until the next token."""


class Ways:
    """Knows each file's way: what is there as it is, what is missing as bearerd will make it."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._names: dict[tuple[Callable[[int], str], int], str] = {}
        # The lock is made by the daemon, as whom it runs.
        try:
            lock = os.lstat(posixpath.join(config.directory, OWN_DIRECTORY, "lock"))
            self.uid, self._gid, self._guessed = lock.st_uid, lock.st_gid, False
        except OSError:
            self.uid, self._gid, self._guessed = os.geteuid(), os.getegid(), True

    @property
    def daemon(self) -> str:
        """As whom the daemon is taken to run."""
        return self._name(user_name, self.uid)

    def way(self, output: Output) -> Way:
        """The way to a file; raises PublishError where there is none."""
        directory, name = posixpath.split(output.path)
        places: list[Place] = []
        try:
            missing = self._walk(directory, places)
        except PermissionError:
            return Way(tuple(places))
        except OSError as error:
            raise PublishError(f"{directory}: {why(error)}") from None
        default = _acl(places[-1].path, _DEFAULT_ACL)
        for word in missing:
            places.append(self._made(places[-1], word, default))
        uid, gid = uid_of(output.owner), gid_of(output.group)
        guessed = self._guessed and (bool(missing) or -1 in (uid, gid))
        parent = places[-1]
        if uid == -1:
            uid = self.uid
        if gid == -1:
            gid = self._inherited_group(parent)
        path = posixpath.join(parent.path, name)
        file = self._place(path, output.mode, uid, gid, inherited(default, output.mode), made=True)
        return Way(tuple(places), file, guessed, None if missing else self._now(path))

    def _walk(self, directory: str, places: list[Place]) -> list[str]:
        """Add each directory that is gone through to get there, links followed; returns what is missing."""
        places.append(self._there("/"))
        here, links = "/", 0
        left = directory.split("/")[::-1]
        while left:
            word = left.pop()
            if word in {"", "."}:
                continue
            if word == "..":
                here = posixpath.dirname(here)
                continue
            there = posixpath.join(here, word)
            try:
                found = os.lstat(there)
            except FileNotFoundError:
                return [word, *left[::-1]]
            if stat.S_ISLNK(found.st_mode):
                links += 1
                if links > _MOST_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                target = os.readlink(there)
                here = "/" if target.startswith("/") else here
                left += target.split("/")[::-1]
            elif stat.S_ISDIR(found.st_mode):
                here = there
                places.append(self._there(here))
            else:
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        return []

    def _there(self, path: str) -> Place:
        found = os.stat(path)
        return self._place(path, stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid, _acl(path, _ACL))

    def _made(self, above: Place, word: str, default: tuple[Entry, ...]) -> Place:
        """A directory as publish/atomic makes it."""
        mode, gid = self._config.directory_mode | above.mode & SETGID, gid_of(self._config.group)
        if gid == -1:
            gid = self._inherited_group(above)
        return self._place(posixpath.join(above.path, word), mode, self.uid, gid, inherited(default, mode), made=True)

    def _now(self, path: str) -> Place | None:
        try:
            found = os.lstat(path)
        except OSError:
            return None
        mode = stat.S_IMODE(found.st_mode)
        return self._place(path, mode, found.st_uid, found.st_gid, _acl(path, _ACL))

    def _inherited_group(self, above: Place) -> int:
        return above.gid if above.mode & SETGID else self._gid

    def _place(self, path: str, mode: int, uid: int, gid: int, acl: tuple[Entry, ...], *, made: bool = False) -> Place:
        owner, group = self._name(user_name, uid), self._name(group_name, gid)
        return Place(path, mode, uid, gid, owner, group, acl, made)

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
