from __future__ import annotations

import grp
import os
from pathlib import Path

import pytest

from bearerd.service.trust import writable_by_others
from support.api import Site
from support.process import bearerd, running
from support.server import issues, serving


@pytest.mark.parametrize(
    ("mode", "who"),
    [
        (0o600, None),
        (0o644, None),
        (0o640, None),
        (0o664, f"the group {grp.getgrgid(os.getegid()).gr_name}"),
        (0o620, f"the group {grp.getgrgid(os.getegid()).gr_name}"),
        (0o666, "any user"),
        (0o602, "any user"),
    ],
)
def test_a_file_that_others_can_write_is_found_with_the_reason(tmp_path: Path, mode: int, who: str | None) -> None:
    file = tmp_path / "config.yaml"
    file.touch()
    file.chmod(mode)
    found = writable_by_others([str(file), str(tmp_path / "none.yaml")])
    assert list(found) == ([str(file)] if who else [])
    if who:
        assert found[str(file)].startswith(f"{who} can write it (mode {mode:04o})")


def test_the_daemon_and_check_warn_of_a_config_that_others_can_write(tmp_path: Path) -> None:
    with serving(issues()) as server:
        site = Site(tmp_path, server.url, top="include: [conf.d/*]")
        (tmp_path / "conf.d").mkdir()
        (tmp_path / "conf.d").chmod(0o777)
        site.config.chmod(0o666)
        done = bearerd("check", "-c", site.config)
        assert f"warning  config {site.config}: any user can write it (mode 0666)" in done.stdout
        assert f"warning  config {tmp_path}/conf.d: any user can write it (mode 0777)" in done.stdout
        assert done.returncode == 0
        with running("run", "-c", site.config) as daemon:
            site.wait_for(bci="valid")
            daemon.stop()
        warned = [line for line in daemon.lines if "WARNING" in line and "any user can write it" in line]
        assert len(warned) == 2
