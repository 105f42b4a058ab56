"""What a Redis server returns: sealed entries, answers of scripts, any bytes; and the URL of a server."""

from __future__ import annotations

import math
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any, cast

from bearerd.grant.outcome import KINDS, Failure, Malformed, RateLimited, Refused, Transient, Unsent
from bearerd.publish.record import Record
from bearerd.redis_address import SCHEMES, BadAddressError, parse
from bearerd.share import entry as share_entry
from bearerd.share import replies
from bearerd.share.answers import Alone, Claimed, Delayed, FleetFailure, Lock, Taken, Wanted
from bearerd.share.entries import Entries, Unusable
from bearerd.share.entry import TokenEntry, dump_failure, dump_token, load_failure, load_refused, load_token
from bearerd.share.names import names_of
from bearerd.share.parts import LinkView
from bearerd.share.redis_connection import RedisConnection
from bearerd.share.redis_errors import RefusedError, Where
from bearerd.share.seal import NONCE, associated_data, derive, seal, unseal
from bearerd.share.sealer import Sealer
from bearerd.share.server import EntryState, Server
from bearerd.share.types import (
    GREATEST_FENCE,
    Answer,
    Busy,
    Claim,
    Failing,
    Granted,
    Limited,
    Names,
    ShareUnavailable,
    Stored,
)  # fmt: skip
from bearerd.terms import Instant, Redis, Reference, Share
from fuzz.draw import Draw
from fuzz.inputs.replies import check_files
from fuzz.target import Target, one_line
from support.clock import START, FakeClock
from support.targets import CLIENT, TARGET, token

CANARY = "Zq9~xW7vK3mPt5rYb1nLc"
_KEY_TEXT = "a key of 32 characters, at least."
_KEY = derive(_KEY_TEXT)
_SHARED = replace(TARGET, client=replace(CLIENT, share=Share(Redis("redis://cache"), key=Reference("env", "KEY"))))
_NAMES = names_of(_SHARED, "7e0c5a")
_RECORD = Record(token("opaque-1", scope="bci"), _SHARED.identity(), "7e0c5a")

# -- the content of entries ----------------------------------------------------------------------------


def check_entry(data: bytes) -> None:
    """Opened content, as another version could have sealed it; and the same bytes as a sealed entry."""
    bound = associated_data("token", _NAMES, _SHARED.identity(), "7e0c5a", 7)
    assert unseal(data, bound, [_KEY]) is None, "an entry was accepted that nobody sealed"
    found = load_token(data)
    if found is not None:
        assert math.isfinite(found.clock)
        assert math.isfinite(found.next_due)
        assert load_token(dump_token(found)) == _without_fleet(found)
        record = found.at(1.8e9, START.boot)
        assert record.token.obtained.boot <= START.boot, "a token of the future"
        check_files(record.token, TARGET)
    failed = load_failure(data)
    if failed is not None:
        failure, ends = failed
        assert math.isfinite(ends)
        one_line(str(failure))
        assert len(failure.message) <= 1000
        assert failure.phase in share_entry._PHASES
        assert all(isinstance(each, str) for each in load_refused(data))
        assert load_failure(dump_failure(failure, ends)) == failed, "a failure changes when it is stored again"


def _without_fleet(found: TokenEntry) -> TokenEntry:
    """As `dump_token` writes it: the newest token alone."""
    kept = found.record
    alone = replace(kept.token, obtained=Instant(kept.token.obtained.wall, 0.0))
    return replace(found, record=replace(kept, token=alone, present=None, publish_after=0.0, fence=0))


