"""What bearerd says, situation by situation, word for word.

The first part of a message says what happened, and the part after the last semicolon what to do about it.
"""

from __future__ import annotations

import json
import math
import re
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
import trustme

from bearerd.config.load import load
from bearerd.errors import ConfigError
from bearerd.grant.endpoint import Endpoint
from bearerd.grant.hints import Circumstances, hinted
from bearerd.grant.metadata import Metadata
from bearerd.grant.outcome import Issued, NoReply
from bearerd.grant.reply import Reply, understand
from bearerd.grant.request import Call, Credentials, Request
from bearerd.model import JwtBearer, Provider
from bearerd.service.online import try_online
from bearerd.terms import JWT_BEARER, SHORT_GRANTS, Reference
from support.clock import START
from support.peer import Peer, blackhole, peer, refusing
from support.process import WITHIN, bearerd
from support.quirks import jwt
from support.server import Answer, Script, Seen, issues, serving
from support.targets import CLIENT, target

ISSUER = "https://login.example.com/acme"
TOKEN_URL = "https://login.example.com/acme/token"

# -- replies -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Says:
    """A reply to a token request, and the message about it."""

    situation: str
    status: int
    body: Mapping[str, Any] | bytes
    message: str
    headers: Mapping[str, str] = field(default_factory=dict)
    client: Mapping[str, Any] = field(default_factory=dict)
    """How the client differs from one with client_secret_basic and the secret `hunter2`."""
    secret: str = "hunter2"
    token: Mapping[str, Any] = field(default_factory=dict)
    metadata: Metadata | None = None
    skew: float = 0.0
    worked: bool = False


HTML = b"<!DOCTYPE html>\n<html><head><title>Attention required</title></head></html>"
SIGNS: dict[str, Any] = {"auth": "private_key_jwt", "client_secret": ()}
INVALID_CLIENT = {"error": "invalid_client"}
CHECK = "check that client_id, secret and auth match the provider's settings"
TWO_WAYS = "the id or secret contains a character that providers decode differently (such as :, %, + or a space)"
POST = "try auth: client_secret_post, which sends them in the form"
ALLOWED = "check that the provider allows this client's scope and parameters"

