"""A real authorization server, Authlib's, judges our ways of authenticating.

It decodes %XX in HTTP Basic but not `+`: a half-decoder, which shows why `compatible` is as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from bearerd.grant.outcome import Issued, Outcome, Refused
from bearerd.grant.perform import Grants
from bearerd.terms import Auth, BasicEncoding
from support.authlib_server import SECRETS, authorization_server
from support.clock import START, FakeClock
from support.process import WITHIN
from support.targets import CLIENT, PROVIDER, target


@pytest.fixture(scope="module")
def token_url() -> Iterator[str]:
    with pytest.MonkeyPatch.context() as environment:
        # Authlib's own switch for servers on loopback without TLS.
        environment.setenv("AUTHLIB_INSECURE_TRANSPORT", "1")
        with authorization_server() as url:
            yield url


def granted(
    token_url: str,
    client_id: str,
    secret: str,
    auth: Auth = "client_secret_basic",
    encoding: BasicEncoding = "compatible",
    scope: str = "bci",
) -> Outcome:
    there = replace(PROVIDER, token_url=token_url, timeout=WITHIN)
    client = replace(CLIENT, provider=there, client_id=client_id, auth=auth, basic_encoding=encoding)
    return Grants(FakeClock(), {"DNB_SECRET": secret}).perform(target(client=client, scope=scope)).outcome


@pytest.mark.parametrize(
    ("auth", "encoding", "taken"),
    [
        pytest.param("client_secret_basic", "compatible", {"plain", "base64", "percent", "space"}, id="compatible"),
        # It does not decode + as a space.
        pytest.param("client_secret_basic", "rfc6749", {"plain", "base64", "percent"}, id="rfc6749"),
        # It makes a / of the %2F that belongs to the secret.
        pytest.param("client_secret_basic", "raw", {"plain", "base64", "space"}, id="raw"),
        pytest.param("client_secret_post", "compatible", {"plain", "base64", "percent", "space"}, id="post"),
    ],
)
@pytest.mark.parametrize("client_id", sorted(SECRETS))
def test_authlibs_server_accepts_the_secrets(
    token_url: str, client_id: str, auth: Auth, encoding: BasicEncoding, taken: set[str]
) -> None:
    outcome = granted(token_url, client_id, SECRETS[client_id], auth, encoding)

    if client_id in taken:
        assert isinstance(outcome, Issued), outcome
    else:
        assert isinstance(outcome, Refused), outcome
        assert outcome.whole_client
        assert ("try basic_encoding: raw" if encoding != "raw" else "try auth: client_secret_post") in str(outcome)


def test_its_tokens_are_accepted(token_url: str) -> None:
    outcome = granted(token_url, "plain", "plain")

    assert isinstance(outcome, Issued)
    token = outcome.token
    # Authlib's default for client credentials: ten days.
    assert (token.token_type, token.scope, token.lifetime, token.obtained) == ("Bearer", "bci", 864_000.0, START)
    assert outcome.notes == ()


@pytest.mark.parametrize("auth", ["client_secret_basic", "client_secret_post"])
@pytest.mark.parametrize(
    ("client_id", "secret"),
    [pytest.param("plain", "wrong", id="wrong-secret"), pytest.param("nobody", "plain", id="unknown-client")],
)
def test_wrong_credentials_are_a_refusal_of_the_client(token_url: str, client_id: str, secret: str, auth: Auth) -> None:
    outcome = granted(token_url, client_id, secret, auth)

    assert isinstance(outcome, Refused)
    assert "invalid_client" in outcome.message
    assert outcome.whole_client


def test_a_silently_narrowed_scope_is_a_warning(token_url: str) -> None:
    outcome = granted(token_url, "plain", "plain", scope="bci risk")

    assert isinstance(outcome, Issued)
    assert outcome.notes == ("the token's scope lacks risk; ask the provider to grant it to this client",)
