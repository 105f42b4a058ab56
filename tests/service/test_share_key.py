"""Daemons that share a client's tokens, as real processes with a real server: their key, and a share that changes."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from pathlib import Path

from support.process import eventually, running
from support.redis_server import NEEDS_REDIS, redis_server
from support.server import Answer, Seen, Server, issues, serving

SECRET = "a secret of the client"


class Machine:
    """The config and the files of one daemon."""

    def __init__(self, path: Path, provider: Server, key: str) -> None:
        self.path = path
        self.provider = provider
        path.mkdir()
        self.keep("secret", SECRET)
        self.keep("key", key)

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    def keep(self, name: str, text: str) -> Path:
        """A file as an operator puts it there, at once as a whole."""
        new = self.path / f"{name}.new"
        new.write_text(text)
        new.chmod(0o600)
        os.rename(new, self.path / name)
        return self.path / name

    def write(self, share: str) -> None:
        self.keep(
            "config.yaml",
            f"output: {{directory: {self.path}/run}}\n{share}\nclients:\n  dnb:\n    token_url: {self.provider.url}\n"
            f"    allow_http: true\n    client_id: a\n    client_secret: {{file: {self.path}/secret}}\n"
            "    tokens: {bci: {}}\n",
        )

    def share(self, url: str) -> str:
        return f"share: {{redis: {{url: {url}}}, key: {{file: {self.path}/key}}}}"

    @property
    def token(self) -> str:
        """What its file contains."""
        path = self.path / "run/dnb/bci"
        return path.read_text() if path.exists() else ""


@NEEDS_REDIS
def test_a_daemon_with_another_key_takes_the_tokens_of_the_fleet_once_its_key_is_corrected(tmp_path: Path) -> None:
    with serving(issues(3600)) as provider, redis_server() as server:
        first = Machine(tmp_path / "first", provider, "k" * 32)
        other = Machine(tmp_path / "other", provider, "o" * 32)
        for machine in (first, other):
            machine.write(machine.share(server.url))
        with running("run", "-c", first.config) as daemon:
            daemon.wait_for("dnb/bci")
            eventually(lambda: first.token == "t-1")
            with running("run", "-c", other.config):
                # It cannot open the token of the first one.
                eventually(lambda: other.token == "t-2")
                first.keep("key", "o" * 32)
                daemon.wait_for("share.key of client dnb changed")
                eventually(lambda: first.token == "t-2")
        assert len(provider.seen) == 2


@NEEDS_REDIS
def test_a_share_that_is_added_and_removed_needs_no_restart_and_no_token(tmp_path: Path) -> None:
    with serving(issues(3600)) as provider, redis_server() as server:
        first, other = (Machine(tmp_path / name, provider, "k" * 32) for name in ("first", "other"))
        first.write("")
        with running("run", "-c", first.config) as daemon:
            eventually(lambda: first.token == "t-1")
            first.write(first.share(server.url))
            daemon.wait_for("config reloaded: 1 token changed")
            eventually(lambda: server.ask("KEYS", "bearerd:token:*"))
            other.write(other.share(server.url))
            with running("run", "-c", other.config):
                eventually(lambda: other.token == "t-1")
            first.write("")
            daemon.wait_for("config reloaded: 1 token changed")
            eventually(lambda: not server.ask("PUBSUB", "CHANNELS"))
        assert (first.token, len(provider.seen)) == ("t-1", 1)


@NEEDS_REDIS
def test_a_secret_that_was_corrected_while_the_daemon_was_stopped_is_tried_at_once(tmp_path: Path) -> None:
    issue = issues(3600)

    def answer(seen: Seen) -> Answer:
        sent = base64.b64decode(seen.headers["authorization"].removeprefix("Basic "))
        return Answer(401, {"error": "invalid_client"}) if b"wrong" in sent else issue(seen)

    with serving(answer) as provider, redis_server() as server:
        first, other = (Machine(tmp_path / name, provider, "k" * 32) for name in ("first", "other"))
        for machine in (first, other):
            machine.write(machine.share(server.url))
            machine.keep("secret", "a wrong secret of the client")
        with running("run", "-c", first.config) as daemon:
            daemon.wait_for("invalid_client")
            with running("run", "-c", other.config) as waiting:
                waiting.wait_for("received by another daemon of the fleet")
        # It has the refused secret, so it waits.
        with running("run", "-c", other.config) as waiting:
            waiting.wait_for("received by another daemon of the fleet")
            assert not any("trying again" in line for line in waiting.lines)
            assert len(provider.seen) == 1
            first.keep("secret", SECRET)
            with running("run", "-c", first.config) as daemon:
                daemon.wait_for("the config or credentials of client dnb changed since it was refused; trying again")
                eventually(lambda: (first.token, other.token) == ("t-1", "t-1"))
        assert len(provider.seen) == 2


def test_without_a_share_a_daemon_loads_neither_redis_nor_cryptography(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from bearerd.config.load import load\n"
        "from bearerd.service.engine import Engine\n"
        "engine = Engine(load(sys.argv[1], {}), {})\n"
        "engine.start()\n"
        "engine.stop()\n"
        "print(*{'redis', 'cryptography'} & {*sys.modules})\n"
    )
    with serving(issues(3600)) as provider:
        machine = Machine(tmp_path / "first", provider, "")
        machine.write("")
        argv = [sys.executable, "-c", program, str(machine.config)]
        done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert done.stdout == "\n"
