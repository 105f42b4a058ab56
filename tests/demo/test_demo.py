from __future__ import annotations

import os
import re
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from bearerd.demo.provider import Provider
from support.process import WITHIN, command, patched

SUMMARY = r"calls=(\d+) refused=(\d+) refreshes=(\d+)"


def _run(
    tmp_path: Path, *arguments: str, until: str = "", env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run it to its end, or until a line matches; then Ctrl-C is pressed."""
    process = subprocess.Popen(
        command("demo", *arguments),
        env={**os.environ, "TMPDIR": str(tmp_path), **(env or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    lines: list[str] = []
    if until:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            if re.search(until, line):
                break
        process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=WITHIN)
    return subprocess.CompletedProcess(process.args, process.returncode, "".join(lines) + out, err)


@pytest.fixture
def short() -> Iterator[Path]:
    """A directory in which a socket can have a name."""
    with tempfile.TemporaryDirectory(prefix="b-", dir="/tmp") as place:
        yield Path(place)


def test_the_demo_has_no_refused_call_and_leaves_nothing_behind(short: Path, tmp_path: Path) -> None:
    # Tokens that are good for longer than they say: a machine that pauses is no reason for a 401. And lines that come
    # more often than each 5 s.
    slow = patched(
        tmp_path,
        {"bearerd.demo.show._PLAIN_EACH": 0.25},
        "from time import monotonic",
        "from bearerd.demo.provider import Provider",
        "Provider.__init__.__defaults__ = (lambda: monotonic() / 60,)",
    )
    done = _run(short, "--ttl", "2", until="refreshes [3-9]", env=slow)
    match = re.fullmatch(SUMMARY, done.stdout.splitlines()[-1])
    assert match, done.stdout + done.stderr
    calls, refused, refreshes = map(int, match.groups())
    assert (calls > refreshes >= 3, refused) == (True, 0)
    assert done.returncode == 0
    assert list(short.iterdir()) == []


def test_the_demo_ends_by_itself_and_avoids_long_socket_paths(
    tmp_path: Path,
) -> None:
    place = tmp_path / ("x" * 60)
    place.mkdir()
    done = _run(place, "--ttl", "60", "--seconds", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.fullmatch(SUMMARY, done.stdout.splitlines()[-1])
    assert list(place.iterdir()) == []


@pytest.mark.parametrize(
    ("patch", "said"),
    [
        ("tempfile._candidate_tempdir_list = lambda: ['/proc']", "no usable temporary directory found in ['/proc']"),
        ("tempfile.mkdtemp = fail", "read-only file system"),
    ],
)
def test_without_a_temporary_directory_the_demo_says_what_to_do(tmp_path: Path, patch: str, said: str) -> None:
    fail = "def fail(*_): raise OSError(errno.EROFS, os.strerror(errno.EROFS))"
    done = _run(tmp_path, env=patched(tmp_path, {}, "import errno, os, tempfile", fail, patch))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"bearerd: the demo cannot create a temporary directory: {said}; set TMPDIR to a directory with a short path "
        "that this user can write, or mount one at /tmp\n"
    )


@pytest.mark.parametrize("arguments", [["--ttl", "0"], ["--ttl", "x"], ["--seconds", "-1"]])
def test_invalid_demo_options_are_usage_errors(tmp_path: Path, arguments: list[str]) -> None:
    assert _run(tmp_path, *arguments).returncode == 2


# -- the embedded provider: a demo that could not refuse would prove nothing ---------------------------


def test_the_demo_provider_issues_tokens_only_to_its_client() -> None:
    provider = Provider("demo", "pass%word", ttl=10)
    form = {"grant_type": ["client_credentials"], "scope": ["bci"]}
    status, document = provider.grant("Basic ZGVtbzpwYXNzJTI1d29yZA==", form)
    assert (status, document["scope"], document["expires_in"]) == (200, "bci", 10)
    for wrong in ("Basic ZGVtbzpwYXNz", "Basic !", "Bearer x", ""):
        assert provider.grant(wrong, form)[0] == 401
    assert provider.grant("Basic ZGVtbzpwYXNzJTI1d29yZA==", {"grant_type": ["password"]})[0] == 400
    assert provider.grants == 1


def test_the_demo_api_accepts_a_token_until_it_expires() -> None:
    now = 100.0
    provider = Provider("demo", "x", ttl=10, clock=lambda: now)
    _, document = provider.grant("Basic ZGVtbzp4", {"grant_type": ["client_credentials"]})
    token = document["access_token"]
    assert provider.call(f"Bearer {token}")[0] == 200
    now = 109.9
    assert provider.call(f"Bearer {token}")[0] == 200
    now = 110.0
    status, refusal = provider.call(f"Bearer {token}")
    assert (status, refusal["error"]) == (401, "invalid_token")
    assert provider.call("Bearer other")[0] == 401
    assert (provider.calls, provider.refused) == (4, 2)
