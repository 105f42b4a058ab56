"""What the rest says to the log: a level, a sentence, and fields. service/logs.py writes it out."""

from __future__ import annotations

import logging
from typing import Final

LOGGER: Final = logging.getLogger("bearerd")


def say(level: int, message: str, *, name: str | None = None, **fields: object) -> None:
    """One event, one line; `name` is the target's."""
    if LOGGER.isEnabledFor(level):
        given = {key: value for key, value in fields.items() if value is not None}
        LOGGER.log(level, message, extra={"target": name, "fields": given})
