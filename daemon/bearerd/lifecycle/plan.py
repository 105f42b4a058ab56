"""The difference between two configs, by the names of targets. Pure.

If a target's identity (provider, client id, scope, parameters, auth) is unchanged, its token is kept, and the change
costs no request. Otherwise it needs a new grant.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from bearerd.model import Config, Output, Target
from bearerd.plural import counted


@dataclass(frozen=True, slots=True)
class Plan:
    """The changes. Targets are those of the new config, except in `stop`."""

    start: tuple[Target, ...] = ()
    change: tuple[Target, ...] = ()
    """Targets that keep their token: other files, another schedule, another way to the same provider."""
    renew: tuple[Target, ...] = ()
    """Targets that need a new token. The old one stays in their files until then."""
    stop: tuple[Target, ...] = ()
    gone: Mapping[str, tuple[Output, ...]] = field(default_factory=dict)
    """By target of the old config: its files that are no longer in the config."""
    changed_clients: frozenset[str] = frozenset()
    """Clients whose config changed, so that their provider may answer differently."""

    def __str__(self) -> str:
        counts = {
            "added": len(self.start),
            "changed": len(self.change),
            "to be requested again": len(self.renew),
            "removed": len(self.stop),
        }
        parts = [(count, what) for what, count in counts.items() if count]
        if not parts:
            return "no token changed"
        (count, what), *others = parts
        first = f"{counted(count, 'token')} {what}"
        return ", ".join([first, *(f"{count} {what}" for count, what in others)])


def plan(old: Config, new: Config) -> Plan:
    """The changes from one config to the next."""
    before = {target.full_name: target for target in old.targets}
    after = {target.full_name: target for target in new.targets}
    changed = [
        target
        for name, target in after.items()
        if name in before and target is not before[name] and target != before[name]
    ]
    renew = [target for target in changed if needs_grant(before[target.full_name], target)]
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
        changed_clients=frozenset(
            target.client.name
            for target in new.targets
            if clients.get(target.client.name, target.client) != target.client
        ),
    )


def needs_restart(old: Config, new: Config) -> list[str]:
    """The changed keys that take effect only after a restart."""
    if old.directory != new.directory:
        return ["output.directory"]  # other keys have their defaults from it
    fixed = {
        "state_directory": (old.state_directory, new.state_directory),
        "control": (old.control, new.control),
        "listen": (old.listen, new.listen),
    }
    return [key for key, (was, wanted) in fixed.items() if was != wanted]


def needs_grant(old: Target, new: Target) -> bool:
    """Whether the new config needs another token."""
    return old.identity() != new.identity() or old.client.client_id != new.client.client_id
