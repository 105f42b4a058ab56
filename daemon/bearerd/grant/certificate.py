"""The validity and the subject of a certificate, read from its DER (RFC 5280 section 4.1). Pure.

cryptography is an extra, and Python's ssl shows only the certificates of peers.
"""

from __future__ import annotations

import base64
import binascii
import re
from calendar import timegm
from datetime import UTC, datetime
from typing import Final

from bearerd.printable import printable

# Tags of ASN.1.
_SEQUENCE: Final = 0x30
_VERSION: Final = 0xA0
_UTC_TIME: Final = 0x17
_GENERALIZED_TIME: Final = 0x18
_BMP_STRING: Final = 0x1E
# The object identifiers of attributes, as DER, and their short names (RFC 4514 section 3, and those of Open Banking).
_ATTRIBUTES: Final = {
    b"\x55\x04\x03": "CN",
    b"\x55\x04\x05": "serialNumber",
    b"\x55\x04\x06": "C",
    b"\x55\x04\x07": "L",
    b"\x55\x04\x08": "ST",
    b"\x55\x04\x0a": "O",
    b"\x55\x04\x0b": "OU",
    b"\x55\x04\x61": "organizationIdentifier",
}


def expiry_of(pem: str) -> float | None:
    """The Unix time at which the first certificate of a PEM text expires; None if that cannot be read."""
    try:
        return _expiry(_der(pem))
    except (binascii.Error, ValueError, IndexError):
        return None


def subject_of(pem: str) -> str | None:
    """The subject of the first certificate of a PEM text, as `O=Acme, CN=bearerd`; None if it cannot be read."""
    try:
        subject = _subject(_der(pem))
    except (binascii.Error, ValueError, IndexError):
        return None
    return printable(subject)


def _der(pem: str) -> bytes:
    """The first certificate of a PEM text; raises ValueError if there is none."""
    block = re.search(r"-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----", pem, re.DOTALL)
    if block is None:
        raise ValueError
    return base64.b64decode(block[1])


def expired(pem: str, name: str, now: float) -> str | None:
    """That a certificate has expired and when, by this machine's clock; None if it has not."""
    expiry = expiry_of(pem)
    if expiry is None or now < expiry:
        return None
    return f"the client certificate in {name} expired on {datetime.fromtimestamp(expiry, UTC):%Y-%m-%d}"


def _expiry(der: bytes) -> float:
    """The notAfter of a certificate; raises ValueError or IndexError if there is none."""
    tag, validity, _ = _element(_from_validity(der))
    if tag != _SEQUENCE:
        raise ValueError
    _, _, rest = _element(validity)
    tag, text, _ = _element(rest)
    if tag == _UTC_TIME:
        # Two digits of the year: 50 to 99 are in the 20th century (RFC 5280 section 4.1.2.5.1).
        text = (b"19" if text[:2] >= b"50" else b"20") + text
    elif tag != _GENERALIZED_TIME:
        raise ValueError
    return float(timegm(datetime.strptime(text.decode("ascii"), "%Y%m%d%H%M%SZ").timetuple()))  # noqa: DTZ007 - Z is UTC


def _subject(der: bytes) -> str:
    """The known attributes of a certificate's subject; raises ValueError or IndexError."""
    _, _, rest = _element(_from_validity(der))
    _, names, _ = _element(rest)
    parts: list[str] = []
    while names:
        _, several, names = _element(names)
        while several:
            _, attribute, several = _element(several)
            _, identifier, rest = _element(attribute)
            tag, text, _ = _element(rest)
            if identifier in _ATTRIBUTES:
                value = text.decode("utf-16-be" if tag == _BMP_STRING else "utf-8", "replace")
                parts.append(f"{_ATTRIBUTES[identifier]}={value}")
    return ", ".join(parts)


def _from_validity(der: bytes) -> bytes:
    """The fields of a certificate from its validity on; raises ValueError or IndexError."""
    _, certificate, _ = _element(der)
    _, rest, _ = _element(certificate)
    tag, _, after = _element(rest)
    if tag == _VERSION:  # absent from certificates of version 1
        rest = after
    for _ in range(3):  # the serial number, the algorithm, the issuer
        _, _, rest = _element(rest)
    return rest


def _element(der: bytes) -> tuple[int, bytes, bytes]:
    """The tag and the content of the first element, and the bytes that follow it."""
    tag, length, start = der[0], der[1], 2
    if length >= 0x80:  # noqa: PLR2004 - the long form: the low bits count the bytes of the length
        start += length - 0x80
        length = int.from_bytes(der[2:start], "big")
    if len(der) < start + length:
        raise ValueError
    return tag, der[start : start + length], der[start + length :]
