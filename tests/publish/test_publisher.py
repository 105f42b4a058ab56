from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bearerd.errors import DirectoryLocked, DirectoryUnusable, PublishError
from bearerd.model import Config, Output
from bearerd.publish.publisher import Publisher
from bearerd.publish.record import Record
from support.targets import TARGET, token


@pytest.fixture
def config(tmp_path: Path) -> Config:
    directory = tmp_path / "tokens"
    outputs = (
        Output(path=str(directory / "dnb/bci")),
        Output(path=str(directory / "dnb/bci.header"), format="header", mode=0o600),
    )
    return Config(
        directory=str(directory), state_directory=str(tmp_path / "state"), targets=(replace(TARGET, outputs=outputs),)
    )


def test_a_targets_files_are_written_once_and_then_left_alone(config: Config) -> None:
    publisher, (target,) = Publisher(config), config.targets
    assert len(publisher.ensure(target, token()).written) == 2
    assert publisher.ensure(target, token()).written == ()
    Path(target.outputs[0].path).unlink()
    assert publisher.ensure(target, token()).written == (target.outputs[0].path,)


def test_one_file_that_cannot_be_written_keeps_no_other_from_it(config: Config) -> None:
    publisher, (target,) = Publisher(config), config.targets
    Path(target.outputs[0].path).mkdir(parents=True)
    published = publisher.ensure(target, token())
    assert published.written == (target.outputs[1].path,)
    assert len(published.faults) == 1


def test_withdrawn_files_are_gone_and_can_be_withdrawn_again(config: Config) -> None:
    publisher, (target,) = Publisher(config), config.targets
    publisher.ensure(target, token())
    assert len(publisher.withdraw(target.outputs).written) == 2
    assert publisher.withdraw(target.outputs).written == ()
    assert not Path(target.outputs[0].path).exists()


def test_records_are_for_the_daemon_alone(config: Config) -> None:
    publisher, (target,) = Publisher(config), config.targets
    publisher.prepare()
    publisher.save(target, Record(token(), "x", "7e0c5a"))
    own = Path(config.directory) / ".bearerd"
    record = own / "records/dnb/bci.json"
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (record, record.parent, own / "records", own)]
    assert modes == [0o600, 0o700, 0o700, 0o750]
    assert publisher.load(target) == Record(token(), "x", "7e0c5a")


def test_a_second_daemon_on_a_directory_is_told_who_keeps_it(config: Config) -> None:
    lock = Publisher(config).prepare()
    with pytest.raises(DirectoryLocked, match=rf"kept by another bearerd, pid {os.getpid()}: stop it"):
        Publisher(config).prepare()
    lock.release()
    Publisher(config).prepare().release()


def test_the_lock_of_a_killed_process_is_free(config: Config) -> None:
    program = (
        "import sys\nfrom bearerd.model import Config\nfrom bearerd.publish.publisher import Publisher\n"
        "lock = Publisher(Config(sys.argv[1], sys.argv[1])).prepare()\nprint('held', flush=True)\nsys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", program, config.directory], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(DirectoryLocked, match=f"pid {holder.pid}"):
        Publisher(config).prepare()
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    Publisher(config).prepare().release()


def test_what_a_killed_process_left_is_swept_wherever_files_go(config: Config, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (target,) = config.targets
    config = replace(
        config,
        targets=(
            replace(
                target,
                outputs=(*target.outputs, Output(path=str(elsewhere / "t"))),
            ),
        ),
    )
    publisher = Publisher(config)
    publisher.ensure(config.targets[0], token())
    name = f".bearerd-{publisher._files._mark}-{'a' * 16}.tmp"
    for directory in (elsewhere, Path(config.directory) / "dnb"):
        (directory / name).write_text("half a tok")
    publisher.prepare().release()
    assert not (elsewhere / name).exists()
    assert not (Path(config.directory) / "dnb" / name).exists()


def test_a_directory_that_cannot_be_made_is_said_at_the_start(config: Config, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DirectoryUnusable, match="no directory"):
        Publisher(replace(config, directory=str(tmp_path / "file/tokens"))).prepare()


# -- what is noted before files change -----------------------------------------------------------------


def test_before_the_first_file_changes_that_is_said_once_and_not_where_none_does(config: Config) -> None:
    publisher, (target,) = Publisher(config), config.targets
    raw, header = (Path(output.path) for output in target.outputs)
    found: list[list[bool]] = []

    def before() -> None:
        found.append([raw.exists(), header.exists()])

    publisher.ensure(target, token(), before)
    assert found == [[False, False]]
    publisher.ensure(target, token(), before)
    assert len(found) == 1
    header.chmod(0o644)
    publisher.ensure(target, token(), before)
    assert found[1:] == [[True, True]]
    header.unlink()
    publisher.ensure(target, token(), before)
    assert found[2:] == [[True, False]]


def test_that_a_file_is_to_change_is_said_also_where_it_cannot(config: Config) -> None:
    # Who is told must be told once it can: nobody knows here whether there will be another process by then.
    publisher, (target,) = Publisher(config), config.targets
    for output in target.outputs:
        Path(output.path).mkdir(parents=True)
    said: list[str] = []
    assert len(publisher.ensure(target, token(), lambda: said.append("before")).faults) == 2
    assert said == ["before"]


def test_a_note_is_there_for_the_next_process_until_it_is_taken_away(config: Config) -> None:
    publisher, (target,) = Publisher(config), config.targets
    publisher.prepare().release()
    assert not publisher.noted(target)
    publisher.unnote(target)  # where there is none
    publisher.note(target)
    publisher.note(target)
    assert Publisher(config).noted(target)
    assert not publisher.noted(replace(target, name="risk"))
    note = Path(config.directory) / ".bearerd/owed/dnb/bci"
    assert stat.S_IMODE(note.stat().st_mode) == 0o600
    assert stat.S_IMODE(note.parent.stat().st_mode) == 0o700
    publisher.unnote(target)
    assert not Publisher(config).noted(target)


def test_a_note_holds_nothing_of_the_token(config: Config) -> None:
    publisher, (target,) = Publisher(config), config.targets
    publisher.ensure(target, token("s3cr3t"), lambda: publisher.note(target))
    assert (Path(config.directory) / ".bearerd/owed/dnb/bci").read_text() == "hooks\n"


def test_who_is_forgotten_is_owed_nothing(config: Config) -> None:
    publisher, (target,) = Publisher(config), config.targets
    publisher.save(target, Record(token(), "x", "7e0c5a"))
    publisher.note(target)
    publisher.forget(target)
    assert publisher.load(target) is None
    assert not publisher.noted(target)


def test_a_note_that_cannot_be_written_raises_and_one_that_cannot_be_taken_away_is_said(
    config: Config, caplog: pytest.LogCaptureFixture
) -> None:
    publisher, (target,) = Publisher(config), config.targets
    note = Path(config.directory) / ".bearerd/owed/dnb/bci"
    note.mkdir(parents=True)
    with pytest.raises(PublishError, match=r"/owed/dnb/bci: a directory has this name"):
        publisher.note(target)
    publisher.unnote(target)
    assert caplog.messages == [f"hooks: {note}: a directory has this name; they are run once more at the next start"]


def test_what_a_killed_process_left_beside_a_note_is_swept(config: Config) -> None:
    publisher, (target,) = Publisher(config), config.targets
    publisher.note(target)
    left = Path(config.directory) / f".bearerd/owed/dnb/.bearerd-{publisher._files._mark}-{'a' * 16}.tmp"
    left.write_text("")
    publisher.prepare().release()
    assert not left.exists()
    assert publisher.noted(target)
