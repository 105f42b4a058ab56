"""docs/first-token.md, run as an unprivileged user; tests/booted also installs by it, and starts its service."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.authlib_server import SECRETS, authorization_server
from support.pages import blocks
from support.process import WITHIN
from support.readers import ROOT, open_directory, skip_where_others_cannot_run_python
from support.server import Answer, serving

PAGE = Path(__file__).parents[1] / "docs" / "first-token.md"
TOKEN_URL = "https://login.example.com/oauth/token"
API = "https://api.example.com/"
USER = 65534


def commands(*headings: str) -> str:
    """The commands of the page below these headings."""
    found = [block for block in blocks(PAGE) if block.language == "sh" and block.heading in headings]
    assert {block.heading for block in found} == set(headings)
    return "".join(block.text for block in found)


@ROOT
@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
@pytest.mark.parametrize("logged_in", [True, False], ids=["after a login", "without XDG_RUNTIME_DIR"])
def test_an_ordinary_user_gets_a_token_by_the_page(logged_in: bool) -> None:
    skip_where_others_cannot_run_python()
    with open_directory() as directory, authorization_server() as token_url, serving(lambda _: Answer()) as api:
        program = directory / "bin" / "bearerd"
        program.parent.mkdir()
        program.write_text(f"#!{sys.executable}\nimport sys\nfrom bearerd.cli import main\nsys.exit(main())\n")
        program.chmod(0o755)
        home, runtime = directory / "home", directory / "runtime"
        for path in (home, runtime):
            path.mkdir(mode=0o700)
            os.chown(path, USER, USER)
        script = commands("Write the config", "Check it", "Run it", "Use the token")
        assert TOKEN_URL in script
        assert API in script
        # The client that the server knows, the server itself, and the API.
        script = script.replace(TOKEN_URL, token_url).replace("client_id=reports", "client_id=percent")
        script = script.replace(API, api.url)
        tokens = f"{runtime}/bearerd"
        if not logged_in:
            tokens = f"{home}/.local/state/bearerd/tokens"
            script = script.replace("$XDG_RUNTIME_DIR/bearerd", tokens)
        environ = {"HOME": str(home), "PATH": f"{program.parent}:{os.environ['PATH']}", "LANG": "C.UTF-8"}
        environ |= {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}
        environ |= {"XDG_RUNTIME_DIR": str(runtime)} if logged_in else {}
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", f"trap 'kill %1' EXIT\n{script}"],
            input=f"{SECRETS['percent']}\n", env=environ, cwd=home, user=USER, group=USER, extra_groups=[],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=4 * WITHIN, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout
        assert f"wrote {home}/.config/bearerd/config.yaml\n" in done.stdout
        assert f"wrote {home}/.config/bearerd/acme.secret, which only this user can read\n" in done.stdout
        assert "ok       grant acme/api: a token" in done.stdout
        assert "\nready\n" in done.stdout
        token = Path(tokens, "acme", "api").read_text()
        assert token in done.stdout
        assert [seen.headers["authorization"] for seen in api.seen] == [f"Bearer {token}"]
        assert "acme/api" in done.stdout.rpartition(token)[2]  # status
        assert SECRETS["percent"] not in done.stdout
        modes = {path.name: path.stat().st_mode & 0o777 for path in (home / ".config" / "bearerd").iterdir()}
        assert modes == {"config.yaml": 0o644, "acme.secret": 0o600}
        kept = f"{home}/.local/state/bearerd" if logged_in else f"{tokens}/.bearerd"
        assert Path(kept, "key").stat().st_uid == USER