REPLIES = [
    # Not the token endpoint.
    Says(
        "Cloudflare challenges a browser",
        403,
        HTML,
        "HTTP 403: a firewall expects a browser to solve a challenge; "
        "ask the provider to let this machine's address reach the token endpoint",
        headers={"cf-mitigated": "challenge"},
    ),
    Says(
        "a firewall answers with a page",
        403,
        HTML,
        "HTTP 403: refused with an HTML page, not by a token endpoint; "
        "check that token_url matches the provider's settings; if it does, ask the provider to let this machine's "
        "address through",
    ),
    Says(
        "Tomcat answers with a page, also to a wrong secret",
        401,
        HTML,
        "HTTP 401: refused with an HTML page, not by a token endpoint; "
        "check that token_url matches the provider's settings; if it does, check client_id, secret and auth",
    ),
    Says(
        "a login page",
        200,
        HTML,
        "HTTP 200, but the reply is HTML, not JSON; "
        "token_url leads to a login page, a proxy or another site: check that it matches the provider's settings",
    ),
    Says(
        "the metadata of an issuer",
        200,
        {"issuer": "https://login.example.com", "token_endpoint": "https://login.example.com/token"},
        "HTTP 200, but the reply has no access_token; it has: issuer, token_endpoint; "
        "this is the metadata of an issuer: set token_url to its token_endpoint",
    ),
    Says(
        "the endpoint takes JSON",
        415,
        {"title": "Unsupported Media Type"},
        'HTTP 415 "Unsupported Media Type": not the reply of a token endpoint; '
        "check that token_url matches the provider's settings, and whether it expects a form or JSON (body)",
    ),
    *(
        Says(
            f"http to a TLS port of {server}",
            400,
            page,
            "HTTP 400: this request was refused; this port speaks TLS: write https://",
        )
        for server, page in (
            ("nginx", b"<title>400 The plain HTTP request was sent to HTTPS port</title>"),
            ("Go", b"Client sent an HTTP request to an HTTPS server.\n"),
            ("Apache", b"Reason: You're speaking plain HTTP to an SSL-enabled server port."),
            ("Tomcat", b"Bad Request\nThis combination of host and port requires TLS.\n"),
        )
    ),
    Says(
        "a port for HTTP/2 alone, of Node.js",
        403,
        b"Unknown ALPN Protocol, expected `h2` to be available.",
        "HTTP 403: the client was refused; "
        "this port speaks only HTTP/2, and bearerd HTTP/1.1: ask the provider for an endpoint that accepts it",
    ),
    # The code of a refusal.
    *(
        Says(
            f"the code is in {where}",
            400,
            fields,
            f"HTTP 400 {code}: this request was refused; {ALLOWED}",
            headers=headers,
        )
        for where, fields, code, headers in (
            ("error", {"error": "invalid_request"}, "invalid_request", {}),
            ("error.code (D&B)", {"error": {"errorCode": "00003", "errorMessage": "No"}}, "00003", {}),
            ("error.status (Google)", {"error": {"code": 400, "status": "INVALID_ARGUMENT"}}, "INVALID_ARGUMENT", {}),
            ("errorCode (Okta)", {"errorCode": "E0000021", "errorSummary": "Bad request"}, "E0000021", {}),
            ("ErrorCode (Apigee)", {"ErrorCode": "invalid_request", "Error": "No"}, "invalid_request", {}),
            ("fault.detail (Apigee)", {"fault": {"detail": {"errorcode": "oauth.v2.Failed"}}}, "oauth.v2.Failed", {}),
            ("fault.code (WSO2)", {"fault": {"code": 900902, "message": "Missing"}}, "900902", {}),
            ("errors[].code", {"errors": [{"code": "ERR-4711", "message": "No"}]}, "ERR-4711", {}),
            ("response.errors[].code (UPS)", {"response": {"errors": [{"code": "10400"}]}}, "10400", {}),
            ("title (RFC 9457)", {"title": "Bad client metadata", "status": 400}, '"Bad client metadata"', {}),
            ("WWW-Authenticate", {}, "invalid_request", {"www-authenticate": 'Bearer error="invalid_request"'}),
        )
    ),
    Says(
        "a known code counts in any field",
        400,
        {"ErrorCode": "invalid_client"},
        f"HTTP 400 invalid_client: the client was refused; {CHECK}",
    ),
    *(
        Says(f"the code quotes the secret in {where}", 401, fields, f"HTTP 401: the client was refused; {CHECK}")
        for where, fields in (
            ("errorCode", {"errorCode": "hunter2"}),
            ("errors[].code", {"errors": [{"code": "bad-HUNTER2"}]}),
            ("title", {"title": "Wrong secret hunter"}),
            ("error.status", {"error": {"status": "hunter2"}}),
        )
    ),
    *(
        Says(f"the code is {what}", 401, {"errorCode": code}, f"HTTP 401: the client was refused; {CHECK}")
        for what, code in (
            ("too long", "a" * 49),
            ("a sentence", "Please, see https://example.com"),
            ("a token", "eyJhbGciOiJSUzI1NiJ9.e30.c2ln"),
            ("a UUID", "5f0c8a52-6f0e-4f7c-9d0e-1f6f3a0b7c11"),
            ("the status again", 401),
        )
    ),
    Says(
        "no code, and the text is about the client",
        400,
        {"status": 400, "message": "invalid client id"},
        f"HTTP 400: the client was refused; {CHECK}",
    ),
    # The grant, and not the credentials.
    Says(
        "the grant is not offered",
        400,
        {"error": "unsupported_grant_type"},
        "HTTP 400 unsupported_grant_type: the grant type was refused; the token endpoint does not support grant_type "
        "client_credentials: check that grant_type and token_url match the provider's settings",
    ),
    Says(
        "the grant is not enabled",
        400,
        {"error": "unauthorized_client"},
        "HTTP 400 unauthorized_client: the client was refused; the client is not allowed to use grant_type "
        "client_credentials: have it enabled for this client at the provider; some providers also answer "
        "this to an unknown client_id",
    ),
    Says(
        "Keycloak: the secret is wrong",
        401,
        {"error": "unauthorized_client", "error_description": "Invalid client or Invalid client credentials"},
        f"HTTP 401 unauthorized_client: the client was refused; {CHECK}",
    ),
    Says(
        "the name of the grant is short",
        400,
        {"error": "unsupported_grant_type"},
        "HTTP 400 unsupported_grant_type: the grant type was refused; "
        "write the full name of the grant: grant_type: urn:ietf:params:oauth:grant-type:token-exchange",
        client={"grant_type": "token-exchange", "auth": "none", "client_secret": ()},
    ),
    Says(
        "the token to exchange is not accepted",
        400,
        {"error": "invalid_grant"},
        "HTTP 400 invalid_grant: the client was refused; "
        "the provider refused subject_token: check that the token in its file is fresh, and meant for this provider",
        client={"grant_type": SHORT_GRANTS["token-exchange"], "auth": "none", "client_secret": ()},
        token={"parameters": (("subject_token", Reference("file", "/t")),)},
    ),
    # The credentials.
    Says("a wrong secret", 401, INVALID_CLIENT, f"HTTP 401 invalid_client: the client was refused; {CHECK}"),
    Says(
        "a secret that worked",
        401,
        INVALID_CLIENT,
        "HTTP 401 invalid_client: the client was refused; "
        "the provider accepted the same credentials before: ask whether it revoked, replaced or locked them",
        worked=True,
    ),
    Says(
        "a secret with several lines",
        401,
        INVALID_CLIENT,
        "HTTP 401 invalid_client: the client was refused; the secret (file /etc/bearerd/dnb.secret) has more than one "
        "line, and all of them were sent: keep only the one with the secret",
        secret="s3cret\nurl: https://example.com",
    ),
    Says(
        "a secret with a space at its end",
        401,
        INVALID_CLIENT,
        "HTTP 401 invalid_client: the client was refused; the secret (file /etc/bearerd/dnb.secret) begins or ends "
        "with white space or a byte order mark, which was sent too: remove it",
        secret="hunter2 ",
    ),
    *(
        Says(
            f"a secret that was copied with {what}",
            401,
            INVALID_CLIENT,
            f"HTTP 401 invalid_client: the client was refused; the secret (file /etc/bearerd/dnb.secret) {said}",
            secret=secret,
        )
        for what, secret, said in (
            ("quotes", '"hunter2"', "has quotes around it, which were sent too: remove them"),
            ("typographic quotes", "“hunter2”", "has quotes around it, which were sent too: remove them"),
            (
                "its name",
                "CLIENT_SECRET=hunter2",
                "begins with a name and '=' or ':', which was sent too: keep only what follows",
            ),
            (
                "its key",
                "client_secret: hunter2",
                "begins with a name and '=' or ':', which was sent too: keep only what follows",
            ),
        )
    ),
    *(
        Says(
            f"basic_encoding: {now}, and the secret has {what}",
            401,
            INVALID_CLIENT,
            f"HTTP 401 invalid_client: the client was refused; {TWO_WAYS}: {then}",
            secret=secret,
            client={"basic_encoding": now},
        )
        for what, secret in (("a plus", "a+b"), ("a percent sign", "a%b"), ("a space", "a b"))
        for now, then in (
            ("compatible", "try basic_encoding: raw"),
            ("rfc6749", "try basic_encoding: raw"),
            ("raw", POST),
        )
    ),
    Says(
        "the secret has a colon, which `raw` sends as `compatible` does",
        401,
        INVALID_CLIENT,
        f"HTTP 401 invalid_client: the client was refused; {TWO_WAYS}: {POST}",
        secret="a:b",
    ),
    Says(
        "the client id has a colon, which `raw` cannot send",
        401,
        INVALID_CLIENT,
        f"HTTP 401 invalid_client: the client was refused; {TWO_WAYS}: {POST}",
        client={"client_id": "urn:acme"},
    ),
    Says(
        "all providers read the secret alike",
        401,
        INVALID_CLIENT,
        f"HTTP 401 invalid_client: the client was refused; {CHECK}",
        secret="a/b=!$@#~",
    ),
    Says(
        "the form needs no encoding: nothing else to try",
        401,
        INVALID_CLIENT,
        f"HTTP 401 invalid_client: the client was refused; {CHECK}",
        secret="a+b",
        client={"auth": "client_secret_post"},
    ),
    Says(
        "the metadata does not list the method",
        401,
        INVALID_CLIENT,
        "HTTP 401 invalid_client: the client was refused; "
        "the provider's metadata does not list auth client_secret_basic, only client_secret_post",
        metadata=Metadata(TOKEN_URL, TOKEN_URL, ("client_secret_post",)),
    ),
    Says(
        "Entra: the secret has expired",
        401,
        {"error": "invalid_client", "error_description": "AADSTS7000222: The provided client secret keys are expired."},
        "HTTP 401 invalid_client: the client was refused; "
        "the provider says that the secret or key has expired: register a new one",
    ),
    Says(
        "Azure API Management: the header with the subscription key is missing",
        401,
        {
            "statusCode": 401,
            "message": "Access denied due to missing subscription key. Make sure to include subscription key when "
            "making requests to an API.",
        },
        "HTTP 401: the client was refused; "
        "the gateway in front of the provider requires a valid subscription key: set headers, or check the key there",
    ),
    Says(
        "Entra: the secret's ID",
        401,
        {"error": "invalid_client", "error_description": "AADSTS7000215: Invalid client secret provided. Ensure …"},
        "HTTP 401 invalid_client: the client was refused; "
        "check client_id and secret; Entra ID wants the secret's value, not its ID",
    ),
    Says(
        "WeChat: the address of this machine",
        200,
        {"errcode": 40164, "errmsg": "invalid ip 192.0.2.1, not in whitelist"},
        "HTTP 200 with errcode 40164: the client was refused; "
        "the provider does not accept this machine's IP address for this client: have it allowed",
    ),
    # Keys, assertions and certificates.
    Says(
        "private_key_jwt with issuer, and the provider wants its token URL in `aud`",
        401,
        {"error": "invalid_client", "error_description": "Wrong audience"},
        f"HTTP 401 invalid_client: the client was refused; the assertion is for {ISSUER}: "
        "set assertion_audience to what the provider expects, often its issuer or its token URL",
        client=SIGNS,
    ),
    Says(
        "the same at Entra",
        401,
        {"error": "invalid_client", "error_description": "AADSTS50027: JWT token is invalid or malformed."},
        f"HTTP 401 invalid_client: the client was refused; the assertion is for {ISSUER}: "
        "set assertion_audience to what the provider expects, often its issuer or its token URL",
        client=SIGNS,
    ),
    Says(
        "the same at a provider that gives no reason (idpyoidc, oidc-provider)",
        401,
        INVALID_CLIENT,
        "HTTP 401 invalid_client: the client was refused; check client_id, key_id, public key and audience of the "
        f"assertion, which is for {ISSUER} (assertion_audience)",
        client=SIGNS,
    ),
    Says(
        "an assertion by a clock that is off",
        401,
        INVALID_CLIENT,
        "HTTP 401 invalid_client: the client was refused; the provider's clock is 2 min ahead of this machine's: "
        "correct this machine's clock (until then, assertions use the provider's clock)",
        client=SIGNS,
        skew=130.0,
    ),
    Says(
        "client_secret_jwt",
        401,
        INVALID_CLIENT,
        "HTTP 401 invalid_client: the client was refused; "
        "check that client_id, secret and assertion_audience match the provider's settings",
        client={"auth": "client_secret_jwt"},
    ),
    Says(
        "the jwt-bearer grant",
        400,
        {"error": "invalid_grant"},
        "HTTP 400 invalid_grant: the client was refused; check issuer, subject, key_id, public key and audience of "
        f"the assertion, which is for {ISSUER} (assertion_audience)",
        client={"auth": "none", "client_secret": (), "grant_type": JWT_BEARER, "jwt_bearer": JwtBearer()},
    ),
    *(
        Says(
            auth,
            401,
            INVALID_CLIENT,
            "HTTP 401 invalid_client: the client was refused; "
            "check that client_id and the certificate match those registered with the provider",
            client={"auth": auth, "client_secret": ()},
        )
        for auth in ("tls_client_auth", "self_signed_tls_client_auth")
    ),
    Says(
        "a ready assertion",
        401,
        INVALID_CLIENT,
        "HTTP 401 invalid_client: the client was refused; "
        "check that the provider trusts the assertion's issuer, subject and audience",
        client={"auth": "assertion", "client_secret": ()},
    ),
    Says(
        "no authentication",
        401,
        INVALID_CLIENT,
        "HTTP 401 invalid_client: the client was refused; "
        "check that client_id matches the provider's settings; with auth: none no secret is sent",
        client={"auth": "none", "client_secret": ()},
    ),
    # The token.
    Says(
        "an unknown scope",
        400,
        {"error": "invalid_scope"},
        "HTTP 400 invalid_scope: the scope was refused; "
        "check that scope matches the provider's settings, and have it granted to this client",
    ),
    Says(
        "Entra: a scope without /.default",
        400,
        {
            "error": "invalid_scope",
            "error_description": "AADSTS1002012: The provided value for scope orders is not valid. Client credential "
            "flows must have a scope value with /.default suffixed to the resource identifier (application ID URI).",
        },
        "HTTP 400 invalid_scope: the scope was refused; check that scope matches the provider's settings, "
        "and have it granted to this client; Entra ID wants an API's scope with /.default at its end",
    ),
    Says(
        "Okta: no scope",
        400,
        {
            "error": "invalid_scope",
            "error_description": "The authorization server resource does not have any configured default scopes, "
            "'scope' must be provided.",
        },
        "HTTP 400 invalid_scope: the scope was refused; set scope: the provider has no default one",
        token={"scope": ""},
    ),
    Says(
        "Auth0: no audience",
        403,
        {"error": "access_denied", "error_description": "No audience parameter was provided"},
        "HTTP 403 access_denied: this request was refused; set parameters: {audience: …} or {resource: …}",
    ),
    Says(
        "strict_scope, and the reply names no scope",
        200,
        {"access_token": "t", "token_type": "Bearer", "expires_in": 3600},
        "the reply names no scope, which RFC 6749 allows if the requested one was granted (strict_scope); "
        "set strict_scope: false to accept it",
        token={"strict_scope": True},
    ),
    Says(
        "strict_scope, and a scope is missing",
        200,
        {"access_token": "t", "token_type": "Bearer", "expires_in": 3600, "scope": "other"},
        "the token's scope lacks bci (strict_scope); ask the provider to grant it to this client",
        token={"strict_scope": True},
    ),
    # Waits.
    Says(
        "too many requests, and the provider names a wait",
        429,
        {},
        "HTTP 429: too many requests; the provider asks to wait 37 s",
        headers={"retry-after": "37"},
    ),
    Says("too many requests, and it names none", 429, {}, "HTTP 429: too many requests"),
    Says(
        "maintenance, and the provider names a wait",
        503,
        HTML,
        "HTTP 503: a temporary error at the provider; the provider asks to wait 15 min",
        headers={"retry-after": "900"},
    ),
]


