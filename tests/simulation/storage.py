"""What is on disk, in memory: files, records, and what hooks are owed. The ledger is a real file (`world.py`).

The real publisher costs half a millisecond for each token, which would be most of the time of a run. What it does to a
file system has tests of its own (`tests/publish`, `tests/faults`). Records and files have their real bytes here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bearerd.errors import PublishError
from bearerd.model import Config, Output, Target
from bearerd.publish import record as records
from bearerd.publish.publisher import Published
from bearerd.publish.record import Record
from bearerd.publish.render import render
from bearerd.terms import Token

Changed = Callable[[str, bytes | None], None]
"""Told of each file's path and new content; None where it was removed."""


@dataclass
class Disk:
    """What outlives a process."""

    files: dict[str, bytes] = field(default_factory=dict)
    records: dict[str, bytes] = field(default_factory=dict)
    """By the target's full name."""
    owed: set[str] = field(default_factory=set)
    memory: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    """What grant/rotation keeps, and when it was kept (Unix time)."""
    broken: bool = False
    """Whether every write fails."""
    delay: float = 0.0
    """Seconds that a removal takes."""


class Publisher:
    """As publish/publisher. `wait` lets a slow disk take its time."""

    def __init__(
        self, disk: Disk, changed: Changed, wait: Callable[[float], None], targets: tuple[Target, ...]
    ) -> None:
        self._disk = disk
        self._targets = targets
        self._changed = changed
        self._wait = wait
        self._seen: dict[str, bytes] = {}

    def adopt(self, config: Config) -> None:
        """The directory is the same."""
        self._targets = config.targets

    def look(self) -> None:
        """The lock stands."""

    def release(self) -> None:
        """The files stay."""

    def load(self, target: Target) -> Record | None:
        """The target's record."""
        content = self._disk.records.get(target.full_name)
        return None if content is None else records.load(content)

    def recorded(self, target: Target) -> bool:
        """Whether there is a record."""
        return target.full_name in self._disk.records

    def save(self, target: Target, record: Record) -> None:
        """Keep a record."""
        self._may_write(target.full_name)
        self._disk.records[target.full_name] = records.dump(record)

    def forget(self, target: Target) -> None:
        """Take the record away."""
        self._disk.records.pop(target.full_name, None)
        self._disk.owed.discard(target.full_name)

    def ensure(self, target: Target, token: Token, before: Callable[[], None] = lambda: None) -> Published:
        """Bring the files to what this token makes them."""
        written: list[str] = []
        faults: list[str] = []
        for output in target.outputs:
            content = render(target, token, output)
            if self._disk.files.get(output.path) != content:
                try:
                    self._may_write(output.path)
                except PublishError as error:
                    faults.append(str(error))
                    continue
                if not written:
                    before()
                self._write(output.path, content)
                written.append(output.path)
            self._seen[output.path] = content
        return Published(tuple(written), tuple(faults))

    def disturbed(self) -> set[str]:
        """The targets with files that somebody removed or altered."""
        return {
            target.full_name
            for target in self._targets
            if any(
                output.path in self._seen and self._disk.files.get(output.path) != self._seen[output.path]
                for output in target.outputs
            )
        }

    def unrecorded(self, _: float) -> set[str]:
        """The targets without a record."""
        return {target.full_name for target in self._targets} - self._disk.records.keys()

    def withdraw(self, outputs: Iterable[Output]) -> Published:
        """Take files away."""
        removed = []
        for output in outputs:
            if self._disk.delay:
                self._wait(self._disk.delay)
            self._seen.pop(output.path, None)
            if output.path in self._disk.files:
                self._write(output.path, None)
                removed.append(output.path)
        return Published(tuple(removed))

    def _may_write(self, what: str) -> None:
        if self._disk.broken:
            raise PublishError(f"{what}: no space left on device")

    def _write(self, path: str, content: bytes | None) -> None:
        if content is None:
            del self._disk.files[path]
        else:
            self._disk.files[path] = content
        self._changed(path, content)


class Hooks:
    """As hooks/hooks: a hook is a call of `failed`."""

    def __init__(self, disk: Disk, failed: Callable[[str], None]) -> None:
        self._disk = disk
        self._failed = failed

    def announce(self, target: Target) -> None:
        """The target's files are about to change."""
        self._disk.owed.add(target.full_name)

    def owed(self, target: Target) -> bool:
        """Whether an earlier process changed the files and told nobody."""
        return target.full_name in self._disk.owed

    def undone(self, name: str) -> bool:
        """Whether hooks of the target are owed."""
        return name in self._disk.owed

    def changed(self, target: Target, *, first: bool) -> None:  # noqa: ARG002 - as hooks/hooks
        """All files are in place."""
        self._disk.owed.discard(target.full_name)

    def failed(self, target: Target) -> None:
        """The token stopped being renewable."""
        self._failed(target.full_name)

    def forget(self, name: str) -> None:
        """The target is no more."""
        self._disk.owed.discard(name)

    def tick(self) -> None:
        """Nothing is late."""

    def stop(self, within: float) -> None:
        """Nothing runs."""


class Memory:
    """As publish/state: what grant/rotation keeps over restarts."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk

    def close_directories(self) -> None:
        """None is open."""

    def load(self, kind: str, name: str) -> Mapping[str, Any] | None:
        """What was kept under a name."""
        return self._disk.memory.get((kind, name))

    def save(self, kind: str, name: str, fields: Mapping[str, Any]) -> None:
        """Keep this under a name."""
        self._disk.memory[kind, name] = dict(fields)

    def key(self) -> bytes:
        """What fingerprints are made with: the same in every run."""
        return b"\x07" * 32
