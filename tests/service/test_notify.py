"""Notifications to systemd: the datagrams of a real daemon on a real socket, and decisions by a fake clock."""

from __future__ import annotations

import os
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bearerd.admission.types import View
from bearerd.api.counts import Counts
from bearerd.api.status import HookStatus, Status, settled, summary
from bearerd.errors import unexpected
from bearerd.grant.outcome import Malformed, Refused, Transient
from bearerd.model import Config
from bearerd.service import notify as module
from bearerd.service.notify import SystemdNotifier, watchdog
from bearerd.target_status import TargetStatus
from support.clock import START, FakeClock
from support.process import WITHIN, eventually, running
from support.server import Answer, serving
from support.targets import target

NOW = START.boot


class Manager:
    """The service manager's end of the socket."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.settimeout(WITHIN)
        self.socket.bind(address)
        self.lines: list[str] = []
        """All messages."""

    def wait_for(self, pattern: str) -> re.Match[str]:
        """The next line that matches, from its beginning to its end."""
        while True:
            for number, line in enumerate(self.lines):
                if match := re.fullmatch(pattern, line):
                    del self.lines[: number + 1]
                    return match
            self.lines = self.take()

    def take(self) -> list[str]:
        """The lines of the next message."""
        return self.socket.recv(65536).decode().split("\n")

    def rest(self) -> list[str]:
        """All lines that are here by now."""
        lines, self.lines = self.lines, []
        self.socket.setblocking(False)
        try:
            while True:
                lines += self.take()
        except BlockingIOError:
            return lines


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    with closing((manager := Manager(str(tmp_path / "notify"))).socket):
        yield manager


# -- a real daemon ---------------------------------------------------------------------------------


def write(path: Path, url: str, tokens: str = "{bci: {}}", top: str = "") -> Path:
    secret, config = path / "secret", path / "config.yaml"
    secret.write_text("s3cr3t")
    secret.chmod(0o600)
    config.write_text(
        f"output: {{directory: {path}/tokens}}\nreload: signal\n{top}\nclients:\n  dnb:\n    token_url: {url}\n"
        f"    allow_http: true\n    timeout: 10m\n    client_id: a\n    client_secret: {{file: {secret}}}\n"
        f"    tokens: {tokens}\n"
    )
    return config


def test_a_unit_is_ready_when_its_tokens_are_on_disk_and_told_of_each_step_until_the_end(
    tmp_path: Path, manager: Manager
) -> None:
    gate, token = threading.Event(), tmp_path / "tokens/dnb/bci"

    def answer(_: object) -> Answer:
        gate.wait(WITHIN)
        return Answer(200, {"access_token": "t0k3n", "expires_in": 3600})

    with serving(answer) as server:
        config = write(tmp_path, server.url)
        with running("run", "-c", config, env={"NOTIFY_SOCKET": str(tmp_path / "notify")}) as daemon:
            assert manager.take() == [
                "EXTEND_TIMEOUT_USEC=30000000",
                "STATUS=0 of 1 tokens are valid; starting: dnb/bci",
            ]
            # A reload before READY sends no message, and does not cause READY.
            daemon.process.send_signal(signal.SIGHUP)
            daemon.wait_for("config reloaded")
            gate.set()
            manager.wait_for("READY=1")
            assert token.read_text() == "t0k3n"
            manager.wait_for(r"STATUS=1 of 1 tokens are valid; the next to expire is dnb/bci, at \d{4}-.*T.*Z")

            before = time.monotonic_ns() // 1000
            write(tmp_path, server.url, "{bci: {}, other: {}}")
            daemon.process.send_signal(signal.SIGHUP)
            manager.wait_for("RELOADING=1")
            assert before <= int(manager.wait_for(r"MONOTONIC_USEC=(\d+)")[1]) <= time.monotonic_ns() // 1000
            manager.wait_for("READY=1")
            manager.wait_for("STATUS=2 of 2 tokens are valid; .*")

            config.write_text("clients: 5\n")
            daemon.process.send_signal(signal.SIGHUP)
            manager.wait_for("RELOADING=1")
            manager.wait_for("READY=1")
            manager.wait_for("STATUS=2 of 2 tokens are valid; .*; the new config was refused: see the log")

            assert daemon.stop() == 0
            assert manager.rest()[-1] == "STOPPING=1"
            assert not any("t0k3n" in line or "s3cr3t" in line for line in manager.lines)


def test_a_provider_that_is_down_keeps_a_unit_waiting_until_startup_timeout(tmp_path: Path, manager: Manager) -> None:
    with serving(lambda _: Answer(503, {})) as server:
        config = write(tmp_path, server.url, top="startup_timeout: 1s")
        began = time.monotonic()
        with running("run", "-c", config, env={"NOTIFY_SOCKET": str(tmp_path / "notify")}) as daemon:
            messages = manager.take()
            while "READY=1" not in messages:
                messages += manager.take()
            assert time.monotonic() - began >= 1
            while "STATUS=0 of 1 tokens are valid; missing: dnb/bci" not in messages:
                messages += manager.take()
            assert daemon.stop() == 0


def test_where_nobody_listens_it_is_said_once_and_the_tokens_are_kept_all_the_same(tmp_path: Path) -> None:
    with serving(lambda _: Answer(200, {"access_token": "t0k3n", "expires_in": 2})) as server:
        config = write(tmp_path, server.url)
        with running("run", "-c", config, env={"NOTIFY_SOCKET": str(tmp_path / "nobody")}) as daemon:
            eventually(lambda: len(server.seen) >= 3)
            assert daemon.stop() == 0
    (said,) = [line for line in daemon.lines if "systemd" in line]
    assert "WARNING systemd cannot be notified: $NOTIFY_SOCKET: no such file or directory" in said


# -- when: a clock by hand -------------------------------------------------------------------------


class Daemon:
    """A daemon in a given state."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.living, self.waiting = True, True

    def alive(self) -> bool:
        return self.living

    def unsettled(self) -> bool:
        return self.waiting

    def status(self) -> Status:
        return status_of()


