"""Attacks on the local API: S2, S11 and S12."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from attacks.common import (
    MB,
    NOBODY,
    Found,
    Site,
    attacker,
    body,
    get,
    grew,
    growth,
    happens,
    idle,
    site_with_provider,
    started,
)
from support.process import Daemon, bearerd, eventually

_FLOOD = 6.0
"""Seconds. 0.1.0 has 600 MB after three."""
_LIMIT = 256 * MB
"""MemoryMax of the unit."""
_PROBES = 20
_KUBELET = 1.0
"""Seconds that a probe of Kubernetes waits."""
_PATIENCE = 10 * _KUBELET
"""Seconds that ours wait: the machine is loaded."""
_LATE = 5
"""So many may take longer than the first bound, for the same reason; none longer than the second."""
_TOKENS = 150
"""Their metrics do not fit into a connection's buffers."""
_HELD = 60.0
"""Seconds at most for which connections are held; they end with the probes."""


@contextmanager
def _listening(site: Site, before: tuple[str, ...] = (), clients: dict[str, str] | None = None) -> Iterator[Daemon]:
    """A daemon with its tokens, which has answered each kind of request once."""
    listen = f"listen: {{address: '127.0.0.1:{site.port}', page: true}}"
    site.write(listen, output=f", group: '{NOBODY}'", clients=clients)
    with started("run", "-c", site.config, before=before) as daemon:
        eventually(site.raw.exists)
        eventually(lambda: get(site.port, "/readyz", "127.0.0.1") == 200)
        for target in ("/metrics", "/"):
            body(site.port, target)
        site.status()
        yield daemon


def s2(path: Path) -> Iterator[Found]:
    """Send heads of 6 MB from 16 threads of another user to `listen` and to the control socket."""
    with site_with_provider(path) as (site, _, _):
        with _listening(site) as daemon:
            yield _flooded("listen", site, daemon, str(site.port))
        with _listening(site) as daemon:
            yield _flooded("the socket", site, daemon, str(site.socket))
        group = _memory_cgroup()
        if isinstance(group, str):
            yield Found("in a cgroup of 256 MiB", f"SKIPPED: {group}", ok=True)
            return
        try:
            enter = ("/bin/sh", "-c", 'echo $$ > "$0"; exec "$@"', str(group / "cgroup.procs"))
            with _listening(site, before=enter) as daemon, attacker("flood", site.port, _FLOOD, 16) as flood:
                flood.wait(_FLOOD * 5)
                lives = daemon.process.poll() is None and get(site.port, "/livez", "127.0.0.1") == 200
            happened = "alive, and answers" if lives else f"ended with {daemon.process.returncode}"
            yield Found("the first again, in a memory cgroup of 256 MiB", happened, ok=lives)
        finally:
            eventually(lambda: _gone(group))


def _flooded(where: str, site: Site, daemon: Daemon, address: str) -> Found:
    pid = daemon.process.pid
    before = idle(pid)
    with attacker("flood", address, _FLOOD, 16) as flood:
        found = grew(
            f"16 threads of uid {NOBODY} send heads of 98 x 65 KB to {where}",
            growth(pid, before, lambda: flood.poll() is None),
        )
        sent = flood.stdout.read().strip() if flood.stdout and flood.poll() == 0 else "many"
    alive = happens(lambda: get(site.port, "/livez", "127.0.0.1") == 200, 30.0)
    assert flood.returncode in {0, -9}, f"uid {NOBODY} could not send anything to {where}"
    return Found(found.tried, f"{found.happened} after {sent} heads; /livez answers: {alive}", ok=found.ok and alive)


def _memory_cgroup() -> Path | str:
    """Make a memory cgroup with a limit, of version 1 or 2; returns it, or the reason why there is none."""
    name = f"bearerd-attacks-{os.getpid()}"
    for root, limit in (("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")):
        with suppress(OSError):
            control = Path(root) / "cgroup.subtree_control"
            if control.exists():
                control.write_text("+memory")
            group = Path(root) / name
            group.mkdir()
            try:
                (group / limit).write_text(str(_LIMIT))
            except OSError:
                group.rmdir()
                continue
            return group
    return "no memory cgroup of version 1 or 2 can be made here"


