"""Reads the client id of each client once for all of its targets, and finds refusals that no longer apply."""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from collections.abc import Mapping
from math import inf
from typing import Final

from bearerd.admission.admission import Admission
from bearerd.clock import Clock
from bearerd.errors import SecretUnavailable
from bearerd.grant.credentials import read_client_id
from bearerd.grant.perform import Grants
from bearerd.handoff import holding
from bearerd.log import say
from bearerd.model import Target
from bearerd.terms import Reference

# Seconds until a client id that could not be read is read again: nothing reports that a command works again, or that
# there are descriptors again. A command that hangs fails after 10 s, so the client's turns wait for half of the time.
_READ_AGAIN_AFTER: Final = 10.0


class Clients:
    """Call it on workers only: a secret may come from a command that hangs."""

    def __init__(self, environ: Mapping[str, str], grants: Grants, admission: Admission, clock: Clock) -> None:
        self._environ = environ
        self._grants = grants
        self._admission = admission
        self._clock = clock
        self._lock = threading.Lock()
        self._reading: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._client_ids: dict[str, tuple[str | Reference, str]] = {}
        """By client: where its client id is read, and what was read there."""
        self._failed_at: dict[str, float] = {}
        """By client: when its client id could not be read."""
        self._looked: set[str] = set()
        # The clients whose refusals of an earlier process were looked at.

    def client_id(self, target: Target) -> str | None:
        """The client id; None if it cannot be read now."""
        client = target.client
        with self._lock:
            reading = self._reading[client.name]
        with holding(reading):
            if client.name not in self._looked:
                self._looked.add(client.name)
                self._look_at_refusal(target)
            # A turn that began before a reload asks for the id of the earlier config.
            where, known = self._client_ids.get(client.name, (None, None))
            if where == client.client_id:
                return known
            if self._now() >= self._failed_at.get(client.name, -inf) + _READ_AGAIN_AFTER:
                try:
                    found = read_client_id(client, self._environ)
                except SecretUnavailable:
                    self._failed_at[client.name] = self._now()  # its grants report it
                else:
                    self._client_ids[client.name] = client.client_id, found
                    return found
            return None

    def credentials_changed(self, target: Target) -> None:
        """The client's credentials changed: refusals of the old ones no longer apply."""
        refusal = self._admission.refusal(target.full_name, target.client.name)
        if refusal is not None and refusal.own:
            self._admission.forgive(target.client.name, self._now())
        else:
            self._look_at_refusal(target)

    def _look_at_refusal(self, target: Target) -> None:
        """If the client was refused with other credentials than it has now, it may ask at once."""
        client = target.client
        refusal = self._admission.refusal(target.full_name, client.name)
        if refusal is None or refusal.own:
            return
        if self._grants.untried(client):
            # In a fleet, another daemon may have been refused, with these same credentials.
            if client.share is None or self._grants.was_refused(client):
                what = f"the config or credentials of client {client.name}"
                say(logging.INFO, f"{what} changed since it was refused; trying again")
            self._admission.forgive(client.name, self._now())
        else:
            say(
                logging.WARNING,
                f"client {client.name} was refused with the same secret ({refusal.outcome.message}); "
                "it will be tried again later, or at once when the secret changes",
            )

    def forget(self, client: str) -> None:
        """The client's config changed: look at it again."""
        self._looked.discard(client)
        self.reread(client)

    def reread(self, client: str) -> None:
        """A secret of the client changed: read its client id again."""
        self._client_ids.pop(client, None)
        self._failed_at.pop(client, None)

    def _now(self) -> float:
        return self._clock.now().boot
