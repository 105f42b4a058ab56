"""Every field of Client and Target is varied: it changes what is requested, wakes a refused target, or is irrelevant.

A new field fails `test_every_field_is_known` until somebody has decided which of these it is.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from bearerd.grant.reply import Reply
from bearerd.grant.request import Request
from bearerd.lifecycle.plan import plan
from bearerd.model import Client, Config, JwtBearer, Output, Provider, ProxyLogin, Target
from bearerd.service.engine import Engine
from bearerd.terms import Hook, RateLimit, Redis, Reference, Share
from support.clock import FakeClock

NAME = "dnb/bci"
SIBLINGS = ("a", "b")
FILE = "/etc/bearerd/other.secret"

BASE = Target(
    client=Client(
        name="dnb",
        provider=Provider("sandbox", "https://login.example.com/token"),
        client_id="7e0c5a",
        client_secret=(Reference("env", "SECRET"),),
        jwt_bearer=JwtBearer(),
        private_key=Reference("env", "KEY"),
    ),
    name="bci",
    scope="bci",
    parameters=(("audience", "https://api.example.com"),),
)
BY_ISSUER = Provider("sandbox", issuer="https://login.example.com")

# -- what each field is --------------------------------------------------------------------------------

# Another token is requested, and a record of the old one is not used.
IDENTITY = {
    "client.provider.token_url": "https://login.example.org/token",
    "client.auth": "client_secret_post",
    "client.grant_type": "urn:example:grant",
    "client.headers": (("X-Tenant", "acme"),),
    "client.jwt_bearer.issuer": "somebody",
    "client.jwt_bearer.subject": "somebody",
    "client.jwt.claims": '{"role": "reader"}',
    "assertion_claims": '{"role": "reader"}',
    "client.provider.token_field": "id_token",
    "lifetime_unit": "seconds",
    "scope": "bci other",
    "parameters": (("audience", "https://other.example.com"),),
}

# The same token is requested in another way: a refusal of the old request says nothing about the new one.
FINGERPRINT: dict[str, Any] = {
    "client.provider.issuer": "https://login.example.org",
    "client.provider.ca_file": "/etc/ssl/other.pem",
    "client.provider.proxy": "http://proxy.example.com:3128",
    "client.provider.proxy_login": ProxyLogin("bearerd", Reference("env", "OTHER_SECRET")),
    "client.client_id": "another",
    "client.client_secret": (Reference("env", "OTHER_SECRET"),),
    "client.basic_encoding": "raw",
    "client.body": "json",
    "client.private_key": Reference("env", "OTHER_KEY"),
    "client.certificate": Reference("env", "CERTIFICATE"),
    "client.tls_certificate": Reference("env", "OTHER_CERTIFICATE"),
    "client.tls_private_key": Reference("env", "OTHER_KEY"),
    "client.provider.tls_certificate": Reference("env", "OTHER_CERTIFICATE"),
    "client.provider.tls_private_key": Reference("env", "OTHER_KEY"),
    "client.provider.headers": (("X-Api-Key", Reference("env", "OTHER_KEY")),),
    "client.assertion": Reference("env", "ASSERTION"),
    "client.assertion_type": "urn:example:assertion",
    "client.jwt.key_id": "key-2",
    "client.jwt.algorithm": "PS256",
    "client.jwt.audience": "https://audience.example.com",
    "client.jwt.scope_in": "form",
    "client.scope_separator": ",",
    "strict_scope": True,
}

# A provider that refuses does so all the same. A running daemon asks again after each change of a client, which is
# simpler than to judge it; a daemon that starts does not.
LIMITS: dict[str, Any] = {
    "client.provider.name": "production",  # a name of the config's
    "client.provider.allow_http": True,  # for the config's own check
    "client.provider.timeout": 20.0,  # a refusal came in time
    "client.provider.refused_limit.count": 10,  # how often a request is sent
    "client.provider.refused_limit.window": 600.0,
    "client.provider.max_concurrency": 2,  # when a request is sent, not what is sent
    "client.rate_limits": (("client dnb", RateLimit(100, 10.0)),),  # likewise
    "client.share": Share(Redis("unix:///none/redis.sock"), key=Reference("env", "KEY")),  # which daemon sends it
}

IRRELEVANT: dict[str, tuple[Any, str]] = {
    "client.name": ("other", "another client: its targets have other names"),
    "name": ("other", "another target"),
    "refresh_before.share": (0.1, "when a token that was issued is refreshed"),
    "refresh_before.seconds": (60.0, "likewise"),
    "default_lifetime": (60.0, "how long a token that was issued lives"),
    "publish_delay": (60.0, "when a token that was issued is published"),
    "max_age": (60.0, "when a token that was issued is refreshed"),
    "on_expiry": ("remove", "what happens to files"),
    "outputs": ((Output("/run/bearerd/other"),), "which files are written"),
    "required": (False, "when the daemon is ready"),
    "on_change": ((Hook(argv=("/bin/true",)),), "what runs after files changed"),
    "on_failure": ((Hook(argv=("/bin/true",)),), "what runs after a failure"),
}

ALL = {**IDENTITY, **FINGERPRINT, **LIMITS, **{path: value for path, (value, _) in IRRELEVANT.items()}}


def leaves(value: Any, prefix: str = "") -> Iterator[str]:
    """The paths of all fields of a dataclass, and of those that it holds."""
    for field in fields(value):
        held = getattr(value, field.name)
        if is_dataclass(held) and not isinstance(held, Reference):
            yield from leaves(held, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}"


def varied(base: Any, path: str, value: Any) -> Any:
    """The dataclass with another value at a path."""
    name, _, rest = path.partition(".")
    return replace(base, **{name: varied(getattr(base, name), rest, value) if rest else value})


def pair(path: str) -> tuple[Target, Target]:
    """A target, and the same with this field changed."""
    client = BASE.client
    if path == "client.provider.issuer":
        client = replace(client, provider=BY_ISSUER)
    elif ".tls_" in path:
        pair: Any = {"tls_certificate": Reference("env", "CERTIFICATE"), "tls_private_key": Reference("env", "KEY")}
        client = replace(client, provider=replace(client.provider, **pair), **pair)
    elif path == "client.assertion":
        client = replace(client, client_secret=(), auth="assertion", assertion=Reference("env", "SECRET"))
    base = replace(BASE, client=client)
    return base, varied(base, path, ALL[path])


def test_every_field_is_known() -> None:
    assert sorted(leaves(BASE)) == sorted(ALL)
    assert len(ALL) == len(IDENTITY) + len(FINGERPRINT) + len(LIMITS) + len(IRRELEVANT)


# -- what a change of each does ------------------------------------------------------------------------


@pytest.mark.parametrize("path", ALL)
def test_only_the_identity_decides_whether_a_record_is_used(path: str) -> None:
    old, new = pair(path)
    assert old != new
    issuer = path == "client.provider.issuer"  # the provider's one URL
    assert (old.identity() != new.identity()) == (path in IDENTITY or issuer)
    renewed = plan(Config("/d", "/s", targets=(old,)), Config("/d", "/s", targets=(new,))).renew
    assert bool(renewed) == (path in IDENTITY or issuer or path == "client.client_id")


@dataclass
class Providers:
    """Refuses every token request."""

    status: int
    error: str
    requests: int = 0

    def send(self, request: Request) -> Reply:
        if request.body is None:
            issuer = request.url.partition("/.well-known/")[0]
            document = {"issuer": issuer, "token_endpoint": f"{issuer}/token"}
            return Reply(200, {}, json.dumps(document).encode())
        self.requests += 1
        return Reply(self.status, {}, json.dumps({"error": self.error}).encode())

    def close_idle(self) -> None:
        pass


ENVIRON = {
    name: f"s3cr3t-{name}"
    for name in ("SECRET", "OTHER_SECRET", "KEY", "OTHER_KEY", "CERTIFICATE", "OTHER_CERTIFICATE", "ASSERTION")
}


class Daemon:
    """An engine whose turns the test gives, over one target."""

    def __init__(self, directory: Path, providers: Providers, clock: FakeClock) -> None:
        self._directory, self._clock, self._providers = directory, clock, providers
        self.refuses_client = providers.error == "invalid_client"
        self.engine: Engine | None = None

    def config(self, target: Target) -> Config:
        """With siblings, which show that a refusal is the client's and not the target's own."""
        siblings = [replace(BASE, client=target.client, name=name) for name in SIBLINGS]
        return Config(f"{self._directory}/tokens", f"{self._directory}/state", targets=(target, *siblings))

    def start(self, target: Target) -> None:
        self.engine = Engine(self.config(target), ENVIRON, clock=self._clock)
        self.engine.start()

    def change(self, target: Target) -> None:
        assert self.engine is not None
        self.engine.apply(self.config(target))

    def restart(self, target: Target) -> None:
        self.stop()
        self.start(target)

    def stop(self) -> None:
        assert self.engine is not None
        self.engine.stop()

    def asks(self, name: str = NAME) -> bool:
        """Whether the target's next turn, some seconds later, sends a request."""
        assert self.engine is not None
        self._clock.advance(3.0)  # more than between two attempts, and less than after any refusal
        before = self._providers.requests
        self.engine._turn(name)
        return self._providers.requests > before


