from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bearerd.grant.hints import Circumstances, hinted
from bearerd.grant.metadata import Metadata
from bearerd.grant.outcome import Failure, Issued, Malformed, Outcome, RateLimited, Refused, Transient
from bearerd.grant.reply import Reply, understand
from bearerd.grant.request import Call, Credentials
from bearerd.model import JwtBearer
from bearerd.terms import JWT_BEARER, Auth
from support.clock import START
from support.targets import CLIENT, target

TOKEN_URL = "https://login.example.com/as/token.oauth2"
AUDIENCE = "https://login.example.com"
CREDENTIALS = Credentials("7e0c5a", "hunter2", "a private key", "a certificate")

CLIENT_REFUSED = b'{"error": "invalid_client"}'


def circumstances(
    *,
    secret: str = "hunter2",
    parameters: tuple[tuple[str, str], ...] = (),
    metadata: Metadata | None = None,
    skew: float | None = None,
    **client: Any,
) -> Circumstances:
    return Circumstances(
        target(client=replace(CLIENT, **client), parameters=parameters),
        replace(CREDENTIALS, secret=secret),
        Call(TOKEN_URL, AUDIENCE, START.wall, "nonce"),
        metadata,
        skew,
    )


def hint(body: bytes, status: int = 400, **known: Any) -> str | None:
    """The hint that is added to the outcome of the reply alone; None if there is none."""
    given = circumstances(**known)
    reply = Reply(status, {}, body)
    before = understand(reply, given.target, START)
    after = hinted(before, reply, given)
    assert isinstance(before, Failure)
    assert isinstance(after, Failure)
    assert replace(after, hint=before.hint) == before
    return None if after == before else after.hint


def says(text: str, code: str = "invalid_client") -> bytes:
    return json.dumps({"error": code, "error_description": text}).encode()


# -- where it was sent ---------------------------------------------------------------------------------

ALLOWED = "check that the provider allows this client's scope and parameters"
NGINX = b"<html><head><title>400 The plain HTTP request was sent to HTTPS port</title></head></html>"


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        pytest.param(400, NGINX, "this port speaks TLS: write https://", id="refused"),
        pytest.param(497, NGINX, "this port speaks TLS: write https://", id="malformed"),
        pytest.param(400, b" " * 982 + b"plain HTTP request", "this port speaks TLS: write https://", id="1000-bytes"),
        pytest.param(400, b" " * 983 + b"plain HTTP request", ALLOWED, id="beyond-1000-bytes"),
    ],
)
def test_a_tls_port_is_recognized_by_its_reply_to_plain_http(status: int, body: bytes, expected: str) -> None:
    assert hint(body, status) == expected


# -- DPoP ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b'{"error": "invalid_dpop_proof"}', id="rfc9449"),
        pytest.param(b'{"error": "use_dpop_nonce"}', id="nonce"),
        pytest.param(says("DPoP proof is required", "invalid_request"), id="text"),
        pytest.param(says("this client has to use dpop", "invalid_client"), id="of-the-client"),
        pytest.param(b'{"message": "DPoP header missing"}', id="no-code"),
    ],
)
def test_a_provider_that_requires_dpop_is_recognized(body: bytes) -> None:
    expected = (
        "the provider requires DPoP, a new proof for each call, which a file cannot contain: ask it for bearer tokens"
    )
    assert hint(body) == expected
    # Also where no token endpoint would answer so.
    assert hint(body, 404) == expected


def test_similar_words_are_not_taken_for_dpop() -> None:
    assert hint(says("endpoint adpopt unknown", "invalid_request")) == ALLOWED


# -- the token -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(says("Unknown AUDIENCE", "invalid_request"), id="audience"),
        pytest.param(says("which resource?", "what"), id="resource"),
        pytest.param(b'{"error": "invalid_target"}', id="rfc8707"),
    ],
)
@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        pytest.param((), "set parameters: {audience: …} or {resource: …}", id="none"),
        pytest.param((("tenant", "acme"),), "set parameters: {audience: …} or {resource: …}", id="others"),
        pytest.param((("audience", "x"),), "check parameters: audience", id="audience"),
        pytest.param(
            (("resource", "x"), ("audience", "x"), ("resource", "y")),
            "check parameters: audience, resource",
            id="both",
        ),
    ],
)
def test_a_missing_audience_or_resource_is_hinted_at(
    body: bytes, parameters: tuple[tuple[str, str], ...], expected: str
) -> None:
    assert hint(body, parameters=parameters) == expected


# -- the client ----------------------------------------------------------------------------------------

SIGNING: list[dict[str, Any]] = [
    {"auth": "private_key_jwt"},
    {"auth": "client_secret_jwt"},
    {"auth": "none", "grant_type": JWT_BEARER, "jwt_bearer": JwtBearer()},
]
SIGNING_IDS = ["private_key_jwt", "client_secret_jwt", "jwt-bearer"]
signing = pytest.mark.parametrize("client", SIGNING, ids=SIGNING_IDS)
BEHIND = (
    "the provider's clock is 31 s behind this machine's: correct this machine's clock "
    "(until then, assertions use the provider's clock)"
)


