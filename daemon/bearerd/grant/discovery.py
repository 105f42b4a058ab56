"""Finds a provider's token endpoint by its issuer, and remembers what was found."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final

from bearerd.grant.endpoint import NoReply
from bearerd.grant.metadata import Metadata, places, read_metadata
from bearerd.grant.outcome import Malformed, Transient, Unsent
from bearerd.grant.reply import Reply
from bearerd.log import say
from bearerd.model import Provider

# Endpoints move in years; a day is soon enough to hear of it, and no request that nothing needs.
_GOOD_FOR: Final = 86400.0
# What failed is not asked for again with each grant of the meantime.
_TRY_AGAIN: Final = 300.0


class Discovery:
    """One provider's metadata: asked for at its first grant, and again a day later."""

    def __init__(self, provider: Provider, fetch: Callable[[str], Reply | NoReply]) -> None:
        self._provider = provider
        self._fetch = fetch
        self._lock = threading.Lock()
        self._known: Metadata | None = None
        self._ask_at = 0.0
        self._asked = 0
        self._failure: Malformed | Transient | Unsent | None = None

    def metadata(self, now: float) -> Metadata | Malformed | Transient | Unsent:
        """What is known, or found now (`now` is the boot clock's); the last good answer where asking fails.

        Of several grants one asks, and the others wait for it.
        """
        asked = self._asked
        with self._lock:
            if self._known is not None and now < self._ask_at:
                return self._known
            if self._failure is not None and self._asked != asked:
                return self._failure  # what came while this one waited
            found = self._ask()
            self._asked += 1
            self._failure = None if isinstance(found, Metadata) else found
            if isinstance(found, Metadata):
                self._known, self._ask_at = found, now + _GOOD_FOR
                return found
            if self._known is None:
                return found
            self._ask_at = now + _TRY_AGAIN
            say(logging.WARNING, f"{found}; going on with what {self._provider.issuer} said before")
            return self._known

    def doubt(self) -> None:
        """What is known led nowhere: ask again at the next grant."""
        with self._lock:
            self._ask_at = 0.0

    def _ask(self) -> Metadata | Malformed | Transient | Unsent:
        first: Malformed | Transient | None = None
        for url in places(self._provider.issuer or ""):
            reply = self._fetch(url)
            if isinstance(reply, NoReply):
                # The same host would fail in the same way.
                if reply.phase == "set-up":
                    return Unsent(reply.reason, phase="set-up", hint=reply.hint)
                return Transient(f"metadata: {reply.reason}", phase=reply.phase, hint=reply.hint)
            found = read_metadata(reply, self._provider)
            if isinstance(found, Metadata):
                return found
            # That it is another issuer's says more than that there is nothing at the second place.
            if first is None or (isinstance(first, Malformed) and reply.status != 404):  # noqa: PLR2004
                first = found
        return first or Malformed("metadata: none", phase="discovery")
