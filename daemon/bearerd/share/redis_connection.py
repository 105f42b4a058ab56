"""The one user of redis-py: sends commands over a connected socket, within a deadline and a number of bytes.

redis-py is used without its pools, retries and reconnects. Its timeouts start again with each byte, its replies have no
bound, its TLS also trusts the system if a `ca_file` is given, and it keeps passwords in memory.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, cast

from redis.backoff import NoBackoff
from redis.connection import Connection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

from bearerd.share.redis_errors import Phase, Where
from bearerd.share.replies import MOST_SEALED
from bearerd.share.types import ShareUnavailable

MOST_BYTES: Final = MOST_SEALED + 64 * 1024
"""Of one reply: a sealed token, and much more than everything else in it."""


class RedisConnection:
    """One connection. Only one thread uses it at a time, but any may `hang_up`.

    All methods raise ShareUnavailable. The connection is closed then, except after a RefusedError.
    """

    def __init__(self, connected: socket.socket, where: Where) -> None:
        self._where = where
        self._phase: Phase = "login"
        self._bounded = _Bounded(connected, where.timeout)
        self._connection = _Connection(self._bounded)
        with self._explained():
            self._connection.connect()

    def ask(self, *command: str | bytes | int, ends: float | None = None) -> Any:
        """The reply to a command, until a deadline by the monotonic clock, or for as long as the timeout."""
        self._bounded.begin(ends)
        with self._explained():
            self._connection.send_command(*command)
            reply = self._connection.read_response(disconnect_on_error=False)
        self._phase = "command"
        return reply

    def tell(self, *command: str | bytes | int) -> None:
        """Send a command without waiting for its reply."""
        self._bounded.begin(None)
        with self._explained():
            self._connection.send_command(*command)

    def hear(self, ends: float) -> Any:
        """The next message; None if there is none until the deadline. A part of one is kept for the next call."""
        self._bounded.until(ends)
        with self._explained():
            try:
                message = self._connection.read_response(disconnect_on_error=False)
            except RedisTimeoutError:
                return None
        self._bounded.begin(ends)
        return message

    @property
    def quiet(self) -> bool:
        """Whether it is still open and nothing was received, as it has to be before a command."""
        poll = select.poll()
        poll.register(self._bounded.fileno(), select.POLLIN)
        return not poll.poll(0)

    def hang_up(self) -> None:
        """End it from any thread: one that waits for it wakes at once."""
        self._bounded.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End it."""
        self._connection.disconnect()

    def garbage(self) -> ShareUnavailable:
        """The error for a message that cannot be right."""
        return self._where.garbage()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except ResponseError as error:
            raise self._refused(error) from None
        except (RedisConnectionError, RedisTimeoutError) as error:
            if error.status_code is not None:  # some errors of the server are of these kinds too
                raise self._refused(error) from None
            self.close()
            cause = error.__context__
            raise self._where.failure(cause if isinstance(cause, OSError) else error, self._phase) from None
        except MemoryError as error:
            self.close()
            raise self._where.failure(error, self._phase) from None
        except Exception:  # noqa: BLE001 - redis-py's parser raises anything for garbage, even RecursionError
            self.close()
            raise self._where.garbage() from None

    def _refused(self, error: RedisError) -> ShareUnavailable:
        return self._where.refusal(error.status_code, str(error))


class _TooLongError(Exception):
    """The server sent more than a reply may have."""


class _Connection(Connection):
    """A connection over a socket that is connected already. It never connects again."""

    def __init__(self, bounded: _Bounded) -> None:
        # Protocol 2 needs no HELLO, and without a driver nothing is sent about this client.
        super().__init__(retry=Retry(NoBackoff(), 0), protocol=2, driver_info=None)
        self._given: _Bounded | None = bounded

    def _connect(self) -> socket.socket:
        given, self._given = self._given, None
        if given is None:
            raise OSError
        return cast("socket.socket", given)


class _Bounded:
    """A socket for redis-py, with one deadline for all waits, whatever timeout it sets, and a bound on bytes."""

    def __init__(self, connected: socket.socket, timeout: float) -> None:
        self._socket = connected
        self._timeout = timeout
        self.begin(None)

    def begin(self, ends: float | None) -> None:
        """An exchange begins: it may take until a deadline, and has its own bound of bytes."""
        self.until(ends)
        self._allowed = MOST_BYTES

    def until(self, ends: float | None) -> None:
        """Wait until another deadline."""
        self._ends = time.monotonic() + self._timeout if ends is None else ends

    def recv(self, size: int) -> bytes:
        self._wait()
        data = self._socket.recv(size)
        self._allowed -= len(data)
        if self._allowed < 0:
            raise _TooLongError
        return data

    def recv_into(self, buffer: memoryview) -> int:
        """For hiredis, which redis-py uses if it is installed."""
        data = self.recv(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def sendall(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            self._wait()
            left = left[self._socket.send(left) :]

    def _wait(self) -> None:
        left = self._ends - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._socket.settimeout(left)

    def settimeout(self, _: float | None) -> None:
        pass

    def fileno(self) -> int:
        return self._socket.fileno()

    def shutdown(self, how: int) -> None:
        with suppress(OSError):  # no longer connected
            self._socket.shutdown(how)

    def close(self) -> None:
        self._socket.close()
