"""The local API of a running daemon, used with curl."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from base64 import b64encode
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from support.api import Site
from support.process import WITHIN, Daemon, eventually, pause, running
from support.server import Answer, Seen, Server, issues, serving

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not here: apt-get install curl")
ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: to be somebody else")
MEMBER, GROUP, STRANGER = 54321, 54322, 54323

COULD_NOT_CONNECT, TIMED_OUT = 7, 28
"""curl's exit codes."""


@dataclass
class Curled:
    code: int
    status: int
    headers: dict[str, str]
    body: str

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def curl(address: Path | int, route: str, *arguments: str, user: int | None = None, group: int | None = None) -> Curled:
    """`curl --unix-socket PATH`, or at a port of loopback."""
    where = ["--unix-socket", str(address)] if isinstance(address, Path) else []
    host = "127.0.0.1" + ("" if isinstance(address, Path) else f":{address}")
    done = subprocess.run(
        ["curl", "-q", "-sS", "-i", "--max-time", "60", *where, *arguments, f"http://{host}{route}"],
        capture_output=True,
        text=True,
        check=False,
        user=user,
        group=group,
        extra_groups=None if user is None else [],
    )
    head, _, body = done.stdout.partition("\n\n")
    first, *lines = head.splitlines() or [""]
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return Curled(done.returncode, int(first.split()[1]) if first else 0, headers, body)


def port_of(daemon: Daemon) -> int:
    """Where it found to listen."""
    return int(daemon.wait_for("listening on port ").rpartition(" ")[2])


LISTEN = 'listen: {address: "127.0.0.1:0", page: true}'


@pytest.fixture
def server() -> Iterator[Server]:
    with serving(issues()) as server:
        yield server


@contextmanager
def kept(
    path: Path, server: Server, top: str = LISTEN, tokens: str = "{bci: {scope: bci}}"
) -> Iterator[tuple[Site, Daemon]]:
    """A daemon that has its tokens."""
    site = Site(path, server.url, tokens, top)
    with running("run", "-c", site.config) as daemon:
        eventually(lambda: set(site.states().values()) == {"valid"})
        yield site, daemon


# -- every route ---------------------------------------------------------------------------------------


def test_curl_has_every_route(tmp_path: Path, server: Server) -> None:
    with kept(tmp_path, server) as (site, daemon):
        port = port_of(daemon)
        for address in (site.socket, port):
            for route in ("/livez", "/readyz"):
                found = curl(address, route)
                assert (found.status, found.json) == (200, {"ok": True, "reasons": [], "config_error": None})
            assert 'bearerd_token_state{failure="",name="dnb/bci"' in curl(address, "/metrics").body
            assert curl(address, "/").body.startswith("<!doctype html>")
            found = curl(address, "/metrics", "--head")
            assert (found.status, found.body) == (200, "")
            assert curl(address, "/livez", "-X", "POST").status == 405

        found = curl(site.socket, "/status")
        assert (found.status, found.headers["content-type"]) == (200, "application/json")
        assert found.json["pid"] == daemon.process.pid
        assert found.json["config"]["error"] is None
        assert [token["name"] for token in found.json["tokens"]] == ["dnb/bci"]
        assert curl(site.socket, "/refresh/dnb/bci").status == 405
        assert curl(site.socket, "/refresh/dnb/other", "-X", "POST").status == 404
        found = curl(site.socket, "/refresh/dnb/bci", "-X", "POST", "--data", "whatever")
        accepted = {"name": "dnb/bci", "answer": "accepted", "grants": 1, "held": None}
        assert (found.status, found.json) == (202, accepted)
        for route in ("/status", "/refresh/dnb/bci"):
            assert curl(port, route, "-X", "POST").status == curl(port, route).status == 404


