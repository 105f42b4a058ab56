"""What is done with the image, and what has to come of it."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import yaml

from bearerd import __version__
from image.contents import contents
from image.pod import Pod
from image.podman import ROOT, Podman, pip_settings, stand_in
from support.manifests import only, patch, pod, texts
from support.ports import free_port
from support.process import eventually
from support.provider import Provider
from support.rig import say

IMAGE = f"bearerd:{__version__}"  # as the page has it
TOKEN = "/run/bearerd/dnb/bci"
_PYTHON = "/opt/bearerd/bin/python"
# Programs that are not there: whatever would run a shell fails.
_NO_SHELL = [f"--volume=/dev/null:/usr/bin/{name}:ro" for name in ("dash", "bash")]

# The program beside bearerd: what it sees of the token, and that it can ask, but not write.
_READER = f"""
import os, socket, stat
status = os.stat("{TOKEN}")
print(status.st_uid, status.st_gid, oct(stat.S_IMODE(status.st_mode)), open("{TOKEN}").read())
try:
    open("{TOKEN}.mine", "w")
except OSError as error:
    print(error.strerror)
control = socket.socket(socket.AF_UNIX)
control.connect("/run/bearerd/.bearerd/control.sock")
control.sendall(b"GET /readyz HTTP/1.0\\r\\n\\r\\n")
print(control.recv(4096).split()[1].decode())
"""
_WRITE = """
import errno
for path in ("/tmp/x", "/run/x", "/etc/bearerd/x", "/opt/bearerd/x"):
    try:
        open(path, "w")
    except OSError as error:
        assert error.errno == errno.EROFS, error
    else:
        raise AssertionError(path)
"""
# The library is compiled, and pip is not there.
_LOOK = """
import email.parser, importlib.util, os
print(os.path.exists(email.parser.__cached__), importlib.util.find_spec("pip"))
"""
# A program that notes each HUP, and what it may see of a bearerd of the same user.
_TOLD = """
import signal, sys
sys.stdout = open("/run/bearerd/said", "w", 1)
open("/proc/self/comm", "w").write("companies")
for path in ("/proc/1/environ", "/proc/1/maps", "/proc/1/mem"):
    try:
        open(path).close()
        print("open", path)
    except PermissionError:
        pass
signal.signal(signal.SIGHUP, lambda *_: print("signalled"))
print("here")
while True:
    signal.pause()
