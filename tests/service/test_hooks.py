"""Hooks of the real daemon: real programs, killed daemons, and their status."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bearerd.cli.ask import ask
from support.api import Site
from support.process import WITHIN, bearerd, command, eventually, patched, running, stopping_at_once
from support.server import Answer, Server, issues, serving

WAIT = 'read code <> "$0.fifo" && exit $code'
"""Waits for the test to say how to end."""


@pytest.fixture
def server() -> Iterator[Server]:
    with serving(issues()) as server:
        yield server


@pytest.fixture
def site(tmp_path: Path, server: Server) -> Site:
    return Site(tmp_path, server.url)


@pytest.fixture
def impatient(tmp_path: Path) -> dict[str, str]:
    """What has a bearerd wait no time between the attempts at a hook: 21 s would be the test's."""
    return patched(
        tmp_path,
        {},
        "from bearerd.hooks.hooks import Hooks",
        "Hooks.__init__.__defaults__ = (*Hooks.__init__.__defaults__[:-1], (0.0, 0.0, 0.0))",
    )


class Program:
    """A program of sh, in a directory that it knows as $HERE; each run is noted before the script is run."""

    def __init__(self, site: Site, name: str, script: str = "") -> None:
        self.path, self.here = site.path / name, site.path
        os.mkfifo(f"{self.path}.fifo")
        Path(f"{self.path}.runs").touch()
        self.path.write_text(
            f'#!/bin/sh\nHERE={site.path}\necho $$ $BEARERD_TOKEN_NAMES >> "$0.runs"\n{script.strip()}\n'
        )
        self.path.chmod(0o755)
        self._ended = 0

    @property
    def runs(self) -> list[str]:
        """The tokens of each run, with a space between them."""
        return [line.partition(" ")[2] for line in self._lines()]

    @property
    def pids(self) -> list[int]:
        """The process of each run."""
        return [int(line.split()[0]) for line in self._lines()]

    def _lines(self) -> list[str]:
        return Path(f"{self.path}.runs").read_text().splitlines()

    def end(self, code: int = 0) -> None:
        """Let the next one end."""
        with Path(f"{self.path}.fifo").open("w") as fifo:
            fifo.write(f"{code}\n")


def change(*programs: Program, more: str = "") -> str:
    """These as hooks of a token."""
    return f"on_change: [{', '.join(f'{{run: [{program.path}]{more}}}' for program in programs)}]"


def hooks_of(site: Site, name: str = "bci") -> dict[str, Any]:
    """The hooks of a token in `status`."""
    return next((token["hooks"] for token in site.status()["tokens"] if token["token"] == name), {})


def owed(site: Site, name: str = "bci") -> bool:
    """Whether the next daemon would run hooks that this one owes."""
    return (site.tokens / ".bearerd/owed/dnb" / name).exists()


