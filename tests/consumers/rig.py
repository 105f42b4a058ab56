"""Runs consumers side by side against the demo's provider, with the real daemon in between, and counts.

What each is told is taken from docs/consumers.md; only hosts, ports and paths are made those of this run.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import yaml

from bearerd.demo.provider import TOKEN_PATH, Provider, serve
from consumers import page
from consumers.api import Api, guarding
from support.process import Daemon, bearerd, running

LIFETIME = 6.0
"""Seconds that a token says it lives. It is renewed at half of that."""
_SPARE = 30.0
"""How much longer it is good, so that a machine that pauses is no fault; who does not read again is refused then."""
REFRESHES = 5
"""How many each consumer is to see; three would do."""
WITHIN = 180.0
"""Seconds for all of it, on a slow machine: a bound, not a measure."""

HERE = Path(__file__).parent
PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
_PAUSE = 0.3  # seconds between two runs of what ends by itself
_ENDS_WITHIN = 60.0
_SECRET = "q+7/Zz0=%"
# Each token ends in all that may be in one, and in what these programs would put something else for.
_ODD = "".join(map(chr, range(0x21, 0x7F))) + "$dnb_bci_token${HOME}%[src]$(id)"


class _Provider(Provider):
    """The demo's provider, with tokens that are hard to quote, and good for longer than they say."""

    def __init__(self, lifetime: float, spare: float) -> None:
        super().__init__("7e0c5a", _SECRET, lifetime + spare)
        self._lifetime = lifetime

    def grant(self, authorization: str, form: dict[str, list[str]]) -> tuple[int, dict[str, Any]]:
        status, document = super().grant(authorization, form)
        if status == 200:
            document["access_token"] += _ODD
            document["expires_in"] = int(self._lifetime)
        return status, document

    def call(self, authorization: str) -> tuple[int, dict[str, Any]]:
        return super().call(authorization.removesuffix(_ODD) if authorization.endswith(_ODD) else "")


@dataclass(frozen=True)
class Consumer:
    """A program, where the page tells of it, and how it is started."""

    name: str
    section: str
    programs: tuple[str, ...]
    """What must be there to run it."""
    install: str
    start: Callable[[Place], None]
    hosts: tuple[str, ...] = ("api.example.com",)
    """Whom it calls, as the page has it; each is a line of the table."""

    def program(self) -> str | None:
        """Where its first program is; None where one of them is not installed."""
        found = [os.environ.get(f"BEARERD_{name.upper()}") or shutil.which(name, path=PATH) for name in self.programs]
        return found[0] if all(found) else None


@dataclass(frozen=True)
class Row:
    """What one consumer came to, at one host."""

    name: str
    requests: int = 0
    refreshes: int = 0
    refused: int = 0
    faults: tuple[str, ...] = ()
    missing: str = ""
    """How to install it, where it is not."""

    def good(self, refreshes: int = REFRESHES) -> bool:
        """Whether it went on through so many refreshes, and was never refused."""
        return not self.refused and not self.faults and self.refreshes >= refreshes


