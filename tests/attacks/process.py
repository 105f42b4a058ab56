"""Attacks on the process: by others of its user, and by the way it is started and ended: S4, R1 and R4."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from attacks.common import Found, Listener, Site, attacker, site_with_provider, started
from support.process import Daemon, command, eventually

_USER = 64731
"""Nothing else on the machine runs as this user."""
_STARTS, _RELOADS, _SPIED = 3, 5, 20.0
"""Starts, reloads after each, and seconds at most for both."""
_HUPS, _TERM_AFTER = 20, 0.1  # how often, and seconds
_LEVELS: Final = re.compile(rb"DEBUG|INFO|WARNING|ERROR|Traceback")
_HEADER: Final = re.compile(rb"[A-Za-z-]+: [^\r\n]*")
_FORM: Final = re.compile(rb"[A-Za-z_]+=[A-Za-z0-9%+_.~-]*(&[A-Za-z_]+=[A-Za-z0-9%+_.~-]*)*")


def s4(path: Path) -> Iterator[Found]:
    """Let a process of the same user try to open all processes of the daemon, at starts and reloads."""
    found: dict[str, set[str]] = {"main before": set(), "main after": set(), "others": set()}
    looks = reloads = others = 0
    window = 0.0
    for number in range(_STARTS):
        with site_with_provider(path / str(number)) as (site, _, _):
            site.write("reload: signal")
            for file in (site.path, site.secret, site.config):
                os.chown(file, _USER, _USER)
            argv = [str(site.config), str(_RELOADS), str(_SPIED), *command("run", "-c", site.config)]
            with attacker("spy", *argv, user=_USER, env={"READY": str(site.raw)}) as spy:
                output = spy.communicate(timeout=_SPIED * 5)[0]
        said = json.loads(output)
        for what, how in found.items():
            how.update(said[what])
        looks, reloads, others = looks + said["looks"], reloads + said["reloads"], others + said["count"]
        window = max(window, said["window"])
    assert reloads >= _STARTS, f"the config was not read again: {reloads} reloads"
    tried = f"{_STARTS} starts, {reloads} reloads, {looks} looks at environ, mem, maps, fd, ptrace, pidfd_getfd"
    for what, how in {
        "of the processes beside the main one": found["others"],
        "of the main process once it has read its config": found["main after"],
    }.items():
        yield Found(f"{tried} {what}", f"OPENED: {', '.join(sorted(how))}" if how else "nothing was opened", ok=not how)
    limit = f"dumpable for {window * 1000:.0f} ms from its exec on" if found["main before"] else "never seen open"
    yield Found("the limit: the main process until its own first lines have run", limit, ok=True)


class _Recorder(Listener):
    """A provider that records every byte that it receives; every third request fails."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []
        super().__init__()

    def serve(self, connection: socket.socket) -> None:
        """Answer the requests of a connection."""
        data = b""
        connection.settimeout(30.0)
        try:
            while part := connection.recv(65536):
                data += part
                while end := _ends_at(data):
                    self.heard.append(data[:end])
                    data = data[end:]
                    status = b"503 X" if len(self.heard) % 3 == 1 else b"200 OK"
                    answer = b'{"access_token":"t-1","token_type":"Bearer","expires_in":3}'
                    connection.sendall(b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n%b" % (status, len(answer), answer))
        finally:
            if data:
                self.heard.append(data)


def _ends_at(data: bytes) -> int:
    """The length of the first request in these bytes; 0 if it is not complete."""
    head, end, form = data.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)\ncontent-length: *(\d+)", head)
    wanted = int(length[1]) if length else 0
    return len(head) + len(end) + wanted if end and len(form) >= wanted else 0


@contextmanager
def _recording() -> Iterator[_Recorder]:
    recorder = _Recorder()
    try:
        yield recorder
    finally:
        recorder.stop()


