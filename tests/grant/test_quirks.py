"""Every answer of support/quirks.py, from a real socket through the real endpoint to when is asked again;
and whatever else comes: nothing raises, and nothing that was sent is ever shown.
"""

from __future__ import annotations

import base64
import json
import logging
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, get_args
from urllib.parse import parse_qs

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bearerd.grant.exchange import described
from bearerd.grant.hints import Circumstances, hinted
from bearerd.grant.metadata import Metadata
from bearerd.grant.outcome import Failure, Issued, Outcome, Performed, Refused
from bearerd.grant.perform import Grants
from bearerd.grant.reply import Reply, understand
from bearerd.grant.request import Call, Credentials, Request
from bearerd.lifecycle import policy
from bearerd.log import LOGGER
from bearerd.model import Client, Provider, Target
from bearerd.terms import Auth, Reference
from support import quirks
from support.clock import START, FakeClock
from support.process import WITHIN
from support.quirks import Fails, Gives, Sends, T, Waits, Wire, http, jwt, ok, wired

CLIENT = Client(name="dnb", provider=Provider("p"), client_id="7e0c5a", client_secret=(Reference("env", "SECRET"),))


@pytest.fixture(scope="module")
def wire() -> Iterator[Wire]:
    with wired() as it:
        yield it


def target(
    wire: Wire,
    *,
    proxied: str = "",
    token_field: str = "access_token",
    client: Mapping[str, Any] | None = None,
    **asked: Any,
) -> Target:
    """A target whose provider is the wire; with a scheme, a provider behind the wire as its proxy."""
    there, proxy = f"http://127.0.0.1:{wire.port}", None
    if proxied:
        there, proxy = f"{proxied}://provider.invalid", there
    provider = Provider("p", token_url=f"{there}/token", proxy=proxy, timeout=WITHIN, token_field=token_field)
    return Target(
        **{"client": replace(CLIENT, provider=provider, **client or {}), "name": "bci", "scope": "bci", **asked}
    )


def perform(wanted: Target, *, secret: str = "s3cret", times: int = 1) -> list[Performed]:
    """Grants by a client that knew nothing before."""
    grants = Grants(FakeClock(), {"SECRET": secret, "PARAMETER": PARAMETER})
    try:
        return [grants.perform(wanted) for _ in range(times)]
    finally:
        for endpoint in grants._endpoints.values():
            endpoint.close()


# -- the table -----------------------------------------------------------------------------------------


def rows(*tables: list[Any]) -> list[Any]:
    return [pytest.param(row, id=row.name) for table in tables for row in table]


@pytest.mark.parametrize("row", rows(quirks.REQUESTS))
def test_requests_have_exactly_these_bytes(wire: Wire, row: Sends) -> None:
    wire.says, wire.heard = ok(T), []

    (performed,) = perform(target(wire, client=row.client, **row.asked))

    assert isinstance(performed.outcome, Issued), performed
    assert wire.heard == [row.raw(wire.port)]


@pytest.mark.parametrize(
    "row",
    [
        *rows(quirks.LIFETIMES, quirks.TOKENS, quirks.TRANSPORT, quirks.INTERIM),
    ],
)
def test_tokens_of_real_replies_are_accepted_and_refreshed_in_time(wire: Wire, row: Gives) -> None:
    wire.says, wire.heard = row.raw, []
    wanted = target(wire, client=row.client, token_field=row.token_field, **row.asked)

    (performed,) = perform(wanted)

    assert performed.outcome == row.issued
    assert len(wire.heard) == 1
    due = policy.due_after_issue(
        row.issued.token, wanted.refresh_before, wanted.max_staleness, START.boot, 0.0, math.inf
    )
    assert due - START.boot == pytest.approx(row.refresh)


@pytest.mark.parametrize(
    "row", rows(quirks.REFUSALS, quirks.RATE_LIMITS, quirks.PASSING, quirks.PROXIES, quirks.NO_TOKENS, quirks.BROKEN)
)
def test_real_failures_have_the_right_kind_and_wait(wire: Wire, row: Fails) -> None:
    wire.says, wire.heard = row.raw, []

    (performed,) = perform(target(wire, proxied=row.proxied, token_field=row.token_field, **row.asked))

    assert performed.outcome == replace(row.failure, message=row.failure.message.replace("PORT", str(wire.port)))
    # Failures lock accounts: nothing is tried again on the spot.
    assert len(wire.heard) == 1
    assert waits(row.failure) == (row.waits and pytest.approx(row.waits))


def waits(failure: Failure) -> Waits | None:
    if isinstance(failure, Refused):
        return None
    first, tenth = (policy.wait_after(failure, count, 0.0, dice=0.5) for count in (1, 10))
    return first, tenth


