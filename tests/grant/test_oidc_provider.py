"""npm's `oidc-provider`, a real authorization server, judges our grants.

It takes HTTP Basic and client_secret_post for each other, and an assertion for its issuer or for its token URL:
so what was really sent is looked at as well.
"""

from __future__ import annotations

import base64
import json
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha1, sha256
from pathlib import Path
from typing import Any, Literal

import jwt
import pytest
import trustme
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from jwt.algorithms import ECAlgorithm

from bearerd.clock import Clock, SystemClock
from bearerd.grant.outcome import Issued, Outcome, Refused
from bearerd.grant.perform import Grants
from bearerd.model import Client, Jwt, Provider, Target
from bearerd.terms import Auth, BasicEncoding, Instant, Reference
from support.clock import FakeClock
from support.oidc import OidcProvider, Request, client, oidc_provider, pem, private_key, self_signed, why_not
from support.process import WITHIN

WHY_NOT = why_not()
pytestmark = pytest.mark.skipif(WHY_NOT is not None, reason=WHY_NOT or "")

Where = Literal["https", "http", "issuer", "http-issuer"]
"""By its token URL or by discovery, over TLS or not."""

SECRET, BASE64, PERCENT = "s3cr3t", "q+7/Zz0=", "a+b%2Fc/d=e:f%"
AUTHS: tuple[Auth, ...] = (
    "client_secret_basic",
    "client_secret_post",
    "client_secret_jwt",
    "private_key_jwt",
    "tls_client_auth",
    "self_signed_tls_client_auth",
)
HMAC = ("HS256", "HS384", "HS512")
SIGNATURES = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
NAME = "bearerd.example.com"
"""What an authority certifies of the client."""
API, OTHER_API, JWT_API = "https://api.example.com/", "https://other.example.com/", "https://jwt.example.com/"
LIFETIME, API_LIFETIME = 600, 300
PAST = 5
"""Seconds by which an assertion is dated back."""

CLIENT_REFUSED = "HTTP 401 invalid_client: the client was refused"
CHECK = "check that client_id, secret and auth match the provider's settings"
CHECK_KEY = "check client_id, key_id, public key and audience of the assertion, which is for "
"""The audience of the assertion follows."""
CHECK_JWT = "check that client_id, secret and assertion_audience match the provider's settings"
EXPIRED = "the provider says that the secret or key has expired: register a new one"
CHECK_ID = "check that client_id matches the provider's settings; with auth: none no secret is sent"
CHECK_CERTIFICATE = "check that client_id and the certificate match those registered with the provider"
TWO_WAYS = "the id or secret contains a character that providers decode differently (such as :, %, + or a space): try "
NEXT = "the client has another secret, which is tried next"


@cache
def key(name: str) -> str:
    """A private key in PEM: an algorithm's, or another of its kind; and one for all that RSA does."""
    return _rsa() if name[:2] in {"RS", "PS"} else pem(private_key(name.split(maxsplit=1)[0]))


@cache
def _rsa() -> str:
    return pem(private_key("RS256"))


@cache
def own_certificate() -> str:
    """A certificate that a key vouches for itself."""
    loaded: Any = load_pem_private_key(key("EdDSA").encode(), None)
    return self_signed(loaded)


