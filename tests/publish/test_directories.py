from __future__ import annotations

import errno
import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bearerd.model import Config, Output
from bearerd.publish.directories import exposed, mounted
from support.process import command
from support.readers import ROOT, open_directory, skip_where_others_cannot_run_python
from support.targets import TARGET


def config_of(directory: Path, *outputs: Output, **changes: Any) -> Config:
    """A config with one target and these outputs."""
    config = Config(str(directory), str(directory / "state"), targets=(replace(TARGET, outputs=outputs),))
    return replace(config, **changes)


# -- mount points ----------------------------------------------------------------------------------


@ROOT
@pytest.mark.parametrize("name", ["t", "a blank, a tab\t, a \\ and é"])
def test_a_file_that_is_a_mount_point_is_found_through_a_symlink(tmp_path: Path, name: str) -> None:
    real = tmp_path / "real"
    real.mkdir()
    (tmp_path / "link").symlink_to("real")
    (real / name).touch()
    (real / "other").touch()
    paths = [str(tmp_path / directory / file) for directory in ("real", "link") for file in (name, "other")]
    assert mounted(paths) == {}
    subprocess.run(["mount", "--bind", real / "other", real / name], check=True)
    try:
        found = mounted(paths)
    finally:
        subprocess.run(["umount", real / name], check=True)
    assert list(found) == [str(tmp_path / directory / name) for directory in ("real", "link")]
    assert all(path in fault and "mount its directory instead" in fault for path, fault in found.items())


@ROOT
def test_a_mounted_directory_is_fine(tmp_path: Path) -> None:
    subprocess.run(["mount", "--bind", tmp_path, tmp_path], check=True)
    try:
        assert mounted([str(tmp_path), str(tmp_path / "t")]) == {}
    finally:
        subprocess.run(["umount", tmp_path], check=True)


# -- other users -----------------------------------------------------------------------------------


def test_each_directory_that_others_can_write_is_reported_once(tmp_path: Path) -> None:
    root, elsewhere = tmp_path / "tokens", tmp_path / "elsewhere"
    (root / "a" / "b").mkdir(parents=True)
    elsewhere.mkdir()
    config = config_of(
        root,
        Output(f"{root}/a/b/one"),
        Output(f"{root}/a/b/two"),
        Output(f"{root}/c/three"),
        Output(f"{elsewhere}/four"),
    )
    assert exposed(config) == {}
    for path in (root, root / "a", root / "a" / "b", elsewhere):
        path.chmod(0o777)
        (found,) = exposed(config).items()
        assert found[0] == str(path)
        assert found[1].startswith("others can write there (mode 0777): any user can remove or replace the token files")
        assert (
            f"chmod o-w {path}. A Kubernetes emptyDir is always 0777, which is fine if only the containers" in found[1]
        )
        path.chmod(0o775)
        assert exposed(config) == {}


@pytest.mark.parametrize("below", ["", "dnb", "dnb/deeper"])
def test_a_sticky_directory_is_reported_with_the_consequence(tmp_path: Path, below: str) -> None:
    root = tmp_path / "tokens"
    (root / below).mkdir(parents=True)
    (root / below).chmod(0o1777)
    (found,) = exposed(config_of(root, Output(f"{root}/dnb/deeper/t"))).values()
    assert "mode 1777" in found
    assert "bearerd's own files are safe" in found
    assert "chmod" not in found


def test_above_the_files_only_sticky_directories_may_be_writable_by_all(tmp_path: Path) -> None:
    above, root = tmp_path / "above", tmp_path / "above" / "tokens"
    root.mkdir(parents=True)
    (tmp_path / "link").symlink_to("above")
    for path in (root, tmp_path / "link" / "tokens"):
        config = config_of(path, Output(f"{path}/t"))
        above.chmod(0o1777)
        assert exposed(config) == {}
        above.chmod(0o777)
        assert list(exposed(config)) == [str(above)]


def test_a_file_or_device_in_place_of_the_directory_is_not_reported_for_its_mode(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    file.chmod(0o666)
    for path in (file, Path("/dev/null")):
        assert exposed(config_of(path, Output(f"{path}/t"))) == {}


def test_a_directory_mode_that_lets_others_write_is_reported_with_its_key(tmp_path: Path) -> None:
    root = tmp_path / "tokens"
    config = config_of(root, Output(f"{root}/dnb/t"), directory_mode=0o777)
    found = exposed(config)
    assert list(found) == [str(root), f"{root}/dnb"]
    assert all("remove that permission from output.directory_mode" in meaning for meaning in found.values())
    assert exposed(replace(config, directory_mode=0o775)) == {}


def test_a_path_that_another_user_changes_during_the_look_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def swapped(_: str) -> str:  # what readlink says of a symlink that has just become a directory
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    (tmp_path / "link").symlink_to(tmp_path)
    monkeypatch.setattr("posixpath.os.readlink", swapped)
    assert exposed(config_of(tmp_path / "tokens", Output(f"{tmp_path}/link/bci"))) == {}
    assert mounted([f"{tmp_path}/link/bci"]) == {}


# -- not permitted ----------------------------------------------------------------------------------


@ROOT
def test_a_user_who_may_not_write_is_told_which_key_to_set() -> None:
    skip_where_others_cannot_run_python()
    with open_directory() as directory:
        (directory / "there").mkdir(mode=0o755)
        config = directory / "config.yaml"
        for name, fault in (
            ("there", f"{directory}/there: user nobody is not allowed to write there"),
            ("there/new", f"{directory}/there/new does not exist, and user nobody is not allowed to create it"),
        ):
            config.write_text(
                f"output: {{directory: {directory}/{name}}}\n"
                "clients: {a: {token_url: 'https://x.example/', client_id: a, auth: none, tokens: {t: {}}}}\n"
            )
            done = _as_nobody("check", "-c", config)
            assert done.returncode == 1
            # One failure: the state directory and the token's file are below it.
            said = f"failed   directory {directory}/{name}: {fault}; set output.directory to a directory"
            assert next(line for line in done.stdout.splitlines() if line.startswith("failed")).startswith(said)
            assert "\n1 failed, " in done.stdout
            for verb in ("run", "once"):
                done = _as_nobody(verb, "-c", config)
                assert done.returncode == 1
                last = done.stderr.splitlines()[-1]
                assert "user nobody is not allowed to write there; set output.directory to a directory of this" in last


@ROOT
def test_a_user_who_may_not_write_to_the_state_directory_is_told_which_key_to_set() -> None:
    skip_where_others_cannot_run_python()
    with open_directory() as directory:
        (directory / "tokens").mkdir()
        os.chown(directory / "tokens", 65534, 65534)
        (directory / "state").mkdir(mode=0o755)
        config = directory / "config.yaml"
        config.write_text(
            f"output: {{directory: {directory}/tokens}}\nstate_directory: {directory}/state\n"
            "clients: {a: {token_url: 'https://x.example/', client_id: a, auth: none, tokens: {t: {}}}}\n"
        )
        done = _as_nobody("check", "-c", config)
        assert done.returncode == 1
        assert "; set state_directory to a directory of this user\n" in done.stdout
        assert "\n1 failed, " in done.stdout


def _as_nobody(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), user=65534, group=65534, extra_groups=[], capture_output=True, text=True, check=False
    )
