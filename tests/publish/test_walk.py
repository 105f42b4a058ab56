"""The walk to a directory, with real symlinks and other users, one of which keeps replacing directories."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bearerd.accounts import group_name
from bearerd.errors import PublishError
from bearerd.publish.atomic import Files
from bearerd.publish.owners import Attributes
from support.readers import ROOT, acting_as, naming, open_directory, set_acl

PLAIN = Attributes(0o640)
ALICE, BOB, GROUP = 65534, 4000, 4242


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that every user can get to."""
    with open_directory() as directory:
        yield directory


def own(path: Path, uid: int, mode: int = 0o755, gid: int | None = None) -> Path:
    """A directory of a user."""
    path.mkdir()
    os.chown(path, uid, uid if gid is None else gid)
    path.chmod(mode)
    return path


def link(path: Path, target: Path | str, uid: int = 0) -> Path:
    """A symlink of a user."""
    path.symlink_to(target)
    os.chown(path, uid, uid, follow_symlinks=False)
    return path


def files_of(place: Path) -> Files:
    """With an output directory that is not on the way."""
    return Files(str(place / "tokens"), 0o755)


# -- links that are followed, and those that are not -----------------------------------------------


@pytest.mark.parametrize("target", ["run", "../{place}/run", "{whole}/run", "./run/../run/", "chain"])
def test_a_symlink_of_root_or_the_daemons_user_is_followed(place: Path, target: str) -> None:
    (place / "run").mkdir()
    link(place / "chain", "run")
    link(place / "var", target.format(place=place.name, whole=place))
    Files(str(place / "var"), 0o755).replace(f"{place}/var/t", b"x", PLAIN)
    files_of(place).replace(f"{place}/var/deep/t", b"y", PLAIN)
    assert (place / "run/t").read_bytes() == b"x"
    assert (place / "run/deep/t").read_bytes() == b"y"


@ROOT
@pytest.mark.parametrize("directory", ["var", "var/deep"], ids=["last", "on the way"])
def test_a_symlink_of_another_user_is_an_error_with_its_owner(place: Path, directory: str) -> None:
    (place / "run/deep").mkdir(parents=True)
    link(place / "var", "run", ALICE)
    links = "bearerd only follows links of root .*use the real path"
    said = rf"the symlink {place}/var is not followed: it belongs to user nobody; {links}"
    for files in (Files(f"{place}/{directory}", 0o755), files_of(place)):
        with pytest.raises(PublishError, match=said):
            files.replace(f"{place}/{directory}/t", b"x", PLAIN)
        assert files.read(f"{place}/{directory}/t", 9) is None
        assert files.names(f"{place}/{directory}") == []
        refused: list[Callable[[str], object]] = [files.prove_usable, files.prove_writable]
        for act in refused:
            with pytest.raises(PublishError, match=said):
                act(f"{place}/{directory}")
        with pytest.raises(PublishError, match=said):
            files.matches(f"{place}/{directory}/t", b"x", PLAIN)
        with pytest.raises(PublishError, match=said):
            files.remove(f"{place}/{directory}/t")
    assert list((place / "run/deep").iterdir()) == []
    assert list((place / "run").iterdir()) == [place / "run/deep"]


@pytest.mark.parametrize("mode", [0o775, 0o757, 0o1777, 0o2775])
def test_a_symlink_in_a_directory_that_others_can_write_is_refused(place: Path, mode: int) -> None:
    (place / "run").mkdir()
    (place / "shared").mkdir()
    link(place / "shared/var", place / "run", os.geteuid())
    (place / "shared").chmod(mode)
    said = (
        rf"symlink {place}/shared/var is not followed: users besides .* \(mode {mode:04o}\).*chmod go-w {place}/shared"
    )
    with pytest.raises(PublishError, match=said):
        files_of(place).replace(f"{place}/shared/var/t", b"x", PLAIN)
    (place / "shared").chmod(0o755)
    files_of(place).replace(f"{place}/shared/var/t", b"x", PLAIN)


