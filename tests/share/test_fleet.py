"""The fleet as one target's turn sees it: over a link that is good, down, or lies."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from dataclasses import replace
from math import inf, nan
from pathlib import Path
from typing import Any

import pytest

from bearerd.grant.outcome import Refused, Transient
from bearerd.model import Target
from bearerd.publish.record import Record
from bearerd.share.answers import Alone, Claimed, Delayed, FleetFailure, Lock, Taken, Wanted
from bearerd.share.entry import MOST_REFUSED
from bearerd.share.fleet import Fleet
from bearerd.share.names import names_of
from bearerd.share.types import Busy, Granted, Limited, Stored
from bearerd.terms import RateLimit, Redis, Reference, Share
from support.clock import FakeClock
from support.fleet import SECRET, SHARE
from support.share_link import ModelLink, Network
from support.targets import CLIENT, TARGET, target, token

SHARED = replace(TARGET, client=replace(CLIENT, share=SHARE))
WAITING = replace(TARGET, client=replace(CLIENT, share=replace(SHARE, when_unavailable="wait")))
FIRST = Wanted(have=0, remaining=0.0, last=False, changed=None, requested=False)


class Machine:
    """One daemon's fleet."""

    def __init__(self, network: Network, clock: FakeClock, environ: dict[str, str], *targets: Any) -> None:
        self.woken: list[str] = []
        self.moments: set[float | None] = set()
        self.client_id: str | None = "7e0c5a"
        self.clock = clock
        self.environ = environ
        self.asked: list[Target] = []
        self.fleet = Fleet(clock, lambda: 0.5, environ, network.connect, self.wake, self.client_id_of)
        self.fleet.apply(targets or (SHARED,))

    def wake(self, name: str, at: float | None) -> None:
        self.woken.append(name)
        self.moments.add(at)

    def client_id_of(self, of: Target) -> str | None:
        self.asked.append(of)
        return self.client_id

    @property
    def link(self) -> ModelLink:
        (server,) = self.fleet._servers.values()
        assert isinstance(server.link, ModelLink)
        return server.link

    @property
    def error(self) -> str:
        (view,) = self.fleet.views()
        return view.error

    def lock(self, have: int = 0) -> Lock:
        claimed = self.fleet.claim(SHARED, replace(FIRST, have=have))
        assert isinstance(claimed, Lock)
        return claimed

    def store(self, text: str) -> int:
        """Make a grant. Returns its fence."""
        lock = self.lock()
        assert self.fleet.store(SHARED, self.record(text, lock.fence), 3600.0) is None
        return lock.fence

    def record(self, text: str, fence: int) -> Record:
        return Record(token(text, obtained=self.clock.now()), SHARED.identity(), "7e0c5a", fence=fence)

    def look(self, have: int = 0) -> str:
        """The token of the fleet; empty if there is no newer one."""
        taken = self.fleet.look(SHARED, have, lambda: None)
        return "" if taken is None else taken.record.token.access_token


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def network(clock: FakeClock) -> Network:
    return Network(lambda: clock.wall, lambda: clock.boot)


@pytest.fixture
def environ() -> dict[str, str]:
    return {"DNB_SECRET": SECRET}


@pytest.fixture
def machine(network: Network, clock: FakeClock, environ: dict[str, str]) -> Machine:
    return Machine(network, clock, environ)


@pytest.fixture
def other(network: Network, clock: FakeClock) -> Machine:
    return Machine(network, clock, {"DNB_SECRET": SECRET})


def test_a_token_is_taken_once(machine: Machine, other: Machine) -> None:
    fence = machine.store("one")
    assert other.look() == "one"
    assert other.look(fence) == ""
    assert other.link.commands == ["read"]


def test_the_release_of_a_lock_wakes_a_waiting_daemon(machine: Machine, other: Machine) -> None:
    lock = machine.lock()
    assert isinstance(other.fleet.claim(SHARED, FIRST), Delayed)
    other.woken.clear()
    machine.fleet.give_back(SHARED, lock)
    assert set(other.woken) == {"dnb/bci"}
    assert isinstance(other.fleet.claim(SHARED, FIRST), Lock)


def test_the_end_of_an_attempt_wakes_a_few_of_those_that_wait_for_its_client(
    network: Network, clock: FakeClock
) -> None:
    others = [replace(target(f"t{number}", scope=f"t{number}"), client=SHARED.client) for number in range(20)]
    machine = Machine(network, clock, {"DNB_SECRET": SECRET}, SHARED, *others)
    woken: list[str] = []
    for _ in range(3):
        lock = machine.lock()
        assert all(isinstance(machine.fleet.claim(other, FIRST), Delayed) for other in others)
        machine.woken.clear()
        machine.fleet.give_back(SHARED, lock)
        assert len(machine.woken) == 9
        woken += machine.woken
    assert {other.full_name for other in others} <= set(woken)


