"""What to do about a secret that cannot be read. Pure."""

from __future__ import annotations

import re
from typing import Final

# The source of a secret, the error, and what to do. The first match counts.
_DO: Final = (
    ("", ": too many open files", "raise LimitNOFILE"),
    (
        "file",
        r": (no such file or directory|permission denied|empty)",
        "write the secret to it, with mode 0600 and the daemon's user as its owner",
    ),
    ("file", "", "put the secret into it"),
    ("env", "", "set it in the daemon's environment, and restart bearerd"),
    ("credential", "", "correct LoadCredential= in the unit, and restart bearerd"),
    # The kernel says the same of a script whose interpreter does not exist.
    (
        "command",
        ": no such file or directory",
        "correct the path of the program, or of the interpreter in its first line",
    ),
    ("command", "", "run it by hand as the daemon's user to see why"),
)


def advice_on(message: str) -> str:
    """What to do about an error, by its message; empty if the message says it, or if that is not known.

    The message begins with the source of the secret (`Reference.__str__`).
    """
    if "; " in message:
        return ""
    fitting = (do for source, error, do in _DO if message.startswith(source) and re.search(error, message))
    return next(fitting, "")


def advised(message: str) -> str:
    """An error, with what to do about it."""
    do = advice_on(message)
    return f"{message}; {do}" if do else message
