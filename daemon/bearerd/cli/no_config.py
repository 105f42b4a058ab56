"""What to do about a config that is missing or cannot be read."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping

from bearerd.cli.denied import denied
from bearerd.config.here import defaults
from bearerd.errors import ConfigError
from bearerd.printable import printable

_STEPS = """\
  bearerd init    write one for your provider
  bearerd demo    try bearerd without one
  -c FILE         use another; $BEARERD_CONFIG may name it too"""


def no_config(error: ConfigError, path: str, environ: Mapping[str, str]) -> str | None:
    """The error, and the next steps; None if the config was read, and is wrong."""
    if not any(problem.line == 0 and problem.file == path for problem in error.problems):
        return None
    given, looked = environ.get("BEARERD_CONFIG"), defaults(environ).configs
    if path in looked and not given and not any(map(os.path.lexists, looked)):
        them = f"{looked[0]} does not exist" if len(looked) == 1 else f"neither {' nor '.join(looked)} exists"
        return f"bearerd: there is no config: {printable(them)}\n{_STEPS}"
    named = f"the config {path}" + (", which $BEARERD_CONFIG names," if path == given else "")
    steps = "" if os.path.exists(path) else f"\n{_STEPS}"
    return f"bearerd: {printable(named)} {printable(_why(path) or error.problems[0].kind)}{steps}"


def _why(path: str) -> str | None:
    """Why a file cannot be read, as a verb phrase; None if that cannot be seen."""
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            return f"is a directory: name the file, such as {os.path.join(path, 'config.yaml')}"
        if stat.S_ISREG(mode) and not os.access(path, os.R_OK, effective_ids=True):
            return f"cannot be read: {denied(path, stat.S_IRGRP)}"
    except FileNotFoundError:
        if os.path.islink(path):
            return f"is a symlink to {os.readlink(path)}, which does not exist"
        return "does not exist"
    except PermissionError:
        try:
            return f"cannot be read: {denied(path, stat.S_IRGRP)}"
        except OSError:
            return None
    except (OSError, ValueError):  # ValueError: a path with a NUL
        return None
    return None
