"""Forks, one for each mutant, at most so many at once."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import shutil
import signal
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from mutation.mutants import Mutant

_MEMORY = 3 << 30
"""Bytes. A loop without end that fills a list ends here."""
_PROGRESS = os.dup(2)
"""Standard error, for progress: that of the forks goes nowhere."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a mutant ended: killed, timed out, survived."""

    mutant: Mutant
    outcome: str
    test: str = ""
    """The test that killed it."""


class Pool:
    """Forks, each in a session and a directory of its own, and the verdicts on their mutants."""

    def __init__(self, jobs: int, work: Path) -> None:
        self._jobs, self._work = jobs, work
        work.chmod(0o755)  # tests run as other users, and skip where those cannot get to
        self._running: dict[int, tuple[int, Mutant, float, Path]] = {}
        self.verdicts: list[Verdict] = []

    def fork(self, mutant: Mutant, limit: float) -> Path | None:
        """The directory of the child, in the child; None in the parent. It ends after `limit` seconds at the latest.

        The child exits 0 if the mutant survives, and notes in a file `note` which test fails.
        """
        while len(self._running) >= self._jobs:
            self._reap()
        place = Path(tempfile.mkdtemp(dir=self._work))
        place.chmod(0o755)
        pid = os.fork()
        if pid:
            self._running[os.pidfd_open(pid)] = (pid, mutant, time.monotonic() + limit, place)
            return None
        os.setsid()
        quiet(0, 1, 2)
        os.environ["PYTEST_DEBUG_TEMPROOT"] = os.environ["TMPDIR"] = str(place)
        tempfile.tempdir = None
        os.chdir(place)  # where a path of a mutant may be relative by mistake
        resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY, resource.getrlimit(resource.RLIMIT_DATA)[1]))
        return place

    def finish(self) -> list[Verdict]:
        """Wait for all."""
        while self._running:
            self._reap()
        return self.verdicts

    def _reap(self) -> None:
        ends = min(until for _, _, until, _ in self._running.values())
        ready, _, _ = select.select(list(self._running), [], [], max(0.0, ends - time.monotonic()))
        late = [fd for fd, (_, _, until, _) in self._running.items() if until <= time.monotonic()]
        for fd in {*ready, *late}:
            pid, mutant, _, place = self._running.pop(fd)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)  # its servers and commands too; its number is free after waitpid only
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            os.close(fd)
            self.verdicts.append(_verdict(mutant, status, place / "note", late=fd in late))
            if self.verdicts[-1].outcome == "survived":
                os.write(_PROGRESS, f"survived so far: {mutant.name}\n".encode())
            shutil.rmtree(place, ignore_errors=True)
            if len(self.verdicts) % 50 == 0:
                os.write(_PROGRESS, f"{mutant.module}: {len(self.verdicts)} mutants run\n".encode())


def _verdict(mutant: Mutant, status: int, note: Path, *, late: bool) -> Verdict:
    """How a mutant ended. It counts as killed by a test, or because the tests could not even be imported."""
    if note.exists():
        test, timeout = json.loads(note.read_text())
        return Verdict(mutant, "timed out" if timeout else "killed", test)
    if late:
        return Verdict(mutant, "timed out")
    # Without a note, any other status is a failed import: a usage error if it was that of conftest.py.
    survived = status in {pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED}
    return Verdict(mutant, "survived" if survived else "killed")


def quiet(*descriptors: int) -> None:
    """Send the output of tests nowhere."""
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in descriptors:
        os.dup2(null, descriptor)
    os.close(null)
