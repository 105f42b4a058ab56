"""Reading regular files within a bound."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

from bearerd.regular import read_regular


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
