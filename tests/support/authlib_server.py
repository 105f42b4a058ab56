"""Authlib's authorization server, a real one."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from authlib.integrations.flask_oauth2 import AuthorizationServer
from authlib.oauth2.rfc6749 import ClientMixin
from authlib.oauth2.rfc6749.grants import ClientCredentialsGrant
from flask import Flask, Response
from werkzeug.serving import WSGIRequestHandler, make_server

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

    def get_allowed_scope(self, scope: str | None) -> str:
        """The allowed part of the requested scope."""
        return " ".join(part for part in (scope or "").split() if part == "bci")

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
    """Run it during the block; its token URL."""
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
