"""The terms of the protocol and the config, and the small values that the model is made of. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Final, Literal

OWN_DIRECTORY: Final = ".bearerd"
"""Below the output directory: the records, the lock and the control socket."""
JWT_BEARER: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
"""RFC 7523 section 2.1."""
SHORT_GRANTS: Final = {
    name: f"urn:ietf:params:oauth:grant-type:{name}" for name in ("jwt-bearer", "saml2-bearer", "token-exchange")
}
"""The full names of grants that people write short (RFC 7522, 7523, 8693)."""
CLIENT_ASSERTION: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
"""RFC 7523 section 2.2."""
HEADER_VALUE: Final = r"[\x21-\x7e]([\x20-\x7e\t]*[\x21-\x7e])?"
"""The pattern of a header's value: visible ASCII, with spaces and tabs inside (RFC 9110 section 5.5)."""
Auth = Literal[
    "client_secret_basic",
    "client_secret_post",
    "client_secret_jwt",
    "private_key_jwt",
    "tls_client_auth",
    "self_signed_tls_client_auth",
    "assertion",
    "none",
]
TLS_AUTHS: Final = frozenset({"tls_client_auth", "self_signed_tls_client_auth"})
"""Methods that authenticate a client by its certificate (RFC 8705)."""
Body = Literal["form", "json"]
BasicEncoding = Literal["compatible", "rfc6749", "raw"]
ScopeIn = Literal["assertion", "form"]
LifetimeUnit = Literal["auto", "seconds", "milliseconds"]
Format = Literal["raw", "json", "header", "env", "template"]
TEMPLATES: Final = (
    "curlrc",
    "envoy-sds",
    "gcp-external-account",
    "gitconfig",
    "haproxy-map",
    "kubeconfig",
    "nginx",
    "wgetrc",
)
"""The built-in templates, one file each in publish/templates."""
OnExpiry = Literal["keep", "remove"]
Unsure = Literal["", "zero", "renewed"]
"""Why the lifetime of a token still has to be confirmed by another reply; empty if it does not.

zero     the token arrived with a lifetime of 0
renewed  the provider returned the same token at its known expiry with a new lifetime, perhaps from a cache
"""
Reload = Literal["watch", "signal"]
WhenUnavailable = Literal["alone", "wait"]
"""What a daemon does while its fleet's Redis cannot be used.

alone  it refreshes its tokens by itself
wait   it keeps a valid token until shortly before its expiry, because a new one would end those of the others
"""
SignalName = Literal["HUP", "INT", "QUIT", "TERM", "USR1", "USR2", "WINCH"]


@dataclass(frozen=True, slots=True)
class Instant:
    """One moment on both clocks: `wall` (Unix time) and `boot` (CLOCK_BOOTTIME)."""

    wall: float
    boot: float


@dataclass(frozen=True, slots=True)
class Reference:
    """Where a secret or a client id is read."""

    kind: Literal["file", "env", "credential", "command"]
    at: str
    """The path of a file, the name of a variable or credential, or the program of a command."""
    argv: tuple[str, ...] = ()
    permissions: Literal["owner", "group", "any"] = "owner"
    """Who may be able to read the file."""

    def __str__(self) -> str:
        """As messages name it: `file /etc/bearerd/dnb.secret`."""
        return f"{self.kind} {self.at}"


@dataclass(frozen=True, slots=True)
class Redis:
    """A Redis or Valkey server, and how to reach it. Clients with equal ones share a connection."""

    url: str | Reference
    """redis, rediss, unix, or with `+sentinel` the sentinels that know the server."""
    ca_file: str | None = None
    username: str | None = None
    password: Reference | None = None
    prefix: str = "bearerd"
    """Of its keys and its channel."""
    timeout: float = 2.0
    """Seconds for a connection, and for each command."""


@dataclass(frozen=True, slots=True)
class Share:
    """How the daemons of a fleet share the tokens of a client."""

    redis: Redis
    when_unavailable: WhenUnavailable = "alone"
    key: Reference | None = None
    """Seals what is stored. None: the client's secret does."""


@dataclass(frozen=True, slots=True)
class RateLimit:
    """At most `count` grants in any `window` seconds."""

    count: int
    window: float


MOST_REFUSED: Final = RateLimit(count=100, window=86400.0)
"""The largest `refused_limit`: admission remembers that many refused attempts of a client, and each for that long.

No provider is known that locks accounts only after more.
"""
REFUSED_LIMIT: Final = RateLimit(count=4, window=120.0)
"""One less than Creditsafe allows: it locks an account for 5 minutes after five bad requests in 2 minutes."""
LATELY: Final = 60.0
"""Seconds for which a token proves that the credentials of its client work: a secret may be revoked at any time."""


@dataclass(frozen=True, slots=True)
class Hook:
    """A command or a signal, for when a token's files changed or when it stops being renewable."""

    argv: tuple[str, ...] = ()
    signal: SignalName | None = None
    """Instead of a command: the signal for the process in `pid_file` or with the name `process`."""
    pid_file: str | None = None
    process: str | None = None
    timeout: float = 30.0
    """Seconds for a command to end."""
    skip_first: bool = False
    """Do not run for the first token: its readers are not running yet."""

    def __str__(self) -> str:
        """As messages name it."""
        if self.signal is None:
            return f"run {self.argv[0]}"
        return f"signal {self.signal} to " + (f"the pid in {self.pid_file}" if self.pid_file else f"{self.process}")


@dataclass(frozen=True, slots=True)
class Token:
    """A token that a provider issued for a target.

    Its lifetime, in seconds, counts from `obtained`, just before the request was sent. `extra` is a JSON object with
    the provider's other fields, as text: ten thousand small dicts would take five times as much memory.
    """

    access_token: str = field(repr=False)
    obtained: Instant
    lifetime: float
    token_type: str = field(default="Bearer", repr=False)
    scope: str | None = field(default=None, repr=False)
    extra: str = field(default="{}", repr=False)

    @property
    def expires(self) -> Instant:
        """Its expiry on both clocks."""
        return Instant(self.obtained.wall + self.lifetime, self.obtained.boot + self.lifetime)

    def extra_fields(self) -> dict[str, Any]:
        """The provider's other fields, such as Salesforce's `instance_url`."""
        fields: dict[str, Any] = json.loads(self.extra)
        return fields
