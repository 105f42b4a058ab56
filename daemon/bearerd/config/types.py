"""The types of values in the config: how each is parsed, and its JSON Schema. Pure."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

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

from bearerd.config import quantities, urls, values
from bearerd.config.scalar import NO_VALUE
from bearerd.config.schema import OneOrSeveral
from bearerd.config.values import expected, fault
from bearerd.model import Listen, RefreshBefore
from bearerd.terms import TEMPLATES, RateLimit
from bearerd.timeformat import DURATION

NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
VARIABLE = r"^[A-Za-z_][A-Za-z0-9_]*$"
PREFIX = r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,63}$"
CREDENTIAL = r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,254}$"
Algorithm = Literal[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "HS256", "HS384", "HS512"
]


def _schema(pattern: str, kind: str) -> WithJsonSchema:
    """A text with a pattern; `kind` is its name in messages."""
    return WithJsonSchema({"title": kind, "type": "string", "pattern": f"^{pattern}$"})


_URL: Final = WithJsonSchema({"title": "URL", "type": "string", "format": "uri"})
_DURATION: Final = "duration such as 500ms, 10s, 15m, 1h or 2d"

Text = Annotated[str, BeforeValidator(values.parse_text)]
AbsolutePath = Annotated[str, BeforeValidator(values.parse_absolute_path), _schema("/.*", "absolute path")]
OutputPath = Annotated[Text, AfterValidator(values.parse_output_path)]
OutputDirectory = Annotated[AbsolutePath, AfterValidator(values.parse_output_path)]
Duration = Annotated[float, BeforeValidator(quantities.parse_duration), _schema(DURATION, _DURATION)]
Timeout = Annotated[float, BeforeValidator(quantities.parse_timeout), _schema(DURATION, _DURATION)]
Lead = Annotated[
    RefreshBefore,
    BeforeValidator(quantities.parse_refresh_before),
    _schema(rf"([0-9.]+%|{DURATION})", "share such as 20%, or duration such as 5m"),
]
Rate = Annotated[
    RateLimit,
    BeforeValidator(quantities.parse_rate_limit),
    _schema(rf"[0-9]+/({DURATION}|ms|s|m|h|d)", "number of requests and a period, such as 10/s or 10/8h"),
]
RefusedLimit = Annotated[
    RateLimit,
    BeforeValidator(quantities.parse_refused_limit),
    _schema(rf"([1-9][0-9]?|100)/({DURATION}|ms|s|m|h|d)", "number of attempts and a period, such as 4/2m"),
]
StoreTimeout = Annotated[float, BeforeValidator(quantities.parse_store_timeout), _schema(DURATION, _DURATION)]
StartupSpread = Annotated[float, BeforeValidator(quantities.parse_startup_spread), _schema(DURATION, _DURATION)]
PublishDelay = Annotated[float, BeforeValidator(quantities.parse_publish_delay), _schema(DURATION, _DURATION)]
MaxAge = Annotated[
    float, BeforeValidator(quantities.parse_max_age), _schema(rf"({DURATION}|never)", "duration such as 24h, or never")
]
Mode = Annotated[int, BeforeValidator(quantities.parse_mode), _schema("0?[0-7]{3}", "octal mode in quotes")]
DirectoryMode = Annotated[
    int, BeforeValidator(quantities.parse_directory_mode), _schema("[02]?[0-7]{3}", "octal mode in quotes")
]
Account = Annotated[
    str,
    BeforeValidator(values.parse_account),
    WithJsonSchema(
        {"title": "name or number", "anyOf": [{"type": "string", "minLength": 1}, {"type": "integer", "minimum": 0}]}
    ),
]
Name = Annotated[str, Field(pattern=f"^{NAME}$")]
Scope = Annotated[
    tuple[str, ...],
    BeforeValidator(values.parse_scope),
    WithJsonSchema(
        {"title": "text or list", "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
    ),
]
TokenUrl = Annotated[str, BeforeValidator(urls.parse_token_url), _URL]
ProxyUrl = Annotated[str, BeforeValidator(urls.parse_proxy), _URL]


class Strict(BaseModel):
    """An unknown key is an error, and no value is bent into another type."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)

    @field_validator("*", mode="before")
    @classmethod
    def _not_nothing(cls, value: Any) -> Any:
        # `proxy:` without a value is an unfinished line.
        if value is None:
            raise fault(NO_VALUE)
        return value


