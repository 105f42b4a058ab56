"""The ledger's file: real files, locks and processes."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bearerd.admission.journal import VERSION, Journal
from support.clock import FakeClock

ENTRY = ["refused", "c"]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def journal(tmp_path: Path, clock: FakeClock) -> Iterator[Journal]:
    made = Journal(str(tmp_path), clock)
    made.rewrite([])
    yield made
    made.close()


def reopened(tmp_path: Path, clock: FakeClock) -> list[tuple[float, list[object]]]:
    again = Journal(str(tmp_path), clock)
    again.close()
    return again.past


def test_appended_entries_are_read_with_their_age(tmp_path: Path, clock: FakeClock, journal: Journal) -> None:
    journal.append([ENTRY])
    clock.advance(5.0)
    journal.append([["spent", "p"]])
    journal.close()
    clock.advance(1.0)
    assert reopened(tmp_path, clock) == [(6.0, ENTRY), (1.0, ["spent", "p"])]


def test_a_file_that_cannot_be_started_again_is_no_other_file(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The number of a closed descriptor is the next opened file's.
    (tmp_path / "ledger").write_text("not a ledger")
    once = os.open

    def full(path: str, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_EXCL:
            raise OSError(errno.ENOSPC, "No space left on device")
        return once(path, flags, mode)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", full)
        journal = Journal(str(tmp_path), clock)
    with (tmp_path / "token").open("wb+") as token:
        journal.append([ENTRY])
        journal.rewrite([(0.0, ENTRY)])
        journal.close()
        os.fstat(token.fileno())
    assert "no space left" in journal.fault
    assert (tmp_path / "token").read_bytes() == b""


def test_a_ledger_in_a_place_that_is_no_directory_is_none(tmp_path: Path, clock: FakeClock) -> None:
    (tmp_path / "file").touch()
    output = os.fstat(1)
    journal = Journal(str(tmp_path / "file"), clock)
    assert os.path.samestat(os.fstat(1), output)  # nothing else was closed
    assert journal.fault
    assert not journal.missing()
    journal.append([ENTRY])
    journal.close()


def test_a_damaged_ledger_that_cannot_be_moved_aside_is_not_written(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    (tmp_path / "ledger").write_text("not a ledger")
    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", denied)
        journal = Journal(str(tmp_path), clock)
    journal.append([ENTRY])
    assert (tmp_path / "ledger").read_text() == "not a ledger"
    assert "permission denied" in journal.fault


def test_an_error_when_it_is_closed_is_none(tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(str(tmp_path), clock)
    once = os.close

    def fails(descriptor: int) -> None:
        once(descriptor)
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    with monkeypatch.context() as patch:
        patch.setattr(os, "close", fails)
        journal.close()
    assert not journal.missing()


def test_ages_use_the_wall_clock_after_a_reboot(tmp_path: Path, clock: FakeClock, journal: Journal) -> None:
    journal.append([ENTRY])
    journal.close()
    clock.advance(60.0)
    clock.reboot()
    assert [age for age, _ in reopened(tmp_path, clock)] == [pytest.approx(60.0)]


def test_setting_the_wall_clock_does_not_change_ages_within_one_boot(
    tmp_path: Path, clock: FakeClock, journal: Journal
) -> None:
    journal.append([ENTRY])
    journal.close()
    clock.advance(7.0)
    clock.step(-3600.0)
    assert [age for age, _ in reopened(tmp_path, clock)] == [7.0]


def test_an_entry_from_the_future_has_age_zero(tmp_path: Path, clock: FakeClock, journal: Journal) -> None:
    journal.append([ENTRY])
    journal.close()
    clock.reboot()
    clock.step(-3600.0)
    assert [age for age, _ in reopened(tmp_path, clock)] == [0.0]


def test_after_a_reboot_without_boot_ids_ages_use_the_wall_clock(
    tmp_path: Path, clock: FakeClock, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock, "boot_id", str)
    journal.rewrite([(3.0, ENTRY)])
    journal.close()
    clock.advance(60.0)
    clock.reboot()
    assert [age for age, _ in reopened(tmp_path, clock)] == [pytest.approx(63.0)]


def test_ages_are_kept_to_the_microsecond_within_a_boot_and_to_the_millisecond_beyond(
    tmp_path: Path, clock: FakeClock, journal: Journal
) -> None:
    clock.advance(0.4)
    journal.append([ENTRY])
    journal.close()
    clock.advance(1.234567)
    assert [age for age, _ in reopened(tmp_path, clock)] == [pytest.approx(1.234567, abs=1e-6)]
    clock.reboot()
    assert [age for age, _ in reopened(tmp_path, clock)] == [pytest.approx(1.234567, abs=1e-3)]


def test_rewriting_keeps_only_the_given_entries(tmp_path: Path, clock: FakeClock, journal: Journal) -> None:
    for _ in range(10):
        journal.append([ENTRY])
    journal.rewrite([(3.0, ["spent", "p"]), (2.0, ["spent", "q"])])
    journal.append([ENTRY])
    journal.close()
    assert reopened(tmp_path, clock) == [(3.0, ["spent", "p"]), (2.0, ["spent", "q"]), (0.0, ENTRY)]


def test_a_rewritten_ledger_is_on_disk_before_it_replaces_the_old_one(
    tmp_path: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".ledger.new").write_text("from a process that was killed")
    steps: list[str] = []
    fsync, rename = os.fsync, os.rename

    def synced(descriptor: int) -> None:
        steps.append(f"fsync {os.readlink(f'/proc/self/fd/{descriptor}')}")
        fsync(descriptor)

    def renamed(source: str, target: str) -> None:
        steps.append(f"rename {source} {target}")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "rename", renamed)
    journal.rewrite([(0.0, ENTRY)])
    new = tmp_path / ".ledger.new"
    assert steps == [f"fsync {new}", f"rename {new} {tmp_path / 'ledger'}"]


def test_a_rewrite_that_cannot_be_cleaned_up_either_names_the_first_fault(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(_: str) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    def full(*_: str) -> None:
        monkeypatch.setattr(os, "unlink", denied)
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", full)
        journal.rewrite([(0.0, ENTRY)])
    monkeypatch.undo()
    assert "no space left on device" in journal.fault.lower()


def test_the_file_is_rewritten_when_it_has_grown_and_not_again_at_once(journal: Journal) -> None:
    assert not journal.grown()
    journal.append([["refused", "c" * 1000]] * 200)
    assert not journal.grown(), "an fsync for less than 256 KiB"
    journal.append([["refused", "c" * 1000]] * 100)
    assert journal.grown()
    journal.rewrite([(0.0, ["refused", "c" * 1000])] * 280)
    journal.append([["refused", "c" * 1000]] * 270)
    assert not journal.grown(), "it has not doubled"
    journal.append([["refused", "c" * 1000]] * 20)
    assert journal.grown()


@pytest.mark.parametrize(
    "tail",
    [
        b'[1.0, 2.0, "refu',
        b"\x00\x00\x00",
        b"{}\n[]\n[1]\nnull\n",
        b"[" * 100_000,
        b"[1%s, 2.0]\n" % (b"0" * 400),  # larger than a float
    ],
)
def test_malformed_lines_are_skipped(tmp_path: Path, clock: FakeClock, journal: Journal, tail: bytes) -> None:
    journal.append([ENTRY])
    journal.close()
    with (tmp_path / "ledger").open("ab") as file:
        file.write(tail)
    assert reopened(tmp_path, clock)[0] == (0.0, ENTRY)


def test_a_ledger_of_another_version_is_moved_aside(
    tmp_path: Path, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    content = json.dumps(["bearerd-ledger", VERSION + 1, "boot-1"]) + '\n[1, 2, "refused", "c"]\n'
    (tmp_path / "ledger").write_text(content)
    assert reopened(tmp_path, clock) == []
    assert (tmp_path / f"ledger.v{VERSION + 1}").read_text() == content
    assert "moved to" in caplog.text


@pytest.mark.parametrize(
    "content", ["nonsense\n", "[]\n", '["something", 1, "boot-1"]\n', "\n", f'["bearerd-ledger", {10**300}, "b"]']
)
def test_a_file_that_is_not_a_ledger_is_moved_aside(tmp_path: Path, clock: FakeClock, content: str) -> None:
    (tmp_path / "ledger").write_text(content)
    again = Journal(str(tmp_path), clock)
    again.rewrite([])
    again.append([ENTRY])
    again.close()
    assert (tmp_path / "ledger.damaged").read_text() == content
    assert reopened(tmp_path, clock) == [(0.0, ENTRY)]


def test_a_file_that_is_not_a_ledger_is_moved_aside_and_makes_room_for_one(tmp_path: Path, clock: FakeClock) -> None:
    (tmp_path / "ledger").write_text("nonsense")
    before, umask = len(os.listdir("/proc/self/fd")), os.umask(0)
    try:
        first, second = Journal(str(tmp_path), clock), Journal(str(tmp_path), clock)
    finally:
        os.umask(umask)
    assert (tmp_path / "ledger").stat().st_mode & 0o777 == 0o600
    assert first.fault == ""
    assert "another bearerd uses it" in second.fault
    first.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_up_to_nine_files_that_are_not_ledgers_are_kept(tmp_path: Path, clock: FakeClock) -> None:
    for number in range(11):
        (tmp_path / "ledger").write_text(f"{number}: nonsense")
        assert reopened(tmp_path, clock) == []
    kept = {path.name: path.read_text()[:2] for path in tmp_path.iterdir() if path.name != "ledger"}
    numbers = {f"ledger.damaged.{number}": f"{number - 1}:" for number in range(2, 9)}
    assert kept == {"ledger.damaged": "0:", **numbers, "ledger.damaged.9": "10"}


def test_a_new_ledger_is_private_and_nothing_is_said_about_it(
    tmp_path: Path, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    umask = os.umask(0)
    try:
        made = Journal(str(tmp_path), clock)
    finally:
        os.umask(umask)
    made.close()
    assert os.listdir(tmp_path) == ["ledger"]
    assert (tmp_path / "ledger").stat().st_mode & 0o777 == 0o600
    assert (made.fault, made.past, caplog.records) == ("", [], [])


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: the owner of a file")
@pytest.mark.parametrize(
    ("mode", "owner", "trusted"),
    [(0o755, 0, True), (0o620, 0, False), (0o602, 0, False), (0o600, 1234, False)],
)
def test_a_ledger_that_others_own_or_can_write_is_not_used(
    tmp_path: Path, clock: FakeClock, journal: Journal, mode: int, owner: int, trusted: bool
) -> None:
    journal.append([ENTRY])
    journal.close()
    (tmp_path / "ledger").chmod(mode)
    os.chown(tmp_path / "ledger", owner, -1)
    before = len(os.listdir("/proc/self/fd"))
    assert reopened(tmp_path, clock) == ([(0.0, ENTRY)] if trusted else [])
    assert len(os.listdir("/proc/self/fd")) == before
    assert (tmp_path / "ledger.not-ours").exists() is not trusted


@pytest.mark.parametrize(("more", "entries"), [(0, [(0.0, ENTRY)]), (1, [])])
def test_a_file_that_is_too_large_is_not_read(
    tmp_path: Path, clock: FakeClock, journal: Journal, more: int, entries: list[object]
) -> None:
    journal.append([ENTRY])
    journal.close()
    with (tmp_path / "ledger").open("ab") as file:
        file.truncate(16 * 1024 * 1024 + more)
    assert reopened(tmp_path, clock) == entries


def test_links_pipes_directories_and_files_that_others_can_write_are_moved_aside(
    tmp_path: Path, clock: FakeClock
) -> None:
    target = tmp_path / "elsewhere"
    target.write_text("precious")

    def link() -> None:
        (tmp_path / "ledger").symlink_to(target)

    def pipe() -> None:
        os.mkfifo(tmp_path / "ledger")

    def directory() -> None:
        (tmp_path / "ledger").mkdir()

    def writable() -> None:
        (tmp_path / "ledger").write_text("")
        (tmp_path / "ledger").chmod(0o666)

    for make in (link, pipe, directory, writable):
        (tmp_path / "ledger").unlink(missing_ok=True)
        make()
        made = Journal(str(tmp_path), clock)
        made.rewrite([])
        made.append([ENTRY])
        made.close()
        assert (tmp_path / "ledger").is_file()
        assert (tmp_path / "ledger").stat().st_mode & 0o777 == 0o600
    assert target.read_text() == "precious"
    aside = ["ledger.not-a-file", "ledger.not-a-file.2", "ledger.not-ours", "ledger.not-ours.2"]
    assert sorted(os.listdir(tmp_path)) == ["elsewhere", "ledger", *aside]


def test_the_state_directory_may_be_a_symlink_and_is_private(tmp_path: Path, clock: FakeClock) -> None:
    (tmp_path / "state").symlink_to(tmp_path / "private")
    Journal(str(tmp_path / "state"), clock).close()
    assert (tmp_path / "private").stat().st_mode & 0o777 == 0o700


def test_a_second_process_runs_without_a_ledger_and_warns_once(
    tmp_path: Path, clock: FakeClock, journal: Journal, caplog: pytest.LogCaptureFixture
) -> None:
    journal.append([ENTRY])
    before = len(os.listdir("/proc/self/fd"))
    second = Journal(str(tmp_path), clock)
    assert second.past == []
    assert len(os.listdir("/proc/self/fd")) == before
    second.rewrite([])
    second.append([["refused", "other"]])
    assert not second.grown()
    assert not second.missing()
    second.close()
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "another bearerd uses it" in caplog.text
    journal.close()
    assert reopened(tmp_path, clock) == [(0.0, ENTRY)]


def move_and_link(directory: Path) -> None:
    """Move the ledger away, and leave a symlink to it."""
    (directory / "ledger").rename(directory / "moved")
    (directory / "ledger").symlink_to("moved")


@pytest.mark.parametrize("change", ["replaced", "removed", "linked"])
def test_a_ledger_that_another_process_changes_before_it_is_locked_is_opened_again(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, journal: Journal, change: str
) -> None:
    journal.append([ENTRY])
    journal.close()
    before, lock = len(os.listdir("/proc/self/fd")), fcntl.flock

    def late(descriptor: int, operation: int) -> None:
        monkeypatch.setattr(fcntl, "flock", lock)
        if change == "replaced":
            other = Journal(str(tmp_path), clock)
            other.rewrite([(3.0, ENTRY)])
            other.close()
        elif change == "removed":
            (tmp_path / "ledger").unlink()
        else:
            move_and_link(tmp_path)
        lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    opened = Journal(str(tmp_path), clock)
    assert opened.past == ([(3.0, ENTRY)] if change == "replaced" else [])
    assert not opened.missing()
    opened.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_rewriting_keeps_the_lock(tmp_path: Path, clock: FakeClock, journal: Journal) -> None:
    journal.rewrite([(0.0, ENTRY)])
    second = Journal(str(tmp_path), clock)
    assert second.past == []
    second.close()


def test_a_removed_ledger_is_noticed_and_rewritten(tmp_path: Path, clock: FakeClock, journal: Journal) -> None:
    assert not journal.missing()
    (tmp_path / "ledger").unlink()
    assert journal.missing()
    journal.rewrite([(0.0, ENTRY)])
    assert not journal.missing()
    move_and_link(tmp_path)
    assert journal.missing()
    journal.rewrite([(0.0, ENTRY)])
    assert not journal.missing()
    journal.close()
    assert reopened(tmp_path, clock) == [(0.0, ENTRY)]


def test_a_removed_state_directory_is_made_again(tmp_path: Path, clock: FakeClock) -> None:
    (journal := Journal(str(tmp_path / "state"), clock)).rewrite([])
    shutil.rmtree(tmp_path / "state")
    assert journal.missing()
    journal.rewrite([(1.0, ENTRY)])
    journal.append([ENTRY])
    journal.close()
    assert journal.fault == ""
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700
    assert reopened(tmp_path / "state", clock) == [(1.0, ENTRY), (0.0, ENTRY)]


@pytest.mark.parametrize("put_back", [False, True])
def test_a_removed_ledger_is_a_fault_until_it_is_there_again(
    tmp_path: Path, clock: FakeClock, caplog: pytest.LogCaptureFixture, *, put_back: bool
) -> None:
    state, aside = tmp_path / "state", tmp_path / "aside"
    (journal := Journal(str(state), clock)).rewrite([])
    state.rename(aside)
    state.touch()  # no directory can be made here
    for _ in range(2):
        journal.rewrite([(0.0, ENTRY)])
        journal.append([ENTRY])
        assert "file exists" in journal.fault
    assert len(caplog.records) == 1
    state.unlink()
    if put_back:
        aside.rename(state)
        journal.append([ENTRY])
    else:
        journal.rewrite([(0.0, ENTRY)])
    assert journal.fault == ""
    journal.close()


def test_a_full_disk_causes_one_warning_and_loses_only_unwritten_entries(
    clock: FakeClock, caplog: pytest.LogCaptureFixture, tmp_path: Path, journal: Journal
) -> None:
    full = os.open("/dev/full", os.O_RDWR)
    kept, journal._descriptor = journal._descriptor, full
    journal.append([ENTRY])
    journal.append([ENTRY])
    journal._descriptor = kept
    journal.append([["spent", "p"]])
    journal.close()
    os.close(full)
    assert reopened(tmp_path, clock) == [(0.0, ["spent", "p"])]
    assert [record.message.split(";")[1] for record in caplog.records] == [
        " refusals and used rate limits will be forgotten at a restart"
    ]


@contextmanager
def room_for(content: int) -> Iterator[None]:
    """Let no file be larger than this, as on a disk with so much space: a write that begins below writes a part."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (content, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_half_a_line_from_a_full_disk_costs_no_later_line(tmp_path: Path, clock: FakeClock, journal: Journal) -> None:
    with room_for((tmp_path / "ledger").stat().st_size + 10):
        journal.append([["refused", "lost"]])
    assert "file too large" in journal.fault.lower()
    journal.append([ENTRY])
    assert journal.fault == ""
    journal.append([ENTRY])
    journal.close()
    assert reopened(tmp_path, clock) == [(0.0, ENTRY)] * 2


