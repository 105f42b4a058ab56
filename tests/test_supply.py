"""The judgements of `python -m supply`: what it calls a difference, a wrong SBOM, a vulnerability, and no data."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from supply.audit import judged
from supply.compare import differences
from supply.lock import Locked, parsed
from supply.sbom import against_environment, against_records
from supply.surroundings import copy

CLEAN = {"dependencies": [{"name": "pysocks", "version": "1.7.1", "vulns": []}], "fixes": []}
FOUND = {
    "dependencies": [{"name": "pysocks", "version": "1.7.1", "vulns": [{"id": "PYSEC-1", "fix_versions": ["1.8"]}]}]
}
SKIPPED = {"dependencies": [{"name": "pysocks", "skip_reason": "not found on the index"}]}
TRACEBACK = "Traceback (most recent call last):\n  File …\n"


@pytest.mark.parametrize(
    ("code", "output", "complaint", "outcome"),
    [
        (0, json.dumps(CLEAN), "No known vulnerabilities found", "clean"),
        (1, json.dumps(FOUND), "Found 1 known vulnerability in 1 package", "found"),
        (0, json.dumps(SKIPPED), "No known vulnerabilities found", "no data"),
        (1, "", f"{TRACEBACK}requests.exceptions.ConnectionError: no route", "no data"),
        (1, "", f"{TRACEBACK}pip_audit._service.interface.ServiceError", "no data"),
        (1, "", "ERROR:pip_audit._cli:Tip: your network may be blocking this service.", "no data"),
        (1, "", "ERROR:pip_audit._cli:requirement pysocks is not pinned", "failed"),
        (1, "", f"{TRACEBACK}KeyError: 'vulns'", "failed"),
        (0, json.dumps({"dependencies": []}), "", "failed"),
        (2, "", "", "failed"),
    ],
)
def test_the_end_of_an_audit_is_understood(code: int, output: str, complaint: str, outcome: str) -> None:
    assert judged(code, output, complaint).outcome == outcome


def test_a_vulnerability_is_named_with_the_version_that_mends_it() -> None:
    assert judged(1, json.dumps(FOUND), "").text == "pysocks 1.7.1: PYSEC-1, fixed in ['1.8']"


# -- comparison --------------------------------------------------------------------------------------


def wheel(path: Path, files: dict[str, str], year: int = 2026) -> Path:
    with zipfile.ZipFile(path, "w") as made:
        for name, text in files.items():
            made.writestr(zipfile.ZipInfo(name, (year, 1, 1, 0, 0, 0)), text)
    return path


def sdist(path: Path, files: dict[str, str], mtime: int = 0, mode: int = 0o644) -> Path:
    with tarfile.open(path, "w:gz") as made:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime, info.mode = len(text), mtime, mode
            made.addfile(info, io.BytesIO(text.encode()))
    return path


def test_the_same_bytes_are_no_difference(tmp_path: Path) -> None:
    first, second = (wheel(tmp_path / f"{name}.whl", {"a": "1", "b": "2"}) for name in "xy")
    assert differences(first, second) == []


@pytest.mark.parametrize(
    ("files", "year", "named"),
    [
        ({"a": "1", "b": "3"}, 2026, ["b: "]),
        ({"a": "1"}, 2026, ["b: "]),
        ({"a": "1", "b": "2", "stamp": "now"}, 2026, ["stamp: not there | "]),
        ({"a": "1", "b": "2"}, 2025, ["a: ", "b: "]),
        ({"b": "2", "a": "1"}, 2026, ["the same files, in another order"]),
    ],
    ids=["bytes", "missing", "time stamp", "time", "order"],
)
def test_the_files_that_differ_are_named(tmp_path: Path, files: dict[str, str], year: int, named: list[str]) -> None:
    first, second = wheel(tmp_path / "x.whl", {"a": "1", "b": "2"}), wheel(tmp_path / "y.whl", files, year)
    found = differences(first, second)
    assert [fault.startswith(name) for fault, name in zip(found, named, strict=True)] == [True] * len(named), found


def test_times_and_modes_of_a_tar_are_differences(tmp_path: Path) -> None:
    first = sdist(tmp_path / "x.tar.gz", {"a": "1"})
    for number, changed in enumerate(({"mtime": 1}, {"mode": 0o600})):
        [fault] = differences(first, sdist(tmp_path / f"{number}.tar.gz", {"a": "1"}, **changed))
        assert fault.startswith("a: ")


def test_many_differences_are_cut_short(tmp_path: Path) -> None:
    names = {f"{number:02}": "" for number in range(30)}
    found = differences(wheel(tmp_path / "x.whl", names), wheel(tmp_path / "y.whl", names, 2025))
    assert len(found) == 11
    assert found[-1] == "… and 20 more files"


def test_a_copied_tree_keeps_what_git_keeps(tmp_path: Path) -> None:
    (tmp_path / "a/deep").mkdir(parents=True)
    (tmp_path / "a/deep/text").write_text("text")
    (tmp_path / "a/program").write_text("#!/bin/sh")
    (tmp_path / "a/program").chmod(0o700)
    (tmp_path / "a/link").symlink_to("program")
    copy(tmp_path / "a", tmp_path / "b", backwards=True)
    assert (tmp_path / "b/deep/text").read_text() == "text"
    assert (tmp_path / "b/program").stat().st_mode & 0o100
    assert (tmp_path / "b/link").readlink() == Path("program")


# -- SBOM --------------------------------------------------------------------------------------------


def component(name: str, version: str, digest: str) -> dict[str, Any]:
    return {"name": name, "version": version, "hashes": [{"alg": "SHA-256", "content": digest}]}


def locked() -> dict[str, Locked]:
    [entry] = parsed(f"pysocks==1.7.1 \\\n    --hash=sha256:{'0' * 64}\n    # via bearerd (pyproject.toml)\n")
    return {"pysocks": entry}


def sbom(*components: dict[str, Any], main: str = "bearerd") -> dict[str, Any]:
    return {"metadata": {"component": component(main, "0.1.0", "f" * 64)}, "components": [*components]}


def test_an_sbom_that_says_what_is_installed_and_locked_has_no_fault() -> None:
    listed = sbom(component("PySocks", "1.7.1", "0" * 64))
    assert against_environment(listed, {"bearerd": "0.1.0", "pysocks": "1.7.1"}, locked()) == []


@pytest.mark.parametrize(
    ("listed", "found", "fault"),
    [
        (sbom(component("PySocks", "1.7.0", "0" * 64)), {"pysocks": "1.7.1"}, "pysocks: listed 1.7.0, "),
        (sbom(component("PySocks", "1.7.0", "0" * 64)), {"pysocks": "1.7.0"}, "pysocks: listed 1.7.0, "),
        (sbom(), {"pysocks": "1.7.1"}, "pysocks: listed nowhere"),
        (sbom(component("PySocks", "1.7.1", "0" * 64)), {}, "pysocks: listed 1.7.1, installed nowhere"),
        (sbom(component("PySocks", "1.7.1", "1" * 64)), {"pysocks": "1.7.1"}, "pysocks: its hash is not in the lock"),
        (sbom({"name": "PySocks", "version": "1.7.1"}), {"pysocks": "1.7.1"}, "pysocks: no hash"),
        (
            sbom(component("PySocks", "1.7.1", "0" * 64)) | {"serialNumber": "urn:uuid:1"},
            {"pysocks": "1.7.1"},
            "it has",
        ),
    ],
    ids=["wrong version", "not the locked one", "not listed", "not installed", "wrong hash", "no hash", "random"],
)
def test_an_sbom_that_says_something_else_is_found(listed: dict[str, Any], found: dict[str, str], fault: str) -> None:
    [said] = against_environment(listed, {"bearerd": "0.1.0"} | found, locked())
    assert said.startswith(fault)


def test_an_sbom_of_something_else_is_found() -> None:
    listed = sbom(component("PySocks", "1.7.1", "0" * 64), main="other")
    faults = against_environment(listed, {"bearerd": "0.1.0", "pysocks": "1.7.1"}, locked())
    assert faults[0] == "the main component is other"


def test_a_changed_and_a_missing_file_of_a_wheel_are_found(tmp_path: Path) -> None:
    (tmp_path / "x-1.dist-info").mkdir()
    (tmp_path / "x.py").write_text("changed")
    record = "gone.py,,\nx.py,sha256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU,0\nx-1.dist-info/RECORD,,\n"
    (tmp_path / "x-1.dist-info/RECORD").write_text(record)
    assert against_records(tmp_path) == ["x-1.dist-info: gone.py is missing", "x-1.dist-info: x.py is another"]
