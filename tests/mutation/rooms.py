"""What is mutated, and by which tests: a room is a set of modules that the same tests decide."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import bearerd

ROOT = Path(bearerd.__file__).parent
TESTS = Path(__file__).parent.parent


@dataclass(frozen=True, slots=True)
class Room:
    """Modules, as `admission/core` or `share/*`, and the tests at the level where their behaviour is decided."""

    modules: tuple[str, ...]
    tests: tuple[str, ...]
    wall: float = field(default=20.0, kw_only=True)
    """Seconds that a test may wait, besides ten times what it takes without a mutant."""
    examined: bool = False
    """Whether a full run has ended, and each survivor has its reason. The short form takes its sample from these."""

    def files(self) -> dict[str, Path]:
        """Each module and its file."""
        paths = [path for pattern in self.modules for path in sorted(ROOT.glob(f"{pattern}.py"))]
        return {path.relative_to(ROOT).with_suffix("").as_posix(): path for path in paths}


ROOMS = (
    Room(("lifecycle/policy",), ("lifecycle/test_policy.py", "lifecycle/test_due_times.py"), examined=True),
    Room(
        ("lifecycle/next_attempt",), ("lifecycle/test_next_attempt.py", "lifecycle/test_controller.py"), examined=True
    ),
    Room(("lifecycle/reconcile",), ("lifecycle/test_reconcile.py",), examined=True),
    Room(("grant/lifetime",), ("grant/test_lifetime.py",), examined=True),
    Room(
        ("grant/reply",),
        (
            *("grant/test_reply.py", "grant/test_reply_details.py", "grant/test_times.py"),
            *("grant/test_token_field.py", "grant/test_hints.py"),
        ),
        examined=True,
    ),
    Room(
        ("publish/atomic",),
        (
            *("publish/test_atomic.py", "publish/test_atomic_files.py", "publish/test_walk.py", "publish/test_kept.py"),
            *("publish/test_private.py", "publish/test_publisher.py"),
        ),
        examined=True,
    ),
    Room(
        ("publish/record",),
        ("publish/test_record.py", "publish/test_private.py", "publish/test_state.py"),
        examined=True,
    ),
    # Not test_world.py and test_simulations.py: they take minutes, and what they find is decided by the others.
    Room(
        ("admission/*",),
        tuple(
            f"admission/test_{name}.py"
            for name in (
                *("admission", "attempt", "breaker", "breaker_state", "core", "fleet", "journal", "ledger"),
                *("parts", "queue", "rate", "registry", "retry", "settling", "view", "waiting"),
            )
        ),
        examined=True,
    ),
    Room(
        tuple(f"share/{name}" for name in ("entry", "key_cache", "keys", "names", "policy", "replies", "seal")),
        tuple(f"share/test_{name}.py" for name in ("entry", "key_cache", "names", "policy", "replies", "seal")),
        examined=True,
    ),
    Room(
        tuple(f"share/{name}" for name in ("answers", "entries", "fleet", "sealer", "server")),
        (
            *("share/test_entries.py", "share/test_fleet.py", "share/test_sealer.py", "share/test_server.py"),
            *("lifecycle/test_shared.py", "admission/test_fleet.py"),
        ),
        examined=True,
    ),
    Room(("share/redis_errors",), ("share/test_redis_errors.py",), examined=True),
    # Most mutants of what waits for a server let a test wait for nothing, so a test may not wait for long.
    Room(
        ("share/redis_client", "share/redis_connection", "share/redis_store", "share/types"),
        tuple(
            f"share/test_{name}.py"
            for name in (
                *("entry", "redis_client", "redis_connection", "redis_deadlines", "redis_errors", "redis_store"),
                "replies",
            )
        ),
        wall=5.0,
        examined=True,
    ),
    Room(("share/link", "share/parts"), ("share/test_link_state.py",), wall=5.0, examined=True),
)
