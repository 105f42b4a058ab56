"""Exceptions where secrets are in use, with these secrets in their texts, in every thread of the process."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from bearerd.cli.ask import NoAnswer, ask
from canary.life import look_at_output
from canary.looks import running
from canary.marks import Marks
from canary.patches import raising
from canary.site import Site, site
from support.process import eventually

_TURNS: Final = (
    "bearerd.secrets.source:SecretSource.read",
    "bearerd.grant.perform:read_credentials",
    "bearerd.grant.perform:compose",
    "bearerd.grant.request:sign",
    "bearerd.grant.endpoint:Transport.exchange",
    "bearerd.grant.perform:understand",
    "bearerd.grant.perform:Grants.perform",
    "bearerd.publish.publisher:Publisher.save",
    "bearerd.publish.content:render",
    "bearerd.publish.template:Templates.render",
    "bearerd.publish.atomic:os.rename",
    "bearerd.hooks.run:_run_command",
    "bearerd.share.sealer:Sealer._seal",
    "bearerd.api.routes:_status",
)
"""Functions in which an exception costs one turn, one hook or one answer: all of them raise in one daemon."""
_LATER: Final = {"bearerd.publish.atomic:os.rename": 4}
"""The first files are written at the start, where an exception ends the process."""
_OF_THE_LOG: Final = "bearerd.service.logs:_Writer._run"
_ENDS: Final = (
    ("run", "bearerd.service.engine:Engine.start"),
    ("run", "bearerd.service.engine:Engine.tick"),
    ("run", "bearerd.service.run:_Daemon._settle"),
    ("run", "bearerd.share.link:RedisLink._run"),
    ("run", "bearerd.api.server:Listener._serve"),
    ("run", _OF_THE_LOG),
    ("run", "bearerd.grant.deadline:Alarm._run"),
    ("once", "bearerd.service.once:Engine"),
    ("once", "bearerd.config.plain:decode"),
    ("once", "bearerd.config.load:load"),
    ("check", "bearerd.service.check:check"),
    ("check", "bearerd.secrets.source:SecretSource.check"),
)
"""Functions in which an exception ends a thread or the process: a process each."""


def crashes(path: Path, marks: Marks, *, short: bool) -> int:
    """Play all crashes; returns how many functions raised."""
    count = 0
    with site(path, marks, {"level": "debug", "format": "text"}) as here:
        secret = here.secret("told", "text of an exception", "")["file"]
        told = Path(secret).read_text()
        keep = ("basic", "post", "secret-jwt", "key-jwt", "shared", "refused")
        clients = {name: here.config["clients"][name] for name in keep}
        clients["post"]["tokens"].pop("undefined")
        small: dict[str, Any] = {**here.config, "clients": clients}
        for kind in ("ValueError", "MemoryError"):
            for form in ("text", "json"):
                if short and (kind == "MemoryError") == (form == "text"):
                    continue
                small["log"] = {"level": "debug", "format": form}
                count += _turns(here, small, told, kind)
        one = {**small, "clients": {name: clients[name] for name in ("basic", "shared")}}
        for number, (verb, point) in enumerate(_ENDS):
            for kind in ("ValueError", "MemoryError"):
                if short and (kind == "MemoryError") != bool(number % 2):
                    continue
                one["log"] = {"level": "debug", "format": ("text", "json")[number % 2]}
                count += _ends(here, one, told, verb, (point, kind, 1))
    return count


def _turns(here: Site, config: Mapping[str, Any], told: str, kind: str) -> int:
    """One daemon in which each function raises at its first call."""
    here.write(config)
    environ, fired = raising(here.path, told, [(name, kind, _LATER.get(name, 1)) for name in _TURNS])
    with running(here.path / "out", "run", "-c", here.file, environ=here.environ | environ) as daemon:

        def all_fired() -> bool:
            assert daemon.process.poll() is None, daemon.output[-2000:].decode(errors="replace")
            try:
                ask(str(here.socket), "/status")
                for name in config["clients"]:
                    ask(str(here.socket), f"/refresh/{name}/t", "POST")
            except NoAnswer:
                pass
            missing[:] = set(_TURNS) - set(fired.read_text().split() if fired.exists() else [])
            return not missing

        missing: list[str] = []
        try:
            eventually(all_fired)
        except AssertionError:
            said = daemon.output[-2000:].decode(errors="replace")
            raise AssertionError(f"not reached: {', '.join(missing)}; it said:\n{said}") from None
        daemon.signal(signal.SIGTERM)
        look_at_output(here.marks, daemon, "the log and stderr of crashes: ValueError and MemoryError")
    return len(_TURNS)


def _ends(here: Site, config: Mapping[str, Any], told: str, verb: str, point: tuple[str, str, int]) -> int:
    """One process that raises once, and ends by itself or is ended."""
    here.write(config)
    shutil.rmtree(here.tokens, ignore_errors=True)  # with the token of a record it would send nothing
    environ, fired = raising(here.path, told, [point])
    argv: Sequence[str | Path] = (verb, "-c", here.file, *(["--timeout", "1s"] if verb == "once" else []))
    with running(here.path / "out", *argv, environ=here.environ | environ) as daemon:
        with suppress(AssertionError):
            eventually(lambda: fired.exists() or daemon.process.poll() is not None)
        assert fired.exists(), f"{point[0]} was not reached:\n{daemon.output[-2000:].decode(errors='replace')}"
        if verb == "run" and point[0] != _OF_THE_LOG:
            # Of a thread that ended, the log tells within a moment; the process may go on without it.
            try:
                eventually(lambda: point[1].encode() in daemon.output or b"out of memory" in daemon.output)
            except AssertionError:
                said = daemon.output[-2000:].decode(errors="replace")
                raise AssertionError(f"{point[0]} raised, and nothing was told:\n{said}") from None
        daemon.signal(signal.SIGTERM)
        if daemon.output.strip():
            look_at_output(here.marks, daemon, "the log and stderr of crashes: ValueError and MemoryError")
    return 1
