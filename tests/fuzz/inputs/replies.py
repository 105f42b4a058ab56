"""What a provider sends: replies to token requests, and metadata."""

from __future__ import annotations

import base64
import gzip
import json
import math
import re
import socket
import zlib
from collections.abc import Callable
from dataclasses import replace
from unittest import mock

from bearerd.grant import transport
from bearerd.grant.body import LONGEST_BODY
from bearerd.grant.decoding import decoded
from bearerd.grant.endpoint import Endpoint
from bearerd.grant.metadata import Metadata, read_metadata
from bearerd.grant.outcome import Issued, Malformed, NoReply, Outcome, RateLimited, Refused, Transient
from bearerd.grant.reply import Reply, understand
from bearerd.grant.request import Request
from bearerd.grant.times import age, clock_skew, followed, retry_after
from bearerd.lifecycle.token_state import TokenState, accept
from bearerd.model import Output, Provider
from bearerd.model import Target as TokenTarget
from bearerd.publish.publisher import _MOST_RECORD_BYTES
from bearerd.publish.record import Record, dump, load
from bearerd.publish.render import render
from bearerd.terms import Token
from fuzz.target import Target, one_line
from support.clock import START
from support.targets import CLIENT, PROVIDER, TARGET

# Never a name or a code, so that no message may have it, wherever it is in a reply.
CANARY = "Zq9~xW7vK3mPt5rYb1nLc"
SECRET = "hunter2-0123456789-Secret"
# Seconds: more than a lifetime may be, with an `expires_in` and a clock that is an hour ahead.
_LONGEST_LIFETIME = 367 * 86400.0
_OUTPUTS = (
    Output(path="/t/raw"),
    Output(path="/t/json", format="json"),
    Output(path="/t/header", format="header"),
    Output(path="/t/env", format="env"),
)
_MARKS = {b"@canary@": CANARY.encode(), b"@secret@": SECRET.encode()}
_CODINGS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda body: gzip.compress(body, mtime=0),
    "zlib": zlib.compress,
    "deflate": lambda body: zlib.compress(body, wbits=-15),
}


def _filled(text: bytes) -> bytes:
    """The text with the marks in it, and with its claims as a JWT: nobody guesses base64."""
    for mark, value in _MARKS.items():
        text = text.replace(mark, value)

    def jwt(match: re.Match[bytes]) -> bytes:
        return b"eyJhbGciOiJub25lIn0." + base64.urlsafe_b64encode(match[1]).rstrip(b"=") + b".c2ln"

    return re.sub(rb"<jwt>(.*?)</jwt>", jwt, text, flags=re.DOTALL)


def _target(words: list[str]) -> TokenTarget:
    provider = replace(PROVIDER, token_field="data.access_token" if "nested" in words else "access_token")
    provider = replace(provider, token_field="id_token") if "id_token" in words else provider
    unit = next((each for each in ("seconds", "milliseconds") if each in words), "auto")
    client = replace(CLIENT, provider=provider)
    return replace(
        TARGET,
        client=client,
        strict_scope="strict" in words,
        lifetime_unit=unit,  # type: ignore[arg-type]  # one of the three
    )


def check_reply(data: bytes) -> None:
    """`200 gzip strict`, header lines, an empty line, the body."""
    head, _, body = data.partition(b"\n\n")
    first, *lines = head.decode("latin-1").split("\n")
    words = first.split()
    status = int(words[0]) if words and re.fullmatch(r"[1-9][0-9]{2}", words[0]) else 200
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = _filled(body)
    coding = next((each for each in _CODINGS if each in words), "")
    sent = _CODINGS[coding](body) if coding else body
    content, fault = decoded(sent, headers.get("content-encoding", ""))
    assert len(content) <= max(len(sent), LONGEST_BODY + 1), "a bomb was decoded"
    if coding == "gzip" and not fault and not sent.startswith(b"\x1f\x8b\x1f") and len(sent) <= LONGEST_BODY:
        assert content == body[: LONGEST_BODY + 1], "gzip was not decoded"
    one_line(fault)
    _check_headers(headers)
    check_outcome(Reply(status, headers, content, fault), _target(words))


def _check_headers(headers: dict[str, str]) -> None:
    now = START.wall
    skew, wait = clock_skew(headers, now), retry_after(headers, now)
    assert skew is None or math.isfinite(skew)
    assert abs(followed(skew)) <= 3600
    assert 0 <= age(headers) < 1e9
    assert wait is None or (wait >= 0 and math.isfinite(wait))


