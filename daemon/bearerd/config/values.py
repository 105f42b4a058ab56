"""How each kind of value is written in the config: parsers from what YAML gave to what the model holds. Pure.

Each parser raises pydantic's error with what it expected. Where the value is in the file is added in `load`.
"""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Any, Final

from pydantic_core import PydanticCustomError

from bearerd.config.scalar import kind_of
from bearerd.config.suggest import near
from bearerd.model import Listen
from bearerd.redis_address import BadAddressError
from bearerd.redis_address import parse as address_of
from bearerd.terms import HEADER_VALUE, TEMPLATES

# The token request has these already: from other keys of the config, or from bearerd itself.
RESERVED_PARAMETERS: Final = frozenset(
    {"grant_type", "scope", "client_secret", "client_assertion", "client_assertion_type", "subject_token"}
)
# The headers that cannot be set, in lower case, each with the reason.
_OWN_HEADERS: Final = {
    "authorization": "bearerd sets it from auth, client_id and client_secret",
    "content-type": "bearerd sets it from the key body",
    "proxy-authorization": "it would be sent to the provider; use proxy: {url: …, username: …, password: {file: …}}",
    **dict.fromkeys(
        ("content-length", "host", "transfer-encoding", "connection"), "bearerd sets it for each connection"
    ),
}
# The claims that bearerd sets itself, and what to do instead. RFC 7523 section 3 says what the
# first four have to be in an assertion that authenticates a client.
_OWN_CLAIMS: Final = {
    "iss": "it is the client id; in the jwt-bearer grant, use the key assertion_issuer",
    "sub": "it is the client id; in the jwt-bearer grant, use the key assertion_subject",
    "aud": "use the key assertion_audience",
    "exp": "bearerd sets it",
    "iat": "bearerd sets it",
    "jti": "bearerd sets it",
    "scope": "use the key scope, and scope_in: assertion",
}
_LAST_PORT: Final = 65535
# To chown(2), the number after it means "no change".
_LAST_ID: Final = 2**32 - 2
_ID_DIGITS: Final = len(str(_LAST_ID))
# Labels as in DNS, and `_`, which names of Compose's services have. Browsers send other names as xn--….
_LABEL: Final = "[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
# Names of fields in a reply, at most eight levels deep: real replies have three.
TOKEN_FIELD: Final = re.compile(r"[!-\-/-~]{1,64}(\.[!-\-/-~]{1,64}){0,7}")
HOST_NAME: Final = re.compile(rf"(?=.{{1,254}}$){_LABEL}(\.{_LABEL})*\.?")


def expected(what: str, value: Any = None) -> PydanticCustomError:
    """An error with what was expected, and the kind of value that was found (never the value itself)."""
    found = "" if value is None or isinstance(value, str) else f", found {kind_of(value)}"
    return fault(f"expected {what}{found}")


def fault(message: str) -> PydanticCustomError:
    """An error with this message."""
    # Pydantic takes a template: braces in the message itself would be read as fields.
    return PydanticCustomError("fault", "{message}", {"message": message})


def exposed(message: str) -> PydanticCustomError:
    """The error for a secret in the config."""
    return PydanticCustomError("exposed", "{message}", {"message": message})


def _no_nul(value: str) -> str:
    if "\0" in value:
        raise expected("text without NUL characters")
    return value


def parse_text(value: Any) -> Any:
    """A text that is not empty."""
    if not isinstance(value, str):
        raise expected("text" + ("" if isinstance(value, dict | list) or value is None else " in quotes"), value)
    if not value:
        raise expected("text, found an empty string")
    return _no_nul(value)


def parse_scope(value: Any) -> tuple[str, ...]:
    """Scopes as one text or a list; RFC 6749 section 3.3."""
    items = value if isinstance(value, list) else [value]
    for item in items:
        if not isinstance(item, str):
            raise expected("a scope, or a list of scopes", item)
        # RFC 6749 3.3: printable ASCII without quote and backslash; the space separates.
        if not item or re.fullmatch(r"[\x21\x23-\x5b\x5d-\x7e]+( [\x21\x23-\x5b\x5d-\x7e]+)*", item) is None:
            raise expected("scopes of printable ASCII characters, separated by single spaces (RFC 6749 section 3.3)")
    return tuple(word for item in items for word in item.split(" "))


