"""Which output may change which file, with symlinks resolved. config/paths compared the paths as they are written."""

from __future__ import annotations

import os
import posixpath

from bearerd.errors import PublishError
from bearerd.inputs import inputs
from bearerd.model import Config
from bearerd.publish.atomic import Files
from bearerd.publish.directories import is_below, resolved


class Claims:
    """Each file has one owner: bearerd's configuration and its secrets come first, then the outputs in their order.

    `before` are the claims of the previous config of this process.
    """

    def __init__(self, config: Config, files: Files, before: Claims | None = None) -> None:
        self._root, self._files = config.directory, files
        self._owners: dict[str, str] = {}
        """By file: the path in the config that it belongs to."""
        self.refused: dict[str, str] = {}
        """By path: why the output is not written."""
        known: dict[str, str] = {}
        read: dict[str, str] = {}
        whose: dict[str, str] = {}
        for path in (*config.sources, *inputs(config.targets)):
            directory, name = posixpath.split(path)
            if directory not in read:
                read[directory] = resolved(directory)
            file = path if read[directory] == directory else posixpath.join(read[directory], name)
            self._owners[file] = path
            if os.path.islink(file):
                self._owners[resolved(file)] = path
        for target in config.targets:
            for output in target.outputs:
                owner = self._owners.setdefault(self._file(output.path, known), output.path)
                whose[output.path] = target.full_name
                if owner != output.path:
                    use = f"the file of '{whose[owner]}'" if owner in whose else "which bearerd reads"
                    self.refused[output.path] = (
                        f"{output.path} leads to {owner}, {use}: it is not written; use another path"
                    )
        known_alien = (*before.refused, *before.alien) if before else ()
        self.alien: set[str] = {path for path in known_alien if path not in whose}
        """Paths that were refused until the config no longer named them, and perhaps not their owners either."""

    def may_remove(self, path: str) -> bool:
        """Whether the file at this path is that output's own, as far as this config and earlier ones tell."""
        return path not in self.alien and self._owners.get(self._file(path, {}), path) == path

    def _file(self, path: str, known: dict[str, str]) -> str:
        """An output's path with its directory resolved, once. No symlink is followed below the root."""
        directory, name = posixpath.split(path)
        top = self._root if is_below(directory, self._root) else directory
        if top not in known:
            known[top] = self._followed(top)
        if known[top] == top:
            return path
        return posixpath.join(known[top] + directory[len(top) :], name)

    def _followed(self, directory: str) -> str:
        """Where a write to a directory leads. It claims nothing through symlinks of others, which are not followed."""
        if resolved(directory) == directory:
            return directory
        try:
            with self._files.look(directory) as opened:
                return posixpath.join(opened.path, *opened.missing)
        except (OSError, PublishError):
            return directory  # a write fails, and says why
