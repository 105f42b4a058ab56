"""Replaces files so that a reader sees either the old content or the new, even after a crash or on a full disk.

The steps of `replace`:

    1  Create a dot-named temporary file in the same directory, with O_EXCL and O_NOFOLLOW: a file that
       another user planted is never written to.
    2  Set owner and group on the descriptor, then the mode, since a change of owner may clear bits of it.
       After the rename it would be wrong for an instant.
    3  Write every byte: a write may be short.
    4  fsync. If it fails, give up: a second fsync could succeed without the bytes.
    5  rename to the final name. A symlink there is replaced, not followed.
    6  fsync the directory. If that fails, the file is published, but could be lost in a power failure.

A failure before step 5 leaves the old file as it was, and removes the temporary one.

`walk` opens the directory.
"""

from __future__ import annotations

import errno
import os
import posixpath
import re
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from hashlib import sha256
from typing import Final, NamedTuple

from bearerd.accounts import user_name
from bearerd.descriptors import release
from bearerd.errors import NotPermitted, PublishError
from bearerd.handoff import waiting
from bearerd.publish.access import WRITE_BY_GROUP_OR_OTHERS
from bearerd.publish.advice import advice, at, this_user
from bearerd.publish.kept import KeptDirectories
from bearerd.publish.owners import PRIVATE, PRIVATE_DIRECTORY, Attributes, gid_of
from bearerd.publish.ownership import prove_made, setting
from bearerd.publish.walk import OpenDirectory, Step, distrust, move_aside, walk
from bearerd.regular import read_up_to

# Seconds. On a tmpfs an fsync takes microseconds; on a disk it takes longer than the rest of a turn.
_SLOW_SYNC: Final = 0.0003


class Replaced(NamedTuple):
    """The state of a file after it was written, and a warning if it may not be durable."""

    status: os.stat_result
    warning: str | None = None


