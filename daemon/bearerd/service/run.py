"""The daemon: starts the engine, checks clocks and files every few seconds, reloads the config, ends on a signal.

Another process loads a new config while the tokens are kept fresh. A broken config changes nothing. Changes settle
first, because editing a file or switching a mount causes many events.
"""

from __future__ import annotations

import logging
import os
import queue
import signal
from collections.abc import Callable, Collection, Mapping
from copy import copy
from typing import Final

from bearerd import __version__
from bearerd.api.daemon import Requested
from bearerd.api.status import Status
from bearerd.child import reap
from bearerd.errors import BearerdError, ConfigError, ConfigUnavailable, DirectoryLocked, lack, unexpected
from bearerd.lifecycle.plan import needs_restart
from bearerd.lifecycle.schedule import CHECK_CLOCKS_EVERY
from bearerd.log import say
from bearerd.model import Config
from bearerd.plural import counted
from bearerd.process import keep_heap_small
from bearerd.secrets import command
from bearerd.service.engine import Engine
from bearerd.service.notify import SystemdNotifier
from bearerd.service.signals import ENDS, name_of, receive
from bearerd.service.sources import Sources
from bearerd.service.trust import writable_by_others
from bearerd.threads import start

# Seconds without an event after which changes have settled: an editor writes, syncs and renames within this.
_SETTLES: Final = 0.3
# Seconds after which changes are handled even if events continue.
_SETTLED_AT_LATEST: Final = 3.0

# Errors of a config that are logged: with hundreds of them, the first few show the cause.
_MOST_LOGGED: Final = 20

_CHANGED: Final = "changed"
_Loaded = Config | BearerdError
_Event = int | str | _Loaded


def run(config: Config, load: Callable[[Config], Config], environ: Mapping[str, str]) -> int:
    """Keep tokens fresh until TERM or INT. Raises DirectoryUnusable or DirectoryLocked before anything is changed.

    `load` returns the current config, with the objects of the one that it gets where they are equal, or raises
    ConfigError. It is called from a separate thread.
    """
    keep_heap_small()
    daemon = _Daemon(config, load, environ)
    daemon.start()
    try:
        return daemon.loop()
    finally:
        command.stop()


