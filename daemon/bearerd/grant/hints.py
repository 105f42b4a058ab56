"""The likeliest cause of a refusal, from the reply and the circumstances of the request. Pure.

The text of a reply is searched and never shown.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Final

from bearerd.grant.body import is_html, parse
from bearerd.grant.codes import code_of, description
from bearerd.grant.metadata import Metadata
from bearerd.grant.outcome import HTTP2_HINT, Malformed, Outcome, Refused, Transient
from bearerd.grant.proxy import login_hint
from bearerd.grant.reply import Reply
from bearerd.grant.request import Call, Credentials, basic
from bearerd.grant.times import FOLLOWED, SKEWED
from bearerd.model import Target
from bearerd.terms import SHORT_GRANTS
from bearerd.timeformat import duration

_SIGNED: Final = frozenset({"client_secret_jwt", "private_key_jwt"})


@dataclass(frozen=True, slots=True)
class Circumstances:
    """A grant without its reply."""

    target: Target
    credentials: Credentials
    call: Call
    metadata: Metadata | None
    skew: float | None
    worked: bool = False
    """Whether the provider accepted the same credentials before."""


@dataclass(frozen=True, slots=True)
class _Said:
    """A refusal: its code and all of its text, for searches only."""

    code: str | None
    text: str
    status: int
    html: bool


def hinted(outcome: Outcome, reply: Reply, known: Circumstances) -> Outcome:
    """The outcome with the likeliest cause as its hint."""
    provider = known.target.client.provider
    if isinstance(outcome, Transient) and reply.status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED and provider.proxy:
        return replace(outcome, hint=login_hint(provider))
    if not isinstance(outcome, Refused | Malformed):
        return outcome
    hint = _hint(outcome, reply, known) or outcome.hint
    unread = known.credentials.unread
    if unread and isinstance(outcome, Refused) and outcome.whole_client:  # one of these may be the right secret
        hint = "; ".join(filter(None, (not_used(unread), hint)))
    return replace(outcome, hint=hint)


def not_used(unread: Sequence[str]) -> str:
    """What to say about the secrets of a list that could not be read."""
    if len(unread) == 1:
        return f"one of its secrets was not used: {unread[0]}"
    return f"{len(unread)} of its secrets were not used: {'; '.join(unread)}"


def _hint(outcome: Refused | Malformed, reply: Reply, known: Circumstances) -> str | None:
    if _PLAIN_TO_TLS.search(reply.body[:1000]):
        return "this port speaks TLS: write https://"
    if b"No required SSL certificate was sent" in reply.body[:1000]:  # nginx
        return "the server requires a client certificate: set tls_certificate and tls_private_key"
    if b"The SSL certificate error" in reply.body[:1000]:  # nginx
        return "the server does not accept the client certificate"
    if reply.status == 426 or b"expected `h2`" in reply.body[:1000]:  # noqa: PLR2004 - upgrade required; Node.js
        return HTTP2_HINT
    fields, _ = parse(reply.body)
    code = code_of(fields, reply.headers, reply.status, ()).oauth
    said = _Said(code, description(fields), reply.status, is_html(reply.body))
    if re.search(r"\bDPoP\b|dpop_", said.text, re.IGNORECASE):
        return (
            "the provider requires DPoP, a new proof for each call, which a file cannot contain: "
            "ask it for bearer tokens"
        )
    if not isinstance(outcome, Refused):
        # Providers answer this at /.well-known/openid-configuration, below any path.
        metadata = fields is not None and {"issuer", "token_endpoint"} <= fields.keys()
        return "this is the metadata of an issuer: set token_url to its token_endpoint" if metadata else None
    if outcome.whole_client or re.search(r"assertion", said.text, re.IGNORECASE):
        return _of_grant(said, known) or _of_assertion(said, known) or _of_client(said, known)
    # With strict_scope, the reply was no refusal, and the outcome has its own hint.
    return None if outcome.hint else _of_token(said, known)


# nginx, Go, Apache, Tomcat.
_PLAIN_TO_TLS: Final = re.compile(
    rb"plain HTTP request|HTTP request to an HTTPS server|plain HTTP to an SSL|port requires TLS"
)


def _of_token(said: _Said, known: Circumstances) -> str | None:
    """What to try after a refusal of this token alone."""
    if said.html:
        return "check that token_url matches the provider's settings"
    # Providers also speak of resources in texts about a scope (Entra, Okta).
    if said.code == "invalid_scope":
        wanted = (
            "check that scope matches the provider's settings, and have it granted to this client"
            if known.target.scope
            else "set scope: the provider has no default one"
        )
        default = "; Entra ID wants an API's scope with /.default at its end" if "/.default" in said.text else ""
        return f"{wanted}{default}"
    if re.search(r"audience|resource|invalid_target", said.text, re.IGNORECASE):
        named = ", ".join(sorted({name for name, _ in known.target.parameters} & {"audience", "resource"}))
        return f"check parameters: {named}" if named else "set parameters: {audience: …} or {resource: …}"
    return "check that the provider allows this client's scope and parameters"


def _of_grant(said: _Said, known: Circumstances) -> str | None:
    """What to try if the provider refuses the grant type, or what is exchanged, and not the credentials."""
    client = known.target.client
    full = SHORT_GRANTS.get(client.grant_type)
    if said.code in {"unsupported_grant_type", "unauthorized_client", "invalid_grant"} and full:
        return f"write the full name of the grant: grant_type: {full}"
    if said.code == "unsupported_grant_type":
        return (
            f"the token endpoint does not support grant_type {client.grant_type}: "
            "check that grant_type and token_url match the provider's settings"
        )
    if said.code == "unauthorized_client" and not _OF_CREDENTIALS.search(said.text):
        return (
            f"the client is not allowed to use grant_type {client.grant_type}: have it enabled for this client at the "
            "provider; some providers also answer this to an unknown client_id"
        )
    exchanged = {name for name, _ in known.target.parameters} & {"subject_token", "assertion"}
    if said.code == "invalid_grant" and exchanged:
        name = ", ".join(sorted(exchanged))
        return f"the provider refused {name}: check that the token in its file is fresh, and meant for this provider"
    return None


# What a secret file has if a line of a shell, of an env file or of a config was copied into it.
_QUOTED: Final = re.compile(r"[\"\'\u201c\u2018].+[\"\'\u201d\u2019]")
_ASSIGNED: Final = re.compile(r"(export )?\w*secret\w*\s*[=:]", re.IGNORECASE)
# Keycloak, and Entra for an unknown client.
_OF_CREDENTIALS: Final = re.compile(r"credential|secret|AADSTS7000\d\d", re.IGNORECASE)


def _of_assertion(said: _Said, known: Circumstances) -> str | None:
    """What to try after the refusal of an assertion that bearerd signs, if its times or its audience may be wrong."""
    client = known.target.client
    if client.auth not in _SIGNED and client.jwt_bearer is None:
        return None
    if known.skew is not None and abs(known.skew) > SKEWED:
        way = "ahead of" if known.skew > 0 else "behind"
        most = "" if abs(known.skew) <= FOLLOWED else f", within {duration(FOLLOWED)} of this machine's"
        return (
            f"the provider's clock is {duration(abs(known.skew))} {way} this machine's: correct this machine's "
            f"clock (until then, assertions use the provider's clock{most})"
        )
    if _OF_AUDIENCE.search(said.text):
        return (
            f"the assertion is for {_audience(known)}: set assertion_audience to what the provider expects, "
            "often its issuer or its token URL"
        )
    return None


# AADSTS50027 is Entra's code for an assertion with wrong claims, in general the audience; 700023 for the audience.
_OF_AUDIENCE: Final = re.compile(r"\baud\b|audience|AADSTS50027|AADSTS700023", re.IGNORECASE)


def _of_client(said: _Said, known: Circumstances) -> str | None:
    """What to try after a refusal of the client."""
    client, credentials = known.target.client, known.credentials
    if said.html:
        # Firewalls answer with 403.
        firewall = said.status == 403  # noqa: PLR2004
        then = (
            "ask the provider to let this machine's address through" if firewall else "check client_id, secret and auth"
        )
        return f"check that token_url matches the provider's settings; if it does, {then}"
    for pattern, hint in _BY_TEXT:
        if re.search(pattern, said.text, re.IGNORECASE):
            return hint
    if known.worked:
        return "the provider accepted the same credentials before: ask whether it revoked, replaced or locked them"
    for name, value in (("client_id", credentials.client_id), ("the secret", credentials.secret)):
        where = f" ({credentials.source})" if name == "the secret" and credentials.source else ""
        if miscopied := _miscopied(value):
            return f"{name}{where} {miscopied}"
    doubts = known.metadata.doubts(client) if known.metadata else None
    if doubts:
        return doubts
    if client.auth == "client_secret_basic" and (other := _other_encoding(known)):
        return (
            "the id or secret contains a character that providers decode differently (such as :, %, + or a space): "
            f"try {other}"
        )
    return _check(known)


def _miscopied(value: str) -> str | None:
    """How an id or a secret shows that more was copied than the value itself."""
    if value != value.strip("\ufeff \t\r\n"):
        return "begins or ends with white space or a byte order mark, which was sent too: remove it"
    if "\n" in value:
        return "has more than one line, and all of them were sent: keep only the one with the secret"
    if _QUOTED.fullmatch(value):
        return "has quotes around it, which were sent too: remove them"
    if _ASSIGNED.match(value):
        return "begins with a name and '=' or ':', which was sent too: keep only what follows"
    return None


def _check(known: Circumstances) -> str | None:
    """What to check, by the client's auth."""
    client = known.target.client
    audience = f"{_audience(known)} (assertion_audience)"
    if client.jwt_bearer is not None:
        return f"check issuer, subject, key_id, public key and audience of the assertion, which is for {audience}"
    if client.auth == "private_key_jwt":
        return f"check client_id, key_id, public key and audience of the assertion, which is for {audience}"
    return _BY_AUTH.get(client.auth)


