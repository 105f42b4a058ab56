"""The status from the records on disk, for `bearerd status` if no daemon answers."""

from __future__ import annotations

import os
import posixpath
from dataclasses import dataclass
from typing import Any

from bearerd import __version__
from bearerd.lifecycle.policy import redate
from bearerd.publish.lock import holder
from bearerd.publish.publisher import peek
from bearerd.reason import reason_of
from bearerd.terms import OWN_DIRECTORY, Instant
from bearerd.timeformat import rfc3339
from bearerd.trouble import of_record, of_records


@dataclass(frozen=True, slots=True)
class Offline:
    """A document in the form of the daemon's status. Fields that only a daemon knows are null."""

    document: dict[str, Any]
    fault: str | None
    """Why records are missing from it."""


def offline(directory: str | None, now: Instant) -> Offline:
    """The status from the records below an output directory; None if the directory is unknown."""
    tokens: list[dict[str, Any]] = []
    running: int | None = None
    fault: str | None = "the records are not next to this socket; use -c instead of --socket to find them"
    if directory is not None:
        own = posixpath.join(directory, OWN_DIRECTORY)
        running = holder(posixpath.join(own, "lock"))
        names, fault = _names(posixpath.join(own, "records"))
        tokens = [_token(directory, client, name, now, running) for client, name in names]
    document = {
        "version": __version__,
        "pid": None,
        "host": os.uname().nodename,
        "now": rfc3339(now.wall),
        "started_at": None,
        "directory": directory,
        "alive": False,
        "config": {"loaded_at": None, "error": None},
        "troubles": [of_records(running).document()],
        "clients": {},
        "providers": {},
        "shares": [],
        "tokens": tokens,
    }
    return Offline(document, fault)


def _names(records: str) -> tuple[list[tuple[str, str]], str | None]:
    """The client and token of each record, and why records are missing."""
    names: list[tuple[str, str]] = []
    try:
        for client in sorted(os.listdir(records)):
            for file in sorted(os.listdir(posixpath.join(records, client))):
                name, suffix = posixpath.splitext(file)
                if suffix == ".json":  # other files are left over from interrupted writes
                    names += [(client, name)]
    except FileNotFoundError:
        pass
    except PermissionError:
        return names, f"only the daemon's user and root can read the records in {records}"
    except OSError as error:
        return names, f"the records in {records} cannot be read: {reason_of(error)}"
    return names, None if names else f"there are no records in {records}"


def _token(directory: str, client: str, name: str, now: Instant, running: int | None) -> dict[str, Any]:
    record = peek(directory, client, name)
    token = redate(record.published, now).token if record else None
    left = token.expires.boot - now.boot if token else 0.0
    trouble = None if left > 0 else of_record(rfc3339(token.expires.wall) if token else None, running)
    return {
        "name": f"{client}/{name}",
        "client": client,
        "token": name,
        "provider": None,
        "scope": token.scope if token else None,
        "required": None,
        "files": None,
        "state": "missing" if token is None else "valid" if left > 0 else "expired",
        "trouble": trouble.document() if trouble else None,
        "obtained_at": rfc3339(token.obtained.wall) if token else None,
        "expires_at": rfc3339(token.expires.wall) if token else None,
        "remaining_seconds": round(max(0.0, left), 3) if token else None,
        "lifetime_seconds": token.lifetime if token else None,
        "next_refresh": None,
        "next_refresh_seconds": None,
        "held_by": None,
        "held_text": None,
        "held_until": None,
        "refresh_limited_seconds": None,
        "last_error": None if token else "its record cannot be read, or was written by another version",
        "failing_since": None,
        "failed_attempts": None,
        "failures": [],
        "grants": {},
        "fleet_grants": 0,
        "on_disk": None,
        "same_token": None,
        "publish_at": None,
        "file_errors": [],
        "hooks": {"owed": None, "last_run_at": None, "last_error": None},
    }
