from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any, get_args
from urllib.parse import parse_qsl, unquote, unquote_plus

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st

from bearerd import __version__
from bearerd.errors import SecretUnavailable
from bearerd.grant.request import (
    Access,
    Call,
    Credentials,
    Request,
    basic,
    compose,
    get,
    prove_signing,
)
from bearerd.model import Client, Jwt, JwtBearer
from bearerd.terms import JWT_BEARER, Auth, BasicEncoding, Reference
from support.clock import START
from support.targets import CLIENT, target

CREDENTIALS = Credentials("7e0c5a", "s3cret")
POST = replace(CLIENT, auth="client_secret_post")
TOKEN_URL = "https://login.example.com/as/token.oauth2"
ISSUER = "https://login.example.com"
CALL = Call(TOKEN_URL, ISSUER, START.wall, "nonce-1")
CLIENT_ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
IAT = int(START.wall) - 5

# Any secret or id that can come out of a file: UTF-8 has no lone surrogates.
TEXTS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=40)

Form = list[tuple[str, str]]


def composed(client: Client, credentials: Credentials = CREDENTIALS, scope: str = "bci", *parameters: Any) -> Request:
    return compose(target(client=client, scope=scope), credentials, parameters, CALL)


def form_of(request: Request) -> Form:
    """The form's fields; their order says nothing."""
    assert request.body is not None
    return sorted(parse_qsl(request.body.decode("ascii"), keep_blank_values=True, strict_parsing=True))


def pair_of(header: str) -> str:
    """What a provider finds in a Basic header before it decodes anything else."""
    kind, _, encoded = header.partition(" ")
    assert kind == "Basic"
    return base64.b64decode(encoded, validate=True).decode()


@pytest.mark.parametrize("secret", ["s3cret-key", "long enough", "key_7"])
def test_headers_are_sent_and_never_shown(secret: str) -> None:
    access = Access((("X-Api-Key", secret), ("Accept-Language", "en")))
    configured = (("X-Api-Key", Reference("env", "API_KEY")), ("Accept-Language", "en"))
    request = composed(replace(CLIENT, headers=configured), replace(CREDENTIALS, access=access))
    assert request.headers | {"X-Api-Key": secret, "Accept-Language": "en"} == request.headers
    # `en` is a part of many error codes.
    assert secret in request.secrets
    assert "en" not in request.secrets
    assert secret not in repr(request)


def test_the_request_to_the_first_provider_is_that_of_its_documentation() -> None:
    request = composed(CLIENT)

    assert request == Request(
        url=TOKEN_URL,
        headers={
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "Content-Type": "application/x-www-form-urlencoded",
            "User-Agent": f"bearerd/{__version__}",
            "Authorization": "Basic N2UwYzVhOnMzY3JldA==",
        },
        body=b"grant_type=client_credentials&scope=bci",
        secrets=("s3cret", "N2UwYzVhOnMzY3JldA=="),
    )


def test_the_request_goes_to_the_url_of_the_call() -> None:
    # By discovery it is somewhere else than the config knows.
    elsewhere = replace(CALL, token_url="https://mtls.example.com/token")

    assert compose(target(), CREDENTIALS, (), elsewhere).url == "https://mtls.example.com/token"


def test_metadata_is_requested_without_credentials() -> None:
    assert get("https://login.example.com/.well-known/x") == Request(
        "https://login.example.com/.well-known/x",
        {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": f"bearerd/{__version__}"},
        body=None,
    )


def test_client_secret_post_puts_the_credentials_into_the_form_and_nowhere_else() -> None:
    request = composed(POST, Credentials("7e0c5a", "q+7/Zz0= ä"))

    assert request.body == (
        b"grant_type=client_credentials&scope=bci&client_id=7e0c5a&client_secret=q%2B7%2FZz0%3D+%C3%A4"
    )
    assert "Authorization" not in request.headers


# -- scope and parameters ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("separator", "scope", "sent"),
    [
        pytest.param(" ", "bci risk:read", "bci risk:read", id="space-rfc6749"),
        pytest.param(",", "bci risk:read", "bci,risk:read", id="comma-adobe"),
        pytest.param("|", "a b c", "a|b|c", id="each-of-several"),
        pytest.param(",", "bci", "bci", id="nothing-to-separate"),
    ],
)
def test_scopes_are_separated_as_configured(separator: str, scope: str, sent: str) -> None:
    request = composed(replace(CLIENT, scope_separator=separator), scope=scope)

    assert form_of(request) == [("grant_type", "client_credentials"), ("scope", sent)]


