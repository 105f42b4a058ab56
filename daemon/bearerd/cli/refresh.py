"""`bearerd refresh`: a new token now, from the daemon that runs; waits for what comes of it."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Final

from bearerd.cli.ask import NoAnswer, ask, ask_status, clean, note_config, parsed
from bearerd.timeformat import duration

# Seconds between two looks: most providers answer within the first few.
_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 1.0
# By then a turn that was asked for has been given, and says what holds it back.
_HELD_FOR_GOOD: Final = 1.0
_ACCEPTED, _TOO_OFTEN = 202, 429

_Tokens = Mapping[str, Mapping[str, Any]]


@dataclass(slots=True)
class _Wish:
    """A token that was asked for."""

    grants: int
    """How many it had until then."""
    asked: float
    seen: bool = False
    """Whether there was one more at the last look."""


@dataclass(frozen=True, slots=True)
class _End:
    good: bool
    text: str


def refresh(socket: str, names: list[str], timeout: float) -> int:
    """0 when each of these tokens (or all) is a new one within that many seconds, else 1; a line for each."""
    end = time.monotonic() + timeout
    daemon = _Daemon(socket)
    had = daemon.tokens()
    wanted = list(dict.fromkeys(names)) or list(had)
    failed = 0

    def tell(name: str, said: _End) -> None:
        nonlocal failed
        failed += not said.good
        print(f"{clean(name)}: {clean(said.text)}", flush=True)

    wishes: dict[str, _Wish] = {}
    for name in wanted:  # all, before any is waited for
        asked = daemon.ask_for(name, had)
        if isinstance(asked, _End):
            tell(name, asked)
        else:
            wishes[name] = asked
    pause = _FIRST_PAUSE
    while wishes:
        time.sleep(max(0.0, min(pause, end - time.monotonic())))
        pause = min(2 * pause, _LONGEST_PAUSE)
        tokens = daemon.tokens(next(iter(wishes)) if len(wishes) == 1 else None)
        left = end - time.monotonic()
        for name, wish in list(wishes.items()):
            came = _came(wish, tokens.get(name), left, timeout)
            if came is not None:
                tell(name, came)
                del wishes[name]
    if failed:
        print(f"bearerd: {failed} of {len(wanted)} tokens not renewed", file=sys.stderr)
    return 1 if failed else 0


class _Daemon:
    """The one that was there at first."""

    def __init__(self, socket: str) -> None:
        self._socket = socket
        self._pid: Any = None

    def tokens(self, only: str | None = None) -> _Tokens:
        """All tokens, or one, by their names; raises NoAnswer."""
        document, _ = ask_status(self._socket, only)
        if self._pid not in (None, document["pid"]):
            raise NoAnswer("the daemon was started anew meanwhile: ask again")
        if self._pid is None:
            note_config((document.get("config") or {}).get("error"))
        self._pid = document["pid"]
        return {token["name"]: token for token in document["tokens"]}

    def ask_for(self, name: str, had: _Tokens) -> _Wish | _End:
        """Wish for a new one."""
        if name not in had:
            near = get_close_matches(name, had, n=1)
            return _End(False, "there is no token of this name" + (f"; did you mean {near[0]}?" if near else ""))
        status, body = ask(self._socket, f"/refresh/{name}", "POST")
        said = parsed(self._socket, body)
        if status == _ACCEPTED:
            return _Wish(said["grants"], time.monotonic())
        if status == _TOO_OFTEN:
            return _End(False, f"requested too often; try again in {said['retry_after']} s")
        return _End(False, str(said.get("error", f"HTTP {status}")))


def _came(wish: _Wish, token: Mapping[str, Any] | None, left: float, timeout: float) -> _End | None:
    """What came of a wish; None where that is still open. `left` seconds are left of `timeout`."""
    if token is None:
        return _End(False, "it is no longer in the config")
    late, error = left <= 0, token.get("last_error")
    remaining = token.get("remaining_seconds") or 0.0
    holds = f"; the present token is good for {duration(remaining)}" if remaining else "; there is no valid token"
    if sum(token["grants"].values()) <= wish.grants:
        turn, held = token.get("next_refresh_seconds") or 0.0, token.get("held_by")
        for_good = held in {"refused", "refused_limit", "rate_limit"} and turn > left
        if late or (for_good and time.monotonic() - wish.asked >= _HELD_FOR_GOOD):
            why = f": {error}" if error else ""
            # Of one that is asked for right now the daemon still says when it was to be.
            when = f"next attempt in {duration(turn)}" if held or error else "it is still being asked for"
            return _End(False, f"no new token within {duration(timeout)}{why}; {when}{holds}")
        return None
    if not wish.seen and not late:
        # Its turn may still be about to take note of what came.
        wish.seen = True
        return None
    if error:
        return _End(False, f"failed: {error}{holds}")
    if not token.get("on_disk"):
        if not late:
            return None
        return _End(False, f"not in all of its files: {'; '.join(token.get('file_errors') or ['not yet'])}{holds}")
    what = "the provider gave the same token again" if token.get("same_token") else "new token"
    return _End(True, f"{what}, good for {duration(remaining)}")
