"""The rooms wired together, in this process, where the wall clock can be set."""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from math import inf
from pathlib import Path

import pytest
from freezegun import freeze_time

from bearerd.api.daemon import Requested
from bearerd.config.load import load
from bearerd.lifecycle.schedule import CHECK_CLOCKS_EVERY
from bearerd.model import Target
from bearerd.service.engine import Engine
from bearerd.target_status import Hold, TargetStatus
from bearerd.terms import Instant, Reference
from support.clock import FakeClock
from support.process import WITHIN
from support.server import Answer, Script, Seen, Server, issues, serving


@pytest.fixture
def engine(tmp_path: Path) -> Callable[..., object]:
    """An engine over one token, its turns as they end, and its provider."""

    @contextmanager
    def build() -> Iterator[tuple[Engine, queue.SimpleQueue[TargetStatus], Server]]:
        with serving(issues()) as server:
            (tmp_path / "config.yaml").write_text(
                f"output: {{directory: {tmp_path}/tokens}}\nclients:\n  dnb:\n    token_url: {server.url}\n"
                "    allow_http: true\n    client_id: x\n    client_secret: {env: S}\n"
                "    tokens: {bci: {files: [{format: raw}, {format: json}]}}\n"
            )
            turns: queue.SimpleQueue[TargetStatus] = queue.SimpleQueue()
            config = load(str(tmp_path / "config.yaml"), {})
            built = Engine(config, {"S": "s3cr3t"}, observer=turns.put)
            built.start()
            try:
                yield built, turns, server
            finally:
                built.stop()

    return build


def test_startup_spread_delays_first_attempts_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bearerd.service.engine.dice", lambda: 0.5)
    with serving(issues()) as server:
        (tmp_path / "config.yaml").write_text(
            f"output: {{directory: {tmp_path}/tokens}}\nstartup_spread: 1h\nclients:\n  dnb:\n"
            f"    token_url: {server.url}\n    allow_http: true\n    client_id: x\n    client_secret: {{env: S}}\n"
            "    tokens: {a: {}, b: {}, c: {}}\n"
        )
        turns: queue.SimpleQueue[TargetStatus] = queue.SimpleQueue()
        config = load(str(tmp_path / "config.yaml"), {})
        built = Engine(config, {"S": "s3cr3t"}, observer=turns.put)
        built.start()
        try:
            now = built.clock.now().boot
            first = {status.name: status for status in (turns.get(timeout=WITHIN) for _ in range(3))}
            assert all(1700 < status.due - now < 1900 for status in first.values())
            assert server.seen == []
            built.refresh("dnb/a")
            assert turns.get(timeout=WITHIN).on_disk
            added = replace(config.targets[0], name="d", outputs=())
            changed = [replace(each, max_age=600.0) if each.name == "c" else each for each in config.targets]
            built.apply(replace(config, targets=(*changed, added)))
            names = {"dnb/c", "dnb/d"}
            while names:
                status = turns.get(timeout=WITHIN)
                names -= {status.name} if status.obtained is not None else set()
            assert len(server.seen) == 3
        finally:
            built.stop()


def test_files_and_clocks_are_checked_more_often_than_every_10_s() -> None:
    assert CHECK_CLOCKS_EVERY < 10


def test_a_step_of_the_wall_clock_is_noticed_by_the_next_tick(engine: Callable[..., object], tmp_path: Path) -> None:
    with freeze_time(datetime.now(UTC), tick=True) as frozen, engine() as (built, turns, server):  # type: ignore[attr-defined]
        assert turns.get(timeout=WITHIN).on_disk
        frozen.move_to(datetime.now(UTC) + timedelta(hours=2))
        built.tick()
        while (tmp_path / "tokens/dnb/bci").read_text() != "t-2":
            assert turns.get(timeout=WITHIN).on_disk  # the old token is served meanwhile
        assert len(server.seen) == 2
        expires = datetime.fromisoformat(json.loads((tmp_path / "tokens/dnb/bci.json").read_text())["expires_at"])
        assert timedelta(minutes=55) < expires - datetime.now(UTC) <= timedelta(hours=1)


def test_a_tick_with_nothing_new_does_nothing(engine: Callable[..., object]) -> None:
    with engine() as (built, turns, server):  # type: ignore[attr-defined]
        turns.get(timeout=WITHIN)
        built.tick()
        with pytest.raises(queue.Empty):
            turns.get(timeout=0.2)
        assert len(server.seen) == 1


