"""The defaults of this process, from its user and the file system."""

from __future__ import annotations

import os

from bearerd.config.defaults import SOCKET_BELOW, Defaults

TYPE_CHECKING = False  # as in bearerd.cli
if TYPE_CHECKING:
    from collections.abc import Mapping


def defaults(environ: Mapping[str, str]) -> Defaults:
    """The defaults of this process."""
    return Defaults(environ, os.geteuid(), _owner)


def default_config(environ: Mapping[str, str]) -> str:
    """The config that is used without `-c`: $BEARERD_CONFIG, else the first default that exists, else the last."""
    if given := environ.get("BEARERD_CONFIG"):
        return given
    paths = defaults(environ).configs
    # A dangling link counts: its owner wants to know about it.
    return next((path for path in paths if os.path.lexists(path)), paths[-1])


def default_socket(known: Defaults) -> str:
    """The first control socket that exists, else that of the default directory."""
    paths = [f"{directory}/{SOCKET_BELOW}" for directory in known.directories]
    return next((path for path in paths if _may_exist(path)), paths[0])


def _may_exist(path: str) -> bool:
    """Whether a path exists, or is in a directory that this user cannot enter, which is an error worth reporting."""
    try:
        os.lstat(path)
    except OSError as error:
        return isinstance(error, PermissionError)
    return True


def _owner(path: str) -> int | None:
    try:
        return os.stat(path).st_uid
    except (OSError, ValueError):  # ValueError: a NUL, which only a test can set
        return None
