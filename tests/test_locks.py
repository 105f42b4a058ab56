"""The locks in requirements/: complete for pyproject.toml, exact, and without anything else."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import PackageNotFoundError, distribution

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from supply.lock import LOCKS, PYTHONS, ROOT, environments, installed, lock, parsed, unneeded, unsatisfied, wanted

NAMES = ("runtime", "build", "tools")
ENTRY = (
    f"pysocks==1.7.1 ; sys_platform == 'linux' \\\n    --hash=sha256:{'0' * 64}\n    # via bearerd (pyproject.toml)\n"
)
OTHER = f"six==1.17.0 \\\n    --hash=sha256:{'1' * 64} \\\n    --hash=sha256:{'2' * 64}\n    # via\n    #   pysocks\n"


@pytest.mark.parametrize("name", NAMES)
def test_a_lock_has_all_that_pyproject_asks_for_on_each_python_and_processor(name: str) -> None:
    assert unsatisfied(lock(name), wanted(name)) == []


@pytest.mark.parametrize("name", NAMES)
def test_a_lock_has_nothing_that_pyproject_does_not_need(name: str) -> None:
    assert unneeded(lock(name), wanted(name)) == []


@pytest.mark.parametrize("name", NAMES)
def test_each_project_is_locked_at_one_version(name: str) -> None:
    for environment in environments():
        for entry in installed(lock(name), environment).values():
            assert entry.version.local is None, "a local version is no file of the index"


def test_what_the_locked_versions_require_is_locked() -> None:
    """By their own metadata: those that are installed here, in the version of the lock."""
    for environment in environments():
        there = installed(lock("runtime"), environment)
        for entry in there.values():
            try:
                found = distribution(entry.name)
            except PackageNotFoundError:
                continue
            if found.version != str(entry.version):
                continue
            for need in map(Requirement, found.requires or []):
                if need.marker is None or need.marker.evaluate({**environment, "extra": ""}):
                    assert need.specifier.contains(there[canonicalize_name(need.name)].version), f"{entry.name}: {need}"


def test_the_runtime_lock_covers_all_extras_and_the_build_lock_the_build_backend() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = {
        name for name in project["project"]["optional-dependencies"] if name not in ("test", "dev", "fuzz", "all")
    }
    asked = {str(one) for one in wanted("runtime")}
    for name in extras:
        assert set(map(str, map(Requirement, project["project"]["optional-dependencies"][name]))) <= asked, name
    assert set(project["build-system"]["requires"]) <= set(project["dependency-groups"]["build"])


def test_the_pythons_of_the_locks_are_those_of_the_classifiers() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = [re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", line) for line in project["classifiers"]]
    assert tuple(found[1] for found in named if found) == PYTHONS


@pytest.mark.parametrize("path", ["systemd/stage", "systemd/deb/build", "systemd/rpm/bearerd.spec", "Containerfile"])
def test_packages_are_installed_from_the_locks_and_in_no_other_way(path: str) -> None:
    commands = [line for line in (ROOT / path).read_text().splitlines() if not line.startswith("#")]
    assert any(re.search(r"/install\.py|/stage\b", line) for line in commands)
    assert not any(re.search(r"\bpip\b.*\binstall\b", line) for line in commands)


def test_pip_accepts_only_wheels_with_a_hash_of_the_locks() -> None:
    text = (LOCKS / "install.py").read_text()
    calls = re.findall(r"_run\(.*\"install\", \*_LOCKED|_run\(\*pip, .*\)", text)
    assert len(calls) == 3, calls
    assert '"--require-hashes", "--only-binary=:all:"' in text
    [own] = [call for call in calls if "_LOCKED" not in call]
    assert '"--no-index", "--no-deps", wheel' in own


# -- the checks find faults --------------------------------------------------------------------------


def test_a_lock_is_read() -> None:
    first, second = parsed(f"# made by uv\n{ENTRY}{OTHER}")
    assert (first.name, str(first.version), set(first.hashes), set(first.via)) == (
        *("pysocks", "1.7.1"),
        *({"0" * 64}, {"bearerd"}),
    )
    assert (second.name, set(second.hashes), set(second.via)) == ("six", {"1" * 64, "2" * 64}, {"pysocks"})


@pytest.mark.parametrize(
    "text",
    [
        "pysocks==1.7.1\n",
        "pysocks==1.7.1\n    # via bearerd (pyproject.toml)\n",
        ENTRY.replace("0" * 64, "0" * 63),
        ENTRY.replace("sha256", "md5"),
        ENTRY.replace("pysocks==1.7.1 ;", "pysocks>=1.7,<2 ;"),
        f"--index-url https://index.example.com/simple\n{ENTRY}",
        f"--find-links /srv/wheels\n{ENTRY}",
        f"-r other.txt\n{ENTRY}",
        f"./local\n{ENTRY}",
    ],
    ids=["bare", "no hash", "short", "md5", "range", "index", "find-links", "file", "path"],
)
def test_a_lock_with_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"line \d+|has no hash|no single version"):
        parsed(text)


def test_two_versions_at_the_same_time_are_refused() -> None:
    entries = parsed(ENTRY + ENTRY.replace("1.7.1", "1.7.0"))
    with pytest.raises(ValueError, match="two versions"):
        installed(entries, next(environments()))


def test_a_missing_and_a_too_old_version_are_found() -> None:
    needs = [Requirement("pysocks>=1.8"), Requirement("redis"), Requirement("six; sys_platform == 'win32'")]
    assert unsatisfied(parsed(ENTRY), needs) == ["pysocks>=1.8: 1.7.1", "redis: not locked"]


def test_a_lock_for_one_python_only_is_found() -> None:
    entries = parsed(ENTRY.replace("sys_platform == 'linux'", "python_version < '3.13'"))
    assert unsatisfied(entries, [Requirement("pysocks")]) == ["pysocks: not locked"]


def test_what_nothing_needs_is_found() -> None:
    entries = parsed(ENTRY + OTHER + OTHER.replace("six", "left-pad").replace("pysocks", "right-pad"))
    assert unneeded(entries, [Requirement("pysocks")]) == ["left-pad"]
