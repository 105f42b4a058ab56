"""What `Files` does besides replacing: read, remove, keep aside, sweep, prove; and the order of a write."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bearerd.errors import NotPermitted, PublishError
from bearerd.publish import atomic
from bearerd.publish.atomic import Files
from bearerd.publish.owners import PRIVATE, Attributes
from bearerd.publish.walk import walk

PLAIN = Attributes(0o640)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "tokens-X"


@pytest.fixture
def files(root: Path) -> Files:
    return Files(str(root), 0o750)


class Calls:
    """The calls of `os` that a write makes, in their order; `fail` lets one of them fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fail: str = "", number: int = errno.EIO) -> None:
        self.names: list[str] = []
        self.temporary = ""
        self.modes: list[int] = []
        for name in ("open", "fchown", "fchmod", "write", "fsync", "close", "rename", "unlink"):
            monkeypatch.setattr(f"bearerd.publish.atomic.os.{name}", self._recorded(name, fail, number))

    def _recorded(self, name: str, fail: str, number: int) -> Callable[..., Any]:
        real = getattr(os, name)

        def call(first: Any, *arguments: Any, **keywords: Any) -> Any:
            self.names.append(name)
            if name == "open":
                self.temporary = first
            if name in {"fchown", "fchmod"}:
                self.modes.append(stat.S_IMODE(os.fstat(first).st_mode))
            if name == fail:
                raise OSError(number, os.strerror(number))
            return real(first, *arguments, **keywords)

        return call


