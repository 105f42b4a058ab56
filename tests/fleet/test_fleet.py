"""The rig sees what it is there to see. `python -m fleet` runs it."""

from __future__ import annotations

import base64
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest

from fleet.limits import most
from fleet.provider import CLIENT_ID, SECRET, Issued, Provider
from fleet.readers import Readers
from fleet.secured import holds
from fleet.site import Rig, site
from support.server import Seen


def test_daemons_that_do_not_share_are_no_fleet() -> None:
    with site(Rig(2, 1, 3600.0, ""), None) as here:
        here.fleet.start()
        here.readers.wait_for(lambda: all(here.readers.held().values()), "all files have a token")
        assert here.provider.grants == 2
        assert {token.to for token in here.provider.tokens} == {"d01", "d02"}
        with pytest.raises(AssertionError, match="one token"):
            here.readers.wait_for_one(0, within=0.0)
        with pytest.raises(AssertionError, match="not the expected number of grants"):
            here.row("a scene", 1, here.provider.grants, 1)


def issued(provider: Provider, scope: str = "bci") -> Issued:
    given = base64.b64encode(f"{quote_plus(CLIENT_ID)}:{quote_plus(SECRET)}".encode()).decode()
    seen = Seen("POST", "/token", {"authorization": f"Basic {given}"}, f"scope={scope}".encode())
    assert provider(seen).status == 200
    return provider.tokens[-1]


def test_the_api_accepts_a_token_until_it_expires_or_a_newer_one_ended_it() -> None:
    provider = Provider(lifetime=10.0, ends_old=3.0)
    first = issued(provider)
    assert provider.verdict(first.text, first.at + 9.9) == ("good", 1)
    assert provider.verdict(first.text, first.at + 10.0) == ("expired", 1)
    second = issued(provider)
    assert provider.verdict(first.text, second.at + 2.9) == ("good", 1)
    assert provider.verdict(first.text, second.at + 3.0) == ("ended", 1)
    assert provider.verdict(second.text[:-1], second.at) == ("unknown", 0)
    assert provider.verdict(issued(provider, "ais").text, second.at) == ("unknown", 0)


def test_readers_record_what_no_reader_may_see(tmp_path: Path) -> None:
    provider = Provider(lifetime=0.0)
    file = tmp_path / "token"
    readers = Readers(provider, {"d01": file})

    def look() -> None:
        readers._look("d01", file)

    look()
    assert not readers.counts, "before the first token, a file may be absent"
    one, other = issued(provider), issued(provider)
    for text in (other.text, one.text, "", one.text[:-1]):
        replacement = tmp_path / f"new-{len(text)}"
        replacement.write_text(text)
        replacement.replace(file)
        look()
    file.unlink()
    look()
    assert readers.counts == {"expired": 2, "empty": 1, "unknown": 1, "absent": 1}
    assert readers.seen["d01"].back == 1
    assert set(readers.seen["d01"].taken) == {1, 2}
    readers.excuse("d01")
    look()
    assert readers.counts["absent"] == 1


@pytest.mark.parametrize(
    "form",
    [
        SECRET[3:],
        quote(SECRET, safe=""),
        SECRET.encode().hex(),
        base64.b64encode(f"a{SECRET}b".encode()).decode(),
        base64.urlsafe_b64encode(f"ab{SECRET}".encode()).decode(),
    ],
)
def test_a_secret_is_found_in_every_form(form: str) -> None:
    assert holds(b"\0" + form.encode() + b"\0", SECRET)
    assert not holds(form[:11].encode(), SECRET)


def test_the_most_moments_in_any_window() -> None:
    assert most([0.0, 5.0, 9.9, 10.0, 11.0], 10.0) == 4
    assert most([], 10.0) == 0