class Files:
    """The files below one output directory (and, by absolute paths, elsewhere).

    In `own`, which is `root` or below it, only the daemon's user may write. Directories and files there that others
    own or can write are moved aside with a warning.
    """

    def __init__(self, root: str, directory_mode: int, group: str | None = None, own: str | None = None) -> None:
        self.root = root
        self._own = own
        # Two daemons can write files into one directory: each sweeps only its own temporary files.
        self._mark = sha256(os.fsencode(root)).hexdigest()[:8]
        self._given_up = False
        self._slow = False
        self._kept = KeptDirectories()
        self.adopt(directory_mode, group)

    def adopt(self, directory_mode: int, group: str | None) -> None:
        """Use this mode and group for new directories from now on."""
        self._mode, self._group = directory_mode, group
        self._to_root = [Step(name, self._mode, follow=True) for name in _names(self.root)]
        if self._own == self.root and self._to_root:
            self._to_root[-1] = self._to_root[-1]._replace(private=True)

    def give_up(self) -> None:
        """Write nothing from now on: another daemon uses the directory."""
        self._given_up = True

    def replace(self, path: str, content: bytes, wanted: Attributes) -> Replaced:
        """Replace one file. Raises PublishError; the old file is then unchanged."""
        with self._errors(path), self._parent(path, make=True) as (opened, name):
            self._refuse_third_users(opened, path, wanted.uid)
            parent = opened.descriptor
            temporary, status = self._write(parent, content, wanted)
            try:
                os.rename(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)  # 5
            except BaseException:
                _unlink(parent, temporary)
                raise
            try:
                self._sync(parent)  # 6
            except OSError as error:
                return Replaced(status, f"{path} is published, but its directory could not be synced: {advice(error)}")
        return Replaced(status)

    def matches(self, path: str, content: bytes, wanted: Attributes) -> bool:
        """Whether a file has exactly this content, mode and owner; raises PublishError."""
        with self._errors(path):
            try:
                with self._parent(path) as (opened, name):
                    status = os.stat(name, dir_fd=opened.descriptor, follow_symlinks=False)
                    return (
                        wanted.fits(status)
                        and status.st_size == len(content)
                        and _read(opened.descriptor, name, len(content) + 1) == content
                    )
            except (FileNotFoundError, PermissionError):
                return False

    def read(self, path: str, most: int) -> bytes | None:
        """A file's content, up to `most` bytes; None if it does not exist or cannot be trusted.

        Raises PublishError if it cannot be read.
        """
        read = partial(self._read_trusted, path, most)
        try:
            return read()
        except OSError:  # once more: an interruption, or a stale handle of a network file system
            try:
                return read()
            except OSError as error:
                raise PublishError(at(path, error)) from None

    def judge(self, path: str) -> bool:
        """Whether a file in `own` exists; one that cannot be trusted is moved aside. Raises PublishError."""
        with self._errors(path), suppress(FileNotFoundError), self._parent(path) as (opened, _):
            return _is_own(opened, path)
        return False

    def names(self, directory: str) -> list[str]:
        """The names in a directory; none if it does not exist, cannot be read, or cannot be trusted."""
        try:
            with self.directory(directory) as opened:
                return os.listdir(opened.descriptor)
        except (OSError, PublishError):
            return []

    def remove(self, path: str, owner: int = -1) -> bool:
        """Remove a file if it exists; `owner` is its configured owner (-1 for none). Raises PublishError."""
        with self._errors(path):
            try:
                with self._parent(path) as (opened, name):
                    self._refuse_third_users(opened, path, owner)
                    os.unlink(name, dir_fd=opened.descriptor)
            except FileNotFoundError:
                return False
            return True

    def keep_aside(self, path: str, suffix: str) -> str:
        """Rename a file so that it is neither read nor overwritten; returns its new path. Raises PublishError."""
        with self._errors(path), self._parent(path) as (opened, name):
            os.rename(name, f"{name}.{suffix}", src_dir_fd=opened.descriptor, dst_dir_fd=opened.descriptor)
        return f"{path}.{suffix}"

    def sweep(self, directories: set[str]) -> int:
        """Remove temporary files that a killed process left behind. Call it only under the lock."""
        swept = 0
        ours = re.compile(rf"\.bearerd-{self._mark}-[0-9a-f]{{16}}\.tmp")
        for directory in directories:
            with suppress(OSError, PublishError), self.directory(directory) as opened:
                for name in filter(ours.fullmatch, os.listdir(opened.descriptor)):
                    with suppress(PublishError):
                        self._refuse_third_users(opened, f"{directory}/{name}")
                        _unlink(opened.descriptor, name)
                        swept += 1
        return swept

    def prove_writable(self, directory: str) -> None:
        """Make a directory if it is missing, then write and remove a file in it; raises PublishError."""
        with self._errors(directory), self.directory(directory, make=True) as opened:
            _unlink(opened.descriptor, self._write(opened.descriptor, b"x", PRIVATE)[0])

    def prove_usable(self, directory: str, wanted: Attributes = PRIVATE) -> None:
        """Check that a directory accepts such a file, or that it can be made; raises PublishError."""
        with self._errors(directory), self.look(directory) as opened:
            if not opened.missing:
                _unlink(opened.descriptor, self._write(opened.descriptor, b"x", wanted)[0])
                return
            if not os.access(".", os.W_OK | os.X_OK, dir_fd=opened.descriptor, effective_ids=True):
                raise NotPermitted(f"{directory} does not exist, and {this_user()} is not allowed to create it")
            prove_made(opened.status, self._mode, gid_of(self._group), wanted)

    def prove_group(self, directory: str) -> None:
        """Check that a directory can get its group, if it has to be made; raises PublishError."""
        with self._errors(directory), self.look(directory) as opened:
            if opened.missing:
                prove_made(opened.status, self._mode, gid_of(self._group))

    @contextmanager
    def directory(self, directory: str, *, make: bool = False) -> Iterator[OpenDirectory]:
        """Open a directory for the block; raises OSError (FileNotFoundError) or PublishError."""
        with self._kept.use(directory) as kept:
            if kept is not None:
                yield kept
                return
        walked = partial(walk, self._steps(directory), make=make, group=self._group)
        try:
            opened = walked()
        except OSError as error:
            if error.errno not in {errno.EMFILE, errno.ENFILE}:
                raise
            self._kept.drop_all()  # the descriptors that are kept may be those that are missing
            opened = walked()
        if opened.missing:
            release(opened.descriptor)
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        with self._kept.keep(directory, opened):
            yield opened

    def close_directories(self) -> None:
        """Close the directories that are kept open for the next use."""
        self._kept.drop_all()

    @contextmanager
    def look(self, directory: str) -> Iterator[OpenDirectory]:
        """Open a directory, or the last existing one above it, without moving anything aside; raises as above."""
        opened = walk([step._replace(private=False, movable=False) for step in self._steps(directory)], make=False)
        try:
            yield opened
        finally:
            release(opened.descriptor)

    # -- steps ---------------------------------------------------------------------------------

    def _steps(self, directory: str) -> list[Step]:
        """The steps to a directory: below the root no symlink is followed, and below `own` everything is private."""
        top = self.root.rstrip("/") + "/"
        if not f"{directory}/".startswith(top):
            return [Step(name, self._mode, follow=True) for name in _names(directory)]
        steps, path, within = self._to_root.copy(), self.root.rstrip("/"), self._own == self.root
        for name in _names(directory[len(top) :]):
            path = f"{path}/{name}"
            if within:
                steps.append(Step(name, PRIVATE_DIRECTORY, private=True, movable=True))
            elif path == self._own:
                within = True  # readers pass through it to the control socket
                steps.append(Step(name, self._mode & ~WRITE_BY_GROUP_OR_OTHERS, private=True, movable=True))
            else:
                steps.append(Step(name, self._mode))
        return steps

    def _read_trusted(self, path: str, most: int) -> bytes | None:
        try:
            with self._parent(path) as (opened, name):
                if opened.private and not _is_own(opened, path):
                    return None
                return _read(opened.descriptor, name, most)
        except (FileNotFoundError, NotADirectoryError, PublishError):
            return None
        except OSError as error:
            if error.errno == errno.ELOOP:
                return None  # a symlink, which is not followed
            raise

    def _refuse_third_users(self, opened: OpenDirectory, path: str, owner: int = -1) -> None:
        """Below a directory of another user, raise PublishError for a file that is neither theirs, root's nor ours."""
        if opened.stranger is None:
            return
        try:
            found = os.stat(posixpath.basename(path), dir_fd=opened.descriptor, follow_symlinks=False)
        except FileNotFoundError:
            return
        if found.st_uid not in {0, os.geteuid(), opened.status.st_uid, owner}:
            raise PublishError(
                f"{path} belongs to user {user_name(found.st_uid)}, and is below {opened.stranger}: bearerd "
                "does not change files of a third user there; remove it, or use another path"
            )

    def _write(self, parent: int, content: bytes, wanted: Attributes) -> tuple[str, os.stat_result]:
        """Write a temporary file; returns its name and its status."""
        temporary = f".bearerd-{self._mark}-{secrets.token_hex(8)}.tmp"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(temporary, flags, 0o600, dir_fd=parent)  # 1
        try:
            try:
                if (wanted.uid, wanted.gid) != (-1, -1):
                    with setting(wanted.uid, wanted.gid):
                        os.fchown(descriptor, wanted.uid, wanted.gid)  # 2
                os.fchmod(descriptor, wanted.mode)
                rest = memoryview(content)
                while rest:
                    rest = rest[os.write(descriptor, rest) :]  # 3
                self._sync(descriptor)  # 4
                status = os.fstat(descriptor)
            finally:
                os.close(descriptor)
        except BaseException:
            _unlink(parent, temporary)
            raise
        return temporary, status

    def _sync(self, descriptor: int) -> None:
        """Sync a file or directory. Where that is slow (a disk, not a tmpfs) another turn computes meanwhile."""
        began = time.monotonic()
        if self._slow:
            with waiting():
                os.fsync(descriptor)
                took = time.monotonic() - began
        else:
            os.fsync(descriptor)
            took = time.monotonic() - began
        self._slow = took > _SLOW_SYNC

    @contextmanager
    def _errors(self, path: str) -> Iterator[None]:
        if self._given_up:
            raise PublishError(f"{path} was not changed: another bearerd uses {self.root} now")
        try:
            yield
        except OSError as error:
            kind = NotPermitted if error.errno == errno.EACCES else PublishError
            raise kind(at(path, error)) from None

    @contextmanager
    def _parent(self, path: str, *, make: bool = False) -> Iterator[tuple[OpenDirectory, str]]:
        directory, name = posixpath.split(path)
        with self.directory(directory, make=make) as opened:
            yield opened, name


def _names(path: str) -> list[str]:
    return [name for name in path.split("/") if name]


def _is_own(opened: OpenDirectory, path: str) -> bool:
    """Whether a file is a regular one that only the daemon's user can write; any other is moved aside.

    A hard link to another file is, too: the lock is written in place.
    """
    found = os.stat(posixpath.basename(path), dir_fd=opened.descriptor, follow_symlinks=False)
    reason = distrust(found, os.geteuid()) if stat.S_ISREG(found.st_mode) else "it is not a regular file"
    if not reason and found.st_nlink > 1:
        reason = "it has another name (a hard link)"
    if reason:
        move_aside(opened.descriptor, path, found, reason)
    return not reason


def _read(parent: int, name: str, most: int) -> bytes:
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=parent)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise FileNotFoundError
        return read_up_to(descriptor, most)
    finally:
        release(descriptor)


def _unlink(parent: int, name: str) -> None:
    with suppress(OSError):
        os.unlink(name, dir_fd=parent)
