"""What is generated and committed is up to date."""

from __future__ import annotations

from pathlib import Path

import pytest

from bearerd.config.load import load
from reference import DOCS, generated
from support.pages import blocks, headings

TEXTS = generated()


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_a_generated_file_is_current(path: Path) -> None:
    current = path.exists() and path.read_text(encoding="utf-8") == TEXTS[path]
    assert current, f"{path.name} is out of date: run `python -m reference` in tests/, and commit what changed"


def test_each_key_of_the_page_has_an_anchor_of_its_own() -> None:
    found = headings(DOCS / "config.md")
    assert len({heading.lower() for heading in found}) == len(found)


def test_the_smallest_config_of_the_page_loads(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(next(block.text for block in blocks(DOCS / "config.md") if block.language == "yaml"))
    assert [target.full_name for target in load(str(file), {}).targets] == ["dnb/bci"]
