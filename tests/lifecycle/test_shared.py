"""Daemons that share a client's tokens: who asks the provider, and which token each one has in its files."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from bearerd.errors import Stopping
from bearerd.grant.outcome import Issued, Malformed, Outcome, RateLimited, Refused, Transient, Unsent
from bearerd.model import Target
from bearerd.share.types import Answer, Claim, Names, Stored
from bearerd.target_status import Hold
from bearerd.terms import RateLimit, Reference
from support.fleet import SHARE, Daemon, World
from support.share_link import ModelLink
from support.share_model import ModelStore
from support.targets import CLIENT, token

WAIT = replace(SHARE, when_unavailable="wait")
REFUSED = Refused("401 invalid_client")
HOUR = 3600.0


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def files(world: World) -> list[str]:
    return [daemon.file() for daemon in world.daemons]


def answer(*outcomes: Outcome) -> Callable[[int, Target], Outcome]:
    """A script of outcomes, in whatever order the daemons ask; the last one repeats."""
    rest = list(outcomes)
    return lambda _daemon, _target: rest.pop(0) if len(rest) > 1 else rest[0]


def digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:16]


# -- one grant for the fleet -----------------------------------------------------------------------


def test_one_daemon_makes_the_grant_and_the_others_take_its_token(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    world.add(5)
    world.live(10.0)
    assert world.asks == 1
    assert files(world) == ["token-1"] * 5
    assert sum("token taken from the fleet; good for" in line for line in caplog.messages) == 4


def test_a_fleet_makes_one_grant_for_each_lifetime(world: World) -> None:
    world.add(10)
    world.live(10 * HOUR)
    rounds = [later.at - ask.at for ask, later in zip(world.provider.asks, world.provider.asks[1:], strict=False)]
    # 20 % before the end, up to a tenth of that earlier.
    assert all(0.77 * HOUR < seconds <= 0.8 * HOUR for seconds in rounds)
    assert len({*files(world)}) == 1


def test_only_grants_that_were_sent_are_counted(world: World) -> None:
    daemons = world.add(3)
    world.live(10.0)
    assert sum(len(daemon.counted) for daemon in daemons) == 1
    assert sum(sum(daemon.controllers["dnb/bci"].status().outcomes) for daemon in daemons) == 1


def test_a_restarted_fleet_makes_no_grant_while_its_token_is_good(world: World) -> None:
    daemons = world.add(5)
    world.live(60.0)
    for daemon in daemons:
        daemon.link.stop()
        daemon.start()
    world.live(60.0)
    assert world.asks == 1


def test_a_daemon_whose_record_expired_takes_the_token_of_the_fleet(world: World) -> None:
    first, second = world.add(2)
    world.live(60.0)
    second.dead = True
    second.link.stopped = True
    world.live(2 * HOUR)
    asks = world.asks
    second.dead = False
    second.link.stop()
    second.start()
    world.live(1.0)
    assert (world.asks, second.file()) == (asks, first.file())


def test_a_token_from_before_the_share_was_configured_is_given_to_the_fleet(tmp_path: Path) -> None:
    world = World(tmp_path)
    alone = world.targets[0]
    world.targets = [replace(alone, client=replace(alone.client, share=None))]
    (first,) = world.add()
    world.live(60.0)
    assert world.asks == 1
    world.targets = [alone]
    first.fleet.stop()
    first.start()
    world.add(3)
    world.live(60.0)
    assert (world.asks, files(world)) == (1, ["token-1"] * 4)


def test_a_share_is_added_and_removed_while_the_daemon_runs(world: World) -> None:
    first, second = world.add(2)
    world.live(60.0)
    shared = second.targets["dnb/bci"]
    second.change(replace(shared, client=replace(shared.client, share=None)))
    first.refresh()
    world.live(60.0)
    assert files(world) == ["token-2", "token-1"]
    second.change(shared)
    world.live(60.0)
    assert (world.asks, files(world)) == (2, ["token-2", "token-2"])


def test_another_scope_is_another_token_of_the_fleet(world: World) -> None:
    first, second = world.add(2)
    world.live(60.0)
    for daemon in (first, second):
        daemon.change(replace(daemon.targets["dnb/bci"], scope="other"))
    world.live(60.0)
    assert (world.asks, files(world)) == (2, ["token-2", "token-2"])


def test_another_client_id_is_another_token_of_the_fleet(world: World) -> None:
    daemons = world.add(2)
    world.live(60.0)
    for daemon in daemons:
        known = daemon.targets["dnb/bci"]
        daemon.clients.id = "another"
        daemon.change(replace(known, client=replace(known.client, client_id="another")))
    world.live(60.0)
    assert (world.asks, files(world)) == (2, ["token-2", "token-2"])


def test_a_token_for_a_client_id_that_changed_meanwhile_is_not_given_to_the_fleet(world: World) -> None:
    (daemon,) = world.add()
    client = replace(world.targets[0].client, client_id=Reference("env", "ID"))
    daemon.clients.id = "before"  # the grant reads what the environment has, which is another one
    daemon.change(replace(daemon.targets["dnb/bci"], client=client))
    world.live(60.0)
    assert daemon.file() == "token-1"
    assert world.network.store.tokens == {}


def test_another_refresh_before_applies_to_the_daemon_that_has_it(world: World) -> None:
    first, second = world.add(2)
    world.live(60.0)
    lead = replace(first.targets["dnb/bci"].refresh_before, share=0.5)
    first.change(replace(first.targets["dnb/bci"], refresh_before=lead))
    world.live(HOUR / 2)
    assert [ask.daemon for ask in world.provider.asks][1:] == [0]
    assert second.file() == "token-2"


# -- requests of users -----------------------------------------------------------------------------


def test_a_refresh_that_a_user_requests_is_for_the_whole_fleet(world: World) -> None:
    daemons = world.add(3)
    world.live(60.0)
    daemons[1].refresh()
    world.live(6.0)
    assert (world.asks, files(world)) == (2, ["token-2"] * 3)


def test_a_consumer_with_a_token_that_fails_gets_the_newer_one_of_the_fleet(world: World) -> None:
    first, second = world.add(2)
    world.live(60.0)
    second.link.stopped = True
    first.refresh()
    second.link.stopped = False
    world.live(2.0)
    second.refresh(instead_of=digest("token-1"))
    assert (world.asks, second.file()) == (2, "token-2")


def test_all_daemons_that_are_asked_to_refresh_at_once_make_one_grant(world: World) -> None:
    daemons = world.add(4)
    world.live(60.0)
    requested: list[int] = []

    def others_too(_: int) -> None:
        if not requested:
            requested.append(1)
            for daemon in daemons[1:]:
                daemon.refresh(instead_of=digest("token-1"))

    world.provider.during = others_too
    daemons[0].refresh(instead_of=digest("token-1"))
    world.live(10.0)
    assert (world.asks, files(world)) == (2, ["token-2"] * 4)


# -- fencing ---------------------------------------------------------------------------------------


def pause(world: World, paused: Daemon, seconds: float) -> None:
    """Stop a daemon's process for a while; the others go on."""
    paused.dead, paused.link.stopped = True, True
    world.live(seconds)
    paused.dead, paused.link.stopped = False, False


