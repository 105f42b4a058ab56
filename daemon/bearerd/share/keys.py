"""Whether a secret is long enough to seal what is stored. Pure.

The server may be in the hands of somebody else, who can try as many keys as they like.
"""

from __future__ import annotations

from typing import Final

from bearerd.terms import Reference

LEAST_KEY: Final = 32
"""Bytes of the file of `share.key`. It is made for this purpose, so there is no reason for less than AES-256 needs."""
LEAST_SECRET: Final = 16
"""Bytes of a `client_secret` in its place. Providers make them at random, with 128 bits and more."""


def key_fault(reference: Reference, secret: str, *, of_client: bool) -> str | None:
    """The error for a key, or a client secret in its place, that is too short; None if it is long enough."""
    least = LEAST_SECRET if of_client else LEAST_KEY
    if len(secret.encode()) >= least:
        return None
    lack = f"{reference}: shorter than {least} bytes, too short to encrypt what is shared"
    return f"{lack}; {'set key of share, and ' if of_client else ''}make a key with openssl rand -hex 32"
