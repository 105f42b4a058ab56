"""Parses and serialises HTTP/1.x messages. Pure.

The parser is strict, because requests that two programs read differently are used to evade checks. Section numbers
refer to RFC 9112.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from itertools import chain
from typing import Final

HEAD_LIMIT: Final = 8 * 1024
"""Bytes of the request line and all header lines together. The heads of probes, scrapers and browsers are below 1 KiB,
and 8 KiB is what nginx and Apache accept in one line."""
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
JSON: Final = "application/json"
HOST: Final = r"(?P<host>\[[^\[\]/?#@\s]+\]|[^\[\]:/?#@\s]+)(?::[0-9]*)?"
"""A host as in URLs, and a port that may be empty (RFC 9110 section 7.2), without the obsolete userinfo."""

# Bytes of a reply per write.
_PART: Final = 64 * 1024
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_TARGET: Final = re.compile(r"[\x21-\x7e\x80-\xff]+")
_VERSION: Final = re.compile(r"HTTP/([0-9])\.([0-9])")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
# The origin, absolute and asterisk forms of section 3.2; the fourth form is for proxies. A fragment is dropped.
_PARTS: Final = re.compile(
    rf"(?:[A-Za-z][A-Za-z0-9+.-]*://(?P<authority>{HOST}))?(?P<path>/[^?#]*|\*|)(?:\?(?P<query>[^#]*))?(?:#.*)?"
)
# No request needs a body, but `curl --data` sends one. Longer bodies are refused.
_BODY: Final = re.compile(r"[0-9]{1,4}")


@dataclass(frozen=True, slots=True)
class Request:
    """A request whose head is complete."""

    method: str
    path: str
    query: str
    version: tuple[int, int]
    hosts: tuple[str, ...] = ()
    """The values of all `Host` lines. More than one is an error if `Host` is checked."""
    authority: str | None = None
    """The host of a request target in absolute form (section 3.2.2)."""
    body: int = 0
    """Bytes that follow the head."""
    expects_continue: bool = False


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply. Its body may be made while it is being sent."""

    status: int
    body: Iterable[bytes] = ()
    kind: str = JSON
    headers: tuple[tuple[str, str], ...] = ()


class BadRequest(Exception):  # noqa: N818 - the name of the status; it never leaves this package
    """The request is invalid or too large. Carries the reply."""

    def __init__(self, status: int, error: str | None = None) -> None:
        super().__init__(status)
        # The reply repeats nothing of the request.
        self.reply = document(status, {"error": error or HTTPStatus(status).phrase})


def document(status: int, content: object, *headers: tuple[str, str]) -> Reply:
    """A reply in JSON."""
    return Reply(status, [json.dumps(content).encode() + b"\n"], headers=headers)


# -- reading -------------------------------------------------------------------------------------------


def split(received: bytes) -> tuple[bytes, bytes] | None:
    """The head and the bytes after it; None while the head is incomplete. Raises BadRequest if it is too large."""
    match = re.search(rb"\n\r?\n", received)
    if match is not None and match.end() <= HEAD_LIMIT:
        return received[: match.start()], received[match.end() :]
    if match is None and len(received) <= HEAD_LIMIT:
        return None
    long_line = b"\n" not in received[:HEAD_LIMIT]
    raise BadRequest(HTTPStatus.REQUEST_URI_TOO_LONG if long_line else HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)


def parse(head: bytes) -> Request:
    """Parse a head without its empty line. Raises BadRequest."""
    # Latin-1 keeps every byte, so that an error shows a name as it was sent.
    first, *lines = (line.removesuffix("\r") for line in head.decode("latin-1").split("\n"))
    method, target, version = _request_line(first)
    headers = _headers(lines)
    match = _PARTS.fullmatch(target)
    if match is None:
        raise BadRequest(HTTPStatus.BAD_REQUEST)
    return Request(
        method=method,
        path=re.sub("^/+", "/", match["path"]),  # `//livez` is a common mistake
        query=match["query"] or "",
        version=version,
        hosts=tuple(headers.get("host", ())),
        authority=match["authority"],
        body=_body_length(headers),
        expects_continue=version >= (1, 1) and [v.lower() for v in headers.get("expect", ())] == ["100-continue"],
    )


def _request_line(line: str) -> tuple[str, str, tuple[int, int]]:
    parts = line.split(" ")
    version = _VERSION.fullmatch(parts[-1])
    if len(parts) != len(("method", "target", "version")) or version is None:
        raise BadRequest(HTTPStatus.BAD_REQUEST)
    if version[1] != "1":
        raise BadRequest(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED)
    if _TOKEN.fullmatch(parts[0]) is None or _TARGET.fullmatch(parts[1]) is None:
        raise BadRequest(HTTPStatus.BAD_REQUEST)
    return parts[0], parts[1], (1, int(version[2]))


def _headers(lines: Iterable[str]) -> dict[str, list[str]]:
    """By lower-case name. Section 5: no blank before the colon, no folded lines, no control characters."""
    headers: dict[str, list[str]] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or _TOKEN.fullmatch(name) is None or _CONTROL.search(value):
            raise BadRequest(HTTPStatus.BAD_REQUEST)
        headers.setdefault(name.lower(), []).append(value.strip(" \t"))
    return headers


def _body_length(headers: dict[str, list[str]]) -> int:
    lengths = headers.get("content-length", ["0"])
    if "transfer-encoding" in headers or len(lengths) > 1 or _BODY.fullmatch(lengths[0]) is None:
        raise BadRequest(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "requests must not have a body")
    return int(lengths[0])


# -- writing -------------------------------------------------------------------------------------------


def serialise(reply: Reply, date: str, request: Request | None = None) -> Iterator[bytes]:
    """The bytes of a reply, in parts of about 64 KiB; `request` is None if it could not be parsed.

    A reply of one part has a Content-Length. A longer one is chunked, so that the reader can detect truncation.
    HTTP/1.0 has no chunks.
    """
    parts = _parts(reply.body)
    first, second = next(parts, b""), next(parts, None)
    chunked = second is not None and request is not None and request.version >= (1, 1)
    lines = [
        f"HTTP/1.1 {reply.status} {HTTPStatus(reply.status).phrase}",
        "Server: bearerd",
        f"Date: {date}",
        f"Content-Type: {reply.kind}",
        "Cache-Control: no-store",
        *(f"{name}: {value}" for name, value in reply.headers),
    ]
    if second is None:
        lines.append(f"Content-Length: {len(first)}")
    elif chunked:
        lines.append("Transfer-Encoding: chunked")
    head = "\r\n".join([*lines, "Connection: close", "", ""]).encode("latin-1")
    if request is not None and request.method == "HEAD":
        yield head
        return
    if second is None:
        yield head + first
        return
    yield head
    for part in chain([first, second], parts):
        yield b"%x\r\n%b\r\n" % (len(part), part) if chunked else part
    if chunked:
        yield b"0\r\n\r\n"


def _parts(body: Iterable[bytes]) -> Iterator[bytes]:
    part = bytearray()
    for piece in body:
        part += piece
        if len(part) >= _PART:
            yield bytes(part)
            part.clear()
    if part:
        yield bytes(part)
