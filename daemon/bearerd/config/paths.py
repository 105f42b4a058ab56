"""Where the files of a config go: its directories, the socket, and one path for each output. Pure."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Mapping
from typing import Final

from bearerd.config import models
from bearerd.config.defaults import Defaults
from bearerd.config.document import Document, Node
from bearerd.config.redaction import Path
from bearerd.model import Control
from bearerd.terms import OWN_DIRECTORY

_LONGEST_SOCKET: Final = 107  # bytes: sun_path of unix(7) without its NUL
_LONGEST_NAME: Final = 255  # bytes: NAME_MAX of every file system that tokens are written to
_FILES_IN_DEV: Final = "/dev/shm/"  # noqa: S108 - the one directory in /dev that is for files

_SUFFIX: Final[Mapping[str, str]] = {"raw": "", "json": ".json", "header": ".header", "env": ".env"}


class Paths:
    """The paths that a config uses. No two outputs have one path, and none is the directory of another."""

    def __init__(self, settings: models.ConfigFile, defaults: Defaults) -> None:
        self._settings = settings
        self._outputs: dict[str, tuple[Document, Path, str]] = {}
        self._directories: dict[str, str] = {}
        directory = settings.output.directory or defaults.directory
        self.directory = _normal(directory)
        own = posixpath.join(self.directory, OWN_DIRECTORY)
        self._state = _normal(settings.state_directory or defaults.state_directory(directory) or own)

    def output(self, node: Node, client: str, token: str, file: models.FileModel) -> str:
        """The path of an output, in full; faults are reported at the node."""
        relative = file.path if file.path is not None else f"{client}/{token}{_SUFFIX[file.format]}"
        at: Path = ("path",) if file.path is not None else ()
        path = _normal(posixpath.join(self.directory, relative))
        # A default path consists of names, which were checked as names.
        fault = self._fault(relative, path) if file.path is not None else None
        if fault is not None:
            node.add(at, fault, "conflicting paths")
        else:
            self._claim(node, at, path, f"{client}/{token}")
        return path

    def keep(self, files: Iterable[str]) -> None:
        """Report each output that would be written over one of these files, which the config needs."""
        for path in {_normal(file) for file in files} & self._outputs.keys():
            document, at, token = self._outputs[path]
            document.add(at, f"'{token}' would be written over {path}, which bearerd reads", "conflicting paths")

    def state_directory(self, main: Document) -> str:
        """The state directory. Outputs may be below it."""
        clash = self._at_or_above(self._state)
        if clash is not None:
            document, at, token = self._outputs[clash]
            if self._settings.state_directory:
                document, at = main, ("state_directory",)
            document.add(at, _both(token, clash, "the state", self._state), "conflicting paths")
        return self._state

    def control(self, main: Document) -> Control:
        """The control socket."""
        given = self._settings.control.socket
        socket = _normal(given or posixpath.join(self.directory, OWN_DIRECTORY, "control.sock"))
        if _bytes(socket) > _LONGEST_SOCKET:
            configured = ("output", "directory") if self._settings.output.directory else ()
            message = (
                f"the path of the control socket is longer than {_LONGEST_SOCKET} bytes, the limit of Linux: {socket}"
            )
            main.add(("control", "socket") if given else configured, message, "conflicting paths")
        elif given and (clash := self._at_or_above(socket) or self._directories.get(socket)) is not None:
            message = _both(self._outputs[clash][2], clash, "the control socket", socket)
            main.add(("control", "socket"), message, "conflicting paths")
        return Control(socket, self._settings.control.mode)

    def _claim(self, node: Node, at: Path, path: str, token: str) -> None:
        if path in self._outputs:
            document, at_other, other = self._outputs[path]
            first = document.position(at_other)
            message = f"'{token}' and '{other}' ({first}) would be written to the same file, {path}"
            node.add(at, message, "conflicting paths")
            return
        clash = self._at_or_above(path) or self._directories.get(path)
        if clash is not None:
            other = self._outputs[clash][2]
            message = f"'{token}' would be written to {path} and '{other}' to {clash}: one is a directory of the other"
            node.add(at, message, "conflicting paths")
        self._outputs[path] = node.document, (*node.path, *at), token
        for parent in _parents(path):
            self._directories.setdefault(parent, path)

    def _at_or_above(self, path: str) -> str | None:
        """The output with this path, or with that of a directory on the way to it."""
        return next((one for one in (path, *_parents(path)) if one in self._outputs), None)

    def _fault(self, given: str, path: str) -> str | None:
        """The error of an output's path, which is given as configured and in full."""
        parts = given.split("/")
        if ".." in parts:
            return "expected a path without .."
        if parts[-1] in {"", "."} or f"{self.directory}/".startswith(f"{path}/"):
            return "expected the path of a file, found a directory"
        if OWN_DIRECTORY in path.split("/"):
            return f"expected a path outside {OWN_DIRECTORY}, which bearerd keeps for itself"
        if path.startswith("/dev/") and not path.startswith(_FILES_IN_DEV):
            return "expected a path outside /dev, where a file would replace a device, for every program"
        if any(_bytes(part) > _LONGEST_NAME for part in parts):
            return f"a name in this path is longer than {_LONGEST_NAME} bytes"
        return None


def _both(token: str, output: str, what: str, path: str) -> str:
    """The error of an output and something else that cannot both exist."""
    if output == path:
        return f"'{token}' would be written to {path} too"
    return f"'{token}' would be written to {output} and {what} to {path}: one is a directory of the other"


def _parents(path: str) -> list[str]:
    return [path[:index] for index, char in enumerate(path) if char == "/" and index]


def _bytes(path: str) -> int:
    """The length of a path in bytes."""
    return len(path.encode("utf-8", "surrogatepass"))


def _normal(path: str) -> str:
    """One spelling for one path; POSIX lets normpath keep two slashes at the start."""
    return re.sub("^//", "/", posixpath.normpath(path))
