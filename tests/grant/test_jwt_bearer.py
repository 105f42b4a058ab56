"""Assertions before a real authorization server, Authlib's: as the grant itself, and as the client's authentication.

It verifies with joserfc, which shares no code with what signs here. Token exchange, which it does not have, is looked
at as it is sent.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest
from authlib.integrations.flask_oauth2 import AuthorizationServer
from authlib.oauth2.rfc6749 import ClientMixin
from authlib.oauth2.rfc6749.grants import ClientCredentialsGrant
from authlib.oauth2.rfc7523 import JWTBearerClientAssertion, JWTBearerGrant
from flask import Flask, Response, request
from joserfc.jwk import KeySet, OctKey, RSAKey
from joserfc.jws import extract_compact
from werkzeug.serving import WSGIRequestHandler, make_server

from bearerd.config.load import load
from bearerd.grant.outcome import Issued, Outcome, Refused
from bearerd.grant.perform import Grants
from bearerd.model import Client, Jwt, JwtBearer, Provider, Target
from bearerd.terms import JWT_BEARER, Auth, Instant, Reference
from support.clock import FakeClock
from support.process import WITHIN
from support.server import issues, serving

KEY = RSAKey.generate_key(2048, parameters={"kid": "new"})
ANOTHER = RSAKey.generate_key(2048, parameters={"kid": "old"})
SECRET = "a secret of at least 32 characters"
CLIENT_ID, ACCOUNT, USER = "7e0c5a", "robot@project.example.com", "me@example.com"
REFUSED = "HTTP 400 invalid_grant: the client was refused"
CHECK = "check issuer, subject, key_id, public key and audience of the assertion, which is for "


class Registered(ClientMixin):  # type: ignore[misc]
    """A client as Authlib asks for it: it may do all that there is."""

    def __init__(self, client_id: str) -> None:
        self.client_id = client_id

    def get_client_id(self) -> str:
        """Its id."""
        return self.client_id

    def get_allowed_scope(self, scope: str | None) -> str:
        """The allowed part of the requested scope."""
        return scope or ""

    def check_endpoint_auth_method(self, _method: str, _endpoint: str) -> bool:
        """Whether it may authenticate so."""
        return True

    def check_grant_type(self, _grant_type: str) -> bool:
        """Whether it may have this grant."""
        return True


def registered(client_id: str) -> Registered | None:
    return Registered(client_id) if client_id in {CLIENT_ID, ACCOUNT} else None


def public_keys() -> KeySet:
    """A rotation under way: which of the two it is has to be said."""
    return KeySet([ANOTHER, KEY])


@dataclass
class There:
    """The server: where it is, and the form of each request."""

    token_url: str
    seen: list[dict[str, str]] = field(default_factory=list)

    def last(self, name: str = "assertion") -> tuple[dict[str, Any], dict[str, Any]]:
        """Header and claims of the assertion in the last request."""
        unpacked = extract_compact(self.seen[-1][name].encode())
        claims: dict[str, Any] = json.loads(unpacked.payload)
        return dict(unpacked.headers()), claims


class Quiet(WSGIRequestHandler):
    """Logs nothing."""

    def log(self, *_: Any) -> None:
        """Nothing."""


@contextmanager
def authorization_server() -> Iterator[There]:
    app = Flask("authorization-server")
    listener = make_server("127.0.0.1", 0, app, threaded=True, request_handler=Quiet)
    there = There(f"http://127.0.0.1:{listener.server_port}/token")
    used: set[str] = set()

    class Bearer(JWTBearerGrant):  # type: ignore[misc]
        def resolve_issuer_client(self, issuer: str) -> Registered | None:
            return registered(issuer)

        def resolve_client_public_key(self, _client: Registered) -> KeySet:
            return public_keys()

        def authenticate_user(self, subject: str) -> str | None:
            return subject if subject == USER else None

        def has_granted_permission(self, _client: Registered, _user: str) -> bool:
            return True

        def get_audiences(self) -> list[str]:
            return [there.token_url]

    class Assertion(JWTBearerClientAssertion):  # type: ignore[misc]
        def resolve_client_public_key(self, _client: Registered) -> KeySet | OctKey:
            by_secret = there.last("client_assertion")[0]["alg"] == "HS256"
            return OctKey.import_key(SECRET) if by_secret else public_keys()

        def validate_jti(self, _claims: Any, jti: str) -> bool:
            fresh = jti not in used
            used.add(jti)
            return fresh

        def get_audiences(self) -> list[str]:
            return [there.token_url]

    class Credentials(ClientCredentialsGrant):  # type: ignore[misc]
        TOKEN_ENDPOINT_AUTH_METHODS = (Assertion.CLIENT_AUTH_METHOD,)

    server = AuthorizationServer(app, query_client=registered, save_token=lambda _token, _request: None)
    server.register_client_auth_method(Assertion.CLIENT_AUTH_METHOD, Assertion())
    server.register_grant(Bearer)
    server.register_grant(Credentials)

    @app.post("/token")
    def issue() -> Response:
        there.seen.append(request.form.to_dict())
        response: Response = server.create_token_response()
        return response

    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield there
    finally:
        listener.shutdown()
        thread.join()
        listener.server_close()


@pytest.fixture(scope="module")
def there() -> Iterator[There]:
    with pytest.MonkeyPatch.context() as environment:
        # Authlib's own switch for servers on loopback without TLS.
        environment.setenv("AUTHLIB_INSECURE_TRANSPORT", "1")
        with authorization_server() as server:
            yield server


Keep = Callable[[str], Reference]


@pytest.fixture
def keep(tmp_path: Path) -> Keep:
    """Puts a text into a file as an operator does."""

    def kept(text: str) -> Reference:
        path = tmp_path / "kept"
        path.write_text(text)
        path.chmod(0o600)
        return Reference("file", str(path))

    return kept


def pem(key: RSAKey = KEY) -> str:
    return key.as_pem(private=True).decode()


def jwk() -> str:
    return json.dumps(KEY.as_dict(private=True))


def service_account() -> str:
    """What Google's console has one download."""
    return json.dumps(
        {
            "type": "service_account",
            "project_id": "project",
            "private_key_id": "new",
            "private_key": pem(),
            "client_email": ACCOUNT,
            "client_id": "1234567890",
            "token_uri": "https://oauth2.googleapis.com/token",
        }
    )


