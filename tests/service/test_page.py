"""The page as bytes, as a browser shows it, and as a running daemon serves it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import threading
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from typing import Any

import pytest

from bearerd.admission.types import ClientView, Refusal, View
from bearerd.api import page
from bearerd.api import status as statuses
from bearerd.api.counts import Counts
from bearerd.api.status import HookStatus, Status
from bearerd.grant.outcome import Refused, Transient
from bearerd.model import Config, Output
from bearerd.target_status import TargetStatus
from bearerd.terms import Instant
from support.api import Site
from support.chromium import Browser, Page, browsing, needs_chromium
from support.clock import START
from support.process import eventually, running
from support.prometheus import share
from support.server import Answer, Seen, Server, issues, serving
from support.targets import CLIENT, target

NOW = START.boot
HOSTILE = "</script><!--<script>alert(1)</script><img src=x onerror=alert(1)>\u2028&lt;\"' at 2026-99-99T99:99:99Z"


def target_status(name: str = "bci", **changes: Any) -> TargetStatus:
    """An hour's token, and half a minute, after a quarter of its life: so much time a slow machine has."""
    given: dict[str, Any] = {
        "target": target(name, outputs=(Output(path=f"/run/bearerd/dnb/{name}"),)),
        "obtained": NOW - 900,
        "expires": NOW + 2730,
        "on_disk": True,
        "failure": None,
        "due": NOW + 1830,
        "next_refresh": NOW + 1830,
    }
    return TargetStatus(**given | changes)


DOWN = Transient("no connection to login.example.com:443")
VALID = target_status("valid")
FAILING = target_status("failing", failure=DOWN, failures=(NOW - 60, NOW - 20), attempts=2, failing_since=NOW - 60)
UNWRITTEN = target_status(
    "unwritten",
    on_disk=False,
    faults=("/x: no space left; free some",),
    target=target("unwritten", required=False, scope=""),
)
EXPIRED = target_status(
    "expired",
    obtained=NOW - 4800,
    expires=NOW - 1200,
    failure=DOWN,
    failures=(NOW - 2000, NOW - 30),
    attempts=47,
    failing_since=NOW - 3000,
    next_refresh=NOW,
)
MISSING = target_status(
    "missing",
    obtained=None,
    expires=None,
    failure=Refused("401 invalid_client"),
    held_by="refused",
    held_until=NOW + 150,
    next_refresh=NOW + 150,
)
STARTING = target_status("starting", obtained=None, expires=None, on_disk=False, next_refresh=0.0)
ALL = (VALID, STARTING, FAILING, UNWRITTEN, MISSING, EXPIRED)


def status(*tokens: TargetStatus, hooks: HookStatus = HookStatus(), **changes: Any) -> Status:  # noqa: B008 - frozen
    """A daemon that keeps these."""
    given: dict[str, Any] = {
        "version": "1.2.3",
        "pid": 42,
        "host": "web1.example.com",
        "now": START,
        "started": NOW - 7500,
        "config": Config("/run/bearerd", "/var/lib/bearerd"),
        "loaded": NOW - 60,
        "config_error": None,
        "alive": True,
        "tokens": tuple((token, hooks) for token in tokens),
        "counts": Counts(),
        "admission": View({}, {}),
    }
    return Status(**given | changes)


def rendered(of: Status) -> bytes:
    return b"".join(page.render(of))


def hostile() -> Status:
    """A status in which all text from elsewhere is hostile."""
    bad = target_status(
        target=replace(target(outputs=(Output(path=HOSTILE),)), scope=HOSTILE, client=replace(CLIENT, name="dnb")),
        failure=Transient(HOSTILE, hint=HOSTILE),
        failing_since=NOW - 60,
    )
    return status(bad, hooks=HookStatus(error=HOSTILE), config=Config(HOSTILE, ""), config_error=HOSTILE)


# -- the bytes ---------------------------------------------------------------------------------------


@dataclass
class Parts(HTMLParser):
    """The page in a browser without scripts."""

    text: bytes
    opened: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    content: dict[str, list[str]] = field(default_factory=dict)
    """By the element, for each of its kind: the text right after its start."""

    def __post_init__(self) -> None:
        super().__init__()
        self._within = [""]
        self.feed(self.text.decode())
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.opened.append((tag, dict(attrs)))
        self.content.setdefault(tag, []).append("")
        self._within = self.content[tag]

    def handle_endtag(self, _: str) -> None:
        self._within = [""]

    def handle_data(self, data: str) -> None:
        self._within[-1] += data

    def embedded(self) -> Any:
        return json.loads(self.content["script"][0])


