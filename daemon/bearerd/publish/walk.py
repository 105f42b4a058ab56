"""Opens a directory step by step, by descriptor, so that no other user can redirect the daemon.

If the daemon runs as root, another user's symlink on the path to a file could make it write anywhere. So the kernel
never resolves a whole path:

- Each step is opened relative to the one before, without following symlinks.
- A symlink is followed only if root or the daemon's user owns it, and nobody else can write its directory (`/var/run`
  is followed; a link in `/tmp` never is). Owner and target are read through one descriptor of the link, so that it
  cannot be replaced in between.
- Below a directory of another user no symlink is followed.
- Below the output directory no symlink is followed at all.
- bearerd's own directories for records and state must belong to the daemon's user, and nobody else may write there.
  Any other is moved aside and never read.
"""

from __future__ import annotations

import errno
import logging
import os
import posixpath
import secrets
import stat
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, NamedTuple

from bearerd.accounts import user_name
from bearerd.descriptors import release
from bearerd.errors import PublishError
from bearerd.log import say
from bearerd.publish.access import MOST_LINKS, WRITE_BY_GROUP_OR_OTHERS
from bearerd.publish.advice import advice
from bearerd.publish.owners import gid_of
from bearerd.publish.ownership import setting

# O_PATH: a directory on the path needs no read permission.
_STEP: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LAST: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LINK: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
# How much one walk moves aside: .bearerd, a directory in it, and one in that. More: another user keeps putting it back.
_MOST_MOVED: Final = 4

# Of two threads that find the same directory, the second must not move aside the new one of the first.
_moving: Final = threading.Lock()


class Step(NamedTuple):
    """One step of a path."""

    name: str
    mode: int
    """Of the directory, if it has to be made."""
    follow: bool = False
    """Whether a symlink here may be followed, if it can be trusted."""
    private: bool = False
    """Whether the directory must be private to the daemon."""
    movable: bool = False
    """Whether it is moved aside if it is not."""


class Stranger(NamedTuple):
    """A directory of another user."""

    path: str
    uid: int

    def __str__(self) -> str:
        return f"{self.path}, which belongs to user {user_name(self.uid)}"


@dataclass(slots=True)
class OpenDirectory:
    """A directory that was walked to. The caller of `walk` closes `descriptor`."""

    descriptor: int
    path: str
    """Without symlinks."""
    status: os.stat_result
    stranger: Stranger | None = None
    """The first directory on the path that belongs to neither root nor the daemon's user."""
    private: bool = False
    missing: tuple[str, ...] = ()
    """The rest of the path that does not exist; this is then the last existing directory."""
    links: tuple[str, ...] = ()
    """Each symlink that was followed, and where it leads."""


def distrust(status: os.stat_result, uid: int) -> str:
    """Why a file or directory is not private to a user; empty if it is."""
    if status.st_uid != uid:
        return f"it belongs to user {user_name(status.st_uid)}, and bearerd runs as {user_name(uid)}"
    # With a POSIX ACL the group's bits are its mask, and no entry grants more (acl(5)).
    if status.st_mode & WRITE_BY_GROUP_OR_OTHERS:
        return f"other users can write it (mode {stat.S_IMODE(status.st_mode):04o})"
    return ""


def walk(steps: Sequence[Step], *, make: bool, group: str | None = None) -> OpenDirectory:
    """Walk from `/`; `make` makes missing directories, which get this group. Raises OSError or PublishError."""
    walker = _Walker(steps, group, make=make)
    try:
        return walker.arrive()
    except BaseException:
        release(walker.here.descriptor)
        raise


