"""The failures that are raised. What a provider answers is no exception but a value (grant/outcome.py).

    BearerdError
    ├── ConfigError          the config is wrong: every problem, each with its place; exit 78
    ├── ConfigUnavailable    the config could not be read at all (no process, no memory, no time)
    ├── SecretUnavailable    a reference that cannot be read or used now; fails its client alone
    │   └── KeyUnusable      what was read signs nothing
    ├── ExtraMissing         what the config asks for needs a part that is not installed; fails its client alone
    ├── PublishError         a file that could not be replaced; what stood there still stands
    ├── HookFailed           a command or a signal that did not do what it should
    ├── DirectoryUnusable    the output directory cannot be made or written; exit 1
    └── DirectoryLocked      another daemon keeps this directory; exit 1

Each message is one line for the person on call: what failed, where, why, and what to do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


class BearerdError(Exception):
    """The root of all that bearerd raises on purpose."""


Kind = Literal[
    "the file cannot be read",
    "the file is too large",
    "not UTF-8 text",
    "not YAML",
    "nested too deeply",
    "the file is empty",
    "expected a mapping",
    "not used in this config's YAML",
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
"""What is wrong, in words that hold nothing of the config: this is all that the log, the API and the page say."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong in the config, and where. Lines and columns count from 1."""

    file: str
    line: int
    column: int
    kind: str
    """One of `Kind`, or why the file cannot be read."""
    message: str = ""
    """For `check` only: it may quote the config."""
    source: str | None = None
    """For `check` only: the source line, as far as it may be shown."""
    caret: int = 0
    """The column of `source`, from 0, at which the mark stands."""

    @property
    def place(self) -> str:
        """`file:line:column`, with `?` for what cannot be printed: a name in conf.d may hold any bytes."""
        file = "".join(char if char.isprintable() else "?" for char in self.file)
        return f"{file}:{self.line}:{self.column}"

    @property
    def brief(self) -> str:
        """Its place and kind: what may be said anywhere."""
        return f"{self.place}: {self.kind}"

    @property
    def full(self) -> str:
        """All of it, on several lines: for `check`'s own output and for nothing else."""
        headline = f"{self.place}: {self.message or self.kind}"
        if self.source is None:
            return headline
        number = f"{self.line:>5}"
        # Tabs keep their width in the line with the mark.
        indent = "".join("\t" if char == "\t" else " " for char in self.source[: self.caret])
        return f"{headline}\n{number} | {self.source}\n{' ' * len(number)} | {indent}^"


def reason_of(error: OSError) -> str:
    """What the operating system says about an error."""
    return (error.strerror or type(error).__name__).lower()


class ConfigError(BearerdError):
    """The config is wrong. Holds every problem, ordered by place; its text is brief, and safe to show anywhere."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = sorted(problems, key=lambda problem: (problem.file, problem.line, problem.column))
        super().__init__("\n".join(problem.brief for problem in self.problems))

    @property
    def full(self) -> str:
        """Every problem in full: for `check`'s own output."""
        return "\n".join(problem.full for problem in self.problems)


class ConfigUnavailable(BearerdError):  # noqa: N818 - a state of the world, not a mistake
    """Nothing is known of the config: it was not read within its time, or there was no process or memory for it."""


class SecretUnavailable(BearerdError):  # noqa: N818 - a state of the world, not a mistake
    """A secret, key or client id could not be read or used; the message never holds what was read."""


class KeyUnusable(SecretUnavailable):
    """What was read signs nothing: the secret, the private key, or the certificate beside it."""

    def __init__(self, part: Literal["client_secret", "private_key", "certificate"], why: str) -> None:
        self.part = part
        super().__init__(why)


class ExtraMissing(BearerdError):  # noqa: N818 - as above
    """What the config asks for needs an extra of the package."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs a part that is not installed: pip install 'bearerd[{extra}]'")


class PublishError(BearerdError):
    """A file could not be replaced; what stood there before still stands."""


class HookFailed(BearerdError):  # noqa: N818 - as above
    """A hook's command ended badly or not at all, or there is nobody to be signalled."""


class DirectoryUnusable(BearerdError):  # noqa: N818 - as above
    """The output directory cannot be made, opened or written."""


class DirectoryLocked(BearerdError):  # noqa: N818 - as above
    """Another bearerd keeps the directory."""
