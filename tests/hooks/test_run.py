"""One hook: real programs, real signals to real processes."""

from __future__ import annotations

import errno
import itertools
import json
import logging
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest

from bearerd.errors import HookFailed
from bearerd.hooks.run import examine, run
from bearerd.model import Output
from bearerd.terms import Hook, SignalName
from support.process import eventually
from support.readers import skip_where_others_cannot_run_python
from support.targets import TARGET

ENVIRON = {"PATH": "/usr/bin:/bin"}
ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: to become another user")
WE, THEY = 65533, 65532
DROPPED = "; its output is not kept: run it by hand as the daemon's user to see why"

Make = Callable[..., str]


@pytest.fixture
def program(tmp_path: Path) -> Make:
    """Writes a program for sh, or for this Python; returns its path."""

    def write(text: str, *, by: str = "/bin/sh", mode: int = 0o755) -> str:
        path = tmp_path / "hook"
        path.write_text(f"#!{by}\n{textwrap.dedent(text)}\n")
        path.chmod(mode)
        return str(path)

    return write


def fault(hook: Hook, started: Callable[[subprocess.Popen[bytes]], None] = lambda _: None) -> str:
    """The fault of a hook that fails; its timeout begins when `started` returns."""
    with pytest.raises(HookFailed) as caught:
        run(hook, [TARGET], ENVIRON, started)
    return str(caught.value)


