"""Against real TLS servers that demand the client's certificate (RFC 8705)."""

from __future__ import annotations

import os
import pty
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
import trustme
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from bearerd.grant import transport
from bearerd.grant.endpoint import Endpoint, NoReply
from bearerd.grant.explain import addressee
from bearerd.grant.outcome import Issued, Outcome, Refused, Transient, Unsent
from bearerd.grant.perform import Grants
from bearerd.grant.reply import Reply
from bearerd.grant.request import Access, Request
from bearerd.model import Provider, Target
from bearerd.terms import Auth, Reference
from support.clock import FakeClock
from support.oidc import pem, private_key, self_signed
from support.process import WITHIN
from support.server import Answer, Script, Seen, Server, issues, serving
from support.targets import CLIENT, PROVIDER, target

ENCRYPTED = "encrypted with a passphrase; decrypt it into another file: openssl pkey -in FILE -out FILE.decrypted"


@dataclass(frozen=True)
class Pair:
    """A certificate, perhaps with its chain, and its key, as PEM."""

    certificate: str
    private_key: str

    @property
    def der(self) -> bytes:
        """What a server sees of it."""
        return ssl.PEM_cert_to_DER_cert(self.certificate[: self.certificate.index("-----END") + 25])

    def write(self, directory: Path) -> None:
        """As a rotation does it: other files are renamed over the first."""
        for name, text in (("client.pem", self.certificate), ("client.key", self.private_key)):
            (directory / f"{name}.new").write_text(text)
            (directory / f"{name}.new").chmod(0o600)
            os.replace(directory / f"{name}.new", directory / name)


def issued_by(ca: trustme.CA, **more: Any) -> Pair:
    leaf = ca.issue_cert("client@example.com", **more)
    chain = "".join(part.bytes().decode() for part in leaf.cert_chain_pems)
    return Pair(chain, leaf.private_key_pem.bytes().decode())


def self_signed_pair(algorithm: str = "RS256") -> Pair:
    key = private_key(algorithm)
    return Pair(self_signed(key), pem(key))


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def directory(ca: trustme.CA, tmp_path: Path) -> Path:
    """Where the client's files are, and `ca.pem`."""
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    return tmp_path


