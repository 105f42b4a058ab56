"""What is generated and committed is up to date."""

from __future__ import annotations

from pathlib import Path

import pytest

from reference import generated

TEXTS = generated()


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_a_generated_file_is_current(path: Path) -> None:
    current = path.exists() and path.read_text(encoding="utf-8") == TEXTS[path]
    assert current, f"{path.name} is out of date: run `python -m reference` in tests/, and commit what changed"
