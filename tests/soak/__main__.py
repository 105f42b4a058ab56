"""A daemon under faults for long: `cd tests && python -m soak [--short] [--minutes N] [--seed N]`, as root.

A thousand tokens of four providers and 21 clients, with lifetimes of 10 to 60 s, while faults come at random: see
`soak/faults.py`. Readers in C, Python and shell look at all files all the time. No read may find a file torn, absent,
or with an expired token. In the end everything has to be in order, and the daemon has to be as small as at first: live
blocks, memory, threads and descriptors are sampled, and the medians of the first and the last third compared. The
daemon is killed only before and after that time: a new process is always as small as a new process.

A second daemon, which leaks, shows that a leak is found.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from bearerd.cli.ask import NoAnswer
from reads.reader import understood
from soak.faults import Faults, Strength, kill
from soak.leak import LEAKING, leaks
from soak.samples import MEASURED, Samples, sampled
from soak.site import CONCURRENCY, LONGEST_PROTECTED, RATE, RATE_LIMITED, Site, site, start_readers
from support.counted import prioritise
from support.kept import session_of
from support.minted import boot_ms
from support.minting import PRIORITY
from support.process import eventually
from support.rig import INSIDE, in_a_namespace_of_mounts, in_memory, say, why_not

_PROGRAMS: Final = {
    "dash": "dash",
    "gcc": "gcc",
    "ip": "iproute2",
    "nft": "nftables",
    "unshare": "util-linux",
}
_MINUTES: Final = 20.0
_SHORT_SECONDS: Final = 35.0
_OUTPUT_SIZE: Final = "64m"
"""Of the file system of the tokens: three times what they need, and quickly full."""
_SAYS_EVERY: Final = 60.0
_SHOWN: Final = 20
_REFUSED_LIMIT: Final = 4
"""The default of `refused_limit`, within two minutes. No client is revoked twice within that."""
_RESTORED_WITHIN: Final = 30.0
"""Seconds until deleted files are back. Ten are promised; the rig keeps its machine busy."""
_MOST_PROCESSES: Final = 3
"""The daemon, the parent of its config readers, and the hook that may run just then."""


def main() -> int:
    """Run it; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m soak")
    parser.add_argument("--short", action="store_true", help="the form for CI, in a minute")
    parser.add_argument("--minutes", type=float, default=_MINUTES, help="of faults; the default is 20")
    parser.add_argument("--seed", type=int, default=1, help="of the faults")
    parser.add_argument(INSIDE, action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if why := why_not(_PROGRAMS):
        say(f"SKIPPED: {why}")
        return 0
    if not options.inside:
        in_a_namespace_of_mounts("soak", [INSIDE, *sys.argv[1:]], "--net")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    prioritise(os.getpid(), PRIORITY)  # a rig that waits for the processor would let faults last for longer
    seconds = _SHORT_SECONDS if options.short else options.minutes * 60
    strength = Strength(1.5, 5.0, 1.0) if options.short else Strength(6.0, 12.0, 12.0)
    with in_memory("soak") as scratch:
        try:
            return soak(scratch, seconds, strength, options.seed, (1, 0) if options.short else (3, 3))
        except (AssertionError, OSError, subprocess.SubprocessError):
            say(f"FAILED: seed {options.seed}: {traceback.format_exc()}")
            return 1


def soak(scratch: Path, seconds: float, strength: Strength, seed: int, kills: tuple[int, int]) -> int:
    """Start, kill, let faults happen, kill again, and look whether all is in order; returns the exit code."""
    began, disk = time.monotonic(), scratch / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"mode=0755,size={_OUTPUT_SIZE}", "tmpfs", disk], check=True)
    try:
        with site(scratch, disk / "tokens", seed, LONGEST_PROTECTED) as here, ThreadPoolExecutor(1) as pool:
            faults, dice = Faults(here, strength, seed, verbose=kills[1] > 0), random.Random(seed)
            start_readers(here)
            kill(here, kills[0], dice, faults.counts)
            for lifetimes in here.lifetimes:
                lifetimes.relax()
            here.daemon.refresh_all(here.config)
            leaking = pool.submit(leaks, scratch / "leak")
            with faults.happening():
                samples = watch(here, faults, seconds)
            well(here)
            if kills[1]:
                with here.all_at_least(LONGEST_PROTECTED):
                    kill(here, kills[1], dice, faults.counts)
                    well(here)
            here.readers.end()
            problems = [*in_order(here, faults), *ended(here)]
            grants = here.grants()
            leak = leaking.result()
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)
    growths, counts = samples.growths(), here.readers.counts()
    problems += [str(one) for one in growths if not one.flat]
    problems += [f"{name} was not measured" for name in sorted(MEASURED - {one.name for one in growths})]
    problems += [f"the leak of the second daemon was not detected: {one}" for one in leak if one.flat]
    problems += [f"{name}, which leaks, was not measured" for name in sorted(LEAKING - {one.name for one in leak})]
    problems += [f"{reader.label} saw no refresh" for reader in here.readers.all if not reader.counts.refreshes]
    problems += [f"a read was bad: {fault}" for fault in here.readers.faults()[:_SHOWN]]
    for one in growths:
        say(str(one))
    say(f"the second daemon, which leaks: {'; '.join(map(str, leak))}")
    say(
        f"slowest start {here.daemon.slowest_start:.1f} s; deleted files were back in {faults.slowest_restore:.1f} s; "
        f"the longest fault lasted {faults.longest:.1f} s of {strength.longest:.1f} s; "
        f"the read closest to an expiry: {here.readers.closest()}"
    )
    for reader in here.readers.all:
        say(f"{reader.label}: {reader.counts.reads:,} reads, {reader.counts.refreshes:,} refreshes seen")
    for problem in problems:
        say(f"PROBLEM: {problem}")
    if problems:
        say(f"seed {seed}; the end of the log:\n{here.daemon.log()}")
    say(f"all of it in {time.monotonic() - began:.0f} s\n")
    table(here, grants, faults, samples, seconds)
    return 1 if problems or counts.bad else 0


