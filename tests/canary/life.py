"""A daemon with every kind of secret, watched from all sides: from its start to its end."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from bearerd.cli.ask import NoAnswer, ask, ask_status
from canary.looks import Files, Processes, Running, look_as_another_user, look_at_execs, running, traced
from canary.marks import Marks
from canary.provider import REPLIES
from canary.site import Site, site
from fleet.secured import dumped
from support.process import WITHIN, command, eventually

OWN: Final = ("config.yaml", "broken.yaml", "ca.pem", "templates/", "out/", "tls.crt", "execs", "patch-", "fired-")
"""Files of the rig itself in the directory of a site. The output is searched by itself."""
_ABORTED: Final = b"Fatal Python error"


def life(path: Path, marks: Marks, form: str, *, short: bool) -> None:
    """Run a daemon that logs in this format; the JSON one in Python's development mode, until it is aborted."""
    with site(path, marks, {"level": "debug", "format": form}) as here:
        here.write()
        text = form == "text"
        # The short form leaves the processors to the daemon.
        pause = 0.02 if short else 0.001
        processes, files = Processes(pause), Files(here, pause)
        execs = path / "execs"
        execs.touch(0o600)  # it also shows the environment of the daemon itself
        processes.start()
        files.start()
        environ = here.environ | ({} if text else {"PYTHONFAULTHANDLER": "1"})
        environ |= {} if text or short else {"PYTHONTRACEMALLOC": "3"}
        python = [] if text else ["-X", "dev"]
        with running(
            path / "out", "run", "-c", here.file, environ=environ, python=python, before=traced(execs), journal=text
        ) as daemon:
            settled(here, daemon)
            look_as_another_user(here)
            look_at_api(here)
            if text or not short:
                ask_everything(here, short=short)
                broken_config(here, daemon, short=short)
            rotated(here)
            here.provider.replies |= dict.fromkeys(here.config["clients"], REPLIES["down"])
            refresh_all(here)
            look_at_api(here)
            if text:
                code = daemon.signal(signal.SIGTERM)
                assert code == 0, f"exit {code}:\n{daemon.output[-2000:]!r}"
            else:
                aborted(here, daemon)
            look_at_output(marks, daemon, f"the log at DEBUG as {form}")
        processes.stop()
        files.stop()
        processes.report(marks)
        wrong = files.report(marks, OWN)
        assert not wrong, f"files with a token that others could read: {wrong}"
        look_at_execs(marks, execs, daemon.argv)
        marks.look("what hooks and commands of secrets saw of themselves", here.hooks_saw.read_bytes())
        entries = dumped(here.redis)
        assert b"sealed" in entries, "nothing is shared"
        marks.look("entries of the share in Redis", entries)
        cores = [file for file in (path / "out").iterdir() if file.name.startswith("core")]
        marks.look("core files", *(file.read_bytes() for file in cores), samples=len(cores), unit="files")
        assert not cores, f"a core was written: {cores}"


def settled(here: Site, daemon: Running) -> None:
    """Wait until each client had its first attempt, and hooks have run."""

    def all_tried() -> bool:
        assert daemon.process.poll() is None, daemon.output[-3000:].decode(errors="replace")
        try:
            document, _ = ask_status(str(here.socket))
        except NoAnswer:
            return False
        tokens = document["tokens"]
        untried[:] = [token["name"] for token in tokens if not token["last_error"] and not token["expires_at"]]
        return not untried

    untried: list[str] = ["all"]
    eventually(all_tried, 180.0)  # it runs under strace
    eventually(lambda: here.hooks_saw.exists() and b"an argument" in here.hooks_saw.read_bytes())


def look_at_output(marks: Marks, daemon: Running, where: str) -> None:
    """Search what it wrote."""
    assert daemon.output.strip(), "nothing was written"
    marks.look(where, daemon.output)


def answer(here: Site, path: str, method: str = "GET") -> bytes:
    """What the control socket answers; a daemon under strace may take longer than a caller waits."""
    answers: list[bytes] = []

    def answered() -> bool:
        with suppress(NoAnswer):
            answers.append(ask(str(here.socket), path, method)[1])
        return bool(answers)

    eventually(answered)
    return answers[0]


def look_at_api(here: Site) -> None:
    """Everything that the control socket answers."""
    answers = [answer(here, path) for path in ("/", "/metrics", "/livez", "/readyz", "/status", "/nothing")]
    answers += [answer(here, "/refresh/basic/t", "POST")]
    here.marks.look("the control socket: status, metrics, page, refresh", *answers)


