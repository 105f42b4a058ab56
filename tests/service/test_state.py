"""What outlives a process and a reboot: refusals and rate limits, with the real command and real servers."""

from __future__ import annotations

import base64
import itertools
import re
import shutil
import signal
import stat
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from bearerd.admission.admission import Admission
from bearerd.admission.journal import Journal
from bearerd.admission.types import Ask, Granted, Limits, Ticket
from bearerd.grant.outcome import Refused
from bearerd.terms import RateLimit
from support.clock import FakeClock
from support.process import WITHIN, bearerd, eventually, patched, running
from support.server import Answer, Script, Seen, Server, issues, serving
from support.targets import CLIENT, target

REFUSAL = Answer(401, {"error": "invalid_client"})
REFUSED = "HTTP 401 invalid_client: the client was refused"
YEAR = 365 * 86_400.0


@dataclass
class Place:
    """A config with one client, its secrets, its output and its state."""

    directory: Path
    server: Server
    secrets: int = 1

    @property
    def config(self) -> Path:
        return self.directory / "config.yaml"

    @property
    def state(self) -> Path:
        return self.directory / "state"

    @property
    def token(self) -> Path:
        return self.directory / "tokens/dnb/bci"

    def write(self, client: str = "", tokens: str = "{bci: {}}", state: str | None = None) -> None:
        names = ", ".join(f"{{file: {self.directory}/secret-{number}}}" for number in range(self.secrets))
        self.config.write_text(
            f"output: {{directory: {self.directory}/tokens}}\nstate_directory: {state or self.state}\n"
            f"clients:\n  dnb:\n    token_url: {self.server.url}\n    allow_http: true\n    client_id: 7e0c5a\n"
            f"    client_secret: [{names}]\n    tokens: {tokens}\n" + (f"    {client}\n" if client else "")
        )

    def put_secret(self, text: str, number: int = 0) -> None:
        path = self.directory / f"secret-{number}"
        path.write_text(text)
        path.chmod(0o600)

    def once(self, code: int, *arguments: str) -> str:
        """Run it like cron does. Returns its output."""
        done = bearerd("once", "-c", self.config, "--timeout", "2m", *arguments)
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        return done.stderr


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with serving(lambda _: REFUSAL) as server:
        made = Place(tmp_path, server)
        for number in range(3):
            made.put_secret(f"wr0ng-{number}", number)
        made.write()
        yield made


def takes(secret: str) -> Script:
    """A provider that takes one secret."""
    good, header = issues(), "Basic " + base64.b64encode(f"7e0c5a:{secret}".encode()).decode()
    return lambda seen: good(seen) if seen.headers["authorization"] == header else REFUSAL


# -- refusals --------------------------------------------------------------------------------------


@pytest.mark.parametrize("secrets", [1, 2])
def test_repeated_once_tries_each_wrong_secret_once(place: Place, secrets: int) -> None:
    place.secrets = secrets
    place.write()
    assert f"name=dnb/bci no valid token: {REFUSED}" in place.once(1)
    for _ in range(4):
        said = place.once(1)
        assert f"client dnb was refused with the same secret ({REFUSED}); it will be tried again later" in said
        assert f"no valid token: {REFUSED}" in said
        # A slow machine may need a minute or two for all of these.
        assert re.search(r"; next request in [234] min, or at once with changed credentials\n", said)
        assert said.endswith(f"0 of 1 tokens are valid in {place.directory}/tokens\n")
    assert len(place.server.seen) == secrets


def test_a_refusal_survives_a_reboot(place: Place) -> None:
    place.once(1)
    shutil.rmtree(place.directory / "tokens")  # it was in /run
    place.once(1)
    assert len(place.server.seen) == 1


def test_valid_tokens_on_record_of_a_refused_client_still_succeed(place: Place) -> None:
    place.server.script = issues()
    place.write(tokens="{a: {}, b: {}}")
    place.once(0)
    place.server.script = lambda _: REFUSAL
    place.write(tokens="{a: {}, b: {}, c: {}}")
    soon = ("--timeout", "10s")  # a client that worked before is tried again after 30 s
    for arguments in ((), soon):
        said = place.once(1, *arguments)
        assert f"name=dnb/c no valid token: {REFUSED}" in said
        assert "2 of 3 tokens are valid" in said
    place.write(tokens="{a: {}, b: {}}")
    assert "2 of 2 tokens are valid" in place.once(0)
    assert "name=dnb/a not refreshed: HTTP 401" in place.once(0, "--min-valid", "2h", *soon)
    assert len(place.server.seen) == 3


def test_the_next_once_tries_a_changed_secret_at_once(place: Place) -> None:
    place.once(1)
    place.put_secret("wr0ng-again")
    assert "the config or credentials of client dnb changed since it was refused; trying again" in place.once(1)
    place.once(1)
    assert len(place.server.seen) == 2
    place.server.script = takes("r1ght")
    place.put_secret("r1ght")
    place.once(0)
    assert len(place.server.seen) == 3
    assert "refused before" not in place.once(0)


