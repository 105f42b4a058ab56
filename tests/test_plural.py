"""Several errors in one message."""

from __future__ import annotations

import pytest

from bearerd.plural import together

FULL = "no space left; free some space, or enlarge the file system"


@pytest.mark.parametrize(
    ("faults", "said"),
    [
        pytest.param([], "", id="none"),
        pytest.param([f"/a: {FULL}"], f"/a: {FULL}", id="one"),
        pytest.param([f"/a: {FULL}", f"/b: {FULL}", f"/a: {FULL}"], f"/a, /b: {FULL}", id="one cause"),
        pytest.param(
            ["/a: too long; move it", "/b: too short; move it"], "/a: too long; /b: too short; move it", id="one advice"
        ),
        pytest.param(
            [f"/a: {FULL}", "/b: no such user", f"/c: {FULL}"], f"/a, /c: {FULL}; /b: no such user", id="two causes"
        ),
        pytest.param(["not yet"], "not yet", id="no path"),
        pytest.param(["/t: line 2: 'x' is not defined"], "/t: line 2: 'x' is not defined", id="two colons"),
    ],
)
def test_a_cause_and_an_advice_are_said_once(faults: list[str], said: str) -> None:
    assert together(faults) == said
