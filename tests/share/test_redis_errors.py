"""Each way in which a server cannot be used, with the words for it. Nearly all on real servers."""

from __future__ import annotations

import errno
import importlib
import os
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme

import bearerd.share
from bearerd.grant.tls import shared_context
from bearerd.share.redis_errors import Phase, Where
from bearerd.share.redis_store import RedisStore
from bearerd.share.types import GREATEST_FENCE, Claim, Names, ShareUnavailable
from bearerd.terms import REFUSED_LIMIT, Redis, Reference
from support.ports import free_port
from support.process import WITHIN, eventually
from support.redis_liar import answering, bulk, usual
from support.redis_server import NEEDS_REDIS, RedisServer, redis_server, sentinel

NAMES = Names("target", "client", REFUSED_LIMIT)
LISTENS = "check that the server runs there, host and port, and that no firewall refuses"


def error_of(redis: Redis, environ: dict[str, str] | None = None) -> str:
    """The words of a check, without the address at their beginning."""
    with pytest.raises(ShareUnavailable) as error:
        RedisStore(redis, environ or {}).prove()
    text = str(error.value)
    assert "s3cret" not in text
    assert "\n" not in text
    return text.partition(": ")[2] if text.startswith(("127.0.0.1:", "localhost:", "/")) else text


def at(server: RedisServer, **more: object) -> Redis:
    return Redis(**{"url": server.url, "ca_file": server.ca_file, "timeout": WITHIN / 2, **more})  # type: ignore[arg-type]


# -- no connection ----------------------------------------------------------------------------------


def test_nothing_listens() -> None:
    assert error_of(Redis("redis://127.0.0.1:1")) == f"connection refused; {LISTENS}"


def test_the_name_is_unknown() -> None:
    said = error_of(Redis("redis://redis.invalid"))
    assert said == (
        "redis.invalid:6379: the name was not found; check the host in share.redis.url, and this machine's DNS"
    )


def test_no_answer_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}"
        assert error_of(Redis(url, timeout=2.0)) == (
            "timed out after 2 s (before its first answer); check that the server runs, and that no firewall is in "
            "between"
        )


def test_no_socket(tmp_path: Path) -> None:
    assert error_of(Redis(f"unix://{tmp_path}/socket")) == (
        "no such file or directory; check that the server runs, and the path of its socket (unixsocket in its config)"
    )


# -- TLS --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def secure() -> Iterator[RedisServer]:
    with redis_server(authority=trustme.CA(), names=["127.0.0.1"]) as server:
        yield server


@NEEDS_REDIS
def test_an_authority_that_is_not_trusted(secure: RedisServer, tmp_path: Path) -> None:
    refused = "TLS certificate refused: self-signed certificate in certificate chain"
    assert error_of(at(secure, ca_file=None)) == f"{refused}; for a private authority set share.redis.ca_file"
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(other))
    assert (
        error_of(at(secure, ca_file=str(other))) == f"{refused}; put the authority that issued it into ca_file {other}"
    )


@NEEDS_REDIS
def test_a_ca_file_replaces_the_authorities_of_the_system(
    secure: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(secure.ca_file))
    shared_context.cache_clear()
    RedisStore(at(secure, ca_file=None), {}).prove()
    shared_context.cache_clear()
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(other))
    assert "certificate refused" in error_of(at(secure, ca_file=str(other)))


@NEEDS_REDIS
def test_a_certificate_for_another_name(secure: RedisServer) -> None:
    said = error_of(at(secure, url=secure.url.replace("127.0.0.1", "localhost")))
    assert said.startswith("TLS certificate refused: hostname mismatch")
    assert said.endswith("; use the name in the server's certificate as host, or give it a certificate for this one")


