"""The safety of the process: descriptors, private memory, and a stop at any moment."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import bearerd as bearerd_package
from support.oidc import pem, private_key, self_signed
from support.process import WITHIN, command, eventually, running
from support.readers import open_directory, skip_where_others_cannot_run_python
from support.server import Answer, issues, serving

# Not root: what root may look at no process can keep from it.
SOMEBODY = 65534 if os.geteuid() == 0 else os.geteuid()


@pytest.mark.parametrize("verb", ["run", "once"])
def test_no_core_and_no_environment_for_processes_of_the_same_user(verb: str) -> None:
    skip_where_others_cannot_run_python()
    gate = threading.Event()

    def answer(_: object) -> Answer:
        gate.wait(WITHIN)
        return Answer(200, {"access_token": "t", "expires_in": 3600})

    with open_directory() as path, serving(answer) as server:
        config = path / "config.yaml"
        config.write_text(
            f"output: {{directory: {path}/tokens/here}}\nclients:\n  dnb:\n    token_url: {server.url}\n"
            "    allow_http: true\n    client_id: a\n    client_secret: {env: DNB_SECRET}\n    tokens: {bci: {}}\n"
        )
        (path / "tokens").mkdir()
        os.chown(path / "tokens", SOMEBODY, -1)
        process = subprocess.Popen(
            command(verb, "-c", config),
            env={**os.environ, "DNB_SECRET": "s3cr3t"},
            user=SOMEBODY,
            stderr=subprocess.PIPE,
        )
        try:
            eventually(lambda: server.seen)
            here = Path(f"/proc/{process.pid}")
            assert {(here / what).stat().st_uid for what in ("environ", "mem", "maps", "fd")} == {0}
            (limit,) = [line.split()[4:6] for line in (here / "limits").read_text().splitlines() if "core file" in line]
            assert limit == ["0", "0"]
        finally:
            gate.set()
            process.terminate()
            process.communicate(timeout=WITHIN)


HARDENED = """
import sys
from bearerd.grant.endpoint import set_up_fault
from bearerd.model import Provider
from bearerd.process import harden
assert harden() is None
certificate, private_key = (open(path).read() for path in sys.argv[1:])
print(set_up_fault(Provider(name="p", token_url="https://localhost/"), certificate, private_key))
"""


def test_a_certificate_is_still_passed_to_openssl() -> None:
    skip_where_others_cannot_run_python()
    key = private_key("ES256")
    with open_directory() as path:
        files = [path / "certificate", path / "key"]
        for file, text in zip(files, (self_signed(key), pem(key)), strict=True):
            file.write_text(text)
        done = subprocess.run(
            [sys.executable, "-c", HARDENED, *map(str, files)],
            user=SOMEBODY,
            capture_output=True,
            text=True,
            check=False,
        )
    assert (done.stdout, done.stderr) == ("None\n", "")


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ("import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))", "too many open files"),
        ("from bearerd.grant import tls; tls._IN_MEMORY = '/nonexistent/{}'", "no such file or directory"),
    ],
    ids=["no-descriptors", "no-proc"],
)
def test_a_certificate_that_openssl_rejects_affects_its_client_only(fault: str, why: str) -> None:
    program = HARDENED.replace("print(", f"{fault}\nprint(")
    done = subprocess.run(
        [sys.executable, "-c", program, __file__, __file__], capture_output=True, text=True, check=False
    )
    said = f"the client certificate cannot be given to OpenSSL through /proc/self/fd: {why}"
    assert (done.stdout, done.stderr) == (f"{said}\n", "")


BYTECODE_THAT_CANNOT_BE_CHANGED = """
import errno, os
os.umask(0)
from bearerd import process
changed = []
def read_only(descriptor, mode):
    changed.append(mode)
    raise OSError(errno.EROFS, os.strerror(errno.EROFS))
