from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any
from urllib.parse import quote_plus

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bearerd.grant.outcome import Failure, Issued, Malformed, Outcome, RateLimited, Refused, Transient
from bearerd.grant.reply import Reply, understand
from bearerd.grant.times import clock_skew
from bearerd.model import Output
from bearerd.publish.publisher import _MOST_RECORD_BYTES
from bearerd.publish.record import Record, dump, load
from bearerd.publish.render import render
from support.clock import START
from support.targets import CLIENT, target

LONGEST = 65536
"""Bytes: no reply may be longer, and so no token."""
UUID = "5f0c8a52-6f0e-4f7c-9d0e-1f6f3a0b7c11"
GOOD = b'{"access_token": "t", "token_type": "Bearer", "expires_in": 3600}'
HTML = b"<!DOCTYPE html>\n<html><body>Please log in</body></html>"

Headers = dict[str, str]


def understood(status: int, body: bytes, headers: Headers | None = None, **changes: Any) -> Outcome:
    return understand(Reply(status, headers or {}, body), target(**changes), START)


def issued(body: bytes, **changes: Any) -> Issued:
    outcome = understood(200, body, **changes)
    assert isinstance(outcome, Issued), outcome
    return outcome


# -- failures ------------------------------------------------------------------------------------------

# The message of an expected failure must be part of the real one, hint included; all its
# other fields must be equal.
REFUSED = [
    pytest.param(
        401,
        {},
        b'{"error": "invalid_client", "error_description": "Bad credentials"}',
        Refused("HTTP 401 invalid_client: the client was refused"),
        id="dnb-bad-credentials",
    ),
    pytest.param(
        401,
        {},
        b'{"error":"unauthorized_client","error_description":"Invalid client or Invalid client credentials"}',
        Refused("HTTP 401 unauthorized_client: the client was refused"),
        id="keycloak",
    ),
    pytest.param(
        400,
        {},
        b'{"error":"invalid_client"}',
        Refused("HTTP 400 invalid_client: the client was refused"),
        id="duende",
    ),
    pytest.param(403, {}, b"", Refused("HTTP 403: the client was refused"), id="glewlwyd"),
    pytest.param(
        401,
        {"www-authenticate": 'Bearer error="invalid_client"'},
        b'{"error": "invalid_client"}',
        Refused("HTTP 401 invalid_client: the client was refused"),
        id="django-oauth-toolkit",
    ),
    pytest.param(401, {}, HTML, Refused("HTTP 401: refused with an HTML page"), id="401-html"),
    pytest.param(401, {}, b'{"error": "access_denied"}', Refused("HTTP 401 access_denied: the client"), id="401-other"),
    pytest.param(
        403,
        {},
        b'{"error": "access_denied"}',
        Refused("HTTP 403 access_denied: this request was refused", whole_client=False),
        id="access-denied",
    ),
    pytest.param(
        400,
        {},
        b'{"error": "invalid_scope"}',
        Refused("HTTP 400 invalid_scope: the scope was refused", whole_client=False),
        id="invalid-scope",
    ),
    pytest.param(400, {}, b"", Refused("HTTP 400: this request was refused", whole_client=False), id="400-empty"),
    pytest.param(
        400,
        {},
        b'{"error": {"errorCode": "00041", "errorMessage": "You are not currently authorised"}}',
        Refused("HTTP 400 00041: this request was refused", whole_client=False),
        id="dnb-direct-error-object",
    ),
    pytest.param(
        200,
        {},
        b'{"error": "invalid_client", "access_token": "t"}',
        Refused("HTTP 200 invalid_client: the client was refused"),
        id="200-with-error",
    ),
    pytest.param(
        200,
        {},
        b'{"errcode":40013,"errmsg":"invalid appid"}',
        Refused("HTTP 200 with errcode 40013: the client was refused"),
        id="wechat-refused",
    ),
    pytest.param(200, {}, b'{"errcode":999999}', Refused("with errcode 999999: the"), id="errcode-of-6-figures"),
    # Longer numbers could be anything, and are not shown.
    pytest.param(200, {}, b'{"errcode":1000000}', Refused("HTTP 200 with errcode: the"), id="errcode-of-7-figures"),
    pytest.param(200, {}, b'{"errcode":"40013"}', Refused("HTTP 200 with errcode: the"), id="errcode-text"),
]

