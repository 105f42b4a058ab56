"""Recognizes keys and certificates in binary formats, and names the command that converts them to PEM. Pure."""

from __future__ import annotations

from typing import Final

ENCRYPTED: Final = (
    "encrypted with a passphrase; decrypt it into another file: openssl pkey -in FILE -out FILE.decrypted"
)
"""What messages say of an encrypted key in PEM. With the same name twice, openssl would empty the only copy first."""

# Formats begin with an ASN.1 SEQUENCE; the elements after its length tell them apart.
_SEQUENCE: Final = 0x30
_VERSION_3: Final = b"\x02\x01\x03"
_INTEGER: Final = b"\x02"
_LONG_SEQUENCE: Final = (b"\x30\x81", b"\x30\x82")


def conversion(content: bytes, file: str) -> str | None:
    """The format of a key or certificate that is not text, and how to convert this file; None for other content."""
    inside = _inside(content)
    if inside is None:
        return None
    if inside.startswith(_VERSION_3):  # RFC 7292 section 4
        return (
            f"a PKCS#12 file (.p12, .pfx), not PEM; extract the private key: openssl pkcs12 -in {file} -nocerts -nodes "
            f"-out {file}.key, and the certificate: openssl pkcs12 -in {file} -nokeys -out {file}.crt"
        )
    if inside.startswith(_LONG_SEQUENCE):
        return f"a certificate in DER, not PEM; convert it: openssl x509 -inform DER -in {file} -out {file}.pem"
    if inside.startswith((_INTEGER, b"\x30")):  # a version, or the algorithm of an encrypted key
        return f"a private key in DER, not PEM; convert it: openssl pkey -inform DER -in {file} -out {file}.pem"
    return None


def certificate_conversion(content: bytes, file: str) -> str | None:
    """The same for a file of which only the certificates are wanted."""
    inside = _inside(content)
    if inside is None or inside.startswith(_LONG_SEQUENCE):
        return conversion(content, file)
    if inside.startswith(_VERSION_3):
        return (
            "a PKCS#12 file (.p12, .pfx), not PEM; extract the certificates: "
            f"openssl pkcs12 -in {file} -nokeys -out {file}.crt"
        )
    return None


def _inside(content: bytes) -> bytes | None:
    """The beginning of a SEQUENCE that fills the content; None for other content."""
    if len(content) < 4 or content[0] != _SEQUENCE:  # noqa: PLR2004 - tag, length and some content
        return None
    length, start = content[1], 2
    if length >= 0x80:  # noqa: PLR2004 - the long form: the low bits count the bytes of the length
        start += length - 0x80
        length = int.from_bytes(content[2:start], "big")
    # A line end that an editor or `echo` added does not matter.
    return content[start : start + 4] if 0 <= len(content) - start - length <= 2 else None  # noqa: PLR2004
