"""The content of the image: each path that bearerd adds to its base, and what of the base is not needed."""

from __future__ import annotations

import json
import re
import stat
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from image.podman import Podman
from support.pip import settings
from support.rig import say

Files = Mapping[str, tarfile.TarInfo]
_PLACE = "opt/bearerd"
_ADDED = {
    f"{_PLACE}/bin/bearerd",
    f"{_PLACE}/bin/python",
    f"{_PLACE}/bin/python3",
    f"{_PLACE}/bin/python3.N",
    f"{_PLACE}/cache",
    f"{_PLACE}/lib/python3.N/site-packages",
    f"{_PLACE}/lib64",
    f"{_PLACE}/pyvenv.cfg",
    f"{_PLACE}/share/bash-completion/completions/bearerd",
    f"{_PLACE}/share/man/man1/bearerd.1",
    f"{_PLACE}/share/man/man5/bearerd.yaml.5",
    f"{_PLACE}/share/zsh/site-functions/_bearerd",
    "usr/share/bearerd/sbom.cdx.json",
}
"""Files and links that the image has besides those of its base. Two are directories with more: `_WHOLE`."""
_WHOLE = (f"{_PLACE}/cache", f"{_PLACE}/lib/python3.N/site-packages")
_ON_SOME = {f"{_PLACE}/lib64"}
"""A link that venv creates on some systems only."""
_DIRECTORIES = {"etc/bearerd": (0o755, 0, 0), "run/bearerd": (0o750, 65532, 65532)}
_NOT_OURS = re.compile(r"(.*/)?(tests?|pip|setuptools|ensurepip|idlelib|lib2to3|pydoc_data|tkinter|turtledemo)(/.*)?")
"""Modules that bearerd never imports: no bytecode of them is made, and no wheel may bring them."""
_INSTALLERS = re.compile(
    r"(.*/)?(bin/(pip|easy_install|wheel)[^/]*|[^/]*-packages/(pip|setuptools|wheel)(-[^/]*)?|ensurepip|[^/]*\.whl)"
)
_PODMANS = {"etc/hosts"}
"""Podman makes this in each container."""
_SCRATCH = r"(tmp|var/tmp|root|src|var/cache/apt|var/lib/apt/lists)/"
_PROGRAMS = {
    "shells": {"bash", "dash", "sh", "rbash", "zsh", "busybox"},
    "package managers": {"apt", "apt-get", "dpkg", "rpm", "dnf", "apk"},
    "interpreters": {"perl", "python3"},
    "compilers": {"cc", "gcc", "c++", "g++", "clang", "as", "ld", "make", "go", "rustc"},
    "network clients": {"curl", "wget", "nc", "netcat", "ssh", "ftp", "telnet"},
}
_EXPECTED = {
    # Of the base. Whoever needs a program for a hook or a secret in the image installs it with them.
    "shells": {"bash", "dash", "sh", "rbash"},
    "package managers": {"apt", "apt-get", "dpkg"},
    "interpreters": {"perl", "python3"},
    "compilers": set[str](),
    "network clients": set[str](),
}


def contents(podman: Podman, image: str, base: str) -> None:
    """Fails at anything that is not expected."""
    ours, theirs = _files(podman, image), _files(podman, base)
    found = faults(ours, theirs)
    assert not found, "\n".join(found)
    _told(podman, image)
    added = {path: member for path, member in ours.items() if path not in theirs}
    size = sum(member.size for member in added.values()) / 1e6
    cache = sum(member.size for path, member in added.items() if path.startswith(f"{_PLACE}/cache/")) / 1e6
    kept = ", ".join(sorted(_EXPECTED["shells"] | _EXPECTED["package managers"] | {"perl"}))
    say(
        f"contents  bearerd adds {len(added)} paths, {size:.0f} MB, {cache:.0f} MB of it bytecode, all root's; nothing "
        f"setuid, nothing that all can write, no pip, no compiler; the base has {kept}"
    )


