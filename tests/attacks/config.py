"""Attacks through the config and the files beside it: S3, S5, R3 and R5."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Final

from attacks.common import Found, Site, body, ends, happens, log_of, site_with_provider, started, still_running
from support.oidc import pem, private_key
from support.process import Daemon, bearerd, command, eventually

_CANARY: Final = "xq7wv0z"
"""Each planted file holds it; no output may."""
_FILES: Final[Mapping[str, bytes]] = {
    "an env file": b"DB_URL=postgres://app:%b@db/app\nPASSWORD=%b\n",
    "an env file with a colon": b"export API: %b\nTOKEN=%b\n",
    "an INI file": b"[db]\nuser = app\npassword = %b\n",
    "JSON credentials": b'{"type": "service_account", "private_key": "%b", "client_secret": "%b"}\n',
    "YAML passwords": b"passwords:\n  db: %b\n  api: [%b, %b]\nadmin: %b\n",
    "a YAML list": b"- %b\n- {db: %b}\n",
    "YAML with a fault": b"db:\n  password: %b\n\tapi: %b\n",
    "a secret in a client": b"clients:\n  a: {token_url: 'https://x.example/', client_secret: %b, tokens: {c: {}}}\n",
    "a secret under a wrong key": b"clients:\n  a: {client_secrt: %b, tokens: {c: {password: %b, scope: {x: %b}}}}\n",
    "a netrc": b"machine db login app password %b\n",
    "a binary file": b"\x00\x01\x7fELF %b \xff\xfe\n%b\n",
    "UTF-16": "password: xq7wv0z\n".encode("utf-16"),
}
_FOLLOWED = 40.0
"""Seconds: twice as many as it may take."""
_FIRST_LOOK = 3.0
"""Seconds after the start. A daemon looks at its files once then, whether or not they changed."""
_READING = 0.5
"""Seconds after HUP. The daemon is reading the config by then."""
_CHAINS: Final = ("links to files", "a link to a directory")


def _files() -> Iterator[tuple[str, bytes]]:
    key = pem(private_key("ES256")).splitlines()
    yield "a PEM key", "\n".join([key[0], _CANARY, *key[1:]]).encode()
    for what, text in _FILES.items():
        yield what, text.replace(b"%b", _CANARY.encode())


def s3(path: Path) -> Iterator[Found]:
    """Put files with secrets into an included directory, at the start and before a reload."""
    with ThreadPoolExecutor(2) as pool:
        shown = list(pool.map(lambda item: _shown_at_start(path, *item), enumerate(_files())))
    leaks = {
        where: [what for what, found in shown if where in found] for where in ("run", "check", "check on a terminal")
    }
    for where, files in leaks.items():
        said = f"SHOWN of {', '.join(files)}" if files else f"nothing is shown of {len(shown)} files"
        yield Found(f"secrets in conf.d: {where}", said, ok=not files)
    leaked: dict[str, list[str]] = {"/status": [], "the page over TCP": [], "/metrics": [], "the log": []}
    with site_with_provider(path / "reload") as (site, _, _):
        conf = site.path / "conf.d"
        conf.mkdir()
        listen = f"listen: {{address: '127.0.0.1:{site.port}', page: true}}"
        site.write("include: [conf.d/*]", "reload: signal", "log: {level: debug}", listen)
        with started("run", "-c", site.config) as daemon:
            eventually(site.raw.exists)
            eventually(lambda: site.status()["tokens"])
            for what, text in _files():
                file = conf / "other"
                file.write_bytes(text)
                daemon.process.send_signal(signal.SIGHUP)
                assert happens(site.config_error, 4.0), f"no error of {what}"
                shows = {
                    "/status": str(site.status()),
                    "the page over TCP": body(site.port, "/"),
                    "/metrics": body(site.port, "/metrics"),
                }
                for where, said in shows.items():
                    if _CANARY in said:
                        leaked[where].append(what)
                file.unlink()
                daemon.process.send_signal(signal.SIGHUP)
                assert happens(lambda: not site.config_error(), 4.0), f"{what} is still an error though it is gone"
            daemon.stop()
        if _CANARY in log_of(daemon):
            leaked["the log"].append("some")
    for where, files in leaked.items():
        said = f"SHOWN of {', '.join(files)}" if files else f"nothing is shown of {len(shown)} files"
        yield Found(f"secrets in conf.d, at a reload: {where}", said, ok=not files)


def _shown_at_start(path: Path, number: int, item: tuple[str, bytes]) -> tuple[str, set[str]]:
    """Start and check with one such file; returns the outputs that show its secret."""
    what, text = item
    site = Site(path / str(number))
    (site.path / "conf.d").mkdir()
    (site.path / "conf.d/other").write_bytes(text)
    site.write("include: [conf.d/*]")
    with started("run", "-c", site.config) as daemon:
        assert ends(daemon, 4.0), f"it starts with {what}"
    piped = bearerd("check", "-c", site.config)
    said = {
        "run": log_of(daemon),
        "check": piped.stdout + piped.stderr,
        "check on a terminal": _on_a_terminal("check", "-c", site.config),
    }
    return what, {where for where, text in said.items() if _CANARY in text}


def _on_a_terminal(*arguments: str | Path) -> str:
    """Run a command on a terminal; returns its output."""
    ours, theirs = pty.openpty()
    env = {**os.environ, "TERM": "xterm", "COLUMNS": "200"}
    with subprocess.Popen(command(*arguments), stdin=theirs, stdout=theirs, stderr=theirs, env=env) as process:
        os.close(theirs)
        said = b""
        with suppress(OSError):  # the other end has closed
            while part := os.read(ours, 65536):
                said += part
        os.close(ours)
        assert process.wait() == 78, said
    return said.decode(errors="replace")


def s5(path: Path) -> Iterator[Found]:
    """Put a FIFO without a writer in place of a config file, at the start and before a reload."""
    for number, where in enumerate(("in conf.d", "as the config", "as an included file")):
        site = Site(path / str(number))
        fifo = _fifo(site, where)
        with started("run", "-c", fifo if where == "as the config" else site.config) as daemon:
            said, ok = _refused(daemon)
            yield Found(f"a FIFO {where}: run", said, ok=ok)
    for number, moment in enumerate(("a reload", "a reload, and TERM in the middle of it")):
        with site_with_provider(path / f"reload-{number}") as (site, _, _):
            (site.path / "conf.d").mkdir()
            site.write("include: [conf.d/*]", "reload: signal")
            with started("run", "-c", site.config) as daemon:
                eventually(site.raw.exists)
                eventually(lambda: site.status()["tokens"])
                os.mkfifo(site.path / "conf.d/a.yaml")
                daemon.process.send_signal(signal.SIGHUP)
                told = moment != "a reload" or happens(site.config_error, 2.0)
                if moment != "a reload":
                    threading.Event().wait(_READING)
                daemon.process.terminate()
                stopped = ends(daemon, 5.0)
                left = still_running(daemon.process.pid)
            said = "" if moment != "a reload" else "an error; " if told else "NO error; "
            said += "TERM ends it" if stopped else "TERM does NOT end it"
            said += f", {len(left)} processes are LEFT" if left else ", no process is left"
            yield Found(f"a FIFO in conf.d: {moment}", said, ok=told and stopped and not left)


def _fifo(site: Site, where: str) -> Path:
    """Make the FIFO and a config that leads to it."""
    (site.path / "conf.d").mkdir()
    fifo = site.path / ("conf.d/a.yaml" if where == "in conf.d" else "fifo")
    os.mkfifo(fifo)
    site.write("include: [conf.d/*]" if where == "in conf.d" else "include: [fifo]")
    return fifo


def _refused(daemon: Daemon) -> tuple[str, bool]:
    """Judge a start that must end with an error; one that hangs is sent TERM."""
    if not ends(daemon, 2.0):
        daemon.process.terminate()
        return f"HANGS; TERM {'ends it' if ends(daemon, 2.0) else 'is IGNORED'}", False
    code = daemon.process.returncode
    return f"exit {code}: {''.join(daemon.lines[:1])[-80:]}", code == 78 and bool(daemon.lines)


def r3(path: Path) -> Iterator[Found]:
    """Put config and secret behind three links, then switch the middle one to a new generation."""
    for number, kind in enumerate(_CHAINS):
        with site_with_provider(path / str(number)) as (site, provider, _):
            provider.secret = "second"
            site.write()
            second = site.config.read_text().replace("{bci: {}}", "{bci: {}, two: {scope: two}}")
            config = _chain(site.path / "c", kind, "config.yaml", site.config.read_text(), second)
            secret = _chain(site.path / "s", kind, "secret", "first", "second")
            for generation in (site.path / "c").rglob("config.yaml"):
                if not generation.is_symlink():
                    generation.write_text(generation.read_text().replace(str(site.secret), str(secret)))
            with started("run", "-c", config):
                eventually(lambda: provider.refused)
                eventually(site.states)
                threading.Event().wait(_FIRST_LOOK)
                _switch(site.path / "s", kind)
                followed = happens(site.raw.exists, _FOLLOWED / 5)
                yield Found(f"a secret behind {kind}", "followed" if followed else "NOT followed", ok=followed)
                _switch(site.path / "c", kind)
                followed = happens((site.tokens / "dnb/two").exists, _FOLLOWED / 5)
                yield Found(f"a config behind {kind}", "followed" if followed else "NOT followed", ok=followed)


def _chain(path: Path, kind: str, name: str, first: str, second: str) -> Path:
    """`top -> middle -> bottom -> file of the first generation`; the middle is a link to a file, or to a directory."""
    for number, text in ((1, first), (2, second)):
        (path / f"store-{number}").mkdir(parents=True)
        (path / f"store-{number}" / name).write_text(text)
        (path / f"store-{number}" / name).chmod(0o600)
        (path / f"generation-{number}").mkdir()
        (path / f"generation-{number}" / name).symlink_to(f"../store-{number}/{name}")
    (path / "middle").symlink_to(_middle(kind, name, 1))
    (path / "etc").mkdir()
    top = path / "etc" / name
    top.symlink_to("../middle" if kind == _CHAINS[0] else f"../middle/{name}")
    return top


def _middle(kind: str, name: str, generation: int) -> str:
    return f"generation-{generation}/{name}" if kind == _CHAINS[0] else f"generation-{generation}"


def _switch(path: Path, kind: str) -> None:
    """Switch the middle link to the second generation, in one step."""
    [name] = [file.name for file in (path / "store-2").iterdir()]
    (path / "new").symlink_to(_middle(kind, name, 2))
    (path / "new").rename(path / "middle")


def r5(path: Path) -> Iterator[Found]:
    """Break a running daemon's config, then ask the daemon with `-c`: it is reached, and the error is named."""
    typos: Mapping[str, Callable[[str], str]] = {
        "an unknown key": lambda text: text.replace("client_id", "client_idd"),
        "a syntax error at its end": lambda text: f"{text}  x: [\n",
        "a tab at its beginning": lambda text: f"\tx\n{text}",
        "half a file": lambda text: text[: len(text) // 2],
        "an empty file, and $RUNTIME_DIRECTORY": lambda _: "",
    }
    tokens = ", ".join(f"t{number}: {{scope: s{number}}}" for number in range(len(typos)))
    with site_with_provider(path / "p") as (site, _, _):
        site.write(clients={"dnb": site.client(tokens=f"{{{tokens}}}")})
        good = site.config.read_text()
        with started("run", "-c", site.config):
            eventually(lambda: set(site.states()) == {"valid"})
            for number, (what, typo) in enumerate(typos.items()):
                site.config.write_text(typo(good))
                if typo(good):
                    # The daemon looks at once, but on a loaded machine that takes a while.
                    eventually(lambda: site.status()["config"]["error"])
                # An empty file names no directory; the default is the one that systemd sets.
                env = {} if typo(good) else {"RUNTIME_DIRECTORY": str(site.tokens)}
                asked = {
                    verb: bearerd(verb, "-c", site.config, *arguments, env=env)
                    for verb, arguments in (("health", ()), ("status", ()), ("refresh", (f"dnb/t{number}",)))
                }
                codes = {verb: done.returncode for verb, done in asked.items() if done.returncode}
                silent = [verb for verb, done in asked.items() if "config" not in done.stdout + done.stderr]
                said = f"exit {codes}" if codes else "all reach it"
                said += f", {', '.join(silent)} without a note" if silent else ", with a note"
                yield Found(f"health, status and refresh with {what}", said, ok=not codes and not silent)