@NEEDS_REDIS
def test_tls_to_a_port_without_and_the_reverse(secure: RedisServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as plain:
        answering_in_plain = threading.Thread(target=_in_plain, args=(plain,))
        answering_in_plain.start()
        said = error_of(Redis(f"rediss://127.0.0.1:{plain.getsockname()[1]}", timeout=WITHIN / 2))
        answering_in_plain.join()
    assert said.startswith("TLS: ")
    assert said.endswith("; check that this port speaks TLS, else write redis:// for rediss://")
    assert error_of(at(secure, url=secure.url.replace("rediss", "redis"), ca_file=None)) == (
        "the server closed the connection (before its first answer); check host and port; if it speaks TLS, write "
        "rediss://"
    )


def _in_plain(server: socket.socket) -> None:
    connection, _ = server.accept()
    with connection:
        connection.sendall(b"-ERR Protocol error\r\n")
        connection.recv(4096)


def test_a_ca_file_that_cannot_be_read(tmp_path: Path) -> None:
    assert error_of(Redis("rediss://127.0.0.1:1", ca_file=f"{tmp_path}/ca.pem")) == (
        f"share.redis.ca_file {tmp_path}/ca.pem: no such file or directory; correct share.redis.ca_file"
    )


# -- login ------------------------------------------------------------------------------------------


@NEEDS_REDIS
def test_passwords(tmp_path: Path) -> None:
    wrong = {"PASSWORD": "s3cret"}
    with redis_server(password="right") as server:
        assert error_of(at(server)) == (
            "the server requires a password (NOAUTH); set share.redis.password, and username if it has users"
        )
        assert error_of(at(server, password=Reference("env", "PASSWORD")), wrong) == (
            "the server refuses the user or the password (WRONGPASS); check share.redis.username, password and its ACL"
        )
        missing = tmp_path / "password"
        assert error_of(at(server, password=Reference("file", str(missing)))) == (
            f"share.redis.password: file {missing}: no such file or directory; correct it, which takes effect "
            "at the next connection"
        )
    with redis_server() as server:
        assert error_of(at(server, password=Reference("env", "PASSWORD")), wrong) == (
            "the server has no password for this user; remove share.redis.password, or set one at the server"
        )


# -- the state of the server ------------------------------------------------------------------------


@NEEDS_REDIS
def test_a_server_that_is_full() -> None:
    with redis_server("maxmemory 1", "maxmemory-policy noeviction") as server:
        assert error_of(at(server)) == (
            "the memory of the server is full (OOM); raise its maxmemory, or remove the data of other programs"
        )


@NEEDS_REDIS
def test_replicas() -> None:
    with redis_server() as primary, redis_server("replica-serve-stale-data no", replica_of=primary) as replica:
        assert error_of(at(replica)) == (
            "the server is a replica (READONLY); point share.redis.url at the primary, or at the sentinels"
        )
        primary.stop()
        eventually(lambda: replica.ask("INFO", "replication")["master_link_status"] == "down")
        assert error_of(at(replica)) == (
            "the server is a replica that lost its primary (MASTERDOWN); point share.redis.url at the primary"
        )


@NEEDS_REDIS
def test_a_script_that_blocks_the_server() -> None:
    with redis_server("lua-time-limit 1") as server:
        blocking = threading.Thread(target=_blocked, args=(server,))
        blocking.start()
        try:
            eventually(lambda: "BUSY" in error_of(at(server)) if _is_busy(server) else False)
        finally:
            server.ask("SCRIPT", "KILL")
            blocking.join()


def _blocked(server: RedisServer) -> None:
    import redis  # noqa: PLC0415 - the tests are collected without the extra too

    with pytest.raises(redis.ResponseError):
        server.ask("EVAL", "while true do end", 0)


def _is_busy(server: RedisServer) -> bool:
    import redis  # noqa: PLC0415 - as above

    try:
        server.ask("PING")
    except redis.ResponseError:
        return True
    return False


@NEEDS_REDIS
def test_a_cluster() -> None:
    with redis_server("cluster-enabled yes", f"cluster-port {free_port()}") as server:
        assert error_of(at(server)).endswith("(CLUSTERDOWN); use a server without cluster mode, or sentinels")


@NEEDS_REDIS
def test_too_many_clients() -> None:
    with redis_server("maxclients 1") as server, server.admin() as only:
        only.ping()
        assert error_of(at(server)) == (
            "the server has as many clients as its maxclients allows; raise it, or look for too many clients"
        )


@NEEDS_REDIS
def test_databases_and_keys_of_others() -> None:
    with redis_server("databases 2") as server:
        assert error_of(at(server, url=f"{server.url}/2")) == (
            "the server does not have this database; write another number at the end of share.redis.url"
        )
        server.ask("SET", f"bearerd:token:{NAMES.token}", "of another program")
        store = RedisStore(at(server), {})
        store.connect()
        with pytest.raises(ShareUnavailable, match=r"another program uses keys with this prefix \(WRONGTYPE\)"):
            store.read(NAMES)
        store.disconnect()


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("LOADING Redis is loading s3cret", "the server is still loading its data (LOADING); it is tried again until"),
        ("MISCONF Redis s3cret", "the server cannot save to its disk and so refuses writes (MISCONF); free its disk"),
        ("NOREPLICAS s3cret", "the server has fewer replicas than its min-replicas-to-write (NOREPLICAS); start them"),
        ("DENIED s3cret", "the server accepts only connections of its own machine (DENIED); give it a password"),
        ("MOVED 1 s3cret:1", "clusters are not supported (MOVED); use a server without cluster mode, or sentinels"),
        ("MOVED s3cret", "the answer is not that of a Redis server; check host and port"),
        ("ERR unknown command 'x', s3cret", "the server does not know a command; it must be Redis 6.2 or Valkey 7.2"),
        ("ERR Error running script: @user_script:1: -OOM s3cret", "the memory of the server is full (OOM); raise its"),
        (
            "ERR s3cret",
            "the server refuses a command (ERR); it must be Redis 6.2 or Valkey 7.2 or newer, and allow Lua",
        ),
        ("S3CRET s3cret", "the server refuses a command (ERR); it must be"),
        ("", "the server refuses a command (ERR); it must be"),
    ],
)
def test_other_errors_of_servers(answer: str, said: str) -> None:
    def answers(command: list[bytes]) -> bytes:
        return f"-{answer}\r\n".encode() if command[0] == b"EVALSHA" else usual(command)

    with answering(answers) as url:
        assert error_of(Redis(url, timeout=WITHIN / 2)).startswith(said)


