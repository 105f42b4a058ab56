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
from bearerd.model import Hook, Output, SignalName
from bearerd.publish.invoke import examine, invoke
from support.process import eventually
from support.readers import skip_where_others_cannot_run_python
from support.targets import TARGET

ENVIRON = {"PATH": "/usr/bin:/bin"}
ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: to be somebody else")
WE, THEY = 65533, 65532
DROPPED = "; its output is dropped: run it by hand as the daemon's user to see why"

Make = Callable[..., str]


@pytest.fixture
def program(tmp_path: Path) -> Make:
    """Writes a program for sh, or for this python; its path."""

    def write(text: str, *, by: str = "/bin/sh", mode: int = 0o755) -> str:
        path = tmp_path / "hook"
        path.write_text(f"#!{by}\n{textwrap.dedent(text)}\n")
        path.chmod(mode)
        return str(path)

    return write


def fault(hook: Hook, started: Callable[[subprocess.Popen[bytes]], None] = lambda _: None) -> str:
    """What a hook fails of; its time begins when `started` returns."""
    with pytest.raises(HookFailed) as caught:
        invoke(hook, TARGET, ENVIRON, started)
    return str(caught.value)


def state(pid: int) -> str:
    """A process's state as proc(5) has it; empty where there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def runs(pid: int) -> bool:
    """Whether a process has not ended."""
    return state(pid) not in {"", "Z", "X"}


def number_in(path: Path) -> int:
    """What a program writes there, once it has."""
    eventually(lambda: path.exists() and path.read_text().endswith("\n"))
    return int(path.read_text())


@contextmanager
def being(uid: int) -> Iterator[None]:
    """Be somebody else, who may signal only what is theirs (and root's, whom we cannot cease to be)."""
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)


# -- what a command is given ---------------------------------------------------------------------------


def test_a_command_is_no_shell_line(program: Make, tmp_path: Path) -> None:
    path = program(f'for word in "$@"; do echo "[$word]"; done > {tmp_path}/seen')
    invoke(Hook(argv=(path, "$HOME; id", "a  b", "*", "")), TARGET, ENVIRON)
    assert (tmp_path / "seen").read_text() == "[$HOME; id]\n[a  b]\n[*]\n[]\n"


def test_it_is_told_the_tokens_name_and_its_files_and_of_our_environment_only_what_it_needs(
    program: Make, tmp_path: Path
) -> None:
    path = program(f"import json, os; json.dump(dict(os.environ), open('{tmp_path}/seen', 'w'))", by=sys.executable)
    needed = {"PATH": "/usr/bin:/bin", "HOME": "/root", "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", "TZ": "UTC"}
    ours = {"CREDENTIALS_DIRECTORY": "/c", "DNB_SECRET": "s3cr3t", "NOTIFY_SOCKET": "/n", "BEARERD_CONFIG": "/x"}
    target = replace(TARGET, outputs=(Output(path="/run/bearerd/dnb/bci"), Output(path="/srv/b c.json")))
    invoke(Hook(argv=(path,)), target, needed | ours)
    assert json.loads((tmp_path / "seen").read_text()) == needed | {
        "BEARERD_TOKEN_NAME": "dnb/bci",
        "BEARERD_FILES": "/run/bearerd/dnb/bci\n/srv/b c.json",
    }
    invoke(Hook(argv=(path,)), target, {})
    assert set(json.loads((tmp_path / "seen").read_text())) - {"LC_CTYPE"} == {"BEARERD_TOKEN_NAME", "BEARERD_FILES"}


def test_its_surroundings_are_those_of_a_service_whatever_ours_are(program: Make, tmp_path: Path) -> None:
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
    # What the runner of these tests may ignore the daemon does not: service.signals sees to it.
    was = [(number, signal.signal(number, signal.SIG_DFL)) for number in (signal.SIGINT, signal.SIGQUIT)]
    os.dup2(held, 0)
    try:
        invoke(Hook(argv=(path,)), TARGET, ENVIRON)
        # Not of the shell, which blocks signals now and then.
        invoke(Hook(argv=("/bin/cp", "/proc/self/status", str(tmp_path / "status"))), TARGET, ENVIRON)
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


# -- how it ends ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "said"),
    [("exit 3", "exit 3"), ("kill -TERM $$", "signal 15"), ("exit 143", "exit 143")],
)
def test_how_a_command_ended_is_said_in_words(program: Make, script: str, said: str) -> None:
    assert fault(Hook(argv=(program(script),))) == said + DROPPED


