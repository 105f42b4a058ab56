"""The config's shape: what pydantic checks, and what `bearerd schema` prints.

Nothing here reaches further than one provider or one client: what spans several is in load.py.
Messages say what was expected; places and near names are load.py's to add.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

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
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import PydanticCustomError, core_schema

from bearerd.model import RateLimit, RefreshBefore
from bearerd.words import DURATION, UNITS, seconds_of

NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
# What the grant itself says; a parameter of that name would be a second opinion.
RESERVED_PARAMETERS = frozenset(
    {"grant_type", "scope", "client_id", "client_secret", "client_assertion", "client_assertion_type"}
)
# Above a day one request is no request any more; below, the network's own noise is the limit.
_LONGEST_TIMEOUT = 86400.0
_LONGEST = 3650 * 86400.0


def _expected(what: str, value: Any = None) -> PydanticCustomError:
    """An error that says what was expected, and what kind of thing stood there (never the thing)."""
    found = "" if value is None or isinstance(value, str) else f", found {kind_of(value)}"
    # The message is a template in pydantic: braces would be read as fields.
    return PydanticCustomError("expected", "expected {what}{found}", {"what": what, "found": found})


def kind_of(value: Any) -> str:
    """What a YAML value is, in words."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "a truth value"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "text"
    return "a list" if isinstance(value, list | tuple) else "a mapping"


def parse_duration(value: Any) -> float:
    """`500ms 10s 15m 1h 2d` -> seconds."""
    seconds = seconds_of(value) if isinstance(value, str) else None
    if seconds is None:
        raise _expected("a duration such as 500ms, 10s, 15m, 1h or 2d", value)
    return _reasonable(seconds)


def _reasonable(seconds: float) -> float:
    if seconds <= 0:
        raise _expected("a duration longer than nothing")
    if seconds > _LONGEST:
        raise _expected("at most 3650d")
    return seconds


def _parse_timeout(value: Any) -> float:
    seconds = parse_duration(value)
    if seconds > _LONGEST_TIMEOUT:
        raise _expected("at most 1d")
    return seconds


def _parse_refresh_before(value: Any) -> RefreshBefore:
    if isinstance(value, str) and (match := re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)%", value)):
        percent = float(match[1])
        if 0 < percent <= 50:  # noqa: PLR2004 - the lead is never more than half the lifetime
            return RefreshBefore(share=percent / 100)
        raise _expected("a share of the lifetime above 0% and up to 50%")
    try:
        return RefreshBefore(seconds=parse_duration(value))
    except PydanticCustomError:
        raise _expected("a share of the lifetime such as 20%, or a duration such as 60s", value) from None


def _parse_rate_limit(value: Any) -> RateLimit:
    match = re.fullmatch(rf"([1-9][0-9]{{0,8}})/(?:{DURATION}|(ms|s|m|h|d))", value) if isinstance(value, str) else None
    if match is None:
        raise _expected("a number of grants in a time, such as 10/s or 10/8h", value)
    return RateLimit(count=int(match[1]), window=_reasonable(float(match[2] or "1") * UNITS[match[3] or match[4]]))


