from __future__ import annotations

import base64
import fcntl
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.process import bearerd
from support.server import Answer, Script, Seen, Server, issues, serving

BROKEN = Path(__file__).parent / "broken"
SECRET = "hunter2+hunter2"
Said = tuple[str, ...]
"""The first stands right after the place, the others anywhere."""


CASES: list[tuple[str, str, Said]] = [
    ("alias", "13:13", ("aliases (*name) are not used here",)),
    ("bare-mode", "4:9", ("'0640' is read as the octal number 416", "put it in quotes", "    4 |   mode: 0640\n")),
    ("duplicate-key", "9:5", ("key 'client_id' stands twice; first in line 5",)),
    ("mistyped-key", "6:5", ("unknown key 'client_secrt'; did you mean 'client_secret'?",)),
    ("norway", "9:32", ("'no' is read as a truth value", ":7:21: expected a share of the lifetime above 0% and")),
    ("one-path-twice", "13:33", ("'dnb/companies' would be written to /run/bearerd/dnb/bci, and so is 'dnb/bci'",)),
    ("plain-http", "4:16", ("expected https://…: over plain http the secret could be read on the way",)),
    ("secret-in-the-config", "6:20", ("expected a reference such as {file:", "never stands in the config")),
    ("tab", "8:1", ("not YAML: YAML is indented with spaces, not tabs",)),
    ("unknown-provider", "7:15", ("there is no provider 'dnb_sandbox'; did you mean 'dnb-sandbox'?",)),
]


@pytest.mark.parametrize(("name", "place", "said"), CASES)
def test_a_broken_config_is_exit_78_with_its_places(name: str, place: str, said: Said) -> None:
    file = BROKEN / f"{name}.yaml"
    done = bearerd("check", "-c", file, env={"RUNTIME_DIRECTORY": ""})
    assert done.returncode == 78, done.stderr
    assert f"{file}:{place}: {said[0]}" in done.stderr
    for words in said:
        assert words in done.stderr
    assert re.search(r"^bearerd: [1-9] errors? in the config$", done.stderr, re.MULTILINE)
    assert done.stdout == ""
    assert "hunter2" not in done.stderr


def test_every_broken_config_is_in_the_table_and_says_what_is_wrong_with_it() -> None:
    assert {f"{name}.yaml" for name, _, _ in CASES} == {file.name for file in BROKEN.iterdir()}
    for file in BROKEN.iterdir():
        assert file.read_text().startswith("# "), file


# -- a valid config against this machine -------------------------------------------------------------


@dataclass
class Site:
    """A config with one client and two tokens, its secret, and where its files will be."""

    path: Path
    url: str

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def secret(self) -> Path:
        return self.path / "dnb.secret"

    @property
    def directory(self) -> Path:
        return self.path / "run" / "tokens"

    def write(self, **more: str) -> None:
        """Config and secret; `more` are keys of the client."""
        self.secret.write_text(SECRET)
        self.secret.chmod(0o600)
        keys = "".join(f"    {key}: {value}\n" for key, value in more.items())
        self.config.write_text(
            f"output: {{directory: '{self.directory}'}}\n"
            "clients:\n"
            "  dnb:\n"
            f"    token_url: {self.url}\n"
            "    allow_http: true\n"
            "    client_id: 7e0c5a\n"
            f"    client_secret: {{file: '{self.secret}'}}\n"
            f"{keys}"
            "    tokens:\n"
            "      bci: {scope: bci}\n"
            "      other: {scope: other}\n"
        )


@pytest.fixture
def site(tmp_path: Path) -> Site:
    # Nobody listens on port 1: what is not asked to go online must not.
    site = Site(tmp_path, "http://127.0.0.1:1/token")
    site.write()
    return site


def test_a_config_that_will_do_is_exit_0_and_nothing_is_made(site: Site) -> None:
    done = bearerd("check", "-c", site.config)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        f"ok       config {site.config}: 2 token(s)",
        f"ok       directory {site.directory}: can be written",
        f"ok       client dnb: file {site.secret} can be read",
        "ok       token dnb/bci: 1 file(s) can be written",
        "ok       token dnb/other: 1 file(s) can be written",
    ]
    assert sorted(os.listdir(site.path)) == ["config.yaml", "dnb.secret"]


