from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from bearerd.config import models
from bearerd.config.document import MOST_PROBLEMS
from bearerd.config.files import MOST_BYTES, matches
from bearerd.config.load import load
from bearerd.config.source import MOST_NODES
from bearerd.errors import ConfigError, ConfigUnavailable
from bearerd.model import (
    Client,
    Config,
    Control,
    Jwt,
    JwtBearer,
    Listen,
    Logging,
    Output,
    Provider,
    ProxyLogin,
    RefreshBefore,
    Target,
)
from bearerd.terms import TEMPLATES, Auth, Hook, RateLimit, Reference

EXAMPLE = Path(__file__).parents[2] / "config.example.yaml"
SMALLEST = """\
clients:
  dnb:
    token_url: https://login.bisnode.com/sandbox/v1/token.oauth2
    client_id: 7e0c5a
    client_secret: {file: /etc/bearerd/dnb.secret}
    tokens:
      bci: {scope: bci}
"""


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


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


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


# -- valid configs -------------------------------------------------------------------


def test_the_smallest_config_is_all_that_is_needed(folder: Folder) -> None:
    assert folder.load(SMALLEST) == Config(
        directory="/run/bearerd",
        state_directory="/run/bearerd/.bearerd",
        control=Control("/run/bearerd/.bearerd/control.sock", mode=0o660),
        listen=None,
        directory_mode=0o750,
        group=None,
        targets=(
            Target(
                client=Client(
                    name="dnb",
                    provider=Provider(
                        name="login.bisnode.com",
                        token_url="https://login.bisnode.com/sandbox/v1/token.oauth2",
                        issuer=None,
                        allow_http=False,
                        ca_file=None,
                        proxy=None,
                        timeout=10.0,
                        max_concurrency=8,
                    ),
                    client_id="7e0c5a",
                    client_secret=(Reference("file", "/etc/bearerd/dnb.secret", permissions="owner"),),
                    auth="client_secret_basic",
                    basic_encoding="compatible",
                    private_key=None,
                    certificate=None,
                    assertion=None,
                    assertion_type="urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
                    jwt=Jwt(key_id=None, algorithm=None, audience=None),
                    grant_type="client_credentials",
                    jwt_bearer=None,
                    scope_separator=" ",
                    rate_limits=(),
                ),
                name="bci",
                scope="bci",
                parameters=(),
                strict_scope=False,
                refresh_before=RefreshBefore(share=0.2),
                default_lifetime=3600.0,
                on_expiry="keep",
                outputs=(Output("/run/bearerd/dnb/bci", "raw", mode=0o640, variable="DNB_BCI_TOKEN"),),
                required=True,
                on_change=(),
                on_failure=(),
            ),
        ),
        log=Logging(level="info", format="text"),
        sources=(str(folder.path / "config.yaml"),),
    )


def test_output_and_log_settings_are_read(folder: Folder) -> None:
    found = folder.load(
        "output: {directory: /srv/tokens/, directory_mode: '2750', mode: '0600', owner: 0, group: www-data,"
        " on_expiry: remove}\n"
        "log: {level: debug, format: json}\n" + SMALLEST
    )
    assert (found.directory, found.directory_mode, found.group) == ("/srv/tokens", 0o2750, "www-data")
    assert found.log == Logging(level="debug", format="json")
    assert found.targets[0].on_expiry == "remove"
    assert found.targets[0].outputs == (
        Output("/srv/tokens/dnb/bci", mode=0o600, owner="0", group="www-data", variable="DNB_BCI_TOKEN"),
    )


def test_each_format_has_its_default_path_and_its_own_settings(folder: Folder) -> None:
    files = (
        "files: [{format: raw, newline: true}, {format: json, mode: '600', owner: root, group: 7}, {format: header},"
        " {format: env}, {format: env, name: T, path: a/./b}, {format: raw, path: /x/y, max_staleness: 1m}]"
    )
    name = "DNB_BCI_TOKEN"
    assert folder.target(config(token=files)).outputs == (
        Output("/run/bearerd/dnb/bci", "raw", newline=True, variable=name),
        Output("/run/bearerd/dnb/bci.json", "json", mode=0o600, owner="root", group="7", variable=name),
        Output("/run/bearerd/dnb/bci.header", "header", variable=name),
        Output("/run/bearerd/dnb/bci.env", "env", variable=name),
        Output("/run/bearerd/a/b", "env", variable="T"),
        Output("/x/y", "raw", max_staleness=60.0, variable=name),
    )


@pytest.mark.parametrize(
    ("secret", "reference"),
    [
        ("{file: /s, permissions: group}", Reference("file", "/s", permissions="group")),
        ("{file: /s, permissions: any}", Reference("file", "/s", permissions="any")),
        ("{env: DNB_SECRET}", Reference("env", "DNB_SECRET")),
        ("{credential: dnb.secret}", Reference("credential", "dnb.secret")),
        ("{command: [/bin/pass, show, dnb]}", Reference("command", "/bin/pass", argv=("/bin/pass", "show", "dnb"))),
    ],
)
def test_a_secret_is_a_reference_of_one_kind(folder: Folder, secret: str, reference: Reference) -> None:
    client = folder.target(config().replace("{file: /s}", secret)).client
    assert client.client_secret == (reference,)
    # The id may be a reference with the same keys.
    assert folder.target(config().replace("7e0c5a", secret)).client.client_id == reference


@pytest.mark.parametrize(
    ("key", "nearest", "middle", "farthest"),
    [
        pytest.param(
            "files",
            ("[{format: json}]", ["json"]),
            ("[{format: env}]", ["env"]),
            ("[{format: header}, {format: raw}]", ["header", "raw"]),
            id="files",
        ),
        pytest.param(
            "refresh_before",
            ("30s", RefreshBefore(seconds=30)),
            ("10%", RefreshBefore(share=0.1)),
            ("5m", RefreshBefore(seconds=300)),
            id="refresh_before",
        ),
        pytest.param("default_lifetime", ("1m", 60), ("2m", 120), ("3m", 180), id="default_lifetime"),
        pytest.param("strict_scope", ("false", False), ("true", True), ("false", False), id="strict_scope"),
    ],
)
def test_the_nearest_level_of_an_inherited_key_wins(
    folder: Folder, key: str, nearest: tuple[str, Any], middle: tuple[str, Any], farthest: tuple[str, Any]
) -> None:
    def found(**where: str) -> Any:
        target = folder.target(config(**where))
        return [file.format for file in target.outputs] if key == "files" else getattr(target, key)

    levels = {
        "token": f"{key}: {nearest[0]}",
        "client": f"{key}: {middle[0]}",
        "top": f"{key}: {farthest[0]}",
    }
    assert found(**levels) == nearest[1]
    assert found(client=levels["client"], top=levels["top"]) == middle[1]
    assert found(top=levels["top"]) == farthest[1]
    assert found(token=levels["token"], top=levels["top"]) == nearest[1]


def test_parameters_of_client_and_token_are_merged_and_the_token_wins(folder: Folder) -> None:
    target = folder.target(
        config(client="parameters: {audience: a, resource: [r1, r2]}", token="parameters: {audience: b, x: ''}")
    )
    assert target.parameters == (("audience", "b"), ("resource", "r1"), ("resource", "r2"), ("x", ""))


@pytest.mark.parametrize(
    ("scope", "text"),
    [
        ("bci", "bci"),
        ("bci companies", "bci companies"),
        ("[bci, companies]", "bci companies"),
        ("[a b, c]", "a b c"),
        ("https://graph.example.com/.default", "https://graph.example.com/.default"),
        ("[]", ""),
    ],
)
def test_a_scope_is_a_string_or_a_list(folder: Folder, scope: str, text: str) -> None:
    assert folder.target(SMALLEST.replace("{scope: bci}", f"{{scope: {scope}}}")).scope == text


def test_a_token_needs_no_scope(folder: Folder) -> None:
    assert folder.target(config()).scope == ""


@pytest.mark.parametrize(
    ("duration", "seconds"),
    [("1ms", 0.001), ("500ms", 0.5), ("10s", 10), ("15m", 900), ("1h", 3600), ("2d", 172800), ("1.5h", 5400),
     ("3650d", 315360000)],
)  # fmt: skip
def test_a_duration_is_a_number_with_its_unit(folder: Folder, duration: str, seconds: float) -> None:
    assert folder.target(config(token=f"default_lifetime: {duration}")).default_lifetime == seconds


@pytest.mark.parametrize(
    ("given_lead", "lead"),
    [
        ("0.1%", RefreshBefore(share=0.001)),
        ("20%", RefreshBefore(share=0.2)),
        ("50%", RefreshBefore(share=0.5)),
        ("60s", RefreshBefore(seconds=60)),
        ("15m", RefreshBefore(seconds=900)),
    ],
)
def test_a_lead_is_a_share_or_a_duration(folder: Folder, given_lead: str, lead: RefreshBefore) -> None:
    assert folder.target(config(token=f"refresh_before: {given_lead}")).refresh_before == lead


@pytest.mark.parametrize(
    ("rate", "limit"),
    [("10/s", RateLimit(10, 1)), ("10/8h", RateLimit(10, 28800)), ("1/500ms", RateLimit(1, 0.5)),
     ("999999999/d", RateLimit(999999999, 86400))],
)  # fmt: skip
def test_a_rate_limit_is_a_number_of_requests_per_time(folder: Folder, rate: str, limit: RateLimit) -> None:
    assert folder.target(config(client=f"rate_limit: {rate}")).client.rate_limits == (("client-dnb", limit),)


def test_a_client_counts_against_its_providers_limit_and_its_own(folder: Folder) -> None:
    top = "providers: {p: {token_url: https://h/t, rate_limit: 10/s}}"
    both = folder.target(config(top=top, url=None, client="provider: p\n    rate_limit: 5/m"))
    assert both.client.rate_limits == (("provider-p", RateLimit(10, 1)), ("client-dnb", RateLimit(5, 60)))
    assert folder.target(config(top=top, url=None, client="provider: p")).client.rate_limits == (
        ("provider-p", RateLimit(10, 1)),
    )


@pytest.mark.parametrize(
    ("mode", "bits"), [("'0640'", 0o640), ("'640'", 0o640), ("'0000'", 0), ("'0777'", 0o777), ('"0604"', 0o604)]
)
def test_a_mode_is_octal_in_quotes(folder: Folder, mode: str, bits: int) -> None:
    assert folder.target(config(top=f"output: {{mode: {mode}}}")).outputs[0].mode == bits


# -- providers ---------------------------------------------------------------------------------------

PROVIDER = (
    "providers: {sso: {token_url: https://sso.example.com/t, ca_file: /ca.pem, proxy: 'http://proxy:3128',"
    " timeout: 5s, max_concurrency: 2, allow_http: true}}"
)
NO_LOGIN = "a URL without a user name and password: write {url: …, username: …, password: {file: …}} as the proxy"
A_PROXY = "expected a URL, http://… or https://… or socks5://… or socks5h://…"
USER = "username: u, password: {file: /p}"
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


# -- authentication --------------------------------------------------------------------

SECRET = "client_id: a\nclient_secret: {file: /s}"
KEY = "client_id: a\nprivate_key: {file: /k}"
WANTED = (
    "expected a reference such as {file: /etc/bearerd/client.secret}, {env: NAME}, {credential: NAME} or "
    "{command: [argv…]}, never the secret itself"
)
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
READY = replace(BASE, client_id="", assertion=Reference("file", "/a"))
OPEN = replace(BASE, client_secret=(Reference("file", "/s"),))


@pytest.mark.parametrize(
    ("auth", "client"),
    [
        ("client_secret_basic", OPEN),
        ("client_secret_post", OPEN),
        ("client_secret_jwt", OPEN),
        ("private_key_jwt", SIGNED),
        ("tls_client_auth", PRESENTED),
        ("self_signed_tls_client_auth", PRESENTED),
        ("assertion", READY),
        ("none", replace(BASE, client_id="")),
    ],
)
def test_the_required_keys_of_each_auth_are_enough(folder: Folder, auth: Auth, client: Client) -> None:
    assert folder.target(config(credentials=WAYS[auth])).client == replace(client, auth=auth)


@pytest.mark.parametrize(
    ("auth", "more", "client"),
    [
        pytest.param("client_secret_basic", "basic_encoding: raw", replace(OPEN, basic_encoding="raw"), id="basic"),
        pytest.param(
            "client_secret_jwt",
            "key_id: k1\nalgorithm: HS512\nassertion_audience: https://a",
            replace(OPEN, jwt=Jwt("k1", "HS512", "https://a")),
            id="client_secret_jwt",
        ),
        pytest.param(
            "private_key_jwt",
            "certificate: {file: /c, permissions: owner}\nkey_id: k1\nalgorithm: PS256\nassertion_audience: x",
            replace(CERTIFIED, jwt=Jwt("k1", "PS256", "x")),
            id="private_key_jwt",
        ),
        pytest.param(
            "assertion",
            "client_id: {env: ID}\nassertion_type: urn:x",
            replace(READY, client_id=Reference("env", "ID"), assertion_type="urn:x"),
            id="assertion",
        ),
        pytest.param("none", "client_id: a", BASE, id="none"),
    ],
)
def test_the_optional_keys_of_each_auth_are_read(folder: Folder, auth: Auth, more: str, client: Client) -> None:
    text = config(credentials=f"{WAYS[auth]}\n{more}")
    assert folder.target(text).client == replace(client, auth=auth)


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


NEEDED = [
    (auth, line.partition(":")[0])
    for auth, lines in WAYS.items()
    for line in lines.splitlines()
    if not line.startswith("auth")
]


@pytest.mark.parametrize(("auth", "key"), NEEDED)
def test_a_required_key_of_an_auth_that_is_missing_is_an_error(folder: Folder, auth: str, key: str) -> None:
    without = [line for line in WAYS[auth].splitlines() if not line.startswith(f"{key}:")]
    assert folder.headlines(config(credentials="\n".join(without))) == [f"config.yaml:2:3: key '{key}' is missing"]


