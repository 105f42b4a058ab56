from __future__ import annotations

import base64
from datetime import UTC, datetime

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from bearerd.grant.certificate import expired, expiry_of
from support.oidc import private_key, self_signed

BEGINS = datetime(1960, 1, 1, tzinfo=UTC)


def pem(der: bytes) -> str:
    return f"-----BEGIN CERTIFICATE-----\n{base64.b64encode(der).decode()}\n-----END CERTIFICATE-----\n"


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
@pytest.mark.parametrize(
    "ends",
    [
        pytest.param(datetime(1999, 12, 31, 23, 59, 59, tzinfo=UTC), id="UTCTime-of-the-20th-century"),
        pytest.param(datetime(2027, 3, 4, 5, 6, 7, tzinfo=UTC), id="UTCTime"),
        pytest.param(datetime(2050, 1, 1, tzinfo=UTC), id="GeneralizedTime"),
        pytest.param(datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC), id="never"),
    ],
)
def test_the_expiry_is_that_of_the_certificate(algorithm: str, ends: datetime) -> None:
    text = self_signed(private_key(algorithm), not_before=BEGINS, not_after=ends)
    assert expiry_of(f"Bag Attributes: none\n{text}") == ends.timestamp()


def test_the_first_certificate_of_a_chain_counts() -> None:
    ends = datetime(2020, 2, 1, tzinfo=UTC)
    leaf = trustme.CA().create_child_ca().issue_cert("client", not_before=BEGINS, not_after=ends)
    chain = "".join(part.bytes().decode() for part in leaf.cert_chain_pems)
    assert expired(chain, "file /c.pem", ends.timestamp() - 1) is None
    assert expired(chain, "file /c.pem", ends.timestamp()) == (
        "the client certificate in file /c.pem expired on 2020-02-01"
    )


@given(st.text() | st.binary(max_size=60).map(pem) | st.binary(max_size=60).map(lambda some: pem(b"\x30\x30" + some)))
def test_other_text_has_no_expiry_and_raises_nothing(text: str) -> None:
    assert expiry_of(text) is None


def test_a_certificate_that_is_cut_short_has_no_expiry() -> None:
    whole = base64.b64decode("".join(self_signed(private_key("ES256")).splitlines()[1:-1]))
    assert expiry_of(pem(whole)) is not None
    assert {expiry_of(pem(whole[:length])) for length in range(len(whole))} == {None}
