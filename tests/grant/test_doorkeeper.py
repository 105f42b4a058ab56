"""A real authorization server in Ruby, Debian's ruby-doorkeeper on Rails, judges our ways of authenticating.

It does not decode HTTP Basic at all, so `raw` is right for it. It challenges a refused client by `Bearer`, and names no
scope in its reply if none was requested. If `reuse_access_token` is set, it returns the same token while that is valid.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from urllib.parse import urlencode

import pytest
import urllib3

from bearerd.grant.outcome import Issued, Refused
from bearerd.model import Provider
from bearerd.terms import Auth, BasicEncoding
from support.api import Site
from support.process import WITHIN, eventually, running
from support.servers import SCRIPTS, SECRETS, TAKEN_WITHOUT_DECODING, check_accepted, granted, port_of


@cache
def why_not() -> str | None:
    """Why it cannot run here, or None."""
    if shutil.which("ruby") is None:
        return "there is no ruby"
    probe = 'require "rails"; require "active_record"; require "action_controller/railtie"; require "doorkeeper"; '
    probe += 'require "puma"; require "sqlite3"'
    found = subprocess.run(["ruby", "-e", probe], capture_output=True, check=False)
    return "ruby-doorkeeper, ruby-activerecord, ruby-sqlite3 or puma is missing" if found.returncode else None


pytestmark = pytest.mark.skipif(why_not() is not None, reason=why_not() or "")


@contextmanager
def doorkeeper(lifetime: int = 600, *, reuse: bool = False) -> Iterator[str]:
    options = {"clients": SECRETS, "scopes": ["bci", "risk"], "lifetime": lifetime, "reuse": reuse}
    with port_of(["ruby", SCRIPTS / "doorkeeper.rb"], options) as port:
        yield f"http://127.0.0.1:{port}/oauth/token"


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    with doorkeeper() as url:
        yield Provider("doorkeeper", token_url=url, allow_http=True, timeout=WITHIN)


@pytest.mark.parametrize(("auth", "encoding", "taken"), TAKEN_WITHOUT_DECODING)
@pytest.mark.parametrize("client_id", SECRETS)
def test_it_accepts_the_secrets(
    provider: Provider, client_id: str, auth: Auth, encoding: BasicEncoding, taken: set[str]
) -> None:
    outcome = granted(provider, client_id, SECRETS[client_id], auth, encoding)

    check_accepted(outcome, taken=client_id in taken)


@pytest.mark.parametrize(
    ("asked", "given"),
    [
        pytest.param("bci", "bci", id="one-scope"),
        pytest.param("bci risk", "bci risk", id="two-scopes"),
        pytest.param("", None, id="no-scope"),
    ],
)
def test_its_tokens_are_accepted(provider: Provider, asked: str, given: str | None) -> None:
    outcome = granted(provider, "plain", "plain", scope=asked)

    assert isinstance(outcome, Issued)
    token = outcome.token
    assert (token.token_type, token.scope, token.lifetime) == ("Bearer", given, 600.0)
    assert token.extra_fields().keys() == {"created_at"}
    assert outcome.notes == ()


@pytest.mark.parametrize("auth", ["client_secret_basic", "client_secret_post"])
@pytest.mark.parametrize(
    ("client_id", "secret"),
    [pytest.param("plain", "wrong", id="wrong-secret"), pytest.param("nobody", "plain", id="unknown-client")],
)
def test_wrong_credentials_are_a_refusal_of_the_client(
    provider: Provider, client_id: str, secret: str, auth: Auth
) -> None:
    outcome = granted(provider, client_id, secret, auth)

    assert isinstance(outcome, Refused)
    assert outcome.message == "HTTP 401 invalid_client: the client was refused"
    assert outcome.whole_client
    assert "check that client_id, secret" in str(outcome)


def test_its_refusal_has_a_challenge_for_bearers(provider: Provider) -> None:
    # The refusals above come with a Bearer challenge, although that is for access tokens.
    assert provider.token_url is not None
    fields = {"grant_type": "client_credentials", "scope": "bci"}
    headers = urllib3.make_headers(basic_auth="plain:wrong")
    headers["Content-Type"] = "application/x-www-form-urlencoded"
    with urllib3.PoolManager() as pool:
        answer = pool.urlopen("POST", provider.token_url, body=urlencode(fields), headers=headers, timeout=WITHIN)

    assert (answer.status, answer.json()["error"]) == (401, "invalid_client")
    assert answer.headers["WWW-Authenticate"].startswith('Bearer realm="Doorkeeper", error="invalid_client"')


def test_an_unknown_scope_is_a_refusal_of_this_token_alone(provider: Provider) -> None:
    outcome = granted(provider, "plain", "plain", scope="bci other")

    assert isinstance(outcome, Refused)
    assert outcome.message == "HTTP 400 invalid_scope: the scope was refused"
    assert not outcome.whole_client


@pytest.mark.parametrize("reuse", [False, True], ids=["new-tokens", "the-same-token-until-it-expires"])
def test_the_daemon_gets_and_renews_its_tokens(tmp_path: Path, *, reuse: bool) -> None:
    with doorkeeper(lifetime=3, reuse=reuse) as url:
        site = Site(tmp_path, url)
        site.config.write_text(site.config.read_text().replace("client_id: a\n", "client_id: plain\n"))
        (tmp_path / "secret").write_text("plain")
        file = site.tokens / "dnb/bci"
        with running("run", "-c", site.config) as daemon:
            eventually(file.exists)
            first = file.read_text()
            eventually(lambda: file.read_text() != first)
            assert daemon.stop() == 0
    assert not any(" ERROR " in line for line in daemon.lines)
