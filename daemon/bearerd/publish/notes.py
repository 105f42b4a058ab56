"""Notes on disk: for which tokens hooks are owed."""

from __future__ import annotations

import logging
import posixpath
from collections.abc import Iterable
from typing import Final

from bearerd.errors import PublishError
from bearerd.log import say
from bearerd.model import Target
from bearerd.publish.atomic import Files
from bearerd.publish.owners import PRIVATE

# Only the name of a note counts.
_CONTENT: Final = b"hooks\n"


class Notes:
    """One file for each token, below a directory of bearerd's own."""

    def __init__(self, files: Files, directory: str) -> None:
        self._files = files
        self._directory = directory

    def note(self, target: Target) -> None:
        """Note that hooks are owed for a target; raises PublishError."""
        self._files.replace(self._path(target), _CONTENT, PRIVATE)

    def noted(self, target: Target) -> bool:
        """Whether hooks are owed for a target. If that cannot be read, they are: twice is better than never."""
        try:
            return self._files.read(self._path(target), 1) is not None
        except PublishError:
            return True

    def unnote(self, target: Target) -> None:
        """Remove a target's note. If that fails, the hooks run once more at the next start."""
        try:
            self.remove(target)
        except PublishError as error:
            say(logging.WARNING, f"hooks: {error}; they will run again at the next start", name=target.full_name)

    def remove(self, target: Target) -> None:
        """Remove the note of a target that is no longer wanted; raises PublishError."""
        self._files.remove(self._path(target))

    def directories(self, targets: Iterable[Target]) -> set[str]:
        """The directories that hold these targets' notes."""
        return {posixpath.dirname(self._path(target)) for target in targets}

    def _path(self, target: Target) -> str:
        return posixpath.join(self._directory, target.client.name, target.name)