def context_of(ca: trustme.CA, wants: ssl.VerifyMode = ssl.CERT_REQUIRED, trusts: str | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("127.0.0.1").configure_cert(context)
    context.verify_mode = wants
    context.load_verify_locations(cadata=trusts or ca.cert_pem.bytes().decode())
    return context


def at(server: Server, directory: Path, auth: Auth = "tls_client_auth", name: str = "dnb", **provider: Any) -> Target:
    there: dict[str, Any] = {"token_url": server.url, "ca_file": str(directory / "ca.pem"), "timeout": WITHIN}
    client = replace(
        CLIENT,
        name=name,
        provider=replace(PROVIDER, **there | provider),
        auth=auth,
        client_secret=(),
        tls_certificate=Reference("file", str(directory / "client.pem")),
        tls_private_key=Reference("file", str(directory / "client.key")),
    )
    return target(client=client)


def granted(wanted: Target) -> Outcome:
    return Grants(FakeClock(), {}).perform(wanted).outcome


# -- it is taken ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=lambda it: it.name)
def test_a_client_is_authenticated_by_its_certificate(ca: trustme.CA, directory: Path, version: ssl.TLSVersion) -> None:
    pair, context = issued_by(ca), context_of(ca)
    pair.write(directory)
    context.minimum_version = context.maximum_version = version
    with serving(issues(), context) as server:
        outcome = granted(at(server, directory))

    assert isinstance(outcome, Issued), outcome
    [seen] = server.seen
    assert seen.certificate == pair.der
    # The request names the client; nothing in the form or a header authenticates it.
    assert parse_qs(seen.body.decode()) == {
        "grant_type": ["client_credentials"],
        "scope": ["bci"],
        "client_id": ["7e0c5a"],
    }
    assert "authorization" not in seen.headers


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
def test_a_certificate_may_be_its_own_authority(ca: trustme.CA, directory: Path, algorithm: str) -> None:
    pair = self_signed_pair(algorithm)
    pair.write(directory)
    with serving(issues(), context_of(ca, trusts=pair.certificate)) as server:
        outcome = granted(at(server, directory, "self_signed_tls_client_auth"))

    assert isinstance(outcome, Issued), outcome
    assert [seen.certificate for seen in server.seen] == [pair.der]


def test_an_intermediate_authority_is_presented_with_it(ca: trustme.CA, directory: Path) -> None:
    # The server knows the root alone.
    issued_by(ca.create_child_ca()).write(directory)
    with serving(issues(), context_of(ca)) as server:
        assert isinstance(granted(at(server, directory)), Issued)


# -- it changes ----------------------------------------------------------------------------------------


def test_a_renewed_certificate_is_presented_at_the_next_grant(ca: trustme.CA, directory: Path) -> None:
    old, new = issued_by(ca), issued_by(ca)
    old.write(directory)
    with serving(issues(), context_of(ca)) as server:
        grants, wanted = Grants(FakeClock(), {}), at(server, directory)
        for pair in (old, old, new, new):
            pair.write(directory)
            assert isinstance(grants.perform(wanted).outcome, Issued)

    assert [seen.certificate for seen in server.seen] == [old.der, old.der, new.der, new.der]
    # A file that was rewritten with the same content keeps the connection.
    first, second, third, fourth = (seen.port for seen in server.seen)
    assert (first, third) == (second, fourth)
    assert first != third


def test_a_certificate_without_its_new_key_sends_nothing(ca: trustme.CA, directory: Path) -> None:
    old, new = issued_by(ca), issued_by(ca)
    old.write(directory)
    with serving(issues(), context_of(ca)) as server:
        grants, wanted = Grants(FakeClock(), {}), at(server, directory)
        grants.perform(wanted)
        Pair(old.certificate, new.private_key).write(directory)
        between = grants.perform(wanted)
        new.write(directory)
        after = grants.perform(wanted)

    named = (f"file {directory}/client.pem", f"file {directory}/client.key")
    assert between.outcome == Unsent(TOGETHER.format(*named), phase="set-up")
    assert isinstance(after.outcome, Issued)
    assert [seen.certificate for seen in server.seen] == [old.der, new.der]


@pytest.mark.parametrize("kept", [True, False], ids=["kept", "closed"])
def test_each_client_of_a_provider_has_connections_of_its_own(ca: trustme.CA, directory: Path, kept: bool) -> None:
    pairs = {name: issued_by(ca) for name in ("one", "two")}
    for name, pair in pairs.items():
        (directory / name).mkdir()
        pair.write(directory / name)
    script, headers = issues(), {} if kept else {"Connection": "close"}
    with serving(lambda seen: replace(script(seen), headers=headers), context_of(ca)) as server:
        grants = Grants(FakeClock(), {})
        ca_file = str(directory / "ca.pem")
        for name in ("one", "two", "one", "two"):
            wanted = at(server, directory / name, name=name, ca_file=ca_file)
            assert isinstance(grants.perform(wanted).outcome, Issued)

    assert [seen.certificate for seen in server.seen] == [pairs["one"].der, pairs["two"].der] * 2
    # Were they shared, each of them would end those of the other.
    assert ([seen.port for seen in server.seen[:2]] == [seen.port for seen in server.seen[2:]]) is kept


# -- where it is presented -----------------------------------------------------------------------------


def test_the_metadata_is_requested_without_it_and_the_token_at_the_alias(ca: trustme.CA, directory: Path) -> None:
    pair = issued_by(ca)
    pair.write(directory)

    def metadata(_: object) -> Answer:
        issuer = at_issuer.url.removesuffix("/token")
        aliases = {"token_endpoint": tokens.url}
        return Answer(
            200,
            {
                "issuer": issuer,
                "token_endpoint": f"{issuer}/elsewhere",
                "mtls_endpoint_aliases": aliases,
                "token_endpoint_auth_methods_supported": ["tls_client_auth"],
            },
        )

    with (
        serving(metadata, context_of(ca, ssl.CERT_OPTIONAL)) as at_issuer,
        serving(issues(), context_of(ca)) as tokens,
    ):
        wanted = at(tokens, directory, token_url=None, issuer=at_issuer.url.removesuffix("/token"))
        performed = Grants(FakeClock(), {}).perform(wanted)

    assert isinstance(performed.outcome, Issued), performed
    assert performed.token_url == tokens.url
    assert [seen.certificate for seen in at_issuer.seen] == [None]
    assert [seen.certificate for seen in tokens.seen] == [pair.der]


def test_it_is_not_presented_to_a_proxy(ca: trustme.CA, directory: Path) -> None:
    issued_by(ca).write(directory)
    refuses: Script = lambda _: Answer(403)  # noqa: E731
    with serving(issues()) as server, serving(refuses, context_of(ca, ssl.CERT_OPTIONAL)) as proxy:
        wanted = at(server, directory, token_url="https://token.invalid/", proxy=f"https://127.0.0.1:{proxy.port}")
        outcome = granted(wanted)

    assert isinstance(outcome, Transient), outcome
    assert [(seen.method, seen.certificate) for seen in proxy.seen] == [("CONNECT", None)]


def test_the_certificate_of_a_signing_key_is_not_presented(ca: trustme.CA, directory: Path) -> None:
    # It only adds the thumbprints to the assertion.
    issued_by(ca).write(directory)
    with serving(issues(), context_of(ca, ssl.CERT_OPTIONAL)) as server:
        wanted = at(server, directory, "private_key_jwt")
        pair = wanted.client.tls_certificate, wanted.client.tls_private_key
        client = replace(wanted.client, tls_certificate=None, tls_private_key=None)
        client = replace(client, certificate=pair[0], private_key=pair[1])
        assert isinstance(granted(replace(wanted, client=client)), Issued)

    assert [seen.certificate for seen in server.seen] == [None]


def test_a_certificate_goes_with_a_secret_and_with_an_assertion_signed_by_another_key(
    ca: trustme.CA, directory: Path
) -> None:
    pair, signing = issued_by(ca), directory / "signing.key"
    pair.write(directory)
    signing.write_text(RSA.private_key)
    signing.chmod(0o600)
    with serving(issues(), context_of(ca)) as server:
        wanted = at(server, directory, "client_secret_basic")
        secret = replace(wanted.client, client_secret=CLIENT.client_secret)
        signs = replace(wanted.client, auth="private_key_jwt", private_key=Reference("file", str(signing)))
        grants = Grants(FakeClock(), {"DNB_SECRET": "s3cr3t"})
        for client in (secret, signs):
            assert isinstance(grants.perform(replace(wanted, client=client)).outcome, Issued)

    assert [seen.certificate for seen in server.seen] == [pair.der, pair.der]
    assert server.seen[0].headers["authorization"].startswith("Basic ")
    assert "client_assertion" in parse_qs(server.seen[1].body.decode())


def test_a_providers_certificate_is_also_presented_for_its_metadata_and_its_connections_are_shared(
    ca: trustme.CA, directory: Path
) -> None:
    pair, own = issued_by(ca), issued_by(ca)
    pair.write(directory)
    (directory / "own").mkdir()
    own.write(directory / "own")
    script = issues()

    def answer(seen: Seen) -> Answer:
        issuer = server.url.removesuffix("/token")
        return script(seen) if seen.method == "POST" else Answer(200, {"issuer": issuer, "token_endpoint": server.url})

    with serving(answer, context_of(ca)) as server:
        ours = at(server, directory, token_url=None, issuer=server.url.removesuffix("/token"))
        names: Any = {"tls_certificate": ours.client.tls_certificate, "tls_private_key": ours.client.tls_private_key}
        provider = replace(ours.client.provider, **names)
        theirs = at(server, directory / "own", name="own")
        grants = Grants(FakeClock(), {})
        for wanted, name in ((ours, "one"), (ours, "two"), (theirs, "own")):
            client = replace(wanted.client, name=name, provider=provider)
            assert isinstance(grants.perform(replace(wanted, client=client)).outcome, Issued)

    assert [(seen.method, seen.certificate) for seen in server.seen] == [
        *(("GET", pair.der), ("POST", pair.der), ("POST", pair.der), ("POST", own.der))
    ]
    assert len({seen.port for seen in server.seen[:3]}) == 1
    assert server.seen[3].port != server.seen[2].port


def test_a_failure_names_an_expired_certificate(ca: trustme.CA, directory: Path) -> None:
    # As nginx answers it: no alert, and a page for browsers.
    issued_by(ca, **LONG_AGO).write(directory)
    page = Answer(400, b"<html><head><title>400 The SSL certificate error</title></head></html>")
    with serving(lambda _: page, context_of(ca, ssl.CERT_NONE)) as server:
        outcome = granted(at(server, directory))

    assert isinstance(outcome, Refused)
    assert outcome.hint == f"the client certificate in file {directory}/client.pem expired on 2020-02-01: renew it"


# -- it cannot be used ---------------------------------------------------------------------------------


def encrypted(pair: Pair, form: PrivateFormat = PrivateFormat.PKCS8) -> str:
    key = load_pem_private_key(pair.private_key.encode(), None)
    return key.private_bytes(Encoding.PEM, form, BestAvailableEncryption(b"hunter2")).decode()


RSA, OTHER_RSA, EC = self_signed_pair(), self_signed_pair(), self_signed_pair("ES256")
TOGETHER = "{0} and {1} do not belong together: the certificate is for another key"
NO_PEM = "{0} or {1} is not in PEM format, or not complete"
OF_KEY = f"{{1}}: {ENCRYPTED}"


@pytest.mark.parametrize(
    ("certificate", "key", "reason"),
    [
        pytest.param(RSA.certificate, OTHER_RSA.private_key, TOGETHER, id="another-key"),
        pytest.param(RSA.certificate, EC.private_key, TOGETHER, id="another-kind-of-key"),
        pytest.param(RSA.certificate, encrypted(RSA), OF_KEY, id="PKCS#8-encrypted"),
        pytest.param(RSA.certificate, encrypted(RSA, PrivateFormat.TraditionalOpenSSL), OF_KEY, id="PKCS#1-encrypted"),
        pytest.param(RSA.certificate, encrypted(OTHER_RSA), OF_KEY, id="encrypted-and-another"),
        pytest.param(RSA.certificate, "hunter2", NO_PEM, id="key-a-secret"),
        pytest.param(RSA.certificate, RSA.private_key[:400], NO_PEM, id="key-cut-short"),
        pytest.param("hunter2", RSA.private_key, NO_PEM, id="certificate-text"),
        pytest.param(RSA.certificate[:400], RSA.private_key, NO_PEM, id="certificate-cut-short"),
        pytest.param(RSA.private_key, RSA.certificate, NO_PEM, id="the-wrong-way-round"),
        pytest.param(RSA.certificate + EC.certificate[:400], RSA.private_key, NO_PEM, id="chain-cut-short"),
    ],
)
def test_an_unusable_certificate_is_a_local_fault_and_nothing_is_sent(
    ca: trustme.CA, directory: Path, certificate: str, key: str, reason: str
) -> None:
    Pair(certificate, key).write(directory)
    with serving(issues(), context_of(ca)) as server:
        outcome = granted(at(server, directory))

    named = (f"file {directory}/client.pem", f"file {directory}/client.key")
    assert outcome == Unsent(reason.format(*named), phase="set-up")
    assert server.seen == []


def test_a_key_that_is_too_small_for_openssl_is_reported_as_such(ca: trustme.CA, directory: Path) -> None:
    # As many distributions configure OpenSSL, keys of 1024 bits are shown to nobody.
    key = rsa.generate_private_key(65537, 1024)
    Pair(self_signed(key), pem(key)).write(directory)
    with serving(issues(), context_of(ca)) as server:
        outcome = granted(at(server, directory))

    assert isinstance(outcome, Unsent)
    assert "too small" in outcome.message


def test_a_missing_key_is_an_error_with_its_path(ca: trustme.CA, directory: Path) -> None:
    issued_by(ca).write(directory)
    (directory / "client.key").unlink()
    with serving(issues(), context_of(ca)) as server:
        outcome = granted(at(server, directory))

    assert outcome == Unsent(f"file {directory}/client.key: no such file or directory", phase="secret")
    assert server.seen == []


# A separate process with a terminal as standard input, where OpenSSL would ask and wait.
CHILD = """
import os, sys
os.open(os.ttyname(0), os.O_RDWR)
from bearerd.grant.endpoint import Endpoint
from bearerd.grant.request import Access, Request
from bearerd.model import Provider
certificate, private_key = (open(name).read() for name in sys.argv[1:])
endpoint = Endpoint(Provider(name="p", token_url="https://127.0.0.1:1/", timeout=60.0))
print(endpoint.send(Request("https://127.0.0.1:1/", {}, b"", Access((), certificate, private_key))).reason)
"""


def test_the_terminal_is_not_asked_for_a_passphrase(directory: Path) -> None:
    Pair(RSA.certificate, encrypted(RSA)).write(directory)
    terminal, its_end = pty.openpty()
    try:
        ran = subprocess.run(
            [sys.executable, "-c", CHILD, directory / "client.pem", directory / "client.key"],
            stdin=its_end,
            capture_output=True,
            text=True,
            timeout=WITHIN,
            start_new_session=True,
            check=False,
        )
        os.set_blocking(terminal, False)
        with pytest.raises(BlockingIOError):
            os.read(terminal, 1000)
    finally:
        os.close(terminal)
        os.close(its_end)

    assert (ran.stdout, ran.stderr) == (f"its private key: {ENCRYPTED}\n", "")


def test_unusable_certificates_leave_no_descriptor_open() -> None:
    endpoint = Endpoint(Provider(name="p", token_url="https://127.0.0.1:1/"))
    request = Request("https://127.0.0.1:1/", {}, b"", Access((), RSA.certificate, OTHER_RSA.private_key))
    assert isinstance(endpoint.send(request), NoReply)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        endpoint.send(request)

    # Not the same: those of earlier tests may have been closed meanwhile.
    assert len(os.listdir("/proc/self/fd")) <= before


# -- it is not taken -----------------------------------------------------------------------------------


@contextmanager
def demanding(context: ssl.SSLContext, closed: threading.Event | None = None) -> Iterator[str]:
    """The URL of a server that shakes one hand and, if that fails, goes away: at the end, or at once with an event.

    In TLS 1.3 the client has sent its request by the time it hears of it.
    """
    over = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listener.accept()
        with context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False) as secured:
            with suppress(OSError):
                secured.do_handshake()
            if closed is None:
                over.wait(WITHIN)
        if closed is not None:
            closed.set()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"https://127.0.0.1:{listener.getsockname()[1]}/"
    finally:
        over.set()
        thread.join(WITHIN)
        listener.close()


