"""The code of a refusal, in any field in which providers write it. Pure.

RFC 6749 section 5.2 calls the field `error`. Others have a code under another name, or only a title (RFC 9457). A code
is shown in the log and in status: so it is short, it looks like a code or like a few words, and it contains nothing
secret.
"""

from __future__ import annotations

import json
import re
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, quote_plus

OF_THE_CLIENT: Final = frozenset({"invalid_client", "unauthorized_client", "invalid_grant", "unsupported_grant_type"})
"""Codes that refuse the client itself, and so all of its tokens."""
PASSING: Final = frozenset({"temporarily_unavailable", "server_error"})
TOO_OFTEN: Final = frozenset(
    {"slow_down", "too_many_requests", "rate_limit_exceeded", "rate_limited", "too_many_attempts"}
)
CLEAR: Final = frozenset({"invalid_client", "invalid_scope", "invalid_target", "unsupported_grant_type"})
"""These codes are clear, whatever their description contains ("quota.read")."""
_KNOWN: Final = OF_THE_CLIENT | PASSING | TOO_OFTEN | CLEAR | {"invalid_request"}

# Characters. The longest code in the field has 40.
_LONGEST: Final = 48
_OAUTH: Final = re.compile(r"[A-Za-z][A-Za-z_]{2,47}|[0-9]{1,6}")
# Such as E0000047 (Okta), oauth.v2.InvalidApiKey (Apigee) and 900901 (WSO2).
_OTHER: Final = re.compile(r"(?:[A-Za-z_-]+[0-9]?\.)*[A-Za-z][A-Za-z_-]{2,}|[A-Za-z]{1,12}[_-]?[0-9]{1,8}|[0-9]{1,8}")
_WORDS: Final = re.compile(r"[A-Za-z]{1,20}(?: [A-Za-z]{1,20}){1,7}")
# Letters. Shorter words are in most secrets by chance, and say nothing about them.
_TELLING: Final = 4

# Characters. No other field of a reply contains a text of this length by chance.
_RECOGNIZABLE: Final = 8

_NAMES: Final = ("code", "errorCode", "ErrorCode", "error_code", "errorcode")
# Elements of a list of errors that are looked at. Providers send one.
_MOST_ERRORS: Final = 4


@dataclass(frozen=True, slots=True)
class Code:
    """A refusal's code."""

    text: str | None = None
    """As it is shown; None without one that may be shown."""
    oauth: str | None = None
    """The code that decides what the refusal means: the reply's `error`, or a code of RFC 6749 in another field."""


def code_of(
    fields: Mapping[str, Any] | None, headers: Mapping[str, str], status: int, never_show: tuple[str, ...]
) -> Code:
    """The code of a refusal; `never_show` are secrets."""
    fields = fields or {}
    error = fields.get("error")
    if isinstance(error, dict):
        error = error.get("code", error.get("errorCode"))
    if isinstance(error, str) and _OAUTH.fullmatch(error) and not is_secret(error, never_show):
        return Code(error, error.lower())
    for candidate in _candidates(fields, headers):
        text = _shown(candidate, status, never_show)
        if text is not None:
            return Code(text, text.lower() if text.lower() in _KNOWN else None)
    return Code()


def _candidates(fields: Mapping[str, Any], headers: Mapping[str, str]) -> Iterator[Any]:
    """Every value that may be a code, the most telling first."""
    error = fields.get("error")
    if isinstance(error, dict):
        yield from (error.get(name) for name in (*_NAMES, "status", "type"))
    yield from (fields.get(name) for name in _NAMES)
    for one in _errors(fields):
        yield from (one.get(name) for name in _NAMES)
    challenge = re.search(r'\berror="?([A-Za-z_]{3,48})\b', headers.get("www-authenticate", ""))  # RFC 6750
    yield challenge[1] if challenge else None
    yield error
    yield from (one.get("title") for one in (fields, *_errors(fields)))


def _errors(fields: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The objects inside a reply that describe an error: `errors`, UPS's `response.errors`, Apigee's `fault`."""
    response, fault = fields.get("response"), fields.get("fault")
    for holder in (fields, response):
        several = holder.get("errors") if isinstance(holder, dict) else None
        yield from (
            one for one in (several if isinstance(several, list) else ())[:_MOST_ERRORS] if isinstance(one, dict)
        )
    if isinstance(fault, dict):
        yield fault
        if isinstance(fault.get("detail"), dict):
            yield fault["detail"]


def _shown(value: Any, status: int, never_show: tuple[str, ...]) -> str | None:
    """A code or a few words as they are shown; None for what looks like neither, or could be a secret."""
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str) or text == str(status) or is_secret(text, never_show):
        return None
    # Words of a secret may be quoted in part.
    telling = [word for word in re.split(r"[^A-Za-z]+", text) if len(word) >= _TELLING]
    if text.lower() not in _KNOWN and any(is_secret(word, never_show) for word in telling):
        return None
    if len(text) <= _LONGEST and _OTHER.fullmatch(text):
        return text
    return f'"{text}"' if len(text) <= _LONGEST and _WORDS.fullmatch(text) else None


def is_secret(text: str, never_show: tuple[str, ...]) -> bool:
    """Whether a text contains a secret or a part of one, in any case."""
    shown = text.casefold()
    return any(shown in secret.casefold() or secret.casefold() in shown for secret in never_show if secret)


def in_a_reply(secrets: Iterable[str]) -> frozenset[str]:
    """How a reply in JSON would repeat these secrets: as they are, in base64, or as they were sent in a form or a URL.

    A secret of a few characters is left out, because other texts contain it by chance.
    """
    forms = {form for secret in secrets for form in (secret, *_encoded(secret))}
    return frozenset(json.dumps(form)[1:-1] for form in forms if len(form) >= _RECOGNIZABLE)


def _encoded(secret: str) -> Iterator[str]:
    yield from (quote(secret, safe=""), quote_plus(secret))
    for encode in (b64encode, urlsafe_b64encode):
        yield encode(secret.encode()).decode().rstrip("=")


def description(fields: Mapping[str, Any] | None) -> str:
    """All text of a refusal. It is searched and never shown."""
    fields = fields or {}
    values: list[Any] = []
    for one in (fields, *_errors(fields)):
        for key in _TEXTS:
            value = one.get(key)
            values += list(value.values()) if isinstance(value, dict) else [value]
    return " ".join(value for value in values if isinstance(value, str))


_TEXTS: Final = (
    *("error_description", "message", "errorMessage", "errorSummary", "errmsg", "detail", "title", "faultstring"),
    *("error", "Error"),
)
