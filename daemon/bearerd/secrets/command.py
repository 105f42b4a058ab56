"""Secrets that a command prints, such as the client of a password manager."""

from __future__ import annotations

import os
import selectors
import subprocess
import threading
import time
from collections.abc import Mapping
from typing import Final

from bearerd import child
from bearerd.errors import SecretUnavailable, Stopping
from bearerd.handoff import waiting
from bearerd.reason import not_started
from bearerd.secrets.source import LARGEST, SecretSource
from bearerd.terms import Reference

# Seconds. A password manager answers over the network within one or two; a grant waits no longer than its own timeout.
_TIMEOUT: Final = 10.0
# Seconds. A killed process ends at once, unless it waits for a file system that hangs, or runs as another user (sudo).
_KILLED_WITHIN: Final = 1.0
# By argv: a process that could not be killed. While it runs, another one would only hang too.
_stuck: Final[dict[tuple[str, ...], subprocess.Popen[bytes]]] = {}
_running: Final[set[subprocess.Popen[bytes]]] = set()
_stopping: Final = threading.Event()


def stop() -> None:
    """Kill the commands that run, and start no more, because this process ends. Whoever reads one gets `Stopping`."""
    _stopping.set()
    for process in _running.copy():
        child.kill(process)


class CommandSource(SecretSource):
    """The output of a command, which runs for each grant."""

    def __init__(self, reference: Reference, environ: Mapping[str, str]) -> None:
        super().__init__(reference)
        self._environ = environ

    def fingerprint(self, before: bytes = b"") -> bytes:  # noqa: ARG002 - nothing is compared
        """Always the same: only a run shows the secret, and each grant makes one."""
        return b""

    def _bytes(self) -> bytes:
        name = str(self.reference)
        argv = self.reference.argv
        if _stopping.is_set():
            raise Stopping(f"{name}: not run, because bearerd is stopping")
        if argv in _stuck and _stuck[argv].poll() is None:
            raise SecretUnavailable(f"{name}: {_cannot_be_killed(_stuck[argv])}")
        try:
            process = child.start(argv, self._environ, stdout=subprocess.PIPE, umask=0o077)
        except OSError as error:
            raise SecretUnavailable(f"{name}: {not_started(error)}") from None
        with waiting():
            try:
                _running.add(process)
                if _stopping.is_set():  # `stop` may not have seen it
                    child.kill(process)
                output = _output(process, time.monotonic() + _TIMEOUT)
            except TimeoutError:
                raise SecretUnavailable(f"{name}: timed out after {_TIMEOUT:.0f} s") from None
            finally:
                # Its children could keep the pipe open, and so this thread waiting, or write for ever.
                child.kill(process)
                _running.discard(process)
                if process.stdout is not None:
                    process.stdout.close()
                if process.returncode is None and not child.ended(process, _KILLED_WITHIN):
                    _stuck[argv] = process
                    raise SecretUnavailable(f"{name}: {_cannot_be_killed(process)}") from None
        if len(output) > LARGEST:
            raise SecretUnavailable(f"{name}: more than 64 KiB, so not a secret")
        if process.returncode != 0:
            if _stopping.is_set():
                raise Stopping(f"{name}: killed, because bearerd is stopping")
            ended = child.fault_of(process.returncode)
            raise SecretUnavailable(f"{name}: {ended}; run it by hand as the daemon's user to see why")
        return output


def _cannot_be_killed(process: subprocess.Popen[bytes]) -> str:
    return f"pid {process.pid} cannot be killed; kill it as root, or repair the file system that it waits for"


def _output(process: subprocess.Popen[bytes], deadline: float) -> bytes:
    """The output of a process, cut off soon after LARGEST bytes. Raises TimeoutError."""
    assert process.stdout is not None  # noqa: S101 - it was started with a pipe
    descriptor, output = process.stdout.fileno(), b""
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        while len(output) <= LARGEST:
            if not selector.select(max(0.0, deadline - time.monotonic())):
                raise TimeoutError
            part = os.read(descriptor, LARGEST)
            if not part:
                break
            output += part
    if len(output) <= LARGEST and not child.ended(process, deadline - time.monotonic()):
        raise TimeoutError
    return output
