"""Configs that are half written while the daemon runs."""

from __future__ import annotations

import signal
from pathlib import Path

from faults.judge import Row
from faults.place import Place, Rig, kept, place
from support.process import Daemon, eventually


def configs(rig: Rig, path: Path) -> list[Row]:
    """Cut at each byte and loaded by SIGHUP; and written byte by byte under a daemon that watches it."""
    cut = Row("a config that is cut after each byte, and SIGHUP")
    with place(path / "cut", top="reload: signal, ") as here, kept(here, cut) as daemon:
        whole = here.config.read_bytes()
        # The last two bytes are the closing brace, without which it is an error, and a line feed.
        for length in range(0, len(whole) - 1, 16 if rig.short else 1):
            here.config.write_bytes(whole[:length])
            daemon.process.send_signal(signal.SIGHUP)
            _stays(here, cut, daemon, f"cut after {length} bytes")
        here.config.write_bytes(whole)
        daemon.process.send_signal(signal.SIGHUP)
        daemon.wait_for("config reloaded")
        cut.expect(here.config_error() is None, f"an error remains: {here.config_error()}")
    slow = Row("a config that is written slowly, and watched")
    with place(path / "slow") as here, kept(here, slow) as daemon:
        whole = here.config.read_bytes()
        for part in (whole[: len(whole) // 3], whole[: len(whole) // 2], b""):
            with here.config.open("wb", buffering=0) as file:
                file.write(part)
                _stays(here, slow, daemon, f"{len(part)} bytes")
                file.write(whole[len(part) :])
            daemon.wait_for("config reloaded")
            eventually(lambda: here.config_error() is None)
    return [cut, slow]


def _stays(here: Place, row: Row, daemon: Daemon, where: str) -> None:
    """The daemon reports the error, and keeps its config and token."""
    daemon.wait_for("the current config stays in use")
    row.ran()
    error, status = here.config_error(), here.status()
    row.expect(error, f"{where}: no error in the status")
    row.output(f"{error} {status}", where)
    row.expect(status.get("name") == "dnb/bci" and status.get("state") == "valid", f"{where}: {status}")
    row.expect(here.fresh(), f"{where}: the files changed")
