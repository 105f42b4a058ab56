"""Client certificates: of which auths, at which level, together with which key."""

from __future__ import annotations

from typing import get_args

import pytest

from bearerd.terms import Auth, Reference
from support.config_text import CERTIFICATE, JWT_BEARER, SECRET, WAYS, Folder, config


@pytest.mark.parametrize("auth", ["tls_client_auth", "self_signed_tls_client_auth"])
@pytest.mark.parametrize(
    ("top", "endpoint"),
    [
        pytest.param("", "token_url: http://127.0.0.1/t\nallow_http: true", id="token_url"),
        pytest.param("", "issuer: http://127.0.0.1\nallow_http: true", id="issuer"),
        pytest.param("providers: {p: {issuer: 'http://[::1]', allow_http: true}}", "provider: p", id="its provider's"),
    ],
)
def test_a_client_certificate_needs_https(folder: Folder, auth: str, top: str, endpoint: str) -> None:
    text = config(top=top, url=None, credentials=f"{WAYS[auth]}\n{endpoint}")
    line = text.splitlines().index(f"    auth: {auth}") + 1
    assert folder.headlines(text) == [
        f"config.yaml:{line}:11: expected https for auth {auth}: a client certificate works over TLS only"
    ]


PAIR = "tls_certificate: {file: /c}\ntls_private_key: {file: /k}"
INLINE = "tls_certificate: {file: /c}, tls_private_key: {file: /k}"
OF_SSO = f"providers: {{sso: {{token_url: https://sso.example.com/t, {INLINE}}}}}"
OTHER = "tls_certificate: {file: /c2}\ntls_private_key: {file: /k2}"


@pytest.mark.parametrize("auth", get_args(Auth))
@pytest.mark.parametrize("at", ["client", "provider"])
def test_a_client_certificate_goes_with_every_auth(folder: Folder, auth: str, at: str) -> None:
    named = {"tls_client_auth": "client_id: a", "self_signed_tls_client_auth": "client_id: a"}
    credentials = f"{named[auth]}\nauth: {auth}" if auth in named else WAYS[auth]
    if at == "client":
        client = folder.target(config(credentials=f"{credentials}\n{PAIR}")).client
        assert client.provider.tls_certificate is None
    else:
        client = folder.target(config(top=OF_SSO, url=None, credentials=f"{credentials}\nprovider: sso")).client
        assert client.provider.tls_certificate == CERTIFICATE
        assert client.provider.tls_private_key == Reference("file", "/k")
    assert (client.tls_certificate, client.tls_private_key) == (CERTIFICATE, Reference("file", "/k"))
    assert client.certificate is None


@pytest.mark.parametrize(
    "own",
    [
        pytest.param(f"{SECRET}\n{OTHER}", id="tls_certificate"),
        pytest.param(
            "client_id: a\nauth: tls_client_auth\ncertificate: {file: /c2}\nprivate_key: {file: /k2}", id="certificate"
        ),
    ],
)
def test_a_clients_own_certificate_replaces_its_providers(folder: Folder, own: str) -> None:
    client = folder.target(config(top=OF_SSO, url=None, credentials=f"{own}\nprovider: sso")).client
    assert (client.tls_certificate, client.tls_private_key) == (
        Reference("file", "/c2", permissions="any"),
        Reference("file", "/k2"),
    )
    assert client.provider.tls_certificate == CERTIFICATE


def test_the_key_of_a_signed_grant_is_not_that_of_the_connection(folder: Folder) -> None:
    credentials = f"client_id: a\nauth: tls_client_auth\n{JWT_BEARER}\nprivate_key: {{file: /s}}\n{PAIR}"
    client = folder.target(config(credentials=credentials)).client
    assert (client.private_key, client.tls_private_key) == (Reference("file", "/s"), Reference("file", "/k"))


@pytest.mark.parametrize("line", PAIR.splitlines())
@pytest.mark.parametrize("at", ["client", "provider"])
def test_a_certificate_and_its_key_are_set_together(folder: Folder, line: str, at: str) -> None:
    other = {"tls_certificate": "tls_private_key", "tls_private_key": "tls_certificate"}[line.partition(":")[0]]
    if at == "client":
        text, place = config(credentials=f"{SECRET}\n{line}"), "config.yaml:2:3"
    else:
        text = config(top=OF_SSO.replace(INLINE, line), url=None, credentials=f"{SECRET}\nprovider: sso")
        place = "config.yaml:1:13"
    assert folder.headlines(text) == [
        f"{place}: key '{other}' is missing: a client certificate and its private key are set together"
    ]


@pytest.mark.parametrize(("given", "missing"), [("certificate", "private_key"), ("private_key", "certificate")])
def test_half_a_pair_is_not_completed_by_its_providers(folder: Folder, given: str, missing: str) -> None:
    credentials = f"client_id: a\nauth: tls_client_auth\nprovider: sso\n{given}: {{file: /x}}"
    text = config(top=OF_SSO, url=None, credentials=credentials)
    assert folder.headlines(text) == [f"config.yaml:3:3: key '{missing}' is missing"]


@pytest.mark.parametrize("key", ["certificate", "private_key"])
def test_a_client_has_one_certificate_for_its_connections(folder: Folder, key: str) -> None:
    text = config(credentials=f"client_id: a\nauth: tls_client_auth\n{key}: {{file: /x}}\n{PAIR}")
    assert folder.headlines(text) == [
        f"config.yaml:6:5: expected either {key} or tls_{key}, not both: auth tls_client_auth has one certificate"
    ]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        pytest.param(
            config(url="http://127.0.0.1/t", client="allow_http: true", credentials=f"{SECRET}\n{PAIR}"),
            "7:22",
            id="own",
        ),
        pytest.param(
            config(
                top=OF_SSO.replace("https://sso.example.com/t", "'http://[::1]/t', allow_http: true"),
                url=None,
                credentials=f"{SECRET}\nprovider: sso",
            ),
            "6:15",
            id="its-providers",
        ),
    ],
)
def test_a_certificate_next_to_a_secret_needs_https(folder: Folder, text: str, place: str) -> None:
    assert folder.headlines(text) == [
        f"config.yaml:{place}: expected https with tls_certificate: a client certificate works over TLS only"
    ]
