"""What is signed here is verified by PyJWT's own decoder, with the public key alone."""

from __future__ import annotations

import base64
import hashlib
import json
import ssl
import subprocess
import sys
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa, x25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from bearerd.errors import ExtraMissing, SecretUnavailable
from bearerd.grant.assertion import Signer, claims, sign
from support.clock import START
from support.oidc import pem, private_key, self_signed
from support.process import WITHIN

SECRET = "a secret of no less than sixty-four bytes, as RFC 7518 wants one for HS512"
WHAT: dict[str, Any] = {"iss": "7e0c5a", "sub": "7e0c5a", "deep": {"ä": [1, True, None]}}

RSA = private_key("RS256")
P256 = private_key("ES256")
P384 = private_key("ES384")
P521 = private_key("ES512")
ED25519 = private_key("EdDSA")
ED448 = ed448.Ed448PrivateKey.generate()
assert isinstance(RSA, rsa.RSAPrivateKey)
assert isinstance(P256, ec.EllipticCurvePrivateKey)


def as_pem(key: Any, form: PrivateFormat = PrivateFormat.PKCS8, password: bytes | None = None) -> str:
    encryption = BestAvailableEncryption(password) if password else NoEncryption()
    text: bytes = key.private_bytes(Encoding.PEM, form, encryption)
    return text.decode()


def as_jwk(key: Any, **more: Any) -> str:
    """A private JWK as PyJWT writes it, with more members."""
    kind = {rsa.RSAPrivateKey: "RS256", ec.EllipticCurvePrivateKey: "ES256"}
    name = next((known for its, known in kind.items() if isinstance(key, its)), "EdDSA")
    algorithm = jwt.get_algorithm_by_name(name)
    members: dict[str, Any] = algorithm.to_jwk(key, as_dict=True)
    return json.dumps(members | more)


def without_primes(key: Any, **changes: str) -> str:
    """A private JWK with the private exponent alone (RFC 7518 section 6.3.2), and other numbers."""
    members = json.loads(as_jwk(key))
    return json.dumps({name: members[name] for name in ("kty", "n", "e", "d")} | changes)


def google(key: Any, **changes: Any) -> str:
    """A service account's file, as Google's console hands it out."""
    fields = {
        "type": "service_account",
        "project_id": "acme",
        "private_key_id": "9f3c",
        "private_key": as_pem(key),
        "client_email": "sa@acme.iam.gserviceaccount.com",
        "token_uri": "https://oauth2.googleapis.com/token",
    }
    return json.dumps(fields | changes)