def test_a_symlink_in_a_directory_that_an_acl_lets_others_write_is_refused(place: Path) -> None:
    (place / "run").mkdir()
    (place / "shared").mkdir()
    link(place / "shared/var", place / "run", os.geteuid())
    set_acl(place / "shared", *naming(BOB, 7))
    with pytest.raises(PublishError, match="is not followed: users besides"):
        files_of(place).replace(f"{place}/shared/var/t", b"x", PLAIN)
    set_acl(place / "shared", *naming(BOB, 5, mask=5))
    files_of(place).replace(f"{place}/shared/var/t", b"x", PLAIN)


@ROOT
def test_below_a_directory_of_another_user_no_symlink_is_followed(place: Path) -> None:
    (place / "run").mkdir()
    own(place / "home", ALICE)
    own(place / "home/of-root", 0)
    link(place / "home/var", place / "run")
    link(place / "home/of-root/var", place / "run")
    for path in ("home/var", "home/of-root/var"):
        below = f"below {place}/home, which belongs to user nobody"
        said = rf"{path} is not followed: it is {below}; use the real path"
        with pytest.raises(PublishError, match=said):
            files_of(place).replace(f"{place}/{path}/t", b"x", PLAIN)
    # A link of root that leads into it is one thing, one that leads out again another.
    own(place / "home/real", ALICE)
    link(place / "in", "home/real")
    files_of(place).replace(f"{place}/in/t", b"x", PLAIN)
    assert (place / "home/real/t").read_bytes() == b"x"
    link(place / "out", "home/real/../../run")
    with pytest.raises(PublishError, match=rf"'\.\.' is not followed below {place}/home"):
        files_of(place).replace(f"{place}/out/t", b"x", PLAIN)
    assert list((place / "run").iterdir()) == []


@ROOT
def test_an_unprivileged_daemon_follows_its_own_symlinks_and_those_of_root(place: Path) -> None:
    own(place / "run", BOB)
    home = own(place / "home", BOB)
    link(home / "mine", place / "run", BOB)
    link(place / "roots", place / "run")
    link(place / "alices", place / "run", ALICE)
    with acting_as(BOB):
        files = files_of(place)
        files.replace(f"{home}/mine/t", b"1", PLAIN)
        files.replace(f"{place}/roots/t", b"2", PLAIN)
        with pytest.raises(PublishError, match="it belongs to user nobody"):
            files.replace(f"{place}/alices/t", b"3", PLAIN)
    assert (place / "run/t").read_bytes() == b"2"


def test_a_chain_of_too_many_symlinks_is_an_error(place: Path) -> None:
    link(place / "loop", "loop")
    with pytest.raises(PublishError, match="the path has more than 40"):
        files_of(place).replace(f"{place}/loop/t", b"x", PLAIN)
    (place / "0").mkdir()
    for number in range(1, 41):
        link(place / str(number), str(number - 1))
    files_of(place).replace(f"{place}/40/t", b"x", PLAIN)
    assert (place / "0/t").read_bytes() == b"x"


def test_followed_symlinks_and_directories_of_others_are_recorded(place: Path) -> None:
    (place / "run").mkdir()
    link(place / "var", "run")
    with files_of(place).look(f"{place}/var/x/y") as found:
        assert found.links == (f"{place}/var leads to run",)
        assert (found.path, found.missing, found.stranger) == (f"{place}/run", ("x", "y"), None)


# -- files of a third user -------------------------------------------------------------------------