@dataclass
class Place:
    """A consumer's own corner of this run: a directory, the hosts that it calls, and what it started."""

    consumer: Consumer
    program: str
    directory: Path
    tokens: Path
    apis: Mapping[str, Api]
    changed: threading.Condition
    faults: list[str] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)
    _ends: ExitStack = field(default_factory=ExitStack)

    # -- what the page says --------------------------------------------------------------------

    def block(self, language: str, *swaps: tuple[str, str]) -> str:
        """What the page tells the program, for this run; `swaps` are what must be another here, and why is at each."""
        text = page.theirs(self.consumer.section, language)
        for old, new in swaps:
            assert old in text, f"{self.consumer.section}: the page has no {old!r}"
            text = text.replace(old, new)
        return self.here(text)

    def here(self, text: str) -> str:
        """A text with the hosts and paths of this run. There is no TLS on loopback."""
        for host, api in self.apis.items():
            text = text.replace(f"https://{host}", f"http://{api.place}")
            text = text.replace(f"address: {host}, port_value: 443", f"address: 127.0.0.1, port_value: {api.port}")
            text = text.replace(f"{host}:443", api.place).replace(host, api.place)
        text = re.sub(r"/run/([a-z]+\.pid)", rf"{self.directory}/\1", text)
        return text.replace("/run/bearerd", str(self.tokens)).replace("/etc/", f"{self.directory}/etc/")

    def write(self, name: str, text: str) -> Path:
        """A file of the consumer's."""
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    # -- what it runs --------------------------------------------------------------------------

    def start(self, *argv: str | Path) -> None:
        """A program that runs until the end of the run; that it ends before is a fault."""
        process = self._popen(argv, self.directory)
        watcher = threading.Thread(target=self._watch, args=(process,), daemon=True)
        watcher.start()

        def end() -> None:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(_ENDS_WITHIN)
            _kill(process)
            watcher.join()

        self._ends.callback(end)

    def repeat(self, script: str) -> None:
        """A script of sh again and again, each time in a new directory; a run that fails is a fault."""

        def run() -> None:
            while not self._over.is_set():
                with tempfile.TemporaryDirectory(dir=self.directory) as work:
                    process = self._popen(["sh", "-euc", script], Path(work))
                    try:
                        code = process.wait(_ENDS_WITHIN)
                    except subprocess.TimeoutExpired:
                        code = -1
                    _kill(process)
                if code:
                    self._fault(f"a run ended with {code}")
                self._over.wait(_PAUSE)

        self._thread(run)

    def call(self, listener: Path, path: str) -> None:
        """Requests again and again to a proxy at a Unix socket; what is not answered with 200 is a fault."""

        def run() -> None:
            end = time.monotonic() + _ENDS_WITHIN
            while not _listens(listener) and time.monotonic() < end:
                self._over.wait(0.05)
            while not self._over.is_set():
                try:
                    status = _ask(listener, path)
                except OSError as error:
                    status = str(error)
                if status != "200":
                    self._fault(f"the proxy answered: {status}")
                self._over.wait(_PAUSE)

        self._thread(run)

    def stop(self) -> None:
        """End all of it, by its pids."""
        self._over.set()
        self._ends.close()

    # -- what came of it -----------------------------------------------------------------------

    def settled(self, refreshes: int) -> bool:
        """Whether nothing is to be waited for."""
        return all(row.good(refreshes) or row.refused or row.faults for row in self.rows())

    def rows(self) -> Iterator[Row]:
        """A line for each host."""
        for host, api in self.apis.items():
            name = self.consumer.name if host == self.consumer.hosts[0] else f"{self.consumer.name} ({host})"
            count = api.count
            yield Row(name, count.accepted, count.refreshes, count.refused, tuple(dict.fromkeys(self.faults)))

    def log(self) -> str:
        """The end of what its programs said."""
        with suppress(FileNotFoundError):
            return (self.directory / "log").read_text(encoding="utf-8", errors="replace")[-2000:]
        return ""

    def _popen(self, argv: Sequence[str | Path], work: Path) -> subprocess.Popen[bytes]:
        variables = {"PATH": PATH, "HOME": str(self.directory), "LANG": "C.UTF-8", "GIT_TERMINAL_PROMPT": "0"}
        with (self.directory / "log").open("ab") as log:
            return subprocess.Popen(
                argv, cwd=work, env=variables, stdin=subprocess.DEVNULL, stdout=log, stderr=log, process_group=0
            )

    def _watch(self, process: subprocess.Popen[bytes]) -> None:
        code = process.wait()
        if not self._over.is_set():
            self._fault(f"it ended, with {code}")

    def _fault(self, text: str) -> None:
        with self.changed:
            self.faults.append(text)
            self.changed.notify_all()

    def _thread(self, run: Callable[[], None]) -> None:
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        self._ends.callback(thread.join)