def faults(ours: Files, theirs: Files) -> list[str]:
    """What is in an image and should not be there, or the other way round; `theirs` is its base."""
    config = ours.get("etc/pip.conf")
    return [
        *(["the build's pip.conf"] if config is not None and config.size else []),
        *_of_the_list({path: member for path, member in ours.items() if path not in theirs}),
        *_of_rights(ours, theirs),
        *_of_programs(ours),
    ]


def _of_the_list(added: Files) -> Iterator[str]:
    """Each path that bearerd adds is expected, and nothing is missing."""
    listed = {_shortened(path) for path, member in added.items() if not member.isdir()} - _PODMANS
    yield from (f"not on the list: {path}" for path in sorted(listed - _ADDED))
    yield from (f"missing: {path}" for path in sorted(_ADDED - listed - _ON_SOME))
    for path, member in sorted(added.items()):
        if member.isdir() and path not in _DIRECTORIES and not _leads_to_listed(_shortened(path)):
            yield f"not on the list: {path}"
    for path, expected in _DIRECTORIES.items():
        there = added.get(path)
        if there is None or (stat.S_IMODE(there.mode), there.uid, there.gid) != expected:
            yield f"missing, or with other rights: {path}"
    for path, member in sorted(added.items()):
        if _NOT_OURS.fullmatch(path.removeprefix(f"{_PLACE}/cache/")):
            yield f"not needed: {path}"
        if (member.uid, member.gid) != (0, 0) and path not in _DIRECTORIES:
            yield f"not root's: {path}"


def _of_rights(ours: Files, theirs: Files) -> Iterator[str]:
    """Of the base too."""
    for path, member in sorted(ours.items()):
        if member.isfile() and member.mode & (stat.S_ISUID | stat.S_ISGID):
            yield f"setuid or setgid: {path}"
        if (member.isfile() or member.isdir()) and member.mode & (stat.S_IWOTH | stat.S_ISVTX) == stat.S_IWOTH:
            yield f"all can write: {path}"
        if member.isfile() and path not in theirs and re.match(_SCRATCH, path):
            yield f"left over by the build: {path}"


def _of_programs(ours: Files) -> Iterator[str]:
    """Of the base too: what could install or compile others, and the shells."""
    for path in sorted(ours):
        if _INSTALLERS.fullmatch(path):
            yield f"installs programs: {path}"
    found = {PurePosixPath(path).name for path in ours if re.match(r"(usr/)?(local/)?s?bin/|opt/bearerd/bin/", path)}
    for kind, names in _PROGRAMS.items():
        yield from (f"{kind}: {name}" for name in sorted((found & names) ^ _EXPECTED[kind]))


def _told(podman: Podman, image: str) -> None:
    """Neither the history nor the settings contain anything of the machine that built it."""
    pip, paths = settings()
    # Addresses and paths. A number or a word would be in any text.
    private = {word for word in pip.split() if "/" in word} | {*paths}
    for text in (
        podman("history", "--no-trunc", "--format=json", image),
        json.dumps(podman.inspect("image", image)["Config"]),
    ):
        told = sorted(word for word in private if word in text)
        assert not told, f"of the machine that built it: {told}"
    names = {line.partition("=")[0] for line in podman.inspect("image", image)["Config"]["Env"]}
    assert names == {"PATH", "PYTHONPYCACHEPREFIX"}, f"in the environment: {sorted(names)}"


def _shortened(path: str) -> str:
    """A path without the version of Python, and only the first part of a directory that is listed whole."""
    path = re.sub(r"python3\.\d+", "python3.N", path)
    return next((whole for whole in _WHOLE if path.startswith(f"{whole}/")), path)


def _leads_to_listed(directory: str) -> bool:
    """Whether a directory is one of the list, or a listed path is below it."""
    return any(path == directory or path.startswith(f"{directory}/") for path in _ADDED)


def _files(podman: Podman, image: str) -> Files:
    """All that is in an image, as a container of it has it."""
    tar = Path(podman.directory) / "contents.tar"
    container = podman("create", "--entrypoint=/", image)
    podman("export", f"--output={tar}", container)
    podman("rm", container)
    with tarfile.open(tar) as file:
        found = {member.name.removeprefix("./").rstrip("/"): member for member in file}
    tar.unlink()
    return found