def target(there: There, scope: str = "bci", **client: Any) -> Target:
    """A target whose grant is an assertion; `client` overrides its fields."""
    provider = Provider("authlib", token_url=there.token_url, allow_http=True, timeout=WITHIN)
    usual: dict[str, Any] = {
        "client_id": CLIENT_ID,
        "auth": "none",
        "grant_type": JWT_BEARER,
        "jwt": Jwt(key_id="new"),
        "jwt_bearer": JwtBearer(),
    }
    return Target(client=Client("dnb", provider, **(usual | client)), name="bci", scope=scope)


def now(off: float = 0.0) -> FakeClock:
    """A clock that is off by some seconds."""
    return FakeClock(Instant(wall=time.time() + off, boot=5_000.0))


def granted(wanted: Target) -> Outcome:
    return Grants(now(), {}).perform(wanted).outcome


# -- the grant ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "jwt"),
    [
        pytest.param(pem, Jwt(key_id="new"), id="pem"),
        pytest.param(jwk, Jwt(), id="jwk"),
        pytest.param(service_account, Jwt(), id="service-account"),
    ],
)
def test_the_server_accepts_signatures_of_keys_in_every_format(
    there: There, keep: Keep, text: Callable[[], str], jwt: Jwt
) -> None:
    outcome = granted(target(there, private_key=keep(text()), jwt=jwt))

    assert isinstance(outcome, Issued), outcome
    # Nothing of the form names a scope to this server: the one asked for is taken to be given.
    assert (outcome.token.lifetime, outcome.token.scope, outcome.notes) == (3600.0, "bci", ())
    assert there.last()[0] == {"typ": "JWT", "alg": "RS256", "kid": "new"}


