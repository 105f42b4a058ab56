"""npm's `oidc-provider`: a real authorization server, over http and over https on free ports of loopback.

Needs node and the modules: run `npm install` in a copy of tests/servers, name that directory in
BEARERD_TEST_NODE_MODULES, and skip with `why_not`.
"""

from __future__ import annotations

import base64
import json
import os
import selectors
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, SECP384R1, SECP521R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as ec_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as rsa_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from support.process import WITHIN

SCRIPT = Path(__file__).parents[1] / "servers" / "oidc_provider.mjs"

PrivateKey = RSAPrivateKey | EllipticCurvePrivateKey | Ed25519PrivateKey


def node() -> str | None:
    """Node.js, if there is one."""
    return shutil.which(os.environ.get("BEARERD_NODE", "node"))


def modules() -> Path:
    """The directory of its modules."""
    return Path(os.environ.get("BEARERD_TEST_NODE_MODULES", SCRIPT.parent))


@cache
def why_not(module: str = "oidc-provider") -> str | None:
    """Why a module of npm cannot run here, or None. For `pytest.mark.skipif`."""
    program = node()
    if program is None:
        return "there is no node"
    probe = "URL.parse && require('crypto').hash ? '' : process.version"  # Node 22, and the last releases of 20
    found = subprocess.run([program, "-p", probe], capture_output=True, text=True, check=False)
    if found.returncode or found.stdout.strip():
        return f"node is too old: {found.stdout.strip() or found.stderr.strip()}"
    if not (modules() / "node_modules" / module / "package.json").is_file():
        return f"no {module} in BEARERD_TEST_NODE_MODULES"
    return None


def private_key(algorithm: str) -> PrivateKey:
    """A new key that can sign by a JWS algorithm."""
    match algorithm:
        case "ES256":
            return ec_key(SECP256R1())
        case "ES384":
            return ec_key(SECP384R1())
        case "ES512":
            return ec_key(SECP521R1())
        case "EdDSA" | "Ed25519":
            return Ed25519PrivateKey.generate()
        case _:
            return rsa_key(65537, 2048)


def pem(key: PrivateKey) -> str:
    """The key as PKCS#8."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def self_signed(
    key: PrivateKey, name: str = "client", not_before: datetime | None = None, not_after: datetime | None = None
) -> str:
    """A self-signed certificate, as PEM; by default it is valid today."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(not_before or now - timedelta(days=1))
        .not_valid_after(not_after or now + timedelta(days=1))
    )
    signed = builder.sign(key, None if isinstance(key, Ed25519PrivateKey) else hashes.SHA256())
    return signed.public_bytes(Encoding.PEM).decode()


def client(
    client_id: str, method: str = "client_secret_basic", *, keys: Sequence[Mapping[str, Any]] = (), **metadata: Any
) -> dict[str, Any]:
    """A client as in RFC 7591. A key is a JWK, or `pem` (of a key or a certificate) with `kid` and the like."""
    jwks = {"jwks": {"keys": keys}} if keys else {}
    return {"client_id": client_id, "token_endpoint_auth_method": method, **jwks, **metadata}


@dataclass(frozen=True)
class Request:
    """A request as the server understood it, and its answer."""

    scheme: str
    method: str
    path: str
    headers: dict[str, str]
    """Names in lower case."""
    form: dict[str, list[str]]
    certificate: str | None
    """SHA-256 of the client's certificate, in hexadecimal."""
    status: int
    answer: Any
    why: str | None
    """Why it refused, in more detail than the client gets."""

    @property
    def assertion(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Header and claims of the client assertion."""
        header, claims, _ = self.form["client_assertion"][0].split(".")
        return _decoded(header), _decoded(claims)


def _decoded(part: str) -> dict[str, Any]:
    document = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    assert isinstance(document, dict)
    return document


class OidcProvider:
    """A running server. `ca` issued its certificate and issues those of clients."""

    def __init__(self, process: subprocess.Popen[str], log: Path, ca: trustme.CA, ca_file: Path) -> None:
        self._process, self._log, self._lock = process, log, threading.Lock()
        self.ca, self.ca_file = ca, ca_file
        self.http_issuer = self.https_issuer = ""

    @property
    def http_token_url(self) -> str:
        """The token endpoint of `http_issuer`."""
        return f"{self.http_issuer}/token"

    @property
    def https_token_url(self) -> str:
        """The token endpoint of `https_issuer`."""
        return f"{self.https_issuer}/token"

    def register(self, *clients: Mapping[str, Any]) -> None:
        """Register clients, or replace them."""
        self.ask({"clients": clients})

    def seen(self) -> list[Request]:
        """The answered requests since the last call."""
        return [Request(**request) for request in self.ask({})]

    def ask(self, document: Mapping[str, Any]) -> Any:
        """Send a line to the script and read one from it."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        with self._lock, selectors.DefaultSelector() as selector:
            selector.register(stdout, selectors.EVENT_READ)
            stdin.write(json.dumps(document) + "\n")
            stdin.flush()
            line = stdout.readline() if selector.select(WITHIN) else ""
        assert line, f"oidc-provider does not answer:\n{self._log.read_text()}"
        return json.loads(line)


@contextmanager
def oidc_provider(
    *clients: Mapping[str, Any],
    resources: Mapping[str, Mapping[str, Any]] | None = None,
    lifetime: int = 600,
    **settings: Any,
) -> Iterator[OidcProvider]:
    """Run a server during the block. Settings have the names of its own documentation."""
    program = node()
    assert program is not None
    ca = trustme.CA()
    leaf = ca.issue_cert("127.0.0.1", "localhost")
    options = {
        "modules": str(modules().resolve()),
        "tls": {
            "key": leaf.private_key_pem.bytes().decode(),
            "cert": "".join(part.bytes().decode() for part in leaf.cert_chain_pems),
            "ca": ca.cert_pem.bytes().decode(),
        },
        "clients": clients,
        "resources": resources or {},
        "lifetime": lifetime,
        "settings": settings,
    }
    with tempfile.TemporaryDirectory() as directory:
        log, ca_file = Path(directory, "log"), Path(directory, "ca.pem")
        ca.cert_pem.write_to_path(str(ca_file))
        with (
            log.open("w") as stderr,
            subprocess.Popen(
                [program, SCRIPT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, text=True
            ) as process,
        ):
            server = OidcProvider(process, log, ca, ca_file)
            try:
                server.http_issuer, server.https_issuer = server.ask(options)
                yield server
            finally:
                process.kill()
