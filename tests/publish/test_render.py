from __future__ import annotations

import json
import shlex
import subprocess

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bearerd.model import Output
from bearerd.publish.render import render
from bearerd.terms import Instant
from support.targets import target, token

VISIBLE = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=80)
TARGET = target()


def test_raw_is_the_token_and_nothing_else() -> None:
    assert render(TARGET, token("abc"), Output("/x")) == b"abc"


def test_raw_with_newline_ends_in_one() -> None:
    assert render(TARGET, token("abc"), Output("/x", newline=True)) == b"abc\n"


def test_header_is_the_format_of_curl() -> None:
    assert render(TARGET, token("abc"), Output("/x", format="header")) == b"Authorization: Bearer abc\n"


def test_json_is_one_document_with_the_providers_fields_and_ours() -> None:
    issued = token(
        "abc",
        lifetime=3599.9,
        obtained=Instant(1_795_464_000.9, 10.0),
        scope="bci",
        extra='{"instance_url": "https://eu.example.com", "client": "not this one"}',
    )
    assert json.loads(render(TARGET, issued, Output("/x", format="json"))) == {
        "access_token": "abc",
        "token_type": "Bearer",
        "scope": "bci",
        "expires_in": 3599,
        "expires_at": "2026-11-23T21:00:00Z",
        "obtained_at": "2026-11-23T20:00:00Z",
        "client": "dnb",
        "token": "bci",
        "instance_url": "https://eu.example.com",
    }


def test_json_has_no_scope_if_none_is_known() -> None:
    assert "scope" not in json.loads(render(TARGET, token(), Output("/x", format="json")))


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_a_shell_reads_the_token_from_env(shell: str) -> None:
    text = "a'b\"c$d`e\\f!g#h%i{{j}}k;l&m|n"
    script = render(TARGET, token(text), Output("/x", format="env", variable="T")).decode()
    done = subprocess.run([shell, "-c", script + 'printf %s "$T"'], capture_output=True, text=True, check=True)
    assert done.stdout == text


@given(VISIBLE)
@example("'")
@example("''\\''")
def test_no_token_breaks_out_of_env(text: str) -> None:
    line = render(TARGET, token(text), Output("/x", format="env", variable="DNB_TOKEN")).decode()
    assert shlex.split(line) == [f"DNB_TOKEN={text}"]


@given(VISIBLE)
def test_every_token_survives_json(text: str) -> None:
    assert json.loads(render(TARGET, token(text), Output("/x", format="json")))["access_token"] == text


def test_header_always_says_bearer() -> None:
    odd = token("abc", token_type="Application Access Token")
    assert render(TARGET, odd, Output("/x", format="header")) == b"Authorization: Bearer abc\n"
    assert json.loads(render(TARGET, odd, Output("/x", format="json")))["token_type"] == "Application Access Token"


def test_json_holds_replies_of_any_accepted_depth() -> None:
    deep = '{"x": ' + "[" * 900 + "]" * 900 + "}"
    assert render(TARGET, token("abc", extra=deep), Output("/x", format="json")).count(b"[") == 900
