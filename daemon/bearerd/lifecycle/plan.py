"""What a changed config means for what is running. Pure.

A token is told by its name, and what matters of it decides: asked for in the same way it is kept, whatever
else has changed, and costs no request; asked for in another way it is a new grant.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from bearerd.model import Config, Output, Target


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done; targets are as the new config has them, but for `stop`."""

    start: tuple[Target, ...] = ()
    change: tuple[Target, ...] = ()
    """Kept, with its token: other files, another schedule, another way to the same provider."""
    renew: tuple[Target, ...] = ()
    """To be asked for anew; the old token stays in its files until then."""
    stop: tuple[Target, ...] = ()
    gone: Mapping[str, tuple[Output, ...]] = field(default_factory=dict)
    """By the token that had them: files that no token has any more."""
    judged_anew: frozenset[str] = frozenset()
    """Clients whom their provider could answer otherwise now."""

    def __str__(self) -> str:
        counts = {
            "added": len(self.start),
            "changed": len(self.change),
            "to be asked for anew": len(self.renew),
            "removed": len(self.stop),
        }
        return ", ".join(f"{count} {what}" for what, count in counts.items() if count) or "no token has changed"


def plan(old: Config, new: Config) -> Plan:
    """From one config to the next."""
    before = {target.full_name: target for target in old.targets}
    after = {target.full_name: target for target in new.targets}
    changed = [target for name, target in after.items() if name in before and target != before[name]]
    renew = [target for target in changed if _asks_otherwise(before[target.full_name], target)]
    taken = {output.path for target in new.targets for output in target.outputs}
    gone = {
        name: outputs
        for name, target in before.items()
        if (outputs := tuple(output for output in target.outputs if output.path not in taken))
    }
    clients = {target.client.name: target.client for target in old.targets}
    return Plan(
        start=tuple(target for name, target in after.items() if name not in before),
        change=tuple(target for target in changed if target not in renew),
        renew=tuple(renew),
        stop=tuple(target for name, target in before.items() if name not in after),
        gone=gone,
        judged_anew=frozenset(
            target.client.name
            for target in new.targets
            if clients.get(target.client.name, target.client) != target.client
        ),
    )


def needs_restart(old: Config, new: Config) -> list[str]:
    """The keys whose change a running daemon cannot follow."""
    if old.directory != new.directory:
        return ["output.directory"]  # by which others have their defaults
    fixed = {
        "state_directory": (old.state_directory, new.state_directory),
        "control": (old.control, new.control),
        "listen": (old.listen, new.listen),
    }
    return [key for key, (was, wanted) in fixed.items() if was != wanted]


def _asks_otherwise(old: Target, new: Target) -> bool:
    """Whether the token on hand is another one than the new config asks for."""
    return old.identity() != new.identity() or old.client.client_id != new.client.client_id
