"""Real Redis and Valkey servers, replicas and sentinels on free ports of loopback, without privileges."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
import redis
import trustme
from redis.backoff import NoBackoff
from redis.retry import Retry

from support.ports import free_port
from support.process import WITHIN, Daemon, pause

USER: Final = "nobody"
"""Servers run as this user if the tests run as root."""
SERVICE: Final = "bearerd"
"""The name under which sentinels know a primary."""
READY: Final = "Ready to accept connections"
SYNCHRONIZED: Final = "REPLICA sync: Finished"
"""The end of a full copy. Redis writes `MASTER <->` before it, and Valkey `PRIMARY <->`."""
ONLINE: Final = "Synchronization with replica"
"""A primary writes it when it has counted a replica among those that `min-replicas-to-write` asks for."""
_NEEDS: Final = "needs redis-server (apt-get install redis-server)"


def binaries() -> tuple[str, ...]:
    """The servers that are there: redis-server, and Valkey's if the environment names it in BEARERD_VALKEY."""
    return tuple(filter(None, (shutil.which("redis-server"), os.environ.get("BEARERD_VALKEY"))))


NEEDS_REDIS: Final = pytest.mark.skipif(not binaries(), reason=_NEEDS)
ON_EACH: Final = [pytest.param(path, id=Path(path).name) for path in binaries()] or [
    pytest.param("", id="redis-server", marks=pytest.mark.skip(reason=_NEEDS))
]
"""The parameters of a test that runs on each of them."""


