"""Attacks on files and directories: S1, S7, S8 and R2."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path

import bearerd as package
from attacks.common import NOBODY, Found, Site, attacker, happens, log_of, site_with_provider, started, writable
from support.process import WITHIN, bearerd, eventually
from support.server import Answer, serving

_SWAPPED = 6.0
"""Seconds of swapping: the daemon writes some hundred tokens meanwhile."""
_RESTORED = 30.0
"""Seconds: three times the contract's ten."""
_MEMBER, _GROUP = 64732, 64733
"""A user and a group that nothing else on the machine uses."""


def s1(path: Path) -> Iterator[Found]:
    """Start `run` and `once` as root from a copy without bytecode, under several umasks."""
    for verb in ("run", "once"):
        for umask in (0o000, 0o022, 0o077):
            here = path / f"{verb}-{umask:03o}"
            here.mkdir()
            copy = here / "copy"
            shutil.copytree(Path(package.__file__).parent, copy / "bearerd", ignore=lambda *_: {"__pycache__"})
            proceed = threading.Event()

            def answer(_: object, proceed: threading.Event = proceed) -> Answer:
                proceed.wait(60.0)
                return Answer(200, {"access_token": "t", "expires_in": 3600})

            with serving(answer) as server:
                site = Site(here / "p", server.url)
                state = site.path / "state"
                site.write(f"state_directory: {state}")
                env = {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": ""}
                where = [sys.executable, "-B", "-c", "import bearerd; print(bearerd.__file__)"]
                found = subprocess.check_output(where, env={**os.environ, **env}, text=True, cwd="/")
                assert found.startswith(str(copy)), found
                with started(verb, "-c", site.config, env=env, umask=umask) as daemon:
                    server.wait_for(1)
                    status = Path(f"/proc/{daemon.process.pid}/status").read_text()
                    proceed.set()
                    eventually(site.raw.exists)
                    if verb == "run":
                        eventually(site.states)  # between bind and listen, the socket refuses connections
                        site.refresh()
                        socket_mode = site.socket.stat().st_mode & 0o777
                        assert daemon.stop() == 0, daemon.lines
                    else:
                        assert daemon.wait() == 0, daemon.lines
            now = re.findall(r"^Umask:\s+(\d+)", status, re.MULTILINE)[0]
            open_to_others = writable(copy, site.tokens, *([state] if state.exists() else []))
            said = f"Umask {now}; writable by others: {', '.join(open_to_others[:3]) or 'nothing'}"
            said += f" and {len(open_to_others) - 3} more" if len(open_to_others) > 3 else ""
            if verb == "run":
                said += f"; the socket is {socket_mode:04o}"
            ok = now in {"0022", "0077"} and not open_to_others and (verb == "once" or socket_mode == 0o660)
            yield Found(f"{verb} without bytecode, started with umask {umask:03o}", said, ok=ok)


def s7(path: Path) -> Iterator[Found]:
    """Let a user swap a directory in their home for a symlink to a directory of root, on the way to a token."""
    for which in ("app", "app/conf"):
        for moment in ("before the start", "while it runs", "again and again"):
            here = path / f"{which.replace('/', '-')}-{moment.replace(' ', '-')}"
            with site_with_provider(here, lifetime=4.0) as (site, _, _):
                yield _swapped(site, which, moment)


def _swapped(site: Site, which: str, moment: str) -> Found:
    home, roots = site.path / "home", site.path / "roots"
    swapped = home / which
    (home / "app/conf").mkdir(parents=True)
    (roots / "conf").mkdir(parents=True)
    for directory in (home, home / "app", home / "app/conf"):
        os.chown(directory, NOBODY, NOBODY)
    count = 1 if moment != "again and again" else 30
    tokens = ", ".join(
        f"t{number}: {{scope: s{number}, files: [{{format: raw, path: {home}/app/conf/{number}, owner: {NOBODY}}}]}}"
        for number in range(count)
    )
    site.write(clients={"dnb": site.client("max_concurrency: 8, ", tokens=f"{{{tokens}}}")})
    before = _seen(roots)
    with started("run", "-c", site.config) as daemon:
        eventually((home / "app/conf/0").exists)
        if moment == "before the start":
            daemon.stop()
    if moment == "before the start":
        with attacker("swap", swapped, _leads_to(which, roots), 1) as swap:
            swap.wait(WITHIN)
    reported = False
    with started("run", "-c", site.config) as daemon:
        if moment == "while it runs":
            eventually(lambda: site.status()["tokens"])
            with attacker("swap", swapped, _leads_to(which, roots), 1) as swap:
                swap.wait(WITHIN)
        if moment == "again and again":
            with attacker("swap", swapped, _leads_to(which, roots), _SWAPPED) as swap:
                swap.wait(_SWAPPED * 5)
            reported = True
        else:
            assert swapped.is_symlink()
            reported = happens(lambda: _reported(site, home / "app"), 4.0)
        assert daemon.stop() == 0, daemon.lines
    wrote = _seen(roots) != before
    said = "WRITTEN where the link leads" if wrote else "nothing is written where the link leads"
    said += "" if moment == "again and again" else ", reported" if reported else ", NOT reported"
    return Found(f"uid {NOBODY} swaps {which} for a symlink {moment}", said, ok=not wrote and reported)


def _reported(site: Site, path: Path) -> bool:
    """Whether the status of a token has an error that names the path."""
    errors = [value for token in site.status()["tokens"] for key, value in token.items() if "error" in key]
    return str(path) in str(errors)


def _leads_to(which: str, roots: Path) -> Path:
    return roots if which == "app" else roots / "conf"


def _seen(roots: Path) -> object:
    """The names in these directories and the times of their last change: a file that came and went shows, too."""
    return [(str(path), path.stat().st_mtime_ns) for path in sorted([roots, *roots.rglob("*")])]


def s8(path: Path) -> Iterator[Found]:
    """Let a member of the output directory's group replace `.bearerd` by one with a forged record."""
    for what in ("a directory", "a symlink to a directory", "a directory that root made and all can write"):
        with site_with_provider(path / what.replace(" ", "-")) as (site, provider, _):
            yield _planted(site, what, provider.takes)


def _planted(site: Site, what: str, good: Callable[[str], bool]) -> Found:
    second = site.path / "roots/token"
    second.parent.mkdir()
    tokens = f"{{bci: {{files: [{{format: raw}}, {{format: raw, path: {second}}}]}}}}"
    site.write(
        output=f", directory_mode: '2770', group: '{_GROUP}'",
        clients={"dnb": site.client(tokens=tokens)},
    )
    with started("run", "-c", site.config) as daemon:
        eventually(second.exists)
        assert daemon.stop() == 0, daemon.lines
    own = site.tokens / ".bearerd"
    with attacker("plant", own, user=_MEMBER, groups=[_GROUP]) as plant:
        assert plant.wait(WITHIN) == 0, "the member of the group could not rename .bearerd"
    [record] = (site.tokens / ".bearerd.old/records").rglob("*.json")
    token = site.raw.read_text()
    assert token in record.read_text()
    forged = own / record.relative_to(site.tokens / ".bearerd.old")
    forged.parent.mkdir(parents=True)
    forged.write_text(record.read_text().replace(token, "forged"))
    for name in (own, *own.rglob("*")):
        os.chown(name, _MEMBER, _MEMBER)
        name.chmod(0o700 if name.is_dir() else 0o600)
    if what == "a symlink to a directory":
        aside = site.path / "aside"
        own.rename(aside)
        own.symlink_to(aside)
        os.chown(own, _MEMBER, _MEMBER, follow_symlinks=False)
    if what.startswith("a directory that root made"):
        for name in (own, *own.rglob("*")):
            os.chown(name, 0, 0)
            name.chmod(0o777 if name.is_dir() else 0o666)
    seen: set[str] = set()

    def settled() -> bool:
        for file in (site.raw, second):
            with suppress(OSError):
                seen.add(file.read_text())
        return "forged" in seen or site.states() == ["valid"]

    with started("run", "-c", site.config) as daemon:
        happens(settled, 4.0)
        settled()
        happens(lambda: daemon.process.poll() is not None or site.states(), 4.0)
        lives = daemon.process.poll() is None and bool(site.states())
        daemon.stop()
    warned = [line for line in daemon.lines if ".bearerd" in line and "WARNING" in line]
    said = "the forged token is PUBLISHED" if "forged" in seen else "no forged token"
    said += ", it goes on" if lives else f", it ENDS: {log_of(daemon)[-200:]}"
    said += ", with a warning" if warned else ", WITHOUT a warning"
    ok = lives and bool(warned) and bool(seen) and all(good(token) for token in seen)
    return Found(f"a member of the group plants {what} as .bearerd, with a forged record", said, ok=ok)


def r2(path: Path) -> Iterator[Found]:
    """Remove the directories and the lock of a running daemon, as a cleaner does."""
    cases = {"the output directory": "", ".bearerd": ".bearerd", "the lock": ".bearerd/lock"}
    with ExitStack() as stack:
        daemons: dict[str, tuple[Site, int]] = {}
        for number, what in enumerate(cases):
            site, _, _ = stack.enter_context(site_with_provider(path / str(number)))
            daemon = stack.enter_context(started("run", "-c", site.write()))
            eventually(site.raw.exists)
            eventually(site.socket.exists)
            daemons[what] = site, daemon.process.pid
        for what, (site, _) in daemons.items():
            gone = site.tokens / cases[what]
            if gone.is_dir():
                shutil.rmtree(gone)
            else:
                gone.unlink()
        end = time.monotonic() + _RESTORED
        for what, (site, pid) in daemons.items():
            yield _restored(what, site, pid, end)


def _restored(what: str, site: Site, pid: int, end: float) -> Found:
    back: Mapping[str, Callable[[], object]] = {
        "the token": lambda: site.raw.read_text().startswith("t-") if site.raw.exists() else False,
        "the record": lambda: [*site.tokens.glob(".bearerd/records/**/*.json")],
        "the lock": (site.tokens / ".bearerd/lock").exists,
        "the socket": lambda: site.status()["tokens"],
    }
    missing = [name for name, there in back.items() if not happens(there, within=0.0, until=end)]
    other = bearerd("once", "-c", site.config, "--timeout", "5s")
    refused = other.returncode == 1 and str(pid) in other.stderr
    said = f"NOT back: {', '.join(missing)}" if missing else "token, record, lock and socket are back"
    said += "; a second daemon is refused" if refused else f"; a second one is NOT refused (exit {other.returncode})"
    return Found(f"{what} is removed", said, ok=refused and not missing)
