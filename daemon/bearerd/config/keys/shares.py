"""The keys of a share, and of the server behind it. Pure."""

from __future__ import annotations

from typing import Final

from bearerd.config.keys.key import Key

SHARES: Final = {
    "share": Key(
        "A Redis or Valkey server through which the daemons on several machines share the tokens of a client. One of "
        "them requests a token, and the others use it; each daemon writes its own files. Set it if the provider bills "
        "or limits requests, or if a new token ends the one before it. Tokens are encrypted there. They stay valid "
        "and are refreshed if the server fails. It needs the extra `redis`. A client may have a `share` of its "
        "own, which replaces all of the one at the top level. See docs/fleet.md.",
        without="none; each daemon requests its own tokens",
        examples=({"redis": {"url": "rediss://redis.example.com:6379/0"}, "key": {"file": "/etc/bearerd/share.key"}},),
    ),
    "redis": Key(
        "The server, or the sentinels that know it. Required.",
        examples=({"url": {"file": "/etc/bearerd/redis.url"}, "prefix": "billing"},),
    ),
    "when_unavailable": Key(
        "What the daemon does while it cannot use the server. `alone`: it requests its tokens itself. `wait`: it keeps "
        "a valid token, and requests one itself only 15 to 30 s before that expires. Set `wait` if a new token ends "
        "the one before it, which other machines still use. Without a valid token, the daemon requests one at once in "
        "both cases.",
        default="alone",
        examples=("wait",),
    ),
    "key": Key(
        "A reference to the key that encrypts what is stored, at least 32 bytes long and the same on all machines; "
        "`openssl rand -hex 32` makes one. Required for a client without a `client_secret`. Set it if the secret "
        "differs between machines, or is shorter than 16 bytes. To replace the key, replace it on all machines: "
        "until a machine has the new one, it requests its own tokens.",
        without="the `client_secret`; while it is a list, the first one encrypts, and each one decrypts",
        examples=({"file": "/etc/bearerd/share.key"},),
    ),
    "RedisModel.url": Key(
        "The URL of the server, as text or, if it contains a password, as a reference: `redis://`, `rediss://` (TLS), "
        "or `unix://` with the path of a socket. For Redis Sentinel: `redis+sentinel://HOST,HOST/SERVICE/0` or "
        "`rediss+sentinel://`. It is read again for each connection.",
        examples=(
            "rediss://redis.example.com:6379/0",
            "unix:///run/redis/redis-server.sock",
            {"file": "/etc/bearerd/redis.url"},
        ),
    ),
    "RedisModel.ca_file": Key(
        "A PEM file with the certificate authorities to trust for this server, instead of those of the system. It only "
        "applies to TLS.",
        without="the authorities that the system trusts",
        examples=("/etc/ssl/redis-ca.pem",),
    ),
    "RedisModel.username": Key(
        "The user at the server (ACL). It replaces the one in `url`.",
        without="the one in `url`, else the user `default` of the server",
        examples=("bearerd",),
    ),
    "RedisModel.password": Key(
        "A reference to the password. It is read again for each connection, and replaces the one in `url`.",
        without="the one in `url`, else none",
        examples=({"file": "/etc/bearerd/redis.password"},),
    ),
    "prefix": Key(
        "The prefix of the keys and the channel in the server: up to 64 letters, digits, `.`, `_`, `:` and `-`. All "
        "daemons of a fleet need the same one. Set it if several fleets use one server, so that an ACL can separate "
        "them.",
        default="bearerd",
        examples=("billing",),
    ),
    "RedisModel.timeout": Key(
        "How long the server may take for a connection, and for each answer: 100ms to 30s. A due token waits that long "
        "before the daemon goes on as `when_unavailable` says.",
        default="2s",
        examples=("500ms",),
    ),
}
