"""The two kinds of listening sockets: opens them, and checks that clients still find them."""

from __future__ import annotations

import logging
import os
import socket
import stat
from abc import ABC, abstractmethod
from contextlib import suppress
from typing import Final

from bearerd.accounts import user_name
from bearerd.descriptors import release
from bearerd.errors import PublishError
from bearerd.log import say
from bearerd.model import Listen
from bearerd.publish.owners import gid_of
from bearerd.publish.ownership import setting
from bearerd.publish.walk import OpenDirectory, Step, distrust, walk

# Clients that wait in the kernel for accept. The kernel limits it to net.core.somaxconn (4096 by default). A full queue
# costs a TCP client a second. Emptying 1024 entries takes about 50 ms, or 0.1 s if each connection is silent.
_BACKLOG: Final = 1024
_EXCHANGED: Final = "another process replaced the socket just now"


class Endpoint(ABC):
    """An address to listen at."""

    name: str
    """The address for messages."""

    @abstractmethod
    def open(self) -> socket.socket:
        """Create the listening socket. Raises OSError or PublishError."""

    @abstractmethod
    def intact(self) -> bool:
        """Whether clients still find the socket."""

    @abstractmethod
    def remove(self) -> None:
        """Remove the file that `open` created, if any, unless another process replaced it."""


class UnixEndpoint(Endpoint):
    """The control socket: a file with this mode and group."""

    def __init__(self, path: str, mode: int, group: str | None) -> None:
        self.name = path
        self._mode = mode
        self.group = group
        """If it changes, the socket is no longer intact, and has to be opened again."""
        self._made: object = None
        self._made_with: str | None = None

    def open(self) -> socket.socket:
        """Create the file. Raises PublishError, also if another file is in its place.

        The directory is opened step by step as for a token file, so that no other user can redirect the socket.
        """
        group = self.group
        gid = gid_of(group)
        directory, name = os.path.split(self.name)
        place = walk([Step(word, 0, follow=True) for word in directory.split("/") if word], make=False)
        try:
            if place.missing:
                raise PublishError("the directory does not exist")
            self._clear(place, name)
            listening = self._bind(place.descriptor, name, gid)
        finally:
            release(place.descriptor)
        self._made_with = group
        return listening

    def _clear(self, place: OpenDirectory, name: str) -> None:
        """Remove the socket of a killed daemon. Raises PublishError for any other file."""
        try:
            found = os.stat(name, dir_fd=place.descriptor, follow_symlinks=False)
        except FileNotFoundError:
            return
        if not stat.S_ISSOCK(found.st_mode):
            raise PublishError("the path exists and is not a socket")
        if place.stranger is not None and found.st_uid != os.geteuid():
            raise PublishError(f"there is a socket of {user_name(found.st_uid)}, below {place.stranger}")
        if _answers(self.name):
            raise PublishError("another process listens there; give one of them another control.socket")
        os.unlink(name, dir_fd=place.descriptor)

    def _bind(self, directory: int, name: str, gid: int) -> socket.socket:
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            # bind creates the file with this mode, less the umask: nobody may connect at first, whatever the umask is.
            os.fchmod(listening.fileno(), 0)
            listening.bind(self.name)
            try:
                self._prove_place(directory, name)
                listening.listen(_BACKLOG)  # before access is given, so that no client is refused
                self._give_access(gid)
                self._made = _look(self.name)
            except BaseException:
                os.unlink(self.name)
                raise
        except BaseException:
            listening.close()
            raise
        return listening

    def _prove_place(self, directory: int, name: str) -> None:
        """Check that the file is in the opened directory. It was bound by its whole path, which `ss` shows."""
        if not os.path.samestat(os.stat(name, dir_fd=directory, follow_symlinks=False), os.lstat(self.name)):
            raise PublishError(_EXCHANGED)

    def _give_access(self, gid: int) -> None:
        """Set group, then mode, by descriptor: by name, both calls would follow a symlink that replaced the file."""
        descriptor = os.open(self.name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISSOCK(found.st_mode) or found.st_uid != os.geteuid():
                raise PublishError(_EXCHANGED)
            # fchmod and fchown do not work on an O_PATH descriptor. This name leads to the same file.
            file = f"/proc/self/fd/{descriptor}"
            if not os.path.exists(file):
                self._give_access_without_proc(gid, found)
                return
            if gid != -1:
                with setting(-1, gid):
                    os.chown(file, -1, gid)
            os.chmod(file, self._mode)
        finally:
            release(descriptor)

    def _give_access_without_proc(self, gid: int, found: os.stat_result) -> None:
        """The same by name, if no other user can replace files in the directory. Raises PublishError."""
        directory, name = os.path.split(self.name)
        descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if distrust(os.fstat(descriptor), os.geteuid()):
                raise PublishError(
                    f"/proc is not mounted, and {directory} is not bearerd's alone: mount /proc, or use the default "
                    "socket"
                )
            if not os.path.samestat(os.stat(name, dir_fd=descriptor, follow_symlinks=False), found):
                raise PublishError(_EXCHANGED)
            if gid != -1:
                with setting(-1, gid):
                    os.chown(name, -1, gid, dir_fd=descriptor, follow_symlinks=False)
            os.chmod(name, self._mode, dir_fd=descriptor)
        finally:
            release(descriptor)

    def intact(self) -> bool:
        """Whether the file is still ours, with the wanted mode and group."""
        return self._is_ours() and self.group == self._made_with

    def remove(self) -> None:
        """Remove the file if it is still ours."""
        if self._is_ours():
            with suppress(OSError):
                os.unlink(self.name)

    def _is_ours(self) -> bool:
        try:
            return _look(self.name) == self._made
        except OSError:
            return False


class TcpEndpoint(Endpoint):
    """The TCP address in `listen`."""

    def __init__(self, listen: Listen) -> None:
        self._listen = listen
        shown = f"[{listen.host}]" if ":" in listen.host else listen.host
        self.name = f"{shown}:{listen.port}"

    def open(self) -> socket.socket:
        """Bind the address. Raises OSError, PublishError."""
        family = socket.AF_INET6 if ":" in self._listen.host else socket.AF_INET
        try:
            listening = socket.create_server((self._listen.host, self._listen.port), family=family, backlog=_BACKLOG)
        except OSError as error:  # its text would name the address again
            if error.errno == socket.EAI_NONAME:  # the address was checked, but not its zone
                what = "its zone is not a network interface of this machine; correct listen.address"
                raise PublishError(what) from None
            raise OSError(error.errno, os.strerror(error.errno or 0)) from None
        if not self._listen.port:
            say(logging.INFO, f"listening on port {listening.getsockname()[1]}")
        return listening

    def intact(self) -> bool:
        """A bound port stays bound."""
        return True

    def remove(self) -> None:
        """A port leaves no file."""


def _look(path: str) -> object:
    """The identity, mode and owner of a file. Raises OSError."""
    found = os.lstat(path)
    return found.st_dev, found.st_ino, found.st_mode, found.st_uid, found.st_gid


def _answers(path: str) -> bool:
    """Whether a process listens on a socket's file."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
        other.setblocking(False)
        try:
            other.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except PermissionError:
            # Nobody can connect to a file of ours without permissions. A process killed before chmod leaves one.
            return os.lstat(path).st_uid != os.geteuid()
        except OSError:  # the queue is full, or the socket has another type
            return True
    return True
