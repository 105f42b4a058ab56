from __future__ import annotations

import json
from dataclasses import replace
from email.utils import formatdate
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bearerd.grant.metadata import Metadata, read_metadata, well_known_urls
from bearerd.grant.outcome import Malformed, RateLimited, Transient
from bearerd.grant.reply import Reply
from bearerd.model import Client, Jwt, JwtBearer, Provider
from bearerd.terms import JWT_BEARER, Auth, Reference
from support.targets import CLIENT

ISSUER = "https://sso.example.com/realms/acme"
TOKEN_URL = "https://sso.example.com/realms/acme/token"
MTLS_URL = "https://mtls.example.com/realms/acme/token"
LOOPBACK = "http://127.0.0.1:8080"
NOW = 1_800_000_000.0

RIGHT = "check issuer, or set token_url instead"
INSTEAD = "set token_url instead of issuer"
EXACTLY = "write issuer exactly as the provider's own metadata does, or set token_url instead"


def provider(issuer: str = ISSUER) -> Provider:
    return Provider(name="sso", issuer=issuer)


def read(fields: Any, issuer: str = ISSUER) -> Metadata | Malformed | RateLimited | Transient:
    """What a document says; its issuer and token endpoint are as they should be unless it says otherwise."""
    whole = {"issuer": issuer, "token_endpoint": TOKEN_URL} | fields
    return read_metadata(Reply(200, {}, json.dumps(whole).encode()), provider(issuer), NOW)


def good(fields: Any = (), issuer: str = ISSUER) -> Metadata:
    found = read(dict(fields), issuer)
    assert isinstance(found, Metadata), found
    return found


# -- where it is ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("issuer", "rfc8414", "openid"),
    [
        # The first two are the examples of RFC 8414 section 3.1.
        pytest.param(
            "https://example.com",
            "https://example.com/.well-known/oauth-authorization-server",
            "https://example.com/.well-known/openid-configuration",
            id="no-path",
        ),
        pytest.param(
            "https://example.com/issuer1",
            "https://example.com/.well-known/oauth-authorization-server/issuer1",
            "https://example.com/issuer1/.well-known/openid-configuration",
            id="path",
        ),
        pytest.param(
            "https://example.com/",
            "https://example.com/.well-known/oauth-authorization-server",
            "https://example.com/.well-known/openid-configuration",
            id="a-slash",
        ),
        pytest.param(
            "https://example.com/issuer1/",
            "https://example.com/.well-known/oauth-authorization-server/issuer1",
            "https://example.com/issuer1/.well-known/openid-configuration",
            id="path-and-slash",
        ),
        pytest.param(
            "https://example.com:8443/realms/acme",
            "https://example.com:8443/.well-known/oauth-authorization-server/realms/acme",
            "https://example.com:8443/realms/acme/.well-known/openid-configuration",
            id="port-and-longer-path",
        ),
        pytest.param(
            "http://[::1]:8080",
            "http://[::1]:8080/.well-known/oauth-authorization-server",
            "http://[::1]:8080/.well-known/openid-configuration",
            id="loopback",
        ),
    ],
)
def test_the_metadata_urls_are_those_of_the_standards(issuer: str, rfc8414: str, openid: str) -> None:
    assert well_known_urls(issuer) == (rfc8414, openid)


# -- metadata ------------------------------------------------------------------------------------------


def test_minimal_metadata_means_client_secret_basic() -> None:
    # RFC 8414 section 2: without methods client_secret_basic applies.
    assert good() == Metadata(TOKEN_URL, TOKEN_URL, ("client_secret_basic",), ())


def test_optional_metadata_is_read() -> None:
    fields = {
        "token_endpoint_auth_methods_supported": ["private_key_jwt", "tls_client_auth"],
        "token_endpoint_auth_signing_alg_values_supported": ["ES256", "PS256"],
        "mtls_endpoint_aliases": {"token_endpoint": MTLS_URL, "introspection_endpoint": "https://x.example"},
        "scopes_supported": ["bci"],
    }

    assert good(fields) == Metadata(TOKEN_URL, MTLS_URL, ("private_key_jwt", "tls_client_auth"), ("ES256", "PS256"))


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        pytest.param({"token_endpoint_auth_methods_supported": []}, {}, id="no-methods"),
        pytest.param({"token_endpoint_auth_methods_supported": None}, {}, id="methods-null"),
        pytest.param({"token_endpoint_auth_methods_supported": "none"}, {}, id="methods-a-text"),
        pytest.param(
            {"token_endpoint_auth_methods_supported": [7, "none", None]},
            {"auth_methods": ("none",)},
            id="methods-mixed",
        ),
        pytest.param({"token_endpoint_auth_signing_alg_values_supported": {}}, {}, id="algorithms-an-object"),
        pytest.param({"mtls_endpoint_aliases": []}, {}, id="aliases-a-list"),
        pytest.param({"mtls_endpoint_aliases": {}}, {}, id="aliases-empty"),
        pytest.param({"mtls_endpoint_aliases": {"token_endpoint": None}}, {}, id="alias-null"),
    ],
)
def test_invalid_optional_fields_count_as_missing(fields: Any, expected: dict[str, Any]) -> None:
    assert good(fields) == replace(Metadata(TOKEN_URL, TOKEN_URL), **expected)


