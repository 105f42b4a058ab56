from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bearerd.errors import PublishError
from bearerd.model import Config, Output
from bearerd.publish.access import Reader, stops
from bearerd.publish.publisher import Publisher
from bearerd.publish.reader_path import ReaderPaths
from support.readers import ROOT, acting_as, can_read, naming, open_directory, set_acl
from support.targets import TARGET, token


@pytest.fixture
def reachable() -> Iterator[Path]:
    with open_directory() as directory:
        yield directory


def config_of(directory: Path, *outputs: Output, **changes: Any) -> Config:
    """A config with one target and these outputs."""
    config = Config(str(directory), str(directory / "state"), targets=(replace(TARGET, outputs=outputs),))
    return replace(config, **changes)


# -- the path of a reader --------------------------------------------------------------------------


def paths(known: ReaderPaths, output: Output) -> list[str]:
    """What is gone through, and the file."""
    way = known.of(output)
    return [directory.path for directory in way.directories] + ([way.file.path] if way.file else [])


def parents(directory: Path) -> list[str]:
    """The directory and all above it, from the first on."""
    return [*map(str, [*directory.parents][::-1]), str(directory)]


def test_a_path_follows_symlinks_as_the_kernel_does(tmp_path: Path) -> None:
    (tmp_path / "var" / "deep").mkdir(parents=True)
    (tmp_path / "run" / "tokens").mkdir(parents=True)
    (tmp_path / "var" / "run").symlink_to("deep/../../run/./")
    (tmp_path / "absolute").symlink_to(tmp_path / "var" / "run")
    on = ["/var/deep", "/run", "/run/tokens", "/run/tokens/dnb", "/run/tokens/dnb/t"]
    to_var = parents(tmp_path / "var")
    for link, way in (("var/run", to_var), ("absolute", [*parents(tmp_path), *to_var[1:]])):
        directory = tmp_path / link / "tokens"
        output = Output(f"{directory}/dnb/t")
        assert paths(ReaderPaths(config_of(directory, output)), output) == [*way, *(f"{tmp_path}{path}" for path in on)]


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        pytest.param(lambda path: path.symlink_to(path.name), "symlink", id="a-loop"),
        pytest.param(lambda path: path.touch(), "not a directory", id="a-file"),
    ],
)
def test_a_path_that_does_not_exist_is_an_error(tmp_path: Path, harm: Callable[[Path], object], said: str) -> None:
    harm(tmp_path / "tokens")
    output = Output(f"{tmp_path}/tokens/dnb/t")
    with pytest.raises(PublishError, match=said):
        ReaderPaths(config_of(tmp_path / "tokens", output)).of(output)


@ROOT
def test_what_is_not_configured_is_as_the_daemon_would_make_it(tmp_path: Path) -> None:
    root = tmp_path / "tokens"
    (root / "dnb").mkdir(parents=True)
    output = Output(f"{root}/dnb/t", mode=0o604)
    config = config_of(root, output)

    def foreseen(output: Output = output) -> tuple[int, int, int, bool]:
        way = ReaderPaths(config).of(output)
        assert way.file is not None
        return way.file.mode, way.file.uid, way.file.gid, way.guessed

    # Without a lock the user of this process is assumed.
    assert foreseen() == (0o604, os.geteuid(), os.getegid(), True)
    assert foreseen(replace(output, owner="1", group="2")) == (0o604, 1, 2, False)
    assert foreseen(replace(output, path=f"{root}/new/t", owner="1", group="2")) == (0o604, 1, 2, True)
    (root / ".bearerd").mkdir()
    (root / ".bearerd" / "lock").touch()
    os.chown(root / ".bearerd" / "lock", 1234, 50)
    assert ReaderPaths(config).daemon == "1234"
    assert foreseen() == (0o604, 1234, 50, False)
    # Changes by hand are lost with the old file.
    (root / "dnb" / "t").touch(0o777)
    os.chown(root / "dnb" / "t", 4321, 12)
    assert foreseen() == (0o604, 1234, 50, False)
    os.chown(root / "dnb", 0, 60)
    (root / "dnb").chmod(0o2755)
    assert foreseen() == (0o604, 1234, 60, False)
    assert foreseen(replace(output, owner="1", group="2")) == (0o604, 1, 2, False)


@ROOT
def test_what_cannot_be_seen_is_reported_as_unknown(reachable: Path) -> None:
    _own(reachable / "tokens", 0o700)
    output = Output(f"{reachable}/tokens/dnb/t")
    with acting_as(4000):
        way = ReaderPaths(config_of(reachable / "tokens", output)).of(output)
    assert [directory.path for directory in way.directories] == parents(reachable / "tokens")
    assert way.file is None


# -- prediction and reality ----------------------------------------------------------------------------

READERS = [
    Reader("owner", 1234, frozenset({1234})),
    Reader("member", 2001, frozenset({4242})),
    Reader("by another of his groups", 2002, frozenset({2002, 4242})),
    Reader("named", 3000, frozenset({3000})),
    Reader("stranger", 4000, frozenset({4000})),
    Reader("root", 0, frozenset({0})),
]


