"""A Debian or Ubuntu with systemd as process 1, in a container; the network is this machine's."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from support.pip import settings
from support.process import eventually
from support.rig import say

ROOT = Path(__file__).parents[2]
PROGRAMS = {"mmdebstrap": "mmdebstrap", "systemd-nspawn": "systemd-container", "nsenter": "util-linux"}
CHECKOUT = "/srv/bearerd"
"""Where the checkout is in it."""
# What the page's first step installs is there already: no list of packages has to be fetched for it.
_PACKAGES = "systemd-sysv,dbus,python3,python3-venv,ca-certificates,nginx,gnupg,pass,curl,libpam-systemd"
_BOOTS_WITHIN = 180.0
_POWER_OFF = signal.SIGRTMIN + 4  # systemd(1)
_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C",
    # The default takes half a minute of CPU time per package, and the content is the same.
    "DPKG_DEB_COMPRESSOR_LEVEL": "1",
}
_CGROUPS = Path("/sys/fs/cgroup")
_UBUNTU_KEYS = Path("usr/share/keyrings/ubuntu-archive-keyring.gpg")


class System(NamedTuple):
    """A release of a distribution."""

    suite: str
    name: str
    more: str = ""
    """Packages besides those that every system gets."""
    ubuntu: bool = False


SYSTEMS = (
    System("bookworm", "Debian 12", more="rpm"),
    System("trixie", "Debian 13"),
    System("noble", "Ubuntu 24.04", more="apt", ubuntu=True),
)


class UnreachableError(Exception):
    """The archive of a system cannot be reached from here."""


class Machine:
    """What runs in it."""

    def __init__(self, system: System, directory: Path, leader: int) -> None:
        self.system = system
        self._directory = directory
        self._leader = leader
        # In a control group outside of the machine, logind of systemd 257 would not answer.
        [line] = [line for line in Path(f"/proc/{leader}/cgroup").read_text().splitlines() if line.startswith("0::")]
        entered = ["sh", "-c", 'echo $$ > "$0"; exec nsenter "$@"', str(_CGROUPS / line[4:] / "cgroup.procs")]
        self._inside = [*entered, "--target", str(leader), "--all"]

    def say(self, text: str) -> None:
        """Print a line of results. Several machines run at the same time."""
        say(f"{self.system.name:13} {text}")

    def path(self, path: str) -> Path:
        """A path of it, as seen from here."""
        return Path(f"/proc/{self._leader}/root{path}")

    def run(self, *argv: str, code: int = 0, given: str = "", within: float = 900.0) -> str:
        """Run a program as root, in the checkout; it must end with this code. What it printed, both ways."""
        inside = [*self._inside, f"--wd={self.path(CHECKOUT)}", "--"]
        done = subprocess.run(
            [*inside, *argv], env=_ENVIRONMENT, input=given, timeout=within, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        assert done.returncode == code, f"{' '.join(argv)}: exit {done.returncode}, not {code}\n{done.stdout}"
        return done.stdout.strip()

    def code(self, *argv: str) -> int:
        """How a program ends."""
        return subprocess.run(
            [*self._inside, "--", *argv], env=_ENVIRONMENT, capture_output=True, check=False
        ).returncode

    def sh(self, script: str, given: str = "") -> str:
        """Commands as root types them, in the checkout; each must succeed."""
        return self.run("bash", "-euo", "pipefail", "-c", script, given=given)

    def write(self, path: str, text: str) -> None:
        """A file of it, replaced as an editor does."""
        self.run("bash", "-c", 'mkdir -p "${1%/*}" && cat > "$1.new" && mv "$1.new" "$1"', "-", path, given=text)

    def drop_in(self, unit: str, name: str, text: str | None) -> None:
        """Give a unit a drop-in, or take it away."""
        directory = f"/etc/systemd/system/{unit}.d"
        path = f"{directory}/{name}.conf"
        if text is None:
            self.run("rm", path)
            self.run("rmdir", "--ignore-fail-on-non-empty", directory)
        else:
            self.write(path, text)
        self.run("systemctl", "daemon-reload")

    def show(self, unit: str, key: str) -> str:
        """A property of a unit."""
        return self.run("systemctl", "show", "--value", f"--property={key}", unit)

    def journal(self, unit: str) -> str:
        """All that a unit said."""
        return self.run("journalctl", "--no-pager", "--output=cat", f"--unit={unit}")

    def kill(self, unit: str, number: signal.Signals) -> None:
        """Send a signal to a unit's main process."""
        self.run("systemctl", "kill", "--kill-whom=main", f"--signal={number.name}", unit)

    def known(self) -> list[str]:
        """All files and directories that are bearerd's by their names."""
        others = "-not -path '/run/systemd/*' -not -path '/var/lib/dpkg/*'"
        return self.sh(f"find /etc /opt /run /usr /var/lib -xdev -name '*bearerd*' {others}").splitlines()

    def version(self) -> str:
        """Of its systemd."""
        found = re.match(r"systemd (\d+)", self.run("systemctl", "--version"))
        assert found
        return found[1]


