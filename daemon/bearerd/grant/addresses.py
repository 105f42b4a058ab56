"""The order in which the addresses of a host are tried (RFC 8305, happy eyeballs). Pure."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain, zip_longest
from typing import Any, Final

REMEMBERED_FOR: Final = 600.0
"""Seconds for which the address that connected is tried first, and one that failed after it had connected is tried
last. Longer than most outages of a route, and short enough to return soon to a preferred address that works again."""
MOST_ADDRESSES: Final = 16
"""Addresses of one name that are tried. At 250 ms each this takes 4 s; a DNS reply may hold thousands."""

Address = tuple[Any, ...]
"""As getaddrinfo returns it: family, kind, protocol, canonical name, socket address."""
HostPort = tuple[str, int]
"""A host name and a port."""


def in_order(found: Iterable[Address], preferred: Address | None, failed: Iterable[Address] = ()) -> list[Address]:
    """The addresses to try: the preferred one if it is among them, then alternating families, then those that failed.

    The family of the first address comes first: getaddrinfo has sorted them (RFC 6724). Of those that failed the one
    that did last comes last.
    """
    families: dict[Any, list[Address]] = {}
    for address in dict.fromkeys(found):
        families.setdefault(address[0], []).append(address)
    by_turns = [one for one in chain.from_iterable(zip_longest(*families.values())) if one is not None]
    if preferred in by_turns:
        by_turns.remove(preferred)
        by_turns.insert(0, preferred)
    for address in failed:
        if address in by_turns:
            by_turns.remove(address)
            by_turns.append(address)
    return by_turns[:MOST_ADDRESSES]


class Winners:
    """The address of each host that connected first, and those that failed after that, for ten minutes.

    Times are seconds of any steady clock.
    """

    def __init__(self) -> None:
        self._known: dict[HostPort, tuple[Address, float]] = {}
        self._failed: dict[tuple[HostPort, Address], float] = {}

    def preferred(self, host: HostPort, now: float) -> Address | None:
        """The address to try first, if one is remembered."""
        address, until = self._known.get(host, (None, now))
        return address if now < until else None

    def won(self, host: HostPort, address: Address, now: float) -> None:
        """Remember an address. One that connects again because it was tried first is not remembered for longer."""
        if self.preferred(host, now) != address:
            self._known = {known: kept for known, kept in self._known.items() if now < kept[1]}
            self._known[host] = (address, now + REMEMBERED_FOR)

    def forget(self, host: HostPort) -> None:
        """No address connected."""
        self._known.pop(host, None)

    def failed(self, host: HostPort, now: float) -> list[Address]:
        """The addresses that connected and then failed, the last to fail at the end."""
        return [address for (known, address), until in self._failed.items() if known == host and now < until]

    def lost(self, host: HostPort, address: Address, now: float) -> None:
        """Remember an address that connected and then failed."""
        self.forget(host)
        self._failed = {known: until for known, until in self._failed.items() if now < until}
        self._failed.pop((host, address), None)  # to be the last
        self._failed[host, address] = now + REMEMBERED_FOR
