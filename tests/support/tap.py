"""Listens inside a process that imports bearerd: its log at DEBUG in both formats, and the secrets that it handles.

The log that bearerd itself writes stays as configured, so no test notices. Nothing of the product knows about this:
`sitecustomize` installs it in every Python process that inherits the environment of `support.canary`, which is why this
module imports nothing but the standard library, and little of that.
"""

from __future__ import annotations

import importlib.machinery
import json
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import ModuleType
from typing import Any, Final

DIRECTORY: Final = "BEARERD_TEST_TAP"
"""The environment variable that names the directory for what processes tell."""

Tell = Callable[[str, str], None]
"""Gets the kind of a text (a line of the log, or the name of a secret) and the text."""

LINE: Final = "log"
PUBLIC: Final = "public"
"""A text that may be shown, such as a client id, even where it was read like a secret."""


def install(tell: Tell) -> None:
    """Listen in this process, also to modules that are imported later."""
    hooks: dict[str, Callable[[ModuleType, Tell], None]] = {
        "bearerd.log": _log,
        "bearerd.terms": _token,
        "bearerd.secrets.source": _source,
        "bearerd.grant.request": _request,
        "bearerd.grant.credentials": _client_id,
    }
    for name in [name for name in hooks if name in sys.modules]:
        hooks.pop(name)(sys.modules[name], tell)
    sys.meta_path.insert(0, _Finder(hooks, tell))


def install_for(directory: str) -> None:
    """Listen, and append everything to files in a directory; a process that cannot write there stays as it is."""
    known: set[str] = set()

    def tell(kind: str, text: str) -> None:
        if kind != LINE:
            if text in known:
                return
            known.add(text)
        line = json.dumps([kind, text]).encode() + b"\n"
        # Opened each time: the process closes descriptors that it does not know, and tests count them.
        with suppress(OSError):
            path = f"{directory}/{os.getpid()}-{os.geteuid()}"
            descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                os.write(descriptor, line)
            finally:
                os.close(descriptor)

    install(tell)


class _Finder:
    """Finds modules as usual, and runs a hook once one of them is imported."""

    def __init__(self, hooks: dict[str, Callable[[ModuleType, Tell], None]], tell: Tell) -> None:
        self._hooks = hooks
        self._tell = tell

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        hook = self._hooks.pop(name, None)
        if hook is None:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is None or spec.loader is None:
            return None
        loader: Any = spec.loader
        execute = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            hook(module, self._tell)

        loader.exec_module = exec_module
        return spec


# -- what is listened to ---------------------------------------------------------------------------


def _log(module: Any, tell: Tell) -> None:
    """Every record, whatever the level, as both formats write it."""
    logger = module.LOGGER

    def heard(record: Any) -> bool:
        for line in _formatted(record):
            tell(LINE, line)
        return bool(record.levelno >= logger.getEffectiveLevel())

    logger.isEnabledFor = lambda _level: True
    logger.addFilter(heard)


def _formatted(record: Any) -> list[str]:
    logs: Any = sys.modules.get("bearerd.service.logs")
    if getattr(logs, "_Json", None) is not None:  # else it was not imported, or not to its end
        return [logs._Text(timed=True).format(record), logs._Json().format(record)]
    fields = getattr(record, "fields", {})
    return [" ".join([record.getMessage(), *map(str, fields.values()), json.dumps(fields, default=str)])]


def _token(module: Any, tell: Tell) -> None:
    def told(token: Any) -> None:
        tell("token", token.access_token)
        if "_token" in token.extra:
            extra = json.loads(token.extra)
            for name in ("id_token", "refresh_token"):
                if isinstance(extra.get(name), str):
                    tell(name, extra[name])

    _after_init(module.Token, told)


def _source(module: Any, tell: Tell) -> None:
    read = module.SecretSource.read

    def reading(self: Any) -> Any:
        text = read(self)
        tell("secret", text)
        return text

    module.SecretSource.read = reading


def _request(module: Any, tell: Tell) -> None:
    def told(request: Any) -> None:
        for text in request.secrets:
            tell("part of a request", text)

    _after_init(module.Request, told)


def _client_id(module: Any, tell: Tell) -> None:
    read = module.read_client_id

    def reading(client: Any, environ: Any) -> Any:
        text = read(client, environ)
        tell(PUBLIC, text)
        return text

    module.read_client_id = reading


def _after_init(kind: Any, told: Callable[[Any], None]) -> None:
    init = kind.__init__

    def __init__(self: Any, *values: Any, **named: Any) -> None:  # noqa: N807 - it replaces the method
        init(self, *values, **named)
        told(self)

    kind.__init__ = __init__


if __name__ == "bearerd_tap" and DIRECTORY in os.environ:  # in a process that a test started
    install_for(os.environ[DIRECTORY])
