"""Habits of providers and their effect on a reader of the file, in simulated time, over real files.

The provider knows which token is valid when. A reader checks its file against that every half second.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from bearerd.admission.admission import Admission
from bearerd.admission.types import Limits
from bearerd.api.status import state_of
from bearerd.grant.outcome import Performed
from bearerd.grant.reply import Reply, understand
from bearerd.grant.times import clock_skew
from bearerd.lifecycle.controller import Controller
from bearerd.lifecycle.parts import Parts
from bearerd.model import Config, Output, Target
from bearerd.publish.publisher import Publisher
from support.clock import FakeClock
from support.targets import CLIENT, target

SAMPLE = 0.5
Answer = tuple[int, dict[str, Any] | bytes, dict[str, str]]


@dataclass
class Provider:
    """Answers requests by `answer`, after `latency` seconds; `good` decides which token is valid."""

    clock: FakeClock
    answer: Callable[[float], Answer] = lambda _: (503, b"", {})
    good: Callable[[str, float], bool] = lambda _text, _now: True
    latency: float = 0.05
    asked: list[float] = field(default_factory=list)

    def perform(self, wanted: Target) -> Performed:
        sent = self.clock.now()
        self.asked.append(sent.boot)
        self.clock.advance(self.latency / 2)
        status, body, headers = self.answer(self.clock.boot)
        self.clock.advance(self.latency / 2)
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        reply = Reply(status, headers, content)
        return Performed(understand(reply, wanted, sent), "7e0c5a", skew=clock_skew(headers, sent.wall))


@dataclass
class Hooks:
    events: list[str] = field(default_factory=list)

    def announce(self, _target: Target) -> None:
        pass

    def owed(self, _target: Target) -> bool:
        return False

    def undone(self, _name: str) -> bool:
        return False

    def changed(self, _target: Target, *, first: bool) -> None:
        self.events.append("first" if first else "changed")

    def failed(self, _target: Target) -> None:
        self.events.append("failed")

    def forget(self, _name: str) -> None:
        pass


class Clients:
    def client_id(self, _target: Target) -> str:
        return "7e0c5a"

    def credentials_changed(self, _target: Target) -> None:
        pass


@dataclass
class Life:
    """One target, its provider and its reader."""

    directory: Path
    clock: FakeClock = field(default_factory=FakeClock)
    hooks: Hooks = field(default_factory=Hooks)
    dead: list[float] = field(default_factory=list)
    """The times at which the reader had a token that its provider refused."""
    missing: list[float] = field(default_factory=list)
    states: set[str] = field(default_factory=set)
    text: str | None = None
    """What the reader has."""

    def __post_init__(self) -> None:
        self.provider = Provider(self.clock)
        self.wanted = target(outputs=(Output(str(self.directory / "bci")),), on_expiry="remove", scope="")
        self.start()

    def start(self) -> None:
        """Start a new process over the same directory."""
        config = Config(str(self.directory), str(self.directory / ".bearerd"), targets=(self.wanted,))
        admission = Admission(Limits.of([CLIENT]), lambda _name, _at: None, now=self.clock.boot)
        parts = Parts(self.clock, lambda: 0.5, self.provider, Publisher(config), admission, self.hooks, Clients())
        self.controller = Controller(self.wanted, parts)

    def live(self, seconds: float) -> None:
        """Let time pass, and run each turn when it is due."""
        end = self.clock.boot + seconds
        while (due := self.turn()) < end:
            self.sample_until(due)
        self.sample_until(end)

    def turn(self) -> float:
        due = self.controller.reconcile(self.wanted, (), lambda: {output.path for output in self.wanted.outputs})
        file = self.directory / "bci"
        self.text = file.read_text() if file.exists() else None  # only turns change it
        self.look()
        return max(due, self.clock.boot + 0.001)

    def sample_until(self, moment: float) -> None:
        while self.clock.boot + SAMPLE < moment:
            self.clock.advance(SAMPLE)
            self.look()
        self.clock.advance(moment - self.clock.boot)

    def look(self) -> None:
        """Note a moment at which a reader finds an invalid token."""
        now = self.clock.boot
        if self.text is None:
            self.missing.append(now)
        elif not self.provider.good(self.text, now):
            self.dead.append(now)
        self.states.add(state_of(self.controller.status(), now))


@pytest.fixture
def life(tmp_path: Path) -> Life:
    return Life(tmp_path / "tokens")


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG, "bearerd")
    return caplog


def alarms(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def rotating(clock: FakeClock, lifetime: float) -> tuple[Callable[[float], str], Callable[[str, float], bool]]:
    """A provider that issues a new token only when the last one has expired."""
    began = clock.boot

    def current(now: float) -> str:
        return f"t-{int((now - began) // lifetime)}"

    return current, lambda text, now: text == current(now)


# -- the same token again (L1, L2) -------------------------------------------------------------------------


@pytest.mark.parametrize("latency", [0.02, 0.3, 0.9])
@pytest.mark.parametrize("offset", [0.0, 0.25, 0.6, 0.95])
def test_the_same_token_until_its_end_leaves_readers_only_a_short_gap(
    life: Life, latency: float, offset: float, quiet: pytest.LogCaptureFixture
) -> None:
    # Spring Security OAuth, WSO2: whole seconds left, 0 in the last one.
    life.provider.latency = latency
    current, life.provider.good = rotating(life.clock, 600.0)
    began = life.clock.boot
    life.clock.advance(offset)

    def answer(now: float) -> Answer:
        left = 600.0 - (now - began) % 600.0
        return 200, {"access_token": current(now), "token_type": "Bearer", "expires_in": int(left)}, {}

    life.provider.answer = answer
    life.live(6000)
    # The best possible gap: one request per second, its latency, and the reader's own interval.
    assert len(life.dead) * SAMPLE <= 10 * (1 + 2 * latency + SAMPLE + 0.5)
    assert (alarms(quiet), life.hooks.events.count("failed")) == ([], 0)
    assert life.states <= {"starting", "valid"}
    assert len(life.provider.asked) <= 10 * 16


@pytest.mark.parametrize(
    "fields", [{}, {"expires_in": 3600}, {"expires_in": None}], ids=["no lifetime", "always an hour", "null"]
)
def test_a_provider_that_always_returns_the_same_token_causes_no_alarm(
    life: Life, fields: dict[str, Any], quiet: pytest.LogCaptureFixture
) -> None:
    # ServiceNow's sliding sessions, Salesforce, Doorkeeper with reuse.
    life.provider.answer = lambda _: (200, {"access_token": "same", "token_type": "Bearer", **fields}, {})
    life.live(5 * 3600)
    assert (life.missing, life.dead) == ([], [])
    assert [text for text in alarms(quiet) if "default_lifetime" not in text] == []
    assert "failed" not in life.hooks.events
    assert life.states <= {"valid"}
    first_round, later = 30, 20
    assert len(life.provider.asked) <= first_round + 5 * later


def test_a_sliding_token_is_recognised_after_a_restart(life: Life, quiet: pytest.LogCaptureFixture) -> None:
    life.provider.answer = lambda _: (200, {"access_token": "same", "token_type": "Bearer", "expires_in": 600}, {})
    life.live(3000)
    asked = len(life.provider.asked)
    life.start()
    life.live(1200)
    assert len(life.provider.asked) - asked <= 2 * 16  # no second round of re-checks
    assert (life.missing, life.dead, alarms(quiet)) == ([], [], [])


@pytest.mark.parametrize("second", [("t-2", 600), ("t-1", 0)], ids=["it ended", "never named"])
def test_a_provider_is_asked_again_about_a_lifetime_of_0_after_a_restart(life: Life, second: tuple[str, int]) -> None:
    replies = [("t-1", 0), second]

    def answer(_: float) -> Answer:
        text, lifetime = replies[len(life.provider.asked) - 1]
        return 200, {"access_token": text, "token_type": "Bearer", "expires_in": lifetime}, {}

    life.provider.answer = answer
    life.live(0.5)
    life.start()
    life.live(10)
    first, again = life.provider.asked
    assert again - first == pytest.approx(2, abs=0.1)
    assert life.text == second[0]
    life.start()
    life.live(10)
    assert len(life.provider.asked) == 2  # the record says that its lifetime is known


@pytest.mark.parametrize("before", [600, 1800], ids=["first round", "sliding"])
def test_a_restart_changes_no_time_of_a_round_of_re_checks(tmp_path: Path, before: float) -> None:
    asked = []
    for restarts in (0, 9):
        life = Life(tmp_path / str(restarts))
        life.provider.answer = lambda _: (200, {"access_token": "same", "token_type": "Bearer", "expires_in": 600}, {})
        life.live(before + 2)
        for _ in range(restarts):
            life.start()
            life.live(8)
        life.live(400 - 8 * restarts)
        asked.append([moment - life.provider.asked[0] for moment in life.provider.asked])
    assert asked[1] == pytest.approx(asked[0], abs=0.5)


def test_a_provider_that_keeps_returning_an_expired_token_causes_an_alarm_after_10_s(
    life: Life, quiet: pytest.LogCaptureFixture
) -> None:
    began = life.clock.boot

    def answer(now: float) -> Answer:
        left = max(0, int(600 - (now - began)))
        return 200, {"access_token": "same", "token_type": "Bearer", "expires_in": left}, {}

    life.provider.answer = answer
    life.live(605)
    assert (alarms(quiet), life.hooks.events) == ([], ["first"])
    life.live(10)
    assert life.hooks.events == ["first", "failed"]
    assert any("still returns the expired token" in text for text in alarms(quiet))
    assert not (life.directory / "bci").exists()


def test_a_cache_in_front_of_the_provider_is_detected_within_seconds(
    life: Life, quiet: pytest.LogCaptureFixture
) -> None:
    # The cache keeps a reply for its `expires_in`, sends no Age, and its entry outlives ours by the upstream latency.
    current, life.provider.good = rotating(life.clock, 600.0)
    kept: list[tuple[float, str]] = []

    def answer(now: float) -> Answer:
        if not kept or now >= kept[-1][0]:
            life.clock.advance(0.7)
            kept.append((life.clock.boot + 600, current(life.clock.boot)))
        return 200, {"access_token": kept[-1][1], "token_type": "Bearer", "expires_in": 600}, {}

    life.provider.answer = answer
    life.live(6000)
    assert len(life.dead) * SAMPLE <= 60  # a tenth of what plain acceptance would cost
    assert [text for text in alarms(quiet) if "ERROR" in text] == []
    assert "failed" not in life.hooks.events


# -- lifetimes (L3, L16) -----------------------------------------------------------------------------------


def test_a_cached_reply_does_not_extend_a_jwt_beyond_its_exp(life: Life) -> None:
    import base64  # noqa: PLC0415 - only here

    def jwt(expires: float) -> str:
        claims = base64.urlsafe_b64encode(json.dumps({"exp": expires}).encode()).rstrip(b"=").decode()
        return f"e30.{claims}.c2ln"

    started = life.clock.wall

    def cached(_now: float) -> Answer:
        # The gateway caches 1 h tokens for 50 min, and always sends `expires_in: 3600`.
        issued = started + (life.clock.wall - started) // 3000 * 3000
        return 200, {"access_token": jwt(issued + 3600), "token_type": "Bearer", "expires_in": 3600}, {}

    def good(text: str, _now: float) -> bool:
        claims = json.loads(base64.urlsafe_b64decode(text.split(".")[1] + "=="))
        return bool(life.clock.wall < claims["exp"])

    life.clock.advance(2990)  # the first one has ten minutes left
    life.provider.answer, life.provider.good = cached, good
    life.live(5 * 3600)
    assert (life.dead, life.missing) == ([], [])


def test_a_token_that_arrives_expired_is_requested_again_within_seconds(life: Life) -> None:
    count = 0

    def answer(_now: float) -> Answer:
        nonlocal count
        count += 1
        if count == 1:
            life.clock.advance(9)  # the reply takes longer than the token's lifetime
        return 200, {"access_token": f"t-{count}", "token_type": "Bearer", "expires_in": 8}, {}

    life.provider.answer = answer
    began = life.clock.boot
    life.live(9 + 3)
    assert (life.directory / "bci").exists()
    assert life.provider.asked[1] - began <= 9 + 2


# -- one bad answer at the due moment (L12) ------------------------------------------------------------------


@pytest.mark.parametrize("lifetime", [60, 3600])
@pytest.mark.parametrize(
    "bad",
    [
        pytest.param((429, b"", {}), id="429"),
        pytest.param((429, b"", {"retry-after": "3600"}), id="429 with an hour"),
        pytest.param((503, b"", {"retry-after": "3600"}), id="503 with an hour"),
        pytest.param((200, b"<html>", {}), id="an HTML page"),
        pytest.param((404, b"", {}), id="404"),
        pytest.param((401, {"error": "invalid_client"}, {}), id="refused"),
    ],
)
def test_one_bad_answer_at_the_due_time_does_not_lose_the_token(life: Life, lifetime: int, bad: Answer) -> None:
    count, ends = 0, dict[str, float]()

    def answer(now: float) -> Answer:
        nonlocal count
        count += 1
        if count == 2:  # the request at the due time
            return bad
        ends[f"t-{count}"] = now + lifetime
        return 200, {"access_token": f"t-{count}", "token_type": "Bearer", "expires_in": lifetime}, {}

    life.provider.answer = answer
    life.provider.good = lambda text, now: now < ends[text]
    life.live(5 * lifetime)
    assert (life.dead, life.missing) == ([], [])
    assert life.states <= {"valid", "failing"}


def test_a_target_held_beyond_its_expiry_has_few_turns(life: Life) -> None:
    life.provider.answer = lambda _: (200, {"access_token": "t", "token_type": "Bearer", "expires_in": 120}, {})
    life.turn()
    life.provider.answer = lambda _: (401, {"error": "invalid_client"}, {})
    turns, end = 0, life.clock.boot + 300
    while (due := life.turn()) < end:
        turns += 1
        life.clock.advance(due - life.clock.boot)
    assert turns < 40


def test_there_is_one_last_attempt(life: Life) -> None:
    life.provider.answer = lambda _: (200, {"access_token": "t", "token_type": "Bearer", "expires_in": 3600}, {})
    life.turn()
    life.provider.answer = lambda _: (429, b"", {"retry-after": "3600"})
    life.live(3600)
    # The first one, the one at the due time, and the last attempt 15 to 30 s before expiry.
    assert len(life.provider.asked) == 3
    assert 15 <= life.provider.asked[0] + 3600 - life.provider.asked[2] <= 30


def test_a_token_is_refreshed_after_max_age_however_long_it_lives(life: Life) -> None:
    life.provider.answer = lambda now: (
        200,
        {"access_token": f"t-{now}", "token_type": "Bearer", "expires_in": 30 * 86400 - 1},
        {},
    )
    life.wanted = replace(life.wanted, max_age=600.0)
    life.live(1900)
    assert len(life.provider.asked) == 4
