"""A name server that is silent or lies, on the resolver's port of a network of its own."""

from __future__ import annotations

import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import trustme

from faults.judge import Row, tried
from faults.networks import each, fails, switched
from faults.place import Rig, kept, recovers
from faults.tls import server_context

_A: Final = 1
_NXDOMAIN, _SERVFAIL, _REFUSED = 3, 2, 5
_TTL: Final = 0
_HUGE: Final = 400
"""Addresses in a reply: 6.4 KB, more than a resolver accepts over UDP."""


@dataclass
class Resolver:
    """Answers on UDP port 53 of loopback. `moods` has the names with a fault; all others are 127.0.0.1."""

    moods: dict[str, Callable[[bytes, bytes], bytes | None]] = field(default_factory=dict)

    def serve(self, sock: socket.socket) -> None:
        """Answer until the socket is closed."""
        while True:
            try:
                query, sender = sock.recvfrom(4096)
            except OSError:
                return
            name, question = _parsed(query)
            answer = self.moods.get(name, _right)(query, question)
            if answer is not None:
                with suppress(OSError):
                    sock.sendto(answer, sender)


def _parsed(query: bytes) -> tuple[str, bytes]:
    """The name, and the question section of a query."""
    at, labels = 12, []
    while length := query[at]:
        labels.append(query[at + 1 : at + 1 + length].decode())
        at += length + 1
    return ".".join(labels), query[12 : at + 5]


def _reply(query: bytes, question: bytes, addresses: list[str], *, code: int = 0, cut: bool = False) -> bytes:
    """A reply with these addresses for a question of type A, and none for others."""
    found = addresses if struct.unpack("!H", question[-4:-2])[0] == _A else []
    flags = 0x8180 | code | (0x0200 if cut else 0)
    records = b"".join(
        b"\xc0\x0c" + struct.pack("!HHIH", _A, 1, _TTL, 4) + socket.inet_aton(address) for address in found
    )
    return query[:2] + struct.pack("!HHHHH", flags, 1, len(found), 0, 0) + question + records


def _right(query: bytes, question: bytes) -> bytes | None:
    return _reply(query, question, ["127.0.0.1"])


_MOODS: Final[dict[str, tuple[Callable[[bytes, bytes], bytes | None], str]]] = {
    "DNS: no answer": (lambda _query, _question: None, "name"),
    "DNS: NXDOMAIN": (lambda query, question: _reply(query, question, [], code=_NXDOMAIN), "name"),
    "DNS: SERVFAIL": (lambda query, question: _reply(query, question, [], code=_SERVFAIL), "name"),
    "DNS: REFUSED": (lambda query, question: _reply(query, question, [], code=_REFUSED), "name"),
    "DNS: no address": (lambda query, question: _reply(query, question, []), "name"),
    "DNS: an address where nobody listens": (lambda query, question: _reply(query, question, ["127.0.0.2"]), "refused"),
    "DNS: truncated, and no TCP": (lambda query, question: _reply(query, question, [], cut=True), "name"),
    "DNS: 400 addresses": (lambda query, question: _reply(query, question, ["127.0.0.2"] * _HUGE), ""),
    "DNS: garbage": (lambda query, _question: query[:2] + b"\xff" * 40, "name"),
}


@contextmanager
def resolving(path: Path) -> Iterator[Resolver]:
    """Run the name server during the block, and have /etc/resolv.conf name it."""
    conf = path / "resolv.conf"
    conf.write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:2\n")
    subprocess.run(["mount", "--bind", conf, "/etc/resolv.conf"], check=True)
    resolver = Resolver()
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind(("127.0.0.1", 53))
            thread = threading.Thread(target=resolver.serve, args=(sock,), daemon=True)
            thread.start()
            yield resolver
    finally:
        subprocess.run(["umount", "/etc/resolv.conf"], check=True)


def dns(rig: Rig, path: Path) -> list[Row]:
    """Each of them when a token is due; each daemon has a provider with a name of its own."""
    del rig
    authority = trustme.CA()
    ca_file = path / "ca.pem"
    authority.cert_pem.write_to_path(ca_file)
    with resolving(path) as resolver:

        def one(where: Path, fault: str, mood: tuple[Callable[[bytes, bytes], bytes | None], str]) -> Row:
            row = Row(fault)
            name = f"login{where.name}.example.com"
            context = server_context(authority.issue_cert(name))
            with (
                tried(row),
                switched(where, context, name, f"ca_file: {ca_file},") as (here, switch, _),
                kept(here, row),
            ):
                grants = here.provider.grants
                resolver.moods[name] = mood[0]
                switch.hang_up()
                here.refresh()
                fails(here, row, mood[1])
                del resolver.moods[name]
                recovers(here, row, grants)
            return row

        return each(_MOODS, one, path)