# -- sentinels --------------------------------------------------------------------------------------


@NEEDS_REDIS
def test_sentinels() -> None:
    assert error_of(Redis("redis+sentinel://127.0.0.1:1/main")) == (
        f"no sentinel knows the server: 127.0.0.1:1: connection refused; {LISTENS}"
    )
    with redis_server() as server, sentinel(server) as watcher:
        assert error_of(at(server, url=watcher.url.replace("/bearerd", "/other"))) == (
            "the sentinels do not know the service in share.redis.url; write the name that `sentinel monitor` gives it"
        )
        assert error_of(at(server, url=server.url.replace("redis:", "redis+sentinel:") + "/main")) == (
            f"no sentinel knows the server: {server.address}: not a sentinel; check its port, or write redis:// for a "
            "server"
        )
        assert error_of(at(server, url=watcher.url.replace("+sentinel", "").removesuffix("/bearerd"))) == (
            "the server does not know a command; it must be Redis 6.2 or Valkey 7.2 or newer, and no sentinel"
        )


@pytest.mark.parametrize(
    "place", [b"*2\r\n$4\r\nh st\r\n$1\r\n1\r\n", b"*1\r\n$1\r\nh\r\n", bulk(b"host", b"0"), b"+OK\r\n"]
)
def test_a_sentinel_that_names_no_server(place: bytes) -> None:
    with answering(lambda command: place if command[0] == b"SENTINEL" else usual(command)) as url:
        said = error_of(Redis(url.replace("redis:", "redis+sentinel:") + "/main", timeout=WITHIN / 2))
    assert "the answer is not that of a Redis server" in said


# -- the extra, and secrets in URLs -----------------------------------------------------------------


def test_the_extra_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("redis_client", "redis_connection", "redis_store"):
        monkeypatch.delattr(bearerd.share, name, raising=False)
        monkeypatch.delitem(sys.modules, f"bearerd.share.{name}", raising=False)
    for module in [name for name in sys.modules if name.partition(".")[0] == "redis"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "redis", None)
    store = importlib.import_module("bearerd.share.redis_store").RedisStore(Redis("redis://127.0.0.1:1"), {})
    with pytest.raises(ShareUnavailable, match=r"not installed: run .*/bin/pip install '\.\[redis\]' in the checkout$"):
        store.prove()


@pytest.mark.parametrize("url", ["redis://user:s3cret", "s3cret", "redis://u:s3/cret@host", "redis://s3cret.invalid"])
def test_a_url_that_is_a_secret_is_named_by_where_it_is_read(url: str) -> None:
    assert "env URL" in error_of(Redis(Reference("env", "URL")), {"URL": url})


