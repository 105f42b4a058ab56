"""Answers, and how they get into the config."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from bearerd.providers.catalog import preset
from bearerd.providers.preset import Kind, Preset, Question, Secret, fault, quoted, rendered, secret_fault

TEXTS = ["0123", "no", "Off", "null", "~", "1e5", "0x1f", "12:30:45", "2026-11-28", "a: b", "a #b", "'", '"', "\\"]
TEXTS += [
    "{a}",
    "[a, b]",
    "&a",
    "*a",
    "!a",
    "%a",
    "@a",
    "`a",
    "- a",
    "? a",
    "\u2028\u0085",
    "\U0001f600",
    "=",
    "<<",
    ".",
]


@pytest.mark.parametrize("text", TEXTS)
def test_yaml_reads_an_answer_as_it_was_given(text: str) -> None:
    assert yaml.safe_load(f"{{a: {quoted(text)}, b: 1}}") == {"a": text, "b": 1}


@given(st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1))
def test_yaml_reads_any_answer_as_it_was_given(text: str) -> None:
    assert yaml.safe_load(f"a: [{quoted(text)}]\n") == {"a": [text]}


@pytest.mark.parametrize("text", ["reports", "/etc/bearerd/a.secret", "https://sso.example.com/realms/acme"])
def test_a_plain_answer_needs_no_quotes(text: str) -> None:
    assert quoted(text) == text


@pytest.mark.parametrize(
    ("kind", "answer", "said"),
    [
        ("text", "", "an answer is required"),
        ("text", "a\nb", "it contains a line end"),
        ("text", "a\x1b[0m", "another character that cannot be printed"),
        ("text", " a", "it begins or ends with a space; remove it"),
        ("text", "a" * 4001, "longer than 4000 characters"),
        ("text", "{a: $b} 'c'", None),
        ("name", "a/b", 'expected letters, digits, ".", "_" and "-"'),
        ("name", "a.b-c_1", None),
        ("host", "https://x.example", "expected a host such as h.example, without https://"),
        ("host", "x.example/", "without a path"),
        ("host", "x.example:8443", None),
        ("host", "[::1]:8080", None),
        ("url", "x.example/token", "expected a URL such as h.example"),
        ("url", "http://x.example/token", "plain http is allowed to this machine only"),
        ("url", "http://127.0.0.1.example/token", "plain http is allowed to this machine only"),
        ("url", "https://user:pw@x.example/", "expected a URL"),
        ("url", "http://127.0.0.1:8080/token", None),
        ("url", "http://localhost/", None),
        ("url", "https://x.example/token?a=b", None),
        ("path", "a", "expected an absolute path"),
        ("path", "/a b", None),
    ],
)
def test_answers_are_checked(kind: Kind, answer: str, said: str | None) -> None:
    found = fault(Question("q", "Q", kind, example="h.example"), answer)
    assert found is None if said is None else found is not None and said in found


def test_an_answer_is_one_of_the_choices_and_may_be_left_out_if_it_is_optional() -> None:
    assert fault(Question("q", "Q", choices=("a", "b")), "c") == "expected a or b"
    assert fault(Question("q", "Q", optional=True), "") is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "it is empty"),
        (" \t", "it is empty"),
        ("a\nb", "it has more than one line"),
        ("\ufeffa", "it begins with a byte order mark"),
        ("a ", "it begins or ends with a space, which would be sent as part of it; remove it"),
        ("a\udce4", "it is not UTF-8 text"),
        ("a b%+:\u00e9", None),
    ],
)
def test_secrets_are_checked(text: str, said: str | None) -> None:
    assert secret_fault(text) == said


def clients(name: str, answers: dict[str, str], top: str = "") -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(rendered(preset(name), answers, "/s/x", top))
    clients: dict[str, Any] = document["clients"]
    return clients


BASE = {"name": "a", "token_url": "https://x.example/t", "client_id": "i", "auth": "client_secret_post"}


def test_an_optional_answer_that_is_missing_leaves_out_its_line_and_keeps_the_token() -> None:
    assert clients("other", BASE) == {
        "a": {
            "token_url": "https://x.example/t",
            "client_id": "i",
            "client_secret": {"file": "/s/x"},
            "auth": "client_secret_post",
            "tokens": {"api": {}},
        }
    }
    more = clients("other", BASE | {"scope": "a b", "audience": "no"})["a"]
    assert (more["parameters"], more["tokens"]) == ({"audience": "no"}, {"api": {"scope": "a b"}})


def test_plain_http_to_this_machine_is_allowed_in_the_config() -> None:
    assert clients("other", BASE | {"token_url": "http://127.0.0.1:8080/t"})["a"]["allow_http"] is True
    assert "allow_http" not in clients("other", BASE)["a"]


def test_a_placeholder_inside_a_word_is_quoted_with_the_word() -> None:
    chosen = Preset(
        "p", "P", "", (Question("x", "X"),), Secret("S", "text", "$x.secret"), "a: {b: https://$x/c, d: 1}\n$x:"
    )
    found = yaml.safe_load(rendered(chosen, {"x": "y: #z"}, "/s"))
    assert (found["a"], chosen.secret_file({"x": "y"})) == ({"b": "https://y: #z/c", "d": 1}, "y.secret")
    assert "y: #z" in found


def test_the_config_begins_with_the_notes_and_more_keys_may_follow() -> None:
    text = rendered(preset("auth0"), {"host": "h", "client_id": "i", "audience": "a"}, "/s/x", "output: {mode: '0600'}")
    assert text.startswith("# The config of bearerd, written by `bearerd init auth0` (Auth0).")
    assert "\n# Create a *Machine to Machine* application" in text
    assert "\noutput: {mode: '0600'}\n\nclients:\n" in text
    assert max(map(len, text.splitlines())) <= 120
