"""One daemon's config that uses every kind of secret at once, with a mark in each."""

from __future__ import annotations

import base64
import json
import os
import ssl
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import trustme
import yaml

from canary.marks import Marks
from canary.provider import REPLIES, Provider
from fleet.secured import rule
from support.fronts import microsocks, tinyproxy
from support.oidc import pem, private_key
from support.ports import free_port
from support.redis_liar import answering, usual
from support.redis_server import RedisServer, redis_server

ENVIRONMENT: Final = "secret in the environment"
"""The kind of the secrets that the daemon is given in environment variables: they belong there, and nowhere else."""
TOKEN: Final = "token"
_PLAIN: Final = "-_~."
"""Characters that a header, a URL and a config file of another program take as they are."""
_TEMPLATES: Final = {
    "undefined": "{{ {}[access_token] }}",
    "calls": "{{ access_token.nothing_like_this() }}",
    "sum": "{{ [access_token] | sum }}",
    "divides": "{{ 1 // 0 }} {{ access_token }}",
    "quoted": "{{ [access_token] | quoted }}",
    "format": "{{ '%d' | format(access_token) }}",
    "good": "token = {{ access_token | tojson }}\n",
}
"""All but the last fail when they are rendered, with the token in the text of the exception."""
_HOOK: Final = """#!/bin/sh
{{ tr '\\0' '\\n' </proc/$$/environ; tr '\\0' '\\n' </proc/$$/cmdline; ls -l /proc/$$/fd; echo "$@"; }} >>{seen}
exit {code}
"""


class _WithoutAliases(yaml.SafeDumper):
    """Writes equal values again: bearerd refuses aliases."""

    def ignore_aliases(self, _data: object) -> bool:
        return True


@dataclass
class Site:
    """The directory of a daemon, everything that it talks to, and its marks."""

    path: Path
    marks: Marks
    provider: Provider
    tls: Provider
    redis: RedisServer
    environ: dict[str, str]
    config: dict[str, Any]
    listen: int

    @property
    def tokens(self) -> Path:
        """The output directory."""
        return self.path / "tokens"

    @property
    def secrets(self) -> Path:
        """The directory of secret files: all marks but tokens belong there."""
        return self.path / "secrets"

    @property
    def hooks_saw(self) -> Path:
        """What hooks and secret commands found in their environment, arguments and descriptors."""
        return self.path / "hooks-saw"

    @property
    def file(self) -> Path:
        """The config file."""
        return self.path / "config.yaml"

    @property
    def socket(self) -> Path:
        """The control socket."""
        return self.tokens / ".bearerd/control.sock"

    def write(self, config: Mapping[str, Any] | None = None) -> Path:
        """Write the config, or another one; its path."""
        self.file.touch(0o600)  # it holds marks in texts, such as a claim
        whole = dict(config or self.config)
        self.file.write_text(yaml.dump(whole, Dumper=_WithoutAliases, sort_keys=False, allow_unicode=True))
        return self.file

    def secret(self, name: str, kind: str, hard: str | None = None, text: str = "") -> dict[str, str]:
        """A reference to a new secret in a file."""
        if text:
            self.marks.keep(kind, text)
        else:
            text = self.marks.make(kind) if hard is None else self.marks.make(kind, hard)
        file = self.secrets / name
        file.touch(0o600)
        file.write_text(text)
        return {"file": str(file)}

    def script(self, name: str, code: int = 0, more: str = "") -> str:
        """A program that notes its surroundings; its path."""
        script = self.path / name
        script.write_text(_HOOK.format(seen=self.hooks_saw, code=code).replace("exit", f"{more}\nexit"))
        script.chmod(0o755)
        return str(script)

    def client(self, name: str, more: Mapping[str, Any], tls: bool = False) -> dict[str, Any]:
        """A client of the provider, which recognizes it by the path."""
        url = (self.tls if tls else self.provider).url
        known: dict[str, Any] = {"token_url": f"{url}/{name}", "allow_http": True, "timeout": "3s", "client_id": name}
        if tls:
            known |= {"ca_file": str(self.path / "ca.pem")}
        return {**known, "tokens": {"t": {"scope": "read"}}, **more}


@contextmanager
def site(path: Path, marks: Marks, level: Mapping[str, str]) -> Iterator[Site]:
    """Everything that runs beside the daemon, and the config; `level` is its `log`."""
    with ExitStack() as stack:
        path.chmod(0o755)
        (path / "secrets").mkdir(mode=0o700)
        authority = trustme.CA()
        authority.cert_pem.write_to_path(path / "ca.pem")
        provider, tls = Provider(marks.keep), Provider(marks.keep, _mutual(authority))
        for one in (provider, tls):
            stack.callback(one.stop)
        password = marks.make("Redis password", _PLAIN.replace("~", ""))
        redis = stack.enter_context(redis_server(acl=[rule(password)]))
        here = Site(path, marks, provider, tls, redis, {}, {}, free_port())
        here.config = _config(here, authority, password, level, stack)
        yield here


def _mutual(authority: trustme.CA, name: str = "127.0.0.1") -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    context.verify_mode = ssl.CERT_OPTIONAL
    authority.configure_trust(context)
    return context


