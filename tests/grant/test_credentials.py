from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest

from bearerd.errors import SecretUnavailable
from bearerd.grant import credentials
from bearerd.grant.credentials import read, read_client_id, read_credentials, read_parameters
from bearerd.grant.request import Credentials
from bearerd.model import Client, Reference
from support.process import eventually
from support.targets import CLIENT, target

Permissions = Literal["owner", "group", "any"]
SECRET = "hunter2"


def file(path: Path, permissions: Permissions = "owner") -> Reference:
    return Reference("file", str(path), permissions=permissions)


def shell(script: str) -> Reference:
    """A command, run by the one shell that every machine has."""
    return Reference("command", "/bin/sh", argv=("/bin/sh", "-c", script))


def ended(pid: str) -> bool:
    """Whether a process is gone, or only waits for its parent to ask how."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def refusal(reference: Reference, environ: Mapping[str, str] | None = None) -> str:
    """What is said of a reference that cannot be read."""
    with pytest.raises(SecretUnavailable) as raised:
        read(reference, environ or {})
    said = str(raised.value)
    assert SECRET not in said
    # Nor by way of what caused it: a traceback shows that too.
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__ or raised.value.__context__ is None
    return said


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file as it should be."""
    path = tmp_path / "secret"
    path.write_text(SECRET)
    path.chmod(0o600)
    return path


# -- the text ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "text"),
    [
        pytest.param(b"hunter2", "hunter2", id="no line end"),
        pytest.param(b"hunter2\n", "hunter2", id="LF"),
        pytest.param(b"hunter2\r\n", "hunter2", id="CRLF"),
        pytest.param(b"hunter2\n\n", "hunter2\n", id="only one LF"),
        pytest.param(b"hunter2\r\n\r\n", "hunter2\r\n", id="only one CRLF"),
        pytest.param(b"hunter2\r", "hunter2\r", id="a CR alone belongs to it"),
        pytest.param(b"\nhunter2", "\nhunter2", id="LF at the start belongs to it"),
        pytest.param(b" hunter2 \n", " hunter2 ", id="spaces belong to it"),
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
        pytest.param(b"x" * 65537, "larger than 64 KiB, this is no secret", id="over 64 KiB"),
    ],
)
def test_what_is_no_secret_is_refused(secret: Path, content: bytes, said: str) -> None:
    secret.write_bytes(content)
    assert refusal(file(secret)) == f"file {secret}: {said}"


# -- files -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "permissions"),
    [
        (0o600, "owner"), (0o400, "owner"), (0o700, "owner"),
        (0o640, "group"), (0o600, "group"), (0o440, "group"), (0o750, "group"),
        (0o640, "any"), (0o644, "any"), (0o666, "any"), (0o777, "any"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_more_open_than_allowed_is_read(secret: Path, mode: int, permissions: Permissions) -> None:
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
def test_a_file_that_is_more_open_is_refused_as_ssh_does(
    secret: Path, mode: int, permissions: Permissions, who: str
) -> None:
    secret.chmod(mode)
    said = refusal(file(secret, permissions))
    assert said.startswith(f"file {secret}: mode {mode:04o} lets {who} access it; run chmod ")
    # What is advised is what helps.
    assert ("run chmod 640 on it" if permissions == "group" else "run chmod 600 on it") in said
    assert ("set permissions: any" if permissions == "group" else "permissions: group or any") in said


def test_a_link_is_judged_by_the_file_that_it_leads_to(secret: Path) -> None:
    # Kubernetes mounts secrets as links, and those are 0777.
    link = secret.with_name("link")
    link.symlink_to(secret)
    assert read(file(link), {}) == SECRET
    secret.chmod(0o644)
    assert "mode 0644 lets others access it" in refusal(file(link))


def test_a_file_is_read_anew_each_time(secret: Path) -> None:
    assert read(file(secret), {}) == SECRET
    secret.write_text("rotated")
    assert read(file(secret), {}) == "rotated"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert refusal(file(tmp_path / "none")) == f"file {tmp_path}/none: no such file or directory"


def test_a_directory_is_no_secret(tmp_path: Path) -> None:
    assert refusal(file(tmp_path)) == f"file {tmp_path}: it is a directory, not a regular file"


def test_a_fifo_is_no_secret_and_nobody_waits_for_its_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo", 0o600)
    # Were it waited for, the test would not end.
    assert refusal(file(tmp_path / "fifo")) == f"file {tmp_path}/fifo: it is a FIFO, not a regular file"


# -- variables ---------------------------------------------------------------------------------------


def test_a_variable_is_read_from_the_environment_that_is_given() -> None:
    assert read(Reference("env", "DNB_SECRET"), {"DNB_SECRET": SECRET}) == SECRET


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        pytest.param({}, "the variable is not set", id="unset"),
        pytest.param({"DNB_SECRET": ""}, "empty", id="empty"),
        # What the system hands over as bytes that are no UTF-8.
        pytest.param({"DNB_SECRET": "hunter2\udcff"}, "not UTF-8 text", id="not UTF-8"),
    ],
)
def test_a_variable_that_holds_no_secret_is_named(environ: dict[str, str], said: str) -> None:
    assert refusal(Reference("env", "DNB_SECRET"), environ) == f"env DNB_SECRET: {said}"


