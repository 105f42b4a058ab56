"""What is read of each client once for all of its targets: its client id, and whether a refusal is out of date."""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from collections.abc import Mapping

from bearerd.admission.admission import Admission
from bearerd.clock import Clock
from bearerd.errors import SecretUnavailable
from bearerd.grant.credentials import read_client_id
from bearerd.grant.perform import Grants
from bearerd.log import say
from bearerd.model import Target


class Clients:
    """Called on workers: what is read may come from a command that hangs."""

    def __init__(self, environ: Mapping[str, str], grants: Grants, admission: Admission, clock: Clock) -> None:
        self._environ = environ
        self._grants = grants
        self._admission = admission
        self._clock = clock
        self._lock = threading.Lock()
        self._reading: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._client_ids: dict[str, str | None] = {}

    def client_id(self, target: Target) -> str | None:
        """The client id; None where it cannot be read now."""
        client = target.client
        with self._lock:
            reading = self._reading[client.name]
        with reading:
            if client.name not in self._client_ids:
                self._look_at_refusal(target)
                try:
                    self._client_ids[client.name] = read_client_id(client, self._environ)
                except SecretUnavailable:
                    self._client_ids[client.name] = None  # its grants will say so
            return self._client_ids[client.name]

    def credentials_changed(self, target: Target) -> None:
        """What the client authenticates with is different: a refusal of what it had says nothing any more."""
        refusal = self._admission.refusal(target.full_name, target.client.name)
        if refusal is not None and refusal.own:
            self._admission.forgive(target.client.name, self._clock.now().boot)
        else:
            self._look_at_refusal(target)

    def _look_at_refusal(self, target: Target) -> None:
        """If the client was refused and has credentials now that were not, it may ask at once."""
        client = target.client
        refusal = self._admission.refusal(target.full_name, client.name)
        if refusal is None or refusal.own:
            return
        if self._grants.untried(client):
            say(logging.INFO, f"client {client.name} was refused with another secret: trying again")
            self._admission.forgive(client.name, self._clock.now().boot)
        else:
            say(
                logging.WARNING,
                f"client {client.name} was refused with this same secret ({refusal.outcome.message}): "
                "it waits its time; another secret is tried at once",
            )

    def forget(self, client: str) -> None:
        """The client's config changed: what was read of it is read anew."""
        self._client_ids.pop(client, None)
