from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bearerd.boundedjson import DEEPEST
from bearerd.model import Client, JwtBearer, Provider, Target
from bearerd.publish.record import SCHEMA, Record, dump, load
from bearerd.terms import JWT_BEARER, Instant, Reference
from support.targets import TARGET, token

RECORD = Record(token(scope="bci", extra='{"instance_url": "x"}'), TARGET.identity(), "7e0c5a")


def test_a_saved_record_is_loaded_unchanged() -> None:
    assert load(dump(RECORD)) == RECORD


@pytest.mark.parametrize(
    "record",
    [
        replace(RECORD, named=False),
        replace(RECORD, sliding=True),
        replace(RECORD, unsure="zero"),
        replace(RECORD, unsure="renewed"),
        replace(RECORD, client_id=""),
        replace(RECORD, token=token(scope=None, token_type="N_A")),
        replace(RECORD, token=token(scope="")),
        replace(RECORD, token=token("!~")),
        replace(RECORD, fence=1),
        replace(RECORD, fence=2**52),
    ],
)
def test_each_field_is_loaded_unchanged(record: Record) -> None:
    assert load(dump(record)) == record


def test_a_record_of_a_waiting_token_names_no_time_that_does_not_wait() -> None:
    assert json.loads(dump(replace(RECORD, not_before=0.5)))["publish_after"] == 0.0
    assert replace(RECORD, not_before=0.5).waits
    assert not replace(RECORD, publish_after=1.0).waits
    fields = json.loads(dump(WAITING))
    del fields["not_before"], fields["publish_after"]
    read = load(json.dumps(fields).encode())
    assert read is not None
    assert (read.present, read.not_before, read.publish_after) == (WAITING.present, 0.0, 0.0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"identity": ""},
        {"identity": 5},
        {"client_id": 5},
        {"named": 1},
        {"sliding": None},
        {"unsure": "often"},
        {"unsure": True},
        {"unsure": []},
        {"access_token": ""},
        {"access_token": "a b"},
        {"access_token": "a\x7f"},
        {"token_type": ""},
        {"token_type": None},
        {"scope": 5},
        {"extra": []},
        {"extra": None},
        {"lifetime": 1e999},
        {"lifetime": 10**400},
        {"obtained_boot": "x"},
    ],
)
def test_a_record_with_a_value_that_no_version_writes_is_not_read(wrong: dict[str, object]) -> None:
    assert load(json.dumps(json.loads(dump(RECORD)) | wrong).encode()) is None


YEAR_10000 = 253_402_300_800.0


@pytest.mark.parametrize(
    ("obtained", "lifetime", "is_read"),
    [
        (0.0, 0.0, True),
        (0.0, -1.0, False),
        (-0.5, 0.0, False),
        (YEAR_10000 - 3601, 3600.0, True),
        (YEAR_10000 - 3600, 3600.0, False),
    ],
)
def test_a_record_ends_between_1970_and_the_year_10000(obtained: float, lifetime: float, is_read: bool) -> None:
    record = replace(RECORD, token=token(obtained=Instant(obtained, 5.0), lifetime=lifetime))
    assert load(dump(record)) == (record if is_read else None)


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
    assert load(dump(replace(nested, token=token(extra=json.dumps({"a": [deep]}))))) is None


def test_a_record_of_a_later_schema_is_not_read() -> None:
    fields = json.loads(dump(RECORD))
    assert load(json.dumps(fields | {"schema": SCHEMA + 1}).encode()) is None


def test_a_record_of_the_first_version_with_a_package_is_read() -> None:
    # As commit 6b98a1b wrote it, before bearerd knew providers that name no lifetime and sliding tokens.
    fields = json.loads(dump(RECORD))
    del fields["named"], fields["sliding"]
    assert fields["schema"] == 1
    assert load(json.dumps(fields).encode()) == RECORD


@pytest.mark.parametrize("key", sorted(json.loads(dump(RECORD)).keys() - {"named", "sliding"}))
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


@pytest.mark.parametrize(
    "wrong",
    [
        {"obtained_wall": -1e15, "lifetime": 1e15},
        {"obtained_wall": -1e11, "lifetime": 1.2e11},
        {"lifetime": 1e11},
        {"obtained_boot": -1e308},
        {"obtained_boot": 1e11},
    ],
)
def test_times_that_cannot_be_shown_are_not_read(wrong: dict[str, object]) -> None:
    assert load(json.dumps(json.loads(dump(RECORD)) | wrong).encode()) is None


TWO_HUNDRED_YEARS = 200 * 366 * 86400.0


@pytest.mark.parametrize(("lifetime", "is_read"), [(TWO_HUNDRED_YEARS, True), (TWO_HUNDRED_YEARS + 1, False)])
def test_a_lifetime_of_up_to_200_years_is_read(lifetime: float, is_read: bool) -> None:
    record = replace(RECORD, token=token(lifetime=lifetime))
    assert load(dump(record)) == (record if is_read else None)


def test_a_token_from_before_1970_by_a_clock_that_is_not_set_is_read() -> None:
    # A machine without a clock starts in 1970, and a token in its record can be older than that.
    record = replace(RECORD, token=token(obtained=Instant(-1800.0, -1790.0)))
    assert load(dump(record)) == record


def test_a_torn_record_is_not_read() -> None:
    whole = dump(RECORD)
    assert [load(whole[:length]) for length in range(len(whole))] == [None] * len(whole)