def check_outcome(reply: Reply, target: TokenTarget) -> None:
    """What has to hold for the outcome of any reply."""
    outcome = understand(reply, target, START, (SECRET,))
    assert isinstance(outcome, Issued | Transient | RateLimited | Refused | Malformed)
    for said in _said(outcome):
        one_line(said)
        assert len(said) <= 1000, "a message without a bound"
        assert CANARY not in said, "a message has a piece of the reply"
        assert SECRET not in said, "a message has a secret"
    if isinstance(outcome, Issued):
        _check_token(outcome, reply, target)


def _said(outcome: Outcome) -> list[str]:
    return list(outcome.notes) if isinstance(outcome, Issued) else [str(outcome), outcome.reason, outcome.message]


def _check_token(issued: Issued, reply: Reply, target: TokenTarget) -> None:
    token = issued.token
    assert re.fullmatch(r"[\x21-\x7e]+", token.access_token), "a token that would break out of a header"
    assert token.access_token.encode() in reply.body.replace(b"\\/", b"/") or b"\\" in reply.body
    assert math.isfinite(token.lifetime)
    assert token.lifetime <= _LONGEST_LIFETIME, "a lifetime that was not understood"
    expires = _expiry(token.access_token)
    if expires is not None:
        # By the provider's clock, of which an hour counts.
        assert token.lifetime <= expires - START.wall + 3601, "a JWT lives beyond its exp"
    assert issued.nbf >= 0
    assert math.isfinite(issued.nbf)
    assert "refresh_token" not in token.extra_fields()
    accepted = accept(TokenState(), issued, START, lambda held: held.expires.boot - held.lifetime / 5)
    assert accepted.due > START.boot
    if accepted.failure is not None:
        for said in (str(accepted.failure), accepted.failure.message):
            one_line(said)
        assert accepted.state.token is None
        return
    assert token.expires.boot > START.boot, "a token was accepted that had expired"
    check_files(token, target)


def _expiry(access_token: str) -> float | None:
    """The `exp` of a JWT, if it is a plausible moment."""
    parts = access_token.split(".")
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "==")) if len(parts) == 3 else None
    except (ValueError, RecursionError):
        return None
    expires = claims.get("exp") if isinstance(claims, dict) else None
    if not isinstance(expires, int | float) or isinstance(expires, bool):
        return None
    return expires if 1e9 < expires <= START.wall + 365 * 86400 else None


def check_files(token: Token, target: TokenTarget) -> None:
    """A token that is accepted can be written in each format, and its record read again."""
    record = Record(token, target.identity(), "7e0c5a")
    content = dump(record)
    assert len(content) <= _MOST_RECORD_BYTES
    assert load(content) == record, "a record that cannot be read again"
    raw, document, header, env = (render(target, token, output) for output in _OUTPUTS)
    assert raw == token.access_token.encode()
    assert json.loads(document)["access_token"] == token.access_token
    assert document.count(b"\n") == header.count(b"\n") == env.count(b"\n") == 1
    assert header.isascii()