def test_a_secret_that_is_added_to_a_list_is_tried_at_once(place: Place) -> None:
    place.once(1)
    place.server.script = takes("wr0ng-1")
    place.secrets = 2
    place.write()
    place.once(0)
    assert len(place.server.seen) == 2


def test_run_tries_a_changed_secret_at_once_but_not_an_unchanged_one(place: Place) -> None:
    place.once(1)
    place.server.script = takes("r1ght")
    with running("run", "-c", place.config) as daemon:
        daemon.wait_for("was refused with the same secret")
        assert daemon.stop() == 0
    assert len(place.server.seen) == 1
    place.put_secret("r1ght")
    with running("run", "-c", place.config) as daemon:
        daemon.wait_for("the config or credentials of client dnb changed since it was refused; trying again")
        eventually(place.token.exists)
        assert daemon.stop() == 0
    assert len(place.server.seen) == 2


def test_the_same_secret_in_another_encoding_is_tried_at_once(place: Place) -> None:
    place.put_secret("a+b")
    assert "try basic_encoding: raw" in place.once(1)
    place.server.script = takes("a+b")
    place.once(1)
    place.write("basic_encoding: raw")
    place.once(0)
    assert len(place.server.seen) == 2


def test_attempts_whose_secret_was_not_read_before_a_stop_are_not_counted(place: Place) -> None:
    place.server.script = takes("wr0ng-0")
    hung, secret = place.directory / "hung", place.directory / "secret-0"
    script = f"[ -e {secret} ] && exec cat {secret}; : > {hung}; exec sleep 600"
    place.write()
    place.config.write_text(
        place.config.read_text().replace(f"{{file: {secret}}}", f"{{command: [/bin/sh, -c, '{script}']}}")
    )
    secret.rename(kept := place.directory / "kept")
    constants = {"bearerd.service.engine._STOP_WITHIN": WITHIN, "bearerd.service.signals._KILL_AFTER": 600}
    env = patched(place.directory, constants, "import bearerd.secrets.command as c; c._TIMEOUT = 600.0")
    for verb in ("run", "once", "run", "once"):
        with running(verb, "-c", place.config, env=env) as daemon:
            eventually(hung.exists)
            daemon.stop()
        hung.unlink()
        assert not any("next attempt" in line for line in daemon.lines)
    assert place.server.seen == []
    kept.rename(secret)
    place.once(0)
    assert len(place.server.seen) == 1


# -- rate limits -----------------------------------------------------------------------------------


def test_a_rate_limit_holds_across_runs_and_is_reported(place: Place) -> None:
    place.server.script = issues(86_400)  # of an hour 2 in 8 h would be too few
    place.write("rate_limit: 2/8h")
    said = [place.once(0, "--min-valid", "2d") for _ in range(4)]
    assert len(place.server.seen) == 2
    assert not any("its rate_limit" in each for each in said[:2])
    for each in said[2:]:
        assert re.search(
            r"name=dnb/bci not refreshed: its rate_limit allows the next request in 7 h 5\d min; "
            r"the current token is good for 23 h \d+ min",
            each,
        )


def test_a_grant_in_flight_when_the_daemon_was_killed_counts(place: Place) -> None:
    go_on = threading.Event()

    def hangs(_: Seen) -> Answer:
        go_on.wait()
        return Answer(500)

    place.server.script = hangs
    place.write("rate_limit: 1/8h")
    with running("run", "-c", place.config) as daemon:
        place.server.wait_for(1)
        daemon.process.send_signal(signal.SIGKILL)
        daemon.wait()
    go_on.set()
    assert re.search(r"no valid token: its rate_limit allows the next request in 7 h 5\d min", place.once(1))
    assert len(place.server.seen) == 1


# -- the files -------------------------------------------------------------------------------------


def test_state_that_cannot_be_written_causes_only_a_warning(place: Place) -> None:
    place.server.script = issues()
    (place.directory / "file").write_text("")
    place.write(state=f"{place.directory}/file/state")
    said = place.once(0)
    assert said.count("after a restart, all secrets of a client are tried again") == 1
    assert f"WARNING state: {place.directory}/file: not a directory" in said
    assert place.token.read_text() == "t-1"