def test_a_target_that_took_its_token_is_not_woken_for_other_targets(
    network: Network, clock: FakeClock, machine: Machine
) -> None:
    second = replace(target("two", scope="two"), client=SHARED.client)
    other = Machine(network, clock, {"DNB_SECRET": SECRET}, SHARED, second)
    lock = machine.lock()
    assert isinstance(other.fleet.claim(SHARED, FIRST), Delayed)
    machine.fleet.store(SHARED, machine.record("one", lock.fence), 3600.0)
    assert other.look() == "one"
    other.woken.clear()
    claimed = other.fleet.claim(second, FIRST)
    assert isinstance(claimed, Lock)
    other.fleet.give_back(second, claimed)
    assert other.woken == ["dnb/two"]


def test_announcements_give_a_target_ten_turns_a_second_at_most(machine: Machine, clock: FakeClock) -> None:
    names = {names_of(SHARED, "7e0c5a").token}
    machine.look()
    clock.advance(1.0)
    machine.moments.clear()
    for _ in range(1000):
        machine.link.listener.changed(names)
        clock.advance(0.001)
    assert len(machine.moments) <= 11
    assert all(at is None or at <= clock.boot + 0.1 for at in machine.moments)


def test_a_failure_of_another_daemon_is_new_once(machine: Machine, other: Machine) -> None:
    lock = machine.lock()
    failure = Transient("503", hint="wait", retry_after=5.0)
    machine.fleet.fail(SHARED, lock, failure, 30.0, whole_client=False, refused=False)
    told = other.fleet.claim(SHARED, FIRST)
    message = "503 (received by another daemon of the fleet)"
    assert told == FleetFailure(replace(failure, message=message), 30.0, 1, new=True)
    again = other.fleet.claim(SHARED, FIRST)
    assert isinstance(again, FleetFailure)
    assert not again.new
    own = machine.fleet.claim(SHARED, FIRST)
    assert isinstance(own, FleetFailure)
    assert not own.new


def test_a_refusal_of_the_client_is_an_answer_to_its_other_targets(network: Network, clock: FakeClock) -> None:
    second = replace(target("two", scope="two"), client=SHARED.client)
    machine = Machine(network, clock, {"DNB_SECRET": SECRET}, SHARED, second)
    lock = machine.lock()
    machine.fleet.fail(SHARED, lock, Refused("401"), 300.0, whole_client=True, refused=True)
    told = machine.fleet.claim(second, FIRST)
    assert isinstance(told, FleetFailure)
    assert isinstance(told.failure, Refused)
    clock.advance(301.0)
    claimed = machine.fleet.claim(second, FIRST)
    assert isinstance(claimed, Lock)
    assert (claimed.refusals, claimed.governed) == (1, True)


@pytest.mark.parametrize("key", [None, Reference("env", "SHARE_KEY")], ids=["sealed by the secret", "share.key"])
def test_a_refusal_holds_those_that_have_the_refused_credentials(
    network: Network, clock: FakeClock, key: Reference | None
) -> None:
    shared = replace(TARGET, client=replace(CLIENT, share=replace(SHARE, key=key)))

    def daemon(secret: str) -> Machine:
        return Machine(network, clock, {"DNB_SECRET": secret, "SHARE_KEY": SECRET}, shared)

    def refused(machine: Machine, lock: Claimed) -> None:
        assert isinstance(lock, Lock)
        machine.fleet.fail(shared, lock, Refused("401"), 300.0, whole_client=True, refused=True)

    wrong, typo = "the first of two wrong secrets!!", "the second of two wrong secrets!"
    first = daemon(wrong)
    refused(first, first.fleet.claim(shared, FIRST))
    assert isinstance(daemon(wrong).fleet.claim(shared, FIRST), FleetFailure)
    second = daemon(typo)
    refused(second, second.fleet.claim(shared, FIRST))
    # Neither of them tries again, although the last refusal may be that of the other one.
    for machine in (first, second, daemon(typo)):
        assert isinstance(machine.fleet.claim(shared, FIRST), FleetFailure)
    lock = daemon(SECRET).fleet.claim(shared, FIRST)
    assert isinstance(lock, Lock)
    assert (lock.refusals, lock.governed) == (2, True)