def test_one_that_writes_on_and_on_and_reads_is_not_kept_waiting(program: Make) -> None:
    path = program('head -c 3000000 /dev/zero; head -c 3000000 /dev/zero >&2; test -z "$(cat)"')
    invoke(Hook(argv=(path,)), TARGET, ENVIRON)


def test_one_that_hangs_is_killed_with_all_that_it_started(program: Make, tmp_path: Path) -> None:
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

    assert fault(Hook(argv=(path,), timeout=0.1), is_there) == "not done within 100 ms, killed"
    deeper, itself = map(number_in, both)
    eventually(lambda: not runs(deeper))
    assert state(itself) == ""  # no zombie


@pytest.mark.parametrize("number", [None, errno.EMFILE, errno.EPERM], ids=["no such function", "EMFILE", "EPERM"])
def test_its_end_is_noticed_also_where_there_are_no_descriptors_of_processes(
    monkeypatch: pytest.MonkeyPatch, number: int | None
) -> None:
    if number is None:
        monkeypatch.delattr(os, "pidfd_open")
    else:
        monkeypatch.setattr(os, "pidfd_open", Mock(side_effect=OSError(number, os.strerror(number))))
    assert fault(Hook(argv=("/bin/sleep", "60"), timeout=0.1)) == "not done within 100 ms, killed"
    assert fault(Hook(argv=("/bin/false",))) == "exit 1" + DROPPED
    invoke(Hook(argv=("/bin/true",)), TARGET, ENVIRON)


def test_what_a_command_that_failed_left_running_is_ended(program: Make, tmp_path: Path) -> None:
    path = program(f"sleep 60 & echo $! > {tmp_path}/left; exit 1")
    assert fault(Hook(argv=(path,))) == "exit 1" + DROPPED
    eventually(lambda: not runs(number_in(tmp_path / "left")))


def test_what_a_command_that_went_well_left_running_runs_on(program: Make, tmp_path: Path) -> None:
    # Such as a service that it started anew.
    path = program(f"sleep 60 & echo $! > {tmp_path}/left")
    invoke(Hook(argv=(path,)), TARGET, ENVIRON)
    left = number_in(tmp_path / "left")
    try:
        assert runs(left)
    finally:
        os.kill(left, signal.SIGKILL)


_AS_INIT = """
import ctypes, os, sys
from bearerd.errors import HookFailed
from bearerd.model import Hook
from bearerd.publish.invoke import invoke
from support.targets import TARGET
assert ctypes.CDLL(None).prctl(36, 1, 0, 0, 0) == 0  # PR_SET_CHILD_SUBREAPER: orphans become ours
try:
    invoke(Hook(argv=tuple(sys.argv[2:]), timeout=float(sys.argv[1])), TARGET, {"PATH": "/usr/bin:/bin"})
except HookFailed as failed:
    print(failed)
print(open("/proc/self/task/%d/children" % os.getpid()).read())
"""


