"""What `bearerd check`, the watch and a reload ask of each kind of source."""

from __future__ import annotations

from pathlib import Path

import pytest

from bearerd.errors import SecretUnavailable
from bearerd.secrets.kinds import source_of
from bearerd.secrets.source import SecretSource
from bearerd.terms import Reference

SECRET = "hunter2"


def all_kinds(directory: Path) -> dict[str, SecretSource]:
    """One readable source of each kind, with the same secret."""
    path = directory / "dnb"
    path.write_text(SECRET)
    path.chmod(0o600)
    environ = {"DNB": SECRET, "CREDENTIALS_DIRECTORY": str(directory)}
    references = {
        "file": Reference("file", str(path)),
        "env": Reference("env", "DNB"),
        "credential": Reference("credential", "dnb"),
        "command": Reference("command", "/bin/echo", argv=("/bin/echo", SECRET)),
    }
    return {kind: source_of(reference, environ) for kind, reference in references.items()}


# -- check ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["file", "env", "credential", "command"])
def test_a_secret_without_blanks_passes_the_check(tmp_path: Path, kind: str) -> None:
    source = all_kinds(tmp_path)[kind]
    assert source.check() == SECRET
    assert source.hidden() == ""


BLANK = "with a space, tab or line end, which would be sent as part of it; remove it"
BOM = "begins with a byte order mark; save it as UTF-8 without BOM"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param(" hunter2", f"begins {BLANK}", id="space before"),
        pytest.param("hunter2 \n", f"ends {BLANK}", id="space after"),
        pytest.param("\thunter2", f"begins {BLANK}", id="tab"),
        pytest.param("hunter2\n\n", f"ends {BLANK}", id="second line end"),
        pytest.param("hunter2\r", f"ends {BLANK}", id="lone CR"),
        pytest.param("hunter2\u00a0", f"ends {BLANK}", id="no-break space"),
        pytest.param(" \n", f"begins {BLANK}", id="only a space"),
        pytest.param("\ufeffhunter2\n", BOM, id="BOM"),
        pytest.param("\ufeff", BOM, id="only a BOM"),
        pytest.param(
            "hunter2\nurl: https://example.com\n",
            "has more than one line; keep only the one with the secret",
            id="two lines",
        ),
    ],
)
def test_blanks_or_a_bom_at_the_ends_and_several_lines_fail_the_check_only(text: str, said: str) -> None:
    source = source_of(Reference("env", "DNB"), {"DNB": text})
    with pytest.raises(SecretUnavailable, match=f"^env DNB: {said}$"):
        source.check()
    assert source.read() == text.removesuffix("\n")


def test_blanks_within_a_secret_pass_the_check() -> None:
    assert source_of(Reference("env", "DNB"), {"DNB": "correct horse"}).check() == "correct horse"


@pytest.mark.parametrize("content", [b"\0" * 8, b"hunter2\0\n", "hunter2".encode("utf-16-le")])
def test_a_secret_with_nul_is_never_sent(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "secret"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(SecretUnavailable, match=r"secret: contains NUL, so it is damaged or UTF-16; write it again$"):
        source_of(Reference("file", str(path)), {}).read()


def test_the_check_finds_what_reading_finds() -> None:
    with pytest.raises(SecretUnavailable, match=r"^env DNB: the variable is not set$"):
        source_of(Reference("env", "DNB"), {}).check()


@pytest.mark.parametrize("directory", [None, "", "/nonexistent"])
def test_a_credential_is_hidden_outside_of_its_unit(directory: str | None) -> None:
    environ = {} if directory is None else {"CREDENTIALS_DIRECTORY": directory}
    reason = source_of(Reference("credential", "dnb"), environ).hidden()
    assert reason == "this check cannot see it; only the unit can, if it has LoadCredential="


# -- watch and fingerprint -----------------------------------------------------------------------------


def test_only_secrets_in_files_are_watched(tmp_path: Path) -> None:
    file = str(tmp_path / "dnb")
    assert {kind: source.paths() for kind, source in all_kinds(tmp_path).items()} == {
        "file": (file,),
        "env": (),
        "credential": (file,),
        "command": (),
    }
    assert source_of(Reference("credential", "dnb"), {}).paths() == ()


@pytest.mark.parametrize("kind", ["file", "credential"])
def test_a_fingerprint_changes_with_content_and_mode_and_holds_no_secret(tmp_path: Path, kind: str) -> None:
    source, path = all_kinds(tmp_path)[kind], tmp_path / "dnb"
    first = source.fingerprint()
    assert SECRET.encode() not in first
    assert source.fingerprint() == first
    path.chmod(0o400)  # it may be readable enough now
    second = source.fingerprint()
    path.chmod(0o600)
    path.write_text("rotated")
    third = source.fingerprint()
    path.unlink()
    assert len({first, second, third, source.fingerprint()}) == 4


def test_a_variable_has_a_fingerprint_of_its_value() -> None:
    one, same, other, unset = (
        source_of(Reference("env", "DNB"), environ).fingerprint()
        for environ in ({"DNB": "a"}, {"DNB": "a"}, {"DNB": "b"}, {})
    )
    assert one == same
    assert len({one, other, unset}) == 3


def test_a_command_is_not_run_for_its_fingerprint(tmp_path: Path) -> None:
    reference = Reference("command", "/bin/touch", argv=("/bin/touch", str(tmp_path / "ran")))
    assert source_of(reference, {}).fingerprint() == b""
    assert not (tmp_path / "ran").exists()


def test_a_credential_without_a_directory_has_no_fingerprint() -> None:
    assert source_of(Reference("credential", "dnb"), {}).fingerprint() == b""


def test_variables_and_credentials_need_a_restart_after_a_rotation(tmp_path: Path) -> None:
    found = {kind: source.set_at_start for kind, source in all_kinds(tmp_path).items()}
    assert found == {"file": False, "env": True, "credential": True, "command": False}
