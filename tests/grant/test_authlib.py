"""A real authorization server, Authlib's, judges our ways of authenticating.

It decodes %XX in HTTP Basic but not `+`: a half-decoder, which shows why `compatible` is as it is.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from authlib.integrations.flask_oauth2 import AuthorizationServer
from authlib.oauth2.rfc6749 import ClientMixin
from authlib.oauth2.rfc6749.grants import ClientCredentialsGrant
from flask import Flask, Response
from werkzeug.serving import WSGIRequestHandler, make_server

from bearerd.grant.outcome import Issued, Outcome, Refused
from bearerd.grant.perform import Grants
from bearerd.model import Auth, BasicEncoding
from support.clock import START, FakeClock
from support.process import WITHIN
from support.targets import CLIENT, PROVIDER, target

SECRETS = {
    "plain": "plain",
    "base64": "q+7/Zz0=",
    "percent": "a+b%2Fc/d=e:f%",
    "space": "two words",
}


class Registered(ClientMixin):  # type: ignore[misc]
    """A client as Authlib asks for it."""

    def __init__(self, client_id: str) -> None:
        self.client_id = client_id

    def get_client_id(self) -> str:
        """Its id."""
        return self.client_id

    def get_allowed_scope(self, scope: str) -> str:
        """The allowed part of the requested scope."""
        return " ".join(part for part in scope.split() if part == "bci")

    def check_client_secret(self, client_secret: str) -> bool:
        """Whether this is its secret."""
        return client_secret == SECRETS[self.client_id]

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        """Whether it may authenticate so."""
        return endpoint == "token" and method in {"client_secret_basic", "client_secret_post"}

    def check_grant_type(self, grant_type: str) -> bool:
        """Whether it may have this grant."""
        return grant_type == "client_credentials"


class Grant(ClientCredentialsGrant):  # type: ignore[misc]
    """The grant, with authentication in the form allowed as well."""

    TOKEN_ENDPOINT_AUTH_METHODS = ("client_secret_basic", "client_secret_post")


class Quiet(WSGIRequestHandler):
    """Logs nothing."""

    def log(self, *_: Any) -> None:
        """Nothing."""


@contextmanager
def authorization_server() -> Iterator[str]:
    app = Flask("authorization-server")
    server = AuthorizationServer(
        app,
        query_client=lambda client_id: Registered(client_id) if client_id in SECRETS else None,
        save_token=lambda _token, _request: None,
    )
    server.register_grant(Grant)

    @app.post("/token")
    def issue() -> Response:
        response: Response = server.create_token_response()
        return response

    listener = make_server("127.0.0.1", 0, app, threaded=True, request_handler=Quiet)
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.server_port}/token"
    finally:
        listener.shutdown()
        thread.join()
        listener.server_close()


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
