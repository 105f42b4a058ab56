"""What probes and consumers run."""

from __future__ import annotations

import os
import re
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import chain, repeat
from pathlib import Path

import pytest

from bearerd import cli
from bearerd.cli import health as module
from bearerd.cli.ask import find
from bearerd.cli.health import health
from bearerd.config.defaults import Defaults
from bearerd.config.here import default_socket
from support.api import Site, answering, http
from support.process import WITHIN, bearerd, command, eventually, running
from support.readers import ROOT, acting_as, open_directory
from support.server import Answer, Seen, issues, serving

LIVE = http(200, {"ok": True, "reasons": [], "config_error": None})
VALID = http(200, {"tokens": [{"name": "dnb/bci", "state": "valid", "last_error": None}]})


@pytest.fixture(autouse=True)
def _nothing_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BEARERD_SOCKET", raising=False)
    monkeypatch.delenv("BEARERD_CONFIG", raising=False)


# -- a real daemon ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One token that is valid, one that is failing, one that is missing, and one that is not required."""
    issue = issues(3600)
    scopes: list[str] = []

    def script(seen: Seen) -> Answer:
        scope = seen.body.decode().partition("scope=")[2]
        scopes.append(scope)
        if scope == "good" or (scope == "failing" and scopes.count(scope) == 1):
            return issue(seen)
        return Answer(400, {"error": "invalid_scope"})

    with serving(script) as server:
        site = Site(
            tmp_path_factory.mktemp("health"),
            server.url,
            "{good: {scope: good}, failing: {scope: failing}, missing: {scope: x}, spare: {scope: y, required: false}}",
        )
        with running("run", "-c", site.config):
            site.wait_for(good="valid", failing="valid", missing="missing", spare="missing")
            assert bearerd("refresh", "dnb/failing", "--socket", site.socket).returncode == 1
            yield site


