from __future__ import annotations

import gzip
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bearerd.grant.body import LONGEST_BODY
from bearerd.grant.decoding import decoded

TEXT = b'{"access_token":"t"}'
DAMAGED = "the reply is compressed, but damaged or cut off"
READS = "bearerd reads only gzip and deflate, and asks for neither"


def raw_deflate(content: bytes) -> bytes:
    stream = zlib.compressobj(wbits=-15)
    return stream.compress(content) + stream.flush()


@pytest.mark.parametrize(
    ("body", "coding"),
    [
        pytest.param(TEXT, "", id="plain"),
        pytest.param(TEXT, "identity", id="identity"),
        pytest.param(TEXT, "gzip", id="plain-that-claims-gzip"),
        pytest.param(TEXT, "deflate", id="plain-that-claims-deflate"),
        pytest.param(TEXT, "br", id="plain-that-claims-br"),
        pytest.param(gzip.compress(TEXT), "gzip", id="gzip"),
        pytest.param(gzip.compress(TEXT), " GZIP ", id="in-capitals"),
        pytest.param(gzip.compress(TEXT), "", id="gzip-that-claims-nothing"),
        pytest.param(gzip.compress(TEXT), "br", id="gzip-that-claims-br"),
        pytest.param(gzip.compress(TEXT[:5]) + gzip.compress(TEXT[5:]), "gzip", id="two-members"),
        pytest.param(gzip.compress(TEXT) + b"\0\0\0", "gzip", id="padded"),
        pytest.param(zlib.compress(TEXT), "deflate", id="zlib"),
        pytest.param(raw_deflate(TEXT), "Deflate", id="raw-deflate"),
    ],
)
def test_the_body_is_the_same_whatever_its_coding(body: bytes, coding: str) -> None:
    assert decoded(body, coding) == (TEXT, "")


@pytest.mark.parametrize("number", range(100))
def test_a_plain_body_that_claims_deflate_never_passes_for_deflate_without_a_header(number: int) -> None:
    body = b'{\n  "access_token": "t-%d",\n  "token_type": "Bearer"\n}' % number
    assert decoded(body, "deflate") == (body, "")


@pytest.mark.parametrize(
    ("body", "coding", "said"),
    [
        pytest.param(gzip.compress(TEXT)[:-1], "gzip", DAMAGED, id="cut-off"),
        pytest.param(gzip.compress(TEXT)[:-5] + b"\xff" * 5, "gzip", DAMAGED, id="another-checksum"),
        pytest.param(zlib.compress(TEXT), "gzip", DAMAGED, id="zlib-that-claims-gzip"),
        pytest.param(b"\xff\xfe", "deflate", DAMAGED, id="no-deflate"),
        pytest.param(b"\xff\xfe", "br", f"the reply is encoded as br; {READS}", id="br"),
        pytest.param(b"\xff\xfe", "zstd", f"the reply is encoded as zstd; {READS}", id="zstd"),
        pytest.param(b"\xff\xfe", "s3cret", f"the reply is encoded in an unknown way; {READS}", id="another-name"),
        pytest.param(b"\xff\xfe", "gzip, br", f"the reply is encoded in an unknown way; {READS}", id="several"),
    ],
)
def test_a_body_that_cannot_be_decoded_is_left_as_it_is(body: bytes, coding: str, said: str) -> None:
    assert decoded(body, coding) == (body, said)


@pytest.mark.parametrize(
    ("bomb", "coding"),
    [
        pytest.param(gzip.compress(b" " * (40 << 20)), "gzip", id="gzip"),
        pytest.param(zlib.compress(b" " * (40 << 20)), "deflate", id="deflate"),
        pytest.param(gzip.compress(b" " * 30000) * 500, "gzip", id="many-members"),
    ],
)
def test_a_bomb_costs_no_memory(bomb: bytes, coding: str) -> None:
    assert len(bomb) <= LONGEST_BODY
    tracemalloc.start()
    try:
        content, said = decoded(bomb, coding)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (len(content), said) == (LONGEST_BODY + 1, "")
    assert peak < 10 * LONGEST_BODY


def test_a_compressed_body_beyond_the_limit_is_not_decoded() -> None:
    body = gzip.compress(TEXT) + b"\0" * LONGEST_BODY
    assert decoded(body, "gzip") == (body, "")


CODINGS = st.sampled_from(["", "identity", "gzip", "x-gzip", "deflate", "br", "gzip, gzip", "x"]) | st.text(max_size=9)


@given(
    st.binary(max_size=200)
    | st.binary(max_size=200).map(gzip.compress)
    | st.tuples(st.binary(max_size=200).map(zlib.compress), st.integers(0, 60)).map(lambda cut: cut[0][cut[1] :])
    | st.binary(max_size=60).map(lambda some: b"\x1f\x8b\x08" + some),
    CODINGS,
)
def test_any_body_with_any_coding_is_decoded_or_left_as_it_is(body: bytes, coding: str) -> None:
    content, said = decoded(body, coding)
    assert len(content) <= LONGEST_BODY + 1
    assert said == "" or content == body
    assert said.isprintable()
