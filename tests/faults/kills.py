"""kill -9 at each system call of a refresh: of `once`, of the daemon, and of the process that reads the config."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from queue import Empty, SimpleQueue
from subprocess import TimeoutExpired
from typing import Final, TypeVar

from bearerd.cli.ask import NoAnswer
from faults.injector import CHANGES, KILLED, Call, Injector, check_injector
from faults.judge import Row, followed, tried
from faults.place import Place, Rig, place, started
from support.process import eventually

AT_ONCE: Final = 2
"""Runs at the same time: as many as CI has processors."""
_TOKENS: Final = "/tokens"
"""A text that only the paths of the output directory contain, in each place."""
_CHANGING, _OTHERS = 16, 8
"""About so many calls of each series in the short form: those that change files, and others."""
_QUIET: Final = 0.3
"""Seconds without a call after which a refresh is over. The hook, which ends it, takes 10 ms."""
_ENDLESS: Final = {"epoll_wait", "exit", "futex", "poll", "ppoll"}
"""Calls that the threads of an idle daemon are in, which may not end before it stops; and that of a thread's end."""
_T = TypeVar("_T")


@dataclass(frozen=True)
class Kill:
    """One kill: before or after a call, by its number among those that the injector counts with these options."""

    options: tuple[str, ...]
    number: int
    action: str


class Bench:
    """A place with its injector, for one run at a time, and the names that are there after a run without a fault."""

    def __init__(self, here: Place, injector: Injector) -> None:
        self.here, self.injector = here, injector
        self.known = here.baseline()


def once(rig: Rig, path: Path, *, first: bool, env: Mapping[str, str] | None = None, only: Sequence[Kill] = ()) -> Row:
    """`once`, from the first look at its directory to its end. `env` makes it another program; `only`: these kills."""
    name = f"kill -9 at each call of `once`: {'a first token' if first else 'a renewal'}"
    row = Row(name, silent=env is not None)

    def one(bench: Bench, kill: Kill) -> None:
        here = bench.here
        if first:
            here.clear()
        elif not here.fresh():  # where the program is a wrong one
            here.once()
        done = here.once(*bench.injector.argv(kill.action, *kill.options, number=kill.number), env=env)
        check_injector(done.returncode, done.stderr)
        for hit in bench.injector.calls()[:1]:  # a run may have some calls fewer than the first one
            where = f"killed {kill.action} {hit}"
            # The run may end within a call, as within the exit of a thread: then there is no moment after it.
            endless = kill.action == "after" and done.returncode == 0 and here.fresh()
            row.expect(done.returncode == KILLED or endless, f"{where}: exit {done.returncode}")
            row.output(done.stderr, where)
            here.look(row, where, must_be=not first)
            here.mended(row, where, bench.known, env)

    with benches(rig, path, 1 if only else AT_ONCE) as workers:
        if only:
            spread(workers, only, one, row)
            return row
        here, injector = workers[0].here, workers[0].injector
        if first:
            here.clear()
        done = here.once(*injector.argv("list", "-m", _TOKENS))
        assert done.returncode == 0, done.stderr
        kills = chosen(injector.calls(), ("-m", _TOKENS), short=rig.short)
        spread(workers, kills, one, row, read=not first)
    return row


def daemon(rig: Rig, path: Path) -> Row:
    """`run`, from the moment at which it is asked for a new token until it is idle again."""
    row = Row("kill -9 at each call of `run`: a refresh")

    def one(bench: Bench, kill: Kill) -> None:
        here = bench.here
        here.clear()
        if hit := _refreshed(bench, row, kill):
            where = f"killed {kill.action} {hit}"
            here.look(row, where, must_be=True)
            here.mended(row, where, bench.known)

    with benches(rig, path) as workers:
        for bench in workers:
            bench.known |= {".bearerd/control.sock"}  # the next daemon replaces it; `once` does not
        _refreshed(workers[0], row, Kill(("-s",), 1, "list"))
        spread(workers, chosen(workers[0].injector.calls(), ("-s",), short=rig.short), one, row)
    return row