@pytest.mark.parametrize(
    ("auth", "keys"),
    [
        ("client_secret_basic", ["client_id", "client_secret"]),
        ("client_secret_jwt", ["client_id", "client_secret"]),
        ("private_key_jwt", ["client_id", "private_key"]),
        ("tls_client_auth", ["certificate", "client_id", "private_key"]),
        ("assertion", ["assertion"]),
    ],
)
def test_all_missing_keys_are_reported_at_once(folder: Folder, auth: str, keys: list[str]) -> None:
    assert sorted(folder.headlines(config(credentials=f"auth: {auth}"))) == [
        f"config.yaml:2:3: key '{key}' is missing" for key in keys
    ]


WITH_KEY = "private_key_jwt, tls_client_auth or self_signed_tls_client_auth"
# The auths that a key applies to, as the error lists them. Those of the jwt-bearer grant are below.
USED_BY: dict[str, tuple[str, set[str], str]] = {
    "client_secret": (
        "{file: /s}",
        {"client_secret_basic", "client_secret_post", "client_secret_jwt"},
        "client_secret_basic, client_secret_post or client_secret_jwt",
    ),
    "basic_encoding": ("raw", {"client_secret_basic"}, "client_secret_basic"),
    "private_key": (
        "{file: /k}",
        {"private_key_jwt", "tls_client_auth", "self_signed_tls_client_auth"},
        f"{WITH_KEY}; for a client certificate of the connection use tls_private_key",
    ),
    "certificate": (
        "{file: /c}",
        {"private_key_jwt", "tls_client_auth", "self_signed_tls_client_auth"},
        f"{WITH_KEY}; for a client certificate of the connection use tls_certificate",
    ),
    "assertion": ("{file: /a}", {"assertion"}, "assertion"),
    "assertion_type": ("urn:x", {"assertion"}, "assertion"),
    "key_id": ("k1", {"private_key_jwt", "client_secret_jwt"}, "private_key_jwt"),
    "algorithm": ("HS256", {"private_key_jwt", "client_secret_jwt"}, "private_key_jwt or client_secret_jwt"),
    "assertion_audience": (
        "https://a",
        {"private_key_jwt", "client_secret_jwt"},
        "private_key_jwt or client_secret_jwt",
    ),
}


@pytest.mark.parametrize(
    ("auth", "key"), [(auth, key) for key, (_, users, _) in USED_BY.items() for auth in WAYS if auth not in users]
)
def test_a_key_that_does_not_apply_to_the_auth_is_an_error(folder: Folder, auth: str, key: str) -> None:
    value, _, auths = USED_BY[key]
    text = config(credentials=f"{WAYS[auth]}\n{key}: {value}")
    line = 4 + len(WAYS[auth].splitlines())
    assert folder.headlines(text) == [f"config.yaml:{line}:5: {key} does not apply to auth {auth}, only to {auths}"]


RSA_AND_EC = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
HMAC = ["HS256", "HS384", "HS512"]
# A grant that is signed too is signed with the private key, and the algorithm has to suit that key.
SIGNED_BESIDES = (
    f"{WAYS['client_secret_jwt']}\ngrant_type: urn:ietf:params:oauth:grant-type:jwt-bearer\nprivate_key: {{file: /k}}"
)


@pytest.mark.parametrize("algorithm", [*RSA_AND_EC, *HMAC])
@pytest.mark.parametrize(
    ("credentials", "right", "said"),
    [
        pytest.param(
            WAYS["client_secret_jwt"], HMAC, "expected an algorithm for a secret, such as HS256", id="client_secret_jwt"
        ),
        pytest.param(
            WAYS["private_key_jwt"],
            RSA_AND_EC,
            "expected an algorithm for a private key, such as RS256 or ES256",
            id="private_key_jwt",
        ),
        pytest.param(
            SIGNED_BESIDES,
            RSA_AND_EC,
            "expected an algorithm for a private key, such as RS256 or ES256",
            id="client_secret_jwt with a grant that is signed",
        ),
    ],
)
def test_an_algorithm_must_suit_the_secret_or_key(
    folder: Folder, algorithm: str, credentials: str, right: list[str], said: str
) -> None:
    text = config(credentials=f"algorithm: {algorithm}\n{credentials}")
    if algorithm in right:
        assert folder.target(text).client.jwt.algorithm == algorithm
    else:
        assert folder.headlines(text) == [f"config.yaml:4:5: {said}"]


@pytest.mark.parametrize(
    ("algorithm", "hint"),
    [("RS265", "RS256"), ("none", None), ("rs256", "RS256"), ("ES256K", "ES256")],
)
@pytest.mark.parametrize("auth", ["private_key_jwt", "client_secret_jwt"])
def test_any_other_algorithm_is_refused_once(folder: Folder, auth: str, algorithm: str, hint: str | None) -> None:
    known = ", ".join(f"'{name}'" for name in [*RSA_AND_EC, *HMAC[:-1]])
    said = f"unknown value; did you mean '{hint}'?" if hint else f"expected {known} or 'HS512'"
    assert folder.headlines(config(credentials=f"algorithm: {algorithm}\n{WAYS[auth]}")) == [
        f"config.yaml:4:16: {said}"
    ]


def test_conflicting_keys_and_wrong_values_are_reported_together(folder: Folder) -> None:
    text = """\
clients:
  dnb:
    issuer: https://i
    token_url: https://h/t
    auth: tls_client_auth
    basic_encoding: raw
    client_secret: [{file: /s}, hunter2]
    key_id: 5
    scope_in: body
    timeout: 5
    tokens: {bci: {scope: 1}}
"""
    assert folder.headlines(text) == [
        "config.yaml:2:3: key 'client_id' is missing",
        "config.yaml:2:3: key 'private_key' is missing",
        "config.yaml:2:3: key 'certificate' is missing",
        "config.yaml:3:5: expected either token_url or issuer, not both",
        ("config.yaml:6:5: basic_encoding does not apply to auth tls_client_auth, only to client_secret_basic"),
        (
            "config.yaml:7:5: client_secret does not apply to auth tls_client_auth, only to "
            "client_secret_basic, client_secret_post or client_secret_jwt"
        ),
        f"config.yaml:7:33: {WANTED}",
        "config.yaml:8:5: key_id does not apply to auth tls_client_auth, only to private_key_jwt",
        "config.yaml:8:13: expected text in quotes, found a number",
        (
            "config.yaml:9:5: scope_in does not apply to auth tls_client_auth, only to private_key_jwt or "
            "client_secret_jwt"
        ),
        "config.yaml:9:15: expected 'assertion' or 'form'",
        "config.yaml:10:14: a duration needs a unit: write 5s if these are seconds",
        "config.yaml:11:27: expected a scope, or a list of scopes, found a number",
    ]


@pytest.mark.parametrize(
    ("typo", "meant", "credentials"),
    [
        ("client_secrt", "client_secret", WAYS["client_secret_post"]),
        ("clientid", "client_id", WAYS["client_secret_post"]),
        ("private_kye", "private_key", WAYS["private_key_jwt"]),
        ("certifcate", "certificate", WAYS["tls_client_auth"]),
        ("assertoin", "assertion", WAYS["assertion"]),
        # Keys that would be missing, or would not apply, with another auth.
        ("atuh", "auth", WAYS["tls_client_auth"]),
        ("grant_tpye", "grant_type", SIGNED_BESIDES),
    ],
)
def test_a_mistyped_key_is_not_reported_as_missing_too(folder: Folder, typo: str, meant: str, credentials: str) -> None:
    text = config(credentials=re.sub(rf"^{meant}:", f"{typo}:", credentials, flags=re.MULTILINE))
    (headline,) = folder.headlines(text)
    assert re.fullmatch(rf"config\.yaml:\d:5: unknown key '{typo}'; did you mean '{meant}'\?", headline)


@pytest.mark.parametrize(
    ("credentials", "line", "typo"),
    [
        pytest.param("auth: none\nclient_secrt: {file: /s}", 5, "client_secrt", id="what is not used either"),
        pytest.param("auth: none\natuh: private_key_jwt", 5, "atuh", id="beside the right one, which counts"),
    ],
)
def test_a_mistyped_key_is_one_error(folder: Folder, credentials: str, line: int, typo: str) -> None:
    (headline,) = folder.headlines(config(credentials=credentials))
    assert headline.startswith(f"config.yaml:{line}:5: unknown key '{typo}'; did you mean ")


def test_a_mistyped_endpoint_is_not_reported_as_missing_too(folder: Folder) -> None:
    assert folder.headlines(
        config(url=None, client="isuer: https://i", top="providers: {p: {tokenurl: https://h}}")
    ) == [
        "config.yaml:1:17: unknown key 'tokenurl'; did you mean 'token_url'?",
        "config.yaml:4:5: unknown key 'isuer'; did you mean 'issuer'?",
    ]


def test_an_unknown_auth_causes_no_other_errors(folder: Folder) -> None:
    (headline,) = folder.headlines(config(credentials="auth: digest\nkey_id: k1"))
    assert headline.startswith("config.yaml:4:11: expected 'client_secret_basic', ")


@pytest.mark.parametrize("count", [1, 2, 8])
def test_a_secret_may_be_a_list_of_up_to_eight(folder: Folder, count: int) -> None:
    listed = ", ".join(f"{{file: /s{index}}}" for index in range(count))
    client = folder.target(config(credentials=f"client_id: a\nclient_secret: [{listed}]")).client
    # Newest first, in the order of the file.
    assert client.client_secret == tuple(Reference("file", f"/s{index}") for index in range(count))


def test_the_kinds_of_references_may_be_mixed_in_a_list(folder: Folder) -> None:
    credentials = "client_id: a\nclient_secret:\n  - {env: NEW}\n  - {file: /s, permissions: group}"
    assert folder.target(config(credentials=credentials)).client.client_secret == (
        Reference("env", "NEW"),
        Reference("file", "/s", permissions="group"),
    )


@pytest.mark.parametrize(
    ("secret", "column", "said"),
    [
        pytest.param("[]", 20, "expected at least one entry", id="none"),
        pytest.param(f"[{', '.join(['{file: /s}'] * 9)}]", 20, "expected at most 8 entries", id="nine"),
        pytest.param("[{file: /s}, hunter2]", 33, WANTED, id="text in it"),
        pytest.param("[{file: /s}, 5]", 33, WANTED, id="a number in it"),
        pytest.param("[{file: /s}, [{file: /t}]]", 33, WANTED, id="a list in it"),
        pytest.param(
            "[{file: /s}, {env: A-B}]",
            39,
            "expected text of letters, digits and '_', not beginning with a digit",
            id="a name",
        ),
        pytest.param("[{file: /s}, {}]", 33, "expected exactly one of file, env, credential, command", id="nothing"),
        pytest.param(
            "[{file: /s}, !x y]",
            33,
            "tags (!…) are not supported: a text that begins with ! must be in quotes",
            id="what is no YAML of ours",
        ),
    ],
)
def test_an_error_in_a_list_of_secrets_names_the_item_without_its_line(
    folder: Folder, secret: str, column: int, said: str
) -> None:
    text = config(credentials=f"client_id: a\nclient_secret: {secret}")
    assert folder.error(text) == f"config.yaml:5:{column}: {said}"


@pytest.mark.parametrize(
    ("key", "credentials"),
    [
        ("private_key", "client_id: a\nauth: private_key_jwt"),
        ("certificate", f"{KEY}\nauth: private_key_jwt"),
        ("assertion", "auth: assertion"),
        ("subject_token", SECRET),
    ],
)
@pytest.mark.parametrize("value", ["hunter2", "[{file: /k}]", "5"])
def test_other_references_are_not_lists(folder: Folder, key: str, credentials: str, value: str) -> None:
    (headline,) = folder.headlines(config(credentials=f"{key}: {value}\n{credentials}"))
    assert headline == f"config.yaml:4:{7 + len(key)}: {WANTED}"


def test_a_subject_token_is_a_parameter_of_each_token_and_stays_a_reference(folder: Folder) -> None:
    text = config(client="subject_token: {file: /t, permissions: any}", token="parameters: {audience: x}")
    assert folder.target(text).parameters == (
        ("audience", "x"),
        ("subject_token", Reference("file", "/t", permissions="any")),
    )


# -- the grant ---------------------------------------------------------------------------------------


def test_any_grant_type_is_accepted(folder: Folder) -> None:
    client = folder.target(config(client="grant_type: account_credentials")).client
    assert client.grant_type == "account_credentials"
    assert client.jwt_bearer is None


@pytest.mark.parametrize("separator", [",", " ", "%20;", "|"])
def test_a_scope_separator_belongs_to_the_client_and_does_not_change_the_scope(folder: Folder, separator: str) -> None:
    target = folder.target(config(client=f"scope_separator: '{separator}'", token="scope: [a, b]"))
    assert target.client.scope_separator == separator
    assert target.scope == "a b"


@pytest.mark.parametrize(
    ("separator", "found"),
    [("''", ""), ("'12345'", ""), ("'ä'", ""), ('"\\t"', ""), ('"\\n"', ""), ("5", ", found a number"),
     ("[',']", ", found a list")],
    ids=["empty", "five", "not ASCII", "tab", "line end", "a number", "a list"],
)  # fmt: skip
def test_any_other_scope_separator_is_refused(folder: Folder, separator: str, found: str) -> None:
    assert folder.headlines(config(client=f"scope_separator: {separator}")) == [
        f'config.yaml:4:22: expected a separator of 1 to 4 printable characters, such as " " or ","{found}'
    ]


JWT_BEARER = "grant_type: urn:ietf:params:oauth:grant-type:jwt-bearer"
# The private key signs the grant, whatever authenticates the client.
SIGNING = f"{JWT_BEARER}\nprivate_key: {{file: /k}}\n"


def test_the_jwt_bearer_grant_needs_only_a_private_key(folder: Folder) -> None:
    client = folder.target(config(credentials=SIGNING + SECRET)).client
    assert client == replace(
        OPEN,
        grant_type="urn:ietf:params:oauth:grant-type:jwt-bearer",
        private_key=Reference("file", "/k"),
        jwt_bearer=JwtBearer(issuer=None, subject=None),
    )


