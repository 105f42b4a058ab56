from __future__ import annotations

import os
import socket
import ssl
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
import trustme

from bearerd.grant.endpoint import Endpoint, NoReply, set_up_fault
from bearerd.grant.reply import Reply
from bearerd.grant.request import Request
from bearerd.grant.tls import shared_context, signature
from bearerd.model import Provider
from support.process import WITHIN
from support.server import Server, issues, serving


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def ca_file(ca: trustme.CA, tmp_path: Path) -> str:
    path = tmp_path / "ca.pem"
    ca.cert_pem.write_to_path(path)
    return str(path)


def context_of(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


@contextmanager
def serving_as(ca: trustme.CA, name: str = "127.0.0.1") -> Iterator[Server]:
    with serving(issues(), context_of(ca.issue_cert(name))) as server:
        yield server


def post(server: Server, ca_file: str | None, *, url: str | None = None) -> Reply | NoReply:
    endpoint = Endpoint(Provider(name="p", token_url=url or server.url, ca_file=ca_file, timeout=WITHIN))
    try:
        return endpoint.send(Request(url or server.url, {}, b"grant_type=client_credentials"))
    finally:
        endpoint.close()


def test_certificates_of_ca_file_are_trusted(ca: trustme.CA, ca_file: str) -> None:
    with serving_as(ca) as server:
        assert isinstance(post(server, ca_file), Reply)


def test_a_certificate_for_another_name_is_refused(ca: trustme.CA, ca_file: str) -> None:
    with serving_as(ca, "login.example.com") as server:
        reply = post(server, ca_file)

    assert isinstance(reply, NoReply)
    assert (reply.phase, reply.hint) == ("TLS", None)
    # OpenSSL ends this text with a period, but more follows it in a log line.
    mismatch = "IP address mismatch, certificate is not valid for '127.0.0.1'"
    assert reply.reason == f"127.0.0.1:{server.port}: TLS certificate refused: {mismatch}"
    assert server.seen == []


@pytest.mark.parametrize(
    ("begins", "ends", "why"),
    [
        pytest.param(datetime(2020, 1, 1, tzinfo=UTC), datetime(2020, 2, 1, tzinfo=UTC), "has expired", id="expired"),
        pytest.param(
            datetime(2090, 1, 1, tzinfo=UTC), datetime(2090, 2, 1, tzinfo=UTC), "is not yet valid", id="not-yet"
        ),
    ],
)
def test_an_expired_or_future_certificate_is_refused(
    ca: trustme.CA, ca_file: str, begins: datetime, ends: datetime, why: str
) -> None:
    certificate = ca.issue_cert("127.0.0.1", not_before=begins, not_after=ends)
    with serving(issues(), context_of(certificate)) as server:
        reply = post(server, ca_file)

    assert reply == NoReply(
        "TLS",
        f"127.0.0.1:{server.port}: TLS certificate refused: certificate {why}",
        "check this machine's clock; if it is right, inform the provider",
    )
    assert server.seen == []


def test_a_certificate_of_another_authority_is_refused_and_ca_file_named(ca_file: str) -> None:
    with serving_as(trustme.CA()) as server:
        reply = post(server, ca_file)

    assert reply == NoReply(
        "TLS",
        f"127.0.0.1:{server.port}: TLS certificate refused: unable to get local issuer certificate",
        f"no authority in ca_file {ca_file} issued it",
    )
    assert server.seen == []


def test_a_self_signed_certificate_is_refused_with_a_hint(ca: trustme.CA, tmp_path: Path) -> None:
    own = tmp_path / "own.pem"
    own.write_bytes(ca.private_key_pem.bytes() + ca.cert_pem.bytes())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own)
    with serving(issues(), context) as server:
        reply = post(server, None)

    assert isinstance(reply, NoReply)
    assert (reply.phase, reply.hint) == (
        "TLS",
        "for a private authority set ca_file; for a public one install the system's ca-certificates",
    )
    assert server.seen == []