PASSING = [
    pytest.param(
        400,
        {},
        b'{"error":"invalid_request","error_description":"has exceeded the rate limit of 10 tokens/28800 seconds"}',
        RateLimited("HTTP 400 invalid_request: too many requests"),
        id="vertex",
    ),
    pytest.param(
        400,
        {"retry-after": "7"},
        b'{"error":"unauthorized_client","error_description":"Rate limit exceeded"}',
        RateLimited("HTTP 400 unauthorized_client: too many requests", retry_after=7.0),
        id="iracing",
    ),
    pytest.param(400, {}, b'{"error": "slow_down"}', RateLimited("HTTP 400 slow_down"), id="slow-down"),
    pytest.param(
        400,
        {},
        b'{"error": {"code": "x", "message": "Too many requests"}}',
        RateLimited("too many requests"),
        id="error-object-with-a-text",
    ),
    pytest.param(200, {}, b'{"errcode":45009}', RateLimited("HTTP 200 with errcode 45009"), id="wechat-too-often"),
    pytest.param(200, {}, b'{"errcode":-1}', Transient("HTTP 200 with errcode -1"), id="wechat-busy"),
    pytest.param(200, {}, b'{"errcode":45011}', RateLimited("HTTP 200 with errcode 45011"), id="wechat-too-often-2"),
    pytest.param(408, {}, b"", Transient("HTTP 408: a temporary error at the provider"), id="408"),
    pytest.param(425, {}, b"", Transient("HTTP 425: a temporary error at the provider"), id="425"),
    pytest.param(500, {}, HTML, Transient("HTTP 500: a temporary error at the provider"), id="500-html"),
    pytest.param(
        503,
        {"retry-after": "120"},
        b"",
        Transient("HTTP 503: a temporary error at the provider", retry_after=120.0),
        id="503",
    ),
    # Not this client's fault, whatever it is called.
    pytest.param(
        500,
        {},
        b'{"error": "invalid_client"}',
        Transient("HTTP 500 invalid_client: a temporary error"),
        id="500-invalid-client",
    ),
    pytest.param(
        400,
        {},
        b'{"error": "temporarily_unavailable"}',
        Transient("HTTP 400 temporarily_unavailable: a temporary error at the provider"),
        id="temporarily-unavailable",
    ),
    # A proxy's own reply is not a refusal by the provider.
    pytest.param(
        407,
        {},
        b"",
        Transient("HTTP 407 from a proxy, not from the provider; ask the operator of the proxy to allow it"),
        id="407",
    ),
    pytest.param(
        403, {"x-squid-error": "ERR_ACCESS_DENIED 0"}, HTML, Transient("HTTP 403 from a proxy, not"), id="403-squid"
    ),
    pytest.param(
        401, {"proxy-authenticate": "Basic"}, b"", Transient("HTTP 401 from a proxy, not"), id="401-of-a-proxy"
    ),
    pytest.param(
        429, {"x-squid-error": "x", "retry-after": "7"}, b"", Transient("HTTP 429 from a proxy"), id="429-squid"
    ),
]

MALFORMED = [
    pytest.param(
        200,
        {},
        HTML,
        Malformed("HTTP 200, but the reply is HTML, not JSON; token_url leads to a login page"),
        id="html",
    ),
    pytest.param(200, {}, b"access_token=t&token_type=bearer", Malformed("is not JSON"), id="form"),
    pytest.param(200, {}, b"[" + GOOD + b"]", Malformed("HTTP 200, but the reply is not a JSON object"), id="array"),
    pytest.param(200, {}, b'"t"', Malformed("the reply is not a JSON object"), id="string"),
    pytest.param(200, {}, GOOD + b"\xff", Malformed("the reply is not UTF-8"), id="bad-utf-8"),
    pytest.param(200, {}, GOOD[:-1], Malformed("the reply is not JSON"), id="cut-short"),
    pytest.param(
        200,
        {},
        b'{"access_token": "t", "access_token": "u"}',
        Malformed("the reply names a field twice"),
        id="duplicate-keys",
    ),
    pytest.param(
        200,
        {},
        b'{"access_token": "t", "more": {"a": 1, "a": 2}}',
        Malformed("the reply names a field twice"),
        id="duplicate-keys-inside",
    ),
    pytest.param(
        200, {}, b'{"access_token": "t", "expires_in": NaN}', Malformed("the reply holds NaN or Infinity"), id="nan"
    ),
    pytest.param(
        200, {}, b'{"access_token": "t", "x": -Infinity}', Malformed("the reply holds NaN or Infinity"), id="infinity"
    ),
    pytest.param(200, {}, b"[" * 60_000, Malformed("the reply is nested more than 32 levels deep"), id="nested"),
    pytest.param(204, {}, b"", Malformed("HTTP 204, but the reply is empty"), id="204-empty"),
    pytest.param(200, {}, b" \r\n", Malformed("the reply is empty"), id="200-blank"),
    pytest.param(
        200, {}, GOOD.ljust(LONGEST + 1), Malformed("the reply is longer than 65536 bytes"), id="64-KiB-and-a-byte"
    ),
    pytest.param(
        200, {}, b"{}", Malformed("HTTP 200, but the reply has no access_token; it has: no fields"), id="no-token"
    ),
    pytest.param(200, {}, b'{"access_token": ""}', Malformed("access_token in the reply is empty"), id="empty-token"),
    pytest.param(
        200, {}, b'{"access_token": 7}', Malformed("access_token in the reply is not text"), id="token-a-number"
    ),
    pytest.param(
        200,
        {},
        b'{"access_token": "t", "token_type": ["Bearer"]}',
        Malformed("token_type is not text"),
        id="token-type-a-list",
    ),
    pytest.param(
        200,
        {},
        b'{"access_token": "t", "token_type": "DPoP"}',
        Malformed("the token is of type dpop: each call needs a new proof"),
        id="dpop",
    ),
    pytest.param(
        200, {}, b'{"access_token": "t", "token_type": "mac"}', Malformed("the token is of type mac"), id="mac"
    ),
    pytest.param(
        200, {}, b'{"access_token": "t", "token_type": "PoP"}', Malformed("the token is of type pop"), id="pop"
    ),
    pytest.param(
        404, {}, HTML, Malformed("HTTP 404: not the reply of a token endpoint; check that token_url"), id="404"
    ),
    pytest.param(405, {}, b"", Malformed("HTTP 405: not the reply of a token endpoint"), id="405"),
    pytest.param(
        302,
        {"location": "https://sso.example.com/login?client_secret=s3cret"},
        b"",
        Malformed("HTTP 302: a redirect to https://sso.example.com, which is not followed"),
        id="redirect",
    ),
    pytest.param(
        300,
        {"location": "http://sso.example.com:8080/x"},
        b"",
        Malformed("HTTP 300: a redirect to http://sso.example.com, which"),
        id="redirect-plain",
    ),
    pytest.param(
        399,
        {"location": "//sso.example.com/x"},
        b"",
        Malformed("a redirect to sso.example.com, which"),
        id="redirect-host",
    ),
    pytest.param(307, {"location": "/elsewhere"}, b"", Malformed("HTTP 307: a redirect, which"), id="redirect-inside"),
    pytest.param(308, {}, b"", Malformed("HTTP 308: a redirect, which"), id="redirect-nowhere"),
    pytest.param(301, {"location": "http://[::1"}, b"", Malformed("HTTP 301: a redirect, which"), id="redirect-broken"),
]


