"""Scenes about the server's doors: TLS, the documented ACL, what can be read in it, and what can be planted there."""

from __future__ import annotations

import base64
import codecs
import re
import socket
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import trustme
from redis import Redis

from bearerd.share.types import GREATEST_FENCE
from fleet.daemons import CLIENT
from fleet.provider import CLIENT_ID, SCOPE, SECRET
from fleet.scenes import LONG
from fleet.site import KEY, Rig, Row, Site, share_of, site
from support.pages import blocks
from support.process import WITHIN, eventually
from support.redis_server import RedisServer, redis_server
from support.server import Answer

PAGE = Path(__file__).parents[2] / "docs" / "fleet.md"
_PASSWORD = "tVq2-of-the-fleet"  # of the user in the server
_PIECE = 12
"""Characters in a row that are looked for: a part of a secret is as bad as all of it."""
_OTHER = "ais"


def rule(password: str = _PASSWORD) -> str:
    """The ACL rule of docs/fleet.md, with a password."""
    (found,) = {
        line
        for block in blocks(PAGE)
        if block.language == "conf"
        for line in block.text.splitlines()
        if line.startswith("user bearerd ") and "~bearerd:*" in line
    }
    assert "PASSWORD" in found
    return found.replace("PASSWORD", password)


def secured(rig: Rig) -> Iterator[Row]:
    """With TLS, and with exactly the rights that docs/fleet.md gives."""
    authority = trustme.CA()
    with redis_server(binary=rig.binary, authority=authority, acl=[rule()]) as redis:
        password = redis.directory / "password"
        password.touch(0o600)
        password.write_text(_PASSWORD)
        share = {"url": redis.url, "ca_file": redis.ca_file, "username": "bearerd", "password": {"file": str(password)}}
        with site(rig, share) as here:
            here.up()
            here.link_up()
            _, grants = here.through(2)
            denied = redis.ask("ACL", "LOG")
            assert denied == [], f"the documented rule does not allow {denied}"
            allowed = set(re.findall(r" \+([a-z|]+)", rule()))
            used = {name.removeprefix("cmdstat_") for name in redis.ask("INFO", "commandstats")}
            unused = ", ".join(sorted(allowed - used)) or "none"
            yield here.row("TLS, and the ACL of docs/fleet.md", 2, grants, 2, f"allowed but not used here: {unused}")


def entries(rig: Rig) -> Iterator[Row]:
    """Nothing of a token, a secret or a name can be found in the server, and nothing can be planted there."""
    tokens = {"tokens": {name: {"scope": name} for name in (SCOPE, _OTHER)}}
    with (
        redis_server("rdbcompression no", binary=rig.binary) as redis,
        monitored(redis) as heard,
        site(rig, redis, lifetime=LONG, client=tokens, key=True) as here,
    ):
        here.up()
        here.link_up()
        kept = [dumped(redis)]
        # A failure is stored as well.
        here.provider.refusal = Answer(400, {"error": "invalid_scope", "error_description": SECRET})
        here.ask_refresh("d01")
        here.provider.wait_for(lambda: here.provider.attempts[-1][2] == 400, "a refusal")
        eventually(lambda: dumped(redis).count(b"sealed") > kept[0].count(b"sealed"))
        kept.append(dumped(redis))
        redis.ask("SAVE")
        kept.append((redis.directory / "dump.rdb").read_bytes())
        # Each line of MONITOR names the connection; its port can begin like the provider's.
        commands = re.sub(rb"(?m)^(\+[\d.]+) \[\d+ [^]\s]+\]", rb"\1", b"".join(heard))
        assert b"127.0.0.1" not in commands
        everything = b"\n".join([*kept, commands, codecs.escape_decode(commands)[0]])
        found = [what for what, secret in private(here).items() if holds(everything, secret)]
        assert not found, f"in the server: {', '.join(found)}"
        said = f"nothing found in {len(everything) / 1024:.0f} KiB: keys, DUMP, RDB file, MONITOR"
        yield here.row("entries dumped by hand", 2, here.provider.grants, 2, said)


def plants(rig: Rig) -> Iterator[Row]:
    """An entry that was altered, moved from another token, or has an impossible fence, is not published."""
    tokens = {"tokens": {name: {"scope": name} for name in (SCOPE, _OTHER)}}
    with redis_server(binary=rig.binary) as redis, site(rig, redis, lifetime=LONG, client=tokens) as here:
        here.up()
        here.link_up()
        other = [member.tokens / CLIENT / _OTHER for member in here.fleet.members.values()]
        eventually(lambda: all(file.exists() for file in other))
        before = here.provider.grants
        with Redis(port=redis.port, socket_timeout=WITHIN) as client:
            for number, plant in enumerate((altered, moved), 1):
                planted(here, client, plant)
                # All have the good token still, and get a new one in spite of the plant.
                last = here.refresh(f"d0{number}", here.readers.wait_for_one(0))
            key = planted(here, client, impossible)
            # The server is not to be believed: a daemon goes alone, and the others keep what they have.
            here.ask_refresh("d03")
            here.readers.wait_for(lambda: here.readers.seen["d03"].number > last, "d03 has a token of its own")
            client.delete(key)
            last = here.readers.wait_for_one(last)
        yield here.row("entries altered, moved, impossible", 3, last - before, 3)


