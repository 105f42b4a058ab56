"""The packages, looked through by lintian and rpmlint. Whatever they report is a fault, or has a reason in systemd/."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from booted.machine import ROOT

PROGRAMS = {"lintian": "lintian", "rpmlint": "rpmlint"}
_OVERRIDES = ROOT / "systemd/deb/lintian-overrides"
_SPEC = ROOT / "systemd/rpm/bearerd.spec"
_FILTERS = ROOT / "systemd/rpm/rpmlint.toml"


def lint(package: Path) -> str:
    """A cell of the table; AssertionError with what was reported."""
    argv: list[str | Path]
    if package.suffix == ".deb":
        argv = ["lintian", "--allow-root", "--display-info", "--fail-on=error,warning,info", package]
        reasons = len(re.findall(r"^bearerd: ", _OVERRIDES.read_text(), re.MULTILINE))
        clean = f"lintian: clean, {reasons} overrides"
    else:
        argv = ["rpmlint", "--strict", f"--config={_FILTERS}", package, _SPEC]
        reasons = len(re.findall(r'^  "', _FILTERS.read_text(), re.MULTILINE))
        clean = f"rpmlint: clean, {reasons} filters"
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert done.returncode == 0, f"{package.name}: {done.stdout}"
    return clean
