"""What a config depends on besides itself: which files, whose they are, and whether their content changed."""

from __future__ import annotations

import errno
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from typing import Final

from bearerd.model import Client, Config, Reference, Target
from bearerd.regular import NotRegularError, read_regular

# The config's own bound; a secret or template is far smaller. Beyond it a change is not seen.
_MOST_BYTES: Final = 16 * 2**20
# No descriptors, no memory, or a disk that fails now.
_TELLS_NOTHING: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO, errno.EINTR})


class Sources:
    """The files behind a config. A content is known by its digest only: secrets are among them."""

    def __init__(self, config: Config) -> None:
        self._config: dict[str, bytes] = {}
        self._secrets: dict[str, bytes] = {}
        self._clients: dict[str, set[str]] = {}
        self._templates: dict[str, bytes] = {}
        self._tokens: dict[str, set[str]] = {}
        self.take(config)

    def take(self, config: Config) -> None:
        """Go on with the files of another config.

        What is known of a file stays known: what was written since the last look is still a change.
        """
        clients: defaultdict[str, set[str]] = defaultdict(set)
        tokens: defaultdict[str, set[str]] = defaultdict(set)
        for target in config.targets:
            for reference in _references(target):
                if reference.kind == "file":
                    clients[reference.at].add(target.client.name)
            for output in target.outputs:
                if output.template.startswith("/"):
                    tokens[output.template].add(target.full_name)
        self._clients, self._tokens = dict(clients), dict(tokens)
        self._paths = (*config.sources, *config.source_directories)
        self._config = {path: self._config.get(path) or _digest(path) for path in self._paths}
        self._secrets = {path: self._secrets.get(path) or _digest(path) for path in clients}
        self._templates = {path: self._templates.get(path) or _digest(path) for path in tokens}

    def paths(self) -> Iterable[str]:
        """The absolute paths to watch: the files, and each directory in which more of the config may appear."""
        config = [path if path.startswith("/") else os.path.join(os.getcwd(), path) for path in self._paths]
        # Not os.path.abspath: it takes `link/..` for nothing, and the kernel does not.
        directories = [os.path.join(path, ".") for path in config if os.path.isdir(path)]
        return [*config, *self._clients, *self._tokens, *directories]

    def config_changed(self) -> bool:
        """Whether a file of the config is another since the last look, or one more or less is there."""
        before, self._config = self._config, {path: _digest(path, self._config[path]) for path in self._paths}
        return self._config != before

    def clients_changed(self) -> set[str]:
        """The clients of whose files one is another since the last look."""
        before, self._secrets = self._secrets, {path: _digest(path, self._secrets[path]) for path in self._clients}
        return _whose(self._clients, before, self._secrets)

    def templates_changed(self) -> set[str]:
        """The tokens of whose templates one is another since the last look."""
        before, self._templates = self._templates, {path: _digest(path, self._templates[path]) for path in self._tokens}
        return _whose(self._tokens, before, self._templates)


def _whose(names: dict[str, set[str]], before: dict[str, bytes], now: dict[str, bytes]) -> set[str]:
    return {name for path, digest in now.items() if digest != before[path] for name in names[path]}


def _references(target: Target) -> Iterator[Reference]:
    client: Client = target.client
    several = (client.client_id, *client.client_secret, client.private_key, client.certificate, client.assertion)
    for one in (*several, *(value for _, value in target.parameters)):
        if isinstance(one, Reference):
            yield one


def _digest(path: str, before: bytes = b"") -> bytes:
    """Of a file its content, owner and mode, of a directory its names; nothing of what is not there or cannot be read.

    The mode matters: a secret that was refused because others could read it may be used after a chmod.

    `before` where nothing can be told, such as when no descriptors are left: that is not a change.
    """
    try:
        if os.path.isdir(path):
            return blake2b("\0".join(sorted(os.listdir(path))).encode(errors="surrogateescape")).digest()
        status = os.stat(path)
        attributes = f"{status.st_uid}:{status.st_gid}:{status.st_mode:o}:".encode()
        return blake2b(attributes + read_regular(path, _MOST_BYTES)).digest()
    except NotRegularError:
        return b""
    except OSError as error:
        return before if error.errno in _TELLS_NOTHING else b""
