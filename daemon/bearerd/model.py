"""The nouns: frozen, without I/O. Times are seconds; which clock is said at each field."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal

OWN_DIRECTORY: Final = ".bearerd"
"""Below the output directory: bearerd's own copies and its lock."""

JWT_BEARER: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
"""RFC 7523 section 2.1."""
CLIENT_ASSERTION: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
"""RFC 7523 section 2.2."""

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
"""The client is authenticated by its certificate (RFC 8705)."""
BasicEncoding = Literal["compatible", "rfc6749", "raw"]
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
"""Those that are built in: one file each in publish/templates."""
OnExpiry = Literal["keep", "remove"]
Reload = Literal["watch", "signal"]
SignalName = Literal["HUP", "INT", "QUIT", "TERM", "USR1", "USR2", "WINCH"]


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
    """An authorization server's token endpoint, or its issuer, and how to reach it."""

    name: str
    token_url: str | None = None
    issuer: str | None = None
    """In place of the token URL, which is then asked for (RFC 8414)."""
    allow_http: bool = False
    """Plain http to this machine is no mistake."""
    ca_file: str | None = None
    proxy: str | None = None
    timeout: float = 10.0
    """Seconds for one whole request, name look-up to last byte."""
    max_concurrency: int = 8

    @property
    def url(self) -> str:
        """The one URL that the config names for it."""
        return self.token_url or self.issuer or ""


@dataclass(frozen=True, slots=True)
class Jwt:
    """How the assertions of a client are signed (RFC 7523 section 3)."""

    key_id: str | None = None
    algorithm: str | None = None
    """None: by the kind of key."""
    audience: str | None = None
    """None: the issuer where it is configured, else the token URL."""


@dataclass(frozen=True, slots=True)
class JwtBearer:
    """What the assertion of the jwt-bearer grant says, where bearerd signs it (RFC 7523 section 2.1)."""

    issuer: str | None = None
    """None: the client id."""
    subject: str | None = None
    claims: str = "{}"
    """More of them: a JSON object, as text."""
    scope_in_form: bool = False
    """Else the scope is a claim of the assertion, as Google and Maskinporten have it."""


@dataclass(frozen=True, slots=True)
class Client:
    """A client id with its credentials at one provider."""

    name: str
    provider: Provider
    client_id: str | Reference = ""
    """Empty where the provider wants none (token exchange at some)."""
    client_secret: tuple[Reference, ...] = ()
    """Newest first: the next is tried when one was refused."""
    auth: Auth = "client_secret_basic"
    basic_encoding: BasicEncoding = "compatible"
    private_key: Reference | None = None
    certificate: Reference | None = None
    assertion: Reference | None = None
    """A ready JWT that somebody else keeps fresh, for auth `assertion`."""
    assertion_type: str = CLIENT_ASSERTION
    jwt: Jwt = Jwt()
    grant_type: str = "client_credentials"
    jwt_bearer: JwtBearer | None = None
    scope_separator: str = " "
    budgets: tuple[tuple[str, RateLimit], ...] = ()
    """Each `rate_limit` that its grants count against, by the name under which it is counted."""

    @property
    def references(self) -> tuple[Reference, ...]:
        """Every reference that it authenticates with, in the order of the fields."""
        values = (self.client_id, *self.client_secret, self.private_key, self.certificate, self.assertion)
        return tuple(value for value in values if isinstance(value, Reference))

    def judged(self) -> str:
        """A JSON text of everything but credentials that can change how its provider answers.

        New fields are part of it unless they are excluded here.
        """
        fields = asdict(self)
        for name in ("name", "client_id", "client_secret", "private_key", "certificate", "assertion", "budgets"):
            del fields[name]
        for name in ("name", "allow_http", "timeout", "max_concurrency"):
            del fields["provider"][name]
        return json.dumps(fields)


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
    """A name for the token, in `env` and for templates."""
    template: str = ""
    """A path, or the name of one that is built in."""
    vars: tuple[tuple[str, str], ...] = ()
    """What its template is told besides the token."""
    max_staleness: float = 0.0
    """How many seconds its readers may go on using an old copy."""

    @property
    def holds_times(self) -> bool:
        """Whether it is another after the clock was set."""
        return self.format in {"json", "template"}


