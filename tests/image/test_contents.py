"""The check of the image's content finds what should not be there."""

from __future__ import annotations

import tarfile

import pytest

from image.contents import faults

BASE = ("usr/bin/dash", "usr/bin/bash", "usr/bin/rbash", "usr/bin/sh", "usr/bin/perl", "usr/bin/python3",
        "usr/bin/apt", "usr/bin/apt-get", "usr/bin/dpkg", "usr/bin/env")  # fmt: skip
OURS = (
    "opt/bearerd/bin/bearerd",
    "opt/bearerd/bin/python",
    "opt/bearerd/bin/python3",
    "opt/bearerd/bin/python3.13",
    "opt/bearerd/cache/usr/lib/python3.13/json/decoder.cpython-313.pyc",
    "opt/bearerd/lib/python3.13/site-packages/bearerd/__init__.py",
    "opt/bearerd/pyvenv.cfg",
    "opt/bearerd/share/bash-completion/completions/bearerd",
    "opt/bearerd/share/man/man1/bearerd.1",
    "opt/bearerd/share/man/man5/bearerd.yaml.5",
    "opt/bearerd/share/zsh/site-functions/_bearerd",
    "usr/share/bearerd/sbom.cdx.json",
)


def file(path: str, mode: int = 0o644, owner: int = 0, kind: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    member = tarfile.TarInfo(path)
    member.mode, member.uid, member.gid, member.type = mode, owner, owner, kind
    return member


def found(*planted: tarfile.TarInfo) -> list[str]:
    base = {path: file(path, 0o755) for path in BASE}
    image = base | {path: file(path) for path in OURS}
    image["etc/bearerd"] = file("etc/bearerd", 0o755, kind=tarfile.DIRTYPE)
    image["run/bearerd"] = file("run/bearerd", 0o750, 65532, tarfile.DIRTYPE)
    return faults(image | {member.name: member for member in planted}, base)


def test_an_image_with_what_is_listed_is_in_order() -> None:
    assert found() == []


@pytest.mark.parametrize(
    ("planted", "fault"),
    [
        (file("usr/bin/su", 0o4755), "setuid or setgid: usr/bin/su"),
        (file("usr/bin/wall", 0o2755), "setuid or setgid: usr/bin/wall"),
        (file("opt/bearerd/pyvenv.cfg", 0o666), "all can write: opt/bearerd/pyvenv.cfg"),
        (file("etc/bearerd/x", 0o777, kind=tarfile.DIRTYPE), "all can write: etc/bearerd/x"),
        (file("etc/bearerd", 0o750, kind=tarfile.DIRTYPE), "missing, or with other rights: etc/bearerd"),
        (file("opt/bearerd/bin/bearerd", owner=65532), "not root's: opt/bearerd/bin/bearerd"),
        (file("opt/bearerd/bin/dotenv"), "not on the list: opt/bearerd/bin/dotenv"),
        (file("usr/local/bin/pip3.13"), "installs programs: usr/local/bin/pip3.13"),
        (file("usr/bin/gcc"), "compilers: gcc"),
        (file("root/.netrc"), "left over by the build: root/.netrc"),
        (
            file("opt/bearerd/lib/python3.13/site-packages/redis/tests/data.json"),
            "not needed: opt/bearerd/lib/python3.13/site-packages/redis/tests/data.json",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_kind_of_fault_is_found(planted: tarfile.TarInfo, fault: str) -> None:
    assert fault in found(planted)
