"""One file replaced, on a real file system; faults by real means where the machine allows them."""

from __future__ import annotations

import errno
import grp
import os
import re
import resource
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from bearerd.errors import DirectoryLocked, PublishError
from bearerd.publish.advice import this_user
from bearerd.publish.atomic import Files
from bearerd.publish.lock import DirectoryLock
from bearerd.publish.owners import Attributes, attributes

PLAIN = Attributes(0o640)
ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: owners, groups and mounts")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "tokens"


@pytest.fixture
def files(root: Path) -> Files:
    return Files(str(root), 0o750)


def left_over(directory: Path) -> list[str]:
    return [name for name in os.listdir(directory) if name.endswith(".tmp")]


def test_a_file_is_made_with_its_directories(files: Files, root: Path) -> None:
    assert files.replace(str(root / "dnb/bci"), b"one", PLAIN).warning is None
    assert (root / "dnb/bci").read_bytes() == b"one"
    assert stat.S_IMODE((root / "dnb/bci").stat().st_mode) == 0o640
    assert stat.S_IMODE((root / "dnb").stat().st_mode) == 0o750
    assert stat.S_IMODE(root.stat().st_mode) == 0o750


def test_a_replaced_file_is_a_new_one_and_open_descriptors_keep_the_old(files: Files, root: Path) -> None:
    files.replace(str(root / "t"), b"one", PLAIN)
    with (root / "t").open("rb") as held:
        files.replace(str(root / "t"), b"two", PLAIN)
        assert held.read() == b"one"
    assert (root / "t").read_bytes() == b"two"
    assert left_over(root) == []


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o177, 0o377])
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644, 0o400, 0o666])
def test_the_mode_does_not_depend_on_the_umask(files: Files, root: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        files.replace(str(root / "dnb/t"), b"x", Attributes(mode))
    finally:
        os.umask(before)
    assert stat.S_IMODE((root / "dnb/t").stat().st_mode) == mode
    assert stat.S_IMODE((root / "dnb").stat().st_mode) == 0o750


@ROOT
def test_only_configured_owners_and_groups_are_set(files: Files, root: Path) -> None:
    group = grp.getgrgid(12)
    files.replace(str(root / "t"), b"x", attributes(0o640, "1234", group.gr_name))
    status = (root / "t").stat()
    assert (status.st_uid, status.st_gid) == (1234, 12)
    files.replace(str(root / "u"), b"x", PLAIN)
    assert (root / "u").stat().st_uid == os.geteuid()


@ROOT
def test_a_setgid_directory_gives_its_group_to_files_and_directories_below(files: Files, root: Path) -> None:
    root.mkdir()
    os.chown(root, -1, 12)
    root.chmod(0o2750)
    files.replace(str(root / "dnb/t"), b"x", PLAIN)
    assert (root / "dnb").stat().st_gid == (root / "dnb/t").stat().st_gid == 12
    assert stat.S_IMODE((root / "dnb").stat().st_mode) == 0o2750
    assert files.matches(str(root / "dnb/t"), b"x", PLAIN)


@ROOT
def test_directories_are_made_for_the_readers_group(root: Path) -> None:
    files = Files(str(root), 0o750, group="12")
    files.replace(str(root / "dnb/t"), b"x", attributes(0o640, None, "12"))
    assert root.stat().st_gid == (root / "dnb").stat().st_gid == (root / "dnb/t").stat().st_gid == 12


@pytest.mark.parametrize("mode", [0o2750, 0o2710, 0o750])
@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_directories_are_made_with_their_mode_and_its_setgid_bit(root: Path, mode: int, umask: int) -> None:
    before = os.umask(umask)
    try:
        Files(str(root), mode).replace(str(root / "dnb/t"), b"x", PLAIN)
    finally:
        os.umask(before)
    assert [stat.S_IMODE(path.stat().st_mode) for path in (root, root / "dnb")] == [mode, mode]


@ROOT
def test_files_have_the_group_of_a_setgid_directory_that_was_made_for_the_readers(root: Path) -> None:
    Files(str(root), 0o2750, group="12").replace(str(root / "dnb/t"), b"x", PLAIN)
    assert (root / "dnb/t").stat().st_gid == 12


@pytest.mark.parametrize(
    ("root_at", "there", "asked", "said"),
    [
        pytest.param("", "", "a/b", None, id="nothing"),
        pytest.param("a", "directory", "a/b/c", None, id="a directory"),
        pytest.param("a", "link", "a/b", "symlink", id="a link"),
        pytest.param("a", "link", "a", "symlink", id="a link itself"),
        pytest.param("", "link", "a/b", None, id="the output directory is a link"),
        pytest.param("a", "file", "a/b", "not a directory", id="a file"),
        pytest.param("../elsewhere", "link", "../elsewhere/b", None, id="a link above another directory"),
        pytest.param("../elsewhere", "link", "../elsewhere", None, id="another directory that is a link"),
        pytest.param("../elsewhere", "file", "../elsewhere/b", "not a directory", id="a file elsewhere"),
    ],
)
def test_the_check_of_a_missing_directory_makes_nothing(
    files: Files, root: Path, tmp_path: Path, root_at: str, there: str, asked: str, said: str | None
) -> None:
    path, real = Path(os.path.normpath(root / root_at)), tmp_path / "real"
    real.mkdir()
    path.parent.mkdir(exist_ok=True)
    if there == "link":
        path.symlink_to(real)
    elif there == "directory":
        path.mkdir()
    elif there == "file":
        path.touch(0o600)
    before = sorted(tmp_path.rglob("*"))
    directory = os.path.normpath(root / asked)
    if said is None:
        files.prove_usable(directory)
    else:
        with pytest.raises(PublishError, match=said):
            files.prove_usable(directory)
        with pytest.raises(PublishError):
            files.replace(f"{directory}/t", b"x", PLAIN)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("uid", "gid", "number", "said"),
    [
        (-1, 4242, errno.EPERM, "the group 4242; run the daemon as a member of that group (in a unit Supplementary"),
        (4241, -1, errno.EPERM, "the owner 4241; run the daemon as that user or with CAP_CHOWN (in a unit Ambient"),
        (4241, 4242, errno.EINVAL, "the owner 4241 and the group 4242 in this user namespace; leave out PrivateUsers="),
        (-1, os.getegid(), errno.EPERM, "owner and group, because no owner or group may be set, as with SystemCallFil"),
    ],
)
def test_an_owner_or_group_that_cannot_be_set_is_named_by_the_check_too(
    files: Files, root: Path, monkeypatch: pytest.MonkeyPatch, uid: int, gid: int, number: int, said: str
) -> None:
    def fchown(_: int, *wanted: int) -> None:
        if wanted == (uid, gid) or gid == os.getegid():
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fchown", fchown)
    wanted = Attributes(0o640, uid, gid)
    said = f"{this_user()} cannot set {said}"
    for directory in (root, root / "missing"):
        root.mkdir(exist_ok=True)
        files.prove_usable(str(directory))
        with pytest.raises(PublishError, match=f"^{re.escape(f'{directory}: {said}')}"):
            files.prove_usable(str(directory), wanted)
        with pytest.raises(PublishError, match=f"^{re.escape(f'{directory}/t: {said}')}"):
            files.replace(f"{directory}/t", b"x", wanted)
        assert left_over(root) == []


