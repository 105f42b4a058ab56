"""The line of each token that is not well, fault by fault: what failed, what still holds, what to do.

The tables are for reading from top to bottom. A daemon with real servers, secrets, files and hooks shows the first one;
TIME is a duration and a local time. The second one has the states that take hours, or a broken machine, to reach.
"""

from __future__ import annotations

import errno
import gzip
import os
import re
import socket
import ssl
import struct
import subprocess
import threading
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from math import inf
from pathlib import Path
from typing import Any

import pytest
import trustme

import test_messages
from bearerd.api.status import daemon_troubles
from bearerd.cli.ask import NoAnswer, ask, ask_status
from bearerd.grant.deadline import Attempt
from bearerd.grant.explain import explain
from bearerd.grant.outcome import Malformed, Phase, RateLimited, Refused, Transient, Unsent
from bearerd.model import Config, Output
from bearerd.model import Provider as Endpoint
from bearerd.publish.advice import advice, this_user
from bearerd.share.types import ShareView
from bearerd.target_status import TargetStatus
from bearerd.terms import Redis, Share, WhenUnavailable
from bearerd.timeformat import spoken
from bearerd.trouble import trouble_of
from support import prometheus
from support.api import Site
from support.clock import START
from support.peer import Peer, blackhole, peer, refusing
from support.process import eventually, patched, running
from support.prometheus import share
from support.server import Answer, Seen, Server, issues, serving
from support.targets import CLIENT, target

AS_ROOT = os.geteuid() == 0

# -- shown by a daemon -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Night:
    """A situation, and the line of the token `NAME/x` in it. The client's keys may contain URL and DIR."""

    name: str
    situation: str
    failed: str
    holds: str
    do: str
    keys: str = "token_url: URL"
    secret: str = "file: DIR/secret"
    token: str = ""
    refreshed: bool = False
    """Whether a new token is requested once the first one is there."""
    root: bool = False
    """Whether the situation needs root: it mounts something."""

    @property
    def line(self) -> str:
        """The whole line."""
        return f"{self.failed}. {self.holds}. To do: {self.do}."


GOOD = "The current token is good for TIME"
NONE = "There is no valid token"
THEN = "next attempt in TIME"
AT_ONCE = "a changed secret or config is tried at once"
CHECK_URL = "check that token_url matches the provider's settings"
UNWRITTEN = "The current token is good for TIME, but not in all of its files"
SLOW = "timeout: 500ms, token_url"

