"""A config loaded in a child process that ends: what its parsing needed does not stay in the daemon.

Pydantic and a parser's garbage are 8 MB for one client, 70 MB for ten thousand. The child works while
the daemon imports the rest, so the start is no later for it.

    python -m bearerd.config.apart FILE
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys

from bearerd.errors import BearerdError, ConfigError, Problem
from bearerd.model import Config


class Loading:
    """A config that is being loaded."""

    def __init__(self, path: str) -> None:
        # -P: nothing is imported from the directory that the daemon happens to be started in.
        self._child = subprocess.Popen(
            [sys.executable, "-P", "-m", __name__, path], stdout=subprocess.PIPE, umask=0o077
        )

    def result(self) -> Config:
        """What was loaded; raises ConfigError."""
        output, _ = self._child.communicate()
        if self._child.returncode != 0:
            raise BearerdError(f"the config could not be loaded: its process ended with {self._child.returncode}")
        # Our own child's output, through our own pipe.
        loaded: Config | list[Problem] = pickle.loads(output)  # noqa: S301
        if isinstance(loaded, list):
            raise ConfigError(loaded)
        return loaded


def main() -> None:
    """Load, and write the Config or the problems to standard output."""
    from bearerd.config.load import load  # noqa: PLC0415 - the daemon imports this module, and not that

    loaded: Config | list[Problem]
    try:
        loaded = load(sys.argv[1], os.environ)
    except ConfigError as error:
        loaded = error.problems
    sys.stdout.buffer.write(pickle.dumps(loaded))


if __name__ == "__main__":
    main()