def state(pid: int) -> str:
    """The state of a process as in proc(5); empty if it does not exist."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def runs(pid: int) -> bool:
    """Whether a process has not ended."""
    return state(pid) not in {"", "Z", "X"}


def number_in(path: Path) -> int:
    """Wait for a program to write a number to a file."""
    eventually(lambda: path.exists() and path.read_text().endswith("\n"))
    return int(path.read_text())


@contextmanager
def being(uid: int) -> Iterator[None]:
    """Become another user, who may signal only their own processes."""
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)


# -- the environment of a command ----------------------------------------------------------------------


def test_a_command_runs_without_a_shell(program: Make, tmp_path: Path) -> None:
    path = program(f'for word in "$@"; do echo "[$word]"; done > {tmp_path}/seen')
    run(Hook(argv=(path, "$HOME; id", "a  b", "*", "")), [TARGET], ENVIRON)
    assert (tmp_path / "seen").read_text() == "[$HOME; id]\n[a  b]\n[*]\n[]\n"


def test_a_command_gets_names_files_and_a_minimal_environment(program: Make, tmp_path: Path) -> None:
    path = program(f"import json, os; json.dump(dict(os.environ), open('{tmp_path}/seen', 'w'))", by=sys.executable)
    needed = {"PATH": "/usr/bin:/bin", "HOME": "/root", "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", "TZ": "UTC"}
    ours = {"CREDENTIALS_DIRECTORY": "/c", "DNB_SECRET": "s3cr3t", "NOTIFY_SOCKET": "/n", "BEARERD_CONFIG": "/x"}
    one = replace(TARGET, outputs=(Output(path="/run/bearerd/dnb/bci"), Output(path="/srv/b c.json")))
    other = replace(TARGET, name="risk", outputs=(Output(path="/run/bearerd/dnb/risk"),))
    run(Hook(argv=(path,)), [one], needed | ours)
    assert json.loads((tmp_path / "seen").read_text()) == needed | {
        "BEARERD_TOKEN_NAME": "dnb/bci",
        "BEARERD_TOKEN_NAMES": "dnb/bci",
        "BEARERD_FILES": "/run/bearerd/dnb/bci\n/srv/b c.json",
    }
    run(Hook(argv=(path,)), [one, other], {})
    seen = json.loads((tmp_path / "seen").read_text())
    seen.pop("LC_CTYPE", None)  # Python's own
    assert seen == {
        "BEARERD_TOKEN_NAMES": "dnb/bci\ndnb/risk",
        "BEARERD_FILES": "/run/bearerd/dnb/bci\n/srv/b c.json\n/run/bearerd/dnb/risk",
    }


def test_a_command_runs_as_a_service_does(program: Make, tmp_path: Path) -> None:
    path = program(
        f"""
        exec 9> {tmp_path}/seen
        (
            pwd
            readlink /proc/$$/fd/0 /proc/$$/fd/1 /proc/$$/fd/2
            ls /proc/$$/fd | tr '\\n' ' '
            echo
            umask
            cut -d ' ' -f 5,6 /proc/$$/stat
            echo $$ $$
        ) >&9
        """
    )
    held, stdin, old = os.open("/etc/passwd", os.O_RDONLY), os.dup(0), os.umask(0)
    # The test runner may ignore these signals; the daemon does not (service/signals.py).
    was = [(number, signal.signal(number, signal.SIG_DFL)) for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT)]
    os.dup2(held, 0)
    try:
        run(Hook(argv=(path,)), [TARGET], ENVIRON)
        # Not from the shell, which blocks signals at times.
        run(Hook(argv=("/bin/cp", "/proc/self/status", str(tmp_path / "status"))), [TARGET], ENVIRON)
    finally:
        os.dup2(stdin, 0)
        os.close(stdin)
        os.close(held)
        os.umask(old)
        for number, handler in was:
            signal.signal(number, handler)
    directory, *streams, opened, umask, group_and_session, itself = (tmp_path / "seen").read_text().splitlines()
    assert directory == "/"
    assert streams == ["/dev/null"] * 3
    assert set(opened.split()) <= {"0", "1", "2", "9", "10"}  # 9 is its own, 10 the script that its shell reads
    assert umask == "0022"
    assert group_and_session == itself
    status = dict(line.split(":\t") for line in (tmp_path / "status").read_text().splitlines())
    assert (status["SigBlk"], status["SigIgn"]) == ("0" * 16, "0" * 16)  # Python ignores SIGPIPE in itself


# -- the end of a command ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "said"),
    [("exit 3", "exit 3"), ("kill -TERM $$", "signal 15"), ("exit 143", "exit 143")],
)
def test_the_fault_says_how_the_command_ended(program: Make, script: str, said: str) -> None:
    assert fault(Hook(argv=(program(script),))) == said + DROPPED


def test_a_command_may_write_without_end_and_read(program: Make) -> None:
    path = program('head -c 3000000 /dev/zero; head -c 3000000 /dev/zero >&2; test -z "$(cat)"')
    run(Hook(argv=(path,)), [TARGET], ENVIRON)


def test_a_command_that_hangs_is_killed_with_its_children(program: Make, tmp_path: Path) -> None:
    path = program(
        f"""
        trap '' TERM HUP INT
        sh -c 'sleep 60 & echo $! > {tmp_path}/deeper; wait' &
        echo $$ > {tmp_path}/itself
        while :; do sleep 60; done
        """
    )
    both = tmp_path / "deeper", tmp_path / "itself"

    def is_there(_: subprocess.Popen[bytes]) -> None:
        for one in both:
            number_in(one)

    assert fault(Hook(argv=(path,), timeout=0.1), is_there) == "timed out after 100 ms and was killed"
    deeper, itself = map(number_in, both)
    eventually(lambda: not runs(deeper))
    assert state(itself) == ""  # no zombie


@pytest.mark.parametrize("number", [None, errno.EMFILE, errno.EPERM], ids=["no such function", "EMFILE", "EPERM"])
def test_the_end_is_noticed_without_pidfds(monkeypatch: pytest.MonkeyPatch, number: int | None) -> None:
    if number is None:
        monkeypatch.delattr(os, "pidfd_open")
    else:
        monkeypatch.setattr(os, "pidfd_open", Mock(side_effect=OSError(number, os.strerror(number))))
    assert fault(Hook(argv=("/bin/sleep", "60"), timeout=0.1)) == "timed out after 100 ms and was killed"
    assert fault(Hook(argv=("/bin/false",))) == "exit 1" + DROPPED
    run(Hook(argv=("/bin/true",)), [TARGET], ENVIRON)


def test_children_of_a_failed_command_are_killed(program: Make, tmp_path: Path) -> None:
    path = program(f"sleep 60 & echo $! > {tmp_path}/left; exit 1")
    assert fault(Hook(argv=(path,))) == "exit 1" + DROPPED
    eventually(lambda: not runs(number_in(tmp_path / "left")))


def test_children_of_a_successful_command_go_on(program: Make, tmp_path: Path) -> None:
    # For example a service that it restarted.
    path = program(f"sleep 60 & echo $! > {tmp_path}/left")
    run(Hook(argv=(path,)), [TARGET], ENVIRON)
    left = number_in(tmp_path / "left")
    try:
        assert runs(left)
    finally:
        os.kill(left, signal.SIGKILL)


_AS_INIT = """
import ctypes, os, sys
from bearerd.errors import HookFailed
from bearerd.hooks.run import run
from bearerd.model import Hook
from support.targets import TARGET
assert ctypes.CDLL(None).prctl(36, 1, 0, 0, 0) == 0  # PR_SET_CHILD_SUBREAPER: orphans become ours
try:
    run(Hook(argv=tuple(sys.argv[2:]), timeout=float(sys.argv[1])), [TARGET], {"PATH": "/usr/bin:/bin"})
