"""The files that a config depends on: the paths to watch, and which of them changed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from bearerd.model import Config
from bearerd.secrets.fingerprint import fingerprint_of
from bearerd.secrets.kinds import source_of
from bearerd.secrets.source import SecretSource
from bearerd.terms import Reference

_Key = TypeVar("_Key", str, Reference)


class Sources:
    """The files of a config, its secrets, `ca_file`s and templates. Only fingerprints of them are kept.

    The URL, the password and the `ca_file` of a share's server are not watched: they are read for each connection, and
    a server that refuses them is tried again every few seconds.
    """

    def __init__(self, config: Config, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._config: dict[str, bytes] = {}
        self._secrets: dict[Reference, bytes] = {}
        self._sources: dict[Reference, SecretSource] = {}
        self._clients: dict[Reference, set[str]] = {}
        self._keys: dict[Reference, bytes] = {}
        self._sealing: dict[Reference, set[str]] = {}
        self._authorities: dict[str, bytes] = {}
        self._trusting: dict[str, set[str]] = {}
        self._templates: dict[str, bytes] = {}
        self._tokens: dict[str, set[str]] = {}
        self.take(config)

    def take(self, config: Config) -> None:
        """Replace the config.

        Fingerprints of files that the new config uses too are kept: what was written since the last look is still
        reported as a change.
        """
        sources: dict[Reference, SecretSource] = {}
        clients: dict[Reference, set[str]] = {}
        sealing: dict[Reference, set[str]] = {}
        trusting: dict[str, set[str]] = {}
        tokens: dict[str, set[str]] = {}
        for target in config.targets:
            for reference in target.references:
                if reference not in sources:
                    sources[reference] = source_of(reference, self._environ)
                if sources[reference].paths():
                    clients.setdefault(reference, set()).add(target.client.name)
            share = target.client.share
            if share is not None and share.key is not None:
                source = sources.setdefault(share.key, source_of(share.key, self._environ))
                if source.paths():
                    sealing.setdefault(share.key, set()).add(target.client.name)
            if ca_file := target.client.provider.ca_file:
                trusting.setdefault(ca_file, set()).add(target.client.name)
            for output in target.outputs:
                if output.template.startswith("/"):
                    tokens.setdefault(output.template, set()).add(target.full_name)
        self._sources, self._clients, self._sealing = sources, clients, sealing
        self._trusting, self._tokens = trusting, tokens
        self._config = _kept(self._config, (*config.sources, *config.source_directories), fingerprint_of)
        self._secrets = _kept(self._secrets, clients, lambda one: sources[one].fingerprint())
        self._keys = _kept(self._keys, sealing, lambda one: sources[one].fingerprint())
        self._authorities = _kept(self._authorities, trusting, fingerprint_of)
        self._templates = _kept(self._templates, tokens, fingerprint_of)

    def add(self, paths: Iterable[str]) -> bool:
        """Add files to those of the config, until the next `take`. Returns whether any are new.

        What was read of a new one may be out of date: it may have changed before its first fingerprint, at the next
        look. So the config has to be loaded again after that.
        """
        new = dict.fromkeys(set(paths) - self._config.keys(), b"")
        self._config |= new
        return bool(new)

    def paths(self) -> Iterable[str]:
        """The absolute paths to watch: the files, and each directory in which more of the config may appear."""
        # Not os.path.abspath: it removes `link/..`, which the kernel resolves.
        config = [path if path.startswith("/") else os.path.join(os.getcwd(), path) for path in self._config]
        directories = [os.path.join(path, ".") for path in config if os.path.isdir(path)]
        references = dict.fromkeys((*self._clients, *self._sealing))
        secrets = [path for reference in references for path in self._sources[reference].paths()]
        return [*config, *secrets, *self._trusting, *self._tokens, *directories]

    def config_changed(self) -> bool:
        """Whether a file of the config changed since the last look, appeared or disappeared."""
        before, self._config = self._config, _look(self._config)
        return self._config != before

    def clients_changed(self) -> set[str]:
        """The clients that use a secret which changed since the last look."""
        before, self._secrets = self._secrets, self._fingerprints(self._secrets)
        return _concerned(self._clients, before, self._secrets)

    def keys_changed(self) -> set[str]:
        """The clients whose `share.key` changed since the last look."""
        before, self._keys = self._keys, self._fingerprints(self._keys)
        return _concerned(self._sealing, before, self._keys)

    def templates_changed(self) -> set[str]:
        """The tokens that use a template which changed since the last look."""
        before, self._templates = self._templates, _look(self._templates)
        return _concerned(self._tokens, before, self._templates)

    def authorities_changed(self) -> set[str]:
        """The clients whose `ca_file` changed since the last look."""
        before, self._authorities = self._authorities, _look(self._authorities)
        return _concerned(self._trusting, before, self._authorities)

    def _fingerprints(self, before: Mapping[Reference, bytes]) -> dict[Reference, bytes]:
        """The fingerprints of these secrets now."""
        return {one: self._sources[one].fingerprint(known) for one, known in before.items()}


def _kept(before: Mapping[_Key, bytes], keys: Iterable[_Key], make: Callable[[_Key], bytes]) -> dict[_Key, bytes]:
    """The fingerprints of these files: the known ones, and new ones of the others."""
    return {key: before[key] if key in before else make(key) for key in keys}


def _look(before: Mapping[str, bytes]) -> dict[str, bytes]:
    """The fingerprints of these files now."""
    return {path: fingerprint_of(path, known) for path, known in before.items()}


def _concerned(users: Mapping[_Key, set[str]], before: Mapping[_Key, bytes], now: Mapping[_Key, bytes]) -> set[str]:
    """The users of what changed."""
    return {name for key, names in users.items() if now[key] != before[key] for name in names}
