"""Discovery against a real server: which requests are sent, and how often."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from typing import Any

import pytest

from bearerd.grant.discovery import Discovery
from bearerd.grant.endpoint import Endpoint, NoReply
from bearerd.grant.metadata import Metadata
from bearerd.grant.outcome import Malformed, RateLimited, Transient, Unsent
from bearerd.grant.reply import Reply
from bearerd.grant.request import get
from bearerd.model import Provider
from support.process import WITHIN
from support.server import Answer, Script, Seen, Server, serving

DAY = 86400.0
NOW = 5000.0
WALL = 1_800_000_000.0
RFC8414 = "/.well-known/oauth-authorization-server/realms/acme"
OPENID = "/realms/acme/.well-known/openid-configuration"

RIGHT = "check issuer, or set token_url instead"
EXACTLY = "write issuer exactly as the provider's own metadata does, or set token_url instead"
NOT_FOUND = Answer(404, b"")
LOGIN_PAGE = Answer(200, b"<html>Log in</html>")
BUSY = Answer(503, b"")
LIMITED = Answer(429, b"", {"Retry-After": formatdate(WALL + 600, usegmt=True)})
OTHERS = Answer(200, {"issuer": "https://evil.example", "token_endpoint": "https://evil.example/token"})


def issuer_of(server: Server) -> str:
    return server.url.replace("/token", "/realms/acme")


def document(seen: Seen, endpoint: str = "token") -> Answer:
    """What the issuer that was asked says of itself."""
    issuer = f"http://{seen.headers['host']}/realms/acme"
    return Answer(200, {"issuer": issuer, "token_endpoint": f"{issuer}/{endpoint}"})


def found(server: Server, endpoint: str = "token") -> Metadata:
    url = f"{issuer_of(server)}/{endpoint}"
    return Metadata(url, url)


def by_path(answers: dict[str, Answer]) -> Script:
    """The given replies at some URLs, and the metadata at the others."""
    return lambda seen: answers.get(seen.path) or document(seen)


@contextmanager
def discovering(issuer: str, **changes: Any) -> Iterator[Discovery]:
    provider = Provider(name="sso", issuer=issuer, timeout=WITHIN, **changes)
    endpoint = Endpoint(provider)
    try:
        yield Discovery(provider, lambda url: endpoint.send(get(url)), lambda: WALL)
    finally:
        endpoint.close()


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG, "bearerd")
    return caplog


# -- the two URLs --------------------------------------------------------------------------------------


def test_the_url_of_rfc_8414_comes_first() -> None:
    with serving(document) as server, discovering(issuer_of(server)) as discovery:
        assert discovery.metadata(NOW) == found(server)

    assert [(seen.method, seen.path) for seen in server.seen] == [("GET", RFC8414)]


@pytest.mark.parametrize("first", [NOT_FOUND, LOGIN_PAGE, BUSY, OTHERS], ids=["404", "HTML", "503", "another-issuer"])
def test_the_url_of_openid_is_tried_if_the_first_has_no_metadata(first: Answer) -> None:
    with serving(by_path({RFC8414: first})) as server, discovering(issuer_of(server)) as discovery:
        assert discovery.metadata(NOW) == found(server)

    assert [seen.path for seen in server.seen] == [RFC8414, OPENID]


NO_METADATA = Malformed("metadata: HTTP 404", "discovery", RIGHT)
NO_JSON = Malformed("metadata: HTTP 200, but the reply is HTML, not JSON", "discovery", RIGHT)
NOT_WELL = Transient("metadata: HTTP 503: a temporary error at the provider", "discovery")
ANOTHER = Malformed("the metadata names another issuer", "discovery", EXACTLY)


@pytest.mark.parametrize(
    ("first", "second", "outcome"),
    [
        pytest.param(NOT_FOUND, NOT_FOUND, NO_METADATA, id="neither-place"),
        pytest.param(NOT_FOUND, LOGIN_PAGE, NO_JSON, id="the-second-says-more-than-404"),
        pytest.param(LOGIN_PAGE, NOT_FOUND, NO_JSON, id="the-first-says-more-than-404"),
        pytest.param(OTHERS, NOT_FOUND, ANOTHER, id="another-issuer-says-more-than-404"),
        pytest.param(NOT_FOUND, OTHERS, ANOTHER, id="another-issuer-at-the-second"),
        # That passes, and so does not count as a mistake of the config.
        pytest.param(BUSY, NOT_FOUND, NOT_WELL, id="not-well-at-the-first"),
        pytest.param(NOT_FOUND, BUSY, NOT_WELL, id="not-well-at-the-second"),
        pytest.param(BUSY, LOGIN_PAGE, NOT_WELL, id="not-well-and-html"),
        pytest.param(LOGIN_PAGE, BUSY, NOT_WELL, id="html-and-not-well"),
    ],
)
def test_of_two_failures_the_more_helpful_one_is_reported(
    first: Answer, second: Answer, outcome: Malformed | Transient
) -> None:
    with serving(by_path({RFC8414: first, OPENID: second})) as server, discovering(issuer_of(server)) as discovery:
        assert discovery.metadata(NOW) == outcome


def test_without_a_connection_the_second_url_is_not_tried() -> None:
    asked: list[str] = []
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        provider = Provider(name="sso", issuer=f"http://127.0.0.1:{taken.getsockname()[1]}", timeout=WITHIN)
        endpoint = Endpoint(provider)

        def fetch(url: str) -> Reply | NoReply:
            asked.append(url)
            return endpoint.send(get(url))

        outcome = Discovery(provider, fetch, lambda: WALL).metadata(NOW)

    assert isinstance(outcome, Transient)
    host = str(provider.issuer).removeprefix("http://")
    assert (outcome.message, outcome.phase) == (f"metadata: {host}: connection refused (while connecting)", "connect")
    assert len(asked) == 1


def test_a_hint_of_the_connection_is_passed_on() -> None:
    with serving(document) as server, discovering(issuer_of(server).replace("http:", "https:")) as discovery:
        outcome = discovery.metadata(NOW)

    assert isinstance(outcome, Transient)
    assert (outcome.phase, outcome.hint) == ("TLS", "check that this port speaks TLS")


def test_a_refused_login_to_the_proxy_is_not_tried_at_the_second_url_nor_again_soon() -> None:
    asked: list[str] = []

    def refused(url: str) -> NoReply:
        asked.append(url)
        return NoReply("proxy login", "the proxy refused the connection", "check username and password")

    provider = Provider(name="sso", issuer="https://sso.example.com")
    outcome = Discovery(provider, refused, lambda: WALL).metadata(NOW)
    assert len(asked) == 1
    assert outcome == Malformed(
        "metadata: the proxy refused the connection", "proxy login", "check username and password"
    )


def test_a_local_fault_is_not_the_providers() -> None:
    issuer = "https://127.0.0.1:1"  # nothing is sent
    with discovering(issuer, ca_file="/nowhere/ca.pem") as discovery:
        outcome = discovery.metadata(NOW)

    assert outcome == Unsent("ca_file /nowhere/ca.pem: no such file or directory", phase="set-up")


# -- how long it holds ---------------------------------------------------------------------------------


class Moving:
    """An issuer whose token endpoint the test can move, and whose metadata it can remove."""

    def __init__(self) -> None:
        self.endpoint = "first"
        self.answer: Answer | None = None

    def __call__(self, seen: Seen) -> Answer:
        return self.answer or document(seen, self.endpoint)


def test_metadata_is_used_for_a_day_and_then_requested_again() -> None:
    script = Moving()
    with serving(script) as server, discovering(issuer_of(server)) as discovery:
        discovery.metadata(NOW)
        script.endpoint = "second"

        assert discovery.metadata(NOW + DAY - 1) == found(server, "first")
        assert len(server.seen) == 1
        assert discovery.metadata(NOW + DAY) == found(server, "second")
        # From there it is a day again.
        assert discovery.metadata(NOW + 2 * DAY - 1) == found(server, "second")
        assert len(server.seen) == 2


def test_the_last_good_metadata_stays_in_use_if_a_new_request_fails(log: pytest.LogCaptureFixture) -> None:
    script = Moving()
    with serving(script) as server, discovering(issuer_of(server)) as discovery:
        discovery.metadata(NOW)
        script.endpoint, script.answer = "second", BUSY

        assert discovery.metadata(NOW + DAY) == found(server, "first")
        asked = len(server.seen)
        # Not at each grant of the meantime.
        assert discovery.metadata(NOW + DAY + 299) == found(server, "first")
        assert len(server.seen) == asked

        script.answer = None
        assert discovery.metadata(NOW + DAY + 300) == found(server, "second")
        issuer = issuer_of(server)

    assert [(record.levelname, record.getMessage()) for record in log.records] == [
        (
            "WARNING",
            f"metadata: HTTP 503: a temporary error at the provider; the earlier metadata of {issuer} stays in use",
        )
    ]


def test_doubted_metadata_is_requested_at_the_next_grant() -> None:
    script = Moving()
    with serving(script) as server, discovering(issuer_of(server)) as discovery:
        discovery.metadata(NOW)
        script.endpoint = "second"
        discovery.doubt()

        assert len(server.seen) == 1
        assert discovery.metadata(NOW + 1) == found(server, "second")
        assert discovery.metadata(NOW + 2) == found(server, "second")
        assert len(server.seen) == 2


def test_doubted_metadata_stays_in_use_if_a_new_request_fails() -> None:
    script = Moving()
    with serving(script) as server, discovering(issuer_of(server)) as discovery:
        discovery.metadata(NOW)
        script.answer = NOT_FOUND
        discovery.doubt()

        assert discovery.metadata(NOW + 1) == found(server, "first")
        asked = len(server.seen)
        assert discovery.metadata(NOW + 300) == found(server, "first")
        assert len(server.seen) == asked


def test_a_failure_at_the_start_is_tried_again_by_the_next_grant(log: pytest.LogCaptureFixture) -> None:
    script = Moving()
    script.answer = BUSY
    with serving(script) as server, discovering(issuer_of(server)) as discovery:
        assert discovery.metadata(NOW) == NOT_WELL
        # A doubt changes nothing about that.
        discovery.doubt()
        assert discovery.metadata(NOW + 2) == NOT_WELL

        script.answer = None
        assert discovery.metadata(NOW + 4) == found(server, "first")

    # The outcome says so: there is no earlier metadata.
    assert log.records == []


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("answer", [NOT_FOUND, BUSY, LIMITED], ids=["404", "503", "429"])
def test_a_failure_is_that_of_all_grants_of_two_seconds(answer: Answer, *, known: bool) -> None:
    script = Moving()
    with serving(script) as server, discovering(issuer_of(server)) as discovery:
        if known:
            discovery.metadata(NOW - 1)
            discovery.doubt()
        script.answer = answer
        outcome, asked = discovery.metadata(NOW), len(server.seen)

        assert isinstance(outcome, Metadata) == known
        for _ in range(50):
            discovery.doubt()
            assert discovery.metadata(NOW + 1.9) == outcome
        assert len(server.seen) == asked

        script.answer = None
        assert discovery.metadata(NOW + 2) == found(server, "first")
        assert len(server.seen) == asked + 1


def test_a_fault_of_this_machine_is_over_as_soon_as_it_is_mended() -> None:
    provider = Provider(name="sso", issuer="https://sso.example.com")
    missing = [NoReply("secret", "env KEY: not set"), NoReply("wait", "sent")]
    discovery = Discovery(provider, lambda _: missing.pop(0), lambda: WALL)

    assert isinstance(discovery.metadata(NOW), Unsent)
    assert isinstance(discovery.metadata(NOW), Transient)


def test_a_limit_is_that_of_both_urls() -> None:
    with serving(by_path({RFC8414: LIMITED})) as server, discovering(issuer_of(server)) as discovery:
        outcome = discovery.metadata(NOW)

    assert outcome == RateLimited("metadata: HTTP 429: too many requests", "discovery", retry_after=600.0)
    assert [seen.path for seen in server.seen] == [RFC8414]


# -- hosts ---------------------------------------------------------------------------------------------


class Hosts:
    """Metadata with token endpoints on given hosts."""

    def __init__(self, endpoint: str, alias: str | None = None) -> None:
        self.endpoint, self.alias = endpoint, alias

    def __call__(self, seen: Seen) -> Answer:
        issuer = f"http://{seen.headers['host']}/realms/acme"
        aliases = {"mtls_endpoint_aliases": {"token_endpoint": self.alias}} if self.alias else {}
        return Answer(200, {"issuer": issuer, "token_endpoint": self.endpoint} | aliases)


def logged(log: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """What was said since the last time."""
    lines = [(record.levelname, record.getMessage()) for record in log.records]
    log.clear()
    return lines


def test_a_token_endpoint_on_another_host_is_logged_once_and_at_each_move(log: pytest.LogCaptureFixture) -> None:
    script = Hosts("https://login.example/secret-path/token")
    with serving(script) as server, discovering(issuer_of(server)) as discovery:
        discovery.metadata(NOW)
        assert logged(log) == [
            ("INFO", "provider sso: its token endpoint is on login.example, not on the issuer's host 127.0.0.1")
        ]

        # Another path, the same host.
        script.endpoint = "https://login.example:8443/token"
        discovery.metadata(NOW + DAY)
        assert logged(log) == []

        script.endpoint = "https://evil.example/token"
        discovery.metadata(NOW + 2 * DAY)
        discovery.metadata(NOW + 3 * DAY)
        assert logged(log) == [
            (
                "WARNING",
                (
                    "provider sso: its metadata moved the token endpoint from login.example to evil.example: "
                    "ask the provider if you did not expect it"
                ),
            )
        ]


def test_an_alias_for_certificates_on_another_host_is_logged(log: pytest.LogCaptureFixture) -> None:
    script = Hosts("https://127.0.0.1/token", "https://mtls.example/token")
    with serving(script) as server, discovering(issuer_of(server)) as discovery:
        discovery.metadata(NOW)
        assert logged(log) == [
            (
                "INFO",
                (
                    "provider sso: its token endpoint for certificates is on mtls.example, "
                    "not on the issuer's host 127.0.0.1"
                ),
            )
        ]

        script.alias = "https://mtls2.example/token"
        discovery.metadata(NOW + DAY)
        assert [line[0] for line in logged(log)] == ["WARNING"]


def test_token_endpoints_on_the_issuers_host_are_not_logged(log: pytest.LogCaptureFixture) -> None:
    script = Hosts("https://127.0.0.1:8443/token", "https://127.0.0.1:9443/token")
    with serving(script) as server, discovering(issuer_of(server)) as discovery:
        discovery.metadata(NOW)
        discovery.metadata(NOW + DAY)

    assert logged(log) == []


def test_metadata_beyond_the_bounds_is_malformed_and_the_second_url_is_tried() -> None:
    flooded = Answer(200, b"", {"X-Much": "x" * 70_000})
    hint = "not the reply of a token endpoint; check that the URL matches the provider's settings"
    with serving(by_path({RFC8414: flooded, OPENID: flooded})) as server, discovering(issuer_of(server)) as discovery:
        assert discovery.metadata(NOW) == Malformed(
            f"metadata: 127.0.0.1:{server.port}: the reply has more than 64 KiB of headers", "discovery", hint
        )
        assert [seen.path for seen in server.seen] == [RFC8414, OPENID]
    with serving(by_path({RFC8414: flooded})) as server, discovering(issuer_of(server)) as discovery:
        assert discovery.metadata(NOW) == found(server)


# -- several grants at once ----------------------------------------------------------------------------


def asking_together(discovery: Discovery, here: threading.Semaphore) -> list[object]:
    """The results of eight grants that ask at the same time; each is recorded just before it does."""
    logged: list[object] = []

    def ask() -> None:
        here.release()
        logged.append(discovery.metadata(NOW))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WITHIN)
    return logged


def once_all_are_here(here: threading.Semaphore, script: Script) -> Script:
    """A script that holds its first reply back until all eight have asked."""
    first = threading.Lock()

    def waiting(seen: Seen) -> Answer:
        if first.acquire(blocking=False):
            for _ in range(8):
                assert here.acquire(timeout=WITHIN)
        return script(seen)

    return waiting


def test_one_of_eight_grants_requests_the_metadata_and_the_others_wait() -> None:
    here = threading.Semaphore(0)
    with serving(once_all_are_here(here, document)) as server, discovering(issuer_of(server)) as discovery:
        logged = asking_together(discovery, here)

        assert logged == [found(server)] * 8
    assert len(server.seen) == 1


def test_one_of_eight_grants_requests_the_metadata_even_if_that_fails() -> None:
    here = threading.Semaphore(0)
    with (
        serving(once_all_are_here(here, lambda _: BUSY)) as server,
        discovering(issuer_of(server)) as discovery,
    ):
        logged = asking_together(discovery, here)

    assert logged == [NOT_WELL] * 8
    assert [seen.path for seen in server.seen] == [RFC8414, OPENID]