def test_a_file_system_without_owners_is_named(files: Files, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fchown(descriptor: int, *_: int) -> None:
        if str(root) in os.readlink(f"/proc/self/fd/{descriptor}"):
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "fchown", fchown)
    with pytest.raises(PublishError, match="cannot set the owner 4241 on this file system; use another one, or leave"):
        files.replace(f"{root}/t", b"x", Attributes(0o640, 4241))


def test_an_existing_directory_is_not_changed(files: Files, root: Path) -> None:
    (root / "dnb").mkdir(parents=True, mode=0o700)
    files.replace(str(root / "dnb/t"), b"x", PLAIN)
    assert stat.S_IMODE((root / "dnb").stat().st_mode) == 0o700


@pytest.mark.parametrize("name", ["no-such-user-here", "0x0"])
def test_an_unknown_user_or_group_is_an_error_with_its_name(name: str) -> None:
    with pytest.raises(PublishError, match=f"there is no user '{name}'"):
        attributes(0o640, name, None)
    with pytest.raises(PublishError, match=f"there is no group '{name}'"):
        attributes(0o640, None, name)


# -- links ---------------------------------------------------------------------------------------


def test_a_symlink_with_the_files_name_is_replaced_and_not_followed(files: Files, root: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    root.mkdir()
    (root / "t").symlink_to(victim)
    files.replace(str(root / "t"), b"x", PLAIN)
    assert victim.read_text() == "mine"
    assert not (root / "t").is_symlink()


def test_a_symlinked_directory_below_the_output_directory_is_refused(tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir()
    (tmp_path / "tokens").mkdir()
    (tmp_path / "tokens/dnb").symlink_to(real)
    with pytest.raises(
        PublishError, match=r"symlink .*/tokens/dnb is not followed: symlinks are not allowed below the output"
    ):
        Files(str(tmp_path / "tokens"), 0o750).replace(str(tmp_path / "tokens/dnb/t"), b"x", PLAIN)
    assert os.listdir(real) == []


def test_a_directory_is_listed_but_not_through_a_symlink(files: Files, root: Path) -> None:
    files.replace(str(root / "real/t"), b"x", PLAIN)
    (root / "link").symlink_to("real")
    assert files.names(str(root / "real")) == ["t"]
    assert (
        files.names(str(root / "link"))
        == files.names(str(root / "not-there"))
        == files.names(str(root / "real/t"))
        == []
    )


def test_a_symlink_above_the_output_directory_is_followed(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "var").mkdir()
    (tmp_path / "var/run").symlink_to(tmp_path / "run")
    Files(str(tmp_path / "var/run/bearerd"), 0o750).replace(str(tmp_path / "var/run/bearerd/t"), b"x", PLAIN)
    assert (tmp_path / "run/bearerd/t").read_bytes() == b"x"


def test_a_planted_temporary_file_is_never_written_to(
    files: Files, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    files.replace(str(root / "t"), b"one", PLAIN)
    monkeypatch.setattr("secrets.token_hex", lambda _: "0" * 16)
    (root / f".bearerd-{files._mark}-{'0' * 16}.tmp").symlink_to(victim)
    with pytest.raises(PublishError):
        files.replace(str(root / "t"), b"two", PLAIN)
    assert victim.read_text() == "mine"
    assert (root / "t").read_bytes() == b"one"


# -- is it as it should be? ------------------------------------------------------------------------


def _fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _socket(path: Path) -> None:
    path.unlink()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


@pytest.mark.parametrize(
    "harm",
    [
        pytest.param(lambda path: path.unlink(), id="gone"),
        pytest.param(lambda path: path.write_bytes(b"abd"), id="other bytes"),
        pytest.param(lambda path: path.write_bytes(b"ab"), id="shorter"),
        pytest.param(lambda path: path.write_bytes(b"abcd"), id="longer"),
        pytest.param(lambda path: path.chmod(0o644), id="another mode"),
        pytest.param(lambda path: (path.rename(f"{path}.x"), path.symlink_to(f"{path}.x")), id="a link to the same"),
        pytest.param(lambda path: (path.unlink(), path.mkdir()), id="a directory"),
        pytest.param(_fifo, id="a FIFO"),
        pytest.param(_socket, id="a socket"),
        pytest.param(lambda path: path.parent.rename(f"{path.parent}-moved"), id="its directory gone"),
    ],
)
def test_any_difference_is_noticed(files: Files, root: Path, harm: Callable[[Path], object]) -> None:
    path = root / "d/t"
    files.replace(str(path), b"abc", PLAIN)
    assert files.matches(str(path), b"abc", PLAIN)
    harm(path)
    assert not files.matches(str(path), b"abc", PLAIN)


@ROOT
@pytest.mark.parametrize(("uid", "gid"), [(1234, -1), (-1, 12)])
def test_a_different_owner_or_group_counts_only_if_one_is_configured(
    files: Files, root: Path, uid: int, gid: int
) -> None:
    path = root / "t"
    files.replace(str(path), b"abc", PLAIN)
    assert files.matches(str(path), b"abc", PLAIN)
    assert not files.matches(str(path), b"abc", Attributes(0o640, uid, gid))
    os.chown(path, uid, gid)
    assert files.matches(str(path), b"abc", Attributes(0o640, uid, gid))
    assert files.matches(str(path), b"abc", PLAIN)


# -- faults ----------------------------------------------------------------------------------------


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    if os.geteuid() != 0:
        pytest.skip("needs root: mounts a tmpfs")
    directory = tmp_path / "small"
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,nr_inodes=8,mode=0755", "tmpfs", directory], check=True)
    yield directory
    subprocess.run(["umount", "-l", directory], check=True)


def test_on_a_full_disk_the_old_file_stays_and_no_temporary_file(small: Path) -> None:
    files = Files(str(small), 0o750)
    files.replace(str(small / "t"), b"one", PLAIN)
    with pytest.raises(PublishError, match="no space left"):
        files.replace(str(small / "t"), b"x" * 100_000, PLAIN)
    assert (small / "t").read_bytes() == b"one"
    assert left_over(small) == []


def test_without_inodes_the_old_file_stays(small: Path) -> None:
    files = Files(str(small), 0o750)
    files.replace(str(small / "t"), b"one", PLAIN)
    for number in range(6):
        (small / f"filler-{number}").touch()
    with pytest.raises(PublishError, match="no space left"):
        files.replace(str(small / "t"), b"two", PLAIN)
    assert (small / "t").read_bytes() == b"one"


def test_on_a_read_only_file_system_the_error_says_so(small: Path) -> None:
    files = Files(str(small), 0o750)
    files.replace(str(small / "t"), b"one", PLAIN)
    subprocess.run(["mount", "-o", "remount,ro", small], check=True)
    with pytest.raises(PublishError, match="read-only"):
        files.replace(str(small / "t"), b"two", PLAIN)
    assert (small / "t").read_bytes() == b"one"


@ROOT
def test_a_file_that_is_a_mount_point_is_an_error_with_what_to_do(files: Files, root: Path, tmp_path: Path) -> None:
    files.replace(str(root / "t"), b"one", PLAIN)
    (tmp_path / "bound").write_text("bound")
    subprocess.run(["mount", "--bind", tmp_path / "bound", root / "t"], check=True)
    try:
        with pytest.raises(PublishError, match="mount its directory instead"):
            files.replace(str(root / "t"), b"two", PLAIN)
        assert left_over(root) == []
    finally:
        subprocess.run(["umount", root / "t"], check=True)


def test_a_directory_with_the_files_name_is_an_error_and_stays(files: Files, root: Path) -> None:
    (root / "t").mkdir(parents=True)
    with pytest.raises(PublishError, match="a directory has this name"):
        files.replace(str(root / "t"), b"x", PLAIN)
    assert left_over(root) == []


def _failing(call: str, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the n-th call of an os function fail with EIO, as a failing disk does."""
    real, count = getattr(os, call), 0

    def fails(*arguments: object, **keywords: object) -> object:
        nonlocal count
        count += 1
        if count == number:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(*arguments, **keywords)

    monkeypatch.setattr(f"bearerd.publish.atomic.os.{call}", fails)


@pytest.mark.parametrize(("call", "number"), [("open", 1), ("fchmod", 1), ("write", 1), ("fsync", 1), ("rename", 1)])
def test_a_fault_before_the_rename_leaves_the_old_file_and_no_temporary(
    files: Files, root: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    files.replace(str(root / "t"), b"one", PLAIN)
    with monkeypatch.context() as patch:
        _failing(call, number, patch)
        with pytest.raises(PublishError, match="input/output error"):
            files.replace(str(root / "t"), b"two", PLAIN)
    assert (root / "t").read_bytes() == b"one"
    assert left_over(root) == []


def test_a_directory_that_cannot_be_synced_is_a_warning_and_the_file_is_published(
    files: Files, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.replace(str(root / "t"), b"one", PLAIN)
    with monkeypatch.context() as patch:
        _failing("fsync", 2, patch)
        warning = files.replace(str(root / "t"), b"two", PLAIN).warning
    assert warning is not None
    assert "could not be synced" in warning
    assert (root / "t").read_bytes() == b"two"


def test_a_short_write_is_continued(files: Files, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    with monkeypatch.context() as patch:
        patch.setattr("bearerd.publish.atomic.os.write", lambda descriptor, data: real(descriptor, bytes(data)[:3]))
        files.replace(str(root / "t"), b"0123456789", PLAIN)
    assert (root / "t").read_bytes() == b"0123456789"


def test_no_descriptor_is_left_open(files: Files, root: Path) -> None:
    (root / "d").mkdir(parents=True)
    (root / "link").symlink_to("d")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        files.replace(str(root / "a/b/t"), b"x", PLAIN)
        files.matches(str(root / "a/b/t"), b"x", PLAIN)
        files.remove(str(root / "a/b/t"))
        with pytest.raises(PublishError):
            files.replace(str(root / "link/t"), b"x", PLAIN)
        with pytest.raises(PublishError):
            files.replace(str(root / "d"), b"x", PLAIN)
    files.close_directories()
    # A thread of an earlier test may have closed one meanwhile.
    assert len(os.listdir("/proc/self/fd")) <= before


# -- leftovers -------------------------------------------------------------------------------------


def test_only_temporary_files_of_this_directory_are_removed(files: Files, root: Path) -> None:
    root.mkdir()
    ours = root / f".bearerd-{files._mark}-{'a' * 16}.tmp"
    others = [root / f".bearerd-{'0' * 8}-{'a' * 16}.tmp", root / ".bearerd-x.tmp", root / "t.tmp", root / ".hidden"]
    for path in (ours, *others):
        path.write_text("x")
    assert files.sweep({str(root), str(root / "not-there")}) == 1
    assert not ours.exists()
    assert all(path.exists() for path in others)


# -- readers -----------------------------------------------------------------------------------------

_READER = """
import sys
path, least = sys.argv[1], int(sys.argv[2])
seen, bad, count = set(), 0, 0
print("ready", flush=True)
while count < least or len(seen) < 20:
    try:
        with open(path, "rb") as file:
            content = file.read()
    except OSError:
        bad += 1
    else:
        # Whole is: one letter, as often as it should be.
        bad += len(content) != 4000 or len(set(content)) != 1
        seen.add(content[:1])
    count += 1
print(bad)
"""
_READS = 20_000
"""At least; and until each reader has seen twenty kinds, however the machine shares out its time."""


def test_two_readers_never_see_a_torn_empty_or_missing_file(files: Files, root: Path) -> None:
    path = root / "t"
    files.replace(str(path), b"a" * 4000, PLAIN)
    readers = [
        subprocess.Popen([sys.executable, "-c", _READER, str(path), str(_READS)], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for reader in readers:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "ready\n"
    writes = 0
    while any(reader.poll() is None for reader in readers):
        files.replace(str(path), bytes([97 + writes % 26]) * 4000, PLAIN)
        writes += 1
    assert [reader.communicate()[0] for reader in readers] == ["0\n"] * 2


def test_a_directory_whose_group_cannot_be_set_is_not_left_behind(root: Path) -> None:
    with pytest.raises(PublishError, match="no group"):
        Files(str(root), 0o750, group="no-such-group-here").replace(str(root / "t"), b"x", PLAIN)
    assert not root.exists()


def test_a_lock_holds_on_a_full_disk(small: Path) -> None:
    (small / "lock").touch()
    with (small / "filler").open("wb") as filler, suppress(OSError):
        filler.write(b"x" * 100_000)
        filler.flush()
    lock, other = DirectoryLock(str(small / "lock")), DirectoryLock(str(small / "lock"))
    directory = os.open(small, os.O_RDONLY)
    try:
        lock.take(directory)
        with pytest.raises(DirectoryLocked, match="in use by another bearerd"):
            other.take(directory)
        lock.release()
    finally:
        os.close(directory)


def test_directories_that_are_kept_open_give_way_when_no_descriptor_is_left(root: Path) -> None:
    files = Files(str(root), 0o750)
    for number in range(8):
        files.replace(str(root / f"c{number}/t"), b"x", PLAIN)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken: list[int] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 1, limits[1]))
    try:
        with suppress(OSError):
            while True:
                taken.append(os.open("/", os.O_RDONLY))
        files.replace(str(root / "c9/t"), b"y", PLAIN)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for descriptor in taken:
            os.close(descriptor)
    assert (root / "c9/t").read_bytes() == b"y"