def test_without_a_scope_there_is_no_scope_field() -> None:
    assert composed(CLIENT, scope="").body == b"grant_type=client_credentials"


def test_a_parameter_may_repeat_and_keeps_its_order() -> None:
    parameters = (("resource", "https://b.example"), ("audience", "x&y"), ("resource", "https://a.example"))

    assert composed(CLIENT, CREDENTIALS, "", *parameters).body == (
        b"grant_type=client_credentials&resource=https%3A%2F%2Fb.example&audience=x%26y"
        b"&resource=https%3A%2F%2Fa.example"
    )


def test_parameters_are_sent_as_they_were_read() -> None:
    # In the config some of them are references.
    wanted = target(scope="", parameters=(("actor_token", "unread"),))

    request = compose(wanted, CREDENTIALS, (("actor_token", "t0ken"),), CALL)

    assert form_of(request) == [("actor_token", "t0ken"), ("grant_type", "client_credentials")]


def test_another_grant_type_is_sent() -> None:
    exchange = replace(CLIENT, grant_type="urn:ietf:params:oauth:grant-type:token-exchange")

    assert form_of(composed(exchange, CREDENTIALS, "", ("subject_token", "ey.J.x"))) == [
        ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
        ("subject_token", "ey.J.x"),
    ]


# -- client authentication -----------------------------------------------------------------------------


