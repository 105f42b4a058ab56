"""Proves a valid config against this machine, and on request against its providers. Changes nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from bearerd.clock import SystemClock
from bearerd.errors import SecretUnavailable
from bearerd.grant.credentials import read_credentials
from bearerd.grant.outcome import Issued
from bearerd.grant.perform import Grants
from bearerd.lifecycle.policy import lead
from bearerd.model import Client, Config
from bearerd.publish.publisher import Publisher
from bearerd.words import duration


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at: `ok` or not, or merely worth knowing (`warning`)."""

    subject: str
    verdict: str
    level: str = "ok"


def check(config: Config, environ: Mapping[str, str], *, online: bool) -> Iterator[Finding]:
    """Everything that the daemon will need, one finding after the other."""
    publisher = Publisher(config)
    faults = publisher.examine_directory()
    yield _finding(f"directory {config.directory}", faults, "can be written")
    clients: dict[str, Client] = {}
    for target in config.targets:
        clients.setdefault(target.client.name, target.client)
    readable = {name: _secret_faults(client, environ) for name, client in clients.items()}
    for name, client in clients.items():
        yield _finding(f"client {name}", readable[name], f"{client.client_secret} can be read")
    for target in config.targets:
        yield _finding(
            f"token {target.full_name}",
            publisher.examine(target),
            f"{len(target.outputs)} file(s) can be written",
        )
        if target.max_staleness > lead(target.default_lifetime, target.refresh_before, target.max_staleness):
            yield Finding(
                f"token {target.full_name}",
                f"max_staleness {duration(target.max_staleness)} is more than half of a lifetime of "
                f"{duration(target.default_lifetime)}: with such tokens its readers may use an expired one",
                "warning",
            )
    if online:
        yield from _online(config, environ, {name for name, faults in readable.items() if not faults})


def _online(config: Config, environ: Mapping[str, str], able: set[str]) -> Iterator[Finding]:
    grants = Grants(SystemClock(), environ)
    seen: set[str] = set()
    for target in config.targets:
        client = target.client
        if client.name in seen or client.name not in able:
            continue
        seen.add(client.name)
        outcome, _ = grants.perform(target)
        subject = f"grant {target.full_name} at {client.provider.token_url}"
        if isinstance(outcome, Issued):
            token = outcome.token
            said = f"a token, good for {duration(token.lifetime)}, scope {_shown(token.scope)}"
            yield Finding(subject, said)
            for note in outcome.notes:
                yield Finding(subject, note, "warning")
        else:
            yield Finding(subject, str(outcome), "failed")


def _shown(scope: str | None) -> str:
    """A scope as the provider gave it, if it is one (RFC 6749 3.3): what goes to a terminal may not be anything."""
    if scope is None:
        return "(none named)"
    return scope if re.fullmatch(r"[\x20-\x7e]{1,1000}", scope) else "(not shown: unusual characters)"


def _secret_faults(client: Client, environ: Mapping[str, str]) -> list[str]:
    faults: list[str] = []
    try:
        read_credentials(client, environ)
    except SecretUnavailable as error:
        faults.append(str(error))
    if client.provider.ca_file is not None:
        try:
            with open(client.provider.ca_file, "rb"):
                pass
        except OSError as error:
            faults.append(f"ca_file {client.provider.ca_file}: {(error.strerror or 'cannot be read').lower()}")
    return faults


def _finding(subject: str, faults: list[str], good: str) -> Finding:
    return Finding(subject, "; ".join(faults), "failed") if faults else Finding(subject, good)
