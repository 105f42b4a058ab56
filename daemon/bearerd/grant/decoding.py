"""Removes the content coding that some servers apply although nobody asked for it (RFC 9110 section 8.4). Pure.

The compressed body is bounded where it is read, and the decompressed one here, so a bomb costs no memory.
"""

from __future__ import annotations

import zlib
from typing import Final

from bearerd.grant.body import LONGEST_BODY

_GZIP_MAGIC: Final = b"\x1f\x8b"
# zlib's `wbits`: a gzip header; a zlib header, as RFC 9110 says; none, as some servers send `deflate`.
_GZIP: Final = 31
_ZLIB: Final = 15
_RAW: Final = -15
_PLAIN: Final = frozenset({"", "identity"})
# Codings whose names may be shown. Any other name is the provider's text.
_KNOWN: Final = frozenset({"br", "zstd", "compress", "x-compress", "dcb", "dcz"})


def decoded(body: bytes, coding: str) -> tuple[bytes, str]:
    """The body without its coding, up to one byte beyond LONGEST_BODY; or the body as it is, and why it is unusable.

    A plain body that claims a coding is accepted, and one of gzip that claims none is decoded.
    """
    coding = coding.strip().lower()
    gzipped = body.startswith(_GZIP_MAGIC)
    if (coding in _PLAIN and not gzipped) or len(body) > LONGEST_BODY:
        return body, ""
    headed = _GZIP if gzipped else _ZLIB if coding == "deflate" else None
    content = None if headed is None else _decompressed(body, headed)
    if content is None and _is_text(body):
        return body, ""
    if content is None and headed == _ZLIB:
        # Only now: without a header and a checksum, one in ten plain bodies would pass for compressed.
        content = _decompressed(body, _RAW)
    if content is not None:
        return content, ""
    if headed is not None or coding in {"gzip", "x-gzip"}:
        return body, "the reply is compressed, but damaged or cut off"
    shown = f"as {coding}" if coding in _KNOWN else "in an unknown way"
    return body, f"the reply is encoded {shown}; bearerd reads only gzip and deflate, and asks for neither"


def _decompressed(body: bytes, wbits: int) -> bytes | None:
    """The content of all members, up to one byte beyond LONGEST_BODY; None if it is damaged or cut off."""
    content = b""
    while body:
        stream = zlib.decompressobj(wbits)
        try:
            content += stream.decompress(body, LONGEST_BODY + 1 - len(content))
        except zlib.error:
            return None
        if len(content) > LONGEST_BODY:
            return content
        if not stream.eof:
            return None
        # Only gzip has several members; servers that add other bytes at the end are no fault.
        body = stream.unused_data if stream.unused_data.startswith(_GZIP_MAGIC) else b""
    return content


def _is_text(body: bytes) -> bool:
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True
