"""Files that an `include` pattern matches by accident: nothing of their text is shown anywhere."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from bearerd.cli.ask import ask
from support.api import Site
from support.process import bearerd, patched, running
from support.server import Server, issues, serving

CANARY = "hunter2canary"
FOREIGN = {
    "env file": f"DB_URL=postgres://user:{CANARY}@db/x\nAPI={CANARY}\n",
    "one line": CANARY,
    "env file with colons": f"DB_URL: postgres://user:{CANARY}@db/x\nPIN: 0123{CANARY}\nflag: no\n",
    "private key": f"-----BEGIN PRIVATE KEY-----\n{CANARY}\n-----END PRIVATE KEY-----\n",
    "INI file": f"[database]\nuser = me\nsecret_of_it = {CANARY}\n",
    "JSON": json.dumps({"user": "me", "value": CANARY, "list": [CANARY, 1], "n": {"a": f"0{CANARY}"}}),
    "JSON, cut off": '{"user": "me", "value": "' + CANARY,
    "YAML of passwords": f"databases:\n  main: {{login: me, pin: {CANARY}, port: 0123}}\n  - {CANARY}: x\n",
    "YAML with traps": f"a: 0777 # {CANARY}\nb: !tag {CANARY}\nc: &x {CANARY}\nd: *x\ne: no\n",
    "a config of another": f"clients:\n  {CANARY}@host: {{x: y}}\n  db: {{uri: 'x://{CANARY}', token_url: 5}}\n",
    "a list": f"- {CANARY}\n- {{db: {CANARY}}}\n- {CANARY}: no\n",
    "passwords as keys": f"users: {{{CANARY}: {{{CANARY}: 1, {CANARY}: 2}}, 0777: x}}\n",
    "tabs": f"key:\n\tvalue: {CANARY}\n",
    "quotes": f'a: "{CANARY}\nb: {CANARY}\n',
    "binary": f"\x00\x01{CANARY}",
}


@pytest.fixture
def server() -> Iterator[Server]:
    with serving(issues()) as started:
        yield started


@pytest.mark.parametrize("content", FOREIGN.values(), ids=list(FOREIGN))
def test_check_shows_nothing_of_it(tmp_path: Path, content: str) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("include: [conf.d/*]\n")
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d/x").write_bytes(content.encode("latin-1"))
    # `once` prints what `run` does.
    for verb in ("check", "run"):
        done = bearerd(verb, "-c", config)
        assert done.returncode == 78
        assert f"{tmp_path}/conf.d/x:" in done.stderr
        assert CANARY not in done.stdout + done.stderr


def test_a_running_daemon_shows_nothing_of_it_anywhere(tmp_path: Path, server: Server) -> None:
    site = Site(tmp_path, server.url, top="include: [conf.d/*]")
    foreign = tmp_path / "conf.d/x"
    foreign.parent.mkdir()
    # The daemon reads the config when nothing has changed for a while. Here each change is one step.
    env = patched(tmp_path, {"bearerd.service.run._SETTLES": 0.05})
    with running("run", "-c", site.config, env=env) as daemon:
        site.wait_for(bci="valid")
        for content in FOREIGN.values():
            (tmp_path / "x").write_bytes(content.encode("latin-1"))
            (tmp_path / "x").rename(foreign)
            assert f"{foreign}:" in daemon.wait_for("stays in use")
            for route in ("/status", "/", "/metrics", "/readyz"):
                assert CANARY.encode() not in ask(str(site.socket), route)[1]
            foreign.unlink()
            daemon.wait_for("config reloaded")
        assert daemon.stop() == 0
        assert CANARY not in "\n".join(daemon.lines)