def r1(path: Path) -> Iterator[Found]:
    """Start with descriptors 0 to 2 closed, in all eight combinations."""
    combinations = [closed for count in range(4) for closed in itertools.combinations(("<&-", ">&-", "2>&-"), count)]
    for verb in ("run", "once", "check"):
        with _recording() as recorder, ThreadPoolExecutor(2) as pool:
            faults = pool.map(
                lambda numbered, verb=verb, recorder=recorder: _closed(
                    Site(path / f"{verb}-{numbered[0]}", recorder.url), verb, numbered[1]
                ),
                enumerate(combinations),
            )
            found = [fault for faults_of_one in faults for fault in faults_of_one]
            heard = [request for request in recorder.heard if request]
        bad = sum(not _is_request(request) for request in heard)
        found += [f"{bad} of {len(heard)} requests hold something else"] if bad else []
        said = "; ".join(sorted(set(found))) or f"{len(heard)} requests and all files are as they should be"
        yield Found(f"{verb} with 0 to 2 closed, 8 combinations", said, ok=not found)


def _closed(site: Site, verb: str, closed: tuple[str, ...]) -> list[str]:
    """Run a verb with these descriptors closed; returns the faults."""
    site.write("log: {level: debug}")
    before = ("/bin/sh", "-c", f'exec "$@" {" ".join(closed)}', "sh")
    arguments = ["--online"] if verb == "check" else []
    faults = []
    with started(verb, "-c", site.config, *arguments, before=before) as daemon:
        if verb == "run":
            eventually(site.raw.exists)
            eventually(lambda: site.status()["tokens"])
            written = site.raw.stat().st_mtime_ns
            eventually(lambda: site.raw.stat().st_mtime_ns != written or site.refresh() == 202)
            faults += _descriptors(daemon, site)
            daemon.process.terminate()
        code = daemon.wait()
        # The provider fails at times.
        if code != 0 and not (verb == "check" and code == 1):
            faults.append(f"exit {code}")
    if verb != "check" and site.raw.read_text() != "t-1":
        faults.append("a token that is none")
    files = [file for file in site.tokens.rglob("*") if file.is_file()]
    faults += [f"log lines in {file.name}" for file in files if _LEVELS.search(file.read_bytes())]
    shutil.rmtree(site.path)
    return faults


def _descriptors(daemon: Daemon, site: Site) -> list[str]:
    """The faults of descriptors 0 to 2 of a running daemon."""
    faults = []
    for number in range(3):
        try:
            there = os.readlink(f"/proc/{daemon.process.pid}/fd/{number}")
        except FileNotFoundError:
            faults.append(f"descriptor {number} is closed")
            continue
        if there.startswith(("socket:", "anon_inode:", str(site.path))):
            faults.append(f"descriptor {number} is {there.split(':[')[0].replace(str(site.path), '')}")
    return faults


def _is_request(text: bytes) -> bool:
    """Whether these bytes are one token request, and nothing else."""
    head, _, form = text.partition(b"\r\n\r\n")
    line, *headers = head.split(b"\r\n")
    return (
        line == b"POST /token HTTP/1.1"
        and all(_HEADER.fullmatch(header) for header in headers)
        and _FORM.fullmatch(form) is not None
        and f"content-length: {len(form)}".encode() in head.lower()
    )


def r4(path: Path) -> Iterator[Found]:
    """Send HUP, and a tenth of a second later TERM."""
    with ThreadPoolExecutor(2) as pool:
        ends = list(pool.map(lambda number: _hup_then_term(path / str(number)), range(_HUPS)))
    codes = sorted({code for code, _ in ends})
    tracebacks = sum("Traceback" in log or "Error:" in log for _, log in ends)
    yield Found(
        f"HUP, then TERM after {_TERM_AFTER} s, {_HUPS} times",
        f"exit {', '.join(map(str, codes))}; {tracebacks} logs with a traceback",
        ok=codes == [0] and not tracebacks,
    )


def _hup_then_term(path: Path) -> tuple[int, str]:
    with site_with_provider(path) as (site, _, _), started("run", "-c", site.write()) as daemon:
        eventually(site.raw.exists)
        eventually(lambda: site.status()["tokens"])
        os.kill(daemon.process.pid, 1)
        threading.Event().wait(_TERM_AFTER)
        daemon.process.terminate()
        code = daemon.wait()
    return code, "\n".join(daemon.lines)
