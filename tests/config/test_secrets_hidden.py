"""No error shows a secret, whatever the mistake."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from bearerd.config.load import load
from bearerd.errors import ConfigError
from support.config_text import SECRET_PARAMETERS, Folder, config

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
