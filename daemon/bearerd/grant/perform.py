"""One grant for a target: endpoint found, credentials read, request composed and sent, reply understood."""

from __future__ import annotations

import hmac
import json
import logging
import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final, Protocol

from bearerd.clock import Clock
from bearerd.errors import ExtraMissing, SecretUnavailable, Stopping, unexpected
from bearerd.grant import rotation as rotations
from bearerd.grant.certificate import expired
from bearerd.grant.credentials import read_access, read_credentials, read_parameters
from bearerd.grant.discovery import Discovery
from bearerd.grant.endpoint import Endpoint
from bearerd.grant.hints import Circumstances, hinted, not_used
from bearerd.grant.metadata import Metadata
from bearerd.grant.outcome import (
    Issued,
    Malformed,
    NoReply,
    Outcome,
    Performed,
    Phase,
    RateLimited,
    Refused,
    Transient,
    Unsent,
)
from bearerd.grant.reply import Reply, understand
from bearerd.grant.request import Access, Call, Credentials, Request, compose, get
from bearerd.grant.rotation import Rotation
from bearerd.grant.times import FOLLOWED, SKEWED, clock_skew, followed
from bearerd.handoff import holding
from bearerd.log import say
from bearerd.model import Client, Provider, Target
from bearerd.timeformat import duration

# Bytes of a fingerprint: two secrets never share one.
_FINGERPRINT: Final = 16


class Memory(Protocol):
    """State that survives a restart."""

    def load(self, kind: str, name: str) -> Mapping[str, Any] | None:
        """The fields that were saved under a name."""
        ...

    def save(self, kind: str, name: str, fields: Mapping[str, Any]) -> None:
        """Save fields under a name; without fields, remove the saved ones."""
        ...

    def key(self) -> bytes:
        """The key of fingerprints."""
        ...


