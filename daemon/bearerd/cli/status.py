"""`bearerd status`: how everything stands, by the daemon, or where none runs by the records."""

from __future__ import annotations

import json
import os
import posixpath
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from rich.console import Console
from rich.live import Live
from rich.text import Text

from bearerd.cli.ask import NoAnswer, ask_status, clean
from bearerd.cli.picture import Paper, picture
from bearerd.clock import SystemClock
from bearerd.model import OWN_DIRECTORY
from bearerd.service.offline import offline

_REDRAWN_EACH: Final = 1.0  # seconds, as one counts them


@dataclass(frozen=True, slots=True)
class _Seen:
    """What there was to be seen."""

    document: Mapping[str, Any]
    body: bytes
    troubles: tuple[str, ...] = ()
    """Why it is not what a daemon says, and what is missing of it."""


def status(socket: str, directory: str | None, *, as_json: bool, watch: bool) -> int:
    """0 where a daemon answered, whatever it said, else 1.

    `directory` is where the records are, if that is known; else it is told from the socket's place.
    """
    console = _console()
    if watch:
        _watch(console, socket, directory)
        return 0
    seen = _look(socket, directory)
    for trouble in seen.troubles:
        print(f"bearerd: {clean(trouble)}", file=sys.stderr)
    if as_json:
        sys.stdout.flush()
        sys.stdout.buffer.write(seen.body)
    elif seen.document["tokens"] or not seen.troubles:
        _print(console, picture(seen.document, _paper(console)))
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
        """Who read our output has gone: no failure, which is what rich makes of it."""
        raise BrokenPipeError


def _console() -> Console:
    # Rich's own reading of NO_COLOR keeps bold and dim: we say every state in words as well.
    plain = bool(os.environ.get("NO_COLOR"))
    return _Console(color_system=None if plain else "auto", highlight=False, markup=False, emoji=False)


def _paper(console: Console, height: int | None = None) -> Paper:
    return Paper(console.width if console.is_terminal else None, height, console.encoding)


def _print(console: Console, lines: list[Text]) -> None:
    console.print(Text("\n").join(lines), soft_wrap=True)


def _watch(console: Console, socket: str, directory: str | None) -> None:
    """Draw anew each second, until Ctrl-C."""
    # By default it would leave the terminal on its other screen, without a cursor.
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
    return picture(seen.document, _paper(console, height), "; ".join(seen.troubles))


def _end(number: int, _frame: object) -> NoReturn:
    sys.exit(128 + number)  # as shells have it
