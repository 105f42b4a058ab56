"""The daemon: starts the engine, sleeps, looks at the clocks every few seconds, ends on a signal.

A new config is loaded by a process of its own while everything goes on; then it is followed. A broken one
changes nothing. Changes are let settle first: who edits a file or swaps a mount makes many events.
"""

from __future__ import annotations

import logging
import os
import queue
import signal
import threading
from collections.abc import Callable, Mapping
from typing import Final

from bearerd import __version__
from bearerd.api.daemon import Requested
from bearerd.api.status import Status
from bearerd.child import reap
from bearerd.errors import BearerdError, ConfigError, ConfigUnavailable, DirectoryLocked, origin_of
from bearerd.lifecycle.plan import needs_restart
from bearerd.lifecycle.schedule import CHECK_CLOCKS_EVERY
from bearerd.log import say
from bearerd.model import Config
from bearerd.service.engine import Engine
from bearerd.service.notify import Notify
from bearerd.service.signals import ENDS, name_of, receive
from bearerd.service.sources import Sources
from bearerd.service.trust import writable_by_others

# An editor writes, syncs and renames within this; a reader of its work waits no longer than it must.
_SETTLES: Final = 0.3
# While somebody writes on and on, look all the same.
_SETTLED_AT_LATEST: Final = 3.0

# Of a config with hundreds of errors the first few say what is wrong.
_MOST_LOGGED: Final = 20

_CHANGED: Final = "changed"
_Loaded = Config | BearerdError
_Event = int | str | _Loaded


def run(config: Config, load: Callable[[], Config], environ: Mapping[str, str]) -> int:
    """Keep tokens until TERM or INT; raises DirectoryUnusable or DirectoryLocked before anything is done.

    `load` gives the config as it is then, or raises ConfigError; it is called from a thread of its own.
    """
    daemon = _Daemon(config, load, environ)
    daemon.start()
    return daemon.loop()


