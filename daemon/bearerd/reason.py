"""The operating system's words for its errors, as bearerd writes them: in lower case. Pure.

A separate module, because `health` imports it at every probe.
"""

from __future__ import annotations

import errno


def reason_of(error: OSError) -> str:
    """The text for an error, such as `permission denied`."""
    # An error of ours that is an OSError has only a text.
    return (error.strerror or (str(error.args[0]) if error.args else type(error).__name__)).lower()


def not_started(error: OSError) -> str:
    """Why a process could not be started, and what to do if that is known."""
    return reason_of(error) + ("; raise TasksMax" if error.errno == errno.EAGAIN else "")
