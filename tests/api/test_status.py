"""What the status shows: times of held tokens, providers at one host, and the fields that docs/monitoring.md lists."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from math import inf
from pathlib import Path
from types import NoneType
from typing import Any, Literal

import pytest

from bearerd.admission.types import ClientView, ProviderView, Reason, Refusal, View
from bearerd.api.status import held_times, summary, text, unready
from bearerd.grant.outcome import Refused
from bearerd.service.offline import offline
from bearerd.target_status import TargetStatus
from support.clock import START
from support.prometheus import eventful, share, status, target_status
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


def test_a_share_that_is_down_is_named_and_the_daemon_stays_ready() -> None:
    shown = status(
        target_status(), shares=(share("down", error="connection refused"), share(name="redis://other:6379/0"))
    )
    assert summary(shown) == (
        "1 of 1 tokens are valid; the next to expire is dnb/bci, at 2027-01-15T08:40:00Z; "
        "share rediss://redis.internal:6379/0 is down"
    )
    assert list(unready(shown)) == []


def test_a_token_that_is_not_ready_names_each_cause_once() -> None:
    full = "no space left; free some"
    (shown,) = unready(status(target_status(on_disk=False, faults=(f"/a: {full}", f"/b: {full}"))))
    assert shown == ("dnb/bci", f"unwritten: /a, /b: {full}")


# -- the reference of its fields ------------------------------------------------------------------------

PAGE = Path(__file__).parents[2] / "docs/monitoring.md"
JSON_TYPES: dict[str, tuple[type, ...]] = {
    "text": (str,),
    "time": (str,),
    "number": (int, float),
    "boolean": (bool,),
    "list": (list,),
    "object": (dict,),
    "null": (NoneType,),
}


def described(heading: str) -> dict[str, str]:
    """The fields below a heading of the page, with their types."""
    section = PAGE.read_text(encoding="utf-8").split(f"\n### {heading}\n")[1].split("\n#")[0]
    return dict(re.findall(r"^\| `([a-z_.]+)` \| ([a-z ]+) \|", section, re.MULTILINE))


def fields(part: dict[str, Any], *opened: str) -> dict[str, Any]:
    """The fields of a part of the document; those of `opened` objects as `object.field`."""
    inner = {f"{name}.{field}": value for name in opened for field, value in part[name].items()}
    return {name: value for name, value in part.items() if name not in opened} | inner


def parts(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each part of the document, with its heading on the page."""
    yield "The daemon", fields(document, "config")
    for token in document["tokens"]:
        yield "Each token", fields(token, "hooks")
    for trouble in (*document["troubles"], *(token["trouble"] for token in document["tokens"])):
        if trouble:
            yield "A trouble", trouble
    for client in document["clients"].values():
        yield "Each client", client
    for provider in document["providers"].values():
        yield "Each provider", provider
    for each in document["shares"]:
        yield "Each share", each


def documents(tmp_path: Path) -> Iterator[dict[str, Any]]:
    """The status of a daemon in which something of everything happened, of a well one, and from a bad record."""
    full = replace(eventful(), config_error="config.yaml:1:1: unknown key")
    for shown in (full, status(target_status())):
        yield json.loads("".join(text(shown)))
    record = tmp_path / ".bearerd/records/dnb/bci.json"
    record.parent.mkdir(parents=True)
    record.write_text("{}")
    yield offline(str(tmp_path), START).document


def test_the_page_describes_each_field_with_its_type(tmp_path: Path) -> None:
    seen = set()
    for document in documents(tmp_path):
        for heading, part in parts(document):
            seen.add(heading)
            types = described(heading)
            assert set(part) == set(types), heading
            for name, value in part.items():
                allowed = [kind for word in types[name].split(" or ") for kind in JSON_TYPES[word]]
                assert type(value) in allowed, f"{heading}: {name} is {value!r}, and not {types[name]}"
                if isinstance(value, str) and types[name].startswith("time"):
                    assert datetime.fromisoformat(value).tzinfo == UTC, name
    assert seen == {"The daemon", "Each token", "A trouble", "Each client", "Each provider", "Each share"}
