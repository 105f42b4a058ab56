r"""The store of a fleet in Redis or Valkey: one Lua script for each operation, so that each happens as a whole.

Needs Redis 6.2 or Valkey 7.2, without cluster mode. Scripts read the server's clock (TIME) and replicate their effects.
`tests/support/share_model.py` is the specification. All names are below one prefix:

    PREFIX:token:TARGET     hash   the sealed token, its fence, and until when it is kept
    PREFIX:lock:TARGET      hash   the fence of the last attempt that got the lock, and until when it has it
    PREFIX:last:TARGET      hash   the last attempt before expiry, and until when there is no other
    PREFIX:failure:NAME     hash   the last failure of a target or of a client: sealed, count, when, until when
    PREFIX:flights:CLIENT   zset   attempts in flight, by the end of their lease
    PREFIX:worked:CLIENT    text   when an attempt last got a token
    PREFIX:refused:CLIENT   zset   attempts that were refused or may be, by time
    PREFIX:rate:NAME        zset   attempts that count against a rate limit, by time
    PREFIX:alive            text   written at each poll, which proves that the server can be written
    PREFIX:cluster          never written: with the key above, it shows that this is no cluster
    PREFIX:changed          channel of announcements: `TARGET CLIENT`

TARGET, CLIENT and NAME are hashes (`Names`). Every key expires. This user is sufficient:

    user bearerd on >PASSWORD ~PREFIX:* &PREFIX:* -@all +auth +ping +select +subscribe +publish +eval +evalsha +time
        +get +set +del +hget +hset +hmget +pexpire +pttl +zadd +zcard +zcount +zrange +zrem +zremrangebyscore +zscore

SELECT is for a database other than 0. Sentinels with users need another rule:

    user bearerd on >PASSWORD -@all +auth +ping +sentinel|get-master-addr-by-name
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from importlib.resources import files
from secrets import token_hex
from typing import TYPE_CHECKING, Any, Final, TypeVar

from bearerd.handoff import waiting
from bearerd.share import replies
from bearerd.share.redis_client import RedisClient
from bearerd.share.redis_errors import RefusedError
from bearerd.share.replies import SECOND, BadReplyError
from bearerd.share.types import Answer, Claim, Granted, Limited, Names, ShareUnavailable, Stored
from bearerd.terms import REFUSED_LIMIT, RateLimit, Redis

if TYPE_CHECKING:
    from bearerd.share.redis_connection import RedisConnection

ACL: Final = (
    "-@all +auth +ping +select +subscribe +publish +eval +evalsha +time +get +set +del +hget +hset +hmget +pexpire "
    "+pttl +zadd +zcard +zcount +zrange +zrem +zremrangebyscore +zscore"
)
"""The commands that a user needs, as ACL rules; besides `~PREFIX:*` and `&PREFIX:*`."""
SENTINEL_ACL: Final = "-@all +auth +ping +sentinel|get-master-addr-by-name"
"""The same at a sentinel. A sentinel that wants no password gets none."""
_AT_ONCE: Final = 1000
"""Tokens whose fences are read by one script, which blocks the server for about a millisecond."""
_T = TypeVar("_T")


class _Script:
    """A script, and the hash by which the server knows it."""

    def __init__(self, *names: str) -> None:
        scripts = files("bearerd.share") / "scripts"
        self.text = "\n".join((scripts / f"{name}.lua").read_text(encoding="utf-8") for name in names)
        self.sha = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()


class RedisStore:
    """A `Store` on one server. All methods raise ShareUnavailable within about the timeout."""

    def __init__(self, redis: Redis, environ: Mapping[str, str]) -> None:
        """`environ`: the daemon's environment, for secrets in variables."""
        self._client = RedisClient(redis, environ)
        self._prefix = redis.prefix
        self._channel = f"{redis.prefix}:changed"
        self._scripts: dict[str, _Script] = {}

    @property
    def timeout(self) -> float:
        """Seconds for a connection, and for each operation."""
        return self._client.timeout

    def connect(self) -> None:
        """Find the server and connect. No other operation does that."""
        with waiting():
            self._client.connect()

    def disconnect(self) -> None:
        """Close all connections."""
        self._client.disconnect()

    def subscribe(self) -> Subscription:
        """Listen to announcements, over a connection of its own."""
        with waiting():
            return Subscription(self._client.connection(), self._channel)

    # -- Store ---------------------------------------------------------------------------------

    def claim(self, names: Names, claim: Claim) -> Answer:
        """See `Store`."""
        limits = [value for _, limit in names.rates for value in (limit.count, _micros(limit.window))]
        return self._run(
            "claim",
            names,
            *(claim.have, claim.seen, _micros(claim.lease), int(claim.last)),
            "" if claim.changed is None else _micros(claim.changed),
            int(claim.requested),
            *(names.refused_limit.count, _micros(names.refused_limit.window), *limits),
            read=lambda reply: replies.claimed(reply, claim),
        )

    def store(self, names: Names, fence: int, sealed: bytes, ttl: float) -> Stored | None:
        """See `Store`."""
        return self._run("store", names, fence, _micros(ttl), sealed, read=lambda reply: replies.newer(reply, fence))

    def keep(self, names: Names, fence: int, wait: float) -> None:
        """See `Store`."""
        self._run("keep", names, fence, _micros(wait), read=replies.done)

    def fail(self, names: Names, fence: int, sealed: bytes, wait: float, *, whole_client: bool, refused: bool) -> None:
        """See `Store`."""
        window = _micros(names.refused_limit.window)
        arguments = (fence, _micros(wait), sealed, int(whole_client), int(refused), window)
        self._run("fail", names, *arguments, read=replies.done)

    def give_back(self, names: Names, fence: int) -> None:
        """See `Store`."""
        self._run("give_back", names, fence, read=replies.done)

    def read(self, names: Names) -> Stored:
        """See `Store`."""
        return self._run("read", names, read=replies.stored)

    def fences(self, tokens: tuple[str, ...]) -> tuple[int, ...]:
        """The fences of these tokens, by `Names.token`; `NEVER` for those that are not stored.

        Also proves, even for no tokens, that the server can be used and the user may do all.
        """
        found: list[int] = []
        for start in range(0, max(1, len(tokens)), _AT_ONCE):
            some = tokens[start : start + _AT_ONCE]
            # A cluster refuses two keys that it keeps apart. Without tokens, there would be only one.
            keys = (
                f"{self._prefix}:alive",
                f"{self._prefix}:cluster",
                *(f"{self._prefix}:token:{token}" for token in some),
            )
            found += self._evaluated("fences", keys, (self._channel,), partial(replies.fences, count=len(some)))
        return tuple(found)

    # -- check ---------------------------------------------------------------------------------

    def prove(self) -> float:
        """Connect, and do everything that a daemon does, with names of its own; nothing of it is left.

        Returns the server's clock: Unix time.
        """
        limit = RateLimit(count=3, window=10.0)
        names = Names(f"check-{token_hex(16)}", f"check-{token_hex(16)}", REFUSED_LIMIT, ((token_hex(16), limit),))
        try:
            self.connect()
            with self._listening() as subscription:
                try:
                    clock = self._prove(names, subscription)
                except ShareUnavailable:
                    with suppress(ShareUnavailable):  # the first error tells more
                        self._run("forget", names, read=replies.done)
                    raise
                self._run("forget", names, read=replies.done)
                return clock
        finally:
            self.disconnect()

    def _prove(self, names: Names, subscription: Subscription) -> float:
        self.give_back(names, self._granted(names, Claim()))
        self.fail(names, self._granted(names, Claim()), b"-", 1.0, whole_client=False, refused=True)
        self.keep(names, self._granted(names, Claim(last=True)), 0.0)
        fence = self._granted(names, Claim(last=True))
        if self.store(names, fence, b"-", 10.0) is not None:
            raise self._client.garbage()
        stored = self.read(names)
        if (stored.fence, stored.sealed) != (fence, b"-") or self.fences((names.token,)) != (fence,):
            raise self._client.garbage()
        if not isinstance(self.claim(names, Claim(have=fence)), Limited):
            raise self._client.garbage()
        ends = time.monotonic() + self.timeout
        with waiting():
            heard = subscription.hear(ends)
            while heard is not None and heard != (names.token, names.client):
                heard = subscription.hear(ends)  # that was an announcement of a daemon
        if heard is None:
            raise ShareUnavailable(
                f"the server does not pass on announcements; check that {self._channel} is not renamed or filtered"
            )
        return stored.clock

    def _granted(self, names: Names, claim: Claim) -> int:
        answer = self.claim(names, claim)
        if not isinstance(answer, Granted):
            raise self._client.garbage()
        return answer.fence

    @contextmanager
    def _listening(self) -> Iterator[Subscription]:
        subscription = self.subscribe()
        try:
            yield subscription
        finally:
            subscription.close()

    # -- inside --------------------------------------------------------------------------------

    def _run(self, script: str, names: Names, *arguments: str | bytes | int, read: Callable[[Any], _T]) -> _T:
        """Run a script about one target."""
        targets = (f"{self._prefix}:{kind}:{names.token}" for kind in ("token", "lock", "last", "failure"))
        clients = (f"{self._prefix}:{kind}:{names.client}" for kind in ("failure", "flights", "worked", "refused"))
        rates = (f"{self._prefix}:rate:{name}" for name, _ in names.rates)
        announcement = (self._channel, f"{names.token} {names.client}")
        return self._evaluated(script, (*targets, *clients, *rates), (*announcement, *arguments), read)

    def _evaluated(
        self, script: str, keys: tuple[str, ...], arguments: tuple[str | bytes | int, ...], read: Callable[[Any], _T]
    ) -> _T:
        known = self._scripts.get(script)
        if known is None:
            known = self._scripts[script] = _Script(script) if script == "fences" else _Script("common", script)
        ends = time.monotonic() + self.timeout
        with waiting():
            try:
                reply = self._client.ask("EVALSHA", known.sha, len(keys), *keys, *arguments, ends=ends)
            except RefusedError as error:
                if error.code != "NOSCRIPT":
                    raise
                reply = self._client.ask("EVAL", known.text, len(keys), *keys, *arguments, ends=ends)
        try:
            return read(reply)
        except BadReplyError:
            raise self._client.garbage() from None