SHOWN = [
    # The provider refuses.
    Night(
        "refused",
        "the client is refused, and never had a token",
        "HTTP 401 invalid_client: the client was refused",
        NONE,
        f"check that client_id, secret and auth match the provider's settings; {AT_ONCE}; {THEN}",
    ),
    Night(
        "ok-refused",
        "the client is refused, and had tokens",
        "HTTP 401 invalid_client: the client was refused",
        GOOD,
        "the provider accepted the same credentials before: ask whether it revoked, replaced or locked them; "
        f"{AT_ONCE}; {THEN}",
        refreshed=True,
    ),
    Night(
        "scope",
        "one token is refused for its scope",
        "HTTP 400 invalid_scope: the scope was refused",
        NONE,
        f"check that scope matches the provider's settings, and have it granted to this client; {AT_ONCE}; {THEN}",
    ),
    Night(
        "firewall",
        "a firewall refuses",
        "HTTP 403: refused with an HTML page, not by a token endpoint",
        NONE,
        "check that token_url matches the provider's settings; if it does, ask the provider to let this machine's "
        f"address through; {AT_ONCE}; {THEN}",
    ),
    # The provider fails.
    Night(
        "down",
        "the provider is down at the start",
        "HTTP 503: a temporary error at the provider",
        NONE,
        f"wait; if it lasts, ask the provider; {THEN}",
    ),
    Night(
        "ok-down",
        "the provider is down at a refresh",
        "HTTP 503: a temporary error at the provider",
        GOOD,
        f"wait; if it lasts, ask the provider; {THEN}",
        refreshed=True,
    ),
    Night(
        "short-down",
        "the provider is down until the token has expired",
        "HTTP 503: a temporary error at the provider",
        "There is no valid token: the last one expired TIME ago, and its files still contain it",
        f"wait; if it lasts, ask the provider; {THEN}",
    ),
    Night(
        "maintenance",
        "the provider is down for maintenance, with Retry-After",
        "HTTP 503: a temporary error at the provider; the provider asks to wait 15 min",
        NONE,
        f"wait; if it lasts, ask the provider; {THEN}",
    ),
    Night(
        "ok-limited",
        "too many requests, with Retry-After",
        "HTTP 429: too many requests; the provider asks to wait 15 min",
        GOOD,
        f"wait; if it recurs, set rate_limit to what the provider allows; {THEN}",
        refreshed=True,
    ),
    # It answers with something else.
    Night(
        "login",
        "the reply is a login page",
        "HTTP 200, but the reply is HTML, not JSON",
        NONE,
        f"token_url leads to a login page, a proxy or another site: check that it matches the provider's "
        f"settings; {AT_ONCE}; {THEN}",
    ),
    Night(
        "moved",
        "the reply is a redirect",
        "HTTP 302: a redirect to https://login.example.com, "
        "which is not followed because it would send the secret there",
        NONE,
        f"set token_url to the endpoint itself; {AT_ONCE}; {THEN}",
    ),
    Night(
        "lost",
        "nothing is at token_url",
        "HTTP 404: not the reply of a token endpoint",
        NONE,
        f"check that token_url matches the provider's settings; {AT_ONCE}; {THEN}",
    ),
    Night(
        "crlf",
        "the token would break out of a header",
        "the access token contains a line end or NUL, which would break out of a header",
        NONE,
        f"check that token_url matches the provider's settings; bearerd check --online shows what came back; "
        f"{AT_ONCE}; {THEN}",
    ),
    Night(
        "dpop",
        "the token is bound to a key",
        "the token is of type dpop: each call needs a new proof made with a key, which a file cannot contain",
        NONE,
        f"ask the provider for bearer tokens for this client; {AT_ONCE}; {THEN}",
    ),
    Night(
        "bomb",
        "a small compressed reply becomes a large one",
        "HTTP 200, but the reply is longer than 65536 bytes",
        NONE,
        f"{CHECK_URL}; bearerd check --online shows what came back; {AT_ONCE}; {THEN}",
    ),
    Night(
        "endless",
        "the reply has no end",
        "HTTP 200, but the reply is longer than 65536 bytes",
        NONE,
        f"{CHECK_URL}; bearerd check --online shows what came back; {AT_ONCE}; {THEN}",
    ),
    Night(
        "metadata",
        "the issuer's metadata names another issuer",
        "the metadata names another issuer",
        NONE,
        f"write issuer exactly as the provider's own metadata does, or set token_url instead; {AT_ONCE}; {THEN}",
        keys="issuer: URL",
    ),
    # The network.
    Night(
        "closed",
        "no server listens",
        "127.0.0.1:PORT: connection refused (while connecting)",
        NONE,
        f"no server listens there, or a firewall refuses: check host and port; {THEN}",
        keys="token_url: CLOSED",
    ),
    Night(
        "swallowed",
        "a firewall drops everything",
        "127.0.0.1:PORT: timed out after 0.5 s (while connecting)",
        NONE,
        f"check the network and the firewalls on the way; {THEN}",
        keys=f"{SLOW}: SILENT",
    ),
    Night(
        "hang-fast",
        "the provider accepts the connection and says nothing",
        "127.0.0.1:PORT: timed out after 0.5 s (while waiting for the reply)",
        NONE,
        f"wait; if it lasts, ask the provider, or raise timeout; {THEN}",
        keys=f"{SLOW}: URL",
    ),
    Night(
        "drip-fast",
        "the reply drips",
        "127.0.0.1:PORT: timed out after 0.5 s (while reading the reply)",
        NONE,
        f"wait; if it lasts, ask the provider, or raise timeout; {THEN}",
        keys=f"{SLOW}: URL",
    ),
    Night(
        "reset",
        "the provider resets the connection",
        "127.0.0.1:PORT: connection reset by peer (while waiting for the reply)",
        NONE,
        f"if this port speaks TLS, write https://; {THEN}",
        keys="token_url: RESET",
    ),
    Night(
        "proxy",
        "the proxy is down",
        "the proxy 127.0.0.1:PORT: connection refused (while connecting)",
        NONE,
        f"no server listens there, or a firewall refuses: check host and port; {THEN}",
        keys="proxy: CLOSED, token_url: URL",
    ),
    Night(
        "intercepted",
        "a proxy on the way refuses",
        "HTTP 407 from a proxy, not from the provider",
        NONE,
        f"ask the operator of the proxy to allow it; {THEN}",
    ),
    Night(
        "tls",
        "the certificate is of an unknown authority",
        "127.0.0.1:PORT: TLS certificate refused: unable to get local issuer certificate",
        NONE,
        f"for a private authority set ca_file; for a public one install the system's ca-certificates; {THEN}",
        keys="token_url: UNTRUSTED",
    ),
    Night(
        "mismatch",
        "the certificate is for another host",
        "127.0.0.1:PORT: TLS certificate refused: IP address mismatch, certificate is not valid for '127.0.0.1'",
        NONE,
        f"check the host's name, and whether a proxy intercepts TLS; {THEN}",
        keys="ca_file: DIR/ca.pem, token_url: OTHER",
    ),
    Night(
        "outdated",
        "the certificate has expired",
        "127.0.0.1:PORT: TLS certificate refused: certificate has expired",
        NONE,
        f"check this machine's clock; if it is right, inform the provider; {THEN}",
        keys="ca_file: DIR/ca.pem, token_url: EXPIRED",
    ),
    Night(
        "old",
        "the provider has only an old version of TLS",
        "127.0.0.1:PORT: TLS: tlsv1 alert protocol version",
        NONE,
        f"the server speaks only versions before TLS 1.2, which are not safe: ask the provider for TLS 1.2; {THEN}",
        keys="ca_file: DIR/ca.pem, token_url: OLD",
    ),
    Night(
        "authority",
        "the file of the authorities is missing",
        "ca_file DIR/none: no such file or directory",
        NONE,
        f"correct it; {AT_ONCE}; {THEN}",
        keys="ca_file: DIR/none, token_url: UNTRUSTED",
    ),
    # The secret.
    Night(
        "missing",
        "the file of the secret is missing",
        "file DIR/none: no such file or directory",
        NONE,
        f"write the secret to it, with mode 0600 and the daemon's user as its owner; {AT_ONCE}; {THEN}",
        secret="file: DIR/none",
    ),
    Night(
        "readable",
        "others can read the secret",
        "file DIR/readable: mode 0644 lets others access it",
        NONE,
        "run chmod 600 on it, or, if its mode cannot be set (a Kubernetes mount), set permissions: group or any next "
        f"to file; {THEN}",
        secret="file: DIR/readable",
    ),
    Night(
        "empty",
        "the secret is empty",
        "file DIR/empty: empty",
        NONE,
        f"write the secret to it, with mode 0600 and the daemon's user as its owner; {AT_ONCE}; {THEN}",
        secret="file: DIR/empty",
    ),
    Night(
        "variable",
        "the variable is not set",
        "env NOT_SET: the variable is not set",
        NONE,
        f"set it in the daemon's environment, and restart bearerd; {THEN}",
        secret="env: NOT_SET",
    ),
    Night(
        "credential",
        "the unit has no credential",
        "credential dnb: $CREDENTIALS_DIRECTORY is not set",
        NONE,
        f"the unit needs LoadCredential=dnb:…; {THEN}",
        secret="credential: dnb",
    ),
    Night(
        "command",
        "the command for the secret fails",
        "command /bin/false: exit 1",
        NONE,
        f"run it by hand as the daemon's user to see why; {THEN}",
        secret="command: [/bin/false]",
    ),
    Night(
        "nocommand",
        "the command for the secret does not exist",
        "command DIR/none: no such file or directory",
        NONE,
        f"correct the path of the program, or of the interpreter in its first line; {THEN}",
        secret="command: [DIR/none]",
    ),
    Night(
        "mute",
        "the command for the secret prints nothing",
        "command /bin/true: empty",
        NONE,
        f"run it by hand as the daemon's user to see why; {THEN}",
        secret="command: [/bin/true]",
    ),
    Night(
        "endlessly",
        "the command for the secret prints without an end",
        "command /usr/bin/yes: more than 64 KiB, so not a secret",
        NONE,
        f"run it by hand as the daemon's user to see why; {THEN}",
        secret="command: [/usr/bin/yes]",
    ),
    Night(
        "latin",
        "the secret is not UTF-8",
        "file DIR/latin: not UTF-8 text",
        NONE,
        f"put the secret into it; {AT_ONCE}; {THEN}",
        secret="file: DIR/latin",
    ),
    # The files.
    Night(
        "directory",
        "a directory has the name of the file",
        "DIR/tokens/directory/x: a directory has this name",
        UNWRITTEN,
        "move it away",
    ),
    Night(
        "symlink",
        "a directory on the path is a symlink",
        "the symlink DIR/tokens/symlink is not followed: symlinks are not allowed below the output directory",
        UNWRITTEN,
        "replace it with a directory, or use the real path",
    ),
    Night(
        "template",
        "the template uses a field that the reply does not have",
        "template DIR/template: line 1: 'nothing' is not defined",
        UNWRITTEN,
        "correct it; writing is retried every 10 s",
        token="files: [{format: template, template: DIR/template, path: template/x}]",
    ),
    Night(
        "mounted",
        "the file is a mount point",
        "DIR/tokens/mounted/x: the file is a mount point",
        UNWRITTEN,
        "mount its directory instead",
        root=True,
    ),
    Night(
        "stranger",
        "the file belongs to a third user",
        "DIR/home/x belongs to user 64322, and is below DIR/home, which belongs to user 64321: bearerd does not change "
        "files of a third user there",
        UNWRITTEN,
        "remove it, or use another path",
        token="files: [{format: raw, path: DIR/home/x}]",
        root=True,
    ),
    Night(
        "full",
        "the disk is full",
        "DIR/tokens/full/x: no space left",
        UNWRITTEN,
        "free some space, or enlarge the file system",
        root=True,
    ),
    Night(
        "readonly",
        "the disk is read-only at a refresh",
        "DIR/tokens/readonly/x: the file system is read-only",
        "The previous token in the files is good for TIME",
        "mount it for writing, or write to another directory",
        refreshed=True,
        root=True,
    ),
    # The hooks.
    Night(
        "hook",
        "the hook fails",
        "hook run DIR/hook: exit 3 (given up)",
        GOOD,
        "run it by hand as the daemon's user to see why",
        token="on_change: [{run: [DIR/hook]}]",
    ),
    Night(
        "nohook",
        "the hook's program is missing, and its second one takes too long",
        "hook run DIR/none: cannot be started: no such file or directory (given up); "
        "hook run /bin/sleep: timed out after 50 ms and was killed (given up)",
        GOOD,
        "correct it, and reload the program by hand",
        token="on_change: [{run: [DIR/none]}, {run: [/bin/sleep, '60'], timeout: 50ms}]",
    ),
    Night(
        "signal",
        "the hook's process does not run",
        "hook signal HUP to none-of-this-name: no process is named none-of-this-name (as in `ps -o comm`), or the "
        "daemon's user cannot see it (given up)",
        GOOD,
        "correct it, and reload the program by hand",
        token="on_change: [{signal: HUP, process: none-of-this-name}]",
    ),
    # Held, without a failure of its own.
    Night("hang", "its first request is on its way", "its first request is still in progress", NONE, "wait"),
    Night(
        "half",
        "another token of the client asks first",
        "held: its client sends one attempt at a time",
        NONE,
        "wait; next attempt when a request in flight has ended",
        keys="token_url: URL/hang",
    ),
    Night(
        "slot",
        "other clients use all slots of the provider",
        "held: its provider has max_concurrency requests in flight",
        NONE,
        "wait, or raise max_concurrency if the provider allows more; next attempt when a request in flight has ended",
        keys="provider: busy",
    ),
    Night(
        "rate",
        "the rate limit is used up",
        "held: its rate_limit allows no request yet",
        NONE,
        f"wait, or raise rate_limit if the provider allows more; {THEN}",
        keys="rate_limit: 1/1h, token_url: URL",
    ),
]
# Clients whose second token, or a second client, has to go first.
TWO_TOKENS = {"scope": "{x: {scope: bad}, y: {}}", "half": "{x: {}, y: {}}", "rate": "{x: {}, y: {}}"}
TWO_CLIENTS = {"slot"}

