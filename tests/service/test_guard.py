"""What others of the same user, and a crash, get of the daemon's memory: nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from support.oidc import pem, private_key, self_signed
from support.process import WITHIN, command, eventually
from support.readers import open_directory, skip_where_others_cannot_run_python
from support.server import Answer, serving

# Not root: what root may look at no process can keep from it.
SOMEBODY = 65534 if os.geteuid() == 0 else os.geteuid()


@pytest.mark.parametrize("verb", ["run", "once"])
def test_neither_a_core_nor_the_environment_is_there_for_others_of_the_same_user(verb: str) -> None:
    skip_where_others_cannot_run_python()
    gate = threading.Event()

    def answer(_: object) -> Answer:
        gate.wait(WITHIN)
        return Answer(200, {"access_token": "t", "expires_in": 3600})

    with open_directory() as path, serving(answer) as server:
        config = path / "config.yaml"
        config.write_text(
            f"output: {{directory: {path}/tokens/here}}\nclients:\n  dnb:\n    token_url: {server.url}\n"
            "    allow_http: true\n    client_id: a\n    client_secret: {env: DNB_SECRET}\n    tokens: {bci: {}}\n"
        )
        (path / "tokens").mkdir()
        os.chown(path / "tokens", SOMEBODY, -1)
        process = subprocess.Popen(
            command(verb, "-c", config),
            env={**os.environ, "DNB_SECRET": "s3cr3t"},
            user=SOMEBODY,
            stderr=subprocess.PIPE,
        )
        try:
            eventually(lambda: server.seen)
            here = Path(f"/proc/{process.pid}")
            assert {(here / what).stat().st_uid for what in ("environ", "mem", "maps", "fd")} == {0}
            (limit,) = [line.split()[4:6] for line in (here / "limits").read_text().splitlines() if "core file" in line]
            assert limit == ["0", "0"]
        finally:
            gate.set()
            process.terminate()
            process.communicate(timeout=WITHIN)


GUARDED = """
import sys
from bearerd.grant.endpoint import set_up_fault
from bearerd.model import Provider
from bearerd.service.guard import guard
guard()
certificate, private_key = (open(path).read() for path in sys.argv[1:])
print(set_up_fault(Provider(name="p", token_url="https://localhost/"), certificate, private_key))
"""


def test_a_certificate_is_handed_to_openssl_all_the_same() -> None:
    skip_where_others_cannot_run_python()
    key = private_key("ES256")
    with open_directory() as path:
        files = [path / "certificate", path / "key"]
        for file, text in zip(files, (self_signed(key), pem(key)), strict=True):
            file.write_text(text)
        done = subprocess.run(
            [sys.executable, "-c", GUARDED, *map(str, files)],
            user=SOMEBODY,
            capture_output=True,
            text=True,
            check=False,
        )
    assert (done.stdout, done.stderr) == ("None\n", "")
