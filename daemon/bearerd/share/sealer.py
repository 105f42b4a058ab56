"""Encrypts and decrypts the entries of each client, with its secrets. Knows nothing of the server."""

from __future__ import annotations

import hmac
import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from bearerd.grant.credentials import read_credentials
from bearerd.grant.outcome import Failure, Transient
from bearerd.model import Target
from bearerd.share.entry import TokenEntry, dump_failure, dump_token, load_failure, load_refused, load_token
from bearerd.share.key_cache import KeyCache
from bearerd.share.seal import NONCE, associated_data, seal, unseal
from bearerd.share.types import Failing, Names, Stored

_UNREADABLE: Final = Transient("another daemon of the fleet reports a failure that this one cannot decrypt")
# Bytes of a fingerprint: two sets of credentials never share one.
_FINGERPRINT: Final = 16


class Sealer:
    """Thread-safe. Its methods raise SecretUnavailable and ExtraMissing if there is no key."""

    def __init__(self, environ: Mapping[str, str], now: Callable[[], float]) -> None:
        """`now`: the boot clock."""
        self._environ = environ
        self._key_cache = KeyCache(environ, now)

    def ready(self, target: Target) -> None:
        """Make sure that there is a key. The secrets are read again if that was not done lately."""
        self._key_cache.refresh(target.client)

    def forget(self, client: str) -> None:
        """Read the keys of this client again when they are needed."""
        self._key_cache.forget(client)

    def seal_token(self, target: Target, names: Names, entry: TokenEntry) -> bytes:
        """An entry with a token. Its record has the client id and the fence."""
        record = entry.record
        bound = associated_data("token", names, target.identity(), record.client_id, record.fence)
        return self._seal(target, dump_token(entry), bound)

    def open_token(self, target: Target, names: Names, client_id: str, stored: Stored) -> TokenEntry | None:
        """The token in an entry; None if it cannot be opened."""
        content = self._open(
            target, stored.sealed, associated_data("token", names, target.identity(), client_id, stored.fence)
        )
        return None if content is None else load_token(content)

    def credentials(self, target: Target) -> str:
        """A fingerprint of the credentials. It is the same on all daemons with the same credentials and key."""
        client = target.client
        several = read_credentials(client, self._environ)
        used = [[one.client_id, one.secret, one.private_key, one.certificate] for one in several]
        judged = f"{client.judged()}{json.dumps(used)}".encode()
        return hmac.digest(self._key_cache.keys(client)[0], judged, "sha256")[:_FINGERPRINT].hex()

    def seal_failure(
        self,
        target: Target,
        names: Names,
        client_id: str,
        failure: Failure,
        ends: float,
        *,
        whole_client: bool,
        refused: tuple[str, ...] = (),
    ) -> bytes:
        """An entry with a failure, of the target or of its whole client. `ends` and `refused`: as in `dump_failure`."""
        bound = associated_data("failure", names, "" if whole_client else target.identity(), client_id)
        return self._seal(target, dump_failure(failure, ends, refused), bound)

    def open_failure(
        self, target: Target, names: Names, client_id: str, failing: Failing
    ) -> tuple[Failure, float | None]:
        """The failure in an entry, with a remark that another daemon received it, and when the fleet asks again.

        A general one without a time if it cannot be opened.
        """
        content = self._failure(target, names, client_id, failing)
        opened = None if content is None else load_failure(content)
        if opened is None:
            return _UNREADABLE, None
        failure, ends = opened
        return replace(failure, message=f"{failure.message} (received by another daemon of the fleet)"), ends

    def refused(self, target: Target, names: Names, client_id: str, failing: Failing) -> tuple[str, ...] | None:
        """The fingerprints of the credentials that were refused; None if the entry cannot be opened."""
        content = self._failure(target, names, client_id, failing)
        return None if content is None or load_failure(content) is None else load_refused(content)

    def _failure(self, target: Target, names: Names, client_id: str, failing: Failing) -> bytes | None:
        identity = "" if failing.whole_client else target.identity()
        return self._open(target, failing.sealed, associated_data("failure", names, identity, client_id))

    def _seal(self, target: Target, content: bytes, bound: bytes) -> bytes:
        return seal(content, bound, self._key_cache.keys(target.client)[0], secrets.token_bytes(NONCE))

    def _open(self, target: Target, sealed: bytes, bound: bytes) -> bytes | None:
        content = unseal(sealed, bound, self._key_cache.keys(target.client))
        return unseal(sealed, bound, self._key_cache.renewed(target.client)) if content is None else content
