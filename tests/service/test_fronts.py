"""bearerd as a process, and real programs between it and a provider: nginx that wants a client certificate, a proxy."""

from __future__ import annotations

import shutil
import ssl
from pathlib import Path

import pytest
import trustme

from support.authlib_server import authorization_server
from support.fronts import nginx, serial_of, tinyproxy
from support.process import bearerd, eventually, running
from support.server import issues, serving

SECRET = "s3cr3t-of-the-client"
PASSWORD = "hunter2-of-the-proxy"


def private(path: Path, text: str) -> Path:
    """Write a file as a rotation does it: a new one is renamed over the old one."""
    new = path.with_name(f"{path.name}.new")
    new.write_text(text)
    new.chmod(0o600)
    return new.rename(path)


def config(directory: Path, text: str) -> Path:
    path = directory / "config.yaml"
    path.write_text(f"output: {{directory: {directory}/tokens}}\nstate_directory: {directory}/state\n{text}")
    return path


# -- nginx ---------------------------------------------------------------------------------------------

MUTUAL = """\
providers:
  bank:
    token_url: {url}
    ca_file: {ca_file}
clients:
  mutual:
    provider: bank
    client_id: plain
    client_secret: {{file: {directory}/secret}}
    tls_certificate: {{file: {directory}/client.pem}}
    tls_private_key: {{file: {directory}/client.key}}
    tokens: {{api: {{scope: bci}}}}
"""
WITHOUT = """\
  without:
    provider: bank
    client_id: plain
    client_secret: {{file: {directory}/secret}}
    tokens: {{api: {{scope: bci}}}}
"""
NGINX = pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not here: apt-get install nginx-light")


def write_pair(directory: Path, ca: trustme.CA) -> str:
    """A new certificate and its key; the serial number."""
    leaf = ca.issue_cert("client@example.com")
    private(directory / "client.key", leaf.private_key_pem.bytes().decode())
    certificate = leaf.cert_chain_pems[0].bytes().decode()
    private(directory / "client.pem", certificate)
    return serial_of(certificate)


@NGINX
def test_a_client_certificate_goes_with_a_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Authlib's own switch for servers on loopback without TLS.
    monkeypatch.setenv("AUTHLIB_INSECURE_TRANSPORT", "1")
    ca = trustme.CA()
    private(tmp_path / "secret", "plain\n")
    serial = write_pair(tmp_path, ca)
    with authorization_server() as behind, nginx(tmp_path, ca, behind.removesuffix("/token")) as front:
        text = (MUTUAL + WITHOUT).format(directory=tmp_path, url=front.url, ca_file=front.ca_file)
        done = bearerd("check", "--online", "-c", config(tmp_path, text))
        once = bearerd("once", "-c", tmp_path / "config.yaml")

    assert "grant mutual/api" in done.stdout
    # Both clients are of one provider: only one of them presents the certificate.
    expected = [f"POST 200 SUCCESS {serial}", "POST 400 NONE -"]
    assert [sorted(front.requests[:2]), sorted(front.requests[2:])] == [sorted(expected)] * 2
    assert "the server requires a client certificate: set tls_certificate and tls_private_key" in done.stdout
    assert once.returncode == 1
    assert (tmp_path / "tokens/mutual/api").read_text()
    assert not (tmp_path / "tokens/without/api").exists()


@NGINX
def test_a_changed_certificate_wakes_a_refused_client(tmp_path: Path) -> None:
    ca = trustme.CA()
    private(tmp_path / "secret", SECRET)
    write_pair(tmp_path, trustme.CA())
    with serving(issues()) as behind, nginx(tmp_path, ca, behind.url.removesuffix("/token")) as front:
        text = MUTUAL.format(directory=tmp_path, url=front.url, ca_file=front.ca_file)
        with running("run", "-c", config(tmp_path, text)) as daemon:
            daemon.wait_for("the server does not accept the client certificate")
            serial = write_pair(tmp_path, ca)
            eventually((tmp_path / "tokens/mutual/api").exists)
            assert daemon.stop() == 0

    assert front.requests[-1] == f"POST 200 SUCCESS {serial}"
    assert SECRET not in "\n".join(daemon.lines)


# -- tinyproxy -----------------------------------------------------------------------------------------

PROXIED = """\
clients:
  dnb:
    token_url: {url}
    ca_file: {directory}/ca.pem
    proxy: {{url: "http://127.0.0.1:{port}", username: bearerd, password: {{file: {directory}/password}}}}
    client_id: plain
    client_secret: {{file: {directory}/secret}}
    tokens: {{bci: {{scope: bci}}}}
"""


@pytest.mark.skipif(shutil.which("tinyproxy") is None, reason="tinyproxy is not here: apt-get install tinyproxy")
def test_a_changed_password_of_the_proxy_is_used_at_once(tmp_path: Path) -> None:
    ca = trustme.CA()
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("127.0.0.1").configure_cert(context)
    private(tmp_path / "secret", SECRET)
    private(tmp_path / "password", "not-the-password")
    with serving(issues(), context) as server, tinyproxy(tmp_path, "bearerd", PASSWORD) as port:
        text = PROXIED.format(directory=tmp_path, url=server.url, port=port)
        with running("run", "-c", config(tmp_path, text)) as daemon:
            line = daemon.wait_for(
                f"the proxy refused the login: check username and password (file {tmp_path}/password)"
            )
            private(tmp_path / "password", PASSWORD)
            eventually((tmp_path / "tokens/dnb/bci").exists)
            status = bearerd("status", "--json", "-c", tmp_path / "config.yaml")
            assert daemon.stop() == 0

    # tinyproxy says 407 only if there is no login at all.
    assert f"the proxy 127.0.0.1:{port} refuses to connect to the provider: HTTP 401" in line
    assert "proxy-authorization" not in server.seen[-1].headers
    said = "\n".join([*daemon.lines, status.stdout, status.stderr])
    for hidden in (SECRET, PASSWORD, "not-the-password"):
        assert hidden not in said
