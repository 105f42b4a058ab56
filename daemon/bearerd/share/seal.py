"""Seals entries, that is, encrypts and authenticates them: AES-256-GCM with keys by HKDF-SHA256 (RFC 5869). Pure.

Needs the extra `redis`. A reader of the store learns nothing from an entry, and a writer cannot make one. An entry
opens only under the name, for the request and with the fence that it was sealed for, so that entries cannot be
exchanged either.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Final, Literal

from bearerd.errors import ExtraMissing
from bearerd.share.types import NEVER, Names

VERSION: Final = 1
"""Of the format of entries. It is their first byte, and part of what is authenticated."""
NONCE: Final = 12
"""Bytes (NIST SP 800-38D section 8.2.2: random nonces of 96 bits)."""
_PURPOSE: Final = b"bearerd share 1"
Kind = Literal["token", "failure"]


def derive(secret: str) -> bytes:
    """The key that is derived from a secret. Raises ExtraMissing."""
    try:
        from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415 - an extra
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF  # noqa: PLC0415 - an extra
    except ImportError:
        raise ExtraMissing("share", "redis") from None
    return HKDF(SHA256(), length=32, salt=None, info=_PURPOSE).derive(secret.encode())


def associated_data(kind: Kind, names: Names, identity: str, client_id: str, fence: int = NEVER) -> bytes:
    """The associated data of an entry. `identity` is that of its target, or empty for a failure of the whole client."""
    name = names.token if identity else names.client
    return json.dumps(["bearerd", VERSION, kind, name, identity, client_id, fence]).encode()


def seal(content: bytes, bound: bytes, key: bytes, nonce: bytes) -> bytes:
    """Seal a content. A nonce must never be used twice with a key: take random ones."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415 - an extra

    return bytes([VERSION]) + nonce + AESGCM(key).encrypt(nonce, content, bound)


def unseal(sealed: bytes, bound: bytes, keys: Iterable[bytes]) -> bytes | None:
    """The content; None if no key opens it, or if another version sealed it, or if it was altered."""
    from cryptography.exceptions import InvalidTag  # noqa: PLC0415 - an extra
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415 - an extra

    if len(sealed) <= NONCE or sealed[0] != VERSION:
        return None
    nonce, content = sealed[1 : 1 + NONCE], sealed[1 + NONCE :]
    for key in keys:
        try:
            return AESGCM(key).decrypt(nonce, content, bound)
        except InvalidTag:
            continue
    return None
