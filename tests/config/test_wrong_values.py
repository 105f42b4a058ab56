"""Unknown keys, wrong values and wrong names: each error at its place."""

from __future__ import annotations

import re
from math import inf

import pytest

from bearerd.terms import RateLimit
from support.config_text import A_PROXY, NO_LOGIN, SMALLEST, Folder, config


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
        ("top", "output: {group: 4294967295}", "expected the name or number of a user or group, found a number"),
        ("top", "output: {owner: '4294967295'}", "its number up to 4294967294"),
        ("top", f"output: {{owner: '{'9' * 5000}'}}", "its number up to 4294967294"),
        ("top", r'output: {owner: "\u0661"}', "its number up to 4294967294"),
        ("top", r'listen: {address: "[::1%\0]:9811"}', "expected an IP address and a port in quotes"),
        (
            "top",
            'listen: {address: "[fe80::1%a-name-that-is-too-long]:9811"}',
            "expected an IP address and a port in quotes",
        ),
        ("client", "proxy: http://a%00b:1", "expected a URL without % in its host"),
        ("client", "proxy: http://[fe80::1%00]:1", "expected a URL without % in its host"),
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
            "expected a percentage of the lifetime such as 20%, or a duration such as 60s: write 50% or 50s",
        ),
        (
            "refresh_before",
            ["51"],
            "expected a percentage of the lifetime such as 20%, or a duration such as 60s: write 51s",
        ),
        (
            "refresh_before",
            ["0.2"],
            "expected a percentage of the lifetime such as 20%, or a duration such as 60s: write 20%",
        ),
        ("default_lifetime", ["0s", "0ms", "0.0h"], "expected a duration above zero"),
        ("refresh_before", ["0s"], "expected a duration above zero"),
        ("default_lifetime", ["3651d", "9" * 400 + "d"], "expected a duration of at most 3650d"),
        (
            "refresh_before",
            ["0%", "0.0%", "50.1%", "51%", "100%"],
            "expected a percentage of the lifetime above 0% and up",
        ),
        (
            "refresh_before",
            ["20", "-1%", "20 %", "'%'"],
            "expected a percentage of the lifetime such as 20%, or a dura",
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