def registered() -> Iterator[dict[str, Any]]:
    for auth in AUTHS[:3]:
        yield client(auth, auth, client_secret=SECRET)
        yield client(f"{auth}-base64", auth, client_secret=BASE64)
        yield client(f"{auth}-percent", auth, client_secret=PERCENT)
        yield client(f"{auth}-expired", auth, client_secret=SECRET, client_secret_expires_at=1)
    yield client("private_key_jwt", "private_key_jwt", keys=[{"pem": key("ES256")}])
    yield client("tls_client_auth", "tls_client_auth", tls_client_auth_san_dns=NAME)
    yield client("self_signed_tls_client_auth", "self_signed_tls_client_auth", keys=[{"pem": own_certificate()}])
    yield client("none", "none")
    yield client("assertion", "private_key_jwt", keys=[{"pem": key("ES256")}])
    for algorithm in HMAC:
        yield client(
            algorithm, "client_secret_jwt", client_secret=SECRET * 11, token_endpoint_auth_signing_alg=algorithm
        )
    for algorithm in SIGNATURES:
        keys = [{"pem": key(algorithm)}]
        yield client(algorithm, "private_key_jwt", keys=keys, token_endpoint_auth_signing_alg=algorithm)
    keys = [{"pem": key(f"ES256 {kid}"), "kid": kid} for kid in ("one", "two")]
    yield client("several", "private_key_jwt", keys=keys)
    yield client("certified", "private_key_jwt", keys=[{"pem": own_certificate()}])
    yield client(
        "bound",
        "tls_client_auth",
        tls_client_auth_san_dns=NAME,
        tls_client_certificate_bound_access_tokens=True,
    )
    yield client("narrow", client_secret=SECRET, scope="alpha beta")


CREDENTIALS = {"client_secret", "private_key", "certificate", "tls_certificate", "assertion"}
RESOURCES: dict[str, dict[str, Any]] = {
    API: {"scope": "alpha", "accessTokenTTL": API_LIFETIME},
    OTHER_API: {"scope": "alpha"},
    JWT_API: {"scope": "alpha", "accessTokenFormat": "jwt", "audience": JWT_API},
}


@pytest.fixture(scope="module")
def shared() -> Iterator[OidcProvider]:
    scopes = ["alpha", "beta", "gamma"]
    with oidc_provider(*registered(), resources=RESOURCES, lifetime=LIFETIME, scopes=scopes) as server:
        yield server


@dataclass
class Bench:
    """The server, and a directory for the clients' files."""

    server: OidcProvider
    directory: Path
    clock: Clock = field(default_factory=SystemClock)

    def __post_init__(self) -> None:
        self.grants = Grants(self.clock, {})

    def keep(self, name: str, text: str) -> Reference:
        """A file as an operator puts it there."""
        path = self.directory / name
        path.write_text(text)
        path.chmod(0o600)
        return Reference("file", str(path))

    def provider(self, where: Where) -> Provider:
        ca_file = str(self.server.ca_file)
        match where:
            case "https":
                return Provider("oidc", token_url=self.server.https_token_url, ca_file=ca_file, timeout=WITHIN)
            case "http":
                return Provider("oidc", token_url=self.server.http_token_url, allow_http=True, timeout=WITHIN)
            case "issuer":
                return Provider("oidc", issuer=self.server.https_issuer, ca_file=ca_file, timeout=WITHIN)
            case "http-issuer":
                return Provider("oidc", issuer=self.server.http_issuer, allow_http=True, timeout=WITHIN)

    def certify(self, ca: trustme.CA, name: str = NAME) -> dict[str, Any]:
        """A certificate of an authority, and its key, in place of those that were there."""
        leaf = ca.issue_cert(name)
        chain = "".join(part.bytes().decode() for part in leaf.cert_chain_pems)
        return self.holds(tls_certificate=chain, tls_private_key=leaf.private_key_pem.bytes().decode())

    def holds(self, **texts: str) -> dict[str, Any]:
        return {name: self.keep(name, text) for name, text in texts.items()}

    def usual(self, auth: Auth) -> dict[str, Any]:
        """What a client of that name authenticates with."""
        match auth:
            case "private_key_jwt":
                return self.holds(private_key=key("ES256"))
            case "tls_client_auth":
                return self.certify(self.server.ca)
            case "self_signed_tls_client_auth":
                return self.holds(tls_certificate=own_certificate(), tls_private_key=key("EdDSA"))
            case "assertion":
                now = int(time.time())
                claims = {"iss": auth, "sub": auth, "aud": self.server.https_issuer, "jti": str(now), "exp": now + 60}
                return self.holds(assertion=jwt.encode(claims, key("ES256"), "ES256"))
            case "none":
                return {}
            case _:
                return {"client_secret": (self.keep("secret", SECRET),)}

    def target(
        self,
        auth: Auth,
        where: Where = "https",
        *,
        scope: str = "alpha",
        resources: tuple[str, ...] = (),
        strict_scope: bool = False,
        **changes: Any,
    ) -> Target:
        """A target of the client of that name, or of another."""
        holds = {} if changes.keys() & CREDENTIALS else self.usual(auth)
        fields: dict[str, Any] = {"name": "dnb", "client_id": auth, "auth": auth, **holds, **changes}
        return Target(
            client=Client(provider=self.provider(where), **fields),
            name="bci",
            scope=scope,
            parameters=tuple(("resource", resource) for resource in resources),
            strict_scope=strict_scope,
        )

    def perform(self, target: Target) -> tuple[Outcome, list[Request]]:
        """One turn, and the requests of it."""
        outcome = self.grants.perform(target).outcome
        return outcome, self.server.seen()