# Seconds: as short as a machine that pauses allows.
SHORT = 6
TOKEN = {"access_token": "t", "token_type": "Bearer", "expires_in": 3600}
ANSWERS = {
    "refused": Answer(401, {"error": "invalid_client"}),
    "firewall": Answer(403, b"<!DOCTYPE html>"),
    "down": Answer(503, {}),
    "maintenance": Answer(503, {}, {"Retry-After": "900"}),
    "limited": Answer(429, {}, {"Retry-After": "900"}),
    "login": Answer(200, b"<!DOCTYPE html>"),
    "moved": Answer(302, b"", {"Location": "https://login.example.com/token"}),
    "lost": Answer(404, b"no"),
    "crlf": Answer(200, TOKEN | {"access_token": "t\r\n1"}),
    "dpop": Answer(200, TOKEN | {"token_type": "DPoP"}),
    "bomb": Answer(200, gzip.compress(b" " * 2**24), {"Content-Encoding": "gzip"}),
    "endless": Answer(200, b" " * 2**17, {"Content-Length": str(2**40)}),
    "drip": Answer(200, b"{", {"Content-Length": "2"}),
    "intercepted": Answer(407),
}


class Provider:
    """Answers by the path, which is a client's name: `ok-down` is up for the first request only."""

    def __init__(self) -> None:
        self.over = threading.Event()
        self._asked: Counter[str] = Counter()
        self._lock = threading.Lock()

    def __call__(self, seen: Seen) -> Answer:
        first, _, then = seen.path.rpartition("/")[2].partition("-")
        with self._lock:
            self._asked[seen.path] += 1
            number = self._asked[seen.path]
        token = TOKEN | {"access_token": f"t-{number}"}
        if first in {"ok", "short"} and number == 1:
            return Answer(200, token | ({"expires_in": SHORT} if first == "short" else {}))
        if first in {"hang", "busy"}:
            self.over.wait()
        if b"scope=bad" in seen.body:
            return Answer(400, {"error": "invalid_scope"})
        return ANSWERS.get(first, ANSWERS.get(then, Answer(200, token)))


def reset(it: Peer, connection: socket.socket, _: int) -> None:
    """Reset the connection instead of a reply."""
    it.read(connection)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@contextmanager
