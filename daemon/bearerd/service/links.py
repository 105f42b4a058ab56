"""The symlinks on the way of a path, and the file at its end. Pure.

A secret at /etc/bearerd/secret may be a link to `..data/secret`, and `..data` a link to a directory (Kubernetes).
/etc/bearerd may itself be a link (NixOS, stow, alternatives). Switching any of these links changes the file.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable

from bearerd.publish.access import MOST_LINKS


def deciding(path: str, target: Callable[[str], str | None]) -> list[str]:
    """The links on the way of an absolute path, then the path where the way ends. No directory in them is a link.

    `target` returns where a link points to, None for anything else, and raises OSError for a path that is missing or
    not accessible. The way ends there, and at the 41st link. A path that ends in `/.` means all files of a directory,
    and then the result ends in `/.`, too.
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
        place = posixpath.join(here, name)
        try:
            points_to = target(place)
        except OSError:
            return [*found, place]
        if points_to is None:
            here = place
            continue
        found.append(place)
        if len(found) > MOST_LINKS:
            return found
        if points_to.startswith("/"):
            here = "/"
        left += points_to.split("/")[::-1]
    return [*found, posixpath.join(here, ".") if path.endswith("/.") else here]
