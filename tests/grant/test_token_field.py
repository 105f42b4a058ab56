"""What is said about a reply without a token where `token_field` leads."""

from __future__ import annotations

from typing import Any

import pytest

from bearerd.grant.token_field import NoTokenError, find

PATH = "data.access_token"


def said(fields: dict[str, Any], secret: str = "hunter2") -> str:
    with pytest.raises(NoTokenError) as raised:
        find(fields, PATH, lambda name: secret in name)
    return str(raised.value)


def test_an_object_without_fields_is_said_to_have_none() -> None:
    assert said({"data": {}}) == "the reply has no data.access_token; data has: no fields"


def test_a_name_that_quotes_a_secret_is_counted_and_not_shown() -> None:
    assert said({"data": {"x_hunter2": 1, "status": 2}}) == (
        "the reply has no data.access_token; data has: status, 1 other"
    )


def test_at_most_eight_names_are_shown() -> None:
    many = {f"field_{number:02}": number for number in range(12)}
    assert said({"data": many}).endswith("field_06, field_07, 4 others")
