"""One target's turns, over real files, with the clock by hand and the grants' outcomes as a script."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from bearerd.admission.admission import Admission
from bearerd.admission.types import Ask, Granted, Limits, Ticket
from bearerd.grant.outcome import Issued, Malformed, Outcome, Performed, RateLimited, Refused, Transient, Unsent
from bearerd.lifecycle.controller import Controller
from bearerd.lifecycle.parts import Parts
from bearerd.lifecycle.wishes import TemplateChanged, Wish
from bearerd.model import Config, Hook, Output, RateLimit, RefreshBefore, Target
from bearerd.publish.publisher import Published, Publisher
from support.clock import START, FakeClock
from support.targets import CLIENT, target, token

CLIENT_ID = str(CLIENT.client_id)


@dataclass
class Script:
    """Grants that come to what the test says; `asked` holds the moments."""

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
    """What others are told, in order; `owed` is what an earlier process left to be told."""

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
    """The client id that can be read."""

    id: str | None = CLIENT_ID
    looked: int = 0

    def client_id(self, _target: Target) -> str | None:
        return self.id

    def credentials_changed(self, _target: Target) -> None:
        self.looked += 1


@dataclass
class Rig:
    """A controller and all around it."""

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

    def start(self, least: float = 0.0, client_id: str | None = CLIENT_ID, admission: Admission | None = None) -> None:
        """A new process over the same directory; it knows of its client what admission does."""
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
            least=least,
        )
        self.controller = Controller(self.target, self.parts)

    @property
    def file(self) -> Path:
        return self.directory / "dnb/bci"

    def answer(self, *outcomes: Outcome) -> None:
        """What the next grants come to; the last stays."""
        rest = list(outcomes)
        self.grants.next = lambda: rest.pop(0) if len(rest) > 1 else rest[0]

    def turn(self, *wishes: Wish) -> float:
        """A turn; seconds until the next."""
        return self.controller.reconcile(self.target, wishes, self.paths) - self.clock.boot

    def paths(self) -> set[str]:
        """What is wanted of files."""
        return {output.path for output in self.target.outputs}

    def live(self, seconds: float) -> None:
        """Let that much time pass, with each turn when it is due."""
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
    """What stands in the log at info and above."""
    return [record.getMessage() for record in log.records if record.levelno >= logging.INFO]


def test_the_first_turn_fetches_and_writes_and_names_the_next(rig: Rig) -> None:
    assert rig.turn() == pytest.approx(2880)
    assert rig.file.read_bytes() == b"t-1"
    assert rig.controller.standing().on_disk


def test_a_turn_before_its_time_asks_nobody(rig: Rig) -> None:
    rig.turn()
    rig.clock.advance(2879)
    assert rig.turn() == pytest.approx(1)
    assert len(rig.grants.asked) == 1


def test_the_lifetime_counts_from_before_the_request(rig: Rig) -> None:
    rig.grants.takes = 9.0
    assert rig.turn() == pytest.approx(2880 - 9)


def test_a_lifetime_of_nothing_is_no_loop(rig: Rig) -> None:
    rig.answer(Issued(token("t-1", lifetime=0.001)))
    rig.live(10)
    assert len(rig.grants.asked) <= 11


def test_a_refresh_replaces_the_token(rig: Rig) -> None:
    rig.answer(Issued(token("t-1")), Issued(token("t-2")))
    rig.live(2900)
    assert rig.file.read_bytes() == b"t-2"
    assert len(rig.grants.asked) == 2


def test_the_same_token_again_rewrites_nothing_and_comes_closer_to_its_expiry(rig: Rig) -> None:
    rig.turn()
    before = (rig.directory / "dnb/bci.json").stat()
    rig.clock.advance(2880)
    assert rig.turn() == pytest.approx(360)  # though the reply says 3600 s again
    rig.clock.advance(360)
    assert rig.turn() == pytest.approx(180)
    after = (rig.directory / "dnb/bci.json").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_the_same_token_with_less_time_left_is_believed(rig: Rig) -> None:
    rig.answer(Issued(token("t-1")), Issued(token("t-1", lifetime=100)))
    rig.turn()
    rig.clock.advance(2880)
    assert rig.turn() == pytest.approx(50)
    assert json.loads((rig.directory / "dnb/bci.json").read_text())["expires_in"] == 100


def test_the_same_token_after_its_expiry_is_taken_as_new(rig: Rig) -> None:
    rig.turn()
    rig.clock.advance(3601)
    rig.turn()
    assert rig.controller.standing().expires == rig.clock.boot + 3600


def test_a_failure_leaves_token_and_files_and_is_tried_again_sooner_the_less_time_is_left(rig: Rig) -> None:
    rig.answer(Issued(token("t-1")), Transient("reset"))
    rig.live(3590)
    assert rig.file.read_bytes() == b"t-1"
    assert len(rig.grants.asked) > 10
    assert rig.controller.standing().expires is not None


def test_the_log_tells_of_a_trouble_once_then_every_ten_minutes_and_of_its_end_with_counts(
    rig: Rig, log: pytest.LogCaptureFixture
) -> None:
    rig.answer(Issued(token("t-1", lifetime=7200)), Transient("login.example.com: connection refused"))
    rig.live(5760 + 25 * 60)
    rig.answer(Issued(token("t-2")))
    rig.live(70)
    said = spoken(log)
    first, *more = [line for line in said if "connection refused" in line]
    assert "the present token is good for 24 min" in first
    assert "next attempt in 1 s" in first
    assert len(more) == 2
    assert all("still failing after" in line for line in more)
    assert any(line.startswith("recovered after") and "25 min" in line for line in said)


def test_a_refused_client_is_told_of_every_ten_minutes_though_it_asks_once_an_hour(
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


def test_a_token_that_expires_is_told_of_and_kept_by_default(rig: Rig, log: pytest.LogCaptureFixture) -> None:
    rig.answer(Issued(token("t-1")), Transient("reset"))
    rig.live(4000)
    assert rig.file.read_bytes() == b"t-1"
    assert len([line for line in spoken(log) if "has expired" in line]) == 1
    assert not rig.controller.standing().on_disk


def test_with_on_expiry_remove_the_files_go_when_the_token_expires_and_come_with_the_next(rig: Rig) -> None:
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


def test_credentials_that_worked_and_are_refused_have_a_last_chance(rig: Rig) -> None:
    rig.answer(Issued(token("t-1")), Refused("401 invalid_client"))
    rig.live(3590)
    since = [moment - rig.grants.asked[1] for moment in rig.grants.asked[1:]]
    # 30 s, 1, 2, 4 min later; the next would be 5 min on, after the expiry.
    assert since == pytest.approx([0, 30, 90, 210, 450, 705], abs=0.1)


def test_credentials_that_never_worked_are_not_hammered(rig: Rig) -> None:
    rig.answer(Refused("401 invalid_client"))
    rig.live(3599)
    since = [moment - rig.grants.asked[0] for moment in rig.grants.asked]
    assert since == pytest.approx([0, 300, 900, 2100], abs=0.1)


def test_nothing_is_sent_and_nothing_lost_while_a_secret_cannot_be_read(rig: Rig) -> None:
    rig.answer(Issued(token("t-1")), Unsent("file /s: empty", phase="secret"))
    rig.live(3000)
    assert rig.file.read_bytes() == b"t-1"
    rig.answer(Issued(token("t-2")))
    rig.live(60)
    assert rig.file.read_bytes() == b"t-2"


@pytest.mark.parametrize("harm", ["deleted", "altered", "mode", "symlink"])
def test_a_file_that_was_harmed_is_put_back_at_the_next_turn(
    rig: Rig, log: pytest.LogCaptureFixture, harm: str
) -> None:
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
    assert any(line == f"put back: {rig.file}" for line in spoken(log))
    assert len(rig.grants.asked) == 1


def test_files_that_cannot_be_written_cost_no_grant_and_are_tried_again(
    rig: Rig, log: pytest.LogCaptureFixture
) -> None:
    rig.directory.mkdir()
    (rig.directory / "dnb").write_text("in the way")
    assert rig.turn() == pytest.approx(1)
    rig.clock.advance(1)
    assert rig.turn() == pytest.approx(2)
    assert not rig.controller.standing().on_disk
    (rig.directory / "dnb").unlink()
    rig.clock.advance(2)
    assert rig.turn() == pytest.approx(2877)
    assert rig.file.read_bytes() == b"t-1"
    assert len(rig.grants.asked) == 1
    said = spoken(log)
    assert len([line for line in said if line.startswith("files: ")]) == 1
    assert "files are well again after 2 attempts" in said


# -- a new process over the same directory -------------------------------------------------------


def test_a_good_record_is_used_without_a_request(rig: Rig) -> None:
    rig.turn()
    rig.file.unlink()
    rig.clock.advance(600)
    rig.start()
    assert rig.turn() == pytest.approx(2280)
    assert rig.file.read_bytes() == b"t-1"
    assert len(rig.grants.asked) == 1


def test_a_record_that_is_due_is_served_while_it_is_renewed(rig: Rig) -> None:
    rig.answer(Issued(token("t-1")), Transient("reset"))
    rig.turn()
    rig.clock.advance(3000)
    rig.start()
    rig.turn()
    assert len(rig.grants.asked) == 2
    assert rig.file.read_bytes() == b"t-1"


def test_a_record_that_is_short_of_the_least_is_renewed_at_once(rig: Rig) -> None:
    rig.answer(Issued(token("t-1")), Issued(token("t-2")))
    rig.turn()
    rig.start(least=3600)
    rig.turn()
    assert len(rig.grants.asked) == 1  # exactly as long as it must be
    rig.clock.advance(1)
    rig.start(least=3600)
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
    assert rig.controller.standing().expires is None
    assert rig.file.read_bytes() == b"t-1"  # what stands is left until there is better


def test_a_record_of_another_client_id_is_not_used(rig: Rig) -> None:
    rig.turn()
    rig.start(client_id="another")
    rig.turn()
    assert len(rig.grants.asked) == 2


def test_a_record_is_used_when_the_client_id_cannot_be_read_now(rig: Rig) -> None:
    rig.turn()
    rig.start(client_id=None)
    rig.turn()
    rig.start()
    rig.turn()
    assert len(rig.grants.asked) == 1


def test_what_does_not_change_the_token_keeps_its_record(rig: Rig) -> None:
    rig.turn()
    rig.target = replace(rig.target, refresh_before=RefreshBefore(seconds=60), outputs=rig.target.outputs[:1])
    rig.start()
    assert rig.turn() == pytest.approx(3540)
    assert len(rig.grants.asked) == 1


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"schema": 99}', b"\xff", b'{"schema": 1}'])
def test_a_broken_record_costs_a_grant_and_nothing_else(rig: Rig, content: bytes) -> None:
    rig.turn()
    (rig.directory / ".bearerd/records/dnb/bci.json").write_bytes(content)
    rig.start()
    rig.turn()
    assert len(rig.grants.asked) == 2


def test_an_expired_record_is_not_used(rig: Rig) -> None:
    rig.turn()
    rig.clock.advance(3600)
    rig.start()
    rig.turn()
    assert len(rig.grants.asked) == 2


# -- the clocks ------------------------------------------------------------------------------------


def test_a_step_of_the_wall_clock_by_seconds_rewrites_the_times_and_asks_nobody(
    rig: Rig, log: pytest.LogCaptureFixture
) -> None:
    rig.turn()
    raw = rig.file.stat().st_ino
    expires = json.loads((rig.directory / "dnb/bci.json").read_text())["expires_at"]
    rig.clock.step(20)
    rig.turn()
    again = json.loads((rig.directory / "dnb/bci.json").read_text())["expires_at"]
    assert int(again[17:19]) - int(expires[17:19]) in (20, -40)
    assert rig.file.stat().st_ino == raw
    assert len(rig.grants.asked) == 1
    assert not any("put back" in line for line in spoken(log))


@pytest.mark.parametrize("step", [7200, -7200, -86400], ids=["2 h forward", "2 h back", "a day back"])
def test_after_a_long_step_the_token_is_refreshed_and_the_old_served_meanwhile(rig: Rig, step: float) -> None:
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


def test_after_a_suspend_what_is_due_is_asked_for(rig: Rig) -> None:
    rig.answer(Issued(token("t-1")), Issued(token("t-2")))
    rig.turn()
    rig.clock.suspend(5000)
    rig.turn()
    assert rig.file.read_bytes() == b"t-2"


# -- admission -----------------------------------------------------------------------------------


def ticket(rig: Rig, name: str = "dnb/other") -> Ticket:
    """Another token of the client is asked for."""
    granted = rig.admission.request(Ask(name, "dnb"), rig.clock.boot)
    assert isinstance(granted, Granted)
    return granted.ticket


def test_a_target_that_is_held_is_woken_when_another_ones_grant_lets_it_go(rig: Rig) -> None:
    other = ticket(rig)
    assert rig.turn() > 1
    assert rig.grants.asked == []
    assert rig.controller.standing().held_by == "half_open"
    rig.admission.settle(other, Issued(token()), rig.clock.boot)
    assert rig.woken == ["dnb/bci"]
    rig.turn()
    assert len(rig.grants.asked) == 1
    assert rig.controller.standing().held_by == ""


def test_a_grant_that_raises_gives_its_place_back(rig: Rig) -> None:
    def breaks() -> Outcome:
        raise ValueError

    rig.grants.next = breaks
    with pytest.raises(ValueError, match=r"^$"):
        rig.turn()
    assert rig.admission.view(rig.clock.boot).clients["dnb"].in_flight == 0
    rig.answer(Issued(token("t-1")))
    rig.live(30)
    assert rig.file.read_bytes() == b"t-1"


def test_a_malformed_reply_waits_a_minute(rig: Rig) -> None:
    rig.answer(Malformed("HTML"))
    assert rig.turn() == pytest.approx(60)


def test_no_token_ever_stands_in_the_log(rig: Rig, log: pytest.LogCaptureFixture) -> None:
    rig.answer(Issued(token("s3cr3t-one"), notes=("odd",)), Transient("reset"), Issued(token("s3cr3t-two")))
    rig.live(4000)
    os.unlink(rig.file)
    rig.clock.step(7200)
    rig.live(4000)
    assert log.records
    assert "s3cr3t" not in log.text


# -- what a review found -----------------------------------------------------------------------------


def test_with_an_unreadable_client_id_no_record_of_another_identity_is_used(rig: Rig) -> None:
    rig.answer(Issued(token("t-1")), Transient("down"))
    rig.turn()
    rig.target = replace(rig.target, scope="admin")
    rig.start(client_id=None)
    rig.turn()
    assert len(rig.grants.asked) == 2
    assert rig.controller.standing().expires is None


def test_a_file_that_cannot_be_removed_is_tried_again_without_haste(rig: Rig, log: pytest.LogCaptureFixture) -> None:
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
    assert any("files are well again" in line for line in spoken(log))


@pytest.mark.parametrize("step", [31, -31])
def test_clocks_that_are_set_again_and_again_bring_no_attempt_before_its_time(rig: Rig, step: float) -> None:
    rig.answer(Issued(token("t-1")), Transient("503", retry_after=3600))
    rig.turn()
    rig.clock.advance(2880)
    rig.turn()
    for _ in range(20):
        rig.clock.advance(8)
        rig.clock.step(step)
        rig.turn()
    assert len(rig.grants.asked) == 2


def test_a_clock_set_forward_by_mistake_and_back_removes_no_file(rig: Rig) -> None:
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
    assert not rig.file.exists()  # an hour is over by any clock


def test_a_target_of_a_refused_client_goes_when_another_of_its_tokens_gets_through(rig: Rig) -> None:
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


# -- how it stands where it is held, and with several secrets -------------------------------------------


def refuse(rig: Rig, times: int = 3) -> Refused:
    """Other tokens of the client find that it is refused, as many as may at a start; then the client waits."""
    refusal = Refused("HTTP 401", hint="try this")
    for number in range(times):
        rig.clock.advance(2)
        rig.admission.settle(ticket(rig, f"dnb/other-{number}"), refusal, rig.clock.boot)
    return refusal


def test_who_waits_for_a_refused_client_shows_its_refusal_and_until_when(rig: Rig) -> None:
    refusal = refuse(rig)
    assert rig.turn() == pytest.approx(300)
    standing = rig.controller.standing()
    assert (standing.failure, standing.held_by, standing.on_disk) == (refusal, "refused", False)
    assert standing.held_until == rig.clock.boot + 300
    rig.clock.advance(300)
    rig.turn()
    standing = rig.controller.standing()
    assert (standing.failure, standing.held_by, standing.on_disk) == (None, "", True)


def test_what_it_failed_of_itself_is_shown_before_its_clients_refusal(rig: Rig) -> None:
    rig.answer(Malformed("HTML"))
    rig.turn()
    refuse(rig)
    rig.clock.advance(60)
    rig.turn()
    standing = rig.controller.standing()
    assert (standing.failure, standing.held_by) == (Malformed("HTML"), "refused")


def test_a_token_that_is_not_due_has_nothing_to_do_with_its_clients_refusal(rig: Rig) -> None:
    rig.turn()
    refuse(rig, times=1)
    rig.start(admission=rig.admission)
    rig.turn()
    standing = rig.controller.standing()
    assert (standing.failure, standing.held_by, standing.on_disk) == (None, "", True)


def test_a_due_token_of_a_refused_client_is_served_while_it_waits(rig: Rig) -> None:
    rig.turn()
    rig.clock.advance(2880)
    refusal = refuse(rig, times=1)
    rig.file.unlink()
    rig.start(admission=rig.admission)
    assert rig.turn() == pytest.approx(30)
    standing = rig.controller.standing()
    assert (standing.failure, standing.on_disk, standing.held_by) == (refusal, True, "refused")
    assert rig.file.read_bytes() == b"t-1"
    rig.answer(refusal)
    rig.live(720 - 3)
    assert standing.expires is not None
    assert standing.expires - rig.grants.asked[-1] == pytest.approx(15, abs=0.1)  # its last attempt


def test_who_waits_for_a_rate_limit_says_so_and_has_not_failed(rig: Rig) -> None:
    rig.target = replace(
        rig.target, client=replace(rig.target.client, budgets=(("client-dnb", RateLimit(1, 28_800.0)),))
    )
    rig.start(least=3600)
    rig.turn()
    rig.clock.advance(2880)
    rig.turn()
    standing = rig.controller.standing()
    assert (standing.failure, standing.held_by, standing.on_disk) == (None, "rate_limit", True)
    assert standing.held_until > rig.clock.boot


def test_after_a_refusal_another_secret_is_tried_in_a_second_and_each_is_told_of(
    rig: Rig, log: pytest.LogCaptureFixture
) -> None:
    rig.answer(
        Refused("HTTP 401", another_secret=True, hint="the client has another secret, which is tried next"),
        Refused("HTTP 401 again"),
    )
    rig.live(3599)
    asked = [moment - rig.grants.asked[0] for moment in rig.grants.asked]
    assert asked == pytest.approx([0, 1, 301, 901, 2101], abs=0.1)  # a wrong list is refused as one secret is
    said = spoken(log)
    assert said[:2] == [
        "HTTP 401; the client has another secret, which is tried next; there is no valid token; next attempt in 1 s",
        "still failing after 2 attempts in 1 s: HTTP 401 again; there is no valid token; next attempt in 5 min",
    ]
    assert said[2].startswith("still failing after 3 attempts in 10 min: HTTP 401 again; ")


# -- hooks ---------------------------------------------------------------------------------------------


def hook_events(rig: Rig) -> list[str]:
    """What others were told since this was asked last."""
    events, rig.hooks.events = rig.hooks.events, []
    return events


def json_of(rig: Rig) -> Path:
    """The second of its files."""
    return rig.directory / "dnb/bci.json"


class Watching(HookEvents):
    """Notes of each event which token stands in which file then."""

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


def test_others_are_told_when_all_files_are_in_place_and_a_change_is_announced_before_the_first_of_them(
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


def test_where_nothing_changed_nobody_is_told(rig: Rig) -> None:
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
def test_of_a_file_that_was_put_back_others_are_told(rig: Rig, harm: str) -> None:
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


def test_times_that_are_put_right_after_a_step_are_no_news(rig: Rig) -> None:
    rig.answer(Issued(token("t-1")), Transient("down"), Issued(token("t-2")))
    rig.turn()
    hook_events(rig)
    before = json_of(rig).read_text()
    rig.clock.step(20)
    rig.turn()
    between = json_of(rig).read_text()
    rig.clock.step(-7200)  # by so much that it is to be refreshed, which fails
    rig.turn()
    assert len({before, between, json_of(rig).read_text()}) == 3
    assert hook_events(rig) == []
    rig.live(10)
    assert rig.file.read_text() == "t-2"
    assert hook_events(rig) == ["announced", "changed"]


def test_a_new_token_is_news_also_in_the_turn_after_a_step(rig: Rig) -> None:
    rig.answer(Issued(token("t-1")), Issued(token("t-2")))
    rig.turn()
    hook_events(rig)
    rig.clock.advance(60)
    rig.clock.step(7200)
    rig.turn()
    assert rig.file.read_text() == "t-2"
    assert hook_events(rig) == ["announced", "changed"]


def test_after_times_were_put_right_a_file_that_is_put_back_is_news_again(rig: Rig) -> None:
    rig.turn()
    rig.clock.step(20)
    rig.turn()
    hook_events(rig)
    rig.file.unlink()
    rig.turn()
    assert hook_events(rig) == ["announced", "changed"]


def test_a_new_config_is_news_also_where_times_could_not_be_put_right_yet(rig: Rig) -> None:
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


def test_a_step_before_the_next_attempt_at_a_file_makes_no_old_news_of_it(rig: Rig) -> None:
    json_of(rig).mkdir(parents=True)
    rig.turn()
    assert hook_events(rig) == ["announced"]
    rig.clock.step(20)
    json_of(rig).rmdir()
    rig.turn()
    assert hook_events(rig) == ["announced", "first"]


def test_a_record_whose_files_are_in_place_is_no_news_whatever_became_of_the_clocks(rig: Rig) -> None:
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


def test_a_record_whose_files_were_harmed_meanwhile_is_news_but_not_the_first(rig: Rig) -> None:
    rig.turn()
    hook_events(rig)
    rig.file.unlink()
    rig.start()
    rig.turn()
    assert hook_events(rig) == ["announced", "changed"]
    assert len(rig.grants.asked) == 1


def test_a_token_after_one_that_expired_meanwhile_is_not_the_first(rig: Rig) -> None:
    rig.answer(Issued(token("t-1")), Issued(token("t-2")))
    rig.turn()
    hook_events(rig)
    rig.clock.advance(3600)
    rig.start()
    rig.turn()
    assert hook_events(rig) == ["announced", "changed"]


def test_what_an_earlier_process_owes_is_told_once_the_files_are_in_place(rig: Rig) -> None:
    rig.turn()
    hook_events(rig)
    rig.hooks.owing = True
    rig.start()
    rig.turn()
    assert hook_events(rig) == ["changed"]
    rig.turn()
    assert hook_events(rig) == []
    assert len(rig.grants.asked) == 1


def test_what_an_earlier_process_owes_is_told_of_the_next_token_where_that_one_has_expired(rig: Rig) -> None:
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
def test_while_one_file_cannot_be_written_nobody_is_told(rig: Rig, *, owing: bool) -> None:
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


def test_of_files_that_a_new_config_adds_others_are_told_and_of_a_new_schedule_not(rig: Rig) -> None:
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
def test_of_hooks_that_another_config_mends_those_that_were_not_told_are_told(rig: Rig, *, failing: bool) -> None:
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


def test_what_an_earlier_process_owes_is_not_the_first_also_where_its_record_is_broken(rig: Rig) -> None:
    rig.turn()
    hook_events(rig)
    (rig.directory / ".bearerd/records/dnb/bci.json").write_text("{")
    rig.hooks.owing = True
    rig.start()
    rig.turn()
    assert hook_events(rig) == ["changed"]  # the same token again


def test_after_a_step_a_file_without_times_that_is_put_back_is_news(rig: Rig) -> None:
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
    """After how many seconds others are told that the token is not renewed; None where they are not within so many."""
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
def test_where_there_is_no_token_others_are_told_of_what_does_not_pass(
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
def test_while_there_is_a_token_others_are_told_of_what_happened_twice_and_of_its_end(
    rig: Rig, outcomes: list[Outcome], seconds: float | None
) -> None:
    rig.turn()
    rig.clock.advance(2880)
    rig.answer(*outcomes)
    found = lost_after(rig, 719 if seconds is None else 3600)
    assert found == (seconds if seconds is None else pytest.approx(seconds, abs=0.1))


def test_of_a_trouble_others_are_told_once_and_of_the_next_one_again(rig: Rig) -> None:
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


def test_a_token_that_was_not_renewed_and_then_expires_is_one_trouble(rig: Rig) -> None:
    rig.answer(Issued(token("t-1")), REFUSED)
    rig.live(3600 + 3600)
    assert hook_events(rig) == ["announced", "first", "failed"]


def test_one_that_others_were_told_is_lost_and_that_then_comes_as_the_same_again_is_well(rig: Rig) -> None:
    rig.answer(Issued(token("t-1")), MALFORMED, MALFORMED, Issued(token("t-1")), MALFORMED)
    rig.live(3500)
    assert hook_events(rig) == ["announced", "first", "failed", "failed"]


@pytest.mark.parametrize("others", [1, 2])
def test_of_a_client_that_was_refused_to_another_of_its_tokens_others_are_told_too(rig: Rig, others: int) -> None:
    rig.turn()
    rig.clock.advance(2880)
    hook_events(rig)
    for number in range(others):
        rig.admission.settle(ticket(rig, f"dnb/other-{number}"), Refused("HTTP 401"), rig.clock.boot)
        rig.clock.advance(30 if number + 1 < others else 1)
    rig.turn()
    assert rig.controller.standing().held_by == "refused"
    assert hook_events(rig) == ["failed"] * (others - 1)  # with a token that is still good it takes two


def test_a_refused_client_is_lost_though_the_token_itself_failed_of_what_passes(rig: Rig) -> None:
    rig.answer(DOWN)
    rig.turn()
    refuse(rig)
    rig.clock.advance(5)
    rig.turn()
    assert rig.controller.standing().held_by == "refused"
    assert hook_events(rig) == ["failed"]


def test_of_a_client_that_was_refused_to_another_others_are_told_at_once_where_there_is_no_token(rig: Rig) -> None:
    refuse(rig)
    rig.turn()
    assert rig.grants.asked == []
    assert hook_events(rig) == ["failed"]


def test_who_waits_for_a_rate_limit_has_not_lost_its_token_until_it_expires(rig: Rig) -> None:
    rig.target = replace(
        rig.target, client=replace(rig.target.client, budgets=(("client-dnb", RateLimit(1, 28_800.0)),))
    )
    rig.start()
    rig.turn()
    assert lost_after(rig, 7200) == pytest.approx(3600)


def test_a_process_that_finds_a_trouble_tells_of_it_though_an_earlier_one_did(rig: Rig) -> None:
    rig.answer(REFUSED)
    rig.turn()
    rig.start()
    rig.turn()
    assert hook_events(rig) == ["failed", "failed"]


def test_while_a_new_token_is_written_the_files_hold_one_that_is_good(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[bool, float]] = []
    real = rig.publisher.ensure

    def ensure(*arguments: Any) -> Published:
        standing = rig.controller.standing()
        seen.append((standing.on_disk, standing.readable_until - START.boot))
        return real(*arguments)

    monkeypatch.setattr(rig.publisher, "ensure", ensure)
    rig.answer(Issued(token("t-1")), Issued(token("t-2")))
    rig.turn()
    rig.clock.advance(2880)
    rig.turn()
    assert seen == [(False, -START.boot), (False, 3600.0)]
    assert rig.controller.standing().readable_until == START.boot + 2880 + 3600
    # What could not be written may not be there at all.
    rig.file.unlink()
    rig.file.mkdir()
    rig.turn()
    assert (rig.controller.standing().on_disk, rig.controller.standing().readable_until) == (False, 0.0)
    rig.file.rmdir()
    rig.turn()
    assert rig.controller.standing().readable_until > rig.clock.boot
    # Of a token that is asked for otherwise now nothing is there yet.
    rig.target = target(outputs=rig.target.outputs, scope="other")
    rig.answer(Transient("down"))
    rig.turn()
    assert rig.controller.standing().readable_until == 0.0


# -- templates -----------------------------------------------------------------------------------------


def by_template(rig: Rig) -> tuple[Path, Path]:
    """The target has one more file, which is there: its template, and itself."""
    template, made = rig.directory.parent / "own.j2", rig.directory / "made"
    template.write_text("one")
    output = Output(str(made), "template", template=str(template))
    rig.target = replace(rig.target, outputs=(*rig.target.outputs, output))
    rig.start()
    rig.turn()
    rig.hooks.events.clear()
    return template, made


def test_what_another_template_makes_is_told_and_not_put_back_and_what_is_altered_then_is(
    rig: Rig, log: pytest.LogCaptureFixture
) -> None:
    template, made = by_template(rig)
    template.write_text("two")
    rig.turn(TemplateChanged())
    assert (made.read_text(), rig.hooks.events, len(rig.grants.asked)) == ("two", ["announced", "changed"], 1)
    assert not any("put back" in line for line in spoken(log))
    made.write_text("altered")
    rig.turn()
    assert (made.read_text(), spoken(log)[-1]) == ("two", f"put back: {made}")


@pytest.mark.parametrize("while_it_is_broken", [False, True])
def test_another_template_is_told_also_where_the_clock_is_set_meanwhile(rig: Rig, while_it_is_broken: bool) -> None:
    template, made = by_template(rig)
    rig.clock.step(100)
    if while_it_is_broken:
        template.write_text("{{ nope }}")
        rig.turn()
        assert (made.read_text(), rig.hooks.events) == ("one", [])
    template.write_text("two")
    rig.turn(TemplateChanged())
    assert (made.read_text(), rig.hooks.events) == ("two", ["announced", "changed"])
