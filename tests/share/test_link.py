"""The link to real servers, and what it reports when something happens to them."""

from __future__ import annotations

import queue
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from redis.exceptions import ResponseError

from bearerd.clock import SystemClock, dice
from bearerd.share import link as module
from bearerd.share.link import RedisLink
from bearerd.share.redis_store import ACL
from bearerd.share.types import NEVER, Busy, Claim, Granted, Names, ShareUnavailable
from bearerd.terms import REFUSED_LIMIT, Redis, Reference
from support.clock import FakeClock
from support.ports import free_port
from support.process import WITHIN, eventually
from support.redis_server import NEEDS_REDIS, ON_EACH, RedisServer, redis_server, sentinel
from support.share_reports import Reports, linked

NAMES = Names("target", "client", REFUSED_LIMIT)
SOON = 1.0
"""Seconds after which a server that does not answer counts as down in these tests."""


@pytest.fixture(params=ON_EACH)
def server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    with redis_server(binary=request.param) as running:
        yield running


@pytest.fixture(autouse=True)
def _soon(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Polls and reconnects come soon, so that no test waits for seconds."""
    monkeypatch.setattr(module, "POLL", 600.0 if "no_polls" in request.fixturenames else 0.1)
    monkeypatch.setattr(module, "SHORTEST", 0.05)
    monkeypatch.setattr(module, "LONGEST", 0.2)


@pytest.fixture
def no_polls() -> None:
    """Only announcements tell."""


def redis_of(server: RedisServer) -> Redis:
    return Redis(server.url, server.ca_file, timeout=SOON * 5)


# -- while the server is well -----------------------------------------------------------------------


@pytest.mark.usefixtures("no_polls")
def test_a_change_is_announced_to_the_other_daemons(server: RedisServer) -> None:
    with linked(redis_of(server)) as (one, _), linked(redis_of(server)) as (two, reports):
        assert set(reports.wait_for("restored")) <= {"lost"}
        answer = one.store.claim(NAMES, Claim())
        assert isinstance(answer, Granted)
        assert isinstance(two.store.claim(NAMES, Claim()), Busy)
        one.store.store(NAMES, answer.fence, b"sealed", 60.0)
        assert reports.wait_for({"target", "client"}) == []
        stored = two.store.read(NAMES)
        assert (stored.fence, stored.sealed) == (answer.fence, b"sealed")
        assert one.view().state == two.view().state == "up"
        assert one.view().errors == 0


def test_a_change_whose_announcement_was_lost_is_found_by_polling(server: RedisServer) -> None:
    with linked(redis_of(server)) as (link, reports):
        reports.fences = {"target": 5, "same": 7, "none": 0}
        link.store.store(Names("same", "client", REFUSED_LIMIT), 7, b"sealed", 60.0)
        server.ask("HSET", "bearerd:token:target", "fence", 9, "until", 2**52, "sealed", "sealed")
        assert reports.wait_for({"target"})
        reports.fences["target"] = 9
        server.ask("FLUSHALL")
        reports.wait_for({"target", "same"})
        assert link.view().state == "up"


def test_messages_of_others_on_the_channel_are_passed_over(server: RedisServer) -> None:
    with linked(redis_of(server)) as (link, reports):
        reports.wait_for("restored")
        for text in ("", "one", "a b c", 200 * "x" + " y", "\0 \0", 2**20 * "x"):
            server.ask("PUBLISH", "bearerd:changed", text)
        server.ask("PUBLISH", "bearerd:changed", "target client")
        assert reports.wait_for({"target", "client"}) == []
        assert link.view().errors == 0


def test_operations_wait_for_the_first_connection(server: RedisServer) -> None:
    link = RedisLink(redis_of(server), {}, SystemClock(), dice, Reports())
    answers: queue.SimpleQueue[object] = queue.SimpleQueue()
    asking = threading.Thread(target=lambda: answers.put(link.store.claim(NAMES, Claim())))
    asking.start()
    assert link.usable()
    assert not link.fresh()
    link.start()
    assert isinstance(answers.get(timeout=WITHIN), Granted)
    asking.join()
    link.stop()


def test_a_link_is_fresh_until_it_was_not_compared_for_a_while(server: RedisServer) -> None:
    clock = FakeClock()
    with linked(redis_of(server), clock=clock) as (link, reports):
        reports.wait_for("restored")
        assert link.fresh()
        clock.advance(3600)  # the process was stopped, or the machine suspended
        eventually(link.fresh)  # until the next poll
        assert link.view().state == "up"


def test_a_stopped_link_leaves_no_thread_and_no_connection(server: RedisServer) -> None:
    with linked(redis_of(server)) as (link, reports):
        reports.wait_for("restored")
        thread = link._thread
        assert thread is not None
        link.store.read(NAMES)
    eventually(lambda: not thread.alive())
    eventually(lambda: int(server.ask("INFO", "clients")["connected_clients"]) == 1)
    assert reports.heard.empty()


# -- when something happens to it -------------------------------------------------------------------


def test_a_server_that_is_killed_and_comes_back(server: RedisServer) -> None:
    with linked(redis_of(server)) as (link, reports):
        reports.wait_for("restored")
        server.stop()
        reports.wait_for("lost")
        view = link.view()
        assert (view.state, link.usable(), link.fresh()) == ("down", False, False)
        assert view.errors >= 1
        with pytest.raises(ShareUnavailable, match="127"):
            link.store.read(NAMES)
        server.start()
        assert set(reports.wait_for("restored")) <= {"lost"}
        assert link.store.read(NAMES).fence == NEVER
        view = link.view()
        assert view.state == "up"
        assert "connection" in view.error  # the last one stays


def test_a_server_that_is_not_there_at_the_start(server: RedisServer) -> None:
    server.stop()
    with linked(redis_of(server)) as (link, reports):
        reports.wait_for("lost")
        assert "connection refused" in link.view().error
        server.start()
        assert set(reports.wait_for("restored")) <= {"lost"}


def test_a_server_that_no_longer_answers(server: RedisServer) -> None:
    redis = Redis(server.url, timeout=SOON)
    with linked(redis) as (link, reports):
        reports.wait_for("restored")
        server.pause()
        reports.wait_for("lost")
        assert "timed out after 1 s" in link.view().error
        server.resume()
        reports.wait_for("restored")


def test_the_first_operation_that_fails_takes_the_link_down(server: RedisServer) -> None:
    with linked(redis_of(server)) as (link, reports):
        reports.wait_for("restored")
        server.ask("DEL", "bearerd:token:target")
        server.ask("SET", "bearerd:token:target", "of another program")
        with pytest.raises(ShareUnavailable, match="WRONGTYPE"):
            link.store.read(NAMES)
        reports.wait_for("lost")
        reports.wait_for("restored")


@NEEDS_REDIS
def test_a_server_that_is_full_until_it_has_room() -> None:
    with redis_server("maxmemory-policy noeviction") as server, linked(redis_of(server)) as (link, reports):
        reports.wait_for("restored")
        server.ask("CONFIG", "SET", "maxmemory", "1")
        reports.wait_for("lost")
        assert "the memory of the server is full (OOM)" in link.view().error
        server.ask("CONFIG", "SET", "maxmemory", "0")
        reports.wait_for("restored")


@NEEDS_REDIS
def test_a_permission_that_is_missing_is_noticed_before_a_script_has_done_half_of_its_work() -> None:
    with redis_server(acl=[f"user bearerd on >secret ~bearerd:* &bearerd:* {ACL}"]) as server:
        redis = Redis(server.url, username="bearerd", password=Reference("env", "PASSWORD"), timeout=SOON * 5)
        with linked(redis, {"PASSWORD": "secret"}) as (link, reports):
            reports.wait_for("restored")
            for command in sorted(set(ACL.split()) - {"-@all", "+auth", "+select", "+subscribe", "+eval"}):
                server.ask("ACL", "SETUSER", "bearerd", command.replace("+", "-"))
                reports.wait_for("lost")
                assert "the user may not do this at the server (NOPERM)" in link.view().error, command
                server.ask("ACL", "SETUSER", "bearerd", command)
                assert set(reports.wait_for("restored")) <= {"lost"}, command
            server.ask("ACL", "SETUSER", "bearerd", "resetchannels")
            reports.wait_for("lost")
            server.ask("ACL", "SETUSER", "bearerd", "&bearerd:*")
            reports.wait_for("restored")


@NEEDS_REDIS
def test_a_cluster_is_refused_before_the_link_is_up() -> None:
    with redis_server("cluster-enabled yes", f"cluster-port {free_port()}") as server:
        server.ask("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        eventually(lambda: re.search("cluster_state.*ok", str(server.ask("CLUSTER", "INFO"))))
        with linked(redis_of(server)) as (link, reports):
            assert reports.wait_for("lost") == []
            assert "clusters are not supported (CROSSSLOT)" in link.view().error


@NEEDS_REDIS
def test_a_password_that_is_corrected_is_read_again(tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("wrong\n")
    password.chmod(0o600)
    with redis_server(acl=[f"user bearerd on >right ~bearerd:* &bearerd:* {ACL}"]) as server:
        redis = Redis(server.url, username="bearerd", password=Reference("file", str(password)), timeout=SOON * 5)
        with linked(redis) as (link, reports):
            reports.wait_for("lost")
            assert "WRONGPASS" in link.view().error
            password.write_text("right\n")
            reports.wait_for("restored")


def test_a_lost_connection_for_announcements_is_opened_again(server: RedisServer) -> None:
    with linked(redis_of(server)) as (link, reports):
        reports.wait_for("restored")
        assert server.ask("CLIENT", "KILL", "TYPE", "pubsub") == 1
        reports.wait_for("lost")
        assert "the server closed the connection" in link.view().error
        reports.wait_for("restored")
        link.store.keep(NAMES, 1, 1.0)
        reports.wait_for({"target", "client"})


@NEEDS_REDIS
def test_a_replica_that_sentinel_promotes_is_found() -> None:
    with (
        redis_server() as old,
        redis_server(replica_of=old) as new,
        sentinel(old) as watcher,
        linked(Redis(watcher.url, timeout=SOON * 5)) as (link, reports),
    ):
        reports.wait_for("restored")
        link.store.store(NAMES, 5, b"sealed", 600.0)
        eventually(lambda: new.ask("EXISTS", "bearerd:token:target"))
        old.stop()
        reports.wait_for("lost")
        watcher.running.wait_for("+switch-master")
        reports.wait_for("restored")
        stored = link.store.read(NAMES)
        assert stored.fence == 5
        assert isinstance(link.store.claim(NAMES, Claim(have=5)), Granted)


@NEEDS_REDIS
def test_a_link_leaves_a_primary_that_was_demoted() -> None:
    with (
        redis_server() as old,
        redis_server(replica_of=old) as new,
        sentinel(old, down_after=600_000) as watcher,
        linked(Redis(watcher.url, timeout=SOON * 5)) as (link, reports),
    ):
        reports.wait_for("restored")
        eventually(lambda: _failed_over(watcher))
        watcher.running.wait_for("+switch-master")
        old.ask("REPLICAOF", "127.0.0.1", new.port)  # as the sentinel does a few seconds later
        reports.wait_for("lost")
        assert "READONLY" in link.view().error
        reports.wait_for("restored")
        eventually(lambda: _writes(link))
        assert new.ask("KEYS", "bearerd:lock:*") == ["bearerd:lock:target"]


def _failed_over(watcher: RedisServer) -> bool:
    """Whether the sentinel begins a failover; not before it knows the state of the replica."""
    with suppress(ResponseError):
        return bool(watcher.ask("SENTINEL", "FAILOVER", "bearerd"))
    return False


def _writes(link: RedisLink) -> bool:
    with suppress(ShareUnavailable):
        return isinstance(link.store.claim(NAMES, Claim(lease=600.0)), Granted | Busy)
    return False


@NEEDS_REDIS
def test_another_server_at_the_same_address(server: RedisServer) -> None:
    with linked(redis_of(server)) as (link, reports):
        reports.wait_for("restored")
        link.store.store(NAMES, 5, b"sealed", 600.0)
        server.stop()
        reports.wait_for("lost")
        with redis_server(port=server.port):
            reports.wait_for("restored")
            assert link.store.read(NAMES).fence == NEVER


def test_stop_does_not_wait_for_servers_that_do_not_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        redis = Redis(f"redis://127.0.0.1:{silent.getsockname()[1]}", timeout=60.0)
        links = [RedisLink(redis, {}, SystemClock(), dice, Reports()) for _ in range(20)]
        for link in links:
            link.start()
        connections = [silent.accept() for _ in links]  # they wait for an answer now
        began = time.monotonic()
        for link in links:
            link.stop()
        assert time.monotonic() - began < 10.0
        for connection, _ in connections:
            connection.close()
