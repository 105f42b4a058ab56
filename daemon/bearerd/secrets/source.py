"""The interface of all kinds of secret source."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Final

from bearerd.errors import SecretUnavailable
from bearerd.secrets.binary import conversion
from bearerd.terms import Reference

LARGEST: Final = 64 * 1024
"""Bytes. A secret is one line, and a private key of 16384 bits is 12 KiB: anything larger is some other file."""

_BOM: Final = "\ufeff"


class SecretSource(ABC):
    """One place where a secret is read. No error and no log line holds any of the secret."""

    set_at_start: bool = False
    """Whether the secret cannot change while the process runs."""

    def __init__(self, reference: Reference) -> None:
        self.reference = reference

    def read(self) -> str:
        """The secret, without one line end at its end; raises SecretUnavailable.

        It is read again for each grant, so that a rotated secret needs no restart.
        """
        content = self._bytes()
        try:
            text = content.decode()
        except UnicodeDecodeError:
            known = conversion(content, self.reference.at if self.reference.kind == "file" else "FILE")
            raise SecretUnavailable(f"{self.reference}: {known or 'not UTF-8 text'}") from None
        text = text.removesuffix("\n").removesuffix("\r") if text.endswith("\n") else text
        if not text:
            raise SecretUnavailable(f"{self.reference}: empty")
        if "\0" in text:  # a file system may leave these after a power failure
            raise SecretUnavailable(f"{self.reference}: contains NUL, so it is damaged or UTF-16; write it again")
        return text

    def check(self) -> str:
        """Read it for `bearerd check`; raises SecretUnavailable as `read` does, and for blanks or a BOM at its ends.

        It does the same for several lines: `pass show` prints all lines of an entry.

        `read` returns such a secret as it is: the provider may have issued it like that, however unlikely.
        """
        text = self.read()
        if text.startswith(_BOM):
            raise SecretUnavailable(f"{self.reference}: begins with a byte order mark; save it as UTF-8 without BOM")
        if text != text.strip():
            end = "begins" if text != text.lstrip() else "ends"
            raise SecretUnavailable(
                f"{self.reference}: {end} with a space, tab or line end, which would be sent as part of it; remove it"
            )
        if "\n" in text:
            raise SecretUnavailable(f"{self.reference}: has more than one line; keep only the one with the secret")
        return text

    def hidden(self) -> str:
        """Why this process cannot see the secret although the daemon can; empty if it can."""
        return ""

    def paths(self) -> tuple[str, ...]:
        """The absolute paths to watch for changes of the secret; none if no file holds it."""
        return ()

    @abstractmethod
    def fingerprint(self, before: bytes = b"") -> bytes:
        """A digest that changes when the secret does, or when it becomes readable.

        Returns `before`, the last fingerprint, if nothing is known at the moment.
        """

    @abstractmethod
    def _bytes(self) -> bytes:
        """The content of the source, at most LARGEST bytes. Raises SecretUnavailable."""