def test_a_daemon_that_cannot_read_its_secret_is_held_by_the_refusal_of_others(
    network: Network, clock: FakeClock
) -> None:
    shared = replace(TARGET, client=replace(CLIENT, share=replace(SHARE, key=Reference("env", "SHARE_KEY"))))
    first = Machine(network, clock, {"DNB_SECRET": "wrong", "SHARE_KEY": SECRET}, shared)
    lock = first.fleet.claim(shared, FIRST)
    assert isinstance(lock, Lock)
    first.fleet.fail(shared, lock, Refused("401"), 300.0, whole_client=True, refused=True)
    second = Machine(network, clock, {"SHARE_KEY": SECRET}, shared)
    assert isinstance(second.fleet.claim(shared, FIRST), FleetFailure)


def test_a_fleet_tries_only_so_many_different_credentials_at_once(network: Network, clock: FakeClock) -> None:
    shared = replace(TARGET, client=replace(CLIENT, share=replace(SHARE, key=Reference("env", "SHARE_KEY"))))
    attempts = 0
    for number in range(20):
        machine = Machine(network, clock, {"DNB_SECRET": f"wrong {number}", "SHARE_KEY": SECRET}, shared)
        claimed = machine.fleet.claim(shared, FIRST)
        if isinstance(claimed, Lock):
            attempts += 1
            machine.fleet.fail(shared, claimed, Refused("401"), 3600.0, whole_client=True, refused=True)
        clock.advance(120.0)
    assert attempts == MOST_REFUSED


def test_a_failure_that_cannot_be_read_delays_all_the_same(
    machine: Machine, network: Network, clock: FakeClock
) -> None:
    stranger = Machine(network, clock, {"DNB_SECRET": "another secret of the client"})
    machine.fleet.fail(SHARED, machine.lock(), Transient("503"), 30.0, whole_client=False, refused=False)
    told = stranger.fleet.claim(SHARED, FIRST)
    assert isinstance(told, FleetFailure)
    assert (told.wait, told.failure.message) == (
        30.0, "another daemon of the fleet reports a failure that this one cannot decrypt",
    )  # fmt: skip
    (token,) = network.store.failures
    network.store.last[token] = (1, inf)
    assert stranger.fleet.claim(SHARED, replace(FIRST, have=1, remaining=20.0, last=True)) == Alone()


@pytest.mark.parametrize("wanted", [FIRST, replace(FIRST, have=0, remaining=20.0, last=True)])
def test_a_failure_that_somebody_puts_back_is_not_believed_when_a_token_is_needed(
    machine: Machine, other: Machine, network: Network, clock: FakeClock, wanted: Wanted
) -> None:
    lock = machine.lock()
    machine.fleet.fail(SHARED, lock, Transient("503"), 30.0, whole_client=False, refused=False)
    token = lock.names.token
    recorded = network.store.failures[token]
    clock.advance(600.0)
    network.store.failures[token] = replace(recorded, until=clock.wall + 3600.0)
    network.store.last[token] = (1, inf)
    other.look()
    told = other.fleet.claim(SHARED, replace(FIRST, have=0, remaining=600.0))
    assert isinstance(told, FleetFailure)
    assert other.fleet.claim(SHARED, wanted) == Alone()
    assert "reports a failure for too long" in other.error


def test_a_wait_that_no_limit_explains_is_not_believed_when_a_token_is_needed(
    network: Network, clock: FakeClock
) -> None:
    limit = RateLimit(3, 600.0)
    limited = replace(SHARED, client=replace(SHARED.client, rate_limits=(("client-dnb", limit),)))
    machine = Machine(network, clock, {"DNB_SECRET": SECRET}, limited)
    ((rate, _),) = names_of(limited, "7e0c5a").rates
    network.store.rates[rate] = {("x", number): clock.wall + 86400.0 for number in range(3)}
    assert isinstance(machine.fleet.claim(limited, replace(FIRST, have=1, remaining=600.0)), Delayed)
    assert machine.fleet.claim(limited, FIRST) == Alone()
    assert "no limit explains the wait" in machine.error
    network.store.rates[rate] = {("x", number): clock.wall for number in range(3)}
    assert machine.fleet.claim(limited, FIRST) == Delayed("rate_limit", 600.0)


