"""New tokens now, from a daemon that runs."""

from __future__ import annotations

import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import pytest

from bearerd import cli
from bearerd.cli import refresh as module
from bearerd.cli.ask import ask
from support.api import Site, answering, http
from support.process import WITHIN, bearerd, command, eventually, running
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


def test_the_new_token_is_in_the_file_when_the_command_ends(tmp_path: Path) -> None:
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
            assert done.stdout.startswith("dnb/bci: requested less than a minute ago; try again in ")
            assert done.stderr == "bearerd: the token was not refreshed\n"
            assert len(server.seen) == 2


def test_all_tokens_are_requested_before_the_command_waits(tmp_path: Path) -> None:
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
def test_a_failure_is_shown_with_the_state_of_the_current_token(then: Answer, said: str, tmp_path: Path) -> None:
    with serving(after_the_first(lambda _: then)) as server:
        site = Site(tmp_path, server.url)
        with running("run", "-c", site.config):
            site.wait_for(bci="valid")
            done = bearerd("refresh", "--socket", site.socket)
            assert site.states() == {"bci": "failing"}
    assert done.returncode == 1
    assert done.stdout.startswith(f"dnb/bci: {said}")
    assert done.stdout.endswith("; the current token is good for 59 min\n")
    assert done.stderr == "bearerd: the token was not refreshed\n"


@pytest.mark.parametrize(
    ("answer", "why", "until"),
    [
        pytest.param(
            Answer(401, {"error": "invalid_client"}),
            r"the provider refused it or its client: HTTP 401 invalid_client.*",
            r"[45] min",
            id="refused client",
        ),
        pytest.param(
            Answer(503, headers={"Retry-After": "600"}),
            r"its provider asked to wait \(Retry-After\): HTTP 503.*",
            r"(9|1[012]) min",
            id="Retry-After",
        ),
        pytest.param(Answer(404), r"waiting after a failed attempt: HTTP 404.*", r"[4-7]\d s", id="backoff"),
    ],
)
def test_a_token_that_is_held_longer_than_the_timeout_ends_at_once(
    answer: Answer, why: str, until: str, tmp_path: Path
) -> None:
    with serving(lambda _: answer) as server:
        site = Site(tmp_path, server.url, "{bci: {scope: bci}}")
        with running("run", "-c", site.config):
            site.wait_for(bci="missing")
            began = time.monotonic()
            done = bearerd("refresh", "dnb", "--timeout", "40s", "--socket", site.socket)
            assert time.monotonic() - began < 40
            assert len(server.seen) == 1
    assert (done.returncode, done.stderr) == (1, "bearerd: the token was not refreshed\n")
    expected = rf"dnb/bci: held: {why}; next attempt in {until}; there is no valid token\n"
    assert re.fullmatch(expected, done.stdout), done.stdout


def test_a_token_held_by_its_rate_limit_ends_at_once(tmp_path: Path) -> None:
    with serving(issues()) as server:
        site = Site(tmp_path, server.url, "{bci: {scope: bci}}\n    rate_limit: 1/h")
        with running("run", "-c", site.config):
            site.wait_for(bci="valid")
            done = bearerd("refresh", "dnb/bci", "--socket", site.socket)
            assert len(server.seen) == 1
    assert done.returncode == 1
    assert re.fullmatch(
        r"dnb/bci: requested refreshes have used up their half of its rate_limit; "
        r"try again in (5\d min|1 h); the current token is good for 59 min\n",
        done.stdout,
    )


