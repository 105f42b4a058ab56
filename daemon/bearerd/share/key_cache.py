"""The keys that encrypt the entries of each client, derived from `share.key` or from the client's secrets."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Mapping
from math import inf
from typing import Final

from bearerd.errors import SecretUnavailable
from bearerd.handoff import holding
from bearerd.model import Client
from bearerd.secrets.kinds import source_of
from bearerd.share.keys import key_fault
from bearerd.share.seal import derive
from bearerd.terms import Reference

# Seconds until a claim reads the secrets again. A command that prints a secret takes its time, and claims are repeated
# each time a lock is released.
_READ_AGAIN: Final = 60.0
# Seconds until an entry that cannot be decrypted is a reason to read them again. A writer to the server can store any
# number of such entries.
_AFTER_FAILURE: Final = 5.0


class KeyCache:
    """The derived keys, kept because a secret may come from a command. Thread-safe, but reading may take seconds."""

    def __init__(self, environ: Mapping[str, str], now: Callable[[], float]) -> None:
        self._environ = environ
        self._now = now
        self._keys: dict[str, tuple[float, tuple[bytes, ...], tuple[Reference, ...]]] = {}
        """By client: its keys, when they were read, and where."""
        self._reading: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)

    def keys(self, client: Client) -> tuple[bytes, ...]:
        """The keys of a client, the one that seals first. Raises SecretUnavailable, ExtraMissing."""
        return self._read_within(client, inf)

    def refresh(self, client: Client) -> None:
        """Make sure that there are keys, and that they were read lately. Raises as `keys` does."""
        self._read_within(client, _READ_AGAIN)

    def renewed(self, client: Client) -> tuple[bytes, ...]:
        """The same, read again unless that was just done, because a secret may have changed.

        If it cannot be read now, the known keys.
        """
        return self._read_within(client, _AFTER_FAILURE)

    def _read_within(self, client: Client, seconds: float) -> tuple[bytes, ...]:
        """The keys, read again unless they were read within this many seconds."""
        with holding(self._reading[client.name]):
            known, now, where = self._keys.get(client.name), self._now(), _references(client)
            if known is not None and known[2] != where:
                known = None  # of another config: a turn that began before a reload
            if known is not None and now < known[0] + seconds:
                return known[1]
            try:
                keys = self._read(client)
            except SecretUnavailable:
                if known is None:
                    raise
                keys = known[1]
            self._keys[client.name] = (now, keys, where)
            return keys

    def forget(self, client: str) -> None:
        """Read the keys of this client again when they are needed."""
        self._keys.pop(client, None)

    def _read(self, client: Client) -> tuple[bytes, ...]:
        of_client = client.share is None or client.share.key is None
        found: list[bytes] = []
        missing: SecretUnavailable | None = None
        for reference in _references(client):
            try:
                secret = source_of(reference, self._environ).read()
            except SecretUnavailable as error:
                missing = missing or error
                continue
            if fault := key_fault(reference, secret, of_client=of_client):
                missing = missing or SecretUnavailable(fault)
            else:
                found.append(derive(secret))
        if not found:
            raise missing or SecretUnavailable("the client has no secret to encrypt its tokens with; set share.key")
        return tuple(found)


def _references(client: Client) -> tuple[Reference, ...]:
    """Where a client's keys are read."""
    key = client.share.key if client.share is not None else None
    return client.client_secret if key is None else (key,)
