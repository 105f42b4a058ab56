"""The failures that are raised. What a provider answers is no exception but a value (grant/outcome.py).

    BearerdError
    ├── ConfigError          the YAML is wrong: every problem of it, each with its place; exit 78
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


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong in the config, and where. Lines and columns count from 1."""

    file: str
    line: int
    column: int
    message: str
    source: str | None = None
    """The source line; None where it could show a secret."""

    @property
    def headline(self) -> str:
        """Its place and its message, in a line."""
        return f"{self.file}:{self.line}:{self.column}: {self.message}"

    def __str__(self) -> str:
        if self.source is None:
            return self.headline
        number = f"{self.line:>5}"
        # Tabs keep their width in the line with the mark.
        indent = "".join("\t" if char == "\t" else " " for char in self.source[: self.column - 1])
        return f"{self.headline}\n{number} | {self.source}\n{' ' * len(number)} | {indent}^"


class ConfigError(BearerdError):
    """The config is wrong; holds every problem, in the order of their places."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = sorted(problems, key=lambda problem: (problem.file, problem.line, problem.column))
        super().__init__("\n".join(str(problem) for problem in self.problems))


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