def test_the_api_contains_no_token_secret_or_response_body(tmp_path: Path) -> None:
    issue = issues(token_type="Bearer", instance_url="https://PRIVATE.example.com", refresh_token="PRIVATE-R")

    def script(seen: Seen) -> Answer:
        scope = seen.body.decode().partition("scope=")[2]
        answers = {
            "bad": Answer(400, {"error": "invalid_scope", "error_description": "PRIVATE-D", "more": "PRIVATE-M"}),
            "html": Answer(200, b"<html>PRIVATE-H</html>"),
        }
        answer = answers.get(scope) or issue(seen)
        if scope == "bci":
            answer.body["access_token"] = "PRIVATE-" + answer.body["access_token"]
        return answer

    with serving(script) as server:
        site = Site(tmp_path, server.url, "{bci: {scope: bci}, bad: {scope: bad}, html: {scope: html}}", LISTEN)
        (tmp_path / "secret").write_text("PRIVATE-S")
        with running("run", "-c", site.config) as daemon:
            port = port_of(daemon)
            site.wait_for(bci="valid", bad="missing", html="missing")
            answers = [curl(site.socket, "/refresh/dnb/bci", "-X", "POST")]
            server.wait_for(4)
            eventually(lambda: (site.tokens / "dnb/bci").read_text() == "PRIVATE-t-2")
            answers += [curl(site.socket, route) for route in ("/status", "/metrics", "/", "/livez", "/readyz")]
            answers += [curl(port, route) for route in ("/metrics", "/", "/livez", "/readyz")]
            answers += [curl(site.socket, f"/refresh/dnb/{name}", "-X", "POST") for name in ("bci", "bad", "html")]
            daemon.stop()
        said = "\n".join([*daemon.lines, *(f"{answer.headers}\n{answer.body}" for answer in answers)])
        hidden = ["PRIVATE", b64encode(b"a:PRIVATE-S").decode()]
        hidden += [sha256(text).hexdigest()[:8] for text in (b"PRIVATE-t-1", b"PRIVATE-t-2", b"PRIVATE-S")]
        assert [text for text in hidden if text in said] == []
        assert "invalid_scope" in said  # what it failed of is there


# -- probes --------------------------------------------------------------------------------------------


def test_it_is_ready_when_every_required_token_is_valid_on_disk(tmp_path: Path) -> None:
    issue, may_answer = issues(), threading.Event()

    def script(seen: Seen) -> Answer:
        if b"scope=slow" in seen.body:
            assert may_answer.wait(WITHIN)
            return issue(seen)
        return Answer(503) if b"scope=down" in seen.body else issue(seen)

    with serving(script) as server:
        # Clients of their own: one whose first grant is under way has others wait.
        tokens = "{slow: {scope: slow}}\n  other:\n    token_url: URL\n    allow_http: true\n    client_id: b\n"
        tokens += "    client_secret: {env: S}\n    tokens: {down: {scope: down, required: false}, ok: {scope: ok}}"
        site = Site(tmp_path, server.url, tokens.replace("URL", server.url), LISTEN)
        with running("run", "-c", site.config, env={"S": "s"}) as daemon:
            port = port_of(daemon)
            eventually(lambda: site.states() == {"slow": "starting", "down": "missing", "ok": "valid"})
            for address in (site.socket, port):
                found = curl(address, "/readyz", "--fail-with-body")
                assert (found.status, found.code) == (503, 22)
                assert found.json == {"ok": False, "reasons": ["dnb/slow: starting"], "config_error": None}
                assert curl(address, "/livez").json == {"ok": True, "reasons": [], "config_error": None}
            assert not (site.tokens / "dnb/slow").exists()
            may_answer.set()
            eventually(lambda: curl(port, "/readyz").status == 200)
            assert (site.tokens / "dnb/slow").exists()
            assert site.states()["down"] == "missing"  # and it is not required

            # On disk: what cannot be written is not ready.
            (site.tokens / "dnb/slow").unlink()
            (site.tokens / "dnb/slow/in-the-way").mkdir(parents=True)
            assert curl(site.socket, "/refresh/dnb/slow", "-X", "POST").status == 202
            daemon.wait_for("files: ")
            found = curl(port, "/readyz")
            reasons = [f"dnb/slow: unwritten: {site.tokens}/dnb/slow: a directory has this name; move it away"]
            assert (found.status, found.json["reasons"]) == (503, reasons)
            assert curl(port, "/livez").status == 200


