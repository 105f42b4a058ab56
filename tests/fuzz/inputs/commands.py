"""What a process at the control socket answers to the commands. It may be another program, or another version."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC
from unittest import mock

from rich.cells import cell_len

from bearerd.api import status as statuses
from bearerd.cli import ask
from bearerd.cli.ask import NoAnswer, Reading
from bearerd.cli.paper import Paper
from bearerd.cli.picture import picture
from bearerd.printable import printable
from fuzz.target import Target, one_line
from support.prometheus import status, target_status

_PAPERS = (Paper(80, 20, "utf-8", zone=UTC), Paper(None, None, "ascii", zone=UTC))


def check_answer(data: bytes) -> None:
    """`bearerd status` shows it within the terminal, or says that it is not bearerd's."""
    with mock.patch.object(ask, "_exchange", return_value=data):
        try:
            document, _ = ask.ask_status("/s")
        except NoAnswer as error:
            one_line(str(error))
            return
    for paper in _PAPERS:
        with suppress(NoAnswer):
            with Reading("/s"):
                lines = picture(document, paper, None)
            for line in lines:
                assert printable(line.plain) == line.plain, "a terminal would obey a part of the answer"
                line.plain.encode(paper.encoding)
                assert paper.width is None or cell_len(line.plain) <= paper.width, "a line is too long"


_REAL = "".join(statuses.text(status(target_status(), target_status("risk")), None)).encode()
_ANSWERS = (
    b"HTTP/1.1 200 OK\r\n\r\n" + _REAL,
    b'HTTP/1.1 503 X\r\n\r\n{"error": "too many\\u001b[2J"}',
    b"HTTP/1.1 200 OK\r\n\r\n[]",
    b"",
)
_WORDS = (
    *(b'"valid"', b'"failing"', b'"expired"', b'"missing"', b'"starting"', b'"remaining_seconds": ', b'"\\u001b[2J"'),
    *(
        b'"lifetime_seconds": ',
        b'"next_refresh_seconds": ',
        b'"tokens": ',
        b'"trouble": ',
        b'"line": ',
        b'"\xe6\xbc\xa2"',
    ),
)

TARGETS = (
    Target("status", "answers of a process at the control socket", check_answer, _ANSWERS, _WORDS, longest=8192),
)
