"""What a reply's outcome says besides its kind: hints, the reading, secrets that are not shown, and each boundary."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from bearerd.grant.outcome import Failure, Issued, Malformed, Outcome, RateLimited, Reading, Refused, Transient
from bearerd.grant.reply import Reply, understand
from support.clock import START
from support.quirks import jwt
from support.targets import CLIENT, target

CHECK_URL = "check that token_url matches the provider's settings"
CHECK_CLIENT = "check that client_id, secret and auth match the provider's settings"
GOOD = {"access_token": "t", "token_type": "Bearer", "expires_in": 3600, "scope": "bci"}

Headers = dict[str, str]


def understood(status: int, fields: object, headers: Headers | None = None, *secrets: str, **changes: Any) -> Outcome:
    body = fields if isinstance(fields, bytes) else json.dumps(fields).encode()
    return understand(Reply(status, headers or {}, body), target(**changes), START, secrets)


def failed(status: int, fields: object, headers: Headers | None = None, *secrets: str) -> Failure:
    outcome = understood(status, fields, headers, *secrets)
    assert not isinstance(outcome, Issued)
    return outcome


def issued(fields: object, headers: Headers | None = None, token_field: str = "access_token", **changes: Any) -> Issued:
    client = replace(CLIENT, provider=replace(CLIENT.provider, token_field=token_field))
    outcome = understood(200, fields, headers, client=client, **changes)
    assert isinstance(outcome, Issued), outcome
    return outcome


@pytest.mark.parametrize(
    ("status", "headers", "fields", "hint"),
    [
        (302, {"location": "https://elsewhere.example/"}, b"", "set token_url to the endpoint itself"),
        (404, {}, b"", CHECK_URL),
        (405, {}, b"", CHECK_URL),
        (415, {}, b"", f"{CHECK_URL}, and whether it expects a form or JSON (body)"),
        (402, {}, b"", CHECK_URL),
        (401, {}, b"", CHECK_CLIENT),
        (200, {}, {"errcode": 40013}, CHECK_CLIENT),
        (400, {}, b"", None),
        (503, {}, b"", None),
        (407, {}, b"", "ask the operator of the proxy to allow it"),
        (
            403,
            {"cf-mitigated": "challenge"},
            b"",
            "ask the provider to let this machine's address reach the token endpoint",
        ),
        (200, {}, GOOD | {"token_type": "DPoP"}, "ask the provider for bearer tokens for this client"),
        (200, {}, {"data": {"token": "t"}}, "set token_field: data.token"),
        (200, {}, {}, None),
    ],
)
def test_a_failure_says_what_to_do(status: int, headers: Headers, fields: object, hint: str | None) -> None:
    assert failed(status, fields, headers).hint == hint


@pytest.mark.parametrize("status", [404, 405, 410, 415])
def test_an_unknown_code_in_a_reply_of_another_page_does_not_refuse(status: int) -> None:
    assert isinstance(failed(status, {"error": "not_found"}), Malformed)
    assert failed(status, {"error": "invalid_scope"}) == Refused(
        f"HTTP {status} invalid_scope: the scope was refused", whole_client=False
    )
    assert failed(status, {"error": "invalid_grant"}) == Refused(
        f"HTTP {status} invalid_grant: the client was refused", hint=CHECK_CLIENT
    )


@pytest.mark.parametrize("status", [402, 406, 411, 416, 499])
def test_a_code_decides_for_any_other_status(status: int) -> None:
    assert failed(status, {"error": "not_found"}) == Refused(
        f"HTTP {status} not_found: this request was refused", whole_client=False
    )
    assert isinstance(failed(status, b""), Malformed)


@pytest.mark.parametrize(("status", "kind"), [(400, RateLimited), (499, RateLimited), (500, Transient)])
def test_the_text_of_a_rate_limit_counts_up_to_499(status: int, kind: type[Failure]) -> None:
    assert isinstance(failed(status, {"error_description": "rate limit exceeded"}), kind)


@pytest.mark.parametrize("status", [200, 201, 299])
def test_an_error_without_a_code_in_a_2xx_reply_refuses_the_client(status: int) -> None:
    assert failed(status, {"error": True}) == Refused(f"HTTP {status}: the client was refused", hint=CHECK_CLIENT)


@pytest.mark.parametrize("error", [False, None, "", 0, "0", [], {}])
def test_an_empty_error_in_a_2xx_reply_is_none(error: object) -> None:
    assert issued(GOOD | {"error": error}).token.access_token == "t"


@pytest.mark.parametrize("errcode", [0, "0", "", None])
def test_an_empty_errcode_is_none(errcode: object) -> None:
    assert issued(GOOD | {"errcode": errcode}).token.access_token == "t"


def test_a_refused_grant_type_is_named() -> None:
    assert failed(400, {"error": "unsupported_grant_type"}) == Refused(
        "HTTP 400 unsupported_grant_type: the grant type was refused", hint=CHECK_CLIENT
    )


@pytest.mark.parametrize("code", ["invalid_client_id", "incorrect_client_credentials", "bad_client_secret"])
def test_codes_about_client_credentials_refuse_the_client(code: str) -> None:
    assert failed(400, {"error": code}) == Refused(f"HTTP 400 {code}: the client was refused", hint=CHECK_CLIENT)


def test_a_code_that_repeats_the_status_is_not_shown() -> None:
    assert str(failed(401, {"code": 401})).startswith("HTTP 401: the client was refused")


@pytest.mark.parametrize(
    ("location", "secret", "there"),
    [
        ("https://login.example.com/path?query", "hunter2", " to https://login.example.com"),
        ("//login.example.com/", "hunter2", " to login.example.com"),
        ("https://login_1.example.com/", "hunter2", ""),
        ("https://hunter2.example.com/", "hunter2", ""),
        ("/relative", "hunter2", ""),
        ("https://[broken/", "hunter2", ""),
    ],
)
def test_a_redirect_shows_a_plain_host_only(location: str, secret: str, there: str) -> None:
    assert failed(302, b"", {"location": location}, secret).message == (
        f"HTTP 302: a redirect{there}, which is not followed because it would send the secret there"
    )


def test_a_redirect_to_nowhere() -> None:
    assert failed(304, b"").message.startswith("HTTP 304: a redirect, which is not followed")


def test_an_errcode_that_is_a_secret_is_not_shown() -> None:
    assert failed(200, {"errcode": 40013}, {}, "40013").message == "HTTP 200 with errcode: the client was refused"
    assert failed(200, {"errcode": 40013}, {}, "none").message == "HTTP 200 with errcode 40013: the client was refused"


@pytest.mark.parametrize(
    ("name", "secret", "shown"),
    [
        pytest.param("status", "hunter2", True, id="another"),
        pytest.param("hunter2", "hunter2", False, id="the-secret"),
        pytest.param("hunt", "hunter2", False, id="four-letters-of-it"),
        pytest.param("hun", "hunter2", True, id="three-letters-are-in-any-secret"),
        pytest.param("hun", "hun", False, id="a-secret-of-three-letters"),
        pytest.param("hun", "hunt", True, id="three-letters-of-four"),
        pytest.param("the_hun", "hun", False, id="a-short-secret-in-a-longer-name"),
    ],
)
def test_the_name_of_a_field_is_shown_unless_it_gives_a_secret_away(name: str, secret: str, shown: bool) -> None:
    names = name if shown else "1 other"
    assert failed(200, {name: 1}, {}, secret).message == f"HTTP 200, but the reply has no access_token; it has: {names}"


def test_a_body_that_could_not_be_decoded_is_malformed_and_says_why() -> None:
    reply = Reply(200, {}, b"x", "the gzip is broken")
    assert understand(reply, target(), START) == Malformed("HTTP 200, but the gzip is broken")


def test_a_reply_shows_only_its_status() -> None:
    assert repr(Reply(200, {"x-token": "hunter2"}, b"hunter2", "hunter2")) == "Reply(status=200)"


# -- tokens ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("token_field", "fields", "reading"),
    [
        ("access_token", GOOD, Reading("access_token", "expires_in", token_type=True, scope=True)),
        ("access_token", {"access_token": "t"}, Reading("access_token", "", token_type=False, scope=False)),
        ("a.b", {"a": GOOD | {"b": "t"}}, Reading("a.b", "expires_in", token_type=True, scope=True)),
    ],
)
def test_a_token_names_the_fields_that_it_was_read_from(token_field: str, fields: object, reading: Reading) -> None:
    assert issued(fields, token_field=token_field).reading == reading


def test_a_token_says_whether_its_lifetime_was_named() -> None:
    assert issued(GOOD).named == "named"
    assert issued(GOOD | {"expires_in": 0}).named == "zero"


def test_the_configured_unit_of_a_lifetime_counts() -> None:
    assert issued(GOOD | {"expires_in": 5_184_000}, lifetime_unit="seconds").token.lifetime == 5_184_000


@pytest.mark.parametrize(
    ("headers", "nbf"),
    [({}, 30.0), ({"date": "Fri, 15 Jan 2027 08:00:10 GMT"}, 20.0), ({"date": "Fri, 15 Jan 2027 07:59:50 GMT"}, 40.0)],
)
def test_a_jwt_is_valid_from_its_nbf_by_the_clock_of_the_reply(headers: Headers, nbf: float) -> None:
    assert issued(GOOD | {"access_token": jwt({"nbf": START.wall + 30})}, headers).nbf == nbf


def test_an_opaque_token_is_valid_at_once() -> None:
    assert issued(GOOD).nbf == 0.0


@pytest.mark.parametrize("token_field", ["id_token", "data.id_token", "data.inner.id_token"])
def test_an_id_token_needs_neither_a_type_nor_a_lifetime(token_field: str) -> None:
    fields: dict[str, Any] = {"access_token": "other", "id_token": jwt({"exp": START.wall + 600}), "more": 1}
    for name in reversed(token_field.split(".")[:-1]):
        fields = {name: fields}
    found = issued(fields, token_field=token_field)
    assert found.notes == ()
    assert found.token.lifetime == 600
    assert found.token.extra_fields() == {"more": 1}


def test_a_note_about_an_id_token_that_is_not_about_its_exp_stays() -> None:
    found = issued({"id_token": "t"}, token_field="id_token")
    assert found.notes == ("the reply names no lifetime: default_lifetime (3600 s) is used",)


def test_an_access_token_without_a_lifetime_is_noted() -> None:
    found = issued({"access_token": jwt({"exp": START.wall + 600}), "token_type": "bearer"})
    assert found.notes == ("the reply names no lifetime: the exp of the JWT is used",)


def test_the_token_itself_is_no_other_field() -> None:
    found = issued({"a": {"b": {"jwt": "t", "more": 1}}}, token_field="a.b.jwt")
    assert found.token.extra_fields() == {"more": 1}
    assert issued(GOOD).token.extra == "{}"