def parse_parameter_name(value: str) -> str:
    """The name of an additional parameter of the token request."""
    if value in RESERVED_PARAMETERS:
        raise fault(f"parameter '{value}' cannot be set here: bearerd sets it from other keys")
    if not value:
        raise expected("the name of a parameter, found an empty string")
    return value


def parse_parameter(value: Any) -> list[Any]:
    """The values of one parameter: texts or references."""
    values = value if isinstance(value, list) else [value]
    for item in values:
        if not isinstance(item, str | dict):
            raise expected("text in quotes, a reference such as {file: …}, or a list of these", item)
    if not values:
        raise expected("text, or a list with at least one text")
    return values


def parse_header_name(value: str) -> str:
    """The name of an additional header of requests (RFC 9110 section 5.1)."""
    if value.lower() in _OWN_HEADERS:
        raise fault(f"header '{value}' cannot be set here: {_OWN_HEADERS[value.lower()]}")
    if re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", value) is None:
        raise expected("the name of a header: letters, digits and '-', without spaces and ':'")
    return value


def parse_header_value(value: Any) -> str:
    """The value of a header that is given as text."""
    if not isinstance(value, str):
        raise expected("text in quotes, or a reference such as {file: …}", value)
    if re.fullmatch(HEADER_VALUE, value) is None:
        raise expected("the value of a header: printable ASCII characters on one line, without spaces at its ends")
    return value


def parse_headers(value: dict[str, Any]) -> dict[str, Any]:
    """Headers, whose names are compared without regard to case."""
    seen: set[str] = set()
    for name in value:
        if name.lower() in seen:
            raise fault("a header is there twice: upper and lower case are the same")
        seen.add(name.lower())
    return value


def parse_claim_name(value: str) -> str:
    """The name of an additional claim of an assertion."""
    if value in _OWN_CLAIMS:
        raise fault(f"claim '{value}' cannot be set here: {_OWN_CLAIMS[value]}")
    return value


def parse_json_value(value: Any) -> Any:
    """A value that JSON can express, without null."""
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            parse_json_value(item)
    elif not isinstance(value, str | int | float | bool):
        raise expected("text, a number, true or false, a list or a mapping", value)
    return value


def parse_token_field(value: Any) -> str:
    """The path to the token in a reply: names separated by dots."""
    if not isinstance(value, str) or TOKEN_FIELD.fullmatch(value) is None:
        raise expected("the name of a field, or up to 8 names separated by dots, such as data.access_token", value)
    return value


def parse_separator(value: Any) -> str:
    """The text between scopes in a request."""
    if not isinstance(value, str) or re.fullmatch(r"[\x20-\x7e]{1,4}", value) is None:
        raise expected('a separator of 1 to 4 printable characters, such as " " or ","', value)
    return value


def as_list(value: Any) -> Any:
    """A list; anything else as its only item."""
    return value if isinstance(value, list) else [value]


def parse_redis(value: Any) -> Any:
    """Refuse the URL of a server in place of the mapping that contains it."""
    if isinstance(value, str):
        raise expected("a mapping, found text; for example {url: rediss://redis.example.com:6379/0}")
    return value


def parse_redis_url(value: Any) -> str:
    """The URL of a Redis server that is given as text, and so without a login."""
    if not isinstance(value, str):
        raise expected("a URL, or a reference such as {file: /etc/bearerd/redis.url}", value)
    try:
        address = address_of(value)
    except BadAddressError as error:
        raise expected(str(error)) from None
    if address.username is not None or address.password is not None:
        raise exposed(
            "a URL with a login is a secret: write url: {file: /etc/bearerd/redis.url}, or use the keys username and "
            "password"
        )
    return value


