"""Reads what a reference points to: a file, a variable, a systemd credential, a command's output.

Read anew at each grant, so that a rotated secret needs no restart. Whatever is wrong is a
SecretUnavailable that names the reference, never what was read.
"""

from __future__ import annotations

import os
import signal
import stat
import subprocess
from collections.abc import Mapping
from typing import Final

from bearerd.errors import SecretUnavailable
from bearerd.grant.request import Credentials
from bearerd.model import Client, Reference

# A secret is a line; a private key of 16384 bits is 12 KiB. What is larger is another file.
_MOST_BYTES: Final = 64 * 1024
_COMMAND_TIMEOUT: Final = 10.0  # seconds: design.md
# All that a helper needs to find programs and its own config; nothing of the daemon's environment.
_COMMAND_ENVIRONMENT: Final = ("PATH", "HOME", "LANG", "LC_ALL", "TZ")


def read_credentials(client: Client, environ: Mapping[str, str]) -> Credentials:
    """A client's id and secret as they are now; raises SecretUnavailable."""
    return Credentials(read_client_id(client, environ), read(client.client_secret, environ))


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
        # Without O_NONBLOCK a FIFO at this path would hold the worker for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise SecretUnavailable(f"file {path}: {_reason(error)}") from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise SecretUnavailable(f"file {path}: not a regular file")
        mode = stat.S_IMODE(status.st_mode)
        forbidden = {"owner": 0o077, "group": 0o027, "any": 0}[permissions]
        if mode & forbidden:
            who = "others" if mode & 0o007 else "its group"
            raise SecretUnavailable(
                f"file {path}: mode {mode:04o} opens it to {who}; chmod 600 it, or, where the mode is not yours to "
                "set (a Kubernetes mount), say permissions: group or any beside file"
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
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            # Its complaints could quote the secret.
            stderr=subprocess.DEVNULL,
            env={key: environ[key] for key in _COMMAND_ENVIRONMENT if key in environ},
            start_new_session=True,
        )
    except OSError as error:
        raise SecretUnavailable(f"{name}: {_reason(error)}") from None
    with process:
        try:
            output, _ = process.communicate(timeout=_COMMAND_TIMEOUT)
        except subprocess.TimeoutExpired:
            # The whole group: what it started would keep the pipe, and us, waiting.
            os.killpg(process.pid, signal.SIGKILL)
            raise SecretUnavailable(f"{name}: not done within {_COMMAND_TIMEOUT:.0f} s") from None
    if process.returncode != 0:
        ended = f"exit {process.returncode}" if process.returncode > 0 else f"signal {-process.returncode}"
        raise SecretUnavailable(f"{name}: {ended}; run it by hand as the daemon's user to see why")
    if len(output) > _MOST_BYTES:
        raise SecretUnavailable(f"{name}: more than 64 KiB, this is no secret")
    return output


def _reason(error: OSError) -> str:
    return (error.strerror or type(error).__name__).lower()