def message(row: Says) -> str:
    """The message about a row's reply."""
    provider = Provider(name="acme", issuer=ISSUER)
    client = replace(CLIENT, **{"provider": provider, **row.client})
    wanted = target(client=client, **row.token)
    body = row.body if isinstance(row.body, bytes) else json.dumps(row.body).encode()
    reply = Reply(row.status, row.headers, body)
    held = Credentials(str(client.client_id), row.secret, source="file /etc/bearerd/dnb.secret")
    circumstances = Circumstances(
        wanted, held, Call(TOKEN_URL, ISSUER, START.wall, "nonce"), row.metadata, row.skew, row.worked
    )
    outcome = hinted(understand(reply, wanted, START, (row.secret,)), reply, circumstances)
    assert not isinstance(outcome, Issued)
    return str(outcome)


@pytest.mark.parametrize("row", REPLIES, ids=lambda row: row.situation)
def test_a_reply_that_is_no_token(row: Says) -> None:
    assert message(row) == row.message


def test_an_audience_is_shown_without_a_key_in_its_query() -> None:
    client = replace(CLIENT, auth="private_key_jwt", client_secret=())
    call = Call(TOKEN_URL, f"{TOKEN_URL}?code=hunter2", START.wall, "nonce")
    reply = Reply(401, {}, json.dumps(INVALID_CLIENT).encode())
    known = Circumstances(target(client=client), Credentials("7e0c5a"), call, None, None)

    assert str(hinted(understand(reply, target(), START), reply, known)).endswith(
        f"which is for {TOKEN_URL} (assertion_audience)"
    )


