"""Fingerprints of credentials, equal on all daemons that have the same ones; and the keys that open an entry."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from bearerd.publish.record import Record
from bearerd.share.entry import TokenEntry
from bearerd.share.names import names_of
from bearerd.share.sealer import Sealer
from bearerd.share.types import Stored
from bearerd.terms import Reference
from support.clock import FakeClock
from support.fleet import CLIENT_ID, SECRET, SHARE
from support.targets import CLIENT, TARGET, token

SHARED = replace(TARGET, client=replace(CLIENT, share=SHARE))
NAMES = names_of(SHARED, CLIENT_ID)


def test_the_fingerprint_of_credentials_is_the_same_in_each_version() -> None:
    """Otherwise daemons of two versions would try one wrong secret twice."""
    sealer = Sealer({"DNB_SECRET": SECRET}, lambda: 0.0)
    assert sealer.credentials(SHARED) == "157569663573b6e78a6ab63680d6057f"


def test_other_credentials_have_another_fingerprint_and_other_machines_the_same() -> None:
    keyed = replace(SHARED, client=replace(SHARED.client, share=replace(SHARE, key=Reference("env", "KEY"))))
    environ = {"DNB_SECRET": SECRET, "KEY": "0123456789abcdef0123456789abcdef"}
    known = Sealer(environ, lambda: 0.0).credentials(keyed)
    elsewhere = replace(keyed, client=replace(keyed.client, name="other", client_secret=(Reference("env", "OWN"),)))
    assert Sealer({"OWN": SECRET} | environ, lambda: 0.0).credentials(elsewhere) == known
    assert Sealer(environ | {"DNB_SECRET": "another"}, lambda: 0.0).credentials(keyed) != known


class Counted(dict[str, str]):
    """An environment that counts how often it is read."""

    reads = 0

    def __getitem__(self, key: str) -> str:
        self.reads += 1
        return super().__getitem__(key)

    def get(self, key: str, default: Any = None) -> Any:
        """As a dict."""
        self.reads += 1
        return super().get(key, default)


def test_an_entry_that_opens_does_not_read_the_secret_again_and_one_that_does_not_does() -> None:
    clock = FakeClock()
    environ = Counted(DNB_SECRET=SECRET)
    sealer = Sealer(environ, lambda: clock.boot)
    entry = TokenEntry(Record(token("one"), SHARED.identity(), CLIENT_ID, fence=7), 1.8e9, 0.0)

    def opened(by: Sealer) -> TokenEntry | None:
        sealed = by.seal_token(SHARED, NAMES, entry)
        return sealer.open_token(SHARED, NAMES, CLIENT_ID, Stored(7, 1.8e9, sealed))

    assert opened(sealer) is not None
    clock.advance(3600.0)
    before = environ.reads
    assert opened(sealer) is not None
    assert environ.reads == before
    environ["DNB_SECRET"] = "the newer secret of the client"
    found = opened(Sealer(dict(environ), lambda: clock.boot))
    assert found is not None
    assert found.record.token.access_token == "one"
    assert environ.reads > before