@pytest.mark.parametrize(
    ("issuer", "endpoint"),
    [
        # To which host it leads is the issuer's to say.
        pytest.param(ISSUER, "https://token.example.org:8443/t?tenant=acme", id="another-host"),
        pytest.param(ISSUER, "HTTPS://sso.example.com/t", id="scheme-in-capitals"),
        # Somebody has allowed that by allow_http, or no such issuer would be there.
        pytest.param(LOOPBACK, f"{LOOPBACK}/token", id="http-where-the-issuer-is"),
        pytest.param(f"{LOOPBACK}/realms/acme", f"{LOOPBACK}/token", id="http-beside-the-issuers-path"),
        pytest.param(LOOPBACK, "https://127.0.0.1:8443/token", id="https-for-an-http-issuer"),
    ],
)
def test_an_endpoint_is_https_or_on_the_host_of_an_http_issuer(issuer: str, endpoint: str) -> None:
    assert good({"token_endpoint": endpoint}, issuer).token_endpoint == endpoint
    alias = {"token_endpoint": "https://x.example/t", "mtls_endpoint_aliases": {"token_endpoint": endpoint}}
    assert good(alias, issuer).mtls_token_endpoint == endpoint


NAMES_NONE = "metadata: it names no token_endpoint"
NO_URL = "metadata: its token_endpoint is not a URL"
NO_HTTPS = "metadata: its token_endpoint is not https"


@pytest.mark.parametrize(
    ("issuer", "endpoint", "message"),
    [
        pytest.param(ISSUER, "", NAMES_NONE, id="empty"),
        pytest.param(ISSUER, 7, NAMES_NONE, id="a-number"),
        pytest.param(ISSUER, [TOKEN_URL], NAMES_NONE, id="a-list"),
        pytest.param(ISSUER, "token", NO_URL, id="a-word"),
        pytest.param(ISSUER, "/token", NO_URL, id="a-path"),
        pytest.param(ISSUER, "https:///token", NO_URL, id="no-host"),
        pytest.param(ISSUER, "https://[::1/token", NO_URL, id="half-an-address"),
        pytest.param(ISSUER, "https://sso.example.com:99999/token", NO_URL, id="port-too-large"),
        pytest.param(ISSUER, "https://sso.example.com:a/token", NO_URL, id="port-no-number"),
        pytest.param(ISSUER, "https://söö.example/token", NO_URL, id="not-ascii"),
        pytest.param(ISSUER, "https://sso.example.com/to ken", NO_URL, id="a-space"),
        pytest.param(ISSUER, "https://sso.example.com/to\r\nken", NO_URL, id="a-line-end"),
        pytest.param(ISSUER, "https://sso.example.com/token#x", NO_URL, id="a-fragment"),
        pytest.param(ISSUER, "https://u:p@sso.example.com/token", NO_URL, id="a-login"),
        pytest.param(ISSUER, "https://@sso.example.com/token", NO_URL, id="an-empty-login"),
        pytest.param(ISSUER, "http://sso.example.com/realms/acme/token", NO_HTTPS, id="http-of-an-https-issuer"),
        pytest.param(ISSUER, "http://127.0.0.1/token", NO_HTTPS, id="http-on-loopback-of-an-https-issuer"),
        pytest.param(ISSUER, "ftp://sso.example.com/token", NO_HTTPS, id="another-scheme"),
        pytest.param(ISSUER, "//sso.example.com/token", NO_HTTPS, id="no-scheme"),
        pytest.param(LOOPBACK, "http://127.0.0.1:8081/token", NO_HTTPS, id="http-at-another-port"),
        pytest.param(LOOPBACK, "http://127.0.0.1:80801/token", NO_URL, id="http-at-a-port-that-begins-so"),
        pytest.param(LOOPBACK, "http://10.0.0.1:8080/token", NO_HTTPS, id="http-at-another-host"),
        pytest.param("http://10.0.0.1", "http://10.0.0.100/token", NO_HTTPS, id="http-at-a-host-that-begins-so"),
        pytest.param("http://localhost", "http://localhost.example/token", NO_HTTPS, id="http-at-a-name-that-begins"),
    ],
)
def test_an_unusable_endpoint_or_alias_is_malformed(issuer: str, endpoint: Any, message: str) -> None:
    expected = Malformed(message, "discovery", INSTEAD)
    assert read({"token_endpoint": endpoint}, issuer) == expected
    alias = {"token_endpoint": "https://x.example/t", "mtls_endpoint_aliases": {"token_endpoint": endpoint}}
    assert read(alias, issuer) == expected


