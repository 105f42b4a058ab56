"""A daemon that a rig kills and starts again, with its log in a file."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from bearerd.cli.ask import NoAnswer, ask, ask_status
from support.counted import prioritise
from support.minting import PRIORITY
from support.process import WITHIN, command, eventually

_SHOWN = 30
"""Lines of the log that are shown after a failure."""


class Kept:
    """`bearerd run`, whenever it runs."""

    def __init__(self, config: Path, tokens: Path, environment: Mapping[str, str] | None = None) -> None:
        self.config = config
        self.tokens = tokens
        self.log_file = config.with_suffix(".log")
        self._environment = {**os.environ, **(environment or {})}
        self.process: subprocess.Popen[bytes] | None = None
        self.starts = 0
        self.slowest_start = 0.0
        """Seconds until its API answered."""

    @property
    def pid(self) -> int:
        """Of the process that runs."""
        assert self.process is not None
        return self.process.pid

    @property
    def socket(self) -> str:
        """The control socket."""
        return str(self.tokens / ".bearerd/control.sock")

    def start(self) -> None:
        """Start it, and wait until its API answers."""
        began = time.monotonic()
        with self.log_file.open("ab") as log:
            # In a session of its own, in which what it leaves behind can be found.
            self.process = subprocess.Popen(
                command("run", "-c", self.config),
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        prioritise(self.process.pid, PRIORITY)
        eventually(self.answers)
        self.starts += 1
        self.slowest_start = max(self.slowest_start, time.monotonic() - began)

    def answers(self) -> bool:
        """Whether its API answers; fails if it ended by itself."""
        self.running()
        try:
            self.status()
        except NoAnswer:
            return False
        return True

    def status(self) -> dict[str, Any]:
        """`GET /status`."""
        document: dict[str, Any] = ask_status(self.socket)[0]
        return document

    def config_error(self) -> str | None:
        """The error of its config, or an empty text; None if it did not answer in time."""
        with suppress(NoAnswer):
            return str(self.status()["config"]["error"] or "")
        return None

    def running(self) -> None:
        """Fail if it ended by itself."""
        assert self.process is not None
        assert self.process.poll() is None, f"bearerd ended with {self.process.returncode}\n{self.log()}"

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """Kill it as kill -9 does."""
        self.send(signal.SIGKILL)
        assert self.process is not None
        self.process.wait(WITHIN)

    def stop(self) -> float:
        """Stop it with SIGTERM; returns the seconds that it took. Fails if the kernel had to end it, after 4 s."""
        began = time.monotonic()
        self.send(signal.SIGTERM)
        assert self.process is not None
        code = self.process.wait(WITHIN)
        assert code == 0, f"bearerd ended with {code}\n{self.log()}"
        return time.monotonic() - began

    def rewrite(self, config: Mapping[str, Any] | str) -> None:
        """Replace the config as an editor does. JSON is YAML."""
        replace(self.config, config if isinstance(config, str) else json.dumps(config))

    def refresh_all(self, config: Mapping[str, Any]) -> None:
        """Request a new token for each target of a config, so that many files change at once."""
        for name, settings in config["clients"].items():
            for token in settings["tokens"]:
                with suppress(NoAnswer):  # a full backlog; the others are enough
                    ask(self.socket, f"/refresh/{name}/{token}", "POST")

    def log(self) -> str:
        """The end of its log."""
        return "\n".join(self.log_file.read_text(errors="replace").splitlines()[-_SHOWN:])

    def left_behind(self) -> list[int]:
        """Processes of its session, once it has ended."""
        return list(session_of(self.pid))


def replace(path: Path, text: str) -> None:
    """Replace a private file as an editor does."""
    new = path.with_suffix(".new")
    new.touch(0o600)
    new.write_text(text)
    new.rename(path)


def session_of(leader: int) -> dict[int, str]:
    """The processes of a session, each with its state; Z is a zombie."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text(errors="replace").rpartition(")")[2].split()
        except OSError:  # it ended meanwhile
            continue
        if int(fields[3]) == leader:
            found[int(entry.parent.name)] = fields[0]
    return found


@contextmanager
def kept(config: Path, tokens: Path, environment: Mapping[str, str] | None = None) -> Iterator[Kept]:
    """A daemon that is not started yet; it is killed at the end of the block, if it still runs."""
    here = Kept(config, tokens, environment)
    try:
        yield here
    finally:
        if here.process is not None and here.process.poll() is None:
            here.process.kill()  # also one that is stopped
            here.process.wait()
