"""Output on a terminal, in a pseudo-terminal."""

from __future__ import annotations

import os
import pty
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pytest

from support.process import WITHIN, command
from support.server import Answer, issues, serving


def on_a_terminal(*arguments: str | Path, columns: int = 100) -> tuple[int, str]:
    """Exit code, and all that was written to the terminal, without colours."""
    code, text = coloured(*arguments, columns=columns)
    return code, re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


def coloured(
    *arguments: str | Path, columns: int = 100, environ: Mapping[str, str] = MappingProxyType({})
) -> tuple[int, str]:
    """Exit code, and all that was written to the terminal."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command(*arguments),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": str(columns), "LINES": "30", **environ},
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
    return process.wait(WITHIN), b"".join(parts).decode().replace("\r\n", "\n")


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
    lines = text.splitlines()
    first = lines.index("failed   grant dnb/bci: HTTP 401 invalid_client: the client was refused")
    # A path has no place to fold at, so only the lines about the grant are compared.
    assert max(len(line) for line in lines[first:] if str(tmp_path) not in line) <= 80
    assert lines[-1] == "1 failed, 5 good; the daemon would start and retry"
    hint = lines.index("           hint: the id or secret contains a character that providers decode")
    assert lines[hint + 1] == "             differently (such as :, %, + or a space): try basic_encoding: raw"


def site(path: Path) -> Path:
    """A config with a secret that is missing and one that is there."""
    (path / "secret").write_text("s")
    (path / "secret").chmod(0o600)
    clients = "".join(
        f"  {name}: {{token_url: 'https://127.0.0.1:1/', client_id: x, "
        f"client_secret: {{file: {path}/{name}}}, tokens: {{bci: {{}}}}}}\n"
        for name in ("secret", "missing")
    )
    (path / "config.yaml").write_text(f"output: {{directory: {path}/t}}\nclients:\n{clients}")
    return path / "config.yaml"


def test_check_shows_what_failed_first_and_in_red(tmp_path: Path) -> None:
    code, text = coloured("check", "-c", site(tmp_path), environ={"NO_COLOR": ""})
    assert code == 1
    first, *_, last = text.splitlines()
    assert first.startswith("\x1b[1;31mfailed\x1b[0m   client missing: ")
    assert text.index("\x1b[32mok\x1b[0m ") > text.index("failed")
    assert last == "\x1b[1;31m1 failed, 6 good; the daemon would start and retry\x1b[0m"


@pytest.mark.parametrize("environ", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
@pytest.mark.parametrize("name", ["check", "status"])
def test_nothing_is_coloured_if_the_user_or_the_terminal_refuses(
    environ: dict[str, str], name: str, tmp_path: Path
) -> None:
    config = site(tmp_path)
    assert "\x1b[" not in coloured(name, "-c", config, environ=environ)[1]
    config.write_text("clients: {a: {tokens: 5}}\n")
    assert "\x1b[" not in coloured(name, "-c", config, environ=environ)[1]


def test_errors_of_a_config_are_folded_at_the_width_of_a_narrow_terminal(tmp_path: Path) -> None:
    (tmp_path / "c").write_text("clients:\n  dnb:\n    token_url: https://h/t\n  tokens:\n    bci: {}\n")
    code, text = on_a_terminal("check", "-c", tmp_path / "c", columns=40)
    assert code == 78
    assert max(len(line) for line in text.splitlines() if str(tmp_path) not in line) <= 40