def test_a_token_without_a_free_slot_is_noted_while_it_waits(tmp_path: Path) -> None:
    over, issue = threading.Event(), issues()

    def script(seen: Seen) -> Answer:
        if b"slow" in seen.body:
            over.wait()
        return issue(seen)

    top = "providers: {p: {token_url: URL, allow_http: true, timeout: 10m, max_concurrency: 1}}"
    with serving(script) as server:
        site = Site(tmp_path, server.url, top=top.replace("URL", server.url))
        text = site.config.read_text()
        client = "provider: p, client_id: a, client_secret: {file: " + f"{tmp_path}/secret" + "}"
        text = f"{text[: text.index('clients:')]}clients:\n  dnb: {{{client}, tokens: {{bci: {{scope: bci}}}}}}\n"
        site.config.write_text(text)
        with running("run", "-c", site.config):
            site.wait_for(bci="valid")
            site.config.write_text(f"{text}  other: {{{client}, tokens: {{slow: {{scope: slow}}}}}}\n")
            try:
                server.wait_for(2)  # the other client has the one slot now
                with asking(site, "dnb/bci") as process:
                    assert process.stderr is not None
                    line = process.stderr.readline()
                    over.set()
                    out, _ = process.communicate(timeout=WITHIN)
            finally:
                over.set()
    held = "held: its provider has max_concurrency requests in flight"
    assert line.startswith(f"bearerd: note: dnb/bci {held}; waiting up to 9 min")
    assert (process.returncode, out) == (0, f"dnb/bci: {GOOD}\n")


def test_a_wait_after_a_failed_attempt_is_noted(tmp_path: Path) -> None:
    with serving(lambda _: Answer(404)) as server:
        site = Site(tmp_path, server.url, "{bci: {scope: bci}}")
        with running("run", "-c", site.config):
            site.wait_for(bci="missing")  # the next attempt is due after a minute
            with asking(site, "dnb/bci") as process:
                assert process.stderr is not None
                line = process.stderr.readline()
    assert line.startswith("bearerd: note: dnb/bci held: waiting after a failed attempt: HTTP 404: not the reply of a ")
    assert "; waiting up to 9 min" in line


def test_a_clients_name_means_all_of_its_tokens(tmp_path: Path) -> None:
    with serving(issues()) as server:
        site = Site(tmp_path, server.url, "{bci: {scope: bci}, risk: {scope: risk}}")
        with running("run", "-c", site.config):
            site.wait_for(bci="valid", risk="valid")
            done = bearerd("refresh", "dnb", "dnb/bci", "--socket", site.socket)
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(done.stdout.splitlines()) == [f"dnb/bci: {GOOD}", f"dnb/risk: {GOOD}"]


def test_a_provider_that_does_not_answer_ends_at_the_timeout(tmp_path: Path) -> None:
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
        "dnb/bci: no new token within 300 ms; the request is in flight; the current token is good for 59 min\n"
    )


def test_the_same_token_is_reported_as_such(tmp_path: Path) -> None:
    same = {"access_token": "one", "token_type": "Bearer", "expires_in": 3600}
    with serving(lambda _: Answer(200, same)) as server:
        site = Site(tmp_path, server.url)
        with running("run", "-c", site.config):
            site.wait_for(bci="valid")
            done = bearerd("refresh", "--socket", site.socket)
    assert done.returncode == 0
    assert done.stdout == "dnb/bci: the provider returned the same token, good for 59 min\n"


def test_a_token_that_waits_for_its_publication_is_reported_with_that_moment(tmp_path: Path) -> None:
    with serving(issues()) as server:
        site = Site(tmp_path, server.url, top="publish_delay: 10m")
        with running("run", "-c", site.config):
            site.wait_for(bci="valid")
            before = (site.tokens / "dnb/bci").read_text()
            done = bearerd("refresh", "--socket", site.socket)
            assert (site.tokens / "dnb/bci").read_text() == before
            named = sha256(before.encode()).hexdigest()[:16]
            # Although the last request was less than a minute ago: this one costs the provider nothing.
            assert ask(str(site.socket), f"/refresh/dnb/bci?not={named}", "POST")[0] == 202
            eventually(lambda: (site.tokens / "dnb/bci").read_text() != before)
            # The file is there a moment before bearerd knows that it is.
            eventually(lambda: ask(str(site.socket), f"/refresh/dnb/bci?not={named}", "POST")[0] == 200)
            assert len(server.seen) == 2
    assert done.returncode == 0
    assert re.fullmatch(
        r"dnb/bci: new token, published at \d{4}-\d\d-\d\dT[0-9:]{8}Z; the current token is good for 59 min\n",
        done.stdout,
    )


