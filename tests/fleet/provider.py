"""The provider of the rig: it issues tokens, remembers which daemon asked, and knows which tokens it accepts."""

from __future__ import annotations

import base64
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import parse_qs, unquote_plus

from support.process import WITHIN
from support.server import Answer, Seen, serving

CLIENT_ID = "fleet-of-7e0c5a"
SECRET = "eQ3+v0/Zz7w=%of-the-fleet"
SCOPE = "bci"
NAMED_BY = "X-Daemon"
"""The header that says which daemon asks."""

Verdict = Literal["good", "expired", "ended", "unknown"]


@dataclass
class Issued:
    """A token, and until when (monotonic clock) it is accepted."""

    number: int
    text: str
    at: float
    wall: float
    """Unix time."""
    expires: float
    to: str
    """The daemon that asked."""
    scope: str
    ended: float = float("inf")
    """When a newer token ended it."""


@dataclass
class Held:
    """A request that waits for its answer."""

    by: str
    release: threading.Event = field(default_factory=threading.Event)


class Provider:
    """Grants tokens of one lifetime. Its modes may change at any time."""

    def __init__(self, lifetime: float, ends_old: float | None = None) -> None:
        self.lifetime = lifetime
        self.ends_old = ends_old
        """Seconds after a new token for which the older ones are still accepted."""
        self.refusal: Answer | None = None
        """The answer to each request, if it issues none."""
        self.tokens: list[Issued] = []
        self.attempts: list[tuple[float, str, int]] = []
        """When each was answered, which daemon asked, and the status."""
        self.requests: list[float] = []
        """When each was received."""
        self.url = ""
        self._by_text: dict[str, Issued] = {}
        self._changed = threading.Condition()
        self._hold = False
        self._held: list[Held] = []

    def __call__(self, seen: Seen) -> Answer:
        by = seen.headers.get(NAMED_BY.lower(), "")
        with self._changed:
            self.requests.append(time.monotonic())
            held = None
            if self._hold:
                self._hold = False
                held = Held(by)
                self._held.append(held)
                self._changed.notify_all()
        if held is not None:
            held.release.wait(WITHIN)
        with self._changed:
            answer = self._answer(seen, by)
            self.attempts.append((time.monotonic(), by, answer.status))
            self._changed.notify_all()
            return answer

    @property
    def grants(self) -> int:
        """How many tokens it issued."""
        return len(self.tokens)

    def verdict(self, text: str, at: float) -> tuple[Verdict, int]:
        """What the API of the scope `bci` says about a token at a moment, and its number; 0 if it is unknown."""
        token = self._by_text.get(text)
        if token is None or token.scope != SCOPE:
            return "unknown", 0
        if at >= token.ended:
            return "ended", token.number
        return ("expired" if at >= token.expires else "good"), token.number

    def wait_for(self, condition: Callable[[], bool], what: str, within: float = WITHIN) -> None:
        """Wait until a condition over its tokens and attempts is true."""
        with self._changed:
            assert self._changed.wait_for(condition, within), f"the provider waited in vain for {what}"

    @contextmanager
    def holding(self) -> Iterator[Held]:
        """Wait for the next request, and hold its answer during the block."""
        with self._changed:
            self._held.clear()
            self._hold = True
            assert self._changed.wait_for(lambda: bool(self._held), WITHIN), "no request came"
            [held] = self._held
        try:
            yield held
        finally:
            held.release.set()

    def _answer(self, seen: Seen, by: str) -> Answer:
        if self.refusal is not None:
            return self.refusal
        given = base64.b64decode(seen.headers["authorization"].split()[1]).decode().split(":")
        if [unquote_plus(part) for part in given] != [CLIENT_ID, SECRET]:
            return Answer(401, {"error": "invalid_client"})
        now = time.monotonic()
        if self.ends_old is not None:
            for old in self.tokens:
                old.ended = min(old.ended, now + self.ends_old)
        [scope] = parse_qs(seen.body.decode())["scope"]
        number = self.grants + 1
        token = Issued(
            number, f"t-{number}-{secrets.token_urlsafe(24)}", now, time.time(), now + self.lifetime, by, scope
        )
        self.tokens.append(token)
        self._by_text[token.text] = token
        return Answer(200, {"access_token": token.text, "token_type": "Bearer", "expires_in": self.lifetime})


@contextmanager
def providing(lifetime: float, ends_old: float | None = None) -> Iterator[Provider]:
    """Run a provider during the block."""
    provider = Provider(lifetime, ends_old)
    with serving(provider) as server:
        provider.url = server.url
        yield provider