@pytest.fixture
def bench(shared: OidcProvider, tmp_path: Path) -> Bench:
    shared.seen()  # what a test that failed has left
    return Bench(shared, tmp_path)


def der(certificate: Reference) -> bytes:
    """The first certificate of a file."""
    first = Path(certificate.at).read_text().partition("-----END CERTIFICATE-----")
    return ssl.PEM_cert_to_DER_cert(first[0] + first[1])


def fingerprint(target: Target) -> str | None:
    """As the server sees the client's certificate."""
    certificate = target.client.tls_certificate
    return sha256(der(certificate)).hexdigest() if certificate else None


def segment(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def basic(request: Request) -> str:
    """Id and secret as they were sent by HTTP Basic."""
    return base64.b64decode(request.headers["authorization"].removeprefix("Basic ")).decode()


def token_of(outcome: Outcome, request: Request) -> str:
    """The token of a grant, which is the one that the request was answered with."""
    assert isinstance(outcome, Issued), outcome
    assert outcome.token.access_token == request.answer["access_token"]
    return outcome.token.access_token


# -- authentication ------------------------------------------------------------------------------------

ASSERTED = {"client_id", "client_assertion_type", "client_assertion"}
BY_FORM: dict[Auth, set[str]] = {
    "client_secret_basic": set(),
    "client_secret_post": {"client_id", "client_secret"},
    "client_secret_jwt": ASSERTED,
    "private_key_jwt": ASSERTED,
    "tls_client_auth": {"client_id"},
    "self_signed_tls_client_auth": {"client_id"},
    "assertion": ASSERTED,
    "none": {"client_id"},
}


@pytest.mark.parametrize(
    ("where", "auth"),
    [
        *[pytest.param("https", auth, id=f"https-{auth}") for auth in BY_FORM],
        *[pytest.param("http", auth, id=f"http-{auth}") for auth in AUTHS[:4]],
    ],
)
def test_each_auth_method_is_accepted_and_nothing_else_is_sent(bench: Bench, where: Where, auth: Auth) -> None:
    wanted = bench.target(auth, where)
    outcome, (request,) = bench.perform(wanted)

    token_of(outcome, request)
    assert isinstance(outcome, Issued)
    assert (outcome.token.lifetime, outcome.token.scope, outcome.notes) == (LIFETIME, "alpha", ())
    assert (request.scheme, request.method, request.path) == (where, "POST", "/token")
    assert request.form.keys() == {"grant_type", "scope"} | BY_FORM[auth]
    assert ("authorization" in request.headers) == (auth == "client_secret_basic")
    assert request.certificate == fingerprint(wanted)


@pytest.mark.parametrize("auth", ["client_secret_jwt", "private_key_jwt"])
def test_an_assertion_has_the_required_claims_only(bench: Bench, auth: Auth) -> None:
    before = int(time.time())
    _, (request,) = bench.perform(bench.target(auth))
    after = int(time.time())

    header, claims = request.assertion
    assert header == {"typ": "JWT", "alg": "HS256" if auth == "client_secret_jwt" else "ES256"}
    assert claims.keys() == {"iss", "sub", "aud", "iat", "exp", "jti"}
    assert (claims["iss"], claims["sub"], claims["aud"]) == (auth, auth, bench.server.https_token_url)
    assert before - PAST <= claims["iat"] <= after - PAST
    assert claims["exp"] == claims["iat"] + 60


@pytest.mark.parametrize(
    ("algorithm", "configured"),
    [
        *[pytest.param(name, True, id=name) for name in (*HMAC, *SIGNATURES)],
        *[
            pytest.param(name, False, id=f"{name}-by-the-key")
            for name in ("HS256", "RS256", "ES256", "ES384", "ES512", "EdDSA")
        ],
    ],
)
def test_assertions_of_each_algorithm_are_accepted(bench: Bench, algorithm: str, configured: bool) -> None:
    # The server takes no other of this client.
    how = Jwt(algorithm=algorithm if configured else None)
    if algorithm in HMAC:
        secret = (bench.keep("secret", SECRET * 11),)
        wanted = bench.target("client_secret_jwt", client_id=algorithm, jwt=how, client_secret=secret)
    else:
        held = bench.holds(private_key=key(algorithm))
        wanted = bench.target("private_key_jwt", client_id=algorithm, jwt=how, **held)
    outcome, (request,) = bench.perform(wanted)

    token_of(outcome, request)
    assert request.assertion[0]["alg"] == algorithm


def test_the_key_id_is_the_keys_own_or_the_configured_one(bench: Bench) -> None:
    own = ECAlgorithm.to_jwk(ECAlgorithm(ECAlgorithm.SHA256).prepare_key(key("ES256 two")), as_dict=True)
    keys = {"jwk": json.dumps(own | {"kid": "two"}), "pem": key("ES256 one")}
    for name, key_id, named in (("jwk", None, "two"), ("pem", "one", "one")):
        wanted = bench.target(
            "private_key_jwt",
            client_id="several",
            private_key=bench.keep(name, keys[name]),
            jwt=Jwt(key_id=key_id),
        )
        outcome, (request,) = bench.perform(wanted)

        token_of(outcome, request)
        assert request.assertion[0]["kid"] == named


def test_a_certificate_is_identified_by_its_thumbprints(bench: Bench) -> None:
    held = bench.holds(certificate=own_certificate(), private_key=key("EdDSA"))
    outcome, (request,) = bench.perform(bench.target("private_key_jwt", client_id="certified", **held))

    token_of(outcome, request)
    header, _ = request.assertion
    certificate = der(held["certificate"])
    assert (header["x5t"], header["x5t#S256"]) == (
        segment(sha1(certificate).digest()),
        segment(sha256(certificate).digest()),
    )
    assert request.certificate is None


# -- secrets that are read in two ways -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("encoding", "secret", "sent"),
    [
        pytest.param("compatible", BASE64, "q%2B7/Zz0=", id="compatible-base64"),
        pytest.param("compatible", PERCENT, "a%2Bb%252Fc/d=e:f%25", id="compatible-percent"),
        pytest.param("rfc6749", BASE64, "q%2B7%2FZz0%3D", id="rfc6749-base64"),
        pytest.param("rfc6749", PERCENT, "a%2Bb%252Fc%2Fd%3De%3Af%25", id="rfc6749-percent"),
    ],
)
def test_a_secret_in_basic_is_decoded_correctly(bench: Bench, encoding: BasicEncoding, secret: str, sent: str) -> None:
    client_id = f"client_secret_basic-{'base64' if secret == BASE64 else 'percent'}"
    held = (bench.keep("awkward", secret),)
    wanted = bench.target("client_secret_basic", client_id=client_id, client_secret=held, basic_encoding=encoding)
    outcome, (request,) = bench.perform(wanted)

    token_of(outcome, request)
    assert basic(request) == f"{client_id}:{sent}"