def _refreshed(bench: Bench, row: Row, kill: Kill) -> Call | None:
    """Run the daemon under the injector, and request a new token; returns the call at which it was killed."""
    here, injector = bench.here, bench.injector
    argv = injector.argv(kill.action, *kill.options, number=kill.number)
    with started(here, row, argv, codes=(0, KILLED) if kill.action == "after" else (0,)) as running:
        grants = here.provider.grants
        running.process.send_signal(signal.SIGUSR1)
        with suppress(NoAnswer):  # it may be killed before it answers
            here.refresh()
        eventually(lambda: running.process.poll() is not None or (here.provider.grants > grants and here.fresh()))
        sizes, pause = [-1, 0], threading.Event()
        while running.process.poll() is None and sizes[-1] != sizes[-2]:
            pause.wait(_QUIET)
            sizes.append(len(injector.calls()))
        running.process.send_signal(signal.SIGUSR1)  # the calls of its stop do not count
        if kill.action == "list" or not (hits := injector.calls()):
            return None
        try:
            code = running.process.wait(60.0)
        except TimeoutExpired:
            row.expect(kill.action == "after" and hits[0].name in _ENDLESS, f"not killed {kill.action} {hits[0]}")
            return None
        row.expect(code == KILLED, f"killed {kill.action} {hits[0]}: exit {code}")
        return hits[0]


def config_reader(rig: Rig, path: Path) -> Row:
    """The process that reads the config is killed at each of its calls on it, at a reload; the daemon goes on."""
    row = Row("kill -9 of the process that reads the config")
    with benches(rig, path, count=1) as [bench]:
        here, injector = bench.here, bench.injector
        for number in count(1):
            argv = injector.argv("before", "-s", "-f", "-p", str(here.config), number=number)
            with started(here, row, argv) as running, followed(row, here.provider, here.files, row.fault):
                running.process.send_signal(signal.SIGUSR1)
                running.process.send_signal(signal.SIGHUP)
                loaded = running.wait_for(" config ")  # reloaded, or "stays in use"
                if not injector.calls():
                    break
                where = f"killed before {injector.calls()[0]}"
                row.expect("stays in use" in loaded and "retrying" in loaded, f"{where}: {loaded}")
                running.wait_for("config reloaded")
                row.ran()
                row.expect(here.config_error() is None, f"{where}: {here.config_error()}")
    return row


@contextmanager
def benches(rig: Rig, path: Path, count: int = AT_ONCE) -> Iterator[list[Bench]]:
    """Places that are used at the same time."""
    if count == 0:
        yield []
        return
    with place(path / str(count)) as here, benches(rig, path, count - 1) as others:
        yield [*others, Bench(here, Injector(rig.injector, here.path))]


def spread(
    workers: list[Bench], items: Iterable[_T], one: Callable[[Bench, _T], None], row: Row, *, read: bool = False
) -> None:
    """Do each of these once, at the same time in all places; `read`: readers follow the files meanwhile."""
    todo: SimpleQueue[_T] = SimpleQueue()
    for item in items:
        todo.put(item)

    def work(bench: Bench) -> None:
        files = bench.here.files if read else ()
        with followed(row, bench.here.provider, files, row.fault), suppress(Empty):
            while True:
                item = todo.get_nowait()
                with tried(row):
                    one(bench, item)

    with ThreadPoolExecutor(len(workers)) as pool:
        list(pool.map(work, workers))


def chosen(calls: list[Call], base: tuple[str, ...], *, short: bool) -> list[Kill]:
    """The kills: at all calls, and again at those that change a file; or at some of both.

    The threads of a run take turns differently each time, so the number of a call is not always the same. Those that
    change a file are counted apart: their order is always the same.
    """
    changing = [*filter(_changes, calls)]
    others = [call for call in calls if not short or not _changes(call)]
    changes = [
        Kill((*base, "-c", CHANGES, "-p", _TOKENS), number, _action(number)) for number in range(1, len(changing) + 1)
    ]
    moments = [Kill(base, call.number, _action(call.number)) for call in others]
    if not short:
        return [*moments, *changes]
    return [*changes[:: max(1, len(changes) // _CHANGING)], *moments[:: max(1, len(moments) // _OTHERS)]]


def _changes(call: Call) -> bool:
    return call.name in CHANGES.split(",") and _TOKENS in call.path


def _action(number: int) -> str:
    """Before one call, after the next: each moment between two calls is met, and the end of a call, too."""
    return "before" if number % 2 else "after"
