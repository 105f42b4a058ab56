"""`bearerd refresh`: requests new tokens from the running daemon, and waits for them."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from bearerd.cli.ask import NoAnswer, ask, ask_status, note, note_config, parsed
from bearerd.config.suggest import near
from bearerd.plural import together
from bearerd.printable import printable
from bearerd.timeformat import after, duration

# Seconds between two polls: most providers answer within the first few.
_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 1.0
# Seconds after which the turn of a requested target has run, so that its status shows what holds it.
_TURN_WITHIN: Final = 1.0
_ACCEPTED, _TOO_OFTEN = 202, 429
# As in the answer to a request that this daemon's own limit holds back (api/routes.py).
_LIMITED: Final = "requested refreshes have used up their half of its rate_limit"

_Tokens = Mapping[str, Mapping[str, Any]]


@dataclass(slots=True)
class _Request:
    """An accepted refresh request."""

    grants: int
    """The token's grants before the request, and those of its fleet that it heard of."""
    sent: float
    delay: str = ""
    """What delays it, as the answer said, to follow the token's name."""
    seen: bool = False
    """Whether the last poll showed another grant."""


@dataclass(frozen=True, slots=True)
class _End:
    good: bool
    text: str
    unwritten: bool = False
    """Whether there is a new token that is not in all of its files."""


def refresh(socket: str, names: list[str], timeout: float) -> int:
    """Request new tokens, all by default, and print a line for each.

    Returns 0 if each token was refreshed within `timeout` seconds, else 1. A token that is held for longer ends at
    once. Raises NoAnswer.
    """
    end = time.monotonic() + timeout
    daemon = _Daemon(socket)
    had = daemon.tokens()
    wanted = _expanded(names, had) or list(had)
    failed: dict[str, _End] = {}

    def tell(name: str, said: _End) -> None:
        if not said.good:
            failed[name] = said
        print(f"{printable(name)}: {printable(said.text)}", flush=True)

    requests: dict[str, _Request] = {}
    for name in wanted:  # all of them before the first poll, so that they run together
        answer = daemon.request(name, had, end - time.monotonic())
        if isinstance(answer, _End):
            tell(name, answer)
        else:
            requests[name] = answer
    pause, noted = _FIRST_PAUSE, False
    while requests:
        time.sleep(max(0.0, min(pause, end - time.monotonic())))
        pause = min(2 * pause, _LONGEST_PAUSE)
        tokens = daemon.tokens(next(iter(requests)) if len(requests) == 1 else None)
        left = end - time.monotonic()
        for name, request in list(requests.items()):
            result = _result(request, tokens.get(name), left, timeout)
            if result is not None:
                tell(name, result)
                del requests[name]
        if not noted and any(time.monotonic() - each.sent >= _TURN_WITHIN for each in requests.values()):
            noted = _note_waiting([(request, tokens[name]) for name, request in requests.items()], left)
    tokens_wanted = sum(name in had for name in wanted)  # the others are no tokens
    for unwritten, one, several in (
        (False, "was not refreshed", "were not refreshed"),
        (True, "is not up to date in its files", "are not up to date in their files"),
    ):
        if count := sum(end.unwritten == unwritten for name, end in failed.items() if name in had):
            which = f"{count} of {tokens_wanted} tokens {several}" if tokens_wanted > 1 else f"the token {one}"
            print(f"bearerd: {which}", file=sys.stderr)
    return 1 if failed else 0


def _expanded(names: Iterable[str], had: _Tokens) -> list[str]:
    """The names of tokens, in which a client's name stands for all of its tokens."""
    expanded: list[str] = []
    for name in names:
        expanded += [each for each, token in had.items() if token.get("client") == name] or [name]
    return list(dict.fromkeys(expanded))


def _note_waiting(waiting: list[tuple[_Request, Mapping[str, Any]]], left: float) -> bool:
    """Say on stderr what the remaining tokens wait for, one line per reason. Returns whether any reason is known."""
    reasons: dict[str, list[str]] = {}
    for request, token in waiting:
        if reason := _delay(request, token):
            reasons.setdefault(reason, []).append(str(token["name"]))
    for reason, names in reasons.items():
        which = names[0] if len(names) == 1 else f"{len(names)} tokens"
        note(f"{which}{reason}; waiting up to {duration(left)}")
    return bool(reasons)


def _delay(request: _Request, token: Mapping[str, Any]) -> str:
    """What delays the end of a request, to follow the token's name; empty if nothing does."""
    if token.get("held_by"):
        return f" held: {_reason(token)}"
    if _grants(token) <= request.grants:
        return request.delay
    faults = together(token.get("file_errors") or ())
    return f": the new token is not in all of its files yet: {faults}" if faults else ""


