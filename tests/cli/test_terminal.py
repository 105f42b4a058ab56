"""Output on a terminal, in a pseudo-terminal."""

from __future__ import annotations

import os
import pty
import re
import subprocess
from pathlib import Path

from support.process import WITHIN, command
from support.server import Answer, issues, serving


def on_a_terminal(*arguments: str | Path, timeout: float = WITHIN, columns: int = 100) -> tuple[int, str]:
    """Exit code, and all that was written to the terminal."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command(*arguments),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": str(columns), "LINES": "30"},
    )
    os.close(theirs)
    parts: list[bytes] = []
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # EIO: the other side is closed
            break
        if not part:
            break
        parts.append(part)
    os.close(ours)
    return process.wait(timeout), re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", b"".join(parts).decode())


def test_once_shows_a_progress_bar_for_more_than_a_few_tokens(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s")
    (tmp_path / "secret").chmod(0o600)
    for count, shown in ((40, True), (5, False)):
        with serving(issues()) as server:
            tokens = ", ".join(f"t{number}: {{}}" for number in range(count))
            (tmp_path / "config.yaml").write_text(
                f"output: {{directory: {tmp_path}/tokens-{count}}}\nclients:\n  dnb:\n    token_url: {server.url}\n"
                "    allow_http: true\n    client_id: x\n"
                f"    client_secret: {{file: {tmp_path}/secret}}\n    tokens: {{{tokens}}}\n"
            )
            code, text = on_a_terminal("once", "-c", tmp_path / "config.yaml")
        assert code == 0
        assert (f"/{count}" in text) == shown


def test_the_demo_shows_a_table() -> None:
    code, text = on_a_terminal("demo", "--ttl", "60", "--seconds", "1")
    assert code == 0
    assert "refreshes seen by the reader" in text
    assert "refused calls (401)" in text
    assert re.search(r"calls=\d+ refused=0 refreshes=\d", text.splitlines()[-1])


def test_check_folds_its_lines_at_the_width_of_the_terminal(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("a+b")
    (tmp_path / "secret").chmod(0o600)
    with serving(lambda _: Answer(401, {"error": "invalid_client"})) as server:
        (tmp_path / "config.yaml").write_text(
            f"output: {{directory: {tmp_path}/tokens}}\nstate_directory: {tmp_path}/state\n"
            f"clients: {{dnb: {{token_url: '{server.url}', allow_http: true, client_id: x, "
            f"client_secret: {{file: {tmp_path}/secret}}, tokens: {{bci: {{}}}}}}}}\n"
        )
        code, text = on_a_terminal("check", "--online", "-c", tmp_path / "config.yaml", columns=80)
    assert code == 1
    lines = text.replace("\r\n", "\n").splitlines()
    first = lines.index("failed   grant dnb/bci: HTTP 401 invalid_client: the client was refused")
    # A path has no place to fold at, so only the lines about the grant are compared.
    assert max(map(len, lines[first:])) <= 80
    hint = lines.index("           hint: id or secret contains a character that providers decode in two")
    assert lines[hint + 1] == "             ways (:, %, + or a space …): try basic_encoding: raw"