# -- connections ---------------------------------------------------------------------------------------


@contextmanager
def closed() -> Iterator[str]:
    """A port without a server."""
    with refusing() as port:
        yield f"http://127.0.0.1:{port}/token"


def raw(text: bytes, scheme: str = "http") -> Callable[[], AbstractContextManager[str]]:
    """A port that answers with these bytes, under a URL with this scheme."""

    @contextmanager
    def serves() -> Iterator[str]:
        def behaviour(it: Peer, connection: socket.socket, _number: int) -> None:
            if scheme == "http":
                it.read(connection)
            else:
                connection.recv(4096)
            connection.sendall(text)

        with peer(behaviour) as it:
            yield it.url.replace("http:", f"{scheme}:")

    return serves


@contextmanager
def untrusted() -> Iterator[str]:
    """A TLS port with a certificate of a private authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    with serving(issues(), context) as server:
        yield server.url


@contextmanager
def silent() -> Iterator[str]:
    """A port that accepts no connection."""
    with blackhole() as port:
        yield f"http://127.0.0.1:{port}/token"


TLS_HINT = "if this port speaks TLS, write https://"
HTTP2_HINT = "this port speaks only HTTP/2, and bearerd HTTP/1.1: ask the provider for an endpoint that accepts it"

CONNECTIONS = [
    (
        "no server listens",
        closed,
        (
            "HOST:PORT: connection refused (while connecting); "
            "no server listens there, or a firewall refuses: check host and port"
        ),
    ),
    ("a firewall drops everything", silent, "HOST:PORT: timed out after 0.5 s (while connecting)"),
    (
        "http to a TLS port that closes",
        raw(b""),
        f"HOST:PORT: the connection was closed (while waiting for the reply); {TLS_HINT}",
    ),
    (
        "http to a TLS port that sends an alert",
        raw(b"\x15\x03\x01\x00\x02\x02\x28"),
        f"HOST:PORT: the reply is not HTTP (while waiting for the reply); {TLS_HINT}",
    ),
    (
        "https to a port without TLS",
        raw(b"HTTP/1.1 400 Bad Request\r\n\r\n", "https"),
        "HOST:PORT: TLS: wrong version number; check that this port speaks TLS",
    ),
    (
        "http to a port for HTTP/2 alone",
        raw(b"\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x64"),
        f"HOST:PORT: the reply is not HTTP/1.1 (while waiting for the reply); {HTTP2_HINT}",
    ),
    (
        "https to a port for HTTP/2 alone",
        raw(b"\x15\x03\x03\x00\x02\x02\x78", "https"),
        f"HOST:PORT: TLS: tlsv1 alert no application protocol; {HTTP2_HINT}",
    ),
    (
        "https to a port with TLS 1.1 alone, of a server that does not know TLS 1.3",
        # A ServerHello with version 1.1 and TLS_RSA_WITH_AES_128_CBC_SHA.
        raw(b"\x16\x03\x02\x00\x2a\x02\x00\x00\x26\x03\x02" + b"\x01" * 32 + b"\x00\x00\x2f\x00", "https"),
        (
            "HOST:PORT: TLS: unsupported protocol; "
            "the server speaks only versions before TLS 1.2, which are not safe: ask the provider for TLS 1.2"
        ),
    ),
    (
        "another protocol",
        raw(b"SSH-2.0-OpenSSH_9.2\r\n"),
        f"HOST:PORT: the reply is not HTTP (while waiting for the reply); {TLS_HINT}",
    ),
    (
        "a private authority",
        untrusted,
        (
            "HOST:PORT: TLS certificate refused: unable to get local issuer certificate; "
            "for a private authority set ca_file; for a public one install the system's ca-certificates"
        ),
    ),
]


@pytest.mark.parametrize(
    ("serves", "expected"), [row[1:] for row in CONNECTIONS], ids=[situation for situation, _, _ in CONNECTIONS]
)
def test_a_connection_without_a_reply(serves: Callable[[], AbstractContextManager[str]], expected: str) -> None:
    with serves() as url:
        # Long enough for a handshake on a busy machine, except where nothing answers.
        endpoint = Endpoint(Provider("acme", token_url=url, timeout=0.5 if serves is silent else WITHIN))
        reply = endpoint.send(Request(url, {}, b""))
        endpoint.close()

    assert isinstance(reply, NoReply)
    said = f"{reply.reason}; {reply.hint}" if reply.hint else reply.reason
    # OpenSSL before 3.2 says the first.
    assert said.replace("record layer failure", "wrong version number") == expected.replace(
        "HOST", "127.0.0.1"
    ).replace("PORT", url.split(":")[2].split("/")[0])


# -- check ---------------------------------------------------------------------------------------------

CONFIGS = [
    (
        "the name of the grant is short",
        "auth: none, grant_type: jwt-bearer, private_key: {file: /k}",
        f"expected the full name of the grant, {JWT_BEARER}, if private_key signs its assertion",
    ),
]


@pytest.mark.parametrize(("keys", "expected"), [row[1:] for row in CONFIGS], ids=[row[0] for row in CONFIGS])
def test_an_error_in_a_config(tmp_path: Path, keys: str, expected: str) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(f"clients: {{dnb: {{token_url: 'https://x/t', client_id: a, {keys}, tokens: {{bci: {{}}}}}}}}\n")
    with pytest.raises(ConfigError) as raised:
        load(str(file), {})

    assert [problem.message for problem in raised.value.problems] == [expected]


def dated(off: float) -> Script:
    """A provider whose clock is this many seconds ahead."""
    answers = issues()

    def script(seen: Seen) -> Answer:
        answer = answers(seen)
        # As a server writes it, in whole seconds.
        answer.headers["Date"] = formatdate(math.floor(time.time() + off), usegmt=True)
        return answer

    return script


def replies(body: Mapping[str, Any], status: int = 200, **headers: str) -> Script:
    """A provider that always gives this reply."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda _: Answer(status, dict(body), named)


