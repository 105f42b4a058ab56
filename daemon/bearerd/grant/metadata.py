"""An authorization server's metadata (RFC 8414, OpenID Connect Discovery). Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from bearerd.grant.body import parse
from bearerd.grant.outcome import Malformed, RateLimited, Transient
from bearerd.grant.reply import Reply
from bearerd.grant.times import retry_after
from bearerd.model import Client, Provider
from bearerd.terms import TLS_AUTHS

# RFC 8414 section 2: the default if the metadata names no methods.
_BASIC_ONLY: Final = ("client_secret_basic",)


@dataclass(frozen=True, slots=True)
class Metadata:
    """The part of a provider's metadata that a grant uses."""

    token_endpoint: str
    mtls_token_endpoint: str
    """The endpoint for clients with a certificate (RFC 8705 section 5); often the same."""
    auth_methods: tuple[str, ...] = _BASIC_ONLY
    algorithms: tuple[str, ...] = ()
    """The algorithms for signing assertions; empty if the metadata names none."""

    def endpoint(self, client: Client) -> str:
        """The token endpoint for a client."""
        return self.mtls_token_endpoint if client.tls_certificate else self.token_endpoint

    def doubts(self, client: Client) -> str | None:
        """Why this client's authentication may fail, according to the metadata."""
        # A ready assertion is sent as private_key_jwt sends its own.
        method = "private_key_jwt" if client.auth == "assertion" else client.auth
        if method not in self.auth_methods and not (method == "none" and client.jwt_bearer):
            listed = ", ".join(known for known in self.auth_methods if known in _KNOWN)
            only = f", only {listed}" if listed else ""
            return f"the provider's metadata does not list auth {client.auth}{only}"
        # If the grant is signed too, `algorithm` belongs to the grant's key.
        by_it = method == "private_key_jwt" or (method == "client_secret_jwt" and client.jwt_bearer is None)
        algorithm = client.jwt.algorithm if by_it else None
        if algorithm and self.algorithms and algorithm not in self.algorithms:
            return f"the provider's metadata does not list algorithm {algorithm} for assertions"
        return None


# Only method names that the config knows are shown.
_KNOWN: Final = frozenset(
    {"client_secret_basic", "client_secret_post", "client_secret_jwt", "private_key_jwt", "none"} | TLS_AUTHS
)


def well_known_urls(issuer: str) -> tuple[str, str]:
    """The URLs of an issuer's metadata: RFC 8414 section 3.1 first, then OpenID Connect Discovery section 4."""
    parts = urlsplit(issuer)
    path = parts.path.rstrip("/")
    origin = f"{parts.scheme}://{parts.netloc}"
    return (
        f"{origin}/.well-known/oauth-authorization-server{path}",
        f"{origin}{path}/.well-known/openid-configuration",
    )


def read_metadata(reply: Reply, provider: Provider, now: float) -> Metadata | Malformed | RateLimited | Transient:
    """The metadata in a reply to one of the `well_known_urls` that came `now` (Unix time)."""
    if reply.status == 429:  # noqa: PLR2004
        wait = retry_after(reply.headers, now)
        return RateLimited("metadata: HTTP 429: too many requests", phase="discovery", retry_after=wait)
    if reply.status >= 500 or reply.status in {408, 425}:  # noqa: PLR2004
        return Transient(f"metadata: HTTP {reply.status}: a temporary error at the provider", phase="discovery")
    if reply.status != 200:  # noqa: PLR2004
        return Malformed(f"metadata: HTTP {reply.status}", phase="discovery", hint=_HINT)
    fields, fault = parse(reply.body, reply.fault)
    if fields is None:
        return Malformed(f"metadata: HTTP 200, but {fault}", phase="discovery", hint=_HINT)
    named, wanted = fields.get("issuer"), provider.issuer or ""
    if named != wanted:
        # RFC 8414 section 3.3: the metadata of another issuer must not be used.
        if isinstance(named, str) and named.rstrip("/") == wanted.rstrip("/"):
            ending = "with" if named.endswith("/") else "without"
            hint = f"write issuer {ending} / at its end, as the provider does"
        else:
            hint = "write issuer exactly as the provider's own metadata does, or set token_url instead"
        return Malformed("the metadata names another issuer", phase="discovery", hint=hint)
    endpoint = fields.get("token_endpoint")
    aliases = fields.get("mtls_endpoint_aliases")
    alias = aliases.get("token_endpoint") if isinstance(aliases, dict) else None
    for url in (endpoint, alias if alias is not None else endpoint):
        unusable = _unusable(url, provider)
        if unusable:
            return Malformed(f"metadata: {unusable}", phase="discovery", hint="set token_url instead of issuer")
    return Metadata(
        token_endpoint=str(endpoint),
        mtls_token_endpoint=str(alias if alias is not None else endpoint),
        auth_methods=_texts(fields.get("token_endpoint_auth_methods_supported")) or _BASIC_ONLY,
        algorithms=_texts(fields.get("token_endpoint_auth_signing_alg_values_supported")),
    )


# A name or address of at most the length that DNS allows, since the log shows it.
_HOST: Final = r"[A-Za-z0-9._:-]{1,253}"
_HINT: Final = "check issuer, or set token_url instead"


def _unusable(url: Any, provider: Provider) -> str | None:
    """Why a token endpoint cannot be used."""
    if not isinstance(url, str) or not url:
        return "it names no token_endpoint"
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return "its token_endpoint is not a URL"
    if parts.username is not None or "#" in url or re.fullmatch(r"[\x21-\x7e]+", url) is None:
        return "its token_endpoint is not a URL"
    if not host or re.fullmatch(_HOST, host) is None:
        return "its token_endpoint is not a URL"
    # Plain http would show the secret on the network; if the issuer itself uses it, the config allows that.
    if parts.scheme == "https" or (parts.scheme == "http" and url.startswith(_origin(provider.issuer or ""))):
        return None
    return "its token_endpoint is not https"


def host_of(url: str | None) -> str:
    """The host of a URL, without the port."""
    return urlsplit(url or "").hostname or ""


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}/"


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(item for item in value if isinstance(item, str)) if isinstance(value, list) else ()
