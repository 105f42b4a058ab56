"""The directories that files go to: which other users can write there, and which files are mount points."""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Collection, Iterator

from bearerd.model import Config
from bearerd.mounts import Mounts, mounts
from bearerd.publish.access import STICKY, WRITE_BY_OTHERS


def is_below(path: str, directory: str) -> bool:
    """Whether a path is the directory, or below it, by its text."""
    return f"{path}/".startswith(f"{directory.rstrip('/')}/")


# -- mount points -------------------------------------------------------------------------


def mounted(paths: Collection[str]) -> dict[str, str]:
    """The files that are mount points, each with what to do: no rename can replace a mount point.

    Without /proc none are found.
    """
    current = mounts()
    # Most files have a name that no mount point has: these need no system call.
    names = {posixpath.basename(point) for point in current.points}
    return {
        path: f"{path} is a mount point, which cannot be replaced; mount its directory instead (in Docker "
        "-v DIRECTORY:DIRECTORY, in Kubernetes a volume without subPath)"
        for path in paths
        if posixpath.basename(path) in names and _is_mount_point(path, current) and not os.path.isdir(path)
    }


def _is_mount_point(path: str, current: Mounts) -> bool:
    directory, name = posixpath.split(path)
    real = posixpath.join(resolved(directory), name)
    mount = current.of(real)
    return mount is not None and mount.point == real


def resolved(path: str) -> str:
    """The path without symlinks, or as it is if that cannot be found out.

    Python's realpath raises OSError if a symlink turns into a directory while it looks, as another user can arrange.
    """
    try:
        return os.path.realpath(path)
    except OSError:
        return path


# -- other users ----------------------------------------------------------------------


def exposed(config: Config) -> dict[str, str]:
    """The directories on the paths to the files that other users can write, each with the consequence."""
    found: dict[str, str] = {}
    own = _own_directories(config)
    for path in sorted(own):
        mode = _mode(path)
        there = mode is not None
        mode = config.directory_mode if mode is None else mode
        if mode & WRITE_BY_OTHERS:
            found[path] = _sticky(mode) if mode & STICKY else _open(path, mode, there=there)
    # No symlink is followed below the output directory.
    tops = {path for path in own if not path.startswith(f"{config.directory}/")}
    above = {parent for path in tops for parent in _parents(resolved(path))} - own
    for path in sorted(above):
        mode = _mode(path) or 0
        # In a sticky directory such as /tmp, users can move only their own files.
        if mode & WRITE_BY_OTHERS and not mode & STICKY:
            found[path] = _open(path, mode, there=True)
    return found


def _open(path: str, mode: int, *, there: bool) -> str:
    what = f"others can write there (mode {mode:04o}): any user can remove or replace the token files"
    if not there:
        return f"as bearerd creates it, {what}; remove that permission from output.directory_mode"
    return (
        f"{what}; chmod o-w {path}. A Kubernetes emptyDir is always 0777, which is fine if only the containers of "
        "this pod use it"
    )


def _sticky(mode: int) -> str:
    return (
        f"any user can create files there (mode {mode:04o}). bearerd's own files are safe, but before the first token "
        "another user could create one of the same name: readers would take it for the token, and only root could "
        "replace it. Use a directory that only bearerd can write"
    )


def _own_directories(config: Config) -> set[str]:
    """The output directory, the directories below it that hold files, and those elsewhere."""
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
    """The mode of a directory; None if there is none."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return None
    return stat.S_IMODE(mode) if stat.S_ISDIR(mode) else None