def move_aside(parent: int, path: str, found: os.stat_result, reason: str) -> None:
    """Move aside a file or directory that must not be used, or remove it; raises PublishError if neither works."""
    name = posixpath.basename(path)
    aside = f"{name}.untrusted-{secrets.token_hex(4)}"
    with _moving:
        try:
            now = os.stat(name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return
        if (now.st_dev, now.st_ino) != (found.st_dev, found.st_ino):
            return  # another thread has moved it
        try:
            os.rename(name, aside, src_dir_fd=parent, dst_dir_fd=parent)
            done = f"it was moved to {posixpath.join(posixpath.dirname(path), aside)}"
        except OSError as error:
            if not _removed(parent, name, found):
                raise PublishError(
                    f"{path} is not used because {reason}; moving it aside failed ({advice(error)}); remove it"
                ) from None
            done = "it could not be moved, so it was removed"
    say(logging.WARNING, f"{path} is not used because {reason}; {done}, and a new one is created")


def _removed(parent: int, name: str, found: os.stat_result) -> bool:
    try:
        if stat.S_ISDIR(found.st_mode):
            os.rmdir(name, dir_fd=parent)
        else:
            os.unlink(name, dir_fd=parent)
    except OSError:
        return False
    return True


class _Walker:
    """One walk."""

    def __init__(self, steps: Sequence[Step], group: str | None, *, make: bool) -> None:
        self._left = list(steps[::-1])
        self._make = make
        self._group = group
        self._uid = os.geteuid()
        self._links: list[str] = []
        self._moved = 0
        descriptor = os.open("/", _STEP)
        self.here = OpenDirectory(descriptor, "/", os.fstat(descriptor))
        self._note_stranger()

    def arrive(self) -> OpenDirectory:
        """Walk to the end."""
        last = _STEP
        while self._left:
            step = self._left.pop()
            # A private directory is judged before it is opened for reading, which may not be allowed.
            last = _STEP if self._left or step.private else _LAST
            try:
                self._take(step, last)
            except FileNotFoundError:
                if self._make:
                    raise
                self.here.missing = (step.name, *(later.name for later in self._left[::-1]))
                break
        if last == _STEP and not self.here.missing:
            self._change(os.open(".", _LAST, dir_fd=self.here.descriptor), self.here.path, self.here.status)
        self.here.links = tuple(self._links)
        return self.here

    def _take(self, step: Step, flags: int) -> None:
        """Go one step, or replace it by the steps of a symlink."""
        if step.name == ".." and self.here.stranger:
            raise PublishError(f"{self.here.path}: '..' is not followed below {self.here.stranger}; use the real path")
        path = _joined(self.here.path, step.name)
        try:
            descriptor = self._open(step, path, flags)
        except NotADirectoryError:
            found = os.stat(step.name, dir_fd=self.here.descriptor, follow_symlinks=False)
            if stat.S_ISDIR(found.st_mode):  # it was replaced meanwhile
                self._again(step, path, "it was not a directory")
            elif step.movable:
                kind = "a symlink" if stat.S_ISLNK(found.st_mode) else "not a directory"
                self._move_aside(step, path, found, f"it is {kind}")
            else:
                self._follow(step, path)
            return
        status = os.fstat(descriptor)
        if step.private and (reason := distrust(status, self._uid)):
            release(descriptor)
            if not step.movable:
                raise PublishError(f"{path} is not used because {reason}")
            self._move_aside(step, path, status, reason)
            return
        self._change(descriptor, path, status)
        self.here.private = step.private

    def _open(self, step: Step, path: str, flags: int) -> int:
        try:
            return os.open(step.name, flags, dir_fd=self.here.descriptor)
        except FileNotFoundError:
            if not self._make:
                raise
        return self._made(step, path, flags)

    def _change(self, descriptor: int, path: str, status: os.stat_result) -> None:
        release(self.here.descriptor)
        self.here.descriptor, self.here.path, self.here.status = descriptor, path, status
        self._note_stranger()

    def _note_stranger(self) -> None:
        owner = self.here.status.st_uid
        if self.here.stranger is None and owner not in {0, self._uid}:
            self.here.stranger = Stranger(self.here.path, owner)

    def _move_aside(self, step: Step, path: str, found: os.stat_result, reason: str) -> None:
        self._again(step, path, reason)
        move_aside(self.here.descriptor, path, found, reason)

    def _again(self, step: Step, path: str, reason: str) -> None:
        """Let a step be taken again; raises PublishError if that happens too often."""
        self._moved += 1
        if self._moved > _MOST_MOVED:
            raise PublishError(f"another user keeps putting {path} back: {reason}")
        self._left.append(step)

    # -- links ---------------------------------------------------------------------------------

    def _follow(self, step: Step, path: str) -> None:
        """Follow a symlink that can be trusted; raises PublishError, or NotADirectoryError for a file."""
        link = os.open(step.name, _LINK, dir_fd=self.here.descriptor)
        try:
            found = os.fstat(link)
            if not stat.S_ISLNK(found.st_mode):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
            if reason := self._refusal(step, found):
                raise PublishError(f"the symlink {path} is not followed: {reason}")
            target = os.readlink("", dir_fd=link)
        finally:
            release(link)
        if len(self._links) >= MOST_LINKS:
            raise PublishError(f"the symlink {path} is not followed: the path has more than {MOST_LINKS}")
        self._links.append(f"{path} leads to {target}")
        if target.startswith("/"):
            descriptor = os.open("/", _STEP)
            self._change(descriptor, "/", os.fstat(descriptor))
        # A target of slashes alone has no names. The last name gets the properties of the link's own step.
        names = [name for name in target.split("/") if name] or ["."]
        self._left.append(step._replace(name=names[-1]))
        self._left += [Step(name, step.mode, follow=True) for name in names[-2::-1]]

    def _refusal(self, step: Step, found: os.stat_result) -> str:
        """Why a symlink is not followed here; empty if it is."""
        here = self.here
        if not step.follow:
            why = "symlinks are not allowed below the output directory"
            return f"{why}; replace it with a directory, or use the real path"
        if here.stranger:
            return f"it is below {here.stranger}; use the real path"
        if found.st_uid not in {0, self._uid}:
            return (
                f"it belongs to user {user_name(found.st_uid)}; bearerd only follows links of root and of its own user "
                f"({user_name(self._uid)}); use the real path, or have root create the link"
            )
        if here.status.st_mode & WRITE_BY_GROUP_OR_OTHERS:
            mode = stat.S_IMODE(here.status.st_mode)
            return (
                f"users besides {user_name(here.status.st_uid)} can write {here.path} (mode {mode:04o}) and "
                f"replace the link; use the real path, or chmod go-w {here.path}"
            )
        return ""

    # -- missing directories ------------------------------------------------------------

    def _made(self, step: Step, path: str, flags: int) -> int:
        """Make a directory. Its mode never grants more than configured, not even for an instant."""
        above, gid = self.here, gid_of(self._group)
        inherited = above.status.st_gid if above.status.st_mode & stat.S_ISGID else os.getegid()
        # Until a directory has its group, only its owner may enter. If the group is right from the start, mkdir sets
        # the mode as far as the umask allows, and inherits the setgid bit: systemd's RestrictSUIDSGID= refuses every
        # later chmod with that bit, even if it is set already.
        first = 0o777 if gid in {-1, inherited} else 0o700
        try:
            os.mkdir(step.name, step.mode & first, dir_fd=above.descriptor)
        except FileExistsError:  # another thread made it
            return os.open(step.name, flags, dir_fd=above.descriptor)
        descriptor = os.open(step.name, _LAST, dir_fd=above.descriptor)
        try:
            status = os.fstat(descriptor)
            if status.st_uid == self._uid:  # otherwise another user replaced it, and it is left alone
                if gid not in {-1, status.st_gid}:
                    with setting(-1, gid):
                        os.fchown(descriptor, -1, gid)
                made = stat.S_IMODE(status.st_mode)
                if made != (wanted := step.mode | made & stat.S_ISGID):
                    _set_mode(descriptor, path, wanted)
            if step.private:
                _prove_private(descriptor, path, self._uid)
        except BaseException:
            release(descriptor)
            with suppress(OSError):  # otherwise it would look like one that was made on purpose
                os.rmdir(step.name, dir_fd=above.descriptor)
            raise
        return descriptor


def _prove_private(descriptor: int, path: str, uid: int) -> None:
    """Raise PublishError if a new directory is not private to the daemon, since another one would not be either."""
    if reason := distrust(os.fstat(descriptor), uid):
        raise PublishError(
            f"{path} cannot be made private to bearerd: {reason}; use a directory on a file system that supports "
            "owners and modes"
        )


def _joined(directory: str, name: str) -> str:
    """The path of a step, without `.` and `..`."""
    if name in {".", ".."}:
        return posixpath.normpath(posixpath.join(directory, name))
    return f"{directory}/{name}" if directory != "/" else f"/{name}"


def _set_mode(descriptor: int, path: str, mode: int) -> None:
    """Set a directory's mode; raises PublishError if the setgid bit cannot be set."""
    refused = ""
    try:
        os.fchmod(descriptor, mode)
    except PermissionError:
        if not mode & stat.S_ISGID:
            raise
        refused = "setting the setgid bit is forbidden, for example by systemd's RestrictSUIDSGID="
    else:
        # The kernel silently drops the bit if the process is not in the directory's group (chmod(2)).
        if mode & stat.S_ISGID and not os.fstat(descriptor).st_mode & stat.S_ISGID:
            refused = "the daemon's user is not in its group, and so cannot keep the setgid bit"
    if refused:
        raise PublishError(
            f"{path} cannot be created with mode {mode:04o}: {refused}; create it beforehand (tmpfiles.d), or set "
            "output.directory_mode without the setgid bit and without write permission for the group"
        )
