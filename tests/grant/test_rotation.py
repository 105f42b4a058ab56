from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bearerd.grant.rotation import Rotation, dump, load


def play(steps: str, rotation: Rotation | None = None) -> Rotation:
    """Attempts, one a word: `cba:c-` is that of the secrets c, b and a, newest first, c is tried and refused.

    A + is one that works, a ~ one with another failure.
    """
    rotation = rotation or Rotation()
    for number, step in enumerate(steps.split()):
        names, _, expected = step.partition(":")
        present = tuple(names)
        tried = present[rotation.choice(present)]
        assert tried == expected[0], f"attempt {number}: {step}"
        if expected[1:] == "+":
            rotation = rotation.after_success(tried, present)
        elif expected[1:] == "-":
            rotation = rotation.after_refusal(tried, present)
    return rotation


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param("a:a+ a:a- a:a- a:a+ a:a", id="one-is-always-tried"),
        pytest.param("cba:c", id="the-newest-first"),
        pytest.param("ba:b- ba:a", id="the-next-when-it-is-refused"),
        pytest.param("cba:c- cba:b- cba:a", id="and-the-next"),
        pytest.param("ba:b~ ba:b~ ba:b", id="the-same-when-nothing-was-learnt"),
        pytest.param("ba:b- ba:a~ ba:a", id="the-same-also-after-a-refusal"),
        pytest.param("ba:b- ba:a+ ba:a+ ba:a", id="what-worked-is-stayed-with"),
        pytest.param("ba:b+ ba:b", id="the-newest-too"),
        pytest.param("a:a+ ba:b", id="a-newer-one-is-tried"),
        pytest.param("a:a+ ba:b+ ba:b+ b:b", id="and-stayed-with-when-it-works"),
        pytest.param("a:a+ ba:b- ba:a+ ba:a+ ba:a", id="but-once-when-it-is-not-active-yet"),
        pytest.param("a:a+ ba:b~ ba:b", id="and-again-when-nothing-was-learnt"),
        pytest.param("a:a+ cba:c- cba:b- cba:a+ cba:a", id="several-newer-ones-each-once"),
        pytest.param("a:a+ cba:c- cba:b+ cba:b", id="several-newer-ones-until-one-works"),
        pytest.param("a:a+ ba:b- ba:a+ cba:c+ cba:c", id="a-newer-one-beside-one-passed-over"),
        pytest.param("a:a+ ba:b- ba:a+ ba:a- ba:b+ ba:b", id="passed-over-is-next-when-the-old-one-ends"),
        pytest.param("b:b+ ba:b+ ba:b", id="an-older-one-is-not-tried-while-it-works"),
        pytest.param("b:b+ ba:b- ba:a+ ba:a", id="but-when-it-does-not"),
        pytest.param("ba:b- ba:a- ba:b- ba:a- ba:b", id="a-round-over-then-in-turn"),
        pytest.param("cba:c- cba:b- cba:a- cba:c- cba:b- cba:a- cba:c", id="three-in-turn"),
        pytest.param("ba:b- ba:a- ba:b~ ba:b- ba:a", id="whose-turn-it-is-stays-when-nothing-was-learnt"),
        # The one that worked first, then in their order.
        pytest.param("cba:c- cba:b+ cba:b- cba:c- cba:a- cba:b- cba:c- cba:a", id="what-worked-begins-the-round"),
        pytest.param("ba:b- ba:a- ba:b+ ba:b", id="what-works-ends-the-rounds"),
        pytest.param("ba:b- ba:a- ba:b+ ba:b- ba:a", id="and-then-all-count-as-untried"),
        pytest.param("a:a- a:a- b:b", id="one-that-was-replaced"),
        pytest.param("ba:b- ba:a- cba:c", id="a-new-one-goes-before-the-turns"),
        pytest.param("ba:b- ba:a- bca:c", id="at-any-index"),
        pytest.param("ba:b- ca:c", id="a-new-one-goes-before-the-next"),
        pytest.param("ba:b- a:a- ba:b", id="one-that-was-away-counts-as-new"),
        pytest.param("a:a+ cb:c", id="what-worked-is-gone-so-the-newest"),
        pytest.param("ba:b+ a:a- ba:b", id="what-worked-is-back"),
        pytest.param("aa:a- aa:a+ aa:a", id="the-same-twice"),
        pytest.param("ab:a+ ba:b- ba:a+ ba:a", id="a-list-turned-round"),
    ],
)
def test_the_next_secret(steps: str) -> None:
    play(steps)


