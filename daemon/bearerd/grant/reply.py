"""The outcome that a provider's reply means: a token, or a failure of a known kind.

Pure and total: any bytes give one Outcome and no exception, and no message holds a piece of the body.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

from bearerd.grant.body import is_html, parse
from bearerd.grant.codes import CLEAR, OF_THE_CLIENT, PASSING, TOO_OFTEN, code_of, description, in_a_reply, is_secret
from bearerd.grant.lifetime import EXP, jwt_claims, read_lifetime, valid_after
from bearerd.grant.outcome import Issued, Malformed, Outcome, RateLimited, Reading, Refused, Transient
from bearerd.grant.times import age, clock_skew, followed, limit_reset, retry_after
from bearerd.grant.token_field import NoTokenError, find
from bearerd.model import Target
from bearerd.terms import Instant, Token

# Bytes. Some readers stop at 4 KiB (XRootD), and servers limit headers to 8 KiB.
_LONG_TOKEN: Final = 4096


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP response: header names in lower case, and the decoded body up to one byte beyond LONGEST_BODY."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    fault: str = field(default="", repr=False)
    """Why the body could not be decoded."""


# Some say invalid_request about credentials that they cannot decode (oidc-provider, for a stray % in Basic), or have a
# message without a code.
_OF_THE_CLIENT_TEXT: Final = re.compile(
    r"authori[sz]ation header|client.?(id|secret|authentication|assertion)\b|credentials", re.IGNORECASE
)
# Salesforce: invalid_client_id; GitHub: incorrect_client_credentials.
_OF_THE_CLIENT_CODE: Final = re.compile(r"client_(id|secret|credentials)")
# Timeout, conflict with another request, locked, too early.
_PASSING_STATUS: Final = frozenset({408, 409, 423, 425})
# Some report a rate limit under another code (Vertex: invalid_request, iRacing: unauthorized_client).
# Not "Corporate Limited" and "quotation".
_TOO_OFTEN_TEXT: Final = re.compile(
    r"(?-i:(?<![a-z])rate|Rate|(?<![A-Z])RATE).?(limit|exceeded)|too many (requests|attempts|tokens)|throttl"
    r"|quota(?!tion)",
    re.IGNORECASE,
)
# WeChat's errcodes: busy; too many requests. Others (40001, 40013, 40125, 40164 …) refuse the client.
_WECHAT_BUSY: Final = -1
_WECHAT_TOO_OFTEN: Final = frozenset({45009, 45011})

# Headers that proxies send, and providers never do.
_OF_PROXIES: Final = frozenset({"proxy-authenticate", "x-squid-error"})

_OWN_FIELDS: Final = frozenset({"access_token", "token_type", "expires_in", "scope"})
# RFC 6749 section 4.4.3 rules it out. If one comes, it allows more than a reader of the token should have.
_NEVER_KEPT: Final = frozenset({"refresh_token"})


def understand(reply: Reply, target: Target, sent: Instant, never_show: tuple[str, ...] = ()) -> Outcome:
    """The outcome of the reply to a target's request that was sent at a moment.

    `never_show` are secrets: an error code that contains one is not shown.
    """
    fields, fault = parse(reply.body, reply.fault)
    if 200 <= reply.status <= 299:  # noqa: PLR2004
        if fields is None:
            return Malformed(f"HTTP {reply.status}, but {fault}", hint=_HTML_HINT if is_html(reply.body) else None)
        if "error" in fields and fields["error"] not in (None, "", "0", False, [], {}):
            return _refusal(reply, fields, sent, never_show)
        if fields.get("errcode") not in (None, 0, "0", ""):
            return _wechat(reply, fields["errcode"], never_show)
        try:
            holder, access_token = find(
                fields, target.client.provider.token_field, lambda name: _may_be_secret(name, never_show)
            )
        except NoTokenError as error:
            return Malformed(f"HTTP {reply.status}, but {error}", hint=error.hint)
        headers = {value for _, value in target.client.headers}  # texts in the config: not secrets
        return _token(holder, access_token, reply, target, sent, in_a_reply(set(never_show) - headers))
    return _refusal(reply, fields, sent, never_show)


# -- a token -----------------------------------------------------------------------------------------


def _without(secrets: frozenset[str], fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """The fields of a reply that repeat no secret of the request: the readers of its token are not to learn it."""
    kept = {}
    for key, value in fields.items():
        text = json.dumps({key: value})
        if not any(secret in text for secret in secrets):
            kept[key] = value
    return kept


def _token(
    fields: Mapping[str, Any],
    access_token: str,
    reply: Reply,
    target: Target,
    sent: Instant,
    secrets: frozenset[str],
) -> Outcome:
    fault = _unusable(access_token)
    if fault is not None:
        return Malformed(f"the access token {fault}")
    token_type = fields.get("token_type")
    if token_type is not None and not isinstance(token_type, str):
        return Malformed("token_type is not text")
    notes = []
    kind = (token_type or "").lower()
    if kind in {"dpop", "mac", "pop"}:
        return Malformed(
            f"the token is of type {kind}: each call needs a new proof made with a key, which a file cannot contain",
            hint="ask the provider for bearer tokens for this client",
        )
    # A reply's token_type describes its access token.
    is_id_token = target.client.provider.token_field.rpartition(".")[2] == "id_token"
    if kind != "bearer" and not is_id_token:
        shown = "no token_type" if token_type is None else "a token_type other than Bearer"
        notes.append(f"the reply has {shown}; the token is used as a bearer token")
    named_scope = _named_scope(fields)
    scope, note = _scope(named_scope, target)
    if note is not None:
        if target.strict_scope:
            hint = _NO_SCOPE_HINT if named_scope is None else _SCOPE_HINT
            return Refused(f"{note} (strict_scope)", whole_client=False, hint=hint)
        notes.append(f"{note}; {_SCOPE_HINT}")
    notes.extend(_bound(access_token))
    their_clock = _their_clock(reply.headers, sent.wall)
    lifetime = read_lifetime(
        fields, access_token, their_clock, target.default_lifetime, age(reply.headers), target.lifetime_unit
    )
    if lifetime.note and not (is_id_token and lifetime.source == EXP):
        notes.append(lifetime.note)
    if len(access_token) > _LONG_TOKEN:
        notes.append(f"the token is {len(access_token)} bytes long; some readers stop at 4096")
    # Decided by all fields, but kept without those that repeat a secret. A scope that was requested is none.
    kept = _without(secrets, fields)
    if len(kept) < len(fields):
        notes.append("the reply repeats a secret of the request; the fields that contain it are left out")
    if "scope" not in kept and scope != target.scope:
        scope = target.scope or None
    own = _OWN_FIELDS | _NEVER_KEPT | {target.client.provider.token_field.rpartition(".")[2]}
    extra = {key: value for key, value in kept.items() if key not in own}
    token = Token(
        access_token=access_token,
        obtained=sent,
        lifetime=lifetime.seconds,
        token_type=_token_type(token_type if "token_type" in kept else None),
        scope=scope,
        extra=json.dumps(extra),
    )
    reading = Reading(
        token=target.client.provider.token_field,
        lifetime=lifetime.source,
        token_type=token_type is not None,
        scope=named_scope is not None,
    )
    at_reply = sent.wall + followed(clock_skew(reply.headers, sent.wall))  # `Date`, if there is one
    nbf = valid_after(access_token, at_reply)
    return Issued(token, tuple(notes), lifetime.named, nbf=nbf, reading=reading)


_HTML_HINT: Final = (
    "token_url leads to a login page, a proxy or another site: check that it matches the provider's settings"
)
_CLIENT_HINT: Final = "check that client_id, secret and auth match the provider's settings"
_SCOPE_HINT: Final = "ask the provider to grant it to this client"
_NO_SCOPE_HINT: Final = "set strict_scope: false to accept it"


def _bound(access_token: str) -> Iterator[str]:
    """Warnings about a JWT that is bound to a key, and so of no use to its bearer alone (RFC 7800, 8705, 9449)."""
    confirmation = jwt_claims(access_token).get("cnf")
    if isinstance(confirmation, dict) and "x5t#S256" in confirmation:
        yield "the token is bound to the client's certificate: its readers have to present the same certificate"
    if isinstance(confirmation, dict) and "jkt" in confirmation:
        yield "the token is bound to a DPoP key, which its readers do not have: APIs that check this will refuse it"


def _unusable(access_token: str) -> str | None:
    """Why a token cannot be sent in an Authorization header (RFC 6749 A.12: visible ASCII)."""
    if re.search(r"[\r\n\x00]", access_token):
        return "contains a line end or NUL, which would break out of a header"
    if re.fullmatch(r"[\x21-\x7e]+", access_token) is None:
        return "contains white space, control or non-ASCII characters"
    return None


def _token_type(token_type: str | None) -> str:
    """The token type for headers: `Bearer` in any spelling, or the provider's own."""
    if token_type is None or token_type.lower() == "bearer" or re.fullmatch(r"[\x20-\x7e]{1,64}", token_type) is None:
        return "Bearer"
    return token_type


