"""How the log is written: to stderr, a line an event, as text or JSON."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

from bearerd.log import LOGGER
from bearerd.model import Logging
from bearerd.words import rfc3339


def set_up(settings: Logging) -> None:
    """Write bearerd's log to stderr, and silence the libraries' own."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if settings.format == "json" else _Text())
    LOGGER.handlers[:] = [handler]
    LOGGER.setLevel(settings.level.upper())
    LOGGER.propagate = False
    # A log that cannot be written is no reason for a traceback in it.
    logging.raiseExceptions = False
    # urllib3 logs URLs, APScheduler a line for each job: what matters of either is said in our words.
    for library in ("urllib3", "requests", "apscheduler"):
        logging.getLogger(library).handlers[:] = [logging.NullHandler()]
        logging.getLogger(library).propagate = False


class _Text(logging.Formatter):
    """`2026-11-23T20:00:00Z WARNING name=dnb/bci the sentence key=value`."""

    def format(self, record: logging.LogRecord) -> str:
        words = [rfc3339(record.created), f"{record.levelname:<7}"]
        if (target := getattr(record, "target", None)) is not None:
            words.append(f"name={target}")
        words.append(_one_line(record.getMessage()))
        words += [f"{key}={_quoted(value)}" for key, value in getattr(record, "fields", {}).items()]
        return " ".join(words)


class _Json(logging.Formatter):
    """One object a line: time, level, message, name, and the event's own fields."""

    def format(self, record: logging.LogRecord) -> str:
        event: dict[str, Any] = {
            "time": rfc3339(record.created),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
        }
        if (target := getattr(record, "target", None)) is not None:
            event["name"] = target
        return json.dumps(event | getattr(record, "fields", {}), default=str)


def _one_line(text: str) -> str:
    return text.replace("\r", " ").replace("\n", " ")


def _quoted(value: object) -> str:
    text = _one_line(str(value))
    return json.dumps(text) if " " in text or not text else text