T = {"access_token": "t", "token_type": "Bearer", "expires_in": 3600}

QUOTED = "(not shown: it quotes a secret or the token)"

# The situation, the provider, and lines of `check --online`; None for a line that is not there.
LINES: list[tuple[str, Script, Mapping[str, str | None]]] = [
    ("the reply names no scope", replies(T), {"scope requested": "bci", "scope granted": "none named"}),
    ("the reply names a scope", replies(T | {"scope": "bci risk"}), {"scope granted": "bci risk"}),
    (
        "the scope quotes the secret",
        replies(T | {"scope": "hunter2"}),
        {"scope granted": QUOTED},
    ),
    (
        "the scope quotes the token",
        replies(T | {"access_token": "opaque-token", "scope": "a opaque-token"}),
        {"scope granted": QUOTED},
    ),
    ("the reply names no type", replies({"access_token": "t"}), {"token type": "none named, used as Bearer"}),
    (
        "the type quotes the secret",
        replies(T | {"token_type": "hunter2"}),
        {"token type": QUOTED},
    ),
    ("the lifetime is in expires_in", replies(T), {"lifetime": "3600 s, from expires_in"}),
    (
        "the lifetime is in a field of its own",
        replies({"access_token": "t", "expiresIn": 600}),
        {"lifetime": "600 s, from expiresIn", "fields": "access_token, expiresIn"},
    ),
    (
        "the reply names no lifetime",
        replies({"access_token": "t"}),
        {"lifetime": "none named, 3600 s from default_lifetime"},
    ),
    (
        "the lifetime in the reply is shorter than that of the JWT",
        replies({"access_token": jwt({"exp": 4102444800}), "expires_in": 600}),
        {"lifetime": "600 s, from expires_in"},
    ),
    (
        "names of fields that are none",
        replies(T | {"hunter2": 1, "eyJhbGciOiJSUzI1NiJ9.e30": 2, "5f0c8a52-6f0e-4f7c": 3}),
        {"fields": "access_token, token_type, expires_in, 3 more"},
    ),
    (
        "what came back is empty",
        lambda _: Answer(200, b""),
        {"fields": "none (the reply is empty)", "hint": "check that token_url matches the provider's settings"},
    ),
    (
        "what came back is not UTF-8",
        lambda _: Answer(200, b"\xff"),
        {"hint": "check that token_url matches the provider's settings"},
    ),
    ("the provider fails", lambda _: Answer(503), {"hint": "wait; if it lasts, ask the provider"}),
    (
        "what came back is HTML",
        lambda _: Answer(403, HTML, {"Content-Type": "text/html; charset=utf-8"}),
        {"reply": "HTTP 403, text/html, after TIME", "fields": "none (the reply is HTML, not JSON)", "code": None},
    ),
    (
        "what came back quotes the secret in its headers",
        lambda _: Answer(401, {"error": "hunter2"}, {"Content-Type": "hunter/hunter2"}),
        {"reply": "HTTP 401, another Content-Type, after TIME", "code": None},
    ),
    (
        "a refusal with a code",
        replies({"title": "Unknown client"}, 401, Content_Type="application/problem+json"),
        {
            "reply": "HTTP 401, application/problem+json, after TIME",
            "fields": "title",
            "code": '"Unknown client"',
            "hint": CHECK,
        },
    ),
    ("the clocks agree", dated(0), {"clock": None}),
    ("the provider's clock may be less than a second behind", dated(-0.9), {"clock": None}),
    ("the provider's clock is ahead", dated(3930), {"clock": "the provider's is 1 h 5 min ahead of this machine's"}),
    ("the provider's clock is behind", dated(-3930), {"clock": "the provider's is 1 h 5 min behind this machine's"}),
]


