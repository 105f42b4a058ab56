"""The record and files of one target, with a publisher and hooks that only record their calls."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import pytest

from bearerd.errors import PublishError
from bearerd.lifecycle.file_state import FileState
from bearerd.model import Output, Target
from bearerd.publish.publisher import Published
from bearerd.publish.record import Record
from bearerd.terms import Hook, Token
from support.targets import target, token

RAW, JSON = Output("/run/bearerd/dnb/bci"), Output("/run/bearerd/dnb/bci.json", format="json")
BCI = target(outputs=(RAW, JSON), on_change=(Hook(argv=("true",)),))
UNTIL = 8_600.0


def record(text: str = "opaque-1") -> Record:
    return Record(token(text), "identity", "7e0c5a")


@dataclass
class FakePublisher:
    """Files as a mapping from path to token. `faults` are the errors of the next writes."""

    kept: Record | None = None
    files: dict[str, str] = field(default_factory=dict)
    record_fault: str = ""
    faults: tuple[str, ...] = ()
    saved: int = 0

    def load(self, _: Target) -> Record | None:
        return self.kept

    def save(self, _: Target, record: Record) -> None:
        if self.record_fault:
            raise PublishError(self.record_fault)
        self.kept, self.saved = record, self.saved + 1

    def recorded(self, _: Target) -> bool:
        return self.kept is not None

    def forget(self, _: Target) -> None:
        self.kept = None

    def ensure(self, target: Target, token: Token, before: Callable[[], None] = lambda: None) -> Published:
        differ = [output.path for output in target.outputs if self.files.get(output.path) != token.access_token]
        if differ and not self.faults:
            before()
            self.files |= dict.fromkeys(differ, token.access_token)
        return Published(() if self.faults else tuple(differ), self.faults)

    def withdraw(self, outputs: Iterable[Output]) -> Published:
        removed = [output.path for output in outputs if self.files.pop(output.path, None) is not None]
        return Published(tuple(removed), self.faults)


@dataclass
class FakeHooks:
    """The calls, in order."""

    owing: bool = False
    failing: bool = False
    calls: list[str] = field(default_factory=list)

    def announce(self, _: Target) -> None:
        self.calls.append("announced")

    def owed(self, _: Target) -> bool:
        return self.owing

    def undone(self, _: str) -> bool:
        return self.failing

    def changed(self, _: Target, *, first: bool) -> None:
        self.calls.append("first" if first else "changed")

    def failed(self, _: Target) -> None:
        self.calls.append("failed")

    def forget(self, _: str) -> None:
        self.calls.append("forgotten")


@pytest.fixture
def publisher() -> FakePublisher:
    return FakePublisher()


@pytest.fixture
def hooks() -> FakeHooks:
    return FakeHooks()


@pytest.fixture
def state(publisher: FakePublisher, hooks: FakeHooks) -> FileState:
    return FileState(publisher, hooks)


def first_token(state: FileState, wanted: Target = BCI) -> None:
    state.load(wanted)
    state.token_changed()
    state.publish(wanted, record(), UNTIL)


def test_a_first_token_is_recorded_and_written_and_its_hooks_run(
    state: FileState, publisher: FakePublisher, hooks: FakeHooks
) -> None:
    first_token(state)
    assert (state.on_disk, state.readable_until, state.faults) == (True, UNTIL, ())
    assert publisher.kept == record()
    assert set(publisher.files) == {RAW.path, JSON.path}
    assert hooks.calls == ["announced", "first"]


def test_an_extra_turn_writes_nothing_and_runs_no_hook(
    state: FileState, publisher: FakePublisher, hooks: FakeHooks
) -> None:
    first_token(state)
    state.publish(BCI, record(), UNTIL)
    assert publisher.saved == 1
    assert hooks.calls == ["announced", "first"]


def test_a_changed_token_runs_the_hooks_for_changes(state: FileState, hooks: FakeHooks) -> None:
    first_token(state)
    state.token_changed()
    assert not state.on_disk
    state.publish(BCI, record("opaque-2"), UNTIL + 60)
    assert hooks.calls == ["announced", "first", "announced", "changed"]
    assert state.readable_until == UNTIL + 60


def test_hooks_run_for_files_that_were_written_before_an_exception(
    state: FileState, publisher: FakePublisher, hooks: FakeHooks, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(target: Target, token: Token, before: Callable[[], None]) -> None:
        FakePublisher.ensure(publisher, target, token, before)
        raise MemoryError

    first_token(state)
    state.token_changed()
    with monkeypatch.context() as patch:
        patch.setattr(publisher, "ensure", fails)
        with pytest.raises(MemoryError):
            state.publish(BCI, record("opaque-2"), UNTIL)
    for _ in range(2):
        state.publish(BCI, record("opaque-2"), UNTIL)
    assert hooks.calls == ["announced", "first", "announced", "changed"]


def test_a_record_that_changed_alone_runs_no_hook(state: FileState, publisher: FakePublisher, hooks: FakeHooks) -> None:
    first_token(state)
    state.record_changed()
    state.publish(BCI, record(), UNTIL)
    assert publisher.saved == 2
    assert hooks.calls == ["announced", "first"]


def test_a_failed_write_is_logged_once_retried_and_its_recovery_counted(
    state: FileState, publisher: FakePublisher, hooks: FakeHooks, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    publisher.faults = ("/run/bearerd/dnb/bci: no space left",)
    first_token(state)
    waits = [state.next_attempt(100.0)]
    state.publish(BCI, record(), UNTIL)
    waits.append(state.next_attempt(100.0))
    assert (state.on_disk, state.readable_until) == (False, 0.0)
    assert None not in waits
    assert all(wait is not None and wait > 100.0 for wait in waits)
    assert state.faults == publisher.faults
    assert hooks.calls == []
    publisher.faults = ()
    state.publish(BCI, record(), UNTIL)
    assert state.next_attempt(100.0) is None
    assert hooks.calls == ["announced", "first"]
    assert caplog.messages == [
        "files: /run/bearerd/dnb/bci: no space left; any previous content is unchanged; retrying",
        "files are written again after 2 failed attempts",
    ]


def test_a_cause_that_several_files_have_is_logged_once(
    state: FileState, publisher: FakePublisher, caplog: pytest.LogCaptureFixture
) -> None:
    publisher.record_fault = "/r: no space left; free some"
    publisher.faults = ("/a: no space left; free some", "/b: no space left; free some")
    first_token(state)
    assert caplog.messages == [
        "files: /r, /a, /b: no space left; free some; any previous content is unchanged; retrying"
    ]


def test_writes_that_fail_for_long_are_logged_every_ten_minutes(
    state: FileState, publisher: FakePublisher, caplog: pytest.LogCaptureFixture
) -> None:
    publisher.faults = ("/run/bearerd/dnb/bci: no space left",)
    first_token(state)
    caplog.clear()
    for now in range(1000, 2300, 10):  # retried every ten seconds
        state.publish(BCI, record(), UNTIL)
        state.still_failing(BCI, now)
    text = "files: still failing after {} attempts: /run/bearerd/dnb/bci: no space left; retrying"
    assert caplog.messages == [text.format(62), text.format(122)]
    publisher.faults = ()
    state.publish(BCI, record(), UNTIL)
    state.still_failing(BCI, 3000.0)
    publisher.faults = ("/run/bearerd/dnb/bci: no space left",)
    state.token_changed()
    caplog.clear()
    state.publish(BCI, record(), UNTIL)
    state.still_failing(BCI, 4000.0)
    assert [message.partition(":")[0] for message in caplog.messages] == ["files"]
    assert "still failing" not in caplog.text


def test_a_record_that_cannot_be_written_keeps_no_file_from_being_written(
    state: FileState, publisher: FakePublisher
) -> None:
    publisher.record_fault = "records: read-only"
    first_token(state)
    assert state.on_disk
    assert state.faults == ("records: read-only",)
    publisher.record_fault = ""
    state.publish(BCI, record(), UNTIL)
    assert publisher.kept == record()
    assert not state.faults


def test_a_file_that_was_altered_is_restored_with_a_warning(
    state: FileState, publisher: FakePublisher, caplog: pytest.LogCaptureFixture
) -> None:
    first_token(state)
    publisher.files[RAW.path] = "altered"
    state.publish(BCI, record(), UNTIL)
    assert publisher.files[RAW.path] == "opaque-1"
    assert caplog.messages == [f"restored: {RAW.path}"]


def test_a_file_that_is_altered_again_and_again_has_a_warning_that_says_so(
    state: FileState, publisher: FakePublisher, caplog: pytest.LogCaptureFixture
) -> None:
    first_token(state)
    for _ in range(3):
        publisher.files[RAW.path] = "another's"
        state.publish(BCI, record(), UNTIL)
    again = "another program keeps changing it, perhaps another bearerd with the same path"
    assert caplog.messages == [
        f"restored: {RAW.path}",
        f"restored: {RAW.path}",
        f"restored: {RAW.path}; 3 times since this token was obtained: {again}",
    ]
    state.token_changed()
    state.publish(BCI, record("opaque-2"), UNTIL)
    publisher.files[RAW.path] = "another's"
    state.publish(BCI, record("opaque-2"), UNTIL)
    assert caplog.messages[3:] == [f"restored: {RAW.path}"]


def test_a_changed_template_is_no_alteration_by_others(
    state: FileState, publisher: FakePublisher, hooks: FakeHooks, caplog: pytest.LogCaptureFixture
) -> None:
    first_token(state)
    state.template_changed()
    publisher.files[RAW.path] = "as the template was"
    state.publish(BCI, record(), UNTIL)
    assert caplog.messages == []
    assert hooks.calls[-1] == "changed"


def test_a_removed_record_is_noticed_and_written_again(state: FileState, publisher: FakePublisher) -> None:
    first_token(state)
    assert not state.lost_record(BCI)
    publisher.kept = None
    assert state.lost_record(BCI)
    state.publish(BCI, record(), UNTIL)
    assert not state.lost_record(BCI)


def test_times_that_a_clock_step_changed_run_no_hook(
    state: FileState, publisher: FakePublisher, hooks: FakeHooks
) -> None:
    first_token(state)
    state.times_changed()
    publisher.files[JSON.path] = "with the old times"
    state.publish(BCI, record(), UNTIL)
    assert hooks.calls == ["announced", "first"]
    state.times_changed()
    publisher.files[RAW.path] = "altered besides"
    state.publish(BCI, record(), UNTIL)
    assert hooks.calls == ["announced", "first", "changed"]


def test_hooks_that_an_earlier_process_owed_run_though_no_file_changes(
    state: FileState, publisher: FakePublisher, hooks: FakeHooks
) -> None:
    publisher.kept, hooks.owing = record(), True
    publisher.files = dict.fromkeys((RAW.path, JSON.path), "opaque-1")
    assert state.load(BCI) == record()
    state.publish(BCI, record(), UNTIL)
    assert hooks.calls == ["changed"]


@pytest.mark.parametrize("failing", [True, False])
def test_a_corrected_hook_runs_for_the_change_that_the_old_one_missed(
    state: FileState, hooks: FakeHooks, failing: bool
) -> None:
    first_token(state)
    hooks.failing = failing
    corrected = target(outputs=(RAW, JSON), on_change=(Hook(argv=("false",)),))
    state.config_changed(BCI, corrected)
    assert not state.on_disk
    state.publish(corrected, record(), UNTIL)
    assert hooks.calls[2:] == (["changed"] if failing else [])


@pytest.mark.parametrize("on_expiry", ["keep", "remove"])
def test_an_expired_token_leaves_its_files_only_if_they_are_kept(
    state: FileState, publisher: FakePublisher, on_expiry: str
) -> None:
    first_token(state)
    state.expire(target(outputs=(RAW, JSON), on_expiry=on_expiry))
    assert (state.on_disk, state.readable_until) == (False, 0.0)
    assert len(publisher.files) == (2 if on_expiry == "keep" else 0)


def test_what_another_program_wrote_at_the_path_of_a_token_is_not_removed(
    state: FileState, publisher: FakePublisher
) -> None:
    """Bearerd had no token yet, so the path may be a mistake."""
    publisher.files = {RAW.path: "written by hand", JSON.path: "written by hand"}
    wanted = target(outputs=(RAW, JSON), on_expiry="remove")
    state.load(wanted)
    state.expire(wanted)
    state.withdraw(wanted, [RAW])
    state.forget(wanted)
    state.withdraw(wanted, [JSON])
    assert set(publisher.files) == {RAW.path, JSON.path}


def test_only_the_files_that_were_written_are_removed(state: FileState, publisher: FakePublisher) -> None:
    """The path of the other one was added while there was no valid token."""
    first_token(state, target(outputs=(RAW,)))
    publisher.files[JSON.path] = "written by hand"
    state.expire(target(outputs=(RAW, JSON), on_expiry="remove"))
    assert set(publisher.files) == {JSON.path}


@pytest.mark.parametrize("asked", [False, True])
def test_files_of_an_earlier_process_are_removed(state: FileState, publisher: FakePublisher, *, asked: bool) -> None:
    """Whether a turn loaded the record or the token was removed from the config before one."""
    publisher.kept, publisher.files = record(), {RAW.path: "opaque-1"}
    if asked:
        state.load(BCI)
    state.forget(BCI)
    state.withdraw(BCI, [RAW])
    assert publisher.files == {}


def test_files_that_left_the_config_are_removed_and_named(
    state: FileState, publisher: FakePublisher, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    first_token(state)
    state.withdraw(BCI, [JSON])
    assert set(publisher.files) == {RAW.path}
    publisher.faults = ("/run/bearerd/dnb/bci: not permitted",)
    state.withdraw(BCI, [])
    assert caplog.messages == [
        f"no longer in the config, removed: {JSON.path}",
        "no longer in the config, but not removed: /run/bearerd/dnb/bci: not permitted",
    ]


def test_a_target_that_is_not_wanted_leaves_no_record_and_owes_no_hooks(
    state: FileState, publisher: FakePublisher, hooks: FakeHooks
) -> None:
    first_token(state)
    state.forget(BCI)
    assert publisher.kept is None
    assert hooks.calls[-1] == "forgotten"


def test_files_that_a_failed_write_left_alone_still_have_the_previous_token() -> None:
    publisher = FakePublisher()
    files = FileState(publisher, FakeHooks())
    files.token_changed()
    files.publish(BCI, record(), UNTIL)
    assert (files.readable_until, files.previous_until) == (UNTIL, 0.0)
    publisher.faults = ("/x: no space left",)
    for _ in range(2):
        files.token_changed()
        files.publish(BCI, record("opaque-2"), UNTIL + 3000)
        assert (files.readable_until, files.previous_until) == (0.0, UNTIL)
    publisher.faults = ()
    files.publish(BCI, record("opaque-2"), UNTIL + 3000)
    assert (files.readable_until, files.previous_until) == (UNTIL + 3000, 0.0)


def test_the_expiry_of_the_token_that_failed_writes_left_in_the_files_is_logged_at_once_and_once(
    state: FileState, publisher: FakePublisher, caplog: pytest.LogCaptureFixture
) -> None:
    first_token(state)
    publisher.faults = ("/x: no space left",)
    state.token_changed()
    state.publish(BCI, record("opaque-2"), UNTIL + 3000)
    state.still_failing(BCI, UNTIL - 1)
    assert state.next_attempt(UNTIL - 0.5) == UNTIL  # and not after the wait of the retry
    caplog.clear()
    for now in (UNTIL, UNTIL + 10):
        state.publish(BCI, record("opaque-2"), UNTIL + 3000)
        state.still_failing(BCI, now)
        retry = state.next_attempt(now)
        assert retry is not None
        assert retry > now
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert caplog.messages == [
        "files: the token in them has expired, and the new one cannot be written: /x: no space left; retrying"
    ]


def test_nothing_is_known_about_files_that_another_process_altered() -> None:
    publisher = FakePublisher()
    files = FileState(publisher, FakeHooks())
    files.token_changed()
    files.publish(BCI, record(), UNTIL)
    publisher.faults = ("/x: a directory has this name",)
    files.publish(BCI, record(), UNTIL)
    assert (files.readable_until, files.previous_until) == (0.0, 0.0)
