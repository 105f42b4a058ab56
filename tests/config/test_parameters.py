"""Parameters of a token request."""

from __future__ import annotations

import re
from typing import get_args

import pytest

from bearerd.terms import Auth, Reference
from support.config_text import SECRET, SECRET_PARAMETERS, WAYS, Folder, config


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
