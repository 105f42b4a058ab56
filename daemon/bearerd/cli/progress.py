"""A progress bar on a terminal, for more than a few tokens."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from bearerd.cli.colour import coloured

# Tokens. With so few, the command ends before anybody could read a bar.
_HANDFUL: Final = 5


@contextmanager
def bar(total: int) -> Iterator[Callable[[int, int], None]]:
    """Yield a function that shows how many of how many tokens are done."""
    if total <= _HANDFUL or not sys.stderr.isatty():
        yield lambda _done, _total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("tokens"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(stderr=True, color_system="auto" if coloured(sys.stderr) else None)
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("tokens", total=total)
        yield lambda done, _total: progress.update(task, completed=done)
