"""The unit files. tests/booted runs them under a real systemd."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

UNITS = Path(__file__).parents[1] / "systemd"


def settings(unit: str) -> list[str]:
    return [line for line in (UNITS / unit).read_text().splitlines() if not line.startswith("#")]


def test_an_instance_is_the_service_with_a_config_and_directories_of_its_own() -> None:
    instance = [
        line.replace(" (%i)", "").replace("/%i.yaml", "/config.yaml").replace("bearerd-%i", "bearerd")
        for line in settings("bearerd@.service")
    ]
    assert instance == settings("bearerd.service")
    assert sum("%i" in line for line in settings("bearerd@.service")) == 5


def test_a_config_that_takes_too_much_memory_ends_only_its_reader() -> None:
    # By default (stop), systemd stops a unit if the kernel kills any of its processes for lack of memory.
    assert "OOMPolicy=continue" in settings("bearerd.service")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
@pytest.mark.parametrize("unit", ["bearerd.service", "bearerd@.service", "user/bearerd.service"])
def test_systemd_has_nothing_to_say_about_a_unit(unit: str, tmp_path: Path) -> None:
    program = tmp_path / ".local/share/bearerd/bin/bearerd"
    program.parent.mkdir(parents=True)
    shutil.copy("/bin/true", program)
    copy = tmp_path / Path(unit).name.replace("@", "@billing")
    copy.write_text((UNITS / unit).read_text().replace("/opt/bearerd/bin/bearerd", str(program)))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *(["--user"] if "user" in unit else []), copy],
        env={**os.environ, "HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_the_user_unit_names_no_user_and_no_state_directory() -> None:
    # Before systemd 254, StateDirectory= of a user manager would be below the config's directory.
    found = {line.partition("=")[0] for line in settings("user/bearerd.service")}
    assert found.isdisjoint({"User", "Group", "StateDirectory", "ProtectSystem"})
    shared = {"Type=notify", "WatchdogSec=60s", "RestartPreventExitStatus=78", "OOMPolicy=continue", "LimitCORE=0"}
    assert shared <= {*settings("user/bearerd.service")} & {*settings("bearerd.service")}
