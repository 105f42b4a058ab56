"""Everywhere that a secret could be seen from outside while a daemon runs: /proc, every exec, files, other users."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from canary.marks import Marks
from canary.site import ENVIRONMENT, TOKEN, Site
from support.process import WITHIN, command, eventually

_NOBODY: Final = 65534
_OTHERS: Final = frozenset({"redis-server", "tinyproxy", "microsocks", "strace"})
"""Programs that the rig starts beside the daemon, some with a password in their arguments."""
_MOST_MODE: Final = 0o640
"""Of a file that holds a token: `output.mode`. Records and temporaries have 0600."""
_SLOW: Final = 30_000
"""Microseconds by which each fsync is delayed, so that the temporary files of a write can be looked at."""
_SHOWN: Final = ("cmdline", "environ", "comm", "fd", "maps")
OWN_ENVIRONMENT: Final = "/proc/PID/environ of the daemon, for root alone"


@dataclass
class Running:
    """A bearerd whose output goes to a file."""

    process: subprocess.Popen[bytes]
    file: Path
    argv: list[str]

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    @property
    def output(self) -> bytes:
        """All that it wrote so far."""
        return self.file.read_bytes()

    def wait_for(self, text: str) -> None:
        """Wait until it wrote a text, or ended."""
        eventually(lambda: text.encode() in self.output or self.process.poll() is not None)

    def signal(self, number: int) -> int:
        """Send a signal, and wait for the end; returns the exit code."""
        if self.process.poll() is None:
            os.kill(self.pid, number)
        return self.process.wait(WITHIN)


@contextmanager
def running(
    directory: Path,
    *arguments: str | Path,
    environ: Mapping[str, str],
    python: Sequence[str] = (),
    before: Sequence[str] = (),
    journal: bool = False,
) -> Iterator[Running]:
    """Run a command during the block, with an environment that has nothing but what Python needs.

    python      options of the interpreter
    before      a program that runs it
    journal     whether its output looks like the journal
    """
    directory.mkdir(exist_ok=True)
    file = directory / f"output-{len(list(directory.iterdir()))}"
    argv = [sys.executable, *python, *command(*arguments)[1:]]
    inherited = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    with file.open("wb") as output:
        found = os.fstat(output.fileno())
        more = {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"} if journal else {}
        process = subprocess.Popen(
            [*before, *argv],
            env={**inherited, **more, **environ},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=directory,
            start_new_session=True,
        )
    try:
        yield Running(process, file, argv)
    finally:
        process.kill()
        process.wait()


def traced(log: Path) -> list[str]:
    """The program that runs another one, and notes the arguments and the environment of every exec below it."""
    calls = ["-e", "trace=execve,execveat,fsync", "-e", f"inject=fsync:delay_enter={_SLOW}"]
    return ["strace", "-D", "-f", "-qq", "-v", "-s", "65536", "--seccomp-bpf", *calls, "-o", str(log)]


def look_at_execs(marks: Marks, log: Path, argv: Sequence[str]) -> None:
    """All programs that were started, but for the daemon itself, which has its secrets in the environment."""
    lines = [line for line in log.read_bytes().splitlines() if b"exec" in line]
    own = [line for line in lines if all(f'"{part}"'.encode() in line for part in argv)][:1]
    others = [line for line in lines if line not in own]
    assert own, "strace did not see the daemon start"
    assert others, "strace saw no hook and no command of a secret"
    marks.look("every exec with its arguments and environment", *others, samples=len(others), unit="execs")


class Processes(threading.Thread):
    """Reads what /proc shows of every process but the rig's own, as fast as it can."""

    def __init__(self, pause: float = 0.001) -> None:
        super().__init__(daemon=True)
        self._pause = pause
        self.samples = 0
        self.own: set[bytes] = set()
        """The environment of processes with the command line of bearerd."""
        self.seen: dict[str, set[bytes]] = {what: set() for what in _SHOWN}
        self.commands: set[bytes] = set()
        self._done = threading.Event()

    def stop(self) -> None:
        """End it."""
        self._done.set()
        self.join()

    def run(self) -> None:
        while not self._done.is_set():
            for entry in filter(str.isdecimal, os.listdir("/proc")):
                if int(entry) != os.getpid():
                    with suppress(OSError, ValueError):
                        self._look_at(f"/proc/{entry}")
            self._done.wait(self._pause)

    def _look_at(self, at: str) -> None:
        comm, cmdline = _read(f"{at}/comm"), _read(f"{at}/cmdline")
        if comm.decode(errors="replace").strip() in _OTHERS or not cmdline:
            return
        environ, again = _read(f"{at}/environ"), _read(f"{at}/cmdline")
        self.samples += 1
        self.commands.add(cmdline)
        self.seen["cmdline"].add(cmdline)
        self.seen["comm"].add(comm)
        # A child has the memory of the daemon until it executes its program, and with that its environment.
        own = any(b"bearerd" in text and b"-m" in text for text in (cmdline, again)) or not again
        (self.own if own else self.seen["environ"]).add(environ)
        self.seen["maps"].add(b"\n".join({line[73:] for line in _read(f"{at}/maps").splitlines()}))
        for name in os.listdir(f"{at}/fd"):
            self.seen["fd"].add(os.readlink(f"{at}/fd/{name}").encode())

    def report(self, marks: Marks) -> None:
        """Search everything that was seen."""
        assert self.samples, "no process was seen"
        but = ", of other processes than bearerd" if self.own else ""
        for what, contents in self.seen.items():
            said = but if what == "environ" else ""
            marks.look(f"/proc/PID/{what} of every process{said}", *contents, samples=self.samples)
        marks.look(OWN_ENVIRONMENT, *self.own, but=[ENVIRONMENT], samples=self.samples)


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


