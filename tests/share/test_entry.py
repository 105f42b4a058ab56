"""The content of entries: what is written is read again, and nothing else is taken."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, get_args

import pytest

from bearerd.grant.outcome import Failure, Malformed, Phase, RateLimited, Refused, Transient, Unsent
from bearerd.publish.record import Record
from bearerd.share.answers import Taken
from bearerd.share.entry import TokenEntry, dump_failure, dump_token, load_failure, load_refused, load_token
from bearerd.share.types import Failing, Stored
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


def test_entries_of_the_first_version_are_read_and_written() -> None:
    """Otherwise a fleet would split in two while it is upgraded."""
    record = {
        "schema": 1, "identity": TARGET.identity(), "client_id": "7e0c5a", "named": False, "sliding": True,
        "access_token": "opaque-1", "token_type": "Bearer", "scope": "bci", "lifetime": 3600.0,
        "obtained_wall": 1800000000.0, "obtained_boot": 0.0, "extra": {"instance_url": "https://a"},
        "not_before": 12.0, "publish_after": 0.0,
    }  # fmt: skip
    token_entry = json.dumps({"clock": 1000.0, "next_due": 60.0, "record": json.dumps(record)}).encode()
    assert dump_token(ENTRY) == token_entry
    refused = {
        "refused": ["ab"], "kind": "refused", "message": "401 invalid_client", "phase": "reply", "ends": 1.8e9,
        "hint": "check it", "whole_client": True, "another_secret": True,
    }  # fmt: skip
    limited = {
        "refused": [], "kind": "rate_limited", "message": "429", "phase": "reply", "ends": 1.8e9, "hint": None,
        "retry_after": 60.0,
    }  # fmt: skip
    failure = Refused("401 invalid_client", hint="check it", another_secret=True)
    assert dump_failure(failure, 1.8e9, ("ab",)) == json.dumps(refused).encode()
    assert dump_failure(RateLimited("429", retry_after=60.0), 1.8e9) == json.dumps(limited).encode()


def test_a_token_is_as_old_as_unix_time_or_as_new_as_the_greatest_fence() -> None:
    assert load_token(changed(dump_token(ENTRY), clock=0.0)) is not None
    assert load_token(changed(dump_token(ENTRY), clock=4503599627.370496)) is not None
    assert load_token(changed(dump_token(ENTRY), clock=4503599627.370498)) is None


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
        Transient("503", retry_after=0.5),
        RateLimited("429", retry_after=60.0),
        Refused("401 invalid_client", hint="check it", another_secret=True),
        Refused("400 invalid_scope", whole_client=False),
        Malformed("HTML", "proxy login", "check the URL"),
        Unsent("no secret", "secret", "check the file"),
    ],
)
def test_a_failure_is_read_as_it_was_written(failure: Failure) -> None:
    assert load_failure(dump_failure(failure, 1.8e9)) == (failure, 1.8e9)


@pytest.mark.parametrize("phase", get_args(Phase))
def test_a_failure_may_be_of_any_phase(phase: Phase) -> None:
    assert load_failure(dump_failure(Transient("it", phase), 1.8e9)) == (Transient("it", phase), 1.8e9)


def test_no_token_is_shown_by_an_entry_in_a_traceback_or_log() -> None:
    shown = [
        repr(ENTRY),
        repr(Taken(RECORD, 0.0)),
        repr(Stored(7, 0.0, b"sealed")),
        repr(Failing(b"sealed", 0.0, 1, True)),
    ]
    assert not [text for text in shown if RECORD.token.access_token in text or "sealed" in text.replace("sealed=", "")]


def test_a_long_message_or_hint_is_cut_off() -> None:
    content = dump_failure(Transient("m" * 2000, hint="h" * 2000), 1.8e9)
    assert load_failure(content) == (Transient("m" * 1000, hint="h" * 1000), 1.8e9)


def test_a_retry_after_in_the_past_is_over() -> None:
    content = changed(dump_failure(RateLimited("429", retry_after=1.0), 1.8e9), retry_after=-1.0)
    assert load_failure(content) == (RateLimited("429", retry_after=0.0), 1.8e9)


@pytest.mark.parametrize("count", [0, 1, 8, 10])
def test_a_failure_names_the_last_eight_credentials_that_were_refused(count: int) -> None:
    fingerprints = tuple(f"{number:032x}" for number in range(count))
    content = dump_failure(Refused("401"), 1.8e9, fingerprints)
    assert load_failure(content) == (Refused("401"), 1.8e9)
    assert load_refused(content) == fingerprints[-8:]


def changed(content: bytes, **changes: Any) -> bytes:
    return json.dumps(json.loads(content) | changes).encode()


@pytest.mark.parametrize("changes", [
    {"clock": "NaN"}, {"clock": None}, {"clock": -1.0}, {"clock": 1e12}, {"next_due": float("inf")},
    {"record": "{}"}, {"record": 7}, {"record": "["},
])  # fmt: skip
def test_content_that_no_daemon_wrote_is_no_token(changes: dict[str, Any]) -> None:
    assert load_token(changed(dump_token(ENTRY), **changes)) is None


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b"{}", b"[" * 1000])
def test_content_that_is_not_an_entry_is_refused(content: bytes) -> None:
    assert load_token(content) is None
    assert load_failure(content) is None


@pytest.mark.parametrize("changes", [
    {"kind": "issued"}, {"kind": ["refused"]}, {"message": "two\nlines"}, {"message": "x" * 1001}, {"phase": "other"},
    {"refused": "abc"}, {"refused": None}, {"hint": 7}, {"retry_after": "soon"}, {"ends": "NaN"}, {"ends": None},
])  # fmt: skip
def test_content_that_no_daemon_wrote_is_no_failure(changes: dict[str, Any]) -> None:
    assert load_failure(changed(dump_failure(Transient("503"), 1.8e9), **changes)) is None