@pytest.mark.parametrize(
    ("which", "secret", "why", "said"),
    [
        pytest.param(
            "base64",
            BASE64,
            "invalid secret provided",
            "HTTP 401 invalid_client",
            id="base64-whose-plus-becomes-a-space",
        ),
        pytest.param("percent", PERCENT, "URI malformed", "HTTP 400 invalid_request", id="percent-that-is-no-code"),
    ],
)
def test_a_refused_raw_secret_hints_at_the_setting(bench: Bench, which: str, secret: str, why: str, said: str) -> None:
    client_id = f"client_secret_basic-{which}"
    held = (bench.keep("awkward", secret),)
    wanted = bench.target("client_secret_basic", client_id=client_id, client_secret=held, basic_encoding="raw")
    outcome, (request,) = bench.perform(wanted)

    assert basic(request) == f"{client_id}:{secret}"
    assert request.why == why
    assert outcome == Refused(
        f"{said}: the client was refused", hint=f"{TWO_WAYS}auth: client_secret_post, which sends them in the form"
    )


@pytest.mark.parametrize("auth", ["client_secret_post", "client_secret_jwt"])
@pytest.mark.parametrize(("secret", "which"), [(BASE64, "base64"), (PERCENT, "percent")], ids=["base64", "percent"])
def test_other_auth_methods_need_no_encoding_of_the_secret(bench: Bench, auth: Auth, secret: str, which: str) -> None:
    held = (bench.keep("awkward", secret),)
    outcome, (request,) = bench.perform(bench.target(auth, client_id=f"{auth}-{which}", client_secret=held))

    token_of(outcome, request)