# -- servers that lie -------------------------------------------------------------------------------

CLOCK = b"1795909359000000"
TOO_GREAT = str(GREATEST_FENCE + 1).encode()


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\0\r\n",
        b"+OK\r\n",
        b":1\r\n",
        b"$-1\r\n",
        b"*-1\r\n",
        b"*0\r\n",
        b"*x\r\n",
        b"$x\r\n",
        b":" + 5000 * b"9" + b"\r\n",
        200_000 * b"*1\r\n",
        b"*2\r\n*0\r\n*0\r\n",
        b"*3\r\n" + 3 * b":1\r\n",
        b"*3\r\n" + 3 * b"$-1\r\n",
        bulk(CLOCK),
        bulk(CLOCK, b"done"),
        bulk(CLOCK, b"else"),
        bulk(b"soon", b"busy", b"1"),
        bulk(b"1", b"busy", b"1"),
        bulk(TOO_GREAT, b"busy", b"1"),
        bulk(CLOCK, b"busy", b"-1"),
        bulk(CLOCK, b"busy", b"inf"),
        bulk(CLOCK, b"busy", b"1e3"),
        bulk(CLOCK, b"busy", 16 * b"9"),
        bulk(CLOCK, b"limited", b"other", b"1"),
        bulk(CLOCK, b"granted", b"7", b"0", b"0", b"0"),
        bulk(CLOCK, b"granted", TOO_GREAT, b"0", b"0", b"0"),
        bulk(CLOCK, b"granted", b"9", b"-1", b"0", b"0"),
        bulk(CLOCK, b"granted", b"9", b"0", b"9999999", b"0"),
        bulk(CLOCK, b"granted", b"9", b"0", b"0", b"2"),
        bulk(CLOCK, b"stored", b"5", b"sealed"),
        bulk(CLOCK, b"stored", TOO_GREAT, b"sealed"),
        bulk(CLOCK, b"stored", b"9", b""),
        bulk(CLOCK, b"stored", b"9", (2**20 + 1) * b"x"),
        bulk(CLOCK, b"failing", b"", b"1", b"1", b"0"),
        bulk(CLOCK, b"failing", b"sealed", b"1", b"0", b"0"),
    ],
)
def test_an_answer_that_cannot_be_right_is_refused(answer: bytes) -> None:
    with answering(lambda command: answer if command[0] == b"EVALSHA" else usual(command)) as url:
        store = RedisStore(Redis(url, timeout=WITHIN / 2), {})
        store.connect()
        with pytest.raises(ShareUnavailable, match="not that of a Redis server"):
            store.claim(NAMES, Claim(have=5, seen=7))
        store.disconnect()


@pytest.mark.parametrize("script", ["store", "keep", "fences"])
def test_every_operation_checks_its_answer(script: str) -> None:
    answer = bulk(CLOCK, b"stored", b"5", b"sealed")  # not newer than 5, not done, and no fences
    operations: dict[str, Callable[[RedisStore], object]] = {
        "store": lambda store: store.store(NAMES, 5, b"sealed", 1.0),
        "keep": lambda store: store.keep(NAMES, 5, 1.0),
        "fences": lambda store: store.fences(("one", "two", "three")),
    }
    with answering(lambda command: answer if command[0] == b"EVALSHA" else usual(command)) as url:
        store = RedisStore(Redis(url, timeout=WITHIN / 2), {})
        store.connect()
        with pytest.raises(ShareUnavailable, match="not that of a Redis server"):
            operations[script](store)
        store.disconnect()


@pytest.mark.parametrize("head", [b"$999999999999\r\n", b"*999999999\r\n", b"+"])
def test_an_endless_answer_ends_at_a_megabyte(head: bytes) -> None:
    sent = 0

    def endless(command: list[bytes]) -> bytes | Iterator[bytes]:
        return usual(command) if command[0] != b"EVALSHA" else pieces()

    def pieces() -> Iterator[bytes]:
        nonlocal sent
        yield head
        while True:
            sent += 2**16
            yield 2**14 * b":1\r\n" if head.startswith(b"*") else 2**16 * b"x"

    with answering(endless) as url:
        store = RedisStore(Redis(url, timeout=WITHIN / 2), {})
        store.connect()
        with pytest.raises(ShareUnavailable, match="not that of a Redis server"):
            store.read(NAMES)
        store.disconnect()
    assert sent < 2**24, "what the sockets hold, and a megabyte"