def _own(path: Path, mode: int, uid: int = 0, gid: int = 0) -> None:
    path.mkdir()
    os.chown(path, uid, gid)
    path.chmod(mode)


def _nothing(_: Path) -> None:
    pass


def _shut(root: Path) -> None:
    _own(root, 0o700)


def _for_a_group(root: Path) -> None:
    _own(root, 0o710, gid=4242)


def _setgid(root: Path) -> None:
    _own(root, 0o2750, gid=4242)


def _owner_shut_out(root: Path) -> None:
    _own(root, 0o055, uid=1234)


def _group_shut_out(root: Path) -> None:
    _own(root, 0o705, gid=4242)


def _acl(root: Path) -> None:
    _own(root, 0o700)
    set_acl(root, *naming(3000, 1))


def _acl_shuts_out(root: Path) -> None:
    _own(root, 0o755)
    set_acl(root, *naming(3000, 0, group=0))
    root.chmod(0o755)


def _empty_mask(root: Path) -> None:
    _own(root, 0o755)
    set_acl(root, *naming(3000, 0))
    root.chmod(0o705)


def _default_acl(root: Path) -> None:
    _own(root, 0o755)
    set_acl(root, *naming(3000, 5), default=True)


def _default_acl_and_setgid(root: Path) -> None:
    _own(root, 0o2755, gid=4242)
    set_acl(root, *naming(3000, 5, group=0), default=True)


def _file_of_another(root: Path) -> None:
    _own(root, 0o755)
    _own(root / "dnb", 0o755)
    (root / "dnb" / "t").touch()
    os.chown(root / "dnb" / "t", 0, 4242)


@ROOT
@pytest.mark.parametrize(
    ("output", "changes"),
    [
        pytest.param({}, {}, id="defaults"),
        pytest.param({"group": "4242"}, {"group": "4242"}, id="group"),
        pytest.param({"group": "4242"}, {"group": "4242", "directory_mode": 0o2710}, id="group-and-setgid"),
        pytest.param({"mode": 0o600, "owner": "1234"}, {"directory_mode": 0o755}, id="owner"),
        pytest.param({"mode": 0o604, "group": "4242"}, {"directory_mode": 0o711}, id="not-for-the-group"),
        pytest.param({"mode": 0o044, "owner": "1234"}, {"directory_mode": 0o755}, id="not-for-the-owner"),
        pytest.param({"mode": 0o644}, {"directory_mode": 0o754}, id="for-all-but-for-the-way"),
    ],
)
@pytest.mark.parametrize(
    "prepare",
    [
        _nothing, _shut, _for_a_group, _setgid, _owner_shut_out, _group_shut_out, _acl, _acl_shuts_out, _empty_mask,
        _default_acl, _default_acl_and_setgid, _file_of_another,
    ],
)  # fmt: skip
def test_the_prediction_agrees_with_the_file_that_is_written(
    reachable: Path, output: dict[str, Any], changes: dict[str, Any], prepare: Callable[[Path], None]
) -> None:
    root = reachable / "tokens"
    prepare(root)
    wanted = replace(Output(f"{root}/dnb/t"), **output)
    config = config_of(root, wanted, **changes)
    way = ReaderPaths(config).of(wanted)
    foreseen = {reader.name: not stops(way.directories, way.file, reader) for reader in READERS}
    before = os.umask(0o022)  # as the daemon has it
    try:
        (done,) = [Publisher(config).ensure(target, token()) for target in config.targets]
    finally:
        os.umask(before)
    assert done.faults == ()
    assert Path(wanted.path).stat().st_mode & 0o777 == wanted.mode
    really = {}
    for reader in READERS:
        # The order does not matter to the kernel either.
        first, *others = sorted(reader.groups)
        really[reader.name] = can_read(wanted.path, reader.uid, first, *others)
    assert foreseen == really
    # The same holds for the existing file.
    again = ReaderPaths(config).of(wanted)
    assert {reader.name: not stops(again.directories, again.file, reader) for reader in READERS} == really


@ROOT
def test_an_acl_of_the_file_alone_is_lost_with_the_next_token(reachable: Path) -> None:
    root = reachable / "tokens"
    output = Output(f"{root}/t")
    config = config_of(root, output, directory_mode=0o755)
    publisher, (target,) = Publisher(config), config.targets
    assert ReaderPaths(config).of(output).now is None
    publisher.ensure(target, token("one"))
    way = ReaderPaths(config).of(output)
    assert str(way.now) == str(way.file)
    set_acl(root / "t", *naming(3000, 4))
    (root / "t").chmod(0o640)
    assert can_read(root / "t", 3000, 3000)
    way = ReaderPaths(config).of(output)
    assert (str(way.now), str(way.file)) == ("root:root 0640+", "root:root 0640")
    publisher.ensure(target, token("two"))
    assert not can_read(root / "t", 3000, 3000)
    # Its directory's is for all that come.
    set_acl(root, *naming(3000, 4), default=True)
    publisher.ensure(target, token("three"))
    assert can_read(root / "t", 3000, 3000)
    way = ReaderPaths(config).of(output)
    assert (str(way.now), str(way.file)) == ("root:root 0640+", "root:root 0640+")
