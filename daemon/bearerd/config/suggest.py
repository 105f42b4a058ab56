"""Which known name was probably meant by another one. Pure."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Final

# With this cutoff "secret" suggests client_secret, but "listen" does not suggest clients.
_CUTOFF = 0.62
# Keys of Prometheus, the OpenTelemetry Collector, OAuth libraries and discovery documents that mean a key of bearerd.
_OF_OTHERS: Final = {
    **dict.fromkeys(("token_endpoint", "token_uri", "endpoint", "url", "uri"), "token_url"),
    **dict.fromkeys(("issuer_url", "authority", "discovery_url"), "issuer"),
    **dict.fromkeys(("endpoint_params", "extra_params", "params", "audience", "resource"), "parameters"),
    **dict.fromkeys(("username", "user", "app_id", "consumer_key"), "client_id"),
    **dict.fromkeys(("password", "secret_file", "app_secret", "consumer_secret"), "client_secret"),
    **dict.fromkeys(("insecure_skip_verify", "verify", "tls", "tls_config", "ca_cert"), "ca_file"),
    "scopes": "scope",
}
# The same for the keys of a share, as clients of Redis name them.
_OF_REDIS: Final = {
    **dict.fromkeys(("valkey", "server", "url"), "redis"),
    **dict.fromkeys(("host", "hostname", "address", "uri", "dsn", "port", "db", "database", "socket"), "url"),
    **dict.fromkeys(("sentinel", "sentinels", "service", "master", "master_name"), "url"),
    **dict.fromkeys(("user", "acl_user"), "username"),
    **dict.fromkeys(("key_prefix", "namespace", "channel"), "prefix"),
    **dict.fromkeys(("key_file", "keyfile", "encryption_key"), "key"),
}
# Of a word in a name: "mtls" suggests tls_client_auth.
_CUTOFF_OF_WORD = 0.8


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that was probably meant."""
    known = list(known)
    for meant in (of_others(name), _OF_REDIS.get(_plain(name))):
        if meant in known:
            return meant
    plain = {_plain(each): each for each in known}
    for close in difflib.get_close_matches(_plain(name), plain, n=3, cutoff=_CUTOFF):
        if _same_words(_plain(name), close):
            return plain[close]
    return None


def of_others(name: str) -> str | None:
    """The key of bearerd that means the same as this key of another program."""
    return _OF_OTHERS.get(_plain(name))


def near(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` if a known name is similar, else an empty text."""
    found = nearest(name, known)
    return f"; did you mean '{found}'?" if found else ""


def near_value(value: str, known: Iterable[str]) -> str:
    """The same for a value of a fixed set: also those that have the value as one of their words."""
    plain, known = _plain(value), list(known)
    words = {each: _plain(each).split("_") for each in known}
    found = (
        [each for each in known if _plain(each) == plain]
        or [each for each in known if plain in words[each]]
        or [each for each in known if _plain(each).startswith(f"{plain}_")]
        or [each for each in [nearest(value, known)] if each]
        or [each for each in known if _is_close(plain, words[each], _CUTOFF_OF_WORD)]
    )
    shown = " or ".join(f"'{each}'" for each in found)
    return f"; did you mean {shown}?" if found else ""


def _same_words(name: str, other: str) -> bool:
    """Whether one name has all words of the other: `token_path` is similar to `token_url`, and means something else."""
    words, others = name.split("_"), other.split("_")
    contains = len(others) > 1 and all(_is_close(word, words, _CUTOFF) for word in others)
    return contains or all(_is_close(word, others, _CUTOFF) for word in words)


def _is_close(word: str, words: list[str], cutoff: float) -> bool:
    return bool(difflib.get_close_matches(word, words, cutoff=cutoff))


def _plain(name: str) -> str:
    """A name as the config writes it: `clientId` and `client-id` are `client_id`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower().replace("-", "_")