def test_all_keys_of_its_assertion_are_read(folder: Folder) -> None:
    more = """\
auth: none
assertion_issuer: svc@example.com
assertion_subject: admin@example.com
assertion_claims: {role: reader}
scope_in: form
certificate: {file: /c}
key_id: k1
algorithm: ES256
assertion_audience: https://a
"""
    assert folder.target(config(credentials=SIGNING + more)).client == replace(
        CERTIFIED,
        client_id="",
        auth="none",
        grant_type="urn:ietf:params:oauth:grant-type:jwt-bearer",
        jwt=Jwt("k1", "ES256", "https://a", '{"role": "reader"}', "form"),
        jwt_bearer=JwtBearer("svc@example.com", "admin@example.com"),
    )


@pytest.mark.parametrize(
    ("credentials", "scope_in", "in_assertion"),
    [
        pytest.param(SIGNING + SECRET, "", True, id="the grant"),
        pytest.param(SIGNING + SECRET, "form", False, id="the grant, scope in the form"),
        pytest.param(WAYS["private_key_jwt"], "", False, id="the client's assertion"),
        pytest.param(WAYS["private_key_jwt"], "assertion", True, id="the client's assertion, scope in it"),
    ],
)
def test_the_scope_is_in_the_grants_assertion_and_not_in_the_clients(
    folder: Folder, credentials: str, scope_in: str, in_assertion: bool
) -> None:
    more = f"\nscope_in: {scope_in}" if scope_in else ""
    assert folder.target(config(credentials=credentials + more)).client.scope_in_assertion is in_assertion


def test_claims_of_a_token_are_added_to_those_of_its_client(folder: Folder) -> None:
    credentials = f"{WAYS['private_key_jwt']}\nassertion_claims: {{a: 1, purposeId: x}}"
    target = folder.target(config(credentials=credentials, token="assertion_claims: {purposeId: y, b: [2]}"))
    assert json.loads(target.claims) == {"a": 1, "purposeId": "y", "b": [2]}
    assert json.loads(folder.target(config(credentials=credentials)).claims) == {"a": 1, "purposeId": "x"}


def test_claims_of_a_token_need_an_assertion(folder: Folder) -> None:
    assert folder.headlines(config(token="assertion_claims: {a: b}")) == [
        (
            "config.yaml:7:13: assertion_claims needs an assertion: auth private_key_jwt or client_secret_jwt, or the "
            "jwt-bearer grant"
        )
    ]
    (headline,) = folder.headlines(config(credentials=WAYS["private_key_jwt"], token="assertion_claims: {iss: x}"))
    assert "claim 'iss' cannot be set here: it is the client id" in headline


@pytest.mark.parametrize("key", ["assertion_claims: {a: b}", "scope_in: form"])
@pytest.mark.parametrize("auth", ["client_secret_post", "tls_client_auth", "none"])
def test_claims_of_a_client_need_an_assertion(folder: Folder, key: str, auth: str) -> None:
    (headline,) = folder.headlines(config(credentials=f"{key}\n{WAYS[auth]}"))
    name = key.partition(":")[0]
    assert headline == (
        f"config.yaml:4:5: {name} does not apply to auth {auth}, only to private_key_jwt or client_secret_jwt"
    )


ASSERTED = {"assertion_issuer": "x", "assertion_subject": "x"}


@pytest.mark.parametrize("key", ASSERTED)
@pytest.mark.parametrize(
    "credentials",
    [
        pytest.param(SECRET, id="another grant"),
        pytest.param(WAYS["private_key_jwt"], id="another grant with a key"),
        pytest.param(
            f"{SECRET}\n{JWT_BEARER}\nparameters: {{assertion: {{file: /a}}}}", id="an assertion that is ready"
        ),
    ],
)
def test_keys_of_an_assertion_need_one_that_bearerd_signs(folder: Folder, key: str, credentials: str) -> None:
    assert folder.headlines(config(credentials=f"{key}: {ASSERTED[key]}\n{credentials}")) == [
        (
            f"config.yaml:4:5: {key} only applies to grant_type urn:ietf:params:oauth:grant-type:jwt-bearer with a "
            "private_key"
        )
    ]


def test_signing_keys_do_not_apply_to_an_existing_assertion(folder: Folder) -> None:
    credentials = f"certificate: {{file: /c}}\nkey_id: k1\nalgorithm: RS256\nassertion_audience: x\n{SECRET}"
    text = config(credentials=f"{credentials}\n{JWT_BEARER}\nparameters: {{assertion: {{file: /a}}}}")
    assert [line.split(" does not apply to auth client_secret_basic")[0] for line in folder.headlines(text)] == [
        "config.yaml:4:5: certificate",
        "config.yaml:5:5: key_id",
        "config.yaml:6:5: algorithm",
        "config.yaml:7:5: assertion_audience",
    ]


TWO_TOKENS = "    tokens:\n      a: {{{}}}\n      b: {{{}}}\n"
ITS_OWN = "parameters: {assertion: {file: /a}}"
NOT_READY = "config.yaml:4:5: this grant needs private_key to sign an assertion, or parameters: {assertion: {file: …}}"
NOT_BOTH = (
    "config.yaml:5:5: expected either private_key, which signs an assertion, or parameters.assertion, which is one"
)


@pytest.mark.parametrize(
    ("credentials", "tokens", "errors"),
    [
        pytest.param(JWT_BEARER, ("", ""), [NOT_READY], id="neither"),
        pytest.param(JWT_BEARER, (ITS_OWN, ""), [NOT_READY], id="one token has its own"),
        pytest.param(JWT_BEARER, (ITS_OWN, ITS_OWN), [], id="each token has its own"),
        pytest.param(f"{JWT_BEARER}\n{ITS_OWN}", ("", ""), [], id="the client has one"),
        pytest.param(f"{JWT_BEARER}\n{ITS_OWN}", ("", ITS_OWN), [], id="the client has one and a token another"),
        pytest.param(f"{JWT_BEARER}\nparameters: {{x: y}}", ("", ""), [NOT_READY], id="other parameters"),
        pytest.param(SIGNING, ("", "parameters: {x: y}"), [], id="a key"),
        pytest.param(f"{SIGNING}{ITS_OWN}", ("", ""), [NOT_BOTH], id="a key and the client's"),
        pytest.param(SIGNING, ("", ITS_OWN), [NOT_BOTH], id="a key and a token's"),
    ],
)
def test_the_jwt_bearer_grant_has_a_key_or_an_assertion_for_each_token(
    folder: Folder, credentials: str, tokens: tuple[str, str], errors: list[str]
) -> None:
    text = config(credentials=f"{credentials}\n{SECRET}").partition("    tokens:")[0] + TWO_TOKENS.format(*tokens)
    if errors:
        assert folder.headlines(text) == errors
    else:
        signed = {target.client.jwt_bearer is not None for target in folder.load(text).targets}
        assert signed == {"private_key" in credentials}


@pytest.mark.parametrize("auth", ["auth: none", "auth: assertion\nassertion: {file: /a}"])
def test_an_assertion_that_bearerd_signs_names_its_issuer(folder: Folder, auth: str) -> None:
    assert folder.headlines(config(credentials=SIGNING + auth)) == [
        "config.yaml:4:5: this grant needs client_id or assertion_issuer as the issuer of the assertion"
    ]
    assert folder.load(config(credentials=f"{SIGNING}{auth}\nclient_id: a")).targets
    assert folder.load(config(credentials=f"{SIGNING}{auth}\nassertion_issuer: a")).targets
    # An existing assertion names it already.
    assert folder.load(config(credentials=f"{JWT_BEARER}\n{ITS_OWN}\n{auth}")).targets


@pytest.mark.parametrize(
    ("claims", "text"),
    [
        pytest.param("{}", {}, id="none"),
        pytest.param(
            "{a: b, n: 1, f: 1.5, t: true, u: ''}", {"a": "b", "n": 1, "f": 1.5, "t": True, "u": ""}, id="flat"
        ),
        pytest.param(
            "{a: {b: [1, x, {c: [true]}], iss: x}, l: [], m: {}}",
            {"a": {"b": [1, "x", {"c": [True]}], "iss": "x"}, "l": [], "m": {}},
            id="nested, where any name will do",
        ),
        pytest.param("{nbf: 1, 'https://example.com/ä': ö}", {"nbf": 1, "https://example.com/ä": "ö"}, id="any name"),
    ],
)
def test_claims_are_kept_as_json(folder: Folder, claims: str, text: Any) -> None:
    client = folder.target(config(credentials=f"{SIGNING}{SECRET}\nassertion_claims: {claims}")).client
    assert json.loads(client.jwt.claims) == text


def test_claims_that_bearerd_sets_are_refused_each_with_its_reason(folder: Folder) -> None:
    claims = "assertion_claims:\n  iss: x\n  sub: x\n  aud: x\n  scope: x\n  exp: 1\n  iat: 1\n  jti: x\n"
    assert folder.headlines(config(credentials=claims + SIGNING + SECRET)) == [
        (
            "config.yaml:5:7: claim 'iss' cannot be set here: it is the client id; in the jwt-bearer grant, use the "
            "key assertion_issuer"
        ),
        (
            "config.yaml:6:7: claim 'sub' cannot be set here: it is the client id; in the jwt-bearer grant, use the "
            "key assertion_subject"
        ),
        "config.yaml:7:7: claim 'aud' cannot be set here: use the key assertion_audience",
        "config.yaml:8:7: claim 'scope' cannot be set here: use the key scope, and scope_in: assertion",
        "config.yaml:9:7: claim 'exp' cannot be set here: bearerd sets it",
        "config.yaml:10:7: claim 'iat' cannot be set here: bearerd sets it",
        "config.yaml:11:7: claim 'jti' cannot be set here: bearerd sets it",
    ]


@pytest.mark.parametrize(
    ("claims", "column", "said"),
    [
        pytest.param(
            "role", 23, "expected a mapping, found text; for example {resource: https://api.example.com}", id="text"
        ),
        pytest.param(
            "[role]",
            23,
            "expected a mapping, found a list; for example {resource: https://api.example.com}",
            id="a list",
        ),
        pytest.param("", 22, "expected a value, found nothing", id="nothing"),
        pytest.param(
            "{a: }", 27, "expected text, a number, true or false, a list or a mapping", id="a claim of nothing"
        ),
        pytest.param(
            "{a: [{b: }]}", 27, "expected text, a number, true or false, a list or a mapping", id="nested nothing"
        ),
        pytest.param("{a: 2026-11-23}", 27, "YAML reads this as a date: put it in quotes", id="a date"),
        pytest.param(
            "{a: [x, {b: 2026-11-23}]}", 35, "YAML reads this as a date: put it in quotes", id="a nested date"
        ),
        pytest.param("{a: no}", 27, "YAML reads this as a boolean: write true or false, or put it in quotes", id="no"),
        pytest.param(
            "{a: 1.5e+999}", 27, "YAML reads this as a number: put it in quotes", id="a number that JSON has not"
        ),
        pytest.param("{1: x}", 24, "YAML reads this key as a number: put it in quotes", id="a number as a name"),
    ],
)
def test_claims_that_json_cannot_express_are_refused(folder: Folder, claims: str, column: int, said: str) -> None:
    assert folder.headlines(config(credentials=f"assertion_claims: {claims}\n{SIGNING}{SECRET}")) == [
        f"config.yaml:4:{column}: {said}"
    ]


def test_an_unsupported_value_of_a_claim_hides_no_other_error(folder: Folder) -> None:
    credentials = f"assertion_claims:\n  a: 2026-11-23\n  exp: 1\n  b:\n{SIGNING}{SECRET}"
    assert [line.split(": ")[0] for line in folder.headlines(config(credentials=credentials))] == [
        "config.yaml:5:10",
        "config.yaml:6:7",
        "config.yaml:7:9",
    ]


# -- parameters --------------------------------------------------------------------------------------


def test_a_parameter_is_text_or_a_reference_or_a_list_of_both(folder: Folder) -> None:
    target = folder.target(
        config(
            client="parameters: {tenant: {env: TENANT}, resource: [a, {file: /r, permissions: any}, b]}",
            token="parameters: {password: {credential: pw}, actor_token: [{command: [/bin/actor, -q]}]}",
        )
    )
    assert target.parameters == (
        ("tenant", Reference("env", "TENANT")),
        ("resource", "a"),
        ("resource", Reference("file", "/r", permissions="any")),
        ("resource", "b"),
        ("password", Reference("credential", "pw")),
        ("actor_token", Reference("command", "/bin/actor", argv=("/bin/actor", "-q"))),
    )


@pytest.mark.parametrize(
    "name",
    ["grant_type", "scope", "client_secret", "client_assertion", "client_assertion_type", "subject_token"],
)
@pytest.mark.parametrize("where", ["client", "token"])
def test_parameters_that_bearerd_sets_are_refused(folder: Folder, where: str, name: str) -> None:
    text = config(**{where: f"parameters: {{{name}: {{file: /x}}}}"})
    place = "4:18" if where == "client" else "7:26"
    said = f"parameter '{name}' cannot be set here: bearerd sets it from other keys"
    assert folder.headlines(text) == [f"config.yaml:{place}: {said}"]


@pytest.mark.parametrize("where", ["client", "token"])
@pytest.mark.parametrize("auth", get_args(Auth))
def test_a_client_id_among_the_parameters_goes_with_basic_only(folder: Folder, where: str, auth: str) -> None:
    text = config(**{where: "parameters: {client_id: {env: ID}}"}, credentials=WAYS[auth])
    if auth == "client_secret_basic":
        assert folder.target(text).parameters == (("client_id", Reference("env", "ID")),)
        return
    line, column = (4, 18) if where == "client" else (len(text.splitlines()), 26)
    said = "parameter 'client_id' only applies to auth client_secret_basic: others send the key client_id there"
    assert folder.headlines(text) == [f"config.yaml:{line}:{column}: {said}"]


