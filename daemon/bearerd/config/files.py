"""Reads the config file and the files that it includes: regular files only, without blocking, within bounds."""

from __future__ import annotations

import codecs
import errno
import fnmatch
import glob
import os
from dataclasses import dataclass
from typing import Final

from bearerd.errors import ConfigUnavailable
from bearerd.reason import reason_of
from bearerd.regular import NotRegularError, read_regular

# Of all files together. A config of 10,000 clients has 2 MB, one of 50,000 has 10 MB.
MOST_BYTES: Final = 16 * 2**20
# Ten thousand clients in a file each. A directory with more files is hardly a conf.d.
MOST_FILES: Final = 10_000
# The next attempt may succeed: a network file system was interrupted, or descriptors and memory ran out.
_PASSING: Final = frozenset(
    {errno.EAGAIN, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ESTALE, errno.ETIMEDOUT}
)


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Why a file was not read, and the line (from 1) of the error; 0 if it could not be read at all."""

    line: int
    why: str


class Budget:
    """Reads files, up to MOST_BYTES for all of them."""

    def __init__(self) -> None:
        self.left = MOST_BYTES

    def read(self, path: str) -> str | Unreadable:
        """The text of a file. Raises ConfigUnavailable if the machine fails, and not the config."""
        try:
            content = read_regular(path, self.left + 1)
        except NotRegularError as error:
            return Unreadable(0, f"cannot be read: {error}")
        except OSError as error:
            if error.errno in _PASSING:
                raise ConfigUnavailable(f"{path} cannot be read: {reason_of(error)}") from None
            return Unreadable(0, f"cannot be read: {reason_of(error)}")
        if len(content) > self.left:
            self.left = 0
            return Unreadable(1, f"with this file the config is larger than {MOST_BYTES // 2**20} MiB")
        self.left -= len(content)
        try:
            return content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            if content[:2] in {codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE}:
                return Unreadable(1, "not UTF-8 text but UTF-16: save the file as UTF-8")
            line = content.count(b"\n", 0, error.start) + 1
            return Unreadable(line, "not UTF-8 text: save the file as UTF-8")


def matches(main: str, pattern: str) -> list[str]:
    """The existing files that an entry of `include` matches, sorted; as `glob`, but it reports what it cannot read.

    To `glob`, a directory that cannot be read is empty. bearerd would then remove the tokens of all clients in it.
    Raises OSError with the directory's name, or ConfigUnavailable if the machine fails, and not the config.
    """
    paths = [""]
    for part in absolute(main, pattern).split("/")[1:]:
        if glob.has_magic(part):
            paths = [f"{path}/{name}" for path in paths for name in _names(path or "/", part)]
        else:
            paths = [f"{path}/{part}" for path in paths]
    return sorted(filter(_may_exist, paths))


def _names(directory: str, pattern: str) -> list[str]:
    """The names in a directory that match; none if it does not exist, which is no error."""
    try:
        found = fnmatch.filter(os.listdir(directory), pattern)
    except NotADirectoryError:
        return []
    except FileNotFoundError:
        if not os.path.islink(directory):
            return []
        raise
    except OSError as error:
        if error.errno in _PASSING:
            raise ConfigUnavailable(f"{directory} cannot be read: {reason_of(error)}") from None
        raise
    return found if pattern.startswith(".") else [name for name in found if not name.startswith(".")]


def _may_exist(path: str) -> bool:
    """Whether a file exists; also if that cannot be told, because reading it then says why."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        return error.errno != errno.ENAMETOOLONG
    return True


def absolute(main: str, pattern: str) -> str:
    """An entry of `include` as an absolute path; relative ones are relative to the main file's directory.

    After a symlink `..` stays: the kernel goes up from where the link leads to.
    """
    base = os.path.dirname(main)
    path = ""
    for part in os.path.join(base if os.path.isabs(base) else os.path.join(os.getcwd(), base), pattern).split("/"):
        if part == ".." and not (path.endswith("/..") or os.path.islink(path)):
            path = os.path.dirname(path).rstrip("/")
        elif part not in {"", "."}:
            path += f"/{part}"
    return path or "/"


def is_pattern(entry: str) -> bool:
    """Whether an entry of `include` has wildcards, and may match nothing."""
    return glob.has_magic(entry)


def directories(main: str, patterns: list[str]) -> tuple[str, ...]:
    """The directories in which matching files may appear, except those with a wildcard in their own path."""
    found = {os.path.dirname(absolute(main, pattern)) for pattern in patterns}
    return tuple(sorted(directory for directory in found if not glob.has_magic(directory)))