def test_a_token_that_could_not_be_written_is_a_failure(tmp_path: Path) -> None:
    with serving(issues()) as server:
        site = Site(tmp_path, server.url, "{bci: {scope: bci}, risk: {scope: risk}}")
        with running("run", "-c", site.config):
            site.wait_for(bci="valid", risk="valid")
            (site.tokens / "dnb/bci").unlink()
            (site.tokens / "dnb/bci").mkdir()
            done = bearerd("refresh", "--timeout", "8s", "--socket", site.socket)
    assert done.returncode == 1
    unwritten = f"not in all of its files: {site.tokens}/dnb/bci: "
    assert done.stderr.startswith(f"bearerd: note: dnb/bci: the new token is {unwritten.replace(': ', ' yet: ', 1)}")
    assert done.stderr.endswith("\nbearerd: 1 of 2 tokens are not up to date in their files\n")
    (said,) = [line for line in done.stdout.splitlines() if line.startswith(f"dnb/bci: {unwritten}")]
    assert said.endswith("; the current token is good for 59 min")


def test_an_unknown_name_is_reported_and_the_others_are_refreshed(tmp_path: Path) -> None:
    with serving(issues()) as server:
        site = Site(tmp_path, server.url)
        with running("run", "-c", site.config):
            site.wait_for(bci="valid")
            done = bearerd("refresh", "dnb/bic", "dnb/bci", "dnb/bci", "\x1b[2J", "bci", "--socket", site.socket)
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        "dnb/bic: there is no token or client of this name; did you mean 'dnb/bci'?",
        "?[2J: there is no token or client of this name",
        "bci: there is no token or client of this name; did you mean 'dnb/bci'?",
        f"dnb/bci: {GOOD}",
    ]
    assert done.stderr == ""  # each token was refreshed


# -- a daemon that goes ----------------------------------------------------------------------------


def test_without_a_daemon_it_says_so(tmp_path: Path) -> None:
    done = bearerd("refresh", "--socket", tmp_path / "none.sock")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"bearerd: no daemon answers at {tmp_path}/none.sock: there is no such socket; is bearerd running? "
        "use --socket for another path\n"
    )


@pytest.mark.parametrize(
    ("length", "said"),
    [
        (107, "there is no such socket; is bearerd running?"),
        (
            108,
            "its path is longer than 107 bytes, the limit of Linux for a socket; use a shorter one, such as a relative",
        ),
    ],
)
def test_a_path_that_no_socket_can_have_is_told(length: int, said: str) -> None:
    path = "/ü".ljust(length - 1, "x")
    done = bearerd("refresh", env={"BEARERD_SOCKET": path})
    assert done.returncode == 1
    assert done.stderr.startswith(f"bearerd: no daemon answers at {path}: {said}")


def test_a_daemon_killed_meanwhile_is_a_failure(tmp_path: Path) -> None:
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
    # Killed during the request or before: both are reported as no answer.
    assert err.startswith(f"bearerd: no daemon answers at {site.socket}: ")


def refreshed(tmp_path: Path, capsys: pytest.CaptureFixture[str], *answers: bytes) -> tuple[int, str, str]:
    """The exit code and output for these answers."""
    left = list(answers)
    with answering(tmp_path / "s", lambda _: left.pop(0)):
        code = cli.main(["refresh", "dnb/bci", "--socket", str(tmp_path / "s")])
    assert left == []
    out, err = capsys.readouterr()
    return code, out, err


HAD = {"name": "dnb/bci", "grants": {"issued": 1}, "remaining_seconds": 60.0, "last_error": None, "on_disk": True}
HAS = HAD | {"grants": {"issued": 2}, "remaining_seconds": 90.0}
ASKED = http(202, {"grants": 1})


def status(*tokens: object, pid: int = 1) -> bytes:
    return http(200, {"pid": pid, "tokens": tokens})


