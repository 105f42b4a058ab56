"""Proxies and headers of a client and its provider."""

from __future__ import annotations

import pytest

from bearerd.model import ProxyLogin
from bearerd.terms import Reference
from support.config_text import NO_LOGIN, USER, Folder, config


def test_a_proxy_may_have_a_login(folder: Folder) -> None:
    login = "proxy: {url: https://proxy:3128, username: bearerd, password: {file: /p}}"
    provider = folder.target(config(client=login)).client.provider
    assert provider.proxy == "https://proxy:3128"
    assert provider.proxy_login == ProxyLogin("bearerd", Reference("file", "/p"))
    assert folder.target(config(client=login)).references[-1] == Reference("file", "/p")


@pytest.mark.parametrize("url", ["http://h", "https://h:1", "socks5://h", "socks5h://[::1]:9050"])
def test_a_proxy_is_one_of_http_or_socks5(folder: Folder, url: str) -> None:
    provider = folder.target(config(client=f"proxy: '{url}'")).client.provider
    assert (provider.proxy, provider.proxy_login) == (url, None)
    with_login = config(client=f"proxy: {{url: '{url}', username: u, password: {{env: P}}}}")
    assert folder.target(with_login).client.provider.proxy == url


@pytest.mark.parametrize("own", ["http://other:1", "{url: http://other:1, username: u, password: {file: /own}}"])
def test_a_clients_own_proxy_replaces_its_providers_and_its_login(folder: Folder, own: str) -> None:
    top = f"providers: {{sso: {{token_url: https://sso.example.com/t, proxy: {{url: http://p, {USER}}}}}}}"
    provider = folder.target(config(top=top, url=None, client=f"provider: sso\n    proxy: {own}")).client.provider
    assert provider.proxy == "http://other:1"
    assert provider.proxy_login == (ProxyLogin("u", Reference("file", "/own")) if "own" in own else None)


@pytest.mark.parametrize(
    ("proxy", "said"),
    [
        pytest.param("{url: http://h, username: u}", "key 'password' is missing", id="no password"),
        pytest.param("{url: http://h, password: {file: /p}}", "key 'username' is missing", id="no user"),
        pytest.param("{username: u, password: {file: /p}}", "key 'url' is missing", id="no url"),
        pytest.param(f"{{url: 'http://u:p@h', {USER}}}", f"expected {NO_LOGIN}", id="a login in the url too"),
        pytest.param(
            "{url: http://h, username: 'a:b', password: {file: /p}}",
            "expected a user name without ':' and control characters (RFC 7617)",
            id="a colon in the user",
        ),
        pytest.param(
            "{url: http://h, username: u, password: x}",
            "expected a reference such as {file: /etc/bearerd/client.secret}, {env: NAME}, {credential: NAME} or "
            "{command: [argv…]}, never the secret itself",
            id="a password as text",
        ),
        pytest.param(f"{{uri: http://h, {USER}}}", "unknown key 'uri'; did you mean 'url'?", id="another key"),
    ],
)
def test_a_wrong_proxy_is_refused(folder: Folder, proxy: str, said: str) -> None:
    (headline,) = folder.headlines(config(client=f"proxy: {proxy}"))
    assert headline.partition(": ")[2] == said


@pytest.mark.parametrize(
    "proxy",
    [
        "{url: 'http://user:hunter2@proxy', username: u, password: {file: /p}}",
        "{url: http://proxy, username: u, password: hunter2}",
        "{url: http://proxy, username: 'u:hunter2', password: {file: /p}}",
        "{url: 'http://proxy:hunter2', username: u, pasword: hunter2}",
        "{url: ftp://hunter2@proxy, usrname: hunter2}",
    ],
)
def test_no_error_about_a_proxy_shows_its_login(folder: Folder, proxy: str) -> None:
    assert "hunter2" not in folder.error(config(client=f"proxy: {proxy}"))