@ROOT
def test_below_a_directory_of_another_user_a_third_users_file_is_not_changed(place: Path) -> None:
    home, files = own(place / "home", ALICE, 0o777), files_of(place)
    theirs = home / "t"
    theirs.write_text("theirs")
    os.chown(theirs, BOB, BOB)
    below = rf"{home}, which belongs to user nobody: .*remove it, or use another path"
    said = rf"{theirs} belongs to user {BOB}, and is below {below}"
    with pytest.raises(PublishError, match=said):
        files.replace(str(theirs), b"x", PLAIN)
    with pytest.raises(PublishError, match=said):
        files.remove(str(theirs))
    os.chown(theirs, 1, 1)
    with pytest.raises(PublishError, match="belongs to user daemon, and is below"):
        files.replace(str(theirs), b"x", PLAIN)
    with pytest.raises(PublishError, match="belongs to user daemon, and is below"):
        files.remove(str(theirs))
    os.chown(theirs, BOB, BOB)
    temporary = home / f".bearerd-{files._mark}-{'a' * 16}.tmp"
    temporary.touch()
    os.chown(temporary, 1, 1)
    assert files.sweep({str(home)}) == 0
    # A symlink counts as its owner's, wherever it leads.
    (home / "link").symlink_to("alices")
    os.chown(own(home / "alices", ALICE, 0o755), ALICE, ALICE)
    os.lchown(home / "link", BOB, BOB)
    with pytest.raises(PublishError, match=f"belongs to user {BOB}, and is below"):
        files.replace(str(home / "link"), b"x", PLAIN)
    assert (theirs.read_text(), theirs.stat().st_uid, temporary.exists()) == ("theirs", BOB, True)
    for uid in (0, ALICE):
        os.chown(theirs, uid, uid)
        files.replace(str(theirs), b"ours", PLAIN)
        assert (theirs.read_text(), theirs.stat().st_uid) == ("ours", 0)
    # With the configured owner: such a file is replaced and removed.
    for number in range(2):
        files.replace(str(theirs), b"%d" % number, Attributes(0o640, BOB, -1))
        assert theirs.stat().st_uid == BOB
    assert files.remove(str(theirs), BOB)


# -- a race ----------------------------------------------------------------------------------------

_SWAPS = """
import os, select, sys
place, victim = sys.argv[1:]
os.chdir(place)
count = 0

def put(move, *arguments):
    while True:
        try:
            return move(*arguments)
        except OSError:  # root made a directory of that name meanwhile; it can be moved, in a directory of one's own
            os.rename("d", f"made-{count}-{os.urandom(4).hex()}")

print("ready", flush=True)
# Until its input is closed: the other side counts.
while not select.select([0], [], [], 0)[0]:
    os.rename("d", "kept")
    put(os.symlink, victim, "d")
    os.unlink("d")
    put(os.rename, "kept", "d")
    count += 1
print(count, flush=True)
"""
# A write that goes through costs a hundred refused ones: the link is there most of the time. The most is for a machine
# on which the other process hardly gets a turn.
_DONE, _REFUSED, _MOST = 30, 1000, 300_000


