"""Swaps a directory for a symlink and back: `swap.py DIRECTORY TARGET SECONDS`.

SECONDS is for how long, without a pause; 1 means once, and the symlink stays.
"""

from __future__ import annotations

import ctypes
import os
import sys
import time

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
directory, target, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
link = f"{directory}.link"
libc = ctypes.CDLL(None, use_errno=True)


def swap() -> None:
    """Replace it in one step, so that the name always exists."""
    if libc.renameat2(_AT_FDCWD, directory.encode(), _AT_FDCWD, link.encode(), _RENAME_EXCHANGE):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


os.symlink(target, link)
if seconds == 1:
    swap()
else:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for _ in range(100):
            swap()
