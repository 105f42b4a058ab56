"""TLS servers that misbehave."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from faults.judge import Row, tried
from faults.networks import Fault, each, fails, switched
from faults.place import Rig, kept, recovers
from support.peer import Peer

_NAME: Final = "127.0.0.1"
_OK: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"
_YEAR: Final = timedelta(days=365)
_FATAL_ALERT: Final = bytes((21, 3, 3, 0, 2, 2, 40))
"""An alert in plain text: handshake_failure. After the handshake it is not a valid record."""
_HELLO_REQUEST: Final = bytes((22, 3, 3, 0, 4, 0, 0, 0, 0))
"""The message that asks for a renegotiation, in plain text."""


class Certificates:
    """Contexts of servers: a good one, and bad ones."""

    def __init__(self) -> None:
        self.ca = trustme.CA()
        self._stranger = trustme.CA()

    def good(self) -> ssl.SSLContext:
        """A certificate for the server's name, by the CA of the config."""
        return server_context(self.ca.issue_cert(_NAME))

    def bad(self) -> Mapping[str, tuple[ssl.SSLContext, str]]:
        """By name: a context that is not to be trusted, and a word of the error."""
        now = datetime.now(UTC)
        past = self.ca.issue_cert(_NAME, not_before=now - 2 * _YEAR, not_after=now - _YEAR)
        future = self.ca.issue_cert(_NAME, not_before=now + _YEAR, not_after=now + 2 * _YEAR)
        return {
            "TLS: an expired certificate": (server_context(past), "expired"),
            "TLS: a certificate of next year": (server_context(future), "not yet valid"),
            "TLS: another name": (server_context(self.ca.issue_cert("login.example.com")), "mismatch"),
            "TLS: an unknown issuer": (server_context(self._stranger.issue_cert(_NAME)), "certificate"),
            "TLS: self-signed": (self._self_signed(2048), "self-signed"),
            "TLS: a key of 1024 bits": (self._self_signed(1024), ""),
            "TLS 1.0": (_old(self.good(), ssl.TLSVersion.TLSv1), "TLS"),
            "TLS 1.1": (_old(self.good(), ssl.TLSVersion.TLSv1_1), "TLS"),
        }

    def _self_signed(self, bits: int) -> ssl.SSLContext:
        """A certificate that signs itself. A short key is refused for its length, whoever signs it."""
        key = rsa.generate_private_key(65537, bits)
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, _NAME)])
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + _YEAR)
            .sign(key, hashes.SHA256())
            .public_bytes(serialization.Encoding.PEM)
        )
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        context = _server()
        with trustme.Blob(private + certificate).tempfile() as path:
            context.load_cert_chain(path)
        return context


def _server() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("ALL:@SECLEVEL=0")  # short keys and old versions, too
    return context


def server_context(certificate: trustme.LeafCert) -> ssl.SSLContext:
    """A server's context with this certificate, whatever its key and version."""
    context = _server()
    certificate.configure_cert(context)
    return context


def _old(context: ssl.SSLContext, version: ssl.TLSVersion) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = version
    return context


def _cut(connection: socket.socket, _: Peer) -> None:
    """Close in the middle of the handshake."""
    connection.recv(512)


def _silent(_: socket.socket, it: Peer) -> None:
    it.over.wait(5.0)


def _plain(connection: socket.socket, _: Peer) -> None:
    """Answer in HTTP, as a server with the wrong port does."""
    connection.recv(512)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")


def _half(connection: socket.socket, _: Peer) -> None:
    """Close without close_notify, in the middle of the body."""
    connection.sendall(_OK)
    connection.shutdown(socket.SHUT_RDWR)


def _then(record: bytes) -> Callable[[socket.socket, Peer], None]:
    """Send a part of the body, and then this past the encryption."""

    def act(connection: socket.socket, it: Peer) -> None:
        connection.sendall(_OK)
        with socket.socket(fileno=socket.dup(connection.fileno())) as below:
            below.sendall(record)
            it.over.wait(1.0)

    return act


BROKEN: Final[Mapping[str, Fault]] = {
    "TLS: the handshake is cut": Fault("", accepted=_cut),
    "TLS: no answer to the handshake": Fault("", accepted=_silent),
    "TLS: the server speaks plain HTTP": Fault("speaks TLS", accepted=_plain),
    "TLS: closed without close_notify in a body": Fault("", answered=_half),
    "TLS: an alert in a body": Fault("", answered=_then(_FATAL_ALERT)),
    "TLS: a renegotiation in a body": Fault("", answered=_then(_HELLO_REQUEST)),
    "TLS: bytes that are no record in a body": Fault("", answered=_then(b"HTTP/1.1 200 OK\r\n\r\n")),
}


def tls(rig: Rig, path: Path) -> list[Row]:
    """Each of them when a token is due. The daemon has no pooled connection then: the server closed it."""
    del rig
    certificates = Certificates()
    ca_file = path / "ca.pem"
    certificates.ca.cert_pem.write_to_path(ca_file)
    bad = certificates.bad()

    def one(where: Path, name: str, fault: Fault) -> Row:
        row = Row(name)
        client = f"ca_file: {ca_file},"
        with tried(row), switched(where, certificates.good(), client=client) as (here, switch, _), kept(here, row):
            grants = here.provider.grants
            switch.bad_context = bad[name][0] if name in bad else None
            switch.fault = fault
            switch.hang_up()
            here.refresh()
            fails(here, row, fault.word)
            switch.fault = None
            recovers(here, row, grants)
        return row

    faults = {name: Fault(word) for name, (_, word) in bad.items()}
    return each({**faults, **BROKEN}, one, path)