def test_servicenow_returns_the_same_token_with_its_remaining_lifetime(wire: Wire) -> None:
    left = iter((1800, 900, 1))
    wire.says = lambda _: ok(b'{"access_token":"same","token_type":"Bearer","expires_in":%d}' % next(left))

    outcomes = [performed.outcome for performed in perform(target(wire), times=3)]

    assert [outcome.token.access_token for outcome in outcomes if isinstance(outcome, Issued)] == ["same"] * 3
    expiries = [outcome.token.expires.boot for outcome in outcomes if isinstance(outcome, Issued)]
    assert [policy.halfway(START.boot, expires) - START.boot for expires in expiries] == [900, 450, 1]


# -- whatever comes ------------------------------------------------------------------------------------

PARAMETER: Final = "a_parameter_of_letters"


@pytest.fixture(scope="module")
def log() -> Iterator[list[str]]:
    """All that bearerd logs, each record whole."""
    lines: list[str] = []

    class Keeps(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(f"{record.getMessage()} {record.__dict__}")

    handler, level = Keeps(), LOGGER.level
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.DEBUG)
    try:
        yield lines
    finally:
        LOGGER.removeHandler(handler)
        LOGGER.setLevel(level)


KINDS: Final = frozenset(get_args(Outcome)) - {Issued}


def known(outcome: Outcome) -> bool:
    """Whether it is of a known kind, and can be said in one line, or used."""
    if isinstance(outcome, Failure):
        return type(outcome) in KINDS and str(outcome).isprintable()
    return math.isfinite(outcome.token.lifetime)


def shown(outcome: Outcome) -> str:
    """All that a log or a status could say of it. In small letters: a host's name is made so."""
    notes, token = (outcome.notes, outcome.token) if isinstance(outcome, Issued) else ((), None)
    return f"{outcome} {outcome!r} {notes} {token} {token!r}".lower()


HEAD: Final = b"HTTP/1.1 200 OK\r\n"
GOOD: Final = ok(T)


