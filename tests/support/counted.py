"""Readers in processes of their own, in C, Python and shell, which print what they count (`reads/reader.c`)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple

from support.process import WITHIN, eventually

HERE: Final = Path(__file__).resolve().parent.parent / "reads"
NOBODY: Final = 65534
POLITE: Final = 10
"""The nice value of readers in rigs: they never wait, and the daemon, its providers and others go first."""
TEMPLATE: Final = "first={{ access_token }}\nsecond={{ access_token }}\n"
"""The template whose files the readers understand."""
SUFFIXES: Final = {"raw": "", "json": ".json", "header": ".header", "env": ".env", "template": ".both"}
"""What the name of a token's file ends with, by format; that of the template is the rigs' own choice."""
_KEPT: Final = 1000
"""Faults of a reader that are kept."""
_AGAIN: Final = 5.0
"""Seconds until a reader is told again to end: longer than one that was told takes, also on a loaded machine."""


class Counts(NamedTuple):
    """What a reader counted. `least` is the shortest remaining lifetime that it saw, in milliseconds."""

    reads: int = 0
    refreshes: int = 0
    torn: int = 0
    absent: int = 0
    expired: int = 0
    older: int = 0
    least: int = 1 << 40

    @property
    def bad(self) -> int:
        """All that no reader may see."""
        return self.torn + self.absent + self.expired + self.older


def wait_for(files: Sequence[str]) -> None:
    """Wait until all files exist; each is a `FORMAT:PATH`."""
    paths = [Path(file.partition(":")[2]) for file in files]
    eventually(lambda: all(path.exists() for path in paths))


def added(counts: Sequence[Counts]) -> Counts:
    """The sum of several."""
    *sums, _ = (sum(column) for column in zip(*counts, strict=True))
    return Counts._make([*sums, min(one.least for one in counts)])


class ReaderProcess:
    """A reader: its label, what it counted so far, and the faults that it described."""

    def __init__(self, label: str, process: subprocess.Popen[str]) -> None:
        self.label = label
        self.process = process
        self.counts = Counts()
        self.faults: list[str] = []
        self.closest = ""
        """The read that was closest to an expiry, by a reader in C."""
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        for line in self.process.stdout or ():
            if line.startswith("fault "):
                if len(self.faults) < _KEPT:
                    self.faults.append(line.removeprefix("fault ").strip())
            elif line.startswith("closest "):
                self.closest = line.removeprefix("closest ").strip()
            else:
                self.counts = Counts(*map(int, line.split()))

    def running(self) -> None:
        """Fail if it ended by itself."""
        assert self.process.poll() is None, f"the reader {self.label} ended with {self.process.returncode}"

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()
        self.process.wait()
        self._thread.join(WITHIN)
        if self.process.stdout:
            self.process.stdout.close()

    def end(self) -> None:
        """End it; its counts are final then."""
        deadline = time.monotonic() + WITHIN
        while time.monotonic() < deadline:
            # Again, if it goes on: bash cannot run a trap while it parses a command substitution, and forgets it.
            self.process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(_AGAIN)
                break
        self._thread.join(WITHIN)
        assert self.process.returncode == 0, f"the reader {self.label} ended with {self.process.returncode}"


def compiled(directory: Path) -> Path:
    """The reader in C, where every user may run it."""
    program = directory / "reader"
    subprocess.run(["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", program, HERE / "reader.c"], check=True)
    program.chmod(0o755)
    return program


class Readers:
    """Starts readers, all from one thread: the kernel ends a C reader with the thread that started it."""

    def __init__(self, program: Path, nice: int) -> None:
        self._program = program
        self._nice = nice
        self.all: list[ReaderProcess] = []

    def c(self, label: str, way: str, files: Sequence[str], pause: int = 0, user: int | None = None) -> None:
        """Start one in C; `pause` in microseconds after each read."""
        self._start(label, [str(self._program), way, str(pause), *files], user)

    def python(self, label: str, files: Sequence[str], pause: float = 0.0) -> None:
        """Start one in Python; `pause` in seconds after each read."""
        self._start(label, [sys.executable, str(HERE / "reader.py"), str(pause), *files])

    def shell(self, label: str, shell: str, way: str, files: Sequence[str]) -> None:
        """Start one in a shell."""
        self._start(label, [shutil.which(shell) or shell, str(HERE / "reader.sh"), way, *files])

    def _start(self, label: str, argv: Sequence[str], user: int | None = None) -> None:
        process = subprocess.Popen(
            argv,
            stdout=subprocess.PIPE,
            text=True,
            cwd="/",
            user=user,
            group=user,
            extra_groups=None if user is None else [],
            start_new_session=True,
        )
        prioritise(process.pid, self._nice)
        self.all.append(ReaderProcess(label, process))

    def counts(self) -> Counts:
        """What all of them counted."""
        return added([reader.counts for reader in self.all])

    def faults(self) -> list[str]:
        """What they saw, each with its reader."""
        return [f"{reader.label}: {fault}" for reader in self.all for fault in reader.faults]

    def closest(self) -> str:
        """The read in C that was closest to an expiry."""
        described = [reader for reader in self.all if reader.closest]
        return min(described, key=lambda reader: reader.counts.least).closest

    def running(self) -> None:
        """Fail if one ended by itself."""
        for reader in self.all:
            reader.running()

    def end(self) -> None:
        """End all of them."""
        for reader in self.all:
            reader.end()


@contextmanager
def readers(program: Path, nice: int = POLITE) -> Iterator[Readers]:
    """Readers that are killed at the end of the block, if they still run; `program` is the one in C."""
    here = Readers(program, nice)
    try:
        yield here
    finally:
        for reader in here.all:
            reader.kill()


def prioritise(pid: int, nice: int) -> None:
    """Set the nice value of a process.

    Where the kernel groups processes by session, nice values count within a session only. So a process that leads one
    gets the value for its session as well.
    """
    os.setpriority(os.PRIO_PROCESS, pid, nice)
    group = Path(f"/proc/{pid}/autogroup")
    if os.getsid(pid) == pid and group.exists():
        with suppress(BlockingIOError):  # a user who is not root may do it ten times a second; only root needs it
            group.write_text(str(nice))