# -- the config ----------------------------------------------------------------------------------------


def test_status_shows_the_error_of_a_refused_config_until_it_is_corrected(tmp_path: Path, server: Server) -> None:
    with kept(tmp_path, server, top="") as (site, daemon):

        def config() -> Any:
            return curl(site.socket, "/status").json["config"]

        good = site.config.read_text()
        loaded = config()["loaded_at"]
        broken = {
            good.replace("scope:", "scop:"): "config.yaml:10:20: unknown key",
            f"{good}listen: {{address: '127.0.0.1:0'}}\ncontrol: {{mode: '0600'}}\n": (
                "a changed control and listen needs a restart"
            ),
        }
        for text, said in broken.items():
            site.config.write_text(text)
            daemon.wait_for("stays in use")
            assert said in config()["error"]
            assert config()["loaded_at"] == loaded
        assert "bearerd_config_last_reload_successful 0.0" in curl(site.socket, "/metrics").body
        # Nothing else has changed, and it is as well as before.
        assert [curl(site.socket, route).status for route in ("/livez", "/readyz")] == [200, 200]
        assert site.socket.stat().st_mode & 0o777 == 0o660
        site.config.write_text(good)
        daemon.wait_for("config reloaded")
        assert config()["error"] is None


# -- refresh -------------------------------------------------------------------------------------------


def digest(token: str) -> str:
    """As a consumer has it: `sha256sum | cut -c1-16`."""
    command = f"printf %s {token} | sha256sum | cut -c1-16"
    return subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True).stdout.strip()


def test_ten_requests_for_a_failed_token_cost_one_grant(tmp_path: Path, server: Server) -> None:
    with kept(tmp_path, server) as (site, _):

        def wish(token: str) -> Curled:
            return curl(site.socket, f"/refresh/dnb/bci?not={digest(token)}", "-X", "POST")

        # Ten clients with the same token at once, after one with an old token.
        assert wish("t-0").status == 200
        answers: list[int] = []
        asking = [threading.Thread(target=lambda: answers.append(wish("t-1").status)) for _ in range(10)]
        for thread in asking:
            thread.start()
        for thread in asking:
            thread.join()
        # The others were too early, or came when there was a new one, or when it was being written.
        assert 202 in answers
        assert set(answers) <= {200, 202, 429}
        eventually(lambda: (site.tokens / "dnb/bci").read_text() == "t-2")
        eventually(lambda: wish("t-1").status == 200)  # it knows so a moment after a reader can
        found = wish("t-1")
        assert (found.status, found.json["answer"]) == (200, "there is a newer token in its files already")
        for again in (wish("t-2"), curl(site.socket, "/refresh/dnb/bci", "-X", "POST")):
            assert again.status == 429
            assert 0 < int(again.headers["retry-after"]) == again.json["retry_after"] <= 60
        assert len(server.seen) == 2


def test_a_request_for_a_failed_token_is_accepted_while_the_newer_one_cannot_be_written(
    tmp_path: Path, server: Server
) -> None:
    with kept(tmp_path, server) as (site, _):
        file = site.tokens / "dnb/bci"
        route = f"/refresh/dnb/bci?not={digest('t-1')}"
        file.unlink()
        file.mkdir()
        assert curl(site.socket, route, "-X", "POST").status == 202
        eventually(lambda: [sum(token["grants"].values()) for token in site.status()["tokens"]] == [2])
        site.wait_for(bci="unwritten")
        found = curl(site.socket, route, "-X", "POST")
        assert (found.status, found.json["answer"], found.json["held"]) == (202, "accepted", None)
        file.rmdir()
        site.wait_for(bci="valid")
        assert file.read_text() == "t-2"
        assert curl(site.socket, route, "-X", "POST").status == 200
        assert len(server.seen) == 2


