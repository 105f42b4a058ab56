"""The command line: `bearerd init | run | once | check | status | refresh | health | schema | completion | demo`.

This module imports only what `health` needs, because a probe runs every few seconds next to every consumer.
"""

from __future__ import annotations

import errno
import io
import os
import sys

from bearerd.process import open_standard_descriptors, write_stderr
from bearerd.reason import reason_of

TYPE_CHECKING = False  # known to type checkers; importing `typing` would cost a probe 3 ms
if TYPE_CHECKING:
    from collections.abc import Sequence

# stdout is on a full disk or at a limit of its size, is open for reading only, or was a terminal that is gone.
_UNWRITTEN = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EBADF, errno.EIO})


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit code (0 done, 1 failed, 2 usage, 78 the config is wrong)."""
    open_standard_descriptors()
    if argv is None and sys.getfilesystemencoding() != "utf-8":
        # Other programs use UTF-8 for the names in the config, whatever the locale of this process is.
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])  # noqa: S606 - itself
    if isinstance(sys.stdout, io.TextIOWrapper):
        # As for stderr: characters that the locale cannot express are escaped, not an error.
        sys.stdout.reconfigure(errors="backslashreplace")
    arguments = sys.argv[1:] if argv is None else list(argv)
    # Only as a program: other code of this process may have hooks of its own. A probe handles no secret, and is quick.
    if argv is None and arguments[:1] != ["health"]:
        from bearerd.crash import hide_texts

        hide_texts()
    code = 0
    try:
        code = _run(arguments)
        sys.stdout.flush()  # here, where a closed pipe or a full disk is still handled
        if argv is None and arguments[:1] in (["run"], ["once"]):  # an error, after threads may have begun
            from bearerd.cli.commands import leave

            leave(code)
    except KeyboardInterrupt:
        return 130  # the shells' convention: 128 + SIGINT
    except BrokenPipeError:
        # The reader of our output is gone (`bearerd schema | head`).
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno not in _UNWRITTEN:
            raise
        # The rest would fail again at exit, and change the exit code.
        write_stderr(f"bearerd: the output could not be written: {reason_of(error)}")
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return code or 1
    except Exception as error:
        from bearerd.errors import ConfigUnavailable

        if not isinstance(error, ConfigUnavailable):
            raise
        # The reader got no process or descriptor. `act` shows all other errors.
        write_stderr(f"bearerd: {error}")
        return 1
    return code


def _run(arguments: list[str]) -> int:
    if arguments[:1] and arguments[0].startswith("-"):
        from bearerd.cli.arguments import command_first

        arguments = command_first(arguments)
    if arguments[:1] == ["health"]:
        from bearerd.cli.health import quick

        code = quick(arguments[1:])
        if code is not None:
            return code
    reader, warning = None, None
    if arguments[:1] in (["run"], ["once"], ["check"]):
        from bearerd.config.reader import ConfigReader
        from bearerd.process import harden

        # Forked first, while there are no threads and little is in memory.
        warning = harden()
        reader = ConfigReader()
        if arguments[0] != "check":
            from bearerd.service.signals import hold_back

            hold_back()  # before the imports that take a while
    from bearerd.cli.commands import act
    from bearerd.cli.verbs import parser

    return act(parser().parse_args(arguments), reader, warning)