# -- refresh requests ---------------------------------------------------------------------------------


class Asking:
    """An engine whose turns the test gives: by its clock the real schedule has none to give."""

    def __init__(self, path: Path, script: Script, limit: str, tokens: str, environ: dict[str, str]) -> None:
        self.environ = environ
        self.path, self.script, self.clock = path, script, FakeClock(Instant(time.time() + 1e6, 5000.0))
        self._config = (
            f"output: {{directory: {path}/tokens}}\nclients:\n  dnb:\n    token_url: URL\n    allow_http: true\n"
            f"    client_id: x\n    client_secret: {{env: S}}\n{limit}    tokens: {tokens}\n"
        )

    @contextmanager
    def started(self) -> Iterator[Asking]:
        with serving(self.script) as self.server:
            (self.path / "config.yaml").write_text(self._config.replace("URL", self.server.url))
            config = load(str(self.path / "config.yaml"), {})
            self.engine = Engine(config, self.environ, clock=self.clock)
            self.engine.start()
            self.names = [target.full_name for target in config.targets]
            for name in self.names:
                self.turn(name)
            yield self
            self.engine.stop()

    def turn(self, name: str = "dnb/bci") -> None:
        self.engine._turn(name)

    def ask(self, instead_of: str | None = None, name: str = "dnb/bci") -> Requested:
        return self.engine.refresh(name, instead_of and sha256(instead_of.encode()).hexdigest()[:16])

    @property
    def grants(self) -> int:
        return len(self.server.seen)

    @property
    def token(self) -> str:
        return (self.path / "tokens/dnb/bci").read_text()


@pytest.fixture
def asking(tmp_path: Path) -> Callable[..., object]:
    def build(
        script: Script | None = None,
        limit: str = "",
        tokens: str = "{bci: {}}",
        environ: dict[str, str] | None = None,
    ) -> object:
        return Asking(tmp_path, script or issues(), limit, tokens, environ or {"S": "s3cr3t"}).started()

    return build


def test_a_token_can_be_requested_once_a_minute(asking: Callable[..., object]) -> None:
    with asking() as here:  # type: ignore[attr-defined]
        here.clock.advance(10)
        assert here.ask() == Requested("accepted", grants=1)
        here.turn()
        assert (here.token, here.grants) == ("t-2", 2)
        for passed, left in ((0.0, 60.0), (59.5, 0.5)):
            here.clock.advance(passed)
            assert here.ask() == Requested("later", after=left)
            here.turn()
        assert here.grants == 2
        here.clock.advance(0.5)
        assert here.ask() == Requested("accepted", grants=2)
        here.turn()
        assert (here.token, here.grants) == ("t-3", 3)
        here.turn()
        assert here.grants == 3


def test_each_token_has_a_minute_of_its_own(asking: Callable[..., object]) -> None:
    with asking(tokens="{bci: {}, risk: {}}") as here:  # type: ignore[attr-defined]
        assert here.ask().answer == "accepted"
        assert here.ask(name="dnb/risk").answer == "accepted"
        assert here.ask(name="dnb/risk").answer == "later"
        assert here.ask(name="dnb/other") == here.ask(name="") == Requested("unknown")


def test_a_request_for_a_replaced_token_costs_nothing(asking: Callable[..., object]) -> None:
    with asking() as here:  # type: ignore[attr-defined]
        here.clock.advance(10)
        assert here.ask(instead_of="t-1").answer == "accepted"
        here.turn()
        for _ in range(3):
            assert here.ask(instead_of="t-1") == Requested("newer")
        assert here.engine.refresh("dnb/bci", sha256(b"t-1").hexdigest()[:16].upper()) == Requested("newer")
        # The present one failed too: that is another wish, and comes too early.
        assert here.ask(instead_of="t-2").answer == "later"
        assert here.engine.refresh("dnb/bci", sha256(b"t-2").hexdigest()[:16].upper()).answer == "later"
        here.turn()
        assert here.grants == 2


def test_an_expired_token_is_not_newer(asking: Callable[..., object]) -> None:
    with asking() as here:  # type: ignore[attr-defined]
        assert here.ask(instead_of="t-0") == Requested("newer")
        here.clock.advance(3600)
        assert here.ask(instead_of="t-0").answer == "accepted"