_FAILURES: tuple[Failure, ...] = (
    Transient("HTTP 503: a temporary error at the provider", retry_after=30.0),
    RateLimited("HTTP 429: too many requests"),
    Refused("HTTP 401 invalid_client: the client was refused", hint="check it", whole_client=False),
    Malformed("HTTP 200, but the reply is not JSON"),
    Unsent("file /s: empty", phase="secret"),
)
_ENTRIES = (
    dump_token(TokenEntry(_RECORD, 1.8e9, 60.0)),
    dump_token(TokenEntry(replace(_RECORD, sliding=True, not_before=5.0), 1.8e9, 0.0)),
    *(dump_failure(each, 1.8e9, ("fingerprint",)) for each in _FAILURES),
    seal(b"content", associated_data("token", _NAMES, "other", "7e0c5a", 7), _KEY, bytes(NONCE)),
)
_ENTRY_WORDS = (
    *(b'"clock": ', b'"next_due": ', b'"record": ', b'\\"schema\\": 1', b'\\"lifetime\\": ', b'\\"obtained_wall\\": '),
    *(b'"refused": []', b'"kind": ', b'"message": ', b'"phase": ', b'"ends": ', b'"hint": null', b'"retry_after": '),
    *(
        b'"whole_client": true',
        b'"another_secret": ',
        *(name.encode() for name in KINDS.values()),
        b"\\u202e",
        b"-1e15",
    ),
)


# -- what a daemon makes of answers --------------------------------------------------------------------


@dataclass
class _Liar:
    """A store with answers of the input's choice, some of them sealed with the right key, or nearly so."""

    draw: Draw
    good: set[bytes]

    def read(self, _: Names) -> Stored:
        return self._stored() if self.draw.flag() else Stored(0, self._clock(), b"")

    def claim(self, _: Names, __: Claim) -> Answer:
        draw = self.draw
        match draw.number(4):
            case 0:
                counts = (draw.number(1000), draw.number(1000))
                return Granted(self._fence(), self._clock(), *counts, governed=draw.flag())
            case 1:
                return self._stored()
            case 2:
                return Busy(self._seconds())
            case 3:
                return Limited(draw.choice(("rate_limit", "refused_limit")), self._seconds())
            case _:
                whole = draw.flag()
                return Failing(self._failure(whole), self._seconds(), draw.number(1_000_000), whole_client=whole)

    def store(self, _: Names, __: int, ___: bytes, ____: float) -> Stored | None:
        return self._stored() if self.draw.flag() else None

    def give_back(self, _: Names, __: int) -> None:
        pass

    def _clock(self) -> float:
        return self.draw.choice((START.wall, START.wall - 100, START.wall + 1e6, 1.6e9, 4.5e9, math.inf, math.nan))

    def _fence(self) -> int:
        around = self.draw.choice((0, int(START.wall * 1e6), GREATEST_FENCE))
        return around + self.draw.number(255) - 100

    def _seconds(self) -> float:
        return self.draw.choice((0.0, 0.1, 20.0, 3600.0, 86400.0, 1e9, -1.0))

    def _stored(self) -> Stored:
        fence, clock, draw = self._fence(), self._clock(), self.draw
        if not 0 < fence <= GREATEST_FENCE or draw.flag():
            return Stored(fence, clock, draw.some())
        wrong = draw.number(5)
        sealed_for = replace(_SHARED, scope="other") if wrong == 1 else _SHARED
        record = replace(_RECORD, token=replace(_RECORD.token, access_token=f"t{draw.number(3)}"))
        content = dump_token(TokenEntry(record, draw.choice((START.wall, START.wall + 1e9, 0.0)), self._seconds()))
        bound = associated_data(
            "failure" if wrong == 2 else "token",
            names_of(sealed_for, "7e0c5a"),
            sealed_for.identity(),
            "7e0c5a",
            fence + (wrong == 3),
        )
        sealed = seal(content, bound, derive("another") if wrong == 4 else _KEY, bytes(NONCE))
        if wrong in {0, 5}:
            self.good.add(sealed)
        return Stored(fence, clock, sealed)

    def _failure(self, whole: bool) -> bytes:
        if self.draw.flag():
            return self.draw.some()
        failure = self.draw.choice(_FAILURES)
        bound = associated_data("failure", _NAMES, "" if whole else _SHARED.identity(), "7e0c5a")
        return seal(dump_failure(failure, self._seconds() + START.wall), bound, _KEY, bytes(NONCE))


