"""Whether a daemon that has run for long is as one that has just begun: `python -m bench.soak [SECONDS [TOKENS]]`.

Tokens of six seconds, each renewed every three, and readers of all their files. Prints, from the first minute to the
last, what grows: memory, descriptors, threads; and how many reads found a token that is no good, which is exit 1.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Self

from bench.measure import configure, cpu, daemon, status, wait_for_files
from support.provider import Provider
from support.server import serving

_LIFETIME = 6.0
_LOOKS = 4
_PAUSE = 0.02  # between two rounds of the reader: it is not what is measured


class Readers:
    """Reads every file, round after round."""

    def __init__(self, files: list[Path], provider: Provider) -> None:
        self._files, self._provider = files, provider
        self.reads = self.bad = 0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._read)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _read(self) -> None:
        while not self._end.wait(_PAUSE):
            for file in self._files:
                self.reads += 1
                try:
                    self.bad += not self._provider.takes(file.read_text())
                except OSError:
                    self.bad += 1


def main() -> int:
    """Look at it so many times, evenly."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 600.0
    tokens = int(sys.argv[2]) if len(sys.argv) > 2 else 200
    provider = Provider()
    provider.secret, provider.lifetime = "s", _LIFETIME
    with serving(provider) as server, tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        directory = Path(name)
        config = configure(directory, server.port, tokens)
        config.write_text(config.read_text().replace("client_id: x", "client_id: 7e0c5a"))
        with daemon(config) as process:
            wait_for_files(directory, tokens, 0.2)
            files = [path for path in directory.glob("tokens/c*/t*") if path.is_file()]
            with Readers(files, provider) as readers:
                for look in range(_LOOKS + 1):
                    if look:
                        time.sleep(seconds / _LOOKS)
                    own = Path(f"/proc/{process.pid}")
                    print(
                        f"after {look * seconds / _LOOKS:4.0f} s: {provider.grants} grants, "
                        f"{status(process.pid, 'VmRSS'):.1f} MB, {len(os.listdir(own / 'fd'))} descriptors, "
                        f"{len(os.listdir(own / 'task'))} threads, {cpu(process.pid):.1f} s of CPU",
                        flush=True,
                    )
    print(f"{readers.reads} reads, {readers.bad} of them of a token that is no good")
    return 1 if readers.bad else 0


if __name__ == "__main__":
    raise SystemExit(main())
