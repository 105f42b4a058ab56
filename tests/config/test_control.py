"""The control socket and the address of `listen`."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bearerd.model import Control, Listen
from support.config_text import SMALLEST, Folder


def test_the_control_socket_is_in_the_output_directory_or_at_the_configured_path(folder: Folder) -> None:
    assert folder.load("output: {directory: /srv/t}\n" + SMALLEST).control == Control("/srv/t/.bearerd/control.sock")
    given = "control: {socket: //run/x/../b.sock, mode: '0600'}\n"
    assert folder.load(given + SMALLEST).control == Control("/run/b.sock", mode=0o600)


@pytest.mark.parametrize("length", [107, 108])
def test_a_socket_path_is_at_most_107_bytes(folder: Folder, length: int) -> None:
    path = "/" + "ü" * ((length - 1) // 2) + "x" * ((length - 1) % 2)
    text = f"control: {{socket: {path}}}\n{SMALLEST}"
    if length == 107:
        control = folder.load(text).control
        assert control is not None
        assert control.socket == path
    else:
        said = f"config.yaml:1:19: the path of the control socket is longer than 107 bytes, the limit of Linux: {path}"
        assert folder.headlines(text) == [said]


def test_a_directory_may_be_too_long_for_its_socket(folder: Folder) -> None:
    (said,) = folder.headlines(f"output: {{directory: /{'x' * 90}}}\n{SMALLEST}")
    assert said.startswith("config.yaml:1:21: the path of the control socket is longer than 107 bytes")


def test_the_socket_and_a_token_file_cannot_have_one_path(folder: Folder) -> None:
    (said,) = folder.headlines("control: {socket: /run/bearerd/dnb/bci}\n" + SMALLEST)
    assert said == "config.yaml:1:19: 'dnb/bci' would be written to /run/bearerd/dnb/bci too"


@pytest.mark.parametrize(
    ("socket", "output"),
    [
        pytest.param("/run/bearerd/dnb/bci/s.sock", "/run/bearerd/dnb/bci", id="below a token's file"),
        pytest.param("/run/bearerd/dnb", "/run/bearerd/dnb/bci", id="on the way to one"),
    ],
)
def test_neither_the_socket_nor_a_token_file_is_a_directory_of_the_other(
    folder: Folder, socket: str, output: str
) -> None:
    (said,) = folder.headlines(f"control: {{socket: {socket}}}\n{SMALLEST}")
    assert said == (
        f"config.yaml:1:19: 'dnb/bci' would be written to {output} and the control socket to {socket}: "
        "one is a directory of the other"
    )


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1:9810", Listen("127.0.0.1", 9810)),
        ("0.0.0.0:0", Listen("0.0.0.0", 0)),
        ("[::1]:65535", Listen("::1", 65535)),
    ],
)
def test_the_address_of_listen_is_read(folder: Folder, address: str, expected: Listen) -> None:
    assert folder.load(f"listen: {{address: '{address}'}}\n{SMALLEST}").listen == expected
    page = folder.load(f"listen: {{address: '{address}', page: true}}\n{SMALLEST}").listen
    assert page == replace(expected, page=True)


def test_the_names_of_listen_are_host_names(folder: Folder) -> None:
    names = ("web1", "Web-1.example.com", "my_service", "dotted.example.", "xn--bcher-kva.example", "a" * 63)
    found = folder.load(f"listen: {{address: '127.0.0.1:1', hosts: [{', '.join(names)}]}}\n{SMALLEST}").listen
    assert found == Listen("127.0.0.1", 1, hosts=names)


@pytest.mark.parametrize(
    "host",
    ["web1:9810", "http://web1", "web1/", "'*.example.com'", "'[::1]'", "'::1'", "-a", "a-", "a..b", ".a", "''",
     "bücher", "a" * 64, ".".join(["a" * 50] * 6), "'a b'", '"a\\n"', "1", "[a]", "~"],
)  # fmt: skip
def test_other_names_of_listen_are_refused(folder: Folder, host: str) -> None:
    (said,) = folder.headlines(f"listen: {{address: '127.0.0.1:1', hosts: [web1, {host}]}}\n{SMALLEST}")
    assert said.startswith("config.yaml:1:48: expected a host name without scheme and port, such as web1.example.com")


@pytest.mark.parametrize(
    "address",
    ["localhost:9810", "127.0.0.1", ":9810", "127.0.0.1:", "127.0.0.1:65536", "::1:9810", "[127.0.0.1]:1",
     "256.0.0.1:1", "[::1]", "127.0.0.1:٣"],
)  # fmt: skip
def test_an_address_is_an_ip_address_and_a_port(folder: Folder, address: str) -> None:
    (said,) = folder.headlines(f"listen: {{address: '{address}'}}\n{SMALLEST}")
    assert said == (
        'config.yaml:1:19: expected an IP address and a port in quotes, such as "127.0.0.1:9810" or "[::1]:9810"'
    )


def test_listening_needs_an_address(folder: Folder) -> None:
    assert folder.headlines("listen: {page: true}\n" + SMALLEST) == ["config.yaml:1:1: key 'address' is missing"]