def test_refresh_requests_may_use_half_of_a_rate_limit(tmp_path: Path, server: Server) -> None:
    tokens = "{bci: {rate}, risk: {}}\n    rate_limit: 5/h\n  other:\n    token_url: URL\n    allow_http: true\n"
    tokens += "    client_id: b\n    client_secret: {env: S}\n    rate_limit: 1/h\n    tokens: {one: {}}"
    tokens = tokens.replace("{rate}", "{}").replace("URL", server.url)
    site = Site(tmp_path, server.url, tokens)
    with running("run", "-c", site.config, env={"S": "s"}):
        site.wait_for(bci="valid", risk="valid", one="valid")
        # Half of five is two, and two are used; half of one is none.
        for name, least in (("dnb/bci", 3400), ("dnb/risk", 3400), ("other/one", 3400)):
            found = curl(site.socket, f"/refresh/{name}", "-X", "POST")
            assert found.status == 429
            assert least <= int(found.headers["retry-after"]) <= 3600
        assert len(server.seen) == 3


# -- access -------------------------------------------------------------------------------------------


@ROOT
def test_only_members_of_the_group_can_connect_and_they_cannot_read_records(server: Server) -> None:
    # Not below pytest's directory, which is root's alone.
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        site = Site(Path(name), server.url)
        site.config.write_text(site.config.read_text().replace("output: {", f"output: {{group: {GROUP}, "))
        with running("run", "-c", site.config):
            site.wait_for(bci="valid")
            assert (site.socket.stat().st_mode & 0o777, site.socket.stat().st_gid) == (0o660, GROUP)
            record = site.tokens / ".bearerd/records/dnb/bci.json"
            assert "t-1" in record.read_text()

            def may_read(path: Path, user: int, group: int) -> bool:
                return not subprocess.run(
                    ["cat", path], capture_output=True, check=False, user=user, group=group, extra_groups=[]
                ).returncode

            for route in ("/status", "/metrics", "/livez", "/readyz", "/"):
                assert curl(site.socket, route, user=MEMBER, group=GROUP).status == 200
                assert curl(site.socket, route, user=STRANGER, group=STRANGER).code == COULD_NOT_CONNECT
            ours = [path for path in (site.tokens / ".bearerd").rglob("*") if path.is_file()]
            assert record in ours
            assert [path for path in ours if may_read(path, MEMBER, GROUP)] == []
            assert may_read(site.tokens / "dnb/bci", MEMBER, GROUP)
            assert not may_read(site.tokens / "dnb/bci", STRANGER, STRANGER)
            post = ("/refresh/dnb/bci", "-X", "POST")
            assert curl(site.socket, *post, user=STRANGER, group=STRANGER).code == COULD_NOT_CONNECT
            assert len(server.seen) == 1
            assert curl(site.socket, *post, user=MEMBER, group=GROUP).status == 202
            server.wait_for(2)


def test_over_tcp_only_addresses_localhost_and_configured_names_are_answered(tmp_path: Path, server: Server) -> None:
    top = LISTEN.replace("page: true", "page: true, hosts: [web1.example.com]")
    with kept(tmp_path, server, top=top) as (site, daemon):
        port = port_of(daemon)
        for route in ("/", "/livez", "/readyz", "/metrics"):
            for host in (f"localhost:{port}", "[::1]", "WEB1.example.com"):
                assert curl(port, route, "-H", f"Host: {host}").status == 200
            found = curl(port, route, "-H", f"Host: evil.example:{port}")
            assert (found.status, list(found.json)) == (421, ["error"])
            assert "dnb" not in found.body
            assert curl(site.socket, route, "-H", "Host: evil.example").status == 200


# -- start and stop ------------------------------------------------------------------------------------


def test_the_socket_left_by_a_killed_daemon_is_replaced(tmp_path: Path, server: Server) -> None:
    with kept(tmp_path, server) as (site, daemon):
        pause(daemon.process)
        assert curl(site.socket, "/livez", "--max-time", "0.2").code == TIMED_OUT
        daemon.stop(signal.SIGKILL)
        assert curl(site.socket, "/livez").code == COULD_NOT_CONNECT
        assert site.socket.is_socket()
        with running("run", "-c", site.config) as another:
            site.wait_for(bci="valid")
            assert curl(site.socket, "/status").json["pid"] == another.process.pid
            assert len(server.seen) == 1
            assert another.stop() == 0
        assert not site.socket.exists()