def run(
    consumers: Sequence[Consumer],
    refreshes: int = REFRESHES,
    lifetime: float = LIFETIME,
    spare: float = _SPARE,
    within: float = WITHIN,
) -> tuple[list[Row], str]:
    """The rows of the table, and what was said where one of them is not good."""
    here = {consumer: program for consumer in consumers if (program := consumer.program())}
    if not here:
        return [Row(one.name, missing=one.install) for one in consumers], ""
    changed = threading.Condition()
    # Names of sockets are 107 bytes at most, and a proxy has one in a directory of its own.
    with ExitStack() as stack, tempfile.TemporaryDirectory(prefix="consumers-", dir="/tmp") as name:
        directory = Path(name)
        _repository(directory / "repositories")
        provider = _Provider(lifetime, spare)
        places = []
        for consumer, program in here.items():
            own = directory / consumer.name
            own.mkdir()
            apis = {
                host: stack.enter_context(guarding(provider, directory / "repositories", changed))
                for host in consumer.hosts
            }
            places.append(Place(consumer, program, own, directory / "tokens", apis, changed))
        with _keeping(directory, provider, places) as daemon:
            try:
                for place in places:
                    place.consumer.start(place)
                with changed:
                    changed.wait_for(lambda: all(place.settled(refreshes) for place in places), within)
            finally:
                for place in places:
                    place.stop()
            code = daemon.stop()
            assert code == 0, f"bearerd ended with {code}:\n" + "\n".join(daemon.lines)
        found = {place.consumer: list(place.rows()) for place in places}
        said = [
            f"-- {place.consumer.name}\n{place.log()}"
            for place in places
            if not all(row.good(refreshes) for row in found[place.consumer])
        ]
        if said:
            said.append("-- bearerd\n" + "\n".join(daemon.lines))
    rows = [found.get(one, [Row(one.name, missing=one.install)]) for one in consumers]
    return list(chain.from_iterable(rows)), "\n".join(said)


@contextmanager
def _keeping(directory: Path, provider: Provider, places: Sequence[Place]) -> Iterator[Daemon]:
    """The real daemon, with the page's config and what the page adds for each consumer; the first token is there."""
    server = serve(provider)
    secret = directory / "secret"
    secret.touch(0o600)
    secret.write_text(_SECRET)
    config = yaml.safe_load(page.config().replace("/etc/bearerd/dnb.secret", str(secret)))
    config["output"] = {"directory": str(directory / "tokens")}
    config["clients"]["dnb"] |= {"token_url": f"http://127.0.0.1:{server.server_port}{TOKEN_PATH}", "allow_http": True}
    for place in places:
        for key, entries in yaml.safe_load(place.here(page.fragment(place.consumer.section))).items():
            known = config.setdefault(key, [])
            known += [entry for entry in entries if entry not in known]
    (directory / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    try:
        with running("run", "-c", directory / "config.yaml") as daemon:
            health = bearerd("health", "-c", directory / "config.yaml", "--wait", "2m")
            if health.returncode:
                daemon.stop()
                raise AssertionError(f"no token: {health.stderr}" + "\n".join(daemon.lines))
            yield daemon
    finally:
        server.shutdown()
        server.server_close()


def _repository(root: Path) -> None:
    """A repository with one commit, at the path that the page clones from."""
    if shutil.which("git") is None:
        return
    path = root / "acme/companies.git"
    path.mkdir(parents=True)
    who = ["-c", "user.name=nobody", "-c", "user.email=nobody@example.com"]
    for argv in (["init", "-q", "-b", "main"], [*who, "commit", "-q", "--allow-empty", "-m", "companies"]):
        subprocess.run(["git", *argv], cwd=path, env={"PATH": PATH, "HOME": str(root)}, check=True)


def _listens(listener: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as line:
        return line.connect_ex(str(listener)) == 0


def _ask(listener: Path, path: str) -> str:
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(_ENDS_WITHIN)
        line.connect(str(listener))
        line.sendall(f"GET {path} HTTP/1.1\r\nHost: proxy\r\nConnection: close\r\n\r\n".encode())
        answer = line.makefile("rb").read()
    return " ".join(answer.decode("latin-1").split(None, 2)[1:2]) or "nothing"


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End what did not end by itself, with what it started."""
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