def showing(pair: Pair | None, url: str, directory: Path) -> Reply | NoReply:
    endpoint = Endpoint(Provider(name="p", token_url=url, ca_file=str(directory / "ca.pem"), timeout=WITHIN))
    certificate, key = (pair.certificate, pair.private_key) if pair else ("", "")
    try:
        return endpoint.send(Request(url, {}, b"grant_type=client_credentials", Access((), certificate, key)))
    finally:
        endpoint.close()


LONG_AGO = {"not_before": datetime(2020, 1, 1, tzinfo=UTC), "not_after": datetime(2020, 2, 1, tzinfo=UTC)}


def alerted(url: str, alert: str, hint: str) -> NoReply:
    return NoReply("TLS", f"{addressee(url)}: TLS: {alert}", hint)


def wants(url: str) -> NoReply:
    hint = "the server requires a client certificate: set tls_certificate and tls_private_key"
    return alerted(url, "tlsv13 alert certificate required", hint)


def test_a_server_that_requires_a_certificate_is_recognized_by_its_alert(ca: trustme.CA, directory: Path) -> None:
    with demanding(context_of(ca)) as url:
        assert showing(None, url, directory) == wants(url)


def test_the_alert_is_read_even_if_the_server_closes_first(
    monkeypatch: pytest.MonkeyPatch, ca: trustme.CA, directory: Path
) -> None:
    # As most servers do it: which of the two comes first is a matter of microseconds.
    closed, connect = threading.Event(), transport._HTTPSConnection.connect

    def connect_and_wait(this: transport._HTTPSConnection) -> None:
        connect(this)
        assert closed.wait(WITHIN)

    monkeypatch.setattr(transport._HTTPSConnection, "connect", connect_and_wait)
    with demanding(context_of(ca), closed) as url:
        assert showing(None, url, directory) == wants(url)


