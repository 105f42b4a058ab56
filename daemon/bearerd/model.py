"""The values that all packages share: frozen, and without I/O. Times are in seconds. Pure."""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from bearerd.terms import (
    CLIENT_ASSERTION,
    REFUSED_LIMIT,
    Auth,
    BasicEncoding,
    Body,
    Format,
    Hook,
    LifetimeUnit,
    OnExpiry,
    RateLimit,
    Reference,
    Reload,
    ScopeIn,
    Share,
)

# Seconds. A command that prints a secret is killed then (secrets/command).
_COMMAND: Final = 10.0
# Requests of a grant whose provider has an issuer: its metadata is at one of two URLs.
_WITH_METADATA: Final = 3


@dataclass(frozen=True, slots=True)
class RefreshBefore:
    """How long before its expiry a token is refreshed: a share of its lifetime, or `seconds` if they are set."""

    share: float = 0.0
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class ProxyLogin:
    """The login to a proxy: HTTP Basic, or that of SOCKS5 (RFC 1929)."""

    username: str
    password: Reference


@dataclass(frozen=True, slots=True)
class Provider:
    """An authorization server's token endpoint, or its issuer, and how to reach it."""

    name: str
    token_url: str | None = None
    issuer: str | None = None
    """Instead of the token URL, which is then in the issuer's metadata (RFC 8414)."""
    allow_http: bool = False
    """Plain http to loopback is intended."""
    ca_file: str | None = None
    proxy: str | None = None
    """Its URL: http, https, socks5 or socks5h."""
    proxy_login: ProxyLogin | None = None
    timeout: float = 10.0
    """Seconds for a whole request, from name look-up to last byte."""
    max_concurrency: int = 8
    tls_certificate: Reference | None = None
    """The client certificate of connections for its metadata; those of token requests have the client's."""
    tls_private_key: Reference | None = None
    headers: tuple[tuple[str, str | Reference], ...] = ()
    """Additional headers of requests for its metadata; those of token requests are the client's."""
    refused_limit: RateLimit = REFUSED_LIMIT
    """How many refused attempts each of its clients may make."""
    token_field: str = "access_token"  # noqa: S105 - the name of a field
    """A dotted path to the token in a reply. Its lifetime, type and scope are beside it."""

    @property
    def url(self) -> str:
        """The URL in the config: the token URL or the issuer."""
        return self.token_url or self.issuer or ""

    @property
    def references(self) -> tuple[Reference, ...]:
        """Every reference that a request to it needs, whichever client sends it."""
        password = self.proxy_login.password if self.proxy_login else None
        values = (self.tls_certificate, self.tls_private_key, *(value for _, value in self.headers), password)
        return tuple(value for value in values if isinstance(value, Reference))


@dataclass(frozen=True, slots=True)
class Jwt:
    """The assertions of a client that bearerd signs: the grant if it is one, else those that authenticate the client.

    RFC 7523 section 3.
    """

    key_id: str | None = None
    algorithm: str | None = None
    """None: it depends on the kind of key."""
    audience: str | None = None
    """None: the issuer if it is configured, else the token URL."""
    claims: str = "{}"
    """Additional claims: a JSON object, as text."""
    scope_in: ScopeIn | None = None
    """None: in the assertion if that is the grant, as Google and Maskinporten want it, else in the form."""


@dataclass(frozen=True, slots=True)
class JwtBearer:
    """The assertion of the jwt-bearer grant, if bearerd signs it (RFC 7523 section 2.1)."""

    issuer: str | None = None
    """None: the client id."""
    subject: str | None = None


