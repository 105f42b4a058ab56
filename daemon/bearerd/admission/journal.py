"""The ledger's file: one per state directory, append-only, locked while it is open.

A line is a JSON array: the times of both clocks, then an entry (`ledger.py`). The first line has the format, its
version, and the id of the boot to which the boot clock's times belong. Lines are written before an attempt is sent,
without fsync: a killed process loses none, and a power failure may lose the last seconds. The file is rewritten when
it is opened, when it has grown, and when another process removed it.

If the file cannot be written, bearerd logs a warning and continues without it.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import posixpath
import stat
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Final

from bearerd.admission.ledger import Entry
from bearerd.clock import Clock
from bearerd.descriptors import release
from bearerd.log import say
from bearerd.reason import reason_of

NAME: Final = "ledger"
_FORMAT: Final = "bearerd-ledger"
VERSION: Final = 1
# As for records (publish/version). A number of hundreds of digits would be more than a file name may have.
_HIGHEST_VERSION: Final = 999_999
# A day of a limit such as 100,000 a day fits. A larger file is not a ledger.
_MOST_BYTES: Final = 16 * 1024 * 1024
# Rewriting costs an fsync, so it has to save this much, and the file has to have doubled.
_WORTH_REWRITING: Final = 256 * 1024
_OPEN: Final = os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


class Journal:
    """`<directory>/ledger`. Not safe for threads."""

    def __init__(self, directory: str, clock: Clock) -> None:
        """Open and lock the file, and read the entries of earlier processes into `past`."""
        # With DynamicUser=, systemd makes the directory a symlink.
        self._directory = os.path.realpath(directory)
        self._path = posixpath.join(self._directory, NAME)
        self._clock = clock
        self._descriptor = -1
        self._size = self._rewritten = 0
        self.fault = ""
        """Why it is not written; empty if it is."""
        self.past: list[tuple[float, Entry]] = []
        """The entries of earlier processes, oldest first, each with its age in seconds."""
        try:
            os.makedirs(self._directory, 0o700, exist_ok=True)
            self.past = self._take()
        except OSError as error:
            self.close()
            self._cannot(error)

    def grown(self) -> bool:
        """Whether the file has grown enough to be rewritten."""
        return self._size > max(2 * self._rewritten, _WORTH_REWRITING)

    def append(self, entries: Iterable[Entry]) -> None:
        """Append entries with the current time."""
        if self._descriptor < 0:
            return
        now = self._clock.now()
        # After a fault, the file may end with half a line. The reader skips it if it does not lengthen the next one.
        content = b"\n" * bool(self.fault) + b"".join(_line(now.boot, now.wall, entry) for entry in entries)
        try:
            _write(self._descriptor, content)
        except OSError as error:
            self._cannot(error)
        else:
            self._size += len(content)
            if self.fault and not self.missing():  # what is appended to a removed file goes nowhere
                self.fault = ""

    def rewrite(self, entries: Iterable[tuple[float, Entry]]) -> None:
        """Replace the file's content with these entries, each with its age in seconds."""
        if self._descriptor < 0:
            return
        now = self._clock.now()
        content = json.dumps([_FORMAT, VERSION, self._clock.boot_id()]).encode() + b"\n"
        content += b"".join(_line(now.boot - age, now.wall - age, entry) for age, entry in entries)
        temporary = posixpath.join(self._directory, f".{NAME}.new")
        try:
            os.makedirs(self._directory, 0o700, exist_ok=True)  # a cleaner may have removed it
            with suppress(FileNotFoundError):
                os.unlink(temporary)
            descriptor = os.open(temporary, _OPEN | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                _lock(descriptor)  # before the rename, so that no other process can take the lock
                _write(descriptor, content)
                os.fsync(descriptor)
                os.rename(temporary, self._path)
            except OSError:
                os.close(descriptor)
                with suppress(OSError):
                    os.unlink(temporary)
                raise
        except OSError as error:
            self._size = self._rewritten = max(self._size, _WORTH_REWRITING)  # no new attempt at every sweep
            self._cannot(error)
            return
        self.close()
        self._descriptor = descriptor
        self._size = self._rewritten = len(content)
        self.fault = ""

    def missing(self) -> bool:
        """Whether another process removed or replaced the file."""
        if self._descriptor < 0:
            return False
        try:
            found = os.stat(self._path, follow_symlinks=False)
        except OSError:
            return True
        own = os.fstat(self._descriptor)
        return (found.st_dev, found.st_ino) != (own.st_dev, own.st_ino)

    def close(self) -> None:
        """Close the file, which releases its lock."""
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            with suppress(OSError):  # a quota, or a network file system; it is closed in any case
                os.close(descriptor)

    # -- inside --------------------------------------------------------------------------------

    def _take(self) -> list[tuple[float, Entry]]:
        """Open, lock and read the file. Anything that is not our ledger is moved aside."""
        while True:
            try:
                descriptor = os.open(self._path, _OPEN | os.O_CREAT, 0o600)
            except OSError:
                if os.path.islink(self._path) or os.path.isdir(self._path):
                    self._set_aside("not-a-file")
                    continue
                raise
            try:
                found = os.fstat(descriptor)
                if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
                    self._set_aside("not-ours")
                    release(descriptor)
                    continue
                _lock(descriptor)
                if not self._is_at_path(found):  # another process replaced it between our open and our lock
                    release(descriptor)
                    continue
                content = os.pread(descriptor, _MOST_BYTES + 1, 0)
            except OSError:
                release(descriptor)
                raise
            self._descriptor, self._size = descriptor, len(content)
            return self._understand(content)

    def _understand(self, content: bytes) -> list[tuple[float, Entry]]:
        if not content:
            return []
        lines = content.split(b"\n") if len(content) <= _MOST_BYTES else [b""]
        match _parsed(lines[0]):
            case [str(name), int(version), str(boot_id)] if (name, version) == (_FORMAT, VERSION):
                return self._aged(lines[1:], boot_id)
            case [str(name), int(version), *_] if name == _FORMAT:
                # Kept, so that a rollback to the version that wrote it works. A larger number is no version.
                self._leave(f"v{version}" if 0 <= version <= _HIGHEST_VERSION else "damaged")
            case _:
                self._leave("damaged")
        return []

    def _aged(self, lines: list[bytes], boot_id: str) -> list[tuple[float, Entry]]:
        now, same_boot = self._clock.now(), boot_id != "" and boot_id == self._clock.boot_id()
        entries: list[tuple[float, Entry]] = []
        for line in lines:
            match _parsed(line):  # half a line, from a crash or a full disk, is skipped
                case [int() | float() as boot, int() | float() as wall, *entry]:
                    # The boot clock cannot be set, but holds only for one boot. A time in the future counts as now.
                    with suppress(OverflowError):  # a number of hundreds of digits, from a damaged file
                        age = now.boot - boot if same_boot else now.wall - wall
                        entries.append((max(0.0, age), entry))
        return entries

    def _leave(self, suffix: str) -> None:
        """Move the file aside, and start a new one."""
        self._set_aside(suffix)
        self.close()  # its number may be another file's as soon as it is closed
        self._descriptor = os.open(self._path, _OPEN | os.O_CREAT | os.O_EXCL, 0o600)
        _lock(self._descriptor)

    def _set_aside(self, suffix: str) -> None:
        names = (f"{self._path}.{suffix}{number}" for number in ("", *(f".{each}" for each in range(2, 10))))
        aside = next((name for name in names if not os.path.lexists(name)), f"{self._path}.{suffix}.9")
        os.rename(self._path, aside)
        say(
            logging.WARNING,
            f"state: {self._path} is not a ledger that this version can read; it was moved to {aside}, and refusals "
            "and used rate limits from before are forgotten",
        )

    def _is_at_path(self, found: os.stat_result) -> bool:
        with suppress(OSError):
            there = os.stat(self._path, follow_symlinks=False)
            return (there.st_dev, there.st_ino) == (found.st_dev, found.st_ino)
        return False

    def _cannot(self, error: OSError) -> None:
        known, self.fault = self.fault, f"{self._path}: {_why(error)}"
        if not known:
            say(logging.WARNING, f"state: {self.fault}; refusals and used rate limits will be forgotten at a restart")


def _lock(descriptor: int) -> None:
    """Lock the file. Raises OSError (EWOULDBLOCK) if another process holds the lock."""
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _write(descriptor: int, content: bytes) -> None:
    """Write all of it. An error, of a full disk for example, may leave a part of it in the file."""
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]


def _line(boot: float, wall: float, entry: Entry) -> bytes:
    return json.dumps([round(boot, 6), round(wall, 3), *entry], separators=(",", ":")).encode() + b"\n"


def _parsed(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _why(error: OSError) -> str:
    if isinstance(error, BlockingIOError):
        return "another bearerd uses it; set another state_directory"
    return reason_of(error)
