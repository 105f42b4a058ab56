"""What the status shows: the time of a token that its refused client holds, and providers at one host."""

from __future__ import annotations

from dataclasses import replace
from math import inf
from typing import Literal

import pytest

from bearerd.admission.types import ClientView, ProviderView, Reason, Refusal, View
from bearerd.api.status import held_times
from bearerd.grant.outcome import Refused
from bearerd.target_status import TargetStatus
from support.clock import START
from support.prometheus import status, target_status
from support.targets import TARGET, target

NOW = START.boot
PROBE = NOW + 60
OPEN = View({TARGET.client.name: ClientView("open", Refusal(Refused("no"), 2, PROBE, own=False), 1, 3)}, {})
CLOSED = View({TARGET.client.name: ClientView("closed", None, 0, 0)}, {})
HELD = target_status(held_by="refused", held_until=NOW - 2, next_refresh=NOW - 2)


def test_a_token_whose_own_time_has_passed_waits_for_the_next_probe_of_its_client() -> None:
    assert held_times(HELD, OPEN, NOW) == replace(HELD, held_until=PROBE, next_refresh=PROBE)


def test_the_last_attempt_before_the_expiry_is_still_shown() -> None:
    held = replace(HELD, next_refresh=NOW + 20)
    assert held_times(held, OPEN, NOW) == replace(held, held_until=PROBE)


@pytest.mark.parametrize("reason", ["refused", "rate_limit"])
def test_an_unplanned_attempt_is_at_the_end_of_the_hold(reason: Literal["refused", "rate_limit"]) -> None:
    held = replace(HELD, held_by=reason, held_until=PROBE, next_refresh=inf)
    assert held_times(held, OPEN, NOW) == replace(held, next_refresh=PROBE)


@pytest.mark.parametrize(
    ("held", "view"),
    [
        pytest.param(replace(HELD, held_by="rate_limit"), OPEN, id="held by something else"),
        pytest.param(replace(HELD, held_by="", held_until=0.0), OPEN, id="not held"),
        pytest.param(HELD, CLOSED, id="its own refusal"),
        pytest.param(replace(HELD, held_until=PROBE + 30, next_refresh=PROBE + 30), OPEN, id="its own later time"),
        pytest.param(replace(HELD, held_until=inf), OPEN, id="until an event"),
        pytest.param(HELD, View({}, {}), id="a client that was removed"),
    ],
)
def test_other_times_stay(held: TargetStatus, view: View) -> None:
    assert held_times(held, view, NOW) == held


def test_endpoints_at_one_host_are_shown_together() -> None:
    client = TARGET.client
    production = replace(client.provider, token_url="https://login.example.com/production")
    other = target_status(target=target("other", replace(client, name="other", provider=production)))
    views = {
        client.provider.url: ProviderView(1, 8, 10.0, {"refused": 3}, 12.0),
        production.url: ProviderView(2, 8, 0.5, {"refused": 1, "rate_limit": 2}, 3.0),
    }
    shown = status(target_status(), other, admission=View({}, views)).providers()
    held: dict[Reason, int] = {"refused": 4, "rate_limit": 2}
    assert shown == {client.provider.name: ProviderView(3, 16, 0.5, held, 12.0)}