@pytest.mark.parametrize(
    ("bearer", "jwt", "scope", "claims", "form"),
    [
        pytest.param(JwtBearer(), Jwt(), "bci risk", {"scope": "bci risk"}, {}, id="scope-in-the-assertion"),
        pytest.param(JwtBearer(), Jwt(scope_in="form"), "bci risk", {}, {"scope": "bci risk"}, id="scope-in-the-form"),
        pytest.param(JwtBearer(), Jwt(), "", {}, {}, id="no-scope"),
        pytest.param(JwtBearer(issuer=ACCOUNT), Jwt(), "", {"iss": ACCOUNT}, {}, id="issuer"),
        pytest.param(JwtBearer(subject=USER), Jwt(), "", {"sub": USER}, {}, id="subject"),
        pytest.param(
            JwtBearer(),
            Jwt(claims='{"target_audience": "https://api.example.com", "roles": ["a", "b"], "n": 1}'),
            "",
            {"target_audience": "https://api.example.com", "roles": ["a", "b"], "n": 1},
            {},
            id="more-claims",
        ),
    ],
)
def test_the_assertion_has_the_configured_claims_and_no_others(
    there: There, keep: Keep, bearer: JwtBearer, jwt: Jwt, scope: str, claims: dict[str, Any], form: dict[str, str]
) -> None:
    clock = now()
    wanted = target(there, scope, private_key=keep(pem()), jwt_bearer=bearer, jwt=replace(jwt, key_id="new"))
    outcome = Grants(clock, {}).perform(wanted).outcome

    assert isinstance(outcome, Issued), outcome
    assert outcome.token.scope == (scope or None)
    said = there.last()[1]
    assert len(said.pop("jti")) > 20
    issued = int(clock.wall) - 5
    usual = {"iss": CLIENT_ID, "aud": there.token_url, "iat": issued, "exp": issued + 60}
    assert said == usual | claims
    sent = dict(there.seen[-1])
    del sent["assertion"]
    assert sent == {"grant_type": JWT_BEARER} | form


@pytest.mark.parametrize(
    ("changes", "hint"),
    [
        pytest.param(
            {"jwt": Jwt(key_id="new", audience="https://other.example.com")},
            "the assertion is for https://other.example.com: set assertion_audience to what the provider expects, "
            "often its issuer or its token URL",
            id="audience",
        ),
        pytest.param({"jwt_bearer": JwtBearer(issuer="nobody")}, CHECK, id="issuer"),
        pytest.param({"jwt_bearer": JwtBearer(subject="nobody@example.com")}, CHECK, id="subject"),
        pytest.param({"jwt": Jwt(key_id="old")}, CHECK, id="key-id-of-another-key"),
        pytest.param({"jwt": Jwt()}, CHECK, id="no-key-id"),
    ],
)
def test_a_wrong_assertion_is_a_refusal_of_the_client_with_a_hint(
    there: There, keep: Keep, changes: dict[str, Any], hint: str
) -> None:
    refused = granted(target(there, private_key=keep(pem()), **changes))
    assert isinstance(refused, Refused)
    assert refused.message == REFUSED
    assert str(refused.hint).startswith(hint)


@pytest.mark.parametrize(
    ("off", "way"),
    [pytest.param(-3550.0, "ahead of", id="behind"), pytest.param(3550.0, "behind", id="ahead")],
)
def test_a_clock_that_is_off_costs_one_grant(there: There, keep: Keep, off: float, way: str) -> None:
    clock = now(off)
    grants = Grants(clock, {})
    wanted = target(there, private_key=keep(pem()))
    first, second = grants.perform(wanted), grants.perform(wanted)

    # The Date of the refusal shows the server's time.
    assert first.outcome == Refused(
        REFUSED,
        hint=f"the provider's clock is 59 min {way} this machine's: correct this machine's clock (until then, "
        "assertions use the provider's clock)",
    )
    assert isinstance(second.outcome, Issued), second.outcome
    # Its readers are here, and go by this machine's clock.
    assert second.outcome.token.obtained == clock.now()


