"""Reads what a reference points to: a file, a variable, a systemd credential, a command's output.

Read anew at each grant, so that a rotated secret needs no restart. Whatever is wrong is a
SecretUnavailable that names the reference, never what was read.
"""

from __future__ import annotations

import os
import selectors
import stat
import subprocess
import time
from collections.abc import Mapping
from typing import Final

from bearerd import child
from bearerd.errors import SecretUnavailable
from bearerd.grant.request import Credentials
from bearerd.model import Client, Reference, Target
from bearerd.regular import NotRegularError, open_regular

# A secret is a line; a private key of 16384 bits is 12 KiB. What is larger is another file.
_MOST_BYTES: Final = 64 * 1024
_COMMAND_TIMEOUT: Final = 10.0  # seconds: design.md


def read_credentials(client: Client, environ: Mapping[str, str]) -> tuple[Credentials, ...]:
    """What a client may authenticate with as it is now; several where its secret is a list.

    Of a list only what can be read; raises SecretUnavailable when that is nothing.
    """
    client_id = read_client_id(client, environ)
    private_key = read(client.private_key, environ) if client.private_key else ""
    certificate = read(client.certificate, environ) if client.certificate else ""
    references = client.client_secret or ((client.assertion,) if client.assertion else ())
    if not references:
        return (Credentials(client_id, "", private_key, certificate),)
    found: list[Credentials] = []
    missing: SecretUnavailable | None = None
    for reference in references:
        try:
            secret = read(reference, environ)
        except SecretUnavailable as error:
            missing = missing or error
        else:
            found.append(Credentials(client_id, secret, private_key, certificate, str(reference)))
    if missing is not None and not found:
        raise missing
    return tuple(found)


def read_parameters(target: Target, environ: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """A target's own form parameters, with what stands elsewhere read; raises SecretUnavailable."""
    return tuple((name, value if isinstance(value, str) else read(value, environ)) for name, value in target.parameters)


def read_client_id(client: Client, environ: Mapping[str, str]) -> str:
    """A client's id, wherever it stands; raises SecretUnavailable."""
    return client.client_id if isinstance(client.client_id, str) else read(client.client_id, environ)


def read(reference: Reference, environ: Mapping[str, str]) -> str:
    """The text behind a reference, without one line end at its end; raises SecretUnavailable."""
    if reference.kind == "file":
        content = _file(reference.at, reference.permissions)
    elif reference.kind == "env":
        content = environ.get(reference.at, "").encode(errors="surrogateescape")
        if reference.at not in environ:
            raise SecretUnavailable(f"{reference}: the variable is not set")
    elif reference.kind == "credential":
        directory = environ.get("CREDENTIALS_DIRECTORY")
        if not directory:
            raise SecretUnavailable(
                f"{reference}: $CREDENTIALS_DIRECTORY is not set; the unit needs LoadCredential={reference.at}:…"
            )
        # systemd has put it where only this service can read it, whatever its mode says.
        content = _file(os.path.join(directory, reference.at), "any")
    else:
        content = _command(reference.argv, environ)
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise SecretUnavailable(f"{reference}: not UTF-8 text") from None
    text = text.removesuffix("\n").removesuffix("\r") if text.endswith("\n") else text
    if not text:
        raise SecretUnavailable(f"{reference}: empty")
    return text


def _file(path: str, permissions: str) -> bytes:
    try:
        descriptor = open_regular(path)
    except NotRegularError as error:
        raise SecretUnavailable(f"file {path}: {error}") from None
    except OSError as error:
        raise SecretUnavailable(f"file {path}: {_reason(error)}") from None
    try:
        status = os.fstat(descriptor)
        mode = stat.S_IMODE(status.st_mode)
        forbidden = {"owner": 0o077, "group": 0o027, "any": 0}[permissions]
        if mode & forbidden:
            who = "others" if mode & 0o007 else "its group"
            tighter, wider = "600", "permissions: group or any"
            if permissions == "group":
                tighter, wider = "640", "permissions: any"
            raise SecretUnavailable(
                f"file {path}: mode {mode:04o} lets {who} access it; run chmod {tighter} on it, or, where you cannot "
                f"set its mode (a Kubernetes mount), set {wider} next to file"
            )
        if status.st_size > _MOST_BYTES:
            raise SecretUnavailable(f"file {path}: larger than 64 KiB, this is no secret")
        return os.read(descriptor, _MOST_BYTES)
    except OSError as error:
        raise SecretUnavailable(f"file {path}: {_reason(error)}") from None
    finally:
        os.close(descriptor)


def _command(argv: tuple[str, ...], environ: Mapping[str, str]) -> bytes:
    name = f"command {argv[0]}"
    try:
        process = child.start(argv, environ, stdout=subprocess.PIPE, umask=0o077)
    except OSError as error:
        raise SecretUnavailable(f"{name}: {_reason(error)}") from None
    with process:
        try:
            output = _output(process, time.monotonic() + _COMMAND_TIMEOUT)
        except TimeoutError:
            raise SecretUnavailable(f"{name}: not done within {_COMMAND_TIMEOUT:.0f} s") from None
        finally:
            # Whatever it left running: that could keep the pipe, and us, waiting, or write for ever.
            child.kill(process)
    if len(output) > _MOST_BYTES:
        raise SecretUnavailable(f"{name}: more than 64 KiB, this is no secret")
    if process.returncode != 0:
        ended = child.fault_of(process.returncode)
        raise SecretUnavailable(f"{name}: {ended}; run it by hand as the daemon's user to see why")
    return output


def _output(process: subprocess.Popen[bytes], deadline: float) -> bytes:
    """What a process writes until it ends, but little more than a secret may hold; raises TimeoutError."""
    assert process.stdout is not None  # noqa: S101 - it was asked for
    descriptor, output = process.stdout.fileno(), b""
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        while len(output) <= _MOST_BYTES:
            if not selector.select(max(0.0, deadline - time.monotonic())):
                raise TimeoutError
            part = os.read(descriptor, _MOST_BYTES)
            if not part:
                break
            output += part
    if len(output) <= _MOST_BYTES and not child.ended(process, deadline - time.monotonic()):
        raise TimeoutError
    return output


def _reason(error: OSError) -> str:
    return (error.strerror or type(error).__name__).lower()