def test_a_server_that_speaks_only_tls_1_1_is_refused(ca: trustme.CA, ca_file: str) -> None:
    context = context_of(ca.issue_cert("127.0.0.1"))
    permissive = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    permissive.load_verify_locations(ca_file)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = permissive.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    for each in (context, permissive):
        each.set_ciphers("ALL:@SECLEVEL=0")

    with serving(issues(), context) as server:
        try:
            with (
                socket.create_connection(("127.0.0.1", server.port), 20) as plain,
                permissive.wrap_socket(plain, server_hostname="127.0.0.1") as secured,
            ):
                assert secured.version() == "TLSv1.1"
        except ssl.SSLError:
            pytest.skip("this OpenSSL cannot speak TLS 1.1 at all")

        endpoint = Endpoint(Provider(name="p", token_url=server.url, ca_file=ca_file, timeout=WITHIN))
        trust = shared_context(ca_file, signature(ca_file))
        # So that it is not the distribution's policy that refuses, but we.
        trust.set_ciphers("ALL:@SECLEVEL=0")
        reply = endpoint.send(Request(server.url, {}, b""))
        endpoint.close()

    assert isinstance(reply, NoReply)
    assert reply.phase == "TLS"
    assert server.seen == []


def test_a_server_without_tls_is_refused_with_a_hint() -> None:
    with serving(issues()) as server:
        reply = post(server, None, url=server.url.replace("http:", "https:"))

    assert isinstance(reply, NoReply)
    assert (reply.phase, reply.hint) == ("TLS", "check that this port speaks TLS")
    assert server.seen == []


# -- trusted authorities -------------------------------------------------------------------------------


@pytest.mark.parametrize("system", [False, True], ids=["ca_file", "the system's bundle"])
def test_the_next_request_uses_a_replaced_file_of_authorities(
    monkeypatch: pytest.MonkeyPatch, ca: trustme.CA, ca_file: str, *, system: bool
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", ca_file if system else os.devnull)
    trusted, new = None if system else ca_file, trustme.CA()
    with serving_as(ca) as old_server, serving_as(new) as new_server:
        endpoint = Endpoint(Provider(name="p", token_url=new_server.url, ca_file=trusted, timeout=WITHIN))
        before = endpoint.send(Request(new_server.url, {}, b""))
        # As a rotation does it: another file is renamed over the first.
        new.cert_pem.write_to_path(f"{ca_file}.new")
        os.replace(f"{ca_file}.new", ca_file)
        after = endpoint.send(Request(new_server.url, {}, b""))
        endpoint.close()

        assert isinstance(before, NoReply)
        assert isinstance(after, Reply)
        assert isinstance(post(old_server, trusted), NoReply)


NO_CERTIFICATE = "holds no certificate; it needs the provider's CA certificates in PEM"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        pytest.param(None, "no such file or directory", id="missing"),
        pytest.param(b"", NO_CERTIFICATE, id="empty"),
        pytest.param(b"not a certificate\n", NO_CERTIFICATE, id="text"),
        pytest.param(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", NO_CERTIFICATE, id="broken"),
        pytest.param(
            b"\x30\x08\x02\x01\x03\x30\x03\x02\x01\x01",
            "a PKCS#12 file (.p12, .pfx), not PEM; extract the certificates: openssl pkcs12 -in FILE -nokeys "
            "-out FILE.crt, and set ca_file to that file",
            id="PKCS#12",
        ),
        pytest.param(
            b"\x30\x82\x00\x04\x30\x82\x00\x00",
            "a certificate in DER, not PEM; convert it: openssl x509 -inform DER -in FILE -out FILE.pem, "
            "and set ca_file to that file",
            id="DER",
        ),
        pytest.param(b"\x30\x03\x02\x01\x00", NO_CERTIFICATE, id="private key in DER"),
    ],
)
def test_an_unusable_ca_file_is_an_error_and_nothing_is_sent(
    ca: trustme.CA, tmp_path: Path, content: bytes | None, why: str
) -> None:
    path = tmp_path / "other.pem"
    if content is not None:
        path.write_bytes(content)
    with serving_as(ca) as server:
        reply = post(server, str(path))

    assert reply == NoReply("set-up", f"ca_file {path}: {why.replace('FILE', str(path))}")
    assert server.seen == []


# OpenSSL finds the system's store by the environment of its process: so each of these is one.
CHILD = """
import sys
from bearerd.grant.endpoint import Endpoint
from bearerd.grant.request import Request
from bearerd.model import Provider
endpoint = Endpoint(Provider(name="p", token_url=sys.argv[1], timeout=60.0))
print(endpoint.send(Request(sys.argv[1], {}, b"")))
endpoint.close()
"""


