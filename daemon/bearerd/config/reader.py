"""Reads the config in a separate process, which keeps the parsers and their garbage out of the daemon's memory.

Pydantic and the parser's garbage take 8 MB for one client and 70 MB for ten thousand. A hostile or broken config (an
included pattern can match any file) can only harm a process that has no secret and no environment.

The process is forked, without an exec, after the daemon became undumpable and before it starts threads. An exec would
make it dumpable for some milliseconds, in which another process of the same user could read its memory. It waits for
requests on a socketpair, which nobody else can open. For each request it forks again: that process loads the config,
writes it as JSON into a memory file, and exits. The descriptor of that file is the answer. Both end with the daemon.
"""

from __future__ import annotations

# No other modules: a module that is imported before the fork takes memory in the process that stays.
import os
import signal
import socket
from contextlib import suppress

from bearerd.config.defaults import VARIABLES
from bearerd.descriptors import release
from bearerd.process import end_with_parent, forget_environment
from bearerd.reason import not_started, reason_of

TYPE_CHECKING = False  # as type checkers know it: typing is a megabyte
if TYPE_CHECKING:
    from typing import Any, Final

    from bearerd.errors import Problem
    from bearerd.model import Config

# Seconds to read a config. One of 10,000 clients takes two; reading from a dead network file system never ends.
MOST_SECONDS: Final = 60
# Seconds more until the daemon stops waiting: a process that waits for a dead disk cannot even be killed.
_GRACE: Final = 5
# Bytes. Checking a config of the largest size takes 500 MB.
_MOST_MEMORY: Final = 2**30
# Bytes: PATH_MAX of 4096, and the header.
_MOST_REQUEST: Final = 8192
# A request: its number, one letter, and the path. A reply begins with the number of its request.
_FULL, _BRIEF = b"f", b"b"
_NUMBER: Final = 4
# The reply that has a descriptor. Any other is the reason why there is none.
_READ: Final = b"read"
# The file begins with one of these letters; the config, its problems, or why it was not read follow.
_GOOD, _WRONG, _UNREAD = b"g", b"w", b"u"


class ConfigReader:
    """Reads the config in a separate process. Create it before the first thread is started."""

    def __init__(self) -> None:
        """Fork the process; raises ConfigUnavailable."""
        parent = os.getpid()
        # Before the fork: a signal to the process group must not end the process in its first moments either.
        unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            pid = os.fork()
        except OSError as error:
            raise _unavailable(f"no process can be started to read the config: {not_started(error)}") from None
        finally:
            if os.getpid() == parent:
                signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
        if pid == 0:
            try:
                end_with_parent(parent)
                here.close()
                _serve(there)
            finally:
                os._exit(0)
        there.close()
        self._socket = here
        self._number = 0

    def ask(self, path: str, *, full: bool = False) -> None:
        """Begin to read a config. With `full`, errors come with their text and source line, for `check` only."""
        self._number += 1
        self._socket.settimeout(MOST_SECONDS + _GRACE)
        with suppress(OSError):  # the process has ended, which `answer` reports
            self._socket.send(_numbered(self._number, _FULL if full else _BRIEF, os.fsencode(path)))

    def answer(self, present: Config | None = None) -> Config:
        """The config that was asked for, with the objects of the present one where they are equal.

        Raises ConfigError, or ConfigUnavailable.
        """
        reply, descriptors = self._reply()
        while reply[:_NUMBER] != _numbered(self._number):
            # The answer to an earlier request that timed out. It may be out of date.
            for descriptor in descriptors:
                release(descriptor)
            reply, descriptors = self._reply()
        reply = reply[_NUMBER:]
        if reply != _READ:
            raise _unavailable(f"the config could not be read: {reply.decode(errors='replace')}")
        if not descriptors:  # the kernel drops it if the limit is reached
            raise _unavailable("the config could not be read: too many files are open; raise LimitNOFILE")
        with open(descriptors[0], "rb") as file:
            file.seek(0)
            content = file.read()
        try:
            return _config(content, present)
        except (ValueError, TypeError):
            # The process imports its modules at each request: after an upgrade, those of another version.
            raise _unavailable("the installed version of bearerd is not the running one; restart bearerd") from None

    def read(self, path: str, *, full: bool = False, present: Config | None = None) -> Config:
        """Ask, and wait for the answer."""
        self.ask(path, full=full)
        return self.answer(present)

    def close(self) -> None:
        """End the process."""
        self._socket.close()

    def _reply(self) -> tuple[bytes, list[int]]:
        """The next reply and its descriptors; raises ConfigUnavailable."""
        try:
            reply, descriptors, _, _ = socket.recv_fds(self._socket, 1024, 1)
        except TimeoutError:
            raise _unavailable(f"the config could not be read within {MOST_SECONDS} s") from None
        except ConnectionResetError:  # the process ended before it took the request
            reply, descriptors = b"", []
        except OSError as error:
            raise _unavailable(f"the config could not be read: {reason_of(error)}") from None
        if not reply:
            raise _unavailable("the process that reads the config has ended; restart bearerd to read it again")
        return reply, descriptors


def _numbered(number: int, *parts: bytes) -> bytes:
    return b"".join([number.to_bytes(_NUMBER, "big"), *parts])


