"""What is broken, and what a reader saw of it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import count, product
from pathlib import Path

from bearerd.cli.ask import NoAnswer, ask_status
from support.process import Daemon, bearerd, command, eventually, running
from support.provider import Provider
from support.reader import Reader
from support.server import Server, serving

# All that changes a file, as Python asks for it.
_CALLS = ("mkdirat", "fchmod", "write", "fsync", "renameat", "unlinkat")
_ERRORS = (
    ("fsync", "EIO"),
    ("fsync", "ENOSPC"),
    ("renameat", "ENOSPC"),
    ("renameat", "EROFS"),
    ("fchmod", "EPERM"),
    ("write", "ENOSPC"),
    ("mkdirat", "EDQUOT"),
)
_STEPS = {"2 h ahead": "+2h", "2 h back": "-2h", "a day back": "-1d", "in 1970": "@1970-01-01 00:10:00"}


class Place:
    """A config with one token in two files and a hook, and the provider that it asks."""

    def __init__(self, path: Path, server: Server, provider: Provider, more: str = "") -> None:
        self.path, self.provider, self.server = path, provider, server
        self.config, self.tokens = path / "config.yaml", path / "t"
        self.raw, self.json = self.tokens / "dnb/bci", self.tokens / "dnb/bci.json"
        (path / "secret").write_text("first")
        (path / "secret").chmod(0o600)
        self.config.write_text(
            f"output: {{directory: {self.tokens}}}\nclients:\n  dnb:\n    token_url: {server.url}\n"
            f"    allow_http: true\n    timeout: 2s\n    client_id: 7e0c5a\n"
            f"    client_secret: {{file: {path}/secret}}\n"
            "    tokens: {bci: {files: [{format: raw}, {format: json}], on_change: [{run: [/bin/true]}]}}\n"
            f"{more}"
        )

    def once(self, *strace: str) -> subprocess.CompletedProcess[str]:
        """A renewal, under strace if that has arguments."""
        arguments = ["once", "-c", str(self.config), "--min-valid", "2h", "--timeout", "20s", "--hooks"]
        if not strace:
            return bearerd(*arguments)
        argv = ["strace", "-f", "-qq", *strace, *command(*arguments)]
        return subprocess.run(argv, capture_output=True, text=True, timeout=300, check=False)

    def injected(self, call: str, number: int, what: str) -> subprocess.CompletedProcess[str] | None:
        """A renewal with this done to a call, the so-manieth of a thread; None where there are not so many."""
        trace = self.path / "trace"
        done = self.once("-o", str(trace), "-e", f"trace={call}", "-e", f"inject={call}:{what}:when={number}")
        hit = done.returncode == -signal.SIGKILL or "(INJECTED)" in trace.read_text()
        return done if hit else None

    def begin(self, *, first: bool) -> str | None:
        """Before the first token, or after one, which is what a reader has then."""
        if first:
            shutil.rmtree(self.tokens, ignore_errors=True)
            return None
        if not self.raw.exists():
            self.mended()
        return self.look(f"t-{self.provider.grants}")

    def look(self, before: str | None) -> str | None:
        """What a reader has: the token from before or a newer one, whole, in both files."""
        found = {file.name: file.read_text() for file in (self.raw, self.json) if file.exists()}
        if before is not None:
            assert len(found) == 2, f"a file is missing: {sorted(found)}"
        tokens = {json.loads(text)["access_token"] if name.endswith(".json") else text for name, text in found.items()}
        assert tokens <= {before, f"t-{self.provider.grants}"}, tokens
        return found.get(self.raw.name)

    def mended(self) -> None:
        """The next run finds all well, and leaves nothing of the last behind."""
        done = self.once()
        assert done.returncode == 0, done.stderr
        self.look(f"t-{self.provider.grants}")
        left = [str(path) for path in self.tokens.rglob(".bearerd-*.tmp")]
        assert left == [], left


@contextmanager
def place(path: Path, lifetime: float = 3600.0, more: str = "") -> Iterator[Place]:
    """With its provider, for the length of a with block."""
    provider = Provider()
    provider.lifetime = lifetime
    with serving(provider) as server:
        yield Place(path, server, provider, more)


@contextmanager
def kept(here: Place, before: Sequence[str] = (), env: Mapping[str, str] | None = None) -> Iterator[Reader]:
    """A daemon that has its first token, and a reader of it."""
    with ExitStack() as stack:
        if before:
            argv = [*before, *command("run", "-c", here.config)]
            process = subprocess.Popen(argv, env={**os.environ, **(env or {})}, stderr=subprocess.PIPE, text=True)
            daemon = Daemon(process)
            stack.callback(daemon.wait)
            stack.callback(process.kill)
        else:
            daemon = stack.enter_context(running("run", "-c", here.config, env=env))
        eventually(lambda: here.json.exists() and _answers(here))
        yield Reader(here.raw, here.provider.takes)
        assert daemon.stop() == 0, daemon.lines


# -- once, at each call ------------------------------------------------------------------------------


def killed(path: Path) -> str:
    """By the kernel, at each call that changes a file: at the first token, and at a renewal."""
    ends: Counter[str] = Counter()
    with place(path) as here:
        for first, call in product((True, False), _CALLS):
            for number in count(1):
                before = here.begin(first=first)
                done = here.injected(call, number, "signal=SIGKILL")
                if done is None:
                    break
                assert done.returncode == -signal.SIGKILL, done.stderr
                after = here.look(before)
                ends["none" if after is None else "old" if after == before else "new"] += 1
                here.mended()
    assert min(ends[end] for end in ("none", "old", "new")) > 0, ends
    return f"kill -9 at {ends.total()} calls: {ends['none']} none yet, {ends['old']} old, {ends['new']} new, 0 bad"


def failing(path: Path) -> str:
    """Each of these calls with an error, once."""
    codes: Counter[int] = Counter()
    with place(path) as here:
        for call, error in _ERRORS:
            for number in count(1):
                before = here.begin(first=call == "mkdirat")
                done = here.injected(call, number, f"error={error}")
                if done is None:
                    break
                assert done.returncode in {0, 1}, done.stderr
                assert "Traceback" not in done.stderr, done.stderr
                codes[done.returncode] += 1
                here.look(before)
                here.mended()
    again, reported = codes[0], codes[1]
    assert min(again, reported) > 0, codes
    return (
        f"{again + reported} errors: {again} retried in the run, {reported} reported by exit 1, none bad or left over"
    )


# -- run, under a reader -----------------------------------------------------------------------------


def disk(path: Path) -> str:
    """Full when a renewal is due, and free again before the expiry."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", path], check=True)
    try:
        with place(path, lifetime=16.0) as here, kept(here) as reader:
            grants = here.provider.grants
            with reader.reading():
                with (path / "filler").open("wb", buffering=0) as filler:
                    try:
                        while filler.write(b"x" * 4096):
                            pass
                    except OSError as error:
                        full = error.strerror
                eventually(lambda: here.provider.grants > grants)
                eventually(lambda: "no space left" in str(_status(here)["file_errors"]))
                (path / "filler").unlink()
                eventually(lambda: here.raw.read_text() == f"t-{here.provider.grants}")
            return f"{full} at a renewal, then free: no reader saw a bad file in {reader.reads} reads"
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)


