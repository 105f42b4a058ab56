"""Runs the real command in a real process."""

from __future__ import annotations

import importlib
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support import canary

WITHIN = 60.0
"""Seconds to wait for an event. A bound for a broken build, enough for a machine at load 20."""


def command(*arguments: str | Path) -> list[str]:
    """The command line of `bearerd …`."""
    return [sys.executable, "-m", "bearerd", *map(str, arguments)]


def patched(directory: Path, constants: Mapping[str, object], *lines: str) -> dict[str, str]:
    """An environment in which `bearerd` has other values of these constants, and first runs these lines of Python.

    For constants that would make a test wait, or that a slow machine would exceed. Constants are given by their full
    names; one that other modules import has to come first.
    """
    text = ["try:", "    import bearerd_tap", "except ImportError:", "    pass"]  # see support/canary
    for name, value in constants.items():
        module, _, attribute = name.rpartition(".")
        assert hasattr(importlib.import_module(module), attribute), f"{name} does not exist"
        text += [f"import {module}", f"{name} = {value!r}"]
    patch = Path(tempfile.mkdtemp(prefix="patch-", dir=directory))
    (patch / "sitecustomize.py").write_text("\n".join([*text, *lines, ""]))
    return {"PYTHONPATH": os.pathsep.join([str(patch), *filter(None, [os.environ.get("PYTHONPATH")])])}


def stopping_at_once(directory: Path, *lines: str) -> dict[str, str]:
    """An environment in which `bearerd` stops without waiting for requests under way.

    Otherwise it waits for 2 s and the kernel kills it after 4 s, so that a test with a hanging provider would depend on
    the speed of the machine.
    """
    constants = {"bearerd.service.engine._STOP_WITHIN": 0.1, "bearerd.service.signals._KILL_AFTER": 600}
    return patched(directory, constants, *lines)


def pause(process: subprocess.Popen[Any]) -> None:
    """Stop a process with SIGSTOP, and wait until each of its threads has stopped, which takes a moment."""
    process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)


def bearerd(
    *arguments: str | Path, env: Mapping[str, str] | None = None, timeout: float = 2 * WITHIN
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    done = subprocess.run(
        command(*arguments),
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    canary.show(["bearerd", *arguments], done.stdout, done.stderr)
    return done


class Daemon:
    """A running `bearerd` and its log."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []
        self._queue: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._shown = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stderr or self.process.stdout or ():
            self._queue.put(line.rstrip("\n"))
        self._queue.put(None)

    def wait_for(self, text: str, within: float = WITHIN) -> str:
        """The next line of the log that contains a text."""
        end = time.monotonic() + within
        while True:
            try:
                line = self._queue.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"no line with {text!r} in:\n" + "\n".join(self.lines)) from None
            assert line is not None, f"ended without {text!r}:\n" + "\n".join(self.lines)
            self.lines.append(line)
            if text in line:
                return line

    def stop(self, number: int = signal.SIGTERM, within: float = WITHIN) -> int:
        """Send a signal and wait for the end; returns the exit code. `lines` has the whole log then."""
        self.process.send_signal(number)
        return self.wait(within)

    def wait(self, within: float = WITHIN) -> int:
        """Wait for the end; returns the exit code."""
        code = self.process.wait(within)
        self._reader.join(within)
        while not self._queue.empty():
            if (line := self._queue.get()) is not None:
                self.lines.append(line)
        if not self._shown:
            self._shown = True
            argv = self.process.args
            canary.show(argv[2:] if isinstance(argv, list) else [argv], "\n".join(self.lines))
        return code


@contextmanager
def running(*arguments: str | Path, env: Mapping[str, str] | None = None) -> Iterator[Daemon]:
    """Run a command in the background; it is killed at the end of the block."""
    process = subprocess.Popen(
        command(*arguments), env={**os.environ, **(env or {})}, stderr=subprocess.PIPE, text=True
    )
    daemon = Daemon(process)
    try:
        yield daemon
    finally:
        if process.poll() is None:
            process.kill()
        daemon.wait()
        if process.stderr:
            process.stderr.close()


def eventually(condition: object, within: float = WITHIN) -> None:
    """Wait until a callable returns true, trying every 10 ms. For conditions without an event, such as a file."""
    assert callable(condition)
    end = time.monotonic() + within
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < end, "the condition did not become true"
        pause.wait(0.01)
