"""TLS contexts: TLS 1.2 at least, verification always, and trust in the system's store or `ca_file` alone."""

from __future__ import annotations

import os
import ssl
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Final

from bearerd.grant.request import UNNAMED
from bearerd.model import Provider
from bearerd.reason import reason_of
from bearerd.secrets.binary import ENCRYPTED, certificate_conversion

# The largest bundles of authorities have 1 MB.
_MOST_BYTES: Final = 16 * 2**20
_IN_MEMORY: Final = "/proc/self/fd/{}"
_NOT_HANDED_OVER: Final = "the client certificate cannot be given to OpenSSL through /proc/self/fd: {}"


class SetUpError(Exception):
    """A fault on this machine that prevents connections, and that the operator can correct."""


def set_up_fault(
    provider: Provider, certificate: str, private_key: str, named: tuple[str, str] = UNNAMED
) -> str | None:
    """The fault that this trust and this certificate ("" for none) would cause at a connection, or None."""
    try:
        if certificate:
            own_context(provider.ca_file, certificate, private_key, named)
        else:
            shared_context(provider.ca_file, signature(provider.ca_file))
    except SetUpError as error:
        return str(error)
    return None


def signature(path: str | None) -> object:
    """A value that changes when the file does; raises SetUpError."""
    status = _bundle() if path is None else _look(path)
    return None if status is None else (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size)


def _bundle() -> os.stat_result | None:
    """The status of the system's authorities if they are a file: OpenSSL looks into a directory at each handshake."""
    path = ssl.get_default_verify_paths().cafile  # None if it is not there
    try:
        return os.stat(path) if path else None
    except OSError:  # it has just been replaced
        return None


def _look(path: str) -> os.stat_result:
    """The status of a file; raises SetUpError for anything that OpenSSL could read for ever."""
    try:
        status = os.stat(path)
    except OSError as error:
        raise SetUpError(f"ca_file {path}: {reason_of(error)}") from None
    if not stat.S_ISREG(status.st_mode):
        raise SetUpError(f"ca_file {path}: not a regular file")
    if status.st_size > _MOST_BYTES:
        raise SetUpError(f"ca_file {path}: larger than {_MOST_BYTES // 2**20} MiB")
    return status


@lru_cache(maxsize=64)  # 0.7 MB each, so providers with the same ca_file share one
def shared_context(ca_file: str | None, _signature_of_it: object) -> ssl.SSLContext:
    """A context without a client certificate; raises SetUpError."""
    # Not ssl.create_default_context: it writes session keys to $SSLKEYLOGFILE.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if ca_file is None:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
        return context
    _look(ca_file)
    try:
        context.load_verify_locations(cafile=ca_file)
    except (OSError, ValueError) as error:
        # An SSLError is an OSError too; its strerror is OpenSSL's text.
        unread = reason_of(error) if isinstance(error, OSError) and not isinstance(error, ssl.SSLError) else None
        raise SetUpError(f"ca_file {ca_file}: {unread or _not_pem(ca_file)}") from None
    return context


def _not_pem(ca_file: str) -> str:
    """What a file without a certificate in PEM is, and what to do."""
    try:
        with open(ca_file, "rb") as file:
            conversion = certificate_conversion(file.read(_MOST_BYTES + 1), ca_file)
    except OSError as error:
        return reason_of(error)
    if conversion is not None:
        return f"{conversion}, and set ca_file to that file"
    return "holds no certificate; it needs the provider's CA certificates in PEM"


def own_context(ca_file: str | None, certificate: str, private_key: str, named: tuple[str, str]) -> ssl.SSLContext:
    """A context with a client certificate; raises SetUpError. `named` is where both parts were read.

    OpenSSL reads both parts from files only, so they are handed over as files in memory.
    """
    context = shared_context.__wrapped__(ca_file, None)
    with _in_memory(certificate) as certificate_path, _in_memory(private_key) as key_path:
        try:
            # Without a password OpenSSL would ask the terminal for one.
            context.load_cert_chain(certificate_path, key_path, password=lambda: b"")
        except ssl.SSLError as error:
            if error.reason in {"KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED"}:
                reason = f"{named[0]} and {named[1]} do not belong together: the certificate is for another key"
            elif error.reason == "EE_KEY_TOO_SMALL":
                reason = f"{named[0]}: the certificate's key is too small for OpenSSL"
            elif "ENCRYPTED" in private_key:
                reason = f"{named[1]}: {ENCRYPTED}"
            else:
                reason = f"{named[0]} or {named[1]} is not in PEM format, or not complete"
            raise SetUpError(reason) from None
        except OSError as error:  # without /proc a file in memory has no path
            raise SetUpError(_NOT_HANDED_OVER.format(reason_of(error))) from None
    return context


@contextmanager
def _in_memory(text: str) -> Iterator[str]:
    """The path of a file in memory that no other process sees."""
    try:
        descriptor = os.memfd_create("pem", os.MFD_CLOEXEC)
    except OSError as error:  # no descriptors are left
        raise SetUpError(_NOT_HANDED_OVER.format(reason_of(error))) from None
    try:
        with open(descriptor, "w", closefd=False) as file:
            file.write(text)
        yield _IN_MEMORY.format(descriptor)
    finally:
        os.close(descriptor)
