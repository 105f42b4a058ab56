"""What happens to the daemon while its files are read: kills in the middle of refreshes, signals, and new configs."""

from __future__ import annotations

import copy
import random
import signal
import threading
from pathlib import Path

from reads.site import LONG, SHORT, Site
from support.minted import wait_until_good_for
from support.process import eventually

_MOST_BEFORE_KILL = 0.4
"""Seconds. Within this the daemon replaces all files, so a kill at a random moment often hits the middle of that."""


def storm(here: Site, kills: int, dice: random.Random) -> None:
    """Kill the daemon so many times, then send signals and change its config. Lifetimes are long meanwhile."""
    here.provider.set_lifetimes(*LONG)
    # A little less than half of it: a refresh may be under way.
    wait_until_good_for(LONG[0] / 2 - 5, [Path(file.removeprefix("raw:")) for file in here.files["raw"]])
    for _ in range(kills):
        here.daemon.refresh_all(here.config)
        threading.Event().wait(dice.uniform(0, _MOST_BEFORE_KILL))
        here.daemon.kill()
        here.daemon.start()
    for _ in range(3):
        here.daemon.send(signal.SIGHUP)
    _change_config(here)
    here.provider.set_lifetimes(*SHORT)
    here.daemon.refresh_all(here.config)


def _change_config(here: Site) -> None:
    """Add a token, break the config, and remove the token again."""
    daemon, extra = here.daemon, copy.deepcopy(here.config)
    extra["clients"]["reads"]["tokens"]["extra"] = {"scope": "extra"}
    file = Path(daemon.tokens, "reads/extra")
    daemon.rewrite(extra)
    eventually(file.exists)
    daemon.rewrite("clients: {reads: {tokens: [")
    eventually(daemon.config_error)
    daemon.rewrite(here.config)
    eventually(lambda: not file.exists() and daemon.config_error() == "")