REFUSED = "HTTP 400 invalid_scope: the scope was refused"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        pytest.param([], 1, ["not ready: dnb/missing: missing: " + REFUSED], id="ready"),
        pytest.param(["--ready"], 1, ["not ready: dnb/missing: missing: " + REFUSED], id="ready by name"),
        pytest.param(["--live"], 0, ["alive"], id="live"),
        pytest.param(["dnb/good"], 0, ["valid"], id="a token"),
        pytest.param(["dnb/good", "dnb/failing"], 0, ["valid"], id="one that fails and is good still"),
        pytest.param(["--ready", "dnb/good"], 0, ["valid"], id="a token that is ready"),
        pytest.param(["dnb/good", "dnb/missing"], 1, ["dnb/missing: missing: " + REFUSED], id="one of two"),
        pytest.param(["dnb/spare"], 1, ["dnb/spare: missing: " + REFUSED], id="one that is not required"),
        pytest.param(["dnb/goot"], 1, ["there is no token 'dnb/goot'; did you mean 'dnb/good'?"], id="unknown"),
        pytest.param(["a b&name=dnb/good"], 1, ["there is no token 'a b&name=dnb/good'"], id="no name at all"),
        pytest.param([""], 1, ["there is no token ''; a token is named CLIENT/TOKEN"], id="empty"),
        pytest.param(["dnb"], 1, ["dnb is a client: name one of its tokens, such as dnb/"], id="a client"),
        pytest.param(["good"], 1, ["there is no token 'good'; did you mean 'dnb/good'?"], id="without client"),
        pytest.param(["xyz"], 1, ["there is no token 'xyz'; a token is named CLIENT/TOKEN"], id="no token's name"),
    ],
)
@pytest.mark.parametrize("how", ["--socket", "--socket=", "variable", "-c", "--wait"])
def test_every_way_to_name_the_socket_gives_the_same_result(
    site: Site, how: str, arguments: list[str], code: int, said: list[str], capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(module, "_LEAST_PATIENCE", WITHIN)  # with a wait that is as good as over
    ways = {
        "--socket": ["--socket", str(site.socket)],
        "--socket=": [f"--socket={site.socket}"],
        "-c": ["-c", str(site.config)],
        "--wait": ["--socket", str(site.socket), "--wait", "10ms"],
    }
    if how == "variable":
        monkeypatch.setenv("BEARERD_SOCKET", str(site.socket))
    assert cli.main(["health", *ways.get(how, []), *arguments]) == code
    out, err = capsys.readouterr()
    lines = (err if code else out).splitlines()
    assert (out == "") == (code == 1)
    assert (err == "") == (code == 0)
    assert len(lines) == len(said)
    for line, start in zip(lines, said, strict=True):
        assert line.startswith(f"bearerd: {start}" if code else start)


def test_the_command_itself_ends_with_the_code(site: Site) -> None:
    done = bearerd("health", "--live", env={"BEARERD_SOCKET": str(site.socket)})
    assert (done.returncode, done.stdout, done.stderr) == (0, "alive\n", "")
    done = bearerd("health", "--socket", site.socket, "dnb/missing")
    assert (done.returncode, done.stdout) == (1, "")


def test_a_consumer_that_starts_before_the_daemon_waits_for_its_token(tmp_path: Path) -> None:
    asked = threading.Event()
    issue = issues(3600)

    def script(seen: Seen) -> Answer:
        asked.wait()
        return issue(seen)

    with serving(script) as server:
        site = Site(tmp_path, server.url)
        waiting = subprocess.Popen(
            command("health", "--wait", "1h", "--socket", site.socket, "dnb/bci"), stdout=subprocess.PIPE, text=True
        )
        with ExitStack() as stack:
            stack.callback(waiting.kill)
            stack.enter_context(running("run", "-c", site.config))
            server.wait_for(1)
            assert waiting.poll() is None
            asked.set()
            assert waiting.communicate(timeout=WITHIN)[0] == "valid\n"
        assert waiting.returncode == 0
        assert (site.tokens / "dnb/bci").exists()


def test_the_socket_can_be_set_in_the_config(tmp_path: Path) -> None:
    with serving(issues()) as server:
        site = Site(tmp_path, server.url, top=f"control: {{socket: {tmp_path}/mine.sock}}")
        with running("run", "-c", site.config):
            done = bearerd("health", "-c", site.config, "--wait", "2m")
            assert (done.returncode, done.stdout) == (0, "ready\n")
            done = bearerd("health", env={"BEARERD_CONFIG": str(site.config)})
            assert (done.returncode, done.stdout) == (0, "ready\n")


def test_with_a_socket_option_the_config_is_not_read(tmp_path: Path) -> None:
    missing = {"BEARERD_CONFIG": str(tmp_path / "missing.yaml")}
    with answering(tmp_path / "s", lambda _: LIVE):
        for named in (["--socket", str(tmp_path / "s")], []):
            done = bearerd("health", *named, env=missing | ({} if named else {"BEARERD_SOCKET": str(tmp_path / "s")}))
            assert (done.returncode, done.stdout, done.stderr) == (0, "ready\n", "")


@pytest.mark.parametrize(
    ("given", "variable", "config", "found"),
    [
        pytest.param("/a", "/b", "{}/c", "/a", id="the option before all"),
        pytest.param(None, "/b", "{}/c", "/b", id="the variable before the config"),
        pytest.param(None, None, "{}/c", "/named", id="the config before that of the user"),
        pytest.param(None, "", None, "/of/the/user", id="the user's own config before the default"),
    ],
)
def test_the_socket_is_found_in_this_order(
    given: str | None, variable: str | None, config: str | None, found: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    (tmp_path / "c").write_text("control: {socket: /named}\n")
    (tmp_path / "bearerd").mkdir()
    (tmp_path / "bearerd" / "config.yaml").write_text("control: {socket: /of/the/user}\n")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    if variable is not None:
        monkeypatch.setenv("BEARERD_SOCKET", variable)
    assert find(given, config and config.format(tmp_path))[0] == found


def test_a_user_without_a_daemon_of_their_own_reaches_that_of_the_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, system = tmp_path / "mine", tmp_path / "system"
    mine.mkdir()
    known = Defaults({"XDG_RUNTIME_DIR": str(mine)}, 1000, lambda _: 1000)
    monkeypatch.setattr(known, "directories", (f"{mine}/bearerd", str(system)))
    assert default_socket(known) == f"{mine}/bearerd/.bearerd/control.sock"
    (system / ".bearerd").mkdir(parents=True)
    (system / ".bearerd" / "control.sock").touch()
    assert default_socket(known) == f"{system}/.bearerd/control.sock"


@ROOT
def test_a_daemon_of_the_system_that_a_user_may_not_ask_is_reported_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    with open_directory() as directory:
        system = directory / "system"
        (system / ".bearerd").mkdir(parents=True)
        system.chmod(0o750)
        known = Defaults({}, 1000, lambda _: 1000)
        monkeypatch.setattr(known, "directories", (f"{directory}/mine", str(system)))
        with acting_as(65534):
            assert default_socket(known) == f"{system}/.bearerd/control.sock"


# -- waiting ---------------------------------------------------------------------------------------


def test_health_waits_for_a_missing_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pauses: list[float] = []
    with ExitStack() as stack:

        def sleep(seconds: float) -> None:
            pauses.append(seconds)
            if len(pauses) == 5:
                stack.enter_context(answering(tmp_path / "s", lambda _: LIVE))

        monkeypatch.setattr(time, "sleep", sleep)
        assert health(str(tmp_path / "s"), live=False, names=[], wait=3600) == 0
    assert pauses == [0.1, 0.2, 0.4, 0.8, 1.0]
    assert capsys.readouterr() == ("ready\n", "")


def test_health_waits_for_a_daemon_that_is_not_ready(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answers = [http(503, {"ok": False, "reasons": ["x: starting"]}), b"", b"HTTP/1.1 200", LIVE]
    with answering(tmp_path / "s", lambda _: answers.pop(0)) as asked:
        assert cli.main(["health", "--socket", str(tmp_path / "s"), "--wait", "1m"]) == 0
    assert asked == ["GET /readyz"] * 4
    assert capsys.readouterr() == ("ready\n", "")


def test_a_wait_that_is_over_ends_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "_LEAST_PATIENCE", WITHIN)
    starting = http(200, {"tokens": [{"state": "starting"}]})
    with answering(tmp_path / "s", lambda _: starting) as asked:
        assert cli.main(["health", "--socket", str(tmp_path / "s"), "--wait", "250ms", "dnb/bci"]) == 1
    assert set(asked) == {"GET /status?name=dnb/bci"}
    assert capsys.readouterr() == ("", "bearerd: dnb/bci: starting\n")


def test_health_fails_for_a_token_that_is_not_in_its_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    token = {"state": "unwritten", "file_errors": ["/x: full", "/y: full"], "last_error": "HTTP 503"}
    with answering(tmp_path / "s", lambda _: http(200, {"tokens": [token]})):
        assert cli.main(["health", "--socket", str(tmp_path / "s"), "dnb/bci"]) == 1
    assert capsys.readouterr().err == "bearerd: dnb/bci: unwritten: /x: full; /y: full; HTTP 503\n"


@pytest.mark.parametrize("names", [[], ["dnb/one", "dnb/two"]], ids=["all", "by name"])
def test_health_says_what_holds_a_token_that_was_never_requested(
    names: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(issues()) as server:
        site = Site(tmp_path, server.url, "{one: {scope: one}, two: {scope: two}}\n    rate_limit: 1/8h")
        with running("run", "-c", site.config):
            eventually(lambda: sorted(site.states().values()) == ["starting", "valid"] and held(site))
            assert cli.main(["health", "--socket", str(site.socket), *names]) == 1
    said = capsys.readouterr().err
    assert re.fullmatch(r"bearerd: (not ready: )?dnb/(one|two): starting: held: its rate_limit allows no .*\n", said)


def held(site: Site) -> bool:
    """Whether a token is held."""
    return any(token["held_by"] for token in site.status()["tokens"])


# -- what else may answer --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        pytest.param(b"", "no daemon answers at {}: it closed the connection; it is stopping, has", id="nothing"),
        pytest.param(b"SSH-2.0-x\r\n", "the process that answers at {} is not bearerd", id="no HTTP"),
        pytest.param(http(404, {}), "the process that answers at {} is not bearerd: HTTP 404", id="another service"),
        pytest.param(http(200, {}), "the process that answers at {} is not bearerd", id="another service's 200"),
        pytest.param(http(200, b"<html>"), "the answer at {} is not from bearerd, or was cut off", id="a web page"),
        pytest.param(http(503, b"<html>"), "the answer at {} is not from bearerd, or was cut off", id="HTML"),
        pytest.param(http(503, b"[" * 200_000), "the answer at {} is not from bearerd, or was cut off", id="deep JSON"),
        pytest.param(b"HTTP/1.1 %b x\r\n\r\n" % (b"9" * 5000), "the process that answers at {} is", id="long status"),
        pytest.param(http(503, {}), "not ready: no reason given", id="no reasons"),
        pytest.param(http(503, {"error": "too many"}), "not ready: too many", id="no room"),
        pytest.param(http(503, {"reasons": ["a\x1b[2Jb", "c"]}), "not ready: a?[2Jb\nbearerd: not ready: c", id="ESC"),
    ],
)  # fmt: skip
def test_health_explains_its_failures(
    answer: bytes, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "s"
    with answering(path, lambda _: answer):
        assert cli.main(["health", "--socket", str(path)]) == 1
    out, err = capsys.readouterr()
    assert (out, err.startswith(f"bearerd: {said.format(path)}")) == ("", True)
    assert err.endswith("\n")
    assert "\x1b" not in err


def test_a_connection_that_is_closed_at_once_is_explained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def close() -> None:  # before the request is read: the client gets a reset, or a broken pipe
            listener.accept()[0].close()

        thread = threading.Thread(target=close)
        thread.start()
        assert cli.main(["health", "--socket", str(path)]) == 1
        thread.join()
    assert capsys.readouterr().err == (
        f"bearerd: no daemon answers at {path}: it closed the connection; it is stopping, has too many clients, or has "
        "no free file descriptors (LimitNOFILE)\n"
    )


@pytest.mark.parametrize("tokens", [["x"], [[]], [{"state": []}], [{"state": "missing", "file_errors": None}]], ids=str)
def test_a_status_with_other_types_is_reported(
    tokens: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with answering(tmp_path / "s", lambda _: http(200, {"tokens": tokens})):
        assert cli.main(["health", "--socket", str(tmp_path / "s"), "dnb/bci"]) == 1
    said = f"bearerd: the answer at {tmp_path}/s is not a status as this version of bearerd knows it\n"
    assert capsys.readouterr() == ("", said)


def test_an_endless_answer_does_not_fill_the_memory(tmp_path: Path) -> None:
    path, limit = tmp_path / "s", 2**30
    with answering(path, lambda _: chain([b"HTTP/1.1 200 OK\r\n\r\n"], repeat(b"x" * 65536))):
        done = subprocess.run(
            command("health", "--socket", path),
            capture_output=True,
            text=True,
            check=False,
            timeout=WITHIN,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (limit, limit)),
        )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"bearerd: the process that answers at {path} is not bearerd: it sent more than 64 MiB\n"


def test_a_truncated_status_is_rejected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "s"
    with answering(path, lambda _: VALID[:-20]):
        assert cli.main(["health", "--socket", str(path), "dnb/bci"]) == 1
    assert "was cut off" in capsys.readouterr().err


@pytest.mark.parametrize("part", [b"", b"HTTP/1.1 200 OK\r\n\r\n"], ids=["silent", "in the middle"])
def test_a_daemon_that_hangs_ends_the_wait(
    part: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.1)
    over = threading.Event()

    def script(_: str) -> bytes:
        over.wait()
        return part

    with ExitStack() as stack:
        stack.enter_context(answering(tmp_path / "s", script))
        stack.callback(over.set)
        assert cli.main(["health", "--live", "--socket", str(tmp_path / "s")]) == 1
    assert "a process listens, but sent no complete answer within 0.1 s" in capsys.readouterr().err


def test_an_endless_answer_is_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.1)
    with answering(tmp_path / "s", lambda _: repeat(b"x" * 100)):
        assert cli.main(["health", "--live", "--socket", str(tmp_path / "s")]) == 1
    assert "a process listens, but sent no complete answer within 0.1 s" in capsys.readouterr().err


def test_a_reader_that_disconnects_has_no_effect(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "wb") as stdout, answering(tmp_path / "s", lambda _: LIVE):
        argv = command("health", "--socket", tmp_path / "s")
        buffered = {**os.environ, "PYTHONUNBUFFERED": ""}  # so that the end of the process is what writes
        done = subprocess.run(argv, stdout=stdout, stderr=subprocess.PIPE, timeout=WITHIN, check=False, env=buffered)
    assert (done.returncode, done.stderr) == (0, b"")


# -- its price -------------------------------------------------------------------------------------

_LOADED = """
import sys
{}
print(*sys.modules)
"""


def loaded(code: str) -> set[str]:
    done = subprocess.run([sys.executable, "-c", _LOADED.format(code)], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize("how", ["--socket", "-c", "BEARERD_CONFIG"])
@pytest.mark.parametrize("arguments", [[], ["--live"], ["dnb/bci"]], ids=["ready", "live", "a token"])
def test_a_probe_imports_next_to_nothing(arguments: list[str], how: str, tmp_path: Path) -> None:
    path, config = tmp_path / "s", tmp_path / "config.yaml"
    config.write_text(f"control: {{socket: {path}}}\n")
    given = {"--socket": ["--socket", str(path)], "-c": ["-c", str(config)]}.get(how, [])
    named = f"import os\nos.environ['BEARERD_CONFIG'] = {str(config)!r}\n" if how == "BEARERD_CONFIG" else ""
    with answering(path, lambda request: VALID if "name" in request else LIVE):
        probe = loaded(f"{named}from bearerd.cli import main\nassert main(['health', *{given + arguments}]) == 0")
    needed = loaded("import __future__, errno, os, socket, stat, time" + (", json" if "dnb/bci" in arguments else ""))
    ours = {"bearerd", "bearerd.cli", "bearerd.cli.ask", "bearerd.cli.health"}
    ours |= {"bearerd.descriptors", "bearerd.printable", "bearerd.process", "bearerd.reason"}
    located = {"bearerd.config", "bearerd.config.defaults", "bearerd.config.here", "bearerd.config.locate"}
    assert probe - needed == ours | (set() if how == "--socket" else located | {"bearerd.regular"})


# -- the command line ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--ready", "--live"], "argument --live: not allowed with argument --ready"),
        (["--live", "dnb/bci"], "argument --live: not allowed with TOKEN"),
        (["--wait", "10"], "argument --wait: expected a duration such as 500ms"),
        (["--wait"], "argument --wait: expected one argument"),
        (["--socket"], "argument --socket: expected one argument"),
        (["--socket", "x", "-c", "y"], "not allowed with argument"),
        (["--liv3"], "unknown option '--liv3'; did you mean '--live'?"),
    ],
)
def test_a_wrong_command_line_exits_2(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        cli.main(["health", *arguments])
    assert raised.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["status", "refresh", "health"])
def test_each_command_has_help_and_is_listed(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--help"], [verb, "--help"]):
        with pytest.raises(SystemExit) as raised:
            cli.main(arguments)
        assert raised.value.code == 0
    whole, _, own = capsys.readouterr().out.partition(f"usage: bearerd {verb} ")
    assert f"\n  {verb} " in whole
    assert "--socket PATH" in own