def pem_of(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


KEY = ec.generate_private_key(ec.SECP256R1())
KEY_FILE = Reference("file", "/etc/key")
FULL = Credentials("7e0c5a", "a-secret-of-no-less-than-sixty-four-characters-as-rfc7518-has-it!", pem_of(KEY), "")


def claims_of(form: Form, name: str, key: Any = None, algorithm: str = "ES256") -> dict[str, Any]:
    """The claims of a signed assertion in a form, once its signature has been verified."""
    # Its times come from the test, and the audience is compared below.
    claims: dict[str, Any] = jwt.decode(
        dict(form)[name],
        key or KEY.public_key(),
        algorithms=[algorithm],
        options={"verify_aud": False, "verify_exp": False, "verify_iat": False},
    )
    return claims


def header_of(form: Form, name: str) -> dict[str, Any]:
    return jwt.get_unverified_header(dict(form)[name])


OWN_CLAIMS = {
    "iss": "7e0c5a",
    "sub": "7e0c5a",
    "aud": ISSUER,
    "iat": IAT,
    "exp": IAT + 60,
    "jti": "nonce-1",
}


@pytest.mark.parametrize(
    ("auth", "fields", "basic_header"),
    [
        ("client_secret_basic", {}, True),
        ("client_secret_post", {"client_id": "7e0c5a", "client_secret": FULL.secret}, False),
        ("client_secret_jwt", {"client_id": "7e0c5a", "client_assertion_type": CLIENT_ASSERTION}, False),
        ("private_key_jwt", {"client_id": "7e0c5a", "client_assertion_type": CLIENT_ASSERTION}, False),
        ("tls_client_auth", {"client_id": "7e0c5a"}, False),
        ("self_signed_tls_client_auth", {"client_id": "7e0c5a"}, False),
        (
            "assertion",
            {"client_id": "7e0c5a", "client_assertion_type": CLIENT_ASSERTION, "client_assertion": FULL.secret},
            False,
        ),
        ("none", {"client_id": "7e0c5a"}, False),
    ],
)
def test_each_auth_method_has_its_form_fields(auth: Any, fields: dict[str, str], basic_header: bool) -> None:
    request = composed(replace(CLIENT, auth=auth), FULL)

    form = form_of(request)
    if auth in {"client_secret_jwt", "private_key_jwt"}:
        form = [field for field in form if field[0] != "client_assertion"]
        assert len(form_of(request)) == len(form) + 1
    assert form == sorted([("grant_type", "client_credentials"), ("scope", "bci"), *fields.items()])
    assert ("Authorization" in request.headers) is basic_header


@pytest.mark.parametrize("auth", ["assertion", "none"])
def test_a_client_id_that_was_left_out_is_not_sent_empty(auth: Any) -> None:
    form = form_of(composed(replace(CLIENT, auth=auth), replace(FULL, client_id="")))

    assert "client_id" not in dict(form)


def test_a_ready_assertion_can_have_another_type() -> None:
    kind = "urn:ietf:params:oauth:client-assertion-type:saml2-bearer"
    client = replace(CLIENT, auth="assertion", assertion_type=kind)

    form = dict(form_of(composed(client, FULL)))

    assert (form["client_assertion_type"], form["client_assertion"]) == (kind, FULL.secret)


def test_a_private_key_signs_the_clients_assertion() -> None:
    client = replace(CLIENT, auth="private_key_jwt", jwt=Jwt(key_id="key-7", algorithm="ES256"))

    form = form_of(composed(client, FULL))

    assert claims_of(form, "client_assertion") == OWN_CLAIMS
    assert header_of(form, "client_assertion") == {"typ": "JWT", "alg": "ES256", "kid": "key-7"}


def test_a_secret_signs_the_clients_assertion() -> None:
    client = replace(CLIENT, auth="client_secret_jwt", jwt=Jwt(key_id="key-7", algorithm="HS512"))

    # That there is a private key too does not matter.
    form = form_of(composed(client, FULL))

    assert claims_of(form, "client_assertion", FULL.secret, "HS512") == OWN_CLAIMS
    assert header_of(form, "client_assertion") == {"typ": "JWT", "alg": "HS512", "kid": "key-7"}


@pytest.mark.parametrize("auth", get_args(Auth))
def test_the_certificate_of_the_connection_is_presented_whatever_the_auth(auth: Any) -> None:
    access = Access((), "a certificate", "its key")

    request = composed(replace(CLIENT, auth=auth), replace(FULL, access=access))

    assert request.access == access


@pytest.mark.parametrize(
    ("auth", "secrets"),
    [
        ("client_secret_basic", {FULL.secret, base64.b64encode(f"7e0c5a:{FULL.secret}".encode()).decode()}),
        ("client_secret_post", {FULL.secret}),
        ("client_secret_jwt", {FULL.secret, "client_assertion"}),
        ("private_key_jwt", {FULL.secret, "client_assertion"}),
        ("assertion", {FULL.secret}),
    ],
)
def test_all_credentials_are_among_the_secrets_of_a_request(auth: Any, secrets: set[str]) -> None:
    wanted = target(client=replace(CLIENT, auth=auth), parameters=(("audience", "x"), ("actor_token", KEY_FILE)))
    request = compose(wanted, FULL, (("audience", "x"), ("actor_token", "t0ken")), CALL)

    # Parameters that are not in the config itself.
    assert set(request.secrets) == {dict(form_of(request)).get(name, name) for name in secrets} | {"t0ken"}


@pytest.mark.parametrize("auth", ["private_key_jwt", "client_secret_jwt"])
@pytest.mark.parametrize(
    ("jwt", "own", "scope", "claims"),
    [
        pytest.param(Jwt(), "{}", "bci", {}, id="nothing-configured"),
        pytest.param(Jwt(scope_in="assertion"), "{}", "a b", {"scope": "a,b"}, id="scope-netsuite"),
        pytest.param(Jwt(scope_in="assertion"), "{}", "", {}, id="no-scope"),
        pytest.param(Jwt(), '{"purposeId": "1b36"}', "", {"purposeId": "1b36"}, id="a-token-pdnd"),
        pytest.param(Jwt(claims='{"a": 1, "b": [2]}'), '{"b": {"c": true}}', "", {"a": 1, "b": {"c": True}}, id="both"),
    ],
)
def test_the_clients_assertion_has_the_configured_claims_and_no_others(
    auth: Any, jwt: Jwt, own: str, scope: str, claims: dict[str, Any]
) -> None:
    client = replace(CLIENT, auth=auth, jwt=jwt, scope_separator=",")
    wanted = target(client=client, scope=scope, assertion_claims=own)
    form = form_of(compose(wanted, FULL, (), CALL))

    usual = {"iss": "7e0c5a", "sub": "7e0c5a", "aud": ISSUER, "iat": IAT, "exp": IAT + 60, "jti": "nonce-1"}
    key, algorithm = (FULL.secret, "HS256") if auth == "client_secret_jwt" else (None, "ES256")
    assert claims_of(form, "client_assertion", key, algorithm) == usual | claims
    assert dict(form).get("scope") == (scope or None if "scope" not in claims else None)


# -- the grant is an assertion too (RFC 7523 section 2.1) -----------------------------------------------


def bearing(auth: Any = "none", **bearer: Any) -> Client:
    jwt = Jwt(claims=bearer.pop("claims", "{}"), scope_in=bearer.pop("scope_in", None))
    return replace(CLIENT, auth=auth, grant_type=JWT_BEARER, jwt=jwt, jwt_bearer=JwtBearer(**bearer))


@pytest.mark.parametrize(
    ("bearer", "scope", "claims"),
    [
        pytest.param({}, "", {"iss": "7e0c5a"}, id="nothing-configured"),
        pytest.param({}, "bci risk", {"iss": "7e0c5a", "scope": "bci risk"}, id="scope-google"),
        pytest.param({"issuer": "sa@example.com"}, "", {"iss": "sa@example.com"}, id="issuer"),
        pytest.param({"subject": "me@example.com"}, "", {"iss": "7e0c5a", "sub": "me@example.com"}, id="subject"),
        pytest.param(
            {"claims": json.dumps({"resource": ["https://a.example"], "level": 4, "deep": {"a": True}})},
            "",
            {"iss": "7e0c5a", "resource": ["https://a.example"], "level": 4, "deep": {"a": True}},
            id="claims-maskinporten",
        ),
        pytest.param({"scope_in": "form"}, "bci", {"iss": "7e0c5a"}, id="scope-in-the-form"),
    ],
)
def test_the_grants_assertion_has_the_configured_claims(
    bearer: dict[str, Any], scope: str, claims: dict[str, Any]
) -> None:
    form = form_of(composed(bearing(**bearer), FULL, scope))

    own = {"aud": ISSUER, "iat": IAT, "exp": IAT + 60, "jti": "nonce-1-grant"}
    assert claims_of(form, "assertion") == own | claims
    in_form = {"scope": scope} if bearer.get("scope_in") == "form" else {}
    # No client_id either: the assertion names the client.
    assert dict(form).keys() == {"grant_type", "assertion"} | in_form.keys()
    assert dict(form)["grant_type"] == JWT_BEARER
    assert in_form.items() <= dict(form).items()


def test_the_scope_is_separated_in_the_assertion_as_it_is_in_the_form() -> None:
    form = form_of(composed(replace(bearing(), scope_separator=","), FULL, "bci risk"))

    assert claims_of(form, "assertion")["scope"] == "bci,risk"


def test_without_a_client_id_the_grants_issuer_is_enough() -> None:
    form = form_of(composed(bearing(issuer="sa@example.com"), replace(FULL, client_id="")))

    assert claims_of(form, "assertion")["iss"] == "sa@example.com"


def test_claims_are_those_of_the_grants_assertion_if_the_clients_is_signed_too() -> None:
    client = replace(bearing("private_key_jwt", claims='{"a": 1}', scope_in="assertion"), scope_separator=" ")
    form = form_of(compose(target(client=client, scope="bci", assertion_claims='{"b": 2}'), FULL, (), CALL))

    assert claims_of(form, "assertion").items() >= {"a": 1, "b": 2, "scope": "bci"}.items()
    assert not claims_of(form, "client_assertion").keys() & {"a", "b", "scope"}


def test_the_grants_assertion_names_its_key() -> None:
    client = replace(bearing(), jwt=Jwt(key_id="key-7"))

    assert header_of(form_of(composed(client, FULL)), "assertion") == {"typ": "JWT", "alg": "ES256", "kid": "key-7"}


@pytest.mark.parametrize(
    ("auth", "fields"),
    [
        ("client_secret_basic", set()),
        ("client_secret_post", {"client_id", "client_secret"}),
        ("private_key_jwt", {"client_id", "client_assertion", "client_assertion_type"}),
        ("tls_client_auth", {"client_id"}),
    ],
)
def test_a_signed_grant_can_be_combined_with_any_auth_method(auth: Any, fields: set[str]) -> None:
    request = composed(bearing(auth), FULL, "")

    form = form_of(request)
    assert dict(form).keys() == {"grant_type", "assertion"} | fields
    assert claims_of(form, "assertion")["iss"] == "7e0c5a"
    assert ("Authorization" in request.headers) is (auth == "client_secret_basic")


def test_the_grants_assertion_is_among_the_secrets() -> None:
    request = composed(bearing(), FULL)

    assert dict(form_of(request))["assertion"] in request.secrets


def test_two_assertions_of_one_request_have_different_ids() -> None:
    # A provider that remembers assertions would take the second for a replay.
    form = form_of(composed(bearing("private_key_jwt"), FULL))

    assert claims_of(form, "assertion")["jti"] != claims_of(form, "client_assertion")["jti"]


def test_beside_a_signed_grant_key_and_algorithm_are_the_private_keys() -> None:
    client = replace(bearing("client_secret_jwt"), jwt=Jwt(key_id="key-7", algorithm="ES256"))

    form = form_of(composed(client, FULL))

    assert header_of(form, "assertion") == {"typ": "JWT", "alg": "ES256", "kid": "key-7"}
    assert claims_of(form, "client_assertion", FULL.secret, "HS256") == OWN_CLAIMS
    assert header_of(form, "client_assertion") == {"typ": "JWT", "alg": "HS256"}


# -- keys that cannot sign -----------------------------------------------------------------------------

NO_KEY = (
    "private_key file /etc/key: "
    "neither a private key in PEM format, nor a private JWK, nor the JSON of a service account"
)
NO_SECRET = "client_secret: the key cannot sign with HS256"
# PyJWT refuses an HMAC secret that looks like a key.
UNFIT = Credentials("7e0c5a", FULL.private_key, "hunter2", "")
BY_KEY = replace(CLIENT, auth="private_key_jwt", private_key=KEY_FILE)
BY_SECRET = replace(CLIENT, auth="client_secret_jwt")
unfit = pytest.mark.parametrize(
    ("client", "why"),
    [
        pytest.param(BY_KEY, NO_KEY, id="private_key_jwt"),
        pytest.param(replace(bearing(), private_key=KEY_FILE), NO_KEY, id="jwt-bearer"),
        pytest.param(BY_SECRET, NO_SECRET, id="client_secret_jwt"),
        pytest.param(
            replace(BY_SECRET, jwt=Jwt(algorithm="RS256")),
            "client_secret: the key cannot sign with RS256, only with HS256, HS384, HS512",
            id="client_secret_jwt-algorithm",
        ),
    ],
)


@unfit
def test_a_key_that_cannot_sign_is_an_error(client: Client, why: str) -> None:
    with pytest.raises(SecretUnavailable) as raised:
        composed(client, UNFIT)

    assert str(raised.value) == why


@unfit
def test_a_key_that_cannot_sign_is_found_without_a_request(client: Client, why: str) -> None:
    with pytest.raises(SecretUnavailable) as raised:
        prove_signing(client, UNFIT)

    assert str(raised.value) == why


def test_a_certificate_of_another_key_is_an_error() -> None:
    client = replace(BY_KEY, certificate=Reference("file", "/etc/certificate"))

    with pytest.raises(
        SecretUnavailable, match=r"^certificate file /etc/certificate: the certificate is not in PEM format$"
    ):
        composed(client, replace(FULL, certificate="hunter2"))


def test_a_secret_that_cannot_sign_is_an_error_with_its_source() -> None:
    with pytest.raises(SecretUnavailable, match=r"^client_secret env NEW: the key cannot sign with HS256$"):
        composed(BY_SECRET, replace(UNFIT, source="env NEW"))


def test_both_of_two_signatures_are_tried() -> None:
    both = replace(bearing("client_secret_jwt"), private_key=KEY_FILE)

    prove_signing(both, FULL)
    with pytest.raises(SecretUnavailable, match=r"^private_key file /etc/key: "):
        prove_signing(both, replace(FULL, private_key="hunter2"))
    with pytest.raises(SecretUnavailable, match=r"^client_secret: "):
        prove_signing(both, replace(FULL, secret=FULL.private_key))


@pytest.mark.parametrize("auth", ["client_secret_basic", "client_secret_post", "tls_client_auth", "assertion", "none"])
def test_without_assertions_nothing_is_tried(auth: Any) -> None:
    prove_signing(replace(CLIENT, auth=auth), UNFIT)


# -- HTTP Basic ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("secret", "compatible", "rfc6749"),
    [
        pytest.param("plain", "plain", "plain", id="nothing-special"),
        pytest.param("q+7/Zz0=", "q%2B7/Zz0=", "q%2B7%2FZz0%3D", id="base64"),
        pytest.param("a+b%2Fc/d=e:f%", "a%2Bb%252Fc/d=e:f%25", "a%2Bb%252Fc%2Fd%3De%3Af%25", id="percent"),
        pytest.param(" two words ", "%20two%20words%20", "+two+words+", id="spaces"),
        pytest.param("pä€", "p%C3%A4%E2%82%AC", "p%C3%A4%E2%82%AC", id="non-latin-1"),
        pytest.param("\x01\t\x1f\x7f", "%01%09%1F%7F", "%01%09%1F%7F", id="control"),
        pytest.param("/=!$@#~", "/=!$@#~", "%2F%3D%21%24%40%23~", id="punctuation"),
    ],
)
def test_basic_encodes_the_secret_in_three_ways(secret: str, compatible: str, rfc6749: str) -> None:
    def sent(encoding: BasicEncoding) -> str:
        return pair_of(basic(Credentials("id", secret), encoding))

    assert sent("compatible") == f"id:{compatible}"
    assert sent("rfc6749") == f"id:{rfc6749}"
    assert sent("raw") == f"id:{secret}"


