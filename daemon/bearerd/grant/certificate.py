"""The subject and the expiry of a certificate, to be shown."""

from __future__ import annotations

# The one decoder that Python has without the `jwt` extra. It is for tests of Python: without it, nothing is shown.
import _ssl
import os
import ssl
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Facts:
    """A certificate in words."""

    subject: str
    expires: float
    """Unix time."""


def facts(certificate: str) -> Facts | None:
    """The first certificate in a PEM text; None if it cannot be decoded."""
    try:
        descriptor = os.memfd_create("pem", os.MFD_CLOEXEC)
    except OSError:
        return None
    try:
        os.write(descriptor, certificate.encode())
        decode = _ssl._test_decode_cert  # type: ignore[attr-defined]  # noqa: SLF001
        decoded: dict[str, Any] = decode(f"/proc/self/fd/{descriptor}")
        parts = [f"{_SHORT.get(name, name)}={value}" for part in decoded["subject"] for name, value in part]
        subject = "".join(char if char.isprintable() else "?" for char in ", ".join(parts))
        return Facts(subject or "(no subject)", ssl.cert_time_to_seconds(decoded["notAfter"]))
    except (OSError, ValueError, KeyError, AttributeError):
        return None
    finally:
        os.close(descriptor)


# RFC 4514 section 3.
_SHORT = {
    "commonName": "CN",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "countryName": "C",
    "stateOrProvinceName": "ST",
    "localityName": "L",
}