@pytest.mark.parametrize(("between", "ignored"), [(10.0, True), (10.1, False)])
def test_locks_that_follow_one_another_for_a_minute_are_ignored_when_a_token_is_needed(
    machine: Machine,
    network: Network,
    clock: FakeClock,
    monkeypatch: pytest.MonkeyPatch,
    between: float,
    ignored: bool,
) -> None:
    """They do if each one is found within five seconds after the end of the one before."""
    monkeypatch.setattr(network.store, "claim", lambda *_: Busy(5.0))
    answers: list[Claimed] = []
    for _ in range(7):
        answers.append(machine.fleet.claim(SHARED, FIRST))
        clock.advance(between)
    busy = Delayed("share", 5.0)
    assert answers == [*[busy] * 6, Alone() if ignored else busy]
    assert ("dnb/bci: another daemon has held the lock for too long" in machine.error) == ignored


def test_a_wait_has_a_bound(machine: Machine, network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.fleet.fail(SHARED, machine.lock(), Transient("503"), 1e9, whole_client=False, refused=False)
    told = machine.fleet.claim(SHARED, FIRST)
    assert isinstance(told, FleetFailure)
    assert told.wait <= 1.2 * 3600
    monkeypatch.setattr(network.store, "claim", lambda *_: Busy(0.0))
    assert machine.fleet.claim(SHARED, FIRST) == Delayed("share", 0.2)
    monkeypatch.setattr(network.store, "claim", lambda *_: Limited("rate_limit", -5.0))
    assert machine.fleet.claim(SHARED, FIRST) == Delayed("rate_limit", 0.2)


def granted(fence: int, clock: float) -> Granted:
    return Granted(fence, clock, failures=0, refusals=0, governed=False)


@pytest.mark.parametrize("answer", [
    granted(5, 1.8e9), granted(2**52 + 1, 1.8e9), granted(2**52, nan), Stored(2**53, 1.8e9, b""), Stored(9, inf, b""),
], ids=str)  # fmt: skip
def test_a_server_that_lies_counts_as_unavailable(
    machine: Machine, network: Network, monkeypatch: pytest.MonkeyPatch, answer: object
) -> None:
    monkeypatch.setattr(network.store, "claim", lambda *_: answer)
    assert machine.fleet.claim(SHARED, replace(FIRST, have=7)) == Alone()
    assert "check that it is the fleet's own" in machine.error


def test_a_stored_token_that_cannot_be_decrypted_is_passed_over(
    machine: Machine, other: Machine, network: Network
) -> None:
    fence = machine.store("one")
    (name,) = network.store.tokens
    network.store.tokens[name] = (fence + 1, b"nonsense", inf)
    assert other.look() == ""
    assert other.look() == ""
    assert other.link.commands == ["read"]
    claimed = other.fleet.claim(SHARED, FIRST)
    assert isinstance(claimed, Lock)
    assert claimed.fence > fence + 1
    assert "dnb/bci: the stored token cannot be decrypted" in other.error


def test_a_server_that_returns_one_unusable_token_after_another_counts_as_unavailable(
    machine: Machine, network: Network, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    fences = itertools.count(10)
    monkeypatch.setattr(network.store, "claim", lambda *_: Stored(next(fences), clock.wall, b"nonsense"))
    assert machine.fleet.claim(SHARED, FIRST) == Alone()
    assert next(fences) == 13


def test_an_entry_of_another_target_under_this_name_is_passed_over(network: Network, clock: FakeClock) -> None:
    second = replace(target("two", scope="two"), client=SHARED.client)
    machine = Machine(network, clock, {"DNB_SECRET": SECRET}, SHARED, second)
    lock = machine.fleet.claim(second, FIRST)
    assert isinstance(lock, Lock)
    record = Record(token("two"), second.identity(), "7e0c5a", fence=lock.fence)
    machine.fleet.store(second, record, 3600.0)
    stored = network.store.tokens[lock.names.token]
    mine = machine.lock()
    network.store.tokens[mine.names.token] = stored
    machine.link.listener.changed({mine.names.token})
    assert machine.look() == ""


def test_a_corrected_key_opens_what_was_passed_over(machine: Machine, other: Machine) -> None:
    other.environ["DNB_SECRET"] = "the wrong secret of the client"
    machine.store("one")
    assert other.look() == ""
    other.environ["DNB_SECRET"] = SECRET
    other.fleet.credentials_changed("dnb")
    assert other.look() == "one"


def test_an_entry_of_a_daemon_with_a_newer_key_opens_once_this_one_has_that_key_too(
    machine: Machine, other: Machine, clock: FakeClock
) -> None:
    other.look()
    for each in (machine, other):  # nothing tells them of the change
        each.environ["DNB_SECRET"] = "the newer secret of the client"
    clock.advance(60.0)
    machine.store("one")
    assert other.look() == "one"


def test_each_of_several_secrets_opens_and_the_newest_seals(network: Network, clock: FakeClock) -> None:
    references = (Reference("env", "NEW"), Reference("env", "OLD"))
    client = replace(SHARED.client, client_secret=references)
    several = replace(SHARED, client=client)
    rotated = Machine(network, clock, {"NEW": "the new secret, which seals", "OLD": SECRET}, several)
    Machine(network, clock, {"DNB_SECRET": SECRET}).store("one")
    taken = rotated.fleet.look(several, 0, lambda: None)
    assert taken is not None
    newest = Machine(network, clock, {"DNB_SECRET": "the new secret, which seals"})
    lock = rotated.fleet.claim(several, replace(FIRST, have=taken.record.fence, remaining=0.0))
    assert isinstance(lock, Lock)
    record = Record(token("two"), several.identity(), "7e0c5a", fence=lock.fence)
    rotated.fleet.store(several, record, 3600.0)
    assert newest.look() == "two"


def by_command(directory: Path) -> tuple[Target, Path]:
    """A target whose secret is printed by a command, and a file with a line for each of its runs."""
    count, script = directory / "count", directory / "secret"
    script.write_text(f"#!/bin/sh\necho run >> {count}\necho {SECRET}\n")
    script.chmod(0o700)
    client = replace(SHARED.client, client_secret=(Reference("command", str(script), (str(script),)),))
    return replace(SHARED, client=client), count


def test_a_command_that_prints_the_secret_runs_for_claims_and_not_for_looks(
    network: Network, clock: FakeClock, tmp_path: Path
) -> None:
    shared, count = by_command(tmp_path)
    machine = Machine(network, clock, dict(os.environ), shared)
    other = Machine(network, clock, {"DNB_SECRET": SECRET})
    other.look()
    for text in ("one", "two"):
        other.fleet.store(SHARED, other.record(text, int(clock.wall * 1e6)), 3600.0)
        clock.advance(1.0)
        assert machine.fleet.look(shared, 0, lambda: None) is not None
    assert count.read_text().count("run") == 1
    clock.advance(60.0)
    lock = machine.fleet.claim(shared, replace(FIRST, have=2**51, remaining=0.0))
    assert isinstance(lock, Lock)
    assert count.read_text().count("run") == 2


def test_entries_that_cannot_be_opened_do_not_run_the_command_each_time(
    network: Network, clock: FakeClock, tmp_path: Path
) -> None:
    shared, count = by_command(tmp_path)
    machine = Machine(network, clock, dict(os.environ), shared)
    name = names_of(shared, "7e0c5a").token
    for fence in range(1, 50):
        network.store.tokens[name] = (fence, b"\x01" + b"nonsense" * 10, inf)
        machine.link.listener.changed({name})
        assert machine.fleet.look(shared, 0, lambda: None) is None
        clock.advance(0.1)
    assert count.read_text().count("run") == 1
    clock.advance(10.0)
    network.store.tokens[name] = (60, b"\x01" + b"nonsense" * 10, inf)
    machine.link.listener.changed({name})
    machine.fleet.look(shared, 0, lambda: None)
    assert count.read_text().count("run") == 2


def test_a_token_is_not_stored_for_a_client_id_that_changed_meanwhile(network: Network, clock: FakeClock) -> None:
    shared = replace(SHARED, client=replace(SHARED.client, client_id=Reference("env", "ID")))
    machine = Machine(network, clock, {"DNB_SECRET": SECRET}, shared)
    lock = machine.fleet.claim(shared, FIRST)
    assert isinstance(lock, Lock)
    machine.client_id = "another"
    machine.fleet.store(shared, machine.record("one", lock.fence), 3600.0)
    assert network.store.tokens == {}


@pytest.mark.parametrize("content", [None, "", "too short\n"], ids=["missing", "empty", "short"])
@pytest.mark.parametrize(("shared", "answer"), [(SHARED, Alone()), (WAITING, Delayed("share_unavailable", inf))])
def test_a_key_that_cannot_be_used_is_the_error_of_the_share(
    network: Network, clock: FakeClock, tmp_path: Path, content: str | None, shared: Any, answer: object
) -> None:
    path = tmp_path / "key"
    if content is not None:
        path.write_text(content)
        path.chmod(0o600)
    share = replace(shared.client.share, key=Reference("file", str(path)))
    keyed = replace(shared, client=replace(shared.client, share=share))
    machine = Machine(network, clock, {}, keyed)
    assert machine.fleet.claim(keyed, replace(FIRST, have=1, remaining=600.0)) == answer
    assert f"the tokens of client dnb cannot be encrypted: file {path}: " in machine.error
    assert network.store.locks == {}
    path.write_text("0123456789abcdef0123456789abcdef\n")
    path.chmod(0o600)
    assert isinstance(machine.fleet.claim(keyed, replace(FIRST, have=1, remaining=600.0)), Lock)


def test_targets_of_one_name_take_each_others_token(network: Network, clock: FakeClock) -> None:
    twin = replace(SHARED, name="twin")
    machine = Machine(network, clock, {"DNB_SECRET": SECRET}, SHARED, twin)
    machine.fleet.look(twin, 0, lambda: None)
    machine.store("one")
    assert "dnb/twin" in machine.woken
    taken = machine.fleet.look(twin, 0, lambda: None)
    assert isinstance(taken, Taken)


def test_the_poll_is_quiet_once_a_target_has_looked(machine: Machine, network: Network) -> None:
    fence = machine.store("one")
    machine.look(fence)
    machine.woken.clear()
    machine.link.poll()
    assert machine.woken == []
    network.store.flush()
    machine.link.poll()
    assert machine.woken == ["dnb/bci"]
    machine.look(fence)  # its token has expired, so there is nothing to give
    machine.woken.clear()
    machine.link.poll()
    assert machine.woken == []


def test_clients_with_equal_servers_share_a_link(network: Network, clock: FakeClock) -> None:
    second = replace(target("one"), client=replace(SHARED.client, name="second", client_id="other"))
    elsewhere = replace(
        target("two"), client=replace(SHARED.client, name="third", share=Share(Redis("redis://elsewhere")))
    )
    machine = Machine(network, clock, {"DNB_SECRET": SECRET}, SHARED, second, elsewhere)
    assert [(view.name, view.clients) for view in machine.fleet.views()] == [
        ("redis://127.0.0.1:6379/0", ("dnb", "second")), ("redis://elsewhere:6379/0", ("third",)),
    ]  # fmt: skip
    assert len(network.links) == 2
    machine.fleet.apply((SHARED,))
    assert len(network.links) == 1
    assert isinstance(machine.fleet.claim(elsewhere, FIRST), Alone)


def test_a_server_that_is_not_there_at_the_start_is_logged_with_the_policy_of_the_config(
    network: Network, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    machine = Machine(network, clock, {}, WAITING)
    machine.link.fail("the connection was refused; check the server")  # before the first turn of any target
    assert caplog.messages[0].endswith("check the server; each token is kept until shortly before its expiry")


def test_a_url_that_is_a_secret_is_not_part_of_the_name(network: Network, clock: FakeClock) -> None:
    share = Share(Redis(Reference("file", "/etc/bearerd/redis-url")))
    hidden = replace(SHARED, client=replace(SHARED.client, share=share))
    machine = Machine(network, clock, {}, hidden)
    (view,) = machine.fleet.views()
    assert view.name == "file /etc/bearerd/redis-url"


def test_an_error_is_logged_once_in_ten_minutes(
    machine: Machine, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        machine.fleet.clocks_differ(SHARED, 7200.0)
    assert len(caplog.messages) == 1
    clock.advance(601.0)
    machine.fleet.clocks_differ(SHARED, 7200.0)
    assert len(caplog.messages) == 2
    (view,) = machine.fleet.views()
    assert view.errors == 4


def test_a_server_that_stays_unavailable_is_logged_for_each_reason_and_every_ten_minutes(
    machine: Machine, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    fails = machine.link.fail
    fails("closed; look at it")
    for _ in range(3):
        fails("wrong password; correct it")
        fails("closed; look at it")
    alone = "each token is refreshed by this daemon alone"
    assert caplog.messages == [
        f"share redis://127.0.0.1:6379/0 is unavailable: closed; look at it; {alone}",
        f"share redis://127.0.0.1:6379/0 is still unavailable: wrong password; correct it; {alone}",
    ]
    clock.advance(601.0)
    fails("wrong password; correct it")
    fails("wrong password; correct it")
    assert len(caplog.messages) == 3
    machine.link.poll()
    fails("wrong password; correct it")
    assert [" still " in line for line in caplog.messages[3:]] == [False]


def test_a_config_that_is_applied_again_reads_keys_and_entries_again(machine: Machine, other: Machine) -> None:
    other.environ["DNB_SECRET"] = "the wrong secret of the client"
    machine.store("one")
    assert other.look() == ""
    other.environ["DNB_SECRET"] = SECRET
    other.fleet.apply((SHARED,))
    assert other.look() == "one"


def test_changed_credentials_of_a_client_concern_its_own_targets(network: Network, clock: FakeClock) -> None:
    second = replace(SHARED, client=replace(SHARED.client, name="second"), name="two")
    machine = Machine(network, clock, {"DNB_SECRET": SECRET}, SHARED, second)
    for each in (SHARED, second):
        machine.fleet.look(each, 0, lambda: None)
    machine.link.commands.clear()
    machine.fleet.credentials_changed("second")
    machine.fleet.look(SHARED, 0, lambda: None)
    assert machine.link.commands == []
    machine.fleet.look(second, 0, lambda: None)
    assert machine.link.commands == ["read"]


def test_a_look_that_failed_is_made_again(machine: Machine, other: Machine) -> None:
    machine.store("one")
    other.link.failing.add("read")
    assert other.look() == ""
    other.link.failing.clear()
    other.link.state = "up"  # the link was opened again before this look noticed its failure
    assert other.look() == "one"


def test_a_token_that_could_not_be_stored_is_stored_later(machine: Machine, network: Network) -> None:
    lock = machine.lock()
    record = machine.record("one", lock.fence)
    machine.link.failing.add("store")
    assert machine.fleet.store(SHARED, record, 3600.0) is None
    machine.link.failing.clear()
    machine.link.state = "up"
    machine.fleet.look(SHARED, lock.fence, lambda: (record, 3600.0))
    assert [fence for fence, _, _ in network.store.tokens.values()] == [lock.fence]


def test_a_claim_that_fails_is_answered_by_the_policy(network: Network, clock: FakeClock) -> None:
    for shared, answer in ((SHARED, Alone()), (WAITING, Delayed("share_unavailable", inf))):
        machine = Machine(network, clock, {"DNB_SECRET": SECRET}, shared)
        machine.link.failing.add("claim")
        assert machine.fleet.claim(shared, replace(FIRST, have=0, remaining=20.0)) == answer
        assert machine.fleet.claim(shared, replace(FIRST, have=0, remaining=20.0, last=True)) == Alone()


def test_a_target_hears_of_an_attempt_that_ends_while_it_claims(
    machine: Machine, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = network.store.claim
    states = next(iter(machine.fleet._servers.values()))._states
    heard: list[bool] = []

    def claiming(*arguments: Any) -> Any:
        heard.extend(state.waiting for state in states.values())
        return claim(*arguments)

    monkeypatch.setattr(network.store, "claim", claiming)
    machine.lock()
    assert heard == [True]
    assert [state.waiting for state in states.values()] == [False]


def test_daemons_that_wait_for_the_others_are_counted(network: Network, clock: FakeClock) -> None:
    machine = Machine(network, clock, {"DNB_SECRET": SECRET}, WAITING)
    wanted = replace(FIRST, have=0, remaining=600.0)
    machine.link.fail("down")
    machine.link.poll()
    clock.advance(11.5)
    claimed = machine.fleet.claim(WAITING, wanted)
    assert isinstance(claimed, Delayed)
    assert claimed.reason == "share_unavailable"
    assert claimed.wait == pytest.approx(0.5)
    assert machine.fleet.views()[0].waiting == 1
    assert isinstance(machine.fleet.claim(WAITING, replace(wanted, last=True)), Lock)
    assert machine.fleet.views()[0].waiting == 0


def test_the_time_in_an_own_fence_is_that_of_the_server(clock: FakeClock) -> None:
    network = Network(lambda: clock.wall + 100.0, lambda: clock.boot)
    machine = Machine(network, clock, {"DNB_SECRET": SECRET})
    machine.look()
    obtained = clock.wall - 7.0
    assert machine.fleet.own_fence(SHARED, 0, obtained) == pytest.approx(int((obtained + 100.0) * 1e6) + 500, abs=1)
    greatest = 2**51
    assert machine.fleet.own_fence(SHARED, greatest, obtained) == greatest + 1 + 50_000
    assert machine.fleet.own_fence(SHARED, 0, obtained) == greatest + 2 + 100_000


def test_without_a_share_an_own_fence_is_of_this_machine_and_nothing_else_happens(machine: Machine) -> None:
    lock = machine.lock()
    assert machine.fleet.own_fence(TARGET, 0, 7.0) == 7_000_500
    assert machine.fleet.own_fence(TARGET, 9_000_000, 7.0) == 9_050_001
    machine.link.commands.clear()
    machine.fleet.pass_over(TARGET, 5)
    machine.fleet.clocks_differ(TARGET, 60.0)
    machine.fleet.keep(TARGET, lock, 5.0)
    machine.fleet.give_back(TARGET, lock)
    machine.fleet.fail(TARGET, lock, Transient("503"), 5.0, whole_client=False, refused=False)
    assert machine.fleet.store(TARGET, machine.record("one", 7), 3600.0) is None
    assert (machine.link.commands, machine.error) == ([], "")


def test_a_removed_target_is_not_compared_any_more(machine: Machine) -> None:
    machine.look()
    assert len(machine.link.listener.known()) == 1
    machine.fleet.forget(SHARED)
    assert machine.link.listener.known() == {}


def test_a_client_id_is_read_only_if_it_is_a_secret(machine: Machine, network: Network) -> None:
    machine.client_id = "another"
    machine.store("one")
    assert list(network.store.tokens) == [names_of(SHARED, "7e0c5a").token]
    referred = replace(SHARED, client=replace(SHARED.client, client_id=Reference("file", "/id")))
    machine.fleet.apply((referred,))
    machine.fleet.look(referred, 0, lambda: None)
    assert list(machine.link.listener.known()) == [names_of(referred, "another").token]
    assert machine.asked == [referred]


@pytest.mark.parametrize(("shared", "answer"), [(SHARED, Alone()), (WAITING, Delayed("share_unavailable", inf))])
def test_a_client_id_that_cannot_be_read_is_the_error_of_the_share(
    network: Network, clock: FakeClock, shared: Target, answer: object
) -> None:
    referred = replace(shared, client=replace(shared.client, client_id=Reference("file", "/id")))
    machine = Machine(network, clock, {"DNB_SECRET": SECRET}, referred)
    machine.client_id = None
    assert machine.fleet.claim(referred, replace(FIRST, remaining=600.0)) == answer
    assert machine.error == "file /id: the client id of dnb cannot be read; correct it"


def test_a_daemon_that_may_go_alone_waits_for_no_other_one_after_an_outage(machine: Machine) -> None:
    machine.link.fail("down")
    machine.link.poll()
    assert isinstance(machine.fleet.claim(SHARED, replace(FIRST, remaining=600.0)), Lock)


def test_the_end_of_an_attempt_is_reported_as_it_was(
    machine: Machine, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[tuple[Any, ...]] = []
    for name in ("keep", "fail"):
        monkeypatch.setattr(network.store, name, lambda *arguments, **keywords: sent.append((*arguments[1:], keywords)))
    lock = machine.lock()
    for wait in (0.5, -1.0):
        machine.fleet.keep(SHARED, lock, wait)
    for refused in (True, False):
        machine.fleet.fail(SHARED, lock, Transient("503"), 5.0, whole_client=False, refused=refused)
    assert sent[:2] == [(lock.fence, 0.5, {}), (lock.fence, 0.0, {})]
    assert [keywords for *_, keywords in sent[2:]] == [
        {"whole_client": False, "refused": refused} for refused in (True, False)
    ]


def test_no_connection_is_left_after_a_stop(machine: Machine, network: Network) -> None:
    machine.fleet.stop()
    assert network.links == []


@pytest.mark.parametrize("step", ["read", "keep", "store"])
def test_an_unexpected_error_is_told_and_loses_nothing(
    step: str, machine: Machine, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = machine.lock()

    def broken(*_arguments: Any, **_keywords: Any) -> None:
        raise KeyError("a mistake")

    monkeypatch.setattr(network.store, step, broken)
    if step == "read":
        machine.fleet.credentials_changed("dnb")
        assert machine.look() == ""
    elif step == "keep":
        machine.fleet.keep(SHARED, lock, 5.0)
    else:
        assert machine.fleet.store(SHARED, machine.record("one", lock.fence), 3600.0) is None
    assert "this is a bug in bearerd, please report it" in machine.error
    assert "a mistake" not in machine.error


def test_without_a_share_nothing_of_it_is_imported(tmp_path: Path) -> None:
    script = f"""
import sys
from bearerd.model import Config
from bearerd.service import once, run
from bearerd.service.engine import Engine
engine = Engine(Config({str(tmp_path)!r}, {str(tmp_path / "state")!r}), {{}})
engine.start()
engine.status()
engine.stop()
wanted = {{"bearerd.share.types", "bearerd.share.answers", "bearerd.share", "bearerd.service.sharing"}}
print(sorted(name for name in sys.modules if name.split(".")[0] in ("redis", "cryptography")
             or (name.startswith("bearerd.share") and name not in wanted)))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
