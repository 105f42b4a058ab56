"""The words for a request and its reply. tests/test_messages.py has those of `check --online`."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from bearerd.grant.certificate import expiry_of, subject_of
from bearerd.grant.exchange import described
from bearerd.grant.outcome import NoReply
from bearerd.grant.reply import Reply
from bearerd.grant.request import Request

FORM = b"grant_type=client_credentials&scope=bci&audience=a&audience=b&empty="
REQUEST = Request(
    "https://u.example.com/token?code=hunter2#x",
    {"Accept": "application/json", "X-Api-Key": "hunter2", "Content-Type": "application/x-www-form-urlencoded"},
    FORM,
    secrets=("hunter2",),
)
NOTHING = NoReply("connect", "")


def test_a_request_is_described_by_names() -> None:
    exchange = described(REQUEST, NOTHING)

    assert (exchange.method, exchange.url) == ("POST", "https://u.example.com/token")
    assert exchange.parameters == ("grant_type", "scope", "audience", "empty")
    assert exchange.headers == ("Accept", "X-Api-Key", "Content-Type")
    assert (exchange.status, exchange.fields, exchange.code) == (None, "", "")
    assert "hunter2" not in repr(exchange)


def test_a_json_body_is_described_by_the_names_of_its_members() -> None:
    body = json.dumps({"grant_type": "client_credentials", "client_id": "7e0c5a"}).encode()
    exchange = described(Request("https://x/t", {"Content-Type": "application/json"}, body), NOTHING)

    assert (exchange.parameters, exchange.as_json) == (("grant_type", "client_id"), True)


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        pytest.param(["access_token", "not-before-policy", ".issued", "x5t"], None, id="names"),
        pytest.param([], "none", id="none"),
        pytest.param(["hunter2"], "1 more", id="the-secret"),
        pytest.param(["a_hunter2"], "1 more", id="quotes-the-secret"),
        pytest.param(["HUNTER"], "1 more", id="part-of-the-secret"),
        pytest.param(["hu", "expires_in"], "hu, expires_in", id="two-letters-of-it-by-chance"),
        pytest.param(["a" * 41, "\x1b[2J", "schlüssel", "a b"], "4 more", id="no-names"),
        pytest.param(
            [f"{letter}{other}_" for letter in "abcde" for other in "abcde"],
            ", ".join(f"{letter}{other}_" for letter in "abcde" for other in "abcde")[: 24 * 5 - 2] + ", 1 more",
            id="many",
        ),
    ],
)
def test_names_of_fields_are_shown_if_they_look_like_names(names: list[str], shown: str | None) -> None:
    body = json.dumps(dict.fromkeys(names, 1)).encode()
    exchange = described(REQUEST, Reply(200, {}, body))

    assert exchange.fields == (", ".join(names[:3]) + ", 1 more" if shown is None else shown)


@pytest.mark.parametrize(
    ("header", "shown"),
    [
        ("Application/JSON; charset=utf-8", "application/json"),
        ("application/problem+json", "application/problem+json"),
        ("", "no Content-Type"),
        ("json", "another Content-Type"),
        ("text/\x1b[2J", "another Content-Type"),
        ("text/hunter2", "another Content-Type"),
    ],
)
def test_the_content_type_is_shown_if_it_looks_like_one(header: str, shown: str) -> None:
    assert described(REQUEST, Reply(200, {"content-type": header}, b"")).content_type == shown


def pem(body: str) -> str:
    return f"-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----"


# A year before 2050 is written as UTCTime, a later one as GeneralizedTime.
@pytest.mark.parametrize("year", [2031, 2051])
def test_the_subject_and_the_expiry_of_a_certificate(year: int) -> None:
    key, expires = generate_private_key(SECP256R1()), datetime(year, 5, 6, 7, 8, 9, tzinfo=UTC)
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.COUNTRY_NAME, "SE"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Acme\x1b AB"),
            x509.NameAttribute(NameOID.EMAIL_ADDRESS, "acme@example.com"),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "Bücher", _ASN1Type.BMPString),
            x509.NameAttribute(NameOID.COMMON_NAME, "bearerd.example.com"),
        ]
    )
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, expires - timedelta(days=90), expires)
        .sign(key, hashes.SHA256())
        .public_bytes(Encoding.PEM)
        .decode()
    )
    other = trustme.CA().cert_pem.bytes().decode()

    for text in (certificate, certificate + other):  # the others are those of its authorities
        assert subject_of(text) == "C=SE, O=Acme? AB, OU=Bücher, CN=bearerd.example.com"
        assert expiry_of(text) == expires.timestamp()


@pytest.mark.parametrize("text", ["", "no certificate", pem(""), pem("MA=="), pem("MIIB"), pem("é")])
def test_what_is_no_certificate_has_no_subject(text: str) -> None:
    assert subject_of(text) is None
    assert expiry_of(text) is None


@given(st.binary(max_size=200))
def test_any_bytes_in_a_certificate_are_read_without_an_exception(content: bytes) -> None:
    text = pem(base64.b64encode(content).decode())

    assert (subject_of(text) or "").isprintable()
    expiry_of(text)