@pytest.mark.parametrize(
    ("answer", "wait"),
    [
        pytest.param(Answer(503, headers={"Retry-After": "600"}), 600.0, id="Retry-After"),
        pytest.param(Answer(429), 60.0, id="its limit"),
        pytest.param(Answer(200, b"<html>"), 60.0, id="malformed"),
        pytest.param(Answer(401, {"error": "invalid_client"}), 300.0, id="refused"),
        pytest.param(Answer(400, {"error": "invalid_scope"}), 30.0, id="its scope refused"),
    ],
)
def test_a_refresh_request_does_not_shorten_a_wait_after_a_failure(
    asking: Callable[..., object], answer: Answer, wait: float
) -> None:
    with asking(lambda _: answer) as here:  # type: ignore[attr-defined]
        assert here.ask().answer == "accepted"
        here.clock.advance(wait - 1)
        here.turn()
        assert here.grants == 1
        here.clock.advance(wait / 5 + 2)  # the jitter is a fifth at most
        here.turn()
        assert here.grants == 2


@pytest.mark.parametrize(("limit", "granted"), [("10/8h", 5), ("4/8h", 2), ("2/8h", 1), ("1/8h", 0), ("3/8h", 1)])
def test_refresh_requests_use_at_most_half_of_a_rate_limit(
    asking: Callable[..., object], limit: str, granted: int
) -> None:
    with asking(limit=f"    rate_limit: {limit}\n") as here:  # type: ignore[attr-defined]
        answers = []
        for _ in range(7):
            here.clock.advance(61)
            answers.append(here.ask().answer)
            here.turn()
        # The regular one was the first.
        assert here.grants == 1 + answers.count("accepted") == max(1, granted)
        assert answers == sorted(answers)  # accepted, then later
        left = here.ask()
        passed = 7 * 61.0
        assert left.answer == "later"
        assert left.after == (8 * 3600.0 if not granted else pytest.approx(8 * 3600 - passed, abs=granted * 61))


def test_the_answer_names_the_rate_limit_also_within_a_minute_of_the_last_request(
    asking: Callable[..., object],
) -> None:
    with asking(limit="    rate_limit: 4/8h\n") as here:  # type: ignore[attr-defined]
        here.clock.advance(61)
        assert here.ask().answer == "accepted"
        here.turn()
        answer = here.ask()
        assert (answer.answer, answer.hold.reason) == ("later", "rate_limit")
        assert answer.after > 7 * 3600


@pytest.mark.parametrize(("instead_of", "grants"), [(None, 3), ("t-1", 2)])
def test_a_request_during_a_grant_causes_another_unless_it_was_for_the_old_token(
    asking: Callable[..., object], instead_of: str | None, grants: int
) -> None:
    issue, under_way, may_answer = issues(), threading.Event(), threading.Event()

    def script(seen: Seen) -> Answer:
        answer = issue(seen)
        if answer.body["access_token"] == "t-2":
            under_way.set()
            assert may_answer.wait(WITHIN)
        return answer

    with asking(script) as here:  # type: ignore[attr-defined]
        here.clock.advance(3000)
        turn = threading.Thread(target=here.turn)
        turn.start()
        assert under_way.wait(WITHIN)
        assert (requested := here.ask(instead_of)).answer == "accepted"
        assert (requested.grants, requested.hold) == (1, Hold("half_open", inf, None))
        may_answer.set()
        turn.join()
        assert here.token == "t-2"
        here.clock.advance(1)
        here.turn()
        assert (here.token, here.grants) == (f"t-{grants}", grants)


def test_the_first_request_after_a_boot_is_accepted(asking: Callable[..., object]) -> None:
    with asking() as here:  # type: ignore[attr-defined]
        for number in range(1000):
            here.clock.boot = number * 0.0317
            here.engine._requested_at.clear()
            assert here.ask().answer == "accepted"


# -- templates -----------------------------------------------------------------------------------------