class ReferenceModel(Strict):
    """The source of a secret: exactly one of file, env, credential and command."""

    model_config = ConfigDict(title="secret reference")
    file: AbsolutePath | None = None
    env: Annotated[str, Field(pattern=VARIABLE)] | None = None
    credential: Annotated[str, Field(pattern=CREDENTIAL)] | None = None
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


class ProxyModel(Strict):
    """A proxy with a login: HTTP Basic, or that of SOCKS5."""

    model_config = ConfigDict(title="proxy with a login")
    url: ProxyUrl
    username: Annotated[str, BeforeValidator(values.parse_proxy_user)]
    password: Annotated[ReferenceModel, BeforeValidator(values.parse_reference)]


def _kind_of_proxy(value: Any) -> str:
    return "mapping" if isinstance(value, dict) else "text"


Proxy = Annotated[
    Annotated[ProxyUrl, Tag("text")] | Annotated[ProxyModel, Tag("mapping")], Discriminator(_kind_of_proxy)
]


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
RedisUrl = Annotated[
    Annotated[Annotated[str, BeforeValidator(values.parse_redis_url), _URL], Tag("text")]
    | Annotated[ReferenceModel, Tag("reference")],
    Discriminator(_kind_of_value),
]


class RedisModel(Strict):
    """A Redis or Valkey server."""

    model_config = ConfigDict(title="Redis server")
    url: RedisUrl
    ca_file: AbsolutePath | None = None
    username: Annotated[str, BeforeValidator(values.parse_redis_user)] | None = None
    password: SecretReference | None = None
    prefix: Annotated[str, Field(pattern=PREFIX)] = "bearerd"
    timeout: StoreTimeout = 2.0

    @model_validator(mode="after")
    def _fits_its_url(self) -> RedisModel:
        # The text behind a reference is not known here: `check` looks at it.
        if isinstance(self.url, str) and self.ca_file is not None and not self.url.startswith("rediss"):
            raise fault("ca_file only applies to TLS: a url that begins with rediss:// or rediss+sentinel://")
        if isinstance(self.url, str) and self.username is not None and self.password is None:
            raise fault("key 'password' is missing: a username is for a login with a password")
        return self


RedisServer = Annotated[RedisModel, BeforeValidator(values.parse_redis)]
HeaderValue = Annotated[
    Annotated[Annotated[str, BeforeValidator(values.parse_header_value)], Tag("text")]
    | Annotated[ReferenceModel, Tag("reference")],
    Discriminator(_kind_of_value),
]
Headers = Annotated[
    dict[Annotated[str, AfterValidator(values.parse_header_name)], HeaderValue], AfterValidator(values.parse_headers)
]
Template = Annotated[
    str,
    BeforeValidator(values.parse_template),
    _schema(rf"(/.*|{'|'.join(TEMPLATES)})", "name of a built-in template, or absolute path"),
]
Argv = Annotated[list[Text], BeforeValidator(values.parse_argv)]
Address = Annotated[
    Listen, BeforeValidator(values.parse_address), _schema(r".+:[0-9]{1,5}", "IP address and port in quotes")
]
HostName = Annotated[str, BeforeValidator(values.parse_host_name), _schema(values.HOST_NAME.pattern, "host name")]
Claims = dict[
    Annotated[str, AfterValidator(values.parse_claim_name)], Annotated[Any, BeforeValidator(values.parse_json_value)]
]
Issuer = Annotated[str, BeforeValidator(urls.parse_issuer), _URL]
TokenField = Annotated[
    str,
    BeforeValidator(values.parse_token_field),
    _schema(values.TOKEN_FIELD.pattern, "name of a field, or a path such as data.access_token"),
]
Separator = Annotated[
    str, BeforeValidator(values.parse_separator), _schema("[ -~]{1,4}", "1 to 4 characters in quotes")
]