@contextmanager
def telling(daemon: Daemon, address: str, **environ: str) -> Iterator[SystemdNotifier]:
    notify = SystemdNotifier(daemon, {"NOTIFY_SOCKET": address, **environ}, lambda: daemon.clock.boot, 100.0)
    notify.start()
    try:
        yield notify
    finally:
        notify.stopping()


def messages(manager: Manager) -> list[str]:
    """The next message, without the status line."""
    return [line for line in manager.take() if not line.startswith("STATUS=")]


def test_while_it_starts_the_manager_is_asked_for_more_time_every_ten_seconds(tmp_path: Path, manager: Manager) -> None:
    daemon = Daemon()
    with telling(daemon, str(tmp_path / "notify")) as notify:
        for _ in range(9):
            assert messages(manager) == ["EXTEND_TIMEOUT_USEC=30000000"]
            daemon.clock.advance(10)
            notify.wake()
        assert messages(manager) == ["EXTEND_TIMEOUT_USEC=30000000"]
        # At 100 s it is ready, whatever is missing; and after that nothing is asked for.
        daemon.clock.advance(10)
        notify.wake()
        assert messages(manager) == ["READY=1"]
    assert manager.rest() == ["STOPPING=1"]


def test_who_gives_no_turns_asks_for_no_time_and_does_not_beat(tmp_path: Path, manager: Manager) -> None:
    daemon = Daemon()
    daemon.living = False
    with telling(daemon, str(tmp_path / "notify"), WATCHDOG_USEC="300000") as notify:
        assert [line.split("=")[0] for line in manager.take()] == ["STATUS"]
        daemon.waiting = False
        notify.wake()
        assert messages(manager) == ["READY=1"]
        daemon.living = True
        notify.wake()
        assert messages(manager) == ["WATCHDOG=1"]


def test_the_watchdog_hears_three_beats_in_its_time(tmp_path: Path, manager: Manager) -> None:
    daemon = Daemon()
    daemon.waiting = False
    with telling(daemon, str(tmp_path / "notify"), WATCHDOG_USEC="60000000", WATCHDOG_PID=str(os.getpid())) as notify:
        assert messages(manager) == ["READY=1", "WATCHDOG=1"]
        daemon.clock.advance(19.9)
        notify.wake()
        daemon.clock.advance(0.1)
        notify.wake()
        assert messages(manager) == ["WATCHDOG=1"]
    assert manager.rest() == ["STOPPING=1"]


@pytest.mark.parametrize(
    ("lacking", "unexplained"),
    [
        pytest.param("alive", False, id="alive"),
        pytest.param("status", False, id="status"),
        pytest.param("alive", True, id="alive, and the first line of the log"),
    ],
)
def test_an_exception_costs_the_watchdog_nothing_and_is_logged_once(
    tmp_path: Path,
    manager: Manager,
    lacking: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    *,
    unexplained: bool,
) -> None:
    monkeypatch.setattr(module, "_LOOKS", 0.01)
    daemon, failures = Daemon(), threading.Semaphore(0)
    daemon.waiting = False

    def fail() -> None:
        failures.release()
        raise MemoryError

    def explain(_: Exception) -> str:
        monkeypatch.setattr(module, "unexpected", unexpected)
        raise MemoryError

    if unexplained:
        monkeypatch.setattr(module, "unexpected", explain)
    with telling(daemon, str(tmp_path / "notify"), WATCHDOG_USEC="60000000") as notify:
        assert messages(manager) == ["READY=1", "WATCHDOG=1"]
        with monkeypatch.context() as patch:
            patch.setattr(daemon, lacking, fail)
            for _ in range(2):
                daemon.clock.advance(20)
                notify.wake()
                assert failures.acquire(timeout=WITHIN)
                if lacking == "status":
                    assert manager.take() == ["WATCHDOG=1"]
        notify.wake()
        if lacking == "alive":
            assert messages(manager) == ["WATCHDOG=1"]
        daemon.clock.advance(20)
        notify.wake()
        assert messages(manager) == ["WATCHDOG=1"]
    (said,) = caplog.messages
    assert said.startswith("the status for systemd cannot be made: out of memory; raise the memory limit of bearerd")


