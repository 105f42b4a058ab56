"""The ledger's file: real files, locks and processes."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
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


def test_rewriting_keeps_only_the_given_entries(tmp_path: Path, clock: FakeClock, journal: Journal) -> None:
    for _ in range(10):
        journal.append([ENTRY])
    journal.rewrite([(3.0, ["spent", "p"])])
    journal.append([ENTRY])
    journal.close()
    assert reopened(tmp_path, clock) == [(3.0, ["spent", "p"]), (0.0, ENTRY)]


def test_the_file_is_rewritten_when_it_has_grown_and_not_again_at_once(journal: Journal) -> None:
    assert not journal.grown()
    journal.append([["refused", "c" * 1000]] * 300)
    assert journal.grown()
    journal.rewrite([(0.0, ["refused", "c" * 1000])] * 280)
    assert not journal.grown()


@pytest.mark.parametrize("tail", [b'[1.0, 2.0, "refu', b"\x00\x00\x00", b"{}\n[]\n[1]\nnull\n", b"[" * 100_000])
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


@pytest.mark.parametrize("content", ["nonsense\n", "[]\n", '["something", 1, "boot-1"]\n', "\n"])
def test_a_file_that_is_not_a_ledger_is_moved_aside(tmp_path: Path, clock: FakeClock, content: str) -> None:
    (tmp_path / "ledger").write_text(content)
    again = Journal(str(tmp_path), clock)
    again.rewrite([])
    again.append([ENTRY])
    again.close()
    assert (tmp_path / "ledger.damaged").read_text() == content
    assert reopened(tmp_path, clock) == [(0.0, ENTRY)]


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path, clock: FakeClock) -> None:
    with (tmp_path / "ledger").open("wb") as file:
        file.truncate(17 * 1024 * 1024)
    assert reopened(tmp_path, clock) == []


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


def test_the_state_directory_may_be_a_symlink_and_is_private(tmp_path: Path, clock: FakeClock) -> None:
    (tmp_path / "state").symlink_to(tmp_path / "private")
    Journal(str(tmp_path / "state"), clock).close()
    assert (tmp_path / "private").stat().st_mode & 0o777 == 0o700


def test_a_second_process_runs_without_a_ledger_and_warns_once(
    tmp_path: Path, clock: FakeClock, journal: Journal, caplog: pytest.LogCaptureFixture
) -> None:
    journal.append([ENTRY])
    second = Journal(str(tmp_path), clock)
    assert second.past == []
    second.rewrite([])
    second.append([["refused", "other"]])
    assert not second.grown()
    assert not second.missing()
    second.close()
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "another bearerd uses it" in caplog.text
    journal.close()
    assert reopened(tmp_path, clock) == [(0.0, ENTRY)]


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
    journal.close()
    assert reopened(tmp_path, clock) == [(0.0, ENTRY)]


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
