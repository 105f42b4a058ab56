"""bearerd as a process, its config and a real authorization server: npm's `oidc-provider`."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from support.oidc import Request, client, oidc_provider, pem, private_key, why_not
from support.process import bearerd

WHY_NOT = why_not()
pytestmark = pytest.mark.skipif(WHY_NOT is not None, reason=WHY_NOT or "")

CONFIG = """\
output: {{directory: {directory}/tokens}}
state_directory: {directory}/state
providers:
  sso: {{issuer: "{issuer}", ca_file: {ca_file}}}
clients:
  signed:
    provider: sso
    client_id: by-key
    auth: private_key_jwt
    private_key: {{file: {directory}/key.pem}}
    tokens:
      api: {{scope: alpha, files: [{{format: raw}}, {{format: json}}]}}
  listed:
    provider: sso
    client_id: by-secret
    client_secret: [{{file: {directory}/secret.new}}, {{file: {directory}/secret.old}}]
    tokens:
      api: {{scope: beta}}
"""


def credentials(request: Request) -> str:
    """The client of a request, and its secret."""
    return base64.b64decode(request.headers["authorization"].removeprefix("Basic ")).decode()


def test_token_files_hold_what_the_server_issued_and_the_next_run_knows_which_secret_works(tmp_path: Path) -> None:
    key = pem(private_key("ES256"))
    for name, text in (("key.pem", key), ("secret.new", "not-yet"), ("secret.old", "s3cr3t")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o600)
    clients = (client("by-key", "private_key_jwt", keys=[{"pem": key}]), client("by-secret", client_secret="s3cr3t"))
    with oidc_provider(*clients, lifetime=600, scopes=["alpha", "beta"]) as server:
        config = tmp_path / "config.yaml"
        config.write_text(CONFIG.format(directory=tmp_path, issuer=server.https_issuer, ca_file=server.ca_file))
        runs = []
        for arguments in ((), ("--min-valid", "11m")):  # longer than they live: all are asked for again
            done = bearerd("once", "-c", config, *arguments)
            assert done.returncode == 0, done.stderr
            runs.append(server.seen())
            issued = [request for request in runs[-1] if request.status == 200 and request.path == "/token"]
            by_scope = {request.form["scope"][0]: request.answer["access_token"] for request in issued}
            assert len(issued) == 2
            assert (tmp_path / "tokens/signed/api").read_text() == by_scope["alpha"]
            assert (tmp_path / "tokens/listed/api").read_text() == by_scope["beta"]
            document = json.loads((tmp_path / "tokens/signed/api.json").read_text())
            assert (document["access_token"], document["expires_in"]) == (by_scope["alpha"], 600)

        assert [sum(request.method == "GET" for request in run) for run in runs] == [1, 1]
        tried = [[credentials(request) for request in run if "authorization" in request.headers] for run in runs]
        assert tried == [["by-secret:not-yet", "by-secret:s3cr3t"], ["by-secret:s3cr3t"]]
