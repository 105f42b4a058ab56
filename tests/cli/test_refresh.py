"""New tokens now, from a daemon that runs."""

from __future__ import annotations

import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bearerd import cli
from bearerd.cli import refresh as module
from support.api import Site, answering, http
from support.process import WITHIN, bearerd, command, running
from support.server import Answer, Script, Seen, issues, serving

GOOD = "new token, good for 59 min"


@contextmanager
def asking(site: Site, *names: str) -> Iterator[subprocess.Popen[str]]:
    """`bearerd refresh` in the background."""
    process = subprocess.Popen(
        command("refresh", "--socket", site.socket, "--timeout", "10m", *names),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def after_the_first(then: Script) -> Script:
    """A good token, then as a test says."""
    issue, lock, seen_any = issues(3600), threading.Lock(), False

    def script(seen: Seen) -> Answer:
        nonlocal seen_any
        with lock:
            first, seen_any = not seen_any, True
        return issue(seen) if first else then(seen)

    return script


def test_a_new_token_is_in_the_file_when_it_ends(tmp_path: Path) -> None:
    with serving(issues()) as server:
        site = Site(tmp_path, server.url)
        with running("run", "-c", site.config):
            site.wait_for(bci="valid")
            before = (site.tokens / "dnb/bci").read_text()
            done = bearerd("refresh", "dnb/bci", "--socket", site.socket)
            assert (done.returncode, done.stdout, done.stderr) == (0, f"dnb/bci: {GOOD}\n", "")
            assert (site.tokens / "dnb/bci").read_text() not in ("", before)
            assert len(server.seen) == 2

            done = bearerd("refresh", "dnb/bci", env={"BEARERD_SOCKET": str(site.socket)})
            assert done.returncode == 1
            assert done.stdout.startswith("dnb/bci: requested too often; try again in ")
            assert done.stderr == "bearerd: 1 of 1 tokens not renewed\n"
            assert len(server.seen) == 2


def test_all_are_asked_for_before_any_is_waited_for(tmp_path: Path) -> None:
    # A client whose last token is over a second old has four requests in flight at most.
    names = [f"t{number}" for number in range(4)]
    # Those of the refresh are answered when all are there.
    issue, lock, counts, together = issues(), threading.Lock(), dict.fromkeys(names, 0), threading.Barrier(len(names))

    def script(seen: Seen) -> Answer:
        scope = seen.body.decode().partition("scope=")[2]
        with lock:
            counts[scope] += 1
        if counts[scope] > 1:
            together.wait(WITHIN)
        return issue(seen)

    with serving(script) as server:
        site = Site(tmp_path, server.url, "{" + ", ".join(f"{name}: {{scope: {name}}}" for name in names) + "}")
        with running("run", "-c", site.config):
            site.wait_for(**dict.fromkeys(names, "valid"))
            done = bearerd("refresh", "-c", site.config)
            assert (done.returncode, done.stderr) == (0, "")
            assert sorted(done.stdout.splitlines()) == sorted(f"dnb/{name}: {GOOD}" for name in names)
    assert counts == dict.fromkeys(names, 2)


@pytest.mark.parametrize(
    ("then", "said"),
    [
        pytest.param(Answer(503), "failed: HTTP 503", id="unavailable"),
        pytest.param(Answer(200, b"<html>"), "failed: HTTP 200", id="malformed"),
    ],
)
def test_what_it_failed_of_is_said_and_what_still_holds(then: Answer, said: str, tmp_path: Path) -> None:
    with serving(after_the_first(lambda _: then)) as server:
        site = Site(tmp_path, server.url)
        with running("run", "-c", site.config):
            site.wait_for(bci="valid")
            done = bearerd("refresh", "--socket", site.socket)
            assert site.states() == {"bci": "failing"}
    assert done.returncode == 1
    assert done.stdout.startswith(f"dnb/bci: {said}")
    assert done.stdout.endswith("; the present token is good for 59 min\n")
    assert done.stderr == "bearerd: 1 of 1 tokens not renewed\n"


def test_who_is_held_back_for_longer_than_is_waited_is_told_at_once(tmp_path: Path) -> None:
    with serving(lambda _: Answer(401, {"error": "invalid_client"})) as server:
        site = Site(tmp_path, server.url)
        with running("run", "-c", site.config):
            site.wait_for(bci="missing")
            # It is not asked before 5 minutes are over: this would time out if that were waited for.
            done = bearerd("refresh", "dnb/bci", "--timeout", "2m", "--socket", site.socket)
            assert len(server.seen) == 1
    assert done.returncode == 1
    assert done.stdout.startswith("dnb/bci: no new token within 2 min: HTTP 401 invalid_client")
    assert done.stdout.endswith("next attempt in 4 min; there is no valid token\n")


def test_a_provider_that_does_not_answer_is_waited_for_no_longer_than_asked(tmp_path: Path) -> None:
    over = threading.Event()

    def hang(_: Seen) -> Answer:
        over.wait()
        return Answer(503)

    with serving(after_the_first(hang)) as server:
        site = Site(tmp_path, server.url)
        with running("run", "-c", site.config):
            site.wait_for(bci="valid")
            done = bearerd("refresh", "dnb/bci", "--timeout", "300ms", "--socket", site.socket)
            over.set()
    assert done.returncode == 1
    assert done.stdout == (
        "dnb/bci: no new token within 300 ms; it is still being asked for; the present token is good for 59 min\n"
    )


def test_the_same_token_again_is_called_that(tmp_path: Path) -> None:
    same = {"access_token": "one", "token_type": "Bearer", "expires_in": 3600}
    with serving(lambda _: Answer(200, same)) as server:
        site = Site(tmp_path, server.url)
        with running("run", "-c", site.config):
            site.wait_for(bci="valid")
            done = bearerd("refresh", "--socket", site.socket)
    assert done.returncode == 0
    assert done.stdout == "dnb/bci: the provider gave the same token again, good for 59 min\n"


def test_one_that_could_not_be_written_is_no_success(tmp_path: Path) -> None:
    with serving(issues()) as server:
        site = Site(tmp_path, server.url)
        with running("run", "-c", site.config):
            site.wait_for(bci="valid")
            (site.tokens / "dnb/bci").unlink()
            (site.tokens / "dnb/bci").mkdir()
            done = bearerd("refresh", "dnb/bci", "--timeout", "5s", "--socket", site.socket)
    assert done.returncode == 1
    assert done.stdout.startswith(f"dnb/bci: not in all of its files: {site.tokens}/dnb/bci: ")
    assert done.stdout.endswith("; the present token is good for 59 min\n")


def test_a_name_that_is_none_is_told_and_the_others_are_renewed(tmp_path: Path) -> None:
    with serving(issues()) as server:
        site = Site(tmp_path, server.url)
        with running("run", "-c", site.config):
            site.wait_for(bci="valid")
            done = bearerd("refresh", "dnb/bic", "dnb/bci", "dnb/bci", "\x1b[2J", "--socket", site.socket)
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        "dnb/bic: there is no token of this name; did you mean dnb/bci?",
        "?[2J: there is no token of this name",
        f"dnb/bci: {GOOD}",
    ]
    assert done.stderr == "bearerd: 2 of 3 tokens not renewed\n"


