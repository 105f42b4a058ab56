"""Checks the server of each share: its secrets and files on this machine, and with `--online` the server itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Final

from bearerd.clock import Clock, SystemClock
from bearerd.errors import ExtraMissing
from bearerd.grant.tls import SetUpError, shared_context, signature
from bearerd.lifecycle.policy import CLOCKS_DISAGREE
from bearerd.model import Client, Config
from bearerd.redis_address import Address, BadAddressError, parse
from bearerd.service.finding import Finding
from bearerd.service.texts import Known, Texts, rotation
from bearerd.share.keys import key_fault
from bearerd.share.types import ShareUnavailable
from bearerd.terms import Redis, Reference
from bearerd.timeformat import duration

# Clients. A line of a terminal has room for about ten names.
_MOST_NAMED: Final = 10
# What the extra `redis` installs, of both libraries a part that imports the rest.
_EXTRA: Final = ("redis", "cryptography.hazmat.primitives.ciphers.aead")


@dataclass(frozen=True, slots=True)
class _Server:
    """A server with the clients that share through it, and how far it can be used on this machine."""

    redis: Redis
    clients: Sequence[Client]
    texts: Texts
    address: Address | None
    """None if its URL cannot be read."""
    password: bool
    """Whether connections send a password."""

    @property
    def subject(self) -> str:
        """As findings name it: by its address without a login, or by where its URL is read."""
        return f"share {self.redis.url if isinstance(self.redis.url, Reference) else parse(self.redis.url).name}"

    @property
    def named(self) -> tuple[str, str]:
        """Its clients, as a detail of a finding."""
        names = [client.name for client in self.clients]
        more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
        return ("clients", ", ".join(names[:_MOST_NAMED]) + more)


def examine_shares(config: Config, environ: Mapping[str, str], known: Known, *, online: bool) -> Iterator[Finding]:
    """Check each server, and the keys of the clients that share through it."""
    clients: dict[Redis, dict[str, Client]] = {}
    for target in config.targets:
        if target.client.share is not None:
            clients.setdefault(target.client.share.redis, {})[target.client.name] = target.client
    missing = _missing_extra() if clients else None
    if missing:
        yield Finding("share", missing, "failed")
    for redis, sharing in clients.items():
        server = _examined(redis, list(sharing.values()), environ, known)
        yield from _findings(server, environ)
        if online and not (missing or server.texts.faults or server.texts.hidden):
            yield from _tried(server, environ, SystemClock())


def _missing_extra() -> str | None:
    try:
        for name in _EXTRA:
            import_module(name)
    except ImportError:
        return str(ExtraMissing("share", "redis"))
    return None


def _examined(redis: Redis, clients: Sequence[Client], environ: Mapping[str, str], known: Known) -> _Server:
    """Read the secrets of a server, and its `ca_file`."""
    texts = Texts(environ, known)
    url = texts.verbatim(redis.url) if isinstance(redis.url, Reference) else redis.url
    address = None
    if url:
        try:
            address = parse(url)
        except BadAddressError as error:
            # Of a reference: the config has no URL that cannot be parsed.
            texts.faults.append(f"{redis.url}: expected {error}")
    password = texts.verbatim(redis.password)
    sends = bool(password or (address and address.password))
    if redis.username and address is not None and not (sends or texts.faults or texts.hidden):
        texts.faults.append(f"username is set, but there is no password in {redis.url}; set password too")
    if address is not None and redis.ca_file is not None and not address.tls:
        texts.faults.append(f"ca_file only applies to TLS, and the URL in {redis.url} begins with {address.scheme}://")
    elif redis.ca_file is not None:
        try:
            shared_context(redis.ca_file, signature(redis.ca_file))
        except SetUpError as error:
            texts.faults.append(str(error))
    for reference in dict.fromkeys(client.share.key for client in clients if client.share and client.share.key):
        if (key := texts.verbatim(reference)) and (fault := key_fault(reference, key, of_client=False)):
            texts.faults.append(fault)
    return _Server(redis, clients, texts, address, sends)


def _findings(server: _Server, environ: Mapping[str, str]) -> Iterator[Finding]:
    subject, texts, address = server.subject, server.texts, server.address
    references = _references(server)
    details = (server.named, *rotation(references, environ))
    if texts.hidden and not texts.faults:
        yield Finding(subject, texts.not_seen(), "warning", details)
    elif texts.faults:
        yield Finding(subject, "; ".join(texts.faults), "failed", (server.named,))
    else:
        named = ", ".join(map(str, references))
        yield Finding(subject, f"{named} can be used" if named else "no login is configured", details=details)
    if address is not None and server.password and not address.tls and not address.local:
        verdict = (
            f"the password is sent unencrypted over the network: use {address.scheme.replace('redis', 'rediss')}://"
        )
        yield Finding(subject, verdict, "warning")


def _tried(server: _Server, environ: Mapping[str, str], clock: Clock) -> Iterator[Finding]:
    """Do at the server what a daemon does."""
    from bearerd.share.redis_store import RedisStore  # noqa: PLC0415 - a config without a share does not need it

    subject = server.subject.replace("share", "server", 1)
    try:
        theirs = RedisStore(server.redis, environ).prove()
    except ShareUnavailable as error:
        yield Finding(subject, str(error), "failed", (server.named,))
        return
    yield Finding(
        subject, f"stores and announces tokens with the prefix {server.redis.prefix}", details=(server.named,)
    )
    ahead = theirs - clock.now().wall
    if abs(ahead) > CLOCKS_DISAGREE:
        way = "ahead of" if ahead > 0 else "behind"
        verdict = f"its clock is {duration(abs(ahead))} {way} this machine's; correct the one that is wrong"
        yield Finding(subject, verdict, "warning")


def _references(server: _Server) -> list[Reference]:
    """What is read for a server, and for the keys of its clients."""
    redis = server.redis
    keys = [client.share.key if client.share else None for client in server.clients]
    values = (redis.url, redis.password, *keys)
    return list(dict.fromkeys(value for value in values if isinstance(value, Reference)))
