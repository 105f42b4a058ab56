"""One daemon of a fleet. It can be stopped: then nothing of it runs, but what it sent is on its way."""

from __future__ import annotations

import threading
from collections.abc import Callable
from math import inf
from typing import Any

from bearerd.grant.outcome import NoReply
from bearerd.grant.reply import Reply
from bearerd.grant.request import Request
from bearerd.model import Target
from bearerd.share.parts import Link, Listener
from bearerd.share.server import Connect
from simulation.daemon import AT_ONCE, Daemon, Network
from simulation.server import AuthorizationServer

_running = threading.local()


def running() -> FleetDaemon | None:
    """The daemon whose code this thread runs."""
    found: FleetDaemon | None = getattr(_running, "daemon", None)
    return found


class _Network(Network):
    """A request that is sent arrives, whatever becomes of the daemon; its reply waits for a daemon that is stopped."""

    def send(self, request: Request) -> Reply | NoReply:
        """One request; takes its time."""
        daemon, server, kernel = self._daemon, self._server, self._daemon.kernel
        assert isinstance(daemon, FleetDaemon)
        sent, name = kernel.now, server.server.name
        if server.refuses_connection(request, sent):
            kernel.sleep(AT_ONCE, daemon)
            return NoReply("connect", "connection refused")
        answers: list[tuple[float, Reply | NoReply]] = []
        there = min(server.latency(), server.server.timeout)
        kernel.at(sent + there, lambda: answers.append(server.answer(request, sent, kernel.now, daemon.number)))
        daemon.in_flight[name] = daemon.in_flight.get(name, 0) + 1
        try:
            kernel.sleep(there, daemon)
            wait, reply = answers[0]
            kernel.sleep(max(0.0, sent + there + wait - kernel.now), daemon)
        finally:
            daemon.in_flight[name] -= 1
        if daemon.slept_since(sent):
            return NoReply("read", "the connection was reset")
        return reply


class FleetDaemon(Daemon):
    """As a daemon that shares with nobody, with a link to the store of its fleet."""

    number = 0
    """Of its host."""
    stopped_until = -inf
    """Until when its process is stopped."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.touched: Callable[[], None] = lambda: None
        self.connect: Callable[[Listener], Link]

    def _connector(self) -> Connect:
        return lambda _redis, listener: self.connect(listener)

    def network(self, server: AuthorizationServer) -> Network:
        """The way to a provider."""
        return _Network(self, server)

    def within(self, event: Callable[[], None]) -> Callable[[], None]:
        """The event, known as one of this daemon."""

        def as_this_daemon() -> None:
            before, _running.daemon = running(), self
            try:
                event()
            finally:
                _running.daemon = before
                self.touched()

        return as_this_daemon

    def stop_process(self, until: float) -> None:
        """SIGSTOP, and SIGCONT at that moment."""
        self.stopped_until = max(self.stopped_until, until)
        self.kernel.postpone(self, until)
        self.turns.deafen(until)

    def passed_over(self, target: Target) -> list[str]:  # noqa: ARG002 - as Daemon's
        """None: between admission and the request lies the claim, and meanwhile others come that are more urgent."""
        return []

    def _turn(self, name: str) -> float:
        before, _running.daemon = running(), self
        try:
            return super()._turn(name)
        finally:
            _running.daemon = before
            self.touched()

    def _look(self) -> None:
        if self.kernel.now < self.stopped_until:
            self.look_at(self.stopped_until)
        elif self.alive_:
            self.within(self.tick)()