class _Daemon:
    def __init__(self, config: Config, load: Callable[[Config], Config], environ: Mapping[str, str]) -> None:
        self._config = config
        self._load_config = load
        self._environ = environ
        self._events: queue.SimpleQueue[_Event] = queue.SimpleQueue()
        self._engine = Engine(config, environ, lambda _: self._notify.wake())
        self._notify = SystemdNotifier(self, environ, self._now, config.startup_timeout)
        self._loading = False
        self._load_again = False
        self._try_again = False
        self._config_error: str | None = None
        self._config_do = ""
        self._zombies: frozenset[str] = frozenset()
        self._warned_of: set[str] = set()
        self._ignored: set[int] = set()

    def alive(self) -> bool:
        """Whether the schedule runs."""
        return self._engine.alive()

    def config_error(self) -> str | None:
        """Why a newer config is not in use."""
        return self._config_error

    def status(self) -> Status:
        """The status of every token."""
        return self._engine.status(self._config_error, self._config_do)

    def refresh(self, name: str, instead_of: str | None) -> Requested:
        """Request a new token."""
        return self._engine.refresh(name, instead_of)

    def unsettled(self) -> bool:
        """Whether a required token is still being obtained."""
        return self._engine.unsettled()

    def start(self) -> None:
        """Lock the directory and start."""
        receive(self._events.put, others=self._events.put)
        self._sources = Sources(self._config, self._environ)
        self._engine.start()
        self._warn_of_writers()
        count = len(self._config.targets)
        say(
            logging.INFO,
            f"bearerd {__version__} keeps {counted(count, 'token')} in {self._config.directory}",
            pid=os.getpid(),
        )
        # Imported after the first turns have started, because it takes a while.
        from bearerd.api.server import Server  # noqa: PLC0415
        from bearerd.service.watch import Watch  # noqa: PLC0415

        self._api = Server(self, self._config)
        self._api.tick()
        # After the server: a daemon is ready when its socket answers.
        self._notify.start()
        self._watch = Watch(lambda: self._events.put(_CHANGED))
        self._watch_over()

    def loop(self) -> int:
        """Handle events until a signal ends it. Returns the exit code."""
        look_at = self._now() + CHECK_CLOCKS_EVERY
        while True:
            # By the clock, because events may never pause for this long.
            if self._now() >= look_at:
                look_at = self._now() + CHECK_CLOCKS_EVERY
                try:
                    if not self._look():
                        return 1
                except MemoryError as error:
                    say(logging.ERROR, unexpected(error))
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
                command.stop()  # first: the turns that wait for one then end
                self._engine.stop()
                return 0
            elif event == _CHANGED:
                sources = self._sources
                try:
                    self._sources = copy(sources)
                    self._settle()
                except MemoryError as error:
                    self._sources = sources  # what it noted of the files may not have been told to anybody
                    say(logging.ERROR, unexpected(error))
                    self._events.put(_CHANGED)
            elif isinstance(event, Config | BearerdError):
                self._follow(event)

    def _look(self) -> bool:
        """Check everything that is checked every few seconds. Returns whether the daemon can continue."""
        try:
            self._engine.tick()
        except DirectoryLocked as error:
            say(logging.ERROR, f"{error}; exiting")
            return False
        self._watch.poll()
        self._api.tick()
        if self._try_again:
            self._load()
        if os.getpid() == 1:  # of a container, without an init
            self._zombies = reap(self._zombies)
        if not self._engine.alive():
            say(logging.ERROR, "the schedule has stopped: this is a bug in bearerd, please report it; exiting")
            return False
        return True

    def _warn_of_writers(self) -> None:
        """Warn once about each file of the config that others can write."""
        found = writable_by_others((*self._config.sources, *self._config.source_directories))
        for path in found.keys() - self._warned_of:
            say(logging.WARNING, f"config {path}: {found[path]}")
        self._warned_of = set(found)

    def _ignore(self, number: int) -> None:
        if number not in self._ignored:  # once: a timer may send it every night
            self._ignored.add(number)
            say(logging.INFO, f"{name_of(number)} is ignored; SIGHUP reloads the config")

    def _now(self) -> float:
        return self._engine.clock.now().boot

    def _watch_over(self) -> None:
        self._watch.follow(self._sources.paths())
        # Changes between reading these files and watching them caused no event.
        self._events.put(_CHANGED)

    def _settle(self) -> None:
        """Wait until the files settle, then handle what changed."""
        end = self._now() + _SETTLED_AT_LATEST
        while self._now() < end:
            try:
                event = self._events.get(timeout=_SETTLES)
            except queue.Empty:
                break
            if event != _CHANGED:
                self._events.put(event)
                break  # a signal does not wait
        # Before the check, so that a later change is another event.
        self._watch.renew()
        clients = self._sources.clients_changed()
        if clients:
            say(logging.INFO, f"credentials for {_named(clients)} changed (content, owner or mode)")
        trusting = self._sources.authorities_changed()
        if trusting:
            say(logging.INFO, f"ca_file of {_named(trusting)} changed")
        if clients or trusting:
            self._engine.secrets_changed(clients | trusting)
        sealing = self._sources.keys_changed()
        if sealing:
            say(logging.INFO, f"share.key of {_named(sealing)} changed")
            self._engine.keys_changed(sealing)
        tokens = self._sources.templates_changed()
        if tokens:
            say(logging.INFO, f"a template of {counted(len(tokens), 'token')} changed")
            self._engine.rewrite(tokens)
        # Called even with `reload: signal`, to note the current files.
        if self._sources.config_changed() and self._config.reload == "watch":
            self._load()

    def _load(self) -> None:
        """Load the config in the background. Requests during a load cause one more load."""
        if self._loading:
            self._load_again = True
            return
        self._loading, self._try_again = True, False
        try:
            self._notify.reloading()
            # A change from here on may be missing from what is loaded, and counts as another change.
            self._sources.config_changed()
            start("config", self._read_config)
        except (RuntimeError, MemoryError) as error:
            self._events.put(ConfigUnavailable(f"the config was not read: {lack(error) or error}"))

    def _read_config(self) -> None:
        loaded: _Loaded
        try:
            loaded = self._load_config(self._config)
        except BearerdError as error:
            loaded = error
        except Exception as error:  # noqa: BLE001 - without an answer no config would ever be loaded again
            loaded = ConfigUnavailable(f"the config was not read: {unexpected(error)}")
        self._events.put(loaded)

    def _follow(self, loaded: _Loaded) -> None:
        self._loading = False
        # A new file may have been saved again after it was read. Looking at it starts with the next load.
        unsure = self._sources.add(_files(loaded))
        if unsure or self._load_again:  # the config changed again meanwhile
            self._load_again = False
            self._load()
            return
        self._take(loaded)
        self._notify.reloaded()

    def _take(self, loaded: _Loaded) -> None:
        if isinstance(loaded, ConfigError):
            shows = f"bearerd check -c {self._config.sources[0]} shows more" if self._config.sources else ""
            load = "it is loaded at once" if self._config.reload == "watch" else "reload bearerd"
            do = "; ".join(filter(None, (f"correct it, and {load}", shows)))
            self._refuse(str(loaded), f"the new config has {_errors(loaded)}", do, f"; {shows}" if shows else "")
            self._watch_over()  # the error may be corrected in a file that is new
            return
        if isinstance(loaded, BearerdError):
            # The config could not be read, which may be temporary.
            self._try_again = True
            retried = f"retrying every {CHECK_CLOCKS_EVERY:.0f} s"
            failed, _, advice = str(loaded).partition("; ")
            self._refuse(failed, f"{loaded}; {retried}", f"{advice}; {retried}" if advice else f"wait: {retried}")
            return
        fixed = needs_restart(self._config, loaded)
        if fixed:
            do = "restart bearerd, which continues with its valid tokens"
            self._refuse(why := f"a changed {' and '.join(fixed)} needs a restart", why, do)
            return
        was, self._config, self._config_error = self._config, loaded, None
        self._engine.counters.event("reloads", "success")
        # Before a grant uses a new secret: a later change of it has to count as one.
        self._sources.take(loaded)
        changes = self._engine.apply(loaded)
        self._api.adopt(loaded)
        self._warn_of_writers()
        self._watch_over()
        if loaded.log != was.log:
            from bearerd.service.logs import set_up  # noqa: PLC0415 - the same as at the start

            set_up(loaded.log, os.environ)
        say(logging.INFO, f"config reloaded: {changes}")

    def _refuse(self, error: str, why: str, do: str, cure: str = "") -> None:
        """Keep the current config. `error` and `do` are for the status; `why` and `cure` are logged once per error."""
        known, self._config_error, self._config_do = self._config_error == error, error, do
        self._engine.counters.event("reloads", "failure")
        if not (known and self._try_again):
            say(logging.ERROR, f"{why}; the current config stays in use{cure}")


def _named(clients: Collection[str]) -> str:
    """`client a`, `clients a, b`."""
    return f"client{'s' if len(clients) > 1 else ''} {', '.join(sorted(clients))}"


def _files(loaded: _Loaded) -> tuple[str, ...]:
    """The files that were read, and the directories in which more may appear."""
    if isinstance(loaded, Config):
        return (*loaded.sources, *loaded.source_directories)
    return loaded.files if isinstance(loaded, ConfigError) else ()


def _errors(error: ConfigError) -> str:
    """`2 errors: config.yaml:3:5: unknown key; …`, at most `_MOST_LOGGED` of them."""
    problems = error.problems
    count = counted(len(problems), "error")
    rest = [f"and {len(problems) - _MOST_LOGGED} more"] if len(problems) > _MOST_LOGGED else []
    return f"{count}: " + "; ".join([*(problem.brief for problem in problems[:_MOST_LOGGED]), *rest])