_BY_TEXT: Final = (
    (
        r"AADSTS7000222|(secret|key|credential)s?\b.{0,40}\bexpired|\bexpired.{0,20}(secret|credential)",
        "the provider says that the secret or key has expired: register a new one",
    ),
    (
        r"\bIP\b.{0,40}(restrict|allow|whitelist|block)|(restricted|invalid|unauthori[sz]ed) IP\b",
        "the provider does not accept this machine's IP address for this client: have it allowed",
    ),
    (
        r"subscription key",  # Azure API Management
        "the gateway in front of the provider requires a valid subscription key: set headers, or check the key there",
    ),
    (r"AADSTS7000215", "check client_id and secret; Entra ID wants the secret's value, not its ID"),
)


def _other_encoding(known: Circumstances) -> str | None:
    """The next setting to try for id and secret in HTTP Basic; None if all providers read these in the same way.

    Most providers do not decode, so `raw` is the first to try. A form is decoded by all of them, so it is the last.
    """
    now = known.target.client.basic_encoding
    if ":" not in known.credentials.client_id and basic(known.credentials, now) != basic(known.credentials, "raw"):
        # For other characters than these, `compatible` is the same as `raw`.
        return "basic_encoding: raw"
    if re.search(r"[:%+ ]|[^\x20-\x7e]", known.credentials.client_id + known.credentials.secret):
        return "auth: client_secret_post, which sends them in the form"
    return None


def _audience(known: Circumstances) -> str:
    """The audience of an assertion, which need not be a URL; without a query, which may hold a key."""
    return known.call.audience.partition("?")[0]


_BY_AUTH: Final = {
    "client_secret_jwt": "check that client_id, secret and assertion_audience match the provider's settings",
    "tls_client_auth": "check that client_id and the certificate match those registered with the provider",
    "self_signed_tls_client_auth": "check that client_id and the certificate match those registered with the provider",
    "assertion": "check that the provider trusts the assertion's issuer, subject and audience",
    "none": "check that client_id matches the provider's settings; with auth: none no secret is sent",
}
