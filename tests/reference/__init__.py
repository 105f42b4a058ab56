"""What is generated from the config's schema and the command line, and committed."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from reference.completion import completion
from reference.man import command_page, config_page
from reference.markdown import page

ROOT: Final = Path(__file__).parents[2]
# Of these, the text that is written by hand stays.
_PAGES: Final = {
    "docs/config.md": page,
    "docs/man/bearerd.1": command_page,
    "docs/man/bearerd.yaml.5": config_page,
}


def generated() -> dict[str, str]:
    """The text of each generated file, by its path in the checkout."""
    return {
        **{path: make((ROOT / path).read_text(encoding="utf-8")) for path, make in _PAGES.items()},
        "daemon/bearerd/cli/completion/bearerd.bash": completion("bash"),
        "daemon/bearerd/cli/completion/bearerd.zsh": completion("zsh"),
    }
