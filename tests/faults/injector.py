"""Compiles inject.c, and runs bearerd under it."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import bearerd

HERE: Final = Path(__file__).parent
CHANGES: Final = "mkdir,mkdirat,fchmod,fchown,ftruncate,write,pwrite64,fsync,rename,renameat,unlink,unlinkat"
"""The calls that change files."""
_CANNOT: Final = 125
"""The injector's exit code for its own errors."""
KILLED: Final = 128 + 9
_RANDOM: Final = re.compile(r"[0-9a-f]{16}|(?<=proc/)\d+|(?<=\[)\d+")
"""The parts of a path that differ from run to run."""


def compiled(directory: Path, source: str, *options: str) -> Path:
    """Compile a C file of this directory with gcc; returns the program or library."""
    result = directory / source.removesuffix(".c")
    subprocess.run(["gcc", "-O2", "-Wall", "-o", result, *options, HERE / source], check=True)
    return result


@dataclass(frozen=True)
class Call:
    """A system call of a run, and its number."""

    number: int
    name: str
    path: str

    def site(self) -> tuple[str, str]:
        """The call and its path, without the parts that differ from run to run."""
        return self.name, _RANDOM.sub("*", self.path)


class Injector:
    """The injector with its log. One run at a time."""

    def __init__(self, program: Path, directory: Path) -> None:
        self._program = program
        # In a directory of its own: the daemon watches that of its config, and each line would wake it.
        (directory / "log").mkdir()
        self.log = directory / "log/calls"

    def argv(self, action: str | int, *options: str, number: int = 1) -> list[str]:
        """The command before a command; imports are not counted."""
        self.log.unlink(missing_ok=True)
        excluded = [option for prefix in _code() for option in ("-x", prefix)]
        return [
            str(self._program),
            *("-a", str(action), "-n", str(number), "-o", str(self.log)),
            *excluded,
            *options,
            "--",
        ]

    def calls(self) -> list[Call]:
        """The calls that were listed or disturbed in the last run."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        found = (line.split(" ", 3) for line in text.splitlines())
        return [Call(int(number), name, path) for number, _, name, path in found]


def check_injector(code: int, text: str) -> None:
    """Raise AssertionError if the injector itself failed."""
    assert code != _CANNOT, text


def _code() -> set[str]:
    """The directories that modules are imported from."""
    found = {str(Path(bearerd.__file__).parent), sys.prefix, str(Path(sys.base_prefix, "lib/python3"))}
    return found | {path for path in sys.path if path.endswith("-packages")}
