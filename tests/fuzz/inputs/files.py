"""The operator's other files: secrets, keys, certificates, templates, pid files."""

from __future__ import annotations

import math
import os
import re
from contextlib import suppress
from datetime import UTC, datetime
from unittest import mock

from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from bearerd.errors import HookFailed, KeyUnusable, PublishError, SecretUnavailable
from bearerd.grant import assertion
from bearerd.grant.assertion import Signer
from bearerd.grant.certificate import expiry_of, subject_of
from bearerd.hooks import signals
from bearerd.publish.render import fields
from bearerd.publish.template import Templates
from bearerd.secrets.binary import certificate_conversion
from bearerd.secrets.kinds import source_of
from bearerd.share.keys import key_fault
from bearerd.terms import TEMPLATES, Hook, Reference
from fuzz.target import Target, one_line, scratch
from support.oidc import pem, self_signed
from support.targets import TARGET, token

CANARY = "Zq9~xW7vK3mPt5rYb1nLc"


def _written(name: str, data: bytes) -> str:
    path = str(scratch() / name)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(data)
    return path


# -- secrets -------------------------------------------------------------------------------------------


def check_secret(data: bytes) -> None:
    """A secret, or why it is none; never a part of it."""
    data = data.replace(b"@canary@", CANARY.encode())
    path = _written("secret", data)
    reference = Reference("file", path)
    source = source_of(reference, {})
    read = ""
    with suppress(SecretUnavailable):
        read = source.read()
        assert read
        assert read.encode() in {data, data.removesuffix(b"\n"), data.removesuffix(b"\r\n")}
    try:
        assert source.check() == read
        assert read == read.strip()
        assert "\n" not in read
    except SecretUnavailable as error:
        _check_message(str(error), read)
    assert source.fingerprint() == source_of(reference, {}).fingerprint()
    for of_client in (True, False):
        _check_message(key_fault(reference, read, of_client=of_client) or "", read)
    _check_message(certificate_conversion(data, path) or "", read)


def _check_message(text: str, secret: str) -> None:
    one_line(text)
    assert CANARY not in text
    assert len(secret.strip()) < 12 or secret.strip() not in text, "a message has the secret"


_SECRETS = (
    b"s3cr3t", b"hunter2\n", b"hunter2\r\n", b"\xef\xbb\xbfhunter2", b" a", b"a\nb\n", b"\xff\xfea\x00", b"",
    b"@canary@\n@canary@",
    b"0\x82\x00\x04\x02\x01\x03\x00", b"0\x06\x02\x01\x00\x30\x00\x00", b"0\x84\x00\x00\x00\x04\x30\x82\x00\x00",
)  # fmt: skip


# -- keys and certificates -----------------------------------------------------------------------------


# The same ones each time, so that the same input gives the same result.
_EC = ec.derive_private_key(12345, ec.SECP256R1())
_ED = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32))
_CERTIFICATE = self_signed(_EC, not_before=datetime(2020, 1, 1, tzinfo=UTC), not_after=datetime(2050, 1, 1, tzinfo=UTC))


def check_key(data: bytes) -> None:
    """A private key signs, or cannot be used. The same bytes as a certificate: an expiry and a subject, or nothing."""
    text = data.decode("utf-8", "replace").replace("@canary@", CANARY)
    for signer in (
        Signer(private_key=text),
        Signer(private_key=text, certificate=_CERTIFICATE, key_id="k"),
        Signer(private_key=pem(_EC), certificate=text),
        Signer(secret=text, algorithm="HS512"),
    ):
        try:
            signed = assertion.sign(assertion.claims("a", "a", "https://p", 1.8e9, "j"), signer)
        except KeyUnusable as error:
            one_line(str(error))
            assert CANARY not in str(error)
        else:
            assert re.fullmatch(r"[\w-]+\.[\w-]+\.[\w-]+", signed)
    expiry, subject = expiry_of(text), subject_of(text)
    assert expiry is None or math.isfinite(expiry)
    one_line(subject or "")


_JWK = (
    b'{"kty": "EC", "crv": "P-256", "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", '
    b'"y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0", "d": "jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI", '
    b'"kid": "k"}'
)
_KEYS = (
    pem(_EC).encode(),
    pem(_ED).encode(),
    _CERTIFICATE.encode(),
    _JWK,
    (b'{"kty": "OKP", "crv": "Ed25519", "d": "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A", '
    b'"x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}'),
    b'{"kty": "oct", "k": "AAAA"}',
    b'{"kty": "RSA", "n": "AQAB", "e": "AQAB", "d": "AQAB"}',
    b'{"private_key": "@canary@", "private_key_id": "k"}',
    b"ssh-ed25519 AAAA @canary@",
    b"-----BEGIN OPENSSH PRIVATE KEY-----\n@canary@\n",
    b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIGb\n-----END ENCRYPTED PRIVATE KEY-----\n",
)  # fmt: skip
_KEY_WORDS = (
    *(b"-----BEGIN PRIVATE KEY-----\n", b"-----END PRIVATE KEY-----\n", b"-----BEGIN CERTIFICATE-----\n", b'"kty": '),
    *(
        b"-----END CERTIFICATE-----\n",
        b"-----BEGIN EC PRIVATE KEY-----\n",
        b"Proc-Type: 4,ENCRYPTED\n",
        b'"crv": ',
        b'"d": ',
    ),
    *(
        b'"P-521"',
        b'"secp256k1"',
        b'"X25519"',
        b'"Ed448"',
        b'"RSA"',
        b'"EC"',
        b'"OKP"',
        b'"p": ',
        b'"oth": ',
        b"@canary@",
    ),
)


