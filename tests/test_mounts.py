from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from bearerd import mounts as module
from bearerd.mounts import Mount, Mounts, mounts

ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")


def listed(*lines: bytes) -> Mounts:
    return Mounts(b"\n".join((*lines, b"")))


def test_names_are_decoded() -> None:
    found = listed(
        b"22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw",
        b"23 22 0:5 / /a\\040b\\011c\\012d\\134e rw - tmpfs tmpfs rw",
        b"24 22 0:5 /x /caf\xc3\xa9/\\043t rw master:3 propagate_from:2 - ext4 /dev/sda1 rw",
        b"25 22 0:5 /x /not\xe9utf8 rw - ext4 /dev/sda1 rw",
        b"26 22 0:5 /x /with\rreturn rw - ext4 /dev/sda1 rw",
        b"27 22",
    )
    assert found.points == {"/", "/a b\tc\nd\\e", "/café/#t", os.fsdecode(b"/not\xe9utf8"), "/with\rreturn"}
    assert found.of("/a b\tc\nd\\e/f") == Mount("/a b\tc\nd\\e", "tmpfs")


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/", Mount("/", "ext4")),
        ("/a", Mount("/a", "xfs")),
        ("/a/b", Mount("/a/b", "proc")),
        ("/a/b/c", Mount("/a/b", "proc")),
        ("/a/below", Mount("/a", "xfs")),
        ("/ab", Mount("/", "ext4")),
        ("/twice/x", Mount("/twice", "nfs4")),
    ],
)
def test_a_path_is_on_the_mount_that_the_kernel_would_reach(path: str, found: Mount) -> None:
    # /a/below was mounted before /a was covered; /a/b after.
    mounted = listed(
        b"10 10 0:1 / / rw - rootfs rootfs rw",
        b"22 10 8:1 / / rw - ext4 /dev/sda1 rw",
        b"23 22 0:5 / /a/below rw - tmpfs tmpfs rw",
        b"24 22 0:6 / /a rw - xfs /dev/sdb1 rw",
        b"25 24 0:7 / /a/b rw - proc proc rw",
        b"26 22 0:8 / /twice rw - tmpfs tmpfs rw",
        b"27 26 0:9 / /twice rw - nfs4 host:/x rw",
    )
    assert mounted.of(path) == found


def test_in_a_chroot_the_root_need_not_be_listed() -> None:
    mounted = listed(b"25 24 0:7 / /proc rw - proc proc rw")
    assert mounted.of("/proc/self") == Mount("/proc", "proc")
    assert mounted.of("/etc") is None


def test_the_present_mounts_are_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    current = mounts()
    assert current.of("/proc/self") == Mount("/proc", "proc")
    assert current.of("/") != Mount("/", "proc")
    monkeypatch.setattr(module, "_MOUNTINFO", str(tmp_path / "hidden"))
    assert mounts().of("/proc/self") is None


@ROOT
def test_the_top_one_of_two_mounts_with_a_tab_in_their_name_is_found(tmp_path: Path) -> None:
    place = tmp_path / "a\tb"
    place.mkdir()
    for kind in ("tmpfs", "ramfs"):
        subprocess.run(["mount", "-t", kind, kind, place], check=True)
    try:
        assert mounts().of(str(place / "secret")) == Mount(str(place), "ramfs")
    finally:
        for _ in range(2):
            subprocess.run(["umount", place], check=True)
    assert mounts().of(str(place)) != Mount(str(place), "ramfs")
