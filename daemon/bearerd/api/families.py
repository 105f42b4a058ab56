"""A metric: its name, its help, and how its samples are made from the status."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from bearerd.api.status import Status


class Point(NamedTuple):
    """One sample: labels, value, and the suffix of the family's name."""

    labels: dict[str, str]
    value: float
    suffix: str = ""


Points = Iterable[Point]


@dataclass(frozen=True, slots=True)
class Family:
    """All samples of one name."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    points: Callable[[Status], Points]