# -- systemd's credentials ---------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o400, 0o440, 0o644])
def test_a_credential_is_read_whatever_its_mode(secret: Path, mode: int) -> None:
    secret.chmod(mode)
    environ = {"CREDENTIALS_DIRECTORY": str(secret.parent)}
    assert read(Reference("credential", "secret"), environ) == SECRET


def test_a_credential_that_is_not_there_is_named_with_its_path(tmp_path: Path) -> None:
    said = refusal(Reference("credential", "dnb"), {"CREDENTIALS_DIRECTORY": str(tmp_path)})
    assert said == f"file {tmp_path}/dnb: no such file or directory"


@pytest.mark.parametrize("environ", [{}, {"CREDENTIALS_DIRECTORY": ""}])
def test_without_systemds_directory_the_units_line_is_named(environ: dict[str, str]) -> None:
    assert refusal(Reference("credential", "dnb"), environ) == (
        "credential dnb: $CREDENTIALS_DIRECTORY is not set; the unit needs LoadCredential=dnb:…"
    )


# -- commands ----------------------------------------------------------------------------------------


def test_what_a_command_prints_is_the_secret() -> None:
    assert read(shell("echo hunter2"), {}) == SECRET


def test_a_command_is_no_shell_line() -> None:
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
        pytest.param("head -c 65537 /dev/zero", "more than 64 KiB, this is no secret", id="over 64 KiB"),
    ],
)
def test_a_command_that_yields_no_secret_is_named(script: str, said: str) -> None:
    assert refusal(shell(script), {"PATH": os.environ["PATH"]}).startswith(f"command /bin/sh: {said}")


def test_a_command_that_is_not_there_is_named() -> None:
    gone = Reference("command", "/nonexistent/pass", argv=("/nonexistent/pass",))
    assert refusal(gone) == "command /nonexistent/pass: no such file or directory"


def test_a_command_that_is_no_program_is_named(secret: Path) -> None:
    secret.chmod(0o600)
    assert refusal(Reference("command", str(secret), argv=(str(secret),))) == f"command {secret}: permission denied"


def test_a_command_that_hangs_is_ended_with_all_that_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The child outlives the shell and keeps the pipe open: the end of the shell alone would not end the reading.
    pid = tmp_path / "pid"
    for timeout in (0.3, 3.0, 30.0):  # on a slow machine the command needs longer to come so far
        monkeypatch.setattr(credentials, "_COMMAND_TIMEOUT", timeout)
        said = refusal(shell(f"/bin/sleep 600 & echo $! > {pid}; echo hunter2"))
        assert said == f"command /bin/sh: not done within {timeout:.0f} s"
        if pid.exists() and pid.read_text():
            break
    child = (tmp_path / "pid").read_text().strip()
    eventually(lambda: ended(child))


