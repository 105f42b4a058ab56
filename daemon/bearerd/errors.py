"""The exceptions of bearerd. A provider's refusal is not an exception but a value (`grant/outcome`). Pure.

    BearerdError
    ├── ConfigError          the config is wrong: every problem with its place; exit 78
    ├── ConfigUnavailable    the config could not be read (no process, no memory, no time)
    ├── SecretUnavailable    a secret cannot be read or used now; affects its client only
    │   ├── KeyUnusable      a key or certificate was read, but cannot be used
    │   └── Stopping         a secret was not read, because the process ends
    ├── ExtraMissing         an optional part of bearerd is not installed; affects its client only
    ├── PublishError         a file could not be replaced; the previous one is still there
    │   └── NotPermitted     this user is not allowed to write there
    ├── HookFailed           a command or a signal failed
    ├── DirectoryUnusable    the output directory cannot be created or written; exit 1
    └── DirectoryLocked      another daemon uses this directory; exit 1

Each message is one line for the person on call: what failed, where, why, and what to do.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from bearerd.printable import printable


class BearerdError(Exception):
    """The base of all exceptions that bearerd raises on purpose."""


class NoThread(RuntimeError):  # noqa: N818 - a lack of the machine, as Python's own RuntimeError for it
    """No thread can be started; the text says what to do."""


Kind = Literal[
    "the file cannot be read",
    "an included directory cannot be read",
    "the file is too large",
    "not UTF-8 text",
    "not YAML",
    "nested too deeply",
    "the file is empty",
    "expected a mapping",
    "not supported in this config",
    "duplicate key",
    "unknown key",
    "missing key",
    "malformed name",
    "ambiguous value",
    "wrong value",
    "secret in the config",
    "conflicting keys",
    "defined twice",
    "unknown provider",
    "no clients",
    "conflicting paths",
    "too many errors",
]
"""The kinds of problem. They contain nothing of the config, so the log, the API and the page may show them."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One error in the config, and its place. Lines and columns count from 1; line 0 is the file as a whole."""

    file: str
    line: int
    column: int
    kind: str
    """One of `Kind`, or the reason why the file cannot be read."""
    message: str = ""
    """For `check` only, since it may quote the config."""
    source: str | None = None
    """For `check` only: the source line, without the parts that may be secret."""
    caret: int = 0
    """The column (from 0) of the mark below `source`."""

    @property
    def place(self) -> str:
        """`file:line:column`. Unprintable characters are `?`, since a file name in conf.d may contain any bytes."""
        file = printable(self.file)
        return f"{file}:{self.line}:{self.column}" if self.line else file

    @property
    def brief(self) -> str:
        """Its place and kind, which may be shown anywhere."""
        return f"{self.place}: {self.kind}"

    @property
    def full(self) -> str:
        """All of it, on several lines. For the output of `check` only."""
        headline = f"{self.place}: {printable(self.message or self.kind)}"
        if self.source is None:
            return headline
        number = f"{self.line:>5}"
        # Tabs keep their width in the line with the mark.
        indent = "".join("\t" if char == "\t" else " " for char in self.source[: self.caret])
        return f"{headline}\n{number} | {self.source}\n{' ' * len(number)} | {indent}^"


class ConfigError(BearerdError):
    """The config is wrong. Has every problem, ordered by place. Its text is brief, and may be shown anywhere."""

    def __init__(self, problems: list[Problem], files: Iterable[str] = ()) -> None:
        self.files = tuple(files)
        """The files that were read, and the directories in which more may appear."""
        self.problems = sorted(problems, key=lambda problem: (problem.file, problem.line, problem.column))
        super().__init__("\n".join(problem.brief for problem in self.problems))

    @property
    def full(self) -> str:
        """Every problem in full. For the output of `check` only."""
        return "\n".join(problem.full for problem in self.problems)


class ConfigUnavailable(BearerdError):  # noqa: N818 - a state, not a mistake
    """The config could not be read in time, or there was no process or memory to read it."""


class SecretUnavailable(BearerdError):  # noqa: N818 - a state, not a mistake
    """A secret, key or client id could not be read or used. The message never contains it."""


class KeyUnusable(SecretUnavailable):
    """A secret, private key or certificate was read, but cannot be used to sign or connect."""

    def __init__(self, part: Literal["client_secret", "private_key", "certificate"], why: str) -> None:
        self.part = part
        super().__init__(why)


class Stopping(SecretUnavailable):
    """A secret was not read, because the process ends. That is no failure of whatever needs the secret."""


class ExtraMissing(BearerdError):  # noqa: N818 - as above
    """The config needs an extra of the package that is not installed."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(
            f"{what} needs a part that is not installed: run {sys.prefix}/bin/pip install '.[{extra}]' in the checkout"
        )


class PublishError(BearerdError):
    """A file could not be replaced; the previous one is still there."""


class NotPermitted(PublishError):  # noqa: N818 - as above
    """This user is not allowed to write there."""


class HookFailed(BearerdError):  # noqa: N818 - as above
    """A hook's command failed or did not end in time, or the process to be signalled was not found."""


class DirectoryUnusable(BearerdError):  # noqa: N818 - as above
    """The output directory cannot be created, opened or written."""


class DirectoryLocked(BearerdError):  # noqa: N818 - as above
    """Another bearerd uses the directory."""


def unexpected(error: BaseException) -> str:
    """What to log of an exception that no code expects: what the machine lacks, or else a bug.

    It names the line that raised it, but never quotes its text, which could contain a secret.
    """
    if lacks := lack(error):
        return lacks
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    line = f" at {traceback.tb_frame.f_code.co_filename}:{traceback.tb_lineno}" if traceback else ""
    return f"{type(error).__name__}{line}; this is a bug in bearerd, please report it"


def lack(error: BaseException | None) -> str:
    """What the machine lacks, if that raised the exception, and what to do; empty for any other exception."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return "out of memory; raise the memory limit of bearerd, or of the machine"
    if isinstance(error, OSError) and error.errno in {errno.EMFILE, errno.ENFILE}:
        return "too many files are open; raise LimitNOFILE"
    if isinstance(error, NoThread):
        return str(error)
    if isinstance(error, RuntimeError) and "start new thread" in str(error):
        return "no thread can be started; raise TasksMax"
    return ""
