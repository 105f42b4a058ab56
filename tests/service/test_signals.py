"""Signals that come before there is anybody to take them, and an end that nothing may delay."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from bearerd.hooks import hooks
from bearerd.service import engine, logs, notify, signals
from support.process import WITHIN, command, eventually, running, stopping_at_once
from support.server import Answer, Seen, issues, serving

_EARLY = """
import os, queue, signal
from bearerd.service import signals
from bearerd.service.signals import hold_back, receive
signals._KILL_AFTER = 600
hold_back()
for number in (signal.SIGHUP, signal.SIGTERM):
    os.kill(os.getpid(), number)
taken = queue.SimpleQueue()
receive(taken.put)
assert taken.get(timeout=10) == signal.SIGTERM
assert taken.empty()
os.kill(os.getpid(), signal.SIGHUP)
print("the kernel would end it" if signal.alarm(0) else "it may hang")
"""


def test_an_early_signal_is_delivered_later() -> None:
    done = subprocess.run([sys.executable, "-c", _EARLY], capture_output=True, text=True, check=True)
    assert done.stdout == "the kernel would end it\n"


def test_a_stop_takes_less_than_5_s() -> None:
    # Turns and hooks have their time; the last message to systemd (a lock and a send), a hook that is being started and
    # the last lines of the log have theirs; and then the kernel ends it.
    needed = engine._STOP_WITHIN + 2 * notify._STOPPING_WITHIN + hooks.STARTS_WITHIN + logs._FLUSH_WITHIN
    assert needed < signals._KILL_AFTER < 5


_EVERY_SIGNAL = """
import os, signal, subprocess
from bearerd.service.signals import hold_back, receive
sent = [signal.SIGUSR1, signal.SIGUSR2, signal.SIGIO, signal.SIGPWR, signal.SIGRTMIN, signal.SIGRTMIN + 3,
        signal.SIGRTMAX]
def send():
    for number in sent:
        os.kill(os.getpid(), number)
