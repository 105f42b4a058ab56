"""The names that decide which file a path leads to: each symlink on it, and the file at its end. Pure.

A secret at /etc/bearerd/secret may be a symlink to `..data/secret`, and `..data` a symlink to a directory (Kubernetes),
or /etc/bearerd may itself be a symlink (NixOS, stow, alternatives). A change of any of them changes the file.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable

from bearerd.publish.access import MOST_LINKS


def deciding(path: str, target: Callable[[str], str | None]) -> list[str]:
    """The symlinks on an absolute path, then the path of its end; the directories in these paths are no symlinks.

    `target` returns where a symlink points to, and None for anything else. It raises OSError for a name that is missing
    or cannot be read; the path ends there, and also at the 41st symlink. A path that ends in `/.` means everything in
    that directory, and so does the last path then.
    """
    found: list[str] = []
    here = "/"
    left = path.split("/")[::-1]
    while left:
        name = left.pop()
        if name == "..":
            here = posixpath.dirname(here)
            continue
        if name in {"", "."}:
            continue
        path_here = posixpath.join(here, name)
        try:
            points_to = target(path_here)
        except OSError:
            return [*found, path_here]
        if points_to is None:
            here = path_here
            continue
        found.append(path_here)
        if len(found) > MOST_LINKS:
            return found
        if points_to.startswith("/"):
            here = "/"
        left += points_to.split("/")[::-1]
    return [*found, posixpath.join(here, ".") if path.endswith("/.") else here]
