from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bearerd.redis_address import Address, BadAddressError, parse


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://cache", Address("redis", (("cache", 6379),))),
        ("redis://cache:7000/3", Address("redis", (("cache", 7000),), database=3)),
        ("rediss://cache.internal/", Address("rediss", (("cache.internal", 6379),))),
        ("rediss://[::1]:6380", Address("rediss", (("::1", 6380),))),
        ("unix:///run/redis.sock", Address("unix", socket="/run/redis.sock")),
        ("unix:///" + "x" * 106, Address("unix", socket="/" + "x" * 106)),
        ("unix:///run/a%20b.sock?db=2", Address("unix", socket="/run/a b.sock", database=2)),
        (
            "redis+sentinel://a,b:26380/tokens/1",
            Address("redis+sentinel", (("a", 26379), ("b", 26380)), service="tokens", database=1),
        ),
        ("rediss+sentinel://a/tokens", Address("rediss+sentinel", (("a", 26379),), service="tokens")),
    ],
)
def test_a_url_names_a_server(url: str, address: Address) -> None:
    assert parse(url) == address


@pytest.mark.parametrize(
    ("login", "username", "password"),
    [
        ("bearerd:hunter2", "bearerd", "hunter2"),
        (":hunter2", None, "hunter2"),
        ("bearerd", "bearerd", None),
        ("b%40d:p%2Fw%3A%40", "b@d", "p/w:@"),
        ("bearerd:p@w", "bearerd", "p@w"),
    ],
)
@pytest.mark.parametrize("rest", ["cache/0", "[::1]:7000/0"])
def test_a_login_is_decoded_and_not_part_of_the_name(
    login: str, username: str | None, password: str | None, rest: str
) -> None:
    address = parse(f"redis://{login}@{rest}")
    assert (address.username, address.password) == (username, password)
    assert "hunter2" not in repr(address)
    assert "@" not in address.name


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("rediss://u:p@cache", "rediss://cache:6379/0"),
        ("redis://[::1]/2", "redis://[::1]:6379/2"),
        ("unix://u:p@/run/redis.sock?db=1", "unix:///run/redis.sock?db=1"),
        ("redis+sentinel://:p@a,b/tokens", "redis+sentinel://a:26379,b:26379/tokens/0"),
    ],
)
def test_the_name_has_the_defaults_and_parses_to_the_same_server(url: str, name: str) -> None:
    assert parse(url).name == name
    assert parse(name).name == name


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("unix:///run/redis.sock", True),
        ("redis://localhost", True),
        ("redis://127.0.0.2", True),
        ("redis://[::1]", True),
        ("redis://10.0.0.1", False),
        ("redis://cache", False),
        ("redis+sentinel://127.0.0.1,10.0.0.1/tokens", False),
    ],
)
def test_only_loopback_and_sockets_are_on_this_machine(url: str, local: bool) -> None:
    assert parse(url).local is local


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("", "begins with redis://"),
        ("cache:6379", "begins with redis://"),
        ("http://cache", "begins with redis://"),
        ("REDIS://cache", "begins with redis://"),
        ("redis://", "with a host"),
        ("redis:///0", "with a host"),
        ("redis://cache:0", "with a host"),
        ("redis://cache:65536", "with a host"),
        ("redis://cache:hunter2", "with a host"),
        ("redis://[::1", "with a host"),
        ("redis://[1:2:3]", "with a host"),
        ("redis://a,b", "one host"),
        ("redis://cache/hunter2", "number of a database"),
        ("redis://cache/0/1", "number of a database"),
        ("redis://cache?password=hunter2", "without ?… and #…"),
        ("redis://cache/0#hunter2", "without ?… and #…"),
        ("redis://user:hunter2#@cache", "%23"),
        ("redis://user:hunter2/@cache/0", "%2F"),
        ("unix://user:hunter2/@/run/redis.sock", "unix:///run"),
        ("redis://$HOST", "placeholder"),
        ("redis://<host>", "placeholder"),
        ("redis://cache /0", "without spaces"),
        ("redis://u:100%@cache", "%25"),
        ("unix://run/redis.sock", "unix:///run"),
        ("unix:///", "unix:///run"),
        ("unix:///run/a%0Ahunter2", "without control characters"),
        ("unix:///run/a%00", "without control characters"),
        ("unix:///" + "x" * 107, "at most 107 bytes"),
        ("unix:///" + "%C3%A9" * 54, "at most 107 bytes"),
        ("redis://:hunter2%E9@cache", "UTF-8"),
        ("unix:///run/redis.sock?password=hunter2", "unix:///run"),
        ("redis+sentinel://a,b", "name of the service"),
        ("redis+sentinel://a/t/x", "number of a database"),
        ("redis+sentinel://a,,b/t", "with a host"),
        ("redis+sentinel://" + ",".join("a" * 17) + "/t", "at most 16 sentinels"),
    ],
)
def test_another_text_is_an_error_that_quotes_nothing(url: str, expected: str) -> None:
    with pytest.raises(BadAddressError) as caught:
        parse(url)
    assert expected in str(caught.value)
    assert "hunter2" not in str(caught.value)


@given(st.sampled_from(["", "redis://", "rediss://", "unix://", "redis+sentinel://"]), st.text(max_size=60))
def test_any_text_is_an_address_or_an_error(scheme: str, rest: str) -> None:
    try:
        address = parse(scheme + rest)
    except BadAddressError:
        return
    assert parse(address.name).hosts == address.hosts
