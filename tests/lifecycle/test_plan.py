from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from bearerd.lifecycle.plan import Plan, needs_restart, plan
from bearerd.model import Config, Control, Listen, Output, RefreshBefore, Target
from bearerd.terms import Reference
from support.targets import CLIENT, PROVIDER, target

RAW = Output("/run/bearerd/dnb/bci")
BCI = target("bci", outputs=(RAW,))
RISK = target("risk", outputs=(Output("/run/bearerd/dnb/risk"),))


def config(*targets: Target, **changes: Any) -> Config:
    return replace(Config("/run/bearerd", "/run/bearerd/.bearerd", targets=targets), **changes)


def test_an_unchanged_config_requires_nothing() -> None:
    assert plan(config(BCI, RISK), config(RISK, BCI)) == Plan()


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param(replace(BCI, refresh_before=RefreshBefore(seconds=60)), id="schedule"),
        pytest.param(replace(BCI, outputs=(replace(RAW, mode=0o600),)), id="mode"),
        pytest.param(replace(BCI, strict_scope=True), id="strict_scope"),
        pytest.param(replace(BCI, on_expiry="remove"), id="on_expiry"),
    ],
)
def test_changes_that_do_not_affect_the_token_need_no_request(changed: Target) -> None:
    assert plan(config(BCI), config(changed)) == Plan(change=(changed,))


@pytest.mark.parametrize(
    "client",
    [
        pytest.param(replace(CLIENT, client_secret=(Reference("file", "/new"),)), id="secret"),
        pytest.param(replace(CLIENT, basic_encoding="raw"), id="basic_encoding"),
        pytest.param(replace(CLIENT, provider=replace(PROVIDER, timeout=3.0)), id="way-to-the-provider"),
    ],
)
def test_a_client_with_changed_authentication_keeps_its_tokens(client: Any) -> None:
    changed = replace(BCI, client=client)
    assert plan(config(BCI), config(changed)) == Plan(change=(changed,), changed_clients=frozenset({"dnb"}))


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param(replace(BCI, scope="bci risk"), id="scope"),
        pytest.param(replace(BCI, parameters=(("audience", "https://a"),)), id="parameters"),
    ],
)
def test_another_token_needs_a_new_grant(changed: Target) -> None:
    assert plan(config(BCI), config(changed)) == Plan(renew=(changed,))


@pytest.mark.parametrize(
    "client",
    [
        pytest.param(replace(CLIENT, client_id="another"), id="client_id"),
        pytest.param(replace(CLIENT, provider=replace(PROVIDER, token_url="https://b.example.com/t")), id="token_url"),
        pytest.param(replace(CLIENT, auth="client_secret_post"), id="auth"),
    ],
)
def test_a_token_of_another_client_needs_a_new_grant(client: Any) -> None:
    changed = replace(BCI, client=client)
    assert plan(config(BCI), config(changed)) == Plan(renew=(changed,), changed_clients=frozenset({"dnb"}))


def test_added_and_removed_tokens_take_their_files_along() -> None:
    assert plan(config(BCI), config(RISK)) == Plan(start=(RISK,), stop=(BCI,), gone={"dnb/bci": (RAW,)})


def test_a_moved_file_is_removed_from_its_old_path() -> None:
    moved = replace(BCI, outputs=(replace(RAW, path="/run/bearerd/elsewhere"),))
    assert plan(config(BCI), config(moved)) == Plan(change=(moved,), gone={"dnb/bci": (RAW,)})


def test_a_path_taken_over_by_another_token_is_not_removed() -> None:
    heir = replace(RISK, outputs=(RAW,))
    assert plan(config(BCI, RISK), config(heir)) == Plan(change=(heir,), stop=(BCI,), gone={"dnb/risk": RISK.outputs})


@pytest.mark.parametrize(
    ("changes", "keys"),
    [
        pytest.param({}, [], id="nothing"),
        pytest.param({"directory_mode": 0o700, "group": "x"}, [], id="what-can-be-followed"),
        pytest.param({"directory": "/elsewhere"}, ["output.directory"], id="directory"),
        pytest.param({"state_directory": "/elsewhere"}, ["state_directory"], id="state"),
        pytest.param({"control": Control("/elsewhere")}, ["control"], id="control"),
        pytest.param({"listen": Listen("127.0.0.1", 9810)}, ["listen"], id="listen"),
        pytest.param(
            {"directory": "/elsewhere", "state_directory": "/elsewhere/.bearerd"}, ["output.directory"], id="the cause"
        ),
    ],
)
def test_keys_that_need_a_restart(changes: dict[str, Any], keys: list[str]) -> None:
    assert needs_restart(config(BCI), config(BCI, **changes)) == keys


@pytest.mark.parametrize(
    ("said", "of"),
    [
        ("no token changed", Plan()),
        ("1 token added, 2 changed, 1 to be requested again, 1 removed", Plan((BCI,), (BCI, RISK), (RISK,), (BCI,))),
    ],
)
def test_a_plan_is_described_in_one_line(said: str, of: Plan) -> None:
    assert str(of) == said