# As a careless parent leaves it.
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2, signal.SIGTERM, signal.SIGRTMIN})
signal.signal(signal.SIGUSR1, signal.SIG_IGN)
hold_back()
send()
receive(print)
send()
taken = []
receive(print, others=taken.append)
send()
assert taken == sent, taken
# What a program that we start gets: nothing ignored, nothing blocked.
print(subprocess.run(["grep", "^Sig[BI]", "/proc/self/status"], capture_output=True, text=True, check=True).stdout)
"""


def test_signals_without_a_meaning_end_nothing_and_children_do_not_inherit_that() -> None:
    done = subprocess.run([sys.executable, "-c", _EVERY_SIGNAL], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["SigBlk:", "0" * 16, "SigIgn:", "0" * 16]


def test_usr1_is_ignored_and_logged_once(tmp_path: Path) -> None:
    with serving(issues()) as server:
        hook = f"grep ^Sig[BI] /proc/self/status > {tmp_path}/seen.new; mv {tmp_path}/seen.new {tmp_path}/seen"
        more = f"    on_change: [{{run: [/bin/sh, -c, '{hook}']}}]\n"
        with running("run", "-c", _configure(tmp_path, server.url, more=more)) as daemon:
            eventually((tmp_path / "seen").exists)
            for number in (signal.SIGUSR1, signal.SIGUSR1, signal.SIGRTMIN + 3, signal.SIGUSR1, signal.SIGUSR2):
                daemon.process.send_signal(number)
            daemon.wait_for("SIGUSR2 is ignored")
            assert daemon.stop() == 0
        assert len([line for line in daemon.lines if "SIGUSR1 is ignored" in line]) == 1
        assert any("SIGRTMIN+3 is ignored" in line for line in daemon.lines)
        assert (tmp_path / "seen").read_text().split() == ["SigBlk:", "0" * 16, "SigIgn:", "0" * 16]


def test_once_ignores_usr1(tmp_path: Path) -> None:
    asked, may_answer = threading.Event(), threading.Event()

    def script(_: Seen) -> Answer:
        asked.set()
        assert may_answer.wait(WITHIN)
        return Answer(200, {"access_token": "t", "expires_in": 3600})

    with serving(script) as server, running("once", "-c", _configure(tmp_path, server.url)) as once:
        assert asked.wait(WITHIN)
        once.process.send_signal(signal.SIGUSR1)
        may_answer.set()
        assert once.wait() == 0


def _configure(directory: Path, url: str, client_id: str = "x", more: str = "") -> Path:
    (directory / "secret").write_text("s3cr3t")
    (directory / "secret").chmod(0o600)
    (directory / "config.yaml").write_text(
        f"output: {{directory: {directory}/tokens}}\nlog: {{level: debug}}\nclients:\n  dnb:\n    token_url: {url}\n"
        f"    allow_http: true\n    client_id: {client_id}\n    client_secret: {{file: {directory}/secret}}\n"
        "    tokens: {bci: {}}\n" + more
    )
    return directory / "config.yaml"


def test_an_unread_log_delays_neither_refresh_nor_stop(tmp_path: Path) -> None:
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
        env = {**os.environ, **stopping_at_once(tmp_path)}
        process = subprocess.Popen(command("run", "-c", config), stderr=theirs, env=env)
        try:
            server.wait_for(3)
            process.send_signal(signal.SIGTERM)
            assert process.wait(WITHIN) == 0
        finally:
            process.kill()
            process.wait()
            os.close(ours)
            os.close(theirs)


def test_a_hanging_client_id_command_delays_neither_other_clients_nor_the_stop(tmp_path: Path) -> None:
    with serving(issues()) as server:
        more = (
            f"  hung:\n    token_url: {server.url}\n    allow_http: true\n    tokens: {{a: {{}}, b: {{}}}}\n"
            f"    client_id: {{command: [/bin/sleep, '600']}}\n    timeout: 10m\n"
            f"    client_secret: {{file: {tmp_path}/secret}}\n"
        )
        config = _configure(tmp_path, server.url, more=more)
        env = stopping_at_once(tmp_path, "import bearerd.secrets.command as c; c._TIMEOUT = 600.0")
        with running("run", "-c", config, env=env) as daemon:
            eventually((tmp_path / "tokens/dnb/bci").exists)
            assert daemon.stop() == 0


def test_a_signal_that_comes_while_a_change_is_handled_without_memory_ends_it(tmp_path: Path) -> None:
    lines = (
        "import os, signal",
        "from bearerd.service.run import _Daemon",
        "from bearerd.service.sources import Sources",
        "def fails(_): raise MemoryError",
        "def settle(daemon):\n    _Daemon._settle = once\n    os.kill(os.getpid(), signal.SIGTERM)\n    once(daemon)",
        "once, _Daemon._settle, Sources.clients_changed = _Daemon._settle, settle, fails",
    )
    with serving(issues()) as server:
        with running("run", "-c", _configure(tmp_path, server.url), env=stopping_at_once(tmp_path, *lines)) as daemon:
            assert daemon.wait() == 0
        assert any("out of memory" in line for line in daemon.lines)


@pytest.mark.parametrize("verb", ["run", "once"])
def test_a_command_that_reads_a_secret_does_not_outlive_the_process(tmp_path: Path, verb: str) -> None:
    pid = tmp_path / "pid"
    with serving(issues()) as server:
        config = _configure(tmp_path, server.url)
        script = f"echo $$ > {pid}.new; mv {pid}.new {pid}; exec sleep 600"
        command = f"{{command: [/bin/sh, -c, '{script}']}}"
        config.write_text(config.read_text().replace(f"{{file: {tmp_path}/secret}}", command))
        env = stopping_at_once(tmp_path, "import bearerd.secrets.command as c; c._TIMEOUT = 600.0")
        with running(verb, "-c", config, env=env) as daemon:
            eventually(pid.exists)
            assert daemon.stop() == (0 if verb == "run" else 1)
    # A zombie has no `exe`.
    eventually(lambda: not Path(f"/proc/{pid.read_text().strip()}/exe").exists())


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
