"""Prometheus' own tools, and a status in which every metric has a value."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from prometheus_client.parser import text_string_to_metric_families

from bearerd.admission.types import ClientView, ProviderView, Refusal, View
from bearerd.api.counts import Counts, Histogram
from bearerd.api.metrics import expose
from bearerd.api.status import HookStatus, Status
from bearerd.grant.outcome import KINDS, Refused
from bearerd.model import Config
from bearerd.share.types import ShareView
from bearerd.target_status import TargetStatus
from bearerd.terms import Hook
from support.clock import START
from support.targets import TARGET, target

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not here: apt-get install prometheus"
)
needs_prometheus = pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="prometheus is not here: apt-get install prometheus"
)
NAME = re.compile(r"\bbearerd_[a-z_]+\b")
"""A metric of bearerd, in an expression or a text."""


def promtool(*arguments: str | Path, given: bytes = b"") -> str:
    """Run promtool, which must find no error; returns its output."""
    done = subprocess.run(["promtool", *map(str, arguments)], input=given, capture_output=True, check=False)
    said = (done.stdout + done.stderr).decode()
    assert done.returncode == 0, said
    return said


def target_status(name: str = "bci", **changes: object) -> TargetStatus:
    """An hour's token, twenty minutes old."""
    now = START.boot
    given: dict[str, object] = {
        "target": target(name),
        "obtained": now - 1200,
        "expires": now + 2400,
        "on_disk": True,
        "failure": None,
        "due": now + 1500,
        "next_refresh": now + 1500,
    }
    return TargetStatus(**(given | changes))  # type: ignore[arg-type]  # a test's own figures


def status(*tokens: TargetStatus | tuple[TargetStatus, HookStatus], **changes: object) -> Status:
    """A daemon that keeps these."""
    pairs = tuple(token if isinstance(token, tuple) else (token, HookStatus()) for token in tokens)
    given: dict[str, object] = {
        "version": "1.2.3",
        "pid": 42,
        "now": START,
        "started": START.boot - 100,
        "config": Config("/run/bearerd", "/var/lib/bearerd", targets=tuple(one.target for one, _ in pairs)),
        "loaded": START.boot - 50,
        "config_error": None,
        "alive": True,
        "tokens": pairs,
        "counts": Counts(),
        "admission": View({}, {}),
    }
    return Status(**(given | changes))  # type: ignore[arg-type]  # a test's own figures


def share(state: Literal["starting", "up", "down"] = "up", **changes: object) -> ShareView:
    """A server that is in this state for five minutes."""
    given: dict[str, object] = {
        "name": "rediss://redis.internal:6379/0",
        "clients": (TARGET.client.name,),
        "state": state,
        "since": START.boot - 300,
        "error": "",
        "error_at": None,
        "waiting": 0,
        "taken": 0,
        "stored": 0,
        "errors": 0,
    }
    return ShareView(**(given | changes))  # type: ignore[arg-type]  # a test's own figures


def eventful() -> Status:
    """Something of everything."""
    hooked = target_status(
        target=target("risk", on_change=(Hook(argv=("true",)),)), failure=Refused("no"), failing_since=START.boot
    )
    outcomes = tuple(range(1, len(KINDS) + 1))
    return status(
        target_status(outcomes=outcomes),
        (hooked, HookStatus(1, START.boot, "exit 1")),
        counts=Counts(
            {(TARGET.client.provider.name, kind): 1 for kind in KINDS.values()},
            {TARGET.client.provider.name: Histogram().plus(0.3)},
            {("files", "success"): 1, ("hooks", "success"): 1, ("reloads", "failure"): 1},
        ),
        admission=View(
            {TARGET.client.name: ClientView("open", Refusal(Refused("no"), 2, START.boot + 60, own=False), 1, 3)},
            {TARGET.client.provider.url: ProviderView(1, 8, 9.5, {"refused": 3}, 12.0)},
        ),
        shares=(share("down", error="connection refused; check it", error_at=START.boot - 30, errors=2, waiting=1),),
    )


def names() -> Iterator[str]:
    """Every metric as expressions name it; for a histogram its three names."""
    for family in text_string_to_metric_families(b"".join(expose(eventful())).decode()):
        yield from {sample.name for sample in family.samples}
