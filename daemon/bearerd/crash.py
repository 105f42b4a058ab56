"""Reports exceptions that nothing handled: their types and where they were raised, but not their texts.

Libraries put what they were given into the texts of their exceptions, so a text could contain a secret or a token.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Iterator
from typing import Final

from bearerd.errors import lack
from bearerd.log import LOGGER, say

_BUG: Final = "this is a bug in bearerd, please report it"


def hide_texts() -> None:
    """Report the exceptions of all threads and finalizers without their texts, instead of with a traceback."""
    sys.excepthook = lambda _kind, error, _traceback: _report("the main thread", error)
    sys.unraisablehook = lambda failed: _report("a finalizer", failed.exc_value)
    threading.excepthook = _of_thread


def _of_thread(failed: threading.ExceptHookArgs) -> None:
    if failed.exc_type is not SystemExit:
        _report(f"thread {failed.thread.name if failed.thread else '?'}", failed.exc_value)


def _report(failed: str, error: BaseException | None) -> None:
    """Log it on one line if there is a log, and write it to stderr otherwise."""
    kind = type(error).__name__
    try:
        said = f"{failed} failed: {lack(error) or f'{kind}; {_BUG}'}"
        chain = " from ".join(_origins(error))
        if any(not isinstance(handler, logging.NullHandler) for handler in LOGGER.handlers):
            say(logging.ERROR, said, raised=chain)
            for handler in LOGGER.handlers:
                handler.flush()  # the process may end now
        else:
            _write(f"bearerd: {said}: {chain}")
    except BaseException:  # noqa: BLE001 - out of memory, for example
        _write(f"bearerd: {failed} failed: {kind}")


def _write(line: str) -> None:
    try:
        os.write(2, f"{line}\n".encode(errors="backslashreplace"))
    except OSError:
        return  # only the exit code reports it then


def _origins(error: BaseException | None) -> Iterator[str]:
    """For the exception and each one that it was raised from: its type, and the calls from the innermost outwards."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        calls = []
        traceback = error.__traceback__
        while traceback is not None:
            code = traceback.tb_frame.f_code
            calls.append(f"{code.co_filename}:{traceback.tb_lineno} {code.co_name}")
            traceback = traceback.tb_next
        yield " < ".join([type(error).__name__, *reversed(calls)])
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
