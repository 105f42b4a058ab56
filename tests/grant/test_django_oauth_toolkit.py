"""A real authorization server, PyPI's django-oauth-toolkit, judges our ways of authenticating.

It decodes both %XX and `+` in HTTP Basic, as RFC 6749 has it, keeps secrets as hashes only, and challenges whom it
refuses by `Bearer`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from urllib.parse import urlencode

import pytest
import urllib3

from bearerd.grant.outcome import Issued, Malformed, Refused
from bearerd.model import Provider
from bearerd.terms import Auth, BasicEncoding
from support.process import WITHIN
from support.servers import SCRIPTS, SECRETS, granted, port_of

COLON = "acme:prod"
CLIENT_REFUSED = "HTTP 401 invalid_client: the client was refused"
CHECK = "check that client_id, secret and auth match the provider's settings"


@pytest.fixture(scope="module")
def origin() -> Iterator[str]:
    options = {"clients": SECRETS | {COLON: "plain"}, "scopes": ["bci", "risk"]}
    with port_of([sys.executable, SCRIPTS / "django_server.py"], options) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def provider(origin: str) -> Provider:
    return Provider("django", token_url=f"{origin}/token/", allow_http=True, timeout=WITHIN)


@pytest.mark.parametrize(
    ("auth", "encoding", "taken"),
    [
        pytest.param("client_secret_basic", "compatible", {"plain", "base64", "percent", "space"}, id="compatible"),
        pytest.param("client_secret_basic", "rfc6749", {"plain", "base64", "percent", "space"}, id="rfc6749"),
        # It makes a space of the + that belongs to the secret.
        pytest.param("client_secret_basic", "raw", {"plain", "space"}, id="raw"),
        pytest.param("client_secret_post", "compatible", {"plain", "base64", "percent", "space"}, id="post"),
    ],
)
@pytest.mark.parametrize("client_id", SECRETS)
def test_it_accepts_the_secrets(
    provider: Provider, client_id: str, auth: Auth, encoding: BasicEncoding, taken: set[str]
) -> None:
    outcome = granted(provider, client_id, SECRETS[client_id], auth, encoding)

    if client_id in taken:
        assert isinstance(outcome, Issued), outcome
        assert outcome.notes == ()
    else:
        two_ways = (
            "the id or secret contains a character that providers decode differently (such as :, %, + or a space): "
            "try auth: client_secret_post, which sends them in the form"
        )
        assert outcome == Refused(CLIENT_REFUSED, hint=two_ways)


@pytest.mark.parametrize("encoding", ["compatible", "rfc6749"])
def test_a_client_id_with_a_colon_works_in_basic(provider: Provider, encoding: BasicEncoding) -> None:
    outcome = granted(provider, COLON, "plain", encoding=encoding)

    assert isinstance(outcome, Issued), outcome


@pytest.mark.parametrize(
    ("asked", "given"),
    [
        pytest.param("bci", "bci", id="one-scope"),
        pytest.param("bci risk", "bci risk", id="two-scopes"),
        # Its default: all that there are.
        pytest.param("", "bci risk", id="no-scope"),
    ],
)
def test_its_tokens_are_accepted(provider: Provider, asked: str, given: str) -> None:
    outcome = granted(provider, "plain", "plain", scope=asked)

    assert isinstance(outcome, Issued)
    token = outcome.token
    assert token.scope is not None
    assert (token.token_type, set(token.scope.split()), token.lifetime) == ("Bearer", set(given.split()), 36_000.0)
    assert token.extra_fields() == {}
    assert outcome.notes == ()


@pytest.mark.parametrize("auth", ["client_secret_basic", "client_secret_post"])
@pytest.mark.parametrize(
    ("client_id", "secret"),
    [pytest.param("plain", "wrong", id="wrong-secret"), pytest.param("nobody", "plain", id="unknown-client")],
)
def test_wrong_credentials_are_a_refusal_of_the_client(
    provider: Provider, client_id: str, secret: str, auth: Auth
) -> None:
    assert granted(provider, client_id, secret, auth) == Refused(CLIENT_REFUSED, hint=CHECK)


def test_its_refusal_is_401_with_a_challenge_for_bearers(provider: Provider) -> None:
    # The refusals above come with a Bearer challenge, although that is for access tokens.
    assert provider.token_url is not None
    fields = {"grant_type": "client_credentials", "scope": "bci"}
    headers = urllib3.make_headers(basic_auth="plain:wrong")
    headers["Content-Type"] = "application/x-www-form-urlencoded"
    with urllib3.PoolManager() as pool:
        answer = pool.urlopen("POST", provider.token_url, body=urlencode(fields), headers=headers, timeout=WITHIN)

    assert (answer.status, answer.json()) == (401, {"error": "invalid_client"})
    assert answer.headers["WWW-Authenticate"] == 'Bearer error="invalid_client"'


def test_an_unknown_scope_is_a_refusal_of_this_token_alone(provider: Provider) -> None:
    outcome = granted(provider, "plain", "plain", scope="bci other")

    assert outcome == Refused(
        "HTTP 400 invalid_scope: the scope was refused",
        whole_client=False,
        hint="check that scope matches the provider's settings, and have it granted to this client",
    )


def test_the_endpoint_is_discovered_from_the_issuer(origin: str) -> None:
    # It has the document of RFC 8414, not OpenID's.
    by_issuer = Provider("django", issuer=origin, allow_http=True, timeout=WITHIN)
    outcome = granted(by_issuer, "plain", "plain")

    assert isinstance(outcome, Issued), outcome


def test_an_unsupported_authentication_is_hinted_at_from_the_metadata(origin: str) -> None:
    by_issuer = Provider("django", issuer=origin, allow_http=True, timeout=WITHIN)
    outcome = granted(by_issuer, "plain", "plain", "client_secret_jwt")

    listed = "client_secret_post, client_secret_basic"
    assert outcome == Refused(
        CLIENT_REFUSED, hint=f"the provider's metadata does not list auth client_secret_jwt, only {listed}"
    )


def test_a_token_url_without_the_final_slash_is_malformed(provider: Provider) -> None:
    assert provider.token_url is not None
    elsewhere = replace(provider, token_url=provider.token_url.removesuffix("/"))

    assert granted(elsewhere, "plain", "plain") == Malformed(
        "HTTP 404: not the reply of a token endpoint", hint="check that token_url matches the provider's settings"
    )
