"""The process that reads the config: its answers, its resources, and its end."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from support.process import WITHIN, command, eventually

SMALLEST = """\
clients:
  dnb:
    token_url: https://login.example.com/t
    client_id: 7e0c5a
    client_secret: {file: /etc/bearerd/dnb.secret}
    tokens: {bci: {}}
"""
# Runs in a process without threads. Each line of its input is the path of a config to read.
HOST = """
import json, os, resource, sys
from bearerd.config import reader
from bearerd.process import harden
for name, value in json.loads(sys.argv[1]).items():
    setattr(reader, name, value)
exec(sys.argv[2])
assert harden() is None
made = reader.ConfigReader()
from bearerd.errors import ConfigError, ConfigUnavailable
for line in sys.stdin:
    path, full = json.loads(line)
    if path == "patience":
        reader._GRACE = 60
        continue
    if path == "no more descriptors":
        lowest = os.dup(0)
        os.close(lowest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, lowest))
        continue
    try:
        config = made.read(path, full=full)
        said = ["config", len(config.targets), config.directory]
    except ConfigError as error:
        said = ["wrong", error.full]
    except ConfigUnavailable as error:
        said = ["unavailable", str(error)]
    print(json.dumps(said), flush=True)
"""


class Host:
    """A process with a reader."""

    def __init__(self, environ: Mapping[str, str], first: str, changes: Mapping[str, Any]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOST, json.dumps(changes), first],
            env={**os.environ, **environ},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        eventually(lambda: children(self.process.pid))
        (self.reader,) = children(self.process.pid)

    def ask(self, path: Path, *, full: bool = False) -> None:
        assert self.process.stdin
        self.process.stdin.write(json.dumps([str(path), full]) + "\n")
        self.process.stdin.flush()

    def answer(self) -> Any:
        assert self.process.stdout
        return json.loads(self.process.stdout.readline())

    def read(self, path: Path, *, full: bool = False) -> Any:
        self.ask(path, full=full)
        return self.answer()


def children(pid: int) -> list[int]:
    """The running children of a process."""
    found = []
    for entry in filter(str.isdecimal, os.listdir("/proc")):
        try:
            state, parent = Path(f"/proc/{entry}/stat").read_text(errors="replace").rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if int(parent) == pid and state not in "ZX":
            found.append(int(entry))
    return found


@pytest.fixture
def host() -> Iterator[Callable[..., Host]]:
    hosts: list[Host] = []

    def make(environ: Mapping[str, str] | None = None, *, first: str = "", **changes: Any) -> Host:
        hosts.append(Host(environ or {}, first, changes))
        return hosts[-1]

    yield make
    for made in hosts:
        made.process.kill()
        made.process.communicate(timeout=WITHIN)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(SMALLEST)
    return path


def test_a_reader_reads_many_configs(host: Callable[..., Host], config: Path) -> None:
    made = host({"RUNTIME_DIRECTORY": "/run/mine"})
    assert made.read(config) == ["config", 1, "/run/mine"]
    config.write_text(SMALLEST.replace("bci: {}", "bci: {}, risk: {}"))
    assert made.read(config) == ["config", 2, "/run/mine"]
    assert children(made.reader) == []


def test_an_error_has_its_place_and_kind_and_only_for_check_more(host: Callable[..., Host], config: Path) -> None:
    config.write_text(SMALLEST.replace("{}", "{scope: 5}").replace("client_id", "client_idd"))
    made = host()
    assert made.read(config) == ["wrong", f"{config}:4:5: unknown key\n{config}:6:27: wrong value"]
    kind, said = made.read(config, full=True)
    assert kind == "wrong"
    assert "did you mean 'client_id'?" in said
    assert "scope: 5" in said


@pytest.mark.parametrize("error", ["EIO", "ESTALE", "ENFILE", "EAGAIN"])
def test_an_error_of_the_machine_is_not_one_of_the_config(host: Callable[..., Host], config: Path, error: str) -> None:
    fails = f"def fails(*_): raise OSError({getattr(errno, error)}, 'Not Now')"
    made = host(first=f"from bearerd.config import files\n{fails}\nfiles.read_regular = fails")
    assert made.read(config) == ["unavailable", f"{config} cannot be read: not now"]


def test_a_config_that_takes_too_long_is_unavailable(host: Callable[..., Host], tmp_path: Path) -> None:
    large = tmp_path / "large.yaml"
    large.write_text("clients:\n" + "".join(f"  c{number}: {{x: [a, b, c]}}\n" for number in range(100_000)))
    made = host(MOST_SECONDS=0.05)
    assert made.read(large) == ["unavailable", "the config could not be read: it timed out after 0.05 s"]
    assert children(made.reader) == []


def test_a_config_that_takes_too_much_memory_is_unavailable(host: Callable[..., Host], tmp_path: Path) -> None:
    large = tmp_path / "large.yaml"
    large.write_text("clients:\n" + "".join(f"  c{number}: {{x: [a, b, c]}}\n" for number in range(100_000)))
    kind, said = host(_MOST_MEMORY=64 * 2**20).read(large)
    assert (kind, said) == ("unavailable", "the config could not be read: there is not enough memory")


def test_the_reader_ends_with_its_parent_even_while_it_reads(host: Callable[..., Host], tmp_path: Path) -> None:
    large = tmp_path / "large.yaml"
    large.write_text("clients:\n" + "".join(f"  c{number}: {{x: [a, b, c]}}\n" for number in range(150_000)))
    made = host()
    made.ask(large)
    eventually(lambda: children(made.reader))
    family = [made.reader, *children(made.reader)]
    made.process.kill()
    eventually(lambda: not any(Path(f"/proc/{pid}").exists() and not _zombie(pid) for pid in family))


def _zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def test_a_lack_of_descriptors_is_not_reported_as_an_error_of_the_config(
    host: Callable[..., Host], config: Path
) -> None:
    made = host()
    assert made.read(config)[0] == "config"
    made.ask(Path("no more descriptors"))
    said = "the config could not be read: too many files are open; raise LimitNOFILE"
    assert made.read(config) == ["unavailable", said]


def test_a_killed_reader_is_reported(host: Callable[..., Host], config: Path) -> None:
    made = host()
    os.kill(made.reader, signal.SIGKILL)
    kind, said = made.read(config)
    assert kind == "unavailable"
    assert said == "the process that reads the config has ended; restart bearerd to read it again"


def test_a_late_reply_is_not_taken_for_the_next(host: Callable[..., Host], config: Path) -> None:
    made = host(_GRACE=-59.5)
    os.kill(made.reader, signal.SIGSTOP)  # like reading from a dead network file system
    for _ in range(2):
        said = made.read(config.with_name("another.yaml"))
        assert said == ["unavailable", "the config could not be read within 60 s"]
    made.ask(Path("patience"))
    made.ask(config)
    os.kill(made.reader, signal.SIGCONT)
    assert made.answer()[:2] == ["config", 1]


def test_a_reply_of_another_version_is_reported(host: Callable[..., Host], config: Path) -> None:
    # As after an upgrade of the package under a running daemon.
    made = host(first="from bearerd.config import plain; plain.encode = lambda _: b'{\"Config\": [[]]}'")
    kind, said = made.read(config)
    assert kind == "unavailable"
    assert said == "the installed version of bearerd is not the running one; restart bearerd"


def test_the_reader_needs_no_dev_null(host: Callable[..., Host], config: Path) -> None:
    # A chroot may lack it.
    assert host(first="os.devnull = '/nonexistent'").read(config)[0] == "config"


def test_the_reader_keeps_no_descriptors_environment_or_modules_that_it_does_not_need(
    host: Callable[..., Host], config: Path
) -> None:
    made = host({"DNB_SECRET": "hunter2", "STATE_DIRECTORY": "/var/lib/mine"})
    made.read(config)
    here = Path(f"/proc/{made.reader}")
    if os.geteuid() == 0:  # others may not read these files
        assert b"hunter2" not in (here / "environ").read_bytes()
        links = {os.readlink(link) for link in (here / "fd").iterdir()}
        assert {link.split(":")[0] for link in links} == {"/memfd", "socket"}
        assert len(list((here / "fd").iterdir())) == 4
    # The files in /proc of an undumpable process belong to root.
    assert {(here / name).stat().st_uid for name in ("environ", "mem", "maps", "fd")} == {0}


def test_signals_to_the_process_group_do_not_end_the_reader(host: Callable[..., Host], config: Path) -> None:
    made = host()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        os.kill(made.reader, number)
    assert made.read(config)[0] == "config"


@pytest.mark.parametrize(
    ("surroundings", "expected"),
    [
        ("signal.signal(signal.SIGCHLD, signal.SIG_IGN)", "ok       config "),
        ("resource.setrlimit(resource.RLIMIT_DATA, (2**29, 2**29)); as_nobody()", "ok       config "),
        ("resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))", "LimitFSIZE"),
        (
            "as_nobody(); resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))",
            "no process can be started to read the config",
        ),
    ],
    ids=["SIGCHLD is ignored", "a limit on memory is lower", "no file may be written", "no process may be started"],
)
def test_the_reader_works_whatever_its_parent_ignores(config: Path, surroundings: str, expected: str) -> None:
    if "nobody" in surroundings and os.geteuid() != 0:
        pytest.skip("only root can become another user, and root is above these limits")
    script = f"""
import os, resource, signal, sys
def as_nobody():
    os.setgroups([]), os.setgid(65534), os.setuid(65534)
{surroundings}
os.execv(sys.argv[1], sys.argv[1:])
"""
    # The other user has no access to tmp_path.
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        place.chmod(0o755)
        shutil.copy(config, place / "config.yaml")
        done = subprocess.run(
            [sys.executable, "-c", script, *command("check", "-c", place / "config.yaml")],
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
            timeout=WITHIN,
        )
    assert expected in done.stdout + done.stderr, done.stderr
    assert "Traceback" not in done.stderr
    assert "bug" not in done.stderr
