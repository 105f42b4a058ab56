from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from support import canary, tap

# The time of an example depends on the load of the machine more than on the code.
settings.register_profile("bearerd", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("bearerd")

# Hundreds of tests start the command. Without bytecode on disk each start would compile all modules again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

_WATCH = canary.Watch()
_SEEN: Counter[str] = Counter()


def pytest_configure(config: pytest.Config) -> None:
    """Let all processes that tests start tell their secrets and their log (`support.canary`)."""
    canary.watch(_WATCH)
    os.environ.update(_WATCH.tap.environ)
    tap.install(_WATCH.tell)
    config.add_cleanup(_WATCH.close)


@pytest.fixture(scope="module", autouse=True)
def _secrets_of_the_module() -> None:
    """Look for the secrets of each test file in what that file's tests show: others may use the same text as a name."""
    _WATCH.canary = canary.Canary()


@pytest.fixture(autouse=True)
def _no_secret_is_shown(_secrets_of_the_module: None) -> Iterator[None]:
    """Fail a test in which a secret or a token appears in the log, at DEBUG in either format, or in any output."""
    known = len(_WATCH.canary)
    yield
    hits = _WATCH.hits()
    _SEEN.update(secrets=len(_WATCH.canary) - known, hits=len(hits))
    assert not hits, "shown:\n" + "\n".join(map(str, hits))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Tell the main process what a worker of pytest-xdist looked at."""
    _SEEN.update(lines=_WATCH.lines, bytes=_WATCH.bytes)
    if (output := getattr(session.config, "workeroutput", None)) is not None:
        output["canary"] = dict(_SEEN)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Add what a worker looked at."""
    _SEEN.update(getattr(node, "workeroutput", {}).get("canary", {}))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how much was looked at: a canary that hears nothing would be silent, too."""
    shown = f"{_SEEN['bytes']} bytes with {_SEEN['lines']} lines of the log, {_SEEN['secrets']} secrets"
    terminalreporter.write_line(f"canary: {shown}, {_SEEN['hits']} hits")