@pytest.mark.parametrize(
    ("encoding", "pair"),
    [
        ("compatible", "acme%3Aprod%2B:s"),
        ("rfc6749", "acme%3Aprod%2B:s"),
        ("raw", "acme:prod+:s"),
    ],
)
def test_a_colon_in_the_id_is_encoded_unless_raw(encoding: BasicEncoding, pair: str) -> None:
    assert pair_of(basic(Credentials("acme:prod+", "s"), encoding)) == pair


def test_the_configured_encoding_is_used() -> None:
    raw = replace(CLIENT, basic_encoding="raw")

    header = composed(raw, Credentials("id", "a+b")).headers["Authorization"]

    assert pair_of(header) == "id:a+b"


@pytest.mark.parametrize("decode", [unquote, unquote_plus])
@given(client_id=TEXTS, secret=TEXTS)
def test_decoders_of_both_kinds_restore_the_compatible_encoding(
    decode: Callable[[str], str], client_id: str, secret: str
) -> None:
    name, _, password = pair_of(basic(Credentials(client_id, secret), "compatible")).partition(":")

    assert (decode(name), decode(password)) == (client_id, secret)


# Printable ASCII without the characters that `compatible` encodes.
UNTOUCHED = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in "%+")


@given(client_id=st.text(UNTOUCHED.replace(":", ""), min_size=1), secret=st.text(UNTOUCHED, min_size=1))
def test_the_compatible_encoding_leaves_other_characters_unchanged(client_id: str, secret: str) -> None:
    assert pair_of(basic(Credentials(client_id, secret), "compatible")) == f"{client_id}:{secret}"


@given(client_id=TEXTS, secret=TEXTS)
def test_a_form_decoder_restores_the_rfc6749_encoding(client_id: str, secret: str) -> None:
    name, _, password = pair_of(basic(Credentials(client_id, secret), "rfc6749")).partition(":")

    assert (unquote_plus(name), unquote_plus(password)) == (client_id, secret)


@pytest.mark.parametrize("client", [CLIENT, POST, replace(CLIENT, auth="tls_client_auth")], ids=lambda it: it.auth)
def test_no_repr_shows_the_secret(client: Client) -> None:
    credentials = Credentials("7e0c5a", "h0rse-staple", "pr1vate-key", "a certificate")
    request = composed(client, credentials)

    shown = repr(credentials) + repr(request)

    assert "h0rse-staple" not in shown
    assert "pr1vate-key" not in shown
    assert base64.b64encode(b"7e0c5a:h0rse-staple").decode() not in shown
