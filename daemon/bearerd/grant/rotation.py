"""Which of a client's secrets is tried. Pure.

Secrets are known here by fingerprints. With a list (newest first) the one that works is stayed with; one
that is newer and was never seen is tried before it, once. When the one in use is refused the next is
tried at once; when all were, a round is over, and each later attempt takes one of them in turn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Rotation:
    """What is known of a client's secrets."""

    worked: str | None = None
    passed_over: tuple[str, ...] = ()
    """Newer ones that were refused while `worked` worked: not active yet, most likely."""
    refused: tuple[str, ...] = ()
    """Those refused since one worked, the latest last."""

    def choice(self, present: Sequence[str]) -> int:
        """Which of the secrets that are there is to be tried, by its place in the list."""
        untried = [index for index in self._order(present) if present[index] not in self.refused]
        if untried:
            return untried[0]
        return min(range(len(present)), key=lambda index: self.refused.index(present[index]))

    def exhausted(self, present: Sequence[str]) -> bool:
        """Whether every secret that is there was refused."""
        return set(present) <= set(self.refused)

    def after_refusal(self, tried: str, present: Sequence[str]) -> Rotation:
        """The provider refused the client with this secret."""
        before = (known for known in self.refused if known in present and known != tried)
        return Rotation(self.worked, self.passed_over, (*before, tried))

    def after_success(self, tried: str, present: Sequence[str]) -> Rotation:
        """The provider took this secret."""
        over = tuple(known for known in present if known != tried and known in (*self.passed_over, *self.refused))
        return Rotation(tried, over)

    def _order(self, present: Sequence[str]) -> list[int]:
        if self.worked not in present:
            return list(range(len(present)))
        at = present.index(self.worked)
        newer = [index for index in range(at) if present[index] not in self.passed_over]
        return [*newer, at, *(index for index in range(len(present)) if index != at and index not in newer)]


def dump(rotation: Rotation) -> dict[str, Any]:
    """A rotation as it is kept."""
    return {"worked": rotation.worked, "passed_over": rotation.passed_over, "refused": rotation.refused}


def load(fields: Mapping[str, Any]) -> Rotation:
    """What was kept; nothing where it makes no sense."""
    worked = fields.get("worked")
    return Rotation(
        worked if isinstance(worked, str) else None, _texts(fields.get("passed_over")), _texts(fields.get("refused"))
    )


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(item for item in value if isinstance(item, str)) if isinstance(value, list) else ()
