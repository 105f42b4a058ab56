"""The grant: its type, scope, assertion and claims."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from bearerd.model import Jwt, JwtBearer
from bearerd.terms import Reference
from support.config_text import CERTIFIED, JWT_BEARER, OPEN, SECRET, WAYS, Folder, config


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
