"""Which keys each `auth` needs and allows."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from bearerd.model import Client, Jwt
from bearerd.terms import Auth, Reference
from support.config_text import BASE, CERTIFIED, KEY, OPEN, PRESENTED, SECRET, SIGNED, WAYS, Folder, config

WANTED = (
    "expected a reference such as {file: /etc/bearerd/client.secret}, {env: NAME}, {credential: NAME} or "
    "{command: [argv…]}, never the secret itself"
)
READY = replace(BASE, client_id="", assertion=Reference("file", "/a"))


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
