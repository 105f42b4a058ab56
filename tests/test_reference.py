"""What is generated and committed is up to date."""

from __future__ import annotations

import shutil
import subprocess
from importlib.metadata import files
from pathlib import Path

import pytest

import bearerd
from bearerd.config.load import load, schema
from reference import ROOT, generated
from reference.shape import sections
from support.pages import blocks, headings

TEXTS = generated()
PAGE = ROOT / "docs/config.md"
MAN_PAGES = sorted((ROOT / "docs/man").iterdir())


@pytest.mark.parametrize("path", TEXTS)
def test_a_generated_file_is_current(path: str) -> None:
    # What the wheel installed, if the package is tested without its source.
    root = Path(bearerd.__file__).parents[1] if path.startswith("daemon/") else ROOT
    current = (root / path.removeprefix("daemon/")).read_text(encoding="utf-8") == TEXTS[path]
    assert current, f"{path} is out of date: run `python -m reference` in tests/, and commit what changed"


def test_the_reference_has_every_key_of_the_config() -> None:
    whole = schema()
    keys = {
        (key, value["description"])
        for model in (whole, *whole["$defs"].values())
        for key, value in model["properties"].items()
    }
    assert keys == {(entry.name, entry.text) for section in sections() for entry in section.entries}


def test_each_key_of_the_page_has_an_anchor_of_its_own() -> None:
    found = headings(PAGE)
    assert len({heading.lower() for heading in found}) == len(found)


def test_the_smallest_config_of_the_page_loads(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(next(block.text for block in blocks(PAGE) if block.language == "yaml"))
    assert [target.full_name for target in load(str(file), {}).targets] == ["dnb/bci"]


@pytest.mark.parametrize("page", MAN_PAGES, ids=lambda page: page.name)
@pytest.mark.parametrize(
    "reads",
    [
        pytest.param(["groff", "-man", "-ww", "-z", "-Tutf8"], id="groff"),
        pytest.param(["man", "--warnings", "--encoding=UTF-8", "--troff-device=utf8", "--local-file"], id="man"),
        pytest.param(["mandoc", "-T", "lint", "-W", "warning"], id="mandoc"),
    ],
)
def test_a_man_page_is_read_without_warnings(reads: list[str], page: Path) -> None:
    if shutil.which(reads[0]) is None:
        pytest.skip(f"needs {reads[0]}")
    done = subprocess.run([*reads, page], capture_output=True, text=True, check=False)
    warnings = done.stdout if reads[0] == "mandoc" else done.stderr  # the others print the page
    assert (done.returncode, warnings) == (0, "")


def test_the_wheel_brings_man_pages_and_completion() -> None:
    installed = {str(path).rpartition("../")[2] for path in files("bearerd") or ()}
    if not any(path.startswith("bearerd/") for path in installed):
        pytest.skip("needs bearerd as its wheel installs it")
    assert {
        "share/man/man1/bearerd.1",
        "share/man/man5/bearerd.yaml.5",
        "share/bash-completion/completions/bearerd",
        "share/zsh/site-functions/_bearerd",
    } <= installed