def test_a_daemon_restarted_meanwhile_has_lost_the_request(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = refreshed(tmp_path, capsys, status(HAD), ASKED, status(HAD), status(HAD, pid=2))
    assert (code, out) == (1, "")
    assert err == "bearerd: the daemon was restarted while the token was requested; run the command again\n"


@pytest.mark.parametrize(
    "body",
    [
        {"tokens": []},
        {"pid": 1, "tokens": ["x"]},
        {"pid": 1, "config": "x", "tokens": []},
        {"pid": 1, "tokens": [{"name": ["x"]}]},
    ],
)
def test_an_answer_that_is_not_a_status_is_reported(
    body: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = refreshed(tmp_path, capsys, http(200, body))
    assert (code, out) == (1, "")
    assert err == f"bearerd: the answer at {tmp_path}/s is not a status as this version of bearerd knows it\n"


@pytest.mark.parametrize("grants", [None, {"issued": "x"}])
def test_a_status_whose_tokens_have_other_types_is_reported(
    grants: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = status(HAD | {"grants": grants})
    code, out, err = refreshed(tmp_path, capsys, status(HAD), ASKED, odd)
    assert (code, out) == (1, "")
    assert err.endswith(" is not a status as this version of bearerd knows it\n")


def test_a_daemon_that_stops_to_answer_had_accepted_the_request(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = refreshed(tmp_path, capsys, status(HAD), ASKED, b"")
    assert (code, out) == (1, "")
    assert err == (
        f"bearerd: no daemon answers at {tmp_path}/s: it closed the connection; it is stopping, has too many clients, "
        "or has no free file descriptors (LimitNOFILE); the request had been accepted: see bearerd status\n"
    )


def test_a_token_removed_from_the_config_ends_the_wait(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = refreshed(tmp_path, capsys, status(HAD), ASKED, status())
    assert (code, out) == (1, "dnb/bci: it is no longer in the config\n")
    code, out, _ = refreshed(tmp_path, capsys, status(HAD), http(404, {"error": "there is no token 'dnb/bci'"}))
    assert (code, out) == (1, "dnb/bci: there is no token 'dnb/bci'\n")


def test_a_result_is_read_at_the_second_poll(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # A turn counts its grant, and only then takes note of what came: in between all looks as if it had gone well.
    failed = HAS | {"last_error": "HTTP 503"}
    code, out, _ = refreshed(tmp_path, capsys, status(HAD), ASKED, status(HAS), status(failed))
    assert (code, out) == (1, "dnb/bci: failed: HTTP 503; the current token is good for 90 s\n")


def test_a_token_whose_turn_comes_in_time_is_waited_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_TURN_WITHIN", 0.0)
    held = status(HAD | {"held_by": "refused", "held_text": "refused before", "next_refresh_seconds": 5.0})
    accepted = http(202, {"grants": 1, "held": {"text": "refused before", "seconds": 5.0, "error": None}})
    code, out, err = refreshed(tmp_path, capsys, held, accepted, held, held, status(HAS), status(HAS))
    assert (code, out) == (0, "dnb/bci: new token, good for 90 s\n")
    assert err == "bearerd: note: dnb/bci held: refused before; waiting up to 29 s\n"
    hold = {"held_by": "refused", "held_text": "refused before", "held_until": "2026-11-24T02:04:00Z"}
    late = status(HAD | hold | {"next_refresh_seconds": 50.0})
    code, out, _ = refreshed(tmp_path, capsys, held, ASKED, late)
    held_until = "no new token within 30 s: held: refused before; next attempt in 50 s"
    assert (code, out) == (1, f"dnb/bci: {held_until}; the current token is good for 60 s\n")


def test_a_request_that_the_fleet_does_not_allow_ends_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    limited = status(HAD | {"refresh_limited_seconds": 70.0, "next_refresh_seconds": 3000.0})
    code, out, _ = refreshed(tmp_path, capsys, status(HAD), ASKED, limited)
    said = "requested refreshes have used up their half of its rate_limit; try again in 70 s"
    assert (code, out) == (1, f"dnb/bci: {said}; the current token is good for 60 s\n")


def test_files_that_are_being_written_are_waited_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    writing = status(HAS | {"on_disk": False})
    code, out, err = refreshed(tmp_path, capsys, status(HAD), ASKED, writing, writing, writing, status(HAS))
    assert (code, out, err) == (0, "dnb/bci: new token, good for 90 s\n", "")
