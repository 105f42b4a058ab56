"""An ordinary user, who installs bearerd by docs/first-token.md, and then runs it under their user manager."""

from __future__ import annotations

import shlex
import time

from booted.machine import CHECKOUT, ROOT, Machine
from support.pages import blocks
from support.process import eventually
from support.provider import Provider
from support.server import Answer, Seen, serving

PAGE = ROOT / "docs" / "first-token.md"
_USER = "alice"
_TOKEN_URL = "https://login.example.com/oauth/token"
_API = "https://api.example.com/"
_REMOVAL = "Upgrade and removal"


def ordinary_user(here: Machine) -> None:
    """The page from its beginning, and what happens to the service."""
    here.run("useradd", "--create-home", "--shell", "/bin/bash", _USER)
    uid = here.run("id", "--user", _USER)
    # The page's last command; here only root may. Just after a boot, logind may not answer yet.
    eventually(lambda: here.code("loginctl", "enable-linger", _USER) == 0)
    eventually(lambda: here.path(f"/run/user/{uid}/systemd/private").exists())
    home, token = f"/home/{_USER}", here.path(f"/run/user/{uid}/bearerd/acme/api")

    def run(script: str, given: str = "") -> str:
        """Commands as the user types them after a login."""
        typed = f"set -euo pipefail\nexport XDG_RUNTIME_DIR=/run/user/{uid}\ncd {CHECKOUT}\n{script}"
        return here.run("runuser", "--login", _USER, "--command", f"bash -c {shlex.quote(typed)}", given=given)

    with serving(provider := Provider()) as server, serving(_api) as api:
        began = time.monotonic()
        commands = [block for block in blocks(PAGE) if block.language == "sh" and "enable-linger" not in block.text]
        script = "".join(block.text for block in commands if block.heading != _REMOVAL)
        script = script.replace(_TOKEN_URL, server.url).replace(_API, api.url)
        script = script.replace("client_id=reports", "client_id=7e0c5a")
        waits = "bearerd health --wait 30s\n"
        said = run(script.replace(waits, f"{waits}echo ready after $SECONDS s\n"), "first\n")
        [ready] = [line for line in said.splitlines() if line.startswith("ready after")]
        took = time.monotonic() - began
        here.say(f"first token  by the page's commands as {_USER}: {ready}; all of the page in {took:.0f} s")
        assert "Active: active (running)" in said, said
        assert provider.grants == 2, "one for check --online, one for the file, and none for the service"
        assert api.seen[0].headers["authorization"] == f"Bearer {token.read_text()}"
        assert here.path(f"{home}/.local/state/bearerd/key").exists()
        for path in (f"/run/user/{uid}/bearerd", f"{home}/.config/bearerd"):
            assert here.run("stat", "--format=%U %a", path) == f"{_USER} 700"

        before = run("systemctl --user show --value --property=NRestarts bearerd")
        run("systemctl --user kill --kill-whom=main --signal=KILL bearerd")
        eventually(lambda: run("systemctl --user show --value --property=NRestarts bearerd") != before)
        eventually(lambda: run("systemctl --user is-active bearerd || true") == "active")
        run("systemctl --user reload bearerd")
        assert "1 of 1 tokens are valid" in run("systemctl --user show --value --property=StatusText bearerd")
        run("bearerd refresh")
        assert provider.grants == 3
        run("".join(block.text for block in commands if block.heading == _REMOVAL))
        assert here.sh(f"find {home} /run/user/{uid} -name '*bearerd*'") == ""
    here.run("loginctl", "disable-linger", _USER)
    here.run("systemctl", "stop", f"user@{uid}.service")
    here.run("userdel", "--remove", _USER)
    here.say(
        "user unit    active, started again after kill -9 without a grant, reloaded, refreshed; removal leaves nothing"
    )


def _api(_: Seen) -> Answer:
    return Answer(200, b"ok\n")
