"""`bearerd health`: for probes, and for consumers that wait until there is something to read.

The usual forms of its command line are understood right here: argparse alone, with what it imports, would
cost a probe as much as Python's own start.
"""

from __future__ import annotations

import os
import sys
import time

from bearerd.cli.ask import PATIENCE, NoAnswer, ask, ask_status, clean, parsed, socket_of

# Seconds between two looks: who waits for a token of a fast provider starts at once, and one that waits for
# minutes costs nothing.
_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 1.0
# Also the last look of a wait that is over gets an answer from a busy machine.
_LEAST_PATIENCE = 1.0
_GOOD = frozenset({"valid", "failing"})
_IN_NAMES = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-/")
_OK, _NOT_READY = 200, 503


def quick(arguments: list[str]) -> int | None:
    """The exit code; None for what takes argparse (--wait, --help, mistakes) or a config."""
    given: str | None = None
    live = ready = False
    names: list[str] = []
    words = iter(arguments)
    for word in words:
        if word == "--socket":
            given = next(words, None)
            if given is None:
                return None
        elif word == "--live":
            live = True
        elif word == "--ready":
            ready = True
        elif word.startswith("-"):
            return None
        else:
            names.append(word)
    path = socket_of(given, os.environ.get("BEARERD_CONFIG"))
    if path is None or (live and (ready or names)):
        return None
    return health(path, live=live, names=names)


def health(path: str, *, live: bool, names: list[str], wait: float = 0.0) -> int:
    """0 when it is well, by then at the latest; else 1, with the reasons on stderr.

    Well is: ready; alive, with `live`; or, with names, that these tokens are valid on disk.
    """
    end = time.monotonic() + wait
    pause = _FIRST_PAUSE
    while True:
        left = end - time.monotonic()
        patience = min(PATIENCE, max(left, _LEAST_PATIENCE)) if wait else PATIENCE
        try:
            reasons = _unwell(path, patience, live=live, names=names)
        except NoAnswer as error:
            reasons = [str(error)]
        if not reasons:
            print("alive" if live else "valid" if names else "ready")
            return 0
        left = end - time.monotonic()
        if left <= 0:
            for reason in reasons:
                print(f"bearerd: {clean(reason)}", file=sys.stderr)
            return 1
        time.sleep(min(pause, left))
        pause = min(2 * pause, _LONGEST_PAUSE)


def _unwell(path: str, patience: float, *, live: bool, names: list[str]) -> list[str]:
    """Why it is not well; raises NoAnswer."""
    if names:
        return [reason for name in names for reason in _invalid(path, name, patience)]
    status, body = ask(path, "/livez" if live else "/readyz", patience=patience)
    if status == _OK:
        return []
    if status != _NOT_READY:
        raise NoAnswer(f"what answers at {path} is no bearerd: HTTP {status}")
    document = parsed(path, body)
    reasons = document.get("reasons")
    found = reasons if isinstance(reasons, list) else [document["error"]] if "error" in document else []
    return [f"{'not alive' if live else 'not ready'}: {reason}" for reason in found or ["no reason is given"]]


def _invalid(path: str, name: str, patience: float) -> list[str]:
    # What holds other characters would have to be quoted, and is no name.
    tokens = ask_status(path, name, patience)[0]["tokens"] if name and _IN_NAMES.issuperset(name) else []
    if not tokens:
        return [f"there is no token '{name}'"]
    token = tokens[0]
    if token.get("state") in _GOOD:
        return []
    why = "; ".join(str(said) for said in (*token.get("file_errors", ()), token.get("last_error")) if said)
    return [f"{name}: {token.get('state')}" + (f": {why}" if why else "")]
