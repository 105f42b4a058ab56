"""The parser of request heads: accepted and refused heads, and the end of a head."""

from __future__ import annotations

import pytest

from bearerd.api.message import HEAD_LIMIT, BadRequest, Reply, Request, parse, serialise, split

DATE = "Thu, 01 Jan 1970 00:00:00 GMT"


def test_a_whole_head_is_at_most_eight_kibibytes() -> None:
    assert HEAD_LIMIT == 8192


# -- where the head ends -------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [b"\r\n\r\n", b"\n\n", b"\r\n\n", b"\n\r\n"])
def test_a_head_ends_at_the_first_empty_line(end: bytes) -> None:
    parts = split(b"GET / HTTP/1.1\r\nA: b" + end + b"body\r\n\r\n")
    assert parts is not None
    assert (parts[0].removesuffix(b"\r"), parts[1]) == (b"GET / HTTP/1.1\r\nA: b", b"body\r\n\r\n")


@pytest.mark.parametrize("received", [b"", b"GET", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nA: b\r\n\r", b"\r\n"])
def test_a_head_without_an_empty_line_is_incomplete(received: bytes) -> None:
    assert split(received) is None


def padded(length: int, before: bytes, after: bytes) -> bytes:
    return before + b"x" * (length - len(before) - len(after)) + after


@pytest.mark.parametrize(
    ("before", "after", "status"),
    [
        (b"GET /", b" HTTP/1.1\r\n\r\n", 431),  # the line itself is short enough
        (b"GET / HTTP/1.1\r\nA: ", b"\r\n\r\n", 431),
        (b"GET /", b"", 414),
        (b"", b"", 414),
        (b"GET / HTTP/1.1\r\nA: ", b"", 431),
        (b"GET / HTTP/1.1\r\n" + b"A:b\r\n" * 1600, b"", 431),
    ],
)
def test_one_byte_more_than_the_limit_is_refused(before: bytes, after: bytes, status: int) -> None:
    whole = split(padded(HEAD_LIMIT, before, after) + b"body")[1] if after else split(padded(HEAD_LIMIT, before, after))  # type: ignore[index]  # it is complete
    assert whole == (b"body" if after else None)
    with pytest.raises(BadRequest) as refused:
        split(padded(HEAD_LIMIT + 1, before, after))
    assert refused.value.reply.status == status


# -- what is in it -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b"GET / HTTP/1.0", Request("GET", "/", "", (1, 0))),
        (b"GET /a?b=c?d#e HTTP/1.1\r\nhost: x", Request("GET", "/a", "b=c?d", (1, 1), hosts=("x",))),
        (b"GET / HTTP/1.7\r\nHOST: \t x \t", Request("GET", "/", "", (1, 7), hosts=("x",))),
        (b"GET / HTTP/1.1\nHost: x\nHost:y", Request("GET", "/", "", (1, 1), hosts=("x", "y"))),
        (b"GET //a//b HTTP/1.0", Request("GET", "/a//b", "", (1, 0))),
        (b"GET * HTTP/1.0", Request("GET", "*", "", (1, 0))),
        (b"GET http://A:1/b?c HTTP/1.0", Request("GET", "/b", "c", (1, 0), authority="A:1")),
        (b"GET x+y://[::1] HTTP/1.0", Request("GET", "", "", (1, 0), authority="[::1]")),
        (b"get /\xff HTTP/1.0", Request("get", "/\xff", "", (1, 0))),
        (b"POST / HTTP/1.0\r\nContent-Length: 9999", Request("POST", "/", "", (1, 0), body=9999)),
        (b"POST / HTTP/1.1\r\nExpect: 100-Continue", Request("POST", "/", "", (1, 1), expects_continue=True)),
        (b"POST / HTTP/1.0\r\nExpect: 100-continue", Request("POST", "/", "", (1, 0))),
        (b"GET / HTTP/1.0\r\nA: \xff\tb:", Request("GET", "/", "", (1, 0))),
        (b"GET / HTTP/1.0\r\n" + b"A:\r\n" * 2000 + b"A:", Request("GET", "/", "", (1, 0))),
    ],
)
def test_a_head_is_read(head: bytes, expected: Request) -> None:
    assert parse(head) == expected


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"", 400),
        (b"GET", 400),
        (b"GET /", 400),  # HTTP/0.9
        (b"GET / x HTTP/1.1", 400),
        (b"GET  / HTTP/1.1", 400),
        (b" GET / HTTP/1.1", 400),
        (b"GET / HTTP/1.1 ", 400),
        (b"GET\t/ HTTP/1.1", 400),
        (b"GET / FTP/1.1", 400),
        (b"GET / HTTP/1", 400),
        (b"GET / HTTP/11.1", 400),
        (b"GET / http/1.1", 400),
        (b"GET / HTTP/\xb2.0", 400),
        (b"GET / HTTP/2.0", 505),
        (b"GET / HTTP/0.9", 505),
        (b"G@T / HTTP/1.1", 400),
        (b"GET /\x00 HTTP/1.1", 400),
        (b"GET /\x7f HTTP/1.1", 400),
        (b"GET livez HTTP/1.1", 400),
        (b"CONNECT localhost:443 HTTP/1.1", 400),
        (b"GET http:/livez HTTP/1.1", 400),
        (b"GET http:///livez HTTP/1.1", 400),
        (b"GET http://[/livez HTTP/1.1", 400),
        (b"GET http://a:b/livez HTTP/1.1", 400),
        (b"GET http://a@localhost/ HTTP/1.1", 400),
        (b"GET / HTTP/1.1\r\nHost", 400),
        (b"GET / HTTP/1.1\r\n: x", 400),
        (b"GET / HTTP/1.1\r\nHost : x", 400),
        (b"GET / HTTP/1.1\r\n Host: x", 400),
        (b"GET / HTTP/1.1\r\nA: b\r\n folded", 400),
        (b"GET / HTTP/1.1\r\nA: b\rHost: c", 400),
        (b"GET / HTTP/1.1\r\nA: b\x00", 400),
        (b"GET / HTTP/1.1\r\nH\xf6st: x", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 10000", 413),
        (b"POST / HTTP/1.1\r\nContent-Length: -1", 413),
        (b"POST / HTTP/1.1\r\nContent-Length: 0x5", 413),
        (b"POST / HTTP/1.1\r\nContent-Length: \xb2", 413),
        (b"POST / HTTP/1.1\r\nContent-Length:", 413),
        (b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1", 413),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked", 413),
    ],
)
def test_an_ambiguous_head_is_refused(head: bytes, status: int) -> None:
    with pytest.raises(BadRequest) as refused:
        parse(head)
    assert refused.value.reply.status == status


# -- replies -------------------------------------------------------------------------------------------


def test_a_reply_without_a_request_is_whole() -> None:
    (data,) = serialise(Reply(200, [b"a", b"b"], "text/plain", (("X", "y"),)), DATE)
    assert (
        data
        == (
            f"HTTP/1.1 200 OK\r\nServer: bearerd\r\nDate: {DATE}\r\nContent-Type: text/plain\r\n"
            "Cache-Control: no-store\r\nX: y\r\nContent-Length: 2\r\nConnection: close\r\n\r\nab"
        ).encode()
    )
