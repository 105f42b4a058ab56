"""The next steps after `bearerd init`, as commands for a shell."""

from __future__ import annotations

import grp
import os
import pwd
import shlex
import shutil
import subprocess
import sys

from bearerd.cli.questions import agreed
from bearerd.config.defaults import SYSTEM_CONFIG
from bearerd.config.here import default_config
from bearerd.model import Config


def next_steps(config: Config, path: str) -> list[str]:
    """Three commands: check the config, start the daemon, see a token."""
    program = _program()
    service = _service()
    if path == SYSTEM_CONFIG and service:
        # The installed service; the check runs as its user, because only that one can read the secret.
        return [f"{service} {program} check --online", "systemctl enable --now bearerd", f"{program} status"]
    named = "" if default_config(os.environ) == path else f" -c {shlex.quote(path)}"
    token = shlex.quote(config.targets[0].outputs[0].path)
    return [f"{program} check --online{named}", f"{program} run{named}", f"cat {token}    # in another terminal"]


def offer_check(command: str) -> None:
    """Ask whether to run the first step now, and run it."""
    try:
        if agreed("\nRun the first one now? It requests a token, and discards it."):
            subprocess.run(shlex.split(command), check=False)
    except (EOFError, KeyboardInterrupt):
        print()


def _program() -> str:
    """How this program was started, for a shell."""
    started = sys.argv[0]
    if os.path.basename(started) != "bearerd":
        return f"{shlex.quote(sys.executable)} -m bearerd"
    found = shutil.which("bearerd")
    if found and os.path.exists(started) and os.path.samefile(found, started):
        return "bearerd"
    return shlex.quote(os.path.abspath(started))


def _service() -> str:
    """A command prefix that runs a program as the user of the installed service; empty if there is none."""
    try:
        pwd.getpwnam("bearerd")
    except KeyError:
        return ""
    try:
        grp.getgrnam("bearerd-readers")
    except KeyError:
        return "runuser -u bearerd --"
    return "runuser -u bearerd -g bearerd-readers --"
