"""Secrets in environment variables."""

from __future__ import annotations

from collections.abc import Mapping

from bearerd.errors import SecretUnavailable
from bearerd.secrets.fingerprint import digest
from bearerd.secrets.source import LARGEST, SecretSource
from bearerd.terms import Reference


class VariableSource(SecretSource):
    """A variable of the daemon's environment."""

    set_at_start = True

    def __init__(self, reference: Reference, environ: Mapping[str, str]) -> None:
        super().__init__(reference)
        self._environ = environ

    def fingerprint(self, before: bytes = b"") -> bytes:  # noqa: ARG002 - the environment can always be read
        """A digest of the value."""
        return digest(self._value()) if self.reference.at in self._environ else b""

    def _value(self) -> bytes:
        # Python maps bytes that are not UTF-8 to surrogates: the original bytes are judged.
        return self._environ[self.reference.at].encode(errors="surrogateescape")

    def _bytes(self) -> bytes:
        if self.reference.at not in self._environ:
            raise SecretUnavailable(f"{self.reference}: the variable is not set")
        value = self._value()
        if len(value) > LARGEST:
            raise SecretUnavailable(f"{self.reference}: larger than 64 KiB, so not a secret")
        return value
