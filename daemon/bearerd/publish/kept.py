"""Keeps recently used directories open, so that the next use costs one stat instead of a walk from `/`.

A kept directory is used only while its path still leads to it, and its owner, group and mode are those that the walk
found. So even if the path was changed meanwhile, a file is written to the directory that the walk approved.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from bearerd.descriptors import release
from bearerd.publish.walk import OpenDirectory

# Descriptors. A burst writes the tokens of one client after another, into two directories each.
_MOST: Final = 32


class _Kept:
    __slots__ = ("place", "users")

    def __init__(self, place: OpenDirectory) -> None:
        self.place = place
        self.users = 2  # the collection, and the caller


class KeptDirectories:
    """Open directories by path. Safe for threads; each is closed by its last user."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[str, _Kept] = {}

    @contextmanager
    def use(self, path: str) -> Iterator[OpenDirectory | None]:
        """Yield the directory, which stays open during the block; None if it is not kept or has changed."""
        with self._lock:
            kept = self._kept.get(path)
            if kept is not None:
                kept.users += 1
        if kept is None:
            yield None
            return
        try:
            same = _is_same(path, kept.place.status)
            if not same:
                self._drop(path, kept)
            yield kept.place if same else None
        finally:
            self._release(kept)

    @contextmanager
    def keep(self, path: str, place: OpenDirectory) -> Iterator[None]:
        """Keep a directory to which the caller walked. It stays open during the block at least."""
        kept = _Kept(place)
        with self._lock:
            dropped = self._kept.pop(path, None)
            self._kept[path] = kept
            if len(self._kept) > _MOST:
                dropped = self._kept.pop(next(iter(self._kept)))
        if dropped is not None:
            self._release(dropped)
        try:
            yield
        finally:
            self._release(kept)

    def drop_all(self) -> None:
        """Close all, because an open directory keeps its file system from being unmounted."""
        with self._lock:
            dropped, self._kept = list(self._kept.values()), {}
        for kept in dropped:
            self._release(kept)

    def __del__(self) -> None:
        """Close the directories that are still open."""
        self.drop_all()

    def _drop(self, path: str, kept: _Kept) -> None:
        with self._lock:
            if self._kept.get(path) is not kept:
                return  # another thread dropped it
            del self._kept[path]
        self._release(kept)

    def _release(self, kept: _Kept) -> None:
        with self._lock:
            kept.users -= 1
            last = not kept.users
        if last:
            release(kept.place.descriptor)


def _is_same(path: str, before: os.stat_result) -> bool:
    with suppress(OSError):
        now = os.stat(path)
        return (now.st_ino, now.st_dev, now.st_mode, now.st_uid, now.st_gid) == (
            before.st_ino, before.st_dev, before.st_mode, before.st_uid, before.st_gid,
        )  # fmt: skip
    return False
