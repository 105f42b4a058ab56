"""Writes the log to stderr, one line per event, as text or JSON."""

from __future__ import annotations

import json
import logging
import os
import queue
import re
import threading
import time
import warnings
from collections.abc import Mapping
from typing import Any, Final, TextIO

from bearerd.log import LOGGER, say
from bearerd.model import Logging
from bearerd.threads import begin
from bearerd.timeformat import rfc3339

# Enough for 10,000 targets that fail at once. At 200 bytes a line, this is 2 MB.
_MOST_LINES: Final = 10_000
# Seconds. A stop promises to end within 5 s, and a log without a reader must not delay it for longer.
_FLUSH_WITHIN: Final = 1.0
# Seconds until the writer goes on after a lack of memory.
_PAUSE: Final = 0.5


# File names may contain any of these characters.
_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")

# The priorities of the journal (sd-daemon(3)), so that `journalctl --priority=warning` works.
_PRIORITIES: Final = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3}


def set_up(settings: Logging, environ: Mapping[str, str]) -> None:
    """Write bearerd's log to stderr, one line for each event and each Python warning."""
    # The writer of an earlier config stays: its thread never ends, and there may be none for another one.
    handler = next((each for each in LOGGER.handlers if isinstance(each, _Writer)), None) or _Writer()
    journal = _is_journal(environ.get("JOURNAL_STREAM", ""))
    form = _Json() if settings.format == "json" else _Text(timed=not journal)
    handler.setFormatter(_Prioritised(form) if journal else form)
    LOGGER.handlers[:] = [handler]
    LOGGER.setLevel(settings.level.upper())
    LOGGER.propagate = False
    # Without a traceback on stderr if the log cannot be written.
    logging.raiseExceptions = False
    warnings.showwarning = _say_warning
    quiet_libraries()


def _say_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,  # noqa: ARG001 - warnings.showwarning has it
    line: str | None = None,  # noqa: ARG001
) -> None:
    """Log a Python warning as one line, instead of two raw lines on stderr."""
    say(logging.WARNING, f"{category.__name__}: {message}", at=f"{filename}:{lineno}")


def quiet_libraries() -> None:
    """Drop the log lines and warnings of libraries. bearerd logs what matters in its own words.

    urllib3 logs URLs and warns about a clock in the past. APScheduler logs a line for each job. Warnings about our own
    code are kept.
    """
    for library in ("urllib3", "requests", "apscheduler"):
        logging.getLogger(library).handlers[:] = [logging.NullHandler()]
        logging.getLogger(library).propagate = False
        warnings.filterwarnings("ignore", module=rf"{library}(\.|$)")


def flush() -> None:
    """Wait a moment for the last lines to be written."""
    for handler in LOGGER.handlers:
        handler.flush()


def _is_journal(stream: str) -> bool:
    """Whether stderr goes to the journal. The variable alone may be inherited by a process with another stderr."""
    try:
        status = os.fstat(2)
    except OSError:
        return False
    return stream == f"{status.st_dev}:{status.st_ino}"


class _Writer(logging.Handler):
    """Writes from a separate thread, so that a pipe without a reader blocks neither a refresh nor the stop."""

    def __init__(self) -> None:
        super().__init__()
        self._lines: queue.Queue[bytes] = queue.Queue(_MOST_LINES)
        self._dropped = 0
        self._written = threading.Condition()
        self._busy = 0
        begin("log", self._run)

    def emit(self, record: logging.LogRecord) -> None:
        line = self._line(record)
        with self._written:
            self._busy += 1
        try:
            self._lines.put_nowait(line)
        except queue.Full:
            self._done(dropped=1)

    def _line(self, record: logging.LogRecord) -> bytes:
        return (self.format(record) + "\n").encode(errors="backslashreplace")

    def flush(self) -> None:
        with self._written:
            self._written.wait_for(lambda: not self._busy, _FLUSH_WITHIN)

    def _run(self) -> None:
        while True:
            try:
                line = self._lines.get()
            except MemoryError:  # of the lock on which it waits
                time.sleep(_PAUSE)
                continue
            try:
                self._write(line)
            except (OSError, MemoryError):  # there is no other place to report it
                pass
            finally:
                self._done()

    def _write(self, line: bytes) -> None:
        with self._written:
            dropped, self._dropped = self._dropped, 0
        if dropped:
            message = f"{dropped} log lines were dropped, because the log was not read fast enough"
            record = LOGGER.makeRecord(LOGGER.name, logging.WARNING, "", 0, message, (), None)
            line = self._line(record) + line
        while line:
            line = line[os.write(2, line) :]

    def _done(self, dropped: int = 0) -> None:
        with self._written:
            self._busy -= 1
            self._dropped += dropped
            self._written.notify_all()


class _Text(logging.Formatter):
    """`2026-11-23T20:00:00Z WARNING name=dnb/bci the sentence key=value`; the journal has the time itself."""

    def __init__(self, *, timed: bool) -> None:
        super().__init__()
        self._timed = timed

    def format(self, record: logging.LogRecord) -> str:
        parts = [*([rfc3339(record.created)] if self._timed else []), f"{record.levelname:<7}"]
        if (target := getattr(record, "target", None)) is not None:
            parts.append(f"name={target}")
        parts.append(_one_line(record.getMessage()))
        parts += [f"{key}={_quoted(value)}" for key, value in getattr(record, "fields", {}).items()]
        return " ".join(parts)


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


class _Prioritised(logging.Formatter):
    """Prefixes a formatter's output with its priority, which the journal removes."""

    def __init__(self, form: logging.Formatter) -> None:
        super().__init__()
        self._form = form

    def format(self, record: logging.LogRecord) -> str:
        return f"<{_PRIORITIES.get(record.levelno, 6)}>{self._form.format(record)}"


def _one_line(text: str) -> str:
    """Text without line ends and terminal control characters."""
    return _CONTROL.sub(" ", text)


def _quoted(value: object) -> str:
    text = _one_line(str(value))
    return json.dumps(text) if " " in text or not text else text