class RedisServer:
    """One server in its own process and directory. Its address stays the same over restarts."""

    def __init__(
        self,
        *config: str,
        binary: str | None = None,
        authority: trustme.CA | None = None,
        names: Sequence[str] = ("127.0.0.1", "localhost"),
        acl: Sequence[str] = (),
        password: str | None = None,
        replica_of: RedisServer | None = None,
        port: int | None = None,
    ) -> None:
        """A server that is not started yet.

        config      more lines of its config file, such as "maxmemory 3mb"
        authority   issues its certificate for `names`; it then speaks TLS only
        acl         ACL rules, such as "user bearerd on >secret ~bearerd:* +get"; the user `default` is off then, and
                    `admin` with the password `admin` may do everything
        password    of the user `default`
        port        instead of a free one
        """
        self.binary = binary or (binaries() or ("redis-server",))[0]
        self.directory = Path(tempfile.mkdtemp(prefix="redis-", dir="/tmp"))
        self.port = port or free_port()
        self.socket = self.directory / "socket"
        self.authority = authority
        self.ca_file = str(self.directory / "ca.pem") if authority is not None else None
        self.acl, self.password = tuple(acl), password
        self.sentinel = False
        self.process: Daemon | None = None
        self._replica_of = replica_of
        self._config = [*config]
        if authority is not None:
            self._write("ca.pem", authority.cert_pem.bytes().decode())
            certificate = authority.issue_cert(*names)
            self._write("cert.pem", "".join(part.bytes().decode() for part in certificate.cert_chain_pems))
            self._write("key.pem", certificate.private_key_pem.bytes().decode())

    # -- its process ---------------------------------------------------------------------------

    def start(self) -> None:
        """Start it, and wait until it accepts connections; a replica until it has a copy."""
        self._write("server.conf", "\n".join([*self._lines(), ""]))
        privileges: dict[str, Any] = {}
        if os.geteuid() == 0:
            shutil.chown(self.directory, USER)
            for path in self.directory.iterdir():
                shutil.chown(path, USER)
            privileges = {"user": USER, "group": "nogroup", "extra_groups": []}
        argv = [self.binary, "server.conf", *(["--sentinel"] if self.sentinel else [])]
        process = subprocess.Popen(argv, cwd=self.directory, stdout=subprocess.PIPE, text=True, **privileges)
        self.process = Daemon(process)
        self.process.wait_for("+monitor master" if self.sentinel else READY)
        if self._replica_of is not None:
            self.process.wait_for(SYNCHRONIZED)

    def stop(self, number: int = signal.SIGKILL) -> None:
        """End it if it runs. What it had in memory is lost."""
        daemon, self.process = self.process, None
        if daemon is None:
            return
        if daemon.process.poll() is None:
            daemon.process.send_signal(number)
            daemon.process.send_signal(signal.SIGCONT)
        daemon.wait()
        if daemon.process.stdout:
            daemon.process.stdout.close()

    def restart(self) -> None:
        """Kill it, and start it with the same address and no data."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """It accepts connections, but no longer reads or answers: a blackhole."""
        pause(self.running.process)

    def resume(self) -> None:
        """The end of `pause`."""
        self.running.process.send_signal(signal.SIGCONT)

    @property
    def running(self) -> Daemon:
        """Its process, and its log."""
        assert self.process is not None, "the server does not run"
        return self.process

    def close(self) -> None:
        """End it, and remove its directory."""
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    # -- how it is reached ---------------------------------------------------------------------

    @property
    def address(self) -> str:
        """`host:port`."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """What `share.redis.url` is."""
        return f"{'redis' if self.authority is None else 'rediss'}://{self.address}"

    def admin(self) -> redis.Redis:
        """A connection that may do everything."""
        user, password = ("admin", "admin") if self.acl else (None, self.password)
        tls: dict[str, Any] = {} if self.ca_file is None else {"ssl": True, "ssl_ca_certs": self.ca_file}
        return redis.Redis(
            host="127.0.0.1",
            port=self.port,
            username=user,
            password=password,
            socket_timeout=WITHIN,
            retry=Retry(NoBackoff(), 0),
            decode_responses=True,
            **tls,
        )

    def ask(self, *command: str | bytes | int) -> Any:
        """The answer to one command as administrator."""
        with self.admin() as client:
            return client.execute_command(*command)

    # -- inside --------------------------------------------------------------------------------

    def _lines(self) -> list[str]:
        """Its config file."""
        lines = ["bind 127.0.0.1", "daemonize no", 'logfile ""', "dir ."]
        if self.authority is None:
            lines += [f"port {self.port}"]
        else:
            lines += [
                *("port 0", f"tls-port {self.port}", "tls-ca-cert-file ca.pem", "tls-cert-file cert.pem"),
                *("tls-key-file key.pem", "tls-auth-clients no", "tls-replication yes"),
            ]
        if not self.sentinel:
            lines += ['save ""', "appendonly no", f"unixsocket {self.socket}", "unixsocketperm 777"]
            lines += ["repl-diskless-sync-delay 0"]  # a replica starts at once
        if self.acl:
            lines += ["user default off", "user admin on >admin ~* &* +@all", *self.acl]
            lines += [] if self.sentinel else ["masteruser admin", "masterauth admin"]
        if self.password is not None:
            lines += [f"requirepass {self.password}", f"masterauth {self.password}"]
        if self._replica_of is not None:
            lines += [f"replicaof 127.0.0.1 {self._replica_of.port}"]
        return [*lines, *self._config]

    def _write(self, name: str, text: str) -> None:
        path = self.directory / name
        path.write_text(text)
        path.chmod(0o600)


class Sentinel(RedisServer):
    """A sentinel of a primary, which it knows as `SERVICE`. One alone is a majority, and promotes a replica."""

    def __init__(self, primary: RedisServer, *config: str, quorum: int = 1, down_after: int = 1000) -> None:
        """`down_after`: milliseconds without an answer after which the primary counts as down."""
        super().__init__(binary=primary.binary, authority=primary.authority)
        self.sentinel = True
        self._config = [
            f"sentinel monitor {SERVICE} 127.0.0.1 {primary.port} {quorum}",
            f"sentinel down-after-milliseconds {SERVICE} {down_after}",
            f"sentinel failover-timeout {SERVICE} 3000",
            *([] if primary.password is None else [f"sentinel auth-pass {SERVICE} {primary.password}"]),
            *(["sentinel auth-user bearerd admin", "sentinel auth-pass bearerd admin"] if primary.acl else []),
            *config,
        ]

    @property
    def url(self) -> str:
        """What `share.redis.url` is."""
        return f"{'redis' if self.authority is None else 'rediss'}+sentinel://{self.address}/{SERVICE}"


@contextmanager
def redis_server(*config: str, **options: Any) -> Iterator[RedisServer]:
    """Run a server during the block; see `RedisServer`."""
    server = RedisServer(*config, **options)
    try:
        server.start()
        yield server
    finally:
        server.close()


@contextmanager
def sentinel(primary: RedisServer, *config: str, **options: Any) -> Iterator[Sentinel]:
    """Run a sentinel during the block, once it knows the replicas that the primary has."""
    server = Sentinel(primary, *config, **options)
    try:
        server.start()
        if primary.ask("INFO", "replication")["connected_slaves"]:
            server.running.wait_for("+slave slave")
        yield server
    finally:
        server.close()
