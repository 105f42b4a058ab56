"""The completion scripts, in real shells and with a running daemon."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.api import Site
from support.process import WITHIN, bearerd, running
from support.server import issues, serving

TOKENS = "{bci: {scope: bci}, companies: {scope: companies}}"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A running daemon, and the command in a directory for PATH."""
    path = tmp_path_factory.mktemp("site")
    (path / "bin").mkdir()
    (path / "bin/bearerd").write_text(f'#!/bin/sh\nexec {sys.executable} -m bearerd "$@"\n')
    (path / "bin/bearerd").chmod(0o755)
    (path / "_bearerd").write_text(bearerd("completion", "zsh").stdout)
    with serving(issues()) as server:
        site = Site(path, server.url, TOKENS)
        with running("run", "-c", site.config):
            site.wait_for(bci="valid", companies="valid")
            yield site


def environment(site: Site) -> dict[str, str]:
    """PATH with the command; the shell's own files are in an empty home."""
    return {
        "PATH": f"{site.path}/bin:{os.environ['PATH']}", "HOME": str(site.path), "BEARERD_SOCKET": str(site.socket),
        "TERM": "dumb", "PS1": "> ", "LC_ALL": "C.UTF-8",
    }  # fmt: skip


CASES = [
    pytest.param(["ref"], {"refresh"}, id="a verb"),
    pytest.param(["check", "--on"], {"--online"}, id="an option"),
    pytest.param(["completion", ""], {"bash", "zsh"}, id="a choice"),
    pytest.param(["check", "--as", "roo"], {"root"}, id="a user"),
    pytest.param(["run", "-c", "/proc/cpuin"], {"/proc/cpuinfo"}, id="a file"),
    pytest.param(["health", "dnb/"], {"dnb/bci", "dnb/companies"}, id="a token"),
    pytest.param(["refresh", ""], {"dnb", "dnb/bci", "dnb/companies"}, id="a token or all of a client"),
    pytest.param(["refresh", "dnb/bci", "dnb/c"], {"dnb/companies"}, id="a second token"),
    pytest.param(["refresh", "--socket", "/nowhere", "d"], set(), id="no token without a daemon"),
]


@pytest.mark.parametrize(("words", "expected"), CASES)
def test_bash_completes(site: Site, words: list[str], expected: set[str]) -> None:
    # What readline does: it sets these variables and calls the function that `complete` names.
    script = """
      eval "$(bearerd completion bash)"
      [[ $(complete -p bearerd) == *" -F "* ]] || exit 3
      COMP_WORDS=(bearerd "$@") COMP_CWORD=$#
      _shtab_bearerd
      printf '%s\\n' "${COMPREPLY[@]}"
    """
    shell = ["bash", "--norc", "--noprofile", "-c", script, "bash", *words]
    done = subprocess.run(shell, env=environment(site), capture_output=True, text=True, timeout=WITHIN, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert set(done.stdout.split()) == expected


def test_bash_runs_no_code_in_the_names_of_a_status(tmp_path: Path) -> None:
    # Another process may answer at the socket, and compgen expands its words.
    status = {"tokens": [{"name": "$(touch ran)/x"}, {"name": "`touch ran`"}, {"name": "dnb/bci"}, {"name": "a b/c"}]}
    (tmp_path / "status").write_text(json.dumps(status))
    (tmp_path / "bearerd").write_text(f"#!/bin/sh\ncat {tmp_path}/status\n")
    (tmp_path / "bearerd").chmod(0o755)
    script = f"""{bearerd("completion", "bash").stdout}
      COMP_WORDS=({tmp_path}/bearerd health "") COMP_CWORD=2
      _shtab_bearerd
      printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    shell = ["bash", "--norc", "--noprofile", "-c", script]
    done = subprocess.run(shell, cwd=tmp_path, capture_output=True, text=True, timeout=WITHIN, check=False)
    assert (done.stdout.split(), done.stderr) == (["dnb/bci"], "")
    assert not (tmp_path / "ran").exists()


class Zsh:
    """An interactive zsh on a terminal."""

    def __init__(self, site: Site, setup: str) -> None:
        self.process, self._terminal = pty.fork()
        if self.process == 0:
            os.execvpe("zsh", ["zsh", "-f", "-i"], environment(site))
        self.type(f"autoload -Uz compinit; {setup}; echo rea''dy\n", until="ready")

    def type(self, text: str, until: str) -> str:
        """Type a text, and read what the terminal shows until a pattern is there."""
        os.write(self._terminal, text.encode())
        shown, end = "", time.monotonic() + WITHIN
        while re.search(until, shown) is None:
            left = end - time.monotonic()
            assert left > 0, shown
            assert select.select([self._terminal], [], [], left)[0], shown
            shown += os.read(self._terminal, 4096).decode(errors="replace")
        return shown

    def close(self) -> None:
        """End the shell."""
        os.close(self._terminal)
        os.waitpid(self.process, 0)


EVALUATED = 'compinit -u -D; eval "$(bearerd completion zsh)"'


@pytest.mark.skipif(shutil.which("zsh") is None, reason="needs zsh")
@pytest.mark.parametrize(("words", "expected"), [case for case in CASES if case.values[1]])
def test_zsh_completes(site: Site, words: list[str], expected: set[str]) -> None:
    zsh_completes(site, EVALUATED, words, expected)


@pytest.mark.skipif(shutil.which("zsh") is None, reason="needs zsh")
def test_zsh_loads_the_script_from_its_path(site: Site) -> None:
    # As packages install it.
    zsh_completes(site, f"fpath=({site.path} $fpath); compinit -u -D", ["check", "--on"], {"--online"})


def zsh_completes(site: Site, setup: str, words: list[str], expected: set[str]) -> None:
    shell = Zsh(site, setup)
    try:
        line = " ".join(["bearerd", *words])
        # A second TAB lists the matches if there are several.
        found = "".join(f"(?=[\\s\\S]*{re.escape(name)}\\s)" for name in expected)
        shell.type(f"{line}\t\t", until=found)
    finally:
        shell.close()
