"""Directories that are kept open are used only while they are what their path names."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bearerd.publish.atomic import Files
from bearerd.publish.kept import KeptDirectories
from bearerd.publish.owners import Attributes
from bearerd.publish.walk import OpenDirectory

PLAIN = Attributes(0o640)


@pytest.fixture
def kept() -> Iterator[KeptDirectories]:
    directories = KeptDirectories()
    yield directories
    directories.drop_all()


def keep(kept: KeptDirectories, path: Path) -> int:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    with kept.keep(str(path), OpenDirectory(descriptor, str(path), os.fstat(descriptor))):
        pass
    return descriptor


def is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def used(kept: KeptDirectories, path: Path) -> int | None:
    with kept.use(str(path)) as place:
        return None if place is None else place.descriptor


def test_a_directory_is_used_again_while_its_path_names_it(kept: KeptDirectories, tmp_path: Path) -> None:
    assert used(kept, tmp_path) is None
    descriptor = keep(kept, tmp_path)
    assert used(kept, tmp_path) == descriptor
    assert used(kept, tmp_path) == descriptor


def swapped(path: Path) -> None:
    path.rename(path.with_name("old"))
    path.mkdir()


def linked_elsewhere(path: Path) -> None:
    path.rename(path.with_name("old"))
    path.with_name("other").mkdir()
    path.symlink_to("other")


@pytest.mark.parametrize(
    "change",
    [swapped, linked_elsewhere, Path.rmdir, lambda path: path.chmod(0o777)],
    ids=["swap", "link", "gone", "mode"],
)
def test_one_that_changed_is_closed_and_not_used(
    kept: KeptDirectories, tmp_path: Path, change: Callable[[Path], None]
) -> None:
    path = tmp_path / "d"
    path.mkdir(0o755)
    descriptor = keep(kept, path)
    change(path)
    assert used(kept, path) is None
    assert not is_open(descriptor)


def test_one_that_is_in_use_is_closed_by_its_last_user(kept: KeptDirectories, tmp_path: Path) -> None:
    descriptor = keep(kept, tmp_path)
    with kept.use(str(tmp_path)):
        with kept.use(str(tmp_path)):
            kept.drop_all()
            assert is_open(descriptor)
        assert is_open(descriptor)
    assert not is_open(descriptor)


def leads_to(descriptor: str) -> str:
    """The path of an open file; empty if it was closed meanwhile, as those of earlier tests may be."""
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")
    except FileNotFoundError:
        return ""


def test_only_so_many_are_kept(kept: KeptDirectories, tmp_path: Path) -> None:
    paths = [tmp_path / str(number) for number in range(40)]
    for path in paths:
        path.mkdir()
        keep(kept, path)
    assert sum(leads_to(descriptor).startswith(f"{tmp_path}/") for descriptor in os.listdir("/proc/self/fd")) == 32
    assert [used(kept, path) is not None for path in paths] == [False] * 8 + [True] * 32


def test_many_threads_that_use_and_drop_never_meet_a_closed_one(kept: KeptDirectories, tmp_path: Path) -> None:
    faults: list[OSError] = []

    def use() -> None:
        for _ in range(300):
            try:
                with kept.use(str(tmp_path)) as place:
                    if place is None:
                        keep(kept, tmp_path)
                    else:
                        os.fstat(place.descriptor)
                kept.drop_all()
            except OSError as error:
                faults.append(error)

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    kept.drop_all()
    assert not faults
    assert str(tmp_path) not in [leads_to(descriptor) for descriptor in os.listdir("/proc/self/fd")]


def test_a_file_lands_where_the_path_leads_though_the_directory_was_kept(tmp_path: Path) -> None:
    files = Files(str(tmp_path), 0o750)
    files.replace(str(tmp_path / "d/t"), b"one", PLAIN)
    swapped(tmp_path / "d")
    files.replace(str(tmp_path / "d/t"), b"two", PLAIN)
    assert (tmp_path / "d/t").read_bytes() == b"two"
    assert (tmp_path / "old/t").read_bytes() == b"one"
    files.close_directories()