# -- templates -----------------------------------------------------------------------------------------

# Operators write templates, and may use as much time and memory as they like; the fuzzer may not.
_EXPENSIVE = re.compile(r"\*|[0-9]{4}|for.*for|%[0-9]|range|lipsum|macro|recursive|cycler|~.*~.*~", re.DOTALL)
_TOKEN = token("q~Xv7-Secret-Token", scope="bci", extra='{"instance_url": "https://x", "n": [1, {"a": null}]}')


def check_template(data: bytes) -> None:
    """A template gives text, or an error without the token."""
    text = data.decode("utf-8", "replace")
    if _EXPENSIVE.search(text):
        return
    path = _written("template", data)
    templates = Templates()
    context = fields(TARGET, _TOKEN) | {"vars": {"values": "v"}}
    try:
        templates.prove(path, context)
        content = templates.render(path, context)
        assert content.strip()
    except PublishError as error:
        said = str(error)
        if said.isprintable():
            assert _TOKEN.access_token not in said, "an error has the token"
        else:
            raise AssertionError("a message has a line end or a control character") from None


def _built_in() -> tuple[bytes, ...]:
    import bearerd.publish.template as module  # noqa: PLC0415 - for its directory only

    found = []
    for name in TEMPLATES:
        with open(os.path.join(module._BUILT_IN, f"{name}.j2"), "rb") as file:
            found.append(file.read())
    return tuple(found)


_TEMPLATES = (
    b"{{ access_token }}\n",
    b"Authorization: {{ token_type }} {{ access_token|quoted }}\n{% if scope %}{{ scope }}{% endif %}",
    b"{{ n|tojson }}{{ nothing }}",
    b"{{ {}[access_token] }}{{ access_token.x }}{{ access_token|int('x') }}",
    b"{% include access_token %}{{ vars.values }}{% for key in n %}{{ key }}{% endfor %}",
    *(each for each in _built_in() if len(each) < 1000),
)
_TEMPLATE_WORDS = (
    *(
        b"{{ ",
        b" }}",
        b"{% ",
        b" %}",
        b"{# ",
        b" #}",
        b"access_token",
        b"token_type",
        b"scope",
        b"expires_at",
        b"vars.values",
    ),
    *(
        b"|tojson",
        b"|quoted",
        b"|e",
        b"|int",
        b"|list",
        b"|join(1)",
        b"|attr('x')",
        b"|format(access_token)",
        b"|map('x')",
    ),
    *(
        b"|default(nothing)",
        b"|groupby(1)",
        b"|sort",
        b"|xmlattr",
        b"|select(access_token)",
        b" is defined",
        b" in ",
        b".x",
    ),
    *(
        b"[access_token]",
        b"if ",
        b"endif",
        b"for x in n",
        b"endfor",
        b"set x = ",
        b"extends ",
        b"import ",
        b"raise",
        b"{}",
    ),
    *(
        b"access_token.__class__",
        b"'%s'",
        b"filter ",
        b"block x",
        b"endblock",
        b"self.x()",
        b"loop.index",
        b"namespace()",
    ),
)


# -- pid files -----------------------------------------------------------------------------------------


def check_pid(data: bytes) -> None:
    """The number of one other process, or an error: kill(2) takes 0 and negative numbers for groups."""
    found: list[int] = []
    path = _written("pid", data)

    def send(pid: int, _: int) -> bool:
        found.append(pid)
        return True

    with mock.patch.object(signals, "_send", send):
        try:
            signals.send_signal(Hook(signal="HUP", pid_file=path))
        except HookFailed as error:
            one_line(str(error))
            return
    (pid,) = found
    assert 1 <= pid <= 2**22
    assert pid != os.getpid()
    assert data.split(b"\n")[0].strip().lstrip(b"0") == str(pid).encode(), "a number that the file does not have"


TARGETS = (
    Target(
        "secret",
        "secrets",
        check_secret,
        _SECRETS,
        (b"@canary@", b"\xef\xbb\xbf", b"\n", b"\xc2\xa0", b"0\x82"),
        longest=512,
    ),
    Target("key", "private keys, JWKs and certificates", check_key, _KEYS, _KEY_WORDS),
    Target("template", "templates", check_template, _TEMPLATES, _TEMPLATE_WORDS, longest=1024),
    Target(
        "pid",
        "pid files",
        check_pid,
        (b"4242\n", b" 0017 \n", b"-1", b"0", b"1\n2\n"),
        (b"-", b"\n", b" ", b"\xd9\xa3"),
        longest=48,
    ),
)