def test_a_command_that_never_stops_writing_is_ended_at_the_limit() -> None:
    assert refusal(shell("exec yes hunter2")) == "command /bin/sh: more than 64 KiB, this is no secret"


def test_what_a_command_leaves_running_is_ended(tmp_path: Path) -> None:
    done = shell(f"/bin/sleep 60 >/dev/null & echo $! > {tmp_path}/pid; echo {SECRET}")
    assert read(done, {"PATH": "/bin"}) == SECRET
    eventually(lambda: ended((tmp_path / "pid").read_text().strip()))


def test_a_command_sees_nothing_of_our_environment_but_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OURS", "1")
    environ = {"PATH": "/bin", "HOME": "/h", "LANG": "C", "LC_ALL": "C", "TZ": "UTC", "DNB_SECRET": "x"}
    names = read(
        Reference("command", sys.executable, argv=(sys.executable, "-c", "import os; print(*os.environ)")), environ
    )
    assert set(names.split()) == {"PATH", "HOME", "LANG", "LC_ALL", "TZ"}


def test_what_a_command_complains_of_is_not_shown(capfd: pytest.CaptureFixture[str]) -> None:
    refusal(shell("echo hunter2 >&2; exit 3"))
    out, err = capfd.readouterr()
    assert SECRET not in out + err


def test_a_command_cannot_read_what_is_typed() -> None:
    # It would wait for a passphrase that nobody types; here somebody has.
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


# -- a client ----------------------------------------------------------------------------------------


def variable(name: str) -> Reference:
    return Reference("env", name)


def test_a_client_has_its_id_in_the_config_or_behind_a_reference() -> None:
    environ = {"DNB_SECRET": SECRET, "DNB_ID": "id-1"}
    assert read_credentials(CLIENT, environ) == (Credentials("7e0c5a", SECRET),)
    elsewhere = replace(CLIENT, client_id=variable("DNB_ID"))
    assert read_credentials(elsewhere, environ) == (Credentials("id-1", SECRET),)
    assert read_client_id(elsewhere, environ) == "id-1"


def test_a_client_id_that_cannot_be_read_is_as_bad_as_a_secret() -> None:
    elsewhere = replace(CLIENT, client_id=variable("DNB_ID"))
    with pytest.raises(SecretUnavailable, match="env DNB_ID: the variable is not set"):
        read_credentials(elsewhere, {"DNB_SECRET": SECRET})


BARE = replace(CLIENT, client_secret=())
ALL = {"SECRET": SECRET, "KEY": "a private key", "CERTIFICATE": "a certificate", "JWT": "ey.J.x"}


@pytest.mark.parametrize(
    ("client", "expected"),
    [
        pytest.param(BARE, Credentials("7e0c5a"), id="nothing"),
        pytest.param(replace(BARE, private_key=variable("KEY")), Credentials("7e0c5a", "", "a private key"), id="key"),
        pytest.param(
            replace(BARE, private_key=variable("KEY"), certificate=variable("CERTIFICATE")),
            Credentials("7e0c5a", "", "a private key", "a certificate"),
            id="certificate",
        ),
        pytest.param(replace(BARE, assertion=variable("JWT")), Credentials("7e0c5a", "ey.J.x"), id="assertion"),
        pytest.param(replace(BARE, client_id="", assertion=variable("JWT")), Credentials("", "ey.J.x"), id="no-id"),
        pytest.param(
            replace(BARE, client_secret=(variable("SECRET"),), private_key=variable("KEY")),
            Credentials("7e0c5a", SECRET, "a private key"),
            id="secret-and-key",
        ),
    ],
)
def test_a_client_may_authenticate_with_other_things(client: Client, expected: Credentials) -> None:
    assert read_credentials(client, ALL) == (expected,)


