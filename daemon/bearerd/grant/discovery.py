"""Finds a provider's token endpoint from its issuer, and caches its metadata."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final

from bearerd.grant.metadata import Metadata, host_of, read_metadata, well_known_urls
from bearerd.grant.outcome import Failure, Malformed, NoReply, RateLimited, Transient, Unsent
from bearerd.grant.reply import Reply
from bearerd.handoff import holding
from bearerd.log import say
from bearerd.model import Provider

# Seconds. Endpoints move once in years, so a day is soon enough.
_GOOD_FOR: Final = 86400.0
# Seconds until failed discovery is tried again; grants in between use the metadata that is known.
_TRY_AGAIN: Final = 300.0
# Seconds for which a failure is that of all grants: a provider has any number of targets, which all begin at once.
_FAILURE_HOLDS: Final = 2.0


class Discovery:
    """One provider's metadata, requested at its first grant and again after a day."""

    def __init__(self, provider: Provider, fetch: Callable[[str], Reply | NoReply], wall: Callable[[], float]) -> None:
        self._provider = provider
        self._fetch = fetch
        self._wall = wall
        self._lock = threading.Lock()
        self._known: Metadata | None = None
        # The endpoint is expected on the issuer's host.
        self._hosts = dict.fromkeys(("token endpoint", "token endpoint for certificates"), host_of(provider.issuer))
        self._ask_at = 0.0
        self._asked = 0
        self._failure: Failure | None = None
        self._failure_holds_until = 0.0

    def metadata(self, now: float) -> Metadata | Failure:
        """The metadata, requested now (boot clock) if it is not known or too old; the last good one if that fails.

        If several grants need it at once, one requests it and the others wait.
        """
        asked = self._asked
        with holding(self._lock):
            return self._found(now, asked)

    def doubt(self) -> None:
        """A request to the known endpoint failed: request the metadata again at the next grant."""
        with holding(self._lock):
            self._ask_at = 0.0

    def _found(self, now: float, asked: int) -> Metadata | Failure:
        if self._known is not None and now < self._ask_at:
            return self._known
        # `asked`: the result of the grant that this one waited for.
        if self._failure is not None and (self._asked != asked or now < self._failure_holds_until):
            return self._known or self._failure
        found = self._ask()
        self._asked += 1
        self._failure = None if isinstance(found, Metadata) else found
        if isinstance(found, Metadata):
            self._say_hosts(found, first=self._known is None)
            self._known, self._ask_at = found, now + _GOOD_FOR
            return found
        if not isinstance(found, Unsent):  # a fault of this machine costs no request, and its end counts at once
            self._failure_holds_until = now + _FAILURE_HOLDS
        if self._known is None:
            return found
        self._ask_at = now + _TRY_AGAIN
        say(logging.WARNING, f"{found}; the earlier metadata of {self._provider.issuer} stays in use")
        return self._known

    def _ask(self) -> Metadata | Failure:
        first: Malformed | Transient | None = None
        for url in well_known_urls(self._provider.issuer or ""):
            reply = self._fetch(url)
            if isinstance(reply, NoReply):
                if reply.phase in {"set-up", "secret"}:
                    return Unsent(reply.reason, phase=reply.phase, hint=reply.hint)
                if reply.phase == "proxy login":
                    return Malformed(f"metadata: {reply.reason}", phase=reply.phase, hint=reply.hint)
                if reply.phase != "reply":
                    # The second URL has the same host, and would fail in the same way.
                    return Transient(f"metadata: {reply.reason}", phase=reply.phase, hint=reply.hint)
                found: Metadata | Malformed | RateLimited | Transient = Malformed(
                    f"metadata: {reply.reason}", "discovery", reply.hint
                )
            else:
                found = read_metadata(reply, self._provider, self._wall())
            if isinstance(found, Metadata | RateLimited):
                return found
            # That it names another issuer helps more than "there is nothing at the second URL".
            nothing = isinstance(reply, Reply) and reply.status == 404  # noqa: PLR2004
            if first is None or (isinstance(first, Malformed) and not nothing):
                first = found
        return first or Malformed("metadata: none", phase="discovery")

    def _say_hosts(self, found: Metadata, *, first: bool) -> None:
        """Log once that an endpoint is on another host than the issuer, and each time that it moves."""
        before = self._hosts
        urls = (found.token_endpoint, found.mtls_token_endpoint)
        self._hosts = {name: host_of(url) for name, url in zip(before, urls, strict=True)}
        said: set[tuple[str, str]] = set()
        for name, host in self._hosts.items():
            move = (before[name], host)
            if move[0] == host or move in said:  # without an alias both endpoints are the same
                continue
            said.add(move)
            if first:
                message = f"its {name} is on {host}, not on the issuer's host {move[0]}"
            else:
                message = (
                    f"its metadata moved the {name} from {move[0]} to {host}: ask the provider if you did not expect it"
                )
            say(logging.INFO if first else logging.WARNING, f"provider {self._provider.name}: {message}")