def refresh_all(here: Site) -> None:
    """Ask for new tokens, and look at what the command says."""
    run(here, "refresh", "--socket", here.socket, "--timeout", "2s")


def ask_everything(here: Site, *, short: bool) -> None:
    """Each command, next to the daemon."""
    known = ["--socket", str(here.socket)]
    for arguments in (
        ["status", *known],
        ["status", "--json", *known],
        ["health", *known],
        ["refresh", *known, "--timeout", "2s"],
        ["refresh", *known, "basic", "nobody", "--timeout", "2s"],
        ["check", "-c", str(here.file)],
        ["once", "-c", str(here.file)],
        *([] if short else [["check", "--online", "-c", str(here.file)], ["schema"], ["health", "--live", *known]]),
    ):
        run(here, *arguments)
    secret = here.marks.make("secret given to init", "")
    directory = here.path / "out" / "init"
    answers = ["--set", "issuer=https://sso.example.com/realms/acme", "--set", "client_id=bearerd"]
    for _ in range(2):  # the second time it refuses to overwrite the files
        run(here, "init", "keycloak", "--directory", directory, "--secret-file", "-", *answers, stdin=secret)
    assert (directory / "config.yaml").exists()


def run(
    here: Site, *arguments: str | Path, stdin: str = "", environ: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, and search its output."""
    inherited = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    done = subprocess.run(
        command(*arguments),
        env={**inherited, **here.environ, **(environ or {})},
        input=stdin,
        capture_output=True,
        text=True,
        timeout=WITHIN * 2,
        check=False,
        cwd=here.path / "out",
    )
    assert done.stdout or done.stderr or arguments[0] == "health", f"{arguments}: no output, exit {done.returncode}"
    here.marks.look("the output of init, check, once, status, health, refresh", done.stdout, done.stderr)
    return done


def rotated(here: Site) -> None:
    """New secrets in some files, others that nobody can use, and one that is gone."""
    for name in ("basic", "hmac", "proxy", "redis", "share-key", "header"):
        here.secret(name, "rotated secret", "")
    key = here.secrets / "pkcs8"
    key.write_text(key.read_text().replace("\n", " ", 1))
    (here.secrets / "robot.json").write_text('{"private_key": "' + here.marks.make("broken key"))
    (here.secrets / "of-scope").chmod(0o644)
    (here.secrets / "of-problem").write_bytes(b"\xff\xfe" + here.marks.make("client secret").encode("utf-16-le"))
    (here.secrets / "of-gzip").unlink()
    (here.secrets / "of-html").write_text(here.marks.make("client secret") + "\n\n " + here.marks.make("client secret"))
    refresh_all(here)


def broken_config(here: Site, daemon: Running, *, short: bool) -> None:
    """A config with secrets where they do not belong, which the daemon refuses."""
    good = here.file.read_text()
    broken = [
        good.replace("client_secret:", f"client_secret: {here.marks.make('secret in a broken config', '')} #", 1),
        good + f"\n  x: [{here.marks.make('secret in a broken config')}: {{",
        good + f"\n{here.marks.make('secret in a broken config', '')}: 1\n",
    ]
    for number, text in enumerate(broken, 1):
        here.file.write_text(text)
        eventually(lambda number=number: daemon.output.count(b"the new config has") >= number)
        look_at_api(here)
        if not short:
            run(here, "check", "-c", here.file)
    here.file.write_text(good)
    eventually(lambda: b"config reloaded" in daemon.output)


def aborted(here: Site, daemon: Running) -> None:
    """Kill it as a crash would, in the middle of requests, with a limit that allows a core file."""
    here.provider.hold.clear()
    before = len(here.provider.served)
    here.provider.replies.clear()
    refresh_all(here)
    here.provider.hold.set()
    limits = Path(f"/proc/{daemon.pid}/limits").read_text()
    assert [line.split()[4:6] for line in limits.splitlines() if "core file" in line] == [["0", "0"]], limits
    with suppress(PermissionError):  # in a container, where root may not raise limits
        resource.prlimit(daemon.pid, resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    code = daemon.signal(signal.SIGABRT)
    # faulthandler reads the stacks of threads that run meanwhile, and may crash over one that changes.
    assert code in {-signal.SIGABRT, -signal.SIGSEGV}, f"exit {code}"
    assert _ABORTED in daemon.output, "faulthandler wrote nothing"
    assert before <= len(here.provider.served)
