"""Sends one request to the daemon over its control socket, and explains why there is no answer.

`health` pays for each import at every probe, so this is HTTP/1.0 in a few lines, without http.client.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import sys
import time

from bearerd.printable import printable
from bearerd.reason import reason_of

TYPE_CHECKING = False  # as in bearerd.cli
if TYPE_CHECKING:
    from typing import Any

PATIENCE = 5.0
"""Seconds for an answer. The daemon answers from memory, and a probe would fail by then anyway."""
STATUS_PATIENCE = 10.0
"""Seconds for the status, which is 7 MB for 10,000 tokens."""

_PART = 64 * 1024
# Ten times the status of 10,000 tokens. A longer answer is not bearerd's, and must not fill our memory.
_MOST_BYTES = 64 * 1024 * 1024
_LONGEST_PATH = 107  # bytes: sun_path of unix(7) without its NUL
_CLOSED = (
    "it closed the connection; it is stopping, has too many clients, or has no free file descriptors (LimitNOFILE)"
)
_STATUS_LINE = 3  # HTTP/1.1 200 OK
_OK = 200


class NoAnswer(Exception):  # noqa: N818 - not a BearerdError, whose module costs a probe 10 ms
    """No daemon answers at the socket; the message says why."""


def find(given: str | None, config: str | None) -> tuple[str, str | None]:
    """The control socket, and the output directory if a config was read for it.

    The socket is named by the option, the variable, the config, or the config of a user who is not root; else it has
    its default. A config that cannot be read causes a note on stderr. A config with errors causes none, because the
    daemon reports them (`note_config`). Both still reach a running daemon.
    """
    socket = given or os.environ.get("BEARERD_SOCKET")
    if socket:
        return socket, None
    from bearerd.config.here import default_socket, defaults

    known = defaults(os.environ)
    if not config and known.own_config and os.path.lexists(known.own_config):
        config = known.own_config
    if not config:
        return default_socket(known), None
    from bearerd.config.locate import locate

    found = locate(config, os.environ)
    if found.fault is not None:
        note(f"{config}: {found.fault}; using {found.socket}")
    return found.socket, found.directory


def note(text: str) -> None:
    """Print a note on stderr, which does not affect the exit code."""
    print(f"bearerd: note: {printable(text)}", file=sys.stderr, flush=True)


def note_config(error: object) -> None:
    """Print a note if the daemon refused the current config."""
    if isinstance(error, str) and error:
        note(f"the daemon refused the new config and uses the previous one: {error.splitlines()[0]}")


def ask(path: str, target: str, method: str = "GET", patience: float = PATIENCE) -> tuple[int, bytes]:
    """Send a request. Returns status and body of the answer. Raises NoAnswer."""
    try:
        answer = _exchange(path, f"{method} {target} HTTP/1.0\r\nHost: bearerd\r\n\r\n".encode(), patience)
    except TimeoutError:
        raise NoAnswer(
            f"no daemon answers at {path}: a process listens, but sent no complete answer within {patience:g} s"
        ) from None
    except (OSError, ValueError) as error:  # ValueError: not a valid path
        raise NoAnswer(f"no daemon answers at {path}: {_why(error, path)}") from None
    if not answer:
        raise NoAnswer(f"no daemon answers at {path}: {_CLOSED}")
    head, _, body = answer.partition(b"\r\n\r\n")
    parts = head.partition(b"\r\n")[0].split(b" ", 2)
    if len(parts) < _STATUS_LINE or not parts[0].startswith(b"HTTP/1.") or not _is_status(parts[1]):
        raise NoAnswer(f"the process that answers at {path} is not bearerd")
    return int(parts[1]), body


def _is_status(word: bytes) -> bool:
    return len(word) == 3 and word.isdigit()  # noqa: PLR2004 - RFC 9112 section 4


def ask_status(path: str, only: str | None = None, patience: float = STATUS_PATIENCE) -> tuple[dict[str, Any], bytes]:
    """The status, or that of one token, parsed and as bytes. Raises NoAnswer."""
    status, body = ask(path, f"/status?name={only}" if only else "/status", patience=patience)
    document = parsed(path, body)
    if not isinstance(document.get("tokens"), list):
        if status != _OK and isinstance(document.get("error"), str):
            raise NoAnswer(f"the daemon at {path} did not answer: {printable(document['error'])}")
        raise NoAnswer(f"the process that answers at {path} is not bearerd")
    return document, body


def parsed(path: str, body: bytes) -> dict[str, Any]:
    """The JSON object in an answer. Raises NoAnswer if it is incomplete or not an object."""
    import json  # a successful probe does not need it

    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise NoAnswer(f"the answer at {path} is not from bearerd, or was cut off")
    return document


class Reading:
    """A context in which a document from the socket is read. Any process may answer there, or another version.

    Raises NoAnswer if the document's types are not those of a status. Not from `contextlib`, for the sake of probes.
    """

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind and issubclass(kind, (AttributeError, LookupError, OverflowError, TypeError, ValueError)):
            raise NoAnswer(f"the answer at {self._path} is not a status as this version of bearerd knows it") from None


def _exchange(path: str, request: bytes, patience: float) -> bytes:
    end = time.monotonic() + patience
    parts: list[bytes] = []
    size = 0
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
        line.settimeout(patience)
        line.connect(path)
        line.sendall(request)
        while True:
            part = line.recv(_PART)
            if not part:
                return b"".join(parts)
            parts.append(part)
            size += len(part)
            if size > _MOST_BYTES:
                limit = f"more than {_MOST_BYTES // 2**20} MiB"
                raise NoAnswer(f"the process that answers at {path} is not bearerd: it sent {limit}")
            left = end - time.monotonic()
            if left <= 0:
                raise TimeoutError
            line.settimeout(left)


# -- why there is no answer --------------------------------------------------------------------------


def _why(error: OSError | ValueError, path: str) -> str:
    code = error.errno if isinstance(error, OSError) else None
    if code == errno.ENOENT:
        return "there is no such socket; is bearerd running? use --socket for another path"
    if isinstance(error, OSError) and len(os.fsencode(path)) > _LONGEST_PATH:  # Python's own error, without a number
        limit = f"its path is longer than {_LONGEST_PATH} bytes, the limit of Linux for a socket"
        return f"{limit}; use a shorter one, such as a relative path, or a symlink to its directory"
    if code in {errno.EPIPE, errno.ECONNRESET}:
        return _CLOSED
    if code == errno.EAGAIN:
        return "it has too many clients"
    try:
        if code == errno.ECONNREFUSED:
            is_socket = stat.S_ISSOCK(os.stat(path).st_mode)
            return "connection refused: the daemon was killed" if is_socket else "it is not a socket"
        if code in {errno.EACCES, errno.EPERM}:
            from bearerd.cli.denied import denied

            return f"permission denied: {denied(path, stat.S_IWGRP)}"
    except OSError:  # it is changing right now
        pass
    return reason_of(error) if isinstance(error, OSError) else "not a path"
