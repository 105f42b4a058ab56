"""Real answers of token endpoints, byte for byte, and a server that sends them.

Each answer is named by the provider, or the kind of server, that it was seen at (field/providers.md, the
providers' own pages, reports of their users); the expected result is beside it.
"""

from __future__ import annotations

import base64
import gzip
import json
import socket
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Any, Final, Literal

from bearerd import __version__
from bearerd.grant.outcome import Failure, Issued, Malformed, Named, RateLimited, Refused, Transient
from bearerd.terms import Reference, Token
from support.clock import START
from support.server import request_of

# -- the server ----------------------------------------------------------------------------------------


class Wire:
    """Reads one request of each connection, sends the bytes `says`, or those that `says` returns, and closes."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.says: bytes | Callable[[bytes], bytes] = b""
        self.heard: list[bytes] = []

    def serve(self) -> None:
        """Accept connections, one at a time, until the listener is shut down."""
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection, suppress(OSError):  # the client has read enough
                request = request_of(connection)
                if request:
                    self.heard.append(request)
                    connection.sendall(self.says if isinstance(self.says, bytes) else self.says(request))

    def stop(self) -> None:
        """Accept no more connections."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@contextmanager
def wired() -> Iterator[Wire]:
    """Run a server during the block."""
    wire = Wire()
    thread = threading.Thread(target=wire.serve, daemon=True)
    thread.start()
    try:
        yield wire
    finally:
        wire.stop()
        thread.join(20.0)


def http(status: int | str, *headers: str, body: bytes = b"", length: bool = True) -> bytes:
    """A response; a bare status has its standard phrase, and Content-Length comes last."""
    first = f"{status} {HTTPStatus(status).phrase}" if isinstance(status, int) else status
    last = [f"Content-Length: {len(body)}"] if length else []
    return "\r\n".join([f"HTTP/1.1 {first}", *headers, *last, "", ""]).encode("latin-1") + body


JSON: Final = "Content-Type: application/json;charset=UTF-8"
HTML: Final = "Content-Type: text/html; charset=utf-8"
LOGIN: Final = b"<!DOCTYPE html>\n<html><head><title>Sign in</title></head><body></body></html>\n"
NOW: Final = "Date: Fri, 15 Jan 2027 08:00:00 GMT"
"""START as a header value."""


def says(status: int | str, body: bytes, *headers: str) -> bytes:
    """A response in JSON."""
    return http(status, *headers, JSON, body=body)


def ok(body: bytes, *headers: str) -> bytes:
    """A token reply as in RFC 6749 section 5.1."""
    return says(200, body, *headers, "Cache-Control: no-store", "Pragma: no-cache")


def jwt(claims: Mapping[str, Any]) -> str:
    """A JWT with these claims and an invalid signature."""
    middle = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    return f"eyJhbGciOiJSUzI1NiJ9.{middle}.c2ln"


def gzipped(body: bytes) -> bytes:
    """The text compressed with gzip, always to the same bytes."""
    return gzip.compress(body, mtime=0)


# -- requests ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sends:
    """A client, and the bytes of its request without `Host` and `User-Agent`, which follows it."""

    name: str
    head: str
    """The headers from Accept on."""
    body: str
    client: Mapping[str, Any] = field(default_factory=dict)
    asked: Mapping[str, Any] = field(default_factory=dict)

    def raw(self, port: int) -> bytes:
        """The request as the server at this port of loopback gets it."""
        first = f"POST /token HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
        return f"{first}Content-Length: {len(self.body)}\r\n{self.head}\r\n{self.body}".encode()


_ACCEPT: Final = "Accept: application/json\r\nAccept-Encoding: identity\r\n"
_AGENT: Final = f"User-Agent: bearerd/{__version__}\r\n"
_FORM: Final = "Content-Type: application/x-www-form-urlencoded\r\n"
_JSON_BODY: Final = "Content-Type: application/json\r\n"
_BASIC: Final = "Authorization: Basic N2UwYzVhOnMzY3JldA==\r\n"
_GRANT: Final = "grant_type=client_credentials&scope=bci"

REQUESTS: Final = [
    Sends("D&B: Basic", _ACCEPT + _AGENT + _FORM + _BASIC, _GRANT),
    Sends(
        "Azure API Management: a subscription key",
        f"{_ACCEPT}{_AGENT}Ocp-Apim-Subscription-Key: a_parameter_of_letters\r\n{_FORM}{_BASIC}",
        _GRANT,
        client={"headers": (("Ocp-Apim-Subscription-Key", Reference("env", "PARAMETER")),)},
    ),
    Sends(
        "wso2: headers as text, of which two replace bearerd's own",
        f"Accept-Encoding: identity\r\nX-Tenant: acme\tdefault\r\nUSER-AGENT: acme/1\r\naccept: */*\r\n{_FORM}{_BASIC}",
        _GRANT,
        client={"headers": (("X-Tenant", "acme\tdefault"), ("USER-AGENT", "acme/1"), ("accept", "*/*"))},
    ),
    Sends(
        "D&B Direct+ v2: JSON, with Basic and without a scope",
        _ACCEPT + _AGENT + _JSON_BODY + _BASIC,
        '{"grant_type": "client_credentials"}',
        client={"body": "json"},
        asked={"scope": ""},
    ),
    Sends(
        "Auth0: JSON, with the secret in it",
        _ACCEPT + _AGENT + _JSON_BODY,
        '{"grant_type": "client_credentials", "audience": "https://api.example.com/\\u00e4", "client_id": "7e0c5a", '
        '"client_secret": "s3cret"}',
        client={"body": "json", "auth": "client_secret_post"},
        asked={"scope": "", "parameters": (("audience", "https://api.example.com/ä"),)},
    ),
    Sends(
        "JSON, with a parameter that has several values, and a ready assertion",
        _ACCEPT + _AGENT + _JSON_BODY,
        '{"grant_type": "client_credentials", "scope": "bci risk", "resource": ["a", "b"], "client_id": "7e0c5a", '
        '"client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer", '
        '"client_assertion": "s3cret"}',
        client={"body": "json", "auth": "assertion", "client_secret": (), "assertion": Reference("env", "SECRET")},
        asked={"scope": "bci risk", "parameters": (("resource", "a"), ("resource", "b"))},
    ),
    Sends(
        "client_id next to Basic",
        _ACCEPT + _AGENT + _FORM + _BASIC,
        f"{_GRANT}&client_id=7e0c5a",
        asked={"parameters": (("client_id", "7e0c5a"),)},
    ),
]

# -- tokens --------------------------------------------------------------------------------------------


