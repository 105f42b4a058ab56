"""What one look at a file or directory tells about changes by others."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from bearerd.publish.looks import Looks, look


@pytest.mark.parametrize(
    "harm",
    [
        pytest.param(lambda path: path.unlink(), id="deleted"),
        pytest.param(lambda path: path.write_text("garbage"), id="altered"),
        pytest.param(lambda path: path.chmod(0o666), id="opened"),
        pytest.param(lambda path: os.utime(path, (1, 1)), id="dated back"),
        pytest.param(lambda path: (path.unlink(), path.mkdir()), id="a directory instead"),
    ],
)
def test_a_change_is_noticed(tmp_path: Path, harm: Callable[[Path], object]) -> None:
    looks, path, other = Looks(), tmp_path / "token", tmp_path / "other"
    for each in (path, other):
        each.write_text("t-1")
        looks.right(str(each), look(str(each)))
    assert looks.disturbed() == set()

    harm(path)

    assert looks.disturbed() == {str(path)}
    looks.forget(str(path))
    assert looks.disturbed() == set()


def test_a_file_that_differs_again_right_after_it_was_written_stays(tmp_path: Path) -> None:
    looks, path = Looks(), tmp_path / "token"
    path.write_text("t-1")
    looks.differed_at_once(str(path))
    assert looks.disturbed() == {str(path)}
    looks.differed_at_once(str(path))
    assert looks.disturbed() == set()


@pytest.mark.parametrize(
    "settle",
    [
        pytest.param(lambda looks, path: looks.right(path, look(path)), id="it was right meanwhile"),
        pytest.param(lambda looks, path: looks.forget(path), id="it was removed meanwhile"),
    ],
)
def test_a_file_that_differs_again_later_is_treated_as_the_first_time(
    tmp_path: Path, settle: Callable[[Looks, str], None]
) -> None:
    looks, path = Looks(), tmp_path / "token"
    path.write_text("t-1")
    looks.differed_at_once(str(path))
    settle(looks, str(path))
    looks.differed_at_once(str(path))
    assert looks.disturbed() == {str(path)}
    looks.differed_at_once(str(path))
    assert looks.disturbed() == set()


def test_a_file_that_another_program_wrote_is_written_again_each_time(tmp_path: Path) -> None:
    looks, path = Looks(), tmp_path / "token"
    path.write_text("garbage")
    for _ in range(3):
        looks.altered(str(path))
        assert looks.disturbed() == {str(path)}


def test_a_file_that_is_gone_right_after_it_was_written_is_missed_each_time(tmp_path: Path) -> None:
    looks, path = Looks(), tmp_path / "token"
    for _ in range(3):
        looks.differed_at_once(str(path))
        assert looks.disturbed() == {str(path)}


def test_names_are_read_once_until_they_change(tmp_path: Path) -> None:
    looks = Looks()
    (tmp_path / "bci.json").touch()
    later = tmp_path.stat().st_mtime + 2.0
    assert looks.names(str(tmp_path), later) == {"bci.json"}
    assert looks.names(str(tmp_path), later) is None
    os.utime(tmp_path, (1, 1))  # any change of a name also changes the time
    assert looks.names(str(tmp_path), later) == {"bci.json"}


def test_names_are_read_again_though_the_time_of_the_directory_was_set_back(tmp_path: Path) -> None:
    looks, record = Looks(), tmp_path / "bci.json"
    record.touch()
    before = tmp_path.stat()
    later = before.st_mtime + 2.0
    assert looks.names(str(tmp_path), later) == {"bci.json"}
    record.unlink()
    os.utime(tmp_path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert looks.names(str(tmp_path), later) == set()


def test_names_are_read_again_while_a_change_could_leave_the_time_as_it_was(tmp_path: Path) -> None:
    looks = Looks()
    now = tmp_path.stat().st_mtime + 0.9
    assert looks.names(str(tmp_path), now) == set()
    assert looks.names(str(tmp_path), now) == set()
    assert looks.names(str(tmp_path), now + 0.2) == set()
    assert looks.names(str(tmp_path), now + 0.2) is None


def test_a_directory_that_is_gone_has_no_names(tmp_path: Path) -> None:
    looks, directory = Looks(), tmp_path / "gone"
    assert looks.names(str(directory), 0.0) == set()
    assert looks.names(str(directory), 0.0) == set()
