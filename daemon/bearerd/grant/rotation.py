"""Chooses which of a client's secrets is tried. Pure.

Secrets are identified by fingerprints. Of a list (newest first) the secret that works stays in use; a newer one that
was never tried is tried before it, once. When the secret in use is refused, the next one is tried at once. When all
were refused, each later attempt takes the next one in turn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Rotation:
    """The history of a client's secrets, as fingerprints."""

    worked: str | None = None
    passed_over: tuple[str, ...] = ()
    """Newer secrets that were refused while `worked` worked: probably not active yet."""
    refused: tuple[str, ...] = ()
    """Secrets that were refused since one worked, the latest last."""

    def choice(self, present: Sequence[str]) -> int:
        """The index of the secret to try."""
        untried = [index for index in self._order(present) if present[index] not in self.refused]
        if untried:
            return untried[0]
        return min(range(len(present)), key=lambda index: self.refused.index(present[index]))

    def exhausted(self, present: Sequence[str]) -> bool:
        """Whether all present secrets were refused."""
        return set(present) <= set(self.refused)

    def after_refusal(self, tried: str, present: Sequence[str]) -> Rotation:
        """The rotation after the provider refused a secret."""
        before = (known for known in self.refused if known in present and known != tried)
        return Rotation(self.worked, self.passed_over, (*before, tried))

    def after_success(self, tried: str, present: Sequence[str]) -> Rotation:
        """The rotation after the provider accepted a secret."""
        over = tuple(known for known in present if known != tried and known in (*self.passed_over, *self.refused))
        return Rotation(tried, over)

    def _order(self, present: Sequence[str]) -> list[int]:
        if self.worked not in present:
            return list(range(len(present)))
        at = present.index(self.worked)
        newer = [index for index in range(at) if present[index] not in self.passed_over]
        return [*newer, at, *(index for index in range(len(present)) if index != at and index not in newer)]


def dump(rotation: Rotation) -> dict[str, Any]:
    """The fields of a rotation to save."""
    return {"worked": rotation.worked, "passed_over": rotation.passed_over, "refused": rotation.refused}


def load(fields: Mapping[str, Any]) -> Rotation:
    """The rotation in saved fields; invalid ones are ignored."""
    worked = fields.get("worked")
    return Rotation(
        worked if isinstance(worked, str) else None, _texts(fields.get("passed_over")), _texts(fields.get("refused"))
    )


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(item for item in value if isinstance(item, str)) if isinstance(value, list) else ()