def test_a_daemon_that_was_paused_during_a_grant_does_not_publish_its_older_token(world: World) -> None:
    first, second = world.add(2)
    second.dead = True
    written: list[str] = []

    def paused(daemon: int) -> None:
        if daemon == 0 and not written:
            written.append("")
            world.provider.issue()  # the reply is token-1, which is on its way
            second.dead = False
            pause(world, first, 120.0)
            world.provider.count = 0

    world.provider.during = paused
    first.turn()
    world.provider.count = 2
    assert second.file() == "token-2"
    assert first.file() == "token-2"


def test_a_daemon_that_was_paused_until_its_lock_ended_makes_no_request(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = world.add(2)
    second.dead = True
    claim = ModelStore.claim

    def paused_once(store: ModelStore, names: Names, wanted: Claim) -> Answer:
        answer = claim(store, names, wanted)
        if second.dead:
            second.dead = False
            pause(world, first, 60.0)
        return answer

    monkeypatch.setattr(ModelStore, "claim", paused_once)
    first.turn()
    assert first.file() == second.file() == "token-1"
    assert world.asks == 1


def test_a_daemon_that_was_paused_before_it_writes_its_files_looks_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = world.add(2)
    second.dead = True
    stored = ModelLink.fresh

    def paused_once(link: ModelLink) -> bool:
        if link is first.link and world.asks == 1 and not second.file():
            second.dead = False
            pause(world, first, 1.0)
            second.refresh()
            pause(world, first, 30.0)
        return stored(link)

    monkeypatch.setattr(ModelLink, "fresh", paused_once)
    first.turn()
    assert world.asks == 2
    assert first.file() == second.file() == "token-2"


def test_a_flushed_server_gets_the_token_back(world: World) -> None:
    world.add(3)
    world.live(60.0)
    world.network.store.flush()
    world.live(6.0)
    (stored,) = world.network.store.tokens.values()
    world.add(2)
    world.live(1.0)
    assert (world.asks, files(world)) == (1, ["token-1"] * 5)
    assert stored[0] > 0


def test_an_old_snapshot_does_not_bring_an_old_token_back(world: World) -> None:
    daemons = world.add(3)
    world.live(60.0)
    snapshot = dict(world.network.store.tokens)
    daemons[0].refresh()
    world.live(6.0)
    world.network.store.flush()
    world.network.store.tokens.update(snapshot)
    world.live(6.0)
    assert files(world) == ["token-2"] * 3
    world.add(1)
    world.live(1.0)
    assert (world.asks, files(world)) == (2, ["token-2"] * 4)


@pytest.mark.parametrize("fence", [2**53, 2**52 + 1])
def test_a_fence_that_is_out_of_range_does_not_hold_the_daemon_back(world: World, fence: int) -> None:
    (daemon,) = world.add()
    world.live(60.0)
    (name,) = world.network.store.tokens
    world.network.store.tokens[name] = (fence, b"x" * 40, world.clock.wall + 86400)
    world.live(2 * HOUR)
    assert 2 <= world.asks <= 4
    assert "out of range" in daemon.view.error
    assert daemon.file() == f"token-{world.asks}"


@pytest.mark.parametrize("fence", [2**52, 2**52 - 1, 2**52 - 2**41])
def test_an_entry_with_the_greatest_fence_does_no_harm_once_it_is_gone(world: World, fence: int) -> None:
    world.add(3)
    world.live(60.0)
    (name,) = world.network.store.tokens
    world.network.store.tokens[name] = (fence, b"x" * 40, world.clock.wall + 2 * HOUR)
    world.live(3 * HOUR)
    assert all(files(world))
    asks = world.asks
    world.live(5 * HOUR)
    assert world.asks <= asks + 7
    assert len({*files(world)}) == 1


# -- without the server ----------------------------------------------------------------------------


def test_without_the_server_each_daemon_goes_on_alone(world: World, caplog: pytest.LogCaptureFixture) -> None:
    daemons = world.add(2)
    world.live(60.0)
    for daemon in daemons:
        daemon.link.cut = True
    world.live(2 * HOUR)
    assert world.asks == 1 + 2 * 2
    lines = [line for line in caplog.messages if " is unavailable" in line]
    assert len(lines) == 2
    assert lines[0] == (
        "share redis://127.0.0.1:6379/0 is unavailable: the connection timed out; check the network; each token is "
        "refreshed by this daemon alone"
    )
    for daemon in daemons:
        daemon.link.cut = False
    world.live(6.0)
    assert len({*files(world)}) == 1
    asks = world.asks
    world.live(HOUR)
    assert world.asks <= asks + 2


def test_two_daemons_that_went_alone_take_the_token_with_the_greater_fence(world: World) -> None:
    daemons = world.add(2)
    for daemon in daemons:
        daemon.link.cut = True
        daemon.link.poll()
    daemons[0].turn()
    world.clock.advance(5.0)
    daemons[1].turn()
    assert files(world) == ["token-1", "token-2"]
    for daemon in daemons:
        daemon.link.cut = False
    world.live(6.0)
    assert (world.asks, files(world)) == (2, ["token-2", "token-2"])


def test_a_daemon_that_waits_keeps_its_token_until_shortly_before_its_expiry(tmp_path: Path) -> None:
    world = World(tmp_path, share=WAIT)
    (daemon,) = world.add()
    world.live(60.0)
    daemon.link.cut = True
    world.live(HOUR - 100.0)
    status = daemon.controllers["dnb/bci"].status()
    assert (world.asks, status.held_by, daemon.view.waiting) == (1, "share_unavailable", 1)
    assert status.expires is not None
    assert 15 <= status.expires - status.held_until <= 30
    world.live(60.0)
    assert (world.asks, daemon.file()) == (2, "token-2")


def test_a_daemon_that_waits_is_woken_when_the_server_is_back(tmp_path: Path) -> None:
    world = World(tmp_path, share=WAIT)
    daemons = world.add(2)
    world.live(60.0)
    for daemon in daemons:
        daemon.link.cut = True
    world.live(0.9 * HOUR)
    assert world.asks == 1
    for daemon in daemons:
        daemon.link.cut = False
    world.live(18.0)
    assert (world.asks, files(world)) == (2, ["token-2", "token-2"])
    assert [daemon.view.waiting for daemon in daemons] == [0, 0]


def test_daemons_that_wait_make_no_grant_before_the_others_are_connected_again(tmp_path: Path) -> None:
    world = World(tmp_path, share=WAIT)
    first, second = world.add(2)
    world.live(60.0)
    for daemon in (first, second):
        daemon.link.cut = True
    world.live(0.85 * HOUR)
    first.link.cut = False
    world.live(10.0)
    assert world.asks == 1
    second.link.cut = False
    world.live(10.0)
    assert (world.asks, files(world)) == (2, ["token-2", "token-2"])


@pytest.mark.parametrize("share", [SHARE, WAIT])
def test_a_daemon_without_a_token_starts_without_the_server(tmp_path: Path, share: object) -> None:
    world = World(tmp_path, share=share)  # type: ignore[arg-type]  # one of the two above
    (daemon,) = world.add()
    daemon.link.cut = True
    daemon.link.poll()
    world.live(1.0)
    assert daemon.file() == "token-1"
    daemon.link.cut = False
    world.live(6.0)
    world.add()
    world.live(1.0)
    assert (world.asks, files(world)) == (1, ["token-1", "token-1"])


def test_a_server_that_fails_after_the_grant_gets_the_token_later(world: World) -> None:
    first, second = world.add(2)
    second.dead = True
    world.provider.during = lambda _: setattr(first.link, "cut", True)
    first.turn()
    assert first.file() == "token-1"
    assert first.link.commands.count("store") == 1
    first.link.cut = False
    second.dead = False
    world.provider.during = lambda _: None
    world.live(20.0)
    assert (world.asks, second.file()) == (1, "token-1")


def test_a_turn_sends_no_second_command_after_one_that_failed(world: World) -> None:
    (daemon,) = world.add()
    daemon.link.cut = True
    daemon.link.commands.clear()
    daemon.turn()
    assert (daemon.link.commands, daemon.file()) == (["read"], "token-1")


def test_a_turn_without_a_change_sends_no_command(world: World) -> None:
    (daemon,) = world.add()
    world.live(20.0)
    daemon.link.commands.clear()
    daemon.turn()
    assert daemon.link.commands == []


def test_a_daemon_that_is_refused_writes_keeps_its_tokens(world: World) -> None:
    daemons = world.add(2)
    for daemon in daemons:
        daemon.link.failing.add("store")  # maxmemory with noeviction
    world.live(10 * 60.0)
    assert all(files(world))
    assert world.asks <= 2


# -- failures --------------------------------------------------------------------------------------


def test_a_transient_failure_of_one_daemon_is_that_of_all(world: World) -> None:
    daemons = world.add(10)
    world.provider.script = answer(Transient("503"))
    world.live(600.0)
    # One daemon alone: 1 s doubling to 60 s with full jitter, which is about 20 in ten minutes.
    assert world.asks < 60
    statuses = [daemon.controllers["dnb/bci"].status() for daemon in daemons]
    assert all(isinstance(status.failure, Transient) for status in statuses)
    world.provider.script = None
    world.live(90.0)
    assert len({*files(world)}) == 1
    assert world.provider.count == 1


def test_the_message_says_that_another_daemon_received_the_failure(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.add(2)
    world.provider.script = answer(RateLimited("429", retry_after=100.0))
    world.live(90.0)
    assert world.asks == 1
    told = [line for line in caplog.messages if "429" in line]
    assert len(told) == 2
    assert sum("(received by another daemon of the fleet)" in line for line in told) == 1


def test_the_fleet_backs_off_as_one_daemon_would(world: World) -> None:
    world.add(5)
    world.provider.script = answer(Malformed("HTML"))
    world.live(60.0 + 120.0 + 240.0 + 30.0)
    assert world.asks == 4


def test_a_fleet_makes_at_most_refused_limit_attempts(world: World) -> None:
    world.add(20)
    world.provider.script = answer(REFUSED)
    world.live(HOUR)
    times = [ask.at for ask in world.provider.asks]
    assert max(sum(1 for at in times if start <= at < start + 120.0) for start in times) <= 4
    # Credentials that never worked: after 5, 10, 20 and 40 minutes.
    assert len(times) == 4


def test_changed_credentials_of_one_daemon_are_tried_at_once(world: World) -> None:
    daemons = world.add(3)
    world.provider.script = lambda daemon, _: world.provider.issue() if daemon == 2 else REFUSED
    world.live(30.0)
    asks = world.asks
    daemons[2].credentials_changed()
    world.live(6.0)
    assert world.asks == asks + 1
    assert files(world) == ["token-1"] * 3


def test_a_token_of_another_daemon_ends_the_refusal_of_its_client(world: World) -> None:
    world.targets.append(replace(world.targets[0], name="two", scope="two"))
    daemons = world.add(2)
    world.provider.script = answer(REFUSED)
    world.live(10.0)
    world.provider.script = None
    daemons[0].credentials_changed()
    world.live(10.0)
    assert [daemon.file("dnb/two") != "" and daemon.file() != "" for daemon in daemons] == [True, True]
    assert world.provider.count == 2


def test_a_rate_limit_is_that_of_the_fleet(tmp_path: Path) -> None:
    client = replace(CLIENT, rate_limits=(("client-dnb", RateLimit(3, HOUR)),))
    world = World(tmp_path, client=client)
    world.provider.lifetime = 24 * HOUR
    world.targets = [replace(world.targets[0], name=f"t{index}", scope=f"t{index}") for index in range(5)]
    world.add(4)
    world.live(0.5 * HOUR)
    assert world.asks == 3
    held = [status.held_by for daemon in world.daemons for status in daemon.statuses() if status.expires is None]
    assert set(held) == {"rate_limit"}
    world.live(HOUR)
    assert all(daemon.file(f"dnb/t{index}") for daemon in world.daemons for index in range(5))


def test_requested_refreshes_use_at_most_half_of_a_rate_limit_of_the_fleet(tmp_path: Path) -> None:
    client = replace(CLIENT, rate_limits=(("client-dnb", RateLimit(4, HOUR)),))
    world = World(tmp_path, client=client)
    daemons = world.add(4)
    world.live(60.0)
    for daemon in daemons:
        daemon.refresh()
        world.live(60.0)
    assert (world.asks, files(world)) == (2, ["token-2"] * 4)
    world.live(HOUR)  # refreshes that are due have the rest
    assert (world.asks, files(world)) == (3, ["token-3"] * 4)


def test_a_daemon_says_until_when_the_fleet_limits_requested_refreshes(tmp_path: Path) -> None:
    client = replace(CLIENT, rate_limits=(("client-dnb", RateLimit(4, HOUR)),))
    world = World(tmp_path, client=client)
    first, second, third = world.add(3)
    world.live(60.0)
    first.refresh()
    world.live(60.0)
    controller = third.controllers["dnb/bci"]
    assert controller.refresh_hold() is None  # it has made no request itself
    third.refresh()
    hold, status, now = controller.refresh_hold(), controller.status(), third.clock.now().boot
    assert hold == Hold("rate_limit", status.limited_until, None)
    assert 0.9 * HOUR < status.limited_until - now < HOUR
    assert (status.held_by, status.failure) == ("", None)  # its own refresh is not held
    assert second.controllers["dnb/bci"].refresh_hold() is None  # not told yet
    other = replace(client, rate_limits=(("client-dnb", RateLimit(8, HOUR)),), share=SHARE)
    third.change(replace(third.targets["dnb/bci"], client=other))
    third.turn()
    assert controller.refresh_hold() is None


def test_the_last_attempt_before_expiry_is_made_once_by_the_fleet(world: World) -> None:
    world.add(10)
    world.live(60.0)
    world.provider.script = answer(RateLimited("429", retry_after=HOUR))
    world.live(HOUR - 70.0)
    last = [ask for ask in world.provider.asks if ask.at > world.clock.boot - 60.0]
    assert len(last) == 1


def test_an_attempt_that_sent_nothing_leaves_the_grant_to_another_daemon(world: World) -> None:
    world.add(2)
    world.provider.script = lambda daemon, _: (
        Unsent("no secret", phase="secret") if daemon == 0 else world.provider.issue()
    )
    world.live(30.0)
    assert files(world) == ["token-1", "token-1"]


def test_an_exception_in_a_grant_frees_the_lock(world: World) -> None:
    first, second = world.add(2)

    def broken(_daemon: int, _target: Target) -> Outcome:
        raise RuntimeError

    world.provider.script = broken
    with pytest.raises(RuntimeError):
        first.turn()
    assert all(lock.until <= world.clock.wall for lock in world.network.store.locks.values())
    world.provider.script = None
    world.clock.advance(2.0)
    second.turn()
    assert second.file() == "token-1"
    world.live(10.0)
    assert first.file() == "token-1"


def test_an_attempt_that_a_stop_prevents_leaves_the_grant_to_another_daemon_at_once(world: World) -> None:
    first, second = world.add(2)

    def stopping(_daemon: int, _target: Target) -> Outcome:
        raise Stopping

    world.provider.script = stopping
    with pytest.raises(Stopping):
        first.turn()
    world.provider.script = None
    second.turn()
    assert second.file() == "token-1"


def test_an_error_after_a_grant_does_not_lose_its_token(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    (daemon,) = world.add()

    def broken(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(world.network.store, "store", broken)
    daemon.turn()
    world.live(600.0)
    assert (world.asks, daemon.file()) == (1, "token-1")
    assert "out of memory" in daemon.view.error


def test_an_exception_in_a_claim_leaves_no_slot_taken(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    (daemon,) = world.add()

    def broken(*_: object) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patched:
        patched.setattr(world.network.store, "claim", broken)
        with pytest.raises(ZeroDivisionError):
            daemon.turn()
    view = daemon.admission.view(daemon.clock.now().boot)
    assert view.clients["dnb"].in_flight == 0
    daemon.turn()
    assert daemon.file() == "token-1"


def test_a_killed_holder_delays_the_fleet_by_its_lease(world: World) -> None:
    first, second = world.add(2)

    def killed(daemon: int) -> None:
        if daemon == 0:
            first.dead = True
            raise KeyboardInterrupt

    world.provider.during = killed
    first.link.failing |= {"fail", "give_back"}
    with pytest.raises(KeyboardInterrupt):
        first.turn()
    world.live(5.0)
    assert second.file() == ""
    status = second.controllers["dnb/bci"].status()
    assert status.held_by == "share"
    world.live(10.0)
    assert second.file() == "token-1"


# -- tokens that are not simply new ----------------------------------------------------------------


def test_a_token_that_waits_for_its_nbf_waits_on_each_daemon(world: World) -> None:
    world.add(3)
    world.provider.script = lambda _daemon, _target: replace(world.provider.issue(), nbf=30.0)
    world.live(20.0)
    assert (world.asks, files(world)) == (1, ["", "", ""])
    world.live(15.0)
    assert files(world) == ["token-1"] * 3


def test_each_daemon_applies_its_own_publish_delay(world: World) -> None:
    first, second = world.add(2)
    world.live(60.0)
    second.change(replace(second.targets["dnb/bci"], publish_delay=30.0))
    first.refresh()
    world.live(20.0)
    assert files(world) == ["token-2", "token-1"]
    world.live(15.0)
    assert files(world) == ["token-2", "token-2"]


def test_spring_returns_the_same_token_to_the_fleet_as_often_as_to_one_daemon(tmp_path: Path) -> None:
    def asks(count: int) -> list[float]:
        world = World(tmp_path / str(count))
        world.directory.mkdir()
        issued = [(0, -1e9)]

        def spring(_daemon: int, _target: Target) -> Outcome:
            number, at = issued[-1]
            if world.clock.boot >= at + 600.0:
                number, at = number + 1, world.clock.boot
                issued.append((number, at))
            return Issued(token(f"token-{number}", lifetime=float(int(at + 600.0 - world.clock.boot))))

        world.provider.script = spring
        world.add(count)
        world.live(3 * 600.0 + 30.0)
        assert all(daemon.hooks.lost == 0 for daemon in world.daemons)
        assert len({*files(world)}) == 1
        return [ask.at for ask in world.provider.asks]

    alone, fleet = asks(1), asks(10)
    assert len(fleet) <= 1.5 * len(alone)


def test_a_provider_that_names_no_lifetime_is_asked_as_often_as_by_one_daemon(tmp_path: Path) -> None:
    def asks(count: int) -> int:
        world = World(tmp_path / str(count))
        world.directory.mkdir()
        world.provider.script = answer(Issued(token("forever", lifetime=600.0), named="zero"))
        world.add(count)
        world.live(5 * 600.0)
        return world.asks

    assert asks(10) <= 1.5 * asks(1)


def test_a_sliding_token_is_checked_as_often_as_by_one_daemon(tmp_path: Path) -> None:
    def asks(count: int) -> int:
        world = World(tmp_path / str(count))
        world.directory.mkdir()
        world.provider.script = answer(Issued(token("same", lifetime=600.0)))
        world.add(count)
        world.live(10 * 600.0)
        assert all(daemon.hooks.lost == 0 for daemon in world.daemons)
        return world.asks

    assert asks(10) <= 1.5 * asks(1)


def test_a_token_that_arrived_expired_is_a_failure_of_the_fleet(world: World) -> None:
    world.add(5)
    world.provider.script = lambda _daemon, _target: replace(world.provider.issue(), token=token("x", lifetime=-5.0))
    world.live(60.0)
    assert files(world) == [""] * 5
    assert world.asks < 20
    world.provider.script = None
    world.live(700.0)
    assert len({*files(world)} - {""}) == 1


def test_a_strict_scope_is_not_satisfied_by_the_token_of_others(world: World) -> None:
    first, second = world.add(2)
    second.change(replace(second.targets["dnb/bci"], strict_scope=True))
    world.live(60.0)
    assert world.asks == 2
    assert first.file() != second.file()


# -- clocks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [-7200.0, -20.0, 20.0])
def test_a_reader_whose_clock_is_wrong_takes_the_token(world: World, wrong: float) -> None:
    world.add(1)
    world.live(60.0)
    (reader,) = world.add(1, wrong=wrong)
    world.live(60.0)
    assert (world.asks, reader.file()) == (1, "token-1")
    assert ("clock differs" in reader.view.error) == (abs(wrong) > 30.0)
    world.live(10 * HOUR)
    # When it makes the grant itself, its token looks older to the others than it is.
    assert world.asks <= 2 * 14


def test_a_reader_whose_clock_is_far_ahead_makes_its_own_grants_at_the_usual_pace(world: World) -> None:
    world.add(2)
    (reader,) = world.add(1, wrong=7200.0)
    world.live(10 * HOUR)
    # It takes no token of the others, which look expired. They take its own.
    assert world.asks <= 2 * 14
    assert "clock differs" in reader.view.error
    assert all(files(world))


@pytest.mark.parametrize("wrong", [-7200.0, 7200.0])
def test_a_server_whose_clock_is_wrong_changes_nothing(world: World, wrong: float) -> None:
    world.server_wrong = wrong
    world.add(5)
    world.live(5 * HOUR)
    assert world.asks <= 8
    assert len({*files(world)}) == 1


def test_a_server_whose_clock_jumps_costs_a_grant_at_most(world: World) -> None:
    world.add(5)
    world.live(60.0)
    world.server_wrong = 7200.0
    world.live(60.0)
    world.add(1)
    world.live(60.0)
    assert world.asks <= 2
    assert all(files(world))


def left(daemon: Daemon) -> float:
    """Seconds for which a daemon believes its token to be valid."""
    expires = daemon.controllers["dnb/bci"].status().expires
    assert expires is not None
    return expires - daemon.clock.now().boot


@pytest.mark.parametrize("wrong", [20.0, 3600.0])
def test_a_token_that_was_obtained_before_the_server_was_ever_reached_is_dated_by_its_clock(
    world: World, wrong: float
) -> None:
    (first,) = world.add(1, wrong=wrong)
    first.link.cut, first.link.state = True, "starting"
    first.link.poll()
    world.live(3000.0)
    first.link.cut = False
    world.live(6.0)
    (second,) = world.add()
    world.live(1.0)
    assert second.file() == first.file()
    assert left(second) <= left(first)


def test_a_daemon_that_is_paused_while_it_reads_does_not_believe_a_token_to_be_younger(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    (first,) = world.add()
    world.live(60.0)
    read = world.network.store.read

    def paused(names: Names) -> Stored:
        stored = read(names)
        world.clock.advance(25.0)
        return stored

    monkeypatch.setattr(world.network.store, "read", paused)
    (second,) = world.add()
    second.turn()
    assert second.file() == "token-1"
    assert left(second) <= left(first)


# -- entries that cannot be used -------------------------------------------------------------------


def test_daemons_with_different_keys_each_make_the_grants_that_are_due(world: World) -> None:
    world.add(1)
    world.add(1, secret="another-secret-0123456789-0123456789")
    world.live(10 * HOUR)
    assert world.asks <= 2 * 14
    assert all(files(world))
    assert all("cannot be decrypted" in daemon.view.error for daemon in world.daemons)


def test_an_altered_entry_costs_one_grant(world: World) -> None:
    world.add(2)
    world.live(60.0)
    (name,) = world.network.store.tokens
    fence, sealed, until = world.network.store.tokens[name]
    world.network.store.tokens[name] = (fence + 1, sealed[:-1] + bytes([sealed[-1] ^ 1]), until)
    world.live(600.0)
    assert world.asks == 1
    world.add(1)
    world.live(600.0)
    assert (world.asks, len({*files(world)})) == (2, 1)


def test_a_secret_that_is_too_short_does_not_seal(world: World) -> None:
    (daemon,) = world.add(1, secret="short")
    world.live(60.0)
    assert daemon.file() == "token-1"
    assert world.network.store.tokens == {}
    assert "env DNB_SECRET: shorter than 16 bytes" in daemon.view.error


def test_a_client_id_that_cannot_be_read_leaves_the_daemon_alone(world: World) -> None:
    client = replace(world.targets[0].client, client_id=Reference("env", "ID"))
    world.targets = [replace(world.targets[0], client=client)]
    (daemon,) = world.add()
    daemon.clients.id = None
    world.live(60.0)
    assert daemon.file() == "token-1"
    assert "env ID: the client id of dnb cannot be read" in daemon.view.error


# -- a start ---------------------------------------------------------------------------------------


def test_first_attempts_after_a_start_are_spread(tmp_path: Path) -> None:
    world = World(tmp_path, share=None)
    daemons = world.add(20)
    for daemon in daemons:
        daemon.spread = 30.0
    world.live(29.9)
    times = [ask.at - world.provider.asks[0].at for ask in world.provider.asks]
    assert world.asks == 20
    assert max(sum(1 for at in times if start <= at < start + 3.0) for start in times) <= 8


def test_changed_credentials_are_tried_without_waiting_for_the_spread(tmp_path: Path) -> None:
    world = World(tmp_path, share=None)
    (daemon,) = world.add()
    daemon.spread, daemon.random = 30.0, 0.9
    world.live(1.0)
    assert world.asks == 0
    daemon.credentials_changed()
    assert daemon.file() == "token-1"