def planted(here: Site, client: Redis, plant: Callable[[Entries], tuple[bytes, dict[bytes, bytes]]]) -> bytes:
    """Write an entry into the server, and wait until each daemon noted an error; returns its key."""
    errors = {member.name: share_of(member)["errors"] for member in here.fleet.members.values()}
    key, entry = plant(entries_of(client))
    client.hset(key, items=[part for pair in entry.items() for part in pair])
    for member in here.fleet.members.values():
        eventually(lambda member=member: share_of(member)["errors"] > errors[member.name])
    return key


Entries = dict[bytes, dict[bytes, bytes]]


def entries_of(client: Redis) -> Entries:
    """The stored tokens by key, the one of `SCOPE` first: it is the one that changed last."""
    hashes = {key: client.hgetall(key) for key in client.scan_iter(count=1000) if client.type(key) == b"hash"}
    found = {key: entry for key, entry in hashes.items() if b"sealed" in entry}
    return dict(sorted(found.items(), key=lambda item: -int(item[1][b"fence"])))


def altered(entries: Entries) -> tuple[bytes, dict[bytes, bytes]]:
    """One bit of a token, which also says that it is newer."""
    key, entry = next(iter(entries.items()))
    sealed = bytearray(entry[b"sealed"])
    sealed[-20] ^= 1
    return key, {b"sealed": bytes(sealed), b"fence": b"%d" % (int(entry[b"fence"]) + 1)}


def moved(entries: Entries) -> tuple[bytes, dict[bytes, bytes]]:
    """The token of another scope, with a fence that is newer."""
    (key, entry), (_, another) = entries.items()
    return key, another | {b"fence": b"%d" % (int(entry[b"fence"]) + 1)}


def impossible(entries: Entries) -> tuple[bytes, dict[bytes, bytes]]:
    """A fence that no later one could exceed."""
    return next(iter(entries)), {b"fence": b"%d" % (GREATEST_FENCE * 2)}


def private(here: Site) -> dict[str, str]:
    """What nobody may find in the server."""
    named = {f"t-{token.number}": token.text.partition("-")[2].partition("-")[2] for token in here.provider.tokens}
    return {**named, "the secret": SECRET, "the key": KEY, "the client id": CLIENT_ID, "the URL": here.provider.url}


def holds(data: bytes, secret: str) -> bool:
    """Whether a part of a secret is in the data, as it is, or as programs write it."""
    windows = {form[at : at + _PIECE] for form in forms(secret.encode()) for at in range(len(form) - _PIECE + 1)}
    return any(window in data for window in windows)


def forms(secret: bytes) -> Iterator[bytes]:
    """A secret as it is, quoted, in hexadecimal digits, and in base64."""
    yield secret
    yield urllib.parse.quote(secret, safe="").encode()
    yield secret.hex().encode()
    yield secret.hex().upper().encode()
    for start in range(3):  # where its first whole group of three bytes begins
        whole = secret[start : start + (len(secret) - start) // 3 * 3]
        yield base64.b64encode(whole)
        yield base64.urlsafe_b64encode(whole)


def dumped(redis: RedisServer) -> bytes:
    """Each key of the server with its value, as DUMP returns it, and the fields of hashes."""
    parts: list[bytes] = []
    user, password = ("admin", "admin") if redis.acl else (None, None)
    with Redis(port=redis.port, username=user, password=password, socket_timeout=WITHIN) as client:
        for key in client.scan_iter(count=1000):
            parts += [key, client.dump(key) or b""]
            if client.type(key) == b"hash":
                parts += [part for pair in client.hgetall(key).items() for part in pair]
    return b"\n".join(parts)


@contextmanager
def monitored(redis: RedisServer) -> Iterator[list[bytes]]:
    """Record each command that the server receives, as MONITOR shows it."""
    heard: list[bytes] = []
    with socket.create_connection(("127.0.0.1", redis.port)) as line:
        line.sendall(b"MONITOR\r\n")

        def listen() -> None:
            while data := line.recv(1 << 16):
                heard.append(data)

        thread = threading.Thread(target=listen)
        thread.start()
        try:
            yield heard
        finally:
            line.shutdown(socket.SHUT_RDWR)
            thread.join()