def test_an_answer_that_drips_ends_at_the_deadline() -> None:
    pause = threading.Event()

    def drip(command: list[bytes]) -> bytes | Iterator[bytes]:
        return usual(command) if command[0] != b"EVALSHA" else pieces()

    def pieces() -> Iterator[bytes]:
        yield b"$1000000\r\n"
        while not pause.wait(0.01):
            yield b"x"

    with answering(drip) as url:
        store = RedisStore(Redis(url, timeout=2.0), {})
        store.connect()
        with pytest.raises(ShareUnavailable, match=r"timed out after 2 s"):
            store.read(NAMES)
        pause.set()
        store.disconnect()


# -- errors that no server here makes ---------------------------------------------------------------

REACH = "check that the server runs, and that no firewall is in between"
NO_TLS = "check that this port speaks TLS, else write redis:// for rediss://"
IS_TLS = "check host and port; if it speaks TLS, write rediss://"


def where(*, tls: bool = False, ca_file: str | None = None) -> Where:
    return Where("host:6379", tls, ca_file, 2.5)


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        ("CLUSTERDOWN", "; use a server without cluster mode, or sentinels"),
        ("MOVED", "; use a server without cluster mode, or sentinels"),
        ("ASK", "; use a server without cluster mode, or sentinels"),
        ("CROSSSLOT", "; use a server without cluster mode, or sentinels"),
        ("TRYAGAIN", "; use a server without cluster mode, or sentinels"),
        ("BUSY", "; SCRIPT KILL ends it"),
        ("MISCONF", "; free its disk, or turn persistence off"),
        ("NOREPLICAS", "; start them, or lower it"),
        ("MASTERDOWN", "; point share.redis.url at the primary"),
        ("NOPERM", "; give it the ACL in docs/fleet.md, with this prefix"),
    ],
)
def test_the_code_of_an_error_is_found_wherever_it_stands(code: str, advice: str) -> None:
    for refusal in (
        where().refusal(code, "s3cret"),
        where().refusal(None, f"{code} s3cret"),
        where().refusal("ERR", f"Error running script (call to f_1): @user_script:3: -{code} s3cret"),
    ):
        assert refusal.code == code
        text = str(refusal)
        assert text.startswith("host:6379: ")
        assert f" ({code}); " in text
        assert text.endswith(advice)
        assert "s3cret" not in text


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("unknown command 'x'", "UNKNOWN"),
        ("The user executing the script can't run this command", "NOPERM"),
        ("ACL failure in script: User s3cret", "NOPERM"),
        ("max number of clients reached", "MAXCLIENTS"),
        ("AUTH <password> called without any password configured", "NOPASSWORD"),
        ("Client sent AUTH, but no password is set", "NOPASSWORD"),
        ("DB index is out of range", "DATABASE"),
        ("-DENIED Redis is running in protected mode", "DENIED"),
        ("invalid password", "WRONGPASS"),
        ("A NEW KIND of error", "ERR"),
        ("XOOM", "ERR"),
    ],
)
def test_the_code_of_an_error_without_one_is_found_by_its_text(text: str, code: str) -> None:
    refusal = where().refusal("ERR", text)
    assert refusal.code == code
    ours = code in {"UNKNOWN", "MAXCLIENTS", "NOPASSWORD", "DATABASE"}
    assert (f"({code})" in str(refusal)) != ours


def test_a_script_that_the_server_does_not_know_has_its_code() -> None:
    assert where().refusal("NOSCRIPT", "No matching script").code == "NOSCRIPT"


