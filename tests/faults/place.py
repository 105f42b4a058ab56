"""A config with one token in two files and a hook, its provider, and the commands that run there."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bearerd.cli.ask import NoAnswer, ask, ask_status
from faults.judge import SECRET, TOKENS, Row, followed, judge, token_in
from support.process import WITHIN, Daemon, command, eventually
from support.provider import Provider
from support.server import serving

_RUN_AT_MOST: Final = 4 * WITHIN
"""Seconds for one run of `once`. Under ptrace, on a loaded machine, it may take ten times as long as usual."""

SOON: Final = 30.0
"""Seconds in which what is promised within ten has to be done: the rig keeps its machine busy."""


@dataclass(frozen=True)
class Rig:
    """What all scenes need."""

    short: bool
    injector: Path
    """The compiled inject.c."""
    sleeper: Path
    """The compiled suspend.c."""
    faketime: str
    """The library of libfaketime."""


class Place:
    """A directory with the config, the secret and the token files; `url` is the provider's."""

    def __init__(self, path: Path, provider: Provider, url: str, client: str = "timeout: 10s,", top: str = "") -> None:
        path.mkdir(parents=True, exist_ok=True)
        self.path, self.provider = path, provider
        self.config, self.secret, self.tokens = path / "config.yaml", path / "secret", path / "tokens"
        self.raw, self.json = self.tokens / "dnb/bci", self.tokens / "dnb/bci.json"
        self.files = (self.raw, self.json)
        self.socket = self.tokens / ".bearerd/control.sock"
        self.secret.write_text(SECRET)
        self.secret.chmod(0o600)
        http = "allow_http: true, " if url.startswith("http:") else ""
        # One flow mapping: the text is a valid config only when it is complete.
        self.config.write_text(
            f"{{{top}output: {{directory: {self.tokens}}}, clients: {{dnb: {{\n"
            f"  token_url: '{url}', {http}{client}\n"
            f"  client_id: 7e0c5a, client_secret: {{file: {self.secret}}},\n"
            "  tokens: {bci: {files: [{format: raw}, {format: json}], on_change: [{run: [/bin/true]}]}}\n"
            "}}}\n"
        )

    def once(
        self, *before: str | Path, timeout: str = "20s", env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Renew the token; `before` is a command that runs this one."""
        arguments = ["once", "-c", str(self.config), "--min-valid", "2h", "--timeout", timeout, "--hooks"]
        return subprocess.run(
            [*map(str, before), *command(*arguments)],
            env={**os.environ, **(env or {})},
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_RUN_AT_MOST,
            check=False,
        )

    def clear(self) -> None:
        """Remove all that bearerd wrote."""
        shutil.rmtree(self.tokens, ignore_errors=True)

    def names(self) -> set[str]:
        """The names of everything in the output directory."""
        return {str(path.relative_to(self.tokens)) for path in self.tokens.rglob("*")}

    def look(self, row: Row, where: str, *, must_be: bool) -> None:
        """Look at both files as a reader does; `must_be`: there was a token before."""
        for file in self.files:
            try:
                text = file.read_text()
            except OSError as error:
                if must_be:
                    row.bad("absent", f"{where}: {error}")
                continue
            judge(row, self.provider, file.name, text, where)

    def fresh(self) -> bool:
        """Whether both files have the token that was issued last."""
        with suppress(OSError):
            return {token_in(file.name, file.read_text()) for file in self.files} == {self.provider.newest()}
        return False

    def newer(self, grants: int) -> bool:
        """Whether both files have one token that was issued after so many others.

        It need not be the last one: a request that was on its way when a fault began may arrive after its end, and on a
        busy machine one that was given up may arrive after the next one.
        """
        with suppress(OSError):
            found = {token_in(file.name, file.read_text()) for file in self.files}
            return len(found) == 1 and all(
                self.provider.issued(token) and int(token.removeprefix(TOKENS)) > grants for token in found
            )
        return False

    def mended(self, row: Row, where: str, known: set[str], env: Mapping[str, str] | None = None) -> None:
        """Run again, without a fault: all is well, and nothing is left over."""
        began, grants = time.monotonic(), self.provider.grants
        done = self.once(env=env)
        row.ran(time.monotonic() - began)
        row.output(done.stderr + done.stdout, where)
        row.expect(done.returncode == 0, f"{where}: the next run exits {done.returncode}: {done.stderr[-300:]}")
        row.expect(self.fresh() or self.newer(grants), f"{where}: after the next run the files have no newer token")
        self.look(row, where, must_be=True)
        self.nothing_left(row, where, known)

    def nothing_left(self, row: Row, where: str, known: set[str]) -> None:
        """Compare the names with those after a run without a fault."""
        if more := self.names() - known:
            row.bad("left", f"{where}: {', '.join(sorted(more))}")
        row.expect(known <= self.names(), f"{where}: {', '.join(sorted(known - self.names()))} is missing")

    def baseline(self) -> set[str]:
        """Run without a fault; returns the names of everything that is there then."""
        done = self.once()
        assert done.returncode == 0, done.stderr
        return self.names()

    def status(self) -> dict[str, Any]:
        """The row of the token in the daemon's status; an empty one if no daemon answers."""
        with suppress(NoAnswer):
            tokens = ask_status(str(self.socket))[0]["tokens"]
            return dict(tokens[0]) if tokens else {}
        return {}

    def config_error(self) -> str | None:
        """Why the daemon does not use a newer config."""
        error: str | None = ask_status(str(self.socket))[0]["config"]["error"]
        return error

    def refresh(self) -> None:
        """Request a new token from the daemon."""
        status, _ = ask(str(self.socket), "/refresh/dnb/bci", "POST")
        assert status == 202, status


@contextmanager
def place(path: Path, lifetime: float = 3600.0, client: str = "timeout: 10s,", top: str = "") -> Iterator[Place]:
    """A place whose provider runs during the block."""
    provider = canaries(lifetime)
    with serving(provider) as server:
        yield Place(path, provider, server.url, client, top)


def canaries(lifetime: float = 3600.0) -> Provider:
    """A provider whose secret and tokens are canaries."""
    provider = Provider()
    provider.secret, provider.prefix, provider.lifetime = SECRET, TOKENS, lifetime
    return provider


@contextmanager
def started(
    here: Place,
    row: Row,
    before: Sequence[str | Path] = (),
    *,
    env: Mapping[str, str] | None = None,
    codes: Container[int] = (0,),
    **how: Any,
) -> Iterator[Daemon]:
    """Run the daemon until it has its first token. At the end of the block it stops, and its log is searched.

    `codes`: the exit codes after TERM that are right; `how`: more arguments of Popen.
    """
    process = subprocess.Popen(
        [*map(str, before), *command("run", "-c", here.config)],
        env={**os.environ, **(env or {})},
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        **how,
    )
    daemon = Daemon(process)
    try:
        eventually(lambda: process.poll() is not None or (here.fresh() and here.status()), _RUN_AT_MOST)
        assert process.poll() is None, f"the daemon ended: {process.returncode}"
        yield daemon
        if process.poll() is None:
            code = daemon.stop()
            row.expect(code in codes, f"TERM ended the daemon with {code}")
    finally:
        if process.poll() is None:
            process.kill()
        daemon.wait()
        row.output("\n".join(daemon.lines), "the daemon's log")
        if process.stderr:
            process.stderr.close()


@contextmanager
def kept(here: Place, row: Row, before: Sequence[str | Path] = (), **how: Any) -> Iterator[Daemon]:
    """A daemon that has its first token, and readers of both files."""
    with ExitStack() as stack:
        daemon = stack.enter_context(started(here, row, before, **how))
        stack.enter_context(followed(row, here.provider, here.files, row.fault))
        yield daemon


def recovers(here: Place, row: Row, grants: int, within: float = WITHIN) -> None:
    """The fault has just ended: wait until the files have a token newer than `grants`, and note how long it takes."""
    began = time.monotonic()
    try:
        eventually(lambda: here.newer(grants), within)
    except AssertionError:
        row.expect(False, f"no new token within {within:.0f} s of the end of the fault: {here.status()}")
    row.ran(time.monotonic() - began)
