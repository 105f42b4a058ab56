"""What is generated from the config's schema and the command line, and committed."""

from __future__ import annotations

from pathlib import Path

import bearerd
from reference.completion import completion
from reference.man import command_page, config_page
from reference.markdown import page

DOCS = Path(__file__).parents[2] / "docs"


def generated() -> dict[Path, str]:
    """Each generated file with its text."""
    scripts = Path(bearerd.__file__).parent / "cli/completion"
    made = {
        DOCS / "config.md": page,
        DOCS / "man/bearerd.1": command_page,
        DOCS / "man/bearerd.yaml.5": config_page,
    }
    return {
        **{path: make(path.read_text(encoding="utf-8")) for path, make in made.items()},
        scripts / "bearerd.bash": completion("bash"),
        scripts / "bearerd.zsh": completion("zsh"),
    }