HEADERS = (
    ("X-Tenant", "acme"),
    ("Ocp-Apim-Subscription-Key", Reference("file", "/k")),
)
THEIRS = "providers: {sso: {token_url: https://sso.example.com/t, headers: {x-tenant: theirs, X-Gate: '1'}}}"


def test_headers_are_texts_or_references(folder: Folder) -> None:
    client = folder.target(config(client="headers: {X-Tenant: acme, Ocp-Apim-Subscription-Key: {file: /k}}")).client
    assert client.headers == HEADERS
    # Only a provider's headers are sent for its metadata.
    assert client.provider.headers == ()
    assert client.references == (*client.client_secret, Reference("file", "/k"))


def test_headers_of_provider_and_client_are_merged_and_the_client_wins(folder: Folder) -> None:
    client = folder.target(
        config(top=THEIRS, url=None, client="provider: sso, headers: {X-Tenant: ours}").replace(
            "provider: sso, ", "provider: sso\n    "
        )
    ).client
    assert client.headers == (("X-Tenant", "ours"), ("X-Gate", "1"))
    assert client.provider.headers == (("x-tenant", "theirs"), ("X-Gate", "1"))


OF_CONNECTION = "bearerd sets it for each connection"


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("authorization", "bearerd sets it from auth, client_id and client_secret"),
        ("Content-Type", "bearerd sets it from the key body"),
        ("Content-Length", OF_CONNECTION),
        ("HOST", OF_CONNECTION),
        ("Transfer-Encoding", OF_CONNECTION),
        ("connection", OF_CONNECTION),
        (
            "Proxy-Authorization",
            "it would be sent to the provider; use proxy: {url: …, username: …, password: {file: …}}",
        ),
    ],
)
def test_a_header_that_bearerd_sets_is_refused(folder: Folder, name: str, why: str) -> None:
    assert folder.headlines(config(client=f"headers: {{{name}: x}}")) == [
        f"config.yaml:4:15: header '{name}' cannot be set here: {why}"
    ]


A_HEADER = "expected the value of a header: printable ASCII characters on one line, without spaces at its ends"
A_NAME = "expected the name of a header: letters, digits and '-', without spaces and ':'"


@pytest.mark.parametrize(
    ("headers", "place", "said"),
    [
        pytest.param("{X Y: a}", "4:15", A_NAME, id="a space in the name"),
        pytest.param("{'X:': a}", "4:15", A_NAME, id="a colon in the name"),
        pytest.param("{'': a}", "4:15", A_NAME, id="no name"),
        pytest.param("{Ä: a}", "4:15", A_NAME, id="a name that is not ASCII"),
        pytest.param('{X: "a\\nB: c"}', "4:18", A_HEADER, id="a line end"),
        pytest.param("{X: ä}", "4:18", A_HEADER, id="not ASCII"),
        pytest.param("{X: ' a'}", "4:18", A_HEADER, id="a space at the start"),
        pytest.param("{X: ''}", "4:18", A_HEADER, id="empty"),
        pytest.param(
            "{X: 1}", "4:18", "expected text in quotes, or a reference such as {file: …}, found a number", id="a number"
        ),
        pytest.param(
            "{X: [a]}", "4:18", "expected text in quotes, or a reference such as {file: …}, found a list", id="a list"
        ),
        pytest.param("{X: {file: x}}", "4:25", "expected an absolute path (/…)", id="a relative path"),
        pytest.param(
            "{X-A: a, x-a: b}", "4:14", "a header is there twice: upper and lower case are the same", id="twice"
        ),
        pytest.param(
            "[X]",
            "4:14",
            "expected a mapping, found a list; for example "
            "{X-Tenant: acme, X-Api-Key: {file: /etc/bearerd/gateway.key}}",
            id="a list of headers",
        ),
    ],
)
def test_a_wrong_header_is_refused(folder: Folder, headers: str, place: str, said: str) -> None:
    assert folder.headlines(config(client=f"headers: {headers}")) == [f"config.yaml:{place}: {said}"]
