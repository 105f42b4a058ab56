"""Starts the provider, the real daemon and a reader, shows what happens, and prints a summary."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from bearerd.demo.provider import API_PATH, TOKEN_PATH, Provider, serve
from bearerd.demo.reader import Count
from bearerd.errors import BearerdError
from bearerd.reason import reason_of

_TICK: Final = 0.25  # seconds between two looks at the counters: as often as the table is drawn
_PLAIN_EACH: Final = 5.0  # seconds between lines without a terminal
_LONGEST_PLACE: Final = 107 - len("/bearerd-demo-12345678/tokens/.bearerd/control.sock")
_STOP_WITHIN: Final = 5.0  # the daemon's promise
_STARTS_WITHIN: Final = 60.0  # seconds until the first call; a laptop needs one, a loaded machine ten

_CONFIG: Final = """\
output: {{directory: {directory}/tokens}}
clients:
  demo:
    token_url: {url}{path}
    allow_http: true             # loopback only
    client_id: demo
    client_secret: {{file: {directory}/secret}}
    tokens:
      bci: {{scope: bci, files: [{{format: raw}}, {{format: json}}]}}
"""


@dataclass
class _Shown:
    """The data for the table."""

    count: Count = field(default_factory=Count)
    grants: int = 0
    seen: str = "waiting for the first"
    left: float | None = None
    began: float = field(default_factory=time.monotonic)


def demo(*, ttl: float, seconds: float | None) -> int:
    """Run for `seconds` after the reader's first call, or until Ctrl-C. Returns 1 if any call was refused or failed."""
    provider = Provider("demo", _SECRET, ttl)
    server = serve(provider)
    shown = _Shown()
    ends = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ends.set())
    try:
        with _temporary() as directory:
            url = f"http://127.0.0.1:{server.server_port}"
            with _daemon(directory, url), _reader(directory, url, shown):
                _watch(provider, directory, shown, ends, seconds)
    finally:
        server.shutdown()
        server.server_close()
    count = shown.count
    if count.faults:
        print(f"{count.faults} reads or calls failed for other reasons")
    if not count.calls:
        print("the reader made no call, because no token arrived")
    print(f"calls={count.calls} refused={count.refused} refreshes={count.refreshes}")
    return 1 if count.refused or count.faults or not count.calls else 0


def _temporary() -> tempfile.TemporaryDirectory[str]:
    try:
        return tempfile.TemporaryDirectory(prefix="bearerd-demo-", dir=_place())
    except OSError as error:
        raise BearerdError(
            f"the demo cannot create a temporary directory: {reason_of(error)}; set TMPDIR to a directory with a short "
            "path that this user can write, or mount one at /tmp"
        ) from None


def _place() -> str | None:
    """Where to create the directory: the path of its control socket may have 107 bytes (unix(7))."""
    return None if len(os.fsencode(tempfile.gettempdir())) <= _LONGEST_PLACE else "/tmp"  # noqa: S108 - of mode 0700


# With characters that need encoding in HTTP Basic.
_SECRET: Final = "q+7/Zz0=%"  # noqa: S105 - valid only for the demo's own provider


@contextmanager
def _daemon(directory: str, url: str) -> Iterator[None]:
    with open(os.open(f"{directory}/secret", os.O_WRONLY | os.O_CREAT, 0o600), "w", encoding="ascii") as file:
        file.write(_SECRET + "\n")
    with open(f"{directory}/config.yaml", "w", encoding="utf-8") as file:
        file.write(_CONFIG.format(directory=directory, url=url, path=TOKEN_PATH))
    print(f"provider  {url}{TOKEN_PATH}\nfile      {directory}/tokens/demo/bci\n", flush=True)
    # In its own process group, so that Ctrl-C reaches only the demo, which then ends the daemon as systemd would.
    process = subprocess.Popen(
        [sys.executable, "-m", "bearerd", "run", "-c", f"{directory}/config.yaml"],
        process_group=0,
        stderr=None if not sys.stdout.isatty() else subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(_STOP_WITHIN)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def _reader(directory: str, url: str, shown: _Shown) -> Iterator[None]:
    process = subprocess.Popen(
        [sys.executable, "-m", "bearerd.demo.reader", f"{directory}/tokens/demo/bci", url + API_PATH],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        process_group=0,
    )

    def follow() -> None:
        for line in process.stdout or ():
            shown.count = Count(*map(int, line.split()))

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        if process.stdin:
            process.stdin.close()
        process.wait(_STOP_WITHIN + 10)
        thread.join()
        if process.stdout:
            process.stdout.close()


def _watch(provider: Provider, directory: str, shown: _Shown, ends: threading.Event, seconds: float | None) -> None:
    terminal = sys.stdout.isatty()
    live: AbstractContextManager[Any] = nullcontext()
    if terminal:
        from rich.live import Live  # noqa: PLC0415 - needed only on a terminal

        live = Live(_table(shown), refresh_per_second=4)
    said = time.monotonic()
    end = shown.began + _STARTS_WITHIN
    called = False
    with live as table:
        while not ends.wait(_TICK):
            now = time.monotonic()
            if shown.count.calls and not called:
                called, end = True, now + (seconds or 0.0)
            if seconds is not None and now >= end:
                break
            shown.grants = provider.grants
            _look(directory, shown)
            if terminal:
                table.update(_table(shown))
            elif now - said >= _PLAIN_EACH:
                said = now
                print(_line(shown), flush=True)


def _look(directory: str, shown: _Shown) -> None:
    """Read the token's times from the json file, never the token."""
    try:
        with open(f"{directory}/tokens/demo/bci.json", encoding="utf-8") as file:
            document = json.load(file)
    except FileNotFoundError:
        return
    until = datetime.fromisoformat(document["expires_at"])
    shown.left = (until - datetime.now(UTC)).total_seconds()
    shown.seen = f"obtained {document['obtained_at'][11:19]}, expires {document['expires_at'][11:19]} UTC"


def _line(shown: _Shown) -> str:
    count = shown.count
    left = "-" if shown.left is None else f"{max(0.0, shown.left):.0f} s"
    return (
        f"{time.monotonic() - shown.began:5.0f} s  token left {left:>5}  grants {shown.grants}"
        f"  calls {count.calls}  refused {count.refused}  refreshes {count.refreshes}"
    )


def _table(shown: _Shown) -> Any:
    from rich.table import Table  # noqa: PLC0415 - needed only on a terminal

    table = Table(title="bearerd demo (Ctrl-C ends it)", show_header=False, min_width=56)
    count = shown.count
    refused = f"[{'bold red' if count.refused else 'green'}]{count.refused}"
    left = "" if shown.left is None else f" ({max(0.0, shown.left):.0f} s left)"
    for name, value in (
        ("running", f"{time.monotonic() - shown.began:.0f} s"),
        ("token", shown.seen + left),
        ("grants at the provider", str(shown.grants)),
        ("refreshes seen by the reader", str(count.refreshes)),
        ("calls by the reader", str(count.calls)),
        ("refused calls (401)", refused),
    ):
        table.add_row(name, value)
    return table
