"""State that survives a restart: which secret of a client works. The ledger is beside it (admission/journal.py).

It holds no token and no secret: secrets are identified by fingerprints, made with a key that is stored beside them. If
the state cannot be written, there is a warning, and tokens are refreshed as before.

State that another user could have written is not used. The default, `.bearerd` in the output directory, is moved aside
then, like the records. A `state_directory` from the config is not, since it may be the root of a volume, or `/tmp`: if
others can write it, the state goes into a `.bearerd` below it.
"""

from __future__ import annotations

import json
import logging
import os
import posixpath
import secrets
from collections.abc import Mapping
from typing import Any, Final

from bearerd import boundedjson
from bearerd.errors import NotPermitted, PublishError
from bearerd.log import say
from bearerd.publish.advice import STATE_ELSEWHERE, instead
from bearerd.publish.atomic import Files
from bearerd.publish.owners import PRIVATE, PRIVATE_DIRECTORY
from bearerd.publish.version import unknown_version
from bearerd.publish.walk import distrust
from bearerd.terms import OWN_DIRECTORY

SCHEMA: Final = 1
"""The format version of documents. One with another version is kept aside (publish/version)."""
# Bytes. A fingerprint takes 36 bytes, and a client has a few secrets.
_MOST_BYTES: Final = 1024 * 1024
# As many as SHA-256 has, for HMAC (RFC 2104 section 3).
_KEY_BYTES: Final = 32
_TRIED_AGAIN: Final = "all secrets of a client are tried again"


class State:
    """The state directory: small documents, each with a kind and a name."""

    def __init__(self, directory: str, uid: int | None = None) -> None:
        """`uid` is the daemon's user, if that is not the user of this process."""
        root, own = directory, directory
        self.note = ""
        """What is unusual about the directory; empty if nothing is."""
        if posixpath.basename(directory) == OWN_DIRECTORY:
            root = posixpath.dirname(directory)
        elif reason := _open_to_others(directory, os.geteuid() if uid is None else uid):
            own = posixpath.join(directory, OWN_DIRECTORY)
            self.note = f"{directory}: {reason}; the state is kept in {own}, which only bearerd uses"
        self._directory = own
        self._files = Files(root, PRIVATE_DIRECTORY, own=own)
        self._unreadable = False
        """Whether it can be neither used nor changed, because its key could not be read."""
        self.fault = ""
        """Why it is not written; empty if it is."""

    @property
    def directory(self) -> str:
        """The directory in use: the configured one, or `.bearerd` below it if others can write it."""
        return self._directory

    def sweep(self) -> None:
        """Remove temporary files that a killed process left behind. Call it only under the lock."""
        if self.note:
            say(logging.WARNING, f"state directory {self.note}")
        self._files.sweep({self._directory, posixpath.join(self._directory, "secrets")})

    def close_directories(self) -> None:
        """Close the directories that are kept open for the next use."""
        self._files.close_directories()

    def load(self, kind: str, name: str) -> Mapping[str, Any] | None:
        """The fields that were saved under a name; None if there are none.

        A document of another format version is renamed and kept for a rollback.
        """
        if self._unreadable:
            return None
        path = self._path(kind, name)
        try:
            content = self._files.read(path, _MOST_BYTES) or b""
        except PublishError as error:
            self._cannot(error, f"; {_TRIED_AGAIN}")
            return None
        if version := unknown_version(content, SCHEMA):
            self._keep_aside(path, version)
            return None
        try:
            document = boundedjson.loads(content.decode())
            if document["schema"] != SCHEMA or not isinstance(document["kept"], dict):
                return None
        except (ValueError, TypeError, KeyError):
            return None
        kept: dict[str, Any] = document["kept"]
        return kept

    def save(self, kind: str, name: str, fields: Mapping[str, Any]) -> None:
        """Save fields under a name; without any, the document is removed."""
        if self._unreadable:
            return
        path = self._path(kind, name)
        try:
            if fields:
                content = json.dumps({"schema": SCHEMA, "kept": dict(fields)}).encode()
                self._files.replace(path, content, PRIVATE)
            else:
                self._files.remove(path)
        except PublishError as error:
            self._cannot(error, f"; after a restart, {_TRIED_AGAIN}")
        else:
            self.fault = ""

    def key(self) -> bytes:
        """The key of fingerprints, which is generated once."""
        path = posixpath.join(self._directory, "key")
        try:
            key = self._files.read(path, _KEY_BYTES)
        except PublishError as error:
            # With another key, all secrets would look changed. So the files on disk are neither used nor changed.
            self._unreadable = True
            self._cannot(error, f"; until a restart, {_TRIED_AGAIN}")
            return secrets.token_bytes(_KEY_BYTES)
        if key is not None and len(key) == _KEY_BYTES:
            return key
        key = secrets.token_bytes(_KEY_BYTES)
        try:
            self._files.replace(path, key, PRIVATE)
        except PublishError as error:
            self._cannot(error, f"; after a restart, {_TRIED_AGAIN}")
        return key

    def examine(self) -> list[str]:
        """Why the state could not be written."""
        try:
            self._files.prove_usable(self._directory)
        except NotPermitted as error:
            return [instead(error, STATE_ELSEWHERE)]
        except PublishError as error:
            return [str(error)]
        return []

    def _keep_aside(self, path: str, version: str) -> None:
        try:
            kept = self._files.keep_aside(path, version)
        except PublishError as error:
            self._cannot(error)
        else:
            say(logging.WARNING, f"state: {path} is from another version of bearerd; it was kept as {kept}")

    def _path(self, kind: str, name: str) -> str:
        return posixpath.join(self._directory, kind, f"{name}.json")

    def _cannot(self, error: PublishError, cost: str = "") -> None:
        known, self.fault = self.fault, str(error)
        if not known:
            say(logging.WARNING, f"state: {error}{cost}")


def _open_to_others(directory: str, uid: int) -> str:
    """Why a directory is not private to the daemon; empty if it is, or does not exist yet."""
    files = Files(directory, PRIVATE_DIRECTORY)
    try:
        with files.look(directory) as opened:
            return "" if opened.missing else distrust(opened.status, uid)
    except (OSError, PublishError):
        return ""  # reading and writing report the failure
