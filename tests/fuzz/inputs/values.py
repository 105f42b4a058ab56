"""Single values of the config: durations, rates, modes, URLs, names and scopes."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

from pydantic_core import PydanticCustomError

from bearerd.config import quantities, urls, values
from bearerd.config.scalar import read_plain
from bearerd.model import Listen, RefreshBefore
from bearerd.redis_address import SCHEMES
from bearerd.terms import MOST_REFUSED, RateLimit
from bearerd.timeformat import duration, seconds_of
from fuzz.target import Target

_TEN_YEARS = 3650 * 86400.0


def _seconds(least: float, most: float) -> Callable[[Any], bool]:
    return lambda found: isinstance(found, float) and least <= found <= most


def _lead(found: Any) -> bool:
    share, seconds = (found.share, found.seconds) if isinstance(found, RefreshBefore) else (None, None)
    return 0 < (share or 0.1) <= 0.5 and 0 <= (seconds or 0) <= _TEN_YEARS


def _rate(found: Any) -> bool:
    return isinstance(found, RateLimit) and 0 < found.count < 10**9 and 0 < found.window <= _TEN_YEARS


def _refused(found: Any) -> bool:
    return _rate(found) and found.count <= MOST_REFUSED.count and found.window <= MOST_REFUSED.window


def _mode(most: int) -> Callable[[Any], bool]:
    return lambda found: type(found) is int and 0 <= found <= most


def _text(found: Any) -> bool:
    return isinstance(found, str) and found != "" and "\0" not in found


def _url(found: Any) -> bool:
    """A URL that goes into a request line as it is."""
    return isinstance(found, str) and found.isascii() and found.isprintable() and " " not in found and "#" not in found


def _listen(found: Any) -> bool:
    return isinstance(found, Listen) and 0 <= found.port < 65536 and found.host.isascii()


def _words(found: Any) -> bool:
    return isinstance(found, tuple) and all(word and word.isascii() and word.isprintable() for word in found)


_PARSERS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], bool]]] = {
    "duration": (quantities.parse_duration, _seconds(1e-9, _TEN_YEARS)),
    "timeout": (quantities.parse_timeout, _seconds(1e-9, 86400.0)),
    "store_timeout": (quantities.parse_store_timeout, _seconds(0.1, 30.0)),
    "lead": (quantities.parse_refresh_before, _lead),
    "rate": (quantities.parse_rate_limit, _rate),
    "refused": (quantities.parse_refused_limit, _refused),
    "max_age": (quantities.parse_max_age, _seconds(60.0, math.inf)),
    "delay": (quantities.parse_publish_delay, _seconds(0.0, 3600.0)),
    "spread": (quantities.parse_startup_spread, _seconds(0.0, 3600.0)),
    "mode": (quantities.parse_mode, _mode(0o777)),
    "directory_mode": (quantities.parse_directory_mode, _mode(0o2777)),
    "text": (values.parse_text, _text),
    "scope": (values.parse_scope, _words),
    "header": (values.parse_header_value, lambda found: found.isascii() and found.replace("\t", "").isprintable()),
    "header_name": (
        lambda value: values.parse_header_name(str(value)),
        lambda found: found.isascii() and " " not in found,
    ),
    "token_url": (urls.parse_token_url, _url),
    "issuer": (urls.parse_issuer, _url),
    "proxy": (urls.parse_proxy, _url),
    "redis_url": (values.parse_redis_url, lambda found: found.startswith(SCHEMES) and "@" not in found.split("/")[2]),
    "token_field": (values.parse_token_field, lambda found: len(found.split(".")) <= 8),
    "separator": (values.parse_separator, lambda found: 1 <= len(found) <= 4),
    "account": (values.parse_account, _text),
    "address": (values.parse_address, _listen),
    "host": (values.parse_host_name, lambda found: found.isascii() and len(found) <= 254),
    "template": (values.parse_template, _text),
    "path": (values.parse_absolute_path, lambda found: _text(found) and found.startswith("/")),
    "argv": (values.parse_argv, lambda found: isinstance(found, list) and bool(found)),
    "json": (values.parse_json_value, lambda found: bool(json.dumps(found))),
    "reference": (values.parse_reference, lambda found: isinstance(found, dict)),
}


def check_value(data: bytes) -> None:
    """`duration 10s`: a kind, and a value as YAML would read it without quotes, or with them."""
    kind, _, text = data.decode("utf-8", "replace").partition(" ")
    parse, good = _PARSERS.get(kind) or _PARSERS["duration"]
    scalar = read_plain(text)
    assert "\n" not in scalar.quiet_fault
    for value in (scalar.value, text, [text], {text: text}, [scalar.value]):
        try:
            found = parse(value)
        except PydanticCustomError as error:
            assert error.message(), "an error without a message"
            continue
        assert good(found), f"{kind} gave {found!r}"
    seconds = seconds_of(text)
    if seconds is not None and math.isfinite(seconds):
        assert duration(seconds)


_GOOD = {
    "duration": "15m", "timeout": "10s", "store_timeout": "500ms", "lead": "20%", "rate": "10/8h", "refused": "4/2m",
    "max_age": "never", "delay": "0s", "spread": "1h", "mode": "0640", "directory_mode": "2750", "text": "a",
    "scope": "bci read", "header": "a b", "header_name": "X-Key", "token_url": "https://p.example.com:8443/token?a=%20",
    "issuer": "https://[::1]/realm", "proxy": "socks5h://proxy:1080", "redis_url": "redis+sentinel://a,b/s/0",
    "token_field": "data.access_token", "separator": ",", "account": "1000", "address": "[::1]:9810",
    "host": "a.example.com.",
    "template": "curlrc", "path": "/etc/x", "argv": "/bin/true", "json": "1.5", "reference": "/etc/secret",
}  # fmt: skip
_SEEDS = tuple(f"{kind} {text}".encode() for kind, text in _GOOD.items())
_WORDS = (
    *(f"{kind} ".encode() for kind in _PARSERS),
    *(
        b"ms",
        b"s",
        b"m",
        b"h",
        b"d",
        b"%",
        b"/",
        b"//",
        b"://",
        b"@",
        b"[",
        b"]",
        b":",
        b"\\",
        b"0o",
        b"0x",
        b"_",
        b"1e400",
        b".inf",
    ),
    *(
        b"https://",
        b"http://",
        b"redis://",
        b"never",
        b"true",
        b"null",
        b"2026-11-29",
        b"12:30:45",
        b"<<",
        b"=",
        b"\xc2\xa0",
        b"%25",
    ),
    *(
        b"\xe2\x80\x9c",
        b"\xd9\xa3",
        b"\xef\xbc\x91",
        b"\xe2\x84\xaa",
        b"[v1.a]",
        b"[::1%25eth0]",
        b"minutes",
        b"9" * 320,
    ),
)

TARGETS = (Target("value", "single values: durations, rates, modes, URLs", check_value, _SEEDS, _WORDS, longest=512),)
