"""The daemon as a real process, against real servers, ended by real signals."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from statistics import median

import pytest

from bearerd.cli.ask import ask
from support.process import WITHIN, bearerd, eventually, running, stopping_at_once
from support.readers import ROOT
from support.server import Answer, Script, Seen, issues, serving

SECRET = "s3cr3t+%/="


def write_config(directory: Path, url: str, *, tokens: str = "{bci: {scope: bci}}", more: str = "") -> Path:
    """A config with one client, over a directory of its own."""
    secret = directory / "secret"
    secret.write_text(SECRET + "\n")
    secret.chmod(0o600)
    config = directory / "config.yaml"
    config.write_text(
        f"output: {{directory: {directory}/tokens}}\n"
        "clients:\n"
        "  dnb:\n"
        f"    token_url: {url}\n"
        "    allow_http: true\n"
        "    timeout: 10m\n"
        "    client_id: 7e0c5a\n"
        f"    client_secret: {{file: {secret}}}\n"
        f"    tokens: {tokens}\n" + more
    )
    return config


def boot() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


# -- the promise -----------------------------------------------------------------------------------

_READER = """
import sys, time, zlib
path = sys.argv[1]
reads = torn = absent = expired = 0
tokens = set()
print("ready", flush=True)
while True:
    try:
        with open(path) as file:
            text = file.read()
    except FileNotFoundError:
        absent += 1
        text = ""
    now = time.clock_gettime(time.CLOCK_BOOTTIME)
    if text:
        until, padding, check = text.split(".")
        torn += zlib.crc32(f"{until}.{padding}".encode()) != int(check)
        expired += float(until.replace("_", ".")) <= now
        tokens.add(text)
    else:
        absent += 1
    reads += 1
    time.sleep(0.0005)  # so that it leaves some of the processor to the daemon
    if reads % 100 == 0:
        print(reads, len(tokens), torn, absent, expired, flush=True)