@pytest.mark.parametrize(
    ("steps", "present", "exhausted"),
    [
        pytest.param("", "a", False, id="nothing-tried"),
        pytest.param("a:a-", "a", True, id="the-only-one"),
        pytest.param("a:a~", "a", False, id="nothing-learnt"),
        pytest.param("ba:b-", "ba", False, id="one-of-two"),
        pytest.param("ba:b- ba:a-", "ba", True, id="both"),
        pytest.param("ba:b- ba:a- ba:b-", "ba", True, id="in-turn"),
        pytest.param("ba:b- ba:a-", "ab", True, id="both-in-another-order"),
        pytest.param("ba:b- ba:a-", "a", True, id="one-was-taken-away"),
        pytest.param("ba:b- ba:a-", "cba", False, id="one-was-added"),
        pytest.param("ba:b- a:a-", "ba", False, id="one-was-away"),
        pytest.param("a:a-", "b", False, id="it-was-replaced"),
        pytest.param("a:a- a:a+", "a", False, id="it-worked-since"),
        pytest.param("a:a+ ba:b- ba:a+ ba:a-", "ba", False, id="passed-over-is-not-refused"),
    ],
)
def test_a_round_is_over_when_all_present_secrets_were_refused(steps: str, present: str, exhausted: bool) -> None:
    assert play(steps).exhausted(tuple(present)) is exhausted


SECRETS = st.permutations("abcd").flatmap(lambda order: st.integers(1, 4).map(lambda count: tuple(order[:count])))
Past = list[tuple[tuple[str, ...], str]]
PASTS = st.lists(st.tuples(SECRETS, st.sampled_from("+-~")), max_size=12)


def after(past: Past) -> Rotation:
    """Any history: the secrets at each attempt, and its result."""
    rotation = Rotation()
    for present, ended in past:
        tried = present[rotation.choice(present)]
        if ended == "+":
            rotation = rotation.after_success(tried, present)
        elif ended == "-":
            rotation = rotation.after_refusal(tried, present)
    return rotation


@given(past=PASTS, present=SECRETS, works=st.sets(st.sampled_from("abcd")))
def test_a_working_secret_is_found_within_two_rounds_and_stays_in_use(
    past: Past, present: tuple[str, ...], works: set[str]
) -> None:
    rotation, tried = after(past), []
    for _ in range(2 * len(present) + 3):
        tried.append(present[rotation.choice(present)])
        step = rotation.after_success if tried[-1] in works else rotation.after_refusal
        rotation = step(tried[-1], present)

    if works & set(present):
        # One that worked may have a newer one before it that has to be tried first.
        assert tried[-1] == tried[-2] == tried[-3]
        assert tried[-1] in works
    else:
        # In turn: each once before any comes again.
        assert set(tried[-len(present) :]) == set(present)
        assert rotation.exhausted(present)


# -- kept over restarts --------------------------------------------------------------------------------


@given(past=PASTS)
def test_a_saved_rotation_is_loaded_unchanged(past: Past) -> None:
    rotation = after(past)

    assert load(json.loads(json.dumps(dump(rotation)))) == rotation


def test_a_restart_continues_the_round() -> None:
    before = play("a:a+ ba:b- ba:a+ ba:a-")

    play("ba:b- ba:a", load(json.loads(json.dumps(dump(before)))))


@pytest.mark.parametrize(
    ("fields", "loaded"),
    [
        pytest.param({}, Rotation(), id="nothing"),
        pytest.param({"worked": 7, "passed_over": "ab", "refused": {"a": 1}}, Rotation(), id="other-types"),
        pytest.param({"worked": None, "passed_over": None, "refused": None}, Rotation(), id="nulls"),
        pytest.param(
            {"worked": "a", "passed_over": ["b", 7, None, "c"], "refused": [["a"], "d"], "more": 1},
            Rotation("a", ("b", "c"), ("d",)),
            id="what-makes-sense-of-it",
        ),
    ],
)
def test_invalid_saved_fields_are_ignored(fields: dict[str, Any], loaded: Rotation) -> None:
    assert load(fields) == loaded
