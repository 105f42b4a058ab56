"""What all tests of the config use."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.config_text import Folder


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)