# -- discovery -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "auth"),
    [
        pytest.param("issuer", "private_key_jwt", id="https"),
        pytest.param("issuer", "tls_client_auth", id="https-alias-for-a-certificate"),
        pytest.param("issuer", "self_signed_tls_client_auth", id="https-alias-for-a-self-signed-certificate"),
        pytest.param("http-issuer", "private_key_jwt", id="http-that-is-allowed"),
    ],
)
def test_the_endpoint_is_discovered_once(bench: Bench, where: Where, auth: Auth) -> None:
    wanted = bench.target(auth, where)
    first, (found, request) = bench.perform(wanted)
    second, (again,) = bench.perform(wanted)

    token_of(first, request)
    token_of(second, again)
    issuer = wanted.client.provider.issuer or ""
    assert (found.method, found.path) == ("GET", "/.well-known/oauth-authorization-server")
    # Metadata is requested without a certificate.
    assert found.certificate is None
    address = issuer.partition("://")[2]
    by_certificate = wanted.client.tls_certificate is not None
    host = address.replace("127.0.0.1", "localhost") if by_certificate else address
    assert [each.headers["host"] for each in (found, request, again)] == [address, host, host]
    assert [each.certificate for each in (request, again)] == [fingerprint(wanted)] * 2
    if auth == "private_key_jwt":
        assert [each.assertion[1]["aud"] for each in (request, again)] == [issuer] * 2


# -- resource indicators -------------------------------------------------------------------------------


@pytest.mark.parametrize("resources", [(API,), (API, API)], ids=["one", "twice-the-same"])
def test_resources_are_sent_unchanged(bench: Bench, resources: tuple[str, ...]) -> None:
    outcome, (request,) = bench.perform(bench.target("client_secret_basic", resources=resources))

    token_of(outcome, request)
    assert isinstance(outcome, Issued)
    assert request.form["resource"] == list(resources)
    assert outcome.token.lifetime == API_LIFETIME  # by which the server shows that it knows for what the token is


@pytest.mark.parametrize(
    ("resources", "why"),
    [
        pytest.param((API, OTHER_API), "only a single resource indicator value is supported", id="two"),
        pytest.param(("https://nobody.example.com/",), "resource indicator is missing, or unknown", id="unknown"),
    ],
)
def test_refused_resources_are_the_tokens_own_refusal_with_a_hint(
    bench: Bench, resources: tuple[str, ...], why: str
) -> None:
    outcome, (request,) = bench.perform(bench.target("client_secret_basic", resources=resources))

    assert outcome == Refused(
        "HTTP 400 invalid_target: this request was refused", hint="check parameters: resource", whole_client=False
    )
    assert request.form["resource"] == list(resources)
    assert (request.why or "").startswith(why)


# -- scope ---------------------------------------------------------------------------------------------