def _named_scope(fields: Mapping[str, Any]) -> str | None:
    """The scope that a reply names: as text, or as a list (Twitch)."""
    given = fields.get("scope")
    if isinstance(given, list) and all(isinstance(item, str) for item in given):
        given = " ".join(given)
    return given if isinstance(given, str) else None


def _scope(given: str | None, target: Target) -> tuple[str | None, str | None]:
    """The granted scope, and a warning. A missing scope means the requested one (RFC 6749 section 5.1)."""
    if given is None:
        # oidc-provider omits it also if it dropped every scope, so strict_scope does not trust it.
        unknown = "the reply names no scope, which RFC 6749 allows if the requested one was granted"
        return target.scope or None, unknown if target.scope and target.strict_scope else None
    if not target.scope:
        return given, None
    # Some separate scopes by commas (GitHub, Adobe).
    separators = re.escape(target.client.scope_separator)
    missing = sorted(set(target.scope.split()) - set(given.split()) - set(re.split(rf"[\s,]+|{separators}", given)))
    # Only requested scopes are shown: anything else is the provider's text.
    return given, f"the token's scope lacks {', '.join(missing)}" if missing else None


# -- a refusal ---------------------------------------------------------------------------------------


def _refusal(reply: Reply, fields: dict[str, Any] | None, sent: Instant, never_show: tuple[str, ...]) -> Outcome:
    found = code_of(fields, reply.headers, reply.status, never_show)
    status, code = reply.status, found.oauth
    if (stopped := _intercepted(reply)) is not None:
        return stopped
    said = f"HTTP {status}" + (f" {found.text}" if found.text else "")
    text = description(fields)
    wait = retry_after(reply.headers, sent.wall)
    spoken = code not in CLEAR and status <= 499 and _TOO_OFTEN_TEXT.search(text)  # noqa: PLR2004
    if status == 429 or code in TOO_OFTEN or spoken:  # noqa: PLR2004
        # Gateways add their reset to each reply, so it means nothing with another failure.
        wait = wait if wait is not None else limit_reset(reply.headers, sent.wall)
        return RateLimited(f"{said}: too many requests", retry_after=wait)
    if status in _PASSING_STATUS or status >= 500 or code in PASSING:  # noqa: PLR2004
        return Transient(f"{said}: a temporary error at the provider", retry_after=wait)
    if 300 <= status <= 399:  # noqa: PLR2004
        there = _destination(reply.headers.get("location", ""), never_show)
        return Malformed(
            f"HTTP {status}: a redirect{there}, which is not followed because it would send the secret there",
            hint="set token_url to the endpoint itself",
        )
    if status in {404, 405, 410, 415} and code not in OF_THE_CLIENT | CLEAR:
        hint = _NO_FORM_HINT if status == 415 else _URL_HINT  # noqa: PLR2004
        return Malformed(f"{said}: not the reply of a token endpoint", hint=hint)
    # An error in a 2xx reply is a refusal even if it is text and not a code.
    unclear = code is None and (status == 403 or 200 <= status <= 299)  # noqa: PLR2004
    if _is_of_client(code, text) or unclear or status == 401:  # noqa: PLR2004
        return Refused(f"{said}: {_refused(code, reply)}", hint=_CLIENT_HINT)
    if code is not None or status == 400:  # noqa: PLR2004
        what = "the scope" if code == "invalid_scope" else "this request"
        return Refused(f"{said}: {what} was refused", whole_client=False)
    return Malformed(f"{said}: not the reply of a token endpoint", hint=_URL_HINT)


