"""Rules between the keys of one provider or one client. Pure.

They look at the mapping as the file has it, before the models check it, so that a wrong value under one key hides no
missing or superfluous key beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from types import MappingProxyType
from typing import Any, Final, get_args
from urllib.parse import urlsplit

from bearerd.config.types import Algorithm
from bearerd.config.values import as_list
from bearerd.terms import JWT_BEARER, SHORT_GRANTS, TLS_AUTHS, Auth

# Parameters whose values are secrets.
_SECRET_PARAMETERS: Final = frozenset({"password", "assertion", "actor_token", "refresh_token", "code", "device_code"})
_SECRET_AUTHS: Final = frozenset({"client_secret_basic", "client_secret_post", "client_secret_jwt"})
# The client certificate of connections, and its key.
_PAIR: Final = frozenset({"tls_certificate", "tls_private_key"})
_WITH_KEY: Final = "private_key_jwt, tls_client_auth or self_signed_tls_client_auth"
_HMACS: Final = ("HS256", "HS384", "HS512")


Misfit = tuple[str | None, str]
"""The key that conflicts with others, or None if a key is missing; and what is wrong."""


def provider_misfits(provider: Mapping[str, Any]) -> Iterator[Misfit]:
    """Missing and conflicting keys of a provider."""
    yield from _endpoint_misfits(provider, "issuer")
    yield from _pair_misfits(provider)


def misfits(client: Mapping[str, Any], provider: Mapping[str, Any] = MappingProxyType({})) -> Iterator[Misfit]:
    """Missing and conflicting keys of a client, and keys that have no effect; `provider` is the one that it names."""
    yield from _endpoint_misfits(client, "issuer", "provider")
    yield from _pair_misfits(client)
    auth = client.get("auth", "client_secret_basic")
    if auth not in get_args(Auth):
        return  # the models report it
    grant = client.get("grant_type", "client_credentials")
    signs_grant = grant == JWT_BEARER and "private_key" in client
    # The pair of these methods may also have its other name, or be its provider's.
    own_pair = bool(_PAIR & client.keys())
    presents = auth in TLS_AUTHS and not own_pair
    half = "certificate" in client or ("private_key" in client and not signs_grant)
    needs_pair = presents and (half or not _PAIR & provider.keys())
    has_key = auth == "private_key_jwt" or presents
    signs = _signs(client)
    needed = {
        "client_id": auth not in {"none", "assertion"},  # an assertion names its client itself
        "client_secret": auth in _SECRET_AUTHS,
        "private_key": auth == "private_key_jwt" or needs_pair,
        "certificate": needs_pair,
        "assertion": auth == "assertion",
    }
    for key, is_needed in needed.items():
        if is_needed and key not in client:
            yield None, f"key '{key}' is missing"
    used = {
        "client_secret": (needed["client_secret"], "client_secret_basic, client_secret_post or client_secret_jwt"),
        "basic_encoding": (auth == "client_secret_basic", "client_secret_basic"),
        "private_key": (
            has_key or grant == JWT_BEARER,
            f"{_WITH_KEY}; for a client certificate of the connection use tls_private_key",
        ),
        "certificate": (
            has_key or signs_grant,
            f"{_WITH_KEY}; for a client certificate of the connection use tls_certificate",
        ),
        "assertion": (auth == "assertion", "assertion"),
        "assertion_type": (auth == "assertion", "assertion"),
        "key_id": (signs, "private_key_jwt"),
        "algorithm": (signs, "private_key_jwt or client_secret_jwt"),
        "assertion_audience": (signs, "private_key_jwt or client_secret_jwt"),
        "assertion_claims": (signs, "private_key_jwt or client_secret_jwt"),
        "scope_in": (signs, "private_key_jwt or client_secret_jwt"),
    }
    full = SHORT_GRANTS.get(grant) if isinstance(grant, str) else None
    if full == JWT_BEARER and "private_key" in client and not has_key:
        # The key is right, and so are the keys beside it.
        yield "grant_type", f"expected the full name of the grant, {full}, if private_key signs its assertion"
        return
    for key, (is_used, by) in used.items():
        if key in client and not is_used and own_pair and auth in TLS_AUTHS and f"tls_{key}" in _PAIR:
            yield key, f"expected either {key} or tls_{key}, not both: auth {auth} has one certificate"
        elif key in client and not is_used:
            yield key, f"{key} does not apply to auth {auth}, only to {by}"
    for key in ("assertion_issuer", "assertion_subject"):
        if key in client and not signs_grant:
            yield key, f"{key} only applies to grant_type {JWT_BEARER} with a private_key"
    algorithm = client.get("algorithm")
    if signs and algorithm in get_args(Algorithm):
        hmac = auth == "client_secret_jwt" and not signs_grant
        if hmac != (algorithm in _HMACS):
            suitable = "a secret, such as HS256" if hmac else "a private key, such as RS256 or ES256"
            yield "algorithm", f"expected an algorithm for {suitable}"
    yield from _grant_misfits(client, grant, signs_grant)


def unsealed(client: Mapping[str, Any], share: Mapping[str, Any]) -> str | None:
    """The error for a share without a key, if the client has no secret to take its place."""
    auth = client.get("auth", "client_secret_basic")
    if "key" in share or auth in _SECRET_AUTHS or auth not in get_args(Auth):
        return None
    return (
        f"key 'key' of share is missing: auth {auth} has no client_secret, which would encrypt what is stored; make a "
        "key with openssl rand -hex 32"
    )


def unsigned_claims(client: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """The path of each `assertion_claims` of a token whose client has no assertion that bearerd signs."""
    tokens = client.get("tokens")
    if (
        not isinstance(tokens, dict)
        or client.get("auth", "client_secret_basic") not in get_args(Auth)
        or _signs(client)
    ):
        return
    for name, token in tokens.items():
        if isinstance(token, dict) and "assertion_claims" in token:
            yield "tokens", name, "assertion_claims"


def _signs(client: Mapping[str, Any]) -> bool:
    """Whether bearerd signs an assertion: the grant, or one that authenticates the client."""
    signs_grant = client.get("grant_type") == JWT_BEARER and "private_key" in client
    return signs_grant or client.get("auth") in {"client_secret_jwt", "private_key_jwt"}


def exposed_secrets(client: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """The path of each parameter of a client and its tokens that is a secret and is given as text."""
    for path, parameters in _parameters(client):
        for name in _SECRET_PARAMETERS & parameters.keys():
            if any(isinstance(value, str) for value in as_list(parameters[name])):
                yield (*path, name)


def repeated_client_ids(client: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """The path of each parameter `client_id` of a client and its tokens that its auth already sends."""
    if client.get("auth", "client_secret_basic") != "client_secret_basic":
        yield from ((*path, "client_id") for path, parameters in _parameters(client) if "client_id" in parameters)


def _parameters(client: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any]]]:
    tokens = client.get("tokens")
    holders: dict[tuple[str, ...], Any] = {(): client}
    holders |= {("tokens", name): token for name, token in (tokens if isinstance(tokens, dict) else {}).items()}
    for path, holder in holders.items():
        parameters = holder.get("parameters") if isinstance(holder, dict) else None
        if isinstance(parameters, dict):
            yield (*path, "parameters"), parameters


def _endpoint_misfits(keys: Mapping[str, Any], *others: str) -> Iterator[Misfit]:
    if "token_url" in keys and "issuer" in keys:
        yield "issuer", "expected either token_url or issuer, not both"
    if "token_url" not in keys and not any(other in keys for other in others):
        yield None, f"key 'token_url' is missing; or use {' or '.join(others)} instead"


def _pair_misfits(keys: Mapping[str, Any]) -> Iterator[Misfit]:
    for key in sorted(_PAIR - keys.keys()):
        if _PAIR & keys.keys():
            yield None, f"key '{key}' is missing: a client certificate and its private key are set together"


def _grant_misfits(client: Mapping[str, Any], grant: Any, signs_grant: bool) -> Iterator[Misfit]:
    if grant != JWT_BEARER:
        return
    holders = {path[:-1] for path, parameters in _parameters(client) if "assertion" in parameters}
    # Either the client has an assertion for all tokens, or each token has its own.
    tokens = client.get("tokens")
    ready = () in holders or (isinstance(tokens, dict) and 0 < len(tokens) == len(holders))
    if signs_grant and holders:
        yield (
            "private_key",
            "expected either private_key, which signs an assertion, or parameters.assertion, which is one",
        )
    if not signs_grant and not ready:
        yield (
            "grant_type",
            "this grant needs private_key to sign an assertion, or parameters: {assertion: {file: …}}",
        )
    if signs_grant and "client_id" not in client and "assertion_issuer" not in client:
        yield "grant_type", "this grant needs client_id or assertion_issuer as the issuer of the assertion"


def http_fault(url: str, *, allowed: bool) -> str | None:
    """The error for a URL of plain http, which only loopback may have, and only where `allow_http` allows it."""
    if urlsplit(url).scheme == "https":
        return None
    if not is_loopback(url):
        return "expected https://…: plain http would send the secret unencrypted"
    return None if allowed else "plain http to loopback needs allow_http: true"


def is_loopback(url: str) -> bool:
    """Whether the host of a URL is `localhost` or a loopback address; nothing is resolved."""
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
