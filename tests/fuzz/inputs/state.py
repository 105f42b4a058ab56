"""What the state directory holds: records, the ledger, small documents.

A crash may have left a part of it, and another program may have written it.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import replace

from bearerd.admission.admission import Admission
from bearerd.admission.core import Core
from bearerd.admission.journal import NAME, Journal
from bearerd.admission.ledger import replay
from bearerd.admission.types import Ask, ClientLimits, Granted, Limits
from bearerd.grant.outcome import Refused
from bearerd.lifecycle.policy import redate
from bearerd.lifecycle.token_state import resumed
from bearerd.publish import record as records
from bearerd.publish.state import State
from bearerd.terms import REFUSED_LIMIT, Instant, RateLimit
from fuzz.inputs.replies import check_files
from fuzz.target import Target, scratch
from support.clock import START, FakeClock
from support.targets import TARGET, token

# -- records -------------------------------------------------------------------------------------------


def check_record(data: bytes) -> None:
    """A record is refused, or it is the same after it was written again, and its token can be written to files."""
    record = records.load(data)
    if record is None:
        return
    # The times of a publication mean nothing for a token that waits for none.
    kept = record if record.waits else replace(record, not_before=0.0, publish_after=0.0)
    assert records.load(records.dump(record)) == kept, "a record changes when it is written again"
    check_files(record.published, TARGET)
    check_files(record.token, TARGET)
    for now in (START, Instant(START.wall + 1e6, 0.0)):
        dated = redate(record.published, now).token
        assert math.isfinite(dated.expires.boot)
        assert dated.expires.boot <= max(record.published.expires.boot, now.boot + dated.lifetime) + 1
        resumed(dated, now.boot, named=record.named, sliding=record.sliding, unsure=record.unsure)
        check_files(dated, TARGET)


_RECORD = records.Record(
    token("opaque-1", scope="bci", extra='{"instance_url": "https://x"}'), TARGET.identity(), "7e0c5a"
)
_RECORDS = tuple(
    records.dump(each)
    for each in (
        _RECORD,
        records.Record(token(), "i", "", named=False, sliding=True, unsure="renewed", fence=7),
        records.Record(token("opaque-2"), "i", "a", present=token("opaque-1"), publish_after=30.0),
        records.Record(token("opaque-2"), "i", "a", not_before=20.0),
    )
)
_RECORD_WORDS = (
    *(
        b'"schema": 1',
        b'"next": ',
        b'"named": true',
        b'"sliding": false',
        b'"unsure": "zero"',
        b'"fence": 4503599627370496',
        b'"scope": null',
    ),
    *(
        b'"not_before": ',
        b'"publish_after": ',
        b'"extra": {}',
        b'"lifetime": ',
        b'"obtained_wall": ',
        b'"obtained_boot": ',
    ),
    *(b'"access_token": ', b'"token_type": ', b'"identity": ', b'"client_id": ', b"-1e15", b"1e15", b"253402300799.5"),
)


# -- the ledger ----------------------------------------------------------------------------------------

_LIMITS = Limits(
    {
        "dnb": ClientLimits("https://p/token", 8, REFUSED_LIMIT, ("provider-p", "client-dnb"), 40.0),
        "other": ClientLimits("https://p/token", 8, REFUSED_LIMIT, ("provider-p",), 40.0),
    },
    {"provider-p": RateLimit(10, 60.0), "client-dnb": RateLimit(100_000, 86400.0)},
)
_REFUSED = Refused("HTTP 401 invalid_client: the client was refused")


def check_ledger(data: bytes) -> None:
    """Any file gives a state with which admission works, and which is a ledger when it is written again."""
    directory = str(scratch() / "ledger")
    os.makedirs(directory, 0o700, exist_ok=True)
    for name in os.listdir(directory):
        os.unlink(os.path.join(directory, name))
    with open(os.open(os.path.join(directory, NAME), os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
        file.write(data)
    clock = FakeClock()
    now = START.boot
    journal = Journal(directory, clock)
    assert not journal.fault
    assert all(math.isfinite(age) and age >= 0 for age, _ in journal.past), "an entry without an age"
    first = Core(_LIMITS, replay(journal.past), now)
    Admission(_LIMITS, lambda *_: None, journal, now)
    journal.close()
    again = Journal(directory, clock)
    assert not again.fault
    second = Core(_LIMITS, replay(again.past), now)
    again.close()
    assert _state(first, now) == _state(second, now), "the ledger changes when it is written again"
    for core, client in zip((first, second), _LIMITS.clients, strict=True):
        _check_core(core, client, now)


def _state(core: Core, now: float) -> list[tuple[float, str]]:
    return sorted((round(age, 2), json.dumps(entry)) for age, entry in core.dump(now))


def _check_core(core: Core, client: str, now: float) -> None:
    """A damaged ledger holds nobody for a day: the longest pace is an hour, and the longest window here a day."""
    for step in range(1, 5):
        answer = core.request(Ask(f"{client}/a", client), now + 2 * 86400.0 * step)
        assert isinstance(answer, Granted), "a target is held for days"
        core.settle(answer.ticket, _REFUSED, now + 2 * 86400.0 * step + 1)


def _lines(*entries: list[object], boot: str = "boot-1") -> bytes:
    lines: list[list[object]] = [["bearerd-ledger", 1, boot]]
    lines += [[START.boot - 30 + at, START.wall - 30 + at, *entry] for at, entry in enumerate(entries)]
    return b"".join(json.dumps(line, separators=(",", ":")).encode() + b"\n" for line in lines)


_LEDGERS = (
    b"",
    _lines(),
    _lines(["sent", 1, "dnb", True, ["provider-p"]], ["end", 1, True, True], ["refused", "dnb"], ["spent",
    "client-dnb"]),
    _lines(["sent", 2, "dnb", False, ["client-dnb"]], ["refused", "other"], ["refused", "other"], ["refused", "other"]),
    _lines(["client", "dnb", [True, 3, 60.0, 0.0, ["HTTP 401", None, "f"]]], ["client", "other", None]),
    _lines(["target", "dnb", "dnb/a", [True, 2, 10.0, 60.0, ["HTTP 400", "hint", ""]]], ["target", "dnb", "dnb/a",
    None]),
    _lines(["target", "other", "other/a", [False, 1, 0, 1, ["m", None, ""]]], boot="boot-0"),
    b'["bearerd-ledger",2,"x"]\n',
    b"\n\0\0\0",
)  # fmt: skip
_LEDGER_WORDS = (
    *(b'["bearerd-ledger",1,"boot-1"]\n', b'["bearerd-ledger",1,"boot-0"]\n', b'["bearerd-ledger",1,""]\n', b'"sent"'),
    *(b'"end"', b'"refused"', b'"spent"', b'"client"', b'"target"', b'"dnb"', b'"other"', b'"dnb/a"', b'"provider-p"'),
    *(b'"client-dnb"', b"true", b"false", b"null", b'[true,3,60.0,0.0,["m",null,""]]', b"4970.0,1799999970.0,"),
)


# -- small documents -----------------------------------------------------------------------------------


def check_state(data: bytes) -> None:
    """A document gives fields, or nothing; one of another version is kept."""
    directory = str(scratch() / "state")
    os.makedirs(os.path.join(directory, "secrets"), 0o700, exist_ok=True)
    for name in os.listdir(os.path.join(directory, "secrets")):
        os.unlink(os.path.join(directory, "secrets", name))
    for name in ("secrets/dnb.json", "key"):
        with open(os.open(os.path.join(directory, name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(data)
    state = State(directory)
    assert len(state.key()) == 32
    found = state.load("secrets", "dnb")
    left = os.listdir(os.path.join(directory, "secrets"))
    assert len(left) == 1, "a document was lost"
    if found is not None:
        assert left == ["dnb.json"]
        state.save("secrets", "dnb", found)
        assert State(directory).load("secrets", "dnb") == (found or None), "a document changes when it is written again"
    state.close_directories()


_STATES = (
    b'{"schema": 1, "kept": {"0123456789abcdef": true}}',
    b'{"schema": 1, "kept": {"works": "0123456789abcdef", "refused": ["a"]}}',
    b'{"schema": 2, "kept": {}}',
    b'{"schema": "x/../..", "kept": {}}',
    b"k" * 32,
    b"",
)

TARGETS = (
    Target("record", "records", check_record, _RECORDS, _RECORD_WORDS, longest=2048),
    Target("ledger", "the ledger", check_ledger, _LEDGERS, _LEDGER_WORDS),
    Target(
        "state",
        "documents of the state directory",
        check_state,
        _STATES,
        (b'"schema"', b'"kept"', b"999999", b"1000000"),
    ),
)
