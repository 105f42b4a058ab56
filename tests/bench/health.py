"""What a probe costs beside Python's own start: `python tests/bench/health.py [RUNS]`.

Figures, not assertions: machines are noisy. Both kinds of run alternate, so that what else the machine does
falls on both alike; the last line is the ratio of the medians, which is to stay below 3.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[1]))
from bench.measure import configure, daemon, provider, wait_for_files


def took(argv: list[str]) -> float:
    """Milliseconds of a run that ends well."""
    began = time.perf_counter()
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
    return (time.perf_counter() - began) * 1000


def main() -> None:
    """One token; probes of each kind."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 60
    with provider() as port, tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        with daemon(configure(directory, port, 1)):
            wait_for_files(directory, 1, 0.01)
            command = [str(Path(sys.executable).with_name("bearerd")), "health"]
            command += ["--socket", f"{directory}/tokens/.bearerd/control.sock"]
            subprocess.run([*command, "--wait", "30s"], check=True, stdout=subprocess.DEVNULL)
            worst = 0.0
            for what in ([], ["--live"], ["c0/t0"]):
                plain, probes = [], []
                for _ in range(runs):
                    plain.append(took([sys.executable, "-c", "pass"]))
                    probes.append(took([*command, *what]))
                ratio = median(probes) / median(plain)
                worst = max(worst, ratio)
                print(
                    f"bearerd health {' '.join(what):7} {median(probes):5.1f} ms, "
                    f"python -c pass {median(plain):5.1f} ms: {ratio:.2f} times",
                    flush=True,
                )
    print(f"a probe costs at most {worst:.2f} times python -c pass")


if __name__ == "__main__":
    main()
