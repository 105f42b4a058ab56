"""All targets by name, and the module of each: a process imports only the one that it runs."""

from __future__ import annotations

from importlib import import_module

from fuzz.target import Target

MODULES = {
    "config": "config",
    "yaml": "config",
    "reader": "config",
    "value": "values",
    "reply": "replies",
    "response": "replies",
    "metadata": "replies",
    "socks": "proxies",
    "connect": "proxies",
    "record": "state",
    "ledger": "state",
    "state": "state",
    "entry": "share",
    "answers": "share",
    "resp": "share",
    "sentinel": "proxies",
    "redis-url": "share",
    "request": "api",
    "connections": "api",
    "status": "commands",
    "secret": "files",
    "key": "files",
    "template": "files",
    "pid": "files",
}
"""By name of a target, in the order of the table."""


def load(name: str) -> Target:
    """Import a target."""
    targets: tuple[Target, ...] = import_module(f"fuzz.inputs.{MODULES[name]}").TARGETS
    return next(target for target in targets if target.name == name)
