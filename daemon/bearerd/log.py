"""Log events: a level, a sentence, and fields. `service/logs` writes them."""

from __future__ import annotations

import logging
from typing import Final

LOGGER: Final = logging.getLogger("bearerd")


def say(level: int, message: str, *, name: str | None = None, **fields: object) -> None:
    """Log one event, on one line; `name` is the full name of its target."""
    if LOGGER.isEnabledFor(level):
        given = {key: value for key, value in fields.items() if value is not None}
        LOGGER.log(level, message, extra={"target": name, "fields": given})
