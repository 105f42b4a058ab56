from __future__ import annotations

import inspect
import json
import sys
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bearerd.boundedjson import DEEPEST, TooDeepError, loads

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(alphabet='[]{}"\\,:a'),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(alphabet='[{"\\'), inner, max_size=3),
)


def nested(levels: int, start: str = "[", end: str = "]") -> str:
    return start * levels + end * levels


def depth_of(value: Any) -> int:
    if isinstance(value, list | dict):
        return 1 + max(map(depth_of, value.values() if isinstance(value, dict) else value), default=0)
    return 0


@pytest.mark.parametrize("levels", [DEEPEST + 1, 900, 980, 1000, 30_000])
@pytest.mark.parametrize(
    ("start", "end"), [("[", "]"), ('{"a":', "}"), ('[{"a":', "}]"), ("[", ""), ('["[",', "]")], ids=repr
)
def test_any_depth_beyond_the_bound_is_the_same_error(levels: int, start: str, end: str) -> None:
    with pytest.raises(TooDeepError, match="is nested more than 32 levels deep"):
        loads(nested(levels, start, end))


def test_the_bound_itself_is_read() -> None:
    assert depth_of(loads(nested(DEEPEST))) == DEEPEST
    assert depth_of(loads(nested(4), 4)) == 4
    with pytest.raises(TooDeepError):
        loads(nested(5), 4)


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(["[" * 100, '"' + "{" * 100, "\\" + "[" * 100, {"]" * 100: "\\\\"}]),
        json.dumps([[]] * 1000),
        json.dumps([{"a": [1]}] * 1000),
    ],
    ids=["in-text", "many-lists", "many-objects"],
)
def test_brackets_in_text_or_beside_each_other_are_not_depth(text: str) -> None:
    assert loads(text) == json.loads(text)


@given(VALUES, st.integers(0, 4))
def test_json_is_read_up_to_its_depth_and_no_further(value: Any, deepest: int) -> None:
    text = json.dumps(value)
    if depth_of(value) <= deepest:
        assert loads(text, deepest) == value
    else:
        with pytest.raises(TooDeepError):
            loads(text, deepest)


@given(st.text(alphabet='[]{}"\\,:1'))
def test_invalid_json_is_a_value_error(text: str) -> None:
    try:
        json.loads(text)
    except ValueError:
        with pytest.raises(ValueError):  # noqa: PT011 - either kind
            loads(text)
    else:
        assert loads(text) == json.loads(text)


@pytest.mark.parametrize("piece", ['\\"', '"', "[", '"\\', '["'], ids=repr)
def test_no_text_takes_long_to_search(piece: str) -> None:
    text = piece * (65_536 // len(piece))
    began = time.process_time()
    with pytest.raises(ValueError):  # noqa: PT011 - either kind
        loads("[" * 33 + text)
    # 20 ms if each byte is read once. Minutes if it is read once for each byte.
    assert time.process_time() - began < 5


def test_a_document_that_was_read_can_be_written_on_a_deep_stack() -> None:
    def below(frames: int) -> str:
        if frames:
            return below(frames - 1)
        return json.dumps(loads(nested(DEEPEST)))

    used = len(inspect.stack(0))
    assert below(sys.getrecursionlimit() - used - 100) == nested(DEEPEST)


def test_a_full_stack_is_an_error_of_the_document() -> None:
    def hook(_: list[tuple[str, Any]]) -> Any:
        raise RecursionError

    with pytest.raises(TooDeepError, match="is nested too deeply"):
        loads("{}", object_pairs_hook=hook)