except HookFailed as failed:
    print(failed)
print(open("/proc/self/task/%d/children" % os.getpid()).read())
"""


@pytest.mark.parametrize(("script", "timeout"), [("wait", "0.5"), ("exit 1", "20")])
def test_as_process_1_it_leaves_no_zombies(script: str, timeout: str) -> None:
    line = f"for one in 1 2 3; do sh -c 'sleep 60 & wait' & done; {script}"
    done = subprocess.run(
        [sys.executable, "-c", _AS_INIT, timeout, "/bin/sh", "-c", line],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    said, children = done.stdout.split("\n")[:2]
    assert said in {"timed out after 500 ms and was killed", "exit 1" + DROPPED}
    assert children == ""


@ROOT
def test_a_command_that_cannot_be_killed_is_logged_and_waited_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bearerd.hooks.run._DIES_WITHIN", 0.05)
    skip_where_others_cannot_run_python()
    # As sudo and its children do, it runs as another user.
    text = f"import os, signal; os.seteuid(0); print(os.getpid(), file=open('{tmp_path}/pid', 'w')); "
    text += f"os.setresuid({THEY}, {THEY}, {THEY}); signal.pause()"  # until it is killed
    hook = Hook(argv=(sys.executable, "-c", text), timeout=0.1)
    said: list[str] = []

    def is_another_user(process: subprocess.Popen[bytes]) -> None:
        status = Path(f"/proc/{process.pid}/status")
        eventually(lambda: f"\nUid:\t{THEY}\t{THEY}\t" in status.read_text())

    with being(WE):
        waiting = threading.Thread(target=lambda: said.append(fault(hook, is_another_user)))
        waiting.start()
        eventually(lambda: caplog.records)
        assert waiting.is_alive()
        assert said == []
    pid = number_in(tmp_path / "pid")
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.getMessage() == (
        f"hook run {sys.executable}: pid {pid} cannot be killed: it runs as another user, or hangs in the kernel; "
        "the hook does not run again until it has ended"
    )
    os.kill(pid, signal.SIGKILL)
    waiting.join()
    assert said == ["timed out after 100 ms and was killed"]


def test_a_command_is_killed_if_the_callback_raises() -> None:
    handed: list[subprocess.Popen[bytes]] = []

    def fails(process: subprocess.Popen[bytes]) -> None:
        handed.append(process)
        raise MemoryError

    with pytest.raises(MemoryError):
        run(Hook(argv=("/bin/sleep", "60")), [TARGET], ENVIRON, fails)
    assert handed[0].returncode == -signal.SIGKILL


def test_no_descriptor_is_left_open(program: Make) -> None:
    good, bad, hangs = program("exit 0"), "/bin/false", Hook(argv=("/bin/sleep", "60"), timeout=0.01)
    run(Hook(argv=(good,)), [TARGET], ENVIRON)
    before = set(os.listdir("/proc/self/fd"))
    with receiver(new_name()) as heard:
        run(Hook(signal="HUP", process=heard.name), [TARGET], ENVIRON)
        run(Hook(argv=(good,)), [TARGET], ENVIRON)
        for hook in (Hook(argv=(bad,)), hangs, Hook(argv=("/nonexistent",)), Hook(signal="HUP", pid_file="/dev/null")):
            fault(hook)
    # Not the same: those of earlier tests may have been closed meanwhile.
    assert set(os.listdir("/proc/self/fd")) <= before


# -- commands that cannot be started -------------------------------------------------------------------


def _missing(program: Make) -> str:
    return program("") + ".missing"


def _no_right(program: Make) -> str:
    return program("", mode=0o644)


def _directory(program: Make) -> str:
    return str(Path(program("")).parent)


def _no_interpreter(program: Make) -> str:
    return program("", by="/nonexistent/sh")


def _no_program(program: Make) -> str:
    path = Path(program(""))
    path.write_text("echo there is no #! line\n")
    return str(path)


@pytest.mark.parametrize(
    ("make", "said", "seen_before"),
    [
        (_missing, "no such file or directory", "{path} does not exist"),
        (_no_right, "permission denied", "this user cannot execute {path}"),
        (_directory, "permission denied", "{path} is not a regular file"),
        (_no_interpreter, "the interpreter in its first line (#!) does not exist", None),
        (_no_program, "exec format error", None),
    ],
    ids=["missing", "no right", "a directory", "no interpreter", "no program"],
)
def test_a_command_that_cannot_be_started_is_an_error_which_check_finds_before(
    program: Make, make: Callable[[Make], str], said: str, seen_before: str | None
) -> None:
    path = make(program)
    hook = Hook(argv=(path, "more"))
    assert fault(hook) == f"cannot be started: {said}"
    assert examine(hook) == (None if seen_before is None else f"hook run {path}: {seen_before.format(path=path)}")


def test_a_limit_on_processes_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_: object, **__: object) -> None:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr("bearerd.child.start", refuses)
    assert fault(Hook(argv=("/bin/true",))) == ("cannot be started: resource temporarily unavailable; raise TasksMax")


def test_examine_accepts_existing_programs_and_processes_that_may_start_later() -> None:
    assert examine(Hook(argv=("/bin/sh", "/nonexistent"))) is None
    assert examine(Hook(signal="HUP", pid_file="/nonexistent")) is None
    assert examine(Hook(signal="HUP", process="nonexistent")) is None


# -- signals -------------------------------------------------------------------------------------------

_RECEIVER = r"""
import os, signal, sys
number, name = int(sys.argv[1]), sys.argv[2]
signals = signal.valid_signals() - {signal.SIGCHLD}
signal.pthread_sigmask(signal.SIG_BLOCK, signals)
if name:
    with open("/proc/self/comm", "w") as file:
        file.write(name)