# -- the client's authentication ---------------------------------------------------------------------


BY_ASSERTION: list[Any] = [
    pytest.param("private_key_jwt", {"typ": "JWT", "alg": "RS256", "kid": "new"}, id="private_key_jwt"),
    pytest.param("client_secret_jwt", {"typ": "JWT", "alg": "HS256"}, id="client_secret_jwt"),
]


def authenticated(there: There, keep: Keep, auth: Auth, **client: Any) -> Target:
    by_key = auth == "private_key_jwt"
    held = {"private_key": keep(pem())} if by_key else {"client_secret": (keep(SECRET),)}
    jwt = Jwt(key_id="new") if by_key else Jwt()
    usual = {"auth": auth, "grant_type": "client_credentials", "jwt": jwt, "jwt_bearer": None}
    return target(there, **(usual | held | client))


@pytest.mark.parametrize(("auth", "header"), BY_ASSERTION)
def test_the_client_is_authenticated_by_its_assertion_each_time(
    there: There, keep: Keep, auth: Auth, header: dict[str, str]
) -> None:
    grants = Grants(now(), {})
    wanted = authenticated(there, keep, auth)
    # The server takes no assertion twice.
    for _ in range(2):
        outcome = grants.perform(wanted).outcome
        assert isinstance(outcome, Issued), outcome
        assert (outcome.token.lifetime, outcome.token.scope, outcome.notes) == (864_000.0, "bci", ())
        assert there.last("client_assertion")[0] == header


@pytest.mark.parametrize(("auth", "header"), BY_ASSERTION)
def test_an_assertion_for_another_audience_is_a_refusal_of_the_client_with_a_hint(
    there: There, keep: Keep, auth: Auth, header: dict[str, str]
) -> None:
    elsewhere = Jwt(key_id=header.get("kid"), audience="https://other.example.com")
    outcome = granted(authenticated(there, keep, auth, jwt=elsewhere))

    assert isinstance(outcome, Refused), outcome
    assert outcome.whole_client
    assert "invalid_client" in outcome.message
    assert outcome.hint is not None
    assert outcome.hint.startswith("the assertion is for https://other.example.com: set assertion_audience to ")


# -- token exchange ----------------------------------------------------------------------------------


def test_the_token_to_exchange_is_read_again_for_each_grant(tmp_path: Path, keep: Keep) -> None:
    exchange = "urn:ietf:params:oauth:grant-type:token-exchange"
    kind = "urn:ietf:params:oauth:token-type:jwt"
    config = tmp_path / "config.yaml"
    with serving(issues()) as server:
        config.write_text(
            "clients:\n"
            "  sts:\n"
            f"    token_url: {server.url}\n"
            "    allow_http: true\n"
            "    auth: none\n"
            f"    grant_type: {exchange}\n"
            f"    subject_token: {{file: '{keep('subject-1').at}'}}\n"
            f"    parameters: {{subject_token_type: '{kind}', audience: api}}\n"
            "    tokens: {api: {scope: bci}}\n"
        )
        (wanted,) = load(str(config), {}).targets
        grants = Grants(now(), {})
        for subject in ("subject-1", "subject-2"):
            keep(subject)  # somebody else rotates it
            assert isinstance(grants.perform(wanted).outcome, Issued)
            assert parse_qsl(server.seen[-1].body.decode()) == [
                ("grant_type", exchange),
                ("scope", "bci"),
                ("subject_token_type", kind),
                ("audience", "api"),
                ("subject_token", subject),
            ]