@ROOT
def test_a_race_between_directory_and_symlink_redirects_no_write(place: Path) -> None:
    home, victim = own(place / "home", ALICE), own(place / "victim", 0, 0o700)
    own(home / "d", ALICE)
    own(home / "d/sub", ALICE)
    own(victim / "sub", 0, 0o700)
    files, done, refused = files_of(place), 0, 0
    path = f"{home}/d/sub/t"
    with subprocess.Popen(
        [sys.executable, "-c", _SWAPS, str(home), str(victim)],
        user=ALICE,
        group=ALICE,
        extra_groups=[],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as swapping:
        assert swapping.stdin is not None
        assert swapping.stdout is not None
        assert swapping.stdout.readline() == "ready\n"
        try:
            while (done < _DONE or refused < _REFUSED) and done + refused < _MOST:
                try:
                    files.replace(path, b"x", PLAIN)
                    files.matches(path, b"x", PLAIN)
                    done += 1
                    if done % 3 == 0:
                        files.remove(path)
                        files.sweep({f"{home}/d/sub"})
                except PublishError:
                    refused += 1
        finally:
            swapping.stdin.close()
        swaps = int(swapping.stdout.readline())
    assert sorted(victim.rglob("*")) == [victim / "sub"]
    assert (victim.stat().st_uid, stat.S_IMODE(victim.stat().st_mode)) == (0, 0o700)
    assert list(place.rglob("*.tmp")) == []
    # It was a race.
    assert swaps > 0
    assert done > 0
    assert refused > 0


@pytest.mark.parametrize("times", [1, 4, 5])
def test_a_directory_that_was_something_else_for_a_moment_stays(
    place: Path, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = str(place / "tokens")
    files, path = Files(root, 0o755, own=f"{root}/.bearerd"), f"{root}/.bearerd/records/r"
    files.replace(path, b"x", PLAIN)
    files.close_directories()
    opened, moments = os.open, iter(range(times))

    def open_at(name: str, *arguments: Any, **keywords: Any) -> int:
        if name == ".bearerd" and next(moments, None) is not None:
            raise NotADirectoryError(errno.ENOTDIR, "Not a directory")
        return opened(name, *arguments, **keywords)

    monkeypatch.setattr("bearerd.publish.walk.os.open", open_at)
    if times == 5:
        with pytest.raises(PublishError, match=f"another user keeps putting {root}/.bearerd back: it was not a dir"):
            files.matches(path, b"x", PLAIN)
    else:
        assert files.read(path, 9) == b"x"
    assert os.listdir(root) == [".bearerd"]


# -- the modes of directories that are made --------------------------------------------------------


def made(root: Path, mode: int, umask: int, group: str | None = None) -> tuple[int, int]:
    """The mode and the group of a directory that is made there."""
    before = os.umask(umask)
    try:
        Files(str(root), mode, group).replace(str(root / "dnb/t"), b"x", PLAIN)
    finally:
        os.umask(before)
    status = (root / "dnb").stat()
    return stat.S_IMODE(status.st_mode), status.st_gid


@ROOT
@pytest.mark.parametrize("umask", [0o022, 0o077])
@pytest.mark.parametrize("mode", [0o750, 0o2750, 0o770, 0o2770])
@pytest.mark.parametrize("setgid", [False, True])
@pytest.mark.parametrize("group", [None, str(GROUP), "50"])
@pytest.mark.parametrize("uid", [0, BOB])
def test_a_new_directory_has_its_mode_and_group(
    place: Path, umask: int, mode: int, setgid: bool, group: str | None, uid: int
) -> None:
    root = own(place / "tokens", uid, 0o2755 if setgid else 0o755, GROUP)
    wanted = mode | (stat.S_ISGID if setgid else 0)
    if uid == 0:
        expected = int(group or (GROUP if setgid else os.getegid()))
        assert made(root, mode, umask, group) == (wanted, expected)
        return
    # BOB is not in GROUP: he can keep the group that mkdir sets, and set no other.
    with acting_as(BOB):
        if group is not None and not (setgid and group == str(GROUP)):
            with pytest.raises(PublishError, match=f"cannot set the group {group_name(int(group))}; run the daemon"):
                made(root, mode, umask, group)
        elif setgid and mode & 0o777 & umask:
            with pytest.raises(PublishError, match=rf"created with mode {wanted:04o}: the daemon's user is not in its"):
                made(root, mode, umask, group)
        else:
            assert made(root, mode, umask, group) == (wanted, GROUP if setgid else BOB)
            return
    assert list(root.iterdir()) == []


_FILTERED = """
import ctypes, os, struct, sys
from bearerd.errors import PublishError
from bearerd.publish.atomic import Files
from bearerd.publish.owners import Attributes

# As systemd's RestrictSUIDSGID= does: EPERM for fchmod (x86_64: 91) and mkdirat (258) with a setuid or setgid bit.
def instruction(code, true, false, k):
    return struct.pack("HBBI", code, true, false, k)

filters = b"".join([
    instruction(0x20, 0, 0, 0),            # the number of the call
    instruction(0x15, 0, 2, 91),           # fchmod: its second argument
    instruction(0x20, 0, 0, 24),
    instruction(0x45, 3, 4, 0o6000),
    instruction(0x15, 0, 3, 258),          # mkdirat: its third
    instruction(0x20, 0, 0, 32),
    instruction(0x45, 0, 1, 0o6000),
    instruction(0x06, 0, 0, 0x00050001),   # EPERM
    instruction(0x06, 0, 0, 0x7FFF0000),   # allowed
])
libc = ctypes.CDLL(None, use_errno=True)
buffer = ctypes.create_string_buffer(filters)
program = struct.pack("HxxxxxxQ", len(filters) // 8, ctypes.addressof(buffer))
libc.prctl(38, 1, 0, 0, 0)
assert libc.prctl(22, 2, ctypes.c_char_p(program), 0, 0) == 0, os.strerror(ctypes.get_errno())
root, mode, umask = sys.argv[1], int(sys.argv[2], 8), int(sys.argv[3], 8)
os.umask(umask)
try:
    os.fchmod(os.open(root, os.O_RDONLY), 0o2755)
except PermissionError:
    pass
else:
    print("no filter")
try:
    Files(root, mode).replace(f"{root}/dnb/t", b"x", Attributes(0o640))
except PublishError as error:
    print(error)
"""


@ROOT
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="needs x86_64: the filter names system calls by number")
@pytest.mark.parametrize("umask", [0o022, 0o077])
@pytest.mark.parametrize("mode", [0o750, 0o2750, 0o770, 0o2770])
@pytest.mark.parametrize("setgid", [False, True])
def test_if_chmod_may_not_set_setgid_the_bit_is_inherited_or_it_is_an_error(
    place: Path, umask: int, mode: int, setgid: bool
) -> None:
    root = own(place / "tokens", 0, 0o2755 if setgid else 0o755, GROUP)
    done = subprocess.run(
        [sys.executable, "-c", _FILTERED, str(root), f"{mode:o}", f"{umask:o}"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    wanted = mode | (stat.S_ISGID if setgid else 0)
    # mkdir inherits the bit; bits that the umask removed cannot be added.
    possible = not mode & 0o777 & umask if setgid else not mode & stat.S_ISGID
    if possible:
        assert done.stdout == ""
        assert stat.S_IMODE((root / "dnb").stat().st_mode) == wanted
    else:
        assert (
            f"{root}/dnb cannot be created with mode {wanted:04o}: setting the setgid bit is forbidden" in done.stdout
        )
        assert "create it beforehand" in done.stdout
        assert list(root.iterdir()) == []


@pytest.mark.parametrize("umask", [0o022, 0o077])
@pytest.mark.parametrize("group", [None, "50"])
def test_a_directory_never_has_a_wider_mode_than_configured(
    place: Path, monkeypatch: pytest.MonkeyPatch, umask: int, group: str | None
) -> None:
    if group and os.geteuid() != 0:
        pytest.skip("needs root: another group")
    root, seen = place / "tokens", []
    real = {name: getattr(os, name) for name in ("mkdir", "open", "fchown", "fchmod")}

    def watched(name: str) -> object:
        def call(*arguments: object, **keywords: object) -> object:
            done = real[name](*arguments, **keywords)
            for path in (root, root / "dnb"):
                if path.exists():
                    status = path.stat()
                    seen.append((stat.S_IMODE(status.st_mode), status.st_gid))
            return done

        return call

    for name in real:
        monkeypatch.setattr(os, name, watched(name))
    before = os.umask(umask)
    try:
        Files(str(root), 0o770, group).replace(f"{root}/dnb/t", b"x", PLAIN)
    finally:
        os.umask(before)
        monkeypatch.undo()
    assert seen[-1] == (0o770, int(group or os.getegid()))
    for mode, gid in seen:
        assert mode & ~0o770 == 0
        # Nobody but the owner before it has its group.
        assert gid == int(group or os.getegid()) or mode & 0o077 == 0


@ROOT
def test_a_replaced_new_directory_is_not_changed(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = own(place / "shared", 0, 0o777)
    real = os.mkdir

    def exchanged(path: str, mode: int, *, dir_fd: int) -> None:
        real(path, mode, dir_fd=dir_fd)
        os.rmdir(path, dir_fd=dir_fd)
        own(shared / path, ALICE, 0o711)

    monkeypatch.setattr("os.mkdir", lambda path, mode=0o777, *, dir_fd=None: (
        real(path, mode) if dir_fd is None else (
            exchanged(path, mode, dir_fd=dir_fd)
        )
    ))  # fmt: skip
    files = Files(str(place / "tokens"), 0o750, group="50")
    files.replace(f"{shared}/new/t", b"x", PLAIN)
    status = (shared / "new").stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (ALICE, ALICE, 0o711)


def test_a_path_that_cannot_be_entered_is_an_error(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    files = files_of(place)
    with monkeypatch.context() as patch:
        patch.setattr("os.open", refused)
        with pytest.raises(PublishError, match="too many files are open"):
            files.replace(f"{place}/t", b"x", PLAIN)
