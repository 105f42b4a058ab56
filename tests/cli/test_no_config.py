"""A config that is missing or cannot be read: the paths that were looked at, and what to do."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from bearerd.cli.no_config import no_config
from bearerd.config.load import load
from bearerd.errors import ConfigError
from support.process import command
from support.readers import ROOT, open_directory, skip_where_others_cannot_run_python

STEPS = """
  bearerd init    write one for your provider
  bearerd demo    try bearerd without one
  -c FILE         use another; $BEARERD_CONFIG may name it too"""


def said(path: Path | str, environ: dict[str, str] | None = None) -> str | None:
    with pytest.raises(ConfigError) as raised:
        load(str(path), {})
    return no_config(raised.value, str(path), environ or {})


def test_a_named_config_that_does_not_exist(tmp_path: Path) -> None:
    path = tmp_path / "none.yaml"
    assert said(path) == f"bearerd: the config {path} does not exist{STEPS}"
    assert said(path, {"BEARERD_CONFIG": str(path)}) == (
        f"bearerd: the config {path}, which $BEARERD_CONFIG names, does not exist{STEPS}"
    )


def test_without_any_config_the_paths_that_were_looked_at_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, system = f"{tmp_path}/bearerd/config.yaml", f"{tmp_path}/etc/config.yaml"
    monkeypatch.setattr("bearerd.config.defaults.SYSTEM_CONFIG", system)
    assert said(system) == f"bearerd: there is no config: {system} does not exist{STEPS}"
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    assert said(system, {"XDG_CONFIG_HOME": str(tmp_path)}) == (
        f"bearerd: there is no config: neither {mine} nor {system} exists{STEPS}"
    )


def test_a_dangling_symlink(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.symlink_to("gone.yaml")
    assert said(path) == f"bearerd: the config {path} is a symlink to gone.yaml, which does not exist{STEPS}"


def test_a_directory_and_a_fifo(tmp_path: Path) -> None:
    assert said(tmp_path) == (
        f"bearerd: the config {tmp_path} is a directory: name the file, such as {tmp_path}/config.yaml"
    )
    os.mkfifo(tmp_path / "fifo")
    assert said(tmp_path / "fifo") == (
        f"bearerd: the config {tmp_path}/fifo cannot be read: it is a FIFO, not a regular file"
    )


def test_a_config_that_was_read_and_is_wrong_is_another_error(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("include: [gone.yaml]\nclients: {}\n")
    assert said(path) is None


@ROOT
@pytest.mark.parametrize("closed", ["the file", "its directory"])
def test_a_config_of_another_user(closed: str) -> None:
    skip_where_others_cannot_run_python()
    with open_directory() as directory:
        path = directory / "conf" / "config.yaml"
        path.parent.mkdir()
        path.write_text("")
        os.chown(path.parent if closed != "the file" else path, 0, 4711)
        (path if closed == "the file" else path.parent).chmod(0o640 if closed == "the file" else 0o750)
        done = subprocess.run(
            command("check", "-c", path), user=65534, group=65534, extra_groups=[], capture_output=True, text=True,
            check=False,
        )  # fmt: skip
    culprit = path if closed == "the file" else path.parent
    assert (done.returncode, done.stdout) == (78, "")
    assert done.stderr.startswith(
        f"bearerd: the config {path} cannot be read: {culprit} is for root and the group 4711 only; as root, run "
        "usermod --append --groups 4711 nobody, then log in again"
    )