@pytest.mark.parametrize(("status", "headers", "body", "expected"), REFUSED + PASSING + MALFORMED)
def test_failures_have_the_right_kind(status: int, headers: Headers, body: bytes, expected: Failure) -> None:
    outcome = understood(status, body, headers)

    assert isinstance(outcome, Failure)
    assert expected.message in str(outcome)
    assert replace(outcome, message=expected.message, hint=None) == expected


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        *((code, Refused("")) for code in ("invalid_client", "unauthorized_client", "invalid_grant")),
        ("unsupported_grant_type", Refused("")),
        *((code, Refused("", whole_client=False)) for code in ("invalid_scope", "invalid_request", "invalid_target")),
        *((code, Transient("")) for code in ("temporarily_unavailable", "server_error")),
        *((code, RateLimited("")) for code in ("slow_down", "too_many_requests", "rate_limit_exceeded")),
        *((code, RateLimited("")) for code in ("rate_limited", "too_many_attempts")),
    ],
)
@pytest.mark.parametrize("form", ['{"error": "%s"}', '{"error": {"code": "%s"}}'], ids=["text", "object"])
@pytest.mark.parametrize("upper", [False, True])
def test_the_error_code_counts_more_than_the_status(form: str, code: str, expected: Failure, *, upper: bool) -> None:
    code = code.upper() if upper else code
    outcome = understood(400, (form % code).encode())

    assert isinstance(outcome, Failure)
    assert outcome.message.startswith(f"HTTP 400 {code}: ")
    assert replace(outcome, message="", hint=None) == expected


@pytest.mark.parametrize(
    ("text", "whole_client"),
    [
        pytest.param("invalid authorization header value format", True, id="oidc-provider"),
        pytest.param("Malformed Authorisation Header", True, id="british"),
        pytest.param("Missing client_id", True, id="client_id"),
        pytest.param("client secret is required", True, id="client-secret"),
        pytest.param("Client authentication failed", True, id="client-authentication"),
        pytest.param("client_assertion_type is missing", False, id="client_assertion_type"),
        pytest.param("client_assertion is malformed", True, id="client_assertion"),
        pytest.param("Bad credentials", True, id="credentials"),
        pytest.param("missing parameter: scope", False, id="scope"),
        pytest.param("this client may not", False, id="client-alone"),
        pytest.param("no authorization", False, id="authorization-alone"),
        pytest.param("", False, id="nothing"),
    ],
)
def test_an_invalid_request_about_credentials_refuses_the_client(text: str, whole_client: bool) -> None:
    outcome = understood(400, json.dumps({"error": "invalid_request", "error_description": text}).encode())

    assert isinstance(outcome, Refused)
    assert outcome.whole_client is whole_client
    # Of a request that was understood it says nothing about the client.
    outcome = understood(400, json.dumps({"error": "invalid_scope", "error_description": text}).encode())
    assert isinstance(outcome, Refused)
    assert not outcome.whole_client


@pytest.mark.parametrize(
    ("status", "body"),
    [(401, b'{"error": "invalid_client"}'), (401, b'{"error": "access_denied"}'), (403, b"")],
)
def test_a_refused_client_has_a_hint(status: int, body: bytes) -> None:
    outcome = understood(status, body)

    assert isinstance(outcome, Refused)
    assert outcome.hint == "check that client_id, secret and auth match the provider's settings"


@pytest.mark.parametrize("field", ["error_description", "message", "errorMessage", "error"])
@pytest.mark.parametrize(
    "text",
    [
        "RATE LIMIT reached",
        "rate_limit",
        "too many requests",
        "Too many attempts",
        "too many tokens",
        "throttled",
        "Quota",
        "insufficient_quota",
        "TokenRateLimitExceeded",
        "rate exceeded",
    ],
)
def test_a_rate_limit_is_recognized_by_its_text(field: str, text: str) -> None:
    body = json.dumps({"error": "invalid_request"} | {field: text}).encode()

    assert isinstance(understood(400, body), RateLimited)


@pytest.mark.parametrize("text", ["Corporate Limited", "CORPORATE LIMITED", "a quotation", "a separate limit"])
def test_a_rate_limit_is_not_found_in_other_words(text: str) -> None:
    body = json.dumps({"error": "access_denied", "error_description": text}).encode()

    assert isinstance(understood(403, body), Refused)


@pytest.mark.parametrize(
    ("code", "secret"),
    [
        pytest.param("horse_staple", "horse_staple", id="the-secret"),
        pytest.param("horse_staple", "correct-horse_staple", id="a-part-of-it"),
        pytest.param("correct_horse_staple", "horse", id="it-is-a-part"),
    ],
)
def test_an_error_code_that_quotes_a_secret_is_not_shown(code: str, secret: str) -> None:
    reply = Reply(400, {}, json.dumps({"error": code}).encode())

    assert str(understand(reply, target(), START, never_show=("", secret))) == "HTTP 400: this request was refused"
    assert str(understand(reply, target(), START, never_show=("",))) == f"HTTP 400 {code}: this request was refused"


@pytest.mark.parametrize(
    ("character", "why"),
    [
        pytest.param("\r", "a line end or NUL", id="CR"),
        pytest.param("\n", "a line end or NUL", id="LF"),
        pytest.param("\x00", "a line end or NUL", id="NUL"),
        pytest.param(" ", "white space", id="space"),
        pytest.param("\t", "white space", id="tab"),
        pytest.param("\x7f", "control", id="DEL"),
        pytest.param("ä", "non-ASCII", id="non-ASCII"),
        pytest.param("\u2028", "non-ASCII", id="line-separator"),
        pytest.param("\ud800", "non-ASCII", id="lone-surrogate"),
    ],
)
@pytest.mark.parametrize("form", ["abc{}def", "abcdef{}"], ids=["within", "at-the-end"])
def test_a_token_that_would_break_a_header_is_malformed(form: str, character: str, why: str) -> None:
    body = json.dumps({"access_token": form.format(character), "token_type": "Bearer"}).encode()

    outcome = understood(200, body)

    assert isinstance(outcome, Malformed)
    assert why in outcome.message


