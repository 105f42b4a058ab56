"""`bearerd status` on a terminal, in a pipe, and without a daemon."""

from __future__ import annotations

import fcntl
import grp
import itertools
import json
import os
import pty
import pwd
import re
import shutil
import signal
import stat
import struct
import subprocess
import tempfile
import termios
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from bearerd import __version__, cli
from bearerd.cli.denied import denied
from bearerd.cli.paper import Paper
from bearerd.cli.picture import picture
from bearerd.printable import printable
from support.api import Site, answering, http
from support.process import WITHIN, bearerd, command, running
from support.server import Answer, Seen, issues, serving

ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: to be somebody else")
NOBODY = 65534
ESCAPE = re.compile(r"\x1b(\[[0-9;?]*[A-Za-z]|\][^\x07]*\x07)")


@pytest.fixture(autouse=True)
def _plain_surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "BEARERD_SOCKET", "BEARERD_CONFIG", "PYTHONIOENCODING"):
        monkeypatch.delenv(name, raising=False)


class Terminal:
    """A command on a terminal of some size, and its output so far."""

    def __init__(self, columns: int, lines: int, *arguments: str | Path, env: Mapping[str, str]) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.process = subprocess.Popen(
            command(*arguments),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**os.environ, "TERM": "xterm-256color", **env},
            # A shell that put us into the background had us ignore it.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - no threads hold a lock
        )
        os.close(theirs)
        self._changed = threading.Condition()
        self._bytes = b""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                part = os.read(self._ours, 65536)
            except OSError:  # EIO: the other side is closed
                break
            if not part:
                break
            with self._changed:
                self._bytes += part
                self._changed.notify_all()

    @property
    def raw(self) -> str:
        """All that was written."""
        return self._bytes.decode(errors="replace").replace("\r\n", "\n")

    @property
    def text(self) -> str:
        """Without colours and the like."""
        return ESCAPE.sub("", self.raw)

    def wait_for(self, text: str, after: int = 0) -> int:
        """Until this was written, after so much; returns how much was."""
        with self._changed:
            assert self._changed.wait_for(lambda: text in self.text[after:], WITHIN), self.text[after:]
            return len(self.text)

    def end(self) -> int:
        """Wait for the end; the exit code."""
        code = self.process.wait(WITHIN)
        self._reader.join(WITHIN)
        return code


@contextmanager
def on_a_terminal(
    columns: int, lines: int, *arguments: str | Path, env: Mapping[str, str] | None = None
) -> Iterator[Terminal]:
    terminal = Terminal(columns, lines, *arguments, env=env or {})
    try:
        yield terminal
    finally:
        terminal.process.kill()
        terminal.end()
        os.close(terminal._ours)


def shown(columns: int, *arguments: str | Path, env: Mapping[str, str] | None = None) -> tuple[int, str]:
    """The exit code, and all that was written to a terminal that is high enough for all tokens."""
    with on_a_terminal(columns, 60, *arguments, env=env) as terminal:
        return terminal.end(), terminal.raw


# -- a real daemon ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One token that is valid, one that is too and cannot be renewed, one that expired, one that never was."""
    lock = threading.Lock()
    scopes: list[str] = []
    # As short as a machine that pauses allows: one that arrives late never was a token.
    long, short = issues(3600), issues(6)

    def script(seen: Seen) -> Answer:
        scope = seen.body.decode().partition("scope=")[2]
        with lock:
            scopes.append(scope)
            first = scopes.count(scope) == 1
        if scope == "good" or (scope == "failing" and first):
            return long(seen)
        return short(seen) if scope == "gone" and first else Answer(400, {"error": "invalid_target"})

    with serving(script) as server:
        site = Site(
            tmp_path_factory.mktemp("s"),
            server.url,
            "{good: {scope: good}, failing: {scope: failing}, gone: {scope: gone}, never: {scope: x}}",
        )
        with running("run", "-c", site.config):
            site.wait_for(good="valid", failing="valid", gone="expired", never="missing")
            assert bearerd("refresh", "dnb/failing", "--socket", site.socket).returncode == 1
            yield site


# The most urgent first.
STATES = {"dnb/gone": "expired", "dnb/never": "missing", "dnb/failing": "failing", "dnb/good": "valid"}
COLOURS = {"valid": "32", "failing": "33", "expired": "1;31", "missing": "1;31"}
REFUSED = "HTTP 400 invalid_target: this request was refused"
TO_DO = (
    "To do: set parameters: {audience: …} or {resource: …}; a changed secret or config is tried at once; "
    "next attempt in "
)