_URL_HINT: Final = "check that token_url matches the provider's settings"
_NO_FORM_HINT: Final = (
    "check that token_url matches the provider's settings, and whether it expects a form or JSON (body)"
)


def _refused(code: str | None, reply: Reply) -> str:
    """What was refused: the client, in general."""
    if code == "unsupported_grant_type":
        return "the grant type was refused"
    return "refused with an HTML page, not by a token endpoint" if is_html(reply.body) else "the client was refused"


def _intercepted(reply: Reply) -> Transient | None:
    """A reply of a proxy, or of a firewall that expects a browser, in front of the provider."""
    headers = reply.headers
    if reply.status == 407 or headers.keys() & _OF_PROXIES:  # noqa: PLR2004
        said = f"HTTP {reply.status} from a proxy, not from the provider"
        return Transient(said, hint="ask the operator of the proxy to allow it")
    # Headers of Cloudflare and AWS WAF.
    if headers.get("cf-mitigated") == "challenge" or headers.get("x-amzn-waf-action") in {"challenge", "captcha"}:
        hint = "ask the provider to let this machine's address reach the token endpoint"
        said = f"HTTP {reply.status}: a firewall expects a browser to solve a challenge"
        return Transient(said, hint=hint)
    return None


def _is_of_client(code: str | None, text: str) -> bool:
    """Whether a refusal is about the client, and not about this token."""
    if code is None or code == "invalid_request":
        return _OF_THE_CLIENT_TEXT.search(text) is not None
    return code in OF_THE_CLIENT or _OF_THE_CLIENT_CODE.search(code) is not None