REFUSALS = [
    pytest.param((401, "invalid_client"), id="client"),
    pytest.param((400, "invalid_scope"), id="target"),
]


@pytest.fixture
def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Daemon]:
    providers = Providers(*request.param)
    monkeypatch.setattr("bearerd.grant.perform.Endpoint", lambda _: providers)
    monkeypatch.setattr("bearerd.lifecycle.schedule.Schedule.start", lambda _: None)
    monkeypatch.setattr("bearerd.grant.request._signed", lambda *_, **__: "e30.e30.c2ln")
    built = Daemon(tmp_path, providers, FakeClock())
    yield built
    built.stop()


SAME_NAME = [path for path in ALL if path not in {"name", "client.name"}]


@pytest.mark.parametrize("daemon", REFUSALS, indirect=True)
@pytest.mark.parametrize("path", SAME_NAME)
@pytest.mark.parametrize("how", ["change", "restart"])
def test_a_refused_target_asks_at_once_after_a_relevant_change(daemon: Daemon, path: str, how: str) -> None:
    old, new = pair(path)
    daemon.start(old)
    assert daemon.asks()
    if daemon.refuses_client:
        # A client without any token tries three targets before its pace begins.
        assert all(daemon.asks(f"dnb/{name}") for name in SIBLINGS)
    assert not daemon.asks()
    getattr(daemon, how)(new)
    limits = path in LIMITS and how == "change"
    assert daemon.asks() == (path in IDENTITY or path in FINGERPRINT or limits)
    assert not daemon.asks()