def rows(text: str) -> dict[str, tuple[str, list[str]]]:
    """Each token's line, and those below it."""
    found: dict[str, tuple[str, list[str]]] = {}
    for line in text.splitlines():
        if line.startswith("dnb/"):
            name = line.split()[0]
            found[name] = (line, [])
        elif line.startswith("  ") and found:
            found[name][1].append(line)
    return found


@pytest.mark.parametrize("columns", [80, 40])
def test_a_terminal_shows_every_token_with_its_state_in_words_and_colour(site: Site, columns: int) -> None:
    code, raw = shown(columns, "status", "--socket", site.socket)
    text = ESCAPE.sub("", raw)
    assert code == 0
    assert max(map(cell_len, text.splitlines())) <= columns
    assert f"bearerd {__version__}, pid " in text.splitlines()[0]
    table = rows(text)
    assert list(table) == list(STATES)
    for name, state in STATES.items():
        line, below = table[name]
        assert line.split()[1] == state
        assert f"\x1b[{COLOURS[state]}m{state}\x1b[0m" in raw
        said = " ".join(line.strip() for line in below)
        if state == "valid":
            assert said == ""
        elif name != "dnb/gone":
            assert said.startswith("The same as dnb/gone. The" + ("re is no" if name == "dnb/never" else " current"))
        else:  # in full, whatever the width
            assert said.startswith(REFUSED)
            assert TO_DO in said
            assert re.search(r"next attempt (in .*\)|now)\.$", said)
    for colour, said in (("31", REFUSED[:30]), ("33", "The same as dnb/gone.")):
        assert f"\x1b[{colour}m{said}" in raw
    # How long this module has been at work is the machine's affair.
    assert re.match(r"\S+ +valid +(1 h|[345]\d min) ", table["dnb/good"][0])
    assert re.match(r"\S+ +expired +(\d+ \w+ ago|just now)", table["dnb/gone"][0])
    assert ("LIFE" in text) == (columns == 80)
    assert ("█" in text and "│" in text) == (columns == 80)


def test_a_pipe_gets_one_line_for_each_token(site: Site) -> None:
    done = bearerd("status", "--socket", site.socket)
    table = rows(done.stdout)
    assert list(table) == list(STATES)
    assert [below for _, below in table.values()] == [[]] * len(STATES)
    for name, (line, _) in table.items():
        assert (REFUSED in line and TO_DO in line) == (name != "dnb/good")


def test_a_pipe_gets_plain_text_in_columns(site: Site) -> None:
    done = bearerd("status", "--socket", site.socket)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    heading = next(line for line in done.stdout.splitlines() if line.startswith("TOKEN"))
    for name, (line, _) in rows(done.stdout).items():
        assert line.index(f" {STATES[name]} ") + 1 == heading.index("STATE")


@pytest.mark.parametrize("unknown", ["COLUMNS", "LINES"])
def test_a_size_of_0_is_unknown(site: Site, unknown: str) -> None:
    code, raw = shown(80, "status", "--socket", site.socket, env={unknown: "0"})
    assert (code, list(rows(ESCAPE.sub("", raw)))) == (0, list(STATES))
    done = bearerd("status", "--socket", site.socket, env={unknown: "0"})
    assert list(rows(done.stdout)) == list(STATES)


@pytest.mark.parametrize("env", [{"NO_COLOR": "1"}, {"TERM": "dumb"}], ids=["NO_COLOR", "dumb"])
def test_without_colours_there_are_no_escape_codes(site: Site, env: dict[str, str]) -> None:
    code, raw = shown(80, "status", "--socket", site.socket, env=env)
    assert (code, "\x1b" in raw) == (0, False)
    assert [line.split()[1] for line, _ in rows(raw).values()] == list(STATES.values())