os.fchmod = read_only
print(process.harden(), len(changed) > 0)
"""


def test_bytecode_that_cannot_be_changed_does_not_prevent_a_start() -> None:
    with open_directory() as path:
        package = Path(bearerd_package.__file__).parent
        shutil.copytree(package, path / "bearerd", ignore=shutil.ignore_patterns("__pycache__"))
        environ = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
        done = subprocess.run(
            [sys.executable, "-c", BYTECODE_THAT_CANNOT_BE_CHANGED],
            env=environ | {"PYTHONPATH": str(path)},
            capture_output=True,
            text=True,
            check=False,
        )
    assert (done.stdout, done.stderr) == ("None True\n", "")


REAPS = """
import resource
from bearerd.child import reap
resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
print(reap())
"""


def test_process_1_works_without_access_to_proc() -> None:
    # No descriptor is left, or /proc is not mounted.
    done = subprocess.run([sys.executable, "-c", REAPS], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("frozenset()\n", "")


@pytest.mark.parametrize("verb", ["run", "once"])
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&-", "<&- 2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_no_log_line_goes_anywhere_else_when_standard_descriptors_are_closed(verb: str, closed: str) -> None:
    with open_directory() as path, serving(issues()) as server:
        config = path / "config.yaml"
        config.write_text(
            f"log: {{level: debug}}\noutput: {{directory: {path}/tokens}}\nclients:\n  dnb:\n"
            f"    token_url: {server.url}\n    allow_http: true\n    client_id: a\n"
            "    client_secret: {env: DNB_SECRET}\n    tokens: {bci: {}, risk: {}}\n"
        )
        process = subprocess.Popen(
            ["sh", "-c", f'exec "$@" {closed}', "sh", *command(verb, "-c", config)],
            env={**os.environ, "DNB_SECRET": "s3cr3t"},
            stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        try:
            eventually(lambda: (path / "tokens/dnb/bci").exists() and (path / "tokens/dnb/risk").exists())
            if verb == "run":
                for number in range(3):
                    seen = os.readlink(f"/proc/{process.pid}/fd/{number}") if os.geteuid() == 0 else "/dev/null"
                    assert seen == "/dev/null" or seen.startswith("pipe:") or "/" in seen
                    assert "socket" not in seen
                    assert str(path) not in seen
                process.terminate()
            assert process.wait(WITHIN) == 0
        finally:
            process.kill()
            process.wait()
        assert {seen.body for seen in server.seen} == {b"grant_type=client_credentials"}
        assert int((path / "tokens/.bearerd/lock").read_text()) == process.pid
        for record in (path / "tokens/.bearerd/records/dnb").iterdir():
            json.loads(record.read_text())
        assert {(path / f"tokens/dnb/{name}").read_text() for name in ("bci", "risk")} == {"t-1", "t-2"}


@pytest.mark.parametrize(("verb", "code"), [("run", 0), ("once", 1)])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_also_while_the_config_is_read(
    verb: str, code: int, number: signal.Signals, tmp_path: Path
) -> None:
    # It would take seconds to be read.
    config = tmp_path / "config.yaml"
    config.write_text("clients:\n" + "".join(f"  c{each}: {{x: [a, b, c]}}\n" for each in range(150_000)))
    with running(verb, "-c", config) as daemon:
        eventually(lambda: grandchildren(daemon.process.pid))
        assert daemon.stop(number) == code
        assert daemon.lines == [f"bearerd: {number.name}: stopping before the start"]


def grandchildren(pid: int) -> list[str]:
    """The processes that a process's children have started."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [each for child in children for each in Path(f"/proc/{child}/task/{child}/children").read_text().split()]


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_others_cannot_write_anything_the_process_creates(umask: int) -> None:
    """Bytecode included: the program is a copy without any."""
    with open_directory() as path, serving(issues()) as server:
        package = Path(bearerd_package.__file__).parent
        shutil.copytree(package, path / "lib/bearerd", ignore=shutil.ignore_patterns("__pycache__"))
        config = path / "config.yaml"
        config.write_text(
            f"output: {{directory: {path}/tokens}}\nstate_directory: {path}/state\nclients:\n  dnb:\n"
            f"    token_url: {server.url}\n    allow_http: true\n    client_id: a\n"
            "    client_secret: {env: DNB_SECRET}\n    tokens: {bci: {}}\n"
        )
        environ = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
        environ |= {"DNB_SECRET": "s3cr3t", "PYTHONPATH": f"{path}/lib"}
        for verb in ("once", "run"):
            process = subprocess.Popen(command(verb, "-c", config), env=environ, umask=umask, stderr=subprocess.DEVNULL)
            eventually((path / "tokens/dnb/bci").exists)
            if verb == "run":
                eventually((path / "tokens/.bearerd/control.sock").exists)
                process.terminate()
            assert process.wait(WITHIN) == 0
        made = [*(path / "lib").rglob("__pycache__/**/*"), *(path / "tokens").rglob("*"), *(path / "state").rglob("*")]
        assert any(each.suffix == ".pyc" for each in made)
        assert [str(each) for each in made if each.lstat().st_mode & 0o022] == []