@pytest.mark.parametrize(
    ("provider", "client", "body"),
    [("", "", "form"), ("", "json", "json"), ("json", "", "json"), ("json", "form", "form"), ("form", "json", "json")],
)
def test_the_body_is_the_clients_or_its_providers(folder: Folder, provider: str, client: str, body: str) -> None:
    keys = f", body: {provider}" if provider else ""
    top = f"providers: {{sso: {{token_url: https://sso.example.com/t{keys}}}}}"
    own = f"\nbody: {client}" if client else ""
    found = folder.target(config(top=top, url=None, credentials=f"{SECRET}\nprovider: sso{own}")).client
    assert found.body == body


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


SECRET_PARAMETERS = ["password", "assertion", "actor_token", "refresh_token", "code", "device_code"]


@pytest.mark.parametrize(
    "client",
    [
        'proxy: "http://user:hunter2@proxy"',
        "headers: {X-Plain: hunter2, Host: hunter2}, timeout: 5",
        'headers: {X-Plain: "hunter2\\n"}, timeout: 5',
        "headers: {X-Plain: {vault: hunter2}}, timeout: 5",
        "proxy: ftp://user:hunter2@proxy",
        "token_url: https://login.example.com/t?sig=hunter2, timeout: 5",
        "on_change: [{run: [curl, -u, 'user:hunter2']}]",
    ],
)
def test_urls_and_arguments_that_may_contain_a_password_are_not_shown(folder: Folder, client: str) -> None:
    error = folder.error(f"{config()}\n  other: {{{client}, tokens: {{a: {{}}}}}}\n")
    assert "  other: {" in error
    assert "hunter2" not in error


@pytest.mark.parametrize("name", SECRET_PARAMETERS)
@pytest.mark.parametrize("value", ["hunter2", "[hunter2]", "[{file: /p}, hunter2]"])
def test_a_parameter_that_is_a_secret_is_refused_as_text_without_its_line(
    folder: Folder, name: str, value: str
) -> None:
    said = f"'{name}' is a secret: expected a reference such as {{file: …}}, never the secret itself"
    column = 20 + len(name)
    assert folder.error(config(client=f"parameters: {{{name}: {value}}}")) == f"config.yaml:4:{column}: {said}"
    assert folder.error(config(token=f"parameters: {{{name}: {value}}}")) == f"config.yaml:7:{column + 8}: {said}"


def test_each_secret_among_the_parameters_is_reported_at_its_place(folder: Folder) -> None:
    credentials = f"{SECRET}\nparameters:\n  audience: x\n  password: hunter2\n  code: hunter2\n  resource: 5"
    error = folder.error(config(credentials=credentials, token="parameters: {device_code: hunter2}"))
    assert re.findall(r"^config\.yaml:(\S+): (?:.* is a secret: )?expected", error, re.MULTILINE) == [
        "8:17",
        "9:13",
        "10:17",
        "12:39",
    ]
    assert "hunter2" not in error


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


@pytest.mark.parametrize(
    ("value", "column", "said"),
    [
        pytest.param("{}", 21, "expected exactly one of file, env, credential, command", id="no reference in it"),
        pytest.param("{file: x}", 28, "expected an absolute path (/…)", id="a relative path"),
        pytest.param("[x, {file: x}]", 32, "expected an absolute path (/…)", id="a relative path in a list"),
        pytest.param("[x, {}]", 25, "expected exactly one of file, env, credential, command", id="nothing in a list"),
        pytest.param(
            "[x, 1]", 21, "expected text in quotes, a reference such as {file: …}, or a list of these, found a number",
            id="a number in a list",
        ),
        pytest.param(
            "[[x]]", 21, "expected text in quotes, a reference such as {file: …}, or a list of these, found a list",
            id="a list in a list",
        ),
        pytest.param(
            "{vault: x}",
            22,
            "unknown key 'vault'; expected one of 'file', 'env', 'credential', 'command', 'permissions'",
            id="another kind of reference",
        ),
    ],
)  # fmt: skip
def test_a_wrong_parameter_is_reported_at_its_place(folder: Folder, value: str, column: int, said: str) -> None:
    assert folder.headlines(config(client=f"parameters: {{x: {value}}}")) == [f"config.yaml:4:{column}: {said}"]


@pytest.mark.parametrize(
    ("text", "known"),
    [
        pytest.param(
            config(client="parameters: {file: {pth: /x}}"),
            "; expected one of 'file', 'env', 'credential', 'command', 'permissions'",
            id="a parameter",
        ),
        pytest.param(
            config().replace("bci: {}", "scope: {x: y}"),
            ": a token has no such key; config.example.yaml shows every key",
            id="a token",
        ),
    ],
)  # fmt: skip
def test_a_client_or_token_named_like_a_key_has_the_keys_of_its_kind(folder: Folder, text: str, known: str) -> None:
    (headline,) = folder.headlines(text)
    assert headline.endswith(known)


# -- hooks -------------------------------------------------------------------------------------------

RELOAD = Hook(argv=("/bin/reload", "app"))


@pytest.mark.parametrize(
    ("where", "key"), [(where, key) for where in ("top", "client", "token") for key in ("on_change", "on_failure")]
)
def test_hooks_are_read_at_each_level(folder: Folder, where: str, key: str) -> None:
    found = folder.target(config(**{where: f"{key}: [{{run: [/bin/reload, app]}}]"}))
    assert (found.on_change, found.on_failure) == (((RELOAD,), ()) if key == "on_change" else ((), (RELOAD,)))


@pytest.mark.parametrize(
    ("top", "client", "token", "programs"),
    [
        pytest.param("[{run: [/a]}]", "[{run: [/b]}]", "[{run: [/c]}]", ["/c"], id="the token's"),
        pytest.param("[{run: [/a]}]", "[{run: [/b]}]", None, ["/b"], id="the client's"),
        pytest.param("[{run: [/a]}, {run: [/d]}]", None, None, ["/a", "/d"], id="the top's"),
        pytest.param("[{run: [/a]}]", None, "[]", [], id="none is nearer than some"),
    ],
)
def test_the_nearest_hooks_win(
    folder: Folder, top: str, client: str | None, token: str | None, programs: list[str]
) -> None:
    levels = {"top": top, "client": client, "token": token}
    text = config(**{where: f"on_change: {hooks}" for where, hooks in levels.items() if hooks is not None})
    assert [hook.argv[0] for hook in folder.target(text).on_change] == programs


@pytest.mark.parametrize(
    ("hook", "expected"),
    [
        ("{run: [/a, -x]}", Hook(argv=("/a", "-x"), timeout=30.0)),
        ("{run: [/a], timeout: 500ms, skip_first: true}", Hook(argv=("/a",), timeout=0.5, skip_first=True)),
        ("{signal: HUP, pid_file: /run/app.pid}", Hook(signal="HUP", pid_file="/run/app.pid")),
        ("{signal: USR1, process: nginx}", Hook(signal="USR1", process="nginx")),
    ],
)
def test_a_hook_is_a_command_or_a_signal(folder: Folder, hook: str, expected: Hook) -> None:
    assert folder.target(config(token=f"on_change: [{hook}]")).on_change == (expected,)


A_COMMAND = (
    "expected a list of the program and its arguments, such as [/usr/bin/systemctl, reload, nginx] (there is no shell)"
)


@pytest.mark.parametrize(
    ("hook", "column", "said"),
    [
        pytest.param("{}", 25, "expected exactly one of run, signal", id="nothing"),
        pytest.param("{run: [/a], signal: HUP, process: x}", 25, "expected exactly one of run, signal", id="both"),
        pytest.param(
            "{run: /a}",
            31,
            A_COMMAND,
            id="a line",
        ),
        pytest.param(
            "{run: []}",
            31,
            A_COMMAND,
            id="an empty list",
        ),
        pytest.param("{run: [a]}", 31, "expected the absolute path of a program (/…)", id="no path"),
        pytest.param("{run: [/a, 1]}", 36, "expected text in quotes, found a number", id="a number"),
        pytest.param("{signal: HUP}", 25, "expected exactly one of pid_file, process with signal", id="to nobody"),
        pytest.param(
            "{signal: HUP, pid_file: /p, process: x}",
            25,
            "expected exactly one of pid_file, process with signal",
            id="to two",
        ),
        pytest.param("{run: [/a], process: x}", 25, "pid_file and process only apply to signal", id="no signal"),
        pytest.param(
            "{signal: HUP, process: x, timeout: 1s}",
            25,
            "timeout only applies to run",
            id="a signal's time",
        ),
        pytest.param(
            "{signal: SIGHUP, process: x}",
            34,
            "unknown value; did you mean 'HUP'?",
            id="another name",
        ),
        pytest.param("{signal: HUP, pid_file: p}", 49, "expected an absolute path (/…)", id="relative"),
    ],
)
def test_a_wrong_hook_is_reported_at_its_place(folder: Folder, hook: str, column: int, said: str) -> None:
    assert folder.headlines(config(token=f"on_change: [{hook}]")) == [f"config.yaml:7:{column}: {said}"]


def test_on_failure_has_no_skip_first(folder: Folder) -> None:
    (said,) = folder.headlines(config(token="on_failure: [{run: [/a], skip_first: true}]"))
    assert "'skip_first' is a key of an entry of on_change, not of an entry of on_failure" in said


def test_a_token_may_be_not_required(folder: Folder) -> None:
    assert folder.target(config(client="required: false")).required is False
    assert folder.target(config(client="required: false", token="required: true")).required is True


# -- control and listen ------------------------------------------------------------------------------


def test_the_control_socket_is_in_the_output_directory_or_at_the_configured_path(folder: Folder) -> None:
    assert folder.load("output: {directory: /srv/t}\n" + SMALLEST).control == Control("/srv/t/.bearerd/control.sock")
    given = "control: {socket: //run/x/../b.sock, mode: '0600'}\n"
    assert folder.load(given + SMALLEST).control == Control("/run/b.sock", mode=0o600)


@pytest.mark.parametrize("length", [107, 108])
def test_a_socket_path_is_at_most_107_bytes(folder: Folder, length: int) -> None:
    path = "/" + "ü" * ((length - 1) // 2) + "x" * ((length - 1) % 2)
    text = f"control: {{socket: {path}}}\n{SMALLEST}"
    if length == 107:
        control = folder.load(text).control
        assert control is not None
        assert control.socket == path
    else:
        said = f"config.yaml:1:19: the path of the control socket is longer than 107 bytes, the limit of Linux: {path}"
        assert folder.headlines(text) == [said]


def test_a_directory_may_be_too_long_for_its_socket(folder: Folder) -> None:
    (said,) = folder.headlines(f"output: {{directory: /{'x' * 90}}}\n{SMALLEST}")
    assert said.startswith("config.yaml:1:21: the path of the control socket is longer than 107 bytes")


def test_the_socket_and_a_token_file_cannot_have_one_path(folder: Folder) -> None:
    (said,) = folder.headlines("control: {socket: /run/bearerd/dnb/bci}\n" + SMALLEST)
    assert said == "config.yaml:1:19: 'dnb/bci' would be written to /run/bearerd/dnb/bci too"


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1:9810", Listen("127.0.0.1", 9810)),
        ("0.0.0.0:0", Listen("0.0.0.0", 0)),
        ("[::1]:65535", Listen("::1", 65535)),
    ],
)
def test_the_address_of_listen_is_read(folder: Folder, address: str, expected: Listen) -> None:
    assert folder.load(f"listen: {{address: '{address}'}}\n{SMALLEST}").listen == expected
    page = folder.load(f"listen: {{address: '{address}', page: true}}\n{SMALLEST}").listen
    assert page == replace(expected, page=True)


def test_the_names_of_listen_are_host_names(folder: Folder) -> None:
    names = ("web1", "Web-1.example.com", "my_service", "dotted.example.", "xn--bcher-kva.example", "a" * 63)
    found = folder.load(f"listen: {{address: '127.0.0.1:1', hosts: [{', '.join(names)}]}}\n{SMALLEST}").listen
    assert found == Listen("127.0.0.1", 1, hosts=names)


@pytest.mark.parametrize(
    "host",
    ["web1:9810", "http://web1", "web1/", "'*.example.com'", "'[::1]'", "'::1'", "-a", "a-", "a..b", ".a", "''",
     "bücher", "a" * 64, ".".join(["a" * 50] * 6), "'a b'", '"a\\n"', "1", "[a]", "~"],
)  # fmt: skip
def test_other_names_of_listen_are_refused(folder: Folder, host: str) -> None:
    (said,) = folder.headlines(f"listen: {{address: '127.0.0.1:1', hosts: [web1, {host}]}}\n{SMALLEST}")
    assert said.startswith("config.yaml:1:48: expected a host name without scheme and port, such as web1.example.com")


@pytest.mark.parametrize(
    "address",
    ["localhost:9810", "127.0.0.1", ":9810", "127.0.0.1:", "127.0.0.1:65536", "::1:9810", "[127.0.0.1]:1",
     "256.0.0.1:1", "[::1]", "127.0.0.1:٣"],
)  # fmt: skip
def test_an_address_is_an_ip_address_and_a_port(folder: Folder, address: str) -> None:
    (said,) = folder.headlines(f"listen: {{address: '{address}'}}\n{SMALLEST}")
    assert said == (
        'config.yaml:1:19: expected an IP address and a port in quotes, such as "127.0.0.1:9810" or "[::1]:9810"'
    )


def test_listening_needs_an_address(folder: Folder) -> None:
    assert folder.headlines("listen: {page: true}\n" + SMALLEST) == ["config.yaml:1:1: key 'address' is missing"]


