"""The status from records without a daemon: records of a real publisher, and other files."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from bearerd import __version__
from bearerd.admission.types import View
from bearerd.api import status
from bearerd.api.counts import Counts
from bearerd.api.status import HookStatus, Status
from bearerd.model import Config
from bearerd.publish.publisher import Publisher
from bearerd.publish.record import Record
from bearerd.service.offline import offline
from bearerd.target_status import TargetStatus
from bearerd.terms import Instant, Token
from support.clock import START, FakeClock
from support.targets import target, token


def keep(directory: Path, name: str, kept: Token) -> None:
    """A record, as the daemon keeps it."""
    config = Config(directory=str(directory), state_directory=str(directory))
    Publisher(config).save(target(name), Record(kept, "identity", "client id"))


def tokens(directory: Path, now: Instant) -> dict[str, Any]:
    found = offline(str(directory), now)
    assert found.fault is None
    return {entry["name"]: entry for entry in found.document["tokens"]}


def test_a_record_shows_the_expiry_of_its_token(tmp_path: Path) -> None:
    keep(tmp_path, "bci", token("secret-1", lifetime=3600.0, scope="bci"))
    clock = FakeClock()
    clock.advance(600.25)
    found = tokens(tmp_path, clock.now())["dnb/bci"]
    assert found["state"] == "valid"
    assert (found["client"], found["token"], found["scope"]) == ("dnb", "bci", "bci")
    assert (found["remaining_seconds"], found["lifetime_seconds"]) == (2999.75, 3600.0)
    assert (found["obtained_at"], found["expires_at"]) == ("2027-01-15T08:00:00Z", "2027-01-15T09:00:00Z")
    clock.advance(2999.75)
    found = tokens(tmp_path, clock.now())["dnb/bci"]
    assert (found["state"], found["remaining_seconds"]) == ("expired", 0.0)


def test_a_token_that_waits_is_not_shown_before_its_publication(tmp_path: Path) -> None:
    old, new = token("old", lifetime=600.0), token("new", lifetime=3600.0)
    config = Config(directory=str(tmp_path), state_directory=str(tmp_path))
    Publisher(config).save(target("bci"), Record(new, "i", "c", present=old, publish_after=30.0))
    assert tokens(tmp_path, START)["dnb/bci"]["remaining_seconds"] == 600.0


@pytest.mark.parametrize(("step", "left"), [(1800.0, 1800.0), (-1800.0, 3600.0), (7200.0, 0.0)])
def test_the_earlier_expiry_counts_if_the_clocks_disagree(step: float, left: float, tmp_path: Path) -> None:
    keep(tmp_path, "bci", token(lifetime=3600.0))
    clock = FakeClock()
    clock.step(step)
    found = tokens(tmp_path, clock.now())["dnb/bci"]
    assert found["remaining_seconds"] == left
    assert found["state"] == ("valid" if left else "expired")


def test_the_wall_clock_counts_after_a_reboot(tmp_path: Path) -> None:
    keep(tmp_path, "bci", token(lifetime=3600.0))
    clock = FakeClock()
    clock.advance(1000)
    clock.reboot()
    assert tokens(tmp_path, clock.now())["dnb/bci"]["remaining_seconds"] == 2600.0


def test_every_record_is_listed_and_nothing_else(tmp_path: Path) -> None:
    for name in ("b", "a.json", "c-1.x"):
        keep(tmp_path, name, token())
    records = tmp_path / ".bearerd/records"
    (records / "dnb/.bearerd-01234567-0123456789abcdef.tmp").write_text("{}")
    (records / "dnb/.json").write_text("{}")
    (records / "empty").mkdir()
    assert list(tokens(tmp_path, START)) == ["dnb/a.json", "dnb/b", "dnb/c-1.x"]


@pytest.mark.parametrize("content", [b"", b"{", b'{"schema": 99}', b"\xff"], ids=["empty", "torn", "newer", "binary"])
def test_a_malformed_record_is_reported(content: bytes, tmp_path: Path) -> None:
    keep(tmp_path, "bci", token())
    keep(tmp_path, "risk", token())
    (tmp_path / ".bearerd/records/dnb/bci.json").write_bytes(content)
    found = tokens(tmp_path, START)
    assert {name: entry["state"] for name, entry in found.items()} == {"dnb/bci": "missing", "dnb/risk": "valid"}
    assert found["dnb/bci"]["last_error"] == "its record cannot be read, or was written by another version"


def test_a_daemon_that_runs_and_does_not_answer_is_named(tmp_path: Path) -> None:
    keep(tmp_path, "bci", token(lifetime=60.0))
    config = Config(directory=str(tmp_path), state_directory=str(tmp_path))
    daemon = Publisher(config)
    daemon.prepare()
    clock = FakeClock()
    clock.advance(60)
    found = offline(str(tmp_path), clock.now()).document
    assert found["troubles"][0]["line"] == (
        f"bearerd runs as pid {os.getpid()}, but does not answer. "
        "The expiry times are from the records; the token files were not checked. "
        "To do: wait 10 s, after which it has restored a removed socket; if it still does not answer, its log says why."
    )
    assert found["tokens"][0]["trouble"]["line"] == (
        "it was not refreshed. There is no valid token: the last one expired at 2027-01-15T08:01:00Z. "
        f"To do: see the log of pid {os.getpid()}."
    )
    daemon.release()
    (trouble,) = offline(str(tmp_path), clock.now()).document["troubles"]
    assert trouble["failed"] == "no daemon refreshes these tokens"


def test_a_link_or_pipe_in_place_of_the_config_is_not_read(tmp_path: Path) -> None:
    keep(tmp_path, "bci", token())
    record = tmp_path / ".bearerd/records/dnb/bci.json"
    record.rename(tmp_path / "aside")
    (record.parent / "link.json").symlink_to(tmp_path / "aside")
    os.mkfifo(record)
    assert {entry["state"] for entry in tokens(tmp_path, START).values()} == {"missing"}


def test_metrics_contain_no_token(tmp_path: Path) -> None:
    kept = token("very-secret", scope="bci", token_type="MAC-secret", extra='{"refresh_token": "also-secret"}')
    keep(tmp_path, "bci", kept)
    assert "secret" not in json.dumps(offline(str(tmp_path), START).document).replace(str(tmp_path), "")


def test_it_has_the_form_of_a_daemons_status(tmp_path: Path) -> None:
    keep(tmp_path, "bci", token())
    target_status = TargetStatus(
        target(), START.boot, START.boot + 60, on_disk=True, failure=None, due=0.0, next_refresh=0.0
    )
    running = Status(
        version=__version__,
        pid=1,
        now=START,
        started=START.boot,
        config=Config(directory=str(tmp_path), state_directory=str(tmp_path)),
        loaded=START.boot,
        config_error=None,
        alive=True,
        tokens=((target_status, HookStatus()),),
        counts=Counts(),
        admission=View({}, {}),
    )
    daemons = json.loads("".join(status.text(running)))
    ours = offline(str(tmp_path), START).document
    assert list(ours) == list(daemons)
    assert list(ours["tokens"][0]) == list(daemons["tokens"][0])
    for part in ("config", "tokens"):
        assert isinstance(ours[part], type(daemons[part]))
    assert list(ours["config"]) == list(daemons["config"])
    assert list(ours["tokens"][0]["hooks"]) == list(daemons["tokens"][0]["hooks"])
    assert (ours["alive"], ours["pid"], ours["directory"]) == (False, None, str(tmp_path))


def test_offline_explains_missing_records(tmp_path: Path) -> None:
    records = f"{tmp_path}/.bearerd/records"
    assert offline(str(tmp_path), START).fault == f"there are no records in {records}"
    (tmp_path / ".bearerd").mkdir()
    (tmp_path / ".bearerd/records").mkdir(mode=0o700)
    assert offline(str(tmp_path), START).fault == f"there are no records in {records}"
    (tmp_path / ".bearerd/records/x").write_text("")
    assert offline(str(tmp_path), START).fault == f"the records in {records} cannot be read: not a directory"
    nowhere = offline(None, START)
    assert nowhere.fault is not None
    assert "records are not next to this socket" in nowhere.fault
    assert nowhere.document["tokens"] == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: to be somebody else")
def test_a_user_without_access_is_told_whose_the_records_are(tmp_path: Path) -> None:
    keep(tmp_path, "bci", token())
    os.seteuid(65534)
    try:
        found = offline(str(tmp_path), START)
    finally:
        os.seteuid(0)
    assert found.fault == f"only the daemon's user and root can read the records in {tmp_path}/.bearerd/records"
    assert found.document["tokens"] == []
