"""The status page: one HTML file that contains the status as JSON.

The policy allows only this script and style, by hash, and connections only to this daemon. Text from elsewhere (errors,
scopes, paths) is always inserted as text. Without scripts, the page is a plain table.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC
from html import escape
from importlib.resources import files
from itertools import islice
from math import inf
from typing import Final

from bearerd.api import status as statuses
from bearerd.api.status import HookStatus, State, Status
from bearerd.plural import counted
from bearerd.target_status import TargetStatus
from bearerd.terms import Instant
from bearerd.timeformat import duration, rfc3339, spoken
from bearerd.trouble import Trouble, trouble_of

_HTML: Final = files("bearerd.api").joinpath("page.html").read_text("utf-8")
_TITLE, _HEAD, _BEFORE, _BETWEEN, _AFTER = re.split("<!--(?:host|tokens|status)-->", _HTML)

# Most urgent first: tokens whose readers have nothing valid, then those that may expire.
_ORDER: Final[tuple[State, ...]] = ("expired", "missing", "unwritten", "failing", "starting", "valid")
# Rows in the plain table, as many as the script shows.
_MOST: Final = 300
# In JSON these occur only in strings, where they can be escaped, so that no text ends the script element. U+2028 and
# U+2029 are escaped already, like everything that is not ASCII.
_IN_SCRIPT: Final = str.maketrans({"<": r"\u003c", ">": r"\u003e", "&": r"\u0026"})


def _hash(element: str) -> str:
    """The policy's source for the inline script or style."""
    (content,) = re.findall(f"<{element}>(.*?)</{element}>", _HTML, re.DOTALL)
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


_POLICY: Final = (
    f"default-src 'none'; script-src {_hash('script')}; style-src {_hash('style')}; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
HEADERS: Final[tuple[tuple[str, str], ...]] = (
    ("Content-Security-Policy", _POLICY),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
)


def render(status: Status) -> Iterator[bytes]:
    """The page, in parts."""
    now = status.now.boot

    def urgency(token: tuple[TargetStatus, HookStatus]) -> tuple[float, float, str]:
        target_status, hooks = token
        rank: float = _ORDER.index(statuses.state_of(target_status, now))
        if rank == _ORDER.index("valid") and trouble_of(target_status, hooks.error, status.now):
            rank = _ORDER.index("failing") + 0.5
        return rank, target_status.expires or inf, target_status.name

    ordered = replace(status, tokens=tuple(sorted(status.tokens, key=urgency)))
    yield escape(status.host).join((_TITLE, _HEAD, _BEFORE)).encode()
    for line in _plain(ordered):
        yield line.encode()
    yield _BETWEEN.encode()
    for part in statuses.text(ordered):
        yield part.translate(_IN_SCRIPT).encode()
    yield _AFTER.encode()


def _plain(status: Status) -> Iterator[str]:
    """The content for browsers without scripts."""
    now, count = status.now.boot, len(status.tokens)
    states = Counter(statuses.state_of(target_status, now) for target_status, _ in status.tokens)
    counts = ", ".join(f"{states[state]} {state}" for state in reversed(_ORDER) if states[state])
    yield f"<p>{counted(count, 'token')}: {counts}, in {escape(status.config.directory)} "
    yield f"at {rfc3339(status.now.wall)}. Times are UTC.</p>\n"
    for trouble in statuses.daemon_troubles(status):
        yield f"<p>{_line(trouble, status)}</p>\n"
    if status.config_error is not None and "\n" in status.config_error:
        yield f"<pre>{escape(status.config_error)}</pre>\n"
    yield "<table><tr><th>Token<th>State<th>Expiry<th>Next refresh\n"
    for target_status, hooks in islice(status.tokens, _MOST):
        expiry = "" if target_status.expires is None else _from_now(target_status.expires, status.now)
        turn = (
            _from_now(max(now, target_status.next_refresh), status.now) if 0 < target_status.next_refresh < inf else ""
        )
        yield f"<tr><th>{escape(target_status.name)}<td>{statuses.state_of(target_status, now)}<td>{expiry}<td>{turn}\n"
        if (trouble_of_it := trouble_of(target_status, hooks.error, status.now)) is not None:
            yield f"<tr><td colspan=4>{_line(trouble_of_it, status)}\n"
        if target_status.publish_at is not None:
            publication = _from_now(max(now, target_status.publish_at), status.now)
            yield f"<tr><td colspan=4>a new token is published {publication}\n"
    yield "</table>"
    if count > _MOST:
        yield f"<p>{count - _MOST} more are not shown.</p>"


def _line(trouble: Trouble, status: Status) -> str:
    return escape(spoken(trouble.line, int(status.now.wall), UTC))


def _from_now(moment: float, now: Instant) -> str:
    """A boot time as a duration, with both times in whole seconds like those in the lines of troubles."""
    seconds = int(now.wall + (moment - now.boot)) - int(now.wall)
    if seconds == 0:
        return "now"
    return f"in {duration(seconds)}" if seconds > 0 else f"{duration(-seconds)} ago"