@pytest.mark.parametrize(("script", "timeout"), [("wait", "0.5"), ("exit 1", "20")])
def test_as_the_first_process_of_a_container_it_leaves_no_zombies(script: str, timeout: str) -> None:
    line = f"for one in 1 2 3; do sh -c 'sleep 60 & wait' & done; {script}"
    done = subprocess.run(
        [sys.executable, "-c", _AS_INIT, timeout, "/bin/sh", "-c", line],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    said, children = done.stdout.split("\n")[:2]
    assert said in {"not done within 500 ms, killed", "exit 1" + DROPPED}
    assert children == ""


@ROOT
def test_one_that_cannot_be_killed_is_told_of_and_waited_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bearerd.publish.invoke._DIES_WITHIN", 0.05)
    skip_where_others_cannot_run_python()
    # As sudo and what it starts are: they are somebody else.
    text = f"import os, signal; os.seteuid(0); print(os.getpid(), file=open('{tmp_path}/pid', 'w')); "
    text += f"os.setresuid({THEY}, {THEY}, {THEY}); signal.pause()"  # until it is killed
    hook = Hook(argv=(sys.executable, "-c", text), timeout=0.1)
    said: list[str] = []

    def is_somebody_else(process: subprocess.Popen[bytes]) -> None:
        status = Path(f"/proc/{process.pid}/status")
        eventually(lambda: f"\nUid:\t{THEY}\t{THEY}\t" in status.read_text())

    with being(WE):
        waiting = threading.Thread(target=lambda: said.append(fault(hook, is_somebody_else)))
        waiting.start()
        eventually(lambda: caplog.records)
        assert waiting.is_alive()
        assert said == []
    pid = number_in(tmp_path / "pid")
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.getMessage() == (
        f"hook run {sys.executable}: pid {pid} cannot be killed: it runs as another user, or hangs in the kernel; "
        "until its end it is not run again"
    )
    os.kill(pid, signal.SIGKILL)
    waiting.join()
    assert said == ["not done within 100 ms, killed"]


def test_whoever_is_handed_the_process_and_fails_leaves_none_running() -> None:
    handed: list[subprocess.Popen[bytes]] = []

    def fails(process: subprocess.Popen[bytes]) -> None:
        handed.append(process)
        raise MemoryError

    with pytest.raises(MemoryError):
        invoke(Hook(argv=("/bin/sleep", "60")), TARGET, ENVIRON, fails)
    assert handed[0].returncode == -signal.SIGKILL


def test_no_descriptor_is_left_open(program: Make) -> None:
    good, bad, hangs = program("exit 0"), "/bin/false", Hook(argv=("/bin/sleep", "60"), timeout=0.01)
    invoke(Hook(argv=(good,)), TARGET, ENVIRON)
    before = sorted(os.listdir("/proc/self/fd"))
    with receiver(new_name()) as heard:
        invoke(Hook(signal="HUP", process=heard.name), TARGET, ENVIRON)
        invoke(Hook(argv=(good,)), TARGET, ENVIRON)
        for hook in (Hook(argv=(bad,)), hangs, Hook(argv=("/nonexistent",)), Hook(signal="HUP", pid_file="/dev/null")):
            fault(hook)
    assert sorted(os.listdir("/proc/self/fd")) == before


# -- what cannot be started ----------------------------------------------------------------------------


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
    path.write_text("echo no first line says what runs it\n")
    return str(path)


@pytest.mark.parametrize(
    ("make", "said", "seen_before"),
    [
        (_missing, "no such file or directory", "is not there"),
        (_no_right, "permission denied", "cannot be executed by this user"),
        (_directory, "permission denied", "is no program"),
        (_no_interpreter, "what its first line names to run it (#!) is not there", None),
        (_no_program, "exec format error", None),
    ],
    ids=["missing", "no right", "a directory", "no interpreter", "no program"],
)
def test_a_command_that_cannot_be_started_is_named_and_check_sees_it_before(
    program: Make, make: Callable[[Make], str], said: str, seen_before: str | None
) -> None:
    path = make(program)
    hook = Hook(argv=(path, "more"))
    assert fault(hook) == f"cannot be started: {said}"
    assert examine(hook) == (None if seen_before is None else f"hook run {path}: {path} {seen_before}")


def test_nothing_is_wrong_with_a_program_that_is_there_nor_with_a_process_that_is_not_there_yet() -> None:
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
    """A process, perhaps with children, each of which says what it receives."""

    def __init__(self, process: subprocess.Popen[str], name: str) -> None:
        self._process = process
        self.pid, self.name = process.pid, name

    def wait(self, children: int) -> None:
        """Until each of them is ready."""
        assert self._process.stdout is not None
        assert [self._process.stdout.readline() for _ in range(children + 1)] == ["ready\n"] * (children + 1)

    def end(self) -> list[str]:
        """End it; what was received, by whom."""
        os.killpg(self.pid, signal.SIGRTMAX)
        rest, _ = self._process.communicate()
        return rest.split("\n")[:-1]


_names = (f"b{os.getpid()}.{number}" for number in itertools.count())


def new_name() -> str:
    """One that no process of this machine has, nor had: whoever had it may be about to end."""
    return next(_names)


@contextmanager
def receiver(name: str, *, children: int = 0, user: int | None = None) -> Iterator[Receiver]:
    """One that has this name; none for one that has it from its program."""
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
        invoke(Hook(signal=name, pid_file=str(tmp_path / "pid")), TARGET, ENVIRON)
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
    ],
)
def test_what_is_no_process_id_of_another_is_signalled_to_nobody(tmp_path: Path, content: str) -> None:
    (tmp_path / "pid").write_text(content)
    hook = Hook(signal="WINCH", pid_file=str(tmp_path / "pid"))
    assert fault(hook) == f"{tmp_path}/pid holds no process id of another"