def watch(here: Site, faults: Faults, seconds: float) -> Samples:
    """Take samples while faults happen, and look whether everything still runs."""
    pause, end, warm = threading.Event(), time.monotonic() + seconds, seconds / 10
    pause.wait(warm)
    said = time.monotonic()
    with sampled(here.daemon.pid, every=min(2.0, seconds / 60), blocks=here.scratch / "blocks") as samples:
        while time.monotonic() < end and not faults.errors:
            pause.wait(0.5)
            here.daemon.running()
            here.readers.running()
            if time.monotonic() > said + _SAYS_EVERY:
                said = time.monotonic()
                say(f"{end - said:.0f} s left; {here.grants()} refreshes; {here.readers.counts()}")
                say(f"  {dict(faults.counts)}")
    return samples


def well(here: Site) -> None:
    """Wait until all tokens are valid, and no file has an error."""
    eventually(lambda: not troubled(here))


def troubled(here: Site) -> list[str]:
    """The tokens that are not well, or why there is no status."""
    try:
        tokens = here.daemon.status()["tokens"]
    except NoAnswer as error:  # a megabyte, which a busy machine may not send in time
        return [str(error)]
    return [
        token["name"] for token in tokens if token["state"] != "valid" or token["last_error"] or token["file_errors"]
    ]


def in_order(here: Site, faults: Faults) -> list[str]:
    """What is not as it should be while the daemon still runs."""
    problems = [str(error) for error in faults.errors]
    for file in here.files:
        kind, _, path = file.partition(":")
        before = boot_ms()
        token = understood(kind, Path(path).read_bytes())
        if token is None or token.expires <= before:
            problems.append(f"{path} is not a whole, valid token")
    for number, provider in enumerate(here.providers):
        totals = provider.totals()
        if totals.most_at_once > CONCURRENCY:
            problems.append(f"p{number} had {totals.most_at_once} requests at once; max_concurrency is {CONCURRENCY}")
        for client, refused in totals.refused.items():
            # Those that were under way at the first refusal do not count for the limit.
            allowed = faults.revoked[client] * (_REFUSED_LIMIT + CONCURRENCY)
            if refused > allowed:
                problems.append(f"{client} had {refused} refused requests; {allowed} are allowed")
        if (most := most_within(totals.times.get(RATE_LIMITED, []), RATE[1])) > RATE[0]:
            problems.append(f"{RATE_LIMITED} sent {most} requests within {RATE[1]} s; its limit is {RATE[0]}")
    if faults.slowest_restore > _RESTORED_WITHIN:
        problems.append(f"deleted files were back after {faults.slowest_restore:.0f} s")
    if not (here.scratch / "hooks").exists():
        problems.append("no hook ran")
    processes = session_of(here.daemon.pid)
    if "Z" in processes.values() or len(processes) > _MOST_PROCESSES:
        problems.append(f"the daemon has these processes: {processes}")
    return problems


def ended(here: Site) -> list[str]:
    """Stop the daemon; what is left of it then."""
    took = here.daemon.stop()
    eventually(lambda: not session_of(here.daemon.pid))
    left = [str(path) for path in here.output.rglob(".bearerd-*.tmp")]
    say(f"stopped in {took:.1f} s")
    return [f"left over: {path}" for path in left]


def most_within(times: list[float], window: float) -> int:
    """The greatest number of moments within a window."""
    most = first = 0
    for last, at in enumerate(times):
        while times[first] < at - window:
            first += 1
        most = max(most, last - first + 1)
    return most


def table(here: Site, grants: int, faults: Faults, samples: Samples, seconds: float) -> None:
    """The result, in Markdown."""
    counts = here.readers.counts()
    [rss] = [one for one in samples.growths() if one.name == "RSS, MB of the daemon"]
    tokens = sum(len(settings["tokens"]) for settings in here.config["clients"].values())
    kinds = ", ".join(f"{kind} ({count})" for kind, count in sorted(faults.counts.items()))
    say(
        "| minutes | tokens | refreshes | reads | torn | absent | expired | RSS first/last third "
        "| threads | descriptors | faults by kind |"
    )
    say("|---:|---:|---:|---:|---:|---:|---:|---|---|---|---|")
    say(
        f"| {seconds / 60:.1f} | {tokens:,} | {grants:,} | {counts.reads:,} | {counts.torn} | {counts.absent} | "
        f"{counts.expired} | {rss.first:.1f} / {rss.last:.1f} MB | {samples.range('threads')} | "
        f"{samples.range('descriptors')} | {kinds} |"
    )


if __name__ == "__main__":
    raise SystemExit(main())
