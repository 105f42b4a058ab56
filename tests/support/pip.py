"""What pip on this machine is told, for a pip elsewhere: in an image's build, in a machine of its own."""

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
    for place in ("global", "user", "site", ":env:"):  # the later ones count for more
        for name, value in re.findall(rf"^{place}\.([a-z-]+)='(.*)'$", listed, re.MULTILINE):
            found[name.replace("_", "-")] = value.encode().decode("unicode_escape")
    words = {word for value in found.values() for word in value.split()}
    # What an index lists is beside it.
    paths = {os.path.dirname(word[7:].rstrip("/")) if word.startswith("file://") else word for word in words}
    lines = [f"{name} = " + "\n    ".join(value.split()) + "\n" for name, value in found.items()]
    there = sorted(path for path in paths if path.startswith("/") and os.path.exists(path))
    return "[global]\n" + "".join(lines), there