@settings(max_examples=50, deadline=None)
@given(
    raw=st.binary(max_size=300)
    | st.tuples(st.sampled_from((HEAD, b"HTTP/1.1 429 \r\n", b"HTTP/1.1 302 Found\r\n")), st.binary()).map(b"".join)
    | st.tuples(st.integers(0, len(GOOD)), st.integers(0, 20), st.binary(max_size=20)).map(
        lambda cut: GOOD[: cut[0]] + cut[2] + GOOD[cut[0] + cut[1] :]
    )
)
@example(raw=HEAD + b"Set-Cookie: \xff=\x00; expires=0; max-age=x\r\n\r\n" + T)
@example(raw=HEAD + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n" + T)
@example(raw=HEAD + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n" + T)
def test_any_reply_bytes_have_an_outcome(wire: Wire, log: list[str], raw: bytes) -> None:
    wire.says = raw
    log.clear()

    (performed,) = perform(target(wire), secret="s3cret-of-some-length")

    assert known(performed.outcome)
    assert "s3cret-of-some-length" not in shown(performed.outcome) + repr(performed) + "".join(log)


STATUSES: Final = st.sampled_from((200, 400, 401, 403, 429, 500))


@settings(max_examples=50, deadline=None)
@given(
    status=STATUSES, body=st.binary(max_size=1000) | st.binary(max_size=200).map(lambda some: T[:30] + some + T[30:])
)
def test_any_body_on_the_wire_has_an_outcome(wire: Wire, status: int, body: bytes) -> None:
    wire.says = http(f"{status} x", body=body)

    (performed,) = perform(target(wire))

    assert known(performed.outcome)
    assert performed.status == status


# Misleading JSON: marks for what was sent, and words with a meaning in replies.
MARKS: Final = ("@secret@", "@basic@", "@assertion@", "@parameter@", "@id@")
WORDS: Final = ("invalid_client", "invalid_scope", "slow_down", "server_error", "Bearer", "DPoP", "bci", "t", "3600")
KEYS: Final = (
    *("access_token", "token_type", "expires_in", "expiresIn", "expires_at", "expirationDateTime", "scope"),
    *("error", "error_description", "error_uri", "errcode", "errmsg", "message", "errorMessage", "code", "errorCode"),
    *("ErrorCode", "errors", "response", "fault", "title", "detail", "status", "type"),
    *("refresh_token", "id_token", "cnf", "instance_url", *MARKS),
)
FORMS: Final = (
    *("{}", " {}", '"{}"', "{}_not_known", "{0}\n{0}", "<html>{}", "Bad credentials for {}", "rate limit of {}"),
    *("audience {}", "aud {}", "resource {}", "client assertion {}", "dpop_nonce {}"),
)
QUOTING: Final = st.builds(str.format, st.sampled_from(FORMS), st.sampled_from(MARKS))
TEXTS: Final = QUOTING | st.sampled_from(WORDS) | st.text()
VALUES: Final = st.recursive(
    TEXTS | st.none() | st.booleans() | st.integers() | st.floats(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS) | st.text(), inner, max_size=4),
    max_leaves=6,
)
FREE: Final = st.dictionaries(st.sampled_from(KEYS), VALUES)
REFUSING: Final = st.fixed_dictionaries(
    {"error": TEXTS | st.fixed_dictionaries({"code": TEXTS, "message": QUOTING}), "error_description": QUOTING}
)
ELSEWHERE: Final = st.dictionaries(st.sampled_from(("code", "errorCode", "ErrorCode", "title", "detail")), TEXTS)
REFUSING_ELSEWHERE: Final = st.fixed_dictionaries(
    {},
    optional={
        "title": TEXTS,
        "errorCode": TEXTS,
        "errors": st.lists(ELSEWHERE, max_size=2),
        "response": st.fixed_dictionaries({"errors": st.lists(ELSEWHERE, max_size=2)}),
        "fault": st.fixed_dictionaries({"code": TEXTS, "detail": st.fixed_dictionaries({"errorcode": TEXTS})}),
    },
)
ISSUING: Final = st.fixed_dictionaries(
    {"access_token": st.sampled_from(("t", *MARKS, jwt({"exp": 0, "cnf": {"jkt": "@secret@"}}))), "token_type": TEXTS}
)
NAMES: Final = (
    *("retry-after", "date", "x-ratelimit-reset", "www-authenticate", "set-cookie", "age"),
    "content-type",
)
PLACES: Final = ("{0}", "/{0}", "https://u:{0}@sso.example.com:8443/{0}?q={0}#{0}")


@dataclass(frozen=True)
class Hostile:
    """A reply that echoes what was sent in any form."""

    status: int
    fields: dict[str, Any]
    headers: dict[str, str]
    place: str

    def made_of(self, sent: Mapping[str, str]) -> tuple[dict[str, str], bytes]:
        """Headers and body with the marks replaced by what was sent."""
        headers = self.headers | {"location": self.place}
        return {name: _put(text, sent) for name, text in headers.items()}, _put(json.dumps(self.fields), sent).encode()


def _put(text: str, sent: Mapping[str, str]) -> str:
    for mark, what in sent.items():
        text = text.replace(mark, what)
    return text


HOSTILE: Final = st.builds(
    Hostile,
    status=STATUSES | st.sampled_from((201, 302, 404, 503)),
    # A whole reply of any kind is rare: half of it is given.
    fields=FREE | st.builds(dict.__or__, FREE, REFUSING) | REFUSING_ELSEWHERE | st.builds(dict.__or__, FREE, ISSUING),
    headers=st.dictionaries(
        st.sampled_from(NAMES),
        st.sampled_from((*MARKS, "30", "1800000030", "Fri, 15 Jan 2027 09:00:00 GMT"))
        | st.builds('Bearer error="{}"'.format, st.sampled_from(MARKS)),
    ),
    place=st.builds(str.format, st.sampled_from(PLACES), st.sampled_from(MARKS)),
)
# As error codes look, as UUIDs do, as base64.
SECRETS: Final = (
    st.text("abcdefgXYZ_", min_size=8, max_size=40).map(lambda text: f"q{text}z")
    | st.uuids().map(str)
    | st.text("abcXYZ0189+/=", min_size=12, max_size=40).map(lambda text: f"Zq{text}")
)


@settings(max_examples=200, deadline=None)
@given(
    hostile=HOSTILE,
    secret=SECRETS,
    auth=st.sampled_from(get_args(Auth)),
    asked=st.fixed_dictionaries({"strict_scope": st.booleans(), "scope": st.sampled_from(("", "bci", "bci risk"))}),
    metadata=st.none() | st.just(Metadata("https://sso.example.com/token", "https://sso.example.com/mtls", ("none",))),
    skew=st.sampled_from((None, 0.0, 3600.0, -3600.0)),
)
@example(
    hostile=Hostile(400, {"error": "invalid_target", "error_description": "audience @secret@"}, {}, "/"),
    secret="qabcdefgz",
    auth="client_secret_post",
    asked={"scope": "bci"},
    metadata=None,
    skew=None,
)
@example(
    hostile=Hostile(401, {"error": "invalid_client", "error_description": "aud in @assertion@"}, {}, "/"),
    secret="qabcdefgz",
    auth="client_secret_jwt",
    asked={"scope": "bci"},
    metadata=None,
    skew=None,
)
def test_nothing_that_was_sent_is_shown_from_a_reply(
    hostile: Hostile, secret: str, auth: Auth, asked: dict[str, Any], metadata: Metadata | None, skew: float | None
) -> None:
    assertion = jwt({"iss": "7e0c5a", "jti": secret})
    credentials = Credentials("7e0c5a", assertion if auth == "assertion" else secret)
    basic = base64.b64encode(f"7e0c5a:{secret}".encode()).decode()
    headers, body = hostile.made_of(dict(zip(MARKS, (secret, basic, assertion, PARAMETER, "7e0c5a"), strict=True)))
    reply = Reply(hostile.status, headers, body)
    wanted = Target(client=replace(CLIENT, auth=auth), name="bci", parameters=(("audience", PARAMETER),), **asked)
    call = Call("https://sso.example.com/token", "https://sso.example.com", START.wall, "nonce")

    outcome = understand(reply, wanted, START, never_show=(credentials.secret, basic, assertion, PARAMETER))
    outcome = hinted(outcome, reply, Circumstances(wanted, credentials, call, metadata, skew))
    exchange = described(Request(call.token_url, {}, b"", secrets=(credentials.secret, PARAMETER, basic)), reply)

    assert known(outcome)
    assert all(text.isprintable() for text in (exchange.content_type, exchange.fields, exchange.code))
    for what in (credentials.secret, basic, assertion, PARAMETER):
        assert what.lower() not in shown(outcome) + repr(reply).lower() + repr(exchange).lower()


@settings(max_examples=50, deadline=None)
@given(
    hostile=HOSTILE,
    secret=SECRETS,
    auth=st.sampled_from(("client_secret_basic", "client_secret_post", "client_secret_jwt", "assertion")),
)
@example(hostile=Hostile(400, {"error": "@parameter@"}, {}, "/"), secret="qabcdefgz", auth="client_secret_post")
@example(hostile=Hostile(401, {"error": "@id@"}, {}, "/"), secret="Zq+ab/c==", auth="client_secret_basic")
@example(hostile=Hostile(400, {"error": "@secret@"}, {}, "/"), secret="qabcdefgz", auth="client_secret_post")
def test_nothing_that_was_sent_is_shown_from_an_echo(
    wire: Wire, log: list[str], hostile: Hostile, secret: str, auth: Auth
) -> None:
    sent = dict.fromkeys(MARKS, "-") | {"@secret@": secret, "@parameter@": PARAMETER, "@id@": "7e0c5a"}

    def echoes(request: bytes) -> bytes:
        head, _, form = request.decode().partition("\r\n\r\n")
        if "Authorization: Basic " in head:
            sent["@basic@"] = head.partition("Authorization: Basic ")[2].partition("\r\n")[0]
        (sent["@assertion@"],) = parse_qs(form).get("client_assertion", ["-"])
        headers, body = hostile.made_of(sent)
        return http(f"{hostile.status} x", *(f"{name}: {text}" for name, text in headers.items()), body=body)

    wire.says = echoes
    log.clear()
    credentials: dict[str, Any] = {"auth": auth}
    if auth == "assertion":
        credentials |= {"client_secret": (), "assertion": Reference("env", "SECRET")}
    wanted = target(wire, client=credentials, parameters=(("audience", Reference("env", "PARAMETER")),))

    (performed,) = perform(wanted, secret=secret)

    assert known(performed.outcome)
    assert performed.status == hostile.status
    everything = (shown(performed.outcome) + repr(performed) + "".join(log)).lower()
    for what in (sent[mark].lower() for mark in MARKS if mark != "@id@" and sent[mark] != "-"):
        assert what not in everything


@pytest.mark.parametrize(
    ("client_id", "secret", "raw"),
    [
        pytest.param(
            "7e0c5a",
            "q-secret-of-letters",
            http("302 Found", "Location: https://q-secret-of-letters/"),
            id="host",
        ),
        pytest.param("abc", "defgh", http("401 x", body=b'{"error":"YWJjOmRlZmdo"}'), id="basic"),
        pytest.param("7e0c5a", "424242", http("200 OK", body=b'{"errcode":424242}'), id="number"),
        pytest.param("7e0c5a", "Horse_Staple", http("401 x", body=b'{"error":"horse_staple"}'), id="small-letters"),
    ],
)
def test_an_echo_is_recognized_in_any_encoding(wire: Wire, client_id: str, secret: str, raw: bytes) -> None:
    wire.says = raw

    (performed,) = perform(target(wire, client={"client_id": client_id}), secret=secret)

    said = shown(performed.outcome)
    assert secret.lower() not in said
    assert base64.b64encode(f"{client_id}:{secret}".encode()).decode().lower() not in said