def mounts(tokens: Path) -> Iterator[None]:
    """A file that is a mount point, a full disk, and one that `run` makes read-only."""
    with ExitStack() as stack:

        def mount(at: Path, *arguments: str | Path) -> None:
            subprocess.run(["mount", *arguments, at], check=True)
            stack.callback(lambda: subprocess.run(["umount", "--lazy", at], check=True))

        for name in ("mounted", "full", "readonly"):
            (tokens / name).mkdir(parents=True)
        (tokens / "mounted/x").touch()
        mount(tokens / "mounted/x", "--bind", tokens.parent / "secret")
        mount(tokens / "full", "-t", "tmpfs", "-o", "size=4k", "tmpfs")
        (tokens / "full/filler").write_bytes(b"x" * 4096)
        mount(tokens / "readonly", "-t", "tmpfs", "-o", "size=64k", "tmpfs")
        yield


def surroundings(path: Path) -> None:
    """The files that the table names."""
    for name, content, mode in (
        ("secret", "hunter2", 0o600),
        ("readable", "hunter2", 0o644),
        ("empty", "", 0o600),
        ("hook", "#!/bin/sh\nexit 3\n", 0o755),
        ("template", "{{ nothing }}", 0o644),
        ("latin", "caf\xe9", 0o600),
    ):
        (path / name).write_text(content, encoding="latin-1")
        (path / name).chmod(mode)
    (path / "tokens/directory/x").mkdir(parents=True)
    (path / "tokens/symlink").symlink_to(path)
    (path / "home").mkdir()
    (path / "home/x").touch()
    if AS_ROOT:
        os.chown(path / "home", 64321, 64321)
        os.chown(path / "home/x", 64322, 64322)


def config_of(rows: list[Night], path: Path, urls: Mapping[str, str]) -> str:
    """A config with a client for each row."""
    clients: list[str] = []
    for row in rows:
        tokens = TWO_TOKENS.get(row.name, f"{{x: {{{row.token}}}}}")
        more = "" if "timeout" in row.keys else ", timeout: 10m"
        for name in (row.name, f"{row.name}2") if row.name in TWO_CLIENTS else (row.name,):
            given = row.keys if "provider" in row.keys else f"{row.keys}, allow_http: true{more}"
            if "URL/" not in given:
                given = given.replace("URL", f"URL/{row.name}")
            clients.append(f"  {name}: {{{given}, client_id: a, client_secret: {{{row.secret}}}, tokens: {tokens}}}")
    busy = "{token_url: URL/busy, allow_http: true, timeout: 10m, max_concurrency: 1}"
    text = "\n".join(["output: {directory: DIR/tokens}", f"providers: {{busy: {busy}}}", "clients:", *clients, ""])
    for word, value in {**urls, "DIR": str(path)}.items():
        text = re.sub(rf"\b{word}\b", value, text)
    return text


def plain(line: str, path: Path) -> str:
    """A line without what differs from run to run."""
    line = line.replace(str(path), "DIR")
    time = r"([0-9]+ [A-Z][a-z]+ )?[0-9:]+"  # with its day around midnight
    line = re.sub(rf", [0-9]+ attempts since {time}", "", line)
    line = re.sub(rf"\b(for|in) [0-9]+ [a-z]+( [0-9]+ [a-z]+)? \((until|at) {time}\)", r"\1 TIME", line)
    line = re.sub(rf"[0-9]+ [a-z]+ ago \(at {time}\)", "TIME ago", line)
    return re.sub(r"127\.0\.0\.1:[0-9]+", "127.0.0.1:PORT", line).replace("next attempt now", THEN)


