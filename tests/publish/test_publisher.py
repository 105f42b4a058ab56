from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bearerd.errors import DirectoryLocked, DirectoryUnusable, PublishError
from bearerd.model import Config, Output
from bearerd.publish import atomic
from bearerd.publish.examination import Examination
from bearerd.publish.publisher import Published, Publisher
from bearerd.publish.record import Record
from bearerd.terms import Reference
from support.readers import ROOT, acting_as, can_read, open_directory
from support.targets import TARGET, token

BOB = 12345


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


def test_a_targets_files_are_written_once(config: Config) -> None:
    publisher, (target,) = Publisher(config), config.targets
    assert len(publisher.ensure(target, token()).written) == 2
    assert publisher.ensure(target, token()).written == ()
    Path(target.outputs[0].path).unlink()
    assert publisher.ensure(target, token()).written == (target.outputs[0].path,)


@pytest.mark.parametrize("call", ["replace", "matches"])
@pytest.mark.parametrize(
    "harm",
    [
        pytest.param(lambda path: path.unlink(), id="deleted"),
        pytest.param(lambda path: path.write_text("garbage"), id="altered"),
        pytest.param(lambda path: path.chmod(0o666), id="opened"),
    ],
)
def test_a_change_right_after_a_write_or_look_is_noticed(
    config: Config, monkeypatch: pytest.MonkeyPatch, call: str, harm: Callable[[Path], object]
) -> None:
    publisher, (target,) = Publisher(config), config.targets
    if call == "matches":
        publisher.ensure(target, token())
        assert not publisher.disturbed()
    real = getattr(publisher._files, call)

    def then_harm(path: str, *arguments: object) -> object:
        done = real(path, *arguments)
        if path == target.outputs[0].path and Path(path).exists():
            harm(Path(path))
        return done

    with monkeypatch.context() as patch:
        patch.setattr(publisher._files, call, then_harm)
        publisher.ensure(target, token())
    assert publisher.disturbed() == {target.full_name}
    assert publisher.ensure(target, token()).written == (target.outputs[0].path,)
    assert not publisher.disturbed()


def linked(path: Path) -> None:
    """Replace a file by a symlink to another one."""
    path.with_name("foreign").write_text("garbage")
    path.unlink()
    path.symlink_to("foreign")


@pytest.mark.parametrize(
    "harm",
    [
        pytest.param(lambda path: path.write_text("x"), id="shorter"),
        pytest.param(lambda path: path.write_text(f"{path.read_text()}x"), id="longer"),
        pytest.param(linked, id="a symlink"),
    ],
)
def test_what_another_program_puts_there_after_each_write_is_written_over_each_time(
    config: Config, monkeypatch: pytest.MonkeyPatch, harm: Callable[[Path], object]
) -> None:
    publisher, (target,) = Publisher(config), config.targets
    path, replaced = target.outputs[0].path, publisher._files.replace

    def then_harm(changed: str, *arguments: Any) -> object:
        done = replaced(changed, *arguments)
        if changed == path:
            harm(Path(path))
        return done

    with monkeypatch.context() as patch:
        patch.setattr(publisher._files, "replace", then_harm)
        for _ in range(3):
            assert path in publisher.ensure(target, token()).written
            assert publisher.disturbed() == {target.full_name}
    assert publisher.ensure(target, token()).written == (path,)
    assert not publisher.disturbed()


def test_targets_whose_record_is_gone_are_named(config: Config) -> None:
    second = replace(config.targets[0], name="second", outputs=())
    config = replace(config, targets=(*config.targets, second))
    publisher = Publisher(config)
    for target in config.targets:
        publisher.save(target, Record(token(), target.identity(), "id"))
    records = Path(config.directory, ".bearerd/records/dnb")
    later = records.stat().st_mtime + 10.0
    assert publisher.unrecorded(later) == set()
    (records / "second.json").unlink()
    assert publisher.unrecorded(later + 10.0) == {"dnb/second"}
    assert publisher.unrecorded(later + 10.0) == set()  # its turn makes it again


