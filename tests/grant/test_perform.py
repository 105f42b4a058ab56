from __future__ import annotations

import json
import logging
import re
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import jwt
import pytest

from bearerd.errors import Stopping
from bearerd.grant.outcome import Issued, Outcome, Performed, Refused, Transient, Unsent
from bearerd.grant.perform import Grants
from bearerd.model import Client, Jwt, JwtBearer, Target
from bearerd.secrets import command
from bearerd.terms import JWT_BEARER, Instant, Reference
from support.clock import START, FakeClock
from support.oidc import pem, private_key, self_signed
from support.peer import refusing
from support.process import WITHIN
from support.server import Answer, Script, Seen, Server, issues, serving
from support.targets import CLIENT, PROVIDER, target

REFUSING: Script = lambda _: Answer(401, {"error": "invalid_client"})  # noqa: E731
REFUSED = Refused(
    "HTTP 401 invalid_client: the client was refused",
    hint="check that client_id, secret and auth match the provider's settings",
)
ALLOWED = "check that the provider allows this client's scope and parameters"
TRY_NEXT = replace(REFUSED, another_secret=True, hint="the client has another secret, which is tried next")
GOOD = {"access_token": "t", "token_type": "Bearer", "expires_in": 3600}
# Of the length that RFC 7518 wants, lest PyJWT warns where it verifies.
LONG_SECRET = "a secret of no less than thirty-two bytes"
SECRET = {"DNB_SECRET": "s3cret"}


def at(server: Server | str, *, provider: Mapping[str, Any] | None = None, **client: Any) -> Target:
    """A target at this server or URL."""
    url = server if isinstance(server, str) else server.url
    there: dict[str, Any] = {"token_url": url, "timeout": WITHIN} | dict(provider or {})
    return target(client=replace(CLIENT, provider=replace(PROVIDER, **there), **client))


def perform(wanted: Target, environ: Mapping[str, str] = SECRET, clock: FakeClock | None = None) -> Performed:
    return Grants(clock or FakeClock(), environ).perform(wanted)


def variable(name: str) -> Reference:
    return Reference("env", name)


def form_of(seen: Seen) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(seen.body.decode(), strict_parsing=True).items()}


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Callable[[], list[tuple[str, str]]]:
    caplog.set_level(logging.DEBUG, "bearerd")
    return lambda: [(record.levelname, record.getMessage()) for record in caplog.records]


Log = Callable[[], list[tuple[str, str]]]


# -- one grant -----------------------------------------------------------------------------------------


def test_a_grant_returns_a_token_and_its_details() -> None:
    with serving(issues()) as server:
        performed = perform(at(server))

    assert isinstance(performed.outcome, Issued)
    assert performed.outcome.token.access_token == "t-1"
    assert performed == Performed(performed.outcome, "7e0c5a", server.url, 200, None, 0.0)
    assert server.seen[0].headers["authorization"] == "Basic N2UwYzVhOnMzY3JldA=="
    assert server.seen[0].body == b"grant_type=client_credentials&scope=bci"


@pytest.mark.parametrize(
    ("client", "missing"),
    [
        pytest.param({}, "DNB_SECRET", id="secret"),
        pytest.param({"client_id": variable("DNB_ID")}, "DNB_ID", id="client-id"),
        pytest.param({"private_key": variable("DNB_KEY")}, "DNB_KEY", id="private-key"),
        pytest.param({"certificate": variable("DNB_CERT")}, "DNB_CERT", id="certificate"),
    ],
)
def test_without_its_credentials_nothing_is_sent(client: dict[str, Any], missing: str) -> None:
    environ = dict.fromkeys(("DNB_SECRET", "DNB_ID", "DNB_KEY", "DNB_CERT"), "x")
    del environ[missing]
    with serving(issues()) as server:
        performed = perform(at(server, **client), environ)

    assert performed == Performed(Unsent(f"env {missing}: the variable is not set", phase="secret"))
    assert server.seen == []


