"""The keys of a provider, which a client may have too. Pure."""

from __future__ import annotations

from typing import Final

from bearerd.config.keys.key import Key

PROVIDERS: Final = {
    "token_url": Key(
        "The token endpoint. Either this or `issuer` is required.",
        examples=("https://login.bisnode.com/as/token.oauth2",),
    ),
    "issuer": Key(
        "The issuer, exactly as the provider's metadata writes it. bearerd finds the token endpoint in the metadata "
        "(RFC 8414, OpenID Connect Discovery). Use it instead of `token_url`, not together with it.",
        examples=("https://sso.example.com/realms/acme",),
    ),
    "ca_file": Key(
        "A PEM file with the certificate authorities to trust for this provider, instead of those of the system. Set "
        "it if an internal authority issued the provider's certificate. A changed file is used automatically.",
        without="the authorities that the system trusts",
        examples=("/etc/ssl/acme-ca.pem",),
    ),
    "tls_certificate": Key(
        "A reference to the client certificate for the connection (mTLS), in PEM, with its chain. You can combine it "
        "with any `auth`; banks often require both. On a provider, it is also used to fetch the metadata of an "
        "`issuer`; on a client, only for token requests. A changed certificate is used at the next request.",
        without="none",
        examples=({"file": "/etc/bearerd/acme.crt"},),
    ),
    "tls_private_key": Key(
        "A reference to the private key of `tls_certificate`, in PEM. Set both or neither.",
        without="none",
        examples=({"file": "/etc/bearerd/acme.key"},),
    ),
    "headers": Key(
        "Additional headers of the token request, such as the key of an API gateway. Values are text or references. "
        "On a provider, they are also sent when bearerd fetches the metadata of an `issuer`. `Authorization`, "
        "`Content-Type`, `Content-Length`, `Host`, `Transfer-Encoding`, `Connection` and `Proxy-Authorization` cannot "
        "be set.",
        default={},
        examples=({"X-Tenant": "acme", "X-Api-Key": {"file": "/etc/bearerd/gateway.key"}},),
    ),
    "body": Key(
        "How the parameters of the request are sent. `form`: as a form, as RFC 6749 requires. `json`: as one JSON "
        "object, for the few providers that document it.",
        default="form",
        examples=("json",),
    ),
    "proxy": Key(
        "A proxy for all requests to this provider. Its URL begins with `http`, `https`, `socks5`, or `socks5h` (the "
        "proxy then also resolves host names). SOCKS needs the extra `socks`. For a proxy with a login, use a mapping "
        "of `url`, `username` and `password`.",
        without="none; `$HTTPS_PROXY` and similar variables are never used",
        examples=(
            "http://proxy.example.com:3128",
            {
                "url": "https://proxy.example.com:3128",
                "username": "bearerd",
                "password": {"file": "/etc/bearerd/proxy.secret"},
            },
        ),
    ),
    "timeout": Key(
        "The time for one request, from the name look-up to the last byte of the reply. Raise it for a slow provider: "
        "if a refusal arrives after the timeout, bearerd cannot tell it from an outage.",
        default="10s",
        examples=("30s",),
    ),
    "max_concurrency": Key(
        "How many requests may be in flight to this provider at the same time, from all of its clients together. "
        "Lower it if the provider fails when a start requests many tokens.",
        default=8,
        examples=(2,),
    ),
    "rate_limit": Key(
        "How many requests may be sent in a period. The limit holds for every period of that length, also across "
        "restarts. If it is too low for the number of tokens, they are refreshed at even intervals, as late as "
        "possible. If a client and its provider both have a limit, both apply.",
        without="no limit",
        examples=("10/s", "10/8h"),
    ),
    "refused_limit": Key(
        "How many attempts of one client the provider may refuse in a period before bearerd stops sending more. It "
        "holds across restarts. Lower it if the provider locks an account after fewer refused attempts. It is at most "
        "100 attempts, in a period of at most a day.",
        default="4/2m",
        examples=("2/15m",),
    ),
    "allow_http": Key(
        "`true`: plain http is allowed, but only to this machine (`localhost` or a loopback address). For tests, or a "
        "TLS proxy on this machine.",
        default=False,
        examples=(True,),
    ),
    "token_field": Key(
        "The field of the reply that contains the token, or a dotted path to it, up to 8 names deep. Lifetime, type "
        "and scope are read from the object that contains this field. With `id_token`, the files contain the ID token.",
        default="access_token",
        examples=("data.access_token", "id_token"),
    ),
    "ProxyModel.url": Key("The URL of the proxy, without a login.", examples=("https://proxy.example.com:3128",)),
    "ProxyModel.username": Key("The user name at the proxy, without `:`.", examples=("bearerd",)),
    "ProxyModel.password": Key(
        "A reference to the password. It is read again at each request.",
        examples=({"file": "/etc/bearerd/proxy.secret"},),
    ),
}
