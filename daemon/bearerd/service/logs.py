"""How the log is written: to stderr, a line an event, as text or JSON."""

from __future__ import annotations

import json
import logging
import os
import queue
import re
import threading
import warnings
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final, TextIO

from bearerd.log import LOGGER, say
from bearerd.model import Logging
from bearerd.timeformat import rfc3339

# A line is 200 bytes: 2 MB at most, the lines of 10,000 targets that all fail at once.
_MOST_LINES: Final = 10_000
_FLUSH_WITHIN: Final = 1.0


# A name of a file may hold any of them.
_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")

# As systemd's journal has them (sd-daemon(3)): `journalctl --priority=warning` shows what matters.
_PRIORITIES: Final = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3}


def set_up(settings: Logging, environ: Mapping[str, str]) -> None:
    """Write bearerd's log to stderr, a line for each event and for each warning of Python's."""
    handler = _Writer()
    journal = _is_journal(environ.get("JOURNAL_STREAM", ""))
    form = _Json() if settings.format == "json" else _Text(timed=not journal)
    handler.setFormatter(_Prioritised(form) if journal else form)
    LOGGER.handlers[:] = [handler]
    LOGGER.setLevel(settings.level.upper())
    LOGGER.propagate = False
    # A log that cannot be written is no reason for a traceback in it.
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
    """A warning of Python's warnings module as a line of the log, in place of two raw lines on stderr."""
    say(logging.WARNING, f"{category.__name__}: {message}", at=f"{filename}:{lineno}")


def quiet_libraries() -> None:
    """Drop what the libraries log and warn of by themselves: what matters of it is said in our words.

    urllib3 logs URLs, and warns of a clock in the past; APScheduler logs a line for each job. Warnings about
    our own code are not dropped.
    """
    for library in ("urllib3", "requests", "apscheduler"):
        logging.getLogger(library).handlers[:] = [logging.NullHandler()]
        logging.getLogger(library).propagate = False
        warnings.filterwarnings("ignore", module=rf"{library}(\.|$)")


def flush() -> None:
    """Give what was said last a moment to be written."""
    for handler in LOGGER.handlers:
        handler.flush()


def _is_journal(stream: str) -> bool:
    """Whether stderr goes to systemd's journal: the variable alone may be inherited by who writes elsewhere."""
    try:
        status = os.fstat(2)
    except OSError:
        return False
    return stream == f"{status.st_dev}:{status.st_ino}"


class _Writer(logging.Handler):
    """Writes from a thread of its own: a pipe that nobody reads must stop no refresh, and no end."""

    def __init__(self) -> None:
        super().__init__()
        self._lines: queue.Queue[bytes] = queue.Queue(_MOST_LINES)
        self._dropped = 0
        self._written = threading.Condition()
        self._busy = 0
        threading.Thread(target=self._run, name="log", daemon=True).start()

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
            line = self._lines.get()
            with self._written:
                dropped, self._dropped = self._dropped, 0
            if dropped:
                message = f"{dropped} lines of the log were dropped: they were not read in time"
                record = LOGGER.makeRecord(LOGGER.name, logging.WARNING, "", 0, message, (), None)
                line = self._line(record) + line
            with suppress(OSError):  # nobody is there to be told
                while line:
                    line = line[os.write(2, line) :]
            self._done()

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
        words = [*([rfc3339(record.created)] if self._timed else []), f"{record.levelname:<7}"]
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


class _Prioritised(logging.Formatter):
    """What another formatter says, after its priority, which the journal takes off."""

    def __init__(self, form: logging.Formatter) -> None:
        super().__init__()
        self._form = form

    def format(self, record: logging.LogRecord) -> str:
        return f"<{_PRIORITIES.get(record.levelno, 6)}>{self._form.format(record)}"


def _one_line(text: str) -> str:
    """Without line ends, and without what a terminal would obey."""
    return _CONTROL.sub(" ", text)


def _quoted(value: object) -> str:
    text = _one_line(str(value))
    return json.dumps(text) if " " in text or not text else text