@dataclass(frozen=True, slots=True)
class Hook:
    """What is done when a token's files changed, or when it stops being renewable: a command or a signal."""

    argv: tuple[str, ...] = ()
    signal: SignalName | None = None
    """In place of a command: the signal, for the process in `pid_file` or the one that has the name `process`."""
    pid_file: str | None = None
    process: str | None = None
    timeout: float = 30.0
    """Seconds that a command may take."""
    skip_first: bool = False
    """Not for the first token: whoever reads it is not running yet."""

    def __str__(self) -> str:
        """How messages name it."""
        if self.signal is None:
            return f"run {self.argv[0]}"
        return f"signal {self.signal} to " + (f"the pid in {self.pid_file}" if self.pid_file else f"{self.process}")


@dataclass(frozen=True, slots=True)
class Target:
    """One (client, scope) pair that is kept fresh: what the config calls a token."""

    client: Client
    name: str
    scope: str
    """Separated by spaces, whatever the provider wants between them."""
    parameters: tuple[tuple[str, str | Reference], ...] = ()
    strict_scope: bool = False
    refresh_before: RefreshBefore = RefreshBefore(share=0.2)
    default_lifetime: float = 3600.0
    max_age: float = 86400.0
    """Seconds after which a token is refreshed, however long it lives: a token that was revoked is replaced then."""
    on_expiry: OnExpiry = "keep"
    outputs: tuple[Output, ...] = ()
    required: bool = True
    """Whether the daemon is not ready without it."""
    on_change: tuple[Hook, ...] = ()
    on_failure: tuple[Hook, ...] = ()

    @property
    def full_name(self) -> str:
        """`client/token`, as logs, paths and the command line have it."""
        return f"{self.client.name}/{self.name}"

    @property
    def references(self) -> tuple[Reference, ...]:
        """Every reference that its request needs: those of its client, then those of its parameters."""
        return (*self.client.references, *(value for _, value in self.parameters if isinstance(value, Reference)))

    @property
    def max_staleness(self) -> float:
        """The longest of its readers' caches, in seconds."""
        return max((output.max_staleness for output in self.outputs), default=0.0)

    def identity(self) -> str:
        """A hash of what is requested, without the client id. A record with another identity is not used.

        It is a hash because parameters may be private.
        """
        client = self.client
        named = [
            client.provider.url,
            client.auth,
            client.grant_type,
            client.jwt_bearer and [client.jwt_bearer.issuer, client.jwt_bearer.subject, client.jwt_bearer.claims],
            self.scope,
            sorted((name, _named(value)) for name, value in self.parameters),
        ]
        return hashlib.sha256(json.dumps(named).encode()).hexdigest()

    def fingerprint(self) -> str:
        """A hash of everything in the config that can change the outcome of a grant.

        A refusal of a request with another fingerprint says nothing about this target.
        """
        client = self.client
        where = [_named(client.client_id), *(_named(reference) for reference in client.references)]
        parts = [self.identity(), client.judged(), where, self.strict_scope]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _named(value: str | Reference) -> list[str]:
    """A text, or where it is read."""
    return [value] if isinstance(value, str) else [value.kind, value.at, *value.argv]


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
class Control:
    """The socket of the local API; its group is that of the directories."""

    socket: str
    mode: int = 0o660


@dataclass(frozen=True, slots=True)
class Listen:
    """Where metrics and probes are served over TCP; port 0 is any that is free."""

    host: str
    port: int
    page: bool = False
    hosts: tuple[str, ...] = ()
    """Names that a request's `Host` may have besides IP addresses and `localhost`."""


@dataclass(frozen=True, slots=True)
class Config:
    """All that a valid config says, resolved: nothing is inherited or defaulted any more."""

    directory: str
    state_directory: str
    """Where refusals and what rate limits have used up outlive a restart."""
    directory_mode: int = 0o750
    group: str | None = None
    """The group of the directories that bearerd makes: readers must get through them."""
    targets: tuple[Target, ...] = ()
    control: Control | None = None
    listen: Listen | None = None
    log: Logging = Logging()
    reload: Reload = "watch"
    startup_timeout: float = 30.0
    """Seconds after which systemd is told READY, whatever tokens are missing then."""
    sources: tuple[str, ...] = ()
    """The files it was read from."""
    source_directories: tuple[str, ...] = ()
    """Where more of them would be taken up: the directories of `include`."""
