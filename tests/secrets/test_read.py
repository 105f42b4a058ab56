"""What each kind of source reads, and what it says when it cannot."""

from __future__ import annotations

import os
import queue
import re
import signal
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from subprocess import Popen
from typing import Any, Literal

import pytest

from bearerd import child
from bearerd.errors import SecretUnavailable
from bearerd.secrets import command
from bearerd.secrets.kinds import source_of
from bearerd.terms import Reference
from support.process import WITHIN, eventually

Permissions = Literal["owner", "group", "any"]
SECRET = "hunter2"


def file(path: Path, permissions: Permissions = "owner") -> Reference:
    return Reference("file", str(path), permissions=permissions)


def read(reference: Reference, environ: Mapping[str, str]) -> str:
    return source_of(reference, environ).read()


def shell(script: str) -> Reference:
    """A command that runs a shell script."""
    return Reference("command", "/bin/sh", argv=("/bin/sh", "-c", script))


def ended(pid: str) -> bool:
    """Whether a process is gone, or a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def refusal(reference: Reference, environ: Mapping[str, str] | None = None) -> str:
    """The error of a reference that cannot be read."""
    with pytest.raises(SecretUnavailable) as raised:
        read(reference, environ or {})
    said = str(raised.value)
    assert SECRET not in said
    # A traceback would show the cause too.
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__ or raised.value.__context__ is None
    return said


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_text(SECRET)
    path.chmod(0o600)
    return path


# -- the text -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "text"),
    [
        pytest.param(b"hunter2", "hunter2", id="no line end"),
        pytest.param(b"hunter2\n", "hunter2", id="LF"),
        pytest.param(b"hunter2\r\n", "hunter2", id="CRLF"),
        pytest.param(b"hunter2\n\n", "hunter2\n", id="only one LF"),
        pytest.param(b"hunter2\r\n\r\n", "hunter2\r\n", id="only one CRLF"),
        pytest.param(b"hunter2\r", "hunter2\r", id="a lone CR is kept"),
        pytest.param(b"\nhunter2", "\nhunter2", id="LF at the start is kept"),
        pytest.param(b" hunter2 \n", " hunter2 ", id="spaces are kept"),
        pytest.param("hünter2€\n".encode(), "hünter2€", id="not Latin-1"),
        pytest.param(b"x" * 65536, "x" * 65536, id="64 KiB"),
    ],
)
def test_one_line_end_is_stripped_and_nothing_else(secret: Path, content: bytes, text: str) -> None:
    secret.write_bytes(content)
    assert read(file(secret), {}) == text


@pytest.mark.parametrize(
    ("content", "said"),
    [
        pytest.param(b"", "empty", id="empty"),
        pytest.param(b"\n", "empty", id="only LF"),
        pytest.param(b"\r\n", "empty", id="only CRLF"),
        pytest.param(b"hunter2\xff", "not UTF-8 text", id="not UTF-8"),
        pytest.param("hünter2".encode("latin-1"), "not UTF-8 text", id="Latin-1"),
        pytest.param(b"x" * 65537, "larger than 64 KiB, so not a secret", id="over 64 KiB"),
    ],
)
def test_an_unusable_text_is_an_error(secret: Path, content: bytes, said: str) -> None:
    secret.write_bytes(content)
    assert refusal(file(secret)) == f"file {secret}: {said}"


# -- files --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "permissions"),
    [
        (0o600, "owner"), (0o400, "owner"), (0o700, "owner"),
        (0o640, "group"), (0o600, "group"), (0o440, "group"), (0o750, "group"),
        (0o640, "any"), (0o644, "any"), (0o666, "any"), (0o777, "any"),
    ],
)  # fmt: skip
def test_a_file_is_read_if_it_is_no_more_readable_than_allowed(
    secret: Path, mode: int, permissions: Permissions
) -> None:
    secret.chmod(mode)
    assert read(file(secret, permissions), {}) == SECRET


@pytest.mark.parametrize(
    ("mode", "permissions", "who"),
    [
        (0o640, "owner", "its group"), (0o620, "owner", "its group"), (0o610, "owner", "its group"),
        (0o604, "owner", "others"), (0o644, "owner", "others"), (0o601, "owner", "others"),
        (0o660, "group", "its group"), (0o604, "group", "others"), (0o644, "group", "others"),
    ],
)  # fmt: skip
def test_a_file_that_is_too_readable_is_refused(secret: Path, mode: int, permissions: Permissions, who: str) -> None:
    secret.chmod(mode)
    said = refusal(file(secret, permissions))
    assert said.startswith(f"file {secret}: mode {mode:04o} lets {who} access it; run chmod ")
    # The advice has to help.
    assert ("run chmod 640 on it" if permissions == "group" else "run chmod 600 on it") in said
    assert ("set permissions: any" if permissions == "group" else "permissions: group or any") in said


def test_the_mode_of_a_symlink_does_not_matter(secret: Path) -> None:
    # Kubernetes mounts secrets as links, and those are 0777.
    link = secret.with_name("link")
    link.symlink_to(secret)
    assert read(file(link), {}) == SECRET
    secret.chmod(0o644)
    assert "mode 0644 lets others access it" in refusal(file(link))


def test_a_file_is_read_again_each_time(secret: Path) -> None:
    assert read(file(secret), {}) == SECRET
    secret.write_text("rotated")
    assert read(file(secret), {}) == "rotated"


def test_a_missing_file_is_an_error_with_its_path(tmp_path: Path) -> None:
    assert refusal(file(tmp_path / "none")) == f"file {tmp_path}/none: no such file or directory"


def test_a_directory_is_refused(tmp_path: Path) -> None:
    assert refusal(file(tmp_path)) == f"file {tmp_path}: it is a directory, not a regular file"


def test_a_fifo_is_refused_without_waiting_for_a_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo", 0o600)
    assert refusal(file(tmp_path / "fifo")) == f"file {tmp_path}/fifo: it is a FIFO, not a regular file"


# -- environment variables ----------------------------------------------------------------------------


def test_a_variable_is_read_from_the_environment_that_is_given() -> None:
    assert read(Reference("env", "DNB_SECRET"), {"DNB_SECRET": SECRET}) == SECRET


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        pytest.param({}, "the variable is not set", id="unset"),
        pytest.param({"DNB_SECRET": ""}, "empty", id="empty"),
        # Python represents bytes that are not UTF-8 as surrogates.
        pytest.param({"DNB_SECRET": "hunter2\udcff"}, "not UTF-8 text", id="not UTF-8"),
    ],
)
def test_an_unusable_variable_is_an_error_with_its_name(environ: dict[str, str], said: str) -> None:
    assert refusal(Reference("env", "DNB_SECRET"), environ) == f"env DNB_SECRET: {said}"


# -- systemd credentials ------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o400, 0o440, 0o644])
def test_a_credential_is_read_whatever_its_mode(secret: Path, mode: int) -> None:
    secret.chmod(mode)
    environ = {"CREDENTIALS_DIRECTORY": str(secret.parent)}
    assert read(Reference("credential", "secret"), environ) == SECRET


def test_a_missing_credential_is_an_error_with_its_path(tmp_path: Path) -> None:
    said = refusal(Reference("credential", "dnb"), {"CREDENTIALS_DIRECTORY": str(tmp_path)})
    assert said == f"file {tmp_path}/dnb: no such file or directory"


@pytest.mark.parametrize("environ", [{}, {"CREDENTIALS_DIRECTORY": ""}])
def test_without_a_credentials_directory_the_error_names_the_missing_line_of_the_unit(environ: dict[str, str]) -> None:
    assert refusal(Reference("credential", "dnb"), environ) == (
        "credential dnb: $CREDENTIALS_DIRECTORY is not set; the unit needs LoadCredential=dnb:…"
    )


# -- commands -----------------------------------------------------------------------------------------


def test_the_output_of_a_command_is_the_secret() -> None:
    assert read(shell("echo hunter2"), {}) == SECRET


def test_a_command_runs_without_a_shell() -> None:
    assert read(Reference("command", "/bin/echo", argv=("/bin/echo", "$HOME; id")), {}) == "$HOME; id"


@pytest.mark.parametrize(
    ("script", "said"),
    [
        pytest.param("echo hunter2; exit 1", "exit 1; run it by hand as the daemon's user to see why", id="exit 1"),
        pytest.param("echo hunter2; exit 255", "exit 255; run it by hand", id="exit 255"),
        pytest.param("echo hunter2; kill -9 $$", "signal 9; run it by hand", id="a signal"),
        pytest.param("true", "empty", id="nothing printed"),
        pytest.param("echo", "empty", id="an empty line"),
        pytest.param("printf 'hunter2\\377'", "not UTF-8 text", id="not UTF-8"),
        pytest.param("head -c 65537 /dev/zero", "more than 64 KiB, so not a secret", id="over 64 KiB"),
    ],
)
def test_a_command_that_fails_or_prints_no_secret_is_an_error(script: str, said: str) -> None:
    assert refusal(shell(script), {"PATH": os.environ["PATH"]}).startswith(f"command /bin/sh: {said}")


def test_a_missing_command_is_an_error() -> None:
    gone = Reference("command", "/nonexistent/pass", argv=("/nonexistent/pass",))
    assert refusal(gone) == "command /nonexistent/pass: no such file or directory"


def test_a_command_that_is_not_executable_is_an_error(secret: Path) -> None:
    secret.chmod(0o600)
    assert refusal(Reference("command", str(secret), argv=(str(secret),))) == f"command {secret}: permission denied"


def test_a_command_that_hangs_is_killed_with_its_children(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The child outlives the shell and keeps the pipe open.
    pid = tmp_path / "pid"
    for timeout in (0.3, 3.0, 30.0):  # a slow machine may need longer to start the child
        monkeypatch.setattr(command, "_TIMEOUT", timeout)
        said = refusal(shell(f"/bin/sleep 600 & echo $! > {pid}; echo hunter2"))
        assert said == f"command /bin/sh: timed out after {timeout:.0f} s"
        if pid.exists() and pid.read_text():
            break
    child = (tmp_path / "pid").read_text().strip()
    eventually(lambda: ended(child))


def test_a_command_that_never_stops_writing_is_killed_at_the_limit() -> None:
    assert refusal(shell("exec yes hunter2")) == "command /bin/sh: more than 64 KiB, so not a secret"


def test_a_command_that_cannot_be_killed_holds_nobody_and_runs_only_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "_TIMEOUT", 0.1)
    monkeypatch.setattr(command, "_KILLED_WITHIN", 0.1)
    said = queue.SimpleQueue[str]()
    # The first of them hangs.
    once = shell(f"[ -e {tmp_path}/hung ] && exec echo {SECRET}; : > {tmp_path}/hung; exec sleep 600")
    environ = {"PATH": os.environ["PATH"]}
    with monkeypatch.context() as patch:
        patch.setattr(child, "kill", lambda _: None)  # as for sudo in a container
        threading.Thread(target=lambda: said.put(refusal(once, environ)), daemon=True).start()
        first = said.get(timeout=WITHIN)
    pid = re.fullmatch(r"command /bin/sh: pid (\d+) cannot be killed; kill it as root, or repair .*", first)
    assert pid is not None
    try:
        assert refusal(once, environ) == first
    finally:
        os.kill(int(pid[1]), signal.SIGKILL)
    monkeypatch.setattr(command, "_TIMEOUT", WITHIN)
    eventually(lambda: ended(pid[1]))
    (tmp_path / "hung").touch()  # a slow machine may not have got there
    assert read(once, environ) == SECRET
    assert not Path(f"/proc/{pid[1]}").exists()


def test_at_a_stop_running_commands_are_killed_and_no_more_are_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "_stopping", threading.Event())
    monkeypatch.setattr(command, "_TIMEOUT", 2 * WITHIN)
    output, running, said = command._output, queue.SimpleQueue[Popen[bytes]](), queue.SimpleQueue[str]()
    hanging, environ = shell("exec sleep 600"), {"PATH": os.environ["PATH"]}

    def waits(process: Popen[bytes], deadline: float) -> bytes:
        running.put(process)
        return output(process, deadline)

    monkeypatch.setattr(command, "_output", waits)
    threading.Thread(target=lambda: said.put(refusal(hanging, environ)), daemon=True).start()
    process = running.get(timeout=WITHIN)
    command.stop()
    assert said.get(timeout=WITHIN) == "command /bin/sh: killed, because bearerd is stopping"
    assert process.returncode == -signal.SIGKILL
    assert refusal(hanging, environ) == "command /bin/sh: not run, because bearerd is stopping"
    assert running.empty()


def test_a_command_that_starts_during_a_stop_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "_stopping", threading.Event())
    monkeypatch.setattr(command, "_TIMEOUT", 2 * WITHIN)
    start = child.start

    def stops(*arguments: Any, **more: Any) -> Popen[bytes]:
        process = start(*arguments, **more)
        command.stop()
        return process

    monkeypatch.setattr(child, "start", stops)
    assert refusal(shell("exec sleep 600"), {"PATH": os.environ["PATH"]}) == (
        "command /bin/sh: killed, because bearerd is stopping"
    )


def test_children_that_outlive_a_command_are_killed(tmp_path: Path) -> None:
    done = shell(f"/bin/sleep 60 >/dev/null & echo $! > {tmp_path}/pid; echo {SECRET}")
    assert read(done, {"PATH": "/bin"}) == SECRET
    eventually(lambda: ended((tmp_path / "pid").read_text().strip()))


def test_a_command_gets_a_minimal_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OURS", "1")
    environ = {"PATH": "/bin", "HOME": "/h", "LANG": "C", "LC_ALL": "C", "TZ": "UTC", "DNB_SECRET": "x"}
    names = read(
        Reference("command", sys.executable, argv=(sys.executable, "-c", "import os; print(*os.environ)")), environ
    )
    assert set(names.split()) == {"PATH", "HOME", "LANG", "LC_ALL", "TZ"}


def test_the_error_output_of_a_command_is_not_shown(capfd: pytest.CaptureFixture[str]) -> None:
    refusal(shell("echo hunter2 >&2; exit 3"))
    out, err = capfd.readouterr()
    assert SECRET not in out + err


def test_a_command_has_no_standard_input() -> None:
    # With the daemon's input it could wait for a passphrase for ever.
    reader, writer = os.pipe()
    os.write(writer, b"typed\n")
    stdin = os.dup(0)
    os.dup2(reader, 0)
    try:
        assert read(shell("read line && echo $line || echo nothing"), {}) == "nothing"
    finally:
        os.dup2(stdin, 0)
        for descriptor in (reader, writer, stdin):
            os.close(descriptor)