# -- keys --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "key", "place", "hint"),
    [
        ("top", "outptu: {}", "1:1", "; did you mean 'output'?"),
        ("top", "Output: {}", "1:1", "; did you mean 'output'?"),
        ("top", "output: {diretory: /x}", "1:10", "; did you mean 'directory'?"),
        ("top", "log: {lvl: info}", "1:7", "; did you mean 'level'?"),
        ("client", "tokens_url: x", "4:5", "; did you mean 'token_url'?"),
        ("client", "basic_encodign: raw", "4:5", "; did you mean 'basic_encoding'?"),
        ("token", "scopes: [a]", "7:13", "; did you mean 'scope'?"),
        ("token", "files: [{format: raw, pth: x}]", "7:35", "; did you mean 'path'?"),
        ("token", "files: [{format: template, tmplate: nginx, path: x}]", "7:40", "; did you mean 'template'?"),
        ("token", "files: [{format: template, template: nginx, path: x, var: {}}]", "7:66", "; did you mean 'vars'?"),
        ("token", "files: [{format: raw, when: x}]", "7:35", "; expected one of 'format', 'path', 'mode', "),
        ("token", "interval: 1s", "7:13", ": a token has no such key; config.example.yaml shows every key"),
    ],
)
def test_an_unknown_key_is_an_error_that_suggests_or_lists_keys(
    folder: Folder, where: str, key: str, place: str, hint: str
) -> None:
    text = config(**{where: key})
    line, column = map(int, place.split(":"))
    name = re.match(r"\w+", text.splitlines()[line - 1][column - 1 :])
    assert name is not None
    (said,) = folder.headlines(text)
    assert said.startswith(f"config.yaml:{line}:{column}: unknown key '{name[0]}'{hint}")


@pytest.mark.parametrize(
    ("where", "key", "said"),
    [
        (
            "client",
            "auth: digest",
            (
                "expected 'client_secret_basic', 'client_secret_post', 'client_secret_jwt', 'private_key_jwt', "
                "'tls_client_auth', 'self_signed_tls_client_auth', 'assertion' or 'none'"
            ),
        ),
        ("client", "auth: client_secret_pst", "; did you mean 'client_secret_post'?"),
        ("token", "files: [{format: yml}]", "expected 'raw', 'json', 'header', 'env' or 'template'"),
        ("token", "files: [{format: jsn}]", "; did you mean 'json'?"),
        ("token", "files: [{format: templat}]", "; did you mean 'template'?"),
        ("token", "files: [{}]", "key 'format' is missing"),
        ("token", "files: [raw]", "expected a mapping, found text; write {format: raw}"),
        ("token", "files: [raw, json]", "expected a mapping, found text; write {format: raw}"),
        ("token", "files: [/srv/x]", "expected a mapping, found text; for example {format: raw}"),
        ("token", "files: {format: raw}", "expected a list, found a mapping; for example [{format: raw}]"),
        (
            "token",
            "on_change: /bin/x",
            "expected a list, found text; for example [{run: [/usr/bin/systemctl, reload, nginx]}]",
        ),
        ("top", "log: debug", "expected a mapping, found text; write {level: debug}"),
        ("top", "listen: 9810", 'expected a mapping, found a number; for example {address: "127.0.0.1:9810"}'),
        ("client", "auth: basic", "unknown value; did you mean 'client_secret_basic'?"),
        ("client", "auth: mtls", "unknown value; did you mean 'tls_client_auth' or 'self_signed_tls_client_auth'?"),
        ("top", "log: {level: DEBUG}", "unknown value; did you mean 'debug'?"),
        (
            "client",
            "rate_limit: 10",
            "expected a number of requests per time, such as 10/s or 10/8h: write 10/s, 10/m or 10/h",
        ),
        ("client", "rate_limit: 10 per second", "such as 10/s or 10/8h: write 10/s"),
        ("client", "rate_limit: 10 per 8 hours", "such as 10/s or 10/8h: write 10/8h"),
        ("client", "rate_limit: 10 / 8h", "such as 10/s or 10/8h: write 10/8h"),
        ("client", "refresh_before: 20 %", "or a duration such as 60s: write 20%"),
        ("client", "refresh_before: 5 minutes", "or a duration such as 60s: write 5m"),
        ("top", "output: {directory: ~/x}", "expected an absolute path (/…); ~ is not expanded"),
        ("token", "files: []", "token 'dnb/bci' has no files: remove this key to get one raw file"),
        ("token", "files: [{format: raw, name: X}]", "name only applies to the formats env and template"),
        ("token", "files: [{format: env, name: 1X}]", "expected text of letters, digits"),
        ("token", "files: [{format: json, newline: true}]", "newline only applies to format raw"),
        ("token", "strict_scope: 'true'", "expected true or false without quotes, found text"),
        ("token", "strict_scope: yes", "YAML reads 'yes' as a boolean"),
        ("client", "max_concurrency: 0", "expected a whole number, at least 1"),
        ("client", "max_concurrency: 1025", "expected a whole number, at most 1024"),
        ("client", "max_concurrency: '8'", "expected a whole number without quotes, found text"),
        ("client", "max_concurrency: 0o10", "expected a whole number without quotes, found text"),
        ("client", "proxy: socks4://h:1", A_PROXY),
        ("client", "proxy: http://u:p@h:1", f"expected {NO_LOGIN}"),
        ("client", "proxy: ftp://u@h:1", f"expected {NO_LOGIN}"),
        (
            "client",
            "proxy: [http://h:1]",
            f"{A_PROXY}, found a list",
        ),
        ("client", "ca_file: ca.pem", "expected an absolute path (/…)"),
        ("client", "proxy:", "expected a value, found nothing"),
        (
            "client",
            "parameters: {a: 1}",
            "expected text in quotes, a reference such as {file: …}, or a list of these, f",
        ),
        ("client", "parameters: {a: []}", "expected text, or a list with at least one text"),
        ("client", "parameters: {'': a}", "expected the name of a parameter, found an empty string"),
        ("client", "parameters: [a]", "expected a mapping, found a list"),
        ("client", "grant_type: ''", "expected text, found an empty string"),
        ("client", "grant_type: 5", "expected text in quotes, found a number"),
        ("client", "basic_encoding: base64", "expected 'compatible', 'rfc6749' or 'raw'"),
        ("top", "state_directory: state", "expected an absolute path (/…)"),
        ("top", "output: {directory: tokens}", "expected an absolute path (/…)"),
        ("top", "output: {owner: -1}", "expected the name or number of a user or group, found a number"),
        ("top", "output: {group: ''}", "expected the name or number of a user or group"),
        ("top", "output: {on_expiry: delete}", "expected 'keep' or 'remove'"),
        ("top", "output: /run/bearerd", "expected a mapping, found text"),
        ("top", "log: {level: warn}", "did you mean 'warning'?"),
        ("top", "include: conf.d/*.yaml", "expected a list of file names or patterns"),
        ("top", "providers: [a]", "expected the names of providers with their keys, found a list"),
        ("top", "providers:", "expected the names of providers with their keys, found nothing"),
    ],
)
def test_a_wrong_value_is_an_error_that_says_what_was_expected(folder: Folder, where: str, key: str, said: str) -> None:
    headlines = folder.headlines(config(**{where: key}))
    assert len(headlines) == 1
    assert said in headlines[0]


@pytest.mark.parametrize(
    ("key", "values", "said"),
    [
        (
            "default_lifetime",
            ["10 s", "-1s", "1w", "1h30m", "1e3s", "10S", ".5s", "''", "[]", "1_0s", "٣s", "-5", "1234567", "2.5"],
            "expected a duration such as 500ms, 10s, 15m, 1h or 2d",
        ),
        ("default_lifetime", ["10", "'10'"], "a duration needs a unit: write 10s if these are seconds"),
        (
            "default_lifetime",
            ["5 min", "5minutes", "5 MINUTES"],
            "expected a duration such as 500ms, 10s, 15m, 1h or 2d: write 5m",
        ),
        (
            "refresh_before",
            ["50"],
            "expected a share of the lifetime such as 20%, or a duration such as 60s: write 50% or 50s",
        ),
        (
            "refresh_before",
            ["51"],
            "expected a share of the lifetime such as 20%, or a duration such as 60s: write 51s",
        ),
        (
            "refresh_before",
            ["0.2"],
            "expected a share of the lifetime such as 20%, or a duration such as 60s: write 20%",
        ),
        ("default_lifetime", ["0s", "0ms", "0.0h"], "expected a duration above zero"),
        ("refresh_before", ["0s"], "expected a duration above zero"),
        ("default_lifetime", ["3651d", "9" * 400 + "d"], "expected a duration of at most 3650d"),
        ("refresh_before", ["0%", "0.0%", "50.1%", "51%", "100%"], "expected a share of the lifetime above 0% and up"),
        (
            "refresh_before",
            ["20", "-1%", "20 %", "'%'"],
            "expected a share of the lifetime such as 20%, or a dura",
        ),
        ("strict_scope", ["1", "[]"], "expected true or false"),
        ("lifetime_unit", ["s", "minutes", "1", "[]"], "expected 'auto', 'seconds' or 'milliseconds'"),
        ("max_age", ["1w", "Never", "''", "[]"], "expected a duration such as 24h, or never"),
        (
            "publish_delay",
            ["-1s", "1w", "never", "''", "[]"],
            "expected a duration such as 30s, or 0s for no delay",
        ),
        ("publish_delay", ["61m", "3601s"], "expected a duration of at most 1h: providers replicate a token within"),
        ("max_age", ["59s", "500ms"], "expected a duration of at least 1m, or never: each token would be replaced"),
        ("scope", ["''", "' a'", "'a  b'", "'a '", "'a\"b'", "'a\\b'", "ä", '"a\\tb"'], "expected scopes of printable"),
        ("scope", ["1", "{a: b}", "[a, 1]", "[[a]]"], "expected a scope, or a list of scopes, found"),
    ],
)
def test_a_wrong_value_of_a_token_is_refused(folder: Folder, key: str, values: list[str], said: str) -> None:
    for value in values:
        (headline,) = folder.headlines(config(token=f"{key}: {value}"))
        assert headline.startswith(f"config.yaml:7:{15 + len(key)}: {said}"), value


@pytest.mark.parametrize(
    ("key", "values", "said"),
    [
        ("timeout", ["0s"], "expected a duration above zero"),
        ("timeout", ["86401s", "2d"], "expected a timeout of at most 1d"),
        ("rate_limit", ["10", "10/", "/s", "0/s", "-1/s", "10 / s", "10/w", "1.5/s", "1000000000/s"], "expected a num"),
        ("rate_limit", ["10/0s"], "expected a duration above zero"),
        ("rate_limit", ["10/3651d"], "expected a duration of at most 3650d"),
        ("refused_limit", ["4", "0/s", "1.5/s", "4/w"], "expected a number of requests per time"),
        (
            "refused_limit",
            ["101/2m", "4/25h", "1000/2d"],
            "expected at most 100 refused attempts in at most 1d, such as",
        ),
        (
            "token_field",
            ["5", "''", "a..b", ".a", "a.", "'a b'", "ä", "[a]"],
            "expected the name of a field, or up to 8",
        ),
        ("token_field", ["a.b.c.d.e.f.g.h.i", "a" * 65], "expected the name of a field, or up to 8 names separated by"),
    ],
)
def test_a_wrong_value_of_a_client_is_refused(folder: Folder, key: str, values: list[str], said: str) -> None:
    for value in values:
        (headline,) = folder.headlines(config(client=f"{key}: {value}"))
        assert headline.startswith(f"config.yaml:4:{7 + len(key)}: {said}"), value


def test_what_a_reply_means_is_set_on_a_provider_or_a_client(folder: Folder) -> None:
    text = config(
        top="providers: {p: {token_url: https://p.example.com/t, refused_limit: 3/1d, token_field: data.access_token}}",
        client="provider: p",
        url=None,
    )
    shared = folder.target(text).client.provider
    assert (shared.refused_limit, shared.token_field) == (RateLimit(3, 86400.0), "data.access_token")
    own = folder.target(
        text.replace("provider: p\n", "provider: p\n    refused_limit: 10/h\n    token_field: id_token\n")
    )
    assert (own.client.provider.refused_limit, own.client.provider.token_field) == (RateLimit(10, 3600.0), "id_token")
    default = folder.target(SMALLEST).client.provider
    assert (default.refused_limit, default.token_field) == (RateLimit(4, 120.0), "access_token")


@pytest.mark.parametrize(
    ("where", "found"),
    [
        (("top",), ("seconds", 3600.0, 30.0)),
        (("top", "client"), ("milliseconds", inf, 3600.0)),
        (("top", "client", "token"), ("auto", 60.0, 0.0)),
        ((), ("auto", 86400.0, 0.0)),
    ],
)
def test_the_nearest_lifetime_unit_max_age_and_publish_delay_win(
    folder: Folder, where: tuple[str, ...], found: tuple[str, float, float]
) -> None:
    keys = {
        "top": "lifetime_unit: seconds\nmax_age: 1h\npublish_delay: 30s",
        "client": "lifetime_unit: milliseconds\n    max_age: never\n    publish_delay: 1h",
        "token": "lifetime_unit: auto, max_age: 1m, publish_delay: 0s",
    }
    target = folder.target(config(**{level: keys[level] for level in where}))
    assert (target.lifetime_unit, target.max_age, target.publish_delay) == found


def test_a_timeout_may_be_a_day(folder: Folder) -> None:
    assert folder.target(config(client="timeout: 24h")).client.provider.timeout == 86400


@pytest.mark.parametrize(
    ("mode", "said"),
    [
        ("0640", "YAML reads '0640' as the number 416 (octal): put it in quotes"),
        ("640", 'expected a mode in quotes: write "0640"'),
        ("416", 'expected a mode in quotes: write "0640"'),
        ("0o640", 'expected a mode in quotes: write "0640"'),
        ("999", "expected a mode of octal digits"),
        ("'0648'", "expected a mode of octal digits"),
        ("'64'", "expected a mode of octal digits"),
        ("'4755'", "expected a mode of octal digits"),
        ("u=rw", "expected a mode of octal digits"),
        ("true", "expected a mode of octal digits"),
    ],
)
@pytest.mark.parametrize("key", ["mode", "directory_mode"])
def test_a_mode_in_any_other_form_is_refused(folder: Folder, key: str, mode: str, said: str) -> None:
    (headline,) = folder.headlines(config(top=f"output: {{{key}: {mode}}}"))
    assert headline.startswith(f"config.yaml:1:{12 + len(key)}: {said}")


