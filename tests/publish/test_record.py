from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bearerd.boundedjson import DEEPEST
from bearerd.model import Client, JwtBearer, Provider, Target
from bearerd.publish.record import SCHEMA, Record, dump, load
from bearerd.terms import JWT_BEARER, Reference
from support.targets import TARGET, token

RECORD = Record(token(scope="bci", extra='{"instance_url": "x"}'), TARGET.identity(), "7e0c5a")


def test_a_saved_record_is_loaded_unchanged() -> None:
    assert load(dump(RECORD)) == RECORD


WAITING = replace(RECORD, present=token("old", extra='{"a": [1]}'), not_before=5.0, publish_after=30.0)


@pytest.mark.parametrize("record", [WAITING, replace(RECORD, not_before=5.0)])
def test_a_token_that_waits_is_loaded_unchanged(record: Record) -> None:
    assert record.waits
    assert load(dump(record)) == record


def test_a_record_without_a_waiting_token_has_the_fields_of_before() -> None:
    # As 0.1.0 wrote it before a token could wait, and as it reads it.
    assert json.loads(dump(RECORD)).keys() == {
        "schema", "identity", "client_id", "named", "sliding", "access_token", "token_type", "scope", "lifetime",
        "obtained_wall", "obtained_boot", "extra",
    }  # fmt: skip


def test_the_fence_is_loaded_unchanged_and_an_impossible_one_is_not() -> None:
    assert load(dump(replace(RECORD, fence=1_800_000_000_000_000))) == replace(RECORD, fence=1_800_000_000_000_000)
    fields = json.loads(dump(RECORD))
    for fence in (-1, 2**52 + 1, 1.5, "7", True, None):
        assert load(json.dumps(fields | {"fence": fence}).encode()) is None


def test_a_record_of_a_bearerd_without_the_newer_keys_is_still_for_the_same_target() -> None:
    # As 0.1.0 computed them before it knew headers, token_field, lifetime_unit and claims of single tokens.
    assert TARGET.identity() == "03cf80cd02f5adbc586792b76082a844d0f93ccee4bfc93396e8520ff6ac9509"
    client = Client("c", Provider("p", "https://x/t"), "i", auth="none", grant_type=JWT_BEARER)
    signed = Target(replace(client, private_key=Reference("file", "/s"), jwt_bearer=JwtBearer("x")), "t", "s")
    assert signed.identity() == "12ce5d504f36679c466fadeb1915c133aa04a7d524a6bf11d5096fb5cb0f5f54"


def test_a_bearerd_that_knows_no_waiting_tokens_reads_the_one_in_the_files() -> None:
    known = json.loads(dump(RECORD)).keys()
    fields = {key: value for key, value in json.loads(dump(WAITING)).items() if key in known}
    read = load(json.dumps(fields).encode())
    assert read is not None
    assert (read.token, read.waits) == (WAITING.present, False)


@pytest.mark.parametrize(
    "wrong",
    [{"next": 5}, {"next": {}}, {"next": []}, {"not_before": "x"}, {"publish_after": None}, {"publish_after": 1e999}],
)
def test_a_malformed_waiting_token_is_not_read(wrong: dict[str, object]) -> None:
    assert load(json.dumps(json.loads(dump(WAITING)) | wrong).encode()) is None


def test_a_waiting_token_may_be_nested_as_deeply_as_its_reply() -> None:
    deep: object = 1
    for _ in range(DEEPEST - 1):
        deep = [deep]
    nested = replace(RECORD, token=token(extra=json.dumps({"a": deep})), present=token("old"), publish_after=1.0)
    assert load(dump(nested)) == nested


def test_a_record_of_a_later_schema_is_not_read() -> None:
    fields = json.loads(dump(RECORD))
    assert load(json.dumps(fields | {"schema": SCHEMA + 1}).encode()) is None


@pytest.mark.parametrize("key", sorted(json.loads(dump(RECORD))))
def test_a_record_without_one_of_its_fields_is_not_read(key: str) -> None:
    fields = json.loads(dump(RECORD))
    del fields[key]
    assert load(json.dumps(fields).encode()) is None


@given(st.binary(max_size=200))
def test_any_bytes_are_a_record_or_none(content: bytes) -> None:
    assert load(content) is None


@given(
    st.sampled_from(sorted(json.loads(dump(RECORD)))),
    st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists),
)
def test_any_value_in_a_field_is_read_or_ignored(key: str, value: object) -> None:
    load(json.dumps(json.loads(dump(RECORD)) | {key: value}).encode())


def test_a_torn_record_is_not_read() -> None:
    whole = dump(RECORD)
    assert [load(whole[:length]) for length in range(len(whole))] == [None] * len(whole)
