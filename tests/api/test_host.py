"""Which requests are answered over TCP, by their `Host`."""

from __future__ import annotations

import pytest

from bearerd.api.host import canonical, check
from bearerd.api.message import BadRequest, parse
from bearerd.api.routes import Access, Cost, find

NAMES = frozenset(map(canonical, ("Web1.example.com", "my_service", "dotted.example.")))


def status(head: str, names: frozenset[str] = NAMES) -> int:
    """Of the refusal; 200 where there is none."""
    try:
        check(parse(head.encode("latin-1")), names)
    except BadRequest as error:
        return error.reply.status
    return 200


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", 200),
        ("127.0.0.1:9810", 200),
        ("127.0.0.1:", 200),
        ("10.1.2.3:80", 200),
        ("255.255.255.255", 200),
        ("[::1]", 200),
        ("[::1]:9810", 200),
        ("[2001:DB8::1]:9810", 200),
        ("[::ffff:10.0.0.1]", 200),
        ("[fe80::1%eth0]", 200),
        ("localhost", 200),
        ("LocalHost:9810", 200),
        ("localhost.", 200),
        ("web1.example.com", 200),
        ("WEB1.EXAMPLE.COM:9810", 200),
        ("web1.example.com.", 200),
        ("dotted.example", 200),
        ("my_service:1", 200),
        ("evil.example", 421),
        ("evil.example:9810", 421),
        ("", 421),
        (":9810", 421),
        ("localhost.evil.example", 421),
        ("evil.localhost", 421),
        ("xlocalhost", 421),
        ("127.0.0.1.evil.example", 421),
        ("a.web1.example.com", 421),
        ("web1.example.com..", 421),
        ("example.com", 421),
        ("my", 421),
        # What browsers turn into an address before they send it is not an address here.
        ("127.1", 421),
        ("2130706433", 421),
        ("0x7f.0.0.1", 421),
        ("0177.0.0.1", 421),
        ("127.0.0.01", 421),
        ("127.0.0.256", 421),
        ("::1", 421),
        ("[127.0.0.1]", 421),
        ("[localhost]", 421),
        ("[::1", 421),
        ("[]", 421),
        ("a@127.0.0.1", 421),
        ("127.0.0.1, evil.example", 421),
        ("127.0.0.1 evil.example", 421),
        ("127.0.0.1/evil", 421),
        ("127.0.0.1:80:80", 421),
        ("127.0.0.1:http", 421),
        ("\xb9.2.3.4", 421),
        ("http://127.0.0.1", 421),
    ],
)
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_an_address_localhost_or_a_configured_name_is_answered(host: str, expected: int, version: str) -> None:
    assert status(f"GET /livez HTTP/{version}\r\nHost: {host}") == expected


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        ("GET /livez HTTP/1.0", 200),
        ("GET /livez HTTP/1.1", 400),
        ("GET /livez HTTP/1.1\r\nHost: localhost\r\nHost: localhost", 400),
        ("GET /livez HTTP/1.0\r\nHost: localhost\r\nHost: localhost", 400),
        ("GET http://localhost/livez HTTP/1.1", 400),
        # A target in absolute form counts, whatever Host says.
        ("GET http://localhost/livez HTTP/1.1\r\nHost: evil.example", 200),
        ("GET http://web1.example.com:1/ HTTP/1.0", 200),
        ("GET http://evil.example/livez HTTP/1.1\r\nHost: localhost", 421),
        ("GET http://evil.example/livez HTTP/1.0", 421),
        ("GET //evil.example/livez HTTP/1.1\r\nHost: localhost", 200),  # this is a path
    ],
)
def test_a_request_must_have_one_host(head: str, expected: int) -> None:
    assert status(head) == expected


def test_without_configured_names_only_addresses_and_localhost_are_answered() -> None:
    assert status("GET / HTTP/1.1\r\nHost: web1.example.com", frozenset()) == 421
    assert status("GET / HTTP/1.1\r\nHost: localhost", frozenset()) == 200


@pytest.mark.parametrize("target", ["/", "/livez", "/readyz", "/metrics", "/status", "/nothing"])
def test_host_is_checked_before_the_path_and_not_on_the_control_socket(target: str) -> None:
    request = parse(f"GET {target} HTTP/1.1\r\nHost: evil.example".encode())
    refused = find(request, Access(page=True, hosts=NAMES))
    assert refused.cost is Cost.INSTANT
    assert refused.make(None).status == 421  # type: ignore[arg-type]  # no daemon is asked
    assert find(request, Access(everything=True)) != refused
