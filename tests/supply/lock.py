"""The locks in requirements/: read strictly, and compared with what pyproject.toml asks for."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
LOCKS = ROOT / "requirements"
PYTHONS = ("3.11", "3.12", "3.13")
"""The versions for which the locks are made: those in the classifiers of pyproject.toml."""
PROCESSORS = ("x86_64", "aarch64")
_HASH = re.compile(r"    --hash=sha256:([0-9a-f]{64})( \\)?")
_VIA = re.compile(r"    #(?: via)?(?: {1,3}(\S+( \(pyproject\.toml(:[a-z]+)?\))?))?")


@dataclass(frozen=True)
class Locked:
    """One version of one project."""

    requirement: Requirement
    hashes: frozenset[str]
    via: frozenset[str]
    """Canonical names of the projects that need it; bearerd is one of them."""

    @property
    def name(self) -> str:
        """In its canonical form."""
        return canonicalize_name(self.requirement.name)

    @property
    def version(self) -> Version:
        """The only one that is allowed."""
        [specifier] = self.requirement.specifier
        assert specifier.operator == "==", str(self.requirement)
        return Version(specifier.version)

    def applies(self, environment: Mapping[str, str]) -> bool:
        """Whether pip installs it there."""
        return self.requirement.marker is None or self.requirement.marker.evaluate(dict(environment))


def parsed(text: str) -> list[Locked]:
    """All entries of a lock; ValueError at a line that is none of them, such as an option that names an index."""
    found: list[Locked] = []
    first, hashes, via = "", set[str](), set[str]()

    def end() -> None:
        if first:
            if not hashes:
                raise ValueError(f"{first} has no hash")
            found.append(Locked(Requirement(first), frozenset(hashes), frozenset(via)))
            if len(found[-1].requirement.specifier) != 1:
                raise ValueError(f"{first} is no single version")

    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("#"):
            continue
        if hashed := _HASH.fullmatch(line):
            hashes.add(hashed[1])
        elif needed := _VIA.fullmatch(line):
            via |= {canonicalize_name(needed[1].split()[0])} if needed[1] else set()
        elif re.match(r"[A-Za-z0-9]", line):
            end()
            first, hashes, via = line.removesuffix(" \\"), set(), set()
        else:
            raise ValueError(f"line {number}: {line.strip()}")
    end()
    return found


def lock(name: str) -> list[Locked]:
    """One of the files: `runtime`, `build` or `tools`."""
    return parsed((LOCKS / f"{name}.txt").read_text())


def wanted(name: str) -> list[Requirement]:
    """What pyproject.toml asks for in that file: all extras, or a group."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    if name == "runtime":
        extras = project["project"]["optional-dependencies"]
        return [*map(Requirement, project["project"]["dependencies"]), *_extra(extras, "all")]
    return [Requirement(text) for text in project["dependency-groups"][name]]


def _extra(extras: Mapping[str, Sequence[str]], name: str) -> Iterator[Requirement]:
    for text in extras[name]:
        requirement = Requirement(text)
        if requirement.name == "bearerd":
            for other in requirement.extras:
                yield from _extra(extras, other)
        else:
            yield requirement


def environments() -> Iterator[dict[str, str]]:
    """Of each Python and processor, in the first and in a later release."""
    for processor in PROCESSORS:
        for python in PYTHONS:
            for release in ("0", "9"):
                full = f"{python}.{release}"
                yield {
                    **{name: str(value) for name, value in default_environment().items()},
                    "python_version": python, "python_full_version": full, "implementation_version": full,
                    "platform_machine": processor, "sys_platform": "linux", "platform_system": "Linux",
                    "os_name": "posix", "platform_python_implementation": "CPython", "implementation_name": "cpython",
                }  # fmt: skip


def installed(entries: Sequence[Locked], environment: Mapping[str, str]) -> dict[str, Locked]:
    """What pip installs in an environment, by name; ValueError if it is two versions of one project."""
    chosen = [entry for entry in entries if entry.applies(environment)]
    by_name = {entry.name: entry for entry in chosen}
    if len(by_name) != len(chosen):
        raise ValueError("two versions of one project at the same time")
    return by_name


def unsatisfied(entries: Sequence[Locked], needs: Sequence[Requirement]) -> list[str]:
    """What is missing in at least one of the environments, or locked at a version that is not allowed."""
    found = set()
    for environment in environments():
        there = installed(entries, environment)
        for need in needs:
            entry = there.get(canonicalize_name(need.name))
            if (need.marker is None or need.marker.evaluate(environment)) and (
                entry is None or not need.specifier.contains(entry.version)
            ):
                found.add(f"{need}: {entry.version if entry else 'not locked'}")
    return sorted(found)


def unneeded(entries: Sequence[Locked], needs: Sequence[Requirement]) -> list[str]:
    """The projects that nothing on the way from pyproject.toml needs."""
    direct = {canonicalize_name(need.name) for need in needs}
    needed = {entry.name for entry in entries if entry.name in direct and "bearerd" in entry.via}
    while more := {entry.name for entry in entries if entry.via & needed} - needed:
        needed |= more
    return sorted({entry.name for entry in entries} - needed)
