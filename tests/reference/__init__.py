"""What is generated from the config's schema and the command line, and committed."""

from __future__ import annotations

from pathlib import Path

import bearerd
from reference.completion import completion
from reference.markdown import page

DOCS = Path(__file__).parents[2] / "docs"


def generated() -> dict[Path, str]:
    """Each generated file with its text."""
    scripts = Path(bearerd.__file__).parent / "cli/completion"
    config = DOCS / "config.md"
    return {
        config: page(config.read_text(encoding="utf-8")),
        scripts / "bearerd.bash": completion("bash"),
        scripts / "bearerd.zsh": completion("zsh"),
    }
