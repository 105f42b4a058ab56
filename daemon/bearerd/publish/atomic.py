"""Replaces one file so that a reader sees the old bytes or the new, whole, whatever is killed or full.

How a file is replaced (`replace`):

    1  A temporary file with a dot-name in the same directory, by O_EXCL and O_NOFOLLOW: a name that
       somebody planted is never written to.
    2  Owner and group, on the descriptor; then the mode, since a change of owner may clear bits of it.
       After the rename would be a race: readers shut out, or strangers let in, for an instant.
    3  Every byte: a write may be short.
    4  fsync. If it fails this file is given up: a second fsync of it could succeed without the bytes.
    5  rename over the name. A symlink there is replaced, not followed.
    6  fsync of the directory. If that fails the file is published all the same; only whether it
       survives a power cut is unknown.

Before 5 any failure leaves the old file as it was, and takes the temporary one away.

Directories are walked by descriptor without following symlinks below the output directory.
"""

from __future__ import annotations

import errno
import grp
import os
import posixpath
import pwd
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from bearerd.errors import PublishError

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC

_WHY: Final = {
    errno.ENOSPC: "no space is left; free some, or enlarge the file system",
    errno.EDQUOT: "the quota is used up",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "the daemon's user may not write there",
    errno.EPERM: "the daemon's user may not do that (an owner or group it does not have, a setgid bit that systemd's "
    "RestrictSUIDSGID= forbids, or an immutable file)",
    errno.EBUSY: "the file is a mount point: mount the directory in its place",
    errno.EISDIR: "a directory has this name",
    errno.ELOOP: "a symlink stands in the path, which is not followed",
    errno.ENOTDIR: "a part of the path is no directory, or is a symlink, which is not followed",
    errno.EMFILE: "too many files are open; raise LimitNOFILE",
    errno.ENOENT: "the directory is not there",
}


@dataclass(frozen=True, slots=True)
class Attributes:
    """A file's mode, and its owner and group where they are configured (-1 where not)."""

    mode: int
    uid: int = -1
    gid: int = -1


# What is written to see whether anything can be.
_PROOF: Final = Attributes(0o600)


def attributes(mode: int, owner: str | None, group: str | None) -> Attributes:
    """Attributes from names or ids; raises PublishError for a name that this machine does not know."""
    return Attributes(mode, uid_of(owner), gid_of(group))


def uid_of(owner: str | None) -> int:
    """A user's id by name or number, -1 for none; raises PublishError for an unknown one."""
    if owner is None:
        return -1
    if owner.isdecimal():
        return int(owner)
    try:
        return pwd.getpwnam(owner).pw_uid
    except KeyError:
        raise PublishError(f"there is no user '{owner}' on this machine") from None


def gid_of(group: str | None) -> int:
    """A group's id by name or number, -1 for none; raises PublishError for an unknown one."""
    if group is None:
        return -1
    if group.isdecimal():
        return int(group)
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise PublishError(f"there is no group '{group}' on this machine") from None


def why(error: OSError) -> str:
    """An OSError in the words of what to do."""
    return _WHY.get(error.errno or 0, (error.strerror or "failed").lower())