def test_the_page_contains_the_status() -> None:
    one = status(EXPIRED, VALID)
    assert Parts(rendered(one)).embedded() == json.loads("".join(statuses.text(one)))


def test_text_from_elsewhere_is_escaped() -> None:
    plain, parts = Parts(rendered(status(VALID))), Parts(rendered(hostile()))
    tags = [tag for tag, _ in plain.opened]
    # The same elements, and those for the errors in the plain table: none that the text brought.
    assert sorted(tag for tag, _ in parts.opened) == sorted([*tags, "p", "tr", "td"])
    assert parts.embedded() == json.loads("".join(statuses.text(hostile())))
    assert any(HOSTILE in paragraph for paragraph in parts.content["p"])
    assert not set("<>&\u2028") & set(parts.content["script"][0])


def test_the_policy_allows_only_this_script_and_style() -> None:
    parts, policy = Parts(rendered(status(*ALL))), dict(page.HEADERS)["Content-Security-Policy"]

    def named(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    data, script = parts.content["script"]
    (style,) = parts.content["style"]
    allowed = dict(directive.split(" ", 1) for directive in policy.split("; "))
    assert allowed["default-src"] == "'none'"
    assert allowed["script-src"] == named(script)
    assert allowed["style-src"] == named(style)
    assert allowed["connect-src"] == "'self'"
    assert allowed["frame-ancestors"] == "'none'"
    assert ("script", {"type": "application/json", "id": "status"}) in parts.opened
    assert json.loads(data)["pid"] == 42


def test_the_page_loads_nothing_from_elsewhere() -> None:
    parts = Parts(rendered(status(*ALL)))
    from_where = {name for _, attributes in parts.opened for name in attributes} & {"src", "href", "action", "srcset"}
    assert from_where == {"href"}
    assert [attributes["href"] for _, attributes in parts.opened if "href" in attributes] == ["data:,"]
    code = "".join([*parts.content["style"], parts.content["script"][1]])
    # The namespace of SVG, which is never fetched.
    assert set(re.findall(r"[a-z]+://[^\"' ]*", code)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"url\(|@import|localStorage|sessionStorage|cookie|innerHTML|style=", code)


def test_tokens_with_problems_come_first_then_by_expiry() -> None:
    late, soon = target_status("late", expires=NOW + 3000), target_status("soon", expires=NOW + 10)
    tokens = Parts(rendered(status(late, *ALL, soon))).embedded()["tokens"]
    assert [token["token"] for token in tokens] == [
        "expired", "missing", "unwritten", "failing", "starting", "soon", "valid", "late",
    ]  # fmt: skip


def test_without_scripts_there_is_a_table() -> None:
    html = rendered(status(*ALL, alive=False, config_error="config.yaml:3:5: unknown key")).decode()
    table = html.partition("<noscript><p>")[2].partition("</noscript>")[0]
    assert "6 tokens: 1 valid, 1 starting, 1 failing, 1 unwritten, 1 missing, 1 expired, in /run/bearerd" in table
    assert "at 2027-01-15T08:00:00Z" in table
    assert "the scheduler&#x27;s heartbeat is stale: no token is refreshed. The files stay as they are" in table
    assert "config.yaml:3:5: unknown key. The config loaded 60 s ago (at 07:59:00) stays in use." in table
    assert "<title>bearerd on web1.example.com</title>" in html
    rows = [" | ".join(re.split("<t[hd][^>]*>", row)[1:]).strip() for row in table.split("<tr>")[2:]]
    assert rows[:3] == [
        "dnb/expired | expired | 20 min ago | now",
        (
            f"{DOWN}, 47 attempts since 07:10. "
            "There is no valid token: the last one expired 20 min ago (at 07:40), and its files still contain it. "
            "To do: wait; if it lasts, ask the provider; next attempt now."
        ),
        "dnb/missing | missing |  | in 2 min",
    ]
    assert rows[-3] == "dnb/starting | starting |  |"
    assert rows[-2].startswith("its first request is still in progress.")
    assert rows[-1].startswith("dnb/valid | valid | in 45 min | in 30 min")


def test_the_table_and_the_lines_in_it_round_times_in_the_same_way() -> None:
    now = Instant(wall=START.wall + 0.6, boot=NOW)
    both = target_status(failure=DOWN, expires=NOW + 90.5, next_refresh=NOW + 20.5)
    html = rendered(status(both, now=now)).decode()
    assert "<td>in 91 s<td>in 21 s\n" in html
    assert "good for 91 s (until 08:01:31)" in html
    assert "next attempt in 21 s (at 08:00:21)" in html


def test_the_table_says_when_a_new_token_is_published() -> None:
    html = rendered(status(target_status(publish_at=NOW + 30))).decode()
    assert "<td colspan=4>a new token is published in 30 s" in html
    assert "a new token" not in rendered(status(VALID)).decode().partition("<noscript>")[2].partition("</noscript>")[0]


def test_the_table_has_only_the_first_of_very_many_tokens() -> None:
    html = rendered(status(*(target_status(f"t{number}") for number in range(302)))).decode()
    assert html.count("<tr><th>dnb/") == 300
    assert "2 more are not shown" in html


def test_very_many_tokens_take_little_memory() -> None:
    targets = [target_status(f"t{number}") for number in range(10_000)]
    many = status(*targets)
    names = {each.name for each in targets}  # as a daemon keeps them
    tracemalloc.start()
    size = sum(len(part) for part in page.render(many))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size > 5_000_000
    assert peak < 3_000_000, f"{len(names)} names"


# -- in a browser ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browsing(tmp_path_factory.mktemp("chromium")) as browser:
        yield browser


class Shelf:
    """A server for the page of a status, which can give other answers."""

    def __init__(self, of: Status) -> None:
        self.status = of
        self.answer: Answer | None = None
        self.hang: threading.Event | None = None

    def __call__(self, _: Seen) -> Answer:
        if self.hang is not None:
            self.hang.wait(30)
        headers = {"Content-Type": "text/html; charset=utf-8", **dict(page.HEADERS)}
        return self.answer or Answer(200, rendered(self.status), headers)


@contextmanager
def shown(browser: Browser, of: Status, **screen: Any) -> Iterator[tuple[Page, Shelf, Server]]:
    """The page of a status in a tab."""
    shelf = Shelf(of)
    with serving(shelf) as server, browser.page() as tab:
        tab.look(**screen)
        tab.go(server.url)
        yield tab, shelf, server


def text(tab: Page, selector: str) -> str:
    """The text of an element; "" if it is hidden."""
    script = f"""(() => {{
      const node = document.querySelector({json.dumps(selector)});
      return node?.checkVisibility() ? node.innerText : "";
    }})()"""
    found: str = tab.evaluate(script)
    return found.replace("\xa0", " ").strip()


def rows(tab: Page) -> dict[str, dict[str, Any]]:
    """What each token's row shows."""
    script = """[...document.querySelectorAll("#tokens > li")].map((row) => {
      const find = (part) => row.querySelector(part), all = (part) => [...row.querySelectorAll(part)];
      const figure = (node, name) => Math.round(parseFloat(node.getAttribute(name)));
      const mark = (part) => find(part).getAttribute("visibility") === "hidden" ? null : figure(find(part), "x");
      return [find("h3").innerText, {
        state: find(".state").innerText, shape: find(".state path").getAttribute("d"),
        colour: getComputedStyle(find(".state")).color,
        lived: figure(find(".lived"), "width"), left: figure(find(".left"), "width"),
        without: figure(find(".without"), "x2") - figure(find(".without"), "x1"),
        now: mark(".now"), next: mark(".next"), expiry: mark(".expiry"),
        failures: all(".failures > svg").map((node) => figure(node, "x")),
        bar: find(".bar[role=img]").getAttribute("aria-label"),
        times: find(".times").innerText.replace(/\\s*\\n+/g, "\\n").trim(),
        errors: find(".errors").innerText, more: find("summary").innerText,
      }];
    })"""
    return dict(tab.evaluate(script))


@needs_chromium
def test_each_state_has_its_word_its_shape_and_its_bar(browser: Browser) -> None:
    with shown(browser, status(*ALL)) as (tab, _, _):
        found = rows(tab)
        assert text(tab, "#verdict") == "6 tokens: 1 valid, 1 starting, 1 failing, 1 unwritten, 1 missing, 1 expired"
        title = tab.evaluate("document.title").replace("\xa0", " ")
        assert title.startswith("1 expired, 1 missing, 1 unwritten")
        assert title.endswith("bearerd on web1.example.com")
        assert text(tab, "h1") == "bearerd on web1.example.com"
        icon = tab.evaluate("decodeURIComponent(document.querySelector('link[rel=icon]').href)")
        assert found["dnb/expired"]["shape"] in icon
        assert tab.complaints == []
    assert [found[name]["state"] for name in found] == [name.partition("/")[2] for name in found]
    assert len({row["shape"] for row in found.values()}) == 6
    assert len({row["colour"] for row in found.values()}) == 4

    valid, failing, expired, missing = (found[f"dnb/{name}"] for name in ("valid", "failing", "expired", "missing"))
    assert {name: valid[name] for name in ("lived", "left", "now", "next", "expiry", "without", "failures")} == {
        "lived": 25, "left": 75, "now": 25, "next": 75, "expiry": 100, "without": 0, "failures": [],
    }  # fmt: skip
    assert valid["times"] == "45 min left of 1 h\nnext refresh in 30 min"
    assert valid["more"] == "1\xa0file · scope: bci"
    assert valid["bar"] == "obtained 07:45:00, expires 08:45:30, 24 % of its life is over, next refresh 08:30:30"
    assert failing["failures"] == [23, 24]
    assert failing["errors"] == (
        f"{DOWN}, 2 attempts since 07:59:00. The current token is good for 45 min (until 08:45). "
        "To do: wait; if it lasts, ask the provider; next attempt in 30 min (at 08:30)."
    )
    assert failing["times"].endswith("next attempt in 30 min")
    # 80 minutes: 60 of life, 20 since.
    assert {name: expired[name] for name in ("lived", "left", "without", "expiry", "now", "next", "failures")} == {
        "lived": 75, "left": 0, "without": 25, "expiry": 75, "now": 100, "next": 100, "failures": [58, 99],
    }  # fmt: skip
    assert expired["times"] == "expired 20 min ago\nnext attempt now"
    assert (missing["lived"], missing["left"], missing["expiry"], missing["next"]) == (0, 0, None, 100)
    assert missing["times"] == "no token\nnext attempt in 2 min"
    assert missing["errors"] == (
        "401 invalid_client. There is no valid token. To do: check that the client and its scope match the provider's "
        "settings; a changed variable needs a restart; next attempt in 2 min (at 08:02)."
    )
    assert found["dnb/starting"]["times"] == "no token yet"
    assert (found["dnb/starting"]["now"], found["dnb/starting"]["next"]) == (None, None)
    assert found["dnb/unwritten"]["errors"] == (
        "/x: no space left. The current token is good for 45 min (until 08:45), but not in all of its files. "
        "To do: free some."
    )
    assert found["dnb/unwritten"]["more"] == "0\xa0files · not required"


@needs_chromium
def test_a_browser_shows_text_from_elsewhere_as_text(browser: Browser) -> None:
    with shown(browser, hostile()) as (tab, _, _):
        assert tab.evaluate("document.querySelectorAll('img, main script').length") == 0
        assert HOSTILE in tab.evaluate("document.querySelector('#troubles').textContent")
        assert tab.evaluate("document.querySelector('.errors').textContent").count(HOSTILE) == 4
        assert tab.evaluate("document.querySelector('summary').textContent").endswith(HOSTILE)
        assert tab.evaluate("document.querySelector('dd').textContent") == HOSTILE
        assert tab.evaluate("document.querySelector('#facts').textContent").startswith(f"in {HOSTILE}")
        assert tab.complaints == []


@needs_chromium
def test_the_page_advances_time_between_updates(browser: Browser) -> None:
    short = target_status(obtained=NOW - 90, expires=NOW + 30, next_refresh=NOW + 20)

    def left() -> list[int]:
        return [int(figure) for figure in re.findall(r"(\d+) s", rows(tab)["dnb/bci"]["times"])]

    with shown(browser, status(short)) as (tab, shelf, server):
        tab.stand_still()
        before = left()
        assert 11 < before[0] <= 30
        assert before[0] - before[1] == 10
        updates = len(server.seen)
        shelf.status = status(short, target_status("risk", failure=DOWN, failures=(NOW - 9, NOW)))
        tab.pass_time(3)
        # Whole seconds, and a busy machine adds some of its own.
        passed = [was - now for was, now in zip(before, left(), strict=True)]
        assert passed[0] == passed[1] >= 2
        assert 76 <= rows(tab)["dnb/bci"]["now"] <= 95
        assert len(server.seen) == updates
        tab.pass_time(3)
        assert list(rows(tab)) == ["dnb/risk", "dnb/bci"]
        assert text(tab, "#verdict") == "2 tokens: 1 valid, 1 failing"
        assert len(rows(tab)["dnb/risk"]["failures"]) == 2
        shelf.status = status(short, target_status("risk"))
        tab.pass_time(6)
        assert text(tab, "#verdict") == "2 tokens, all valid"
        assert (rows(tab)["dnb/risk"]["failures"], rows(tab)["dnb/risk"]["errors"]) == ([], "")
        shelf.status = status()
        tab.pass_time(6)
        assert rows(tab) == {}
        assert text(tab, "#verdict") == "No tokens are configured"
        assert tab.complaints == []


@needs_chromium
def test_open_details_and_focus_survive_reordering(browser: Browser) -> None:
    with shown(browser, status(target_status("a"), target_status("b"), target_status("c"))) as (tab, shelf, _):
        tab.evaluate(
            "document.querySelectorAll('details')[2].open = true, document.querySelectorAll('summary')[2].focus()"
        )
        shelf.status = status(target_status("a"), target_status("b"), replace(FAILING, target=target("c")))
        tab.pass_time(6)
        assert list(rows(tab)) == ["dnb/c", "dnb/a", "dnb/b"]
        assert tab.evaluate("[...document.querySelectorAll('details')].map((more) => more.open)") == [
            True,
            False,
            False,
        ]
        assert tab.evaluate("document.activeElement === document.querySelector('summary')")


@needs_chromium
def test_a_hidden_page_does_not_update_and_a_visible_one_does_at_once(browser: Browser) -> None:
    def seen(hidden: str) -> None:
        tab.evaluate(f"Object.defineProperty(document, 'hidden', {{value: {hidden}, configurable: true}})")
        tab.evaluate("document.dispatchEvent(new Event('visibilitychange'))")

    with shown(browser, status(VALID)) as (tab, shelf, server):
        seen("true")
        tab.pass_time(60)
        assert len(server.seen) == 1
        seen("false")
        tab.pass_time(1)
        assert len(server.seen) == 2
        tab.pass_time(30)
        assert 6 <= len(server.seen) <= 8
        # Seen again while it waits for an answer, it asks no second time; hidden then, that one is the last.
        before, shelf.hang = len(server.seen), threading.Event()
        tab.pass_time(6, whatever_the_network_does=True)
        server.wait_for(before + 1)
        for hidden in ("true", "false", "true"):
            seen(hidden)
        shelf.hang.set()
        tab.pass_time(60)
        assert len(server.seen) == before + 1


@needs_chromium
def test_the_page_reports_a_daemon_that_is_gone_and_marks_the_status_as_old(browser: Browser) -> None:
    with shown(browser, status(VALID)) as (tab, shelf, _):
        assert text(tab, "#lost") == ""
        shelf.answer = Answer(404, {"error": "not found; the paths are /livez, /metrics, /readyz"})
        tab.pass_time(100)
        assert text(tab, "#lost").startswith("No status since 08:00:00: the reply (404)")
        assert tab.evaluate("document.querySelector('#lost [role=alert]') !== null")
        assert tab.evaluate("document.querySelector('main').className") == "old"
        assert tab.evaluate("document.title").startswith("no answer")
        assert rows(tab)["dnb/valid"]["times"].startswith("45 min left")  # as it was
        shelf.answer = None
        tab.pass_time(6)
        assert text(tab, "#lost") == ""
        assert tab.evaluate("document.querySelector('main').className") == ""
        assert {complaint[:23] for complaint in tab.complaints} == {"Failed to load resource"}


@needs_chromium
def test_a_daemon_that_hangs_is_not_waited_for(browser: Browser) -> None:
    with shown(browser, status(VALID)) as (tab, shelf, _):
        shelf.hang = threading.Event()
        tab.pass_time(16, whatever_the_network_does=True)
        assert "08:00:00: it does not answer." in text(tab, "#lost")
        shelf.hang.set()


@needs_chromium
def test_the_page_reloads_for_a_daemon_of_another_version(browser: Browser) -> None:
    with shown(browser, status(VALID)) as (tab, shelf, server):
        tab.evaluate("window.here = true")
        tab.pass_time(6)
        assert tab.evaluate("window.here")
        shelf.status = status(VALID, version="1.2.4")
        tab.pass_time(6)
        server.wait_for(4)
        eventually(lambda: "bearerd 1.2.4, pid 42" in text(tab, "#facts"))
        assert not tab.evaluate("window.here")


@needs_chromium
def test_problems_of_the_daemon_are_in_boxes(browser: Browser) -> None:
    error = "config.yaml:3:5: unknown key\nconfig.yaml:4:5: unknown key"
    with shown(browser, status(VALID)) as (tab, shelf, _):
        assert text(tab, "#troubles") == ""
        shelf.status = status(VALID, alive=False, config_error=error, config_do="correct it")
        tab.pass_time(6)
        assert text(tab, "#troubles p:nth-child(1)").startswith("the scheduler's heartbeat is stale")
        assert text(tab, "#troubles p:nth-child(2)") == (
            "the new config was refused: config.yaml:3:5: unknown key (and 1 more). The config loaded 60 s ago "
            "(at 07:59:00) stays in use. To do: correct it."
        )
        assert text(tab, "#troubles pre") == error
        assert text(tab, "#troubles strong") == "To do:"
        shelf.status = status(VALID, config_error="config.yaml:3:5: unknown key")
        tab.pass_time(6)
        assert tab.evaluate("document.querySelectorAll('#troubles p').length") == 1
        assert text(tab, "#troubles pre") == ""


@needs_chromium
def test_times_are_local_and_utc_on_hover(browser: Browser) -> None:
    with shown(browser, status(FAILING)) as (tab, _shelf, _):
        tab.send("Emulation.setTimezoneOverride", timezoneId="Asia/Kolkata")
        tab.go(tab.evaluate("location.href"))
        assert "(until 14:15)" in rows(tab)["dnb/failing"]["errors"]
        marked = tab.evaluate("[...document.querySelectorAll('.errors time')].map((n) => [n.dateTime, n.title])")
        assert ["2027-01-15T08:45:30Z", "2027-01-15 08:45:30 UTC"] in marked
        tab.evaluate("document.querySelectorAll('details').forEach((more) => more.open = true)")
        assert "14:15" in text(tab, "dl")
        assert tab.evaluate("document.querySelectorAll('#facts time').length") == 3
        assert "Asia/Calcutta" in text(tab, "#foot")
        assert tab.complaints == []


@needs_chromium
def test_the_page_shows_some_of_ten_thousand_tokens_and_finds_any(browser: Browser) -> None:
    def filter_by(wanted: str) -> None:
        tab.evaluate(
            f"box = document.querySelector('input'), box.value = {json.dumps(wanted)}, "
            "box.dispatchEvent(new Event('input', {bubbles: true}))"
        )

    many = [target_status(f"t{number}", expires=NOW + 3000 + number) for number in range(10_000)]
    with shown(browser, status(*many, FAILING)) as (tab, _, _):
        found = list(rows(tab))
        assert len(found) == 300
        assert found[:3] == ["dnb/failing", "dnb/t0", "dnb/t1"]
        assert text(tab, "#verdict") == "10,001 tokens: 10,000 valid, 1 failing"
        assert text(tab, "#count").startswith("Showing 300 of 10,001 tokens")
        filter_by("T9876")
        assert list(rows(tab)) == ["dnb/t9876"]
        assert text(tab, "#count") == "1 token of 10,001."
        filter_by("login.example.com")
        assert list(rows(tab)) == ["dnb/failing"]
        filter_by("nowhere")
        assert text(tab, "#count") == "No token matches."
        filter_by("")
        assert len(rows(tab)) == 300
    with shown(browser, status(*many[:20])) as (tab, _, _):
        assert text(tab, "#filter") == ""


CONTRAST = """(() => {
  const light = (colour) => {
    const [r, g, b] = colour.match(/[0-9.]+/g).slice(0, 3).map((c) => c / 255)
      .map((c) => c <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4);
    return .2126 * r + .7152 * g + .0722 * b;
  };
  const below = (node) => {
    for (; node; node = node.parentElement) {
      const colour = getComputedStyle(node).backgroundColor;
      if (!colour.endsWith(", 0)")) return colour;
    }
  };
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), found = [];
  while (texts.nextNode()) {
    const node = texts.currentNode.parentElement;
    if (!texts.currentNode.data.trim() || !node.checkVisibility()) continue;
    const both = [light(getComputedStyle(node).color), light(below(node))].sort((a, b) => b - a);
    found.push([(both[0] + .05) / (both[1] + .05), node.outerHTML.slice(0, 80)]);
  }
  return found;
})()"""


REFUSED = Refusal(Refused("401 invalid_client"), attempts=3, next_probe=NOW + 150, own=False)
BREAKERS = View(
    {
        "dnb": ClientView("open", REFUSED, in_flight=0, held=2),
        "starting": ClientView("half_open", None, in_flight=1, held=9),
        "idle": ClientView("half_open", None, in_flight=0, held=0),
        "busy": ClientView("closed", None, in_flight=4, held=1),
    },
    {},
)


@needs_chromium
@pytest.mark.parametrize("width", [1280, 390])
def test_a_client_has_a_line_unless_it_is_healthy(browser: Browser, width: int) -> None:
    with shown(browser, status(*ALL, admission=BREAKERS), width=width, height=900) as (tab, shelf, _):
        lines = text(tab, "#breakers").split("\n")
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        shelf.status = status(VALID)
        tab.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
        eventually(lambda: tab.evaluate("document.getElementById('breakers').hidden"))
    assert lines == [
        "Client dnb: breaker open, refused 3 times, next probe in 2 min (at 08:02), 2 held",
        "Client starting: breaker half-open, 9 held",
    ]


@needs_chromium
@pytest.mark.parametrize("width", [1280, 390])
def test_a_share_is_a_fact_and_in_a_box_if_it_is_down(browser: Browser, width: int) -> None:
    up = share(taken=12, stored=1)
    down = share("down", error="redis.internal:6379: connection refused", error_at=NOW - 5, waiting=2)
    with shown(browser, status(VALID, shares=(up,)), width=width, height=900) as (tab, shelf, _):
        assert "share rediss://redis.internal:6379/0: up for 5 min, 12 tokens taken, 1 stored" in text(tab, "#facts")
        assert text(tab, "#troubles") == ""
        shelf.status = status(VALID, shares=(down,) * 5)
        tab.pass_time(6)
        facts = text(tab, "#facts")
        assert "share rediss://redis.internal:6379/0: down for 5 min, 0 tokens taken, 0 stored, 2 waiting" in facts
        assert "and 2 more shares" in facts
        assert text(tab, "#troubles p").startswith(
            "share rediss://redis.internal:6379/0 has been unavailable since 07:55: redis.internal:6379: "
            "connection refused."
        )
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        shelf.status = status(VALID)
        tab.pass_time(6)
        assert "share" not in text(tab, "#facts")


@needs_chromium
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_page_is_readable_on_a_phone_light_and_dark(browser: Browser, dark: bool) -> None:
    long = replace(
        target_status("a" * 64, failure=DOWN),
        target=target("a" * 64, scope="b" * 300, outputs=(Output(path="/" + "c" * 200),)),
    )
    everything = status(*ALL, long, alive=False, config_error="d" * 300)
    with shown(browser, everything, width=360, height=740, dark=dark) as (tab, _, _):
        tab.evaluate("document.querySelectorAll('details').forEach((more) => more.open = true)")
        assert tab.evaluate("innerWidth") == 360
        assert tab.evaluate("document.documentElement.scrollWidth") == 360
        ratios = tab.evaluate(CONTRAST)
        assert len(ratios) > 100
        assert min(ratios)[0] >= 4.5, min(ratios)
        background = tab.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (max(map(int, re.findall(r"\d+", background))) < 64) == dark


@needs_chromium
def test_a_screen_reader_gets_everything(browser: Browser) -> None:
    with shown(browser, status(*ALL)) as (tab, _, _):
        spoken = tab.spoken()
    assert [name for role, name in spoken if role == "heading"] == [
        "bearerd on web1.example.com", "Tokens",
        "dnb/expired", "dnb/missing", "dnb/unwritten", "dnb/failing", "dnb/starting", "dnb/valid",
    ]  # fmt: skip
    bars = [name for role, name in spoken if role == "image"]
    assert len(bars) == 6
    assert bars[0] == (
        "obtained 06:40:00, expired 07:40:00, next attempt 08:00:00, 2\xa0failed attempts marked, the last at 07:59:30"
    )
    assert bars[1] == "never obtained, next attempt 08:02:30"
    texts = {name for role, name in spoken if role == "StaticText"}
    assert {"expired", "missing", "unwritten", "failing", "starting", "valid", "45 min left"} <= texts
    assert not {"07:45:00", "08:45:30"} & texts  # which the bar has said
    assert {"main", "status"} <= {role for role, _ in spoken}


@needs_chromium
def test_the_keyboard_reaches_the_filter_and_every_token(browser: Browser) -> None:
    with shown(browser, status(*(target_status(f"t{number}", expires=NOW + 99 + number) for number in range(21)))) as (
        tab,
        *_,
    ):
        reached = []
        for _ in range(4):
            for kind in ("rawKeyDown", "keyUp"):
                tab.send("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9)
            reached.append(
                tab.evaluate("[document.activeElement.tagName, document.activeElement.closest('li')?.innerText]")
            )
    assert [tag for tag, _ in reached] == ["INPUT", "SUMMARY", "SUMMARY", "SUMMARY"]
    names = [row.split("\n")[0] for _, row in reached[1:]]
    assert names == ["dnb/t0", "dnb/t1", "dnb/t2"]


# -- of a running daemon -----------------------------------------------------------------------------


def refuses_risk() -> Any:
    good = issues(access_token="the-token-itself")
    return lambda seen: Answer(400, {"error": "invalid_scope"}) if b"risk" in seen.body else good(seen)


def raw(connection: socket.socket) -> tuple[str, bytes]:
    """GET /, by hand: head and body."""
    with connection:
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    return head.decode(), body


@needs_chromium
def test_the_page_of_a_running_daemon_follows_it(browser: Browser, tmp_path: Any) -> None:
    with serving(refuses_risk()) as server:
        site = Site(tmp_path, server.url, top='listen: {address: "127.0.0.1:0", page: true}')
        with running("run", "-c", site.config) as daemon, browser.page() as tab:
            port = int(daemon.wait_for("listening on port").rpartition(" ")[2])
            site.wait_for(bci="valid")
            tab.go(f"http://127.0.0.1:{port}/")
            assert {name: row["state"] for name, row in rows(tab).items()} == {"dnb/bci": "valid"}
            assert rows(tab)["dnb/bci"]["times"].startswith("59 min left of 1 h")
            assert rows(tab)["dnb/bci"]["now"] < 5
            assert 70 <= rows(tab)["dnb/bci"]["next"] <= 85

            site.write("{bci: {scope: bci}, risk: {scope: risk}}")
            eventually(lambda: rows(tab).get("dnb/risk", {}).get("state") == "missing")  # by the browser's own time
            assert text(tab, "#verdict") == "2 tokens: 1 valid, 1 missing"
            assert "HTTP 400" in rows(tab)["dnb/risk"]["errors"]
            assert len(rows(tab)["dnb/risk"]["failures"]) == 1
            assert tab.complaints == []

            site.write("{bci: {scop: bci}}")
            daemon.wait_for("stays in use")

            def is_told() -> bool:
                tab.pass_time(6)  # an update may have begun just before the error
                return "config.yaml:10:20: unknown key. The config loaded " in text(tab, "#troubles")

            eventually(is_told)

            html = tab.evaluate("fetch('/').then((answer) => answer.text())")
            assert "the-token-itself" not in html
            assert (site.tokens / "dnb/bci").read_text() == "the-token-itself"
            assert daemon.stop() == 0
            tab.pass_time(6)
            assert "it cannot be reached" in text(tab, "#lost")


@pytest.mark.parametrize("wanted", [True, False])
def test_the_page_is_on_the_control_socket_and_optionally_on_listen(tmp_path: Any, wanted: bool) -> None:
    with serving(issues()) as server:
        top = f'listen: {{address: "127.0.0.1:0", page: {str(wanted).lower()}}}'
        site = Site(tmp_path, server.url, top=top)
        with running("run", "-c", site.config) as daemon:
            port = int(daemon.wait_for("listening on port").rpartition(" ")[2])
            site.wait_for(bci="valid")
            control = socket.socket(socket.AF_UNIX)
            control.connect(str(site.socket))
            both = [raw(control), raw(socket.create_connection(("127.0.0.1", port)))]
    heads = [head.splitlines() for head, _ in both]
    expected = {"Content-Type: text/html; charset=utf-8", *(f"{name}: {value}" for name, value in page.HEADERS)}
    assert expected <= set(heads[0])
    assert Parts(both[0][1]).embedded()["tokens"][0]["name"] == "dnb/bci"
    assert (heads[1][0].split()[1], expected <= set(heads[1])) == (("200", True) if wanted else ("404", False))
