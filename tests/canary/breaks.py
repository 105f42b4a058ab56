"""Leaks that are put into bearerd on purpose: the rig must find each of them."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Final

from canary.life import OWN, settled
from canary.looks import Files, Processes, look_at_execs, running, traced
from canary.marks import Marks
from canary.patches import LEAKS, patch
from canary.site import ENVIRONMENT, TOKEN, site
from support.process import eventually

_EXPECTED: Final = {
    "a token that is logged at DEBUG": ("the log", TOKEN),
    "a secret in the text of an exception": ("the log", "client secret"),
    "a secret in the arguments of a program": ("every exec", "client secret"),
    "a secret in the environment of a program": ("environ", "client secret"),
    "a secret in the arguments, by /proc": ("cmdline", "client secret"),
    "a secret that a hook could read": ("hooks", "client secret"),
    "a secret in a state file": ("other files", "client secret"),
    "a token file that others can read": ("modes", TOKEN),
}


def breaks(path: Path) -> list[str]:
    """Run a bearerd that leaks; returns the leaks that were not found."""
    marks = Marks()
    with site(path, marks, {"level": "debug", "format": "json"}) as here:
        secret = here.secrets / "basic"
        keep = ("basic", "command")
        here.write({**here.config, "clients": {name: here.config["clients"][name] for name in keep}})
        slow = here.script("changed", more="sleep 1")
        environ = patch(path, LEAKS.format(secret=str(secret), state=str(path / "state-of-rig")))
        processes, files, execs = Processes(), Files(here), path / "execs"
        processes.start()
        files.start()
        with running(
            path / "out", "run", "-c", here.file, environ=here.environ | environ, before=traced(execs)
        ) as daemon:
            settled(here, daemon)
            eventually(lambda: b"library" in daemon.output)
            assert Path(slow).exists()
            daemon.signal(signal.SIGTERM)
            marks.look("the log", daemon.output, but=[ENVIRONMENT])
        processes.stop()
        files.stop()
        look_at_execs(marks, execs, daemon.argv)
        processes.report(marks)
        marks.look("hooks", here.hooks_saw.read_bytes())
        wrong = files.report(marks, OWN)
    found = {(where, hit.kind) for where, row in marks.rows.items() for hit in row.hits}
    found |= {("modes", TOKEN)} if wrong else set()
    return [leak for leak, (place, kind) in _EXPECTED.items() if not any(place in at and kind == k for at, k in found)]
