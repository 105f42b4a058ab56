"""`bearerd status`: shows every token, from the daemon, or without one from the records."""

from __future__ import annotations

import json
import os
import posixpath
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, NoReturn

from rich.console import Console
from rich.live import Live
from rich.text import Text

from bearerd.cli.ask import NoAnswer, Reading, ask_status
from bearerd.cli.colour import coloured
from bearerd.cli.paper import Paper
from bearerd.cli.picture import picture
from bearerd.clock import SystemClock
from bearerd.printable import printable
from bearerd.service.offline import offline
from bearerd.terms import OWN_DIRECTORY

_UNKNOWN_SIZE: Final = os.terminal_size((80, 24))
_REDRAWN_EACH: Final = 1.0  # seconds: the unit of the times that are shown


@dataclass(frozen=True, slots=True)
class _Seen:
    """A status document."""

    document: Mapping[str, Any]
    body: bytes
    troubles: tuple[str, ...] = ()
    """Why it is not from a daemon, and why parts are missing."""


def status(socket: str, directory: str | None, *, as_json: bool, watch: bool) -> int:
    """Show the status. Returns 0 if a daemon answered, whatever the state of its tokens, else 1.

    `directory` contains the records; None to derive it from the socket's path.
    """
    console = _console()
    if watch:
        _watch(console, socket, directory)
        return 0
    seen = _look(socket, directory)
    for trouble in seen.troubles:
        print(f"bearerd: {printable(trouble)}", file=sys.stderr)
    if as_json:
        sys.stdout.flush()
        sys.stdout.buffer.write(seen.body)
    elif seen.document["tokens"] or not seen.troubles:
        # The shell's prompt takes the last line.
        paper = replace(_paper(console), height=console.height - 1 if console.is_terminal else None, scrolls=True)
        _print(console, _picture(seen, socket, paper))
    return 1 if seen.troubles else 0


def _look(socket: str, directory: str | None) -> _Seen:
    try:
        return _Seen(*ask_status(socket))
    except NoAnswer as error:
        trouble = str(error)
    if directory is None:
        above, own = posixpath.split(posixpath.dirname(os.path.abspath(socket)))
        directory = above if own == OWN_DIRECTORY else None
    found = offline(directory, SystemClock().now())
    body = json.dumps(found.document, indent=1).encode() + b"\n"
    return _Seen(found.document, body, (trouble, found.fault) if found.fault else (trouble,))


class _Console(Console):
    def on_broken_pipe(self) -> NoReturn:
        """Raise, instead of exiting with a failure: the reader of our output is gone, which is not an error."""
        raise BrokenPipeError


def _console() -> Console:
    # With NO_COLOR, rich itself would keep bold and dim.
    colours: Literal["auto"] | None = "auto" if coloured(sys.stdout) else None
    console = _Console(color_system=colours, highlight=False, markup=False, emoji=False)
    # COLUMNS=0 and LINES=0 mean an unknown size. In no columns, rich would print nothing.
    if not console.width:
        console.width = _UNKNOWN_SIZE.columns
    if not console.height:
        console.height = _UNKNOWN_SIZE.lines
    return console


def _paper(console: Console, height: int | None = None) -> Paper:
    return Paper(console.width if console.is_terminal else None, height, console.encoding)


def _print(console: Console, lines: list[Text]) -> None:
    console.print(Text("\n").join(lines), soft_wrap=True)


def _watch(console: Console, socket: str, directory: str | None) -> None:
    """Redraw every second until Ctrl-C."""
    # Without a handler, TERM would leave the terminal on its alternate screen, without a cursor.
    signal.signal(signal.SIGTERM, _end)
    try:
        if console.is_terminal and not console.is_dumb_terminal:
            with Live(console=console, screen=True, auto_refresh=False) as live:
                while True:
                    lines = _drawn(console, socket, directory, console.height)
                    live.update(Text("\n", no_wrap=True, overflow="crop").join(lines), refresh=True)
                    time.sleep(_REDRAWN_EACH)
        while True:
            _print(console, [*_drawn(console, socket, directory), Text()])
            sys.stdout.flush()
            time.sleep(_REDRAWN_EACH)
    except KeyboardInterrupt:
        return


def _drawn(console: Console, socket: str, directory: str | None, height: int | None = None) -> list[Text]:
    seen = _look(socket, directory)
    return _picture(seen, socket, _paper(console, height), "; ".join(seen.troubles))


def _picture(seen: _Seen, socket: str, paper: Paper, trouble: str | None = None) -> list[Text]:
    """The lines of a document. Raises NoAnswer if it is not one of this version."""
    with Reading(socket):
        return picture(seen.document, paper, trouble)


def _end(number: int, _frame: object) -> NoReturn:
    sys.exit(128 + number)  # the shells' convention