class _Daemon:
    """The daemon that answered first. A restarted one has lost the requests."""

    def __init__(self, socket: str) -> None:
        self._socket = socket
        self._pid: Any = None

    def tokens(self, only: str | None = None) -> _Tokens:
        """All tokens, or one, by name. Raises NoAnswer."""
        try:
            document, _ = ask_status(self._socket, only)
        except NoAnswer as error:
            if self._pid is None:
                raise
            raise NoAnswer(f"{error}; the request had been accepted: see bearerd status") from None
        if self._pid not in (None, document["pid"]):
            raise NoAnswer("the daemon was restarted while the token was requested; run the command again")
        if self._pid is None:
            note_config((document.get("config") or {}).get("error"))
        self._pid = document["pid"]
        return {token["name"]: token for token in document["tokens"]}

    def request(self, name: str, had: _Tokens, left: float) -> _Request | _End:
        """Request a new token. Returns an end if it is refused, or held for longer than `left` seconds."""
        if name not in had:
            clients = {str(token.get("client")) for token in had.values()}
            same = [each for each in had if each.endswith(f"/{name}")]
            hint = f"; did you mean '{same[0]}'?" if same else near(name, [*clients, *had])
            return _End(False, f"there is no token or client of this name{hint}")
        status, body = ask(self._socket, f"/refresh/{name}", "POST")
        answer = parsed(self._socket, body)
        if status == _ACCEPTED:
            held = answer.get("held") or {}
            wait = held.get("seconds")
            why = ": ".join(str(part) for part in (held.get("text"), held.get("error")) if part)
            if wait is None or wait <= left:
                return _Request(answer["grants"], time.monotonic(), f" held: {why}" if why else "")
            return _End(False, f"held: {why}; next attempt {after(wait)}{_current(had[name])}")
        text = str(answer.get("error", f"HTTP {status}"))
        if status == _TOO_OFTEN:
            error = had[name].get("last_error")
            text += (f"; last error: {error}" if error else "") + _current(had[name])
        return _End(False, text)


def _result(request: _Request, token: Mapping[str, Any] | None, left: float, timeout: float) -> _End | None:
    """The result of a request; None while it is open. `left` is what remains of `timeout`, in seconds."""
    if token is None:
        return _End(False, "it is no longer in the config")
    late, error = left <= 0, token.get("last_error")
    if _grants(token) <= request.grants:
        return _waiting(request, token, left, timeout)
    if not request.seen and not late:
        # Its turn may still be recording the outcome.
        request.seen = True
        return None
    if error:
        return _End(False, f"failed: {error}{_current(token)}")
    if not token.get("on_disk"):
        if not late:
            return None
        faults = together(token.get("file_errors") or ["not yet"])
        return _End(False, f"not in all of its files: {faults}{_current(token)}", unwritten=True)
    if token.get("publish_at"):
        return _End(True, f"new token, published at {token['publish_at']}{_current(token)}")
    what = "the provider returned the same token" if token.get("same_token") else "new token"
    return _End(True, f"{what}, good for {duration(token.get('remaining_seconds') or 0.0)}")


def _grants(token: Mapping[str, Any]) -> int:
    """The grants of a token, and those of its fleet that it heard of."""
    return int(sum(token["grants"].values()) + token.get("fleet_grants", 0))


def _waiting(request: _Request, token: Mapping[str, Any], left: float, timeout: float) -> _End | None:
    """The end of a request without a grant, at the timeout or if the token is held for longer; None to go on."""
    held, error = token.get("held_by"), token.get("last_error")
    limited = token.get("refresh_limited_seconds")
    if limited and not held:  # its fleet said so when the turn came, and the request was dropped
        return _End(False, f"{_LIMITED}; try again {after(limited)}{_current(token)}")
    # Without a known end of the hold, the next attempt shown is the last one before expiry.
    wait = token.get("next_refresh_seconds") if (token.get("held_until") if held else error) else None
    held_for_long = held and wait is not None and wait > left
    if left > 0 and not (held_for_long and time.monotonic() - request.sent >= _TURN_WITHIN):
        return None
    why = f": held: {_reason(token)}" if held else f": {error}" if error else ""
    if wait is not None:
        why += f"; next attempt {after(wait)}"
    elif not held:
        # While a request is in flight, the status still shows the time of the planned refresh.
        why += "; the request is in flight"
    return _End(False, f"no new token within {duration(timeout)}{why}{_current(token)}")


def _reason(token: Mapping[str, Any]) -> str:
    """The reason that holds a token, with the error behind it."""
    text, error = token.get("held_text") or token.get("held_by"), token.get("last_error")
    return f"{text}: {error}" if error else f"{text}"


def _current(token: Mapping[str, Any]) -> str:
    """The state of the current token."""
    remaining = token.get("remaining_seconds") or 0.0
    return f"; the current token is good for {duration(remaining)}" if remaining else "; there is no valid token"
