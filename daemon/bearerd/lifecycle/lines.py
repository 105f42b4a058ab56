"""The log lines about replies with a token. Pure; those about failures are in failure_log."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, assert_never

from bearerd.lifecycle.token_state import Kind
from bearerd.timeformat import after, duration

# Seconds. Both are differences of the same two moments, so they differ by rounding only.
_SAME: Final = 0.001

Level = Literal["debug", "info", "warning", "error"]


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the log."""

    level: Level
    text: str


def resumed_line(remaining: float, publish_in: float) -> Line:
    """The line about a token from a record. Both are seconds, as below."""
    return Line("info", f"the token from the record is good for {duration(remaining)}{_published(publish_in)}")


def taken_line(remaining: float, wait: float, publish_in: float) -> Line:
    """The line about a token that another daemon of the fleet obtained."""
    good, when = duration(remaining), after(wait)
    return Line("info", f"token taken from the fleet; good for {good}{_published(publish_in)}; next refresh {when}")


def nbf_line(nbf: float, publish_in: float) -> Line | None:
    """The warning about a token that is valid only in `nbf` seconds, and published in `publish_in` anyway.

    None if it is valid by then.
    """
    if nbf <= publish_in + _SAME:
        return None
    return Line(
        "warning",
        f"the new token becomes valid only in {duration(nbf)} (its nbf), but is published in {duration(publish_in)} "
        "anyway; compare this machine's clock with the provider's",
    )


def _published(publish_in: float) -> str:
    return f"; it is published in {duration(publish_in)}" if publish_in else ""


def reply_line(kind: Kind, remaining: float, wait: float, publish_in: float = 0.0) -> Line | None:
    """The line about a reply after which the token is good for `remaining` and the next request is due in `wait`.

    All are seconds; `publish_in` is 0 for a token that is published at once. None for a token that had expired on
    arrival: that is a failure.
    """
    good, when = duration(remaining), after(wait)
    match kind:
        case "new":
            return Line("info", f"token obtained, good for {good}{_published(publish_in)}; next refresh {when}")
        case "renewed":
            return Line("info", f"the provider extended the same token, good for {good}; next request {when}")
        case "at_end":
            return Line("debug", f"the provider still returns the token that is expiring; next request {when}")
        case "same":
            return Line("debug", f"the provider returned the same token, good for {good}; next request {when}")
        case "kept":
            text = "the provider returned another token with a lifetime of 0; the current one is kept"
            return Line("debug", f"{text}, good for {good}; next request {when}")
        case "expired":
            return None
        case _:
            assert_never(kind)