def test_the_steps_of_a_write_are_in_the_order_that_survives_a_crash(
    files: Files, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.replace(str(root / "t"), b"one", PLAIN)
    calls = Calls(monkeypatch)
    files.replace(str(root / "t"), b"two", Attributes(0o644, os.geteuid(), os.getegid()))
    assert calls.names == ["open", "fchown", "fchmod", "write", "fsync", "close", "rename", "fsync"]
    assert calls.modes == [0o600, 0o600]


@pytest.mark.parametrize(
    ("wanted", "changes"),
    [(PLAIN, 0), (Attributes(0o640, os.geteuid(), -1), 1), (Attributes(0o640, -1, os.getegid()), 1)],
)
def test_the_owner_is_changed_only_if_one_or_a_group_is_configured(
    files: Files, root: Path, monkeypatch: pytest.MonkeyPatch, wanted: Attributes, changes: int
) -> None:
    calls = Calls(monkeypatch)
    files.replace(str(root / "t"), b"one", wanted)
    assert calls.names.count("fchown") == changes


def test_a_temporary_file_that_could_not_be_removed_is_swept_later(
    files: Files, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(*_: Any, **__: Any) -> None:
        raise PermissionError

    files.replace(str(root / "t"), b"one", PLAIN)
    with monkeypatch.context() as patch:
        calls = Calls(patch, fail="rename")
        patch.setattr("bearerd.publish.atomic.os.unlink", denied)
        with pytest.raises(PublishError, match=rf"^{root}/t: input/output error"):
            files.replace(str(root / "t"), b"two", PLAIN)
    assert re.fullmatch(r"\.bearerd-[0-9a-f]{8}-[0-9a-f]{16}\.tmp", calls.temporary)
    assert (root / calls.temporary).exists()
    assert files.sweep({str(root)}) == 1
    assert os.listdir(root) == ["t"]


def test_each_directory_is_swept_and_names_that_only_look_alike_stay(files: Files, root: Path) -> None:
    mark = files._mark
    assert re.fullmatch(r"[0-9a-f]{8}", mark)
    for directory in (root, root / "d"):
        directory.mkdir()
        for name in (f".bearerd-{mark}-{'a' * 16}.tmp", f".bearerd-{mark}-{'0' * 16}.tmp"):
            (directory / name).touch()
    stays = [
        f".bearerd-{mark}-{'a' * 15}.tmp",
        f".bearerd-{mark}-{'a' * 17}.tmp",
        f".bearerd-{mark}-{'A' * 16}.tmp",
        f".bearerd-{mark}-{'a' * 16}xtmp",
        f"x.bearerd-{mark}-{'a' * 16}.tmp",
        f".bearerd-{mark}-{'a' * 16}.tmp.x",
    ]
    for name in stays:
        (root / name).touch()
    assert files.sweep({str(root), str(root / "d"), str(root / "not-there")}) == 4
    assert sorted(os.listdir(root)) == sorted([*stays, "d"])
    assert os.listdir(root / "d") == []
    assert Files(str(root / "d"), 0o750)._mark != mark


def test_a_file_is_read_up_to_a_bound_and_nothing_else_is_read(files: Files, root: Path) -> None:
    files.replace(str(root / "t"), b"abcdef", PLAIN)
    assert files.read(str(root / "t"), 100) == b"abcdef"
    assert files.read(str(root / "t"), 6) == b"abcdef"
    assert files.read(str(root / "t"), 5) == b"abcde"
    (root / "empty").touch()
    assert files.read(str(root / "empty"), 5) == b""
    (root / "link").symlink_to("t")
    (root / "d").mkdir()
    os.mkfifo(root / "fifo")
    for name in ("link", "d", "fifo", "not-there", "t/x", "not-there/x"):
        assert files.read(str(root / name), 100) is None
    assert not (root / "not-there").exists()


def test_a_file_is_removed_once(files: Files, root: Path) -> None:
    files.replace(str(root / "d/t"), b"x", PLAIN)
    assert files.remove(str(root / "d/t"))
    assert os.listdir(root / "d") == []
    assert not files.remove(str(root / "d/t"))
    assert not files.remove(str(root / "not-there/t"))
    with pytest.raises(PublishError, match=rf"^{root}/d: a directory has this name"):
        files.remove(str(root / "d"))


def test_a_file_that_is_kept_aside_has_another_name_in_its_directory(files: Files, root: Path) -> None:
    files.replace(str(root / "d/t"), b"x", PLAIN)
    assert files.keep_aside(str(root / "d/t"), "version-9") == str(root / "d/t.version-9")
    assert os.listdir(root / "d") == ["t.version-9"]
    with pytest.raises(PublishError, match=rf"^{root}/d/t: "):
        files.keep_aside(str(root / "d/t"), "version-9")


def test_a_daemon_that_gave_up_its_directory_changes_nothing(files: Files, root: Path) -> None:
    files.replace(str(root / "t"), b"x", PLAIN)
    files.give_up()
    said = rf"^{root}/t was not changed: another bearerd uses {root} now$"
    for act in (
        lambda: files.replace(str(root / "t"), b"y", PLAIN),
        lambda: files.remove(str(root / "t")),
        lambda: files.keep_aside(str(root / "t"), "x"),
    ):
        with pytest.raises(PublishError, match=said):
            act()
    assert (root / "t").read_bytes() == b"x"
    assert os.listdir(root) == ["t"]


def test_new_directories_have_the_mode_of_the_latest_config(files: Files, root: Path) -> None:
    files.replace(str(root / "old/t"), b"x", PLAIN)
    files.adopt(0o700, None)
    files.replace(str(root / "old/u"), b"x", PLAIN)
    files.replace(str(root / "new/t"), b"x", PLAIN)
    modes = {name: stat.S_IMODE((root / name).stat().st_mode) for name in ("old", "new")}
    assert modes == {"old": 0o750, "new": 0o700}


def test_a_directory_is_proved_to_be_writable_by_a_file_that_is_removed(
    files: Files, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.prove_writable(str(root / "d"))
    assert os.listdir(root / "d") == []
    files.prove_usable(str(root / "d"), PRIVATE)
    assert os.listdir(root / "d") == []
    with monkeypatch.context() as patch:
        Calls(patch, fail="write", number=errno.ENOSPC)
        with pytest.raises(PublishError, match=rf"^{root}/d: no space left"):
            files.prove_writable(str(root / "d"))
        with pytest.raises(PublishError, match=rf"^{root}/d: no space left"):
            files.prove_usable(str(root / "d"))
    assert os.listdir(root / "d") == []


def test_a_missing_directory_is_usable_if_it_may_be_made(
    files: Files, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.prove_usable(str(root / "d"))
    asked: list[tuple[str, int, bool]] = []

    def access(path: str, mode: int, *, dir_fd: int, effective_ids: bool) -> bool:
        assert os.path.samestat(os.fstat(dir_fd), root.parent.stat())
        asked.append((path, mode, effective_ids))
        return False

    with monkeypatch.context() as patch:
        patch.setattr("bearerd.publish.atomic.os.access", access)
        with pytest.raises(NotPermitted, match=rf"^{root}/d does not exist, and user \S+ is not allowed to create it$"):
            files.prove_usable(str(root / "d"))
    assert asked == [(".", os.W_OK | os.X_OK, True)]


@pytest.mark.parametrize(("number", "kind"), [(errno.EACCES, NotPermitted), (errno.EROFS, PublishError)])
def test_only_a_missing_permission_is_told_apart(
    files: Files, root: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[PublishError]
) -> None:
    files.replace(str(root / "t"), b"x", PLAIN)
    Calls(monkeypatch, fail="rename", number=number)
    with pytest.raises(PublishError) as raised:
        files.replace(str(root / "t"), b"y", PLAIN)
    assert raised.type is kind


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
def test_kept_directories_are_closed_once_when_descriptors_run_out(
    files: Files, root: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    failures = [OSError(number, os.strerror(number))]

    def fails(*arguments: Any, **keywords: Any) -> Any:
        if failures:
            raise failures.pop()
        return walk(*arguments, **keywords)

    files.replace(str(root / "a/t"), b"x", PLAIN)
    monkeypatch.setattr("bearerd.publish.atomic.walk", fails)
    files.replace(str(root / "b/t"), b"x", PLAIN)
    assert (root / "b/t").read_bytes() == b"x"
    failures += [OSError(number, os.strerror(number))] * 2
    with pytest.raises(PublishError):
        files.replace(str(root / "c/t"), b"x", PLAIN)
    failures[:] = [OSError(errno.EIO, os.strerror(errno.EIO))]
    with pytest.raises(PublishError, match="input/output error"):
        files.replace(str(root / "c/t"), b"x", PLAIN)
    assert not failures


def test_another_turn_computes_during_a_sync_where_the_last_one_was_slow(
    files: Files, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    times, now, handed_off, synced = [0.0002, 0.0004, 0.0004, 0.0002, 0.0002, 0.0002], 100.0, False, list[bool]()

    @contextmanager
    def waiting() -> Iterator[None]:
        nonlocal handed_off
        handed_off = True
        yield
        handed_off = False

    def fsync(_: int) -> None:
        nonlocal now
        now += times[len(synced)]
        synced.append(handed_off)

    monkeypatch.setattr("bearerd.publish.atomic.time", SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr("bearerd.publish.atomic.waiting", waiting)
    monkeypatch.setattr("bearerd.publish.atomic.os.fsync", fsync)
    for _ in range(3):
        files.replace(str(root / "t"), b"x", PLAIN)
    assert synced == [False, False, True, True, False, False]


def test_no_symlink_is_followed_below_the_root_directory_either() -> None:
    files = Files("/", 0o750)
    assert "sys" in files.names("/proc")
    assert files.names("/proc/self") == []


def leads_into(directory: Path) -> list[str]:
    """The open descriptors of this process that lead into a directory."""
    found = []
    for descriptor in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            found.append(os.readlink(f"/proc/self/fd/{descriptor}"))
    return [path for path in found if path.startswith(str(directory))]


def test_a_directory_that_does_not_exist_leaves_no_descriptor_open(files: Files, root: Path) -> None:
    root.mkdir()
    with pytest.raises(FileNotFoundError) as raised, files.directory(str(root / "a/b")):
        pass
    assert (raised.value.errno, raised.value.strerror) == (errno.ENOENT, os.strerror(errno.ENOENT))
    with files.look(str(root / "a/b")) as opened:
        assert opened.missing == ("a", "b")
    with files.look(str(root)) as opened:
        assert not opened.missing
    assert leads_into(root) == []


def test_a_failed_read_is_tried_once_more(files: Files, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files.replace(str(root / "t"), b"abcdef", PLAIN)
    once, faults = atomic._read, [OSError(errno.EIO, "Input/output error")]

    def read(parent: int, name: str, most: int) -> bytes:
        if faults:
            raise faults.pop()
        return once(parent, name, most)

    monkeypatch.setattr(atomic, "_read", read)
    assert files.read(str(root / "t"), 3) == b"abc"
    faults += [OSError(errno.EIO, "Input/output error")] * 2
    with pytest.raises(PublishError, match=f"^{root}/t: input/output error; check the disk$"):
        files.read(str(root / "t"), 3)


def test_a_file_that_is_not_there_is_none_of_ours(root: Path) -> None:
    own = Files(str(root), 0o700, own=str(root))
    own.prove_writable(str(root))
    assert not own.judge(str(root / "t"))
    own.replace(str(root / "t"), b"x", PRIVATE)
    assert own.judge(str(root / "t"))
    own.give_up()
    with pytest.raises(PublishError, match=f"^{root}/t was not changed"):
        own.judge(str(root / "t"))
    with pytest.raises(PublishError, match=f"^{root}/t was not changed"):
        own.matches(str(root / "t"), b"x", PRIVATE)


def test_what_others_could_have_written_into_a_root_of_our_own_is_moved_aside_with_its_reason(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own = Files(str(root), 0o700, own=str(root))
    own.replace(str(root / "t"), b"x", PRIVATE)
    (root / "t").chmod(0o666)
    assert own.read(str(root / "t"), 9) is None
    assert not (root / "t").exists()
    [said] = caplog.messages
    assert "other users can write" in said


def test_a_look_moves_nothing_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    own = tmp_path / ".bearerd"
    own.mkdir()
    own.chmod(0o777)
    files = Files(str(tmp_path), 0o700, own=str(own))
    with files.look(str(own / "records")) as opened:
        assert opened.missing == ("records",)
    assert os.listdir(tmp_path) == [".bearerd"]
    own.rmdir()
    own.symlink_to("elsewhere")
    with pytest.raises(PublishError, match="symlink"), files.look(str(own / "records")):
        pass
    assert os.listdir(tmp_path) == [".bearerd"]
    assert not caplog.messages


def test_a_root_that_is_not_our_own_may_be_writable_by_others(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    root.mkdir()
    root.chmod(0o777)
    path = str(root / "t")
    replaced = Files(str(root), 0o700).replace(path, b"x", PRIVATE)
    assert replaced.status.st_ino == (root / "t").stat().st_ino
    (root / "t").chmod(0o666)
    assert Files(str(root), 0o700).read(path, 9) == b"x"
    assert (os.listdir(root), caplog.messages) == (["t"], [])


def test_a_proof_writes_only_into_the_directory(
    files: Files, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    root.mkdir()
    monkeypatch.chdir(here)
    files.prove_usable(str(root))
    files.prove_writable(str(root))
    assert (os.listdir(here), os.listdir(root)) == ([], [])


def test_a_directory_that_cannot_be_trusted_is_not_swept(files: Files, root: Path) -> None:
    root.mkdir()
    (root / "d").mkdir()
    (root / "link").symlink_to("d")
    assert files.sweep({str(root / "link")}) == 0


def test_a_file_that_is_published_without_a_sync_of_its_directory_has_its_status(
    files: Files, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.replace(str(root / "t"), b"x", PLAIN)
    syncs = iter([None, OSError(errno.EIO, "Input/output error")])

    def sync(_: int) -> None:
        if fault := next(syncs):
            raise fault

    monkeypatch.setattr("bearerd.publish.atomic.os.fsync", sync)
    replaced = files.replace(str(root / "t"), b"y", PLAIN)
    assert replaced.status.st_ino == (root / "t").stat().st_ino
    assert replaced.warning is not None
    assert replaced.warning.startswith(f"{root}/t is published, but its directory could not be synced: ")


@pytest.mark.parametrize("root", ["/tokens-X", "/tokens/"])
def test_a_root_with_any_last_character_has_a_private_directory(root: str) -> None:
    own = f"{root.rstrip('/')}/.bearerd"
    assert [step.private for step in Files(root, 0o750, own=own)._steps(f"{own}/records")] == [False, True, True]


def test_below_the_root_directory_our_own_is_private_too() -> None:
    files = Files("/", 0o750, own="/.bearerd")
    assert [step.private for step in files._steps("/.bearerd/records")] == [True, True]
    assert [step.private for step in files._steps("/tokens/.bearerd")] == [False, False]