@contextmanager
def machine(system: System, directory: Path) -> Iterator[Machine]:
    """Made, booted, with this checkout in it, for the length of a with block. Raises UnreachableError."""
    root = directory / system.suite
    _make(system, root, directory)
    (root / "etc/machine-id").write_text(f"{uuid.uuid4().hex}\n")  # else it would be a first boot, with questions
    (root / "etc/systemd/system/multi-user.target.wants/nginx.service").unlink()
    # Nothing here has to survive a power failure.
    (root / "etc/dpkg/dpkg.cfg.d/unsafe-io").write_text("force-unsafe-io\n")
    pip, paths = settings()
    (root / "etc/pip.conf").write_text(pip)
    for path in paths:  # or nspawn would make a directory
        if Path(path).is_file():
            (root / path[1:]).parent.mkdir(parents=True, exist_ok=True)
            (root / path[1:]).touch()
    shutil.copytree(
        ROOT,
        root / CHECKOUT[1:],
        symlinks=True,
        ignore=shutil.ignore_patterns(".git", ".venv", ".*_cache", "__pycache__"),
    )
    argv = ["systemd-nspawn", "--quiet", f"--directory={root}", "--register=no", "--keep-unit", "--console=pipe"]
    argv += [f"--bind-ro={path}" for path in paths] + ["--boot", "systemd.firstboot=off"]
    with (directory / f"{system.suite}.console").open("w") as console, _cgroup(system) as cgroup:
        entered = ["sh", "-c", 'echo $$ > "$1/cgroup.procs"; shift; exec "$@"', "sh", str(cgroup)]
        process = subprocess.Popen([*entered, *argv], stdin=subprocess.DEVNULL, stdout=console, stderr=console)
        try:
            eventually(
                lambda: process.poll() is not None or _state(process.pid) in {"running", "degraded"}, _BOOTS_WITHIN
            )
            assert process.poll() is None, Path(console.name).read_text()
            [leader] = _children(process.pid)
            here = Machine(system, directory, leader)
            failed = here.run("systemctl", "--failed", "--no-legend", "--plain")
            assert failed == "", f"at the start of {system.name}: {failed}"
            yield here
            os.kill(leader, _POWER_OFF)
            process.wait(_BOOTS_WITHIN)
        finally:
            # The container would outlive nspawn.
            for pid in _children(process.pid):
                os.kill(pid, signal.SIGKILL)
            process.kill()
            process.wait()


def _make(system: System, root: Path, directory: Path) -> None:
    """Install a system into a directory."""
    options = ["--quiet", "--mode=root", "--variant=minbase"]
    options.append(f"--include={','.join(filter(None, [_PACKAGES, system.more]))}")
    if system.ubuntu:
        keys = Path("/") / _UBUNTU_KEYS
        if not keys.exists():  # Debian has them since 13
            extracted = directory / "keys"
            subprocess.run(
                ["mmdebstrap", "--quiet", "--variant=extract", "--include=ubuntu-archive-keyring", "trixie", extracted],
                check=True,
            )
            keys = extracted / _UBUNTU_KEYS
        options += [f"--keyring={keys}", "--components=main,universe"]  # pass is in universe
    done = subprocess.run(
        ["mmdebstrap", *options, system.suite, root], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        check=False,
    )  # fmt: skip
    if done.returncode and system.ubuntu and "apt-get update" in done.stdout:
        raise UnreachableError(done.stdout)
    assert done.returncode == 0, done.stdout


@contextmanager
def _cgroup(system: System) -> Iterator[Path]:
    """A control group of its own: with --keep-unit, two machines in one would kill each other's processes."""
    [line] = [line for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::")]
    path = _CGROUPS / line[3:].strip("/") / f"bearerd-{system.suite}-{os.getpid()}"
    path.mkdir()
    try:
        yield path
    finally:
        for directory, _, _ in os.walk(path, topdown=False):
            eventually(lambda directory=directory: _removed(Path(directory)))


def _removed(directory: Path) -> bool:
    """Remove a control group, unless a process that was killed is still there."""
    try:
        directory.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _state(nspawn: int) -> str:
    """How far it has booted, in systemd's words."""
    for leader in _children(nspawn):  # at first that is another
        inside = ["nsenter", "--target", str(leader), "--all", "--"]
        asked = [*inside, "systemctl", "is-system-running", "--wait"]
        return subprocess.run(asked, env=_ENVIRONMENT, capture_output=True, text=True, check=False).stdout.strip()
    return ""


def _children(pid: int) -> list[int]:
    """Of a process; none while it, too, is not there."""
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