"""


def dated_tokens(lifetime: int) -> Script:
    """Tokens that say whether they are whole, and until when they are good."""
    import zlib  # noqa: PLC0415

    def script(_: Seen) -> Answer:
        until = str(boot() + lifetime).replace(".", "_")
        text = f"{until}.{'x' * 3000}"
        token = f"{text}.{zlib.crc32(text.encode())}"
        return Answer(200, {"access_token": token, "token_type": "Bearer", "expires_in": lifetime})

    return script


@contextmanager
def reading(path: Path) -> Iterator[list[int]]:
    """A process that reads all the time, and its counters."""
    process = subprocess.Popen([sys.executable, "-c", _READER, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    counts: list[int] = []

    def follow() -> None:
        for line in process.stdout or ():
            counts[:] = map(int, line.split())

    thread = threading.Thread(target=follow)
    thread.start()
    try:
        yield counts
    finally:
        process.kill()
        process.wait()
        thread.join()
        process.stdout.close()


def test_over_several_lifetimes_no_read_is_torn_empty_or_absent(tmp_path: Path) -> None:
    lifetime, asked = 2, list[float]()
    tokens = dated_tokens(lifetime)

    def script(seen: Seen) -> Answer:
        asked.append(boot())
        return tokens(seen)

    with serving(script) as server:
        config = write_config(tmp_path, server.url)
        with running("run", "-c", config) as daemon:
            daemon.wait_for("token obtained")
            eventually((tmp_path / "tokens/dnb/bci").exists)
            with reading(tmp_path / "tokens/dnb/bci") as counts:
                server.wait_for(6)
                eventually(lambda: counts and counts[1] >= 5)
            assert daemon.stop() == 0
    reads, _, torn, absent, _ = counts
    assert reads >= 100
    assert (torn, absent) == (0, 0)
    # A machine that pauses at the wrong moment shows a reader an expired token: `python -m reads` looks for these, with
    # the priority that it takes. Most refreshes are in time here, too.
    assert median(later - earlier for earlier, later in pairwise(asked)) < lifetime


def test_killed_while_it_fetches_and_writes_readers_see_old_or_new_and_whole(tmp_path: Path) -> None:
    moment = threading.Event()
    with serving(dated_tokens(600)) as server:
        config = write_config(tmp_path, server.url)
        token, record = tmp_path / "tokens/dnb/bci", tmp_path / "tokens/.bearerd/records/dnb/bci.json"
        ledger = tmp_path / "tokens/.bearerd/ledger"
        assert bearerd("once", "-c", config).returncode == 0
        with reading(token) as counts:
            for number in range(9):
                before = token.read_text()
                record.unlink(missing_ok=True)  # so that it asks, and writes, at once
                ledger.unlink(missing_ok=True)  # and is not held back: it might have been refused
                with running("run", "-c", config) as daemon:
                    server.wait_for(2 + number)
                    if number < 8:
                        moment.wait(0.005 * number)  # from before the reply is read to after the rename
                    else:
                        eventually(lambda before=before: token.read_text() != before)  # the last has written
                    daemon.process.send_signal(signal.SIGKILL)
                    daemon.wait()
            eventually(lambda: counts and counts[1] > 1)
        with running("run", "-c", config) as daemon:
            daemon.wait_for("keeps 1 token")
            assert daemon.stop() == 0
    assert counts[2:] == [0, 0, 0]
    assert not list((tmp_path / "tokens").rglob("*.tmp"))


# -- starting and ending ---------------------------------------------------------------------------


def test_a_crash_loop_costs_the_provider_nothing(tmp_path: Path) -> None:
    with serving(issues()) as server:
        config = write_config(tmp_path, server.url)
        for number in range(3):
            with running("run", "-c", config) as daemon:
                daemon.wait_for("the token from the record is good" if number else "token obtained")
                eventually((tmp_path / "tokens/dnb/bci").exists)
                daemon.process.send_signal(signal.SIGKILL)
                daemon.wait()
            (tmp_path / "tokens/dnb/bci").unlink()
        assert len(server.seen) == 1


def test_all_tokens_are_fetched_in_parallel_at_the_start(tmp_path: Path) -> None:
    together = threading.Barrier(5)
    first = threading.Lock()
    count = issues()

    def script(seen: Seen) -> Answer:
        # One goes alone, whichever it is, since this client never had a token.
        if not first.acquire(blocking=False):
            together.wait(WITHIN)  # broken unless five are here at once
        return count(seen)

    with serving(script) as server:
        config = write_config(tmp_path, server.url, tokens="{a: {}, b: {}, c: {}, d: {}, e: {}, f: {}}")
        with running("run", "-c", config) as daemon:
            for name in "abcdef":
                eventually((tmp_path / f"tokens/dnb/{name}").exists)
            assert daemon.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_and_the_files_stay(tmp_path: Path, number: signal.Signals) -> None:
    with serving(issues()) as server:
        config = write_config(tmp_path, server.url)
        with running("run", "-c", config) as daemon:
            daemon.wait_for("token obtained")
            eventually((tmp_path / "tokens/dnb/bci").exists)
            assert daemon.stop(number) == 0
    assert any("the token files stay" in line for line in daemon.lines)
    assert (tmp_path / "tokens/dnb/bci").read_text() == "t-1"


def test_term_ends_it_in_mid_request(tmp_path: Path) -> None:
    go_on = threading.Event()

    def hangs(_: Seen) -> Answer:
        go_on.wait()
        return Answer(500)

    with serving(hangs) as server:
        config = write_config(tmp_path, server.url)
        with running("run", "-c", config, env=stopping_at_once(tmp_path)) as daemon:
            server.wait_for(1)
            assert daemon.stop() == 0
        go_on.set()


_HANGING_LOOKUP = """
import socket, threading
real = socket.getaddrinfo
def hangs(host, *args, **kwargs):
    if host == b"localhost":
        import sys
        print("looking up", file=sys.stderr, flush=True)
        threading.Event().wait()
    return real(host, *args, **kwargs)