_TOKEN = b'{"access_token": "opaque-1", "token_type": "Bearer", "expires_in": 3600, "scope": "bci"}'
_REPLIES = (
    b"200\n\n" + _TOKEN,
    b"200 gzip\ncontent-encoding: gzip\n\n" + _TOKEN,
    b"200 deflate\ncontent-encoding: deflate\n\n" + _TOKEN,
    b"200 zlib\ncontent-encoding: deflate\n\n" + _TOKEN,
    b"200 gzip\n\n" + _TOKEN,
    b"200 nested\n\n" + b'{"data": ' + _TOKEN + b"}",
    b"200 strict\ndate: Fri, 15 Jan 2027 08:00:00 GMT\nage: 60\n\n" + _TOKEN,
    b'200 id_token\n\n{"id_token": "<jwt>{"exp": 1800003600, "iat": 1800000000, "nbf": 1800000030}</jwt>"}',
    (b'200\n\n{"access_token": "<jwt>{"exp": 1800003600, "cnf": {"jkt": "x"}}</jwt>", '
    b'"expires_in": "3600", "scope": ["bci"]}'),
    (b'200 milliseconds\n\n{"access_token": "@canary@", "expires": "2027-01-15T09:00:00Z", '
    b'"error_description": "@canary@"}'),
    b'200\n\n{"access_token": "a", "expires_in": 0, "expires_at": 1800003600000, "refresh_token": "@canary@"}',
    b'200\n\n{"errcode": 40001, "errmsg": "@canary@"}',
    b'200\n\n{"error": {"code": "@secret@", "status": "@canary@"}}',
    (b'401\nwww-authenticate: Bearer error="invalid_client"\n\n'
    b'{"error": "invalid_client", "error_description": "@canary@"}'),
    (b'400\n\n{"error": "@secret@", "errors": [{"code": "@canary@", "title": "rate limit"}], '
    b'"fault": {"detail": {"errorcode": "x"}}}'),
    b"302\nlocation: https://@canary@.example.com/?code=@secret@\n\n",
    b"503\nretry-after: 120\n\n<html>@canary@</html>",
    b"429\nretry-after: Fri, 15 Jan 2027 08:01:00 GMT\ndate: Fri, 15 Jan 2027 08:00:00 GMT\n\n",
    b"429\nx-ratelimit-reset: 1800000060.5\n\n",
    b"403\ncf-mitigated: challenge\n\n",
    b"407\nproxy-authenticate: Basic\n\n",
    b'200\n\n{"data": {"token": {"access_token": "a"}, "@canary@": 1}, "@secret@": {"id_token": "@canary@"}}',
    b"200\n\n\xef\xbb\xbf" + _TOKEN,
    b"200\n\n" + b"[" * 40 + b"]" * 40,
)  # fmt: skip
_REPLY_WORDS = (
    *(b"access_token", b"expires_in", b"expiresIn", b"expires", b"expires_at", b"expiresAt", b"expires_on",
      b"token_type"),
    *(b"scope", b"error", b"error_description", b"errcode", b"errors", b"code", b"title", b"fault", b"detail",
      b"response"),
    *(b"data", b"token", b"accessToken", b"id_token", b"refresh_token", b"bearer", b"DPoP", b"mac", b"slow_down"),
    *(b"<jwt>", b"</jwt>", b'"exp": 1800003600', b'"iat": 1800000000', b'"nbf": 1800000030',
      b'"cnf": {"x5t#S256": "x"}'),
    *(b"retry-after: ", b"date: ", b"age: ", b"content-encoding: ", b"location: ", b"www-authenticate: "),
    *(b"x-ratelimit-reset: ", b"ratelimit-reset: ", b"gzip", b"deflate", b"zlib", b"br", b"identity"),
    *(b"Fri, 15 Jan 2027 08:00:00 GMT", b"2027-01-15T09:00:00Z", b"2027-01-15", b"0001-01-01T00:00:00+23:59"),
    *(b"Fri, 31 Dec 9999 23:59:59 -2359", b"Friday, 15-Jan-27 08:00:00 GMT", b"Fri Jan 15 08:00:00 2027"),
    *(b"@canary@", b"@secret@", b"\xed\xa0\x80", b"\\ud800", b"\\n", b"\\u0000"),
    *(b"invalid_client", b"invalid_scope", b"temporarily_unavailable", b"strict", b"nested", b"milliseconds",
      b"seconds"),
)  # fmt: skip


# -- the bytes of a whole response --------------------------------------------------------------------

_URL = "http://127.0.0.1:1/token"


def check_response(data: bytes) -> None:
    """What a server sends until it closes the connection."""
    ours, theirs = socket.socketpair()
    endpoint = Endpoint(Provider(name="p", token_url=_URL, timeout=60.0))
    connections = [ours]

    def connect(*_: object) -> socket.socket:
        if not connections:
            raise ConnectionRefusedError
        return connections.pop()

    try:
        theirs.sendall(_filled(data))
        theirs.shutdown(socket.SHUT_WR)
        with mock.patch.object(transport, "connect", connect):
            reply = endpoint.send(Request(_URL, {}, b"client_secret=" + SECRET.encode()))
    finally:
        endpoint.close()
        ours.close()
        theirs.close()
    if isinstance(reply, NoReply):
        for said in (reply.reason, reply.hint or ""):
            one_line(said)
            assert CANARY not in said
            assert SECRET not in said
        assert reply.phase in {"send", "wait", "read", "reply"}, reply.phase
        return
    assert 200 <= reply.status <= 999 or reply.status == 101, "not a final reply"
    assert len(reply.body) <= max(LONGEST_BODY + 1, len(data) + 4096)
    _check_headers(dict(reply.headers))
    check_outcome(reply, TARGET)


def _response(head: bytes, body: bytes = _TOKEN) -> bytes:
    return b"HTTP/1.1 " + head.replace(b"\n", b"\r\n") + b"\r\n\r\n" + body


