"""A real authorization server on Node.js, npm's @node-oauth/express-oauth-server, judges our ways of authenticating.

It does not decode HTTP Basic at all, so `raw` is right for it. It refuses a client with 401 if that came by Basic, and
with 400 if it came in the form.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bearerd.grant.outcome import Issued, Refused
from bearerd.model import Provider
from bearerd.terms import Auth, BasicEncoding
from support.api import Site
from support.oidc import modules, node, why_not
from support.process import WITHIN, eventually, running
from support.servers import SCRIPTS, SECRETS, TAKEN_WITHOUT_DECODING, check_accepted, granted, port_of

WHY_NOT = why_not("@node-oauth/express-oauth-server")
pytestmark = pytest.mark.skipif(WHY_NOT is not None, reason=WHY_NOT or "")


def serving(lifetime: int) -> Iterator[str]:
    options = {"modules": str(modules().resolve()), "scopes": ["bci", "risk"], "lifetime": lifetime}
    with port_of([node() or "", SCRIPTS / "express_oauth_server.mjs"], options | {"clients": SECRETS}) as port:
        yield f"http://127.0.0.1:{port}/token"


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    for url in serving(lifetime=600):
        yield Provider("node", token_url=url, allow_http=True, timeout=WITHIN)


@pytest.fixture
def brief() -> Iterator[str]:
    """The token URL of a server whose tokens live for two seconds."""
    yield from serving(lifetime=2)


@pytest.mark.parametrize(("auth", "encoding", "taken"), TAKEN_WITHOUT_DECODING)
@pytest.mark.parametrize("client_id", SECRETS)
def test_it_accepts_the_secrets(
    provider: Provider, client_id: str, auth: Auth, encoding: BasicEncoding, taken: set[str]
) -> None:
    outcome = granted(provider, client_id, SECRETS[client_id], auth, encoding)

    check_accepted(outcome, taken=client_id in taken)


@pytest.mark.parametrize(
    ("asked", "given"),
    [
        pytest.param("bci", "bci", id="one-scope"),
        pytest.param("bci risk", "bci risk", id="two-scopes"),
        pytest.param("", "bci risk", id="no-scope"),
    ],
)
def test_its_tokens_are_accepted(provider: Provider, asked: str, given: str) -> None:
    outcome = granted(provider, "plain", "plain", scope=asked)

    assert isinstance(outcome, Issued)
    token = outcome.token
    # It computes expires_in from the end of the token, and rounds down: 600 or 599.
    assert (token.token_type, token.scope) == ("Bearer", given)
    assert 590 <= token.lifetime <= 600
    assert outcome.notes == ()


@pytest.mark.parametrize(
    ("auth", "status"), [pytest.param("client_secret_basic", 401, id="basic"), pytest.param("client_secret_post", 400)]
)
@pytest.mark.parametrize(
    ("client_id", "secret"),
    [pytest.param("plain", "wrong", id="wrong-secret"), pytest.param("nobody", "plain", id="unknown-client")],
)
def test_wrong_credentials_are_a_refusal_of_the_client(
    provider: Provider, client_id: str, secret: str, auth: Auth, status: int
) -> None:
    outcome = granted(provider, client_id, secret, auth)

    assert isinstance(outcome, Refused)
    assert outcome.message == f"HTTP {status} invalid_client: the client was refused"
    assert outcome.whole_client
    assert "check that client_id, secret" in str(outcome)


def test_an_unknown_scope_is_a_refusal_of_this_token_alone(provider: Provider) -> None:
    outcome = granted(provider, "plain", "plain", scope="bci other")

    assert isinstance(outcome, Refused)
    assert outcome.message == "HTTP 400 invalid_scope: the scope was refused"
    assert not outcome.whole_client


def test_the_daemon_gets_and_renews_its_tokens(brief: str, tmp_path: Path) -> None:
    site = Site(tmp_path, brief)
    site.config.write_text(site.config.read_text().replace("client_id: a\n", "client_id: plain\n"))
    (tmp_path / "secret").write_text("plain")
    file = site.tokens / "dnb/bci"
    with running("run", "-c", site.config) as daemon:
        eventually(file.exists)
        first = file.read_text()
        eventually(lambda: file.read_text() != first)
        assert daemon.stop() == 0
