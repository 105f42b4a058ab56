"""Real programs between bearerd and a provider: nginx that verifies client certificates, and tinyproxy with a login."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import trustme
from cryptography import x509

from support.ports import free_port
from support.process import WITHIN, eventually

_NGINX: Final = """\
daemon off;
pid {directory}/nginx.pid;
events {{}}
http {{
  log_format certificates '$request_method $status $ssl_client_verify $ssl_client_serial';
  access_log {directory}/access.log certificates;
  client_body_temp_path {directory}; proxy_temp_path {directory}; fastcgi_temp_path {directory};
  uwsgi_temp_path {directory}; scgi_temp_path {directory};
  server {{
    listen 127.0.0.1:{port} ssl;
    ssl_certificate {directory}/server.pem;
    ssl_certificate_key {directory}/server.pem;
    ssl_client_certificate {directory}/ca.pem;
    ssl_verify_client on;
    location / {{ proxy_pass {behind}; }}
  }}
}}
"""
_TINYPROXY: Final = """\
Port {port}
Listen 127.0.0.1
Timeout 60
BasicAuth {user} {password}
"""


@contextmanager
def started(argv: Sequence[str | Path], port: int) -> Iterator[None]:
    """Run a program that listens on a port of loopback during the block."""

    def listens() -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return True
        return False

    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        eventually(listens)
        yield
    finally:
        process.terminate()
        process.wait(WITHIN)


class Nginx:
    """A running nginx, which takes requests only from those with a certificate of this authority."""

    def __init__(self, directory: Path, port: int) -> None:
        self._log = directory / "access.log"
        self.url = f"https://127.0.0.1:{port}/token"
        self.ca_file = str(directory / "ca.pem")

    @property
    def requests(self) -> list[str]:
        """Of each request: its method, its status, the verdict on the certificate and the certificate's serial."""
        return self._log.read_text().splitlines()


@contextmanager
def nginx(directory: Path, ca: trustme.CA, behind: str) -> Iterator[Nginx]:
    """Run nginx in front of a URL."""
    port = free_port()
    ca.cert_pem.write_to_path(directory / "ca.pem")
    ca.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(directory / "server.pem")
    config = directory / "nginx.conf"
    config.write_text(_NGINX.format(directory=directory, port=port, behind=behind))
    with started(["nginx", "-e", "stderr", "-p", directory, "-c", config], port):
        yield Nginx(directory, port)


@contextmanager
def tinyproxy(directory: Path, user: str, password: str) -> Iterator[int]:
    """Run tinyproxy, which wants this login; its port."""
    port, config = free_port(), directory / "tinyproxy.conf"
    config.write_text(_TINYPROXY.format(port=port, user=user, password=password))
    with started(["tinyproxy", "-d", "-c", config], port):
        yield port


@contextmanager
def microsocks(user: str, password: str) -> Iterator[int]:
    """Run microsocks, a SOCKS5 proxy, which wants this login; its port."""
    port = free_port()
    with started(["microsocks", "-i", "127.0.0.1", "-p", str(port), "-u", user, "-P", password], port):
        yield port


def serial_of(pem: str) -> str:
    """The serial number of a certificate as nginx writes it."""
    number = x509.load_pem_x509_certificate(pem.encode()).serial_number
    digits = f"{number:X}"
    return digits.rjust(len(digits) + len(digits) % 2, "0")
