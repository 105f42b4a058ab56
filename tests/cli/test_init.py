"""`bearerd init`: on a terminal, in scripts, and what it leaves on disk."""

from __future__ import annotations

import os
import pty
import re
import select
import shlex
import signal
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from bearerd import cli
from bearerd.cli import init as module
from bearerd.cli.new_files import NewFile, new_files
from bearerd.cli.next_steps import next_steps
from bearerd.config.load import load
from support.process import WITHIN, command
from support.server import Answer, issues, serving

SECRET: Final = "s3cr:t+%"
AUTH0: Final = ["auth0", "--set", "host=x.example", "--set", "client_id=0123", "--set", "audience=a: b"]


@pytest.fixture(autouse=True)
def _no_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BEARERD_CONFIG", raising=False)
    # Also for a user with a session.
    monkeypatch.setenv("RUNTIME_DIRECTORY", "/run/bearerd")


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "given"
    path.write_text(f"{SECRET}\n")
    return path


def tree(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


def init(directory: Path, *arguments: str | Path) -> int:
    return cli.main(["init", *map(str, arguments), "--directory", str(directory)])


# -- in scripts ------------------------------------------------------------------------------------


def test_answers_and_a_secret_file_are_all_that_a_script_needs(
    tmp_path: Path, secret: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = tmp_path / "new" / "a b"
    assert init(directory, *AUTH0, "--secret-file", secret) == 0
    out, err = capsys.readouterr()
    config, copy = directory / "config.yaml", directory / "auth0.secret"
    assert (tree(directory), copy.read_text(), err) == (["auth0.secret", "config.yaml"], f"{SECRET}\n", "")
    assert SECRET not in out + config.read_text()
    [target] = load(str(config), os.environ).targets
    assert (target.client.client_id, dict(target.parameters)["audience"]) == ("0123", "a: b")
    assert out.startswith(f"\nwrote {config}\nwrote {copy}, which only this user can read\n\nNext:\n")
    check, run, cat = [shlex.split(line, comments=True) for line in out.splitlines()[-3:]]
    assert check[-4:] == ["check", "--online", "-c", str(config)]
    assert run[-3:] == ["run", "-c", str(config)]
    assert cat == ["cat", "/run/bearerd/acme/api"]


def test_missing_and_wrong_answers_are_one_error_that_lists_all_of_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert init(tmp_path / "c", "auth0", "--set", "host=https://x.example/") == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == (
        "bearerd: init auth0 needs these answers; nothing was written:\n"
        "  --set host=https://x.example/: expected a host such as acme.eu.auth0.com, without https:// and without a "
        "path\n"
        "  --set audience=…: Audience: the API's identifier, such as https://api.acme.example.com\n"
        "  --set client_id=…: Client id, such as Hk3v9PqExample\n"
        "  --secret-file FILE: Client secret; - reads it from standard input\n"
    )
    assert tree(tmp_path) == []


def test_the_error_about_missing_answers_lists_the_optional_questions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert init(tmp_path / "c", "other", "--set", "name=mine") == 2
    assert capsys.readouterr().err.splitlines()[1:] == [
        "  --set token_url=…: Token endpoint, such as https://login.acme.example.com/oauth/token",
        "  --set client_id=…: Client id, such as reports",
        "  --secret-file FILE: Client secret; - reads it from standard input",
        "  optional: --set auth=… (client_secret_basic), --set scope=…, --set audience=…",
    ]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param([], "init needs a PROVIDER, one of adobe, auth0, ", id="no provider"),
        pytest.param(["keyclok"], "'keyclok'; did you mean 'keycloak'? 'other'", id="mistyped"),
        pytest.param(["bisnode"], "'bisnode'; did you mean 'dnb' or 'dnb-sandbox'? 'other'", id="name of a host"),
        pytest.param(["Azure"], "did you mean 'azure-apim' or 'entra' or 'entra-certificate' or", id="another name"),
        pytest.param(["zzzz"], "it knows adobe, auth0", id="unknown"),
        pytest.param([*AUTH0, "--set", "zone=x"], "no question 'zone'. It has host, ", id="no such key"),
        pytest.param([*AUTH0, "--set", "hots=x"], "no question 'hots'; did you mean 'host'? It has", id="key"),
        pytest.param([*AUTH0, "--set", "z=x"], "no question 'z'. It has host, ", id="no such key"),
        pytest.param([*AUTH0, "--set", "host=y"], "--set host was given twice", id="twice"),
        pytest.param([*AUTH0, "--set", "host"], "--set: expected KEY=VALUE", id="no value"),
        pytest.param([*AUTH0, "--set", "client_secret=hunter2"], "use --secret-file for the secret", id="a secret"),
        pytest.param([*AUTH0, "--secret-file", "/none"], "/none: no such file or directory", id="no file"),
        pytest.param([*AUTH0, "--secret-file", "/"], "secret file /: is a directory", id="a directory"),
        pytest.param([*AUTH0, "--secret-file", "/dev/zero"], "larger than 64 KiB, so not a secret", id="endless"),
        pytest.param([*AUTH0, "--secret-file", "/dev/null"], "secret file /dev/null: it is empty", id="empty"),
        pytest.param(
            ["keycloak-kubernetes", "--set", "issuer=https://x.example", "--set", "assertion_file=/none"],
            "--set assertion_file=/none: there is no such file", id="no such path",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_and_nothing_is_written(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert init(tmp_path / "c", *arguments) == 2
    out, err = capsys.readouterr()
    assert (out, tree(tmp_path)) == ("", [])
    assert said in err
    assert "hunter2" not in err


def test_a_key_that_others_can_read_is_not_named_in_a_config(
    tmp_path: Path, secret: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    secret.chmod(0o640)
    assert init(tmp_path / "c", "azure-apim", "--set", f"subscription_key={secret}", "--secret-file", secret) == 2
    said = f"--set subscription_key={secret}: mode 0640 lets others access it; run chmod 600 on it\n"
    assert said in capsys.readouterr().err


def test_an_empty_standard_input_is_named(tmp_path: Path) -> None:
    done = subprocess.run(
        command("init", *AUTH0, "--secret-file", "-", "--directory", tmp_path / "c"),
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (2, "bearerd: the secret on standard input: it is empty\n")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"a\nb\n", "it has more than one line"),
        (b"a \n", "it begins or ends with a space, which would be sent as part of it; remove it"),
        (b"\xef\xbb\xbfa", "it begins with a byte order mark"),
        (b"\xff\xfe", "it is not UTF-8 text"),
    ],
)
def test_a_secret_that_check_would_refuse_is_not_written(
    content: bytes, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "s").write_bytes(content)
    assert init(tmp_path / "c", *AUTH0, "--secret-file", tmp_path / "s") == 2
    assert said in capsys.readouterr().err
    assert tree(tmp_path) == ["s"]


def test_the_secret_may_come_from_standard_input(tmp_path: Path) -> None:
    done = subprocess.run(
        [*command("init"), *AUTH0, "--secret-file", "-", "--directory", tmp_path / "c"],
        input=f"{SECRET}\r\n", capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "c" / "auth0.secret").read_text() == f"{SECRET}\n"


def test_a_pipe_is_no_terminal_so_nothing_is_asked(tmp_path: Path) -> None:
    done = subprocess.run(
        [*command("init"), *AUTH0, "--directory", tmp_path / "c"],
        input=f"{SECRET}\n", capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert "--secret-file FILE: Client secret" in done.stderr


# -- files -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["config.yaml", "auth0.secret"])
@pytest.mark.parametrize("kind", ["file", "dangling link"])
def test_nothing_is_overwritten(
    name: str, kind: str, tmp_path: Path, secret: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = tmp_path / "c"
    directory.mkdir()
    if kind == "file":
        (directory / name).write_text("mine")
    else:
        (directory / name).symlink_to("elsewhere")
    assert init(directory, *AUTH0, "--secret-file", secret) == 1
    err = capsys.readouterr().err
    assert f"bearerd: {directory / name} exists, and init overwrites nothing; nothing was written." in err
    assert "use --directory for another place" in err
    assert tree(directory) == [name]
    assert kind != "file" or (directory / name).read_text() == "mine"


@pytest.mark.parametrize("taken", ["a", "b"])
def test_a_file_that_appears_meanwhile_is_not_overwritten_either(taken: str, tmp_path: Path) -> None:
    files = [NewFile("a", b"ours", 0o600), NewFile("b", b"ours", 0o644)]
    with pytest.raises(FileExistsError), new_files(str(tmp_path), 0o755, files):
        (tmp_path / taken).write_text("theirs")
    assert (tree(tmp_path), (tmp_path / taken).read_text()) == ([taken], "theirs")


@pytest.mark.parametrize("fails", ["open", "write", "fsync", "link"])
def test_a_failure_leaves_nothing_behind(fails: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0
    real: Callable[..., object] = getattr(os, fails)

    def second_fails(*arguments: object, **more: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise OSError(28, "no space")
        return real(*arguments, **more)

    monkeypatch.setattr(os, fails, second_fails)
    files = [NewFile("a", b"1", 0o600), NewFile("b", b"2", 0o600)]
    with pytest.raises(OSError, match="no space"), new_files(f"{tmp_path}/x/y", 0o700, files):
        pass
    monkeypatch.undo()
    assert tree(tmp_path) == []


def test_a_directory_that_cannot_be_made_is_named(
    tmp_path: Path, secret: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert init(secret / "c", *AUTH0, "--secret-file", secret) == 1
    said = f"bearerd: {secret}/c: not a directory; use --directory for another place\n"
    assert capsys.readouterr() == ("", said)
    assert tree(tmp_path) == ["given"]


def test_a_config_that_would_be_wrong_is_not_written(
    tmp_path: Path, secret: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "rendered", lambda *_: "clients: {a: {}}\n")
    assert init(tmp_path / "c", *AUTH0, "--secret-file", secret) == 2
    err = capsys.readouterr().err
    assert "with these answers the config has errors: " in err
    assert tree(tmp_path) == ["given"]


# -- whose files -----------------------------------------------------------------------------------


def test_a_user_has_a_private_directory_and_the_shortest_commands(
    tmp_path: Path, secret: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() or 4711)
    monkeypatch.setattr("bearerd.config.here._owner", lambda _: os.geteuid())
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.delenv("RUNTIME_DIRECTORY")
    assert cli.main(["init", *AUTH0, "--secret-file", str(secret)]) == 0
    directory = tmp_path / "home" / "bearerd"
    assert directory.stat().st_mode & 0o777 == 0o700
    assert "output:" not in (directory / "config.yaml").read_text()
    check, run, cat = capsys.readouterr().out.splitlines()[-3:]
    assert check.endswith("bearerd check --online")
    assert run.endswith("bearerd run")
    assert cat.split()[:2] == ["cat", f"{tmp_path}/run/bearerd/acme/api"]


def test_without_a_runtime_directory_the_config_names_one_for_this_user_only(
    tmp_path: Path, secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() or 4711)
    monkeypatch.setenv("XDG_STATE_HOME", "/s: #1")
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.delenv("RUNTIME_DIRECTORY")
    assert init(tmp_path / "c", *AUTH0, "--secret-file", secret) == 0
    config = load(str(tmp_path / "c" / "config.yaml"), os.environ)
    assert (config.directory, config.directory_mode) == ("/s: #1/bearerd/tokens", 0o700)
    assert {output.mode for target in config.targets for output in target.outputs} == {0o600}


def test_where_the_service_is_installed_root_checks_as_its_user_and_starts_the_unit(
    tmp_path: Path, secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert init(tmp_path / "c", *AUTH0, "--secret-file", secret) == 0
    config = load(str(tmp_path / "c" / "config.yaml"), {})
    monkeypatch.setattr("bearerd.cli.next_steps._service", lambda: "runuser -u bearerd -g bearerd-readers --")
    monkeypatch.setattr(sys, "argv", ["/usr/local/my apps/bearerd", "init"])
    assert next_steps(config, "/etc/bearerd/config.yaml") == [
        "runuser -u bearerd -g bearerd-readers -- '/usr/local/my apps/bearerd' check --online",
        "systemctl enable --now bearerd",
        "'/usr/local/my apps/bearerd' status",
    ]


def test_without_a_home_a_user_names_the_directory(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    for name in ("HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert cli.main(["init", *AUTH0]) == 2
    assert "use --directory" in capsys.readouterr().err


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: owners")
def test_for_root_the_secret_belongs_to_the_user_of_the_service(
    tmp_path: Path, secret: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_service_user", lambda: 65534)
    assert init(tmp_path / "c", *AUTH0, "--secret-file", secret) == 0
    found = {path.name: (path.stat().st_uid, path.stat().st_mode & 0o777) for path in (tmp_path / "c").iterdir()}
    assert found == {"config.yaml": (0, 0o644), "auth0.secret": (65534, 0o600)}
    assert "which only the user nobody can read" in capsys.readouterr().out


# -- on a terminal ---------------------------------------------------------------------------------


class Terminal:
    """A person at a terminal, and all that it showed."""

    def __init__(self, process: subprocess.Popen[bytes], line: int) -> None:
        self.process, self._line, self.text = process, line, ""
        self._answered = 0

    def until(self, prompt: str, answer: str | bytes) -> None:
        """Wait for a prompt that was not answered yet, and type."""
        while prompt not in self.text[self._answered :]:
            assert self._read(), f"no {prompt!r} in:\n{self.text}"
        self._answered = self.text.index(prompt, self._answered) + len(prompt)
        os.write(self._line, answer.encode() if isinstance(answer, str) else answer)

    def end(self) -> int:
        """The exit code."""
        while self._read():
            pass
        return self.process.wait(WITHIN)

    def _read(self) -> bool:
        assert select.select([self._line], [], [], WITHIN)[0], f"nothing more after:\n{self.text}"
        try:
            part = os.read(self._line, 65536)
        except OSError:  # EIO: the other side is closed
            return False
        self.text += re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", part.decode().replace("\r\n", "\n"))
        return bool(part)


@contextmanager
def terminal(*arguments: str | Path, env: dict[str, str] | None = None) -> Iterator[Terminal]:
    ours, theirs = pty.openpty()
    # A session of its own, whose terminal this is: Ctrl-C reaches it, also if these tests run in the background.
    acquire = (
        "import fcntl, os, signal, sys, termios\n"
        "fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
        "signal.signal(signal.SIGINT, signal.SIG_DFL)\n"
        "os.execv(sys.argv[1], sys.argv[1:])"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", acquire, *command("init", *arguments)],
        stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        env={**os.environ, "COLUMNS": "80", "TERM": "dumb", **(env or {})},
    )  # fmt: skip
    os.close(theirs)
    try:
        yield Terminal(process, ours)
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def test_on_a_terminal_everything_is_asked_and_a_token_is_requested_at_the_end(tmp_path: Path) -> None:
    directory = tmp_path / "c"
    with (
        serving(issues()) as server,
        terminal("--directory", directory, env={"RUNTIME_DIRECTORY": f"{tmp_path}/t"}) as it,
    ):
        it.until("Provider (its name, or a part of it): ", "oter\n")
        it.until("did you mean other?", "")
        it.until("Provider (its name, or a part of it): ", "other\n")
        it.until("Name of the client in the config [acme]: ", "my/shop\n")
        it.until("expected letters, digits", "")
        it.until("Name of the client in the config [acme]: ", "shop\n")
        it.until("Token endpoint (such as https://login.acme.example.com/oauth/token): ", f"{server.url}\n")
        it.until("Client id (such as reports): ", "0123\n")
        it.until("How id and secret are sent (client_secret_basic | client_secret_post) [client_secret_basic]: ", "\n")
        it.until("[none]: ", "\n")
        it.until("[none]: ", "no\n")
        it.until("Client secret (not shown): ", " \n")
        it.until("it is empty", "")
        it.until("Client secret (not shown): ", b"a\xffb\n")
        it.until("it is not UTF-8 text", "")
        it.until("Client secret (not shown): ", f"{SECRET}\n")
        it.until("Run the first one now? It requests a token, and discards it. [Y/n] ", "\n")
        assert it.end() == 0
    assert SECRET not in it.text
    assert "  auth0 " in it.text
    assert "ok       grant shop/api: a token" in it.text
    assert f"run -c {directory}/config.yaml\n" in it.text
    assert (directory / "shop.secret").read_text() == f"{SECRET}\n"
    [request] = server.seen
    assert b"audience=no" in request.body


def test_the_notes_are_shown_without_the_marks_of_markdown(tmp_path: Path) -> None:
    with terminal("auth0", "--directory", tmp_path / "c") as it:
        it.until("Host of the tenant (such as acme.eu.auth0.com): ", "")
    assert "Create a Machine to Machine application" in it.text
    assert "HTTP 401 access_denied" in " ".join(it.text.split())
    assert not {"*", "`"} & set(it.text)


def test_answers_of_the_command_line_are_not_asked_and_the_check_may_be_declined(tmp_path: Path, secret: Path) -> None:
    with serving(lambda _: Answer(500)) as server:
        answers = ["--set", "name=a", "--set", f"token_url={server.url}", "--set", "client_id=x", "--set", "scope="]
        answers += ["--set", "audience=", "--set", "auth=post", "--secret-file", str(secret)]
        with terminal("other", "--directory", tmp_path / "c", *answers) as it:
            # A wrong one is.
            it.until("--set auth=post: expected client_secret_basic or client_secret_post", "")
            it.until("How id and secret are sent", "client_secret_post\n")
            it.until("[Y/n] ", "n\n")
            assert it.end() == 0
    assert (it.text.count("]: "), it.text.count("?"), server.seen) == (1, 1, [])


@pytest.mark.parametrize(
    ("prompt", "typed", "code"),
    [
        pytest.param("Client id", "\x03", 130, id="Ctrl-C"),
        pytest.param("Client id", "\x04", 1, id="Ctrl-D"),
        pytest.param("(not shown): ", "\x03", 130, id="Ctrl-C at the secret"),
        pytest.param("(not shown): ", "\x04", 1, id="Ctrl-D at the secret"),
    ],
)
def test_giving_up_leaves_nothing_behind(prompt: str, typed: str, code: int, tmp_path: Path) -> None:
    with terminal("twitch", "--directory", tmp_path / "c") as it:
        if "shown" in prompt:
            it.until("Client id", "x\n")
        it.until(prompt, typed)
        assert it.end() == code
    assert it.text.endswith("\nbearerd: nothing was written\n")
    assert tree(tmp_path) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT])
def test_a_signal_at_the_secret_restores_the_terminal(number: signal.Signals, tmp_path: Path) -> None:
    with terminal("twitch", "--directory", tmp_path / "c") as it:
        it.until("Client id", "x\n")
        it.until("(not shown): ", "")
        before = _echoes(it)
        it.process.send_signal(number)
        assert it.process.wait(WITHIN) == 128 + number
        assert (before, _echoes(it)) == (False, True)
    assert tree(tmp_path) == []


def _echoes(it: Terminal) -> bool:

    return bool(termios.tcgetattr(it._line)[3] & termios.ECHO)


@pytest.mark.parametrize("call", ["mkdir", "open", "write", "link", "unlink", "close"])
def test_ctrl_c_while_the_files_are_written_leaves_both_and_says_so(
    call: str, tmp_path: Path, secret: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    real = getattr(os, call)

    def interrupted(*given: Any, **named: Any) -> Any:
        result = real(*given, **named)
        signal.raise_signal(signal.SIGINT)
        return result

    try:
        with monkeypatch.context() as patch:
            patch.setattr(os, call, interrupted)
            code = init(tmp_path / "c", *AUTH0, "--secret-file", secret)
    finally:
        signal.signal(signal.SIGINT, before)
    out, err = capsys.readouterr()
    assert (code, err, tree(tmp_path / "c")) == (130, "", ["auth0.secret", "config.yaml"])
    assert out.startswith(f"\nwrote {tmp_path}/c/config.yaml\n")


def test_new_directories_have_their_mode_whatever_the_umask(tmp_path: Path) -> None:
    # With root's 077, the service could not enter its own /etc/bearerd.
    before = os.umask(0o077)
    try:
        with new_files(f"{tmp_path}/x/y", 0o755, [NewFile("a", b"", 0o644)]):
            pass
        assert os.umask(0o077) == 0o077
    finally:
        os.umask(before)
    assert [path.stat().st_mode & 0o777 for path in (tmp_path / "x", tmp_path / "x/y")] == [0o755, 0o755]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: owners")
@pytest.mark.parametrize("below", ["", "new"])
def test_root_writes_nothing_into_the_directory_of_another_user(
    below: str, tmp_path: Path, secret: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # That user could replace the config, whose commands root would run.
    (tmp_path / "c").mkdir()
    os.chown(tmp_path / "c", 65534, -1)
    assert init(tmp_path / "c" / below, *AUTH0, "--secret-file", secret) == 1
    out, err = capsys.readouterr()
    assert (out, tree(tmp_path / "c")) == ("", [])
    assert err.startswith(f"bearerd: {tmp_path}/c belongs to the user nobody, who could replace the files")