class _Daemon:
    def __init__(self, config: Config, load: Callable[[], Config], environ: Mapping[str, str]) -> None:
        self._config = config
        self._load_config = load
        self._environ = environ
        self._events: queue.SimpleQueue[_Event] = queue.SimpleQueue()
        self._engine = Engine(config, environ, lambda _: self._notify.wake())
        self._notify = Notify(self, environ, self._now, config.startup_timeout)
        self._loading = False
        self._load_again = False
        self._try_again = False
        self._config_error: str | None = None
        self._zombies: frozenset[str] = frozenset()
        self._warned_of: set[str] = set()
        self._ignored: set[int] = set()

    def alive(self) -> bool:
        """Whether the schedule runs."""
        return self._engine.alive()

    def config_error(self) -> str | None:
        """Why a newer config is not followed."""
        return self._config_error

    def status(self) -> Status:
        """How everything stands."""
        return self._engine.status(self._config_error)

    def refresh(self, name: str, instead_of: str | None) -> Requested:
        """Somebody wants a new token."""
        return self._engine.refresh(name, instead_of)

    def unsettled(self) -> bool:
        """Whether a required token is still on its way."""
        return self._engine.unsettled()

    def start(self) -> None:
        """Take the directory, and begin."""
        receive(self._events.put, others=self._events.put)
        self._sources = Sources(self._config, self._environ)
        self._engine.start()
        self._warn_of_writers()
        count = len(self._config.targets)
        say(
            logging.INFO,
            f"bearerd {__version__} keeps {count} token{'' if count == 1 else 's'} in {self._config.directory}",
            pid=os.getpid(),
        )
        # After the first turns have begun: these take a while to be there.
        from bearerd.api.server import Server  # noqa: PLC0415
        from bearerd.service.watch import Watch  # noqa: PLC0415

        self._api = Server(self, self._config)
        self._api.tick()
        # Ready is who can be asked, too.
        self._notify.start()
        self._watch = Watch(lambda: self._events.put(_CHANGED))
        self._watch_over()

    def loop(self) -> int:
        """Until a signal ends it; returns the exit code."""
        look_at = self._now() + CHECK_CLOCKS_EVERY
        while True:
            # By the clock, not after so long a silence: where somebody writes on and on there is none.
            if self._now() >= look_at:
                look_at = self._now() + CHECK_CLOCKS_EVERY
                if not self._look():
                    return 1
            try:
                event = self._events.get(timeout=max(0.0, look_at - self._now()))
            except queue.Empty:
                continue
            if event == signal.SIGHUP:
                self._load()
            elif isinstance(event, int) and event not in ENDS:
                self._ignore(event)
            elif isinstance(event, int):
                say(logging.INFO, f"{signal.Signals(event).name}: stopping; the token files stay")
                self._notify.stopping()
                self._watch.stop()
                self._api.stop()
                self._engine.stop()
                return 0
            elif event == _CHANGED:
                self._settle()
            elif isinstance(event, Config | BearerdError):
                self._follow(event)

    def _look(self) -> bool:
        """What is done every few seconds; whether the daemon can go on."""
        try:
            self._engine.tick()
        except DirectoryLocked as error:
            say(logging.ERROR, f"{error}; ending")
            return False
        self._watch.poll()
        self._api.tick()
        if self._try_again:
            self._load()
        if os.getpid() == 1:  # of a container, without an init
            self._zombies = reap(self._zombies)
        if not self._engine.alive():
            say(logging.ERROR, "the schedule has died, which is a bug of bearerd; ending, to be started again")
            return False
        return True

    def _warn_of_writers(self) -> None:
        """Once for each file of the config that others can write."""
        found = writable_by_others((*self._config.sources, *self._config.source_directories))
        for path in found.keys() - self._warned_of:
            say(logging.WARNING, f"config {path}: {found[path]}")
        self._warned_of = set(found)

    def _ignore(self, number: int) -> None:
        if number not in self._ignored:  # once: a timer may send it every night
            self._ignored.add(number)
            say(logging.INFO, f"{name_of(number)} has no meaning here and is ignored; SIGHUP reloads the config")

    def _now(self) -> float:
        return self._engine.clock.now().boot

    def _watch_over(self) -> None:
        self._watch.follow(self._sources.paths())
        # What came between the first look at these files and this is no event.
        self._events.put(_CHANGED)

    def _settle(self) -> None:
        """Wait until the files are left alone, then see what is another."""
        kept: list[_Event] = []
        end = self._now() + _SETTLED_AT_LATEST
        while self._now() < end:
            try:
                event = self._events.get(timeout=_SETTLES)
            except queue.Empty:
                break
            if event != _CHANGED:
                kept.append(event)
                break  # a signal is not kept waiting
        # Before the look: what changes after it is an event again.
        self._watch.renew()
        clients = self._sources.clients_changed()
        if clients:
            say(logging.INFO, f"credentials for {', '.join(sorted(clients))} changed")
            self._engine.secrets_changed(clients)
        tokens = self._sources.templates_changed()
        if tokens:
            say(logging.INFO, f"a template of {len(tokens)} token{'' if len(tokens) == 1 else 's'} changed")
            self._engine.rewrite(tokens)
        # Also where only HUP is heard: else the files that are new there would never be known.
        if self._sources.config_changed() and self._config.reload == "watch":
            self._load()
        for event in kept:
            self._events.put(event)

    def _load(self) -> None:
        """Load the config anew, beside everything; of a storm of wishes the last is enough."""
        if self._loading:
            self._load_again = True
            return
        self._loading, self._try_again = True, False
        self._notify.reloading()
        # What is written from here on may not be in what is loaded: it is a change after this look.
        self._sources.config_changed()
        try:
            threading.Thread(target=self._read_config, name="config", daemon=True).start()
        except RuntimeError:
            self._events.put(ConfigUnavailable("the config was not read: no thread can be started; raise TasksMax"))

    def _read_config(self) -> None:
        loaded: _Loaded
        try:
            loaded = self._load_config()
        except BearerdError as error:
            loaded = error
        except Exception as error:  # noqa: BLE001 - without an answer no config would ever be read again
            loaded = ConfigUnavailable(f"the config was not read: {origin_of(error)}; this is a bug of bearerd")
        self._events.put(loaded)

    def _follow(self, loaded: _Loaded) -> None:
        self._loading = False
        if self._load_again:  # what was loaded is not the last that was written
            self._load_again = False
            self._load()
            return
        self._take(loaded)
        self._notify.reloaded()

    def _take(self, loaded: _Loaded) -> None:
        if isinstance(loaded, ConfigError):
            shows = f"; bearerd check -c {self._config.sources[0]} shows more" if self._config.sources else ""
            self._refuse(str(loaded), f"the new config has {_errors(loaded)}", shows)
            return
        if isinstance(loaded, BearerdError):
            # Nothing is known of the config: what keeps it from being read may pass.
            self._try_again = True
            self._refuse(str(loaded), f"{loaded}; trying again every {CHECK_CLOCKS_EVERY:.0f} s")
            return
        fixed = needs_restart(self._config, loaded)
        if fixed:
            self._refuse(why := f"a changed {' and '.join(fixed)} needs a restart", why)
            return
        was, self._config, self._config_error = self._config, loaded, None
        self._engine.counters.event("reloads", "success")
        changes = self._engine.apply(loaded)
        self._sources.take(loaded)
        self._warn_of_writers()
        self._watch_over()
        if loaded.log != was.log:
            from bearerd.service.logs import set_up  # noqa: PLC0415 - the same as at the start

            set_up(loaded.log, os.environ)
        say(logging.INFO, f"config reloaded: {changes}")

    def _refuse(self, error: str, why: str, cure: str = "") -> None:
        """Keep the current config; `error` is for the status, `why` and `cure` for the log, once for the same error."""
        known, self._config_error = self._config_error == error, error
        self._engine.counters.event("reloads", "failure")
        if not (known and self._try_again):
            say(logging.ERROR, f"{why}; the current config stays in use{cure}")


def _errors(error: ConfigError) -> str:
    """`2 errors: config.yaml:3:5: unknown key; …`, and no more of them than are read."""
    problems = error.problems
    count = f"{len(problems)} error{'' if len(problems) == 1 else 's'}"
    rest = [f"and {len(problems) - _MOST_LOGGED} more"] if len(problems) > _MOST_LOGGED else []
    return f"{count}: " + "; ".join([*(problem.brief for problem in problems[:_MOST_LOGGED]), *rest])