@pytest.mark.parametrize(
    ("skew", "expected"),
    [
        pytest.param(30.0, None, id="30-s"),
        pytest.param(-30.0, None, id="30-s-behind"),
        pytest.param(31.0, BEHIND.replace("behind", "ahead of"), id="31-s"),
        pytest.param(-31.0, BEHIND, id="31-s-behind"),
        pytest.param(3600.0, BEHIND.replace("31 s behind", "1 h ahead of"), id="an-hour"),
        # Beyond an hour the provider's clock is not followed.
        pytest.param(
            7500.0,
            BEHIND.replace("31 s behind", "2 h 5 min ahead of").replace(
                "clock)", "clock, within 1 h of this machine's)"
            ),
            id="hours",
        ),
        pytest.param(None, None, id="unknown"),
    ],
)
@signing
def test_a_refused_assertion_hints_at_a_clock_that_is_off(
    client: dict[str, Any], skew: float | None, expected: str | None
) -> None:
    said = hint(CLIENT_REFUSED, skew=skew, **client)

    assert said == expected if expected else "clock" not in (said or "")


def test_without_assertions_the_clock_is_not_blamed() -> None:
    assert hint(CLIENT_REFUSED, skew=3600.0) is None


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(says("Invalid audience"), id="audience"),
        pytest.param(says("wrong aud claim"), id="aud"),
        pytest.param(says("the assertion's audience is another", "invalid_request"), id="of-the-token-by-its-code"),
    ],
)
@signing
def test_a_wrong_audience_is_recognized(client: dict[str, Any], body: bytes) -> None:
    assert hint(body, **client) == (
        "the assertion is for https://login.example.com: set assertion_audience to what the provider expects, "
        "often its issuer or its token URL"
    )


@pytest.mark.parametrize(
    ("audience", "shown"),
    [
        pytest.param("https://login.example.com/token?key=hunter2", "https://login.example.com/token", id="query"),
        pytest.param("https://[your-domain]/token?key=hunter2", "https://[your-domain]/token", id="placeholder"),
        pytest.param("https://a\u2100b/token", "https://a\u2100b/token", id="not-in-nfkc"),
        pytest.param("urn:example:idp", "urn:example:idp", id="no-url"),
    ],
)
def test_any_audience_can_be_named_and_only_its_query_is_left_out(audience: str, shown: str) -> None:
    known = circumstances(auth="client_secret_jwt")
    known = replace(known, call=replace(known.call, audience=audience))
    reply = Reply(401, {}, says("Invalid audience"))

    outcome = hinted(understand(reply, known.target, START), reply, known)

    assert isinstance(outcome, Refused)
    assert f"the assertion is for {shown}: set assertion_audience" in str(outcome.hint)


def test_without_assertions_no_audience_is_hinted_at() -> None:
    assert hint(says("Invalid audience")) is None


METADATA = Metadata(TOKEN_URL, TOKEN_URL, ("client_secret_post",))


def test_the_most_specific_hint_wins() -> None:
    known: dict[str, Any] = {"auth": "private_key_jwt", "metadata": METADATA, "skew": 60.0}
    about = says("assertion audience")

    assert "clock" in str(hint(about, **known))
    assert "assertion_audience" in str(hint(about, **known | {"skew": 0.0}))
    assert "metadata" in str(hint(CLIENT_REFUSED, **known | {"skew": 0.0}))
    assert "check client_id" in str(hint(CLIENT_REFUSED, **known | {"skew": 0.0, "metadata": None}))


# -- no more than that ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "reply",
    [
        Reply(200, {}, b'{"access_token": "t", "token_type": "Bearer", "message": "DPoP audience"}'),
        Reply(429, {}, says("DPoP audience")),
        Reply(503, {}, says("DPoP audience")),
    ],
    ids=["issued", "too-often", "not-well"],
)
def test_other_outcomes_have_no_hint(reply: Reply) -> None:
    given = circumstances(auth="private_key_jwt", metadata=METADATA, skew=3600.0)
    outcome = understand(reply, given.target, START)
    assert isinstance(outcome, Issued | RateLimited | Transient)

    assert hinted(outcome, reply, given) == outcome


SECRETS = st.text("abcdefghij_XYZ+% ", min_size=12, max_size=40).map(lambda text: f"q{text}")


@given(
    planted=SECRETS,
    client=st.sampled_from([*({"auth": auth} for auth in get_args(Auth)), SIGNING[2]]),
    status=st.sampled_from((200, 400, 401, 403, 404, 497)),
    words=st.sampled_from(("", "DPoP", "audience", "assertion", "plain HTTP request", "resource")),
    html=st.booleans(),
    skew=st.sampled_from((None, 0.0, 3600.0)),
    listed=st.booleans(),
)
def test_no_hint_shows_a_secret_or_the_providers_text(
    planted: str, client: dict[str, Any], status: int, words: str, html: bool, skew: float | None, listed: bool
) -> None:
    metadata = Metadata(f"https://x/{planted}", f"https://x/{planted}", () if listed else (planted,), (planted,))
    given = circumstances(parameters=(("actor_token", planted),), metadata=metadata, skew=skew, **client)
    given = replace(given, credentials=Credentials("7e0c5a", planted, planted, planted))
    text = f"{planted} {words}"
    body = f"<b>{text}".encode() if html else json.dumps({"error": planted, "error_description": text}).encode()
    reply = Reply(status, {}, body)
    outcome: Outcome = Refused("x") if status != 404 else Malformed("x")

    shown = hinted(outcome, reply, given)

    assert planted not in f"{shown} {shown!r}"