_RESPONSES = (
    _response(b"200 OK\nContent-Type: application/json\nContent-Length: %d" % len(_TOKEN)),
    _response(b"200 OK"),
    _response(b"200 OK\nTransfer-Encoding: chunked", b"%x\r\n%b\r\n0\r\nX: y\r\n\r\n" % (len(_TOKEN), _TOKEN)),
    _response(b"103 Early Hints\nLink: x\n\nHTTP/1.1 200 OK\nConnection: close"),
    _response(b"100 Continue\n\nHTTP/1.1 100 Continue\n\nHTTP/1.1 401 X\nWWW-Authenticate: Bearer error=x", b""),
    _response(b"200 OK\nContent-Encoding: gzip\nDate: Fri, 15 Jan 2027 08:00:00 GMT", gzip.compress(_TOKEN, mtime=0)),
    _response(b"200 OK\nContent-Encoding: deflate\nAge: 60", zlib.compress(_TOKEN)),
    _response(b"302 Found\nLocation: https://@canary@/\nSet-Cookie: a=@secret@\nSet-Cookie: b=c", b""),
    _response(b"204 No Content", b""),
    _response(b"101 Switching Protocols\nUpgrade: h2c", b""),
    b"HTTP/1.0 200 @canary@\r\nX:\r\n folded: @secret@\r\n\r\n{}",
    b"SSH-2.0-OpenSSH_9.2\r\n",
    b"\x00\x00\x12\x04\x00\x00\x00\x00\x00\x00\x03",
)  # fmt: skip
_RESPONSE_WORDS = (
    *(
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 103 E\r\n\r\n",
        b"HTTP/1.1 100 C\r\n\r\n",
        b"HTTP/2 200\r\n",
        b"\r\n\r\n",
        b"\r\n",
    ),
    *(b"Content-Length: ", b"Transfer-Encoding: chunked\r\n", b"Content-Encoding: ", b"Connection: keep-alive\r\n"),
    *(b"Content-Type: text/html; charset=@canary@\r\n", b"Content-Type: multipart/x; boundary=a\r\n", b"0\r\n\r\n"),
    *(b"-1", b"ffffffff\r\n", b"Retry-After: ", b"Date: ", b"@canary@", b"@secret@", b"\xff"),
)


# -- metadata ------------------------------------------------------------------------------------------

_ISSUER = "https://sso.example.com/realms/acme"


def check_metadata(data: bytes) -> None:
    """`200`, an empty line, the document."""
    head, _, body = data.partition(b"\n\n")
    status = int(head) if re.fullmatch(rb"[1-9][0-9]{2}", head) else 200
    plain = status % 2 == 1
    provider = Provider(name="sso", issuer=_ISSUER.replace("https", "http") if plain else _ISSUER)
    found = read_metadata(Reply(200 if plain else status, {}, _filled(body)), provider, 0.0)
    if isinstance(found, Metadata):
        for url in (found.token_endpoint, found.mtls_token_endpoint):
            assert re.fullmatch(r"https?://[\x21-\x7e]+", url, re.IGNORECASE), "a secret would be sent there"
            assert plain or url.lower().startswith("https://"), "a secret would be sent in plain text"
            assert "#" not in url
            assert re.match(r"https?://[A-Za-z0-9._:\[\]-]{1,260}(/|\?|$)", url, re.IGNORECASE), "an unusual host"
        for auth in ("client_secret_basic", "private_key_jwt"):
            doubt = found.doubts(replace(CLIENT, auth=auth))
            one_line(doubt or "")
            assert CANARY not in (doubt or "")
        return
    assert isinstance(found, Malformed | RateLimited | Transient)
    one_line(str(found))
    assert CANARY not in str(found)


def _metadata(**fields: object) -> bytes:
    return b"200\n\n" + json.dumps({"issuer": _ISSUER, "token_endpoint": f"{_ISSUER}/token"} | fields).encode()


_DOCUMENTS = (
    _metadata(),
    _metadata(mtls_endpoint_aliases={"token_endpoint": "https://mtls.example.com/token"}),
    _metadata(
        token_endpoint_auth_methods_supported=["private_key_jwt", "@canary@", 1],
        token_endpoint_auth_signing_alg_values_supported=["RS256"],
    ),
    _metadata(token_endpoint="https://user:@canary@@sso.example.com:8443/token?a=b"),
    _metadata(token_endpoint="https://[::1]:8443/token"),
    _metadata(issuer=_ISSUER + "/"),
    b'201\n\n{"issuer": "http://sso.example.com/realms/acme", "token_endpoint": "http://sso.example.com/token"}',
    b"503\n\n",
    b"404\n\n<html>",
)
_DOCUMENT_WORDS = (
    *(b"issuer", b"token_endpoint", b"mtls_endpoint_aliases", b"token_endpoint_auth_methods_supported"),
    *(b"https://", b"http://sso.example.com", b"https:\\\\", b"//", b"[::1]", b"[v1.a]", b":99999", b"@", b"#", b"%00"),
    *(b"@canary@", b"client_secret_basic", b"private_key_jwt", b"none", b"tls_client_auth", b"\\u212a", b"\\n"),
)

TARGETS = (
    Target(
        "reply", "token endpoint replies: codings, JSON, JWTs, lifetimes, headers", check_reply, _REPLIES, _REPLY_WORDS
    ),
    Target("response", "the bytes of a whole HTTP response", check_response, _RESPONSES, _RESPONSE_WORDS),
    Target("metadata", "discovery documents", check_metadata, _DOCUMENTS, _DOCUMENT_WORDS),
)
