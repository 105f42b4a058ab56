"""Configs of tests, and the folder in which they are loaded."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from bearerd.config.load import load
from bearerd.errors import ConfigError
from bearerd.model import Client, Config, Provider, Target
from bearerd.terms import Reference

SMALLEST = """\
clients:
  dnb:
    token_url: https://login.bisnode.com/sandbox/v1/token.oauth2
    client_id: 7e0c5a
    client_secret: {file: /etc/bearerd/dnb.secret}
    tokens:
      bci: {scope: bci}
"""
OTHER = SMALLEST.replace("dnb:", "other:")
SECRET = "client_id: a\nclient_secret: {file: /s}"
KEY = "client_id: a\nprivate_key: {file: /k}"
# Each auth with the keys that it needs, and no others.
WAYS = {
    "client_secret_basic": SECRET,
    "client_secret_post": f"{SECRET}\nauth: client_secret_post",
    "client_secret_jwt": f"{SECRET}\nauth: client_secret_jwt",
    "private_key_jwt": f"{KEY}\nauth: private_key_jwt",
    "tls_client_auth": f"{KEY}\ncertificate: {{file: /c}}\nauth: tls_client_auth",
    "self_signed_tls_client_auth": f"{KEY}\ncertificate: {{file: /c}}\nauth: self_signed_tls_client_auth",
    "assertion": "assertion: {file: /a}\nauth: assertion",
    "none": "auth: none",
}
BASE = Client("dnb", Provider("login.example.com", "https://login.example.com/t"), "a")
SIGNED = replace(BASE, private_key=Reference("file", "/k"))
# A certificate is public, so its file may be readable by anyone.
CERTIFICATE = Reference("file", "/c", permissions="any")
CERTIFIED = replace(SIGNED, certificate=CERTIFICATE)
PRESENTED = replace(BASE, tls_certificate=CERTIFICATE, tls_private_key=Reference("file", "/k"))
OPEN = replace(BASE, client_secret=(Reference("file", "/s"),))
JWT_BEARER = "grant_type: urn:ietf:params:oauth:grant-type:jwt-bearer"
USER = "username: u, password: {file: /p}"
NO_LOGIN = "a URL without a user name and password: write {url: …, username: …, password: {file: …}} as the proxy"
A_PROXY = "expected a URL, http://… or https://… or socks5://… or socks5h://…"
SECRET_PARAMETERS = ["password", "assertion", "actor_token", "refresh_token", "code", "device_code"]


class Folder:
    """The config files of a test. Errors are as printed, without the path of the folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self, text: str, environ: Mapping[str, str] | None = None, /, **more: str) -> Config:
        """Load a text as config.yaml, with other files beside it by name."""
        for name, content in {"config": text, **more}.items():
            (self.path / f"{name}.yaml").write_text(content)
        return load(str(self.path / "config.yaml"), environ or {})

    def error(self, text: str, /, **more: str) -> str:
        """The errors of a text, as printed by `check`."""
        with pytest.raises(ConfigError) as raised:
            self.load(text, None, **more)
        return raised.value.full.replace(f"{self.path}/", "")

    def headlines(self, text: str, /, **more: str) -> list[str]:
        """Only the first line of each error: `config.yaml:LINE:COLUMN: MESSAGE`."""
        return [line for line in self.error(text, **more).splitlines() if re.match(r"\S+:\d+:\d+: ", line)]

    def target(self, text: str, /) -> Target:
        """The only target."""
        (target,) = self.load(text).targets
        return target


def config(
    client: str = "",
    token: str = "",
    top: str = "",
    url: str | None = "https://login.example.com/t",
    credentials: str = "client_id: 7e0c5a\nclient_secret: {file: /s}",
) -> str:
    """The smallest config, with more keys in YAML's flow style (`a: b, c: d`) on its client, its token or at the top.

    Without keys of the client the credentials, one a line, begin in line 4.
    """
    lines = [f"{top}\n" if top else "", "clients:\n  dnb:\n"]
    lines += [f"    token_url: {url}\n" if url else "", f"    {client}\n" if client else ""]
    lines += [f"    {line}\n" for line in credentials.splitlines()]
    lines += ["    tokens:\n", f"      bci: {{{token}}}\n"]
    return "".join(lines)