def test_a_reply_of_64_kib_is_read_with_a_warning_about_its_long_token() -> None:
    around = len(b'{"access_token": "", "token_type": "Bearer", "expires_in": 3600}')
    longest = "x" * (LONGEST - around)
    body = b'{"access_token": "%s", "token_type": "Bearer", "expires_in": 3600}' % longest.encode()
    assert len(body) == LONGEST

    outcome = issued(body)

    assert outcome.token.access_token == longest
    assert outcome.notes == (f"the token is {len(longest)} bytes long; some readers stop at 4096",)


@pytest.mark.parametrize(("length", "notes"), [(4096, 0), (4097, 1)])
def test_a_token_is_long_from_4_kib_on(length: int, notes: int) -> None:
    assert len(issued(GOOD.replace(b'"t"', b'"%s"' % (b"x" * length))).notes) == notes


# -- how long to wait ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        pytest.param({}, None, id="nothing"),
        pytest.param({"retry-after": "30"}, 30.0, id="seconds"),
        pytest.param({"retry-after": " 30 "}, 30.0, id="seconds-padded"),
        pytest.param({"retry-after": "0"}, 0.0, id="zero"),
        pytest.param({"retry-after": "9" * 60_000}, 1e9, id="huge"),
        pytest.param({"retry-after": "Fri, 15 Jan 2027 08:02:00 GMT"}, 120.0, id="date"),
        # The provider's clock is an hour ahead of ours: it says two minutes all the same.
        pytest.param(
            {"retry-after": "Fri, 15 Jan 2027 09:02:00 GMT", "date": "Fri, 15 Jan 2027 09:00:00 GMT"},
            120.0,
            id="date-by-its-own-clock",
        ),
        pytest.param({"retry-after": "Fri, 15 Jan 2027 07:00:00 GMT"}, 0.0, id="date-past"),
        pytest.param({"retry-after": "Fri, 15 Jan 2027 08:02:00 -0000"}, 120.0, id="date-without-zone"),
        pytest.param({"retry-after": "Fri, 15 Jan 2027 09:02:00 +0100"}, 120.0, id="date-of-another-zone"),
        pytest.param({"retry-after": "soon"}, None, id="garbage"),
        pytest.param({"retry-after": "-5"}, None, id="negative"),
        pytest.param({"retry-after": "٣٠"}, None, id="other-digits"),
        pytest.param({"retry-after": "Fri, 99 Jan 99999 99:99:99 GMT"}, None, id="date-garbage"),
        pytest.param({"retry-after": "7, 30"}, 30.0, id="of-a-gateway-too"),
        pytest.param({"retry-after": "30,7"}, 30.0, id="without-a-blank"),
        pytest.param({"retry-after": "15.5"}, 15.5, id="fraction"),
        pytest.param({"retry-after": "15s"}, 15.0, id="unit"),
        pytest.param({"retry-after": "7, soon"}, None, id="half-garbage"),
        pytest.param({"retry-after": "30, Fri, 15 Jan 2027 08:02:00 GMT"}, None, id="number-and-date"),
    ],
)
@pytest.mark.parametrize(
    ("status", "kind", "message"),
    [
        (429, RateLimited, "HTTP 429: too many requests"),
        (503, Transient, "HTTP 503: a temporary error at the provider"),
    ],
)
def test_retry_after_is_read(
    status: int, kind: type[RateLimited | Transient], message: str, headers: Headers, seconds: float | None
) -> None:
    assert understood(status, b"", headers) == kind(message, "reply", None, seconds)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        pytest.param({"x-ratelimit-reset": "45"}, 45.0, id="x-ratelimit-reset-seconds"),
        pytest.param({"x-ratelimit-reset": "1800000045.5"}, 45.5, id="x-ratelimit-reset-unix"),
        pytest.param({"x-ratelimit-reset": "1700000000"}, None, id="x-ratelimit-reset-past"),
        pytest.param({"x-ratelimit-reset": "1000000000"}, 1e9, id="x-ratelimit-reset-10^9"),
        pytest.param({"x-ratelimit-reset": "later"}, None, id="x-ratelimit-reset-garbage"),
        pytest.param({"retry-after": "30", "x-ratelimit-reset": "45"}, 30.0, id="retry-after-first"),
        pytest.param({"retry-after": "soon", "x-ratelimit-reset": "45"}, 45.0, id="garbage-then-reset"),
        pytest.param({"x-ratelimit-reset": "1800000045500"}, 45.5, id="x-ratelimit-reset-milliseconds"),
        pytest.param({"x-ratelimit-reset": "1000000000000"}, 1e12 - 1.8e9, id="x-ratelimit-reset-10^12"),
    ],
)
def test_a_reset_is_read_with_a_rate_limit_only(headers: Headers, seconds: float | None) -> None:
    """Gateways add it to each reply."""
    assert understood(429, b"", headers) == RateLimited("HTTP 429: too many requests", "reply", None, seconds)
    named = 30.0 if headers.get("retry-after") == "30" else None
    assert understood(500, b"", headers) == Transient(
        "HTTP 500: a temporary error at the provider", "reply", None, named
    )


# -- tokens --------------------------------------------------------------------------------------------