# -- a daemon that goes ----------------------------------------------------------------------------


def test_without_a_daemon_it_says_so(tmp_path: Path) -> None:
    done = bearerd("refresh", "--socket", tmp_path / "none.sock")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"bearerd: no daemon answers at {tmp_path}/none.sock: there is no such socket; is bearerd running? "
        "--socket names another\n"
    )


def test_one_that_is_killed_meanwhile_is_no_success(tmp_path: Path) -> None:
    over = threading.Event()

    def hang(_: Seen) -> Answer:
        over.wait()
        return Answer(503)

    with serving(after_the_first(hang)) as server:
        site = Site(tmp_path, server.url)
        with running("run", "-c", site.config) as daemon:
            site.wait_for(bci="valid")
            with asking(site) as process:
                server.wait_for(2)
                daemon.stop(signal.SIGKILL)
                _, err = process.communicate(timeout=WITHIN)
                over.set()
    assert process.returncode == 1
    # Killed while it is asked, or before: in both cases it is said that nobody answers.
    assert err.startswith(f"bearerd: no daemon answers at {site.socket}: ")


def told(tmp_path: Path, capsys: pytest.CaptureFixture[str], *answers: bytes) -> tuple[int, str, str]:
    """What comes of these answers."""
    left = list(answers)
    with answering(tmp_path / "s", lambda _: left.pop(0)):
        code = cli.main(["refresh", "dnb/bci", "--socket", str(tmp_path / "s")])
    assert left == []
    out, err = capsys.readouterr()
    return code, out, err


HAD = {"name": "dnb/bci", "grants": {"issued": 1}, "remaining_seconds": 60.0, "last_error": None, "on_disk": True}
HAS = HAD | {"grants": {"issued": 2}, "remaining_seconds": 90.0}
ASKED = http(202, {"grants": 1})


def stands(*tokens: object, pid: int = 1) -> bytes:
    return http(200, {"pid": pid, "tokens": tokens})


def test_one_that_was_started_anew_meanwhile_forgot_the_wish(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = told(tmp_path, capsys, stands(HAD), ASKED, stands(HAD), stands(HAD, pid=2))
    assert (code, out, err) == (1, "", "bearerd: the daemon was started anew meanwhile: ask again\n")


def test_one_that_goes_from_the_config_meanwhile_is_not_waited_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = told(tmp_path, capsys, stands(HAD), ASKED, stands())
    assert (code, out) == (1, "dnb/bci: it is no longer in the config\n")
    code, out, _ = told(tmp_path, capsys, stands(HAD), http(404, {"error": "there is no token 'dnb/bci'"}))
    assert (code, out) == (1, "dnb/bci: there is no token 'dnb/bci'\n")


def test_what_came_is_judged_at_a_second_look(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # A turn counts its grant, and only then takes note of what came: in between all looks as if it had gone well.
    failed = HAS | {"last_error": "HTTP 503"}
    code, out, _ = told(tmp_path, capsys, stands(HAD), ASKED, stands(HAS), stands(failed))
    assert (code, out) == (1, "dnb/bci: failed: HTTP 503; the present token is good for 90 s\n")


def test_one_whose_turn_comes_in_time_is_waited_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_HELD_FOR_GOOD", 0.0)
    held = stands(HAD | {"held_by": "rate_limit", "next_refresh_seconds": 5.0})
    code, out, _ = told(tmp_path, capsys, held, ASKED, held, held, stands(HAS), stands(HAS))
    assert (code, out) == (0, "dnb/bci: new token, good for 90 s\n")
    late = stands(HAD | {"held_by": "rate_limit", "next_refresh_seconds": 50.0})
    code, out, _ = told(tmp_path, capsys, held, ASKED, late)
    assert (code, out) == (
        1,
        "dnb/bci: no new token within 30 s; next attempt in 50 s; the present token is good for 60 s\n",
    )


def test_files_that_are_being_written_are_waited_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    writing = stands(HAS | {"on_disk": False})
    code, out, err = told(tmp_path, capsys, stands(HAD), ASKED, writing, writing, writing, stands(HAS))
    assert (code, out, err) == (0, "dnb/bci: new token, good for 90 s\n", "")