@pytest.mark.parametrize(
    ("more", "of_another_authority", "alert", "hint"),
    [
        pytest.param(
            {},
            True,
            "tlsv1 alert unknown ca",
            "the server does not trust the authority of the client certificate",
            id="unknown",
        ),
        pytest.param(
            LONG_AGO, False, "sslv3 alert certificate expired", "the client certificate has expired", id="expired"
        ),
    ],
)
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=lambda it: it.name)
def test_a_refused_certificate_is_recognized_by_the_alert(
    ca: trustme.CA,
    directory: Path,
    more: dict[str, Any],
    of_another_authority: bool,
    alert: str,
    hint: str,
    version: ssl.TLSVersion,
) -> None:
    pair = issued_by(trustme.CA() if of_another_authority else ca, **more)
    context = context_of(ca)
    context.minimum_version = context.maximum_version = version
    with demanding(context) as url:
        assert showing(pair, url, directory) == alerted(url, alert, hint)


def test_a_certificate_that_is_too_weak_is_recognized_by_the_alert(ca: trustme.CA, directory: Path) -> None:
    context = context_of(ca, trusts=RSA.certificate)
    # Level 3 wants RSA keys of 3072 bits, and this is of 2048.
    context.set_ciphers("DEFAULT:@SECLEVEL=3")
    with demanding(context) as url:
        assert showing(RSA, url, directory) == alerted(
            url, "sslv3 alert bad certificate", "the server does not accept the client certificate"
        )