def test_the_first_providers_token_counts_from_before_its_request() -> None:
    outcome = issued(
        b'{"access_token": "%s", "scope": "bci", "token_type": "Bearer", "expires_in": 3600}' % UUID.encode()
    )

    assert outcome.notes == ()
    token = outcome.token
    assert (token.access_token, token.token_type, token.scope, token.lifetime) == (UUID, "Bearer", "bci", 3600.0)
    assert token.obtained == START
    assert token.extra_fields() == {}


def test_the_first_provider_may_leave_out_the_scope() -> None:
    outcome = issued(b'{"access_token": "%s", "token_type": "Bearer", "expires_in": 7199}' % UUID.encode())

    # RFC 6749 section 5.1: then it is the one that was asked for.
    assert (outcome.token.scope, outcome.token.lifetime, outcome.notes) == ("bci", 7199.0, ())


@pytest.mark.parametrize(
    ("body", "note", "token_type"),
    [
        pytest.param(b"\xef\xbb\xbf" + GOOD, None, "Bearer", id="BOM"),
        pytest.param(b"\r\n " + GOOD + b"\n", None, "Bearer", id="blanks-around"),
        pytest.param(GOOD.replace(b"Bearer", b"bEARER"), None, "Bearer", id="token-type-case"),
        pytest.param(b'{"errcode": 0, "errmsg": "ok", ' + GOOD[1:], None, "Bearer", id="wechat-errcode-0"),
        pytest.param(b'{"error": null, ' + GOOD[1:], None, "Bearer", id="error-null"),
        pytest.param(b'{"error": "", ' + GOOD[1:], None, "Bearer", id="error-empty"),
        pytest.param(
            GOOD.replace(b"Bearer", b"Application Access Token"),
            "a token_type other than Bearer",
            "Application Access Token",
            id="ebay",
        ),
        pytest.param(
            GOOD.replace(b"Bearer", b"A" * 65), "a token_type other than Bearer", "Bearer", id="token-type-endless"
        ),
        pytest.param(GOOD.replace(b'"token_type": "Bearer",', b""), "no token_type", "Bearer", id="token-type-missing"),
        pytest.param(GOOD.replace(b'"Bearer"', b"null"), "no token_type", "Bearer", id="token-type-null"),
        pytest.param(GOOD.replace(b"3600", b"0"), "names no lifetime", "Bearer", id="expires-in-0-mailchimp"),
    ],
)
def test_unusual_replies_are_tokens_with_a_warning(body: bytes, note: str | None, token_type: str) -> None:
    outcome = issued(body)

    token = outcome.token
    assert (token.access_token, token.lifetime, token.token_type) == ("t", 3600.0, token_type)
    assert [note in given for given in outcome.notes if note] == ([True] if note else [])
    assert bool(outcome.notes) is bool(note)


def test_any_2xx_is_success() -> None:
    assert isinstance(understood(201, GOOD), Issued)
    assert isinstance(understood(299, GOOD), Issued)
    assert isinstance(understood(300, GOOD), Malformed)


@pytest.mark.parametrize("given", [None, 7, ["bci", 7]], ids=["null", "a-number", "a-list-of-others"])
def test_a_missing_scope_is_the_requested_one_unless_strict_scope(given: object) -> None:
    body = json.dumps({"access_token": "t", "token_type": "Bearer", "expires_in": 60, "scope": given}).encode()

    assert (issued(body, scope="bci").token.scope, issued(body, scope="bci").notes) == ("bci", ())
    strict = understood(200, body, scope="bci", strict_scope=True)
    assert strict == Refused(
        "the reply names no scope, which RFC 6749 allows if the requested one was granted (strict_scope)",
        whole_client=False,
        hint="set strict_scope: false to accept it",
    )


@pytest.mark.parametrize(
    ("given", "asked", "scope", "lacks"),
    [
        pytest.param("bci risk", "bci", "bci risk", None, id="wider"),
        pytest.param("risk bci", "bci risk", "risk bci", None, id="other-order"),
        pytest.param("bci,risk", "bci risk", "bci,risk", None, id="commas-adobe"),
        pytest.param("bci, risk", "bci risk", "bci, risk", None, id="commas-and-spaces"),
        pytest.param("bci|risk", "bci risk", "bci|risk", "bci, risk", id="another-separator"),
        pytest.param(["bci", "risk"], "bci risk", "bci risk", None, id="list"),
        pytest.param("bci", "bci risk aml", "bci", "aml, risk", id="narrower"),
        pytest.param("", "bci", "", "bci", id="empty"),
        pytest.param("anything", "", "anything", None, id="none-asked-for"),
        pytest.param(None, "", None, None, id="none-asked-for-none-given"),
    ],
)
def test_a_narrowed_scope_is_a_warning_or_a_refusal_with_strict_scope(
    given: object, asked: str, scope: str | None, lacks: str | None
) -> None:
    body = json.dumps({"access_token": "t", "token_type": "Bearer", "expires_in": 60, "scope": given}).encode()

    outcome = issued(body, scope=asked)
    strict = understood(200, body, scope=asked, strict_scope=True)

    assert outcome.token.scope == scope
    ask = "ask the provider to grant it to this client"
    assert outcome.notes == (() if lacks is None else (f"the token's scope lacks {lacks}; {ask}",))
    if lacks is None:
        assert isinstance(strict, Issued)
    else:
        assert strict == Refused(f"the token's scope lacks {lacks} (strict_scope)", whole_client=False, hint=ask)


@pytest.mark.parametrize("separator", ["|", ",", ";", "+"])
def test_the_scope_may_be_returned_in_the_requested_format(separator: str) -> None:
    body = GOOD[:-1] + b', "scope": "risk%sbci"}' % separator.encode()

    assert issued(body, scope="bci risk", client=replace(CLIENT, scope_separator=separator)).notes == ()