def verified(token: str, key: Any, algorithm: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and claims, once the signature has been verified."""
    whole = jwt.decode_complete(
        token, key, algorithms=[algorithm], options={"verify_aud": False, "verify_exp": False, "verify_iat": False}
    )
    return whole["header"], whole["payload"]


def header_of(signer: Signer) -> dict[str, Any]:
    return jwt.get_unverified_header(sign({}, signer))


def refused(**signer: Any) -> str:
    """The error of a key that cannot sign; neither it nor its cause holds any of the key."""
    with pytest.raises(SecretUnavailable) as raised:
        sign({}, Signer(**signer))
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__ or raised.value.__context__ is None
    return str(raised.value)


# -- claims --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("now", "issued"),
    [
        pytest.param(START.wall, 1_799_999_995, id="whole"),
        pytest.param(START.wall + 0.999, 1_799_999_995, id="almost-a-second-more"),
        pytest.param(START.wall + 1.0, 1_799_999_996, id="a-second-more"),
    ],
)
def test_an_assertion_has_the_claims_of_rfc_7523_and_no_others(now: float, issued: int) -> None:
    what = claims("issuer", "subject", "https://login.example.com", now, "nonce")

    assert what == {
        "iss": "issuer",
        "sub": "subject",
        # One text: some refuse a list.
        "aud": "https://login.example.com",
        # A little in the past: with a clock behind ours it would otherwise be in the future.
        "iat": issued,
        "exp": issued + 60,
        "jti": "nonce",
    }
    assert {type(what["iat"]), type(what["exp"])} == {int}


def test_without_a_subject_there_is_no_sub_claim() -> None:
    assert claims("issuer", None, "aud", START.wall, "nonce").keys() == {"iss", "aud", "iat", "exp", "jti"}


# -- signatures ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [
        *((RSA, f"{kind}{bits}") for kind in ("RS", "PS") for bits in (256, 384, 512)),
        (P256, "ES256"),
        (P384, "ES384"),
        (P521, "ES512"),
        (ED25519, "EdDSA"),
        (ED448, "EdDSA"),
    ],
)
def test_a_public_key_verifies_what_its_private_key_signed(key: Any, algorithm: str) -> None:
    token = sign(WHAT, Signer(private_key=as_pem(key), algorithm=algorithm))

    assert verified(token, key.public_key(), algorithm) == ({"typ": "JWT", "alg": algorithm}, WHAT)
    assert "=" not in token


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
def test_a_secret_verifies_what_it_signed(algorithm: str) -> None:
    token = sign(WHAT, Signer(secret=SECRET, algorithm=algorithm))

    assert verified(token, SECRET, algorithm) == ({"typ": "JWT", "alg": algorithm}, WHAT)


def test_short_and_non_ascii_secrets_can_sign() -> None:
    # PyJWT warns of its length, and every warning is an error here: its length is the provider's choice.
    token = sign(WHAT, Signer(secret="pä€"))

    with pytest.warns(UserWarning, match="below the minimum recommended length"):
        assert verified(token, "pä€", "HS256") == ({"typ": "JWT", "alg": "HS256"}, WHAT)


@pytest.mark.parametrize(
    ("signer", "algorithm"),
    [
        pytest.param({"private_key": as_pem(RSA)}, "RS256", id="RSA"),
        pytest.param({"private_key": as_pem(P256)}, "ES256", id="P-256"),
        pytest.param({"private_key": as_pem(P384)}, "ES384", id="P-384"),
        pytest.param({"private_key": as_pem(P521)}, "ES512", id="P-521"),
        pytest.param({"private_key": as_pem(ED25519)}, "EdDSA", id="Ed25519"),
        pytest.param({"private_key": as_pem(ED448)}, "EdDSA", id="Ed448"),
        pytest.param({"secret": SECRET}, "HS256", id="secret"),
    ],
)
def test_the_kind_of_key_is_the_default_for_the_algorithm(signer: dict[str, str], algorithm: str) -> None:
    assert header_of(Signer(**signer)) == {"typ": "JWT", "alg": algorithm}


@pytest.mark.parametrize(
    ("signer", "algorithm", "usual"),
    [
        pytest.param({"private_key": as_pem(RSA)}, "ES256", "RS256, RS384, RS512, PS256, PS384, PS512", id="RSA-ES"),
        pytest.param({"private_key": as_pem(RSA)}, "HS256", "RS256, RS384, RS512, PS256, PS384, PS512", id="RSA-HS"),
        # Each curve has its own (RFC 7518 section 3.4).
        pytest.param({"private_key": as_pem(P256)}, "ES384", "ES256", id="P-256-ES384"),
        pytest.param({"private_key": as_pem(P521)}, "ES384", "ES512", id="P-521-ES384"),
        pytest.param({"private_key": as_pem(P256)}, "RS256", "ES256", id="P-256-RS"),
        pytest.param({"private_key": as_pem(ED25519)}, "ES256", "EdDSA", id="Ed25519-ES"),
        pytest.param({"secret": SECRET}, "RS256", "HS256, HS384, HS512", id="secret-RS"),
        pytest.param({"secret": SECRET}, "none", "HS256, HS384, HS512", id="secret-none"),
    ],
)
def test_an_unsuitable_algorithm_is_an_error_that_lists_the_suitable_ones(
    signer: dict[str, str], algorithm: str, usual: str
) -> None:
    assert refused(**signer, algorithm=algorithm) == f"the key cannot sign with {algorithm}, only with {usual}"


def test_a_key_that_is_too_small_for_an_algorithm_is_refused() -> None:
    # PS512 wants 130 bytes, and these are 128.
    small = rsa.generate_private_key(65537, 1024)

    assert refused(private_key=as_pem(small), algorithm="PS512") == "the key cannot sign with PS512"


# -- the forms of a key --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "key", "key_id"),
    [
        pytest.param(as_pem(RSA), RSA, None, id="PKCS#8-RSA"),
        pytest.param(as_pem(P256), P256, None, id="PKCS#8-EC"),
        pytest.param(as_pem(RSA, PrivateFormat.TraditionalOpenSSL), RSA, None, id="PKCS#1"),
        pytest.param(as_pem(P256, PrivateFormat.TraditionalOpenSSL), P256, None, id="SEC1"),
        pytest.param(as_pem(RSA).replace("\n", "\r\n"), RSA, None, id="CRLF"),
        pytest.param(f"Bag Attributes\n  friendlyName: acme\n{as_pem(RSA)}", RSA, None, id="text-before"),
        pytest.param(as_jwk(RSA), RSA, None, id="JWK-RSA"),
        pytest.param(without_primes(RSA), RSA, None, id="JWK-RSA-without-primes"),
        pytest.param(as_jwk(P384), P384, None, id="JWK-EC"),
        pytest.param(as_jwk(ED25519), ED25519, None, id="JWK-Ed25519"),
        pytest.param(as_jwk(ED448), ED448, None, id="JWK-Ed448"),
        pytest.param(f"\n {as_jwk(P256, kid='k-1')}\n", P256, "k-1", id="JWK-blanks-around"),
        pytest.param(as_jwk(P256, kid="k-1", use="sig", alg="ES256"), P256, "k-1", id="JWK-with-all-members"),
        # The key's own `alg` and `use` are ignored.
        pytest.param(as_jwk(RSA, alg="RSA-OAEP-256"), RSA, None, id="JWK-with-another-alg"),
        pytest.param(as_jwk(P256, kid=7), P256, None, id="JWK-kid-no-text"),
        pytest.param(google(RSA), RSA, "9f3c", id="google"),
        pytest.param(google(P256, private_key_id=None), P256, None, id="google-without-an-id"),
    ],
)
def test_keys_are_read_in_every_common_format(text: str, key: Any, key_id: str | None) -> None:
    token = sign(WHAT, Signer(private_key=text))

    header = jwt.get_unverified_header(token)
    assert verified(token, key.public_key(), header["alg"])[1] == WHAT
    assert header == {"typ": "JWT", "alg": header["alg"]} | ({"kid": key_id} if key_id else {})


@pytest.mark.parametrize(
    "signer",
    [
        {"private_key": as_pem(RSA)},
        {"private_key": as_jwk(P256, kid="its own")},
        {"private_key": google(RSA)},
        {"secret": SECRET},
    ],
    ids=["PEM", "JWK", "google", "secret"],
)
def test_the_configured_key_id_overrides_that_of_the_key(signer: dict[str, str]) -> None:
    assert header_of(Signer(**signer, key_id="configured"))["kid"] == "configured"


NO_KEY = "neither a private key in PEM format, nor a private JWK, nor the JSON of a service account"
NO_SIGNER = "this kind of key cannot sign: expected RSA, P-256, P-384, P-521, Ed25519 or Ed448"
ENCRYPTED = "encrypted with a passphrase; decrypt it into another file: openssl pkey -in FILE -out FILE.decrypted"


def public(text: str) -> str:
    """The public part of a JWK."""
    members = json.loads(text)
    return json.dumps({name: members[name] for name in members.keys() & {"kty", "crv", "n", "e", "x", "y"}})


@pytest.mark.parametrize(
    ("text", "why"),
    [
        pytest.param("hunter2", NO_KEY, id="a-secret"),
        pytest.param(as_pem(RSA)[:400], NO_KEY, id="PEM-cut-short"),
        pytest.param(as_pem(RSA).replace("A", "B"), NO_KEY, id="PEM-garbled"),
        pytest.param(self_signed(RSA), "a certificate, not the private key that belongs to it", id="a-certificate"),
        pytest.param(
            RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode(),
            "a public key, not the private key that belongs to it",
            id="a-public-key",
        ),
        pytest.param(
            "ssh-ed25519 AAAA a@b", "a public key, not the private key that belongs to it", id="id_ed25519.pub"
        ),
        pytest.param(
            as_pem(RSA, PrivateFormat.OpenSSH),
            "a private key in the format of OpenSSH, not PEM; convert a copy of an RSA or EC key: "
            "ssh-keygen -p -m PKCS8 -f COPY",
            id="OpenSSH",
        ),
        pytest.param(as_pem(ec.generate_private_key(ec.SECP256K1())), NO_SIGNER, id="secp256k1"),
        pytest.param(as_pem(x25519.X25519PrivateKey.generate()), NO_SIGNER, id="X25519"),
        pytest.param(public(as_jwk(RSA)), NO_SIGNER, id="JWK-public-RSA"),
        pytest.param(public(as_jwk(P256)), NO_SIGNER, id="JWK-public-EC"),
        pytest.param(without_primes(RSA, d="AQAB"), NO_KEY, id="JWK-numbers-of-two-keys"),
        pytest.param(without_primes(RSA, n="AQAB"), NO_KEY, id="JWK-modulus-too-small"),
        pytest.param(without_primes(RSA, n="_" * 1366), NO_KEY, id="JWK-over-8192-bits"),
        pytest.param('{"kty": "oct", "k": "aHVudGVyMg"}', NO_SIGNER, id="JWK-secret"),
        pytest.param('{"kty": "XYZ"}', NO_KEY, id="JWK-of-another-kind"),
        pytest.param('{"kty": []}', NO_KEY, id="JWK-kind-no-text"),
        pytest.param(as_jwk(RSA, d=5), NO_KEY, id="JWK-a-number"),
        pytest.param(as_jwk(P256, x="!!"), NO_KEY, id="JWK-garbled"),
        pytest.param(as_jwk(P256, d=json.loads(as_jwk(private_key("ES256")))["d"]), NO_KEY, id="JWK-of-two-keys"),
        pytest.param(f'{{"keys": [{as_jwk(RSA)}]}}', NO_KEY, id="JWK-set"),
        pytest.param(as_jwk(RSA)[:-1], NO_KEY, id="JSON-cut-short"),
        pytest.param("{" * 100_000, NO_KEY, id="JSON-no-object"),
        pytest.param('{"a":' * 100_000, NO_KEY, id="JSON-nested"),
        pytest.param(google(RSA, private_key=None), NO_KEY, id="google-null"),
        pytest.param(google(RSA, private_key=["x"]), NO_KEY, id="google-a-list"),
        pytest.param(google(RSA, private_key="hunter2"), NO_KEY, id="google-no-PEM"),
        pytest.param(as_pem(RSA, password=b"hunter2"), ENCRYPTED, id="PKCS#8-encrypted"),
        pytest.param(as_pem(RSA, PrivateFormat.TraditionalOpenSSL, b"hunter2"), ENCRYPTED, id="PKCS#1-encrypted"),
        pytest.param(google(RSA, private_key=as_pem(RSA, password=b"x")), ENCRYPTED, id="google-encrypted"),
    ],
)
def test_invalid_keys_are_an_error(text: str, why: str) -> None:
    assert refused(private_key=text) == why


def test_no_repr_shows_the_key() -> None:
    shown = repr(Signer(secret="h0rse-staple", private_key="pr1vate-key", certificate="c3rtificate", key_id="k"))

    assert shown == "Signer(key_id='k', algorithm=None)"


# -- its certificate -----------------------------------------------------------------------------------


def thumbprints(certificate: str) -> dict[str, str]:
    """As RFC 7515 sections 4.1.7 and 4.1.8 have them, by the standard library."""
    der = ssl.PEM_cert_to_DER_cert(certificate)
    digests = {"x5t": hashlib.sha1(der), "x5t#S256": hashlib.sha256(der)}
    return {name: base64.urlsafe_b64encode(it.digest()).decode().rstrip("=") for name, it in digests.items()}


CERTIFICATE = self_signed(RSA)
OTHERS = self_signed(private_key("RS256"))


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(CERTIFICATE, id="alone"),
        pytest.param(CERTIFICATE.replace("\n", "\r\n"), id="CRLF"),
        pytest.param(CERTIFICATE + OTHERS, id="with-its-chain"),
        pytest.param(f"subject=CN = acme\n{CERTIFICATE}", id="text-before"),
        pytest.param(as_pem(RSA) + CERTIFICATE, id="key-before"),
        pytest.param(CERTIFICATE.replace(" CERTIFICATE", " X509 CERTIFICATE"), id="its-old-label"),
    ],
)
def test_the_header_has_the_thumbprints_of_the_certificate(text: str) -> None:
    header = header_of(Signer(private_key=as_pem(RSA), certificate=text))

    assert header == {"typ": "JWT", "alg": "RS256"} | thumbprints(CERTIFICATE)


def test_the_header_has_the_thumbprints_for_elliptic_keys_too() -> None:
    certificate = self_signed(P256)
    header = header_of(Signer(private_key=as_jwk(P256, kid="k-1"), certificate=certificate))

    assert header == {"typ": "JWT", "alg": "ES256", "kid": "k-1"} | thumbprints(certificate)


def test_a_secret_is_signed_without_thumbprints() -> None:
    assert header_of(Signer(secret=SECRET, certificate=CERTIFICATE)) == {"typ": "JWT", "alg": "HS256"}


def of_a_curve_that_nobody_knows() -> str:
    """A certificate for P-256, whose curve has an unknown number."""
    der = ssl.PEM_cert_to_DER_cert(self_signed(P256))
    named, unknown = bytes.fromhex("2a8648ce3d030107"), bytes.fromhex("2a8648ce3d030177")
    assert der.count(named) == 1
    return ssl.DER_cert_to_PEM_cert(der.replace(named, unknown))


@pytest.mark.parametrize(
    ("certificate", "why"),
    [
        pytest.param("hunter2", "the certificate is not in PEM format", id="text"),
        pytest.param(as_pem(RSA), "the certificate is not in PEM format", id="the-key"),
        pytest.param(CERTIFICATE[:400], "the certificate is not in PEM format", id="cut-short"),
        pytest.param(CERTIFICATE.replace("M", "N"), "the certificate is not in PEM format", id="garbled"),
        pytest.param(OTHERS, "the certificate belongs to another key", id="another-key"),
        pytest.param(self_signed(P256), "the certificate belongs to another key", id="another-kind-of-key"),
        pytest.param(OTHERS + CERTIFICATE, "the certificate belongs to another key", id="chain-before-it"),
        pytest.param(
            of_a_curve_that_nobody_knows(), "the certificate belongs to another key", id="a-key-that-nobody-knows"
        ),
    ],
)
def test_a_certificate_of_another_key_is_an_error(certificate: str, why: str) -> None:
    assert refused(private_key=as_pem(RSA), certificate=certificate) == why


# -- the extra -----------------------------------------------------------------------------------------

EXTRA = (
    f"signing assertions needs a part that is not installed: run {sys.prefix}/bin/pip install '.[jwt]' in the checkout"
)


@pytest.mark.parametrize("signer", [Signer(secret=SECRET), Signer(private_key=pem(RSA))], ids=["secret", "key"])
def test_without_pyjwt_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch, signer: Signer) -> None:
    monkeypatch.setitem(sys.modules, "jwt", None)

    with pytest.raises(ExtraMissing) as raised:
        sign({}, signer)

    assert str(raised.value) == EXTRA


def test_without_cryptography_the_error_names_the_same_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    # As `pip install pyjwt` without its [crypto] leaves it.
    for name in ("exceptions", "hazmat.primitives.asymmetric", "hazmat.primitives.serialization", "x509"):
        monkeypatch.setitem(sys.modules, f"cryptography.{name}", None)

    with pytest.raises(ExtraMissing) as raised:
        sign({}, Signer(private_key=pem(RSA)))

    assert str(raised.value) == EXTRA


def test_the_libraries_are_imported_only_for_signing() -> None:
    # 60 ms at each start, and some megabytes for good.
    child = (
        "import sys, bearerd.grant.perform, bearerd.grant.assertion; print(*{'jwt', 'cryptography'} & {*sys.modules})"
    )
    ran = subprocess.run([sys.executable, "-c", child], capture_output=True, text=True, check=True, timeout=WITHIN)

    assert ran.stdout.strip() == ""