def token(
    text: str,
    lifetime: float,
    *notes: str,
    scope: str | None = "bci",
    kind: str = "Bearer",
    extra: Mapping[str, Any] | None = None,
    named: Named = "named",
    nbf: float = 0.0,
) -> Issued:
    """The expected result of an answer with a token."""
    return Issued(Token(text, START, lifetime, kind, scope, json.dumps(extra or {})), notes, named, nbf)


T: Final = b'{"access_token":"t","token_type":"Bearer","expires_in":3600}'


@dataclass(frozen=True)
class Gives:
    """An answer with a token, the expected token, and the seconds until its refresh."""

    name: str
    raw: bytes
    issued: Issued = token("t", 3600)  # noqa: RUF009 - frozen
    refresh: float = 2880
    """Without jitter, with the default `refresh_before`."""
    asked: Mapping[str, Any] = field(default_factory=dict)
    """The scope of the target, if it is not `bci`."""
    client: Mapping[str, Any] = field(default_factory=dict)
    token_field: str = "access_token"


def _lasting(expires_in: bytes) -> bytes:
    return ok(T.replace(b"3600", expires_in))


_NONE: Final = "the reply names no lifetime: default_lifetime (3600 s) is used"
_NONSENSE: Final = "the lifetime in the reply is not plausible: default_lifetime (3600 s) is used"
_IF_WRONG: Final = "if that is wrong, set lifetime_unit: seconds"
_NO_TYPE: Final = "the reply has no token_type; the token is used as a bearer token"
_OTHER_TYPE: Final = "the reply has a token_type other than Bearer; the token is used as a bearer token"
_REST: Final = "ask the provider to grant it to this client"
_NBF: Final = jwt({"iat": START.wall, "nbf": START.wall + 45, "exp": START.wall + 3600})
_EXP: Final = jwt({"iat": START.wall, "exp": START.wall + 900})

LIFETIMES: Final = [
    Gives(
        "D&B sandbox: an hour",
        ok(b'{"access_token": "dd4f7ae5", "scope": "bci", "token_type": "Bearer", "expires_in": 3600}'),
        token("dd4f7ae5", 3600),
    ),
    Gives(
        "D&B: 7199 s, no scope, a UUID",
        ok(b'{"access_token": "5f0c8a52-6f0e-4f7c-9d0e-1f6f3a0b7c11", "token_type": "Bearer", "expires_in": 7199}'),
        token("5f0c8a52-6f0e-4f7c-9d0e-1f6f3a0b7c11", 7199),
        5759.2,
    ),
    Gives(
        "PayPal: a string",
        ok(b'{"access_token":"A21AAF","token_type":"Bearer","app_id":"APP-80W","expires_in":"31668","nonce":"2020"}'),
        token("A21AAF", 31668, extra={"app_id": "APP-80W", "nonce": "2020"}),
        25334.4,
    ),
    Gives(
        "UPS: a string",
        ok(
            b'{"token_type":"Bearer","client_id":"7e0c5a","access_token":"eyJr","expires_in":"14399","status":"approved"}'
        ),
        token("eyJr", 14399, extra={"client_id": "7e0c5a", "status": "approved"}),
        11519.2,
    ),
    Gives(
        "Entra v1: a string, and expires_on",
        ok(b'{"token_type":"Bearer","expires_in":"3599","expires_on":"1800003599","access_token":"eyJ0"}'),
        token("eyJ0", 3599, extra={"expires_on": "1800003599"}),
        2879.2,
    ),
    Gives("a float", _lasting(b"3599.9"), token("t", 3599.9), 2879.92),
    Gives(
        "Mailchimp: 0, and a scope of null",
        ok(b'{"access_token":"5c6ccc","expires_in":0,"scope":null,"token_type":"bearer"}'),
        token("5c6ccc", 3600, _NONE, named="zero"),
    ),
    Gives("null", _lasting(b"null"), token("t", 3600, _NONE, named="unnamed")),
    Gives(
        "Salesforce: missing, and instance_url",
        ok(b'{"access_token":"00D!AQ.","instance_url":"https://acme.my.salesforce.com","token_type":"Bearer"}'),
        token("00D!AQ.", 3600, _NONE, extra={"instance_url": "https://acme.my.salesforce.com"}, named="unnamed"),
    ),
    Gives(
        "missing, of a JWT",
        ok(b'{"access_token":"%b","token_type":"Bearer"}' % _EXP.encode()),
        token(_EXP, 900, "the reply names no lifetime: the exp of the JWT is used"),
        720,
    ),
    Gives(
        "Postman: milliseconds",
        _lasting(b"3600000"),
        token(
            "t",
            3600,
            f"expires_in 3600000 was read as milliseconds: 3600 s, not 3600000 s; {_IF_WRONG}",
        ),
    ),
    Gives(
        "Adobe: milliseconds",
        _lasting(b"86399995"),
        token(
            "t",
            86399.995,
            f"expires_in 86399995 was read as milliseconds: 86400 s, not 86399995 s; {_IF_WRONG}",
        ),
        69119.996,
    ),
    Gives(
        "Deliverect: a Unix time",
        _lasting(b"1800086400"),
        token("t", 86400, "expires_in was read as a Unix time: 86400 s"),
        69120,
    ),
    Gives(
        "Deliverect: expires_at alone",
        ok(b'{"access_token":"t","expires_at":1800086400,"token_type":"Bearer","scope":"bci provisioning"}'),
        token("t", 86400, scope="bci provisioning", extra={"expires_at": 1800086400}),
        69120,
    ),
    Gives(
        "a Unix time in milliseconds",
        _lasting(b"1800003600000"),
        token("t", 3600, "expires_in was read as a Unix time in milliseconds: 3600 s"),
    ),
    Gives(
        "D&B Direct+: expiresIn, and no token_type",
        ok(b'{"access_token":"tLxGJ","expiresIn":86400}'),
        token("tLxGJ", 86400, _NO_TYPE, extra={"expiresIn": 86400}),
        69120,
    ),
    Gives(
        "D&B Direct+: expirationDateTime",
        ok(b'{"access_token":"t","token_type":"Bearer","expirationDateTime":"2027-01-16T08:00:00.000Z"}'),
        token("t", 86400, extra={"expirationDateTime": "2027-01-16T08:00:00.000Z"}),
        69120,
    ),
    Gives(
        "expires_at by a clock that is an hour ahead",
        ok(b'{"access_token":"t","token_type":"Bearer","expires_at":1800004200}', NOW.replace("08:00", "09:00")),
        token("t", 600, extra={"expires_at": 1800004200}),
        480,
    ),
    Gives("absurd", _lasting(b"9" * 30), token("t", 3600, _NONSENSE, named="unnamed")),
    Gives("words", _lasting(b'"1h"'), token("t", 3600, _NONSENSE, named="unnamed")),
    Gives("30 days", _lasting(b"2592000"), token("t", 2592000), 2073600),
    Gives(
        "half an hour in milliseconds, or three weeks",
        _lasting(b"1800000"),
        token(
            "t",
            1800000,
            "expires_in 1800000 was read as seconds; if it is milliseconds (1800 s), set lifetime_unit: milliseconds",
        ),
        1440000,
    ),
    Gives(
        "the same with lifetime_unit: milliseconds",
        _lasting(b"1800000"),
        token("t", 1800),
        1440,
        asked={"lifetime_unit": "milliseconds"},
    ),
    Gives(
        "Twitch: 60 days with lifetime_unit: seconds",
        ok(b'{"access_token":"jostpf","expires_in":5184000,"token_type":"bearer"}'),
        token("jostpf", 5184000),
        4147200,
        asked={"lifetime_unit": "seconds"},
    ),
    Gives(
        "a JWT that is valid in 45 s",
        ok(b'{"access_token":"%b","token_type":"Bearer","expires_in":3600}' % _NBF.encode(), NOW),
        token(_NBF, 3600, nbf=45),
    ),
    Gives(
        "the same by a clock that is 45 s ahead",
        ok(
            b'{"access_token":"%b","token_type":"Bearer","expires_in":3555}' % _NBF.encode(),
            NOW.replace("00 G", "45 G"),
        ),
        token(_NBF, 3555),
        2844,
    ),
    Gives("a second", _lasting(b"1"), token("t", 1), 1),
    Gives("expired already: the token that is held decides what that means", _lasting(b"-1"), token("t", -1), 1),
    Gives("a millisecond is no loop", _lasting(b"0.001"), token("t", 0.001), 1),
]