@pytest.mark.parametrize(
    ("confirmation", "notes"),
    [
        pytest.param(None, (), id="none"),
        pytest.param(
            {"x5t#S256": "abc"},
            ("the token is bound to the client's certificate: its readers have to present the same certificate",),
            id="certificate-rfc8705",
        ),
        pytest.param(
            {"jkt": "abc"},
            ("the token is bound to a DPoP key, which its readers do not have: APIs that check this will refuse it",),
            id="dpop-rfc9449",
        ),
        pytest.param({"kid": "abc"}, (), id="another-way"),
        pytest.param("x5t#S256", (), id="no-object"),
    ],
)
def test_a_bound_token_is_a_warning(confirmation: object, notes: tuple[str, ...]) -> None:
    claims = base64.urlsafe_b64encode(json.dumps({"cnf": confirmation}).encode()).rstrip(b"=")

    assert issued(GOOD.replace(b'"t"', b'"e30.%s.c2ln"' % claims)).notes == notes


# -- the provider's clock ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "skew"),
    [
        pytest.param({}, None, id="nothing"),
        pytest.param({"date": "Fri, 15 Jan 2027 08:00:00 GMT"}, 0.0, id="right"),
        pytest.param({"date": "Fri, 15 Jan 2027 08:01:40 GMT"}, 100.0, id="ahead"),
        pytest.param({"date": "Fri, 15 Jan 2027 07:58:20 GMT"}, -100.0, id="behind"),
        pytest.param({"date": "Fri, 15 Jan 2027 09:01:40 +0100"}, 100.0, id="of-another-zone"),
        pytest.param({"date": "Friday, 15-Jan-27 08:01:40 GMT"}, 100.0, id="as-rfc850-has-it"),
        pytest.param({"date": "Fri Jan 15 08:01:40 2027"}, 100.0, id="as-asctime-has-it"),
        # Out of a cache: since then it has aged.
        pytest.param({"date": "Fri, 15 Jan 2027 07:58:20 GMT", "age": "100"}, 0.0, id="age"),
        pytest.param({"date": "Fri, 15 Jan 2027 07:58:20 GMT", "age": " 40 "}, -60.0, id="age-padded"),
        pytest.param({"date": "Fri, 15 Jan 2027 08:00:00 GMT", "age": "999999999"}, 999999999.0, id="age-of-9-figures"),
        pytest.param({"date": "Fri, 15 Jan 2027 08:00:00 GMT", "age": "1000000000"}, 0.0, id="age-of-10-figures"),
        pytest.param({"date": "Fri, 15 Jan 2027 08:00:00 GMT", "age": "-5"}, 0.0, id="age-negative"),
        pytest.param({"date": "Fri, 15 Jan 2027 08:00:00 GMT", "age": "٣٠"}, 0.0, id="age-in-other-digits"),
        pytest.param({"age": "100"}, None, id="age-alone"),
        pytest.param({"date": ""}, None, id="empty"),
        pytest.param({"date": "now"}, None, id="garbage"),
        pytest.param({"date": "1800000000"}, None, id="a-number"),
        pytest.param({"date": "Fri, 99 Jan 2027 08:00:00 GMT"}, None, id="no-such-day"),
        pytest.param({"date": "Fri, 15 Jan 99999 08:00:00 GMT"}, None, id="no-such-year"),
    ],
)
def test_a_reply_shows_its_providers_clock(headers: Headers, skew: float | None) -> None:
    assert clock_skew(headers, START.wall) == skew


@pytest.mark.parametrize(
    ("date", "seconds"),
    [
        # `Date` is a whole second: of all moments within it the one that is nearest to our clock.
        pytest.param("Fri, 15 Jan 2027 08:00:00 GMT", 3600.0, id="the same"),
        pytest.param("Fri, 15 Jan 2027 08:00:01 GMT", 3599.0, id="1-s"),
        pytest.param("Fri, 15 Jan 2027 07:59:59 GMT", 3600.0, id="1-s-behind"),
        pytest.param("Fri, 15 Jan 2027 07:59:58 GMT", 3601.0, id="2-s-behind"),
        pytest.param("Fri, 15 Jan 2027 08:50:00 GMT", 600.0, id="50-min"),
        pytest.param("Fri, 15 Jan 2027 07:10:00 GMT", 6599.0, id="50-min-behind"),
        # Beyond an hour it is no clock.
        pytest.param("Fri, 15 Jan 2027 18:00:00 GMT", 0.0, id="10-h"),
        pytest.param("Fri, 15 Jan 2027 01:00:00 GMT", 7200.0, id="7-h-behind"),
        pytest.param("garbage", 3600.0, id="garbage"),
    ],
)
@pytest.mark.parametrize(
    "body",
    [
        b'{"access_token": "t", "token_type": "Bearer", "expires_at": 1800003600}',
        b'{"access_token": "t", "token_type": "Bearer", "expires_in": 1800003600}',
        b'{"access_token": "e30.%s.c2ln", "token_type": "Bearer"}' % base64.urlsafe_b64encode(b'{"exp": 1800003600}'),
    ],
    ids=["expires_at", "expires_in", "exp"],
)
def test_a_moment_of_expiry_counts_by_the_providers_clock(body: bytes, date: str, seconds: float) -> None:
    outcome = understood(200, body, {"date": date})

    assert isinstance(outcome, Issued)
    assert outcome.token.lifetime == seconds
    # Our own file's times are by our own clock.
    assert outcome.token.obtained == START


def test_a_lifetime_in_seconds_does_not_depend_on_the_clock() -> None:
    outcome = understood(200, GOOD, {"date": "Fri, 15 Jan 2027 09:00:00 GMT"})

    assert isinstance(outcome, Issued)
    assert outcome.token.lifetime == 3600.0


def test_a_token_that_is_expired_only_by_our_clock_is_good() -> None:
    body = b'{"access_token": "t", "token_type": "Bearer", "expires_at": 1799999999}'

    early = understood(200, body)
    assert isinstance(early, Issued)
    assert early.token.lifetime == -1.0
    outcome = understood(200, body, {"date": "Fri, 15 Jan 2027 07:30:00 GMT"})
    assert isinstance(outcome, Issued)
    assert outcome.token.lifetime == 1798.0


