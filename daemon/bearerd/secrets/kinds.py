"""The one list of the kinds of secret source."""

from __future__ import annotations

from collections.abc import Mapping
from typing import assert_never

from bearerd.secrets.command import CommandSource
from bearerd.secrets.file import CredentialSource, FileSource
from bearerd.secrets.source import SecretSource
from bearerd.secrets.variable import VariableSource
from bearerd.terms import Reference


def source_of(reference: Reference, environ: Mapping[str, str]) -> SecretSource:
    """The source that a reference from the config names; `environ` is the daemon's environment."""
    match reference.kind:
        case "file":
            return FileSource(reference)
        case "env":
            return VariableSource(reference, environ)
        case "credential":
            return CredentialSource(reference, environ)
        case "command":
            return CommandSource(reference, environ)
        case _:
            assert_never(reference.kind)
