"""Runs one hook to its end: a command, or a signal. A command gets names and files, not tokens."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from subprocess import Popen
from typing import Final

from bearerd import child
from bearerd.errors import HookFailed
from bearerd.hooks.signals import send_signal
from bearerd.log import say
from bearerd.model import Target
from bearerd.reason import not_started
from bearerd.terms import Hook
from bearerd.timeformat import duration

# The usual one of root and of services: a stricter one would surprise the authors of hooks.
_UMASK: Final = 0o022
# Seconds. SIGKILL ends a process within milliseconds, unless it belongs to another user or hangs in the kernel.
_DIES_WITHIN: Final = 1.0


def run(
    hook: Hook,
    targets: Sequence[Target],
    environ: Mapping[str, str],
    started: Callable[[Popen[bytes]], None] = lambda _: None,
) -> None:
    """Run a hook to its end for all of these tokens; raises HookFailed. `started` gets the process of a command."""
    if hook.signal is not None:
        send_signal(hook)
    else:
        _run_command(hook, targets, environ, started)


def only_name(targets: Sequence[Target]) -> str | None:
    """The name of the token, if there is only one."""
    names = {target.full_name for target in targets}
    return names.pop() if len(names) == 1 else None


def examine(hook: Hook) -> str | None:
    """Why a hook cannot run, as far as that is visible without running it."""
    if hook.signal is not None:
        return None
    program = hook.argv[0]
    if not os.path.exists(program):
        return f"hook {hook}: {program} does not exist"
    if not os.path.isfile(program):
        return f"hook {hook}: {program} is not a regular file"
    return None if os.access(program, os.X_OK) else f"hook {hook}: this user cannot execute {program}"


def _run_command(
    hook: Hook, targets: Sequence[Target], environ: Mapping[str, str], started: Callable[[Popen[bytes]], None]
) -> None:
    name = only_name(targets)
    more = {
        "BEARERD_TOKEN_NAMES": "\n".join(target.full_name for target in targets),
        "BEARERD_FILES": "\n".join(out.path for target in targets for out in target.outputs),
        **({} if name is None else {"BEARERD_TOKEN_NAME": name}),
    }
    try:
        process = child.start(hook.argv, environ, umask=_UMASK, more=more)
    except OSError as error:
        raise HookFailed(f"cannot be started: {_not_started(hook, error)}") from None
    done = False
    try:
        started(process)
        done = child.ended(process, hook.timeout)
    finally:
        if not done:
            _end(process, hook, name)
    if not done:
        raise HookFailed(f"timed out after {duration(hook.timeout)} and was killed")
    if process.returncode != 0:
        _end(process, hook, name)  # its children would run beside those of the next attempt
        ended = child.fault_of(process.returncode)
        raise HookFailed(f"{ended}; its output is not kept: run it by hand as the daemon's user to see why")


def _not_started(hook: Hook, error: OSError) -> str:
    if isinstance(error, FileNotFoundError) and os.path.exists(hook.argv[0]):
        return "the interpreter in its first line (#!) does not exist"
    return not_started(error)


def _end(process: Popen[bytes], hook: Hook, name: str | None) -> None:
    """Kill a command and its children, and wait for its end however long that takes: a hook runs once at a time."""
    child.kill(process)
    if not child.ended(process, _DIES_WITHIN):
        effect = "it runs as another user, or hangs in the kernel; the hook does not run again until it has ended"
        say(logging.ERROR, f"hook {hook}: pid {process.pid} cannot be killed: {effect}", name=name)
    child.wait_for_group(process)