def test_a_file_is_never_setgid(folder: Folder) -> None:
    assert len(folder.headlines(config(top="output: {mode: '2750'}"))) == 1


@pytest.mark.parametrize(
    ("secret", "said"),
    [
        ("hunter2", "{command: [argv…]}, never the secret itself"),
        ("", "expected a value, found nothing"),
        ("{}", "expected exactly one of file, env, credential, command"),
        ("{file: /a, env: A}", "expected exactly one of file, env, credential, command"),
        ("{env: A, permissions: any}", "permissions only applies to file"),
        ("{file: /a, permissions: world}", "expected 'owner', 'group' or 'any'"),
        ("{file: a}", "expected an absolute path (/…)"),
        ("{file: ''}", "expected text, found an empty string"),
        ('{file: "/a\\0"}', "expected text without NUL characters"),
        ("{env: A-B}", "expected text of letters, digits"),
        ("{credential: ../a}", "expected text of letters, digits"),
        ("{command: /bin/pass}", "expected a list, found text"),
        ("{command: []}", "expected at least one entry"),
        ("{command: [pass]}", "expected the absolute path of a program (/…)"),
        ("{command: [/bin/pass, 1]}", "expected text in quotes, found a number"),
    ],
)
def test_a_wrong_secret_is_reported_without_its_line(folder: Folder, secret: str, said: str) -> None:
    error = folder.error(config().replace("{file: /s}", secret))
    assert re.match(r"config\.yaml:5:\d\d: ", error)
    assert said in error
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize(("client_id", "found"), [("123", "a number"), ("true", "a boolean"), ("[a]", "a list")])
def test_a_client_id_is_text(folder: Folder, client_id: str, found: str) -> None:
    (said,) = folder.headlines(config().replace("7e0c5a", client_id))
    assert said.endswith(f", found {found}")


def test_missing_tokens_are_reported_at_their_client(folder: Folder) -> None:
    assert folder.headlines(config().partition("    tokens:")[0]) == ["config.yaml:2:3: key 'tokens' is missing"]


def test_a_client_without_tokens_is_an_error(folder: Folder) -> None:
    text = config().replace("tokens:\n      bci: {}", "tokens: {}")
    assert folder.headlines(text) == ["config.yaml:6:13: expected at least one entry"]


def test_a_token_without_keys_is_an_empty_mapping(folder: Folder) -> None:
    assert folder.headlines(config().replace("bci: {}", "bci:")) == [
        "config.yaml:7:11: expected a mapping, found nothing; for example {scope: read}, or {} if it needs no keys"
    ]


@pytest.mark.parametrize("name", ["a", "1a", "a.b_c-d", "A" * 64, "a..b"])
def test_a_name_is_letters_digits_and_some_punctuation(folder: Folder, name: str) -> None:
    target = folder.target(config().replace("dnb:", f"{name}:").replace("bci:", f"{name}:"))
    assert target.full_name == f"{name}/{name}"


@pytest.mark.parametrize(
    "name", ["-a", ".a", "_a", "..", "a/b", "a b", "ä", "", "a\n", "A" * 65, "a" * 300, "a\0", "٣"]
)
def test_any_other_name_is_refused_at_its_place(folder: Folder, name: str) -> None:
    quoted = '"' + name.replace("\n", "\\n").replace("\0", "\\0") + '"'
    text = config(top="providers:\n  dnb: {token_url: https://h/}").replace("dnb:", f"{quoted}:")
    assert [line.split(": ")[0] for line in folder.headlines(text)] == ["config.yaml:2:3", "config.yaml:4:3"]
    assert [line.split(": ")[0] for line in folder.headlines(config().replace("bci:", f"{quoted}:"))] == [
        "config.yaml:7:7"
    ]
    assert "invalid name" in folder.error(text)


def test_tokens_as_a_list_or_as_text_are_shown_with_a_name(folder: Folder) -> None:
    for tokens, said in (
        ("[api]", "expected a mapping, found a list; for example {NAME: {scope: read}}"),
        ("{api: read}", "expected a mapping, found text; for example {scope: read}, or {} if it needs no keys"),
    ):
        (headline,) = folder.headlines(SMALLEST.replace("\n      bci: {scope: bci}", f" {tokens}"))
        assert headline.endswith(f": {said}")


def test_a_path_in_place_of_a_secret_is_not_shown(folder: Folder) -> None:
    (said,) = folder.error(config().replace("{file: /s}", "/etc/hunter2")).splitlines()
    assert said == "config.yaml:5:20: expected a reference: a secret in a file is written {file: /…}"


# -- all errors at once ------------------------------------------------------------------------------


def test_an_error_in_one_client_hides_none_in_another(folder: Folder) -> None:
    text = """\
refresh_before: 60%
providers:
  p: {token_url: http://h/}
clients:
  a:
    provider: nowhere
    auth: nobody
    client_id: 1
    client_secret: {file: /s}
    tokens:
      t: {scope: 1, files: [{format: raw, mode: 0640}, {format: yaml}]}
  b:
    client_id: x
    client_secret: hunter2
    tokens: {t: {}}
  c:
    token_url: https://h/
    client_id: x
    client_secret: {file: /s}
    tokens: {t: {files: [{format: raw, path: ../x}]}}
"""
    assert [line.split(": ")[0].removeprefix("config.yaml:") for line in folder.headlines(text)] == [
        "1:17",  # 60%
        "3:18",  # http
        "6:15",  # no such provider
        "7:11",  # auth
        "8:16",  # client_id
        "11:18",  # scope
        "11:49",  # a bare mode
        "11:65",  # format
        "12:3",  # no endpoint
        "14:20",  # a secret
        "20:46",  # ..
    ]


@pytest.mark.parametrize(
    ("key", "place"),
    [
        ("scope: [no, fi]", "7:21"),
        ("parameters: {a: [x, 0123]}", "7:33"),
        ("files: [{format: raw, mode: 0640}]", "7:41"),
        ("refresh_before: !x 5m", "7:29"),
    ],
)
def test_one_mistake_is_one_error(folder: Folder, key: str, place: str) -> None:
    assert [said.split(": ")[0] for said in folder.headlines(config(token=key))] == [f"config.yaml:{place}"]


def test_errors_of_several_files_are_reported_at_once(folder: Folder) -> None:
    (folder.path / "latin.yaml").write_bytes(b"# a\n# \xe4\n")
    headlines = folder.headlines(
        config(top="include: [a.yaml, b.yaml, latin.yaml, missing.yaml]", token="scope: 1"),
        a="providers: {p: {token_url: 5}}\n",
        b="a: [\n",
    )
    assert [line.split(": ")[0] for line in headlines] == [
        "a.yaml:1:28",
        "b.yaml:1:4",
        "config.yaml:1:39",
        "config.yaml:8:20",
        "latin.yaml:2:1",
    ]


def test_a_config_without_clients_is_an_error(folder: Folder) -> None:
    assert "no clients are configured" in folder.error("log: {level: info}")
    assert "no clients are configured" in folder.error("clients: {}")


@pytest.mark.parametrize(
    ("text", "found"), [("[a]", "a list"), ("a", "text"), ("--- ~\n", "nothing"), ("1", "a number")]
)
def test_a_config_that_is_not_a_mapping_is_an_error(folder: Folder, text: str, found: str) -> None:
    (said,) = folder.headlines(text)
    assert said.endswith(f": expected a mapping with the key clients, found {found}")


def test_tokens_that_are_indented_like_a_client_are_one_error(folder: Folder) -> None:
    shallow = SMALLEST.replace("    tokens:\n      bci:", "  tokens:\n    bci:")
    assert folder.headlines(shallow) == [
        "config.yaml:6:3: 'tokens' is indented too little: begin it in column 5, as a key of client 'dnb'"
    ]


def test_tokens_that_are_indented_like_a_client_are_checked_too(folder: Folder) -> None:
    shallow = SMALLEST.replace("    tokens:\n      bci: {scope: bci}", "  tokens:\n    bci: {skope: bci}")
    assert any("unknown key 'skope'" in line for line in folder.headlines(shallow))


def test_a_client_may_be_named_tokens(folder: Folder) -> None:
    client = "{token_url: 'https://x/t', client_id: a, client_secret: {env: A}, tokens: {bci: {}}}"
    config = folder.load(f"{SMALLEST}  tokens: {client}\n")
    assert [target.full_name for target in config.targets] == ["dnb/bci", "tokens/bci"]


# -- files -------------------------------------------------------------------------------------------


def test_a_config_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read: no such file or directory"):
        load(str(tmp_path / "none.yaml"), {})


def test_a_directory_is_not_a_config(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: it is a directory, not a regular file"):
        load(str(tmp_path), {})


def test_a_byte_order_mark_is_ignored(folder: Folder) -> None:
    (folder.path / "bom.yaml").write_bytes(b"\xef\xbb\xbf" + SMALLEST.encode())
    assert load(str(folder.path / "bom.yaml"), {}).targets == folder.load(SMALLEST).targets
    # It does not count as a column.
    (folder.path / "bom.yaml").write_bytes(b"\xef\xbb\xbflog: no")
    with pytest.raises(ConfigError) as raised:
        load(str(folder.path / "bom.yaml"), {})
    assert re.search(r"bom\.yaml:1:6: YAML reads 'no' .*\n +1 \| log: no\n", raised.value.full)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"# one\n# two\nclients: \xff", id="a stray byte"),
        pytest.param("# one\n# two\nclients: ä".encode("latin-1"), id="Latin-1"),
    ],
)
def test_a_file_that_is_not_utf_8_is_an_error_in_the_line_of_the_first_wrong_byte(
    tmp_path: Path, content: bytes
) -> None:
    file = tmp_path / "c.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=r"c\.yaml:3:1: not UTF-8 text"):
        load(str(file), {})


def test_files_over_16_mib_together_are_an_error(folder: Folder) -> None:
    with (folder.path / "large.yaml").open("wb") as stream:
        stream.truncate(MOST_BYTES - 100)
    assert folder.headlines("include: [large.yaml, small.yaml]\n" + SMALLEST, small="# no clients here") == [
        "large.yaml:1:1: with this file the config is larger than 16 MiB",
        "small.yaml:1:1: with this file the config is larger than 16 MiB",
    ]


def test_too_many_keys_and_values_are_an_error(folder: Folder) -> None:
    [headline] = folder.headlines("clients: [" + "a," * MOST_NODES + "]")
    assert headline.endswith("more than 1,000,000 keys and values")


def test_errors_beyond_the_limit_are_counted(folder: Folder) -> None:
    headlines = folder.headlines("clients:\n" + "".join(f"  c{number}: {{x: 1}}\n" for number in range(MOST_PROBLEMS)))
    assert len(headlines) == MOST_PROBLEMS + 1
    assert any(re.search(r"and \d+ more errors; is this the right file\?", line) for line in headlines)


def test_a_mistake_after_more_errors_than_the_limit_is_the_only_error(folder: Folder) -> None:
    assert folder.headlines("yes: 06\n" * MOST_PROBLEMS + "clients\n") == [
        f"config.yaml:{MOST_PROBLEMS + 1}:1: a colon is missing after this key"
    ]


@pytest.mark.parametrize("included", [False, True], ids=["as the config", "included"])
def test_a_fifo_is_an_error_and_does_not_block(folder: Folder, included: bool) -> None:
    os.mkfifo(folder.path / "fifo")
    (folder.path / "main.yaml").write_text("include: [fif*]\n" + SMALLEST)
    with pytest.raises(ConfigError, match=r"fifo: cannot be read: it is a FIFO, not a regular file"):
        load(str(folder.path / ("main.yaml" if included else "fifo")), {})


OTHER = SMALLEST.replace("dnb:", "other:")


def test_included_files_add_providers_and_clients(folder: Folder) -> None:
    (folder.path / "conf.d").mkdir()
    (folder.path / "conf.d" / "10.yaml").write_text(OTHER)
    (folder.path / "conf.d" / "20.yaml").write_text("providers: {p: {token_url: https://h/t}}\n")
    (folder.path / "conf.d" / "30.yml").write_text("not looked at: [")
    found = folder.load(config(top="include: [conf.d/*.yaml]\nrefresh_before: 5m", url=None, client="provider: p"))
    assert {target.full_name: target.client.provider.token_url for target in found.targets} == {
        "dnb/bci": "https://h/t",
        "other/bci": "https://login.bisnode.com/sandbox/v1/token.oauth2",
    }
    # Clients in included files inherit from the top of the main file too.
    assert {target.refresh_before for target in found.targets} == {RefreshBefore(seconds=300)}
    assert found.sources == tuple(
        str(folder.path / name) for name in ("config.yaml", "conf.d/10.yaml", "conf.d/20.yaml")
    )


def test_included_files_are_relative_to_the_config_and_not_to_the_working_directory(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.path)
    (folder.path / "sub").mkdir()
    (folder.path / "sub" / "other.yaml").write_text(OTHER)
    (folder.path / "sub" / "c.yaml").write_text(config(top="include: [other.yaml]"))
    assert len(load("sub/c.yaml", {}).targets) == 2


def test_a_pattern_may_match_nothing(folder: Folder) -> None:
    assert folder.load(config(top="include: [conf.d/*.yaml]")).targets


def test_a_pattern_matches_as_in_a_shell(folder: Folder) -> None:
    for name in ("b.d/x.yaml", "a.d/y.yaml", "a.d/.hidden.yaml", "a.d/z.yml", "c.d/more/x.yaml", "d.d"):
        path = folder.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    for pattern in ("*.d/*.yaml", "?.d/[xy].yaml", "*.d/*.yaml/", "./*.d/../*.d/*.yaml"):
        found = matches(str(folder.path / "config.yaml"), pattern)
        assert [path.removeprefix(f"{folder.path}/") for path in found] == ["a.d/y.yaml", "b.d/x.yaml"]
    assert matches(str(folder.path / "config.yaml"), "a.d/.*") == [str(folder.path / "a.d" / ".hidden.yaml")]
    assert matches(str(folder.path / "config.yaml"), "*.d/more/*") == [str(folder.path / "c.d" / "more" / "x.yaml")]