def test_a_missing_endpoint_is_reported() -> None:
    document = json.dumps({"issuer": ISSUER}).encode()

    assert read_metadata(Reply(200, {}, document), provider(), NOW) == Malformed(NAMES_NONE, "discovery", INSTEAD)


@pytest.mark.parametrize(
    ("named", "issuer", "hint"),
    [
        pytest.param("https://evil.example", ISSUER, EXACTLY, id="another"),
        pytest.param("https://SSO.example.com/realms/acme", ISSUER, EXACTLY, id="other-capitals"),
        pytest.param(f"{ISSUER}x", ISSUER, EXACTLY, id="longer"),
        pytest.param(None, ISSUER, EXACTLY, id="null"),
        pytest.param([ISSUER], ISSUER, EXACTLY, id="a-list"),
        pytest.param(f"{ISSUER}/", ISSUER, "write issuer with / at its end, as the provider does", id="with-a-slash"),
        pytest.param(
            ISSUER, f"{ISSUER}/", "write issuer without / at its end, as the provider does", id="without-a-slash"
        ),
    ],
)
def test_the_metadata_of_another_issuer_is_not_used(named: Any, issuer: str, hint: str) -> None:
    # RFC 8414 section 3.3.
    expected = Malformed("the metadata names another issuer", "discovery", hint)
    assert read({"issuer": named}, issuer) == expected


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        *(
            pytest.param(
                status,
                b"{}",
                Transient(f"metadata: HTTP {status}: a temporary error at the provider", "discovery"),
                id=f"{status}",
            )
            for status in (408, 425, 500, 503, 599)
        ),
        *(
            pytest.param(status, b"{}", Malformed(f"metadata: HTTP {status}", "discovery", RIGHT), id=str(status))
            for status in (201, 204, 301, 307, 400, 401, 403, 404, 499)
        ),
        pytest.param(
            200,
            b"<html>Log in</html>",
            Malformed("metadata: HTTP 200, but the reply is HTML, not JSON", "discovery", RIGHT),
            id="html",
        ),
        pytest.param(200, b"", Malformed("metadata: HTTP 200, but the reply is empty", "discovery", RIGHT), id="empty"),
        pytest.param(
            200,
            b"[]",
            Malformed("metadata: HTTP 200, but the reply is not a JSON object", "discovery", RIGHT),
            id="a-list",
        ),
        pytest.param(
            200,
            json.dumps({"issuer": ISSUER, "token_endpoint": TOKEN_URL}).encode().ljust(65537),
            Malformed("metadata: HTTP 200, but the reply is longer than 65536 bytes", "discovery", RIGHT),
            id="too-long",
        ),
    ],
)
def test_a_reply_that_is_no_metadata_is_a_failure_of_its_kind(
    status: int, body: bytes, expected: Malformed | Transient
) -> None:
    assert read_metadata(Reply(status, {}, body), provider(), NOW) == expected


@pytest.mark.parametrize(
    ("headers", "wait"), [({}, None), ({"retry-after": "600"}, 600.0), ({"retry-after": formatdate(NOW + 90)}, 90.0)]
)
def test_too_many_requests_are_a_limit_with_its_wait(headers: dict[str, str], wait: float | None) -> None:
    limited = RateLimited("metadata: HTTP 429: too many requests", "discovery", retry_after=wait)
    assert read_metadata(Reply(429, headers, b""), provider(), NOW) == limited


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.sampled_from((ISSUER, TOKEN_URL, "http://[", "none")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
FIELDS = (
    "issuer",
    "token_endpoint",
    "mtls_endpoint_aliases",
    "token_endpoint_auth_methods_supported",
    "token_endpoint_auth_signing_alg_values_supported",
)


@given(fields=st.fixed_dictionaries({}, optional=dict.fromkeys(FIELDS, JSON)), status=st.integers(100, 599))
def test_any_reply_is_metadata_or_a_failure_that_quotes_nothing(fields: dict[str, Any], status: int) -> None:
    found = read_metadata(Reply(status, {}, json.dumps(fields).encode()), provider(), NOW)

    if isinstance(found, Metadata):
        assert fields["issuer"] == ISSUER
        # Messages hold only the client's own config and known methods.
        doubts = found.doubts(CLIENT)
        assert doubts is None or doubts.isascii()
    else:
        assert found.phase == "discovery"
        assert str(found).isascii()


# -- doubts about a client ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("presented", "endpoint"),
    [
        pytest.param(
            {"tls_certificate": Reference("file", "/c"), "tls_private_key": Reference("file", "/k")}, MTLS_URL
        ),
        pytest.param({"certificate": Reference("file", "/c"), "private_key": Reference("file", "/k")}, TOKEN_URL),
    ],
    ids=["of-the-connection", "of-the-signing-key"],
)
@pytest.mark.parametrize("auth", get_args(Auth))
def test_clients_with_a_certificate_use_the_alias(auth: Any, presented: Any, endpoint: str) -> None:
    assert Metadata(TOKEN_URL, MTLS_URL).endpoint(replace(CLIENT, auth=auth, **presented)) == endpoint