class _Opened(Sealer):
    """Notes what it opened."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        super().__init__(environ, lambda: START.boot)
        self.opened: list[bytes] = []

    def open_token(self, target: Any, names: Any, client_id: str, stored: Stored) -> TokenEntry | None:
        found = super().open_token(target, names, client_id, stored)
        if found is not None:
            self.opened.append(stored.sealed)
        return found


def check_answers(data: bytes) -> None:
    """Looks and claims with the answers of a server that may lie."""
    draw, clock = Draw(data), FakeClock()
    store = _Liar(draw, set())
    link = SimpleNamespace(store=store, view=lambda: LinkView("up", 0.0, "", None, 0), start=lambda: None)
    server = Server(Redis("redis://cache"), lambda *_: cast(Any, link), lambda *_: None, lambda: clock.boot)
    sealer = _Opened({"KEY": _KEY_TEXT, "DNB_SECRET": "s" * 20})
    entries = Entries(server, EntryState(_SHARED, _NAMES, "7e0c5a"), _SHARED, sealer, clock)
    for _ in range(4):
        remaining = draw.choice((0.0, 5.0, 3600.0))
        claimed: Claimed | None
        try:
            if draw.flag():
                claimed = entries.look(draw.number(3), lambda: (replace(_RECORD, fence=3), 5.0))
                assert claimed is None or isinstance(claimed, Taken)
            else:
                wanted = Wanted(draw.number(3), remaining, draw.flag(), draw.choice((None, 5.0)), requested=False)
                claimed = entries.claim(wanted)
        except (Unusable, ShareUnavailable):
            continue
        _check_claimed(claimed)
        clock.advance(draw.choice((0.0, 1.0, 400.0)))
    assert set(sealer.opened) <= store.good, "an entry was accepted that nobody sealed for this target"
    view = server.view()
    one_line(view.error)
    assert CANARY not in view.error


def _check_claimed(claimed: object) -> None:
    match claimed:
        case Taken(record=record):
            assert record.token.obtained.boot <= START.boot + 2000
            check_files(record.token, TARGET)
        case Delayed(wait=wait):
            assert wait > 0
            assert math.isfinite(wait)
        case FleetFailure(failure=failure, wait=wait, count=count):
            assert 0 <= wait <= 1.2 * 3600
            assert count >= 1
            one_line(str(failure))
        case Lock(fence=fence):
            assert 0 < fence <= GREATEST_FENCE
        case None | Alone():
            pass
        case _:
            raise AssertionError(claimed)


_ANSWERS = (bytes(40), bytes(range(1, 60)), b"\x01\x01\x01\x80" * 12, b"\x00\x00\x01\x00\x64" * 10, b"\xff" * 50)


# -- the bytes from a server ---------------------------------------------------------------------------

_WHERE = Where("cache:6379", tls=False, ca_file=None, timeout=60.0)


def check_resp(data: bytes) -> None:
    """What a server sends until it closes the connection, as the replies to scripts."""
    ours, theirs = socket.socketpair()
    try:
        theirs.sendall(data.replace(b"@canary@", CANARY.encode()))
        theirs.shutdown(socket.SHUT_WR)
        connection = RedisConnection(ours, _WHERE)
        for _ in range(4):
            try:
                reply = connection.ask("EVALSHA", "x", 0)
            except RefusedError as refused:
                _check_error(refused)
                continue
            _understand(reply)
        connection.close()
    except ShareUnavailable as error:
        _check_error(error)
    finally:
        ours.close()
        theirs.close()


def _check_error(error: ShareUnavailable) -> None:
    one_line(str(error))
    assert CANARY not in str(error)
    assert len(str(error)) < 400


def _understand(reply: Any) -> None:
    claim = Claim(5, 5, 30.0)
    for read in (
        lambda: replies.claimed(reply, claim),
        lambda: replies.stored(reply),
        lambda: replies.newer(reply, 5),
        lambda: replies.done(reply),
        lambda: replies.fences(reply, 2),
    ):
        try:
            found = read()
        except replies.BadReplyError:
            continue
        match found:
            case Granted(fence=fence, clock=clock):
                assert 5 < fence <= GREATEST_FENCE
                assert math.isfinite(clock)
            case Stored(fence=fence, clock=clock, sealed=sealed):
                assert 0 <= fence <= GREATEST_FENCE
                assert math.isfinite(clock)
                assert len(sealed) <= replies.MOST_SEALED
            case Busy(wait=wait) | Limited(wait=wait) | Failing(wait=wait):
                assert 0 <= wait < 1e9
            case _:
                pass
    if isinstance(reply, list) and len(reply) == 3 and isinstance(reply[2], bytes):
        names = replies.announced(reply[2])
        assert all(name.isascii() and name.isprintable() and len(name) <= 128 for name in names)


def _resp(*parts: bytes) -> bytes:
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)


_NOW = b"1800000000000000"
_RESPS = (
    _resp(_NOW, b"granted", b"1800000000000001", b"0", b"0", b"1"),
    _resp(_NOW, b"stored", b"7", b"sealed"),
    _resp(_NOW, b"busy", b"1000000"),
    _resp(_NOW, b"limited", b"rate_limit", b"5"),
    _resp(_NOW, b"failing", b"sealed", b"5", b"1", b"0"),
    _resp(_NOW, b"done"),
    _resp(_NOW, b"fences", b"0", b"7"),
    _resp(b"message", b"channel", b"token client"),
    b"-NOSCRIPT No matching script.\r\n-WRONGPASS @canary@\r\n+OK\r\n:1\r\n$-1\r\n*-1\r\n",
    b"-ERR Error running script: @user_script:3: -OOM @canary@\r\n",
    b"HTTP/1.1 400 Bad Request\r\n\r\n@canary@",
    b"*1\r\n" * 60 + b":1\r\n",
)  # fmt: skip
_RESP_WORDS = (
    *(
        b"\r\n",
        b"*-1\r\n",
        b"$-1\r\n",
        b"$-2\r\n",
        b"*9999999999\r\n",
        b"$99999999999\r\n",
        b"-ERR ",
        b"-MOVED 1 @canary@\r\n",
    ),
    *(
        b"-NOAUTH x\r\n",
        b"-ERR max number of clients reached\r\n",
        b"granted",
        b"stored",
        b"busy",
        b"limited",
        b"failing",
    ),
    *(
        b"done",
        b"fences",
        b"refused_limit",
        b"%1\r\n",
        b"_\r\n",
        b"#t\r\n",
        b",inf\r\n",
        b"(9\r\n",
        b">1\r\n",
        b"@canary@",
    ),
)


# -- the URL of a server -------------------------------------------------------------------------------


def check_url(data: bytes) -> None:
    """A URL names a server, or is refused without being shown."""
    url = data.decode("utf-8", "surrogateescape").replace("@canary@", "hunter2")
    try:
        address = parse(url)
    except BadAddressError as error:
        one_line(str(error))
        assert "hunter2" not in str(error)
        return
    assert address.scheme in SCHEMES
    assert all(0 < port < 65536 for _, port in address.hosts)
    assert address.hosts or address.socket
    one_line(address.name)
    assert address.name.isascii() or address.scheme == "unix"
    if address.scheme != "unix":
        again = parse(address.name)
        assert again == replace(address, username=None, password=None), "the name of a server is that of another one"
    login = re.split("[/?#]", url.partition("://")[2])[0].rpartition("@")[0]
    if "hunter2" not in url.replace(login, "", 1):
        assert "hunter2" not in address.name
        assert address.password is None or "hunter2" not in repr(replace(address, username=None))


_URLS = (
    b"redis://cache",
    b"rediss://user:@canary@@cache.example.com:6380/3",
    b"redis://:p%40ss@[::1]:7000/0",
    b"unix:///run/a%20b.sock?db=2",
    b"redis+sentinel://a:26380,b,[::1]/service/1",
    b"rediss+sentinel://u:@canary@@a/tokens",
)
_URL_WORDS = (
    *(f"{scheme}://".encode() for scheme in SCHEMES),
    *(
        b"@",
        b":",
        b"/",
        b"?db=",
        b"#",
        b"%00",
        b"%0a",
        b"%2F",
        b"[",
        b"]",
        b",",
        b"@canary@",
        b":65536",
        b"\xc2\xa0",
        b"%c3%a9",
    ),
)

TARGETS = (
    Target("entry", "Redis entries, sealed and opened", check_entry, _ENTRIES, _ENTRY_WORDS),
    Target("answers", "answers of a Redis server that lies", check_answers, _ANSWERS, longest=256),
    Target("resp", "the bytes from a Redis server", check_resp, _RESPS, _RESP_WORDS),
    Target("redis-url", "Redis URLs", check_url, _URLS, _URL_WORDS, longest=512),
)
