"""What the measures share: the Go programs, servers, daemons, and figures from /proc."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple
from urllib.request import ProxyHandler, build_opener

import trustme

_GO = Path(__file__).parent / "go"
# Debian's golang-golang-x-oauth2-dev puts its sources there.
_GO_ENVIRONMENT = {"GO111MODULE": "off", "GOPATH": "/usr/share/gocode", "GOFLAGS": ""}
_LONGEST = 600.0


def why_not() -> str:
    """Why the Go programs cannot be built; empty if they can."""
    if shutil.which("go") is None:
        return "no go: install golang-go"
    if not Path("/usr/share/gocode/src/golang.org/x/oauth2").is_dir():
        return "no x/oauth2: install golang-golang-x-oauth2-dev"
    return ""


class Cost(NamedTuple):
    """Seconds."""

    wall: float
    cpu: float


class Programs:
    """The Go programs, built into a directory."""

    def __init__(self, directory: Path) -> None:
        self.server, self.peer = directory / "server", directory / "peer"
        environ = os.environ | _GO_ENVIRONMENT | {"GOCACHE": str(directory / "cache")}
        for program in (self.server, self.peer):
            subprocess.run(["go", "build", "-o", program, f"./{program.name}"], cwd=_GO, env=environ, check=True)


class Server:
    """The Go server: a fixed reply after some latency, plain or over TLS."""

    def __init__(self, url: str, ca_file: Path | None) -> None:
        self.url, self.ca_file = url, ca_file

    def grants(self) -> int:
        """How many tokens it issued; plain HTTP only."""
        # Without a proxy: environment variables name one on some machines.
        with build_opener(ProxyHandler({})).open(self.url, timeout=10) as reply:
            return int(reply.read())


@contextmanager
def serving(
    programs: Programs, latency: float = 0.0, lifetime: int = 3600, directory: Path | None = None
) -> Iterator[Server]:
    """The server, for as long as the block lasts; over TLS if there is a directory for its certificate."""
    argv = [str(programs.server), f"{latency * 1000:.0f}ms", str(lifetime)]
    ca_file = None
    if directory is not None:
        ca = trustme.CA()
        issued = ca.issue_cert("127.0.0.1")
        ca_file, certificate, key = directory / "ca.pem", directory / "cert.pem", directory / "key.pem"
        ca.cert_pem.write_to_path(ca_file)
        issued.cert_chain_pems[0].write_to_path(certificate)
        issued.private_key_pem.write_to_path(key)
        argv += [str(certificate), str(key)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            scheme = "http" if ca_file is None else "https"
            yield Server(f"{scheme}://127.0.0.1:{int(process.stdout.readline())}/", ca_file)
        finally:
            process.stdin.close()


def peer(programs: Programs, server: Server, clients: int, tokens: int, concurrency: int) -> Cost:
    """What the same work costs x/oauth2: a token for each of `tokens` scopes of each client, in files on tmpfs."""
    with scratch() as directory:
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        argv = [str(programs.peer), server.url, str(directory), *map(str, (clients, tokens, concurrency))]
        subprocess.run([*argv, *([str(server.ca_file)] if server.ca_file else [])], check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert files(directory) == clients * tokens
    return Cost(time.monotonic() - began, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def config(
    directory: Path, server: Server, clients: int, tokens: int, *, concurrency: int = 8, extra: str = ""
) -> Path:
    """A config of so many clients, each with so many tokens; `extra` is for the end of its top level."""
    (directory / "secret").write_text("s")
    (directory / "secret").chmod(0o600)
    provider = f"token_url: '{server.url}', max_concurrency: {concurrency}"
    provider += f", ca_file: {server.ca_file}" if server.ca_file else ", allow_http: true"
    lines = [f"output: {{directory: {directory}/tokens}}", "log: {level: warning}"]
    lines += ["providers:", f"  p: {{{provider}}}", "clients:"]
    for client in range(clients):
        names = ", ".join(f"t{number}: {{scope: t{number}}}" for number in range(tokens))
        lines.append(
            f"  c{client}: {{provider: p, client_id: x, client_secret: {{file: {directory}/secret}}, "
            f"tokens: {{{names}}}}}"
        )
    path = directory / "config.yaml"
    path.write_text("\n".join([*lines, extra, ""]))
    return path


class Daemon:
    """A running `bearerd run`."""

    def __init__(self, pid: int, directory: Path) -> None:
        self.pid, self.directory = pid, directory
        self.began = time.monotonic()

    def cpu(self) -> float:
        """CPU seconds so far, of all threads."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory(self, key: str = "VmRSS") -> float:
        """A figure of /proc/PID/status, in MB."""
        found = re.search(rf"^{key}:\s+(\d+) kB", Path(f"/proc/{self.pid}/status").read_text(), re.MULTILINE)
        return int(found[1]) / 1024 if found else 0.0

    def switches(self) -> int:
        """How often its threads gave up the processor to wait."""
        texts = []
        for task in Path(f"/proc/{self.pid}/task").iterdir():
            with suppress(FileNotFoundError, ProcessLookupError):  # a thread that ended meanwhile
                texts.append((task / "status").read_text())
        return sum(map(int, re.findall(r"^voluntary_ctxt_switches:\s+(\d+)", "\n".join(texts), re.MULTILINE)))

    def wait_for_files(self, count: int, each: float = 0.05) -> None:
        """Until so many tokens are there."""
        until(lambda: files(self.directory / "tokens") >= count, each)

    def get(self, path: str) -> bytes:
        """The body of a reply over the control socket."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
            line.connect(str(self.directory / "tokens/.bearerd/control.sock"))
            line.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
            return b"".join(iter(lambda: line.recv(1 << 20), b"")).partition(b"\r\n\r\n")[2]

    def status(self) -> dict[str, Any]:
        """`GET /status`."""
        document: dict[str, Any] = json.loads(self.get("/status"))
        return document


@contextmanager
def running(path: Path) -> Iterator[Daemon]:
    """`bearerd run` with a config, for as long as the block lasts."""
    with subprocess.Popen([sys.executable, "-m", "bearerd", "run", "-c", path]) as process:
        try:
            yield Daemon(process.pid, path.parent)
        finally:
            process.terminate()


@contextmanager
def scratch() -> Iterator[Path]:
    """A directory on tmpfs."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        yield Path(name)


def files(directory: Path) -> int:
    """How many tokens are in a directory."""
    return sum(len(names) for root, _, names in os.walk(directory) if ".bearerd" not in root)


def until(true: Callable[[], bool], each: float) -> None:
    """Wait for something that has no event, looking every so many seconds."""
    pause, end = threading.Event(), time.monotonic() + _LONGEST
    while True:
        with suppress(FileNotFoundError):
            if true():
                return
        if time.monotonic() > end:
            raise TimeoutError
        pause.wait(each)


def python_start(runs: int = 5) -> float:
    """Seconds of `python -c pass`, the shortest of a few."""
    took = []
    for _ in range(runs):
        began = time.monotonic()
        subprocess.run([sys.executable, "-c", "pass"], check=True)
        took.append(time.monotonic() - began)
    return min(took)
