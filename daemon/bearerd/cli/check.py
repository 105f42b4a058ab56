"""`bearerd check`: shows the errors of a config, or what its checks against this machine found."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterable
from shutil import get_terminal_size
from textwrap import fill
from typing import TYPE_CHECKING, Final, TextIO

from bearerd.cli.colour import Colour, paint
from bearerd.plural import counted
from bearerd.printable import printable
from bearerd.process import write_stderr

if TYPE_CHECKING:
    from bearerd.errors import ConfigError, Problem
    from bearerd.model import Config
    from bearerd.service.finding import Finding

_COLOURS: Final[dict[str, Colour]] = {"failed": "red", "warning": "yellow", "ok": "green"}
"""The levels of findings, in the order in which they are shown."""
_NARROWEST: Final = 40  # columns: with less, a path of usual length does not fit into one line


def check(config: Config, path: str, *, online: bool, readable: Iterable[Finding] = (), reader: str = "") -> int:
    """Check a valid config, and show what fails first. Returns 0 if nothing failed, else 1.

    `readable` are the findings of `--as`, and `reader` is its user.
    """
    import logging

    from bearerd.log import LOGGER
    from bearerd.service.check import check as findings_of
    from bearerd.service.finding import Finding

    LOGGER.addHandler(logging.NullHandler())  # the findings contain what would be logged
    if online and sys.stdout.isatty():
        write_stderr("requesting a token for each client …")
    found = [Finding(f"config {path}", counted(len(config.targets), "token"))]
    found += findings_of(config, os.environ, online=online)
    of_reader = list(readable)
    order = list(_COLOURS)
    for finding in sorted([*found, *of_reader], key=lambda finding: order.index(finding.level)):
        _show(finding)
    print(_summary(found, of_reader, reader, config), flush=True)
    return 1 if any(finding.level == "failed" for finding in (*found, *of_reader)) else 0


def show_errors(error: ConfigError) -> None:
    """Show the errors of a config."""
    lines = [line for problem in error.problems for line in _lines(problem)]
    count = counted(len(error.problems), "error")
    write_stderr("\n".join([*lines, paint(f"bearerd: {count} in the config", "red", sys.stderr)]))


def _lines(problem: Problem) -> list[str]:
    headline, *source = problem.full.split("\n")
    folded = _folded(headline, 4, sys.stderr)
    # A line break inside the place, on a narrow terminal, leaves no place to colour.
    lines = [paint(problem.place, "bold", sys.stderr) + folded.removeprefix(problem.place)]
    if not folded.startswith(problem.place):
        lines = [folded]
    if source:
        text, mark = source
        lines += [text, mark.removesuffix("^") + paint("^", "red", sys.stderr)]
    return lines


def _show(finding: Finding) -> None:
    lines = [f"{finding.level:<8} {finding.subject}: {finding.verdict}"]
    lines += [f"{'':<8}   {name}: {value}" for name, value in finding.details]
    for number, line in enumerate(lines):
        # A path of the config may contain anything, also a line that looks like another finding.
        text = _folded(printable(line), 13 if number else 9, sys.stdout)
        if not number:
            text = paint(finding.level, _COLOURS[finding.level], sys.stdout) + text[len(finding.level) :]
        print(text)


def _summary(found: Iterable[Finding], of_reader: Iterable[Finding], reader: str, config: Config) -> str:
    """`2 failed, 1 warning, 14 good; the daemon would start and retry`."""
    counts = Counter(finding.level for finding in (*found, *of_reader))
    failed = [finding for finding in found if finding.level == "failed"]
    warnings = counted(counts["warning"], "warning") if counts["warning"] else ""
    parts = [f"{counts['failed']} failed" if counts["failed"] else "", warnings, f"{counts['ok']} good"]
    text = ", ".join(part for part in parts if part)
    if failed:
        stops = any(finding.subject == f"directory {config.directory}" for finding in failed)
        text += f"; the daemon would {'not start' if stops else 'start and retry'}"
    unread = Counter(finding.known for finding in of_reader if finding.level == "failed")
    if unread[True]:
        text += f"; user {reader} cannot read {unread[True]} of the files"
    if unread[False]:
        them = "it" if unread[False] == 1 else "them"
        text += f"; for {unread[False]} of the files it is not known whether user {reader} can read {them}"
    level = next(level for level in _COLOURS if counts[level])
    return paint(_folded(text, 0, sys.stdout), _COLOURS[level], sys.stdout)


def _folded(line: str, indent: int, stream: TextIO) -> str:
    """A line, folded at the width of a terminal; whole in a file or a pipe, where it may be searched."""
    if not stream.isatty():
        return line
    width = max(get_terminal_size().columns, _NARROWEST)
    return fill(line, width, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False)