@pytest.mark.parametrize("where", ["client_secret", "the newest of two", "parameters", "headers of the metadata"])
def test_a_command_that_a_stop_prevents_is_no_outcome_and_nothing_is_sent(
    monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    stopping = threading.Event()
    stopping.set()
    monkeypatch.setattr(command, "_stopping", stopping)
    secret = Reference("command", "/bin/pass", argv=("/bin/pass",))
    with serving(issues()) as server:
        of_metadata: dict[str, Any] = {"token_url": None, "issuer": server.url, "headers": (("X-Gate", secret),)}
        wanted = {
            "client_secret": at(server, client_secret=(secret,)),
            "the newest of two": at(server, client_secret=(secret, variable("DNB_SECRET"))),
            "parameters": replace(at(server), parameters=(("subject_token", secret),)),
            "headers of the metadata": at(server, provider=of_metadata),
        }[where]
        with pytest.raises(Stopping):
            perform(wanted)

    assert server.seen == []


def test_without_a_parameter_nothing_is_sent() -> None:
    with serving(issues()) as server:
        wanted = replace(at(server), parameters=(("subject_token", variable("SUBJECT")),))
        performed = perform(wanted)

    assert performed == Performed(Unsent("env SUBJECT: the variable is not set", phase="secret"))
    assert server.seen == []


def test_parameters_and_secrets_are_read_again_for_each_grant(tmp_path: Path) -> None:
    token = tmp_path / "subject"
    token.touch(0o600)
    environ: dict[str, str] = {}
    with serving(issues()) as server:
        grants = Grants(FakeClock(), environ)
        wanted = replace(
            at(server, auth="client_secret_post"), parameters=(("subject_token", Reference("file", str(token))),)
        )
        for text in ("old", "new"):
            token.write_text(f"{text}-token\n")
            environ["DNB_SECRET"] = f"{text}-secret"
            grants.perform(wanted)

    sent = [form_of(seen) for seen in server.seen]
    assert [form["client_secret"] for form in sent] == ["old-secret", "new-secret"]
    assert [form["subject_token"] for form in sent] == ["old-token", "new-token"]


def test_a_ready_assertion_is_read_again_for_each_grant(tmp_path: Path) -> None:
    # As Kubernetes rotates the token that it projects.
    path = tmp_path / "token"
    path.touch(0o600)
    with serving(issues()) as server:
        grants = Grants(FakeClock(), {})
        wanted = at(server, auth="assertion", client_secret=(), assertion=Reference("file", str(path)))
        for text in ("ey.J.1", "ey.J.2"):
            path.write_text(text)
            grants.perform(wanted)

    assert [form_of(seen)["client_assertion"] for seen in server.seen] == ["ey.J.1", "ey.J.2"]


def test_a_key_that_cannot_sign_is_an_error_and_nothing_is_sent(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("hunter2")
    (tmp_path / "key").chmod(0o600)
    with serving(issues()) as server:
        key = Reference("file", str(tmp_path / "key"))
        performed = perform(at(server, auth="private_key_jwt", client_secret=(), private_key=key))

    why = "neither a private key in PEM format, nor a private JWK, nor the JSON of a service account"
    assert performed == Performed(Unsent(f"private_key file {tmp_path}/key: {why}", phase="secret"), "7e0c5a")
    assert server.seen == []


def test_a_secret_that_cannot_sign_is_an_error_and_nothing_is_sent() -> None:
    # A PEM file in place of the secret: PyJWT takes none of these for HMAC.
    with serving(issues()) as server:
        performed = perform(at(server, auth="client_secret_jwt"), {"DNB_SECRET": pem(private_key("ES256"))})

    assert performed == Performed(
        Unsent("client_secret env DNB_SECRET: the key cannot sign with HS256", phase="secret"), "7e0c5a"
    )
    assert server.seen == []


def test_without_the_extra_nothing_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jwt", None)
    with serving(issues()) as server:
        performed = perform(at(server, auth="client_secret_jwt"))

    message = (
        "signing assertions needs a part that is not installed: "
        f"run {sys.prefix}/bin/pip install '.[jwt]' in the checkout"
    )
    assert performed == Performed(Unsent(message, phase="set-up"), "7e0c5a")
    assert server.seen == []


def test_a_missing_ca_file_is_a_local_fault_and_nothing_is_sent() -> None:
    with serving(issues()) as server:
        performed = perform(at(server, provider={"ca_file": "/nowhere/ca.pem"}))

    missing = Unsent("ca_file /nowhere/ca.pem: no such file or directory", phase="set-up")
    assert performed == Performed(missing, "7e0c5a", server.url, took=0.0)
    assert server.seen == []


def test_no_reply_is_transient_in_its_phase() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/token"
        performed = perform(at(url))

    assert isinstance(performed.outcome, Transient)
    assert performed.outcome.message == f"{url.split('/')[2]}: connection refused (while connecting)"
    assert performed == Performed(performed.outcome, "7e0c5a", url, took=0.0)


def test_hints_of_the_connection_are_passed_on() -> None:
    with serving(issues()) as server:
        performed = perform(at(server.url.replace("http:", "https:")))

    assert isinstance(performed.outcome, Transient)
    assert (performed.outcome.phase, performed.outcome.hint) == ("TLS", "check that this port speaks TLS")


class SlowEnvironment(Mapping[str, str]):
    """Each look-up takes a second, as a command that fetches a secret does."""

    def __init__(self, clock: FakeClock, values: Mapping[str, str]) -> None:
        self._clock, self._values, self.lookups = clock, values, 0

    def __getitem__(self, key: str) -> str:
        self._clock.advance(1.0)
        self.lookups += 1
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


def test_the_lifetime_counts_from_just_before_the_request() -> None:
    clock = FakeClock()
    environ = SlowEnvironment(clock, SECRET)

    def slowly(seen: Seen) -> Answer:
        clock.advance(60.0)
        return script(seen)

    script = issues()
    with serving(slowly) as server:
        performed = perform(at(server), environ, clock)

    assert isinstance(performed.outcome, Issued)
    assert environ.lookups > 0
    # After the secret was fetched, and before the provider took its minute.
    assert performed.outcome.token.obtained == Instant(START.wall + environ.lookups, START.boot + environ.lookups)
    assert performed.took == 60.0


# -- secrets in replies, and hints ----------------------------------------------------------------------


def test_an_error_code_that_echoes_a_secret_is_not_shown() -> None:
    with serving(lambda _: Answer(400, {"error": "horse_staple"})) as server:
        performed = perform(at(server), {"DNB_SECRET": "horse_staple"})

    assert performed.outcome == Refused("HTTP 400: this request was refused", whole_client=False, hint=ALLOWED)
    assert performed.status == 400


def test_an_error_code_that_echoes_a_header_is_not_shown() -> None:
    with serving(lambda _: Answer(400, {"error": "a_key_of_letters"})) as server:
        performed = perform(
            at(server, headers=(("X-Api-Key", variable("API_KEY")),)), SECRET | {"API_KEY": "a_key_of_letters"}
        )

    assert performed.outcome == Refused("HTTP 400: this request was refused", whole_client=False, hint=ALLOWED)


def test_headers_of_a_provider_are_also_sent_for_its_metadata_and_those_of_a_client_are_not() -> None:
    script = issues()

    def answer(seen: Seen) -> Answer:
        issuer = server.url.removesuffix("/token")
        return script(seen) if seen.method == "POST" else Answer(200, {"issuer": issuer, "token_endpoint": server.url})

    of_provider = (("X-Gate", variable("GATE")), ("X-Both", "provider"))
    with serving(answer) as server:
        there: dict[str, Any] = {"token_url": None, "issuer": server.url.removesuffix("/token"), "headers": of_provider}
        wanted = at(
            server, provider=there, headers=(("X-Gate", variable("GATE")), ("X-Both", "client"), ("X-Own", "1"))
        )
        missing = perform(wanted)
        performed = perform(wanted, SECRET | {"GATE": "opens"})

    assert missing.outcome == Unsent("env GATE: the variable is not set", phase="secret")
    assert isinstance(performed.outcome, Issued), performed
    assert [[seen.headers.get(name) for name in ("x-gate", "x-both", "x-own")] for seen in server.seen] == [
        ["opens", "provider", None],
        ["opens", "client", "1"],
    ]


def test_without_a_secret_for_the_metadata_nothing_is_sent() -> None:
    with serving(issues()) as server:
        there: dict[str, Any] = {"token_url": None, "issuer": server.url, "headers": (("X-Gate", variable("GATE")),)}
        performed = perform(at(server, provider=there))

    assert performed.outcome == Unsent("env GATE: the variable is not set", phase="secret")
    assert server.seen == []


def test_a_refused_client_with_a_changed_header_is_untried() -> None:
    environ = SECRET | {"KEY": "first"}
    with serving(lambda _: Answer(401, {"error": "invalid_client"})) as server:
        wanted = at(server, headers=(("X-Api-Key", variable("KEY")),))
        grants = Grants(FakeClock(), environ)
        grants.perform(wanted)
        before = grants.untried(wanted.client)
        environ["KEY"] = "second"
        after = grants.untried(wanted.client)

    assert (before, after) == (False, True)


def test_an_error_code_that_echoes_a_secret_parameter_is_not_shown() -> None:
    with serving(lambda _: Answer(400, {"error": "horse_staple"})) as server:
        wanted = replace(at(server), parameters=(("actor_token", variable("ACTOR")),))
        performed = perform(wanted, SECRET | {"ACTOR": "horse_staple"})

    assert performed.outcome == Refused("HTTP 400: this request was refused", whole_client=False, hint=ALLOWED)


def test_an_error_code_that_equals_a_plain_parameter_is_shown() -> None:
    with serving(lambda _: Answer(400, {"error": "invalid_client"})) as server:
        wanted = replace(at(server), parameters=(("account_type", "client"),))
        performed = perform(wanted)

    assert isinstance(performed.outcome, Refused)
    assert performed.outcome.message == "HTTP 400 invalid_client: the client was refused"
    assert performed.outcome.whole_client


def test_hints_use_what_is_known_besides_the_reply() -> None:
    # Of the secret, of the clock and of the metadata: hints.py says which goes first.
    behind: dict[str, str] = {"Date": formatdate(START.wall - 3600, usegmt=True)}

    def answer(seen: Seen) -> Answer:
        if seen.method == "GET":
            methods = {"token_endpoint_auth_methods_supported": ["none"]}
            return Answer(200, described(seen) | methods)
        return Answer(401, {"error": "invalid_client"}, behind)

    with serving(answer) as server:
        by_secret = perform(at(server), {"DNB_SECRET": "a+b"})
        by_clock = perform(at(server, auth="client_secret_jwt"), {"DNB_SECRET": LONG_SECRET})
        by_metadata = perform(found_at(server))

    hints = [str(it.outcome).partition(": the client was refused; ")[2] for it in (by_secret, by_clock, by_metadata)]
    assert "try basic_encoding" in hints[0]
    assert hints[1].startswith("the provider's clock is 1 h behind this machine's")
    assert hints[2] == "the provider's metadata does not list auth client_secret_basic, only none"
    # Failures lock accounts: it is for the operator to try another way.
    assert len(server.seen) == 4


@pytest.mark.parametrize("broken", ["hinted", "_of_certificate"])
def test_a_request_that_was_sent_counts_even_if_its_hint_fails(
    monkeypatch: pytest.MonkeyPatch, log: Log, broken: str
) -> None:
    def fails(*_: Any, **__: Any) -> Any:
        raise ValueError("s3cret")

    monkeypatch.setattr(f"bearerd.grant.perform.{broken}", fails)
    with serving(REFUSING) as server:
        grants = Grants(FakeClock(), SECRET)
        performed = grants.perform(at(server))

    assert performed.outcome == REFUSED
    assert grants.was_refused(at(server).client)
    [(level, said)] = log()
    assert level == "ERROR"
    assert said.startswith("client dnb: the likely cause of a failure was not found: ValueError at ")
    assert said.endswith("; this is a bug in bearerd, please report it")


def test_a_request_without_a_reply_counts_even_if_its_hint_fails(monkeypatch: pytest.MonkeyPatch, log: Log) -> None:
    def fails(*_: Any, **__: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr("bearerd.grant.perform._of_certificate", fails)
    with refusing() as port:
        performed = perform(at(f"http://127.0.0.1:{port}/token"))

    assert isinstance(performed.outcome, Transient)
    assert "connection refused" in performed.outcome.message
    lack = "out of memory; raise the memory limit of bearerd, or of the machine"
    assert log() == [("ERROR", f"client dnb: the likely cause of a failure was not found: {lack}")]


def test_a_refusal_of_a_secret_that_worked_does_not_blame_its_encoding() -> None:
    answers = iter([Answer(200, GOOD), Answer(401, {"error": "invalid_client"})])
    with serving(lambda _: next(answers)) as server:
        grants = Grants(FakeClock(), {"DNB_SECRET": "a+b"})
        _, refused = (grants.perform(at(server)).outcome for _ in range(2))

    assert str(refused).endswith(
        "; the provider accepted the same credentials before: ask whether it revoked, replaced or locked them"
    )


# -- providers -----------------------------------------------------------------------------------------


def test_the_targets_of_a_provider_share_its_endpoint() -> None:
    with serving(issues()) as server:
        grants, first = Grants(FakeClock(), SECRET), at(server)
        grants.perform(first)
        grants.perform(replace(first, name="risk", scope="risk"))
        grants.perform(at(server, name="other"))

    assert len({seen.port for seen in server.seen}) == 1
    assert len(server.seen) == 3


def test_close_idle_reaches_the_endpoints_of_all_providers(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(issues()) as one, serving(issues()) as two:
        grants = Grants(FakeClock(), SECRET)
        for server in (one, two):
            grants.perform(at(server))
        endpoints = list(grants._endpoints.values())
        assert len(endpoints) == 2
        assert all(endpoint._transport is not None for endpoint in endpoints)

        monkeypatch.setattr("bearerd.grant.endpoint.IDLE_CLOSE", 0.0)
        grants.close_idle()

        assert all(endpoint._transport is None for endpoint in endpoints)


# -- a provider that is known by its issuer -------------------------------------------------------------


def described(seen: Seen) -> dict[str, Any]:
    """What the issuer that was asked says of itself."""
    issuer = f"http://{seen.headers['host']}"
    return {"issuer": issuer, "token_endpoint": f"{issuer}/found/token"}


def found_at(server: Server, *, provider: Mapping[str, Any] | None = None, **client: Any) -> Target:
    issuer = server.url.removesuffix("/token")
    return at(server, provider={"token_url": None, "issuer": issuer} | dict(provider or {}), **client)


def discovered(script: Script, methods: Sequence[str] = ("client_secret_basic",)) -> Script:
    """A script with metadata before it; they list these methods as they are by then."""

    def answer(seen: Seen) -> Answer:
        if seen.method == "GET":
            return Answer(200, described(seen) | {"token_endpoint_auth_methods_supported": methods})
        return script(seen)

    return answer


def methods_of(server: Server) -> str:
    """`GP`: the metadata were asked for, then a token."""
    return "".join(seen.method[0] for seen in server.seen)


def test_the_token_is_requested_at_the_endpoint_in_the_metadata() -> None:
    with serving(discovered(issues())) as server:
        performed = perform(found_at(server))

    assert isinstance(performed.outcome, Issued)
    assert performed.token_url == f"{server.url.removesuffix('/token')}/found/token"
    assert [(seen.method, seen.path) for seen in server.seen] == [
        ("GET", "/.well-known/oauth-authorization-server"),
        ("POST", "/found/token"),
    ]


def test_all_clients_of_a_provider_share_its_metadata() -> None:
    with serving(discovered(issues())) as server:
        grants = Grants(FakeClock(), SECRET)
        for name in ("one", "two", "one"):
            assert isinstance(grants.perform(found_at(server, name=name)).outcome, Issued)

    assert methods_of(server) == "GPPP"
    # And a connection.
    assert len({seen.port for seen in server.seen}) == 1


def test_each_provider_has_its_own_metadata() -> None:
    with serving(discovered(issues())) as one, serving(discovered(issues())) as two:
        grants = Grants(FakeClock(), SECRET)
        urls = [grants.perform(found_at(server)).token_url for server in (one, two)]

    assert urls == [f"{server.url.removesuffix('/token')}/found/token" for server in (one, two)]


def test_metadata_is_requested_again_after_a_day() -> None:
    clock = FakeClock()
    with serving(discovered(issues())) as server:
        grants, wanted = Grants(clock, SECRET), found_at(server)
        for seconds in (0.0, 86399.0, 1.0):
            clock.advance(seconds)
            grants.perform(wanted)

    assert methods_of(server) == "GPPGP"


def test_failed_discovery_is_a_failure_and_is_tried_again() -> None:
    answers = [Answer(503), Answer(503)]

    def script(seen: Seen) -> Answer:
        return answers.pop() if answers else discovered(issues())(seen)

    with serving(script) as server:
        grants, wanted = Grants(clock := FakeClock(), SECRET), found_at(server)
        failed = grants.perform(wanted)
        clock.advance(2.0)
        well = grants.perform(wanted)

    busy = Transient("metadata: HTTP 503: a temporary error at the provider", phase="discovery")
    assert failed == Performed(busy, "7e0c5a")
    assert isinstance(well.outcome, Issued)


def test_discovery_does_not_shorten_the_lifetime() -> None:
    clock = FakeClock()

    def slowly(seen: Seen) -> Answer:
        if seen.method == "GET":
            clock.advance(60.0)
        return discovered(issues())(seen)

    with serving(slowly) as server:
        performed = perform(found_at(server), clock=clock)

    assert isinstance(performed.outcome, Issued)
    assert performed.outcome.token.obtained == Instant(START.wall + 60.0, START.boot + 60.0)
    assert performed.took == 0.0


@pytest.mark.parametrize(
    ("answer", "doubted"),
    [
        pytest.param(Answer(404), True, id="404"),
        pytest.param(Answer(307, headers={"Location": "https://x.example/"}), True, id="redirect"),
        # There it answers, only not well.
        pytest.param(Answer(200, b"[]"), False, id="malformed-200"),
        pytest.param(Answer(400, {"error": "invalid_scope"}), False, id="refused"),
        pytest.param(Answer(503), False, id="not-well"),
        pytest.param(Answer(200, GOOD), False, id="issued"),
    ],
)
def test_a_wrong_endpoint_is_discovered_again(answer: Answer, doubted: bool) -> None:
    with serving(discovered(lambda _: answer)) as server:
        grants, wanted = Grants(FakeClock(), SECRET), found_at(server)
        grants.perform(wanted)
        grants.perform(wanted)

    assert methods_of(server) == ("GPGP" if doubted else "GPP")


def test_doubts_about_the_auth_method_are_logged_once_for_each_text(log: Log) -> None:
    clock, methods = FakeClock(), ["client_secret_basic"]
    with serving(discovered(issues(), methods)) as server:
        grants = Grants(clock, SECRET)
        for listed in (["none"], ["none"], ["client_secret_post"], ["client_secret_basic"], ["client_secret_post"]):
            methods[:] = listed
            for name in ("one", "two"):
                # It is asked all the same: metadata are often wrong.
                assert isinstance(grants.perform(found_at(server, name=name)).outcome, Issued)
            clock.advance(86400.0)

    doubt = "the provider's metadata does not list auth client_secret_basic, only"
    assert log() == [
        ("WARNING", f"client {name}: {doubt} {method}")
        for method in ("none", "client_secret_post", "client_secret_post")
        for name in ("one", "two")
    ]


# -- assertions ----------------------------------------------------------------------------------------


def claims_of(seen: Seen, field: str = "client_assertion") -> dict[str, Any]:
    claims: dict[str, Any] = jwt.decode(
        form_of(seen)[field],
        LONG_SECRET,
        algorithms=["HS256"],
        options={"verify_aud": False, "verify_exp": False, "verify_iat": False},
    )
    return claims


SIGNING: dict[str, Any] = {"auth": "client_secret_jwt"}
LONG = {"DNB_SECRET": LONG_SECRET}


def test_the_default_audience_is_the_token_url() -> None:
    with serving(issues()) as server:
        perform(at(server, **SIGNING), LONG)

    assert claims_of(server.seen[0])["aud"] == server.url


def test_the_default_audience_with_an_issuer_is_the_issuer() -> None:
    with serving(discovered(issues())) as server:
        perform(found_at(server, **SIGNING), LONG)

    assert claims_of(server.seen[1])["aud"] == server.url.removesuffix("/token")


def test_a_token_url_beside_an_issuer_needs_no_metadata_and_the_assertion_is_for_the_issuer() -> None:
    with serving(issues()) as server:
        perform(at(server, provider={"issuer": "https://sso.example.com/"}, **SIGNING), LONG)

    assert methods_of(server) == "P"
    assert claims_of(server.seen[0])["aud"] == "https://sso.example.com/"


def test_the_configured_audience_is_used() -> None:
    with serving(discovered(issues())) as server:
        perform(found_at(server, jwt=Jwt(audience="urn:acme"), **SIGNING), LONG)

    assert claims_of(server.seen[1])["aud"] == "urn:acme"


def test_no_two_assertions_have_the_same_id() -> None:
    with serving(issues()) as server:
        grants, wanted = Grants(FakeClock(), LONG), at(server, **SIGNING)
        for _ in range(20):
            grants.perform(wanted)

    ids = {claims_of(seen)["jti"] for seen in server.seen}
    assert len(ids) == 20
    # 128 bits: nobody else's is the same either.
    assert min(map(len, ids)) >= 22


# -- the provider's clock ------------------------------------------------------------------------------


class Watch:
    """A provider whose clock is some seconds ahead of the test's; with None its replies have no Date."""

    def __init__(self, clock: FakeClock, ahead: float | None = 0.0, takes: float = 0.0) -> None:
        self.clock, self.ahead, self.takes = clock, ahead, takes

    def now(self) -> float:
        return self.clock.wall + (self.ahead or 0.0)

    def __call__(self, seen: Seen) -> Answer:
        self.clock.advance(self.takes / 2)
        headers = {} if self.ahead is None else {"Date": formatdate(self.now(), usegmt=True)}
        answer = Answer(200, GOOD if seen.method == "POST" else described(seen), headers)
        self.clock.advance(self.takes / 2)
        return answer


def test_a_grant_returns_the_skew_of_the_clocks() -> None:
    clock = FakeClock()
    with serving(Watch(clock, ahead=600.0)) as server:
        assert perform(at(server), clock=clock).skew == 600.0


def test_a_slow_reply_does_not_look_like_skew() -> None:
    clock = FakeClock()
    with serving(Watch(clock, ahead=0.0, takes=8.0)) as server:
        performed = perform(at(server), clock=clock)

    assert (performed.skew, performed.took) == (0.0, 8.0)


@pytest.mark.parametrize(
    ("ahead", "said"),
    [
        pytest.param([0, 30, -30, None], [], id="within-30-s"),
        pytest.param([31], ["W 31 s ahead of"], id="31-s"),
        pytest.param([-31], ["W 31 s behind"], id="31-s-behind"),
        pytest.param([3600], ["W 1 h ahead of"], id="an-hour"),
        pytest.param([31, 40, 31], ["W 31 s ahead of"], id="once"),
        pytest.param([31, None, 31], ["W 31 s ahead of"], id="once-though-a-reply-says-nothing"),
        pytest.param([31, 30], ["W 31 s ahead of", "I"], id="and-its-end"),
        pytest.param([31, 0, 0], ["W 31 s ahead of", "I"], id="its-end-once"),
        pytest.param([31, 0, -60], ["W 31 s ahead of", "I", "W 60 s behind"], id="and-again"),
    ],
)
def test_skew_is_logged_once_and_so_is_its_end(log: Log, ahead: list[float | None], said: list[str]) -> None:
    clock = FakeClock()
    watch = Watch(clock)
    with serving(watch) as server:
        grants, wanted = Grants(clock, SECRET), at(server)
        for watch.ahead in ahead:
            grants.perform(wanted)

    assert log() == [
        ("WARNING", f"provider sandbox: its clock is {text[2:]} this machine's")
        if text.startswith("W")
        else ("INFO", "provider sandbox: its clock and this machine's agree again")
        for text in said
    ]


@pytest.mark.parametrize("ahead", [600.0, -600.0])
def test_assertions_are_dated_by_the_providers_clock_once_it_is_known(ahead: float) -> None:
    clock = FakeClock()
    watch = Watch(clock, ahead)
    with serving(watch) as server, serving(Watch(clock, 0.0)) as another:
        grants = Grants(clock, LONG)
        for _ in range(2):
            grants.perform(at(server, **SIGNING))
        clock.advance(100.0)
        grants.perform(at(server, **SIGNING))
        grants.perform(at(another, **SIGNING))

    first, second, third = (claims_of(seen) for seen in server.seen)
    assert first["iat"] == START.wall - 5
    # A little in the past by its own clock, and good for a minute from then.
    assert (second["iat"], second["exp"]) == (START.wall + ahead - 5, START.wall + ahead + 55)
    assert third["iat"] == START.wall + 100 + ahead - 5
    # Providers do not share their skew.
    assert claims_of(another.seen[0])["iat"] == START.wall + 100 - 5


@pytest.mark.parametrize(("ahead", "followed"), [(7200.0, 3600.0), (-7200.0, -3600.0), (2.4e11, 3600.0)])
def test_at_most_an_hour_of_skew_counts_and_the_log_says_so(log: Log, ahead: float, followed: float) -> None:
    # 2.4e11 s are 7,600 years: no assertion may be good until then.
    clock = FakeClock()
    with serving(Watch(clock, ahead)) as server:
        grants, wanted = Grants(clock, LONG), at(server, **SIGNING)
        for _ in range(2):
            assert isinstance(grants.perform(wanted).outcome, Issued)

    second = claims_of(server.seen[1])
    assert (second["iat"], second["exp"]) == (START.wall + followed - 5, START.wall + followed + 55)
    ((level, message),) = log()
    assert level == "WARNING"
    assert message.startswith("provider sandbox: its clock is ")
    assert message.endswith(" this machine's; at most 1 h of that is taken into account")


def test_the_metadata_shows_the_clock_before_the_first_assertion() -> None:
    clock = FakeClock()
    with serving(Watch(clock, ahead=600.0, takes=8.0)) as server:
        performed = perform(found_at(server, **SIGNING), LONG, clock)

    assert isinstance(performed.outcome, Issued)
    # Eight seconds went by for the metadata.
    assert claims_of(server.seen[1])["iat"] == START.wall + 8 + 600 - 5


def test_a_reply_without_a_date_does_not_change_the_skew() -> None:
    clock = FakeClock()
    watch = Watch(clock, 600.0)
    with serving(watch) as server:
        grants, wanted = Grants(clock, LONG), at(server, **SIGNING)
        for watch.ahead in (600.0, None, None):
            performed = grants.perform(wanted)

    assert performed.skew is None
    assert claims_of(server.seen[2])["iat"] == START.wall + 600 - 5


# -- several secrets -----------------------------------------------------------------------------------


class Kept:
    """What outlives a restart, as the state directory keeps it: as JSON."""

    def __init__(self, key: bytes = b"k" * 32) -> None:
        self.documents: dict[tuple[str, str], str] = {}
        self.saves = 0
        self._key = key

    def load(self, kind: str, name: str) -> Mapping[str, Any] | None:
        """What was kept under a name."""
        document = self.documents.get((kind, name))
        fields: dict[str, Any] | None = None if document is None else json.loads(document)
        return fields

    def save(self, kind: str, name: str, fields: Mapping[str, Any]) -> None:
        """Keep this under a name."""
        self.saves += 1
        self.documents[kind, name] = json.dumps(dict(fields))

    def key(self) -> bytes:
        """What fingerprints are made with."""
        return self._key


class Accepting:
    """A provider that takes these secrets, and says of each request which one it had."""

    def __init__(self, *secrets: str) -> None:
        self.secrets = set(secrets)
        self.otherwise: Answer | None = None
        self.tried: list[str] = []

    def __call__(self, seen: Seen) -> Answer:
        secret = form_of(seen)["client_secret"]
        self.tried.append(secret)
        if self.otherwise is not None:
            return self.otherwise
        return Answer(200, GOOD) if secret in self.secrets else Answer(401, {"error": "invalid_client"})


TWO: dict[str, Any] = {"auth": "client_secret_post", "client_secret": (variable("NEW"), variable("OLD"))}
BOTH = {"NEW": "n3w", "OLD": "0ld"}


def outcomes(grants: Grants, wanted: Target, count: int) -> list[Outcome]:
    return [grants.perform(wanted).outcome for _ in range(count)]


def test_a_rotation_has_no_gap() -> None:
    provider, environ = Accepting("0ld"), {"OLD": "0ld"}
    with serving(provider) as server:
        grants, wanted = Grants(FakeClock(), environ), at(server, **TWO)
        # The old one, then the new one is there but not active yet, then it is, then the old one is gone.
        assert isinstance(grants.perform(wanted).outcome, Issued)
        environ["NEW"] = "n3w"
        not_yet, again, later = outcomes(grants, wanted, 3)
        assert not_yet == TRY_NEXT
        assert isinstance(again, Issued)
        assert isinstance(later, Issued)
        provider.secrets = {"n3w"}
        ended, after, later = outcomes(grants, wanted, 3)
        assert ended == TRY_NEXT
        assert isinstance(after, Issued)
        assert isinstance(later, Issued)

    assert provider.tried == ["0ld", "n3w", "0ld", "0ld", "0ld", "n3w", "n3w"]


def test_after_the_refusal_of_all_secrets_they_take_turns() -> None:
    provider = Accepting()
    with serving(provider) as server:
        assert outcomes(Grants(FakeClock(), BOTH), at(server, **TWO), 4) == [TRY_NEXT, REFUSED, REFUSED, REFUSED]

    # One request a grant: failures lock accounts.
    assert provider.tried == ["n3w", "0ld", "n3w", "0ld"]


def test_a_refusal_names_the_secrets_of_the_list_that_could_not_be_read_and_the_log_does_once(log: Log) -> None:
    provider, environ = Accepting("n3w"), {"OLD": "0ld"}
    with serving(provider) as server:
        grants, wanted = Grants(FakeClock(), environ), at(server, **TWO)
        refused, again = outcomes(grants, wanted, 2)
        environ["NEW"] = "n3w"
        [issued] = outcomes(grants, wanted, 1)
        del environ["NEW"]
        grants.perform(wanted)

    said = "one of its secrets was not used: env NEW: the variable is not set"
    assert refused == again == replace(REFUSED, hint=f"{said}; {REFUSED.hint}")
    assert isinstance(issued, Issued)
    assert log() == [("WARNING", f"client dnb: {said}; another one is used")] * 2


def test_a_refusal_of_the_token_alone_names_no_secret() -> None:
    with serving(lambda _: Answer(400, {"error": "invalid_scope"})) as server:
        refused = perform(at(server, **TWO), {"OLD": "0ld"}).outcome

    assert isinstance(refused, Refused)
    assert "env NEW" not in str(refused)


@pytest.mark.parametrize(
    "answer",
    [Answer(503), Answer(429), Answer(200, b"[]"), Answer(404)],
    ids=["not-well", "too-often", "malformed", "nothing-there"],
)
def test_other_failures_try_no_other_secret(answer: Answer) -> None:
    provider = Accepting()
    provider.otherwise = answer
    with serving(provider) as server:
        grants, wanted = Grants(FakeClock(), BOTH), at(server, **TWO)
        outcomes(grants, wanted, 2)
        assert grants.untried(wanted.client)

    assert provider.tried == ["n3w", "n3w"]


def test_a_refusal_of_the_token_alone_means_that_the_secret_works() -> None:
    provider = Accepting("0ld")
    with serving(provider) as server:
        grants, wanted = Grants(FakeClock(), BOTH), at(server, **TWO)
        grants.perform(wanted)
        provider.otherwise = Answer(400, {"error": "invalid_scope"})
        [refused] = outcomes(grants, wanted, 1)
        provider.otherwise = None
        grants.perform(wanted)

    assert refused == Refused(
        "HTTP 400 invalid_scope: the scope was refused",
        whole_client=False,
        another_secret=False,
        hint="check that scope matches the provider's settings, and have it granted to this client",
    )
    assert provider.tried == ["n3w", "0ld", "0ld"]


def test_which_secret_works_is_known_after_a_restart() -> None:
    provider, kept = Accepting("0ld"), Kept()
    with serving(provider) as server:
        wanted = at(server, **TWO)
        for _ in range(3):
            Grants(FakeClock(), BOTH, kept).perform(wanted)

    assert provider.tried == ["n3w", "0ld", "0ld"]


def test_clients_do_not_share_what_is_known_about_secrets() -> None:
    provider, kept = Accepting("0ld"), Kept()
    with serving(provider) as server:
        grants = Grants(FakeClock(), BOTH, kept)
        for name in ("one", "two", "one", "two"):
            grants.perform(at(server, name=name, **TWO))

    assert provider.tried == ["n3w", "n3w", "0ld", "0ld"]
    assert kept.documents.keys() == {("secrets", "one"), ("secrets", "two")}


def test_with_another_key_nothing_is_known() -> None:
    provider, kept = Accepting("0ld"), Kept()
    with serving(provider) as server:
        wanted = at(server, **TWO)
        outcomes(Grants(FakeClock(), BOTH, kept), wanted, 2)
        other = Kept(key=b"x" * 32)
        other.documents = kept.documents
        Grants(FakeClock(), BOTH, other).perform(wanted)

    assert provider.tried == ["n3w", "0ld", "n3w"]


def test_saved_rotations_hold_no_secret() -> None:
    kept = Kept()
    with serving(Accepting("0ld")) as server:
        outcomes(Grants(FakeClock(), BOTH, kept), at(server, **TWO), 2)

    # Fingerprints of 128 bits, in hexadecimal, and nothing else.
    rotation = json.loads(kept.documents["secrets", "dnb"])
    assert rotation.keys() == {"worked", "passed_over", "refused"}
    for fingerprint in (rotation["worked"], *rotation["passed_over"]):
        assert re.fullmatch(r"[0-9a-f]{32}", fingerprint)


def test_a_single_working_secret_is_not_saved() -> None:
    kept = Kept()
    with serving(Accepting("s3cret")) as server:
        outcomes(Grants(FakeClock(), SECRET, kept), at(server, auth="client_secret_post"), 3)

    assert kept.saves == 0


def test_a_working_secret_of_two_is_saved_once() -> None:
    kept = Kept()
    with serving(Accepting("n3w")) as server:
        outcomes(Grants(FakeClock(), BOTH, kept), at(server, **TWO), 3)

    assert kept.saves == 1


def test_a_single_secret_that_works_again_is_saved() -> None:
    provider, kept = Accepting(), Kept()
    with serving(provider) as server:
        wanted = at(server, auth="client_secret_post")
        Grants(FakeClock(), SECRET, kept).perform(wanted)
        assert not Grants(FakeClock(), SECRET, kept).untried(wanted.client)
        provider.secrets = {"s3cret"}
        Grants(FakeClock(), SECRET, kept).perform(wanted)

    assert Grants(FakeClock(), SECRET, kept).untried(wanted.client)


# -- untried secrets -------------------------------------------------------------------------------------


def test_a_secret_is_untried_until_it_is_refused_and_again_when_it_works() -> None:
    provider, environ = Accepting(), dict(SECRET)
    with serving(provider) as server:
        grants, wanted = Grants(FakeClock(), environ), at(server, auth="client_secret_post")
        seen = [grants.untried(wanted.client)]
        grants.perform(wanted)
        seen.append(grants.untried(wanted.client))
        environ["DNB_SECRET"] = "rotated"
        seen.append(grants.untried(wanted.client))
        grants.perform(wanted)
        seen.append(grants.untried(wanted.client))
        provider.secrets = {"rotated"}
        grants.perform(wanted)
        seen.append(grants.untried(wanted.client))

    assert seen == [True, False, True, False, True]


def test_of_several_secrets_one_that_is_untried_is_enough() -> None:
    environ = dict(BOTH)
    with serving(Accepting()) as server:
        grants, wanted = Grants(FakeClock(), environ), at(server, **TWO)
        seen = []
        for _ in range(3):
            seen.append(grants.untried(wanted.client))
            grants.perform(wanted)
        seen.append(grants.untried(wanted.client))
        environ["NEW"] = "newer"
        seen.append(grants.untried(wanted.client))
        # A refused secret stays refused if it is the only one left.
        del environ["NEW"]
        seen.append(grants.untried(wanted.client))

    assert seen == [True, True, False, False, True, False]


def test_an_unreadable_secret_is_not_untried() -> None:
    grants = Grants(FakeClock(), {})

    assert not grants.untried(at("http://127.0.0.1:1/").client)


def test_untried_sends_no_request() -> None:
    with serving(issues()) as server:
        assert Grants(FakeClock(), SECRET).untried(at(server).client)

    assert server.seen == []


KEY, OTHER_KEY = private_key("ES256"), private_key("ES256")
ENVIRON = {
    "DNB_SECRET": LONG_SECRET,
    "KEY": pem(KEY),
    "OTHER_KEY": pem(OTHER_KEY),
    "CERTIFICATE": self_signed(KEY),
    "ID": "another-id",
}
SECRET_JWT: dict[str, Any] = {"auth": "client_secret_jwt"}
KEY_JWT: dict[str, Any] = {"auth": "private_key_jwt", "client_secret": (), "private_key": variable("KEY")}
READY: dict[str, Any] = {"auth": "assertion", "client_secret": (), "assertion": variable("DNB_SECRET")}
GRANT: dict[str, Any] = KEY_JWT | {"auth": "none", "grant_type": JWT_BEARER, "jwt_bearer": JwtBearer()}


@pytest.mark.parametrize(
    ("before", "change"),
    [
        pytest.param({}, {"auth": "client_secret_post"}, id="auth"),
        pytest.param({}, {"basic_encoding": "raw"}, id="basic_encoding"),
        pytest.param({}, {"client_id": "another"}, id="client_id"),
        pytest.param({}, {"client_id": variable("ID")}, id="client_id-behind-a-reference"),
        pytest.param({}, {"grant_type": "account_credentials"}, id="grant_type"),
        pytest.param(SECRET_JWT, {"jwt": Jwt(key_id="k-2")}, id="key_id"),
        pytest.param(SECRET_JWT, {"jwt": Jwt(algorithm="HS512")}, id="algorithm"),
        pytest.param(SECRET_JWT, {"jwt": Jwt(audience="urn:acme")}, id="assertion_audience"),
        pytest.param(KEY_JWT, {"private_key": variable("OTHER_KEY")}, id="private_key"),
        pytest.param(KEY_JWT, {"certificate": variable("CERTIFICATE")}, id="certificate"),
        pytest.param(READY, {"assertion": variable("KEY")}, id="assertion"),
        pytest.param(READY, {"assertion_type": "urn:acme:another"}, id="assertion_type"),
        pytest.param(GRANT, {"jwt_bearer": JwtBearer(issuer="x")}, id="assertion_issuer"),
        pytest.param(GRANT, {"jwt_bearer": JwtBearer(subject="x")}, id="assertion_subject"),
        pytest.param(GRANT, {"jwt": Jwt(claims='{"x": 1}')}, id="assertion_claims"),
        pytest.param(GRANT, {"jwt": Jwt(scope_in="form")}, id="scope_in"),
    ],
)
def test_a_changed_config_counts_as_an_untried_secret(before: dict[str, Any], change: dict[str, Any]) -> None:
    kept = Kept()
    with serving(REFUSING) as server:
        refused = at(server, **before).client
        assert isinstance(Grants(FakeClock(), ENVIRON, kept).perform(target(client=refused)).outcome, Refused)

    # Also after a restart, by which a changed config may have come.
    grants = Grants(FakeClock(), ENVIRON, kept)
    assert not grants.untried(refused)
    assert grants.untried(replace(refused, **change))


def test_a_changed_provider_counts_as_an_untried_secret() -> None:
    with serving(REFUSING) as one, serving(REFUSING) as two:
        grants = Grants(FakeClock(), SECRET)
        grants.perform(at(one))

        assert not grants.untried(at(one).client)
        assert grants.untried(at(two).client)


def other_details(client: Client) -> Client:
    return replace(client, provider=replace(client.provider, timeout=3.0, max_concurrency=2))


def test_a_changed_timeout_is_no_reason_to_try_a_refused_secret_again() -> None:
    with serving(REFUSING) as server:
        grants, wanted = Grants(FakeClock(), SECRET), at(server)
        grants.perform(wanted)

    assert not grants.untried(other_details(wanted.client))


# -- several grants at once ------------------------------------------------------------------------------


def test_grants_of_many_threads_share_their_state() -> None:
    together, performed = threading.Barrier(8, timeout=WITHIN), list[Performed]()

    def script(_: Seen) -> Answer:
        together.wait()
        return Answer(200, GOOD)

    with serving(discovered(script)) as server:
        grants = Grants(FakeClock(), SECRET, Kept())
        names = [f"client-{number}" for number in range(8)]
        threads = [
            threading.Thread(target=lambda wanted: performed.append(grants.perform(wanted)), args=(wanted,))
            for wanted in (found_at(server, name=name) for name in names)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WITHIN)

    assert [type(it.outcome) for it in performed] == [Issued] * 8
    assert methods_of(server) == "G" + "P" * 8
