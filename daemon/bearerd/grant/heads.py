"""Bounds everything but the body of a reply.

http.client bounds a line (64 KiB) and the lines of one head (100). It bounds neither their sum, nor the
number of interim replies, nor trailers, nor the headers of a proxy's answer to CONNECT. All of these, and
chunk sizes with their extensions, are read with `readline` from one file object, so they are counted there.
"""

from __future__ import annotations

import io
from http.client import HTTPException
from typing import Final

MOST_HEAD_BYTES: Final = 64 * 1024
"""Bytes of all heads of one exchange. By default servers and proxies send 8 to 16 KiB at most."""
MOST_INTERIM_REPLIES: Final = 16
"""Interim replies of one exchange. Servers send one or two (100, 103), or a 102 every few seconds."""


class OutOfBoundsError(HTTPException):
    """A reply beyond the bounds. The text holds nothing of the reply."""


class Allowance:
    """The bytes and interim replies that are left of one exchange."""

    def __init__(self) -> None:
        self._bytes = MOST_HEAD_BYTES
        self._interim_replies = MOST_INTERIM_REPLIES

    @property
    def bytes_left(self) -> int:
        """How many bytes may still come."""
        return self._bytes

    def take_line(self, size: int) -> None:
        """Count a line; raises OutOfBoundsError."""
        self._bytes -= size
        if self._bytes < 0:
            raise OutOfBoundsError(f"more than {MOST_HEAD_BYTES // 1024} KiB of headers")

    def take_interim_reply(self) -> None:
        """Count an interim reply; raises OutOfBoundsError."""
        self._interim_replies -= 1
        if self._interim_replies < 0:
            raise OutOfBoundsError(f"more than {MOST_INTERIM_REPLIES} interim replies (1xx)")


class BoundedReader(io.BufferedReader):
    """The file object from which http.client reads a reply; lines count against an allowance."""

    def __init__(self, raw: io.RawIOBase, allowance: Allowance) -> None:
        super().__init__(raw)
        self._allowance = allowance

    def readline(self, size: int | None = -1, /) -> bytes:
        """One line; raises OutOfBoundsError one byte beyond the allowance."""
        most = self._allowance.bytes_left + 1
        line = super().readline(most if size is None or size < 0 else min(size, most))
        self._allowance.take_line(len(line))
        return line

    def read(self, size: int | None = -1, /) -> bytes:
        """Some bytes; raises OutOfBoundsError for an unlimited read, which a chunk size of -1 causes in http.client."""
        if size is None or size < 0:
            raise OutOfBoundsError("a part without a length")
        return super().read(size)
