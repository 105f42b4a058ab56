"""`bearerd health`: for probes, and for consumers that wait for their tokens.

The usual forms of its command line are parsed here, because importing argparse takes as long as Python's own start.
"""

from __future__ import annotations

import os
import sys
import time

from bearerd.cli.ask import PATIENCE, NoAnswer, Reading, ask, ask_status, find, note_config, parsed
from bearerd.printable import printable

# Seconds between two checks: short at first for fast providers, longer later to cost little.
_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 1.0
# Seconds for the last check of a wait, so that a busy machine can answer.
_LEAST_PATIENCE = 1.0
_GOOD = frozenset({"valid", "failing"})
_IN_NAMES = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-/")
_TAKES_PATH = {"--socket": "socket", "-c": "config", "--config": "config"}
_OK, _NOT_READY = 200, 503
_NO_ERROR = b'"config_error": null'


def quick(arguments: list[str]) -> int | None:
    """The exit code; None if argparse is needed (--wait, --help, errors)."""
    given: dict[str, str] = {}
    live = ready = False
    names: list[str] = []
    rest = iter(arguments)
    for word in rest:
        if word in _TAKES_PATH:
            path = next(rest, None)
            if path is None:
                return None
            given[_TAKES_PATH[word]] = path
        elif word == "--live":
            live = True
        elif word == "--ready":
            ready = True
        elif word.startswith("-"):
            return None
        else:
            names.append(word)
    if len(given) > 1 or (live and (ready or names)):
        return None
    socket, _ = find(given.get("socket"), given.get("config", os.environ.get("BEARERD_CONFIG")))
    return health(socket, live=live, names=names)


def health(path: str, *, live: bool, names: list[str], wait: float = 0.0) -> int:
    """Check the health until it is good or `wait` seconds are over. Returns 0 if it is good, else 1 with the reasons.

    Good means ready; with `live`, alive; with names, that these tokens are valid on disk.
    """
    end = time.monotonic() + wait
    pause = _FIRST_PAUSE
    while True:
        left = end - time.monotonic()
        patience = min(PATIENCE, max(left, _LEAST_PATIENCE)) if wait else PATIENCE
        try:
            reasons, error_of_config = _unwell(path, patience, live=live, names=names)
        except NoAnswer as error:
            reasons, error_of_config = [str(error)], None
        left = end - time.monotonic()
        if not reasons or left <= 0:
            note_config(error_of_config)
        if not reasons:
            print("alive" if live else "valid" if names else "ready")
            return 0
        if left <= 0:
            meant = _meant(path, names, reasons)
            for reason in reasons:
                print(f"bearerd: {printable(meant.get(reason, reason))}", file=sys.stderr)
            return 1
        time.sleep(min(pause, left))
        pause = min(2 * pause, _LONGEST_PAUSE)


def _unwell(path: str, patience: float, *, live: bool, names: list[str]) -> tuple[list[str], object]:
    """Why the health is not good, and the error of the current config. Raises NoAnswer."""
    if names:
        with Reading(path):
            looks = [_invalid(path, name, patience) for name in names]
        return [reason for reasons, _ in looks for reason in reasons], looks[-1][1]
    status, body = ask(path, "/livez" if live else "/readyz", patience=patience)
    # A successful probe does not import the JSON module, unless there is a config error.
    if status == _OK and _NO_ERROR in body:
        return [], None
    if status not in {_OK, _NOT_READY}:
        raise NoAnswer(f"the process that answers at {path} is not bearerd: HTTP {status}")
    document = parsed(path, body)
    error = document.get("config_error")
    if status == _OK:
        if document.get("ok") is not True:
            raise NoAnswer(f"the process that answers at {path} is not bearerd")
        return [], error
    reasons = document.get("reasons")
    found = reasons if isinstance(reasons, list) else [document["error"]] if "error" in document else []
    return [f"{'not alive' if live else 'not ready'}: {reason}" for reason in found or ["no reason given"]], error


def _invalid(path: str, name: str, patience: float) -> tuple[list[str], object]:
    """The same for one token."""
    # Other characters cannot occur in a name, and would need quoting.
    if not name or not _IN_NAMES.issuperset(name):
        return [_unknown(name)], None
    document, _ = ask_status(path, name, patience)
    config = document.get("config")
    error = config.get("error") if isinstance(config, dict) else None
    if not document["tokens"]:
        return [_unknown(name)], error
    token = document["tokens"][0]
    if token.get("state") in _GOOD:
        return [], error
    why = "; ".join(str(said) for said in (*token.get("file_errors", ()), token.get("last_error")) if said)
    if not why and token.get("held_text"):
        why = f"held: {token['held_text']}"
    return [f"{name}: {token.get('state')}" + (f": {why}" if why else "")], error


def _unknown(name: str) -> str:
    return f"there is no token '{name}'"


def _meant(path: str, names: list[str], reasons: list[str]) -> dict[str, str]:
    """Better reasons about unknown names, by the reason about each. Asks for the whole status, so only once."""
    unknown = [name for name in names if _unknown(name) in reasons]
    if not unknown:
        return {}
    from bearerd.config.suggest import near

    try:
        document, _ = ask_status(path)
        with Reading(path):
            known = [str(token["name"]) for token in document["tokens"]]
    except NoAnswer:
        return {}

    def better(name: str) -> str:
        if "/" not in name and (own := [each for each in known if each.startswith(f"{name}/")]):
            return f"{name} is a client: name one of its tokens, such as {own[0]}"
        return _unknown(name) + (near(name, known) or ("" if "/" in name else "; a token is named CLIENT/TOKEN"))

    return {_unknown(name): better(name) for name in unknown}