def network(path: Path) -> str:
    """Packets swallowed, then connections reset, when a renewal is due."""
    subprocess.run(["nft", "add", "table", "inet", "t"], check=True)
    subprocess.run(["nft", "add", "chain", "inet", "t", "c", "{ type filter hook input priority 0; }"], check=True)
    said = []
    with place(path, lifetime=12.0) as here, kept(here) as reader:
        for verdict, words in (("drop", "no answer"), ("reject with tcp reset", "reset")):
            rule = ["nft", "add", "rule", "inet", "t", "c", "tcp", "dport", str(here.server.port), *verdict.split()]
            grants = here.provider.grants
            with reader.reading():
                subprocess.run(rule, check=True)
                eventually(lambda: _status(here)["last_error"] is not None)
                error = str(_status(here)["last_error"])
                subprocess.run(["nft", "flush", "chain", "inet", "t", "c"], check=True)
                eventually(lambda grants=grants: here.provider.grants > grants)
                eventually(lambda: _status(here)["last_error"] is None)
            said.append(f"{words} ({error})")
        return f"{', then '.join(said)}: no reader saw an expired token in {reader.reads} reads"


def descriptors(path: Path) -> str:
    """Few, and all of them taken by who asks and says nothing."""
    with place(path, lifetime=4.0) as here, kept(here, ["prlimit", "--nofile=32"]) as reader, ExitStack() as stack:
        grants = here.provider.grants
        with reader.reading():
            for _ in range(100):
                caller = stack.enter_context(socket.socket(socket.AF_UNIX))
                caller.setblocking(False)
                try:
                    caller.connect(str(here.tokens / ".bearerd/control.sock"))
                except BlockingIOError:
                    break
            eventually(lambda: here.provider.grants >= grants + 3)
        return f"32 in all, and who is silent at the socket: three renewals, {reader.reads} reads"


def clocks(path: Path) -> str:
    """Set while it runs, in four ways at once."""
    with ThreadPoolExecutor(len(_STEPS)) as pool:
        found = list(pool.map(lambda step: _clock(path, *step), enumerate(_STEPS.values())))
    reads, most = sum(reads for reads, _ in found), max(grants for _, grants in found)
    return f"set {', '.join(_STEPS)}: no reader saw an expired token in {reads} reads; {most} grants at most for each"


def _clock(path: Path, number: int, step: str) -> tuple[int, int]:
    """One of them: a token of 24 s is renewed at 12 s, whatever a clock says. Reads, and grants."""
    (path / str(number)).mkdir()
    shown = path / f"{number}/clock"
    shown.write_text("+0\n")
    env = {
        "LD_PRELOAD": os.environ["BEARERD_FAKETIME"],
        "FAKETIME_TIMESTAMP_FILE": str(shown),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    with place(path / str(number), lifetime=24.0) as here, kept(here, env=env) as reader:
        began, pause = time.monotonic(), threading.Event()
        with reader.reading():
            pause.wait(2.0)
            shown.with_suffix(".new").write_text(f"{step}\n")
            shown.with_suffix(".new").rename(shown)
            pause.wait(max(0.0, began + 40.0 - time.monotonic()))
        wall = json.loads(here.json.read_text())["expires_at"]
        assert (wall[:4] == "1970") == (step[0] == "@"), wall
        return reader.reads, here.provider.grants


def _answers(here: Place) -> bool:
    """Whether the daemon answers already: the first token may be there before the control socket is."""
    try:
        _status(here)
    except NoAnswer:
        return False
    return True


def _status(here: Place) -> dict[str, object]:
    """How the token stands, from the daemon."""
    [token] = ask_status(str(here.tokens / ".bearerd/control.sock"))[0]["tokens"]
    return dict(token)