def test_a_silently_dropped_scope_is_a_warning(bench: Bench) -> None:
    outcome, (request,) = bench.perform(bench.target("client_secret_basic", scope="alpha nonsense"))

    token_of(outcome, request)
    assert isinstance(outcome, Issued)
    assert request.form["scope"] == ["alpha nonsense"]
    assert outcome.notes == ("the token's scope lacks nonsense; ask the provider to grant it to this client",)
    assert outcome.token.scope == "alpha"


def test_a_silently_dropped_scope_is_a_refusal_with_strict_scope(bench: Bench) -> None:
    outcome, (request,) = bench.perform(bench.target("client_secret_basic", scope="alpha nonsense", strict_scope=True))

    assert request.status == 200
    assert outcome == Refused(
        "the token's scope lacks nonsense (strict_scope)",
        hint="ask the provider to grant it to this client",
        whole_client=False,
    )


def test_a_scope_that_is_not_allowed_is_a_refusal_of_this_token_alone(bench: Bench) -> None:
    outcome, (request,) = bench.perform(bench.target("client_secret_basic", client_id="narrow", scope="alpha gamma"))

    assert request.why == "requested scope is not allowed"
    assert outcome == Refused(
        "HTTP 400 invalid_scope: the scope was refused",
        whole_client=False,
        hint="check that scope matches the provider's settings, and have it granted to this client",
    )


# -- refusals ------------------------------------------------------------------------------------------

NOTHING_SAID = Jwt()


@dataclass(frozen=True)
class Wrong:
    """A client that is not as it is registered, and why the server says no."""

    auth: Auth
    why: str
    hint: str
    where: Where = "https"
    client_id: str | None = None
    secret: str | None = None
    private_key: str | None = None
    certified: Literal["by-another", "as-another"] | None = None
    jwt: Jwt = NOTHING_SAID
    message: str = CLIENT_REFUSED


NOT_THE_METHOD = "the provided authentication mechanism does not match the registered client authentication method"
WRONG = {
    "wrong-secret-basic": Wrong("client_secret_basic", "invalid secret provided", CHECK, secret="wrong"),
    "wrong-secret-post": Wrong("client_secret_post", "invalid secret provided", CHECK, secret="wrong"),
    "wrong-secret-jwt": Wrong("client_secret_jwt", "signature verification failed", CHECK_JWT, secret="wrong"),
    "expired-secret": Wrong(
        "client_secret_basic",
        "client_id client_secret_basic-expired client_secret expired at 1",
        EXPIRED,
        client_id="client_secret_basic-expired",
        message="HTTP 400 invalid_client: the client was refused",
    ),
    "expired-secret-jwt": Wrong(
        "client_secret_jwt",
        "client_id client_secret_jwt-expired client_secret expired at 1",
        EXPIRED,
        client_id="client_secret_jwt-expired",
        message="HTTP 400 invalid_client: the client was refused",
    ),
    "unknown-client": Wrong("client_secret_basic", "client not found", CHECK, client_id="nobody"),
    "wrong-audience": Wrong(
        "private_key_jwt",
        "audience (aud) must equal the endpoint url, issuer identifier or token endpoint url",
        CHECK_KEY,
        jwt=Jwt(audience="https://elsewhere.example.com"),
    ),
    "wrong-key": Wrong("private_key_jwt", "signature verification failed", CHECK_KEY, private_key="ES256 other"),
    "unknown-key-id": Wrong(
        "private_key_jwt",
        "no applicable key found in the JSON Web Key Set",
        CHECK_KEY,
        client_id="several",
        private_key="ES256 one",
        jwt=Jwt(key_id="three"),
    ),
    "secret-for-a-key": Wrong("client_secret_basic", NOT_THE_METHOD, CHECK, client_id="private_key_jwt"),
    "key-for-a-secret": Wrong("private_key_jwt", NOT_THE_METHOD, CHECK_KEY, client_id="client_secret_post"),
    "nothing-for-a-secret": Wrong("none", NOT_THE_METHOD, CHECK_ID, client_id="client_secret_post"),
    "certificate-over-http": Wrong(
        "tls_client_auth", "client certificate was not provided", CHECK_CERTIFICATE, where="http"
    ),
    "certificate-of-another-authority": Wrong(
        "tls_client_auth", "client certificate was not verified", CHECK_CERTIFICATE, certified="by-another"
    ),
    "certificate-for-another-name": Wrong(
        "tls_client_auth",
        "certificate subject value does not match the registered one",
        CHECK_CERTIFICATE,
        certified="as-another",
    ),
    "certificate-not-registered": Wrong(
        "self_signed_tls_client_auth",
        "unregistered client certificate provided",
        CHECK_CERTIFICATE,
        certified="as-another",
    ),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG.keys())
