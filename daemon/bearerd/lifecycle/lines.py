"""The log lines about replies with a token. Pure; those about failures are in failure_log."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, assert_never

from bearerd.lifecycle.token_state import Kind
from bearerd.timeformat import duration

Level = Literal["debug", "info", "warning", "error"]


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the log."""

    level: Level
    text: str


def reply_line(kind: Kind, remaining: float, wait: float) -> Line | None:
    """The line about a reply after which the token is good for `remaining` and the next request is due in `wait`.

    Both are seconds. None for a token that had expired on arrival: that is a failure.
    """
    good, when = duration(remaining), "now" if wait <= 0 else f"in {duration(wait)}"
    match kind:
        case "new":
            return Line("info", f"token obtained, good for {good}; next refresh {when}")
        case "renewed":
            return Line("info", f"the provider extended the same token, good for {good}; next request {when}")
        case "at_end":
            return Line("debug", f"the provider still returns the token that is expiring; next request {when}")
        case "same":
            return Line("debug", f"the provider returned the same token, good for {good}; next request {when}")
        case "expired":
            return None
        case _:
            assert_never(kind)