class Subscription:
    """The announcements of a fleet. All methods raise ShareUnavailable, except `hang_up` and `close`."""

    def __init__(self, connection: RedisConnection, channel: str) -> None:
        self._connection = connection
        self._channel = channel.encode()
        self.asked = self.answered = 0
        """How often the connection was tested, and how often that was answered."""
        try:
            if connection.ask("SUBSCRIBE", channel) != [b"subscribe", self._channel, 1]:
                raise connection.garbage()
        except ShareUnavailable:
            connection.close()
            raise

    def test(self) -> None:
        """Ask the server whether the connection still works. `hear` notices its answer."""
        self.asked += 1
        self._connection.tell("PING")

    def hear(self, ends: float) -> tuple[str, ...] | None:
        """The names of a target and its client that changed; () for the answer to a test.

        None if nothing came until the deadline, by the monotonic clock.
        """
        match self._connection.hear(ends):
            case None:
                return None
            case [b"message", self._channel, bytes(text)]:
                return replies.announced(text)
            case [b"pong", _]:
                self.answered += 1
                return ()
        raise self._connection.garbage()

    def hang_up(self) -> None:
        """End it from any thread: `hear` returns at once, with an error."""
        self._connection.hang_up()

    def close(self) -> None:
        """End it."""
        self._connection.close()


def _micros(seconds: float) -> int:
    return round(seconds * SECOND)
