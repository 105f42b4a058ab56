"""The content of entries: what is written is read again, and nothing else is taken."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from bearerd.grant.outcome import Failure, Malformed, RateLimited, Refused, Transient, Unsent
from bearerd.publish.record import Record
from bearerd.share.entry import TokenEntry, dump_failure, dump_token, load_failure, load_token
from bearerd.terms import Instant
from support.clock import START
from support.targets import TARGET, token

RECORD = Record(
    token(scope="bci", extra='{"instance_url": "https://a"}'), TARGET.identity(), "7e0c5a", named=False, sliding=True,
    not_before=12.0, fence=7,
)  # fmt: skip
ENTRY = TokenEntry(RECORD, clock=1000.0, next_due=60.0)


def test_a_token_is_read_as_it_was_written_but_for_the_boot_clock_and_the_fence() -> None:
    read = load_token(dump_token(ENTRY))
    assert read is not None
    obtained = Instant(RECORD.token.obtained.wall, 0.0)
    assert read == replace(ENTRY, record=replace(RECORD, token=replace(RECORD.token, obtained=obtained), fence=0))


def test_a_present_token_that_is_still_published_is_not_shared() -> None:
    delayed = replace(RECORD, present=token("old"), publish_after=30.0)
    assert dump_token(replace(ENTRY, record=delayed)) == dump_token(ENTRY)


def test_the_age_of_a_token_is_computed_with_the_clock_of_the_server() -> None:
    record = ENTRY.at(1100.0, START.boot)
    assert record.token.obtained == Instant(RECORD.token.obtained.wall, START.boot - 100.0)


def test_a_token_from_the_future_counts_as_new() -> None:
    assert ENTRY.at(900.0, START.boot).token.obtained.boot == START.boot


@pytest.mark.parametrize(
    "failure",
    [
        Transient("503", "wait", "a hint", 3.0),
        Transient("timed out"),
        RateLimited("429", retry_after=60.0),
        Refused("401 invalid_client", hint="check it", another_secret=True),
        Refused("400 invalid_scope", whole_client=False),
        Malformed("HTML", "proxy login"),
        Unsent("no secret", "secret"),
    ],
)
def test_a_failure_is_read_as_it_was_written(failure: Failure) -> None:
    assert load_failure(dump_failure(failure, 1.8e9)) == (failure, 1.8e9)


def changed(content: bytes, **changes: Any) -> bytes:
    return json.dumps(json.loads(content) | changes).encode()


@pytest.mark.parametrize("changes", [
    {"clock": "NaN"}, {"clock": None}, {"next_due": float("inf")}, {"record": "{}"}, {"record": 7}, {"record": "["},
])  # fmt: skip
def test_content_that_no_daemon_wrote_is_no_token(changes: dict[str, Any]) -> None:
    assert load_token(changed(dump_token(ENTRY), **changes)) is None


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b"{}", b"[" * 1000])
def test_content_that_is_not_an_entry_is_refused(content: bytes) -> None:
    assert load_token(content) is None
    assert load_failure(content) is None


@pytest.mark.parametrize("changes", [
    {"kind": "issued"}, {"kind": ["refused"]}, {"message": "two\nlines"}, {"message": "x" * 2000}, {"phase": "other"},
    {"hint": 7}, {"retry_after": "soon"}, {"ends": "NaN"}, {"ends": None},
])  # fmt: skip
def test_content_that_no_daemon_wrote_is_no_failure(changes: dict[str, Any]) -> None:
    assert load_failure(changed(dump_failure(Transient("503"), 1.8e9), **changes)) is None
