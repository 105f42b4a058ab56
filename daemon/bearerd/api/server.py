"""Keeps the listening sockets of the local API open."""

from __future__ import annotations

import logging

from bearerd.api.connections import Connections
from bearerd.api.daemon import Daemon
from bearerd.api.host import canonical
from bearerd.api.limits import Limits
from bearerd.api.routes import Access
from bearerd.api.sockets import Endpoint, TcpEndpoint, UnixEndpoint
from bearerd.errors import PublishError, unexpected
from bearerd.log import say
from bearerd.model import Config
from bearerd.publish.advice import advice
from bearerd.threads import Started, begin


class Server:
    """The control socket and `listen`."""

    def __init__(self, daemon: Daemon, config: Config) -> None:
        self._listeners: list[Listener] = []
        self._control: UnixEndpoint | None = None
        if config.control is not None:
            self._control = UnixEndpoint(config.control.socket, config.control.mode, config.group)
            self._listeners.append(Listener(self._control, daemon, Access(everything=True)))
        if config.listen is not None:
            hosts = frozenset(canonical(name) for name in config.listen.hosts)
            access = Access(page=config.listen.page, hosts=hosts)
            self._listeners.append(Listener(TcpEndpoint(config.listen), daemon, access))

    def tick(self) -> None:
        """Open sockets that are not open: at the start, after a failure, or when the socket's file was removed."""
        for listener in self._listeners:
            listener.tick()

    def adopt(self, config: Config) -> None:
        """Apply a changed config: the group of the control socket. Its other keys need a restart (lifecycle/plan)."""
        if self._control is not None:
            self._control.group = config.group
        self.tick()

    def stop(self) -> None:
        """Stop accepting. Replies in progress continue until the process ends."""
        for listener in self._listeners:
            listener.stop()


class Listener:
    """One endpoint, opened by `tick` and served by a dedicated thread."""

    def __init__(self, endpoint: Endpoint, daemon: Daemon, access: Access) -> None:
        self._endpoint = endpoint
        self._daemon = daemon
        self._access = access
        self._connections: Connections | None = None
        self._thread: Started | None = None
        self._fault = ""

    def tick(self) -> None:
        """Open the endpoint unless it is served and clients find it."""
        served = self._thread is not None and self._thread.alive()
        if not served or not self._endpoint.intact():
            self._close()
            self._open()

    def stop(self) -> None:
        """Stop accepting, and remove the socket's file."""
        if self._connections is not None:
            self._close()
            self._endpoint.remove()

    def _open(self) -> None:
        try:
            listening = self._endpoint.open()
            try:
                connections = Connections(listening, self._daemon, self._access, Limits.of_this_process())
                thread = begin("api", self._serve, connections)
            except RuntimeError as error:
                listening.close()
                self._endpoint.remove()
                raise PublishError(str(error)) from None
        except (OSError, PublishError) as error:
            fault = advice(error) if isinstance(error, OSError) else str(error)
            if fault != self._fault:
                self._fault = fault
                say(
                    logging.ERROR,
                    f"cannot listen at {self._endpoint.name}: {fault}; retrying; tokens are still refreshed",
                )
            return
        self._connections, self._thread = connections, thread
        say(logging.INFO if self._fault else logging.DEBUG, f"listening at {self._endpoint.name}")
        self._fault = ""

    def _serve(self, connections: Connections) -> None:
        try:
            connections.run()
        except Exception as error:  # noqa: BLE001 - the next tick listens again
            fault = f"no longer listening at {self._endpoint.name}: {unexpected(error)}"
            say(logging.ERROR, f"{fault}; retrying; tokens are still refreshed")

    def _close(self) -> None:
        if self._connections is not None:
            self._connections.stop()
            self._connections = None
