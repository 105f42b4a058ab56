"""Secrets in files: one of the operator's, or a systemd credential."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from typing import Final, Literal, assert_never

from bearerd.descriptors import release
from bearerd.errors import SecretUnavailable
from bearerd.reason import reason_of
from bearerd.regular import NotRegularError, open_regular, read_up_to
from bearerd.secrets.fingerprint import fingerprint_of
from bearerd.secrets.source import LARGEST, SecretSource
from bearerd.terms import Reference

# The permission bits of all users but the owner and the group.
_OTHERS: Final = 0o007


class FileSource(SecretSource):
    """A file. It is refused if more users can read it than the config allows."""

    def paths(self) -> tuple[str, ...]:
        """The file."""
        return (self.reference.at,)

    def fingerprint(self, before: bytes = b"") -> bytes:
        """A digest of the file's content, owner and mode."""
        return fingerprint_of(self.reference.at, before)

    def _bytes(self) -> bytes:
        return _read(self.reference.at, self.reference.permissions)


class CredentialSource(SecretSource):
    """A credential that systemd puts into $CREDENTIALS_DIRECTORY when the unit starts (LoadCredential=)."""

    set_at_start = True

    def __init__(self, reference: Reference, environ: Mapping[str, str]) -> None:
        super().__init__(reference)
        self._directory = environ.get("CREDENTIALS_DIRECTORY", "")

    def hidden(self) -> str:
        """Why this process cannot see it: it runs outside of the unit."""
        # systemd gives credentials to a unit's daemon, and neither to ExecReload= nor to a shell (systemd 252 and 257).
        if self._directory and os.access(self._directory, os.X_OK):
            return ""
        return "this check cannot see it; only the unit can, if it has LoadCredential="

    def paths(self) -> tuple[str, ...]:
        """Its file: a reload of the unit (RefreshOnReload=, systemd 260) or a volume can replace it."""
        return (self._path,) if self._directory.startswith("/") else ()

    def fingerprint(self, before: bytes = b"") -> bytes:
        """A digest of the file's content, owner and mode."""
        return fingerprint_of(self._path, before) if self._directory else b""

    @property
    def _path(self) -> str:
        return os.path.join(self._directory, self.reference.at)

    def _bytes(self) -> bytes:
        if not self._directory:
            raise SecretUnavailable(
                f"{self.reference}: $CREDENTIALS_DIRECTORY is not set; "
                f"the unit needs LoadCredential={self.reference.at}:…"
            )
        # Only this service can reach the directory, whatever the mode of the file in it.
        return _read(self._path, "any")


def _read(path: str, permissions: Literal["owner", "group", "any"]) -> bytes:
    try:
        descriptor = open_regular(path)
    except NotRegularError as error:
        raise SecretUnavailable(f"file {path}: {error}") from None
    except OSError as error:
        raise SecretUnavailable(f"file {path}: {reason_of(error)}") from None
    try:
        status = os.fstat(descriptor)
        if (fault := _too_readable(stat.S_IMODE(status.st_mode), permissions)) is not None:
            raise SecretUnavailable(f"file {path}: {fault}")
        if status.st_size > LARGEST:
            raise SecretUnavailable(f"file {path}: larger than 64 KiB, so not a secret")
        return read_up_to(descriptor, LARGEST)
    except OSError as error:
        raise SecretUnavailable(f"file {path}: {reason_of(error)}") from None
    finally:
        release(descriptor)


def _too_readable(mode: int, permissions: Literal["owner", "group", "any"]) -> str | None:
    """The error about a mode that gives access to more users than allowed, as ssh judges private keys."""
    match permissions:
        case "owner":
            forbidden, tighter, wider = 0o077, "600", "permissions: group or any"
        case "group":
            forbidden, tighter, wider = 0o027, "640", "permissions: any"
        case "any":
            return None
        case _:
            assert_never(permissions)
    if not mode & forbidden:
        return None
    others = "others" if mode & _OTHERS else "its group"
    return (
        f"mode {mode:04o} lets {others} access it; run chmod {tighter} on it, or, if its mode cannot be set "
        f"(a Kubernetes mount), set {wider} next to file"
    )
