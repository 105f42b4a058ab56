"""The config's shape: what pydantic checks, and what `bearerd schema` prints.

Nothing here reaches further than one provider or one client: what spans several is in load.py.
Messages say what was expected; places and near names are load.py's to add.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from typing import Annotated, Any, Literal, get_args
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    GetJsonSchemaHandler,
    Tag,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import PydanticCustomError, core_schema

from bearerd.config.scalar import kind_of
from bearerd.config.suggest import near
from bearerd.model import (
    JWT_BEARER,
    TEMPLATES,
    TLS_AUTHS,
    Auth,
    BasicEncoding,
    Format,
    Listen,
    RateLimit,
    RefreshBefore,
    SignalName,
)
from bearerd.words import DURATION, UNITS, seconds_of

NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
# What the grant itself says; a parameter of that name would be a second opinion.
RESERVED_PARAMETERS = frozenset(
    {"grant_type", "scope", "client_id", "client_secret", "client_assertion", "client_assertion_type", "subject_token"}
)
# Parameters that are secrets themselves: as text they would stand in the config.
_SECRET_PARAMETERS = frozenset({"password", "assertion", "actor_token", "refresh_token", "code", "device_code"})
# What bearerd itself says in an assertion, or has a key for.
_OWN_CLAIMS = {
    "iss": "assertion_issuer",
    "sub": "assertion_subject",
    "aud": "assertion_audience",
    "scope": "scope",
    "exp": None,
    "iat": None,
    "jti": None,
}
_SECRET_AUTHS = frozenset({"client_secret_basic", "client_secret_post", "client_secret_jwt"})
_HMACS = ("HS256", "HS384", "HS512")
Algorithm = Literal[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "HS256", "HS384", "HS512"
]
# Above a day one request is no request any more; below, the network's own noise is the limit.
_LONGEST_TIMEOUT = 86400.0
_LONGEST = 3650 * 86400.0
_LAST_PORT = 65535
# Labels as DNS has them; `_` is in the names of Compose's services. A browser's name of another kind arrives as xn--….
_LABEL = "[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST_NAME = re.compile(rf"(?=.{{1,254}}$){_LABEL}(\.{_LABEL})*\.?")


def _expected(what: str, value: Any = None) -> PydanticCustomError:
    """An error that says what was expected, and what kind of thing stood there (never the thing)."""
    found = "" if value is None or isinstance(value, str) else f", found {kind_of(value)}"
    # The message is a template in pydantic: braces would be read as fields.
    return PydanticCustomError("expected", "expected {what}{found}", {"what": what, "found": found})


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


def _parse_parameter(value: Any) -> list[Any]:
    values = value if isinstance(value, list) else [value]
    for item in values:
        if not isinstance(item, str | dict):
            raise _expected("text in quotes, a reference such as {file: …}, or a list of these", item)
    if not values:
        raise _expected("text, or a list of texts that is not empty")
    return values


def _parse_claim_name(value: str) -> str:
    if value in _OWN_CLAIMS:
        key = _OWN_CLAIMS[value]
        raise _expected(f"no claim '{value}' here: " + (f"it has its own key, {key}" if key else "bearerd sets it"))
    return value


def _must_be_json(value: Any) -> Any:
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            _must_be_json(item)
    elif not isinstance(value, str | int | float | bool):
        raise _expected("text, numbers, truth values, lists and mappings", value)
    return value


def _parse_issuer(value: Any) -> str:
    url = _parse_url(("https", "http"))(value)
    if "?" in url:
        raise _expected("an issuer without a query (RFC 8414 section 2)")
    return str(url)


def _parse_separator(value: Any) -> str:
    if not isinstance(value, str) or re.fullmatch(r"[\x20-\x7e]{1,4}", value) is None:
        raise _expected('what stands between scopes, such as " " or ","', value)
    return value


def _listed(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


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


def _parse_address(value: Any) -> Listen:
    match = re.fullmatch(r"(\[(.+)\]|([0-9.]+)):([0-9]{1,5})", value) if isinstance(value, str) else None
    try:
        host = str(ip_address(match[2] or match[3])) if match else ""
    except ValueError:
        host = ""
    if match is None or not host or (":" in host) != bool(match[2]) or int(match[4]) > _LAST_PORT:
        # A name could be another address tomorrow, and would have to be looked up.
        raise _expected('an IP address and a port in quotes, such as "127.0.0.1:9810" or "[::1]:9810"', value)
    return Listen(host=host, port=int(match[4]))


def _parse_host_name(value: Any) -> str:
    if not isinstance(value, str) or _HOST_NAME.fullmatch(value) is None:
        raise _expected("a host name without a scheme and a port, such as web1.example.com", value)
    return value


def _parse_template(value: Any) -> str:
    text: str = _text(value)
    if text not in TEMPLATES and not text.startswith("/"):
        known = ", ".join(TEMPLATES) + near(text, TEMPLATES)
        raise _expected(f"a template by its absolute path (/…), or one that is built in: {known}")
    return text


def _parse_argv(value: Any) -> Any:
    if not isinstance(value, list) or not value:
        found = None if isinstance(value, list) else value
        raise _expected("a list: the program, then its arguments (there is no shell)", found)
    if isinstance(value[0], str) and not value[0].startswith("/"):
        raise _expected("a program by its absolute path (/…)")
    return value


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


def _kind_of_value(value: Any) -> str:
    return "reference" if isinstance(value, dict) else "text"


class _OneOrSeveral:
    """Says in the schema that what stands alone is read as a list of one."""

    def __get_pydantic_json_schema__(
        self, core: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        several = handler.resolve_ref_schema(handler(core))
        return {"anyOf": [several["items"], several]}


SecretReference = Annotated[ReferenceModel, BeforeValidator(_must_be_reference)]
Secrets = Annotated[list[SecretReference], Field(min_length=1, max_length=8), BeforeValidator(_listed), _OneOrSeveral()]
ClientId = Annotated[
    Annotated[Annotated[str, BeforeValidator(_parse_client_id)], Tag("text")]
    | Annotated[ReferenceModel, Tag("reference")],
    Discriminator(_kind_of_value),
]
ParameterValue = Annotated[
    Annotated[str, Tag("text")] | Annotated[ReferenceModel, Tag("reference")], Discriminator(_kind_of_value)
]
Parameters = dict[
    Annotated[str, AfterValidator(_parse_parameter_name)],
    Annotated[list[ParameterValue], BeforeValidator(_parse_parameter), _OneOrSeveral()],
]
Template = Annotated[str, BeforeValidator(_parse_template), _schema(rf"(/.*|{'|'.join(TEMPLATES)})", "nginx")]
Argv = Annotated[list[Text], BeforeValidator(_parse_argv)]
Address = Annotated[Listen, BeforeValidator(_parse_address), _schema(r".+:[0-9]{1,5}", "127.0.0.1:9810")]
HostName = Annotated[str, BeforeValidator(_parse_host_name), _schema(_HOST_NAME.pattern, "web1.example.com")]
Claims = dict[Annotated[str, AfterValidator(_parse_claim_name)], Annotated[Any, BeforeValidator(_must_be_json)]]
Issuer = Annotated[str, BeforeValidator(_parse_issuer), WithJsonSchema({"type": "string", "format": "uri"})]
Separator = Annotated[str, BeforeValidator(_parse_separator), _schema("[ -~]{1,4}", ",")]


class FileModel(Strict):
    """One output."""

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
        if (self.template is not None) != (self.format == "template"):
            raise _expected("template beside format template, and only there")
        if self.format == "template" and self.path is None:
            raise _expected("path beside format template: no name says what it makes")
        if self.vars is not None and self.template is None:
            raise _expected("vars only for format template")
        if self.name is not None and self.format not in {"env", "template"}:
            raise _expected("name only for format env or template")
        if self.newline is not None and self.format != "raw":
            raise _expected("newline only for format raw: the others have their own line ends")
        return self


class FailureHookModel(Strict):
    """What is done when a token stops being renewable: exactly one of run and signal."""

    run: Argv | None = None
    signal: SignalName | None = None
    pid_file: AbsolutePath | None = None
    process: Text | None = None
    timeout: Timeout | None = None

    @model_validator(mode="after")
    def _one_of_two(self) -> FailureHookModel:
        if (self.run is None) == (self.signal is None):
            raise _expected("exactly one of run, signal")
        if self.signal is not None and (self.pid_file is None) == (self.process is None):
            raise _expected("exactly one of pid_file, process beside signal")
        if self.run is not None and (self.pid_file is not None or self.process is not None):
            raise _expected("pid_file and process only beside signal")
        if self.signal is not None and self.timeout is not None:
            raise _expected("timeout only beside run: a signal takes no time")
        return self


class ChangeHookModel(FailureHookModel):
    """What is done after the files of a token changed: exactly one of run and signal."""

    skip_first: bool = False


class Inherited(Strict):
    """What may stand at the top, on a client or on a token; the nearest wins."""

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
    """What several clients share."""


class TokenModel(Inherited):
    """One scope of a client that is kept fresh."""

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


Misfit = tuple[str | None, str]
"""A key that goes against another, None for one that is missing; and what is wrong."""


def provider_misfits(provider: Mapping[str, Any]) -> Iterator[Misfit]:
    """What a provider as it stands in the file lacks, or has twice."""
    yield from _endpoint_misfits(provider, "issuer")


def misfits(client: Mapping[str, Any]) -> Iterator[Misfit]:
    """What a client as it stands in the file lacks, and each key of it that nothing would look at."""
    yield from _endpoint_misfits(client, "issuer", "provider")
    auth = client.get("auth", "client_secret_basic")
    if auth not in get_args(Auth):
        return  # complained of as it is
    grant = client.get("grant_type", "client_credentials")
    has_key = auth == "private_key_jwt" or auth in TLS_AUTHS
    signs_grant = grant == JWT_BEARER and "private_key" in client
    signs = signs_grant or auth in {"client_secret_jwt", "private_key_jwt"}
    needed = {
        "client_id": auth not in {"none", "assertion"},  # an assertion says itself whose it is
        "client_secret": auth in _SECRET_AUTHS,
        "private_key": has_key,
        "certificate": auth in TLS_AUTHS,
        "assertion": auth == "assertion",
    }
    for key, is_needed in needed.items():
        if is_needed and key not in client:
            yield None, f"key '{key}' is missing"
    used = {
        "client_secret": (needed["client_secret"], "client_secret_basic, client_secret_post or client_secret_jwt"),
        "basic_encoding": (auth == "client_secret_basic", "client_secret_basic"),
        "private_key": (
            has_key or grant == JWT_BEARER,
            "private_key_jwt, tls_client_auth or self_signed_tls_client_auth",
        ),
        "certificate": (has_key or signs_grant, "private_key_jwt, tls_client_auth or self_signed_tls_client_auth"),
        "assertion": (auth == "assertion", "assertion"),
        "assertion_type": (auth == "assertion", "assertion"),
        "key_id": (signs, "private_key_jwt"),
        "algorithm": (signs, "private_key_jwt or client_secret_jwt"),
        "assertion_audience": (signs, "private_key_jwt or client_secret_jwt"),
    }
    for key, (is_used, by) in used.items():
        if key in client and not is_used:
            yield key, f"{key} is not used by auth {auth}: expected it only with {by}"
    for key in ("assertion_issuer", "assertion_subject", "assertion_claims", "scope_in"):
        if key in client and not signs_grant:
            yield key, f"expected {key} only with grant_type {JWT_BEARER} and a private_key that signs the assertion"
    algorithm = client.get("algorithm")
    if signs and algorithm in get_args(Algorithm):
        hmac = auth == "client_secret_jwt" and not signs_grant
        if hmac != (algorithm in _HMACS):
            yield (
                "algorithm",
                f"expected one for {'a secret: HS256' if hmac else 'a private key: RS256, PS256, ES256, EdDSA'} …",
            )
    yield from _grant_misfits(client, grant, signs_grant)


def exposed(client: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """Each parameter of a client and its tokens, by its path, that is a secret and stands there as text."""
    for path, parameters in _parameters(client):
        for name in _SECRET_PARAMETERS & parameters.keys():
            if any(isinstance(value, str) for value in _listed(parameters[name])):
                yield (*path, name)


def _parameters(client: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any]]]:
    tokens = client.get("tokens")
    holders: dict[tuple[str, ...], Any] = {(): client}
    holders |= {("tokens", name): token for name, token in (tokens if isinstance(tokens, dict) else {}).items()}
    for path, holder in holders.items():
        parameters = holder.get("parameters") if isinstance(holder, dict) else None
        if isinstance(parameters, dict):
            yield (*path, "parameters"), parameters


def _endpoint_misfits(keys: Mapping[str, Any], *others: str) -> Iterator[Misfit]:
    if "token_url" in keys and "issuer" in keys:
        yield "issuer", "expected either token_url or issuer, not both"
    if "token_url" not in keys and not any(other in keys for other in others):
        yield None, f"key 'token_url' is missing, or {' or '.join(others)} in its place"


def _grant_misfits(client: Mapping[str, Any], grant: Any, signs_grant: bool) -> Iterator[Misfit]:
    if grant != JWT_BEARER:
        return
    holders = {path[:-1] for path, parameters in _parameters(client) if "assertion" in parameters}
    # The client has it for all of its tokens, or each has its own.
    tokens = client.get("tokens")
    ready = () in holders or (isinstance(tokens, dict) and 0 < len(tokens) == len(holders))
    if signs_grant and holders:
        yield (
            "private_key",
            "expected private_key or parameters.assertion, not both: one signs this grant, the other is it",
        )
    if not signs_grant and not ready:
        yield (
            "grant_type",
            "expected private_key beside it, or parameters: {assertion: {file: …}} for one that is ready",
        )
    if signs_grant and "client_id" not in client and "assertion_issuer" not in client:
        yield "grant_type", "expected client_id or assertion_issuer beside it: the assertion names who issues it"


class OutputModel(Strict):
    """Where the files go, and whose they are."""

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
    state_directory: AbsolutePath | None = None
    reload: Literal["watch", "signal"] = "watch"
    startup_timeout: Timeout = 30.0
    output: OutputModel = OutputModel()
    control: ControlModel = ControlModel()
    listen: ListenModel | None = None
    log: LogModel = LogModel()