class Files:
    """The files below one output directory (and, by absolute paths, elsewhere)."""

    def __init__(self, root: str, directory_mode: int, group: str | None = None) -> None:
        self.root = root
        self._directory_mode = directory_mode
        self._group = group
        # Two daemons with different directories may write into a third: each sweeps its own only.
        self._mark = sha256(os.fsencode(root)).hexdigest()[:8]

    def adopt(self, directory_mode: int, group: str | None) -> None:
        """Make directories so from now on."""
        self._directory_mode, self._group = directory_mode, group

    def replace(self, path: str, content: bytes, wanted: Attributes, directory_mode: int | None = None) -> str | None:
        """Replace one file; returns a warning where it is published but perhaps not durable.

        Raises PublishError; then what stood there before still stands.
        """
        with self._errors(path), self._parent(path, make=True, mode=directory_mode) as (parent, name):
            temporary = self._write(parent, content, wanted)
            try:
                os.rename(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)  # 5
            except BaseException:
                _unlink(parent, temporary)
                raise
            try:
                os.fsync(parent)  # 6
            except OSError as error:
                return f"{path} is published, but its directory could not be synced: {why(error)}"
        return None

    def matches(self, path: str, content: bytes, wanted: Attributes) -> bool:
        """Whether a file is, to the last bit of its mode, what `replace` would make it; raises PublishError."""
        with self._errors(path):
            try:
                with self._parent(path, make=False) as (parent, name):
                    status = os.stat(name, dir_fd=parent, follow_symlinks=False)
                    if not stat.S_ISREG(status.st_mode) or stat.S_IMODE(status.st_mode) != wanted.mode:
                        return False
                    if wanted.uid not in (-1, status.st_uid) or wanted.gid not in (-1, status.st_gid):
                        return False
                    return status.st_size == len(content) and _read(parent, name, len(content) + 1) == content
            except (FileNotFoundError, PermissionError):
                return False

    def read(self, path: str, most: int) -> bytes | None:
        """A file's bytes, up to `most`; None where there is none or it cannot be read."""
        try:
            with self._parent(path, make=False) as (parent, name):
                return _read(parent, name, most)
        except OSError:
            return None

    def list(self, directory: str) -> list[str]:
        """The names in a directory; none where it is not there or cannot be read."""
        try:
            with self._directory(directory, make=False) as descriptor:
                return os.listdir(descriptor)
        except OSError:
            return []

    def remove(self, path: str) -> bool:
        """Remove a file, if it is there; raises PublishError."""
        with self._errors(path):
            try:
                with self._parent(path, make=False) as (parent, name):
                    os.unlink(name, dir_fd=parent)
            except FileNotFoundError:
                return False
            return True

    def sweep(self, directories: set[str]) -> int:
        """Take away what a killed process of this root left behind. Only under the lock."""
        swept = 0
        ours = re.compile(rf"\.bearerd-{self._mark}-[0-9a-f]{{16}}\.tmp")
        for directory in directories:
            with suppress(OSError), self._directory(directory, make=False) as descriptor:
                for name in os.listdir(descriptor):
                    if ours.fullmatch(name):
                        _unlink(descriptor, name)
                        swept += 1
        return swept

    def prove_writable(self, directory: str, *, make: bool, mode: int | None = None) -> None:
        """Write and remove a file in a directory; raises PublishError where that cannot be done."""
        with self._errors(directory), self._directory(directory, make=make, mode=mode) as descriptor:
            _unlink(descriptor, self._write(descriptor, b"x", _PROOF))

    def prove_usable(self, directory: str, wanted: Attributes = _PROOF) -> None:
        """A directory that is there takes such a file, or one that is not can be made; raises PublishError."""
        if os.path.lexists(directory):
            with self._errors(directory), self._directory(directory, make=False) as descriptor:
                _unlink(descriptor, self._write(descriptor, b"x", wanted))
        elif not self._makeable(directory):
            raise PublishError(f"{directory} is not there, and cannot be made by this user")

    def _makeable(self, directory: str) -> bool:
        """Whether this user may make it in the last of the directories above it that is there."""
        above = posixpath.dirname(directory)
        while not os.path.lexists(above):
            above = posixpath.dirname(above)
        if f"{above}/".startswith(self.root.rstrip("/") + "/"):
            # Opened as it will be: a symlink on the way is refused.
            with self._errors(above), self._directory(above, make=False):
                pass
        return os.access(above, os.W_OK | os.X_OK, effective_ids=True)

    # -- steps ---------------------------------------------------------------------------------

    def _write(self, parent: int, content: bytes, wanted: Attributes) -> str:
        temporary = f".bearerd-{self._mark}-{secrets.token_hex(8)}.tmp"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(temporary, flags, 0o600, dir_fd=parent)  # 1
        try:
            try:
                if (wanted.uid, wanted.gid) != (-1, -1):
                    os.fchown(descriptor, wanted.uid, wanted.gid)  # 2
                os.fchmod(descriptor, wanted.mode)
                rest = memoryview(content)
                while rest:
                    rest = rest[os.write(descriptor, rest) :]  # 3
                os.fsync(descriptor)  # 4
            finally:
                os.close(descriptor)
        except BaseException:
            _unlink(parent, temporary)
            raise
        return temporary

    @contextmanager
    def _errors(self, path: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise PublishError(f"{path}: {why(error)}") from None

    @contextmanager
    def _parent(self, path: str, *, make: bool, mode: int | None = None) -> Iterator[tuple[int, str]]:
        directory, name = posixpath.split(path)
        with self._directory(directory, make=make, mode=mode) as descriptor:
            yield descriptor, name

    @contextmanager
    def _directory(self, directory: str, *, make: bool, mode: int | None = None) -> Iterator[int]:
        descriptor = self._open(directory, make=make, mode=mode if mode is not None else self._directory_mode)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _open(self, directory: str, *, make: bool, mode: int) -> int:
        """Below the root no part may be a symlink; elsewhere the last may not (/var/run is one)."""
        below = directory.removeprefix(self.root.rstrip("/") + "/")
        if below == directory:
            return self._anchor(directory, make=make, mode=mode)
        descriptor = self._anchor(self.root, make=make, mode=self._directory_mode)
        words = below.split("/")
        for left, word in enumerate(words, start=1 - len(words)):
            try:
                deeper = self._step(descriptor, word, make=make, mode=self._directory_mode if left else mode)
            finally:
                os.close(descriptor)
            descriptor = deeper
        return descriptor

    def _anchor(self, directory: str, *, make: bool, mode: int) -> int:
        """A directory by its whole path, made with those above it if need be."""
        try:
            return os.open(directory, _DIRECTORY | os.O_NOFOLLOW)
        except FileNotFoundError:
            if not make:
                raise
        parent, name = posixpath.split(directory)
        if not os.path.isdir(parent):
            os.close(self._anchor(parent, make=True, mode=self._directory_mode))
        descriptor = os.open(parent, _DIRECTORY)
        try:
            return self._step(descriptor, name, make=True, mode=mode)
        finally:
            os.close(descriptor)

    def _step(self, descriptor: int, word: str, *, make: bool, mode: int) -> int:
        try:
            return os.open(word, _DIRECTORY | os.O_NOFOLLOW, dir_fd=descriptor)
        except FileNotFoundError:
            if not make:
                raise
        try:
            os.mkdir(word, mode & 0o777, dir_fd=descriptor)
        except FileExistsError:  # somebody else's turn made it
            return os.open(word, _DIRECTORY | os.O_NOFOLLOW, dir_fd=descriptor)
        below = os.open(word, _DIRECTORY | os.O_NOFOLLOW, dir_fd=descriptor)
        try:
            if (gid := gid_of(self._group)) != -1:
                os.fchown(below, -1, gid)
            # The daemon's umask is 0, so the mode is right from the first instant and its setgid bit, where it
            # came from the directory above, stays: under RestrictSUIDSGID nobody may set that. mkdir never does.
            made = stat.S_IMODE(os.fstat(below).st_mode)
            if made != (whole := mode | made & stat.S_ISGID):
                os.fchmod(below, whole)
        except BaseException:
            os.close(below)
            with suppress(OSError):  # half made it would be taken for somebody's own
                os.rmdir(word, dir_fd=descriptor)
            raise
        return below


def _read(parent: int, name: str, most: int) -> bytes:
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=parent)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise FileNotFoundError
        with open(descriptor, "rb", buffering=0, closefd=False) as file:
            return file.read(most) or b""
    finally:
        os.close(descriptor)  # ours also where it is a directory's, which cannot be opened as a file


def _unlink(parent: int, name: str) -> None:
    with suppress(OSError):
        os.unlink(name, dir_fd=parent)