@pytest.mark.parametrize("missing", ["KEY", "CERTIFICATE", "JWT"])
def test_what_else_cannot_be_read_is_named_too(missing: str) -> None:
    client = replace(BARE, private_key=variable("KEY"), certificate=variable("CERTIFICATE"), assertion=variable("JWT"))
    environ = {name: value for name, value in ALL.items() if name != missing}
    with pytest.raises(SecretUnavailable, match=f"^env {missing}: the variable is not set$"):
        read_credentials(client, environ)


def test_a_key_of_many_lines_is_read_whole(secret: Path) -> None:
    pem = "-----BEGIN PRIVATE KEY-----\nAAAA\nBBBB\n-----END PRIVATE KEY-----\n"
    secret.write_text(pem)
    [read_in] = read_credentials(replace(BARE, private_key=file(secret)), {})
    assert read_in.private_key == pem.removesuffix("\n")


THREE = replace(BARE, client_secret=(variable("NEW"), variable("OLD"), variable("OLDEST")))


@pytest.mark.parametrize(
    ("environ", "secrets"),
    [
        pytest.param({"NEW": "c", "OLD": "b", "OLDEST": "a"}, "cba", id="all"),
        pytest.param({"OLD": "b", "OLDEST": "a"}, "ba", id="the-newest-is-not-there-yet"),
        pytest.param({"NEW": "c", "OLD": "", "OLDEST": "a"}, "ca", id="one-is-empty"),
        pytest.param({"NEW": "c"}, "c", id="the-others-are-gone"),
    ],
)
def test_of_several_secrets_those_that_can_be_read_are_had_newest_first(environ: dict[str, str], secrets: str) -> None:
    assert read_credentials(THREE, environ) == tuple(Credentials("7e0c5a", secret) for secret in secrets)


def test_of_several_secrets_the_first_is_named_when_none_can_be_read() -> None:
    with pytest.raises(SecretUnavailable, match=r"^env NEW: the variable is not set$"):
        read_credentials(THREE, {"OLD": ""})


def test_each_secret_is_known_by_where_it_was_read() -> None:
    found = read_credentials(THREE, {"NEW": "c", "OLDEST": "a"})
    assert [one.source for one in found] == ["env NEW", "env OLDEST"]


def test_several_secrets_share_what_else_the_client_has() -> None:
    client = replace(THREE, private_key=variable("KEY"))
    assert read_credentials(client, {"NEW": "c", "OLD": "b", "KEY": "k"}) == (
        Credentials("7e0c5a", "c", "k"),
        Credentials("7e0c5a", "b", "k"),
    )


def test_credentials_do_not_show_what_is_secret() -> None:
    client = replace(CLIENT, private_key=variable("DNB_KEY"))
    shown = repr(read_credentials(client, {"DNB_SECRET": SECRET, "DNB_KEY": "pr1vate"}))
    assert shown == "(Credentials(client_id='7e0c5a', source='env DNB_SECRET'),)"


# -- a target's parameters ---------------------------------------------------------------------------


def test_parameters_are_text_or_read_and_keep_their_order(secret: Path) -> None:
    wanted = target(
        parameters=(("resource", "b"), ("actor_token", file(secret)), ("resource", "a"), ("tenant", variable("TENANT")))
    )
    assert read_parameters(wanted, {"TENANT": "acme"}) == (
        ("resource", "b"),
        ("actor_token", SECRET),
        ("resource", "a"),
        ("tenant", "acme"),
    )


def test_a_parameter_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    wanted = target(parameters=(("audience", "x"), ("subject_token", file(tmp_path / "none"))))
    with pytest.raises(SecretUnavailable, match=f"^file {tmp_path}/none: no such file or directory$"):
        read_parameters(wanted, {})