def test_our_own_process_id_is_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "pid").write_text(str(os.getpid()))
    hook = Hook(signal="WINCH", pid_file=str(tmp_path / "pid"))
    assert fault(hook) == f"{tmp_path}/pid holds no process id of another"


@pytest.mark.parametrize("reaped", [True, False])
@pytest.mark.parametrize("by_descriptor", [True, False])
def test_a_pid_file_that_outlived_its_process_is_said(
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
        assert fault(hook) == f"{tmp_path}/pid: there is no process {process.pid}"


def test_a_pid_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = str(tmp_path / "pid")
    hook = Hook(signal="HUP", pid_file=path)
    assert fault(hook) == f"{path}: no such file or directory"
    os.mkdir(path)
    assert fault(hook) == f"{path}: no plain file"
    os.rmdir(path)
    os.mkfifo(path)
    assert fault(hook) == f"{path}: no plain file"
    with open(path, "r+b", buffering=0):  # somebody may write into it
        assert fault(hook) == f"{path}: no plain file"


@pytest.mark.parametrize(
    "form",
    ["{}", "{} (x) [y]", "{}) R 1 1", "-{}", "{}-whose-name-is-longer", "{}-größer-als-15", "{}äöüäöüäöü"],
)
@pytest.mark.parametrize("by_descriptor", [True, False])
def test_a_process_is_found_by_its_name(monkeypatch: pytest.MonkeyPatch, form: str, *, by_descriptor: bool) -> None:
    if not by_descriptor:
        monkeypatch.delattr(os, "pidfd_open")
    with receiver(form.format(new_name())) as one:
        invoke(Hook(signal="HUP", process=one.name), TARGET, ENVIRON)
        assert one.end() == [f"SIGHUP {one.pid}"]


def test_of_a_server_and_its_workers_the_server_alone_is_told_and_of_several_each() -> None:
    name = new_name()
    with receiver(name, children=3) as one, receiver(name, children=1) as other, receiver(f"{name}x") as stranger:
        invoke(Hook(signal="USR1", process=one.name), TARGET, ENVIRON)
        assert one.end() == [f"SIGUSR1 {one.pid}"]
        assert other.end() == [f"SIGUSR1 {other.pid}"]
        assert stranger.end() == []


def test_where_nobody_has_the_name_that_is_said() -> None:
    name = new_name()
    with subprocess.Popen(["/bin/sh", "-c", f"printf %s {name} > /proc/$$/comm; exit"]) as process:
        eventually(lambda: state(process.pid) == "Z")
        # It is there by that name, but has ended.
        assert Path(f"/proc/{process.pid}/comm").read_text() == f"{name}\n"
        assert fault(Hook(signal="HUP", process=name)) == (
            f"no process has the name {name} (as `ps -o comm` shows it), or its user is hidden from ours"
        )


def test_neither_we_nor_what_we_started_is_told_by_our_own_name() -> None:
    comm = Path(f"/proc/{os.getpid()}/comm")
    before = comm.read_text().removesuffix("\n")
    with receiver(new_name()) as ours:
        comm.write_text(ours.name)
        try:
            # A signal that would end us.
            assert "no process has the name" in fault(Hook(signal="USR2", process=ours.name))
        finally:
            comm.write_text(before)
        assert ours.end() == []


@ROOT
def test_a_process_that_we_may_not_signal_is_said_unless_another_was_told(tmp_path: Path) -> None:
    skip_where_others_cannot_run_python()
    may_not = "may not be signalled by the daemon's user: a unit with PathChanged= needs no such right"
    with receiver(new_name(), user=THEY) as theirs, being(WE):
        assert fault(Hook(signal="HUP", process=theirs.name)) == f"pid {theirs.pid} {may_not}"
        os.seteuid(0)
        (tmp_path / "pid").write_text(str(theirs.pid))
        tmp_path.chmod(0o755)
        with receiver(theirs.name, user=WE) as ours:
            os.seteuid(WE)
            invoke(Hook(signal="HUP", process=ours.name), TARGET, ENVIRON)
            os.seteuid(0)
            assert ours.end() == [f"SIGHUP {ours.pid}"]
        assert theirs.end() == []
