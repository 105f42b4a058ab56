from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import replace
from urllib.parse import unquote, unquote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bearerd import __version__
from bearerd.grant.request import Credentials, basic, compose, depends_on_encoding
from bearerd.model import BasicEncoding, Client
from support.targets import CLIENT, PROVIDER, target

CREDENTIALS = Credentials("7e0c5a", "s3cret")
POST = replace(CLIENT, auth="client_secret_post")

# Any secret or id that can come out of a file: UTF-8 has no lone surrogates.
TEXTS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=40)


def pair_of(header: str) -> str:
    """What a provider finds in a Basic header before it decodes anything else."""
    kind, _, encoded = header.partition(" ")
    assert kind == "Basic"
    return base64.b64decode(encoded, validate=True).decode()


def test_the_first_provider_gets_exactly_what_its_page_shows() -> None:
    request = compose(target(), CREDENTIALS)

    assert request.url == PROVIDER.token_url
    assert request.body == b"grant_type=client_credentials&scope=bci"
    assert request.headers == {
        "Accept": "application/json",
        "Accept-Encoding": "identity",
        "Content-Type": "application/x-www-form-urlencoded",
        "User-Agent": f"bearerd/{__version__}",
        "Authorization": "Basic N2UwYzVhOnMzY3JldA==",
    }


def test_client_secret_post_puts_the_credentials_into_the_form_and_nowhere_else() -> None:
    request = compose(target(client=POST), Credentials("7e0c5a", "q+7/Zz0= ä"))

    assert request.body == (
        b"grant_type=client_credentials&scope=bci&client_id=7e0c5a&client_secret=q%2B7%2FZz0%3D+%C3%A4"
    )
    assert "Authorization" not in request.headers


def test_scopes_are_delimited_by_spaces() -> None:
    assert compose(target(scope="bci risk:read"), CREDENTIALS).body == (
        b"grant_type=client_credentials&scope=bci+risk%3Aread"
    )


def test_without_a_scope_there_is_no_scope_field() -> None:
    assert compose(target(scope=""), CREDENTIALS).body == b"grant_type=client_credentials"


def test_a_parameter_may_repeat_and_keeps_its_order() -> None:
    parameters = (("resource", "https://b.example"), ("audience", "x&y"), ("resource", "https://a.example"))

    assert compose(target(scope="", parameters=parameters), CREDENTIALS).body == (
        b"grant_type=client_credentials&resource=https%3A%2F%2Fb.example&audience=x%26y"
        b"&resource=https%3A%2F%2Fa.example"
    )


@pytest.mark.parametrize(
    ("secret", "compatible", "rfc6749"),
    [
        pytest.param("plain", "plain", "plain", id="nothing-special"),
        pytest.param("q+7/Zz0=", "q%2B7/Zz0=", "q%2B7%2FZz0%3D", id="base64"),
        pytest.param("a+b%2Fc/d=e:f%", "a%2Bb%252Fc/d=e:f%25", "a%2Bb%252Fc%2Fd%3De%3Af%25", id="percent"),
        pytest.param(" two words ", "%20two%20words%20", "+two+words+", id="spaces"),
        pytest.param("pä€", "p%C3%A4%E2%82%AC", "p%C3%A4%E2%82%AC", id="non-latin-1"),
        pytest.param("\x01\t\x1f\x7f", "%01%09%1F%7F", "%01%09%1F%7F", id="control"),
        pytest.param("/=!$@#~", "/=!$@#~", "%2F%3D%21%24%40%23~", id="punctuation"),
    ],
)
def test_basic_encodes_the_secret_in_three_ways(secret: str, compatible: str, rfc6749: str) -> None:
    def sent(encoding: BasicEncoding) -> str:
        return pair_of(basic(Credentials("id", secret), encoding))

    assert sent("compatible") == f"id:{compatible}"
    assert sent("rfc6749") == f"id:{rfc6749}"
    assert sent("raw") == f"id:{secret}"


@pytest.mark.parametrize(
    ("encoding", "pair"),
    [
        ("compatible", "acme%3Aprod%2B:s"),
        ("rfc6749", "acme%3Aprod%2B:s"),
        ("raw", "acme:prod+:s"),
    ],
)
def test_a_colon_in_the_id_ends_it_only_when_raw(encoding: BasicEncoding, pair: str) -> None:
    assert pair_of(basic(Credentials("acme:prod+", "s"), encoding)) == pair


def test_the_clients_encoding_is_the_one_that_is_sent() -> None:
    raw = replace(CLIENT, basic_encoding="raw")

    header = compose(target(client=raw), Credentials("id", "a+b")).headers["Authorization"]

    assert pair_of(header) == "id:a+b"


@pytest.mark.parametrize("decode", [unquote, unquote_plus])
@given(client_id=TEXTS, secret=TEXTS)
def test_decoders_of_both_kinds_restore_what_compatible_encodes(
    decode: Callable[[str], str], client_id: str, secret: str
) -> None:
    name, _, password = pair_of(basic(Credentials(client_id, secret), "compatible")).partition(":")

    assert (decode(name), decode(password)) == (client_id, secret)


# Printable ASCII without what `compatible` has to encode for the decoders' sake.
UNTOUCHED = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in "%+")


@given(client_id=st.text(UNTOUCHED.replace(":", ""), min_size=1), secret=st.text(UNTOUCHED, min_size=1))
def test_a_provider_that_does_not_decode_finds_the_rest_as_it_is(client_id: str, secret: str) -> None:
    assert pair_of(basic(Credentials(client_id, secret), "compatible")) == f"{client_id}:{secret}"


@given(client_id=TEXTS, secret=TEXTS)
def test_a_form_decoder_restores_what_rfc6749_encodes(client_id: str, secret: str) -> None:
    name, _, password = pair_of(basic(Credentials(client_id, secret), "rfc6749")).partition(":")

    assert (unquote_plus(name), unquote_plus(password)) == (client_id, secret)


@pytest.mark.parametrize("client", [CLIENT, POST], ids=lambda client: client.auth)
def test_no_repr_shows_the_secret(client: Client) -> None:
    credentials = Credentials("7e0c5a", "h0rse-staple")
    request = compose(target(client=client), credentials)

    shown = repr(credentials) + repr(request)

    assert "h0rse-staple" not in shown
    assert base64.b64encode(b"7e0c5a:h0rse-staple").decode() not in shown


@pytest.mark.parametrize(
    ("secret", "depends"),
    [("a+b", True), ("a%b", True), ("a b", True), ("/=!$@#~:", False), ("ä", False)],
)
def test_providers_differ_over_plus_percent_and_space(secret: str, depends: bool) -> None:
    assert depends_on_encoding(secret) is depends