def _gone(group: Path) -> bool:
    """Remove the cgroup; False while a process is still in it."""
    with suppress(OSError):
        group.rmdir()
    return not group.exists()


def s11(path: Path) -> Iterator[Found]:
    """Probe while 16 or 200 connections send half a request, or ask for metrics and read none."""
    with site_with_provider(path) as (site, _, _):
        many = ", ".join(f"t{number}: {{scope: s{number}}}" for number in range(_TOKENS))
        clients = {"dnb": site.client(tokens=f"{{bci: {{}}, {many}}}")}
        with _listening(site, clients=clients):
            size = len(body(site.port, "/metrics"))
            for kind, count in (("half", 16), ("half", 200), ("slow", 16), ("slow", 200)):
                with attacker("hold", kind, site.port, _HELD, count) as held:
                    assert held.stdout is not None
                    assert held.stdout.readline() == "begun\n"
                    took = list(_probed(site.port))
                missed, late = (sum(seconds >= bound for seconds in took) for bound in (_PATIENCE, _KUBELET))
                what = (
                    "half-sent requests" if kind == "half" else f"clients that ask for {size >> 10} KB and read nothing"
                )
                yield Found(
                    f"{count} {what}, {len(took)} probes of /livez",
                    f"{missed} without an answer in {_PATIENCE:g} s, {late} in {_KUBELET:g} s; "
                    f"the slowest took {max(took):.2f} s",
                    ok=not missed and late <= _LATE,
                )


def _probed(port: int) -> Iterator[float]:
    """The seconds that each probe took, the whole patience for a failed one; ends early once too many were late."""
    late = 0
    for _ in range(_PROBES):
        began = time.monotonic()
        answered = get(port, "/livez", "127.0.0.1", within=_PATIENCE) == 200
        yield (seconds := time.monotonic() - began if answered else _PATIENCE)
        late += seconds >= _KUBELET
        if late > _LATE:
            break


def s12(path: Path) -> Iterator[Found]:
    """Send the requests of a page on another site whose name leads to this machine (DNS rebinding)."""
    with site_with_provider(path) as (site, _, _):
        own = ["127.0.0.1", "localhost", "[::1]", "10.1.2.3"]
        own = [*own, *(f"{host}:{site.port}" for host in own)]
        listen = f"listen: {{address: '127.0.0.1:{site.port}', page: true%s}}"
        site.write(listen % ", hosts: [tokens.example]")
        named = bearerd("check", "-c", site.config).returncode == 0
        site.write(listen % (", hosts: [tokens.example]" if named else ""))
        with started("run", "-c", site.config):
            eventually(lambda: get(site.port, "/readyz", "127.0.0.1") == 200)
            targets = ("/", "/metrics", "/livez", "/readyz", "/status", "/nothing")
            for host in ("evil.example", f"evil.example:{site.port}", f"127.0.0.1.evil.example:{site.port}"):
                statuses = {target: get(site.port, target, host) for target in targets}
                wrong = {target: status for target, status in statuses.items() if status != 421}
                yield Found(f"Host: {host}", f"not 421: {wrong}" if wrong else "421 on each path", ok=not wrong)
            statuses = {host: get(site.port, "/", host) for host in own}
            wrong = {host: status for host, status in statuses.items() if status != 200}
            yield Found("Host: an address or localhost", f"not 200: {wrong}" if wrong else "200", ok=not wrong)
            if named:
                statuses = {
                    host: get(site.port, "/", host) for host in ("tokens.example", f"Tokens.Example:{site.port}")
                }
                ok = set(statuses.values()) == {200}
                yield Found("Host: a name in `hosts`", str(statuses), ok=ok)
            else:
                yield Found("Host: a name in `hosts`", "the config is refused: there is no such key", ok=False)
