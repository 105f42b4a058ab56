from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bearerd.share.address import MOST_SENTINELS, Address, AddressError, name_of, parse
from bearerd.terms import Redis, Reference


@pytest.mark.parametrize(
    ("url", "address", "name"),
    [
        ("redis://redis.internal", Address((("redis.internal", 6379),)), "redis://redis.internal:6379/0"),
        ("REDISS://Redis:7000/3", Address((("redis", 7000),), database=3, tls=True), "rediss://redis:7000/3"),
        ("redis://10.0.0.1/", Address((("10.0.0.1", 6379),)), "redis://10.0.0.1:6379/0"),
        ("redis://[::1]:7000", Address((("::1", 7000),)), "redis://[::1]:7000/0"),
        ("redis://[2001:db8::1]", Address((("2001:db8::1", 6379),)), "redis://[2001:db8::1]:6379/0"),
        (
            "redis://us%2Fer:p%40ss:w@host",
            Address((("host", 6379),), username="us/er", password="p@ss:w"),
            "redis://host:6379/0",
        ),
        ("redis://:p@ss@host", Address((("host", 6379),), password="p@ss"), "redis://host:6379/0"),
        ("redis://user@host", Address((("host", 6379),), username="user"), "redis://host:6379/0"),
        ("unix:///run/redis.sock", Address(path="/run/redis.sock"), "unix:///run/redis.sock"),
        ("unix:///run/r.sock?db=2", Address(path="/run/r.sock", database=2), "unix:///run/r.sock?db=2"),
        ("unix:///a%3Fb", Address(path="/a?b"), "unix:///a%3Fb"),
        ("unix://u:p@/r.sock", Address(path="/r.sock", username="u", password="p"), "unix:///r.sock"),
        (
            "redis+sentinel://s1,s2:7000/main",
            Address((("s1", 26379), ("s2", 7000)), service="main"),
            "redis+sentinel://s1:26379,s2:7000/main/0",
        ),
        (
            "rediss+sentinel://u:p@s1,[::1]/main/4",
            Address((("s1", 26379), ("::1", 26379)), "", "main", 4, tls=True, username="u", password="p"),
            "rediss+sentinel://s1:26379,[::1]:26379/main/4",
        ),
    ],
)
def test_a_url_is_parsed_and_named_without_user_and_password(url: str, address: Address, name: str) -> None:
    assert parse(url) == address
    assert address.name == name
    assert parse(name) == parse(address.name)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("", "must begin with redis://, rediss://, unix://, redis+sentinel:// or rediss+sentinel://"),
        ("host:6379", "must begin with"),
        ("http://host", "must begin with"),
        ("redis://" + 4089 * "h", "longer than 4096 characters"),
        ("redis://host name", "a blank or a control character"),
        ("redis://host\n", "a blank or a control character"),
        ("redis://", "has no host"),
        ("redis://:6379", "has no host"),
        ("redis://user:secret@", "has no host"),
        ("redis://host:", "no port after the colon"),
        ("redis://host:0", "not a number from 1 to 65535"),
        ("redis://host:65536", "not a number from 1 to 65535"),
        ("redis://host:\u0664", "not a number from 1 to 65535"),
        ("redis://user:secret", "not a number from 1 to 65535; write : / ? # @ in a user or password as %XX"),
        ("redis://user:se/cret@host", "write these characters of a user or password as %2F, %3F, %23"),
        ("redis://::1", "needs brackets"),
        ("redis://[::1", "no ] before the port"),
        ("redis://[::1]7000", "no ] before the port"),
        ("redis://[host]", "not an IPv6 address"),
        ("redis://hö.st", "as xn--"),
        ("redis://-host", "neither a name nor an address"),
        ("redis://h,i", "several hosts"),
        ("redis://host/x", "not a number from 0 to 9999"),
        ("redis://host/10000", "not a number from 0 to 9999"),
        ("redis://host/1/2", "not a number from 0 to 9999"),
        ("redis://host?ssl_cert_reqs=none", "use the keys of share.redis instead"),
        ("redis://host#secret", "use the keys of share.redis instead"),
        ("unix://run/redis.sock", "needs an absolute path"),
        ("unix:///", "needs an absolute path"),
        ("unix:///" + 107 * "p", "at most 107 bytes"),
        ("unix:///p%00", "at most 107 bytes"),
        ("unix:///p?timeout=1", "only ?db=NUMBER is"),
        ("unix:///p?db=", "no number after ?db="),
        ("unix:///p?db=x", "not a number from 0 to 9999"),
        ("redis+sentinel://s1", "the name under which the sentinels know the server"),
        ("redis+sentinel://s1//0", "the name under which the sentinels know the server"),
        ("redis+sentinel://s1,/main", "has no host"),
        (f"redis+sentinel://{MOST_SENTINELS * 's,'}s/main", "more than 16 sentinels"),
        ("redis+sentinel://s1/main/x", "not a number from 0 to 9999"),
    ],
)
def test_a_url_that_cannot_be_used_has_an_error_that_shows_nothing_of_it(url: str, why: str) -> None:
    with pytest.raises(AddressError) as error:
        parse(url)
    assert why in str(error.value)
    assert "secret" not in str(error.value)


@given(st.text(alphabet="redisun+tl:/?#@[]%,.0159é \n", max_size=40), st.sampled_from(["", "redis://", "unix://"]))
def test_any_text_is_an_address_or_an_error(text: str, scheme: str) -> None:
    try:
        address = parse(scheme + text)
    except AddressError:
        return
    assert parse(address.name).name == address.name


def test_a_share_whose_url_is_a_secret_is_named_by_where_it_is_read() -> None:
    assert name_of(Redis("redis://u:p@host")) == "redis://host:6379/0"
    assert name_of(Redis(Reference("file", "/etc/bearerd/redis.url"))) == "file /etc/bearerd/redis.url"


def test_the_password_is_not_in_the_representation() -> None:
    assert "secret" not in repr(parse("redis://user:secret@host"))
