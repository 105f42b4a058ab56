"""The likeliest cause of a refusal, from what is known besides the reply. Pure.

The text of a reply is searched and never shown.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Final

from bearerd.grant.body import is_html, parse
from bearerd.grant.metadata import Metadata
from bearerd.grant.outcome import Malformed, Outcome, Refused, Transient
from bearerd.grant.proxy import login_hint
from bearerd.grant.reply import Reply, description
from bearerd.grant.request import Call, Credentials, depends_on_encoding
from bearerd.grant.times import FOLLOWED, SKEWED
from bearerd.model import Target
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


def hinted(outcome: Outcome, reply: Reply, known: Circumstances) -> Outcome:
    """The outcome with the likeliest cause as its hint."""
    provider = known.target.client.provider
    if isinstance(outcome, Transient) and reply.status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED and provider.proxy:
        return replace(outcome, hint=login_hint(provider))
    if not isinstance(outcome, Refused | Malformed):
        return outcome
    hint = _hint(outcome, reply, known)
    return replace(outcome, hint=hint) if hint else outcome


def _hint(outcome: Refused | Malformed, reply: Reply, known: Circumstances) -> str | None:
    if b"plain HTTP request" in reply.body[:1000]:
        return "this port speaks TLS: write https://"
    if b"No required SSL certificate was sent" in reply.body[:1000]:  # nginx
        return "it requires a client certificate: set tls_certificate and tls_private_key"
    if b"The SSL certificate error" in reply.body[:1000]:  # nginx
        return "it does not accept the client certificate"
    said = description(parse(reply.body)[0])
    if re.search(r"\bDPoP\b|dpop_", said, re.IGNORECASE):
        return "the provider requires DPoP, a new proof for each call, which no file can hold: ask it for bearer tokens"
    if not isinstance(outcome, Refused):
        return None
    if outcome.whole_client or _about_assertion(said):
        return _of_client(reply, said, known)
    if re.search(r"audience|resource|invalid_target", said, re.IGNORECASE):
        named = ", ".join(sorted({name for name, _ in known.target.parameters} & {"audience", "resource"}))
        return f"compare parameters: {named}" if named else "set parameters: {audience: …} or {resource: …}"
    return None


def _of_client(reply: Reply, said: str, known: Circumstances) -> str | None:
    client = known.target.client
    signs = client.auth in _SIGNED or client.jwt_bearer is not None
    if signs and known.skew is not None and abs(known.skew) > SKEWED:
        way = "ahead of" if known.skew > 0 else "behind"
        dated = "by the provider's" if abs(known.skew) <= FOLLOWED else f"{duration(FOLLOWED)} off at most"
        return (
            f"the provider's clock is {duration(abs(known.skew))} {way} this machine's: correct this one "
            f"(the next assertion is dated {dated})"
        )
    if signs and re.search(r"\baud\b|audience", said, re.IGNORECASE):
        return (
            f"the assertion is for {known.call.audience}: set assertion_audience to what the provider expects, "
            "often its issuer or its token URL"
        )
    doubts = known.metadata.doubts(client) if known.metadata else None
    if doubts:
        return doubts
    if client.auth == "client_secret_basic" and depends_on_encoding(known.credentials.secret):
        others = "raw or rfc6749" if client.basic_encoding == "compatible" else "compatible"
        return f"the secret contains %, + or a space, which providers decode in two ways: try basic_encoding: {others}"
    if is_html(reply.body):
        return "the reply is HTML, not JSON: check that token_url is the token endpoint itself"
    if client.jwt_bearer is not None:
        return "compare the assertion's issuer, subject and key_id, and the public key, with what the provider knows"
    return _BY_AUTH.get(client.auth)


def _about_assertion(said: str) -> bool:
    return re.search(r"assertion", said, re.IGNORECASE) is not None


_BY_AUTH: Final = {
    "private_key_jwt": "compare client_id, key_id and the public key that is registered with the provider",
    "tls_client_auth": "compare client_id, and the certificate with what is registered with the provider",
    "self_signed_tls_client_auth": "compare client_id, and the certificate with what is registered with the provider",
    "assertion": "compare the assertion's issuer, subject and audience with what the provider trusts",
}