def test_beside_a_running_daemon_it_takes_no_lock_and_leaves_nothing(site: Site) -> None:
    own = site.directory / ".bearerd"
    own.mkdir(parents=True)
    with (own / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = bearerd("check", "-c", site.config)
    assert done.returncode == 0, done.stdout
    assert [path.name for path in sorted(site.directory.rglob("*"))] == [".bearerd", "lock"]


@pytest.mark.parametrize(
    ("mode", "said"),
    [
        pytest.param(None, "no such file or directory", id="missing"),
        pytest.param(0o644, "mode 0644 opens it to others; chmod 600 it", id="too readable"),
    ],
)
def test_a_secret_that_cannot_be_used_is_exit_1_and_names_the_client(site: Site, mode: int | None, said: str) -> None:
    if mode is None:
        site.secret.unlink()
    else:
        site.secret.chmod(mode)
    # Online too: what cannot be read is not sent.
    done = bearerd("check", "--online", "-c", site.config)
    assert done.returncode == 1
    assert f"failed   client dnb: file {site.secret}: {said}" in done.stdout
    assert "grant" not in done.stdout
    assert "bearerd: 1 of these would fail; the daemon would run, and go on trying" in done.stderr
    assert SECRET not in done.stdout + done.stderr


def test_all_that_would_fail_is_told_at_once(site: Site) -> None:
    site.write(ca_file=f"'{site.path}/none.pem'", files="[{format: raw, group: no-such-group}]")
    site.secret.write_text("\n")
    site.directory.parent.write_text("a file where a directory should be")
    done = bearerd("check", "-c", site.config)
    assert done.returncode == 1
    failed = [line for line in done.stdout.splitlines() if line.startswith("failed")]
    assert [line.split(":")[0].split()[1] for line in failed] == ["directory", "client", "token", "token"]
    assert f"file {site.secret}: empty; ca_file {site.path}/none.pem: no such file or directory" in failed[1]
    assert "no-such-group" in failed[2]
    assert "bearerd: 4 of these would fail" in done.stderr


def test_a_reader_that_may_use_an_expired_token_is_a_warning(site: Site) -> None:
    site.write(files="[{format: raw, max_staleness: 31m}]")
    done = bearerd("check", "-c", site.config)
    assert done.returncode == 0
    assert "warning  token dnb/bci: max_staleness 31 min is more than half of a lifetime of 1 h" in done.stdout


# -- online ------------------------------------------------------------------------------------------


@pytest.fixture
def online(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[tuple[Site, Server]]:
    script: Script = request.param
    with serving(script) as server:
        site = Site(tmp_path, server.url)
        site.write()
        yield site, server


def refuses(_: Seen) -> Answer:
    """What D&B says to a wrong secret."""
    return Answer(401, {"error": "invalid_client", "error_description": "Bad credentials"})


@pytest.mark.parametrize("online", [issues(scope="bci", access_token="s3cr3t-t0ken")], indirect=True)
def test_online_makes_one_grant_for_each_client_and_shows_no_token(online: tuple[Site, Server]) -> None:
    site, server = online
    done = bearerd("check", "--online", "-c", site.config)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"ok       grant dnb/bci at {server.url}: a token, good for 1 h, scope bci\n" in done.stdout
    assert [seen.body for seen in server.seen] == [b"grant_type=client_credentials&scope=bci"]
    # Tried, not kept.
    assert not site.directory.exists()
    shown = done.stdout + done.stderr
    assert "s3cr3t-t0ken" not in shown
    assert SECRET not in shown
    assert server.seen[0].headers["authorization"].removeprefix("Basic ") not in shown


@pytest.mark.parametrize("online", [refuses], indirect=True)
def test_online_a_refusal_is_exit_1_with_a_hint(online: tuple[Site, Server]) -> None:
    site, server = online
    done = bearerd("check", "--online", "-c", site.config)
    assert done.returncode == 1
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("failed")]
    assert line.startswith(f"failed   grant dnb/bci at {server.url}: ")
    assert "invalid_client" in line
    # The secret holds a plus, which providers read in two ways.
    assert "try basic_encoding: raw or rfc6749" in line
    assert len(server.seen) == 1
    shown = done.stdout + done.stderr
    assert SECRET not in shown
    assert base64.b64encode(f"7e0c5a:{SECRET}".encode()).decode() not in shown