def test_a_stop_waits_for_no_client_and_removes_the_socket(tmp_path: Path, server: Server) -> None:
    with kept(tmp_path, server) as (site, daemon):
        port = port_of(daemon)
        lines = [socket.create_connection(("127.0.0.1", port)) for _ in range(20)]
        lines += [socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) for _ in range(20)]
        for line in lines[20:]:
            line.connect(str(site.socket))
            line.sendall(b"GET /status HTTP/1.1\r\nHost:")
        assert daemon.stop() == 0  # and was not ended by the kernel, after 4 s
        assert not site.socket.exists()
        for line in lines:
            line.close()
        assert "stopping; the token files stay" in daemon.lines[-1]
        assert curl(port, "/livez").code == COULD_NOT_CONNECT
        assert (site.tokens / "dnb/bci").read_text() == "t-1"


# A daemon whose main loop looks every 0.1 s instead of every 8.
OFTEN = (
    "import bearerd.service.run as r; r.CHECK_CLOCKS_EVERY = 0.1; from bearerd import cli; raise SystemExit(cli.main())"
)


@contextmanager
def looking_often(site: Site) -> Iterator[Daemon]:
    process = subprocess.Popen(
        [sys.executable, "-c", OFTEN, "run", "-c", str(site.config)], stderr=subprocess.PIPE, text=True
    )
    daemon = Daemon(process)
    try:
        yield daemon
    finally:
        if process.poll() is None:
            daemon.stop()
        assert process.stderr is not None
        process.stderr.close()


def test_a_used_port_and_a_removed_socket_are_retried_and_affect_no_token(tmp_path: Path, server: Server) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        port = other.getsockname()[1]
        site = Site(tmp_path, server.url, top=f'listen: {{address: "127.0.0.1:{port}"}}')
        with looking_often(site) as daemon:
            said = daemon.wait_for("cannot listen at")
            assert f"cannot listen at 127.0.0.1:{port}: address already in use" in said
            site.wait_for(bci="valid")
            assert curl(site.socket, "/readyz").status == 200
            other.close()
            daemon.wait_for(f"listening at 127.0.0.1:{port}")
            assert curl(port, "/readyz").status == 200

            site.socket.unlink()
            eventually(site.socket.exists)
            eventually(lambda: curl(site.socket, "/livez").status == 200)
            assert len(server.seen) == 1
            assert daemon.stop() == 0
        assert sum("cannot listen at" in line for line in daemon.lines) == 1


# -- idle ----------------------------------------------------------------------------------------------


def wake_ups(pid: int) -> dict[str, int]:
    """How often each thread of a process gave up the processor to wait."""
    found: dict[str, int] = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # a thread that ended meanwhile
            match = re.search(r"^voluntary_ctxt_switches:\s+(\d+)", (task / "status").read_text(), re.MULTILINE)
            assert match is not None
            found[task.name] = int(match[1])
    return found


def is_quiet(pid: int) -> bool:
    """Whether nobody looked around in the next two seconds but the main thread, once.

    Whatever looks each second (waitress, serve_forever) wakes twice at least. The main thread's look, and what it
    wakes, may fall into these seconds.
    """
    before = wake_ups(pid)
    threading.Event().wait(2.2)
    after = wake_ups(pid)
    woken = {task: after[task] - count for task, count in before.items() if after.get(task, count) - count > 1}
    return set(woken) <= {str(pid)} and sum(woken.values()) <= 6


def test_an_idle_process_wakes_only_every_8_s(tmp_path: Path, server: Server) -> None:
    with kept(tmp_path, server) as (site, daemon):
        port = port_of(daemon)
        for address in (site.socket, port):
            assert curl(address, "/metrics").status == 200
        # On a slow machine what the start and the answers were about goes on for a while.
        eventually(lambda: is_quiet(daemon.process.pid))
        # One, the log, the schedule, the deadlines, a worker, two sockets; watchdog's dispatcher, and two for a
        # directory.
        assert len(wake_ups(daemon.process.pid)) <= 10