def test_on_a_file_system_without_modes_files_are_not_rewritten_for_ever(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher, (target,) = Publisher(config), config.targets
    monkeypatch.setattr("bearerd.publish.atomic.os.fchmod", lambda _descriptor, _mode: None)
    looks = 0
    for number in range(3):
        publisher.ensure(target, token(f"t-{number}"))
        while publisher.disturbed():
            looks += 1
            assert looks < 10
            publisher.ensure(target, token(f"t-{number}"))
    assert looks == 1


def test_a_file_that_cannot_be_written_does_not_affect_the_others(config: Config) -> None:
    publisher, (target,) = Publisher(config), config.targets
    Path(target.outputs[0].path).mkdir(parents=True)
    published = publisher.ensure(target, token())
    assert published.written == (target.outputs[1].path,)
    assert len(published.faults) == 1


def test_files_can_be_withdrawn_twice(config: Config) -> None:
    publisher, (target,) = Publisher(config), config.targets
    publisher.ensure(target, token())
    assert len(publisher.withdraw(target.outputs).written) == 2
    assert publisher.withdraw(target.outputs).written == ()
    assert not Path(target.outputs[0].path).exists()


def test_records_are_private(config: Config) -> None:
    publisher, (target,) = Publisher(config), config.targets
    publisher.prepare()
    publisher.save(target, Record(token(), "x", "7e0c5a"))
    own = Path(config.directory) / ".bearerd"
    record = own / "records/dnb/bci.json"
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (record, record.parent, own / "records", own)]
    assert modes == [0o600, 0o700, 0o700, 0o750]
    assert publisher.load(target) == Record(token(), "x", "7e0c5a")


def test_a_second_daemon_is_refused_with_the_pid_of_the_first(config: Config) -> None:
    first = Publisher(config)
    first.prepare()
    with pytest.raises(DirectoryLocked, match=rf"in use by another bearerd, pid {os.getpid()}; stop it"):
        Publisher(config).prepare()
    # Another user may have written it, and the message may go to root's terminal.
    (Path(config.directory) / ".bearerd/lock").write_text("\x1b[2J\x1b[31m")
    with pytest.raises(DirectoryLocked, match="in use by another bearerd, pid unknown; stop it"):
        Publisher(config).prepare()
    first.release()
    Publisher(config).prepare()


