"""Reads everything that a grant needs from the sources that the config names, again for each grant."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from bearerd.errors import SecretUnavailable, Stopping
from bearerd.grant.request import Access, Credentials
from bearerd.model import Client, Provider, Target
from bearerd.secrets.kinds import source_of
from bearerd.terms import HEADER_VALUE, Reference


def read_credentials(client: Client, environ: Mapping[str, str]) -> tuple[Credentials, ...]:
    """The client's credentials; more than one set if its secret is a list.

    Secrets in a list that cannot be read are left out, and `unread` says why. Raises SecretUnavailable if none of them
    can be read, or if another credential cannot.
    """
    client_id = read_client_id(client, environ)
    private_key = _read(client.private_key, environ) if client.private_key else ""
    certificate = _read(client.certificate, environ) if client.certificate else ""
    access = read_access(client, environ)
    references = client.client_secret or ((client.assertion,) if client.assertion else ())
    if not references:
        return (Credentials(client_id, "", private_key, certificate, access=access),)
    found: list[Credentials] = []
    missing: list[SecretUnavailable] = []
    for reference in references:
        try:
            secret = _read(reference, environ)
        except Stopping:
            raise
        except SecretUnavailable as error:
            missing.append(error)
        else:
            found.append(Credentials(client_id, secret, private_key, certificate, str(reference), access))
    if missing and not found:
        raise missing[0]
    unread = tuple(map(str, missing))
    return tuple(replace(one, unread=unread) for one in found)


def read_access(of: Client | Provider, environ: Mapping[str, str]) -> Access:
    """What a client's token requests, or requests for a provider's metadata, need; raises SecretUnavailable."""
    headers = tuple((name, _header(name, value, environ)) for name, value in of.headers)
    login = (of.provider if isinstance(of, Client) else of).proxy_login
    access = Access(headers, proxy_password=_read(login.password, environ) if login else "")
    certificate, private_key = of.tls_certificate, of.tls_private_key
    if certificate is None or private_key is None:
        return access
    return replace(
        access,
        certificate=_read(certificate, environ),
        private_key=_read(private_key, environ),
        named=(str(certificate), str(private_key)),
    )


def header_fault(name: str, text: str) -> str | None:
    """Why a text cannot be the value of a header, or None. It is not shown."""
    if re.fullmatch(HEADER_VALUE, text):
        return None
    return f"not usable as header {name}: expected printable ASCII characters on one line, without spaces at its ends"


def _header(name: str, value: str | Reference, environ: Mapping[str, str]) -> str:
    text = _text(value, environ)
    if fault := header_fault(name, text):
        raise SecretUnavailable(f"{value}: {fault}")
    return text


def read_parameters(target: Target, environ: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """The target's own form parameters, each reference read; raises SecretUnavailable."""
    return tuple((name, _text(value, environ)) for name, value in target.parameters)


def read_client_id(client: Client, environ: Mapping[str, str]) -> str:
    """The client id; raises SecretUnavailable if it is a reference that cannot be read."""
    return _text(client.client_id, environ)


def _text(value: str | Reference, environ: Mapping[str, str]) -> str:
    return value if isinstance(value, str) else _read(value, environ)


def _read(reference: Reference, environ: Mapping[str, str]) -> str:
    return source_of(reference, environ).read()
