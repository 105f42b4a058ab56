"""The daemons of a fleet: real processes, each with its own directories, that share one client."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fleet.provider import CLIENT_ID, NAMED_BY, SCOPE, SECRET, Provider
from support.process import WITHIN, command, pause

CLIENT = "dnb"
_LOG_SHOWN, _LOGS_SHOWN = 25, 4
"""Lines of each log that are shown after a failure, and of how many daemons."""


@dataclass
class Member:
    """One daemon of the fleet: its directory, and its process while it runs."""

    name: str
    directory: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def file(self) -> Path:
        """The token file."""
        return self.tokens / CLIENT / SCOPE

    @property
    def tokens(self) -> Path:
        """The output directory."""
        return self.directory / "tokens"

    @property
    def socket(self) -> Path:
        """The control socket."""
        return self.tokens / ".bearerd" / "control.sock"

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the process."""
        assert self.process is not None
        self.process.send_signal(number)

    def pause(self) -> None:
        """Stop the process. When this returns, none of its threads does anything more."""
        assert self.process is not None
        pause(self.process)

    def log(self) -> str:
        """The end of its log."""
        lines = (self.directory / "log").read_text(errors="replace").splitlines()
        return "\n".join(f"{self.name}: {line}" for line in lines[-_LOG_SHOWN:])

    def status(self) -> dict[str, Any]:
        """What `bearerd status --json` shows."""
        asked = command("status", "--json", "--socket", self.socket)
        done = subprocess.run(asked, capture_output=True, check=False, timeout=WITHIN)
        document: dict[str, Any] = json.loads(done.stdout)
        return document


@dataclass
class Fleet:
    """All daemons, by name."""

    directory: Path
    members: dict[str, Member]
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def files(self) -> dict[str, Path]:
        """The token file of each daemon."""
        return {member.name: member.file for member in self.members.values()}

    def start(self, *names: str) -> None:
        """Start these daemons, or all, without waiting for them."""
        for member in self._named(names):
            assert member.process is None, f"{member.name} runs"
            with (member.directory / "log").open("ab") as log:
                member.process = subprocess.Popen(
                    command("run", "-c", member.directory / "config.yaml"),
                    env={**os.environ, **self.environment, "DAEMON": member.name},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )

    def end(self, *names: str, by: signal.Signals = signal.SIGTERM) -> None:
        """End these daemons, or all that run, and wait for it."""
        ending = [member for member in self._named(names) if member.process is not None]
        for member in ending:
            member.send(by)
        for member in ending:
            assert member.process is not None
            code = member.process.wait(WITHIN)
            member.process = None
            assert code == (0 if by is signal.SIGTERM else -by), f"exit {code}\n{member.log()}"

    def running(self) -> None:
        """Fail if a daemon ended by itself."""
        for member in self.members.values():
            if member.process is not None and member.process.poll() is not None:
                raise AssertionError(f"{member.name} ended\n{member.log()}")

    def logs(self) -> str:
        """The end of the logs of some daemons."""
        return "\n".join(member.log() for member in list(self.members.values())[:_LOGS_SHOWN])

    def _named(self, names: Sequence[str]) -> list[Member]:
        return [self.members[name] for name in names or self.members]


@contextmanager
def fleet(
    directory: Path,
    count: int,
    provider: Provider,
    share: Mapping[str, Any] | None,
    client: Mapping[str, Any] | None = None,
    more: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Fleet]:
    """A fleet that is not started yet; what runs at the end of the block is killed, by pid.

    `client` and `more` are further keys of the client and of the config.
    """
    secret = directory / "secret"
    secret.touch(0o600)
    secret.write_text(SECRET)
    members = {}
    for number in range(1, count + 1):
        member = Member(f"d{number:02}", directory / f"daemon-{number:02}")
        member.directory.mkdir()
        config = {
            "output": {"directory": str(member.tokens)},
            "state_directory": str(member.directory / "state"),
            **({"share": share} if share is not None else {}),
            "clients": {
                CLIENT: {
                    "token_url": provider.url,
                    "allow_http": True,
                    "client_id": CLIENT_ID,
                    "client_secret": {"file": str(secret)},
                    "headers": {NAMED_BY: {"env": "DAEMON"}},
                    "tokens": {SCOPE: {"scope": SCOPE}},
                    **(client or {}),
                }
            },
            **(more or {}),
        }
        # JSON is YAML.
        (member.directory / "config.yaml").write_text(json.dumps(config))
        members[member.name] = member
    here = Fleet(directory, members, environment or {})
    try:
        yield here
    finally:
        for member in members.values():
            if member.process is not None:
                member.process.kill()  # also one that is stopped
                member.process.wait()
