"""Providers, their URLs, and what a client takes over from its provider."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bearerd.model import Provider
from support.config_text import SMALLEST, Folder, config

PROVIDER = (
    "providers: {sso: {token_url: https://sso.example.com/t, ca_file: /ca.pem, proxy: 'http://proxy:3128',"
    " timeout: 5s, max_concurrency: 2, allow_http: true}}"
)
SSO = Provider(
    "sso",
    "https://sso.example.com/t",
    allow_http=True,
    ca_file="/ca.pem",
    proxy="http://proxy:3128",
    timeout=5.0,
    max_concurrency=2,
)


def test_a_client_has_the_keys_of_its_provider(folder: Folder) -> None:
    assert folder.target(config(top=PROVIDER, url=None, client="provider: sso")).client.provider == SSO


def test_a_clients_own_keys_win_over_its_providers(folder: Folder) -> None:
    own = "provider: sso\n    timeout: 20s\n    max_concurrency: 1\n    proxy: http://other:1\n    allow_http: false"
    provider = folder.target(config(top=PROVIDER, url="https://own/t", client=own)).client.provider
    assert provider == replace(
        SSO,
        token_url="https://own/t",
        proxy="http://other:1",
        timeout=20.0,
        max_concurrency=1,
        allow_http=False,
    )


def test_clients_that_name_the_same_endpoint_share_one_provider(folder: Folder) -> None:
    inline = folder.load(SMALLEST + SMALLEST.removeprefix("clients:\n").replace("dnb:", "other:"))
    assert [target.client.name for target in inline.targets] == ["dnb", "other"]
    assert inline.targets[0].client.provider == inline.targets[1].client.provider


def test_the_same_endpoint_with_other_settings_is_another_provider(folder: Folder) -> None:
    other = SMALLEST.removeprefix("clients:\n").replace("  dnb:\n", "  other:\n    timeout: 11s\n")
    first, second = folder.load(SMALLEST + other).targets
    assert first.client.provider != second.client.provider


def test_an_unknown_provider_is_an_error_that_suggests_a_similar_name(folder: Folder) -> None:
    assert folder.error(config(top=PROVIDER, url=None, client="provider: ssso")) == (
        "config.yaml:4:15: unknown provider 'ssso'; did you mean 'sso'?\n"
        "    4 |     provider: ssso\n"
        "      |               ^"
    )


@pytest.mark.parametrize(
    ("top", "said"),
    [
        (PROVIDER, "unknown provider 'entra'; expected one of 'sso'"),
        ("", "unknown provider 'entra'; no providers are configured"),
    ],
)
def test_an_unknown_provider_is_an_error_that_lists_the_providers(folder: Folder, top: str, said: str) -> None:
    assert said in folder.error(config(top=top, url=None, client="provider: entra"))


@pytest.mark.parametrize(
    ("top", "hidden"),
    [
        pytest.param("listn: {address: '127.0.0.1:9000'}", False, id="another key, mistyped"),
        pytest.param("something: 7", False, id="no key, and no providers"),
        pytest.param("provders: {entra: {token_url: 'https://h/t'}}", True, id="providers, mistyped"),
        pytest.param("inclde: [more.yaml]", True, id="include, mistyped"),
        pytest.param("endpoints: {entra: {token_url: 'https://h/t'}}", True, id="providers under another name"),
    ],
)
def test_an_unknown_key_hides_an_unknown_provider_only_if_that_may_be_below_it(
    folder: Folder, top: str, hidden: bool
) -> None:
    key, provider = folder.headlines(config(top=top, url=None, client="provider: entra")) + [""] * hidden
    assert f"unknown key '{top.partition(':')[0]}'" in key
    assert hidden or "unknown provider 'entra'" in provider


def test_a_client_without_an_endpoint_is_an_error_at_its_name(folder: Folder) -> None:
    assert folder.headlines(config(url=None)) == [
        "config.yaml:2:3: key 'token_url' is missing; or use issuer or provider instead"
    ]


def test_a_provider_without_an_endpoint_is_an_error_at_its_name_and_not_at_its_clients(folder: Folder) -> None:
    top = "providers:\n  p: {timeout: 1s}"
    assert folder.headlines(config(top=top, url=None, client="provider: p")) == [
        "config.yaml:2:3: key 'token_url' is missing; or use issuer instead"
    ]


@pytest.mark.parametrize(
    "url",
    [
        "https://h",
        "https://h/t?tenant=x",
        "HTTPS://h:8443/t",
        "https://[2001:db8::1]/t",
        "https://xn--bcher-kva.example/t",
    ],
)
def test_a_token_url_is_https(folder: Folder, url: str) -> None:
    assert folder.target(config(url=url)).client.provider.token_url == url


NOT_ASCII = "expected a URL in ASCII: the host as xn--…, and other characters encoded as %XX"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        pytest.param("https://user@h/t", "expected a URL without a user name and password", id="user"),
        pytest.param("https://user:pass@h/t", "expected a URL without a user name and password", id="password"),
        pytest.param("https://h/t#x", "expected a URL without a fragment (#…)", id="fragment"),
        pytest.param("'https://h/t#'", "expected a URL without a fragment (#…)", id="empty fragment"),
        pytest.param("https://h/a b", "expected a URL without spaces and line ends", id="space"),
        pytest.param('"https://h/t\\n"', "expected a URL without spaces and line ends", id="line end"),
        *(
            pytest.param(
                url,
                "expected a URL in which each placeholder (<…>, {…} or $NAME) has been replaced by its value",
                id=f"placeholder {url}",
            )
            for url in ("https://<tenant>.h/t", "https://h/{tenant}/t", "https://$HOST/t", "https://h/${TENANT}/t")
        ),
        pytest.param(
            "https://h/realms/x/.well-known/openid-configuration",
            "expected the token endpoint, found the URL of its metadata: use the key issuer instead",
            id="metadata",
        ),
        pytest.param("https://bücher.example/t", NOT_ASCII, id="not ASCII"),
        pytest.param("https://h.example.com/🔑", NOT_ASCII, id="beyond 16 bits"),
        pytest.param("ftp://h/t", "expected a URL, https://… or http://…", id="ftp"),
        pytest.param("h.example.com/t", "expected a URL, https://… or http://…", id="no scheme"),
        pytest.param("https:///t", "expected a URL, https://… or http://…", id="no host"),
        pytest.param("'https://[::1/t'", "expected a URL, https://… or http://…", id="open bracket"),
        pytest.param("https://h:65536/t", "expected a URL, https://… or http://…", id="port over 65535"),
        pytest.param("https://h:0/t", "expected a port other than 0", id="port 0"),
        pytest.param("5", "expected a URL, https://… or http://…, found a number", id="a number"),
    ],
)
def test_any_other_url_is_refused(folder: Folder, url: str, said: str) -> None:
    assert folder.headlines(config(url=url)) == [f"config.yaml:3:16: {said}"]


LOOPBACK = ["http://localhost/t", "http://LOCALHOST:80/t", "http://127.0.0.1:8080/t", "http://127.9.9.9/t",
            "http://[::1]/t"]  # fmt: skip


@pytest.mark.parametrize("url", LOOPBACK)
def test_plain_http_to_loopback_is_allowed_with_allow_http(folder: Folder, url: str) -> None:
    assert folder.target(config(url=url, client="allow_http: true")).client.provider.token_url == url


@pytest.mark.parametrize("url", LOOPBACK)
@pytest.mark.parametrize("client", ["", "allow_http: false"])
def test_plain_http_to_loopback_is_refused_without(folder: Folder, url: str, client: str) -> None:
    assert folder.headlines(config(url=url, client=client)) == [
        "config.yaml:3:16: plain http to loopback needs allow_http: true"
    ]


@pytest.mark.parametrize(
    "url",
    [
        "http://login.example.com/t",
        "http://localhost.example.com/t",
        "http://127.0.0.1.example.com/t",
        "http://10.0.0.1/t",
        "http://0.0.0.0/t",
        "http://2130706433/t",
    ],
)
def test_plain_http_to_another_machine_is_never_allowed(folder: Folder, url: str) -> None:
    assert folder.headlines(config(url=url, client="allow_http: true")) == [
        "config.yaml:3:16: expected https://…: plain http would send the secret unencrypted"
    ]


@pytest.mark.parametrize(
    ("top", "client", "errors"),
    [
        pytest.param("allow_http: true", "", [], id="the provider allows"),
        pytest.param("allow_http: true", "allow_http: false", ["config.yaml:4:5"], id="the client forbids"),
        pytest.param("allow_http: false", "", ["config.yaml:1:28"], id="the provider does not"),
        pytest.param("allow_http: true", "token_url: http://127.0.0.1/u", [], id="for the client's own URL too"),
    ],
)
def test_allow_http_of_a_provider_is_its_clients_too(folder: Folder, top: str, client: str, errors: list[str]) -> None:
    text = config(
        top=f"providers: {{p: {{token_url: 'http://127.0.0.1/t', {top}}}}}",
        url=None,
        client=f"provider: p\n    {client}",
    )
    if errors:
        assert [line.split(": ")[0] for line in folder.headlines(text)] == errors
    else:
        assert folder.load(text).targets


@pytest.mark.parametrize(
    "issuer",
    [
        pytest.param("https://h", id="only a host"),
        pytest.param("https://h/", id="a slash at the end is part of it"),
        pytest.param("https://h:8443/realms/acme", id="port and path"),
    ],
)
def test_an_issuer_replaces_the_token_url_and_is_kept_as_written(folder: Folder, issuer: str) -> None:
    client = folder.target(config(url=None, client=f"issuer: {issuer}")).client
    assert client.provider == Provider("h", token_url=None, issuer=issuer)


@pytest.mark.parametrize(
    ("issuer", "said"),
    [
        pytest.param("https://h/?tenant=x", "expected an issuer without a query (RFC 8414 section 2)", id="query"),
        pytest.param("https://h/?", "expected an issuer without a query (RFC 8414 section 2)", id="empty query"),
        *(
            pytest.param(f"https://h/{url}", "expected the issuer without /.well-known/…, which bearerd adds", id=url)
            for url in ("realms/x/.well-known/openid-configuration", ".well-known/oauth-authorization-server/x")
        ),
        pytest.param("https://h/#x", "expected a URL without a fragment (#…)", id="fragment"),
        pytest.param("'https://h/#'", "expected a URL without a fragment (#…)", id="empty fragment"),
        pytest.param("https://u:p@h/", "expected a URL without a user name and password", id="user"),
        pytest.param("h.example.com", "expected a URL, https://… or http://…", id="no scheme"),
        pytest.param("5", "expected a URL, https://… or http://…, found a number", id="a number"),
        pytest.param("http://h/", "expected https://…: plain http would send the secret unencrypted", id="plain http"),
        pytest.param("http://127.0.0.1/", "plain http to loopback needs allow_http: true", id="loopback by default"),
    ],
)
def test_any_other_issuer_is_refused(folder: Folder, issuer: str, said: str) -> None:
    assert folder.headlines(config(url=None, client=f"issuer: {issuer}")) == [f"config.yaml:3:13: {said}"]
    top = f"providers:\n  p:\n    issuer: {issuer}"
    assert folder.headlines(config(top=top)) == [f"config.yaml:3:13: {said}"]


def test_an_issuer_on_loopback_is_allowed_with_allow_http(folder: Folder) -> None:
    client = folder.target(config(url=None, client="issuer: http://[::1]:8080\n    allow_http: true")).client
    assert client.provider == Provider("::1", issuer="http://[::1]:8080", allow_http=True)


@pytest.mark.parametrize(
    ("top", "client", "url", "place"),
    [
        pytest.param("", "issuer: https://i", "https://h/t", "4:5", id="client"),
        pytest.param(
            "providers: {p: {token_url: https://h/t, issuer: https://i}}", "", "https://h/t", "1:41", id="provider"
        ),
        pytest.param(
            "providers: {p: {token_url: https://h/t}}", "provider: p\n    issuer: https://i", "https://h/u", "6:5",
            id="client with a provider",
        ),
    ],
)  # fmt: skip
def test_token_url_and_issuer_at_one_level_are_an_error_beside_others(
    folder: Folder, top: str, client: str, url: str, place: str
) -> None:
    text = config(top=top, client=client, url=url, token="scope: 1")
    assert folder.headlines(text)[0] == f"config.yaml:{place}: expected either token_url or issuer, not both"
    assert [said.rpartition(": ")[2] for said in folder.headlines(text)[1:]] == [
        "expected a scope, or a list of scopes, found a number"
    ]


@pytest.mark.parametrize(
    ("shared", "own", "token_url", "issuer"),
    [
        pytest.param("issuer: https://i", "token_url: https://h/t", "https://h/t", None, id="token_url over issuer"),
        pytest.param("token_url: https://h/t", "issuer: https://i", None, "https://i", id="issuer over token_url"),
        pytest.param("issuer: https://i", "issuer: https://own", None, "https://own", id="issuer over issuer"),
        pytest.param("issuer: https://i", "", None, "https://i", id="the provider's"),
    ],
)
def test_a_clients_endpoint_replaces_its_providers_and_nothing_else(
    folder: Folder, shared: str, own: str, token_url: str | None, issuer: str | None
) -> None:
    top = f"providers: {{p: {{{shared}, ca_file: /ca.pem}}}}"
    client = folder.target(config(top=top, url=None, client=f"provider: p\n    {own}")).client
    assert client.provider == Provider("p", token_url=token_url, issuer=issuer, ca_file="/ca.pem")
