"""Keys and certificates in binary formats: the error names the format, and the openssl commands in it work."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    pkcs12,
)

from bearerd.errors import SecretUnavailable
from bearerd.secrets.binary import ENCRYPTED as ENCRYPTED_KEY
from bearerd.secrets.binary import conversion
from bearerd.secrets.kinds import source_of
from bearerd.terms import Reference
from support.oidc import private_key, self_signed
from support.process import WITHIN

PASSWORD = b"hunter2"
ENCRYPTED = BestAvailableEncryption(PASSWORD)


def key(
    algorithm: str, form: PrivateFormat = PrivateFormat.PKCS8, how: KeySerializationEncryption | None = None
) -> bytes:
    return private_key(algorithm).private_bytes(Encoding.DER, form, how or NoEncryption())


def certificate(algorithm: str) -> bytes:
    return x509.load_pem_x509_certificate(self_signed(private_key(algorithm)).encode()).public_bytes(Encoding.DER)


def bundle(algorithm: str) -> bytes:
    held = private_key(algorithm)
    leaf = x509.load_pem_x509_certificate(self_signed(held).encode())
    return pkcs12.serialize_key_and_certificates(b"client", held, leaf, None, ENCRYPTED)


A_KEY = "a private key in DER, not PEM; convert it: openssl pkey -inform DER -in FILE -out FILE.pem"
A_CERTIFICATE = "a certificate in DER, not PEM; convert it: openssl x509 -inform DER -in FILE -out FILE.pem"
A_BUNDLE = (
    "a PKCS#12 file (.p12, .pfx), not PEM; extract the private key: openssl pkcs12 -in FILE -nocerts -nodes "
    "-out FILE.key, and the certificate: openssl pkcs12 -in FILE -nokeys -out FILE.crt"
)
BINARY = [
    pytest.param(lambda: key("RS256"), A_KEY, id="PKCS8-RSA"),
    pytest.param(lambda: key("ES256"), A_KEY, id="PKCS8-EC"),
    pytest.param(lambda: key("EdDSA"), A_KEY, id="PKCS8-Ed25519"),
    pytest.param(lambda: key("RS256", PrivateFormat.TraditionalOpenSSL), A_KEY, id="PKCS1"),
    pytest.param(lambda: key("ES256", PrivateFormat.TraditionalOpenSSL), A_KEY, id="SEC1"),
    pytest.param(lambda: key("RS256", how=ENCRYPTED), A_KEY, id="encrypted"),
    pytest.param(lambda: certificate("RS256"), A_CERTIFICATE, id="certificate-RSA"),
    pytest.param(lambda: certificate("EdDSA"), A_CERTIFICATE, id="certificate-Ed25519"),
    pytest.param(lambda: bundle("RS256"), A_BUNDLE, id="PKCS12-RSA"),
    pytest.param(lambda: bundle("ES256"), A_BUNDLE, id="PKCS12-EC"),
]


@pytest.mark.parametrize(("made", "said"), BINARY)
def test_a_binary_key_or_certificate_is_recognized_and_its_conversion_named(
    tmp_path: Path, made: Callable[[], bytes], said: str
) -> None:
    path = tmp_path / "client.p12"
    path.write_bytes(made())
    path.chmod(0o600)
    with pytest.raises(SecretUnavailable) as raised:
        source_of(Reference("file", str(path)), {}).read()
    assert str(raised.value) == f"file {path}: {said.replace('FILE', str(path))}"


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not here: apt-get install openssl")
@pytest.mark.parametrize(("made", "said"), BINARY)
def test_the_named_commands_make_pem_of_it(tmp_path: Path, made: Callable[[], bytes], said: str) -> None:
    content, path = made(), tmp_path / "client"
    path.write_bytes(content)
    found = conversion(content, str(path))
    assert found == said.replace("FILE", str(path))
    commands = re.findall(r"openssl [^,]*", found)
    for command in commands:
        # Where it is needed, openssl asks the terminal for the password.
        password = [] if "x509" in command else ["-passin", f"pass:{PASSWORD.decode()}"]
        subprocess.run([*command.split(), *password], check=True, capture_output=True, timeout=WITHIN)
    made_files = [file.read_text() for file in tmp_path.iterdir() if file != path]
    assert len(made_files) == len(commands)
    assert all("-----BEGIN " in text and "ENCRYPTED" not in text for text in made_files)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not here: apt-get install openssl")
@pytest.mark.parametrize("password", ["hunter2", "wrong"])
def test_the_command_for_an_encrypted_key_leaves_that_key_alone(tmp_path: Path, password: str) -> None:
    path = tmp_path / "client.key"
    content = private_key("RS256").private_bytes(Encoding.PEM, PrivateFormat.PKCS8, ENCRYPTED)
    path.write_bytes(content)
    command = re.findall(r"openssl .*", ENCRYPTED_KEY)[0].replace("FILE", str(path)).split()
    ran = subprocess.run([*command, "-passin", f"pass:{password}"], check=False, capture_output=True, timeout=WITHIN)
    assert (ran.returncode == 0) == (password == "hunter2")
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "content",
    [b"", b"0", b"0\x82", b"\xff\xfe", b"\x30\x03\x02\x01", b"\x30\x84\xff\xff\xff\xff", b"hunter2", b"0" * 99],
)
def test_other_content_is_not_taken_for_a_key(content: bytes) -> None:
    assert conversion(content, "FILE") is None