def test_the_age_of_a_cached_reply_is_subtracted() -> None:
    outcome = understood(200, GOOD, {"date": "Fri, 15 Jan 2027 07:58:20 GMT", "age": "100"})

    assert isinstance(outcome, Issued)
    assert outcome.token.lifetime == 3500.0


@pytest.mark.parametrize("status", [408, 409, 423, 425, 500, 599])
def test_a_status_that_passes_by_itself_is_transient(status: int) -> None:
    assert isinstance(understood(status, b"<html>"), Transient)


@pytest.mark.parametrize(
    "headers", [{"cf-mitigated": "challenge"}, {"x-amzn-waf-action": "challenge"}, {"x-amzn-waf-action": "captcha"}]
)
def test_a_bot_challenge_is_transient(headers: Headers) -> None:
    outcome = understood(403, b"<html>", headers)

    assert isinstance(outcome, Transient)
    assert "a firewall expects a browser" in str(outcome)


@pytest.mark.parametrize(
    ("date", "seconds"),
    [
        pytest.param("Fri, 15 Jan 2027 09:00:00 GMT", 3600.0, id="an-hour-ahead"),
        pytest.param("Fri, 15 Jan 2027 10:00:00 GMT", 3600.0, id="two-hours-ahead"),
        pytest.param("Fri, 31 Dec 9999 23:59:59 GMT", 3600.0, id="year-9999"),
        pytest.param("Mon, 01 Jan 0001 00:00:00 GMT", 10_800.0, id="year-1"),
    ],
)
def test_at_most_an_hour_of_skew_counts(date: str, seconds: float) -> None:
    outcome = understood(
        200, b'{"access_token": "t", "token_type": "Bearer", "expires_at": 1800007200}', {"date": date}
    )

    assert isinstance(outcome, Issued)
    assert outcome.token.lifetime == seconds


def nested(levels: int) -> bytes:
    """A reply with other fields that are nested, all in all so many levels deep."""
    return b'{"access_token": "t", "token_type": "Bearer", "x": ' + b"[" * (levels - 1) + b"]" * (levels - 1) + b"}"


@pytest.mark.parametrize("levels", [33, 100, 960, 970, 980, 990, 1000, 30_000])
def test_a_reply_that_is_nested_too_deeply_is_malformed(levels: int) -> None:
    assert understood(200, nested(levels)) == Malformed("HTTP 200, but the reply is nested more than 32 levels deep")
    assert isinstance(understood(401, nested(levels)), Refused)


@pytest.mark.parametrize("levels", [2, 31, 32])
def test_an_accepted_reply_can_be_written_and_read_again(levels: int) -> None:
    token = issued(nested(levels)).token
    record = Record(token, "identity", "7e0c5a")

    assert load(dump(record)) == record
    assert json.loads(render(target(), token, Output("/t", "json")))["x"] == token.extra_fields()["x"]


def test_a_jwt_with_claims_that_are_nested_too_deeply_is_opaque() -> None:
    claims = b'{"exp": 1800000060, "x": %s%s}' % (b"[" * 980, b"]" * 980)
    token = b'{"access_token": "e30.%s.c2ln", "token_type": "Bearer"}' % base64.urlsafe_b64encode(claims).rstrip(b"=")

    assert issued(token).token.lifetime == target().default_lifetime


@pytest.mark.parametrize("digits", [310, 4300, 4301, 60_000])
@pytest.mark.parametrize("sign", ["", "-"])
def test_an_integer_that_is_too_large_is_malformed(digits: int, sign: str) -> None:
    body = f'{{"access_token": "t", "token_type": "Bearer", "x": {sign}{"9" * digits}}}'.encode()

    assert understood(200, body) == Malformed("HTTP 200, but the reply holds a number that is too large")


@pytest.mark.parametrize(
    "value",
    [
        "[" + "1e15," * 13_000 + "1]",
        '"' + r"\u00e9" * 10_000 + '"',
        '"' + "é" * 32_000 + '"',
        "[" + "[]," * 21_000 + "1]",
    ],
    ids=["floats", "escapes", "letters", "lists"],
)
def test_the_longest_reply_fits_into_a_record(value: str) -> None:
    # JSON grows where it is written again, up to four times.
    body = f'{{"access_token": "t", "token_type": "Bearer", "x": {value}}}'.encode()
    assert 60_000 < len(body) <= 65_536
    content = dump(Record(issued(body).token, "identity", "7e0c5a"))

    assert len(content) <= _MOST_RECORD_BYTES
    assert load(content) is not None


def test_an_empty_scope_is_kept_too() -> None:
    record = Record(issued(b'{"access_token": "t", "token_type": "Bearer", "scope": ""}', scope="").token, "i", "c")

    assert record.token.scope == ""
    assert load(dump(record)) == record


def test_other_fields_are_kept_except_a_refresh_token() -> None:
    fields = {
        "access_token": "t",
        "token_type": "Bearer",
        "instance_url": "https://acme.my.salesforce.com",
        "issued_at": "1800000000000",
        "refresh_token": "worth-more",
        "expires_in": 3600,
        "scope": "bci",
    }

    assert issued(json.dumps(fields).encode()).token.extra_fields() == {
        "instance_url": "https://acme.my.salesforce.com",
        "issued_at": "1800000000000",
    }


def test_without_a_lifetime_the_targets_default_holds() -> None:
    assert issued(b'{"access_token": "t", "token_type": "Bearer"}', default_lifetime=77.0).token.lifetime == 77.0


# -- nothing is shown ----------------------------------------------------------------------------------

