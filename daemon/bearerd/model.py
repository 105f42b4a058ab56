"""The nouns: frozen, without I/O. Times are seconds; which clock is said at each field."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any, Final, Literal

OWN_DIRECTORY: Final = ".bearerd"
"""Below the output directory: bearerd's own copies and its lock."""

Auth = Literal["client_secret_basic", "client_secret_post"]
BasicEncoding = Literal["compatible", "rfc6749", "raw"]
Format = Literal["raw", "json", "header", "env"]
OnExpiry = Literal["keep", "remove"]


@dataclass(frozen=True, slots=True)
class Instant:
    """One moment on both clocks: `wall` (Unix time) and `boot` (CLOCK_BOOTTIME)."""

    wall: float
    boot: float


@dataclass(frozen=True, slots=True)
class Reference:
    """Where a secret (or a client id) is to be read: never the text itself."""

    kind: Literal["file", "env", "credential", "command"]
    at: str
    """A path, a variable's name or a credential's name; for a command its first word."""
    argv: tuple[str, ...] = ()
    permissions: Literal["owner", "group", "any"] = "owner"
    """Who may be able to read the file, at most."""

    def __str__(self) -> str:
        """How messages name it: `file /etc/bearerd/dnb.secret`."""
        return f"{self.kind} {self.at}"


@dataclass(frozen=True, slots=True)
class RateLimit:
    """At most `count` grants in any `window` seconds."""

    count: int
    window: float


@dataclass(frozen=True, slots=True)
class RefreshBefore:
    """How long before expiry a refresh is due: a share of the lifetime, or exactly some seconds."""

    share: float | None = None
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Provider:
    """An authorization server's token endpoint and how to reach it."""

    name: str
    token_url: str
    ca_file: str | None = None
    proxy: str | None = None
    timeout: float = 10.0
    """Seconds for one whole request, name look-up to last byte."""
    max_concurrency: int = 8


@dataclass(frozen=True, slots=True)
class Client:
    """A client id with its credentials at one provider."""

    name: str
    provider: Provider
    client_id: str | Reference
    client_secret: Reference
    auth: Auth = "client_secret_basic"
    basic_encoding: BasicEncoding = "compatible"
    budgets: tuple[tuple[str, RateLimit], ...] = ()
    """Each `rate_limit` that its grants count against, by the name under which it is counted."""


@dataclass(frozen=True, slots=True)
class Output:
    """One file of a token."""

    path: str
    format: Format = "raw"
    mode: int = 0o640
    owner: str | None = None
    group: str | None = None
    newline: bool = False
    variable: str = ""
    """The variable's name, for `env`."""
    max_staleness: float = 0.0
    """How many seconds its readers may go on using an old copy."""


@dataclass(frozen=True, slots=True)
class Target:
    """One (client, scope) pair that is kept fresh: what the config calls a token."""

    client: Client
    name: str
    scope: str
    parameters: tuple[tuple[str, str], ...] = ()
    strict_scope: bool = False
    refresh_before: RefreshBefore = RefreshBefore(share=0.2)
    default_lifetime: float = 3600.0
    on_expiry: OnExpiry = "keep"
    outputs: tuple[Output, ...] = ()

    @property
    def full_name(self) -> str:
        """`client/token`, as logs, paths and the command line have it."""
        return f"{self.client.name}/{self.name}"

    @property
    def max_staleness(self) -> float:
        """The longest of its readers' caches, in seconds."""
        return max((output.max_staleness for output in self.outputs), default=0.0)

    def identity(self) -> str:
        """What a token is asked for, but for the client id; a record of another identity is not this target's.

        A hash, since parameters may hold what is nobody's business.
        """
        named = [
            self.client.provider.token_url,
            self.client.auth,
            self.scope,
            sorted(self.parameters),
        ]
        return hashlib.sha256(json.dumps(named).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Token:
    """What a provider issued for a target.

    It counts from `obtained`, the moment just before its request was sent, and lives `lifetime`
    seconds. `extra` is a JSON object of the provider's other fields, as text: ten thousand small
    dicts cost five times as much memory.
    """

    access_token: str = field(repr=False)
    obtained: Instant
    lifetime: float
    token_type: str = field(default="Bearer", repr=False)
    scope: str | None = field(default=None, repr=False)
    extra: str = field(default="{}", repr=False)

    @property
    def expires(self) -> Instant:
        """When it expires, on both clocks."""
        return Instant(self.obtained.wall + self.lifetime, self.obtained.boot + self.lifetime)

    def extra_fields(self) -> dict[str, Any]:
        """The provider's other fields, such as Salesforce's `instance_url`."""
        fields: dict[str, Any] = json.loads(self.extra)
        return fields


@dataclass(frozen=True, slots=True)
class Logging:
    """How the log is written."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["text", "json"] = "text"


@dataclass(frozen=True, slots=True)
class Config:
    """All that a valid config says, resolved: nothing is inherited or defaulted any more."""

    directory: str
    directory_mode: int = 0o750
    group: str | None = None
    """The group of the directories that bearerd makes: readers must get through them."""
    targets: tuple[Target, ...] = ()
    log: Logging = Logging()
    sources: tuple[str, ...] = ()
    """The files it was read from."""
