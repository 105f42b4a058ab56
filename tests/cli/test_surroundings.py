"""Commands where the locale, the current directory or a path in the config is not as one expects."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

from support.process import WITHIN, bearerd, command

NO_UTF_8 = {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def write(directory: Path, secret: str) -> Path:
    """A config with the path of a secret, as a YAML string in double quotes."""
    config = directory / "config.yaml"
    config.write_text(
        f"output: {{directory: {directory}/t}}\nclients:\n  dnb: {{token_url: 'https://a.example/', client_id: a, "
        f'client_secret: {{file: "{secret}"}}, tokens: {{bci: {{}}}}}}\n',
        encoding="utf-8",
    )
    return config


def test_names_of_files_are_utf_8_in_each_locale(tmp_path: Path) -> None:
    secret = tmp_path / "sekret-ł"
    secret.write_text("a secret of 16 bytes or more")
    secret.chmod(0o600)
    done = bearerd("check", "-c", write(tmp_path, str(secret)), env=NO_UTF_8)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"ok       client dnb: file {secret} can be used" in done.stdout


def test_a_finding_is_one_line_whatever_the_config_contains(tmp_path: Path) -> None:
    config = write(tmp_path, rf"{tmp_path}/nope\nok       all good\e[8m")
    done = bearerd("check", "-c", config, env={"COLUMNS": "1000"})
    assert done.returncode == 1
    assert f"failed   client dnb: file {tmp_path}/nope?ok       all good?[8m: no such file" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("check", "-c", "config.yaml"), "the current directory no longer exists; use an absolute path for the config"),
        (
            ("init", "other", "--directory", "new"),
            "--directory: the current directory no longer exists; use an absolute path",
        ),
    ],
    ids=["check", "init"],
)
def test_a_current_directory_that_was_deleted_is_named(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    (tmp_path / "gone").mkdir()
    script = f"cd {shlex.quote(str(tmp_path))}/gone && rmdir ../gone && exec {shlex.join(command(*arguments))}"
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, timeout=WITHIN, check=False)
    assert done.returncode in {1, 2}
    assert said in done.stderr
    assert "bug" not in done.stderr
