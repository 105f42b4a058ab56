"""The names of entries: equal for daemons that share, different for all others."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bearerd.model import Target
from bearerd.share.names import names_of
from bearerd.share.types import Names
from bearerd.terms import RateLimit, Reference, Share
from support.fleet import SHARE
from support.targets import CLIENT, PROVIDER, TARGET

LIMIT = RateLimit(10, 3600.0)


def test_names_do_not_depend_on_what_differs_between_machines() -> None:
    client = replace(
        CLIENT,
        name="other",
        client_secret=(Reference("file", "/etc/secret"),),
        provider=replace(PROVIDER, name="other", timeout=3.0),
        share=Share(SHARE.redis, key=Reference("file", "/etc/key")),
    )
    other = replace(TARGET, client=client, name="other", publish_delay=5.0, max_age=60.0, default_lifetime=60.0)
    assert names_of(other, "7e0c5a") == names_of(TARGET, "7e0c5a")


@pytest.mark.parametrize(
    "other",
    [
        replace(TARGET, scope="other"),
        replace(TARGET, parameters=(("audience", "a"),)),
        replace(TARGET, strict_scope=True),
        replace(TARGET, client=replace(CLIENT, auth="client_secret_post")),
    ],
    ids=["scope", "parameters", "strict_scope", "auth"],
)
def test_another_request_has_another_token_and_the_same_client(other: Target) -> None:
    ours, theirs = names_of(TARGET, "7e0c5a"), names_of(other, "7e0c5a")
    assert ours.token != theirs.token
    assert ours.client == theirs.client


def test_another_client_or_provider_shares_nothing() -> None:
    elsewhere = replace(TARGET, client=replace(CLIENT, provider=replace(PROVIDER, token_url="https://else/token")))
    names = [names_of(TARGET, "7e0c5a"), names_of(TARGET, "other"), names_of(elsewhere, "7e0c5a")]
    assert len({name for each in names for name in (each.token, each.client)}) == 6


def test_names_reveal_nothing() -> None:
    names = names_of(TARGET, "7e0c5a")
    assert all(len(name) == 32 and int(name, 16) >= 0 for name in (names.token, names.client))


def test_names_are_the_same_in_each_version() -> None:
    """Otherwise a fleet would split in two while it is upgraded."""
    limits = ((f"provider-{PROVIDER.name}", LIMIT), (f"client-{CLIENT.name}", LIMIT))
    shared = replace(TARGET, client=replace(CLIENT, rate_limits=limits))
    assert names_of(shared, "7e0c5a") == Names(
        token="6ab81869fd7951741e0d98217829f90c",
        client="636a816a9bbaeed81564d8c2a7f237ae",
        refused_limit=PROVIDER.refused_limit,
        rates=(("8a5cc773e5813ecb49e4702f4db0ff8d", LIMIT), ("1973787e538d8f5c94a2ab8fb627cc0a", LIMIT)),
    )
    strict = names_of(replace(shared, strict_scope=True), "7e0c5a")
    assert strict.token == "ae6700f572ecf5331baf978923a3ccdc"


def test_a_rate_limit_of_the_client_is_counted_by_its_client_id_and_one_of_the_provider_by_its_url() -> None:
    def rates(client_id: str, name: str) -> list[str]:
        limits = ((f"provider-{name}", LIMIT), (f"client-{name}", LIMIT))
        return [rate for rate, _ in names_of(
            replace(TARGET, client=replace(CLIENT, name=name, rate_limits=limits)), client_id
        ).rates]  # fmt: skip

    assert rates("7e0c5a", "here") == rates("7e0c5a", "there")
    of_provider, of_client = zip(rates("7e0c5a", "here"), rates("other", "here"), strict=True)
    assert of_provider[0] == of_provider[1]
    assert of_client[0] != of_client[1]
