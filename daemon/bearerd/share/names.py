"""The names of a target's entries in the store. Pure.

They are hashes: a reader of the store learns neither providers nor client ids. They do not depend on a key, so that a
daemon with another key notices that it cannot read what the others store.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Final

from bearerd.model import Target
from bearerd.share.types import Names

# Hex digits: 128 bits. Two of a fleet's names are never equal by chance.
_DIGITS: Final = 32


def names_of(target: Target, client_id: str) -> Names:
    """The names of a target's entries. Daemons with the same request and client id have the same names."""
    client = target.client
    whose = [client.provider.url, client_id]
    # A daemon with strict_scope refuses tokens that the others accept, so it does not share with them.
    strict = ["strict_scope"] if target.strict_scope else []
    return Names(
        token=_hash("token", target.identity(), client_id, *strict),
        client=_hash("client", *whose),
        refused_limit=client.provider.refused_limit,
        # The names of a config are those of one machine.
        rates=tuple(
            (_hash("rate", *(whose if name == f"client-{client.name}" else whose[:1])), limit)
            for name, limit in client.rate_limits
        ),
    )


def _hash(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:_DIGITS]
