"""Every provider of the menu: the page shows the same config and says the same, and `bearerd check` accepts it."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from bearerd import cli
from bearerd.config.load import load
from bearerd.providers.catalog import names, preset
from bearerd.providers.preset import Preset, fault, rendered
from bearerd.service.check import check
from support.oidc import pem, private_key, self_signed
from support.pages import blocks

PAGE = Path(__file__).parents[2] / "docs" / "providers.md"
PRESETS = [preset(name) for name in names()]
of_each = pytest.mark.parametrize("chosen", PRESETS, ids=lambda chosen: chosen.name)


def heading(chosen: Preset) -> str:
    return chosen.heading or chosen.title


@cache
def shown() -> dict[str, str]:
    """The config below each heading of the page."""
    return {block.heading: block.text for block in blocks(PAGE) if block.language == "yaml"}


@cache
def page() -> str:
    """The page in one line, with links as in the notes."""
    text = re.sub(r"\[([^\]]+)\]\((https?:[^)]+)\)", r"\1 (\2)", " ".join(PAGE.read_text(encoding="utf-8").split()))
    return re.sub(r"\[([^\]]+)\]\([^)]+\)", r"\1", text)


def samples(chosen: Preset) -> dict[str, str]:
    """The examples of the page as answers."""
    return {question.key: question.example or question.default for question in chosen.questions}


RAW_AND_HEADER = [{"format": "raw"}, {"format": "header"}]


@of_each
def test_the_page_has_the_same_config(chosen: Preset) -> None:
    answers = samples(chosen)
    text = rendered(chosen, answers, f"/etc/bearerd/{chosen.secret_file(answers)}")
    ours: dict[str, Any] = yaml.safe_load(text)
    # Once for all tokens, unless the page's config says it.
    assert ours.pop("files", None) == (None if "files:" in text.partition("clients:")[2] else RAW_AND_HEADER)
    theirs: dict[str, Any] = yaml.safe_load(shown()[heading(chosen)])
    assert list(ours["clients"].values()) == list(theirs["clients"].values())
    assert list(ours["clients"]) == list(theirs["clients"])


def test_every_config_of_the_page_is_in_the_menu() -> None:
    assert sorted(shown()) == sorted(heading(chosen) for chosen in PRESETS)


@of_each
def test_the_notes_are_those_of_the_page(chosen: Preset) -> None:
    for paragraph in chosen.notes.splitlines():
        assert paragraph in page()


@of_each
def test_each_question_can_be_answered_by_its_example(chosen: Preset) -> None:
    assert chosen.questions or chosen.secret
    for question in chosen.questions:
        assert question.prompt
        assert question.sample, question.key
        assert fault(question, question.sample) is None
    assert chosen.secret is None or fault(chosen.questions[0], "a\nb") is not None


def kind_of(key: str) -> str:
    """What is in the file that a question asks for."""
    return "key" if key == "tls_private_key" else "certificate" if key.endswith(("certificate", "ca_file")) else "text"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A key, its certificate and a secret, as somebody has them who answers."""
    directory = tmp_path_factory.mktemp("files")
    key = private_key("RS256")
    texts = {"key": pem(key), "certificate": self_signed(key), "text": "a+b c%:d"}
    for name, text in texts.items():
        (directory / name).write_text(text)
        (directory / name).chmod(0o600)
    return {name: directory / name for name in texts}


@pytest.mark.parametrize(
    ("chosen", "optional"),
    [
        pytest.param(chosen, optional, id=f"{chosen.name}{' with all answers' if optional else ''}")
        for chosen in PRESETS
        for optional in sorted({False, *(question.optional for question in chosen.questions)})
    ],
)
def test_what_init_writes_passes_check(
    chosen: Preset,
    optional: bool,
    files: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    environ = {"RUNTIME_DIRECTORY": str(tmp_path / "tokens"), "STATE_DIRECTORY": str(tmp_path / "state")}
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    arguments = ["init", chosen.name, "--directory", str(tmp_path / "c")]
    for question in chosen.questions:
        if question.optional and not optional:
            continue
        text = question.sample
        if question.kind == "path":
            text = str(files[kind_of(question.key)])
        arguments += ["--set", f"{question.key}={text}"]
    if chosen.secret:
        arguments += ["--secret-file", str(files[chosen.secret.kind])]
    assert cli.main(arguments) == 0
    assert capsys.readouterr().err == ""
    config = load(str(tmp_path / "c" / "config.yaml"), environ)
    assert [finding for finding in check(config, environ, online=False) if finding.level != "ok"] == []
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "c").iterdir()}
    secret = {chosen.secret_file(samples(chosen)): 0o600} if chosen.secret else {}
    assert modes == {"config.yaml": 0o644} | secret