def test_bars_use_ascii_without_unicode(site: Site) -> None:
    done = bearerd("status", "--socket", site.socket, env={"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0
    assert done.stdout.isascii()
    code, raw = shown(80, "status", "--socket", site.socket, env={"PYTHONIOENCODING": "ascii"})
    assert code == 0
    assert raw.isascii()
    assert re.search(r"#+\|#+$", rows(ESCAPE.sub("", raw))["dnb/good"][0])


def test_json_is_the_daemons_status(site: Site, tmp_path: Path) -> None:
    done = bearerd("status", "--json", "--socket", site.socket)
    assert (done.returncode, done.stderr) == (0, "")
    assert {token["name"]: token["state"] for token in json.loads(done.stdout)["tokens"]} == STATES
    body = b'{"tokens":\n\t[ ],  "more": "\xc3\xa9" }'
    with answering(tmp_path / "s", lambda _: http(200, body)):
        said = subprocess.run(
            command("status", "--json", "--socket", tmp_path / "s"), capture_output=True, check=True, timeout=60
        )
    assert said.stdout == body


def test_json_and_watch_do_not_go_together() -> None:
    done = bearerd("status", "--json", "--watch")
    assert (done.returncode, done.stdout) == (2, "")
    assert "argument --watch: not allowed with argument --json" in done.stderr


def test_a_closed_pipe_is_not_a_failure(site: Site) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "wb") as stdout:
        done = subprocess.run(
            command("status", "--socket", site.socket),
            stdout=stdout,
            stderr=subprocess.PIPE,
            timeout=WITHIN,
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("columns", [80, 40])
def test_all_errors_of_a_config_are_shown(tmp_path: Path, columns: int) -> None:
    with serving(issues()) as server:
        site = Site(tmp_path, server.url)
        with running("run", "-c", site.config) as daemon:
            site.wait_for(bci="valid")
            site.write("{bci: {scope: bci, strict_skope: true}}")
            daemon.wait_for("stays in use")
            error = site.status()["config"]["error"]
            code, raw = shown(columns, "status", "--socket", site.socket, env={"NO_COLOR": "1"})
    assert code == 0
    assert max(map(cell_len, raw.splitlines())) <= columns
    assert error.endswith("config.yaml:10:32: unknown key")
    assert "".join(error.split()) in "".join(raw.split())
    assert "valid" in raw


# -- live ------------------------------------------------------------------------------------------


def test_watch_survives_a_restart_of_the_daemon(tmp_path: Path) -> None:
    with serving(issues()) as server:
        site = Site(tmp_path, server.url)
        with on_a_terminal(80, 24, "status", "--watch", "-c", site.config) as terminal:
            at = terminal.wait_for("no daemon answers at")
            with running("run", "-c", site.config) as daemon:
                at = terminal.wait_for(f"pid {daemon.process.pid}", at)
                at = terminal.wait_for("1 token: 1 valid", at)
                site.write("{bci: {scope: bci}, risk: {scope: risk}}")
                at = terminal.wait_for("2 tokens: 2 valid", at)
                assert daemon.stop() == 0
            at = terminal.wait_for("no daemon answers at", at)
            at = terminal.wait_for("from the records in", at)
            at = terminal.wait_for("2 tokens: 2 valid", at)
            with running("run", "-c", site.config) as daemon:
                at = terminal.wait_for(f"pid {daemon.process.pid}", at)
            assert "\x1b[?1049h" in terminal.raw
            assert "\x1b[?1049l" not in terminal.raw
            terminal.process.send_signal(signal.SIGINT)
            assert terminal.end() == 0
            assert "Traceback" not in terminal.text
            assert terminal.raw.rindex("\x1b[?1049l") > terminal.raw.rindex("bearerd")
            assert terminal.raw.rindex("\x1b[?25h") > terminal.raw.rindex("\x1b[?25l")


def test_watch_restores_the_terminal_even_after_term(site: Site) -> None:
    with on_a_terminal(80, 24, "status", "--watch", "--socket", site.socket) as terminal:
        terminal.wait_for("4 tokens:")
        terminal.process.send_signal(signal.SIGTERM)
        assert terminal.end() == 128 + signal.SIGTERM
        assert terminal.raw.rindex("\x1b[?1049l") > terminal.raw.rindex("4 tokens")
        assert terminal.raw.rindex("\x1b[?25h") > terminal.raw.rindex("\x1b[?25l")


def test_watch_shows_the_most_urgent_tokens_if_not_all_fit(site: Site) -> None:
    with on_a_terminal(80, 12, "status", "--watch", "--socket", site.socket) as terminal:
        terminal.wait_for(" more: 1 ", terminal.wait_for(" more: 1 "))
        assert "dnb/gone     expired" in terminal.text
        assert "dnb/good" not in terminal.text


def test_watch_into_a_pipe_writes_one_after_the_other(site: Site) -> None:
    process = subprocess.Popen(
        command("status", "--watch", "--socket", site.socket), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        heads = (line for line in process.stdout if line.startswith("bearerd "))
        assert [head.split(",")[0] for _, head in zip(range(3), heads, strict=False)] == [f"bearerd {__version__}"] * 3
    finally:
        process.kill()
        out, err = process.communicate()
    assert ("\x1b" in out, err) == (False, "")


# -- no daemon -------------------------------------------------------------------------------------


def make_older(site: Site, name: str) -> None:
    """As if a token had been obtained two hours earlier: a slow machine is late for one that lives for seconds."""
    record = site.tokens / f".bearerd/records/dnb/{name}.json"
    document = json.loads(record.read_text())
    for clock in ("obtained_wall", "obtained_boot"):
        document[clock] -= 7200
    record.write_text(json.dumps(document))


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The records of a killed daemon: a valid token, and one that has expired."""
    with serving(issues()) as server:
        site = Site(tmp_path_factory.mktemp("s"), server.url, "{long: {scope: long}, short: {scope: short}}")
        with running("run", "-c", site.config) as daemon:
            site.wait_for(long="valid", short="valid")
            daemon.stop(signal.SIGKILL)
        make_older(site, "short")
        yield site


NO_SOCKET = "there is no such socket; is bearerd running? use --socket for another path"
NO_DAEMON = "bearerd: no daemon answers at {}: connection refused: the daemon was killed\n"


@pytest.mark.parametrize("by", ["--socket", "-c"])
def test_without_a_daemon_status_uses_the_records(left: Site, by: str) -> None:
    def look() -> subprocess.CompletedProcess[str]:
        return bearerd("status", by, left.socket if by == "--socket" else left.config)

    done = look()
    assert done.returncode == 1
    assert done.stderr == NO_DAEMON.format(left.socket)
    assert done.stdout.splitlines()[:2] == [
        f"from the records in {left.tokens}",
        (
            "no daemon refreshes these tokens. "
            "The expiry times are from the records; the token files were not checked. "
            "To do: start bearerd; its log says why it ended."
        ),
    ]
    table = rows(done.stdout)
    assert re.match(r"dnb/long +valid +(1 h|[345]\d min)$", table["dnb/long"][0])
    assert re.match(
        r"dnb/short +expired +1 h ago +no daemon refreshed it. There is no valid token: the last one expired 1 h ago "
        r"\(at .*\)\. To do: start bearerd\.$",
        table["dnb/short"][0],
    )
    assert "NEXT" not in done.stdout


def test_offline_json_has_the_same_form(left: Site, site: Site) -> None:
    done = bearerd("status", "--json", "--socket", left.socket)
    assert (done.returncode, done.stderr) == (1, NO_DAEMON.format(left.socket))
    said, running_one = json.loads(done.stdout), site.status()
    assert said["alive"] is False
    assert said.keys() == running_one.keys()
    assert said["tokens"][0].keys() == running_one["tokens"][0].keys()
    assert [token["name"] for token in said["tokens"]] == ["dnb/long", "dnb/short"]


def test_status_without_records_says_so(tmp_path: Path) -> None:
    done = bearerd("status", "--socket", tmp_path / "x.sock")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines() == [
        f"bearerd: no daemon answers at {tmp_path}/x.sock: {NO_SOCKET}",
        "bearerd: the records are not next to this socket; use -c instead of --socket to find them",
    ]
    done = bearerd("status", "--socket", tmp_path / ".bearerd/control.sock")
    assert done.stderr.splitlines()[1:] == [f"bearerd: there are no records in {tmp_path}/.bearerd/records"]


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """One that everybody may enter: pytest's own are for its user."""
    path = Path(tempfile.mkdtemp(prefix="bearerd-test-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@contextmanager
def as_nobody() -> Iterator[None]:
    groups = os.getgroups()
    os.setgroups([])
    os.setegid(NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


@ROOT
@pytest.mark.parametrize(
    ("directory_mode", "shut"),
    [
        pytest.param("0750", "t", id="the directory is shut"),
        pytest.param("0755", "t/.bearerd/control.sock", id="the socket is"),
    ],
)
def test_a_denied_user_is_told_who_has_access(
    open_directory: Path, directory_mode: str, shut: str, capsys: pytest.CaptureFixture[str]
) -> None:
    group = grp.getgrgid(1).gr_name
    with serving(issues()) as server:
        site = Site(open_directory, server.url)
        site.config.write_text(
            site.config.read_text().replace(
                "output: {", f'output: {{directory_mode: "{directory_mode}", owner: daemon, group: {group}, '
            )
        )  # fmt: skip
        with running("run", "-c", site.config):
            site.wait_for(bci="valid")
            assert cli.main(["status", "--socket", str(site.socket)]) == 0
            capsys.readouterr()
            with as_nobody():
                assert cli.main(["status", "--socket", str(site.socket)]) == 1
    out, err = capsys.readouterr()
    cure = f"as root, run usermod --append --groups {group} nobody, then log in again"
    who = f"{pwd.getpwuid(0).pw_name} and the group {group} only; {cure}"
    assert out == ""
    assert err.splitlines() == [
        f"bearerd: no daemon answers at {site.socket}: permission denied: {open_directory}/{shut} is for {who}",
        f"bearerd: only the daemon's user and root can read the records in {site.tokens}/.bearerd/records",
    ]


@ROOT
def test_nobody_is_told_to_join_the_group_root(open_directory: Path) -> None:
    path = open_directory / "control.sock"
    path.touch()
    path.chmod(0o660)
    os.chown(path, 0, 0)
    with as_nobody():
        assert denied(str(path), stat.S_IWGRP) == f"{path} is for root and the group root only; run the command as root"


# -- what may come over the socket -----------------------------------------------------------------

VALID: dict[str, Any] = {
    "name": "dnb/bci",
    "state": "valid",
    "remaining_seconds": 1800.0,
    "lifetime_seconds": 3600.0,
    "next_refresh_seconds": 900.0,
    "trouble": None,
    "publish_at": None,
}
NEVER = VALID | {"state": "missing", "remaining_seconds": None, "lifetime_seconds": None}


def document(*tokens: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    head = {"version": "1", "pid": 7, "now": "2026-11-24T02:00:00Z", "started_at": "2026-11-24T01:00:00Z"}
    return {**head, "directory": "/run/x", "alive": True, "config": {"error": None}, "tokens": tokens} | more


def test_no_control_character_reaches_the_terminal(tmp_path: Path) -> None:
    evil = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202e\r\nx"
    token = NEVER | {
        "name": evil,
        "state": evil,
        "trouble": {"failed": evil, "holds": evil, "do": evil, "line": evil},
        "publish_at": evil,
    }
    client = {"breaker": evil, "refused": evil, "refusals": 2, "next_probe": evil, "held": 1}
    said = document(
        token, version=evil, directory=evil, started_at=evil, config={"error": evil}, troubles=[{"line": evil}]
    )
    said["clients"] = {evil: client}
    with answering(tmp_path / "s", lambda _: http(200, said)):
        code, raw = shown(80, "status", "--socket", tmp_path / "s", env={"NO_COLOR": "1"})
    assert code == 0
    assert printable(raw.replace("\n", "")) == raw.replace("\n", "")
    assert "owned" in raw


@pytest.mark.parametrize(
    "body",
    [
        b"<html>", b"[]", b"{}", b'{"tokens": 1}', b'{"tokens": [', b'{"tokens": ["x"]}',
        b'{"tokens": [], "clients": 1}', b'{"tokens": [{"remaining_seconds": "x"}, {"remaining_seconds": 1}]}',
        b'{"tokens": [{"name": [{}], "trouble": 1}]}',
    ],
)  # fmt: skip
def test_an_answer_that_is_not_a_status_is_reported(body: bytes, tmp_path: Path) -> None:
    with answering(tmp_path / "s", lambda _: http(200, body)):
        done = bearerd("status", "--socket", tmp_path / "s")
    assert (done.returncode, done.stdout) == (1, "")
    assert re.match(rf"bearerd: the (process that answers|answer) at {tmp_path}/s is not", done.stderr)


def test_a_daemon_without_room_for_another_reply_says_so(tmp_path: Path) -> None:
    with answering(tmp_path / "s", lambda _: http(503, {"error": "too many requests at once"})):
        done = bearerd("status", "--socket", tmp_path / "s")
    assert done.returncode == 1
    assert f"the daemon at {tmp_path}/s did not answer: too many requests at once" in done.stderr


# -- the picture -----------------------------------------------------------------------------------


def drawn(*tokens: Mapping[str, Any], paper: Paper | None = None, **more: Any) -> list[str]:
    return [line.plain for line in picture(document(*tokens, **more), paper or Paper())]


@pytest.mark.parametrize(
    ("token", "bar"),
    [
        pytest.param({}, "." * 15 + "#" * 7 + "|" + "#" * 7, id="half its life, the next refresh half-way from there"),
        pytest.param({"remaining_seconds": 3600.0, "next_refresh_seconds": None}, "#" * 30, id="new"),
        pytest.param({"next_refresh_seconds": 0.0}, "." * 15 + "|" + "#" * 14, id="due"),
        pytest.param({"next_refresh_seconds": 1800.0}, "." * 15 + "#" * 15, id="next refresh at its end"),
        pytest.param({"next_refresh_seconds": 99999.0}, "." * 15 + "#" * 15, id="next refresh after its end"),
        pytest.param({"state": "expired", "remaining_seconds": 0.0}, "." * 30, id="expired"),
        pytest.param({"remaining_seconds": 9999.0}, "#" * 7 + "|" + "#" * 22, id="longer than its life"),
        pytest.param({"remaining_seconds": 1.0, "lifetime_seconds": 0.0}, "15 min", id="no life"),
        pytest.param({"remaining_seconds": None, "lifetime_seconds": None}, "15 min", id="no token"),
    ],
)
def test_the_bar_shows_past_and_remaining_lifetime_and_the_next_refresh(token: dict[str, Any], bar: str) -> None:
    lines = drawn(VALID | token, VALID | {"name": "dnb/all"}, paper=Paper(80, encoding="ascii"))
    row = next(line for line in lines if line.startswith("dnb/bci"))
    assert row.endswith(" " + bar)


TROUBLE = {
    "failed": "HTTP 503, 7 attempts since 2026-11-24T01:30:00Z",
    "holds": "the current token is good until 2026-11-24T02:11:00Z",
    "do": "wait; next attempt at 2026-11-24T02:04:00Z",
}
TROUBLE["line"] = f"{TROUBLE['failed']}. The{TROUBLE['holds'][3:]}. To do: {TROUBLE['do']}."
FAILING = VALID | {"name": "dnb/failing", "state": "failing", "trouble": TROUBLE}
LATER = FAILING | {
    "name": "dnb/later",
    "remaining_seconds": 1860.0,
    "trouble": {name: text.replace("02:04", "02:05").replace("01:30", "01:31") for name, text in TROUBLE.items()},
}
SPOKEN = (
    "HTTP 503, 7 attempts since 01:30. The current token is good for 11 min (until 02:11). "
    "To do: wait; next attempt in 4 min (at 02:04)."
)


@pytest.mark.parametrize("width", [80, 40, 20])
def test_the_line_of_a_token_is_complete_on_a_terminal_of_any_width(width: int) -> None:
    lines = drawn(FAILING, paper=Paper(width, zone=UTC))
    at = next(number for number, line in enumerate(lines) if "failing" in line and not line.startswith("1 token"))
    below = list(itertools.takewhile(lambda line: line.startswith("  "), lines[at + 1 :]))
    assert " ".join(line.strip() for line in below) == SPOKEN
    assert max(map(len, below)) <= width


def test_the_columns_and_the_line_below_them_round_times_in_the_same_way() -> None:
    # The document's times are whole seconds, `now` too: 20.6 s can be 21 s between two of them.
    times = {
        "expires_at": "2026-11-24T02:11:00Z",
        "remaining_seconds": 659.6,
        "next_refresh": "2026-11-24T02:00:21Z",
        "next_refresh_seconds": 20.6,
    }
    trouble = {"line": "HTTP 503. To do: wait; next attempt at 2026-11-24T02:00:21Z."}
    line = drawn(FAILING | times | {"trouble": trouble}, paper=Paper(zone=UTC))[-1]
    assert line == "dnb/failing  failing  11 min  21 s  HTTP 503. To do: wait; next attempt in 21 s (at 02:00:21)."


def test_the_line_of_a_token_is_its_last_column_in_a_pipe() -> None:
    lines = drawn(VALID, FAILING, LATER, paper=Paper(zone=UTC))
    assert lines[-4].split() == ["TOKEN", "STATE", "LEFT", "NEXT", "TROUBLE"]
    assert lines[-3] == f"dnb/failing  failing  30 min  15 min  {SPOKEN}"
    assert lines[-2].startswith("dnb/later    failing  31 min  15 min  HTTP 503, 7 attempts since 01:31. ")
    assert lines[-1] == "dnb/bci      valid    30 min  15 min"


def test_a_terminal_does_not_repeat_the_same_trouble() -> None:
    assert "  The same as dnb/failing. The current token is good for 11 min (until 02:11)." in drawn(
        FAILING, LATER, paper=Paper(80, zone=UTC)
    )


@pytest.mark.parametrize(
    ("at", "note"),
    [
        ("2026-11-24T02:00:30Z", "A new token is published in 30 s (at 02:00:30)."),
        ("2026-11-24T02:00:00Z", "A new token is published now."),
    ],
)
def test_a_new_token_that_waits_for_its_publication_is_shown(at: str, note: str) -> None:
    assert drawn(VALID | {"publish_at": at}, paper=Paper(80, zone=UTC))[5] == f"  {note}"


MANY = [VALID | {"name": f"dnb/t{number}"} for number in range(200)]


def test_the_tokens_that_are_not_well_come_first_and_the_others_are_counted_if_they_do_not_fit() -> None:
    lines = drawn(*MANY[:100], FAILING, *MANY[100:], paper=Paper(80, 23, scrolls=True, zone=UTC))
    assert len(lines) <= 23
    assert lines[3].startswith("TOKEN")
    assert lines[4].startswith("dnb/failing  failing")
    assert re.fullmatch(r"and 1[0-9]{2} more: 1[0-9]{2} valid", lines[-2])
    assert lines[-1] == "bearerd status | less shows all, the most urgent first"
    assert len(drawn(*MANY, FAILING, paper=Paper(zone=UTC))) > 200


def test_more_tokens_with_trouble_than_lines_are_all_shown_if_the_terminal_scrolls() -> None:
    bad = [FAILING | {"name": f"dnb/bad{number}"} for number in range(30)]
    lines = drawn(*MANY, *bad, paper=Paper(80, 23, scrolls=True, zone=UTC))
    assert sum(line.startswith("dnb/bad") for line in lines) == 30
    assert lines[-2] == "and 200 more: 200 valid"
    cut = drawn(*MANY, *bad, paper=Paper(80, 23, zone=UTC))
    assert len(cut) <= 23
    assert cut[-1].startswith("and 2")


@pytest.mark.parametrize(
    ("client", "line"),
    [
        pytest.param({"breaker": "closed"}, None, id="closed"),
        pytest.param({"breaker": "half_open"}, None, id="idle"),
        pytest.param({"breaker": "half_open", "held": 3}, "client dnb: breaker half-open, 3 held", id="half-open"),
        pytest.param(
            {"breaker": "open", "refused": "HTTP 401", "refusals": 3, "held": 2, "next_probe": "2026-11-24T02:04:00Z"},
            "client dnb: breaker open, refused 3 times, next probe in 4 min, 2 held",
            id="open",
        ),
        pytest.param(
            {"breaker": "half_open", "refused": "HTTP 401", "refusals": 1, "next_probe": "2026-11-24T01:59:00Z"},
            "client dnb: breaker half-open, refused, probe now",
            id="probing",
        ),
    ],
)
def test_a_client_has_a_line_unless_it_is_healthy(client: dict[str, Any], line: str | None) -> None:
    lines = drawn(VALID, clients={"dnb": {"refused": None, "refusals": 0, "held": 0, "next_probe": None} | client})
    assert [each for each in lines if each.startswith("client")] == ([line] if line else [])


def test_few_of_many_refused_clients_have_a_line_each() -> None:
    client = {"breaker": "open", "refused": "HTTP 401", "refusals": 1, "held": 1, "next_probe": "2026-11-24T02:04:00Z"}
    lines = drawn(VALID, clients={f"c{number}": client for number in range(9)})
    assert len([line for line in lines if line.startswith("client")]) == 5
    assert "and 4 more clients" in lines


SHARE = {
    "name": "rediss://redis.internal:6379/0",
    "clients": ["dnb", "xero"],
    "state": "up",
    "since": "2026-11-24T01:55:00Z",
    "waiting": 0,
    "taken": 12,
    "stored": 1,
}


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({}, "up for 5 min, 2 clients, 12 tokens taken, 1 stored"),
        ({"state": "down", "waiting": 3}, "down for 5 min, 2 clients, 12 tokens taken, 1 stored, 3 waiting"),
    ],
    ids=["up", "down"],
)
@pytest.mark.parametrize("width", [80, 40])
def test_a_share_has_a_line(changes: dict[str, Any], line: str, width: int) -> None:
    lines = drawn(VALID, shares=[SHARE | changes], paper=Paper(width, zone=UTC))
    at = next(number for number, each in enumerate(lines) if each.startswith("share"))
    below = itertools.takewhile(bool, lines[at:])
    assert " ".join(each.strip() for each in below) == f"share rediss://redis.internal:6379/0: {line}"


def test_few_of_many_shares_have_a_line() -> None:
    lines = drawn(VALID, shares=[SHARE] * 5)
    assert len([line for line in lines if line.startswith("share")]) == 3
    assert "and 2 more shares" in lines


def test_without_a_share_there_is_no_line_about_one() -> None:
    assert not any("share" in line for line in (*drawn(VALID), *drawn(VALID, shares=[])))


def test_the_line_about_the_daemon_is_above_the_tokens() -> None:
    assert drawn(VALID, troubles=[TROUBLE], paper=Paper(zone=UTC))[1] == SPOKEN
    assert drawn(VALID)[1] == "1 token: 1 valid"


def test_the_legend_explains_only_what_the_bars_show() -> None:
    assert drawn(VALID, paper=Paper(80))[-1].endswith(" left  │ next refresh")
    assert drawn(VALID | {"next_refresh_seconds": None}, paper=Paper(80))[-1].endswith(" left")


def test_columns_disappear_one_by_one_on_narrow_terminals() -> None:
    def headings(width: int) -> list[str]:
        lines = drawn(VALID | {"name": "client/quite-a-long-token"}, paper=Paper(width))
        return next(line for line in lines if line.startswith("TOKEN")).split()

    assert headings(80) == ["TOKEN", "STATE", "LEFT", "NEXT", "LIFE"]
    assert headings(50) == ["TOKEN", "STATE", "LEFT", "NEXT"]
    assert headings(40) == ["TOKEN", "STATE", "LEFT"]


def test_empty_columns_are_not_shown() -> None:
    for paper, last in (Paper(80), ["LIFE"]), (Paper(), []):
        lines = drawn(VALID | {"next_refresh_seconds": None}, paper=paper)
        assert next(line for line in lines if line.startswith("TOKEN")).split() == ["TOKEN", "STATE", "LEFT", *last]
        assert "LIFE" not in "\n".join(drawn(NEVER, paper=paper))


def test_the_mark_below_a_config_line_keeps_its_column() -> None:
    lines = drawn(config={"error": "c.yaml:1:2: no\n    1 | \tx: y\n      | \t   ^"}, paper=Paper(40))
    line, mark = (next(line for line in lines if part in line) for part in ("x: y", "^"))
    assert line.index("y") == mark.index("^")
    assert "?" not in line


def test_a_name_that_is_too_long_keeps_both_its_ends() -> None:
    lines = drawn(VALID | {"name": "client-of-somebody/" + "x" * 40 + "-token"}, paper=Paper(40))
    assert re.search(r"^client-\S*…\S*x-token  valid", "\n".join(lines), re.MULTILINE)


WORDS = st.text(max_size=60)


@given(
    width=st.integers(10, 200),
    height=st.none() | st.integers(1, 40),
    names=st.lists(st.text("abc-/é漢", min_size=1, max_size=129), min_size=0, max_size=8),
    error=st.none() | WORDS,
    config_error=st.none() | st.text(max_size=300),
    encoding=st.sampled_from(["utf-8", "ascii", "iso-8859-1"]),
    left=st.floats(0, 1e7),
    turn=st.none() | st.floats(0, 1e7),
)
def test_every_document_fits_the_terminal(
    width: int, height: int | None, names: list[str], error: str | None, config_error: str | None, encoding: str,
    left: float, turn: float | None,
) -> None:  # fmt: skip
    states = ["valid", "failing", "expired", "missing", "starting"]
    tokens = [
        VALID | {"name": name, "state": states[index % 5], "trouble": error and {"line": error},
                 "remaining_seconds": left,
                 "lifetime_seconds": 3600.0, "next_refresh_seconds": turn, "expires_at": "2026-01-01T00:00:00Z"}
        for index, name in enumerate(names)
    ]  # fmt: skip
    lines = picture(document(*tokens, config={"error": config_error}), Paper(width, height, encoding, zone=UTC), error)
    assert all(cell_len(line.plain) <= width for line in lines)
    assert height is None or len(lines) <= height
    for line in lines:
        line.plain.encode(encoding)
        assert printable(line.plain) == line.plain
