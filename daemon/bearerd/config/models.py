"""The shape of the config: which keys there are, and what is checked within one mapping. Pure.

The JSON Schema is made from these models, and their docstrings are its descriptions. Rules between the keys of a
provider or a client are in `rules`, rules between several of them in `load`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from bearerd.config import values
from bearerd.config.schema import OneOrSeveral
from bearerd.config.values import expected, fault
from bearerd.model import (
    JWT_BEARER,
    TEMPLATES,
    Auth,
    BasicEncoding,
    Format,
    Listen,
    RateLimit,
    RefreshBefore,
    SignalName,
)
from bearerd.timeformat import DURATION

NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
Algorithm = Literal[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "HS256", "HS384", "HS512"
]


def _schema(pattern: str, example: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "pattern": f"^{pattern}$", "examples": [example]})


Text = Annotated[str, BeforeValidator(values.parse_text)]
AbsolutePath = Annotated[
    str, BeforeValidator(values.parse_absolute_path), WithJsonSchema({"type": "string", "pattern": "^/"})
]
Duration = Annotated[float, BeforeValidator(values.parse_duration), _schema(DURATION, "15m")]
Timeout = Annotated[float, BeforeValidator(values.parse_timeout), _schema(DURATION, "10s")]
Lead = Annotated[RefreshBefore, BeforeValidator(values.parse_refresh_before), _schema(rf"([0-9.]+%|{DURATION})", "20%")]
Rate = Annotated[
    RateLimit, BeforeValidator(values.parse_rate_limit), _schema(rf"[0-9]+/({DURATION}|ms|s|m|h|d)", "10/8h")
]
Mode = Annotated[int, BeforeValidator(values.parse_mode), _schema("0?[0-7]{3}", "0640")]
DirectoryMode = Annotated[int, BeforeValidator(values.parse_directory_mode), _schema("[02]?[0-7]{3}", "0750")]
Account = Annotated[
    str,
    BeforeValidator(values.parse_account),
    WithJsonSchema({"anyOf": [{"type": "string", "minLength": 1}, {"type": "integer", "minimum": 0}]}),
]
Name = Annotated[str, Field(pattern=f"^{NAME}$")]
Scope = Annotated[
    tuple[str, ...],
    BeforeValidator(values.parse_scope),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
]
HttpUrl = Annotated[
    str, BeforeValidator(values.parse_url(("https", "http"))), WithJsonSchema({"type": "string", "format": "uri"})
]
ProxyUrl = Annotated[
    str, BeforeValidator(values.parse_url(("http", "https"))), WithJsonSchema({"type": "string", "format": "uri"})
]


class Strict(BaseModel):
    """An unknown key is an error, and no value is bent into another type."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)

    @field_validator("*", mode="before")
    @classmethod
    def _not_nothing(cls, value: Any) -> Any:
        # `proxy:` without a value is an unfinished line.
        if value is None:
            raise expected("a value, found nothing")
        return value


class ReferenceModel(Strict):
    """The source of a secret: exactly one of file, env, credential and command."""

    file: AbsolutePath | None = None
    env: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] | None = None
    credential: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,254}$")] | None = None
    command: Annotated[list[Text], Field(min_length=1)] | None = None
    permissions: Literal["owner", "group", "any"] | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> ReferenceModel:
        given = [key for key in ("file", "env", "credential", "command") if getattr(self, key) is not None]
        if len(given) != 1:
            raise expected("exactly one of file, env, credential, command")
        if self.permissions is not None and self.file is None:
            raise fault("permissions only applies to file")
        if self.command is not None and not self.command[0].startswith("/"):
            raise expected("the absolute path of a program (/…)")
        return self


def _kind_of_value(value: Any) -> str:
    return "reference" if isinstance(value, dict) else "text"


SecretReference = Annotated[ReferenceModel, BeforeValidator(values.parse_reference)]
Secrets = Annotated[
    list[SecretReference], Field(min_length=1, max_length=8), BeforeValidator(values.as_list), OneOrSeveral()
]
ClientId = Annotated[
    Annotated[Annotated[str, BeforeValidator(values.parse_client_id)], Tag("text")]
    | Annotated[ReferenceModel, Tag("reference")],
    Discriminator(_kind_of_value),
]
ParameterValue = Annotated[
    Annotated[str, Tag("text")] | Annotated[ReferenceModel, Tag("reference")], Discriminator(_kind_of_value)
]
Parameters = dict[
    Annotated[str, AfterValidator(values.parse_parameter_name)],
    Annotated[list[ParameterValue], BeforeValidator(values.parse_parameter), OneOrSeveral()],
]
Template = Annotated[str, BeforeValidator(values.parse_template), _schema(rf"(/.*|{'|'.join(TEMPLATES)})", "nginx")]
Argv = Annotated[list[Text], BeforeValidator(values.parse_argv)]
Address = Annotated[Listen, BeforeValidator(values.parse_address), _schema(r".+:[0-9]{1,5}", "127.0.0.1:9810")]
HostName = Annotated[
    str, BeforeValidator(values.parse_host_name), _schema(values.HOST_NAME.pattern, "web1.example.com")
]
Claims = dict[
    Annotated[str, AfterValidator(values.parse_claim_name)], Annotated[Any, BeforeValidator(values.parse_json_value)]
]
Issuer = Annotated[str, BeforeValidator(values.parse_issuer), WithJsonSchema({"type": "string", "format": "uri"})]
Separator = Annotated[str, BeforeValidator(values.parse_separator), _schema("[ -~]{1,4}", ",")]


