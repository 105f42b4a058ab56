"""The search for secrets finds what it looks for, and nothing else."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from urllib.parse import quote, quote_plus

import pytest

from canary.suites import not_searched
from support.canary import Canary, Watch

SECRET = 's3cr3t + "/ü&= of-the-client'
TOKEN = "t-1"


def found(text: str, *secrets: str) -> list[str]:
    canary = Canary()
    for secret in secrets or (SECRET, TOKEN):
        canary.add("secret", secret)
    return [hit.form for hit in canary.search("here", text.encode(errors="surrogatepass"))]


@pytest.mark.parametrize(
    "encode",
    [
        pytest.param(str, id="as it is"),
        pytest.param(json.dumps, id="JSON"),
        pytest.param(lambda text: json.dumps(json.dumps(text)), id="JSON in JSON"),
        pytest.param(repr, id="repr"),
        pytest.param(quote, id="URL"),
        pytest.param(quote_plus, id="form"),
        pytest.param(lambda text: text.encode().hex(), id="hex"),
        pytest.param(lambda text: base64.b64encode(f"7e0c5a:{text}".encode()).decode(), id="Basic"),
        pytest.param(lambda text: base64.b64encode(f"7e0c5:{text}!".encode()).decode(), id="Basic, another offset"),
        pytest.param(lambda text: base64.urlsafe_b64encode(f"{{{text}}}".encode()).decode(), id="JWT"),
        pytest.param(lambda text: text[5:17], id="twelve characters of it"),
    ],
)
def test_a_secret_is_found_in_every_encoding(encode: Callable[[str], str]) -> None:
    assert found(f"2026 WARNING the provider said <{encode(SECRET)}>; retrying")


@pytest.mark.parametrize("text", ["got t-1", "token=t-1.", '{"x": "t-1"}', "'t-1'", "(t-1)"])
def test_a_short_token_is_found_as_a_word(text: str) -> None:
    assert found(text) == ["as it is"]


@pytest.mark.parametrize("text", ["the client was refused", "t-10 get-1", "s3cr3t of another", "of-the-clie"])
def test_other_texts_are_no_hits(text: str) -> None:
    assert found(text) == []


def test_a_word_cannot_be_looked_for_and_is_counted() -> None:
    canary = Canary()
    canary.add("secret", "first")
    assert (len(canary), canary.unmarked) == (0, {"first"})


def test_of_a_url_only_the_login_is_a_secret() -> None:
    url = "redis://bearerd:s3cr3t-of-redis@127.0.0.1:6379/0"
    assert found("the server redis://127.0.0.1:6379/0", url) == []
    assert found("as bearerd:s3cr3t-of-redis", url)


def test_a_hit_does_not_show_the_secret() -> None:
    canary = Canary()
    canary.add("secret", SECRET)
    (hit,) = canary.search("here", f"said {SECRET}!".encode())
    assert (str(hit).count(SECRET[:12]), hit.line) == (0, "said ********!")


@pytest.fixture
def watch() -> Iterator[Watch]:
    one = Watch()
    yield one
    one.close()


LEAKS = """
import logging
from bearerd.log import LOGGER, say
from bearerd.model import Logging
from bearerd.service.logs import set_up
from bearerd.terms import Instant, Reference, Token
set_up(Logging("error", "text"), {})
token = Token("tok-Qm9vOmJhcg", Instant(0, 0), 60, extra='{"id_token": "id-aGVsbG8gd29y"}')
say(logging.DEBUG, "obtained", name="dnb/bci", reply={"t": token.access_token})
say(logging.INFO, f"and {token.extra_fields()['id_token']}")
LOGGER.error("done")
"""


def test_a_process_tells_its_tokens_and_its_log_at_debug_in_both_formats(watch: Watch) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LEAKS], env=dict(watch.tap.environ), capture_output=True, text=True, check=True
    )
    hits = watch.hits()
    # Each of the two leaks in both formats. The log itself stays as it was configured.
    assert [(hit.kind, hit.line.count("********")) for hit in hits] == [("token", 1)] * 2 + [("id_token", 1)] * 2
    assert (done.stderr.count("\n"), done.stderr.count("ERROR   done"), watch.lines) == (1, 1, 6)


@pytest.mark.parametrize(
    ("output", "lines", "why"),
    [
        (b"SKIPPED: apt-get install gcc\n", 0, "SKIPPED: apt-get install gcc"),
        (b"all of it in 3 s\n", 0, "no daemon told what it logged"),
        (b"a dead first address: SKIPPED: there is no IPv6 here\n", 7, ""),
    ],
)
def test_a_rig_that_did_not_run_was_not_searched(output: bytes, lines: int, why: str) -> None:
    assert not_searched(output, lines) == why