def _config(
    here: Site, authority: trustme.CA, password: str, level: Mapping[str, str], stack: ExitStack
) -> dict[str, Any]:
    templates = here.path / "templates"
    templates.mkdir()
    for name, text in _TEMPLATES.items():
        (templates / name).write_text(text)
    files = [{"format": kind} for kind in ("raw", "json", "header", "env")]
    files += [{"format": "template", "template": "nginx", "path": "nginx.conf", "name": "T"}]
    files += [{"format": "template", "template": str(templates / "good"), "path": "good.ini", "mode": "0600"}]
    hooks: dict[str, Any] = {
        "on_change": [{"run": [here.script("changed"), "an argument"]}],
        "on_failure": [{"run": [here.script("failed", 1)]}],
    }
    clients = {
        **{name: here.client(name, more) for name, more in _methods(here).items()},
        **_connections(here, authority, stack),
        **_shares(here, password, stack),
        **_replies(here),
    }
    clients["basic"]["tokens"]["t"] |= {"files": files, **hooks}
    clients["refused"]["tokens"]["t"] |= hooks
    for name in _TEMPLATES:
        broken = {"format": "template", "template": str(templates / name), "path": f"{name}.broken"}
        clients["post"]["tokens"][name] = {"scope": name, "files": [broken]}
    return {
        "state_directory": str(here.path / "state"),
        "startup_timeout": "5s",
        "required": False,
        "output": {"directory": str(here.tokens)},
        "log": dict(level),
        "listen": {"address": f"127.0.0.1:{here.listen}", "page": True},
        "clients": clients,
    }


def _methods(here: Site) -> dict[str, dict[str, Any]]:
    """Each way to authenticate, and each source of a secret."""
    secret, key = here.secret, pem(private_key("ES256"))
    here.marks.keep("private key", key)
    here.environ |= {"BY_ENVIRONMENT": here.marks.make(ENVIRONMENT)}
    credentials = here.secrets / "credentials"
    credentials.mkdir()
    credential = credentials / "dnb"
    credential.touch(0o600)
    credential.write_text(here.marks.make("systemd credential"))
    here.environ |= {"CREDENTIALS_DIRECTORY": str(credentials)}
    of_command = secret("of-command", "secret of a command")["file"]
    printing = here.script("print-secret", more=f"cat {of_command}")
    robot = {"type": "service_account", "private_key": key, "client_email": "robot@example.com", "private_key_id": "1"}
    jwk = {"kty": "oct", "k": base64.urlsafe_b64encode(here.marks.make("key in a JWK").encode()).decode().rstrip("=")}
    claim = here.marks.make("claim of an assertion")
    bearer = "urn:ietf:params:oauth:grant-type:jwt-bearer"
    exchange = "urn:ietf:params:oauth:grant-type:token-exchange"
    return {
        "basic": {"client_secret": secret("basic", "client secret")},
        "post": {"client_secret": {"env": "BY_ENVIRONMENT"}, "auth": "client_secret_post"},
        "credential": {"client_secret": {"credential": "dnb"}, "basic_encoding": "rfc6749"},
        "command": {"client_secret": {"command": [printing]}, "basic_encoding": "raw"},
        "several": {"client_secret": [secret("new", "client secret"), secret("old", "client secret")]},
        "secret-jwt": {"client_secret": secret("hmac", "client secret"), "auth": "client_secret_jwt"},
        "key-jwt": {
            "private_key": secret("pkcs8", "private key", text=key),
            "auth": "private_key_jwt",
            "assertion_claims": {"purposeId": claim},
        },
        "bad-key": {
            "private_key": secret("bad-key", "private key", text=key[:120] + here.marks.make("broken key") + key[130:]),
            "auth": "private_key_jwt",
        },
        "jwk": {"private_key": secret("jwk", "key in a JWK", text=json.dumps(jwk)), "auth": "private_key_jwt"},
        "assertion": {"assertion": secret("assertion", "assertion in a file", _PLAIN), "auth": "assertion"},
        "robot": {
            "private_key": secret("robot.json", "private key", text=json.dumps(robot)),
            "auth": "none",
            "grant_type": bearer,
        },
        "exchange": {
            "auth": "none",
            "grant_type": exchange,
            "subject_token": secret("subject", "subject token"),
            "parameters": {"actor_token": secret("actor", "secret parameter")},
        },
        "headers": {
            "client_secret": secret("by-header", "client secret"),
            "headers": {
                "X-Api-Key": secret("header", "secret header", _PLAIN),
                "X-Text": here.marks.make("text header", _PLAIN),
            },
            "parameters": {"password": secret("parameter", "secret parameter")},
            "body": "json",
            "token_field": "data.access_token",
        },
        "id-token": {"client_secret": secret("id", "client secret"), "token_field": "id_token"},
        "missing": {"client_secret": {"file": str(here.secrets / "nowhere")}},
        "unset": {"client_secret": {"env": "NOT_SET_AT_ALL"}},
    }


