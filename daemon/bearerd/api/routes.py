"""The routes: decides the reply to a request. The daemon supplies the data.

Each route has a cost, which decides the thread that makes its reply (`connections`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from math import ceil
from typing import Final
from urllib.parse import parse_qs

from bearerd.api import host
from bearerd.api import status as statuses
from bearerd.api.daemon import Daemon
from bearerd.api.message import BadRequest, Reply, Request, document
from bearerd.timeformat import duration

# Reasons in a reply of /readyz: the first few of 10,000 are enough.
_MOST_REASONS: Final = 20
# Characters of a config error: a path of 255, a position, and the kind of error.
_LONGEST_ERROR: Final = 400
_REFRESH: Final = re.compile(r"/refresh/([^/]+/[^/]+)")
_DIGEST: Final = re.compile(r"[0-9A-Fa-f]{16}")


class Cost(Enum):
    """The cost of making and sending a reply."""

    INSTANT = "instant"
    """Never waits."""
    SMALL = "small"
    """May wait for the daemon, but fits into a socket's buffer, so a slow reader does not delay it."""
    LARGE = "large"
    """Of any size: a slow reader occupies its thread."""


@dataclass(frozen=True, slots=True)
class Route:
    """How a reply is made."""

    cost: Cost
    make: Callable[[Daemon], Reply]


@dataclass(frozen=True, slots=True)
class Access:
    """The routes of one listener."""

    everything: bool = False
    """All routes, as on the control socket; otherwise only those of `listen`."""
    page: bool = False
    hosts: frozenset[str] | None = None
    """The accepted names in `Host`, in canonical form; None accepts any value, or no `Host`."""


def find(request: Request, access: Access) -> Route:
    """The route of a request. Errors are routes, too."""
    try:
        if access.hosts is not None:
            host.check(request, access.hosts)
    except BadRequest as error:
        return _instant(error.reply)
    routes = dict(_ROUTES)
    if access.everything or access.page:
        routes["/"] = _PAGE
    if access.everything:
        routes["/status"] = Route(Cost.LARGE, lambda daemon: _status(daemon, request.query))
    refresh = _REFRESH.fullmatch(request.path) if access.everything else None
    if refresh is None and request.path not in routes:
        paths = [*sorted(routes), *(["POST /refresh/<client>/<token>"] if access.everything else [])]
        return _instant(document(404, {"error": f"not found; the paths are {', '.join(paths)}"}))
    allowed = ("POST",) if refresh else ("GET", "HEAD")
    if request.method not in allowed:
        said = {"error": f"expected {' or '.join(allowed)}"}
        return _instant(document(405, said, ("Allow", ", ".join(allowed))))
    if refresh is None:
        return routes[request.path]
    name = refresh[1]
    return Route(Cost.SMALL, lambda daemon: _refresh(daemon, name, request.query))


def _instant(reply: Reply) -> Route:
    return Route(Cost.INSTANT, lambda _: reply)


def _livez(daemon: Daemon) -> Reply:
    alive = daemon.alive()
    reasons = [] if alive else ["the scheduler's heartbeat is stale: no token is refreshed"]
    return document(200 if alive else 503, {"ok": alive, "reasons": reasons, "config_error": _config_error(daemon)})


def _readyz(daemon: Daemon) -> Reply:
    reasons = [f"{name}: {why}" for name, why in statuses.unready(daemon.status())]
    said = {"ok": not reasons, "reasons": _first(reasons), "config_error": _config_error(daemon)}
    return document(503 if reasons else 200, said)


def _config_error(daemon: Daemon) -> str | None:
    """The first line of the config error, which is enough for a probe."""
    error = daemon.config_error()
    return error.partition("\n")[0][:_LONGEST_ERROR] if error else None


def _first(reasons: list[str]) -> list[str]:
    rest = len(reasons) - _MOST_REASONS
    return reasons if rest <= 0 else [*reasons[:_MOST_REASONS], f"and {rest} more"]


def _metrics(daemon: Daemon) -> Reply:
    from bearerd.api import metrics  # noqa: PLC0415 - its library takes memory, needed only by scraped daemons

    return Reply(200, metrics.expose(daemon.status()), metrics.CONTENT_TYPE)


def _page(daemon: Daemon) -> Reply:
    from bearerd.api import page  # noqa: PLC0415 - likewise

    return Reply(200, page.render(daemon.status()), "text/html; charset=utf-8", page.HEADERS)


def _status(daemon: Daemon, query: str) -> Reply:
    only = parse_qs(query).get("name", [None])[0]
    return Reply(200, (part.encode() for part in statuses.text(daemon.status(), only)))


def _refresh(daemon: Daemon, name: str, query: str) -> Reply:
    given = parse_qs(query, keep_blank_values=True).get("not", [None])[0]
    if given is not None and _DIGEST.fullmatch(given) is None:
        return document(400, {"error": "expected not=<first 16 hex digits of the failed token's SHA-256>"})
    requested = daemon.refresh(name, given)
    if requested.answer == "unknown":
        return document(404, {"error": f"there is no token '{name}'"})
    if requested.answer == "newer":
        return document(200, {"name": name, "answer": "there is a newer token in its files already"})
    if requested.answer == "later":
        seconds = ceil(round(requested.after, 3))  # two readings of a clock differ by less than a millisecond
        why = (
            "requested less than a minute ago"
            if requested.hold is None
            else "requested refreshes have used up their half of its rate_limit"
        )
        said = {"name": name, "error": f"{why}; try again in {duration(seconds)}", "retry_after": seconds}
        return document(429, said, ("Retry-After", str(seconds)))
    held = None if requested.hold is None else statuses.hold(requested.hold, requested.held_for)
    return document(202, {"name": name, "answer": "accepted", "grants": requested.grants, "held": held})


_PAGE: Final = Route(Cost.LARGE, _page)
_ROUTES: Final[Mapping[str, Route]] = {
    "/livez": Route(Cost.INSTANT, _livez),
    "/readyz": Route(Cost.SMALL, _readyz),
    "/metrics": Route(Cost.LARGE, _metrics),
}
