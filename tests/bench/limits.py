"""The least memory that bearerd needs: `cd tests && python -m bench.limits [TOKENS…]`, as root.

Runs the daemon in a memory cgroup of a rising size, until one is enough for a start, a reload with one new token,
`status` and a scrape of the metrics. Everything in the cgroup counts: the daemon, the process that reads the config,
and token files on a tmpfs. Prints for each number of tokens the size that was enough, and what the daemon itself used.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.rig import Daemon, Programs, Server, config, scratch, serving, why_not

_MIB = 1 << 20
_SIZES = (24, 28, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 256)
# Seconds for each of start and reload. A cgroup that is nearly too small makes them slow first.
_PATIENCE = 60.0
# Cgroup v2 where the memory controller is there, else v1.
_ROOTS = ((Path("/sys/fs/cgroup"), "memory.max"), (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"))


@contextmanager
def _cgroup(size: int) -> Iterator[Path]:
    """A memory cgroup of so many bytes."""
    for root, key in _ROOTS:
        group = root / f"bearerd-limits-{os.getpid()}"
        group.mkdir(exist_ok=True)
        try:
            if (group / key).exists():
                (group / key).write_text(str(size))
                swap = group / "memory.swap.max"
                if swap.exists():
                    swap.write_text("0")
                yield group
                return
        finally:
            group.rmdir()
    raise SystemExit("SKIPPED: no memory controller")


def _enough(server: Server, tokens: int, size: int) -> float | None:
    """Whether this size is enough: the daemon's own RSS at the end, in MB; None if it is not."""
    clients, each = max(1, tokens // 100), min(tokens, 100)
    with scratch() as directory, _cgroup(size) as group:
        path = config(directory, server, clients, each)
        join = f'echo $$ > {group}/cgroup.procs && exec "$@"'
        argv = [sys.executable, "-m", "bearerd", "run", "-c", str(path)]
        with subprocess.Popen(["/bin/sh", "-c", join, "sh", *argv], stderr=subprocess.DEVNULL) as process:
            daemon = Daemon(process.pid, directory)
            try:
                if not _until(process, lambda: len(list((directory / "tokens").glob("c*/t*"))) == tokens):
                    return None
                text = path.read_text().replace("t0: {scope: t0}", "new: {}, t0: {scope: t0}", 1)
                path.with_suffix(".new").write_text(text)
                path.with_suffix(".new").rename(path)
                if not _until(process, (directory / "tokens/c0/new").exists):
                    return None
                assert daemon.get("/metrics").count(b"bearerd_token_expiration_timestamp_seconds{") == tokens + 1
                assert len(daemon.status()["tokens"]) == tokens + 1
                return daemon.memory()
            except (OSError, ValueError):  # it was killed while it replied
                return None
            finally:
                process.terminate()
                process.wait()


def _until(process: subprocess.Popen[bytes], true: Callable[[], bool]) -> bool:
    pause, end = threading.Event(), time.monotonic() + _PATIENCE
    while not true():
        if process.poll() is not None or time.monotonic() > end:
            return False
        pause.wait(0.05)
    return True


def main() -> int:
    """Print a line for each number of tokens."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tokens", nargs="*", type=int, default=[1, 100, 10_000])
    given = parser.parse_args()
    if why := why_not() or ("only root can make a cgroup" if os.geteuid() else ""):
        print(f"SKIPPED: {why}")
        return 0
    with tempfile.TemporaryDirectory(prefix="bearerd-bench-") as name, serving(Programs(Path(name))) as server:
        for tokens in given.tokens:
            for size in _SIZES:
                used = _enough(server, tokens, size * _MIB)
                if used is not None:
                    print(f"{tokens:6} tokens: {size} MiB are enough; the daemon uses {used:.1f} MB", flush=True)
                    break
            else:
                print(f"{tokens:6} tokens: not even {_SIZES[-1]} MiB are enough", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
