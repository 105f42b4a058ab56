"""The pip configuration of this machine, for a pip elsewhere: in an image build or a booted machine."""

from __future__ import annotations

import os
import re
import subprocess
import sys


def settings() -> tuple[str, list[str]]:
    """A pip.conf, and the files and directories that it names."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    ).stdout
    found: dict[str, str] = {}
    for level in ("global", "user", "site", ":env:"):  # later ones override earlier ones
        for name, value in re.findall(rf"^{level}\.([a-z-]+)='(.*)'$", listed, re.MULTILINE):
            found[name.replace("_", "-")] = value.encode().decode("unicode_escape")
    values = {part for value in found.values() for part in value.split()}
    # The files of an index are beside it.
    paths = {os.path.dirname(part[7:].rstrip("/")) if part.startswith("file://") else part for part in values}
    lines = [f"{name} = " + "\n    ".join(value.split()) + "\n" for name, value in found.items()]
    there = sorted(path for path in paths if path.startswith("/") and os.path.exists(path))
    return "[global]\n" + "".join(lines), there
