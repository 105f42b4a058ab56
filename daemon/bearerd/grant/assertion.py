"""Assertions: signed JWTs that authenticate a client, or are the grant (RFC 7521, 7523). Pure.

PyJWT and cryptography are the `jwt` extra; they are imported when the first assertion is signed.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from bearerd.errors import ExtraMissing, KeyUnusable
from bearerd.secrets.binary import ENCRYPTED

# Seconds. RFC 7523 sets no limit; Maskinporten allows 120 s, Okta an hour. A minute is enough for any request.
_LIFE: Final = 60
# Seconds. Clocks differ: some providers refuse an `iat` in the future, and Maskinporten also one of 10 s ago.
_PAST: Final = 5

_BY_CURVE: Final = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
# Of an RSA key. Signing with more takes most of a second, and no provider asks for it.
_MOST_BITS: Final = 8192
_OF_RSA: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
# How the files begin that are taken for the private key.
_OTHER_FILES: Final = {
    "-----BEGIN CERTIFICATE-----": "a certificate, not the private key that belongs to it",
    "-----BEGIN CERTIFICATE REQUEST": "a certificate request, not the private key that belongs to it",
    "-----BEGIN PUBLIC KEY": "a public key, not the private key that belongs to it",
    "ssh-": "a public key, not the private key that belongs to it",
    "-----BEGIN OPENSSH PRIVATE KEY": "a private key in the format of OpenSSH, not PEM; convert a copy of an RSA or EC "
    "key: ssh-keygen -p -m PKCS8 -f COPY",
}


@dataclass(frozen=True, slots=True)
class Signer:
    """Signs an assertion: with a secret (HMAC), or with a private key, with or without its certificate."""

    secret: str = field(default="", repr=False)
    private_key: str = field(default="", repr=False)
    certificate: str = field(default="", repr=False)
    key_id: str | None = None
    algorithm: str | None = None


def claims(issuer: str, subject: str | None, audience: str, now: float, jti: str) -> dict[str, Any]:
    """The claims of RFC 7523 section 3 and no others: some providers answer 400 to a claim that they do not know.

    `now` is the Unix time by the provider's clock, and `jti` is unique.
    """
    issued = int(now) - _PAST
    who = {"iss": issuer} if subject is None else {"iss": issuer, "sub": subject}
    return who | {"aud": audience, "iat": issued, "exp": issued + _LIFE, "jti": jti}


def sign(what: dict[str, Any], signer: Signer) -> str:
    """A signed JWT; raises KeyUnusable for a key that cannot sign it, ExtraMissing without PyJWT."""
    try:
        return _sign(what, signer)
    except ImportError:
        raise ExtraMissing("signing assertions", "jwt") from None


def _sign(what: dict[str, Any], signer: Signer) -> str:
    from jwt import algorithms  # noqa: PLC0415 - 60 ms, and few need it
    from jwt.exceptions import PyJWTError  # noqa: PLC0415

    header: dict[str, str] = {"typ": "JWT"}
    if signer.private_key:
        key, key_id, usual = _private_key(signer.private_key)
        key_id = signer.key_id or key_id
        header |= _thumbprints(signer.certificate, key) if signer.certificate else {}
    else:
        key, key_id, usual = signer.secret.encode(), signer.key_id, ("HS256", "HS384", "HS512")
    header |= {"kid": key_id} if key_id else {}
    header["alg"] = signer.algorithm or usual[0]
    part: Literal["private_key", "client_secret"] = "private_key" if signer.private_key else "client_secret"
    if header["alg"] not in usual:
        raise KeyUnusable(part, f"the key cannot sign with {header['alg']}, only with {', '.join(usual)}")
    algorithm = algorithms.get_default_algorithms()[header["alg"]]
    signed = f"{_segment(json.dumps(header).encode())}.{_segment(json.dumps(what).encode())}"
    try:
        # Not jwt.encode: it warns on stderr about short secrets, which are the provider's choice.
        return f"{signed}.{_segment(algorithm.sign(signed.encode(), algorithm.prepare_key(key)))}"
    except (PyJWTError, ValueError, TypeError):
        raise KeyUnusable(part, f"the key cannot sign with {header['alg']}") from None


def _private_key(text: str) -> tuple[Any, str | None, tuple[str, ...]]:
    """A private key, its id if it has one, and the algorithms that it can sign with, the usual one first."""
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415 - as above
    from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415
    from jwt import PyJWK  # noqa: PLC0415
    from jwt.exceptions import PyJWTError  # noqa: PLC0415

    key_id: str | None = None
    try:
        if text.lstrip().startswith("{"):
            fields = json.loads(text)
            key_id = next(
                (fields[name] for name in ("kid", "private_key_id") if isinstance(fields.get(name), str)), None
            )
            if "kty" in fields:
                # The key's own `alg` is ignored; for two curves PyJWT needs one.
                plain = {name: fields[name] for name in fields.keys() - {"alg"}}
                if fields["kty"] == "RSA" and "d" in fields:
                    _check_rsa(fields)
                key = PyJWK.from_dict(plain, "EdDSA" if fields["kty"] == "OKP" else None).key
            else:
                key = load_pem_private_key(str(fields["private_key"]).encode(), None)
        else:
            key = load_pem_private_key(text.encode(), None)
    except TypeError:
        raise KeyUnusable("private_key", ENCRYPTED) from None
    except (PyJWTError, ValueError, KeyError, AttributeError, UnsupportedAlgorithm, RecursionError):
        raise KeyUnusable(
            "private_key",
            next((what for mark, what in _OTHER_FILES.items() if text.lstrip().startswith(mark)), None)
            or "neither a private key in PEM format, nor a private JWK, nor the JSON of a service account",
        ) from None
    if isinstance(key, rsa.RSAPrivateKey):
        return key, key_id, _OF_RSA
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in _BY_CURVE:
        return key, key_id, (_BY_CURVE[key.curve.name],)
    if isinstance(key, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey):
        return key, key_id, ("EdDSA",)
    raise KeyUnusable(
        "private_key", "this kind of key cannot sign: expected RSA, P-256, P-384, P-521, Ed25519 or Ed448"
    )


def _check_rsa(fields: dict[str, Any]) -> None:
    """Raise ValueError for a private JWK whose numbers do not belong together.

    For one without its primes, the search for them would compute for seconds or minutes.
    """
    from jwt.utils import from_base64url_uint  # noqa: PLC0415 - as above

    modulus, public, private = (from_base64url_uint(str(fields[name])) for name in ("n", "e", "d"))
    any_message = 2
    if not max(any_message, public, private) < modulus < 1 << _MOST_BITS:
        raise ValueError("not a key, or a very large one")
    if pow(pow(any_message, public, modulus), private, modulus) != any_message:
        raise ValueError("not a key")


def _thumbprints(certificate: str, key: Any) -> dict[str, str]:
    """`x5t` and `x5t#S256` of the certificate (RFC 7515 sections 4.1.7 and 4.1.8), which must belong to the key."""
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415 - as above
    from cryptography.hazmat.primitives.hashes import SHA1, SHA256  # noqa: PLC0415
    from cryptography.x509 import load_pem_x509_certificate  # noqa: PLC0415

    try:
        found = load_pem_x509_certificate(certificate.encode())
    except ValueError:
        raise KeyUnusable("certificate", "the certificate is not in PEM format") from None
    try:
        belongs = found.public_key() == key.public_key()
    except (UnsupportedAlgorithm, ValueError):
        belongs = False
    if not belongs:
        raise KeyUnusable("certificate", "the certificate belongs to another key")
    # Entra still requires the first. It only identifies the certificate.
    return {"x5t": _segment(found.fingerprint(SHA1())), "x5t#S256": _segment(found.fingerprint(SHA256()))}  # noqa: S303


def _segment(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode("ascii")