@pytest.mark.parametrize("sending", [True, False], ids=["another message is being sent", "it is the only message"])
def test_a_manager_that_does_not_read_delays_no_stop(
    tmp_path: Path, manager: Manager, monkeypatch: pytest.MonkeyPatch, *, sending: bool
) -> None:
    monkeypatch.setattr(module, "_SENT_WITHIN", 2 * WITHIN)
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as other:
        other.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                other.sendto(b"X=1", str(tmp_path / "notify"))
    environ = {"NOTIFY_SOCKET": str(tmp_path / "notify")}
    notify = SystemdNotifier(daemon := Daemon(), environ, lambda: daemon.clock.boot, 100.0)
    if sending:
        notify.start()
        eventually(notify._lock.locked)
    stopping = threading.Thread(target=notify.stopping, daemon=True)
    stopping.start()
    stopping.join(WITHIN)
    assert not stopping.is_alive()
    assert "STOPPING=1" not in manager.rest()


def test_an_abstract_socket_is_told_too(manager: Manager) -> None:
    del manager
    name = f"bearerd-test-{os.getpid()}"
    with closing((abstract := Manager(f"\0{name}")).socket), telling(Daemon(), f"@{name}"):
        assert messages(abstract) == ["EXTEND_TIMEOUT_USEC=30000000"]


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({}, 0.0),
        ({"WATCHDOG_USEC": "60000000"}, 60.0),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": "7"}, 0.5),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": "8"}, 0.0),  # another process's, whose environment is ours
        ({"WATCHDOG_USEC": "soon"}, 0.0),
        ({"WATCHDOG_USEC": "-5"}, 0.0),
        ({"WATCHDOG_USEC": "9" * 400}, 0.0),
    ],
)
def test_the_watchdog_is_who_the_environment_says(environ: dict[str, str], seconds: float) -> None:
    assert watchdog(environ, 7) == seconds


# -- what: pure ------------------------------------------------------------------------------------


def target_status(
    name: str = "bci", *, left: float | None = 60.0, required: bool = True, **changes: Any
) -> TargetStatus:
    good = TargetStatus(
        target=target(name, required=required),
        obtained=None if left is None else NOW - 10,
        expires=None if left is None else NOW + left,
        on_disk=left is not None,
        failure=None,
        due=NOW,
        next_refresh=NOW + 30,
    )
    return replace(good, **changes)


def status_of(*statuses: TargetStatus, config_error: str | None = None) -> Status:
    return Status(
        version="1", pid=1, now=START, started=NOW, config=Config("/run/bearerd", "/var/lib/bearerd"), loaded=NOW,
        config_error=config_error, alive=True, tokens=tuple((each, HookStatus()) for each in statuses),
        counts=Counts(), admission=View({}, {}),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("how", "is_settled"),
    [
        pytest.param(target_status(), True, id="valid on disk"),
        pytest.param(target_status(failure=Transient("503")), True, id="valid on disk and failing"),
        pytest.param(target_status(left=None), False, id="on its way"),
        pytest.param(target_status(left=None, failure=Transient("503")), False, id="it passes by itself"),
        pytest.param(target_status(left=None, failure=Malformed("HTML")), False, id="malformed may pass"),
        pytest.param(target_status(left=None, failure=Refused("401")), True, id="refused"),
        pytest.param(target_status(left=None, required=False), True, id="not required"),
        pytest.param(target_status(left=0), False, id="expired"),
        pytest.param(target_status(on_disk=False), False, id="not in its files"),
    ],
)
def test_what_is_waited_for(how: TargetStatus, *, is_settled: bool) -> None:
    assert settled(how, NOW) is is_settled


@pytest.mark.parametrize(
    ("status", "said"),
    [
        pytest.param(status_of(), "0 of 0 tokens are valid", id="none"),
        pytest.param(
            status_of(target_status("a", left=90), target_status("b", left=60), target_status("c", left=0)),
            "2 of 3 tokens are valid; expired: dnb/c; the next to expire is dnb/b, at 2027-01-15T08:01:00Z",
            id="the next to expire is no expired one",
        ),
        pytest.param(
            status_of(target_status("a", failure=Transient("503")), target_status("b", left=None)),
            "1 of 2 tokens are valid; starting: dnb/b; failing: dnb/a; "
            "the next to expire is dnb/a, at 2027-01-15T08:01:00Z",
            id="failing is valid",
        ),
        pytest.param(
            status_of(*(target_status(name, left=None, failure=Transient("503")) for name in "abcde")),
            "0 of 5 tokens are valid; missing: dnb/a, dnb/b, dnb/c and 2 more",
            id="three names are enough",
        ),
        pytest.param(
            status_of(target_status(on_disk=False), config_error="line 1"),
            "0 of 1 tokens are valid; unwritten: dnb/bci; the next to expire is dnb/bci, at 2027-01-15T08:01:00Z; "
            "the new config was refused: see the log",
            id="not written, and a broken config",
        ),
    ],
)
def test_what_the_status_line_says(status: Status, said: str) -> None:
    assert summary(status) == said