def _connections(here: Site, authority: trustme.CA, stack: ExitStack) -> dict[str, dict[str, Any]]:
    """Client certificates, proxies, and connections that fail."""
    leaf = authority.issue_cert("client.example")
    pair = {
        "private_key": here.secret("tls.key", "TLS key", text=leaf.private_key_pem.bytes().decode()),
        "certificate": {"file": str(here.path / "tls.crt")},  # which everybody may read
    }
    leaf.cert_chain_pems[0].write_to_path(here.path / "tls.crt")
    broken = here.secret("bad-tls", "TLS key", text="-----BEGIN PRIVATE KEY-----\n" + here.marks.make("broken key"))
    secret = here.secret("tls-secret", "client secret", "")
    login = here.marks.make("proxy password", "-")
    http = stack.enter_context(tinyproxy(here.secrets, "user", login))
    socks = stack.enter_context(microsocks("user", login))
    password = here.secret("proxy", "proxy password", text=login)
    wrong = here.secret("wrong-proxy", "proxy password", "-")
    # A certificate for a name that holds a secret which its owner was sent.
    name = f"a{here.marks.make('name in a certificate', 'x').replace('_', 'x').replace('-', 'x').lower()[:60]}"
    liar = Provider(here.marks.keep, _mutual(authority, f"{name}.example"))
    here.marks.keep("name in a certificate", name)  # alone: other certificates end with .example too
    stack.callback(liar.stop)
    here.provider.replies["CONNECT"] = REPLIES["refused"]

    def proxied(url: str, reference: Mapping[str, str]) -> dict[str, Any]:
        return {"client_secret": secret, "proxy": {"url": url, "username": "user", "password": dict(reference)}}

    return {
        "mtls": here.client("mtls", {"auth": "tls_client_auth", **pair}, tls=True),
        "mtls-secret": here.client(
            "mtls-secret",
            {
                "client_secret": secret,
                "tls_certificate": pair["certificate"],
                "tls_private_key": pair["private_key"],
            },
            tls=True,
        ),
        "bad-tls": here.client(
            "bad-tls", {"auth": "tls_client_auth", "private_key": broken, "certificate": pair["certificate"]}, tls=True
        ),
        "http-proxy": here.client("http-proxy", proxied(f"http://127.0.0.1:{http}", password), tls=True),
        "http-proxy-refuses": here.client("hpr", proxied(f"http://127.0.0.1:{http}", wrong), tls=True),
        "proxy-echoes": here.client("pe", proxied(here.provider.url, wrong), tls=True),
        "socks": here.client("socks", proxied(f"socks5h://127.0.0.1:{socks}", password)),
        "socks-refuses": here.client("socks-refuses", proxied(f"socks5://127.0.0.1:{socks}", wrong)),
        "other-name": {
            **here.client("other-name", {"client_secret": secret}, tls=True),
            "token_url": f"{liar.url}/other-name",
        },
        "no-server": {
            **here.client("no-server", {"client_secret": secret}),
            "token_url": f"http://127.0.0.1:{free_port()}/no-server",
        },
        "no-tls": {
            **here.client("no-tls", {"client_secret": secret}, tls=True),
            "token_url": f"https://127.0.0.1:{here.provider.port}/no-tls",
        },
    }


def _shares(here: Site, password: str, stack: ExitStack) -> dict[str, dict[str, Any]]:
    """Shares on a real server, with a right and a wrong password, and on one that repeats what it is sent."""
    login = here.secret("redis", "Redis password", text=password)
    key = here.secret("share-key", "share key", "")
    wrong = here.secret("wrong-redis", "Redis password")

    def echoes(command: list[bytes]) -> bytes:
        said = b" ".join(command).replace(b"\r", b" ").replace(b"\n", b" ")[:2000]
        return usual(command) if command[0] in {b"PING", b"SUBSCRIBE"} else b"-ERR %b\r\n" % said

    liar = stack.enter_context(answering(echoes))
    url = here.secret("redis-url", "Redis URL", text=f"redis://bearerd:{password}@{here.redis.address}/0")

    def shared(name: str, redis: Mapping[str, Any], **more: Any) -> dict[str, Any]:
        secret = here.secret(f"of-{name}", "client secret")
        return here.client(name, {"client_secret": secret, "share": {"redis": dict(redis), **more}})

    known = {"url": here.redis.url, "username": "bearerd"}
    return {
        "shared": shared("shared", {**known, "password": login}, key=key),
        "shared-by-secret": shared("shared-by-secret", {**known, "password": login}),
        "share-refuses": shared("share-refuses", {**known, "password": wrong}),
        "share-url": shared("share-url", {"url": url}, key=key),
        "share-echoes": shared("share-echoes", {"url": liar, "username": "bearerd", "password": wrong}, key=key),
    }


def _replies(here: Site) -> dict[str, dict[str, Any]]:
    """A client for each reply that a provider could make up."""
    clients = {}
    for number, name in enumerate(REPLIES):
        secret = here.secret(f"of-{name}", "client secret")
        auth = ("client_secret_post", "client_secret_basic")[number % 2]
        clients[name] = here.client(name, {"client_secret": secret, "auth": auth, "max_concurrency": os.cpu_count()})
    return clients
