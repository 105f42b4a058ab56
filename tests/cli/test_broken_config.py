"""`status`, `refresh` and `health` reach a running daemon whatever its config says at the moment."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from bearerd import cli
from support.api import Site
from support.process import Daemon, bearerd, running
from support.readers import ROOT, acting_as
from support.server import issues, serving

VERBS = ["status", "refresh", "health"]


class Tokens(Site):
    """A running daemon with many tokens: one token gets a new one on request only once a minute."""

    def __init__(self, path: Path, url: str) -> None:
        self._names = [f"t{number}" for number in range(100)]
        super().__init__(path, url, "{" + ", ".join(f"{name}: {{}}" for name in self._names) + "}")

    def arguments(self, verb: str) -> list[str]:
        """The verb, for a token that was not refreshed before."""
        return [verb, *([f"dnb/{self._names.pop()}"] if verb == "refresh" else [])]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tokens]:
    with serving(issues(3600)) as server:
        site = Tokens(tmp_path_factory.mktemp("site"), server.url)
        with running("run", "-c", site.config):
            assert bearerd("health", "--wait", "1m", "-c", site.config).returncode == 0
            yield site


@pytest.fixture(autouse=True)
def _nothing_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BEARERD_SOCKET", "BEARERD_CONFIG", "RUNTIME_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(
    "text",
    [
        pytest.param("clients: [\noutput: {{directory: {0}}}\n", id="not YAML"),
        pytest.param("output: {{directory: {0}}}\nclients: 'x\n", id="not YAML, flow"),
        pytest.param("output:\n  mode: '0640'\n\tdirectory: {0}\n", id="not YAML, block"),
        pytest.param("output: {{'directory': \"{0}\", x: [}}\n", id="not YAML, quoted"),
        pytest.param("output: {{directory: {0}}}\ncleints: {{}}\n", id="unknown key"),
        pytest.param("output:\n  directory: '{0}'\nclients: 5\n", id="wrong type"),
        pytest.param("outptu:\n  directory: {0}\n", id="unknown section"),
        pytest.param("control:\n  socket: {1}\noutput: {{directory: /elsewhere\n", id="socket, block"),
        pytest.param("control: {{\n  mode: 0660,\n  socket: {1}\n", id="socket, flow"),
        pytest.param('{{"control": {{"socket": "{1}"}}, "output": {{"directory": 1}}', id="socket, JSON"),
    ],
)
def test_a_config_with_errors_does_not_hide_the_daemon(
    site: Tokens, verb: str, text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(text.format(site.tokens, site.socket))
    assert cli.main([*site.arguments(verb), "-c", str(config)]) == 0
    out, err = capsys.readouterr()
    assert {"status": "dnb/t0", "refresh": "new token", "health": "ready"}[verb] in out
    assert err == ""


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("missing", "no such file or directory"),
        ("a FIFO", "it is a FIFO, not a regular file"),
        ("a directory", "it is a directory, not a regular file"),
        ("empty", "empty"),
    ],
)
def test_an_unreadable_config_causes_a_note_and_the_default_socket_is_used(
    site: Tokens, verb: str, kind: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    config = tmp_path / "config.yaml"
    if kind == "a FIFO":
        os.mkfifo(config)
    elif kind == "a directory":
        config.mkdir()
    elif kind == "empty":
        config.touch()
    monkeypatch.setenv("RUNTIME_DIRECTORY", f"{site.tokens}:/run/another")
    monkeypatch.setenv("BEARERD_CONFIG", str(config))
    assert cli.main(site.arguments(verb)) == 0
    assert capsys.readouterr().err == f"bearerd: note: {config}: {said}; using {site.socket}\n"


@ROOT
def test_a_config_without_read_permission_causes_a_note(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("output: {directory: /nowhere}\n")
    config.chmod(0o600)
    with acting_as(65534):
        assert cli.main(["health", "-c", str(config)]) == 1
    first, second = capfd.readouterr().err.splitlines()
    assert first == (f"bearerd: note: {config}: permission denied; using /run/bearerd/.bearerd/control.sock")
    assert second.startswith("bearerd: no daemon answers at /run/bearerd/.bearerd/control.sock: ")


@pytest.mark.parametrize("verb", VERBS)
def test_health_without_a_daemon_exits_1(verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(f"output: {{directory: {tmp_path}/t\n")
    assert cli.main([verb, "-c", str(config)]) == 1
    assert f"no daemon answers at {tmp_path}/t/.bearerd/control.sock" in capsys.readouterr().err


def noted(daemon: Daemon, site: Site) -> None:
    """Break the config of a running daemon."""
    site.write("{bci: {scope: bci}, more: {scop: x}}\n    client_scret: hunter2")
    daemon.wait_for("stays in use")


def test_commands_show_the_daemons_config_error(tmp_path: Path) -> None:
    with serving(issues(3600)) as server:
        site = Site(tmp_path, server.url)
        with running("run", "-c", site.config) as daemon:
            site.wait_for(bci="valid")
            noted(daemon, site)
            for arguments in (["health"], ["health", "--live"], ["health", "dnb/bci"], ["refresh"]):
                done = bearerd(*arguments, "-c", site.config)
                assert (done.returncode, done.stderr.count("\n")) == (0, 1)
                assert done.stderr.startswith(
                    f"bearerd: note: the daemon refused the new config and uses the previous one: {site.config}:"
                )
                assert "hunter2" not in done.stderr
            done = bearerd("status", "-c", site.config)
            assert done.returncode == 0
            assert f"{site.config}:" in done.stdout
