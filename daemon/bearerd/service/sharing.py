"""The fleets of a config. Without a client that shares, nothing of them is imported: it costs no memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Final, Protocol

from bearerd.clock import Clock, dice
from bearerd.model import Target
from bearerd.share.types import ShareView

if TYPE_CHECKING:
    from bearerd.share.fleet import Fleet
    from bearerd.share.server import Connect

_SLOW: Final = (
    "bearerd.share.redis_connection",
    "cryptography.hazmat.primitives.ciphers.aead",
    "cryptography.hazmat.primitives.kdf.hkdf",
)
"""Modules of the extra that take long to import."""


class ClientIds(Protocol):
    """Reads client ids (clients.py)."""

    def client_id(self, target: Target) -> str | None:
        """The client id; None if it cannot be read now."""
        ...


class Sharing:
    """Makes the fleet when the first client shares.

    `wake` gives a target a turn, now or at a time (boot clock). `connect` makes the link to a server; None: to Redis.
    """

    def __init__(
        self,
        clock: Clock,
        environ: Mapping[str, str],
        wake: Callable[[str, float | None], None],
        connect: Connect | None = None,
        random: Callable[[], float] = dice,
    ) -> None:
        self._clock = clock
        self._connect = connect
        self._dice = random
        self._environ = environ
        self._wake = wake
        self._fleet: Fleet | None = None

    def apply(self, targets: Iterable[Target], clients: ClientIds) -> None:
        """Apply a config. Targets whose client shares get their fleet from now on."""
        targets = tuple(targets)
        if self._fleet is None and any(target.client.share is not None for target in targets):
            self._fleet = self._make(clients)
        if self._fleet is not None:
            self._fleet.apply(targets)

    def of(self, target: Target) -> Fleet | None:
        """The fleet of a target; None if its client does not share."""
        return None if target.client.share is None else self._fleet

    def credentials_changed(self, client: str) -> None:
        """A secret of this client changed, or its key."""
        if self._fleet is not None:
            self._fleet.credentials_changed(client)

    def views(self) -> tuple[ShareView, ...]:
        """The servers, for status and metrics."""
        return () if self._fleet is None else self._fleet.views()

    def stop(self) -> None:
        """Close all connections."""
        if self._fleet is not None:
            self._fleet.stop()

    def _make(self, clients: ClientIds) -> Fleet:
        from bearerd.share.fleet import Fleet  # noqa: PLC0415 - only when a client shares

        connect = self._connect or self._to_redis()
        return Fleet(self._clock, self._dice, self._environ, connect, self._wake, clients.client_id)

    def _to_redis(self) -> Connect:
        from bearerd.share.link import RedisLink  # noqa: PLC0415 - as above

        # On a machine that has just booted, importing redis-py may take longer than `timeout`, which starts later, and
        # a turn that imports cryptography would look stuck.
        with suppress(ImportError):  # the link reports it, and names the extra
            for name in _SLOW:
                import_module(name)

        return lambda redis, listener: RedisLink(redis, self._environ, self._clock, self._dice, listener)
