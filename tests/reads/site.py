"""A daemon whose tokens live for seconds, in files of all formats, and all readers of these files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from support.counted import NOBODY, SUFFIXES, TEMPLATE, Readers, compiled, readers, wait_for
from support.kept import Kept, kept
from support.minting import Minting, minting

FORMATS: Final = ("raw", "json", "header", "env", "template")
SHORT: Final = (4.0, 8.0)
"""Lifetimes in seconds. A refresh is due after half of it, so at least 2 s are left then for the request, the files,
and a machine that has much else to do."""
LONG: Final = (80.0, 120.0)
"""Lifetimes while the daemon is killed and started again: a start has at least 40 s. At load 30 it took 13 s."""


@dataclass
class Site:
    """The parts of a run on one file system."""

    daemon: Kept
    provider: Minting
    readers: Readers
    files: dict[str, list[str]]
    """`FORMAT:PATH` of each file, by format."""
    config: dict[str, Any] = field(default_factory=dict)

    @property
    def every(self) -> list[str]:
        """All files."""
        return [file for files in self.files.values() for file in files]


@contextmanager
def site(
    scratch: Path, output: Path, tokens: int, lifetimes: tuple[float, float], environment: Mapping[str, str]
) -> Iterator[Site]:
    """A daemon that has all its tokens, in a directory of some file system. `scratch` has its config."""
    (scratch / "secret").write_text("first")
    (scratch / "secret").chmod(0o600)
    (scratch / "template").write_text(TEMPLATE)
    with minting(*lifetimes) as provider:
        config = _config(scratch, output, tokens, provider)
        names = list(config["clients"]["reads"]["tokens"])
        files = {kind: [f"{kind}:{output}/reads/{name}{SUFFIXES[kind]}" for name in names] for kind in FORMATS}
        with kept(scratch / "config.yaml", output, environment) as daemon, readers(compiled(scratch)) as reading:
            here = Site(daemon, provider, reading, files, config)
            daemon.rewrite(config)
            daemon.start()
            wait_for(here.every)
            yield here


def start_readers(here: Site, bound: Path) -> None:
    """Start all kinds of readers. `bound` is where the output directory is bind mounted once more."""
    output, every = str(here.daemon.tokens), here.every
    elsewhere = [file.replace(output, str(bound)) for file in every]
    reading = here.readers
    reading.c("C: open, read, close", "read", every)
    reading.c("C: read in pieces of 256 bytes", "pieces", every)
    reading.c("C: mmap", "mmap", every)
    reading.c("C: stat, then read", "stat", every)
    reading.c("C: held open until replaced", "held", every)
    reading.c("C: read at each inotify event", "inotify", every)
    reading.c("C: as another user of the group", "read", every, user=NOBODY)
    reading.c("C: through a bind mount", "mmap", elsewhere)
    reading.python("Python: all formats parsed", every)
    # A few files: a shell reads some hundred a second, and is to see most refreshes of them.
    reading.shell("sh: $(cat FILE)", "dash", "cat", [*here.files["raw"][:2], *here.files["header"][:2]])
    reading.shell("sh: read <FILE", "dash", "read", [*here.files["raw"][:2], *here.files["header"][:2]])
    reading.shell("sh: . FILE", "dash", "source", here.files["env"][:4])
    reading.shell("bash: $(<FILE)", "bash", "substitute", [*here.files["raw"][:2], *here.files["header"][:2]])


def _config(scratch: Path, output: Path, tokens: int, provider: Minting) -> dict[str, Any]:
    files: list[dict[str, Any]] = [{"format": kind} for kind in FORMATS]
    files[3]["name"] = "TOKEN"
    names = [f"t{number}" for number in range(tokens)]
    template = files[4] | {"template": str(scratch / "template")}
    each = {
        name: {"scope": name, "files": [*files[:4], template | {"path": f"reads/{name}{SUFFIXES['template']}"}]}
        for name in names
    }
    return {
        # The readers of the group can open a file only if its owner and mode are right before its rename.
        "output": {"directory": str(output), "directory_mode": "0750", "mode": "0640", "group": str(NOBODY)},
        "providers": {"p": {"token_url": provider.url, "allow_http": True}},
        "clients": {
            "reads": {
                "provider": "p",
                "client_id": "reads",
                "client_secret": {"file": str(scratch / "secret")},
                "tokens": each,
            }
        },
    }