def test_state_files_are_private_and_contain_no_secret_or_token(place: Place) -> None:
    secrets, good = ["s3cr3t-0", "s3cr3t-1"], takes("s3cr3t-1")
    place.secrets = 2
    for number, secret in enumerate(secrets):
        place.put_secret(secret, number)
    place.write("rate_limit: 9/8h")
    place.server.script = good
    place.once(0)
    place.server.script = lambda _: REFUSAL
    place.once(0, "--min-valid", "2h")
    found = sorted(path for path in place.state.rglob("*") if path.is_file())
    names = ["key", "ledger", "secrets/dnb.json"]
    assert [str(path.relative_to(place.state)) for path in found] == names
    assert {stat.S_IMODE(path.stat().st_mode) for path in found} == {0o600}
    assert {stat.S_IMODE(path.stat().st_mode) for path in (place.state, *place.state.glob("*/"))} == {0o700}
    basic = [seen.headers["authorization"].removeprefix("Basic ") for seen in place.server.seen]
    for text in [*secrets, *basic, place.token.read_text()]:
        assert not [path for path in found if text.encode() in path.read_bytes()]


@pytest.mark.parametrize(
    ("name", "harm", "asked_again"),
    [
        pytest.param("ledger", lambda _: b"\xff{]", True, id="garbage"),
        pytest.param("ledger", lambda content: content.replace(b", 1, ", b", 99, ", 1), True, id="from the future"),
        pytest.param("ledger", lambda content: content[:-1], False, id="a line without its end"),
        pytest.param("ledger", lambda content: content + b'[1e999, "now"', False, id="half a line"),
        pytest.param("secrets/dnb.json", lambda _: b"{}", True, id="no fingerprints"),
        pytest.param("key", lambda _: b"", True, id="another key"),
    ],
)
def test_malformed_state_is_skipped(place: Place, name: str, harm: Callable[[bytes], bytes], asked_again: bool) -> None:
    place.once(1)
    path = place.state / name
    path.write_bytes(harm(path.read_bytes()))
    assert REFUSED in place.once(1)
    assert len(place.server.seen) == 1 + asked_again


@pytest.mark.parametrize("harm", [b"", b"[[]]\n"], ids=["empty", "no ledger"])
def test_malformed_ledger_entries_are_skipped(place: Place, harm: bytes) -> None:
    place.server.script = issues(86_400)
    place.write("rate_limit: 1/8h")
    place.once(0)
    (place.state / "ledger").write_bytes(harm)
    place.once(0, "--min-valid", "2d")
    assert len(place.server.seen) == 2


# -- reboots, with the clock by hand -----------------------------------------------------------------


@dataclass
class Machine:
    """A machine on which one process after the other looks at its client."""

    directory: Path
    clock: FakeClock
    rate_limits: tuple[tuple[str, RateLimit], ...] = ()

    def look(self) -> float:
        """Start a process that checks whether it may send a request. Returns the seconds until it may."""
        subject = target(client=replace(CLIENT, rate_limits=self.rate_limits))
        journal, now = Journal(str(self.directory), self.clock), self.clock.boot
        self.admission = Admission(Limits.of([subject.client]), lambda _name, _at: None, journal, now)
        answer = self.admission.request(Ask(subject.full_name, "dnb"), now)
        self.ticket: Ticket | None = None
        if isinstance(answer, Granted):
            self.ticket = answer.ticket
            return 0.0
        self.admission.close()
        return answer.until - now

    def refuse(self) -> None:
        assert self.ticket is not None
        self.admission.settle(self.ticket, Refused("401"), self.clock.boot)
        self.admission.close()

    def end(self) -> None:
        """Killed, without an answer."""
        self.admission.close()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "state", FakeClock())


def test_a_wait_continues_across_a_reboot(machine: Machine) -> None:
    assert machine.look() == 0
    machine.refuse()
    machine.clock.advance(100)
    machine.clock.reboot()
    assert machine.look() == pytest.approx(200)
    machine.clock.advance(200)
    assert machine.look() == 0


def test_a_used_rate_limit_holds_across_a_reboot(machine: Machine) -> None:
    machine.rate_limits = (("client-dnb", RateLimit(1, 28_800.0)),)
    assert machine.look() == 0
    machine.end()
    machine.clock.advance(100)
    machine.clock.reboot()
    # Killed before the answer came, it counts from when that would have come at the latest.
    assert machine.look() == pytest.approx(28_700 + 40)


@pytest.mark.parametrize("reboots", [False, True], ids=["set", "set and rebooted"])
@pytest.mark.parametrize("step", [-YEAR, YEAR], ids=["back", "forward"])
def test_a_clock_set_by_a_year_delays_no_target_by_more_than_an_hour(
    machine: Machine, step: float, reboots: bool
) -> None:
    machine.look()
    machine.refuse()
    machine.clock.step(step)
    if reboots:
        machine.clock.reboot()
    # Cron comes every ten minutes: none of its processes lives long enough to wait.
    waits = list(itertools.takewhile(lambda wait: wait > 0, (ten_minutes_later(machine) for _ in range(9))))
    assert len(waits) == (0 if reboots and step > 0 else 1)


def ten_minutes_later(machine: Machine) -> float:
    wait = machine.look()
    machine.clock.advance(600)
    return wait