class Files(threading.Thread):
    """Looks at every file below the directories of a daemon, again and again, also at temporary ones."""

    def __init__(self, site: Site, pause: float = 0.002) -> None:
        super().__init__(daemon=True)
        self._pause = pause
        self.samples = 0
        self.temporary = 0
        """How many temporary files were seen with a token in them."""
        self._site = site
        self._contents: dict[tuple[str, bytes], tuple[int, int]] = {}
        self._done = threading.Event()

    def stop(self) -> None:
        """End it."""
        self._done.set()
        self.join()

    def run(self) -> None:
        known: set[tuple[int, int, int]] = set()
        while not self._done.is_set():
            for directory, _, names in os.walk(self._site.path):
                if directory.startswith(str(self._site.secrets)):
                    continue
                for name in names:
                    with suppress(OSError):
                        self._look_at(Path(directory) / name, known)
            self._done.wait(self._pause)

    def _look_at(self, path: Path, known: set[tuple[int, int, int]]) -> None:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                return
            self.samples += 1
            key = (found.st_ino, found.st_mtime_ns, found.st_mode)
            if key in known:
                return
            known.add(key)
            content = os.read(descriptor, 1 << 20)
            self._contents[(str(path.relative_to(self._site.path)), content)] = (found.st_mode & 0o7777, found.st_uid)
        finally:
            os.close(descriptor)

    def report(self, marks: Marks, own: Sequence[str]) -> list[str]:
        """Search all contents; returns the files with a token whose mode or owner is wrong.

        Tokens belong in outputs and records; `own` are files of the rig itself.
        """
        assert self._contents, "no file was seen"
        wrong = []
        for (name, content), (mode, owner) in self._contents.items():
            if name.startswith(tuple(own)):
                continue
            holder = name.startswith("tokens/") and not name.startswith("tokens/.bearerd/")
            record = name.startswith("tokens/.bearerd/records/")
            held = marks.canary.search(name, content)
            if holder or record:
                tokens = [hit for hit in held if hit.kind == TOKEN]
                self.temporary += bool(tokens and Path(name).name.startswith("."))
                if tokens and (mode & ~(0o600 if record else _MOST_MODE) or owner != os.geteuid()):
                    wrong.append(f"{name}: mode {mode:04o}, user {owner}")
            allowed = [TOKEN] if holder or record else []
            where = "token files, records and their temporary files: anything but tokens"
            if not allowed:
                where = "all other files: state, ledger, notes, lock, sockets' directory"
            marks.look(where, content, but=allowed)
        return wrong


_SPY: Final = """
import os, socket, sys
root, port = sys.argv[1:]
def show(path):
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        sys.stdout.buffer.write(os.read(descriptor, 1 << 20) + b"\\n")
        os.close(descriptor)
    except OSError:
        pass
for pid in filter(str.isdecimal, os.listdir("/proc")):
    try:
        if open(f"/proc/{pid}/comm").read().strip() in %r or int(pid) == os.getpid():
            continue
    except OSError:
        continue
    for what in ("cmdline", "environ", "maps", "status", "stat", "comm", "wchan", "stack", "limits"):
        show(f"/proc/{pid}/{what}")
    try:
        for name in os.listdir(f"/proc/{pid}/fd"):
            show(f"/proc/{pid}/fd/{name}")
    except OSError:
        pass
for directory, _, names in os.walk(root):
    for name in names:
        path = os.path.join(directory, name)
        sys.stdout.write(path + "\\n")
        show(path)
def ask(family, address, path):
    try:
        with socket.socket(family) as connection:
            connection.settimeout(5)
            connection.connect(address)
            connection.sendall(f"GET {path} HTTP/1.0\\r\\nHost: 127.0.0.1\\r\\n\\r\\n".encode())
            while part := connection.recv(65536):
                sys.stdout.buffer.write(part)
    except OSError:
        pass
for path in ("/", "/metrics", "/livez", "/readyz", "/status", "/nothing"):
    ask(socket.AF_INET, ("127.0.0.1", int(port)), path)
    ask(socket.AF_UNIX, root + "/tokens/.bearerd/control.sock", path)
"""


def look_as_another_user(site: Site) -> None:
    """What a user without any rights reads of processes, files and sockets; tests that they see no token either."""
    argv = [sys.executable, "-I", "-c", _SPY % (sorted(_OTHERS),), str(site.path), str(site.listen)]
    done = subprocess.run(
        argv, user=_NOBODY, group=_NOBODY, extra_groups=[], cwd="/", capture_output=True, check=True, timeout=WITHIN
    )
    assert b"bearerd_token_" in done.stdout, "the other user did not see the metrics"
    # The rig's own config and scripts are as readable as it made them; they hold no secret but one in a text.
    site.marks.look("all that another user can read: /proc, files, sockets, TCP", done.stdout)
