"""A daemon with a thousand tokens of four providers, and readers of their files."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, Final

from soak.samples import COUNTING
from support.counted import SUFFIXES, TEMPLATE, Readers, compiled, readers, wait_for
from support.kept import Kept, kept
from support.minted import wait_until_good_for
from support.minting import Minting, minting
from support.process import patched

PROVIDERS: Final = 4
CLIENTS: Final = 5
"""Of each provider."""
TOKENS: Final = 50
"""Of each client."""
SHORTEST: Final = 10.0
LONGEST: Final = 60.0
"""The lifetimes in seconds. A refresh is due after half of one, so 60 are due each second."""
LONGEST_PROTECTED: Final = 59.0
"""The longest shortest lifetime that may be asked for."""
CONCURRENCY: Final = 16
"""Requests to a provider at a time: enough for 32 a second while each takes half a second."""
RATE: Final = (60, 10)
"""Requests of the one client with a rate limit, and the seconds of its window. It needs half of that."""
RATE_LIMITED: Final = "p0c0"
VICTIMS: Final = "victims"
"""The client whose files others delete. No reader looks at them: they may be missing for 10 s."""


class Lifetimes:
    """The lifetimes that a provider gives to its tokens. Faults ask for longer ones, which outlive them."""

    def __init__(self, provider: Minting, files: Sequence[Path]) -> None:
        self._provider = provider
        self._files = files
        self._lock = threading.Lock()
        self._wanted: list[float] = []

    @contextmanager
    def at_least(self, seconds: float) -> Iterator[None]:
        """Wait until no file has a token of a shorter lifetime; none gets one during the block."""
        with self._lock:
            self._wanted.append(seconds)
            self._set()
        try:
            # A refresh is due after half of it, and one may be under way.
            wait_until_good_for(seconds / 2 - 2, self._files)
            yield
        finally:
            with self._lock:
                self._wanted.remove(seconds)
                self._set()

    def relax(self) -> None:
        """Give short lifetimes from now on, unless a fault needs longer ones."""
        with self._lock:
            self._set()

    def _set(self) -> None:
        self._provider.set_lifetimes(max([SHORTEST, *self._wanted]), LONGEST)


@dataclass
class Site:
    """The parts of a run."""

    scratch: Path
    output: Path
    providers: list[Minting]
    lifetimes: list[Lifetimes]
    daemon: Kept
    readers: Readers
    config: dict[str, Any]
    files: list[str] = field(default_factory=list)
    """`FORMAT:PATH` of the files that are read."""

    def secret(self, client: str) -> Path:
        """The file with the secret of a client."""
        return self.scratch / f"{client}.secret"

    @contextmanager
    def all_at_least(self, seconds: float) -> Iterator[None]:
        """Wait until no token of any provider has a shorter lifetime."""
        with ExitStack() as stack:
            for lifetimes in self.lifetimes:
                stack.enter_context(lifetimes.at_least(seconds))
            yield

    def grants(self) -> int:
        """How many tokens were issued."""
        return sum(provider.totals().grants for provider in self.providers)


@contextmanager
def site(scratch: Path, output: Path, seed: int, first: float) -> Iterator[Site]:
    """A daemon that has all its tokens; the first ones have lifetimes of at least `first` seconds."""
    (scratch / "template").write_text(TEMPLATE)
    with ExitStack() as stack:
        providers = [
            stack.enter_context(minting(first, LONGEST, seed * PROVIDERS + number)) for number in range(PROVIDERS)
        ]
        config: dict[str, Any] = {
            "output": {"directory": str(output), "directory_mode": "0750"},
            "log": {"level": "warning"},
            "providers": {
                f"p{number}": {
                    "token_url": provider.url,
                    "allow_http": True,
                    "timeout": "3s",
                    "max_concurrency": CONCURRENCY,
                }
                for number, provider in enumerate(providers)
            },
            "clients": {},
        }
        environment = patched(scratch, {}, *COUNTING) | {"BEARERD_BLOCKS": str(scratch / "blocks")}
        daemon = stack.enter_context(kept(scratch / "config.yaml", output, environment))
        reading = stack.enter_context(readers(compiled(scratch)))
        here = Site(scratch, output, providers, [], daemon, reading, config)
        for number, index in product(range(PROVIDERS), range(CLIENTS)):
            name = f"p{number}c{index}"
            config["clients"][name] = client(here, name, number, TOKENS)
            here.files += _files(output, name, config["clients"][name]["tokens"])
        for number, provider in enumerate(providers):
            raw = [Path(file.removeprefix("raw:")) for file in here.files if file.startswith(f"raw:{output}/p{number}")]
            here.lifetimes.append(Lifetimes(provider, raw))
        config["clients"][RATE_LIMITED]["rate_limit"] = f"{RATE[0]}/{RATE[1]}s"
        config["clients"]["p1c0"]["on_change"] = [{"run": ["/bin/sh", "-c", f"echo x >>{scratch}/hooks"]}]
        config["clients"][VICTIMS] = client(here, VICTIMS, 1, 10)
        daemon.rewrite(config)
        daemon.start()
        wait_for(here.files)
        yield here


def client(here: Site, name: str, provider: int, tokens: int) -> dict[str, Any]:
    """The config of a client. Some of its tokens have files in more formats."""
    here.secret(name).touch(0o600)
    here.secret(name).write_text("first")
    each: dict[str, Any] = {}
    for number in range(tokens):
        files: list[dict[str, Any]] = [{"format": "raw"}]
        if number % 4 == 0:
            files.append({"format": "json"})
        if number % 10 == 1:
            files.append({"format": "header"})
        if number % 10 == 2:
            files.append({"format": "env", "name": "TOKEN"})
        if number % 20 == 3:
            both = {"format": "template", "template": str(here.scratch / "template")}
            files.append(both | {"path": f"{name}/t{number}{SUFFIXES['template']}"})
        each[f"t{number}"] = {"scope": f"t{number}", "files": files}
    return {
        "provider": f"p{provider}",
        "client_id": name,
        "client_secret": {"file": str(here.secret(name))},
        "tokens": each,
    }


def start_readers(here: Site) -> None:
    """Readers that look at all files all the time, with pauses: the daemon and its providers need the processors."""
    reading, some = here.readers, [file for file in here.files if file.startswith("raw:")][::50]
    reading.c("C: open, read, close", "read", here.files, pause=200)
    reading.c("C: mmap", "mmap", here.files, pause=500)
    reading.c("C: held open until replaced", "held", here.files, pause=500)
    reading.c("C: read at each inotify event", "inotify", here.files)
    reading.python("Python: all formats parsed", here.files[::7], pause=0.002)
    reading.shell("sh: $(cat FILE)", "dash", "cat", some)


def document(here: Site, more: dict[str, Any]) -> str:
    """The config with more clients."""
    return json.dumps(here.config | {"clients": here.config["clients"] | more})


def _files(output: Path, name: str, tokens: dict[str, Any]) -> list[str]:
    return [
        f"{file['format']}:{output}/{name}/{token}{SUFFIXES[file['format']]}"
        for token, settings in tokens.items()
        for file in settings["files"]
    ]