def test_the_lock_of_a_killed_process_is_free(config: Config) -> None:
    program = (
        "import sys\nfrom bearerd.model import Config\nfrom bearerd.publish.publisher import Publisher\n"
        "publisher = Publisher(Config(sys.argv[1], sys.argv[1]))\npublisher.prepare()\n"
        "print('held', flush=True)\nsys.stdin.read()"
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
    Publisher(config).prepare()


def test_temporary_files_are_removed_in_every_output_directory(config: Config, tmp_path: Path) -> None:
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
    root = Path(config.directory)
    left = [where / name for where in (elsewhere, root, root / "dnb", root / ".bearerd", root / ".bearerd/records")]
    for file in left:
        file.parent.mkdir(exist_ok=True)
        file.write_text("half a tok")
    publisher.prepare()
    assert [file for file in left if file.exists()] == []


@pytest.mark.parametrize(("count", "said"), [(1, "removed 1 temporary file of"), (2, "removed 2 temporary files of")])
def test_the_log_says_how_many_leftovers_were_removed(
    config: Config, caplog: pytest.LogCaptureFixture, count: int, said: str
) -> None:
    publisher = Publisher(config)
    publisher.ensure(config.targets[0], token())
    for number in range(count):
        name = f".bearerd-{publisher._files._mark}-{number:016x}.tmp"
        (Path(config.directory) / name).write_text("half a tok")
    with caplog.at_level("INFO"):
        publisher.prepare()
    assert said in caplog.text


def test_a_directory_that_cannot_be_made_is_an_error_at_the_start(config: Config, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DirectoryUnusable, match="/file: not a directory; move it away"):
        Publisher(replace(config, directory=str(tmp_path / "file/tokens"))).prepare()


# -- what cannot be read -------------------------------------------------------------------------------


def failing(monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    """Let the next reads of files fail."""
    once, faults = atomic._read, [OSError(errno.EIO, "Input/output error")] * times

    def read(parent: int, name: str, most: int) -> bytes:
        if faults:
            raise faults.pop()
        return once(parent, name, most)

    monkeypatch.setattr(atomic, "_read", read)


def test_a_record_is_read_again_after_a_failure(
    config: Config, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    publisher, (target,) = Publisher(config), config.targets
    publisher.save(target, Record(token(), "x", "7e0c5a"))
    failing(monkeypatch, 1)
    assert publisher.load(target) is not None
    assert not caplog.messages
    failing(monkeypatch, 2)
    assert publisher.load(target) is None
    path = Path(config.directory) / ".bearerd/records/dnb/bci.json"
    assert caplog.messages == [f"record: {path}: input/output error; check the disk; a new token is requested"]
    caplog.clear()
    path.write_text("{")
    assert publisher.load(target) is None
    assert caplog.messages == [f"record: {path} is damaged; a new token is requested"]


def test_if_a_note_cannot_be_read_its_hooks_run(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    publisher, (target,) = Publisher(config), config.targets
    publisher.notes.note(target)
    failing(monkeypatch, 2)
    assert publisher.notes.noted(target)


# -- notes ---------------------------------------------------------------------------------------------


def test_the_callback_is_called_once_before_the_first_change(config: Config) -> None:
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


def test_the_callback_is_called_even_if_the_change_fails(config: Config) -> None:
    # The hooks have to run once that is possible, if need be by a later process.
    publisher, (target,) = Publisher(config), config.targets
    for output in target.outputs:
        Path(output.path).mkdir(parents=True)
    said: list[str] = []
    assert len(publisher.ensure(target, token(), lambda: said.append("before")).faults) == 2
    assert said == ["before"]


def test_the_next_process_sees_a_note_until_it_is_removed(config: Config) -> None:
    publisher, (target,) = Publisher(config), config.targets
    publisher.prepare()
    assert not publisher.notes.noted(target)
    publisher.notes.unnote(target)  # where there is none
    publisher.notes.note(target)
    publisher.notes.note(target)
    assert Publisher(config).notes.noted(target)
    assert not publisher.notes.noted(replace(target, name="risk"))
    note = Path(config.directory) / ".bearerd/owed/dnb/bci"
    assert stat.S_IMODE(note.stat().st_mode) == 0o600
    assert stat.S_IMODE(note.parent.stat().st_mode) == 0o700
    publisher.notes.unnote(target)
    assert not Publisher(config).notes.noted(target)


def test_a_note_holds_nothing_of_the_token(config: Config) -> None:
    publisher, (target,) = Publisher(config), config.targets
    publisher.ensure(target, token("s3cr3t"), lambda: publisher.notes.note(target))
    assert (Path(config.directory) / ".bearerd/owed/dnb/bci").read_text() == "hooks\n"


def test_a_forgotten_target_has_no_note(config: Config) -> None:
    publisher, (target,) = Publisher(config), config.targets
    publisher.save(target, Record(token(), "x", "7e0c5a"))
    publisher.notes.note(target)
    publisher.forget(target)
    assert publisher.load(target) is None
    assert not publisher.notes.noted(target)


def test_a_note_that_cannot_be_written_is_an_error_and_one_that_cannot_be_removed_a_warning(
    config: Config, caplog: pytest.LogCaptureFixture
) -> None:
    publisher, (target,) = Publisher(config), config.targets
    note = Path(config.directory) / ".bearerd/owed/dnb/bci"
    note.mkdir(parents=True)
    with pytest.raises(PublishError, match=r"/owed/dnb/bci: a directory has this name"):
        publisher.notes.note(target)
    publisher.notes.unnote(target)
    assert caplog.messages == [
        f"hooks: {note}: a directory has this name; move it away; they will run again at the next start"
    ]


def test_temporary_files_beside_a_note_are_removed(config: Config) -> None:
    publisher, (target,) = Publisher(config), config.targets
    publisher.notes.note(target)
    left = Path(config.directory) / f".bearerd/owed/dnb/.bearerd-{publisher._files._mark}-{'a' * 16}.tmp"
    left.write_text("")
    publisher.prepare()
    assert not left.exists()
    assert publisher.notes.noted(target)


# -- files for several readers -------------------------------------------------------------------------


def outputs_of(config: Config, *outputs: Output) -> Config:
    """The config with these for its target's files."""
    return replace(config, targets=(replace(config.targets[0], outputs=outputs),))


@ROOT
def test_each_reader_of_a_token_gets_a_file_of_its_own(config: Config) -> None:
    with open_directory() as directory:
        elsewhere, root = directory / "elsewhere", directory / "run"
        elsewhere.mkdir(mode=0o755)
        # XRootD refuses a file that its group can read, and looks for it by the user's number (WLCG).
        found = Output(f"{root}/bt_u1000", mode=0o600, owner="1000")
        outputs = (
            Output(f"{root}/dnb/bci", mode=0o640, group="4242"),
            found,
            replace(found, path=f"{elsewhere}/bt_u1000", newline=True),
        )
        tokens = outputs_of(replace(config, directory=str(root), directory_mode=0o711), *outputs)
        before = os.umask(0o077)
        try:
            assert Publisher(tokens).ensure(tokens.targets[0], token("t")).faults == ()
        finally:
            os.umask(before)
        paths = [Path(output.path) for output in outputs]
        assert [path.read_text() for path in paths] == ["t", "t", "t\n"]
        assert [stat.S_IMODE(path.stat().st_mode) for path in paths] == [0o640, 0o600, 0o600]
        readers = {"owner": (1000, 1000), "member": (2000, 2000, 4242), "stranger": (3000, 3000)}
        assert {name: [can_read(path, *ids) for path in paths] for name, ids in readers.items()} == {
            "owner": [False, True, True],
            "member": [True, False, False],
            "stranger": [False, False, False],
        }


def test_the_check_reports_why_a_file_cannot_be_written(config: Config, tmp_path: Path) -> None:
    Path(config.targets[0].outputs[0].path).mkdir(parents=True)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "link").symlink_to(tmp_path)
    elsewhere.chmod(0o1777)
    config = outputs_of(config, *config.targets[0].outputs, Output(f"{elsewhere}/link/t"))
    busy, link = Examination(config).files_of(config.targets[0])
    assert busy == f"{config.targets[0].outputs[0].path}: a directory has this name"
    assert link.startswith(f"the symlink {elsewhere}/link is not followed: ")
    # A link in a file's place is replaced.
    Path(config.targets[0].outputs[0].path).rmdir()
    Path(config.targets[0].outputs[0].path).symlink_to(tmp_path)
    assert Examination(config).files_of(config.targets[0]) == [link]


@ROOT
@pytest.mark.parametrize("there", ["", "tokens", "tokens/.bearerd", "tokens/.bearerd/records"])
@pytest.mark.parametrize("setgid", [False, True])
@pytest.mark.parametrize("group", [None, "0", str(BOB), "4242"])
def test_the_check_and_the_daemon_agree_about_the_group_of_new_directories(
    config: Config, there: str, setgid: bool, group: str | None
) -> None:
    with open_directory() as place:
        os.chown(place, BOB, 4242)
        place.chmod(0o2755 if setgid else 0o755)
        config = replace(config, directory=str(place / "tokens"), group=group)
        with acting_as(BOB):
            (place / there).mkdir(parents=True, exist_ok=True)
            foreseen, said = Examination(config).directory(), ""
            try:
                Publisher(config).prepare()
            except DirectoryUnusable as error:
                said = str(error)
        assert [fault.partition(": ")[2] for fault in foreseen] == [*filter(None, [said.partition(": ")[2]])]
        assert all(fault.startswith(config.directory) for fault in foreseen)
        assert bool(said) == (there != "tokens/.bearerd/records" and group in ({"0"} if setgid else {"0", "4242"}))


@ROOT
@pytest.mark.parametrize("setgid", [False, True])
@pytest.mark.parametrize("output", [Output(""), Output("", group="0"), Output("", group="4242"), Output("", owner="0")])
@pytest.mark.parametrize("group", [None, "0"])
def test_the_check_and_the_daemon_agree_about_owner_and_group_of_files(
    config: Config, setgid: bool, output: Output, group: str | None
) -> None:
    with open_directory() as place:
        os.chown(place, BOB, 4242)
        place.chmod(0o2755 if setgid else 0o755)
        config = replace(config, directory=str(place), group=group)
        config = outputs_of(config, replace(output, path=str(place / "new/t")))
        with acting_as(BOB):
            foreseen = Examination(config).files_of(config.targets[0])
            faults = Publisher(config).ensure(config.targets[0], token()).faults
        assert [fault.partition(": ")[2] for fault in foreseen] == [fault.partition(": ")[2] for fault in faults]
        fails = output.owner is not None or output.group in ({"0"} if setgid else {"0", "4242"})
        assert bool(faults) == (fails or group == "0")


# -- where the files go --------------------------------------------------------------------------------


def test_a_directory_that_others_can_write_is_a_warning_once(
    config: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory, elsewhere = Path(config.directory), tmp_path / "elsewhere"
    for path in (directory, elsewhere):
        path.mkdir()
        path.chmod(0o777)
    publisher = Publisher(config)
    publisher.prepare()
    assert [(record.levelname, record.message.split(":")[0]) for record in caplog.records] == [
        ("WARNING", f"directory {directory}")
    ]
    assert "A Kubernetes emptyDir is always 0777" in caplog.messages[0]
    publisher.adopt(config)
    assert len(caplog.messages) == 1
    # A new config may go elsewhere.
    publisher.adopt(outputs_of(config, Output(f"{elsewhere}/t"), *config.targets[0].outputs))
    assert [message.split(":")[0] for message in caplog.messages[1:]] == [f"directory {elsewhere}"]


@ROOT
def test_a_file_that_is_a_mount_point_is_an_error_and_does_not_affect_the_others(
    config: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    publisher, (target,) = Publisher(config), config.targets
    mounted, other = (Path(output.path) for output in target.outputs)
    mounted.parent.mkdir(parents=True)
    mounted.touch()
    (tmp_path / "host").touch()
    subprocess.run(["mount", "--bind", tmp_path / "host", mounted], check=True)
    try:
        publisher.prepare()
        (said,) = caplog.records
        assert (said.levelname, said.target) == ("ERROR", "dnb/bci")  # type: ignore[attr-defined] # log.say adds it
        assert said.message.startswith(f"this file cannot be written, all others can: {mounted} is a mount point")
        assert "mount its directory instead" in said.message
        publisher.adopt(config)
        assert len(caplog.records) == 1
        published = publisher.ensure(target, token())
        assert published.written == (str(other),)
        assert len(published.faults) == 1
    finally:
        subprocess.run(["umount", mounted], check=True)
    assert publisher.ensure(target, token()).written == (str(mounted),)


@pytest.mark.parametrize(
    ("secret", "output"),
    [
        pytest.param("real/s", "link/s", id="a secret through a linked directory"),
        pytest.param("link/s", "real/s", id="a secret that the config names through one"),
        pytest.param("s", "real/s", id="what a secret that is a link leads to"),
        pytest.param("other", "link/config.yaml", id="a file of the config"),
    ],
)
def test_a_file_that_bearerd_reads_is_neither_replaced_nor_removed_through_a_symlink(
    config: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture, secret: str, output: str
) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "s").symlink_to("link/s")
    for name in ("s", "config.yaml"):
        (tmp_path / "real" / name).write_text("kept")
    client = replace(TARGET.client, client_secret=(Reference("file", str(tmp_path / secret)),))
    kept, other = str(tmp_path / output), config.targets[0].outputs[0]
    target = replace(TARGET, client=client, outputs=(Output(kept), other))
    config = replace(config, targets=(target,), sources=(str(tmp_path / "real/config.yaml"),))
    publisher = Publisher(config)
    publisher.prepare()
    (said,) = caplog.records
    assert (said.levelname, said.target) == ("ERROR", "dnb/bci")  # type: ignore[attr-defined] # log.say adds it
    assert f"{kept} leads to " in said.message
    assert "which bearerd reads: it is not written; use another path" in said.message
    published = publisher.ensure(target, token())
    assert (published.written, len(published.faults)) == ((other.path,), 1)
    assert publisher.withdraw(target.outputs).written == (other.path,)
    # Also when the config that named both is gone.
    for _ in range(2):
        publisher.adopt(replace(config, targets=(), sources=()))
    assert publisher.withdraw(target.outputs) == Published()
    assert [path.read_text() for path in sorted((tmp_path / "real").iterdir())] == ["kept", "kept"]


def test_of_two_outputs_that_are_one_file_through_a_symlink_the_first_has_it(config: Config, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    file = tmp_path / "real/t"
    first = replace(TARGET, outputs=(Output(str(file)),))
    second = replace(TARGET, name="second", outputs=(Output(str(tmp_path / "link/t")),))
    config = replace(config, targets=(first, second))
    publisher = Publisher(config)
    assert publisher.ensure(first, token("a")).written == (str(file),)
    fault = f"{tmp_path}/link/t leads to {file}, the file of 'dnb/bci': it is not written; use another path"
    assert publisher.ensure(second, token("b")) == Published(faults=(fault,))
    assert Examination(config).files_of(second) == [fault]
    assert publisher.withdraw(second.outputs) == Published()
    assert file.read_text() == "a"
    publisher.adopt(replace(config, targets=(second,)))
    assert publisher.withdraw(first.outputs) == Published()
    assert file.read_text() == "a", "readers have the old token until there is a new one"
    assert publisher.ensure(second, token("b")).faults == ()
    assert file.read_text() == "b"
    assert publisher.withdraw(second.outputs).written == (second.outputs[0].path,)


@ROOT
def test_a_symlink_that_is_not_followed_keeps_no_other_output_from_its_file(config: Config, tmp_path: Path) -> None:
    for name in ("home", "real"):
        (tmp_path / name).mkdir()
    os.chown(tmp_path / "home", 65534, 65534)
    (tmp_path / "home/link").symlink_to(tmp_path / "real")
    paths = [str(tmp_path / name) for name in ("home/link/t", "real/t")]
    config = outputs_of(config, *map(Output, paths))
    published = Publisher(config).ensure(config.targets[0], token())
    assert published.written == (paths[1],)
    assert [fault.partition(" is ")[0] for fault in published.faults] == [f"the symlink {tmp_path}/home/link"]