class Lines:
    """The lines of a daemon, by client."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._socket = str(path / "tokens/.bearerd/control.sock")

    def now(self) -> dict[str, set[str]]:
        """The line of each token that is not well."""
        document = self._document()
        at = datetime.fromisoformat(document["now"]).timestamp()
        found: dict[str, set[str]] = {}
        for token in document["tokens"]:
            line = (token["trouble"] or {}).get("line", "")
            found.setdefault(token["client"].rstrip("2"), set()).add(plain(spoken(line, at, UTC), self._path))
        return found

    def refresh(self, name: str) -> None:
        """Request a new token, once there is a first one."""
        eventually(lambda: self._state(name) == "valid")
        assert ask(self._socket, f"/refresh/{name}/x", "POST")[0] == 202

    def _state(self, name: str) -> Any:
        (token,) = self._document(f"{name}/x")["tokens"]
        return token["state"]

    def _document(self, only: str | None = None) -> Mapping[str, Any]:
        """The status, as soon as the daemon answers."""
        found: list[Mapping[str, Any]] = []

        def answered() -> bool:
            with suppress(NoAnswer):
                found.append(ask_status(self._socket, only)[0])
            return bool(found)

        eventually(answered)
        return found[0]


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lines]:
    """A daemon for which all of this goes wrong at once."""
    path = tmp_path_factory.mktemp("n")
    surroundings(path)
    ours, other = trustme.CA(), trustme.CA()
    ours.cert_pem.write_to_path(str(path / "ca.pem"))
    rows = [row for row in SHOWN if AS_ROOT or not row.root]
    with ExitStack() as stack:

        def tls(authority: trustme.CA, host: str, **how: Any) -> Server:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            authority.issue_cert(host, **how).configure_cert(context)
            return stack.enter_context(serving(issues(), context))

        def old() -> Server:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.set_ciphers("ALL:@SECLEVEL=0")
            with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
                context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
            ours.issue_cert("127.0.0.1").configure_cert(context)
            return stack.enter_context(serving(issues(), context))

        if AS_ROOT:
            stack.enter_context(mounts(path / "tokens"))
        provider = Provider()
        server = stack.enter_context(serving(provider))
        stack.callback(provider.over.set)
        urls = {
            "URL": server.url.removesuffix("/token"),
            "CLOSED": f"http://127.0.0.1:{stack.enter_context(refusing())}",
            "SILENT": f"http://127.0.0.1:{stack.enter_context(blackhole())}",
            "UNTRUSTED": tls(other, "127.0.0.1").url,
            "OTHER": tls(ours, "other.example.com").url,
            "EXPIRED": tls(ours, "127.0.0.1", not_after=datetime(2020, 1, 1, tzinfo=UTC)).url,
            "OLD": old().url,
            "RESET": stack.enter_context(peer(reset)).url,
        }
        (path / "config.yaml").write_text(config_of(rows, path, urls))
        impatient = patched(
            path,
            {"bearerd.service.engine._STOP_WITHIN": 0.1},
            "from bearerd.hooks.hooks import Hooks",
            "Hooks.__init__.__defaults__ = (*Hooks.__init__.__defaults__[:-1], (0.0, 0.0, 0.0))",
        )
        with running("run", "-c", path / "config.yaml", env=impatient) as daemon:
            lines = Lines(path)
            daemon.wait_for("keeps")
            for row in rows:
                if row.refreshed:
                    if row.name == "readonly":
                        eventually((path / "tokens/readonly/x").exists)
                        subprocess.run(["mount", "-o", "remount,ro", path / "tokens/readonly"], check=True)
                    lines.refresh(row.name)
            yield lines


@pytest.mark.parametrize("row", SHOWN, ids=lambda row: row.situation)
def test_a_token_that_is_not_well_has_a_line(night: Lines, row: Night) -> None:
    if row.root and not AS_ROOT:
        pytest.skip("needs root: mounts a file system")
    found: set[str] = set()

    def shown() -> bool:
        nonlocal found
        found = night.now()[row.name]
        return row.line in found

    try:
        eventually(shown)
    except AssertionError:
        assert found == {row.line}


# -- states that take hours, or a broken machine ----------------------------------------------------

NOW = START.boot
DOWN = Transient("HTTP 503: a temporary error at the provider")
WRONG = Refused("HTTP 401 invalid_client: the client was refused", hint="check client_id, secret and auth")


def held(**changes: Any) -> TargetStatus:
    """At 08:00: a token that is good until 08:11, and its next attempt at 08:04."""
    given: dict[str, Any] = {
        "target": target(),
        "obtained": NOW - 2940,
        "expires": NOW + 660,
        "on_disk": True,
        "next_refresh": NOW + 240,
    }
    return TargetStatus(**given | changes)


def no_reply(number: int, phase: Phase) -> Transient:
    """A request to a provider with TLS that fails with this error of the operating system, or of the name look-up."""
    kind = socket.gaierror if number < 0 else OSError
    words = {socket.EAI_NONAME: "Name or service not known", socket.EAI_AGAIN: "Temporary failure in name resolution"}
    attempt = Attempt(10.0)
    attempt.phase = phase
    url = "https://login.example.com/token"
    error = kind(number, words.get(number) or os.strerror(number))
    explained = explain(error, attempt, Endpoint("login.example.com", token_url=url), url)
    return Transient(explained.reason, phase=explained.phase, hint=explained.hint)


# The situation, the status, and the line.
STATES: list[tuple[str, TargetStatus, str | None]] = [
    ("well", held(), None),
    ("well, and a newer token waits for its publication", held(publish_at=NOW + 30), None),
    ("another daemon of the fleet requests the next token", held(held_by="share", held_until=NOW + 5), None),
    (
        "another daemon of the fleet requests the first token",
        held(held_by="share", held_until=NOW + 5, next_refresh=NOW + 5, obtained=None, expires=None, on_disk=False),
        (
            "held: another daemon of the fleet is requesting this token. There is no valid token. "
            "To do: wait; next attempt in 5 s (at 08:00:05)."
        ),
    ),
    (
        "the share is down, and a new token would end the current one",
        held(held_by="share_unavailable", held_until=inf),
        (
            "held: its share is unavailable, and when_unavailable is wait. "
            "The current token is good for 11 min (until 08:11). "
            "To do: see the line about the share; next attempt in 4 min (at 08:04)."
        ),
    ),
    (
        "the fleet was refused, and another daemon waits with it",
        held(failure=WRONG, held_by="share"),
        (
            "HTTP 401 invalid_client: the client was refused. The current token is good for 11 min (until 08:11). "
            "To do: check client_id, secret and auth; a changed variable needs a restart; "
            "next attempt in 4 min (at 08:04)."
        ),
    ),
    (
        "refused for half an hour",
        held(failure=WRONG, attempts=3, failing_since=NOW - 1800, held_by="refused", held_until=NOW + 240),
        (
            "HTTP 401 invalid_client: the client was refused, 3 attempts since 07:30. "
            "The current token is good for 11 min (until 08:11). "
            "To do: check client_id, secret and auth; a changed variable needs a restart; "
            "next attempt in 4 min (at 08:04)."
        ),
    ),
    (
        "refused, and another secret is tried next",
        held(
            failure=Refused("HTTP 401", another_secret=True, hint="the client has another secret, which is tried next")
        ),
        (
            "HTTP 401. The current token is good for 11 min (until 08:11). "
            "To do: the client has another secret, which is tried next; next attempt in 4 min (at 08:04)."
        ),
    ),
    (
        "refused_limit is used up",
        held(failure=WRONG, held_by="refused_limit", expires=NOW - 60),
        (
            "HTTP 401 invalid_client: the client was refused; held: its client has used up refused_limit, in which "
            "requests without a known outcome count as refused. "
            "There is no valid token: the last one expired 60 s ago (at 07:59:00), and its files still contain it. "
            "To do: check client_id, secret and auth; a changed variable needs a restart; "
            "next attempt in 4 min (at 08:04)."
        ),
    ),
    (
        "refused_limit is used up by other tokens of the client, or by a daemon that was killed",
        held(held_by="refused_limit"),
        (
            "held: its client has used up refused_limit, in which requests without a known outcome count as refused. "
            "The current token is good for 11 min (until 08:11). "
            "To do: wait: more refused attempts could lock the account; next attempt in 4 min (at 08:04)."
        ),
    ),
    (
        "the provider fails for all of its tokens",
        held(failure=DOWN, attempts=9, failing_since=NOW - 90, held_by="retry_budget", next_refresh=NOW),
        (
            "HTTP 503: a temporary error at the provider, 9 attempts since 07:58:30; "
            "held: its provider is failing, and the retry budget is used up. "
            "The current token is good for 11 min (until 08:11). "
            "To do: wait; if it lasts, ask the provider; next attempt now."
        ),
    ),
    (
        "a new config is being applied",
        held(held_by="unknown_client", next_refresh=inf),
        (
            "held: a new config is being applied. The current token is good for 11 min (until 08:11). "
            "To do: wait; next attempt when a request in flight has ended."
        ),
    ),
    (
        "expired a day ago, and the files are removed",
        held(failure=DOWN, expires=NOW - 86400, on_disk=False, target=target(on_expiry="remove")),
        (
            "HTTP 503: a temporary error at the provider. "
            "There is no valid token: the last one expired 1 d ago (at 14 Jan 08:00), and its files are removed. "
            "To do: wait; if it lasts, ask the provider; next attempt in 4 min (at 08:04)."
        ),
    ),
    (
        "expired, and the files cannot be removed",
        held(
            failure=DOWN,
            expires=NOW - 600,
            on_disk=False,
            target=target(on_expiry="remove"),
            faults=("/a: the file system is read-only; mount it for writing",),
        ),
        (
            "HTTP 503: a temporary error at the provider; /a: the file system is read-only. "
            "There is no valid token: the last one expired 10 min ago (at 07:50), and its files still contain it. "
            "To do: refresh: wait; if it lasts, ask the provider; /a: mount it for writing; "
            "next attempt in 4 min (at 08:04)."
        ),
    ),
    (
        "the token of an earlier process had expired at the start",
        held(failure=DOWN, obtained=None, expires=None, ended=NOW - 600, on_disk=False),
        (
            "HTTP 503: a temporary error at the provider. "
            "There is no valid token: the last one expired 10 min ago (at 07:50). "
            "To do: wait; if it lasts, ask the provider; next attempt in 4 min (at 08:04)."
        ),
    ),
    (
        "expired while the machine slept, and asking",
        held(expires=NOW - 7200, on_disk=False, next_refresh=NOW),
        (
            "no new token arrived in time. "
            "There is no valid token: the last one expired 2 h ago (at 06:00), and its files still contain it. "
            "To do: wait; next attempt now."
        ),
    ),
    (
        "the clocks differ",
        held(
            failure=Malformed(
                "3 new tokens in a row had expired when they arrived: this machine's clock says "
                "2027-01-15T08:00:00Z, the provider's 2027-01-15T06:00:00Z",
                hint="compare this machine's clock with the provider's; if they agree, ask the provider",
            ),
            expires=None,
        ),
        (
            "3 new tokens in a row had expired when they arrived: this machine's clock says 2027-01-15T08:00:00Z, the "
            "provider's 2027-01-15T06:00:00Z. There is no valid token. "
            "To do: compare this machine's clock with the provider's; if they agree, ask the provider; "
            "a changed secret or config is tried at once; "
            "next attempt in 4 min (at 08:04)."
        ),
    ),
    *(
        (
            situation,
            held(failure=no_reply(number, "name look-up")),
            (
                f"login.example.com: the name was not found: {why}. "
                "The current token is good for 11 min (until 08:11). "
                "To do: check the host's name and this machine's DNS; next attempt in 4 min (at 08:04)."
            ),
        )
        for situation, number, why in (
            ("the name does not exist", socket.EAI_NONAME, "Name or service not known"),
            ("the name server does not answer", socket.EAI_AGAIN, "Temporary failure in name resolution"),
        )
    ),
    (
        "a new token arrives expired",
        held(failure=Transient("the new token had expired when it arrived")),
        (
            "the new token had expired when it arrived. The current token is good for 11 min (until 08:11). "
            "To do: wait; if it lasts, ask the provider; next attempt in 4 min (at 08:04)."
        ),
    ),
    (
        "the look-up of the name takes too long",
        held(failure=Transient("login.example.com: timed out after 10 s (during name lookup)", phase="name look-up")),
        (
            "login.example.com: timed out after 10 s (during name lookup). "
            "The current token is good for 11 min (until 08:11). "
            "To do: check the host's name and this machine's DNS; next attempt in 4 min (at 08:04)."
        ),
    ),
    (
        "the network is unreachable",
        held(failure=no_reply(errno.ENETUNREACH, "connect")),
        (
            "login.example.com:443: network is unreachable (while connecting). "
            "The current token is good for 11 min (until 08:11). "
            "To do: check the network and the firewalls on the way; next attempt in 4 min (at 08:04)."
        ),
    ),
    (
        "the connection is reset after the handshake",
        held(failure=no_reply(errno.ECONNRESET, "wait")),
        (
            "login.example.com:443: connection reset by peer (while waiting for the reply). "
            "The current token is good for 11 min (until 08:11). "
            "To do: wait; if it lasts, ask the provider; next attempt in 4 min (at 08:04)."
        ),
    ),
    (
        "the descriptors are used up at a request",
        held(failure=no_reply(errno.EMFILE, "connect")),
        (
            "login.example.com:443: too many open files (while connecting). "
            "The current token is good for 11 min (until 08:11). "
            "To do: raise LimitNOFILE; next attempt in 4 min (at 08:04)."
        ),
    ),
    (
        "the provider returns the same token after its end",
        held(failure=Transient("the provider still returns the expired token"), expires=NOW - 12, same_token=True),
        (
            "the provider still returns the expired token. "
            "There is no valid token: the last one expired 12 s ago (at 07:59:48), and its files still contain it. "
            "To do: wait; if it lasts, ask the provider; next attempt in 4 min (at 08:04)."
        ),
    ),
    *(
        (
            f"a file cannot be written: {name}",
            held(on_disk=False, faults=(f"/a: {advice(OSError(number, os.strerror(number)))}",)),
            (
                f"/a: {failed}. The current token is good for 11 min (until 08:11), but not in all of its files. "
                f"To do: {do}."
            ),
        )
        for name, number, failed, do in (
            ("the disk fails", errno.EIO, "input/output error", "check the disk"),
            (
                "its directory is not writable",
                errno.EACCES,
                f"{this_user()} is not allowed to write there",
                "change the owner or mode of the directory, or write to another one",
            ),
            (
                "it is mounted from elsewhere",
                errno.EXDEV,
                "the file is on another file system than its directory",
                "mount its directory instead",
            ),
            (
                "it is immutable",
                errno.EPERM,
                "not permitted (an immutable file, or one of another user in a sticky directory)",
                "see lsattr, ls -l",
            ),
            ("the descriptors are used up", errno.EMFILE, "too many files are open", "raise LimitNOFILE"),
        )
    ),
    (
        "the descriptors are used up",
        held(failure=Unsent("file /etc/bearerd/secret: too many open files", "secret")),
        (
            "file /etc/bearerd/secret: too many open files. The current token is good for 11 min (until 08:11). "
            "To do: raise LimitNOFILE; next attempt in 4 min (at 08:04)."
        ),
    ),
    (
        "the secret is another file",
        held(failure=Unsent("file /etc/bearerd/secret: larger than 64 KiB, so not a secret", "secret")),
        (
            "file /etc/bearerd/secret: larger than 64 KiB, so not a secret. "
            "The current token is good for 11 min (until 08:11). "
            "To do: put the secret into it; a changed secret or config is tried at once; "
            "next attempt in 4 min (at 08:04)."
        ),
    ),
    (
        "the key is in another format",
        held(failure=Unsent("file /k.p12: a PKCS#12 file (.p12, .pfx), not PEM; extract the private key", "secret")),
        (
            "file /k.p12: a PKCS#12 file (.p12, .pfx), not PEM. The current token is good for 11 min (until 08:11). "
            "To do: extract the private key; next attempt in 4 min (at 08:04)."
        ),
    ),
    (
        "the command for the secret takes too long",
        held(failure=Unsent("command /usr/bin/pass: timed out after 10 s", "secret")),
        (
            "command /usr/bin/pass: timed out after 10 s. The current token is good for 11 min (until 08:11). "
            "To do: run it by hand as the daemon's user to see why; next attempt in 4 min (at 08:04)."
        ),
    ),
    (
        "an extra is not installed",
        held(
            failure=Unsent(
                "private_key_jwt needs a part that is not installed: run /b/bin/pip install '.[jwt]' in the checkout",
                "set-up",
            )
        ),
        (
            "private_key_jwt needs a part that is not installed: run /b/bin/pip install '.[jwt]' in the checkout. "
            "The current token is good for 11 min (until 08:11). "
            "To do: install it, and restart bearerd; next attempt in 4 min (at 08:04)."
        ),
    ),
    (
        "two of its files cannot be written, and its refresh fails",
        held(
            failure=DOWN,
            on_disk=False,
            faults=("/a: the quota is used up; free space, or raise the quota",) * 2
            + ("/b: the daemon's user is not allowed to write there; change the owner or mode of the directory",),
            previous_until=NOW + 60,
        ),
        (
            "/a: the quota is used up; /b: the daemon's user is not allowed to write there; "
            "HTTP 503: a temporary error at the provider. "
            "The previous token in the files is good for 60 s (until 08:01:00). "
            "To do: /a: free space, or raise the quota; /b: change the owner or mode of the directory; "
            "refresh: wait; if it lasts, ask the provider; next attempt in 4 min (at 08:04)."
        ),
    ),
    *(
        (
            f"the previous token expired in {name}",
            held(
                target=target(outputs=outputs),
                on_disk=False,
                faults=("/a: no space left; free some",),
                previous_until=NOW - 19,
            ),
            (
                f"/a: no space left. The new token is good for 11 min (until 08:11), but {file} still contains one "
                "that expired 19 s ago (at 07:59:41). To do: free some."
            ),
        )
        for name, file, outputs in (
            ("its only file", "its file", (Output("/a"),)),
            ("one of its files", "a file", (Output("/a"), Output("/b"))),
        )
    ),
    (
        "only its record cannot be written",
        held(faults=("/r.json: no space left; free some",)),
        "/r.json: no space left. The current token is good for 11 min (until 08:11). To do: free some.",
    ),
]


@pytest.mark.parametrize(("status", "line"), [row[1:] for row in STATES], ids=[row[0] for row in STATES])
def test_a_state_has_its_line(status: TargetStatus, line: str | None) -> None:
    trouble = trouble_of(status, None, START)
    assert (trouble and spoken(trouble.line, START.wall, UTC)) == line


@pytest.mark.parametrize("row", test_messages.REPLIES, ids=lambda row: row.situation)
def test_each_message_about_a_reply_becomes_a_line_with_something_to_do(row: test_messages.Says) -> None:
    said, _, hint = row.message.partition("; ")
    status = held(failure=Refused(said, hint=hint) if hint else RateLimited(said))
    trouble = trouble_of(status, None, START)
    assert trouble is not None
    assert trouble.failed == said
    assert trouble.do.startswith(hint or "wait")


# -- the daemon ---------------------------------------------------------------------------------------

ANYWHERE = share(state="down", error="redis.internal:6379: connection refused; check that the server runs")
UNSEALED = "the tokens of client xero cannot be encrypted: file /k: empty"
UNOPENED = (
    "dnb/bci: the stored token cannot be decrypted: it was encrypted with another key or by another version, "
    "or altered; give all daemons of the fleet the same share.key or client secret"
)
POLICIES: dict[str, WhenUnavailable] = {"dnb": "alone", "pay": "alone", "xero": "wait", "zoho": "wait"}


@pytest.mark.parametrize(
    ("view", "clients", "line"),
    [
        pytest.param(share(error="gone", error_at=NOW - 400), ["dnb"], None, id="up again"),
        pytest.param(share("starting"), ["dnb"], None, id="starting"),
        pytest.param(share(error=UNOPENED, error_at=NOW - 601, since=NOW - 900), ["dnb"], None, id="an old error"),
        pytest.param(
            ANYWHERE,
            ["dnb", "pay"],
            "share rediss://redis.internal:6379/0 has been unavailable since 07:55: redis.internal:6379: "
            "connection refused. "
            "Valid tokens stay in use, and this daemon refreshes them by itself. "
            "To do: check that the server runs; bearerd reconnects by itself.",
            id="down, and each daemon goes on alone",
        ),
        pytest.param(
            ANYWHERE,
            ["xero"],
            "share rediss://redis.internal:6379/0 has been unavailable since 07:55: redis.internal:6379: "
            "connection refused. "
            "Valid tokens stay in use, and they are refreshed only shortly before they expire. "
            "To do: check that the server runs; bearerd reconnects by itself.",
            id="down, and valid tokens wait",
        ),
        pytest.param(
            replace(ANYWHERE, error="timed out after 2 s"),
            ["dnb", "pay", "xero", "zoho"],
            "share rediss://redis.internal:6379/0 has been unavailable since 07:55: timed out after 2 s. "
            "Valid tokens stay in use; this daemon refreshes the tokens of dnb, pay by itself, and those of xero, zoho "
            "are refreshed only shortly before they expire. "
            "To do: check the server and the network; bearerd reconnects by itself.",
            id="down, with both policies",
        ),
        pytest.param(
            share(error=UNOPENED, error_at=NOW - 120),
            ["dnb"],
            "share rediss://redis.internal:6379/0: dnb/bci: the stored token cannot be decrypted: it was encrypted "
            "with another key or by another version, or altered, 2 min ago (at 07:58). Valid tokens stay in use, and "
            "this daemon requests by itself what it cannot share. "
            "To do: give all daemons of the fleet the same share.key or client secret.",
            id="up, and an entry cannot be decrypted",
        ),
        pytest.param(
            share(
                error="the tokens of client xero cannot be encrypted: file /k: empty",
                error_at=NOW - 900,
                since=NOW - 999,
                waiting=1,
            ),
            ["xero"],
            "share rediss://redis.internal:6379/0: the tokens of client xero cannot be encrypted: file /k: empty, "
            "15 min ago (at 07:45). Valid tokens stay in use, and they are refreshed only shortly before they expire. "
            "To do: correct it.",
            id="up, and a token waits because there is no key",
        ),
    ],
)
def test_a_share_has_a_line(view: ShareView, clients: list[str], line: str | None) -> None:
    targets = tuple(
        target(client=replace(CLIENT, name=name, share=Share(Redis("redis://r"), POLICIES[name]))) for name in POLICIES
    )
    config = Config("/run/bearerd", "/var/lib/bearerd", targets=targets)
    found = daemon_troubles(prometheus.status(config=config, shares=(replace(view, clients=tuple(clients)),)))
    assert [spoken(trouble.line, START.wall, UTC) for trouble in found] == ([line] if line else [])


def test_a_config_that_was_refused_has_a_line(tmp_path: Path) -> None:
    with serving(issues()) as server:
        site = Site(tmp_path, server.url)
        with running("run", "-c", site.config) as daemon:
            site.wait_for(bci="valid")
            site.write('{bci: {scope: "bci')  # half-written
            daemon.wait_for("not YAML")
            assert troubles_of(site) == [
                (
                    f"the new config was refused: {site.config}:10:27: not YAML. "
                    "The config loaded at TIME stays in use. "
                    f"To do: correct it, and it is loaded at once; bearerd check -c {site.config} shows more."
                )
            ]
            site.write("{bci: {scop: bci}, risk: {scop: risk}}")
            daemon.wait_for("unknown key")
            assert troubles_of(site) == [
                (
                    f"the new config was refused: {site.config}:10:20: unknown key (and 1 more). "
                    "The config loaded at TIME stays in use. "
                    f"To do: correct it, and it is loaded at once; bearerd check -c {site.config} shows more."
                )
            ]
            site.top = "control: {mode: '0600'}"
            site.write("{bci: {scope: bci}}")
            daemon.wait_for("needs a restart")
            assert troubles_of(site) == [
                (
                    "the new config was refused: a changed control needs a restart. "
                    "The config loaded at TIME stays in use. "
                    "To do: restart bearerd, which continues with its valid tokens."
                )
            ]


def test_a_config_that_cannot_be_read_has_a_line(tmp_path: Path) -> None:
    no_thread = (
        "from bearerd.service import run",
        "def start(*_): raise RuntimeError('no thread can be started; raise TasksMax')",
        "run.start = start",
    )
    with serving(issues()) as server:
        site = Site(tmp_path, server.url)
        with running("run", "-c", site.config, env=patched(tmp_path, {}, *no_thread)) as daemon:
            site.wait_for(bci="valid")
            site.write("{bci: {scope: bci}, risk: {scope: risk}}")
            daemon.wait_for("was not read")
            assert troubles_of(site) == [
                (
                    "the new config was refused: the config was not read: no thread can be started. "
                    "The config loaded at TIME stays in use. "
                    "To do: raise TasksMax; retrying every 8 s."
                )
            ]


def test_a_ledger_that_cannot_be_written_has_a_line(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("not a directory")
    with serving(issues()) as server:
        site = Site(tmp_path, server.url, top=f"state_directory: {tmp_path}/state/bearerd")
        with running("run", "-c", site.config):
            site.wait_for(bci="valid")
            ledger, secrets = troubles_of(site)
    assert ledger == (
        f"{tmp_path}/state/bearerd/ledger: not a directory. "
        "Tokens are refreshed as before, but refusals and used rate limits are forgotten at a restart. "
        "To do: correct it; if this line stays, restart bearerd."
    )
    assert secrets == (
        f"{tmp_path}/state: not a directory. "
        "Tokens are refreshed as before, but all secrets of a client are tried again after a restart. "
        "To do: move it away, or use another path; if this line stays, restart bearerd."
    )


def test_a_state_directory_that_another_daemon_uses_has_a_line(tmp_path: Path) -> None:
    state = f"state_directory: {tmp_path}/state"
    with serving(issues()) as server:
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
        one, two = (Site(tmp_path / name, server.url, top=state) for name in ("one", "two"))
        with running("run", "-c", one.config):
            one.wait_for(bci="valid")
            with running("run", "-c", two.config):
                two.wait_for(bci="valid")
                assert troubles_of(one) == []
                (line,) = troubles_of(two)
    assert line == (
        f"{tmp_path}/state/ledger: another bearerd uses it. "
        "Tokens are refreshed as before, but refusals and used rate limits are forgotten at a restart. "
        "To do: set another state_directory; if this line stays, restart bearerd."
    )


def test_a_lock_that_cannot_be_restored_has_a_line() -> None:
    fault = "/run/x/.bearerd/lock: no space left; free some"
    (trouble,) = daemon_troubles(prometheus.status(state_faults=(("lock", fault),)))
    assert trouble.line == (
        "/run/x/.bearerd/lock: no space left. "
        "Tokens are refreshed as before, but a second daemon could start in this directory. To do: free some."
    )


def test_a_schedule_that_has_stopped_has_a_line() -> None:
    (trouble,) = daemon_troubles(prometheus.status(alive=False))
    assert trouble.line == (
        "the scheduler's heartbeat is stale: no token is refreshed. "
        "The files stay as they are, and their tokens will expire. "
        "To do: restart bearerd, which continues with its valid tokens; and report this bug."
    )


def troubles_of(site: Site) -> list[str]:
    """The lines about the daemon."""
    lines = [trouble["line"] for trouble in site.status()["troubles"]]
    return [re.sub(r"[0-9-]{10}T[0-9:]{8}Z", "TIME", line) for line in lines]
