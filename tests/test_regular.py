"""Reading regular files within a bound."""

from __future__ import annotations

import errno
import os
import tracemalloc
from pathlib import Path

import pytest

from bearerd.publish.atomic import Files
from bearerd.regular import read_regular
from bearerd.secrets.file import FileSource
from bearerd.terms import Reference


def test_a_small_file_takes_little_memory_however_large_it_may_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"secret")
    tracemalloc.start()
    try:
        assert read_regular(str(tmp_path / "file"), 2**24) == b"secret"
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_a_large_file_is_read_up_to_the_bound(tmp_path: Path) -> None:
    content = bytes(range(256)) * 1000
    (tmp_path / "file").write_bytes(content)
    assert read_regular(str(tmp_path / "file"), 300_000) == content
    assert read_regular(str(tmp_path / "file"), 100_000) == content[:100_000]


def test_a_short_read_is_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network file system may return less than a read asks for, before the end of the file."""
    (tmp_path / "file").write_bytes(b"0123456789")
    (tmp_path / "file").chmod(0o600)
    path = str(tmp_path / "file")
    real = os.read
    monkeypatch.setattr("os.read", lambda descriptor, most: real(descriptor, min(most, 3)))
    assert read_regular(path, 8) == b"01234567"
    assert FileSource(Reference("file", path)).read() == "0123456789"
    assert Files(str(tmp_path), 0o750).read(path, 9) == b"012345678"


def test_a_file_that_was_read_counts_although_its_close_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network file system may report an earlier error at a close. Linux closes the descriptor all the same."""
    (tmp_path / "file").write_bytes(b"0123456789")
    (tmp_path / "file").chmod(0o600)
    path, real = str(tmp_path / "file"), os.close
    before = len(os.listdir("/proc/self/fd"))

    def close(descriptor: int) -> None:
        real(descriptor)
        raise OSError(errno.EIO, "Input/output error")

    files = Files(str(tmp_path), 0o750)
    with monkeypatch.context() as patch:
        patch.setattr("os.close", close)
        assert read_regular(path, 8) == b"01234567"
        assert FileSource(Reference("file", path)).read() == "0123456789"
        assert files.read(path, 9) == b"012345678"
        assert files.names(str(tmp_path)) == ["file"]
        assert files.remove(path)
        files.close_directories()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_file_whose_kind_cannot_be_read_leaves_no_descriptor_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"x")
    before = len(os.listdir("/proc/self/fd"))

    def fstat(_: int) -> None:
        raise OSError(errno.ESTALE, "Stale file handle")

    with monkeypatch.context() as patch:
        patch.setattr("bearerd.regular.os.fstat", fstat)
        with pytest.raises(OSError, match="Stale"):
            read_regular(str(tmp_path / "file"), 8)
    assert len(os.listdir("/proc/self/fd")) == before
