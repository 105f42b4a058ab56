"""The turns of one target, with real files, a simulated clock and scripted outcomes."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from hashlib import sha256
from math import inf
from pathlib import Path
from typing import Any

import pytest

from bearerd.admission.admission import Admission
from bearerd.admission.types import Ask, Granted, Limits, Ticket
from bearerd.errors import Stopping
from bearerd.grant.outcome import (
    Issued,
    Malformed,
    Outcome,
    Performed,
    RateLimited,
    Refused,
    Transient,
    Unsent,
)
from bearerd.lifecycle.controller import Controller
from bearerd.lifecycle.parts import Parts
from bearerd.lifecycle.wishes import RefreshRequested, TemplateChanged, Wish
from bearerd.model import Config, Output, RefreshBefore, Target
from bearerd.publish.publisher import Published, Publisher
from bearerd.target_status import Hold
from bearerd.terms import Hook, OnExpiry, RateLimit
from support.clock import START, FakeClock
from support.targets import CLIENT, target, token

CLIENT_ID = str(CLIENT.client_id)


@dataclass
class Script:
    """Grants with scripted outcomes; `asked` holds their times."""

    clock: FakeClock
    next: Callable[[], Outcome]
    takes: float = 0.0
    asked: list[float] = field(default_factory=list)

    def perform(self, _target: Target) -> Performed:
        self.asked.append(self.clock.boot)
        sent = self.clock.now()
        self.clock.advance(self.takes)
        outcome = self.next()
        if isinstance(outcome, Issued):
            outcome = replace(outcome, token=replace(outcome.token, obtained=sent))
        return Performed(outcome, "" if isinstance(outcome, Unsent) else CLIENT_ID)


@dataclass
class HookEvents:
    """The events for hooks, in order; `owed`: an earlier process left hooks to run."""

    owing: bool = False
    failing: bool = False
    events: list[str] = field(default_factory=list)

    def announce(self, _target: Target) -> None:
        self.events.append("announced")

    def owed(self, _target: Target) -> bool:
        return self.owing

    def undone(self, _name: str) -> bool:
        return self.failing

    def changed(self, _target: Target, *, first: bool) -> None:
        self.events.append("first" if first else "changed")

    def failed(self, _target: Target) -> None:
        self.events.append("failed")

    def forget(self, name: str) -> None:
        self.events.append(f"forgotten {name}")


@dataclass
class Known:
    """A client id that can be read, or not."""

    id: str | None = CLIENT_ID
    looked: int = 0

    def client_id(self, _target: Target) -> str | None:
        return self.id

    def credentials_changed(self, _target: Target) -> None:
        self.looked += 1


@dataclass
class Rig:
    """A controller with its dependencies."""

    directory: Path
    clock: FakeClock
    grants: Script
    target: Target
    woken: list[str]
    hooks: HookEvents = field(default_factory=HookEvents)
    controller: Controller = field(init=False)
    admission: Admission = field(init=False)

    def __post_init__(self) -> None:
        self.start()

    def start(
        self, min_valid: float = 0.0, client_id: str | None = CLIENT_ID, admission: Admission | None = None
    ) -> None:
        """Start a new process over the same directory."""
        config = Config(str(self.directory), str(self.directory / ".bearerd"), targets=(self.target,))
        self.publisher = Publisher(config)
        self.admission = admission or Admission(
            Limits.of([self.target.client]), lambda name, _: self.woken.append(name), now=self.clock.boot
        )
        self.parts = Parts(
            self.clock,
            lambda: 0.0,
            self.grants,
            self.publisher,
            self.admission,
            self.hooks,
            Known(client_id),
            min_valid=min_valid,
        )
        self.controller = Controller(self.target, self.parts)

    @property
    def file(self) -> Path:
        return self.directory / "dnb/bci"

    def answer(self, *outcomes: Outcome) -> None:
        """Script the next outcomes; the last one repeats."""
        rest = list(outcomes)
        self.grants.next = lambda: rest.pop(0) if len(rest) > 1 else rest[0]

    def turn(self, *wishes: Wish) -> float:
        """Run a turn. Returns the seconds until the next."""
        return self.controller.reconcile(self.target, wishes, self.paths) - self.clock.boot

    def paths(self) -> set[str]:
        """The paths of all wanted files."""
        return {output.path for output in self.target.outputs}

    def live(self, seconds: float) -> None:
        """Let time pass, and run each turn when it is due."""
        end = self.clock.boot + seconds
        while (due := self.clock.boot + max(self.turn(), 0.001)) < end:
            self.clock.advance(due - self.clock.boot)
        self.clock.advance(end - self.clock.boot)


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    clock = FakeClock()
    directory = tmp_path / "tokens"
    subject = target(
        outputs=(
            Output(path=str(directory / "dnb/bci")),
            Output(path=str(directory / "dnb/bci.json"), format="json"),
        )
    )
    return Rig(directory, clock, Script(clock, lambda: Issued(token("t-1"))), subject, [])


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG, "bearerd")
    return caplog


def spoken(log: pytest.LogCaptureFixture) -> list[str]:
    """The log lines at info and above."""
    return [record.getMessage() for record in log.records if record.levelno >= logging.INFO]


def test_the_first_turn_obtains_and_writes_a_token(rig: Rig) -> None:
    assert rig.turn() == pytest.approx(2880)
    assert rig.file.read_bytes() == b"t-1"
    assert rig.controller.status().on_disk


def test_an_early_turn_sends_no_request(rig: Rig) -> None:
    rig.turn()
    rig.clock.advance(2879)
    assert rig.turn() == pytest.approx(1)
    assert len(rig.grants.asked) == 1


def test_the_lifetime_counts_from_before_the_request(rig: Rig) -> None:
    rig.grants.takes = 9.0
    assert rig.turn() == pytest.approx(2880 - 9)


def test_a_lifetime_of_0_causes_no_loop(rig: Rig) -> None:
    rig.answer(Issued(token("t-1", lifetime=0.001)))
    rig.live(10)
    assert len(rig.grants.asked) <= 11


def test_a_refresh_replaces_the_token(rig: Rig) -> None:
    rig.answer(Issued(token("t-1")), Issued(token("t-2")))
    rig.live(2900)
    assert rig.file.read_bytes() == b"t-2"
    assert len(rig.grants.asked) == 2


def test_the_same_token_rewrites_nothing_and_is_requested_closer_to_its_expiry(rig: Rig) -> None:
    rig.turn()
    before = (rig.directory / "dnb/bci.json").stat()
    rig.clock.advance(2880)
    assert rig.turn() == pytest.approx(360)  # although the reply names 3600 s again
    rig.clock.advance(360)
    assert rig.turn() == pytest.approx(180)
    after = (rig.directory / "dnb/bci.json").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_an_earlier_expiry_of_the_same_token_is_accepted(rig: Rig) -> None:
    rig.answer(Issued(token("t-1")), Issued(token("t-1", lifetime=100)))
    rig.turn()
    rig.clock.advance(2880)
    assert rig.turn() == pytest.approx(50)
    assert json.loads((rig.directory / "dnb/bci.json").read_text())["expires_in"] == 100


def test_the_same_token_after_its_expiry_is_accepted_as_renewed(rig: Rig) -> None:
    rig.turn()
    rig.clock.advance(3601)
    rig.turn()
    assert rig.controller.status().expires == rig.clock.boot + 3600


def test_a_valid_token_stays_in_its_files_while_the_provider_fails_after_a_lifetime_of_0(
    rig: Rig, log: pytest.LogCaptureFixture
) -> None:
    rig.answer(Issued(token("t-1")), Issued(token("t-2"), named="zero"), Transient("reset"))
    rig.live(2900)
    assert rig.file.read_bytes() == b"t-1"
    kept = "the provider returned another token with a lifetime of 0; the current one is kept, good for 12 min"
    assert any(record.getMessage().startswith(kept) for record in log.records)


def test_a_changed_schedule_does_not_delay_the_second_request_about_a_lifetime_of_0(rig: Rig) -> None:
    rig.answer(Issued(token("t-1"), named="zero"), Issued(token("t-2")))
    rig.turn()
    rig.target = replace(rig.target, refresh_before=RefreshBefore(seconds=60))
    rig.live(3)
    assert rig.file.read_bytes() == b"t-2"


def test_a_failure_keeps_the_files_and_is_retried_sooner_near_expiry(rig: Rig) -> None:
    rig.answer(Issued(token("t-1")), Transient("reset"))
    rig.live(3590)
    assert rig.file.read_bytes() == b"t-1"
    assert len(rig.grants.asked) > 10
    assert rig.controller.status().expires is not None


def test_a_failure_is_logged_once_then_every_ten_minutes_and_the_recovery_with_counts(
    rig: Rig, log: pytest.LogCaptureFixture
) -> None:
    rig.answer(Issued(token("t-1", lifetime=7200)), Transient("login.example.com: connection refused"))
    rig.live(5760 + 25 * 60)
    rig.answer(Issued(token("t-2")))
    rig.live(70)
    said = spoken(log)
    (expired,) = [line for line in said if line.startswith("the token has expired")]
    assert "could not be refreshed: " in expired
    assert "connection refused; its files still contain the expired one; next attempt " in expired
    first, *more = [line for line in said if "connection refused" in line and line != expired]
    assert "the current token is good for 24 min" in first
    assert "next attempt in 1 s" in first
    assert len(more) == 2
    assert all("still failing after" in line for line in more)
    assert any(line.startswith("recovered after") and "25 min" in line for line in said)


def test_a_refused_client_is_logged_every_ten_minutes_between_hourly_attempts(
    rig: Rig, log: pytest.LogCaptureFixture
) -> None:
    rig.answer(Refused("HTTP 401 invalid_client: the client was refused"))
    rig.live(2 * 3600 + 1)
    asked = [moment - rig.grants.asked[0] for moment in rig.grants.asked]
    assert asked == pytest.approx([0, 300, 900, 2100, 4500], abs=0.1)
    said = [line for line in spoken(log) if "invalid_client" in line]
    assert len(said) == 1 + 12
    assert said[-1].startswith("still failing after 5 attempts in 2 h: ")
    assert said[-1].endswith("there is no valid token; next attempt in 15 min")


def test_an_expiry_is_logged_and_the_files_stay_by_default(rig: Rig, log: pytest.LogCaptureFixture) -> None:
    rig.answer(Issued(token("t-1")), Transient("reset"))
    rig.live(4000)
    assert rig.file.read_bytes() == b"t-1"
    assert len([line for line in spoken(log) if "has expired" in line]) == 1
    assert not rig.controller.status().on_disk


def test_on_expiry_remove_removes_files_until_the_next_token(rig: Rig) -> None:
    rig.target = replace(rig.target, on_expiry="remove")
    rig.start()
    rig.answer(Issued(token("t-1")), Refused("401"))
    rig.live(3599)
    assert rig.file.exists()
    rig.live(3)
    assert not rig.file.exists()
    rig.answer(Issued(token("t-2")))
    rig.live(4000)
    assert rig.file.read_bytes() == b"t-2"


def test_refused_credentials_that_worked_before_get_a_last_attempt(rig: Rig) -> None:
    rig.answer(Issued(token("t-1")), Refused("401 invalid_client"))
    rig.live(3590)
    since = [moment - rig.grants.asked[1] for moment in rig.grants.asked[1:]]
    # After 30 s, 1, 2 and 4 min. The next one would be after the expiry.
    assert since == pytest.approx([0, 30, 90, 210, 450, 705], abs=0.1)


def test_credentials_that_never_worked_are_retried_rarely(rig: Rig) -> None:
    rig.answer(Refused("401 invalid_client"))
    rig.live(3599)
    since = [moment - rig.grants.asked[0] for moment in rig.grants.asked]
    assert since == pytest.approx([0, 300, 900, 2100], abs=0.1)


def test_an_unreadable_secret_sends_nothing_and_keeps_the_token(rig: Rig) -> None:
    rig.answer(Issued(token("t-1")), Unsent("file /s: empty", phase="secret"))
    rig.live(3000)
    assert rig.file.read_bytes() == b"t-1"
    rig.answer(Issued(token("t-2")))
    rig.live(60)
    assert rig.file.read_bytes() == b"t-2"


@pytest.mark.parametrize("harm", ["deleted", "altered", "mode", "symlink"])
def test_an_altered_file_is_restored_at_the_next_turn(rig: Rig, log: pytest.LogCaptureFixture, harm: str) -> None:
    rig.turn()
    match harm:
        case "deleted":
            rig.file.unlink()
        case "altered":
            rig.file.write_bytes(b"t-X")
        case "mode":
            rig.file.chmod(0o666)
        case "symlink":
            rig.file.unlink()
            rig.file.symlink_to("elsewhere")
    rig.turn()
    assert rig.file.read_bytes() == b"t-1"
    assert rig.file.lstat().st_mode & 0o7777 == 0o640
    assert not rig.file.is_symlink()
    assert any(line == f"restored: {rig.file}" for line in spoken(log))
    assert len(rig.grants.asked) == 1


def test_failed_writes_are_retried_without_a_grant(rig: Rig, log: pytest.LogCaptureFixture) -> None:
    rig.directory.mkdir()
    (rig.directory / "dnb").write_text("in the way")
    assert rig.turn() == pytest.approx(1)
    rig.clock.advance(1)
    assert rig.turn() == pytest.approx(2)
    assert not rig.controller.status().on_disk
    (rig.directory / "dnb").unlink()
    rig.clock.advance(2)
    assert rig.turn() == pytest.approx(2877)
    assert rig.file.read_bytes() == b"t-1"
    assert len(rig.grants.asked) == 1
    said = spoken(log)
    assert len([line for line in said if line.startswith("files: ")]) == 1
    assert "files are written again after 2 failed attempts" in said


# -- a new process over the same directory -------------------------------------------------------


def test_a_valid_record_is_used_without_a_request(rig: Rig) -> None:
    rig.turn()
    rig.file.unlink()
    rig.clock.advance(600)
    rig.start()
    assert rig.turn() == pytest.approx(2280)
    assert rig.file.read_bytes() == b"t-1"
    assert len(rig.grants.asked) == 1


def test_a_due_record_is_published_while_it_is_renewed(rig: Rig) -> None:
    rig.answer(Issued(token("t-1")), Transient("reset"))
    rig.turn()
    rig.clock.advance(3000)
    rig.start()
    rig.turn()
    assert len(rig.grants.asked) == 2
    assert rig.file.read_bytes() == b"t-1"


def test_a_record_below_min_valid_is_renewed_at_once(rig: Rig) -> None:
    rig.answer(Issued(token("t-1")), Issued(token("t-2")))
    rig.turn()
    rig.start(min_valid=3600)
    rig.turn()
    assert len(rig.grants.asked) == 1  # exactly min_valid
    rig.clock.advance(1)
    rig.start(min_valid=3600)
    rig.turn()
    assert rig.file.read_bytes() == b"t-2"


@pytest.mark.parametrize(
    "changes",
    [
        {"scope": "other"},
        {"parameters": (("audience", "x"),)},
        {"client": replace(CLIENT, auth="client_secret_post")},
        {"client": replace(CLIENT, provider=replace(CLIENT.provider, token_url="https://prod.example.com/"))},
    ],
    ids=["scope", "parameters", "auth", "provider"],
)
def test_a_record_of_another_identity_is_not_used(rig: Rig, changes: dict[str, object]) -> None:
    rig.answer(Issued(token("t-1")), Transient("down"))
    rig.turn()
    rig.target = replace(rig.target, **changes)  # type: ignore[arg-type]  # the table's values are of several types
    rig.start()
    rig.turn()
    assert len(rig.grants.asked) == 2
    assert rig.controller.status().expires is None
    assert rig.file.read_bytes() == b"t-1"  # the old token stays until there is a new one


def test_a_record_of_another_client_id_is_not_used(rig: Rig) -> None:
    rig.turn()
    rig.start(client_id="another")
    rig.turn()
    assert len(rig.grants.asked) == 2


def test_a_record_is_used_while_the_client_id_cannot_be_read(rig: Rig) -> None:
    rig.turn()
    rig.start(client_id=None)
    rig.turn()
    rig.start()
    rig.turn()
    assert len(rig.grants.asked) == 1


def test_changes_that_do_not_affect_the_token_keep_its_record(rig: Rig) -> None:
    rig.turn()
    rig.target = replace(rig.target, refresh_before=RefreshBefore(seconds=60), outputs=rig.target.outputs[:1])
    rig.start()
    assert rig.turn() == pytest.approx(3540)
    assert len(rig.grants.asked) == 1


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"schema": 99}', b"\xff", b'{"schema": 1}'])
def test_a_damaged_record_costs_only_a_grant(rig: Rig, content: bytes) -> None:
    rig.turn()
    (rig.directory / ".bearerd/records/dnb/bci.json").write_bytes(content)
    rig.start()
    rig.turn()
    assert len(rig.grants.asked) == 2


def test_an_expired_record_is_not_used(rig: Rig) -> None:
    rig.turn()
    expires = rig.controller.status().expires
    rig.clock.advance(3600)
    rig.start()
    rig.answer(Transient("login.example.com: connection refused"), Issued(token("t-2")))
    rig.turn()
    assert len(rig.grants.asked) == 2
    status = rig.controller.status()
    assert (status.expires, status.ended) == (None, expires)  # for the line about it
    rig.clock.advance(60)
    rig.turn()
    assert rig.controller.status().ended is None


# -- the clocks ------------------------------------------------------------------------------------


def test_a_short_clock_step_rewrites_times_without_a_request(rig: Rig, log: pytest.LogCaptureFixture) -> None:
    rig.turn()
    raw = rig.file.stat().st_ino
    expires = json.loads((rig.directory / "dnb/bci.json").read_text())["expires_at"]
    rig.clock.step(20)
    rig.turn()
    again = json.loads((rig.directory / "dnb/bci.json").read_text())["expires_at"]
    assert int(again[17:19]) - int(expires[17:19]) in (20, -40)
    assert rig.file.stat().st_ino == raw
    assert len(rig.grants.asked) == 1
    assert not any("restored" in line for line in spoken(log))


@pytest.mark.parametrize("step", [7200, -7200, -86400], ids=["2 h forward", "2 h back", "a day back"])
def test_a_long_clock_step_refreshes_the_token_and_keeps_the_old_one_meanwhile(rig: Rig, step: float) -> None:
    rig.answer(Issued(token("t-1")), Transient("down"))
    rig.turn()
    rig.clock.advance(60)
    rig.clock.step(step)
    rig.turn()
    assert len(rig.grants.asked) == 2
    assert rig.file.read_bytes() == b"t-1"
    rig.answer(Issued(token("t-2")))
    rig.live(70)
    assert rig.file.read_bytes() == b"t-2"
    assert len(rig.grants.asked) == 3


def test_the_last_attempt_comes_before_the_expiry_as_a_clock_that_was_set_has_it(rig: Rig) -> None:
    rig.answer(Issued(token("t-1")), Transient("503", retry_after=3600.0), Issued(token("t-2")))
    rig.live(2900)
    assert len(rig.grants.asked) == 2
    rig.clock.step(60)
    rig.live(630)
    assert rig.file.read_bytes() == b"t-2"
    assert rig.grants.asked[-1] == pytest.approx(START.boot + 3600 - 60 - 15, abs=0.1)


def test_due_tokens_are_requested_after_a_suspend(rig: Rig) -> None:
    rig.answer(Issued(token("t-1")), Issued(token("t-2")))
    rig.turn()
    rig.clock.suspend(5000)
    rig.turn()
    assert rig.file.read_bytes() == b"t-2"


# -- admission -----------------------------------------------------------------------------------


def ticket(rig: Rig, name: str = "dnb/other") -> Ticket:
    """An attempt of another target of the client."""
    granted = rig.admission.request(Ask(name, "dnb"), rig.clock.boot)
    assert isinstance(granted, Granted)
    return granted.ticket


@pytest.mark.parametrize(
    ("failure", "reason", "wait"),
    [
        pytest.param(Transient("HTTP 503", retry_after=600.0), "retry_after", 600, id="Retry-After"),
        pytest.param(RateLimited("HTTP 429", retry_after=600.0), "retry_after", 600, id="429 with Retry-After"),
        pytest.param(RateLimited("HTTP 429"), "backoff", 60, id="429"),
        pytest.param(Malformed("HTML"), "backoff", 60, id="malformed"),
        pytest.param(Refused("HTTP 401"), "refused", 300, id="refused client"),
        pytest.param(Refused("HTTP 400", whole_client=False), "refused", 30, id="refused target"),
    ],
)
def test_a_requested_refresh_is_held_after_a_failure(rig: Rig, failure: Outcome, reason: str, wait: float) -> None:
    rig.answer(failure)
    assert rig.controller.refresh_hold() is None
    rig.turn()
    hold = rig.controller.refresh_hold()
    assert hold is not None
    assert (hold.reason, hold.failure) == (reason, failure)
    assert hold.until - rig.clock.boot == pytest.approx(wait, abs=0.01)


def test_a_requested_refresh_is_held_by_its_client(rig: Rig) -> None:
    rig.turn()
    assert rig.controller.refresh_hold() is None
    rig.clock.advance(100)
    other = ticket(rig)
    assert rig.controller.refresh_hold() == Hold("half_open", inf, None)
    rig.admission.settle(other, refusal := Refused("HTTP 401"), rig.clock.boot)
    assert rig.controller.refresh_hold() == Hold("refused", rig.clock.boot + 30, refusal)


def test_a_held_target_is_woken_by_the_outcome_of_another(rig: Rig) -> None:
    other = ticket(rig)
    assert rig.turn() > 1
    assert rig.grants.asked == []
    assert rig.controller.status().held_by == "half_open"
    rig.admission.settle(other, Issued(token()), rig.clock.boot)
    assert rig.woken == ["dnb/bci"]
    rig.turn()
    assert len(rig.grants.asked) == 1
    assert rig.controller.status().held_by == ""


def test_a_grant_that_raises_gives_its_slot_back(rig: Rig) -> None:
    def breaks() -> Outcome:
        raise ValueError

    rig.grants.next = breaks
    with pytest.raises(ValueError, match=r"^$"):
        rig.turn()
    assert rig.admission.view(rig.clock.boot).clients["dnb"].in_flight == 0
    rig.answer(Issued(token("t-1")))
    rig.live(30)
    assert rig.file.read_bytes() == b"t-1"


def test_an_attempt_whose_secret_was_not_read_before_a_stop_is_no_failure_and_uses_up_no_limit(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    limited = replace(rig.target.client, rate_limits=(("client-dnb", RateLimit(1, 28_800.0)),))
    rig.target = replace(rig.target, client=limited)
    rig.start()

    def stopping() -> Outcome:
        raise Stopping("command /bin/pass: killed, because bearerd is stopping")

    rig.grants.next = stopping
    with pytest.raises(Stopping):
        rig.turn()
    assert (rig.hooks.events, caplog.messages) == ([], [])
    rig.answer(Issued(token("t-1")))
    rig.turn()
    assert rig.file.read_bytes() == b"t-1"


def fails_once(monkeypatch: pytest.MonkeyPatch, owner: object, name: str) -> None:
    """Let the next call of a method fail for lack of memory, before it does anything."""
    works = getattr(owner, name)

    def fails(*_: Any, **__: Any) -> None:
        monkeypatch.setattr(owner, name, works)
        raise MemoryError

    monkeypatch.setattr(owner, name, fails)


@pytest.mark.parametrize(("owner", "name"), [("publisher", "withdraw"), ("admission", "forget")])
def test_a_config_that_could_not_be_applied_is_applied_by_the_next_turn(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, owner: str, name: str
) -> None:
    scopes: list[str] = []
    performs = rig.grants.perform

    def perform(asked: Target) -> Performed:
        scopes.append(asked.scope)
        return performs(asked)

    monkeypatch.setattr(rig.grants, "perform", perform)
    rig.answer(Issued(token("t-1")), Issued(token("t-2")))
    rig.turn()
    rig.clock.advance(60)
    rig.target = replace(rig.target, scope="other", outputs=rig.target.outputs[:1])
    fails_once(monkeypatch, getattr(rig, owner), name)
    with pytest.raises(MemoryError):
        rig.turn()
    assert rig.controller.status().target.scope == "bci"
    rig.turn()
    assert scopes == ["bci", "other"]
    assert rig.file.read_bytes() == b"t-2"
    assert not json_of(rig).exists()
    status = rig.controller.status()
    assert (status.target.scope, status.on_disk) == ("other", True)


def test_a_config_that_could_not_be_applied_and_was_taken_back_changes_nothing(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.turn()
    rig.clock.advance(60)
    before, rig.target = rig.target, replace(rig.target, scope="other")
    fails_once(monkeypatch, rig.admission, "forget")
    with pytest.raises(MemoryError):
        rig.turn()
    rig.target = before
    rig.turn()
    assert len(rig.grants.asked) == 1
    assert rig.controller.status().on_disk


def test_a_token_that_was_taken_before_an_exception_is_recorded_and_written_by_the_next_turn(
    rig: Rig, log: pytest.LogCaptureFixture
) -> None:
    failing: list[Exception] = []

    def counted(*_: object) -> None:
        if failing:
            raise failing.pop()

    rig.parts = replace(rig.parts, counted=counted)
    rig.controller = Controller(rig.target, rig.parts)
    rig.answer(Issued(token("t-1")), Issued(token("t-2")))
    rig.turn()
    rig.clock.advance(2880)
    failing.append(MemoryError())
    with pytest.raises(MemoryError):
        rig.turn()
    assert not rig.controller.status().on_disk
    rig.turn()
    assert (rig.file.read_bytes(), recorded(rig)["access_token"]) == (b"t-2", "t-2")
    assert not [line for line in spoken(log) if line.startswith("restored: ")]
    rig.start()
    rig.turn()
    assert len(rig.grants.asked) == 2


def test_a_malformed_reply_waits_a_minute(rig: Rig) -> None:
    rig.answer(Malformed("HTML"))
    assert rig.turn() == pytest.approx(60)


def test_the_log_never_contains_a_token(rig: Rig, log: pytest.LogCaptureFixture) -> None:
    rig.answer(Issued(token("s3cr3t-one"), notes=("odd",)), Transient("reset"), Issued(token("s3cr3t-two")))
    rig.live(4000)
    os.unlink(rig.file)
    rig.clock.step(7200)
    rig.live(4000)
    assert log.records
    assert "s3cr3t" not in log.text


# -- what a review found -----------------------------------------------------------------------------


def test_an_unreadable_client_id_does_not_allow_a_record_of_another_identity(rig: Rig) -> None:
    rig.answer(Issued(token("t-1")), Transient("down"))
    rig.turn()
    rig.target = replace(rig.target, scope="admin")
    rig.start(client_id=None)
    rig.turn()
    assert len(rig.grants.asked) == 2
    assert rig.controller.status().expires is None


def test_failed_removals_are_retried_with_backoff(rig: Rig, log: pytest.LogCaptureFixture) -> None:
    rig.target = replace(rig.target, on_expiry="remove")
    rig.start()
    rig.answer(Issued(token("t-1")), Refused("401"))
    rig.live(3599)
    rig.file.unlink()
    rig.file.mkdir()
    turns = 0
    end = rig.clock.boot + 60
    while rig.clock.boot < end:
        rig.clock.advance(max(rig.turn(), 0.001))
        turns += 1
    assert turns < 30
    assert len([line for line in spoken(log) if "a directory has this name" in line]) == 1
    rig.file.rmdir()
    rig.turn()
    assert any("files are written again" in line for line in spoken(log))


@pytest.mark.parametrize("step", [31, -31])
def test_repeated_clock_steps_do_not_cause_early_attempts(rig: Rig, step: float) -> None:
    rig.answer(Issued(token("t-1")), Transient("503", retry_after=3600))
    rig.turn()
    rig.clock.advance(2880)
    rig.turn()
    for _ in range(20):
        rig.clock.advance(8)
        rig.clock.step(step)
        rig.turn()
    assert len(rig.grants.asked) == 2


def test_a_clock_set_forward_and_back_removes_no_file(rig: Rig) -> None:
    rig.target = replace(rig.target, on_expiry="remove")
    rig.start()
    rig.answer(Issued(token("t-1")), Transient("down"))
    rig.turn()
    rig.clock.advance(60)
    rig.clock.step(7200)
    rig.live(8)
    assert rig.file.read_bytes() == b"t-1"
    rig.clock.step(-7200)
    rig.live(3000)
    assert rig.file.read_bytes() == b"t-1"
    rig.live(600)
    assert not rig.file.exists()  # it has expired by both clocks


def test_a_siblings_success_releases_a_target_of_a_refused_client(rig: Rig) -> None:
    rig.answer(Refused("HTTP 401 invalid_client"))
    rig.live(200)
    asked = len(rig.grants.asked)
    rig.clock.advance(100)
    other = ticket(rig)
    rig.woken.clear()
    rig.admission.settle(other, Issued(token()), rig.clock.boot)
    assert rig.woken == ["dnb/bci"]
    rig.answer(Issued(token("t-1")))
    rig.turn()
    assert (len(rig.grants.asked), rig.file.read_bytes()) == (asked + 1, b"t-1")


# -- the status of held targets, and several secrets ---------------------------------------------------


def refuse(rig: Rig, times: int = 3) -> Refused:
    """Let other targets of the client be refused, as many as may try at a start. Then the client waits."""
    refusal = Refused("HTTP 401", hint="try this")
    for number in range(times):
        rig.clock.advance(2)
        rig.admission.settle(ticket(rig, f"dnb/other-{number}"), refusal, rig.clock.boot)
    return refusal


def test_a_target_held_by_a_refused_client_shows_the_refusal_and_until_when(rig: Rig) -> None:
    refusal = refuse(rig)
    assert rig.turn() == pytest.approx(300)
    target_status = rig.controller.status()
    assert (target_status.failure, target_status.held_by, target_status.on_disk) == (refusal, "refused", False)
    assert target_status.held_until == rig.clock.boot + 300
    rig.clock.advance(300)
    rig.turn()
    target_status = rig.controller.status()
    assert (target_status.failure, target_status.held_by, target_status.on_disk) == (None, "", True)


def test_a_targets_own_failure_is_shown_before_its_clients_refusal(rig: Rig) -> None:
    rig.answer(Malformed("HTML"))
    rig.turn()
    refuse(rig)
    rig.clock.advance(60)
    rig.turn()
    target_status = rig.controller.status()
    assert (target_status.failure, target_status.held_by) == (Malformed("HTML"), "refused")


def test_a_token_that_is_not_due_is_not_affected_by_its_clients_refusal(rig: Rig) -> None:
    rig.turn()
    refuse(rig, times=1)
    rig.start(admission=rig.admission)
    rig.turn()
    target_status = rig.controller.status()
    assert (target_status.failure, target_status.held_by, target_status.on_disk) == (None, "", True)


def test_a_valid_token_of_a_refused_client_stays_in_its_files(rig: Rig) -> None:
    rig.turn()
    rig.clock.advance(2880)
    refusal = refuse(rig, times=1)
    rig.file.unlink()
    rig.start(admission=rig.admission)
    assert rig.turn() == pytest.approx(30)
    target_status = rig.controller.status()
    assert (target_status.failure, target_status.on_disk, target_status.held_by) == (refusal, True, "refused")
    assert rig.file.read_bytes() == b"t-1"
    rig.answer(refusal)
    rig.live(720 - 3)
    assert target_status.expires is not None
    assert target_status.expires - rig.grants.asked[-1] == pytest.approx(15, abs=0.1)  # its last attempt


def test_a_target_held_by_a_rate_limit_shows_it_and_has_not_failed(rig: Rig) -> None:
    rig.target = replace(
        rig.target, client=replace(rig.target.client, rate_limits=(("client-dnb", RateLimit(1, 28_800.0)),))
    )
    rig.start(min_valid=3600)
    rig.turn()
    rig.clock.advance(2880)
    rig.turn()
    target_status = rig.controller.status()
    assert (target_status.failure, target_status.held_by, target_status.on_disk) == (None, "rate_limit", True)
    assert target_status.held_until > rig.clock.boot


def test_another_secret_is_tried_a_second_after_a_refusal_and_each_refusal_is_logged(
    rig: Rig, log: pytest.LogCaptureFixture
) -> None:
    rig.answer(
        Refused("HTTP 401", another_secret=True, hint="the client has another secret, which is tried next"),
        Refused("HTTP 401 again"),
    )
    rig.live(3599)
    asked = [moment - rig.grants.asked[0] for moment in rig.grants.asked]
    assert asked == pytest.approx([0, 1, 301, 901, 2101], abs=0.1)  # a list of wrong secrets has the pace of one
    said = spoken(log)
    assert said[:2] == [
        "HTTP 401; the client has another secret, which is tried next; there is no valid token; next attempt in 1 s",
        "still failing after 2 attempts in 1 s: HTTP 401 again; there is no valid token; next attempt in 5 min",
    ]
    assert said[2].startswith("still failing after 3 attempts in 10 min: HTTP 401 again; ")


# -- hooks ---------------------------------------------------------------------------------------------


def hook_events(rig: Rig) -> list[str]:
    """The events since the last call."""
    events, rig.hooks.events = rig.hooks.events, []
    return events


def json_of(rig: Rig) -> Path:
    """The second file of the target."""
    return rig.directory / "dnb/bci.json"


class Watching(HookEvents):
    """Notes at each event the content of each file."""

    directory: Path

    def announce(self, target: Target) -> None:
        super().announce(target)
        self._look()

    def changed(self, target: Target, *, first: bool) -> None:
        super().changed(target, first=first)
        self._look()

    def _look(self) -> None:
        raw, document = self.directory / "dnb/bci", self.directory / "dnb/bci.json"
        found = (path.read_text() if path.exists() else "" for path in (raw, document))
        self.events[-1] += " " + " ".join(
            text[:3] if text[:1] != "{" else json.loads(text)["access_token"] for text in found
        )


def test_hooks_run_once_all_files_are_written_and_are_noted_before_the_first(
    rig: Rig,
) -> None:
    rig.hooks = Watching()
    rig.hooks.directory = rig.directory
    rig.start()
    rig.answer(Issued(token("t-1")), Issued(token("t-2")))
    rig.turn()
    assert hook_events(rig) == ["announced  ", "first t-1 t-1"]
    rig.clock.advance(2880)
    rig.turn()
    assert hook_events(rig) == ["announced t-1 t-1", "changed t-2 t-2"]


def test_hooks_do_not_run_without_a_change(rig: Rig) -> None:
    rig.turn()
    hook_events(rig)
    rig.turn()
    rig.clock.advance(2880)
    rig.turn()  # the same token again
    assert len(rig.grants.asked) == 2
    rig.answer(Transient("reset"))
    rig.clock.advance(360)
    rig.turn()
    assert hook_events(rig) == []


@pytest.mark.parametrize("harm", ["deleted", "altered", "opened"])
def test_hooks_run_after_a_file_was_restored(rig: Rig, harm: str) -> None:
    rig.turn()
    hook_events(rig)
    match harm:
        case "deleted":
            rig.file.unlink()
        case "altered":
            rig.file.write_text("t-0")
        case "opened":
            rig.file.chmod(0o666)
    rig.turn()
    assert hook_events(rig) == ["announced", "changed"]


def test_hooks_do_not_run_for_times_corrected_after_a_clock_step(rig: Rig) -> None:
    rig.answer(Issued(token("t-1")), Transient("down"), Issued(token("t-2")))
    rig.turn()
    hook_events(rig)
    before = json_of(rig).read_text()
    rig.clock.step(20)
    rig.turn()
    between = json_of(rig).read_text()
    rig.clock.step(-7200)  # far enough to cause a refresh, which fails
    rig.turn()
    assert len({before, between, json_of(rig).read_text()}) == 3
    assert hook_events(rig) == []
    rig.live(10)
    assert rig.file.read_text() == "t-2"
    assert hook_events(rig) == ["announced", "changed"]


def test_hooks_run_for_a_new_token_in_the_turn_after_a_clock_step(rig: Rig) -> None:
    rig.answer(Issued(token("t-1")), Issued(token("t-2")))
    rig.turn()
    hook_events(rig)
    rig.clock.advance(60)
    rig.clock.step(7200)
    rig.turn()
    assert rig.file.read_text() == "t-2"
    assert hook_events(rig) == ["announced", "changed"]


def test_hooks_run_for_a_file_restored_after_times_were_corrected(rig: Rig) -> None:
    rig.turn()
    rig.clock.step(20)
    rig.turn()
    hook_events(rig)
    rig.file.unlink()
    rig.turn()
    assert hook_events(rig) == ["announced", "changed"]


def test_hooks_run_for_a_new_config_while_times_are_not_corrected_yet(rig: Rig) -> None:
    rig.turn()
    hook_events(rig)
    json_of(rig).unlink()
    json_of(rig).mkdir()
    rig.clock.step(20)
    rig.turn()
    assert hook_events(rig) == []
    header = Output(path=str(rig.directory / "dnb/bci.header"), format="header")
    rig.target = replace(rig.target, outputs=(rig.target.outputs[0], header))
    rig.turn()
    assert hook_events(rig) == ["announced", "changed"]


def test_hooks_run_for_a_retried_file_after_a_clock_step(rig: Rig) -> None:
    json_of(rig).mkdir(parents=True)
    rig.turn()
    assert hook_events(rig) == ["announced"]
    rig.clock.step(20)
    json_of(rig).rmdir()
    rig.turn()
    assert hook_events(rig) == ["announced", "first"]


def test_hooks_do_not_run_at_a_start_with_files_in_place(rig: Rig) -> None:
    rig.turn()
    hook_events(rig)
    rig.start()
    rig.turn()
    before = json_of(rig).read_text()
    rig.clock.step(20)
    rig.start()
    rig.turn()
    assert json_of(rig).read_text() != before
    rig.clock.reboot()
    rig.answer(Transient("the network is not there yet"))
    rig.start()
    rig.turn()
    assert hook_events(rig) == []
    assert len(rig.grants.asked) == 2


def test_hooks_run_at_a_start_for_altered_files_but_not_as_the_first_token(rig: Rig) -> None:
    rig.turn()
    hook_events(rig)
    rig.file.unlink()
    rig.start()
    rig.turn()
    assert hook_events(rig) == ["announced", "changed"]
    assert len(rig.grants.asked) == 1


def test_a_token_after_an_expired_record_is_not_the_first(rig: Rig) -> None:
    rig.answer(Issued(token("t-1")), Issued(token("t-2")))
    rig.turn()
    hook_events(rig)
    rig.clock.advance(3600)
    rig.start()
    rig.turn()
    assert hook_events(rig) == ["announced", "changed"]


def test_hooks_owed_by_an_earlier_process_run_once_the_files_are_written(rig: Rig) -> None:
    rig.turn()
    hook_events(rig)
    rig.hooks.owing = True
    rig.start()
    rig.turn()
    assert hook_events(rig) == ["changed"]
    rig.turn()
    assert hook_events(rig) == []
    assert len(rig.grants.asked) == 1


def test_hooks_owed_for_an_expired_token_run_for_the_next_one(rig: Rig) -> None:
    rig.answer(Issued(token("t-1")), Transient("down"), Issued(token("t-2")))
    rig.turn()
    hook_events(rig)
    rig.clock.advance(3600)
    rig.hooks.owing = True
    rig.start()
    rig.turn()
    assert hook_events(rig) == []
    rig.live(10)
    assert hook_events(rig) == ["announced", "changed"]


@pytest.mark.parametrize("owing", [False, True])
def test_hooks_do_not_run_while_a_file_cannot_be_written(rig: Rig, *, owing: bool) -> None:
    if owing:
        rig.turn()
        hook_events(rig)
        json_of(rig).unlink()
    json_of(rig).mkdir(parents=True)
    rig.hooks.owing = owing
    rig.start()
    for _ in range(3):
        rig.turn()
        rig.clock.advance(10)
    assert rig.file.read_text() == "t-1"
    assert set(hook_events(rig)) == {"announced"}
    json_of(rig).rmdir()
    rig.turn()
    assert hook_events(rig) == ["announced", "changed" if owing else "first"]
    rig.turn()
    assert hook_events(rig) == []


def test_hooks_run_for_added_files_but_not_for_a_changed_schedule(rig: Rig) -> None:
    rig.turn()
    hook_events(rig)
    rig.target = replace(rig.target, refresh_before=RefreshBefore(seconds=60))
    rig.turn()
    assert hook_events(rig) == []
    more = (*rig.target.outputs, Output(path=str(rig.directory / "dnb/bci.header"), format="header"))
    rig.target = replace(rig.target, outputs=more)
    rig.turn()
    assert hook_events(rig) == ["announced", "changed"]


@pytest.mark.parametrize("failing", [False, True])
def test_corrected_hooks_run_if_the_old_ones_failed_or_are_owed(rig: Rig, *, failing: bool) -> None:
    rig.turn()
    hook_events(rig)
    rig.hooks.failing = failing
    rig.target = replace(rig.target, on_failure=(Hook(argv=("/bin/true",)),))
    rig.turn()
    assert hook_events(rig) == []
    rig.target = replace(rig.target, on_change=(Hook(argv=("/bin/true",)),))
    rig.turn()
    assert hook_events(rig) == ["changed"] * failing
    rig.turn()
    assert hook_events(rig) == []


def test_owed_hooks_are_not_for_the_first_token_even_with_a_damaged_record(rig: Rig) -> None:
    rig.turn()
    hook_events(rig)
    (rig.directory / ".bearerd/records/dnb/bci.json").write_text("{")
    rig.hooks.owing = True
    rig.start()
    rig.turn()
    assert hook_events(rig) == ["changed"]  # the same token again


def test_hooks_run_for_a_restored_file_without_times_after_a_clock_step(rig: Rig) -> None:
    rig.turn()
    hook_events(rig)
    rig.file.unlink()
    rig.clock.step(20)
    rig.start()
    rig.turn()
    assert hook_events(rig) == ["changed"]
    rig.file.unlink()
    rig.clock.step(20)
    rig.turn()
    assert hook_events(rig) == ["changed"]


def lost_after(rig: Rig, within: float) -> float | None:
    """Seconds until `on_failure` runs; None if it does not run within this many seconds."""
    hook_events(rig)
    began = rig.clock.boot
    while rig.clock.boot - began <= within:
        wait = rig.turn()
        if "failed" in hook_events(rig):
            return rig.clock.boot - began
        rig.clock.advance(max(wait, 0.001))
    return None


REFUSED = Refused("HTTP 401 invalid_client")
ALONE = Refused("HTTP 400 invalid_scope", whole_client=False)
ANOTHER = Refused("HTTP 401", another_secret=True)
MALFORMED = Malformed("HTML")
UNSENT = Unsent("file /s: empty", phase="secret")
DOWN = Transient("reset")
LIMITED = RateLimited("HTTP 429")


@pytest.mark.parametrize(
    ("outcomes", "seconds"),
    [
        pytest.param([REFUSED], 0, id="refused"),
        pytest.param([ALONE], 0, id="refused alone"),
        pytest.param([ANOTHER, ANOTHER, REFUSED], 2, id="refused with the last of its secrets"),
        pytest.param([MALFORMED], 0, id="no good token"),
        pytest.param([UNSENT], 0, id="no secret"),
        pytest.param([DOWN], 600, id="down for ten minutes"),
        pytest.param([Transient("503", retry_after=599), DOWN], 600, id="down for a second less, and then more"),
        pytest.param([Transient("503", retry_after=600)], 600, id="down for ten minutes between two attempts"),
        pytest.param([LIMITED], 600, id="too many requests"),
        pytest.param([DOWN, DOWN, MALFORMED], 2, id="down, and then another that answers"),
    ],
)
def test_on_failure_without_a_token_runs_for_lasting_failures(
    rig: Rig, outcomes: list[Outcome], seconds: float
) -> None:
    rig.answer(*outcomes)
    assert lost_after(rig, 3600) == pytest.approx(seconds, abs=0.1)


@pytest.mark.parametrize(
    ("outcomes", "seconds"),
    [
        pytest.param([REFUSED], 30, id="refused twice"),
        pytest.param([ALONE], 30, id="refused alone, twice"),
        pytest.param([REFUSED, Issued(token("t-2"))], None, id="a load balancer's refusal"),
        pytest.param([ANOTHER, REFUSED], 31, id="refused twice with the last of its secrets"),
        pytest.param([MALFORMED], 60, id="no good token, twice"),
        pytest.param([MALFORMED, Issued(token("t-2"))], None, id="no good token, once"),
        pytest.param([UNSENT], 10, id="no secret, twice"),
        pytest.param([DOWN], 720, id="down until it expires"),
        pytest.param([LIMITED], 720, id="too many requests until it expires"),
        pytest.param([DOWN] * 40 + [Issued(token("t-2"))], None, id="down for a while"),
        pytest.param([DOWN, MALFORMED, DOWN, MALFORMED], 62, id="one of two answers no good token"),
    ],
)
def test_on_failure_with_a_token_runs_for_repeated_failures_and_its_expiry(
    rig: Rig, outcomes: list[Outcome], seconds: float | None
) -> None:
    rig.turn()
    rig.clock.advance(2880)
    rig.answer(*outcomes)
    found = lost_after(rig, 719 if seconds is None else 3600)
    assert found == (seconds if seconds is None else pytest.approx(seconds, abs=0.1))


def test_on_failure_runs_once_per_failure_and_again_for_the_next(rig: Rig) -> None:
    rig.answer(REFUSED)
    rig.live(3 * 3600)
    assert hook_events(rig) == ["failed"]
    rig.answer(Issued(token("t-1")), DOWN)
    rig.live(3600)
    assert hook_events(rig) == ["announced", "first"]
    rig.live(3600)
    assert hook_events(rig) == ["failed"]
    rig.answer(Issued(token("t-2")), REFUSED)
    rig.live(7200)
    assert hook_events(rig) == ["announced", "changed", "failed"]


def test_on_failure_runs_once_for_a_failed_renewal_and_the_expiry_after_it(rig: Rig) -> None:
    rig.answer(Issued(token("t-1")), REFUSED)
    rig.live(3600 + 3600)
    assert hook_events(rig) == ["announced", "first", "failed"]


def test_a_lost_token_that_the_provider_returns_again_has_recovered(rig: Rig) -> None:
    rig.answer(Issued(token("t-1")), MALFORMED, MALFORMED, Issued(token("t-1")), MALFORMED)
    rig.live(3500)
    assert hook_events(rig) == ["announced", "first", "failed", "failed"]


@pytest.mark.parametrize("others", [1, 2])
def test_on_failure_also_runs_for_targets_held_by_their_clients_refusal(rig: Rig, others: int) -> None:
    rig.turn()
    rig.clock.advance(2880)
    hook_events(rig)
    for number in range(others):
        rig.admission.settle(ticket(rig, f"dnb/other-{number}"), Refused("HTTP 401"), rig.clock.boot)
        rig.clock.advance(30 if number + 1 < others else 1)
    rig.turn()
    assert rig.controller.status().held_by == "refused"
    assert hook_events(rig) == ["failed"] * (others - 1)  # with a valid token it takes two refusals


def test_on_failure_runs_for_a_refused_client_after_a_transient_failure(rig: Rig) -> None:
    rig.answer(DOWN)
    rig.turn()
    refuse(rig)
    rig.clock.advance(5)
    rig.turn()
    assert rig.controller.status().held_by == "refused"
    assert hook_events(rig) == ["failed"]


def test_on_failure_runs_at_once_for_a_refused_client_without_a_token(rig: Rig) -> None:
    refuse(rig)
    rig.turn()
    assert rig.grants.asked == []
    assert hook_events(rig) == ["failed"]


def test_a_target_held_by_a_rate_limit_is_lost_only_at_its_expiry(rig: Rig) -> None:
    rig.target = replace(
        rig.target, client=replace(rig.target.client, rate_limits=(("client-dnb", RateLimit(1, 28_800.0)),))
    )
    rig.start()
    rig.turn()
    assert lost_after(rig, 7200) == pytest.approx(3600)


def test_on_failure_runs_again_after_a_restart(rig: Rig) -> None:
    rig.answer(REFUSED)
    rig.turn()
    rig.start()
    rig.turn()
    assert hook_events(rig) == ["failed", "failed"]


def test_the_files_hold_a_valid_token_while_a_new_one_is_written(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[bool, float]] = []
    real = rig.publisher.ensure

    def ensure(*arguments: Any) -> Published:
        target_status = rig.controller.status()
        seen.append((target_status.on_disk, target_status.readable_until - START.boot))
        return real(*arguments)

    monkeypatch.setattr(rig.publisher, "ensure", ensure)
    rig.answer(Issued(token("t-1")), Issued(token("t-2")))
    rig.turn()
    rig.clock.advance(2880)
    rig.turn()
    assert seen == [(False, -START.boot), (False, 3600.0)]
    assert rig.controller.status().readable_until == START.boot + 2880 + 3600
    # A file that could not be written may be missing.
    rig.file.unlink()
    rig.file.mkdir()
    rig.turn()
    assert (rig.controller.status().on_disk, rig.controller.status().readable_until) == (False, 0.0)
    rig.file.rmdir()
    rig.turn()
    assert rig.controller.status().readable_until > rig.clock.boot
    # After a change of identity no file holds the new token yet.
    rig.target = target(outputs=rig.target.outputs, scope="other")
    rig.answer(Transient("down"))
    rig.turn()
    assert rig.controller.status().readable_until == 0.0


# -- templates -----------------------------------------------------------------------------------------


def by_template(rig: Rig) -> tuple[Path, Path]:
    """Give the target another file, made from a template. Returns the paths of template and file."""
    template, made = rig.directory.parent / "own.j2", rig.directory / "made"
    template.write_text("one")
    output = Output(str(made), "template", template=str(template))
    rig.target = replace(rig.target, outputs=(*rig.target.outputs, output))
    rig.start()
    rig.turn()
    rig.hooks.events.clear()
    return template, made


def test_a_changed_template_runs_hooks_and_is_not_logged_as_a_restore(rig: Rig, log: pytest.LogCaptureFixture) -> None:
    template, made = by_template(rig)
    template.write_text("two")
    rig.turn(TemplateChanged())
    assert (made.read_text(), rig.hooks.events, len(rig.grants.asked)) == ("two", ["announced", "changed"], 1)
    assert not any("restored" in line for line in spoken(log))
    made.write_text("altered")
    rig.turn()
    assert (made.read_text(), spoken(log)[-1]) == ("two", f"restored: {made}")


@pytest.mark.parametrize("while_it_is_broken", [False, True])
def test_hooks_run_for_a_changed_template_despite_a_clock_step(rig: Rig, while_it_is_broken: bool) -> None:
    template, made = by_template(rig)
    rig.clock.step(100)
    if while_it_is_broken:
        template.write_text("{{ nope }}")
        rig.turn()
        assert (made.read_text(), rig.hooks.events) == ("one", [])
    template.write_text("two")
    rig.turn(TemplateChanged())
    assert (made.read_text(), rig.hooks.events) == ("two", ["announced", "changed"])


# -- tokens that had expired when they arrived ------------------------------------------------------------


def replies_too_late(rig: Rig) -> None:
    """Each reply takes longer than the lifetime of its token."""
    rig.grants.takes = 9.0
    rig.grants.next = lambda: Issued(token(f"late-{len(rig.grants.asked)}", lifetime=8.0))


def test_a_third_first_token_in_a_row_that_arrives_expired_is_malformed(rig: Rig) -> None:
    replies_too_late(rig)
    kinds = []
    for _ in range(3):
        rig.clock.advance(rig.turn())
        kinds.append(type(rig.controller.status().failure))
    assert kinds == [Transient, Transient, Malformed]


def test_a_token_that_arrives_expired_for_another_scope_leaves_the_old_one_in_its_files(rig: Rig) -> None:
    rig.target = replace(rig.target, on_expiry="remove")
    rig.start()
    rig.turn()
    rig.clock.advance(1)
    rig.target = replace(rig.target, scope="risk")
    replies_too_late(rig)
    rig.turn()
    status = rig.controller.status()
    assert isinstance(status.failure, Transient)
    assert status.expires is not None
    assert rig.file.read_bytes() == b"t-1"


# -- a new token that waits ----------------------------------------------------------------------------


@pytest.fixture
def delayed(rig: Rig) -> Rig:
    """A rig with a token in its files, and a newer one whose `publish_delay` of 30 s has just begun."""
    rig.target = replace(rig.target, publish_delay=30.0, on_change=(Hook(argv=("true",)),))
    rig.answer(Issued(token("t-1")), Issued(token("t-2")))
    rig.start()
    rig.turn()
    rig.clock.advance(rig.turn())
    rig.hooks.events.clear()
    assert rig.turn() == pytest.approx(30)
    assert len(rig.grants.asked) == 2
    return rig


def digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:16]


def recorded(rig: Rig) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((rig.directory / ".bearerd/records/dnb/bci.json").read_bytes())
    return content


def test_a_new_token_is_published_after_its_delay_and_its_hooks_run_then(
    delayed: Rig, log: pytest.LogCaptureFixture
) -> None:
    assert delayed.file.read_bytes() == b"t-1"
    delayed.clock.advance(29.9)
    delayed.turn()
    assert delayed.file.read_bytes() == b"t-1"
    assert delayed.hooks.events == []
    log.clear()
    delayed.clock.advance(0.1)
    assert delayed.turn() == pytest.approx(2850)
    assert delayed.file.read_bytes() == b"t-2"
    assert delayed.hooks.events == ["announced", "changed"]
    assert spoken(log) == ["the new token is published"]
    delayed.turn()
    assert delayed.hooks.events == ["announced", "changed"]


def test_no_reader_with_an_old_copy_has_an_expired_token_after_the_delay(rig: Rig) -> None:
    stale = tuple(replace(output, max_staleness=900.0) for output in rig.target.outputs)
    rig.target = replace(rig.target, publish_delay=300.0, outputs=stale)
    rig.answer(Issued(token("t-1")), Issued(token("t-2")))
    rig.start()
    assert rig.turn() == pytest.approx(3600 - 900 - 300)
    rig.live(3600 - 900 + 1)
    assert rig.file.read_bytes() == b"t-2"


def test_the_log_says_when_a_new_token_is_published(rig: Rig, log: pytest.LogCaptureFixture) -> None:
    rig.target = replace(rig.target, publish_delay=30.0)
    rig.start()
    rig.turn()
    rig.answer(Issued(token("t-2"), nbf=600.0))
    rig.clock.advance(2880)
    log.clear()
    rig.turn()
    assert spoken(log) == [
        (
            "the new token becomes valid only in 10 min (its nbf), but is published in 60 s anyway; compare this "
            "machine's clock with the provider's"
        ),
        "token obtained, good for 1 h; it is published in 60 s; next refresh in 48 min",
    ]


def test_the_log_warns_of_a_token_that_is_published_before_it_is_valid(rig: Rig, log: pytest.LogCaptureFixture) -> None:
    # So that it is published before its own refresh.
    rig.answer(Issued(token("t-1", lifetime=60.0), nbf=40.0))
    rig.start()
    assert rig.turn() == pytest.approx(30)
    assert "the new token becomes valid only in 40 s (its nbf), but is published in 30 s anyway" in spoken(log)[0]


@pytest.mark.parametrize(("max_staleness", "lead"), [(0.0, 30.0), (60.0, 90.0)])
def test_a_token_is_refreshed_early_enough_for_the_delay_and_for_readers_of_the_old_one(
    rig: Rig, max_staleness: float, lead: float
) -> None:
    first, *others = rig.target.outputs
    rig.target = replace(
        rig.target,
        refresh_before=RefreshBefore(seconds=10.0),
        publish_delay=30.0,
        outputs=(replace(first, max_staleness=max_staleness), *others),
    )
    rig.start()
    assert rig.turn() == pytest.approx(3600 - lead)


def test_the_status_is_that_of_the_token_in_the_files(delayed: Rig) -> None:
    status = delayed.controller.status()
    now = delayed.clock.boot
    assert status.expires == pytest.approx(now + 720)
    assert status.on_disk
    assert status.publish_at == pytest.approx(now + 30)
    assert status.next_refresh == pytest.approx(now + 2880)
    delayed.clock.advance(30)
    delayed.turn()
    status = delayed.controller.status()
    assert status.expires == pytest.approx(now + 3600)
    assert status.publish_at is None


def test_the_record_has_both_tokens_until_then(delayed: Rig) -> None:
    kept = recorded(delayed)
    assert (kept["access_token"], kept["next"]["access_token"], kept["publish_after"]) == ("t-1", "t-2", 30.0)
    delayed.clock.advance(30)
    delayed.turn()
    kept = recorded(delayed)
    assert (kept["access_token"], "next" in kept) == ("t-2", False)


def test_a_process_that_is_killed_during_the_delay_loses_nothing(delayed: Rig) -> None:
    delayed.clock.advance(10)
    delayed.start()  # nothing was said to the process before
    assert delayed.turn() == pytest.approx(20)
    assert delayed.file.read_bytes() == b"t-1"
    delayed.clock.advance(20)
    delayed.turn()
    assert delayed.file.read_bytes() == b"t-2"
    assert delayed.hooks.events == ["announced", "changed"]
    assert len(delayed.grants.asked) == 2


def test_a_delay_that_ended_while_no_process_ran_is_forgotten(delayed: Rig) -> None:
    delayed.clock.advance(100)
    delayed.start()
    delayed.turn()
    assert delayed.file.read_bytes() == b"t-2"
    assert "next" not in recorded(delayed)


def test_hooks_run_for_a_delay_that_ended_while_no_process_ran_and_the_clock_was_set(delayed: Rig) -> None:
    of_json = tuple(output for output in delayed.target.outputs if output.format == "json")
    delayed.target = replace(delayed.target, outputs=of_json)
    delayed.turn()
    delayed.hooks.events.clear()
    delayed.clock.advance(100)
    delayed.clock.step(20)
    delayed.start()
    delayed.turn()
    assert '"access_token": "t-2"' in json_of(delayed).read_text()
    assert delayed.hooks.events == ["announced", "changed"]


def test_a_file_that_is_altered_during_the_delay_gets_the_present_token_back(delayed: Rig) -> None:
    delayed.file.write_bytes(b"x")
    delayed.turn()
    assert delayed.file.read_bytes() == b"t-1"


def test_a_token_that_is_removed_from_the_config_during_the_delay_leaves_nothing(delayed: Rig) -> None:
    delayed.controller.withdraw((), set)
    assert not delayed.file.exists()
    assert not (delayed.directory / ".bearerd/records/dnb/bci.json").exists()


def test_a_config_without_the_delay_publishes_at_once(delayed: Rig) -> None:
    delayed.target = replace(delayed.target, publish_delay=0.0)
    delayed.turn()
    assert delayed.file.read_bytes() == b"t-2"
    assert len(delayed.grants.asked) == 2


def test_a_clock_step_during_the_delay_runs_no_hook(delayed: Rig) -> None:
    delayed.clock.step(20.0)
    delayed.turn()
    assert delayed.file.read_bytes() == b"t-1"
    assert delayed.hooks.events == []
    kept = recorded(delayed)
    assert kept["obtained_wall"] == pytest.approx(START.wall + 20.0)


def test_a_consumer_that_names_the_present_token_gets_the_new_one_without_a_request(delayed: Rig) -> None:
    named = digest("t-1")
    assert delayed.controller.replaces(named)
    assert not delayed.controller.is_newer(named)
    delayed.turn(RefreshRequested(named))
    assert delayed.file.read_bytes() == b"t-2"
    assert delayed.controller.is_newer(named)
    assert len(delayed.grants.asked) == 2


def test_a_newer_token_that_could_not_be_written_is_not_in_the_files_and_costs_no_request(rig: Rig) -> None:
    rig.answer(Issued(token("t-1")), Issued(token("t-2")))
    rig.turn()
    rig.clock.advance(2880)
    rig.file.unlink()
    rig.file.mkdir()
    rig.turn()
    named = digest("t-1")
    assert not rig.controller.is_newer(named)
    assert rig.controller.replaces(named)
    rig.file.rmdir()
    rig.turn(RefreshRequested(named))
    assert rig.file.read_bytes() == b"t-2"
    assert rig.controller.is_newer(named)
    assert len(rig.grants.asked) == 2


def test_what_a_consumer_with_a_failing_token_requests_is_published_at_once(rig: Rig) -> None:
    rig.target = replace(rig.target, publish_delay=30.0)
    rig.answer(Issued(token("t-1")), Issued(token("t-2")))
    rig.start()
    rig.turn()
    rig.clock.advance(600)
    rig.turn(RefreshRequested(digest("t-1")))
    assert rig.file.read_bytes() == b"t-2"


def test_a_user_who_requests_a_new_token_waits_for_its_publication(rig: Rig) -> None:
    rig.target = replace(rig.target, publish_delay=30.0)
    rig.answer(Issued(token("t-1")), Issued(token("t-2")))
    rig.start()
    rig.turn()
    rig.clock.advance(600)
    assert rig.turn(RefreshRequested()) == pytest.approx(30)
    assert rig.file.read_bytes() == b"t-1"


@pytest.mark.parametrize("on_expiry", ["keep", "remove"])
def test_a_first_token_that_is_not_valid_yet_waits_and_is_on_record(rig: Rig, on_expiry: OnExpiry) -> None:
    rig.target = replace(rig.target, on_expiry=on_expiry)
    rig.answer(Issued(token("t-1"), nbf=20.0))
    rig.start()
    assert rig.turn() == pytest.approx(20)
    assert not rig.file.exists()
    assert rig.controller.status().expires is None
    rig.clock.advance(5)
    rig.start()
    assert rig.turn() == pytest.approx(15)
    rig.clock.advance(15)
    rig.turn()
    assert rig.file.read_bytes() == b"t-1"
    assert len(rig.grants.asked) == 1


def test_a_present_token_that_expires_before_the_nbf_of_the_new_one_causes_no_alarm(
    rig: Rig, log: pytest.LogCaptureFixture
) -> None:
    rig.answer(Issued(token("t-1", lifetime=20.0)), Issued(token("t-2"), nbf=40.0))
    rig.turn()
    rig.clock.advance(rig.turn())
    rig.turn()
    rig.live(35)
    assert rig.file.read_bytes() == b"t-1"
    rig.live(10)
    assert rig.file.read_bytes() == b"t-2"
    assert not [record for record in log.records if record.levelno >= logging.WARNING]
    assert "failed" not in rig.hooks.events


def test_the_old_token_of_a_changed_request_stays_until_the_new_one_is_valid(rig: Rig) -> None:
    rig.target = replace(rig.target, on_expiry="remove")
    rig.answer(Issued(token("t-1")), Issued(token("t-2"), nbf=20.0))
    rig.start()
    rig.turn()
    rig.clock.advance(60)
    rig.target = replace(rig.target, scope="other")
    rig.turn()
    assert rig.file.read_bytes() == b"t-1"
    assert (recorded(rig)["access_token"], "next" in recorded(rig)) == ("t-2", False)
    rig.clock.advance(20)
    rig.turn()
    assert rig.file.read_bytes() == b"t-2"