def _parse_mode(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        raise _expected('a mode in quotes, such as "0640" (YAML reads 0640 as the number 416)')
    if not isinstance(value, str) or re.fullmatch(r"0?[0-7]{3}", value) is None:
        raise _expected('a mode of octal digits in quotes, such as "0640"', value)
    return int(value, 8)


def _parse_directory_mode(value: Any) -> int:
    # A directory may carry setgid: its files then take its group.
    if isinstance(value, str) and re.fullmatch(r"2[0-7]{3}", value):
        return int(value, 8)
    return _parse_mode(value)


def _no_nul(value: str) -> str:
    if "\0" in value:
        raise _expected("text without NUL")
    return value


def _text(value: Any) -> Any:
    if not isinstance(value, str):
        raise _expected("text" + ("" if isinstance(value, dict | list) or value is None else " in quotes"), value)
    if not value:
        raise _expected("text that is not empty")
    return _no_nul(value)


def _parse_scope(value: Any) -> tuple[str, ...]:
    items = value if isinstance(value, list) else [value]
    for item in items:
        if not isinstance(item, str):
            raise _expected("a scope, or a list of scopes", item)
        # RFC 6749 3.3: printable ASCII without quote and backslash; the space separates.
        if not item or re.fullmatch(r"[\x21\x23-\x5b\x5d-\x7e]+( [\x21\x23-\x5b\x5d-\x7e]+)*", item) is None:
            raise _expected("scopes of printable characters, separated by one space (RFC 6749 3.3)")
    return tuple(word for item in items for word in item.split(" "))


def _parse_parameter_name(value: str) -> str:
    if value in RESERVED_PARAMETERS:
        raise _expected(f"no parameter '{value}' here: it is the grant's own, and has its place in the config")
    if not value:
        raise _expected("a parameter's name")
    return value


def _parse_parameter(value: Any) -> tuple[str, ...]:
    values = value if isinstance(value, list) else [value]
    for item in values:
        if not isinstance(item, str):
            raise _expected("text in quotes, or a list of texts", item)
    if not values:
        raise _expected("text, or a list of texts that is not empty")
    return tuple(values)


def _parse_url(schemes: tuple[str, ...]) -> Any:
    wanted = " or ".join(f"{scheme}://…" for scheme in schemes)

    def parse(value: Any) -> str:
        if not isinstance(value, str):
            raise _expected(f"a URL, {wanted}", value)
        try:
            parts = urlsplit(value)
            port = parts.port
        except ValueError:
            raise _expected(f"a URL, {wanted}") from None
        if re.search(r"[\x00-\x20\x7f-\uffff]", value) or parts.scheme not in schemes or not parts.hostname:
            raise _expected(f"a URL, {wanted}")
        if parts.username is not None or parts.password is not None:
            raise _expected("a URL without a user or password in it")
        if "#" in value or port == 0:
            raise _expected("a URL without a fragment (#…)" if "#" in value else "a port other than 0")
        return value

    return parse


def _parse_client_id(value: Any) -> str:
    return str(_text(value))


def _parse_account(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return str(value)
    if not isinstance(value, str) or not value:
        raise _expected("a name or a number", value)
    return _no_nul(value)


def _must_be_reference(value: Any) -> Any:
    if not isinstance(value, dict):
        raise _expected(
            "a reference such as {file: /etc/bearerd/client.secret}, {env: NAME}, {credential: NAME} or "
            "{command: [argv…]}; the secret itself never stands in the config"
        )
    return value


def _must_be_absolute(value: Any) -> str:
    text: str = _text(value)
    if not text.startswith("/"):
        raise _expected("an absolute path (/…)")
    return text


def _schema(pattern: str, example: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "pattern": f"^{pattern}$", "examples": [example]})


Text = Annotated[str, BeforeValidator(_text)]
AbsolutePath = Annotated[str, BeforeValidator(_must_be_absolute), WithJsonSchema({"type": "string", "pattern": "^/"})]
Duration = Annotated[float, BeforeValidator(parse_duration), _schema(DURATION, "15m")]
Timeout = Annotated[float, BeforeValidator(_parse_timeout), _schema(DURATION, "10s")]
Lead = Annotated[RefreshBefore, BeforeValidator(_parse_refresh_before), _schema(rf"([0-9.]+%|{DURATION})", "20%")]
Rate = Annotated[RateLimit, BeforeValidator(_parse_rate_limit), _schema(rf"[0-9]+/({DURATION}|ms|s|m|h|d)", "10/8h")]
Mode = Annotated[int, BeforeValidator(_parse_mode), _schema("0?[0-7]{3}", "0640")]
DirectoryMode = Annotated[int, BeforeValidator(_parse_directory_mode), _schema("[02]?[0-7]{3}", "0750")]
Account = Annotated[
    str,
    BeforeValidator(_parse_account),
    WithJsonSchema({"anyOf": [{"type": "string", "minLength": 1}, {"type": "integer", "minimum": 0}]}),
]
Name = Annotated[str, Field(pattern=f"^{NAME}$")]
Scope = Annotated[
    tuple[str, ...],
    BeforeValidator(_parse_scope),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
]
Parameters = dict[
    Annotated[str, AfterValidator(_parse_parameter_name)],
    Annotated[
        tuple[str, ...],
        BeforeValidator(_parse_parameter),
        WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
    ],
]
HttpUrl = Annotated[
    str, BeforeValidator(_parse_url(("https", "http"))), WithJsonSchema({"type": "string", "format": "uri"})
]
ProxyUrl = Annotated[
    str, BeforeValidator(_parse_url(("http", "https"))), WithJsonSchema({"type": "string", "format": "uri"})
]


class Schema(GenerateJsonSchema):
    """Says what Strict does: a key that may be left out may not stand there with nothing."""

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        """The schema without null."""
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        """Likewise: null is no default that anybody could write."""
        plain = schema.get("default", ...) is None
        return self.generate_inner(schema["schema"]) if plain else super().default_schema(schema)


class Strict(BaseModel):
    """An unknown key is an error, and no value is bent into another type."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)

    @field_validator("*", mode="before")
    @classmethod
    def _not_nothing(cls, value: Any) -> Any:
        # `proxy:` with nothing after it is a line that was not finished.
        if value is None:
            raise _expected("a value, found nothing")
        return value


class ReferenceModel(Strict):
    """Where a secret is read: exactly one of file, env, credential, command."""

    file: AbsolutePath | None = None
    env: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] | None = None
    credential: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,254}$")] | None = None
    command: Annotated[list[Text], Field(min_length=1)] | None = None
    permissions: Literal["owner", "group", "any"] | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> ReferenceModel:
        given = [key for key in ("file", "env", "credential", "command") if getattr(self, key) is not None]
        if len(given) != 1:
            raise _expected("exactly one of file, env, credential, command")
        if self.permissions is not None and self.file is None:
            raise _expected("permissions only beside file")
        if self.command is not None and not self.command[0].startswith("/"):
            raise _expected("a command by its absolute path")
        return self


SecretReference = Annotated[ReferenceModel, BeforeValidator(_must_be_reference)]
ClientId = Annotated[
    Annotated[Annotated[str, BeforeValidator(_parse_client_id)], Tag("text")]
    | Annotated[ReferenceModel, Tag("reference")],
    Discriminator(lambda value: "reference" if isinstance(value, dict) else "text"),
]


class FileModel(Strict):
    """One output."""

    format: Literal["raw", "json", "header", "env"]
    path: Text | None = None
    mode: Mode | None = None
    owner: Account | None = None
    group: Account | None = None
    newline: bool | None = None
    name: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] | None = None
    max_staleness: Duration | None = None

    @model_validator(mode="after")
    def _fits_its_format(self) -> FileModel:
        if self.name is not None and self.format != "env":
            raise _expected("name only for format env")
        if self.newline is not None and self.format != "raw":
            raise _expected("newline only for format raw: the others have their own line ends")
        return self


class Inherited(Strict):
    """What may stand at the top, on a client or on a token; the nearest wins."""

    files: list[FileModel] | None = None
    refresh_before: Lead | None = None
    default_lifetime: Duration | None = None
    strict_scope: bool | None = None


class ProviderKeys(Strict):
    """A token endpoint and how to reach it."""

    token_url: HttpUrl | None = None
    ca_file: AbsolutePath | None = None
    proxy: ProxyUrl | None = None
    timeout: Timeout | None = None
    max_concurrency: Annotated[int, Field(ge=1, le=1024)] | None = None
    rate_limit: Rate | None = None
    allow_http: bool | None = None


class ProviderModel(ProviderKeys):
    """What several clients share."""


class TokenModel(Inherited):
    """One scope of a client that is kept fresh."""

    scope: Scope = ()
    parameters: Parameters = Field(default_factory=dict)


class ClientModel(Inherited, ProviderKeys):
    """A client id with its credentials at one provider."""

    provider: Text | None = None
    client_id: ClientId
    client_secret: SecretReference
    auth: Literal["client_secret_basic", "client_secret_post"] = "client_secret_basic"
    basic_encoding: Literal["compatible", "rfc6749", "raw"] = "compatible"
    parameters: Parameters = Field(default_factory=dict)
    tokens: Annotated[dict[Name, TokenModel], Field(min_length=1)]


class OutputModel(Strict):
    """Where the files go, and whose they are."""

    directory: AbsolutePath | None = None
    directory_mode: DirectoryMode = 0o750
    mode: Mode = 0o640
    owner: Account | None = None
    group: Account | None = None
    on_expiry: Literal["keep", "remove"] = "keep"


class LogModel(Strict):
    """How the log is written."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["text", "json"] = "text"


def _include(value: Any) -> Any:
    if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
        raise _expected("a list of file names or patterns", value)
    return value


class IncludedFile(Strict):
    """What an included file may hold."""

    providers: dict[Name, ProviderModel] = Field(default_factory=dict)
    clients: dict[Name, ClientModel] = Field(default_factory=dict)


class ConfigFile(IncludedFile, Inherited):
    """The config of bearerd."""

    include: Annotated[list[str], BeforeValidator(_include)] = Field(default_factory=list)
    output: OutputModel = OutputModel()
    log: LogModel = LogModel()