def test_a_rewritten_file_is_not_logged_as_restored_and_an_altered_one_is(
    asking: Callable[..., object], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    template, made = tmp_path / "own.j2", tmp_path / "tokens/made"
    template.write_text("one")
    tokens = f"{{bci: {{files: [{{format: template, template: {template}, path: made}}]}}}}"
    with asking(tokens=tokens) as here, caplog.at_level("INFO", "bearerd"):  # type: ignore[attr-defined]
        template.write_text("two")
        here.engine.rewrite(here.names)
        here.turn()
        assert (made.read_text(), [line for line in caplog.messages if "restored" in line]) == ("two", [])
        made.write_text("altered")
        here.turn()
        assert (made.read_text(), caplog.messages[-1]) == ("two", f"restored: {made}")


# -- configs that follow each other ----------------------------------------------------------------------


def test_a_token_added_again_while_its_files_are_being_removed_is_kept(
    engine: Callable[..., object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deleting, may_go_on = threading.Event(), threading.Event()
    with engine() as (built, turns, server):  # type: ignore[attr-defined]
        assert turns.get(timeout=WITHIN).on_disk
        config, forget = built._config, built._publisher.forget

        def slowly(target: Target) -> None:
            deleting.set()
            assert may_go_on.wait(WITHIN)
            forget(target)

        monkeypatch.setattr(built._publisher, "forget", slowly)
        built.apply(replace(config, targets=()))
        assert deleting.wait(WITHIN)
        assert built.statuses() == []
        built.apply(config)
        may_go_on.set()
        assert turns.get(timeout=WITHIN).on_disk
        assert [target_status.name for target_status in built.statuses()] == ["dnb/bci"]
        assert (tmp_path / "tokens/dnb/bci").read_text() == "t-2"
        assert len(server.seen) == 2
        assert built._reconciler.problems() == []


def test_a_client_that_is_removed_and_put_back_is_forgotten_and_one_that_keeps_a_token_is_not(
    asking: Callable[..., object],
) -> None:
    environ = {"S": "s3cr3t", "ID": "before"}
    with asking(tokens="{bci: {}, risk: {}}", environ=environ) as here:  # type: ignore[attr-defined]
        config, clients = here.engine._config, here.engine._clients
        client = replace(config.targets[0].client, client_id=Reference("env", "ID"))
        bci, risk = (replace(each, client=client) for each in config.targets)
        here.engine.apply(replace(config, targets=(bci, risk)))
        assert clients.client_id(bci) == "before"
        environ["ID"] = "after"
        for left, client_id in (((bci,), "before"), ((), "after")):
            here.engine.apply(replace(config, targets=left))
            here.engine.apply(replace(config, targets=(bci, risk)))
            assert clients.client_id(bci) == client_id


def test_a_rate_limit_removed_by_a_reload_releases_its_targets(asking: Callable[..., object]) -> None:
    with asking(limit="    rate_limit: 1/8h\n", tokens="{bci: {}, risk: {}}") as here:  # type: ignore[attr-defined]
        assert here.grants == 1
        held = [target_status for target_status in here.engine.statuses() if target_status.held_by == "rate_limit"]
        assert len(held) == 1
        config = here.engine._config
        free = replace(config.targets[0].client, rate_limits=())
        here.engine.apply(replace(config, targets=tuple(replace(each, client=free) for each in config.targets)))
        here.turn(held[0].name)
        assert here.grants == 2
        assert all(target_status.on_disk for target_status in here.engine.statuses())


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(Answer(404), id="404"),
        pytest.param(Answer(500), id="500"),
        pytest.param(Answer(429, headers={"Retry-After": "600"}), id="429"),
        pytest.param(Answer(400, {"error": "invalid_scope"}), id="refused alone"),
    ],
)
def test_changed_credentials_wake_a_target_after_any_failure(asking: Callable[..., object], answer: Answer) -> None:
    good, answers = issues(), [answer]
    with asking(lambda seen: answers.pop() if answers else good(seen)) as here:  # type: ignore[attr-defined]
        assert here.grants == 1
        here.turn()
        assert here.grants == 1
        here.clock.advance(1)
        here.engine.secrets_changed({"dnb"})
        here.turn()
        assert (here.grants, here.token) == (2, "t-1")


def test_credentials_that_change_while_the_old_ones_are_sent_are_used_after_their_refusal(
    asking: Callable[..., object],
) -> None:
    good, changes = issues(), list[Callable[[], None]]()

    def answer(seen: Seen) -> Answer:
        if not changes:
            return good(seen)
        changes.pop()()
        return Answer(401, {"error": "invalid_client"})

    environ = {"S": "s3cr3t"}
    with asking(answer, environ=environ) as here:  # type: ignore[attr-defined]

        def change() -> None:
            environ["S"] = "another"
            here.engine.secrets_changed({"dnb"})

        changes.append(change)
        here.ask()
        here.clock.advance(1)
        here.turn()
        assert (here.grants, here.token) == (2, "t-1")
        here.clock.advance(1)
        here.turn()
        assert (here.grants, here.token) == (3, "t-2")