class Grants:
    """Performs grants, from any thread, and keeps what it learns about each provider and client.

    `observe` is called with each token request and its reply, which hold secrets.
    """

    def __init__(
        self,
        clock: Clock,
        environ: Mapping[str, str],
        memory: Memory | None = None,
        observe: Callable[[Request, Reply | NoReply], None] | None = None,
    ) -> None:
        self._clock = clock
        self._observe = observe
        self._environ = environ
        self._memory = memory
        self._key = memory.key() if memory else secrets.token_bytes(32)
        self._lock = threading.Lock()
        self._endpoints: dict[tuple[Provider, str | None], Endpoint] = {}
        self._discoveries: dict[Provider, Discovery] = {}
        self._rotating = threading.Lock()
        self._rotations: dict[str, Rotation] = {}
        self._skews: dict[Provider, float] = {}
        self._doubted: dict[str, str] = {}
        self._unread: dict[str, tuple[str, ...]] = {}
        # Made for each grant it would be a twelfth of its CPU time.
        self._judged: dict[str, tuple[Client, str]] = {}

    def perform(self, target: Target) -> Performed:
        """Request a token. Every failure is an outcome, not an exception. Raises Stopping, before anything is sent."""
        client = target.client
        try:
            several = self._read(client)
            parameters = read_parameters(target, self._environ)
        except Stopping:
            raise
        except SecretUnavailable as error:
            return Performed(Unsent(str(error), phase="secret"))
        known = [self._fingerprint(client, credentials) for credentials in several]
        chosen = self._rotation(client).choice(known)
        credentials = several[chosen]
        metadata: Metadata | None = None
        if client.provider.token_url is None:
            found = self._discovery(client).metadata(self._clock.now().boot)
            if not isinstance(found, Metadata):
                return Performed(found, credentials.client_id)
            metadata = found
            self._say_doubts(client, metadata)
        token_url = metadata.endpoint(client) if metadata else client.provider.token_url or ""
        # The lifetime counts from just before the request, so the time on the network is not added to it.
        sent = self._clock.now()
        skew = followed(self._skews.get(client.provider))
        audience = client.jwt.audience or client.provider.issuer or token_url
        call = Call(token_url, audience, sent.wall + skew, secrets.token_urlsafe(16))
        try:
            request = compose(target, credentials, parameters, call)
        except SecretUnavailable as error:
            return Performed(Unsent(str(error), phase="secret"), credentials.client_id)
        except ExtraMissing as error:
            return Performed(Unsent(str(error), phase="set-up"), credentials.client_id)
        of_certificate = partial(_of_certificate, access=request.access, now=sent.wall)
        reply = self._endpoint(client).send(request)
        took = self._clock.now().boot - sent.boot
        if self._observe:
            self._observe(request, reply)
        if isinstance(reply, NoReply):
            if metadata is not None and reply.phase in {"name look-up", "connect"}:
                self._discovery(client).doubt()  # the endpoint may have moved
            kinds: dict[Phase, type[Unsent | Malformed]] = {
                "set-up": Unsent,
                "proxy login": Malformed,
                "reply": Malformed,
            }
            kind = kinds.get(reply.phase, Transient)
            outcome: Outcome = kind(reply.reason, phase=reply.phase, hint=reply.hint)
            outcome = _with_hints(outcome, client, of_certificate)
            return Performed(outcome, credentials.client_id, token_url, took=took)
        # By the middle of the request: the longer it took, the less exact this is.
        seen = clock_skew(reply.headers, sent.wall + took / 2)
        self._note_skew(client.provider, seen)
        outcome = understand(reply, target, sent, request.secrets)
        worked = self._rotation(client).worked == known[chosen]
        circumstances = Circumstances(target, credentials, call, metadata, seen, worked)
        of_reply = partial(hinted, reply=reply, known=circumstances)
        outcome = _with_hints(outcome, client, of_reply, of_certificate)
        if isinstance(outcome, Malformed) and metadata is not None and reply.status != 200:  # noqa: PLR2004
            self._discovery(client).doubt()
        outcome = self._rotate(client, known, known[chosen], outcome)
        return Performed(outcome, credentials.client_id, token_url, reply.status, seen, took)

    def untried(self, client: Client) -> bool:
        """Whether the client has a secret now that the provider has not refused."""
        try:
            several = read_credentials(client, self._environ)
        except SecretUnavailable:
            return False  # no secret can be read
        return not self._rotation(client).exhausted([self._fingerprint(client, one) for one in several])

    def was_refused(self, client: Client) -> bool:
        """Whether the provider refused a request of this daemon since one worked."""
        return bool(self._rotation(client).refused)

    def close_idle(self) -> None:
        """Close connections that a burst left open."""
        for endpoint in list(self._endpoints.values()):
            endpoint.close_idle()

    # -- providers -----------------------------------------------------------------------------

    def _endpoint(self, client: Client) -> Endpoint:
        # Connections that present a client's own certificate are not shared.
        own = client.tls_certificate, client.tls_private_key
        shared = client.provider.tls_certificate, client.provider.tls_private_key
        key = (client.provider, client.name if own != shared else None)
        with self._lock:
            endpoint = self._endpoints.get(key)
            if endpoint is None:
                endpoint = self._endpoints[key] = Endpoint(client.provider)
            return endpoint

    def _discovery(self, client: Client) -> Discovery:
        provider = client.provider
        with self._lock:
            discovery = self._discoveries.get(provider)
            if discovery is None:
                endpoint = self._endpoints.setdefault((provider, None), Endpoint(provider))
                discovery = Discovery(
                    provider, lambda url: self._fetch(provider, endpoint, url), lambda: self._clock.now().wall
                )
                self._discoveries[provider] = discovery
            return discovery

    def _fetch(self, provider: Provider, endpoint: Endpoint, url: str) -> Reply | NoReply:
        try:
            access = read_access(provider, self._environ)
        except Stopping:
            raise
        except SecretUnavailable as error:
            return NoReply("secret", str(error))
        sent = self._clock.now()
        reply = endpoint.send(get(url, access))
        if isinstance(reply, Reply):
            self._note_skew(provider, clock_skew(reply.headers, (sent.wall + self._clock.now().wall) / 2))
        return reply

    def _say_doubts(self, client: Client, metadata: Metadata) -> None:
        """Log what the metadata says against the client's config, once for each text."""
        doubts = metadata.doubts(client) or ""
        if doubts and self._doubted.get(client.name) != doubts:
            say(logging.WARNING, f"client {client.name}: {doubts}")
        self._doubted[client.name] = doubts

    def _note_skew(self, provider: Provider, skew: float | None) -> None:
        """Record the skew of the provider's clock; log when it is off, and when it is right again."""
        if skew is None:
            return
        with self._lock:
            before = self._skews.get(provider, 0.0)
            self._skews[provider] = skew
        if (abs(skew) > SKEWED) == (abs(before) > SKEWED):
            return
        if abs(skew) > SKEWED:
            way = "ahead of" if skew > 0 else "behind"
            message = f"its clock is {duration(abs(skew))} {way} this machine's"
            if abs(skew) > FOLLOWED:
                message += f"; at most {duration(FOLLOWED)} of that is taken into account"
            say(logging.WARNING, f"provider {provider.name}: {message}")
        else:
            say(logging.INFO, f"provider {provider.name}: its clock and this machine's agree again")

    # -- secrets -------------------------------------------------------------------------------

    def _read(self, client: Client) -> tuple[Credentials, ...]:
        """The client's credentials. Logs which secrets of a list are not used, and why, once for each change."""
        several = read_credentials(client, self._environ)
        unread = several[0].unread
        with self._lock:
            before = self._unread.get(client.name, ())
            self._unread[client.name] = unread
        if unread and unread != before:
            say(logging.WARNING, f"client {client.name}: {not_used(unread)}; another one is used")
        return several

    def _fingerprint(self, client: Client, credentials: Credentials) -> str:
        """A fingerprint of all that the provider judges: a changed config of the client counts as another secret."""
        kept = self._judged.get(client.name)
        if kept is None or kept[0] is not client:
            kept = self._judged[client.name] = (client, client.judged())
        access = credentials.access
        used = [credentials.client_id, credentials.secret, credentials.private_key, credentials.certificate]
        used += [access.certificate, access.private_key, *(value for _, value in access.headers)]
        judged = f"{kept[1]}{json.dumps(used)}".encode()
        return hmac.digest(self._key, judged, "sha256")[:_FINGERPRINT].hex()

    def _rotation(self, client: Client) -> Rotation:
        with self._lock:
            rotation = self._rotations.get(client.name)
            if rotation is None:
                kept = self._memory.load("secrets", client.name) if self._memory else None
                rotation = self._rotations[client.name] = rotations.load(kept) if kept else Rotation()
            return rotation

    def _rotate(self, client: Client, known: Sequence[str], tried: str, outcome: Outcome) -> Outcome:
        """Record whether a secret works or was refused; the returned refusal says whether there is another secret."""
        with holding(self._rotating):  # two replies at once must not overwrite each other
            before = self._rotation(client)
            if isinstance(outcome, Issued) or (isinstance(outcome, Refused) and not outcome.whole_client):
                after = before.after_success(tried, known)
            elif isinstance(outcome, Refused):
                after = before.after_refusal(tried, known)
                if not after.exhausted(known):
                    outcome = replace(
                        outcome, another_secret=True, hint="the client has another secret, which is tried next"
                    )
            else:
                return outcome
            self._rotations[client.name] = after
            # That the only secret works need not be saved.
            worth_keeping = len(known) > 1 or after.refused or before.refused
            if self._memory and after != before and worth_keeping:
                self._memory.save("secrets", client.name, rotations.dump(after))
        return outcome


def _with_hints(outcome: Outcome, client: Client, *hints: Callable[[Outcome], Outcome]) -> Outcome:
    """The outcome with its likeliest cause. A fault here must not replace it: the request was sent, and counts."""
    for hint in hints:
        try:
            outcome = hint(outcome)
        except Exception as error:  # noqa: BLE001 - a bug, or no memory
            say(
                logging.ERROR, f"client {client.name}: the likely cause of a failure was not found: {unexpected(error)}"
            )
    return outcome


def _of_certificate(outcome: Outcome, access: Access, now: float) -> Outcome:
    """A failure says if the client certificate has expired. Servers report that in many ways, nginx as HTTP 400."""
    if isinstance(outcome, Issued | RateLimited | Unsent) or outcome.phase in {
        "name look-up",
        "connect",
        "proxy login",
    }:
        return outcome
    hint = expired(access.certificate, access.named[0], now)
    return replace(outcome, hint=f"{hint}: renew it") if hint else outcome
