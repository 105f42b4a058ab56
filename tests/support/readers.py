"""Other users of this machine: directories that they can reach, and files that they can really read."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest

ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: other users, owners and mounts")

USER_OBJ, USER, GROUP_OBJ, GROUP, MASK, OTHER = 1, 2, 4, 8, 16, 32


@cache
def why_not_as_another() -> str:
    """Why another user cannot run bearerd with this Python, tried as root; empty if they can."""
    nobody = 65534
    try:
        tried = subprocess.run(
            [sys.executable, "-c", "import bearerd.service.run"],
            user=nobody,
            group=nobody,
            extra_groups=[],
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError as error:
        return f"{sys.executable}: {error.strerror}"
    return tried.stderr.strip().rpartition("\n")[2]


def skip_where_others_cannot_run_python() -> None:
    """Skip a test that starts this Python as another user, if only its owner can run it."""
    if os.geteuid() == 0 and (why := why_not_as_another()):
        pytest.skip(f"needs a Python that other users can run: {why}")


@contextmanager
def open_directory() -> Iterator[Path]:
    """A directory that every user can reach. Those of pytest are for one user only."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name).resolve()
        directory.chmod(0o755)
        if not all(parent.stat().st_mode & 0o001 for parent in directory.parents):
            pytest.skip(f"needs a directory for temporary files that every user can get to, which {directory} is not")
        yield directory


def can_read(path: Path | str, uid: int, gid: int, *groups: int) -> bool:
    """Whether the kernel lets a process of such a user do it."""
    done = subprocess.run(
        ["cat", "--", str(path)],
        user=uid,
        group=gid,
        extra_groups=groups,
        cwd="/",
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    return done.returncode == 0


@contextmanager
def acting_as(uid: int) -> Iterator[None]:
    """Run the block as another user, with the files and modules that this process has open already."""
    groups = os.getgroups()
    os.setgroups([])
    os.setegid(uid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


def set_acl(path: Path, *entries: tuple[int, int, int], default: bool = False) -> None:
    """Give a directory or file an ACL of (tag, rights, id), as setfacl does; skips if ACLs are not supported."""
    kept = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in sorted(entries))
    try:
        os.setxattr(path, "system.posix_acl_default" if default else "system.posix_acl_access", kept)
    except OSError as error:
        pytest.skip(f"needs a file system with POSIX ACLs: {error.strerror}")


def naming(user: int, rights: int, *, mask: int = 7, group: int = 5) -> list[tuple[int, int, int]]:
    """An ACL like `user::rwx, user:UID:…, group::r-x, mask::rwx, other::---`."""
    nobody = 2**32 - 1
    return [
        (USER_OBJ, 7, nobody),
        (USER, rights, user),
        (GROUP_OBJ, group, nobody),
        (MASK, mask, nobody),
        (OTHER, 0, nobody),
    ]
