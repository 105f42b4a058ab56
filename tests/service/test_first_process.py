"""The daemon as process 1 of a container: signals that the kernel would drop, and orphaned children."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.api import Site
from support.process import WITHIN, Daemon, command, eventually, patched, quick_stop
from support.server import Answer, Seen, Server, issues, serving

_ALONE = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]


def _why_not() -> str | None:
    if shutil.which("unshare") is None:
        return "unshare is not here: apt-get install util-linux"
    tried = subprocess.run([*_ALONE, "true"], capture_output=True, text=True, check=False)
    return f"no pid namespace can be made: {tried.stderr.strip()}" if tried.returncode else None


WHY_NOT = _why_not()
pytestmark = pytest.mark.skipif(WHY_NOT is not None, reason=WHY_NOT or "")


@pytest.fixture
def server() -> Iterator[Server]:
    with serving(issues()) as server:
        yield server


@pytest.fixture
def restless(tmp_path: Path) -> dict[str, str]:
    """What has a daemon look around five times a second, and wait for nothing between a hook's attempts."""
    return patched(
        tmp_path,
        {"bearerd.lifecycle.schedule.CHECK_CLOCKS_EVERY": 0.2},
        "from bearerd.publish.hooks import Hooks",
        "Hooks.__init__.__defaults__ = (*Hooks.__init__.__defaults__[:-1], (0.0, 0.0, 0.0))",
    )


class First(Daemon):
    """A `bearerd run` that is process 1 of a namespace; signals go to it, from outside as a runtime sends them."""

    @property
    def pid(self) -> int:
        """Its number out here."""
        eventually(self._children)
        return self._children()[0]

    def _children(self) -> list[int]:
        unshare = self.process.pid
        return [int(word) for word in Path(f"/proc/{unshare}/task/{unshare}/children").read_text().split()]

    def stop(self, number: int = signal.SIGTERM, within: float = WITHIN) -> int:
        os.kill(self.pid, number)
        return self.wait(within)


@contextmanager
def first(site: Site, env: Mapping[str, str] | None = None) -> Iterator[First]:
    """It runs for the length of a with block; with it ends all of its namespace."""
    argv = [*_ALONE, *command("run", "-c", site.config)]
    process = subprocess.Popen(argv, env={**os.environ, **(env or {})}, stderr=subprocess.PIPE, text=True)
    daemon = First(process)
    try:
        yield daemon
    finally:
        if process.poll() is None:
            process.kill()  # and, by --kill-child, process 1
        daemon.wait()
        assert process.stderr
        process.stderr.close()


def program(path: Path, script: str) -> Path:
    """A program of sh."""
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


# -- signals -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_during_a_request_ends_it_with_0(tmp_path: Path, number: int) -> None:
    over = threading.Event()

    def never(_: Seen) -> Answer:
        over.wait()
        return Answer(500)

    with serving(never) as server, first(Site(tmp_path, server.url), quick_stop(tmp_path)) as daemon:
        daemon.wait_for("pid=1")
        server.wait_for(1)
        try:
            assert daemon.stop(number) == 0
        finally:
            over.set()


def test_hup_reloads_the_config(tmp_path: Path, server: Server) -> None:
    site = Site(tmp_path, server.url, top="reload: signal")
    with first(site) as daemon:
        site.wait_for(bci="valid")
        site.write("{bci: {scope: bci}, risk: {scope: risk}}")
        os.kill(daemon.pid, signal.SIGHUP)
        daemon.wait_for("config reloaded")
        site.wait_for(bci="valid", risk="valid")
        assert daemon.stop() == 0


# -- children ------------------------------------------------------------------------------------------


def test_processes_left_behind_by_a_hook_are_reaped(tmp_path: Path, restless: dict[str, str], server: Server) -> None:
    # Of a session of its own, so that it is not ended with the hook; and its parent is gone, so that it is ours.
    orphan = f"setsid sh -c 'echo $$ > {tmp_path}/orphan; read line < {tmp_path}/gate; exit 7' &"
    os.mkfifo(tmp_path / "gate")
    # It waits for that session, or would end it with itself.
    hook = program(tmp_path / "hook", f"{orphan}\nuntil test -s {tmp_path}/orphan; do sleep 0.01; done")
    site = Site(tmp_path, server.url, f"{{bci: {{on_change: [{{run: [{hook}]}}]}}}}", "log: {level: debug}")
    with first(site, restless) as daemon:
        daemon.wait_for(f"hook run {hook}: done in ")  # or the hook itself could wait for it
        its_proc = Path(f"/proc/{daemon.pid}/root", "proc")  # of its namespace, where the orphan has this number
        orphan_there = its_proc / (tmp_path / "orphan").read_text().strip()
        assert orphan_there.exists()
        (tmp_path / "gate").write_text("\n")
        # Until then it is a zombie, unless it is reaped.
        eventually(lambda: not orphan_there.exists())
        assert site.states() == {"bci": "valid"}
        assert daemon.stop() == 0


def test_the_exit_of_a_hook_is_seen_despite_other_children(tmp_path: Path, restless: dict[str, str]) -> None:
    runs = tmp_path / "runs"
    runs.touch()
    # Each third run fails; what each leaves ends with it, and later.
    orphans = "for pause in 0 0.01 0.1 1 2; do setsid sleep $pause & done"
    script = f"echo >> {runs}\ncode=$(($(wc -l < {runs}) % 3 == 0))\n{orphans}\nsleep 0.0$code; exit $code"
    hook = program(tmp_path / "hook", script)
    with serving(issues(lifetime=2)) as server:
        # Four of them, so that it is run several times a second.
        top = f"log: {{level: debug}}\non_change: [{{run: [{hook}]}}]"
        site = Site(tmp_path, server.url, "{a: {}, b: {}, c: {}, d: {}}", top)
        with first(site, restless) as daemon:
            seen: list[str] = []
            while len(seen) < 12:
                line = daemon.wait_for(f"hook run {hook}: ").split(f"{hook}: ")[1]
                if not line.startswith("done at attempt"):
                    seen.append(line.split(";")[0])
            assert daemon.stop() == 0
    assert ["done" if end.startswith("done in ") else end for end in seen] == ["done", "done", "exit 1"] * 4


def test_the_exit_of_a_secret_command_is_seen_while_its_output_stays_open(
    tmp_path: Path, restless: dict[str, str], server: Server
) -> None:
    # The command ends long before its output is closed: a zombie for several checks.
    secret = program(tmp_path / "command", "sleep 1 &\necho half-a-secret; exit 3")
    site = Site(tmp_path, server.url)
    site.config.write_text(site.config.read_text().replace(f"{{file: {tmp_path}/secret}}", f"{{command: [{secret}]}}"))
    with first(site, restless) as daemon:
        daemon.wait_for(f"command {secret}: exit 3")
        assert server.seen == []
        assert daemon.stop() == 0