@pytest.mark.parametrize(("script", "expected"), [row[1:] for row in LINES], ids=[row[0] for row in LINES])
def test_a_line_of_check_online(script: Script, expected: Mapping[str, str | None]) -> None:
    with serving(script) as server:
        client = replace(CLIENT, provider=Provider("acme", token_url=server.url, timeout=WITHIN))
        finding = next(iter(try_online([target(client=client)], {"DNB_SECRET": "hunter2"})))

    shown = dict(finding.details)
    shown["reply"] = re.sub(r"after [0-9]+ (ms|s)$", "after TIME", shown["reply"])
    assert {name: shown.get(name) for name in expected} == expected
    assert "hunter2" not in str(finding)


def test_the_certificate_and_the_proxy_of_a_request_are_shown(tmp_path: Path) -> None:
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    leaf = ca.issue_cert("bearerd.example.com", common_name="bearerd.example.com", organization_name="Acme")
    leaf.cert_chain_pems[0].write_to_path(str(tmp_path / "certificate"))
    leaf.private_key_pem.write_to_path(str(tmp_path / "key"))
    for name in ("key", "certificate"):
        (tmp_path / name).chmod(0o600)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("127.0.0.1").configure_cert(context)
    ca.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    with serving(issues(), context) as server:
        provider = Provider("acme", token_url=server.url, ca_file=str(tmp_path / "ca.pem"), timeout=WITHIN)
        certified = replace(
            CLIENT,
            provider=provider,
            auth="tls_client_auth",
            client_secret=(),
            tls_certificate=Reference("file", str(tmp_path / "certificate")),
            tls_private_key=Reference("file", str(tmp_path / "key")),
        )
        (by_certificate,) = try_online([target(client=certified)], {})
    with serving(issues()) as proxy:
        provider = Provider("acme", token_url="http://provider.invalid/token", proxy=proxy.url, timeout=WITHIN)
        (proxied,) = try_online([target(client=replace(CLIENT, provider=provider))], {"DNB_SECRET": "hunter2"})

    shown = dict(by_certificate.details)
    # trustme numbers the unit.
    assert re.fullmatch(r"O=Acme, OU=.*, CN=bearerd\.example\.com \(valid for [0-9]+ more days\)", shown["certificate"])
    assert (shown["auth"], shown["parameters"]) == ("tls_client_auth", "grant_type, scope, client_id")
    through = f"through the proxy 127.0.0.1:{proxy.port}"
    assert dict(proxied.details)["request"] == f"POST http://provider.invalid/token, {through}"


def test_one_token_is_one_token(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(
        f"output: {{directory: '{tmp_path}/run'}}\nstate_directory: '{tmp_path}/state'\n"
        "clients: {dnb: {token_url: 'https://x/t', client_id: a, client_secret: {env: SECRET}, tokens: {bci: {}}}}\n"
    )
    done = bearerd("check", "-c", file, env={"RUNTIME_DIRECTORY": "", "SECRET": "hunter2"})
    assert done.stdout.splitlines()[0] == f"ok       config {file}: 1 token"