OTHER_FAILURES = [
    pytest.param((404, "not_found"), id="malformed"),
    pytest.param((429, "slow_down"), id="rate_limited"),
]


@pytest.mark.parametrize("daemon", OTHER_FAILURES, indirect=True)
@pytest.mark.parametrize("path", [*IDENTITY, *FINGERPRINT])
def test_a_target_that_fails_for_another_reason_asks_at_once_after_a_relevant_change(daemon: Daemon, path: str) -> None:
    old, new = pair(path)
    daemon.start(old)
    assert daemon.asks()
    assert not daemon.asks()
    daemon.change(new)
    assert daemon.asks()


REFERENCES = [field for field in fields(Client) if "Reference" in str(field.type)]
OF_PROVIDER = [field for field in fields(Provider) if re.search("Reference|ProxyLogin", str(field.type))]


@pytest.mark.parametrize("field", REFERENCES, ids=lambda field: field.name)
def test_each_reference_of_a_client_is_watched(field: dataclasses.Field[Any]) -> None:
    marker = Reference("file", FILE)
    value: Any = (marker,) if "tuple" in str(field.type) else marker
    value = (("X-Api-Key", marker),) if field.name == "headers" else value
    assert marker in replace(BASE, client=replace(BASE.client, **{field.name: value})).references


@pytest.mark.parametrize("field", OF_PROVIDER, ids=lambda field: field.name)
def test_each_reference_of_a_provider_is_watched(field: dataclasses.Field[Any]) -> None:
    marker = Reference("file", FILE)
    values: dict[str, Any] = {"headers": (("X-Api-Key", marker),), "proxy_login": ProxyLogin("bearerd", marker)}
    value = values.get(field.name, marker)
    assert marker in varied(BASE, f"client.provider.{field.name}", value).references


def test_references_of_parameters_are_watched() -> None:
    marker = Reference("file", FILE)
    assert marker in replace(BASE, parameters=(("subject_token", marker),)).references
