"""The face: `bearerd run | once | check | status | refresh | health | schema | demo`.

Nothing is imported here that `health` can do without: a probe runs every few seconds, beside every consumer.
"""

from __future__ import annotations

import errno
import io
import os
import sys

from bearerd.process import open_standard_descriptors, write_stderr

TYPE_CHECKING = False  # as type checkers know it; importing `typing` for it would cost a probe 3 ms
if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code (0 done, 1 failed, 2 usage, 78 the config is wrong)."""
    open_standard_descriptors()
    if isinstance(sys.stdout, io.TextIOWrapper):
        # As for stderr: a locale, or a name of a file, that cannot express what is said is no reason to say nothing.
        sys.stdout.reconfigure(errors="backslashreplace")
    arguments = sys.argv[1:] if argv is None else list(argv)
    code = 0
    try:
        code = _run(arguments)
        sys.stdout.flush()  # here, where a reader that has gone or a full disk can still be borne with
    except KeyboardInterrupt:
        return 130  # as shells have it: 128 + SIGINT
    except BrokenPipeError:
        # Who read our output has gone (`bearerd schema | head`).
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        # Our output goes to a full disk. What is left of it would fail again at the end, and change the exit code.
        write_stderr("bearerd: the output could not be written: no space left on device")
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return code or 1
    except Exception as error:
        from bearerd.errors import ConfigUnavailable

        if not isinstance(error, ConfigUnavailable):
            raise
        # There is no process or descriptor for the reader; all other errors are shown by `act`.
        write_stderr(f"bearerd: {error}")
        return 1
    return code


def _run(arguments: list[str]) -> int:
    if arguments[:1] == ["health"]:
        from bearerd.cli.health import quick

        code = quick(arguments[1:])
        if code is not None:
            return code
    reader, warning = None, None
    if arguments[:1] in (["run"], ["once"], ["check"]):
        from bearerd.config.reader import ConfigReader
        from bearerd.process import harden

        # First of all, while there are no threads and little is in memory, which the reader's process keeps.
        warning = harden()
        reader = ConfigReader()
        if arguments[0] != "check":
            from bearerd.service.signals import hold_back

            hold_back()  # before the imports that take a while
    from bearerd.cli.verbs import act, parser

    return act(parser().parse_args(arguments), reader, warning)