@dataclass(frozen=True, slots=True)
class Client:
    """A client id with its credentials at one provider."""

    name: str
    provider: Provider
    client_id: str | Reference = ""
    """Empty if the provider wants none, as some do for token exchange."""
    client_secret: tuple[Reference, ...] = ()
    """Newest first. When one is refused, the next is tried."""
    auth: Auth = "client_secret_basic"
    basic_encoding: BasicEncoding = "compatible"
    private_key: Reference | None = None
    """Signs assertions."""
    certificate: Reference | None = None
    """The certificate of the key that signs."""
    tls_certificate: Reference | None = None
    """The client certificate of its connections, its own or its provider's."""
    tls_private_key: Reference | None = None
    headers: tuple[tuple[str, str | Reference], ...] = ()
    """Additional headers of token requests: its provider's and its own."""
    assertion: Reference | None = None
    """A JWT that another program keeps fresh, for auth `assertion`."""
    assertion_type: str = CLIENT_ASSERTION
    jwt: Jwt = Jwt()
    grant_type: str = "client_credentials"
    body: Body = "form"
    jwt_bearer: JwtBearer | None = None
    scope_separator: str = " "
    rate_limits: tuple[tuple[str, RateLimit], ...] = ()
    """Each `rate_limit` that its grants count against, with the name under which it is counted."""
    share: Share | None = None
    """None: this daemon alone keeps its tokens."""

    @property
    def references(self) -> tuple[Reference, ...]:
        """Every reference that its requests need, each once, in the order of the fields."""
        values = (
            *(self.client_id, *self.client_secret, self.private_key, self.certificate),
            *(self.tls_certificate, self.tls_private_key, *(value for _, value in self.headers), self.assertion),
            *self.provider.references,
        )
        return tuple(dict.fromkeys(value for value in values if isinstance(value, Reference)))

    @property
    def longest_grant(self) -> float:
        """The most seconds that a grant takes. Each request first reads its secrets, and has the whole timeout."""
        requests = 1 if self.provider.token_url else _WITH_METADATA
        commands = sum(reference.kind == "command" for reference in self.references)
        return requests * (self.provider.timeout + commands * _COMMAND)

    @property
    def scope_in_assertion(self) -> bool:
        """Whether the scope is a claim of an assertion that bearerd signs, and not in the form."""
        return (self.jwt.scope_in or ("form" if self.jwt_bearer is None else "assertion")) == "assertion"

    def judged(self) -> str:
        """A JSON text of everything but credentials that can change how its provider answers.

        New fields are part of it unless they are excluded here.
        """
        fields = asdict(self)
        for name in ("name", "client_id", "client_secret", "private_key", "certificate", "assertion", "rate_limits"):
            del fields[name]
        for name in ("tls_certificate", "tls_private_key", "share"):
            del fields[name]
        for name in ("name", "allow_http", "timeout", "max_concurrency", "refused_limit"):
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
    """The name of the variable, in `env` and for templates."""
    template: str = ""
    """A path, or the name of a built-in template."""
    vars: tuple[tuple[str, str], ...] = ()
    """Values for the template, besides the token."""
    max_staleness: float = 0.0
    """Seconds for which readers may use an old copy."""

    @property
    def holds_times(self) -> bool:
        """Whether its content depends on the wall clock."""
        return self.format in {"json", "template"}


