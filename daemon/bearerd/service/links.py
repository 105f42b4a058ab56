"""Which names decide what a path leads to: each symlink on the way, and the file at the end. Pure.

A secret at /etc/bearerd/secret may be a link to `..data/secret`, and `..data` a link to a directory (Kubernetes), or
/etc/bearerd may itself be a link (NixOS, stow, alternatives). To switch any of these links changes the file.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable

from bearerd.publish.access import MOST_LINKS


def deciding(path: str, target: Callable[[str], str | None]) -> list[str]:
    """The links on the way of an absolute path, then where the way ends; no directory in any of them is a link.

    `target` says where a link points to, None for what is no link; it raises OSError for what is missing or cannot be
    looked at. The way ends there, and also at the 41st link. A path that ends in `/.` stands for what is in that
    directory, and so does the last name then.
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
