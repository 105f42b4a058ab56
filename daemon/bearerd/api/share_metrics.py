"""The metrics of the servers through which clients share their tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from bearerd.api.families import Family, Point, Points
from bearerd.api.status import Status
from bearerd.share.types import ShareView


def _shares(
    value_of: Callable[[ShareView], float], combine: Callable[[Iterable[float]], float]
) -> Callable[[Status], Points]:
    """A value of each share. Shares that differ only in prefix or user have the same name, and are combined."""

    def points(status: Status) -> Points:
        values: dict[str, list[float]] = {}
        for view in status.shares:
            values.setdefault(view.name, []).append(value_of(view))
        return (Point({"share": name}, combine(each)) for name, each in values.items())

    return points


SHARE_FAMILIES: Final = (
    Family(
        "bearerd_share_up",
        "gauge",
        "1 if the server through which clients share their tokens is in use; 0 if it is down or not connected yet.",
        _shares(lambda view: view.state == "up", min),
    ),
    Family(
        "bearerd_share_waiting_tokens",
        "gauge",
        "Tokens that are due and wait for the share, because when_unavailable is wait.",
        _shares(lambda view: view.waiting, sum),
    ),
    Family(
        "bearerd_share_tokens_taken_total",
        "counter",
        "Tokens that were taken from the share since the start.",
        _shares(lambda view: view.taken, sum),
    ),
    Family(
        "bearerd_share_tokens_stored_total",
        "counter",
        "Tokens that were given to the share since the start.",
        _shares(lambda view: view.stored, sum),
    ),
    Family(
        "bearerd_share_errors_total",
        "counter",
        "Errors of the share since the start: failed commands and connections, and entries that cannot be used.",
        _shares(lambda view: view.errors, sum),
    ),
)
