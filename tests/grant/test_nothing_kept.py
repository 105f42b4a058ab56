"""When a grant is over no object of the process leads to the secret any more."""

from __future__ import annotations

import base64
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

from bearerd.grant.outcome import Issued, Performed
from bearerd.grant.perform import Grants
from bearerd.model import ProxyLogin
from bearerd.terms import Auth, Reference
from support.clock import FakeClock
from support.memory import kept
from support.oidc import pem, private_key
from support.process import WITHIN
from support.targets import CLIENT, PROVIDER, target

# A server in a separate process, so that its objects are not found here.
SERVER = """
import http.server, sys
class Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        body = sys.argv[2].encode()
        self.send_response(int(sys.argv[1]))
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
print(server.server_port, flush=True)
server.serve_forever()
"""


@contextmanager
def answering(status: int, body: str) -> Iterator[str]:
    process = subprocess.Popen([sys.executable, "-c", SERVER, str(status), body], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}/"
    finally:
        process.terminate()
        process.communicate(timeout=WITHIN)


GOOD = '{"access_token": "t", "expires_in": 3600}'
# Bytes of the secret. Twice as many hex digits are enough for HS256, and are in no other text by chance.
LENGTH = 40


OUTCOMES = {
    "a token": (200, GOOD),
    "refused": (401, '{"error": "invalid_client"}'),
    "malformed": (200, "<html>"),
    "transient": (503, ""),
    "no answer": (0, ""),
}


CASES: list[tuple[Auth, str]] = [
    ("client_secret_basic", ""),
    ("client_secret_post", ""),
    ("client_secret_jwt", ""),
    ("private_key_jwt", ""),
    ("client_secret_basic", "header"),
    ("client_secret_basic", "proxy"),
]
"""How the client authenticates, and where else its secret is used."""


def test_a_grant_leaves_nothing_of_the_secrets_behind(tmp_path: Path) -> None:
    # A search through all objects takes a second, so there is one for all grants. No result is deleted before it.
    grants, parts = [], []
    for auth, place in CASES:
        for status, body in OUTCOMES.values():
            performed, of_the_secret = grant(tmp_path, auth, status, body, place)
            grants.append(performed)
            parts += of_the_secret
    left = kept(parts)
    issued = [isinstance(performed.outcome, Issued) for _, performed in grants]
    assert issued == [True, False, False, False, False] * len(CASES)
    assert left == []


def grant(path: Path, auth: Auth, status: int, body: str, place: str) -> tuple[tuple[Grants, Performed], list[str]]:
    """A grant with a new secret; what performed it with its result, and parts of the secret."""
    file = path / "secret"
    text = pem(private_key("ES256")) if auth == "private_key_jwt" else secrets.token_hex(LENGTH)
    file.write_text(text)
    file.chmod(0o600)
    # Parts of the secret as it is and as Basic encodes it. The whole is not kept.
    parts = [text[-50:-20], base64.b64encode(f"{CLIENT.client_id}:{text}".encode()).decode()[-40:-10]]
    by_key = auth == "private_key_jwt"
    reference = Reference("file", str(file))
    client = replace(
        CLIENT, auth=auth, client_secret=() if by_key else (reference,), private_key=reference if by_key else None
    )
    with answering(status, body) if status else nullcontext("http://127.0.0.1:9/") as url:
        provider = replace(PROVIDER, token_url=url, timeout=WITHIN)
        if place == "header":
            client = replace(client, headers=(("X-Api-Key", reference),))
        elif place == "proxy":
            # The proxy, which answers itself.
            login = ProxyLogin(CLIENT.client_id, reference) if isinstance(CLIENT.client_id, str) else None
            provider = replace(provider, token_url="http://token.invalid/", proxy=url, proxy_login=login)
        client = replace(client, provider=provider)
        grants = Grants(FakeClock(), {})
        return (grants, grants.perform(target(client=client))), parts