def runs(pid: int) -> bool:
    """Whether a process has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in {"Z", "X"}
    except OSError:
        return False


# -- the environment -----------------------------------------------------------------------------------


def test_hooks_run_after_all_files_are_in_place_and_do_not_get_the_token(tmp_path: Path) -> None:
    script = """
        number=$(wc -l < "$0.runs")
        echo "$BEARERD_FILES" | while read -r file; do cp "$file" "$HERE/$number.${file##*.}"; done
        tr '\\0' '\\n' < /proc/$$/environ > "$HERE/$number.environ"
        tr '\\0' '\\n' < /proc/$$/cmdline > "$HERE/$number.cmdline"
        umask > "$HERE/$number.umask"
        cat "$HERE/$number.raw"; cat "$HERE/$number.raw" >&2
    """
    tokens = (f"s3cr3t-{number}" for number in itertools.count(1))
    with serving(lambda _: Answer(200, {"access_token": next(tokens), "expires_in": 2})) as server:
        site = Site(tmp_path, server.url, top="log: {level: debug}")
        program = Program(site, "program", script)
        files = "files: [{format: raw, path: out.raw}, {format: json}, {format: header}]"
        hooks = f"on_change: [{{run: [{program.path}]}}, {{run: [/bin/cp, /proc/self/status, {tmp_path}/status]}}]"
        site.write(f"{{bci: {{scope: bci, {files}, {hooks}}}}}")
        # As a shell would start it with `&`.
        was = [(ignored, signal.signal(ignored, signal.SIG_IGN)) for ignored in (signal.SIGINT, signal.SIGQUIT)]
        with running("run", "-c", site.config) as daemon:
            for ignored, handler in was:
                signal.signal(ignored, handler)
            eventually(lambda: len(program.runs) >= 3)
            assert daemon.stop() == 0
    for number in (1, 2):
        token = (tmp_path / f"{number}.raw").read_text()
        assert token == f"s3cr3t-{number}"
        assert json.loads((tmp_path / f"{number}.json").read_text())["access_token"] == token
        assert (tmp_path / f"{number}.header").read_text() == f"Authorization: Bearer {token}\n"
        given = "".join((tmp_path / f"{number}.{kind}").read_text() for kind in ("environ", "cmdline"))
        paths = [f"{site.tokens}/{path}" for path in ("out.raw", "dnb/bci.json", "dnb/bci.header")]
        assert "BEARERD_TOKEN_NAME=dnb/bci\n" in given
        assert "BEARERD_FILES=" + "\n".join(paths) + "\n" in given
        assert "s3cr3t" not in given
        assert (tmp_path / f"{number}.umask").read_text() == "0022\n"
    assert re.findall(r"^Sig(?:Blk|Ign):\t(.*)", (tmp_path / "status").read_text(), re.MULTILINE) == ["0" * 16] * 2
    assert any("hook run" in line for line in daemon.lines)
    assert "s3cr3t" not in "".join(daemon.lines)


def test_the_nearest_hooks_win(site: Site, server: Server) -> None:
    top, client, own, alarm = (Program(site, name) for name in ("top", "client", "own", "alarm"))
    site.config.write_text(
        f"output: {{directory: {site.tokens}}}\n{change(top)}\non_failure: [{{run: [{alarm.path}]}}]\nclients:\n"
        + "".join(
            f"  {name}:\n    token_url: {server.url}\n    allow_http: true\n    client_id: a\n"
            f"    client_secret: {{file: {site.path}/secret}}\n    {hooks}\n    tokens: {tokens}\n"
            for name, hooks, tokens in (
                ("far", "", "{a: {}}"),
                ("dnb", change(client), f"{{b: {{}}, c: {{{change(own)}}}, d: {{on_change: []}}}}"),
            )
        )
    )
    with running("run", "-c", site.config) as daemon:
        eventually(lambda: top.runs and client.runs and own.runs and len(site.status()["tokens"]) == 4)
        eventually(lambda: not any(token["hooks"]["owed"] for token in site.status()["tokens"]))
        assert daemon.stop() == 0
    assert (top.runs, client.runs, own.runs, alarm.runs) == (["far/a"], ["dnb/b"], ["dnb/c"], [])


def test_a_command_of_sixty_tokens_that_change_during_its_run_runs_once_more(site: Site) -> None:
    program = Program(site, "program", f'echo "$BEARERD_FILES" >> "$HERE/files"\n{WAIT}')
    site.top = change(program)
    site.write("{bci: {}}")
    with running("run", "-c", site.config) as daemon:
        eventually(lambda: program.runs)
        names = [f"t{number}" for number in range(60)]
        site.write("{bci: {}, " + ", ".join(f"{name}: {{scope: {name}}}" for name in names) + "}")
        eventually(lambda: [token["hooks"]["owed"] for token in site.status()["tokens"]] == [1] * 61)
        program.end()
        eventually(lambda: len(program.runs) == 2)
        program.end()
        eventually(lambda: not any(token["hooks"]["owed"] for token in site.status()["tokens"]))
        assert daemon.stop() == 0
    first, rest = program.runs
    assert (first, sorted(rest.split())) == ("dnb/bci", sorted(f"dnb/{name}" for name in names))
    files = (site.path / "files").read_text().splitlines()
    assert files == [f"{site.tokens}/{name}" for name in f"{first} {rest}".split()]
    assert not any(owed(site, name) for name in names)


def test_a_process_is_signalled_after_the_files_are_in_place(site: Site) -> None:
    received = "import signal, sys; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP]); print(flush=True)\n"
    received += "signal.sigwait([signal.SIGHUP]); print(open(sys.argv[1]).read(), flush=True)"
    with subprocess.Popen(
        [sys.executable, "-c", received, site.tokens / "dnb/bci"], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            (site.path / "pid").write_text(f"{process.pid}\n")
            site.write(f"{{bci: {{on_change: [{{signal: HUP, pid_file: {site.path}/pid}}]}}}}")
            with running("run", "-c", site.config):
                assert process.communicate(timeout=WITHIN)[0] == "t-1\n"
        finally:
            process.kill()


def test_on_failure_runs_if_a_token_cannot_be_obtained(tmp_path: Path) -> None:
    with serving(lambda _: Answer(401, {"error": "invalid_client"})) as server:
        site = Site(tmp_path, server.url)
        alarm, reload = Program(site, "alarm"), Program(site, "reload")
        site.write(f"{{bci: {{{change(reload)}, on_failure: [{{run: [{alarm.path}]}}]}}}}")
        with running("run", "-c", site.config) as daemon:
            eventually(lambda: alarm.runs == ["dnb/bci"])
            assert daemon.stop() == 0
    assert reload.runs == []


# -- after a crash -------------------------------------------------------------------------------------


def test_the_next_daemon_runs_a_hook_that_a_killed_one_did_not_finish(site: Site, server: Server) -> None:
    program = Program(site, "program", WAIT)
    site.write(f"{{bci: {{{change(program)}}}}}")
    with running("run", "-c", site.config) as daemon:
        eventually(lambda: program.runs)
        daemon.process.kill()
        assert daemon.wait() == -signal.SIGKILL
    os.kill(program.pids[0], signal.SIGKILL)
    token = (site.tokens / "dnb/bci").read_text()
    with running("run", "-c", site.config) as daemon:
        eventually(lambda: len(program.runs) == 2)
        eventually(lambda: hooks_of(site).get("owed") == 1)
        program.end()
        eventually(lambda: hooks_of(site)["owed"] == 0)
        assert daemon.stop() == 0
    assert not owed(site)
    with running("run", "-c", site.config) as daemon:
        daemon.wait_for("the token from the record is good")
        eventually(lambda: site.states() == {"bci": "valid"})
        assert daemon.stop() == 0
    assert len(program.runs) == 2
    assert ((site.tokens / "dnb/bci").read_text(), len(server.seen)) == (token, 1)


# -- hooks that misbehave ------------------------------------------------------------------------------


def test_misbehaving_hooks_delay_no_token_and_no_stop(tmp_path: Path) -> None:
    scripts = {
        "hang": "trap '' TERM HUP INT; sleep 600 & echo $! >> $HERE/left; while :; do sleep 600; done",
        "fork": "for one in 1 2 3 4 5; do (trap '' TERM; sleep 600) & echo $! >> $HERE/left; done; wait",
        "fail": "sleep 600 & echo $! >> $HERE/left; exit 1",
        "flood": "exec cat /dev/zero",
        "noise": "exec cat /dev/zero >&2",
    }
    with serving(issues(lifetime=2)) as server:
        site = Site(tmp_path, server.url)
        programs = {name: Program(site, name, script) for name, script in scripts.items()}
        bad = ", ".join(
            f"{name}: {{scope: {name}, {change(program, more=', timeout: 1d')}}}" for name, program in programs.items()
        )
        site.write(f"{{{bad}, good: {{scope: good}}}}")
        with running("run", "-c", site.config, env=stopping_at_once(tmp_path)) as daemon:
            eventually(lambda: all(program.runs for program in programs.values()))

            def grants(name: str) -> int:
                return sum(f"scope={name}".encode() in seen.body for seen in list(server.seen))

            before = {name: grants(name) for name in (*programs, "good")}
            # Each of them is renewed in spite of its hook.
            eventually(lambda: all(grants(name) > count for name, count in before.items()))
            assert all(len(programs[name].runs) == 1 for name in ("hang", "fork", "flood", "noise"))
            assert daemon.stop() == 0
    processes = [pid for program in programs.values() for pid in program.pids]
    processes += map(int, (tmp_path / "left").read_text().split())
    assert len(processes) >= 5 + 7
    eventually(lambda: not any(map(runs, processes)))
    assert {name: owed(site, name) for name in ("hang", "fork", "flood", "good")} == {
        "hang": True,
        "fork": True,
        "flood": True,
        "good": False,
    }


def test_a_command_that_takes_too_long_is_killed_and_its_fault_is_shown(site: Site, impatient: dict[str, str]) -> None:
    program = Program(site, "program", "sleep 600")
    site.write(f"{{bci: {{{change(program, more=', timeout: 50ms')}}}, risk: {{}}}}")
    with running("run", "-c", site.config, env=impatient) as daemon:
        fault = f"hook run {program.path}: timed out after 50 ms and was killed"
        line = daemon.wait_for("given up")
        assert line.endswith(
            f" ERROR   name=dnb/bci {fault}; given up after 4 attempts; "
            "the programs that it notifies may still use the old token"
        )
        eventually(lambda: hooks_of(site).get("owed") == 0)
        shown = hooks_of(site)
        assert shown["last_error"] == fault
        assert shown["last_run_at"].endswith("Z")
        assert hooks_of(site, "risk") == {"owed": 0, "last_run_at": None, "last_error": None}
        metrics = ask(str(site.socket), "/metrics")[1].decode()
        assert 'bearerd_hook_runs_total{outcome="failure"} 4' in metrics
        assert 'bearerd_token_hook_failing{name="dnb/bci"} 1' in metrics
        assert daemon.stop() == 0
    assert not owed(site)
    assert not any(map(runs, program.pids))


# -- once and check ------------------------------------------------------------------------------------


def test_once_runs_hooks_only_on_request_and_keeps_what_is_owed(site: Site, server: Server) -> None:
    program = Program(site, "program", WAIT)
    site.write(f"{{bci: {{{change(program)}}}}}")
    with running("run", "-c", site.config) as daemon:
        eventually(lambda: program.runs)
        daemon.process.kill()
        daemon.wait()
    os.kill(program.pids[0], signal.SIGKILL)
    assert bearerd("once", "-c", site.config, "--min-valid", "2h").returncode == 0
    assert len(server.seen) == 2
    assert (site.tokens / "dnb/bci").read_text() == "t-2"
    assert program.runs == ["dnb/bci"]
    assert owed(site)
    with running("once", "-c", site.config, "--hooks") as waiting:
        eventually(lambda: len(program.runs) == 2)
        program.end()
        assert waiting.wait() == 0
    assert not owed(site)
    assert len(server.seen) == 2
    assert bearerd("once", "-c", site.config, "--hooks").returncode == 0
    assert len(program.runs) == 2


def test_the_daemon_runs_the_hook_of_a_token_that_once_obtained(site: Site, server: Server) -> None:
    program = Program(site, "program")
    site.write(f"{{bci: {{{change(program)}}}}}")
    for number in (1, 2):
        assert bearerd("once", "-c", site.config, "--min-valid", "2h").returncode == 0
        assert len(server.seen) == number
        assert len(program.runs) == number - 1
        assert owed(site)
        with running("run", "-c", site.config) as daemon:
            eventually(lambda number=number: program.runs == ["dnb/bci"] * number and not owed(site))
            assert daemon.stop() == 0
    assert len(server.seen) == 2


def test_once_fails_if_a_hook_failed_for_good(site: Site, impatient: dict[str, str]) -> None:
    program = Program(site, "program", "exit 7")
    site.write(f"{{bci: {{{change(program)}}}}}")
    done = bearerd("once", "-c", site.config, "--hooks", env=impatient)
    assert done.returncode == 1
    assert f"hook run {program.path}: exit 7; " in done.stderr
    assert "1 of 1 tokens are valid" in done.stderr
    assert len(program.runs) == 4
    assert not owed(site)


def test_a_failed_hook_is_noticed_even_if_the_parent_ignores_sigchld(site: Site, impatient: dict[str, str]) -> None:
    program = Program(site, "program", "exit 7")
    site.write(f"{{bci: {{{change(program)}}}}}")
    start = "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", start, *command("once", "-c", site.config, "--hooks")],
        env={**os.environ, **impatient},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "exit 7; " in done.stderr


def test_once_fails_if_a_hook_is_not_done_in_time_and_the_next_run_does_it(site: Site) -> None:
    program = Program(site, "program", WAIT)
    site.write(f"{{bci: {{{change(program)}}}}}")
    done = bearerd("once", "-c", site.config, "--hooks", "--timeout", "5s")
    assert done.returncode == 1
    assert "hooks did not finish within 5 s; they run at the next start" in done.stderr
    eventually(lambda: not runs(program.pids[0]))
    assert owed(site)
    with running("once", "-c", site.config, "--hooks") as again:
        eventually(lambda: len(program.runs) == 2)
        program.end()
        assert again.wait() == 0


def test_a_signal_ends_once_while_it_waits_for_hooks_and_kills_them(site: Site) -> None:
    program = Program(site, "program", "sleep 600")
    site.write(f"{{bci: {{{change(program)}}}}}")
    with running("once", "-c", site.config, "--hooks", "--timeout", "10m", env=stopping_at_once(site.path)) as waiting:
        eventually(lambda: program.runs)
        assert waiting.stop() == 1
        assert any("interrupted before all hooks were done; they run at" in line for line in waiting.lines)
    eventually(lambda: not runs(program.pids[0]))
    assert owed(site)


def test_check_finds_a_hook_that_cannot_run(site: Site) -> None:
    program = Program(site, "program")
    site.write(f"{{bci: {{{change(program)}, on_failure: [{{run: [{site.path}/none, a]}}]}}, risk: {{}}}}")
    done = bearerd("check", "-c", site.config)
    assert done.returncode == 1
    assert f"failed   token dnb/bci: hook run {site.path}/none: {site.path}/none does not exist\n" in done.stdout
    assert "ok       token dnb/risk: " in done.stdout
    Program(site, "none")
    assert bearerd("check", "-c", site.config).returncode == 0
    assert program.runs == []
