from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bearerd.publish.record import SCHEMA, Record, dump, load
from support.targets import TARGET, token

RECORD = Record(token(scope="bci", extra='{"instance_url": "x"}'), TARGET.identity(), "7e0c5a")


def test_a_saved_record_is_loaded_unchanged() -> None:
    assert load(dump(RECORD)) == RECORD


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