socket.getaddrinfo = hangs
"""


def test_term_ends_it_in_a_name_look_up_and_others_go_on_meanwhile(tmp_path: Path) -> None:
    env = stopping_at_once(tmp_path, _HANGING_LOOKUP)
    with serving(issues()) as server:
        # Ten tokens at a name that never resolves: more than the provider has workers.
        stuck = "".join(f"      t{number}: {{}}\n" for number in range(10))
        more = (
            f"  stuck:\n    token_url: http://localhost:{server.port}/\n    allow_http: true\n    client_id: x\n"
            f"    timeout: 10m\n    client_secret: {{file: {tmp_path}/secret}}\n    tokens:\n{stuck}"
        )
        config = write_config(tmp_path, server.url, more=more)
        with running("run", "-c", config, env=env) as daemon:
            daemon.wait_for("looking up")
            eventually((tmp_path / "tokens/dnb/bci").exists)
            assert daemon.stop() == 0


def test_a_second_daemon_on_the_directory_ends_with_1_and_names_the_first(tmp_path: Path) -> None:
    with serving(issues()) as server:
        config = write_config(tmp_path, server.url)
        with running("run", "-c", config) as daemon:
            daemon.wait_for("keeps 1 token")
            for verb in ("run", "once"):
                second = bearerd(verb, "-c", config)
                assert second.returncode == 1
                assert f"in use by another bearerd, pid {daemon.process.pid}" in second.stderr


def test_a_wrong_config_ends_with_78_and_a_directory_that_cannot_be_used_with_1(tmp_path: Path) -> None:
    config = write_config(tmp_path, "https://login.example.com/")
    (tmp_path / "tokens").write_text("in the way")
    unusable = bearerd("run", "-c", config)
    assert unusable.returncode == 1
    assert f"{tmp_path}/tokens" in unusable.stderr
    config.write_text("clients: []\n")
    wrong = bearerd("run", "-c", config)
    assert wrong.returncode == 78
    assert f"{config}:1:10: expected a mapping\n" in wrong.stderr


# -- where the files go ----------------------------------------------------------------------------


def test_a_directory_in_which_others_can_write_is_warned_of_once_at_the_start(tmp_path: Path) -> None:
    with serving(issues(lifetime=2)) as server:
        config = write_config(tmp_path, server.url)
        (tmp_path / "tokens").mkdir()
        (tmp_path / "tokens").chmod(0o777)
        with running("run", "-c", config) as daemon:
            line = daemon.wait_for("others can write there")
            assert " WARNING " in line
            assert f" directory {tmp_path}/tokens: " in line
            assert "fine if only the containers of this pod use it" in line
            daemon.wait_for("token obtained")
            server.wait_for(3)
            assert daemon.stop() == 0
    assert [text for text in daemon.lines if "others can write" in text] == [line]
    assert not any("token obtained" in text for text in daemon.lines[: daemon.lines.index(line)])


@ROOT
def test_a_file_that_is_a_mount_point_is_an_error_before_a_grant_and_the_others_are_kept(tmp_path: Path) -> None:
    mounted, host = tmp_path / "tokens/dnb/bci", tmp_path / "host"
    mounted.parent.mkdir(parents=True)
    mounted.touch()
    host.write_text("of the host")
    with serving(issues()) as server:
        files = "[{format: raw}, {format: header}]"
        config = write_config(tmp_path, server.url, tokens=f"{{bci: {{files: {files}}}, risk: {{}}}}")
        subprocess.run(["mount", "--bind", host, mounted], check=True)
        try:
            with running("run", "-c", config) as daemon:
                line = daemon.wait_for("is a mount point")
                assert " ERROR " in line
                assert f" name=dnb/bci this file cannot be written, all others can: {mounted} is a mount point" in line
                assert "mount its directory instead" in line
                assert not any("token obtained" in text for text in daemon.lines)
                eventually((tmp_path / "tokens/dnb/bci.header").exists)
                eventually((tmp_path / "tokens/dnb/risk").exists)
                assert daemon.stop() == 0
        finally:
            subprocess.run(["umount", mounted], check=True)
    assert host.read_text() == "of the host"


# -- troubles --------------------------------------------------------------------------------------


WRITE_IT = "write the secret to it, with mode 0600 and the daemon's user as its owner"


def test_a_missing_secret_fails_its_client_alone(tmp_path: Path) -> None:
    with serving(issues()) as server:
        more = (
            f"  other:\n    token_url: {server.url}\n    allow_http: true\n    client_id: x\n"
            f"    client_secret: {{file: {tmp_path}/missing}}\n    tokens: {{a: {{}}}}\n"
        )
        config = write_config(tmp_path, server.url, more=more)
        with running("run", "-c", config) as daemon:
            line = daemon.wait_for(f"{tmp_path}/missing: no such file or directory")
            assert "name=other/a" in line
            assert re.search(rf"; {WRITE_IT}; there is no valid token; next attempt in (\d|10) s$", line)
            eventually((tmp_path / "tokens/dnb/bci").exists)
            assert daemon.stop() == 0
        assert len(server.seen) == 1


def test_a_refused_client_asks_once_for_all_its_tokens(tmp_path: Path) -> None:
    refusal = Answer(401, {"error": "invalid_client", "error_description": "Bad credentials"})
    with serving(lambda _: refusal) as server:
        config = write_config(tmp_path, server.url, tokens="{a: {}, b: {}, c: {}}")
        with running("run", "-c", config) as daemon:
            line = daemon.wait_for("401 invalid_client")
            assert "try basic_encoding" in line
            # Rounded down, and some milliseconds of the five minutes are over.
            assert re.search(r"next attempt in [45] min$", line)
            assert daemon.stop() == 0
        assert len(server.seen) == 1


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_the_log_is_a_line_an_event_and_holds_no_token_and_no_secret(tmp_path: Path, log_format: str) -> None:
    answers = iter([Answer(200, {"access_token": "t0k3n", "expires_in": 3600}), Answer(500, b"t0k3n")])
    with serving(lambda _: next(answers, Answer(200, b"<t0k3n>"))) as server:
        config = write_config(tmp_path, server.url, more=f"log: {{level: debug, format: {log_format}}}\n")
        with running("run", "-c", config) as daemon:
            daemon.wait_for("token obtained")
            done = bearerd("health", "--wait", "1m", "-c", config)
            assert done.returncode == 0, done.stderr
            assert ask(f"{tmp_path}/tokens/.bearerd/control.sock", "/refresh/dnb/bci", "POST")[0] == 202
            daemon.wait_for("HTTP 500")
            daemon.wait_for("HTML")
            assert daemon.stop() == 0
    log = "\n".join(daemon.lines)
    assert "t0k3n" not in log
    assert SECRET not in log
    if log_format == "json":
        events = [json.loads(line) for line in daemon.lines]
        assert {"time", "level", "message"} <= set.intersection(*map(set, events))
        assert {event.get("name") for event in events} == {None, "dnb/bci"}
    else:
        stamp = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ (DEBUG|INFO|WARNING|ERROR) +"
        assert all(re.match(stamp, line) for line in daemon.lines)
        assert any(" name=dnb/bci token obtained" in line for line in daemon.lines)


def test_the_secret_is_in_no_argument_and_no_environment(tmp_path: Path) -> None:
    # The environment of the daemon holds the secret, because it was given there; that of a hook must not.
    shown = tmp_path / "shown"
    hook = f"cat /proc/self/environ > {shown}.new; mv {shown}.new {shown}"
    with serving(lambda _: Answer(200, {"access_token": "t0k3n", "expires_in": 600})) as server:
        config = write_config(tmp_path, server.url, more=f"    on_change: [{{run: [/bin/sh, -c, '{hook}']}}]\n")
        config.write_text(config.read_text().replace(f"{{file: {tmp_path}/secret}}", "{env: DNB_SECRET}"))
        with running("run", "-c", config, env={"DNB_SECRET": SECRET}) as daemon:
            daemon.wait_for("token obtained")
            eventually(shown.exists)
            arguments = Path(f"/proc/{daemon.process.pid}/cmdline").read_bytes()
            assert daemon.stop() == 0
    assert b"bearerd" in arguments
    assert b"BEARERD_TOKEN_NAME=dnb/bci" in shown.read_bytes()
    for content in (arguments, shown.read_bytes()):
        assert SECRET.encode() not in content
        assert b"t0k3n" not in content