def _wechat(reply: Reply, errcode: Any, never_show: tuple[str, ...]) -> Outcome:
    number = errcode if isinstance(errcode, int) and abs(errcode) < 10**6 else None
    if is_secret(str(number), never_show):
        number = None
    said = f"HTTP {reply.status} with errcode" + (f" {number}" if number is not None else "")
    if number == _WECHAT_BUSY:
        return Transient(f"{said}: a temporary error at the provider")
    if number in _WECHAT_TOO_OFTEN:
        return RateLimited(f"{said}: too many requests")
    return Refused(f"{said}: the client was refused", hint=_CLIENT_HINT)


def _may_be_secret(name: str, never_show: tuple[str, ...]) -> bool:
    """Whether the name of a field may give a secret away. Three letters, which any secret may have, do not."""
    return is_secret(name, never_show if len(name) > 3 else tuple(s for s in never_show if len(s) <= 3))  # noqa: PLR2004


def _their_clock(headers: Mapping[str, str], now: float) -> float:
    """The Unix time by the provider's clock at `now` by ours, never earlier than it was there.

    `Date` has whole seconds. At most an hour of the difference counts.
    """
    skew = clock_skew(headers, now)
    if skew is None:
        return now
    ahead = min(max(0.0, skew), skew + 1)  # the nearest to our clock within the second of `Date`
    return now + followed(ahead)


def _destination(location: str, never_show: tuple[str, ...]) -> str:
    """` to https://host`, without path and query, which could hold a secret."""
    try:
        parts = urlsplit(location)
        host = parts.hostname
    except ValueError:
        return ""
    if not host or re.fullmatch(r"[A-Za-z0-9.:-]{1,253}", host) is None or is_secret(host, never_show):
        return ""
    return f" to {parts.scheme}://{host}" if parts.scheme in {"http", "https"} else f" to {host}"
