"""Signals that come before there is anybody to take them, and an end that nothing may delay."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from support.process import command, eventually, running
from support.server import Answer, issues, serving

_EARLY = """
import os, queue, signal
from bearerd.service.signals import hold_back, receive
hold_back()
for number in (signal.SIGHUP, signal.SIGTERM):
    os.kill(os.getpid(), number)
taken = queue.SimpleQueue()
receive(taken.put)
assert taken.get(timeout=10) == signal.SIGTERM
assert taken.empty()
os.kill(os.getpid(), signal.SIGHUP)
print("alive", signal.alarm(0))
"""


def test_a_signal_that_came_early_is_taken_when_there_is_somebody_to_take_it() -> None:
    done = subprocess.run([sys.executable, "-c", _EARLY], capture_output=True, text=True, check=True)
    assert done.stdout in {"alive 4\n", "alive 3\n"}  # and the kernel would have ended it


def _configure(directory: Path, url: str, client_id: str = "x", more: str = "") -> Path:
    (directory / "secret").write_text("s3cr3t")
    (directory / "secret").chmod(0o600)
    (directory / "config.yaml").write_text(
        f"output: {{directory: {directory}/tokens}}\nlog: {{level: debug}}\nclients:\n  dnb:\n    token_url: {url}\n"
        f"    allow_http: true\n    client_id: {client_id}\n    client_secret: {{file: {directory}/secret}}\n"
        "    tokens: {bci: {}}\n" + more
    )
    return directory / "config.yaml"


def test_a_log_that_nobody_reads_stops_no_refresh_and_no_end(tmp_path: Path) -> None:
    with serving(issues(lifetime=1)) as server:
        config = _configure(tmp_path, server.url)
        ours, theirs = os.pipe()
        os.set_blocking(theirs, False)
        while True:  # full before the first line
            try:
                os.write(theirs, b"x" * 4096)
            except BlockingIOError:
                break
        os.set_blocking(theirs, True)
        process = subprocess.Popen(command("run", "-c", config), stderr=theirs)
        try:
            server.wait_for(3)
            process.send_signal(signal.SIGTERM)
            assert process.wait(5) == 0
        finally:
            process.kill()
            process.wait()
            os.close(ours)
            os.close(theirs)


def test_a_client_id_whose_command_hangs_holds_up_nobody_else_and_no_end(tmp_path: Path) -> None:
    with serving(issues()) as server:
        more = (
            f"  hung:\n    token_url: {server.url}\n    allow_http: true\n    tokens: {{a: {{}}, b: {{}}}}\n"
            f"    client_id: {{command: [/bin/sleep, '60']}}\n    timeout: 9s\n"
            f"    client_secret: {{file: {tmp_path}/secret}}\n"
        )
        config = _configure(tmp_path, server.url, more=more)
        with running("run", "-c", config) as daemon:
            eventually((tmp_path / "tokens/dnb/bci").exists)
            assert daemon.stop(within=5) == 0


def test_files_and_directories_have_their_modes_under_any_umask_of_the_caller(tmp_path: Path) -> None:
    with serving(lambda _: Answer(200, {"access_token": "t", "expires_in": 60})) as server:
        config = _configure(tmp_path, server.url)
        subprocess.run(command("once", "-c", config), umask=0o077, check=True, capture_output=True)
    modes = {
        str(path.relative_to(tmp_path)): oct(path.stat().st_mode & 0o7777) for path in (tmp_path / "tokens").rglob("*")
    }
    assert modes == {
        "tokens/dnb": "0o750",
        "tokens/dnb/bci": "0o640",
        "tokens/.bearerd": "0o750",
        "tokens/.bearerd/key": "0o600",
        "tokens/.bearerd/ledger": "0o600",
        "tokens/.bearerd/lock": "0o600",
        "tokens/.bearerd/records": "0o700",
        "tokens/.bearerd/records/dnb": "0o700",
        "tokens/.bearerd/records/dnb/bci.json": "0o600",
    }