"""
_COST = """
import resource, subprocess
for _ in range(10):
    subprocess.run(["/opt/bearerd/bin/bearerd", "health", "--ready"], check=True, stdout=subprocess.DEVNULL)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(round((used.ru_utime + used.ru_stime) * 100), used.ru_maxrss // 1024)
"""


# -- the image ---------------------------------------------------------------------------------------


def build(podman: Podman) -> None:
    """The page's command, on a stand-in; then what the image says of itself."""
    began = time.monotonic()
    base = stand_in(podman)
    say(f"base      {base}: Debian's own Python, {time.monotonic() - began:.0f} s")
    began = time.monotonic()
    [command] = [line for line in _shell() if line.startswith("podman build ")]
    words = shlex.split(command)[2:]
    assert words[-1] == "."
    assert IMAGE in words
    podman("build", "--isolation=chroot", "--pull=never", "--format=docker", *pip_settings(podman.directory), *words,
           within=900, cwd=ROOT)  # fmt: skip
    image, under = podman.inspect("image", IMAGE), podman.inspect("image", base)
    config = image["Config"]
    assert config["User"] == "65532:65532", config["User"]
    assert config["Entrypoint"] + config["Cmd"] == ["/opt/bearerd/bin/bearerd", "run"], config
    assert not config.get("Volumes"), config
    assert image["Healthcheck"]["Test"] == ["CMD", "/opt/bearerd/bin/bearerd", "health"], image["Healthcheck"]
    look = podman("run", "--rm", f"--entrypoint={_PYTHON}", IMAGE, "-c", _LOOK)
    assert look == "True None", look
    # For editors and shells of the host.
    assert json.loads(podman("run", "--rm", IMAGE, "schema"))["properties"]
    assert podman("run", "--rm", IMAGE, "completion", "bash").rstrip().endswith(" bearerd")
    podman("run", "--rm", f"--entrypoint={_PYTHON}", IMAGE, "-c", "open('/opt/bearerd/share/man/man1/bearerd.1')")
    size, more = image["Size"] / 1e6, (image["Size"] - under["Size"]) / 1e6
    took = time.monotonic() - began
    say(f"image     {size:.0f} MB, {more:.0f} MB of it bearerd's; {config['User']}, no pip, compiled; {took:.0f} s")
    contents(podman, IMAGE, base)


def _shell() -> list[str]:
    """The page's commands."""
    return [line for text in texts("sh") for line in text.replace("\\\n", " ").splitlines()]


# -- Kubernetes --------------------------------------------------------------------------------------


def sidecar(podman: Podman, directory: Path, url: str, provider: Provider) -> None:
    """The Deployment's pod: bearerd, and beside it a reader of another user."""
    spec = pod("Deployment")
    port = free_port()
    config = _config(url, port)
    with Pod(directory, spec, {"config": {"config.yaml": config}, "secrets": {"dnb": "first\n"}}).volumes() as here:
        began = time.monotonic()
        podman("run", "--detach", "--name=sidecar", *here.options("bearerd"), *_NO_SHELL, IMAGE)
        probes = here.container("bearerd")
        _until_ready(podman, "sidecar", probes["startupProbe"]["exec"]["command"])
        ready = time.monotonic() - began
        podman("exec", "sidecar", *probes["livenessProbe"]["exec"]["command"])
        pid = podman.inspect("container", "sidecar")["State"]["Pid"]
        process = _status(pid)
        assert process["NSpid"].split()[-1] == "1"
        assert process["Uid"].split() == ["65532"] * 4
        assert {process["CapEff"], process["CapBnd"]} == {"0" * 16}
        assert (process["NoNewPrivs"], process["Seccomp"]) == ("1", "2")
        assert _root_is_read_only(pid)
        podman("exec", "sidecar", _PYTHON, "-c", _WRITE)
        cost, probe = podman("exec", "sidecar", _PYTHON, "-c", _COST).split()
        memory = int(process["VmRSS"].split()[0]) // 1024
        say(
            f"sidecar   ready after {ready:.1f} s as process 1, uid 65532, no capability, no shell, root read-only; "
            f"{memory} MB, a probe {cost} ms of CPU and {probe} MB"
        )

        seen = podman("run", "--rm", *here.options("companies"), f"--entrypoint={_PYTHON}", IMAGE, "-c", _READER)
        assert seen.splitlines() == ["65532 2000 0o640 t-1", "Read-only file system", "200"], seen
        say("reader    as uid 10001: t-1, a file 65532:2000 0640; cannot write; is answered on the control socket")

        for words in map(shlex.split, _shell()):
            if words[:2] == ["kubectl", "exec"]:
                podman("exec", "sidecar", *words[words.index("--") + 1 :])
        with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
            assert b"bearerd_" in answer.read()
        provider.secret = "second"
        here.fill("secrets", {"dnb": "second\n"})
        _until_said(podman, "sidecar", "credentials for client dnb changed")
        podman("exec", "sidecar", "bearerd", "refresh", "dnb/bci")
        changed = yaml.safe_load(config)
        changed["clients"]["dnb"]["tokens"]["two"] = {}
        here.fill("config", {"config.yaml": yaml.safe_dump(changed)})
        eventually((directory / "tokens/dnb/two").exists)
        say("swaps     a new secret and a new config are taken up through ..data; metrics are served")

        took = _terminated(podman, "sidecar")
        grants = provider.grants
        podman("start", "sidecar")
        _until_ready(podman, "sidecar", probes["startupProbe"]["exec"]["command"])
        assert provider.grants == grants, "a restarted container requested valid tokens again"
        _terminated(podman, "sidecar")
        said = podman.logs("sidecar")
        assert "others can write there (mode 2777)" in said, said
        assert not re.search(r"first|second|t-\d", said), said
        say(f"TERM      exit 0 after {took:.1f} s; restarted, it sent no request")
        podman("rm", "sidecar")


def signals(podman: Podman, directory: Path, url: str, provider: Provider) -> None:
    """With the page's patch: processes shared, one user, and a signal when the token is another."""
    spec, changes = pod("Deployment"), patch()["spec"]["template"]["spec"]
    assert changes["shareProcessNamespace"] is True
    [theirs] = changes["initContainers"]
    [ours] = [container for container in spec["initContainers"] if container["name"] == theirs["name"]]
    ours["securityContext"] |= theirs["securityContext"]
    [hook] = texts("yaml", "bearerd: for that token")
    config = _config(url, free_port(), yaml.safe_load(hook))
    with Pod(
        directory, spec, {"config": {"config.yaml": config}, "secrets": {"dnb": provider.secret}}
    ).volumes() as here:
        podman("run", "--detach", "--name=both", *here.options("bearerd"), *_NO_SHELL, IMAGE)
        _until_ready(podman, "both", ["bearerd", "health", "--ready"])
        # In the same container, as podman shares no processes where it has no cgroups.
        podman("exec", "--detach", "both", _PYTHON, "-c", _TOLD)
        said = directory / "tokens/said"
        eventually(lambda: said.exists() and said.read_text().endswith("here\n"))
        podman("exec", "both", "bearerd", "refresh", "dnb/bci")
        eventually(lambda: said.read_text().endswith("signalled\n"))
        assert said.read_text() == "here\nsignalled\n", said.read_text()
        _terminated(podman, "both")
        podman("rm", "both")
    say("signals   one user, shared processes: told of the new token; sees nothing of bearerd's environment or memory")


def job(podman: Podman, directory: Path, url: str, provider: Provider) -> None:
    """The Job's init container, with the right secret and with a wrong one."""
    spec = pod("Job")
    for secret, code in (("wrong", 1), (provider.secret, 0)):
        texts_of = {"config": {"config.yaml": _config(url, free_port())}, "secrets": {"dnb": secret}}
        with Pod(directory / secret, spec, texts_of).volumes() as here:
            began = time.monotonic()
            arguments = here.container("bearerd")["args"]
            podman("run", "--rm", *here.options("bearerd"), *_NO_SHELL, IMAGE, *arguments, code=code)
            took = time.monotonic() - began
            there = directory / secret / "tokens/dnb/bci"
            assert there.exists() == (code == 0)
            say(f"once      with the {'right' if code == 0 else 'wrong'} secret: exit {code} after {took:.1f} s")


# -- Docker, Podman ----------------------------------------------------------------------------------


def by_hand(podman: Podman, directory: Path, url: str, provider: Provider) -> None:
    """The page's commands, in a directory as they expect it; then as any other user, and without a volume."""
    (directory / "bearerd").mkdir()
    (directory / "dnb.secret").write_text(f"{provider.secret}\n")
    [config] = texts("yaml", "bearerd: ./bearerd/config.yaml")
    (directory / "bearerd/config.yaml").write_text(_at(url, yaml.safe_load(config)))
    _page_commands(podman, directory, "65532", "bearerd")
    podman("healthcheck", "run", "bearerd")
    took = _terminated(podman, "bearerd")
    podman("rm", "bearerd")
    podman("volume", "rm", "tokens")
    say(f"by hand   the page's commands: a reader of its group, the health check, TERM after {took:.1f} s")

    _page_commands(podman, directory, "12345", "other")
    assert _status(podman.inspect("container", "other")["State"]["Pid"])["Uid"].split()[0] == "12345"
    _terminated(podman, "other")
    podman("rm", "other")
    podman("run", "--name=bare", "--read-only", "--read-only-tmpfs=false",
           f"--volume={directory}/bearerd:/etc/bearerd:ro", IMAGE, code=1)  # fmt: skip
    said = podman.logs("bare").splitlines()[-1]
    podman("rm", "bare")
    assert "read-only" in said, said
    say(f"any user  uid 12345 with a volume of its own; without one it ends: {said}")


def _page_commands(podman: Podman, directory: Path, uid: str, name: str) -> None:
    """Run them, for a user; what this machine cannot do (cgroups), and what is another image's, is left out."""
    for line in _shell():
        words = shlex.split(line.replace("65532", uid).replace("$PWD", str(directory)))
        if words[0] == "install":
            subprocess.run(words, cwd=directory, check=True)
        elif words[:2] == ["podman", "volume"]:
            podman(*words[1:])
        elif words[:3] == ["podman", "run", "--detach"]:
            for option in ("--restart", "--memory"):
                at = words.index(option)
                del words[at : at + 2]
            words[words.index("bearerd")] = name
            user = [] if uid == "65532" else [f"--user={uid}:{uid}"]
            podman("run", "--read-only-tmpfs=false", *_NO_SHELL, *user, *words[2:])
            _until_ready(podman, name, ["bearerd", "health"])
        elif words[:3] == ["podman", "run", "--rm"]:
            seen = podman(*words[1:-1], f"--entrypoint={_PYTHON}", IMAGE, "-c", _READER)
            status, error, answered = seen.splitlines()
            assert re.fullmatch(rf"{uid} {uid} 0o640 t-\d", status), seen
            assert (error, answered) == ("Read-only file system", "200"), seen


# -- helpers -----------------------------------------------------------------------------------------


def _config(url: str, port: int, more: Mapping[str, Any] | None = None) -> str:
    """The ConfigMap's, with the token server and a port of this run, and `more` for its token."""
    config = yaml.safe_load(only("ConfigMap")["data"]["config.yaml"])
    config["listen"]["address"] = config["listen"]["address"].replace("9810", str(port))
    config["clients"]["dnb"]["tokens"]["bci"] |= more or {}
    return _at(url, config)


def _at(url: str, config: dict[str, Any]) -> str:
    config["clients"]["dnb"] |= {"token_url": url, "allow_http": True}
    return yaml.safe_dump(config)


def _until_ready(podman: Podman, name: str, command: list[str]) -> None:
    eventually(lambda: podman.code("exec", name, *command) == 0, 180.0)


def _until_said(podman: Podman, name: str, text: str) -> None:
    eventually(lambda: text in podman.logs(name))


def _terminated(podman: Podman, name: str) -> float:
    """Send TERM; how long it took to end, with 0: the kernel would have ended it after 4 s, and not with 0."""
    began = time.monotonic()
    podman("kill", "--signal=TERM", name)
    code = podman("wait", "--interval=50ms", name)
    took = time.monotonic() - began
    assert code == "0", f"{name}: exit {code} after TERM\n{podman('logs', name)}"
    return took


def _status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _root_is_read_only(pid: int) -> bool:
    lines = [line.split() for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines()]
    return all("ro" in words[5].split(",") for words in lines if words[4] == "/")