def numbered(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def untrusted(message: str | None) -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_message = message  # type: ignore[assignment]  # as ssl itself sets it
    return error


def of_tls(reason: str | None) -> ssl.SSLError:
    error = ssl.SSLError(1, "failed")
    error.reason = reason  # type: ignore[assignment]  # as ssl itself sets it
    return error


@pytest.mark.parametrize(
    ("error", "phase", "said"),
    [
        (TimeoutError(), "name look-up", f"timed out after 2.5 s (during name lookup); {REACH}"),
        (TimeoutError(), "connect", f"timed out after 2.5 s (while connecting); {REACH}"),
        (TimeoutError(), "TLS", f"timed out after 2.5 s (during the TLS handshake); {NO_TLS}"),
        (TimeoutError(), "command", f"timed out after 2.5 s (while waiting for an answer); {REACH}"),
        (numbered(errno.ETIMEDOUT), "connect", f"connection timed out (while connecting); {REACH}"),
        (numbered(errno.EHOSTUNREACH), "connect", f"no route to host (while connecting); {REACH}"),
        (
            numbered(errno.EACCES),
            "connect",
            "permission denied; let this user write to the server's socket (unixsocketperm and its directory)",
        ),
        (numbered(errno.EMFILE), "connect", "too many open files; raise LimitNOFILE"),
        (
            numbered(errno.EADDRNOTAVAIL),
            "connect",
            "cannot assign requested address; check the host in share.redis.url",
        ),
        (UnicodeError(), "connect", "the name cannot be looked up; check the host in share.redis.url"),
        (
            ConnectionResetError(errno.ECONNRESET, ""),
            "command",
            f"the server closed the connection (while waiting for an answer); {REACH}",
        ),
        (
            BrokenPipeError(errno.EPIPE, ""),
            "login",
            f"the server closed the connection (before its first answer); {IS_TLS}",
        ),
        (MemoryError(), "command", "out of memory; raise the memory limit of bearerd, or of the machine"),
        (ConnectionResetError(), "connect", f"the server closed the connection (while connecting); {REACH}"),
        (ssl.SSLEOFError(8, ""), "TLS", f"the server closed the connection (during the TLS handshake); {NO_TLS}"),
        (
            ssl.SSLZeroReturnError(6, ""),
            "TLS",
            f"the server closed the connection (during the TLS handshake); {NO_TLS}",
        ),
        (of_tls("WRONG_VERSION_NUMBER"), "TLS", f"TLS: wrong version number; {NO_TLS}"),
        (of_tls("RECORD_LAYER_FAILURE"), "TLS", f"TLS: record layer failure; {NO_TLS}"),
        (
            of_tls("NO_PROTOCOLS_AVAILABLE"),
            "TLS",
            "TLS: no protocols available; check the TLS settings of the server; it needs TLS 1.2 or newer",
        ),
        (of_tls(None), "TLS", "TLS: failed; check the TLS settings of the server; it needs TLS 1.2 or newer"),
    ],
    ids=str,
)
def test_no_answer(error: Exception, phase: Phase, said: str) -> None:
    assert str(where().failure(error, phase)) == f"host:6379: {said}"


def test_a_tls_server_that_hangs_up_before_its_first_answer_is_not_taken_for_one_without_tls() -> None:
    said = str(where(tls=True).failure(ConnectionResetError(), "login"))
    assert said == f"host:6379: the server closed the connection (before its first answer); {REACH}"


CLOCK_ADVICE = "check this machine's clock; if it is right, renew the server's certificate"


@pytest.mark.parametrize(
    ("message", "ca_file", "advice"),
    [
        ("Hostname mismatch, certificate is not valid for 'a'.", None, "use the name in the server's certificate"),
        ("IP address mismatch, certificate is not valid for '::1'.", None, "use the name in the server's certificate"),
        ("unable to get local issuer certificate", None, "for a private authority set share.redis.ca_file"),
        ("self-signed certificate", None, "for a private authority set share.redis.ca_file"),
        ("self signed certificate", "/ca.pem", "put the authority that issued it into ca_file /ca.pem"),
        ("certificate has expired", None, CLOCK_ADVICE),
        ("certificate is not yet valid", None, CLOCK_ADVICE),
        ("certificate revoked", None, "check the server's certificate"),
        (None, None, "check the server's certificate"),
    ],
)
def test_certificates_that_are_refused(message: str | None, ca_file: str | None, advice: str) -> None:
    said = str(where(tls=True, ca_file=ca_file).failure(untrusted(message), "TLS"))
    why = (message or "certificate refused").rstrip(".").lower()
    assert said.startswith(f"host:6379: TLS certificate refused: {why}; {advice}")


@pytest.mark.parametrize("tls", [False, True])
def test_an_answer_of_another_kind_of_server(tls: bool) -> None:
    said = f"host:6379: the answer is not that of a Redis server; {'check host and port' if tls else IS_TLS}"
    assert str(where(tls=tls).garbage()) == said
