"""The replies of the scripts: each kind, its bounds, and that nothing else is believed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bearerd.share import replies
from bearerd.share.replies import BadReplyError
from bearerd.share.types import GREATEST_FENCE, NEVER, Answer, Busy, Claim, Failing, Granted, Limited, Stored

CLOCK = b"1800000000500000"
NOW = 1_800_000_000.5
CLAIM = Claim(have=7, seen=9)
GREATEST = str(GREATEST_FENCE).encode()
MOST_SEALED = 2**20  # bytes; a reply of 64 KiB may be six times as long in JSON
LONGEST_WAIT = 630_720_000_000_000  # 20 years in microseconds


def claimed(*reply: bytes) -> Answer:
    return replies.claimed([CLOCK, *reply], CLAIM)


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ((b"granted", b"10", b"0", b"0", b"0"), Granted(10, NOW, 0, 0, governed=False)),
        ((b"granted", GREATEST, b"3", b"4", b"1"), Granted(GREATEST_FENCE, NOW, 3, 4, governed=True)),
        ((b"granted", b"10", b"1000000", b"1000000", b"0"), Granted(10, NOW, 10**6, 10**6, governed=False)),
        ((b"stored", b"8", b"s"), Stored(8, NOW, b"s")),
        ((b"stored", GREATEST, bytes(MOST_SEALED)), Stored(GREATEST_FENCE, NOW, bytes(MOST_SEALED))),
        ((b"busy", b"0"), Busy(0.0)),
        ((b"busy", str(LONGEST_WAIT).encode()), Busy(630_720_000.0)),
        ((b"limited", b"rate_limit", b"1500000"), Limited("rate_limit", 1.5)),
        ((b"limited", b"refused_limit", b"1500000"), Limited("refused_limit", 1.5)),
        ((b"failing", b"s", b"1500000", b"1", b"0"), Failing(b"s", 1.5, 1, whole_client=False)),
        ((b"failing", b"s", b"0", b"1000000", b"1"), Failing(b"s", 0.0, 10**6, whole_client=True)),
    ],
)
def test_each_answer_to_a_claim_is_understood(reply: tuple[bytes, ...], answer: Answer) -> None:
    assert claimed(*reply) == answer


@pytest.mark.parametrize(
    "reply",
    [
        (b"granted", b"9", b"0", b"0", b"0"),
        (b"granted", str(GREATEST_FENCE + 1).encode(), b"0", b"0", b"0"),
        (b"granted", b"10", b"1000001", b"0", b"0"),
        (b"granted", b"10", b"0", b"1000001", b"0"),
        (b"granted", b"10", b"0", b"0", b"2"),
        (b"granted", b"10", b"0", b"0"),
        (b"stored", b"7", b"s"),
        (b"stored", str(GREATEST_FENCE + 1).encode(), b"s"),
        (b"stored", b"8", b""),
        (b"stored", b"8", bytes(MOST_SEALED + 1)),
        (b"busy", b"-1"),
        (b"busy", b""),
        (b"busy", b"1.5"),
        (b"busy", b" 1"),
        (b"busy", b"00000000000000001"),
        (b"busy", str(LONGEST_WAIT + 1).encode()),
        (b"limited", b"other", b"0"),
        (b"limited", b"rate_limit", b"x"),
        (b"failing", b"", b"0", b"1", b"0"),
        (b"failing", b"s", b"x", b"1", b"0"),
        (b"failing", b"s", b"0", b"0", b"0"),
        (b"failing", b"s", b"0", b"1000001", b"0"),
        (b"failing", b"s", b"0", b"1", b"true"),
        (b"done",),
        (b"other", b"0"),
    ],
)
def test_no_other_answer_to_a_claim_is_believed(reply: tuple[bytes, ...]) -> None:
    with pytest.raises(BadReplyError):
        claimed(*reply)


KINDS: list[Callable[[Any], object]] = [
    lambda reply: replies.claimed(reply, CLAIM),
    replies.stored,
    lambda reply: replies.newer(reply, 7),
    replies.done,
    lambda reply: replies.fences(reply, 1),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "reply", [None, b"done", (CLOCK, b"done"), [], [CLOCK], [CLOCK, 7], [CLOCK, b"done", "text"], [7, b"done"]]
)
def test_what_is_no_list_of_texts_is_no_reply(kind: Callable[[Any], object], reply: Any) -> None:
    with pytest.raises(BadReplyError):
        kind(reply)


@pytest.mark.parametrize(
    ("clock", "seconds"), [(b"1600000000000000", 1.6e9), (GREATEST, GREATEST_FENCE / 1e6), (CLOCK, NOW)]
)
def test_the_clock_of_a_reply_is_in_microseconds(clock: bytes, seconds: float) -> None:
    assert replies.stored([clock, b"done"]) == Stored(NEVER, seconds, b"")


@pytest.mark.parametrize("clock", [b"1599999999999999", str(GREATEST_FENCE + 1).encode(), b"", b"now"])
def test_a_server_without_the_time_is_not_believed(clock: bytes) -> None:
    with pytest.raises(BadReplyError):
        replies.done([clock, b"done"])


def test_a_stored_token_is_read_with_any_fence() -> None:
    assert replies.stored([CLOCK, b"stored", b"1", b"s"]) == Stored(1, NOW, b"s")
    with pytest.raises(BadReplyError):
        replies.stored([CLOCK, b"stored", b"0", b"s"])


def test_the_greatest_fence_is_one_that_lua_computes_exactly_and_no_token_has_the_fence_0() -> None:
    """Daemons of all versions refuse a greater one."""
    assert replies.stored([CLOCK, b"stored", b"4503599627370496", b"s"]).fence == 2**52
    with pytest.raises(BadReplyError):
        replies.stored([CLOCK, b"stored", b"4503599627370497", b"s"])
    assert replies.stored([CLOCK, b"done"]).fence == 0


def test_a_newer_token_has_a_greater_fence() -> None:
    assert replies.newer([CLOCK, b"done"], 7) is None
    for fence in (8, GREATEST_FENCE):
        assert replies.newer([CLOCK, b"stored", str(fence).encode(), b"s"], 7) == Stored(fence, NOW, b"s")
    for bad in ([b"stored", b"7", b"s"], [b"stored", str(GREATEST_FENCE + 1).encode(), b"s"], [b"done", b""], [b"x"]):
        with pytest.raises(BadReplyError):
            replies.newer([CLOCK, *bad], 7)


def test_work_is_done_if_the_reply_says_nothing_else() -> None:
    replies.done([CLOCK, b"done"])
    for bad in ([b"done", b""], [b"stored"]):
        with pytest.raises(BadReplyError):
            replies.done([CLOCK, *bad])


def test_there_are_as_many_fences_as_were_asked_for() -> None:
    assert replies.fences([CLOCK, b"fences"], 0) == ()
    assert replies.fences([CLOCK, b"fences", b"0", GREATEST], 2) == (0, GREATEST_FENCE)
    for bad in ([b"fences", b"1"], [b"fences", b"1", b"2", b"3"], [b"other", b"1", b"2"], [b"fences", b"1", b"x"]):
        with pytest.raises(BadReplyError):
            replies.fences([CLOCK, *bad], 2)
    with pytest.raises(BadReplyError):
        replies.fences([CLOCK, b"fences", str(GREATEST_FENCE + 1).encode()], 1)


LONG = b"n" * 128


@pytest.mark.parametrize("message", [b"! ~", b"token client", LONG + b" " + LONG])
def test_an_announcement_names_a_target_and_its_client(message: bytes) -> None:
    assert replies.announced(message) == tuple(message.decode().split(" "))


@pytest.mark.parametrize(
    "message", [b"", b"token", b"a b c", b"a b\n", b" b", b"a ", b"\xff b", LONG + b"n b", b"a " + LONG + b"n"]
)
def test_another_message_announces_nothing(message: bytes) -> None:
    assert replies.announced(message) == ()