@dataclass(frozen=True, slots=True)
class Target:
    """A (client, scope) pair that is kept fresh. The config calls it a token."""

    client: Client
    name: str
    scope: str
    """Separated by spaces, whatever separator the provider wants."""
    parameters: tuple[tuple[str, str | Reference], ...] = ()
    assertion_claims: str = "{}"
    """Claims of the assertion besides those of the client: a JSON object, as text."""
    strict_scope: bool = False
    refresh_before: RefreshBefore = RefreshBefore(share=0.2)
    default_lifetime: float = 3600.0
    lifetime_unit: LifetimeUnit = "auto"
    """The unit of the number in a reply's `expires_in`. `auto` goes by its size."""
    publish_delay: float = 0.0
    """Seconds for which the current token stays in the files after a new one was requested."""
    max_age: float = 86400.0
    """Seconds after which a token is refreshed even if it lives longer. A revoked token is replaced by then.

    Infinite for `never`.
    """
    on_expiry: OnExpiry = "keep"
    outputs: tuple[Output, ...] = ()
    required: bool = True
    """Whether the daemon is ready only with it."""
    on_change: tuple[Hook, ...] = ()
    on_failure: tuple[Hook, ...] = ()

    @property
    def full_name(self) -> str:
        """`client/token`, as in logs, paths and on the command line."""
        # Interned, because several modules keep it for each target.
        return sys.intern(f"{self.client.name}/{self.name}")

    @property
    def references(self) -> tuple[Reference, ...]:
        """Every reference that its request needs: those of its client, then those of its parameters."""
        return (*self.client.references, *(value for _, value in self.parameters if isinstance(value, Reference)))

    @property
    def longest_grant(self) -> float:
        """The most seconds that a grant takes: its client's, and those of the commands of its parameters."""
        commands = sum(isinstance(value, Reference) and value.kind == "command" for _, value in self.parameters)
        return self.client.longest_grant + commands * _COMMAND

    @property
    def max_staleness(self) -> float:
        """The longest `max_staleness` of its outputs, in seconds."""
        return max((output.max_staleness for output in self.outputs), default=0.0)

    @property
    def least_lead(self) -> float:
        """How long before its expiry a token has to be refreshed, in seconds.

        The next one waits for `publish_delay`, and readers may use the old one for `max_staleness` after that.
        """
        return self.publish_delay + self.max_staleness

    @property
    def claims(self) -> str:
        """The additional claims of the assertion, those of its client and its own: a JSON object, as text."""
        if self.assertion_claims == "{}":
            return self.client.jwt.claims
        return json.dumps(json.loads(self.client.jwt.claims) | json.loads(self.assertion_claims))

    def identity(self) -> str:
        """A hash of what is requested and how replies are read, without the client id.

        A record with another identity is not used. It is a hash because parameters and headers may be private.
        """
        global _last_identity  # noqa: PLW0603 - one value for all threads; a lost one is only computed again
        known = _last_identity
        if known is not None and known[0] is self:
            return known[1]
        client, claims = self.client, self.claims
        named: list[Any] = [
            client.provider.url,
            client.auth,
            client.grant_type,
            client.jwt_bearer and [client.jwt_bearer.issuer, client.jwt_bearer.subject, claims],
            self.scope,
            sorted((name, _named(value)) for name, value in self.parameters),
        ]
        # Only what differs from the default, so that earlier records keep their identity.
        if client.headers:  # some providers choose the tenant by a header
            named.append({"headers": sorted((name.lower(), _named(value)) for name, value in client.headers)})
        if client.jwt_bearer is None and claims != "{}":
            named.append(claims)
        read = (client.provider.token_field, self.lifetime_unit)
        if read != ("access_token", "auto"):
            named.append(read)
        identity = hashlib.sha256(json.dumps(named).encode()).hexdigest()
        _last_identity = (self, identity)
        return identity

    def fingerprint(self) -> str:
        """A hash of everything in the config that can change the outcome of a grant.

        A refusal of a request with another fingerprint says nothing about this target.
        """
        client = self.client
        where = [_named(client.client_id), *(_named(reference) for reference in client.references)]
        parts = [self.identity(), client.judged(), where, self.strict_scope]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


_last_identity: tuple[Target, str] | None = None
"""A turn compares identities several times. Kept for every target they would be a megabyte for 10,000."""


def _named(value: str | Reference) -> list[str]:
    """A text, or where it is read."""
    return [value] if isinstance(value, str) else [value.kind, value.at, *value.argv]


@dataclass(frozen=True, slots=True)
class Logging:
    """How the log is written."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["text", "json"] = "text"


@dataclass(frozen=True, slots=True)
class Control:
    """The control socket. It has the group of the directories."""

    socket: str
    mode: int = 0o660


@dataclass(frozen=True, slots=True)
class Listen:
    """The address for metrics and probes over TCP. Port 0 is any free port."""

    host: str
    port: int
    page: bool = False
    hosts: tuple[str, ...] = ()
    """Names that `Host` may have, besides IP addresses and `localhost`."""


@dataclass(frozen=True, slots=True)
class Config:
    """A valid config with everything inherited and defaulted filled in."""

    directory: str
    state_directory: str
    """Where the ledger and the use of rate limits survive a restart."""
    directory_mode: int = 0o750
    group: str | None = None
    """The group of the directories that bearerd creates, so that readers can enter them."""
    targets: tuple[Target, ...] = ()
    control: Control | None = None
    listen: Listen | None = None
    log: Logging = Logging()
    reload: Reload = "watch"
    startup_timeout: float = 30.0
    """Seconds after which READY is sent to systemd even if tokens are missing."""
    startup_spread: float = 0.0
    """Seconds over which the first attempts after a start are spread."""
    sources: tuple[str, ...] = ()
    """The files it was read from."""
    source_directories: tuple[str, ...] = ()
    """The directories of `include`, in which more files may appear."""