def doubts(client: Client, *methods: str, algorithms: tuple[str, ...] = ()) -> str | None:
    return Metadata(TOKEN_URL, TOKEN_URL, methods, algorithms).doubts(client)


@pytest.mark.parametrize(
    ("auth", "methods", "said"),
    [
        pytest.param("client_secret_basic", ("client_secret_basic",), None, id="listed"),
        pytest.param("none", ("client_secret_post", "none"), None, id="listed-among-others"),
        pytest.param(
            "client_secret_basic",
            ("client_secret_post", "private_key_jwt"),
            "the provider's metadata does not list auth client_secret_basic, only client_secret_post, private_key_jwt",
            id="not-listed",
        ),
        pytest.param(
            "private_key_jwt",
            ("client_secret_basic", "attest_jwt_client_auth", "<b>"),
            "the provider's metadata does not list auth private_key_jwt, only client_secret_basic",
            id="only-known-methods-are-named",
        ),
        pytest.param(
            "none",
            ("attest_jwt_client_auth",),
            "the provider's metadata does not list auth none",
            id="none-that-is-known",
        ),
        pytest.param("assertion", ("private_key_jwt",), None, id="a-ready-assertion-is-sent-as-private_key_jwt"),
        pytest.param(
            "assertion",
            ("client_secret_basic",),
            "the provider's metadata does not list auth assertion, only client_secret_basic",
            id="and-doubted-as-that",
        ),
        pytest.param(
            "tls_client_auth",
            ("self_signed_tls_client_auth",),
            "the provider's metadata does not list auth tls_client_auth, only self_signed_tls_client_auth",
            id="the-other-way-by-certificate",
        ),
    ],
)
def test_an_unlisted_auth_method_is_doubted(auth: Any, methods: tuple[str, ...], said: str | None) -> None:
    assert doubts(replace(CLIENT, auth=auth), *methods) == said


def test_a_signed_grant_needs_no_auth_method() -> None:
    client = replace(CLIENT, auth="none", grant_type=JWT_BEARER, jwt_bearer=JwtBearer())

    assert doubts(client, "client_secret_basic") is None
    # But one that it has all the same is doubted as ever.
    assert doubts(replace(client, auth="client_secret_post"), "client_secret_basic") is not None


@pytest.mark.parametrize(
    ("auth", "algorithm", "listed", "said"),
    [
        pytest.param("private_key_jwt", "ES256", ("RS256", "ES256"), None, id="listed"),
        pytest.param(
            "private_key_jwt",
            "ES256",
            ("RS256", "PS256"),
            "the provider's metadata does not list algorithm ES256 for assertions",
            id="not-listed",
        ),
        pytest.param(
            "client_secret_jwt",
            "HS512",
            ("HS256",),
            "the provider's metadata does not list algorithm HS512 for assertions",
            id="not-listed-for-secrets",
        ),
        pytest.param("private_key_jwt", "ES256", (), None, id="none-named"),
        # By the kind of the key, which is not read here.
        pytest.param("private_key_jwt", None, ("RS256",), None, id="none-configured"),
        pytest.param("client_secret_basic", "ES256", ("RS256",), None, id="nothing-is-signed"),
    ],
)
def test_an_unlisted_algorithm_is_doubted(
    auth: Any, algorithm: str | None, listed: tuple[str, ...], said: str | None
) -> None:
    client = replace(CLIENT, auth=auth, jwt=Jwt(algorithm=algorithm))

    assert doubts(client, auth, algorithms=listed) == said


def test_beside_a_signed_grant_the_algorithm_is_not_that_of_the_secret() -> None:
    client = replace(
        CLIENT, auth="client_secret_jwt", grant_type=JWT_BEARER, jwt_bearer=JwtBearer(), jwt=Jwt(algorithm="RS256")
    )

    assert doubts(client, "client_secret_jwt", algorithms=("HS256",)) is None
