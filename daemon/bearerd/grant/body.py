"""The bytes of a reply's body: a JSON object within bounds, or why it is none. Pure."""

from __future__ import annotations

import math
from typing import Any, Final

from bearerd import boundedjson

LONGEST_BODY: Final = 64 * 1024
"""Bytes. The largest token reply in the field, a JWT of 40 KiB with its groups, fits."""


class _NotJsonError(ValueError):
    """The body is JSON that bearerd does not accept."""


def parse(body: bytes, fault: str = "") -> tuple[dict[str, Any] | None, str]:
    """The JSON object in a body, or why there is none; `fault` is why the body could not be decoded."""
    if fault:
        return None, fault
    if len(body) > LONGEST_BODY:
        return None, f"the reply is longer than {LONGEST_BODY} bytes"
    if not body.strip():
        return None, "the reply is empty"
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None, "the reply is not UTF-8"
    try:
        value = boundedjson.loads(
            text, object_pairs_hook=_object, parse_constant=_constant, parse_float=_float, parse_int=_int
        )
    except (_NotJsonError, boundedjson.TooDeepError) as error:
        return None, f"the reply {error}"
    except ValueError:
        return None, "the reply is HTML, not JSON" if text.lstrip().startswith("<") else "the reply is not JSON"
    if not isinstance(value, dict):
        return None, "the reply is not a JSON object"
    return value, ""


def is_html(body: bytes) -> bool:
    """Whether a body begins like HTML."""
    return body.lstrip()[:1] == b"<"


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise _NotJsonError("names a field twice")
    return result


def _float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):  # 1e999
        raise _NotJsonError("holds a number that is too large")
    return number


def _int(text: str) -> int:
    _float(text)  # at most what a float can be: a million digits would cost seconds at each reader
    return int(text)


def _constant(_name: str) -> Any:
    raise _NotJsonError("holds NaN or Infinity, which is not JSON")
