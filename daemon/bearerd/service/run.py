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
from bearerd.service.signals import receive


def run(config: Config, environ: Mapping[str, str]) -> int:
    """Keep tokens until TERM or INT; raises DirectoryUnusable or DirectoryLocked before anything is done."""
    signals: queue.SimpleQueue[int] = queue.SimpleQueue()
    receive(signals.put)
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
            if not engine.alive():
                say(logging.ERROR, "the schedule has died, which is a bug of bearerd; ending, to be started again")
                return 1
            continue
        break
    say(logging.INFO, f"{signal.Signals(received).name}: stopping; the token files stay")
    engine.stop()
    return 0