KEYS = (
    "access_token",
    "token_type",
    "expires_in",
    "scope",
    "error",
    "error_description",
    "error_uri",
    "errcode",
    "errmsg",
    "message",
    "refresh_token",
    "expires_at",
    "id_token",
)
NAMES = ("retry-after", "date", "x-ratelimit-reset", "location", "www-authenticate", "set-cookie", "content-type")
STATUSES = st.sampled_from((200, 201, 204, 302, 400, 401, 403, 404, 407, 408, 429, 500, 503)) | st.integers(100, 599)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(("invalid_client", "Bearer")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS) | st.text(), inner, max_size=3),
    max_leaves=6,
)
BODIES = st.binary(max_size=200) | st.dictionaries(st.sampled_from(KEYS), VALUES).map(
    lambda fields: json.dumps(fields).encode()
)


@given(
    status=STATUSES,
    headers=st.dictionaries(st.sampled_from(NAMES), st.text(max_size=60)),
    body=BODIES,
    strict_scope=st.booleans(),
)
@example(
    status=429, headers={"retry-after": "Mon, 01 Jan 0001 00:00:00 +2359"}, body=b'{"error": ["x"]}', strict_scope=False
)
@example(status=302, headers={"location": "http://[v1.x]:99999999/"}, body=b"", strict_scope=False)
def test_any_reply_has_an_outcome(status: int, headers: Headers, body: bytes, strict_scope: bool) -> None:
    outcome = understood(status, body, headers, strict_scope=strict_scope)

    assert isinstance(outcome, Outcome)
    if isinstance(outcome, Failure):
        assert outcome.message.isprintable()
    else:
        assert 0 < outcome.token.lifetime <= 366 * 86400


# Secrets that look like error codes, which only `never_show` reveals, and tokens.
SECRETS = st.text("abcdefghij_XYZ", min_size=12, max_size=40).map(lambda text: f"q{text}")
TOKENS = st.text("abcXYZ012-._~+/", min_size=12, max_size=40).map(lambda text: f"0{text}")


@given(
    status=STATUSES,
    secret=SECRETS,
    token=TOKENS,
    keys=st.lists(st.sampled_from(KEYS), unique=True, min_size=1),
    wrap=st.sampled_from(("{}", "Bad credentials for {}", "{}\n{}", " {}", '"{}"')),
    strict_scope=st.booleans(),
)
def test_no_echoed_secret_or_token_is_shown(
    status: int, secret: str, token: str, keys: list[str], wrap: str, strict_scope: bool
) -> None:
    for planted in (secret, token):
        text = wrap.format(planted, planted)
        fields = {"access_token": token, "token_type": "Bearer", planted: planted} | dict.fromkeys(keys, text)
        place = f"https://u:{planted}@sso.example.com/{planted}?q={planted}"
        headers = dict.fromkeys(NAMES, text) | {"location": place}
        bodies = (
            json.dumps(fields).encode(),
            json.dumps({"error": {"code": text, "errorCode": text, "message": text, planted: text}}).encode(),
            json.dumps([fields]).encode(),
            text.encode(),
        )
        for body in bodies:
            for where in (headers, headers | {"location": planted}):
                reply = Reply(status, where, body)
                outcome = understand(reply, target(strict_scope=strict_scope), START, never_show=(secret,))

                shown = f"{outcome} {outcome!r} {reply!r} {outcome.notes if isinstance(outcome, Issued) else ''}"
                assert planted not in shown


@pytest.mark.parametrize("secret", ["s3cr3t/+ü&=", "Zm9vOmJhcg=="])
@pytest.mark.parametrize("form", ["{}", "the secret {} was right", "client_secret={}&x=1", "base64 {}"])
def test_a_field_that_repeats_a_secret_does_not_reach_the_readers_of_the_token(secret: str, form: str) -> None:
    coded = (
        base64.b64encode(secret.encode()).decode()
        if "base64" in form
        else quote_plus(secret)
        if "&" in form
        else secret
    )
    shown = form.format(coded)
    fields = {"access_token": "t-1", "scope": shown, "deep": [{"a": shown}], shown: 1, "kept": "s3cr3t"}
    outcome = understand(Reply(200, {}, json.dumps(fields).encode()), target(), START, never_show=("", "s3", secret))
    assert isinstance(outcome, Issued)
    assert outcome.token.extra_fields() == {"kept": "s3cr3t"}
    assert outcome.token.scope == target().scope
    assert "the reply repeats a secret of the request; the fields that contain it are left out" in outcome.notes


def test_a_repeated_secret_decides_nothing() -> None:
    # A parameter that is read from a reference, such as a resource, may be part of a scope.
    resource = "https://api.example.com"
    scope = f"{resource}/.default"
    body = json.dumps({"access_token": "t-1", "token_type": "Bearer", "scope": scope, "resource": resource}).encode()
    outcome = understand(Reply(200, {}, body), target(scope=scope, strict_scope=True), START, never_show=(resource,))
    assert isinstance(outcome, Issued)
    assert outcome.token.scope == scope
    assert outcome.token.extra_fields() == {}


def test_a_token_type_that_repeats_a_secret_is_not_kept() -> None:
    body = b'{"access_token": "t-1", "token_type": "an-api-key-1"}'
    assert understand(Reply(200, {}, body), target(), START).token.token_type == "an-api-key-1"  # type: ignore[union-attr]
    outcome = understand(Reply(200, {}, body), target(), START, never_show=("an-api-key-1",))
    assert isinstance(outcome, Issued)
    assert outcome.token.token_type == "Bearer"


def test_a_token_that_equals_the_secret_is_still_a_token() -> None:
    outcome = understand(Reply(200, {}, b'{"access_token": "an-api-key-1"}'), target(), START, ("an-api-key-1",))
    assert isinstance(outcome, Issued)
    assert outcome.token.access_token == "an-api-key-1"
