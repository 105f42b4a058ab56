from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import bearerd as package
from bearerd import cli
from bearerd.cli.verbs import parser
from bearerd.config.load import schema
from support.process import WITHIN, bearerd, command, patched

WITH_CONFIG = ["run", "once", "check"]
VERBS = [*WITH_CONFIG, "status", "refresh", "health", "init", "schema", "completion", "demo", "help", "version"]


def code_of(*arguments: str) -> int:
    """The exit code of a command line that argparse ends."""
    with pytest.raises(SystemExit) as raised:
        parser().parse_args(arguments)
    assert isinstance(raised.value.code, int)
    return raised.value.code


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param(["chekc"], "there is no command 'chekc'; did you mean 'check'?\nbearerd help lists", id="verb"),
        pytest.param(["frobnicate"], "there is no command 'frobnicate'\nbearerd help lists the", id="unknown verb"),
        pytest.param(["list"], "there is no command 'list'; did you mean 'status'?", id="verb of other programs"),
        pytest.param(
            ["start"], "there is no command 'start'; did you mean 'run'?", id="not the verb that is spelled so"
        ),
        pytest.param(
            ["reload"],
            "there is no command 'reload'; the service manager does that: systemctl reload bearerd",
            id="verb of systemd",
        ),
        pytest.param(["run", "x.yaml"], "unexpected argument 'x.yaml'; a config is named by -c x.yaml", id="config"),
        pytest.param(["completion", "bash", "x.yaml"], "unexpected argument 'x.yaml'\n", id="no config is taken"),
        pytest.param(["help", "stats"], "there is no command 'stats'; did you mean 'status'?", id="help on a verb"),
        pytest.param(
            ["help", "nope"], "there is no command 'nope'\nbearerd help lists the commands", id="help, unknown"
        ),
        pytest.param(["--verion"], "unknown option '--verion'; did you mean '--version'?", id="unknown root option"),
        pytest.param(
            ["check", "--onlin3"],
            "unknown option '--onlin3'; did you mean '--online'?\nbearerd check --help shows its options",
            id="unknown option",
        ),
        pytest.param(["status", "--jsn=5"], "unknown option '--jsn'; did you mean '--json'?", id="option with a value"),
        pytest.param(["check", "more"], "unexpected argument 'more'", id="too many arguments"),
        pytest.param(["run", "-c"], "argument -c/--config: expected one argument", id="no file"),
        pytest.param(["once", "--timeout", "10"], "1h or 2d: write 10s if these are seconds\n", id="bare duration"),
        pytest.param(["once", "--min-valid", "-1s"], "--min-valid", id="negative duration"),
        pytest.param(["demo", "--ttl", "x"], "--ttl: expected a number of seconds", id="ttl is no number"),
        pytest.param(["demo", "--ttl", "0"], "--ttl: expected 1 to 86400 seconds", id="ttl too short"),
        pytest.param(["demo", "--seconds", "nan"], "--seconds: expected 1 to 86400 seconds", id="no number at all"),
    ],
)
def test_a_wrong_command_line_exits_2(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of(*arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert err.startswith("bearerd")
    assert err.endswith((" shows its options\n", "help lists the commands\n"))


def test_the_command_itself_ends_with_these_codes() -> None:
    # Once through a real process: that the module is wired to the exit code.
    done = bearerd()
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == bearerd("--help").stdout
    assert bearerd("-c", "config.yaml").stderr == done.stderr
    done = bearerd("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"bearerd {package.__version__}\n", "")


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of("--help") == 0
    out = capsys.readouterr().out
    for verb in VERBS:
        assert f"\n  {verb} " in out
    assert "78 the config is wrong" in out


@pytest.mark.parametrize("columns", [80, 200])
@pytest.mark.parametrize("verb", [None, *VERBS])
def test_help_fits_into_80_columns(
    verb: str | None, columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    code_of(*([verb] if verb else []), "--help")
    # Examples are to be copied, so they are not folded.
    lines = capsys.readouterr().out.partition("examples:")[0].splitlines()
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize(
    ("command", "option"),
    [(["help"], ["--help"]), (["help", "check"], ["check", "--help"]), (["version"], ["--version"])],
)
def test_the_commands_help_and_version_do_as_the_options(command: list[str], option: list[str]) -> None:
    by_command, by_option = bearerd(*command), bearerd(*option)
    assert (by_command.returncode, by_command.stderr) == (0, "")
    assert by_command.stdout == by_option.stdout


@pytest.mark.parametrize(
    "arguments",
    [["-c", "FILE", "check"], ["-cFILE", "check"], ["--config=FILE", "check"], ["check", "-c", "FILE"]],
)
def test_the_config_may_be_named_before_the_command(arguments: list[str], tmp_path: Path) -> None:
    file = tmp_path / "none.yaml"
    done = bearerd(*(word.replace("FILE", str(file)) for word in arguments))
    assert (done.returncode, done.stderr.startswith(f"bearerd: the config {file} does not exist\n")) == (78, True)


def test_help_after_an_option_before_the_command_is_the_help() -> None:
    done = bearerd("-c", "config.yaml", "--help")
    assert (done.returncode, done.stdout) == (0, bearerd("--help").stdout)


@pytest.mark.parametrize("option", ["-c", "--socket"])
def test_health_and_status_take_their_options_before_the_command_too(option: str, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(f"output: {{directory: {tmp_path}}}\n")
    socket = f"{tmp_path}/.bearerd/control.sock"
    for verb in ("health", "status"):
        done = bearerd(option, socket if option == "--socket" else tmp_path / "c.yaml", verb)
        assert (done.returncode, f"no daemon answers at {socket}" in done.stderr) == (1, True)


@pytest.mark.parametrize("verb", VERBS)
def test_each_command_has_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of(verb, "--help") == 0
    assert capsys.readouterr().out.startswith(f"usage: bearerd {verb} ")


@pytest.mark.parametrize("verb", WITH_CONFIG)
def test_a_missing_config_exits_78_and_is_named(verb: str, tmp_path: Path) -> None:
    # In a process of its own: run and once set its signals and its umask.
    file = tmp_path / "none.yaml"
    done = bearerd(verb, "-c", file)
    assert done.returncode == 78
    assert done.stdout == ""
    assert done.stderr.startswith(f"bearerd: the config {file} does not exist\n  bearerd init ")


@pytest.mark.parametrize(
    ("variable", "file"),
    [
        pytest.param("{}/mine.yaml", "{}/mine.yaml", id="set"),
        pytest.param("", "/etc/bearerd/config.yaml", id="empty"),
        pytest.param(None, "/etc/bearerd/config.yaml", id="unset"),
    ],
)
def test_without_option_c_the_variable_or_the_default_is_used(
    variable: str | None, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    if variable is None:
        monkeypatch.delenv("BEARERD_CONFIG", raising=False)
    else:
        monkeypatch.setenv("BEARERD_CONFIG", variable.format(tmp_path))
    assert parser().parse_args(["check"]).config == file.format(tmp_path)
    assert parser().parse_args(["check", "-c", "other"]).config == "other"


def test_a_user_who_is_not_root_has_a_config_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BEARERD_CONFIG", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    own = tmp_path / "bearerd" / "config.yaml"
    own.parent.mkdir()
    own.symlink_to("gone")  # it is named, so that the error is about it
    for uid, path in ((4711, str(own)), (0, "/etc/bearerd/config.yaml")):
        monkeypatch.setattr(os, "geteuid", lambda uid=uid: uid)
        assert parser().parse_args(["run"]).config == path


def test_schema_prints_the_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out) == schema()


def test_a_closed_pipe_is_not_a_failure() -> None:
    # Like `bearerd schema | head -1`, but without a race: this pipe never has a reader.
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "wb") as stdout:
        done = subprocess.run(command("schema"), stdout=stdout, stderr=subprocess.PIPE, timeout=WITHIN, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("verb", WITH_CONFIG)
def test_failing_to_start_the_config_reader_is_one_line(verb: str, tmp_path: Path) -> None:
    done = bearerd(
        verb,
        env=patched(
            tmp_path, {}, "import os", "def fork(): raise BlockingIOError(11, os.strerror(11))", "os.fork = fork"
        ),
    )
    said = "no process can be started to read the config: resource temporarily unavailable; raise TasksMax"
    assert (done.returncode, done.stderr) == (1, f"bearerd: {said}\n")


@pytest.mark.parametrize("verb", WITH_CONFIG)
def test_the_exit_code_is_right_with_a_full_stderr(verb: str, tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(command(verb, "-c", tmp_path / "none.yaml"), stderr=full, check=False)
    assert done.returncode == 78


@pytest.mark.parametrize(
    ("verb", "stdout", "said"),
    [
        pytest.param("schema", '"$@" >/dev/full', "no space left on device", id="a full disk"),
        pytest.param("schema", 'ulimit -f 1; "$@" >out', "file too large", id="a limit of its size"),
        pytest.param("schema", '"$@" 1</dev/null', "bad file descriptor", id="open for reading only"),
        pytest.param("--version", '"$@" 1</dev/null', "bad file descriptor", id="the version"),
    ],
)
def test_output_that_cannot_be_written_is_a_failure_in_one_line(
    tmp_path: Path, verb: str, stdout: str, said: str
) -> None:
    script = ["sh", "-c", stdout, "sh", *command(verb)]
    done = subprocess.run(script, cwd=tmp_path, stderr=subprocess.PIPE, text=True, timeout=WITHIN, check=False)
    assert (done.returncode, done.stderr) == (1, f"bearerd: the output could not be written: {said}\n")


@pytest.mark.parametrize(("error", "said"), [("EDQUOT", "disk quota exceeded"), ("EIO", "input/output error")])
def test_a_quota_and_a_terminal_that_is_gone_are_such_failures_too(tmp_path: Path, error: str, said: str) -> None:
    fails = f"def fail(_): raise OSError(errno.{error}, os.strerror(errno.{error}))"
    env = patched(tmp_path, {}, "import errno, os, bearerd.cli", fails, "bearerd.cli._run = fail")
    done = bearerd("schema", env=env)
    assert (done.returncode, done.stderr) == (1, f"bearerd: the output could not be written: {said}\n")


@pytest.mark.parametrize("command", ["run", "once"])
def test_an_error_before_the_service_starts_ends_the_process_at_once(command: str, tmp_path: Path) -> None:
    """Threads may have begun, and could crash the interpreter while it ends."""
    program = (
        "import atexit, sys; from bearerd.cli import main; atexit.register(print, 'the interpreter ends')\n"
        f"sys.argv = ['bearerd', {command!r}, '-c', {str(tmp_path / 'missing.yaml')!r}]\n"
        "raise SystemExit(main())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (78, "")
    assert "missing.yaml" in done.stderr
