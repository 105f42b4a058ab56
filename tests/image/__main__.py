"""The image, built and run: `cd tests && python -m image`, as root on Debian with podman, crun and mmdebstrap.

Builds the Containerfile on a stand-in for its base, then does with podman what docs/kubernetes.md says: the pod of the
sidecar, the job's init container, the patch for signals, and the commands for Docker and Podman. Prints what it saw;
exit 1 where one thing is otherwise. Where it cannot run it says SKIPPED, and why.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

from image.podman import PROGRAMS, Podman
from image.scenes import build, by_hand, job, sidecar, signals
from support.provider import Provider
from support.rig import INSIDE, in_a_namespace_of_mounts, one_cgroup_tree, say, why_not
from support.server import serving


def main() -> int:
    """Skip, or build and run all of it."""
    if why := why_not(PROGRAMS):
        say(f"SKIPPED: {why}")
        return 0
    if INSIDE not in sys.argv:
        in_a_namespace_of_mounts("image", [INSIDE])
    one_cgroup_tree()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="bearerd-image-") as name:
        directory = Path(name)
        directory.chmod(0o755)  # others than root go through it
        podman = Podman(directory)
        try:
            build(podman)
            for scene in (sidecar, signals, job, by_hand):
                with serving(provider := Provider()) as server:
                    (directory / scene.__name__).mkdir()
                    scene(podman, directory / scene.__name__, server.url, provider)
        except (AssertionError, subprocess.SubprocessError) as error:
            say(f"FAILED: {traceback.format_exc()}{getattr(error, 'stderr', '') or ''}")
            return 1
        finally:
            podman.clear()
    say(f"all of it in {time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
