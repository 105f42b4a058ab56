"""The daemon: starts the engine, sleeps, looks at the clocks every few seconds, ends on a signal."""

from __future__ import annotations

import logging
import os
import queue
import signal
from collections.abc import Mapping

from bearerd import __version__
from bearerd.lifecycle.schedule import GUARD
from bearerd.log import say
from bearerd.model import Config
from bearerd.service.engine import Engine


def run(config: Config, environ: Mapping[str, str]) -> int:
    """Keep tokens until TERM or INT; raises DirectoryUnusable or DirectoryLocked before anything is done."""
    # Handlers only enqueue: what they interrupt may hold any lock.
    signals: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _frame: signals.put(received))
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    engine = Engine(config, environ)
    engine.start()
    say(
        logging.INFO,
        f"bearerd {__version__} keeps {len(config.targets)} "
        f"token{'' if len(config.targets) == 1 else 's'} in {config.directory}",
        pid=os.getpid(),
    )
    while True:
        try:
            received = signals.get(timeout=GUARD)
        except queue.Empty:
            engine.tick()
            continue
        break
    say(logging.INFO, f"{signal.Signals(received).name}: stopping; the token files stay")
    engine.stop()
    return 0