def _unavailable(why: str) -> Exception:
    from bearerd.errors import ConfigUnavailable  # noqa: PLC0415 - not before the fork

    return ConfigUnavailable(why)


def _config(answer: bytes, present: Config | None) -> Config:
    import json  # noqa: PLC0415 - not before the fork

    from bearerd.config.plain import decode  # noqa: PLC0415
    from bearerd.errors import ConfigError, Problem  # noqa: PLC0415

    if answer[:1] == _GOOD:
        return decode(answer[1:], present)
    if answer[:1] == _UNREAD:
        raise _unavailable(answer[1:].decode(errors="replace"))
    problems, files = json.loads(answer[1:])
    raise ConfigError([Problem(*fields) for fields in problems], files)


# -- the process -----------------------------------------------------------------------------------


def _serve(requests: socket.socket) -> None:
    """Answer requests until the daemon has gone. All signals are blocked, also those to its process group."""
    # If the parent ignored SIGCHLD, waitpid could not return an exit status.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    environ = forget_environment(VARIABLES)
    null = os.memfd_create("null")  # not /dev/null, which not every chroot has
    for standard in range(3):  # a traceback could quote the config
        os.dup2(null, standard)
    os.dup2(requests.detach(), 3)
    _close_from(4)
    requests = socket.socket(fileno=3)
    while received := requests.recv(_MOST_REQUEST):
        number, request = received[:_NUMBER], received[_NUMBER:]
        try:
            answer = os.memfd_create("config", os.MFD_CLOEXEC)
        except OSError as error:
            requests.send(number + reason_of(error).encode())
            continue
        try:
            failed = _in_a_process(answer, request, environ)
            if failed:
                requests.send(number + failed.encode())
            else:
                socket.send_fds(requests, [number + _READ], [answer])
        finally:
            release(answer)


def _close_from(lowest: int) -> None:
    """Close these descriptors and all above."""
    try:
        # A container may allow a billion descriptors, and closing every number would take minutes.
        descriptors = [int(name) for name in os.listdir("/proc/self/fd")]
    except OSError:  # no /proc is mounted
        os.closerange(lowest, os.sysconf("SC_OPEN_MAX"))
        return
    for descriptor in descriptors:
        if descriptor >= lowest:
            release(descriptor)  # that of the listing itself is closed already


def _in_a_process(answer: int, request: bytes, environ: dict[str, str]) -> str:
    """Load a config and write the answer, in a separate process; returns why it failed, or an empty text."""
    parent = os.getpid()
    try:
        pid = os.fork()
    except OSError as error:
        return f"no process can be started: {not_started(error)}"
    if pid == 0:
        code = 1
        try:
            end_with_parent(parent)
            _bound()
            code = _load(answer, request, environ)
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    return _why(os.waitstatus_to_exitcode(status))


# Exit codes of the process that loads a config.
_NO_MEMORY: Final = 3
_NO_ANSWER: Final = 4


def _why(code: int) -> str:
    """Why a process that ended with this code gave no answer; empty if it gave one."""
    return {
        0: "",
        _NO_MEMORY: "there is not enough memory",
        _NO_ANSWER: "its answer could not be written; is there a limit on the size of files (LimitFSIZE)?",
        -signal.SIGALRM: f"it timed out after {MOST_SECONDS} s",
        -signal.SIGKILL: "its process was killed, probably because memory ran out",
    }.get(code, f"its process ended with {code}; this is a bug in bearerd, please report it")


def _bound() -> None:
    """Limit the time and memory of this process."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGALRM])
    signal.setitimer(signal.ITIMER_REAL, MOST_SECONDS)
    import resource  # noqa: PLC0415 - not in the process that stays

    # A lower limit that is set already stays, since only root can raise it.
    limits = [limit for limit in resource.getrlimit(resource.RLIMIT_DATA) if limit != resource.RLIM_INFINITY]
    most = min([_MOST_MEMORY, *limits])
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    # If memory runs out, the kernel should kill this process and not the daemon. Only root can set this for an
    # undumpable process. Without it the kernel kills the largest process, which is this one if the config is too large.
    with suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        file.write("1000")


def _load(answer: int, request: bytes, environ: dict[str, str]) -> int:
    import gc  # noqa: PLC0415 - not in the process that stays
    import json  # noqa: PLC0415

    gc.disable()  # the process ends before collecting would pay off
    try:
        from bearerd.config.load import load  # noqa: PLC0415
        from bearerd.config.plain import encode  # noqa: PLC0415
        from bearerd.errors import ConfigError, ConfigUnavailable  # noqa: PLC0415

        full, path = request[:1] == _FULL, os.fsdecode(request[1:])
        try:
            content = _GOOD + encode(load(path, environ))
        except ConfigError as error:
            problems = [_fields(problem, full) for problem in error.problems]
            content = _WRONG + json.dumps([problems, error.files]).encode()
        except ConfigUnavailable as error:
            content = _UNREAD + str(error).encode(errors="backslashreplace")
    except MemoryError:
        return _NO_MEMORY
    try:
        with open(answer, "wb", closefd=False) as file:
            file.write(content)
    except OSError:
        return _NO_ANSWER
    return 0


def _fields(problem: Problem, full: bool) -> list[Any]:
    known = [problem.file, problem.line, problem.column, problem.kind]
    return [*known, problem.message, problem.source, problem.caret] if full else known