def test_a_ledger_that_cannot_be_rewritten_stays_and_is_not_rewritten_at_once(
    tmp_path: Path, clock: FakeClock, journal: Journal, caplog: pytest.LogCaptureFixture
) -> None:
    before = len(os.listdir("/proc/self/fd"))
    journal.append([ENTRY])
    with room_for(1000):
        journal.rewrite([(0.0, ["refused", "c" * 1000])])
        assert "file too large" in journal.fault.lower()
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert not journal.grown()
    assert not journal.missing()
    assert len(os.listdir("/proc/self/fd")) <= before  # those of earlier tests may have been closed meanwhile
    assert os.listdir(tmp_path) == ["ledger"]
    journal.append([ENTRY])
    assert journal.fault == ""
    journal.close()
    assert reopened(tmp_path, clock) == [(0.0, ENTRY)] * 2


def test_a_state_directory_that_cannot_be_created_causes_a_warning(
    clock: FakeClock, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    made = Journal(str(tmp_path / "file" / "state"), clock)
    made.append([ENTRY])
    made.rewrite([])
    made.close()
    assert "not a directory" in caplog.text


KILLED = """
import os, signal, sys
from bearerd.admission.journal import Journal
from bearerd.clock import SystemClock
journal = Journal(sys.argv[1], SystemClock())
journal.rewrite([])
journal.append([["sent", 1, "c", True, ["p"]]])
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_process_loses_no_line_and_releases_its_lock(tmp_path: Path, clock: FakeClock) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert [entry for _, entry in reopened(tmp_path, clock)] == [["sent", 1, "c", True, ["p"]]]