def test_a_client_that_differs_from_its_registration_is_refused(bench: Bench, wrong: Wrong) -> None:
    changes: dict[str, Any] = {"jwt": wrong.jwt, "client_id": wrong.client_id or wrong.auth}
    if wrong.secret:
        changes["client_secret"] = (bench.keep("wrong", wrong.secret),)
    if wrong.private_key:
        changes["private_key"] = bench.keep("wrong", key(wrong.private_key))
    if wrong.certified == "by-another":
        changes |= bench.certify(trustme.CA())
    elif wrong.certified:
        changes |= bench.certify(bench.server.ca, "another.example.com")
    outcome, (request,) = bench.perform(bench.target(wrong.auth, wrong.where, **changes))

    assert request.why == wrong.why
    assert isinstance(outcome, Refused)
    assert (outcome.message, outcome.whole_client) == (wrong.message, True)
    hint = wrong.hint
    if hint is CHECK_KEY:
        hint += (
            f"{wrong.jwt.audience or bench.target('private_key_jwt').client.provider.token_url} (assertion_audience)"
        )
    assert outcome.hint == hint


def test_each_assertion_is_used_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = bench.target("private_key_jwt")
    ordinary = [bench.perform(wanted) for _ in range(2)]
    monkeypatch.setattr("bearerd.grant.perform.secrets.token_urlsafe", lambda _: "always the same")
    first, _ = bench.perform(wanted)
    replayed, (request,) = bench.perform(wanted)

    for outcome, (taken,) in ordinary:
        token_of(outcome, taken)
    assert isinstance(first, Issued)
    assert request.why == "client assertion tokens must only be used once"
    assert replayed == Refused(
        CLIENT_REFUSED,
        hint="the provider accepted the same credentials before: ask whether it revoked, replaced or locked them",
    )


# -- rotation ------------------------------------------------------------------------------------------


def test_a_list_of_secrets_carries_over_a_rotation(bench: Bench) -> None:
    def register(secret: str) -> None:
        bench.server.register(client("rotating", "client_secret_post", client_secret=secret))

    def turns(count: int) -> tuple[list[Outcome], list[str]]:
        outcomes, requests = zip(*(bench.perform(wanted) for _ in range(count)), strict=True)
        return list(outcomes), [secret for (request,) in requests for secret in request.form["client_secret"]]

    register("old")
    newest_first = (bench.keep("secret.new", "new"), bench.keep("secret.old", "old"))
    wanted = bench.target("client_secret_post", client_id="rotating", client_secret=newest_first)
    before, tried_before = turns(4)
    register("new")
    after, tried_after = turns(3)

    tried_next = Refused(CLIENT_REFUSED, hint=NEXT, another_secret=True)
    assert tried_before == ["new", "old", "old", "old"]
    assert before[0] == tried_next
    assert all(isinstance(outcome, Issued) for outcome in before[1:])
    assert tried_after == ["old", "new", "new"]
    assert after[0] == tried_next
    assert all(isinstance(outcome, Issued) for outcome in after[1:])


def test_a_new_secret_is_tried_before_the_one_that_works(bench: Bench) -> None:
    bench.server.register(client("renewed", "client_secret_post", client_secret="old"))
    held = (bench.keep("secret.new", "new"), bench.keep("secret.old", "old"))
    wanted = bench.target("client_secret_post", client_id="renewed", client_secret=held)
    for _ in range(2):
        bench.perform(wanted)  # it stays with the old one now
    bench.server.register(client("renewed", "client_secret_post", client_secret="newer"))
    bench.keep("secret.new", "newer")
    outcome, (request,) = bench.perform(wanted)

    token_of(outcome, request)


