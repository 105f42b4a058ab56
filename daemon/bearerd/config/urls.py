"""Parses the URLs of providers and proxies in a config. Pure."""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

from bearerd.config.values import expected

# Where issuers publish their metadata (RFC 8414 section 3, OpenID Connect Discovery 1.0 section 4).
_METADATA: Final = re.compile(r"/\.well-known/(openid-configuration|oauth-authorization-server)")
# How documentation marks the parts of a URL that differ. No URL has these characters (RFC 3986).
_PLACEHOLDER: Final = re.compile("[<>{}]")


def parse_issuer(value: Any) -> str:
    """An issuer's URL; RFC 8414 section 2."""
    url = str(parse_url(("https", "http"))(value))
    if "?" in url:
        raise expected("an issuer without a query (RFC 8414 section 2)")
    if _METADATA.search(url):
        raise expected("the issuer without /.well-known/…, which bearerd adds")
    return url


def parse_token_url(value: Any) -> str:
    """The URL of a token endpoint."""
    url = str(parse_url(("https", "http"))(value))
    if _METADATA.search(url):
        raise expected("the token endpoint, found the URL of its metadata: use the key issuer instead")
    return url


def parse_url(schemes: tuple[str, ...]) -> Any:
    """A parser of URLs with one of these schemes."""
    wanted = " or ".join(f"{scheme}://…" for scheme in schemes)

    def parse(value: Any) -> str:
        if not isinstance(value, str):
            raise expected(f"a URL, {wanted}", value)
        try:
            parts = urlsplit(value)
            port = parts.port
        except ValueError:
            raise expected(f"a URL, {wanted}") from None
        if _PLACEHOLDER.search(value) or "$" in parts.netloc:
            raise expected("a URL in which each placeholder (<…>, {…} or $NAME) has been replaced by its value")
        _check_host(parts)
        if re.search(r"%(?![0-9A-Fa-f]{2})", value):
            raise expected("a URL in which % is followed by two hexadecimal digits; % itself is %25")
        if re.search(r"\s", value):
            raise expected("a URL without spaces and line ends")
        if re.search(r"[^\x21-\x7e]", value):
            raise expected("a URL in ASCII: the host as xn--…, and other characters encoded as %XX")
        if parts.scheme not in schemes or not parts.hostname:
            raise expected(f"a URL, {wanted}")
        if parts.username is not None or parts.password is not None:
            raise expected("a URL without a user name and password")
        if "#" in value or port == 0:
            raise expected("a URL without a fragment (#…)" if "#" in value else "a port other than 0")
        return value

    return parse


def _check_host(parts: SplitResult) -> None:
    host = parts.netloc.rpartition("@")[2]
    if "[" in host and not _is_ip_address(parts.hostname):
        raise expected("a URL with an IPv6 address in its brackets")
    if "%" in host and not re.match(r"\[[^%]+%25[A-Za-z0-9._~-]+\]", host):
        raise expected("a URL without % in its host; before the zone of an IPv6 address it is %25")


def _is_ip_address(host: str | None) -> bool:
    try:
        ip_address(host or "")
    except ValueError:
        return False
    return True


def parse_proxy(value: Any) -> str:
    """The URL of a proxy."""
    if isinstance(value, str) and re.match(r"[a-z0-9]+://[^/?#]*@", value):
        raise expected(
            "a URL without a user name and password: write {url: …, username: …, password: {file: …}} as the proxy"
        )
    return str(parse_url(("http", "https", "socks5", "socks5h"))(value))
