"""The state directory, on a real file system."""

from __future__ import annotations

import errno
import json
import logging
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bearerd.publish import atomic
from bearerd.publish.state import SCHEMA, State

FIELDS = {"refusals": 2, "attempts": [1.5], "message": "HTTP 401", "hint": None}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def start(directory: Path) -> Callable[[], State]:
    """A new process over the same directory."""
    return lambda: State(str(directory))


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    return lambda: [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


def test_without_saved_fields_nothing_is_loaded(start: Callable[[], State]) -> None:
    assert start().load("clients", "dnb") is None


def test_saving_no_fields_removes_the_document(start: Callable[[], State], directory: Path) -> None:
    start().save("clients", "dnb", FIELDS)
    start().save("clients", "dnb", {})
    assert start().load("clients", "dnb") is None
    assert os.listdir(directory / "clients") == []
    start().save("clients", "dnb", {})


# -- invalid documents -----------------------------------------------------------------------------


def document(**changes: Any) -> bytes:
    """What `save` writes."""
    whole = {"schema": SCHEMA, "kept": FIELDS}
    return json.dumps({key: value for key, value in (whole | changes).items() if value != "left out"}).encode()


def test_fields_are_loaded_as_they_were_saved(start: Callable[[], State], directory: Path) -> None:
    start().save("clients", "dnb", FIELDS)
    assert (directory / "clients/dnb.json").read_bytes() == document()


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\xff\x00", id="no text"),
        pytest.param(b"null", id="null"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b"[" * 100_000, id="deep"),
        pytest.param(document(schema=99), id="of the future"),
        pytest.param(document(schema="left out"), id="no schema"),
        pytest.param(document(kept=[1]), id="a list kept"),
        pytest.param(document(kept="left out"), id="nothing kept"),
        pytest.param(document(more="x" * 1024 * 1024), id="over 1 MiB"),
    ],
)
def test_invalid_documents_are_ignored(start: Callable[[], State], directory: Path, content: bytes) -> None:
    state = start()
    state.save("clients", "dnb", FIELDS)
    (directory / "clients/dnb.json").write_bytes(content)
    assert state.load("clients", "dnb") is None
    state.save("clients", "dnb", FIELDS)
    assert state.load("clients", "dnb") == FIELDS


def test_a_truncated_document_is_ignored(start: Callable[[], State], directory: Path) -> None:
    state, whole = start(), document()
    state.save("clients", "dnb", FIELDS)
    for length in range(len(whole)):
        (directory / "clients/dnb.json").write_bytes(whole[:length])
        assert state.load("clients", "dnb") is None


def test_a_symlink_is_not_followed(start: Callable[[], State], directory: Path, tmp_path: Path) -> None:
    (tmp_path / "planted").write_bytes(document())
    (directory / "clients").mkdir(parents=True)
    (directory / "clients/dnb.json").symlink_to(tmp_path / "planted")
    assert start().load("clients", "dnb") is None
    start().save("clients", "dnb", {"other": 1})
    assert (tmp_path / "planted").read_bytes() == document()


# -- the key ---------------------------------------------------------------------------------------


def test_the_key_is_generated_once_for_each_directory(start: Callable[[], State], tmp_path: Path) -> None:
    key = start().key()
    assert len(key) == 32
    assert start().key() == key
    assert State(str(tmp_path / "elsewhere")).key() != key


@pytest.mark.parametrize("content", [b"", b"k" * 31], ids=["empty", "31 bytes"])
def test_a_key_that_is_too_short_is_replaced(start: Callable[[], State], directory: Path, content: bytes) -> None:
    directory.mkdir()
    (directory / "key").write_bytes(content)
    key = start().key()
    assert len(key) == 32
    assert (directory / "key").read_bytes() == key


# -- the files -------------------------------------------------------------------------------------


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_everything_is_private(start: Callable[[], State], directory: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        start().save("clients", "dnb", FIELDS)
        start().key()
    finally:
        os.umask(before)
    found = {str(path.relative_to(directory)): path for path in [directory, *directory.rglob("*")]}
    assert {name: stat.S_IMODE(path.stat().st_mode) for name, path in found.items()} == {
        ".": 0o700,
        "key": 0o600,
        "clients": 0o700,
        "clients/dnb.json": 0o600,
    }


def test_only_temporary_files_are_removed(start: Callable[[], State], directory: Path) -> None:
    state = start()
    state.save("secrets", "dnb", FIELDS)
    left = [directory / "secrets" / f".bearerd-{state._files._mark}-{'a' * 16}.tmp"]
    left.append(directory / f".bearerd-{state._files._mark}-{'b' * 16}.tmp")
    for path in left:
        path.write_text("half")
    start().sweep()
    assert not any(path.exists() for path in left)
    assert state.load("secrets", "dnb") == FIELDS


def test_a_directory_that_cannot_be_written_is_one_warning(
    start: Callable[[], State], directory: Path, warnings: Callable[[], list[str]]
) -> None:
    directory.write_text("in the way")
    state = start()
    assert len(state.key()) == 32
    state.save("clients", "dnb", FIELDS)
    state.save("clients", "dnb", {})
    state.sweep()
    assert state.load("clients", "dnb") is None
    why = "not a directory; move it away, or use another path"
    cost = "after a restart, all secrets of a client are tried again"
    assert warnings() == [f"state: {directory}: {why}; {cost}"]
    directory.unlink()
    state.save("clients", "dnb", FIELDS)
    (directory / "clients/other.json").mkdir()
    state.save("clients", "other", FIELDS)  # well in between: this is another trouble
    assert warnings()[1:] == [f"state: {directory}/clients/other.json: a directory has this name; move it away; {cost}"]


def test_the_check_writes_no_state(start: Callable[[], State], directory: Path) -> None:
    assert start().examine() == []
    assert not directory.exists()
    directory.mkdir()
    assert start().examine() == []
    assert os.listdir(directory) == []
    directory.rmdir()
    directory.write_text("in the way")
    why = "not a directory; move it away, or use another path"
    assert start().examine() == [f"{directory}: {why}"]


def test_if_the_key_cannot_be_read_nothing_is_used_or_changed(
    start: Callable[[], State],
    directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    warnings: Callable[[], list[str]],
) -> None:
    # With another key, all secrets would look changed: refused ones would be tried, and recorded under that key.
    key = start().key()
    start().save("clients", "dnb", FIELDS)

    def full(*_: object) -> bytes:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(atomic, "_read", full)
        state = start()
        assert state.key() != key
    assert state.load("clients", "dnb") is None
    state.save("clients", "dnb", FIELDS | {"refusals": 3})
    said = "too many files are open; raise LimitNOFILE; until a restart, all secrets of a client are tried again"
    assert warnings() == [f"state: {directory}/key: {said}"]
    assert start().key() == key
    assert start().load("clients", "dnb") == FIELDS


def test_a_document_that_cannot_be_read_is_a_warning(
    start: Callable[[], State], monkeypatch: pytest.MonkeyPatch, warnings: Callable[[], list[str]]
) -> None:
    state = start()
    state.save("clients", "dnb", FIELDS)

    def fails(*_: object) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(atomic, "_read", fails)
    assert state.load("clients", "dnb") is None
    [said] = warnings()
    assert "clients/dnb.json: input/output error; check the disk; all secrets of a client are tried again" in said