_BOUND: Final = jwt({"cnf": {"x5t#S256": "bwcK0esc3ACC3DB2Y5_lESsXE8o9ltc05O89jdN-dg2"}})
_PROOF: Final = jwt({"cnf": {"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}})

TOKENS: Final = [
    Gives(
        "token_field: data.access_token, and the lifetime beside it",
        ok(b'{"status":"ok","expires_in":60,"data":' + T[:-1] + b',"user":"7","refresh_token":"r"}}'),
        token("t", 3600, extra={"user": "7"}),
        token_field="data.access_token",
    ),
    Gives(
        "token_field: no lifetime beside it, and one at the root that is not used",
        ok(b'{"expires_in":60,"data":{"access_token":"t","token_type":"Bearer"}}'),
        token("t", 3600, _NONE, named="unnamed"),
        token_field="data.access_token",
    ),
    Gives(
        "token_field: id_token, whose exp is earlier than expires_in",
        ok(b'{"access_token":"a","token_type":"Bearer","expires_in":3600,"id_token":"%b"}' % _EXP.encode()),
        token(_EXP, 900),
        720,
        token_field="id_token",
    ),
    Gives(
        "Google for IAP: an ID token and nothing else",
        ok(b'{"id_token":"%b"}' % _EXP.encode()),
        token(_EXP, 900),
        720,
        token_field="id_token",
    ),
    Gives(
        "token_field: accessToken, expiresIn and tokenType",
        ok(b'{"accessToken":"t","expiresIn":3600,"tokenType":"Bearer"}'),
        token("t", 3600, _NO_TYPE, extra={"expiresIn": 3600, "tokenType": "Bearer"}),
        token_field="accessToken",
    ),
    Gives(
        "WeChat: errcode 0, and no token_type",
        ok(b'{"access_token":"74_ZzGw","expires_in":7200,"errcode":0,"errmsg":"ok"}'),
        token("74_ZzGw", 7200, _NO_TYPE, extra={"errcode": 0, "errmsg": "ok"}),
        5760,
    ),
    Gives("201", says(201, T, "Location: /token/1")),
    Gives("203, of a proxy that transforms", says(203, T)),
    Gives("JSON that is called HTML", http(200, HTML, body=T)),
    Gives("no Content-Type", http(200, body=T)),
    Gives("error: null", ok(b'{"error":null,' + T[1:]), token("t", 3600, extra={"error": None})),
    Gives("errcode: a string of 0", ok(b'{"errcode":"0",' + T[1:]), token("t", 3600, extra={"errcode": "0"})),
    Gives(
        "Keycloak: a scope that is wider, and names with hyphens",
        ok(b'{"access_token":"t","expires_in":300,"token_type":"Bearer","not-before-policy":0,"scope":"profile bci"}'),
        token("t", 300, scope="profile bci", extra={"not-before-policy": 0}),
        240,
    ),
    Gives(
        "Keycloak before 12: a refresh token is not kept",
        ok(b'{"access_token":"t","expires_in":180,"refresh_token":"eyJr","token_type":"bearer"}'),
        token("t", 180),
        120,
    ),
    Gives(
        "Zoom: api_url",
        ok(b'{"access_token":"t","token_type":"bearer","expires_in":3600,"api_url":"https://api.zoom.us"}'),
        token("t", 3600, extra={"api_url": "https://api.zoom.us"}),
    ),
    Gives("Google: a token of dots", ok(T.replace(b'"t"', b'"ya29.c.b0A....."')), token("ya29.c.b0A.....", 3600)),
    Gives(
        "eBay: Application Access Token",
        ok(b'{"access_token":"v^1.1#i^1#t^H4s=","expires_in":7200,"token_type":"Application Access Token"}'),
        token("v^1.1#i^1#t^H4s=", 7200, _OTHER_TYPE, kind="Application Access Token"),
        5760,
    ),
    Gives(
        "Apigee: BearerToken, and an empty scope",
        ok(b'{"scope":"","token_type":"BearerToken","access_token":"ffFWS","expires_in":"3600"}'),
        token("ffFWS", 3600, _OTHER_TYPE, scope="", kind="BearerToken"),
        asked={"scope": ""},
    ),
    Gives(
        "Keycloak: bound to a certificate",
        ok(T.replace(b'"t"', b'"%b"' % _BOUND.encode())),
        token(
            _BOUND,
            3600,
            "the token is bound to the client's certificate: its readers have to present the same certificate",
        ),
    ),
    Gives(
        "DPoP that is called Bearer",
        ok(T.replace(b'"t"', b'"%b"' % _PROOF.encode())),
        token(
            _PROOF,
            3600,
            "the token is bound to a DPoP key, which its readers do not have: APIs that check this will refuse it",
        ),
    ),
    Gives(
        "Entra: a token of 40 kB",
        ok(T.replace(b'"t"', b'"%b"' % (b"x" * 40_000))),
        token("x" * 40_000, 3600, "the token is 40000 bytes long; some readers stop at 4096"),
    ),
    Gives(
        "oidc-provider: an unknown scope is dropped",
        ok(b'{"access_token":"t","expires_in":3600,"token_type":"Bearer","scope":"bci"}'),
        token("t", 3600, f"the token's scope lacks risk; {_REST}"),
        asked={"scope": "bci risk"},
    ),
    Gives(
        "Adobe: scopes with commas",
        ok(b'{"access_token":"t","expires_in":3600,"token_type":"bearer","scope":"openid,AdobeID"}'),
        token("t", 3600, scope="openid,AdobeID"),
        asked={"scope": "AdobeID openid", "strict_scope": True},
        client={"scope_separator": ","},
    ),
    Gives(
        "Twitch: scopes as a list",
        ok(b'{"access_token":"t","expires_in":3600,"token_type":"bearer","scope":["bci","risk"]}'),
        token("t", 3600, scope="bci risk"),
        asked={"strict_scope": True},
    ),
]


def _chunked(body: bytes, *headers: str) -> bytes:
    return http(200, *headers, "Transfer-Encoding: chunked", body=body, length=False)


TRANSPORT: Final = [
    Gives("ASP.NET: a byte order mark", ok(b"\xef\xbb\xbf" + T)),
    Gives("PHP: blank lines around", ok(b"\r\n\r\n" + T + b"\n")),
    Gives("gzip is said, but it is not", ok(T, "Content-Encoding: gzip")),
    Gives("Akamai: gzip", ok(gzipped(T), "Content-Encoding: gzip", "Vary: Accept-Encoding")),
    Gives("gzip that is not said", ok(gzipped(T))),
    Gives("IIS: deflate with a zlib header", ok(zlib.compress(T), "Content-Encoding: deflate")),
    Gives("deflate without a header", ok(zlib.compress(T)[2:-4], "Content-Encoding: DEFLATE")),
    Gives(
        "gzip in chunks",
        _chunked(b"%x\r\n%b\r\n0\r\n\r\n" % (len(gzipped(T)), gzipped(T)), "Content-Encoding: x-gzip"),
    ),
    Gives("chunked", _chunked(b"1e\r\n%b\r\n1E;x=y\r\n%b\r\n0\r\nX-Sum: 1\r\n\r\n" % (T[:30], T[30:]))),
    Gives("chunked, and a wrong length", _chunked(b"3c\r\n%b\r\n0\r\n\r\n" % T, "Content-Length: 3")),
    Gives("no length: the close ends it", http(200, body=T, length=False)),
    Gives("a length that is no number", http(200, "Content-Length: many", body=T, length=False)),
    Gives("a length twice", ok(T, f"Content-Length: {len(T)}")),
    Gives("HTTP/1.0", b"HTTP/1.0 200 OK\r\n\r\n" + T),
    Gives("no phrase", http("200", body=T)),
    Gives("bare line feeds", ok(T).replace(b"\r\n", b"\n")),
    Gives("IIS: 100 Continue first, twice", http(100, "X: y", length=False) * 2 + ok(T)),
    Gives("headers in Latin-1, folded, empty, nameless", ok(T, "X-Gr\xfc\xdfe: \xe4", "X-A: b\r\n c", "X-E:", ": x")),
    Gives("ninety-nine headers", ok(T, *["X: y"] * 95)),
    Gives("cookies that are none", ok(T, "Set-Cookie: =; expires=never; domain=.", "Set-Cookie: \x01")),
]

INTERIM: Final = [
    Gives("102 first", http(102, length=False) + ok(T)),
    Gives("103 first", http(103, "Link: </login.css>; rel=preload", length=False) + ok(T)),
]

# -- failures ------------------------------------------------------------------------------------------


Waits = tuple[float, float]
"""Seconds until the next attempt after the first and the tenth failure in a row, with a random draw of 0.5."""

WAITS: Final[Mapping[type[Failure], Waits]] = {
    # 1 s doubling to 60 s, halved by full jitter.
    Transient: (1, 30),
    # 60 s doubling to 10 min, and 10 % of jitter.
    RateLimited: (66, 660),
    # 60 s doubling to 10 min.
    Malformed: (60, 600),
}
"""Without a Retry-After. The wait of a refused client is decided by admission."""


@dataclass(frozen=True)
class Fails:
    """An answer without a token, the expected outcome, and the wait that follows."""

    name: str
    raw: bytes
    failure: Failure
    """PORT in its message is the port of the wire."""
    after: float | None = None
    """The wait of a Retry-After, clamped."""
    asked: Mapping[str, Any] = field(default_factory=dict)
    token_field: str = "access_token"
    proxied: str = ""
    """The scheme of the provider behind a proxy that gives this answer."""

    @property
    def waits(self) -> Waits | None:
        """Seconds of the wait; None after a refusal."""
        if self.after is None or isinstance(self.failure, Refused):
            return WAITS.get(type(self.failure))
        # 10 % of jitter; for a rate limit at least the backoff.
        first, tenth = (1.1, 66.0) if isinstance(self.failure, RateLimited) else (1.0, 30.0)
        return max(first, 1.1 * self.after), max(tenth, 1.1 * self.after)


_CHECK: Final = "check that client_id, secret and auth match the provider's settings"


def _client(said: str, hint: str | None = _CHECK) -> Refused:
    return Refused(f"{said}: the client was refused", hint=hint)


_ALLOWED: Final = "check that the provider allows this client's scope and parameters"
_SCOPE: Final = "check that scope matches the provider's settings, and have it granted to this client"


def _this(said: str, hint: str | None = _ALLOWED) -> Refused:
    return Refused(f"{said}: this request was refused", hint=hint, whole_client=False)


REFUSALS: Final = [
    Fails(
        "Salesforce: a code of its own for the client",
        says(400, b'{"error":"invalid_client_id","error_description":"client identifier invalid"}'),
        _client("HTTP 400 invalid_client_id"),
    ),
    Fails(
        "GitHub: with 200",
        says(200, b'{"error":"incorrect_client_credentials"}'),
        _client("HTTP 200 incorrect_client_credentials"),
    ),
    Fails(
        "an error in words, with 200",
        says(200, b'{"error":"Invalid client credentials"}'),
        _client('HTTP 200 "Invalid client credentials"'),
    ),
    Fails(
        "a scope whose name speaks of quotas",
        says(400, b'{"error":"invalid_scope","error_description":"quota.read is not allowed"}'),
        Refused("HTTP 400 invalid_scope: the scope was refused", whole_client=False, hint=_SCOPE),
    ),
    Fails(
        "D&B: a wrong secret",
        says(401, b'{"error": "invalid_client", "error_description": "Bad credentials"}'),
        _client("HTTP 401 invalid_client"),
    ),
    Fails(
        "oidc-provider: a wrong secret",
        says(401, b'{"error":"invalid_client"}', 'www-authenticate: Basic realm="op", error="invalid_client"'),
        _client("HTTP 401 invalid_client"),
    ),
    Fails(
        "Keycloak: a wrong secret",
        says(
            401, b'{"error":"unauthorized_client","error_description":"Invalid client or Invalid client credentials"}'
        ),
        _client("HTTP 401 unauthorized_client"),
    ),
    Fails(
        "Duende: a wrong secret",
        says(400, b'{"error":"invalid_client"}', "Server: Kestrel", "Cache-Control: no-store, no-cache, max-age=0"),
        _client("HTTP 400 invalid_client"),
    ),
    Fails("glewlwyd: a wrong secret", http(403), _client("HTTP 403")),
    Fails(
        "django-oauth-toolkit: a wrong secret",
        says(401, b'{"error": "invalid_client"}', 'WWW-Authenticate: Bearer error="invalid_client"'),
        _client("HTTP 401 invalid_client"),
    ),
    Fails(
        "Auth0: a wrong secret",
        says(401, b'{"error":"access_denied","error_description":"Unauthorized"}'),
        _client("HTTP 401 access_denied"),
    ),
    Fails(
        "Entra: a wrong secret",
        says(
            401,
            b'{"error":"invalid_client","error_description":"AADSTS7000215: Invalid client secret provided. Ensure the '
            b'secret being sent is the client secret value, not its ID.\\r\\nTrace ID: 0e5a","error_codes":[7000215]}',
        ),
        _client("HTTP 401 invalid_client", "check client_id and secret; Entra ID wants the secret's value, not its ID"),
    ),
    Fails(
        "Entra: no such client",
        says(400, b'{"error":"unauthorized_client","error_description":"AADSTS700016: Application was not found"}'),
        _client("HTTP 400 unauthorized_client"),
    ),
    Fails(
        "Apigee: a wrong secret, in names of its own",
        says(401, b'{"ErrorCode" : "invalid_client", "Error" :"Client credentials are invalid"}'),
        _client("HTTP 401 invalid_client"),
    ),
    Fails(
        "UPS: a wrong id",
        says(401, b'{"response":{"errors":[{"code":"10401","message":"ClientId is Invalid"}]}}'),
        _client("HTTP 401 10401"),
    ),
    Fails(
        "Twitch: a wrong secret", says(403, b'{"status":403,"message":"invalid client secret"}'), _client("HTTP 403")
    ),
    Fails("Reddit: error is a number", says(401, b'{"message": "Unauthorized", "error": 401}'), _client("HTTP 401")),
    Fails(
        "Spring Boot: error is a phrase",
        says("401", b'{"timestamp":"2027-01-15T08:00:00","status":401,"error":"Unauthorized","path":"/oauth/token"}'),
        _client("HTTP 401 Unauthorized"),
    ),
    Fails(
        "D&B Direct+: error is an object",
        says(401, b'{"error":{"errorMessage":"Unauthorized","errorCode":"00041"}}'),
        _client("HTTP 401 00041"),
    ),
    Fails(
        "D&B Direct+: error is an object, of this token",
        says(400, b'{"error":{"errorCode":"00003","errorMessage":"One or more parameters are invalid or missing."}}'),
        _this("HTTP 400 00003"),
    ),
    Fails(
        "200 with an error that is an object",
        says(200, b'{"error":{"code":"invalid_client","message":"Bad credentials"}}'),
        _client("HTTP 200 invalid_client"),
    ),
    Fails("200 with an error and a token", ok(b'{"error":"invalid_grant",' + T[1:]), _client("HTTP 200 invalid_grant")),
    *(
        Fails(
            f"WeChat: {message.decode()}",
            says(200, b'{"errcode":%d,"errmsg":"%b rid: 61f4"}' % (errcode, message)),
            _client(f"HTTP 200 with errcode {errcode}", hint),
        )
        for errcode, message, hint in (
            (40001, b"invalid credential", _CHECK),
            (40125, b"invalid appsecret", _CHECK),
            (
                40164,
                b"invalid ip",
                "the provider does not accept this machine's IP address for this client: have it allowed",
            ),
        )
    ),
    Fails(
        "invalid_scope",
        says(400, b'{"error":"invalid_scope","error_description":"Invalid scopes: bci"}'),
        Refused("HTTP 400 invalid_scope: the scope was refused", whole_client=False, hint=_SCOPE),
    ),
    Fails(
        "oidc-provider: the scope was dropped, and strict_scope is set",
        ok(b'{"access_token":"t","expires_in":3600,"token_type":"Bearer","scope":""}'),
        Refused("the token's scope lacks bci (strict_scope)", whole_client=False, hint=_REST),
        asked={"strict_scope": True},
    ),
    Fails(
        "Auth0: no audience",
        says(
            403, b'{"error":"access_denied","error_description":"No audience parameter was provided, and no default"}'
        ),
        _this("HTTP 403 access_denied", "set parameters: {audience: …} or {resource: …}"),
    ),
    Fails(
        "Okta: it wants DPoP",
        says(400, b'{"error":"invalid_dpop_proof","error_description":"The DPoP proof JWT header is missing."}'),
        _this(
            "HTTP 400 invalid_dpop_proof",
            "the provider requires DPoP, a new proof for each call, which a file cannot contain: "
            "ask it for bearer tokens",
        ),
    ),
    Fails(
        "nginx: http to its TLS port",
        http(
            400, HTML, body=b"<html>\r\n<head><title>400 The plain HTTP request was sent to HTTPS port</title></head>"
        ),
        _this("HTTP 400", "this port speaks TLS: write https://"),
    ),
    Fails(
        "nginx: no client certificate",
        http(
            400, HTML, body=b"<html>\r\n<head><title>400 No required SSL certificate was sent</title></head>\r\n<body>"
        ),
        _this("HTTP 400", "the server requires a client certificate: set tls_certificate and tls_private_key"),
    ),
    Fails(
        "nginx: a client certificate of another authority",
        http(400, HTML, body=b"<html>\r\n<head><title>400 The SSL certificate error</title></head>\r\n<body>"),
        _this("HTTP 400", "the server does not accept the client certificate"),
    ),
    Fails(
        "Cloudflare: a page that blocks",
        http(403, "Server: cloudflare", HTML, body=LOGIN),
        Refused(
            "HTTP 403: refused with an HTML page, not by a token endpoint",
            hint="check that token_url matches the provider's settings; if it does, ask the provider to let this "
            "machine's address through",
        ),
    ),
    Fails(
        "a name twice: the status counts",
        says(401, b'{"error":"invalid_scope","error":"slow_down"}'),
        _client("HTTP 401"),
    ),
    Fails(
        "brotli: the status counts",
        says(401, b'\x0b\x0a\x80{"error":"slow_down"}\xff\x03', "Content-Encoding: br"),
        _client("HTTP 401"),
    ),
]


def _often(said: str, retry_after: float | None = None) -> RateLimited:
    return RateLimited(f"{said}: too many requests", retry_after=retry_after)


RATE_LIMITS: Final = [
    Fails(
        "AWS: a throttling exception",
        says(400, b'{"error":"ThrottlingException","message":"Rate exceeded"}'),
        _often("HTTP 400 ThrottlingException"),
    ),
    Fails(
        "a rate limit with status 200",
        says(200, b'{"error":"failed","error_description":"rate limit exceeded"}'),
        _often("HTTP 200 failed"),
    ),
    Fails(
        "Okta: X-Rate-Limit-Reset",
        says(429, b'{"errorCode":"E0000047"}', f"X-Rate-Limit-Reset: {int(START.wall) + 42}"),
        _often("HTTP 429 E0000047", 42.0),
        after=42.0,
    ),
    Fails("the draft's RateLimit-Reset", says(429, b"{}", "RateLimit-Reset: 42"), _often("HTTP 429", 42.0), after=42.0),
    Fails(
        "Vertex: 10 tokens in 8 h, as invalid_request",
        says(
            400,
            b'{"error":"invalid_request","error_description":"Client 7e0c5a audience verx://migration-api has exceeded '
            b'the rate limit of 10 tokens/28800 seconds"}',
        ),
        _often("HTTP 400 invalid_request"),
    ),
    Fails(
        "iRacing: unauthorized_client",
        says(400, b'{"status":400,"error":"unauthorized_client","error_description":"rate limit exceeded"}'),
        _often("HTTP 400 unauthorized_client"),
    ),
    Fails(
        "Creditsafe: five bad requests in 2 minutes",
        http(429, "Content-Type: text/plain", body=b"Too many identical requests within a 2-minute period"),
        _often("HTTP 429"),
    ),
    Fails(
        "Auth0: x-ratelimit-reset is a Unix time",
        says(429, b'{"error":"too_many_requests"}', "x-ratelimit-remaining: 0", "x-ratelimit-reset: 1800000017"),
        _often("HTTP 429 too_many_requests", 17),
        17,
    ),
    Fails(
        "Auth0: a client's quota of a day",
        says(429, b'{"error":"too_many_requests"}', "X-RateLimit-Reset: 1800086400"),
        _often("HTTP 429 too_many_requests", 86400),
        3600,
    ),
    Fails(
        "Reddit: x-ratelimit-reset is seconds",
        says(429, b'{"message": "Too Many Requests", "error": 429}', "x-ratelimit-reset: 412"),
        _often("HTTP 429", 412),
        412,
    ),
    Fails(
        "SoundCloud: 50 in 12 h",
        says(429, b'{"code":429,"message":"rate_limit_exceeded","status":"429 - Too Many Requests","error":null}'),
        _often("HTTP 429"),
    ),
    Fails(
        "SoundCloud behind CloudFront: gzip",
        says(429, gzipped(b'{"error":"rate_limit_exceeded"}'), "content-encoding: gzip", "www-authenticate: Basic"),
        _often("HTTP 429 rate_limit_exceeded"),
    ),
    Fails(
        "gzip: a code that is in the body alone",
        says(401, gzipped(b'{"error":"slow_down"}'), "Content-Encoding: gzip"),
        _often("HTTP 401 slow_down"),
    ),
    Fails(
        "Zoho: Access Denied",
        says(400, b'{"error_description":"You have made too many requests continuously.","error":"Access Denied"}'),
        _often('HTTP 400 "Access Denied"'),
    ),
    Fails(
        "Kong: Retry-After in seconds",
        says(429, b'{"message":"API rate limit exceeded"}', "Retry-After: 37"),
        _often("HTTP 429", 37),
        37,
    ),
    Fails(
        "GitHub: a second limit is 403",
        says(403, b'{"message":"You have exceeded a secondary rate limit"}', "retry-after: 60"),
        _often("HTTP 403", 60),
        60,
    ),
    Fails(
        "D&B Direct+: error is an object",
        says(429, b'{"error":{"errorMessage":"Too Many Requests","errorCode":"00045"}}'),
        _often("HTTP 429 00045"),
    ),
    *(
        Fails(
            f"WeChat: {message.decode()}",
            says(200, b'{"errcode":%d,"errmsg":"%b"}' % (errcode, message)),
            _often(f"HTTP 200 with errcode {errcode}"),
        )
        for errcode, message in ((45009, b"reach max api daily quota limit"), (45011, b"api minute-quota reach limit"))
    ),
    Fails("slow_down", says(400, b'{"error":"slow_down"}'), _often("HTTP 400 slow_down")),
    Fails(
        "Retry-After is a date",
        http(429, NOW, "Retry-After: Fri, 15 Jan 2027 08:02:00 GMT"),
        _often("HTTP 429", 120),
        120,
    ),
    Fails(
        "Retry-After is a date by a clock that is an hour behind",
        http(429, NOW.replace("08:00", "07:00"), "Retry-After: Fri, 15 Jan 2027 07:02:00 GMT"),
        _often("HTTP 429", 120),
        120,
    ),
    Fails("Retry-After is 0", http(429, "Retry-After: 0"), _often("HTTP 429", 0), 1),
    Fails(
        "Retry-After is past", http(429, NOW, "Retry-After: Fri, 15 Jan 2027 07:59:00 GMT"), _often("HTTP 429", 0), 1
    ),
    Fails("Retry-After is 8 hours", http(429, "Retry-After: 28800"), _often("HTTP 429", 28800), 3600),
    Fails("Retry-After is folded", http(429, "Retry-After:\r\n 37"), _often("HTTP 429", 37), 37),
    Fails("Retry-After twice", http(429, "Retry-After: 37", "Retry-After: 38"), _often("HTTP 429", 38), 38),
]


def _unwell(said: str, retry_after: float | None = None) -> Transient:
    return Transient(f"{said}: a temporary error at the provider", retry_after=retry_after)


PASSING: Final = [
    Fails(
        "Entra: 503 with Retry-After",
        says(503, b'{"error":"temporarily_unavailable","error_description":"AADSTS90033"}', "Retry-After: 120"),
        _unwell("HTTP 503 temporarily_unavailable", 120),
        120,
    ),
    Fails(
        "503 with a date", http(503, NOW, "Retry-After: Fri, 15 Jan 2027 08:15:00 GMT"), _unwell("HTTP 503", 900), 900
    ),
    Fails(
        "400 with temporarily_unavailable",
        says(400, b'{"error":"temporarily_unavailable"}'),
        _unwell("HTTP 400 temporarily_unavailable"),
    ),
    Fails("Keycloak: unknown_error", says(500, b'{"error":"unknown_error"}'), _unwell("HTTP 500 unknown_error")),
    Fails("nginx: 502 in HTML", http(502, HTML, body=LOGIN), _unwell("HTTP 502")),
    Fails("AWS: 504, empty", http("504 Gateway Time-out", "Server: awselb/2.0"), _unwell("HTTP 504")),
    Fails("Cloudflare: 522", http("522 "), _unwell("HTTP 522")),
    Fails("LinkedIn: 999", http("999 Request denied"), _unwell("HTTP 999")),
    Fails("HAProxy: 408", http("408 Request Time-out", HTML, body=LOGIN), _unwell("HTTP 408")),
    Fails("425", http("425 Too Early"), _unwell("HTTP 425")),
    Fails(
        "D&B Direct+: error is an object",
        says(503, b'{"error":{"errorMessage":"Request timeout","errorCode":"00002"}}'),
        _unwell("HTTP 503 00002"),
    ),
    Fails("WeChat: busy", says(200, b'{"errcode":-1,"errmsg":"system error"}'), _unwell("HTTP 200 with errcode -1")),
    Fails("a portal: 511", http(511, HTML, body=LOGIN), _unwell("HTTP 511")),
]

_SQUID: Final = ("Server: squid/5.7", "Mime-Version: 1.0", HTML, "Via: 1.1 proxy (squid/5.7)")
_LOG_IN: Final = 'Proxy-Authenticate: Basic realm="proxy"'


def _proxy(status: int) -> Transient:
    return Transient(
        f"HTTP {status} from a proxy, not from the provider", hint="ask the operator of the proxy to allow it"
    )


def _no_tunnel(said: str, hint: str) -> Transient:
    return Transient(f"the proxy 127.0.0.1:PORT {said}", phase="connect", hint=hint)


_LOGIN_WANTED: Final = "the proxy requires a login: set proxy: {url: …, username: …, password: {file: …}}"

PROXIES: Final = [
    Fails(
        "squid: 407",
        http(407, *_SQUID, "X-Squid-Error: ERR_CACHE_ACCESS_DENIED 0", _LOG_IN, body=LOGIN),
        replace(_proxy(407), hint=_LOGIN_WANTED),
        proxied="http",
    ),
    Fails(
        "squid: 403 is not the provider's",
        http(403, *_SQUID, "X-Squid-Error: ERR_ACCESS_DENIED 0", body=LOGIN),
        _proxy(403),
        proxied="http",
    ),
    Fails(
        "squid: 503", http(503, *_SQUID, "X-Squid-Error: ERR_CONNECT_FAIL 111", body=LOGIN), _proxy(503), proxied="http"
    ),
    Fails("a proxy that nobody configured: 407", http(407), _proxy(407)),
    Fails(
        "squid: 407 to CONNECT",
        http(407, *_SQUID, _LOG_IN, body=LOGIN),
        _no_tunnel("refuses to connect to the provider: HTTP 407", _LOGIN_WANTED),
        proxied="https",
    ),
    Fails(
        "squid: 503 to CONNECT",
        http(503, *_SQUID, "X-Squid-Error: ERR_DNS_FAIL 0", body=LOGIN),
        _no_tunnel(
            "could not reach the provider: HTTP 503",
            "check the URL's host and port; if they are right, ask its operator",
        ),
        proxied="https",
    ),
]

_SITE: Final = "token_url leads to a login page, a proxy or another site: check that it matches the provider's settings"
_BEARER: Final = "ask the provider for bearer tokens for this client"


def _reply(what: str, hint: str | None = None, status: int = 200) -> Malformed:
    return Malformed(f"HTTP {status}, but the reply {what}", hint=hint)


def _elsewhere(status: int) -> Malformed:
    return Malformed(
        f"HTTP {status}: not the reply of a token endpoint", hint="check that token_url matches the provider's settings"
    )


def _redirect(status: int, there: str) -> Malformed:
    why = "which is not followed because it would send the secret there"
    return Malformed(f"HTTP {status}: a redirect{there}, {why}", hint="set token_url to the endpoint itself")


def _proof(kind: str) -> Malformed:
    why = "each call needs a new proof made with a key, which a file cannot contain"
    return Malformed(f"the token is of type {kind}: {why}", hint=_BEARER)


_READS: Final = "bearerd reads only gzip and deflate, and asks for neither"


def _no_token(why: str, token_field: str = "") -> Malformed:
    return Malformed(f"HTTP 200, but {why}", hint=f"set token_field: {token_field}" if token_field else None)


NO_TOKENS: Final = [
    Fails("a login page", http(200, HTML, body=LOGIN), _reply("is HTML, not JSON", _SITE)),
    Fails("a login page that is called JSON", ok(b"\n" + LOGIN), _reply("is HTML, not JSON", _SITE)),
    Fails("Facebook once: a form", http(200, body=b"access_token=t&expires=5184000"), _reply("is not JSON")),
    Fails("a bare JWT", http(200, body=_EXP.encode()), _reply("is not JSON")),
    Fails("an array", ok(b"[" + T + b"]"), _reply("is not a JSON object")),
    Fails(
        "camelCase",
        ok(b'{"accessToken":"t","expiresIn":3600,"tokenType":"Bearer"}'),
        _no_token("the reply has no access_token; it has: accessToken, expiresIn, tokenType", "accessToken"),
    ),
    Fails(
        "a token in data",
        ok(b'{"code":0,"data":' + T + b"}"),
        _no_token("the reply has no access_token; it has: code, data", "data.access_token"),
    ),
    Fails(
        "an ID token alone",
        ok(b'{"data":{"id_token":"t"}}'),
        _no_token("the reply has no access_token; it has: data", "data.id_token"),
    ),
    Fails(
        "a token in an object that is named like the secret",
        ok(b'{"s3cret":{"access_token":"t"},"a.b":{"access_token":"t"}}'),
        _no_token("the reply has no access_token; it has: 2 others"),
    ),
    Fails(
        "null for a token",
        ok(b'{"access_token":null,"token_type":"Bearer"}'),
        _no_token("access_token in the reply is null"),
    ),
    Fails(
        "an empty token",
        ok(b'{"access_token":"","token_type":"Bearer"}'),
        _no_token("access_token in the reply is empty"),
    ),
    Fails(
        "token_field: data is null",
        ok(b'{"status":"failed","data":null}'),
        _no_token("data in the reply is null"),
        token_field="data.access_token",
    ),
    Fails(
        "token_field: data is missing",
        ok(b'{"status":"failed"}'),
        _no_token("the reply has no data; it has: status"),
        token_field="data.access_token",
    ),
    Fails(
        "token_field: data has another name for it",
        ok(b'{"status":"ok","data":{"token":"t","ttl":3600}}'),
        _no_token("the reply has no data.access_token; data has: token, ttl", "data.token"),
        token_field="data.access_token",
    ),
    Fails(
        "token_field: data is a list",
        ok(b'{"data":[{"access_token":"t"}]}'),
        _no_token("data in the reply is not an object"),
        token_field="data.access_token",
    ),
    Fails(
        "token_field: names that could be a token are not shown",
        ok(b'{"5f0c8a52-6f0e-4f7c-9d0e-1f6f3a0b7c11":1,"a b":2,"%b":3,"n":4}' % (b"x" * 32)),
        _no_token("the reply has no data; it has: n, 3 others"),
        token_field="data.access_token",
    ),
    Fails("a name twice", ok(b'{"access_token":"u",' + T[1:]), _reply("names a field twice")),
    Fails("NaN", _lasting(b"NaN"), _reply("holds NaN or Infinity, which is not JSON")),
    Fails("1e999", _lasting(b"1e999"), _reply("holds a number that is too large")),
    Fails("a bomb", ok(gzipped(T.ljust(16 << 20)), "Content-Encoding: gzip"), _reply("is longer than 65536 bytes")),
    Fails(
        "gzip that is cut off",
        ok(gzipped(T)[:-1], "Content-Encoding: gzip"),
        _reply("is compressed, but damaged or cut off"),
    ),
    Fails("brotli", ok(b"\x0f\x1e\x00\xe0" + T, "Content-Encoding: br"), _reply(f"is encoded as br; {_READS}")),
    Fails(
        "an unknown coding",
        ok(b"\xff" + T, "Content-Encoding: gzip, s3cret"),
        _reply(f"is encoded in an unknown way; {_READS}"),
    ),
    Fails("UTF-16", ok(T.decode().encode("utf-16")), _reply("is not UTF-8")),
    Fails("64 KiB and a byte", ok(T.ljust(65537)), _reply("is longer than 65536 bytes")),
    Fails("16 MiB", http(200, body=b" " * (16 << 20), length=False), _reply("is longer than 65536 bytes")),
    Fails("204", http(204, length=False), _reply("is empty", status=204)),
    Fails("202, for later", http(202), _reply("is empty", status=202)),
    Fails("a length that is too short", http(200, "Content-Length: 58", body=T, length=False), _reply("is not JSON")),
    Fails(
        "a line end in the token",
        ok(b'{"access_token":"t\\r\\nSet-Cookie: x","token_type":"Bearer"}'),
        Malformed("the access token contains a line end or NUL, which would break out of a header"),
    ),
    Fails(
        "Bearer before the token",
        ok(b'{"access_token":"Bearer t","token_type":"Bearer"}'),
        Malformed("the access token contains white space, control or non-ASCII characters"),
    ),
    Fails("Okta: DPoP", ok(b'{"access_token":"%b","token_type":"DPoP"}' % _PROOF.encode()), _proof("dpop")),
    Fails("mac", ok(b'{"access_token":"t","token_type":"mac","mac_algorithm":"hmac-sha-256"}'), _proof("mac")),
    *(
        Fails(
            f"{status} to the login page",
            http(status, "Location: https://sso.example.com/login?client_id=7e0c5a", HTML, body=LOGIN),
            _redirect(status, " to https://sso.example.com"),
        )
        for status in (301, 302, 303, 307)
    ),
    Fails(
        "308 from http to https",
        http(308, "Location: https://127.0.0.1/token"),
        _redirect(308, " to https://127.0.0.1"),
    ),
    Fails("302 within the site", http(302, "Location: /login"), _redirect(302, "")),
    Fails("101 to another protocol", http(101, "Upgrade: h2c", length=False), _elsewhere(101)),
    Fails("404 of a site", http(404, HTML, body=LOGIN), _elsewhere(404)),
    Fails(
        "415: it wants JSON",
        says(415, b'{"title":"Unsupported Media Type","status":415}'),
        Malformed(
            'HTTP 415 "Unsupported Media Type": not the reply of a token endpoint',
            hint="check that token_url matches the provider's settings, and whether it expects a form or JSON (body)",
        ),
    ),
]


_TLS: Final = "if this port speaks TLS, write https://"


def _broken(phase: Literal["wait", "read"] = "wait") -> Transient:
    during, hint = ("reading", None) if phase == "read" else ("waiting for", _TLS)
    return Transient(f"127.0.0.1:PORT: the connection was closed (while {during} the reply)", phase=phase, hint=hint)


def _beyond(bound: str) -> Malformed:
    hint = "not the reply of a token endpoint; check that the URL matches the provider's settings"
    return Malformed(f"127.0.0.1:PORT: the reply has {bound}", hint=hint)


_NOT_HTTP: Final = Transient(
    "127.0.0.1:PORT: the reply is not HTTP (while waiting for the reply)",
    phase="wait",
    hint=_TLS,
)
_NOT_HTTP1: Final = Transient(
    "127.0.0.1:PORT: the reply is not HTTP/1.1 (while waiting for the reply)",
    phase="wait",
    hint="this port speaks only HTTP/2, and bearerd HTTP/1.1: ask the provider for an endpoint that accepts it",
)

BROKEN: Final = [
    Fails("closed without a reply", b"", _broken()),
    Fails("half a status line", b"HTTP/1.1", _NOT_HTTP),
    Fails("OpenSSL: an alert, since this is no TLS", b"\x15\x03\x01\x00\x02\x02\x28", _NOT_HTTP),
    Fails("a body alone", T, _NOT_HTTP),
    Fails("HTTP/2 on a line", b"HTTP/2.0 200 OK\r\n\r\n" + T, _NOT_HTTP1),
    Fails("HTTP/2: SETTINGS", b"\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x64", _NOT_HTTP1),
    Fails("HTTP/2: GOAWAY", b"\x00\x00\x08\x07\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01", _NOT_HTTP1),
    Fails("a length that is too long", http(200, "Content-Length: 61", body=T, length=False), _broken("read")),
    Fails("two lengths that differ", ok(T, "Content-Length: 3"), _broken()),
    Fails("a chunk without its end", _chunked(b"3c\r\n" + T[:30]), _broken("read")),
    Fails("a hundred headers", ok(T, *["X: y"] * 96), _beyond("more than 100 headers")),
    Fails("a header of 64 KiB", ok(T, "X: " + "y" * 65536), _beyond("more than 64 KiB of headers")),
]
