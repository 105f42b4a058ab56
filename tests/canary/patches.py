"""Changes bearerd in a process that is started: it raises where it is told to, or tells what it must not."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

_HURRY: Final = """
import bearerd.lifecycle.schedule, bearerd.service.engine, bearerd.service.run
bearerd.lifecycle.schedule._AFTER_EXCEPTION = bearerd.service.engine._BETWEEN_REQUESTS = 0.1
bearerd.service.run.CHECK_CLOCKS_EVERY = 0.5
"""
"""A target is tried again soon after an exception, and the main loop looks at everything often."""
_RAISES: Final = """
import importlib, itertools, os
def _break(name, kind, nth):
    module, _, path = name.partition(":")
    *holders, last = path.split(".")
    holder = importlib.import_module(module)
    for part in holders:
        holder = getattr(holder, part)
    original, calls = getattr(holder, last), itertools.count(1)
    def broken(*values, **named):
        if next(calls) == nth:
            with open(FIRED, "a") as fired:
                fired.write(name + "\\n")
            said = [SECRET]
            for value in [*values, *named.values()]:
                said.append(repr(value))
                for field in ("secret", "body", "access_token", "headers", "private_key"):
                    said.append(repr(getattr(value, field, "")))
            raise kind("of all things: " + " ".join(said))
        return original(*values, **named)
    setattr(holder, last, broken)
"""


def patch(directory: Path, *lines: str) -> dict[str, str]:
    """The environment in which Python runs these lines first."""
    place = Path(tempfile.mkdtemp(prefix="patch-", dir=directory))
    place.chmod(0o700)
    (place / "sitecustomize.py").write_text("\n".join([*lines, ""]))
    return {"PYTHONPATH": str(place)}


def raising(directory: Path, secret: str, points: Sequence[tuple[str, str, int]]) -> tuple[dict[str, str], Path]:
    """The environment in which functions raise an exception that tells a secret and all that they were given.

    A point is a function, such as `bearerd.grant.perform:Grants.perform`, the type of the exception, and at which call
    it is raised. Also returns the file in which the points are noted that were reached.
    """
    fired = directory / f"fired-{len(list(directory.iterdir()))}"
    lines = [_HURRY, f"FIRED, SECRET = {str(fired)!r}, {secret!r}", _RAISES]
    lines += [f"_break({name!r}, {kind}, {nth})" for name, kind, nth in points]
    return patch(directory, *lines), fired


LEAKS: Final = """
import logging, os, threading
import bearerd.child, bearerd.cli, bearerd.crash, bearerd.grant.perform, bearerd.log, bearerd.publish.atomic
SECRET = open({secret!r}).read()
bearerd.crash.hide_texts = lambda: None

_understand = bearerd.grant.perform.understand
def understand(reply, *rest):
    bearerd.log.say(logging.DEBUG, "understood", body=reply.body.decode(errors="replace"))
    return _understand(reply, *rest)
bearerd.grant.perform.understand = understand

_start = bearerd.child.start
def start(argv, environ, *, more=None, **named):
    return _start([*argv, SECRET], environ, more=dict(more or dict()) | {{"LEAKED": SECRET}}, **named)
bearerd.child.start = start

_compose = bearerd.grant.perform.compose
def compose(*values):
    def raises():
        raise ValueError("a library was given " + SECRET)
    threading.Thread(target=raises, name="leak").start()
    return _compose(*values)
bearerd.grant.perform.compose = compose

_fsync = os.fsync
def fsync(descriptor):
    os.fchmod(descriptor, 0o644)
    with open({state!r}, "w") as file:
        file.write("mark " + SECRET)
    return _fsync(descriptor)
os.fsync = fsync
"""
"""A bearerd that logs replies at DEBUG, gives a secret to every program that it starts, as argument and in the
environment, tells it in an exception of a thread, makes files readable for everyone, and keeps the secret in a file."""
