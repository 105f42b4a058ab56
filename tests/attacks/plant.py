"""Renames a directory of somebody else, whose parent is writable, and makes one in its site: `plant.py DIRECTORY`."""

from __future__ import annotations

import os
import sys

directory = sys.argv[1]
os.rename(directory, f"{directory}.old")
os.mkdir(directory, 0o700)
