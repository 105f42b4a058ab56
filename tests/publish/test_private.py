"""Files and directories that other users could have written are moved aside and replaced, not read."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bearerd.errors import DirectoryLocked, DirectoryUnusable
from bearerd.model import Config, Output
from bearerd.publish import record as records
from bearerd.publish.examination import Examination
from bearerd.publish.publisher import Publisher, peek
from bearerd.publish.record import Record
from bearerd.publish.state import State
from support.readers import ROOT, acting_as, naming, open_directory, set_acl
from support.targets import TARGET, token

ALICE, BOB, GROUP = 65534, 4000, 4242
GOOD, FORGED = Record(token("good"), "x", "7e0c5a"), Record(token("forged"), "x", "7e0c5a")
FIELDS = {"refusals": 2}


@pytest.fixture
def config() -> Iterator[Config]:
    with open_directory() as place:
        directory = place / "tokens"
        directory.mkdir()
        target = replace(TARGET, outputs=(Output(f"{directory}/dnb/bci"),))
        yield Config(str(directory), f"{directory}/.bearerd", targets=(target,))


def prepared(config: Config) -> Publisher:
    """A publisher after the end of its process: the lock is free."""
    publisher = Publisher(config)
    publisher.prepare()
    publisher.save(config.targets[0], GOOD)
    publisher.notes.note(config.targets[0])
    State(config.state_directory).save("clients", "dnb", FIELDS)
    State(config.state_directory).key()
    publisher.release()
    return publisher


def forge(own: Path, uid: int = ALICE) -> None:
    """What another user can put there."""
    (own / "records/dnb").mkdir(parents=True)
    (own / "records/dnb/bci.json").write_bytes(records.dump(FORGED))
    (own / "lock").write_text("1\n")
    (own / "key").write_bytes(b"k" * 32)
    (own / "clients").mkdir()
    give(own, uid)


def give(path: Path, uid: int) -> None:
    """It and all below it, to another user."""
    for one in [path, *path.rglob("*")]:
        os.chown(one, uid, uid, follow_symlinks=False)


def replaced(own: Path) -> None:
    own.rename(own.parent / "stolen")
    own.mkdir()
    forge(own)


def linked(own: Path) -> None:
    own.rename(own.parent / "stolen")
    (own.parent / "planted").mkdir()
    forge(own.parent / "planted")
    own.symlink_to("planted")


def a_file(own: Path) -> None:
    own.rename(own.parent / "stolen")
    own.write_text("in the way")


def opened(own: Path) -> None:
    own.chmod(0o770)


def opened_by_an_acl(own: Path) -> None:
    set_acl(own, *naming(BOB, 7))


@ROOT
@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        pytest.param(replaced, "because it belongs to user nobody, and bearerd runs as root", id="of another user"),
        pytest.param(
            lambda own: give(own, ALICE),
            "because it belongs to user nobody, and bearerd runs as root",
            id="given to another user",
        ),
        pytest.param(linked, "because it is a symlink", id="a link"),
        pytest.param(a_file, "because it is not a directory", id="a file"),
        pytest.param(opened, "because other users can write it (mode 0770)", id="its group can write"),
        pytest.param(opened_by_an_acl, "because other users can write it (mode 0770)", id="by its ACL"),
    ],
)
@pytest.mark.parametrize("below", ["", "records", "records/dnb", "clients", "owed"])
def test_a_directory_that_others_could_have_made_is_moved_aside_and_replaced(
    config: Config, caplog: pytest.LogCaptureFixture, harm: Callable[[Path], None], reason: str, below: str
) -> None:
    prepared(config)
    harmed = Path(config.directory) / ".bearerd" / below
    harm(harmed)
    publisher, (target,) = Publisher(config), config.targets
    publisher.prepare()
    assert publisher.load(target) is None or below in {"clients", "owed"}
    assert (State(config.state_directory).load("clients", "dnb") is None) == (below in {"", "clients"})
    assert publisher.notes.noted(target) == (below in {"records", "records/dnb", "clients"})
    (said,) = [one.message for one in caplog.records if one.levelname == "WARNING"]
    aside = said.rpartition(" it was moved to ")[2].partition(",")[0]
    assert said == f"{harmed} is not used {reason}; it was moved to {aside}, and a new one is created"
    assert Path(aside).parent == harmed.parent
    assert Path(aside).name.startswith(f"{harmed.name}.untrusted-")
    assert os.path.lexists(aside)
    # And it goes on.
    publisher.save(target, GOOD)
    publisher.notes.note(target)
    State(config.state_directory).save("clients", "dnb", FIELDS)
    assert publisher.load(target) == GOOD
    assert publisher.notes.noted(target)
    status = harmed.stat()
    assert (status.st_uid, status.st_mode & 0o022) == (0, 0)
    assert len([one for one in caplog.records if one.levelname == "WARNING"]) == 1


def a_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@ROOT
@pytest.mark.parametrize("name", ["records/dnb/bci.json", "clients/dnb.json", "key", "owed/dnb/bci", "lock"])
@pytest.mark.parametrize(
    "harm",
    [
        pytest.param(lambda path: os.chown(path, ALICE, ALICE), id="of another user"),
        pytest.param(lambda path: path.chmod(0o660), id="others can write it"),
        pytest.param(lambda path: (path.unlink(), path.symlink_to("/etc/passwd")), id="a link"),
        pytest.param(a_fifo, id="a FIFO"),
        pytest.param(lambda path: (path.unlink(), path.mkdir()), id="a directory"),
        pytest.param(lambda path: os.link(path, path.with_name("other")), id="a hard link"),
    ],
)
def test_a_file_that_others_could_have_written_is_moved_aside_and_not_read(
    config: Config, caplog: pytest.LogCaptureFixture, name: str, harm: Callable[[Path], object]
) -> None:
    prepared(config)
    key = (Path(config.directory) / ".bearerd/key").read_bytes()
    path = Path(config.directory) / ".bearerd" / name
    harm(path)
    publisher, (target,), state = Publisher(config), config.targets, State(config.state_directory)
    publisher.prepare()
    assert (publisher.load(target) is None) == (name == "records/dnb/bci.json")
    assert (state.load("clients", "dnb") is None) == (name == "clients/dnb.json")
    assert (state.key() != key) == (name == "key")
    assert publisher.notes.noted(target) == (name != "owed/dnb/bci")
    (said,) = [one.message for one in caplog.records if one.levelname == "WARNING"]
    assert said.startswith(f"{path} is not used because ")
    assert [one for one in path.parent.iterdir() if one.name.startswith(f"{path.name}.untrusted-")]
    publisher.save(target, GOOD)
    assert publisher.load(target) == GOOD


@ROOT
def test_if_nothing_can_be_moved_aside_it_is_an_error(config: Config) -> None:
    # In a sticky directory only the owner of a file, the owner of the directory and root can move it.
    directory = Path(config.directory)
    (directory / ".bearerd").mkdir()
    give(directory, ALICE)
    directory.chmod(0o1777)
    with (
        acting_as(BOB),
        pytest.raises(
            DirectoryUnusable,
            match=rf"{directory}/.bearerd is not used because it belongs to user nobody, and bearerd runs as {BOB}; "
            r"moving it aside failed .*; remove it",
        ),
    ):
        Publisher(config).prepare()


@ROOT
@pytest.mark.parametrize("uid", [0, ALICE])
def test_root_does_not_take_the_directory_from_its_owners_running_daemon(config: Config, uid: int) -> None:
    # For example an administrator runs `bearerd once` as root beside the service.
    directory = Path(config.directory)
    give(directory, BOB)
    directory.chmod(0o777)
    with acting_as(BOB):
        running = Publisher(config)
        running.prepare()
    said = (
        rf"{directory} is in use by another bearerd, pid {os.getpid()}" if uid == 0 else "whose bearerd may be running"
    )
    with acting_as(uid), pytest.raises(DirectoryLocked, match=said):
        Publisher(config).prepare()
    assert [path.name for path in directory.iterdir()] == [".bearerd"]
    running.release()
    Publisher(config).prepare()
    assert (directory / ".bearerd").stat().st_uid == 0


def test_if_no_private_directory_is_possible_nothing_piles_up(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    # A file system that keeps no modes makes everything 0777.
    real = os.mkdir
    monkeypatch.setattr("os.mkdir", lambda path, _mode, *, dir_fd: real(path, dir_fd=dir_fd))
    monkeypatch.setattr("os.fchmod", lambda _descriptor, _mode: None)
    before = os.umask(0)
    try:
        with pytest.raises(DirectoryUnusable, match="cannot be made private to bearerd: other users can write it"):
            Publisher(config).prepare()
    finally:
        os.umask(before)
    assert os.listdir(config.directory) == []


def test_the_own_directory_is_never_writable_by_the_group(config: Config) -> None:
    config = replace(config, directory_mode=0o2770)
    publisher = prepared(config)
    own = Path(config.directory) / ".bearerd"
    assert stat.S_IMODE(own.stat().st_mode) == 0o2750
    publisher.ensure(config.targets[0], token())
    assert stat.S_IMODE((Path(config.directory) / "dnb").stat().st_mode) == 0o2770
    assert {stat.S_IMODE(path.stat().st_mode) & 0o077 for path in own.rglob("*")} == {0}
    Publisher(config).prepare()
    assert Publisher(config).load(config.targets[0]) == GOOD


@ROOT
def test_a_reading_process_moves_nothing_of_another_users_records(config: Config) -> None:
    prepared(config)
    own = Path(config.directory) / ".bearerd"
    give(own, BOB)
    before = sorted(own.rglob("*"))
    assert peek(config.directory, "dnb", "bci") == GOOD
    examination = Examination(config)
    assert examination.own_directories(BOB) == []
    assert [note.partition(":")[0] for note in examination.own_directories(0)] == [
        str(path) for path in (own, own / "records", own / "owed")
    ]
    State(config.state_directory).examine()
    assert sorted(own.rglob("*")) == before


# -- the state directory of a config -----------------------------------------------------------------


@ROOT
@pytest.mark.parametrize(("mode", "uid"), [(0o1777, 0), (0o2775, 0), (0o755, ALICE)])
def test_in_a_shared_state_directory_the_state_has_its_own_directory(
    config: Config, caplog: pytest.LogCaptureFixture, mode: int, uid: int
) -> None:
    # It may be the root of a volume, or /tmp: nobody would thank us for moving that aside.
    volume = Path(config.directory).parent / "volume"
    volume.mkdir()
    State(str(volume)).save("clients", "planted", FIELDS)
    give(volume, uid)
    volume.chmod(mode)
    state = State(str(volume))
    state.sweep()
    (said,) = caplog.messages
    assert said.startswith(f"state directory {volume}: ")
    assert said.endswith(f"the state is kept in {volume}/.bearerd, which only bearerd uses")
    assert state.load("clients", "planted") is None
    state.save("clients", "dnb", FIELDS)
    assert State(str(volume)).load("clients", "dnb") == FIELDS
    assert stat.S_IMODE((volume / ".bearerd").stat().st_mode) & 0o777 == 0o700
    give(volume / ".bearerd", ALICE)
    assert State(str(volume)).load("clients", "dnb") is None
    assert volume.exists()


def test_a_state_directory_can_be_a_symlink_by_systemd(tmp_path: Path) -> None:
    (tmp_path / "private/bearerd").mkdir(parents=True, mode=0o700)
    (tmp_path / "private/bearerd").chmod(0o700)
    (tmp_path / "bearerd").symlink_to("private/bearerd")
    state = State(str(tmp_path / "bearerd"))
    state.save("clients", "dnb", FIELDS)
    assert state.note == ""
    assert (tmp_path / "private/bearerd/clients/dnb.json").exists()


# -- other versions of the format ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "kept"),
    [
        (0, "version-0"),
        (2, "version-2"),
        ("2", "unknown-version"),
        (10**30, "unknown-version"),
        (None, "unknown-version"),
    ],
)
def test_a_record_or_state_of_another_version_is_renamed_and_not_overwritten(
    config: Config, caplog: pytest.LogCaptureFixture, version: object, kept: str
) -> None:
    publisher, (target,) = prepared(config), config.targets
    own = Path(config.directory) / ".bearerd"
    state = State(config.state_directory)
    newer = {}
    for path in (own / "records/dnb/bci.json", own / "clients/dnb.json"):
        newer[path] = json.dumps(json.loads(path.read_bytes()) | {"schema": version, "more": 1}).encode()
        path.write_bytes(newer[path])
    assert publisher.load(target) is None
    assert state.load("clients", "dnb") is None
    publisher.save(target, GOOD)
    state.save("clients", "dnb", FIELDS)
    for path, content in newer.items():
        aside = path.with_name(f"{path.name}.{kept}")
        assert aside.read_bytes() == content
        assert [
            text
            for text in caplog.messages
            if text.endswith(f"from another version of bearerd; it was kept as {aside}")
        ]
        # An administrator moves the file back for the newer bearerd, which reads it.
        aside.rename(path)
    assert peek(config.directory, "dnb", "bci") is None
    assert state.load("clients", "dnb") is None


def test_a_file_that_is_no_document_is_overwritten(config: Config) -> None:
    publisher, (target,) = prepared(config), config.targets
    path = Path(config.directory) / ".bearerd/records/dnb/bci.json"
    for content in (b"", b"{", b"[" * 100_000, b"7", b'{"kept": {}}'):
        path.write_bytes(content)
        assert publisher.load(target) is None
    publisher.save(target, GOOD)
    assert os.listdir(path.parent) == ["bci.json"]
