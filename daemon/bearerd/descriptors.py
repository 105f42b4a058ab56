"""Closes descriptors through which nothing was written."""

from __future__ import annotations

import os
from contextlib import suppress


def release(descriptor: int) -> None:
    """Close a descriptor through which nothing was written. An error, as of a network file system, loses nothing then.

    Linux closes the descriptor in any case (close(2)).
    """
    with suppress(OSError):
        os.close(descriptor)
