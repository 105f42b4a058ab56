"""Log events: a level, a sentence, and fields. `service/logs` writes them."""

from __future__ import annotations

import logging
from typing import Final

LOGGER: Final = logging.getLogger("bearerd")


def say(level: int, message: str, *, name: str | None = None, **fields: object) -> None:
    """Log one event, on one line; `name` is the full name of its target. Without memory, it is dropped."""
    if not LOGGER.isEnabledFor(level):
        return
    try:
        given = {key: value for key, value in fields.items() if value is not None}
        LOGGER.log(level, message, extra={"target": name, "fields": given})
    except MemoryError:  # the caller must not fail because of its log line
        return