@pytest.mark.parametrize(
    ("points_to", "why"), [("conf.d", "too many levels of symbolic links"), ("gone", "no such file or directory")]
)
def test_a_directory_that_cannot_be_read_is_an_error_and_not_empty(folder: Folder, points_to: str, why: str) -> None:
    (folder.path / "conf.d").symlink_to(points_to)
    assert folder.headlines(config(top="include: [conf.d/*.yaml]")) == [
        f"config.yaml:1:11: directory conf.d cannot be read: {why}"
    ]


def test_an_included_file_that_cannot_be_reached_is_an_error(folder: Folder) -> None:
    (folder.path / "conf.d").symlink_to("conf.d")
    error = folder.error(config(top="include: [conf.d/dnb.yaml]"))
    assert error == "conf.d/dnb.yaml: cannot be read: too many levels of symbolic links"


def test_a_directory_that_the_machine_cannot_read_now_is_unavailable(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(path: str) -> list[str]:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), path)

    monkeypatch.setattr(os, "listdir", fails)
    with pytest.raises(ConfigUnavailable, match=r"conf\.d cannot be read: too many open files"):
        folder.load(config(top="include: [conf.d/*.yaml]"))


def test_a_file_that_two_patterns_match_is_read_once(folder: Folder) -> None:
    assert len(folder.load(config(top="include: [other.yaml, o*.yaml]"), other=OTHER).targets) == 2


def test_a_missing_included_file_is_an_error_at_its_name(folder: Folder) -> None:
    assert folder.headlines(config(top="include: [conf.d/*.yaml, dnb.yaml]")) == [
        "config.yaml:1:26: file dnb.yaml does not exist"
    ]


@pytest.mark.parametrize("pattern", ["config.yaml", "*.yaml", "./config.yaml"])
def test_a_file_that_includes_itself_is_an_error(folder: Folder, pattern: str) -> None:
    (headline,) = folder.headlines(config(top=f'include: ["{pattern}"]'))
    assert headline == "config.yaml:1:10: the file includes itself"


def test_a_name_that_is_defined_in_two_files_is_an_error_that_names_both(folder: Folder) -> None:
    provider = "providers:\n  p: {token_url: https://h/t}\n"
    headlines = folder.headlines(
        config(top=f"include: [a.yaml, b.yaml]\n{provider}"), a=provider, b="# twice\n" + SMALLEST
    )
    assert headlines == [
        "a.yaml:2:3: 'p' is defined twice in providers; first at config.yaml:3",
        "b.yaml:3:3: 'dnb' is defined twice in clients; first at config.yaml:6",
    ]


@pytest.mark.parametrize("key", ["output: {mode: '0600'}", "refresh_before: 5m", "include: [c.yaml]", "log: {}"])
def test_an_included_file_may_only_have_providers_and_clients(folder: Folder, key: str) -> None:
    said = f"'{key.partition(':')[0]}' is a key of the main file: an included file may only have providers and clients"
    assert folder.headlines(config(top="include: [a.yaml]"), a=f"{key}\n") == [f"a.yaml:1:1: {said}"]


# -- paths -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given_directory", "runtime", "directory"),
    [
        pytest.param("", None, "/run/bearerd", id="neither"),
        pytest.param("", "", "/run/bearerd", id="an empty variable"),
        pytest.param("", "/run/tokens", "/run/tokens", id="systemd's"),
        pytest.param("", "/run/tokens:/run/other", "/run/tokens", id="the first of systemd's"),
        pytest.param("output: {directory: /srv/t}", "/run/tokens", "/srv/t", id="the config's wins"),
        pytest.param("output: {directory: //srv//t/./}", None, "/srv/t", id="in one spelling"),
    ],
)
def test_the_directory_comes_from_the_config_or_systemd_or_is_the_default(
    folder: Folder, given_directory: str, runtime: str | None, directory: str
) -> None:
    environ = {} if runtime is None else {"RUNTIME_DIRECTORY": runtime}
    found = folder.load(config(top=given_directory), environ)
    assert found.directory == directory
    assert found.targets[0].outputs[0].path == f"{directory}/dnb/bci"


@pytest.mark.parametrize(
    ("top", "state", "directory"),
    [
        pytest.param("", None, "/run/bearerd/.bearerd", id="neither"),
        pytest.param("", "", "/run/bearerd/.bearerd", id="an empty variable"),
        pytest.param("output: {directory: /srv/t}", None, "/srv/t/.bearerd", id="beside the output"),
        pytest.param("", "/var/lib/bearerd", "/var/lib/bearerd", id="systemd's"),
        pytest.param("", "/var/lib/a:/var/lib/b", "/var/lib/a", id="the first of systemd's"),
        pytest.param("state_directory: /srv/state", "/var/lib/bearerd", "/srv/state", id="the config's wins"),
        pytest.param("state_directory: //srv//state/./", None, "/srv/state", id="in one spelling"),
    ],
)
def test_the_state_directory_comes_from_the_config_or_systemd_or_is_in_the_output_directory(
    folder: Folder, top: str, state: str | None, directory: str
) -> None:
    environ = {} if state is None else {"STATE_DIRECTORY": state}
    assert folder.load(config(top=top), environ).state_directory == directory


@pytest.mark.parametrize(
    ("path", "said"),
    [
        pytest.param("../x", "expected a path without ..", id="out of the directory"),
        pytest.param("a/../b", "expected a path without ..", id="out and in again"),
        pytest.param("/etc/../x", "expected a path without ..", id="absolute"),
        pytest.param("..", "expected a path without ..", id="above"),
        pytest.param(".bearerd/x", "expected a path outside .bearerd, which bearerd keeps for itself", id=".bearerd"),
        pytest.param("/srv/.bearerd/x", "expected a path outside .bearerd", id=".bearerd of another directory"),
        pytest.param(".bearerd", "expected a path outside .bearerd", id=".bearerd itself"),
        pytest.param("a/", "expected the path of a file, found a directory", id="slash at the end"),
        pytest.param(".", "expected the path of a file, found a directory", id="the directory"),
        pytest.param("/run/bearerd", "expected the path of a file, found a directory", id="the directory in full"),
        pytest.param("/run", "expected the path of a file, found a directory", id="above the directory"),
        pytest.param("/", "expected the path of a file, found a directory", id="the root"),
        pytest.param("''", "expected text, found an empty string", id="nothing"),
        pytest.param('"a\\0b"', "expected text without NUL characters", id="NUL"),
        pytest.param("x" * 256, "a name in this path is longer than 255 bytes", id="256 bytes"),
        pytest.param("ä" * 128, "a name in this path is longer than 255 bytes", id="128 characters of two bytes"),
        pytest.param(f"{'x' * 256}/a", "a name in this path is longer than 255 bytes", id="a directory of 256 bytes"),
    ],
)
def test_a_path_of_a_directory_or_of_bearerd_itself_is_refused(folder: Folder, path: str, said: str) -> None:
    (headline,) = folder.headlines(config(token=f"files: [{{format: raw, path: {path}}}]"))
    assert headline.startswith(f"config.yaml:7:41: {said}")


@pytest.mark.parametrize("path", ["x" * 255, "a/.b/c", "/srv/a", "...", "a..b", ".bearerd-x"])
def test_other_paths_are_accepted(folder: Folder, path: str) -> None:
    assert folder.target(config(token=f"files: [{{format: raw, path: {path}}}]")).outputs[0].path.endswith(path)


def template(more: str = "", name: str = "nginx", path: str = ", path: x") -> str:
    """A config with one templated file; `more` begins with a comma."""
    return config(token=f"files: [{{format: template, template: {name}{path}{more}}}]")


@pytest.mark.parametrize("name", [*TEMPLATES, "/etc/bearerd/own.j2", "/a b", "/"])
def test_a_template_is_built_in_or_an_absolute_path(folder: Folder, name: str) -> None:
    assert folder.target(template(name=name)).outputs == (
        Output("/run/bearerd/x", "template", template=name, variable="DNB_BCI_TOKEN"),
    )


def test_the_settings_of_a_template_are_read(folder: Folder) -> None:
    (output,) = folder.target(template(", vars: {url: 'https://a', _b2: \" c\\n\"}, name: T, mode: '600'")).outputs
    assert (output.vars, output.variable, output.mode) == ((("url", "https://a"), ("_b2", " c\n")), "T", 0o600)
    assert folder.target(template(", vars: {}")).outputs[0].vars == ()


@pytest.mark.parametrize("name", ["ngnix", "nginx.j2", "own.j2", "./own.j2", "../own.j2", "Nginx", "' nginx'"])
def test_an_unknown_template_is_an_error_that_lists_the_built_in_ones(folder: Folder, name: str) -> None:
    (headline,) = folder.headlines(template(name=name))
    said = "config.yaml:7:50: expected the absolute path of a template (/…), or a built-in one: "
    assert headline.startswith(said + ", ".join(TEMPLATES))
    assert ("did you mean 'nginx'?" in headline) is ("ng" in name.lower())


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("''", "expected text, found an empty string"),
        ('"/a\\0b"', "expected text without NUL characters"),
        ("5", "expected text in quotes, found a number"),
        ("[nginx]", "expected text, found a list"),
        ("", "expected a value, found nothing"),
    ],
)
def test_a_template_must_be_text(folder: Folder, name: str, said: str) -> None:
    (headline,) = folder.headlines(template(name=name))
    assert headline.endswith(f": {said}")


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("format: template, path: x", "expected template and path with format template"),
        ("format: template", "expected template and path with format template"),
        (
            "format: template, template: nginx",
            "expected template and path with format template, which has no defaults for them",
        ),
        ("format: json, template: nginx", "template only applies to format template"),
        ("format: json, vars: {a: b}", "vars only applies to format template"),
        ("format: json, vars: {}", "vars only applies to format template"),
        ("format: template, template: nginx, path: x, newline: true", "newline only applies to format raw"),
    ],
)
def test_a_template_needs_a_path_and_the_format_template(folder: Folder, file: str, said: str) -> None:
    (headline,) = folder.headlines(config(token=f"files: [{{{file}}}]"))
    assert headline.startswith(f"config.yaml:7:21: {said}")


@pytest.mark.parametrize(
    ("given", "at", "said"),
    [
        ("[a]", "7:72", "expected a mapping, found a list"),
        ("", "7:72", "expected a value, found nothing"),
        ("{a: 5}", "7:76", "expected text in quotes, found a number"),
        ("{a: b, c: ''}", "7:82", "expected text, found an empty string"),
        ("{a: {b: c}}", "7:76", "expected text, found a mapping"),
        ("{1a: b}", "7:73", "expected a name of letters, digits and '_', not beginning with a digit"),
        ("{a.b: c}", "7:73", "expected a name of letters, digits and '_', not beginning with a digit"),
        ("{a-b: c}", "7:73", "expected a name of letters, digits and '_', not beginning with a digit"),
    ],
)
def test_vars_are_names_and_texts(folder: Folder, given: str, at: str, said: str) -> None:
    (headline,) = folder.headlines(template(f", vars: {given}"))
    assert headline.startswith(f"config.yaml:{at}: {said}")


def test_an_output_over_its_own_template_is_an_error(folder: Folder) -> None:
    text = template(name="/etc/own.conf", path=", path: //etc/./own.conf")
    assert folder.headlines(text) == [
        "config.yaml:7:71: 'dnb/bci' would be written over /etc/own.conf, which bearerd reads"
    ]


@pytest.mark.parametrize(
    "client",
    [
        "ca_file: /keep",
        "headers: {X-Key: {file: /keep}}",
        "parameters: {actor_token: {file: /keep}}",
        "share: {redis: {url: redis://h}, key: {file: /keep}}",
        "share: {redis: {url: {file: /keep}}}",
        "share: {redis: {url: redis://h, username: u, password: {file: /keep}}}",
        "share: {redis: {url: rediss://h, ca_file: /keep}}",
    ],
)
def test_an_output_over_a_file_that_bearerd_reads_is_an_error(folder: Folder, client: str) -> None:
    (headline,) = folder.headlines(config(client, token="files: [{format: raw, path: //./keep}]"))
    assert headline == "config.yaml:8:41: 'dnb/bci' would be written over /keep, which bearerd reads"


def test_an_output_over_the_secret_of_another_client_is_an_error(folder: Folder) -> None:
    text = config(token="files: [{format: raw, path: /s}]")
    (headline,) = folder.headlines(text + SMALLEST.partition("\n")[2].replace("dnb:", "other:"))
    assert headline == "config.yaml:7:41: 'dnb/bci' would be written over /s, which bearerd reads"


