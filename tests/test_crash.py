"""Exceptions that nothing handles are reported without their texts."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest

from support.process import bearerd, patched, running
from support.server import issues, serving

SECRET = "s3cr3t-in-the-text-of-an-exception"
RAISES = f"""
def fails(*_, **__):
    try:
        raise KeyError("{SECRET}")
    except KeyError as error:
        raise ValueError("{SECRET}") from error
"""


def test_the_main_thread(tmp_path: Path) -> None:
    env = patched(tmp_path, {}, RAISES, "import bearerd.cli.commands", "bearerd.cli.commands.schema = fails")
    done = bearerd("schema", env=env)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert done.stderr.startswith(
        "bearerd: the main thread failed: ValueError; this is a bug in bearerd, please report it: ValueError < "
    )
    assert " from KeyError < " in done.stderr
    assert SECRET not in done.stderr


def test_check_which_hides_the_log(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(
        f"output: {{directory: {tmp_path}/t}}\nclients:\n  dnb: {{token_url: 'https://a.example/', client_id: a, "
        "client_secret: {env: SECRET}, tokens: {bci: {}}}\n"
    )
    env = patched(tmp_path, {}, RAISES, "import bearerd.service.check", "bearerd.service.check.check = fails")
    done = bearerd("check", "-c", config, env=env)
    assert done.returncode == 1
    assert done.stderr.startswith("bearerd: the main thread failed: ValueError; this is a bug in bearerd")


@pytest.mark.parametrize("form", ["text", "json"])
def test_another_thread_of_the_daemon_in_one_line_of_the_log(tmp_path: Path, form: str) -> None:
    config = tmp_path / "config.yaml"
    with serving(issues()) as server:
        config.write_text(
            f"log: {{format: {form}}}\noutput: {{directory: {tmp_path}/t}}\nclients:\n  dnb:\n"
            f"    token_url: {server.url}\n    allow_http: true\n    client_id: a\n"
            "    client_secret: {env: SECRET}\n    tokens: {bci: {}}\n"
        )
        lines = (RAISES, "import bearerd.api.server", "bearerd.api.server.Listener._serve = fails")
        env = patched(tmp_path, {}, *lines) | {"SECRET": SECRET}
        with running("run", "-c", config, env=env) as daemon:
            line = daemon.wait_for("thread api failed: ValueError")
            daemon.stop()
    assert form == "text" or json.loads(line)["raised"].startswith("ValueError < ")
    assert not [line for line in daemon.lines if SECRET in line or line.startswith("Traceback")]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ("MemoryError", "out of memory; raise the memory limit of bearerd, or of the machine"),
        (f"OSError({errno.EMFILE}, '{SECRET}')", "too many files are open; raise LimitNOFILE"),
        ('RuntimeError("can\'t start new thread")', "no thread can be started; raise TasksMax"),
        ("__import__('bearerd.errors').errors.NoThread('no thread; raise TasksMax')", "no thread; raise TasksMax"),
    ],
)
def test_what_the_machine_lacks_is_no_bug(tmp_path: Path, error: str, said: str) -> None:
    lines = (f"def fails(*_): raise {error}", "import bearerd.cli.commands", "bearerd.cli.commands.schema = fails")
    done = bearerd("schema", env=patched(tmp_path, {}, *lines))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"bearerd: the main thread failed: {said}: ")
    assert SECRET not in done.stderr


def test_a_finalizer(tmp_path: Path) -> None:
    ends = "type('Ends', (), {'__del__': fails})()"
    lines = (RAISES, "import bearerd.cli.commands", f"bearerd.cli.commands.schema = lambda _: {ends} and 0")
    done = bearerd("schema", env=patched(tmp_path, {}, *lines))
    assert done.stderr.startswith("bearerd: a finalizer failed: ValueError")
    assert SECRET not in done.stderr


def test_no_memory_to_report_it(tmp_path: Path) -> None:
    lines = (
        RAISES,
        "import bearerd.cli.commands, bearerd.crash",
        "def no_memory(_): raise MemoryError",
        "bearerd.crash._origins = no_memory",
        "bearerd.cli.commands.schema = fails",
    )
    done = bearerd("schema", env=patched(tmp_path, {}, *lines))
    assert (done.returncode, done.stderr) == (1, "bearerd: the main thread failed: ValueError\n")