def parse_redis_user(value: Any) -> str:
    """A user name for a Redis server."""
    text: str = parse_text(value)
    # The server's rule for names of users: no spaces and no NUL.
    if re.search(r"[\s\x00]", text):
        raise expected("a user name without spaces")
    return text


def parse_proxy_user(value: Any) -> str:
    """The user name for a proxy."""
    text: str = parse_text(value)
    if re.search(r"[:\x00-\x1f\x7f]", text):
        raise expected("a user name without ':' and control characters (RFC 7617)")
    return text


def parse_client_id(value: Any) -> str:
    """A client id that is given as text."""
    return str(parse_text(value))


def parse_account(value: Any) -> str:
    """A user or group, by name or number."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _LAST_ID:
        return str(value)
    if not isinstance(value, str) or not value:
        raise expected("the name or number of a user or group", value)
    if value.isdecimal() and not (value.isascii() and len(value) <= _ID_DIGITS and int(value) <= _LAST_ID):
        raise expected(f"the name of a user or group, or its number up to {_LAST_ID}")
    return _no_nul(value)


def parse_address(value: Any) -> Listen:
    """An IP address and a port."""
    # A zone is the name of a network interface: 15 bytes on Linux.
    form = r"(\[([0-9A-Fa-f:.]+(?:%[A-Za-z0-9._-]{1,15})?)\]|([0-9.]+)):([0-9]{1,5})"
    match = re.fullmatch(form, value) if isinstance(value, str) else None
    try:
        host = str(ip_address(match[2] or match[3])) if match else ""
    except ValueError:
        host = ""
    if match is None or not host or (":" in host) != bool(match[2]) or int(match[4]) > _LAST_PORT:
        # A name would have to be resolved, and could resolve to another address tomorrow.
        raise expected('an IP address and a port in quotes, such as "127.0.0.1:9810" or "[::1]:9810"', value)
    return Listen(host=host, port=int(match[4]))


def parse_host_name(value: Any) -> str:
    """A name that a request's `Host` may have."""
    if not isinstance(value, str) or HOST_NAME.fullmatch(value) is None:
        raise expected("a host name without scheme and port, such as web1.example.com", value)
    return value


def parse_template(value: Any) -> str:
    """The path of a template, or the name of a built-in one."""
    text: str = parse_text(value)
    if text not in TEMPLATES and not text.startswith("/"):
        known = ", ".join(TEMPLATES) + near(text, TEMPLATES)
        raise expected(f"the absolute path of a template (/…), or a built-in one: {known}")
    return text


def parse_argv(value: Any) -> Any:
    """A program and its arguments."""
    if not isinstance(value, list) or not value:
        found = None if isinstance(value, list) else value
        raise expected(
            "a list of the program and its arguments, such as [/usr/bin/systemctl, reload, nginx] (there is no shell)",
            found,
        )
    if isinstance(value[0], str) and not value[0].startswith("/"):
        raise expected("the absolute path of a program (/…)")
    return value


def parse_reference(value: Any) -> Any:
    """Refuse a secret that is given as text."""
    if not isinstance(value, dict):
        if isinstance(value, str) and re.fullmatch(r"/[^\s]{1,255}", value):
            raise expected("a reference: a secret in a file is written {file: /…}")
        raise expected(
            "a reference such as {file: /etc/bearerd/client.secret}, {env: NAME}, {credential: NAME} or "
            "{command: [argv…]}, never the secret itself"
        )
    return value


def parse_absolute_path(value: Any) -> str:
    """An absolute path."""
    text: str = parse_text(value)
    if not text.startswith("/"):
        hint = {"~": "; ~ is not expanded", "$": "; variables are not expanded"}.get(text[0], "")
        raise expected(f"an absolute path (/…){hint}")
    return text


def parse_output_path(value: str) -> str:
    """A path for tokens. Hooks get the paths in one variable, one on each line."""
    if re.search(r"[\x00-\x1f\x7f-\x9f]", value):
        raise expected("a path without line breaks and other control characters")
    return value