@pytest.mark.parametrize("trusted", [True, False], ids=["in-the-store", "not-in-the-store"])
def test_the_systems_store_is_the_default(ca: trustme.CA, ca_file: str, trusted: bool) -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("SSL_CERT_")}
    if trusted:
        environ["SSL_CERT_FILE"] = ca_file
    with serving_as(ca) as server:
        child = subprocess.run(
            [sys.executable, "-c", CHILD, server.url],
            env=environ,
            capture_output=True,
            text=True,
            timeout=WITHIN,
            check=True,
        )

    if trusted:
        assert child.stdout == "Reply(status=200)\n"
    else:
        said = f"127.0.0.1:{server.port}: TLS certificate refused: unable to get"
        assert child.stdout.startswith(f"NoReply(phase='TLS', reason='{said}")
        assert server.seen == []


@pytest.mark.parametrize("size", [None, 2**24 + 1], ids=["just removed", "larger than a ca_file may be"])
def test_no_bundle_of_the_system_is_a_fault(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, size: int | None) -> None:
    bundle = tmp_path / "bundle"
    if size is not None:
        bundle.touch()
        os.truncate(bundle, size)
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: SimpleNamespace(cafile=str(bundle)))
    assert (signature(None) is None) == (size is None)


def test_ca_file_replaces_the_systems_store(
    monkeypatch: pytest.MonkeyPatch, ca: trustme.CA, ca_file: str, tmp_path: Path
) -> None:
    system = trustme.CA()
    system.cert_pem.write_to_path(tmp_path / "system.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "system.pem"))
    with serving_as(system) as public, serving_as(ca) as private:
        assert isinstance(post(private, ca_file), Reply)
        assert isinstance(post(public, ca_file), NoReply)

    assert public.seen == []


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_environment_variables_add_no_authorities(
    monkeypatch: pytest.MonkeyPatch, ca_file: str, tmp_path: Path, variable: str
) -> None:
    other = trustme.CA()
    other.cert_pem.write_to_path(tmp_path / "other.pem")
    monkeypatch.setenv(variable, str(tmp_path / "other.pem"))
    with serving_as(other) as server:
        assert isinstance(post(server, ca_file), NoReply)


def test_a_connection_adds_no_other_authorities(ca: trustme.CA, ca_file: str) -> None:
    with serving_as(ca) as server:
        endpoint = Endpoint(Provider(name="p", token_url=server.url, ca_file=ca_file, timeout=WITHIN))
        assert isinstance(endpoint.send(Request(server.url, {}, b"")), Reply)
        endpoint.close()

    trust = shared_context(ca_file, signature(ca_file))
    assert trust.get_ca_certs(binary_form=True) == [ssl.PEM_cert_to_DER_cert(ca.cert_pem.bytes().decode())]


def test_session_keys_are_not_written(
    monkeypatch: pytest.MonkeyPatch, ca: trustme.CA, ca_file: str, tmp_path: Path
) -> None:
    keys = tmp_path / "keys.log"
    monkeypatch.setenv("SSLKEYLOGFILE", str(keys))
    with serving_as(ca) as server:
        assert isinstance(post(server, ca_file), Reply)

    assert not keys.exists()


def huge(path: str) -> None:
    """A file of 64 GiB that takes no room."""
    Path(path).touch()
    os.truncate(path, 2**36)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (os.mkfifo, "not a regular file"),
        (os.mkdir, "not a regular file"),
        (lambda path: os.symlink("/dev/zero", path), "not a regular file"),
        (huge, "larger than 16 MiB"),
    ],
    ids=["a FIFO", "a directory", "a device", "a huge file"],
)
@pytest.mark.parametrize("own", [False, True], ids=["", "with a client certificate"])
def test_openssl_never_gets_a_file_that_it_could_read_for_ever(
    ca: trustme.CA, tmp_path: Path, make: Callable[[str], object], said: str, *, own: bool
) -> None:
    path = str(tmp_path / "ca")
    make(path)
    pair = ca.issue_cert("client")
    certificate, key = (pair.cert_chain_pems[0], pair.private_key_pem) if own else (None, None)
    provider = Provider(name="p", token_url="https://127.0.0.1:9/", ca_file=path)
    texts = [part.bytes().decode() if part else "" for part in (certificate, key)]
    assert set_up_fault(provider, texts[0], texts[1]) == f"ca_file {path}: {said}"