class FileModel(Strict):
    """One file of a token, in one format."""

    format: Format
    path: Text | None = None
    mode: Mode | None = None
    owner: Account | None = None
    group: Account | None = None
    newline: bool | None = None
    name: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] | None = None
    max_staleness: Duration | None = None
    template: Template | None = None
    vars: dict[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")], Text] | None = None

    @model_validator(mode="after")
    def _fits_its_format(self) -> FileModel:
        if self.format == "template" and (self.template is None or self.path is None):
            raise expected("template and path with format template, which has no defaults for them")
        if self.template is not None and self.format != "template":
            raise fault("template only applies to format template")
        if self.vars is not None and self.template is None:
            raise fault("vars only applies to format template")
        if self.name is not None and self.format not in {"env", "template"}:
            raise fault("name only applies to the formats env and template")
        if self.newline is not None and self.format != "raw":
            raise fault("newline only applies to format raw")
        return self


class FailureHookModel(Strict):
    """A command or a signal for when a token can no longer be refreshed: exactly one of run and signal."""

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
            raise expected("exactly one of pid_file, process with signal")
        if self.run is not None and (self.pid_file is not None or self.process is not None):
            raise fault("pid_file and process only apply to signal")
        if self.signal is not None and self.timeout is not None:
            raise fault("timeout only applies to run")
        return self


class ChangeHookModel(FailureHookModel):
    """A command or a signal for when the files of a token have changed: exactly one of run and signal."""

    skip_first: bool = False


class Inherited(Strict):
    """Keys that the top level, a client and a token may have. The nearest wins."""

    files: list[FileModel] | None = None
    refresh_before: Lead | None = None
    default_lifetime: Duration | None = None
    strict_scope: bool | None = None
    required: bool | None = None
    on_change: list[ChangeHookModel] | None = None
    on_failure: list[FailureHookModel] | None = None


class ProviderKeys(Strict):
    """A token endpoint, or the issuer that names it, and how to reach it."""

    token_url: HttpUrl | None = None
    issuer: Issuer | None = None
    ca_file: AbsolutePath | None = None
    proxy: ProxyUrl | None = None
    timeout: Timeout | None = None
    max_concurrency: Annotated[int, Field(ge=1, le=1024)] | None = None
    rate_limit: Rate | None = None
    allow_http: bool | None = None


class ProviderModel(ProviderKeys):
    """A token endpoint that several clients share."""


class TokenModel(Inherited):
    """A token of a client, with its scope, that is kept fresh."""

    scope: Scope = ()
    parameters: Parameters = Field(default_factory=dict)


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
    scope_in: Literal["assertion", "form"] | None = None
    scope_separator: Separator = " "
    subject_token: SecretReference | None = None
    parameters: Parameters = Field(default_factory=dict)
    tokens: Annotated[dict[Name, TokenModel], Field(min_length=1)]

    @property
    def signs_the_grant(self) -> bool:
        """Whether the grant is an assertion that bearerd signs."""
        return self.grant_type == JWT_BEARER and self.private_key is not None


class OutputModel(Strict):
    """The directory, owner and modes of the token files."""

    directory: AbsolutePath | None = None
    directory_mode: DirectoryMode = 0o750
    mode: Mode = 0o640
    owner: Account | None = None
    group: Account | None = None
    on_expiry: Literal["keep", "remove"] = "keep"


class ControlModel(Strict):
    """The socket of the local API."""

    socket: AbsolutePath | None = None
    mode: Mode = 0o660


class ListenModel(Strict):
    """Metrics and probes over TCP."""

    address: Address
    page: bool = False
    hosts: list[HostName] = Field(default_factory=list)


class LogModel(Strict):
    """Level and format of the log."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["text", "json"] = "text"


def _include(value: Any) -> Any:
    if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
        raise expected("a list of file names or patterns", value)
    return value


class IncludedFile(Strict):
    """The keys of an included file."""

    providers: dict[Name, ProviderModel] = Field(default_factory=dict)
    clients: dict[Name, ClientModel] = Field(default_factory=dict)


class ConfigFile(IncludedFile, Inherited):
    """The config of bearerd."""

    include: Annotated[list[str], BeforeValidator(_include)] = Field(default_factory=list)
    state_directory: AbsolutePath | None = None
    reload: Literal["watch", "signal"] = "watch"
    startup_timeout: Timeout = 30.0
    output: OutputModel = OutputModel()
    control: ControlModel = ControlModel()
    listen: ListenModel | None = None
    log: LogModel = LogModel()
