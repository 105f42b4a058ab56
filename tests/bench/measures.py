"""The measures, each with its anchor in the same run. Every one returns figures by name."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from statistics import median, quantiles

from bench.rig import Programs, config, peer, python_start, running, scratch, serving, until

Figures = dict[str, float]

# A daemon that was just started is busy for a moment; what is idle after this long stays so.
_SETTLED = 25.0


def burst(programs: Programs, tokens: int) -> Figures:
    """A cold start on loopback, eight at once."""
    with serving(programs) as server, scratch() as directory:
        go = peer(programs, server, tokens // 100, 100, 8)
        with running(config(directory, server, tokens // 100, 100)) as daemon:
            daemon.wait_for_files(tokens)
            cpu, wall, rss = daemon.cpu(), time.monotonic() - daemon.began, daemon.memory()
    return {
        "CPU per grant, ratio to Go": cpu / go.cpu,
        "CPU per grant, ms": cpu / tokens * 1000,
        "CPU per grant of Go, ms": go.cpu / tokens * 1000,
        "wall, s": wall,
        "RSS, MB": rss,
    }


def latency(programs: Programs, tokens: int) -> Figures:
    """A cold start with 50 ms of latency, 64 at once, against what the latency alone takes."""
    floor = tokens * 0.05 / 64
    with serving(programs, latency=0.05) as server, scratch() as directory:
        go = peer(programs, server, tokens // 100, 100, 64)
        with running(config(directory, server, tokens // 100, 100, concurrency=64)) as daemon:
            daemon.wait_for_files(tokens)
            wall = time.monotonic() - daemon.began
    return {"wall, ratio to the floor": wall / floor, "wall of Go, ratio to the floor": go.wall / floor}


def tls(programs: Programs, tokens: int) -> Figures:
    """A cold start over TLS with 50 ms of latency, 8 at once."""
    with scratch() as directory, serving(programs, latency=0.05, directory=directory) as server:
        go = peer(programs, server, tokens // 100, 100, 8)
        with running(config(directory, server, tokens // 100, 100)) as daemon:
            daemon.wait_for_files(tokens)
            cpu = daemon.cpu()
    return {"CPU per grant, ratio to Go": cpu / go.cpu, "CPU per grant, ms": cpu / tokens * 1000}


def steady(programs: Programs, seconds: float) -> Figures:
    """160 refreshes a second: 1,600 tokens of 20 s, refreshed after 9 to 10 s.

    How late each one is comes from two looks at the status: when the refresh was due, and when it began.
    """
    tokens, lifetime = 1600, 20
    late: list[float] = []
    with serving(programs, lifetime=lifetime) as server, scratch() as directory:
        path = config(directory, server, tokens // 100, 100, extra="refresh_before: 10s")
        with running(path) as daemon:
            daemon.wait_for_files(tokens)
            threading.Event().wait(lifetime)  # the burst of the start is spread by then
            began, issued, cpu = time.monotonic(), server.grants(), daemon.cpu()
            due: dict[str, float] = {}
            while time.monotonic() < began + seconds:
                look = time.monotonic()
                for token in daemon.status()["tokens"]:
                    name, obtained = token["name"], look + token["remaining_seconds"] - token["lifetime_seconds"]
                    # Half a second: two readings of the same token differ by what a look takes.
                    if name in due and obtained > due[name] - 0.5:
                        late.append(obtained - due[name])
                    due[name] = look + token["next_refresh_seconds"]
                threading.Event().wait(3)
            took, count = time.monotonic() - began, server.grants() - issued
            spent = daemon.cpu() - cpu
    least = tokens * took / (lifetime - 10)
    return {
        "lateness p50, ms": median(late) * 1000,
        "lateness p99, ms": quantiles(late, n=100)[98] * 1000,
        "refreshes a second": count / took,
        "grants, ratio to the least": count / least,
        "CPU per grant, ms": spent / count * 1000,
    }


def one(programs: Programs) -> Figures:
    """One token."""
    python = python_start()
    with serving(programs) as server, scratch() as directory, running(config(directory, server, 1, 1)) as daemon:
        daemon.wait_for_files(1, 0.002)
        took = time.monotonic() - daemon.began
        threading.Event().wait(1)
        return {
            "to the first file beyond python, ms": (took - python) * 1000,
            "RSS, MB": daemon.memory(),
            "anonymous, MB": daemon.memory("RssAnon"),
            "threads": len(os.listdir(f"/proc/{daemon.pid}/task")),
        }


def start(programs: Programs, clients: int, tokens: int) -> Figures:
    """Until the first request."""
    with (
        serving(programs) as server,
        scratch() as directory,
        running(config(directory, server, clients, tokens)) as daemon,
    ):
        until(lambda: server.grants() > 0, 0.01)
        return {"until the first request, s": time.monotonic() - daemon.began}


def reload(programs: Programs, tokens: int) -> Figures:
    """One new token among many."""
    with serving(programs) as server, scratch() as directory:
        path = config(directory, server, tokens // 100, 100)
        with running(path) as daemon:
            daemon.wait_for_files(tokens)
            threading.Event().wait(2)
            before, issued = daemon.memory(), server.grants()
            text = path.read_text()
            path.with_suffix(".new").write_text(text.replace("t0: {scope: t0}", "new: {}, t0: {scope: t0}", 1))
            path.with_suffix(".new").rename(path)
            began = time.monotonic()
            until((directory / "tokens/c0/new").exists, 0.01)
            took = time.monotonic() - began
            threading.Event().wait(2)
            return {
                "until the new file, s": took,
                "requests": server.grants() - issued,
                "more RSS, MB": daemon.memory() - before,
            }


def idle(programs: Programs, tokens: int, seconds: float) -> Figures:
    """Many tokens, none of which is due."""
    with serving(programs) as server, scratch() as directory:
        path = config(directory, server, tokens // 100, 100)
        with running(path) as daemon:
            daemon.wait_for_files(tokens)
            threading.Event().wait(_SETTLED)
            switches, cpu = daemon.switches(), daemon.cpu()
            threading.Event().wait(seconds)
            return {
                "context switches a second": (daemon.switches() - switches) / seconds,
                "CPU, %": (daemon.cpu() - cpu) / seconds * 100,
                "RSS, MB": daemon.memory(),
            }


def health(programs: Programs, runs: int) -> Figures:
    """A probe beside `python -c pass`, in turn."""
    with serving(programs) as server, scratch() as directory, running(config(directory, server, 1, 1)) as daemon:
        daemon.wait_for_files(1)
        probe = [str(Path(sys.executable).with_name("bearerd")), "health"]
        probe += ["--socket", f"{directory}/tokens/.bearerd/control.sock"]
        subprocess.run([*probe, "--wait", "30s"], check=True, stdout=subprocess.DEVNULL)
        took: dict[bool, list[float]] = {True: [], False: []}
        for _ in range(runs):
            for plain in (True, False):
                began = time.perf_counter()
                subprocess.run(
                    [sys.executable, "-c", "pass"] if plain else probe, check=True, stdout=subprocess.DEVNULL
                )
                took[plain].append(time.perf_counter() - began)
    return {"ratio to python": median(took[False]) / median(took[True])}


def growth(programs: Programs, sizes: tuple[int, ...]) -> Figures:
    """What a grant and a token cost where there are more of them."""
    figures: Figures = {}
    with serving(programs) as server:
        with scratch() as directory, running(config(directory, server, 1, 1)) as daemon:
            daemon.wait_for_files(1)
            threading.Event().wait(1)
            base_cpu, base_memory = daemon.cpu(), daemon.memory()
        for size in sizes:
            with scratch() as directory, running(config(directory, server, size // 100, 100)) as daemon:
                daemon.wait_for_files(size, 0.2)
                cpu = daemon.cpu()
                threading.Event().wait(10)  # what the burst needs is given back
                figures[f"{size} tokens: CPU per grant, ms"] = (cpu - base_cpu) / size * 1000
                figures[f"{size} tokens: memory per token, KB"] = (daemon.memory() - base_memory) / size * 1024
    return figures