def test_when_every_secret_was_refused_no_other_is_announced(bench: Bench) -> None:
    held = (bench.keep("secret.1", "one"), bench.keep("secret.2", "two"))
    wanted = bench.target("client_secret_post", client_secret=held)
    first, _ = bench.perform(wanted)
    last, _ = bench.perform(wanted)

    assert first == Refused(CLIENT_REFUSED, hint=NEXT, another_secret=True)
    assert last == Refused(CLIENT_REFUSED, hint=CHECK)


def test_a_secret_that_cannot_be_decoded_is_followed_by_the_next(bench: Bench) -> None:
    held = (bench.keep("secret.1", PERCENT), bench.keep("secret.2", SECRET))
    wanted = bench.target("client_secret_basic", client_secret=held, basic_encoding="raw")
    refused, _ = bench.perform(wanted)
    outcome, (request,) = bench.perform(wanted)

    assert refused == Refused("HTTP 400 invalid_request: the client was refused", hint=NEXT, another_secret=True)
    token_of(outcome, request)


def test_a_rotated_certificate_is_presented_from_the_next_grant_on(bench: Bench) -> None:
    wanted = bench.target("tls_client_auth")
    shown = []
    for _ in range(2):
        outcome, (request,) = bench.perform(wanted)
        token_of(outcome, request)
        assert request.certificate == fingerprint(wanted)
        shown.append(request.certificate)
        bench.certify(bench.server.ca)

    assert shown[0] != shown[1]


def test_a_token_that_is_bound_to_the_certificate_is_a_warning(bench: Bench) -> None:
    wanted = bench.target("tls_client_auth", client_id="bound", resources=(JWT_API,))
    outcome, (request,) = bench.perform(wanted)

    claims = jwt.decode(token_of(outcome, request), options={"verify_signature": False})
    assert wanted.client.tls_certificate is not None
    assert claims["cnf"] == {"x5t#S256": segment(sha256(der(wanted.client.tls_certificate)).digest())}
    assert isinstance(outcome, Issued)
    assert outcome.notes == (
        "the token is bound to the client's certificate: its readers have to present the same certificate",
    )


# -- clocks --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "off", "refused"),
    [
        # It accepts an `iat` in the future if there is an `exp`, and no expired assertion.
        pytest.param("https", -1830.0, [True, False], id="behind"),
        pytest.param("https", 1830.0, [False, False], id="ahead"),
        pytest.param("issuer", -1830.0, [False, False], id="behind-and-found-out-by-discovery"),
        pytest.param("issuer", 1830.0, [False, False], id="ahead-and-found-out-by-discovery"),
    ],
)
def test_assertions_are_dated_by_the_servers_clock_once_it_is_known(
    shared: OidcProvider, tmp_path: Path, where: Where, off: float, refused: list[bool]
) -> None:
    clock = FakeClock(Instant(wall=time.time() + off, boot=5_000.0))
    bench = Bench(shared, tmp_path, clock)
    wanted = bench.target("private_key_jwt", where)
    earliest = int(time.time()) - 2  # the server rounds down to what it was a moment ago, and so does a float
    turns = [bench.perform(wanted) for _ in range(2)]
    latest = int(time.time())

    assert [isinstance(outcome, Refused) for outcome, _ in turns] == refused
    dates = [requests[-1].assertion[1]["iat"] for _, requests in turns]
    if where == "https":
        assert dates.pop(0) == int(clock.wall) - PAST
    for date in dates:
        assert earliest - PAST <= date <= latest - PAST
    if refused[0]:
        assert turns[0][0] == Refused(
            CLIENT_REFUSED,
            hint="the provider's clock is 30 min ahead of this machine's: correct this machine's clock (until "
            "then, assertions use the provider's clock)",
        )
