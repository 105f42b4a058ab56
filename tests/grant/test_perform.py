from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest

from bearerd.grant.outcome import Issued, Outcome, Refused, Transient, Unsent
from bearerd.grant.perform import Grants
from bearerd.model import Instant, Reference, Target
from support.clock import START, FakeClock
from support.server import Answer, Script, Seen, Server, issues, serving
from support.targets import CLIENT, PROVIDER, target

REFUSING: Script = lambda _: Answer(401, {"error": "invalid_client"})  # noqa: E731


def at(server: Server | str, *, provider: Mapping[str, Any] | None = None, **client: Any) -> Target:
    """A target whose provider is this server, or at this URL."""
    url = server if isinstance(server, str) else server.url
    there = replace(PROVIDER, token_url=url, timeout=20.0, **(provider or {}))
    return target(client=replace(CLIENT, provider=there, **client))


def perform(wanted: Target, environ: Mapping[str, str], clock: FakeClock | None = None) -> tuple[Outcome, str]:
    return Grants(clock or FakeClock(), environ).perform(wanted)


def test_a_grant_is_a_token_and_the_client_id_it_was_for() -> None:
    with serving(issues()) as server:
        outcome, client_id = perform(at(server), {"DNB_SECRET": "s3cret"})

    assert isinstance(outcome, Issued)
    assert (outcome.token.access_token, client_id) == ("t-1", "7e0c5a")
    assert server.seen[0].headers["authorization"] == "Basic N2UwYzVhOnMzY3JldA=="
    assert server.seen[0].body == b"grant_type=client_credentials&scope=bci"


@pytest.mark.parametrize(
    ("client", "missing"),
    [
        pytest.param({}, "DNB_SECRET", id="secret"),
        pytest.param({"client_id": Reference("env", "DNB_ID")}, "DNB_ID", id="client-id"),
    ],
)
def test_without_its_credentials_nothing_is_sent(client: dict[str, Any], missing: str) -> None:
    environ = {"DNB_SECRET": "s3cret", "DNB_ID": "7e0c5a"}
    del environ[missing]
    with serving(issues()) as server:
        outcome, client_id = perform(at(server, **client), environ)

    assert outcome == Unsent(f"env {missing}: the variable is not set", phase="secret")
    assert client_id == ""
    assert server.seen == []


def test_a_ca_file_that_is_missing_is_ours_to_mend_and_nothing_is_sent() -> None:
    with serving(issues()) as server:
        outcome, client_id = perform(at(server, provider={"ca_file": "/nowhere/ca.pem"}), {"DNB_SECRET": "s"})

    assert outcome == Unsent("ca_file /nowhere/ca.pem: No such file or directory", phase="set-up")
    assert client_id == "7e0c5a"
    assert server.seen == []


def test_no_reply_is_transient_in_its_phase() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        wanted = at(f"http://127.0.0.1:{taken.getsockname()[1]}/token")
        outcome, client_id = perform(wanted, {"DNB_SECRET": "s3cret"})

    assert outcome == Transient("127.0.0.1: connection refused (in the connect)", phase="connect")
    assert client_id == "7e0c5a"


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
    environ = SlowEnvironment(clock, {"DNB_SECRET": "s3cret"})

    def slowly(seen: Seen) -> Answer:
        clock.advance(60.0)
        return script(seen)

    script = issues()
    with serving(slowly) as server:
        outcome, _ = perform(at(server), environ, clock)

    assert isinstance(outcome, Issued)
    assert environ.lookups > 0
    # After the secret was fetched, and before the provider took its minute.
    assert outcome.token.obtained == Instant(START.wall + environ.lookups, START.boot + environ.lookups)


def test_a_secret_is_read_anew_for_each_grant() -> None:
    environ = {"DNB_SECRET": "old"}
    with serving(issues()) as server:
        grants, wanted = Grants(FakeClock(), environ), at(server, auth="client_secret_post")
        grants.perform(wanted)
        environ["DNB_SECRET"] = "new"
        grants.perform(wanted)

    assert [seen.body.rpartition(b"=")[2] for seen in server.seen] == [b"old", b"new"]


def test_a_secret_that_is_echoed_as_the_error_code_is_not_named() -> None:
    with serving(lambda _: Answer(400, {"error": "horse_staple"})) as server:
        outcome, _ = perform(at(server), {"DNB_SECRET": "horse_staple"})

    assert outcome == Refused("HTTP 400: this token was refused", whole_client=False)


@pytest.mark.parametrize("secret", ["a+b", "a%b", "a b"], ids=["plus", "percent", "space"])
@pytest.mark.parametrize(
    ("encoding", "others"), [("compatible", "raw or rfc6749"), ("rfc6749", "compatible"), ("raw", "compatible")]
)
def test_a_refusal_of_a_secret_that_is_read_in_two_ways_names_the_setting(
    secret: str, encoding: str, others: str
) -> None:
    with serving(REFUSING) as server:
        outcome, _ = perform(at(server, basic_encoding=encoding), {"DNB_SECRET": secret})

    assert outcome == Refused(
        "HTTP 401 invalid_client: the client was refused",
        hint=f"the secret holds %, + or a space, which providers read in two ways: try basic_encoding: {others}",
    )
    # Failures lock accounts: it is for the operator to try the other way.
    assert len(server.seen) == 1


@pytest.mark.parametrize(
    ("secret", "auth", "error"),
    [
        pytest.param("plain/=", "client_secret_basic", "invalid_client", id="all-read-it-alike"),
        pytest.param("a+b", "client_secret_post", "invalid_client", id="a-form-is-always-decoded"),
        pytest.param("a+b", "client_secret_basic", "invalid_scope", id="the-client-was-known"),
    ],
)
def test_other_refusals_do_not_blame_the_encoding(secret: str, auth: str, error: str) -> None:
    with serving(lambda _: Answer(400, {"error": error})) as server:
        outcome, _ = perform(at(server, auth=auth), {"DNB_SECRET": secret})

    assert isinstance(outcome, Refused)
    assert "basic_encoding" not in str(outcome)


def test_close_idle_reaches_the_endpoints_of_all_providers(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(issues()) as one, serving(issues()) as two:
        grants = Grants(FakeClock(), {"DNB_SECRET": "s3cret"})
        for server in (one, two):
            grants.perform(at(server))
        endpoints = list(grants._endpoints.values())
        assert len(endpoints) == 2
        assert all(endpoint._adapter is not None for endpoint in endpoints)

        monkeypatch.setattr("bearerd.grant.endpoint.IDLE_CLOSE", 0.0)
        grants.close_idle()

        assert all(endpoint._adapter is None for endpoint in endpoints)


def test_the_targets_of_a_provider_share_its_endpoint() -> None:
    with serving(issues()) as server:
        grants, first = Grants(FakeClock(), {"DNB_SECRET": "s3cret"}), at(server)
        grants.perform(first)
        grants.perform(replace(first, name="risk", scope="risk"))

        assert len(grants._endpoints) == 1
        assert len(server.seen) == 2
