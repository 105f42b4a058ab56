"""The token request: body and headers, with the client authenticated (RFC 6749 sections 2.3 and 4.4.2). Pure."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, assert_never
from urllib.parse import quote, quote_plus, urlencode

from bearerd import __version__
from bearerd.errors import KeyUnusable, SecretUnavailable
from bearerd.grant.assertion import Signer, claims, sign
from bearerd.model import Client, Jwt, JwtBearer, Target
from bearerd.terms import CLIENT_ASSERTION, BasicEncoding, Body

UNNAMED: Final = ("the client certificate", "its private key")
"""What messages call a certificate and its key if it is not known where they were read."""


@dataclass(frozen=True, slots=True)
class Access:
    """The headers, certificate and proxy password of a request to a provider, as read for one request."""

    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    """Additional headers."""
    certificate: str = field(default="", repr=False)
    """The client certificate of the connection (RFC 8705)."""
    private_key: str = field(default="", repr=False)
    named: tuple[str, str] = field(default=UNNAMED, compare=False)
    """Where these two were read, for messages."""
    proxy_password: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Credentials:
    """A client id and its credentials, as read for one grant."""

    client_id: str
    secret: str = field(default="", repr=False)
    """The client secret, or for auth `assertion` the ready JWT."""
    private_key: str = field(default="", repr=False)
    certificate: str = field(default="", repr=False)
    source: str = field(default="", compare=False)
    """The source of the secret, for messages."""
    access: Access = field(default=Access(), repr=False)
    unread: tuple[str, ...] = field(default=(), repr=False, compare=False)
    """Why other secrets of the list could not be read, for messages."""


@dataclass(frozen=True, slots=True)
class Call:
    """The destination of a request, the time there, and a random text."""

    token_url: str
    audience: str
    now: float
    """Unix time by the provider's clock, as far as that is known."""
    nonce: str
    """Random: it becomes the assertion's `jti`."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request that is ready to be sent. Headers and body hold the secret and are never shown."""

    url: str
    headers: dict[str, str] = field(repr=False)
    body: bytes | None = field(default=None, repr=False)
    """None for a GET."""
    access: Access = field(default=Access(), repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False, compare=False)
    """Texts that a reply may echo, and that are never shown."""


def compose(target: Target, credentials: Credentials, parameters: Sequence[tuple[str, str]], call: Call) -> Request:
    """The token request of a target; `parameters` are its own, read.

    Raises SecretUnavailable for a key that cannot sign, ExtraMissing if signing is not installed.
    """
    client = target.client
    scope = client.scope_separator.join(target.scope.split())
    form = [("grant_type", client.grant_type)]
    if client.jwt_bearer is not None:
        form.append(("assertion", _grant_assertion(target, client.jwt_bearer, scope, credentials, call)))
    if scope and not client.scope_in_assertion:
        form.append(("scope", scope))
    form.extend(parameters)
    secrets = [credentials.secret]
    headers = _headers(credentials.access) | {"Content-Type": _CONTENT_TYPES[client.body]}
    if client.auth == "client_secret_basic":
        headers["Authorization"] = basic(credentials, client.basic_encoding)
        secrets.append(headers["Authorization"].removeprefix("Basic "))
    form.extend(_in_form(target, scope, credentials, call))
    body = urlencode(form) if client.body == "form" else _json(form)
    secrets += [value for name, value in form if name in {"assertion", "client_assertion"}]
    secrets += [
        value for name, value in parameters if (name, value) not in target.parameters
    ]  # only those that were read from a reference
    secrets += [credentials.access.proxy_password] if credentials.access.proxy_password else []
    secrets += [
        value
        for name, value in credentials.access.headers
        if (name, value) not in client.headers or len(value) >= _LIKE_A_SECRET
    ]
    return Request(call.token_url, headers, body.encode("ascii"), credentials.access, tuple(secrets))


def get(url: str, access: Access = Access()) -> Request:
    """A GET request without credentials."""
    return Request(url, _headers(access), access=access)


_CONTENT_TYPES: Final[dict[Body, str]] = {
    "form": "application/x-www-form-urlencoded",
    "json": "application/json",
}


def _json(form: Sequence[tuple[str, str]]) -> str:
    """The parameters as a JSON object; one with several values is a list."""
    values: dict[str, list[str]] = {}
    for name, value in form:
        values.setdefault(name, []).append(value)
    return json.dumps({name: several[0] if len(several) == 1 else several for name, several in values.items()})


def _headers(access: Access) -> dict[str, str]:
    """The headers of every request. A configured one replaces bearerd's own of the same name."""
    configured = {name.lower() for name, _ in access.headers}
    return {name: value for name, value in HEADERS.items() if name.lower() not in configured} | dict(access.headers)


