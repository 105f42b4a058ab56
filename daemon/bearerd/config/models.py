"""The shape of the config: which keys there are, and what is checked within one mapping. Pure.

The JSON Schema is made from these models. The descriptions of their keys are in `keys`, the types of their
values in `types`. Rules between the keys of a provider or a client are in `rules`, rules between several of them in
`load`.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from bearerd.config.types import (
    VARIABLE,
    AbsolutePath,
    Account,
    Address,
    Algorithm,
    Argv,
    Claims,
    ClientId,
    DirectoryMode,
    Duration,
    Headers,
    HostName,
    Issuer,
    Lead,
    MaxAge,
    Mode,
    Name,
    OutputDirectory,
    OutputPath,
    Parameters,
    Proxy,
    PublishDelay,
    Rate,
    RedisServer,
    RefusedLimit,
    Scope,
    SecretReference,
    Secrets,
    Separator,
    StartupSpread,
    Strict,
    Template,
    Text,
    Timeout,
    TokenField,
    TokenUrl,
)
from bearerd.config.values import expected, fault
from bearerd.terms import (
    JWT_BEARER,
    Auth,
    BasicEncoding,
    Body,
    Format,
    LifetimeUnit,
    ScopeIn,
    SignalName,
    WhenUnavailable,
)


class Part(Strict):
    """A part of the config. Other models are values: `file` below a key such as client_secret is no key of a part."""

    example: ClassVar[str] = ""
    """How it is written, for errors."""


class FileModel(Part):
    """One file of a token, in one format."""

    example = "{format: raw}"

    format: Format
    path: OutputPath | None = None
    mode: Mode | None = None
    owner: Account | None = None
    group: Account | None = None
    newline: bool | None = None
    name: Annotated[str, Field(pattern=VARIABLE)] | None = None
    max_staleness: Duration | None = None
    template: Template | None = None
    vars: dict[Annotated[str, Field(pattern=VARIABLE)], Text] | None = None

    @model_validator(mode="after")
    def _fits_its_format(self) -> FileModel:
        if self.format == "template" and (self.template is None or self.path is None):
            raise fault("format: template requires template and path")
        if self.template is not None and self.format != "template":
            raise fault("template only applies to format template")
        if self.vars is not None and self.template is None:
            raise fault("vars only applies to format template")
        if self.name is not None and self.format not in {"env", "template"}:
            raise fault("name only applies to the formats env and template")
        if self.newline is not None and self.format != "raw":
            raise fault("newline only applies to format raw")
        return self


class FailureHookModel(Part):
    """A command or a signal for when a token can no longer be refreshed: exactly one of run and signal."""

    example = "{run: [/usr/bin/systemctl, reload, nginx]}"

    run: Argv | None = None
    signal: SignalName | None = None
    pid_file: AbsolutePath | None = None
    process: Text | None = None
    timeout: Timeout | None = None

    @model_validator(mode="after")
    def _one_of_two(self) -> FailureHookModel:
        if (self.run is None) == (self.signal is None):
            raise expected("exactly one of run, signal")
        if self.signal is not None and (self.pid_file is None) == (self.process is None):
            raise fault("signal requires exactly one of pid_file and process")
        if self.run is not None and (self.pid_file is not None or self.process is not None):
            raise fault("pid_file and process only apply to signal")
        if self.signal is not None and self.timeout is not None:
            raise fault("timeout only applies to run")
        return self


class ChangeHookModel(FailureHookModel):
    """A command or a signal for when the files of a token have changed: exactly one of run and signal."""

    skip_first: bool = False


class Inherited(Part):
    """Keys that the top level, a client and a token may have. The nearest wins."""

    files: list[FileModel] | None = None
    refresh_before: Lead | None = None
    default_lifetime: Duration | None = None
    lifetime_unit: LifetimeUnit | None = None
    max_age: MaxAge | None = None
    publish_delay: PublishDelay | None = None
    strict_scope: bool | None = None
    required: bool | None = None
    on_change: list[ChangeHookModel] | None = None
    on_failure: list[FailureHookModel] | None = None


class ProviderKeys(Part):
    """A token endpoint, or the issuer that names it, and how to reach it."""

    token_url: TokenUrl | None = None
    issuer: Issuer | None = None
    ca_file: AbsolutePath | None = None
    tls_certificate: SecretReference | None = None
    tls_private_key: SecretReference | None = None
    headers: Headers | None = None
    body: Body | None = None
    proxy: Proxy | None = None
    timeout: Timeout | None = None
    max_concurrency: Annotated[int, Field(ge=1, le=1024)] | None = None
    rate_limit: Rate | None = None
    refused_limit: RefusedLimit | None = None
    allow_http: bool | None = None
    token_field: TokenField | None = None


class ProviderModel(ProviderKeys):
    """A token endpoint that several clients share."""


class TokenModel(Inherited):
    """A token of a client, with its scope, that is kept fresh."""

    example = "{scope: read}"

    scope: Scope = ()
    assertion_claims: Claims | None = None
    parameters: Parameters = Field(default_factory=dict)


class ShareModel(Part):
    """The server through which a fleet shares tokens."""

    example = "{redis: {url: rediss://redis.example.com:6379/0}}"

    redis: RedisServer
    when_unavailable: WhenUnavailable = "alone"
    key: SecretReference | None = None


class ClientModel(Inherited, ProviderKeys):
    """A client id with its credentials at one provider."""

    provider: Text | None = None
    client_id: ClientId | None = None
    client_secret: Secrets | None = None
    auth: Auth = "client_secret_basic"
    basic_encoding: BasicEncoding | None = None
    private_key: SecretReference | None = None
    certificate: SecretReference | None = None
    assertion: SecretReference | None = None
    assertion_type: Text | None = None
    key_id: Text | None = None
    algorithm: Algorithm | None = None
    assertion_audience: Text | None = None
    grant_type: Text = "client_credentials"
    assertion_issuer: Text | None = None
    assertion_subject: Text | None = None
    assertion_claims: Claims | None = None
    scope_in: ScopeIn | None = None
    scope_separator: Separator = " "
    subject_token: SecretReference | None = None
    parameters: Parameters = Field(default_factory=dict)
    share: ShareModel | None = None
    tokens: Annotated[dict[Name, TokenModel], Field(min_length=1)]

    @property
    def signs_the_grant(self) -> bool:
        """Whether the grant is an assertion that bearerd signs."""
        return self.grant_type == JWT_BEARER and self.private_key is not None


class OutputModel(Part):
    """The directory, owner and modes of the token files."""

    example = "{directory: /run/bearerd}"

    directory: OutputDirectory | None = None
    directory_mode: DirectoryMode = 0o750
    mode: Mode = 0o640
    owner: Account | None = None
    group: Account | None = None
    on_expiry: Literal["keep", "remove"] = "keep"


class ControlModel(Part):
    """The socket of the local API."""

    example = "{socket: /run/bearerd/control.sock}"

    socket: AbsolutePath | None = None
    mode: Mode = 0o660


class ListenModel(Part):
    """Metrics and probes over TCP."""

    example = '{address: "127.0.0.1:9810"}'

    address: Address
    page: bool = False
    hosts: list[HostName] = Field(default_factory=list)


class LogModel(Part):
    """Level and format of the log."""

    example = "{level: info}"

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["text", "json"] = "text"


def _include(value: Any) -> Any:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise expected("a list of file names or patterns, such as [conf.d/*.yaml]", value)
    return value


class IncludedFile(Part):
    """The keys of an included file."""

    providers: dict[Name, ProviderModel] = Field(default_factory=dict)
    clients: dict[Name, ClientModel] = Field(default_factory=dict)


class ConfigFile(IncludedFile, Inherited):
    """The config of bearerd."""

    include: Annotated[list[Text], BeforeValidator(_include)] = Field(default_factory=list)
    state_directory: AbsolutePath | None = None
    reload: Literal["watch", "signal"] = "watch"
    startup_timeout: Timeout = 30.0
    startup_spread: StartupSpread = 0.0
    share: ShareModel | None = None
    output: OutputModel = OutputModel()
    control: ControlModel = ControlModel()
    listen: ListenModel | None = None
    log: LogModel = LogModel()
