"""Connections to a Redis or Valkey server: its URL, login, sentinels and TLS, and the connections that are kept."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from bearerd.errors import ExtraMissing, SecretUnavailable
from bearerd.grant.connecting import connect
from bearerd.grant.deadline import Attempt
from bearerd.grant.tls import SetUpError, shared_context, signature
from bearerd.redis_address import Address, BadAddressError, parse
from bearerd.secrets.kinds import source_of
from bearerd.share.redis_errors import Phase, RefusedError, Where
from bearerd.share.types import ShareUnavailable
from bearerd.terms import Redis, Reference

if TYPE_CHECKING:
    from bearerd.share.redis_connection import RedisConnection

MOST_CONNECTIONS: Final = 8
"""Connections for commands. More than one is open only after several turns waited for the server at once."""
IDLE: Final = 30.0
"""Seconds after which a connection is not used again: a firewall may have forgotten it."""
_OPTIONS: Final = ((socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),)
_HOST: Final = re.compile(rb"[A-Za-z0-9._:-]{1,253}")
_PORT: Final = re.compile(rb"[1-9][0-9]{0,4}")


class RedisClient:
    """The connections to the server of one share. Thread-safe."""

    def __init__(self, redis: Redis, environ: Mapping[str, str]) -> None:
        """`environ`: the daemon's environment, for secrets in variables."""
        self._redis = redis
        self._environ = environ
        # A command that prints a password may take 10 s. So only `connect` runs one, and no turn waits for it.
        secrets = (redis.url, redis.password)
        slow = any(secret.kind == "command" for secret in secrets if isinstance(secret, Reference))
        self._free = threading.BoundedSemaphore(1 if slow else MOST_CONNECTIONS)
        self._may_open = not slow
        self._lock = threading.Lock()
        self._idle: list[tuple[RedisConnection, float]] = []
        self._generation = 0
        self._server: Address | None = None
        """The server, without login; None while there is no connection."""
        self._preferred: tuple[str, int] | None = None
        """The sentinel that answered last."""

    @property
    def timeout(self) -> float:
        """Seconds for a connection, and for each command."""
        return self._redis.timeout

    def connect(self) -> None:
        """Find the server and open a connection, in place of those that there are. Raises ShareUnavailable."""
        self.disconnect()
        address = self._address()
        server = self._primary(address) if address.sentinel else replace(address, username=None, password=None)
        connection = self._open(server, time.monotonic() + self.timeout)
        with self._lock:
            self._server = server
            self._idle.append((connection, time.monotonic()))

    def disconnect(self) -> None:
        """Close all connections; those in use after their command."""
        with self._lock:
            self._generation += 1
            self._server = None
            idle, self._idle = self._idle, []
        for connection, _ in idle:
            connection.close()

    def connection(self) -> RedisConnection:
        """A further connection, which the caller closes. Raises ShareUnavailable."""
        return self._another(time.monotonic() + self.timeout)

    def ask(self, *command: str | bytes | int, ends: float) -> Any:
        """The reply to a command, before a deadline by the monotonic clock. Raises ShareUnavailable."""
        if not self._free.acquire(timeout=max(0.0, ends - time.monotonic())):
            raise self._where(self._server).failure(TimeoutError(), "command")
        try:
            with self._lock:
                generation = self._generation
            connection = self._take() or self._kept(ends)
            try:
                reply = connection.ask(*command, ends=ends)
            except RefusedError:
                self._give_back(connection, generation)
                raise
            self._give_back(connection, generation)
            return reply
        finally:
            self._free.release()

    def garbage(self) -> ShareUnavailable:
        """The error for a reply that cannot be right."""
        return self._where(self._server).garbage()

    # -- connections that are kept -------------------------------------------------------------

    def _take(self) -> RedisConnection | None:
        """A connection that is open and was used lately."""
        while True:
            with self._lock:
                if not self._idle:
                    return None
                connection, since = self._idle.pop()
            if time.monotonic() - since < IDLE and connection.quiet:
                return connection
            connection.close()

    def _give_back(self, connection: RedisConnection, generation: int) -> None:
        with self._lock:
            if generation == self._generation:
                self._idle.append((connection, time.monotonic()))
                return
        connection.close()

    def _kept(self, ends: float) -> RedisConnection:
        if not self._may_open:
            raise self._where(self._server).failure(ConnectionResetError(), "command")
        return self._another(ends)

    def _another(self, ends: float) -> RedisConnection:
        server = self._server
        if server is None:
            raise ShareUnavailable("there is no connection; it is tried again")
        return self._open(server, ends)

    # -- how they are made ---------------------------------------------------------------------

    def _address(self) -> Address:
        url = self._redis.url
        text = url if isinstance(url, str) else self._secret(url, "share.redis.url")
        try:
            return parse(text)
        except BadAddressError as error:
            raise ShareUnavailable(f"share.redis.url ({url}): expected {error}; correct it") from None

    def _secret(self, reference: Reference, key: str) -> str:
        try:
            return source_of(reference, self._environ).read()
        except SecretUnavailable as error:
            raise ShareUnavailable(f"{key}: {error}; correct it, which takes effect at the next connection") from None

    def _login(self) -> tuple[str | None, str | None]:
        """User and password: those of the config, or else of the URL."""
        redis = self._redis
        address = self._address()
        password = address.password if redis.password is None else self._secret(redis.password, "share.redis.password")
        return redis.username or address.username, password

    def _primary(self, address: Address) -> Address:
        """The server that the sentinels name."""
        scheme = "rediss" if address.tls else "redis"
        failed: ShareUnavailable | None = None
        for host in sorted(address.hosts, key=lambda host: host != self._preferred):
            sentinel = Address(scheme, hosts=(host,))
            try:
                found = self._asked(sentinel, address.service)
            except ShareUnavailable as error:
                failed = failed or error
                continue
            if found is not None:
                self._preferred = host
                return Address(scheme, hosts=(found,), database=address.database)
        if failed is not None:
            raise ShareUnavailable(f"no sentinel knows the server: {failed}")
        raise ShareUnavailable(
            "the sentinels do not know the service in share.redis.url; write the name that `sentinel monitor` gives it"
        )

    def _asked(self, sentinel: Address, service: str) -> tuple[str, int] | None:
        """The host and port of a service, if this sentinel knows it."""
        try:
            connection = self._open(sentinel, time.monotonic() + self.timeout, login=False)
        except RefusedError as error:
            if error.code != "NOAUTH":
                raise
            connection = self._open(sentinel, time.monotonic() + self.timeout)
        try:
            found = connection.ask("SENTINEL", "get-master-addr-by-name", service)
        except RefusedError as error:
            if error.code != "UNKNOWN":
                raise
            name = self._where(sentinel).name
            raise ShareUnavailable(f"{name}: not a sentinel; check its port, or write redis:// for a server") from None
        else:
            match found:
                case None:
                    return None
                case [bytes(host), bytes(port)] if _HOST.fullmatch(host) and _PORT.fullmatch(port):
                    return host.decode(), int(port)
                case _:
                    raise self._where(sentinel).garbage()
        finally:
            connection.close()

    def _open(self, address: Address, ends: float, *, login: bool = True) -> RedisConnection:
        """A connection that has answered once."""
        try:
            from bearerd.share.redis_connection import RedisConnection  # noqa: PLC0415 - 5 MB, for those who share
        except ImportError:
            raise ShareUnavailable(str(ExtraMissing("share", "redis"))) from None
        username, password = self._login() if login else (None, None)
        connection = RedisConnection(self._dial(address, ends), self._where(address))
        try:
            if username or password:
                connection.ask("AUTH", *filter(None, [username]), password or "", ends=ends)
            if address.database:
                connection.ask("SELECT", address.database, ends=ends)
            connection.ask("PING", ends=ends)
        except ShareUnavailable:
            connection.close()
            raise
        return connection

    def _dial(self, address: Address, ends: float) -> socket.socket:
        """A connected socket, with TLS if the address has it."""
        attempt = Attempt(ends - time.monotonic())
        phase: Phase = "connect"
        try:
            context = shared_context(self._redis.ca_file, signature(self._redis.ca_file)) if address.tls else None
            if address.socket:
                return _to_socket(address.socket, attempt)
            (host, port) = address.hosts[0]
            try:
                with attempt.current():
                    connected = connect((host, port), _OPTIONS)
            finally:
                phase = "name look-up" if attempt.phase == "name look-up" else "connect"
            connected.settimeout(attempt.left())
            if context is None:
                return connected
            phase = "TLS"
            return context.wrap_socket(connected, server_hostname=host.rstrip("."))
        except SetUpError as error:
            raise ShareUnavailable(f"share.redis.{error}; correct share.redis.ca_file") from None
        except (OSError, UnicodeError) as error:
            raise self._where(address).failure(error, phase) from None
        finally:
            attempt.end()

    def _where(self, address: Address | None) -> Where:
        if not isinstance(self._redis.url, str):
            name = f"the server in {self._redis.url}"
        elif address is None:
            name = parse(self._redis.url).name
        else:
            name = address.socket or address.name.split("://", 1)[1].rsplit("/", 1)[0]
        return Where(name, address is not None and address.tls, self._redis.ca_file, self.timeout)


def _to_socket(path: str, attempt: Attempt) -> socket.socket:
    connected = socket.socket(socket.AF_UNIX)
    try:
        connected.settimeout(attempt.left())
        connected.connect(path)
    except OSError:
        connected.close()
        raise
    return connected
