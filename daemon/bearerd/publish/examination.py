"""What a check finds out about the directories and files without writing them."""

from __future__ import annotations

import os
import posixpath
import stat
from contextlib import suppress
from typing import Final

from bearerd.errors import NotPermitted, PublishError
from bearerd.model import Config, Target
from bearerd.publish.advice import OUTPUT_ELSEWHERE, instead
from bearerd.publish.atomic import Files
from bearerd.publish.claims import Claims
from bearerd.publish.content import content_of, template_fields
from bearerd.publish.directories import is_below
from bearerd.publish.owners import attributes, gid_of
from bearerd.publish.template import Templates
from bearerd.publish.walk import distrust
from bearerd.terms import OWN_DIRECTORY, Instant, Token

# The token with which `check` tries a template.
_SAMPLE: Final = Token("sample", Instant(0.0, 0.0), 3600.0, scope="sample")


class Examination:
    """Finds by the same steps what the publisher would."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._own = posixpath.join(config.directory, OWN_DIRECTORY)
        self._files = Files(config.directory, config.directory_mode, config.group, own=self._own)
        self._templates = Templates()
        self._claims = Claims(config, self._files)

    def directory(self) -> list[str]:
        """Why the output directory could not be used."""
        try:
            gid_of(self._config.group)
            self._files.prove_usable(self._config.directory)
            self._files.prove_group(posixpath.join(self._own, "records"))
        except NotPermitted as error:
            return [instead(error, OUTPUT_ELSEWHERE)]
        except PublishError as error:
            return [str(error)]
        return []

    def way_to(self, directory: str) -> list[str]:
        """What is unusual on the path to a directory: symlinks that are followed, directories of other users."""
        try:
            with self._files.look(directory) as opened:
                found = [f"symlink {link}" for link in opened.links]
                if opened.stranger is not None:
                    found.append(
                        f"{opened.stranger}: no symlink below it is followed, and no file of a third user is changed"
                    )
                return found
        except (OSError, PublishError):
            return []  # the check of the directory itself reports the failure

    def own_directories(self, uid: int) -> list[str]:
        """The directories of bearerd's own that a daemon of this user would move aside, and why."""
        found: list[str] = []
        for path in (self._own, *(posixpath.join(self._own, name) for name in ("records", "owed"))):
            with suppress(OSError):
                status = os.lstat(path)
                reason = distrust(status, uid) if stat.S_ISDIR(status.st_mode) else "it is not a directory"
                if reason:
                    found.append(f"{path}: {reason}; bearerd will move it aside and create a new one")
        return found

    def files_of(self, target: Target, *, without: str | None = None) -> list[str]:
        """Why the target's files could not be written, as far as that is visible without writing them.

        `without`: a directory that is known to be unusable, which is not examined again for each file below it.
        """
        faults: list[str] = []
        for output in target.outputs:
            if fault := self._claims.refused.get(output.path):
                faults.append(fault)
                continue
            try:
                wanted = attributes(output.mode, output.owner, output.group)
                if output.template:
                    self._templates.prove(output.template, template_fields(target, _SAMPLE, output))
                if without is None or not is_below(output.path, without):
                    self._files.prove_usable(posixpath.dirname(output.path), wanted)
                if os.path.isdir(output.path) and not os.path.islink(output.path):
                    faults.append(f"{output.path}: a directory has this name")
            except PublishError as error:
                faults.append(str(error))
        return faults

    def templates_of(self, target: Target, token: Token) -> dict[str, str]:
        """By path: why a template could not be filled in with this token."""
        faults: dict[str, str] = {}
        for output in target.outputs:
            try:
                content_of(target, token, output, self._templates)
            except PublishError as error:
                faults[output.path] = str(error)
        return faults
