"""The parts that the attacks share: a daemon with its config, ways to look at it, and the lines of the table."""

from __future__ import annotations

import itertools
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bearerd.cli.ask import NoAnswer, ask, ask_status
from support.kept import session_of
from support.process import Daemon, command
from support.provider import Provider
from support.server import Server, serving

HERE = Path(__file__).parent
NOBODY = 65534
MB = 1 << 20
MOST_GROWTH = 30 * MB
"""Bytes that a flood may cost, above an idle daemon's memory."""
_PORTS = itertools.count(9811)
"""The rig has a network of its own, so nothing else takes ports below the ephemeral ones."""
_ROOM = 5
"""Everything may take this many times as long as expected: the machine may be loaded."""


@dataclass(frozen=True, slots=True)
class Found:
    """One line of the table."""

    tried: str
    happened: str
    ok: bool


Attack = Callable[[Path], Iterator[Found]]


class Listener:
    """A server on loopback with a thread for each connection."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/token"
        threading.Thread(target=self._accept, daemon=True).start()

    def serve(self, connection: socket.socket) -> None:
        """Serve one connection. An OSError ends it."""
        raise NotImplementedError

    def stop(self) -> None:
        """Accept no more connections, and leave the present ones open."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:  # the listener is closed
                return
            threading.Thread(target=self._run, args=(connection,), daemon=True).start()

    def _run(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            self.serve(connection)


class Site:
    """A directory with a config, its secret, and the directory that the tokens go to."""

    def __init__(self, path: Path, url: str = "http://127.0.0.1:9/token") -> None:
        path.mkdir(mode=0o755, exist_ok=True)
        self.path, self.url, self.port = path, url, next(_PORTS)
        self.config, self.secret, self.tokens = path / "config.yaml", path / "secret", path / "t"
        self.socket, self.raw = self.tokens / ".bearerd/control.sock", self.tokens / "dnb/bci"
        self.secret.write_text("first")
        self.secret.chmod(0o600)

    def client(self, more: str = "", tokens: str = "{bci: {}}", url: str = "") -> str:
        """A client in one line of YAML."""
        return (
            f"{{token_url: '{url or self.url}', allow_http: true, client_id: 7e0c5a, "
            f"client_secret: {{file: {self.secret}}}, {more}tokens: {tokens}}}"
        )

    def write(self, *top: str, output: str = "", clients: Mapping[str, str] | None = None) -> Path:
        """The config, with these lines at its top; its path."""
        lines = [*top, f"output: {{directory: {self.tokens}{output}}}", "clients:"]
        lines += [f"  {name}: {text}" for name, text in (clients or {"dnb": self.client()}).items()]
        self.config.write_text("\n".join(lines) + "\n")
        return self.config

    def status(self) -> dict[str, Any]:
        """The daemon's status document; one without tokens if no daemon answers."""
        try:
            return ask_status(str(self.socket))[0]
        except NoAnswer:
            return {"tokens": [], "config": {"error": None}}

    def states(self) -> list[str]:
        """Each token's state; nothing where no daemon answers."""
        return [token["state"] for token in self.status()["tokens"]]

    def config_error(self) -> str | None:
        """The daemon's message about its new config."""
        error: str | None = self.status()["config"]["error"]
        return error

    def refresh(self, name: str = "dnb/bci") -> int:
        """Ask for a new token; the answer's status."""
        return ask(str(self.socket), f"/refresh/{name}", "POST")[0]


@contextmanager
def site_with_provider(path: Path, lifetime: float = 3600.0) -> Iterator[tuple[Site, Provider, Server]]:
    """A site and its provider, which runs during the block."""
    provider = Provider()
    provider.lifetime = lifetime
    with serving(provider) as server:
        yield Site(path, server.url), provider, server


@contextmanager
def started(
    *arguments: str | Path,
    before: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    user: int | None = None,
    umask: int = -1,
    cwd: Path | None = None,
) -> Iterator[Daemon]:
    """Run a verb in a session of its own; all processes of that session end with the block, each by its pid."""
    process = subprocess.Popen(
        [*before, *command(*arguments)],
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
        umask=umask,
        user=user,
        group=user,
        extra_groups=None if user is None else [],
        cwd=cwd or "/",
    )
    daemon = Daemon(process)
    try:
        yield daemon
    finally:
        for pid in still_running(process.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.kill()
        daemon.wait()
        if process.stderr:
            process.stderr.close()


def still_running(leader: int) -> list[int]:
    """The processes of a session that have not ended."""
    return [pid for pid, state in session_of(leader).items() if state != "Z"]


def happens(condition: Callable[[], object], within: float, until: float | None = None) -> bool:
    """Whether a condition becomes true within five times that many seconds, or until a moment."""
    end, pause = time.monotonic() + within * _ROOM if until is None else until, threading.Event()
    while not condition():
        if time.monotonic() > end:
            return False
        pause.wait(0.05)
    return True


def ends(daemon: Daemon, within: float) -> bool:
    """Whether a daemon ends within five times that many seconds."""
    try:
        daemon.wait(within * _ROOM)
    except subprocess.TimeoutExpired:
        return False
    return True


def log_of(daemon: Daemon) -> str:
    """All that a daemon that has ended wrote."""
    return "\n".join(daemon.lines)


def memory(pid: int, what: str = "VmHWM") -> int:
    """Bytes of a process: VmHWM is the most it had, VmRSS what it has; raises OSError where it is no more."""
    found = re.search(rf"^{what}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    if found is None:
        raise ProcessLookupError
    return int(found[1]) * 1024


def idle(pid: int) -> int:
    """Reset the peak of a process; returns the bytes that it uses now."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    return memory(pid, "VmRSS")


def growth(pid: int, before: int, still: Callable[[], bool]) -> int | None:
    """The most bytes above `before` that a process used while `still` holds; ends early when it is far too much.

    None if the process has ended.
    """
    most, pause = 0, threading.Event()
    with suppress(OSError):
        while still() and most < 4 * MOST_GROWTH:
            pause.wait(0.1)
            most = max(most, memory(pid) - before)
        return max(most, memory(pid) - before)
    return None


def grew(tried: str, bytes_more: int | None) -> Found:
    """The line of the table for this growth."""
    if bytes_more is None:
        return Found(tried, "the daemon was killed", ok=False)
    happened = f"VmHWM {bytes_more / MB:.1f} MB above idle"
    return Found(tried, happened, ok=bytes_more <= MOST_GROWTH)


@contextmanager
def attacker(
    script: str,
    *arguments: object,
    user: int = NOBODY,
    groups: Sequence[int] = (),
    env: Mapping[str, str] | None = None,
) -> Iterator[subprocess.Popen[str]]:
    """Run a script of this directory as another user, during the block. The user needs no access to the directory."""
    process = subprocess.Popen(
        [sys.executable, "-I", "-c", (HERE / f"{script}.py").read_text(), *map(str, arguments)],
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        user=user,
        group=user,
        extra_groups=groups,
        cwd="/",
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def other_users_cannot() -> str:
    """The reason why other users cannot run the program here, or an empty text."""
    python = [sys.executable, "-c", "import bearerd"]
    done = subprocess.run(
        python, user=NOBODY, group=NOBODY, extra_groups=[], cwd="/", stderr=subprocess.DEVNULL, check=False
    )
    return f"other users cannot run {sys.executable} and bearerd" if done.returncode else ""


def get(port: int, target: str, host: str, within: float = 5.0) -> int:
    """The status of an answer over TCP; 0 where none came in time."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=within) as connection:
            connection.sendall(f"GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            return int(connection.makefile("rb").readline().split()[1])
    except (OSError, IndexError, ValueError):
        return 0


def body(port: int, target: str) -> str:
    """All that is answered over TCP."""
    with socket.create_connection(("127.0.0.1", port), timeout=20.0) as connection:
        connection.sendall(f"GET {target} HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n".encode())
        return connection.makefile("rb").read().decode(errors="replace")


def writable(*roots: Path) -> list[str]:
    """The paths that group or others can write, except links and sockets (a socket has its configured mode)."""
    paths = [(root, path) for root in roots for path in (root, *root.rglob("*"))]
    return [
        f"{path.relative_to(root.parent)} {path.stat().st_mode & 0o7777:04o}"
        for root, path in paths
        if not path.is_symlink() and not path.is_socket() and path.stat().st_mode & 0o022
    ]