HEADERS: Final = {
    "Accept": "application/json",
    # A compressed reply could expand to a thousand times its size.
    "Accept-Encoding": "identity",
    "User-Agent": f"bearerd/{__version__}",
}


# Characters. A shorter value in the config, such as `en`, is no secret, and is part of many error codes.
_LIKE_A_SECRET: Final = 8


def prove_signing(client: Client, credentials: Credentials) -> None:
    """Sign an empty assertion if the client uses any; raises as `compose` does."""
    if client.jwt_bearer is not None:
        _signed({}, client, credentials)
    if client.auth in {"client_secret_jwt", "private_key_jwt"}:
        _signed({}, client, credentials, by_secret=client.auth == "client_secret_jwt")


def _in_form(target: Target, scope: str, credentials: Credentials, call: Call) -> list[tuple[str, str]]:
    """The form fields that authenticate a client."""
    client = target.client
    named = [("client_id", credentials.client_id)] if credentials.client_id else []
    kind = CLIENT_ASSERTION
    match client.auth:
        case "client_secret_basic":
            return []
        case "client_secret_post":
            return [*named, ("client_secret", credentials.secret)]
        case "client_secret_jwt" | "private_key_jwt":
            subject = credentials.client_id
            by_secret = client.auth == "client_secret_jwt"
            what = claims(subject, subject, call.audience, call.now, call.nonce)
            if client.jwt_bearer is None:  # else they are claims of the grant
                what |= _additional(target, scope)
            assertion = _signed(what, client, credentials, by_secret=by_secret)
        case "assertion":
            assertion, kind = credentials.secret, client.assertion_type
        case "tls_client_auth" | "self_signed_tls_client_auth":
            return named
        case "none":
            return [] if client.jwt_bearer is not None else named  # the grant's assertion names the client
        case _:
            assert_never(client.auth)
    # With client_id, which RFC 7521 leaves open and Entra wants.
    return [*named, ("client_assertion_type", kind), ("client_assertion", assertion)]


def _grant_assertion(target: Target, bearer: JwtBearer, scope: str, credentials: Credentials, call: Call) -> str:
    what = claims(
        bearer.issuer or credentials.client_id, bearer.subject, call.audience, call.now, f"{call.nonce}-grant"
    )
    return _signed(what | _additional(target, scope), target.client, credentials)


def _additional(target: Target, scope: str) -> dict[str, Any]:
    """The claims from the config, and the scope if it is one."""
    additional: dict[str, Any] = json.loads(target.claims)
    return additional | ({"scope": scope} if scope and target.client.scope_in_assertion else {})


def _signed(what: dict[str, Any], client: Client, credentials: Credentials, *, by_secret: bool = False) -> str:
    """The claims, signed with the secret or with the private key."""
    # If the grant is signed too, `key_id` and `algorithm` belong to its private key.
    jwt = Jwt() if by_secret and client.jwt_bearer is not None else client.jwt
    signer = Signer(
        secret=credentials.secret if by_secret else "",
        private_key="" if by_secret else credentials.private_key,
        certificate="" if by_secret else credentials.certificate,
        key_id=jwt.key_id,
        algorithm=jwt.algorithm,
    )
    try:
        return sign(what, signer)
    except KeyUnusable as error:
        where = credentials.source if error.part == "client_secret" else str(getattr(client, error.part))
        named = f"{error.part} {where}" if where else error.part
        raise SecretUnavailable(f"{named}: {error}") from None


def basic(credentials: Credentials, encoding: BasicEncoding) -> str:
    """The Authorization header of HTTP Basic.

    RFC 6749 form-encodes id and secret first, but half of the providers do not decode them. `compatible` encodes only
    the characters that would otherwise break: `%`, `+`, the space, control and non-ASCII characters, and `:` in the
    id. Both halves then read all others, such as `/ = ! $ @ # ~`, in the same way.
    """
    name = _ENCODERS[encoding](credentials.client_id)
    if encoding == "compatible":
        name = name.replace(":", "%3A")
    pair = f"{name}:{_ENCODERS[encoding](credentials.secret)}"
    return "Basic " + base64.b64encode(pair.encode()).decode("ascii")


def _compatible(text: str) -> str:
    return re.sub(r"[%+ \x00-\x1f\x7f]|[^\x00-\x7f]+", lambda match: quote(match[0], safe=""), text)


_ENCODERS: Final[dict[BasicEncoding, Callable[[str], str]]] = {
    "compatible": _compatible,
    "rfc6749": lambda text: quote_plus(text, safe=""),
    "raw": lambda text: text,
}