for _ in range(number):
    if not os.fork():
        break
os.write(1, b"ready\n")  # in one piece: several write there
# Of those that are pending the lowest comes first, so the last of all is the end.
while (received := signal.sigwait(signals)) != signal.SIGRTMAX:
    os.write(1, f"{signal.Signals(received).name} {os.getpid()}\n".encode())
"""


class Receiver:
    """A process, with or without children, each of which prints what it receives."""

    def __init__(self, process: subprocess.Popen[str], name: str) -> None:
        self._process = process
        self.pid, self.name = process.pid, name

    def wait(self, children: int) -> None:
        """Wait until each of them is ready."""
        assert self._process.stdout is not None
        assert [self._process.stdout.readline() for _ in range(children + 1)] == ["ready\n"] * (children + 1)

    def end(self) -> list[str]:
        """End it; returns what was received, and by which process."""
        os.killpg(self.pid, signal.SIGRTMAX)
        rest, _ = self._process.communicate()
        return rest.split("\n")[:-1]


_names = (f"b{os.getpid()}.{number}" for number in itertools.count())


def new_name() -> str:
    """A name that no process has or had: an earlier one may not have ended yet."""
    return next(_names)


@contextmanager
def receiver(name: str, *, children: int = 0, user: int | None = None) -> Iterator[Receiver]:
    """A process with this name; with an empty one it keeps the name of its program."""
    process = subprocess.Popen(
        [sys.executable, "-c", _RECEIVER, str(children), name],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        user=user,
        cwd="/",
    )
    one = Receiver(process, name)
    try:
        one.wait(children)
        yield one
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


@pytest.mark.parametrize("name", ["HUP", "INT", "QUIT", "TERM", "USR1", "USR2", "WINCH"])
@pytest.mark.parametrize("form", ["{}\n", "{}", "  {}  \n", "{}\n/var/lib/app\n1700000000\n"])
def test_the_process_in_a_pid_file_is_signalled(tmp_path: Path, name: SignalName, form: str) -> None:
    with receiver("") as one:
        (tmp_path / "pid").write_text(form.format(one.pid))
        run(Hook(signal=name, pid_file=str(tmp_path / "pid")), [TARGET], ENVIRON)
        assert one.end() == [f"SIG{name} {one.pid}"]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "\n",
        "app",
        "12 34",
        "1.5",
        "0",
        "-1",
        "-2",
        "+5",
        "0x10",
        "4194305",
        "9" * 12,
        "9" * 100_000,
        "\0",
        "\u0661",
        # Its first 32 bytes have another number.
        " " * 30 + "424242",
        "0" * 26 + "42424242",
    ],
)
def test_a_pid_file_without_a_valid_process_id_is_an_error(tmp_path: Path, content: str) -> None:
    (tmp_path / "pid").write_text(content)
    hook = Hook(signal="WINCH", pid_file=str(tmp_path / "pid"))
    assert fault(hook) == "the file does not contain the id of another process"


def test_a_pid_file_with_our_own_process_id_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "pid").write_text(str(os.getpid()))
    hook = Hook(signal="WINCH", pid_file=str(tmp_path / "pid"))
    assert fault(hook) == "the file does not contain the id of another process"


@pytest.mark.parametrize("reaped", [True, False])
@pytest.mark.parametrize("by_descriptor", [True, False])
def test_a_pid_file_of_a_process_that_has_ended_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, reaped: bool, by_descriptor: bool
) -> None:
    if not by_descriptor:
        monkeypatch.delattr(os, "pidfd_open")
    with subprocess.Popen(["/bin/true"]) as process:
        if reaped:
            process.wait()
        eventually(lambda: not runs(process.pid))
        (tmp_path / "pid").write_text(str(process.pid))
        hook = Hook(signal="HUP", pid_file=str(tmp_path / "pid"))
        assert fault(hook) == f"process {process.pid} does not exist"


def test_a_pid_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    path = str(tmp_path / "pid")
    hook = Hook(signal="HUP", pid_file=path)
    assert fault(hook) == "no such file or directory"
    os.mkdir(path)
    assert fault(hook) == "it is a directory, not a regular file"
    os.rmdir(path)
    os.mkfifo(path)
    assert fault(hook) == "it is a FIFO, not a regular file"
    with open(path, "r+b", buffering=0):  # somebody may write into it
        assert fault(hook) == "it is a FIFO, not a regular file"


@pytest.mark.parametrize(
    "form",
    ["{}", "{} (x) [y]", "{}) R 1 1", "-{}", "{}-whose-name-is-longer", "{}-größer-als-15", "{}äöüäöüäöü"],
)
@pytest.mark.parametrize("by_descriptor", [True, False])
def test_a_process_is_found_by_its_name(monkeypatch: pytest.MonkeyPatch, form: str, *, by_descriptor: bool) -> None:
    if not by_descriptor:
        monkeypatch.delattr(os, "pidfd_open")
    with receiver(form.format(new_name())) as one:
        run(Hook(signal="HUP", process=one.name), [TARGET], ENVIRON)
        assert one.end() == [f"SIGHUP {one.pid}"]


def test_each_server_of_a_name_is_signalled_without_its_workers() -> None:
    name = new_name()
    with receiver(name, children=3) as one, receiver(name, children=1) as other, receiver(f"{name}x") as stranger:
        run(Hook(signal="USR1", process=one.name), [TARGET], ENVIRON)
        assert one.end() == [f"SIGUSR1 {one.pid}"]
        assert other.end() == [f"SIGUSR1 {other.pid}"]
        assert stranger.end() == []


def test_a_name_without_a_process_is_an_error() -> None:
    name = new_name()
    with subprocess.Popen(["/bin/sh", "-c", f"printf %s {name} > /proc/$$/comm; exit"]) as process:
        eventually(lambda: state(process.pid) == "Z")
        # It still has the name, but has ended.
        assert Path(f"/proc/{process.pid}/comm").read_text() == f"{name}\n"
        assert fault(Hook(signal="HUP", process=name)) == (
            f"no process is named {name} (as in `ps -o comm`), or the daemon's user cannot see it"
        )


def test_a_signal_by_name_spares_bearerd_and_its_children() -> None:
    comm = Path(f"/proc/{os.getpid()}/comm")
    before = comm.read_text().removesuffix("\n")
    with receiver(new_name()) as ours:
        comm.write_text(ours.name)
        try:
            # The signal would end this process.
            assert "no process is named" in fault(Hook(signal="USR2", process=ours.name))
        finally:
            comm.write_text(before)
        assert ours.end() == []


@ROOT
def test_a_process_of_another_user_is_an_error_unless_another_one_was_signalled(tmp_path: Path) -> None:
    skip_where_others_cannot_run_python()
    cure = "use a path unit (PathChanged=), which needs no permission"
    with receiver(new_name(), user=THEY) as theirs, being(WE):
        said = f"the daemon's user is not allowed to signal pid {theirs.pid}; {cure}"
        assert fault(Hook(signal="HUP", process=theirs.name)) == said
        os.seteuid(0)
        (tmp_path / "pid").write_text(str(theirs.pid))
        tmp_path.chmod(0o755)
        with receiver(theirs.name, user=WE) as ours:
            os.seteuid(WE)
            run(Hook(signal="HUP", process=ours.name), [TARGET], ENVIRON)
            os.seteuid(0)
            assert ours.end() == [f"SIGHUP {ours.pid}"]
        assert theirs.end() == []