@pytest.mark.parametrize("name", ["config.yaml", "other.yaml"])
def test_an_output_over_a_file_of_the_config_is_an_error(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(folder.path)
    path = folder.path / name
    (folder.path / "other.yaml").write_text(OTHER)
    (folder.path / "config.yaml").write_text(
        config(top="include: [other.yaml]", token=f"files: [{{format: raw, path: {path}}}]")
    )
    with pytest.raises(ConfigError) as raised:
        load("config.yaml", {})
    assert f"'dnb/bci' would be written over {path}, which bearerd reads" in raised.value.full


@pytest.mark.parametrize("path", ["/dev/stdout", "/dev/null", "//dev/./fd/1", "/dev/shm"])
def test_no_output_replaces_a_device(folder: Folder, path: str) -> None:
    (headline,) = folder.headlines(config(token=f"files: [{{format: raw, path: {path}}}]"))
    assert headline == (
        "config.yaml:7:41: expected a path outside /dev, where a file would replace a device, for every program"
    )
    folder.load(config(token="files: [{format: raw, path: /dev/shm/token}]"))


@pytest.mark.parametrize(("client", "variable"), [("3scale", "_3SCALE_BCI_TOKEN"), ("a.b-c", "A_B_C_BCI_TOKEN")])
def test_a_variable_is_valid_in_a_shell(folder: Folder, client: str, variable: str) -> None:
    assert folder.target(config().replace("dnb:", f"{client}:")).outputs[0].variable == variable


def test_an_output_with_a_template_is_checked_like_others(folder: Folder) -> None:
    assert "and 'dnb/abc'" in folder.error(
        template(path=", path: /run/bearerd/dnb/abc").replace("      bci", "      abc: {}\n      bci")
    )
    assert "expected a path without .." in folder.error(template(path=", path: ../x"))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        pytest.param("a", "a", id="the same"),
        pytest.param("a/b", "a//./b", id="in another spelling"),
        pytest.param("a", "/run/bearerd/a", id="absolute"),
        pytest.param("/srv/a", "//srv/a", id="two slashes"),
    ],
)
def test_two_outputs_with_one_path_are_an_error_that_names_both(folder: Folder, first: str, second: str) -> None:
    text = config(token=f"files: [{{format: raw, path: {first}}}]").replace(
        "      bci", f"      abc: {{files: [{{format: raw, path: {second}}}]}}\n      bci"
    )
    (headline,) = folder.headlines(text)
    assert re.fullmatch(
        r"config\.yaml:8:41: 'dnb/bci' and 'dnb/abc' \(config\.yaml:7\) would be written to the same file, (\S+)",
        headline,
    )


def test_outputs_of_two_clients_in_two_files_collide_too(folder: Folder) -> None:
    (headline,) = folder.headlines(
        config(top="include: [a.yaml]", token="files: [{format: raw, path: t}]"),
        a=OTHER.replace("{scope: bci}", "{files: [{format: raw, path: t}]}"),
    )
    assert headline == (
        "a.yaml:7:41: 'other/bci' and 'dnb/bci' (config.yaml:8) would be written to the same file, /run/bearerd/t"
    )


def test_a_shared_list_of_files_with_a_path_collides_for_the_second_token(folder: Folder) -> None:
    text = config(top="files: [{format: raw, path: t}]").replace("bci: {}", "bci: {}\n      abc: {}")
    assert "'dnb/abc' and 'dnb/bci' (config.yaml:8) would be written to the same file, /run/bearerd/t" in folder.error(
        text
    )


@pytest.mark.parametrize(("first", "second"), [("a", "a/b"), ("a/b", "a"), ("a/b/c", "a"), ("dnb", "dnb/x")])
def test_a_path_below_another_output_is_an_error(folder: Folder, first: str, second: str) -> None:
    files = f"files: [{{format: raw, path: {first}}}, {{format: raw, path: {second}}}]"
    (headline,) = folder.headlines(config(token=files))
    assert headline == (
        f"config.yaml:7:{64 + len(first)}: 'dnb/bci' would be written to /run/bearerd/{second} "
        f"and 'dnb/bci' to /run/bearerd/{first}: one is a directory of the other"
    )


# -- secrets -----------------------------------------------------------------------------------------

# KEY is one of SECRET_KEYS, and TYPO a mistyped form of it.
SECRET_SHAPES = {
    "scalar": "KEY: {}",
    "quoted": 'KEY: "{}"',
    "flow mapping": "KEY: {{{}}}",
    "value of a mapping": "KEY: {{text: {}}}",
    "as a path": "KEY: {{file: {}}}",
    "as a variable": 'KEY: {{env: "{}"}}',
    "as a command": "KEY: {{command: [{}]}}",
    "list": "KEY: [{}]",
    "list behind a reference": "KEY: [{{file: /s}}, {}]",
    "list in a list": "KEY: [[{}]]",
    "list of mappings": "KEY: [{{file: /s}}, {{{}}}]",
    "list of nine": "KEY: [{0}, {0}, {0}, {0}, {0}, {0}, {0}, {0}, {0}]",
    "block list": "KEY:\n      - {}",
    "block list behind a reference": "KEY:\n      - {{file: /s}}\n      - {}",
    "list without indentation": "KEY:\n    - {}",
    "flow over lines without indentation": "tokens: {{bci: {{KEY:\n{}, timeout: 5}}}}",
    "mapping over lines without indentation": "KEY: {{file: /s,\n{}:\nx}}",
    "list over lines without indentation": "KEY: [{{file: /s}},\n{}\n]",
    "block scalar": "KEY: |\n      {}",
    "over lines": 'KEY: "a\n      {}\n      b"',
    "over lines, plain": "KEY: a\n      {}",
    "mistyped key": "TYPO1: {}",
    "mistyped key of a mapping": "TYPO2: {{{}}}",
    "mistyped key of a list": "TYPO3:\n      - {}",
    "another key": "password: {}",
    "duplicate key": "KEY: {{file: /s}}\n    KEY: {}",
    "duplicate key in it": "KEY: {{{0}: a, {0}: b}}",
    "duplicate mistyped key": "TYPO1: a\n    TYPO1: {}",
    "open double quote": 'KEY: "{}',
    "open single quote": "KEY: '{}",
    "open quote in a list": 'KEY:\n      - "{}',
    "open brace": "KEY: {{file: {}",
    "open bracket": "KEY: [{{file: /s}}, {}",
    "two colons": "KEY: a: {}",
    "not used": "auth: none\n    KEY: {}",
    "in a token": "tokens: {{bci: {{KEY: {}}}}}",
    "as a provider's": "provider: p\n    KEY: {}",
    "parameter": "parameters: {{PARAMETER: {}}}",
    "parameter behind another": "parameters:\n      a: 5\n      PARAMETER: {}",
    "parameter before another": "parameters: {{PARAMETER: {}, a: 5}}",
    "parameter as a mapping": "parameters: {{PARAMETER: {{{}: x}}}}",
    "parameter as a list": "parameters:\n      PARAMETER:\n        - {}",
    "parameter as a list behind a reference": "parameters: {{PARAMETER: [{{file: /s}}, {}]}}",
    "parameter over lines": 'parameters: {{a: 5, PARAMETER:\n      "{}"}}',
    "parameter over lines without indentation": "parameters: {{PARAMETER:\n{}, a: 5}}",
    "parameter with an open quote": 'parameters: {{PARAMETER: "{}',
    "parameter of a token": "tokens: {{bci: {{parameters: {{PARAMETER: {}}}}}}}",
    "parameter of the grant's own": "parameters: {{client_secret: {}}}",
    "parameter twice": "parameters: {{PARAMETER: a, PARAMETER: {}}}",
}
SECRET_KEYS = {
    "client_secret": ("client_secrt", "client_sercet", "clientsecret"),
    "private_key": ("private_kye", "privat_key", "privatekey"),
    "assertion": ("assertoin", "asertion", "assertin"),
    "subject_token": ("subject_tokn", "subjct_token", "subjecttoken"),
}
# With more after it, so that a broken value swallows lines, and at the end of the file.
SECRET_PLACES = [
    "clients:\n  dnb:\n    {}\n    client_id: x\n    tokens: {{bci: {{}}}}\n",
    "clients:\n  dnb:\n    client_id: x\n    tokens: {{bci: {{}}}}\n    {}",
    # JSON is YAML too. A block inside flow style is another error.
    '{{"clients":{{"dnb":{{"client_id":"x",\n    {}\n,"tokens":{{"bci":{{}}}},"timeout":5}}}}}}\n',
]


def with_secret(place: str, shape: str, key: str, parameter: str, secret: str) -> str:
    """A config with a secret in a wrong place."""
    typos = SECRET_KEYS[key]
    for number, typo in enumerate(typos, 1):
        shape = shape.replace(f"TYPO{number}", typo)
    shape = shape.replace("KEY", key).replace("PARAMETER", parameter).format(secret)
    return place.format(shape)


# Characters at the beginning or end of a secret that make YAML read it as something else than text.
SIGNS = st.sampled_from(
    ["", *"!&*@%`|>'\"{[]#~\\\t\0\x1bü", ": ", "? ", "- ", "<<: ", "!!int ", "0x", "1_"],
)
# Hypothesis also draws constants from our source. With q9 in front, none of them is part of a message.
WORDS = st.text("abcdefghjkmnpqrstuvwxyzABCDEFGHJKMNPQRSTUVWXYZ23456789", min_size=10, max_size=16).map("q9{}".format)


@pytest.mark.parametrize("key", SECRET_KEYS)
@pytest.mark.parametrize("shape", SECRET_SHAPES)
def test_no_error_shows_a_secret_in_any_shape_at_any_place(folder: Folder, shape: str, key: str) -> None:
    for place in SECRET_PLACES:
        for parameter in SECRET_PARAMETERS if "PARAMETER" in SECRET_SHAPES[shape] else ["password"]:
            text = with_secret(place, SECRET_SHAPES[shape], key, parameter, "hunter2hunter2")
            assert "hunter2" not in folder.error(text), text


@given(
    st.sampled_from(sorted(SECRET_SHAPES)),
    st.sampled_from(sorted(SECRET_KEYS)),
    st.sampled_from(SECRET_PARAMETERS),
    st.sampled_from(SECRET_PLACES),
    SIGNS,
    WORDS,
    SIGNS,
)
@example("flow mapping", "client_secret", "password", SECRET_PLACES[0], "", "hunter2hunter2", "")
@example("mistyped key", "private_key", "password", SECRET_PLACES[1], "!", "hunter2hunter2", "")
@example("open quote in a list", "client_secret", "password", SECRET_PLACES[1], "", "hunter2hunter2", "")
# Each example writes its own file.
@settings(max_examples=600, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_no_error_ever_shows_a_secret(
    folder: Folder, shape: str, key: str, parameter: str, place: str, before: str, secret: str, after: str
) -> None:
    text = with_secret(place, SECRET_SHAPES[shape], key, parameter, before + secret + after)
    assert secret not in folder.error(text)


@given(
    st.from_regex(r"0[1-7][0-7]{8,12}", fullmatch=True),
    st.sampled_from(["client_secret", "client_secrt", "pass", "private_key", "assertion", "subject_token"]),
)
@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_no_error_shows_a_secret_of_digits_as_yaml_reads_it(folder: Folder, secret: str, key: str) -> None:
    error = folder.error(config(client=f"{key}: {secret}"))
    assert secret not in error
    assert str(int(secret, 8)) not in error


def test_the_line_of_a_secret_is_not_shown_but_the_next_one_is(folder: Folder) -> None:
    assert folder.error(config(client="timeout: 5").replace("{file: /s}", "hunter2")) == (
        "config.yaml:4:14: a duration needs a unit: write 5s if these are seconds\n"
        "    4 |     timeout: 5\n"
        "      |              ^\n"
        "config.yaml:6:20: expected a reference such as {file: /etc/bearerd/client.secret}, {env: NAME}, "
        "{credential: NAME} or {command: [argv…]}, never the secret itself"
    )


# -- the example -------------------------------------------------------------------------------------


def uncommented(text: str) -> str:
    """The example with its commented keys (`#key`, without a space) enabled."""
    return re.sub(r"^( *)#(?=[a-z-])", r"\1", text, flags=re.MULTILINE)


@pytest.mark.parametrize("change", [str, uncommented], ids=["as it is", "with all commented keys"])
def test_the_example_is_valid(folder: Folder, change: Callable[[str], str]) -> None:
    found = folder.load(change(EXAMPLE.read_text()))
    assert {"dnb/bci", "dnb/companies", "billing/api"} <= {target.full_name for target in found.targets}
    assert found.targets[0].client.provider.token_url == "https://login.bisnode.com/sandbox/v1/token.oauth2"


def keys(annotation: Any) -> Iterator[str]:
    """Every key of every model in a type."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        for name, field in annotation.model_fields.items():
            yield name
            yield from keys(field.annotation)
    for argument in get_args(annotation):
        yield from keys(argument)


@pytest.mark.parametrize("key", sorted(set(keys(models.ConfigFile))))
def test_the_example_shows_every_key(key: str) -> None:
    assert re.search(rf"(?<!\w){key}:(\s|$)", EXAMPLE.read_text(), re.MULTILINE)


def test_an_included_file_may_have_only_comments(folder: Folder) -> None:
    assert folder.load("include: [more.yaml]\n" + config(), None, more="# dnb: …\n").targets


def test_unprintable_characters_in_file_names_are_replaced(folder: Folder) -> None:
    name = b"\xff\x1b[2J\n2026 ERROR.yaml"
    (folder.path / os.fsdecode(name)).write_text("clients: {x: 1}")
    said = folder.error("include: ['*ERROR*']\n")
    assert said.splitlines()[0].startswith("??[2J?2026 ERROR.yaml:1:14: ")
    assert "\x1b" not in said
    said.encode()


def test_a_long_list_of_names_is_cut(folder: Folder) -> None:
    providers = "".join(f"  p{number}: {{token_url: https://x/}}\n" for number in range(100))
    said = folder.error(f"providers:\n{providers}clients: {{d: {{provider: zzz}}}}\n")
    assert "'p0', 'p1', " in said
    assert "'p49', and 50 more\n" in said


@pytest.mark.parametrize(
    ("key", "value"),
    [
        pytest.param("provider", "https://user:s3cr3t@example.com", id="a URL as the name of a provider"),
        pytest.param("2uTVQLlKp8I2Wz2WWXhAJp5", "1", id="base64 as a key"),
        pytest.param("5f0c8a52-6f0e-4f7c-9d0e-1f6f3a0b7c11", "1", id="a UUID as a key"),
    ],
)
def test_what_looks_like_a_secret_is_not_shown(tmp_path: Path, key: str, value: str) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(
        f"clients:\n  dnb:\n    token_url: https://a.example\n    client_id: a\n    client_secret: {{file: /s}}\n"
        f"    tokens: {{bci: {{}}}}\n    {key}: {value}\n"
    )
    with pytest.raises(ConfigError) as caught:
        load(str(file), {})
    messages = [problem.full for problem in caught.value.problems]
    assert messages
    assert not [message for message in messages if max(key, value, key=len) in message]
